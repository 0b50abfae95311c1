//! One exchange: a request is on its way to a server, and its answer on its way back.
//!
//! Both directions flow at once, so neither side can block the other with full buffers. Backend
//! frames are found by their headers and the same bytes are written on; only the few that
//! something depends on are read.
//!
//! While nothing of the answer has been shown to the client (`held`), the request's bytes stay in
//! the client's buffer and the request can be run again elsewhere. The first data, or the first
//! completed statement, ends that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::scratch::{CLIENT_BULK, Out, Scratch};
use crate::{
    net::{Buffer, Stream},
    pool::Server,
    protocol::{
        SqlState,
        backend::{self, ErrorView, Status, tag},
        frame::{HEADER, Header, Malformed},
        frontend::tag as front,
        write,
    },
    session::{
        Pin as SessionPin, Session,
        replies::{Change, Meaning, OutOfStep},
    },
};

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All that was owed has been answered and shown. `None`: no ReadyForQuery ended it (Flush).
    Answered(Option<Status>),
    /// More of the client's bytes are there, which belong to the same exchange.
    ClientBytes,
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Errors of these kinds end it as [`Outcome::Refused`].
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Primary,
    Replica,
}

/// The client's data for a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    No,
    /// None has been passed on yet.
    Ready,
    /// It is passed on.
    Fed,
}

/// Whether what the client has sent ends the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refuse {
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
#[derive(Debug)]
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
    pub(super) fn new(terms: Terms, kept: usize, passing_on: usize, base: usize) -> Self {
        Self {
            terms,
            kept,
            passing_on,
            base,
            held: kept > 0,
            copying: Copying::No,
            passing: Passing::default(),
            approved: 0,
            refused: None,
            setup_failed: None,
            unprepared: Vec::new(),
            fatal: None,
            ending: Ending::No,
            status: None,
            client_gone: false,
            unseen: false,
            unflushed: Unflushed::default(),
        }
    }

    /// Drives both directions until something has to be decided. Cancel safe, but a server
    /// connection whose exchange is dropped before its end must be closed.
    pub(super) async fn run(
        &mut self,
        client: &mut Stream,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx, client, server, session, scratch)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Poll<Outcome> {
        loop {
            // Whether another round may get further: whatever blocks has to have been polled last.
            let mut moved = false;
            // What the server said before it closed is still to be read.
            if self.poll_to_server(cx, server, scratch).is_err() {
                scratch.to_server.clear();
            }
            match self.poll_from_server(cx, server, session, scratch) {
                Ok(progress) => moved |= progress,
                Err(outcome) => {
                    if self.held {
                        self.take_back(scratch);
                    } else if self.approved > 0 {
                        self.stage(scratch);
                    }
                    return Poll::Ready(outcome);
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
                    return Poll::Ready(Outcome::ClientLost);
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
                        return Poll::Ready(Outcome::ClientBytes);
                    }
                }
                Err(outcome) => return Poll::Ready(outcome),
            }
            if server.link.is_doomed() {
                if self.held {
                    self.take_back(scratch);
                } else {
                    self.stage(scratch);
                }
                return Poll::Ready(self.lost(None, true));
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
    fn outcome(&mut self, scratch: &mut Scratch) -> Option<Outcome> {
        if !scratch.replies.is_empty() || self.passing_on > 0 || self.passing.left > 0 {
            return None;
        }
        if let Some((sqlstate, message)) = self.setup_failed.take() {
            return Some(Outcome::SetupFailed { sqlstate, message });
        }
        if let Some(refusal) = self.refused {
            return Some(Outcome::Refused {
                refusal,
                status: self.status,
            });
        }
        match self.ending {
            Ending::No | Ending::Suspected(_) | Ending::Told => {}
            Ending::Announced => return None,
            Ending::Violation(tag) => {
                self.stage(scratch);
                return Some(Outcome::ClientBroken(Malformed::Unexpected { tag }));
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
        Some(Outcome::Answered(self.status))
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

    fn lost(&mut self, problem: Option<io::Error>, doomed: bool) -> Outcome {
        Outcome::ServerLost(Lost {
            said: self.fatal.take(),
            doomed,
            held: self.held,
            heard: self.heard(),
            unwanted: self.passing_on,
            problem,
        })
    }

    /// The server ends the connection for what the client has sent: that is passed on, and the
    /// client's connection ends with it.
    fn end_by_the_client(&mut self, header: Header, scratch: &mut Scratch) -> Outcome {
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

    // To the server.

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

    // From the server.

    fn poll_from_server(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Result<bool, Outcome> {
        // Answers that were ready without the server.
        self.digest(server, session, scratch)?;
        if scratch.server_in.is_full() {
            if self.held {
                self.commit(scratch);
            }
            if scratch.server_in.is_full() {
                return Ok(false);
            }
        }
        if scratch.replies.is_empty() && self.passing.left == 0 && self.ending != Ending::Announced
        {
            return Ok(false);
        }
        match scratch.server_in.poll_fill(cx, &mut server.stream) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(self.lost(None, false)),
            Poll::Ready(Err(error)) => Err(self.lost(Some(error), false)),
            Poll::Ready(Ok(_)) => {
                self.digest(server, session, scratch)?;
                Ok(true)
            }
        }
    }

    /// Goes through the backend frames that are there.
    fn digest(
        &mut self,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Result<(), Outcome> {
        loop {
            while let Some((made, journaled)) = scratch.replies.take_made() {
                self.stage(scratch);
                write::bare(&mut scratch.to_client.bytes, made);
                if journaled {
                    session.names().confirm();
                }
            }
            if self.passing.left > 0 {
                let count = self
                    .passing
                    .left
                    .min(scratch.server_in.len() - self.approved);
                self.take(count, self.passing.hidden, &mut scratch.server_in);
                self.passing.left -= count;
                if self.passing.left > 0 {
                    return Ok(());
                }
                continue;
            }
            let bytes = scratch
                .server_in
                .filled()
                .get(self.approved..)
                .unwrap_or_default();
            let header = match Header::parse(bytes) {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(()),
                Err(malformed) => return Err(self.out_of_step(&malformed.to_string())),
            };
            if scratch.replies.is_empty() && !is_aside(header.tag) {
                if ends_by_the_client(header, bytes) {
                    return Err(self.end_by_the_client(header, scratch));
                }
                // All is answered, and the server says why it ends the connection: nothing that
                // this exchange is about.
                server.backend.spoiled = true;
                let behind = scratch.server_in.len() - self.approved;
                self.take(behind, true, &mut scratch.server_in);
                return Ok(());
            }
            let whole = bytes.len() >= header.len;
            if !whole && header.len <= WHOLE {
                return Ok(());
            }
            let body = bytes
                .get(HEADER..header.len.min(bytes.len()))
                .unwrap_or_default();
            let step = match scratch.replies.received(header.tag) {
                Ok(step) => step,
                Err(OutOfStep { tag }) => {
                    return Err(self.out_of_step(&Malformed::Unexpected { tag }.to_string()));
                }
            };
            let mut hidden = step.hidden || self.refused.is_some() || self.setup_failed.is_some();
            let mut commits = false;
            match step.meaning {
                Meaning::Part => {
                    match step.change {
                        Change::None => {}
                        Change::Name => session.names().confirm(),
                        Change::Unnamed => session.unnamed.confirm(!self.held),
                    }
                    if step.shared {
                        server.backend.prepared.parsed();
                    }
                }
                Meaning::Result => commits = !hidden,
                Meaning::Completed => {
                    if let Ending::Suspected(_) = self.ending {
                        self.ending = Ending::No;
                    }
                    if !step.hidden {
                        let command = if header.tag == tag::COMMAND_COMPLETE {
                            backend::command_tag(body).unwrap_or_default()
                        } else {
                            b""
                        };
                        scratch
                            .expected
                            .completed(command, session, &mut server.backend);
                        commits = !hidden;
                    }
                }
                Meaning::CopyIn => {
                    commits = true;
                    self.copying = Copying::Ready;
                    scratch.client_in.grow(CLIENT_BULK);
                }
                Meaning::Aside => hidden |= self.aside(header.tag, body, session),
                Meaning::Error {
                    undone,
                    unnamed,
                    prepares,
                } => {
                    self.copying = Copying::No;
                    let prepares = prepares && scratch.replies.hidden_next();
                    if !prepares {
                        scratch.expected.failed();
                    }
                    server.backend.prepared.failed();
                    // Whose unnamed statement is there now depends on what was skipped.
                    server.backend.unnamed = None;
                    let error = ErrorView::read(body).unwrap_or(ErrorView {
                        sqlstate: SqlState::INTERNAL_ERROR,
                        fatal: false,
                        message: b"",
                    });
                    let said = || {
                        (
                            error.sqlstate,
                            String::from_utf8_lossy(error.message).into_owned(),
                        )
                    };
                    if let Ending::Suspected(tag) = self.ending {
                        // When the message itself was the error the server says more.
                        let announced = error.sqlstate == SqlState::PROTOCOL_VIOLATION;
                        self.ending = if announced {
                            Ending::Announced
                        } else {
                            Ending::Violation(tag)
                        };
                    }
                    if error.fatal && whole && ends_by_the_client(header, bytes) {
                        return Err(self.end_by_the_client(header, scratch));
                    } else if error.fatal {
                        // The connection ends with it; who drives the exchange decides what the client hears.
                        self.fatal = Some(said());
                        hidden = true;
                    } else if prepares && !self.may_be_refused(&error) {
                        // The client hears of it instead of what follows from it.
                        let frame = bytes.get(..header.len).unwrap_or_default();
                        self.unprepared = frame.to_vec();
                    } else if step.hidden && scratch.replies.hidden_next() && !prepares {
                        self.setup_failed = Some(said());
                    } else if !step.hidden
                        && !self.unprepared.is_empty()
                        && matches!(&error.sqlstate.0, b"26000" | b"25P02")
                        && self.refused.is_none()
                    {
                        let frame = std::mem::take(&mut self.unprepared);
                        self.commit(scratch);
                        self.stage(scratch);
                        scratch.to_client.bytes.extend_from_slice(&frame);
                        hidden = true;
                    } else if self.may_be_refused(&error) {
                        self.refused = Some(Refusal {
                            sqlstate: error.sqlstate,
                            stale: is_stale_plan(error.sqlstate, error.message),
                        });
                        self.take_back(scratch);
                        hidden = true;
                    } else {
                        if undone > 0 {
                            session.names().undo();
                        }
                        session.unnamed.undo(unnamed);
                        hidden = self.refused.is_some() || self.setup_failed.is_some();
                        commits = !hidden;
                        // A Bind with the wrong number of parameters.
                        if commits
                            && whole
                            && error.sqlstate == SqlState::PROTOCOL_VIOLATION
                            && let Some(names) = session.known_names()
                            && let Some(body) = names.in_the_clients_words(body)
                        {
                            self.commit(scratch);
                            self.stage(scratch);
                            write::frame(
                                &mut scratch.to_client.bytes,
                                tag::ERROR_RESPONSE,
                                |out| {
                                    out.extend_from_slice(&body);
                                },
                            );
                            hidden = true;
                        }
                    }
                }
                Meaning::Ready => {
                    let Ok(status) = Status::read(body) else {
                        return Err(self.out_of_step("unknown transaction status"));
                    };
                    if !step.hidden {
                        self.status = Some(status);
                        server.backend.prepared.settled();
                        if self.refused.is_none() {
                            scratch.expected.ready(status, session, &mut server.backend);
                        }
                        commits = !hidden;
                    }
                }
            }
            if commits && self.held {
                self.commit(scratch);
            }
            if whole {
                self.take(header.len, hidden, &mut scratch.server_in);
            } else {
                self.passing = Passing {
                    left: header.len,
                    hidden,
                };
            }
        }
    }

    /// Another try might not meet this error.
    fn may_be_refused(&self, error: &ErrorView<'_>) -> bool {
        self.held
            && (self.terms.heals && is_stale_plan(error.sqlstate, error.message)
                || self.terms.refuse == Refuse::FromReplica
                    && is_refusal(error.sqlstate, error.message))
    }

    /// Approves `count` bytes behind those approved before, or takes them out.
    fn take(&mut self, count: usize, hidden: bool, server_in: &mut Buffer) {
        if !hidden {
            self.approved += count;
        } else if self.approved == 0 {
            server_in.consume(count);
        } else {
            server_in.cut(self.approved, count);
        }
    }

    /// A message that answers nothing; whether to hide it.
    fn aside(&self, tag: u8, body: &[u8], session: &mut Session) -> bool {
        match tag {
            tag::PARAMETER_STATUS => match backend::parameter_status(body) {
                Ok((b"standard_conforming_strings", value)) => {
                    session.lexing.standard_conforming_strings = value == b"on";
                    false
                }
                Ok((b"client_encoding", value)) => {
                    session.lexing.ascii_safe_encoding = super::is_ascii_safe(value);
                    false
                }
                // A replica's own state is none of the client's business.
                Ok((b"in_hot_standby", _)) => self.terms.on == Side::Replica,
                Ok(_) | Err(_) => false,
            },
            tag::NOTIFICATION_RESPONSE => !session.pins.has(SessionPin::Listen) && !session.suspect,
            _ => false,
        }
    }

    fn out_of_step(&mut self, what: &str) -> Outcome {
        Outcome::ServerLost(Lost {
            said: Some((SqlState::PROTOCOL_VIOLATION, what.to_owned())),
            doomed: false,
            held: self.held,
            heard: self.heard(),
            unwanted: self.passing_on,
            problem: None,
        })
    }

    // To and from the client.

    fn poll_to_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        if self.held {
            return Ok(false);
        }
        // A small answer goes out in one piece when it is complete, or when no more is here.
        if !scratch.to_client.is_empty() && self.approved > 0 && self.approved <= JOINED {
            self.stage(scratch);
        }
        let mut moved = write_out(cx, client, &mut scratch.to_client)?;
        while scratch.to_client.is_empty() && self.approved > 0 {
            let bytes = scratch.server_in.filled();
            let bytes = bytes.get(..self.approved).unwrap_or(bytes);
            match Pin::new(&mut *client).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    scratch.server_in.consume(count);
                    self.approved -= count;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        flush(cx, client, moved, &mut self.unflushed.client)?;
        Ok(moved)
    }

    fn poll_from_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<bool, Outcome> {
        let mut moved = self.feed_copy(scratch)?;
        // A pipeline without an end waits until the server has taken what is here.
        let backlog = self.terms.open && scratch.to_server.unwritten().len() > CLIENT_BULK;
        if self.client_gone || scratch.client_in.is_full() || backlog {
            return Ok(moved);
        }
        match scratch.client_in.poll_fill(cx, client) {
            Poll::Pending => {}
            Poll::Ready(Ok(0) | Err(_)) => {
                self.client_left(scratch);
                moved = true;
            }
            Poll::Ready(Ok(_)) => {
                moved = true;
                self.unseen = true;
                self.feed_copy(scratch)?;
            }
        }
        Ok(moved)
    }

    /// Passes the client's copy data on, whole runs of frames at once.
    fn feed_copy(&mut self, scratch: &mut Scratch) -> Result<bool, Outcome> {
        if self.copying == Copying::No || self.kept > 0 {
            return Ok(false);
        }
        let bytes = scratch.client_in.filled();
        let mut at = self.passing_on;
        while let Some(rest) = bytes.get(at..) {
            let header = match Header::parse(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(malformed) => return Err(Outcome::ClientBroken(malformed)),
            };
            match header.tag {
                front::COPY_DATA if self.copying == Copying::Ready => self.copying = Copying::Fed,
                front::COPY_DATA | front::FLUSH => {}
                // The server ignores it while it copies.
                front::SYNC if self.copying == Copying::Ready => {}
                front::COPY_DONE | front::COPY_FAIL => {
                    scratch.replies.copy_ended();
                    // An extended COPY is answered only when the Sync behind it has come, too.
                    self.copying = Copying::No;
                    if !scratch.replies.ends_itself() {
                        self.terms.open = true;
                        self.unseen = true;
                    }
                }
                front::TERMINATE => return Err(Outcome::ClientLost),
                tag => self.ending = Ending::Suspected(tag),
            }
            at += header.len;
            if self.copying == Copying::No {
                break;
            }
        }
        let moved = at > self.passing_on;
        self.passing_on = at;
        Ok(moved)
    }
}

/// A whole FATAL error in what the client has sent.
fn ends_by_the_client(header: Header, bytes: &[u8]) -> bool {
    header.tag == tag::ERROR_RESPONSE
        && bytes
            .get(HEADER..header.len)
            .and_then(|body| ErrorView::read(body).ok())
            .is_some_and(|error| error.fatal && error.sqlstate == SqlState::PROTOCOL_VIOLATION)
}

/// Messages that may come at any time.
fn is_aside(frame: u8) -> bool {
    matches!(
        frame,
        tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS | tag::NOTIFICATION_RESPONSE
    )
}

/// A prepared statement's result has another shape than when it was planned.
fn is_stale_plan(sqlstate: SqlState, message: &[u8]) -> bool {
    sqlstate == SqlState::FEATURE_NOT_SUPPORTED
        && message == b"cached plan must not change result type"
}

/// An error of a replica's that the primary might not give.
fn is_refusal(sqlstate: SqlState, message: &[u8]) -> bool {
    const RECOVERY: &[u8] = b"recovery";
    match &sqlstate.0 {
        b"25006" | b"55000" | b"0A000" | b"40001" | b"40P01" => true,
        // Names that the replica doesn't know yet, or knows otherwise.
        b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000" | b"42P02" | b"26000" | b"34000" => {
            true
        }
        b"XX000" => memchr::memmem::find(message, RECOVERY).is_some(),
        // Cut off by the server: a recovery conflict that ended the connection, a shutdown.
        b"57P01" | b"57P02" | b"57P03" | b"57P04" | b"58P01" => true,
        code => code.starts_with(b"08"),
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
    std::future::poll_fn(|cx| {
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
    })
    .await
}
