//! What all sessions of one database and user share: pools, policy, class caches.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    cluster::{MAX_NODES, NodeId},
    config::settings::{self, PinPolicy, PoolMode, Secret, Settings as Config, User},
    metrics::{DatabaseStats, DatabaseTotals, WorkerMetrics},
    monitor::{CatalogueSlot, Monitor},
    pool::{
        Connect, Gate, Pool, Server,
        connect::{ConnectError, ConnectTarget, Connected, Credentials, connect},
    },
    protocol::{scram::Key, startup::Setting},
    routing::Policy,
    session::settings::Settings,
    sql::{CacheLimits, CacheStats, ClassCache, Lexing, Traits, Unknown, catalogue::Catalogue},
};

/// One database as clients name it.
pub(super) struct Database {
    pub(super) name: Box<str>,
    /// As the nodes name it.
    pub(super) dbname: Box<str>,
    /// One per worker: a lock that only its worker takes.
    classes: Box<[Mutex<ClassCache>]>,
    /// By worker.
    pub(super) stats: Box<[DatabaseStats]>,
    /// Where its catalogue is to be found.
    catalogue: Option<Arc<CatalogueSlot>>,
    /// Some session has asked for `currval` or `lastval`: whoever writes may ask for them, too.
    sequences: AtomicBool,
    /// Some text may lean to the primary.
    leaning: AtomicBool,
    /// Shut while an operator has paused it.
    pub(super) gate: Gate,
}

/// See the module's description.
pub(super) struct Tenant {
    pub(super) database: Arc<Database>,
    pub(super) user: Box<str>,
    pub(super) mode: PoolMode,
    pub(super) pin: PinPolicy,
    pub(super) policy: Policy,
    pub(super) prepared_limit: usize,
    /// By [`NodeId::index`]; made when first needed, and handed on to the next node in that place.
    pools: Box<[OnceLock<Box<Pool>>]>,
    door: Arc<Door>,
    limits: settings::Pool,
    /// A fresh connection's settings.
    fresh: Arc<Settings>,
    workers: usize,
    /// The version of the defaults ([`CatalogueSlot::defaults`]) that pools and welcomes are of.
    defaults: AtomicU64,
    /// ParameterStatus for sessions that start with the same settings.
    welcomes: Mutex<HashMap<Arc<Settings>, Arc<[Setting]>>>,
}

/// How many different startup packets of one tenant are remembered.
const WELCOMES: usize = 256;

impl Database {
    pub(super) fn new(
        name: &str,
        dbname: &str,
        workers: usize,
        catalogue: Option<Arc<CatalogueSlot>>,
    ) -> Self {
        let cache = || {
            let random = [
                fastrand::u64(..),
                fastrand::u64(..),
                fastrand::u64(..),
                fastrand::u64(..),
            ];
            Mutex::new(ClassCache::new(CacheLimits::default(), random))
        };
        Self {
            name: name.into(),
            dbname: dbname.into(),
            classes: (0..workers.max(1)).map(|_| cache()).collect(),
            stats: (0..workers.max(1))
                .map(|_| DatabaseStats::default())
                .collect(),
            catalogue,
            sequences: AtomicBool::new(false),
            leaning: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// A session has asked for `currval` or `lastval`.
    pub(super) fn keeps_sequences(&self) {
        self.sequences.store(true, Ordering::Relaxed);
    }

    /// Sessions ask for `currval` or `lastval`.
    pub(super) fn asks_for_sequences(&self) -> bool {
        self.sequences.load(Ordering::Relaxed)
    }

    /// What is known of its functions and relations at this moment.
    pub(super) fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.catalogue.as_ref()?.current()
    }

    /// The generation of that; 0: nothing is known.
    pub(super) fn generation(&self) -> u64 {
        self.catalogue.as_ref().map_or(0, |slot| slot.generation())
    }

    /// DDL has passed: nothing is known until it has been loaded again.
    pub(super) fn ddl_seen(&self) {
        if let Some(slot) = &self.catalogue {
            slot.ddl_seen();
        }
    }

    /// A transaction with such DDL has ended.
    pub(super) fn ddl_done(&self, traits: Traits) {
        if let Some(slot) = &self.catalogue {
            slot.ddl_seen();
            if traits.has(Traits::DEFAULTS) {
                slot.defaults_changed();
            }
        }
    }

    /// This worker's class cache.
    pub(super) fn classes(&self, worker: usize) -> Option<MutexGuard<'_, ClassCache>> {
        Some(
            self.classes
                .get(worker)?
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Keeps texts like this one on the primary until then, see [`ClassCache::lean`].
    pub(super) fn lean(
        &self,
        worker: usize,
        text: &[u8],
        lexing: Lexing,
        until: std::time::Instant,
    ) {
        if let Some(mut classes) = self.classes(worker) {
            classes.lean(text, lexing, until);
            self.leaning.store(true, Ordering::Relaxed);
        }
    }

    /// Some text may lean to the primary.
    pub(super) fn may_lean(&self) -> bool {
        self.leaning.load(Ordering::Relaxed)
    }

    fn all_classes(&self) -> impl Iterator<Item = MutexGuard<'_, ClassCache>> {
        self.classes
            .iter()
            .map(|cache| cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Texts that couldn't be classified, by worker.
    pub(super) fn unknown(&self) -> Vec<Unknown> {
        self.all_classes()
            .flat_map(|cache| cache.unknown())
            .collect()
    }

    /// What the class caches have done, by worker.
    pub(super) fn cache_stats(&self) -> Vec<CacheStats> {
        self.all_classes().map(|cache| cache.stats()).collect()
    }

    /// What the workers have done for it.
    pub(super) fn totals(&self) -> DatabaseTotals {
        let mut totals = DatabaseTotals::default();
        self.stats
            .iter()
            .for_each(|stats| stats.add_to(&mut totals));
        totals
    }
}

/// Logs in at nodes as this tenant.
struct Door {
    monitor: Arc<Monitor>,
    /// Somebody's: connections are made too rarely to be counted by worker.
    metrics: Arc<WorkerMetrics>,
    dbname: Box<str>,
    user: Arc<str>,
    /// With the password that they rest on.
    credentials: Mutex<(Option<Secret>, Credentials)>,
}

impl Connect for Arc<Door> {
    fn connect(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send + '_>> {
        Box::pin(self.connect_with(node, &[], deadline))
    }
}

impl Door {
    fn credentials(&self) -> MutexGuard<'_, (Option<Secret>, Credentials)> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect_with(
        &self,
        node: NodeId,
        parameters: &[Setting],
        deadline: Instant,
    ) -> Result<Connected, ConnectError> {
        let node = self.monitor.watched(node).filter(|n| !n.is_leaving());
        let node = node.ok_or(ConnectError::Gone)?;
        let credentials = self.credentials().1.clone();
        let target = ConnectTarget {
            dialer: node.dialer(),
            database: &self.dbname,
            user: &self.user,
            credentials: &credentials,
            parameters,
        };
        let connected = connect(&target, deadline).await;
        let id = node.id;
        match &connected {
            Ok(_) => self.metrics.connected(id),
            Err(_) => self.metrics.connect_failed(id),
        }
        connected
    }
}

impl Tenant {
    pub(super) fn new(
        config: &Config,
        entry: &settings::Database,
        database: Arc<Database>,
        user: &User,
        credentials: Credentials,
        (monitor, metrics): (&Arc<Monitor>, &[Arc<WorkerMetrics>]),
    ) -> Self {
        let limits = &entry.pool;
        let door = Door {
            monitor: Arc::clone(monitor),
            metrics: metrics.first().map(Arc::clone).unwrap_or_default(),
            dbname: database.dbname.clone(),
            user: user.server_user.as_deref().unwrap_or(&user.name).into(),
            credentials: Mutex::new((user.password.clone(), credentials)),
        };
        Self {
            policy: Policy::from(&config.routing_for(entry, user)),
            database,
            user: user.name.as_str().into(),
            mode: limits.mode,
            pin: limits.pin,
            prepared_limit: limits.prepared_statements,
            pools: (0..MAX_NODES).map(|_place| OnceLock::new()).collect(),
            door: Arc::new(door),
            limits: limits.clone(),
            fresh: Arc::default(),
            workers: metrics.len(),
            defaults: AtomicU64::default(),
            welcomes: Mutex::default(),
        }
    }

    /// The user has logged in with a password that may be another than before.
    pub(super) fn renew_credentials(&self, user: &User, client_key: Option<Key>) {
        let mut credentials = self.door.credentials();
        let (password, known) = &*credentials;
        let lacking = client_key.is_some() && matches!(known, Credentials::None);
        if lacking || *password != user.password {
            *credentials = (user.password.clone(), Credentials::of(user, client_key));
        }
    }

    /// What the nodes call the user.
    pub(super) fn server_user(&self) -> &str {
        &self.door.user
    }

    /// How long a request waits for the end of a pause.
    pub(super) fn pause_timeout(&self) -> Duration {
        self.limits.pause_timeout
    }

    /// The version of what sessions begin with. Connections and answers that rest on another one are
    /// given up first.
    pub(super) fn defaults(&self) -> u64 {
        let slot = self.database.catalogue.as_ref();
        let now = slot.map_or(0, |slot| slot.defaults());
        if self.defaults_in_use() != now {
            self.renew(now);
        }
        now
    }

    /// The version that the pools' connections are of, at least.
    pub(super) fn defaults_in_use(&self) -> u64 {
        self.defaults.load(Ordering::Acquire)
    }

    #[cold]
    fn renew(&self, defaults: u64) {
        self.pools().for_each(Pool::retire);
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes.clear();
        // Last: who finds it here finds nothing older.
        self.defaults.store(defaults, Ordering::Release);
    }

    /// The pool that leads to `node`.
    pub(super) fn pool(&self, node: NodeId) -> Option<&Pool> {
        let _current = self.defaults();
        let place = self.pools.get(node.index())?;
        match place.get() {
            Some(pool) if pool.node() == node => Some(pool),
            _ => self.open(node),
        }
    }

    /// Makes the pool, or hands on that of the last node in its place.
    #[cold]
    fn open(&self, node: NodeId) -> Option<&Pool> {
        let stays = self.door.monitor.watched(node).filter(|n| !n.is_leaving());
        let pool = self.pools.get(stays?.id.index())?.get_or_init(|| {
            let door = Box::new(Arc::clone(&self.door));
            let (limits, fresh) = (&self.limits, &self.fresh);
            Box::new(Pool::new(
                node,
                &self.door.user,
                door,
                limits,
                fresh,
                self.workers,
                self.database.gate.clone(),
            ))
        });
        (pool.node() == node || pool.rebind(node)).then_some(pool)
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools
            .iter()
            .filter_map(|pool| pool.get().map(Box::as_ref))
    }

    /// A connection to `node` that no pool lends, with parameters of its own, and what it said
    /// behind its login.
    pub(super) async fn connect_alone(
        &self,
        node: NodeId,
        parameters: &[Setting],
        deadline: Instant,
    ) -> Result<(Server, Vec<u8>), ConnectError> {
        let pool = self.pool(node).ok_or(ConnectError::Gone)?;
        let mut connected = self.door.connect_with(node, parameters, deadline).await?;
        let unread = std::mem::take(&mut connected.unread);
        Ok((pool.attach(connected), unread))
    }

    /// What a session with these settings is told at its start, if it is known.
    pub(super) fn welcome(&self, settings: &Settings) -> Option<(Arc<Settings>, Arc<[Setting]>)> {
        let _current = self.defaults();
        let welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes
            .get_key_value(settings)
            .map(|(s, w)| (Arc::clone(s), Arc::clone(w)))
    }

    /// Remembers it, unless it was learned under other defaults.
    pub(super) fn remember(&self, settings: Arc<Settings>, welcome: Arc<[Setting]>, defaults: u64) {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.defaults_in_use() != defaults {
            return;
        }
        if welcomes.len() >= WELCOMES {
            welcomes.clear();
        }
        welcomes.insert(settings, welcome);
    }

    /// The primary may be another one now, with other defaults.
    pub(super) fn forget_welcomes(&self) {
        self.welcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("database", &self.database.name)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
