//! Lists of nothing but literals and parameters, which fold into the kinds that occur in each of
//! their columns.

use super::{Buffer, mark};
use crate::sql::lexer::{Lexer, Token, TokenKind};

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `(1, 2)` or `((1, 'a'), (2, 'b'))`, behind IN.
    Parenthesised,
    /// `[1, 2]`, behind ARRAY.
    Bracketed,
    /// `(1, 'a'), (2, 'b')`, behind VALUES.
    Rows,
}

/// The kinds that occur in each column, as sets of bits.
pub(super) struct Columns {
    width: usize,
    kinds: [u16; WIDEST],
    /// Elements are rows.
    rows: bool,
}

/// Rows with more columns are left as they are.
const WIDEST: usize = 64;

/// A number with a sign, which is one constant to the server.
const SIGNED: u16 = 1;

/// Reads the list that is next; `None`: none is, or something else is in it.
pub(super) fn read(lexer: &mut Lexer<'_>, shape: Shape) -> Option<Columns> {
    let mut columns = Columns {
        width: 0,
        kinds: [0; WIDEST],
        rows: true,
    };
    let first = lexer.next()?;
    match (shape, first.kind) {
        (Shape::Rows, TokenKind::LeftParen) => {
            let element = lexer.next()?;
            columns.row(lexer, element)?;
            loop {
                let mut ahead = lexer.clone();
                match ahead.next() {
                    Some(token) if token.kind == TokenKind::Comma => {}
                    _ => return Some(columns),
                }
                columns.rows_row(&mut ahead)?;
                *lexer = ahead;
            }
        }
        (Shape::Parenthesised, TokenKind::LeftParen) => {
            let element = lexer.next()?;
            if element.kind == TokenKind::LeftParen {
                let element = lexer.next()?;
                columns.row(lexer, element)?;
                loop {
                    match lexer.next()?.kind {
                        TokenKind::Comma => columns.rows_row(lexer)?,
                        TokenKind::RightParen => return Some(columns),
                        _ => return None,
                    }
                }
            }
            columns.elements(lexer, element, TokenKind::RightParen)?;
            Some(columns)
        }
        (Shape::Bracketed, TokenKind::LeftBracket) => {
            let element = lexer.next()?;
            columns.elements(lexer, element, TokenKind::RightBracket)?;
            Some(columns)
        }
        _ => None,
    }
}

impl Columns {
    /// Appends the canonical form; its length follows from its second byte.
    pub(super) fn write(&self, out: &mut Buffer) {
        out.push(mark::LIST);
        out.push(u8::try_from(self.width).unwrap_or(u8::MAX));
        out.push(u8::from(self.rows));
        for kinds in self.kinds.iter().take(self.width) {
            kinds
                .to_le_bytes()
                .into_iter()
                .for_each(|byte| out.push(byte));
        }
    }

    /// Elements of one column, of which `first` has been read, to `close`.
    fn elements(&mut self, lexer: &mut Lexer<'_>, first: Token, close: TokenKind) -> Option<()> {
        self.rows = false;
        self.width = 1;
        let mut element = first;
        loop {
            *self.kinds.first_mut()? |= kinds(lexer, element)?;
            let next = lexer.next()?.kind;
            if next == close {
                return Some(());
            }
            if next != TokenKind::Comma {
                return None;
            }
            element = lexer.next()?;
        }
    }

    /// A row, of which the parenthesis and `first` have been read. All rows are equally wide.
    fn row(&mut self, lexer: &mut Lexer<'_>, first: Token) -> Option<()> {
        let mut element = first;
        let mut column = 0;
        loop {
            *self.kinds.get_mut(column)? |= kinds(lexer, element)?;
            column += 1;
            match lexer.next()?.kind {
                TokenKind::RightParen => break,
                TokenKind::Comma => element = lexer.next()?,
                _ => return None,
            }
        }
        if self.width != 0 && self.width != column {
            return None;
        }
        self.width = column;
        Some(())
    }

    /// A row, of which nothing has been read.
    fn rows_row(&mut self, lexer: &mut Lexer<'_>) -> Option<()> {
        if lexer.next()?.kind != TokenKind::LeftParen {
            return None;
        }
        let element = lexer.next()?;
        self.row(lexer, element)
    }
}

/// The kinds of the element that begins with `token`; `None`: it isn't just a literal.
#[inline]
fn kinds(lexer: &mut Lexer<'_>, token: Token) -> Option<u16> {
    let bytes = token.bytes(lexer.text());
    let bit = |mark: u8| 1_u16 << mark;
    match token.kind {
        TokenKind::String
        | TokenKind::EscapeString
        | TokenKind::UnicodeString
        | TokenKind::NationalString
        | TokenKind::DollarString
        | TokenKind::Bits
        | TokenKind::HexBits
        | TokenKind::Param
        | TokenKind::Integer
        | TokenKind::Decimal => Some(bit(mark::of(token.kind, bytes))),
        TokenKind::Operator if bytes == b"-" || bytes == b"+" => {
            let number = lexer.next()?;
            matches!(number.kind, TokenKind::Integer | TokenKind::Decimal).then_some(())?;
            let bytes = number.bytes(lexer.text());
            Some(bit(mark::of(number.kind, bytes)) | SIGNED)
        }
        TokenKind::Word if bytes.eq_ignore_ascii_case(b"null") => Some(bit(mark::NULL)),
        TokenKind::Word if bytes.eq_ignore_ascii_case(b"true") => Some(bit(mark::BOOLEAN)),
        TokenKind::Word if bytes.eq_ignore_ascii_case(b"false") => Some(bit(mark::BOOLEAN)),
        TokenKind::Word if bytes.eq_ignore_ascii_case(b"default") => Some(bit(mark::DEFAULT)),
        _ => None,
    }
}
