//! A monitor for tests: nobody watches, the test says what is heard.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Monitor, Wanted, catalogue::CatalogueSlot};
use crate::{
    cluster::{Cause, Cluster, Event, Failure, NodeId},
    config::settings,
    net::Dialer,
    sql::catalogue::Catalogue,
};

impl Monitor {
    /// Watches nothing, and keeps only the catalogue of `database`, which nobody loads.
    pub(crate) fn scripted(
        nodes: Vec<(settings::Node, Dialer)>,
        settings: &settings::Monitor,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        database: &str,
    ) -> Arc<Self> {
        let monitor = Self::empty(settings, true, tracker, stop);
        let wanted: Vec<Wanted> = nodes.iter().map(|(n, _)| n.clone().into()).collect();
        let dialer = |wanted: &Wanted| {
            let (_, dialer) = nodes.iter().find(|(node, _)| *node == wanted.node).unwrap();
            Ok(dialer.clone())
        };
        monitor
            .change(&wanted, Cause::Configuration, &dialer)
            .unwrap();
        let slot = Arc::new(CatalogueSlot::new(database, &monitor.catalogues.published));
        let slots = HashMap::from([(database.into(), slot)]);
        monitor.catalogues.slots.store(Arc::new(slots));
        monitor
    }

    /// Something is heard of the nodes.
    pub(crate) fn hears(&self, feed: impl FnOnce(&mut Cluster, Instant) -> Vec<Event>) {
        self.apply(feed);
    }

    /// The catalogue of the database has been loaded.
    pub(crate) fn loaded(self: &Arc<Self>, database: &str, catalogue: Catalogue) {
        if let Some(slot) = self.catalogue_slot(database) {
            slot.publish(catalogue, slot.changes_so_far());
        }
    }

    /// The failure that queries have reported of a node, if any did since the last time.
    pub(crate) fn reported(&self, node: NodeId) -> Option<Failure> {
        self.watched(node)?.take_failure()
    }

    /// Whether a newer position of a node was asked for since the last time.
    pub(crate) fn sample_was_wanted(&self, node: NodeId) -> bool {
        self.watched(node)
            .is_some_and(|node| node.take_sample_wish())
    }
}
