//! Writing a request to a server connection: what brings the connection to the session goes first,
//! then the client's frames, with names of prepared statements replaced and missing statements
//! added. What is owed for each is entered in the same breath.

use super::{
    Session,
    backend::Backend,
    prepared::{Statement, server_name},
    replies::{Owed, Replies},
    request::Resolved,
};
use crate::protocol::{
    backend,
    frame::{HEADER, Header, Malformed},
    frontend::{Bind, Object, Parse, Target, tag},
    write,
};

/// Where a request is written to.
#[derive(Debug)]
pub struct Sink<'a> {
    pub out: &'a mut Vec<u8>,
    pub replies: &'a mut Replies,
    pub backend: &'a mut Backend,
    /// How many statements a server connection keeps prepared.
    pub prepared_limit: usize,
}

/// Names that pgsplit gives statements on servers begin so.
const OWN_PREFIX: &[u8] = b"pgsplit_";

impl Sink<'_> {
    /// A simple Query of pgsplit's own, whose answer the client doesn't see.
    pub fn hidden_query(&mut self, text: &[u8]) {
        write::query(self.out, text);
        self.replies.sent_hidden(Owed::Query);
        // A simple Query drops the unnamed statement.
        self.backend.unnamed = None;
    }

    fn hidden_close(&mut self, name: &[u8]) {
        write::statement_target(self.out, tag::CLOSE, name);
        self.replies.sent_hidden(Owed::Close);
    }

    /// Parses `statement` here if it isn't; whether it had to be.
    fn parse(&mut self, statement: &Statement) -> bool {
        if self.backend.prepared.touch(statement.id()) {
            return false;
        }
        let before = self
            .backend
            .prepared
            .insert(statement.id(), self.prepared_limit);
        if let Some(evicted) = before.evicted {
            self.hidden_close(server_name(evicted).as_bytes());
        }
        let name = statement.server_name();
        if before.unsure {
            self.hidden_close(name.as_bytes());
        }
        write::parse(
            self.out,
            name.as_bytes(),
            statement.text(),
            statement.types(),
        );
        true
    }

    fn ensure(&mut self, statement: &Statement) {
        if self.parse(statement) {
            self.replies.sent_hidden(Owed::Parse);
        }
    }

    /// Makes the connection's unnamed statement the session's.
    fn ensure_unnamed(&mut self, session: &Session) {
        let stamp = session.stamp();
        if stamp.is_some() && self.backend.unnamed == stamp {
            return;
        }
        if stamp.is_some() && !session.unnamed.parse().is_empty() {
            write::frame(self.out, tag::PARSE, |out| {
                out.extend_from_slice(session.unnamed.parse());
            });
            self.replies.sent_hidden(Owed::Parse);
        } else {
            // Another session's may be there: the client must hear that it has none.
            self.hidden_close(b"");
        }
        self.backend.unnamed = stamp;
    }
}

/// Writes a simple Query or FunctionCall: one frame, as it is.
pub fn simple(frame: &[u8], session: &mut Session, sink: &mut Sink<'_>) {
    sink.out.extend_from_slice(frame);
    simple_sent(frame.first() == Some(&tag::QUERY), session, sink);
}

/// How a frame that is too long to be kept goes on: so many bytes of the buffer are dealt with, so
/// many behind them are passed on as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    pub consumed: usize,
    pub passing_on: usize,
}

/// Begins to write a frame that is too long to be kept, of which `head` is there. `None`: it can't
/// be, since the session would have to keep it (a statement with a name).
pub fn oversize(head: &[u8], session: &mut Session, sink: &mut Sink<'_>) -> Option<Passing> {
    let header = Header::parse(head).ok()??;
    let body = head.get(HEADER..)?;
    let whole = Passing {
        consumed: 0,
        passing_on: header.len,
    };
    match header.tag {
        tag::QUERY | tag::FUNCTION_CALL => simple_sent(header.tag == tag::QUERY, session, sink),
        tag::PARSE => {
            if body.first() != Some(&0) {
                return None;
            }
            session.unnamed.pass();
            sink.backend.unnamed = session.stamp();
            sink.replies.sent(Owed::Parse);
        }
        tag::BIND => {
            let bind = Bind::read(body).ok()?;
            let names = bind.portal.len() + bind.statement.len() + 2;
            let statement = session.names().get(bind.statement).cloned();
            let name = match statement {
                _ if bind.statement.is_empty() => {
                    sink.ensure_unnamed(session);
                    Vec::new()
                }
                Some(statement) => {
                    sink.ensure(&statement);
                    statement.server_name().into_bytes()
                }
                None => unknown(bind.statement),
            };
            let left = header.len - HEADER - names;
            write::bind_head(sink.out, bind.portal, &name, left);
            sink.replies.sent(Owed::Bind);
            return Some(Passing {
                consumed: HEADER + names,
                passing_on: left,
            });
        }
        tag::DESCRIBE => sink.replies.sent(Owed::Describe),
        tag::EXECUTE => sink.replies.sent(Owed::Execute),
        tag::CLOSE => sink.replies.sent(Owed::Close),
        _ => {}
    }
    Some(whole)
}

/// Enters what is owed for a Query (else a FunctionCall).
fn simple_sent(query: bool, session: &mut Session, sink: &mut Sink<'_>) {
    if query {
        sink.backend.unnamed = None;
        session.unnamed.clear();
    }
    sink.replies
        .sent(if query { Owed::Query } else { Owed::Call });
}

/// Writes whole extended frames. `rewritten` tells that names must be looked at
/// ([`super::request::Request::rewritten`]).
///
/// # Errors
/// A frame that is no message; a scan has found them all good before.
pub fn extended(
    frames: &[u8],
    rewritten: bool,
    session: &Session,
    resolved: &mut Resolved,
    sink: &mut Sink<'_>,
) -> Result<(), Malformed> {
    let mut parsed_unnamed = false;
    let mut at = 0;
    while let Some(header) = Header::parse(frames.get(at..).unwrap_or_default())? {
        let Some(frame) = frames.get(at..at + header.len) else {
            break;
        };
        at += header.len;
        if rewritten {
            rewrite(
                header.tag,
                frame,
                session,
                resolved,
                &mut parsed_unnamed,
                sink,
            )?;
        } else {
            if header.tag == tag::PARSE {
                sink.backend.unnamed = session.stamp();
            }
            raw(header.tag, frame, sink);
        }
    }
    Ok(())
}

fn raw(tag: u8, frame: &[u8], sink: &mut Sink<'_>) {
    sink.out.extend_from_slice(frame);
    let owed = match tag {
        tag::PARSE => Owed::Parse,
        tag::BIND => Owed::Bind,
        tag::DESCRIBE => Owed::Describe,
        tag::EXECUTE => Owed::Execute,
        tag::CLOSE => Owed::Close,
        tag::SYNC => Owed::Sync,
        _ => return,
    };
    sink.replies.sent(owed);
}

fn rewrite(
    tag: u8,
    frame: &[u8],
    session: &Session,
    resolved: &mut Resolved,
    parsed_unnamed: &mut bool,
    sink: &mut Sink<'_>,
) -> Result<(), Malformed> {
    let body = frame.get(HEADER..).unwrap_or_default();
    match tag {
        tag::PARSE => {
            let parse = Parse::read(body)?;
            if parse.name.is_empty() {
                *parsed_unnamed = true;
                sink.backend.unnamed = session.stamp();
                raw(tag, frame, sink);
            } else if let Some(statement) = resolved.resolve() {
                if sink.parse(&statement) {
                    sink.replies.sent_journaled(Owed::Parse);
                } else {
                    sink.replies
                        .sent_journaled(Owed::Made(backend::tag::PARSE_COMPLETE));
                }
            } else {
                // The session has this name already. The server words the error, once it has it, too.
                write::parse(sink.out, parse.name, b"", &[0; 2]);
                sink.replies.sent_hidden(Owed::Parse);
                raw(tag, frame, sink);
                sink.backend.spoiled = true;
            }
        }
        tag::BIND => {
            let bind = Bind::read(body)?;
            if bind.statement.is_empty() {
                if !*parsed_unnamed {
                    sink.ensure_unnamed(session);
                }
                raw(tag, frame, sink);
            } else {
                let name = server_side(bind.statement, resolved, sink);
                write::bind_head(sink.out, bind.portal, &name, bind.rest.len());
                sink.out.extend_from_slice(bind.rest);
                sink.replies.sent(Owed::Bind);
            }
        }
        tag::DESCRIBE | tag::CLOSE => {
            let target = Target::read(tag, body)?;
            match (target.object, tag) {
                (Object::Portal, _) => raw(tag, frame, sink),
                (Object::Statement, tag::CLOSE) if target.name.is_empty() => {
                    sink.backend.unnamed = None;
                    raw(tag, frame, sink);
                }
                (Object::Statement, tag::CLOSE) => {
                    let _closed = resolved.resolve();
                    sink.replies
                        .sent_journaled(Owed::Made(backend::tag::CLOSE_COMPLETE));
                }
                (Object::Statement, _) if target.name.is_empty() => {
                    if !*parsed_unnamed {
                        sink.ensure_unnamed(session);
                    }
                    raw(tag, frame, sink);
                }
                (Object::Statement, _) => {
                    let name = server_side(target.name, resolved, sink);
                    write::statement_target(sink.out, tag, &name);
                    sink.replies.sent(Owed::Describe);
                }
            }
        }
        _ => raw(tag, frame, sink),
    }
    Ok(())
}

/// The name on the server of the client's `name`, which is parsed there first if need be. A name
/// that the session doesn't have goes as it is, so that the server words the error.
fn server_side(name: &[u8], resolved: &mut Resolved, sink: &mut Sink<'_>) -> Vec<u8> {
    match resolved.resolve() {
        Some(statement) => {
            sink.ensure(&statement);
            statement.server_name().into_bytes()
        }
        None => unknown(name),
    }
}

/// A name that the session doesn't have. One that looks like pgsplit's own must not reach another
/// session's statement.
fn unknown(name: &[u8]) -> Vec<u8> {
    if name.starts_with(OWN_PREFIX) {
        [name, b" "].concat()
    } else {
        name.to_vec()
    }
}
