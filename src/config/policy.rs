//! What `[routing]` means for routing.

use super::settings;
use crate::routing::{Balance, Consistency, Policy, ReadFallback, RouteOverride, RoutingMode};

impl From<&settings::Routing> for Policy {
    fn from(from: &settings::Routing) -> Self {
        Self {
            consistency: match from.consistency {
                settings::Consistency::Eventual => Consistency::Eventual,
                settings::Consistency::Session => Consistency::Session,
                settings::Consistency::Global => Consistency::Global,
            },
            balance: match from.balance {
                settings::Balance::LeastLag => Balance::LeastLag,
                settings::Balance::LeastConnections => Balance::LeastConnections,
                settings::Balance::RoundRobin => Balance::RoundRobin,
                settings::Balance::Random => Balance::Random,
            },
            max_lag: from.max_lag,
            max_lag_bytes: from.max_lag_bytes,
            lag_tolerance: from.lag_tolerance,
            wait_for_replica: from.wait_for_replica,
            mode: match from.mode {
                settings::RoutingMode::Split => RoutingMode::Split,
                settings::RoutingMode::Primary => RoutingMode::Primary,
                settings::RoutingMode::Shadow => RoutingMode::Shadow,
            },
            read_fallback: match from.read_fallback {
                settings::ReadFallback::Primary => ReadFallback::Primary,
                settings::ReadFallback::Error => ReadFallback::Error,
            },
            zone: from.zone.clone(),
            route: match from.route {
                settings::RouteOverride::Auto => RouteOverride::Auto,
                settings::RouteOverride::Primary => RouteOverride::Primary,
                settings::RouteOverride::Replica => RouteOverride::Replica,
            },
        }
    }
}
