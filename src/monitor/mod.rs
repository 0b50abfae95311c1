//! Watches the nodes: probes, LSN samples, catalogues. The only writer of the cluster's view.
//!
//! One task per node owns the one connection that asks it; one task per database loads its
//! catalogue from the primary. What they hear goes through [`Cluster`], and what follows from it
//! is published as a [`View`] that readers take without waiting.
//!
//! **Invariants.** Nothing here ever blocks a caller: reports and wishes are flags. At most one
//! question per node is in flight, and none is asked without need but the probes. Each question
//! has `monitor.timeout` as its deadline, connecting included. The lock of [`Cluster`] is never
//! held across an await.

mod catalogue;
mod connection;
pub mod discovery;
mod events;
mod failover;
mod node;
mod queries;
mod roster;
#[cfg(test)]
mod scripted;
mod secrets;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::{runtime::Handle, sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use catalogue::CatalogueSlot;
pub use events::Recorded;
pub use failover::Traffic;
pub use roster::{NodesError, Standing, Wanted, Watched};

use crate::{
    cluster::{Alert, Cause, Cluster, Event, Failure, HealthRules, NodeId, Pace, View, What},
    config::settings,
    net::{Dialer, tls::TlsError},
    protocol::SqlState,
};

/// Shortest time between two samples of one node.
pub const SAMPLE_GAP: Duration = Duration::from_millis(5);
/// Shortest time between two probes of one node, however many failures are reported.
pub const PROBE_GAP: Duration = Duration::from_millis(10);
/// Time between two probes when something hangs on them, if `monitor.interval` isn't shorter.
pub const URGENT_INTERVAL: Duration = Duration::from_millis(50);

/// The cluster as seen from here, kept up to date by tasks of its own.
pub struct Monitor {
    view: ArcSwap<View>,
    version: watch::Sender<u64>,
    primary: watch::Sender<CurrentPrimary>,
    cluster: Mutex<Cluster>,
    events: events::Ring,
    roster: roster::Roster,
    catalogues: catalogue::Catalogues,
    /// Held by whoever makes another node the primary.
    operation: tokio::sync::Mutex<()>,
    /// When the primary was lost, if there is none.
    lost_at: Mutex<Option<Instant>>,
    settings: settings::Monitor,
    /// A reload may change it.
    password: connection::Password,
    /// The nodes of the configuration.
    configured: watch::Sender<Arc<[settings::Node]>>,
    /// They are what it says, else what is made of it.
    is_static: bool,
    /// Was told to be the primary, while there is none.
    told: Mutex<Option<NodeId>>,
    /// Where tasks that are begun later run.
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Which node writes go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrentPrimary {
    pub node: Option<NodeId>,
    pub epoch: u64,
}

impl Monitor {
    /// Starts watching `nodes` on the current runtime, until `stop`. The tasks are `tracker`'s.
    ///
    /// # Errors
    /// A node's TLS files can't be used, or there are too many nodes.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        nodes: &[settings::Node],
        settings: &settings::Monitor,
        failover: &settings::Failover,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, NodesError> {
        let source = discovery::Source::new(failover, settings.timeout);
        let monitor = Self::empty(settings, source.is_none(), tracker, stop);
        monitor.configure(nodes)?;
        if let Some(source) = source {
            let configured = monitor.configured.subscribe();
            let every = failover.discovery_interval;
            let task = discovery::run(Arc::clone(&monitor), source, every, configured);
            let stop = stop.clone();
            tracker.spawn(async move { stop.run_until_cancelled(task).await });
        }
        Ok(monitor)
    }

    /// The nodes of the configuration are these from now on.
    ///
    /// # Errors
    /// Nothing was changed: [`NodesError`].
    pub fn configure(self: &Arc<Self>, nodes: &[settings::Node]) -> Result<(), NodesError> {
        if self.is_static {
            let wanted: Vec<Wanted> = nodes.iter().cloned().map(Wanted::from).collect();
            self.set_nodes(&wanted, Cause::Configuration)?;
        }
        self.configured.send_replace(nodes.into());
        Ok(())
    }

    /// Logs in with another password from now on; what is connected stays so.
    pub fn set_password(&self, password: Option<settings::Secret>) {
        self.password.store(password.map(Arc::new));
    }

    /// Watches nothing yet.
    fn empty(
        settings: &settings::Monitor,
        is_static: bool,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let rules = HealthRules {
            down_after: settings.down_after,
            up_after: settings.up_after,
        };
        let cluster = Cluster::new(rules, []);
        Arc::new(Self {
            view: ArcSwap::from_pointee(cluster.view()),
            version: watch::Sender::new(0),
            primary: watch::Sender::default(),
            cluster: Mutex::new(cluster),
            events: events::Ring::default(),
            roster: roster::Roster::new(),
            catalogues: catalogue::Catalogues::default(),
            operation: tokio::sync::Mutex::default(),
            lost_at: Mutex::default(),
            settings: settings.clone(),
            password: Arc::new(ArcSwapOption::from_pointee(settings.password.clone())),
            configured: watch::Sender::new(Arc::from([])),
            is_static,
            told: Mutex::default(),
            runtime: Handle::current(),
            tracker: tracker.clone(),
            stop: stop.clone(),
        })
    }

    /// Makes `wanted` the nodes: new ones are asked at once, those that aren't among them leave.
    ///
    /// # Errors
    /// Nothing was changed: [`NodesError`].
    pub fn set_nodes(self: &Arc<Self>, wanted: &[Wanted], cause: Cause) -> Result<(), NodesError> {
        for node in self.change(wanted, cause, &roster::dialer)? {
            let stop = node.stop.clone();
            let task = node::watch(Arc::clone(self), node, self.settings.timeout);
            self.tracker.spawn_on(
                async move { stop.run_until_cancelled(task).await },
                &self.runtime,
            );
        }
        Ok(())
    }

    /// Makes `wanted` the nodes; those that are new, and not watched yet.
    fn change(
        &self,
        wanted: &[Wanted],
        cause: Cause,
        dialer: &dyn Fn(&Wanted) -> Result<Dialer, TlsError>,
    ) -> Result<Vec<Arc<Watched>>, NodesError> {
        let mut last = self.roster.changing();
        let target =
            |dialer| connection::Target::new(dialer, &self.settings, &self.password, &self.tracker);
        let changes = self
            .roster
            .compare(&last, wanted, dialer, target, &self.stop)?;
        // Known before it is seen in a view.
        self.roster.carry_out(&mut last, &changes);
        self.apply(|cluster, _| {
            let mut events = Vec::new();
            for node in &changes.leave {
                events.extend(cluster.leave(node.id, cause));
            }
            for stay in &changes.stay {
                let mut member = stay.wanted.member();
                if let Some(weight) = cluster.weight(stay.node.id)
                    && !stay.reweighted
                {
                    member.weight = weight;
                }
                events.extend(cluster.reconfigure(stay.node.id, member, cause));
            }
            for node in &changes.join {
                events.extend(cluster.join(node.id, node.wanted().member(), cause));
            }
            events
        });
        Ok(changes.join)
    }

    /// Nothing runs at `node` any more, which was to leave: it is forgotten.
    pub fn forget(&self, node: NodeId) {
        if self.roster.forget(node) {
            self.apply(|cluster, _| cluster.gone(node, Cause::Drained));
        }
    }

    /// The node's address, settings and way there, leaving or not.
    #[must_use]
    pub fn watched(&self, node: NodeId) -> Option<Arc<Watched>> {
        self.roster.get(node)
    }

    /// The cluster at this moment. Cheap; meant for the hot path. Not to be kept across an await.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// How many catalogues have been published so far, of any database: names may mean other tables
    /// than before. Cheap.
    #[must_use]
    pub fn catalogues_published(&self) -> u64 {
        self.catalogues.published.load(Ordering::Acquire)
    }

    /// The cluster at this moment, to be kept.
    #[must_use]
    pub fn view_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Ticks with every new view. For those who wait for a replica: many ticks a second.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Changes with the primary only: for those who wait for one.
    #[must_use]
    pub fn subscribe_primary(&self) -> watch::Receiver<CurrentPrimary> {
        self.primary.subscribe()
    }

    /// A server connection to `node` failed, or couldn't be made. Counts like a failed probe, and
    /// one is sent at once. Never for a full pool, a slow statement or an error that the node
    /// answered to a statement. Never blocks.
    pub fn report_failure(&self, node: NodeId, failure: Failure) {
        if let Some(node) = self.roster.get(node)
            && node.report(failure)
        {
            node.wake.notify_one();
        }
    }

    /// Asks for one position of `node` that is newer than this call. Who still waits when a new
    /// view comes without it asks again. Never blocks.
    pub fn want_sample(&self, node: NodeId) {
        if let Some(node) = self.roster.get(node)
            && node.wish_for_sample()
        {
            node.wake.notify_one();
        }
    }

    /// Takes a node out (nothing new is sent there), or puts it back. False: no such node.
    pub fn set_maintenance(&self, node: NodeId, on: bool) -> bool {
        if self.view().node(node).is_none_or(|node| node.leaving) {
            return false;
        }
        self.apply(|cluster, _| cluster.set_maintenance(node, on));
        // An operation that was given up may have left the node withheld.
        if !on && self.operation.try_lock().is_ok() {
            self.apply(|cluster, _| cluster.withhold(node, false, Cause::Operator));
        }
        true
    }

    /// Changes a node's share of the reads, until its settings change or it is started anew. False:
    /// no such node.
    pub fn set_weight(&self, node: NodeId, weight: u32) -> bool {
        if self.view().node(node).is_none_or(|node| node.leaving) {
            return false;
        }
        self.apply(|cluster, _| cluster.set_weight(node, weight));
        true
    }

    /// The node of that name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        let view = self.view();
        let mut named = view.nodes.iter().filter(|node| *node.name == *name);
        named.next().map(|node| node.id)
    }

    /// A node's name; empty if there is no such node.
    #[must_use]
    pub fn name(&self, node: NodeId) -> Arc<str> {
        let view = self.view();
        view.node(node).map_or("".into(), |n| Arc::clone(&n.name))
    }

    /// How many events there were, by kind, and refused failovers, by reason.
    #[must_use]
    pub fn event_counts(&self) -> [Vec<(&'static str, u64)>; 2] {
        self.events.counts()
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Recorded> {
        self.events.all()
    }

    /// What is wrong at present.
    #[must_use]
    pub fn alerts(&self) -> Vec<(NodeId, Alert)> {
        self.cluster().alerts()
    }

    /// Feeds the machine, then publishes and reports what follows.
    fn apply(&self, feed: impl FnOnce(&mut Cluster, std::time::Instant) -> Vec<Event>) {
        let mut cluster = self.cluster();
        let events = feed(&mut cluster, Instant::now().into_std());
        let view = cluster.view();
        let primary = CurrentPrimary {
            node: view.primary,
            epoch: view.epoch,
        };
        let view = Arc::new(view);
        let before = self.view.swap(Arc::clone(&view));
        for event in events {
            if let What::Health { to, .. } = event.what
                && let Some(node) = self.roster.get(event.node)
            {
                node.health_changed(to);
            }
            self.events.record(event, [&view, &before]);
        }
        // Still under the lock, so that views and their ticks keep one order.
        self.version.send_modify(|version| *version += 1);
        let changed = self.primary.send_if_modified(|last| {
            let changed = *last != primary;
            if last.node.is_some() != primary.node.is_some() {
                *self.lost() = primary.node.is_none().then(Instant::now);
                *self.told() = None;
            }
            *last = primary;
            changed
        });
        drop(cluster);
        if changed {
            // How soon the others are to be asked may have changed with it.
            for node in self.roster.all() {
                node.wake.notify_one();
            }
        }
    }

    fn lost(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Option<NodeId>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the primary was lost, if there was one and is none.
    fn lost_at(&self) -> Option<std::time::Instant> {
        self.lost().map(Instant::into_std)
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        // Cluster is consistent between any two of its statements that could panic: none can.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time from one probe of `node` to the next.
    fn probe_interval(&self, node: NodeId) -> Duration {
        match self.cluster().pace(node) {
            Pace::Normal => self.settings.interval,
            Pace::Fast => self.settings.interval.min(URGENT_INTERVAL),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("view", &self.view.load())
            .finish_non_exhaustive()
    }
}

/// A failure in one word, never zero.
fn pack(failure: Failure) -> u64 {
    match failure {
        Failure::Connect => 1,
        Failure::Closed => 2,
        Failure::Timeout => 3,
        Failure::Protocol => 4,
        Failure::Answer(SqlState([a, b, c, d, e])) => u64::from_be_bytes([5, 0, 0, a, b, c, d, e]),
    }
}

fn unpack(word: u64) -> Option<Failure> {
    match word {
        0 => None,
        1 => Some(Failure::Connect),
        2 => Some(Failure::Closed),
        3 => Some(Failure::Timeout),
        4 => Some(Failure::Protocol),
        _ => {
            let [_, _, _, code @ ..] = word.to_be_bytes();
            Some(Failure::Answer(SqlState(code)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_failure_comes_back_as_it_was() {
        for failure in [
            Failure::Connect,
            Failure::Closed,
            Failure::Timeout,
            Failure::Protocol,
            Failure::Answer(SqlState::ADMIN_SHUTDOWN),
            Failure::Answer(SqlState([0; 5])),
        ] {
            assert_eq!(unpack(pack(failure)), Some(failure));
        }
        assert_eq!(unpack(0), None);
    }
}
