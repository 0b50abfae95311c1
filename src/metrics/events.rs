//! The newest events that an operator would ask about.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Start, stop, pause, resume, reload.
    Process,
    /// A node came, went or changed its health.
    Node,
    /// The primary changed, or is missing.
    Failover,
    /// A second primary was fenced off.
    Fencing,
    /// An operator's command.
    Operator,
}

impl EventKind {
    /// The fixed name shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Node => "node",
            Self::Failover => "failover",
            Self::Fencing => "fencing",
            Self::Operator => "operator",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Instant,
    pub kind: EventKind,
    pub message: String,
}

/// The newest [`Events::KEPT`] events; older ones are forgotten (the log has them).
#[derive(Debug, Default)]
pub struct Events(Mutex<VecDeque<Event>>);

impl Events {
    /// How many are kept.
    pub const KEPT: usize = 500;

    /// Adds one.
    pub fn push(&self, now: Instant, kind: EventKind, message: impl Into<String>) {
        let event = Event {
            at: now,
            kind,
            message: message.into(),
        };
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= Self::KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// All that are kept, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_newest_are_kept() {
        let now = tokio::time::Instant::now().into_std();
        let events = Events::default();
        for number in 0..Events::KEPT + 3 {
            events.push(now, EventKind::Node, number.to_string());
        }
        let list = events.list();
        assert_eq!(list.len(), Events::KEPT);
        assert_eq!(list[0].message, "3");
    }
}
