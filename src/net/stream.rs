//! One type for every connection.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, DuplexStream, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::tls::{EndPoint, Tls};

/// A connection to a client or to a node.
///
/// Reading with [`AsyncRead`] into a buffer that is larger than what has arrived costs one system
/// call and leaves the stream known to be empty, so that a wait after it costs none: prefer it to
/// `try_read`. Over TLS, a write may leave bytes inside until `flush`.
pub enum Stream {
    /// Sockets of [`super::listen_tcp`] and [`super::Dialer`] send small messages at once.
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
    /// For tests of message sequences: an in-memory pipe, which can tell whether bytes are there.
    Memory(Box<BufReader<DuplexStream>>),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
    Memory,
    /// Gone already.
    Unknown,
}

impl Stream {
    /// Over one end of an in-memory pipe.
    #[must_use]
    pub fn memory(pipe: DuplexStream) -> Self {
        Self::Memory(Box::new(BufReader::new(pipe)))
    }

    /// Waits, without a buffer, until a read gives bytes, the end of the stream, or an error.
    /// May be early: tokio takes an accepted socket for readable until a read finds nothing. Bytes
    /// that a TLS layer has read and decrypted already count.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_fill_buf(cx).map_ok(drop),
            Self::Memory(pipe) => Pin::new(pipe).poll_fill_buf(cx).map_ok(drop),
        }
    }

    /// Encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Neither encrypted nor within this machine by its nature.
    #[must_use]
    pub fn is_plain_network(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Memory(_))
    }

    /// The `tls-server-end-point` channel binding data (RFC 5929): the hash of the server's
    /// certificate. `None` without TLS, or when the certificate's signature has no hash.
    #[must_use]
    pub fn end_point(&self) -> Option<EndPoint> {
        match self {
            Self::Tls(tls) => tls.end_point,
            Self::Tcp(_) | Self::Unix(_) | Self::Memory(_) => None,
        }
    }

    /// Asks the system who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self {
            Self::Tcp(socket) => socket.peer_addr().map_or(Peer::Unknown, Peer::Tcp),
            Self::Unix(_) => Peer::Unix,
            Self::Tls(tls) => tls.stream.get_ref().0.peer(),
            Self::Memory(_) => Peer::Memory,
        }
    }
}

impl Peer {
    /// On this machine: a Unix socket, a loopback address, or the same process.
    #[must_use]
    pub fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
            },
            Self::Unix | Self::Memory => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("[local]"),
            Self::Memory => f.write_str("[memory]"),
            Self::Unknown => f.write_str("[unknown]"),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Tcp(_) => "Tcp",
            Self::Unix(_) => "Unix",
            Self::Tls(_) => "Tls",
            Self::Memory(_) => "Memory",
        };
        write!(f, "Stream::{kind}({})", self.peer())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, buf),
            Self::Memory(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, bufs),
            Self::Memory(pipe) => Pin::new(pipe).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.is_write_vectored(),
            Self::Unix(socket) => socket.is_write_vectored(),
            Self::Tls(tls) => tls.stream.is_write_vectored(),
            Self::Memory(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
            Self::Memory(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Stream>() <= 40, "{}", size_of::<Stream>());
    }

    #[tokio::test]
    async fn waiting_takes_no_bytes_and_sees_the_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let (unix_a, unix_b) = UnixStream::pair().unwrap();
        let (memory_a, memory_b) = tokio::io::duplex(64);
        for (mut here, mut there) in [
            (
                Stream::Tcp(accepted.unwrap().0),
                Stream::Tcp(connected.unwrap()),
            ),
            (Stream::Unix(unix_a), Stream::Unix(unix_b)),
            (Stream::memory(memory_a), Stream::memory(memory_b)),
        ] {
            // A fresh socket may say yes once; a read that finds nothing settles it.
            let mut buffer = [0; 8];
            let nothing = poll_fn(|cx| {
                let read = Pin::new(&mut here).poll_read(cx, &mut ReadBuf::new(&mut buffer));
                assert!(read.is_pending(), "nothing has come yet");
                Poll::Ready(here.poll_readable(cx))
            });
            assert!(nothing.await.is_pending());
            there.write_all(b"ab").await.unwrap();
            poll_fn(|cx| here.poll_readable(cx)).await.unwrap();
            poll_fn(|cx| here.poll_readable(cx)).await.unwrap();
            assert_eq!(here.read(&mut buffer).await.unwrap(), 2);
            drop(there);
            poll_fn(|cx| here.poll_readable(cx)).await.unwrap();
            assert_eq!(here.read(&mut buffer).await.unwrap(), 0);
        }
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("0.0.0.0:1", false),
        ] {
            assert_eq!(
                Peer::Tcp(address.parse().unwrap()).is_local(),
                local,
                "{address}"
            );
        }
        assert!(Peer::Unix.is_local());
        assert!(!Peer::Unknown.is_local());
    }
}
