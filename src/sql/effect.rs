//! What a statement does to the session when it succeeds: read from the text only where a
//! [`super::Traits::EFFECTS`] class says so.

/// One statement's effect, in the order of the statements in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that the session tracks.
    None,
    /// `SET [SESSION|LOCAL] name = value`, `SET TIME ZONE`, `SET NAMES`, `SET ROLE`,
    /// `SET SESSION AUTHORIZATION`, `RESET name`, a `set_config` of literals.
    Set {
        name: SessionKey,
        value: SettingValue,
        scope: Scope,
    },
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION …`.
    SessionCharacteristics(super::Begin),
    /// `SET TRANSACTION …`.
    SetTransaction(super::Begin),
    ResetAll,
    Begin(super::Begin),
    /// COMMIT or END; PREPARE TRANSACTION ends the transaction likewise.
    Commit {
        /// AND CHAIN: another transaction begins at once.
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(Box<str>),
    RollbackTo(Box<str>),
    Release(Box<str>),
    /// SQL-level PREPARE: its own text, and where in it the statement begins that it prepares.
    Prepare {
        name: Box<str>,
        text: Box<[u8]>,
        body: usize,
    },
    /// SQL-level EXECUTE, also within EXPLAIN or CREATE TABLE … AS.
    Execute(Box<str>),
    /// DEALLOCATE of one name, or of all.
    Deallocate(Option<Box<str>>),
    DiscardAll,
    DiscardSequences,
    /// DISCARD PLANS or TEMP.
    DiscardPart,
    /// LOAD of a library.
    Load,
    Listen,
    /// UNLISTEN of a channel or of all.
    Unlisten,
    /// `DECLARE … CURSOR`; `hold` makes it outlive its transaction.
    Declare {
        hold: bool,
    },
    CloseCursor,
    /// `SET pgsplit.key = value`, the value without quotes; the default when `None`.
    OwnSet {
        key: Box<str>,
        value: Option<Box<str>>,
        scope: Scope,
    },
    /// `SHOW pgsplit.key`.
    OwnShow(Box<str>),
}

/// A setting's name as PostgreSQL folds it: lower case, `timezone` for TIME ZONE,
/// `client_encoding` for NAMES, `role`, `session_authorization`.
pub type SessionKey = Box<str>;

/// A setting's value as the statement gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingValue {
    /// TO DEFAULT, RESET, LOCAL (of time zones).
    Default,
    /// The part of the statement behind TO or `=`, as SQL that `SET name TO …` accepts again,
    /// whatever that session's `standard_conforming_strings`: one or more words, names, numbers
    /// and strings, in one spelling each.
    Sql(Box<str>),
}

/// How long a SET lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Session,
    /// To the end of the transaction.
    Local,
}
