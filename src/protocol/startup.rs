//! What a connection begins with: startup packets, requests for encryption, cancel requests, and
//! the negotiation of the protocol's minor version (PostgreSQL manual, "Start-up",
//! `ProcessStartupPacket` in `backend_startup.c`).
//!
//! These packets have no type byte: four bytes of length, which counts itself, and four of code.

#[cfg(test)]
mod tests;

use std::fmt;

use super::{SqlState, limits};

/// Length and code.
pub const HEADER: usize = 8;
/// The code of protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Newest minor version of protocol 3 that clients may speak.
pub const NEWEST_MINOR: u16 = 2;
/// The key of a cancel request in protocol 3.0, and the shortest of any, in bytes.
pub const MIN_CANCEL_KEY: usize = 4;
/// Longest key of a cancel request (protocol 3.2), in bytes.
pub const MAX_CANCEL_KEY: usize = 256;
/// Settings that one packet may carry, those of `options` included. PostgreSQL has about 350.
pub const MAX_PARAMETERS: usize = 400;
/// PostgreSQL's `NAMEDATALEN` less the final zero: longer names are cut, in bytes.
pub const MAX_NAME: usize = 63;

const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;

/// SSLRequest, whole.
pub const SSL_REQUEST_PACKET: [u8; HEADER] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// A setting's name and value.
pub type Setting = (Box<str>, Box<str>);

/// What cancels a server connection's running request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    pub pid: u32,
    /// [`MIN_CANCEL_KEY`] to [`MAX_CANCEL_KEY`] bytes.
    pub key: Box<[u8]>,
}

/// A packet, by its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    SslRequest,
    GssEncRequest,
    Cancel(CancelKey),
    Startup(Startup),
}

/// A StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    pub user: Box<str>,
    /// The user's name when the client names none.
    pub database: Box<str>,
    /// `replication`, when it asks for a WAL sender: a value that PostgreSQL takes for true, or
    /// `database`.
    pub replication: Option<Box<str>>,
    /// Everything else, each name once and its last value: first those of `options`, then the
    /// packet's own, which come later and so win.
    pub parameters: Vec<Setting>,
    /// The minor version that both ends speak: 0 or 2.
    pub minor: u16,
    /// NegotiateProtocolVersion, when the client must be told that it doesn't get all it asked for.
    pub negotiation: Option<Vec<u8>>,
}

/// Why a packet is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// Shorter than its own header, or longer than [`limits::STARTUP`].
    Length,
    /// A protocol that isn't version 3. Before 3.0 errors had another form.
    Version {
        major: u16,
        minor: u16,
    },
    /// The last byte isn't the list's end, or the list ends before it.
    Terminator,
    /// Not UTF-8.
    Encoding {
        what: &'static str,
    },
    NoUser,
    /// A value of `replication` that is neither a boolean nor `database`.
    Replication(Box<str>),
    /// Something in `options` that no server process accepts.
    Argument(Box<str>),
    /// `-c name` without a value in `options`.
    ArgumentWithoutValue(Box<str>),
    /// More than [`MAX_PARAMETERS`] settings.
    TooMany,
    /// A cancel request with an impossible key.
    CancelKey,
}

impl StartupError {
    /// PostgreSQL's code for it.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        match self {
            Self::Length | Self::Terminator | Self::CancelKey => SqlState::PROTOCOL_VIOLATION,
            Self::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Encoding { .. } => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION,
            Self::Replication(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::Argument(_) | Self::ArgumentWithoutValue(_) => SqlState::SYNTAX_ERROR,
            Self::TooMany => SqlState::PROGRAM_LIMIT_EXCEEDED,
        }
    }

    /// The client speaks a protocol in which an error is `E`, a text and a zero byte.
    #[must_use]
    pub fn wants_old_format(&self) -> bool {
        matches!(self, Self::Version { major: ..=2, .. })
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("invalid length of startup packet"),
            Self::Version { major, minor } => write!(
                f,
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}"
            ),
            Self::Terminator => {
                f.write_str("invalid startup packet layout: expected terminator as last byte")
            }
            Self::Encoding { what } => write!(f, "invalid UTF-8 in startup packet ({what})"),
            Self::NoUser => f.write_str("no PostgreSQL user name specified in startup packet"),
            Self::Replication(value) => {
                write!(
                    f,
                    "invalid value for parameter \"replication\": \"{value}\""
                )
            }
            Self::Argument(argument) => {
                write!(
                    f,
                    "invalid command-line argument for server process: {argument}"
                )
            }
            Self::ArgumentWithoutValue(argument) => write!(f, "{argument} requires a value"),
            Self::TooMany => f.write_str("too many settings in startup packet"),
            Self::CancelKey => f.write_str("invalid length of cancel request"),
        }
    }
}

impl std::error::Error for StartupError {}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelKey({}, …)", self.pid)
    }
}

/// The length of the packet that begins with these bytes, its own four bytes included; `Ok(None)`
/// when fewer than four are there.
///
/// # Errors
/// No packet is that long, or that short.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(&length) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(length) as usize;
    if (HEADER..=limits::STARTUP).contains(&length) {
        Ok(Some(length))
    } else {
        Err(StartupError::Length)
    }
}

/// Reads a whole packet, length included.
///
/// # Errors
/// As PostgreSQL refuses it.
pub fn parse(packet: &[u8]) -> Result<Packet, StartupError> {
    let body = packet.get(4..).ok_or(StartupError::Length)?;
    let (&code, body) = body.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    match u32::from_be_bytes(code) {
        CANCEL_REQUEST => {
            let (&pid, key) = body
                .split_first_chunk::<4>()
                .ok_or(StartupError::CancelKey)?;
            if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) {
                return Err(StartupError::CancelKey);
            }
            Ok(Packet::Cancel(CancelKey {
                pid: u32::from_be_bytes(pid),
                key: key.into(),
            }))
        }
        SSL_REQUEST => Ok(Packet::SslRequest),
        GSSENC_REQUEST => Ok(Packet::GssEncRequest),
        version => Startup::parse(version, body).map(Packet::Startup),
    }
}

/// The error for a request for encryption where none may come any more: PostgreSQL takes its code
/// for a protocol version then.
#[must_use]
pub fn repeated_request(packet: &Packet) -> StartupError {
    let minor = if matches!(packet, Packet::GssEncRequest) {
        5680
    } else {
        5679
    };
    StartupError::Version { major: 1234, minor }
}

impl Startup {
    fn parse(version: u32, body: &[u8]) -> Result<Self, StartupError> {
        let (major, minor) = ((version >> 16) as u16, (version & 0xFFFF) as u16);
        if major != 3 {
            return Err(StartupError::Version { major, minor });
        }
        let mut user = "";
        let mut database = "";
        let mut options = "";
        let mut replication = None;
        let mut own = Vec::new();
        let mut unrecognized = Vec::new();
        let mut rest = body;
        loop {
            let (name, behind) = string(rest)?;
            if name.is_empty() {
                // PostgreSQL insists that the list's end is the packet's end.
                if behind.is_empty() {
                    break;
                }
                return Err(StartupError::Terminator);
            }
            let (value, behind) = string(behind)?;
            rest = behind;
            match name {
                b"user" => user = text(value, "user")?,
                b"database" => database = text(value, "database")?,
                b"options" => options = text(value, "options")?,
                b"replication" => replication = Some(text(value, "replication")?),
                name if name.starts_with(b"_pq_.") => unrecognized.push(name),
                // PostgreSQL replaces what isn't ASCII here, too, instead of refusing the client.
                b"application_name" => own.push(("application_name".into(), ascii(value))),
                name => own.push((
                    text(name, "parameter name")?.into(),
                    text(value, "parameter value")?.into(),
                )),
            }
        }
        if user.is_empty() {
            return Err(StartupError::NoUser);
        }
        let user = cut(user);
        let mut parameters = Vec::new();
        let options = split_options(options)?;
        if options.len() + own.len() > MAX_PARAMETERS {
            return Err(StartupError::TooMany);
        }
        for (name, value) in options.into_iter().chain(own) {
            set(&mut parameters, name, value);
        }
        Ok(Self {
            database: if database.is_empty() {
                user.into()
            } else {
                cut(database).into()
            },
            user: user.into(),
            replication: replication.map(replication_mode).transpose()?.flatten(),
            parameters,
            // 3.1 was never defined; PostgreSQL 18 treats a client that asks for it as one of 3.0.
            minor: if minor >= 2 { NEWEST_MINOR } else { 0 },
            negotiation: (minor > NEWEST_MINOR || !unrecognized.is_empty())
                .then(|| negotiate(minor.min(NEWEST_MINOR), &unrecognized)),
        })
    }
}

/// StartupMessage of protocol 3.0. `None` when a name or value holds a zero byte or all are longer
/// than a server accepts.
#[must_use]
pub fn startup_message<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(256);
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
    for (name, value) in parameters {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return None;
        }
        for text in [name, value] {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
    }
    packet.push(0);
    finish(packet)
}

/// CancelRequest, whole. `None` for a key that no server gives out.
#[must_use]
pub fn cancel_request(key: &CancelKey) -> Option<Vec<u8>> {
    if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.key.len()) {
        return None;
    }
    let mut packet = vec![0; 4];
    packet.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    packet.extend_from_slice(&key.pid.to_be_bytes());
    packet.extend_from_slice(&key.key);
    finish(packet)
}

fn finish(mut packet: Vec<u8>) -> Option<Vec<u8>> {
    if packet.len() > limits::STARTUP {
        return None;
    }
    let length = u32::try_from(packet.len()).ok()?;
    packet.get_mut(..4)?.copy_from_slice(&length.to_be_bytes());
    Some(packet)
}

/// NegotiateProtocolVersion: the version as PostgreSQL sends it (major and minor in one number,
/// whatever the manual says), then the options that aren't known.
fn negotiate(minor: u16, unrecognized: &[&[u8]]) -> Vec<u8> {
    let count = u32::try_from(unrecognized.len()).unwrap_or(0);
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&(PROTOCOL_3_0 | u32::from(minor)).to_be_bytes());
    body.extend_from_slice(&count.to_be_bytes());
    for name in unrecognized {
        body.extend_from_slice(name);
        body.push(0);
    }
    // The names come out of a packet of limited length.
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&b"v"[..], &length.to_be_bytes(), &body].concat()
}

/// Splits as `pg_split_opts` does (white space; a backslash takes the next character literally) and
/// reads `-c name=value`, `--name=value` and the letters of settings that a session may change as
/// `process_postgres_switches` does.
fn split_options(options: &str) -> Result<Vec<Setting>, StartupError> {
    let mut settings = Vec::new();
    let mut arguments = split_arguments(options).into_iter();
    while let Some(argument) = arguments.next() {
        let (given, assignment) = if let Some(long) = argument.strip_prefix("--") {
            (argument.clone(), long.to_owned())
        } else if argument == "-c" {
            let next = arguments
                .next()
                .ok_or_else(|| StartupError::ArgumentWithoutValue(argument.as_str().into()))?;
            (format!("-c {next}"), next)
        } else if let Some(short) = argument.strip_prefix("-c") {
            (format!("-c {short}"), short.to_owned())
        } else {
            let next = || arguments.next();
            settings.push(switch(&argument, next).ok_or(StartupError::Argument(argument.into()))?);
            continue;
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_").into(), value.into()));
            }
            _ => return Err(StartupError::ArgumentWithoutValue(given.into())),
        }
    }
    Ok(settings)
}

/// What `-e`, `-f…` and `-S…` stand for (PostgreSQL manual, "postgres"). All other letters are the
/// server's, or a superuser's.
fn switch(argument: &str, next: impl FnOnce() -> Option<String>) -> Option<Setting> {
    let mut rest = argument.strip_prefix('-')?.chars();
    let letter = rest.next()?;
    let attached = rest.as_str();
    let value = || {
        if attached.is_empty() {
            next()
        } else {
            Some(attached.to_owned())
        }
    };
    let (name, value) = match letter {
        'e' if attached.is_empty() => ("datestyle", "euro".to_owned()),
        'S' => ("work_mem", value()?),
        'f' => {
            let plan = match value()?.as_str() {
                "b" => "enable_bitmapscan",
                "h" => "enable_hashjoin",
                "i" => "enable_indexscan",
                "m" => "enable_mergejoin",
                "n" => "enable_nestloop",
                "o" => "enable_indexonlyscan",
                "s" => "enable_seqscan",
                "t" => "enable_tidscan",
                _ => return None,
            };
            (plan, "false".to_owned())
        }
        _ => return None,
    };
    Some((name.into(), value.into()))
}

fn split_arguments(options: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut characters = options.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' => arguments.extend(current.take()),
            '\\' => current.get_or_insert_default().extend(characters.next()),
            c => current.get_or_insert_default().push(c),
        }
    }
    arguments.extend(current);
    arguments
}

/// Setting names are the same in any case.
fn set(parameters: &mut Vec<Setting>, name: Box<str>, value: Box<str>) {
    match parameters
        .iter_mut()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name))
    {
        Some((_, old)) => *old = value,
        None => parameters.push((name, value)),
    }
}

/// `replication` as `parse_bool` reads it: unique prefixes, any case.
fn replication_mode(value: &str) -> Result<Option<Box<str>>, StartupError> {
    let lower = value.to_ascii_lowercase();
    let abbreviates =
        |word: &str, shortest: usize| lower.len() >= shortest && word.starts_with(lower.as_str());
    if value == "database"
        || lower == "1"
        || lower == "on"
        || abbreviates("true", 1)
        || abbreviates("yes", 1)
    {
        Ok(Some(value.into()))
    } else if lower == "0"
        || abbreviates("off", 2)
        || abbreviates("false", 1)
        || abbreviates("no", 1)
    {
        Ok(None)
    } else {
        Err(StartupError::Replication(value.into()))
    }
}

/// The string before the next zero byte, and what is behind it.
fn string(bytes: &[u8]) -> Result<(&[u8], &[u8]), StartupError> {
    let end = memchr::memchr(0, bytes).ok_or(StartupError::Terminator)?;
    let (head, tail) = bytes
        .split_at_checked(end)
        .ok_or(StartupError::Terminator)?;
    Ok((head, tail.get(1..).unwrap_or_default()))
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, StartupError> {
    std::str::from_utf8(bytes).map_err(|_error| StartupError::Encoding { what })
}

fn ascii(bytes: &[u8]) -> Box<str> {
    bytes
        .iter()
        .map(|&b| {
            if matches!(b, b' '..=b'~') {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect()
}

/// At most [`MAX_NAME`] bytes of whole characters.
fn cut(name: &str) -> &str {
    if name.len() <= MAX_NAME {
        return name;
    }
    (0..=MAX_NAME)
        .rev()
        .find_map(|end| name.get(..end))
        .unwrap_or_default()
}
