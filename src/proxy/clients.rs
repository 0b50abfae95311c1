//! The clients of a proxy: found by their cancel keys, listed for operators.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, timeout},
};

use super::tenant::Tenant;
use crate::{
    cluster::NodeId,
    net::Peer,
    pool::{Alarm, Link},
    protocol::startup::CancelKey,
    session::Pins,
};

/// What others may know of and do to a client while its task serves it.
pub(super) struct Client {
    /// What the client was given as its process id.
    pub(super) id: u32,
    key: Box<[u8]>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) peer: Peer,
    pub(super) since: Instant,
    pub(super) application_name: Box<str>,
    pub(super) tls: bool,
    running: Mutex<Running>,
    /// Cancels that are on their way to `running`.
    cancelling: AtomicUsize,
    cancelled: Notify,
    /// A cancel came while the client's request was waiting for a server connection.
    cancelled_waiting: Notify,
    /// [`Activity`] as a number.
    activity: AtomicU8,
    /// Since when it waits for a server connection, in microseconds after `since`, and one more;
    /// 0: it doesn't.
    waits: AtomicU64,
    /// Of which node: a [`NodeId`].
    waits_for: AtomicU16,
    /// [`Pins`] as a number.
    pins: AtomicU16,
    /// An operator has ended it.
    killed: AtomicBool,
    /// Rung when the task has to look up: it is killed, or the proxy stops.
    pub(super) wake: Alarm,
}

/// What a cancel is aimed at.
#[derive(Default)]
struct Running {
    /// The server connection of the request, or of the session's transaction.
    link: Option<Arc<Link>>,
    /// A request waits for a server connection, maybe for another try.
    waiting: bool,
    /// A cancel has come for the request.
    cancelled: bool,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Activity {
    Idle = 0,
    Active = 1,
    Waiting = 2,
    Held = 3,
    InTransaction = 4,
    Pinned = 5,
    /// As `Waiting`, but surely not for the primary.
    WaitingForReplica = 6,
}

/// How long a server connection is kept back for a cancel that is on its way to it.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

impl Client {
    pub(super) fn new(
        key: CancelKey,
        tenant: Arc<Tenant>,
        peer: Peer,
        tls: bool,
        application_name: &str,
    ) -> Self {
        Self {
            id: key.pid,
            key: key.key,
            tenant,
            peer,
            tls,
            since: Instant::now(),
            application_name: application_name.into(),
            running: Mutex::default(),
            cancelling: AtomicUsize::new(0),
            cancelled: Notify::new(),
            cancelled_waiting: Notify::new(),
            activity: AtomicU8::new(0),
            waits: AtomicU64::new(0),
            waits_for: AtomicU16::new(0),
            pins: AtomicU16::new(0),
            killed: AtomicBool::new(false),
            wake: Alarm::default(),
        }
    }

    /// BackendKeyData.
    pub(super) fn write_key(&self, out: &mut Vec<u8>) {
        crate::protocol::write::backend_key_data(out, self.id, &self.key);
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins on this connection: cancels go there.
    pub(super) fn runs_on(&self, link: &Arc<Link>) {
        let mut running = self.running();
        running.link = Some(Arc::clone(link));
        running.waiting = false;
        running.cancelled = false;
    }

    /// A request waits for a server connection: cancels are kept for it.
    pub(super) fn waits(&self) {
        let mut running = self.running();
        if !running.waiting {
            running.waiting = true;
            running.cancelled = false;
        }
    }

    /// The request leaves its connection to go on elsewhere: cancels are kept for it, also those that
    /// have come already. Before another session gets the connection [`Self::cancels_arrive`].
    pub(super) fn pauses(&self) {
        let mut running = self.running();
        running.link = None;
        running.waiting = true;
    }

    /// What has waited doesn't any more.
    pub(super) fn rests(&self) {
        let mut running = self.running();
        running.waiting = false;
        running.cancelled = false;
    }

    /// A cancel has come for the request that waits.
    pub(super) fn is_cancelled(&self) -> bool {
        let running = self.running();
        running.waiting && running.cancelled
    }

    /// The connection that it holds.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.running().link.clone()
    }

    /// The request has ended: no cancel is aimed at the connection any more, and none is on its
    /// way when this returns. False: one may be, the connection must be closed.
    pub(super) async fn ended(&self) -> bool {
        self.ended_quietly() || self.cancels_arrive().await
    }

    /// The request has ended: no cancel is aimed at the connection any more. True: none is on its
    /// way, either; else see [`Self::cancels_arrive`].
    pub(super) fn ended_quietly(&self) -> bool {
        *self.running() = Running::default();
        self.cancelling.load(Ordering::Acquire) == 0
    }

    /// Waits until no cancel is on its way. False: one may still be, the connection must be closed.
    pub(super) async fn cancels_arrive(&self) -> bool {
        let arrived = async {
            loop {
                let notified = self.cancelled.notified();
                if self.cancelling.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        timeout(CANCEL_WAIT, arrived).await.is_ok()
    }

    /// Ends when a cancel comes that is aimed at no server connection.
    pub(super) fn cancelled_waiting(&self) -> Notified<'_> {
        self.cancelled_waiting.notified()
    }

    /// The connection to cancel, if a request is running. While the guard lives, the connection
    /// isn't handed on. A request that waits for a connection hears of it, too.
    fn cancel(self: Arc<Self>) -> Option<Cancelling> {
        let mut running = self.running();
        running.cancelled = true;
        let Some(link) = running.link.as_ref().map(Arc::clone) else {
            self.cancelled_waiting.notify_waiters();
            return None;
        };
        // Under the lock, so that `ended` sees it.
        self.cancelling.fetch_add(1, Ordering::AcqRel);
        drop(running);
        Some(Cancelling { link, client: self })
    }

    pub(super) fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// It begins to wait for a server connection.
    pub(super) fn wait_begins(&self, now: Instant) {
        let after = now.saturating_duration_since(self.since).as_micros();
        let after = u64::try_from(after).unwrap_or(u64::MAX - 1);
        // No node's, until one is known.
        self.waits_for.store(u16::MAX, Ordering::Relaxed);
        self.waits.store(after + 1, Ordering::Relaxed);
    }

    /// What it waits for is a connection to this node.
    pub(super) fn waits_for(&self, node: NodeId) {
        self.waits_for.store(node.0, Ordering::Relaxed);
    }

    pub(super) fn wait_ends(&self) {
        self.waits.store(0, Ordering::Relaxed);
    }

    /// For how long it has been waiting for a server connection, if it is, and of which node.
    pub(super) fn waiting(&self, now: Instant) -> Option<(Duration, NodeId)> {
        let after = self.waits.load(Ordering::Relaxed).checked_sub(1)?;
        let began = self.since + Duration::from_micros(after);
        let node = NodeId(self.waits_for.load(Ordering::Relaxed));
        Some((now.saturating_duration_since(began), node))
    }

    /// Why it keeps its server connection.
    pub(super) fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    pub(super) fn set_pins(&self, pins: Pins) {
        self.pins.store(pins.bits(), Ordering::Relaxed);
    }

    pub(super) fn activity(&self) -> Activity {
        match self.activity.load(Ordering::Relaxed) {
            1 => Activity::Active,
            2 => Activity::Waiting,
            3 => Activity::Held,
            4 => Activity::InTransaction,
            5 => Activity::Pinned,
            6 => Activity::WaitingForReplica,
            _ => Activity::Idle,
        }
    }

    /// Ends the client: at once when it is idle, else with its server connection.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake.ring();
        if let Some(link) = self.link() {
            link.doom();
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

/// A cancel on its way.
pub(super) struct Cancelling {
    pub(super) link: Arc<Link>,
    client: Arc<Client>,
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.client.cancelling.fetch_sub(1, Ordering::AcqRel);
        self.client.cancelled.notify_waiters();
    }
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Clients {
    by_id: Mutex<HashMap<u32, Arc<Client>, foldhash::fast::RandomState>>,
}

impl Clients {
    fn by_id(&self) -> MutexGuard<'_, HashMap<u32, Arc<Client>, foldhash::fast::RandomState>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a client; false when its id is taken.
    pub(super) fn enter(&self, client: &Arc<Client>) -> bool {
        match self.by_id().entry(client.id) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(Arc::clone(client));
                true
            }
        }
    }

    pub(super) fn leave(&self, id: u32) {
        self.by_id().remove(&id);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id().len()
    }

    /// How many there are of a kind.
    pub(super) fn count(&self, of: impl Fn(&Client) -> bool) -> usize {
        self.by_id().values().filter(|client| of(client)).count()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.by_id().values().cloned().collect()
    }

    /// One, by its id.
    pub(super) fn get(&self, id: u32) -> Option<Arc<Client>> {
        self.by_id().get(&id).cloned()
    }

    /// What a cancel request is aimed at, if its key is right and something runs.
    pub(super) fn cancel(&self, key: &CancelKey) -> Option<Cancelling> {
        let client = self.get(key.pid)?;
        crate::protocol::scram::same(&client.key, &key.key)
            .then_some(client)?
            .cancel()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("count", &self.len())
            .finish_non_exhaustive()
    }
}
