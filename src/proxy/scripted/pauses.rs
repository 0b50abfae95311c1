//! PAUSE and RESUME: what ends, what waits, what goes on.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{bed::*, message::*};
use crate::{
    error::Visible,
    metrics::inspect::{Action, Inspect as _},
};

const READ: &str = "select c from t";
const WRITE: &str = "insert into t values (1)";

type Done = Result<Option<String>, Visible>;

/// Begins a PAUSE of everything.
fn pause(bed: &Bed) -> JoinHandle<Done> {
    act(bed, Action::Pause(None))
}

fn act(bed: &Bed, action: Action) -> JoinHandle<Done> {
    let proxy = Arc::clone(&bed.proxy);
    tokio::spawn(async move { proxy.act(action).await })
}

async fn resume(bed: &Bed) {
    assert_eq!(bed.proxy.act(Action::Resume(None)).await.unwrap(), None);
}

async fn write(client: &mut End, server: &mut End) {
    client.send(&query(WRITE)).await;
    server.expect_only(&[&query(WRITE)]).await;
    server.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_end_of_a_pause() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut writer = bed.client().await;
    let mut reader = bed.client().await;
    assert_eq!(pause(&bed).await.unwrap().unwrap(), None);
    // The goodbye of PostgreSQL's protocol, or none: the connection is closed.
    primary.drain().await;
    primary.gone().await;
    writer.send(&query(WRITE)).await;
    reader.send(&query(READ)).await;
    writer.quiet_for(Duration::from_secs(60)).await;
    reader.quiet().await;
    bed.not_dialled(PG1).await;
    bed.not_dialled(PG2).await;
    // What needs no server is answered.
    let mut other = bed.client().await;
    other.send(&query("begin")).await;
    other.expect_only(&[&done("BEGIN", 'T')]).await;

    resume(&bed).await;
    let mut new = bed.server(PG1).await;
    new.expect_only(&[&query(WRITE)]).await;
    new.send(&done("INSERT 0 1", 'I')).await;
    writer.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query(READ)]).await;
    let answer = [one_row("x"), ready('I')].concat();
    replica.send(&answer).await;
    reader.expect_only(&[&answer]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_waits_for_transactions() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let mut other = bed.client().await;
    client.send(&query("begin")).await;
    client.expect_only(&[&done("BEGIN", 'T')]).await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query("begin"), &query(WRITE)]).await;
    primary
        .send(&[done("BEGIN", 'T'), done("INSERT 0 1", 'T')].concat())
        .await;
    client.expect_only(&[&done("INSERT 0 1", 'T')]).await;

    let paused = pause(&bed);
    other.send(&query(WRITE)).await;
    other.quiet_for(Duration::from_secs(30)).await;
    assert!(!paused.is_finished());
    client.send(&query("commit")).await;
    primary.expect_only(&[&query("commit")]).await;
    primary.send(&done("COMMIT", 'I')).await;
    client.expect_only(&[&done("COMMIT", 'I')]).await;
    paused.await.unwrap().unwrap();
    other.quiet().await;
    bed.not_dialled(PG1).await;
    resume(&bed).await;
    let mut new = bed.server(PG1).await;
    new.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pinned_session_goes_on_until_it_leaves() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("listen c")).await;
    primary.expect_only(&[&query("listen c")]).await;
    primary.send(&done("LISTEN", 'I')).await;
    client.expect_only(&[&done("LISTEN", 'I')]).await;
    primary.looked_at(&["n"]).await;
    let paused = pause(&bed);
    write(&mut client, &mut primary).await;
    // A read, too: it can have no other connection.
    client.send(&query(READ)).await;
    primary.expect_only(&[&query(READ)]).await;
    let answer = [one_row("x"), ready('I')].concat();
    primary.send(&answer).await;
    client.expect_only(&[&answer]).await;
    assert!(!paused.is_finished());
    client.send(&terminate()).await;
    client.gone().await;
    paused.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_give_their_connections_up() {
    let (mut bed, mut primary) = Bed::start(&[("pool.mode", "session")]).await;
    let mut client = bed.client().await;
    write(&mut client, &mut primary).await;
    pause(&bed).await.unwrap().unwrap();
    primary.drain().await;
    primary.gone().await;
    client.send(&query(WRITE)).await;
    client.quiet_for(Duration::from_secs(10)).await;
    resume(&bed).await;
    let mut new = bed.server(PG1).await;
    new.expect_only(&[&query(WRITE)]).await;
    new.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    write(&mut client, &mut new).await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_has_an_end_and_can_be_ended() {
    let (mut bed, _primary) = Bed::start(&[("pool.pause_timeout", "30s")]).await;
    let mut late = bed.client().await;
    let mut cancelled = bed.client().await;
    let mut vanishing = bed.client().await;
    let mut killed = bed.client().await;
    pause(&bed).await.unwrap().unwrap();
    let began = Instant::now();
    for client in [&mut late, &mut cancelled, &mut vanishing, &mut killed] {
        client.send(&query(WRITE)).await;
    }
    vanishing.hang_up().await;
    bed.cancel(&cancelled.key).await.gone().await;
    let told = cancelled.told().await;
    assert_eq!(told.what(), ("ERROR", "57014"), "{told:?}");
    cancelled.expect_only(&[&ready('I')]).await;
    let id = u64::from(killed.key.pid);
    bed.proxy.act(Action::KillClient(id)).await.unwrap();
    assert_eq!(killed.told().await.what(), ("FATAL", "57P01"));
    let told = late.told_after(began, Duration::from_secs(30)).await;
    assert_eq!(told.what(), ("ERROR", "57P03"), "{told:?}");
    assert!(told.message.contains("paused"), "{told:?}");
    late.expect_only(&[&ready('I')]).await;
    // Nothing of all that is carried out later.
    resume(&bed).await;
    bed.not_dialled(PG1).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_the_end_of_a_pause() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut holder = bed.client().await;
    let mut waiting = bed.client().await;
    holder.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let paused = pause(&bed);
    waiting.send(&query(WRITE)).await;
    waiting.quiet().await;
    bed.proxy.shut_down();
    assert_eq!(waiting.told().await.what(), ("FATAL", "57P01"));
    waiting.gone().await;
    paused.await.unwrap().unwrap_err();
    primary.send(&done("INSERT 0 1", 'I')).await;
    holder.expect(&[&done("INSERT 0 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn pauses_are_by_name_or_of_all() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let app = || Some("app".to_owned());
    let told = |done: Done| done.unwrap_err().message.into_owned();
    let nothing = act(&bed, Action::Pause(Some("nothing".into())));
    assert_eq!(told(nothing.await.unwrap()), "no such database: nothing");
    let resumed = bed.proxy.act(Action::Resume(app())).await;
    assert_eq!(told(resumed), "database \"app\" is not paused");
    let resumed = bed.proxy.act(Action::Resume(None)).await;
    assert_eq!(told(resumed), "pgsplit is not paused");

    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    let paused = act(&bed, Action::Pause(app()));
    client.quiet().await;
    assert!(bed.proxy.databases()[0].paused);
    let resumed = bed.proxy.act(Action::Resume(None)).await.unwrap_err();
    assert!(resumed.hint.unwrap().contains("app"));
    // The operator who waits for the pause hears that another has ended it.
    bed.proxy.act(Action::Resume(app())).await.unwrap();
    assert!(told(paused.await.unwrap()).contains("RESUME"));
    assert!(!bed.proxy.databases()[0].paused);
    primary.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;

    // Two at once: each has its own end.
    act(&bed, Action::Pause(app())).await.unwrap().unwrap();
    pause(&bed).await.unwrap().unwrap();
    let left = bed.proxy.act(Action::Resume(None)).await.unwrap();
    assert_eq!(left.unwrap(), "still paused by name: app");
    client.send(&query(WRITE)).await;
    client.quiet_for(Duration::from_secs(1)).await;
    bed.proxy.act(Action::Resume(app())).await.unwrap();
    let mut new = bed.server(PG1).await;
    new.expect_only(&[&query(WRITE)]).await;
}

#[tokio::test(start_paused = true)]
async fn wait_close_waits_for_what_reconnect_replaces() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query(WRITE)).await;
    primary.expect_only(&[&query(WRITE)]).await;
    bed.proxy.act(Action::Reconnect(None)).await.unwrap();
    let closed = act(&bed, Action::WaitClose(None));
    client.quiet_for(Duration::from_secs(1)).await;
    assert!(!closed.is_finished());
    primary.send(&done("INSERT 0 1", 'I')).await;
    client.expect_only(&[&done("INSERT 0 1", 'I')]).await;
    closed.await.unwrap().unwrap();
}
