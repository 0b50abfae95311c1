//! Where tokens end: one function per rule of `scan.l`. Each takes the text and a position within
//! it and answers a position not before it; `None` is what the server calls an error.

use super::TokenKind;

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Space,
    /// A word.
    Letter,
    /// A word, or the prefix of a quoted string: b, e, n, u, x.
    Prefix,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Dot,
    Colon,
    LeftParen,
    RightParen,
    LeftBracket,
    RightBracket,
    Comma,
    Semicolon,
    /// Nothing: the end of the text (see [`byte`]), or an error.
    Other,
}

/// The byte at `at`; NUL, which no readable text holds, beyond its end.
#[inline]
pub(super) fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
pub(super) fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// `byte` in lower case if a word may go on with it, else 0.
#[inline]
#[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
pub(super) fn folded(byte: u8) -> u8 {
    FOLDED[usize::from(byte)]
}

/// The end of the word that goes on at `at`.
#[inline]
pub(super) fn word_end(text: &[u8], mut at: usize) -> usize {
    while folded(byte(text, at)) != 0 {
        at += 1;
    }
    at
}

/// What a word's first letter prefixes, and where that's contents begin; `None`: it is a word.
#[inline]
pub(super) fn prefixed(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
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
pub(super) fn string(text: &[u8], mut at: usize, backslashes: bool) -> Option<usize> {
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
pub(super) fn bits(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = find_quote(text, at, false)?;
        match continued(text, at + 1) {
            Some(contents) => at = contents,
            None => return Some(at + 1),
        }
    }
}

/// Most literals are short: a call into a vectorised search costs more than it saves.
const SHORT: usize = 24;

/// The next quote (or backslash, if they escape) from `at` on.
#[inline]
fn find_quote(text: &[u8], at: usize, backslashes: bool) -> Option<usize> {
    let mut rest = text.get(at..)?;
    for (i, &b) in rest.iter().take(SHORT).enumerate() {
        if b == b'\'' || (b == b'\\' && backslashes) {
            return Some(at + i);
        }
    }
    rest = rest.get(SHORT..)?;
    let found = if backslashes {
        memchr::memchr2(b'\'', b'\\', rest)
    } else {
        memchr::memchr(b'\'', rest)
    };
    Some(at + SHORT + found?)
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
pub(super) fn quoted_identifier(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr::memchr(b'"', text.get(at..)?)?;
        if byte(text, at + 1) != b'"' {
            return (at > start).then_some(at + 1);
        }
        at += 2;
    }
}

/// The parameter or dollar-quoted string at `start`.
pub(super) fn dollar(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
    let mut at = start + 1;
    if byte(text, at).is_ascii_digit() {
        while byte(text, at).is_ascii_digit() {
            at += 1;
        }
        return (!begins_word(byte(text, at))).then_some((TokenKind::Param, at));
    }
    if begins_word(byte(text, at)) {
        while folded(byte(text, at)) != 0 && byte(text, at) != b'$' {
            at += 1;
        }
    }
    if byte(text, at) != b'$' {
        return None;
    }
    let tag = text.get(start..=at)?;
    let close = memchr::memmem::find(text.get(at + 1..)?, tag)?;
    Some((TokenKind::DollarString, at + 1 + close + tag.len()))
}

/// The number at `start`: a digit, or a point before a digit.
///
/// Digits that run into letters are an error: servers before 15 take `1and` for two tokens, later
/// ones refuse it.
#[inline]
pub(super) fn number(text: &[u8], start: usize) -> Option<(TokenKind, usize)> {
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
    while class(byte(text, end)) == Class::Operator {
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
pub(super) fn line_comment_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    memchr::memchr2(b'\n', b'\r', rest).map_or(text.len(), |found| at + found)
}

/// The end of the comment whose body begins at `at`; they nest.
pub(super) fn block_comment_end(text: &[u8], mut at: usize) -> Option<usize> {
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
fn begins_word(byte: u8) -> bool {
    matches!(class(byte), Class::Letter | Class::Prefix)
}

static CLASSES: [Class; 256] = classes();
static FOLDED: [u8; 256] = folds();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn classes() -> [Class; 256] {
    let mut table = [Class::Other; 256];
    let mut b = 0_u8;
    loop {
        table[b as usize] = match b {
            // Vertical tabs are white space from PostgreSQL 16 on, an error before.
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => Class::Space,
            b'B' | b'b' | b'E' | b'e' | b'N' | b'n' | b'U' | b'u' | b'X' | b'x' => Class::Prefix,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'(' => Class::LeftParen,
            b')' => Class::RightParen,
            b'[' => Class::LeftBracket,
            b']' => Class::RightBracket,
            b',' => Class::Comma,
            b';' => Class::Semicolon,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            _ => Class::Other,
        };
        if b == u8::MAX {
            return table;
        }
        b += 1;
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn folds() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0_u8;
    loop {
        table[b as usize] = match b {
            b'A'..=b'Z' => b + 32,
            b'a'..=b'z' | b'_' | b'$' | b'0'..=b'9' | 0x80.. => b,
            _ => 0,
        };
        if b == u8::MAX {
            return table;
        }
        b += 1;
    }
}
