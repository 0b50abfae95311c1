//! What a session is, as data: transaction, owed replies, prepared statements, settings, pins,
//! causality.
//!
//! Pure. This folder never waits, never reads a socket and never chooses a node.

pub mod backend;
mod causality;
pub mod committing;
mod datestyle;
pub mod demand;
pub mod effects;
pub mod emit;
pub mod own;
pub mod pins;
pub mod prepared;
pub mod reading;
pub mod replay;
pub mod replies;
pub mod request;
mod savepoints;
pub mod settings;
pub mod spelling;
pub mod transaction;
pub mod unnamed;

use std::sync::Arc;

pub use causality::{Causality, Change};
pub use own::Own;
pub use pins::{Pin, Pins};
pub use transaction::{Transaction, Visit};
pub use unnamed::{Stamp, Unnamed};

use crate::{
    protocol::startup::Setting,
    sql::{Effect, Isolation, Lexing, Untold, catalogue::Catalogue},
};
use prepared::{Named, Names};
use reading::Reading;
use settings::{Settings, Tracker, Value};

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// Tells it from the other sessions of the process.
    pub number: u32,
    pub transaction: Transaction,
    /// The request in hand was sent to a replica, and its transaction may go on elsewhere.
    pub visit: Option<Box<Visit>>,
    pub settings: Tracker,
    /// What it was told at its start of settings that a session may change.
    pub told: Arc<[Setting]>,
    /// The version of the defaults that `settings` allow for.
    pub defaults: u64,
    /// Made when the first statement is prepared by name.
    names: Option<Box<Names>>,
    pub unnamed: Unnamed,
    pub lexing: Lexing,
    pub pins: Pins,
    pub seen: Causality,
    pub own: Own,
    /// Messages were sent since the last Sync: the server is in an implicit transaction.
    pub unsynced: bool,
    /// Something ran since the last look at the backend that may have changed its state unseen.
    pub suspect: bool,
    /// Settings that it may have changed so.
    pub untold: Untold,
    /// Pins that hold once a look has been taken.
    pub pending: Pins,
    /// The server connection that it last wrote on, by number: `currval` is known there.
    pub wrote_on: Option<u64>,
}

impl Session {
    /// A session right after its login.
    #[must_use]
    pub fn new(number: u32, base: Arc<Settings>, lexing: Lexing) -> Self {
        Self {
            number,
            transaction: Transaction::Idle,
            visit: None,
            settings: Tracker::new(base),
            told: Arc::default(),
            defaults: 0,
            names: None,
            unnamed: Unnamed::default(),
            lexing,
            pins: Pins::default(),
            seen: Causality::default(),
            own: Own::default(),
            unsynced: false,
            suspect: false,
            untold: Untold::default(),
            pending: Pins::default(),
            wrote_on: None,
        }
    }

    /// A transaction has ended: what was set in it stays or doesn't.
    pub fn transaction_ended(&mut self, committed: bool) {
        self.settings.ended(committed);
        self.own.ended(committed);
    }

    /// `default_transaction_read_only` as the session has set it.
    #[must_use]
    pub fn is_read_only_by_default(&self) -> bool {
        self.word("default_transaction_read_only")
            .is_some_and(|word| matches!(word.as_str(), "on" | "true" | "yes" | "1" | "t" | "y"))
    }

    /// `default_transaction_isolation` as the session has set it.
    #[must_use]
    pub fn default_isolation(&self) -> Option<Isolation> {
        let word = self.word("default_transaction_isolation")?;
        Some(match word.as_str() {
            "read committed" => Isolation::ReadCommitted,
            "read uncommitted" => Isolation::ReadUncommitted,
            "repeatable read" => Isolation::RepeatableRead,
            _ => Isolation::Serializable,
        })
    }

    /// A setting's value, folded and without quotes, when the session has set it.
    fn word(&self, name: &str) -> Option<String> {
        let current = self.settings.current();
        if current.is_empty() {
            return None;
        }
        match current.get(name)? {
            Value::Sql(value) | Value::Text(value) => {
                Some(value.trim_matches('\'').to_ascii_lowercase())
            }
        }
    }

    /// The session's names of prepared statements.
    pub fn names(&mut self) -> &mut Names {
        self.names.get_or_insert_with(Box::default)
    }

    /// How a text that is now prepared is read.
    #[must_use]
    pub fn reads(&self, text: &[u8]) -> Reading {
        Reading::of(text, &self.settings, self.suspect)
    }

    /// What a name of a prepared statement means.
    #[must_use]
    pub fn meaning(&self, name: &[u8]) -> Option<&Named> {
        self.names.as_deref()?.get(name)
    }

    /// All names of prepared statements that the server has acknowledged.
    pub fn all_names(&self) -> impl Iterator<Item = (&[u8], &Named)> {
        self.names.iter().flat_map(|names| names.settled())
    }

    /// The same, if there ever were any.
    pub fn known_names(&mut self) -> Option<&mut Names> {
        self.names.as_deref_mut()
    }

    /// Statements that were prepared in SQL are run, by these effects of a text if they can be told:
    /// takes note of what they may set.
    pub fn sees_prepared(&mut self, effects: Option<&[Effect]>, catalogue: Option<&Catalogue>) {
        let runs = |name: &[u8]| {
            let executes =
                |effect: &Effect| matches!(effect, Effect::Execute(of) if of.as_bytes() == name);
            effects.is_none_or(|all| all.iter().any(executes))
        };
        for (name, named) in self.names.iter().flat_map(|names| names.iter()) {
            if matches!(named, Named::Sql(_)) && runs(name) {
                self.untold
                    .see_statements(named.text(), self.lexing, catalogue);
            }
        }
    }

    /// Changes of prepared statements that aren't acknowledged won't be carried out.
    pub fn undo(&mut self) {
        if let Some(names) = self.known_names() {
            names.undo();
        }
        self.unnamed.undo(false);
    }

    /// The request is run again from its start.
    pub fn rewind(&mut self) {
        if let Some(names) = self.known_names() {
            names.rewind();
        }
        self.unnamed.rewind();
    }

    /// The request has ended.
    pub fn settle(&mut self) {
        if let Some(names) = self.known_names() {
            names.settle();
        }
        self.unnamed.settle();
    }
}
