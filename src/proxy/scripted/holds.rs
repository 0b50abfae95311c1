//! No primary: what waits for one, for how long, and what goes on meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::{super::lend::AGAIN, bed::*, message::*};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_the_new_primary_and_goes_on_there_at_once() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut writer = bed.client().await;
    let mut reader = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    writer.send(&query(WRITE)).await;
    writer.quiet_for(Duration::from_secs(3)).await;

    // Reads go on.
    reader.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let answer = [one_row("x"), ready('I')].concat();
    replica.send(&answer).await;
    reader.expect_only(&[&answer]).await;

    bed.promoted(PG2);
    // The connection that it had as a replica is as good as any.
    replica.expect_only(&[&query(WRITE)]).await;
    replica.send(&done("INSERT 0 1", 'I')).await;
    writer.expect_only(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_not_opened_yet_waits_as_a_whole() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    bed.falls(PG1);
    primary.gone().await;
    client.send(&query(WRITE)).await;
    client.quiet_for(Duration::from_secs(1)).await;
    bed.promoted(PG2);
    let mut new = bed.server(PG2).await;
    new.expect_only(&[&query("begin"), &query(WRITE)]).await;
    new.send(&[done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat())
        .await;
    client.expect_only(&[&done("INSERT 0 1", 'T')]).await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_an_error_that_says_what_is_known_of_the_nodes() {
    let hold = Duration::from_secs(4);
    let (mut bed, mut primary) = Bed::start(&[("failover.hold", "4s")]).await;
    let mut client = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    let began = Instant::now();
    client.send(&query(WRITE)).await;
    let told = client.told_after(began, hold).await;
    assert_eq!(told.what(), ("ERROR", "57P03"), "{told:?}");
    assert!(told.message.contains("pg1 is"), "{told:?}");
    assert!(told.message.contains("pg2 is replica/up"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;

    // In a pipeline, up to its Sync; in a transaction, the transaction has failed.
    let began = Instant::now();
    client.send(&[extended(WRITE), sync()].concat()).await;
    assert_eq!(
        client.told_after(began, hold).await.what(),
        ("ERROR", "57P03")
    );
    client.expect_only(&[&ready('I')]).await;
    client.send(&query("begin")).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    let began = Instant::now();
    client.send(&query(WRITE)).await;
    assert_eq!(
        client.told_after(began, hold).await.what(),
        ("ERROR", "57P03")
    );
    client.expect_only(&[&ready('E')]).await;
    client.send(&query("commit")).await;
    client.expect_only(&[&done("ROLLBACK", 'I')]).await;

    // The new primary hears nothing of what has given up.
    bed.promoted(PG2);
    bed.not_dialled(PG2).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_are_allowed_to() {
    let options = [("failover.hold", "4s"), ("failover.hold_max", "1")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut first = bed.client().await;
    let mut second = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    let began = Instant::now();
    first.send(&query(WRITE)).await;
    first.quiet().await;
    second.send(&query(WRITE)).await;
    let told = second.told().await;
    assert_eq!(told.what(), ("ERROR", "57P03"), "{told:?}");
    second.expect_only(&[&ready('I')]).await;
    // A place that came free is another's.
    first.quiet_for(Duration::from_secs(3)).await;
    first.told_after(began, Duration::from_secs(4)).await;
    second.send(&query(WRITE)).await;
    second.quiet_for(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_gives_up_its_place() {
    let options = [("failover.hold", "4s"), ("failover.hold_max", "1")];
    let (mut bed, mut primary) = Bed::start(&options).await;
    let mut first = bed.client().await;
    let mut second = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    first.send(&query(WRITE)).await;
    first.quiet().await;
    first.hang_up().await;
    second.send(&query(WRITE)).await;
    second.quiet().await;
    bed.promoted(PG2);
    let mut new = bed.server(PG2).await;
    new.expect_only(&[&query(WRITE)]).await;
    bed.not_dialled(PG2).await;
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_takes_no_connections_is_tried_again_and_again() {
    let (mut bed, primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.refuses(PG1);
    drop(primary);
    client.send(&query(WRITE)).await;
    client.quiet_for(Duration::from_secs(2)).await;
    bed.accepts(PG1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
    fresh.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn a_superseded_primary_is_left_at_once() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut writer = bed.client().await;
    let mut idle = bed.client().await;
    writer.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    bed.promoted(PG2);
    primary.gone().await;
    let told = writer.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    writer.expect_only(&[&ready('I')]).await;
    idle.send(&query(WRITE)).await;
    let mut new = bed.server(PG2).await;
    new.expect_only(&[&query(WRITE)]).await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_primary_where_no_replica_is_left() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.falls(PG2);
    bed.falls(PG1);
    primary.gone().await;
    client.send(&query(READ)).await;
    client.quiet_for(Duration::from_secs(1)).await;
    bed.returns(PG1, false).await;
    // It is decided again now and then.
    tokio::time::sleep(AGAIN).await;
    let mut back = bed.server(PG1).await;
    back.expect_only(&[&query(READ)]).await;
    let answer = [one_row("x"), ready('I')].concat();
    back.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_left_behind_with_a_goodbye_is_carried_out() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    client.send(&[query(WRITE), terminate()].concat()).await;
    client.hang_up().await;
    bed.promoted(PG2);
    let mut new = bed.server(PG2).await;
    new.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_can_be_cancelled() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    client.send(&query(WRITE)).await;
    client.quiet().await;
    bed.cancel(&client.key).await.gone().await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "57014"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
    // One that comes too late is aimed at nothing.
    bed.cancel(&client.key).await.gone().await;
    client.send(&query(WRITE)).await;
    client.quiet().await;
    bed.promoted(PG2);
    let mut new = bed.server(PG2).await;
    new.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_does_not_wait_to_the_end() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.falls(PG1);
    primary.gone().await;
    client.send(&query(WRITE)).await;
    client.quiet().await;
    bed.proxy.shut_down_now();
    let told = client.told().await;
    assert_eq!(told.what(), ("FATAL", "57P01"), "{told:?}");
    client.gone().await;
}
