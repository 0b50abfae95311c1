//! Streams to clients and nodes: plain, Unix and TLS; listening, dialling, and the message
//! exchange of logins.
//!
//! Nothing here knows SQL, sessions or routes. Every wait ends by a deadline that the caller gives.

mod buffer;
mod dial;
pub mod http;
mod inbox;
mod listen;
mod stream;
pub mod tls;

pub use buffer::Buffer;
#[cfg(test)]
pub(crate) use dial::Pipes;
pub use dial::{DialError, Dialer, dial};
pub use inbox::{Inbox, InboxError};
pub use listen::{listen_tcp, listen_unix};
pub use stream::{Peer, Stream};
