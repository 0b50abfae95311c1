//! What a session must be able to see, and whether a replica shows it.
//!
//! Writes pay nothing for this: the session notes only *where* and *when* its last work was
//! acknowledged. A position that the node gave later bounds that work from above.

use std::time::Instant;

use super::{Lsn, NodeId, Role, View};

/// What a session has seen or done, as evidence: small, since every session has one.
///
/// At most two items count, each "all that was visible on this node at this moment": one of the
/// primary, one of a replica. A read on a replica that had caught up with both takes their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    epoch: u64,
    primary: Option<Item>,
    replica: Option<Item>,
    /// From `SET pgsplit.min_lsn`; zero: none.
    min_lsn: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    node: NodeId,
    at: Instant,
    of_primary: bool,
}

/// Whether a replica shows what a session has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CaughtUp {
    Yes,
    /// The replica has to replay more first, as far as its last sample tells.
    NotYet,
    /// It can't be told before a new position of this node is known.
    NeedSample(NodeId),
    /// It can never be told of this replica: only the primary can serve the session now.
    Never,
}

impl Seen {
    /// Something was acknowledged by the primary at `at` (taken when the answer was read): a write,
    /// a COMMIT or a read. It includes all that was seen before.
    pub fn on_primary(&mut self, epoch: u64, node: NodeId, at: Instant) {
        self.epoch = epoch;
        self.primary = Some(Item {
            node,
            at,
            of_primary: true,
        });
        self.replica = None;
    }

    /// A read was answered by a replica at `at`. `covered`: the replica had been found
    /// [`CaughtUp::Yes`] for this session, so that what it showed includes all seen before.
    pub fn on_replica(&mut self, epoch: u64, node: NodeId, at: Instant, covered: bool) {
        if covered || self.epoch != epoch {
            self.primary = None;
        }
        self.epoch = epoch;
        self.replica = Some(Item {
            node,
            at,
            of_primary: false,
        });
    }

    /// `SET pgsplit.min_lsn`: read nothing older than this, whoever wrote it. Holds in every epoch.
    pub fn set_min_lsn(&mut self, lsn: Option<Lsn>) {
        self.min_lsn = lsn.unwrap_or_default();
    }

    /// What `SET pgsplit.min_lsn` left.
    #[must_use]
    pub fn min_lsn(&self) -> Option<Lsn> {
        Some(self.min_lsn).filter(|lsn| *lsn != Lsn(0))
    }

    /// When the primary last acknowledged something that counts: for nodes whose positions can't be
    /// compared, where only time can tell.
    #[must_use]
    pub fn primary_at(&self) -> Option<Instant> {
        self.primary.map(|item| item.at)
    }

    /// Both together, as for `consistency = "global"`, whose own `Seen` holds the writes of all
    /// sessions. Of two reads on replicas the later one is kept.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (mut new, old) = if self.epoch >= other.epoch {
            (self, other)
        } else {
            (other, self)
        };
        new.min_lsn = new.min_lsn.max(old.min_lsn);
        if new.epoch == old.epoch {
            new.primary = later(new.primary, old.primary);
            new.replica = later(new.replica, old.replica);
        }
        new
    }

    /// The LSN that bounds all this from above, for `SHOW pgsplit.last_lsn`: `Err` names the node
    /// that has to be sampled first. `Ok(None)`: nothing was seen yet in this epoch.
    pub fn watermark(&self, view: &View) -> Result<Option<Lsn>, NodeId> {
        let mut bound = self.min_lsn();
        if self.epoch == view.epoch {
            for item in [self.primary, self.replica].into_iter().flatten() {
                let lsn = view
                    .node(item.node)
                    .and_then(|n| n.bound_after(item.at))
                    .ok_or(item.node)?;
                bound = bound.max(Some(lsn));
            }
        }
        Ok(bound)
    }

    /// Seen anything at all on a node?
    fn is_empty(&self) -> bool {
        self.primary.is_none() && self.replica.is_none()
    }
}

/// Whether `replica` shows all that `seen` holds.
///
/// What was seen in an earlier epoch can't be compared any more; whatever of it outlived the
/// promotion is there once the replica has replayed up to where this epoch began.
pub fn caught_up(view: &View, replica: NodeId, seen: &Seen) -> CaughtUp {
    let Some(node) = view.node(replica).filter(|n| n.role == Role::Replica) else {
        return CaughtUp::Never;
    };
    let same_epoch = seen.epoch == view.epoch;
    if seen.min_lsn == Lsn(0) && seen.is_empty() {
        return CaughtUp::Yes;
    }
    if !node.comparable {
        return CaughtUp::Never;
    }
    let shows = |bound: Lsn| match node.position() {
        None => CaughtUp::NeedSample(replica),
        Some(position) if position.lsn.reached(bound) => CaughtUp::Yes,
        Some(_) => CaughtUp::NotYet,
    };
    let mut result = CaughtUp::Yes;
    if seen.min_lsn != Lsn(0) {
        result = result.worse(shows(seen.min_lsn));
    }
    if !same_epoch && !seen.is_empty() {
        return result.worse(match (view.epoch_start, view.primary) {
            (Some(start), _) => shows(start),
            (None, Some(primary)) => CaughtUp::NeedSample(primary),
            (None, None) => CaughtUp::Never,
        });
    }
    for item in [seen.primary, seen.replica].into_iter().flatten() {
        result = result.worse(item.shown_by(view, replica, shows));
    }
    result
}

impl Item {
    fn shown_by(self, view: &View, replica: NodeId, shows: impl Fn(Lsn) -> CaughtUp) -> CaughtUp {
        let Some(source) = view.node(self.node) else {
            return CaughtUp::Never;
        };
        if !self.of_primary {
            // A replica that was restarted meanwhile may have gone back in its log.
            if source.since.is_none_or(|since| since > self.at) {
                return CaughtUp::Never;
            }
            if self.node == replica {
                return CaughtUp::Yes;
            }
        }
        match source.bound_after(self.at) {
            Some(bound) => shows(bound),
            None => CaughtUp::NeedSample(self.node),
        }
    }
}

impl CaughtUp {
    fn worse(self, other: Self) -> Self {
        let rank = |c: &Self| match c {
            Self::Yes => 0,
            Self::NeedSample(_) => 1,
            Self::NotYet => 2,
            Self::Never => 3,
        };
        std::cmp::max_by_key(self, other, rank)
    }
}

fn later(a: Option<Item>, b: Option<Item>) -> Option<Item> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.at > a.at { b } else { a }),
        (one, other) => one.or(other),
    }
}
