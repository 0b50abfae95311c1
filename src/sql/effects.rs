//! What the statements of a text do to the session, read by the lexer alone.
//!
//! An effect holds once its statement has succeeded. A statement that the server will refuse may
//! have any effect or none.

mod set;
mod set_config;
mod transaction;

pub(super) use set_config::is_told;
pub use set_config::{Bound, MOST_NAMES, Untold};

pub(super) use set::{Setting, setting_name};

use super::{
    Effect, Lexing,
    lexer::{self, Cursor, TokenKind},
};

/// The effects of a text: one for each of its statements (see [`lexer::statements`]), in order.
/// `None`: it can't be told from the text; look at the backend instead.
#[must_use]
pub fn effects(text: &[u8], lexing: Lexing) -> Option<Vec<Effect>> {
    effects_bound(text, lexing, &[])
}

/// The same of a text whose parameters are these.
#[must_use]
pub fn effects_bound(text: &[u8], lexing: Lexing, bound: &Bound<'_>) -> Option<Vec<Effect>> {
    let statements = lexer::statements(text, lexing)?;
    if let [range] = statements.as_slice() {
        let only = effect_bound(text.get(range.clone())?, lexing, bound)?;
        return Some(vec![match only {
            // Kept as it was sent, as PostgreSQL does.
            Effect::Prepare { name, body, .. } => Effect::Prepare {
                name,
                text: text.into(),
                body: range.start + body,
            },
            other => other,
        }]);
    }
    statements
        .into_iter()
        .map(|range| effect(text.get(range)?, lexing))
        .collect()
}

/// Every statement of the text is nothing but calls of `set_config` for its transaction: `SELECT
/// set_config(…, …, true), …`, of literals and parameters.
#[must_use]
pub fn sets_only_local(text: &[u8], lexing: Lexing) -> bool {
    let statements = lexer::statements(text, lexing).unwrap_or_default();
    !statements.is_empty()
        && statements.into_iter().all(|range| {
            let statement = text.get(range).unwrap_or_default();
            set::is_local_config(statement, lexing)
        })
}

/// The effect of one statement.
pub(super) fn effect(statement: &[u8], lexing: Lexing) -> Option<Effect> {
    effect_bound(statement, lexing, &[])
}

fn effect_bound(statement: &[u8], lexing: Lexing, bound: &Bound<'_>) -> Option<Effect> {
    let mut cursor = Cursor::new(statement, lexing);
    let at = &mut cursor;
    if !at.at(TokenKind::Word) {
        return query(statement, lexing, bound);
    }
    let first = at.bytes().to_ascii_lowercase();
    at.take();
    match first.as_slice() {
        b"set" => set::set(at, lexing),
        b"reset" => set::reset(at),
        b"show" => set::show(at),
        b"begin" => Some(transaction::begin(at)),
        b"start" => Some(transaction::start(at)),
        b"commit" | b"end" => Some(transaction::commit(at)),
        b"rollback" | b"abort" => transaction::rollback(at, first == b"rollback"),
        b"savepoint" => named(at, Effect::Savepoint),
        b"release" => {
            let mut ahead = at.clone();
            if ahead.word("savepoint") && !ahead.done() {
                *at = ahead;
            }
            named(at, Effect::Release)
        }
        b"prepare" => prepare(statement, at, lexing),
        b"execute" => Some(Effect::Execute(at.name()?.into())),
        b"deallocate" => deallocate(at),
        b"discard" => Some(discard(at)),
        b"listen" => Some(Effect::Listen),
        b"load" => Some(Effect::Load),
        b"unlisten" => Some(Effect::Unlisten),
        b"declare" => Some(declare(at)),
        b"close" => Some(Effect::CloseCursor),
        b"explain" => explain(at),
        b"create" => create(at),
        _ => query(statement, lexing, bound),
    }
}

/// A statement that is nothing but its name.
fn named(at: &mut Cursor<'_>, effect: fn(Box<str>) -> Effect) -> Option<Effect> {
    if at.done() {
        return Some(Effect::None);
    }
    let name = at.name()?;
    Some(if at.done() {
        effect(name.into())
    } else {
        Effect::None
    })
}

fn prepare(statement: &[u8], at: &mut Cursor<'_>, lexing: Lexing) -> Option<Effect> {
    let mut ahead = at.clone();
    if ahead.word("transaction") && ahead.string(lexing).is_some() {
        return Some(Effect::Commit { chain: false });
    }
    let name = at.name()?.into();
    at.group();
    if !at.word("as") {
        return Some(Effect::None);
    }
    Some(at.peek().map_or(Effect::None, |first| Effect::Prepare {
        name,
        text: statement.into(),
        body: first.start,
    }))
}

fn deallocate(at: &mut Cursor<'_>) -> Option<Effect> {
    let mut ahead = at.clone();
    if ahead.word("prepare") && !ahead.done() {
        *at = ahead;
    }
    if at.word("all") {
        return Some(Effect::Deallocate(None));
    }
    Some(Effect::Deallocate(Some(at.name()?.into())))
}

fn discard(at: &mut Cursor<'_>) -> Effect {
    match at.one_of(&["all", "plans", "sequences", "temp", "temporary"]) {
        Some("all") => Effect::DiscardAll,
        Some("sequences") => Effect::DiscardSequences,
        Some(_) => Effect::DiscardPart,
        None => Effect::None,
    }
}

fn declare(at: &mut Cursor<'_>) -> Effect {
    // The name, which may be any word.
    at.take();
    while !at.done() && !at.word("cursor") {
        at.take();
    }
    if at.done() {
        return Effect::None;
    }
    Effect::Declare {
        hold: at.words(&["with", "hold"]),
    }
}

/// EXPLAIN … EXECUTE needs the prepared statement, too. ANALYZE runs what it explains.
fn explain(at: &mut Cursor<'_>) -> Option<Effect> {
    at.group();
    while at.one_of(&["analyze", "analyse", "verbose"]).is_some() {}
    if at.word("execute") {
        return Some(Effect::Execute(at.name()?.into()));
    }
    (!set::mentions_set_config(at.clone())).then_some(Effect::None)
}

/// CREATE TABLE … AS EXECUTE name.
fn create(at: &mut Cursor<'_>) -> Option<Effect> {
    while !at.done() {
        if at.words(&["as", "execute"]) {
            return Some(Effect::Execute(at.name()?.into()));
        }
        if !at.group() {
            at.take();
        }
    }
    Some(Effect::None)
}

/// Any other statement: only `set_config` can be told.
fn query(statement: &[u8], lexing: Lexing, bound: &Bound<'_>) -> Option<Effect> {
    if !set::mentions_set_config(Cursor::new(statement, lexing)) {
        return Some(Effect::None);
    }
    set_config::set_config(statement, lexing, bound)
}

#[cfg(test)]
mod tests;
