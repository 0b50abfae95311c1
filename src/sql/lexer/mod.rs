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
mod names;
mod scan;
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
    /// Holds no NUL where `unreadable` is not set.
    text: &'a [u8],
    at: usize,
    /// Backslashes escape in plain strings.
    backslashes: bool,
    unreadable: bool,
    hint: Option<Hint>,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from its start.
    #[must_use]
    pub fn new(text: &'a [u8], lexing: Lexing) -> Self {
        Self {
            text,
            at: 0,
            backslashes: !lexing.standard_conforming_strings,
            unreadable: memchr::memchr(0, text).is_some()
                || (!lexing.ascii_safe_encoding && !text.is_ascii()),
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

    fn token(&mut self, kind: TokenKind, start: usize, end: usize) -> Option<Token> {
        self.at = end;
        Some(Token { kind, start, end })
    }

    #[cold]
    fn error(&mut self, start: usize) -> Option<Token> {
        self.unreadable = true;
        let end = self.text.len();
        self.token(TokenKind::Error, start, end)
    }

    /// Passes the comment whose body is `body`.
    fn comment(&mut self, body: Range<usize>) {
        let body = self.text.get(body).unwrap_or_default();
        if let Some(found) = hint::of_comment(body) {
            self.hint = Some(hint::stricter(self.hint, found));
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        use TokenKind as Kind;
        use scan::Class;

        if self.unreadable {
            let start = self.at;
            return if start < self.text.len() {
                self.error(start)
            } else {
                None
            };
        }
        let text = self.text;
        loop {
            let start = self.at;
            let first = scan::byte(text, start);
            let second = || scan::byte(text, start + 1);
            let single = |kind| (kind, start + 1);
            let (kind, end) = match scan::class(first) {
                Class::Space => {
                    self.at = start + 1;
                    continue;
                }
                Class::Letter => (Kind::Word, scan::word_end(text, start + 1)),
                Class::Prefix => match scan::prefixed(text, start) {
                    Some((kind, quote)) => {
                        let end = match kind {
                            // Refused by the server: the escape could hide a quote.
                            Kind::UnicodeString if self.backslashes => None,
                            Kind::UnicodeQuoted => scan::quoted_identifier(text, quote),
                            Kind::EscapeString => scan::string(text, quote, true),
                            Kind::Bits | Kind::HexBits => scan::bits(text, quote),
                            Kind::NationalString => scan::string(text, quote, self.backslashes),
                            _ => scan::string(text, quote, false),
                        };
                        match end {
                            Some(end) => (kind, end),
                            None => return self.error(start),
                        }
                    }
                    None => (Kind::Word, scan::word_end(text, start + 1)),
                },
                Class::Digit => match scan::number(text, start) {
                    Some(number) => number,
                    None => return self.error(start),
                },
                Class::Quote => match scan::string(text, start + 1, self.backslashes) {
                    Some(end) => (Kind::String, end),
                    None => return self.error(start),
                },
                Class::DoubleQuote => match scan::quoted_identifier(text, start + 1) {
                    Some(end) => (Kind::Quoted, end),
                    None => return self.error(start),
                },
                Class::Dollar => match scan::dollar(text, start) {
                    Some(dollar) => dollar,
                    None => return self.error(start),
                },
                Class::Operator => match (first, second()) {
                    (b'-', b'-') => {
                        self.at = scan::line_comment_end(text, start + 2);
                        continue;
                    }
                    (b'/', b'*') => {
                        let Some(end) = scan::block_comment_end(text, start + 2) else {
                            return self.error(start);
                        };
                        self.comment(start + 2..end - 2);
                        self.at = end;
                        continue;
                    }
                    _ => (Kind::Operator, scan::operator_end(text, start)),
                },
                Class::Dot => match second() {
                    b'0'..=b'9' => match scan::number(text, start) {
                        Some(number) => number,
                        None => return self.error(start),
                    },
                    b'.' => (Kind::DotDot, start + 2),
                    _ => single(Kind::Dot),
                },
                Class::Colon => match second() {
                    b':' => (Kind::Cast, start + 2),
                    b'=' => (Kind::Assign, start + 2),
                    _ => single(Kind::Colon),
                },
                Class::LeftParen => single(Kind::LeftParen),
                Class::RightParen => single(Kind::RightParen),
                Class::LeftBracket => single(Kind::LeftBracket),
                Class::RightBracket => single(Kind::RightBracket),
                Class::Comma => single(Kind::Comma),
                Class::Semicolon => single(Kind::Semicolon),
                Class::Other => {
                    if start >= text.len() {
                        return None;
                    }
                    return self.error(start);
                }
            };
            return self.token(kind, start, end);
        }
    }
}

#[cfg(test)]
mod tests;
