use super::*;
use crate::sql::{Begin, Hint};

fn class(text: &str) -> Option<Class> {
    utility(text.as_bytes(), Lexing::default())
}

const NONE: Traits = Traits::NONE;
const OBSERVE: Traits = Traits::OBSERVE;
const ALONE: Traits = Traits::NO_TRANSACTION;
const DDL: Traits = Traits::DDL.with(OBSERVE);
const DEFAULTS: Traits = Traits::DEFAULTS;
const PREPARED: Traits = Traits::SQL_PREPARED.with(EFFECTS);
const STATE: Traits = EFFECTS.with(PURE);

#[test]
fn statements_that_run_wherever_the_session_is() {
    let read_only = Begin {
        read_only: Some(true),
        ..Begin::default()
    };
    for (text, kind, traits) in [
        ("", Kind::Empty, PURE),
        (" /* c */ -- d", Kind::Empty, PURE),
        ("begin", Kind::Begin(Begin::default()), STATE),
        ("begin read only", Kind::Begin(read_only), STATE),
        ("commit", Kind::Commit, EFFECTS),
        ("end transaction", Kind::Commit, EFFECTS),
        ("commit and chain", Kind::Single, EFFECTS),
        ("rollback", Kind::Rollback, STATE),
        ("abort", Kind::Rollback, STATE),
        ("rollback and chain", Kind::Single, STATE),
        ("rollback to a", Kind::Single, STATE),
        ("savepoint a", Kind::Single, STATE),
        ("release a", Kind::Single, STATE),
        ("set x = 1", Kind::Single, STATE),
        ("set x from current", Kind::Single, EFFECTS.with(OBSERVE)),
        ("set time zone 'UTC'", Kind::Single, STATE),
        ("set transaction read only", Kind::Single, STATE),
        (
            "set session characteristics as transaction read only",
            Kind::Single,
            STATE,
        ),
        ("reset all", Kind::Single, STATE),
        ("discard all", Kind::Single, STATE.with(ALONE)),
        ("discard plans", Kind::Single, STATE),
        ("set pgsplit.route = 'primary'", Kind::Own, STATE),
        ("reset pgsplit.route", Kind::Own, STATE),
        ("show pgsplit.route", Kind::Own, STATE),
        ("show search_path", Kind::Single, PURE),
        ("show transaction isolation level", Kind::Single, PURE),
        ("SHOW Time Zone", Kind::Single, PURE),
        ("fetch next from c", Kind::Single, NONE),
        ("move c", Kind::Single, NONE),
        ("close c", Kind::Single, STATE),
    ] {
        assert_eq!(class(text), Some(anywhere(kind, traits)), "{text}");
    }
}

#[test]
fn statements_that_belong_on_the_primary() {
    use Why::{Ddl, Into, NodeLocal, Procedure, Recovery, Session, Transaction, Utility, Write};
    for (text, why, traits) in [
        (
            "set transaction isolation level serializable",
            Transaction,
            STATE,
        ),
        ("set transaction read write", Transaction, STATE),
        ("set transaction_read_only = off", Transaction, STATE),
        ("set transaction snapshot '1'", Session, STATE),
        ("set constraints all deferred", Session, NONE),
        ("show transaction_read_only", Recovery, PURE),
        ("show in_hot_standby", Recovery, PURE),
        ("show data_directory", NodeLocal, PURE),
        ("show all", NodeLocal, PURE),
        ("commit prepared 'a'", Write, ALONE),
        ("rollback prepared 'a'", Write, ALONE),
        ("prepare transaction 'a'", Transaction, EFFECTS),
        ("prepare a as select 1", Session, PREPARED.with(PURE)),
        ("deallocate all", Session, PREPARED.with(PURE)),
        ("execute a", Session, PREPARED.with(OBSERVE)),
        ("explain execute a", Session, PREPARED.with(OBSERVE)),
        ("listen a", Session, STATE),
        ("unlisten *", Session, STATE),
        ("load 'a'", Session, EFFECTS.with(OBSERVE)),
        ("notify a", Utility, NONE),
        ("lock table t", Utility, NONE),
        ("checkpoint", Utility, NONE),
        ("analyze t", Utility, NONE),
        ("vacuum", Utility, ALONE),
        ("cluster", Utility, ALONE),
        ("reindex table t", Utility, ALONE),
        ("alter system set x = 1", Utility, ALONE),
        ("truncate t", Write, OBSERVE),
        ("refresh materialized view v", Write, OBSERVE),
        ("call p()", Procedure, OBSERVE),
        ("do $$begin perform f(); end$$", Procedure, OBSERVE),
        ("do $$begin CREATE table t(); end$$", Procedure, DDL),
        ("create table t (a int)", Ddl, DDL),
        (
            "create table t (a int generated always as (1) stored)",
            Ddl,
            DDL,
        ),
        ("create table t as select 1", Into, DDL),
        ("create unlogged table t (a, b) as values (1, 2)", Into, DDL),
        ("create materialized view v as select 1", Into, DDL),
        ("create view v as select 1", Ddl, DDL),
        ("create temp table t (a int)", Ddl, DDL),
        ("create or replace temporary view v as select 1", Ddl, DDL),
        ("create table \"pg_temp\".t (a int)", Ddl, DDL),
        ("create table t as execute a", Into, DDL.with(PREPARED)),
        ("create database d", Ddl, DDL.with(ALONE)),
        (
            "create unique index concurrently i on t (a)",
            Ddl,
            DDL.with(ALONE),
        ),
        ("drop database d", Ddl, DDL.with(ALONE)),
        ("drop index concurrently i", Ddl, DDL.with(ALONE)),
        ("alter database d set x = 1", Ddl, DDL.with(DEFAULTS)),
        (
            "ALTER USER a IN DATABASE d RESET ALL",
            Ddl,
            DDL.with(DEFAULTS),
        ),
        ("alter role a password 'x'", Ddl, DDL),
        (
            "alter database d set tablespace x",
            Ddl,
            DDL.with(ALONE).with(DEFAULTS),
        ),
        ("drop table t", Ddl, DDL),
        ("grant select on t to a", Ddl, DDL),
        ("comment on table t is 'x'", Ddl, DDL),
    ] {
        let expected = Class {
            tables: if text.starts_with("prepare a") || text.starts_with("deallocate") {
                Tables::NONE
            } else {
                Tables::ALL
            },
            ..Class::primary(why, traits)
        };
        assert_eq!(class(text), Some(expected), "{text}");
    }
}

#[test]
fn queries_and_nonsense_are_left_to_others() {
    for text in [
        "fetch nextval ('s')",
        "select 1",
        "(select 1)",
        "with a as (select 1) select 1",
        "values (1)",
        "table t",
        "insert into t values (1)",
        "update t set a = 1",
        "delete from t",
        "merge into t using u on true when matched then delete",
        "copy t to stdout",
        "explain select 1",
        "explain analyze create table t as select 1",
        "declare c cursor for select 1",
        "begin x",
        "commit x",
        "set",
        "set x",
        "reset",
        "show",
        "show x y",
        "discard x",
        "savepoint",
        "foo",
        "create table 'a",
        "'a'",
    ] {
        assert_eq!(class(text), None, "{text}");
    }
}

#[test]
fn the_hint_is_part_of_the_class() {
    let class = class("/* pgsplit: primary */ set x = 1").unwrap();
    assert_eq!(class.hint, Some(Hint::Primary));
}
