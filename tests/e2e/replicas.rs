//! Replicas that lag, hang, die and return, under load: no read fails.

use std::time::Duration;

use crate::support::{Cluster, Proxy, ReadLoad, Stop, eventually, own_cluster, run, unique};

/// A cluster, a proxy and a checked read load on a table of it.
async fn loaded(replicas: usize, settings: &str) -> (Cluster, Proxy, ReadLoad) {
    let cluster = own_cluster(replicas);
    let proxy = Proxy::start(&cluster, settings).await;
    let client = proxy.connect("app", "app").await;
    ReadLoad::fill(&client, "load").await;
    proxy.wait_for_table(&cluster, "load").await;
    let load = ReadLoad::start(&proxy, "load");
    load.progress(200).await;
    (cluster, proxy, load)
}

/// Where reads that begin now run.
async fn reads_run_on(cluster: &Cluster, proxy: &Proxy) -> Vec<usize> {
    let mark = unique("mark");
    // A session goes on where it has read before, as long as no other replica is known to show as
    // much: new sessions choose freely.
    for _ in 0..20 {
        let client = proxy.connect("app", "app").await;
        client
            .simple_query(&format!("select 1 /* {mark} */"))
            .await
            .unwrap();
    }
    let mut ran = cluster.ran_on(&mark).unwrap();
    ran.sort_unstable();
    ran.dedup();
    ran
}

async fn wait_for_reads_on(cluster: &Cluster, proxy: &Proxy, nodes: &[usize]) {
    eventually(&format!("reads run on {nodes:?}"), async || {
        reads_run_on(cluster, proxy).await == nodes
    })
    .await;
}

#[test]
fn reads_are_shared_among_replicas_that_are_up_to_date() {
    run(async {
        let (cluster, proxy, load) = loaded(2, "").await;
        let mark = "select b from load";
        load.progress(500).await;
        let counts: Vec<usize> = (0..3)
            .map(|i| cluster.statements(i, mark).unwrap().len())
            .collect();
        load.finish();
        assert!(counts[1] > 100 && counts[2] > 100, "{counts:?}");
        let primary_reads = proxy.metric("pgsplit_queries_total", &["route=\"replica\""]);
        assert!(primary_reads > 0.0);
    });
}

#[test]
fn a_killed_replica_costs_no_read_and_serves_again_when_it_is_back() {
    run(async {
        let (cluster, proxy, load) = loaded(2, "").await;
        for stop in [Stop::Kill, Stop::Immediate, Stop::Fast] {
            cluster.stop(1, stop).unwrap();
            load.progress(500).await;
            wait_for_reads_on(&cluster, &proxy, &[2]).await;
            cluster.start_node(1).unwrap();
            proxy.wait_for_nodes(3).await;
            load.progress(500).await;
            wait_for_reads_on(&cluster, &proxy, &[1, 2]).await;
        }
        load.finish();
    });
}

#[test]
fn a_hung_replica_costs_no_read_and_holds_none_for_long() {
    run(async {
        let (cluster, proxy, load) = loaded(2, "").await;
        cluster.hang(1).unwrap();
        load.progress(500).await;
        wait_for_reads_on(&cluster, &proxy, &[2]).await;
        // New clients aren't held up either.
        proxy
            .connect("app", "app")
            .await
            .simple_query("select 1")
            .await
            .unwrap();
        cluster.unhang(1).unwrap();
        proxy.wait_for_nodes(3).await;
        load.progress(500).await;
        let (_, slowest) = load.finish();
        // monitor.timeout is 3 s here; the machine may be busy.
        assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    });
}

#[test]
fn a_statement_cut_off_on_a_dying_replica_is_run_again_elsewhere() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        for stop in [Stop::Kill, Stop::Immediate] {
            proxy.wait_for_replica(&cluster, &client).await;
            let mark = unique("mark");
            let sql = format!("select 42, pg_sleep(1.5) /* {mark} */");
            let killer = async {
                eventually("the read runs on the replica", async || {
                    !cluster.statements(1, &mark).unwrap().is_empty()
                })
                .await;
                cluster.stop(1, stop).unwrap();
            };
            let (answer, ()) = tokio::join!(client.query_one(&sql, &[]), killer);
            assert_eq!(answer.unwrap().get::<_, i32>(0), 42);
            assert_eq!(cluster.ran_on(&mark).unwrap(), [0, 1]);
            cluster.start_node(1).unwrap();
            proxy.wait_for_nodes(2).await;
            proxy.wait_for_splitting(&cluster, "app").await;
        }
    });
}

#[test]
fn with_all_replicas_gone_reads_run_on_the_primary_and_go_back() {
    run(async {
        let (cluster, proxy, load) = loaded(2, "").await;
        cluster.stop(1, Stop::Kill).unwrap();
        cluster.stop(2, Stop::Kill).unwrap();
        load.progress(500).await;
        wait_for_reads_on(&cluster, &proxy, &[0]).await;
        assert!(proxy.metric("pgsplit_primary_reads_total", &["reason=\"no_replica\""]) > 0.0);
        // What is wrong with them is to be seen, and for how long it has been so.
        let standing = async || {
            let rows = proxy.console("show nodes").await;
            let standing = rows.iter().map(|row| {
                let since: u64 = row.get("since_seconds").unwrap().parse().unwrap();
                assert!(since < 120, "{since}");
                row.get("error").unwrap_or_default().to_owned()
            });
            standing.collect::<Vec<_>>()
        };
        let errors = standing().await;
        assert_eq!(errors[0], "");
        for error in &errors[1..] {
            assert!(error.contains("refused"), "{error}");
        }
        cluster.start_node(1).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[1]).await;
        cluster.start_node(2).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[1, 2]).await;
        assert_eq!(standing().await, ["", "", ""]);
        load.progress(100).await;
        load.finish();
    });
}

#[test]
fn reads_go_on_at_replicas_while_the_primary_is_gone() {
    run(async {
        let (cluster, proxy, load) = loaded(2, "").await;
        cluster.stop(0, Stop::Kill).unwrap();
        load.progress(1000).await;
        cluster.start_node(0).unwrap();
        proxy.wait_for_nodes(3).await;
        load.progress(100).await;
        load.finish();
    });
}

#[test]
fn a_replica_beyond_the_lag_limits_is_left_alone_until_it_has_caught_up() {
    run(async {
        for limit in [
            "max_lag = \"1s\"",
            "max_lag = \"1h\"\nmax_lag_bytes = \"64KiB\"",
        ] {
            let (cluster, proxy, load) = loaded(2, &format!("[routing]\n{limit}")).await;
            let writer = proxy.connect("app", "app").await;
            writer
                .batch_execute("create table w (a text)")
                .await
                .unwrap();
            cluster.wait_for_replay(1).unwrap();
            cluster.pause_replay(1).unwrap();
            eventually("reads leave the lagging replica", async || {
                writer
                    .batch_execute(
                        "insert into w select repeat('x', 1000) from generate_series(1, 50)",
                    )
                    .await
                    .unwrap();
                reads_run_on(&cluster, &proxy).await == [2]
            })
            .await;
            eventually("its lag is told", async || {
                writer
                    .batch_execute(
                        "insert into w select repeat('x', 1000) from generate_series(1, 50)",
                    )
                    .await
                    .unwrap();
                let lag = proxy.metric("pgsplit_replica_lag_bytes", &["node=\"pg2\""]);
                lag > 65_536.0 || limit.contains("1s")
            })
            .await;
            cluster.pause_replay(2).unwrap();
            eventually("reads go to the primary when all lag", async || {
                writer
                    .batch_execute(
                        "insert into w select repeat('x', 1000) from generate_series(1, 50)",
                    )
                    .await
                    .unwrap();
                reads_run_on(&cluster, &proxy).await == [0]
            })
            .await;
            assert!(proxy.metric("pgsplit_primary_reads_total", &["reason=\"lag\""]) > 0.0);
            cluster.resume_replay(1).unwrap();
            wait_for_reads_on(&cluster, &proxy, &[1]).await;
            load.progress(100).await;
            load.finish();
        }
    });
}

#[test]
fn the_least_lagged_replica_is_chosen() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[routing]\nlag_tolerance = \"100ms\"").await;
        let writer = proxy.connect("app", "app").await;
        writer
            .batch_execute("create table w (a text)")
            .await
            .unwrap();
        cluster.wait_for_replay(1).unwrap();
        cluster.pause_replay(1).unwrap();
        eventually("reads prefer the other", async || {
            writer
                .batch_execute("insert into w values ('x')")
                .await
                .unwrap();
            cluster.wait_for_replay(2).unwrap();
            reads_run_on(&cluster, &proxy).await == [2]
        })
        .await;
    });
}

#[test]
fn an_idle_system_has_no_lag() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[routing]\nmax_lag = \"500ms\"").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(reads_run_on(&cluster, &proxy).await, [1]);
        let lag = proxy.metric("pgsplit_replica_lag_seconds", &[]);
        assert!(lag < 0.2, "{lag}");
    });
}

#[test]
fn a_read_that_conflicts_with_recovery_is_answered_by_the_primary() {
    run(async {
        let cluster = own_cluster(1);
        cluster.set(1, "max_standby_streaming_delay", "0").unwrap();
        let proxy = Proxy::start(&cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table c (a int); insert into c select generate_series(1, 1000)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "c").await;
        let mark = unique("mark");
        let sql = format!("select count(*), pg_sleep(3) from c /* {mark} */");
        let conflict = async {
            eventually("the read runs on the replica", async || {
                !cluster.statements(1, &mark).unwrap().is_empty()
            })
            .await;
            // Taking the table away conflicts with every snapshot that may read it.
            cluster
                .psql(0, "begin; lock table c in access exclusive mode; commit")
                .unwrap();
            cluster.psql(0, "delete from c where a > 500").unwrap();
            cluster.psql(0, "vacuum c").unwrap();
        };
        let (answer, ()) = tokio::join!(client.query_one(&sql, &[]), conflict);
        let count: i64 = answer.unwrap().get(0);
        assert!(count == 1000 || count == 500);
        assert_eq!(cluster.ran_on(&mark).unwrap(), [0, 1]);
        assert!(proxy.metric("pgsplit_retries_total", &[]) > 0.0);
    });
}

#[test]
fn what_a_replica_does_not_have_yet_is_asked_of_the_primary() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table early (a int)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "early").await;
        cluster.pause_replay(1).unwrap();
        client
            .batch_execute("create table late (a int); alter table early add column b int")
            .await
            .unwrap();
        client.query("select * from late", &[]).await.unwrap();
        client.query("select b from early", &[]).await.unwrap();
        client.simple_query("select * from late").await.unwrap();
        // What nobody has is the primary's error.
        let error = client.query("select * from never", &[]).await.unwrap_err();
        assert_eq!(crate::support::sqlstate(&error), "42P01");
    });
}

/// The nodes with zones: the primary and the last replica are in the other one.
fn in_zones(cluster: &Cluster, settings: &str) -> String {
    let nodes = cluster.nodes().iter().enumerate().map(|(index, node)| {
        let zone = if index == 1 { "here" } else { "there" };
        format!(
            "[[node]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\nzone = \"{zone}\"\n",
            node.name, node.port
        )
    });
    format!(
        "[routing]\nzone = \"here\"\n{settings}\n{}",
        nodes.collect::<String>()
    )
}

#[test]
fn reads_stay_in_their_zone_while_it_has_a_replica_that_may_serve() {
    run(async {
        let cluster = own_cluster(2);
        let settings = in_zones(&cluster, "max_lag = \"700ms\"");
        let proxy = Proxy::start(&cluster, &settings).await;
        let client = proxy.connect("app", "app").await;
        ReadLoad::fill(&client, "load").await;
        proxy.wait_for_table(&cluster, "load").await;
        wait_for_reads_on(&cluster, &proxy, &[1]).await;
        let load = ReadLoad::start(&proxy, "load");
        load.progress(200).await;
        // Beyond the lag limit, then gone: each time they cross over, and come back.
        let stop = tokio_util::sync::CancellationToken::new();
        let writer = tokio::spawn({
            let (client, stop) = (proxy.connect("app", "app").await, stop.clone());
            async move {
                client
                    .batch_execute("create table w (a int)")
                    .await
                    .unwrap();
                while !stop.is_cancelled() {
                    client
                        .batch_execute("insert into w values (1) /* across */")
                        .await
                        .unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        cluster.pause_replay(1).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[2]).await;
        cluster.resume_replay(1).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[1]).await;
        load.progress(200).await;
        cluster.stop(1, Stop::Kill).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[2]).await;
        load.progress(200).await;
        cluster.start_node(1).unwrap();
        wait_for_reads_on(&cluster, &proxy, &[1]).await;
        stop.cancel();
        writer.await.unwrap();
        load.finish();
        // Writes have crossed over all the time.
        let wrote = cluster.ran_on("/* across */").unwrap();
        assert!(wrote.iter().all(|node| *node == 0), "{wrote:?}");
    });
}
