//! The nodes that there are at this moment, each in its place, and what has to change for others.
//!
//! Readers never wait: a place is looked up, and its node is the one that was meant or isn't. Who
//! changes the set holds [`Roster::changing`].

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{connection::Target, pack, unpack};
use crate::{
    cluster::{Expected, Failure, Health, MAX_NODES, Member, NodeId},
    config::settings,
    net::{Dialer, tls::TlsError},
};

/// A node that there should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub node: settings::Node,
    /// Where it is, if not wherever its host's name leads.
    pub address: Option<IpAddr>,
}

/// A node that is watched, and what others ask of the task that watches it.
pub struct Watched {
    pub id: NodeId,
    /// As it is wanted. Whom it is is told by its name, address and TLS, which don't change.
    wanted: ArcSwap<Wanted>,
    dialer: Dialer,
    pub(super) target: Target,
    /// No longer one of the nodes.
    leaving: AtomicBool,
    sample_wanted: AtomicBool,
    /// The first failure that queries saw since the task last looked, packed; zero: none.
    failure: AtomicU64,
    standing: Mutex<Standing>,
    pub(super) wake: Notify,
    /// Cancelled when the node is forgotten.
    pub(super) stop: CancellationToken,
}

/// How long a node has been as it is, and what was last wrong with it, for those who look.
#[derive(Clone, Debug)]
pub struct Standing {
    /// When its health became what it is.
    pub since: Instant,
    /// The newest failure since it was last up.
    pub problem: Option<String>,
}

/// See the module's description.
pub(super) struct Roster {
    places: Box<[ArcSwapOption<Watched>]>,
    /// The last node of each place that had one.
    last: Mutex<[Option<NodeId>; MAX_NODES]>,
}

/// What has to happen so that the nodes are those that are wanted.
#[derive(Default)]
pub(super) struct Changes {
    /// New ones.
    pub(super) join: Vec<Arc<Watched>>,
    /// Known ones that are wanted otherwise than before, or again.
    pub(super) stay: Vec<Stay>,
    pub(super) leave: Vec<Arc<Watched>>,
}

/// A known node that stays.
pub(super) struct Stay {
    pub(super) node: Arc<Watched>,
    pub(super) wanted: Wanted,
    /// Its weight is said anew: one that an operator set is over.
    pub(super) reweighted: bool,
}

/// Why the nodes can't be those that are wanted. Nothing was changed.
#[derive(Debug)]
pub enum NodesError {
    Tls(TlsError),
    /// With those that are still being let go there would be more than [`MAX_NODES`].
    TooMany,
}

impl From<settings::Node> for Wanted {
    fn from(node: settings::Node) -> Self {
        Self {
            node,
            address: None,
        }
    }
}

impl Wanted {
    /// The same server, reached in the same way, under the same name.
    fn is(&self, other: &Self) -> bool {
        let key = |w: &Self| {
            (
                w.node.name.clone(),
                w.node.host.clone(),
                w.node.port,
                w.address,
            )
        };
        key(self) == key(other) && self.node.tls == other.node.tls
    }

    pub(super) fn member(&self) -> Member {
        Member {
            name: self.node.name.clone(),
            zone: self.node.zone.clone(),
            weight: self.node.weight,
            expected: match self.node.role {
                settings::NodeRole::Auto => Expected::Any,
                settings::NodeRole::Primary => Expected::Primary,
                settings::NodeRole::Replica => Expected::Replica,
            },
        }
    }

    /// Its address, or name, or socket directory, for people.
    #[must_use]
    pub fn host(&self) -> String {
        match self.address {
            Some(address) => address.to_string(),
            None => self.node.host.to_string(),
        }
    }
}

impl Roster {
    pub(super) fn new() -> Self {
        Self {
            places: (0..MAX_NODES)
                .map(|_place| ArcSwapOption::empty())
                .collect(),
            last: Mutex::new([None; MAX_NODES]),
        }
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Arc<Watched>> {
        let node = self.places.get(id.index())?.load_full()?;
        (node.id == id).then_some(node)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Watched>> {
        self.places.iter().filter_map(ArcSwapOption::load_full)
    }

    /// To be held while the set changes.
    pub(super) fn changing(&self) -> MutexGuard<'_, [Option<NodeId>; MAX_NODES]> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to change so that the nodes are `wanted`. Changes nothing.
    pub(super) fn compare(
        &self,
        last: &[Option<NodeId>; MAX_NODES],
        wanted: &[Wanted],
        dialer: &dyn Fn(&Wanted) -> Result<Dialer, TlsError>,
        target: impl Fn(Dialer) -> Target,
        stop: &CancellationToken,
    ) -> Result<Changes, NodesError> {
        let mut changes = Changes::default();
        let mut known: Vec<Arc<Watched>> = self.all().collect();
        // One that is leaving is taken back only where no other is meant.
        known.sort_by_key(|node| node.is_leaving());
        let mut free = (0..MAX_NODES).filter(|place| {
            let taken = self.places.get(*place).is_none_or(|p| p.load().is_some());
            !taken
        });
        for wanted in wanted {
            let found = known.iter().position(|node| node.wanted().is(wanted));
            if let Some(found) = found {
                let node = known.remove(found);
                if node.is_leaving() || **node.wanted() != *wanted {
                    let reweighted = node.wanted().node.weight != wanted.node.weight;
                    changes.stay.push(Stay {
                        node,
                        wanted: wanted.clone(),
                        reweighted,
                    });
                }
                continue;
            }
            let place = free.next().ok_or(NodesError::TooMany)?;
            let id = match last.get(place) {
                Some(Some(last)) => Some(last.successor()),
                _ => NodeId::first(place),
            };
            changes.join.push(Arc::new(Watched {
                id: id.ok_or(NodesError::TooMany)?,
                dialer: dialer(wanted).map_err(NodesError::Tls)?,
                // One of its own: others' look-ups of its name don't hold up the monitor's.
                target: target(dialer(wanted).map_err(NodesError::Tls)?),
                wanted: ArcSwap::from_pointee(wanted.clone()),
                leaving: AtomicBool::new(false),
                sample_wanted: AtomicBool::new(false),
                failure: AtomicU64::new(0),
                standing: Mutex::new(Standing {
                    since: Instant::now(),
                    problem: None,
                }),
                wake: Notify::new(),
                stop: stop.child_token(),
            }));
        }
        known.retain(|node| !node.is_leaving());
        changes.leave = known;
        Ok(changes)
    }

    /// Puts new nodes in their places, and notes who stays and leaves.
    pub(super) fn carry_out(&self, last: &mut [Option<NodeId>; MAX_NODES], changes: &Changes) {
        for node in &changes.join {
            if let (Some(place), Some(last)) = (
                self.places.get(node.id.index()),
                last.get_mut(node.id.index()),
            ) {
                place.store(Some(Arc::clone(node)));
                *last = Some(node.id);
            }
        }
        for Stay { node, wanted, .. } in &changes.stay {
            node.wanted.store(Arc::new(wanted.clone()));
            node.leaving.store(false, Ordering::SeqCst);
        }
        for node in &changes.leave {
            node.leaving.store(true, Ordering::SeqCst);
        }
    }

    /// Forgets a node that is leaving.
    pub(super) fn forget(&self, id: NodeId) -> bool {
        let _changing = self.changing();
        let Some(node) = self.get(id).filter(|node| node.is_leaving()) else {
            return false;
        };
        node.stop.cancel();
        if let Some(place) = self.places.get(id.index()) {
            place.store(None);
        }
        true
    }
}

pub(super) fn dialer(wanted: &Wanted) -> Result<Dialer, TlsError> {
    Ok(Dialer::new(&wanted.node)?.at(wanted.address))
}

impl Watched {
    /// How it is wanted.
    pub fn wanted(&self) -> arc_swap::Guard<Arc<Wanted>> {
        self.wanted.load()
    }

    /// The way there.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// It isn't one of the nodes any more: no connection is made there.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.now_standing().clone()
    }

    /// Its health is another from now on.
    pub(super) fn health_changed(&self, to: Health) {
        let mut standing = self.now_standing();
        standing.since = Instant::now();
        if to == Health::Up {
            standing.problem = None;
        }
    }

    /// Something is wrong with it; `None`: no longer.
    pub(super) fn has_problem(&self, problem: Option<String>) {
        self.now_standing().problem = problem;
    }

    fn now_standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure. True: it is the first since the task last looked.
    pub(super) fn report(&self, failure: Failure) -> bool {
        let packed = pack(failure);
        let news = self
            .failure
            .compare_exchange(0, packed, Ordering::AcqRel, Ordering::Relaxed);
        news.is_ok()
    }

    /// Notes the wish for a sample. True: there was none.
    pub(super) fn wish_for_sample(&self) -> bool {
        !self.sample_wanted.swap(true, Ordering::AcqRel)
    }

    /// Takes the reported failure, if any.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        unpack(self.failure.swap(0, Ordering::AcqRel))
    }

    /// Takes the wish for a sample, if any. To be taken before the moment of asking is noted.
    pub(super) fn take_sample_wish(&self) -> bool {
        self.sample_wanted.swap(false, Ordering::AcqRel)
    }

    pub(super) fn sample_is_wanted(&self) -> bool {
        self.sample_wanted.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("id", &self.id)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for NodesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::TooMany => write!(
                f,
                "there would be more than {MAX_NODES} nodes, those included that are still being let go"
            ),
        }
    }
}

impl std::error::Error for NodesError {}
