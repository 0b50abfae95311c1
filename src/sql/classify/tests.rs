mod tables;

use proptest::prelude::*;

use super::*;
use crate::sql::{
    CatalogueBuilder,
    catalogue::QueryId,
    fingerprint::{Buffer, Form, canonical, grammar},
};

/// A small database: tables `t` and `u`, a view `v` over a volatile function, some functions.
fn catalogue() -> Catalogue {
    let mut builder = CatalogueBuilder::new();
    let mut row = |query, columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|&c| Some(c)).collect();
        builder.row(query, &columns);
    };
    for (oid, name, kind) in [
        ("20000", "t", "r"),
        ("20001", "u", "r"),
        ("20002", "v", "v"),
        ("20003", "s", "S"),
        ("20004", "loud", "r"),
        ("20005", "parted", "p"),
        ("20006", "followed", "r"),
        ("20007", "through", "v"),
        ("20008", "ruled", "r"),
        ("20009", "defaults", "r"),
    ] {
        let rules = if name == "ruled" { "true" } else { "false" };
        row(
            QueryId::Relations,
            &[oid, name, kind, "p", "false", "f", rules],
        );
    }
    row(QueryId::Kin, &["i", "20005", "20004"]);
    row(QueryId::Kin, &["c", "20006", "20004"]);
    row(QueryId::Edges, &["r", "20007", "r", "20006"]);
    row(QueryId::Reached, &["g", "20009", "f", "105"]);
    row(QueryId::Reached, &["g", "20000", "f", "102"]);
    row(QueryId::Edges, &["r", "20002", "f", "20010"]);
    row(QueryId::Edges, &["g", "20004", "f", "20011"]);
    for (oid, name, origin, volatility, language) in [
        ("20010", "f_volatile", "u", "v", "plpgsql"),
        ("20011", "f_trigger", "u", "v", "plperl"),
        ("100", "now", "b", "s", "internal"),
        ("101", "lower", "b", "i", "internal"),
        ("102", "nextval", "b", "v", "internal"),
        ("103", "random", "b", "v", "internal"),
        ("104", "pg_advisory_lock", "b", "v", "internal"),
        ("105", "set_config", "b", "v", "internal"),
        ("106", "currval", "b", "v", "internal"),
        ("107", "pg_is_in_recovery", "b", "v", "internal"),
        ("108", "pg_backend_pid", "b", "s", "internal"),
        ("109", "count", "b", "i", "internal"),
        ("110", "current_setting", "b", "s", "internal"),
    ] {
        let columns = [
            oid, name, origin, "f", volatility, language, "true", "false",
        ];
        row(QueryId::Functions, &columns);
    }
    for operator in [
        "=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "||", "~", "~~",
    ] {
        builder.row(QueryId::Operators, &[None, Some(operator), None]);
    }
    for name in ["int4", "text"] {
        builder.row(QueryId::Types, &[None, Some(name), None]);
    }
    builder.row(QueryId::Schemas, &[Some("public")]);
    builder.finish(1)
}

fn of(text: impl AsRef<[u8]>) -> Class {
    classify(text.as_ref(), Lexing::default(), Some(&catalogue()))
}

const PURE: Traits = Traits::PURE_READ;
const OBSERVE: Traits = Traits::OBSERVE;

#[test]
fn traits_tell_what_the_session_must_look_at() {
    for (text, traits) in [
        ("select 1", PURE),
        ("select * from t", PURE),
        ("select nextval('s')", Traits::NONE),
        ("select pg_backend_pid()", PURE),
        ("select pg_is_in_recovery()", PURE),
        ("select last_value from s", PURE),
        ("select * from t for update", Traits::NONE),
        ("select pg_advisory_lock(1)", OBSERVE),
        ("select set_config('a', 'b', false)", Traits::EFFECTS),
        (
            "select set_config('a', b, false) from t",
            OBSERVE.with(Traits::EFFECTS),
        ),
        ("select currval('s')", Traits::SEQUENCES.with(PURE)),
        ("select f_volatile()", OBSERVE),
        ("select * from v", OBSERVE),
        ("select unheard_of()", OBSERVE),
        ("select * from unheard_of", OBSERVE),
        ("select from from", OBSERVE),
        ("insert into t values (1)", Traits::NONE),
        (
            "insert into t values (nextval('s')) returning lower('x')",
            Traits::NONE,
        ),
        ("insert into t select f_volatile()", OBSERVE),
        ("insert into t select unheard_of()", OBSERVE),
        ("insert into loud values (1)", OBSERVE),
        ("insert into parted values (1)", OBSERVE),
        ("delete from followed", OBSERVE),
        ("update through set a = 1", OBSERVE),
        ("insert into ruled values (1)", OBSERVE),
        ("insert into defaults values (1)", OBSERVE),
        (
            "update t set a = 1 from u where t.a = u.a",
            Traits::NO_SEQUENCES,
        ),
        ("delete from t", Traits::NO_SEQUENCES),
        (
            "merge into t using u on t.a = u.a when matched then delete",
            Traits::NONE,
        ),
        (
            "with x as (insert into t values (1)) select 1",
            Traits::NONE,
        ),
        ("select * into x from t", OBSERVE.with(Traits::DDL)),
        ("select * into temp x from t", OBSERVE.with(Traits::DDL)),
        ("copy t from stdin", Traits::COPY),
        ("copy t from stdout", Traits::COPY),
        ("copy t to stdout", Traits::COPY.with(PURE)),
        ("copy (select nextval('s')) to stdout", Traits::COPY),
        ("declare c cursor for select 1", Traits::EFFECTS.with(PURE)),
        (
            "declare c cursor with hold for select * from t",
            Traits::EFFECTS.with(PURE).with(OBSERVE),
        ),
        ("select 1; select 2", PURE),
        (
            "select now(); select 1",
            PURE.with(Traits::TRANSACTION_TIME),
        ),
        ("select 1; insert into t values (1)", Traits::NONE),
        ("do 'x'", OBSERVE),
    ] {
        assert_eq!(of(text).traits, traits, "{text}");
    }
}

#[test]
fn several_statements_have_the_strictest_class() {
    let read = (Kind::Several, Access::Read);
    let primary = |why| (Kind::Several, Access::Primary(why));
    for (text, expected) in [
        ("select 1; select 2", read),
        ("set x = 1; select 1", read),
        (
            "select 1; insert into t values (1); select 2",
            primary(Why::Write),
        ),
        ("begin; select 1", primary(Why::Transaction)),
        ("begin read only; select 1", read),
        (
            "begin isolation level serializable read only; select 1",
            primary(Why::Transaction),
        ),
        ("select 1; selec 2", primary(Why::Unparsable)),
        ("; ;select 1;;", (Kind::Single, Access::Read)),
        (" -- nothing\n;", (Kind::Empty, Access::Anywhere)),
    ] {
        let class = of(text);
        assert_eq!((class.kind, class.access), expected, "{text}");
    }
}

#[test]
fn without_a_catalogue_only_what_names_nothing_is_a_read() {
    for (text, access) in [
        ("select 1", Access::Read),
        ("values (1, 'a')", Access::Read),
        ("select now()", Access::Primary(Why::NoCatalogue)),
        ("select 1 + 1", Access::Primary(Why::NoCatalogue)),
        ("select * from t", Access::Primary(Why::NoCatalogue)),
        (
            "select u.f from (select 1) u",
            Access::Primary(Why::NoCatalogue),
        ),
        ("select 'x'::int4", Access::Primary(Why::NoCatalogue)),
        ("insert into t values (1)", Access::Primary(Why::Write)),
        ("begin", Access::Anywhere),
    ] {
        assert_eq!(
            classify(text.as_bytes(), Lexing::default(), None).access,
            access,
            "{text}"
        );
    }
}

#[test]
fn hints_are_part_of_the_class() {
    assert_eq!(
        of("/* pgsplit: primary */ select 1").hint,
        Some(Hint::Primary)
    );
    assert_eq!(
        of("insert into t values (1) /* pgsplit: replica */").hint,
        Some(Hint::Replica)
    );
}

#[test]
fn text_that_is_not_utf8_is_read() {
    assert_eq!(
        of(b"select 'gr\xfc\xdfe', \"stra\xdfe\" from t -- \xff").access,
        Access::Read
    );
}

#[test]
fn encodings_that_hide_ascii_bytes_are_not_guessed() {
    let lexing = Lexing {
        ascii_safe_encoding: false,
        ..Lexing::default()
    };
    let text = b"select '\x81\x5c' from t";
    assert_eq!(
        classify(text, lexing, Some(&catalogue())).access,
        Access::Primary(Why::Unparsable)
    );
    let text = b"select 'plain' from t";
    assert_eq!(
        classify(text, lexing, Some(&catalogue())).access,
        Access::Read
    );
}

#[test]
fn backslashes_escape_as_the_session_says() {
    let text = br"select '\', nextval('s'), ''";
    assert_eq!(of(text).access, Access::Primary(Why::Function));
    let lexing = Lexing {
        standard_conforming_strings: false,
        ..Lexing::default()
    };
    let text = br"select '\', nextval(''s''), '";
    assert_eq!(
        classify(text, lexing, Some(&catalogue())).access,
        Access::Read
    );
}

#[test]
fn long_lists_and_deep_nesting_are_read() {
    let list = |n: usize| vec!["1"; n].join(", ");
    for text in [
        format!("select * from t where a in ({})", list(10_000)),
        format!("select {} from t", list(1_000)),
        format!(
            "select * from (values {}) x(a)",
            vec!["(1, 'a')"; 5_000].join(", ")
        ),
        format!("select {}1{}", "(".repeat(1_000), ")".repeat(1_000)),
        format!("select {}1{}", "(1 + ".repeat(300), ")".repeat(300)),
        format!("select {}1{}", "lower(".repeat(300), ")".repeat(300)),
        format!("select {}1", "1 + ".repeat(3_000)),
        format!("select * from t where {}a = 1", "a = 2 or ".repeat(2_000)),
        format!("select 1 {}", "union all select 1 ".repeat(1_000)),
        format!("select * from t {}", "join u on true ".repeat(500)),
        format!(
            "select {}1{}",
            "case when true then ".repeat(200),
            " end".repeat(200)
        ),
        format!(
            "select * from {}t{}",
            "(select * from ".repeat(150),
            ") x".repeat(150)
        ),
    ] {
        let told = of(&text).access;
        assert_eq!(told, Access::Read, "{text:.60}…");
    }
}

#[test]
fn hostile_shapes_end_in_a_class() {
    let n = 2_500;
    for (before, middle, after) in [
        ("(", "1", ")"),
        ("1 + ", "1", ""),
        ("- ", "1", ""),
        ("not ", "true", ""),
        ("array[", "1", "]"),
        ("a[", "1", "]"),
        ("case when ", "1", " end"),
        ("(select ", "1", ")"),
        ("", "1", "::int4"),
        ("", "a", ".b"),
        ("", "a", "[1]"),
        ("", "1", " is null"),
        ("", "1", " union select 1"),
        ("lower(", "1", ")"),
        ("cast(", "1", " as int4)"),
        ("(1, ", "1", ")"),
        ("exists (select ", "1", ")"),
        ("1 in (", "1", ")"),
        ("a between 1 and ", "1", ""),
        ("interval ", "'1'", ""),
        ("(a).b", "", ""),
        ("from ", "", ""),
        ("select ", "", ""),
        ("with x as (", "select 1", ") select 1"),
        ("t join ", "t", " on true"),
        ("(t join ", "t", " on true)"),
        ("(", "t", " join t on true)"),
        ("(select * from (", "t", ") x)"),
        ("lateral ", "t", ""),
        ("1 = any (", "1", ")"),
        ("json_value(", "1", " null on error)"),
        ("a collate ", "1", ""),
        ("x(a b", "", ")"),
        ("1 in (select 1 from t where ", "true", ")"),
        ("f() over (partition by ", "1", ")"),
        ("f() filter (where ", "1", ")"),
        ("t natural join ", "t", ""),
        ("values (", "1", ")"),
        ("explain ", "select 1", ""),
        ("copy (", "select 1", ") to stdout"),
        ("declare c cursor for ", "select 1", ""),
    ] {
        for depth in [50, n] {
            let text = format!("{}{middle}{}", before.repeat(depth), after.repeat(depth));
            let _ = of(&text);
            let _ = of(format!("select {text}"));
            let _ = of(format!("select * from {text}"));
        }
    }
}

#[test]
fn what_is_longer_than_is_looked_at_goes_to_the_primary() {
    let text = format!("select '{}'", "x".repeat(token::MAX_TEXT));
    assert_eq!(of(text).access, Access::Primary(Why::TooLong));
}

/// Pieces that statements are made of, and that trip up readers.
const PIECES: &[&str] = &[
    "select",
    "from",
    "t",
    "u",
    "v",
    "where",
    "a",
    "b",
    "(",
    ")",
    ",",
    ".",
    "*",
    "=",
    "+",
    "-",
    "::",
    "int4",
    "'x'",
    "1",
    "$1",
    "nextval",
    "now",
    "lower",
    "in",
    "not",
    "and",
    "or",
    "case",
    "when",
    "then",
    "else",
    "end",
    "cast",
    "as",
    "array",
    "[",
    "]",
    ":",
    "with",
    "recursive",
    "x",
    "materialized",
    "insert",
    "into",
    "update",
    "delete",
    "returning",
    "values",
    "table",
    "only",
    "join",
    "on",
    "using",
    "lateral",
    "union",
    "all",
    "order",
    "by",
    "group",
    "limit",
    "for",
    "explain",
    "analyze",
    "copy",
    "to",
    "stdout",
    "declare",
    "cursor",
    "over",
    "partition",
    "rows",
    "between",
    "filter",
    "within",
    "extract",
    "substring",
    "trim",
    "interval",
    "timestamp",
    "is",
    "null",
    "json_value",
    "xmlelement",
    "name",
    "tablesample",
    "operator",
    "collate",
    "at",
    "time",
    "zone",
    "search",
    "cycle",
    "fetch",
    "first",
    "row",
    "exists",
    "any",
    "distinct",
    "\"q\"",
    "E'\\''",
    "U&\"\\0061\"",
    "uescape",
    "$$",
    "/*",
    "*/",
    "--",
    "\n",
    ";",
    "=>",
    ":=",
    "..",
    "double",
    "precision",
    "variadic",
    "current",
    "grouping",
    "sets",
    "rollup",
    "as",
    "asc",
    "window",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_have_a_class(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = of(text);
    }

    #[test]
    fn any_statement_like_text_has_a_class(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)
    ) {
        let text = pieces.join(" ");
        let _ = of(&text);
        let _ = of(format!("select {text}"));
    }

    #[test]
    fn a_call_cannot_be_hidden(
        before in proptest::collection::vec(proptest::sample::select(PIECES), 0..12),
        after in proptest::collection::vec(proptest::sample::select(PIECES), 0..12),
    ) {
        let text = format!("select {} nextval ('s') {}", before.join(" "), after.join(" "));
        // Unless it stands in a comment or a string.
        let quoted = before.iter().any(|p| matches!(*p, "/*" | "--" | "$$"));
        prop_assert!(quoted || of(&text).access != Access::Read, "{}", text);
    }
}

/// One literal in another's place, of the same kind as far as fingerprints tell kinds apart.
const LITERALS: &[&[&str]] = &[
    &["1", "2", "0", "77", "2147483647"],
    &["2147483648", "9223372036854775807"],
    &["1.5", "1e5", ".5", "12345678901234567890123.4"],
    &[
        "'x'",
        "''",
        "'nextval(''s'')'",
        "'t; delete from t'",
        "'2020-01-01'",
        "'--'",
        "'/*'",
        "'$$'",
        "'{1,2}'",
        "'f_volatile'",
    ],
    &["E'\\''", "e'a\\\\b'", "E''"],
    &["$$x$$", "$a$ nextval('s') $a$", "$$'$$"],
    &["$1", "$2", "$77"],
    &["B'01'", "b''"],
    &["X'0f'", "x''"],
];

/// A piece of a text, or a literal of one of [`LITERALS`].
#[derive(Clone, Debug)]
enum Part {
    Piece(&'static str),
    Literal(usize),
    /// Literals of one kind with commas between them, as many as the spelling says.
    List(usize),
}

fn part() -> impl Strategy<Value = Part> {
    let kind = || 0..LITERALS.len();
    prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(Part::Piece),
        3 => proptest::sample::select(DECIDING).prop_map(Part::Piece),
        4 => kind().prop_map(Part::Literal),
        1 => kind().prop_map(Part::List),
    ]
}

/// What makes literals matter, or might.
const DECIDING: &[&str] = &[
    "set_config (",
    "current_setting (",
    ":: regclass",
    "regproc",
    "nextval (",
    "currval (",
    "in (",
    "values (",
    "array [",
    "interval",
    "date",
    "limit",
    "offset",
    "set",
    "prepare",
    "execute",
    "explain (",
    "begin",
    "read only",
    "isolation level",
    "serializable",
    "commit",
    "listen",
    "/* pgsplit: primary */",
    "/* pgsplit: replica */",
    "f_volatile (",
    "select * from t where a =",
    "select lower (",
    "insert into t values (",
    ") returning",
    ") from u",
];

/// Spells the parts, choosing literals by `choices`.
fn spelled(parts: &[Part], choices: &[usize], upper: bool) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut next = || choices.next().unwrap_or_default();
    let pieces: Vec<String> = parts
        .iter()
        .map(|part| match part {
            // What is quoted, in dollars or in a comment must stay as it is.
            Part::Piece(piece) if upper && piece.bytes().all(|b| b.is_ascii_lowercase()) => {
                piece.to_ascii_uppercase()
            }
            Part::Piece(piece) => (*piece).to_owned(),
            Part::Literal(kind) => LITERALS[*kind][next() % LITERALS[*kind].len()].to_owned(),
            Part::List(kind) => {
                let of = LITERALS[*kind];
                let count = 1 + next() % 4;
                let list: Vec<_> = (0..count).map(|_| of[next() % of.len()]).collect();
                format!("( {} )", list.join(" , "))
            }
        })
        .collect();
    pieces.join(" ")
}

/// What a class is cached under.
fn key(text: &str, lexing: Lexing) -> Option<(Vec<u8>, Option<Hint>)> {
    let mut out = Buffer::default();
    let form = canonical(text.as_bytes(), lexing, &mut out);
    (form != Form::Unreadable).then(|| {
        (
            out.bytes().to_vec(),
            crate::sql::hint(text.as_bytes(), lexing),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn texts_of_one_fingerprint_have_one_class(
        parts in proptest::collection::vec(part(), 1..14),
        one in proptest::collection::vec(0..100_usize, 8),
        other in proptest::collection::vec(0..100_usize, 8),
        upper: bool,
        standard_conforming_strings: bool,
    ) {
        let lexing = Lexing { standard_conforming_strings, ..Lexing::default() };
        let catalogue = catalogue();
        let class = |text: &str| classify(text.as_bytes(), lexing, Some(&catalogue));
        for first in ["", "select ", "select * from t where a = "] {
            let one = format!("{first}{}", spelled(&parts, &one, false));
            let other = format!("{first}{}", spelled(&parts, &other, upper));
            if let (Some(a), Some(b)) = (key(&one, lexing), key(&other, lexing))
                && a == b
            {
                prop_assert_eq!(class(&one), class(&other), "{} / {}", one, other);
            }
        }
    }

    #[test]
    fn statements_that_differ_in_spelling_have_one_class(
        statement in grammar::statement(),
        one in grammar::spelling(),
        other in grammar::spelling(),
    ) {
        let (one, other) = (grammar::spell(&statement, &one), grammar::spell(&statement, &other));
        let lexing = Lexing::default();
        prop_assert_eq!(key(&one, lexing), key(&other, lexing));
        prop_assert_eq!(of(&one), of(&other), "{} / {}", one, other);
    }
}

#[test]
fn literals_are_changed_without_changing_the_fingerprint_often_enough() {
    // Else the property above would hold of nothing.
    let parts = [
        Part::Piece("select * from t where a ="),
        Part::Literal(0),
        Part::Piece("and"),
        Part::Piece("lower"),
        Part::Piece("("),
        Part::Literal(3),
        Part::Piece(")"),
        Part::Piece("in"),
        Part::List(3),
    ];
    let (one, other) = (
        spelled(&parts, &[0, 1, 2, 3], false),
        spelled(&parts, &[1, 2, 3, 4], true),
    );
    assert_ne!(one, other);
    assert_eq!(key(&one, Lexing::default()), key(&other, Lexing::default()));
}
