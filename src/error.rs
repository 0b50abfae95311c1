//! Faults: whose they are, whether the work may be tried again, and what a client sees.

use std::{borrow::Cow, fmt};

use crate::protocol::SqlState;

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    Client,
    /// A node, or the way to it.
    Node,
    /// A limit or a state of pgsplit itself.
    Proxy,
}

/// An error that a client will see.
#[derive(Clone, Debug)]
pub struct Visible {
    pub fault: Fault,
    pub sqlstate: SqlState,
    pub message: Cow<'static, str>,
    pub hint: Option<Cow<'static, str>>,
    /// FATAL rather than ERROR: the connection is closed after it.
    pub fatal: bool,
}

impl Visible {
    /// An ERROR: the session lives on.
    pub fn error(fault: Fault, sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fault,
            sqlstate,
            message: message.into(),
            hint: None,
            fatal: false,
        }
    }

    /// A FATAL error: the connection ends with it.
    pub fn fatal(fault: Fault, sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fatal: true,
            ..Self::error(fault, sqlstate, message)
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Visible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl std::error::Error for Visible {}
