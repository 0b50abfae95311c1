//! Where a session's transaction stands.
//!
//! | state | event | next |
//! |---|---|---|
//! | `Idle` | the client sends BEGIN | `Deferred`: answered at once, no server yet |
//! | `Deferred` | COMMIT or ROLLBACK | `Idle`, answered at once |
//! | `Deferred` | any other statement | `Open`, once the server says so |
//! | any | ReadyForQuery | what it says |
//! | `Open` | the server connection is lost | `Lost`: every statement fails until the client ends it |
//! | `Lost` | COMMIT or ROLLBACK | `Idle`, answered ROLLBACK; COMMIT with an error, if that is the first that the client hears of it |
//!
//! Whether a transaction is open is never guessed from a text: only ReadyForQuery says so, and a
//! BEGIN that pgsplit has answered itself.

use crate::{protocol::backend::Status, sql::Begin};

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    #[default]
    Idle,
    /// BEGIN was answered and not sent: its text, to be sent before the first statement.
    Deferred { modes: Begin, text: Box<[u8]> },
    /// Open on a server connection, which the session keeps.
    Open { failed: bool },
    /// It was open on a server connection that is gone: surely rolled back. `told`: the client has
    /// heard of it.
    Lost { told: bool },
}

impl Transaction {
    /// ReadyForQuery's letter for the client.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Idle => Status::Idle,
            Self::Deferred { .. } | Self::Open { failed: false } => Status::InTransaction,
            Self::Open { failed: true } | Self::Lost { .. } => Status::Failed,
        }
    }

    /// A server has said where it stands.
    pub fn ready(&mut self, status: Status) {
        *self = match status {
            Status::Idle => Self::Idle,
            Status::InTransaction => Self::Open { failed: false },
            Status::Failed => Self::Open { failed: true },
        };
    }

    /// A server connection holds it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}
