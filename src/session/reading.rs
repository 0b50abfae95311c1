//! Under which settings the text of a prepared statement was read.
//!
//! PostgreSQL analyses a statement when it is parsed: `date '01/02/2026'` is the day that the
//! `DateStyle` of that moment makes of it, whatever is set later. A statement that is parsed again on
//! another connection must be read as before, and one that several sessions share must mean the same
//! to all of them.
//!
//! What names mean (`search_path`, the role in it) is different: when that has changed PostgreSQL
//! analyses a statement again by itself (`src/backend/utils/cache/plancache.c`). Statements aren't
//! shared between sessions that differ in it, since the result's shape may differ, too.

use std::fmt::Write as _;

use super::settings::{Settings, Tracker};
use crate::sql::{self, Effect, Lexing};

/// Settings that decide what a literal, or a text's bytes, mean. Sorted.
const OF_LITERALS: [&str; 11] = [
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Settings that decide what names mean.
const OF_NAMES: [&str; 3] = ["role", "search_path", "session_authorization"];

/// It decides what a literal means.
#[must_use]
pub fn is_of_literals(name: &str) -> bool {
    OF_LITERALS.binary_search(&name).is_ok()
}

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    rests: Rests,
    settings: Settings,
}

/// What a text's meaning rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rests {
    OnNames,
    OnLiterals,
    /// It has literals, and something may have been set where that isn't seen.
    Unknown,
}

impl Reading {
    /// As `text` is read in a session with these settings. `unseen`: others may be in force.
    #[must_use]
    pub fn of(text: &[u8], settings: &Tracker, unseen: bool) -> Self {
        let literals = has_literals(text);
        let rests = if !literals {
            Rests::OnNames
        } else if unseen || settings.has_local_literals() {
            Rests::Unknown
        } else {
            Rests::OnLiterals
        };
        let counts = |name: &str| OF_NAMES.contains(&name) || literals && is_of_literals(name);
        Self {
            rests,
            settings: settings.current().only(counts),
        }
    }

    /// Of a text that something out of sight has had read.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            rests: Rests::Unknown,
            settings: Settings::default(),
        }
    }

    /// Another text that is the same, and read like this, means the same.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.rests != Rests::Unknown
    }

    /// In a session with these settings the text would now be read otherwise.
    #[must_use]
    pub fn differs(&self, settings: &Tracker) -> bool {
        let (then, now) = (&self.settings, settings.current());
        self.rests == Rests::OnLiterals
            && (settings.has_local_literals()
                || !(then.is_empty() && now.is_empty())
                    && OF_LITERALS
                        .iter()
                        .any(|name| then.get(name) != now.get(name)))
    }

    /// What makes a transaction, or a part of one, read as then.
    #[must_use]
    pub fn statements(&self) -> String {
        let mut sql = String::new();
        for name in OF_LITERALS {
            let _infallible = write!(sql, "SET LOCAL \"{name}\" TO DEFAULT;");
        }
        let literals = self.settings.only(is_of_literals);
        literals.write_local(&mut sql);
        sql
    }
}

/// What the text says may depend on how literals, or characters, are read.
fn has_literals(text: &[u8]) -> bool {
    memchr::memchr(b'\'', text).is_some()
        || !text.is_ascii()
        || memchr::memchr_iter(b'$', text)
            .any(|at| !text.get(at + 1).is_some_and(u8::is_ascii_digit))
}

/// A statement that stands ahead of others in their request may change how they are read.
#[must_use]
pub fn may_change(text: &[u8], lexing: Lexing, settings: &Tracker) -> bool {
    let Some(effects) = sql::effects(text, lexing) else {
        return true;
    };
    effects.iter().any(|effect| match effect {
        Effect::Set { name, .. } => is_of_literals(name),
        Effect::ResetAll
        | Effect::DiscardAll
        | Effect::Execute(_)
        | Effect::Rollback { .. }
        | Effect::RollbackTo(_) => true,
        Effect::Commit { .. } => settings.has_local_literals(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sql::{Scope, SettingValue};

    fn set(tracker: &mut Tracker, name: &str, value: &str, scope: Scope) {
        tracker.set(name, &SettingValue::Sql(value.into()), scope);
    }

    #[test]
    fn the_names_are_sorted() {
        assert!(OF_LITERALS.is_sorted() && OF_NAMES.is_sorted());
    }

    #[test]
    fn only_literals_are_read_by_their_settings() {
        let mut tracker = Tracker::new(Arc::default());
        let texts: [(&str, bool); 7] = [
            ("select $1", false),
            ("select 1", false),
            ("select a$b from c", true),
            ("select date '01/02/2026'", true),
            ("select $$01/02/2026$$::date", true),
            ("select $q$1$q$", true),
            ("select 1 as \"ä\"", true),
        ];
        let before = texts.map(|(text, _)| Reading::of(text.as_bytes(), &tracker, false));
        set(&mut tracker, "datestyle", "dmy", Scope::Session);
        tracker.ended(true);
        for ((text, literals), before) in texts.into_iter().zip(before) {
            let now = Reading::of(text.as_bytes(), &tracker, false);
            assert_eq!(before.differs(&tracker), literals, "{text}");
            assert_eq!(before != now, literals, "{text}");
            assert!(!now.differs(&tracker), "{text}");
        }
    }

    #[test]
    fn statements_are_shared_where_names_mean_the_same() {
        let mut tracker = Tracker::new(Arc::default());
        let before = Reading::of(b"select 1", &tracker, false);
        set(&mut tracker, "search_path", "a", Scope::Session);
        tracker.ended(true);
        assert_ne!(before, Reading::of(b"select 1", &tracker, false));
        assert!(!before.differs(&tracker), "PostgreSQL sees to that");
    }

    #[test]
    fn what_is_set_out_of_sight_or_locally_is_not_told_apart_and_so_not_shared() {
        let mut tracker = Tracker::new(Arc::default());
        let text = b"select date '01/02/2026'";
        let before = Reading::of(text, &tracker, false);
        assert!(!Reading::of(text, &tracker, true).is_known());
        set(&mut tracker, "work_mem", "'1MB'", Scope::Local);
        assert!(Reading::of(text, &tracker, false).is_known());
        set(&mut tracker, "timezone", "'Asia/Tokyo'", Scope::Local);
        assert!(!Reading::of(text, &tracker, false).is_known());
        assert!(Reading::of(b"select 1", &tracker, false).is_known());
        assert!(before.differs(&tracker));
        tracker.ended(true);
        assert!(!before.differs(&tracker));
    }

    #[test]
    fn a_text_is_read_again_under_what_it_was_read_under() {
        let mut tracker = Tracker::new(Arc::default());
        set(&mut tracker, "datestyle", "dmy", Scope::Session);
        set(&mut tracker, "search_path", "a", Scope::Session);
        set(&mut tracker, "timezone", "'Asia/Tokyo'", Scope::Session);
        let sql = Reading::of(b"select ''", &tracker, false).statements();
        assert!(sql.starts_with("SET LOCAL \"array_nulls\" TO DEFAULT;"));
        assert!(
            sql.ends_with(
                "SET LOCAL \"xmloption\" TO DEFAULT;\
                 SET LOCAL \"datestyle\" TO 'DMY';\
                 SET LOCAL \"timezone\" TO 'Asia/Tokyo';"
            ),
            "{sql}"
        );
    }

    #[test]
    fn what_changes_how_the_rest_of_a_request_is_read() {
        let tracker = Tracker::new(Arc::default());
        for (text, changes) in [
            ("set datestyle to dmy", true),
            ("set time zone 'UTC'", true),
            ("reset all", true),
            ("rollback", true),
            ("begin", false),
            ("commit", false),
            ("set work_mem to '1MB'", false),
            ("select 1", false),
        ] {
            let changed = may_change(text.as_bytes(), Lexing::default(), &tracker);
            assert_eq!(changed, changes, "{text}");
        }
    }
}
