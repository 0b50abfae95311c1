//! Statements that put a session back to how it began: what drivers and poolers send when a
//! connection changes hands. They need no server when there is nothing to put back.

use super::{
    Lexing,
    lexer::{Cursor, TokenKind, statements},
};

/// One such statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// DISCARD ALL, which must stand alone.
    DiscardAll,
    DiscardPlans,
    DiscardSequences,
    DiscardTemp,
    /// RESET ALL, RESET ROLE, RESET SESSION AUTHORIZATION.
    Reset,
    /// SET SESSION AUTHORIZATION DEFAULT, SET ROLE NONE.
    Set,
    CloseAll,
    Unlisten,
    DeallocateAll,
    /// `SELECT pg_advisory_unlock_all()`
    UnlockAll,
}

/// The statements of a text, if it has nothing but these.
#[must_use]
pub fn resets(text: &[u8], lexing: Lexing) -> Option<Vec<Reset>> {
    let ranges = statements(text, lexing)?;
    let alone = ranges.len() == 1;
    let all: Option<Vec<Reset>> = ranges
        .into_iter()
        .map(|range| reset(text.get(range)?, lexing))
        .collect();
    all.filter(|all| !all.is_empty() && (alone || !all.contains(&Reset::DiscardAll)))
}

/// The statement, which has no rows, is a SET, RESET or DISCARD.
#[must_use]
pub fn sets_or_resets(statement: &[u8], lexing: Lexing) -> bool {
    let at = &mut Cursor::new(statement, lexing);
    at.one_of(&["discard", "reset", "set"]).is_some()
}

/// A text that begins like this prepares a statement by name.
#[must_use]
pub fn prepares(head: &[u8], lexing: Lexing) -> bool {
    let at = &mut Cursor::new(head, lexing);
    at.word("prepare")
}

/// The statement, if it is one of these.
pub(super) fn reset(statement: &[u8], lexing: Lexing) -> Option<Reset> {
    let at = &mut Cursor::new(statement, lexing);
    let found = match at.one_of(&[
        "discard",
        "reset",
        "set",
        "close",
        "unlisten",
        "deallocate",
        "select",
    ])? {
        "discard" => match at.one_of(&["all", "plans", "sequences", "temp", "temporary"])? {
            "all" => Reset::DiscardAll,
            "plans" => Reset::DiscardPlans,
            "sequences" => Reset::DiscardSequences,
            _ => Reset::DiscardTemp,
        },
        "reset" => {
            if !(at.word("all") || at.word("role") || at.words(&["session", "authorization"])) {
                return None;
            }
            Reset::Reset
        }
        "set" => {
            let words: [&[&str]; 4] = [
                &["session", "authorization", "default"],
                &["session", "session", "authorization", "default"],
                &["role", "none"],
                &["session", "role", "none"],
            ];
            if !words.iter().any(|words| at.words(words)) {
                return None;
            }
            Reset::Set
        }
        "close" => {
            at.word("all").then_some(())?;
            Reset::CloseAll
        }
        "unlisten" => {
            at.operator("*").then_some(())?;
            Reset::Unlisten
        }
        "deallocate" => {
            at.word("prepare");
            at.word("all").then_some(())?;
            Reset::DeallocateAll
        }
        _ => {
            let mut name = at.name()?;
            if name == "pg_catalog" && at.punct(TokenKind::Dot) {
                name = at.name()?;
            }
            let called = name == "pg_advisory_unlock_all"
                && at.punct(TokenKind::LeftParen)
                && at.punct(TokenKind::RightParen);
            called.then_some(Reset::UnlockAll)?
        }
    };
    at.done().then_some(found)
}

impl Reset {
    /// What CommandComplete says.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::DiscardAll => "DISCARD ALL",
            Self::DiscardPlans => "DISCARD PLANS",
            Self::DiscardSequences => "DISCARD SEQUENCES",
            Self::DiscardTemp => "DISCARD TEMP",
            Self::Reset => "RESET",
            Self::Set => "SET",
            Self::CloseAll => "CLOSE CURSOR ALL",
            Self::Unlisten => "UNLISTEN",
            Self::DeallocateAll => "DEALLOCATE ALL",
            Self::UnlockAll => "SELECT 1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_resets_are_recognised() {
        for (text, count) in [
            // npgsql's, asyncpg's, psycopg's, pools'.
            (
                "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
                 SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP;",
                7,
            ),
            (
                "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
                4,
            ),
            ("RESET ALL", 1),
            ("set session authorization default;", 1),
            ("discard all /* pool */", 1),
            ("deallocate prepare all; set role none", 2),
        ] {
            let found = resets(text.as_bytes(), Lexing::default());
            assert_eq!(found.map(|found| found.len()), Some(count), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            ";",
            "discard all; select 1",
            "discard all; reset all",
            "reset work_mem",
            "set role a",
            "close c",
            "unlisten c",
            "deallocate a",
            "select pg_advisory_unlock_all(), 1",
            "select pg_advisory_unlock(1)",
            "reset all a",
        ] {
            assert_eq!(resets(text.as_bytes(), Lexing::default()), None, "{text}");
        }
    }
}
