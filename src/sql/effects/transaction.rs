//! BEGIN, COMMIT and the like.

use crate::sql::{
    Begin, Effect, Isolation,
    lexer::{Cursor, TokenKind},
};

/// Behind BEGIN.
pub(super) fn begin(at: &mut Cursor<'_>) -> Effect {
    at.one_of(&["work", "transaction"]);
    modes(at, Begin::default()).map_or(Effect::None, Effect::Begin)
}

/// Behind START.
pub(super) fn start(at: &mut Cursor<'_>) -> Effect {
    if !at.word("transaction") {
        return Effect::None;
    }
    let start = Begin {
        start: true,
        ..Begin::default()
    };
    modes(at, start).map_or(Effect::None, Effect::Begin)
}

/// Behind COMMIT or END. COMMIT PREPARED doesn't concern the session.
pub(super) fn commit(at: &mut Cursor<'_>) -> Effect {
    at.one_of(&["work", "transaction"]);
    chain(at).map_or(Effect::None, |chain| Effect::Commit { chain })
}

/// Behind ROLLBACK or ABORT; only the former has TO SAVEPOINT.
pub(super) fn rollback(at: &mut Cursor<'_>, may_name: bool) -> Option<Effect> {
    at.one_of(&["work", "transaction"]);
    if may_name && at.word("to") {
        let mut ahead = at.clone();
        if ahead.word("savepoint") && !ahead.done() {
            *at = ahead;
        }
        return super::named(at, Effect::RollbackTo);
    }
    Some(chain(at).map_or(Effect::None, |chain| Effect::Rollback { chain }))
}

/// `[AND [NO] CHAIN]` to the end; `None`: something else.
fn chain(at: &mut Cursor<'_>) -> Option<bool> {
    let chain = if at.word("and") {
        let no = at.word("no");
        at.word("chain").then_some(!no)?
    } else {
        false
    };
    at.done().then_some(chain)
}

/// Transaction modes to the end, in any order, commas between them optional; the last of a kind
/// holds. `None`: something else.
pub(super) fn modes(at: &mut Cursor<'_>, mut begin: Begin) -> Option<Begin> {
    let mut first = true;
    while !at.done() {
        if !first {
            at.punct(TokenKind::Comma);
        }
        first = false;
        if at.words(&["isolation", "level"]) {
            begin.isolation = Some(isolation(at)?);
        } else if at.words(&["read", "only"]) {
            begin.read_only = Some(true);
        } else if at.words(&["read", "write"]) {
            begin.read_only = Some(false);
        } else if at.word("deferrable") {
            begin.deferrable = Some(true);
        } else if at.words(&["not", "deferrable"]) {
            begin.deferrable = Some(false);
        } else {
            return None;
        }
    }
    Some(begin)
}

fn isolation(at: &mut Cursor<'_>) -> Option<Isolation> {
    if at.word("serializable") {
        Some(Isolation::Serializable)
    } else if at.words(&["repeatable", "read"]) {
        Some(Isolation::RepeatableRead)
    } else if at.words(&["read", "committed"]) {
        Some(Isolation::ReadCommitted)
    } else if at.words(&["read", "uncommitted"]) {
        Some(Isolation::ReadUncommitted)
    } else {
        None
    }
}
