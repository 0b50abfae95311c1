//! What an operator or a session wants of routing.

use std::{sync::Arc, time::Duration};

/// Choices, and the word for each in the configuration, in SET and in SHOW.
macro_rules! choices {
    ($(
        $(#[$about:meta])*
        $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )* }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
        }

        impl $name {
            /// The words, in order.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The word for it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }

            /// What the word means, if it is one of [`Self::WORDS`].
            #[must_use]
            pub fn named(word: &str) -> Option<Self> {
                match word {
                    $( $word => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    )* };
}

choices! {
    /// `routing.consistency`, `pgsplit.consistency`.
    Consistency {
        /// Any replica within the lag limits.
        Eventual = "eventual",
        /// A session sees what it has written and what it has seen before.
        Session = "session",
        /// And what any session of this proxy has written.
        Global = "global",
    }

    /// `routing.balance`.
    Balance {
        /// Those within `lag_tolerance` of the least lagged; among them the least busy.
        LeastLag = "least_lag",
        LeastConnections = "least_connections",
        RoundRobin = "round_robin",
        Random = "random",
    }

    /// `routing.mode`.
    RoutingMode {
        Split = "split",
        /// Replicas only by opt-in.
        Primary = "primary",
        /// All to the primary, counting what would have gone to a replica.
        Shadow = "shadow",
    }

    /// `routing.read_fallback`: what a read does when no replica may serve it.
    ReadFallback {
        Primary = "primary",
        Error = "error",
    }

    /// `routing.route`, `pgsplit.route`.
    RouteOverride {
        Auto = "auto",
        Primary = "primary",
        Replica = "replica",
    }

    /// `routing.transactions`, `pgsplit.transactions`: where a transaction begins that may write.
    Transactions {
        Primary = "primary",
        /// On a replica, until a statement isn't a read.
        Optimistic = "optimistic",
    }
}

/// `[routing]`, with a database's and a user's overrides applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub consistency: Consistency,
    /// A read waits for the writes that concern its tables, not for all.
    pub track_tables: bool,
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
    pub transactions: Transactions,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            consistency: Consistency::Session,
            track_tables: true,
            balance: Balance::LeastLag,
            max_lag: Duration::from_secs(10),
            max_lag_bytes: 64 << 20,
            lag_tolerance: Duration::from_millis(100),
            wait_for_replica: Duration::ZERO,
            mode: RoutingMode::Split,
            read_fallback: ReadFallback::Primary,
            zone: "".into(),
            route: RouteOverride::Auto,
            transactions: Transactions::Primary,
        }
    }
}
