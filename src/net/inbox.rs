//! Reading the few small messages of a login.

use std::{fmt, io};

use tokio::io::AsyncReadExt as _;

use super::Stream;

/// Room for one read: more than the usual startup packet or SASL message.
const CHUNK: usize = 1024;

/// Bytes that have been read from a stream, given out message by message. Grows with what has
/// arrived, never with what a peer claims is to come.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// `start <= bytes.len()`; what is before has been given out.
    start: usize,
}

/// Why no message came.
#[derive(Debug)]
pub enum InboxError {
    /// The stream ended between two messages.
    Closed,
    Io(io::Error),
    /// A length that is impossible or beyond the limit.
    Length {
        tag: u8,
        length: usize,
    },
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({} bytes unread)", self.unread().len())
    }
}

impl fmt::Display for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("connection closed"),
            Self::Io(error) => error.fmt(f),
            Self::Length { tag, length } => write!(
                f,
                "invalid length {length} of a message of type \"{}\"",
                char::from(*tag).escape_default()
            ),
        }
    }
}

impl std::error::Error for InboxError {}

impl Inbox {
    /// What has been read and not been given out.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// What has been read and not been given out, to be processed by somebody else.
    #[must_use]
    pub fn into_unread(mut self) -> Vec<u8> {
        if self.start == self.bytes.len() {
            return Vec::new();
        }
        self.bytes.drain(..self.start);
        self.bytes
    }

    /// Reads until at least `wanted` bytes are unread. Cancel safe.
    ///
    /// # Errors
    /// The stream ends or fails before.
    pub async fn fill(&mut self, stream: &mut Stream, wanted: usize) -> Result<(), InboxError> {
        while self.unread().len() < wanted {
            if self.start == self.bytes.len() {
                self.bytes.clear();
                self.start = 0;
            }
            self.bytes.reserve(CHUNK);
            let error = match stream.read_buf(&mut self.bytes).await {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            // Between messages, a missing TLS goodbye or a reset is an end like any other.
            let ended = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            );
            return Err(if ended && self.unread().is_empty() {
                InboxError::Closed
            } else {
                InboxError::Io(error)
            });
        }
        Ok(())
    }

    /// Gives out the next `length` bytes, which must have been [`filled`](Self::fill).
    pub fn take(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + length).min(self.bytes.len());
        self.bytes.get(from..self.start).unwrap_or_default()
    }

    /// The next message: its type and body. `limit` bounds the whole message, in bytes. Cancel
    /// safe.
    ///
    /// # Errors
    /// The stream ends or fails before, or the message's length is impossible or beyond the limit.
    pub async fn message(
        &mut self,
        stream: &mut Stream,
        limit: usize,
    ) -> Result<(u8, &[u8]), InboxError> {
        self.fill(stream, 5).await?;
        let Some(&[tag, a, b, c, d]) = self.unread().first_chunk::<5>() else {
            return Err(InboxError::Closed);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < 4 || length >= limit {
            return Err(InboxError::Length { tag, length });
        }
        self.fill(stream, length + 1).await?;
        Ok((tag, self.take(length + 1).get(5..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn messages_come_one_by_one_however_they_are_cut() {
        let (here, mut there) = tokio::io::duplex(3);
        let mut stream = Stream::memory(here);
        let writer = tokio::spawn(async move {
            there
                .write_all(b"A\0\0\0\x06xyB\0\0\0\x04C\0\0\0\x05z")
                .await
                .unwrap();
        });
        let mut inbox = Inbox::default();
        assert_eq!(
            inbox.message(&mut stream, 7).await.unwrap(),
            (b'A', &b"xy"[..])
        );
        assert_eq!(
            inbox.message(&mut stream, 7).await.unwrap(),
            (b'B', &b""[..])
        );
        assert_eq!(
            inbox.message(&mut stream, 7).await.unwrap(),
            (b'C', &b"z"[..])
        );
        writer.await.unwrap();
        assert!(matches!(
            inbox.message(&mut stream, 7).await,
            Err(InboxError::Closed)
        ));
        assert!(inbox.into_unread().is_empty());
    }

    #[tokio::test]
    async fn what_a_peer_only_claims_takes_no_memory() {
        let (here, mut there) = tokio::io::duplex(1024);
        let mut stream = Stream::memory(here);
        there.write_all(b"A\0\x0F\xFF\xFF").await.unwrap();
        drop(there);
        let mut inbox = Inbox::default();
        let result = inbox.message(&mut stream, 1 << 30).await;
        assert!(matches!(result, Err(InboxError::Io(_))), "{result:?}");
        assert!(inbox.bytes.capacity() < 4 * CHUNK);
    }

    #[tokio::test]
    async fn lengths_beyond_the_limit_are_refused() {
        for claimed in [0u32, 3, 20, u32::MAX] {
            let (here, mut there) = tokio::io::duplex(1024);
            let mut stream = Stream::memory(here);
            there
                .write_all(&[&b"A"[..], &claimed.to_be_bytes()].concat())
                .await
                .unwrap();
            let result = Inbox::default().message(&mut stream, 20).await.map(drop);
            assert!(
                matches!(result, Err(InboxError::Length { .. })),
                "{claimed} {result:?}"
            );
        }
    }
}
