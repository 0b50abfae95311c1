//! A server connection that is lost: before, in the middle of and after an answer.

use super::{bed::*, message::*};
use crate::{cluster::Failure, session::committing::Committing};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";

/// A client in a transaction on the primary, in which something was written.
async fn in_transaction(bed: &mut Bed, primary: &mut End) -> End {
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    let answer = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
    client
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_elsewhere_when_nothing_of_it_was_shown() {
    for said in [
        vec![],
        column(),
        fatal(
            "57P01",
            "terminating connection due to administrator command",
        ),
        fatal("57P02", "terminating connection because of crash"),
        [column(), fatal("40001", "conflict with recovery")].concat(),
    ] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(READ)).await;
        let mut replica = bed.server(PG2).await;
        replica.expect_only(&[&query(READ)]).await;
        replica.send(&said).await;
        drop(replica);
        primary.expect_only(&[&query(READ)]).await;
        let answer = [one_row("x"), ready('I')].concat();
        primary.send(&answer).await;
        client.expect_only(&[&answer]).await;
        // A connection that breaks without a word says something of its node.
        let silent = !said.windows(5).any(|bytes| bytes == b"FATAL");
        let reported = bed.proxy.monitor.reported(PG2);
        assert_eq!(reported, silent.then_some(Failure::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn another_replica_is_tried_before_the_primary() {
    let (mut bed, mut primary) = Bed::with_replicas(2, &[]).await;
    let mut client = bed.client().await;
    client.send(&[extended(READ), sync()].concat()).await;
    let (first, mut replica) = bed.any_server(&[PG2, PG3]).await;
    let second = if first == PG2 { PG3 } else { PG2 };
    replica.expect_only(&[&extended(READ), &sync()]).await;
    replica.send(&[parsed(), bound()].concat()).await;
    drop(replica);
    let mut other = bed.server(second).await;
    other.expect_only(&[&extended(READ), &sync()]).await;
    drop(other);
    primary.expect_only(&[&extended(READ), &sync()]).await;
    let answer = [parsed(), bound(), row("x"), done("SELECT 1", 'I')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_shown_in_part_fails_and_the_session_lives_on() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    replica.send(&[column(), row("x")].concat()).await;
    client.expect_only(&[&column(), &row("x")]).await;
    drop(replica);
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08006"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_middle_of_a_message_nothing_more_can_be_told() {
    let (mut bed, _primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let long = row(&"x".repeat(100_000));
    let part = [&column()[..], &long[..50_000]].concat();
    replica.send(&part).await;
    client.expect_only(&[&part]).await;
    drop(replica);
    client.gone().await;
}

#[tokio::test(start_paused = true)]
async fn whether_a_write_was_carried_out_is_not_known() {
    for shown in [vec![], complete("INSERT 0 1")] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
        primary.send(&shown).await;
        drop(primary);
        client.expect(&[&shown]).await;
        let told = client.told().await;
        assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
        assert!(!told.hint.is_empty());
        client.expect_only(&[&ready('I')]).await;
        assert_eq!(bed.proxy.monitor.reported(PG1), Some(Failure::Closed));

        // It was sent once: the next one is another.
        client.send(&query("select 1 for update")).await;
        let mut fresh = bed.server(PG1).await;
        fresh.expect_only(&[&query("select 1 for update")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_server_says_it_rolled_back_is_sent_again() {
    for sqlstate in ["57P01", "57P03"] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        client.send(&[extended(WRITE), sync()].concat()).await;
        primary.expect_only(&[&extended(WRITE), &sync()]).await;
        primary
            .send(&[parsed(), bound(), fatal(sqlstate, "terminating")].concat())
            .await;
        drop(primary);
        if sqlstate == "57P01" {
            bed.shuts_down(PG1).await;
        }
        let mut fresh = bed.server(PG1).await;
        fresh.expect_only(&[&extended(WRITE), &sync()]).await;
        let answer = [parsed(), bound(), done("INSERT 0 1", 'I')].concat();
        fresh.send(&answer).await;
        client.expect_only(&[&answer]).await;
    }
}

/// Its node serves on: somebody has ended this connection, and means it.
#[tokio::test(start_paused = true)]
async fn a_write_that_somebody_ends_is_not_sent_again() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    primary.send(&fatal("57P01", "terminating")).await;
    drop(primary);
    let mut asked = bed.server(PG1).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("FATAL", "57P01"), "{told:?}");
    assert_eq!(told.message, "terminating");
    client.gone().await;
    asked.gone().await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_nobody_knows_about_a_write() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let crash = "terminating connection because of crash of another server process";
    primary.send(&fatal("57P02", crash)).await;
    drop(primary);
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    assert!(told.message.contains(crash), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn last_words_behind_a_complete_answer_are_not_the_clients() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let shutdown = fatal(
        "57P01",
        "terminating connection due to administrator command",
    );
    primary
        .send(&[done("INSERT 0 1", 'I'), shutdown].concat())
        .await;
    drop(primary);
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_while_it_was_idle_is_not_lent_again() {
    for words in [vec![], fatal("57P01", "terminating connection")] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = bed.client().await;
        primary.send(&words).await;
        drop(primary);
        client.send(&query(WRITE)).await;
        let mut fresh = bed.server(PG1).await;
        fresh.expect_only(&[&query(WRITE)]).await;
        fresh.send(&done("INSERT 0 1", 'I')).await;
        client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_lost_with_its_connection_and_the_client_told_to_repeat_it() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = in_transaction(&mut bed, &mut primary).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    drop(primary);
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "40001"), "{told:?}");
    client.expect_only(&[&ready('E')]).await;

    client.send(&query(READ)).await;
    assert_eq!(client.told().await.what(), ("ERROR", "25P02"));
    client.expect_only(&[&ready('E')]).await;
    client.send(&[extended(READ), sync()].concat()).await;
    assert_eq!(client.told().await.what(), ("ERROR", "25P02"));
    client.expect_only(&[&ready('E')]).await;
    client.send(&query("commit")).await;
    client.expect_only(&[&done("ROLLBACK", 'I')]).await;
    bed.not_dialled(PG1).await;

    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_lost_while_its_client_rests_is_told_with_the_next_statement() {
    for words in [vec![], fatal("57P01", "terminating connection")] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = in_transaction(&mut bed, &mut primary).await;
        primary.send(&words).await;
        drop(primary);
        client.quiet().await;
        client.send(&query(READ)).await;
        let told = client.told().await;
        assert_eq!(told.what(), ("ERROR", "40001"), "{told:?}");
        client.expect_only(&[&ready('E')]).await;
        client.send(&query(READ)).await;
        assert_eq!(client.told().await.what(), ("ERROR", "25P02"));
        client.expect_only(&[&ready('E')]).await;
        client.send(&[extended("rollback"), sync()].concat()).await;
        client
            .expect_only(&[&parsed(), &bound(), &done("ROLLBACK", 'I')])
            .await;
        bed.not_dialled(PG1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_statement_of_a_transaction_may_be_sent_again_if_it_only_reads() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin read only")).await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica
        .expect_only(&[&query("begin read only"), &query(READ)])
        .await;
    replica.send(&done("BEGIN", 'T')).await;
    drop(replica);
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
async fn the_first_write_of_a_transaction_that_is_lost_was_surely_rolled_back() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    drop(primary);
    client.expect(&[&done("BEGIN", 'T')]).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "40001"), "{told:?}");
    client.expect_only(&[&ready('E')]).await;
    client.send(&query("rollback")).await;
    client.expect_only(&[&done("ROLLBACK", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn whether_a_commit_was_carried_out_is_not_known() {
    for commit in [
        "commit",
        "end",
        "commit and chain",
        "prepare transaction 'x'",
    ] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = in_transaction(&mut bed, &mut primary).await;
        client.send(&query(commit)).await;
        primary.expect_only(&[&query(commit)]).await;
        drop(primary);
        let told = client.told().await;
        assert_eq!(told.what(), ("ERROR", "08007"), "{commit}: {told:?}");
        client.expect_only(&[&ready('I')]).await;
    }
    // Not so where the server said that it ended the transaction.
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = in_transaction(&mut bed, &mut primary).await;
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary
        .send(&fatal("57P01", "terminating connection"))
        .await;
    drop(primary);
    bed.shuts_down(PG1).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "40001"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_pipeline_is_answered_up_to_its_sync() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let batch = [extended(WRITE), extended(WRITE), sync()].concat();
    client.send(&[batch.clone(), batch.clone()].concat()).await;
    primary.expect_only(&[&batch]).await;
    let first = [parsed(), bound(), complete("INSERT 0 1")].concat();
    primary.send(&first).await;
    drop(primary);
    client.expect(&[&first]).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
    // What was behind that is another request.
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&batch]).await;
    let answer = [&first[..], &first, &ready('I')].concat();
    fresh.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn lost_before_a_sync_the_rest_is_passed_over() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&[extended(WRITE), flush()].concat()).await;
    while primary.message().await != flush() {}
    primary
        .send(&[parsed(), bound(), complete("INSERT 0 1")].concat())
        .await;
    client
        .expect_only(&[&parsed(), &bound(), &complete("INSERT 0 1")])
        .await;
    client.send(&[extended(WRITE), flush()].concat()).await;
    while primary.message().await != flush() {}
    drop(primary);
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    client.send(&[extended(WRITE), flush()].concat()).await;
    client.quiet().await;
    client.send(&sync()).await;
    client.expect_only(&[&ready('I')]).await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_to_keep_is_not_sent_again() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let long = query(&format!("insert into t values ('{}')", "x".repeat(3 << 20)));
    let (head, rest) = long.split_at(1 << 20);
    let mut sent = 0;
    while sent < head.len() {
        sent += client.push(&head[sent..]).await;
        primary.drain().await;
    }
    drop(primary);
    client.push_all(rest).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
    bed.not_dialled(PG1).await;
    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_node_lets_go_of_its_requests_when_it_is_known_to_be_down() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut reader = bed.client().await;
    let mut writer = bed.client().await;
    reader.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    writer.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    reader.quiet().await;

    bed.falls(PG2);
    replica.gone().await;
    let mut second = bed.server(PG1).await;
    second.expect_only(&[&query(READ)]).await;
    let answer = [one_row("x"), ready('I')].concat();
    second.send(&answer).await;
    reader.expect_only(&[&answer]).await;
    writer.quiet().await;

    bed.falls(PG1);
    primary.gone().await;
    let told = writer.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    writer.expect_only(&[&ready('I')]).await;
    // Idle ones are closed, too.
    second.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_bound_to_its_connection_ends_with_it() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("listen a")).await;
    primary.expect_only(&[&query("listen a")]).await;
    primary.send(&done("LISTEN", 'I')).await;
    client.expect_only(&[&done("LISTEN", 'I')]).await;
    primary.looked_at(&["n"]).await;
    drop(primary);
    let told = client.told().await;
    assert_eq!(told.what(), ("FATAL", "08006"), "{told:?}");
    client.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_the_sessions_own_ends_it_as_it_would_directly() {
    for sqlstate in ["25P03", "57P05"] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = in_transaction(&mut bed, &mut primary).await;
        primary.send(&fatal(sqlstate, "timeout")).await;
        // The end of the connection may take a while to follow.
        let told = client.told().await;
        assert_eq!(told.what(), ("FATAL", sqlstate), "{told:?}");
        client.gone().await;
    }
    // Also while something runs, with or without a transaction block; it isn't run again.
    for (sqlstate, block) in [("25P03", true), ("25P04", true), ("25P04", false)] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = if block {
            in_transaction(&mut bed, &mut primary).await
        } else {
            bed.client().await
        };
        client.send(&query(WRITE)).await;
        primary.expect_only(&[&query(WRITE)]).await;
        primary.send(&fatal(sqlstate, "timeout")).await;
        drop(primary);
        let told = client.told().await;
        assert_eq!(told.what(), ("FATAL", sqlstate), "{told:?}");
        client.gone().await;
        bed.not_dialled(PG1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_primary_is_asked_what_became_of_a_commit() {
    for (status, replayed, heard) in [
        ("committed", "true", None),
        ("aborted", "true", Some("40001")),
        ("in progress", "true", Some("08007")),
        ("committed", "false", Some("08007")),
    ] {
        let (mut bed, mut primary) = Bed::start(&[("failover.resolve_commits", "true")]).await;
        let mut client = bed.client().await;
        // A transaction that has written nothing has nothing to ask for.
        for write in [None, Some("insert into t values (1)")] {
            client.send(&query("begin")).await;
            client.expect_only(&[&done("BEGIN", 'T')]).await;
            let select = "/* pgsplit: primary */ select 1";
            client.send(&query(write.unwrap_or(select))).await;
            primary
                .expect_only(&[&query("begin"), &query(write.unwrap_or(select))])
                .await;
            let answer = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
            primary.send(&answer).await;
            client.expect_only(&[&done("INSERT 0 1", 'T')]).await;
            client.send(&query("commit")).await;
            if write.is_none() {
                primary.expect_only(&[&query("commit")]).await;
                primary.send(&done("COMMIT", 'I')).await;
                client.expect_only(&[&done("COMMIT", 'I')]).await;
            }
        }
        let asked = String::from_utf8_lossy(Committing::QUERY).into_owned();
        primary
            .expect_only(&[&query(&asked), &query("commit")])
            .await;
        primary
            .send(
                &[
                    column(),
                    row_of(&["751", "0/16B3748", "00000001"]),
                    done("SELECT 1", 'T'),
                ]
                .concat(),
            )
            .await;
        client.quiet().await;
        drop(primary);
        let mut next = bed.server(PG1).await;
        let question = "SELECT pg_catalog.pg_xact_status('751'::pg_catalog.xid8), \
             (pg_catalog.pg_last_wal_replay_lsn() OPERATOR(pg_catalog.>=) \
             '0/16B3748'::pg_catalog.pg_lsn)::pg_catalog.text, \
             pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";
        next.expect_only(&[&query(question)]).await;
        next.send(
            &[
                column(),
                row_of(&[status, replayed, "00000002"]),
                done("SELECT 1", 'I'),
            ]
            .concat(),
        )
        .await;
        match heard {
            None => client.expect_only(&[&done("COMMIT", 'I')]).await,
            Some(state) => {
                let told = client.told().await;
                assert_eq!(told.what(), ("ERROR", state), "{told:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_primary_is_asked_what_became_of_a_write_that_its_sync_commits() {
    let asked = String::from_utf8_lossy(Committing::QUERY).into_owned();
    let tail = |text: &str| [parse("", text), bind("", ""), execute(""), flush(), sync()].concat();
    let shown = [parsed(), bound(), complete("INSERT 0 1")].concat();
    let told = [
        parsed(),
        bound(),
        row_of(&["751", "0/16B3748", "00000001"]),
        complete("SELECT 1"),
    ]
    .concat();
    for (status, heard) in [
        ("committed", None),
        ("aborted", Some("40001")),
        ("in progress", Some("08007")),
    ] {
        let (mut bed, mut primary) = Bed::start(&[("failover.resolve_commits", "true")]).await;
        let mut client = bed.client().await;
        // One that fails leaves out the question, and the next has its own.
        client.send(&[extended(WRITE), sync()].concat()).await;
        primary
            .expect_only(&[&extended(WRITE), &tail(&asked)])
            .await;
        let failed = [parsed(), bound(), error("23505", "duplicate"), ready('I')].concat();
        primary.send(&failed).await;
        client.expect_only(&[&failed]).await;
        client.send(&[extended(WRITE), sync()].concat()).await;
        primary
            .expect_only(&[&extended(WRITE), &tail(&asked)])
            .await;
        primary.send(&[shown.clone(), told.clone()].concat()).await;
        client.expect_only(&[&shown]).await;
        drop(primary);
        let mut next = bed.server(PG1).await;
        let question = String::from_utf8_lossy(&next.message().await).into_owned();
        assert!(question.contains("pg_xact_status('751'"), "{question}");
        next.send(
            &[
                column(),
                row_of(&[status, "true", "00000002"]),
                done("SELECT 1", 'I'),
            ]
            .concat(),
        )
        .await;
        match heard {
            None => client.expect_only(&[&ready('I')]).await,
            Some(state) => {
                let told = client.told().await;
                assert_eq!(told.what(), ("ERROR", state), "{told:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_a_sync_that_could_not_pass() {
    let (mut bed, mut primary) = Bed::start(&[("failover.resolve_commits", "true")]).await;
    let mut client = bed.client().await;
    for text in [
        "copy t from stdin",
        "vacuum t",
        "/* pgsplit: primary */ select 1",
    ] {
        client.send(&[extended(text), sync()].concat()).await;
        primary.expect_only(&[&extended(text), &sync()]).await;
        let failed = [error("42P01", "no t"), ready('I')].concat();
        primary.send(&failed).await;
        client.expect_only(&[&failed]).await;
    }
}
