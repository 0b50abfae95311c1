//! Server connections: made, lent, looked after.
//!
//! One [`Pool`] holds the connections of one database, user and node. Its limit is one semaphore
//! for all workers; the connections lie in one deadpool per worker, because a socket is watched by
//! the runtime that made it and waking another thread costs more than a query. A worker that has
//! none idle, while the limit is used up by connections idle elsewhere, takes one of those.
//!
//! A connection that comes back while nobody waits stays *warm*: beside its deadpool, with its place
//! under the limit, so that the next request of its worker takes it without a detour. Whoever finds
//! the limit used up cools all warm connections first, and none is warmed while somebody waits.
//!
//! **Invariant**: a connection is lent to one session at a time, and comes back only by
//! [`Lease::give_back`]; a lease that is dropped in any other way closes its connection.

mod alarm;
pub mod connect;
mod gate;
mod server;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{
    self, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, WeakPool,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};

pub use alarm::Alarm;
pub use gate::Gate;
pub use server::{Link, Server};

use crate::{
    cluster::NodeId,
    config::settings,
    protocol::backend,
    session::{backend::Backend, settings::Settings},
};
use connect::{ConnectError, Connected};

/// Makes connections of one database and user.
pub trait Connect: Send + Sync {
    /// Connects to the node and logs in before `deadline`.
    fn connect(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send + '_>>;
}

/// See the module's description.
pub struct Pool {
    limits: settings::Pool,
    permits: Arc<Semaphore>,
    /// Of these, what reads may take that no replica could serve.
    reads: Arc<Semaphore>,
    /// One per worker.
    shards: Box<[managed::Pool<Manager>]>,
    shared: Arc<Shared>,
}

/// Numbers of server connections.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// What the workers' shards of one pool have in common.
struct Shared {
    connect: Box<dyn Connect>,
    /// A [`NodeId`]; another one only while there is no connection.
    node: AtomicU16,
    user: Arc<str>,
    limits: settings::Pool,
    /// A fresh connection's settings: none that differ.
    fresh: Arc<Settings>,
    /// Connections that are open or being opened.
    open: AtomicUsize,
    /// Those of them that are being opened.
    opening: AtomicUsize,
    waiting: AtomicUsize,
    /// The node is down: nobody waits for it.
    down: watch::Sender<bool>,
    /// An operator may have paused the database.
    gate: Gate,
    links: Mutex<Vec<Weak<Link>>>,
    /// For taking connections that are idle at another worker.
    siblings: OnceLock<Box<[WeakPool<Manager>]>>,
    /// By worker: connections that came back last, the last one on top.
    warm: Box<[Mutex<WarmSlots>]>,
}

type WarmSlots = Vec<Box<Slot>>;

/// A connection and its place under the limit.
struct Slot {
    object: Object<Manager>,
    permit: OwnedSemaphorePermit,
    /// Of [`Pool::acquire_for_fallback`].
    share: Option<OwnedSemaphorePermit>,
}

struct Manager {
    worker: usize,
    shared: Arc<Shared>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum AcquireError {
    /// All are in use and none came free in time.
    Full {
        limit: usize,
        waited: Duration,
    },
    /// Reads that no replica could serve have their whole share.
    ShareFull {
        limit: usize,
        waited: Duration,
    },
    /// The node went down meanwhile.
    Down,
    /// An operator has paused the database.
    Paused,
    Connect(ConnectError),
    /// The pool is being closed.
    Closed,
}

/// A connection that is lent to one session.
pub struct Lease {
    /// `None` only while it is being given back.
    slot: Option<Box<Slot>>,
    shared: Arc<Shared>,
    worker: usize,
}

/// How many connections a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub open: usize,
    pub idle: usize,
    pub lent: usize,
    /// Being opened; part of `open`.
    pub opening: usize,
    /// Sessions that wait for one.
    pub waiting: usize,
    pub max: usize,
}

impl managed::Manager for Manager {
    type Type = Box<Server>;
    type Error = ConnectError;

    async fn create(&self) -> Result<Box<Server>, ConnectError> {
        let opening = Opening::new(&self.shared);
        // Behind the counting: whoever pauses looks at the count afterwards.
        if self.shared.gate.is_shut() {
            return Err(ConnectError::Paused);
        }
        if let Some(server) = self.adopt() {
            opening.done();
            return Ok(server);
        }
        let deadline = Instant::now() + self.shared.limits.connect_timeout;
        let node = self.shared.node();
        let connected = tokio::select! {
            biased;
            () = self.shared.went_down() => return Err(ConnectError::NodeDown),
            connected = self.shared.connect.connect(node, deadline) => connected?,
        };
        opening.done();
        let backend = Backend::fresh(Arc::clone(&self.shared.fresh));
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let server = Server::new(connected, node, &self.shared.user, number, backend);
        self.shared.register(&server.link);
        Ok(Box::new(server))
    }

    async fn recycle(
        &self,
        server: &mut Box<Server>,
        _metrics: &Metrics,
    ) -> Result<(), RecycleError<ConnectError>> {
        if server.is_quiet(self.shared.limits.max_lifetime, Instant::now()) {
            Ok(())
        } else {
            Err(RecycleError::message("no longer usable"))
        }
    }

    fn detach(&self, _server: &mut Box<Server>) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as open while it is being opened, and on if that went well.
struct Opening<'a>(Option<&'a Shared>);

impl<'a> Opening<'a> {
    fn new(shared: &'a Shared) -> Self {
        // Before it is looked at whether the node may still be connected to.
        shared.open.fetch_add(1, Ordering::SeqCst);
        shared.opening.fetch_add(1, Ordering::Relaxed);
        Self(Some(shared))
    }

    fn done(mut self) {
        if let Some(shared) = self.0.take() {
            shared.opening.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.opening.fetch_sub(1, Ordering::Relaxed);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Manager {
    /// Takes a connection that is idle at another worker, when no more may be opened.
    fn adopt(&self) -> Option<Box<Server>> {
        // One of these is the one that is wanted.
        if self.shared.open.load(Ordering::Relaxed) <= self.shared.limits.max_size {
            return None;
        }
        let siblings = self.shared.siblings.get()?;
        let others = siblings
            .iter()
            .enumerate()
            .filter(|(worker, _)| *worker != self.worker);
        let now = Instant::now();
        for (_, other) in others {
            while let Some(mut server) = other.upgrade().and_then(|shard| take_idle(&shard)) {
                if server.is_quiet(self.shared.limits.max_lifetime, now) {
                    return Some(server);
                }
            }
        }
        None
    }
}

/// Takes an idle connection out of this shard, which counts it out.
fn take_idle(shard: &managed::Pool<Manager>) -> Option<Box<Server>> {
    let mut wanted = true;
    let mut taken = shard.retain(|_, _| !std::mem::take(&mut wanted)).removed;
    taken.pop()
}

/// An idle connection of this shard, without waiting and without opening one.
fn idle(shard: &managed::Pool<Manager>) -> Option<Object<Manager>> {
    // `Pool::status` takes whoever waits for a new connection for one who has an idle one.
    if shard.retain(|_, _| true).retained == 0 {
        return None;
    }
    let timeouts = managed::Timeouts {
        wait: Some(Duration::ZERO),
        create: None,
        recycle: None,
    };
    let mut get = std::pin::pin!(shard.timeout_get(&timeouts));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match get.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Ok(object)) => Some(object),
        std::task::Poll::Ready(Err(_)) | std::task::Poll::Pending => None,
    }
}

impl Shared {
    fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Relaxed))
    }

    /// This worker's warm connections.
    fn warm(&self, worker: usize) -> Option<MutexGuard<'_, WarmSlots>> {
        let warm = self.warm.get(worker)?;
        Some(warm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts all warm connections back into their deadpools, where everybody finds them.
    fn cool(&self) {
        for worker in 0..self.warm.len() {
            let cooled = self.warm(worker).map(|mut warm| std::mem::take(&mut *warm));
            drop(cooled);
        }
    }

    /// Ends when the node is down, or is known to be.
    async fn went_down(&self) {
        let mut down = self.down.subscribe();
        // The sender lives as long as we do.
        let _ended = down.wait_for(|down| *down).await;
    }

    fn register(&self, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(
        node: NodeId,
        user: &Arc<str>,
        connect: Box<dyn Connect>,
        limits: &settings::Pool,
        fresh: &Arc<Settings>,
        workers: usize,
        gate: Gate,
    ) -> Self {
        let shared = Arc::new(Shared {
            connect,
            node: AtomicU16::new(node.0),
            user: Arc::clone(user),
            limits: limits.clone(),
            fresh: Arc::clone(fresh),
            open: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            down: watch::Sender::new(false),
            gate,
            links: Mutex::default(),
            siblings: OnceLock::new(),
            warm: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        });
        let shards: Box<[_]> = (0..workers.max(1))
            .filter_map(|worker| {
                managed::Pool::builder(Manager {
                    worker,
                    shared: Arc::clone(&shared),
                })
                .config(PoolConfig {
                    max_size: limits.max_size,
                    timeouts: managed::Timeouts::default(),
                    queue_mode: QueueMode::Lifo,
                })
                .build()
                .ok()
            })
            .collect();
        if shards.len() > 1 {
            let weak = shards.iter().map(managed::Pool::weak).collect();
            let _first = shared.siblings.set(weak);
        }
        Self {
            limits: limits.clone(),
            permits: Arc::new(Semaphore::new(limits.max_size)),
            reads: Arc::new(Semaphore::new(
                limits.primary_reads_share.of(limits.max_size),
            )),
            shards,
            shared,
        }
    }

    /// The node it leads to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node()
    }

    /// Makes it lead to `node`, if nothing is left of the one before. False: something is.
    pub fn rebind(&self, node: NodeId) -> bool {
        let free = self.is_drained();
        if free {
            self.shared.node.store(node.0, Ordering::Relaxed);
        }
        free
    }

    /// No connection is open, or being opened.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.shared.open.load(Ordering::SeqCst) == 0
    }

    /// Lends the connection that came back to this worker last, if it is warm still.
    #[must_use]
    pub fn warm(&self, worker: usize, now: Instant) -> Option<Lease> {
        loop {
            let mut slot = self.shared.warm(worker)?.pop()?;
            let quiet = slot.object.is_quiet(self.limits.max_lifetime, now);
            let lease = self.lease_of(slot, worker);
            if quiet {
                return Some(lease);
            }
        }
    }

    /// The same for a read that belongs on another node, if its like have left it room: as
    /// [`Self::acquire_for_fallback`].
    #[must_use]
    pub fn warm_for_fallback(&self, worker: usize, now: Instant) -> Option<Lease> {
        let share = Arc::clone(&self.reads).try_acquire_owned().ok()?;
        let mut lease = self.warm(worker, now)?;
        lease.shares(share);
        Some(lease)
    }

    /// Lends a connection: an idle one, the one used last first, or a new one while there are fewer
    /// than the limit, or waits up to `acquire_timeout`. Cancel safe.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn acquire(&self, worker: usize) -> Result<Lease, AcquireError> {
        if let Some(lease) = self.warm(worker, Instant::now()) {
            return Ok(lease);
        }
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => Box::pin(self.wait(self.deadline())).await?,
        };
        self.lease(worker, permit).await
    }

    /// The same for a read that belongs on another node: such reads have at most
    /// `primary_reads_share` of the limit, so that they leave room for what can run nowhere else.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn acquire_for_fallback(&self, worker: usize) -> Result<Lease, AcquireError> {
        let deadline = self.deadline();
        let share = match Arc::clone(&self.reads).try_acquire_owned() {
            Ok(share) => share,
            Err(_) => self
                .queue(&self.reads, deadline)
                .await?
                .ok_or(AcquireError::ShareFull {
                    limit: self.limits.primary_reads_share.of(self.limits.max_size),
                    waited: self.limits.acquire_timeout,
                })?,
        };
        let mut lease = match self.warm(worker, Instant::now()) {
            Some(lease) => lease,
            None => {
                let permit = match Arc::clone(&self.permits).try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => self.wait(deadline).await?,
                };
                self.lease(worker, permit).await?
            }
        };
        lease.shares(share);
        Ok(lease)
    }

    async fn lease(
        &self,
        worker: usize,
        permit: OwnedSemaphorePermit,
    ) -> Result<Lease, AcquireError> {
        let shard = self.shards.get(worker).ok_or(AcquireError::Closed)?;
        let object = match shard.get().await {
            Ok(object) => object,
            Err(PoolError::Backend(ConnectError::NodeDown)) => return Err(AcquireError::Down),
            Err(PoolError::Backend(ConnectError::Paused)) => return Err(AcquireError::Paused),
            Err(PoolError::Backend(error)) => return Err(AcquireError::Connect(error)),
            Err(_) => return Err(AcquireError::Closed),
        };
        Ok(self.lease_of(Slot::new(object, permit), worker))
    }

    fn lease_of(&self, slot: Box<Slot>, worker: usize) -> Lease {
        Lease {
            slot: Some(slot),
            shared: Arc::clone(&self.shared),
            worker,
        }
    }

    /// Lends the connection of this number, if it is idle at this worker. Never waits.
    #[must_use]
    pub fn acquire_link(&self, worker: usize, number: u64) -> Option<Lease> {
        let warm = {
            let mut warm = self.shared.warm(worker)?;
            warm.iter()
                .position(|slot| slot.object.link.number() == number)
                .map(|at| warm.remove(at))
        };
        if let Some(mut slot) = warm {
            let quiet = slot
                .object
                .is_quiet(self.limits.max_lifetime, Instant::now());
            let lease = self.lease_of(slot, worker);
            return quiet.then_some(lease);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let shard = self.shards.get(worker)?;
        // Those that are taken out on the way go back when they are dropped, the last used first.
        let mut others = Vec::new();
        let object = loop {
            match idle(shard) {
                Some(object) if object.link.number() == number => break Some(object),
                Some(other) => others.push(other),
                None => break None,
            }
        };
        while let Some(other) = others.pop() {
            drop(other);
        }
        Some(self.lease_of(Slot::new(object?, permit), worker))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.acquire_timeout
    }

    async fn wait(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, AcquireError> {
        let permit = self.queue(&self.permits, deadline).await?;
        permit.ok_or(AcquireError::Full {
            limit: self.limits.max_size,
            waited: self.limits.acquire_timeout,
        })
    }

    /// Waits for its turn; `None`: it didn't come in time.
    async fn queue(
        &self,
        semaphore: &Arc<Semaphore>,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, AcquireError> {
        // From here on nothing is warmed: what comes back meanwhile is seen by one of the two.
        let _waiting = Waiting::new(&self.shared.waiting);
        self.shared.cool();
        let turn = timeout_at(deadline, Arc::clone(semaphore).acquire_owned());
        tokio::select! {
            biased;
            () = self.shared.went_down() => Err(AcquireError::Down),
            turn = turn => match turn {
                Ok(Ok(permit)) => Ok(Some(permit)),
                Ok(Err(_closed)) => Err(AcquireError::Closed),
                Err(_elapsed) => Ok(None),
            },
        }
    }

    /// Makes a connection that was opened apart end with this pool's, though it is never lent.
    #[must_use]
    pub fn attach(&self, connected: Connected) -> Server {
        let backend = Backend::fresh(Arc::clone(&self.shared.fresh));
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let server = Server::new(connected, self.node(), &self.shared.user, number, backend);
        self.shared.register(&server.link);
        server
    }

    /// How many connections there are.
    #[must_use]
    pub fn status(&self) -> Status {
        let warm: usize = (0..self.shared.warm.len())
            .filter_map(|worker| self.shared.warm(worker))
            .map(|warm| warm.len())
            .sum();
        let free = self.permits.available_permits() + warm;
        let lent = self.limits.max_size - free.min(self.limits.max_size);
        let open = self.shared.open.load(Ordering::Relaxed);
        Status {
            open,
            idle: open.saturating_sub(lent),
            lent,
            opening: self.shared.opening.load(Ordering::Relaxed),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            max: self.limits.max_size,
        }
    }

    /// Whether the node is down. While it is nobody waits for a connection, nor for one being made.
    pub fn set_down(&self, down: bool) {
        self.shared.down.send_replace(down);
    }

    /// Ends all connections, lent ones, too. Idle ones are closed at once.
    pub fn doom(&self) {
        let links = self
            .shared
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for link in links.iter().filter_map(Weak::upgrade) {
            link.doom();
        }
        self.shared.cool();
        for shard in &self.shards {
            let _closed = shard.retain(|_, _| false);
        }
    }

    /// Closes idle connections at once and lent ones when they come back, for RECONNECT.
    pub fn retire(&self) {
        for link in self.links() {
            link.retire();
        }
        self.shared.cool();
        for shard in &self.shards {
            let _closed = shard.retain(|_, _| false);
        }
    }

    /// Closes idle connections that are too old, or were idle for too long, and opens up to `min_idle`.
    /// To be called now and then, on the worker whose shard it is.
    pub async fn tend(&self, worker: usize) {
        let Some(shard) = self.shards.get(worker) else {
            return;
        };
        self.shared.cool();
        let limit = self.limits.idle_timeout;
        let mut keep = self.limits.min_idle;
        let now = Instant::now();
        let _closed = shard.retain(|server, _| {
            if server.is_old(self.limits.max_lifetime, now) {
                return false;
            }
            if keep > 0 {
                keep -= 1;
                return true;
            }
            limit.is_zero() || now.saturating_duration_since(server.idle_since) < limit
        });
        if worker == 0 {
            let mut leases = Vec::new();
            while leases.len() < self.limits.min_idle
                && self.shared.open.load(Ordering::Relaxed) < self.limits.min_idle
            {
                match self.acquire(worker).await {
                    Ok(lease) => leases.push(lease),
                    Err(_) => break,
                }
            }
            let now = Instant::now();
            leases.into_iter().for_each(|lease| lease.give_back(now));
        }
    }

    /// Server connections that are open, lent or idle.
    pub fn links(&self) -> Vec<Arc<Link>> {
        let links = self
            .shared
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(Weak::upgrade).collect()
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    fn new(object: Object<Manager>, permit: OwnedSemaphorePermit) -> Box<Self> {
        Box::new(Self {
            object,
            permit,
            share: None,
        })
    }

    fn discard(self) {
        // Taking it out of the pool counts it out; dropping it closes the socket.
        drop(Object::take(self.object));
    }
}

impl Lease {
    /// The connection is clean (nothing owed, no transaction): the next session may have it.
    pub fn give_back(mut self, now: Instant) {
        let Some(mut slot) = self.slot.take() else {
            return;
        };
        slot.share = None;
        let server = &mut slot.object;
        if server.link.is_doomed() || server.link.is_retired() || server.backend.spoiled {
            slot.discard();
            return;
        }
        if server.backend.status != backend::Status::Idle {
            // Never, if all else is right: nobody is to pay for it but this connection.
            tracing::error!(
                node = ?server.node,
                status = ?server.backend.status,
                "a server connection came back in a transaction; it is closed"
            );
            slot.discard();
            return;
        }
        if std::mem::take(&mut server.backend.tainted) {
            // Reset before it serves anyone: nothing of this session may be seen by the next.
            server.backend.settings = None;
        }
        server.idle_since = now;
        if let Some(mut warm) = self.shared.warm(self.worker) {
            // Under the lock, see `Pool::wait`.
            if self.shared.waiting.load(Ordering::Relaxed) == 0 {
                warm.push(slot);
                return;
            }
        }
        // In this order: who gets the place finds the connection.
        let Slot { object, permit, .. } = *slot;
        drop(object);
        drop(permit);
    }

    /// It takes a place among those that reads may have in the replicas' stead.
    fn shares(&mut self, share: OwnedSemaphorePermit) {
        if let Some(slot) = &mut self.slot {
            slot.share = Some(share);
        }
    }

    /// The node at the other end.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl std::ops::Deref for Lease {
    type Target = Server;

    #[expect(
        clippy::expect_used,
        reason = "only give_back and drop take the object, and both end the lease"
    )]
    fn deref(&self) -> &Server {
        let slot = self.slot.as_ref();
        &slot
            .expect("a lease has its connection until it ends")
            .object
    }
}

impl std::ops::DerefMut for Lease {
    #[expect(
        clippy::expect_used,
        reason = "only give_back and drop take the object, and both end the lease"
    )]
    fn deref_mut(&mut self) -> &mut Server {
        let slot = self.slot.as_mut();
        &mut slot
            .expect("a lease has its connection until it ends")
            .object
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.discard();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("node", &self.shared.node())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("node", &self.node())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit, waited } => write!(
                f,
                "all {limit} server connections of this pool were in use for {} ms",
                waited.as_millis()
            ),
            Self::ShareFull { limit, waited } => write!(
                f,
                "all {limit} server connections that reads may use in the replicas' place were in use for {} ms",
                waited.as_millis()
            ),
            Self::Down => f.write_str("the node is down"),
            Self::Paused => f.write_str("the database is paused"),
            Self::Connect(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the pool is closed"),
        }
    }
}

impl std::error::Error for AcquireError {}

#[cfg(test)]
mod tests;
