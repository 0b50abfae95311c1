//! What operators see: the console (`psql pgsplit`), and HTTP with metrics, health, an API and a
//! page.
//!
//! **Invariant:** this folder learns about the proxy and drives it only through
//! [`crate::metrics::Inspect`] and reads [`crate::metrics::Metrics`]. It never touches a session,
//! a pool or a node.

mod averages;
mod console;
#[cfg(test)]
mod fake;
mod http;
mod json;
mod lookout;
mod operators;
mod page;
mod process;
mod tables;
mod time;

pub use console::Console;
pub use http::run;
