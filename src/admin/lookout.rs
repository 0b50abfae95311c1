//! What the console and HTTP look at: the proxy, its counters, and what this side remembers.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    averages::Averages,
    operators::Operators,
    process,
    tables::{self, Show, Table},
    time,
};
use crate::{
    error::{Fault, Visible},
    metrics::{Inspect, Metrics, Scrape},
    protocol::SqlState,
};

/// One proxy, seen from outside.
pub(super) struct Lookout {
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) averages: Averages,
    pub(super) operators: Operators,
}

/// A look at one moment, by both clocks.
pub(super) struct Moment<'a> {
    pub(super) of: &'a Lookout,
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
    /// As the database `pgbouncer`: one row for each database and user in SHOW POOLS, because its
    /// tools take these two for a key.
    pub(super) pgbouncer: bool,
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookout").finish_non_exhaustive()
    }
}

impl Lookout {
    pub(super) fn new(inspect: Arc<dyn Inspect>, metrics: Arc<Metrics>) -> Self {
        Self {
            inspect,
            metrics,
            averages: Averages::default(),
            operators: Operators::default(),
        }
    }

    /// Does work that may take a while (thousands of rows, `/proc`, classification of a long
    /// text) where it holds nobody up: not on the thread of the runtime, which may serve clients.
    pub(super) async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Visible> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|error| {
            tracing::error!(%error, "looking at the proxy failed");
            let message = "internal error: looking at the proxy failed";
            Visible::error(Fault::Proxy, SqlState::INTERNAL_ERROR, message)
        })
    }

    /// Remembers the totals of this moment; call it every [`Averages::EVERY`].
    pub(super) fn sample(&self) {
        let now = tokio::time::Instant::now().into_std();
        self.averages.sample(now, self.inspect.stats());
    }

    /// The table as it is now.
    pub(super) fn table(&self, show: Show, pgbouncer: bool) -> Table {
        let moment = Moment {
            of: self,
            now: tokio::time::Instant::now().into_std(),
            wall: time::wall(),
            pgbouncer,
        };
        tables::table(show, &moment)
    }

    /// All metric families as text.
    pub(super) fn metrics_text(&self) -> Result<String, prometheus::Error> {
        self.metrics.text(&Scrape {
            nodes: self.inspect.nodes(),
            pools: self.inspect.pools(),
            events: self.inspect.event_counts(),
            class_cache: self.inspect.class_cache(),
            process: process::read(),
        })
    }
}
