//! A read buffer: bytes come in at the back and are taken off at the front.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// So much is moved to the front before each read, so that the read has most of the room: the
/// beginning of a message whose rest is still to come.
const SMALL: usize = 1024;

/// Bytes that were read and not taken yet. Grows only when told to.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    // start <= end <= bytes.len()
    start: usize,
    end: usize,
    /// Bytes that came in since somebody has asked.
    came: usize,
}

impl Buffer {
    /// Room for `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity],
            start: 0,
            end: 0,
            came: 0,
        }
    }

    /// What is there.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// How much is there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How much fits in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// No room is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Takes `count` bytes off the front; all of them when fewer are there.
    pub fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Takes `count` bytes out at `at`, keeping what is around them.
    pub fn cut(&mut self, at: usize, count: usize) {
        let from = self.start + at;
        let to = (from + count).min(self.end);
        if from < to {
            self.bytes.copy_within(to..self.end, from);
            self.end -= to - from;
        }
    }

    /// Makes room for `capacity` bytes in all.
    pub fn grow(&mut self, capacity: usize) {
        if capacity > self.bytes.len() {
            self.bytes.resize(capacity, 0);
        }
    }

    /// Forgets what is there.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Reads once into the room behind what is there. `Ready(Ok(0))` is the stream's end; the
    /// buffer must not be full. Cancel safe: bytes are either in the buffer or in the stream.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        if self.start > 0 && (self.end == self.bytes.len() || self.len() <= SMALL) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let Some(room) = self.bytes.get_mut(self.end..) else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let mut room = ReadBuf::new(room);
        std::task::ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        self.came += count;
        Poll::Ready(Ok(count))
    }

    /// How many bytes have come in since this was asked last.
    pub fn take_came(&mut self) -> usize {
        std::mem::take(&mut self.came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_makes_room() {
        let mut buffer = Buffer::new(4);
        let mut source: &[u8] = b"abcdef";
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            buffer.poll_fill(&mut cx, &mut source),
            Poll::Ready(Ok(4))
        ));
        assert!(buffer.is_full());
        buffer.consume(3);
        assert!(matches!(
            buffer.poll_fill(&mut cx, &mut source),
            Poll::Ready(Ok(2))
        ));
        assert_eq!(buffer.filled(), b"def");
        buffer.cut(1, 1);
        assert_eq!(buffer.filled(), b"df");
    }
}
