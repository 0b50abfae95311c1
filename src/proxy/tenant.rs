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
    config::settings::{PoolMode, Settings as Config, User},
    net::Dialer,
    pool::{
        Connect, Pool,
        connect::{ConnectError, ConnectTarget, Connected, Credentials, connect},
    },
    protocol::startup::Setting,
    routing::Policy,
    session::settings::Settings,
    sql::{ClassCache, Limits},
};

/// One database as clients name it.
pub(super) struct Database {
    pub(super) name: Box<str>,
    /// As the nodes name it.
    pub(super) dbname: Box<str>,
    /// One per worker: a lock that only its worker takes.
    classes: Box<[Mutex<ClassCache>]>,
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
    pub(super) fn new(name: &str, dbname: &str, workers: usize) -> Self {
        let cache = || {
            let random = [fastrand::u64(..), fastrand::u64(..), fastrand::u64(..), fastrand::u64(..)];
            Mutex::new(ClassCache::new(Limits::default(), random))
        };
        Self {
            name: name.into(),
            dbname: dbname.into(),
            classes: (0..workers.max(1)).map(|_| cache()).collect(),
        }
    }

    /// This worker's class cache.
    pub(super) fn classes(&self, worker: usize) -> Option<MutexGuard<'_, ClassCache>> {
        Some(self.classes.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All workers' class caches, one after the other.
    pub(super) fn all_classes(&self) -> impl Iterator<Item = MutexGuard<'_, ClassCache>> {
        self.classes.iter().map(|cache| cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Logs in at one node as this tenant.
struct Door {
    dialer: Dialer,
    dbname: Box<str>,
    user: Box<str>,
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
        database: Arc<Database>,
        user: &User,
        credentials: &Credentials,
        dialers: &[Dialer],
        workers: usize,
    ) -> Self {
        let entry = config
            .databases
            .iter()
            .find(|entry| *entry.name == *database.name)
            .or_else(|| config.databases.iter().find(|entry| entry.name == "*"));
        let limits = entry.map_or(&config.pool, |entry| &entry.pool);
        let fresh = Arc::new(Settings::default());
        let server_user = user.server_user.as_deref().unwrap_or(&user.name);
        let pools = (0..)
            .map(NodeId)
            .zip(dialers)
            .map(|(node, dialer)| {
                let door = Door {
                    dialer: dialer.clone(),
                    dbname: database.dbname.clone(),
                    user: server_user.into(),
                    credentials: credentials.clone(),
                };
                Pool::new(node, Box::new(door), limits, &fresh, workers)
            })
            .collect();
        Self {
            policy: Policy::from(&config.routing_for(&database.name, &user.name)),
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
        welcomes.get_key_value(settings).map(|(s, w)| (Arc::clone(s), Arc::clone(w)))
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
        self.welcomes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
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
