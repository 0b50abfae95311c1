//! Writing a request to a server connection: what brings the connection to the session goes first,
//! then the client's frames, with names of prepared statements replaced and missing statements
//! added. What is owed for each is entered in the same breath.

use std::borrow::Cow;

use super::{
    Session, Transaction,
    backend::Backend,
    committing::Committing,
    prepared::{Named, OWN_PREFIX, Presence, Statement, server_name},
    reading::Reading,
    replies::{Owed, Replies},
    request::Resolved,
    unnamed::Text,
};
use crate::{
    protocol::{
        backend,
        frame::{HEADER, Header, Malformed},
        frontend::{Bind, Object, Parse, Target, tag},
        write,
    },
    sql::{self, Effect},
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

/// In which protocol a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Simple,
    Extended,
}

/// The name under which pgsplit runs statements of its own between the client's.
const ASIDE: &[u8] = b"pgsplit_aside";

impl Sink<'_> {
    /// A simple Query of pgsplit's own, whose answer the client doesn't see.
    pub fn hidden_query(&mut self, text: &[u8]) {
        write::query(self.out, text);
        self.replies.sent_hidden(Owed::Query);
        // A simple Query drops the unnamed statement.
        self.backend.unnamed = None;
    }

    /// Asks for what tells later what became of the transaction that the next statement commits.
    pub fn committing(&mut self) {
        write::query(self.out, Committing::QUERY);
        self.replies.sent_hidden(Owed::Committing);
        self.backend.unnamed = None;
    }

    /// Asks the same before a Sync that ends the writing statements' own transaction. The answer is
    /// here before the server reads that Sync.
    fn committing_extended(&mut self) {
        self.hidden_unnamed(
            Committing::QUERY,
            &[0; 2],
            &NOTHING_BOUND,
            Owed::CommittingExecute,
        );
        write::frame(self.out, tag::FLUSH, |_| ());
    }

    /// An unnamed statement of pgsplit's own and its execution; `types` and `values` as they stand
    /// in Parse and behind the names of Bind.
    pub fn hidden_extended(&mut self, text: &[u8], types: &[u8], values: &[u8]) {
        self.hidden_unnamed(text, types, values, Owed::Execute);
        write::sync(self.out);
        self.replies.sent_hidden(Owed::Sync);
    }

    fn hidden_unnamed(&mut self, text: &[u8], types: &[u8], values: &[u8], execute: Owed) {
        write::parse(self.out, b"", text, types);
        write::bind_head(self.out, b"", b"", values.len());
        self.out.extend_from_slice(values);
        write::execute(self.out, b"");
        for owed in [Owed::Parse, Owed::Bind, execute] {
            self.replies.sent_hidden(owed);
        }
        self.backend.unnamed = None;
    }

    /// A statement of pgsplit's own and its execution in the middle of the client's, which leaves
    /// unnamed statement and portal alone.
    fn hidden_aside(&mut self, text: &[u8]) {
        write::parse(self.out, ASIDE, text, &[0; 2]);
        write::bind_head(self.out, ASIDE, ASIDE, NOTHING_BOUND.len());
        self.out.extend_from_slice(&NOTHING_BOUND);
        write::execute(self.out, ASIDE);
        for owed in [Owed::Parse, Owed::Bind, Owed::Execute] {
            self.replies.sent_hidden(owed);
        }
        write::close_portal(self.out, ASIDE);
        self.replies.sent_hidden(Owed::Close);
        self.hidden_close(ASIDE);
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

    fn ensure(&mut self, statement: &Statement, session: &Session) {
        if self.parse(statement) {
            self.replies.sent_hidden(Owed::ParseShared);
            if statement.reading().differs(&session.settings) {
                // In the middle of a batch nothing can be set for it: for this batch only.
                self.backend.prepared.doubt_shared(statement.id());
            }
        }
    }

    /// Makes known here what a request rests on and is to be read otherwise than the session now
    /// reads. Nothing of the request has been written yet.
    fn bring_as_read(&mut self, resolved: &Resolved, all_sql: bool, session: &Session) {
        let mut sql = all_sql;
        for named in resolved.iter() {
            match named {
                Named::Protocol(statement) => {
                    if !self.backend.prepared.holds(statement.id())
                        && statement.reading().differs(&session.settings)
                    {
                        self.as_read(statement.reading(), session, |sink| {
                            if sink.parse(statement) {
                                sink.replies.sent_hidden(Owed::ParseShared);
                            }
                            write::sync(sink.out);
                            sink.replies.sent_hidden(Owed::Sync);
                        });
                    }
                }
                Named::Sql(_) => sql = true,
            }
        }
        let others = session.all_names().filter(|(_, named)| {
            sql && named.prepare().is_some() && named.reading().differs(&session.settings)
        });
        for (name, named) in others {
            self.bring(name, Some(named), Form::Simple, session);
        }
    }

    /// Has a text read as it was read at first: in a part of the open transaction, or in one of its
    /// own, of which nothing but what was prepared stays.
    fn as_read(&mut self, reading: &Reading, session: &Session, make: impl FnOnce(&mut Self)) {
        let (begin, end) = match session.transaction {
            Transaction::Idle => ("BEGIN ISOLATION LEVEL READ COMMITTED;", "ROLLBACK"),
            _ => (
                "SAVEPOINT pgsplit_reading;",
                "ROLLBACK TO pgsplit_reading;RELEASE pgsplit_reading",
            ),
        };
        self.hidden_query([begin, &reading.statements()].concat().as_bytes());
        make(self);
        self.hidden_query(end.as_bytes());
    }

    /// Makes what `name` means on the connection what it means in the session.
    fn bring(&mut self, name: &[u8], wanted: Option<&Named>, form: Form, session: &Session) {
        if self.lacks(name, wanted)
            && let Some(named) = wanted
        {
            self.make_room(name);
            self.brought(name, named, form, session);
        }
    }

    /// The name isn't there with this meaning, nor with another.
    fn lacks(&mut self, name: &[u8], wanted: Option<&Named>) -> bool {
        match self.backend.prepared.presence(name, wanted) {
            Presence::Same => {
                self.backend.prepared.keep(name, self.prepared_limit);
                return false;
            }
            Presence::Absent => {}
            Presence::Other => {
                self.hidden_close(name);
                self.backend.prepared.unname(name);
            }
        }
        true
    }

    fn make_room(&mut self, name: &[u8]) {
        for evicted in self.backend.prepared.make_room(name, self.prepared_limit) {
            self.hidden_close(&evicted);
        }
    }

    /// Prepares `named` under this name, which isn't taken.
    fn brought(&mut self, name: &[u8], named: &Named, form: Form, session: &Session) {
        if !named.reading().differs(&session.settings) {
            self.prepare(name, named, form);
        } else if form == Form::Simple && !session.unsynced {
            self.as_read(named.reading(), session, |sink| {
                sink.prepare(name, named, form);
            });
        } else {
            // As in [`Self::ensure`].
            self.prepare(name, named, form);
            return self.backend.prepared.doubt(name);
        }
        self.backend.prepared.name(name, named.clone());
    }

    fn prepare(&mut self, name: &[u8], named: &Named, form: Form) {
        match (named, form) {
            (Named::Protocol(statement), _) => {
                write::parse(self.out, name, statement.text(), statement.types());
                self.replies.sent_hidden(Owed::Parse);
                if form == Form::Simple {
                    // If it fails the server waits for a Sync.
                    write::sync(self.out);
                    self.replies.sent_hidden(Owed::Sync);
                }
            }
            (Named::Sql(_), Form::Simple) => {
                write::query(self.out, named.prepare().unwrap_or_default());
                self.replies.sent_hidden(Owed::Prepare);
                self.backend.unnamed = None;
            }
            (Named::Sql(_), Form::Extended) => {
                self.hidden_aside(named.prepare().unwrap_or_default());
            }
        }
    }

    /// Makes `name` mean something on the connection, whatever it is.
    fn occupy(&mut self, name: &[u8]) {
        self.hidden_close(name);
        self.backend.prepared.unname(name);
        write::parse(self.out, name, b"", &[0; 2]);
        self.replies.sent_hidden(Owed::Parse);
        self.backend.prepared.doubt(name);
    }

    /// Brings the names that a text's PREPARE, EXECUTE and DEALLOCATE mention; all, if it can't be
    /// told which.
    fn bring_mentioned(&mut self, text: &[u8], session: &Session, form: Form) {
        let Some(effects) = sql::effects(text, session.lexing) else {
            return self.bring_all(session, form);
        };
        for effect in effects {
            if let Effect::Prepare { name, .. }
            | Effect::Execute(name)
            | Effect::Deallocate(Some(name)) = &effect
            {
                let name = name.as_bytes();
                self.bring(name, session.meaning(name), form, session);
                if let Effect::Prepare { .. } = effect {
                    self.make_room(name);
                }
            }
        }
    }

    /// Brings all names that were prepared by SQL, however many.
    fn bring_sql(&mut self, session: &Session, form: Form) {
        for (name, named) in session.all_names() {
            if named.prepare().is_some() && self.lacks(name, Some(named)) {
                self.brought(name, named, form, session);
            }
        }
    }

    /// Makes the connection's prepared statements those of the session, no more and no less: all of
    /// them, whatever the limit.
    pub fn bring_all(&mut self, session: &Session, form: Form) {
        let prepared = &mut self.backend.prepared;
        let unwanted: Vec<Box<[u8]>> = prepared
            .names()
            .filter(|(name, _)| session.meaning(name).is_none())
            .map(|(name, _)| name.into())
            .collect();
        let own = prepared.take_all();
        for name in unwanted {
            self.hidden_close(&name);
            self.backend.prepared.unname(&name);
        }
        for id in own {
            self.hidden_close(server_name(id).as_bytes());
        }
        for (name, named) in session.all_names() {
            if self.lacks(name, Some(named)) {
                self.brought(name, named, form, session);
            }
        }
    }

    /// Makes the connection's unnamed statement this one of the session's.
    fn ensure_unnamed(&mut self, unnamed: &Text, session: u32) {
        let stamp = unnamed.stamp(session);
        if stamp.is_some() && self.backend.unnamed == stamp {
            return;
        }
        if stamp.is_some() && !unnamed.parse().is_empty() {
            write::frame(self.out, tag::PARSE, |out| {
                out.extend_from_slice(unnamed.parse());
            });
            self.replies.sent_hidden(Owed::Parse);
        } else {
            // Another session's may be there: the client must hear that it has none.
            self.hidden_close(b"");
        }
        self.backend.unnamed = stamp;
    }
}

/// Which of the session's names of prepared statements a request's texts rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mentions {
    None,
    /// Those that its PREPARE, EXECUTE and DEALLOCATE give.
    Some,
    /// Any that were prepared by SQL: code out of sight may execute them.
    Unseen,
    /// It looks at all of them.
    All,
}

/// Brings what the text of a simple Query rests on.
pub fn names(text: &[u8], mentions: Mentions, session: &Session, sink: &mut Sink<'_>) {
    match mentions {
        Mentions::None => {}
        Mentions::Some => sink.bring_mentioned(text, session, Form::Simple),
        Mentions::Unseen => sink.bring_sql(session, Form::Simple),
        Mentions::All => sink.bring_all(session, Form::Simple),
    }
}

/// Writes a simple Query or FunctionCall: one frame, as it is.
pub fn simple(frame: &[u8], session: &mut Session, sink: &mut Sink<'_>) {
    sink.out.extend_from_slice(frame);
    simple_sent(frame.first() == Some(&tag::QUERY), session, sink);
}

/// Writes a simple Query of one statement that has no rows and resets what the startup packet set.
/// `restores` set that again, unseen, before anything is reported of it.
pub fn restoring(
    text: &[u8],
    restores: &[(usize, String)],
    session: &mut Session,
    sink: &mut Sink<'_>,
) {
    write::parse(sink.out, b"", text, &[0; 2]);
    sink.replies.sent_hidden(Owed::Parse);
    write::bind_head(sink.out, b"", b"", NOTHING_BOUND.len());
    sink.out.extend_from_slice(&NOTHING_BOUND);
    sink.replies.sent_hidden(Owed::Bind);
    write::execute(sink.out, b"");
    sink.replies.sent(Owed::Execute);
    for (_, restore) in restores {
        sink.hidden_unnamed(restore.as_bytes(), &[0; 2], &NOTHING_BOUND, Owed::Execute);
    }
    write::sync(sink.out);
    sink.replies.sent(Owed::Sync);
    session.unnamed.drop_now();
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
        tag::QUERY if sql::prepares(body, session.lexing) => return None,
        tag::QUERY | tag::FUNCTION_CALL => simple_sent(header.tag == tag::QUERY, session, sink),
        tag::PARSE => {
            if body.first() != Some(&0) {
                return None;
            }
            session.unnamed.pass();
            sink.backend.unnamed = session.unnamed.now().stamp(session.number);
            sink.replies.sent(Owed::ParseUnnamed);
        }
        tag::BIND => {
            let bind = Bind::read(body).ok()?;
            let names = bind.portal.len() + bind.statement.len() + 2;
            let named = session.meaning(bind.statement).cloned();
            let name = if bind.statement.is_empty() {
                sink.ensure_unnamed(session.unnamed.now(), session.number);
                Cow::default()
            } else {
                server_side(bind.statement, named.as_ref(), session, sink)
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
    // Behind an error the server passes over it.
    if query && !sink.replies.skipping() {
        sink.backend.unnamed = None;
        session.unnamed.drop_now();
    }
    sink.replies
        .sent(if query { Owed::Query } else { Owed::Call });
}

/// What goes along with extended frames.
#[derive(Clone, Copy, Debug)]
pub struct Along<'a> {
    /// Names must be looked at ([`super::request::Request::rewritten`]).
    pub rewritten: bool,
    /// What their texts rest on.
    pub mentions: Mentions,
    /// The Sync commits what they write, and its outcome may have to be found out.
    pub commits: bool,
    /// Behind which Execute, counted from none, what sets again what it resets.
    pub restores: &'a [(usize, String)],
}

/// Writes whole extended frames.
///
/// # Errors
/// A frame that is no message; a scan has found them all good before.
pub fn extended(
    frames: &[u8],
    along: Along<'_>,
    session: &Session,
    resolved: &mut Resolved,
    sink: &mut Sink<'_>,
) -> Result<(), Malformed> {
    let Along {
        rewritten,
        mentions,
        commits,
        restores,
    } = along;
    if session.settings.is_changed()
        && !session.unsynced
        && session.transaction.status() != backend::Status::Failed
    {
        sink.bring_as_read(resolved, mentions != Mentions::None, session);
    }
    match mentions {
        Mentions::All => sink.bring_all(session, Form::Extended),
        Mentions::Unseen => sink.bring_sql(session, Form::Extended),
        Mentions::Some | Mentions::None => {}
    }
    let mentions = mentions == Mentions::Some;
    let mut unnamed_changed = false;
    let mut executed = 0;
    let mut at = 0;
    while let Some(header) = Header::parse(frames.get(at..).unwrap_or_default())? {
        let Some(frame) = frames.get(at..at + header.len) else {
            break;
        };
        at += header.len;
        if commits && header.tag == tag::SYNC {
            sink.committing_extended();
        }
        if rewritten || mentions {
            let mut texts = Texts {
                session,
                resolved,
                unnamed_changed: &mut unnamed_changed,
                mentions,
            };
            rewrite(header.tag, frame, &mut texts, sink)?;
        } else {
            if header.tag == tag::PARSE {
                sink.backend.unnamed = session.unnamed.now().stamp(session.number);
            }
            raw(header.tag, frame, sink);
        }
        if header.tag == tag::EXECUTE {
            for (_, restore) in restores.iter().filter(|(at, _)| *at == executed) {
                sink.hidden_aside(restore.as_bytes());
            }
            executed += 1;
        }
    }
    Ok(())
}

fn raw(tag: u8, frame: &[u8], sink: &mut Sink<'_>) {
    sink.out.extend_from_slice(frame);
    let owed = match tag {
        tag::PARSE => Owed::ParseUnnamed,
        tag::BIND => Owed::Bind,
        tag::DESCRIBE => Owed::Describe,
        tag::EXECUTE => Owed::Execute,
        tag::CLOSE => Owed::Close,
        tag::SYNC => Owed::Sync,
        _ => return,
    };
    sink.replies.sent(owed);
}

/// What the frames' names and texts mean.
struct Texts<'a> {
    session: &'a Session,
    resolved: &'a mut Resolved,
    /// The request has parsed or closed the unnamed statement.
    unnamed_changed: &'a mut bool,
    /// Texts may hold PREPARE, EXECUTE or DEALLOCATE.
    mentions: bool,
}

impl Texts<'_> {
    fn mentioned(&self, text: Option<&[u8]>, sink: &mut Sink<'_>) {
        if self.mentions
            && let Some(text) = text
        {
            sink.bring_mentioned(text, self.session, Form::Extended);
        }
    }

    /// The unnamed statement is used: until the request changes it, it is the one from before.
    fn bring_unnamed(&self, sink: &mut Sink<'_>) {
        if *self.unnamed_changed {
            return;
        }
        let session = self.session;
        let unnamed = self.resolved.unnamed(session);
        self.mentioned(unnamed.text(), sink);
        sink.ensure_unnamed(unnamed, session.number);
    }
}

fn rewrite(
    tag: u8,
    frame: &[u8],
    texts: &mut Texts<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), Malformed> {
    let body = frame.get(HEADER..).unwrap_or_default();
    match tag {
        tag::PARSE => {
            let parse = Parse::read(body)?;
            texts.mentioned(Some(parse.text), sink);
            if parse.name.is_empty() {
                *texts.unnamed_changed = true;
                let session = texts.session;
                sink.backend.unnamed = session.unnamed.now().stamp(session.number);
                raw(tag, frame, sink);
            } else if let Some(Named::Protocol(statement)) = texts.resolved.resolve() {
                if texts.session.transaction.status() == backend::Status::Failed {
                    // The server is to word the error.
                    sink.backend.prepared.doubt_shared(statement.id());
                }
                if sink.parse(&statement) {
                    sink.replies.sent_journaled(Owed::ParseShared);
                } else {
                    sink.replies
                        .sent_journaled(Owed::Made(backend::tag::PARSE_COMPLETE));
                }
            } else {
                // The session has this name already. The server words the error, once it has it, too.
                sink.occupy(parse.name);
                sink.out.extend_from_slice(frame);
                sink.replies.sent(Owed::Parse);
            }
        }
        tag::BIND => {
            let bind = Bind::read(body)?;
            if bind.statement.is_empty() {
                texts.bring_unnamed(sink);
                raw(tag, frame, sink);
            } else {
                let named = texts.resolved.resolve();
                texts.mentioned(named.as_ref().map(Named::text), sink);
                let name = server_side(bind.statement, named.as_ref(), texts.session, sink);
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
                    *texts.unnamed_changed = true;
                    sink.backend.unnamed = None;
                    sink.out.extend_from_slice(frame);
                    sink.replies.sent(Owed::CloseUnnamed);
                }
                (Object::Statement, tag::CLOSE) => {
                    let _closed = texts.resolved.resolve();
                    sink.replies
                        .sent_journaled(Owed::Made(backend::tag::CLOSE_COMPLETE));
                }
                (Object::Statement, _) if target.name.is_empty() => {
                    texts.bring_unnamed(sink);
                    raw(tag, frame, sink);
                }
                (Object::Statement, _) => {
                    let named = texts.resolved.resolve();
                    let name = server_side(target.name, named.as_ref(), texts.session, sink);
                    write::statement_target(sink.out, tag, &name);
                    sink.replies.sent(Owed::Describe);
                }
            }
        }
        _ => raw(tag, frame, sink),
    }
    Ok(())
}

/// The name on the server of the client's `name`, which is prepared there first if need be. A name
/// that the session doesn't have goes as it is, so that the server words the error.
fn server_side<'a>(
    name: &'a [u8],
    named: Option<&'a Named>,
    session: &Session,
    sink: &mut Sink<'_>,
) -> Cow<'a, [u8]> {
    match named {
        Some(Named::Protocol(statement)) => {
            sink.ensure(statement, session);
            Cow::Borrowed(statement.server_name().as_bytes())
        }
        Some(Named::Sql(_)) => {
            sink.bring(name, named, Form::Extended, session);
            Cow::Borrowed(name)
        }
        None => {
            // One that the session has prepared in this very request stays.
            sink.bring(name, None, Form::Extended, session);
            unknown(name)
        }
    }
}

/// A name that the session doesn't have. One that looks like pgsplit's own must not reach another
/// session's statement.
fn unknown(name: &[u8]) -> Cow<'_, [u8]> {
    if name.starts_with(OWN_PREFIX) {
        Cow::Owned([name, b" "].concat())
    } else {
        Cow::Borrowed(name)
    }
}

/// The rest of a Bind without parameters.
const NOTHING_BOUND: [u8; 6] = [0; 6];
