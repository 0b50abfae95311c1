//! The session's unnamed statement, kept for the case that a later Bind meets another server
//! connection.
//!
//! It changes when a request is found, and is confirmed or taken back as the server answers:
//!
//! | event | the statement is |
//! |---|---|
//! | Parse without a name found | that one, to be confirmed |
//! | Close of it found | none, to be confirmed |
//! | ParseComplete, CloseComplete of these | confirmed |
//! | error in such a Parse | none |
//! | error elsewhere | the one confirmed last, or as before the request |
//! | simple Query sent | none |
//!
//! A Parse that begins a request can only fail by itself, so that what was before it isn't kept:
//! the common case copies nothing. Should such a request fail without being sent, there is no
//! unnamed statement.

use crate::protocol::frontend::Parse;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Unnamed {
    now: Text,
    /// What it was before each change since the last Sync, oldest first. Fewer than there were
    /// changes when the first was a Parse at the beginning of a request.
    before: Vec<Text>,
    /// A Parse whose predecessor isn't kept goes before those.
    unkept: bool,
    /// How many of all these changes the server has acknowledged.
    confirmed: usize,
    /// How many this session has had.
    count: u32,
}

/// One unnamed statement: the body of its Parse.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// Zero bytes: there is none.
    parse: Vec<u8>,
    /// Tells it from the session's others.
    number: u32,
    /// There is one that was too long to be kept.
    passed: bool,
}

/// Tells one unnamed statement from every other session's and from earlier ones of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    session: u32,
    number: u32,
}

/// Texts longer than this are not kept from one request to the next in a session at rest.
const CAPACITY: usize = 4096;

impl Text {
    /// The body of its Parse message; empty when there is none.
    #[must_use]
    pub fn parse(&self) -> &[u8] {
        &self.parse
    }

    /// Its query text.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        Parse::read(&self.parse).ok().map(|parse| parse.text)
    }

    /// Tells it from all others; `None` when there is none.
    #[must_use]
    pub fn stamp(&self, session: u32) -> Option<Stamp> {
        (self.passed || !self.parse.is_empty()).then_some(Stamp {
            session,
            number: self.number,
        })
    }
}

impl Unnamed {
    /// The one that there is, if there is one.
    #[must_use]
    pub fn now(&self) -> &Text {
        &self.now
    }

    /// A Parse with this body; `begins`: it is the first message of all since the last Sync.
    pub(super) fn set(&mut self, body: &[u8], begins: bool) {
        self.count = self.count.wrapping_add(1);
        if begins {
            self.unkept = true;
        } else {
            self.keep();
        }
        let now = &mut self.now;
        now.parse.clear();
        if now.parse.capacity() > CAPACITY && body.len() <= CAPACITY {
            now.parse = Vec::new();
        }
        now.parse.extend_from_slice(body);
        now.number = self.count;
        now.passed = false;
    }

    /// A Parse too long to be kept was passed on.
    pub(super) fn pass(&mut self) {
        self.count = self.count.wrapping_add(1);
        self.keep();
        self.now.number = self.count;
        self.now.passed = true;
    }

    /// A Close of it.
    pub(super) fn close(&mut self) {
        self.keep();
    }

    fn keep(&mut self) {
        self.before.push(std::mem::take(&mut self.now));
    }

    /// The oldest change that wasn't acknowledged yet, was. `finally`: the request won't be run
    /// again.
    pub fn confirm(&mut self, finally: bool) {
        self.confirmed += 1;
        if finally {
            let kept = self.confirmed - usize::from(self.unkept);
            self.before.drain(..kept.min(self.before.len()));
            self.unkept = false;
            self.confirmed = 0;
        }
    }

    /// The changes that aren't acknowledged won't be carried out. `failed`: the first of them has
    /// failed as a Parse.
    pub fn undo(&mut self, failed: bool) {
        match self.confirmed.checked_sub(usize::from(self.unkept)) {
            Some(kept) if !failed => {
                if kept < self.before.len() {
                    self.now = self.before.swap_remove(kept);
                }
            }
            Some(_) | None => self.now = Text::default(),
        }
        self.settle();
    }

    /// The request is run again from its start.
    pub fn rewind(&mut self) {
        self.confirmed = 0;
    }

    /// The request has ended well.
    pub fn settle(&mut self) {
        self.before.clear();
        self.confirmed = 0;
        self.unkept = false;
    }

    /// There is none any more: a simple Query drops it.
    pub fn drop_now(&mut self) {
        self.now.parse.clear();
        self.now.passed = false;
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unnamed: &Unnamed) -> &[u8] {
        unnamed.now().parse()
    }

    #[test]
    fn an_error_before_a_later_parse_leaves_the_earlier_statement() {
        let mut unnamed = Unnamed::default();
        unnamed.set(b"1", true);
        unnamed.set(b"2", false);
        unnamed.set(b"3", false);
        unnamed.confirm(false);
        unnamed.confirm(true);
        unnamed.undo(false);
        assert_eq!(text(&unnamed), b"2");
    }

    #[test]
    fn a_parse_that_fails_leaves_none() {
        let mut unnamed = Unnamed::default();
        unnamed.set(b"1", true);
        unnamed.confirm(true);
        unnamed.settle();
        unnamed.set(b"2", true);
        unnamed.undo(true);
        assert_eq!(text(&unnamed), b"");
    }

    #[test]
    fn a_close_that_is_not_carried_out_is_taken_back() {
        let mut unnamed = Unnamed::default();
        unnamed.set(b"1", true);
        unnamed.settle();
        unnamed.close();
        assert_eq!(unnamed.now().stamp(7), None);
        unnamed.undo(false);
        assert_eq!(text(&unnamed), b"1");
        assert!(unnamed.now().stamp(7).is_some());
    }

    #[test]
    fn another_try_confirms_anew() {
        let mut unnamed = Unnamed::default();
        unnamed.set(b"1", true);
        unnamed.settle();
        unnamed.set(b"2", false);
        unnamed.confirm(false);
        unnamed.rewind();
        unnamed.undo(false);
        assert_eq!(text(&unnamed), b"1");
    }
}
