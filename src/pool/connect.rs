//! Logging in at a node, and cancelling what runs there.
//!
//! Each message of the node is acted on in the state that it belongs to; any other ends the login:
//!
//! | waiting for | message | next |
//! |---|---|---|
//! | authentication | clear text, md5, SASL | answer; SASL: the exchange of [`scram`] |
//! | authentication | AuthenticationOk | the session's start |
//! | session's start | ParameterStatus, BackendKeyData | kept |
//! | session's start | ReadyForQuery | done |
//! | any | ErrorResponse | [`ConnectError::Refused`] |
//! | any | NoticeResponse | dropped |
//!
//! A node that asks for SCRAM must also prove that it knows the user's verifier: AuthenticationOk
//! before that proof is an error.

use std::{
    borrow::Cow,
    fmt, io,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use crate::{
    config::settings::{Secret, User},
    net::{DialError, Dialer, Inbox, InboxError, Stream},
    protocol::{
        SqlState,
        authentication::{self, Md5Hash, Request},
        limits,
        scram::{self, Binding, Client, Key, Keys, ScramError, Verifier},
        startup::{self, CancelKey, MAX_CANCEL_KEY, MIN_CANCEL_KEY, Setting},
    },
};

/// Whom to log in as, and where.
#[derive(Clone, Copy, Debug)]
pub struct ConnectTarget<'a> {
    pub dialer: &'a Dialer,
    pub database: &'a str,
    pub user: &'a str,
    pub credentials: &'a Credentials,
    /// Settings that the startup packet carries.
    pub parameters: &'a [Setting],
}

/// What proves to a node who we are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nothing: the node must trust us.
    #[default]
    None,
    Password(Arc<Password>),
    /// Answers md5 only, and only as the user that it was made for.
    Md5(Md5Hash),
    /// Answers SCRAM only, at nodes that have the same verifier (salt and rounds included).
    Scram(Keys),
}

/// A password, and the SCRAM keys that were derived from it last. All nodes of a cluster have the
/// same verifier, so that the derivation's milliseconds are spent once.
pub struct Password {
    text: Secret,
    derived: Mutex<Option<Derived>>,
}

struct Derived {
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    keys: Keys,
}

/// A server connection, idle, in no transaction.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    /// What came behind ReadyForQuery: almost always nothing; to be processed before the stream.
    pub unread: Vec<u8>,
    /// ParameterStatus, each name once and its last value, in the order of their first coming.
    pub parameters: Vec<Setting>,
    /// An empty key when the server gave none.
    pub cancel: CancelKey,
}

/// Why there is no server connection.
#[derive(Debug)]
pub enum ConnectError {
    Dial(DialError),
    /// The node accepted the connection but the login didn't end by the deadline.
    TimedOut,
    /// The node went down meanwhile.
    NodeDown,
    /// An operator has paused the database.
    Paused,
    /// The connection broke during the login.
    Lost(io::Error),
    /// The node answered with an error.
    Refused {
        sqlstate: SqlState,
        message: Box<str>,
    },
    /// The node asks for something that the settings don't have.
    Credentials(Box<str>),
    /// Not what PostgreSQL says, or not the node that knows the user.
    Protocol(Box<str>),
    /// It isn't one of the nodes any more.
    Gone,
}

/// What a failed login says about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It is down, hung, starting, stopping, or no PostgreSQL server.
    Node,
    /// It is well, but this user or database isn't let in: another try won't help.
    Login,
    /// It is well, but has no connection left for us (53300).
    Full,
    /// It answered with any other error: a setting that it doesn't take, memory, …
    Other,
}

impl ConnectError {
    /// What the failure says about the node.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Dial(DialError::Settings(_)) => Cause::Other,
            Self::Dial(_)
            | Self::TimedOut
            | Self::NodeDown
            | Self::Lost(_)
            | Self::Protocol(_)
            | Self::Gone => Cause::Node,
            Self::Credentials(_) => Cause::Login,
            Self::Paused => Cause::Other,
            Self::Refused { sqlstate, .. } => match (&sqlstate.0, &sqlstate.class()) {
                (b"53300", _) => Cause::Full,
                // Shutting down, starting up, crashed, dropped; connection exceptions.
                (b"57P01" | b"57P02" | b"57P03", _) | (_, b"08") => Cause::Node,
                // 42501: no CONNECT privilege; 55000: the database takes no connections.
                (b"42501" | b"55000" | b"57P04", _) | (_, b"28" | b"3D") => Cause::Login,
                _ => Cause::Other,
            },
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::TimedOut => f.write_str("timed out while logging in"),
            Self::NodeDown => f.write_str("the node is down"),
            Self::Paused => f.write_str("the database is paused"),
            Self::Lost(error) => write!(f, "connection lost while logging in: {error}"),
            Self::Refused { sqlstate, message } => {
                write!(f, "refused by the server: {message} (SQLSTATE {sqlstate})")
            }
            Self::Credentials(what) | Self::Protocol(what) => f.write_str(what),
            Self::Gone => f.write_str("it isn't one of the nodes any more"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<InboxError> for ConnectError {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Closed => Self::Lost(io::ErrorKind::UnexpectedEof.into()),
            InboxError::Io(error) => Self::Lost(error),
            InboxError::Length { .. } => Self::Protocol(error.to_string().into()),
        }
    }
}

impl Credentials {
    /// What a configured user logs in with: `server_password`, else `password`, else nothing.
    /// `client_key`: what its client's own login has shown, for users of whom only a SCRAM verifier
    /// is configured.
    #[must_use]
    pub fn of(user: &User, client_key: Option<Key>) -> Self {
        let Some(secret) = user.server_password.as_ref().or(user.password.as_ref()) else {
            return Self::None;
        };
        if let Ok(Verifier { server_key, .. }) = secret.0.parse() {
            client_key.map_or(Self::None, |client_key| {
                Self::Scram(Keys {
                    client_key,
                    server_key,
                })
            })
        } else if let Some(hash) = Md5Hash::parse(&secret.0) {
            Self::Md5(hash)
        } else {
            Self::password(secret.clone())
        }
    }

    /// A password as text.
    #[must_use]
    pub fn password(text: Secret) -> Self {
        Self::Password(Arc::new(Password {
            text,
            derived: Mutex::new(None),
        }))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// The keys for a verifier, on a thread that may be busy for long.
    async fn keys(
        self: &Arc<Self>,
        salt: Box<[u8]>,
        iterations: NonZeroU32,
    ) -> Result<Keys, ConnectError> {
        if let Some(derived) = self.derived().as_ref()
            && derived.salt == salt
            && derived.iterations == iterations
        {
            return Ok(derived.keys);
        }
        let password = Arc::clone(self);
        let derive = tokio::task::spawn_blocking(move || {
            let keys = Keys::derive(&password.text.0, &salt, iterations);
            *password.derived() = Some(Derived {
                salt,
                iterations,
                keys,
            });
            keys
        });
        derive
            .await
            .map_err(|error| ConnectError::Lost(io::Error::other(error)))
    }

    fn derived(&self) -> std::sync::MutexGuard<'_, Option<Derived>> {
        self.derived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials and logs in. Cancel safe: what isn't ready is closed.
///
/// # Errors
/// No server connection by the deadline; [`ConnectError::cause`] says what to think of the node.
pub async fn connect(
    target: &ConnectTarget<'_>,
    deadline: Instant,
) -> Result<Connected, ConnectError> {
    let stream = target.dialer.dial(deadline).await?;
    timeout_at(deadline, log_in(stream, target))
        .await
        .unwrap_or(Err(ConnectError::TimedOut))
}

/// Asks a node to cancel what runs on a server connection, and waits until it has closed this one,
/// when the signal is on its way.
///
/// # Errors
/// The node wasn't reached, or didn't close by the deadline.
pub async fn cancel(
    dialer: &Dialer,
    key: &CancelKey,
    deadline: Instant,
) -> Result<(), ConnectError> {
    let request = startup::cancel_request(key)
        .ok_or_else(|| ConnectError::Protocol("the server gave no cancel key".into()))?;
    let mut stream = dialer.dial(deadline).await?;
    let ask = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut nothing = [0; 64];
        while stream.read(&mut nothing).await? > 0 {}
        io::Result::Ok(())
    };
    match timeout_at(deadline, ask).await {
        // A server that has done its work may close without waiting for TLS's goodbye.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Ok(result) => result.map_err(ConnectError::Lost),
        Err(_elapsed) => Err(ConnectError::TimedOut),
    }
}

/// A login in progress.
struct Conversation {
    stream: Stream,
    inbox: Inbox,
}

async fn log_in(stream: Stream, target: &ConnectTarget<'_>) -> Result<Connected, ConnectError> {
    let own = [("user", target.user), ("database", target.database)];
    let parameters = target
        .parameters
        .iter()
        .map(|(name, value)| (&**name, &**value));
    let hello = startup::startup_message(own.into_iter().chain(parameters)).ok_or_else(|| {
        ConnectError::Credentials("user, database and settings don't fit a startup packet".into())
    })?;
    let mut conversation = Conversation {
        stream,
        inbox: Inbox::default(),
    };
    conversation.send(&hello).await?;
    conversation.authenticate(target).await?;
    conversation.session().await
}

impl Conversation {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(ConnectError::Lost)?;
        self.stream.flush().await.map_err(ConnectError::Lost)
    }

    /// The next message that is neither a notice nor an error.
    async fn message(&mut self) -> Result<(u8, Vec<u8>), ConnectError> {
        loop {
            let (tag, body) = self
                .inbox
                .message(&mut self.stream, limits::AUTHENTICATION)
                .await?;
            match tag {
                b'N' => (),
                b'E' => return Err(refused(body)),
                tag => return Ok((tag, body.to_vec())),
            }
        }
    }

    /// The body of the next message, which must be an Authentication message.
    async fn request(&mut self) -> Result<Vec<u8>, ConnectError> {
        match self.message().await? {
            (b'R', body) => Ok(body),
            (tag, _) => Err(unexpected(tag)),
        }
    }

    async fn authenticate(&mut self, target: &ConnectTarget<'_>) -> Result<(), ConnectError> {
        let body = self.request().await?;
        match Request::parse(&body).map_err(malformed)? {
            Request::Ok => return Ok(()),
            Request::CleartextPassword => {
                let Credentials::Password(password) = target.credentials else {
                    return Err(lacking(target, "a password in clear text"));
                };
                self.answer(password.text.0.as_bytes()).await?;
            }
            Request::Md5Password { salt } => {
                let hash = match target.credentials {
                    Credentials::Password(password) => Md5Hash::of(&password.text.0, target.user),
                    Credentials::Md5(hash) => *hash,
                    Credentials::None | Credentials::Scram(_) => {
                        return Err(lacking(target, "an md5 password"));
                    }
                };
                self.answer(&hash.answer(salt)).await?;
            }
            Request::Sasl(mechanisms) => self.scram(target, &mechanisms).await?,
            Request::SaslContinue(_) | Request::SaslFinal(_) => return Err(unexpected(b'R')),
            Request::Other(code) => {
                let what = format!("authentication of type {code}, which pgsplit doesn't know");
                return Err(lacking(target, &what));
            }
        }
        let body = self.request().await?;
        match Request::parse(&body).map_err(malformed)? {
            Request::Ok => Ok(()),
            _ => Err(unexpected(b'R')),
        }
    }

    async fn answer(&mut self, password: &[u8]) -> Result<(), ConnectError> {
        let mut out = Vec::with_capacity(password.len() + 8);
        authentication::write_password(&mut out, password);
        self.send(&out).await
    }

    async fn scram(
        &mut self,
        target: &ConnectTarget<'_>,
        mechanisms: &[&[u8]],
    ) -> Result<(), ConnectError> {
        if !matches!(
            target.credentials,
            Credentials::Password(_) | Credentials::Scram(_)
        ) {
            return Err(lacking(target, "SCRAM-SHA-256"));
        }
        let offers = |name: &str| mechanisms.contains(&name.as_bytes());
        let end_point = self.stream.end_point();
        let (mechanism, binding) = match &end_point {
            Some(hash) if offers(scram::MECHANISM_PLUS) => {
                (scram::MECHANISM_PLUS, Binding::EndPoint(hash.as_ref()))
            }
            _ if !offers(scram::MECHANISM) => {
                return Err(lacking(
                    target,
                    "a SASL mechanism that pgsplit doesn't know",
                ));
            }
            Some(_) => (scram::MECHANISM, Binding::NotOffered),
            None => (scram::MECHANISM, Binding::Unsupported),
        };
        let client = Client::new(nonce()?, binding);
        let mut out = Vec::with_capacity(256);
        authentication::write_sasl_initial_response(&mut out, mechanism, &client.message());
        self.send(&out).await?;

        let body = self.request().await?;
        let Request::SaslContinue(server_first) = Request::parse(&body).map_err(malformed)? else {
            return Err(unexpected(b'R'));
        };
        let challenge = match client.challenge(server_first) {
            Ok(challenge) => challenge,
            // The user's verifier is to blame, not the node.
            Err(ScramError::Iterations) => {
                return Err(lacking(
                    target,
                    "more SCRAM iterations than pgsplit computes",
                ));
            }
            Err(error) => return Err(malformed(error)),
        };
        let keys = match target.credentials {
            Credentials::Password(password) => {
                password
                    .keys(challenge.salt.clone(), challenge.iterations)
                    .await?
            }
            Credentials::Scram(keys) => *keys,
            Credentials::None | Credentials::Md5(_) => {
                return Err(lacking(target, "SCRAM-SHA-256"));
            }
        };
        let (answered, client_final) = challenge.answer(&keys);
        out.clear();
        authentication::write_sasl_response(&mut out, &client_final);
        self.send(&out).await?;

        let body = self.request().await?;
        let Request::SaslFinal(server_final) = Request::parse(&body).map_err(malformed)? else {
            return Err(unexpected(b'R'));
        };
        answered.verify(server_final).map_err(malformed)
    }

    /// From AuthenticationOk to ReadyForQuery.
    async fn session(mut self) -> Result<Connected, ConnectError> {
        let mut parameters: Vec<Setting> = Vec::with_capacity(16);
        let mut cancel = CancelKey {
            pid: 0,
            key: Box::default(),
        };
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'S' => {
                    let (name, value) = parameter(&body).ok_or_else(|| unexpected(b'S'))?;
                    match parameters.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, old)) => *old = value,
                        None => parameters.push((name, value)),
                    }
                    if parameters.len() > MAX_PARAMETERS {
                        return Err(unexpected(b'S'));
                    }
                }
                b'K' => match body.split_first_chunk::<4>() {
                    Some((&pid, key)) if (MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) => {
                        cancel = CancelKey {
                            pid: u32::from_be_bytes(pid),
                            key: key.into(),
                        };
                    }
                    _ => return Err(unexpected(b'K')),
                },
                b'Z' if body == b"I" => {
                    return Ok(Connected {
                        stream: self.stream,
                        unread: self.inbox.into_unread(),
                        parameters,
                        cancel,
                    });
                }
                tag => return Err(unexpected(tag)),
            }
        }
    }
}

/// A server reports about 15 (PostgreSQL 15: 14).
const MAX_PARAMETERS: usize = 1024;

fn parameter(body: &[u8]) -> Option<Setting> {
    let mut strings = body.split(|&b| b == 0);
    let mut text = || Some(String::from_utf8_lossy(strings.next()?).into());
    let setting = (text()?, text()?);
    (strings.next() == Some(b"") && strings.next().is_none()).then_some(setting)
}

fn nonce() -> Result<String, ConnectError> {
    let mut nonce = [0; 18];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_error| ConnectError::Lost(io::Error::other("no random numbers")))?;
    Ok(BASE64.encode(nonce))
}

/// Reads an ErrorResponse.
fn refused(body: &[u8]) -> ConnectError {
    let mut sqlstate = SqlState::INTERNAL_ERROR;
    let mut message = Cow::Borrowed("");
    for field in body.split(|&b| b == 0) {
        match field {
            [b'C', code @ ..] => {
                sqlstate = code.try_into().map_or(sqlstate, SqlState);
            }
            // Its language and encoding are the node's.
            [b'M', text @ ..] => message = String::from_utf8_lossy(text),
            _ => (),
        }
    }
    ConnectError::Refused {
        sqlstate,
        message: message.into(),
    }
}

fn lacking(target: &ConnectTarget<'_>, what: &str) -> ConnectError {
    let have = match target.credentials {
        Credentials::None => "nothing",
        Credentials::Password(_) => "a password",
        Credentials::Md5(_) => "an md5 hash",
        Credentials::Scram(_) => "a SCRAM verifier",
    };
    let user = target.user;
    ConnectError::Credentials(
        format!("the server asks for {what}, but {have} is configured for user \"{user}\"").into(),
    )
}

fn malformed(error: impl fmt::Display) -> ConnectError {
    ConnectError::Protocol(format!("login failed: {error}").into())
}

fn unexpected(tag: u8) -> ConnectError {
    let tag = char::from(tag).escape_default();
    ConnectError::Protocol(format!("unexpected or invalid message \"{tag}\" during login").into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::{Host, Node, NodeRole, NodeTls, SslMode};

    fn dialer() -> Dialer {
        Dialer::new(&Node {
            name: "pg1".into(),
            host: Host::Tcp("127.0.0.1".to_owned()),
            port: 1,
            zone: "".into(),
            weight: 1,
            role: NodeRole::Auto,
            tls: NodeTls {
                sslmode: SslMode::Disable,
                ca: None,
                cert: None,
                key: None,
            },
        })
        .unwrap()
    }

    /// Logs in at a server that says all its messages at once, whatever it is told, and goes.
    async fn against(server: &[u8], credentials: &Credentials) -> Result<Connected, ConnectError> {
        let (here, mut there) = tokio::io::duplex(1 << 20);
        there.write_all(server).await.unwrap();
        there.shutdown().await.unwrap();
        let dialer = dialer();
        let target = ConnectTarget {
            dialer: &dialer,
            database: "app",
            user: "app",
            credentials,
            parameters: &[],
        };
        log_in(Stream::memory(here), &target).await
    }

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const KEY: &[u8] = b"K\0\0\0\x0C\0\0\0\x07\0\0\0\x02";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0ASCRAM-SHA-256\0\0";
    const NOTICE: &[u8] = b"N\0\0\0\x06x\0";

    #[tokio::test]
    async fn a_trusting_server_lets_us_in_and_what_follows_is_kept() {
        let status = b"S\0\0\0\x08a\x001\0S\0\0\0\x08b\x001\0S\0\0\0\x08a\x002\0";
        let server = [NOTICE, OK, &status[..], NOTICE, KEY, READY, b"A\0\0"].concat();
        let connected = against(&server, &Credentials::None).await.unwrap();
        let parameters = [("a", "2"), ("b", "1")].map(|(n, v)| (Box::from(n), Box::from(v)));
        assert_eq!(connected.parameters, parameters);
        assert_eq!(
            connected.cancel,
            CancelKey {
                pid: 7,
                key: [0, 0, 0, 2].into()
            }
        );
        assert_eq!(connected.unread, b"A\0\0");
    }

    #[tokio::test]
    async fn a_server_that_skips_its_proof_is_not_believed() {
        let password = Credentials::password(Secret("secret".to_owned()));
        for server in [
            [SASL, OK, KEY, READY].concat(),
            [SASL, b"R\0\0\0\x0C\0\0\0\x0Cv=AA", OK, KEY, READY].concat(),
            [SASL, b"R\0\0\0\x0C\0\0\0\x0Br=AA", OK, KEY, READY].concat(),
            [b"R\0\0\0\x0C\0\0\0\x0Cv=AA", OK, KEY, READY].concat(),
            [OK, SASL, KEY, READY].concat(),
            [OK, OK, KEY, READY].concat(),
            [KEY, READY].concat(),
            READY.to_vec(),
        ] {
            let error = against(&server, &password).await.unwrap_err();
            assert!(matches!(error, ConnectError::Protocol(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_login_is_an_error_that_says_so() {
        for (server, cause, text) in [
            (
                &b""[..],
                Cause::Node,
                "connection lost while logging in: unexpected end of file",
            ),
            (
                b"HTTP/1.1 400 Bad Request",
                Cause::Node,
                "invalid length 1414811695 of a message",
            ),
            (
                b"E\0\0\0\x10C57P03\0Mno\0\0",
                Cause::Node,
                "refused by the server: no (SQLSTATE 57P03)",
            ),
            (
                b"E\0\0\0\x10C53300\0Mno\0\0",
                Cause::Full,
                "refused by the server: no (SQLSTATE 53300)",
            ),
            (
                b"E\0\0\0\x10C3D000\0Mno\0\0",
                Cause::Login,
                "refused by the server: no (SQLSTATE 3D000)",
            ),
            (
                b"E\0\0\0\x10C22023\0Mno\0\0",
                Cause::Other,
                "refused by the server: no (SQLSTATE 22023)",
            ),
            (
                b"E\0\0\0\x04",
                Cause::Other,
                "refused by the server:  (SQLSTATE XX000)",
            ),
            (
                b"R\0\0\0\x08\0\0\0\x07",
                Cause::Login,
                "the server asks for authentication of type 7",
            ),
            (
                b"R\0\0\0\x08\0\0\0\x03",
                Cause::Login,
                "the server asks for a password in clear text",
            ),
            (
                b"R\0\0\0\x0F\0\0\0\x0AFOO-1\0\0",
                Cause::Login,
                "the server asks for SCRAM-SHA-256",
            ),
            (
                b"R\0\0\0\x06\0\0",
                Cause::Node,
                "login failed: malformed authentication message",
            ),
        ] {
            let error = against(server, &Credentials::None).await.unwrap_err();
            assert_eq!(error.cause(), cause, "{error}");
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }

    #[tokio::test]
    async fn settings_that_do_not_fit_a_startup_packet_are_not_sent() {
        let dialer = dialer();
        let parameters = [("search_path".into(), "x".repeat(10_000).into())];
        let target = ConnectTarget {
            dialer: &dialer,
            database: "app",
            user: "app",
            credentials: &Credentials::None,
            parameters: &parameters,
        };
        let (here, _there) = tokio::io::duplex(64);
        let error = log_in(Stream::memory(here), &target).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Login);
    }

    #[test]
    fn secrets_are_not_printed() {
        let keys = Keys {
            client_key: [7; 32],
            server_key: [7; 32],
        };
        let key = CancelKey {
            pid: 1,
            key: [7; 4].into(),
        };
        for (debug, expected) in [
            (
                format!("{:?}", Credentials::password(Secret("s3cret".to_owned()))),
                "Password(Password(…))",
            ),
            (format!("{:?}", Credentials::Scram(keys)), "Scram(Keys(…))"),
            (format!("{key:?}"), "CancelKey(1, …)"),
        ] {
            assert_eq!(debug, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_server_makes_us_panic_or_linger(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(OK.to_vec()),
                    Just(KEY.to_vec()),
                    Just(READY.to_vec()),
                    Just(SASL.to_vec()),
                    Just(NOTICE.to_vec()),
                    Just(b"R\0\0\0\x0C\0\0\0\x05abcd".to_vec()),
                    (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
                        |(tag, body)| {
                            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
                            [&[tag], &length[..], &body].concat()
                        }
                    ),
                    proptest::collection::vec(any::<u8>(), 0..20),
                ],
                0..8,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let password = Credentials::password(Secret("secret".to_owned()));
            let _result = runtime.block_on(against(&pieces.concat(), &password));
        }
    }
}
