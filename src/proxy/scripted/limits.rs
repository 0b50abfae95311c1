//! Deadlines that end waits, and limits that are kept.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{super::observe, bed::*, message::*};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_full_pool_makes_a_request_wait_so_long_and_no_longer() {
    let options = [("pool.max_size", "1"), ("pool.acquire_timeout", "2s")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut holder = bed.client().await;
    let mut waiter = bed.client().await;
    holder.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;

    let began = Instant::now();
    waiter.send(&query("delete from t")).await;
    let told = waiter.told_after(began, 2 * SECOND).await;
    assert_eq!(told.what(), ("ERROR", "53300"), "{told:?}");
    assert!(told.message.contains("pg1"), "{told:?}");
    waiter.expect_only(&[&ready('I')]).await;
    // Busy is not dead.
    assert_eq!(bed.proxy.monitor.reported(PG1), None);

    waiter
        .send(&[extended("delete from t"), sync()].concat())
        .await;
    waiter.quiet_for(SECOND).await;
    primary.send(&done("INSERT 0 1", 'I')).await;
    holder.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    primary
        .expect_only(&[&extended("delete from t"), &sync()])
        .await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_served_first() {
    let (mut bed, mut primary) = Bed::start(&[("pool.max_size", "1")]).await;
    let mut clients = Vec::new();
    for n in 0..4 {
        let mut client = bed.client().await;
        client
            .send(&query(&format!("insert into t values ({n})")))
            .await;
        client.quiet().await;
        clients.push(client);
    }
    for (n, mut client) in clients.into_iter().enumerate() {
        primary
            .expect_only(&[&query(&format!("insert into t values ({n})"))])
            .await;
        primary.send(&done("INSERT 0 1", 'I')).await;
        client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_from_the_queue_is_not_served() {
    let (mut bed, mut primary) = Bed::start(&[("pool.max_size", "1")]).await;
    let mut holder = bed.client().await;
    let mut vanished = bed.client().await;
    let mut cancelled = bed.client().await;
    let mut waiter = bed.client().await;
    holder.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    vanished.send(&query("delete from t")).await;
    cancelled.send(&query("delete from t")).await;
    waiter.send(&query("truncate t")).await;
    waiter.quiet().await;
    vanished.hang_up().await;
    bed.cancel(&cancelled.key).await.gone().await;
    assert_eq!(cancelled.told().await.what(), ("ERROR", "57014"));
    cancelled.expect_only(&[&ready('I')]).await;
    primary.send(&done("INSERT 0 1", 'I')).await;
    primary.expect_only(&[&query("truncate t")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_let_in_in_time_is_passed_by() {
    let options = [("pool.connect_timeout", "3s")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let silent = bed.dialled(PG2).await;
    client.quiet_for(2 * SECOND).await;
    sleep(SECOND).await;
    primary.expect_only(&[&query(READ)]).await;
    assert!(bed.proxy.monitor.reported(PG2).is_some());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_the_login_says_why_where_there_is_no_other() {
    let (mut bed, primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    drop(primary);
    client.send(&query(WRITE)).await;
    let mut server = bed.dialled(PG1).await;
    server
        .send(&fatal("3D000", "database \"app\" does not exist"))
        .await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "3D000"), "{told:?}");
    assert_eq!(told.message, "database \"app\" does not exist (node pg1)");
    client.expect_only(&[&ready('I')]).await;

    client.send(&query(WRITE)).await;
    let mut server = bed.dialled(PG1).await;
    server
        .send(&fatal("53300", "sorry, too many clients already"))
        .await;
    assert_eq!(client.told().await.what(), ("ERROR", "53300"));
    client.expect_only(&[&ready('I')]).await;
    assert_eq!(bed.proxy.monitor.reported(PG1), None, "it is well");
}

#[tokio::test(start_paused = true)]
async fn connections_that_nobody_needs_are_closed_after_their_time() {
    let options = [("pool.idle_timeout", "60s"), ("pool.max_lifetime", "300s")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut client = bed.client().await;
    for _ in 0..7 {
        sleep(40 * SECOND).await;
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
        primary.send(&done("INSERT 0 1", 'I')).await;
        client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    }
    // Old enough: another takes its place.
    sleep(30 * SECOND).await;
    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    primary.gone().await;
    fresh.expect_only(&[&query(WRITE)]).await;
    fresh.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    let idle_since = Instant::now();
    fresh.quiet_for(59 * SECOND).await;
    fresh.gone_within(3 * SECOND).await;
    assert!(idle_since.elapsed() >= 60 * SECOND);
    client.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_is_closed_though_nobody_asks_for_it() {
    let options = [("pool.idle_timeout", "1h"), ("pool.max_lifetime", "300s")];
    let (_bed, mut primary) = Bed::start(&options).await;
    primary.quiet_for(295 * SECOND).await;
    primary.gone_within(20 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_made_before_they_are_needed_where_that_is_wanted() {
    let options = [("pool.min_idle", "2"), ("pool.idle_timeout", "60s")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    sleep(2 * SECOND).await;
    let mut second = bed.server(PG1).await;
    primary.quiet_for(200 * SECOND).await;
    second.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_let_in_for_ever() {
    let (mut bed, _primary) = Bed::start(&[("listen.login_timeout", "5s")]).await;
    for part in [&b""[..], b"\0\0\0", b"\0\0\0\x20\0\x03\0\0user\0"] {
        let mut stranger = bed.stranger();
        stranger.send(part).await;
        stranger.quiet_for(Duration::from_millis(4990)).await;
        sleep(Duration::from_millis(20)).await;
        stranger.drain().await;
        stranger.gone_within(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_no_node_can_answer_ends_in_time() {
    let options = [("listen.login_timeout", "5s"), ("failover.hold", "60s")];
    let mut bed = Bed::unopened(2, &options);
    bed.falls(PG1);
    bed.falls(PG2);
    let began = Instant::now();
    let mut client = bed.knock().await;
    let told = client.told_after(began, 5 * SECOND).await;
    assert_eq!(told.what(), ("FATAL", "57P03"), "{told:?}");
    client.gone().await;
}

#[tokio::test(start_paused = true)]
async fn one_client_too_many_is_turned_away() {
    let (mut bed, _primary) = Bed::start(&[("listen.max_clients", "2")]).await;
    let mut first = bed.client().await;
    let _second = bed.client().await;
    let mut third = bed.knock().await;
    let told = third.told().await;
    assert_eq!(told.what(), ("FATAL", "53300"), "{told:?}");
    third.gone().await;
    first.send(&terminate()).await;
    first.gone().await;
    bed.client().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_state_cannot_be_read_in_time_is_closed() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("select f()")).await;
    primary.expect_only(&[&query("select f()")]).await;
    let answer = [one_row("x"), ready('I')].concat();
    primary.send(&answer).await;
    // What the client waits for comes first.
    client.expect_only(&[&answer]).await;
    primary.expect_only(&[&query(observe::LOOK)]).await;
    primary.quiet_for(9 * SECOND).await;
    primary.gone_within(2 * SECOND).await;
    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_stops_lets_transactions_finish() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut idle = bed.client().await;
    let mut busy = bed.client().await;
    busy.send(&query("begin")).await;
    busy.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    let opened = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
    primary.send(&opened).await;
    busy.expect_only(&[&opened]).await;
    bed.proxy.shut_down();
    assert_eq!(idle.told().await.what(), ("FATAL", "57P01"));
    idle.gone().await;
    busy.quiet_for(20 * SECOND).await;
    busy.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("COMMIT", 'I')).await;
    busy.expect(&[&done("COMMIT", 'I')]).await;
    assert_eq!(busy.told().await.what(), ("FATAL", "57P01"));
    busy.gone().await;
}
