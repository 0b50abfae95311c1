//! Views of the backend messages that pgsplit reads.

use super::{
    SqlState,
    frame::{Fields, Malformed},
};

/// Types of backend messages.
pub mod tag {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// ReadyForQuery's transaction status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Idle,
    InTransaction,
    Failed,
}

impl Status {
    /// Reads the body of a ReadyForQuery.
    ///
    /// # Errors
    /// Not one of the three letters.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::InTransaction),
            b"E" => Ok(Self::Failed),
            _ => Err(Malformed::Body {
                tag: tag::READY_FOR_QUERY,
            }),
        }
    }

    /// The letter.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// An ErrorResponse's fields, as far as decisions are made on them.
#[derive(Clone, Copy, Debug)]
pub struct ErrorView<'a> {
    pub sqlstate: SqlState,
    /// FATAL or PANIC: the connection ends with it.
    pub fatal: bool,
    pub message: &'a [u8],
    /// Empty: it has none.
    pub hint: &'a [u8],
}

impl<'a> ErrorView<'a> {
    /// Reads the body of an ErrorResponse (or NoticeResponse).
    ///
    /// # Errors
    /// A field without its end.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut view = Self {
            sqlstate: SqlState::INTERNAL_ERROR,
            fatal: false,
            message: b"",
            hint: b"",
        };
        let mut fields = Fields::new(tag::ERROR_RESPONSE, body);
        loop {
            match fields.byte()? {
                0 => return Ok(view),
                b'V' => {
                    let severity = fields.string()?;
                    view.fatal = severity == b"FATAL" || severity == b"PANIC";
                }
                b'C' => {
                    if let Ok(code) = <[u8; 5]>::try_from(fields.string()?) {
                        view.sqlstate = SqlState(code);
                    }
                }
                b'M' => view.message = fields.string()?,
                b'H' => view.hint = fields.string()?,
                _ => {
                    fields.string()?;
                }
            }
        }
    }
}

/// A ParameterStatus: name and value.
///
/// # Errors
/// Not two strings.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut fields = Fields::new(tag::PARAMETER_STATUS, body);
    Ok((fields.string()?, fields.string()?))
}

/// A CommandComplete's tag.
///
/// # Errors
/// Not a string.
pub fn command_tag(body: &[u8]) -> Result<&[u8], Malformed> {
    Fields::new(tag::COMMAND_COMPLETE, body).string()
}
