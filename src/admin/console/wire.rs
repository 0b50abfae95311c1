//! The messages that the console reads and writes (PostgreSQL manual, "Message Formats").
//!
//! Pure: bytes in, values out; every length is checked against a limit before anything is kept.

use std::borrow::Cow;

use crate::{
    admin::tables::{Cell, Column, Type},
    error::Visible,
    protocol::{
        backend::{Status, tag},
        frame::{Fields, HEADER, Header, Malformed},
        frontend::{self, Object, tag as front},
        write,
    },
};

/// Longest message that a console client may send, in bytes: commands and statements to explain.
pub(super) const MESSAGE: usize = 256 * 1024;

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
        formats: Vec<u16>,
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
    // Looked at before the length: what isn't a message has no length either.
    match bytes.first() {
        Some(&tag) if !b"QPBDECSHXFdcf".contains(&tag) => {
            return Err(Malformed::Unexpected { tag });
        }
        _ => {}
    }
    let Some(header) = Header::parse(bytes)? else {
        return Ok(None);
    };
    if header.len > MESSAGE {
        let length = u32::try_from(header.len).unwrap_or(u32::MAX);
        return Err(Malformed::TooLong {
            tag: header.tag,
            length,
        });
    }
    let Some(body) = bytes.get(HEADER..header.len) else {
        return Ok(None);
    };
    let message = match header.tag {
        front::QUERY => Frontend::Query(string(frontend::query(body)?)),
        front::PARSE => {
            let parse = frontend::Parse::read(body)?;
            Frontend::Parse {
                name: string(parse.name),
                sql: string(parse.text),
            }
        }
        front::BIND => bind(body)?,
        front::DESCRIBE => Frontend::Describe(target(header.tag, body)?),
        front::CLOSE => Frontend::Close(target(header.tag, body)?),
        front::EXECUTE => {
            let execute = frontend::Execute::read(body)?;
            Frontend::Execute {
                portal: string(execute.portal),
                // As PostgreSQL: no limit when it isn't positive.
                max_rows: i32::try_from(execute.max_rows).map_or(0, |rows| rows as usize),
            }
        }
        front::FUNCTION_CALL => Frontend::FunctionCall,
        front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL => Frontend::Copy,
        tag if !body.is_empty() => return Err(Malformed::Body { tag }),
        front::SYNC => Frontend::Sync,
        front::FLUSH => Frontend::Flush,
        front::TERMINATE => Frontend::Terminate,
        tag => return Err(Malformed::Unexpected { tag }),
    };
    Ok(Some((message, header.len)))
}

/// The console speaks UTF-8; what isn't is shown as such and won't match anything.
fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn target(tag: u8, body: &[u8]) -> Result<Target, Malformed> {
    let target = frontend::Target::read(tag, body)?;
    Ok(match target.object {
        Object::Statement => Target::Statement(string(target.name)),
        Object::Portal => Target::Portal(string(target.name)),
    })
}

fn bind(body: &[u8]) -> Result<Frontend, Malformed> {
    let malformed = || Malformed::Body { tag: front::BIND };
    let bind = frontend::Bind::read(body)?;
    let mut fields = Fields::new(front::BIND, bind.rest);
    for _format in 0..fields.u16()? {
        fields.u16()?;
    }
    let parameters = fields.u16()?;
    for _parameter in 0..parameters {
        let length = fields.u32()?;
        // The highest bit says NULL.
        let length = i32::try_from(length).map_or(0, |length| length as usize);
        let rest = fields.rest().get(length..).ok_or_else(malformed)?;
        fields = Fields::new(front::BIND, rest);
    }
    let mut formats = Vec::new();
    for _format in 0..fields.u16()? {
        formats.push(fields.u16()?);
    }
    if !fields.rest().is_empty() {
        return Err(malformed());
    }
    Ok(Frontend::Bind {
        portal: string(bind.portal),
        statement: string(bind.statement),
        parameters: usize::from(parameters),
        formats,
    })
}

/// Messages to be sent.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn parameter_status(&mut self, name: &str, value: &str) {
        write::parameter_status(&mut self.0, name.as_bytes(), without_zero(value).as_bytes());
    }

    pub(super) fn backend_key(&mut self, process: u32, secret: u32) {
        write::backend_key_data(&mut self.0, process, &secret.to_be_bytes());
    }

    pub(super) fn ready(&mut self, status: Status) {
        write::ready_for_query(&mut self.0, status);
    }

    /// A message without a body: ParseComplete and the like.
    pub(super) fn bare(&mut self, tag: u8) {
        write::bare(&mut self.0, tag);
    }

    /// No parameters: the console's statements have none.
    pub(super) fn parameter_description(&mut self) {
        write::frame(&mut self.0, tag::PARAMETER_DESCRIPTION, |out| {
            out.extend_from_slice(&[0, 0]);
        });
    }

    pub(super) fn row_description(&mut self, columns: &[Column], formats: &[u16]) {
        write::frame(&mut self.0, tag::ROW_DESCRIPTION, |out| {
            count(out, columns.len());
            for (index, Column(name, kind)) in columns.iter().enumerate() {
                text(out, name);
                // Of no table's column.
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&kind.oid().to_be_bytes());
                out.extend_from_slice(&kind.size().to_be_bytes());
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                out.extend_from_slice(&u16::from(is_binary(formats, index)).to_be_bytes());
            }
        });
    }

    pub(super) fn data_row(&mut self, columns: &[Column], cells: &[Cell], formats: &[u16]) {
        write::frame(&mut self.0, tag::DATA_ROW, |out| {
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
        write::command_complete(&mut self.0, tag);
    }

    pub(super) fn notice(&mut self, message: &str) {
        let message = without_zero(message);
        let fields = [
            (b'S', "NOTICE"),
            (b'V', "NOTICE"),
            (b'C', "00000"),
            (b'M', &*message),
        ];
        write::frame(&mut self.0, tag::NOTICE_RESPONSE, |out| {
            for (kind, value) in fields {
                out.push(kind);
                text(out, value);
            }
            out.push(0);
        });
    }

    pub(super) fn error(&mut self, error: &Visible) {
        let mut error = error.clone();
        error.message = without_zero(&error.message).into_owned().into();
        write::error(&mut self.0, &error);
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

/// A string in a message ends at a zero byte: what a client wrote may hold one.
fn without_zero(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn count(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

/// Bind's rule: none is text, one is for all columns, else one each.
fn is_binary(formats: &[u16], column: usize) -> bool {
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
