//! Reads that aren't: statements that a replica would carry out silently, with an effect or with
//! an answer of its own.

use crate::{
    routing::{
        Where::{Primary, Replica},
        check, settle,
    },
    support::{Proxy, cluster, own_cluster, run, unique},
};

#[test]
fn functions_without_a_call_in_sight_are_seen() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!(
                "create function {t}vol(int) returns int language plpgsql volatile as 'begin return $1; end';
                 create function {t}vop(int, int) returns bool language plpgsql volatile as 'begin return true; end';
                 create operator public.=== (leftarg = int, rightarg = int, function = {t}vop);
                 create table {t} (a int, b int);
                 insert into {t} values (1, 2);
                 create function {t}attr({t}) returns int language plpgsql volatile as 'begin return 1; end';
                 create type {t}pair as (x int, y int);
                 create function {t}cast(int) returns {t}pair language plpgsql volatile as 'begin return row(1, 2); end';
                 create cast (int as {t}pair) with function {t}cast(int);
                 create function {t}sum(int, int) returns int language plpgsql volatile as 'begin return $1; end';
                 create aggregate {t}agg(int) (sfunc = {t}sum, stype = int, initcond = '0');
                 create domain {t}dom as int check ({t}vol(value) > 0);
                 create function {t}default(x int default {t}vol(1)) returns int language sql immutable as 'select 1';
                 create table {t}rls (a int);
                 alter table {t}rls enable row level security, force row level security;
                 create policy p on {t}rls using ({t}vol(a) > 0);
                 create unlogged table {t}fast (a int);
                 create sequence {t}seq;
                 create schema {t}sch;
                 create function {t}sch.abs(int) returns int language plpgsql volatile as 'begin return 1; end';"
            ))
            .await
            .unwrap();
        let cases = [
            ("select * from $T where a === 1", Primary),
            ("select * from $T where a operator(public.===) 1", Primary),
            ("select ($T).$Tattr from $T", Primary),
            ("select x.$Tattr from $T x", Primary),
            ("select 1::$Tpair", Primary),
            ("select cast(a as $Tpair) from $T", Primary),
            ("select $Tagg(a) from $T", Primary),
            ("select $Tagg(a) over (order by b) from $T", Primary),
            ("select 1::$Tdom", Primary),
            ("select $Tdefault()", Primary),
            ("select * from $Trls", Primary),
            ("select * from $Tfast", Primary),
            ("select * from $Tseq", Primary),
            ("select * from pg_sequences limit 1", Primary),
            ("select pg_sequence_last_value('$Tseq')", Primary),
            ("select \"$Tvol\"(1)", Primary),
            ("select public . $Tvol (1)", Primary),
            (
                "select U&\"\\0024Tvol\"(1) from (select 1) x where false",
                Primary,
            ),
            ("select a from $T where exists (select $Tvol(1))", Primary),
            ("select a from $T order by $Tvol(a)", Primary),
            ("select a from $T limit $Tvol(1)", Primary),
            ("select * from $T x, lateral (select $Tvol(x.a)) y", Primary),
            ("select * from $T join $T z on $Tvol(z.a) = z.a", Primary),
            ("select * from $Tvol(1)", Primary),
            ("select case when $Tvol(1) > 0 then 1 end", Primary),
            ("select array[$Tvol(1)]", Primary),
            ("select 1 as x group by $Tvol(1)", Primary),
            ("select sum(a) filter (where $Tvol(a) > 0) from $T", Primary),
            ("values ($Tvol(1))", Primary),
            ("explain select $Tvol(1)", Primary),
            ("select 'a' -- comment\n 'b'", Replica),
            ("select 1 -- comment\r, $Tvol(1)", Primary),
            ("select /* /* */ */ $Tvol(1)", Primary),
            ("select $$ x $$, $q$ $Tvol(1) $q$", Replica),
            ("select inet_server_port()", Primary),
            ("select pg_postmaster_start_time()", Primary),
            ("select current_setting('cluster_name')", Primary),
            ("show cluster_name", Primary),
            ("select pg_stat_get_numscans(0)", Primary),
            ("select pg_relation_size('$T')", Primary),
            ("select pg_database_size(current_database())", Primary),
            ("select pg_current_xact_id_if_assigned()", Primary),
            ("select pg_try_advisory_xact_lock(1)", Primary),
            ("select pg_export_snapshot()", Primary),
            (
                "select query_to_xml('select $Tvol(1)', true, true, '')",
                Primary,
            ),
            ("select pg_cancel_backend(0)", Primary),
            ("select count(*) from pg_stat_database", Primary),
            ("select count(*) from pg_prepared_statements", Primary),
            ("select count(*) from pg_stat_user_tables", Primary),
        ];
        // U&"\0024Tvol" names no function after the table's name is filled in: make it do so.
        let escaped = format!("select U&\"\\{:04x}{}vol\"(1)", t.as_bytes()[0], &t[1..]);
        let cases: Vec<_> = cases
            .iter()
            .map(|(sql, to)| {
                if sql.contains("U&") {
                    (escaped.as_str(), *to)
                } else {
                    (*sql, *to)
                }
            })
            .collect();
        for extended in [false, true] {
            settle(cluster, &client, &t).await;
            check(cluster, &client, &t, extended, &cases).await;
        }
        // It keeps the session on its connection from then on.
        for extended in [false, true] {
            let seeded = proxy.connect("app", "app").await;
            let case = ("select setseed(0.5)", Primary);
            check(cluster, &seeded, &t, extended, &[case]).await;
        }
        // A function in a schema that the session's search path puts before the built-in ones.
        client
            .batch_execute(&format!("set search_path = {t}sch, pg_catalog, public"))
            .await
            .unwrap();
        check(cluster, &client, &t, false, &[("select abs(1)", Primary)]).await;
        client.batch_execute("reset search_path").await.unwrap();
    });
}

#[test]
fn statements_that_a_replica_carries_out_silently_run_on_the_primary() {
    run(async {
        let cluster = own_cluster(1);
        cluster
            .psql(
                0,
                "alter role app superuser; create procedure p() language sql as 'select 1'",
            )
            .unwrap();
        cluster.psql(0, "create table t (a int)").unwrap();
        cluster.wait_for_replay(1).unwrap();
        let proxy = Proxy::start(&cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let cases = [
            ("checkpoint", Primary),
            ("alter system set work_mem = '5MB'", Primary),
            ("select pg_reload_conf()", Primary),
            ("select pg_create_physical_replication_slot('s')", Primary),
            ("select pg_drop_replication_slot('s')", Primary),
            ("copy (select 1) to program 'cat >/dev/null'", Primary),
            ("load 'plpgsql'", Primary),
            ("do $$ begin perform 1; end $$", Primary),
            ("call p()", Primary),
            ("select pg_stat_reset()", Primary),
            (
                "select pg_log_backend_memory_contexts(pg_backend_pid())",
                Primary,
            ),
            ("select pg_ls_dir('.') limit 1", Primary),
            ("select pg_read_file('PG_VERSION')", Primary),
            ("select pg_switch_wal()", Primary),
            ("select pg_rotate_logfile()", Primary),
        ];
        check(&cluster, &client, "t", false, &cases).await;
        let mark = unique("mark");
        client
            .batch_execute(&format!(
                "begin; lock table t in row share mode /* {mark} */; commit"
            ))
            .await
            .unwrap();
        assert_eq!(cluster.ran_on(&mark).unwrap(), [0]);
    });
}

#[test]
fn a_temporary_table_that_hides_a_permanent_one_is_read_where_it_is() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let (client, other) = (
            proxy.connect("app", "app").await,
            proxy.connect("app", "app").await,
        );
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} as select 1 as a"))
            .await
            .unwrap();
        settle(cluster, &client, &t).await;
        client
            .batch_execute(&format!("create temp table {t} as select 2 as a"))
            .await
            .unwrap();
        let read = format!("select a from {t}");
        for _ in 0..5 {
            assert_eq!(
                client.query_one(&read, &[]).await.unwrap().get::<_, i32>(0),
                2
            );
            assert_eq!(
                other.query_one(&read, &[]).await.unwrap().get::<_, i32>(0),
                1
            );
        }
        client
            .batch_execute(&format!("drop table pg_temp.{t}"))
            .await
            .unwrap();
        assert_eq!(
            client.query_one(&read, &[]).await.unwrap().get::<_, i32>(0),
            1
        );
    });
}

#[test]
fn plain_reads_in_unusual_dress_are_offloaded() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "[routing]\nconsistency = \"eventual\"").await;
        let client = proxy.connect("app", "app").await;
        let t = unique("t");
        client
            .batch_execute(&format!("create table {t} (a int, \"order\" text)"))
            .await
            .unwrap();
        let list: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        let long = format!("select * from {t} where a in ({})", list.join(","));
        let deep = format!("select {}1{}", "(".repeat(500), ")".repeat(500));
        let cases = [
            (long.as_str(), Replica),
            (deep.as_str(), Replica),
            (
                "select a as value, \"order\" as user_name from only $T as t",
                Replica,
            ),
            ("select a value from $T", Replica),
            ("select t.* from $T t tablesample system (10)", Replica),
            (
                "select distinct on (a) a, \"order\" from $T order by a, \"order\" desc nulls last",
                Replica,
            ),
            (
                "select a, row_number() over w from $T window w as (partition by \"order\" order by a rows between 1 preceding and current row)",
                Replica,
            ),
            (
                "select percentile_cont(0.5) within group (order by a) from $T",
                Replica,
            ),
            ("select * from $T fetch first 3 rows with ties", Replica),
            (
                "select * from $T order by a fetch first 3 rows with ties",
                Replica,
            ),
            (
                "select '{\"a\": 1}'::jsonb -> 'a', '{\"a\": 1}'::jsonb @> '{}', '[1,2]'::jsonb #>> '{0}'",
                Replica,
            ),
            (
                "select (array[1,2,3])[1:2], (array[1,2])[1], 1 = any(array[1,2])",
                Replica,
            ),
            (
                "select * from unnest(array[1,2], array['a','b']) with ordinality as u(a, b, n)",
                Replica,
            ),
            (
                "select * from rows from (generate_series(1,2), generate_series(1,3)) x(a, b)",
                Replica,
            ),
            (
                "select interval '1 day' * 2, date '2020-01-01', timestamp with time zone '2020-01-01 00:00+00'",
                Replica,
            ),
            (
                "select extract(epoch from now()), now() at time zone 'utc', current_date",
                Replica,
            ),
            (
                "select a from $T group by grouping sets ((a), ()), rollup (a)",
                Replica,
            ),
            (
                "select a ~ 1 from (select ''::text a) x where a similar to 'x' or a ilike '%y%' escape '!'",
                Replica,
            ),
            (
                "select x.a from $T x natural join $T y cross join lateral (select 1) z",
                Replica,
            ),
            (
                "select count(*) filter (where a > 0), string_agg(\"order\", ',' order by a), bool_and(true) from $T",
                Replica,
            ),
            ("select (row(1, 2)).f1, row(1,2) < row(1,3)", Replica),
            (
                "select overlay('abc' placing 'x' from 2), substring('abc' from 1 for 2), trim(both 'x' from 'xax'), position('a' in 'ba')",
                Replica,
            ),
            (
                "select '\\x00'::bytea, b'101', x'1f', 1e10, .5, 1_000",
                Replica,
            ),
        ];
        let sixteen = cluster.psql(0, "show server_version_num").unwrap().as_str() >= "160000";
        let cases: Vec<_> = cases
            .iter()
            .filter(|(sql, _)| sixteen || !sql.contains("1_000"))
            .filter(|(sql, _)| {
                !sql.contains("a ~ 1") && *sql != "select * from $T fetch first 3 rows with ties"
            })
            .copied()
            .collect();
        for extended in [false, true] {
            settle(cluster, &client, &t).await;
            check(cluster, &client, &t, extended, &cases).await;
        }
    });
}
