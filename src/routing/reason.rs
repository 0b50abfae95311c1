//! Why a request goes where it goes.

use crate::sql::Why;

/// One fixed set: label, log field, explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A read, on the best replica.
    Read,
    /// A read-only transaction, on one replica.
    ReadOnlyTransaction,
    /// A transaction that may write and hasn't yet, on one replica.
    OptimisticTransaction,
    /// It tells when its transaction began, which a transaction that moves can't keep.
    TransactionTime,
    /// The text belongs on the primary.
    Statement(Why),
    /// A transaction that may write is open, or begins.
    Transaction,
    /// The session keeps its server connection.
    Pinned,
    /// `/* pgsplit: … */`.
    Hint,
    /// `SET pgsplit.route`, or a user's or database's default.
    Override,
    /// `routing.mode = "primary"`.
    Mode,
    /// `routing.mode = "shadow"`: a replica could have taken it.
    Shadow,
    /// No replica has replayed what the session must see.
    Watermark,
    /// No replica within `max_lag` and `max_lag_bytes`.
    Lag,
    /// No replica is up.
    NoReplica,
    /// A replica failed or refused; run again.
    Retry,
    /// Too long to be kept for another try.
    TooLong,
    /// Messages up to a Flush, which may be followed by writes in the same implicit transaction.
    Flush,
    /// The statement conflicted with recovery lately.
    RecoveryConflict,
}

impl Reason {
    /// The fixed name used in labels, logs and `explain`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnlyTransaction => "read_only_transaction",
            Self::OptimisticTransaction => "optimistic_transaction",
            Self::TransactionTime => "transaction_time",
            Self::Statement(why) => why.name(),
            Self::Transaction => "in_transaction",
            Self::Pinned => "pinned",
            Self::Hint => "hint",
            Self::Override => "override",
            Self::Mode => "mode",
            Self::Shadow => "shadow",
            Self::Watermark => "watermark",
            Self::Lag => "lag",
            Self::NoReplica => "no_replica",
            Self::Retry => "retry",
            Self::TooLong => "too_long",
            Self::Flush => "flush",
            Self::RecoveryConflict => "recovery_conflict",
        }
    }
}
