//! What an operator would want to know of: changes of health, role and primary, and what is wrong.

use std::fmt;

use super::{Health, Lsn, NodeId, Phase, Refusal, Role, Setback, Stand};
use crate::protocol::SqlState;

/// One change, with what is needed to understand it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub node: NodeId,
    pub what: What,
    pub cause: Cause,
    /// The node's newest position when it happened.
    pub lsn: Option<Lsn>,
    /// The node's timeline when it happened.
    pub timeline: Option<u32>,
}

/// What changed, from what to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Health {
        from: Health,
        to: Health,
    },
    Role {
        from: Role,
        to: Role,
    },
    /// The node that writes go to. `None`: none is known.
    Primary {
        from: Option<NodeId>,
        to: Option<NodeId>,
        epoch: u64,
    },
    /// Whether new transactions are kept from the node while it may still be the primary.
    Withheld {
        from: bool,
        to: bool,
    },
    /// Whether the node was told to refuse writes.
    Fence {
        from: Fence,
        to: Fence,
    },
    /// A planned change of primary, to the node.
    Switchover {
        from: Phase,
        to: Phase,
    },
    /// The promotion of a replica in the place of a lost primary, which is the node, or of the
    /// replica once it is chosen.
    Failover {
        from: Stand,
        to: Stand,
    },
    /// Whether the node follows the new primary.
    Follow {
        primary: NodeId,
        done: bool,
    },
    /// It is one of the nodes now.
    Joined,
    /// It isn't any more: nothing new is sent there.
    Leaving,
    /// Nothing runs there any more.
    Left,
    /// Its share of the reads.
    Weight {
        from: u32,
        to: u32,
    },
    /// Something is wrong that needs a human.
    Alert(Alert),
    /// That is over.
    AlertOver(Alert),
}

/// Whether a node refuses writes on our order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    Open,
    Up,
    /// It was told to, or no longer to, and the answer is missing.
    Unknown,
}

/// What needs a human.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alert {
    /// A primary on a timeline that was left behind: fenced off.
    Superseded { timeline: u32, newest: u32 },
    /// Says that it is a primary, and so does (or did) the other one, on the same timeline.
    Contested { with: NodeId },
    /// Belongs to another cluster, by its system identifier.
    ForeignSystem { expected: u64, found: u64 },
    /// Is not what its setting `role` allows.
    UnexpectedRole,
    /// A replica that doesn't follow the primary's timeline, as far as is known.
    Detached { timeline: Option<u32>, primary: u32 },
    /// The primary refuses to write, by `default_transaction_read_only` in its configuration, though no
    /// switchover is going on.
    ReadOnly,
}

/// What made something change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A probe was answered.
    Probe,
    /// A probe failed, or the monitor's connection did.
    ProbeFailed(Failure),
    /// A query's connection failed.
    QueryFailed(Failure),
    /// An operator said so.
    Operator,
    /// A switchover is being carried out.
    Switchover,
    /// A switchover met with this.
    Setback(Setback),
    /// A failover is being carried out.
    Failover,
    /// A failover was refused.
    Refused(Refusal),
    /// The node didn't do in time, or not at all, what it was told.
    NotDone,
    /// The configuration says so.
    Configuration,
    /// Whoever knows the nodes (DNS, Patroni) says so.
    Discovery,
    /// Its last server connection was closed.
    Drained,
}

/// How a node failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// A connection broke.
    Closed,
    /// No answer in time.
    Timeout,
    /// The node answered with this error.
    Answer(SqlState),
    /// The node answered something that PostgreSQL doesn't.
    Protocol,
}

impl What {
    /// All names.
    pub const NAMES: [&str; 14] = [
        "health",
        "role",
        "primary",
        "hold",
        "fence",
        "switchover",
        "failover",
        "follow",
        "joined",
        "leaving",
        "left",
        "weight",
        "alert",
        "alert_over",
    ];

    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Health { .. } => "health",
            Self::Role { .. } => "role",
            Self::Primary { .. } => "primary",
            Self::Withheld { .. } => "hold",
            Self::Fence { .. } => "fence",
            Self::Switchover { .. } => "switchover",
            Self::Failover { .. } => "failover",
            Self::Follow { .. } => "follow",
            Self::Joined => "joined",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Weight { .. } => "weight",
            Self::Alert(_) => "alert",
            Self::AlertOver(_) => "alert_over",
        }
    }
}

impl Fence {
    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Up => "up",
            Self::Unknown => "unknown",
        }
    }
}

impl Alert {
    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Superseded { .. } => "superseded",
            Self::Contested { .. } => "contested",
            Self::ForeignSystem { .. } => "foreign_system",
            Self::UnexpectedRole => "unexpected_role",
            Self::Detached { .. } => "detached",
            Self::ReadOnly => "read_only",
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Superseded { timeline, newest } => write!(
                f,
                "a second primary, on timeline {timeline} while {newest} exists; nothing is sent \
                 there: rebuild or rewind it"
            ),
            Self::Contested { .. } => f.write_str(
                "two primaries on the same timeline; stop the wrong one and take it out of the \
                 configuration or DISABLE it",
            ),
            Self::ForeignSystem { expected, found } => write!(
                f,
                "system identifier {found}, but this cluster's is {expected}: not the same cluster"
            ),
            Self::UnexpectedRole => f.write_str("isn't what its setting \"role\" allows"),
            Self::Detached { timeline: None, .. } => f.write_str(
                "can't tell which timeline it follows; grant pg_monitor to the monitor's user",
            ),
            Self::Detached {
                timeline: Some(timeline),
                primary,
            } => write!(
                f,
                "follows timeline {timeline} as far as known, but the primary is on {primary}: if that \
                 lasts let its primary_conninfo lead to the primary, and grant pg_monitor to the \
                 monitor's user, who then knows at once"
            ),
            Self::ReadOnly => f.write_str(
                "every write is refused there: default_transaction_read_only is on, perhaps since a \
                 switchover broke off; order the switchover again, or ALTER SYSTEM RESET \
                 default_transaction_read_only and SELECT pg_reload_conf()",
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("no connection"),
            Self::Closed => f.write_str("connection lost"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Answer(code) => write!(f, "error {code}"),
            Self::Protocol => f.write_str("unintelligible answer"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => f.write_str("probe"),
            Self::ProbeFailed(failure) => write!(f, "probe: {failure}"),
            Self::QueryFailed(failure) => write!(f, "query: {failure}"),
            Self::Configuration => f.write_str("configuration"),
            Self::Discovery => f.write_str("discovery"),
            Self::Drained => f.write_str("drained"),
            Self::Operator => f.write_str("operator"),
            Self::Switchover => f.write_str("switchover"),
            Self::Setback(why) => write!(f, "switchover: {}", why.name()),
            Self::Failover => f.write_str("failover"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::NotDone => f.write_str("not done in time"),
        }
    }
}
