//! A planned change of primary: from one node to a replica of it that has everything.
//!
//! The machine says what is to be done next ([`Step`]) and is told how that went ([`News`]). From
//! its beginning to its end the old primary is withheld: no new transaction is sent there.
//!
//! | state        | waits until                           | done           | failed, or too late    |
//! |--------------|---------------------------------------|----------------|------------------------|
//! | draining     | our transactions there have ended     | fencing        | undone                 |
//! | fencing      | nobody can write there any more       | catching up    | lifting                |
//! | catching up  | the replica has replayed its last LSN | checking       | lifting                |
//! | checking     | nothing was written there meanwhile   | promoting, or catching up again | lifting |
//! | promoting    | the replica says that it is a primary | switched       | surely not begun: lifting; else unresolved |
//! | lifting      | writing is possible there again       | undone         | stuck                  |
//!
//! Invariants: every state but the ends has a deadline, so that an end is always reached. A
//! promotion is begun only while the fence is up and once the replica has all that was written. The
//! fence is never lifted once a promotion may have begun. In the ends that leave a fence on a node
//! that may still be the primary (unresolved, stuck) the node stays withheld: writing there would
//! be refused at best, lost at worst. News that a state doesn't wait for change nothing.

use std::time::{Duration, Instant};

use super::Lsn;

/// How long the parts may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the beginning to the promotion.
    pub prepare: Duration,
    /// From the order to promote until the replica says that it is a primary.
    pub promote: Duration,
    /// For lifting the fence.
    pub lift: Duration,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Switchover {
    patience: Patience,
    state: Phase,
    until: Instant,
}

/// Where a switchover stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Draining,
    Fencing,
    CatchingUp {
        to: Lsn,
    },
    Checking {
        at: Lsn,
    },
    Promoting {
        at: Lsn,
    },
    Lifting(Setback),
    /// The replica is the primary.
    Switched {
        at: Lsn,
    },
    /// All is as it was.
    Undone(Setback),
    /// Whether the replica will be a primary isn't known; the old one stays fenced and withheld.
    Unresolved,
    /// The fence couldn't be lifted; the old primary stays withheld until it can be.
    Stuck(Setback),
}

/// Why a switchover isn't carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setback {
    /// Transactions didn't end in time.
    Busy,
    /// Somebody could still write to the old primary.
    NotFenced,
    /// The replica didn't replay everything in time.
    Behind,
    /// The replica refused to be promoted.
    NotPromoted,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// None of our transactions runs on the old primary.
    Drained,
    /// Nobody can write there; all that was written is below this LSN.
    Fenced(Lsn),
    /// The replica has replayed up to here.
    Replayed(Lsn),
    /// Nothing was written since the last LSN that was told.
    Quiet,
    /// Something was; all of it is below this LSN.
    Written(Lsn),
    /// The replica says that it is a primary.
    Promoted,
    /// What was to be done failed, and surely had no effect or one that lifting undoes.
    Failed,
    /// Writing is possible again.
    Lifted,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Drain,
    Fence,
    AwaitReplay(Lsn),
    Check,
    Promote,
    Lift,
    End,
}

impl Switchover {
    /// Begins; the first step is [`Step::Drain`].
    #[must_use]
    pub fn new(now: Instant, patience: Patience) -> Self {
        Self {
            patience,
            state: Phase::Draining,
            until: now + patience.prepare,
        }
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state
    }

    /// By when the present state is left in any case.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.until
    }

    /// What the present state waits for.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.state {
            Phase::Draining => Step::Drain,
            Phase::Fencing => Step::Fence,
            Phase::CatchingUp { to } => Step::AwaitReplay(to),
            Phase::Checking { .. } => Step::Check,
            Phase::Promoting { .. } => Step::Promote,
            Phase::Lifting(_) => Step::Lift,
            Phase::Switched { .. } | Phase::Undone(_) | Phase::Unresolved | Phase::Stuck(_) => {
                Step::End
            }
        }
    }

    /// Takes news; true if the state has changed.
    pub fn hear(&mut self, now: Instant, news: News) -> bool {
        let late = news == News::Tick && now >= self.until;
        let failed = late || news == News::Failed;
        let next = match (self.state, news) {
            (Phase::Draining, News::Drained) => Phase::Fencing,
            (Phase::Draining, _) if failed => Phase::Undone(Setback::Busy),
            (Phase::Fencing, News::Fenced(to)) => Phase::CatchingUp { to },
            (Phase::Fencing, _) if failed => Phase::Lifting(Setback::NotFenced),
            (Phase::CatchingUp { to }, News::Replayed(lsn)) if lsn.reached(to) => {
                Phase::Checking { at: to }
            }
            (Phase::CatchingUp { .. }, _) if failed => Phase::Lifting(Setback::Behind),
            (Phase::Checking { at }, News::Quiet) => Phase::Promoting { at },
            (Phase::Checking { .. }, News::Written(to)) => Phase::CatchingUp { to },
            (Phase::Checking { .. }, _) if failed => Phase::Lifting(Setback::NotFenced),
            (Phase::Promoting { at }, News::Promoted) => Phase::Switched { at },
            (Phase::Promoting { .. }, News::Failed) => Phase::Lifting(Setback::NotPromoted),
            (Phase::Promoting { .. }, _) if late => Phase::Unresolved,
            (Phase::Lifting(why), News::Lifted) => Phase::Undone(why),
            // Lifting is tried again until it is late.
            (Phase::Lifting(why), _) if late => Phase::Stuck(why),
            _ => return false,
        };
        match next {
            Phase::Promoting { .. } => self.until = now + self.patience.promote,
            Phase::Lifting(_) => self.until = now + self.patience.lift,
            _ => {}
        }
        self.state = next;
        true
    }
}

impl Phase {
    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Fencing => "fencing",
            Self::CatchingUp { .. } => "catching_up",
            Self::Checking { .. } => "checking",
            Self::Promoting { .. } => "promoting",
            Self::Lifting(_) => "lifting",
            Self::Switched { .. } => "switched",
            Self::Undone(_) => "undone",
            Self::Unresolved => "unresolved",
            Self::Stuck(_) => "stuck",
        }
    }

    /// The old primary may be written to again, or another has taken its place.
    #[must_use]
    pub fn releases(self) -> bool {
        matches!(self, Self::Switched { .. } | Self::Undone(_))
    }
}

impl Setback {
    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NotFenced => "not_fenced",
            Self::Behind => "behind",
            Self::NotPromoted => "not_promoted",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        prepare: Duration::from_secs(5),
        promote: Duration::from_secs(10),
        lift: Duration::from_secs(3),
    };

    fn start() -> (Instant, Switchover) {
        let now = tokio::time::Instant::now().into_std();
        (now, Switchover::new(now, PATIENCE))
    }

    #[test]
    fn a_switchover_waits_for_everything_in_turn() {
        let (now, mut machine) = start();
        let table = [
            (News::Drained, Step::Fence),
            (News::Fenced(Lsn(100)), Step::AwaitReplay(Lsn(100))),
            (News::Replayed(Lsn(99)), Step::AwaitReplay(Lsn(100))),
            (News::Replayed(Lsn(100)), Step::Check),
            (News::Written(Lsn(120)), Step::AwaitReplay(Lsn(120))),
            (News::Replayed(Lsn(130)), Step::Check),
            (News::Quiet, Step::Promote),
            (News::Tick, Step::Promote),
            (News::Promoted, Step::End),
        ];
        for (news, step) in table {
            machine.hear(now, news);
            assert_eq!(machine.step(), step, "{news:?}");
        }
        assert_eq!(machine.phase(), Phase::Switched { at: Lsn(120) });
    }

    #[test]
    fn each_setback_leads_back_or_says_that_it_cannot() {
        let to_check = [
            News::Drained,
            News::Fenced(Lsn(1)),
            News::Replayed(Lsn(1)),
            News::Quiet,
        ];
        let late = PATIENCE.prepare + PATIENCE.promote + PATIENCE.lift;
        for (steps, news, end) in [
            (0, News::Tick, Phase::Undone(Setback::Busy)),
            (1, News::Tick, Phase::Undone(Setback::NotFenced)),
            (1, News::Failed, Phase::Undone(Setback::NotFenced)),
            (2, News::Tick, Phase::Undone(Setback::Behind)),
            (3, News::Failed, Phase::Undone(Setback::NotFenced)),
            (4, News::Failed, Phase::Undone(Setback::NotPromoted)),
            (4, News::Tick, Phase::Unresolved),
        ] {
            let (now, mut machine) = start();
            for news in &to_check[..steps] {
                assert!(machine.hear(now, *news));
            }
            assert!(machine.hear(now + late, news), "{steps} {news:?}");
            let mut stuck = machine.clone();
            machine.hear(now + late, News::Lifted);
            assert_eq!(machine.phase(), end);
            if let Phase::Lifting(why) = stuck.phase() {
                stuck.hear(now + late, News::Failed);
                assert_eq!(stuck.phase(), Phase::Lifting(why), "lifting is tried again");
                stuck.hear(now + 2 * late, News::Tick);
                assert_eq!(stuck.phase(), Phase::Stuck(why));
            }
        }
    }

    fn news() -> impl Strategy<Value = News> {
        let lsn = || (0u64..40).prop_map(Lsn);
        prop_oneof![
            Just(News::Drained),
            lsn().prop_map(News::Fenced),
            lsn().prop_map(News::Replayed),
            Just(News::Quiet),
            lsn().prop_map(News::Written),
            Just(News::Promoted),
            Just(News::Failed),
            Just(News::Lifted),
            Just(News::Tick),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends_and_nothing_is_promoted_or_lifted_at_the_wrong_time(
            story in prop::collection::vec((news(), 0u64..2000), 0..60),
        ) {
            let (mut now, mut machine) = start();
            let (mut fenced, mut promoting, mut missing) = (false, false, None);
            for (news, later) in story {
                now += Duration::from_millis(later);
                let before = machine.phase();
                let changed = machine.hear(now, news);
                prop_assert_eq!(changed, before != machine.phase());
                if before == Phase::Fencing && matches!(news, News::Fenced(_)) {
                    fenced = true;
                }
                match machine.phase() {
                    Phase::CatchingUp { to } => missing = Some(to),
                    Phase::Checking { .. } => missing = None,
                    Phase::Promoting { .. } => {
                        prop_assert!(fenced && missing.is_none());
                        promoting = true;
                    }
                    Phase::Lifting(why) if promoting => prop_assert_eq!(why, Setback::NotPromoted),
                    Phase::Undone(why) => {
                        prop_assert!(!promoting || why == Setback::NotPromoted);
                    }
                    Phase::Unresolved => prop_assert!(promoting && !machine.phase().releases()),
                    Phase::Stuck(_) => prop_assert!(!machine.phase().releases()),
                    _ => {}
                }
            }
            // Time alone brings it to an end.
            for _ in 0..4 {
                now = now.max(machine.deadline());
                machine.hear(now, News::Tick);
            }
            prop_assert_eq!(machine.step(), Step::End);
        }
    }
}
