//! The primary is lost, another takes its place.

use std::time::Duration;

use crate::support::{
    Frame, Proxy, Raw, Stop, eventually,
    message::{bind, execute, parse, query, sync},
    own_cluster, run, sqlstate, tags,
};

#[test]
fn writes_not_sent_yet_wait_for_the_new_primary() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let mut open = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        for replica in cluster.replicas() {
            cluster.wait_for_replay(replica).unwrap();
        }
        let transaction = open.transaction().await.unwrap();
        transaction
            .execute("insert into t values (1)", &[])
            .await
            .unwrap();
        cluster.stop(0, Stop::Kill).unwrap();
        let error = transaction
            .execute("insert into t values (2)", &[])
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "40001");
        drop(transaction);
        let held = client.batch_execute("insert into t values (3)");
        let promotion = async {
            eventually("the write is held", async || {
                proxy.metric("pgsplit_held_requests", &[]) >= 1.0
            })
            .await;
            cluster.promote(1).unwrap();
            cluster.follow(2).unwrap();
        };
        let (written, ()) = tokio::join!(held, promotion);
        written.unwrap();
        assert_eq!(cluster.psql(1, "select a from t").unwrap(), "3");
        // The session of the lost transaction lives on.
        open.batch_execute("insert into t values (4)")
            .await
            .unwrap();
        let row = open.query_one("select count(*) from t", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 2);
        eventually("the failover is counted", async || {
            proxy.metric("pgsplit_failovers_total", &[]) >= 1.0
        })
        .await;
    });
}

#[test]
fn a_write_in_flight_when_the_primary_dies_is_never_sent_twice() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        cluster.wait_for_replay(1).unwrap();
        let writing =
            client.batch_execute("insert into t select 1 from pg_sleep(2) /* in flight */");
        let killing = async {
            eventually("the write runs", async || {
                !cluster.statements(0, "in flight").unwrap().is_empty()
            })
            .await;
            cluster.stop(0, Stop::Kill).unwrap();
            cluster.promote(1).unwrap();
        };
        let (written, ()) = tokio::join!(writing, killing);
        assert_eq!(sqlstate(&written.unwrap_err()), "08007");
        client
            .batch_execute("insert into t values (2)")
            .await
            .unwrap();
        assert_eq!(cluster.psql(1, "select a from t").unwrap(), "2");
        assert_eq!(cluster.ran_on("in flight").unwrap(), [0]);
        assert_eq!(proxy.metric("pgsplit_unknown_outcomes_total", &[]), 1.0);
    });
}

#[test]
fn an_old_primary_that_returns_is_never_written_to() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        cluster.wait_for_replay(1).unwrap();
        cluster.stop(0, Stop::Kill).unwrap();
        cluster.promote(1).unwrap();
        client
            .batch_execute("insert into t values (1)")
            .await
            .unwrap();
        // It comes back as the primary that it was.
        cluster.start_node(0).unwrap();
        for i in 2..60 {
            client
                .batch_execute(&format!("insert into t values ({i})"))
                .await
                .unwrap();
            client.simple_query("select * from t").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(cluster.psql(0, "select count(*) from t").unwrap(), "0");
        assert_eq!(cluster.psql(1, "select count(*) from t").unwrap(), "59");
        // Nor is it read from: it knows nothing of what came after.
        assert!(cluster.statements(0, "select * from t").unwrap().is_empty());
    });
}

/// A proxy that has just been started has seen no promotion. What a replica has replayed tells it of one,
/// though the node that was promoted is gone, and nobody streams to that replica.
#[test]
fn a_proxy_that_has_just_begun_writes_to_no_superseded_primary() {
    run(async {
        let cluster = own_cluster(2);
        cluster.psql(0, "grant pg_monitor to app").unwrap();
        cluster.wait_for_replay(1).unwrap();
        cluster.wait_for_replay(2).unwrap();
        cluster.stop(0, Stop::Kill).unwrap();
        cluster.promote(1).unwrap();
        cluster.follow(2).unwrap();
        cluster
            .psql(
                1,
                "create table public.t (a int); grant all on public.t to app",
            )
            .unwrap();
        cluster.wait_for_replay(2).unwrap();
        cluster.stop(1, Stop::Kill).unwrap();
        cluster.start_node(0).unwrap();
        let proxy = Proxy::spawn(&cluster, "[failover]\nhold = \"1s\"");
        eventually("both nodes are up", async || {
            let up = |node: &str| proxy.metric("pgsplit_node_up", &[&format!("node=\"{node}\"")]);
            proxy.get("/healthz").is_some() && up("pg1") == 1.0 && up("pg3") == 1.0
        })
        .await;
        let client = proxy.connect("app", "app").await;
        for _ in 0..2 {
            let written = client.simple_query("insert into public.t values (1)").await;
            assert_eq!(sqlstate(&written.unwrap_err()), "57P03");
        }
        assert_eq!(
            cluster
                .psql(0, "select to_regclass('public.t') is null")
                .unwrap(),
            "t"
        );
        // The one that was promoted comes back.
        cluster.start_node(1).unwrap();
        eventually("writes go on", async || {
            client
                .simple_query("insert into public.t values (2)")
                .await
                .is_ok()
        })
        .await;
        assert!(cluster.psql(1, "select count(*) from public.t").unwrap() != "0");
    });
}

#[test]
fn a_session_is_told_what_a_primary_would_tell_across_a_promotion() {
    /// What a session was told of a setting, in order.
    fn told(frames: &[Frame], name: &str) -> Vec<String> {
        let status = |frame: &Frame| {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            let (known, value) = text.trim_end_matches('\0').split_once('\0')?;
            (frame.tag == 'S' && known == name).then(|| value.to_owned())
        };
        frames.iter().filter_map(status).collect()
    }
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "t").await;
        let mut session = Raw::connect(proxy.port).await;
        let mut heard = std::mem::take(&mut session.greeting);
        // On both nodes before, so that both have connections that are used afterwards.
        heard.extend(session.query("insert into t values (1)").await);
        cluster.wait_for_replay(1).unwrap();
        for _ in 0..20 {
            heard.extend(session.query("select a from t").await);
        }
        cluster.stop(0, Stop::Kill).unwrap();
        for _ in 0..20 {
            heard.extend(session.query("select a from t").await);
        }
        cluster.promote(1).unwrap();
        for _ in 0..20 {
            heard.extend(session.query("insert into t values (2)").await);
            heard.extend(session.query("select a from t").await);
        }
        for name in ["in_hot_standby", "default_transaction_read_only"] {
            let told = told(&heard, name);
            assert!(
                !told.is_empty() && told.iter().all(|value| value == "off"),
                "{name}: {told:?}"
            );
        }
        for sql in [
            "show in_hot_standby",
            "show transaction_read_only",
            "select pg_is_in_recovery()",
        ] {
            let frames = session.query(sql).await;
            let row = frames.iter().find(|frame| frame.tag == 'D').unwrap();
            let row = String::from_utf8_lossy(&row.body);
            assert!(
                row.ends_with("off") || row.ends_with('f'),
                "{sql}: {frames:?}"
            );
        }
        assert!(heard.iter().all(|frame| frame.tag != 'E'), "{heard:?}");
        let newcomer = Raw::connect(proxy.port).await;
        assert_eq!(told(&newcomer.greeting, "in_hot_standby"), ["off"]);
    });
}

/// Commits whose answers get lost with their primary: `(how they are sent, whether they are resolved,
/// replicated before that, the types of what the client hears, the error in it, rows that are there)`.
#[test]
fn the_next_primary_tells_what_became_of_a_commit() {
    const INSERT: &str = "insert into t values (1)";
    let unknown = Some("08007");
    let cases = [
        ("simple", true, true, "CZ", None, "1"),
        ("extended", true, true, "12CZ", None, "1"),
        ("simple", true, false, "EZ", unknown, "0"),
        ("simple", false, true, "EZ", unknown, "1"),
        ("read", true, true, "CZ", None, "0"),
        // Without a transaction block.
        ("alone", true, true, "12CZ", None, "1"),
        ("alone", true, false, "12CEZ", unknown, "0"),
        ("alone", false, true, "EZ", unknown, "1"),
    ];
    for (form, resolves, replicated, heard, error, rows) in cases {
        run(async {
            let cluster = own_cluster(1);
            let settings = format!("[failover]\nresolve_commits = {resolves}");
            let proxy = Proxy::start(&cluster, &settings).await;
            let client = proxy.connect("app", "app").await;
            client
                .batch_execute("create table t (a int)")
                .await
                .unwrap();
            cluster.wait_for_replay(1).unwrap();
            let mut raw = Raw::connect(proxy.port).await;
            if form != "alone" {
                let first = if form == "read" {
                    "/* pgsplit: primary */ select 1"
                } else {
                    INSERT
                };
                for sql in ["begin", first] {
                    raw.send(&query(sql)).await;
                    raw.until_ready(1).await;
                }
            }
            // The COMMIT waits for the replica, which has it or doesn't.
            if replicated {
                cluster.pause_replay(1).unwrap();
                cluster
                    .set(0, "synchronous_commit", "remote_apply")
                    .unwrap();
            } else {
                cluster.set(1, "primary_conninfo", "").unwrap();
            }
            cluster.set(0, "synchronous_standby_names", "*").unwrap();
            let extended =
                |sql| [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
            let commit = match form {
                "extended" => extended("commit"),
                "alone" => extended(INSERT),
                _ => query("commit"),
            };
            raw.send(&commit).await;
            if form != "read" {
                eventually("the commit waits for the replica", async || {
                    let waiting =
                        "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
                    cluster.psql(0, waiting).unwrap() == "1"
                })
                .await;
                if replicated {
                    let sent = "select count(*) from pg_stat_replication where flush_lsn = pg_current_wal_lsn()";
                    cluster.wait_until(0, &format!("({sent}) = 1")).unwrap();
                }
            }
            cluster.stop(0, Stop::Kill).unwrap();
            cluster.promote(1).unwrap();
            let frames = raw.until_ready(1).await;
            let case = format!("{form} {resolves} {replicated}: {frames:?}");
            assert_eq!(tags(&frames), heard, "{case}");
            let told = frames.iter().find(|frame| frame.tag == 'E');
            let state = told.map(|frame| String::from_utf8_lossy(&frame.body).into_owned());
            assert_eq!(state.is_some(), error.is_some(), "{case}");
            if let (Some(state), Some(error)) = (state, error) {
                assert!(state.contains(&format!("C{error}")), "{case}");
            }
            // The session goes on.
            raw.send(&query("select count(*) from t")).await;
            let frames = raw.until_ready(1).await;
            let count = &frames.iter().find(|frame| frame.tag == 'D').unwrap().body;
            assert!(
                count.ends_with(rows.as_bytes()),
                "{form} {resolves} {replicated}: {count:?}"
            );
            assert_eq!(frames.last().unwrap().body, b"I");
        });
    }
}
