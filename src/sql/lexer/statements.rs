//! Where statements begin and end.

use std::ops::Range;

use super::{Lexer, Token, TokenKind};
use crate::sql::Lexing;

/// The statements of a text, empty ones left out: each from its first token to its last, without
/// the semicolon. `None`: the text can't be read.
///
/// Semicolons in parentheses (CREATE RULE … DO (…; …)) and in the body of a function or procedure
/// (BEGIN ATOMIC … END) don't end a statement.
#[must_use]
pub fn statements(text: &[u8], lexing: Lexing) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut current: Option<Range<usize>> = None;
    let mut depth = Depth::default();
    for token in Lexer::new(text, lexing) {
        if token.kind == TokenKind::Error {
            return None;
        }
        let inside = depth.pass(text, token);
        if token.kind == TokenKind::Semicolon && !inside {
            found.extend(current.take());
            depth = Depth::default();
            continue;
        }
        match &mut current {
            Some(range) => range.end = token.end,
            None => current = Some(token.range()),
        }
    }
    found.extend(current);
    Some(found)
}

/// What a token of a statement is within.
#[derive(Default)]
struct Depth {
    parens: usize,
    /// BEGIN ATOMIC and, within it, CASE that wait for their END.
    blocks: usize,
    /// CREATE [OR REPLACE] FUNCTION or PROCEDURE: how far these words have been read.
    routine: Routine,
    /// What the last token was.
    last: Last,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Routine {
    #[default]
    Start,
    Create,
    Or,
    Replace,
    Yes,
    No,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Last {
    Begin,
    /// AS or a point: the next word is a name, whichever it is.
    BeforeName,
    #[default]
    Other,
}

impl Depth {
    /// Reads on; says whether `token` is within parentheses or a body.
    fn pass(&mut self, text: &[u8], token: Token) -> bool {
        match token.kind {
            TokenKind::LeftParen => self.parens += 1,
            TokenKind::RightParen => self.parens = self.parens.saturating_sub(1),
            _ => {}
        }
        self.word(text, token);
        self.parens > 0 || self.blocks > 0
    }

    fn word(&mut self, text: &[u8], token: Token) {
        let is = |word: &str| {
            token.kind == TokenKind::Word && token.bytes(text).eq_ignore_ascii_case(word.as_bytes())
        };
        self.routine = match self.routine {
            Routine::Start if is("create") => Routine::Create,
            Routine::Create if is("or") => Routine::Or,
            Routine::Or if is("replace") => Routine::Replace,
            Routine::Create | Routine::Replace if is("function") || is("procedure") => Routine::Yes,
            Routine::Yes => Routine::Yes,
            _ => Routine::No,
        };
        if self.routine != Routine::Yes {
            return;
        }
        let last = std::mem::take(&mut self.last);
        if last == Last::BeforeName {
            return;
        }
        if self.blocks == 0 {
            if last == Last::Begin && is("atomic") && self.parens == 0 {
                self.blocks = 1;
            }
        } else if is("case") {
            self.blocks += 1;
        } else if is("end") {
            self.blocks -= 1;
        }
        if is("begin") {
            self.last = Last::Begin;
        } else if is("as") || token.kind == TokenKind::Dot {
            self.last = Last::BeforeName;
        }
    }
}
