//! The primary is lost, and pgsplit promotes a replica: when it may, and only then.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::support::{
    Cluster, Proxy, Stop, WriteLoad, eventually, own_cluster, pgsplit, run, sqlstate,
};

const PROMOTE: &str = "[failover]\nmode = \"promote\"\nsole_promoter = true\nuser = \"postgres\"\n\
     password = \"postgres\"\nhold = \"20s\"\n";

fn has_event(proxy: &Proxy, kind: &str, text: &str) -> bool {
    let events = proxy.get("/api/v1/events").unwrap_or_default();
    let body = events.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let events: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    events.as_array().is_some_and(|events| {
        events
            .iter()
            .any(|e| e["kind"] == kind && e.to_string().contains(text))
    })
}

#[test]
fn a_lost_primary_is_replaced_within_three_seconds() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, PROMOTE).await;
        let client = proxy.connect("app", "app").await;
        WriteLoad::prepare(&client).await;
        proxy.wait_for_table(&cluster, "written").await;
        // What a write in flight gets, and a transaction.
        let load = WriteLoad::start(&proxy, 8, &["08007", "40001"]);
        load.progress(200).await;
        let killed = Instant::now();
        cluster.stop(0, Stop::Kill).unwrap();
        client
            .batch_execute("insert into written values (-1, 1)")
            .await
            .unwrap();
        let took = killed.elapsed();
        println!("from the kill to the first write: {took:?}");
        load.progress(200).await;
        let (acknowledged, slowest) = load.finish();
        println!(
            "{} writes, the slowest took {slowest:?}",
            acknowledged.len()
        );
        let promoted = if cluster.psql(1, "select pg_is_in_recovery()").unwrap() == "f" {
            1
        } else {
            2
        };
        cluster.was_promoted(promoted);
        let rows = cluster
            .psql(promoted, "select client, n from written")
            .unwrap();
        let rows: Vec<&str> = rows.lines().collect();
        let there: HashSet<&str> = rows.iter().copied().collect();
        assert_eq!(rows.len(), there.len(), "some were written twice");
        // What the replicas had not received is lost with the primary: little on loopback.
        let lost = acknowledged
            .iter()
            .filter(|(client, n)| !there.contains(&*format!("{client}|{n}")))
            .count();
        assert!(lost < 16, "{lost} of {} are lost", acknowledged.len());
        // Three seconds are promised; a machine that does other things may add to them.
        assert!(took < Duration::from_secs(5), "{took:?}");
        eventually("the other replica follows", async || {
            has_event(&proxy, "follow", "follows")
        })
        .await;
        for replica in cluster.replicas().into_iter().filter(|node| *node != 0) {
            cluster.wait_for_replay(replica).unwrap();
        }
        for (kind, text) in [
            ("failover", "confirming"),
            ("failover", "promoting"),
            ("hold", "held"),
        ] {
            assert!(has_event(&proxy, kind, text), "{kind} {text}");
        }
        // The old one returns as the primary that it was.
        cluster.start_node(0).unwrap();
        eventually("the old primary is fenced off", async || {
            has_event(&proxy, "role", "fenced")
        })
        .await;
        client
            .batch_execute("insert into written values (-1, 2)")
            .await
            .unwrap();
        let sql = "select count(*) from written where client = -1";
        assert_eq!(cluster.psql(0, sql).unwrap(), "0");
    });
}

/// Passes connections on to a node until it is cut.
struct Relay {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Relay {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, seen) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    let to = SocketAddr::from(([127, 0, 0, 1], to));
                    let Ok(mut server) = TcpStream::connect(to).await else {
                        return;
                    };
                    let cut = async {
                        let _cut = seen.wait_for(|cut| *cut).await;
                    };
                    tokio::select! {
                        () = cut => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { port, cut }
    }
}

fn nodes(cluster: &Cluster, first: u16) -> String {
    let ports = cluster.nodes().iter().map(|node| node.port).skip(1);
    [first]
        .into_iter()
        .chain(ports)
        .zip(1..)
        .map(|(port, n)| {
            format!("[[node]]\nname = \"pg{n}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
        })
        .collect()
}

#[test]
fn nothing_is_promoted_while_replicas_hear_the_primary_or_too_much_would_be_lost() {
    run(async {
        let cluster = own_cluster(2);
        let relay = Relay::start(cluster.nodes()[0].port).await;
        let settings = format!(
            "{PROMOTE}confirm = \"200ms\"\nmax_loss_bytes = \"64KiB\"\n{}",
            nodes(&cluster, relay.port)
        );
        let proxy = Proxy::start(&cluster, &settings.replace("20s", "1s")).await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a text)")
            .await
            .unwrap();
        // One replica streams from the other, and so says nothing of the primary.
        let upstream = cluster.nodes()[1].port;
        let conninfo = format!("host=127.0.0.1 port={upstream} user=replicator");
        cluster.set(2, "primary_conninfo", &conninfo).unwrap();
        let streams = format!("(select sender_port from pg_stat_wal_receiver) = {upstream}");
        cluster.wait_until(2, &streams).unwrap();
        // Only pgsplit has lost it.
        relay.cut.send(true).unwrap();
        eventually("the failover is refused", async || {
            has_event(
                &proxy,
                "failover",
                "1 of 2 replicas are still connected to the primary",
            )
        })
        .await;
        let refused = ["reason=\"primary_heard\""];
        assert!(proxy.metric("pgsplit_failover_refusals_total", &refused) >= 1.0);
        assert!(proxy.log().contains("failover refused"));
        // Whoever waited for too long is told so.
        let error = client
            .batch_execute("insert into t values ('x')")
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "57P03");
        assert!(
            error.to_string().contains("no primary could be reached")
                || error
                    .as_db_error()
                    .unwrap()
                    .message()
                    .contains("no primary could be reached"),
            "{error:?}"
        );
        relay.cut.send(false).unwrap();
        eventually("writes go on", async || {
            client
                .batch_execute("insert into t values ('x')")
                .await
                .is_ok()
        })
        .await;

        // The replicas fall behind, and then it is lost altogether.
        for replica in [1, 2] {
            cluster
                .set(
                    replica,
                    "primary_conninfo",
                    "host=127.0.0.1 port=1 user=replicator",
                )
                .unwrap();
        }
        let sql = "insert into t select repeat('x', 1000) from generate_series(1, 1000)";
        client.batch_execute(sql).await.unwrap();
        eventually("that was sampled", async || {
            proxy.metric("pgsplit_replica_lag_bytes", &[]) > 1_000_000.0
        })
        .await;
        cluster.stop(0, Stop::Kill).unwrap();
        eventually("the failover is refused", async || {
            has_event(&proxy, "failover", "could be lost")
        })
        .await;
        assert_eq!(cluster.psql(1, "select pg_is_in_recovery()").unwrap(), "t");
        // An operator knows better.
        let failover = |force: bool| {
            let mut command = pgsplit();
            command.args(["failover", "--to", "pg3"]);
            if force {
                command.arg("--force");
            }
            command
                .arg("--config")
                .arg(proxy.dir.path().join("pgsplit.toml"));
            async {
                let run = tokio::task::spawn_blocking(move || command.output().unwrap());
                let output = run.await.unwrap();
                let said = [output.stdout, output.stderr].concat();
                (
                    output.status.code(),
                    String::from_utf8_lossy(&said).into_owned(),
                )
            }
        };
        let (code, told) = failover(false).await;
        assert!(code == Some(1) && told.contains("could be lost"), "{told}");
        let (code, told) = failover(true).await;
        assert!(
            code == Some(0) && told.contains("pg3 is the primary"),
            "{told}"
        );
        client
            .batch_execute("insert into t values ('y')")
            .await
            .unwrap();
        assert_eq!(
            cluster
                .psql(2, "select count(*) from t where a = 'y'")
                .unwrap(),
            "1"
        );
    });
}

#[test]
fn without_holding_a_write_fails_at_once() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[failover]\nmode = \"off\"\n").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        cluster.wait_for_replay(1).unwrap();
        cluster.stop(0, Stop::Kill).unwrap();
        eventually("the primary is lost", async || {
            let began = Instant::now();
            let Err(error) = client.batch_execute("insert into t values (1)").await else {
                return false;
            };
            let message = error.as_db_error().map_or("", |error| error.message());
            assert!(began.elapsed() < Duration::from_secs(5));
            message.starts_with("no primary can be reached: pg1 is ")
        })
        .await;
    });
}
