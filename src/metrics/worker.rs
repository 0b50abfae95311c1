//! One worker's share of the counters.
//!
//! A worker writes only its own shard, so that two threads never fight for a cache line; a scrape
//! reads all shards. Each call is an index and one or two additions: no lookup, no hash, no
//! allocation, no lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    cells::{Histogram, UpDown, add},
    labels::{self, LoginResult, REASONS, RetryReason},
};
use crate::{
    cluster::{MAX_NODES, NodeId},
    error::Fault,
    routing::{Reason, Route, Target},
    session::Pin,
    sql::{Access, Why},
};

/// Counters of one node, in cache lines of their own (two, as processors fetch pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct NodeCells {
    pub(super) primary_queries: AtomicU64,
    pub(super) replica_queries: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) connect_failures: AtomicU64,
}

/// One worker's counters. See [`super::Metrics::worker`].
#[repr(align(128))]
pub struct WorkerMetrics {
    pub(super) nodes: Box<[NodeCells]>,
    pub(super) answered: AtomicU64,
    pub(super) primary_reads: [AtomicU64; REASONS.len()],
    /// But those whose reason is that they are reads.
    pub(super) replica_reads: [AtomicU64; REASONS.len()],
    pub(super) moves: AtomicU64,
    pub(super) query_duration: Histogram,
    pub(super) pool_wait: Histogram,
    pub(super) retries: [AtomicU64; RetryReason::ALL.len()],
    pub(super) pins: [AtomicU64; Pin::ALL.len()],
    pub(super) logins: [AtomicU64; LoginResult::ALL.len()],
    pub(super) errors: [AtomicU64; 3],
    pub(super) unparsed: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) pool_timeouts: AtomicU64,
    pub(super) outcomes_unknown: AtomicU64,
    pub(super) cancels: AtomicU64,
    /// Shared with the guards.
    pub(super) clients: Arc<UpDown>,
    pub(super) held: Arc<UpDown>,
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            nodes: (0..MAX_NODES).map(|_slot| NodeCells::default()).collect(),
            answered: AtomicU64::default(),
            primary_reads: std::array::from_fn(|_reason| AtomicU64::default()),
            replica_reads: std::array::from_fn(|_reason| AtomicU64::default()),
            moves: AtomicU64::default(),
            query_duration: Histogram::default(),
            pool_wait: Histogram::default(),
            retries: Default::default(),
            pins: Default::default(),
            logins: Default::default(),
            errors: Default::default(),
            unparsed: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            pool_timeouts: AtomicU64::default(),
            outcomes_unknown: AtomicU64::default(),
            cancels: AtomicU64::default(),
            clients: Arc::default(),
            held: Arc::default(),
        }
    }
}

impl WorkerMetrics {
    /// A request went to `node` by this route. `access` is its class's: reads that had to go to
    /// the primary are counted under the route's reason, too, and what couldn't be parsed.
    #[inline]
    pub fn query(&self, route: Route, access: Access, node: NodeId) {
        let Some(cells) = self.node(node) else {
            return;
        };
        match route.target {
            Target::Replica(_) => {
                if route.reason != Reason::Read
                    && labels::counts_as_read(access)
                    && let Some(count) = self.replica_reads.get(labels::reason_index(route.reason))
                {
                    add(count, 1);
                }
                add(&cells.replica_queries, 1)
            }
            Target::Primary => {
                if labels::counts_as_read(access)
                    && let Some(count) = self.primary_reads.get(labels::reason_index(route.reason))
                {
                    add(count, 1);
                }
                if matches!(access, Access::Primary(Why::Unparsable | Why::TooLong)) {
                    add(&self.unparsed, 1);
                }
                add(&cells.primary_queries, 1)
            }
        };
    }

    /// A request was answered without a server.
    #[inline]
    pub fn answered(&self) {
        add(&self.answered, 1);
    }

    /// From a request's first byte to its ReadyForQuery.
    #[inline]
    pub fn query_duration(&self, duration: Duration) {
        self.query_duration.observe(duration);
    }

    /// A server connection was lent after this long.
    #[inline]
    pub fn pool_wait(&self, duration: Duration) {
        self.pool_wait.observe(duration);
    }

    /// No server connection within `acquire_timeout`.
    pub fn pool_timeout(&self) {
        self.pool_timeouts.fetch_add(1, Relaxed);
    }

    /// Bytes came from and went to a client.
    #[inline]
    pub fn bytes(&self, received: usize, sent: usize) {
        add(&self.received, received as u64);
        add(&self.sent, sent as u64);
    }

    /// A request is run again.
    pub fn retry(&self, reason: RetryReason) {
        if let Some(count) = self.retries.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A transaction goes on elsewhere than on the replica that it was on.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    /// A session now keeps its server connection.
    pub fn pin(&self, reason: Pin) {
        if let Some(count) = self.pins.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A login ended.
    pub fn login(&self, result: LoginResult) {
        if let Some(count) = self.logins.get(result as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// A client got an error that pgsplit made (not one that a node sent).
    pub fn error(&self, fault: Fault) {
        let [client, node, proxy] = &self.errors;
        let count = match fault {
            Fault::Client => client,
            Fault::Node => node,
            Fault::Proxy => proxy,
        };
        count.fetch_add(1, Relaxed);
    }

    /// A client got 08007: whether its write happened can't be known.
    pub fn outcome_unknown(&self) {
        self.outcomes_unknown.fetch_add(1, Relaxed);
    }

    /// A client asked to cancel.
    pub fn cancel(&self) {
        self.cancels.fetch_add(1, Relaxed);
    }

    /// A server connection was made.
    pub fn connected(&self, node: NodeId) {
        if let Some(cells) = self.node(node) {
            cells.connects.fetch_add(1, Relaxed);
        }
    }

    /// A server connection couldn't be made.
    pub fn connect_failed(&self, node: NodeId) {
        if let Some(cells) = self.node(node) {
            cells.connect_failures.fetch_add(1, Relaxed);
        }
    }

    /// Another node has this place from now on.
    pub(super) fn reset_node(&self, node: NodeId) {
        if let Some(cells) = self.node(node) {
            for count in [
                &cells.primary_queries,
                &cells.replica_queries,
                &cells.connects,
                &cells.connect_failures,
            ] {
                count.store(0, Relaxed);
            }
        }
    }

    /// A client is connected for as long as the guard lives.
    #[must_use]
    pub fn client(&self) -> ClientGuard {
        self.clients.up();
        ClientGuard(Arc::clone(&self.clients))
    }

    /// A request is held for as long as the guard lives.
    #[must_use]
    pub fn held(&self) -> HeldGuard {
        self.held.up();
        HeldGuard(Arc::clone(&self.held))
    }

    fn node(&self, node: NodeId) -> Option<&NodeCells> {
        self.nodes.get(node.index())
    }
}

/// Counts a connected client.
#[derive(Debug)]
pub struct ClientGuard(Arc<UpDown>);

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// Counts a held request.
#[derive(Debug)]
pub struct HeldGuard(Arc<UpDown>);

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// What one worker did for one database: the totals of `SHOW STATS`. Times are whole microseconds.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct DatabaseStats {
    pub transactions: AtomicU64,
    pub queries: AtomicU64,
    /// Queries that replicas answered; part of `queries`.
    pub replica_queries: AtomicU64,
    /// Server connections lent.
    pub assignments: AtomicU64,
    /// Bytes from clients.
    pub received: AtomicU64,
    /// Bytes to clients.
    pub sent: AtomicU64,
    /// In transactions.
    pub transaction_micros: AtomicU64,
    /// Running queries.
    pub query_micros: AtomicU64,
    /// Waiting for server connections.
    pub wait_micros: AtomicU64,
}

/// Sums of [`DatabaseStats`] over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseTotals {
    pub transactions: u64,
    pub queries: u64,
    pub replica_queries: u64,
    pub assignments: u64,
    pub received: u64,
    pub sent: u64,
    pub transaction_micros: u64,
    pub query_micros: u64,
    pub wait_micros: u64,
}

impl DatabaseStats {
    /// Adds this worker's share.
    pub fn add_to(&self, total: &mut DatabaseTotals) {
        total.transactions += self.transactions.load(Relaxed);
        total.queries += self.queries.load(Relaxed);
        total.replica_queries += self.replica_queries.load(Relaxed);
        total.assignments += self.assignments.load(Relaxed);
        total.received += self.received.load(Relaxed);
        total.sent += self.sent.load(Relaxed);
        total.transaction_micros += self.transaction_micros.load(Relaxed);
        total.query_micros += self.query_micros.load(Relaxed);
        total.wait_micros += self.wait_micros.load(Relaxed);
    }

    /// A request ended.
    #[inline]
    pub fn query(&self, on_replica: bool, took: Duration) {
        add(&self.queries, 1);
        if on_replica {
            add(&self.replica_queries, 1);
        }
        add(&self.query_micros, micros(took));
    }

    /// A transaction ended (an autocommit statement is one).
    #[inline]
    pub fn transaction(&self, took: Duration) {
        add(&self.transactions, 1);
        add(&self.transaction_micros, micros(took));
    }

    /// A server connection was lent after this long.
    #[inline]
    pub fn assigned(&self, waited: Duration) {
        add(&self.assignments, 1);
        add(&self.wait_micros, micros(waited));
    }

    /// Bytes came from and went to the client.
    #[inline]
    pub fn bytes(&self, received: usize, sent: usize) {
        add(&self.received, received as u64);
        add(&self.sent, sent as u64);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
