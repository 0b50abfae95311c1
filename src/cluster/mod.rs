//! Nodes, roles, health, LSNs, lag and watermarks: the immutable [`View`] that routing reads, and
//! the state machines that make it.
//!
//! Pure: time is an argument. This folder never opens a connection; [`crate::monitor`] feeds it.

mod lsn;
mod view;

pub use lsn::Lsn;
pub use view::{Health, NodeId, NodeView, Position, Role, View};
