//! Where tokens end: one function per rule of `scan.l`. Each takes the text and a position within
//! it and answers a position not before it; `None` is what the server calls an error.

use super::{TokenKind, eight};

/// What a byte can begin, as bits. None: something rarer, or nothing. One bit is tested after the
/// other, the frequent first: measured, that costs half of a jump through a table.
pub(in crate::sql) const WORD: u8 = 1;
/// A word, or the prefix of a quoted string: b, e, n, u, x.
pub(in crate::sql) const PREFIX: u8 = 1 << 1;
/// A token of one byte.
pub(in crate::sql) const SINGLE: u8 = 1 << 2;
pub(in crate::sql) const OPERATOR: u8 = 1 << 3;
pub(in crate::sql) const DIGIT: u8 = 1 << 4;
pub(in crate::sql) const SPACE: u8 = 1 << 5;
/// A word may go on with it.
pub(in crate::sql) const WORD_PART: u8 = 1 << 6;
/// A comment, perhaps.
pub(in crate::sql) const COMMENT: u8 = 1 << 7;

/// The byte at `at`; NUL, which no readable text holds, beyond its end.
#[inline]
pub(in crate::sql) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
pub(in crate::sql) fn flags(byte: u8) -> u8 {
    FLAGS[usize::from(byte)]
}

/// The kind of a [`SINGLE`].
#[inline]
#[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
pub(super) fn single(byte: u8) -> TokenKind {
    SINGLES[usize::from(byte)]
}

/// The end of the word that goes on at `at`.
#[inline]
pub(in crate::sql) fn word_end(text: &[u8], mut at: usize) -> usize {
    while flags(byte(text, at)) & WORD_PART != 0 {
        at += 1;
    }
    at
}

/// What a word's first letter prefixes, and where that's contents begin; `None`: it is a word.
#[inline]
pub(in crate::sql) fn prefixed(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    let second = byte(text, start + 1);
    if second != b'\'' && second != b'&' {
        return None;
    }
    match (byte(text, start) | 0x20, second) {
        (b'b', b'\'') => Some((TokenKind::Bits, start + 2)),
        (b'x', b'\'') => Some((TokenKind::HexBits, start + 2)),
        (b'n', b'\'') => Some((TokenKind::NationalString, start + 2)),
        (b'e', b'\'') => Some((TokenKind::EscapeString, start + 2)),
        (b'u', b'&') => match byte(text, start + 2) {
            b'\'' => Some((TokenKind::UnicodeString, start + 3)),
            b'"' => Some((TokenKind::UnicodeQuoted, start + 3)),
            _ => None,
        },
        _ => None,
    }
}

/// The end of the string whose contents begin at `at`.
#[inline]
pub(in crate::sql) fn string(text: &[u8], mut at: usize, backslashes: bool) -> Option<usize> {
    loop {
        at = find_quote(text, at, backslashes)?;
        // An escape, or two quotes for one.
        if byte(text, at) == b'\\' || byte(text, at + 1) == b'\'' {
            at += 2;
        } else {
            match continued(text, at + 1) {
                Some(contents) => at = contents,
                None => return Some(at + 1),
            }
        }
    }
}

/// The end of the bit string whose contents begin at `at`: two quotes don't stand for one here.
pub(in crate::sql) fn bits(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = find_quote(text, at, false)?;
        match continued(text, at + 1) {
            Some(contents) => at = contents,
            None => return Some(at + 1),
        }
    }
}

/// The next quote (or backslash, if they escape) from `at` on.
#[inline]
fn find_quote(text: &[u8], at: usize, backslashes: bool) -> Option<usize> {
    for near in at..at + NEAR {
        let next = byte(text, near);
        if next == b'\'' || (next == b'\\' && backslashes) {
            return Some(near);
        }
    }
    find_quote_far(text, at + NEAR, backslashes)
}

/// So far, looking at one byte after the other is cheaper than calling a vectorised search.
const NEAR: usize = 16;

fn find_quote_far(text: &[u8], at: usize, backslashes: bool) -> Option<usize> {
    let rest = text.get(at..)?;
    let found = if backslashes {
        memchr::memchr2(b'\'', b'\\', rest)
    } else {
        memchr::memchr(b'\'', rest)
    };
    Some(at + found?)
}

/// Where the contents go on when the string that was closed just before `at` is continued: by
/// white space with at least one line end, which line comments may be part of, and a quote.
#[inline]
pub(super) fn continued(text: &[u8], mut at: usize) -> Option<usize> {
    let mut line_end = false;
    loop {
        match byte(text, at) {
            b' ' | b'\t' | b'\x0b' | b'\x0c' => at += 1,
            b'\n' | b'\r' => {
                line_end = true;
                at += 1;
            }
            b'-' if byte(text, at + 1) == b'-' => at = line_comment_end(text, at + 2),
            b'\'' if line_end => return Some(at + 1),
            _ => return None,
        }
    }
}

/// The end of the quoted identifier whose contents begin at `start`; an empty one is an error.
#[inline]
pub(in crate::sql) fn quoted_identifier(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += match eight::find(eight::load(text, at), b'"') {
            8 => match eight::find(eight::load(text, at + 8), b'"') {
                8 => 16 + memchr::memchr(b'"', text.get(at + 16..)?)?,
                found => 8 + found,
            },
            found => found,
        };
        if byte(text, at + 1) != b'"' {
            return (at > start).then_some(at + 1);
        }
        at += 2;
    }
}

/// The parameter or dollar-quoted string at `start`.
pub(in crate::sql) fn dollar(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    let mut at = start + 1;
    if byte(text, at).is_ascii_digit() {
        while byte(text, at).is_ascii_digit() {
            at += 1;
        }
        return (!begins_word(byte(text, at))).then_some((TokenKind::Param, at));
    }
    if begins_word(byte(text, at)) {
        let end = word_end(text, at);
        at += memchr::memchr(b'$', text.get(at..end)?).unwrap_or(end - at);
    }
    if byte(text, at) != b'$' {
        return None;
    }
    let tag = text.get(start..=at)?;
    let close = memchr::memmem::find(text.get(at + 1..)?, tag)?;
    Some((TokenKind::DollarString, at + 1 + close + tag.len()))
}

/// What begins with the point at `start`.
pub(in crate::sql) fn dot(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    match byte(text, start + 1) {
        b'0'..=b'9' => any_number(text, start),
        b'.' => Some((TokenKind::DotDot, start + 2)),
        _ => Some((TokenKind::Dot, start + 1)),
    }
}

/// What begins with the colon at `start`.
pub(super) fn colon(text: &[u8], start: usize) -> (TokenKind, usize) {
    match byte(text, start + 1) {
        b':' => (TokenKind::Cast, start + 2),
        b'=' => (TokenKind::Assign, start + 2),
        _ => (TokenKind::Colon, start + 1),
    }
}

/// The number at `start`: a digit, or a point before a digit.
///
/// Digits that run into letters are an error: servers before 15 take `1and` for two tokens, later
/// ones refuse it.
#[inline]
pub(in crate::sql) fn number(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    let mut at = start;
    while byte(text, at).is_ascii_digit() {
        at += 1;
    }
    let next = byte(text, at);
    if next == b'.' || begins_word(next) {
        any_number(text, start)
    } else {
        Some((TokenKind::Integer, at))
    }
}

/// [`number`], where it may not be just digits.
fn any_number(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    let mut kind = TokenKind::Integer;
    let mut at = start;
    let radix: Option<fn(&u8) -> bool> = match byte(text, start + 1) | 0x20 {
        b'x' => Some(u8::is_ascii_hexdigit),
        b'o' => Some(|b| matches!(b, b'0'..=b'7')),
        b'b' => Some(|b| matches!(b, b'0' | b'1')),
        _ => None,
    };
    if let Some(is_digit) = radix.filter(|_| byte(text, start) == b'0') {
        at += 2;
        let digits = digits_end(text, at, is_digit, true);
        if digits == at {
            return None;
        }
        at = digits;
    } else {
        at = digits_end(text, at, u8::is_ascii_digit, false);
        if byte(text, at) == b'.' && (at == start || byte(text, at + 1) != b'.') {
            kind = TokenKind::Decimal;
            at = digits_end(text, at + 1, u8::is_ascii_digit, false);
        }
        if byte(text, at) | 0x20 == b'e' {
            kind = TokenKind::Decimal;
            at += 1;
            if matches!(byte(text, at), b'+' | b'-') {
                at += 1;
            }
            let exponent = digits_end(text, at, u8::is_ascii_digit, false);
            if exponent == at {
                return None;
            }
            at = exponent;
        }
    }
    (!begins_word(byte(text, at))).then_some((kind, at))
}

/// The end of digits from `at` on, single underscores between them (and, if `leading`, before
/// them) included.
#[inline]
fn digits_end(text: &[u8], mut at: usize, is_digit: fn(&u8) -> bool, leading: bool) -> usize {
    let mut underscore = leading;
    loop {
        let next = byte(text, at);
        if is_digit(&next) {
            at += 1;
        } else if next == b'_' && underscore && is_digit(&byte(text, at + 1)) {
            at += 2;
        } else {
            return at;
        }
        underscore = true;
    }
}

/// The end of the operator that begins at `start`, where no comment begins.
#[inline]
pub(super) fn operator_end(text: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    // Lets the operator end in + or -: one of ~ ! @ # ^ & | ` ? % before them.
    let mut special = is_special(byte(text, start));
    while flags(byte(text, end)) & OPERATOR != 0 {
        let next = byte(text, end);
        match (next, byte(text, end + 1)) {
            (b'-', b'-') | (b'/', b'*') => break,
            _ => end += 1,
        }
        special |= is_special(next);
    }
    if !special {
        while end > start + 1 && matches!(byte(text, end - 1), b'+' | b'-') {
            end -= 1;
        }
    }
    end
}

fn is_special(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
    )
}

/// The end of a `--` comment, before its line end.
pub(in crate::sql) fn line_comment_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    memchr::memchr2(b'\n', b'\r', rest).map_or(text.len(), |found| at + found)
}

/// The end of the comment whose body begins at `at`; they nest.
pub(in crate::sql) fn block_comment_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1_usize;
    while depth > 0 {
        at += memchr::memchr2(b'*', b'/', text.get(at..)?)?;
        match (byte(text, at), byte(text, at + 1)) {
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
            }
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    Some(at)
}

/// A word can begin with it.
#[inline]
pub(in crate::sql) fn begins_word(byte: u8) -> bool {
    flags(byte) & WORD != 0
}

static FLAGS: [u8; 256] = flag_table();
static SINGLES: [TokenKind; 256] = single_table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn flag_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0_u8;
    loop {
        table[b as usize] = match b {
            // Vertical tabs are white space from PostgreSQL 16 on, an error before.
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => SPACE,
            b'B' | b'b' | b'E' | b'e' | b'N' | b'n' | b'U' | b'u' | b'X' | b'x' => {
                WORD | PREFIX | WORD_PART
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => WORD | WORD_PART,
            b'0'..=b'9' => DIGIT | WORD_PART,
            b'$' => WORD_PART,
            b'(' | b')' | b'[' | b']' | b',' | b';' => SINGLE,
            b'-' | b'/' => OPERATOR | COMMENT,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'*' | b'%'
            | b'<' | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        if b == u8::MAX {
            return table;
        }
        b += 1;
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn single_table() -> [TokenKind; 256] {
    let mut table = [TokenKind::Error; 256];
    table[b'(' as usize] = TokenKind::LeftParen;
    table[b')' as usize] = TokenKind::RightParen;
    table[b'[' as usize] = TokenKind::LeftBracket;
    table[b']' as usize] = TokenKind::RightBracket;
    table[b',' as usize] = TokenKind::Comma;
    table[b';' as usize] = TokenKind::Semicolon;
    table
}
