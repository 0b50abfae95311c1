//! Much data, in bounded memory, in both directions.

use futures_util::{SinkExt, StreamExt, pin_mut};

use crate::support::{Proxy, Raw, cluster, message, own_cluster, run, tags, unique};

const MEGABYTE: usize = 1 << 20;
/// What the proxy may grow by while it streams, in KiB.
const GROWTH: u64 = 16 * 1024;

#[test]
fn results_of_200_mb_stream_through_in_bounded_memory() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        client
            .simple_query("select repeat('x', 100000)")
            .await
            .unwrap();
        let before = resident(&proxy);
        let rows = client
            .query_raw::<_, i32, _>(
                "select repeat('x', 10000) from generate_series(1, 21000)",
                [],
            )
            .await
            .unwrap();
        pin_mut!(rows);
        let (mut count, mut bytes, mut most) = (0, 0, 0);
        while let Some(row) = rows.next().await {
            bytes += row.unwrap().get::<_, &str>(0).len();
            count += 1;
            if count % 1000 == 0 {
                most = most.max(resident(&proxy));
            }
        }
        assert_eq!((count, bytes), (21_000, 210_000_000));
        assert!(
            most <= before + GROWTH,
            "{before} KiB before, {most} KiB while streaming"
        );
    });
}

#[test]
fn a_copy_of_200_mb_streams_in_and_out_in_bounded_memory() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create unlogged table {t} (a text)"))
            .await
            .unwrap();
        let before = resident(&proxy);
        let mut most = 0;
        let line = bytes::Bytes::from(format!("{}\n", "y".repeat(MEGABYTE / 4 - 1)).into_bytes());
        let sink = client
            .copy_in(&format!("copy {t} from stdin"))
            .await
            .unwrap();
        pin_mut!(sink);
        for _ in 0..800 {
            sink.send(line.clone()).await.unwrap();
            most = most.max(resident(&proxy));
        }
        assert_eq!(sink.finish().await.unwrap(), 800);
        let stream = client
            .copy_out(&format!("copy {t} to stdout"))
            .await
            .unwrap();
        pin_mut!(stream);
        let mut bytes = 0;
        while let Some(part) = stream.next().await {
            bytes += part.unwrap().len();
            most = most.max(resident(&proxy));
        }
        assert_eq!(bytes, 800 * MEGABYTE / 4);
        assert!(
            most <= before + GROWTH,
            "{before} KiB before, {most} KiB while streaming"
        );
        client
            .batch_execute(&format!("drop table {t}"))
            .await
            .unwrap();
    });
}

#[test]
fn single_messages_of_many_megabytes_pass_in_both_directions() {
    run(async {
        // The servers log what they are sent, and who looks for a statement reads all of it.
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let before = resident(&proxy);
        let value = "z".repeat(40 * MEGABYTE);
        for sql in ["select $1::text", "/* pgsplit: primary */ select $1::text"] {
            let row = client.query_one(sql, &[&value]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0).len(), value.len());
        }
        // In the text of a simple query, too.
        let messages = client
            .simple_query(&format!("select length('{value}')"))
            .await
            .unwrap();
        assert_eq!(messages.len(), 3);
        client.simple_query("select 1").await.unwrap();
        let after = resident(&proxy);
        assert!(
            after <= before + 2 * GROWTH,
            "{before} KiB before, {after} KiB after"
        );
    });
}

#[test]
fn both_directions_flow_at_once() {
    run(async {
        // The servers log what they are sent, and who looks for a statement reads all of it.
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        // A pipeline whose requests and answers are both larger than every buffer on the way: the
        // answers to the first requests block unless someone reads while the rest is written.
        let raw = Raw::connect(proxy.port).await;
        let value = "w".repeat(100_000);
        let (mut read, mut write) = split(raw);
        let writing = async {
            for _ in 0..200 {
                write(message::extended("select $1::text", &[&value])).await;
            }
        };
        let reading = async {
            let mut bytes = 0;
            for _ in 0..200 {
                bytes += read().await;
            }
            bytes
        };
        let ((), bytes) = tokio::join!(writing, reading);
        assert_eq!(bytes, 200 * 100_000);
        // The same in one pipeline that a single Sync ends.
        let (mut read, mut write) = split(Raw::connect(proxy.port).await);
        let value = "w".repeat(30_000);
        let writing = async {
            let statement = [
                message::parse("", "select $1::text"),
                message::bind("", "", &[&value]),
                message::execute("", 0),
            ];
            for _ in 0..1000 {
                write(statement.concat()).await;
            }
            write(message::sync()).await;
        };
        let ((), bytes) = tokio::join!(writing, read());
        assert_eq!(bytes, 1000 * 30_000);
        // And without reading anything before all is written, as libpq does in blocking mode, up
        // to what buffers of the kernel hold.
        let mut raw = Raw::connect(proxy.port).await;
        let small = message::extended("select 1", &[]);
        raw.send(&small.repeat(2000)).await;
        let frames = raw.until_ready(2000).await;
        assert_eq!(frames.len(), 6 * 2000);
        assert_eq!(tags(&frames[..6]), "12TDCZ");
    });
}

/// The two halves of a connection as functions: one reads an extended query's answer and counts
/// the bytes of its value, one writes.
fn split(raw: Raw) -> (impl AsyncFnMut() -> usize, impl AsyncFnMut(Vec<u8>)) {
    let (reader, mut writer) = raw.stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    let read = async move || {
        let mut bytes = 0;
        loop {
            let tag = tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap();
            let length = tokio::io::AsyncReadExt::read_u32(&mut reader)
                .await
                .unwrap();
            let mut body = vec![0; length as usize - 4];
            tokio::io::AsyncReadExt::read_exact(&mut reader, &mut body)
                .await
                .unwrap();
            match tag {
                b'D' => bytes += body.len() - 6,
                b'Z' => return bytes,
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    };
    let write = async move |bytes: Vec<u8>| {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes)
            .await
            .unwrap();
    };
    (read, write)
}

fn resident(proxy: &Proxy) -> u64 {
    proxy
        .process
        .as_ref()
        .map_or(0, |process| process.resident_kib())
}
