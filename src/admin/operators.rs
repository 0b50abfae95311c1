//! What operators did at the console: part of SHOW EVENTS.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::metrics::inspect::EventRow;

/// Commands kept; the log has the older ones.
const KEPT: usize = 200;

/// The newest commands that changed something, or tried to.
#[derive(Debug, Default)]
pub(super) struct Operators(Mutex<VecDeque<EventRow>>);

impl Operators {
    pub(super) fn push(&self, at: SystemTime, message: String) {
        let event = EventRow {
            at,
            kind: "operator",
            node: None,
            from: None,
            to: None,
            cause: "operator".to_owned(),
            lsn: None,
            timeline: None,
            message,
        };
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// All that are kept, oldest first.
    pub(super) fn list(&self) -> Vec<EventRow> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let operators = Operators::default();
        for number in 0..KEPT + 3 {
            operators.push(SystemTime::UNIX_EPOCH, number.to_string());
        }
        let list = operators.list();
        assert_eq!(list.len(), KEPT);
        assert_eq!(list[0].message, "3");
    }
}
