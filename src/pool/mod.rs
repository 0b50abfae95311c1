//! Connections to nodes.

pub mod connect;
