//! What is known of a server connection's state: what it must be compared with before it serves a
//! session.

use std::sync::Arc;

use super::{Stamp, prepared::OnServer, settings::Settings};
use crate::protocol::backend::Status;

/// The state of one server connection, as pgsplit has made it.
#[derive(Debug)]
pub struct Backend {
    /// `None`: something ran there whose effects aren't known.
    pub settings: Option<Arc<Settings>>,
    pub prepared: OnServer,
    /// Which unnamed statement is there.
    pub unnamed: Option<Stamp>,
    /// Something ran there whose effects on the settings can't all be seen.
    pub tainted: bool,
    /// It isn't to be lent again.
    pub spoiled: bool,
    /// As its last ReadyForQuery said.
    pub status: Status,
    /// The session that wrote there last: what `currval` and `lastval` tell is its own.
    pub writer: Option<u32>,
}

impl Backend {
    /// A connection that has just logged in.
    #[must_use]
    pub fn fresh(none: Arc<Settings>) -> Self {
        Self {
            settings: Some(none),
            prepared: OnServer::default(),
            unnamed: None,
            tainted: false,
            spoiled: false,
            status: Status::Idle,
            writer: None,
        }
    }

    /// The statements that bring it to `wanted`, if any are needed.
    #[must_use]
    pub fn statements_to(&self, wanted: &Arc<Settings>) -> Option<String> {
        match &self.settings {
            Some(known) if Arc::ptr_eq(known, wanted) => None,
            Some(known) => known.statements_to(wanted),
            None => Some(wanted.statements_from_unknown()),
        }
    }
}
