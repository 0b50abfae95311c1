//! What operators see of a message sequence.

use std::time::Duration;

use super::{bed::*, message::*};
use crate::metrics::inspect::{ClientState, Inspect as _};

const WRITE: &str = "insert into t values (1)";

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_server_connection_is_seen_with_its_wait() {
    let options = [("pool.max_size", "1"), ("pool.acquire_timeout", "60s")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut first = bed.client().await;
    let mut second = bed.client().await;
    first.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    second.send(&query(WRITE)).await;
    second.quiet_for(Duration::from_secs(7)).await;

    let pools = bed.proxy.pools();
    let pool = pools.iter().find(|pool| &*pool.node == "pg1").unwrap();
    assert_eq!((pool.clients_active, pool.clients_waiting), (1, 1));
    assert_eq!((pool.servers_active, pool.servers_connecting), (1, 0));
    assert!(pool.max_wait >= Duration::from_secs(7), "{pool:?}");
    let clients = bed.proxy.clients();
    let row = |id: u32| clients.iter().find(|row| row.id == u64::from(id)).unwrap();
    let waiting = row(second.key.pid);
    assert_eq!(waiting.state, ClientState::Waiting);
    assert!(waiting.wait >= Duration::from_secs(7), "{waiting:?}");
    assert_eq!(row(first.key.pid).wait, Duration::ZERO);

    for client in [&mut first, &mut second] {
        primary.send(&done("INSERT 0 1", 'I')).await;
        client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    }
    let pools = bed.proxy.pools();
    let pool = pools.iter().find(|pool| &*pool.node == "pg1").unwrap();
    assert_eq!((pool.clients_waiting, pool.max_wait), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn bytes_times_and_connections_are_counted() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let before = bed.proxy.stats()[0].totals;
    let (begin, commit) = (query("begin"), query("commit"));
    client.send(&begin).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&begin, &query(WRITE)]).await;
    let answers = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')];
    tokio::time::sleep(Duration::from_secs(1)).await;
    primary.send(&answers.concat()).await;
    client.expect_only(&[&answers[1]]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.send(&commit).await;
    primary.expect_only(&[&commit]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    primary.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;

    let totals = bed.proxy.stats()[0].totals;
    let received = [&*begin, &query(WRITE), &commit].concat().len() as u64;
    assert_eq!(totals.received - before.received, received);
    let sent = [done("BEGIN", 'T'), answers[1].clone(), done("COMMIT", 'I')].concat();
    assert_eq!(totals.sent - before.sent, sent.len() as u64);
    assert_eq!((totals.queries, totals.transactions), (2, 1));
    assert_eq!(totals.query_micros / 1_000_000, 3);
    // Behind the BEGIN that was answered at once, with what the client took its time for.
    assert_eq!(totals.transaction_micros / 1_000_000, 8);

    let proxy = std::sync::Arc::clone(&bed.proxy);
    let counted = |name: &str| {
        let scrape = crate::metrics::Scrape {
            nodes: proxy.nodes(),
            ..Default::default()
        };
        let text = proxy.all_metrics().text(&scrape).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(counted("pgsplit_server_connects_total{node=\"pg1\"}"), "1");
    let failures = "pgsplit_server_connect_failures_total{node=\"pg2\"}";
    assert_eq!(counted(failures), "0");
    bed.refuses(PG2);
    // One that has seen nothing yet, so that the replica may serve it.
    let mut client = bed.client().await;
    client.send(&query("select c from t")).await;
    primary.expect_only(&[&query("select c from t")]).await;
    assert_eq!(counted(failures), "1");
}
