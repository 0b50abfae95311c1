//! Frames: a type byte, a length that counts itself, a body (PostgreSQL manual, "Message Formats").

use std::fmt;

use super::limits;

/// Bytes before a frame's body.
pub const HEADER: usize = 5;

/// The first five bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Of the whole frame, header included.
    pub len: usize,
}

/// Bytes that can never become a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The length says less than its own four bytes.
    Length { tag: u8, length: u32 },
    /// Longer than [`limits::MESSAGE`].
    TooLong { tag: u8, length: u32 },
    /// The body ends early, has a string without its end, or something behind its end.
    Body { tag: u8 },
    /// No message of this type may come here.
    Unexpected { tag: u8 },
}

impl Header {
    /// Reads a header; `Ok(None)` when fewer than five bytes are there.
    ///
    /// # Errors
    /// A length that no message can have.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(Malformed::Length { tag, length });
        }
        if length as usize > limits::MESSAGE {
            return Err(Malformed::TooLong { tag, length });
        }
        Ok(Some(Self {
            tag,
            len: length as usize + 1,
        }))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = |tag: u8| (tag as char).escape_default();
        match *self {
            Self::Length { tag: t, length } => {
                write!(
                    f,
                    "invalid length {length} of a message of type \"{}\"",
                    tag(t)
                )
            }
            Self::TooLong { tag: t, length } => {
                write!(
                    f,
                    "message of type \"{}\" is too long: {length} bytes",
                    tag(t)
                )
            }
            Self::Body { tag: t } => {
                write!(f, "invalid body of a message of type \"{}\"", tag(t))
            }
            Self::Unexpected { tag: t } => {
                write!(f, "unexpected message of type \"{}\"", tag(t))
            }
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the fields of a body from its front.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Over the body of a frame of type `tag`.
    #[must_use]
    pub fn new(tag: u8, body: &'a [u8]) -> Self {
        Self { tag, rest: body }
    }

    fn malformed(&self) -> Malformed {
        Malformed::Body { tag: self.tag }
    }

    /// A string, without the zero byte that ends it.
    ///
    /// # Errors
    /// No zero byte left.
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.malformed())?;
        let (head, tail) = self
            .rest
            .split_at_checked(end)
            .ok_or_else(|| self.malformed())?;
        self.rest = tail.get(1..).unwrap_or_default();
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// Nothing left.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(first)
    }

    /// Two bytes, big-endian.
    ///
    /// # Errors
    /// Fewer left.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        let (&bytes, rest) = self
            .rest
            .split_first_chunk::<2>()
            .ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(u16::from_be_bytes(bytes))
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// Fewer left.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (&bytes, rest) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(u32::from_be_bytes(bytes))
    }

    /// So many bytes.
    ///
    /// # Errors
    /// Fewer left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.malformed())?;
        self.rest = tail;
        Ok(head)
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_needs_five_bytes_and_a_possible_length() {
        assert_eq!(Header::parse(b"Q\0\0\0"), Ok(None));
        assert_eq!(
            Header::parse(b"Q\0\0\0\x04"),
            Ok(Some(Header { tag: b'Q', len: 5 }))
        );
        assert_eq!(
            Header::parse(b"Q\0\0\0\x03"),
            Err(Malformed::Length {
                tag: b'Q',
                length: 3
            })
        );
        assert!(matches!(
            Header::parse(b"Q\xFF\0\0\0"),
            Err(Malformed::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn fields_never_reach_behind_the_body(body: Vec<u8>) {
            let mut fields = Fields::new(b'B', &body);
            let mut seen = 0;
            while let Ok(string) = fields.string() {
                seen += string.len() + 1;
            }
            prop_assert_eq!(seen + fields.rest().len(), body.len());
        }
    }
}
