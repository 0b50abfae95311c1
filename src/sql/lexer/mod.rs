//! A tokenizer written to PostgreSQL's own rules (`src/backend/parser/scan.l` and
//! `src/backend/parser/parser.c`), over bytes, without allocation.
//!
//! Classification rests on it in two ways: the fingerprint is made of its tokens, and the parser
//! (made for many dialects) is believed only where it sees the same statements and words.
//!
//! Invariants:
//! - A token's range lies within the text, is not empty, and tokens don't overlap.
//! - What the server would refuse to tokenize ends in one [`TokenKind::Error`], after which nothing
//!   follows. So does what servers of different versions read differently in a way that matters
//!   (`123abc`), and any byte from 0x80 up in an encoding whose second bytes may look like ASCII.
//! - Comments and white space yield nothing; a comment that is a hint is kept in
//!   [`Lexer::hint`].
//!
//! This module never looks at what a word means, beyond the letters that prefix a quote.

mod cursor;
pub(super) mod eight;
mod names;
pub(super) mod scan;
mod statements;

pub(crate) use cursor::Cursor;
pub(crate) use names::{identifier, string_value};
pub use statements::statements;

use std::ops::Range;

use super::{Hint, Lexing, hint};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A keyword or an identifier that isn't quoted.
    Word,
    /// `"…"`
    Quoted,
    /// `U&"…"`; what it names also depends on a UESCAPE that may follow.
    UnicodeQuoted,
    /// `'…'`, including parts continued on further lines. Backslashes escape when the session's
    /// `standard_conforming_strings` is off.
    String,
    /// `E'…'`
    EscapeString,
    /// `U&'…'`; what it holds also depends on a UESCAPE that may follow.
    UnicodeString,
    /// `N'…'`, a typed literal (NCHAR); otherwise like [`TokenKind::String`].
    NationalString,
    /// `$tag$…$tag$`
    DollarString,
    /// `B'…'`
    Bits,
    /// `X'…'`
    HexBits,
    /// Decimal, hexadecimal, octal or binary digits, perhaps with underscores.
    Integer,
    /// A number with a point or an exponent.
    Decimal,
    /// `$1`
    Param,
    /// One or more of `~!@#^&|?+-*/%<>=` and the backquote.
    Operator,
    LeftParen,
    RightParen,
    LeftBracket,
    RightBracket,
    Comma,
    Semicolon,
    Dot,
    /// `..`
    DotDot,
    Colon,
    /// `::`
    Cast,
    /// `:=`
    Assign,
    /// The rest of the text can't be read.
    Error,
}

/// One token and where it is, in bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// The token's bytes within the text that it was read from.
    #[must_use]
    pub fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }

    /// Where it is.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// The tokens of a text. Cheap to copy: a reader may look ahead on a copy.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    /// What is read: the whole text, or nothing of it once `unreadable` is set.
    rest: &'a [u8],
    at: usize,
    text: &'a [u8],
    /// Backslashes escape in plain strings.
    backslashes: bool,
    /// An error has been found, and is to be reported.
    unreadable: bool,
    hint: Option<Hint>,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from its start.
    #[must_use]
    pub fn new(text: &'a [u8], lexing: Lexing) -> Self {
        let unreadable =
            memchr::memchr(0, text).is_some() || (!lexing.ascii_safe_encoding && !text.is_ascii());
        Self {
            rest: if unreadable { &[] } else { text },
            at: 0,
            text,
            backslashes: !lexing.standard_conforming_strings,
            unreadable,
            hint: None,
        }
    }

    /// The text that tokens' ranges refer to.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// The hint in the comments passed so far; PRIMARY where they disagree.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.hint
    }

    /// Passes white space and comments, to the place that is answered: that of the next token, or
    /// the end. The byte there is NUL at the end and where reading fails.
    #[inline]
    pub(super) fn place(&mut self) -> (usize, u8) {
        loop {
            let first = scan::byte(self.rest, self.at);
            let flags = scan::flags(first);
            if flags & scan::SPACE != 0 {
                self.at += 1;
            } else if flags & scan::COMMENT == 0 || !self.comment(first) {
                return (self.at, first);
            }
        }
    }

    /// Passes the comment that is next, if one is.
    #[inline(never)]
    fn comment(&mut self, first: u8) -> bool {
        let text = self.rest;
        let body = self.at + 2;
        match (first, scan::byte(text, self.at + 1)) {
            (b'-', b'-') => {
                self.at = scan::line_comment_end(text, body);
                true
            }
            (b'/', b'*') => match scan::block_comment_end(text, body) {
                Some(end) => {
                    let body = text.get(body..end - 2).unwrap_or_default();
                    if let Some(found) = hint::of_comment(body) {
                        self.hint = Some(hint::stricter(self.hint, found));
                    }
                    self.at = end;
                    true
                }
                None => {
                    self.fail();
                    true
                }
            },
            _ => false,
        }
    }

    /// Goes on at `at`: what lies before it has been read by the caller.
    #[inline]
    pub(super) fn go_on(&mut self, at: usize) {
        self.at = at;
    }

    /// The token at the place that [`Self::place`] answered.
    #[inline]
    pub(super) fn token(&mut self, start: usize, first: u8) -> Option<Token> {
        let text = self.rest;
        let flags = scan::flags(first);
        let found = if flags & scan::WORD != 0 {
            match scan::prefixed(text, start) {
                Some((kind, contents)) if flags & scan::PREFIX != 0 => {
                    self.prefixed(kind, contents)
                }
                _ => Some((TokenKind::Word, scan::word_end(text, start + 1))),
            }
        } else if flags & scan::SINGLE != 0 {
            Some((scan::single(first), start + 1))
        } else if flags & scan::OPERATOR != 0 {
            Some((TokenKind::Operator, scan::operator_end(text, start)))
        } else if flags & scan::DIGIT != 0 {
            scan::number(text, start)
        } else {
            match first {
                b'"' => scan::quoted_identifier(text, start + 1).map(|e| (TokenKind::Quoted, e)),
                b'\'' => scan::string(text, start + 1, self.backslashes)
                    .map(|end| (TokenKind::String, end)),
                b'$' => scan::dollar(text, start),
                b'.' => scan::dot(text, start),
                b':' => Some(scan::colon(text, start)),
                _ if start >= text.len() => return self.end(),
                _ => None,
            }
        };
        if let Some((kind, end)) = found {
            self.at = end;
            return Some(Token { kind, start, end });
        }
        self.fail();
        self.end()
    }

    /// A quoted token behind its prefix and quote.
    fn prefixed(&self, kind: TokenKind, contents: usize) -> Option<(TokenKind, usize)> {
        let text = self.rest;
        let end = match kind {
            // Refused by the server: the escape could hide a quote.
            TokenKind::UnicodeString if self.backslashes => None,
            TokenKind::UnicodeQuoted => scan::quoted_identifier(text, contents),
            TokenKind::EscapeString => scan::string(text, contents, true),
            TokenKind::Bits | TokenKind::HexBits => scan::bits(text, contents),
            TokenKind::NationalString => scan::string(text, contents, self.backslashes),
            _ => scan::string(text, contents, false),
        };
        Some((kind, end?))
    }

    /// Nothing can be read from here on.
    #[cold]
    fn fail(&mut self) {
        self.rest = &[];
        self.unreadable = true;
    }

    /// The end of what is read: of the text, or an error.
    #[cold]
    fn end(&mut self) -> Option<Token> {
        if !std::mem::take(&mut self.unreadable) {
            return None;
        }
        Some(Token {
            kind: TokenKind::Error,
            start: std::mem::replace(&mut self.at, self.text.len()),
            end: self.text.len(),
        })
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let (start, first) = self.place();
        self.token(start, first)
    }
}

#[cfg(test)]
mod tests;
