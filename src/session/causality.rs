//! What a session must be able to see of which tables.
//!
//! A write concerns the tables that it has changed: reads of others needn't wait for a replica to
//! replay it. Whatever may have shown what *others* have written, such as a read on the primary,
//! concerns every table, so that nobody goes back in time from one table to the next. So does what was
//! written before the catalogue changed: its rows may be another table's now, which was renamed or was
//! a partition.

use std::time::Instant;

use crate::{
    cluster::{Lsn, NodeId, Seen},
    sql::Tables,
};

/// A session's [`Seen`], table by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causality {
    /// What concerns every table.
    all: Seen,
    /// What concerns some, if anything does.
    some: Option<Box<Written>>,
    /// Of the open transaction.
    transaction: Change,
    /// How many catalogues had been published by the last request.
    catalogues: u64,
}

/// Writes to some tables, all acknowledged by one node in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    epoch: u64,
    node: NodeId,
    /// When to which tables; the oldest first.
    tables: Vec<(Tables, Instant)>,
}

/// What a statement on the primary has to do with which tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It may have changed these.
    pub wrote: Tables,
    /// Of these the client may know something that a replica doesn't show yet.
    pub told: Tables,
}

impl Change {
    /// A read: it may have shown what anybody has written, and what that rests on.
    pub const READ: Self = Self {
        wrote: Tables::NONE,
        told: Tables::ALL,
    };

    /// A write to these tables, and no word of others.
    #[must_use]
    pub const fn write(tables: Tables) -> Self {
        Self {
            wrote: tables,
            told: tables,
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            wrote: self.wrote.with(other.wrote),
            told: self.told.with(other.told),
        }
    }
}

/// So many writes of one session are told apart; beyond that the oldest become one.
const MOST: usize = 8;

/// Likewise of all sessions together.
const MOST_OF_ALL: usize = 128;

impl Causality {
    /// The next request is read when so many catalogues have been published.
    #[inline]
    pub fn under(&mut self, catalogues: u64) {
        if catalogues > self.catalogues {
            self.catalogues = catalogues;
            self.forget_names();
        }
    }

    #[cold]
    fn forget_names(&mut self) {
        self.all = self.whole();
        self.some = None;
        let all = |tables: Tables| {
            if tables.is_none() {
                tables
            } else {
                Tables::ALL
            }
        };
        self.transaction = Change {
            wrote: all(self.transaction.wrote),
            told: all(self.transaction.told),
        };
    }

    /// What [`Self::under`] was told last.
    #[must_use]
    pub fn catalogues(&self) -> u64 {
        self.catalogues
    }

    /// The primary acknowledged something at `at`. `ends`: no transaction is open now. What one has
    /// changed is seen by others from its end on: returns what was changed by then.
    pub fn on_primary(
        &mut self,
        epoch: u64,
        node: NodeId,
        at: Instant,
        change: Change,
        ends: bool,
    ) -> Tables {
        let change = self.transaction.and(change);
        self.transaction = if ends { Change::default() } else { change };
        self.note(epoch, node, at, change.told, MOST);
        change.wrote
    }

    /// Some session's write to `tables`, as named under so many catalogues, was acknowledged, for what
    /// all sessions have written. These come in any order.
    pub fn written(
        &mut self,
        epoch: u64,
        node: NodeId,
        at: Instant,
        tables: Tables,
        catalogues: u64,
    ) {
        let tables = if catalogues < self.catalogues && !tables.is_none() {
            Tables::ALL
        } else {
            tables
        };
        self.under(catalogues);
        let latest = self
            .all
            .epoch()
            .max(self.some.as_ref().map_or(0, |some| some.epoch));
        if epoch >= latest {
            self.note(epoch, node, at, tables, MOST_OF_ALL);
        }
    }

    fn note(&mut self, epoch: u64, node: NodeId, at: Instant, tables: Tables, most: usize) {
        if tables.is_none() {
            return;
        }
        if tables.is_all() {
            let known = self.all.primary_at();
            let latest = known.filter(|_| self.all.epoch() == epoch);
            let at = latest.map_or(at, |latest| latest.max(at));
            self.all.on_primary(epoch, node, at);
            self.some = None;
            return;
        }
        if self
            .some
            .as_ref()
            .is_some_and(|some| (some.epoch, some.node) != (epoch, node))
        {
            // What was acknowledged elsewhere concerns all from now on.
            self.all = self.whole();
            self.some = None;
        }
        let some = self.some.get_or_insert_with(|| {
            Box::new(Written {
                epoch,
                node,
                tables: Vec::new(),
            })
        });
        some.note(tables, at, most);
    }

    /// A read of `tables` was answered by a replica at `at`; see [`Seen::on_replica`].
    pub fn on_replica(
        &mut self,
        epoch: u64,
        node: NodeId,
        at: Instant,
        covered: bool,
        tables: Tables,
    ) {
        if covered && let Some(some) = &mut self.some {
            // Whichever replica is as far as this one shows them, too.
            some.tables.retain(|(written, _)| !written.meets(tables));
            if some.tables.is_empty() {
                self.some = None;
            }
        }
        self.all.on_replica(epoch, node, at, covered);
    }

    /// The open transaction may have changed something.
    #[must_use]
    pub fn has_written(&self) -> bool {
        !self.transaction.wrote.is_none()
    }

    /// What a read of `tables` must see.
    #[must_use]
    pub fn concerning(&self, tables: Tables) -> Seen {
        let Some(some) = &self.some else {
            return self.all;
        };
        let concerned = some
            .tables
            .iter()
            .filter(|(written, _)| written.meets(tables));
        match concerned.map(|(_, at)| *at).max() {
            Some(at) => {
                let mut written = Seen::default();
                // In a later epoch it is what the former primary has acknowledged.
                written.on_primary(some.epoch.max(self.all.epoch()), some.node, at);
                self.all.and(written)
            }
            None => self.all,
        }
    }

    /// What a read of anything must see.
    #[must_use]
    pub fn whole(&self) -> Seen {
        self.concerning(Tables::ALL)
    }

    /// See [`Seen::set_min_lsn`].
    pub fn set_min_lsn(&mut self, lsn: Option<Lsn>) {
        self.all.set_min_lsn(lsn);
    }

    /// See [`Seen::min_lsn`].
    #[must_use]
    pub fn min_lsn(&self) -> Option<Lsn> {
        self.all.min_lsn()
    }
}

impl Written {
    fn note(&mut self, tables: Tables, at: Instant, most: usize) {
        let mut latest = at;
        self.tables.retain(|&(earlier, when)| {
            let replaced = earlier.within(tables);
            if replaced {
                latest = latest.max(when);
            }
            !replaced
        });
        self.tables.push((tables, latest));
        if self.tables.len() > most {
            let (oldest, when) = self.tables.remove(0);
            if let Some((next, at)) = self.tables.first_mut() {
                *next = next.with(oldest);
                *at = when.max(*at);
            }
        }
    }
}

#[cfg(test)]
mod tests;
