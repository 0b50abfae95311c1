//! Scripts that are run each time: those that once were answered otherwise than by the primary, and
//! what sessions do, in either protocol.

use super::script::Message::{self, *};

fn parse(name: &str, sql: &str) -> Message {
    Parse(name.to_owned(), sql.to_owned())
}

fn bind(portal: &str, statement: &str, values: &[&str]) -> Message {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Bind(portal.to_owned(), statement.to_owned(), values)
}

fn describe(name: &str) -> Message {
    Describe('S', name.to_owned())
}

fn close(name: &str) -> Message {
    Close('S', name.to_owned())
}

fn execute(portal: &str) -> Message {
    Execute(portal.to_owned(), 0)
}

/// A name that servers don't tell from another's.
fn long(end: &str) -> String {
    format!("{}{end}", "long_".repeat(13))
}

fn query(sql: &str) -> Message {
    Query(sql.to_owned())
}

fn copy_data(line: &str) -> Message {
    CopyData(line.to_owned())
}

/// What once was answered otherwise, and what was wrong.
pub(super) fn mended() -> Vec<(&'static str, Vec<Message>)> {
    vec![
        (
            "an error gave the statement's name on the servers",
            vec![parse("s", "select 1"), bind("", "s", &["1"]), Sync],
        ),
        (
            "a reset left the statement that had made it",
            vec![
                parse("s", "discard all"),
                bind("p", "s", &[]),
                execute("p"),
                Sync,
                Wait,
                bind("", "s", &[]),
                Sync,
                Wait,
                parse("s", "deallocate all"),
                bind("", "s", &[]),
                execute(""),
                Sync,
                bind("", "s", &[]),
                Sync,
            ],
        ),
        (
            "a Bind before a Parse in the same request met the later statement",
            vec![
                parse("", "select 1"),
                Sync,
                Wait,
                bind("", "", &[]),
                execute(""),
                parse("", "select 2"),
                bind("", "", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "a Bind before a Close in the same request met no statement",
            vec![
                parse("", "select 1"),
                Sync,
                Wait,
                describe(""),
                bind("", "", &[]),
                execute(""),
                close(""),
                Sync,
                bind("", "", &[]),
                Sync,
            ],
        ),
        (
            "an unnamed Parse that an error skipped counted",
            vec![
                parse("", "select 1"),
                Sync,
                execute("none"),
                parse("", "select 2"),
                Sync,
                bind("", "", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "a Parse of a taken name took the unnamed statement along",
            vec![
                parse("s", "select 1"),
                parse("", "select 2"),
                parse("s", "select 3"),
                Sync,
                bind("", "", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "DISCARD ALL in the extended protocol took the unnamed statement along",
            vec![
                parse("s", "discard all"),
                parse("", "select 2"),
                bind("", "s", &[]),
                execute(""),
                Sync,
                bind("", "", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "DISCARD ALL forgot what is prepared behind it in the same request",
            vec![
                parse("d", "discard all"),
                bind("", "d", &[]),
                execute(""),
                parse("s", "select 1"),
                Sync,
                bind("", "s", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "an error behind DISCARD ALL gave the statement's name on the servers",
            vec![
                parse("s", "discard all"),
                bind("p", "s", &[]),
                execute("p"),
                bind("", "s", &[]),
                Sync,
            ],
        ),
        (
            "a name that a Parse found taken behind DISCARD ALL was left for the next session",
            vec![
                parse("d", "discard all"),
                bind("", "d", &[]),
                execute(""),
                parse("s", "select 2"),
                parse("s", "select 3"),
                Sync,
                Wait,
                close("s"),
                Sync,
                Wait,
                bind("", "s", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "a Parse in a failed transaction was acknowledged when the statement was there",
            vec![
                parse("s", "select 1"),
                Sync,
                query("begin; select 1 / 0"),
                parse("r", "select 1"),
                Sync,
                bind("", "r", &[]),
                Sync,
            ],
        ),
        (
            "a Query behind an error was carried out when it mentioned prepared statements",
            vec![
                parse("s", "select 1"),
                parse("s", "select 2"),
                query("select name from pg_prepared_statements where from_sql"),
                Sync,
            ],
        ),
        (
            "names of a request's end were brought at its beginning",
            vec![
                parse("", "select name from pg_prepared_statements where from_sql"),
                parse("s", "selec"),
                Sync,
            ],
        ),
        (
            "a replica that refused before a Sync was left in a failed transaction, for the next one",
            vec![
                query("begin read only"),
                query("select 1"),
                parse("", "select * from nowhere"),
                Flush,
                Wait,
                Sync,
                query("rollback"),
                query("select count(*) from t"),
                query("select 2"),
                query("select 3"),
            ],
        ),
        (
            "an unnamed statement that an error left in place was parsed again in a failed transaction",
            vec![
                query("begin"),
                parse("", "copy nowhere from stdin"),
                execute("none"),
                Flush,
                parse("", "select 1"),
                Sync,
                describe(""),
                Sync,
                bind("", "", &["1"]),
                Sync,
            ],
        ),
        (
            "names that differ only behind their 63rd byte were two",
            vec![
                parse(&long("a"), "select 1"),
                Sync,
                parse(&long("b"), "select 2"),
                Sync,
                bind("", &long("c"), &[]),
                execute(""),
                Sync,
                query(&format!("execute {}", long("d"))),
                query("select name from pg_prepared_statements"),
                close(&long("e")),
                parse(&long("f"), "select 3"),
                bind("", &long("a"), &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "a Sync within a copy that failed went unanswered",
            vec![
                parse("", "copy t from stdin"),
                bind("", "", &[]),
                execute(""),
                copy_data("x\ty\n"),
                CopyDone,
                Sync,
                query("select 1"),
            ],
        ),
        (
            "a statement that is there was parsed again in a failed transaction",
            vec![
                query("begin"),
                parse("s", "select 1"),
                execute("none"),
                Sync,
                describe("s"),
                Sync,
            ],
        ),
        (
            "a Query within a COPY was answered with a lost connection",
            vec![query("copy t from stdin"), query("select 1")],
        ),
        (
            "so was an extended message",
            vec![
                parse("", "copy t from stdin"),
                bind("", "", &[]),
                execute(""),
                Describe('P', String::new()),
                Sync,
            ],
        ),
        (
            "a BEGIN behind messages without a Sync was opened on their replica",
            vec![
                parse("s", "close nothing"),
                query("begin"),
                query("insert into u (b) values ('x')"),
                query("copy u (b) from stdin"),
                copy_data("y\n"),
                CopyDone,
                query("commit"),
            ],
        ),
        (
            "a write behind a Flush couldn't follow a read on a replica",
            vec![
                parse("s", "select a from t order by a"),
                describe("s"),
                Flush,
                Wait,
                bind("", "s", &[]),
                execute(""),
                Flush,
                Wait,
                parse("", "insert into u (b) values ('x') returning b"),
                bind("", "", &[]),
                execute(""),
                Sync,
            ],
        ),
        (
            "a statement was read again under another date style",
            vec![
                parse("s", "select date '01/02/2026'"),
                Sync,
                query("prepare q as select date '01/02/2026'"),
                query("set datestyle to dmy"),
                Wait,
                bind("", "s", &[]),
                execute(""),
                Sync,
                query("execute q"),
                query("begin"),
                query("set local datestyle to ymd"),
                bind("", "s", &[]),
                execute(""),
                Sync,
                query("execute q"),
                parse("r", "select date '01/02/03'"),
                Sync,
                query("show datestyle"),
                query("commit"),
                Wait,
                bind("", "r", &[]),
                execute(""),
                Sync,
                parse("u", "select date '01/02/2026'"),
                bind("", "u", &[]),
                execute(""),
                Sync,
                query("deallocate r"),
            ],
        ),
        (
            "what was only parsed was kept from a transaction that can't leave its replica",
            vec![
                parse("s", "begin read only"),
                bind("p", "s", &[]),
                Execute("p".to_owned(), 50),
                Sync,
                parse("r", "commit and chain"),
                parse("", "begin isolation level repeatable read"),
                parse("w", "insert into u (b) values ('x')"),
                describe("w"),
                Sync,
                query("rollback"),
            ],
        ),
        (
            "a statement behind a SET in its request was taken for one read as before",
            vec![
                parse("", "set datestyle to dmy"),
                bind("", "", &[]),
                execute(""),
                parse("s", "select date '01/02/2026'"),
                Sync,
                query("reset datestyle"),
                Wait,
                parse("r", "select date '01/02/2026'"),
                bind("", "r", &[]),
                execute(""),
                Sync,
            ],
        ),
    ]
}

/// Statements of sessions. Each list is run as simple Queries, in the extended protocol, and in the
/// extended protocol as one pipeline.
const SESSIONS: &[&[&str]] = &[
    // Settings.
    &[
        "set work_mem = '1MB'",
        "show work_mem",
        "begin",
        "set work_mem = '2MB'",
        "savepoint s",
        "set local work_mem = '3MB'",
        "show work_mem",
        "rollback to s",
        "show work_mem",
        "rollback",
        "show work_mem",
        "reset work_mem",
        "show work_mem",
    ],
    &[
        "set timezone = 'asia/tokyo'",
        "set datestyle = 'german'",
        "set intervalstyle to iso_8601",
        "select timestamptz '2026-01-02 03:04:05+00', interval '1 day 2 hours'",
        "reset all",
        "select timestamptz '2026-01-02 03:04:05+00', interval '1 day 2 hours'",
    ],
    &[
        "select set_config('work_mem', '5MB', false)",
        "select set_config('app.x', 'y', false)",
        "select current_setting('work_mem'), nullif(current_setting('app.x', true), '')",
        "begin",
        "select set_config('app.x', 'z', true)",
        "select nullif(current_setting('app.x', true), '')",
        "commit",
        "select nullif(current_setting('app.x', true), '')",
        "do $$ begin perform set_config('work_mem', '6MB', false); end $$",
        "show work_mem",
        "discard all",
        "show work_mem",
    ],
    &[
        "set datestyle to sql",
        "set datestyle to ymd",
        "select date '2026-01-02'",
        "set datestyle to dmy",
        "select date '2026-01-02'",
        "set datestyle to iso",
        "show datestyle",
        "begin",
        "set local datestyle to mdy",
        "select date '01/02/2026'",
        "commit",
        "select date '01/02/2026'",
        "show datestyle",
    ],
    &[
        "do $$ begin perform set_config('DateStyle', 'German', false); end $$",
        "set datestyle = 'SQL, MDY'",
        "select date '2026-01-02'",
        "select date '2026-01-02' + 1",
        "select date '2026-01-02' + 2",
        "do $$ begin null; end $$",
        "set datestyle = 'ISO'",
        "select date '2026-01-02' + 3",
        "reset datestyle",
        "select date '2026-01-02' + 4",
    ],
    &[
        "set role reader",
        "select current_user, session_user",
        "select a from t order by a",
        "create table forbidden (a int)",
        "begin",
        "reset role",
        "select current_user",
        "rollback",
        "select current_user",
        "set session authorization default",
        "reset role",
        "select current_user, session_user",
    ],
    &[
        "set session characteristics as transaction read only",
        "insert into u (b) values ('no')",
        "select a from t order by a",
        "begin read write",
        "insert into u (b) values ('yes') returning b",
        "commit",
        "show transaction_read_only",
        "set default_transaction_read_only = off",
        "insert into u (b) values ('again') returning b",
    ],
    &[
        "set role none",
        "select current_user",
        "reset role",
        "select current_user",
        "set role none",
        "reset all",
        "select current_user",
        "discard all",
        "select current_user",
        "begin",
        "set role none",
        "reset role",
        "select current_user",
        "rollback",
        "set session authorization default",
        "select current_user",
    ],
    &[
        "begin",
        "reset timezone",
        "select timestamptz '2026-01-02 03:04:05+00'",
        "set datestyle to default",
        "set local timezone to 'UTC'",
        "set local timezone to default",
        "select timestamptz '2026-01-02 03:04:05+00'",
        "rollback",
        "set timezone to 'UTC'",
        "set search_path to other",
        "set intervalstyle to postgres_verbose",
        "set work_mem to '1MB'",
        "reset all",
        "select interval '1 day 2 hours', current_setting('search_path')",
        "set datestyle to iso",
        "set timezone to 'UTC'",
        "set app.x to 'set'",
        "reset app.x",
        "select nullif(current_setting('app.x', true), '')",
        "discard all",
        "show datestyle",
        "show work_mem",
    ],
    &[
        "set search_path = other",
        "select a from t order by a",
        "begin",
        "set local search_path = public",
        "select a from t order by a",
        "commit",
        "select a from t order by a",
    ],
    // SQL-level prepared statements.
    &[
        "prepare q (int) as select a, b from t where a = $1",
        "execute q(1)",
        "select name, statement, from_sql from pg_prepared_statements where from_sql",
        "prepare q as select 1",
        "deallocate q",
        "execute q(1)",
        "prepare q as insert into u (b) values ('q') returning b",
        "execute q",
        "deallocate all",
        "execute q",
    ],
    // What is kept on a connection.
    &[
        "create temp table tt (a int)",
        "insert into tt values (1), (2)",
        "select a from tt order by a",
        "drop table tt",
        "begin",
        "create temp table tt (a int) on commit drop",
        "insert into tt values (3)",
        "select a from tt",
        "commit",
        "select a from tt",
    ],
    &[
        "begin",
        "declare h cursor with hold for select a from t order by a",
        "fetch 1 from h",
        "commit",
        "fetch 1 from h",
        "select name, is_holdable from pg_cursors where name = 'h'",
        "close h",
        "fetch 1 from h",
        "declare c cursor for select 1",
    ],
    &[
        "select pg_advisory_lock(7), pg_advisory_lock(7)",
        "select pg_advisory_unlock(7)",
        "select pg_advisory_unlock(7)",
        "select pg_advisory_unlock(7)",
        "select pg_try_advisory_lock(8)",
        "select pg_advisory_unlock_all()",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ],
    &[
        "listen ch",
        "select pg_listening_channels()",
        "notify ch, 'one'",
        "begin",
        "notify ch, 'two'",
        "select 1",
        "commit",
        "unlisten *",
        "notify ch, 'three'",
    ],
    // Transactions.
    &[
        "begin",
        "select a from t order by a",
        "insert into t values (6, 'six') returning a",
        "savepoint s",
        "insert into t values (6, 'six')",
        "select 1",
        "rollback to s",
        "select count(*) from t",
        "commit and chain",
        "select count(*) from t",
        "rollback",
        "select count(*) from t",
    ],
    &[
        "begin read only",
        "select a from t order by a",
        "insert into t values (6, 'six')",
        "select 1",
        "commit",
        "select count(*) from t",
    ],
    // Modes, before and behind the first snapshot.
    &[
        "begin read only",
        "select a from t order by a",
        "set transaction_read_only = off",
        "rollback",
        "begin read only",
        "select 1",
        "set transaction_read_only = on",
        "savepoint s",
        "set transaction read write",
        "rollback to s",
        "select set_config('transaction_read_only', 'off', true)",
        "rollback",
        "begin read only",
        "set transaction_read_only = off",
        "insert into t values (70, 'x') returning a",
        "rollback",
    ],
    &[
        "begin",
        "select a from t order by a",
        "set transaction_isolation = 'serializable'",
        "rollback",
        "begin",
        "select a from t order by a",
        "set transaction_isolation to 'read committed'",
        "set transaction_read_only = on",
        "select 1",
        "set transaction_read_only = off",
        "rollback",
        "begin",
        "select a from t order by a",
        "set transaction_isolation = 'repeatable read'; select 1",
        "rollback",
        "begin",
        "select 1",
        "select set_config('transaction_isolation', 'serializable', true)",
        "rollback",
        "begin",
        "set transaction_isolation = 'serializable'",
        "select a from t order by a",
        "show transaction_isolation",
        "commit",
    ],
    &[
        "set work_mem = '1MB'",
        "begin",
        "select a from t order by a",
        "reset work_mem",
        "set application_name to default",
        "select current_setting('work_mem')",
        "insert into t values (71, 'x') returning a",
        "select current_setting('work_mem'), current_setting('application_name')",
        "rollback",
        "show work_mem",
        "begin read only",
        "set application_name to default",
        "select 1",
        "call p(3)",
        "rollback",
        "show work_mem",
    ],
    &[
        "begin isolation level serializable",
        "show transaction_isolation",
        "select count(*) from t",
        "set transaction isolation level read committed",
        "rollback",
        "commit",
        "end",
        "begin",
        "begin",
        "commit",
    ],
    &[
        "call p(3)",
        "select w(4)",
        "select b from u order by a",
        "do $$ begin raise notice 'x'; raise warning 'y' using hint = 'z'; end $$",
        "do $$ begin raise exception 'x' using errcode = 'P1234', detail = 'd'; end $$",
    ],
    // What only one node may answer.
    &[
        "select pg_is_in_recovery()",
        "show transaction_read_only",
        "show in_hot_standby",
        "select * from v order by a",
        "select a from t order by a for update",
        "explain (costs off) select a from t where a = 1",
    ],
    &[
        "copy t to stdout",
        "copy (select a from t order by a) to stdout with (format csv, header)",
        "copy (select 1 / (a - 3) from t order by a) to stdout",
        "copy nothing to stdout",
    ],
    &["", ";", "-- nothing", "select", "select 1;", "table t"],
    &[
        "create table n (a int)",
        "insert into n values (1)",
        "select * from n",
        "alter table n add column b text default 'x'",
        "select * from n",
        "drop table n",
        "select * from n",
    ],
];

/// [`SESSIONS`] as scripts.
pub(super) fn sessions() -> Vec<Vec<Message>> {
    let mut scripts = Vec::new();
    for statements in SESSIONS {
        let simple = || statements.iter().flat_map(|sql| [query(sql), Wait]);
        scripts.push(simple().collect());
        let optimistic = [query("set pgsplit.transactions = 'optimistic'"), Wait];
        scripts.push(optimistic.into_iter().chain(simple()).collect());
        let extended = |waits: bool| {
            let messages = statements.iter().flat_map(move |sql| {
                let mut messages = vec![
                    parse("", sql),
                    bind("", "", &[]),
                    Describe('P', String::new()),
                    execute(""),
                    Sync,
                ];
                messages.extend(waits.then_some(Wait));
                messages
            });
            messages.collect()
        };
        scripts.push(extended(true));
        scripts.push(extended(false));
        // By name, prepared before anything runs.
        let mut named: Vec<Message> = Vec::new();
        for (i, sql) in statements.iter().enumerate() {
            named.extend([parse(&format!("n{i}"), sql), Sync]);
        }
        for i in 0..statements.len() {
            let name = format!("n{i}");
            named.extend([bind("", &name, &[]), execute(""), Sync, Wait]);
        }
        scripts.push(named);
    }
    scripts
}
