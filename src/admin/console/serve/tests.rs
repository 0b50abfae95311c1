//! The console as drivers and `psql` see it.

use std::{process::Stdio, sync::Arc};

use tokio::{
    io::{DuplexStream, duplex},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_postgres::{Client as Driver, NoTls, SimpleQueryMessage};

use super::*;
use crate::{
    admin::fake::{self, Fake},
    metrics::inspect::{Action, Shutdown},
};

fn caller(database: &str) -> Caller {
    Caller {
        user: "ops".into(),
        database: database.into(),
    }
}

/// What a client does before the console takes over: startup packet, AuthenticationOk.
async fn login<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut length = stream.read_u32().await.unwrap();
    // SSLRequest, GSSENCRequest.
    while length == 8 {
        stream.read_u32().await.unwrap();
        stream.write_all(b"N").await.unwrap();
        length = stream.read_u32().await.unwrap();
    }
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.unwrap();
    stream
        .write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0])
        .await
        .unwrap();
}

/// A driver connected to a console over a fake proxy.
async fn driver(database: &'static str) -> (Driver, Arc<Fake>) {
    let (console, fake) = fake::console(Fake::default());
    let (near, mut far) = duplex(1024);
    tokio::spawn(async move {
        login(&mut far).await;
        serve(far, Vec::new(), caller(database), &console).await
    });
    let mut config = tokio_postgres::Config::new();
    config.user("ops").dbname(database);
    let (driver, connection) = config.connect_raw(near, NoTls).await.unwrap();
    tokio::spawn(connection);
    (driver, fake)
}

/// A raw client behind the greeting.
async fn raw() -> (DuplexStream, JoinHandle<io::Result<()>>, Arc<Fake>) {
    let (console, fake) = fake::console(Fake::default());
    let (mut near, far) = duplex(1024);
    let serving =
        tokio::spawn(async move { serve(far, Vec::new(), caller("pgsplit"), &console).await });
    assert_eq!(kinds(&mut near).await, "SSSSSSSSSSSKZ");
    (near, serving, fake)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The types of the messages up to ReadyForQuery or the end.
async fn kinds(stream: &mut DuplexStream) -> String {
    let mut kinds = String::new();
    while let Ok(kind) = stream.read_u8().await {
        let length = stream.read_u32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await.unwrap();
        kinds.push(char::from(kind));
        if kind == b'Z' {
            break;
        }
    }
    kinds
}

fn table(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        (0..row.len())
            .map(|i| row.get(i).map(str::to_owned))
            .collect()
    })
    .collect()
}

#[tokio::test]
async fn every_show_answers_with_as_many_cells_as_columns() {
    let (driver, _fake) = driver("pgsplit").await;
    for topic in crate::admin::tables::Show::ALL {
        let name = topic.name;
        let messages = driver.simple_query(&format!("SHOW {name}")).await.unwrap();
        let columns = crate::admin::tables::columns(topic.show).len();
        let rows = table(&messages);
        assert!(!rows.is_empty(), "SHOW {name}");
        assert!(rows.iter().all(|row| row.len() == columns), "SHOW {name}");
    }
}

#[tokio::test]
async fn the_columns_of_pgbouncer_come_first() {
    let (driver, _fake) = driver("pgbouncer").await;
    let cases = [
        (
            "SHOW DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool pool_mode \
             max_connections current_connections paused disabled",
        ),
        (
            "SHOW POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req \
             sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login \
             maxwait maxwait_us pool_mode",
        ),
        (
            "SHOW CLIENTS",
            "type user database state addr port local_addr local_port connect_time request_time \
             wait wait_us close_needed ptr link remote_pid tls application_name",
        ),
        (
            "SHOW SERVERS",
            "type user database state addr port local_addr local_port connect_time request_time \
             wait wait_us close_needed ptr link remote_pid tls application_name",
        ),
        (
            "SHOW STATS",
            "database total_xact_count total_query_count total_received total_sent \
             total_xact_time total_query_time total_wait_time avg_xact_count avg_query_count \
             avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time",
        ),
        (
            "SHOW STATS_TOTALS",
            "database xact_count query_count bytes_received bytes_sent xact_time query_time \
             wait_time",
        ),
        ("SHOW LISTS", "list items"),
        ("SHOW USERS", "name pool_mode"),
        ("SHOW CONFIG", "key value default changeable"),
        ("SHOW VERSION", "version"),
    ];
    for (sql, names) in cases {
        let statement = driver.prepare(sql).await.unwrap();
        let columns: Vec<_> = statement.columns().iter().map(|c| c.name()).collect();
        let names: Vec<_> = names.split_whitespace().collect();
        assert_eq!(columns[..names.len()], names, "{sql}");
    }
}

#[tokio::test]
async fn pools_are_summed_for_tools_of_pgbouncer_and_per_node_otherwise() {
    let sql = "SHOW POOLS";
    let (driver_of_pgbouncer, _fake) = driver("pgbouncer").await;
    let rows = table(&driver_of_pgbouncer.simple_query(sql).await.unwrap());
    assert_eq!(rows.len(), 1);
    // sv_active, sv_idle, maxwait, maxwait_us
    let cell = |index: usize| rows[0][index].as_deref().unwrap();
    assert_eq!(
        [cell(6), cell(9), cell(13), cell(14)],
        ["3", "6", "1", "250"]
    );
    let (driver, _fake) = driver("pgsplit").await;
    assert_eq!(table(&driver.simple_query(sql).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn binary_results_have_their_types() {
    let (driver, _fake) = driver("pgsplit").await;
    let row = driver.query_one("SHOW LISTS LIMIT", &[]).await;
    assert_eq!(row.unwrap_err().code().unwrap().code(), "42601");
    let rows = driver.query("SHOW LISTS", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>("list"), "databases");
    assert_eq!(rows[0].get::<_, i32>("items"), 2);
    let rows = driver.query("SHOW NODES", &[]).await.unwrap();
    assert_eq!(rows[1].get::<_, Option<f64>>("lag_seconds"), Some(1.25));
    assert_eq!(rows[1].get::<_, i64>("lag_bytes"), 4096);
    assert_eq!(rows[1].get::<_, Option<&str>>("error"), None);
    let rows = driver.query("SHOW CLIENTS", &[]).await.unwrap();
    assert!(rows[0].get::<_, bool>("in_transaction"));
}

#[tokio::test]
async fn secrets_are_masked() {
    let (driver, _fake) = driver("pgsplit").await;
    let rows = table(&driver.simple_query("SHOW CONFIG").await.unwrap());
    let values: Vec<_> = rows.iter().map(|row| row[1].as_deref().unwrap()).collect();
    assert_eq!(values, ["20", "********", "/run/secrets/app", "********"]);
}

#[tokio::test]
async fn several_commands_run_in_order_until_one_fails() {
    let (driver, fake) = driver("pgsplit").await;
    let messages = driver
        .simple_query("SHOW VERSION; RELOAD; SHOW USERS")
        .await;
    assert_eq!(table(&messages.unwrap()).len(), 2);
    let error = driver
        .simple_query("RESUME app; DISABLE NODE none; KILL 7")
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42704");
    let actions = fake.actions.lock().unwrap().clone();
    let disable = Action::SetNode {
        name: "none".into(),
        enabled: false,
    };
    assert_eq!(
        actions,
        [Action::Reload, Action::Resume(Some("app".into())), disable]
    );
    let events = table(&driver.simple_query("SHOW EVENTS").await.unwrap());
    let last = events.last().unwrap()[3].clone().unwrap();
    assert!(
        last.starts_with("ops: DISABLE NODE none failed: no such node"),
        "{last}"
    );
    // A text with a mistake does nothing at all.
    driver.simple_query("SHUTDOWN; FOO").await.unwrap_err();
    assert_eq!(fake.actions.lock().unwrap().len(), 3);
    driver
        .simple_query("SHUTDOWN WAIT_FOR_CLIENTS")
        .await
        .unwrap();
    let last = fake.actions.lock().unwrap().last().cloned();
    assert_eq!(last, Some(Action::Shutdown(Shutdown::WaitForClients)));
}

#[tokio::test]
async fn explain_route_takes_the_whole_text_and_the_first_named_database() {
    let (driver, _fake) = driver("pgsplit").await;
    let explain = driver
        .simple_query("EXPLAIN ROUTE SELECT $$;'$$;")
        .await
        .unwrap();
    let rows = table(&explain);
    let row: Vec<_> = rows[0].iter().map(Option::as_deref).collect();
    let said = ["read", "replica", "pg\"2", "read", "SELECT $$;'$$", ""].map(Some);
    assert_eq!(row, [&said[..], &[None]].concat());
    let error = driver
        .simple_query("EXPLAIN ROUTE FOR nodb SELECT 1")
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "3D000");
}

#[tokio::test]
async fn what_drivers_send_on_their_own_is_no_error() {
    let (mut driver, _fake) = driver("pgsplit").await;
    driver
        .batch_execute("SET extra_float_digits = 3; SET client_encoding TO 'UTF8'; RESET ALL")
        .await
        .unwrap();
    driver.batch_execute("").await.unwrap();
    driver.query("", &[]).await.unwrap();
    let mut transaction = driver.transaction().await.unwrap();
    let savepoint = transaction.transaction().await.unwrap();
    savepoint.query("SHOW VERSION", &[]).await.unwrap();
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    for sql in [
        "SELECT version()",
        "select pg_catalog.version()",
        "SELECT current_database()",
        "SHOW standard_conforming_strings",
        "SHOW TRANSACTION ISOLATION LEVEL",
    ] {
        assert_eq!(driver.query(sql, &[]).await.unwrap().len(), 1, "{sql}");
    }
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_parts() {
    let (mut driver, _fake) = driver("pgsplit").await;
    let transaction = driver.transaction().await.unwrap();
    let portal = transaction.bind("SHOW LISTS", &[]).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 5).await.unwrap();
        sizes.push(rows.len());
        if rows.len() < 5 {
            break;
        }
    }
    assert_eq!(sizes, [5, 5, 4]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_passed_over() {
    let (mut client, serving, fake) = raw().await;
    let mut bytes = frame(b'P', b"\0FOO\0\0\0");
    bytes.extend(frame(b'P', b"\0SHUTDOWN\0\0\0"));
    bytes.extend(frame(b'B', b"\0\0\0\0\0\0\0\0"));
    bytes.extend(frame(b'E', b"\0\0\0\0\0"));
    bytes.extend(frame(b'S', b""));
    bytes.extend(frame(b'P', b"\0RESUME\0\0\0"));
    bytes.extend(frame(b'B', b"\0\0\0\0\0\0\0\0"));
    bytes.extend(frame(b'D', b"P\0"));
    bytes.extend(frame(b'E', b"\0\0\0\0\0"));
    bytes.extend(frame(b'S', b""));
    client.write_all(&bytes).await.unwrap();
    assert_eq!(kinds(&mut client).await, "EZ");
    assert_eq!(kinds(&mut client).await, "12nCZ");
    assert_eq!(*fake.actions.lock().unwrap(), [Action::Resume(None)]);
    client.write_all(&frame(b'X', b"")).await.unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn many_small_messages_are_answered_one_by_one() {
    let (client, serving, _fake) = raw().await;
    let mut bytes = Vec::new();
    for _sync in 0..5_000 {
        bytes.extend(frame(b'S', b""));
    }
    bytes.extend(frame(b'X', b""));
    let (mut from, mut to) = tokio::io::split(client);
    let writing = tokio::spawn(async move { to.write_all(&bytes).await });
    let mut answers = Vec::new();
    from.read_to_end(&mut answers).await.unwrap();
    assert_eq!(answers, b"Z\0\0\0\x05I".repeat(5_000));
    writing.await.unwrap().unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn broken_protocol_ends_with_an_error() {
    let wrong: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\x05x",
    ];
    for bytes in wrong {
        let (mut client, serving, _fake) = raw().await;
        client.write_all(bytes).await.unwrap();
        assert_eq!(kinds(&mut client).await, "E");
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_a_command_is_noticed() {
    let (mut client, serving, fake) = raw().await;
    client.write_all(&frame(b'Q', b"PAUSE\0")).await.unwrap();
    while fake.actions.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(client);
    serving.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn silent_slow_and_unreading_clients_are_sent_away() {
    let (mut silent, serving, _fake) = raw().await;
    assert_eq!(kinds(&mut silent).await, "E");
    serving.await.unwrap().unwrap();

    // A byte now and then doesn't help.
    let (mut slow, serving, _fake) = raw().await;
    let started = Instant::now();
    slow.write_all(b"Q\0\0\x01\0").await.unwrap();
    while slow.write_all(b" ").await.is_ok() {
        tokio::time::sleep(MESSAGE / 10).await;
    }
    assert!(started.elapsed() < MESSAGE * 2);
    serving.await.unwrap().unwrap_err();

    // The stream holds less than the answer.
    let (mut unreading, serving, _fake) = raw().await;
    unreading
        .write_all(&frame(b'Q', b"SHOW CONFIG;SHOW EVENTS\0"))
        .await
        .unwrap();
    serving.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_client_can_keep_only_so_many_statements() {
    let (mut client, _serving, _fake) = raw().await;
    for number in 0..=KEPT {
        let parse = format!("s{number}\0SHOW VERSION\0\0\0");
        let mut bytes = frame(b'P', parse.as_bytes());
        bytes.extend(frame(b'S', b""));
        client.write_all(&bytes).await.unwrap();
        let expected = if number < KEPT { "1Z" } else { "EZ" };
        assert_eq!(kinds(&mut client).await, expected);
    }
}

#[tokio::test]
async fn psql_shows_tables_notices_and_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (console, _fake) = fake::console(Fake {
        clients: 2_000,
        ..Fake::default()
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _peer) = listener.accept().await.unwrap();
            let console = Arc::clone(&console);
            tokio::spawn(async move {
                login(&mut stream).await;
                serve(stream, Vec::new(), caller("pgsplit"), &console).await
            });
        }
    });
    let psql = async |sql: &str| {
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-At", "-c", sql])
            .arg(format!(
                "host=127.0.0.1 port={port} user=ops dbname=pgsplit"
            ))
            .env("PGCONNECT_TIMEOUT", "10")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (out, err) = psql("SHOW VERSION").await;
    assert_eq!(out, format!("pgsplit {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(err, "", "not even a warning about versions");
    let (out, err) = psql("reload").await;
    assert_eq!(out, "RELOAD\n");
    assert_eq!(err, "NOTICE:  pool.max_size changed\n");
    let (_out, err) = psql("SHOW FOO;").await;
    assert!(
        err.starts_with("ERROR:  invalid command 'SHOW FOO', use SHOW HELP;\n"),
        "{err}"
    );
    assert!(err.contains("HINT:  SHOW takes HELP, VERSION"), "{err}");
    let (out, _err) = psql("SHOW CLIENTS").await;
    assert_eq!(out.lines().count(), 2_000);
}
