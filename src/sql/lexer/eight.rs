//! Eight bytes of a text at a time, as one number whose lowest byte comes first: what most words
//! and literals need one step for.

/// The eight bytes from `at` on; NULs, which no readable text holds, beyond its end.
#[inline]
pub(in crate::sql) fn load(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => load_last(text, at),
    }
}

fn load_last(text: &[u8], at: usize) -> u64 {
    if let Some(last) = text.last_chunk() {
        let passed = at + 8 - text.len();
        return if passed < 8 {
            u64::from_le_bytes(*last) >> (8 * passed)
        } else {
            0
        };
    }
    let rest = text.get(at..).unwrap_or_default();
    rest.iter()
        .rev()
        .fold(0, |bytes, &byte| bytes << 8 | u64::from(byte))
}

/// The bytes with ASCII letters in lower case, and how many of them, from the first on, a word may
/// go on with: ASCII letters and digits, `_`, `$`, and all from 0x80 up.
#[inline]
pub(in crate::sql) fn word(bytes: u64) -> (u64, usize) {
    let low = bytes & !HIGH;
    let letter = in_range(low | each(0x20), b'a', b'z') & !bytes;
    let digit = in_range(low, b'0', b'9');
    let other = equal_low(low, b'_') | equal_low(low, b'$');
    let length = first(!(letter | digit | other | bytes) & HIGH);
    // A letter's bit 0x20 tells its case: where it isn't set, the mark is moved there.
    let upper = letter & !(bytes << 2);
    (bytes | upper >> 2, length)
}

/// The high bit of each byte that may begin or end a literal or a comment: of none of the letters, the
/// bytes from 0x80 up, the spaces, the double quotes, and most punctuation.
#[inline]
pub(in crate::sql) fn stops(bytes: u64) -> u64 {
    let low = bytes & !HIGH;
    let control = !low.wrapping_add(each(0x80 - b' ')) & !bytes;
    let quote = in_range(low, b'#', b'\'');
    let digit = in_range(low, b'/', b'9');
    let other = equal_low(low, b'-') | equal_low(low, b'\\');
    let brace = low.wrapping_add(each(0x80 - b'{'));
    (control | quote | digit | other | brace) & !bytes & HIGH
}

/// The mark of the first byte.
pub(in crate::sql) const FIRST: u64 = 0x80;

/// The high bit of each byte that is a double quote.
#[inline]
pub(in crate::sql) fn double_quotes(bytes: u64) -> u64 {
    equal_low(bytes & !HIGH, b'"') & !bytes
}

/// An odd number of bytes has its high bit set in `marks`.
#[inline]
pub(in crate::sql) fn is_odd(marks: u64) -> bool {
    (marks >> 7).wrapping_mul(each(1)) >> 56 & 1 != 0
}

/// `marks` before the place of the first of `ends`.
#[inline]
pub(in crate::sql) fn before(marks: u64, ends: u64) -> u64 {
    marks & ends.wrapping_sub(1) & !ends
}

/// How many of the bytes, from the first on, are digits.
#[inline]
pub(in crate::sql) fn digits(bytes: u64) -> usize {
    first(!(in_range(bytes & !HIGH, b'0', b'9') & !bytes) & HIGH)
}

/// How many bytes precede the first `byte`; 8 if there is none.
#[inline]
pub(in crate::sql) fn find(bytes: u64, byte: u8) -> usize {
    let difference = bytes ^ each(byte);
    // Exact up to the first match, which is all that is asked for.
    first(difference.wrapping_sub(each(1)) & !difference & HIGH)
}

const HIGH: u64 = each(0x80);

/// Eight times `byte`.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of each byte of `low`, whose own high bits are clear, that is in the range.
#[inline]
fn in_range(low: u64, from: u8, to: u8) -> u64 {
    low.wrapping_add(each(0x80 - from)) & !low.wrapping_add(each(0x7F - to)) & HIGH
}

/// The high bit of each byte of `low`, whose own high bits are clear, that is `byte`.
#[inline]
fn equal_low(low: u64, byte: u8) -> u64 {
    !(low ^ each(byte)).wrapping_add(each(0x7F)) & HIGH
}

/// The place of the first byte whose high bit is set in `marks`.
#[inline]
pub(in crate::sql) fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_place_is_classified() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for around in [b'a', b'Z', 0x80, 0xFF] {
                    let mut bytes = [around; 8];
                    bytes[place] = byte;
                    let number = u64::from_le_bytes(bytes);
                    let goes_on =
                        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
                    let (folded, length) = word(number);
                    assert_eq!(length, if goes_on { 8 } else { place });
                    let lower = bytes.to_ascii_lowercase();
                    assert_eq!(folded.to_le_bytes().to_vec(), lower, "{bytes:?}");
                    if byte != around {
                        assert_eq!(find(number, byte), place);
                    }
                    let digits = if byte.is_ascii_digit() {
                        place + 1
                    } else {
                        place
                    };
                    let mut leading = [b'7'; 8];
                    leading[place] = byte;
                    leading[place + 1..].fill(around);
                    assert_eq!(super::digits(u64::from_le_bytes(leading)), digits);
                    let mark = |is: bool| if is { 0x80 << (8 * place) } else { 0 };
                    let stop = byte < b' '
                        || byte.is_ascii_digit()
                        || matches!(byte, b'#'..=b'\'' | b'-' | b'/' | b'\\' | b'{'..=0x7F);
                    assert_eq!(stops(number), mark(stop), "{bytes:?}");
                    assert_eq!(double_quotes(number), mark(byte == b'"'), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn marks_are_counted_up_to_a_place() {
        for marks in 0..=255_u64 {
            let spread = (0..8).map(|i| (marks >> i & 1) << (8 * i + 7)).sum();
            assert_eq!(is_odd(spread), marks.count_ones() % 2 == 1, "{marks:b}");
            for end in 0..8 {
                let kept = before(spread, 0x80 << (8 * end));
                assert_eq!(kept, spread & ((1 << (8 * end)) - 1), "{marks:b} {end}");
            }
            assert_eq!(before(spread, 0), spread);
        }
    }

    #[test]
    fn the_end_of_a_text_is_padded() {
        assert_eq!(load(b"abc", 0).to_le_bytes(), *b"abc\0\0\0\0\0");
        assert_eq!(load(b"abcdefgh", 1).to_le_bytes(), *b"bcdefgh\0");
        assert_eq!(load(b"abc", 3), 0);
        assert_eq!(load(b"abc", 9), 0);
    }
}
