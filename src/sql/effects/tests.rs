use super::*;
use crate::sql::{Begin, Isolation, Scope, SettingValue};

fn one(text: &str) -> Option<Effect> {
    let found = effects(text.as_bytes(), Lexing::default())?;
    assert_eq!(found.len(), 1, "{text}");
    found.into_iter().next()
}

fn prepare(name: &str, text: &str, body: usize) -> Effect {
    Effect::Prepare {
        name: name.into(),
        text: text.as_bytes().into(),
        body,
    }
}

fn sql(value: &str) -> SettingValue {
    SettingValue::Sql(value.into())
}

#[test]
fn set_gives_name_value_and_scope() {
    use Scope::{Local, Session};
    use SettingValue::Default;
    for (text, name, value, scope) in [
        ("set work_mem = 64", "work_mem", sql("64"), Session),
        (
            "SET SESSION Work_Mem TO '64MB';",
            "work_mem",
            sql("'64MB'"),
            Session,
        ),
        ("set local work_mem to default", "work_mem", Default, Local),
        (
            "set \"DateStyle\" = iso, DMY",
            "datestyle",
            sql("iso, dmy"),
            Session,
        ),
        (
            "set search_path to a, \"B\", U&\"\\0063\"",
            "search_path",
            sql("a, \"B\", \"c\""),
            Session,
        ),
        ("set search_path to ''", "search_path", sql("''"), Session),
        ("set x.y = - 1.5", "x.y", sql("-1.5"), Session),
        ("set x.y = +1", "x.y", sql("1"), Session),
        ("set x.y = E'a\\'b\\\\'", "x.y", sql("E'a''b\\\\'"), Session),
        ("set x.y = $$a'b$$", "x.y", sql("'a''b'"), Session),
        ("set x.y = 'a' -- c\n 'b'", "x.y", sql("'ab'"), Session),
        ("set x = on /* c */", "x", sql("on"), Session),
        ("set local = 1", "local", sql("1"), Session),
        ("set session to 1", "session", sql("1"), Session),
        ("set names = 1", "names", sql("1"), Session),
        ("set role = a", "role", sql("a"), Session),
        ("set time zone local", "timezone", Default, Session),
        ("set local time zone default", "timezone", Default, Local),
        (
            "set time zone 'Europe/Rome'",
            "timezone",
            sql("'Europe/Rome'"),
            Session,
        ),
        ("set time zone utc", "timezone", sql("utc"), Session),
        ("set time zone -7.5", "timezone", sql("-7.5"), Session),
        (
            "set time zone interval '-08:00' hour to minute",
            "timezone",
            sql("'INTERVAL ''-08:00'''"),
            Session,
        ),
        ("set timezone = 'UTC'", "timezone", sql("'UTC'"), Session),
        (
            "set names 'utf8'",
            "client_encoding",
            sql("'utf8'"),
            Session,
        ),
        ("set names", "client_encoding", Default, Session),
        ("set names default", "client_encoding", Default, Session),
        ("set role a", "role", sql("a"), Session),
        ("set local role none", "role", sql("none"), Local),
        ("set session role \"A\"", "role", sql("\"A\""), Session),
        (
            "set session authorization a",
            "session_authorization",
            sql("a"),
            Session,
        ),
        (
            "set session authorization default",
            "session_authorization",
            Default,
            Session,
        ),
        (
            "set session session authorization 'a'",
            "session_authorization",
            sql("'a'"),
            Session,
        ),
        (
            "set local session authorization a",
            "session_authorization",
            sql("a"),
            Local,
        ),
        (
            "set xml option document",
            "xmloption",
            sql("document"),
            Session,
        ),
        ("set schema 'a'", "search_path", sql("'a'"), Session),
        ("set sort_mem = 1", "work_mem", sql("1"), Session),
        ("reset work_mem", "work_mem", Default, Session),
        ("reset role", "role", Default, Session),
        ("reset time zone", "timezone", Default, Session),
        (
            "reset session authorization",
            "session_authorization",
            Default,
            Session,
        ),
        (
            "reset transaction isolation level",
            "transaction_isolation",
            Default,
            Session,
        ),
        ("reset x.y", "x.y", Default, Session),
        (
            "select set_config('x', 'y', false)",
            "x",
            sql("'y'"),
            Session,
        ),
        (
            "SELECT pg_catalog.set_config('X.Y', E'a\\\\', TRUE) AS z;",
            "x.y",
            sql("E'a\\\\'"),
            Local,
        ),
        (
            "select \"set_config\"('x', null, false)",
            "x",
            Default,
            Session,
        ),
        (
            "select set_config('search_path', '', false)",
            "search_path",
            sql("''"),
            Session,
        ),
        (
            "select set_config('search_path', ' A ,\"b\"\"C\", \"\" ', false)",
            "search_path",
            sql("\"a\", \"b\"\"C\", ''"),
            Session,
        ),
    ] {
        let name = name.into();
        assert_eq!(
            one(text),
            Some(Effect::Set { name, value, scope }),
            "{text}"
        );
    }
}

#[test]
fn settings_of_pgsplit_are_its_own() {
    let set = |key: &str, value: Option<&str>, scope| Effect::OwnSet {
        key: key.into(),
        value: value.map(Into::into),
        scope,
    };
    for (text, expected) in [
        (
            "set pgsplit.route = 'primary'",
            set("route", Some("primary"), Scope::Session),
        ),
        (
            "SET PgSplit.Route TO Primary",
            set("route", Some("primary"), Scope::Session),
        ),
        (
            "set local \"pgsplit\".\"max_lag\" = \"10s\"",
            set("max_lag", Some("10s"), Scope::Local),
        ),
        (
            "set pgsplit.max_lag = 10",
            set("max_lag", Some("10"), Scope::Session),
        ),
        (
            "set pgsplit.route to default",
            set("route", None, Scope::Session),
        ),
        ("reset pgsplit.route", set("route", None, Scope::Session)),
        (
            "select set_config('pgsplit.route', 'auto', true)",
            set("route", Some("auto"), Scope::Local),
        ),
        ("show pgsplit.last_lsn", Effect::OwnShow("last_lsn".into())),
    ] {
        assert_eq!(one(text), Some(expected), "{text}");
    }
}

#[test]
fn transactions_with_modes_in_any_order() {
    let none = Begin::default();
    for (text, expected) in [
        ("begin", none),
        ("begin work", none),
        ("BEGIN TRANSACTION;", none),
        (
            "start transaction",
            Begin {
                start: true,
                ..none
            },
        ),
        (
            "begin read only",
            Begin {
                read_only: Some(true),
                ..none
            },
        ),
        (
            "begin transaction read write",
            Begin {
                read_only: Some(false),
                ..none
            },
        ),
        (
            "begin isolation level serializable, read only deferrable",
            Begin {
                isolation: Some(Isolation::Serializable),
                read_only: Some(true),
                deferrable: Some(true),
                start: false,
            },
        ),
        (
            "start transaction not deferrable read write isolation level repeatable read",
            Begin {
                isolation: Some(Isolation::RepeatableRead),
                read_only: Some(false),
                deferrable: Some(false),
                start: true,
            },
        ),
        (
            "begin isolation level read committed isolation level read uncommitted",
            Begin {
                isolation: Some(Isolation::ReadUncommitted),
                ..none
            },
        ),
    ] {
        assert_eq!(one(text), Some(Effect::Begin(expected)), "{text}");
    }
    for text in [
        "begin read",
        "begin read only,",
        "begin , read only",
        "begin read only,, read only",
        "begin atomic",
        "start",
        "start read only",
        "begin isolation level x",
    ] {
        assert_eq!(one(text), Some(Effect::None), "{text}");
    }
    let read_only = Begin {
        read_only: Some(true),
        ..none
    };
    assert_eq!(
        one("set transaction read only"),
        Some(Effect::SetTransaction(read_only))
    );
    assert_eq!(
        one("set local transaction read only"),
        Some(Effect::SetTransaction(read_only))
    );
    assert_eq!(
        one("set transaction snapshot '1-1'"),
        Some(Effect::SetTransaction(none))
    );
    assert_eq!(
        one("set session characteristics as transaction read only"),
        Some(Effect::SessionCharacteristics(read_only))
    );
}

#[test]
fn ends_of_transactions_and_savepoints() {
    let commit = |chain| Effect::Commit { chain };
    let rollback = |chain| Effect::Rollback { chain };
    for (text, expected) in [
        ("commit", commit(false)),
        ("END WORK", commit(false)),
        ("commit transaction and chain", commit(true)),
        ("commit and no chain", commit(false)),
        ("commit prepared 'a'", Effect::None),
        ("commit x", Effect::None),
        ("prepare transaction 'a'", commit(false)),
        ("rollback", rollback(false)),
        ("abort work and chain", rollback(true)),
        ("rollback prepared 'a'", Effect::None),
        ("rollback to A", Effect::RollbackTo("a".into())),
        (
            "rollback work to savepoint \"A\"",
            Effect::RollbackTo("A".into()),
        ),
        (
            "rollback to savepoint",
            Effect::RollbackTo("savepoint".into()),
        ),
        ("abort to a", Effect::None),
        ("savepoint A", Effect::Savepoint("a".into())),
        ("release a", Effect::Release("a".into())),
        ("release savepoint a", Effect::Release("a".into())),
        ("release savepoint", Effect::Release("savepoint".into())),
    ] {
        assert_eq!(one(text), Some(expected), "{text}");
    }
}

#[test]
fn prepared_statements_cursors_and_the_rest() {
    for (text, expected) in [
        (
            "prepare A as select 1",
            prepare("a", "prepare A as select 1", 13),
        ),
        (
            " prepare a (int, text) as select $1;",
            prepare("a", " prepare a (int, text) as select $1;", 26),
        ),
        (
            "prepare transaction as select 1",
            prepare("transaction", "prepare transaction as select 1", 23),
        ),
        ("prepare a select 1", Effect::None),
        ("execute A", Effect::Execute("a".into())),
        ("execute a(1, 'x')", Effect::Execute("a".into())),
        ("explain analyze execute a", Effect::Execute("a".into())),
        (
            "explain (analyze, buffers off) execute a(1)",
            Effect::Execute("a".into()),
        ),
        (
            "create temp table t as execute a",
            Effect::Execute("a".into()),
        ),
        (
            "create table t (a, b) as execute b with no data",
            Effect::Execute("b".into()),
        ),
        ("explain select 1", Effect::None),
        ("deallocate a", Effect::Deallocate(Some("a".into()))),
        ("deallocate prepare A", Effect::Deallocate(Some("a".into()))),
        (
            "deallocate prepare",
            Effect::Deallocate(Some("prepare".into())),
        ),
        ("deallocate all", Effect::Deallocate(None)),
        ("deallocate prepare all", Effect::Deallocate(None)),
        ("deallocate \"all\"", Effect::Deallocate(Some("all".into()))),
        ("discard all", Effect::DiscardAll),
        ("discard temporary", Effect::DiscardPart),
        ("discard plans", Effect::DiscardPart),
        ("listen a", Effect::Listen),
        ("unlisten *", Effect::Unlisten),
        (
            "declare a cursor for select 1",
            Effect::Declare { hold: false },
        ),
        (
            "declare a no scroll cursor with hold for select 1",
            Effect::Declare { hold: true },
        ),
        (
            "declare cursor cursor without hold for select 1",
            Effect::Declare { hold: false },
        ),
        ("close all", Effect::CloseCursor),
        ("select 1", Effect::None),
        ("(select 1)", Effect::None),
        ("insert into t values (1)", Effect::None),
        ("set constraints all deferred", Effect::None),
        ("set", Effect::None),
        ("set x", Effect::None),
        ("set x =", Effect::None),
        ("set x = (1)", Effect::None),
        ("set x = 1 2", Effect::None),
        ("notify a", Effect::None),
        ("show all", Effect::None),
    ] {
        assert_eq!(one(text), Some(expected), "{text}");
    }
    assert_eq!(one("reset all"), Some(Effect::ResetAll));
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    for text in [
        "set x from current",
        "set time zone interval '8' hour",
        "set time zone interval(3) '8'",
        "set role U&\"a!0061\" uescape '!'",
        "set x = 'a",
        "savepoint U&\"a!0061\" uescape '!'",
        "select set_config('x', $1, false)",
        "select set_config('x', 'y', false), 1",
        "select set_config(a, 'y', false) from t",
        "select set_config('x', 'y', b)",
        "with a as (select set_config('x', 'y', true)) select 1",
        "values (set_config('x', 'y', true))",
        "insert into t select set_config('x', 'y', true)",
        "explain analyze select set_config('x', 'y', true)",
        "select U&\"foo\"('x', 'y', true)",
        "select set_config('search_path', 'a,', false)",
        "set local session characteristics as transaction read only",
    ] {
        assert_eq!(effects(text.as_bytes(), Lexing::default()), None, "{text}");
    }
}

#[test]
fn each_statement_has_its_effect() {
    let found = effects(b"begin; select 1;; set x = 1; commit", Lexing::default()).unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(found[1], Effect::None);
    assert_eq!(found[3], Effect::Commit { chain: false });
    assert_eq!(effects(b" ; ", Lexing::default()), Some(vec![]));
    assert_eq!(
        effects(b"select 1; prepare a as select 1;", Lexing::default()).unwrap()[1],
        prepare("a", "prepare a as select 1", 13)
    );
    // npgsql's reset.
    let reset = "CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP; RESET ALL; SET SESSION AUTHORIZATION DEFAULT";
    assert_eq!(
        effects(reset.as_bytes(), Lexing::default()).unwrap().len(),
        7
    );
}
