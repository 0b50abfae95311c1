use proptest::prelude::*;

use super::{TokenKind as Kind, *};

const ON: Lexing = Lexing {
    standard_conforming_strings: true,
    ascii_safe_encoding: true,
};
const OFF: Lexing = Lexing {
    standard_conforming_strings: false,
    ascii_safe_encoding: true,
};
const UNSAFE: Lexing = Lexing {
    standard_conforming_strings: true,
    ascii_safe_encoding: false,
};

fn tokens(text: &[u8], lexing: Lexing) -> Vec<(Kind, String)> {
    Lexer::new(text, lexing)
        .map(|t| (t.kind, String::from_utf8_lossy(t.bytes(text)).into_owned()))
        .collect()
}

fn check(text: &str, expected: &[(Kind, &str)]) {
    check_as(ON, text, expected);
}

fn check_as(lexing: Lexing, text: &str, expected: &[(Kind, &str)]) {
    let expected: Vec<_> = expected.iter().map(|&(k, t)| (k, t.to_owned())).collect();
    assert_eq!(tokens(text.as_bytes(), lexing), expected, "{text:?}");
}

fn unreadable(text: &[u8], lexing: Lexing) -> bool {
    Lexer::new(text, lexing).any(|t| t.kind == Kind::Error)
}

#[test]
fn words_and_quoted_names() {
    check(
        "a _b é$1 日本",
        &[
            (Kind::Word, "a"),
            (Kind::Word, "_b"),
            (Kind::Word, "é$1"),
            (Kind::Word, "日本"),
        ],
    );
    check(
        r#""a""b" U&"\0061" u&"x""#,
        &[
            (Kind::Quoted, r#""a""b""#),
            (Kind::UnicodeQuoted, r#"U&"\0061""#),
            (Kind::UnicodeQuoted, r#"u&"x""#),
        ],
    );
    check(
        "u & b",
        &[(Kind::Word, "u"), (Kind::Operator, "&"), (Kind::Word, "b")],
    );
    check(
        "u&b",
        &[(Kind::Word, "u"), (Kind::Operator, "&"), (Kind::Word, "b")],
    );
    check(
        "e b x n u",
        &[
            (Kind::Word, "e"),
            (Kind::Word, "b"),
            (Kind::Word, "x"),
            (Kind::Word, "n"),
            (Kind::Word, "u"),
        ],
    );
}

#[test]
fn strings_of_every_kind() {
    check(
        "'a''b' E'a\\'b' e'' U&'x' N'x' B'01' x'0F'",
        &[
            (Kind::String, "'a''b'"),
            (Kind::EscapeString, "E'a\\'b'"),
            (Kind::EscapeString, "e''"),
            (Kind::UnicodeString, "U&'x'"),
            (Kind::NationalString, "N'x'"),
            (Kind::Bits, "B'01'"),
            (Kind::HexBits, "x'0F'"),
        ],
    );
    // Two quotes don't stand for one in a bit string.
    check("B'0''1'", &[(Kind::Bits, "B'0'"), (Kind::String, "'1'")]);
    check("name'x'", &[(Kind::Word, "name"), (Kind::String, "'x'")]);
}

#[test]
fn backslashes_escape_only_where_the_session_says_so() {
    check(r"'a\' b", &[(Kind::String, r"'a\'"), (Kind::Word, "b")]);
    check_as(
        OFF,
        r"'a\' b' c",
        &[(Kind::String, r"'a\' b'"), (Kind::Word, "c")],
    );
    check_as(
        OFF,
        r"N'a\' b' c",
        &[(Kind::NationalString, r"N'a\' b'"), (Kind::Word, "c")],
    );
    check_as(
        OFF,
        r"B'1\' c",
        &[(Kind::Bits, r"B'1\'"), (Kind::Word, "c")],
    );
    assert!(unreadable(br"U&'a'", OFF));
    check_as(OFF, r#"U&"a""#, &[(Kind::UnicodeQuoted, r#"U&"a""#)]);
    assert!(unreadable(br"'a\'", OFF));
    assert!(unreadable(br"'a\", OFF));
}

#[test]
fn strings_go_on_behind_a_line_end() {
    for text in [
        "'a'\n'b'",
        "'a' \t\r 'b'",
        "'a' -- c\n'b'",
        "'a' -- c\r'b'",
        "'a'--\n--\n  'b'",
        "E'a'\n'b\\''",
        "B'0'\n'1'",
    ] {
        assert_eq!(tokens(text.as_bytes(), ON).len(), 1, "{text:?}");
    }
    for text in [
        "'a' 'b'",
        "'a' /* \n */ 'b'",
        "'a'\n/**/'b'",
        "'a'\n\"b\"",
        "'a'\n- 'b'",
    ] {
        assert!(tokens(text.as_bytes(), ON).len() > 1, "{text:?}");
    }
    // What goes on is of the first part's kind.
    check(
        "'a'\n'b\\' c",
        &[(Kind::String, "'a'\n'b\\'"), (Kind::Word, "c")],
    );
}

#[test]
fn dollar_quotes() {
    check(
        "$$a'$x$b$$ c",
        &[(Kind::DollarString, "$$a'$x$b$$"), (Kind::Word, "c")],
    );
    check("$a$ $b$a$", &[(Kind::DollarString, "$a$ $b$a$")]);
    check("$é1$x$é1$", &[(Kind::DollarString, "$é1$x$é1$")]);
    // None begins within a word or a parameter.
    check("x$$ y$$", &[(Kind::Word, "x$$"), (Kind::Word, "y$$")]);
    check(
        "$1$$a$$",
        &[(Kind::Param, "$1"), (Kind::DollarString, "$$a$$")],
    );
    for text in ["$$a", "$a$ $b$", "$", "$a", "$ $", "$A$ $a$"] {
        assert!(unreadable(text.as_bytes(), ON), "{text:?}");
    }
}

#[test]
fn numbers_and_parameters() {
    check(
        "1 1_000 0x1F 0b_1 0o7 1. .5 1.5e-3 1e5 $12",
        &[
            (Kind::Integer, "1"),
            (Kind::Integer, "1_000"),
            (Kind::Integer, "0x1F"),
            (Kind::Integer, "0b_1"),
            (Kind::Integer, "0o7"),
            (Kind::Decimal, "1."),
            (Kind::Decimal, ".5"),
            (Kind::Decimal, "1.5e-3"),
            (Kind::Decimal, "1e5"),
            (Kind::Param, "$12"),
        ],
    );
    check(
        "1..2",
        &[
            (Kind::Integer, "1"),
            (Kind::DotDot, ".."),
            (Kind::Integer, "2"),
        ],
    );
    check(
        "a[1:2]",
        &[
            (Kind::Word, "a"),
            (Kind::LeftBracket, "["),
            (Kind::Integer, "1"),
            (Kind::Colon, ":"),
            (Kind::Integer, "2"),
            (Kind::RightBracket, "]"),
        ],
    );
    for text in [
        "1a", "1_", "1__0", "0x", "0xg", "0b2", "1e", "1e+", "1.5f", "1é", "$1a", "$1_0",
    ] {
        assert!(unreadable(text.as_bytes(), ON), "{text:?}");
    }
}

#[test]
fn operators_end_before_comments_and_signs() {
    check(
        "a<-1",
        &[
            (Kind::Word, "a"),
            (Kind::Operator, "<"),
            (Kind::Operator, "-"),
            (Kind::Integer, "1"),
        ],
    );
    check(
        "a@-1",
        &[
            (Kind::Word, "a"),
            (Kind::Operator, "@-"),
            (Kind::Integer, "1"),
        ],
    );
    check(
        "a*-+b",
        &[
            (Kind::Word, "a"),
            (Kind::Operator, "*"),
            (Kind::Operator, "-"),
            (Kind::Operator, "+"),
            (Kind::Word, "b"),
        ],
    );
    check(
        "a+/*c*/b",
        &[(Kind::Word, "a"), (Kind::Operator, "+"), (Kind::Word, "b")],
    );
    check(
        "a+--c\nb",
        &[(Kind::Word, "a"), (Kind::Operator, "+"), (Kind::Word, "b")],
    );
    check(
        "a@--c\nb",
        &[(Kind::Word, "a"), (Kind::Operator, "@"), (Kind::Word, "b")],
    );
    check(
        "a*/b",
        &[(Kind::Word, "a"), (Kind::Operator, "*/"), (Kind::Word, "b")],
    );
    check(
        "a::b:=c=>d!=e",
        &[
            (Kind::Word, "a"),
            (Kind::Cast, "::"),
            (Kind::Word, "b"),
            (Kind::Assign, ":="),
            (Kind::Word, "c"),
            (Kind::Operator, "=>"),
            (Kind::Word, "d"),
            (Kind::Operator, "!="),
            (Kind::Word, "e"),
        ],
    );
}

#[test]
fn comments_nest_and_end_at_any_line_end() {
    check(
        "a /* b /* c */ d */ e",
        &[(Kind::Word, "a"), (Kind::Word, "e")],
    );
    check("a /*/ b */ e", &[(Kind::Word, "a"), (Kind::Word, "e")]);
    check("a /*+*-/**/*/ e", &[(Kind::Word, "a"), (Kind::Word, "e")]);
    check("a /***/ e", &[(Kind::Word, "a"), (Kind::Word, "e")]);
    check("a -- b\re", &[(Kind::Word, "a"), (Kind::Word, "e")]);
    check("a -- b", &[(Kind::Word, "a")]);
    assert!(unreadable(b"a /* /* */", ON));
    assert!(unreadable(b"a /*/", ON));
}

#[test]
fn what_cannot_be_read_ends_in_one_error() {
    for text in [
        "'a", "\"a", "\"\"", "U&\"\"", "a \\ b", "a { b", "a \x01 b", "a\0b", "'\0'",
    ] {
        let tokens = tokens(text.as_bytes(), ON);
        assert_eq!(
            tokens.iter().filter(|t| t.0 == Kind::Error).count(),
            1,
            "{text:?}"
        );
        assert_eq!(tokens.last().unwrap().0, Kind::Error, "{text:?}");
    }
}

#[test]
fn bytes_beyond_ascii_are_unreadable_where_they_may_hide_a_quote() {
    assert!(unreadable(b"select '\x83\\' , f() --'", UNSAFE));
    assert!(!unreadable(b"select 'a'", UNSAFE));
    // Not UTF-8, in an encoding where that doesn't matter.
    check_as(ON, "", &[]);
    assert_eq!(tokens(b"'\xe9' \xe9", ON).len(), 2);
}

#[test]
fn statements_end_at_top_level_semicolons() {
    for (text, expected) in [
        ("", vec![]),
        (" ; -- x\n;", vec![]),
        ("select 1", vec!["select 1"]),
        ("select 1;;select ';' ; ", vec!["select 1", "select ';'"]),
        ("/* a; */ select 1 /* b */; x", vec!["select 1", "x"]),
        (
            "create rule r as on insert to t do (select 1; select 2); select 3",
            vec![
                "create rule r as on insert to t do (select 1; select 2)",
                "select 3",
            ],
        ),
        (
            "create function f() returns int begin atomic select 1; select case when true then 1 end as end; end; select 2",
            vec![
                "create function f() returns int begin atomic select 1; select case when true then 1 end as end; end",
                "select 2",
            ],
        ),
        (
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END; select 2",
            vec![
                "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END",
                "select 2",
            ],
        ),
        (
            "create function f(begin atomic) returns int return 1; select 2",
            vec![
                "create function f(begin atomic) returns int return 1",
                "select 2",
            ],
        ),
        ("begin; select 1; end", vec!["begin", "select 1", "end"]),
        ("begin atomic; select 1", vec!["begin atomic", "select 1"]),
    ] {
        let found = statements(text.as_bytes(), ON).unwrap();
        let found: Vec<_> = found.into_iter().map(|r| text.get(r).unwrap()).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(statements(b"select 1; select '", ON), None);
}

#[test]
fn names_are_folded_unescaped_and_cut() {
    let name = |text: &str| Cursor::new(text.as_bytes(), ON).name();
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(name("FooÄ"), some("fooÄ"));
    assert_eq!(name(r#""Foo""Bar""#), some("Foo\"Bar"));
    assert_eq!(name(r#"U&"d\0061t\+000061""#), some("data"));
    assert_eq!(name(r#"U&"a\\b""#), some(r"a\b"));
    assert_eq!(name(r#"U&"d!0061" UESCAPE '!'"#), None);
    assert_eq!(name(r#"U&"\D83D\DE00""#), None);
    assert_eq!(name(r#"U&"\0000""#), None);
    assert_eq!(name(r#"U&"\00""#), None);
    assert_eq!(name("'a'"), None);
    assert_eq!(Cursor::new(b"\xe9", ON).name(), None);
    let long = "é".repeat(40);
    assert_eq!(name(&long), Some("é".repeat(31)));
    assert_eq!(name(&"a".repeat(64)), Some("a".repeat(63)));
}

#[test]
fn strings_have_the_value_that_the_server_gives_them() {
    for (text, lexing, expected) in [
        ("'a''b'", ON, Some("a'b")),
        ("'a\\n'", ON, Some("a\\n")),
        ("'a\\n'", OFF, Some("a\n")),
        ("E'\\x41\\101\\u0041\\U00000041\\'\\q'", ON, Some("AAAA'q")),
        ("E'\\u00'", ON, None),
        ("E'\\0'", ON, None),
        ("'a' -- c\n 'b'", ON, Some("ab")),
        ("$x$a'b$x$", ON, Some("a'b")),
        ("$$$$", ON, Some("")),
        ("U&'d\\0061'", ON, Some("da")),
        ("U&'d!0061' uescape '!'", ON, None),
        ("B'1'", ON, None),
        ("1", ON, None),
    ] {
        let value = Cursor::new(text.as_bytes(), lexing).string(lexing);
        assert_eq!(value.as_deref(), expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn tokens_lie_in_the_text_in_order(
        text in proptest::collection::vec(
            prop_oneof![
                4 => proptest::sample::select(&b"'\"$-/*+\\\n\rueEbBxXnN&;().:=@_ \t01a9"[..]),
                1 => any::<u8>(),
            ],
            0..60,
        ),
        standard_conforming_strings: bool,
        ascii_safe_encoding: bool,
    ) {
        let lexing = Lexing { standard_conforming_strings, ascii_safe_encoding };
        let mut last = 0;
        let mut failed = false;
        for token in Lexer::new(&text, lexing) {
            prop_assert!(!failed);
            prop_assert!(last <= token.start && token.start < token.end);
            prop_assert!(token.end <= text.len());
            last = token.end;
            failed = token.kind == Kind::Error;
        }
        // Nothing that builds upon it panics either.
        let _: Option<Vec<_>> = statements(&text, lexing);
        let mut cursor = Cursor::new(&text, lexing);
        while !cursor.done() {
            if cursor.name().is_none() && cursor.string(lexing).is_none() && !cursor.group() {
                cursor.take();
            }
        }
    }
}
