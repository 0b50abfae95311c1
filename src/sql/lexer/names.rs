//! What identifiers name and strings hold.

use super::{Token, TokenKind, scan};
use crate::sql::Lexing;

/// Longest name in bytes (NAMEDATALEN - 1); the server cuts off the rest.
const NAME: usize = 63;

/// The name that an identifier stands for: ASCII letters folded unless it is quoted, escapes
/// resolved, cut to the length that servers keep. `None`: not an identifier, not UTF-8, or escapes
/// that can't be resolved. Of a `U&"…"`, the caller checks that no UESCAPE follows.
///
/// In databases of single-byte encodings servers fold letters beyond ASCII, too; so a name with
/// such letters that isn't quoted may be another one there.
pub(crate) fn identifier(text: &[u8], token: Token) -> Option<String> {
    let bytes = token.bytes(text);
    let mut name = match token.kind {
        TokenKind::Word => Some(std::str::from_utf8(bytes).ok()?.to_ascii_lowercase()),
        TokenKind::Quoted => undouble(bytes.get(1..bytes.len() - 1)?, b'"'),
        TokenKind::UnicodeQuoted => {
            unicode_escapes(&undouble(bytes.get(3..bytes.len() - 1)?, b'"')?)
        }
        _ => None,
    }?;
    clip(&mut name);
    Some(name)
}

/// Cuts a name to the length that servers keep, between characters.
fn clip(name: &mut String) {
    if name.len() > NAME {
        let end = (0..=NAME).rev().find(|&end| name.is_char_boundary(end));
        name.truncate(end.unwrap_or(0));
    }
}

/// The value of a string constant of any kind. `None`: not a string, not UTF-8, or escapes that
/// the server refuses. Of a `U&'…'`, the caller checks that no UESCAPE follows.
pub(crate) fn string_value(text: &[u8], token: Token, lexing: Lexing) -> Option<String> {
    let bytes = token.bytes(text);
    let (prefix, backslashes) = match token.kind {
        TokenKind::String => (0, !lexing.standard_conforming_strings),
        TokenKind::EscapeString => (1, true),
        TokenKind::UnicodeString => (2, false),
        TokenKind::DollarString => {
            let tag = 2 + memchr::memchr(b'$', bytes.get(1..)?)?;
            let body = bytes.get(tag..bytes.len().checked_sub(tag)?)?;
            return String::from_utf8(body.to_vec()).ok();
        }
        _ => return None,
    };
    let mut value = Vec::with_capacity(bytes.len());
    let mut at = prefix + 1;
    loop {
        match scan::byte(bytes, at) {
            b'\'' if scan::byte(bytes, at + 1) == b'\'' => {
                value.push(b'\'');
                at += 2;
            }
            b'\'' => match scan::continued(bytes, at + 1) {
                Some(contents) => at = contents,
                None => break,
            },
            b'\\' if backslashes => at = escape(bytes, at + 1, &mut value)?,
            // The end of the text, which a token never reaches inside a string.
            0 => return None,
            byte => {
                value.push(byte);
                at += 1;
            }
        }
    }
    let value = String::from_utf8(value).ok()?;
    match token.kind {
        TokenKind::UnicodeString => unicode_escapes(&value),
        _ => Some(value),
    }
}

/// Resolves the escape whose letter is at `at`; answers where the string goes on.
fn escape(bytes: &[u8], at: usize, value: &mut Vec<u8>) -> Option<usize> {
    let digits = |from: usize, most: usize, radix: u32| {
        let digit = |i: usize| char::from(scan::byte(bytes, from + i)).to_digit(radix);
        let mut number = 0_u32;
        let mut count = 0;
        while count < most
            && let Some(d) = digit(count)
        {
            number = number * radix + d;
            count += 1;
        }
        (number, from + count)
    };
    let letter = scan::byte(bytes, at);
    let byte = match letter {
        b'0'..=b'7' => {
            let (number, end) = digits(at, 3, 8);
            value.push(not_nul(number & 0xFF)?);
            return Some(end);
        }
        b'x' if scan::byte(bytes, at + 1).is_ascii_hexdigit() => {
            let (number, end) = digits(at + 1, 2, 16);
            value.push(not_nul(number)?);
            return Some(end);
        }
        b'u' | b'U' => {
            let length = if letter == b'u' { 4 } else { 8 };
            let (number, end) = digits(at + 1, length, 16);
            // Surrogate pairs are left to the server.
            let character = char::from_u32(number).filter(|&c| c != '\0')?;
            if end != at + 1 + length {
                return None;
            }
            value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(end);
        }
        b'b' => b'\x08',
        b'f' => b'\x0c',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => b'\x0b',
        0 => return None,
        other => other,
    };
    value.push(byte);
    Some(at + 1)
}

fn not_nul(byte: u32) -> Option<u8> {
    u8::try_from(byte).ok().filter(|&b| b != 0)
}

/// Contents between quotes, of which each two stand for one.
fn undouble(contents: &[u8], quote: u8) -> Option<String> {
    let quote = char::from(quote).to_string();
    let contents = std::str::from_utf8(contents).ok()?;
    Some(contents.replace(&quote.repeat(2), &quote))
}

/// Resolves `\XXXX`, `\+XXXXXX` and `\\`.
fn unicode_escapes(contents: &str) -> Option<String> {
    let mut name = String::with_capacity(contents.len());
    let mut rest = contents;
    while let Some((before, after)) = rest.split_once('\\') {
        name.push_str(before);
        if let Some(after) = after.strip_prefix('\\') {
            name.push('\\');
            rest = after;
            continue;
        }
        let (digits, length) = match after.strip_prefix('+') {
            Some(digits) => (digits, 6),
            None => (after, 4),
        };
        let code = digits.get(..length)?;
        if !code.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        // Surrogate pairs are left to the server.
        let code = u32::from_str_radix(code, 16).ok()?;
        name.push(char::from_u32(code).filter(|&c| c != '\0')?);
        rest = digits.get(length..)?;
    }
    name.push_str(rest);
    Some(name)
}
