//! What one session leaves behind is never seen by the next.
//!
//! Random sessions, each from a seed that a failure names, do what leaves state and end in any way;
//! after each the next one on the same server connection must find it as if nobody had been there.
//! `PGSPLIT_TEST_SESSIONS` says how many, `PGSPLIT_TEST_SEED` with which to begin.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Proxy, Raw, cluster, message, run, tags, unique};

/// What a session could find of another one: what it is called, and how to ask for it.
const TRACES: &[(&str, &str)] = &[
    (
        "settings",
        "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings \
         where source = 'session'",
    ),
    (
        "identity",
        "select current_user || ' ' || session_user || ' ' || current_setting('role')",
    ),
    // A backend that has had temporary objects keeps their schema, empty.
    (
        "search path",
        "select string_agg(s, ' ') from unnest(current_schemas(true)) s where s not like 'pg\\_temp%'",
    ),
    (
        "prefix",
        "select coalesce(current_setting('app.tenant', true), '') \
         || coalesce(current_setting('app.other', true), '')",
    ),
    (
        "locks",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ),
    ("channels", "select count(*) from pg_listening_channels()"),
    (
        "cursors",
        "select count(*) from pg_cursors where name <> ''",
    ),
    (
        "prepared",
        "select string_agg(name, ' ') from pg_prepared_statements",
    ),
    (
        "temporary objects",
        "select count(*) from pg_class where relnamespace = pg_my_temp_schema()",
    ),
    (
        "transaction",
        "select transaction_timestamp() = statement_timestamp()",
    ),
    ("lastval", "select lastval()"),
    ("currval", "select currval('{s}')"),
    ("executed", "execute st"),
    ("fetched", "fetch hold"),
];

/// What sessions do; `|` separates what is sent apart.
const DEEDS: &[&str] = &[
    "set work_mem = '1MB'",
    "set datestyle = 'German'; set timezone = 'Asia/Tokyo'",
    "set search_path = pg_catalog",
    "set application_name = 'left behind'",
    "set role {r}",
    "set app.tenant = 'secret'",
    "select set_config('app.tenant', 'secret', false)",
    "select set_config('work_mem', '2MB', false), set_config('app.other', 'secret', false)",
    "do $$ begin perform set_config('app.other', 'secret', false); set enable_seqscan = off; end $$",
    "select {f}('app.other', 'secret')",
    "select {f}('statement_timeout', '12345')",
    "begin|set local app.tenant = 'secret'|set local work_mem = '3MB'|commit",
    "begin|set work_mem = '3MB'|set role {r}|rollback",
    "begin|savepoint a|set work_mem = '3MB'|select 1/0|rollback to a|set app.tenant = 'x'|commit",
    "set work_mem = '3MB'; select 1/0",
    "set session characteristics as transaction read only|select 1",
    "create temp table tt (a int)|insert into tt values (1)",
    "begin|create temp table tt (a int) on commit drop|commit",
    "select pg_advisory_lock(11)",
    "select pg_try_advisory_lock_shared(12), pg_advisory_lock(13)",
    "begin|select pg_advisory_xact_lock(14)|commit",
    "listen leak",
    "listen leak|unlisten *",
    "prepare st as select 'leaked'",
    "prepare st as select 'leaked'|execute st|deallocate st",
    "prepare st as select {f}('app.other', 'secret'); execute st",
    "prepare st as select {f}('work_mem', '2MB')|execute st; select 1",
    "prepare st as select pg_advisory_lock(15)|begin; execute st; commit",
    "do $$ begin execute 'prepare st as select 1'; end $$",
    "begin|declare hold cursor with hold for select generate_series(1, 9)|commit|fetch hold",
    "begin|declare part cursor for select generate_series(1, 9)|fetch part",
    "select nextval('{s}')",
    "select nextval('{s}')|select currval('{s}')|select lastval()",
    "begin|select nextval('{s}')",
    "begin|insert into {t} values (1)",
    "begin|select 1/0",
    "insert into {t} values (2)",
    "select 1/0",
    "select 1",
    "reset all",
    "discard all",
    "discard temp",
    "deallocate all",
    "reset role",
    "select pg_advisory_unlock_all()",
    "close all",
];

/// Always the same numbers for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

struct Names(Vec<(&'static str, String)>);

impl Names {
    fn put_into(&self, sql: &str) -> String {
        self.0.iter().fold(sql.to_owned(), |sql, (place, name)| {
            sql.replace(place, name)
        })
    }
}

async fn traces(client: &Client, names: &Names) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for (what, sql) in TRACES {
        let answer = client.simple_query(&names.put_into(sql)).await;
        let answer = match answer {
            Ok(messages) => messages
                .iter()
                .find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                    _ => None,
                })
                .unwrap_or_default(),
            Err(error) => error
                .code()
                .map_or_else(|| error.to_string(), |code| code.code().into()),
        };
        found.insert(*what, answer);
    }
    found
}

#[test]
fn nothing_of_a_session_is_seen_by_the_next() {
    let number = |name, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().expect(name))
    };
    let sessions = number("PGSPLIT_TEST_SESSIONS", 60);
    let first = number("PGSPLIT_TEST_SEED", 1);
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let names = Names(
            [("{s}", "s"), ("{t}", "t"), ("{f}", "f"), ("{r}", "r")]
                .map(|(place, name)| (place, unique(name)))
                .into(),
        );
        let role =
            names.put_into("create role {r}; grant {r} to app; grant all on schema public to {r}");
        cluster().psql(0, &role).unwrap();
        let owner = proxy.connect("app", "app").await;
        let objects = "create sequence {s}; create table {t} (a int); \
            grant all on {s}, {t} to {r}; \
            create function {f}(n text, v text) returns void language plpgsql as \
            $$ begin perform set_config(n, v, false); end $$";
        owner.batch_execute(&names.put_into(objects)).await.unwrap();
        drop(owner);
        let clean = {
            let client = proxy.connect("app", "app").await;
            traces(&client, &names).await
        };
        for seed in first..first + sessions {
            let mut dice = Dice(seed);
            let mut done = Vec::new();
            {
                let client = proxy.connect("app", "app").await;
                for _ in 0..=dice.roll(5) {
                    let deed = DEEDS[dice.roll(DEEDS.len())];
                    done.push(deed);
                    for sql in names.put_into(deed).split('|') {
                        // Errors are part of life.
                        if dice.roll(3) == 0 {
                            let _answer = client.query(sql, &[]).await;
                        } else {
                            let _answer = client.batch_execute(sql).await;
                        }
                    }
                }
            }
            let next = proxy.connect("app", "app").await;
            let found = traces(&next, &names).await;
            assert_eq!(found, clean, "seed {seed}: {done:?}");
        }
    });
}

/// What makes a table's writes set something off, and a write that does; `{d}` is where it is written,
/// `{e}` where it happens, `{f}` a trigger's function that touches the session.
const SET_OFF: &[(&str, &str)] = &[
    (
        "create table {d} (a int) partition by range (a); create table {e} partition of {d} default; \
         create trigger g before insert on {e} for each row execute function {f}()",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int); create table {e} () inherits ({d}); insert into {e} values (1); \
         create trigger g before update on {e} for each row execute function {f}()",
        "update {d} set a = 2",
    ),
    (
        "create table {d} (a int primary key); create table {e} (a int references {d} on delete cascade); \
         insert into {d} values (1); insert into {e} values (1); \
         create trigger g after delete on {e} for each row execute function {f}()",
        "delete from {d}",
    ),
    (
        "create table {e} (a int); create view {e}_v as select * from {e}; \
         create view {d} as select * from {e}_v; \
         create trigger g before insert on {e} for each row execute function {f}()",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int); create table {e} (a int); \
         create rule r as on insert to {d} do also insert into {e} values (new.a); \
         create trigger g before insert on {e} for each row execute function {f}()",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int, b text default set_config('work_mem', '77MB', false))",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int check (set_config('work_mem', a || 'MB', false) <> ''))",
        "insert into {d} values (77)",
    ),
    (
        "create function {e}() returns bool language plpgsql as \
         $$ begin perform set_config('work_mem', '77MB', false); return false; end $$; \
         create table {d} (a int); create function {e}_n() returns trigger language plpgsql as \
         $$ begin return new; end $$; \
         create trigger g before insert on {d} for each row when ({e}()) execute function {e}_n()",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int); alter table {d} enable row level security; \
         alter table {d} force row level security; \
         create policy p on {d} with check (set_config('work_mem', '77MB', false) <> '')",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int); create trigger g before insert on {d} for each row execute function {f}()",
        "with x as (insert into {d} values (1) returning a) select * from x",
    ),
    (
        "create table {d} (a int); create trigger g before insert on {d} for each row execute function {f}()",
        "explain (analyze) with x as (insert into {d} values (1) returning a) select * from x",
    ),
    (
        "create table {d} (a int); create trigger g before insert on {d} for each row execute function {f}()",
        "prepare {e} as with x as (insert into {d} values (1) returning a) select * from x; execute {e}",
    ),
    (
        "create table {e} (a int); create trigger g before insert on {e} for each row execute function {f}(); \
         create function {e}_w() returns int language sql as 'insert into {e} values (1); select 1'; \
         create view {d} as select {e}_w()",
        "select * from {d}",
    ),
    (
        "create table {e} (a int); create trigger g before insert on {e} for each row execute function {f}(); \
         create function {e}_w() returns int begin atomic insert into {e} values (1); select 1; end; \
         create table {d} (a int default {e}_w(), b int)",
        "insert into {d} (b) values (1)",
    ),
    (
        "create function {e}() returns text language plpgsql as \
         $$ begin perform set_config('work_mem', '77MB', false); return 'x'; end $$; \
         create domain {e}_d as text default {e}(); create table {d} (a int, b {e}_d)",
        "insert into {d} (a) values (1)",
    ),
    (
        "create function {e}(int) returns int immutable language plpgsql as \
         $$ begin perform set_config('work_mem', '77MB', false); return $1; end $$; \
         create table {d} (a int); create index on {d} ({e}(a))",
        "insert into {d} values (1)",
    ),
    (
        "create table {d} (a int)",
        "update pg_settings set setting = '77MB' where name = 'work_mem'",
    ),
];

#[test]
fn what_a_write_sets_off_is_its_sessions_and_nobody_elses() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let work_mem = async |client: &Client| {
            let sql = "/* pgsplit: primary */ select current_setting('work_mem')";
            let row = client.query_one(sql, &[]).await.unwrap();
            row.get::<_, String>(0)
        };
        for (setup, write) in SET_OFF {
            let names = Names(
                [("{d}", "d"), ("{e}", "e"), ("{f}", "f")]
                    .map(|(place, name)| (place, unique(name)))
                    .into(),
            );
            let function = "create function {f}() returns trigger language plpgsql as \
                $$ begin perform set_config('work_mem', '77MB', false); \
                return coalesce(new, old); end $$;";
            let owner = proxy.connect("app", "app").await;
            let setup = names.put_into(&format!("{function} {setup}"));
            owner.batch_execute(&setup).await.unwrap();
            // What has just been made is known.
            proxy
                .wait_for_route("app", "select current_setting('app.x', true)")
                .await;
            let before = work_mem(&owner).await;
            drop(owner);
            let client = proxy.connect("app", "app").await;
            let write = names.put_into(write);
            let _rows = client.simple_query(&write).await.unwrap();
            let other = proxy.connect("app", "app").await;
            assert_eq!(work_mem(&other).await, before, "{setup}: {write}");
            assert_eq!(work_mem(&client).await, "77MB", "{setup}: {write}");
        }
    });
}

/// A portal that is executed by another request than the one that made it; a function that is called by
/// its number.
#[test]
fn what_no_text_of_the_request_tells_is_its_sessions() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let set = "select set_config('work_mem', '77MB', false)";
        let scripts: [&[Vec<u8>]; 5] = [
            &[
                message::query("begin"),
                [
                    message::parse("", "set work_mem = '77MB'"),
                    message::bind("pp", "", &[]),
                    message::sync(),
                ]
                .concat(),
                [message::execute("pp", 0), message::sync()].concat(),
                message::query("commit"),
            ],
            &[
                [
                    message::parse("", set),
                    message::bind("", "", &[]),
                    message::flush(),
                ]
                .concat(),
                [message::execute("", 0), message::sync()].concat(),
            ],
            &[
                message::query("begin"),
                [
                    message::parse("", set),
                    message::bind("pp", "", &[]),
                    message::sync(),
                ]
                .concat(),
                [message::execute("pp", 1), message::sync()].concat(),
                [message::execute("pp", 1), message::sync()].concat(),
                message::query("commit"),
            ],
            &[
                message::query("begin"),
                message::query("set work_mem = '77MB'"),
                [
                    message::parse("", "commit"),
                    message::bind("pp", "", &[]),
                    message::sync(),
                ]
                .concat(),
                [message::execute("pp", 0), message::sync()].concat(),
            ],
            // set_config, whose oid is 2078 in every version.
            &[message::function_call(2078, &["work_mem", "77MB", "f"])],
        ];
        for (number, script) in scripts.into_iter().enumerate() {
            let mut raw = Raw::connect(proxy.port).await;
            for bytes in script {
                raw.send(bytes).await;
                if bytes.ends_with(&message::flush()) {
                    while raw.frame().await.tag != '2' {}
                } else {
                    let answer = raw.until_ready(1).await;
                    assert!(!tags(&answer).contains('E'), "{number}: {answer:?}");
                }
            }
            let other = proxy.connect("app", "app").await;
            for _ in 0..2 {
                let row = other.query_one("show work_mem", &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), "4MB", "{number}");
                let rows = raw.query("show work_mem").await;
                let row = rows.iter().find(|frame| frame.tag == 'D').unwrap();
                assert_eq!(&row.body[6..], b"77MB", "{number}");
            }
        }
    });
}

#[test]
fn whatever_is_made_in_the_temporary_schema_is_its_sessions() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        for (make, uses, drop) in [
            (
                "create function pg_temp.f() returns text language sql as $$ select 'of a' $$",
                "select pg_temp.f()",
                "drop function pg_temp.f()",
            ),
            (
                "create type pg_temp.e as enum ('a')",
                "select 'a'::pg_temp.e",
                "drop type pg_temp.e",
            ),
            (
                "create domain pg_temp.d as int",
                "select 1::pg_temp.d",
                "drop domain pg_temp.d",
            ),
            (
                "create temp table tt (a int)",
                "select count(*) from pg_temp.tt",
                "drop table tt",
            ),
            (
                "do $x$ begin create function pg_temp.g() returns int language sql as 'select 1'; end $x$",
                "select pg_temp.g()",
                "drop function pg_temp.g()",
            ),
        ] {
            let client = proxy.connect("app", "app").await;
            client.batch_execute(make).await.unwrap();
            client.simple_query(uses).await.expect(uses);
            client.batch_execute(drop).await.unwrap();
            // It binds no longer: another one has the only connection.
            let other = proxy.connect("app", "app").await;
            let write = "/* pgsplit: primary */ select 1";
            other.simple_query(write).await.expect(make);
            client.batch_execute(make).await.unwrap();
            std::mem::drop(client);
            assert!(other.simple_query(uses).await.is_err(), "{make}");
        }
    });
}
