//! The buffer that a canonical form is written to.

use crate::sql::lexer::eight;

/// Bytes, and room behind them that is overwritten freely: whatever is appended is written eight
/// bytes at a time. Keeps its memory from one form to the next.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Longer than `length` by [`SLACK`] at least while a form is written.
    bytes: Vec<u8>,
    length: usize,
}

const SLACK: usize = 16;

impl Buffer {
    /// What has been written.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Memory held, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Empty, with room for `length` bytes.
    pub(super) fn clear_for(&mut self, length: usize) {
        self.length = 0;
        if self.bytes.len() < length + SLACK {
            self.bytes.resize(length + SLACK, 0);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    #[inline]
    pub(super) fn last(&self) -> Option<u8> {
        self.bytes.get(self.length.checked_sub(1)?).copied()
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.length) {
            Some(place) => *place = byte,
            None => self.bytes.push(byte),
        }
        self.length += 1;
    }

    /// Appends the first `length` of these eight bytes.
    #[inline]
    pub(super) fn push_eight(&mut self, bytes: u64, length: usize) {
        self.store(self.length, bytes);
        self.length += length;
    }

    /// Takes back the last `length` bytes.
    pub(super) fn take_back(&mut self, length: usize) {
        self.length = self.length.saturating_sub(length);
    }

    /// Appends `length` bytes of `text`.
    #[inline]
    pub(super) fn push_text(&mut self, text: &[u8], start: usize, length: usize) {
        let mut done = 0;
        while done < length {
            self.store(self.length + done, eight::load(text, start + done));
            done += 8;
        }
        self.length += length;
    }

    /// Appends the word of `text` that begins at `start`, ASCII letters in lower case, and a space.
    /// Answers its first eight bytes, or fewer and NULs, and its length.
    #[inline]
    pub(super) fn push_word(&mut self, text: &[u8], start: usize) -> (u64, usize) {
        let bytes = eight::load(text, start);
        let (folded, mut length) = eight::word(bytes);
        self.store(self.length, folded);
        let first = if length < 8 {
            folded & ((1 << (8 * length)) - 1)
        } else {
            let mut more = 8;
            while more == 8 {
                let (folded, next) = eight::word(eight::load(text, start + length));
                self.store(self.length + length, folded);
                length += next;
                more = next;
            }
            folded
        };
        self.length += length;
        self.push(b' ');
        (first, length)
    }

    #[inline]
    fn store(&mut self, at: usize, bytes: u64) {
        if let Some(room) = self.bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *room = bytes.to_le_bytes();
        } else {
            self.store_beyond(at, bytes);
        }
    }

    /// Not reached: the room was reserved.
    #[cold]
    fn store_beyond(&mut self, at: usize, bytes: u64) {
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(&bytes.to_le_bytes());
    }
}
