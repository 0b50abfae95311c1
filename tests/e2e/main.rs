//! Everything against real PostgreSQL: a primary and its replicas, the built `pgsplit`, real
//! clients.
//!
//! `cargo test --test e2e` runs all of it in one process, so that most tests share one cluster
//! (see `support`). `make test` calls it that way.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

mod testbed;

mod routing;
mod transactions;
mod traps;

mod cancel;
mod consistency;
mod copy;
mod hostile;
mod isolation;
mod leaks;
mod login;
mod pipeline;
mod pool;
mod prepared;
mod session;
mod vanish;

mod bulk;
mod chaos;
mod differ;
mod failover;
mod nodes;
mod patroni;
mod promote;
mod replicas;
mod replication;
mod switchover;
mod tables;

mod commands;
mod drivers;
mod version;
