//! Errors of servers: which part of a pipeline they end, and what outlives them.

use super::{bed::*, message::*};

#[tokio::test(start_paused = true)]
async fn an_error_ends_its_part_of_a_pipeline_and_no_other() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let bad = [
        extended("insert into t values (1)"),
        extended("insert into nowhere values (2)"),
        extended("insert into t values (3)"),
        sync(),
    ]
    .concat();
    let good = [extended("insert into t values (4)"), sync()].concat();
    client.send(&[bad.clone(), good.clone()].concat()).await;
    primary.expect_only(&[&bad]).await;
    let one = [parsed(), bound(), complete("INSERT 0 1")].concat();
    let missing = error("42P01", "relation \"nowhere\" does not exist");
    let failed = [one.clone(), missing, ready('I')].concat();
    primary.send(&failed).await;
    client.expect_only(&[&failed]).await;
    primary.expect_only(&[&good]).await;
    primary.send(&[one.clone(), ready('I')].concat()).await;
    client.expect_only(&[&one, &ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_could_not_be_parsed_is_nobodys() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let bad = "insert into nowhere values (1)";
    let broken = error("42P01", "relation \"nowhere\" does not exist");
    client.send(&[parse("mine", bad), sync()].concat()).await;
    primary
        .expect_only(&[&parse("pgsplit_0", bad), &sync()])
        .await;
    primary.send(&[broken.clone(), ready('I')].concat()).await;
    client.expect_only(&[&broken, &ready('I')]).await;

    // The name is free, and the server doesn't have the statement either. What it may have of that
    // name is closed first.
    client.send(&[parse("mine", bad), sync()].concat()).await;
    let (mut last, mut sent) = (Vec::new(), Vec::new());
    while last != sync() {
        last = primary.message().await;
        sent.push(last.clone());
    }
    assert!(sent.contains(&parse("pgsplit_1", bad)) || sent.contains(&parse("pgsplit_0", bad)));
    if sent.len() == 3 {
        primary.send(&closed()).await;
    }
    primary.send(&[parsed(), ready('I')].concat()).await;
    client.expect_only(&[&parsed(), &ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn after_an_error_before_a_flush_all_is_passed_over_up_to_the_sync() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let broken = error("42601", "syntax error");
    client.send(&[parse("", "inser"), flush()].concat()).await;
    while primary.message().await != flush() {}
    primary.send(&broken).await;
    client.expect_only(&[&broken]).await;
    client
        .send(&[bind("", ""), execute(""), flush()].concat())
        .await;
    client.quiet().await;
    client.send(&sync()).await;
    while primary.message().await != sync() {}
    primary.send(&ready('I')).await;
    client.expect_only(&[&ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_transaction_leaves_it_failed_until_it_is_ended() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let twice = error("23505", "duplicate key");
    client.send(&query("begin")).await;
    client.send(&query("insert into t values (1)")).await;
    primary
        .expect_only(&[&query("begin"), &query("insert into t values (1)")])
        .await;
    primary
        .send(&[done("BEGIN", 'T'), twice.clone(), ready('E')].concat())
        .await;
    client
        .expect_only(&[&done("BEGIN", 'T'), &twice, &ready('E')])
        .await;
    let aborted = error("25P02", "current transaction is aborted");
    client.send(&query("select c from t")).await;
    primary.expect_only(&[&query("select c from t")]).await;
    primary.send(&[aborted.clone(), ready('E')].concat()).await;
    client.expect_only(&[&aborted, &ready('E')]).await;
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("ROLLBACK", 'I')).await;
    client.expect_only(&[&done("ROLLBACK", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_sessions_settings_are_refused_the_statement_counts_as_failed() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut one = bed.client().await;
    one.send(&query("set search_path = a")).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query("set search_path = a")]).await;
    replica.send(&done("SET", 'I')).await;
    one.expect_only(&[&done("SET", 'I')]).await;
    one.send(&query("insert into t values (1)")).await;
    primary
        .expect_only(&[
            &query("SET \"search_path\" TO a;"),
            &query("insert into t values (1)"),
        ])
        .await;
    let refused = error("55P02", "cannot be changed now");
    primary
        .send(&[refused, ready('I'), done("INSERT 0 1", 'I')].concat())
        .await;
    let told = one.told().await;
    assert_eq!(told.what(), ("ERROR", "55P02"), "{told:?}");
    one.expect_only(&[&ready('I')]).await;
    primary.gone().await;

    // The session goes on.
    let mut other = bed.client().await;
    other.send(&query("insert into t values (1)")).await;
    let mut fresh = bed.server(PG1).await;
    fresh
        .expect_only(&[&query("insert into t values (1)")])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_out_of_date_is_made_again_unseen() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let text = "insert into t values (1) returning *";
    let run = [parse("mine", text), bind("", "mine"), execute(""), sync()].concat();
    client.send(&run).await;
    primary
        .expect_only(&[
            &parse("pgsplit_0", text),
            &bind("", "pgsplit_0"),
            &execute(""),
            &sync(),
        ])
        .await;
    let answer = [bound(), row("1"), done("INSERT 0 1", 'I')].concat();
    primary.send(&[parsed(), answer.clone()].concat()).await;
    client.expect_only(&[&parsed(), &answer]).await;

    let stale = error("0A000", "cached plan must not change result type");
    let described = [describe_portal(""), execute(""), sync()].concat();
    client
        .send(&[bind("", "mine"), described.clone()].concat())
        .await;
    primary
        .expect_only(&[&bind("", "pgsplit_0"), &described])
        .await;
    primary.send(&[stale.clone(), ready('I')].concat()).await;
    primary
        .expect_only(&[
            &close_statement("pgsplit_0"),
            &parse("pgsplit_0", text),
            &bind("", "pgsplit_0"),
            &described,
        ])
        .await;
    let answer = [bound(), column(), row("1"), done("INSERT 0 1", 'I')].concat();
    primary
        .send(&[closed(), parsed(), answer.clone()].concat())
        .await;
    client.expect_only(&[&answer]).await;

    // A client that doesn't ask what comes would take it for what came before.
    let undescribed = [execute(""), sync()].concat();
    client
        .send(&[bind("", "mine"), undescribed.clone()].concat())
        .await;
    primary
        .expect_only(&[&bind("", "pgsplit_0"), &undescribed])
        .await;
    primary.send(&[stale.clone(), ready('I')].concat()).await;
    client.expect_only(&[&stale, &ready('I')]).await;
    primary.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_ends_the_client_and_nothing_else() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    for bytes in [
        &b"Q\0\0\0\x03"[..],
        b"Q\xFF\xFF\xFF\xFF",
        b"P\0\0\0\x05\0",
        b"~\0\0\0\x04",
    ] {
        let mut client = bed.client().await;
        client.send(bytes).await;
        client.send(&sync()).await;
        let told = client.told().await;
        assert_eq!(told.what(), ("FATAL", "08P01"), "{told:?}");
        client.gone().await;
    }
    primary.quiet().await;

    // In the middle of a transaction, the server connection ends with it.
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query("delete from t")).await;
    primary
        .expect_only(&[&query("begin"), &query("delete from t")])
        .await;
    primary
        .send(&[done("BEGIN", 'T'), done("DELETE 1", 'T')].concat())
        .await;
    client
        .expect_only(&[&done("BEGIN", 'T'), &done("DELETE 1", 'T')])
        .await;
    client.send(b"Q\0\0\0\x03").await;
    assert_eq!(client.told().await.what(), ("FATAL", "08P01"));
    client.gone().await;
    primary.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_out_of_step_is_left_and_the_client_told() {
    for wrong in [
        &b"1\0\0\0\x04"[..],
        b"Q\0\0\0\x04",
        b"Z\0\0\0\x05x",
        b"Z\0\0\0\x03",
        b"C\xFF\xFF\xFF\xFF",
    ] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query("delete from t")).await;
        primary.expect_only(&[&query("delete from t")]).await;
        primary.send(wrong).await;
        let told = client.told().await;
        assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
        client.expect_only(&[&ready('I')]).await;
        primary.gone().await;
    }
}
