//! Keeps each database's catalogue: loaded from the primary when first asked for, looked after
//! while it is in use, and never trusted while it may be wrong.
//!
//! What makes it wrong is noticed in two ways. DDL that passes through pgsplit is reported
//! ([`CatalogueSlot::ddl_seen`]): the catalogue is gone at once and comes back newly loaded. What
//! happens elsewhere shows in a fingerprint of the system catalogues, asked for every
//! [`POLL`]; where no transaction has ended since the last time, even that is spared.
//!
//! **Invariants.** A load publishes only if no DDL was reported since it began. A catalogue that
//! couldn't be looked after for [`TRUST`] while there is a primary is withdrawn. Nobody waits here:
//! without a catalogue, statements go to the primary.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_core::Stream as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_util::task::AbortOnDropHandle;

use super::{Monitor, connection::Problem, queries};
use crate::{
    cluster::{Failure, Health, NodeId, Role, View},
    sql::catalogue::{Catalogue, CatalogueBuilder, QUERIES},
};

/// Time from one look for changes to the next; more where looking takes long.
const POLL: Duration = Duration::from_secs(2);
/// The longest that becomes.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// Looking for changes takes at most this share of the time.
const POLL_SHARE: u32 = 50;
/// Time without further DDL before a load begins.
const QUIET: Duration = Duration::from_millis(50);
/// Time that a catalogue lives on without having been looked after.
const TRUST: Duration = Duration::from_secs(60);
/// Time after which a catalogue that nobody asks for is dropped, with its connection.
const UNUSED: Duration = Duration::from_secs(600);
/// Loaded anew after this in any case.
const REFRESH: Duration = Duration::from_secs(300);
/// Deadline of a load, connecting included.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Time from a failure to the next try, twice as long after each further one.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that becomes.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// PostgreSQL waits so long for others to leave a database that it is to drop, rename or copy
/// (`CountOtherDBBackends` in `src/backend/storage/ipc/procarray.c`), and a little longer.
const ALONE: Duration = Duration::from_secs(6);
/// Databases whose catalogues are kept; further ones get none.
const MAX_DATABASES: usize = 1000;

/// One database's catalogue, as far as it is known.
pub struct CatalogueSlot {
    database: Box<str>,
    current: ArcSwapOption<Catalogue>,
    /// Of `current`, or 0; changed after it.
    generation: AtomicU64,
    /// DDL reports so far. Whoever changes this or publishes to `current` holds the lock.
    changes: Mutex<u64>,
    used: AtomicBool,
    /// See [`Monitor::leave_database`].
    left: AtomicBool,
    wake: Notify,
    /// See [`Catalogues::published`].
    published: Arc<AtomicU64>,
    /// See [`Self::defaults`].
    defaults: AtomicU64,
}

/// All databases' slots.
#[derive(Default)]
pub(super) struct Catalogues {
    pub(super) slots: ArcSwap<HashMap<Box<str>, Arc<CatalogueSlot>>>,
    /// Held by whoever adds a slot.
    adding: Mutex<()>,
    generations: AtomicU64,
    /// How many catalogues have been published, of any database.
    pub(super) published: Arc<AtomicU64>,
}

impl CatalogueSlot {
    pub(super) fn new(database: &str, published: &Arc<AtomicU64>) -> Self {
        Self {
            database: database.into(),
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            changes: Mutex::new(0),
            used: AtomicBool::new(true),
            left: AtomicBool::new(false),
            wake: Notify::new(),
            published: Arc::clone(published),
            defaults: AtomicU64::new(0),
        }
    }

    /// The catalogue, if one can be trusted at this moment; else it is on its way.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Catalogue>> {
        self.mark_used();
        self.current.load_full()
    }

    /// The generation of the catalogue that [`Self::current`] gives from now on, or a later one, if
    /// any; 0: none. Cheap.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.mark_used();
        self.generation.load(Ordering::Acquire)
    }

    fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    /// Whoever calls holds the lock of `changes`.
    fn set(&self, catalogue: Option<Catalogue>) {
        let generation = catalogue.as_ref().map_or(0, |new| new.generation);
        self.current.store(catalogue.map(Arc::new));
        // In this order: what is classified under a generation was classified with its catalogue, or
        // with less.
        self.generation.store(generation, Ordering::Release);
    }

    /// The catalogue may have changed: it is gone until it has been loaded anew. To be called when
    /// DDL is sent, and again when its transaction has ended, since only then a load can see it.
    pub fn ddl_seen(&self) {
        let mut changes = self.changes();
        *changes += 1;
        self.set(None);
        drop(changes);
        self.wake.notify_one();
    }

    /// Another number whenever what the database's sessions begin with (ALTER ROLE or DATABASE … SET)
    /// may have changed on some node. Cheap.
    #[must_use]
    pub fn defaults(&self) -> u64 {
        self.defaults.load(Ordering::Acquire)
    }

    /// What sessions begin with has changed on some node.
    pub fn defaults_changed(&self) {
        self.defaults.fetch_add(1, Ordering::Release);
    }

    pub(super) fn publish(&self, catalogue: Catalogue, as_of: u64) {
        let changes = self.changes();
        if *changes == as_of {
            self.set(Some(catalogue));
            // Behind it: who has counted this one classifies with it or a later one.
            self.published.fetch_add(1, Ordering::Release);
        }
    }

    fn withdraw(&self) {
        let _changes = self.changes();
        self.set(None);
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes_so_far(&self) -> u64 {
        *self.changes()
    }
}

impl fmt::Debug for CatalogueSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogueSlot")
            .field("database", &self.database)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// The catalogue of a database (as the nodes name it), if one can be trusted at this moment.
    /// `None`: unsure, which means the primary; it is being loaded.
    #[must_use]
    pub fn catalogue(self: &Arc<Self>, database: &str) -> Option<Arc<Catalogue>> {
        self.catalogue_slot(database)?.current()
    }

    /// What a session keeps of its database, so that it doesn't look it up with every statement.
    /// `None`: there are too many databases already.
    #[must_use]
    pub fn catalogue_slot(self: &Arc<Self>, database: &str) -> Option<Arc<CatalogueSlot>> {
        let catalogues = &self.catalogues;
        if let Some(slot) = catalogues.slots.load().get(database) {
            return Some(slot.clone());
        }
        let _adding = catalogues
            .adding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let slots = catalogues.slots.load_full();
        if let Some(slot) = slots.get(database) {
            return Some(slot.clone());
        }
        if slots.len() >= MAX_DATABASES {
            return None;
        }
        let slot = Arc::new(CatalogueSlot::new(database, &catalogues.published));
        let mut more = HashMap::clone(&slots);
        more.insert(database.into(), slot.clone());
        catalogues.slots.store(Arc::new(more));
        let stop = self.stop.clone();
        let keeper = Keeper::new(Arc::downgrade(self), slot.clone());
        let task = async move { stop.run_until_cancelled(keeper.keep()).await };
        self.tracker.spawn_on(task, &self.runtime);
        Some(slot)
    }

    /// Somebody needs the database for himself: the connection to it is closed, and none is opened for
    /// as long as PostgreSQL waits for others to leave, nor before the database is used again.
    pub fn leave_database(&self, database: &str) {
        if let Some(slot) = self.catalogues.slots.load().get(database) {
            slot.left.store(true, Ordering::Relaxed);
            slot.wake.notify_one();
        }
    }

    /// DDL passed through, for this database: see [`CatalogueSlot::ddl_seen`].
    pub fn ddl_seen(&self, database: &str) {
        if let Some(slot) = self.catalogues.slots.load().get(database) {
            slot.ddl_seen();
        }
    }
}

/// The task that keeps one database's catalogue.
struct Keeper {
    monitor: Weak<Monitor>,
    slot: Arc<CatalogueSlot>,
    connection: Option<Connection>,
    loaded: Option<Loaded>,
    /// What sessions begin with, once it is known.
    defaults: Option<String>,
    /// When that was found changed, until every replica has replayed it.
    changed_at: Option<Instant>,
    /// When the catalogue was last known to be right.
    sure_at: Instant,
    used_at: Instant,
    /// DDL reports when it was last tended to.
    tended: u64,
    /// In a row.
    failures: u32,
    last_problem: Option<String>,
}

struct Connection {
    to: NodeId,
    epoch: u64,
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

/// What the published catalogue was made from.
struct Loaded {
    at: Instant,
    changes: u64,
    epoch: u64,
    snapshot: String,
    fingerprint: String,
    defaults: String,
}

impl Keeper {
    fn new(monitor: Weak<Monitor>, slot: Arc<CatalogueSlot>) -> Self {
        Self {
            monitor,
            slot,
            connection: None,
            loaded: None,
            defaults: None,
            changed_at: None,
            sure_at: Instant::now(),
            used_at: Instant::now(),
            tended: 0,
            failures: 0,
            last_problem: None,
        }
    }

    /// Until dropped, or the monitor is.
    async fn keep(mut self) {
        loop {
            let began = Instant::now();
            let Some(monitor) = self.monitor.upgrade() else {
                return;
            };
            let next = match timeout_at(began + LOAD_TIMEOUT, self.tend(&monitor)).await {
                Ok(Ok(())) => {
                    self.last_problem = None;
                    self.failures = 0;
                    self.sure_at = began;
                    if self.changed_at.is_some() {
                        began + RETRY
                    } else {
                        began + (began.elapsed() * POLL_SHARE).clamp(POLL, LONGEST_POLL)
                    }
                }
                Ok(Err(problem)) => self.failed(problem),
                Err(_elapsed) => self.failed(Problem::new(Failure::Timeout)),
            };
            let primary = monitor.subscribe_primary();
            drop(monitor);
            self.idle(primary, next).await;
        }
    }

    /// Makes sure that the published catalogue is right, if there is a primary to ask.
    async fn tend(&mut self, monitor: &Arc<Monitor>) -> Result<(), Problem> {
        let changes = self.slot.changes_so_far();
        self.tended = changes;
        let (primary, epoch) = {
            let view = monitor.view();
            // Where positions can't be compared, time must do.
            let arrived = |at: Instant| at.elapsed() > TRUST || is_everywhere(&view, at);
            if self.changed_at.is_some_and(arrived) {
                self.changed_at = None;
                self.slot.defaults_changed();
            }
            (view.primary, view.epoch)
        };
        let Some(primary) = primary else {
            // Nobody can change the catalogue while there is no primary.
            return Ok(());
        };
        if self
            .connection
            .as_ref()
            .is_none_or(|c| c.to != primary || c.epoch != epoch || c.client.is_closed())
        {
            self.connection = None;
            let node = monitor
                .watched(primary)
                .ok_or(Problem::new(Failure::Connect))?;
            let deadline = Instant::now() + LOAD_TIMEOUT;
            let login = node.target.login(Some(&self.slot.database), deadline);
            let (client, driver) = login.await?;
            self.connection = Some(Connection {
                to: primary,
                epoch,
                client,
                _driver: driver,
            });
        }
        let Some(Connection { client, .. }) = &self.connection else {
            return Ok(());
        };
        if let Some(loaded) = &mut self.loaded
            && loaded.changes == changes
            && loaded.epoch == epoch
            && loaded.at.elapsed() < REFRESH
        {
            let snapshot = text(client, queries::SNAPSHOT).await?;
            if loaded.snapshot == snapshot {
                return Ok(());
            }
            if loaded.fingerprint == text(client, queries::FINGERPRINT).await? {
                // Asked for before the fingerprint: what ended in between is looked at next time.
                loaded.snapshot = snapshot;
                return Ok(());
            }
            // Changed elsewhere. In doubt until the new one is here.
            self.slot.withdraw();
        }
        let (loaded, catalogue) = load(client, monitor, changes, epoch).await?;
        let database = &*self.slot.database;
        tracing::debug!(database, names = catalogue.len(), "catalogue loaded");
        self.slot.publish(catalogue, changes);
        let known = self.defaults.replace(loaded.defaults.clone());
        if known.is_some() && known != self.defaults {
            self.slot.defaults_changed();
            self.changed_at = Some(Instant::now());
        }
        self.loaded = Some(loaded);
        Ok(())
    }

    fn failed(&mut self, problem: Problem) -> Instant {
        self.connection = None;
        let database = &*self.slot.database;
        if self.last_problem.as_ref() != Some(&problem.text) {
            tracing::warn!(database, problem = problem.text, "catalogue can't be read");
            self.last_problem = Some(problem.text);
        }
        if self.sure_at.elapsed() > TRUST && self.loaded.take().is_some() {
            tracing::warn!(
                database,
                "catalogue withdrawn: every statement goes to the primary"
            );
            self.slot.withdraw();
        }
        let longer = 2u32.saturating_pow(self.failures);
        self.failures += 1;
        Instant::now() + RETRY.saturating_mul(longer).min(LONGEST_RETRY)
    }

    fn leave(&mut self) {
        self.slot.used.store(false, Ordering::Relaxed);
        self.slot.withdraw();
        self.loaded = None;
        self.connection = None;
    }

    async fn used_again(&self) {
        while !self.slot.used.load(Ordering::Relaxed) {
            self.slot.wake.notified().await;
        }
    }

    /// Waits until there is something to do: `next` has come, DDL was reported and is over, the
    /// primary is another. Cancel safe.
    async fn idle(
        &mut self,
        mut primary: tokio::sync::watch::Receiver<super::CurrentPrimary>,
        mut next: Instant,
    ) {
        if self.slot.left.swap(false, Ordering::Relaxed) {
            self.leave();
            sleep_until(Instant::now() + ALONE).await;
            return self.used_again().await;
        }
        // Once per poll: the first use after it wakes this task, all others don't.
        if self.slot.used.swap(false, Ordering::Relaxed) {
            self.used_at = Instant::now();
        } else if self.used_at.elapsed() > UNUSED {
            self.leave();
            return self.used_again().await;
        }
        loop {
            if self.slot.left.load(Ordering::Relaxed) {
                return;
            }
            let changes = self.slot.changes_so_far();
            if changes != self.tended {
                self.tended = changes;
                next = Instant::now() + QUIET;
            }
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.slot.wake.notified() => {}
                changed = primary.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    next = Instant::now();
                }
            }
        }
    }
}

/// Every replica that is up has replayed what the primary had at that moment.
fn is_everywhere(view: &View, moment: Instant) -> bool {
    let Some(bound) = view
        .primary()
        .and_then(|node| node.bound_after(moment.into()))
    else {
        return false;
    };
    let mut replicas = view
        .nodes
        .iter()
        .filter(|node| node.role == Role::Replica && node.health == Health::Up);
    replicas.all(|node| node.position().is_some_and(|at| at.lsn >= bound))
}

/// Reads everything in one snapshot.
async fn load(
    client: &Client,
    monitor: &Monitor,
    changes: u64,
    epoch: u64,
) -> Result<(Loaded, Catalogue), Problem> {
    let at = Instant::now();
    client.batch_execute(queries::BEGIN_LOAD).await?;
    let snapshot = text(client, queries::SNAPSHOT).await?;
    let fingerprint = text(client, queries::FINGERPRINT).await?;
    let defaults = text(client, queries::DEFAULTS).await?;
    let mut builder = CatalogueBuilder::new();
    for query in QUERIES {
        let mut rows = pin!(client.simple_query_raw(query.sql).await?);
        while let Some(message) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
            if let SimpleQueryMessage::Row(row) = message? {
                let mut columns = Vec::with_capacity(row.len());
                for column in 0..row.len() {
                    columns.push(row.try_get(column)?);
                }
                builder.row(query.id, &columns);
            }
        }
    }
    client.batch_execute("COMMIT").await?;
    let generation = monitor
        .catalogues
        .generations
        .fetch_add(1, Ordering::Relaxed)
        + 1;
    let build = tokio::task::spawn_blocking(move || builder.finish(generation));
    let catalogue = build
        .await
        .map_err(|_panic| Problem::new(Failure::Protocol))?;
    Ok((
        Loaded {
            at,
            changes,
            epoch,
            snapshot,
            fingerprint,
            defaults,
        },
        catalogue,
    ))
}

/// The one column of the one row that `query` answers.
async fn text(client: &Client, query: &str) -> Result<String, Problem> {
    for message in client.simple_query(query).await? {
        if let SimpleQueryMessage::Row(row) = message
            && let Some(text) = row.try_get(0)?
        {
            return Ok(text.to_owned());
        }
    }
    Err(Problem::new(Failure::Protocol))
}
