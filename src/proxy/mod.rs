//! Clients: how they are let in, and what they are served.

pub mod authenticate;
pub mod handshake;
