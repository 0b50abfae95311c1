//! What routing knows of the cluster at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Lsn;

/// A node's place in [`View::nodes`] and in every per-node table; stable while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// For indexing per-node tables.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a node is, as last confirmed by `pg_is_in_recovery()` on a connection that still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Not known, or known only from a connection that has died since.
    Unknown,
    Primary,
    Replica,
    /// A primary that another one has superseded: never written to.
    Fenced,
}

/// Whether a node may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    Up,
    /// Something failed there and a probe is on its way; still used when nothing better is.
    Suspect,
    Down,
    /// Taken out by an operator.
    Maintenance,
}

/// An LSN and when it was asked for. Whatever the node had written (a primary) or replayed (a
/// replica) before `asked_at` lies at or before `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub asked_at: Instant,
    pub lsn: Lsn,
}

/// One node as routing sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Arc<str>,
    pub zone: Arc<str>,
    /// 0: no share of the reads while another node can take them.
    pub weight: u32,
    pub role: Role,
    pub health: Health,
    pub timeline: Option<u32>,
    /// Insert LSNs of a primary, replay LSNs of a replica, oldest first; bounded.
    pub positions: Arc<[Position]>,
    /// How long ago the primary passed what this replica has replayed; zero on a primary, `None`
    /// when not known.
    pub lag: Option<Duration>,
    /// How far behind the primary's newest known LSN.
    pub lag_bytes: Option<u64>,
    /// PostgreSQL's `server_version_num`.
    pub version: Option<u32>,
    /// The node answers positions that can be compared with the primary's (not so for Aurora).
    pub comparable: bool,
}

impl NodeView {
    /// Newest known position.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.positions.last().copied()
    }

    /// The first LSN asked for at or after `moment`: an upper bound of all that this node had
    /// written or replayed by then. `None` until such a sample has been taken.
    #[must_use]
    pub fn bound_after(&self, moment: Instant) -> Option<Lsn> {
        let first = self.positions.partition_point(|p| p.asked_at < moment);
        self.positions.get(first).map(|p| p.lsn)
    }
}

/// The cluster at one moment; replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub struct View {
    /// Indexed by [`NodeId`].
    pub nodes: Box<[NodeView]>,
    /// The one node that may be written to, when it is known and confirmed.
    pub primary: Option<NodeId>,
    /// Counts changes of primary: a watermark of an earlier epoch says nothing in a later one.
    pub epoch: u64,
}

impl View {
    /// The node, if `id` is one of this view's.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// The primary's entry.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeView> {
        self.node(self.primary?)
    }
}
