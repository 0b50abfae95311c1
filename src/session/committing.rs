//! A commit whose answer may get lost, and how its outcome is found out
//! (`failover.resolve_commits`).
//!
//! Before the COMMIT, or before the Sync that commits what a write of the extended protocol did, in
//! the same packet, the server is asked for the transaction's id and for an LSN. If the answer to the
//! commit is lost with its primary, the next primary is asked what became of that transaction. A
//! promoted standby gives ids anew that it hasn't seen: its word counts only if it had replayed that
//! LSN, by which the id had been given, before it was promoted, and if it is the first to be promoted
//! since: a second one may have replayed that LSN of another history.

use crate::{
    cluster::Lsn,
    protocol::{backend::tag, frame::Fields},
};

/// A transaction about to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committing {
    /// `xid8`.
    id: u64,
    /// The primary's insert LSN when it had that id.
    lsn: Lsn,
    /// And its timeline.
    timeline: u32,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    RolledBack,
    Unknown,
}

impl Committing {
    /// Asks the server on which it is about to commit.
    pub const QUERY: &[u8] =
        b"SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, \
        pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text, \
        pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

    /// The answer's DataRow; `None` where the transaction has no id, since it has changed nothing.
    #[must_use]
    pub fn read(row: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(tag::DATA_ROW, row);
        let _columns = fields.u16().ok()?;
        let mut value = || {
            let length = usize::try_from(fields.u32().ok()?).ok()?;
            std::str::from_utf8(fields.bytes(length).ok()?).ok()
        };
        Some(Self {
            id: value()?.parse().ok()?,
            lsn: value()?.parse().ok()?,
            timeline: timeline(value()?)?,
        })
    }

    /// Asks a primary: what became of it, and whether that primary can know.
    #[must_use]
    pub fn question(&self) -> String {
        let Self { id, lsn, .. } = self;
        format!(
            "SELECT pg_catalog.pg_xact_status('{id}'::pg_catalog.xid8), \
             (pg_catalog.pg_last_wal_replay_lsn() OPERATOR(pg_catalog.>=) \
             '{lsn}'::pg_catalog.pg_lsn)::pg_catalog.text, \
             pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)"
        )
    }

    /// The answer to [`Self::question`].
    #[must_use]
    pub fn outcome(&self, [status, replayed, now]: [Option<&str>; 3]) -> Outcome {
        let next = now
            .and_then(timeline)
            .and_then(|now| now.checked_sub(self.timeline))
            .is_some_and(|promotions| promotions <= 1);
        match (status, replayed) {
            (Some("committed"), Some("true")) if next => Outcome::Committed,
            (Some("aborted"), Some("true")) if next => Outcome::RolledBack,
            _ => Outcome::Unknown,
        }
    }
}

/// As it begins the name of a WAL file.
fn timeline(name: &str) -> Option<u32> {
    u32::from_str_radix(name, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut row = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            row.extend_from_slice(&length.to_be_bytes());
            row.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        row
    }

    #[test]
    fn only_what_has_an_id_and_an_lsn_can_be_asked_for() {
        let read = |values: &[Option<&str>]| Committing::read(&row(values));
        let found = read(&[Some("4294967300"), Some("1/A0"), Some("0000000B")]).unwrap();
        assert_eq!(
            found,
            Committing {
                id: 4_294_967_300,
                lsn: Lsn(0x1_0000_00A0),
                timeline: 11,
            }
        );
        let question = found.question();
        assert!(question.contains("'4294967300'") && question.contains("'1/A0'"));
        for values in [
            &[None, Some("1/A0"), Some("00000001")][..],
            &[Some("7"), None, Some("00000001")],
            &[Some("7"), Some("1/A0"), None],
            &[Some("7"), Some("1/A0")],
            &[Some("7")],
            &[],
            &[Some("x"), Some("1/A0"), Some("00000001")],
            &[Some("7"), Some("x"), Some("00000001")],
            &[Some("7"), Some("1/A0"), Some("x")],
        ] {
            assert_eq!(read(values), None, "{values:?}");
        }
        assert_eq!(Committing::read(b"\0\x02\0\0\0\x09x"), None);
    }

    #[test]
    fn a_word_counts_only_of_who_had_replayed_as_far() {
        use Outcome::*;
        let committing = Committing {
            id: 7,
            lsn: Lsn(1),
            timeline: 10,
        };
        for (status, replayed, expected) in [
            (Some("committed"), Some("true"), Committed),
            (Some("aborted"), Some("true"), RolledBack),
            (Some("in progress"), Some("true"), Unknown),
            (Some("committed"), Some("false"), Unknown),
            (Some("aborted"), Some("false"), Unknown),
            // It was never a standby.
            (Some("committed"), None, Unknown),
            // Too long ago, or in the future.
            (None, Some("true"), Unknown),
        ] {
            let outcome = |now| committing.outcome([status, replayed, now]);
            assert_eq!(outcome(Some("0000000A")), expected);
            assert_eq!(outcome(Some("0000000B")), expected);
            // Another was promoted in between, or this one is of the past.
            for now in [Some("0000000C"), Some("00000009"), Some("x"), None] {
                assert_eq!(outcome(now), Unknown);
            }
        }
    }
}
