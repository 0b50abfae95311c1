//! What pgsplit counts and shows: metric families (Prometheus names, base units), the rows that the
//! console and the HTTP API are made of.
//!
//! One [`Metrics`] belongs to one proxy: nothing here is global. Whatever happens once per request
//! touches only its worker's own cache lines ([`WorkerMetrics`]); the shards are summed when
//! somebody looks. States that exist anyway (nodes, pools) are never counted a second time: they
//! are read through [`Inspect`] at that moment.
//!
//! Labels come from fixed sets; text from a client or a server never becomes a label, except the
//! names of nodes, which are configuration.
//!
//! This folder never opens a socket, reads a clock or starts a task.

mod cells;
mod families;
pub mod inspect;
mod labels;
mod worker;

pub use cells::Histogram;
pub use families::{Metrics, ProcessRow, Scrape};
pub use inspect::{Inspect, StatementCount};
pub use labels::{LoginResult, RetryReason, counts_as_read};
pub use worker::{ClientGuard, DatabaseStats, DatabaseTotals, HeldGuard, WorkerMetrics};
