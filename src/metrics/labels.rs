//! Fixed label sets, and where in a table of counters each label is.

use crate::{
    protocol::SqlState,
    routing::Reason,
    sql::{Access, Why},
};

/// Why a request was run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// The connection to the node was lost, or couldn't be made.
    ConnectionLost,
    /// The node is starting up, shutting down or going away (class 57).
    Unavailable,
    /// The statement would have written (25006): its class was wrong.
    ReadOnly,
    /// The statement isn't possible while the node is in recovery (55000, 0A000, XX000).
    InRecovery,
    /// The statement conflicted with replay (40001, 40P01).
    RecoveryConflict,
    /// The replica doesn't have (yet) what the statement names (class 42).
    NotFound,
    /// "cached plan must not change result type": prepared again.
    StalePlan,
    /// No answer in time.
    Timeout,
    /// Anything else.
    Other,
}

impl RetryReason {
    /// In the order of the counters.
    pub const ALL: [Self; 9] = [
        Self::ConnectionLost,
        Self::Unavailable,
        Self::ReadOnly,
        Self::InRecovery,
        Self::RecoveryConflict,
        Self::NotFound,
        Self::StalePlan,
        Self::Timeout,
        Self::Other,
    ];

    /// What an error from a replica stands for.
    #[must_use]
    pub fn of(state: SqlState) -> Self {
        match (&state.0, &state.class()) {
            (b"25006", _) => Self::ReadOnly,
            (b"40001" | b"40P01", _) => Self::RecoveryConflict,
            (b"55000" | b"0A000" | b"XX000", _) => Self::InRecovery,
            (_, b"42") => Self::NotFound,
            (_, b"57") => Self::Unavailable,
            (_, b"08") => Self::ConnectionLost,
            _ => Self::Other,
        }
    }

    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::Unavailable => "unavailable",
            Self::ReadOnly => "read_only",
            Self::InRecovery => "in_recovery",
            Self::RecoveryConflict => "recovery_conflict",
            Self::NotFound => "not_found",
            Self::StalePlan => "stale_plan",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

/// How a client's login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginResult {
    Ok,
    /// A wrong password, user or database: not told apart, as to the client.
    Refused,
    /// `max_clients` reached.
    TooMany,
    /// Not done within `login_timeout`.
    Timeout,
    /// Not the protocol, or gone before the end.
    Broken,
    /// Shutting down, paused, or no node to ask.
    Unavailable,
}

impl LoginResult {
    /// In the order of the counters.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Refused,
        Self::TooMany,
        Self::Timeout,
        Self::Broken,
        Self::Unavailable,
    ];

    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::TooMany => "too_many",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Whether a statement of this access is a read for `pgsplit_primary_reads_total`: replicas could
/// have taken it if it, the cluster or pgsplit's knowledge had been different.
#[must_use]
pub fn counts_as_read(access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Anywhere => false,
        Access::Primary(why) => match why {
            Why::Write
            | Why::Ddl
            | Why::Utility
            | Why::Procedure
            | Why::Into
            | Why::Session
            | Why::Transaction => false,
            Why::RowLock
            | Why::Function
            | Why::UnknownFunction
            | Why::View
            | Why::NodeLocal
            | Why::UnknownRelation
            | Why::Recovery
            | Why::Hint
            | Why::Unparsable
            | Why::TooLong
            | Why::NoCatalogue => true,
        },
    }
}

/// Every label of a reason, in the order of the counters.
pub(super) const REASONS: [Reason; 33] = [
    Reason::Read,
    Reason::ReadOnlyTransaction,
    Reason::Transaction,
    Reason::Pinned,
    Reason::Hint,
    Reason::Override,
    Reason::Mode,
    Reason::Shadow,
    Reason::Watermark,
    Reason::Lag,
    Reason::NoReplica,
    Reason::Retry,
    Reason::TooLong,
    Reason::Flush,
    Reason::RecoveryConflict,
    Reason::Statement(Why::Write),
    Reason::Statement(Why::Ddl),
    Reason::Statement(Why::Utility),
    Reason::Statement(Why::Procedure),
    Reason::Statement(Why::RowLock),
    Reason::Statement(Why::Into),
    Reason::Statement(Why::Function),
    Reason::Statement(Why::UnknownFunction),
    Reason::Statement(Why::View),
    Reason::Statement(Why::NodeLocal),
    Reason::Statement(Why::UnknownRelation),
    Reason::Statement(Why::Session),
    Reason::Statement(Why::Transaction),
    Reason::Statement(Why::Recovery),
    Reason::Statement(Why::Unparsable),
    Reason::Statement(Why::NoCatalogue),
    Reason::OptimisticTransaction,
    Reason::TransactionTime,
];

/// The reason's place in [`REASONS`]. Reasons of the same name share one.
pub(super) fn reason_index(reason: Reason) -> usize {
    match reason {
        Reason::Read => 0,
        Reason::ReadOnlyTransaction => 1,
        Reason::Transaction => 2,
        Reason::Pinned => 3,
        Reason::Hint | Reason::Statement(Why::Hint) => 4,
        Reason::Override => 5,
        Reason::Mode => 6,
        Reason::Shadow => 7,
        Reason::Watermark => 8,
        Reason::Lag => 9,
        Reason::NoReplica => 10,
        Reason::Retry => 11,
        Reason::TooLong | Reason::Statement(Why::TooLong) => 12,
        Reason::Flush => 13,
        Reason::RecoveryConflict => 14,
        Reason::Statement(Why::Write) => 15,
        Reason::Statement(Why::Ddl) => 16,
        Reason::Statement(Why::Utility) => 17,
        Reason::Statement(Why::Procedure) => 18,
        Reason::Statement(Why::RowLock) => 19,
        Reason::Statement(Why::Into) => 20,
        Reason::Statement(Why::Function) => 21,
        Reason::Statement(Why::UnknownFunction) => 22,
        Reason::Statement(Why::View) => 23,
        Reason::Statement(Why::NodeLocal) => 24,
        Reason::Statement(Why::UnknownRelation) => 25,
        Reason::Statement(Why::Session) => 26,
        Reason::Statement(Why::Transaction) => 27,
        Reason::Statement(Why::Recovery) => 28,
        Reason::Statement(Why::Unparsable) => 29,
        Reason::Statement(Why::NoCatalogue) => 30,
        Reason::OptimisticTransaction => 31,
        Reason::TransactionTime => 32,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::session::Pin;

    #[test]
    fn every_reason_is_at_its_index_and_no_name_is_there_twice() {
        let mut names = HashSet::new();
        for (index, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(reason_index(reason), index, "{reason:?}");
            assert!(names.insert(reason.name()), "{} twice", reason.name());
        }
        for (twin, reason) in [(Why::Hint, Reason::Hint), (Why::TooLong, Reason::TooLong)] {
            assert_eq!(twin.name(), reason.name());
            assert_eq!(reason_index(Reason::Statement(twin)), reason_index(reason));
        }
    }

    #[test]
    fn the_lists_follow_the_discriminants() {
        assert!(
            RetryReason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
        assert!(Pin::ALL.iter().enumerate().all(|(i, p)| *p as usize == i));
        assert!(
            LoginResult::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
    }

    #[test]
    fn an_error_from_a_replica_has_its_retry_reason() {
        let cases = [
            (b"25006", RetryReason::ReadOnly),
            (b"40001", RetryReason::RecoveryConflict),
            (b"40P01", RetryReason::RecoveryConflict),
            (b"55000", RetryReason::InRecovery),
            (b"0A000", RetryReason::InRecovery),
            (b"XX000", RetryReason::InRecovery),
            (b"42P01", RetryReason::NotFound),
            (b"57P01", RetryReason::Unavailable),
            (b"08006", RetryReason::ConnectionLost),
            (b"22012", RetryReason::Other),
        ];
        for (state, reason) in cases {
            assert_eq!(RetryReason::of(SqlState(*state)), reason);
        }
    }
}
