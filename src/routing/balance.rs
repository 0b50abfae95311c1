//! The choice among replicas.

use std::time::Duration;

use super::{Ask, Balance, Consistency, Policy, Reason, Route, Target};
use crate::cluster::{CaughtUp, Health, NodeId, NodeView, Role, Seen, View, caught_up};

/// A random number for one choice; [`super::route`] itself has no randomness.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u32);

/// Why a replica may not serve, the least serious last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unfit {
    Down,
    Lag,
    /// Hasn't replayed what the session must see, as far as is known.
    Behind,
}

pub(super) fn choose(
    ask: &Ask<'_>,
    policy: &Policy,
    view: &View,
    in_flight: impl Fn(NodeId) -> u32,
    random: Random,
    reason: Reason,
) -> Route {
    let mut unfit = Unfit::Down;
    let mut fit = Fit::default();
    let mut least: Option<((bool, bool), Duration)> = None;
    for (place, node) in view.nodes.iter().enumerate() {
        match fitness(node, ask, policy, view) {
            Fitness::Unfit(why) => unfit = unfit.max(why),
            Fitness::Fit => {
                fit.note(place);
                let here = (rank(node, policy), node.lag.unwrap_or_default());
                least = Some(least.map_or(here, |known| known.min(here)));
            }
        }
    }
    // Only those of the best rank count, and of them those that lag about as little as the least.
    let best = least.and_then(|(best_rank, least_lag)| {
        let furthest = match policy.balance {
            Balance::LeastLag => least_lag + policy.lag_tolerance,
            Balance::LeastConnections | Balance::RoundRobin | Balance::Random => Duration::MAX,
        };
        let suits = |node: &NodeView| {
            rank(node, policy) == best_rank && node.lag.unwrap_or_default() <= furthest
        };
        view.nodes
            .iter()
            .enumerate()
            .filter(|(place, node)| {
                let fit = fit
                    .knows(*place)
                    .unwrap_or_else(|| matches!(fitness(node, ask, policy, view), Fitness::Fit));
                fit && suits(node)
            })
            .map(|(_, node)| (suit(node, policy, &in_flight, random), node))
            .min_by_key(|(suit, _)| *suit)
    });
    match best {
        Some((_, node)) => Route {
            target: Target::Replica(node.id),
            reason,
        },
        None => Route {
            target: Target::Primary,
            reason: match unfit {
                Unfit::Down => Reason::NoReplica,
                Unfit::Lag => Reason::Lag,
                Unfit::Behind => Reason::Watermark,
            },
        },
    }
}

/// The nodes that were found fit, by their places. Of nodes beyond the first 64 it knows nothing.
#[derive(Clone, Copy, Default)]
struct Fit(u64);

impl Fit {
    fn note(&mut self, place: usize) {
        if place < 64 {
            self.0 |= 1 << place;
        }
    }

    fn knows(self, place: usize) -> Option<bool> {
        (place < 64).then(|| self.0 >> place & 1 == 1)
    }
}

enum Fitness {
    Fit,
    Unfit(Unfit),
}

fn fitness(node: &NodeView, ask: &Ask<'_>, policy: &Policy, view: &View) -> Fitness {
    if node.role != Role::Replica
        || !matches!(node.health, Health::Up | Health::Suspect)
        || node.weight == 0
        || ask.avoid.contains(&node.id)
    {
        return Fitness::Unfit(Unfit::Down);
    }
    if !node.comparable {
        return without_positions(ask, policy);
    }
    // No answer is "unknown", never "caught up".
    let within = node.lag.is_some_and(|lag| lag <= ask.max_lag(policy))
        && node
            .lag_bytes
            .is_some_and(|bytes| bytes <= policy.max_lag_bytes);
    if !within {
        return Fitness::Unfit(Unfit::Lag);
    }
    let consistency = ask.consistency(policy);
    // What was asked for by position holds whatever else the session is content with.
    let mut at_least = Seen::default();
    at_least.set_min_lsn(ask.seen.min_lsn());
    let seen = [
        Some(if consistency == Consistency::Eventual {
            &at_least
        } else {
            ask.seen
        }),
        (consistency == Consistency::Global).then_some(ask.seen_by_all),
    ];
    for seen in seen.into_iter().flatten() {
        match caught_up(view, node.id, seen) {
            CaughtUp::Yes => {}
            CaughtUp::NotYet | CaughtUp::NeedSample(_) | CaughtUp::Never => {
                return Fitness::Unfit(Unfit::Behind);
            }
        }
    }
    Fitness::Fit
}

/// A server that doesn't give positions as PostgreSQL does: only time can tell. What was written is
/// taken for replayed after the longest lag that is allowed.
fn without_positions(ask: &Ask<'_>, policy: &Policy) -> Fitness {
    let wait = ask.max_lag(policy);
    let recent = |seen: &Seen| {
        seen.primary_at()
            .is_some_and(|at| ask.now.saturating_duration_since(at) < wait)
    };
    let fit = match ask.consistency(policy) {
        _ if ask.seen.min_lsn().is_some() => false,
        Consistency::Eventual => true,
        Consistency::Session => !recent(ask.seen),
        Consistency::Global => !recent(ask.seen) && !recent(ask.seen_by_all),
    };
    if fit {
        Fitness::Fit
    } else {
        Fitness::Unfit(Unfit::Behind)
    }
}

/// Own zone and good health first: smaller is better.
fn rank(node: &NodeView, policy: &Policy) -> (bool, bool) {
    let elsewhere = !policy.zone.is_empty() && node.zone != policy.zone;
    (node.health != Health::Up, elsewhere)
}

/// Load per weight, scaled; then a rotating tie-break: smaller is better.
type Suit = (u64, u32);

fn suit(
    node: &NodeView,
    policy: &Policy,
    in_flight: &impl Fn(NodeId) -> u32,
    random: Random,
) -> Suit {
    const SCALE: u64 = 1 << 16;
    let weight = u64::from(node.weight.max(1));
    // A number of its own for each node and choice: among equals each is the least as often.
    let turn = (random.0 ^ (u32::from(node.id.0) + 1).wrapping_mul(0x9E37_79B9))
        .wrapping_mul(0x85EB_CA6B)
        >> 8;
    match policy.balance {
        Balance::LeastLag | Balance::LeastConnections => {
            (u64::from(in_flight(node.id)) * SCALE / weight, turn)
        }
        // Each node draws its own number; heavier ones draw smaller numbers.
        Balance::RoundRobin | Balance::Random => (u64::from(turn) * SCALE / weight, turn),
    }
}
