//! One exchange: a request is on its way to a server, and its answer on its way back.
//!
//! Both directions flow at once, so neither side can block the other with full buffers. Backend
//! frames are found by their headers and the same bytes are written on; only the few that
//! something depends on are read.
//!
//! While nothing of the answer has been shown to the client (`held`), the request's bytes stay in
//! the client's buffer and the request can be run again elsewhere. The first data, or the first
//! completed statement, ends that.

mod answer;
mod client;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::scratch::{Out, Scratch};
use crate::{
    net::Stream,
    pool::Server,
    protocol::{
        SqlState,
        backend::Status,
        frame::{Header, Malformed},
    },
    session::{Session, committing::Committing},
};

/// How an exchange ended in order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// All that was owed has been answered and shown. `None`: no ReadyForQuery ended it (Flush).
    Answered(Option<Status>),
    /// More of the client's bytes are there, which belong to the same exchange.
    ClientBytes,
}

/// How it ended otherwise.
#[derive(Debug)]
pub(super) enum Stop {
    /// The server refused with an error that another node might not give; nothing was shown. The
    /// connection is in step again.
    Refused {
        refusal: Refusal,
        status: Option<Status>,
    },
    /// What pgsplit sent for itself failed: the connection isn't in the state that the session
    /// needs.
    SetupFailed {
        sqlstate: SqlState,
        message: String,
    },
    ServerLost(Lost),
    ClientLost,
    /// The client sent bytes that are no message.
    ClientBroken(Malformed),
}

/// An error that another try might not meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) sqlstate: SqlState,
    /// A plan is out of date: the same node may answer, with the statement parsed again.
    pub(super) stale: bool,
}

/// A server connection that ended.
#[derive(Debug)]
pub(super) struct Lost {
    /// What it said last, if it said why.
    pub(super) said: Option<(SqlState, String)>,
    /// The node is down, or an operator ended it: it wasn't the connection that broke.
    pub(super) doomed: bool,
    /// Nothing of the answer was shown: the request may be run again.
    pub(super) held: bool,
    pub(super) heard: Heard,
    /// The transaction that was about to commit, where that is asked for.
    pub(super) committing: Option<Committing>,
    /// Bytes of a frame that the client is still sending, and that nobody wants any more.
    pub(super) unwanted: usize,
    pub(super) problem: Option<io::Error>,
}

/// What the client has got of an answer whose server connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing but whole messages: it can be told why.
    Whole,
    /// Part of a message: nothing can be told to it any more.
    Torn,
    /// The server's own words about its end.
    Told,
}

/// What an exchange needs to know of its request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Errors of these kinds end it as [`Stop::Refused`].
    pub(super) refuse: Refuse,
    /// So does a plan that is out of date.
    pub(super) heals: bool,
    /// The client's leaving ends it at once: nothing that the client could want done is running.
    pub(super) ends_with_client: bool,
    /// More of the client's frames belong to it.
    pub(super) open: bool,
    pub(super) on: Side,
}

/// Which sort of node serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Side {
    #[default]
    Primary,
    Replica,
}

/// The client's data for a COPY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Copying {
    #[default]
    No,
    /// None has been passed on yet.
    Ready,
    /// It is passed on.
    Fed,
}

/// Whether what the client has sent ends the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    #[default]
    No,
    /// It has sent a message of this type within a copy. If that had failed by then the server
    /// carries the message out, else it words the error, or ignores a Sync.
    Suspected(u8),
    /// It has sent a message of this type within a copy that failed: what the server makes of that
    /// can't be told.
    Violation(u8),
    /// The same, and the server is about to say that it ends the connection.
    Announced,
    /// The server has said so, for the client to hear.
    Told,
}

/// Which errors are another node's chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Refuse {
    #[default]
    Nothing,
    /// A replica's: the primary might answer.
    FromReplica,
}

/// A frame whose rest hasn't come yet.
#[derive(Clone, Copy, Debug, Default)]
struct Passing {
    left: usize,
    hidden: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) terms: Terms,
    /// Bytes at the front of the client's buffer that were sent and are kept for another try.
    pub(super) kept: usize,
    /// Bytes at the front of the client's buffer, or still to come, that go to the server as they are.
    pub(super) passing_on: usize,
    /// Bytes that the client was owed before this exchange.
    base: usize,
    held: bool,
    copying: Copying,
    passing: Passing,
    /// Bytes at the front of the server's buffer that may be written to the client.
    approved: usize,
    refused: Option<Refusal>,
    setup_failed: Option<(SqlState, String)>,
    /// Why a statement of the session's couldn't be prepared on this connection: an ErrorResponse.
    unprepared: Vec<u8>,
    fatal: Option<(SqlState, String)>,
    ending: Ending,
    status: Option<Status>,
    committing: Option<Committing>,
    client_gone: bool,
    /// The client's buffer may hold frames that nobody has looked at.
    unseen: bool,
    /// A TLS layer may hold bytes that were written.
    unflushed: Unflushed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Unflushed {
    client: bool,
    server: bool,
}

/// A message up to this length is passed on in one piece, so that something depends on its body only
/// when all of it is here, and so that a client whose server is lost can still be told. Far below
/// what the server's buffer holds.
const WHOLE: usize = 16 << 10;
/// Staged output is joined into one write up to this size.
const JOINED: usize = 16 << 10;

impl Exchange {
    /// A request was written to `to_server`; its first `kept` bytes of the client's buffer are kept
    /// when it may be run again, else 0.
    pub(super) fn begin(&mut self, terms: Terms, kept: usize, passing_on: usize, base: usize) {
        self.terms = terms;
        self.kept = kept;
        self.passing_on = passing_on;
        self.base = base;
        self.held = kept > 0;
        self.copying = Copying::No;
        self.passing = Passing::default();
        self.approved = 0;
        self.refused = None;
        self.setup_failed = None;
        self.unprepared.clear();
        self.fatal = None;
        self.ending = Ending::No;
        self.status = None;
        self.committing = None;
        self.client_gone = false;
        self.unseen = false;
        self.unflushed = Unflushed::default();
    }

    /// Drives both directions until something has to be decided. Cancel safe, but a server
    /// connection whose exchange is dropped before its end must be closed.
    pub(super) async fn run(
        &mut self,
        client: &mut Stream,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Result<Outcome, Stop> {
        std::future::poll_fn(|cx| self.poll(cx, client, server, session, scratch)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Poll<Result<Outcome, Stop>> {
        loop {
            // Whether another round may get further: whatever blocks has to have been polled last.
            let mut moved = false;
            // What the server said before it closed is still to be read.
            if self.poll_to_server(cx, server, scratch).is_err() {
                scratch.to_server.clear();
            }
            match self.poll_from_server(cx, server, session, scratch) {
                Ok(progress) => moved |= progress,
                Err(stop) => {
                    if self.held {
                        self.take_back(scratch);
                    } else if self.approved > 0 {
                        self.stage(scratch);
                    }
                    return Poll::Ready(Err(stop));
                }
            }
            // Before the client hears of it: whatever follows from the answer is to hold by then.
            if let Some(outcome) = self.outcome(scratch) {
                return Poll::Ready(outcome);
            }
            if !self.client_gone {
                match self.poll_to_client(cx, client, scratch) {
                    Ok(progress) => moved |= progress,
                    Err(_gone) => self.client_left(scratch),
                }
            }
            if self.client_gone {
                if self.terms.ends_with_client || self.copying != Copying::No || self.passing_on > 0
                {
                    return Poll::Ready(Err(Stop::ClientLost));
                }
                scratch.to_client.clear();
                moved |= self.approved > 0;
                scratch.server_in.consume(self.approved);
                self.approved = 0;
            }
            match self.poll_from_client(cx, client, scratch) {
                Ok(progress) => {
                    moved |= progress;
                    let open =
                        self.terms.open && self.passing_on == 0 && self.copying == Copying::No;
                    if open && self.unseen && !scratch.client_in.is_empty() {
                        self.unseen = false;
                        return Poll::Ready(Ok(Outcome::ClientBytes));
                    }
                }
                Err(stop) => return Poll::Ready(Err(stop)),
            }
            if server.link.is_doomed() {
                if self.held {
                    self.take_back(scratch);
                } else {
                    self.stage(scratch);
                }
                return Poll::Ready(Err(self.lost(None, true)));
            }
            if !moved {
                server.link.watch(cx);
                if server.link.is_doomed() {
                    continue;
                }
                return Poll::Pending;
            }
        }
    }

    /// What it asked for is carried out, once: it isn't there to be asked for again.
    fn client_left(&mut self, scratch: &mut Scratch) {
        self.client_gone = true;
        self.commit(scratch);
    }

    /// Everything owed was answered, and the answer is on its way.
    fn outcome(&mut self, scratch: &mut Scratch) -> Option<Result<Outcome, Stop>> {
        if !scratch.replies.is_empty()
            || self.passing_on > 0
            || self.passing.left > 0
            || self.is_torn(scratch)
        {
            return None;
        }
        if let Some((sqlstate, message)) = self.setup_failed.take() {
            return Some(Err(Stop::SetupFailed { sqlstate, message }));
        }
        if let Some(refusal) = self.refused {
            return Some(Err(Stop::Refused {
                refusal,
                status: self.status,
            }));
        }
        match self.ending {
            Ending::No | Ending::Suspected(_) | Ending::Told => {}
            Ending::Announced => return None,
            Ending::Violation(tag) => {
                self.stage(scratch);
                return Some(Err(Stop::ClientBroken(Malformed::Unexpected { tag })));
            }
        }
        if self.terms.open && self.status.is_none() {
            return None;
        }
        // The rest of the answer, if the client is slow to take it, needs no server.
        if self.approved > 0 {
            self.stage(scratch);
        }
        self.commit(scratch);
        Some(Ok(Outcome::Answered(self.status)))
    }

    /// Only a part of a message has come, such as a notice that followed the answer.
    fn is_torn(&self, scratch: &Scratch) -> bool {
        scratch.server_in.len() > self.approved
    }

    fn heard(&self) -> Heard {
        if self.ending == Ending::Told {
            Heard::Told
        } else if self.passing.left > 0 && !self.passing.hidden {
            Heard::Torn
        } else {
            Heard::Whole
        }
    }

    fn lost(&mut self, problem: Option<io::Error>, doomed: bool) -> Stop {
        Stop::ServerLost(Lost {
            said: self.fatal.take(),
            doomed,
            held: self.held,
            heard: self.heard(),
            committing: self.committing,
            unwanted: self.passing_on,
            problem,
        })
    }

    /// The server ends the connection for what the client has sent: that is passed on, and the
    /// client's connection ends with it.
    fn end_by_the_client(&mut self, header: Header, scratch: &mut Scratch) -> Stop {
        self.commit(scratch);
        self.take(header.len, false, &mut scratch.server_in);
        self.ending = Ending::Told;
        self.lost(None, false)
    }

    /// The answer can't be asked for again.
    fn commit(&mut self, scratch: &mut Scratch) {
        self.held = false;
        if self.kept > 0 {
            scratch.client_in.consume(self.kept);
            self.kept = 0;
        }
    }

    /// Takes back what was to be shown of this exchange.
    fn take_back(&mut self, scratch: &mut Scratch) {
        scratch.to_client.bytes.truncate(self.base);
        scratch.server_in.consume(self.approved);
        self.approved = 0;
    }

    /// Moves approved bytes behind those that pgsplit wrote itself.
    fn stage(&mut self, scratch: &mut Scratch) {
        let bytes = scratch
            .server_in
            .filled()
            .get(..self.approved)
            .unwrap_or_default();
        scratch.to_client.bytes.extend_from_slice(bytes);
        scratch.server_in.consume(self.approved);
        self.approved = 0;
    }

    fn poll_to_server(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let mut moved = write_out(cx, &mut server.stream, &mut scratch.to_server)?;
        while scratch.to_server.is_empty() && self.passing_on > 0 && !scratch.client_in.is_empty() {
            let bytes = scratch.client_in.filled();
            let bytes = bytes.get(..self.passing_on).unwrap_or(bytes);
            match Pin::new(&mut server.stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    scratch.client_in.consume(count);
                    self.passing_on -= count;
                    self.unseen = true;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        flush(cx, &mut server.stream, moved, &mut self.unflushed.server)
    }
}

fn write_out(cx: &mut Context<'_>, stream: &mut Stream, out: &mut Out) -> io::Result<bool> {
    let mut moved = false;
    while !out.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, out.unwritten()) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => {
                out.advance(count);
                moved = true;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(moved)
}

/// Pushes on what a TLS layer holds, now or when the socket takes it.
fn flush(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    written: bool,
    unflushed: &mut bool,
) -> io::Result<()> {
    if !(stream.is_tls() && (written || *unflushed)) {
        return Ok(());
    }
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(result) => {
            *unflushed = false;
            result
        }
        Poll::Pending => {
            *unflushed = true;
            Ok(())
        }
    }
}

/// Writes all of `out`. Not cancel safe.
pub(super) async fn send(stream: &mut Stream, out: &mut Out) -> io::Result<()> {
    std::future::poll_fn(|cx| poll_send(cx, stream, out)).await
}

/// Writes what the stream takes of `out`; ready when that is all.
pub(super) fn poll_send(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    out: &mut Out,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        let count = ready!(Pin::new(&mut *stream).poll_write(cx, out.unwritten()))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        out.advance(count);
    }
    if stream.is_tls() {
        Pin::new(&mut *stream).poll_flush(cx)
    } else {
        Poll::Ready(Ok(()))
    }
}
