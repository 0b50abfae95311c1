//! pgsplit: a PostgreSQL proxy that pools connections, sends writes to the primary and reads to
//! the least-lagged healthy replica, and keeps applications running while nodes fail.
//!
//! # Code map
//! A folder is either pure (no runtime, clock, randomness or global state: time and random
//! numbers are arguments) or it does I/O, never both. Imports point upwards in this list only;
//! `tests/tidy.rs` checks it.
//!
//! | layer | folders | kind |
//! |---|---|---|
//! | 0 | [`protocol`], [`sql`], [`cluster`] | pure |
//! | 1 | [`session`], [`routing`] | pure |
//! | 2 | [`config`], [`error`], [`metrics`] | support |
//! | 3 | [`net`] | shell |
//! | 4 | [`pool`], [`monitor`] | shell |
//! | 5 | [`proxy`] | shell |
//! | 6 | [`admin`], [`cli`] | shell |

pub mod cluster;
pub mod protocol;
pub mod sql;

pub mod routing;
pub mod session;

pub mod config;
pub mod error;
pub mod metrics;

pub mod net;

pub mod monitor;
pub mod pool;

pub mod proxy;

pub mod admin;
pub mod cli;
