//! Too much to do isn't a failure, and the loss of the replicas doesn't take the primary along.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tokio_postgres::Client;

use super::{arena::arena, readers::fill};
use crate::support::{Proxy, Stop, run, sqlstate};

async fn clients(proxy: &Proxy, count: usize) -> Vec<Client> {
    let connections = (0..count).map(|_| proxy.connect("app", "app"));
    futures_util::future::join_all(connections).await
}

/// Each client runs `sql` again and again until `end`; how each run ended (a SQLSTATE, or "") and
/// how long it took.
fn repeat(clients: Vec<Client>, sql: &str, end: Instant) -> JoinSet<Vec<(String, Duration)>> {
    let mut tasks = JoinSet::new();
    for client in clients {
        let sql = sql.to_owned();
        tasks.spawn(async move {
            let mut runs = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let result = client.batch_execute(&sql).await;
                let code = result.err().map(|error| sqlstate(&error));
                runs.push((code.unwrap_or_default(), began.elapsed()));
            }
            runs
        });
    }
    tasks
}

#[test]
fn a_full_pool_a_slow_statement_and_a_long_queue_are_no_failure() {
    let arena = arena();
    run(async {
        let proxy = arena
            .proxy("[pool]\nmax_size = 2\nacquire_timeout = \"60s\"")
            .await;
        let (readers, writers) = (clients(&proxy, 12).await, clients(&proxy, 6).await);
        let end = Instant::now() + Duration::from_secs(2);
        // Each longer than the monitor waits for an answer.
        let reads = repeat(readers, "select pg_sleep(1.5)", end);
        let writes = repeat(writers, "/* pgsplit: primary */ select pg_sleep(1.5)", end);
        for run in [reads.join_all().await, writes.join_all().await]
            .concat()
            .concat()
        {
            assert_eq!(run.0, "", "after {:?}", run.1);
        }
        let log = proxy.log();
        assert!(!log.contains("from=Up"), "{log}");
    });
    arena.give_back();
}

#[test]
fn reads_that_lost_their_replicas_leave_room_for_writes() {
    let arena = arena();
    run(async {
        let proxy = arena
            .proxy(
                "[pool]\nmax_size = 5\nacquire_timeout = \"500ms\"\nprimary_reads_share = \"60%\"",
            )
            .await;
        let client = proxy.connect("app", "app").await;
        fill(&client).await;
        proxy.wait_for_table(&arena.cluster, "fixed").await;
        let (readers, writers) = (clients(&proxy, 32).await, clients(&proxy, 4).await);
        for replica in arena.replicas() {
            arena.cluster.stop(replica, Stop::Kill).unwrap();
        }
        proxy.wait_for_nodes(1).await;
        let end = Instant::now() + Duration::from_secs(4);
        let writes = repeat(writers, "update counter set v = v + 1", end);
        let reads = repeat(readers, "select count(*), pg_sleep(0.2) from fixed", end);
        let writes: Vec<_> = writes.join_all().await.concat();
        let reads: Vec<_> = reads.join_all().await.concat();
        let slowest = writes.iter().map(|write| write.1).max().unwrap();
        let shed = reads.iter().filter(|read| read.0 == "53300").count();
        println!(
            "{} writes, the slowest took {slowest:?}; {} reads, {shed} of them refused",
            writes.len(),
            reads.len()
        );
        for write in &writes {
            assert_eq!(write.0, "", "a write, after {:?}", write.1);
        }
        assert!(
            reads.iter().all(|read| ["", "53300"].contains(&&*read.0)),
            "{reads:?}"
        );
        assert!(shed > 0 && shed < reads.len(), "{shed} of {}", reads.len());
        let name = &arena.cluster.nodes()[arena.primary()].name;
        let fell = format!("health changed node=\"{name}\" from=Up");
        assert!(!proxy.log().contains(&fell), "{}", proxy.log());
        let primary = arena.primary();
        for replica in arena.replicas() {
            arena.cluster.start_node(replica).unwrap();
        }
        let counted = arena
            .cluster
            .psql(primary, "select v from counter")
            .unwrap();
        assert_eq!(counted, writes.len().to_string());
    });
    arena.give_back();
}
