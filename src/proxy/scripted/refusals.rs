//! A replica refuses what the primary might not: it runs there, and only that answer is seen.

use super::{bed::*, message::*};

const READ: &str = "select c from t";

#[tokio::test(start_paused = true)]
async fn what_a_replica_refuses_is_answered_by_the_primary() {
    for (sqlstate, message) in [
        ("25006", "cannot execute in a read-only transaction"),
        ("40001", "canceling statement due to conflict with recovery"),
        ("42P01", "relation \"t\" does not exist"),
        ("55000", "not now"),
        ("0A000", "not here"),
        ("XX000", "cannot do this during recovery"),
        ("58P01", "could not open file"),
        ("42501", "permission denied for table t"),
        ("22023", "role \"r\" does not exist"),
    ] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(READ)).await;
        let mut replica = bed.server(PG2).await;
        replica.expect_only(&[&query(READ)]).await;
        replica
            .send(&[column(), error(sqlstate, message), ready('I')].concat())
            .await;
        primary.expect_only(&[&query(READ)]).await;
        let answer = [one_row("x"), ready('I')].concat();
        primary.send(&answer).await;
        client.expect_only(&[&answer]).await;
        replica.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_any_node_would_give_is_the_answer() {
    for sqlstate in ["22012", "22023", "57014", "XX000", "42601"] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(READ)).await;
        let mut replica = bed.server(PG2).await;
        replica.expect_only(&[&query(READ)]).await;
        let refused = error(sqlstate, "whatever");
        replica.send(&[refused.clone(), ready('I')].concat()).await;
        client.expect_only(&[&refused, &ready('I')]).await;
        primary.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_behind_the_first_row_is_passed_on() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let conflict = error("40001", "canceling statement due to conflict with recovery");
    let answer = [column(), row("x"), conflict, ready('I')].concat();
    replica.send(&answer).await;
    client.expect_only(&[&answer]).await;
    primary.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn an_extended_request_is_tried_again_as_a_whole() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let request = [extended(READ), sync()].concat();
    client.send(&request).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&request]).await;
    let refused = error("25006", "cannot execute in a read-only transaction");
    replica
        .send(&[parsed(), bound(), refused, ready('I')].concat())
        .await;
    primary.expect_only(&[&request]).await;
    let answer = [parsed(), bound(), row("x"), done("SELECT 1", 'I')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;

    // 25006 has corrected what is known of it.
    client.send(&request).await;
    primary.expect_only(&[&request]).await;
    primary.send(&answer).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_prepared_with_a_refused_request_is_the_sessions_all_the_same() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let request = [parse("mine", READ), bind("", "mine"), execute(""), sync()].concat();
    let sent = [
        parse("pgsplit_0", READ),
        bind("", "pgsplit_0"),
        execute(""),
        sync(),
    ]
    .concat();
    client.send(&request).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&sent]).await;
    let refused = error("40001", "canceling statement due to conflict with recovery");
    replica
        .send(&[parsed(), bound(), refused, ready('I')].concat())
        .await;
    primary.expect_only(&[&sent]).await;
    let answer = [bound(), row("x"), done("SELECT 1", 'I')].concat();
    primary.send(&[parsed(), answer.clone()].concat()).await;
    client.expect_only(&[&parsed(), &answer]).await;
    client
        .send(&[bind("", "mine"), execute(""), sync()].concat())
        .await;
    // It leans to the primary for a while.
    primary
        .expect_only(&[&bind("", "pgsplit_0"), &execute(""), &sync()])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_primarys_own_refusal_is_the_last_word() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let missing = error("42P01", "relation \"t\" does not exist");
    replica.send(&[missing.clone(), ready('I')].concat()).await;
    primary.expect_only(&[&query(READ)]).await;
    primary.send(&[missing.clone(), ready('I')].concat()).await;
    client.expect_only(&[&missing, &ready('I')]).await;
    replica.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_transaction_that_only_read_a_refusal_takes_it_to_the_primary() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin read only")).await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[&query("begin read only"), &query(READ)])
        .await;
    let answer = [one_row("x"), ready('T')].concat();
    replica
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&done("BEGIN", 'T'), &answer]).await;
    client.send(&query(READ)).await;
    replica.expect_only(&[&query(READ)]).await;
    let conflict = error("40001", "canceling statement due to conflict with recovery");
    replica.send(&[conflict, ready('E')].concat()).await;
    replica.expect(&[&query("ROLLBACK")]).await;
    replica.send(&done("ROLLBACK", 'I')).await;
    primary
        .expect_only(&[&query("begin read only"), &query(READ)])
        .await;
    primary
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_statement_takes_its_transaction_to_the_primary() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin read only")).await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[&query("begin read only"), &query(READ)])
        .await;
    let missing = error("42P01", "relation \"t\" does not exist");
    replica
        .send(&[done("BEGIN", 'T'), missing, ready('E')].concat())
        .await;
    // The replica is rid of it, and the primary has both.
    replica.expect(&[&query("ROLLBACK")]).await;
    replica.send(&done("ROLLBACK", 'I')).await;
    primary
        .expect_only(&[&query("begin read only"), &query(READ)])
        .await;
    let answer = [one_row("x"), ready('T')].concat();
    primary
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&done("BEGIN", 'T'), &answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_before_a_sync_is_left_outside_of_a_transaction() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin read only")).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    let begin = query("begin read only");
    replica.expect_only(&[&begin, &query(READ)]).await;
    let answer = [one_row("x"), ready('T')].concat();
    replica
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&answer]).await;
    let described = [parse("", READ), describe_statement(""), flush()].concat();
    client.send(&described).await;
    // One more, for the case that what comes behind it is none.
    replica.expect_only(&[&described, &flush()]).await;
    replica.send(&error("42703", "no column \"c\"")).await;
    replica.expect_only(&[&sync()]).await;
    replica.send(&ready('E')).await;
    replica.expect_only(&[&query("ROLLBACK")]).await;
    replica.send(&done("ROLLBACK", 'I')).await;
    primary.expect_only(&[&begin, &described, &flush()]).await;
    primary
        .send(&[done("BEGIN", 'T'), parsed(), no_parameters(), column()].concat())
        .await;
    client
        .expect_only(&[&parsed(), &no_parameters(), &column()])
        .await;
}
