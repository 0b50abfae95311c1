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
mod events;
mod failover;
mod node;
mod queries;
#[cfg(test)]
mod scripted;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use catalogue::CatalogueSlot;
pub use events::Recorded;
pub use failover::Traffic;

use crate::{
    cluster::{
        Alert, Cause, Cluster, Event, Expected, Failure, HealthRules, Member, NodeId, Pace, View,
    },
    config::settings,
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
    nodes: Box<[NodeHandle]>,
    targets: Box<[connection::Target]>,
    catalogues: catalogue::Catalogues,
    interval: Duration,
    /// Held by whoever makes another node the primary.
    operation: tokio::sync::Mutex<()>,
    /// When the primary was lost, if there is none.
    lost_at: Mutex<Option<Instant>>,
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

/// What others ask of a node's task.
struct NodeHandle {
    name: Arc<str>,
    address: String,
    /// Host (or socket directory) and port.
    place: (String, u16),
    sample_wanted: AtomicBool,
    /// The first failure that queries saw since the task last looked, packed; zero: none.
    failure: AtomicU64,
    wake: Notify,
}

impl Monitor {
    /// Starts watching `nodes` on the current runtime, until `stop`. The tasks are `tracker`'s.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn start(
        nodes: &[settings::Node],
        settings: &settings::Monitor,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let monitor = Self::new(nodes, settings, tracker, stop);
        for (id, target) in (0..).map(NodeId).zip(&monitor.targets) {
            let task = node::watch(monitor.clone(), id, target.clone(), settings.timeout);
            let stop = stop.clone();
            tracker.spawn(async move { stop.run_until_cancelled(task).await });
        }
        monitor
    }

    /// Watches nothing yet.
    fn new(
        nodes: &[settings::Node],
        settings: &settings::Monitor,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let rules = HealthRules {
            down_after: settings.down_after,
            up_after: settings.up_after,
        };
        let cluster = Cluster::new(rules, nodes.iter().map(member));
        let targets = nodes
            .iter()
            .map(|node| connection::Target::new(node, settings, tracker));
        Arc::new(Self {
            view: ArcSwap::from_pointee(cluster.view()),
            version: watch::Sender::new(0),
            primary: watch::Sender::default(),
            cluster: Mutex::new(cluster),
            events: events::Ring::default(),
            nodes: nodes.iter().map(NodeHandle::new).collect(),
            targets: targets.collect(),
            catalogues: catalogue::Catalogues::default(),
            interval: settings.interval,
            operation: tokio::sync::Mutex::default(),
            lost_at: Mutex::default(),
            told: Mutex::default(),
            runtime: Handle::current(),
            tracker: tracker.clone(),
            stop: stop.clone(),
        })
    }

    /// The cluster at this moment. Cheap; meant for the hot path. Not to be kept across an await.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
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
        let Some(handle) = self.nodes.get(node.index()) else {
            return;
        };
        let news =
            handle
                .failure
                .compare_exchange(0, pack(failure), Ordering::AcqRel, Ordering::Relaxed);
        if news.is_ok() {
            handle.wake.notify_one();
        }
    }

    /// Asks for one position of `node` that is newer than this call. Who still waits when a new
    /// view comes without it asks again. Never blocks.
    pub fn want_sample(&self, node: NodeId) {
        let Some(handle) = self.nodes.get(node.index()) else {
            return;
        };
        if !handle.sample_wanted.swap(true, Ordering::AcqRel) {
            handle.wake.notify_one();
        }
    }

    /// Takes a node out (nothing new is sent there), or puts it back. False: no such node.
    pub fn set_maintenance(&self, node: NodeId, on: bool) -> bool {
        if self.nodes.get(node.index()).is_none() {
            return false;
        }
        self.apply(|cluster, _| cluster.set_maintenance(node, on));
        // An operation that was given up may have left the node withheld.
        if !on && self.operation.try_lock().is_ok() {
            self.apply(|cluster, _| cluster.withhold(node, false, Cause::Operator));
        }
        true
    }

    /// The node of that name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        (0..)
            .map(NodeId)
            .zip(&self.nodes)
            .find_map(|(id, handle)| (*handle.name == *name).then_some(id))
    }

    /// A node's name; empty if there is no such node.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.get(node.index()).map_or("", |n| &n.name)
    }

    /// A node's address, for people.
    #[must_use]
    pub fn address(&self, node: NodeId) -> &str {
        self.nodes.get(node.index()).map_or("", |n| &n.address)
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
        self.view.store(Arc::new(view));
        for event in events {
            self.events.record(event, &|id| self.name(id));
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
            for handle in &self.nodes {
                handle.wake.notify_one();
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
            Pace::Normal => self.interval,
            Pace::Fast => self.interval.min(URGENT_INTERVAL),
        }
    }
}

impl NodeHandle {
    fn new(node: &settings::Node) -> Self {
        let address = match &node.host {
            settings::Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", node.port),
            settings::Host::Tcp(host) => format!("{host}:{}", node.port),
            settings::Host::Unix(directory) => {
                format!("{}/.s.PGSQL.{}", directory.display(), node.port)
            }
        };
        Self {
            name: node.name.clone(),
            address,
            place: (node.host.to_string(), node.port),
            sample_wanted: AtomicBool::new(false),
            failure: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// Takes the reported failure, if any.
    fn take_failure(&self) -> Option<Failure> {
        unpack(self.failure.swap(0, Ordering::AcqRel))
    }

    /// Takes the wish for a sample, if any. To be taken before the moment of asking is noted.
    fn take_sample_wish(&self) -> bool {
        self.sample_wanted.swap(false, Ordering::AcqRel)
    }

    fn sample_is_wanted(&self) -> bool {
        self.sample_wanted.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("view", &self.view.load())
            .finish_non_exhaustive()
    }
}

fn member(node: &settings::Node) -> Member {
    Member {
        name: node.name.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
        expected: match node.role {
            settings::NodeRole::Auto => Expected::Any,
            settings::NodeRole::Primary => Expected::Primary,
            settings::NodeRole::Replica => Expected::Replica,
        },
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
