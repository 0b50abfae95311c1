//! Getting a server connection for a request: from the right pool, waiting out a failover when
//! there is no primary.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Proxy,
    clients::{Activity, Client},
    tenant::Tenant,
};
use crate::{
    cluster::{Failure, MAX_NODES, NodeId},
    config::FailoverMode,
    error::{Fault, Visible},
    metrics::{
        HeldGuard,
        inspect::{health_name, role_name},
    },
    pool::{
        AcquireError, Lease,
        connect::{Cause, ConnectError},
    },
    protocol::SqlState,
    routing::Target,
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lend<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) worker: usize,
    pub(super) entry: &'a Client,
    pub(super) target: Target,
    /// A read that no replica could serve.
    pub(super) fallback: bool,
    /// Since when such a read has been waiting: it is decided anew now and then, since replicas may
    /// come to serve it before there is a primary.
    pub(super) read_since: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    /// This replica can't give one; another node may.
    Node(NodeId),
    /// It waited, and what was decided before that is old by now.
    Again,
    /// The client is to be told.
    Told(Visible),
}

/// A switchover is carried out or undone so long after it was ready, as a rule.
const SETTLED: Duration = Duration::from_secs(5);
/// Between two attempts to connect to a primary that is known but doesn't let us in.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

impl Proxy {
    /// Lends a connection that is at hand, if one is. `epoch` becomes that in which its node is the
    /// primary.
    pub(super) fn at_hand(&self, lend: &Lend<'_>, now: Instant, epoch: &mut u64) -> Option<Lease> {
        let node = match lend.target {
            Target::Replica(node) => node,
            Target::Primary => {
                // Said before looking: whoever withholds the node looks at clients afterwards.
                lend.entry.set_activity(Activity::Waiting);
                let view = self.monitor.view();
                *epoch = view.epoch;
                view.primary?
            }
        };
        let pool = lend.tenant.pool(node)?;
        if lend.fallback {
            pool.warm_for_fallback(lend.worker, now)
        } else {
            pool.warm(lend.worker, now)
        }
    }

    /// Lends a connection, one way or another. Cancel safe.
    pub(super) async fn lend(&self, lend: Lend<'_>) -> Result<Lease, Refused> {
        match lend.target {
            Target::Replica(node) => self.lend_replica(&lend, node).await,
            Target::Primary => self.lend_primary(&lend).await,
        }
    }

    async fn lend_replica(&self, lend: &Lend<'_>, node: NodeId) -> Result<Lease, Refused> {
        let Some(pool) = lend.tenant.pool(node) else {
            return Err(Refused::Node(node));
        };
        lend.entry.set_activity(Activity::WaitingForReplica);
        lend.entry.waits_for(node);
        match pool.acquire(lend.worker).await {
            Ok(lease) => Ok(lease),
            // Busy is not dead: waiting for a slot says nothing about the node.
            Err(error @ (AcquireError::Full { .. } | AcquireError::ShareFull { .. })) => {
                Err(self.pool_full(lend, node, &error))
            }
            Err(AcquireError::Connect(error)) => {
                self.connect_failed(node, &error);
                Err(Refused::Node(node))
            }
            Err(AcquireError::Paused) => {
                // Who has a connection of its own goes on there.
                if !lend.entry.pins().is_empty() {
                    return Err(Refused::Node(node));
                }
                self.paused(lend).await.map_err(Refused::Told)?;
                Err(Refused::Again)
            }
            Err(AcquireError::Down | AcquireError::Closed) => Err(Refused::Node(node)),
        }
    }

    async fn lend_primary(&self, lend: &Lend<'_>) -> Result<Lease, Refused> {
        let mut hold: Option<Hold<'_>> = None;
        loop {
            // Read before trying, so that a change meanwhile isn't missed.
            let mut primary = self.monitor.subscribe_primary();
            let node = primary.borrow_and_update().node;
            if let Some(node) = node
                && let Some(pool) = lend.tenant.pool(node)
            {
                lend.entry.set_activity(Activity::Waiting);
                lend.entry.waits_for(node);
                // Another node may become the primary while one waits for this.
                let superseded = primary.wait_for(|now| now.node.is_some_and(|now| now != node));
                let acquired = if lend.fallback {
                    either(Box::pin(pool.acquire_for_fallback(lend.worker)), superseded).await
                } else {
                    either(pool.acquire(lend.worker), superseded).await
                };
                match acquired {
                    None => continue,
                    Some(Ok(lease)) => {
                        // Its role may have been lost while we waited for the connection.
                        if self.monitor.view().primary == Some(node) {
                            return Ok(lease);
                        }
                        lease.give_back(Instant::now());
                        continue;
                    }
                    Some(Err(
                        error @ (AcquireError::Full { .. } | AcquireError::ShareFull { .. }),
                    )) => {
                        return Err(self.pool_full(lend, node, &error));
                    }
                    Some(Err(AcquireError::Paused)) => {
                        self.paused(lend).await.map_err(Refused::Told)?;
                        continue;
                    }
                    Some(Err(AcquireError::Down | AcquireError::Closed)) => {}
                    Some(Err(AcquireError::Connect(error))) => {
                        self.connect_failed(node, &error);
                        match error.cause() {
                            Cause::Node => {}
                            Cause::Full | Cause::Login | Cause::Other => {
                                let name = self.monitor.name(node);
                                return Err(Refused::Told(refusal(error, &name)));
                            }
                        }
                    }
                }
            }
            let hold = match &mut hold {
                Some(hold) => hold,
                None => hold.insert(self.hold(lend).map_err(Refused::Told)?),
            };
            lend.entry.set_activity(Activity::Held);
            let until = if node.is_some() || lend.read_since.is_some() {
                hold.until.min(Instant::now() + AGAIN)
            } else {
                hold.until
            };
            let changed = timeout_at(until, primary.changed()).await;
            if changed.is_err() && Instant::now() >= hold.until {
                return Err(Refused::Told(self.no_primary(hold)));
            }
            if changed.is_err() && lend.read_since.is_some() {
                return Err(Refused::Again);
            }
        }
    }

    /// Waits as a held request until the database isn't paused any more. Cancel safe.
    async fn paused(&self, lend: &Lend<'_>) -> Result<(), Visible> {
        let (database, limit) = (&lend.tenant.database, lend.tenant.pause_timeout());
        lend.entry.set_activity(Activity::Held);
        let _counted = self.metrics(lend.worker).held();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Visible::fatal(
                Fault::Proxy,
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            )),
            opened = timeout(limit, database.gate.opened()) => opened.map_err(|_elapsed| {
                Visible::error(
                    Fault::Proxy,
                    SqlState::CANNOT_CONNECT_NOW,
                    format!(
                        "database \"{}\" has been paused for more than {} ms",
                        database.name,
                        limit.as_millis()
                    ),
                )
                .hint("an operator ends the pause by RESUME; pool.pause_timeout limits the wait")
            }),
        }
    }

    /// A place among the held requests.
    fn hold(&self, lend: &Lend<'_>) -> Result<Hold<'_>, Visible> {
        let limits = self.settings().failover.clone();
        // A planned change is waited for in any case.
        let planned = self.monitor.view().withheld.is_some();
        if limits.mode == FailoverMode::Off && !planned {
            return Err(Visible::error(
                Fault::Node,
                SqlState::CANNOT_CONNECT_NOW,
                format!("no primary can be reached: {}", self.nodes_now()),
            )
            .hint("with failover.mode = \"off\" requests don't wait for one"));
        }
        let hold = if planned {
            limits.hold.max(limits.switchover_timeout + SETTLED)
        } else {
            limits.hold
        };
        let since = lend.read_since.unwrap_or_else(Instant::now);
        let place = Hold {
            proxy: self,
            _counted: self.metrics(lend.worker).held(),
            since,
            until: since + hold,
        };
        let held = self.held.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if held >= limits.hold_max {
            return Err(Visible::error(
                Fault::Node,
                SqlState::CANNOT_CONNECT_NOW,
                format!("no primary is known, and {held} requests are waiting for one already"),
            )
            .hint("failover.hold_max limits how many may wait"));
        }
        Ok(place)
    }

    fn no_primary(&self, hold: &Hold<'_>) -> Visible {
        let waited = hold.since.elapsed();
        if self.complaints.is_due(Complaints::CLUSTER) {
            let held = self.held.load(Ordering::Relaxed);
            tracing::warn!(?waited, held, "request refused: no primary in time");
        }
        Visible::error(
            Fault::Node,
            SqlState::CANNOT_CONNECT_NOW,
            format!(
                "no primary could be reached for {} ms: {}",
                waited.as_millis(),
                self.nodes_now()
            ),
        )
        .hint("failover.hold limits how long a request waits for a primary")
    }

    /// All nodes with role and health, for people.
    fn nodes_now(&self) -> String {
        let view = self.monitor.view();
        let nodes = view.nodes.iter().map(|node| {
            let (role, health) = (role_name(node.role), health_name(node.health));
            format!("{} is {role}/{health}", node.name)
        });
        nodes.collect::<Vec<_>>().join(", ")
    }

    /// Waits as a held request while new transactions are kept from a node on which the session
    /// has a connection of its own. Cancel safe.
    pub(super) async fn wait_out(&self, lend: &Lend<'_>, node: NodeId) -> Result<(), Visible> {
        let hold = self.hold(lend)?;
        lend.entry.set_activity(Activity::Held);
        let mut ticks = self.monitor.subscribe();
        while self.monitor.view().withheld == Some(node) {
            if timeout_at(hold.until, ticks.changed()).await.is_err() {
                return Err(self.no_primary(&hold));
            }
        }
        Ok(())
    }

    fn pool_full(&self, lend: &Lend<'_>, node: NodeId, error: &AcquireError) -> Refused {
        self.metrics(lend.worker).pool_timeout();
        let name = self.monitor.name(node);
        if self.complaints.is_due(node.index()) {
            let (database, user) = (&lend.tenant.database.name, &lend.tenant.user);
            tracing::warn!(node = %name, %database, %user, %error, "request refused: pool is full");
        }
        Refused::Told(full(error, &name))
    }

    fn connect_failed(&self, node: NodeId, error: &ConnectError) {
        if self.complaints.is_due(node.index()) {
            tracing::warn!(node = %self.monitor.name(node), %error, "no server connection");
        }
        if error.cause() == Cause::Node {
            self.monitor.report_failure(node, Failure::Connect);
        }
    }
}

/// Keeps the log from being flooded with the same complaint about a node.
#[derive(Debug)]
pub(super) struct Complaints {
    since: Instant,
    /// By [`NodeId::index`], and behind them [`Complaints::CLUSTER`]: the second of the last one, from 1.
    last: [AtomicU64; MAX_NODES + 1],
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            last: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Complaints {
    /// About no node in particular.
    const CLUSTER: usize = MAX_NODES;

    /// There has been none about this in this second.
    fn is_due(&self, about: usize) -> bool {
        let now = self.since.elapsed().as_secs() + 1;
        let last = self.last.get(about);
        last.is_none_or(|last| last.swap(now, Ordering::Relaxed) != now)
    }
}

/// A request that waits for a primary.
struct Hold<'a> {
    proxy: &'a Proxy,
    _counted: HeldGuard,
    since: Instant,
    until: Instant,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.proxy
            .held
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What `work` comes to, unless `end` comes before.
pub(super) async fn either<T>(work: impl Future<Output = T>, end: impl Future) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        _ended = end => None,
    }
}

fn full(error: &AcquireError, node: &str) -> Visible {
    let hint = if matches!(error, AcquireError::ShareFull { .. }) {
        "pool.primary_reads_share keeps the rest for writes; look why no replica can serve reads"
    } else {
        "raise pool.max_size or pool.acquire_timeout, or use fewer connections at a time"
    };
    Visible::error(
        Fault::Proxy,
        SqlState::TOO_MANY_CONNECTIONS,
        format!("{error} (node {node})"),
    )
    .hint(hint)
}

fn refusal(error: ConnectError, node: &str) -> Visible {
    match error {
        ConnectError::Refused { sqlstate, message } => {
            Visible::error(Fault::Node, sqlstate, format!("{message} (node {node})"))
        }
        ConnectError::Dial(_)
        | ConnectError::TimedOut
        | ConnectError::NodeDown
        | ConnectError::Paused
        | ConnectError::Lost(_)
        | ConnectError::Credentials(_)
        | ConnectError::Gone
        | ConnectError::Protocol(_) => Visible::error(
            Fault::Node,
            SqlState::CONNECTION_FAILURE,
            format!("no connection to node {node}: {error}"),
        ),
    }
}
