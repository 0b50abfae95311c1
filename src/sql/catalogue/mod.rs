//! What a database's names mean, as far as routing cares: which functions, operators, relations
//! and types are read-safe, and which aren't.
//!
//! A name is read-safe only if *every* object of that name in any schema is: which one a statement
//! means depends on the session's `search_path` and on argument types, which aren't looked at.
//!
//! The shell runs [`QUERIES`] on the primary, feeds the rows to a [`CatalogueBuilder`], and shares
//! the [`Catalogue`] it gets. Nothing here connects anywhere.

mod body;
mod build;
mod builtin;
mod flags;
mod queries;
mod reach;
mod resolve;
mod setters;

pub use build::CatalogueBuilder;
pub use queries::{QUERIES, Query, QueryId};

pub(super) use body::own_setting;
pub(super) use flags::Flags;

use std::{collections::HashMap, fmt};

use foldhash::fast::FixedState;

use super::{Tables, effects::Untold};

/// One database's names. Immutable: a new load makes a new one.
pub struct Catalogue {
    /// Told apart from other loads by this; classes are cached per generation.
    pub generation: u64,
    names: Names,
    /// Operators that words imply (`IN`, `ORDER BY`, …) include one that isn't read-safe.
    implied_bad: bool,
    /// A name with characters beyond ASCII isn't read-safe.
    beyond_ascii_bad: bool,
    /// Something that isn't read-safe can run anywhere without being named (an implicit cast
    /// between two of PostgreSQL's own types).
    poisoned: bool,
    /// Settings with a prefix that functions' sources set.
    settings: Box<[Box<str>]>,
    /// Why an object of a user isn't read-safe, where its own marking doesn't tell.
    details: HashMap<Box<[u8]>, Box<str>, FixedState>,
    isolations: Box<[build::DefaultIsolation]>,
    reach: reach::Reach,
    setters: setters::Setters,
}

/// Flags by folded name.
type Names = HashMap<Box<[u8]>, Flags, FixedState>;

impl Catalogue {
    /// Whether a transaction of this role, whose session sets no isolation level, has a snapshot for
    /// each statement. Not known is no.
    #[must_use]
    pub fn is_read_committed(&self, role: &str) -> bool {
        let of_role = |isolation: &&build::DefaultIsolation| {
            isolation.role.as_deref().is_none_or(|whose| whose == role)
        };
        self.isolations
            .iter()
            .filter(of_role)
            .max_by_key(|isolation| isolation.rank)
            .is_some_and(|isolation| isolation.by_statement)
    }

    /// What is known of `name` (as PostgreSQL folds it).
    pub(super) fn name(&self, name: &[u8]) -> Flags {
        self.names.get(name).copied().unwrap_or(Flags::NONE)
    }

    /// Which tables it reads to read a relation of this name. Of one that isn't known: all.
    pub(super) fn read_by(&self, relation: &[u8]) -> Tables {
        self.reach.relation(relation).reads.without_sequences()
    }

    /// Which tables it reads or writes to write to a relation of this name, likewise.
    pub(super) fn written_by(&self, relation: &[u8]) -> Tables {
        self.reach.relation(relation).writes.without_sequences()
    }

    /// Writing to a relation of this name may, by its triggers, advance a sequence; its own defaults
    /// aside.
    pub(super) fn advances_by(&self, relation: &[u8]) -> bool {
        self.reach
            .relation(relation)
            .writes
            .meets(Tables::SEQUENCES)
    }

    /// Which tables a function, an operator or a type of this name may read or write.
    pub(super) fn run_by(&self, name: &[u8]) -> Tables {
        self.reach.run(name).without_sequences()
    }

    /// Which tables may be read or written by what words imply.
    pub(super) fn implied(&self) -> Tables {
        self.reach.implied.without_sequences()
    }

    /// What is known of an operator. Operators and other names don't share a spelling.
    pub(super) fn operator(&self, operator: &[u8]) -> Flags {
        self.name(operator)
    }

    pub(super) fn implied_bad(&self) -> bool {
        self.implied_bad
    }

    pub(super) fn beyond_ascii_bad(&self) -> bool {
        self.beyond_ascii_bad
    }

    pub(super) fn poisoned(&self) -> bool {
        self.poisoned
    }

    /// Why objects of this name aren't read-safe, in words; `None` where nothing more is known
    /// than that they aren't.
    #[must_use]
    pub fn detail(&self, name: &[u8]) -> Option<&str> {
        self.details.get(name).map(|d| &**d)
    }

    /// Settings with a prefix that functions of the database set.
    #[must_use]
    pub fn settings(&self) -> &[Box<str>] {
        &self.settings
    }

    /// Running `text` may set settings whose names are made at run time, as far as the names in it
    /// tell. Takes time: only for what may touch the session at all.
    #[must_use]
    pub fn may_set_untold(&self, text: &[u8]) -> bool {
        self.setters.occur_in(text)
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// No name is known: the load answered nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("generation", &self.generation)
            .field("names", &self.names.len())
            .finish_non_exhaustive()
    }
}
