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
//! has one of [`DECIDING`], because there a literal may be a name, a setting or a query.
//!
//! Invariant: canonical forms are equal only if the texts have the same words, quoted names,
//! operators, punctuation and kinds of literals in the same order, lists aside.

mod hash;
mod list;

pub(crate) use hash::Key;

use super::{
    Hint, Lexing,
    lexer::{Lexer, Token, TokenKind},
};

/// Statements of one shape, in one [`Lexing`] and with one hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(crate) u128);

/// Writes the canonical form of `text` to `out`, whose contents are replaced; at most twice as
/// long as the text and a few bytes. False: the text can't be read, and `out` has what precedes
/// the place where reading ends.
pub(crate) fn canonical(text: &[u8], lexing: Lexing, out: &mut Vec<u8>) -> bool {
    out.clear();
    out.reserve(text.len() * 2 + 16);
    let mut form = Form::new(text, lexing, out, Literals::Folded);
    let mut end = form.write();
    if end == End::Deciding {
        out.clear();
        form = Form::new(text, lexing, out, Literals::KeptToEnd);
        end = form.write();
    }
    end == End::Text
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

/// Types whose literals are names of functions, operators, relations and the like, functions whose
/// arguments are names of settings, and functions that run queries or read relations given as
/// text.
fn is_deciding(name: &[u8]) -> bool {
    matches!(
        name,
        b"regclass"
            | b"regcollation"
            | b"regconfig"
            | b"regdatabase"
            | b"regdictionary"
            | b"regnamespace"
            | b"regoper"
            | b"regoperator"
            | b"regproc"
            | b"regprocedure"
            | b"regrole"
            | b"regtype"
            | b"connectby"
            | b"crosstab"
            | b"crosstab2"
            | b"crosstab3"
            | b"crosstab4"
            | b"current_setting"
            | b"database_to_xml"
            | b"query_to_xml"
            | b"query_to_xml_and_xmlschema"
            | b"query_to_xmlschema"
            | b"schema_to_xml"
            | b"set_config"
            | b"table_to_xml"
            | b"table_to_xml_and_xmlschema"
            | b"table_to_xmlschema"
            | b"ts_rewrite"
            | b"ts_stat"
            | b"xpath_table"
    )
}

/// What becomes of literals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literals {
    Folded,
    /// Kept in this statement.
    Kept,
    KeptToEnd,
}

/// Where writing a form ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Unreadable,
    /// A name was met because of which literals must stay; some may have been left out.
    Deciding,
}

/// One canonical form being written.
struct Form<'a> {
    lexer: Lexer<'a>,
    out: &'a mut Vec<u8>,
    literals: Literals,
    /// Nothing of the current statement has been written.
    begins: bool,
}

impl<'a> Form<'a> {
    fn new(text: &'a [u8], lexing: Lexing, out: &'a mut Vec<u8>, literals: Literals) -> Self {
        Self {
            lexer: Lexer::new(text, lexing),
            out,
            literals,
            begins: true,
        }
    }

    fn write(&mut self) -> End {
        use TokenKind as Kind;
        while let Some(token) = self.lexer.next() {
            if token.kind == Kind::Semicolon {
                self.begins = true;
                continue;
            }
            if self.begins {
                self.begin(token);
            }
            let bytes = token.bytes(self.lexer.text());
            match token.kind {
                Kind::Word => {
                    if self.word(bytes) == Some(End::Deciding) {
                        return End::Deciding;
                    }
                }
                Kind::Quoted | Kind::UnicodeQuoted => {
                    let inner = bytes.get(1..bytes.len() - 1).unwrap_or_default();
                    let deciding = token.kind == Kind::UnicodeQuoted || is_deciding(inner);
                    if deciding && self.literals != Literals::KeptToEnd {
                        return End::Deciding;
                    }
                    self.spaced(bytes);
                }
                Kind::Operator | Kind::Colon | Kind::Cast | Kind::Assign | Kind::DotDot => {
                    self.spaced(bytes);
                }
                Kind::LeftParen
                | Kind::RightParen
                | Kind::LeftBracket
                | Kind::RightBracket
                | Kind::Comma
                | Kind::Dot => self.out.extend_from_slice(bytes),
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
                        self.out.push(mark::of(token.kind, bytes));
                    } else {
                        self.spaced(bytes);
                    }
                }
                Kind::Semicolon => {}
                Kind::Error => {
                    self.out.push(mark::UNREADABLE);
                    return End::Unreadable;
                }
            }
        }
        match self.lexer.hint() {
            None => {}
            Some(Hint::Primary) => self.out.push(mark::HINT_PRIMARY),
            Some(Hint::Replica) => self.out.push(mark::HINT_REPLICA),
        }
        End::Text
    }

    /// The first token of a statement decides what becomes of its literals.
    fn begin(&mut self, token: Token) {
        self.begins = false;
        if !self.out.is_empty() {
            self.out.push(b';');
        }
        if self.literals == Literals::KeptToEnd {
            return;
        }
        let first = token.bytes(self.lexer.text());
        self.literals = match token.kind {
            TokenKind::LeftParen => Literals::Folded,
            TokenKind::Word if FOLDING.iter().any(|w| w.eq_ignore_ascii_case(first)) => {
                Literals::Folded
            }
            // A routine's body has semicolons of its own.
            TokenKind::Word if first.eq_ignore_ascii_case(b"create") => Literals::KeptToEnd,
            _ => Literals::Kept,
        };
    }

    fn word(&mut self, bytes: &[u8]) -> Option<End> {
        let start = self.out.len();
        self.spaced(bytes);
        let word = self.out.get_mut(start..start + bytes.len())?;
        word.make_ascii_lowercase();
        if self.literals == Literals::KeptToEnd {
            return None;
        }
        if is_deciding(word) {
            return Some(End::Deciding);
        }
        if self.literals == Literals::Folded {
            // Behind a point it is a name, and what follows are a function's arguments.
            let named = start > 0 && self.out.get(start - 1) == Some(&b'.');
            let word = self.out.get(start..start + bytes.len())?;
            let shape = match word {
                _ if named => return None,
                b"in" => list::Shape::Parenthesised,
                b"array" => list::Shape::Bracketed,
                b"values" => list::Shape::Rows,
                _ => return None,
            };
            let mut ahead = self.lexer.clone();
            if let Some(columns) = list::read(&mut ahead, shape) {
                self.lexer = ahead;
                columns.write(self.out);
            }
        }
        None
    }

    /// What follows can't be taken for a part of it.
    fn spaced(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.push(b' ');
    }
}

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
            10 if digits <= b"2147483647".as_slice() => INT4,
            10..=18 => INT8,
            19 if digits <= b"9223372036854775807".as_slice() => INT8,
            _ => LONG_INTEGER,
        }
    }
}

#[cfg(test)]
mod tests;
