//! Where a request goes: statement class + session + cluster view → [`Route`].
//!
//! One pure function, [`route`]; the reason inside the route is the log field, the metric label,
//! what `explain` prints and what tests assert.
//!
//! **Invariant**: unsure means primary. A replica is chosen only for a text that is proven to be a
//! read (or that a hint vouches for), and only one that is up, within the lag limits and has
//! replayed what the session must see.

mod balance;
mod policy;
mod reason;

use std::time::{Duration, Instant};

pub use balance::Random;
pub use policy::{
    Balance, Consistency, Policy, ReadFallback, RouteOverride, RoutingMode, Transactions,
};
pub use reason::Reason;

use crate::{
    cluster::{NodeId, Seen, View},
    session::{Own, demand::Needs},
    sql::{Access, Begin, Class, Hint, Isolation, Traits, Why},
};

/// A decision, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Route {
    pub target: Target,
    pub reason: Reason,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Whichever node is the primary when a connection is taken.
    Primary,
    Replica(NodeId),
}

impl Route {
    /// A read that belongs on a replica runs on the primary, since none can serve it.
    #[must_use]
    pub fn is_fallback(self) -> bool {
        self.target == Target::Primary
            && matches!(
                self.reason,
                Reason::Watermark
                    | Reason::Lag
                    | Reason::NoReplica
                    | Reason::Retry
                    | Reason::RecoveryConflict
            )
    }

    fn primary(reason: Reason) -> Self {
        Self {
            target: Target::Primary,
            reason,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub class: Class,
    /// The modes of the transaction that this request opens, if it opens one.
    pub begin: Option<Begin>,
    /// What the request needs of the transaction's server, if it opens one or is part of one that may
    /// go on elsewhere.
    pub needs: Option<Needs>,
    /// The session's default for transactions: `default_transaction_read_only`.
    pub read_only_session: bool,
    /// The session's default for transactions: `default_transaction_isolation`, where it has set it.
    pub isolation: Option<Isolation>,
    /// The request ends in a Flush, or is passed on in parts.
    pub unfinished: Option<Reason>,
    /// The statement conflicted with recovery lately.
    pub leaning: bool,
    pub own: &'a Own,
    pub must_see: &'a MustSee,
    /// Nodes that have failed this request already.
    pub avoid: &'a [NodeId],
    pub now: Instant,
}

/// What the answer to a request must show of the tables that it reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct MustSee {
    /// The session's own.
    pub own: Seen,
    /// What any session has written, for [`Consistency::Global`].
    pub written: Seen,
}

/// Decides. `in_flight` tells how many requests a node is serving.
pub fn route(
    ask: &Ask<'_>,
    policy: &Policy,
    view: &View,
    in_flight: impl Fn(NodeId) -> u32,
    random: Random,
) -> Route {
    let reason = match wish(ask, policy) {
        Wish::Primary(reason) => return Route::primary(reason),
        Wish::Replica(reason) => reason,
    };
    if policy.mode == RoutingMode::Shadow {
        return Route::primary(Reason::Shadow);
    }
    balance::choose(ask, policy, view, in_flight, random, reason)
}

/// Whether a request that may go on elsewhere is still served well by the replica that its
/// transaction is on.
#[must_use]
pub fn stays(ask: &Ask<'_>, policy: &Policy, view: &View, node: NodeId) -> bool {
    matches!(wish(ask, policy), Wish::Replica(_)) && balance::is_fit(node, ask, policy, view)
}

/// What the request and the settings want, whatever the cluster's state.
enum Wish {
    Primary(Reason),
    Replica(Reason),
}

fn wish(ask: &Ask<'_>, policy: &Policy) -> Wish {
    let class = ask.class;
    if let Some(reason) = ask.unfinished {
        return Wish::Primary(reason);
    }
    if class.hint == Some(Hint::Primary) {
        return Wish::Primary(Reason::Hint);
    }
    let transaction = match ask.transaction(policy) {
        Ok(reason) => reason,
        Err(reason) => return Wish::Primary(reason),
    };
    let hinted = class.hint == Some(Hint::Replica);
    let reason = match class.access {
        Access::Read => transaction.unwrap_or(Reason::Read),
        Access::Anywhere if class.traits.has(Traits::PURE_READ) => {
            transaction.unwrap_or(Reason::Read)
        }
        // Settings that a function makes are made again wherever the transaction goes.
        Access::Primary(Why::Function) if ask.needs == Some(Needs::Repeatable) => {
            transaction.unwrap_or(Reason::Read)
        }
        Access::Anywhere => return Wish::Primary(Reason::Statement(Why::Session)),
        Access::Primary(why) if hinted && may_be_vouched_for(why) => Reason::Hint,
        Access::Primary(why) => return Wish::Primary(Reason::Statement(why)),
    };
    if ask.leaning {
        return Wish::Primary(Reason::RecoveryConflict);
    }
    if hinted {
        return Wish::Replica(Reason::Hint);
    }
    match (ask.own.route.unwrap_or(policy.route), policy.mode) {
        (RouteOverride::Primary, _) => Wish::Primary(Reason::Override),
        (RouteOverride::Replica, _) => Wish::Replica(Reason::Override),
        (RouteOverride::Auto, RoutingMode::Primary) => Wish::Primary(Reason::Mode),
        (RouteOverride::Auto, RoutingMode::Split | RoutingMode::Shadow) => Wish::Replica(reason),
    }
}

/// A hint may vouch for what couldn't be proven, never for what is known to write.
pub(crate) fn may_be_vouched_for(why: Why) -> bool {
    match why {
        Why::Function
        | Why::UnknownFunction
        | Why::View
        | Why::NodeLocal
        | Why::UnknownRelation
        | Why::Unparsable
        | Why::TooLong
        | Why::NoCatalogue => true,
        Why::Write
        | Why::Ddl
        | Why::Utility
        | Why::Procedure
        | Why::RowLock
        | Why::Into
        | Why::Session
        | Why::Transaction
        | Why::Recovery
        | Why::Hint => false,
    }
}

impl Ask<'_> {
    /// The transaction that the request opens or is in, if it does: why a replica may serve it, or why
    /// not.
    fn transaction(&self, policy: &Policy) -> Result<Option<Reason>, Reason> {
        let Some(modes) = self.begin else {
            return Ok(None);
        };
        match modes.isolation.or(self.isolation) {
            None | Some(Isolation::ReadUncommitted | Isolation::ReadCommitted) => {}
            // Statements of one snapshot can't move to the primary when one of them belongs there.
            Some(Isolation::RepeatableRead | Isolation::Serializable) => {
                return Err(Reason::Transaction);
            }
        }
        if modes.read_only.unwrap_or(self.read_only_session) {
            return Ok(Some(Reason::ReadOnlyTransaction));
        }
        if self.own.transactions.unwrap_or(policy.transactions) == Transactions::Primary {
            return Err(Reason::Transaction);
        }
        match self.needs {
            Some(Needs::Nothing | Needs::Repeatable) => Ok(Some(Reason::OptimisticTransaction)),
            Some(Needs::Time) => Err(Reason::TransactionTime),
            Some(Needs::Server | Needs::Write | Needs::Primary) | None => Err(Reason::Transaction),
        }
    }

    fn consistency(&self, policy: &Policy) -> Consistency {
        self.own.consistency.unwrap_or(policy.consistency)
    }

    fn max_lag(&self, policy: &Policy) -> Duration {
        self.own
            .max_lag
            .as_deref()
            .copied()
            .unwrap_or(policy.max_lag)
    }
}
