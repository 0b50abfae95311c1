//! The class of a query text: all that routing and the session need on the hot path, in a few
//! bytes that can be copied and cached.

use super::Tables;

/// How the session's settings make its query texts read (PostgreSQL manual, "Lexical Structure").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lexing {
    /// `standard_conforming_strings`: off lets a backslash escape in plain strings.
    pub standard_conforming_strings: bool,
    /// `client_encoding` is one in which every byte below 0x80 is that ASCII character (not so in
    /// SJIS, BIG5, GBK, GB18030, UHC, JOHAB).
    pub ascii_safe_encoding: bool,
}

impl Default for Lexing {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            ascii_safe_encoding: true,
        }
    }
}

/// A query text's class. A text of several statements has the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    pub kind: Kind,
    pub access: Access,
    /// From a comment in the text.
    pub hint: Option<Hint>,
    pub traits: Traits,
    /// Of a read: what it reads. Of a write: what it changes, or lets the client know of.
    pub tables: Tables,
}

/// Which nodes may run the text, as far as the text itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A read that any node may answer.
    Read,
    /// Only the primary may run it.
    Primary(Why),
    /// Runs wherever the session is: COMMIT, FETCH, SHOW, an empty text, …
    Anywhere,
}

/// Why a text belongs on the primary. One fixed set: the metric label, what `explain` prints, what
/// tests assert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, a data-modifying CTE.
    Write,
    /// CREATE, ALTER, DROP, GRANT, COMMENT, …
    Ddl,
    /// VACUUM, ANALYZE, CHECKPOINT, ALTER SYSTEM, LOCK, COPY TO a file or program, …
    Utility,
    /// CALL, DO.
    Procedure,
    /// FOR UPDATE, FOR SHARE, …
    RowLock,
    /// SELECT INTO, CREATE TABLE AS.
    Into,
    /// A function that isn't read-safe, called or reached through an operator, cast, aggregate.
    Function,
    /// A function name that the catalogue doesn't know.
    UnknownFunction,
    /// A view, rule or row-level policy that reaches something not read-safe.
    View,
    /// A relation whose content differs between nodes: statistics, server views, sequences,
    /// unlogged and temporary tables.
    NodeLocal,
    /// A relation that the catalogue doesn't know.
    UnknownRelation,
    /// Session state that only the primary's connection carries: LISTEN, temporary objects, SET, …
    Session,
    /// SERIALIZABLE, or a transaction that may write.
    Transaction,
    /// Asks whether this is a standby: answered as the primary would.
    Recovery,
    /// A comment in the text said so.
    Hint,
    /// Didn't parse, or two readers of the text disagree.
    Unparsable,
    /// Longer than what is looked at.
    TooLong,
    /// The catalogue hasn't been loaded yet.
    NoCatalogue,
}

impl Why {
    /// The fixed name used in labels, logs and `explain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Utility => "utility",
            Self::Procedure => "procedure",
            Self::RowLock => "row_lock",
            Self::Into => "into",
            Self::Function => "function",
            Self::UnknownFunction => "unknown_function",
            Self::View => "view",
            Self::NodeLocal => "node_local",
            Self::UnknownRelation => "unknown_relation",
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Recovery => "recovery",
            Self::Hint => "hint",
            Self::Unparsable => "unparsable",
            Self::TooLong => "too_long",
            Self::NoCatalogue => "no_catalogue",
        }
    }
}

/// What the session must do with the text, beyond sending it somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing but white space and comments.
    Empty,
    /// Exactly one statement that begins a transaction.
    Begin(Begin),
    /// Exactly one COMMIT or END (without AND CHAIN).
    Commit,
    /// Exactly one ROLLBACK or ABORT (without AND CHAIN), not TO SAVEPOINT.
    Rollback,
    /// Exactly one `SET|SHOW|RESET pgsplit.…` (or the statement is one of pgsplit's own):
    /// answered without a server; see [`super::Effect`].
    Own,
    /// One statement of any other sort.
    Single,
    /// Several statements.
    Several,
}

/// The transaction modes of one BEGIN, START TRANSACTION or SET TRANSACTION; `None` where not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Begin {
    pub read_only: Option<bool>,
    pub isolation: Option<Isolation>,
    pub deferrable: Option<bool>,
    /// Written START TRANSACTION, which is also its command tag.
    pub start: bool,
}

impl Begin {
    /// These modes, with those of a SET TRANSACTION behind them.
    #[must_use]
    pub fn merged(self, more: Self) -> Self {
        Self {
            read_only: more.read_only.or(self.read_only),
            isolation: more.isolation.or(self.isolation),
            deferrable: more.deferrable.or(self.deferrable),
            start: self.start,
        }
    }
}

/// Transaction isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// `/* pgsplit: primary */` or `/* pgsplit: replica */`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    Primary,
    Replica,
}

/// Independent properties of a text, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Traits(u16);

impl Traits {
    /// [`super::effects`] has something to say about this text.
    pub const EFFECTS: Self = Self(1);
    /// May change settings, role, locks, temporary objects or other session state unseen (CALL,
    /// DO, a function not known to be harmless): look at the backend before lending it on.
    pub const OBSERVE: Self = Self(1 << 1);
    /// Changes the catalogue.
    pub const DDL: Self = Self(1 << 2);
    /// Surely changes no data, wherever it runs (doesn't count as a write for watermarks).
    pub const PURE_READ: Self = Self(1 << 3);
    /// Can't run inside a transaction block, even an implicit one (VACUUM, CREATE DATABASE, …).
    pub const NO_TRANSACTION: Self = Self(1 << 4);
    /// COPY … FROM STDIN or TO STDOUT; or perhaps, where a text isn't read.
    pub const COPY: Self = Self(1 << 5);
    /// SQL-level PREPARE, EXECUTE, DEALLOCATE.
    pub const SQL_PREPARED: Self = Self(1 << 6);
    /// Keeps in its backend what no look can tell: LOAD, replication origins, a backup.
    pub const BACKEND_STATE: Self = Self(1 << 7);
    /// Reads `pg_prepared_statements`.
    pub const PREPARED_VIEW: Self = Self(1 << 8);
    /// Asks for `currval` or `lastval`.
    pub const SEQUENCES: Self = Self(1 << 9);
    /// Changes what sessions begin with: ALTER ROLE or DATABASE … SET. Always beside [`Self::DDL`].
    pub const DEFAULTS: Self = Self(1 << 10);
    /// Nothing but what puts a session back to how it began: see [`super::resets`].
    pub const RESETS: Self = Self(1 << 11);

    /// Tells when its transaction began: `now()`, CURRENT_DATE, ….
    pub const TRANSACTION_TIME: Self = Self(1 << 12);

    /// Surely advances no sequence: UPDATE or DELETE of a table without triggers, functions or defaults
    /// that might.
    pub const NO_SEQUENCES: Self = Self(1 << 13);

    /// No property.
    pub const NONE: Self = Self(0);

    /// All of `other`'s properties are here.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Some of `other`'s properties are here.
    #[must_use]
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl Class {
    /// What can't be read: primary, and the backend is looked at afterwards.
    pub const UNKNOWN: Self = Self::primary(Why::Unparsable, Traits::OBSERVE.with(Traits::COPY));

    /// What is longer than what is looked at: likewise.
    pub const TOO_LONG: Self = Self::primary(Why::TooLong, Traits::OBSERVE.with(Traits::COPY));

    /// A single statement that belongs on the primary.
    #[must_use]
    pub const fn primary(why: Why, traits: Traits) -> Self {
        Self {
            kind: Kind::Single,
            access: Access::Primary(why),
            hint: None,
            traits,
            tables: Tables::ALL,
        }
    }
}
