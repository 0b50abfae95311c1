//! `pgsplit.*`: the session's overrides of routing, set with SET or in startup `options`.
//!
//! They follow transactions as settings do: SET LOCAL ends with its transaction, and a rollback, also
//! to a savepoint, takes back what was set in it. `min_lsn` is no override: it stays.

use std::{fmt, time::Duration};

use crate::{
    cluster::Lsn,
    routing::{Consistency, RouteOverride, Transactions},
    session::{Causality, savepoints::Savepoints},
    sql::Scope,
};

/// Overrides; `None`: as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    pub route: Option<RouteOverride>,
    pub consistency: Option<Consistency>,
    pub max_lag: Option<Box<Duration>>,
    pub transactions: Option<Transactions>,
    /// Something was set in the open transaction, or it has a savepoint.
    open: Option<Box<Open>>,
}

/// What the overrides are once their transaction has ended.
#[derive(Clone, Debug, Default, PartialEq)]
struct Open {
    rolled_back: Own,
    committed: Own,
    /// What they were then, and what was `committed`.
    savepoints: Savepoints<(Own, Own)>,
}

/// A `pgsplit.*` key or value that isn't one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    Key(String),
    Value {
        key: &'static str,
        value: String,
        expected: &'static str,
    },
    /// It can be shown but not set.
    ReadOnly(&'static str),
}

/// What `SHOW pgsplit.*` knows.
pub const KEYS: [&str; 6] = [
    "route",
    "consistency",
    "max_lag",
    "transactions",
    "min_lsn",
    "last_lsn",
];

impl Own {
    /// The same in an open transaction.
    ///
    /// # Errors
    /// As of [`Self::set`].
    pub fn set_in_transaction(
        &mut self,
        key: &str,
        value: Option<&str>,
        scope: Scope,
        seen: &mut Causality,
    ) -> Result<(), Invalid> {
        let mut open = self.take_open();
        let set = self.set(key, value, seen);
        if set.is_ok() && scope == Scope::Session {
            open.committed.set(key, value, seen)?;
        }
        self.open = Some(open);
        set
    }

    fn take_open(&mut self) -> Box<Open> {
        self.open.take().unwrap_or_else(|| {
            Box::new(Open {
                rolled_back: self.clone(),
                committed: self.clone(),
                savepoints: Savepoints::default(),
            })
        })
    }

    /// SAVEPOINT succeeded.
    pub fn savepoint(&mut self, name: &str) {
        let mut open = self.take_open();
        let then = (self.clone(), open.committed.clone());
        open.savepoints.set(name, then);
        self.open = Some(open);
    }

    /// ROLLBACK TO SAVEPOINT succeeded.
    pub fn rollback_to(&mut self, name: &str) {
        if let Some(mut open) = self.open.take() {
            if let Some((now, committed)) = open.savepoints.rollback_to(name) {
                *self = now.clone();
                open.committed = committed.clone();
            }
            self.open = Some(open);
        }
    }

    /// RELEASE SAVEPOINT succeeded.
    pub fn release(&mut self, name: &str) {
        if let Some(open) = &mut self.open {
            open.savepoints.release(name);
        }
    }

    /// The transaction has ended.
    pub fn ended(&mut self, committed: bool) {
        if let Some(open) = self.open.take() {
            *self = if committed {
                open.committed
            } else {
                open.rolled_back
            };
        }
    }

    /// `SET pgsplit.<key> = value`; `None` is the default.
    ///
    /// # Errors
    /// An unknown key, or a value that the key can't have; nothing has changed then.
    pub fn set(
        &mut self,
        key: &str,
        value: Option<&str>,
        seen: &mut Causality,
    ) -> Result<(), Invalid> {
        let invalid = |key, expected| Invalid::Value {
            key,
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        match key {
            "route" => {
                let named = |word: &str| RouteOverride::named(&word.to_ascii_lowercase());
                self.route = match value.map(named) {
                    Some(None) => return Err(invalid("route", "auto, primary or replica")),
                    route => route.flatten(),
                }
            }
            "consistency" => {
                let named = |word: &str| Consistency::named(&word.to_ascii_lowercase());
                self.consistency = match value.map(named) {
                    Some(None) => {
                        return Err(invalid("consistency", "eventual, session or global"));
                    }
                    consistency => consistency.flatten(),
                }
            }
            "max_lag" => {
                self.max_lag =
                    match value {
                        None => None,
                        Some(text) => Some(Box::new(duration(text).ok_or_else(|| {
                            invalid("max_lag", "a duration such as 250ms or 5s")
                        })?)),
                    }
            }
            "transactions" => {
                let named = |word: &str| Transactions::named(&word.to_ascii_lowercase());
                self.transactions = match value.map(named) {
                    Some(None) => return Err(invalid("transactions", "primary or optimistic")),
                    transactions => transactions.flatten(),
                }
            }
            "min_lsn" => {
                let lsn = match value {
                    // What SHOW gives where there is none.
                    None | Some("") => None,
                    Some(text) => Some(
                        text.parse::<Lsn>()
                            .map_err(|_invalid| invalid("min_lsn", "an LSN such as 0/16B3748"))?,
                    ),
                };
                seen.set_min_lsn(lsn);
            }
            "last_lsn" => return Err(Invalid::ReadOnly("last_lsn")),
            other => return Err(Invalid::Key(other.to_owned())),
        }
        Ok(())
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" | "m" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(
                f,
                "unrecognized configuration parameter \"pgsplit.{key}\"; pgsplit knows {}",
                KEYS.map(|key| format!("pgsplit.{key}")).join(", ")
            ),
            Self::Value {
                key,
                value,
                expected,
            } => write!(
                f,
                "invalid value for parameter \"pgsplit.{key}\": \"{value}\"; expected {expected}"
            ),
            Self::ReadOnly(key) => {
                write!(
                    f,
                    "parameter \"pgsplit.{key}\" cannot be changed; set pgsplit.min_lsn instead"
                )
            }
        }
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_in_a_transaction_ends_as_settings_do() {
        let mut seen = Causality::default();
        let (primary, replica) = (Some(RouteOverride::Primary), Some(RouteOverride::Replica));
        let mut own = Own::default();
        own.set("route", Some("replica"), &mut seen).unwrap();
        for (scope, committed, after) in [
            (Scope::Local, true, replica),
            (Scope::Local, false, replica),
            (Scope::Session, false, replica),
            (Scope::Session, true, primary),
        ] {
            let value = Some("primary");
            own.set_in_transaction("route", value, scope, &mut seen)
                .unwrap();
            assert_eq!(own.route, primary);
            own.ended(committed);
            assert_eq!(own.route, after, "{scope:?} {committed}");
        }
        let nothing = own.set_in_transaction("route", Some("no"), Scope::Local, &mut seen);
        assert!(nothing.is_err());
        own.ended(true);
        assert_eq!(own.route, primary);
    }

    #[test]
    fn a_rollback_to_a_savepoint_takes_back_what_was_set_behind_it() {
        let mut seen = Causality::default();
        let (primary, replica) = (Some(RouteOverride::Primary), Some(RouteOverride::Replica));
        let mut own = Own::default();
        let mut set = |own: &mut Own, value, scope| {
            own.set_in_transaction("route", Some(value), scope, &mut seen)
                .unwrap();
        };
        own.savepoint("a");
        set(&mut own, "primary", Scope::Session);
        own.savepoint("b");
        set(&mut own, "replica", Scope::Local);
        own.savepoint("b");
        own.rollback_to("no such");
        own.rollback_to("b");
        assert_eq!(own.route, replica);
        own.release("b");
        own.rollback_to("b");
        assert_eq!(own.route, primary);
        // What is left at the end is what was set for the session.
        let mut kept = own.clone();
        kept.ended(true);
        assert_eq!(kept.route, primary);
        own.rollback_to("a");
        assert_eq!(own.route, None);
        own.ended(true);
        assert_eq!(own.route, None);
    }
}
