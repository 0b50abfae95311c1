//! Cancel requests.

use tokio_postgres::NoTls;

use crate::support::{Proxy, cluster, eventually, own_cluster, run, sqlstate, unique};

#[test]
fn a_cancel_ends_the_running_statement_wherever_it_runs() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let other = proxy.connect("app", "app").await;
        for route in ["primary", "replica"] {
            let mark = unique("mark");
            let sql = format!("/* pgsplit: {route} */ select pg_sleep(60) /* {mark} */");
            let token = client.cancel_token();
            let canceller = async {
                eventually("the statement runs", || async {
                    !cluster.ran_on(&mark).unwrap().is_empty()
                })
                .await;
                token.cancel_query(NoTls).await.unwrap();
            };
            let (result, ()) = tokio::join!(client.simple_query(&sql), canceller);
            assert_eq!(sqlstate(&result.unwrap_err()), "57014", "{route}");
            // The session lives on, and nobody else was hit.
            client.simple_query("select 1").await.unwrap();
            other.simple_query("select 1").await.unwrap();
        }
    });
}

#[test]
fn a_late_cancel_hits_nobody_else() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 1").await;
        let idle = proxy.connect("app", "app").await;
        let busy = proxy.connect("app", "app").await;
        for _ in 0..20 {
            idle.simple_query("/* pgsplit: primary */ select 1")
                .await
                .unwrap();
            let token = idle.cancel_token();
            let canceller = async {
                for _ in 0..5 {
                    token.cancel_query(NoTls).await.unwrap();
                }
            };
            let sql = "/* pgsplit: primary */ select pg_sleep(0.05)";
            let (result, ()) = tokio::join!(busy.simple_query(sql), canceller);
            result.unwrap();
        }
    });
}

#[test]
fn a_cancel_with_a_wrong_key_does_nothing() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let mut wrong = crate::support::Raw::connect(proxy.port).await;
        let key = wrong
            .greeting
            .iter()
            .find(|frame| frame.tag == 'K')
            .unwrap();
        let mut body = 80_877_102_i32.to_be_bytes().to_vec();
        body.extend(&key.body[..4]);
        body.extend([0xA5; 4]);
        let mark = unique("mark");
        let sql = format!("/* pgsplit: primary */ select pg_sleep(2) /* {mark} */");
        let sleeping = client.simple_query(&sql);
        let canceller = async {
            eventually("it runs", async || {
                let running = format!(
                    "select count(*) from pg_stat_activity \
                     where query like '%{mark}%' and state = 'active' and pid <> pg_backend_pid()"
                );
                cluster().psql(0, &running).unwrap() == "1"
            })
            .await;
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port))
                .await
                .unwrap();
            let packet = crate::support::message::untagged(&body);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &packet)
                .await
                .unwrap();
            // The server closes such a connection without an answer.
            let mut buffer = [0; 16];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        };
        let (result, ()) = tokio::join!(sleeping, canceller);
        result.unwrap();
        wrong.query("select 1").await;
    });
}

#[test]
fn a_client_that_waits_for_a_hung_replica_can_cancel() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "[monitor]\ntimeout = \"20s\"").await;
        let client = proxy.connect("app", "app").await;
        client.simple_query("select 1").await.unwrap();
        cluster.hang(1).unwrap();
        let token = client.cancel_token();
        let canceller = async {
            eventually("it waits", async || {
                proxy.metric("pgsplit_server_connections", &["pg2", "state=\"active\""]) >= 1.0
            })
            .await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (result, ()) = tokio::join!(client.simple_query("select 1"), canceller);
        // Either the cancel ended it, or it had been answered elsewhere by then.
        if let Err(error) = result {
            assert_eq!(sqlstate(&error), "57014");
        }
        cluster.unhang(1).unwrap();
    });
}
