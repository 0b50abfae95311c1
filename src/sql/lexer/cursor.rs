//! Reading the tokens of one statement from left to right.

use super::{Lexer, Token, TokenKind, identifier, string_value};
use crate::sql::Lexing;

/// A position between two tokens. Cheap to copy: a reader may look ahead on a copy.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    lexer: Lexer<'a>,
    next: Option<Token>,
    /// Where the last token that was taken ends.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first token of `text`.
    pub(crate) fn new(text: &'a [u8], lexing: Lexing) -> Self {
        let mut lexer = Lexer::new(text, lexing);
        let next = lexer.next();
        Self {
            lexer,
            next,
            end: 0,
        }
    }

    /// The next token, which stays the next.
    pub(crate) fn peek(&self) -> Option<Token> {
        self.next
    }

    /// Takes the next token.
    pub(crate) fn take(&mut self) -> Option<Token> {
        let token = self.next?;
        self.next = self.lexer.next();
        self.end = token.end;
        Some(token)
    }

    /// Nothing is left.
    pub(crate) fn done(&self) -> bool {
        self.next.is_none()
    }

    /// The next token's bytes; empty at the end.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.next
            .map_or(&[], |token| token.bytes(self.lexer.text()))
    }

    /// The next token is the unquoted `word` (given in lower case).
    pub(crate) fn at_word(&self, word: &str) -> bool {
        self.next.is_some_and(|t| t.kind == TokenKind::Word)
            && self.bytes().eq_ignore_ascii_case(word.as_bytes())
    }

    /// Takes `word` if it is next.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.take();
        }
        found
    }

    /// Takes all of `words` if they are next, else none of them.
    pub(crate) fn words(&mut self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        let found = words.iter().all(|word| ahead.word(word));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes the one of `words` that is next, if any.
    pub(crate) fn one_of<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        words.iter().copied().find(|word| self.word(word))
    }

    /// The next token is of this kind.
    pub(crate) fn at(&self, kind: TokenKind) -> bool {
        self.next.is_some_and(|t| t.kind == kind)
    }

    /// Takes the next token if it is of this kind.
    pub(crate) fn punct(&mut self, kind: TokenKind) -> bool {
        let found = self.at(kind);
        if found {
            self.take();
        }
        found
    }

    /// The next token is this operator.
    pub(crate) fn at_operator(&self, operator: &str) -> bool {
        self.at(TokenKind::Operator) && self.bytes() == operator.as_bytes()
    }

    /// Takes `operator` if it is next.
    pub(crate) fn operator(&mut self, operator: &str) -> bool {
        let found = self.at_operator(operator);
        if found {
            self.take();
        }
        found
    }

    /// Takes a name, as the server folds it. `None`, taking nothing: no name is next, or it can't
    /// be told which.
    pub(crate) fn name(&mut self) -> Option<String> {
        let token = self.next?;
        let name = identifier(self.lexer.text(), token)?;
        let mut ahead = self.clone();
        ahead.take();
        if token.kind == TokenKind::UnicodeQuoted && ahead.at_word("uescape") {
            return None;
        }
        *self = ahead;
        Some(name)
    }

    /// Takes a string constant and gives its value; `None`, taking nothing, as in [`Self::name`].
    pub(crate) fn string(&mut self, lexing: Lexing) -> Option<String> {
        let token = self.next?;
        let value = string_value(self.lexer.text(), token, lexing)?;
        let mut ahead = self.clone();
        ahead.take();
        if token.kind == TokenKind::UnicodeString && ahead.at_word("uescape") {
            return None;
        }
        *self = ahead;
        Some(value)
    }

    /// Passes a parenthesised group, nested ones included. False, taking nothing: none is next, or
    /// it isn't closed.
    pub(crate) fn group(&mut self) -> bool {
        if !self.at(TokenKind::LeftParen) {
            return false;
        }
        let mut ahead = self.clone();
        let mut depth = 0_usize;
        while let Some(token) = ahead.take() {
            match token.kind {
                TokenKind::LeftParen => depth += 1,
                TokenKind::RightParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                *self = ahead;
                return true;
            }
        }
        false
    }
}
