//! Where a request goes: statement class + session + cluster view → [`Route`].
//!
//! One pure function; the reason inside the route is the log field, the metric label, what
//! `explain` prints and what tests assert.

mod reason;

pub use reason::Reason;

use crate::cluster::NodeId;

/// A decision, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Route {
    pub target: Target,
    pub reason: Reason,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Whichever node is the primary when a connection is taken.
    Primary,
    Replica(NodeId),
}
