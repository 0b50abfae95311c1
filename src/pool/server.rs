//! One server connection.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{alarm::Alarm, connect::Connected};
use crate::{
    cluster::NodeId, net::Stream, protocol::startup::CancelKey, session::backend::Backend,
};

/// A connection to a node, logged in, with what is known of its state.
pub struct Server {
    pub stream: Stream,
    pub node: NodeId,
    pub backend: Backend,
    pub link: Arc<Link>,
    /// Whom it has logged in as.
    pub user: Arc<str>,
    /// ParameterStatus as the login reported them.
    pub parameters: Arc<[(Box<str>, Box<str>)]>,
    pub(super) born: Instant,
    pub(super) idle_since: Instant,
}

/// What others may know of and do to a server connection while a client's task drives it.
pub struct Link {
    pub node: NodeId,
    pub cancel: CancelKey,
    pub since: Instant,
    /// Tells it from all others of the process.
    number: u64,
    doomed: Alarm,
    retired: AtomicBool,
}

impl Link {
    /// The connection must not be used any more: its node is down, or an operator says so. Wakes
    /// the task that waits on it.
    pub fn doom(&self) {
        self.doomed.ring();
    }

    /// The connection isn't to be lent again.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// [`Self::retire`] was called.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Tells it from all others of the process.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// [`Self::doom`] was called.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.doomed.is_rung()
    }

    /// [`Self::doom`] will wake this task.
    pub fn watch(&self, cx: &Context<'_>) {
        self.doomed.watch(cx);
    }
}

impl Server {
    pub(super) fn new(
        connected: Connected,
        node: NodeId,
        user: &Arc<str>,
        number: u64,
        backend: Backend,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream: connected.stream,
            node,
            backend,
            link: Arc::new(Link {
                node,
                cancel: connected.cancel,
                since: now,
                number,
                doomed: Alarm::default(),
                retired: AtomicBool::new(false),
            }),
            parameters: connected.parameters.into(),
            user: Arc::clone(user),
            born: now,
            idle_since: now,
        }
    }

    /// Nothing has come since its last answer, and nothing speaks against using it. A server that
    /// ends a connection says so first: bytes at rest mean that it is gone or about to be.
    pub(super) fn is_quiet(&mut self, max_lifetime: Duration, now: Instant) -> bool {
        if self.link.is_doomed() || self.link.is_retired() || self.backend.spoiled {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.stream.poll_readable(&mut cx), Poll::Pending)
            && !self.is_old(max_lifetime, now)
    }

    /// Its time is over, if there is a limit.
    pub(super) fn is_old(&self, max_lifetime: Duration, now: Instant) -> bool {
        !max_lifetime.is_zero() && now.saturating_duration_since(self.born) >= max_lifetime
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
