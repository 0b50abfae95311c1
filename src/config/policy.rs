//! What `[routing]` means for routing, whose own types its options have.

use super::{
    settings,
    value::{Raw, Value, not_one_of},
};
use crate::routing::{
    Balance, Consistency, Policy, ReadFallback, RouteOverride, RoutingMode, Transactions,
};

macro_rules! read_as_words {
    ($($name:ty),*) => { $(
        impl Value for $name {
            fn read(raw: &Raw) -> Result<Self, String> {
                raw.text()
                    .and_then(Self::named)
                    .ok_or_else(|| not_one_of(raw, Self::WORDS))
            }

            fn show(&self) -> String {
                format!("{:?}", self.name())
            }
        }
    )* };
}

read_as_words!(
    Balance,
    Consistency,
    ReadFallback,
    RouteOverride,
    RoutingMode,
    Transactions
);

impl From<&settings::Routing> for Policy {
    fn from(from: &settings::Routing) -> Self {
        Self {
            consistency: from.consistency,
            track_tables: from.track_tables,
            balance: from.balance,
            max_lag: from.max_lag,
            max_lag_bytes: from.max_lag_bytes,
            lag_tolerance: from.lag_tolerance,
            wait_for_replica: from.wait_for_replica,
            mode: from.mode,
            read_fallback: from.read_fallback,
            zone: from.zone.clone(),
            route: from.route,
            transactions: from.transactions,
        }
    }
}
