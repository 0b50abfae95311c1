//! What a client's task needs only while there is something to do: buffers and queues, borrowed
//! from its thread. A client at rest owns none.

use std::cell::RefCell;

use super::exchange::Exchange;
use crate::{
    net::Buffer,
    session::{effects::Expected, replies::Replies, request::Resolved},
};

/// Room for a client's bytes at first.
const CLIENT_BUFFER: usize = 16 << 10;
/// Room for a client's bytes while it sends bulk data.
pub(super) const CLIENT_BULK: usize = 64 << 10;
/// Room for a server's bytes: large results move in large pieces.
const SERVER_BUFFER: usize = 64 << 10;
/// Bytes to write are kept in a reused buffer up to this size.
const WRITE_BUFFER: usize = 64 << 10;
/// Idle sets that a thread keeps.
const KEPT: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) client_in: Buffer,
    pub(super) server_in: Buffer,
    pub(super) to_client: Out,
    pub(super) to_server: Out,
    pub(super) replies: Replies,
    pub(super) expected: Expected,
    pub(super) resolved: Resolved,
    /// Of a request that has ended, for the next one.
    pub(super) exchange: Option<Box<Exchange>>,
}

/// Bytes on their way out: those before `at` are written.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    /// Bytes that went out since somebody has asked.
    pub(super) went: usize,
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
        self.went += count;
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }
}

thread_local! {
    #[expect(clippy::vec_box, reason = "they are moved about while a client is busy: a pointer each")]
    static FREE: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    /// Takes a clean set from this thread's.
    pub(super) fn take() -> Box<Self> {
        FREE.with(|free| free.borrow_mut().pop())
            .unwrap_or_else(|| {
                Box::new(Self {
                    client_in: Buffer::new(CLIENT_BUFFER),
                    server_in: Buffer::new(SERVER_BUFFER),
                    to_client: Out::default(),
                    to_server: Out::default(),
                    replies: Replies::default(),
                    expected: Expected::default(),
                    resolved: Resolved::default(),
                    exchange: None,
                })
            })
    }

    /// Gives it back, emptied.
    pub(super) fn give_back(mut self: Box<Self>) {
        self.client_in.clear();
        self.server_in.clear();
        self.to_client.clear();
        self.to_server.clear();
        self.replies.clear();
        self.expected.clear();
        self.resolved.clear();
        if self.client_in.capacity() > CLIENT_BULK
            || self.to_client.bytes.capacity() > WRITE_BUFFER
            || self.to_server.bytes.capacity() > WRITE_BUFFER
        {
            return;
        }
        FREE.with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(self);
            }
        });
    }
}
