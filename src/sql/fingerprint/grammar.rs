//! Random statements for property tests, as pieces that can be spelled in several ways.
//!
//! Two spellings of one statement with other literals of the same kinds must have one fingerprint,
//! and so one class; a statement with any other piece changed must have another fingerprint.

use proptest::prelude::*;

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A keyword or an unquoted name.
    Word(String),
    /// A quoted name, an operator or punctuation, as it is.
    Fixed(String),
    /// An int4.
    Integer,
    String,
    /// Integers, in a list that may be of any length.
    List,
    /// Rows of an integer, of any number.
    Rows,
}

/// How a statement is spelled.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    upper: bool,
    gap: &'static str,
    integer: u32,
    string: String,
    length: usize,
}

/// Any statement.
pub(crate) fn statement() -> impl Strategy<Value = Vec<Piece>> {
    let name = || proptest::sample::select(NAMES);
    (
        proptest::sample::select(TEMPLATES),
        proptest::collection::vec(name(), 4),
        proptest::sample::select(&["=", "<", "@>", "||", "~", "-"][..]),
    )
        .prop_map(|(template, names, operator)| {
            let mut names = names.into_iter();
            template
                .split(' ')
                .map(|part| match part {
                    "N" => named(names.next().unwrap_or("n")),
                    "O" => Piece::Fixed(operator.to_owned()),
                    "?" => Piece::Integer,
                    "'?'" => Piece::String,
                    "L" => Piece::List,
                    "R" => Piece::Rows,
                    _ => named(part),
                })
                .collect()
        })
}

/// Any spelling.
pub(crate) fn spelling() -> impl Strategy<Value = Spelling> {
    let gap = proptest::sample::select(&[" ", "\n\t", " /* select f(1); */ ", " -- '\n "][..]);
    (
        any::<bool>(),
        gap,
        0..=i32::MAX.unsigned_abs(),
        ".{0,9}",
        1..5_usize,
    )
        .prop_map(|(upper, gap, integer, string, length)| Spelling {
            upper,
            gap,
            integer,
            string: string.replace('\0', "").replace('\'', "''"),
            length,
        })
}

/// The statement's text in this spelling.
pub(crate) fn spell(statement: &[Piece], spelling: &Spelling) -> String {
    let integer = spelling.integer.to_string();
    let pieces: Vec<_> = statement
        .iter()
        .map(|piece| match piece {
            Piece::Word(word) if spelling.upper => word.to_ascii_uppercase(),
            Piece::Word(text) | Piece::Fixed(text) => text.clone(),
            Piece::Integer => integer.clone(),
            Piece::String => format!("'{}'", spelling.string),
            Piece::Rows => vec![format!("({integer})"); spelling.length].join(","),
            Piece::List => vec![integer.as_str(); spelling.length].join(","),
        })
        .collect();
    pieces.join(spelling.gap)
}

/// The statement with the piece at about `place` changed into another that isn't a literal.
pub(crate) fn changed(statement: &[Piece], place: usize, how: usize) -> Vec<Piece> {
    let mut changed = statement.to_vec();
    let place = place % changed.len();
    let other = named(["zzz", "\"Zzz\"", "(", "*", "$1", "1.5", "B'1'", "zzz.zzz"][how % 8]);
    if changed[place] == other {
        changed.remove(place);
    } else {
        changed[place] = other;
    }
    changed
}

fn named(text: &str) -> Piece {
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        Piece::Word(text.to_owned())
    } else {
        Piece::Fixed(text.to_owned())
    }
}

const NAMES: &[&str] = &[
    "a",
    "users",
    "u1",
    "\"Order\"",
    "s.t",
    "lower",
    "f",
    "é",
    "\"a\"\"b\"",
    "x$1",
];

const TEMPLATES: &[&str] = &[
    "select N from N where N O ?",
    "select N ( '?' , ? ) from N",
    "select * from N where N in ( L ) and N O '?'",
    "select N , count ( * ) from N group by 1 , N having N O ? limit ?",
    "with N as ( select ? ) select * from N for update",
    "insert into N ( N , N ) values R returning N",
    "insert into N select N from N where N O '?'",
    "update N set N = ? where N O '?'",
    "delete from N where N O array [ L ]",
    "values R",
    "( select N from N ) union all ( select ? )",
    "select case when N O ? then '?' else N end from N",
    "select N :: text from N where N between ? and ?",
    "select ( N ) . N from N where not N O '?'",
    "select 1 ; select N from N where N O ?",
    "begin ; update N set N = ? ; commit",
];
