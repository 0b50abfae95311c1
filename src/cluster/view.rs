//! What routing knows of the cluster at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Lsn;

/// Nodes at a time, those that are being let go included: the length of every per-node table.
pub const MAX_NODES: usize = 64;

/// One node for as long as it is known: its place in every per-node table, and a number that tells
/// it from those that had the place before. What remembers a node that is gone finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The first node in that place.
    #[must_use]
    pub fn first(place: usize) -> Option<Self> {
        u16::try_from(place)
            .ok()
            .filter(|_| place < MAX_NODES)
            .map(Self)
    }

    /// The next node in the same place. After 1,024 of them numbers begin anew.
    #[must_use]
    pub fn successor(self) -> Self {
        Self(self.0.wrapping_add(MAX_NODES as u16))
    }

    /// For indexing per-node tables.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) % MAX_NODES
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
    /// Taken out by an operator, or no longer one of the nodes and being let go.
    Maintenance,
}

/// A node's LSN and when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub asked_at: Instant,
    /// The node has all that was written before here: a primary's insert LSN, a replica's replay
    /// LSN.
    pub lsn: Lsn,
    /// A node that has reached this shows all that this node showed before `asked_at`. At or just
    /// beyond `lsn`: a replica shows a commit a moment before its replay LSN passes it.
    pub bound: Lsn,
}

impl Position {
    /// Of a primary, or of a replica that has no record left to replay.
    #[must_use]
    pub fn exact(asked_at: Instant, lsn: Lsn) -> Self {
        Self {
            asked_at,
            lsn,
            bound: lsn,
        }
    }

    /// Of a replica that may be about to finish a record: the end of the one behind `lsn` isn't
    /// known, but whoever is past `lsn` has replayed that one as well.
    #[must_use]
    pub fn replaying(asked_at: Instant, lsn: Lsn) -> Self {
        Self {
            asked_at,
            lsn,
            bound: Lsn(lsn.0.saturating_add(1)),
        }
    }
}

/// One node as routing sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub id: NodeId,
    pub name: Arc<str>,
    pub zone: Arc<str>,
    /// 0: no reads.
    pub weight: u32,
    pub role: Role,
    pub health: Health,
    pub timeline: Option<u32>,
    /// The node can't have been restarted unseen since then: the monitor's connection is that old.
    pub since: Option<Instant>,
    /// Insert LSNs of a primary, replay LSNs of a replica, oldest first; bounded. Where `since` is
    /// `None`, the last ones before a primary was lost.
    pub positions: Arc<[Position]>,
    /// What a replica has received; `None` where it isn't said.
    pub received: Option<Lsn>,
    /// Replay was paused by an operator.
    pub replay_paused: bool,
    /// How long ago the primary passed what this replica has replayed; zero on a primary, `None`
    /// when not known, which is never to be read as "caught up".
    pub lag: Option<Duration>,
    /// How far behind what the primary had when this replica was asked.
    pub lag_bytes: Option<u64>,
    /// PostgreSQL's `server_version_num`.
    pub version: Option<u32>,
    /// The node answers positions that can be compared with the primary's (not so for Aurora).
    pub comparable: bool,
    /// No longer one of the nodes: what runs there may end.
    pub leaving: bool,
}

impl NodeView {
    /// A node of which nothing is known yet.
    #[must_use]
    pub fn new(id: NodeId, name: Arc<str>) -> Self {
        Self {
            id,
            name,
            zone: Arc::from(""),
            weight: 1,
            role: Role::Unknown,
            health: Health::Suspect,
            timeline: None,
            since: None,
            positions: Arc::from([]),
            received: None,
            replay_paused: false,
            lag: None,
            lag_bytes: None,
            version: None,
            comparable: true,
            leaving: false,
        }
    }

    /// Newest known position.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.positions.last().copied()
    }

    /// What another node must have reached to show all that this node had shown by `moment`, from
    /// the first position asked for at or after it. `None` until such a sample has been taken.
    #[must_use]
    pub fn bound_after(&self, moment: Instant) -> Option<Lsn> {
        let first = self.positions.partition_point(|p| p.asked_at < moment);
        self.positions.get(first).map(|p| p.bound)
    }
}

/// The cluster at one moment; replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub struct View {
    /// Those that there are, each once.
    pub nodes: Box<[NodeView]>,
    /// The one node that may be written to, when it is known and confirmed.
    pub primary: Option<NodeId>,
    /// Counts changes of primary: a watermark of an earlier epoch says nothing in a later one.
    pub epoch: u64,
    /// The first insert LSN sampled in this epoch: who has reached it on this primary's timeline
    /// has whatever outlived the epochs before.
    pub epoch_start: Option<Lsn>,
    /// New transactions are kept from this node while another takes its place: they are held,
    /// whatever the settings say.
    pub withheld: Option<NodeId>,
}

impl View {
    /// The node, if `id` is one of this view's.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        match self.nodes.get(id.index()) {
            // Always so until the first node was removed.
            Some(node) if node.id == id => Some(node),
            _ => self.nodes.iter().find(|node| node.id == id),
        }
    }

    /// The primary's entry.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeView> {
        self.node(self.primary?)
    }
}
