//! From an accepted socket to a startup packet: encryption, versions, cancel requests.
//!
//! | waiting for | event | next |
//! |---|---|---|
//! | the first byte | 0x16 (a TLS ClientHello), TLS configured | shake hands; then: anything |
//! | anything | SSLRequest over plain TCP, TLS configured | `S`, shake hands; then: startup |
//! | anything | SSLRequest, otherwise | `N`; then: GSSENCRequest, or startup |
//! | anything | GSSENCRequest | `N`; then: SSLRequest, or startup |
//! | any | a request that came before | an error, as from PostgreSQL |
//! | any | CancelRequest | done |
//! | any | StartupMessage | done; refused when TLS is required and the client came over plain TCP |
//!
//! Nothing that was read before encryption began is ever used after it.

use std::{fmt, io};

use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout_at},
};

use crate::{
    error::{Fault, Visible},
    net::{Inbox, InboxError, Stream, tls::ServerTls},
    protocol::{
        SqlState, authentication,
        startup::{self, CancelKey, Packet, Setting, Startup, StartupError},
    },
};

/// What a listener offers.
#[derive(Clone, Debug, Default)]
pub struct HandshakeContext {
    pub tls: Option<ServerTls>,
}

/// What the client came for.
#[derive(Debug)]
pub enum Accepted {
    Session(Box<Login>),
    /// To be passed on. The client takes the connection's end for the news that this has been
    /// done: then it is to be [`closed`](close), without an answer.
    Cancel {
        key: CancelKey,
        stream: Stream,
    },
}

/// A client that has said who it wants to be.
#[derive(Debug)]
pub struct Login {
    pub stream: Stream,
    /// What has been read from the stream already; to be processed before it.
    pub inbox: Inbox,
    pub user: Box<str>,
    pub database: Box<str>,
    /// In the order in which they are to be set; see [`Startup::parameters`].
    pub parameters: Vec<Setting>,
    /// A WAL sender is asked for: see [`Startup::replication`].
    pub replication: Option<Box<str>>,
    /// Minor version of the protocol: 0 or 2.
    pub minor: u16,
}

/// Why a client didn't get in. Whatever it had to be told has been sent.
#[derive(Debug)]
pub enum HandshakeError {
    /// It went away without having sent a single byte of a message: a probe, a scan, a change of
    /// mind. Nothing to log.
    Closed,
    /// It took too long.
    TimedOut,
    /// The connection broke.
    Lost(io::Error),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// It was refused with this error.
    Refused(Box<Visible>),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("connection closed"),
            Self::TimedOut => f.write_str("login timed out"),
            Self::Lost(error) => write!(f, "connection lost: {error}"),
            Self::Tls(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<InboxError> for HandshakeError {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Closed => Self::Closed,
            InboxError::Io(error) => Self::Lost(error),
            length @ InboxError::Length { .. } => {
                refusal(SqlState::PROTOCOL_VIOLATION, length.to_string())
            }
        }
    }
}

/// Takes a new connection up to its startup packet. Not cancel safe: the stream goes with it. The
/// future takes a kilobyte: box it in a task that lives on.
///
/// # Errors
/// The client went away, took too long, or was refused and told so.
pub async fn accept(
    stream: Stream,
    context: &HandshakeContext,
    deadline: Instant,
) -> Result<Accepted, HandshakeError> {
    timeout_at(deadline, negotiate(stream, context))
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

/// Sends a FATAL error and closes the connection, as far as the client takes it by the deadline (or
/// at once, when that has passed).
pub async fn refuse(stream: &mut Stream, error: &Visible, deadline: Instant) {
    let _sent = timeout_at(deadline, send_error(stream, error)).await;
}

/// Ends a connection politely, for clients complain of TLS that ends without a goodbye.
pub async fn close(stream: &mut Stream, deadline: Instant) {
    let _closed = timeout_at(deadline, stream.shutdown()).await;
}

/// The error for a database that isn't configured, as PostgreSQL words it. Only for clients that
/// have authenticated.
#[must_use]
pub fn unknown_database(name: &str) -> Visible {
    let message = format!("database \"{name}\" does not exist");
    Visible::fatal(Fault::Client, SqlState::INVALID_CATALOG_NAME, message)
}

async fn send_error(stream: &mut Stream, error: &Visible) {
    let mut out = Vec::with_capacity(128);
    authentication::write_fatal(
        &mut out,
        error.sqlstate,
        &error.message,
        error.hint.as_deref(),
    );
    send_last(stream, &out).await;
}

async fn send_last(stream: &mut Stream, bytes: &[u8]) {
    // Whether the client gets to read its error is up to the client.
    let _sent = stream.write_all(bytes).await;
    let _closed = stream.shutdown().await;
}

pub(super) fn refusal(sqlstate: SqlState, message: String) -> HandshakeError {
    HandshakeError::Refused(Box::new(Visible::fatal(Fault::Client, sqlstate, message)))
}

async fn negotiate(
    mut stream: Stream,
    context: &HandshakeContext,
) -> Result<Accepted, HandshakeError> {
    let mut inbox = Inbox::default();
    inbox.fill(&mut stream, 1).await?;
    let (mut ssl_done, mut gss_done) = (false, false);
    if let (Some(tls), [TLS_HANDSHAKE, ..]) = (&context.tls, inbox.unread()) {
        stream = Box::pin(tls.accept(stream, inbox.unread(), true))
            .await
            .map_err(HandshakeError::Tls)?;
        inbox = Inbox::default();
    }
    loop {
        let packet = match packet(&mut stream, &mut inbox).await {
            Ok(packet) => packet,
            Err(PacketError::Inbox(error)) => return Err(error.into()),
            Err(PacketError::Startup(error)) => return Err(told(&mut stream, &error).await),
        };
        match packet {
            Packet::SslRequest if !ssl_done => {
                ssl_done = true;
                let offered = context.tls.as_ref().filter(|_| stream.is_plain_network());
                let answer = if offered.is_some() { b"S" } else { b"N" };
                stream
                    .write_all(answer)
                    .await
                    .map_err(HandshakeError::Lost)?;
                nothing_unread(&mut stream, &inbox, "SSL").await?;
                if let Some(tls) = offered {
                    gss_done = true;
                    stream = Box::pin(tls.accept(stream, &[], false))
                        .await
                        .map_err(HandshakeError::Tls)?;
                }
            }
            Packet::GssEncRequest if !gss_done => {
                gss_done = true;
                stream.write_all(b"N").await.map_err(HandshakeError::Lost)?;
                nothing_unread(&mut stream, &inbox, "GSSAPI encryption").await?;
            }
            request @ (Packet::SslRequest | Packet::GssEncRequest) => {
                let error = startup::repeated_request(&request);
                return Err(told(&mut stream, &error).await);
            }
            // libpq before 17 sends it without TLS, whatever the session has.
            Packet::Cancel(key) => return Ok(Accepted::Cancel { key, stream }),
            Packet::Startup(startup) => return session(stream, inbox, startup, context).await,
        }
    }
}

/// Clients wait for the answer to a request for encryption. What came with the request could have
/// been put there by a man in the middle (CVE-2021-23214).
async fn nothing_unread(
    stream: &mut Stream,
    inbox: &Inbox,
    request: &str,
) -> Result<(), HandshakeError> {
    if inbox.unread().is_empty() {
        return Ok(());
    }
    let message = format!("received unencrypted data after {request} request");
    Err(told_refusal(stream, refusal(SqlState::PROTOCOL_VIOLATION, message)).await)
}

async fn session(
    mut stream: Stream,
    inbox: Inbox,
    startup: Startup,
    context: &HandshakeContext,
) -> Result<Accepted, HandshakeError> {
    if context.tls.as_ref().is_some_and(ServerTls::is_required) && stream.is_plain_network() {
        let peer = stream.peer();
        let message = format!(
            "connection is not encrypted: host \"{peer}\", user \"{}\", database \"{}\"",
            startup.user, startup.database
        );
        let error = Visible::fatal(Fault::Client, SqlState::INVALID_AUTHORIZATION, message)
            .hint("This server accepts only encrypted connections: connect with sslmode=require.");
        return Err(told_refusal(&mut stream, HandshakeError::Refused(Box::new(error))).await);
    }
    if let Some(negotiation) = &startup.negotiation {
        stream
            .write_all(negotiation)
            .await
            .map_err(HandshakeError::Lost)?;
        stream.flush().await.map_err(HandshakeError::Lost)?;
    }
    Ok(Accepted::Session(Box::new(Login {
        stream,
        inbox,
        user: startup.user,
        database: startup.database,
        parameters: startup.parameters,
        replication: startup.replication,
        minor: startup.minor,
    })))
}

enum PacketError {
    Inbox(InboxError),
    Startup(StartupError),
}

async fn packet(stream: &mut Stream, inbox: &mut Inbox) -> Result<Packet, PacketError> {
    inbox
        .fill(stream, LENGTH)
        .await
        .map_err(PacketError::Inbox)?;
    let length = startup::length(inbox.unread())
        .map_err(PacketError::Startup)?
        .unwrap_or(startup::HEADER);
    inbox
        .fill(stream, length)
        .await
        .map_err(PacketError::Inbox)?;
    startup::parse(inbox.take(length)).map_err(PacketError::Startup)
}

async fn told(stream: &mut Stream, error: &StartupError) -> HandshakeError {
    if error.wants_old_format() {
        let mut out = Vec::with_capacity(128);
        authentication::write_fatal_old(&mut out, &error.to_string());
        send_last(stream, &out).await;
        return refusal(error.sqlstate(), error.to_string());
    }
    told_refusal(stream, refusal(error.sqlstate(), error.to_string())).await
}

/// Sends the error, if it is one to be sent, and gives it back.
async fn told_refusal(stream: &mut Stream, error: HandshakeError) -> HandshakeError {
    if let HandshakeError::Refused(visible) = &error {
        send_error(stream, visible).await;
    }
    error
}

/// Bytes of a packet's length.
const LENGTH: usize = 4;

/// The first byte of a TLS ClientHello. No startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::*;

    const SSL: &[u8] = &startup::SSL_REQUEST_PACKET;
    const GSS: &[u8] = b"\0\0\0\x08\x04\xD2\x16\x30";
    const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";

    /// What comes of a client that sends these, waiting for a byte of answer between them; and all
    /// that it was sent.
    async fn steps(steps: &[&[u8]]) -> (Result<Accepted, HandshakeError>, Vec<u8>) {
        let (here, mut there) = tokio::io::duplex(32 * 1024);
        let deadline = Instant::now() + Duration::from_secs(15);
        let client = async move {
            let mut answers = Vec::new();
            for (i, step) in steps.iter().enumerate() {
                if i > 0 {
                    answers.push(there.read_u8().await.unwrap());
                }
                there.write_all(step).await.unwrap();
            }
            (there, answers)
        };
        let context = HandshakeContext::default();
        let (result, (mut there, mut answers)) =
            tokio::join!(accept(Stream::memory(here), &context, deadline), client);
        answers.extend(sent(&mut there).await);
        (result, answers)
    }

    /// What comes of a client that sends `bytes` at once and waits.
    async fn outcome(bytes: &[u8]) -> (Result<Accepted, HandshakeError>, Vec<u8>) {
        steps(&[bytes]).await
    }

    /// What has been sent, without waiting for more.
    async fn sent(there: &mut DuplexStream) -> Vec<u8> {
        let mut sent = Vec::new();
        let _more_to_come =
            tokio::time::timeout(Duration::from_millis(1), there.read_to_end(&mut sent)).await;
        sent
    }

    fn error(code: &str, message: &str) -> Vec<u8> {
        let body = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
        let length = u32::try_from(body.len() + 4).unwrap();
        [b"E", &length.to_be_bytes()[..], body.as_bytes()].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn encryption_is_declined_in_either_order_and_the_startup_packet_follows() {
        for (requests, answer) in [
            (vec![], &b""[..]),
            (vec![SSL], b"N"),
            (vec![GSS], b"N"),
            (vec![SSL, GSS], b"NN"),
            (vec![GSS, SSL], b"NN"),
        ] {
            let (result, sent) = steps(&[&requests[..], &[STARTUP]].concat()).await;
            let Accepted::Session(login) = result.unwrap() else {
                panic!()
            };
            assert_eq!((&*login.user, &*login.database), ("app", "app"));
            assert_eq!(sent, answer);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_for_encryption_that_came_before_is_a_wrong_version() {
        for (requests, minor) in [([SSL, SSL], 5679), ([GSS, GSS], 5680)] {
            let (result, sent) = steps(&requests).await;
            assert!(
                matches!(result, Err(HandshakeError::Refused(_))),
                "{result:?}"
            );
            let message =
                format!("unsupported frontend protocol 1234.{minor}: server supports 3.0 to 3.2");
            assert_eq!(sent, [b"N", &error("0A000", &message)[..]].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_startup_packet_gets_an_error_and_is_closed() {
        let length = "invalid length of startup packet";
        for (bytes, code, message) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "08P01", length),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03", "08P01", length),
            (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "08P01", length),
            (b"\0\0\x27\x11\0\x03\0\0", "08P01", length),
            (b"\0\0\0\0\0\x03\0\0", "08P01", length),
            (
                b"\0\0\0\x09\0\x03\0\0\0",
                "28000",
                "no PostgreSQL user name specified in startup packet",
            ),
            (b"\0\0\0\0", "08P01", length),
            (
                b"\0\0\0\x08\0\x04\0\0",
                "0A000",
                "unsupported frontend protocol 4.0: server supports 3.0 to 3.2",
            ),
        ] {
            let (result, sent) = outcome(bytes).await;
            assert!(
                matches!(result, Err(HandshakeError::Refused(_))),
                "{result:?}"
            );
            assert_eq!(
                String::from_utf8(sent),
                String::from_utf8(error(code, message))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_with_a_request_for_encryption_is_refused() {
        for (request, name) in [(SSL, "SSL"), (GSS, "GSSAPI encryption")] {
            let (result, sent) = outcome(&[request, STARTUP].concat()).await;
            assert!(
                matches!(result, Err(HandshakeError::Refused(_))),
                "{result:?}"
            );
            let message = format!("received unencrypted data after {name} request");
            assert_eq!(sent, [b"N", &error("08P01", &message)[..]].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_protocol_2_gets_an_error_that_it_can_read() {
        let (result, sent) = outcome(b"\0\0\0\x08\0\x02\0\0").await;
        assert!(matches!(result, Err(HandshakeError::Refused(_))));
        assert_eq!(
            sent,
            b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_request_is_given_out_without_an_answer() {
        for key in [vec![7; 4], vec![7; 256]] {
            let key = CancelKey {
                pid: 1 << 31,
                key: key.into(),
            };
            let (result, sent) = outcome(&startup::cancel_request(&key).unwrap()).await;
            assert!(matches!(result, Ok(Accepted::Cancel { key: found, .. }) if found == key));
            assert_eq!(sent, b"");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_the_startup_packet_is_kept() {
        let (result, _) = outcome(&[STARTUP, b"p\0\0\0\x05x"].concat()).await;
        let Accepted::Session(login) = result.unwrap() else {
            panic!()
        };
        assert_eq!(login.inbox.unread(), b"p\0\0\0\x05x");
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_client_is_told_what_it_gets() {
        let (result, sent) = outcome(b"\0\0\0\x1A\0\x03\x27\x0Fuser\0app\0_pq_.a\0\0\0").await;
        let Accepted::Session(login) = result.unwrap() else {
            panic!()
        };
        assert_eq!(login.minor, 2);
        assert_eq!(sent, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_is_cut_off_at_the_deadline_without_a_word() {
        let (here, mut there) = tokio::io::duplex(64);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(15);
        let trickle = tokio::spawn(async move {
            for byte in STARTUP {
                if there.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            sent(&mut there).await
        });
        let result = accept(Stream::memory(here), &HandshakeContext::default(), deadline).await;
        assert!(matches!(result, Err(HandshakeError::TimedOut)));
        assert_eq!(start.elapsed(), Duration::from_secs(15));
        assert_eq!(trickle.await.unwrap(), b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_is_nobodys_error() {
        for (bytes, quiet) in [(&b""[..], true), (SSL, true), (&STARTUP[..9], false)] {
            let (here, mut there) = tokio::io::duplex(64);
            there.write_all(bytes).await.unwrap();
            there.shutdown().await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(15);
            let result = accept(Stream::memory(here), &HandshakeContext::default(), deadline).await;
            assert_eq!(
                matches!(result, Err(HandshakeError::Closed)),
                quiet,
                "{result:?}"
            );
            assert!(quiet || matches!(result, Err(HandshakeError::Lost(_))));
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

        #[test]
        fn no_client_makes_us_panic_or_linger(
            requests in proptest::collection::vec(proptest::sample::select(vec![SSL, GSS]), 0..3),
            version in 0u8..5,
            mut bytes: Vec<u8>,
            framed: bool,
        ) {
            if framed {
                let length = u32::try_from(bytes.len() + 8).unwrap().to_be_bytes();
                bytes = [&length[..], &[0, version, 0, 0], &bytes].concat();
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let _result = runtime.block_on(outcome(&[requests.concat(), bytes].concat()));
        }
    }
}
