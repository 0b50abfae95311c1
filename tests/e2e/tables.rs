//! Writes that concern some tables, and reads of others.

use std::time::Duration;

use futures_util::SinkExt as _;

use crate::support::{Cluster, Proxy, eventually, own_cluster, run, unique};

const SCHEMA: &str = "
    create table log (id serial primary key, note text);
    create table accounts (id int primary key, balance int);
    insert into accounts select a, 0 from generate_series(1, 100) a;
    create table audit (n int);
    create table watched (n int);
    create function note() returns trigger language plpgsql as
        'begin insert into audit values (new.n); return new; end';
    create trigger t before insert on watched for each row execute function note();
    create table parents (id int primary key);
    create table children (id int references parents on delete cascade);
    insert into parents values (1), (2);
    insert into children values (1), (2);
    create view recent as select * from log where id > 0;
    create function log_count() returns bigint stable language sql as 'select count(*) from log';
    create table days (day int) partition by range (day);
    create table days_1 partition of days for values from (0) to (10);
    create table last (n int);";

async fn start(cluster: &Cluster, settings: &str) -> Proxy {
    let proxy = Proxy::start(cluster, settings).await;
    let client = proxy.connect("app", "app").await;
    let there = client
        .query_one("select to_regclass('last') is null", &[])
        .await
        .unwrap();
    if there.get(0) {
        client.batch_execute(SCHEMA).await.unwrap();
    }
    proxy.wait_for_table(cluster, "last").await;
    proxy
}

/// The answer, a number, and whether a replica gave it.
async fn read(cluster: &Cluster, client: &tokio_postgres::Client, sql: &str) -> (i64, bool) {
    let mark = unique("mark");
    let sql = format!("select ({sql})::bigint /* {mark} */");
    let answer = client.query_one(&sql, &[]).await.unwrap().get(0);
    (
        answer,
        cluster.ran_on(&mark).unwrap() != [cluster.primary()],
    )
}

const ACCOUNTS: &str = "select count(*) from accounts";

#[test]
fn a_write_keeps_reads_of_what_it_touched_on_the_primary_and_no_others() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = start(&cluster, "[routing]\nmax_lag = \"1h\"").await;
        let whole = start(
            &cluster,
            "[routing]\nmax_lag = \"1h\"\ntrack_tables = false",
        )
        .await;
        for replica in cluster.replicas() {
            cluster.pause_replay(replica).unwrap();
        }
        // What is written, what must be seen of it then, and what it comes to.
        let cases: &[(&[&str], &str, i64)] = &[
            (
                &["insert into log values (default, 'a')"],
                "select count(*) from log",
                1,
            ),
            (
                &["insert into log values (default, 'a') returning id"],
                "select count(*) from log",
                2,
            ),
            (
                &["insert into log values (default, 'a')"],
                "select count(*) from recent",
                3,
            ),
            (
                &["insert into log values (default, 'a')"],
                "select log_count()",
                4,
            ),
            (
                &["delete from log"],
                "select count(*) from accounts, log",
                0,
            ),
            (
                &["insert into watched values (1)"],
                "select count(*) from audit",
                1,
            ),
            (
                &["delete from parents where id = 1"],
                "select count(*) from children",
                1,
            ),
            (
                &["insert into days values (1)"],
                "select count(*) from days_1",
                1,
            ),
            (
                &["insert into days_1 values (1)"],
                "select count(*) from days",
                2,
            ),
            (
                &[
                    "begin",
                    "insert into log values (default, 'b')",
                    "insert into audit values (2)",
                    "commit",
                ],
                "select (select count(*) from log) * 10 + (select count(*) from audit)",
                12,
            ),
            (
                &[
                    "begin; insert into log values (default, 'c'); insert into audit values (3); commit",
                ],
                "select (select count(*) from log) * 10 + (select count(*) from audit)",
                23,
            ),
            (
                &[
                    "prepare p as insert into log values (default, 'd')",
                    "execute p",
                ],
                "select count(*) from log",
                3,
            ),
        ];
        for (writes, sql, expected) in cases {
            let client = proxy.connect("app", "app").await;
            for write in *writes {
                client.simple_query(write).await.unwrap();
            }
            // Others first: what is read on the primary keeps all reads there.
            let (others, on_replica) = read(&cluster, &client, ACCOUNTS).await;
            assert_eq!((others, on_replica), (100, true), "{writes:?}");
            client.batch_execute("begin read only").await.unwrap();
            let seen = read(&cluster, &client, sql).await;
            assert_eq!(seen, (*expected, false), "{writes:?}, {sql}, read only");
            client.batch_execute("commit").await.unwrap();
            let seen = read(&cluster, &client, sql).await;
            assert_eq!(seen, (*expected, false), "{writes:?}, {sql}");
            // Nobody goes back in time from one table to the next.
            assert!(
                !read(&cluster, &client, ACCOUNTS).await.1,
                "{writes:?}, {sql}"
            );
        }
        let client = proxy.connect("app", "app").await;
        let copy = client.copy_in("copy audit from stdin").await.unwrap();
        futures_util::pin_mut!(copy);
        copy.send(bytes::Bytes::from_static(b"4\n5\n"))
            .await
            .unwrap();
        copy.finish().await.unwrap();
        assert_eq!(read(&cluster, &client, ACCOUNTS).await, (100, true));
        let seen = read(&cluster, &client, "select count(*) from audit").await;
        assert_eq!(seen, (5, false));
        // What may tell of anything, and what isn't known.
        for write in [
            "update accounts set balance = 1 where id = 1 returning *",
            "with w as (insert into log values (default, 'e')) select 1",
            "do 'begin insert into log values (default); end'",
            "/* pgsplit: primary */ select count(*) from log",
            "create table other (n int)",
        ] {
            let client = proxy.connect("app", "app").await;
            client.simple_query(write).await.unwrap();
            assert!(!read(&cluster, &client, ACCOUNTS).await.1, "{write}");
        }
        let client = whole.connect("app", "app").await;
        client
            .batch_execute("insert into log values (default, 'f')")
            .await
            .unwrap();
        assert!(!read(&cluster, &client, ACCOUNTS).await.1);
        for replica in cluster.replicas() {
            cluster.resume_replay(replica).unwrap();
        }
    });
}

#[test]
fn a_trigger_made_meanwhile_counts_with_the_next_write() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = start(&cluster, "[routing]\nmax_lag = \"1h\"").await;
        let client = proxy.connect("app", "app").await;
        for round in 1..=20 {
            let sql =
                "create trigger more before insert on last for each row execute function note()";
            client.batch_execute(sql).await.unwrap();
            cluster.wait_for_replay(1).unwrap();
            cluster.delay_replay(1, Duration::from_millis(300)).unwrap();
            client
                .batch_execute("insert into last values (7)")
                .await
                .unwrap();
            let (seen, _) = read(&cluster, &client, "select count(*) from audit").await;
            assert_eq!(seen, round);
            client
                .batch_execute("drop trigger more on last")
                .await
                .unwrap();
            cluster.delay_replay(1, Duration::ZERO).unwrap();
            cluster.wait_for_replay(1).unwrap();
        }
    });
}

#[test]
fn a_write_is_seen_in_a_table_that_another_session_has_renamed_or_detached() {
    run(async {
        let cluster = own_cluster(1);
        for consistency in ["session", "global"] {
            let settings = format!("[routing]\nmax_lag = \"1h\"\nconsistency = \"{consistency}\"");
            let proxy = start(&cluster, &settings).await;
            let other = proxy.connect("app", "app").await;
            for (before, write, change, sql) in [
                (
                    "create table if not exists days_1 (day int); \
                     alter table days attach partition days_1 for values from (0) to (10)",
                    "insert into days values (1)",
                    "alter table days detach partition days_1",
                    "select count(*) from days_1",
                ),
                (
                    "create table a (n int); create table b (n int)",
                    "insert into a values (1)",
                    "begin; alter table a rename to c; alter table b rename to a; \
                     alter table c rename to b; commit",
                    "select count(*) from b",
                ),
            ] {
                let _attached_already = other.batch_execute(before).await;
                proxy.wait_for_table(&cluster, "days_1, last").await;
                let client = proxy.connect("app", "app").await;
                cluster.pause_replay(1).unwrap();
                client.batch_execute(write).await.unwrap();
                let written = read(&cluster, &client, ACCOUNTS).await;
                assert_eq!(written, (100, true), "{write}");
                let mark = unique("mark");
                cluster
                    .psql(0, &format!("{change}; create table {mark} (n int)"))
                    .unwrap();
                eventually("the catalogue is loaded anew", async || {
                    proxy
                        .explain("app", &format!("select from {mark}"))
                        .is_some_and(|answer| {
                            answer["reason"] != "unknown_relation"
                                && answer["reason"] != "no_catalogue"
                        })
                })
                .await;
                let seen = read(&cluster, &client, sql).await;
                assert_eq!(seen, (1, false), "{consistency}: {write}");
                cluster.resume_replay(1).unwrap();
                other
                    .batch_execute("truncate days_1; drop table if exists a, b")
                    .await
                    .unwrap();
            }
        }
    });
}

#[test]
fn with_global_consistency_all_sessions_wait_for_a_write_to_what_they_read_only() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = start(
            &cluster,
            "[routing]\nmax_lag = \"1h\"\nconsistency = \"global\"",
        )
        .await;
        for replica in cluster.replicas() {
            cluster.pause_replay(replica).unwrap();
        }
        let writer = proxy.connect("app", "app").await;
        for round in 1..=10 {
            writer
                .batch_execute("insert into log values (default, 'a')")
                .await
                .unwrap();
            let reader = proxy.connect("app", "app").await;
            assert_eq!(read(&cluster, &reader, ACCOUNTS).await, (100, true));
            let log = read(&cluster, &reader, "select count(*) from log").await;
            assert_eq!(log, (round, false));
        }
        for replica in cluster.replicas() {
            cluster.resume_replay(replica).unwrap();
        }
    });
}

/// Each client's statements: of five one writes to the log, the others read accounts, or in one of
/// ten cases the log.
async fn work(proxy: &Proxy, log_too: bool) -> f64 {
    let on_replicas = || {
        let nodes = ["node=\"pg2\"", "node=\"pg3\""];
        nodes
            .map(|node| proxy.metric("pgsplit_queries_total", &[node]))
            .iter()
            .sum::<f64>()
    };
    let before = on_replicas();
    let clients = futures_util::future::join_all((0..4).map(async |number| {
        let client = proxy.connect("app", "app").await;
        let mut reads = 0.0;
        for i in 0..200 {
            let sql = match i % 10 {
                0 | 5 => "insert into log values (default, 'x')",
                7 if log_too => "select count(*) from log where id < 10",
                _ => "select balance from accounts where id = 7",
            };
            reads += f64::from(u8::from(!sql.starts_with("insert")));
            client.simple_query(sql).await.unwrap();
            tokio::time::sleep(Duration::from_micros(500 + 100 * number)).await;
        }
        reads
    }));
    let reads: f64 = clients.await.iter().sum();
    (on_replicas() - before) / reads
}

#[test]
fn a_busy_log_does_not_pull_reads_to_the_primary() {
    run(async {
        let cluster = own_cluster(2);
        drop(start(&cluster, "").await);
        for replica in cluster.replicas() {
            cluster
                .delay_replay(replica, Duration::from_millis(30))
                .unwrap();
        }
        println!("share of reads on replicas, 20 % writes to a log, replicas 30 ms behind:");
        for consistency in ["eventual", "session", "global"] {
            let mut shares = Vec::new();
            for track in [true, false] {
                let settings =
                    format!("[routing]\nconsistency = \"{consistency}\"\ntrack_tables = {track}");
                let proxy = start(&cluster, &settings).await;
                shares.push((work(&proxy, false).await, work(&proxy, true).await));
            }
            let [(on, on_read), (off, off_read)] = shares[..] else {
                unreachable!()
            };
            println!(
                "{consistency}: {:.1} % with tables, {:.1} % without; \
                 where a tenth reads the log: {:.1} % and {:.1} %",
                on * 100.0,
                off * 100.0,
                on_read * 100.0,
                off_read * 100.0,
            );
            assert!(on > 0.95, "{consistency}: {on}");
            assert!(
                consistency == "eventual" || on > off,
                "{consistency}: {on} {off}"
            );
        }
        for replica in cluster.replicas() {
            cluster.delay_replay(replica, Duration::ZERO).unwrap();
        }
    });
}
