use proptest::prelude::*;

use super::*;

fn form(text: &str) -> Option<Vec<u8>> {
    let mut out = Buffer::default();
    let form = canonical(text.as_bytes(), Lexing::default(), &mut out);
    (form != Form::Unreadable).then(|| out.bytes().to_vec())
}

fn same(texts: &[&str]) {
    for pair in texts.windows(2) {
        assert!(form(pair[0]).is_some(), "{}", pair[0]);
        assert_eq!(form(pair[0]), form(pair[1]), "{} / {}", pair[0], pair[1]);
    }
}

fn different(texts: &[&str]) {
    for (i, a) in texts.iter().enumerate() {
        for b in &texts[i + 1..] {
            assert_ne!(form(a), form(b), "{a} / {b}");
        }
    }
}

#[test]
fn literals_white_space_and_case_do_not_count() {
    same(&[
        "select * from T where a = 1 and b='x'",
        "SELECT *\n FROM t WHERE a=2 AND b = $$y$$;",
        "/* c */ select*from t where A = 3 -- d\n and b=E'z';;",
    ]);
    same(&["select $1", "select $2"]);
    same(&["select 1 limit 2147483647", "select 0001 limit 5"]);
}

#[test]
fn kinds_of_literals_count() {
    different(&[
        "select f(1)",
        "select f(-1)",
        "select f('1')",
        "select f(N'1')",
        "select f(n '1')",
        "select f($1)",
        "select f(1.0)",
        "select f(2147483648)",
        "select f(9223372036854775808)",
        "select f(B'1')",
        "select f(X'1')",
        "select f(null)",
        "select f(true)",
    ]);
}

#[test]
fn everything_else_counts() {
    different(&[
        "select a",
        "select \"a\"",
        "select \"A\"",
        "select a, a",
        "select (a)",
        "select a.a",
        "select a a",
        "select aa",
        "select a;select a",
        "select a + a",
        "select a - a",
        "select a +- a",
        "select a @ - a",
        "select a @- a",
        "select a::a",
        "select a[1]",
        "select /* pgsplit: primary */ a",
        "select /* pgsplit: replica */ a",
        "select \"a\" \"a\"",
        "select \"a\"\"a\"",
        "select u&a",
        "select u & \"a\"",
        "select U&\"a\"",
        "select é",
        "select É",
    ]);
}

#[test]
fn lists_of_literals_fold() {
    same(&[
        "select a in (1)",
        "select a in (1, 2)",
        "select a IN(3,4,5 , 6)",
    ]);
    same(&["select a in ($1)", "select a in ($1, $2)"]);
    same(&["select a in (1, 'x')", "select a in ('x', 1, 2)"]);
    same(&["select a in (1, -1)", "select a in (-2, 3, +4)"]);
    same(&["select a in ((1, 'x'))", "select a in ((2, 'y'), (3, 'z'))"]);
    same(&[
        "insert into t values (1, 'x')",
        "insert into t values (1, 'x'), (2, 'y')",
    ]);
    same(&["select array[1]", "select array[1,2]"]);
    same(&[
        "values (1, null), ('x', default)",
        "values ('x', null), (1, default)",
    ]);
    different(&[
        "select a in (1)",
        "select a in (-1)",
        "select a in ('1')",
        "select a in ($1)",
        "select a in (1, '1')",
        "select a in (null)",
        "select a in ()",
        "select a in (b)",
        "select a in (1, b)",
        "select a in (1, 1 + b)",
        "select a in (1 + b)",
        "select a in (1, f())",
        "select a in ((1))",
        "select a in ((1, 2))",
        "select a in ((1, 2), 3)",
        "select a in (select 1)",
        "select a in (1) and b",
    ]);
    different(&[
        "values (1)",
        "values (1, 1)",
        "values (1), (f())",
        "values (1), (1, 1)",
        "values ('x')",
        "values (1), ('x')",
        "values (1), (2) limit 1",
    ]);
    // A function's arguments aren't a list.
    different(&[
        "select s.in(1)",
        "select s.in(1, 2)",
        "select s.values(1), (2)",
        "select s.values(1)",
    ]);
}

#[test]
fn literals_stay_where_they_may_decide() {
    for pair in [
        ["set x = 1", "set x = 2"],
        ["select 1; set x = 'a'", "select 1; set x = 'b'"],
        ["execute p(1)", "execute p(2)"],
        [
            "explain (analyze 1) select 1",
            "explain (analyze 0) select 1",
        ],
        ["copy t to 'a'", "copy t to 'b'"],
        [
            "select set_config('a', 'b', true)",
            "select set_config('a', 'c', true)",
        ],
        ["select 'f()'::regprocedure", "select 'g()'::regprocedure"],
        [
            "select 'f'::pg_catalog.\"regproc\"",
            "select 'g'::pg_catalog.\"regproc\"",
        ],
        ["select regclass 'a'", "select regclass 'b'"],
        [
            "select query_to_xml('select 1')",
            "select query_to_xml('select f()')",
        ],
        ["select U&\"a\"('a')", "select U&\"a\"('b')"],
        [
            "select a in (1) and current_setting('a')",
            "select a in (2) and current_setting('a')",
        ],
        [
            "create function f() begin atomic select 1; end",
            "create function f() begin atomic select 2; end",
        ],
        ["do 'a'", "do 'b'"],
        ["notify a, 'a'", "notify a, 'b'"],
    ] {
        different(&pair);
    }
    // One statement's don't make another's stay.
    same(&["begin; select 1; commit", "begin; select 2; commit"]);
}

#[test]
fn unreadable_texts_have_no_fingerprint() {
    for text in ["select 'a", "select 1a", "select \"\"", "select $", "a\0b"] {
        assert_eq!(form(text), None);
    }
}

#[test]
fn samples_tell_no_literal() {
    let sample = |text: &str| sample(text.as_bytes(), Lexing::default());
    assert_eq!(
        &*sample("alter  role a password 'secret' /* c */ + 5.1, $1"),
        "alter role a password ? + ?, $1"
    );
    assert_eq!(&*sample("select 'secret"), "select …");
    assert_eq!(sample(&"é ".repeat(500)).chars().count(), 200);
}

#[test]
fn the_form_is_at_most_twice_as_long_as_the_text() {
    for text in [
        "a,a,a,a,a,a",
        "in(1)",
        "values(1,1,1,1)",
        "1+1+1+1",
        "a.a.a.a",
    ] {
        let length = form(text).unwrap().len();
        assert!(length <= 2 * text.len() + 16, "{text}: {length}");
    }
}

#[test]
fn keys_and_lexing_are_part_of_the_hash() {
    let a = Key::new([1, 2, 3, 4]);
    let b = Key::new([1, 2, 3, 5]);
    let on = Lexing::default();
    let off = Lexing {
        standard_conforming_strings: false,
        ..on
    };
    assert_eq!(a.hash(b"x", on), a.hash(b"x", on));
    assert_ne!(a.hash(b"x", on), b.hash(b"x", on));
    assert_ne!(a.hash(b"x", on), a.hash(b"x", off));
    assert_ne!(a.hash(b"x", on), a.hash(b"x\0", on));
    assert_ne!(
        a.hash(b"", on) >> 64,
        a.hash(b"", on) & u128::from(u64::MAX)
    );
}

/// The skeleton as the lexer sees it.
fn skeleton_by_lexer(text: &[u8], lexing: Lexing) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut last = 0;
    let mut lexer = Lexer::new(text, lexing);
    let gap = |out: &mut Vec<u8>, mut at: usize, end: usize| {
        while at < end {
            out.push(b' ');
            at = match &text[at..] {
                [b'-', ..] => scan::line_comment_end(text, at + 2),
                [b'/', ..] => scan::block_comment_end(text, at + 2).unwrap(),
                _ => at + 1,
            };
        }
    };
    for token in lexer.by_ref() {
        gap(&mut out, last, token.start);
        last = token.end;
        let bytes = token.bytes(text);
        match token.kind {
            TokenKind::Error => return None,
            TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::NationalString
            | TokenKind::DollarString
            | TokenKind::Bits
            | TokenKind::HexBits
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::Param => out.push(mark::of(token.kind, bytes)),
            _ => out.extend_from_slice(bytes),
        }
    }
    gap(&mut out, last, text.len());
    match lexer.hint() {
        None => {}
        Some(Hint::Primary) => out.push(mark::HINT_PRIMARY),
        Some(Hint::Replica) => out.push(mark::HINT_REPLICA),
    }
    Some(out)
}

/// The skeleton is what the lexer sees, or none where two points or double quotes follow each other.
fn check_skeleton(text: &[u8], lexing: Lexing) {
    let mut out = Buffer::default();
    let expected = skeleton_by_lexer(text, lexing);
    let shown = String::from_utf8_lossy(text);
    if skeleton(text, lexing, &mut out) {
        assert_eq!(Some(out.bytes().to_vec()), expected, "{shown:?} {lexing:?}");
    } else if !text.windows(2).any(|two| two == b".." || two == b"\"\"") {
        assert_eq!(expected, None, "{shown:?} {lexing:?}");
    }
}

#[test]
fn skeletons_are_what_the_lexer_sees() {
    for text in [
        "",
        "select a1, b$1, $1, 1, .5, a.5, 1.5.5, t.c1 from é2",
        "select e'a\\'b', E'', n'x', name'x', u&'x', xu&'x', U&\"x\", b'1', xb'1', 'a'e'b'",
        "select 'a' -- b\n 'c' /* d */ 'e' --",
        "select $$a$$, x$$, $1$$b$$",
        "select a+--b\nc*/*d*/e-f//**/g",
        "select \"a'b\" \"c\"\"d1\"1",
        "select /* pgsplit: replica */ 1",
        "select 1a",
        "select \\",
        "select 'a",
        "select 'a\\'' from b",
        "select 12345678901, 99999999999999999999",
    ] {
        check_skeleton(text.as_bytes(), Lexing::default());
    }
}

/// Pieces of text in which tokens begin, end and hide in many ways.
fn nasty_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => proptest::sample::select(&b"\0'\"$-/*+\\\n\r\tueEbBxXnNU&;().,:=@_{} 0159aAzZ"[..])
            .prop_map(|byte| vec![byte]),
        2 => proptest::sample::select(vec![
            "select ", " in (", "values (", "U&\"", "u&'", "e'", "$a$", "$$", "''", "--", "/*", "*/",
            "1.5", "0x1f", "1e5", "col1", "é", "/* pgsplit: primary */", "'x'", "\"y\"", "regclass",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_statement_has_one_fingerprint_however_it_is_spelled(
        statement in grammar::statement(),
        one in grammar::spelling(),
        other in grammar::spelling(),
    ) {
        let (one, other) = (grammar::spell(&statement, &one), grammar::spell(&statement, &other));
        let found = form(&one);
        prop_assert!(found.is_some());
        prop_assert_eq!(found, form(&other), "{} / {}", one, other);
    }

    #[test]
    fn another_statement_has_another_fingerprint(
        statement in grammar::statement(),
        spelling in grammar::spelling(),
        place in 0..100_usize,
        how in 0..100_usize,
    ) {
        let changed = grammar::changed(&statement, place, how);
        let one = grammar::spell(&statement, &spelling);
        let other = grammar::spell(&changed, &spelling);
        prop_assert_ne!(form(&one), form(&other), "{} / {}", one, other);
        let mut skeletons = [Buffer::default(), Buffer::default()];
        let mut both = true;
        for (text, out) in [one, other].iter().zip(&mut skeletons) {
            let whole = skeleton(text.as_bytes(), Lexing::default(), out);
            prop_assert!(whole || text.contains("\"\""), "{}", text);
            both &= whole;
        }
        prop_assert!(!both || skeletons[0].bytes() != skeletons[1].bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn skeletons_of_nasty_texts_are_what_the_lexer_sees(
        text in nasty_text(),
        standard_conforming_strings: bool,
        ascii_safe_encoding: bool,
    ) {
        let lexing = Lexing { standard_conforming_strings, ascii_safe_encoding };
        check_skeleton(&text, lexing);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_panics_whatever_the_text(
        text in nasty_text(),
        first in proptest::sample::select(vec![
            "", "set ", "set time zone ", "set x = ", "set pgsplit.x = ", "reset ", "show ", "begin ",
            "rollback to ", "prepare ", "explain ", "create ", "select set_config(", "do ", "declare ",
        ]),
        standard_conforming_strings: bool,
        ascii_safe_encoding: bool,
    ) {
        use crate::sql::{CacheLimits, Class, ClassCache, effects, hint, utility};
        let lexing = Lexing { standard_conforming_strings, ascii_safe_encoding };
        let text = [first.as_bytes(), &text].concat();
        let effects = effects(&text, lexing);
        let class = utility(&text, lexing);
        let readable = form_of(&text, lexing) != Form::Unreadable;
        prop_assert!(readable || (effects.is_none() && class.is_none()));
        let mut cache = ClassCache::new(CacheLimits::default(), [1, 2, 3, 4]);
        let expected = if readable { Class::primary(crate::sql::Why::Ddl, crate::sql::Traits::NONE) } else { Class::UNKNOWN };
        for _ in 0..2 {
            let found = cache.classify(&text, lexing, 1, || expected);
            prop_assert_eq!(found, expected);
        }
        prop_assert!(sample(&text, lexing).chars().count() <= SAMPLE);
        let _: Option<Hint> = hint(&text, lexing);
    }
}

fn form_of(text: &[u8], lexing: Lexing) -> Form {
    canonical(text, lexing, &mut Buffer::default())
}
