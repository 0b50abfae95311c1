//! The monitor against a real primary with two streaming replicas.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests are tests"
)]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use pgsplit::{
    cluster::{Alert, CaughtUp, Failure, Health, NodeId, Role, Seen, View, What, caught_up},
    config::settings,
    monitor::Monitor,
};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const PG1: NodeId = NodeId(0);
const PG2: NodeId = NodeId(1);
const PG3: NodeId = NodeId(2);
const INTERVAL: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(1);
/// For things that PostgreSQL itself takes its time for.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a loaded machine may add to a bound.
const SLACK: Duration = Duration::from_millis(500);

#[tokio::test]
async fn roles_are_found_and_lag_grows_only_for_a_replica_that_misses_something() {
    let cluster = Postgres::cluster(2);
    let watched = watch(&cluster, "app", INTERVAL);
    let monitor = &watched.monitor;
    let view = until(monitor, PATIENCE, |v| all_up(v, 3)).await;
    assert_eq!((view.primary, view.epoch), (Some(PG1), 1));
    assert_eq!(roles(&view), [Role::Primary, Role::Replica, Role::Replica]);
    assert!(
        view.nodes
            .iter()
            .all(|n| n.timeline == Some(1) && n.comparable)
    );
    assert!(view.nodes.iter().all(|n| n.version.unwrap() >= 100_000));
    until(monitor, PATIENCE, |v| {
        v.nodes
            .iter()
            .all(|n| n.lag == Some(Duration::ZERO) && n.lag_bytes == Some(0))
    })
    .await;

    let primary = cluster[0].connect("postgres").await;
    let replica = cluster[1].connect("postgres").await;
    replica
        .batch_execute("select pg_wal_replay_pause()")
        .await
        .unwrap();
    let idle_since = until(monitor, PATIENCE, |v| v.nodes[1].replay_paused).await;
    let paused_at = position(&idle_since, PG2);
    let view = until(monitor, PATIENCE, |v| {
        position(v, PG2) > paused_at + 4 * INTERVAL
    })
    .await;
    assert_eq!(
        view.nodes[1].lag,
        Some(Duration::ZERO),
        "an idle primary makes no lag"
    );

    primary
        .batch_execute("create table t (n int); insert into t values (1)")
        .await
        .unwrap();
    let view = until(monitor, PATIENCE, |v| {
        v.nodes[1]
            .lag
            .is_some_and(|lag| lag > Duration::from_millis(700))
    })
    .await;
    assert!(view.nodes[1].lag_bytes.unwrap() > 0);
    assert!(view.nodes[2].lag.unwrap() < Duration::from_millis(500));

    replica
        .batch_execute("select pg_wal_replay_resume()")
        .await
        .unwrap();
    until(monitor, PATIENCE, |v| {
        v.nodes[1].lag == Some(Duration::ZERO)
    })
    .await;
}

#[tokio::test]
async fn a_sample_comes_within_milliseconds_and_only_when_somebody_asks() {
    let cluster = Postgres::cluster(1);
    let watched = watch(&cluster, "app", Duration::from_secs(600));
    let monitor = &watched.monitor;
    let view = until(monitor, PATIENCE, |v| all_up(v, 2)).await;
    let primary = cluster[0].connect("postgres").await;
    let replica = cluster[1].connect("postgres").await;
    primary
        .batch_execute("create table t (n int)")
        .await
        .unwrap();

    let mut waits = Vec::new();
    for n in 0..50 {
        primary
            .batch_execute("insert into t values (1)")
            .await
            .unwrap();
        let mut seen = Seen::default();
        let written = Instant::now();
        seen.on_primary(view.epoch, PG1, written.into_std());
        let mut ticks = monitor.subscribe();
        // What a session does that waits for a replica.
        while caught_up(&monitor.view(), PG2, &seen) != CaughtUp::Yes {
            match caught_up(&monitor.view(), PG2, &seen) {
                CaughtUp::NeedSample(node) => monitor.want_sample(node),
                CaughtUp::NotYet => monitor.want_sample(PG2),
                CaughtUp::Yes | CaughtUp::Never => {}
            }
            timeout(TIMEOUT, ticks.changed())
                .await
                .expect("a wish brings a view")
                .unwrap();
        }
        waits.push(written.elapsed());
        let row = replica
            .query_one("select count(*) from t", &[])
            .await
            .unwrap();
        assert_eq!(
            row.get::<_, i64>(0),
            n + 1,
            "the replica shows what was written"
        );
    }
    waits.sort();
    println!(
        "50 waits for a replica: median {:?}, slowest {:?}",
        waits[25], waits[49]
    );
    assert!(waits[49] < SLACK);

    let mut ticks = monitor.subscribe();
    while timeout(INTERVAL, ticks.changed()).await.is_ok() {}
    let silence = timeout(2 * INTERVAL, ticks.changed()).await;
    assert!(silence.is_err(), "nobody asks any more");
}

#[tokio::test]
async fn a_hung_or_killed_replica_is_left_and_returns_after_good_probes() {
    let cluster = Postgres::cluster(2);
    let watched = watch(&cluster, "app", INTERVAL);
    let monitor = &watched.monitor;
    until(monitor, PATIENCE, |v| all_up(v, 3)).await;

    let stopped = Instant::now();
    cluster[1].signal("STOP");
    until(monitor, PATIENCE, |v| v.nodes[1].health == Health::Down).await;
    println!("hung replica down after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < TIMEOUT + INTERVAL + SLACK);
    assert_eq!(monitor.view().nodes[1].role, Role::Unknown);
    assert_eq!(monitor.view().primary, Some(PG1));
    cluster[1].signal("CONT");
    let continued = Instant::now();
    until(monitor, PATIENCE, |v| v.nodes[1].health == Health::Up).await;
    println!("back after {:?}", continued.elapsed());
    assert!(continued.elapsed() >= INTERVAL, "not with the first answer");

    let killed = Instant::now();
    cluster[2].kill();
    until(monitor, PATIENCE, |v| v.nodes[2].health == Health::Down).await;
    println!("killed replica down after {:?}", killed.elapsed());
    assert!(killed.elapsed() < INTERVAL + SLACK);
    cluster[2].start();
    until(monitor, PATIENCE, |v| all_up(v, 3)).await;

    // A failure that only a query saw: asked at once, found well, and nothing else.
    let before = monitor.events().len();
    monitor.report_failure(PG2, Failure::Closed);
    let reported = Instant::now();
    while monitor.events().len() < before + 2 {
        tokio::task::yield_now().await;
        assert!(reported.elapsed() < TIMEOUT);
    }
    println!("suspect and up again in {:?}", reported.elapsed());
    let whats: Vec<_> = monitor
        .events()
        .iter()
        .skip(before)
        .map(|r| r.event.what)
        .collect();
    let change = |from, to| What::Health { from, to };
    let (up, suspect) = (Health::Up, Health::Suspect);
    assert_eq!(whats, [change(up, suspect), change(suspect, up)]);
}

#[tokio::test]
async fn a_node_that_accepts_and_never_answers_is_down_and_one_that_refuses_us_says_why() {
    let cluster = Postgres::cluster(0);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut nodes = vec![cluster[0].settings()];
    for (name, listener) in [("silent", &silent), ("closed", &closed)] {
        nodes.push(settings::Node {
            name: name.into(),
            port: listener.local_addr().unwrap().port(),
            ..cluster[0].settings()
        });
    }
    drop(closed);
    let started = Instant::now();
    let watched = watch_nodes(&nodes, "app", INTERVAL);
    let monitor = &watched.monitor;
    let view = until(monitor, PATIENCE, |v| v.primary == Some(PG1)).await;
    println!(
        "primary found after {:?} beside a silent node",
        started.elapsed()
    );
    assert!(started.elapsed() < TIMEOUT + SLACK);
    assert_eq!(view.nodes[1].health, Health::Down);
    assert_eq!(view.nodes[2].health, Health::Down);

    let refused = watch(&cluster, "nobody", INTERVAL);
    until(&refused.monitor, PATIENCE, |v| {
        v.nodes[0].health == Health::Down
    })
    .await;
    let last = refused.monitor.events().pop().unwrap();
    assert_eq!(last.event.cause.to_string(), "probe: error 28P01");
}

#[tokio::test]
async fn a_user_who_may_not_read_the_control_file_watches_well_enough() {
    let cluster = Postgres::cluster(1);
    for function in ["system", "checkpoint", "recovery"] {
        cluster[0].sql(&format!(
            "revoke execute on function pg_control_{function}() from public"
        ));
    }
    let watched = watch(&cluster, "app", INTERVAL);
    let view = until(&watched.monitor, PATIENCE, |v| all_up(v, 2)).await;
    assert_eq!(view.primary, Some(PG1));
    assert_eq!(view.nodes[0].timeline, Some(1));
    assert_eq!(view.nodes[1].timeline, None);
}

#[tokio::test]
async fn a_promotion_is_followed_and_the_old_primary_is_fenced_when_it_returns() {
    let cluster = Postgres::cluster(2);
    let watched = watch(&cluster, "watcher", INTERVAL);
    // Another one, whose user may see less.
    let ordinary = watch(&cluster, "app", INTERVAL);
    let monitor = &watched.monitor;
    until(monitor, PATIENCE, |v| all_up(v, 3)).await;
    until(&ordinary.monitor, PATIENCE, |v| all_up(v, 3)).await;

    let killed = Instant::now();
    cluster[0].kill();
    let view = until(monitor, PATIENCE, |v| v.primary.is_none()).await;
    println!("primary missed after {:?}", killed.elapsed());
    assert_eq!(roles(&view)[1..], [Role::Replica, Role::Replica]);

    let replica = cluster[1].connect("postgres").await;
    replica.batch_execute("select pg_promote()").await.unwrap();
    let promoted = Instant::now();
    let view = until(monitor, PATIENCE, |v| v.primary == Some(PG2)).await;
    println!("promotion seen after {:?}", promoted.elapsed());
    assert!(promoted.elapsed() < SLACK);
    assert_eq!((view.epoch, view.nodes[1].timeline), (2, Some(2)));
    assert_eq!(
        view.nodes[2].role,
        Role::Replica,
        "has nothing that the new primary hasn't"
    );

    let mut seen = Seen::default();
    seen.on_primary(1, PG1, killed.into_std());
    assert_ne!(caught_up(&view, PG3, &seen), CaughtUp::Yes);

    let pg3 = cluster[2].connect("postgres").await;
    let conninfo = cluster[1].conninfo();
    pg3.batch_execute(&format!("alter system set primary_conninfo = '{conninfo}'"))
        .await
        .unwrap();
    pg3.batch_execute("select pg_reload_conf()").await.unwrap();
    let pointed = Instant::now();
    replica
        .batch_execute("create table t as select generate_series(1, 10000) n")
        .await
        .unwrap();
    until(monitor, PATIENCE, |v| {
        v.nodes[2].timeline == Some(2) && caught_up(v, PG3, &seen) == CaughtUp::Yes
    })
    .await;
    println!(
        "follows, seen with pg_monitor after {:?}",
        pointed.elapsed()
    );

    let view = until(&ordinary.monitor, PATIENCE, |v| v.primary == Some(PG2)).await;
    println!(
        "without: {:?} on {:?}",
        view.nodes[2].role, view.nodes[2].timeline
    );
    replica.batch_execute("checkpoint").await.unwrap();
    pg3.batch_execute("checkpoint").await.unwrap();
    until(&ordinary.monitor, PATIENCE, |v| {
        v.nodes[2].role == Role::Replica
    })
    .await;

    cluster[0].start();
    for monitor in [monitor, &ordinary.monitor] {
        until(monitor, PATIENCE, |v| v.nodes[0].role == Role::Fenced).await;
        let view = until(monitor, PATIENCE, |v| all_up(v, 3)).await;
        assert_eq!((view.primary, view.epoch), (Some(PG2), 2));
        let superseded = Alert::Superseded {
            timeline: 1,
            newest: 2,
        };
        assert_eq!(monitor.alerts(), [(PG1, superseded)]);
    }
    for event in monitor.events() {
        println!("{event:?}");
    }
}

#[tokio::test]
async fn a_replica_that_follows_the_fenced_primary_is_not_read_from() {
    let cluster = Postgres::cluster(2);
    let watched = watch(&cluster, "watcher", INTERVAL);
    let monitor = &watched.monitor;
    until(monitor, PATIENCE, |v| all_up(v, 3)).await;
    let replica = cluster[1].connect("postgres").await;
    replica.batch_execute("select pg_promote()").await.unwrap();
    until(monitor, PATIENCE, |v| v.primary == Some(PG2)).await;
    assert_eq!(monitor.view().nodes[0].role, Role::Fenced);

    let old = cluster[0].connect("postgres").await;
    old.batch_execute("create table elsewhere as select generate_series(1, 10000) n")
        .await
        .unwrap();
    until(monitor, PATIENCE, |v| v.nodes[2].role == Role::Unknown).await;
    let detached = Alert::Detached {
        timeline: Some(1),
        primary: 2,
    };
    assert!(monitor.alerts().contains(&(PG3, detached)));
}

#[tokio::test]
async fn a_catalogue_is_loaded_when_asked_for_and_never_kept_after_a_change() {
    let cluster = Postgres::cluster(0);
    cluster[0].sql("create database shop");
    let watched = watch(&cluster, "app", INTERVAL);
    let monitor = &watched.monitor;
    until(monitor, PATIENCE, |v| all_up(v, 1)).await;
    assert!(monitor.catalogue("shop").is_none(), "on its way");
    let asked = Instant::now();
    let first = catalogue_after(monitor, 0).await;
    println!("loaded after {:?}", asked.elapsed());

    let slot = monitor.catalogue_slot("shop").unwrap();
    slot.ddl_seen();
    assert!(slot.current().is_none(), "not trusted for a moment");
    let seen = Instant::now();
    let second = catalogue_after(monitor, first).await;
    println!("back after {:?}", seen.elapsed());

    let elsewhere = cluster[0].connect_to("postgres", "shop").await;
    // None of these changes what names mean.
    elsewhere
        .batch_execute(
            "create table t (n int); create temp table mine (n int); insert into t values (1)",
        )
        .await
        .unwrap();
    let third = catalogue_after(monitor, second).await;
    elsewhere
        .batch_execute(
            "insert into t values (2); create temp table more (n int); truncate t; analyze",
        )
        .await
        .unwrap();
    let quiet = timeout(Duration::from_secs(5), catalogue_after(monitor, third)).await;
    assert!(quiet.is_err(), "loaded again without need");
    for change in [
        "create function f() returns int language sql stable as 'select 1'",
        "alter function f() volatile",
        "create view v as select n, f() from t",
        "create policy p on t using (f() = 1)",
        "drop policy p on t",
    ] {
        let before = monitor.catalogue("shop").unwrap().generation;
        elsewhere.batch_execute(change).await.unwrap();
        let changed = Instant::now();
        catalogue_after(monitor, before).await;
        println!("{change}: noticed after {:?}", changed.elapsed());
    }
}

/// The generation of a catalogue that is newer than `generation`.
async fn catalogue_after(monitor: &Arc<Monitor>, generation: u64) -> u64 {
    let wait = async {
        loop {
            if let Some(catalogue) = monitor.catalogue("shop")
                && catalogue.generation > generation
            {
                return catalogue.generation;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("a newer catalogue")
}

fn roles(view: &View) -> Vec<Role> {
    view.nodes.iter().map(|n| n.role).collect()
}

fn all_up(view: &View, nodes: usize) -> bool {
    view.nodes.len() == nodes
        && view
            .nodes
            .iter()
            .all(|n| n.health == Health::Up && n.role != Role::Unknown)
}

fn position(view: &View, node: NodeId) -> Instant {
    view.nodes[node.index()].position().unwrap().asked_at.into()
}

/// The first view for which `condition` holds.
async fn until(monitor: &Monitor, limit: Duration, condition: impl Fn(&View) -> bool) -> Arc<View> {
    let mut ticks = monitor.subscribe();
    let wait = async {
        loop {
            let view = monitor.view_full();
            if condition(&view) {
                return view;
            }
            ticks.changed().await.unwrap();
        }
    };
    match timeout(limit, wait).await {
        Ok(view) => view,
        Err(_) => panic!("not in time: {:#?} {:#?}", monitor.view(), monitor.events()),
    }
}

struct Watched {
    monitor: Arc<Monitor>,
    stop: CancellationToken,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn watch(cluster: &[Postgres], user: &str, interval: Duration) -> Watched {
    let nodes: Vec<_> = cluster.iter().map(Postgres::settings).collect();
    watch_nodes(&nodes, user, interval)
}

fn watch_nodes(nodes: &[settings::Node], user: &str, interval: Duration) -> Watched {
    let settings = settings::Monitor {
        interval,
        timeout: TIMEOUT,
        down_after: 2,
        up_after: 3,
        user: user.to_owned(),
        password: Some(settings::Secret(user.to_owned())),
        database: "postgres".to_owned(),
        ..settings::Monitor::default()
    };
    let stop = CancellationToken::new();
    let failover = settings::Failover::default();
    let tracker = TaskTracker::new();
    let monitor = Monitor::start(nodes, &settings, &failover, &tracker, &stop).unwrap();
    Watched { monitor, stop }
}

/// One PostgreSQL server in a directory of its own, gone when dropped.
struct Postgres {
    name: String,
    port: u16,
    data: PathBuf,
    _home: Arc<tempfile::TempDir>,
}

impl Postgres {
    /// A primary and its replicas; users `app` (nobody special) and `watcher` (`pg_monitor`).
    fn cluster(replicas: usize) -> Vec<Self> {
        let home = tempfile::Builder::new()
            .prefix("pgsplit-monitor-")
            .tempdir()
            .unwrap();
        run(Command::new("chmod").arg("755").arg(home.path()));
        if as_postgres().is_some() {
            run(Command::new("chown").arg("postgres").arg(home.path()));
        }
        let home = Arc::new(home);
        let primary = Self::place(&home, 1);
        let password = home.path().join("password");
        fs::write(&password, "postgres").unwrap();
        run(primary
            .tool("initdb")
            .args(["--no-sync", "-U", "postgres", "-A", "scram-sha-256"])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&primary.data));
        let mut settings = fs::read_to_string(primary.data.join("postgresql.conf")).unwrap();
        settings.push_str(
            "\nfsync = off\nshared_buffers = 16MB\nmax_connections = 30\nlisten_addresses = '127.0.0.1'\n\
             unix_socket_directories = ''\nwal_retrieve_retry_interval = 100ms\nautovacuum = off\n",
        );
        fs::write(primary.data.join("postgresql.conf"), settings).unwrap();
        primary.start();
        primary.sql("create role app login password 'app'");
        primary.sql("create role watcher login password 'watcher' in role pg_monitor");
        let mut all = vec![primary];
        for n in 0..replicas {
            let replica = Self::place(&home, n + 2);
            run(replica
                .tool("pg_basebackup")
                .args(["--no-sync", "-R", "-c", "fast", "-X", "stream", "-d"])
                .arg(all[0].conninfo())
                .arg("-D")
                .arg(&replica.data));
            replica.start();
            all.push(replica);
        }
        all
    }

    fn place(home: &Arc<tempfile::TempDir>, number: usize) -> Self {
        let name = format!("pg{number}");
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            port: free.local_addr().unwrap().port(),
            data: home.path().join(&name),
            name,
            _home: home.clone(),
        }
    }

    fn settings(&self) -> settings::Node {
        settings::Node {
            name: self.name.as_str().into(),
            host: settings::Host::Tcp("127.0.0.1".to_owned()),
            port: self.port,
            zone: "".into(),
            weight: 1,
            role: settings::NodeRole::Auto,
            tls: settings::NodeTls {
                sslmode: settings::SslMode::Disable,
                ca: None,
                cert: None,
                key: None,
            },
        }
    }

    fn conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres password=postgres dbname=postgres",
            self.port
        )
        .replace(" dbname=postgres", "")
    }

    async fn connect(&self, user: &str) -> Client {
        self.connect_to(user, "postgres").await
    }

    async fn connect_to(&self, user: &str, database: &str) -> Client {
        let login = format!(
            "host=127.0.0.1 port={} user={user} password={user} dbname={database}",
            self.port
        );
        let (client, connection) = tokio_postgres::connect(&login, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn sql(&self, text: &str) {
        run(self
            .tool("psql")
            .args(["-X", "-q", "-d"])
            .arg(self.conninfo() + " dbname=postgres")
            .args(["-c", text]));
    }

    fn start(&self) {
        run(self
            .tool("pg_ctl")
            .args(["start", "-w", "-s", "-o"])
            .arg(format!("-p {}", self.port))
            .arg("-l")
            .arg(self.data.with_extension("log"))
            .arg("-D")
            .arg(&self.data));
    }

    fn kill(&self) {
        run(self
            .tool("pg_ctl")
            .args(["stop", "-m", "immediate", "-s", "-D"])
            .arg(&self.data));
    }

    /// To all processes of the server.
    fn signal(&self, signal: &str) {
        let Some(postmaster) = self.postmaster() else {
            return;
        };
        let mut pids = vec![postmaster.clone()];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(1));
            if parent == Some(&postmaster) {
                pids.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        // One of them may have ended by itself meanwhile.
        let _status = Command::new("kill")
            .arg(format!("-{signal}"))
            .args(pids)
            .stderr(Stdio::null())
            .status();
    }

    fn postmaster(&self) -> Option<String> {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        file.lines().next().map(str::to_owned)
    }

    fn tool(&self, name: &str) -> Command {
        let tool = binaries().join(name);
        match as_postgres() {
            None => Command::new(tool),
            Some(mut command) => {
                command.arg(tool);
                command
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.postmaster().is_some() {
            self.signal("CONT");
            let mut stop = self.tool("pg_ctl");
            stop.args(["stop", "-m", "immediate", "-s", "-D"])
                .arg(&self.data);
            let _status = stop.status();
        }
    }
}

/// PostgreSQL refuses to run as root.
fn as_postgres() -> Option<Command> {
    let root =
        fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    root.then(|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command
    })
}

/// The newest installed version's, or those of the path.
fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|bin| bin.join("initdb").exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| Path::new("").to_owned())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
}
