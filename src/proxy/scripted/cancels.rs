//! Cancel requests: whom they reach, and whom they must not.

use std::time::Duration;

use super::{bed::*, message::*};
use crate::protocol::startup::CancelKey;

const WRITE: &str = "insert into t values (1)";

#[tokio::test(start_paused = true)]
async fn a_cancel_goes_to_the_connection_that_the_request_runs_on() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("select c from t")).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query("select c from t")]).await;
    let mut canceller = bed.cancel(&client.key).await;
    let mut asked = bed.dialled(PG2).await;
    asked.asked_to_cancel(&replica).await;
    // The one who cancels hears of it by the end of his connection.
    canceller.quiet().await;
    drop(asked);
    canceller.gone().await;
    let cancelled = [
        error("57014", "canceling statement due to user request"),
        ready('I'),
    ]
    .concat();
    replica.send(&cancelled).await;
    client.expect_only(&[&cancelled]).await;
    primary.quiet().await;
    client.send(&query("select c from t")).await;
    replica.expect_only(&[&query("select c from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_comes_late_reaches_nobody_else() {
    let (mut bed, mut primary) = Bed::start(&[("pool.max_size", "1")]).await;
    let mut client = bed.client().await;
    let mut next = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    next.send(&query("delete from t")).await;
    let mut canceller = bed.cancel(&client.key).await;
    let mut asked = bed.dialled(PG1).await;
    asked.asked_to_cancel(&primary).await;

    // The answer was on its way already.
    primary.send(&done("INSERT 0 1", 'I')).await;
    primary.quiet_for(Duration::from_secs(2)).await;
    drop(asked);
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    canceller.gone().await;
    primary.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_between_two_tries_ends_the_request() {
    let read = query("select c from t");
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&read).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&read]).await;
    // The replica refuses the statement, and has nothing to cancel any more.
    let mut canceller = bed.cancel(&client.key).await;
    let mut asked = bed.dialled(PG2).await;
    asked.asked_to_cancel(&replica).await;
    let conflict = error("40001", "canceling statement due to conflict with recovery");
    replica.send(&[conflict, ready('I')].concat()).await;
    drop(asked);
    canceller.gone().await;
    let told = client.told().await;
    assert_eq!(told.sqlstate, "57014");
    client.expect_only(&[&ready('I')]).await;
    primary.quiet().await;

    // It was that request's cancel alone. (The statement leans to the primary now.)
    client.send(&read).await;
    primary.expect_only(&[&read]).await;
    let answer = [one_row("x"), ready('I')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_cancel_does_not_arrive_is_closed() {
    let (mut bed, mut primary) =
        Bed::start(&[("pool.max_size", "1"), ("pool.acquire_timeout", "20s")]).await;
    let mut client = bed.client().await;
    let mut next = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    next.send(&query("delete from t")).await;
    let _canceller = bed.cancel(&client.key).await;
    let mut asked = bed.dialled(PG1).await;
    asked.asked_to_cancel(&primary).await;
    primary.send(&done("INSERT 0 1", 'I')).await;
    primary.quiet_for(Duration::from_millis(4900)).await;
    primary.gone_within(Duration::from_millis(200)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query("delete from t")]).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_without_a_request_or_with_a_wrong_key_does_nothing() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    bed.cancel(&client.key).await.gone().await;
    bed.not_dialled(PG1).await;

    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let guessed = CancelKey {
        pid: client.key.pid,
        key: [0; 4].into(),
    };
    let other = CancelKey {
        pid: client.key.pid ^ 1,
        key: client.key.key.clone(),
    };
    for key in [guessed, other] {
        bed.cancel(&key).await.gone().await;
        bed.not_dialled(PG1).await;
    }
    primary.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_transaction_at_rest_there_is_nothing_to_cancel_but_no_harm_in_it() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    let opened = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
    primary.send(&opened).await;
    client.expect_only(&[&opened]).await;
    let mut canceller = bed.cancel(&client.key).await;
    // As directly, the server gets it and finds nothing running.
    let mut asked = bed.dialled(PG1).await;
    asked.asked_to_cancel(&primary).await;
    drop(asked);
    canceller.gone().await;
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;
}
