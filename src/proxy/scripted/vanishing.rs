//! Clients that leave, politely or not, and clients that don't take what they asked for.

use super::{bed::*, message::*};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";

#[tokio::test(start_paused = true)]
async fn who_leaves_at_rest_leaves_the_server_connection_to_others() {
    for goodbye in [vec![], terminate()] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
        primary.send(&done("INSERT 0 1", 'I')).await;
        client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
        client.send(&goodbye).await;
        client.hang_up().await;
        let mut next = bed.client().await;
        next.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_in_a_transaction_is_rolled_back_at_once() {
    for goodbye in [vec![], terminate(), b"Q\0\0".to_vec()] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query("begin")).await;
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
        let opened = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
        primary.send(&opened).await;
        client.expect_only(&[&opened]).await;
        client.send(&goodbye).await;
        client.hang_up().await;
        // PostgreSQL rolls back when its connection ends.
        primary.gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_with_its_client() {
    let (mut bed, _primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    client.hang_up().await;
    replica.gone().await;
    let mut asked = bed.dialled(PG2).await;
    asked.asked_to_cancel(&replica).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_runs_to_its_end_and_frees_its_connection() {
    for goodbye in [vec![], terminate()] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
        client.send(&goodbye).await;
        client.hang_up().await;
        primary.quiet().await;
        primary.send(&done("INSERT 0 1", 'I')).await;
        let mut next = bed.client().await;
        next.send(&query("delete from t")).await;
        primary.expect_only(&[&query("delete from t")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_transaction_what_runs_is_cancelled() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    let opened = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
    primary.send(&opened).await;
    client.expect_only(&[&opened]).await;
    client.send(&query("select f()")).await;
    primary.expect_only(&[&query("select f()")]).await;
    client.hang_up().await;
    primary.gone().await;
    let mut asked = bed.dialled(PG1).await;
    asked.asked_to_cancel(&primary).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_none() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let request = [extended(WRITE), sync()].concat();
    client.send(&request[..request.len() - 1]).await;
    client.hang_up().await;
    primary.quiet().await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_its_server_back_and_nobody_else() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut slow = bed.narrow_client(1024).await;
    let mut other = bed.client().await;
    slow.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let result = [column(), row(&"x".repeat(8 << 20)), done("SELECT 1", 'I')].concat();
    let taken = replica.push(&result).await;
    assert!(taken < 1 << 20, "{taken} bytes are somewhere");

    other.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    primary.send(&done("INSERT 0 1", 'I')).await;
    other.expect_only(&[&done("INSERT 0 1", 'I')]).await;

    let (mut sent, mut arrived) = (taken, 0);
    while arrived < result.len() {
        let more = slow.drain().await;
        assert!(more > 0, "after {arrived} bytes");
        arrived += more;
        sent += replica.push(&result[sent..]).await;
    }
    slow.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_request_and_a_large_answer_pass_each_other() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    // The first answer comes while the rest of the pipeline is still on its way, and neither side
    // reads before it has written.
    let one = [
        extended(&format!("insert into t values ('{}')", "x".repeat(40_000))),
        sync(),
    ]
    .concat();
    let answer = [
        parsed(),
        bound(),
        row(&"y".repeat(40_000)),
        done("INSERT 0 1", 'I'),
    ]
    .concat();
    let (requests, answers) = (one.repeat(50), answer.repeat(50));
    let (mut asked, mut answered, mut seen, mut shown) = (0, 0, 0, 0);
    while shown < answers.len() {
        let before = (asked, answered, seen, shown);
        asked += client.push(&requests[asked..]).await;
        seen += primary.drain().await;
        let due = seen / one.len() * answer.len();
        answered += primary.push(&answers[answered..due]).await;
        shown += client.drain().await;
        assert_ne!(before, (asked, answered, seen, shown), "nothing moves");
    }
    assert_eq!((seen, shown), (requests.len(), answers.len()));
}
