//! What statements do to the session, carried out as the server acknowledges them.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Pin, Session, backend::Backend, prepared::Named, request::Resolved, settings::Settings,
};
use crate::{
    protocol::{
        backend::Status,
        frame::{HEADER, Header},
        frontend::{Bind, Execute, Parse, tag},
    },
    sql::{self, Begin, Effect, Isolation, Lexing, Scope, SettingValue, catalogue::Catalogue},
};

/// Effects of a request's statements, waiting for their CommandComplete.
#[derive(Debug, Default)]
pub struct Expected {
    /// After so many completions: this effect.
    waiting: VecDeque<(usize, Effect)>,
    completed: usize,
    /// An error was answered since the last ReadyForQuery.
    failed: bool,
    /// What they reset of the startup packet's settings is set again on the connection.
    restored: bool,
    /// DISCARD ALL, which an error behind it doesn't undo, was carried out.
    discarded: bool,
}

/// A portal that a request has made.
struct Bound {
    portal: Vec<u8>,
    text: Option<Vec<u8>>,
    /// `None`: they can't be told.
    effects: Option<Vec<Effect>>,
    /// Wholly, by the request itself.
    executed: bool,
}

impl Expected {
    /// For the next part of an exchange that goes on.
    pub fn next_part(&mut self) {
        self.waiting.clear();
        self.completed = 0;
        self.restored = false;
    }

    /// For the next request.
    pub fn clear(&mut self) {
        self.next_part();
        self.failed = false;
        self.discarded = false;
    }

    /// An error has undone what set the startup packet's settings again.
    #[must_use]
    pub fn left_reset(&self) -> bool {
        self.failed && self.discarded
    }

    /// What is to be run behind which statement, so that what it resets goes back to what the startup
    /// packet asked for; it will be.
    pub fn restores(&mut self, base: &Settings) -> Vec<(usize, String)> {
        self.restored = true;
        let restore = |(at, effect): &(usize, Effect)| {
            let at = *at;
            base.restore(effect).into_iter().map(move |sql| (at, sql))
        };
        self.waiting.iter().flat_map(restore).collect()
    }

    /// Notes the effects of a simple Query. A text that can't be read makes the session suspect.
    pub fn expect_query(&mut self, text: &[u8], session: &mut Session) {
        match sql::effects(text, session.lexing) {
            Some(effects) => self.waiting.extend(effects.into_iter().enumerate()),
            None => {
                session.suspect = true;
                session.untold.see_statements(text, session.lexing, None);
            }
        }
    }

    /// Notes the effects of the statements that a request executes through the extended protocol.
    pub fn expect_extended(
        &mut self,
        frames: &[u8],
        session: &mut Session,
        resolved: &mut Resolved,
    ) {
        let mut portals: Vec<Bound> = Vec::new();
        let mut unnamed = resolved.unnamed(session).text().map(<[u8]>::to_vec);
        let mut executed = 0;
        let mut at = 0;
        let lexing = session.lexing;
        while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
            let Some(body) = frames.get(at + HEADER..at + header.len) else {
                break;
            };
            at += header.len;
            match header.tag {
                tag::PARSE => {
                    let Ok(parse) = Parse::read(body) else { break };
                    if parse.name.is_empty() {
                        unnamed = Some(parse.text.to_vec());
                    } else {
                        let _named = resolved.resolve();
                    }
                }
                tag::BIND => {
                    let Ok(bind) = Bind::read(body) else { break };
                    let named = if bind.statement.is_empty() {
                        None
                    } else {
                        resolved.resolve()
                    };
                    let text = match &named {
                        Some(named) => Some(named.text()),
                        None if bind.statement.is_empty() => unnamed.as_deref(),
                        None => None,
                    };
                    let effects = effects_of(text, lexing, &bind);
                    if let (None, Some(text)) = (&effects, text) {
                        session.untold.see_statements(text, session.lexing, None);
                    }
                    portals.push(Bound {
                        portal: bind.portal.to_vec(),
                        text: text.map(<[u8]>::to_vec),
                        effects,
                        executed: false,
                    });
                }
                tag::DESCRIBE | tag::CLOSE
                    if body.first() == Some(&b'S') && body.get(1).is_some_and(|&b| b != 0) =>
                {
                    let _named = resolved.resolve();
                }
                tag::EXECUTE => {
                    let Ok(execute) = Execute::read(body) else {
                        break;
                    };
                    let mut latest = portals.iter_mut().rev();
                    if let Some(bound) = latest.find(|bound| bound.portal == execute.portal) {
                        bound.executed |= execute.max_rows == 0;
                        match &bound.effects {
                            Some(effects) => {
                                let effects = effects.iter().map(|e| (executed, e.clone()));
                                self.waiting.extend(effects);
                            }
                            None => session.suspect = true,
                        }
                    }
                    executed += 1;
                }
                _ => {}
            }
        }
        // What another request may execute is found out by a look, at the latest when it ends its
        // transaction.
        let later = |bound: &&Bound| {
            let effects = bound.effects.as_deref();
            !bound.executed && effects.is_none_or(|all| all.iter().any(|e| *e != Effect::None))
        };
        for bound in portals.iter().filter(later) {
            session.suspect = true;
            if let Some(text) = &bound.text {
                session.untold.see_statements(text, lexing, None);
            }
        }
        resolved.rewind();
    }

    /// A statement was completed with this command tag.
    pub fn completed(&mut self, command: &[u8], session: &mut Session, backend: &mut Backend) {
        let index = self.completed;
        self.completed += 1;
        while self.waiting.front().is_some_and(|(at, _)| *at <= index) {
            if let Some((_, effect)) = self.waiting.pop_front() {
                self.discarded |= effect == Effect::DiscardAll;
                apply(&effect, command, self.restored, session, backend);
            }
        }
    }

    /// An error was answered.
    pub fn failed(&mut self) {
        self.failed = true;
        self.waiting.clear();
    }

    /// ReadyForQuery has come.
    pub fn ready(&mut self, status: Status, session: &mut Session, backend: &mut Backend) {
        let visit = session.visit.take();
        session.transaction.ready(status, visit);
        if status == Status::Idle {
            session.transaction_ended(!self.failed);
            if self.left_reset() {
                backend.settings = Some(Arc::default());
            } else if let Some(known) = &mut backend.settings {
                known.clone_from(session.settings.current());
            }
        }
        session.settle();
        self.clear();
    }
}

/// Notes what settings the texts of extended messages may change out of sight.
pub fn see_extended(
    frames: &[u8],
    session: &mut Session,
    resolved: &mut Resolved,
    catalogue: Option<&Catalogue>,
) {
    let lexing = session.lexing;
    // As the request found it, until it parses another.
    let mut unnamed = resolved.unnamed(session).text().map(<[u8]>::to_vec);
    let mut at = 0;
    while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
        let Some(body) = frames.get(at + HEADER..at + header.len) else {
            break;
        };
        at += header.len;
        match header.tag {
            tag::PARSE => {
                let Ok(parse) = Parse::read(body) else { break };
                session.untold.see_statements(parse.text, lexing, catalogue);
                if parse.name.is_empty() {
                    unnamed = None;
                } else {
                    let _named = resolved.resolve();
                }
            }
            tag::BIND => {
                let Ok(bind) = Bind::read(body) else { break };
                if bind.statement.is_empty() {
                    if let Some(text) = &unnamed {
                        session.untold.see_statements(text, lexing, catalogue);
                    }
                } else if let Some(named) = resolved.resolve() {
                    session
                        .untold
                        .see_statements(named.text(), lexing, catalogue);
                }
            }
            tag::DESCRIBE | tag::CLOSE
                if body.first() == Some(&b'S') && body.get(1).is_some_and(|&b| b != 0) =>
            {
                let _named = resolved.resolve();
            }
            _ => {}
        }
    }
    resolved.rewind();
}

fn effects_of(text: Option<&[u8]>, lexing: Lexing, bind: &Bind<'_>) -> Option<Vec<Effect>> {
    match text {
        Some(text) => sql::effects_bound(text, lexing, &bind.parameters().ok()?),
        None => Some(Vec::new()),
    }
}

fn apply(
    effect: &Effect,
    command: &[u8],
    restored: bool,
    session: &mut Session,
    backend: &mut Backend,
) {
    // The server goes back to its own default, the session to its startup packet's.
    if !restored && !session.settings.base().restore(effect).is_empty() {
        backend.settings = None;
        session.suspect = true;
    }
    match effect {
        Effect::Set { name, value, scope } => {
            session.settings.set(name, value, *scope);
        }
        Effect::SessionCharacteristics(modes) => characteristics(*modes, session),
        Effect::ResetAll => {
            session.settings.reset_all();
            session.pins.remove(Pin::Setting);
        }
        // A COMMIT of a failed transaction is answered ROLLBACK.
        Effect::Commit { .. } => session.transaction_ended(command != b"ROLLBACK"),
        Effect::Rollback { .. } => session.transaction_ended(false),
        Effect::Savepoint(name) => {
            session.settings.savepoint(name);
            session.own.savepoint(name);
        }
        Effect::RollbackTo(name) => {
            session.settings.rollback_to(name);
            session.own.rollback_to(name);
        }
        Effect::Release(name) => {
            session.settings.release(name);
            session.own.release(name);
        }
        Effect::DiscardAll => {
            session.settings.discard_all();
            session.pins.discarded();
            deallocate_all(session, backend);
            session.suspect = true;
        }
        Effect::Deallocate(None) => deallocate_all(session, backend),
        Effect::Deallocate(Some(name)) => {
            session.names().remove(name.as_bytes());
            backend.prepared.unname(name.as_bytes());
        }
        Effect::Prepare { name, text, body } => {
            let reading = session.reads(text);
            let named = Named::from_sql(text, *body, reading);
            backend.prepared.defined(name.as_bytes(), named.clone());
            session.names().define(name.as_bytes(), named);
        }
        Effect::DiscardSequences => session.pins.remove(Pin::Sequence),
        Effect::Load => {
            session.pending.add(Pin::Library);
            session.suspect = true;
        }
        Effect::DiscardPart
        | Effect::Listen
        | Effect::Unlisten
        | Effect::Declare { hold: true }
        | Effect::CloseCursor => session.suspect = true,
        Effect::None
        | Effect::SetTransaction(_)
        | Effect::Begin(_)
        | Effect::Execute(_)
        | Effect::Declare { hold: false }
        | Effect::OwnSet { .. }
        | Effect::OwnShow(_) => {}
    }
}

fn deallocate_all(session: &mut Session, backend: &mut Backend) {
    if let Some(names) = session.known_names() {
        names.clear();
    }
    backend.prepared.clear();
}

fn characteristics(modes: Begin, session: &mut Session) {
    let mut set = |name: &str, value: &str| {
        session
            .settings
            .set(name, &SettingValue::Sql(value.into()), Scope::Session);
    };
    let on_off = |on| if on { "on" } else { "off" };
    if let Some(read_only) = modes.read_only {
        set("default_transaction_read_only", on_off(read_only));
    }
    if let Some(deferrable) = modes.deferrable {
        set("default_transaction_deferrable", on_off(deferrable));
    }
    if let Some(isolation) = modes.isolation {
        set(
            "default_transaction_isolation",
            match isolation {
                Isolation::ReadUncommitted => "'read uncommitted'",
                Isolation::ReadCommitted => "'read committed'",
                Isolation::RepeatableRead => "'repeatable read'",
                Isolation::Serializable => "serializable",
            },
        );
    }
}

/// The session's state when its server connection is gone: an open transaction is lost.
pub fn server_lost(session: &mut Session) {
    session.transaction_ended(false);
    session.transaction.lost();
    session.visit = None;
    session.unsynced = false;
    session.pins = super::Pins::default();
    session.suspect = false;
    session.undo();
}
