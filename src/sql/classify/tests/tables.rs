//! Which tables texts read and write.

use super::*;
use crate::sql::Tables;

/// `(oid, name, kind, has rules)`.
const RELATIONS: &[(&str, &str, &str, &str)] = &[
    ("20000", "log", "r", "false"),
    ("20001", "users", "r", "false"),
    ("20002", "orders", "r", "false"),
    ("20003", "items", "r", "false"),
    ("20004", "recent", "v", "false"),
    ("20005", "watched", "r", "false"),
    ("20006", "ruled", "r", "true"),
    ("20007", "parts", "p", "false"),
    ("20008", "parts_1", "r", "false"),
    ("20009", "guarded", "r", "false"),
    ("20010", "far", "f", "false"),
    ("20011", "totals", "m", "false"),
    ("20012", "stamped", "r", "false"),
    ("20013", "typed", "r", "false"),
    ("20014", "s", "S", "false"),
];

/// `(oid, name, volatility, language, source)`.
const FUNCTIONS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "30000",
        "order_count",
        "s",
        "sql",
        "select count(*) from orders",
    ),
    (
        "30001",
        "counts",
        "s",
        "plpgsql",
        "begin return order_count() + 1; end",
    ),
    (
        "30002",
        "note",
        "v",
        "plpgsql",
        "begin insert into log values (new.a); return new; end",
    ),
    (
        "30003",
        "anything",
        "s",
        "plpgsql",
        "begin execute x; return 1; end",
    ),
    (
        "30004",
        "stamp",
        "v",
        "plpgsql",
        "begin new.at := now(); return new; end",
    ),
    ("30005", "compiled", "s", "c", ""),
    (
        "30006",
        "empties",
        "v",
        "plpgsql",
        "begin truncate log; end",
    ),
];

fn catalogue() -> Catalogue {
    let mut builder = CatalogueBuilder::new();
    let mut row = |query, columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|&c| Some(c)).collect();
        builder.row(query, &columns);
    };
    for &(oid, name, kind, rules) in RELATIONS {
        row(
            QueryId::Relations,
            &[oid, name, kind, "p", "false", "f", rules],
        );
    }
    for &(oid, name, volatility, language, source) in FUNCTIONS {
        row(
            QueryId::Functions,
            &[
                oid, name, "u", "f", volatility, language, "true", "false", source,
            ],
        );
    }
    for (oid, name, volatility) in [
        ("100", "now", "s"),
        ("101", "count", "i"),
        ("102", "nextval", "v"),
        ("104", "pg_advisory_lock", "v"),
        ("105", "pg_backend_pid", "s"),
        ("103", "lower", "i"),
    ] {
        row(
            QueryId::Functions,
            &[oid, name, "b", "f", volatility, "internal", "true", "false"],
        );
    }
    // The view reads orders and calls a function, a policy reads users, a column's type calls one.
    row(QueryId::Edges, &["r", "20004", "r", "20002"]);
    row(QueryId::Edges, &["r", "20009", "r", "20001"]);
    row(QueryId::Types, &["40000", "counted", "30000"]);
    row(QueryId::Edges, &["r", "20013", "t", "40000"]);
    // Triggers.
    row(QueryId::Edges, &["g", "20005", "f", "30002"]);
    row(QueryId::Edges, &["g", "20012", "f", "30004"]);
    // A function whose source is a tree, and writes.
    row(
        QueryId::Functions,
        &["30007", "tree", "u", "f", "v", "sql", "true", "false", ""],
    );
    row(QueryId::Edges, &["f", "30007", "r", "20000"]);
    row(QueryId::Reached, &["f", "30007", "w", "3"]);
    row(QueryId::Kin, &["i", "20007", "20008"]);
    row(QueryId::Kin, &["c", "20002", "20003"]);
    for operator in ["=", "+"] {
        builder.row(QueryId::Operators, &[None, Some(operator), None]);
    }
    builder.row(QueryId::Schemas, &[Some("public")]);
    builder.finish(1)
}

fn tables(names: &[&str]) -> Tables {
    let tables = names.iter().map(|name| Tables::of(name.as_bytes()));
    tables.fold(Tables::NONE, Tables::with)
}

fn check(cases: &[(&str, Option<&[&str]>)]) {
    let catalogue = catalogue();
    for (text, expected) in cases {
        let class = classify(text.as_bytes(), Lexing::default(), Some(&catalogue));
        assert_eq!(class.tables, expected.map_or(Tables::ALL, tables), "{text}");
    }
}

#[test]
fn reads_concern_what_they_reach() {
    check(&[
        ("select 1", Some(&[])),
        ("select now()", Some(&[])),
        ("select * from log", Some(&["log"])),
        (
            "select * from public.log l where l.users = 1",
            Some(&["log"]),
        ),
        (
            "select count(*) from users join orders on true",
            Some(&["users", "orders"]),
        ),
        (
            "with users as (select 1) select * from users, log",
            Some(&["log", "users"]),
        ),
        (
            "select (select 1 from items) from log union table orders",
            Some(&["items", "log", "orders"]),
        ),
        ("copy log to stdout", Some(&["log"])),
        ("explain select * from log", Some(&["log"])),
        ("select * from recent", Some(&["orders"])),
        ("select * from guarded", Some(&["guarded", "users"])),
        ("select * from typed", Some(&["typed", "orders"])),
        ("select * from totals", Some(&["totals"])),
        ("select * from parts_1", Some(&["parts"])),
        ("select * from parts", Some(&["parts"])),
        ("select order_count()", Some(&["orders"])),
        ("select counts() from log", Some(&["log", "orders"])),
        ("select log.counts from log", Some(&["log", "orders"])),
        ("select '1'::counted", Some(&["orders"])),
        // It can't be told.
        ("select anything()", None),
        ("select compiled()", None),
        ("select * from far", None),
        ("select * from unheard_of", None),
        ("select * from log for update", None),
    ]);
}

#[test]
fn writes_concern_what_they_change() {
    check(&[
        ("insert into log values (1)", Some(&["log"])),
        ("insert into log values (1) returning *", Some(&["log"])),
        (
            "insert into public.log (a) values (nextval('s'), lower('x'))",
            Some(&["log"]),
        ),
        (
            "insert into log select * from users",
            Some(&["log", "users"]),
        ),
        (
            "insert into log values (1) on conflict do nothing",
            Some(&["log"]),
        ),
        (
            "insert into log values (1) on conflict (a) do update set a = 2",
            Some(&["log"]),
        ),
        ("update log set a = 1", Some(&["log"])),
        (
            "update only log l set a = u.a from users u",
            Some(&["log", "users"]),
        ),
        (
            "delete from log where a = (select 1 from users)",
            Some(&["log", "users"]),
        ),
        ("copy log from stdin", Some(&["log"])),
        (
            "insert into log select order_count()",
            Some(&["log", "orders"]),
        ),
        // Triggers, cascades, inheritance.
        ("insert into watched values (1)", Some(&["watched", "log"])),
        ("insert into stamped values (1)", Some(&["stamped"])),
        ("delete from orders", Some(&["orders", "items"])),
        ("delete from items", Some(&["items"])),
        ("insert into parts_1 values (1)", Some(&["parts"])),
        ("insert into parts values (1)", Some(&["parts"])),
        (
            "insert into log values (1); insert into items values (1)",
            Some(&["log", "items"]),
        ),
        ("begin; insert into log values (1); commit", Some(&["log"])),
        ("select nextval('s')", Some(&[])),
        // What comes back may tell of anything.
        ("insert into log select * from users returning *", None),
        (
            "insert into log values (1) on conflict (a) do update set a = 2 returning *",
            None,
        ),
        ("insert into watched values (1) returning *", None),
        ("insert into log values (1) returning order_count()", None),
        (
            "insert into log values (1) returning (select a from users)",
            None,
        ),
        ("update log set a = 1 returning *", None),
        ("delete from log returning *", None),
        ("select nextval('s') from log", None),
        ("select nextval('s'), pg_backend_pid()", None),
        // Whoever has waited for a lock is to see what its last holder has written.
        ("select pg_advisory_lock(1)", None),
        ("insert into log values (pg_advisory_lock(1))", None),
        // It can't be told.
        ("insert into ruled values (1)", None),
        ("insert into recent values (1)", None),
        ("insert into far values (1)", None),
        ("insert into unheard_of values (1)", None),
        ("insert into log select anything()", None),
        ("insert into log select empties()", None),
        ("insert into log select tree()", None),
        ("with x as (select 1) insert into log select 1", None),
        (
            "insert into log with x as (delete from users returning *) select * from x",
            None,
        ),
        (
            "merge into log using users on true when matched then delete",
            None,
        ),
        ("truncate log", None),
        ("refresh materialized view totals", None),
        ("create table x (a int)", None),
        ("call p()", None),
        ("do 'x'", None),
        ("insert into log values (1); do 'x'", None),
    ]);
}

#[test]
fn what_only_frames_writes_concerns_nothing() {
    check(&[
        ("", Some(&[])),
        ("begin", Some(&[])),
        ("commit", Some(&[])),
        ("commit and chain", Some(&[])),
        ("rollback", Some(&[])),
        ("savepoint a", Some(&[])),
        ("release a", Some(&[])),
        ("rollback to a", Some(&[])),
        ("set local x.y = 1", Some(&[])),
        ("prepare x as insert into log values (1)", Some(&[])),
        ("deallocate x", Some(&[])),
        // Two phases: what was prepared isn't told here.
        ("prepare transaction 'x'", None),
        ("commit prepared 'x'", None),
        ("fetch c", None),
        ("listen x", None),
        ("notify x", None),
    ]);
}

#[test]
fn without_a_catalogue_nothing_can_be_told() {
    for text in ["select * from log", "insert into log values (1)"] {
        let class = classify(text.as_bytes(), Lexing::default(), None);
        assert_eq!(class.tables, Tables::ALL, "{text}");
    }
}
