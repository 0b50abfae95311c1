//! Looks ahead: what the tokens from a place on are. Nothing is written here.

use sqlparser::keywords::Keyword;

use super::{
    super::{keyword::Role, token::Tokens},
    LONGEST_GROUP,
};
use crate::sql::lexer::TokenKind;

/// Words that stand for grammar in their place only.
pub(super) fn is_keyword_here(tokens: &Tokens<'_>, at: usize) -> bool {
    let next = |offset: usize| tokens.keyword(at + offset);
    let paren = tokens.is(at + 1, TokenKind::LeftParen);
    let before = at
        .checked_sub(1)
        .map_or(Keyword::NoKeyword, |b| tokens.keyword(b));
    if tokens.role(at) == Role::CallLike {
        return false;
    }
    if tokens.role(at) == Role::TypeFunction {
        // left(…), right(…), like(…)
        return !(paren && matches!(tokens.keyword(at), Keyword::LEFT | Keyword::RIGHT));
    }
    if tokens.role(at) != Role::Soft {
        return true;
    }
    match tokens.keyword(at) {
        Keyword::BY => matches!(before, Keyword::GROUP | Keyword::ORDER | Keyword::PARTITION),
        Keyword::OVER => paren || tokens.is_name(at + 1),
        Keyword::FILTER | Keyword::CUBE | Keyword::ROLLUP => paren,
        Keyword::WITHIN => next(1) == Keyword::GROUP,
        Keyword::SETS => tokens.word(at.saturating_sub(1), "grouping"),
        Keyword::PARTITION => next(1) == Keyword::BY,
        Keyword::MATERIALIZED => matches!(before, Keyword::AS | Keyword::NOT),
        Keyword::RECURSIVE | Keyword::ORDINALITY | Keyword::TIES => before == Keyword::WITH,
        Keyword::NULLS => matches!(next(1), Keyword::FIRST | Keyword::LAST),
        Keyword::FIRST | Keyword::NEXT | Keyword::LAST => {
            matches!(before, Keyword::FETCH | Keyword::NULLS)
        }
        Keyword::UNBOUNDED => matches!(next(1), Keyword::PRECEDING | Keyword::FOLLOWING),
        Keyword::PRECEDING | Keyword::FOLLOWING => at > 0,
        Keyword::ROWS | Keyword::RANGE | Keyword::GROUPS => {
            frame(tokens, at) || tokens.keyword(at) == Keyword::ROWS && fetches(tokens, at)
        }
        Keyword::CURRENT => tokens.word(at + 1, "row"),
        Keyword::ESCAPE => true,
        _ => false,
    }
}

/// ROWS, RANGE or GROUPS at `at` begins a window's frame.
pub(super) fn frame(tokens: &Tokens<'_>, at: usize) -> bool {
    matches!(
        tokens.keyword(at + 1),
        Keyword::BETWEEN | Keyword::UNBOUNDED | Keyword::CURRENT
    ) || matches!(
        tokens.keyword(at + 2),
        Keyword::PRECEDING | Keyword::FOLLOWING
    ) || tokens.word(at + 1, "interval")
}

/// ROWS at `at` belongs to FETCH FIRST or OFFSET.
pub(super) fn fetches(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.word(at + 1, "only")
        || tokens.keyword(at + 1) == Keyword::WITH
        || tokens.keyword(at.saturating_sub(2)) == Keyword::OFFSET
}

/// `(a int, b text)` or `(a, b)` at `open`, as it follows an alias: names, types, modifiers.
/// Of `(a, b)` only where the first name is followed by a type: plain lists stay.
pub(super) fn is_definition_list(tokens: &Tokens<'_>, open: usize) -> bool {
    let close = tokens.partner(open);
    let typed = tokens.is_name(open + 1)
        && matches!(tokens.role(open + 1), Role::Name | Role::Soft)
        && tokens.is_name(open + 2)
        && matches!(
            tokens.role(open + 2),
            Role::Name | Role::TypeName | Role::Soft
        );
    typed
        && close - open < LONGEST_GROUP
        && (open + 1..close).all(|i| match tokens.kind(i) {
            Some(TokenKind::Word) => {
                tokens.role(i) != Role::Reserved
                    || matches!(
                        tokens.keyword(i),
                        Keyword::COLLATE | Keyword::WITH | Keyword::ARRAY
                    )
            }
            Some(
                TokenKind::Quoted
                | TokenKind::UnicodeQuoted
                | TokenKind::Comma
                | TokenKind::Dot
                | TokenKind::Integer
                | TokenKind::LeftParen
                | TokenKind::RightParen
                | TokenKind::LeftBracket
                | TokenKind::RightBracket,
            ) => true,
            _ => false,
        })
}

pub(super) fn is_constant(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.is_string(at)
        || matches!(
            tokens.kind(at),
            Some(
                TokenKind::Integer
                    | TokenKind::Decimal
                    | TokenKind::Param
                    | TokenKind::Bits
                    | TokenKind::HexBits
            )
        )
}

/// Behind the type's name that begins at `at`, with modifiers and array bounds.
pub(super) fn type_end(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut end = at;
    if tokens.word(end, "setof") {
        end += 1;
    }
    let first = end;
    end += 1;
    while tokens.is(end, TokenKind::Dot) {
        end += 2;
    }
    let modifier = |end: &mut usize| {
        if tokens.is(*end, TokenKind::LeftParen) {
            *end = tokens.partner(*end) + 1;
        }
    };
    let name = if tokens.is(first, TokenKind::Word) {
        tokens.name(first)
    } else {
        b""
    };
    match name {
        b"double" if tokens.word(end, "precision") => end += 1,
        b"national" => end += 1,
        _ => {}
    }
    if tokens.word(end, "varying")
        && matches!(
            name,
            b"character" | b"char" | b"bit" | b"national" | b"nchar"
        )
    {
        end += 1;
    }
    modifier(&mut end);
    if matches!(name, b"time" | b"timestamp")
        && (tokens.word(end, "with") || tokens.word(end, "without"))
        && tokens.word(end + 1, "time")
        && tokens.word(end + 2, "zone")
    {
        end += 3;
    }
    if name == b"interval" {
        end = fields_end(tokens, end);
    }
    if tokens.word(end, "array") && end > at {
        end += 1;
    }
    while tokens.is(end, TokenKind::LeftBracket) {
        end = tokens.partner(end) + 1;
    }
    end
}

/// Behind `DAY TO SECOND(3)` and the like, if they stand at `at`.
pub(super) fn fields_end(tokens: &Tokens<'_>, at: usize) -> usize {
    let field = |at: usize| {
        ["year", "month", "day", "hour", "minute", "second"]
            .iter()
            .any(|field| tokens.word(at, field))
    };
    if !field(at) {
        return at;
    }
    let mut end = at + 1;
    if tokens.keyword(end) == Keyword::TO && field(end + 1) {
        end += 2;
    }
    if tokens.is(end, TokenKind::LeftParen) {
        end = tokens.partner(end) + 1;
    }
    end
}
