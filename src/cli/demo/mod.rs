//! `pgsplit demo`: a cluster of one's own with the proxy before it, in one command.

pub mod cluster;
mod server;

pub use server::{Failure, free_port};
