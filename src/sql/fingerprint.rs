//! Fingerprints: a keyed hash of a text without what can't decide its class, so that a statement
//! is classified once whatever its literals are.
//!
//! The hash covers a *canonical form*: the text's tokens in a form that can be told apart again.
//! Left out, so that texts which differ only there have one fingerprint:
//! - white space, comments (hints count), empty statements, letters' case in unquoted words;
//! - numbers, strings, bit strings and parameters, but not which of these they are, nor whether an
//!   integer is an int4, an int8 or longer: types choose among operators and functions;
//! - how many elements a list of nothing but literals and parameters has, and how many rows such
//!   a VALUES has (IN, VALUES, ARRAY): only which kinds occur in each column counts.
//!
//! Literals stay where they could decide a class or an effect: in every statement that doesn't
//! begin with one of [`FOLDING`] (SET, PREPARE, COPY, EXPLAIN's options, …), and in every text that
//! has one of [`deciding::NAMES`], because there a literal may be a name, a setting or a query.
//!
//! Invariant: canonical forms are equal only if the texts have the same words, quoted names,
//! operators, punctuation and kinds of literals in the same order, lists aside.

mod buffer;
mod deciding;
#[cfg(test)]
pub(crate) mod grammar;
mod hash;
mod list;
mod skeleton;

pub(crate) use buffer::Buffer;
pub(crate) use hash::Key;
pub(crate) use skeleton::skeleton;

use super::{
    Hint, Lexing,
    lexer::{Lexer, Token, TokenKind, eight, scan},
};

/// Statements of one shape, in one [`Lexing`] and with one hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(crate) u128);

/// Writes the canonical form of `text` to `out`, whose contents are replaced; at most twice as
/// long as the text and a few bytes.
pub(crate) fn canonical(text: &[u8], lexing: Lexing, out: &mut Buffer) -> Form {
    let most = text.len() * 2;
    out.clear_for(most);
    let mut end = Writer::new(text, lexing, out, Literals::Folded).write();
    if end == End::Deciding {
        out.clear_for(most);
        end = Writer::new(text, lexing, out, Literals::KeptToEnd).write();
    }
    match end {
        End::Text(Literals::Folded) => Form::Folded,
        End::Text(_) | End::Deciding => Form::Kept,
        End::Unreadable => Form::Unreadable,
    }
}

/// What a canonical form has of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// No literal.
    Folded,
    /// Literals, in some of its statements at least.
    Kept,
    /// What precedes the place where reading ends.
    Unreadable,
}

/// The beginning of a text for people: its words and operators, with one mark for each literal (in
/// the text of another's statement they may be secrets), of at most [`SAMPLE`] characters.
pub(crate) fn sample(text: &[u8], lexing: Lexing) -> Box<str> {
    let mut sample = String::new();
    let mut left = SAMPLE;
    let mut last_end = 0;
    for token in Lexer::new(text, lexing) {
        let bytes = token.bytes(text);
        let part = match token.kind {
            TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::NationalString
            | TokenKind::DollarString
            | TokenKind::Bits
            | TokenKind::HexBits
            | TokenKind::Integer
            | TokenKind::Decimal => "?".into(),
            TokenKind::Error => "…".into(),
            _ => String::from_utf8_lossy(bytes),
        };
        let space = token.start > last_end && !sample.is_empty();
        last_end = token.end;
        for character in space.then_some(' ').into_iter().chain(part.chars()) {
            if left == 0 {
                return sample.into();
            }
            left -= 1;
            sample.push(character);
        }
    }
    sample.into()
}

/// Longest sample, in characters.
const SAMPLE: usize = 200;

/// First words of statements whose literals can't decide their class.
const FOLDING: [&[u8]; 7] = [
    b"select", b"insert", b"update", b"delete", b"with", b"values", b"merge",
];

/// What becomes of literals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Literals {
    Folded,
    /// Kept in this statement.
    Kept,
    KeptToEnd,
}

/// Where writing a form ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// [`Literals::Folded`] if no statement kept its literals.
    Text(Literals),
    Unreadable,
    /// A name was met because of which literals must stay; some may have been left out.
    Deciding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Token,
    Deciding,
}

/// One canonical form being written.
struct Writer<'a> {
    lexer: Lexer<'a>,
    out: &'a mut Buffer,
    literals: Literals,
    /// What became of them in the statement that kept most.
    most: Literals,
    /// Nothing of the current statement has been written.
    begins: bool,
}

impl<'a> Writer<'a> {
    fn new(text: &'a [u8], lexing: Lexing, out: &'a mut Buffer, literals: Literals) -> Self {
        Self {
            lexer: Lexer::new(text, lexing),
            out,
            literals,
            most: literals,
            begins: true,
        }
    }

    fn write(&mut self) -> End {
        use TokenKind as Kind;
        loop {
            let (start, first) = self.lexer.place();
            let flags = scan::flags(first);
            if self.begins && first != b';' && first != 0 {
                self.begin(start, first);
            }
            // What texts are mostly made of, without the detour over a token.
            if flags & scan::SINGLE != 0 {
                if first == b';' {
                    self.begins = true;
                } else {
                    self.out.push(first);
                }
                self.lexer.go_on(start + 1);
                continue;
            }
            if flags & scan::WORD != 0
                && (flags & scan::PREFIX == 0 || scan::prefixed(self.lexer.text(), start).is_none())
            {
                if self.word(start) == Next::Deciding {
                    return End::Deciding;
                }
                continue;
            }
            let Some(token) = self.lexer.token(start, first) else {
                break;
            };
            match token.kind {
                Kind::Quoted | Kind::UnicodeQuoted => {
                    if self.literals != Literals::KeptToEnd && self.may_decide(token) {
                        return End::Deciding;
                    }
                    self.spaced(token);
                }
                Kind::Operator | Kind::Colon | Kind::Cast | Kind::Assign | Kind::DotDot => {
                    self.spaced(token);
                }
                Kind::Dot => self.out.push(b'.'),
                Kind::Param => self.out.push(mark::PARAM),
                Kind::String
                | Kind::EscapeString
                | Kind::UnicodeString
                | Kind::NationalString
                | Kind::DollarString
                | Kind::Bits
                | Kind::HexBits
                | Kind::Integer
                | Kind::Decimal => {
                    if self.literals == Literals::Folded {
                        let bytes = token.bytes(self.lexer.text());
                        self.out.push(mark::of(token.kind, bytes));
                    } else {
                        self.spaced(token);
                    }
                }
                Kind::Error => {
                    self.out.push(mark::UNREADABLE);
                    return End::Unreadable;
                }
                // Written above.
                Kind::Word
                | Kind::LeftParen
                | Kind::RightParen
                | Kind::LeftBracket
                | Kind::RightBracket
                | Kind::Comma
                | Kind::Semicolon => {}
            }
        }
        match self.lexer.hint() {
            None => {}
            Some(Hint::Primary) => self.out.push(mark::HINT_PRIMARY),
            Some(Hint::Replica) => self.out.push(mark::HINT_REPLICA),
        }
        End::Text(self.most)
    }

    /// The first token of a statement decides what becomes of its literals.
    #[inline(never)]
    fn begin(&mut self, start: usize, first: u8) {
        self.begins = false;
        if !self.out.is_empty() {
            self.out.push(b';');
        }
        if self.literals == Literals::KeptToEnd {
            return;
        }
        let text = self.lexer.text();
        let word = text
            .get(start..scan::word_end(text, start))
            .unwrap_or_default();
        self.literals = if first == b'(' || FOLDING.iter().any(|w| w.eq_ignore_ascii_case(word)) {
            Literals::Folded
        } else if word.eq_ignore_ascii_case(b"create") {
            // A routine's body has semicolons of its own.
            Literals::KeptToEnd
        } else {
            Literals::Kept
        };
        self.most = self.most.max(self.literals);
    }

    /// Writes the word that begins at `start`.
    #[inline]
    fn word(&mut self, start: usize) -> Next {
        // Behind a point it is a name, and what follows are a function's arguments.
        let named = self.out.last() == Some(b'.');
        let (first, length) = self.out.push_word(self.lexer.text(), start);
        self.lexer.go_on(start + length);
        if deciding::may_be(first, length) && self.literals != Literals::KeptToEnd {
            let word = self.lexer.text().get(start..start + length);
            if deciding::is(&word.unwrap_or_default().to_ascii_lowercase()) {
                return Next::Deciding;
            }
        }
        if (first == IN || first == VALUES || first == ARRAY)
            && !named
            && self.literals == Literals::Folded
        {
            self.list(first);
        }
        Next::Token
    }

    /// Writes the list behind this word if it is one that folds.
    #[inline(never)]
    fn list(&mut self, word: u64) {
        let shape = match word {
            IN => list::Shape::Parenthesised,
            ARRAY => list::Shape::Bracketed,
            _ => list::Shape::Rows,
        };
        let mut ahead = self.lexer.clone();
        if let Some(columns) = list::read(&mut ahead, shape) {
            self.lexer = ahead;
            columns.write(self.out);
        }
    }

    /// A quoted name because of which literals must stay.
    #[inline]
    fn may_decide(&self, token: Token) -> bool {
        let text = self.lexer.text();
        let first = eight::load(text, token.start + 1);
        token.kind == TokenKind::UnicodeQuoted
            || (deciding::may_be(first, token.end - token.start - 2)
                && deciding::is(text.get(token.start + 1..token.end - 1).unwrap_or_default()))
    }

    /// What follows can't be taken for a part of it.
    #[inline]
    fn spaced(&mut self, token: Token) {
        let length = token.end - token.start;
        self.out.push_text(self.lexer.text(), token.start, length);
        self.out.push(b' ');
    }
}

const IN: u64 = u64::from_le_bytes(*b"in\0\0\0\0\0\0");
const ARRAY: u64 = u64::from_le_bytes(*b"array\0\0\0");
const VALUES: u64 = u64::from_le_bytes(*b"values\0\0");

/// Bytes that stand for something left out: no token begins with one.
mod mark {
    use super::TokenKind;

    pub(super) const INT4: u8 = 1;
    pub(super) const INT8: u8 = 2;
    pub(super) const LONG_INTEGER: u8 = 3;
    /// With underscores or in another base: rare, so not looked at.
    pub(super) const OTHER_INTEGER: u8 = 4;
    pub(super) const DECIMAL: u8 = 5;
    pub(super) const STRING: u8 = 6;
    pub(super) const NATIONAL_STRING: u8 = 7;
    pub(super) const BITS: u8 = 8;
    pub(super) const HEX_BITS: u8 = 9;
    pub(super) const PARAM: u8 = 10;
    pub(super) const NULL: u8 = 11;
    pub(super) const BOOLEAN: u8 = 12;
    pub(super) const DEFAULT: u8 = 13;
    pub(super) const LIST: u8 = 14;
    pub(super) const HINT_PRIMARY: u8 = 15;
    pub(super) const HINT_REPLICA: u8 = 16;
    pub(super) const UNREADABLE: u8 = 17;

    /// The mark of a literal.
    #[inline]
    pub(super) fn of(kind: TokenKind, bytes: &[u8]) -> u8 {
        match kind {
            TokenKind::Integer => integer(bytes),
            TokenKind::Decimal => DECIMAL,
            TokenKind::NationalString => NATIONAL_STRING,
            TokenKind::Bits => BITS,
            TokenKind::HexBits => HEX_BITS,
            TokenKind::Param => PARAM,
            _ => STRING,
        }
    }

    /// The type that the server gives an integer: it depends on its size.
    #[inline]
    fn integer(digits: &[u8]) -> u8 {
        // Nine digits of any base up to 16, the prefix included, fit int4 ("0x" and 7 digits).
        if digits.len() <= 9 {
            return INT4;
        }
        if !digits.iter().all(u8::is_ascii_digit) {
            return OTHER_INTEGER;
        }
        match digits.len() {
            10 if digits <= &b"2147483647"[..] => INT4,
            10..=18 => INT8,
            19 if digits <= &b"9223372036854775807"[..] => INT8,
            _ => LONG_INTEGER,
        }
    }
}

#[cfg(test)]
mod tests;
