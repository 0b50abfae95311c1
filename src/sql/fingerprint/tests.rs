use super::*;

fn form(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    canonical(text.as_bytes(), Lexing::default(), &mut out).then_some(out)
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
