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

/// The node may serve.
pub(super) fn is_fit(node: NodeId, ask: &Ask<'_>, policy: &Policy, view: &View) -> bool {
    let node = view.nodes.iter().find(|known| known.id == node);
    node.is_some_and(|node| matches!(fitness(node, ask, policy, view), Fitness::Fit))
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
    at_least.set_min_lsn(ask.must_see.own.min_lsn());
    let seen = [
        Some(if consistency == Consistency::Eventual {
            &at_least
        } else {
            &ask.must_see.own
        }),
        (consistency == Consistency::Global).then_some(&ask.must_see.written),
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
        _ if ask.must_see.own.min_lsn().is_some() => false,
        Consistency::Eventual => true,
        Consistency::Session => !recent(&ask.must_see.own),
        Consistency::Global => !recent(&ask.must_see.own) && !recent(&ask.must_see.written),
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

/// How soon it is a node's turn: smaller is better.
type Suit = u64;

fn suit(
    node: &NodeView,
    policy: &Policy,
    in_flight: &impl Fn(NodeId) -> u32,
    random: Random,
) -> Suit {
    let weight = u64::from(node.weight.max(1));
    // A number of its own for each node and choice, below 2^24: among equals each is the least as
    // often.
    let turn = (random.0 ^ (u32::from(node.id.0) + 1).wrapping_mul(0x9E37_79B9))
        .wrapping_mul(0x85EB_CA6B)
        >> 8;
    match policy.balance {
        // Between one request more and none: decides among equally loaded ones only, where all
        // weigh the same, and sends the lighter ones their part where there is little to do.
        Balance::LeastLag | Balance::LeastConnections => {
            ((u64::from(in_flight(node.id)) << 24) + u64::from(turn)) / weight
        }
        Balance::RoundRobin | Balance::Random => exponential(turn) / weight,
    }
}

/// From a number below 2^24, evenly distributed, one that is distributed exponentially (in parts of
/// 2^32): of several, each divided by its weight, each is the least as often as its weight says.
/// Between powers of two the logarithm is taken for straight.
fn exponential(turn: u32) -> u64 {
    // In (0, 1], with 24 bits behind the point.
    let part = turn + 1;
    let halvings = 24 - part.ilog2();
    let beyond = (u64::from(part) << halvings).saturating_sub(1 << 24);
    (u64::from(halvings) << 32).saturating_sub(beyond << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of two nodes of these weights is chosen in 10,000 tries while so many
    /// requests are in flight there.
    fn shares(balance: Balance, weights: [u32; 2], in_flight: [u32; 2]) -> [usize; 2] {
        let policy = Policy {
            balance,
            ..Policy::default()
        };
        let nodes = [0, 1].map(|n| NodeView {
            weight: weights[n],
            ..NodeView::new(NodeId(n as u16), "pg".into())
        });
        let mut chosen = [0; 2];
        for draw in 0..10_000_u32 {
            let random = Random(draw.wrapping_mul(0x9E37_79B1));
            let [a, b] = [&nodes[0], &nodes[1]]
                .map(|node| suit(node, &policy, &|id| in_flight[id.index()], random));
            chosen[usize::from(b < a)] += 1;
        }
        chosen
    }

    #[test]
    fn each_node_serves_by_its_weight() {
        use Balance::*;
        let table = [
            (Random, [100, 100], [0, 9], 48..=52),
            (Random, [100, 10], [0, 0], 7..=11),
            (RoundRobin, [100, 300], [0, 0], 72..=78),
            (LeastConnections, [100, 100], [0, 0], 48..=52),
            (LeastConnections, [100, 100], [0, 1], 0..=0),
            (LeastLag, [100, 100], [1, 0], 100..=100),
            (LeastLag, [100, 10], [0, 0], 4..=6),
            (LeastLag, [100, 10], [9, 1], 0..=0),
            (LeastLag, [100, 10], [15, 1], 50..=60),
            (LeastLag, [100, 10], [20, 1], 100..=100),
        ];
        for (balance, weights, in_flight, expected) in table {
            let [_, second] = shares(balance, weights, in_flight);
            let percent = second / 100;
            assert!(
                expected.contains(&percent),
                "{balance:?} {weights:?} {in_flight:?}: {percent} %"
            );
        }
    }
}
