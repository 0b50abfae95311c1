//! Bounds of what pgsplit reads and keeps. A peer can't make it hold more.

/// Longest message of any kind, as in PostgreSQL (`PQ_LARGE_MESSAGE_LIMIT`), in bytes.
pub const MESSAGE: usize = 0x3FFF_FFFF;
/// Longest startup packet (`MAX_STARTUP_PACKET_LENGTH`), in bytes.
pub const STARTUP: usize = 10_000;
/// Longest message before a client has been authenticated (`PG_MAX_AUTH_TOKEN_LENGTH`), in bytes.
pub const AUTHENTICATION: usize = 65_535;
/// Longest message of a type that carries no data (`PQ_SMALL_MESSAGE_LIMIT`), in bytes.
pub const SMALL_MESSAGE: usize = 10_000;
