//! What all sessions of one database and user share: pools, policy, class caches.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::{
    cluster::NodeId,
    config::settings::{self, PoolMode, Settings as Config, User},
    metrics::{DatabaseStats, DatabaseTotals},
    monitor::CatalogueSlot,
    net::Dialer,
    pool::{
        Connect, Pool,
        connect::{ConnectError, ConnectTarget, Connected, Credentials, connect},
    },
    protocol::startup::Setting,
    routing::Policy,
    session::settings::Settings,
    sql::{CacheLimits, CacheStats, ClassCache, Unknown, catalogue::Catalogue},
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
}

/// See the module's description.
pub(super) struct Tenant {
    pub(super) database: Arc<Database>,
    pub(super) user: Box<str>,
    pub(super) mode: PoolMode,
    pub(super) policy: Policy,
    pub(super) prepared_limit: usize,
    /// By node.
    pools: Box<[Pool]>,
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
        }
    }

    /// What is known of its functions and relations at this moment.
    pub(super) fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.catalogue.as_ref()?.current()
    }

    /// DDL has passed: nothing is known until it has been loaded again.
    pub(super) fn ddl_seen(&self) {
        if let Some(slot) = &self.catalogue {
            slot.ddl_seen();
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

/// Logs in at one node as this tenant.
struct Door {
    dialer: Dialer,
    dbname: Box<str>,
    user: Arc<str>,
    credentials: Credentials,
}

impl Connect for Door {
    fn connect(
        &self,
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send + '_>> {
        Box::pin(async move {
            let target = ConnectTarget {
                dialer: &self.dialer,
                database: &self.dbname,
                user: &self.user,
                credentials: &self.credentials,
                parameters: &[],
            };
            connect(&target, deadline).await
        })
    }
}

impl Tenant {
    pub(super) fn new(
        config: &Config,
        entry: &settings::Database,
        database: Arc<Database>,
        user: &User,
        credentials: &Credentials,
        dialers: &[Dialer],
        workers: usize,
    ) -> Self {
        let limits = &entry.pool;
        let fresh = Arc::new(Settings::default());
        let server_user: Arc<str> = user.server_user.as_deref().unwrap_or(&user.name).into();
        let pools = (0..)
            .map(NodeId)
            .zip(dialers)
            .map(|(node, dialer)| {
                let door = Door {
                    dialer: dialer.clone(),
                    dbname: database.dbname.clone(),
                    user: Arc::clone(&server_user),
                    credentials: credentials.clone(),
                };
                Pool::new(node, &server_user, Box::new(door), limits, &fresh, workers)
            })
            .collect();
        Self {
            policy: Policy::from(&config.routing_for(entry, user)),
            database,
            user: user.name.as_str().into(),
            mode: limits.mode,
            prepared_limit: limits.prepared_statements,
            pools,
            welcomes: Mutex::default(),
        }
    }

    /// The pool that leads to `node`.
    pub(super) fn pool(&self, node: NodeId) -> Option<&Pool> {
        self.pools.get(node.index())
    }

    pub(super) fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// What a session with these settings is told at its start, if it is known.
    pub(super) fn welcome(&self, settings: &Settings) -> Option<(Arc<Settings>, Arc<[Setting]>)> {
        let welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes
            .get_key_value(settings)
            .map(|(s, w)| (Arc::clone(s), Arc::clone(w)))
    }

    /// Remembers it.
    pub(super) fn remember(&self, settings: Arc<Settings>, welcome: Arc<[Setting]>) {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
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
