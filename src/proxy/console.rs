//! Who serves the clients that open the console instead of a database.

use std::{future::Future, io, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

/// The databases that are the console.
pub const DATABASES: [&str; 2] = ["pgsplit", "pgbouncer"];

/// Serves one authenticated client that has opened the console. The proxy is given one and knows
/// nothing else of it.
pub trait ConsoleServer: Send + Sync {
    /// Speaks with the client until it leaves: everything after AuthenticationOk, from the
    /// ParameterStatus messages on. To end it from outside, drop the future.
    fn serve(
        &self,
        client: ConsoleClient,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>;
}

/// A client's connection, plain or TLS.
pub trait ConsoleStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ConsoleStream for S {}

/// One authenticated client.
pub struct ConsoleClient {
    pub stream: Box<dyn ConsoleStream>,
    /// One of `admin.console_users`.
    pub user: String,
    /// One of [`DATABASES`].
    pub database: String,
    /// What was read beyond the handshake.
    pub read_ahead: Vec<u8>,
}

impl std::fmt::Debug for ConsoleClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleClient")
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
