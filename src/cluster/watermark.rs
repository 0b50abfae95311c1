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
    /// It can't be told: only a primary can serve the session now.
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

    /// When it was seen.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
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

    /// The LSN that bounds all this from above, for `SHOW pgsplit.last_lsn`. `Ok(None)`: nothing was
    /// seen yet in this epoch.
    ///
    /// # Errors
    /// The node that has to be sampled first; `None`: it can't be told before there is a primary.
    pub fn watermark(&self, view: &View) -> Result<Option<Lsn>, Option<NodeId>> {
        let mut bound = self.min_lsn();
        if self.epoch == view.epoch {
            for item in [self.primary, self.replica].into_iter().flatten() {
                bound = bound.max(Some(item.bound(view)?));
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
        if self.node == replica && self.unbroken(view) {
            return CaughtUp::Yes;
        }
        match self.bound(view).map(&shows) {
            Ok(CaughtUp::NotYet) => match self.bound_by_primary(view).map(&shows) {
                Ok(result) => result,
                Err(_) => CaughtUp::NotYet,
            },
            Ok(result) => result,
            Err(Some(node)) => CaughtUp::NeedSample(node),
            Err(None) => CaughtUp::Never,
        }
    }

    /// The node itself can say what it showed. Not so a replica that was restarted meanwhile: it
    /// may have gone back in its log.
    fn unbroken(self, view: &View) -> bool {
        let since = view.node(self.node).and_then(|n| n.since);
        since.is_some_and(|since| since <= self.at)
    }

    /// An upper bound of what was seen, or the node that has to be sampled for one, if any.
    fn bound(self, view: &View) -> Result<Lsn, Option<NodeId>> {
        let Some(node) = view.node(self.node) else {
            // Removed since.
            return match self.of_primary {
                true if view.primary.is_some() => view.epoch_start.ok_or(view.primary),
                true => Err(None),
                false => self.bound_by_primary(view),
            };
        };
        if self.of_primary && view.primary.is_some_and(|primary| primary != self.node) {
            // Acknowledged by the last primary when this epoch had begun already.
            return view.epoch_start.ok_or(view.primary);
        }
        if self.of_primary {
            // Unless it has come back as something else, of which these would be the positions.
            let primary = matches!(node.role, Role::Primary | Role::Fenced);
            if !primary && node.since.is_some() {
                return Err(None);
            }
        } else if !self.unbroken(view) {
            return self.bound_by_primary(view);
        }
        node.bound_after(self.at).ok_or(Some(self.node))
    }

    /// Whatever a replica showed had been written by then.
    fn bound_by_primary(self, view: &View) -> Result<Lsn, Option<NodeId>> {
        let primary = view.primary().ok_or(None)?;
        primary.bound_after(self.at).ok_or(Some(primary.id))
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::cluster::{Health, NodeView, Position};

    const PRIMARY: NodeId = NodeId(0);
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn node(start: Instant, id: NodeId, role: Role, positions: &[(u64, u64)]) -> NodeView {
        NodeView {
            role,
            health: Health::Up,
            since: Some(start),
            positions: positions
                .iter()
                .map(|(ms, lsn)| Position::exact(at(start, *ms), Lsn(*lsn)))
                .collect(),
            ..NodeView::new(id, Arc::from("pg"))
        }
    }

    /// The primary was sampled at 10 and 20 ms; A has replayed all, B the first half.
    fn view(start: Instant) -> View {
        View {
            nodes: Box::new([
                node(start, PRIMARY, Role::Primary, &[(10, 1000), (20, 2000)]),
                node(start, A, Role::Replica, &[(11, 900), (21, 2000)]),
                node(start, B, Role::Replica, &[(11, 900), (21, 1000)]),
            ]),
            primary: Some(PRIMARY),
            epoch: 4,
            epoch_start: Some(Lsn(950)),
            withheld: None,
        }
    }

    fn wrote(start: Instant, epoch: u64, ms: u64) -> Seen {
        let mut seen = Seen::default();
        seen.on_primary(epoch, PRIMARY, at(start, ms));
        seen
    }

    fn read(start: Instant, node: NodeId, ms: u64) -> Seen {
        let mut seen = Seen::default();
        seen.on_replica(4, node, at(start, ms), true);
        seen
    }

    #[test]
    fn every_session_can_afford_one() {
        assert!(size_of::<Seen>() <= 64, "{}", size_of::<Seen>());
    }

    #[test]
    fn a_replica_serves_who_saw_no_more_than_it_has() {
        let start = start();
        let view = view(start);
        let floor = |lsn| {
            let mut seen = Seen::default();
            seen.set_min_lsn(Some(Lsn(lsn)));
            seen
        };
        let yes = CaughtUp::Yes;
        let table = [
            ("nothing was seen", Seen::default(), yes, yes),
            ("an early write", wrote(start, 4, 5), yes, yes),
            ("a late write", wrote(start, 4, 15), yes, CaughtUp::NotYet),
            (
                "a write later than any sample",
                wrote(start, 4, 25),
                CaughtUp::NeedSample(PRIMARY),
                CaughtUp::NeedSample(PRIMARY),
            ),
            ("one of an earlier epoch", wrote(start, 3, 25), yes, yes),
            (
                "its own read",
                read(start, A, 30),
                yes,
                CaughtUp::NeedSample(A),
            ),
            ("a read of the other", read(start, B, 12), yes, yes),
            (
                "a read of the one ahead",
                read(start, A, 12),
                yes,
                CaughtUp::NotYet,
            ),
            (
                "a position told from elsewhere",
                floor(1500),
                yes,
                CaughtUp::NotYet,
            ),
            (
                "both",
                wrote(start, 4, 5).and(floor(1500)),
                yes,
                CaughtUp::NotYet,
            ),
            (
                "of two writes the later",
                wrote(start, 4, 5).and(wrote(start, 4, 15)),
                yes,
                CaughtUp::NotYet,
            ),
            (
                "of two epochs the later",
                wrote(start, 3, 25).and(wrote(start, 4, 5)),
                yes,
                yes,
            ),
        ];
        for (why, seen, a, b) in table {
            assert_eq!(caught_up(&view, A, &seen), a, "A: {why}");
            assert_eq!(caught_up(&view, B, &seen), b, "B: {why}");
        }
        assert_eq!(caught_up(&view, PRIMARY, &Seen::default()), CaughtUp::Never);
        assert_eq!(
            caught_up(&view, NodeId(9), &Seen::default()),
            CaughtUp::Never
        );
    }

    #[test]
    fn where_a_replica_was_restarted_the_primary_bounds_what_it_showed() {
        let start = start();
        let mut view = view(start);
        view.nodes[1].since = Some(at(start, 15));
        assert_eq!(caught_up(&view, A, &read(start, A, 16)), CaughtUp::Yes);
        assert_eq!(caught_up(&view, A, &read(start, A, 12)), CaughtUp::Yes);
        assert_eq!(caught_up(&view, B, &read(start, A, 12)), CaughtUp::NotYet);
        assert_eq!(caught_up(&view, B, &read(start, A, 9)), CaughtUp::Yes);
        view.nodes[1].since = None;
        let unbounded = CaughtUp::NeedSample(PRIMARY);
        assert_eq!(caught_up(&view, B, &read(start, A, 30)), unbounded);
        view.primary = None;
        assert_eq!(caught_up(&view, B, &read(start, A, 12)), CaughtUp::Never);
    }

    #[test]
    fn a_lost_primary_bounds_what_it_did_before_until_it_is_back_as_a_replica() {
        let start = start();
        let mut view = view(start);
        view.primary = None;
        view.nodes[0].role = Role::Unknown;
        view.nodes[0].since = None;
        assert_eq!(caught_up(&view, A, &wrote(start, 4, 15)), CaughtUp::Yes);
        assert_eq!(caught_up(&view, B, &wrote(start, 4, 15)), CaughtUp::NotYet);
        let unbounded = CaughtUp::NeedSample(PRIMARY);
        assert_eq!(caught_up(&view, A, &wrote(start, 4, 25)), unbounded);
        view.nodes[0].role = Role::Replica;
        view.nodes[0].since = Some(at(start, 30));
        assert_eq!(caught_up(&view, A, &wrote(start, 4, 15)), CaughtUp::Never);
    }

    #[test]
    fn after_a_promotion_a_replica_serves_once_it_is_where_the_epoch_began() {
        let start = start();
        let mut view = view(start);
        view.epoch_start = Some(Lsn(1500));
        assert_eq!(caught_up(&view, A, &wrote(start, 3, 5)), CaughtUp::Yes);
        assert_eq!(caught_up(&view, B, &wrote(start, 3, 5)), CaughtUp::NotYet);
        assert_eq!(caught_up(&view, B, &Seen::default()), CaughtUp::Yes);
    }

    #[test]
    fn where_positions_mean_nothing_only_who_saw_nothing_is_served() {
        let start = start();
        let mut view = view(start);
        view.nodes[1].comparable = false;
        assert_eq!(caught_up(&view, A, &Seen::default()), CaughtUp::Yes);
        assert_eq!(caught_up(&view, A, &wrote(start, 4, 5)), CaughtUp::Never);
    }

    #[test]
    fn the_watermark_is_what_bounds_all_that_was_seen() {
        let start = start();
        let view = view(start);
        assert_eq!(Seen::default().watermark(&view), Ok(None));
        assert_eq!(wrote(start, 4, 15).watermark(&view), Ok(Some(Lsn(2000))));
        assert_eq!(wrote(start, 4, 25).watermark(&view), Err(Some(PRIMARY)));
        assert_eq!(wrote(start, 3, 15).watermark(&view), Ok(None));
        assert_eq!(read(start, B, 12).watermark(&view), Ok(Some(Lsn(1000))));
    }

    #[test]
    fn a_covered_read_takes_the_place_of_what_it_covers() {
        let start = start();
        let mut seen = wrote(start, 4, 15);
        seen.on_replica(4, A, at(start, 30), false);
        assert_eq!(caught_up(&view(start), A, &seen), CaughtUp::Yes);
        assert_eq!(caught_up(&view(start), B, &seen), CaughtUp::NotYet);
        seen.on_replica(4, A, at(start, 31), true);
        assert_eq!(seen, read(start, A, 31));
    }
}
