//! Skeletons: texts with a mark in place of each literal, and otherwise as they are.
//!
//! The quickest way to know a statement again whatever its literals: words aren't looked at, only
//! the few bytes that may begin or end a literal, a quoted name or a comment. White space (except
//! which kind of it), letters' case and the lengths of lists count here, unlike in the canonical
//! form; nothing that tells tokens apart is lost.
//!
//! Invariant: two texts have the same skeleton only if [`Lexer`] reads the same tokens in both, all
//! literals but their kinds aside. [`Lexer`] decides what can be read; where this module says
//! no, it only costs another look.
//!
//! [`Lexer`]: crate::sql::lexer::Lexer

use super::{Buffer, mark};
use crate::sql::{
    Hint, Lexing, hint,
    lexer::{TokenKind, eight, scan},
};

/// Writes the skeleton of `text` to `out`, whose contents are replaced. False: there is none.
pub(crate) fn skeleton(text: &[u8], lexing: Lexing, out: &mut Buffer) -> bool {
    if !lexing.ascii_safe_encoding && !text.is_ascii() {
        return false;
    }
    out.clear_for(text.len() * 2);
    let mut reader = Reader {
        text,
        backslashes: !lexing.standard_conforming_strings,
        at: 0,
        fresh: 0,
        hint: None,
        out,
    };
    let whole = reader.write().is_some();
    match reader.hint {
        None => {}
        Some(Hint::Primary) => out.push(mark::HINT_PRIMARY),
        Some(Hint::Replica) => out.push(mark::HINT_REPLICA),
    }
    whole
}

struct Reader<'a> {
    text: &'a [u8],
    backslashes: bool,
    at: usize,
    /// No word goes on from before this place: a literal or a comment ends here. At most `at`.
    fresh: usize,
    hint: Option<Hint>,
    out: &'a mut Buffer,
}

impl Reader<'_> {
    /// `None`: no skeleton.
    fn write(&mut self) -> Option<()> {
        // Within a quoted name: copied as it is, so that only how many quotes there were counts.
        let mut quoted = false;
        // The mark of a quote just before: two in a row, one in a name or an empty name, are left to
        // the lexer.
        let mut last = 0;
        loop {
            let bytes = eight::load(self.text, self.at);
            let stops = eight::stops(bytes);
            let quotes = eight::before(eight::double_quotes(bytes), stops);
            if quotes & (quotes << 8 | last) != 0 {
                return None;
            }
            if stops == 0 {
                self.out.push_eight(bytes, 8);
                self.at += 8;
                quoted ^= eight::is_odd(quotes);
                last = quotes >> 56;
                continue;
            }
            let plain = eight::first(stops);
            self.out.push_eight(bytes, plain);
            self.at += plain;
            quoted ^= eight::is_odd(quotes);
            if quoted {
                self.rest_of_name()?;
                quoted = false;
                last = eight::FIRST;
                continue;
            }
            last = 0;
            let byte = scan::byte(self.text, self.at);
            match byte {
                b'0'..=b'9' => self.digits()?,
                0 => return (self.at >= self.text.len()).then_some(()),
                _ => self.look(byte)?,
            }
        }
    }

    /// Passes what is left of a quoted name up to the next double quote.
    #[inline]
    fn rest_of_name(&mut self) -> Option<()> {
        loop {
            let bytes = eight::load(self.text, self.at);
            let length = eight::find(bytes, b'"');
            if eight::find(bytes, 0) < length {
                return None;
            }
            self.out.push_eight(bytes, length);
            self.at += length;
            if length < 8 {
                self.out.push(b'"');
                self.at += 1;
                return Some(());
            }
        }
    }

    /// Passes the digits that are next, and what they begin or go on with.
    #[inline]
    fn digits(&mut self) -> Option<()> {
        if self.in_word(self.at) {
            return self.rest_of_word();
        }
        let bytes = eight::load(self.text, self.at);
        let length = eight::digits(bytes);
        let next = scan::byte(self.text, self.at + length);
        if length == 8 || next == b'.' || scan::begins_word(next) || self.before(1) == b'.' {
            return self.number();
        }
        // So few fit int4.
        self.out.push(mark::INT4);
        self.at += length;
        self.fresh = self.at;
        Some(())
    }

    #[inline]
    fn rest_of_word(&mut self) -> Option<()> {
        let end = scan::word_end(self.text, self.at);
        self.copy(end);
        Some(())
    }

    /// Passes what begins with `byte`, which is next: a stop, but no digit.
    #[inline]
    fn look(&mut self, byte: u8) -> Option<()> {
        if byte == b'$' {
            if self.in_word(self.at) {
                return self.rest_of_word();
            }
            let (kind, end) = scan::dollar(self.text, self.at)?;
            return self.literal(0, kind, end);
        }
        let flags = scan::flags(byte);
        match byte {
            b'\'' => self.string(),
            b'-' | b'/' => self.comment(byte),
            _ if flags & scan::SPACE != 0 => {
                self.out.push(b' ');
                self.at += 1;
                Some(())
            }
            // Not an operator: nothing that a token begins with.
            _ if flags & scan::OPERATOR == 0 => None,
            _ => {
                self.copy(self.at + 1);
                Some(())
            }
        }
    }

    /// A word goes on with what is at `place`.
    fn in_word(&self, place: usize) -> bool {
        place > self.fresh && scan::flags(scan::byte(self.text, place - 1)) & scan::WORD_PART != 0
    }

    /// The byte `back` bytes before the next, if it can belong to the same token.
    fn before(&self, back: usize) -> u8 {
        match self.at.checked_sub(back) {
            Some(place) if place >= self.fresh => scan::byte(self.text, place),
            _ => 0,
        }
    }

    fn copy(&mut self, end: usize) {
        self.out.push_text(self.text, self.at, end - self.at);
        self.at = end;
    }

    /// A literal that ends at `end`; `prefix` bytes of it have been copied already.
    fn literal(&mut self, prefix: usize, kind: TokenKind, end: usize) -> Option<()> {
        let bytes = self.text.get(self.at - prefix..end)?;
        if bytes.contains(&0) {
            return None;
        }
        self.out.take_back(prefix);
        self.out.push(mark::of(kind, bytes));
        self.at = end;
        self.fresh = end;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let prefix = match (self.before(1), self.before(2)) {
            // Two points are a token, and none that SQL has.
            (b'.', b'.') => return None,
            (b'.', _) => 1,
            _ => 0,
        };
        let (kind, end) = if prefix == 0 {
            scan::number(self.text, self.at)?
        } else {
            scan::dot(self.text, self.at - 1)?
        };
        self.literal(prefix, kind, end)
    }

    fn string(&mut self) -> Option<()> {
        let letter = self.before(1) | 0x20;
        let alone = |back: usize| !self.in_word(self.at - back);
        let contents = self.at + 1;
        let (prefix, kind) = match letter {
            b'e' if alone(1) => (1, TokenKind::EscapeString),
            b'b' if alone(1) => (1, TokenKind::Bits),
            b'x' if alone(1) => (1, TokenKind::HexBits),
            b'n' if alone(1) => (1, TokenKind::NationalString),
            _ if self.before(1) == b'&' && self.before(2) | 0x20 == b'u' && alone(2) => {
                (2, TokenKind::UnicodeString)
            }
            _ => (0, TokenKind::String),
        };
        let end = match kind {
            TokenKind::Bits | TokenKind::HexBits => scan::bits(self.text, contents),
            TokenKind::EscapeString => scan::string(self.text, contents, true),
            TokenKind::UnicodeString if self.backslashes => None,
            TokenKind::UnicodeString => scan::string(self.text, contents, false),
            _ => scan::string(self.text, contents, self.backslashes),
        };
        self.literal(prefix, kind, end?)
    }

    /// A comment, which is a space, or else a part of an operator.
    fn comment(&mut self, first: u8) -> Option<()> {
        let body = self.at + 2;
        let end = match (first, scan::byte(self.text, self.at + 1)) {
            (b'-', b'-') => scan::line_comment_end(self.text, body),
            (b'/', b'*') => {
                let end = scan::block_comment_end(self.text, body)?;
                if let Some(found) = hint::of_comment(self.text.get(body..end - 2)?) {
                    self.hint = Some(hint::stricter(self.hint, found));
                }
                end
            }
            _ => {
                self.copy(self.at + 1);
                return Some(());
            }
        };
        if self.text.get(body..end)?.contains(&0) {
            return None;
        }
        self.out.push(b' ');
        self.at = end;
        self.fresh = end;
        Some(())
    }
}
