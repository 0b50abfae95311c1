//! A monitor for tests: nobody watches, the test says what is heard.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Monitor, catalogue::CatalogueSlot};
use crate::{
    cluster::{Cluster, Event, Failure, NodeId},
    config::settings,
    sql::catalogue::Catalogue,
};

impl Monitor {
    /// Watches nothing, and keeps only the catalogue of `database`, which nobody loads.
    pub(crate) fn scripted(
        nodes: &[settings::Node],
        settings: &settings::Monitor,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        database: &str,
    ) -> Arc<Self> {
        let monitor = Self::new(nodes, settings, tracker, stop);
        let slot = Arc::new(CatalogueSlot::new(database));
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
        self.nodes.get(node.index())?.take_failure()
    }

    /// Whether a newer position of a node was asked for since the last time.
    pub(crate) fn sample_was_wanted(&self, node: NodeId) -> bool {
        self.nodes
            .get(node.index())
            .is_some_and(super::NodeHandle::take_sample_wish)
    }
}
