//! PostgreSQL's wire protocol: frames, the messages that pgsplit reads and writes, startup
//! packets, SQLSTATEs and limits (PostgreSQL manual, chapter "Frontend/Backend Protocol").
//!
//! Pure: bytes in, values out. This folder never reads a socket.

pub mod authentication;
pub mod backend;
pub mod frame;
pub mod frontend;
pub mod limits;
pub mod scram;
pub mod sqlstate;
pub mod startup;
pub mod write;

pub use sqlstate::SqlState;
