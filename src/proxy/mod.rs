//! Clients: how they are let in, and what they are served.
//!
//! [`Proxy`] is what all clients of one proxy share. `serve` runs it: listeners, workers, signals.
//! `login` lets a client in, `client` is its task, `exchange` one request's way to a server and
//! back, `lend` how it gets a server connection, `answer` what needs none, `observe` how a server
//! connection's state is read.
//!
//! **Invariants.** One task serves a client and drives its server connection; there is no channel
//! between the two. Nothing here is global: two proxies can live in one process. This folder never
//! decides where a request goes ([`crate::routing`]) nor what a text is ([`crate::sql`]).

mod answer;
pub mod authenticate;
mod client;
mod clients;
mod console;
mod exchange;
pub mod handshake;
mod inspect;
mod lend;
mod login;
mod lookup;
mod observe;
mod pause;
mod replication;
mod scratch;
#[cfg(test)]
mod scripted;
mod serve;
mod tenant;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use arc_swap::{ArcSwap, Guard};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use console::{ConsoleClient, ConsoleServer, ConsoleStream, DATABASES as CONSOLE_DATABASES};
pub use serve::{Reload, Running, StartError};

use crate::{
    cluster::{NodeId, Role},
    config::settings::{Settings as Config, User},
    error::{Fault, Visible},
    metrics::{Metrics, WorkerMetrics},
    monitor::Monitor,
    pool::{
        Lease,
        connect::{self, Credentials},
    },
    protocol::SqlState,
    routing::{Policy, ReadFallback, Reason, Route, Target},
    session::{Causality, prepared::Statements},
    sql::{Class, Lexing, Tables, Traits, Why},
};
use authenticate::{Authenticator, Identity};
use clients::Clients;
use lookup::Lookup;
use pause::Paused;
use tenant::{Database, Tenant};

/// What all clients of one proxy share.
pub struct Proxy {
    /// For what goes on when whoever asked for it has left.
    this: Weak<Self>,
    config: ArcSwap<Config>,
    authenticator: ArcSwap<Authenticator>,
    pub(crate) monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
    /// By worker.
    worker_metrics: Box<[Arc<WorkerMetrics>]>,
    tenants: Mutex<Tenants>,
    clients: Clients,
    lookup: Lookup,
    next_session: AtomicU32,
    statements: Statements,
    /// Requests in flight, by [`NodeId::index`].
    in_flight: Box<[AtomicU32]>,
    /// What any session has written, for `consistency = "global"`.
    written: Mutex<Causality>,
    /// Requests that wait for a primary.
    held: AtomicUsize,
    complaints: lend::Complaints,
    /// Databases, as the nodes name them, that are left once their last client is gone.
    leaving: Mutex<HashSet<Box<str>>>,
    connected: AtomicUsize,
    workers: usize,
    reload: Reload,
    stopping: AtomicBool,
    /// The catalogues of the configured databases have been loaded, or have had their time.
    warm: AtomicBool,
    started: Instant,
    /// Cancelled when new clients are no longer taken.
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Tenants {
    databases: HashMap<Box<str>, Arc<Database>>,
    by_name: HashMap<(Box<str>, Box<str>), Arc<Tenant>>,
    /// Those of earlier configurations, too, while they have sessions.
    every: Vec<Weak<Tenant>>,
    paused: Paused,
}

/// A cancel is waited for so long.
const CANCEL: Duration = Duration::from_secs(5);
/// A statement that conflicted with recovery stays on the primary for so long.
const LEAN: Duration = Duration::from_secs(60);
/// Readiness waits so long for catalogues.
const WARM_UP: Duration = Duration::from_secs(5);
/// Databases that a `*` entry may bring to life.
const DATABASES: usize = 1024;
/// A server waits so long for others to leave a database (`CountOtherDBBackends` in
/// `src/backend/storage/ipc/procarray.c`).
const WAITED_FOR: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Proxy {
    pub(super) fn settings(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// Its counters.
    pub fn all_metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    #[expect(clippy::expect_used, reason = "there is a shard for every worker")]
    fn metrics(&self, worker: usize) -> &WorkerMetrics {
        self.worker_metrics
            .get(worker)
            .or_else(|| self.worker_metrics.first())
            .expect("there is at least one worker")
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Reads can be told from writes: before, all statements go to the primary.
    fn is_warm(&self) -> bool {
        if self.warm.load(Ordering::Relaxed) {
            return true;
        }
        let config = self.settings();
        let mut named = config
            .databases
            .iter()
            .filter(|database| database.name != "*");
        let warm = self.started.elapsed() > WARM_UP
            || named.all(|database| {
                let dbname = database.dbname.as_deref().unwrap_or(&database.name);
                self.monitor.catalogue(dbname).is_some()
            });
        self.warm.store(warm, Ordering::Relaxed);
        warm
    }

    // Tenants.

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database and user that a client asks for, if they are configured.
    fn tenant(&self, database: &str, user: &str, identity: &Identity) -> Option<Arc<Tenant>> {
        let config = self.settings();
        let entry = config.database(database)?;
        let account = match (config.user(user), &identity.secret) {
            (Some(account), None) => Cow::Borrowed(account),
            (account, Some(secret)) => Cow::Owned(User {
                name: user.to_owned(),
                password: Some(secret.clone()),
                ..account.cloned().unwrap_or_default()
            }),
            (None, None) => return None,
        };
        let mut tenants = self.tenants();
        if let Some(known) = tenants
            .by_name
            .get(&(database.into(), user.into()) as &(Box<str>, Box<str>))
        {
            if identity.secret.is_some() {
                known.renew_credentials(&account, identity.client_key);
            }
            return Some(Arc::clone(known));
        }
        if tenants.databases.len() >= DATABASES {
            return None;
        }
        let paused = tenants.paused.covers(database);
        let shared = tenants.databases.entry(database.into()).or_insert_with(|| {
            let dbname = entry.dbname.as_deref().unwrap_or(database);
            let catalogue = self.monitor.catalogue_slot(dbname);
            let made = Database::new(database, dbname, self.workers, catalogue);
            made.gate.set_shut(paused);
            Arc::new(made)
        });
        let credentials = Credentials::of(&account, identity.client_key);
        let tenant = Arc::new(Tenant::new(
            &config,
            entry,
            Arc::clone(shared),
            &account,
            credentials,
            (&self.monitor, &self.worker_metrics),
        ));
        tenants.every.retain(|tenant| tenant.strong_count() > 0);
        tenants.every.push(Arc::downgrade(&tenant));
        tenants
            .by_name
            .insert((database.into(), user.into()), Arc::clone(&tenant));
        Some(tenant)
    }

    fn all_tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants()
            .every
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Somebody needs the database, as the nodes name it, for himself: no connection stays that nobody
    /// uses. As on a server, clients that are logged in keep it; PostgreSQL waits a little for them.
    fn leave_database(self: &Arc<Self>, dbname: &str) {
        let known = self
            .all_tenants()
            .iter()
            .any(|one| *one.database.dbname == *dbname);
        if !known || self.left(dbname) || !self.leaving().insert(dbname.into()) {
            return;
        }
        let (proxy, dbname) = (Arc::clone(self), Box::<str>::from(dbname));
        let until = Instant::now() + WAITED_FOR;
        tokio::spawn(async move {
            while !proxy.left(&dbname) && Instant::now() < until {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            proxy.leaving().remove(&dbname);
        });
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the database unless a client is logged in to it; whether it did.
    fn left(&self, dbname: &str) -> bool {
        let is_in_it = |client: &clients::Client| *client.tenant.database.dbname == *dbname;
        if self.clients.count(is_in_it) > 0 {
            return false;
        }
        self.monitor.leave_database(dbname);
        let there = self.all_tenants();
        for tenant in there.iter().filter(|one| *one.database.dbname == *dbname) {
            tenant.pools().for_each(crate::pool::Pool::retire);
        }
        true
    }

    // Routing's surroundings.

    fn in_flight(&self, node: NodeId) -> u32 {
        self.in_flight
            .get(node.index())
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts a request in flight while the guard lives.
    fn enter(&self, node: NodeId) -> InFlight<'_> {
        let count = self.in_flight.get(node.index());
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        InFlight(count)
    }

    /// Somebody waits for replicas to catch up: newer positions are needed.
    fn want_samples(&self) {
        for node in &self.monitor.view().nodes {
            if matches!(node.role, Role::Primary | Role::Replica) {
                self.monitor.want_sample(node.id);
            }
        }
    }

    /// Something that may have written to these tables was acknowledged; see [`Causality::written`].
    fn wrote(&self, epoch: u64, node: NodeId, at: StdInstant, tables: Tables, catalogues: u64) {
        self.written().written(epoch, node, at, tables, catalogues);
    }

    fn written(&self) -> MutexGuard<'_, Causality> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `read_fallback = "error"`: no read on the primary in a replica's place.
    fn or_no_fallback(&self, route: Route, policy: &Policy) -> Result<Route, Visible> {
        let fallback = matches!(
            route.reason,
            Reason::Lag | Reason::NoReplica | Reason::Watermark
        ) && route.target == Target::Primary;
        if fallback && policy.read_fallback == ReadFallback::Error {
            return Err(Visible::error(
                Fault::Node,
                SqlState::CANNOT_CONNECT_NOW,
                format!("no replica can serve this read ({})", route.reason.name()),
            )
            .hint("routing.read_fallback = \"primary\" would let the primary serve it"));
        }
        Ok(route)
    }

    /// A replica has refused a text that was taken for a read.
    fn learn(
        &self,
        tenant: &Tenant,
        worker: usize,
        text: &[u8],
        lexing: Lexing,
        sqlstate: SqlState,
    ) {
        match &sqlstate.0 {
            b"25006" => {
                if let Some(mut classes) = tenant.database.classes(worker) {
                    classes.correct(text, lexing, Class::primary(Why::Write, Traits::OBSERVE));
                }
            }
            b"40001" | b"40P01" => {
                let until = Instant::now().into_std() + LEAN;
                tenant.database.lean(worker, text, lexing, until);
            }
            _ => {}
        }
    }

    // Cancelling.

    /// Its client has left while a request was running: the request is cancelled, the connection
    /// closed. PostgreSQL rolls back what was open.
    fn abandon(self: &Arc<Self>, lease: Lease) {
        let link = Arc::clone(&lease.link);
        drop(lease);
        let proxy = Arc::clone(self);
        self.tasks
            .spawn(async move { proxy.send_cancel(&link).await });
    }

    async fn send_cancel(&self, link: &crate::pool::Link) {
        let Some(node) = self.monitor.watched(link.node) else {
            return;
        };
        let deadline = Instant::now() + CANCEL;
        if let Err(error) = connect::cancel(node.dialer(), &link.cancel, deadline).await {
            // It may arrive yet, and must not meet another session there.
            link.retire();
            tracing::warn!(node = %self.monitor.name(link.node), %error, "cancel request not delivered");
        }
    }
}

struct InFlight<'a>(Option<&'a AtomicU32>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Every byte below 0x80 is that ASCII character (PostgreSQL manual, "Character Set Support": the
/// others are client-only encodings).
fn is_ascii_safe(encoding: &[u8]) -> bool {
    const UNSAFE: [&[u8]; 8] = [
        b"BIG5",
        b"GB18030",
        b"GBK",
        b"JOHAB",
        b"SJIS",
        b"SHIFT_JIS_2004",
        b"SHIFTJIS",
        b"UHC",
    ];
    !UNSAFE
        .iter()
        .any(|name| name.eq_ignore_ascii_case(encoding))
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}
