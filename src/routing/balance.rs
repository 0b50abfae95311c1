//! The choice among replicas.

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
    // Fit ones by how well they suit: own zone before others, up before suspect.
    let mut best: Option<(Suit, &NodeView)> = None;
    let mut least_lag = None;
    for pass in [Pass::LeastLag, Pass::Choice] {
        for node in &view.nodes {
            match fitness(node, ask, policy, view) {
                Fitness::Unfit(why) => unfit = unfit.max(why),
                Fitness::Fit => {
                    let rank = rank(node, policy);
                    let lag = node.lag.unwrap_or_default();
                    match pass {
                        Pass::LeastLag => {
                            if least_lag.is_none_or(|known| (rank, lag) < known) {
                                least_lag = Some((rank, lag));
                            }
                        }
                        Pass::Choice => {
                            let Some((best_rank, least)) = least_lag else {
                                continue;
                            };
                            if rank != best_rank
                                || policy.balance == Balance::LeastLag
                                    && lag > least + policy.lag_tolerance
                            {
                                continue;
                            }
                            let suit = suit(node, policy, &in_flight, random);
                            if best.as_ref().is_none_or(|(known, _)| suit < *known) {
                                best = Some((suit, node));
                            }
                        }
                    }
                }
            }
        }
    }
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    LeastLag,
    Choice,
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
