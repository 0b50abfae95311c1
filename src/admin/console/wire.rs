//! The messages that the console reads and writes (PostgreSQL manual, "Message Formats").
//!
//! Pure: bytes in, values out; every length is checked against a limit before anything is kept.

use super::tables::{Cell, Column, Type};
use crate::{error::Visible, protocol::SqlState};

/// Longest message that a console client may send, in bytes: commands and statements to explain.
pub(super) const MESSAGE: usize = 1 << 20;

/// Not the protocol, or more of it than the console takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// One frontend message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    Query(String),
    Parse {
        name: String,
        sql: String,
    },
    Bind {
        portal: String,
        statement: String,
        parameters: usize,
        formats: Vec<i16>,
    },
    Describe(Target),
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close(Target),
    Sync,
    Flush,
    Terminate,
    FunctionCall,
    /// COPY messages outside of a COPY: to be passed over.
    Copy,
}

/// What Describe and Close name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Statement(String),
    Portal(String),
}

/// The first whole message in `bytes` and its length; `None` while there isn't one yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Frontend, usize)>, Malformed> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    // Looked at before the length: what isn't a message has no length either.
    if !b"QPBDECSHXFdcf".contains(kind) {
        return Err(Malformed("unknown message type"));
    }
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(4..=MESSAGE).contains(&length) {
        return Err(Malformed("invalid message length"));
    }
    let Some(body) = rest.get(4..length) else {
        return Ok(None);
    };
    let mut body = Body(body);
    let message = match kind {
        b'Q' => Frontend::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            for _parameter in 0..body.count()? {
                body.take(4)?;
            }
            Frontend::Parse { name, sql }
        }
        b'B' => body.bind()?,
        b'D' => Frontend::Describe(body.target()?),
        b'C' => Frontend::Close(body.target()?),
        b'E' => Frontend::Execute {
            portal: body.text()?,
            max_rows: usize::try_from(body.int4()?).unwrap_or(0),
        },
        b'S' => Frontend::Sync,
        b'H' => Frontend::Flush,
        b'X' => Frontend::Terminate,
        b'F' => {
            body.0 = &[];
            Frontend::FunctionCall
        }
        _ => {
            body.0 = &[];
            Frontend::Copy
        }
    };
    if !body.0.is_empty() {
        return Err(Malformed("invalid message format"));
    }
    Ok(Some((message, length + 1)))
}

/// The rest of a message's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("insufficient data left in message"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Up to a zero byte. The console speaks UTF-8; what isn't is shown as such and won't match
    /// anything.
    fn text(&mut self) -> Result<String, Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed("invalid string in message"))?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn int2(&mut self) -> Result<i16, Malformed> {
        let bytes = self.take(2)?.first_chunk().copied().unwrap_or_default();
        Ok(i16::from_be_bytes(bytes))
    }

    fn int4(&mut self) -> Result<i32, Malformed> {
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(i32::from_be_bytes(bytes))
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.int2()?).map_err(|_negative| Malformed("negative count in message"))
    }

    fn target(&mut self) -> Result<Target, Malformed> {
        match self.take(1)? {
            b"S" => Ok(Target::Statement(self.text()?)),
            b"P" => Ok(Target::Portal(self.text()?)),
            _ => Err(Malformed("neither a statement nor a portal")),
        }
    }

    fn bind(&mut self) -> Result<Frontend, Malformed> {
        let (portal, statement) = (self.text()?, self.text()?);
        for _format in 0..self.count()? {
            self.int2()?;
        }
        let parameters = self.count()?;
        for _parameter in 0..parameters {
            if let Ok(length) = usize::try_from(self.int4()?) {
                self.take(length)?;
            }
        }
        let mut formats = Vec::new();
        for _format in 0..self.count()? {
            formats.push(self.int2()?);
        }
        Ok(Frontend::Bind {
            portal,
            statement,
            parameters,
            formats,
        })
    }
}

/// Messages to be sent.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(kind);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    pub(super) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |out| {
            text(out, name);
            text(out, value);
        });
    }

    pub(super) fn backend_key(&mut self, process: u32, secret: u32) {
        self.message(b'K', |out| {
            out.extend_from_slice(&process.to_be_bytes());
            out.extend_from_slice(&secret.to_be_bytes());
        });
    }

    pub(super) fn ready(&mut self, status: u8) {
        self.message(b'Z', |out| out.push(status));
    }

    /// A message without a body: ParseComplete and the like.
    pub(super) fn bare(&mut self, kind: u8) {
        self.message(kind, |_out| {});
    }

    /// No parameters: the console's statements have none.
    pub(super) fn parameter_description(&mut self) {
        self.message(b't', |out| out.extend_from_slice(&[0, 0]));
    }

    pub(super) fn row_description(&mut self, columns: &[Column], formats: &[i16]) {
        self.message(b'T', |out| {
            count(out, columns.len());
            for (index, Column(name, kind)) in columns.iter().enumerate() {
                text(out, name);
                // Of no table's column.
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&kind.oid().to_be_bytes());
                out.extend_from_slice(&kind.size().to_be_bytes());
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                out.extend_from_slice(&i16::from(is_binary(formats, index)).to_be_bytes());
            }
        });
    }

    pub(super) fn data_row(&mut self, columns: &[Column], cells: &[Cell], formats: &[i16]) {
        self.message(b'D', |out| {
            count(out, cells.len());
            for (index, (Column(_name, kind), cell)) in columns.iter().zip(cells).enumerate() {
                let Some(value) = cell else {
                    out.extend_from_slice(&(-1_i32).to_be_bytes());
                    continue;
                };
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                if is_binary(formats, index) {
                    binary(out, *kind, value);
                } else {
                    out.extend_from_slice(value.as_bytes());
                }
                let length = u32::try_from(out.len() - start - 4).unwrap_or(0);
                if let Some(field) = out.get_mut(start..start + 4) {
                    field.copy_from_slice(&length.to_be_bytes());
                }
            }
        });
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.message(b'C', |out| text(out, tag));
    }

    pub(super) fn notice(&mut self, message: &str) {
        self.message(b'N', |out| {
            fields(out, "NOTICE", SqlState(*b"00000"), message, None);
        });
    }

    pub(super) fn error(&mut self, error: &Visible) {
        let severity = if error.fatal { "FATAL" } else { "ERROR" };
        self.message(b'E', |out| {
            let hint = error.hint.as_deref();
            fields(out, severity, error.sqlstate, &error.message, hint);
        });
    }
}

fn fields(out: &mut Vec<u8>, severity: &str, state: SqlState, message: &str, hint: Option<&str>) {
    let fields = [
        (b'S', severity),
        (b'V', severity),
        (b'C', state.as_str()),
        (b'M', message),
    ];
    for (kind, value) in fields.into_iter().chain(hint.map(|hint| (b'H', hint))) {
        out.push(kind);
        text(out, value);
    }
    out.push(0);
}

/// A text can't carry a zero byte: it ends there.
fn text(out: &mut Vec<u8>, value: &str) {
    out.extend(value.bytes().take_while(|byte| *byte != 0));
    out.push(0);
}

fn count(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

/// Bind's rule: none is text, one is for all columns, else one each.
fn is_binary(formats: &[i16], column: usize) -> bool {
    let format = match formats {
        [all] => Some(all),
        each => each.get(column),
    };
    format == Some(&1)
}

impl Type {
    fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Int8 => 20,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Float8 => 701,
            Self::Numeric => 1700,
        }
    }

    fn size(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int4 => 4,
            Self::Int8 | Self::Float8 => 8,
            Self::Text | Self::Numeric => -1,
        }
    }
}

/// A value in its type's binary form. A number that doesn't fit becomes the largest.
fn binary(out: &mut Vec<u8>, kind: Type, value: &str) {
    let whole = || value.parse::<i64>().unwrap_or(i64::MAX);
    match kind {
        Type::Text => out.extend_from_slice(value.as_bytes()),
        Type::Bool => out.push(u8::from(value == "t")),
        Type::Int4 => {
            let number = i32::try_from(whole()).unwrap_or(i32::MAX);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Type::Int8 => out.extend_from_slice(&whole().to_be_bytes()),
        Type::Float8 => {
            let number = value.parse::<f64>().unwrap_or(f64::NAN);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Type::Numeric => numeric(out, value.parse().unwrap_or(u64::MAX)),
    }
}

/// A whole number as `numeric`: digits of base 10,000, the highest first.
fn numeric(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(u16::try_from(number % 10_000).unwrap_or(0));
        number /= 10_000;
    }
    digits.reverse();
    count(out, digits.len());
    count(out, digits.len().saturating_sub(1));
    // Positive, without decimals.
    out.extend_from_slice(&[0; 4]);
    for digit in digits {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn messages_are_read_whole_or_not_yet() {
        let bytes = frame(b'Q', b"SHOW POOLS\0");
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end} bytes");
        }
        let query = Frontend::Query("SHOW POOLS".into());
        assert_eq!(read(&bytes), Ok(Some((query, bytes.len()))));
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        for bytes in [
            frame(b'Q', b"no end"),
            frame(b'Q', b"two\0ends\0"),
            frame(b'D', b"X\0"),
            frame(b'S', b"more"),
            frame(b'P', b"\0\0\xff\xff"),
            frame(b'B', b"\0\0\0\0\0\x01\0\0\0\x05abc"),
            vec![b'Q', 0, 0, 0, 3],
            vec![b'Q', 0xff, 0xff, 0xff, 0xff],
            b"GET / HTTP/1.1\r\n".to_vec(),
        ] {
            assert!(read(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn numeric_has_digits_of_base_ten_thousand() {
        let cases: [(u64, &[u8]); 3] = [
            (0, &[0, 0, 0, 0, 0, 0, 0, 0]),
            (7, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 7]),
            (
                12_345_678,
                &[0, 2, 0, 1, 0, 0, 0, 0, 0x04, 0xd2, 0x16, 0x2e],
            ),
        ];
        for (number, expected) in cases {
            let mut out = Vec::new();
            numeric(&mut out, number);
            assert_eq!(out, expected, "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_refused_or_waited_for(
            kind in prop::sample::select(b"QPBDECSHXFdcfZ".to_vec()),
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = frame(kind, &body);
            if let Ok(Some((_message, length))) = read(&bytes) {
                prop_assert_eq!(length, bytes.len());
            }
            let _any = read(&body);
        }
    }
}
