//! What a connection begins with: startup packets, requests for encryption, cancel requests, and
//! the negotiation of the protocol's minor version (PostgreSQL manual, "Start-up",
//! `ProcessStartupPacket` in `backend_startup.c`).
//!
//! These packets have no type byte: four bytes of length, which counts itself, and four of code.

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
        for (name, value) in split_options(options)?.into_iter().chain(own) {
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
/// reads `-c name=value`, `-cname=value` and `--name=value` as `process_postgres_switches` does.
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
            return Err(StartupError::Argument(argument.into()));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(version: u32, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; 4];
        packet.extend_from_slice(&version.to_be_bytes());
        for (name, value) in pairs {
            packet.extend([name, &b"\0"[..], value, b"\0"].concat());
        }
        packet.push(0);
        finish(packet).unwrap()
    }

    fn startup(pairs: &[(&str, &str)]) -> Result<Startup, StartupError> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect();
        match parse(&packet(PROTOCOL_3_0, &pairs))? {
            Packet::Startup(startup) => Ok(startup),
            other => panic!("{other:?}"),
        }
    }

    fn options(text: &str) -> Result<Vec<(String, String)>, StartupError> {
        let startup = startup(&[("user", "u"), ("options", text)])?;
        Ok(startup
            .parameters
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect())
    }

    #[test]
    fn a_startup_packet_gives_user_database_and_settings() {
        let startup = startup(&[
            ("user", "app"),
            ("database", "shop"),
            ("application_name", "caf\u{e9}"),
            ("options", "-c search_path=a -c work_mem=1MB"),
            ("Search_Path", "b"),
        ])
        .unwrap();
        assert_eq!((&*startup.user, &*startup.database), ("app", "shop"));
        assert_eq!(
            (startup.minor, startup.replication, startup.negotiation),
            (0, None, None)
        );
        let expected = [
            ("search_path", "b"),
            ("work_mem", "1MB"),
            ("application_name", "caf??"),
        ];
        assert_eq!(
            startup.parameters,
            expected.map(|(name, value)| (Box::from(name), Box::from(value)))
        );
    }

    #[test]
    fn the_database_is_the_users_name_unless_given_and_long_names_are_cut() {
        let database = |pairs: &[(&str, &str)]| startup(pairs).unwrap().database;
        assert_eq!(&*database(&[("user", "app")]), "app");
        assert_eq!(&*database(&[("user", "app"), ("database", "")]), "app");
        assert_eq!(database(&[("user", &"x".repeat(64))]).len(), 63);
        // 62 bytes and a character of two.
        assert_eq!(
            database(&[("user", &("x".repeat(62) + "\u{e9}"))]).len(),
            62
        );
    }

    #[test]
    fn options_are_split_as_postgresql_splits_them() {
        for (text, expected) in [
            ("", vec![]),
            ("  \t\n", vec![]),
            ("-c a=b", vec![("a", "b")]),
            ("-ca=b", vec![("a", "b")]),
            ("--a=b", vec![("a", "b")]),
            ("--a-b=c-d", vec![("a_b", "c-d")]),
            ("-c\na=b\u{b}--c=d", vec![("a", "b"), ("c", "d")]),
            (r"-c a=b\ c", vec![("a", "b c")]),
            (r"-c a=b\\c", vec![("a", r"b\c")]),
            (r"-c a=\", vec![("a", "")]),
            (r#"-c a="b"#, vec![("a", "\"b")]),
            ("-c a=", vec![("a", "")]),
            ("-c a=b=c", vec![("a", "b=c")]),
            ("-c a=1 -c a=2", vec![("a", "2")]),
            (
                "-c pgsplit.route=primary",
                vec![("pgsplit.route", "primary")],
            ),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            assert_eq!(options(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn options_that_no_server_process_takes_are_refused() {
        for (text, message) in [
            (
                "a=b",
                "invalid command-line argument for server process: a=b",
            ),
            ("-e", "invalid command-line argument for server process: -e"),
            ("-c", "-c requires a value"),
            ("-c a", "-c a requires a value"),
            ("--a", "--a requires a value"),
            ("-c =b", "-c =b requires a value"),
        ] {
            let error = options(text).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.sqlstate()),
                (message, SqlState::SYNTAX_ERROR)
            );
        }
    }

    #[test]
    fn packets_are_refused_as_postgresql_refuses_them() {
        let user = (&b"user"[..], &b"u"[..]);
        let unterminated = {
            let mut packet = packet(PROTOCOL_3_0, &[user]);
            packet.pop();
            packet
        };
        let trailing = [&packet(PROTOCOL_3_0, &[user])[..], b"x\0"].concat();
        for (packet, message, code) in [
            (vec![], "invalid length of startup packet", "08P01"),
            (
                unterminated,
                "invalid startup packet layout: expected terminator as last byte",
                "08P01",
            ),
            (
                trailing,
                "invalid startup packet layout: expected terminator as last byte",
                "08P01",
            ),
            (
                packet(PROTOCOL_3_0, &[]),
                "no PostgreSQL user name specified in startup packet",
                "28000",
            ),
            (
                packet(PROTOCOL_3_0, &[(b"user", b"")]),
                "no PostgreSQL user name specified in startup packet",
                "28000",
            ),
            (
                packet(2 << 16, &[user]),
                "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
                "0A000",
            ),
            (
                packet(4 << 16 | 1, &[user]),
                "unsupported frontend protocol 4.1: server supports 3.0 to 3.2",
                "0A000",
            ),
            (
                packet(PROTOCOL_3_0, &[(b"user", b"\xFF")]),
                "invalid UTF-8 in startup packet (user)",
                "22021",
            ),
            (
                packet(PROTOCOL_3_0, &[user, (b"replication", b"maybe")]),
                "invalid value for parameter \"replication\": \"maybe\"",
                "22023",
            ),
            (
                packet(CANCEL_REQUEST, &[]),
                "invalid length of cancel request",
                "08P01",
            ),
        ] {
            let error = parse(&packet).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.sqlstate().as_str()),
                (message, code)
            );
        }
    }

    #[test]
    fn replication_is_a_boolean_or_database() {
        for (value, expected) in [
            ("true", Some("true")),
            ("T", Some("T")),
            ("on", Some("on")),
            ("1", Some("1")),
            ("database", Some("database")),
            ("false", None),
            ("of", None),
            ("0", None),
            ("no", None),
        ] {
            let startup = startup(&[("user", "u"), ("replication", value)]).unwrap();
            assert_eq!(startup.replication.as_deref(), expected, "{value}");
        }
        for value in ["", "o", "2", "Database", "truee"] {
            assert!(
                startup(&[("user", "u"), ("replication", value)]).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_newer_than_we_know_is_negotiated() {
        let user = (&b"user"[..], &b"u"[..]);
        let parse = |version, pairs: &[_]| match parse(&packet(version, pairs)).unwrap() {
            Packet::Startup(startup) => (startup.minor, startup.negotiation),
            other => panic!("{other:?}"),
        };
        let v3 = |minor: u32| PROTOCOL_3_0 | minor;
        assert_eq!(parse(v3(0), &[user]), (0, None));
        assert_eq!(parse(v3(1), &[user]), (0, None));
        assert_eq!(parse(v3(2), &[user]), (2, None));
        let answer = |rest: &[u8]| Some([b"v\0\0\0", rest].concat());
        assert_eq!(
            parse(v3(9999), &[user]),
            (2, answer(b"\x0C\0\x03\0\x02\0\0\0\0"))
        );
        assert_eq!(
            parse(v3(0), &[user, (b"_pq_.x", b"1")]),
            (0, answer(b"\x13\0\x03\0\0\0\0\0\x01_pq_.x\0"))
        );
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(length(b"\0\0\0"), Ok(None));
        assert_eq!(length(b"\0\0\0\x08"), Ok(Some(8)));
        assert_eq!(length(b"\0\0\0\x07"), Err(StartupError::Length));
        assert_eq!(length(&10_000u32.to_be_bytes()), Ok(Some(10_000)));
        assert_eq!(length(&10_001u32.to_be_bytes()), Err(StartupError::Length));
        assert_eq!(length(b"GET / HTTP/1.1"), Err(StartupError::Length));
    }

    #[test]
    fn what_does_not_fit_a_startup_packet_is_not_sent() {
        assert!(startup_message([("user", "a\0b")]).is_none());
        assert!(startup_message([("", "a")]).is_none());
        assert!(startup_message([("user", "x".repeat(10_000).as_str())]).is_none());
    }

    proptest! {
        #[test]
        fn what_we_write_we_read(
            user in "[^\0]{1,20}",
            database in "[^\0]{1,20}",
            parameters in proptest::collection::btree_map("[a-z]{1,5}_x", "[^\0]{0,10}", 0..5),
        ) {
            let mut pairs = vec![("user", user.as_str()), ("database", &database)];
            pairs.extend(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let message = startup_message(pairs).unwrap();
            prop_assert_eq!(length(&message), Ok(Some(message.len())));
            let Packet::Startup(startup) = parse(&message).unwrap() else { panic!() };
            prop_assert_eq!(&*startup.user, cut(&user));
            prop_assert_eq!(&*startup.database, cut(&database));
            let read = startup.parameters.iter().map(|(n, v)| (n.to_string(), v.to_string()));
            prop_assert!(read.eq(parameters));
        }

        #[test]
        fn a_cancel_request_comes_back(pid: u32, key in proptest::collection::vec(any::<u8>(), 4..=256)) {
            let key = CancelKey { pid, key: key.into() };
            let packet = cancel_request(&key).unwrap();
            prop_assert_eq!(length(&packet), Ok(Some(packet.len())));
            prop_assert_eq!(parse(&packet), Ok(Packet::Cancel(key)));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, version in 0u32..4) {
            let _length = length(&bytes);
            let _packet = parse(&bytes);
            let _packet = parse(&[&[0; 4], &(version << 16).to_be_bytes()[..], &bytes].concat());
        }

        #[test]
        fn no_options_panic(text in "[-c=a \\\\\u{e9}]{0,20}") {
            let _settings = split_options(&text);
        }
    }
}
