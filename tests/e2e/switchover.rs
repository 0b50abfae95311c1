//! A planned change of primary, under load, and one that can't be carried out.

use std::{collections::HashSet, process::Output, time::Duration};

use crate::support::{
    Cluster, Proxy, Stop, WriteLoad, eventually, own_cluster, pgsplit, run, sqlstate,
};

/// Who may fence and promote.
const ADMIN: &str = "[monitor]\nuser = \"postgres\"\npassword = \"postgres\"\n[failover]\nuser = \"postgres\"\npassword = \"postgres\"\n";

/// As the README says it.
const KEEPER: &str = "create role keeper login password 'keeper';
    grant alter system on parameter default_transaction_read_only, primary_conninfo to keeper;
    grant execute on function pg_reload_conf(), pg_promote(boolean, integer) to keeper;
    grant pg_signal_backend, pg_monitor to keeper;";

async fn command(proxy: &Proxy, arguments: &[&str]) -> Output {
    let mut command = pgsplit();
    command
        .args(arguments)
        .arg("--config")
        .arg(proxy.dir.path().join("pgsplit.toml"));
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

async fn switchover(proxy: &Proxy, to: &str) -> Result<String, String> {
    let output = command(proxy, &["switchover", "--to", to]).await;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    match output.status.code() {
        Some(0) => Ok(stdout),
        Some(1) => Err(stderr),
        other => panic!("{other:?}: {stdout}{stderr}"),
    }
}

/// To a node itself.
fn direct(cluster: &Cluster, node: usize) -> tokio_postgres::Config {
    let port = cluster.nodes()[node].port;
    format!("host=127.0.0.1 port={port} user=app password=app dbname=app")
        .parse()
        .unwrap()
}

/// Writes until the node refuses to; what was acknowledged.
async fn write_directly(config: tokio_postgres::Config, client: i32) -> Vec<(i32, i32)> {
    let mut acknowledged = Vec::new();
    let mut n = 0;
    loop {
        let Ok((session, connection)) = config.connect(tokio_postgres::NoTls).await else {
            continue;
        };
        tokio::spawn(connection);
        loop {
            n += 1;
            let insert = "insert into written values ($1, $2)";
            match session.execute(insert, &[&client, &n]).await {
                Ok(_) => acknowledged.push((client, n)),
                Err(error) if sqlstate(&error) == "25006" => return acknowledged,
                Err(_) => break,
            }
        }
    }
}

/// Every acknowledged write is on the node, and each once.
fn all_there(cluster: &Cluster, node: usize, acknowledged: &[(i32, i32)]) {
    let rows = cluster.psql(node, "select client, n from written").unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    let there: HashSet<&str> = rows.iter().copied().collect();
    assert_eq!(rows.len(), there.len(), "some were written twice");
    for (client, n) in acknowledged {
        assert!(
            there.contains(&*format!("{client}|{n}")),
            "{client}, {n} is lost"
        );
    }
}

#[test]
fn a_switchover_under_load_costs_no_error_and_no_write() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, ADMIN).await;
        let client = proxy.connect("app", "app").await;
        WriteLoad::prepare(&client).await;
        proxy.wait_for_table(&cluster, "written").await;
        let load = WriteLoad::start(&proxy, 32, &[]);
        // Others write without pgsplit, and connect again when they are cut off.
        let foreign: Vec<_> = (1..=3)
            .map(|writer| tokio::spawn(write_directly(direct(&cluster, 0), -writer)))
            .collect();
        load.progress(500).await;
        let told = switchover(&proxy, "pg2").await.unwrap();
        cluster.was_promoted(1);
        println!("{told}");
        assert!(
            told.starts_with("pg2 is the primary instead of pg1, from "),
            "{told}"
        );
        assert!(told.contains("; pg3 follows"), "{told}");
        load.progress(500).await;
        // And back, to the other one.
        let told = switchover(&proxy, "pg3").await.unwrap();
        cluster.was_promoted(2);
        println!("{told}");
        load.progress(500).await;
        let (mut acknowledged, slowest) = load.finish();
        println!(
            "{} writes, the slowest took {slowest:?}",
            acknowledged.len()
        );
        for writer in foreign {
            let written = writer.await.unwrap();
            assert!(!written.is_empty());
            acknowledged.extend(written);
        }
        all_there(&cluster, 2, &acknowledged);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        // Whoever goes to an old primary directly is told so.
        let error = cluster
            .psql(0, "insert into written values (0, 0)")
            .unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
        let events = proxy.get("/api/v1/events").unwrap();
        for found in [
            "\"switchover\"",
            "\"fence\"",
            "\"hold\"",
            "\"follow\"",
            "\"switched\"",
        ] {
            assert!(events.contains(found), "no {found} in {events}");
        }
        assert!(proxy.metric("pgsplit_events_total", &["kind=\"switchover\""]) >= 10.0);
    });
}

#[test]
fn a_switchover_that_cannot_be_is_undone_and_nobody_notices() {
    run(async {
        let cluster = own_cluster(1);
        // Somebody who may do just this.
        cluster.psql(0, KEEPER).unwrap();
        cluster.wait_for_replay(1).unwrap();
        let settings = "[failover]\nuser = \"keeper\"\npassword = \"keeper\"\nswitchover_timeout = \"1500ms\"\n";
        let proxy = Proxy::start(&cluster, settings).await;
        let mut client = proxy.connect("app", "app").await;
        WriteLoad::prepare(&client).await;
        proxy.wait_for_table(&cluster, "written").await;

        for (to, why) in [
            ("pg1", "is the primary already"),
            ("pg9", "there is no node"),
        ] {
            let told = switchover(&proxy, to).await.unwrap_err();
            assert!(told.contains(why), "{told}");
        }

        let load = WriteLoad::start(&proxy, 4, &[]);
        // A transaction of our own goes on for too long.
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute("insert into written values (-1, 1)", &[])
            .await
            .unwrap();
        let told = switchover(&proxy, "pg2").await.unwrap_err();
        assert!(
            told.contains("undone") && told.contains("transactions"),
            "{told}"
        );
        transaction.commit().await.unwrap();
        load.progress(20).await;

        // Somebody else's does.
        let (foreign, connection) = direct(&cluster, 0)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        foreign
            .batch_execute("begin; insert into written values (-1, 2)")
            .await
            .unwrap();
        let told = switchover(&proxy, "pg2").await.unwrap_err();
        assert!(
            told.contains("undone") && told.contains("kept from"),
            "{told}"
        );
        foreign.batch_execute("commit").await.unwrap();
        foreign
            .batch_execute("insert into written values (-1, 3)")
            .await
            .unwrap();
        load.progress(20).await;

        // The replica doesn't catch up.
        cluster.delay_replay(1, Duration::from_secs(60)).unwrap();
        load.progress(20).await;
        let told = switchover(&proxy, "pg2").await.unwrap_err();
        assert!(
            told.contains("undone") && told.contains("catch up"),
            "{told}"
        );
        load.progress(20).await;
        cluster.set(1, "recovery_min_apply_delay", "0").unwrap();
        let (mut acknowledged, slowest) = load.finish();
        assert!(slowest < Duration::from_secs(10), "{slowest:?}");
        acknowledged.extend([(-1, 1), (-1, 2), (-1, 3)]);
        all_there(&cluster, 0, &acknowledged);
        assert_eq!(
            cluster
                .psql(0, "show default_transaction_read_only")
                .unwrap(),
            "off"
        );
        cluster.wait_for_replay(1).unwrap();
        // Nothing stands in the way of the next.
        switchover(&proxy, "pg2").await.unwrap();
        cluster.was_promoted(1);
        client
            .batch_execute("insert into written values (-1, 4)")
            .await
            .unwrap();
        acknowledged.push((-1, 4));
        all_there(&cluster, 1, &acknowledged);
    });
}

#[test]
fn a_primary_that_cannot_be_fenced_is_not_switched_from() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let told = switchover(&proxy, "pg2").await.unwrap_err();
        assert!(told.contains("may not fence it"), "{told}");
        // Nothing was begun.
        assert_eq!(
            proxy.metric("pgsplit_events_total", &["kind=\"hold\""]),
            0.0
        );
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();

        // It dies in the middle: neither is it fenced, nor can that be undone before it is back.
        let settings = format!("{ADMIN}hold = \"2s\"\n");
        let proxy = Proxy::start(&cluster, &settings).await;
        let mut client = proxy.connect("app", "app").await;
        let transaction = client.transaction().await.unwrap();
        transaction
            .execute("insert into t values (1)", &[])
            .await
            .unwrap();
        let switching = async {
            let told = switchover(&proxy, "pg2").await.unwrap_err();
            assert!(told.contains("pg1"), "{told}");
        };
        let hanging = async {
            eventually("new transactions are held", async || {
                proxy.metric("pgsplit_events_total", &["kind=\"hold\""]) >= 1.0
            })
            .await;
            cluster.stop(0, Stop::Kill).unwrap();
            let error = transaction.commit().await.unwrap_err();
            assert!(
                ["40001", "08007"].contains(&&*sqlstate(&error)),
                "{error:?}"
            );
        };
        tokio::join!(switching, hanging);
        cluster.start_node(0).unwrap();
        eventually("the primary takes writes again", async || {
            client
                .batch_execute("insert into t values (2)")
                .await
                .is_ok()
        })
        .await;
    });
}

#[test]
fn a_program_may_promote_and_sessions_of_their_own_connections_move_back() {
    run(async {
        let cluster = own_cluster(1);
        let script = cluster.dir().join("failover.sh");
        let told = cluster.dir().join("told");
        let psql = cluster.bin().join("psql");
        std::fs::write(
            &script,
            format!(
                "#!/bin/sh\necho \"$*\" >> {told}\n\
                 test \"$1\" = promote || exit 3\n\
                 exec {psql} -XqAt -h {dir} -p \"$4\" -U postgres -c 'select pg_promote(false)' app >&2\n",
                told = told.display(),
                psql = psql.display(),
                dir = cluster.dir().display(),
            ),
        )
        .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let settings = format!("{ADMIN}command = \"{}\"\n", script.display());
        let proxy = Proxy::start(&cluster, &settings).await;
        let said = switchover(&proxy, "pg2").await.unwrap();
        assert!(
            said.contains("pg1 doesn't follow") && said.contains("exit status: 3"),
            "{said}"
        );
        let [one, two] = [0, 1].map(|node| cluster.nodes()[node].port);
        let expected = format!(
            "promote pg2 127.0.0.1 {two} pg2 127.0.0.1 {two}\n\
             follow pg1 127.0.0.1 {one} pg2 127.0.0.1 {two}\n"
        );
        assert_eq!(std::fs::read_to_string(told).unwrap(), expected);
        // The old primary comes back as a replica, and can be switched to.
        cluster.was_promoted(1);
        cluster.stop(0, Stop::Fast).unwrap();
        cluster.rejoin(0).unwrap();
        drop(proxy);
        let settings = format!("{ADMIN}[pool]\nmode = \"session\"\n");
        let proxy = Proxy::start(&cluster, &settings).await;
        let client = proxy.connect("app", "app").await;
        WriteLoad::prepare(&client).await;
        cluster.wait_for_replay(0).unwrap();
        // Sessions with connections of their own give them up for others, unless something that
        // they need is there.
        let pinned = proxy.connect("app", "app").await;
        pinned
            .batch_execute("create temp table mine (a int)")
            .await
            .unwrap();
        let load = WriteLoad::start(&proxy, 6, &[]);
        load.progress(50).await;
        switchover(&proxy, "pg1").await.unwrap();
        cluster.was_promoted(0);
        load.progress(50).await;
        let (acknowledged, _) = load.finish();
        all_there(&cluster, 0, &acknowledged);
        pinned.batch_execute("select from mine").await.unwrap_err();
        client
            .batch_execute("insert into written values (-1, 1)")
            .await
            .unwrap();
    });
}

/// Writes wait while a transaction holds a switchover up; reads don't, also those of sessions that
/// wrote a moment before.
#[test]
fn reads_go_on_while_a_switchover_waits() {
    run(async {
        let cluster = own_cluster(1);
        let settings = format!("{ADMIN}switchover_timeout = \"6s\"\n");
        let proxy = Proxy::start(&cluster, &settings).await;
        let mut blocker = proxy.connect("app", "app").await;
        blocker
            .batch_execute("create table t (id int primary key, n int)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "t").await;
        let transaction = blocker.transaction().await.unwrap();
        let insert = "insert into t values (-1, 0)";
        transaction.batch_execute(insert).await.unwrap();
        let ended = std::cell::Cell::new(false);
        let clients = (0..10).map(async |id| {
            let client = proxy.connect("app", "app").await;
            let sql = format!("insert into t values ({id}, 0)");
            client.batch_execute(&sql).await.unwrap();
            let mut slowest = Duration::ZERO;
            for n in 1.. {
                let sql = format!("update t set n = {n} where id = {id}");
                client.batch_execute(&sql).await.unwrap();
                for _ in 0..2 {
                    let began = tokio::time::Instant::now();
                    let sql = format!("select n from t where id = {id}");
                    let row = client.query_one(&sql, &[]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(0), n, "client {id}");
                    slowest = slowest.max(began.elapsed());
                }
                if ended.get() {
                    break;
                }
            }
            slowest
        });
        let (told, slowest) = futures_util::future::join(
            async {
                let told = switchover(&proxy, "pg2").await;
                ended.set(true);
                told
            },
            futures_util::future::join_all(clients),
        )
        .await;
        let told = told.unwrap_err();
        assert!(told.contains("undone"), "{told}");
        // The writes behind them waited for six seconds.
        let slowest = slowest.into_iter().max().unwrap();
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        transaction.commit().await.unwrap();
    });
}

#[test]
fn of_two_switchovers_at_once_one_is_carried_out() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, ADMIN).await;
        let mut blocker = proxy.connect("app", "app").await;
        let transaction = blocker.transaction().await.unwrap();
        transaction
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        let (one, other, ()) = futures_util::future::join3(
            switchover(&proxy, "pg2"),
            switchover(&proxy, "pg3"),
            async {
                // The one waits for the transaction, the other for the one.
                eventually("both are ordered", async || {
                    proxy.log().matches("SWITCHOVER").count() >= 2
                })
                .await;
                transaction.commit().await.unwrap();
            },
        )
        .await;
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        let told = one.err().or(other.err()).unwrap();
        assert!(
            told.contains("become another one") || told.contains("going on already"),
            "{told}"
        );
        eventually("one primary, and one that follows it", async || {
            let rows = proxy.console("show nodes").await;
            let roles = rows.iter().map(|row| row.get("role"));
            let count = |role| roles.clone().filter(|of| *of == Some(role)).count();
            count("primary") == 1 && count("replica") == 1
        })
        .await;
    });
}

/// What a switchover that broke off has left behind, or an operator: nothing else tells why every
/// write fails.
#[test]
fn a_primary_that_is_configured_read_only_is_an_alert() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        // A careful operator's setting for the monitor's user alone says nothing of others.
        cluster
            .psql(
                0,
                "alter role app in database postgres set default_transaction_read_only = on",
            )
            .unwrap();
        let set = |what: &str| {
            let sql = format!("alter system {what}");
            cluster.psql(0, &sql).unwrap();
            cluster.psql(0, "select pg_reload_conf()").unwrap();
        };
        let alerts = async || {
            let rows = proxy.console("show events").await;
            let of = |kind: &str| {
                let found = rows.iter().filter(|row| row.get("kind") == Some(kind));
                found.filter(|row| row.get("node") == Some("pg1")).count()
            };
            (of("alert"), of("alert_over"))
        };
        assert_eq!(alerts().await, (0, 0));
        set("set default_transaction_read_only = on");
        eventually("an alert", async || alerts().await == (1, 0)).await;
        assert!(proxy.log().contains("ERROR"), "{}", proxy.log());
        assert!(
            proxy
                .log()
                .contains("ALTER SYSTEM RESET default_transaction_read_only")
        );
        set("reset default_transaction_read_only");
        eventually("its end", async || alerts().await == (1, 1)).await;
    });
}
