//! Messages that answer nothing, at odd moments: notices, notifications, changed parameters.

use super::{super::observe, bed::*, message::*};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";

#[tokio::test(start_paused = true)]
async fn notices_are_passed_on_wherever_they_come() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&[extended(WRITE), sync()].concat()).await;
    primary.expect_only(&[&extended(WRITE), &sync()]).await;
    let answer = [
        notice("one"),
        parsed(),
        notice("two"),
        bound(),
        notice("three"),
        complete("INSERT 0 1"),
        parameter("application_name", "x"),
        notice("four"),
        ready('I'),
    ]
    .concat();
    for byte in &answer {
        primary.send(&[*byte]).await;
    }
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_notice_before_a_refusal_is_not_shown_with_the_other_nodes_answer() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let refused = error("25006", "cannot execute in a read-only transaction");
    replica
        .send(&[notice("here"), column(), refused, ready('I')].concat())
        .await;
    primary.expect_only(&[&query(READ)]).await;
    let answer = [notice("there"), one_row("x"), ready('I')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_another_session_is_not_shown() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    primary
        .send(
            &[
                notification("a", "x"),
                complete("INSERT 0 1"),
                notification("a", "y"),
                ready('I'),
            ]
            .concat(),
        )
        .await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;

    // That a node is a replica is no business of the client's.
    client.send(&query(READ)).await;
    bed.probed(PG1, false, 0x0100_1000);
    let _on_the_primary = primary.message().await;
    primary.send(&[one_row("x"), ready('I')].concat()).await;
    client.expect_only(&[&one_row("x"), &ready('I')]).await;
    bed.probed(PG1, false, 0x0100_2000);
    bed.probed(PG2, true, 0x0100_2000);
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    replica
        .send(
            &[
                column(),
                parameter("in_hot_standby", "on"),
                row("x"),
                done("SELECT 1", 'I'),
            ]
            .concat(),
        )
        .await;
    client.expect_only(&[&one_row("x"), &ready('I')]).await;
}

#[tokio::test(start_paused = true)]
async fn who_listens_is_told_at_rest_and_in_the_middle_of_an_answer() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("listen a")).await;
    primary.expect_only(&[&query("listen a")]).await;
    primary.send(&done("LISTEN", 'I')).await;
    client.expect_only(&[&done("LISTEN", 'I')]).await;
    primary.expect(&[&query(observe::LOOK)]).await;
    // It comes while the proxy looks after itself.
    primary
        .send(
            &[
                row_of_three("n"),
                notification("a", "0"),
                done("SELECT 1", 'I'),
                notification("a", "at once behind it"),
                notification("a", "in pieces")[..9].to_vec(),
            ]
            .concat(),
        )
        .await;
    client.quiet().await;
    primary.send(&notification("a", "in pieces")[9..]).await;
    let all = ["0", "at once behind it", "in pieces"].map(|payload| notification("a", payload));
    client.expect_only(&[&all.concat()]).await;

    primary.send(&notification("a", "1")).await;
    client.expect_only(&[&notification("a", "1")]).await;
    let (two, three) = (notification("a", "2"), notification("a", "3"));
    // In pieces.
    primary.send(&two[..7]).await;
    client.quiet().await;
    primary.send(&[&two[7..], &three].concat()).await;
    client.expect_only(&[&two, &three]).await;

    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let answer = [
        notification("a", "4"),
        done("INSERT 0 1", 'I'),
        notification("a", "5"),
        notification("a", "5 1/2"),
    ]
    .concat();
    let (most, rest) = answer.split_at(answer.len() - 4);
    primary.send(most).await;
    client.expect(&[&most[..most.len() - 20]]).await;
    primary.send(rest).await;
    client.expect_only(&[&answer[most.len() - 20..]]).await;

    // A read may go elsewhere, and news come from here meanwhile.
    bed.probed(PG1, false, 0x0100_2000);
    bed.probed(PG2, true, 0x0100_2000);
    client.send(&query(READ)).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    primary.send(&notification("a", "6")).await;
    let answer = [one_row("x"), ready('I')].concat();
    replica.send(&answer).await;
    client
        .expect_only(&[&answer, &notification("a", "6")])
        .await;

    // UNLISTEN frees the connection.
    client.send(&query("unlisten *")).await;
    primary.expect_only(&[&query("unlisten *")]).await;
    primary.send(&done("UNLISTEN", 'I')).await;
    client.expect_only(&[&done("UNLISTEN", 'I')]).await;
    primary.looked_at(&[]).await;
    let mut other = bed.client().await;
    other.send(&query(WRITE)).await;
    // What a session leaves in places that can't be looked at is reset before the next one's.
    primary
        .expect_only(&[&query("RESET ROLE;RESET SESSION AUTHORIZATION;RESET ALL;")])
        .await;
    primary.send(&[done("RESET", 'I')].concat()).await;
    primary.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_transaction_notices_are_passed_on_at_rest() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("begin")).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    let opened = [done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat();
    primary.send(&opened).await;
    client.expect_only(&[&opened]).await;
    let news = [notice("shutdown is near"), parameter("TimeZone", "UTC")].concat();
    primary.send(&news).await;
    client.expect_only(&[&news]).await;
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_may_say_that_its_parameters_changed() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    // After a reload of the server's configuration. Whoever is lent it next learns nothing from a
    // connection with unread words: another is opened.
    primary.send(&parameter("TimeZone", "UTC")).await;
    client.send(&query(WRITE)).await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query(WRITE)]).await;
    primary.gone().await;
}
