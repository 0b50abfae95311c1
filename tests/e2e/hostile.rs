//! Broken and hostile bytes: an error, a closed connection, nothing lost for others.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Proxy, Raw, cluster, eventually, message, run};

/// Sends bytes on a new connection; what comes back until it is closed, which must be soon.
async fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The proxy may have closed before all of it is written.
    drop(stream.write_all(bytes).await);
    drop(stream.shutdown().await);
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    drop(read.expect("the connection stays open"));
    answer
}

#[test]
fn broken_startup_packets_are_refused_and_others_go_on() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let mut unterminated = 196_608_i32.to_be_bytes().to_vec();
        unterminated.extend(b"user\0app");
        let packets: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            vec![0; 3],
            vec![0; 8],
            vec![0xff; 64],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            [0x7f, 0xff, 0xff, 0xff].to_vec(),
            [0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0].to_vec(),
            [0, 0, 0, 4].to_vec(),
            message::untagged(&unterminated),
            message::untagged(&[0, 3, 0, 0]),
            message::untagged(b"\0\x03\0\0\0"),
            message::untagged(b"\0\x03\0\0user\0\0\0"),
            message::untagged(b"\0\x03\0\0database\0app\0\0"),
            message::untagged(b"\0\x02\0\0user\0app\0\0"),
            message::untagged(
                &[b"\0\x03\0\0user\0".to_vec(), vec![b'a'; 20_000], vec![0, 0]].concat(),
            ),
            message::untagged(&80_877_102_i32.to_be_bytes()),
        ];
        for packet in &packets {
            answer(proxy.port, packet).await;
            client.simple_query("select 1").await.unwrap();
        }
        // An abandoned startup doesn't hold anything for long, nor does it stop others.
        let idle = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        proxy.connect("app", "app").await;
        drop(idle);
    });
}

#[test]
fn broken_messages_get_a_protocol_error_and_a_closed_connection() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let other = proxy.connect("app", "app").await;
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("an unknown type", message::tagged(b'?', b"")),
            ("a server's type", message::tagged(b'Z', b"I")),
            ("a length below its own", vec![b'Q', 0, 0, 0, 3]),
            ("a negative length", vec![b'Q', 0xff, 0xff, 0xff, 0xff]),
            ("a huge length", vec![b'Q', 0x7f, 0xff, 0xff, 0xff]),
            (
                "a huge length for a small type",
                vec![b'S', 0x3f, 0xff, 0xff, 0xff],
            ),
        ];
        for (what, bytes) in cases {
            let mut raw = Raw::connect(proxy.port).await;
            raw.query("select 1").await;
            raw.send(&bytes).await;
            let error = raw
                .next()
                .await
                .unwrap_or_else(|| panic!("{what}: closed without an error"));
            assert_eq!(error.tag, 'E', "{what}");
            assert!(
                ["08P01", "53200", "54000"].contains(&error.field('C').as_str()),
                "{what}: {error:?}"
            );
            assert_eq!(error.field('S'), "FATAL", "{what}");
            assert!(raw.next().await.is_none(), "{what}: still open");
            other.simple_query("select 1").await.unwrap();
        }
        assert!(proxy.process.as_ref().is_none_or(|process| process.alive()));
    });
}

#[test]
fn malformed_bodies_are_errors_of_the_session_or_the_end_of_it() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let other = proxy.connect("app", "app").await;
        let mut cases = vec![
            message::tagged(b'Q', b"select 1"),
            message::tagged(b'Q', b""),
            message::tagged(b'P', b"name without an end"),
            message::tagged(b'P', b"\0select 1\0"),
            message::tagged(b'P', b"\0select 1\0\xff\xff"),
            message::tagged(b'B', b"\0"),
            message::tagged(b'B', b"\0\0\x7f\xff"),
            message::tagged(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"),
            message::tagged(b'D', b"X\0"),
            message::tagged(b'D', b""),
            message::tagged(b'C', b"S"),
            message::tagged(b'E', b"\0"),
            message::tagged(b'F', b"\0"),
            message::tagged(b'S', b"more than nothing"),
            message::tagged(b'p', b"a password nobody asked for\0"),
            message::tagged(b'd', b"data nobody asked for"),
            message::tagged(b'c', b""),
            message::tagged(b'f', b""),
        ];
        // And in the midst of a COPY.
        cases.push(
            [
                message::query("copy (select 1) to stdout"),
                message::tagged(b'f', b"x"),
            ]
            .concat(),
        );
        for bytes in cases {
            let mut raw = Raw::connect(proxy.port).await;
            raw.send(&[bytes.clone(), message::sync(), message::query("select 42")].concat())
                .await;
            // Whatever the answer is, it is one, and it ends.
            let mut answered = false;
            while let Some(frame) = raw.next().await {
                if frame.tag == 'D' && frame.body.ends_with(b"42") {
                    answered = true;
                    break;
                }
            }
            drop((answered, raw));
            let row = other.query_one("select 7", &[]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 7, "after {bytes:?}");
        }
    });
}

#[test]
fn random_bytes_neither_crash_nor_confuse() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let other = proxy.connect("app", "app").await;
        let mut random = fastrand::Rng::with_seed(4);
        for round in 0..150 {
            let mut raw = Raw::connect(proxy.port).await;
            let tags = b"QPBDESHCFXdcfp?";
            let mut bytes = Vec::new();
            for _ in 0..random.usize(1..6) {
                let tag = tags[random.usize(..tags.len())];
                let body: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
                bytes.extend(message::tagged(tag, &body));
            }
            bytes.extend(message::tagged(b'X', b""));
            drop(raw.stream.write_all(&bytes).await);
            while raw.next().await.is_some() {}
            let row = other.query_one("select $1::int", &[&round]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), round);
        }
        eventually("no server connection is lost", async || {
            proxy.metric("pgsplit_client_connections", &[]) <= 1.0
        })
        .await;
    });
}

#[test]
fn a_client_that_reads_nothing_does_not_make_the_proxy_grow() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let Some(process) = &proxy.process else {
            return;
        };
        let other = proxy.connect("app", "app").await;
        let before = process.resident_kib();
        let mut raws = Vec::new();
        for _ in 0..5 {
            let mut raw = Raw::connect(proxy.port).await;
            raw.send(&message::query(
                "select repeat('x', 1000) from generate_series(1, 100000)",
            ))
            .await;
            raws.push(raw);
        }
        for _ in 0..50 {
            other.simple_query("select pg_sleep(0.01)").await.unwrap();
        }
        let grown = process.resident_kib().saturating_sub(before);
        assert!(grown < 20_000, "grew by {grown} KiB");
    });
}
