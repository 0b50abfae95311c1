//! The server's half of an exchange: its frames are found, given their meaning, and approved for the
//! client or taken out.

use std::task::{Context, Poll};

use super::{
    super::{
        is_ascii_safe,
        scratch::{CLIENT_BULK, Scratch},
    },
    Copying, Ending, Exchange, Lost, Passing, Refusal, Refuse, Side, Stop, WHOLE,
};
use crate::{
    net::Buffer,
    pool::Server,
    protocol::{
        SqlState,
        backend::{self, ErrorView, Status, tag},
        frame::{HEADER, Header, Malformed},
        write,
    },
    session::{
        Pin as SessionPin, Session,
        committing::Committing,
        replies::{Change, Failed, Meaning, OutOfStep, Unnamed},
    },
};

impl Exchange {
    pub(super) fn poll_from_server(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Result<bool, Stop> {
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
        if scratch.replies.is_empty()
            && self.passing.left == 0
            && self.ending != Ending::Announced
            && !self.is_torn(scratch)
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
    ) -> Result<(), Stop> {
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
            let tells_of_commit = scratch.replies.tells_of_commit();
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
                Meaning::Result if tells_of_commit => self.committing = Committing::read(body),
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
                        // From here on it isn't lost as a whole.
                        self.committing = None;
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
                Meaning::Aside => {
                    let reset = scratch.expected.left_reset();
                    hidden |= self.aside(header.tag, body, reset, session);
                }
                Meaning::Error(failed) => {
                    (hidden, commits) =
                        self.error(header, step.hidden, failed, server, session, scratch)?;
                }
                Meaning::Ready => {
                    let Ok(status) = Status::read(body) else {
                        return Err(self.out_of_step("unknown transaction status"));
                    };
                    server.backend.status = status;
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
            if !whole {
                self.passing = Passing {
                    left: header.len,
                    hidden,
                };
                continue;
            }
            let mut count = header.len;
            if step.meaning == Meaning::Result && !hidden {
                let bytes = scratch.server_in.filled();
                count += run(
                    header.tag,
                    bytes.get(self.approved + count..).unwrap_or_default(),
                );
            }
            self.take(count, hidden, &mut scratch.server_in);
        }
    }

    /// An ErrorResponse has come: whether to hide it, and whether it decides the answer.
    #[cold]
    fn error(
        &mut self,
        header: Header,
        was_hidden: bool,
        failed: Failed,
        server: &mut Server,
        session: &mut Session,
        scratch: &mut Scratch,
    ) -> Result<(bool, bool), Stop> {
        let bytes = scratch
            .server_in
            .filled()
            .get(self.approved..)
            .unwrap_or_default();
        let whole = bytes.len() >= header.len;
        let body = bytes
            .get(HEADER..header.len.min(bytes.len()))
            .unwrap_or_default();
        let mut hidden = was_hidden || self.refused.is_some() || self.setup_failed.is_some();
        let mut commits = false;
        self.copying = Copying::No;
        let prepares = failed.prepares && scratch.replies.hidden_next();
        if !prepares {
            scratch.expected.failed();
        }
        server.backend.prepared.failed();
        if failed.unnamed != Unnamed::Sent {
            server.backend.unnamed = None;
        }
        let error = ErrorView::read(body).unwrap_or(ErrorView {
            sqlstate: SqlState::INTERNAL_ERROR,
            fatal: false,
            message: b"",
            hint: b"",
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
        } else if was_hidden && scratch.replies.hidden_next() && !prepares {
            self.setup_failed = Some(said());
        } else if !was_hidden
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
            if failed.undone > 0 {
                session.names().undo();
            }
            session.unnamed.undo(failed.unnamed == Unnamed::Gone);
            hidden = self.refused.is_some() || self.setup_failed.is_some();
            commits = !hidden;
            // A Bind with the wrong number of parameters, or behind DISCARD ALL.
            if commits
                && whole
                && failed.renamed
                && [
                    SqlState::PROTOCOL_VIOLATION,
                    SqlState::INVALID_SQL_STATEMENT_NAME,
                ]
                .contains(&error.sqlstate)
                && let Some(names) = session.known_names()
                && let Some(body) = names.in_the_clients_words(body)
            {
                self.commit(scratch);
                self.stage(scratch);
                write::frame(&mut scratch.to_client.bytes, tag::ERROR_RESPONSE, |out| {
                    out.extend_from_slice(&body);
                });
                hidden = true;
            }
        }
        Ok((hidden, commits))
    }

    /// Another try might not meet this error.
    fn may_be_refused(&self, error: &ErrorView<'_>) -> bool {
        self.held
            && (self.terms.heals && is_stale_plan(error.sqlstate, error.message)
                || self.terms.refuse == Refuse::FromReplica
                    && is_refusal(error.sqlstate, error.message))
    }

    /// Approves `count` bytes behind those approved before, or takes them out.
    pub(super) fn take(&mut self, count: usize, hidden: bool, server_in: &mut Buffer) {
        if !hidden {
            self.approved += count;
        } else if self.approved == 0 {
            server_in.consume(count);
        } else {
            server_in.cut(self.approved, count);
        }
    }

    /// A message that answers nothing; whether to hide it. `reset`: the connection is at its own
    /// defaults.
    fn aside(&self, tag: u8, body: &[u8], reset: bool, session: &mut Session) -> bool {
        match tag {
            tag::PARAMETER_STATUS => match backend::parameter_status(body) {
                Ok((b"standard_conforming_strings", value)) => {
                    session.lexing.standard_conforming_strings = value == b"on";
                    false
                }
                Ok((b"client_encoding", value)) => {
                    session.lexing.ascii_safe_encoding = is_ascii_safe(value);
                    false
                }
                // A replica's own state is none of the client's business.
                Ok((b"in_hot_standby", _)) => self.terms.on == Side::Replica,
                // The connection's, not the session's.
                Ok((name, _)) if reset => session.settings.asks_for(name),
                Ok(_) | Err(_) => false,
            },
            tag::NOTIFICATION_RESPONSE => !session.pins.has(SessionPin::Listen) && !session.suspect,
            _ => false,
        }
    }

    fn out_of_step(&mut self, what: &str) -> Stop {
        Stop::ServerLost(Lost {
            said: Some((SqlState::PROTOCOL_VIOLATION, what.to_owned())),
            doomed: false,
            held: self.held,
            heard: self.heard(),
            unwanted: self.passing_on,
            committing: self.committing,
            problem: None,
        })
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

/// How many bytes at the front are whole frames of rows or copied data, of the same type as one that
/// came before them: each means what that meant.
fn run(tag: u8, bytes: &[u8]) -> usize {
    let mut at = 0;
    if matches!(tag, tag::DATA_ROW | tag::COPY_DATA) {
        while let Some(rest) = bytes.get(at..)
            && let Ok(Some(header)) = Header::parse(rest)
            && header.tag == tag
            && header.len <= rest.len()
        {
            at += header.len;
        }
    }
    at
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
        // Rights and roles that it doesn't have yet.
        b"42501" => true,
        b"22023" => message.starts_with(b"role "),
        b"XX000" => memchr::memmem::find(message, RECOVERY).is_some(),
        // Cut off by the server: a recovery conflict that ended the connection, a shutdown.
        b"57P01" | b"57P02" | b"57P03" | b"57P04" | b"58P01" => true,
        code => code.starts_with(b"08"),
    }
}
