//! Views of the frontend messages that pgsplit reads. Each borrows the frame's body; nothing is
//! copied or decoded beyond what is looked at.

use super::frame::{Fields, Malformed};

/// Types of frontend messages.
pub mod tag {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// What Describe and Close speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Statement,
    Portal,
}

/// Parse.
#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub text: &'a [u8],
    /// The count of parameter types and the types, as they stand in the message.
    pub types: &'a [u8],
}

/// Bind, as far as its names.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Everything behind the names.
    pub rest: &'a [u8],
}

/// Describe or Close.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub object: Object,
    pub name: &'a [u8],
}

/// Execute.
#[derive(Clone, Copy, Debug)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// 0: all.
    pub max_rows: u32,
}

/// The text of a Query message.
///
/// # Errors
/// No zero byte at its end, or one before.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::new(tag::QUERY, body);
    let text = fields.string()?;
    if fields.rest().is_empty() {
        Ok(text)
    } else {
        Err(Malformed::Body { tag: tag::QUERY })
    }
}

impl<'a> Parse<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// A body that isn't one of this message's.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(tag::PARSE, body);
        let (name, text) = (fields.string()?, fields.string()?);
        let types = fields.rest();
        let count = usize::from(fields.u16()?);
        if fields.rest().len() != count * 4 {
            return Err(Malformed::Body { tag: tag::PARSE });
        }
        Ok(Self { name, text, types })
    }
}

impl<'a> Bind<'a> {
    /// Reads the names from the front of the body, which may be incomplete.
    ///
    /// # Errors
    /// The names don't end within it.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(tag::BIND, body);
        let (portal, statement) = (fields.string()?, fields.string()?);
        Ok(Self {
            portal,
            statement,
            rest: fields.rest(),
        })
    }
}

/// A parameter's value, and whether it is in text format.
pub type Parameter<'a> = (bool, Option<&'a [u8]>);

impl<'a> Bind<'a> {
    /// The parameters that it binds, when all of the message is there.
    ///
    /// # Errors
    /// A body that isn't one of this message's.
    pub fn parameters(&self) -> Result<Vec<Parameter<'a>>, Malformed> {
        let mut fields = Fields::new(tag::BIND, self.rest);
        let formats: Vec<u16> = (0..fields.u16()?)
            .map(|_| fields.u16())
            .collect::<Result<_, _>>()?;
        let count = fields.u16()?;
        (0..usize::from(count))
            .map(|at| {
                let format = match formats.as_slice() {
                    [] => 0,
                    [all] => *all,
                    each => each.get(at).copied().unwrap_or_default(),
                };
                let length = fields.u32()?;
                let value = if length == u32::MAX {
                    None
                } else {
                    Some(fields.bytes(length as usize)?)
                };
                Ok((format == 0, value))
            })
            .collect()
    }
}

impl<'a> Target<'a> {
    /// Reads the body of a Describe or Close.
    ///
    /// # Errors
    /// A body that isn't one of these messages'.
    pub fn read(tag: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(tag, body);
        let object = match fields.byte()? {
            b'S' => Object::Statement,
            b'P' => Object::Portal,
            _ => return Err(Malformed::Body { tag }),
        };
        let name = fields.string()?;
        if fields.rest().is_empty() {
            Ok(Self { object, name })
        } else {
            Err(Malformed::Body { tag })
        }
    }
}

impl<'a> Execute<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// A body that isn't one of this message's.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(tag::EXECUTE, body);
        let portal = fields.string()?;
        let max_rows = fields.u32()?;
        if fields.rest().is_empty() {
            Ok(Self { portal, max_rows })
        } else {
            Err(Malformed::Body { tag: tag::EXECUTE })
        }
    }
}
