//! Finds every name and operator that could run something, by its place among the tokens alone.
//!
//! Deliberately sees too much rather than too little: it doesn't rest on a grammar, so no syntax
//! that a parser misreads can hide a call from it.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use sqlparser::keywords::Keyword;

use super::{keyword::Role, token::Tokens};
use crate::sql::lexer::TokenKind;

/// A name and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'t> {
    /// Its place among the tokens.
    pub(crate) at: usize,
    /// Folded.
    pub(crate) name: &'t [u8],
    /// A parenthesis follows.
    pub(crate) call: Call,
    /// The name before the point before it.
    pub(crate) qualifier: Option<&'t [u8]>,
    /// A point precedes it: a column, an attribute (which may be a function), or qualified.
    pub(crate) after_point: bool,
    /// Only a type can stand here.
    pub(crate) type_only: bool,
    /// AS precedes it: a label or a type.
    pub(crate) label: bool,
}

/// Whether a name is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    No,
    /// Nothing else could be meant.
    Yes,
    /// Or it is an alias with column names, a common table expression, a type with a modifier,
    /// grammar: a name that no function has is no call.
    Perhaps,
}

/// What else a statement's words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// INSERT, UPDATE, DELETE, MERGE.
    Write,
    /// INTO.
    Into,
    /// FOR UPDATE, FOR SHARE, …
    Lock,
}

/// Hears what a scan finds.
pub(crate) trait Sink {
    fn name(&mut self, named: Named<'_>);
    /// `spelled`: the operator itself stands there, not a word that implies it.
    fn operator(&mut self, operator: &[u8], spelled: bool);
    fn mark(&mut self, mark: Mark);
}

/// Tells `sink` of everything in `tokens` from `start` on.
pub(crate) fn scan(tokens: &Tokens<'_>, start: usize, sink: &mut impl Sink) {
    let mut types = TypePlaces::default();
    for at in start..tokens.len() {
        match tokens.kind(at) {
            Some(TokenKind::Word) => {
                word(tokens, at, &mut types, sink);
            }
            Some(TokenKind::Quoted | TokenKind::UnicodeQuoted) => name(tokens, at, &types, sink),
            Some(TokenKind::Cast) => types.expect(tokens, at + 1),
            Some(TokenKind::Operator) => {
                let operator = tokens.operator(at);
                if operator != b"*" || !is_wildcard(tokens, at) {
                    sink.operator(operator, true);
                }
            }
            _ => {}
        }
    }
}

/// Where only a type can stand.
#[derive(Default)]
struct TypePlaces(HashSet<usize, FixedState>);

impl TypePlaces {
    /// A type's name, perhaps qualified, begins at `at`.
    fn expect(&mut self, tokens: &Tokens<'_>, mut at: usize) {
        while tokens.is(at + 1, TokenKind::Dot) && tokens.is_name(at + 2) {
            at += 2;
        }
        if tokens.role(at) == Role::Name {
            self.0.insert(at);
        }
    }
}

fn word(tokens: &Tokens<'_>, at: usize, types: &mut TypePlaces, sink: &mut impl Sink) {
    let after_point = at > 0 && tokens.is(at - 1, TokenKind::Dot);
    let label = at > 0 && tokens.keyword(at - 1) == Keyword::AS;
    match tokens.role(at) {
        Role::Name => return name(tokens, at, types, sink),
        _ if after_point || label => return name(tokens, at, types, sink),
        Role::Soft | Role::TypeFunction | Role::TypeName | Role::Value => {
            name(tokens, at, types, sink);
        }
        Role::Reserved | Role::CallLike | Role::None => {}
    }
    grammar(tokens, at, types, sink);
}

/// What a keyword at `at` means if it is grammar.
fn grammar(tokens: &Tokens<'_>, at: usize, types: &mut TypePlaces, sink: &mut impl Sink) {
    match tokens.keyword(at) {
        Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE | Keyword::MERGE => {
            let begins = at == 0
                || matches!(
                    tokens.kind(at - 1),
                    Some(TokenKind::LeftParen | TokenKind::RightParen)
                );
            if begins {
                sink.mark(Mark::Write);
            }
        }
        Keyword::INTO => sink.mark(Mark::Into),
        Keyword::FOR => {
            if matches!(
                tokens.keyword(at + 1),
                Keyword::UPDATE | Keyword::SHARE | Keyword::NO | Keyword::KEY
            ) {
                sink.mark(Mark::Lock);
            }
        }
        Keyword::CAST | Keyword::TREAT if tokens.is(at + 1, TokenKind::LeftParen) => {
            if let Some(place) = cast_type(tokens, at + 1) {
                types.expect(tokens, place);
            }
        }
        Keyword::IN | Keyword::NULLIF | Keyword::CASE | Keyword::USING | Keyword::NATURAL => {
            sink.operator(b"=", false);
        }
        Keyword::GROUP
        | Keyword::ORDER
        | Keyword::DISTINCT
        | Keyword::UNION
        | Keyword::INTERSECT
        | Keyword::EXCEPT
        | Keyword::BETWEEN
        | Keyword::PARTITION
        | Keyword::LEAST
        | Keyword::OVERLAPS
        | Keyword::RANGE => {
            for operator in [&b"="[..], b"<", b">", b"<=", b">="] {
                sink.operator(operator, false);
            }
        }
        Keyword::LIKE => {
            sink.operator(b"~~", false);
            sink.operator(b"!~~", false);
        }
        Keyword::ILIKE => {
            sink.operator(b"~~*", false);
            sink.operator(b"!~~*", false);
        }
        Keyword::SIMILAR => {
            sink.operator(b"~", false);
            sink.operator(b"!~", false);
        }
        _ if tokens.word(at, "greatest") => {
            sink.operator(b"<", false);
            sink.operator(b">", false);
        }
        _ => {}
    }
}

/// Where the type begins in `CAST (… AS type)`, whose parenthesis opens at `open`.
pub(super) fn cast_type(tokens: &Tokens<'_>, open: usize) -> Option<usize> {
    let mut at = tokens.partner(open);
    while at > open + 1 {
        at -= 1;
        match tokens.kind(at) {
            Some(TokenKind::RightParen | TokenKind::RightBracket) => at = tokens.partner(at),
            Some(TokenKind::Word) if tokens.keyword(at) == Keyword::AS => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn name(tokens: &Tokens<'_>, at: usize, types: &TypePlaces, sink: &mut impl Sink) {
    let after_point = at > 0 && tokens.is(at - 1, TokenKind::Dot);
    let before = if after_point { at.checked_sub(2) } else { None };
    let label = at > 0 && tokens.keyword(at - 1) == Keyword::AS && !after_point;
    // Only a type's name can stand right before a string.
    let literal = tokens.is_string(at + 1) && tokens.role(at) == Role::Name;
    sink.name(Named {
        at,
        name: tokens.name(at),
        call: call(tokens, at, after_point),
        qualifier: before
            .filter(|&b| tokens.is_name(b))
            .map(|b| tokens.name(b)),
        after_point,
        type_only: literal || types.0.contains(&at),
        label,
    });
}

fn call(tokens: &Tokens<'_>, at: usize, after_point: bool) -> Call {
    if !tokens.is(at + 1, TokenKind::LeftParen) {
        return Call::No;
    }
    if after_point {
        let first = first_part(tokens, at);
        let target = first > 0 && tokens.keyword(first - 1) == Keyword::INTO;
        return if target { Call::Perhaps } else { Call::Yes };
    }
    if tokens.role(at) != Role::Name {
        return Call::Perhaps;
    }
    let Some(before) = at.checked_sub(1) else {
        return Call::Perhaps;
    };
    // `INSERT INTO t (…)` is no call either.
    let alias = tokens.role(before) == Role::Name
        || tokens.is(before, TokenKind::RightParen)
        || matches!(tokens.keyword(before), Keyword::AS | Keyword::INTO);
    if alias || is_cte(tokens, at) {
        Call::Perhaps
    } else {
        Call::Yes
    }
}

/// Where the qualified name begins whose last part stands at `at`.
fn first_part(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut first = at;
    // Catalogue, schema and name; more parts are no name.
    for _ in 0..3 {
        if first >= 2 && tokens.is(first - 1, TokenKind::Dot) && tokens.is_name(first - 2) {
            first -= 2;
        }
    }
    first
}

/// A common table expression's name stands at `at`: `name [(…)] AS [[NOT] MATERIALIZED] (`.
pub(super) fn is_cte(tokens: &Tokens<'_>, at: usize) -> bool {
    let mut next = at + 1;
    if tokens.is(next, TokenKind::LeftParen) {
        next = tokens.partner(next) + 1;
    }
    if tokens.keyword(next) != Keyword::AS {
        return false;
    }
    next += 1;
    if tokens.keyword(next) == Keyword::NOT {
        next += 1;
    }
    if tokens.keyword(next) == Keyword::MATERIALIZED {
        next += 1;
    }
    tokens.is(next, TokenKind::LeftParen)
}

/// Of a `*` at `at`: nothing that could be multiplied follows, so it stands for columns.
pub(super) fn is_wildcard(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.is(at + 1, TokenKind::Comma) || list_ends(tokens, at + 1)
}

/// What stands at `at` ends a SELECT's list, or the statement.
pub(super) fn list_ends(tokens: &Tokens<'_>, at: usize) -> bool {
    match tokens.kind(at) {
        None | Some(TokenKind::RightParen) => true,
        Some(TokenKind::Word) => matches!(
            tokens.keyword(at),
            Keyword::FROM
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::WINDOW
                | Keyword::ORDER
                | Keyword::LIMIT
                | Keyword::OFFSET
                | Keyword::FETCH
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::INTO
                | Keyword::FOR
        ),
        _ => false,
    }
}
