//! Reads that see what they must, however far replicas are behind.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Cluster, Proxy, eventually, own_cluster, run, unique};

async fn int(client: &tokio_postgres::Client, sql: &str) -> i32 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// The table `t`, which replicas have and the proxy knows.
async fn table(cluster: &Cluster, proxy: &Proxy, client: &tokio_postgres::Client) {
    client
        .batch_execute("create table t (a int primary key, b int); insert into t values (1, 0)")
        .await
        .unwrap();
    proxy.wait_for_table(cluster, "t").await;
}

#[test]
fn a_session_reads_its_own_writes_while_replay_stands_still() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nmax_lag = \"1h\"").await;
        let client = proxy.connect("app", "app").await;
        table(&cluster, &proxy, &client).await;
        for replica in cluster.replicas() {
            cluster.pause_replay(replica).unwrap();
        }
        for i in 1..=20 {
            match i % 4 {
                0 => client
                    .batch_execute(&format!("update t set b = {i}"))
                    .await
                    .unwrap(),
                1 => drop(client.execute("update t set b = $1", &[&i]).await.unwrap()),
                2 => client
                    .batch_execute(&format!("begin; update t set b = {i}; commit"))
                    .await
                    .unwrap(),
                _ => {
                    let sql =
                        format!("with w as (update t set b = {i} returning b) select b from w");
                    assert_eq!(int(&client, &sql).await, i);
                }
            }
            assert_eq!(int(&client, "select b from t").await, i);
            client.batch_execute("begin read only").await.unwrap();
            assert_eq!(int(&client, "select b from t").await, i);
            client.batch_execute("commit").await.unwrap();
        }
        // Who hasn't written is served by replicas meanwhile, and they are behind.
        let other = proxy.connect("app", "app").await;
        assert_eq!(int(&other, "select b from t").await, 0);
        for replica in cluster.replicas() {
            cluster.resume_replay(replica).unwrap();
        }
        eventually("the session's reads are back on replicas", async || {
            let mark = unique("mark");
            assert_eq!(
                int(&client, &format!("select b from t /* {mark} */")).await,
                20
            );
            cluster.ran_on(&mark).unwrap() != [0]
        })
        .await;
    });
}

#[test]
fn reads_return_to_the_replica_that_has_caught_up_and_leave_out_the_other() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nlag_tolerance = \"10s\"").await;
        let client = proxy.connect("app", "app").await;
        table(&cluster, &proxy, &client).await;
        cluster.pause_replay(1).unwrap();
        client.batch_execute("update t set b = 1").await.unwrap();
        cluster.wait_for_replay(2).unwrap();
        eventually("reads on the replica that is up to date", async || {
            let mark = unique("mark");
            assert_eq!(
                int(&client, &format!("select b from t /* {mark} */")).await,
                1
            );
            cluster.ran_on(&mark).unwrap() == [2]
        })
        .await;
        for _ in 0..50 {
            let mark = unique("mark");
            assert_eq!(
                int(&client, &format!("select b from t /* {mark} */")).await,
                1
            );
            assert!(!cluster.ran_on(&mark).unwrap().contains(&1));
        }
    });
}

#[test]
fn under_delayed_replay_and_load_no_session_reads_a_stale_row_or_goes_back_in_time() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[pool]\nmax_size = 5").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int primary key, b int); insert into t select a, 0 from generate_series(1, 16) a")
            .await
            .unwrap();
        cluster.delay_replay(1, Duration::from_millis(150)).unwrap();
        cluster.delay_replay(2, Duration::from_millis(30)).unwrap();
        for replica in cluster.replicas() {
            cluster.wait_for_replay(replica).unwrap();
        }
        let mut clients = JoinSet::new();
        for a in 1..=16_i32 {
            let client = proxy.connect("app", "app").await;
            clients.spawn(async move {
                let write = client
                    .prepare("update t set b = $2 where a = $1")
                    .await
                    .unwrap();
                let read = client
                    .prepare("select b from t where a = $1")
                    .await
                    .unwrap();
                let sum = client.prepare("select sum(b)::int from t").await.unwrap();
                let mut newest = 0;
                for b in 1..=40_i32 {
                    client.execute(&write, &[&a, &b]).await.unwrap();
                    for _ in 0..3 {
                        let seen: i32 = client.query_one(&read, &[&a]).await.unwrap().get(0);
                        assert_eq!(seen, b, "a stale read");
                        let total: i32 = client.query_one(&sum, &[]).await.unwrap().get(0);
                        assert!(total >= newest, "back in time: {total} after {newest}");
                        newest = total;
                        if b % 4 == 0 {
                            tokio::time::sleep(Duration::from_millis(25)).await;
                        }
                    }
                }
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_session_that_only_reads_does_not_go_back_in_time() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nlag_tolerance = \"10s\"").await;
        let (writer, reader) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        table(&cluster, &proxy, &writer).await;
        cluster.delay_replay(1, Duration::from_millis(100)).unwrap();
        let mut newest = 0;
        for i in 1..=100 {
            writer
                .batch_execute(&format!("update t set b = {i}"))
                .await
                .unwrap();
            for _ in 0..3 {
                let seen = int(&reader, "select b from t").await;
                assert!(seen >= newest, "{seen} after {newest}");
                newest = seen;
            }
        }
    });
}

#[test]
fn global_consistency_sees_what_others_wrote_through_the_proxy() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nconsistency = \"global\"").await;
        let (writer, reader) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        table(&cluster, &proxy, &writer).await;
        for replica in cluster.replicas() {
            cluster
                .delay_replay(replica, Duration::from_millis(80))
                .unwrap();
        }
        for i in 1..=30 {
            writer
                .batch_execute(&format!("update t set b = {i}"))
                .await
                .unwrap();
            assert_eq!(int(&reader, "select b from t").await, i);
            let late = proxy.connect("app", "app").await;
            assert_eq!(int(&late, "select b from t").await, i);
        }
        for replica in cluster.replicas() {
            cluster.delay_replay(replica, Duration::ZERO).unwrap();
        }
        eventually("reads are back on replicas", async || {
            let mark = unique("mark");
            assert_eq!(
                int(&reader, &format!("select b from t /* {mark} */")).await,
                30
            );
            cluster.ran_on(&mark).unwrap() != [0]
        })
        .await;
    });
}

#[test]
fn a_watermark_can_be_handed_to_another_session() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let (writer, job) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        table(&cluster, &proxy, &writer).await;
        cluster.pause_replay(1).unwrap();
        writer.batch_execute("update t set b = 5").await.unwrap();
        let row = writer
            .query_one("show pgsplit.last_lsn", &[])
            .await
            .unwrap();
        let lsn: String = row.get(0);
        assert!(lsn.contains('/'), "{lsn}");
        assert_eq!(int(&job, "select b from t").await, 0);
        job.batch_execute(&format!("set pgsplit.min_lsn = '{lsn}'"))
            .await
            .unwrap();
        assert_eq!(int(&job, "select b from t").await, 5);
    });
}

#[test]
fn eventual_consistency_reads_replicas_whatever_was_written() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        table(&cluster, &proxy, &client).await;
        cluster.pause_replay(1).unwrap();
        client.batch_execute("update t set b = 5").await.unwrap();
        assert_eq!(int(&client, "select b from t").await, 0);
        client
            .batch_execute("set pgsplit.consistency = 'session'")
            .await
            .unwrap();
        client.batch_execute("update t set b = 6").await.unwrap();
        assert_eq!(int(&client, "select b from t").await, 6);
    });
}

/// `PGSPLIT_PROBES=10000` for as many as one wants to be sure.
#[test]
fn a_read_behind_a_write_is_never_stale_whatever_the_replicas_delay() {
    let probes: i32 = std::env::var("PGSPLIT_PROBES").map_or(600, |text| text.parse().unwrap());
    let test = async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nlag_tolerance = \"10s\"").await;
        let client = proxy.connect("app", "app").await;
        table(&cluster, &proxy, &client).await;
        let on_replicas = || {
            let [a, b] = ["node=\"pg2\"", "node=\"pg3\""];
            proxy.metric("pgsplit_queries_total", &[a])
                + proxy.metric("pgsplit_queries_total", &[b])
        };
        // Milliseconds, of each replica: none, little, much, and one that is quick.
        let delays = [(0, 0), (20, 150), (5000, 0), (1000, 3000), (0, 40)];
        let each = probes / 5;
        let before = on_replicas();
        for i in 1..=each * 5 {
            if (i - 1) % each == 0 {
                let (one, other) = delays[usize::try_from((i - 1) / each).unwrap()];
                cluster.delay_replay(1, Duration::from_millis(one)).unwrap();
                cluster
                    .delay_replay(2, Duration::from_millis(other))
                    .unwrap();
            }
            client.execute("update t set b = $1", &[&i]).await.unwrap();
            assert_eq!(int(&client, "select b from t").await, i, "a stale read");
            if i % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(int(&client, "select b from t").await, i, "a stale read");
            }
        }
        let reads = on_replicas() - before;
        println!("{} probes, {reads} reads on replicas", each * 5);
        assert!(reads > 0.0);
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn reads_are_back_on_a_replica_as_soon_as_it_has_replayed() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        table(&cluster, &proxy, &client).await;
        let on_replica = || proxy.metric("pgsplit_queries_total", &["node=\"pg2\""]);
        let mut took = Vec::new();
        for i in 1..=20 {
            cluster.pause_replay(1).unwrap();
            client.execute("update t set b = $1", &[&i]).await.unwrap();
            assert_eq!(int(&client, "select b from t").await, i);
            cluster.resume_replay(1).unwrap();
            cluster.wait_for_replay(1).unwrap();
            let (replayed, before) = (tokio::time::Instant::now(), on_replica());
            eventually("reads are back", async || {
                assert_eq!(int(&client, "select b from t").await, i);
                on_replica() > before
            })
            .await;
            took.push(replayed.elapsed());
        }
        took.sort_unstable();
        println!(
            "back after {:?} (median), {:?} (the slowest of {})",
            took[took.len() / 2],
            took[took.len() - 1],
            took.len()
        );
        assert!(took[took.len() / 2] < Duration::from_millis(500));
    });
}
