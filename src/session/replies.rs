//! The queue of owed replies: what the server still has to answer, and what each answer is for.
//!
//! # Theory
//! Every frontend message that has an answer is entered when it is sent. A backend frame belongs
//! to the entry at the front; the frame that ends an answer removes it. An entry is `hidden` when
//! pgsplit sent the message for itself: its answer never reaches the client. A `Made` entry stands
//! for an answer that pgsplit gives itself, in its place among the server's.
//!
//! | phase | event | next phase |
//! |---|---|---|
//! | `Flowing` | ErrorResponse to an extended message | entries up to the next Sync are dropped; `Skipping` when there is none |
//! | `Flowing` | ErrorResponse to a Query | `Flowing`: ReadyForQuery is still owed |
//! | `Flowing` | CopyInResponse | `CopyIn`; Syncs behind it are dropped, since the server ignores them while copying |
//! | `CopyIn` | CopyDone or CopyFail sent | `Flowing` |
//! | `CopyIn` | ErrorResponse | as in `Flowing` |
//! | `Skipping` | a message other than Sync is sent | nothing is owed for it |
//! | `Skipping` | Sync is sent | `Flowing` |
//!
//! Invariants: a frame that no entry explains is [`OutOfStep`] and changes nothing; a hidden
//! answer is never shown, whatever it is; nothing but ReadyForQuery removes a `Query`, `Call` or
//! `Sync`.

use std::collections::VecDeque;

use crate::protocol::{
    backend::{Status, tag},
    write,
};

/// What an answer is owed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// A simple Query: anything up to ReadyForQuery.
    Query,
    /// A PREPARE of pgsplit's own, as a simple Query.
    Prepare,
    /// A question of pgsplit's own about the transaction that is about to commit, likewise.
    Committing,
    /// The same question's Execute.
    CommittingExecute,
    /// A FunctionCall: up to ReadyForQuery.
    Call,
    Parse,
    /// Of a statement under the name that all sessions share.
    ParseShared,
    /// The client's, of the unnamed statement.
    ParseUnnamed,
    Bind,
    Describe,
    Execute,
    Close,
    /// A Close of the unnamed statement.
    CloseUnnamed,
    Sync,
    /// An answer of pgsplit's own: a message without a body, of this type.
    Made(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    owed: Owed,
    hidden: bool,
    /// The client's Parse or Close of a statement, which is undone when it isn't carried out.
    journaled: bool,
}

impl Entry {
    fn change(self) -> Change {
        match self.owed {
            _ if self.journaled => Change::Name,
            Owed::ParseUnnamed | Owed::CloseUnnamed => Change::Unnamed,
            _ => Change::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Flowing,
    CopyIn,
    Skipping,
}

/// What a backend frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Part of an answer that decides nothing: descriptions, acknowledgements.
    Part,
    /// Data, or the end of a statement: from here on the answer can't be asked for again.
    Result,
    /// CommandComplete or its like of a statement.
    Completed,
    /// NoticeResponse, ParameterStatus, NotificationResponse: at any time, answering nothing.
    Aside,
    CopyIn,
    /// ErrorResponse.
    Error(Failed),
    Ready,
}

/// What an error makes void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// So many journaled entries won't be carried out.
    pub undone: usize,
    pub unnamed: Unnamed,
    /// It answers a Bind or Describe, which went with the servers' name for a statement.
    pub renamed: bool,
    /// It answers what was to make a statement of the session's known to the connection.
    pub prepares: bool,
}

/// Which unnamed statement an error leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// The one that was sent last.
    Sent,
    /// A Parse or Close of it wasn't carried out: it can't be told.
    Untold,
    /// None: the error answers a Parse of the client's.
    Gone,
}

/// A change of the session's prepared statements, to be confirmed by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// Parse or Close of a named statement.
    Name,
    /// Parse or Close of the unnamed statement.
    Unnamed,
}

/// A frame's meaning, and whether the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    pub meaning: Meaning,
    pub hidden: bool,
    /// The change of the session's prepared statements that the frame has acknowledged.
    pub change: Change,
    /// A statement is there under the name that all sessions share.
    pub shared: bool,
}

/// A backend frame that nothing was owed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfStep {
    pub tag: u8,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Entry>,
    phase: Phase,
}

impl Replies {
    /// Nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The server waits for CopyData.
    #[must_use]
    pub fn copying_in(&self) -> bool {
        self.phase == Phase::CopyIn
    }

    /// An error has been answered and no Sync has been sent since.
    #[must_use]
    pub fn skipping(&self) -> bool {
        self.phase == Phase::Skipping
    }

    /// The next answer ends with ReadyForQuery, without a Sync.
    #[must_use]
    pub fn ends_itself(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|entry| matches!(entry.owed, Owed::Query | Owed::Call))
    }

    /// A hidden answer is the next one.
    #[must_use]
    pub fn hidden_next(&self) -> bool {
        self.queue.front().is_some_and(|entry| entry.hidden)
    }

    /// The next frame is about the transaction that is about to commit.
    #[must_use]
    pub fn tells_of_commit(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|entry| matches!(entry.owed, Owed::Committing | Owed::CommittingExecute))
    }

    /// What the server would have answered to what is owed once a transaction has committed: of one
    /// COMMIT, or of the Sync behind a write. `None`: it can't be told.
    #[must_use]
    pub fn committed(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for entry in self.queue.iter().filter(|entry| !entry.hidden) {
            match entry.owed {
                Owed::Query => {
                    write::command_complete(&mut out, "COMMIT");
                    write::ready_for_query(&mut out, Status::Idle);
                }
                Owed::Parse | Owed::ParseShared | Owed::ParseUnnamed => {
                    write::bare(&mut out, tag::PARSE_COMPLETE);
                }
                Owed::Bind => write::bare(&mut out, tag::BIND_COMPLETE),
                Owed::Execute => write::command_complete(&mut out, "COMMIT"),
                Owed::Close | Owed::CloseUnnamed => write::bare(&mut out, tag::CLOSE_COMPLETE),
                Owed::Sync => write::ready_for_query(&mut out, Status::Idle),
                Owed::Made(made) => write::bare(&mut out, made),
                Owed::Describe
                | Owed::Call
                | Owed::Prepare
                | Owed::Committing
                | Owed::CommittingExecute => return None,
            }
        }
        Some(out)
    }

    /// A message of the client's was sent.
    pub fn sent(&mut self, owed: Owed) {
        self.push(Entry {
            owed,
            hidden: false,
            journaled: false,
        });
    }

    /// The client's Parse or Close of a statement was sent or is answered here.
    pub fn sent_journaled(&mut self, owed: Owed) {
        self.push(Entry {
            owed,
            hidden: false,
            journaled: true,
        });
    }

    /// A message of pgsplit's own was sent.
    pub fn sent_hidden(&mut self, owed: Owed) {
        self.push(Entry {
            owed,
            hidden: true,
            journaled: false,
        });
    }

    fn push(&mut self, entry: Entry) {
        if self.phase == Phase::Skipping {
            if entry.owed != Owed::Sync {
                return;
            }
            self.phase = Phase::Flowing;
        }
        self.queue.push_back(entry);
    }

    /// CopyDone or CopyFail was sent.
    pub fn copy_ended(&mut self) {
        if self.phase == Phase::CopyIn {
            self.phase = Phase::Flowing;
        }
    }

    /// Forgets everything, for a new server connection.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.phase = Phase::Flowing;
    }

    /// Takes an answer of pgsplit's own whose turn it is; whether it was journaled.
    pub fn take_made(&mut self) -> Option<(u8, bool)> {
        match self.queue.front() {
            Some(&Entry {
                owed: Owed::Made(tag),
                journaled,
                ..
            }) => {
                self.queue.pop_front();
                Some((tag, journaled))
            }
            _ => None,
        }
    }

    /// A backend frame has come. Call [`Self::take_made`] before and after.
    ///
    /// # Errors
    /// [`OutOfStep`]: the server said something that nothing asked for.
    pub fn received(&mut self, frame: u8) -> Result<Step, OutOfStep> {
        let hidden = self.hidden_next();
        if matches!(
            frame,
            tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE
        ) {
            return Ok(Step {
                meaning: Meaning::Aside,
                // Notifications are for the client, whoever asked last.
                hidden: hidden && frame != tag::NOTIFICATION_RESPONSE,
                change: Change::None,
                shared: false,
            });
        }
        let Some(&front) = self.queue.front() else {
            return Err(OutOfStep { tag: frame });
        };
        let step = |meaning| Step {
            meaning,
            hidden,
            change: Change::None,
            shared: false,
        };
        if frame == tag::ERROR_RESPONSE {
            let prepares = front.hidden
                && matches!(front.owed, Owed::Parse | Owed::ParseShared | Owed::Prepare);
            let (undone, untold) = self.fail(front.owed);
            let unnamed = match (front.owed, untold) {
                (Owed::ParseUnnamed, _) => Unnamed::Gone,
                (_, true) => Unnamed::Untold,
                (_, false) => Unnamed::Sent,
            };
            return Ok(step(Meaning::Error(Failed {
                undone,
                unnamed,
                renamed: matches!(front.owed, Owed::Bind | Owed::Describe),
                prepares,
            })));
        }
        match (front.owed, frame) {
            (
                Owed::Query | Owed::Prepare | Owed::Committing | Owed::Call | Owed::Sync,
                tag::READY_FOR_QUERY,
            ) => {
                self.queue.pop_front();
                self.phase = Phase::Flowing;
                Ok(step(Meaning::Ready))
            }
            (Owed::Call, tag::FUNCTION_CALL_RESPONSE) => Ok(step(Meaning::Result)),
            (Owed::Query | Owed::Committing, tag::ROW_DESCRIPTION) => Ok(step(Meaning::Part)),
            (Owed::Committing | Owed::CommittingExecute, tag::DATA_ROW) => {
                Ok(step(Meaning::Result))
            }
            (
                Owed::Query | Owed::Prepare | Owed::Committing,
                tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE,
            ) => Ok(step(Meaning::Completed)),
            (
                Owed::Query | Owed::Execute,
                tag::DATA_ROW
                | tag::COPY_OUT_RESPONSE
                | tag::COPY_BOTH_RESPONSE
                | tag::COPY_DATA
                | tag::COPY_DONE,
            ) => Ok(step(Meaning::Result)),
            (Owed::Query | Owed::Execute, tag::COPY_IN_RESPONSE) => {
                self.phase = Phase::CopyIn;
                while self
                    .queue
                    .get(1)
                    .is_some_and(|entry| entry.owed == Owed::Sync)
                {
                    self.queue.remove(1);
                }
                Ok(step(Meaning::CopyIn))
            }
            (
                Owed::Execute | Owed::CommittingExecute,
                tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED,
            ) => {
                self.queue.pop_front();
                self.copy_ended();
                Ok(step(Meaning::Completed))
            }
            (Owed::Describe, tag::PARAMETER_DESCRIPTION) => Ok(step(Meaning::Part)),
            (Owed::Describe, tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (Owed::Parse | Owed::ParseShared | Owed::ParseUnnamed, tag::PARSE_COMPLETE)
            | (Owed::Bind, tag::BIND_COMPLETE)
            | (Owed::Close | Owed::CloseUnnamed, tag::CLOSE_COMPLETE) => {
                self.queue.pop_front();
                Ok(Step {
                    change: front.change(),
                    shared: front.owed == Owed::ParseShared,
                    ..step(Meaning::Part)
                })
            }
            _ => Err(OutOfStep { tag: frame }),
        }
    }

    /// Drops what an error makes void; how many journaled entries were among it, and whether one was
    /// about the unnamed statement.
    fn fail(&mut self, failed: Owed) -> (usize, bool) {
        if matches!(
            failed,
            Owed::Query | Owed::Prepare | Owed::Committing | Owed::Call | Owed::Sync
        ) {
            self.phase = Phase::Flowing;
            return (0, false);
        }
        let (mut undone, mut unnamed) = (0, false);
        self.phase = Phase::Flowing;
        while let Some(entry) = self.queue.front() {
            if entry.owed == Owed::Sync {
                return (undone, unnamed);
            }
            undone += usize::from(entry.journaled);
            unnamed |= match entry.owed {
                Owed::ParseUnnamed | Owed::CloseUnnamed => true,
                // Of pgsplit's own, perhaps in the client's place.
                Owed::Parse | Owed::Close => entry.hidden,
                _ => false,
            };
            self.queue.pop_front();
        }
        self.phase = Phase::Skipping;
        (undone, unnamed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(replies: &mut Replies, frames: &[u8]) -> String {
        let mut shown = String::new();
        for &frame in frames {
            while let Some((tag, _)) = replies.take_made() {
                shown.push(tag as char);
            }
            let step = replies.received(frame).unwrap();
            if !step.hidden {
                shown.push(frame as char);
            }
        }
        while let Some((tag, _)) = replies.take_made() {
            shown.push(tag as char);
        }
        shown
    }

    #[test]
    fn hidden_answers_stay_hidden_and_made_ones_come_in_their_place() {
        let mut replies = Replies::default();
        replies.sent_hidden(Owed::Query);
        replies.sent_hidden(Owed::Parse);
        replies.sent(Owed::Made(b'1'));
        replies.sent(Owed::Bind);
        replies.sent(Owed::Execute);
        replies.sent(Owed::Sync);
        assert_eq!(shown(&mut replies, b"CSNZ12DDCZ"), "12DDCZ");
        assert!(replies.is_empty());
    }

    #[test]
    fn error_in_pipeline_discards_until_sync() {
        let mut replies = Replies::default();
        for owed in [
            Owed::Parse,
            Owed::Bind,
            Owed::Execute,
            Owed::Made(b'3'),
            Owed::Sync,
        ] {
            replies.sent(owed);
        }
        assert_eq!(shown(&mut replies, b"1EZ"), "1EZ");
        assert!(replies.is_empty());
    }

    #[test]
    fn an_error_tells_whether_the_unnamed_statement_is_known() {
        use Unnamed::{Gone, Sent, Untold};
        for (sent, answered, unnamed) in [
            (
                &[Owed::ParseUnnamed, Owed::Bind, Owed::Execute][..],
                &b"12"[..],
                Sent,
            ),
            (&[Owed::ParseUnnamed, Owed::Bind], b"", Gone),
            (&[Owed::Execute, Owed::CloseUnnamed], b"", Untold),
            (&[Owed::Execute, Owed::ParseShared, Owed::Bind], b"", Sent),
            (&[Owed::Query, Owed::ParseUnnamed], b"", Sent),
        ] {
            let mut replies = Replies::default();
            sent.iter().for_each(|owed| replies.sent(*owed));
            replies.sent(Owed::Sync);
            for frame in answered {
                let _answered = replies.received(*frame).unwrap();
            }
            let Meaning::Error(failed) = replies.received(b'E').unwrap().meaning else {
                panic!("{sent:?}");
            };
            assert_eq!(failed.unnamed, unnamed, "{sent:?}");
        }
        let mut replies = Replies::default();
        replies.sent(Owed::Bind);
        replies.sent_hidden(Owed::Parse);
        let step = replies.received(b'E').unwrap();
        assert!(matches!(step.meaning, Meaning::Error(failed) if failed.unnamed == Untold));
    }

    #[test]
    fn after_an_error_before_a_sync_nothing_is_owed_until_it_is_sent() {
        let mut replies = Replies::default();
        replies.sent_journaled(Owed::ParseShared);
        assert_eq!(
            replies.received(b'E').unwrap().meaning,
            Meaning::Error(Failed {
                undone: 1,
                unnamed: Unnamed::Sent,
                renamed: false,
                prepares: false
            })
        );
        assert!(replies.skipping());
        replies.sent(Owed::Query);
        assert!(replies.is_empty());
        replies.sent(Owed::Sync);
        assert_eq!(shown(&mut replies, b"Z"), "Z");
    }

    #[test]
    fn syncs_sent_before_copy_data_are_ignored_by_the_server() {
        let mut replies = Replies::default();
        replies.sent(Owed::Execute);
        replies.sent(Owed::Sync);
        assert_eq!(replies.received(b'G').unwrap().meaning, Meaning::CopyIn);
        assert!(replies.copying_in());
        replies.copy_ended();
        replies.sent(Owed::Sync);
        assert_eq!(shown(&mut replies, b"CZ"), "CZ");
        assert!(replies.is_empty());
    }

    #[test]
    fn a_failed_query_still_owes_ready_for_query() {
        let mut replies = Replies::default();
        replies.sent(Owed::Query);
        assert_eq!(shown(&mut replies, b"TDEZ"), "TDEZ");
        assert!(replies.is_empty());
    }

    proptest! {
        #[test]
        fn an_unexplained_frame_changes_nothing(
            sent in proptest::collection::vec(0u8..8, 0..12),
            frames in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut replies = Replies::default();
            for kind in sent {
                replies.sent(match kind {
                    0 => Owed::Query,
                    1 => Owed::Parse,
                    2 => Owed::Bind,
                    3 => Owed::Describe,
                    4 => Owed::Execute,
                    5 => Owed::Close,
                    6 => Owed::Call,
                    _ => Owed::Sync,
                });
            }
            for frame in frames {
                let before = (replies.queue.clone(), replies.phase);
                if replies.received(frame).is_err() {
                    prop_assert_eq!(before, (replies.queue.clone(), replies.phase));
                }
            }
        }
    }
}
