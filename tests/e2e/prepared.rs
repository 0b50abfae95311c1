//! Prepared statements over many server connections.

use tokio::task::JoinSet;

use crate::support::{
    Frame, Proxy, Raw, cluster, eventually,
    message::{bind, close, describe, execute, parse, query, sync},
    run, sqlstate, tags, unique, version,
};

#[test]
fn many_clients_share_few_connections_under_their_own_names() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 3").await;
        let mut clients = JoinSet::new();
        for number in 0..20_i32 {
            let mut raw = Raw::connect(proxy.port).await;
            clients.spawn(async move {
                // Everyone says "s", and means something else.
                let sql = format!("select {number} + $1::int");
                raw.send(&[parse("s", &sql), sync()].concat()).await;
                assert_eq!(tags(&raw.until_ready(1).await), "1Z");
                for round in 0..30 {
                    let bound = bind("", "s", &[&round.to_string()]);
                    raw.send(&[bound, execute("", 0), sync()].concat()).await;
                    let frames = raw.until_ready(1).await;
                    assert_eq!(tags(&frames), "2DCZ");
                    let expected = (number + round).to_string();
                    assert!(frames[1].body.ends_with(expected.as_bytes()));
                }
            });
        }
        clients.join_all().await;
        let servers = proxy.metric("pgsplit_server_connections", &[]);
        assert!(servers <= 9.0, "{servers} server connections");
    });
}

#[test]
fn the_driver_prepares_on_one_node_and_runs_on_all() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 2").await;
        let t = unique("t");
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute(&format!("create table {t} (a int primary key, b text)"))
            .await
            .unwrap();
        let insert = client
            .prepare(&format!("insert into {t} values ($1, $2)"))
            .await
            .unwrap();
        let select = client
            .prepare(&format!("select b from {t} where a = $1"))
            .await
            .unwrap();
        for i in 0..50_i32 {
            client
                .execute(&insert, &[&i, &i.to_string()])
                .await
                .unwrap();
            let row = client.query_one(&select, &[&i]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), i.to_string());
        }
    });
}

#[test]
fn names_behave_as_in_a_session_of_ones_own() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            let mut say = async |bytes: Vec<Vec<u8>>| {
                raw.send(&[bytes.concat(), sync()].concat()).await;
                let frames = raw.until_ready(1).await;
                let error = frames.iter().find(|frame| frame.tag == 'E');
                error.map_or_else(|| tags(&frames), |frame| frame.field('C'))
            };
            assert_eq!(say(vec![bind("", "none", &[])]).await, "26000");
            assert_eq!(say(vec![describe('S', "none")]).await, "26000");
            assert_eq!(say(vec![parse("s", "select 1")]).await, "1Z");
            assert_eq!(say(vec![parse("s", "select 2")]).await, "42P05");
            assert_eq!(
                say(vec![close('S', "s"), parse("s", "select 2")]).await,
                "31Z"
            );
            assert_eq!(say(vec![describe('S', "s")]).await, "tTZ");
            // The unnamed statement lives until the next one.
            assert_eq!(say(vec![parse("", "select 3")]).await, "1Z");
            assert_eq!(say(vec![bind("", "", &[]), execute("", 0)]).await, "2DCZ");
            assert_eq!(say(vec![parse("", "selec")]).await, "42601");
            assert_eq!(say(vec![bind("", "", &[])]).await, "26000");
            // A simple query takes the unnamed statement with it.
            assert_eq!(say(vec![parse("", "select 3")]).await, "1Z");
            assert_eq!(tags(&raw.query("select 1").await), "TDCZ");
            let mut say = async |bytes: Vec<Vec<u8>>| {
                raw.send(&[bytes.concat(), sync()].concat()).await;
                let frames = raw.until_ready(1).await;
                let error = frames.iter().find(|frame| frame.tag == 'E');
                error.map_or_else(|| tags(&frames), |frame| frame.field('C'))
            };
            assert_eq!(say(vec![bind("", "", &[])]).await, "26000");
            // A Parse in a transaction outlives its rollback.
            assert_eq!(say(vec![parse("kept", "select 4")]).await, "1Z");
        }
    });
}

#[test]
fn sql_level_and_protocol_level_share_their_names() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 2").await;
        let other = proxy.connect("app", "app").await;
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            let steps = [
                (query("prepare a (int) as select $1 + 1"), "CZ"),
                (query("execute a(41)"), "TDCZ"),
                (
                    [bind("", "a", &["1"]), execute("", 0), sync()].concat(),
                    "2DCZ",
                ),
                ([parse("b", "select 7"), sync()].concat(), "1Z"),
                (query("deallocate b"), "CZ"),
                ([bind("", "b", &[]), sync()].concat(), "EZ"),
                (query("prepare b as select 1"), "CZ"),
                (query("deallocate all"), "CZ"),
                (query("execute a(1)"), "EZ"),
                (query("begin; prepare c as select 1; rollback"), "CCCZ"),
                (query("execute c"), "TDCZ"),
                (query("explain (costs off) execute c"), "TDCZ"),
                (query("discard all"), "CZ"),
                (query("execute c"), "EZ"),
            ];
            for (i, (bytes, expected)) in steps.into_iter().enumerate() {
                // Somebody else uses the server connections in between.
                other.simple_query("select 1").await.unwrap();
                other
                    .batch_execute("create temp table x (a int); drop table x")
                    .await
                    .unwrap();
                raw.send(&bytes).await;
                assert_eq!(tags(&raw.until_ready(1).await), expected, "step {i}");
            }
        }
    });
}

#[test]
fn both_levels_have_one_space_of_names() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let other = proxy.connect("app", "app").await;
        // From PostgreSQL 18 on, `statement` is the whole text that the PREPARE came in.
        let statement = if version(cluster()) < 18 {
            "statement, "
        } else {
            ""
        };
        let mut answers = Vec::new();
        for port in [proxy.port, cluster().nodes()[0].port] {
            let mut raw = Raw::connect(port).await;
            let run = |name| [bind("", name, &["1"]), execute("", 0), sync()].concat();
            let extended = |sql| {
                let all = [parse("", sql), bind("", "", &[]), execute("", 0), sync()];
                all.concat()
            };
            let steps = [
                // From one level to the other.
                [parse("p", "select $1::int + 1"), sync()].concat(),
                query("execute p(41)"),
                query("prepare p as select 1"),
                query("explain (costs off) execute p(1)"),
                query("prepare q (int) as select $1 + 2"),
                [parse("q", "select 3"), sync()].concat(),
                run("q"),
                [describe('S', "q"), sync()].concat(),
                extended("execute q(5)"),
                extended("prepare r as select 4"),
                query("execute r"),
                // In the middle of a batch.
                [
                    parse("", "execute q(6)"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "deallocate r"),
                    bind("", "", &[]),
                    execute("", 0),
                    bind("", "q", &["7"]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
                query("execute r"),
                // Errors.
                query("execute q"),
                query("execute q(1, 2)"),
                query("execute nothing"),
                query("execute pgsplit_0"),
                query("deallocate nothing"),
                query("prepare bad as selec 1"),
                query("prepare bad as select * from nowhere"),
                query("execute bad"),
                query("begin; prepare kept as select 5; select 1/0"),
                query("execute kept"),
                query("rollback; execute kept"),
                query("prepare u as select 6; execute u; deallocate u; prepare u as select 7"),
                query("execute u"),
                // As seen by the session.
                query(&format!(
                    "select name, {statement}parameter_types, result_types, from_sql \
                     from pg_prepared_statements order by 1",
                )),
                [close('S', "q"), sync()].concat(),
                query("execute q(1)"),
                query("deallocate p"),
                query("select name from pg_prepared_statements order by 1"),
                // Out of sight.
                query("do $$ begin execute 'prepare hidden as select 8'; end $$"),
                query("execute hidden"),
                query("do $$ begin execute 'deallocate hidden'; end $$"),
                query("execute hidden"),
                query("begin"),
                query("execute u"),
                query("commit"),
                query("begin read only"),
                query("execute u"),
                query("deallocate all"),
                query("execute u"),
                query("rollback"),
                query("select name, statement from pg_prepared_statements"),
            ];
            let mut answer: Vec<Vec<Frame>> = Vec::new();
            for bytes in steps {
                // Somebody else uses the server connection in between, and the same names.
                let free = answer
                    .last()
                    .is_none_or(|frames| frames.last().unwrap().body == b"I");
                if free && port == proxy.port {
                    other
                        .batch_execute(
                            "deallocate all; prepare q as select 'others'; execute q; \
                             prepare nothing as select 'others'; execute nothing",
                        )
                        .await
                        .unwrap();
                }
                raw.send(&bytes).await;
                answer.push(raw.until_ready(1).await);
            }
            answers.push(answer);
        }
        let differences: Vec<_> = (answers[0].iter().zip(&answers[1]).enumerate())
            .filter(|(_, (through, direct))| through != direct)
            .collect();
        assert!(differences.is_empty(), "{differences:#?}");
        assert_eq!(proxy.metric("pgsplit_pins_total", &[]), 0.0);
    });
}

#[test]
fn executing_a_prepared_read_is_a_read() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let mark = unique("mark");
        client
            .batch_execute(&format!(
                "prepare reading (int) as select $1 + 1 /* {mark} */"
            ))
            .await
            .unwrap();
        eventually("it runs on a replica", async || {
            client.simple_query("execute reading(1)").await.unwrap();
            cluster.ran_on(&mark).unwrap() != [cluster.primary()]
        })
        .await;
    });
}

#[test]
fn a_changed_table_does_not_break_prepared_statements() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let migrating = proxy.connect("app", "app").await;
        let mut raw = Raw::connect(proxy.port).await;
        let t = unique("t");
        let sql = format!("create table {t} (a int); insert into {t} values (1)");
        migrating.batch_execute(&sql).await.unwrap();
        let prepare = [parse("s", &format!("select * from {t}")), sync()];
        raw.send(&prepare.concat()).await;
        raw.until_ready(1).await;
        // As clients do that ask for the columns with each result.
        let read = [
            bind("", "s", &[]),
            describe('P', ""),
            execute("", 0),
            sync(),
        ]
        .concat();
        for columns in 1..=4_u8 {
            for _ in 0..8 {
                raw.send(&read).await;
                let frames = raw.until_ready(1).await;
                assert_eq!(tags(&frames), "2TDCZ", "{frames:?}");
                assert_eq!(frames[1].body[1], frames[2].body[1]);
            }
            let sql = format!("alter table {t} add column c{columns} int");
            migrating.batch_execute(&sql).await.unwrap();
        }
    });
}

#[test]
fn inside_a_transaction_a_changed_result_type_is_postgresqls_error() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (a int)"))
            .await
            .unwrap();
        let select = client.prepare(&format!("select * from {t}")).await.unwrap();
        client.batch_execute("begin").await.unwrap();
        client.query(&select, &[]).await.unwrap();
        client
            .batch_execute(&format!("alter table {t} add column b int"))
            .await
            .unwrap();
        let error = client.query(&select, &[]).await.unwrap_err();
        assert_eq!(sqlstate(&error), "0A000");
        client.batch_execute("rollback").await.unwrap();
        client.query(&select, &[]).await.unwrap();
    });
}

/// A literal is read when its statement is parsed: what two sessions prepare under different settings
/// are two statements, also on the same server connection.
#[test]
fn sessions_that_read_literals_differently_share_no_statement() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let [mdy, dmy] = [
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        ];
        dmy.batch_execute("set datestyle to 'ISO, DMY'")
            .await
            .unwrap();
        for target in ["", "/* pgsplit: primary */ "] {
            let sql = format!("{target}select (date '01/02/2026')::text");
            let prepared = [
                mdy.prepare(&sql).await.unwrap(),
                dmy.prepare(&sql).await.unwrap(),
            ];
            for _ in 0..2 {
                let row = mdy.query_one(&prepared[0], &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), "2026-01-02");
                let row = dmy.query_one(&prepared[1], &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), "2026-02-01");
            }
        }
    });
}

/// The same text over tables of another shape: neither session hears that a plan has gone stale.
#[test]
fn sessions_whose_names_mean_other_tables_share_no_statement() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let schemas = [unique("tenant"), unique("tenant")];
        let owner = proxy.connect("app", "app").await;
        for (schema, columns) in schemas.iter().zip(["a int", "a int, b text"]) {
            let sql = format!("create schema {schema}; create table {schema}.shaped ({columns})");
            owner.batch_execute(&sql).await.unwrap();
        }
        let mut tenants = Vec::new();
        for schema in &schemas {
            let client = proxy.connect("app", "app").await;
            let sql = format!("set search_path to {schema}");
            client.batch_execute(&sql).await.unwrap();
            let sql = "/* pgsplit: primary */ select * from shaped";
            let statement = client.prepare(sql).await.unwrap();
            tenants.push((client, statement));
        }
        for _ in 0..2 {
            for (columns, (client, statement)) in tenants.iter().enumerate() {
                assert_eq!(statement.columns().len(), columns + 1);
                assert!(client.query(statement, &[]).await.unwrap().is_empty());
            }
        }
    });
}

#[test]
fn a_named_statement_that_is_too_long_to_be_kept_is_refused() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let filler = "x".repeat(2 << 20);
        let sql = format!("select '{filler}'");
        for messages in [
            [parse("s", &sql), sync()].concat(),
            query(&format!("prepare s as {sql}")),
        ] {
            let mut raw = Raw::connect(proxy.port).await;
            raw.send(&messages).await;
            assert_eq!(raw.frame().await.field('C'), "54000");
        }
    });
}

/// Whoever looks at all of their statements sees all of them, however many, also when a server
/// connection keeps fewer, and keeps nobody else waiting.
#[test]
fn thousands_of_statements_are_all_seen() {
    run(async {
        const MANY: usize = 3_000;
        let proxy = Proxy::start(
            cluster(),
            "[pool]\nmax_size = 2\nprepared_statements = 50\nacquire_timeout = \"60s\"",
        )
        .await;
        let other = proxy.connect("app", "app").await;
        let mut clients = JoinSet::new();
        for _ in 0..2 {
            let mut raw = Raw::connect(proxy.port).await;
            clients.spawn(async move {
                let parses: Vec<u8> = (0..MANY)
                    .flat_map(|number| parse(&format!("s{number}"), &format!("select {number}")))
                    .collect();
                raw.send(&[parses, sync()].concat()).await;
                raw.until_ready(1).await;
                for (sql, expected) in [
                    ("deallocate s7", MANY - 1),
                    ("deallocate s8", MANY - 2),
                    ("prepare more as select 1", MANY - 1),
                ] {
                    raw.query(sql).await;
                    let frames = raw
                        .query("select count(*) from pg_prepared_statements")
                        .await;
                    let row = frames.iter().find(|frame| frame.tag == 'D').unwrap();
                    let expected = expected.to_string();
                    assert!(row.body.ends_with(expected.as_bytes()), "{row:?}");
                }
            });
        }
        while !clients.is_empty() {
            other.batch_execute("select 1").await.unwrap();
            if let Some(ended) = clients.try_join_next() {
                ended.unwrap();
            }
        }
    });
}
