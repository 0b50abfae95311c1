//! Clients: how they are let in, and what they are served.

pub mod authenticate;
mod console;
pub mod handshake;

pub use console::{ConsoleClient, ConsoleServer, ConsoleStream, DATABASES as CONSOLE_DATABASES};
