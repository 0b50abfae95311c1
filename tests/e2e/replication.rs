//! Replication connections are passed through whole.

use std::path::Path;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_postgres::SimpleQueryMessage;

use crate::support::{
    Cluster, Guarded, Options, Proxy, Raw, eventually, message, own_cluster_with, program, run,
    succeed,
};

fn replicating(cluster: &Cluster, proxy: &Proxy, name: &str, user: &str) -> std::process::Command {
    let mut command = program(cluster, name);
    command
        .args(["-h", "127.0.0.1", "-U", user, "-w", "-p"])
        .arg(proxy.port.to_string())
        .env("PGPASSWORD", user);
    command
}

async fn pinned(proxy: &Proxy) -> Vec<(String, String)> {
    let console = proxy.connect("app", "pgsplit").await;
    let rows = console.simple_query("show clients").await.unwrap();
    rows.iter()
        .filter_map(|row| match row {
            SimpleQueryMessage::Row(row) => {
                Some((row.get("id")?.to_owned(), row.get("pinned")?.to_owned()))
            }
            _ => None,
        })
        .collect()
}

fn exists(dir: &Path, file: &str) -> bool {
    dir.join(file).exists()
}

#[test]
fn backups_and_streams_go_through() {
    run(async {
        let cluster = own_cluster_with(&Options {
            replicas: 0,
            settings: vec![("wal_level".into(), "logical".into())],
            ..Options::default()
        });
        cluster
            .psql(
                0,
                "alter role trusted superuser replication; create table public.t (a int)",
            )
            .unwrap();
        let users: String = ["app", "replicator", "trusted"]
            .map(|user| format!("[[user]]\nname = \"{user}\"\npassword = \"{user}\"\n"))
            .concat();
        let proxy = Proxy::launch(&cluster, &users).await;
        let dir = tempfile::tempdir().unwrap();

        // Physical: a backup with the WAL that it needs, two connections.
        let backup = dir.path().join("backup");
        succeed(
            replicating(&cluster, &proxy, "pg_basebackup", "replicator")
                .args(["-X", "stream", "-c", "fast", "--no-sync", "-D"])
                .arg(&backup),
        );
        assert!(exists(&backup, "backup_manifest"));

        // Logical: what is written comes out.
        let receive = |args: &[&str]| {
            succeed(
                replicating(&cluster, &proxy, "pg_recvlogical", "trusted")
                    .args(["-d", "app", "-S", "slot"])
                    .args(args),
            )
        };
        receive(&["--create-slot", "-P", "test_decoding"]);
        let client = proxy.connect("trusted", "app").await;
        client
            .batch_execute("create table streamed (a int); insert into streamed values (42)")
            .await
            .unwrap();
        let end = cluster.psql(0, "select pg_current_wal_lsn()").unwrap();
        let out = receive(&["--start", "-f", "-", "--endpos", &end]);
        assert!(out.contains("INSERT: a[integer]:42"), "{out}");

        // A subscription.
        client
            .batch_execute("create publication p for table streamed")
            .await
            .unwrap();
        let subscriber = proxy.connect("trusted", "other").await;
        client
            .simple_query("select pg_create_logical_replication_slot('sub', 'pgoutput')")
            .await
            .unwrap();
        subscriber
            .batch_execute("create table streamed (a int)")
            .await
            .unwrap();
        subscriber
            .batch_execute(&format!(
                "create subscription sub connection 'host=127.0.0.1 port={} dbname=app user=trusted \
                 password=trusted' publication p with (create_slot = false, slot_name = 'sub')",
                proxy.port
            ))
            .await
            .unwrap();
        eventually("the subscription has copied the table", async || {
            let rows = subscriber.query("select from streamed", &[]).await.unwrap();
            rows.len() == 1
        })
        .await;
        client
            .batch_execute("insert into streamed values (43)")
            .await
            .unwrap();
        eventually("and follows it", async || {
            let rows = subscriber.query("select from streamed", &[]).await.unwrap();
            rows.len() == 2
        })
        .await;
        assert!(proxy.metric("pgsplit_pins_total", &["reason=\"replication\""]) >= 4.0);

        // An operator can end it.
        let wal = dir.path().join("wal");
        std::fs::create_dir(&wal).unwrap();
        let mut command = replicating(&cluster, &proxy, "pg_receivewal", "replicator");
        command.args(["-n", "--no-sync", "-D"]).arg(&wal);
        let receiving = Guarded::start(&command, &dir.path().join("log"));
        let streams =
            "select count(*) from pg_stat_replication where application_name = 'pg_receivewal'";
        eventually("WAL is streamed", async || {
            cluster.psql(0, streams).unwrap() == "1"
        })
        .await;
        let listed = pinned(&proxy).await;
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(listed.iter().all(|(_, reason)| reason == "replication"));
        let console = proxy.connect("app", "pgsplit").await;
        for (id, _) in listed {
            console.simple_query(&format!("kill {id}")).await.unwrap();
        }
        eventually("the stream has ended", async || {
            cluster.psql(0, streams).unwrap() == "0" && !receiving.alive()
        })
        .await;
        subscriber
            .batch_execute("alter subscription sub disable")
            .await
            .unwrap();

        // Queries run there, too, and are cancelled.
        let parameters = [
            ("user", "trusted"),
            ("database", "app"),
            ("replication", "database"),
        ];
        let mut raw = Raw::connect_with(proxy.port, 196_608, &parameters)
            .await
            .unwrap();
        let answer = raw.query("IDENTIFY_SYSTEM").await;
        assert_eq!(answer[0].tag, 'T', "{answer:?}");
        let key = raw.greeting.iter().find(|frame| frame.tag == 'K').unwrap();
        let cancel = [&80_877_102_u32.to_be_bytes(), key.body.as_slice()].concat();
        raw.send(&message::query("select pg_sleep(60)")).await;
        eventually("it runs", async || {
            let running =
                "select count(*) from pg_stat_activity where query like 'select pg_sl%(60)'";
            cluster.psql(0, running).unwrap() == "1"
        })
        .await;
        let mut canceller = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        canceller
            .write_all(&message::untagged(&cancel))
            .await
            .unwrap();
        let frames = raw.until_ready(1).await;
        let error = frames.iter().find(|frame| frame.tag == 'E').unwrap();
        assert_eq!(error.field('C'), "57014");
    });
}
