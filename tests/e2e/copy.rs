//! COPY in both directions.

use futures_util::{SinkExt, StreamExt, pin_mut};

use crate::support::{Frame, Proxy, Raw, cluster, message, run, sqlstate, tags, unique};

#[test]
fn copy_in_and_out_through_the_driver() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (a int, b text)"))
            .await
            .unwrap();
        let sink = client
            .copy_in(&format!("copy {t} from stdin"))
            .await
            .unwrap();
        pin_mut!(sink);
        for i in 0..10_000 {
            sink.send(bytes(&format!("{i}\tline {i}\n"))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 10_000);
        let mark = unique("mark");
        let sql = format!("copy (select * from {t} order by a) to stdout /* {mark} */");
        let stream = client.copy_out(&sql).await.unwrap();
        pin_mut!(stream);
        let mut copied = Vec::new();
        while let Some(part) = stream.next().await {
            copied.extend_from_slice(&part.unwrap());
        }
        let lines = copied.split(|byte| *byte == b'\n').count();
        assert_eq!(lines, 10_001);
        assert!(copied.ends_with(b"9999\tline 9999\n"));
        client.simple_query("select 1").await.unwrap();
    });
}

#[test]
fn a_copy_that_only_reads_runs_on_a_replica() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let mark = unique("mark");
        let sql = format!("copy (select 1) to stdout /* {mark} */");
        let stream = client.copy_out(&sql).await.unwrap();
        pin_mut!(stream);
        assert_eq!(&stream.next().await.unwrap().unwrap()[..], b"1\n");
        assert!(stream.next().await.is_none());
        assert!(!cluster.ran_on(&mark).unwrap().contains(&0));
    });
}

#[test]
fn a_copy_given_up_or_refused_leaves_the_session_in_step() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut raw = Raw::connect(proxy.port).await;
        let t = unique("t");
        raw.query(&format!("create table {t} (a int)")).await;
        let copy = message::query(&format!("copy {t} from stdin"));

        raw.send(
            &[
                copy.clone(),
                message::copy_data(b"1\n"),
                message::copy_fail("enough"),
            ]
            .concat(),
        )
        .await;
        let frames = raw.until_ready(1).await;
        assert_eq!(tags(&frames), "GEZ");
        assert_eq!(frames[1].field('C'), "57014");

        // A bad line: what the client goes on to send is thrown away up to CopyDone.
        raw.send(
            &[
                copy,
                message::copy_data(b"x\n"),
                message::copy_data(b"2\n"),
                message::copy_done(),
            ]
            .concat(),
        )
        .await;
        let frames = raw.until_ready(1).await;
        assert_eq!(tags(&frames), "GEZ");
        assert_eq!(frames[1].field('C'), "22P02");

        assert_eq!(tags(&raw.query(&format!("select * from {t}")).await), "TCZ");
    });
}

#[test]
fn copy_in_by_extended_protocol_with_a_sync_before_the_data() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut raw = Raw::connect(proxy.port).await;
        let t = unique("t");
        raw.query(&format!("create table {t} (a int)")).await;
        // As tokio-postgres does: Execute and Sync at once, then the data, then another Sync.
        let sql = format!("copy {t} from stdin");
        raw.send(
            &[
                message::parse("", &sql),
                message::bind("", "", &[]),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        )
        .await;
        let mut frames = vec![raw.frame().await, raw.frame().await, raw.frame().await];
        assert_eq!(tags(&frames), "12G");
        raw.send(
            &[
                message::copy_data(b"1\n2\n"),
                message::copy_done(),
                message::sync(),
            ]
            .concat(),
        )
        .await;
        frames = raw.until_ready(1).await;
        assert_eq!(tags(&frames), "CZ");
        assert_eq!(frames[0].body, b"COPY 2\0");
        let count: Vec<Frame> = raw.query(&format!("select count(*) from {t}")).await;
        assert!(count[1].body.ends_with(b"2"));
    });
}

#[test]
fn several_copies_in_one_text_in_both_directions() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut raw = Raw::connect(proxy.port).await;
        let t = unique("t");
        let sql = format!(
            "create table {t} (a int); copy {t} from stdin; copy {t} to stdout; \
             copy {t} from stdin; select count(*) from {t}"
        );
        let data = [message::copy_data(b"1\n2\n"), message::copy_done()].concat();
        raw.send(&[message::query(&sql), data.clone(), data].concat())
            .await;
        let frames = raw.until_ready(1).await;
        assert_eq!(tags(&frames), "CGCHddcCGCTDCZ");
    });
}

#[test]
fn a_write_error_in_a_copy_names_the_line() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (a int primary key)"))
            .await
            .unwrap();
        let sink = client
            .copy_in(&format!("copy {t} from stdin"))
            .await
            .unwrap();
        pin_mut!(sink);
        sink.send(bytes("1\n1\n")).await.unwrap();
        let error = sink.finish().await.unwrap_err();
        assert_eq!(sqlstate(&error), "23505");
        assert!(
            error
                .as_db_error()
                .unwrap()
                .where_()
                .unwrap()
                .contains("line 2")
        );
        client.simple_query("select 1").await.unwrap();
    });
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}
