//! A primary is lost: when another node is promoted in its place, which one, and when none.
//!
//! [`FailoverWatch`] says when to act:
//!
//! | state      | the primary is lost | it is back, or another is | its time has come | told                      |
//! |------------|---------------------|---------------------------|-------------------|---------------------------|
//! | watching   | confirming          | stay                      |                   |                           |
//! | confirming | stay                | watching                  | deciding          |                           |
//! | deciding   | stay                | watching                  |                   | promoting, or resting     |
//! | promoting  | stay                | stay                      |                   | watching, or resting      |
//! | resting    | stay                | watching                  | deciding          |                           |
//!
//! [`choose`] says which node, from what the replicas tell of themselves and of the primary
//! ([`Inquest`]), or why none ([`Refusal`]). It refuses as long as anything speaks for the primary
//! being at work, and where more could be lost than may be.
//!
//! Invariants: nothing is promoted unless the primary was lost without a break for `confirm`; a
//! refused or failed attempt is followed by a rest; a promotion that was begun isn't broken off.
//! Who asks for a certain node, or accepts any loss, is an operator.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{Lsn, NodeId};

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct FailoverWatch {
    stand: Stand,
    /// When `Confirming` and `Resting` end.
    until: Option<Instant>,
}

/// Where a failover stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Watching,
    Confirming,
    Deciding,
    Promoting,
    Resting,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing before there is news of the primary.
    Wait,
    /// Nothing before this moment, or news.
    WaitUntil(Instant),
    /// Ask the replicas, choose, promote; then tell.
    Decide,
}

/// Between two attempts.
const REST: Duration = Duration::from_secs(1);

impl Default for FailoverWatch {
    fn default() -> Self {
        Self {
            stand: Stand::Watching,
            until: None,
        }
    }
}

impl FailoverWatch {
    #[must_use]
    pub fn stand(&self) -> Stand {
        self.stand
    }

    /// Looks at the primary; `lost`: there was one, and it is down.
    pub fn look(&mut self, now: Instant, lost: bool, confirm: Duration) -> Act {
        match (self.stand, lost) {
            (Stand::Promoting, _) => {}
            (_, false) => self.go(Stand::Watching, None),
            (Stand::Watching, true) => self.go(Stand::Confirming, Some(now + confirm)),
            (Stand::Confirming | Stand::Resting, true) if self.until.is_none_or(|u| now >= u) => {
                self.go(Stand::Deciding, None);
            }
            (Stand::Confirming | Stand::Resting | Stand::Deciding, true) => {}
        }
        match (self.stand, self.until) {
            (Stand::Deciding, _) => Act::Decide,
            (Stand::Confirming | Stand::Resting, Some(until)) => Act::WaitUntil(until),
            _ => Act::Wait,
        }
    }

    /// A node was chosen and is being promoted; false unless that was being decided.
    pub fn promoting(&mut self) -> bool {
        let deciding = self.stand == Stand::Deciding;
        if deciding {
            self.go(Stand::Promoting, None);
        }
        deciding
    }

    /// What was begun has ended.
    pub fn ended(&mut self, now: Instant, promoted: bool) {
        match self.stand {
            Stand::Promoting if promoted => self.go(Stand::Watching, None),
            Stand::Promoting | Stand::Deciding => self.go(Stand::Resting, Some(now + REST)),
            Stand::Watching | Stand::Confirming | Stand::Resting => {}
        }
    }

    fn go(&mut self, stand: Stand, until: Option<Instant>) {
        self.stand = stand;
        self.until = until;
    }
}

/// What a replica tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    pub node: NodeId,
    /// All that it has received it can replay; what it has replayed, if that is more.
    pub received: Option<Lsn>,
    /// It is connected to the primary, or can't tell.
    pub hears: bool,
    /// It may be promoted.
    pub eligible: bool,
}

/// What is known when a failover is decided.
#[derive(Clone, Copy, Debug)]
pub struct Inquest<'a> {
    /// Nodes that may be replicas of the lost primary, whether they answer or not.
    pub replicas: usize,
    /// Those that answered.
    pub witnesses: &'a [Witness],
    /// What the primary may have written at most.
    pub written: Option<Lsn>,
    /// `failover.max_loss_bytes`.
    pub max_loss: u64,
    /// The node that an operator asks for.
    pub wanted: Option<NodeId>,
    /// An operator accepts whatever is lost, and answers for the primary being gone.
    pub forced: bool,
}

/// The node to promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    pub received: Lsn,
    /// Bytes of WAL that may be lost at most; `None`: not known (only by force).
    pub loss: Option<u64>,
}

/// Why nothing is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// None was ever seen, so it can't be told what would be lost.
    NoPrimarySeen,
    /// The primary answers.
    PrimaryAnswers,
    /// Replicas are connected to the primary.
    PrimaryHeard { by: u16, of: u16 },
    /// Too few replicas can be asked.
    TooFewAnswer { answer: u16, of: u16 },
    /// No replica may be promoted.
    NoCandidate,
    /// This much may be lost.
    Loss { bytes: u64, limit: u64 },
    /// How much may be lost isn't known.
    LossUnknown,
    /// The replica refused.
    NotPromoted,
    /// Another was told to be the primary, and hasn't said whether it is: there might be two.
    Unresolved,
}

/// See the module's description.
///
/// # Errors
/// Why none is chosen.
pub fn choose(inquest: &Inquest<'_>) -> Result<Candidate, Refusal> {
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let answer = inquest.witnesses.len();
    if !inquest.forced {
        // Half of them will do: of two replicas one may be lost along with the primary.
        if 2 * answer < inquest.replicas {
            return Err(Refusal::TooFewAnswer {
                answer: count(answer),
                of: count(inquest.replicas),
            });
        }
        // Half of them are too many: better no primary for a while than two.
        let hear = inquest.witnesses.iter().filter(|w| w.hears).count();
        if hear > 0 && 2 * hear >= answer {
            return Err(Refusal::PrimaryHeard {
                by: count(hear),
                of: count(answer),
            });
        }
    }
    let best = inquest
        .witnesses
        .iter()
        .filter(|w| w.eligible && inquest.wanted.is_none_or(|wanted| wanted == w.node))
        .filter_map(|w| Some((w.received?, w.node)))
        // Of equals the first.
        .max_by_key(|(received, node)| (*received, std::cmp::Reverse(*node)));
    let (received, node) = best.ok_or(Refusal::NoCandidate)?;
    let most = inquest.witnesses.iter().filter_map(|w| w.received).max();
    let loss = inquest
        .written
        .map(|written| written.max(most.unwrap_or(written)).bytes_since(received));
    match loss {
        _ if inquest.forced => {}
        None => return Err(Refusal::LossUnknown),
        Some(bytes) if bytes > inquest.max_loss => {
            return Err(Refusal::Loss {
                bytes,
                limit: inquest.max_loss,
            });
        }
        Some(_) => {}
    }
    Ok(Candidate {
        node,
        received,
        loss,
    })
}

impl Stand {
    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Confirming => "confirming",
            Self::Deciding => "deciding",
            Self::Promoting => "promoting",
            Self::Resting => "resting",
        }
    }
}

impl Refusal {
    /// All of them, whatever their numbers.
    pub const NAMES: [&str; 9] = [
        "no_primary_seen",
        "primary_answers",
        "primary_heard",
        "too_few_answer",
        "no_candidate",
        "loss",
        "loss_unknown",
        "not_promoted",
        "unresolved",
    ];

    /// The fixed name used in labels, logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPrimarySeen => "no_primary_seen",
            Self::PrimaryAnswers => "primary_answers",
            Self::PrimaryHeard { .. } => "primary_heard",
            Self::TooFewAnswer { .. } => "too_few_answer",
            Self::NoCandidate => "no_candidate",
            Self::Loss { .. } => "loss",
            Self::LossUnknown => "loss_unknown",
            Self::NotPromoted => "not_promoted",
            Self::Unresolved => "unresolved",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrimarySeen => f.write_str(
                "no primary was seen since the start, so it isn't known what would be lost",
            ),
            Self::PrimaryAnswers => f.write_str("the primary answers"),
            Self::PrimaryHeard { by, of } => write!(
                f,
                "{by} of {of} replicas are still connected to the primary, or can't tell: only \
                 pgsplit may have lost it"
            ),
            Self::TooFewAnswer { answer, of } => {
                write!(f, "only {answer} of {of} replicas answer")
            }
            Self::NoCandidate => f.write_str(
                "no replica can be promoted: none is up, of this history and allowed to",
            ),
            Self::Loss { bytes, limit } => write!(
                f,
                "up to {bytes} bytes of WAL could be lost, and failover.max_loss_bytes is {limit}"
            ),
            Self::LossUnknown => f.write_str("it isn't known how much could be lost"),
            Self::NotPromoted => f.write_str("the replica could not be promoted"),
            Self::Unresolved => f.write_str(
                "another node was told to become the primary, and hasn't said whether it is",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIRM: Duration = Duration::from_secs(1);

    fn witness(node: u16, received: u64) -> Witness {
        Witness {
            node: NodeId(node),
            received: Some(Lsn(received)),
            hears: false,
            eligible: true,
        }
    }

    fn inquest(witnesses: &[Witness]) -> Inquest<'_> {
        Inquest {
            replicas: 2,
            witnesses,
            written: Some(Lsn(1000)),
            max_loss: 100,
            wanted: None,
            forced: false,
        }
    }

    #[test]
    fn the_most_advanced_replica_is_chosen_or_the_reason_is_told() {
        let hears = |w| Witness { hears: true, ..w };
        let barred = |w| Witness {
            eligible: false,
            ..w
        };
        let mute = Witness {
            received: None,
            ..witness(1, 0)
        };
        let table: [(&str, &[Witness], Result<u16, &str>); 11] = [
            ("one is ahead", &[witness(1, 950), witness(2, 990)], Ok(2)),
            (
                "of equals the first",
                &[witness(1, 950), witness(2, 950)],
                Ok(1),
            ),
            ("the other is lost, too", &[witness(2, 950)], Ok(2)),
            ("nobody answers", &[], Err("too_few_answer")),
            (
                "one of two hears it",
                &[hears(witness(1, 990)), witness(2, 990)],
                Err("primary_heard"),
            ),
            (
                "one of three hears it",
                &[hears(witness(1, 990)), witness(2, 980), witness(3, 980)],
                Ok(1),
            ),
            ("too far behind", &[witness(1, 899)], Err("loss")),
            (
                "behind another that is barred",
                &[barred(witness(1, 1200)), witness(2, 1000)],
                Err("loss"),
            ),
            (
                "the one ahead is barred",
                &[barred(witness(1, 1000)), witness(2, 990)],
                Ok(2),
            ),
            (
                "none may be",
                &[barred(witness(1, 1000))],
                Err("no_candidate"),
            ),
            ("it doesn't say what it has", &[mute], Err("no_candidate")),
        ];
        for (why, witnesses, expected) in table {
            let chosen = choose(&inquest(witnesses));
            let chosen = chosen.map(|c| c.node.0).map_err(Refusal::name);
            assert_eq!(chosen, expected, "{why}");
        }
    }

    #[test]
    fn an_operator_chooses_and_may_accept_any_loss() {
        let witnesses = [witness(1, 990), witness(2, 500)];
        let asked = |wanted, forced, written| {
            choose(&Inquest {
                wanted: Some(NodeId(wanted)),
                forced,
                written,
                ..inquest(&witnesses)
            })
            .map(|c| (c.node.0, c.loss))
            .map_err(Refusal::name)
        };
        let written = Some(Lsn(1000));
        assert_eq!(asked(1, false, written), Ok((1, Some(10))));
        assert_eq!(asked(2, false, written), Err("loss"));
        assert_eq!(asked(2, true, written), Ok((2, Some(500))));
        assert_eq!(asked(2, false, None), Err("loss_unknown"));
        assert_eq!(asked(2, true, None), Ok((2, None)));
        assert_eq!(asked(3, true, written), Err("no_candidate"));
    }

    #[test]
    fn every_name_is_listed() {
        let all = [
            Refusal::NoPrimarySeen,
            Refusal::PrimaryAnswers,
            Refusal::PrimaryHeard { by: 1, of: 2 },
            Refusal::TooFewAnswer { answer: 0, of: 2 },
            Refusal::NoCandidate,
            Refusal::Loss { bytes: 2, limit: 1 },
            Refusal::LossUnknown,
            Refusal::NotPromoted,
            Refusal::Unresolved,
        ];
        assert_eq!(all.map(Refusal::name), Refusal::NAMES);
    }

    proptest! {
        #[test]
        fn nothing_is_decided_before_the_primary_was_lost_for_so_long(
            story in prop::collection::vec((0u64..700, any::<bool>(), 0u8..4), 1..80),
        ) {
            let mut now = tokio::time::Instant::now().into_std();
            let mut watch = FailoverWatch::default();
            let mut lost_since = None;
            let mut rest_from: Option<Instant> = None;
            for (later, lost, told) in story {
                now += Duration::from_millis(later);
                if !lost && watch.stand() != Stand::Promoting {
                    lost_since = None;
                    rest_from = None;
                } else if lost {
                    lost_since.get_or_insert(now);
                }
                let act = watch.look(now, lost, CONFIRM);
                if act == Act::Decide {
                    prop_assert!(lost_since.is_some_and(|since| now >= since + CONFIRM));
                    prop_assert!(rest_from.is_none_or(|from| now >= from + REST));
                    match told {
                        0 => prop_assert!(watch.promoting()),
                        1 => {
                            watch.ended(now, false);
                            prop_assert_eq!(watch.stand(), Stand::Resting);
                            rest_from = Some(now);
                        }
                        _ => {}
                    }
                } else if watch.stand() == Stand::Promoting && told > 1 {
                    watch.ended(now, told == 2);
                    rest_from = (told == 3).then_some(now);
                    if told == 2 {
                        lost_since = None;
                    }
                }
                if let Act::WaitUntil(until) = act {
                    prop_assert!(until > now);
                }
            }
        }

        #[test]
        fn whoever_is_chosen_loses_no_more_than_allowed_and_nobody_vouched(
            all in prop::collection::vec((0u64..2000, any::<bool>(), any::<bool>()), 0..5),
            replicas in 0usize..5,
            max_loss in 0u64..500,
        ) {
            let witnesses: Vec<Witness> = all
                .iter()
                .zip(1..)
                .map(|((received, hears, eligible), node)| Witness {
                    hears: *hears,
                    eligible: *eligible,
                    ..witness(node, *received)
                })
                .collect();
            let inquest = Inquest { replicas, max_loss, ..inquest(&witnesses) };
            if let Ok(chosen) = choose(&inquest) {
                let witness = witnesses.iter().find(|w| w.node == chosen.node).unwrap();
                prop_assert!(witness.eligible);
                prop_assert!(chosen.loss.unwrap() <= max_loss);
                prop_assert!(1000u64.saturating_sub(chosen.received.0) <= max_loss);
                prop_assert!(2 * witnesses.iter().filter(|w| w.hears).count() < witnesses.len());
                prop_assert!(2 * witnesses.len() >= replicas);
            }
        }
    }
}
