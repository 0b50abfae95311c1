//! What an operator or a session wants of routing.

use std::{sync::Arc, time::Duration};

/// `routing.consistency`, `pgsplit.consistency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Any replica within the lag limits.
    Eventual,
    /// A session sees what it has written and what it has seen before.
    Session,
    /// And what any session of this proxy has written.
    Global,
}

/// `routing.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    LeastLag,
    LeastConnections,
    RoundRobin,
    Random,
}

/// `routing.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutingMode {
    Split,
    /// Replicas only by opt-in.
    Primary,
    /// All to the primary, counting what would have gone to a replica.
    Shadow,
}

/// `routing.read_fallback`: what a read does when no replica may serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadFallback {
    Primary,
    Error,
}

/// `routing.route`, `pgsplit.route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteOverride {
    Auto,
    Primary,
    Replica,
}

/// `[routing]`, with a database's and a user's overrides applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub consistency: Consistency,
    pub balance: Balance,
    pub max_lag: Duration,
    pub max_lag_bytes: u64,
    pub lag_tolerance: Duration,
    pub wait_for_replica: Duration,
    pub mode: RoutingMode,
    pub read_fallback: ReadFallback,
    /// Empty: none preferred.
    pub zone: Arc<str>,
    pub route: RouteOverride,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            consistency: Consistency::Session,
            balance: Balance::LeastLag,
            max_lag: Duration::from_secs(10),
            max_lag_bytes: 64 << 20,
            lag_tolerance: Duration::from_millis(100),
            wait_for_replica: Duration::ZERO,
            mode: RoutingMode::Split,
            read_fallback: ReadFallback::Primary,
            zone: "".into(),
            route: RouteOverride::Auto,
        }
    }
}
