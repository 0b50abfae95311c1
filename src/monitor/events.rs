//! Events as an operator meets them: one log line each, and the last ones kept to be shown.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::cluster::{Alert, Event, NodeId, What};

/// Events kept.
const KEPT: usize = 1000;

/// An event and when it happened, by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Counts from 1; a gap in what one sees means that older ones were dropped.
    pub number: u64,
    pub at: SystemTime,
    pub event: Event,
}

/// The last [`KEPT`] events.
#[derive(Debug, Default)]
pub(super) struct Ring {
    last: Mutex<VecDeque<Recorded>>,
}

impl Ring {
    /// Logs the event and keeps it.
    pub(super) fn record<'a>(&self, event: Event, name: &dyn Fn(NodeId) -> &'a str) {
        log(event, name);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let number = last.back().map_or(0, |r| r.number) + 1;
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(Recorded {
            number,
            at: wall_clock(),
            event,
        });
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().copied().collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "for people to read, never to decide by"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn log<'a>(event: Event, name: &dyn Fn(NodeId) -> &'a str) {
    let node = name(event.node);
    let cause = event.cause;
    let lsn = event.lsn.map(tracing::field::display);
    let timeline = event.timeline;
    match event.what {
        What::Health { from, to } => {
            tracing::info!(node, ?from, ?to, %cause, lsn, timeline, "health changed");
        }
        What::Role { from, to } => {
            tracing::info!(node, ?from, ?to, %cause, lsn, timeline, "role changed");
        }
        What::Primary { from, to, epoch } => {
            let (from, to) = (from.map_or("none", name), to.map_or("none", name));
            tracing::info!(node, from, to, epoch, %cause, lsn, timeline, "primary changed");
        }
        What::Alert(alert @ (Alert::Contested { .. } | Alert::ForeignSystem { .. })) => {
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
