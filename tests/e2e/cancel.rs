//! Cancel requests.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;

use crate::support::{
    Cluster, Frame, Proxy, Raw, cluster, eventually, message, own_cluster, run, sqlstate, tags,
    unique,
};

/// Sends a cancel request and waits until it was dealt with.
async fn cancel(port: u16, request: Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    stream.write_all(&request).await.unwrap();
    // The server closes such a connection without an answer.
    let mut buffer = [0; 16];
    let read = stream.read(&mut buffer).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// Waits until a statement with this mark runs somewhere.
async fn runs(cluster: &Cluster, mark: &str) {
    let running = format!(
        "select count(*) from pg_stat_activity \
         where query like '%{mark}%' and state = 'active' and pid <> pg_backend_pid()"
    );
    eventually("the statement runs", async || {
        (0..cluster.nodes().len()).any(|node| cluster.psql(node, &running).unwrap() == "1")
    })
    .await;
}

fn sqlstates(frames: &[Frame]) -> Vec<String> {
    let errors = frames.iter().filter(|frame| frame.tag == 'E');
    errors.map(|frame| frame.field('C')).collect()
}

/// Some sessions cancel their own statements, at any moment of these; others don't. All share a few
/// server connections. `PGSPLIT_CANCEL_ROUNDS` for more.
#[test]
fn a_cancel_that_races_with_its_statements_end_hits_no_other_statement() {
    const SESSIONS: u64 = 6;
    let rounds =
        std::env::var("PGSPLIT_CANCEL_ROUNDS").map_or(150, |rounds| rounds.parse::<u64>().unwrap());
    run(async move {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 2").await;
        let port = proxy.port;
        let session = async |number: u64| {
            let mut rng = fastrand::Rng::with_seed(number);
            let mut raw = Raw::connect(port).await;
            let request = raw.cancel_request();
            let victim = number.is_multiple_of(2);
            let mut cancelled = 0;
            for round in 0..rounds {
                let route = if rng.bool() { "primary" } else { "replica" };
                let sleep = rng.u32(0..4);
                let mark = format!("{number}-{round}");
                let sql =
                    format!("/* pgsplit: {route} */ select '{mark}' from pg_sleep(0.00{sleep})");
                let sent = if rng.bool() {
                    message::query(&sql)
                } else {
                    message::extended(&sql, &[])
                };
                raw.send(&sent).await;
                let canceller = async {
                    if victim {
                        tokio::time::sleep(Duration::from_micros(rng.u64(0..5000))).await;
                        cancel(port, request.clone()).await;
                    }
                };
                let (frames, ()) = tokio::join!(raw.until_ready(1), canceller);
                let errors = sqlstates(&frames);
                if victim && !errors.is_empty() {
                    assert_eq!(errors, ["57014"], "{frames:?}");
                    cancelled += 1;
                } else {
                    assert!(errors.is_empty(), "another session's cancel: {frames:?}");
                }
                // A cancel that has arrived is over: it isn't for what comes next.
                let frames = raw.query(&format!("select '{mark}'")).await;
                assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
                assert!(frames[1].body.ends_with(mark.as_bytes()));
            }
            cancelled
        };
        let sessions = (0..SESSIONS).map(session);
        let cancelled: u64 = futures_util::future::join_all(sessions)
            .await
            .into_iter()
            .sum();
        assert!(
            cancelled > 0 && cancelled < SESSIONS / 2 * rounds,
            "{cancelled}"
        );
        println!("{cancelled} cancelled");
    });
}

#[test]
fn copies_pipelines_and_long_keys_are_cancelled_too() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let table = unique("t");
        let parameters = [("user", "app"), ("database", "app")];
        // 3.2: the key is longer than four bytes.
        let mut raw = Raw::connect_with(proxy.port, 196_610, &parameters)
            .await
            .unwrap();
        let request = raw.cancel_request();
        assert!(request.len() > 16, "{request:?}");
        raw.query(&format!("create table {table} (a text)")).await;

        let mark = unique("mark");
        raw.send(&message::query(&format!(
            "copy (select repeat('x', 1000) from generate_series(1, 10000000)) to stdout /* {mark} */"
        )))
        .await;
        let canceller = async {
            runs(cluster, &mark).await;
            cancel(proxy.port, request.clone()).await;
        };
        let (frames, ()) = tokio::join!(raw.until_ready(1), canceller);
        assert_eq!(sqlstates(&frames), ["57014"]);

        // PostgreSQL heeds it with the next data.
        raw.send(&message::query(&format!("copy {table} from stdin")))
            .await;
        assert_eq!(raw.frame().await.tag, 'G');
        cancel(proxy.port, request.clone()).await;
        for _ in 0..2 {
            raw.send(&message::copy_data(b"x\n")).await;
        }
        raw.send(&message::copy_done()).await;
        assert_eq!(sqlstates(&raw.until_ready(1).await), ["57014"]);

        // In a pipeline it ends what runs, and what comes up to the Sync isn't run.
        let mark = unique("mark");
        raw.send(
            &[
                message::parse("", &format!("select pg_sleep(60) /* {mark} */")),
                message::bind("", "", &[]),
                message::execute("", 0),
                message::extended("select 'skipped'", &[]),
                message::extended("select 'next'", &[]),
            ]
            .concat(),
        )
        .await;
        let canceller = async {
            runs(cluster, &mark).await;
            cancel(proxy.port, request.clone()).await;
        };
        let (frames, ()) = tokio::join!(raw.until_ready(2), canceller);
        assert_eq!(sqlstates(&frames), ["57014"]);
        assert_eq!(tags(&frames), "12EZ12TDCZ", "{frames:?}");
    });
}

#[test]
fn what_waits_for_a_place_in_the_pool_is_cancelled_without_harm_to_what_runs() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 1\nacquire_timeout = \"60s\"").await;
        let (mut running, mut waiting) = (
            Raw::connect(proxy.port).await,
            Raw::connect(proxy.port).await,
        );
        let mark = unique("mark");
        let sleep = format!("/* pgsplit: primary */ select pg_sleep(60) /* {mark} */");
        running.send(&message::query(&sleep)).await;
        runs(cluster, &mark).await;
        waiting
            .send(&message::query("/* pgsplit: primary */ select 1"))
            .await;
        eventually("it waits", async || {
            let clients = proxy.console("show clients").await;
            clients
                .iter()
                .any(|row| row.get("state") == Some("waiting"))
        })
        .await;
        cancel(proxy.port, waiting.cancel_request()).await;
        let frames = waiting.until_ready(1).await;
        assert_eq!(sqlstates(&frames), ["57014"]);
        cancel(proxy.port, running.cancel_request()).await;
        assert_eq!(sqlstates(&running.until_ready(1).await), ["57014"]);
        assert_eq!(tags(&waiting.query("select 1").await), "TDCZ");
    });
}

/// What ends a statement, a transaction or a session by the session's own settings is said as
/// PostgreSQL says it.
#[test]
fn timeouts_are_told_in_the_servers_words() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let table = unique("t");
        let owner = proxy.connect("app", "app").await;
        owner
            .batch_execute(&format!("create table {table} (a int)"))
            .await
            .unwrap();
        proxy.wait_for_table(cluster, &table).await;
        let newest = cluster.psql(0, "show server_version_num").unwrap().as_str() >= "170000";
        // What is said, and whether the session ends by itself.
        let mut scripts = vec![
            (
                vec![
                    "set statement_timeout = '50ms'".to_owned(),
                    "select pg_sleep(60)".to_owned(),
                ],
                false,
            ),
            (
                vec![
                    "set statement_timeout = '50ms'".to_owned(),
                    format!("insert into {table} select 1 from pg_sleep(60)"),
                ],
                false,
            ),
            (
                vec![
                    "begin".to_owned(),
                    "set local lock_timeout = '50ms'".to_owned(),
                    format!("lock table {table}"),
                    "rollback".to_owned(),
                ],
                false,
            ),
            (
                vec![
                    "set idle_in_transaction_session_timeout = '50ms'".to_owned(),
                    format!("begin; insert into {table} values (1)"),
                ],
                true,
            ),
        ];
        if newest {
            for last in [
                format!("begin; insert into {table} values (1)"),
                format!("begin; insert into {table} select 1 from pg_sleep(60)"),
                "begin read only; select pg_sleep(60)".to_owned(),
                format!("insert into {table} select 1 from pg_sleep(60)"),
            ] {
                scripts.push((
                    vec!["set transaction_timeout = '50ms'".to_owned(), last],
                    true,
                ));
            }
        }
        let blocker = proxy.connect("app", "app").await;
        blocker
            .batch_execute(&format!("begin; lock table {table} in share mode"))
            .await
            .unwrap();
        for (script, ends) in scripts {
            if ends {
                blocker.batch_execute("rollback").await.unwrap();
            }
            let mut answers = Vec::new();
            for port in [cluster.nodes()[0].port, proxy.port] {
                let mut raw = Raw::connect(port).await;
                let mut answer = Vec::new();
                for (i, sql) in script.iter().enumerate() {
                    if ends && i == script.len() - 1 {
                        raw.send(&message::query(sql)).await;
                    } else {
                        answer.extend(raw.query(sql).await);
                    }
                }
                while ends && let Some(frame) = raw.next().await {
                    answer.push(frame);
                }
                let said: Vec<String> = answer
                    .iter()
                    .map(|frame| match frame.tag {
                        'E' => format!(
                            "{} {} {}",
                            frame.field('S'),
                            frame.field('C'),
                            frame.field('M')
                        ),
                        tag => tag.to_string(),
                    })
                    .collect();
                answers.push(said);
            }
            assert_eq!(answers[0], answers[1], "{script:?}");
            assert!(answers[0].iter().any(|said| said.len() > 1), "{script:?}");
        }
    });
}

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
        let mut wrong = Raw::connect(proxy.port).await;
        let mut request = wrong.cancel_request();
        let key = request.len() - 4;
        request[key..].fill(0xA5);
        let mark = unique("mark");
        let sql = format!("/* pgsplit: primary */ select pg_sleep(2) /* {mark} */");
        let sleeping = client.simple_query(&sql);
        let canceller = async {
            runs(cluster(), &mark).await;
            cancel(proxy.port, request).await;
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

/// What somebody ends by hand ends, in PostgreSQL's words; it isn't run again.
#[test]
fn a_terminated_statement_ends_as_it_would_directly() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let owner = proxy.connect("app", "app").await;
        let t = unique("t");
        let sql = format!("create table {t} (a int); insert into {t} values (1)");
        owner.batch_execute(&sql).await.unwrap();
        let mark = unique("mark");
        let slow = format!("update {t} set a = a + 1 where pg_sleep(30) is not null /* {mark} */");
        for (before, sql) in [
            ("select 1", slow.as_str()),
            ("begin", slow.as_str()),
            ("select 1", "select pg_terminate_backend(pg_backend_pid())"),
        ] {
            let mut told = Vec::new();
            for port in [cluster.nodes()[0].port, proxy.port] {
                let mut raw = Raw::connect(port).await;
                raw.query(before).await;
                raw.send(&message::query(sql)).await;
                if sql == slow {
                    runs(cluster, &mark).await;
                    let kill = format!(
                        "select pg_terminate_backend(pid) from pg_stat_activity \
                         where query like '%{mark}%' and pid <> pg_backend_pid()"
                    );
                    cluster.psql(0, &kill).unwrap();
                }
                let mut frames = Vec::new();
                while let Some(frame) = raw.next().await {
                    frames.push(frame);
                }
                let error = frames.last().unwrap();
                told.push(['S', 'V', 'C', 'M'].map(|field| error.field(field)));
            }
            assert_eq!(told[0], told[1], "{before}; {sql}");
            assert_eq!(told[1][2], "57P01");
        }
    });
}
