//! Scripts: what a client says, as data, so that a script can be made from a seed, shortened and
//! shown.

use std::fmt;

use fastrand::Rng;

use crate::support::message;

/// A message of the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse(String, String),
    /// Portal, statement, parameters as text.
    Bind(String, String, Vec<String>),
    Describe(char, String),
    Execute(String, i32),
    Close(char, String),
    Flush,
    Sync,
    Call(u32, Vec<String>),
    CopyData(String),
    CopyDone,
    CopyFail,
    /// Waits for the answer to what was said so far; without it the next message goes into the
    /// same write.
    Wait,
}

impl Message {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Query(sql) => message::query(sql),
            Self::Parse(name, sql) => message::parse(name, sql),
            Self::Bind(portal, statement, parameters) => {
                let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
                message::bind(portal, statement, &parameters)
            }
            Self::Describe(kind, name) => message::describe(*kind, name),
            Self::Execute(portal, limit) => message::execute(portal, *limit),
            Self::Close(kind, name) => message::close(*kind, name),
            Self::Flush => message::flush(),
            Self::Sync => message::sync(),
            Self::Call(oid, arguments) => {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                message::function_call(*oid, &arguments)
            }
            Self::CopyData(data) => message::copy_data(data.as_bytes()),
            Self::CopyDone => message::copy_done(),
            Self::CopyFail => message::copy_fail("enough"),
            Self::Wait => Vec::new(),
        }
    }

    /// It may change what is in the database.
    pub(super) fn may_write(&self) -> bool {
        const WORDS: &[&str] = &[
            "insert",
            "update",
            "delete",
            "truncate",
            "create",
            "drop",
            "alter",
            "call",
            "do ",
            "w(",
            "from stdin",
            "execute",
        ];
        match self {
            Self::Query(sql) | Self::Parse(_, sql) => WORDS.iter().any(|word| sql.contains(word)),
            _ => false,
        }
    }

    /// The server answers what was said so far when it gets it.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered_by_ready() || *self == Self::Flush
    }

    /// The answer to it ends with ReadyForQuery, as a rule.
    pub(super) fn is_answered_by_ready(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Sync | Self::Call(..))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A statement that scripts are made of, and how many parameters it takes.
type Sql = (&'static str, usize);

const READS: &[Sql] = &[
    ("select 1", 0),
    ("select $1::int + 1", 1),
    ("select $1", 1),
    ("select $1::text || $2", 2),
    ("select g from generate_series(1, 5) g", 0),
    ("select a, b from t order by a", 0),
    ("select b from t where a = $1", 1),
    ("select count(*) from t where b like $1", 1),
    ("select b from u order by a", 0),
    ("table t order by a", 0),
    ("values (1, 'x'), (2, null)", 0),
    (
        "with w as (select a from t where a < 3) select a from w order by a",
        0,
    ),
    ("select repeat('x', 20000)", 0),
    ("select repeat('y', 300) from generate_series(1, 200)", 0),
    ("select from t", 0),
    ("select null::int, '', 'null'", 0),
    ("/* pgsplit: replica */ select a from t order by a", 0),
    ("/* pgsplit: primary */ select a from t order by a", 0),
    ("select a from t order by a for update", 0),
    ("explain (costs off) select a from t where a = 1", 0),
    ("select * from v order by a", 0),
    ("select pg_catalog.pg_is_in_recovery()", 0),
    ("show transaction_read_only", 0),
    ("show in_hot_standby", 0),
];

const ERRORS: &[Sql] = &[
    ("selec", 0),
    ("select 1 / 0", 0),
    ("select 1 / $1::int", 1),
    ("select nothing from t", 0),
    ("select * from nowhere", 0),
    ("select nofunc(1)", 0),
    ("select a / (a - 3) from t order by a", 0),
    ("insert into t values (1, 'again')", 0),
    ("insert into nowhere values (1)", 0),
    ("select 'unterminated", 0),
    ("set nothing_such = 1", 0),
    ("set work_mem = 'much'", 0),
    ("select $1::int, $3::int", 3),
    (
        "do $$ begin raise exception 'no' using errcode = 'P0099'; end $$",
        0,
    ),
    ("execute nothing_such", 0),
    ("fetch from nothing_such", 0),
    ("close nothing_such", 0),
];

const WRITES: &[Sql] = &[
    (
        "insert into t values ($1::int, $2) on conflict do nothing",
        2,
    ),
    ("insert into t values (7, 'seven')", 0),
    ("insert into u (b) values ($1) returning a, b", 1),
    ("insert into u (b) values ('new')", 0),
    ("update t set b = b || '!' where a = $1", 1),
    ("update t set b = 'all' returning a", 0),
    ("delete from t where a = $1", 1),
    ("delete from u returning b", 0),
    (
        "with d as (delete from t where a = 2 returning a) select * from d",
        0,
    ),
    (
        "do $$ begin insert into u (b) values ('do'); raise notice 'done'; end $$",
        0,
    ),
    ("call p(3)", 0),
    ("select w($1::int)", 1),
    ("truncate u", 0),
    ("create table if not exists n (a int)", 0),
    ("insert into n values (1)", 0),
    ("select * from n", 0),
    ("drop table if exists n", 0),
    ("alter table t add column if not exists c int", 0),
    ("alter table t drop column if exists c", 0),
    ("select a from t where a = $1 for update", 1),
];

const TRANSACTIONS: &[Sql] = &[
    ("begin", 0),
    ("begin", 0),
    ("begin read only", 0),
    ("begin isolation level repeatable read", 0),
    (
        "start transaction isolation level serializable, read only",
        0,
    ),
    ("commit", 0),
    ("commit", 0),
    ("rollback", 0),
    ("commit and chain", 0),
    ("rollback and chain", 0),
    ("savepoint s", 0),
    ("rollback to s", 0),
    ("release s", 0),
    ("set transaction read only", 0),
    ("set transaction isolation level repeatable read", 0),
    ("end", 0),
    ("abort", 0),
];

const SETTINGS: &[Sql] = &[
    ("set application_name = 'x'", 0),
    ("set application_name to default", 0),
    ("set local application_name = 'local'", 0),
    ("show application_name", 0),
    ("set work_mem = '1MB'", 0),
    ("set local work_mem = '2MB'", 0),
    ("reset work_mem", 0),
    ("show work_mem", 0),
    ("select current_setting('work_mem')", 0),
    ("select nullif(current_setting('app.x', true), '')", 0),
    ("set app.x = 'y'", 0),
    ("set local app.x = 'z'", 0),
    ("reset app.x", 0),
    ("select set_config('app.x', 'w', false)", 0),
    ("select set_config('work_mem', '3MB', true)", 0),
    ("select set_config('work_mem', '4MB', false)", 0),
    ("select set_config('work_mem', $1, false)", 1),
    ("set search_path = other, public", 0),
    ("set search_path = public", 0),
    ("reset search_path", 0),
    ("set timezone = 'Asia/Tokyo'", 0),
    ("set time zone 'UTC'", 0),
    ("show timezone", 0),
    ("set datestyle = 'German'", 0),
    ("select date '2026-11-26'", 0),
    ("set intervalstyle = iso_8601", 0),
    ("select interval '1 day 2 hours'", 0),
    ("set client_encoding = 'LATIN1'", 0),
    ("select 'é'", 0),
    ("set standard_conforming_strings = off", 0),
    ("select 'a\\'' || 'b'", 0),
    ("set bytea_output = 'escape'", 0),
    ("select '\\x0102'::bytea", 0),
    ("set default_transaction_read_only = on", 0),
    ("set default_transaction_read_only = off", 0),
    (
        "set session characteristics as transaction isolation level repeatable read",
        0,
    ),
    ("show default_transaction_isolation", 0),
    ("show transaction_isolation", 0),
    ("reset all", 0),
    ("discard all", 0),
    ("discard plans", 0),
    ("set role reader", 0),
    ("reset role", 0),
    ("set role none", 0),
    ("select current_user, session_user", 0),
    ("set session authorization default", 0),
    (
        "do $$ begin perform set_config('work_mem', '5MB', false); end $$",
        0,
    ),
    ("set extra_float_digits = 0", 0),
    ("select 0.1::float8 + 0.2", 0),
    ("set client_min_messages = warning", 0),
    ("set statement_timeout = '50s'", 0),
];

const SEVERAL: &[Sql] = &[
    ("select 1; select 2", 0),
    ("select 1;", 0),
    (";", 0),
    (";;", 0),
    ("", 0),
    ("  -- nothing", 0),
    ("/* nothing */ ;", 0),
    ("begin; select 1; commit", 0),
    (
        "begin; insert into t values (8, 'eight'); select 1 / 0; commit",
        0,
    ),
    ("insert into t values (9, 'nine'); select 1 / 0", 0),
    ("select 1; begin", 0),
    ("commit; select 2", 0),
    (
        "begin; savepoint s; insert into u (b) values ('s'); rollback to s; commit",
        0,
    ),
    ("set work_mem = '6MB'; select 1 / 0", 0),
    ("set work_mem = '7MB'; show work_mem", 0),
    ("select 1; selec", 0),
    ("rollback; begin", 0),
    (
        "insert into u (b) values ('a'); insert into u (b) values ('b') returning b",
        0,
    ),
];

const CURSORS: &[Sql] = &[
    ("declare c cursor for select a from t order by a", 0),
    (
        "declare c scroll cursor for select g from generate_series(1, 9) g",
        0,
    ),
    (
        "declare h cursor with hold for select a from t order by a",
        0,
    ),
    ("fetch 2 from c", 0),
    ("fetch backward 1 from c", 0),
    ("fetch all from h", 0),
    ("move 1 in c", 0),
    ("close c", 0),
    ("close h", 0),
    ("close all", 0),
    (
        "select name, is_holdable from pg_cursors where name <> '' order by name",
        0,
    ),
];

const STATE: &[Sql] = &[
    ("create temp table tt (a int)", 0),
    ("create temp table tt (a int) on commit drop", 0),
    ("insert into tt values (1)", 0),
    ("select a from tt order by a", 0),
    ("drop table tt", 0),
    ("select pg_try_advisory_lock(42)", 0),
    ("select pg_advisory_unlock(42)", 0),
    ("select pg_advisory_unlock_all()", 0),
    ("select pg_advisory_xact_lock(43)", 0),
    ("listen ch", 0),
    ("unlisten ch", 0),
    ("unlisten *", 0),
    ("notify ch, 'hello'", 0),
    ("select pg_notify('ch', $1)", 1),
    ("select pg_listening_channels()", 0),
    (
        "do $$ begin raise notice 'a notice'; raise warning 'a warning'; end $$",
        0,
    ),
    ("vacuum t", 0),
    ("lock table t in share mode", 0),
    ("analyze u", 0),
];

const PREPARED: &[Sql] = &[
    ("prepare q1 as select 1", 0),
    ("prepare q1 (int) as select $1 + 1", 0),
    ("prepare q2 as insert into u (b) values ($1) returning b", 0),
    ("execute q1", 0),
    ("execute q1(3)", 0),
    ("execute q2('x')", 0),
    ("deallocate q1", 0),
    ("deallocate q2", 0),
    (
        "select name from pg_prepared_statements where from_sql order by name",
        0,
    ),
];

const COPIES: &[Sql] = &[
    ("copy t to stdout", 0),
    ("copy (select a from t order by a) to stdout", 0),
    ("copy (select 1 / 0) to stdout", 0),
    ("copy t from stdin", 0),
    ("copy u (b) from stdin", 0),
    ("copy nowhere from stdin", 0),
    ("copy t from stdin with (format csv)", 0),
    (
        "copy (select repeat('z', 900) from generate_series(1, 100)) to stdout",
        0,
    ),
    ("copy u (b) from stdin; select 1", 0),
    ("select 1; copy u (b) from stdin", 0),
];

const VALUES: &[&str] = &["1", "2", "3", "5", "0", "", "abc", "%e%", "10"];
const STATEMENTS: &[&str] = &["", "", "s1", "s2", "s3"];
const PORTALS: &[&str] = &["", "", "p1", "p2"];

/// What a script is mostly about.
const FAMILIES: &[&[Sql]] = &[
    READS,
    ERRORS,
    WRITES,
    TRANSACTIONS,
    SETTINGS,
    SEVERAL,
    CURSORS,
    STATE,
    PREPARED,
    COPIES,
];

/// Makes a script.
struct Maker {
    rng: Rng,
    script: Vec<Message>,
    /// Likely families: several entries of the same make it likelier.
    families: Vec<usize>,
    /// What names were last prepared to take: statement name and number of parameters.
    prepared: Vec<(String, usize)>,
    /// Of a hundred items so many are in the extended protocol.
    extended: u32,
    /// Of a hundred items so many are single messages without regard to what they mean.
    chaos: u32,
    /// Of a hundred items so many are followed by waiting.
    patience: u32,
}

/// The script of a seed.
pub(super) fn script(seed: u64) -> Vec<Message> {
    let mut rng = Rng::with_seed(seed);
    let mut families: Vec<usize> = (0..FAMILIES.len()).collect();
    families.extend([0, 0, 3, 3]);
    for _ in 0..2 {
        let favourite = rng.usize(..FAMILIES.len());
        families.extend([favourite; 6]);
    }
    let extended = *rng.choice(&[0, 20, 50, 80, 100]).unwrap();
    let chaos = *rng.choice(&[0, 0, 5, 15, 40]).unwrap();
    let patience = *rng.choice(&[0, 10, 50, 90]).unwrap();
    let mut maker = Maker {
        rng,
        script: Vec::new(),
        families,
        prepared: Vec::new(),
        extended,
        chaos,
        patience,
    };
    for _ in 0..maker.rng.usize(2..16) {
        maker.item();
    }
    maker.script
}

impl Maker {
    fn percent(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    fn choice(&mut self, from: &[&str]) -> String {
        from[self.rng.usize(..from.len())].to_owned()
    }

    fn sql(&mut self) -> Sql {
        let family = FAMILIES[self.families[self.rng.usize(..self.families.len())]];
        family[self.rng.usize(..family.len())]
    }

    fn values(&mut self, count: usize) -> Vec<String> {
        // Now and then the wrong number.
        let count = match self.rng.u32(..40) {
            0 => count + 1,
            1 => count.saturating_sub(1),
            _ => count,
        };
        (0..count).map(|_| self.choice(VALUES)).collect()
    }

    fn item(&mut self) {
        if self.percent(self.chaos) {
            let message = self.any();
            self.script.push(message);
        } else if self.percent(self.extended) {
            self.extended();
        } else {
            let (sql, _) = self.sql();
            self.script.push(Message::Query(sql.to_owned()));
            self.copy_data(sql);
        }
        if self.percent(self.patience) {
            self.script.push(Message::Wait);
        }
    }

    /// Parse, Bind, Execute and the like as drivers say them.
    fn extended(&mut self) {
        let known = self.prepared.len();
        let (statement, count, sql) = if known > 0 && self.percent(30) {
            let (name, count) = self.prepared[self.rng.usize(..known)].clone();
            (name, count, "")
        } else {
            let (sql, count) = self.sql();
            let name = self.choice(STATEMENTS);
            self.prepared.retain(|(known, _)| *known != name);
            self.prepared.push((name.clone(), count));
            self.script
                .push(Message::Parse(name.clone(), sql.to_owned()));
            (name, count, sql)
        };
        if self.percent(30) {
            self.script.push(Message::Describe('S', statement.clone()));
        }
        if self.percent(10) {
            self.end();
        }
        let portal = self.choice(PORTALS);
        let values = self.values(count);
        self.script
            .push(Message::Bind(portal.clone(), statement.clone(), values));
        if self.percent(50) {
            self.script.push(Message::Describe('P', portal.clone()));
        }
        let limit = *self.rng.choice(&[0, 0, 0, 1, 2, 50]).unwrap();
        self.script.push(Message::Execute(portal.clone(), limit));
        self.copy_data(sql);
        while self.percent(25) {
            if self.percent(20) {
                self.end();
            }
            let limit = *self.rng.choice(&[0, 1, 2]).unwrap();
            self.script.push(Message::Execute(portal.clone(), limit));
        }
        if self.percent(10) {
            self.script.push(Message::Close('P', portal));
        }
        if self.percent(10) {
            self.script.push(Message::Close('S', statement));
        }
        if self.percent(70) {
            self.end();
        }
    }

    fn end(&mut self) {
        if self.percent(80) {
            self.script.push(Message::Sync);
        } else {
            self.script.push(Message::Flush);
        }
        if self.percent(self.patience) {
            self.script.push(Message::Wait);
        }
    }

    /// What follows a COPY FROM STDIN, as a rule.
    fn copy_data(&mut self, sql: &str) {
        if !sql.contains("from stdin") {
            return;
        }
        if self.percent(20) {
            self.script.push(Message::Sync);
        }
        if self.percent(self.patience) {
            self.script.push(Message::Flush);
            self.script.push(Message::Wait);
        }
        for _ in 0..self.rng.usize(..4) {
            let line = self.choice(&[
                "20\ttwenty\n",
                "21\t",
                "x\ty\n",
                "one\n",
                "22,22\n",
                "\\.\n",
            ]);
            self.script.push(Message::CopyData(line));
        }
        let end = if self.percent(80) {
            Message::CopyDone
        } else {
            Message::CopyFail
        };
        self.script.push(end);
    }

    /// Any message.
    fn any(&mut self) -> Message {
        let statement = self.choice(STATEMENTS);
        let portal = self.choice(PORTALS);
        match self.rng.u32(..18) {
            0 | 1 => Message::Query(self.sql().0.to_owned()),
            2 | 3 => Message::Parse(statement, self.sql().0.to_owned()),
            4 | 5 => {
                let count = self.rng.usize(..3);
                let values = self.values(count);
                Message::Bind(portal, statement, values)
            }
            6 => Message::Describe('S', statement),
            7 => Message::Describe('P', portal),
            8 | 9 => Message::Execute(portal, self.rng.i32(0..3)),
            10 => Message::Close('S', statement),
            11 => Message::Close('P', portal),
            12 => Message::Flush,
            13 | 14 => Message::Sync,
            15 => match self.rng.u32(..3) {
                // int4pl, int4div, nothing
                0 => Message::Call(177, vec!["1".to_owned(), "2".to_owned()]),
                1 => Message::Call(154, vec!["1".to_owned(), "0".to_owned()]),
                _ => Message::Call(999_999, vec!["1".to_owned()]),
            },
            16 => Message::CopyData("30\tthirty\n".to_owned()),
            _ if self.percent(50) => Message::CopyDone,
            _ => Message::CopyFail,
        }
    }
}
