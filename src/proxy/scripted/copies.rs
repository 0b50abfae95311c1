//! COPY in both directions, and either side failing in it.

use super::{bed::*, message::*};

const COPY: &str = "copy t from stdin";

/// A client in the middle of a COPY FROM STDIN.
async fn copying(bed: &mut Bed, primary: &mut End) -> End {
    let mut client = bed.client().await;
    client.send(&query(COPY)).await;
    primary.expect_only(&[&query(COPY)]).await;
    primary.send(&copy_in()).await;
    client.expect_only(&[&copy_in()]).await;
    client.send(&copy_data("1\n")).await;
    primary.expect_only(&[&copy_data("1\n")]).await;
    client
}

#[tokio::test(start_paused = true)]
async fn data_is_passed_on_as_it_comes() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = copying(&mut bed, &mut primary).await;
    // Whatever comes in it: PostgreSQL takes no notice of Flush and Sync here.
    let rest = [
        copy_data("2\n"),
        flush(),
        sync(),
        copy_data(""),
        copy_done(),
    ]
    .concat();
    for byte in &rest {
        client.send(&[*byte]).await;
    }
    primary.expect_only(&[&rest]).await;
    primary.send(&done("COPY 2", 'I')).await;
    client.expect_only(&[&done("COPY 2", 'I')]).await;
    client.send(&query("delete from t")).await;
    primary.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn data_that_is_sent_before_it_is_asked_for_waits() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let data = [copy_data("1\n"), copy_done()].concat();
    client
        .send(&[query(COPY), data.clone(), query("delete from t")].concat())
        .await;
    primary.expect_only(&[&query(COPY)]).await;
    primary.send(&copy_in()).await;
    client.expect_only(&[&copy_in()]).await;
    primary.expect_only(&[&data]).await;
    primary.send(&done("COPY 1", 'I')).await;
    client.expect_only(&[&done("COPY 1", 'I')]).await;
    primary.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn in_the_extended_protocol_it_ends_with_the_sync_behind_it() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&[extended(COPY), sync()].concat()).await;
    primary.expect_only(&[&extended(COPY), &sync()]).await;
    primary.send(&[parsed(), bound(), copy_in()].concat()).await;
    client.expect_only(&[&parsed(), &bound(), &copy_in()]).await;
    client.send(&[copy_data("1\n"), copy_done()].concat()).await;
    primary
        .expect_only(&[&copy_data("1\n"), &copy_done()])
        .await;
    primary.send(&complete("COPY 1")).await;
    client.expect_only(&[&complete("COPY 1")]).await;
    client.send(&sync()).await;
    while primary.message().await != sync() {}
    primary.send(&ready('I')).await;
    client.expect_only(&[&ready('I')]).await;
    client.send(&query("delete from t")).await;
    primary.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_give_up() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = copying(&mut bed, &mut primary).await;
    client.send(&copy_fail("changed my mind")).await;
    primary.expect_only(&[&copy_fail("changed my mind")]).await;
    let failed = [
        error("57014", "COPY from stdin failed: changed my mind"),
        ready('I'),
    ]
    .concat();
    primary.send(&failed).await;
    client.expect_only(&[&failed]).await;
    client.send(&query("delete from t")).await;
    primary.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_server_fails_first_the_rest_of_the_data_is_dropped() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = copying(&mut bed, &mut primary).await;
    let failed = [error("22P02", "invalid input syntax"), ready('I')].concat();
    primary.send(&failed).await;
    client.expect_only(&[&failed]).await;
    client
        .send(
            &[
                copy_data("x\n"),
                copy_data("y\n"),
                copy_done(),
                query("delete from t"),
            ]
            .concat(),
        )
        .await;
    primary.expect_only(&[&query("delete from t")]).await;
    primary.send(&done("DELETE 0", 'I')).await;
    client.expect_only(&[&done("DELETE 0", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_server_is_lost_the_rest_of_the_data_is_dropped() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = copying(&mut bed, &mut primary).await;
    // In the middle of a message, too.
    let long = copy_data(&"x".repeat(1000));
    client.send(&long[..500]).await;
    primary.drain().await;
    drop(primary);
    client.quiet().await;
    client.send(&long[500..]).await;
    let told = client.told().await;
    assert_eq!(told.what(), ("ERROR", "08007"), "{told:?}");
    client.expect_only(&[&ready('I')]).await;
    client
        .send(&[copy_data("y\n"), copy_done(), query("delete from t")].concat())
        .await;
    let mut fresh = bed.server(PG1).await;
    fresh.expect_only(&[&query("delete from t")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_leaves_nothing_behind() {
    for goodbye in [vec![], terminate()] {
        let (mut bed, mut primary) = Bed::start(&[]).await;
        let mut client = copying(&mut bed, &mut primary).await;
        client.send(&goodbye).await;
        client.hang_up().await;
        primary.gone().await;
        let mut asked = bed.dialled(PG1).await;
        asked.asked_to_cancel(&primary).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_data_makes_the_client_wait() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = copying(&mut bed, &mut primary).await;
    let data = copy_data(&"x".repeat(4 << 20));
    let taken = client.push(&data).await;
    assert!(taken < 1 << 20, "{taken} bytes are somewhere");
    let mut arrived = 0;
    let mut sent = taken;
    while arrived < data.len() {
        let more = primary.drain().await;
        assert!(more > 0, "after {arrived} bytes");
        arrived += more;
        sent += client.push(&data[sent..]).await;
    }
    client.send(&copy_done()).await;
    primary.expect_only(&[&copy_done()]).await;
    primary.send(&done("COPY 1", 'I')).await;
    client.expect_only(&[&done("COPY 1", 'I')]).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_out_of_a_replica_is_a_result_like_any_other() {
    let (mut bed, mut primary) = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.send(&query("copy t to stdout")).await;
    let mut replica = bed.server(PG2).await;
    replica.expect_only(&[&query("copy t to stdout")]).await;
    let begun = [copy_out(), copy_data("1\n")].concat();
    replica.send(&begun).await;
    client.expect_only(&[&begun]).await;
    let rest = [copy_data("2\n"), copy_done(), done("COPY 2", 'I')].concat();
    replica.send(&rest).await;
    client.expect_only(&[&rest]).await;

    // Begun, it can't go on elsewhere.
    client.send(&query("copy t to stdout")).await;
    replica.expect_only(&[&query("copy t to stdout")]).await;
    replica.send(&begun).await;
    client.expect_only(&[&begun]).await;
    drop(replica);
    assert_eq!(client.told().await.what(), ("ERROR", "08006"));
    client.expect_only(&[&ready('I')]).await;
    primary.quiet().await;
}
