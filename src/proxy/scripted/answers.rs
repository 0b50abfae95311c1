//! Requests and their answers, when nothing goes wrong: what is passed on, and what is put before it.

use super::{bed::*, message::*};

#[tokio::test(start_paused = true)]
async fn a_read_goes_to_the_replica_and_a_write_to_the_primary_as_they_are() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("select c from t")).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query("select c from t")]).await;
    let answer = [one_row("x"), ready('I')].concat();
    replica.send(&answer).await;
    client.expect_only(&[&answer]).await;

    client.send(&query("delete from t")).await;
    primary.expect_only(&[&query("delete from t")]).await;
    primary.send(&done("DELETE 3", 'I')).await;
    client.expect_only(&[&done("DELETE 3", 'I')]).await;
    replica.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_are_answered_one_by_one() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let all = [
        query("insert into t values (1)"),
        query("insert into t values (2)"),
        extended("insert into t values (3)"),
        sync(),
    ];
    client.send(&all.concat()).await;
    for n in 1..=2 {
        primary
            .expect_only(&[&query(&format!("insert into t values ({n})"))])
            .await;
        primary.send(&done("INSERT 0 1", 'I')).await;
    }
    primary
        .expect_only(&[&extended("insert into t values (3)"), &sync()])
        .await;
    let last = [parsed(), bound(), done("INSERT 0 1", 'I')].concat();
    primary.send(&last).await;
    let each = done("INSERT 0 1", 'I');
    client.expect_only(&[&each, &each, &last]).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_in_small_pieces_is_sent_when_it_is_whole() {
    let (mut bed, _primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let request = [extended("select c from t"), sync()].concat();
    let (last, before) = request.split_last().unwrap();
    for byte in before {
        client.send(&[*byte]).await;
        bed.not_dialled(PG2).await;
    }
    client.send(&[*last]).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&request]).await;
    let answer = [parsed(), bound(), row("x"), done("SELECT 1", 'I')].concat();
    for byte in &answer {
        replica.send(&[*byte]).await;
    }
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_opened_with_its_first_statement_where_that_belongs() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    primary.quiet().await;
    client.send(&query("select c from t")).await;
    primary
        .expect_only(&[&query("begin"), &query("select c from t")])
        .await;
    let answer = [one_row("x"), ready('T')].concat();
    primary
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&answer]).await;
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;

    // Nothing ran in this one: no server hears of it.
    client.send(&query("begin")).await;
    client.send(&query("rollback")).await;
    client
        .expect_only(&[&done("BEGIN", 'T'), &done("ROLLBACK", 'I')])
        .await;
    primary.quiet().await;

    // It has just been to the primary, and the replica hasn't caught up.
    bed.probed(PG1, false, 0x0100_1000);
    bed.probed(PG2, true, 0x0100_1000);
    client.send(&query("start transaction read only")).await;
    client.expect_only(&[&done("START TRANSACTION", 'T')]).await;
    client.send(&query("select c from t")).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[
            &query("start transaction read only"),
            &query("select c from t"),
        ])
        .await;
    replica
        .send(&[done("START TRANSACTION", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&answer]).await;
    client.send(&query("commit")).await;
    replica.expect_only(&[&query("commit")]).await;
    replica.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;
    primary.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn settings_go_before_the_statement_where_the_connection_lacks_them() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut one = bed.client().await;
    let mut other = bed.client().await;
    // It takes effect wherever it runs.
    one.send(&query("set search_path = a, b")).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[&query("set search_path = a, b")])
        .await;
    replica.send(&done("SET", 'I')).await;
    one.expect_only(&[&done("SET", 'I')]).await;

    let insert = [extended("insert into t values (1)"), sync()].concat();
    let inserted = [parsed(), bound(), done("INSERT 0 1", 'I')].concat();
    one.send(&insert).await;
    primary
        .expect_only(&[&query("SET \"search_path\" TO a, b;"), &insert])
        .await;
    // The client sees nothing of it, however it comes.
    for byte in [done("SET", 'I'), inserted.clone()].concat() {
        primary.send(&[byte]).await;
    }
    one.expect_only(&[&inserted]).await;

    other.send(&insert).await;
    primary
        .expect_only(&[&query("RESET \"search_path\";"), &insert])
        .await;
    primary
        .send(&[done("RESET", 'I'), inserted.clone()].concat())
        .await;
    other.expect_only(&[&inserted]).await;
    other.send(&insert).await;
    primary.expect_only(&[&insert]).await;
}

#[tokio::test(start_paused = true)]
async fn a_statement_of_the_session_is_parsed_where_it_is_missing() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let text = "select c from t";
    client.send(&[parse("mine", text), sync()].concat()).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[&parse("pgsplit_0", text), &sync()])
        .await;
    replica.send(&[parsed(), ready('I')].concat()).await;
    client.expect_only(&[&parsed(), &ready('I')]).await;

    // Known there by now.
    let run = [bind("", "mine"), execute(""), sync()].concat();
    let answer = [bound(), row("x"), done("SELECT 1", 'I')].concat();
    client.send(&run).await;
    replica
        .expect_only(&[&bind("", "pgsplit_0"), &execute(""), &sync()])
        .await;
    replica.send(&answer).await;
    client.expect_only(&[&answer]).await;

    // Not so on the primary, where a transaction takes it.
    client.send(&query("begin")).await;
    client.send(&run).await;
    primary
        .expect_only(&[
            &query("begin"),
            &parse("pgsplit_0", text),
            &bind("", "pgsplit_0"),
            &execute(""),
            &sync(),
        ])
        .await;
    let answer = [bound(), row("x"), done("SELECT 1", 'T')].concat();
    primary
        .send(&[done("BEGIN", 'T'), parsed(), answer.clone()].concat())
        .await;
    client.expect_only(&[&done("BEGIN", 'T'), &answer]).await;

    // Another session's statement of that text is the same one; its Parse is answered here.
    let mut other = bed.client().await;
    other
        .send(
            &[
                parse("theirs", text),
                bind("", "theirs"),
                execute(""),
                sync(),
            ]
            .concat(),
        )
        .await;
    replica
        .expect_only(&[&bind("", "pgsplit_0"), &execute(""), &sync()])
        .await;
    let answer = [bound(), row("x"), done("SELECT 1", 'I')].concat();
    replica.send(&answer).await;
    other.expect_only(&[&parsed(), &answer]).await;
}

#[tokio::test(start_paused = true)]
async fn closing_statements_needs_no_server() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client
        .send(&[close_statement("mine"), close_statement(""), sync(), sync()].concat())
        .await;
    client
        .expect_only(&[&closed(), &closed(), &ready('I'), &ready('I')])
        .await;
    primary.quiet().await;
    bed.not_dialled(PG2).await;
}

#[tokio::test(start_paused = true)]
async fn the_unnamed_statement_is_parsed_again_when_another_session_was_there() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut one = bed.client().await;
    let mut other = bed.client().await;
    let insert = "insert into t values (1)";
    one.send(&[parse("", insert), sync()].concat()).await;
    primary.expect_only(&[&parse("", insert), &sync()]).await;
    primary.send(&[parsed(), ready('I')].concat()).await;
    one.expect_only(&[&parsed(), &ready('I')]).await;

    other
        .send(&[extended("delete from t"), sync()].concat())
        .await;
    primary
        .expect_only(&[&extended("delete from t"), &sync()])
        .await;
    let answer = [parsed(), bound(), done("DELETE 1", 'I')].concat();
    primary.send(&answer).await;
    other.expect_only(&[&answer]).await;

    one.send(&[bind("", ""), execute(""), sync()].concat())
        .await;
    primary
        .expect_only(&[&parse("", insert), &bind("", ""), &execute(""), &sync()])
        .await;
    let answer = [bound(), done("INSERT 0 1", 'I')].concat();
    primary.send(&[parsed(), answer.clone()].concat()).await;
    one.expect_only(&[&answer]).await;

    // A session that has none must not run another's: the server words the error.
    let mut third = bed.client().await;
    let run = [bind("", ""), execute(""), sync()].concat();
    let missing = error("26000", "unnamed prepared statement does not exist");
    third.send(&run).await;
    let mut replica = bed.server(PG2).await;
    for node in [&mut replica, &mut primary] {
        node.expect_only(&[&close_statement(""), &run]).await;
        node.send(&[closed(), missing.clone(), ready('I')].concat())
            .await;
    }
    third.expect_only(&[&missing, &ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn names_that_are_not_the_sessions_lead_nowhere() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let missing = error("26000", "prepared statement does not exist");
    let mut replica = None;
    for (name, sent) in [("nope", "nope"), ("pgsplit_0", "pgsplit_0 ")] {
        client
            .send(&[bind("", name), execute(""), sync()].concat())
            .await;
        if replica.is_none() {
            replica = Some(bed.server(PG2).await);
        }
        // A replica might lack what the primary has.
        for node in [replica.as_mut().unwrap(), &mut primary] {
            node.expect_only(&[&bind("", sent), &execute(""), &sync()])
                .await;
            node.send(&[missing.clone(), ready('I')].concat()).await;
        }
        client.expect_only(&[&missing, &ready('I')]).await;
        // It has been to the primary: the replica may serve it again when it has caught up.
        bed.probed(PG1, false, 0x0100_1000);
        bed.probed(PG2, true, 0x0100_1000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_answered_and_the_transaction_stays_until_the_sync() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let insert = "insert into t values (1)";
    client
        .send(&[parse("", insert), describe_statement(""), flush()].concat())
        .await;
    primary
        .expect(&[&parse("", insert), &describe_statement(""), &flush()])
        .await;
    let described = [parsed(), no_parameters(), column()].concat();
    primary.send(&described).await;
    client.expect_only(&[&described]).await;
    // The connection is this session's until then.
    let mut other = bed.client().await;
    other.send(&query("delete from t")).await;
    let mut second = bed.server(PG1).await;
    second.expect_only(&[&query("delete from t")]).await;

    client
        .send(&[bind("", ""), execute_one(""), flush()].concat())
        .await;
    while primary.message().await != execute_one("") {}
    primary
        .send(&[bound(), row("1"), suspended()].concat())
        .await;
    client
        .expect_only(&[&bound(), &row("1"), &suspended()])
        .await;
    client.send(&[execute(""), sync()].concat()).await;
    while primary.message().await != sync() {}
    primary.send(&done("SELECT 0", 'I')).await;
    client.expect_only(&[&done("SELECT 0", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_described_and_executed_in_parts_keeps_its_portal() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    let first = [
        parse("", "select c from t"),
        bind("p", ""),
        describe_portal("p"),
        execute_one("p"),
        sync(),
    ]
    .concat();
    client.send(&first).await;
    primary.expect_only(&[&query("begin"), &first]).await;
    let answer = [
        parsed(),
        bound(),
        column(),
        row("1"),
        suspended(),
        ready('T'),
    ]
    .concat();
    primary
        .send(&[done("BEGIN", 'T'), answer.clone()].concat())
        .await;
    client.expect_only(&[&done("BEGIN", 'T'), &answer]).await;
    client.send(&[execute_one("p"), sync()].concat()).await;
    primary.expect_only(&[&execute_one("p"), &sync()]).await;
    let answer = [row("2"), suspended(), ready('T')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_on_the_primary_until_the_replica_is_known_to_have_it() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let mut other = bed.client().await;
    client.send(&query("delete from t")).await;
    primary.expect_only(&[&query("delete from t")]).await;
    primary.send(&done("DELETE 1", 'I')).await;
    client.expect_only(&[&done("DELETE 1", 'I')]).await;
    assert!(
        !bed.proxy.monitor.sample_was_wanted(PG1),
        "nobody reads yet"
    );

    let answer = [one_row("x"), ready('I')].concat();
    client.send(&query("select c from t")).await;
    primary.expect_only(&[&query("select c from t")]).await;
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
    assert!(bed.proxy.monitor.sample_was_wanted(PG1));
    assert!(bed.proxy.monitor.sample_was_wanted(PG2));
    // Who has written nothing needs not care.
    other.send(&query("select c from t")).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query("select c from t")]).await;
    replica.send(&answer).await;
    other.expect_only(&[&answer]).await;

    bed.probed(PG1, false, 0x0100_1000);
    bed.probed(PG2, true, 0x0100_0FFF);
    client.send(&query("select c from t")).await;
    primary.expect_only(&[&query("select c from t")]).await;
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
    bed.probed(PG1, false, 0x0100_1000);
    bed.probed(PG2, true, 0x0100_1000);
    client.send(&query("select c from t")).await;
    replica.expect_only(&[&query("select c from t")]).await;
}
