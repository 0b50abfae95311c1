//! `routing.transactions = "optimistic"`: transactions that begin on a replica and move.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::support::{
    Frame, Proxy, Raw, cluster, eventually,
    message::{bind, describe, execute, extended, flush, parse, query, sync},
    own_cluster, run, sqlstate, tags, unique,
};

const OPTIMISTIC: &str = "[routing]\ntransactions = \"optimistic\"";

use Where::{Nowhere, Primary, Replica};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Where {
    Primary,
    Replica,
    /// Fails wherever it runs, or needs no server.
    Nowhere,
}

/// A table that replicas know, with one row.
async fn table(proxy: &Proxy, client: &tokio_postgres::Client) -> String {
    let table = unique("t");
    client
        .batch_execute(&format!(
            "create table {table} (a int primary key, b int); insert into {table} values (1, 1)"
        ))
        .await
        .unwrap();
    proxy.wait_for_table(cluster(), &table).await;
    table
}

/// Transactions of one snapshot can't move: also where a role's, a database's or the server's
/// setting makes them so, which no session has ever said.
#[test]
fn a_level_that_the_server_gives_by_default_is_heeded() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, OPTIMISTIC).await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "t").await;
        let ran_on = async |client: &tokio_postgres::Client, begin: &str| {
            let mark = unique("mark");
            client.batch_execute(begin).await.unwrap();
            client
                .batch_execute(&format!("select * from t /* {mark} */"))
                .await
                .unwrap();
            client.batch_execute("rollback").await.unwrap();
            cluster.ran_on(&mark).unwrap()
        };
        for (statement, node) in [
            (
                "alter role app set default_transaction_isolation = 'repeatable read'",
                0,
            ),
            ("alter role app reset default_transaction_isolation", 1),
            (
                "alter system set default_transaction_isolation = 'repeatable read'",
                0,
            ),
        ] {
            cluster.psql(0, statement).unwrap();
            cluster.psql(0, "select pg_reload_conf()").unwrap();
            // It is read again behind DDL that passes through, else every few seconds.
            let ddl = "create table u (a int); drop table u";
            client.batch_execute(ddl).await.unwrap();
            eventually(statement, async || {
                let client = proxy.connect("app", "app").await;
                let named = ran_on(&client, "begin isolation level read committed").await;
                // The catalogue is known again.
                named == [1] && ran_on(&client, "begin").await == [node]
            })
            .await;
        }
    });
}

#[test]
fn a_transaction_is_on_a_replica_until_a_statement_is_no_read() {
    // Behind BEGIN; $T is a table.
    let scripts: &[(&str, &[(&str, Where)])] = &[
        (
            "begin",
            &[
                ("select * from $T", Replica),
                ("select a from $T where b = 1", Replica),
                ("insert into $T values (2, 2)", Primary),
                ("select * from $T", Primary),
            ],
        ),
        (
            "start transaction",
            &[("select 1", Replica), ("select 2", Replica)],
        ),
        (
            "begin isolation level read committed, read write",
            &[("table $T", Replica), ("update $T set b = 2", Primary)],
        ),
        (
            "begin",
            &[
                ("insert into $T values (3, 3)", Primary),
                ("table $T", Primary),
            ],
        ),
        (
            "begin isolation level repeatable read",
            &[("table $T", Primary)],
        ),
        (
            "begin isolation level serializable",
            &[("table $T", Primary)],
        ),
        (
            "begin",
            &[
                ("set transaction isolation level repeatable read", Nowhere),
                ("table $T", Primary),
            ],
        ),
        (
            "begin",
            &[
                ("set local statement_timeout = '9s'", Replica),
                ("savepoint a", Replica),
                ("set search_path = public, pg_temp", Replica),
                ("table $T", Replica),
                ("rollback to a", Replica),
                ("release a", Replica),
                ("table $T for update", Primary),
            ],
        ),
        (
            "begin",
            &[("table $T", Replica), ("table $T for share", Primary)],
        ),
        (
            "begin",
            &[("table $T", Replica), ("lock table $T", Primary)],
        ),
        (
            "begin",
            &[("table $T", Replica), ("select pg_backend_pid()", Primary)],
        ),
        (
            "begin",
            &[("table $T", Replica), ("select txid_current()", Primary)],
        ),
        (
            "begin",
            &[
                ("table $T", Replica),
                ("select pg_is_in_recovery()", Primary),
            ],
        ),
        (
            "begin",
            &[
                ("table $T", Replica),
                ("show transaction_read_only", Primary),
            ],
        ),
        (
            "begin",
            &[("show search_path", Replica), ("show work_mem", Primary)],
        ),
        (
            "begin",
            &[
                ("table $T", Replica),
                ("declare c cursor for table $T", Primary),
                ("fetch c", Primary),
            ],
        ),
        // The start of the transaction is told: it isn't to change later.
        (
            "begin",
            &[
                ("table $T", Replica),
                ("select now()", Primary),
                ("table $T", Primary),
            ],
        ),
        ("begin", &[("select current_date", Primary)]),
        (
            "begin",
            &[("select statement_timestamp(), clock_timestamp()", Replica)],
        ),
        ("begin", &[("/* pgsplit: replica */ select now()", Replica)]),
        (
            "begin",
            &[
                ("/* pgsplit: primary */ table $T", Primary),
                ("table $T", Primary),
            ],
        ),
        (
            "begin",
            &[
                ("table $T", Replica),
                ("/* pgsplit: primary */ table $T", Primary),
            ],
        ),
        // RLS's way to say who asks.
        (
            "begin",
            &[
                ("select set_config('app.tenant', '7', true)", Replica),
                ("select current_setting('app.tenant')", Replica),
                ("insert into $T values (4, 4)", Primary),
                ("select current_setting('app.tenant')", Primary),
            ],
        ),
        (
            "begin read only",
            &[("table $T", Replica), ("select now()", Replica)],
        ),
        (
            "begin read only",
            &[
                ("set local work_mem = '7MB'", Replica),
                ("table $T", Replica),
                ("select pg_backend_pid()", Primary),
            ],
        ),
    ];
    run(async {
        // Where reads go isn't to depend on what has been replayed.
        let settings = format!("{OPTIMISTIC}\nconsistency = \"eventual\"");
        let proxy = Proxy::start(cluster(), &settings).await;
        let client = proxy.connect("app", "app").await;
        let table = table(&proxy, &client).await;
        proxy.wait_for_replica(cluster(), &client).await;
        let mark = unique("mark");
        let mut sent = Vec::new();
        for simple in [true, false] {
            for (begin, statements) in scripts {
                client.batch_execute(begin).await.unwrap();
                for (sql, expected) in *statements {
                    let sql = sql.replace("$T", &table);
                    let text = format!("{sql} /* {mark}{}. */", sent.len());
                    if simple {
                        client.simple_query(&text).await.map(|_rows| ())
                    } else {
                        let rows = client.execute_raw(&text, &[] as &[i32]).await;
                        rows.map(|_rows| ())
                    }
                    .unwrap_or_else(|error| panic!("{begin}: {sql}: {error:?}"));
                    sent.push((begin, sql, expected));
                }
                client.batch_execute("rollback").await.unwrap();
            }
        }
        let ran: Vec<Vec<String>> = (0..3)
            .map(|node| cluster().statements(node, &mark).unwrap())
            .collect();
        for (at, (begin, sql, expected)) in sent.into_iter().enumerate() {
            let label = format!("{mark}{at}.");
            let on = |node: usize| ran[node].iter().any(|text| text.contains(&label));
            let found = match (on(0), on(1) || on(2)) {
                (true, false) => Primary,
                (false, true) => Replica,
                // Made again where the transaction went.
                (true, true) if sql.contains("set") || sql.starts_with("savepoint") => Replica,
                both => panic!("{begin}: {sql} ran on {both:?}"),
            };
            assert!(
                *expected == Nowhere || found == *expected,
                "{begin}: {sql} ran on the {found:?}"
            );
        }
        let moves = proxy.metric("pgsplit_transaction_moves_total", &[]);
        assert!(moves >= 20.0, "{moves}");
        let reads = proxy.metric(
            "pgsplit_replica_reads_total",
            &["reason=\"optimistic_transaction\""],
        );
        assert!(reads >= 20.0, "{reads}");
        let told = proxy.metric(
            "pgsplit_primary_reads_total",
            &["reason=\"transaction_time\""],
        );
        assert!(told >= 4.0, "{told}");
    });
}

/// What the proxy answers to `parts`, which must be what the primary itself answers. Each part is
/// sent when the one before it has been answered with so many ReadyForQuery.
async fn same(proxy: &Proxy, parts: &[(Vec<u8>, usize)], what: &str) -> Vec<Frame> {
    let mut answers = Vec::new();
    for port in [proxy.port, cluster().nodes()[0].port] {
        let mut raw = Raw::connect(port).await;
        let mut answer = Vec::new();
        for (bytes, ready) in parts {
            raw.send(bytes).await;
            answer.extend(raw.until_ready(*ready).await);
        }
        answers.push(answer);
    }
    let direct = answers.pop().unwrap();
    let proxied = answers.pop().unwrap();
    for (at, (proxied, direct)) in proxied.iter().zip(&direct).enumerate() {
        assert_eq!(proxied, direct, "message {at} of {what}");
    }
    assert_eq!(proxied.len(), direct.len(), "{what}");
    proxied
}

#[test]
fn what_was_set_moves_along() {
    // The hint: it isn't to move the transaction.
    let see = "/* pgsplit: replica */ select current_setting('work_mem'), nullif(current_setting('app.x', true), ''), \
               current_setting('lock_timeout'), current_setting('statement_timeout')";
    let scripts: &[&[&str]] = &[
        &["set local work_mem = '7MB'", "select 1"],
        &[
            "set work_mem = '7MB'",
            "select 1",
            "set local work_mem = '8MB'",
        ],
        &[
            "select set_config('app.x', 'it''s', true)",
            "select set_config('work_mem', '7MB', false)",
        ],
        &[
            "savepoint s",
            "set local work_mem = '7MB'",
            "rollback to s",
            "set local app.x = 'y'",
        ],
        &[
            "savepoint s",
            "set local work_mem = '7MB'",
            "release s",
            "savepoint t",
            "set app.x = 'z'",
        ],
        &[
            "savepoint \"S\"",
            "savepoint s",
            "set app.x = '1'",
            "savepoint s",
            "set app.x = '2'",
            "rollback to s",
        ],
        &["select 1", "select 1/0", "select 2"],
        &[
            "set local work_mem = '7MB'",
            "savepoint s",
            "select 1/0",
            "select 2",
            "rollback to s",
            "select 3",
        ],
        &["set local work_mem = 'nonsense'", "select 1"],
        &["set transaction read only", "select 1"],
        &[
            "savepoint s",
            "set transaction read only",
            "rollback to s",
            "select 1",
        ],
        &["select 1", "set transaction isolation level serializable"],
        &[
            "show work_mem",
            "set transaction isolation level repeatable read",
            "show transaction_isolation",
        ],
        &[
            "select 1",
            "set transaction read write",
            "show transaction_read_only",
        ],
        &[
            "set local work_mem = '7MB'; set local app.x = 'several'",
            "select 1; select 2",
        ],
        &["begin", "select 1"],
        &["select 1", "begin read only"],
        &[
            "set local work_mem = '7MB'",
            "reset work_mem",
            "set lock_timeout to default",
        ],
        &[
            "set local work_mem = '7MB'",
            "commit and chain",
            "set local app.x = 'chained'",
        ],
        &[
            "set local work_mem = '7MB'",
            "select 1/0",
            "rollback and chain",
            "set local app.x = 'chained'",
        ],
        &["rollback to nothing", "select 1"],
        &["release nothing"],
        &[
            "set session characteristics as transaction read only",
            "select 1",
        ],
        &["set names 'latin1'", "select 'é'"],
        &[
            "set standard_conforming_strings = off",
            "set app.x = 'a\\\\b'",
            "select 'c\\\\d'",
        ],
        &["fetch nothing"],
        &[
            "declare c cursor for select 1",
            "savepoint s",
            "fetch c",
            "close c",
        ],
    ];
    // Whether the transaction moves before its end, how it ends, and by the simple protocol or not.
    let ends: &[(&[&str], &[bool])] = &[
        (&["commit"], &[true]),
        (
            &["create temp table moved (a int) on commit drop", "rollback"],
            &[true],
        ),
        (
            &[
                "create temp table moved (a int) on commit drop",
                "rollback to s",
                "commit",
            ],
            &[true, false],
        ),
    ];
    run(async {
        let proxy = Proxy::start(cluster(), OPTIMISTIC).await;
        for script in scripts {
            for (end, protocols) in ends {
                for &simple in *protocols {
                    let mut parts = vec![(query("begin"), 1)];
                    for sql in script.iter().chain(*end) {
                        let one = |sql: &str| {
                            if simple {
                                query(sql)
                            } else {
                                extended(sql, &[])
                            }
                        };
                        if simple || !sql.contains("; ") {
                            parts.push((one(sql), 1));
                        }
                        parts.push((query(see), 1));
                    }
                    parts.push((query(see), 1));
                    parts.push((query("show default_transaction_read_only"), 1));
                    same(
                        &proxy,
                        &parts,
                        &format!("{script:?} {end:?} simple: {simple}"),
                    )
                    .await;
                }
            }
        }
        // The settings weren't made where the transactions began.
        let client = proxy.connect("app", "app").await;
        for _ in 0..4 {
            let row = client.query_one(see, &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), "4MB");
        }
    });
}

#[test]
fn pipelines_of_drivers_are_answered_as_by_the_primary() {
    run(async {
        let proxy = Proxy::start(cluster(), OPTIMISTIC).await;
        let client = proxy.connect("app", "app").await;
        let table = table(&proxy, &client).await;
        proxy.wait_for_replica(cluster(), &client).await;
        let read = format!("select a from {table} where a = 1");
        let write = format!("update {table} set b = b + 0 where a = 1");
        let portal = |name: &str, sql: &str, limit: i32| {
            [
                parse("", sql),
                bind(name, "", &[]),
                describe('P', name),
                execute(name, limit),
            ]
            .concat()
        };
        let cases: Vec<(&str, Vec<Vec<u8>>, usize)> = vec![
            (
                "pgjdbc",
                vec![
                    query("BEGIN"),
                    extended(&read, &[]),
                    extended(&write, &[]),
                    query("COMMIT"),
                ],
                4,
            ),
            (
                "pgjdbc with parts",
                vec![
                    query("BEGIN"),
                    extended(&read, &[]),
                    portal("C_1", "select generate_series(1, 3)", 2),
                    sync(),
                    execute("C_1", 2),
                    sync(),
                    query("COMMIT"),
                ],
                5,
            ),
            (
                "asyncpg",
                vec![
                    query("BEGIN;"),
                    parse("s", &read),
                    describe('S', "s"),
                    flush(),
                    bind("", "s", &[]),
                    execute("", 0),
                    sync(),
                    extended(&write, &[]),
                    query("COMMIT;"),
                ],
                4,
            ),
            (
                "asyncpg, to write",
                vec![
                    query("BEGIN;"),
                    extended(&read, &[]),
                    parse("s", &write),
                    describe('S', "s"),
                    flush(),
                    bind("", "s", &[]),
                    execute("", 0),
                    sync(),
                    query("COMMIT;"),
                ],
                4,
            ),
            (
                "pipeline mode",
                vec![
                    parse("", "BEGIN"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", &read),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    extended(&write, &[]),
                    extended("COMMIT", &[]),
                ],
                3,
            ),
            (
                "one pipeline",
                vec![
                    parse("", "BEGIN"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", &read),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "COMMIT"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ],
                1,
            ),
            (
                "an error in a pipeline",
                vec![
                    query("BEGIN"),
                    extended(&read, &[]),
                    extended("select 1/0", &[]),
                    extended(&write, &[]),
                    query("ROLLBACK"),
                ],
                5,
            ),
            (
                "going on behind an error",
                vec![
                    query("BEGIN"),
                    query("savepoint s"),
                    extended(&read, &[]),
                    extended("select 1/0", &[]),
                    parse("", "rollback to s"),
                    bind("", "", &[]),
                    execute("", 0),
                    extended(&write, &[]),
                    query("select 1/0"),
                    query(&format!("rollback to s; {write}; commit")),
                ],
                7,
            ),
            (
                "a parameter for a setting",
                vec![
                    query("BEGIN"),
                    extended("select set_config($1, $2, true)", &["app.who", "me"]),
                    extended("select current_setting('app.who')", &[]),
                    extended(&write, &[]),
                    extended("select current_setting('app.who')", &[]),
                    query("COMMIT"),
                ],
                6,
            ),
            (
                "settings, then a read, in one pipeline",
                vec![
                    query("BEGIN"),
                    parse("", "set local work_mem = '7MB'"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", &read),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    extended(&write, &[]),
                    query("show work_mem"),
                    query("COMMIT"),
                ],
                5,
            ),
            (
                "the unnamed statement of before the move",
                vec![
                    query("BEGIN"),
                    extended(&read, &[]),
                    extended(&write, &[]),
                    parse("", &read),
                    sync(),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    query("COMMIT"),
                ],
                6,
            ),
            (
                "flushes",
                vec![
                    query("BEGIN"),
                    parse("", &read),
                    bind("", "", &[]),
                    execute("", 0),
                    flush(),
                    parse("", &write),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    query("COMMIT"),
                ],
                3,
            ),
        ];
        for (what, messages, ready) in cases {
            // At once, and one after the other.
            same(&proxy, &[(messages.concat(), ready)], what).await;
            let frames = same(&proxy, &[(messages.concat(), ready)], what).await;
            assert_eq!(tags(&frames).matches('Z').count(), ready);
        }
    });
}

#[test]
fn a_lost_replica_is_no_matter_to_a_transaction_that_only_read() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, OPTIMISTIC).await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int primary key)")
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "t").await;
        let cut = |node: usize| {
            cluster
                .psql(
                    node,
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and application_name <> 'pgsplit monitor'",
                )
                .unwrap();
        };
        for while_running in [false, true] {
            for write in [false, true] {
                proxy.wait_for_replica(&cluster, &client).await;
                let (first, second) = (unique("mark"), unique("mark"));
                client.batch_execute("begin").await.unwrap();
                client
                    .batch_execute("set local work_mem = '7MB'")
                    .await
                    .unwrap();
                client
                    .batch_execute(&format!("select 1 /* {first} */"))
                    .await
                    .unwrap();
                let on = cluster.ran_on(&first).unwrap();
                assert!(on.len() == 1 && on[0] != 0, "{on:?}");
                let text =
                    format!("select current_setting('work_mem'), pg_sleep(0.3) /* {second} */");
                let rows = if while_running {
                    let (rows, ()) = tokio::join!(client.simple_query(&text), async {
                        while cluster.ran_on(&second).unwrap().is_empty() {
                            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                        }
                        cut(on[0]);
                    });
                    rows
                } else {
                    cut(on[0]);
                    client.simple_query(&text).await
                };
                let rows = rows.unwrap();
                let row = rows.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                assert_eq!(row, Some("7MB"), "running: {while_running}");
                if write {
                    client
                        .batch_execute("insert into t select count(*) from t")
                        .await
                        .unwrap();
                }
                client.batch_execute("commit").await.unwrap();
            }
        }
        let rows = cluster.psql(0, "select count(*) from t").unwrap();
        assert_eq!(rows.trim(), "2");
    });
}

#[test]
fn reads_in_a_transaction_see_what_other_sessions_wrote_when_consistency_is_global() {
    run(async {
        let settings = format!("{OPTIMISTIC}\nconsistency = \"global\"");
        let proxy = Proxy::start(cluster(), &settings).await;
        let (reader, writer) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        let table = table(&proxy, &writer).await;
        for round in 2..30 {
            reader
                .batch_execute("begin; set local work_mem = '7MB'")
                .await
                .unwrap();
            let count = format!("select count(*) from {table}");
            let _before = reader.query_one(&count, &[]).await.unwrap();
            writer
                .batch_execute(&format!("insert into {table} values ({round})"))
                .await
                .unwrap();
            let after: i64 = reader.query_one(&count, &[]).await.unwrap().get(0);
            assert_eq!(after, round);
            let row = reader.query_one("show work_mem", &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), "7MB");
            reader.batch_execute("commit").await.unwrap();
        }
    });
}

#[test]
fn users_databases_and_sessions_choose_where_transactions_begin() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let began_on_a_replica = async || {
            proxy.wait_for_replica(cluster(), &client).await;
            let mark = unique("mark");
            client.batch_execute("begin").await.unwrap();
            client
                .batch_execute(&format!("select 1 /* {mark} */"))
                .await
                .unwrap();
            client.batch_execute("commit").await.unwrap();
            cluster().ran_on(&mark).unwrap() != [0]
        };
        assert!(!began_on_a_replica().await);
        client
            .batch_execute("set pgsplit.transactions = 'optimistic'")
            .await
            .unwrap();
        assert!(began_on_a_replica().await);
        let shown = client.query_one("show pgsplit.transactions", &[]).await;
        assert_eq!(shown.unwrap().get::<_, &str>(0), "optimistic");
        client
            .batch_execute("reset pgsplit.transactions")
            .await
            .unwrap();
        assert!(!began_on_a_replica().await);
        let invalid = client
            .batch_execute("set pgsplit.transactions = 'often'")
            .await;
        assert_eq!(sqlstate(&invalid.unwrap_err()), "22023");
        // Within a transaction: what comes goes to the primary.
        client
            .batch_execute("set pgsplit.transactions = 'optimistic'")
            .await
            .unwrap();
        client.batch_execute("begin").await.unwrap();
        client.batch_execute("select 1").await.unwrap();
        client
            .batch_execute("set pgsplit.route = 'primary'")
            .await
            .unwrap();
        let mark = unique("mark");
        client
            .batch_execute(&format!("select 1 /* {mark} */"))
            .await
            .unwrap();
        assert_eq!(cluster().ran_on(&mark).unwrap(), [0]);
        client.batch_execute("commit").await.unwrap();
        // And from then on they begin there.
        client.batch_execute("begin").await.unwrap();
        let mark = unique("mark");
        client
            .batch_execute(&format!("select 1 /* {mark} */"))
            .await
            .unwrap();
        assert_eq!(cluster().ran_on(&mark).unwrap(), [0]);
        client.batch_execute("commit").await.unwrap();
    });
}

#[test]
fn no_write_is_lost_or_doubled_while_transactions_move_and_replicas_fail() {
    const CLIENTS: u64 = 6;
    run(async {
        let cluster = own_cluster(2);
        let settings = format!("{OPTIMISTIC}\n[pool]\nmax_size = 4");
        let proxy = Arc::new(Proxy::start(&cluster, &settings).await);
        let admin = proxy.connect("app", "app").await;
        admin
            .batch_execute(
                "create table ledger (client int, n int, tenant text); \
                 create table t (a int); insert into t values (0)",
            )
            .await
            .unwrap();
        proxy.wait_for_table(&cluster, "ledger").await;
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let work = |id: u64| {
            let (proxy, over, done) = (Arc::clone(&proxy), Arc::clone(&over), Arc::clone(&done));
            async move {
                let client = proxy.connect("app", "app").await;
                let mut acknowledged = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    let write = fastrand::u8(..3) > 0;
                    let tenant = format!("{id}-{acknowledged}");
                    client.batch_execute("begin").await.unwrap();
                    client
                        .query("select set_config('app.tenant', $1, true)", &[&tenant])
                        .await
                        .unwrap();
                    for _ in 0..fastrand::u8(..3) {
                        client.query("select a from t", &[]).await.unwrap();
                        client.batch_execute("savepoint s").await.unwrap();
                        client.query("select a from t", &[]).await.unwrap();
                        client.batch_execute("release s").await.unwrap();
                    }
                    if write {
                        let changed = client
                            .execute(
                                "insert into ledger values ($1, $2, current_setting('app.tenant'))",
                                &[
                                    &i32::try_from(id).unwrap(),
                                    &i32::try_from(acknowledged).unwrap(),
                                ],
                            )
                            .await
                            .unwrap();
                        assert_eq!(changed, 1);
                    }
                    client.batch_execute("commit").await.unwrap();
                    acknowledged += u64::from(write);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            }
        };
        let havoc = async {
            while done.load(Ordering::Relaxed) < 600 {
                for node in [1, 2] {
                    cluster
                        .psql(
                            node,
                            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and application_name <> 'pgsplit monitor' and random() < 0.5",
                        )
                        .unwrap();
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
            over.store(true, Ordering::Relaxed);
        };
        let clients = futures_join((0..CLIENTS).map(work));
        let (counts, ()) = tokio::join!(clients, havoc);
        for (id, count) in counts.into_iter().enumerate() {
            let sql = format!(
                "select count(*), count(distinct n), count(*) filter (where tenant <> client || '-' || n) \
                 from ledger where client = {id}"
            );
            let found = cluster.psql(0, &sql).unwrap();
            assert_eq!(found.trim(), format!("{count}|{count}|0"), "client {id}");
        }
        assert!(proxy.metric("pgsplit_transaction_moves_total", &[]) > 100.0);
    });
}

/// All of them, on this thread.
async fn futures_join<F: Future<Output = u64>>(all: impl Iterator<Item = F>) -> Vec<u64> {
    let mut futures: Vec<_> = all.map(|future| (Some(Box::pin(future)), 0)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, result) in &mut futures {
            if let Some(running) = future {
                match running.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => {
                        *result = value;
                        *future = None;
                    }
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures.into_iter().map(|(_, result)| result).collect()
}
