//! Events as an operator meets them: one log line each, and the last ones kept to be shown.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use crate::cluster::{Alert, Cause, Event, Health, NodeId, Phase, Refusal, View, What};

/// Events kept.
const KEPT: usize = 1000;

/// An event and when it happened, by this machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Counts from 1; a gap in what one sees means that older ones were dropped.
    pub number: u64,
    pub at: SystemTime,
    pub event: Event,
    /// Of those that it is about: they may be gone when it is looked at.
    names: Box<[(NodeId, Arc<str>)]>,
}

impl Recorded {
    /// What the node was called.
    #[must_use]
    pub fn name(&self, id: NodeId) -> &str {
        let named = self.names.iter().find(|(known, _)| *known == id);
        named.map_or("", |(_, name)| name)
    }
}

/// The last [`KEPT`] events, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Ring {
    last: Mutex<VecDeque<Recorded>>,
    /// By kind, and by the reason of a refused failover.
    counts: Mutex<(Counts, Counts)>,
}

type Counts = BTreeMap<&'static str, u64>;

impl Ring {
    /// Logs the event and keeps it, with the names of nodes by these views.
    pub(super) fn record(&self, event: Event, views: [&View; 2]) {
        let names = concerned(event).filter_map(|id| {
            let node = views.iter().find_map(|view| view.node(id))?;
            Some((id, Arc::clone(&node.name)))
        });
        let mut recorded = Recorded {
            number: 0,
            at: wall_clock(),
            event,
            names: names.collect(),
        };
        log(event, &|id| recorded.name(id));
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.0.entry(event.what.name()).or_default() += 1;
            if let Cause::Refused(why) = event.cause {
                *counts.1.entry(why.name()).or_default() += 1;
            }
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.number = last.back().map_or(0, |r| r.number) + 1;
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(recorded);
    }

    /// How many there were of each kind, and of each reason to refuse a failover.
    pub(super) fn counts(&self) -> [Vec<(&'static str, u64)>; 2] {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |names: &[&'static str], counts: &Counts| {
            let count = |name| counts.get(name).copied().unwrap_or(0);
            names.iter().map(|name| (*name, count(name))).collect()
        };
        [of(&What::NAMES, &counts.0), of(&Refusal::NAMES, &counts.1)]
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "for people to read, never to decide by"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The nodes that an event speaks of.
fn concerned(event: Event) -> impl Iterator<Item = NodeId> {
    let others = match event.what {
        What::Primary { from, to, .. } => [from, to],
        What::Follow { primary, .. } => [Some(primary), None],
        What::Health { .. }
        | What::Withheld { .. }
        | What::Fence { .. }
        | What::Switchover { .. }
        | What::Failover { .. }
        | What::Role { .. }
        | What::Joined
        | What::Leaving
        | What::Left
        | What::Weight { .. }
        | What::Alert(_)
        | What::AlertOver(_) => [None, None],
    };
    [Some(event.node)].into_iter().chain(others).flatten()
}

fn log<'a>(event: Event, name: &dyn Fn(NodeId) -> &'a str) {
    let node = name(event.node);
    let cause = event.cause;
    let lsn = event.lsn.map(tracing::field::display);
    let timeline = event.timeline;
    match event.what {
        What::Health {
            from,
            to: to @ Health::Down,
        } => {
            tracing::warn!(node, ?from, ?to, %cause, lsn, timeline, "health changed");
        }
        What::Health { from, to } => {
            tracing::info!(node, ?from, ?to, %cause, lsn, timeline, "health changed");
        }
        What::Role { from, to } => {
            tracing::info!(node, ?from, ?to, %cause, lsn, timeline, "role changed");
        }
        What::Primary { from, to, epoch } => {
            let lost = to.is_none();
            let (from, to) = (from.map_or("none", name), to.map_or("none", name));
            if lost {
                tracing::warn!(node, from, to, epoch, %cause, lsn, timeline, "primary changed");
            } else {
                tracing::info!(node, from, to, epoch, %cause, lsn, timeline, "primary changed");
            }
        }
        What::Withheld { from: _, to } => {
            let done = if to {
                "new transactions are held"
            } else {
                "new transactions are no longer held"
            };
            tracing::info!(node, held = to, %cause, lsn, timeline, "{done}");
        }
        What::Fence { from, to } => {
            let (from, to) = (from.name(), to.name());
            tracing::info!(node, from, to, %cause, lsn, timeline, "fence changed");
        }
        What::Switchover { from, to } => {
            let (old, new) = (from.name(), to.name());
            match to {
                Phase::Unresolved | Phase::Stuck(_) => {
                    tracing::error!(node, old, new, %cause, lsn, timeline, "switchover");
                }
                Phase::Lifting(_) | Phase::Undone(_) => {
                    tracing::warn!(node, old, new, %cause, lsn, timeline, "switchover");
                }
                _ => tracing::info!(node, old, new, %cause, lsn, timeline, "switchover"),
            }
        }
        What::Failover { from, to } => {
            let (from, to) = (from.name(), to.name());
            match cause {
                Cause::Refused(_) => {
                    tracing::error!(node, from, to, %cause, lsn, timeline, "failover refused");
                }
                _ => tracing::info!(node, from, to, %cause, lsn, timeline, "failover"),
            }
        }
        What::Follow { primary, done } => {
            let primary = name(primary);
            if done {
                tracing::info!(node, primary, %cause, lsn, timeline, "follows the new primary");
            } else {
                tracing::warn!(node, primary, %cause, lsn, timeline, "doesn't follow the new primary");
            }
        }
        What::Joined => tracing::info!(node, %cause, "node joined"),
        What::Leaving => tracing::info!(node, %cause, "node leaves: nothing new is sent there"),
        What::Left => tracing::info!(node, %cause, "node has left"),
        What::Weight { from, to } => tracing::info!(node, from, to, %cause, "weight changed"),
        What::Alert(
            alert @ (Alert::Contested { .. } | Alert::ForeignSystem { .. } | Alert::ReadOnly),
        ) => {
            tracing::error!(node, alert = alert.name(), %cause, lsn, timeline, "{alert}");
        }
        What::Alert(alert) => {
            tracing::warn!(node, alert = alert.name(), %cause, lsn, timeline, "{alert}");
        }
        What::AlertOver(alert) => {
            tracing::info!(node, alert = alert.name(), %cause, lsn, timeline, "no longer: {alert}");
        }
    }
}
