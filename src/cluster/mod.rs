//! Nodes, roles, health, LSNs, lag and watermarks: the immutable [`View`] that routing reads, and
//! the state machines that make it.
//!
//! Pure: time is an argument. This folder never opens a connection; [`crate::monitor`] feeds it.
//!
//! - `lsn`, `history`, `lag`, `watermark`: positions, and what may be concluded from them.
//! - `health`: may a node be used. `roles`: which node is the primary, who is fenced off.
//! - `switchover`, `failover`: how another node becomes the primary, and when one must not.
//! - `state`: [`Cluster`], the one machine that the monitor feeds and that makes each [`View`].

mod event;
mod failover;
mod health;
mod history;
mod lag;
mod lsn;
mod roles;
#[cfg(test)]
mod simulation;
mod state;
mod switchover;
mod view;
mod watermark;

pub use event::{Alert, Cause, Event, Failure, Fence, What};
pub use failover::{Act, Candidate, FailoverWatch, Inquest, Refusal, Stand, Witness, choose};
pub use health::{HealthMachine, HealthRules};
pub use history::History;
pub use lag::{Lag, lag};
pub use lsn::{InvalidLsn, Lsn};
pub use roles::{Claim, Expected, Primacy, Roles, Verdict};
pub use state::{Cluster, Member, Pace, Probe, Sample};
pub use switchover::{News, Patience, Phase, Setback, Step, Switchover};
pub use view::{Health, MAX_NODES, NodeId, NodeView, Position, Role, View};
pub use watermark::{CaughtUp, Seen, caught_up};
