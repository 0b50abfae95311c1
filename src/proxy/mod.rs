//! (to come)

mod console;

pub use console::{ConsoleClient, ConsoleServer, ConsoleStream, DATABASES as CONSOLE_DATABASES};
