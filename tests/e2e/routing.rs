//! Where each class of statement runs, from the nodes' own logs.

use tokio_postgres::Client;

use crate::support::{Cluster, Proxy, cluster, eventually, pgsplit, run, succeed, unique, version};

/// Where a statement is expected to run, and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Primary,
    Replica,
}
use Where::{Primary, Replica};

/// Runs each statement (`T` in it stands for `table`) and compares where each ran.
pub(crate) async fn check(
    cluster: &Cluster,
    client: &Client,
    table: &str,
    extended: bool,
    cases: &[(&str, Where)],
) {
    let mark = unique("class");
    let primary = cluster.primary();
    for (i, (sql, _)) in cases.iter().enumerate() {
        let sql = format!("{} /* {mark}{i}_ */", sql.replace("$T", table));
        // What a statement answers is not the matter here; that it isn't refused for running on
        // the wrong node is.
        let answer = if extended {
            client.query(&sql, &[]).await.map(drop)
        } else {
            client.simple_query(&sql).await.map(drop)
        };
        if let Err(error) = answer
            && !lacks_a_library(&error)
        {
            panic!("{sql}: {error:?}");
        }
    }
    let logs: Vec<String> = (0..cluster.nodes().len())
        .map(|node| cluster.statements(node, &mark).unwrap().join("\n"))
        .collect();
    let mut wrong = Vec::new();
    for (i, (sql, expected)) in cases.iter().enumerate() {
        let mark = format!("{mark}{i}_");
        let ran: Vec<usize> = (0..logs.len())
            .filter(|n| logs[*n].contains(&mark))
            .collect();
        let right = match expected {
            Primary => ran == [primary],
            Replica => ran.len() == 1 && ran != [primary],
        };
        if !right {
            wrong.push(format!("{sql}\n    expected {expected:?}, ran on {ran:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "extended: {extended}\n{}",
        wrong.join("\n")
    );
}

/// The server was built without what the statement needs.
fn lacks_a_library(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .and_then(tokio_postgres::error::DbError::detail)
        .is_some_and(|detail| detail.contains("requires the server to be built with"))
}

/// Waits until replicas have `table` and the proxy knows it: a table made a moment ago is unknown
/// until the catalogue has been read again, and is read on the primary meanwhile.
pub(crate) async fn settle(cluster: &Cluster, client: &Client, table: &str) {
    for replica in cluster.replicas() {
        cluster.wait_for_replay(replica).unwrap();
    }
    eventually("reads of the table run on replicas", async || {
        let mark = unique("settle");
        let sql = format!("select from {table} /* {mark} */");
        client.simple_query(&sql).await.unwrap();
        !cluster.ran_on(&mark).unwrap().contains(&cluster.primary())
    })
    .await;
}

const CLASSES: &[(&str, Where)] = &[
    ("select * from $T", Replica),
    (
        "select a, count(*) from $T where b > 1 group by a having count(*) > 0 order by a limit 5",
        Replica,
    ),
    ("values (1), (2)", Replica),
    ("table $T", Replica),
    (
        "with x as (select * from $T) select * from x join $T using (a)",
        Replica,
    ),
    (
        "with recursive r(n) as (values (1) union all select n + 1 from r where n < 5) select * from r",
        Replica,
    ),
    (
        "select now(), random(), clock_timestamp(), version(), current_user, current_database()",
        Replica,
    ),
    (
        "select upper('a') || lower('B'), coalesce(null, 1), greatest(1, 2), '2020-01-01'::date + 1",
        Replica,
    ),
    ("select * from information_schema.tables limit 1", Replica),
    (
        "select relname from pg_catalog.pg_class where relkind = 'r' limit 1",
        Replica,
    ),
    ("select 1 for read only", Replica),
    ("select 1 /* a /* nested */ comment */", Replica),
    ("select", Replica),
    ("explain select * from $T", Replica),
    ("explain (analyze, costs off) select * from $T", Replica),
    ("(select 1) union all (select 2) order by 1", Replica),
    ("select e'\\'; delete from nothing'", Replica),
    ("select $$delete$$ as \"insert\"", Replica),
    ("insert into $T values (10, 10)", Primary),
    ("insert into $T values (11, 11) returning a", Primary),
    ("update $T set b = b + 1 where a = 10", Primary),
    ("delete from $T where a = 11", Primary),
    (
        "merge into $T t using (values (10)) v(a) on t.a = v.a when matched then update set b = 0",
        Primary,
    ),
    (
        "with w as (insert into $T values (12, 12) returning a) select * from w",
        Primary,
    ),
    (
        "with w as (delete from $T where a = 12 returning *) select 1",
        Primary,
    ),
    ("select * from $T for update", Primary),
    ("select * from $T for no key update skip locked", Primary),
    ("select * from (select * from $T for share) x", Primary),
    ("select * into $T_copy from $T", Primary),
    ("create table $T_as as select * from $T", Primary),
    ("create index on $T (b)", Primary),
    ("alter table $T add column c int", Primary),
    ("comment on table $T is 'x'", Primary),
    ("truncate $T_as", Primary),
    ("drop table $T_as, $T_copy", Primary),
    ("vacuum $T", Primary),
    ("analyze $T", Primary),
    ("do $$ begin perform 1; end $$", Primary),
    ("checkpoint_is_not_a_statement", Primary),
    ("select pg_advisory_xact_lock(1)", Primary),
    ("select txid_current()", Primary),
    ("select pg_notify('c', 'x')", Primary),
    ("select set_config('a.b', '1', true)", Primary),
    ("select pg_backend_pid()", Primary),
    ("select pg_current_wal_lsn()", Primary),
    ("select * from pg_stat_activity limit 1", Primary),
    ("select count(*) from pg_locks", Primary),
    ("select name from pg_settings limit 1", Primary),
    ("explain analyze insert into $T (a) values (13)", Primary),
    ("select lo_create(0)", Primary),
];

#[test]
fn each_class_of_statement_runs_where_it_belongs() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let valid: Vec<_> = CLASSES
            .iter()
            .filter(|(sql, _)| *sql != "checkpoint_is_not_a_statement")
            .filter(|(sql, _)| version(cluster) >= 15 || !sql.starts_with("merge"))
            .copied()
            .collect();
        for extended in [false, true] {
            let table = unique("t");
            let setup = format!("create table {table} (a int, b int)");
            client.batch_execute(&setup).await.unwrap();
            settle(cluster, &client, &table).await;
            check(cluster, &client, &table, extended, &valid).await;
        }
    });
}

#[test]
fn a_text_of_several_statements_goes_where_the_strictest_must() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let table = unique("t");
        let setup = format!("create table {table} (a int, b int)");
        client.batch_execute(&setup).await.unwrap();
        settle(cluster, &client, &table).await;
        let cases = [
            ("select 1; select * from $T", Replica),
            ("select 1; insert into $T values (1)", Primary),
            ("select ';'; select 2", Replica),
        ];
        check(cluster, &client, &table, false, &cases).await;
    });
}

#[test]
fn what_does_not_parse_gets_the_error_of_the_primary() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let mark = unique("mark");
        let error = client
            .simple_query(&format!("selec 1 /* {mark} */"))
            .await
            .unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42601");
    });
}

#[test]
fn read_only_transactions_run_on_one_replica_and_others_on_the_primary() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        for (begin, expected) in [
            ("begin", Primary),
            ("begin read write", Primary),
            ("start transaction isolation level repeatable read", Primary),
            ("begin read only", Replica),
            (
                "start transaction read only, isolation level read committed",
                Replica,
            ),
            // What turns out to belong on the primary couldn't move there with its snapshot.
            (
                "start transaction read only, isolation level repeatable read",
                Primary,
            ),
            ("begin isolation level serializable read only", Primary),
            ("begin; set transaction read only", Replica),
        ] {
            proxy.wait_for_replica(cluster, &client).await;
            let mark = unique("mark");
            for begin in begin.split("; ") {
                client.batch_execute(begin).await.unwrap();
            }
            for _ in 0..3 {
                let sql = format!("select 1 /* {mark} */");
                client.simple_query(&sql).await.unwrap();
                client.query(&sql, &[]).await.unwrap();
            }
            client.batch_execute("commit").await.unwrap();
            let mut ran = cluster.ran_on(&mark).unwrap();
            assert_eq!(ran.len(), 6, "{begin}");
            ran.dedup();
            assert_eq!(ran.len(), 1, "{begin}: on several nodes");
            assert_eq!(ran == [0], expected == Primary, "{begin}: ran on {ran:?}");
        }
    });
}

#[test]
fn a_session_made_read_only_reads_in_transactions_on_replicas() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("set session characteristics as transaction read only")
            .await
            .unwrap();
        let mark = unique("mark");
        client
            .batch_execute(&format!("begin; select 1 /* {mark} */; commit"))
            .await
            .unwrap();
        proxy.wait_for_replica(cluster, &client).await;
        client.batch_execute("begin").await.unwrap();
        let other = unique("mark");
        client
            .simple_query(&format!("select 1 /* {other} */"))
            .await
            .unwrap();
        client.batch_execute("commit").await.unwrap();
        assert_ne!(cluster.ran_on(&other).unwrap(), [0]);
        // And PostgreSQL's own answer to a write there, not pgsplit's.
        let error = client.batch_execute("create table no (a int)").await;
        assert_eq!(error.unwrap_err().code().unwrap().code(), "25006");
    });
}

#[test]
fn begin_is_answered_before_a_server_is_taken() {
    run(async {
        let cluster = cluster();
        let proxy =
            Proxy::start(cluster, "[pool]\nmax_size = 1\nacquire_timeout = \"500ms\"").await;
        let (idle, busy) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        idle.batch_execute("begin").await.unwrap();
        // Would time out if the other's BEGIN held the only connection.
        busy.batch_execute("begin; create temp table x (a int) on commit drop; commit")
            .await
            .unwrap();
        let row = idle.query_one("select now() = statement_timestamp()", &[]);
        row.await.unwrap();
        idle.batch_execute("rollback").await.unwrap();
        // A transaction of no statements never reaches a server, and warns as PostgreSQL does.
        idle.batch_execute("begin; commit").await.unwrap();
        idle.batch_execute("begin").await.unwrap();
        idle.batch_execute("commit").await.unwrap();
    });
}

#[test]
fn hints_and_settings_override_the_decision() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        let ran = async |sql: &str| {
            let mark = unique("mark");
            let sql = format!("{sql} /* {mark} */");
            client.simple_query(&sql).await.unwrap();
            cluster.ran_on(&mark).unwrap()
        };
        let caught_up = || proxy.wait_for_replica(cluster, &client);
        assert_eq!(ran("/* pgsplit: primary */ select 1").await, [0]);
        caught_up().await;
        assert_ne!(ran("select 1").await, [0]);
        assert_ne!(
            ran("/* pgsplit: replica */ select count(*) from pg_locks").await,
            [0]
        );
        client
            .batch_execute("set pgsplit.route = 'primary'")
            .await
            .unwrap();
        assert_eq!(ran("select 1").await, [0]);
        // The hint in the statement is stronger, once a replica has caught up.
        eventually("the hint overrides the setting", async || {
            ran("/* pgsplit: replica */ select 1").await != [0]
        })
        .await;
        client
            .batch_execute("set pgsplit.route to auto")
            .await
            .unwrap();
        caught_up().await;
        assert_ne!(ran("select 1").await, [0]);
        client
            .batch_execute("set pgsplit.route = 'primary'")
            .await
            .unwrap();
        client.batch_execute("reset pgsplit.route").await.unwrap();
        caught_up().await;
        assert_ne!(ran("select 1").await, [0]);
        let error = client.batch_execute("set pgsplit.route = 'nowhere'").await;
        assert_eq!(error.unwrap_err().code().unwrap().code(), "22023");

        let mut config = proxy.config("app", "app");
        config.options("-c pgsplit.route=primary");
        let (opted, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mark = unique("mark");
        opted
            .simple_query(&format!("select 1 /* {mark} */"))
            .await
            .unwrap();
        assert_eq!(cluster.ran_on(&mark).unwrap(), [0]);
    });
}

#[test]
fn the_catalogue_decides_about_functions_and_views() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!(
                "create table {t} (a int, b int);
                 create function {t}volatile() returns int language sql volatile as 'select 1';
                 create function {t}stable() returns int language sql stable as 'select 1';
                 create function {t}fixed(int) returns int language sql immutable as 'select $1';
                 create function {t}mixed(int) returns int language sql immutable as 'select $1';
                 create function {t}mixed(text) returns int language sql volatile as 'select 1';
                 create view {t}plain as select a from {t};
                 create view {t}bad as select {t}volatile() as a;
                 create view {t}worse as select * from {t}bad;
                 create procedure {t}proc() language sql as 'select 1';
                 create sequence {t}seq;"
            ))
            .await
            .unwrap();
        let cases = [
            ("select $Tvolatile()", Primary),
            ("select $Tstable(), $Tfixed(2)", Replica),
            ("select $Tmixed(1)", Primary),
            ("select * from $Tplain", Replica),
            ("select * from $Tbad", Primary),
            ("select * from $Tworse", Primary),
            (
                "select a from $T where a in (select a from $Tworse)",
                Primary,
            ),
            ("call $Tproc()", Primary),
            ("select nextval('$Tseq')", Primary),
            ("select last_value from $Tseq", Primary),
        ];
        for extended in [false, true] {
            settle(cluster, &client, &t).await;
            check(cluster, &client, &t, extended, &cases).await;
        }
        // A change through the proxy is known to the next statement, whatever was cached.
        client
            .batch_execute(&format!(
                "create or replace function {t}stable() returns int language sql volatile as 'select 1'"
            ))
            .await
            .unwrap();
        check(
            cluster,
            &client,
            &t,
            false,
            &[("select $Tstable()", Primary)],
        )
        .await;
    });
}

#[test]
fn standby_questions_are_answered_as_the_primary_would() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let client = proxy.connect("app", "app").await;
        for _ in 0..4 {
            let row = client.query_one("select pg_is_in_recovery()", &[]).await;
            assert!(!row.unwrap().get::<_, bool>(0));
            let row = client.query_one("show transaction_read_only", &[]).await;
            assert_eq!(row.unwrap().get::<_, &str>(0), "off");
        }
        // libpq's way of finding a writable server.
        let mut psql = crate::support::program(cluster(), "psql");
        psql.arg(format!("{}?target_session_attrs=read-write", proxy.url()))
            .args(["-XAtc", "select 7"]);
        assert_eq!(succeed(&mut psql).trim(), "7");
    });
}

#[test]
fn shadow_mode_counts_what_a_replica_could_have_taken_and_sends_all_to_the_primary() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::launch(cluster, "[routing]\nmode = \"shadow\"").await;
        let client = proxy.connect("app", "app").await;
        let mark = unique("mark");
        for _ in 0..20 {
            let sql = format!("select 1 /* {mark} */");
            client.simple_query(&sql).await.unwrap();
        }
        assert_eq!(cluster.ran_on(&mark).unwrap(), [0; 20]);
        let counted = proxy.metric("pgsplit_primary_reads_total", &["reason=\"shadow\""]);
        assert!(counted > 0.0, "{:?}", proxy.get("/metrics"));
    });
}

#[test]
fn primary_mode_sends_reads_to_replicas_by_opt_in_only() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::launch(cluster, "[routing]\nmode = \"primary\"").await;
        let client = proxy.connect("app", "app").await;
        let mark = unique("mark");
        let sql = format!("select 1 /* {mark} */");
        client.simple_query(&sql).await.unwrap();
        assert_eq!(cluster.ran_on(&mark).unwrap(), [0]);
        client
            .batch_execute("set pgsplit.route = 'replica'")
            .await
            .unwrap();
        let mark = unique("mark");
        let sql = format!("select 1 /* {mark} */");
        client.simple_query(&sql).await.unwrap();
        assert_ne!(cluster.ran_on(&mark).unwrap(), [0]);
    });
}

#[test]
fn explain_says_class_route_and_reason() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for (sql, route, reason) in [
            ("select relname from pg_class", "replica", "read"),
            ("update pg_class set relname = 'x'", "primary", "write"),
            ("select nextval('x')", "primary", "function"),
        ] {
            let mut explain = pgsplit();
            explain
                .args(["explain", "--json", "--config"])
                .arg(proxy.dir.path().join("pgsplit.toml"))
                .arg(sql);
            let text = succeed(&mut explain);
            let found: serde_json::Value = serde_json::from_str(&text).unwrap();
            for key in ["class", "route", "reason", "tables", "functions"] {
                assert!(found.get(key).is_some(), "{key} is missing in {text}");
            }
            assert!(found["route"].to_string().contains(route), "{sql}: {text}");
            assert_eq!(found["reason"], reason, "{sql}: {text}");
        }
    });
}
