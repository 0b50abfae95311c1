//! Connecting to a node.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UnixStream},
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    Stream,
    tls::{self, ClientTls, TlsError},
};
use crate::{
    config::settings::{Host, Node, SslMode},
    protocol::startup::SSL_REQUEST_PACKET,
};

/// Name resolutions of one node that may run at once. They can't be cancelled, so without a bound a
/// resolver that hangs would collect a thread for each attempt.
const RESOLUTIONS: usize = 2;
/// What a connection to a scripted node holds in each direction, in bytes.
#[cfg(test)]
const PIPE: usize = 64 << 10;

/// The way to a node: its address and TLS, made once.
#[derive(Clone, Debug)]
pub struct Dialer {
    host: Host,
    port: u16,
    /// Where it is, if not wherever `host` leads.
    address: Option<IpAddr>,
    mode: SslMode,
    /// `None` exactly when TLS is never asked for.
    tls: Option<ClientTls>,
    resolutions: Arc<Semaphore>,
    /// Where the node's ends of in-memory connections go instead.
    #[cfg(test)]
    pipes: Option<Pipes>,
}

/// A node in the same test: where the other end of each connection that is dialled goes. `None`:
/// it takes none.
#[cfg(test)]
pub(crate) type Pipes =
    Arc<std::sync::Mutex<Option<tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>>>>;

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The deadline passed during what is named.
    TimedOut(&'static str),
    /// The host's name has no address.
    Resolve { host: String, problem: io::Error },
    /// None of the addresses (or the socket) takes connections; the last one's reason.
    Connect { address: String, problem: io::Error },
    /// The node closed the connection, or it broke.
    Lost(io::Error),
    /// TLS is demanded and the node doesn't do it.
    TlsRefused,
    /// The TLS handshake failed: certificates, versions.
    Tls(String),
    /// Not an answer that PostgreSQL gives.
    Unexpected(&'static str),
    /// The node's TLS settings can't be used.
    Settings(TlsError),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(during) => write!(f, "timed out while {during}"),
            Self::Resolve { host, problem } => write!(f, "can't resolve \"{host}\": {problem}"),
            Self::Connect { address, problem } => {
                write!(f, "can't connect to {address}: {problem}")
            }
            Self::Lost(problem) => write!(f, "connection lost: {problem}"),
            Self::TlsRefused => {
                f.write_str("the server does not support TLS, but sslmode demands it")
            }
            Self::Tls(problem) => write!(f, "TLS handshake failed: {problem}"),
            Self::Unexpected(what) => f.write_str(what),
            Self::Settings(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DialError {}

/// Connects once. Reads the TLS files each time: keep a [`Dialer`] for more than one connection.
///
/// # Errors
/// As [`Dialer::new`] and [`Dialer::dial`].
pub async fn dial(node: &Node, deadline: Instant) -> Result<Stream, DialError> {
    Dialer::new(node)
        .map_err(DialError::Settings)?
        .dial(deadline)
        .await
}

impl Dialer {
    /// Reads the TLS files that the node's settings name.
    ///
    /// # Errors
    /// One of them can't be used.
    pub fn new(node: &Node) -> Result<Self, TlsError> {
        let tls = match (&node.host, node.tls.sslmode) {
            // libpq, too, ignores sslmode on Unix sockets.
            (Host::Unix(_), _) | (_, SslMode::Disable) => None,
            (Host::Tcp(host), _) => Some(ClientTls::load(&node.tls, host)?),
        };
        Ok(Self {
            host: node.host.clone(),
            port: node.port,
            address: None,
            mode: node.tls.sslmode,
            tls,
            resolutions: Arc::new(Semaphore::new(RESOLUTIONS)),
            #[cfg(test)]
            pipes: None,
        })
    }

    /// Reaches a scripted node.
    #[cfg(test)]
    pub(crate) fn over(mut self, pipes: Pipes) -> Self {
        self.pipes = Some(pipes);
        self
    }

    /// The same, but its host is at `address`, which isn't asked for each time then. Certificates
    /// are still the host's.
    #[must_use]
    pub fn at(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// Connects, encrypted as `sslmode` says, ready for the startup packet. All addresses of the
    /// host are tried within the deadline. Cancel safe: a connection that isn't ready is closed.
    ///
    /// # Errors
    /// No connection by the deadline.
    pub async fn dial(&self, deadline: Instant) -> Result<Stream, DialError> {
        let stream = self.connect(deadline).await?;
        let Some(tls) = &self.tls else {
            return Ok(stream);
        };
        let encrypted = timeout_at(deadline, Box::pin(encrypt(stream, tls)))
            .await
            .map_err(|_elapsed| DialError::TimedOut("negotiating TLS"))?;
        match encrypted {
            Ok(Encrypted::Yes(stream)) => Ok(stream),
            Ok(Encrypted::No(stream)) if self.mode == SslMode::Prefer => Ok(stream),
            Ok(Encrypted::No(_)) => Err(DialError::TlsRefused),
            // libpq goes on without TLS, too: `prefer` promises nothing.
            Err(DialError::Tls(_)) if self.mode == SslMode::Prefer => self.connect(deadline).await,
            Err(error) => Err(error),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Stream, DialError> {
        #[cfg(test)]
        if let Some(pipes) = &self.pipes {
            let (here, there) = tokio::io::duplex(PIPE);
            let taken = pipes.lock().is_ok_and(|pipes| {
                pipes
                    .as_ref()
                    .is_some_and(|pipes| pipes.send(there).is_ok())
            });
            return if taken {
                Ok(Stream::memory(here))
            } else {
                Err(DialError::Connect {
                    address: "a scripted node".to_owned(),
                    problem: io::ErrorKind::ConnectionRefused.into(),
                })
            };
        }
        match &self.host {
            Host::Tcp(host) => self.connect_tcp(host, deadline).await,
            Host::Unix(directory) => connect_unix(directory, self.port, deadline).await,
        }
    }

    async fn connect_tcp(&self, host: &str, deadline: Instant) -> Result<Stream, DialError> {
        let addresses = match self.address.map_or_else(|| host.parse::<IpAddr>(), Ok) {
            Ok(ip) => vec![SocketAddr::new(ip, self.port)],
            Err(_) => self.resolve(host, deadline).await?,
        };
        let mut last = DialError::Resolve {
            host: host.to_owned(),
            problem: io::Error::new(io::ErrorKind::NotFound, "no address"),
        };
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // An address that never answers must not take the others' time.
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / left.max(1);
            left = left.saturating_sub(1);
            match timeout_at(now + share, connect_address(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(problem)) => {
                    last = DialError::Connect {
                        address: address.to_string(),
                        problem,
                    };
                }
                Err(_elapsed) => last = DialError::TimedOut("connecting"),
            }
        }
        Err(last)
    }

    async fn resolve(&self, host: &str, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
        let failed = |problem| DialError::Resolve {
            host: host.to_owned(),
            problem,
        };
        let resolutions = Arc::clone(&self.resolutions);
        let target = (host.to_owned(), self.port);
        let resolve = async {
            let permit = resolutions
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let resolve = tokio::task::spawn_blocking(move || {
                let _until_done = permit;
                target.to_socket_addrs().map(Iterator::collect)
            });
            resolve.await.map_err(io::Error::other)?
        };
        timeout_at(deadline, resolve)
            .await
            .map_err(|_elapsed| DialError::TimedOut("resolving the host's name"))?
            .map_err(failed)
    }
}

async fn connect_address(address: SocketAddr) -> io::Result<Stream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    Ok(Stream::Tcp(socket.connect(address).await?))
}

async fn connect_unix(
    directory: &std::path::Path,
    port: u16,
    deadline: Instant,
) -> Result<Stream, DialError> {
    let path: PathBuf = directory.join(format!(".s.PGSQL.{port}"));
    match timeout_at(deadline, UnixStream::connect(&path)).await {
        Ok(Ok(socket)) => Ok(Stream::Unix(socket)),
        Ok(Err(problem)) => Err(DialError::Connect {
            address: path.display().to_string(),
            problem,
        }),
        Err(_elapsed) => Err(DialError::TimedOut("connecting")),
    }
}

enum Encrypted {
    Yes(Stream),
    No(Stream),
}

async fn encrypt(mut stream: Stream, tls: &ClientTls) -> Result<Encrypted, DialError> {
    stream
        .write_all(&SSL_REQUEST_PACKET)
        .await
        .map_err(DialError::Lost)?;
    // Room for more than the answer: what comes with it is not encrypted and not to be trusted
    // (CVE-2021-23222).
    let mut answer = [0; 16];
    let length = stream.read(&mut answer).await.map_err(DialError::Lost)?;
    match answer.get(..length).unwrap_or_default() {
        [] => Err(DialError::Lost(io::ErrorKind::UnexpectedEof.into())),
        b"S" => {
            let encrypted = tls.connect(stream).await;
            encrypted
                .map(Encrypted::Yes)
                .map_err(|error| DialError::Tls(tls::describe(&error)))
        }
        b"N" => Ok(Encrypted::No(stream)),
        [b'S' | b'N', ..] => Err(DialError::Unexpected(
            "received unencrypted data after SSL response",
        )),
        // Whatever it says comes from nobody we know (CVE-2024-10977).
        [b'E', ..] => Err(DialError::Unexpected(
            "server sent an error response during SSL exchange",
        )),
        _ => Err(DialError::Unexpected(
            "received invalid response to SSL negotiation",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::settings::{NodeRole, NodeTls};

    fn node(host: Host, port: u16, sslmode: SslMode) -> Node {
        Node {
            name: "pg1".into(),
            host,
            port,
            zone: "".into(),
            weight: 1,
            role: NodeRole::Auto,
            tls: NodeTls {
                sslmode,
                ca: None,
                cert: None,
                key: None,
            },
        }
    }

    fn tcp(host: &str) -> Host {
        Host::Tcp(host.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_accepts_and_never_answers_costs_no_more_than_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = Instant::now();
        let deadline = start + Duration::from_secs(5);
        let result = dial(&node(tcp("127.0.0.1"), port, SslMode::Require), deadline).await;
        assert!(matches!(result, Err(DialError::TimedOut(_))), "{result:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_which_address_and_why() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = unused.local_addr().unwrap().port();
        drop(unused);
        let directory = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        for (host, expected) in [
            (
                tcp("127.0.0.1"),
                format!("can't connect to 127.0.0.1:{port}: Connection refused"),
            ),
            (tcp("a\0b"), "can't resolve \"a\0b\": ".to_owned()),
            (
                Host::Unix(directory.path().to_owned()),
                format!(
                    "can't connect to {}/.s.PGSQL.{port}: No such file",
                    directory.path().display()
                ),
            ),
        ] {
            let error = dial(&node(host, port, SslMode::Disable), deadline)
                .await
                .unwrap_err();
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let mut node = node(tcp("127.0.0.1"), 1, SslMode::VerifyFull);
        node.tls.ca = Some("/nowhere/ca.crt".into());
        let error = Dialer::new(&node).unwrap_err().to_string();
        assert!(
            error.starts_with("/nowhere/ca.crt: No such file"),
            "{error}"
        );
        node.tls.ca = None;
        node.tls.sslmode = SslMode::Require;
        node.tls.cert = Some("/nowhere/client.crt".into());
        let error = Dialer::new(&node).unwrap_err().to_string();
        assert_eq!(
            error,
            "a TLS certificate and its key must be given together"
        );
        node.tls.cert = None;
        node.host = tcp("no name");
        let error = Dialer::new(&node).unwrap_err().to_string();
        assert_eq!(
            error,
            "\"no name\" is not a name that a certificate can have"
        );
    }
}
