//! Whether one node may be used.
//!
//! | state      | good probe               | failed probe             | no answer in time | a query failed           |
//! |------------|--------------------------|--------------------------|-------------------|--------------------------|
//! | new        | up                       | n + 1: down, or stay     | down              | stay                     |
//! | up         | stay                     | suspect 1, or down       | down              | suspect 1, or down       |
//! | suspect n  | up                       | suspect n + 1, or down   | down              | the first since the last probe: as a failed probe; else stay |
//! | down       | good + 1: up, or stay    | good = 0                 | good = 0          | stay                     |
//!
//! "Or down": when `down_after` failures have come together. Up again after `up_after` good probes
//! in a row, twice as many for each time the node fell again within [`FLAP_WINDOW`] of its return,
//! up to [`MAX_PATIENCE`] times. Maintenance lies over this: the state below goes on and shows
//! again when it ends.
//!
//! What is absent: being busy is no event here. Waiting for a pool slot or a slow statement says
//! nothing about a node's health.

use std::time::{Duration, Instant};

use super::{Failure, Health};

/// A node that falls within this time of its return flaps.
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// The most by which flapping multiplies `up_after`.
const MAX_PATIENCE: u32 = 32;

/// `monitor.down_after`, `monitor.up_after`; zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRules {
    pub down_after: u32,
    pub up_after: u32,
}

/// One node's health.
#[derive(Clone, Debug)]
pub struct HealthMachine {
    rules: HealthRules,
    state: State,
    maintenance: bool,
    /// `up_after` is multiplied by this.
    patience: u32,
    /// When it last came up from down.
    returned: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not heard of yet.
    New {
        failures: u32,
    },
    Up,
    Suspect {
        failures: u32,
        /// A query's failure has been counted since the last probe.
        reported: bool,
    },
    Down {
        /// Good probes in a row.
        good: u32,
    },
}

impl HealthMachine {
    /// A node that wasn't asked yet.
    #[must_use]
    pub fn new(rules: HealthRules) -> Self {
        Self {
            rules,
            state: State::New { failures: 0 },
            maintenance: false,
            patience: 1,
            returned: None,
        }
    }

    /// What is to be seen from outside.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.maintenance {
            return Health::Maintenance;
        }
        match self.state {
            State::New { .. } | State::Suspect { .. } => Health::Suspect,
            State::Up => Health::Up,
            State::Down { .. } => Health::Down,
        }
    }

    /// An operator took the node out.
    #[must_use]
    pub fn in_maintenance(&self) -> bool {
        self.maintenance
    }

    /// The node was asked at least once, and answered or failed to.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.state != State::New { failures: 0 }
    }

    /// A probe was answered. `wanted`: nothing else can do this node's work (it says that it is
    /// the primary), so flapping isn't held against it.
    pub fn good_probe(&mut self, now: Instant, wanted: bool) {
        match &mut self.state {
            State::New { .. } | State::Up | State::Suspect { .. } => self.state = State::Up,
            State::Down { good } => {
                *good = good.saturating_add(1);
                let patience = if wanted { 1 } else { self.patience };
                if *good >= self.rules.up_after.saturating_mul(patience) {
                    self.state = State::Up;
                    self.returned = Some(now);
                }
            }
        }
    }

    /// A probe failed, or the monitor's connection.
    pub fn failed_probe(&mut self, now: Instant, failure: Failure) {
        let down_after = match failure {
            // Each further try would cost another `monitor.timeout`.
            Failure::Timeout => 1,
            Failure::Connect | Failure::Closed | Failure::Answer(_) | Failure::Protocol => {
                self.rules.down_after
            }
        };
        let failures = match &mut self.state {
            State::Down { good } => {
                *good = 0;
                return;
            }
            State::New { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < down_after {
                    return;
                }
                *failures
            }
            State::Up => 1,
            State::Suspect { failures, .. } => failures.saturating_add(1),
        };
        self.fail(now, failures, down_after, false);
    }

    /// A query's connection failed. True: this is news, and the node should be asked at once.
    pub fn query_failed(&mut self, now: Instant) -> bool {
        let failures = match self.state {
            State::New { .. } | State::Down { .. } => return false,
            // Many connections break at once when one backend crashes: that is one failure.
            State::Suspect { reported: true, .. } => return true,
            State::Suspect { failures, .. } => failures.saturating_add(1),
            State::Up => 1,
        };
        self.fail(now, failures, self.rules.down_after, true);
        true
    }

    /// An operator takes the node out, or puts it back.
    pub fn set_maintenance(&mut self, on: bool) {
        self.maintenance = on;
    }

    fn fail(&mut self, now: Instant, failures: u32, down_after: u32, reported: bool) {
        if failures < down_after {
            self.state = State::Suspect { failures, reported };
            return;
        }
        self.state = State::Down { good: 0 };
        let flapped = self
            .returned
            .is_some_and(|at| now.saturating_duration_since(at) < FLAP_WINDOW);
        self.patience = if flapped {
            (self.patience * 2).min(MAX_PATIENCE)
        } else {
            1
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: HealthRules = HealthRules {
        down_after: 2,
        up_after: 3,
    };

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[derive(Clone, Copy, Debug)]
    enum E {
        Good,
        Refused,
        Hung,
        Query,
        Out,
        In,
    }

    fn apply(machine: &mut HealthMachine, now: Instant, event: E) {
        match event {
            E::Good => machine.good_probe(now, false),
            E::Refused => machine.failed_probe(now, Failure::Connect),
            E::Hung => machine.failed_probe(now, Failure::Timeout),
            E::Query => {
                let _ = machine.query_failed(now);
            }
            E::Out => machine.set_maintenance(true),
            E::In => machine.set_maintenance(false),
        }
    }

    #[test]
    fn transitions_are_those_of_the_table() {
        use E::*;
        use Health as H;
        let table: &[(&[E], Health)] = &[
            (&[], H::Suspect),
            (&[Query, Query], H::Suspect),
            (&[Good], H::Up),
            (&[Refused], H::Suspect),
            (&[Refused, Refused], H::Down),
            (&[Refused, Good], H::Up),
            (&[Hung], H::Down),
            (&[Good, Refused], H::Suspect),
            (&[Good, Refused, Good], H::Up),
            (&[Good, Refused, Refused], H::Down),
            (&[Good, Hung], H::Down),
            (&[Good, Query], H::Suspect),
            (&[Good, Query, Query, Query], H::Suspect),
            (&[Good, Query, Good], H::Up),
            (&[Good, Query, Refused], H::Down),
            (&[Good, Refused, Query], H::Down),
            (&[Good, Hung, Good, Good], H::Down),
            (&[Good, Hung, Good, Good, Good], H::Up),
            (&[Good, Hung, Good, Good, Refused, Good, Good], H::Down),
            (&[Good, Hung, Good, Query, Good, Good], H::Up),
            (&[Good, Out], H::Maintenance),
            (&[Good, Out, Hung, In], H::Down),
            (&[Good, Out, Hung, Good, Good, Good, In], H::Up),
        ];
        for (events, expected) in table {
            let mut machine = HealthMachine::new(RULES);
            for event in *events {
                apply(&mut machine, start(), *event);
            }
            assert_eq!(machine.health(), *expected, "{events:?}");
        }
    }

    fn good_probes_to_return(machine: &mut HealthMachine, now: Instant, wanted: bool) -> u32 {
        machine.failed_probe(now, Failure::Timeout);
        let mut probes = 0;
        while machine.health() != Health::Up {
            machine.good_probe(now, wanted);
            probes += 1;
        }
        probes
    }

    #[test]
    fn a_node_that_flaps_waits_longer_each_time_until_it_has_been_steady() {
        let mut machine = HealthMachine::new(RULES);
        let mut now = start();
        machine.good_probe(now, false);
        for expected in [3, 6, 12, 24, 48, 96, 96] {
            now += Duration::from_secs(10);
            assert_eq!(good_probes_to_return(&mut machine, now, false), expected);
        }
        now += FLAP_WINDOW;
        assert_eq!(good_probes_to_return(&mut machine, now, false), 3);
    }

    #[test]
    fn flapping_is_not_held_against_the_only_primary() {
        let mut machine = HealthMachine::new(RULES);
        let now = start();
        machine.good_probe(now, false);
        for _ in 0..4 {
            assert_eq!(good_probes_to_return(&mut machine, now, true), 3);
        }
    }

    proptest! {
        #[test]
        fn after_down_it_takes_up_after_good_probes_in_a_row(
            down_after in 0u32..4, up_after in 0u32..5,
            events in prop::collection::vec(
                prop::sample::select(vec![E::Good, E::Refused, E::Hung, E::Query, E::Out, E::In]), 0..200)
        ) {
            let rules = HealthRules { down_after, up_after };
            let mut machine = HealthMachine::new(rules);
            let now = start();
            let (mut was_down, mut good) = (false, 0u32);
            for event in events {
                apply(&mut machine, now, event);
                match event {
                    E::Good => good += 1,
                    E::Refused | E::Hung => good = 0,
                    E::Query | E::Out | E::In => {}
                }
                if matches!(event, E::Hung) {
                    prop_assert!(matches!(machine.health(), Health::Down | Health::Maintenance));
                }
                match machine.health() {
                    Health::Down => was_down = true,
                    Health::Up if was_down => {
                        prop_assert!(good >= up_after);
                        was_down = false;
                    }
                    // Falling and returning can happen unseen under maintenance.
                    Health::Maintenance => was_down = false,
                    Health::Up | Health::Suspect => {}
                }
            }
        }
    }
}
