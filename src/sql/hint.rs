//! Hints: `/* pgsplit: primary */` and `/* pgsplit: replica */`, a comment of its own anywhere in
//! the text. Letters' case and white space don't matter. Comments that say anything else are
//! comments.

use super::{Hint, Lexing, lexer::Lexer};

/// The hint in a text's comments, as far as the text can be read; primary where they disagree.
#[must_use]
pub fn hint(text: &[u8], lexing: Lexing) -> Option<Hint> {
    let mut lexer = Lexer::new(text, lexing);
    lexer.by_ref().for_each(drop);
    lexer.hint()
}

/// What the body of one comment asks for.
pub(super) fn of_comment(body: &[u8]) -> Option<Hint> {
    let body = body.trim_ascii();
    let (name, rest) = body.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let value = rest
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    if value.eq_ignore_ascii_case(b"primary") {
        Some(Hint::Primary)
    } else if value.eq_ignore_ascii_case(b"replica") {
        Some(Hint::Replica)
    } else {
        None
    }
}

/// Of two hints, the one that can't be wrong.
pub(super) fn stricter(before: Option<Hint>, found: Hint) -> Hint {
    match before {
        Some(Hint::Primary) => Hint::Primary,
        Some(Hint::Replica) | None => found,
    }
}

const NAME: &[u8] = b"pgsplit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_comment_of_its_own() {
        for (text, expected) in [
            ("/* pgsplit: primary */ select 1", Some(Hint::Primary)),
            ("select /*pgsplit:replica*/ 1", Some(Hint::Replica)),
            ("select 1 /* PgSplit :  Replica\n */", Some(Hint::Replica)),
            (
                "/* pgsplit: replica */ select 1 /* pgsplit: primary */",
                Some(Hint::Primary),
            ),
            (
                "/* pgsplit: primary */ select 1 /* pgsplit: replica */",
                Some(Hint::Primary),
            ),
            ("select '/* pgsplit: primary */'", None),
            ("select \"/* pgsplit: primary */\"", None),
            ("select $$/* pgsplit: primary */$$", None),
            ("select 1 -- /* pgsplit: primary */", None),
            ("select 1 /* a /* pgsplit: primary */ */", None),
            ("select 1 /* pgsplit: primary, please */", None),
            ("select 1 /* pgsplitter: primary */", None),
            ("select 1 /* pgsplit primary */", None),
            ("select 1 /**/", None),
            ("select 1 /* pgsplit: primary", None),
        ] {
            assert_eq!(hint(text.as_bytes(), Lexing::default()), expected, "{text}");
        }
    }
}
