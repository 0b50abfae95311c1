//! The task that watches one node.
//!
//! It probes, waits until the next probe is due, and probes again. A wait ends early when the
//! connection breaks or a query's failure is reported. Samples are taken meanwhile, as wished.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Monitor, PROBE_GAP, SAMPLE_GAP,
    connection::{Connection, Problem},
    roster::Watched,
};
use crate::cluster::{Failure, Health, NodeId};

/// Watches until dropped.
pub(super) async fn watch(monitor: Arc<Monitor>, node: Arc<Watched>, timeout: Duration) {
    let mut watcher = Watcher {
        monitor,
        id: node.id,
        node,
        timeout,
        connection: None,
        connections: 0,
        sampled_at: None,
        last_problem: None,
    };
    loop {
        let asked_at = Instant::now();
        watcher.probe(asked_at + timeout).await;
        watcher.idle(asked_at).await;
        sleep_until(asked_at + PROBE_GAP).await;
    }
}

struct Watcher {
    monitor: Arc<Monitor>,
    id: NodeId,
    node: Arc<Watched>,
    timeout: Duration,
    connection: Option<Connection>,
    /// Numbers given to connections so far.
    connections: u64,
    sampled_at: Option<Instant>,
    /// The last text logged, so that a node that stays away is not logged with every probe.
    last_problem: Option<String>,
}

impl Watcher {
    async fn probe(&mut self, deadline: Instant) {
        let id = self.id;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                self.connections += 1;
                match self.node.target.open(self.connections, deadline).await {
                    Ok(new) => {
                        let (number, since) = (new.number, new.since.into_std());
                        self.monitor.apply(|c, _| c.connected(id, number, since));
                        none.insert(new)
                    }
                    Err(problem) => return self.failed(problem),
                }
            }
        };
        match connection.probe(deadline).await {
            Ok(probe) => {
                let failed_before = self.last_problem.take().is_some();
                self.monitor.apply(|c, now| c.probe_ok(now, id, probe));
                let view = self.monitor.view();
                if failed_before && view.node(id).is_some_and(|n| n.health == Health::Up) {
                    self.node.has_problem(None);
                }
            }
            Err(problem) => self.failed(problem),
        }
    }

    /// Returns when the next probe is due.
    async fn idle(&mut self, asked_at: Instant) {
        let (monitor, node) = (self.monitor.clone(), self.node.clone());
        loop {
            if let Some(failure) = node.take_failure() {
                let id = self.id;
                return monitor.apply(|c, now| c.disturbed(now, id, failure));
            }
            let due = asked_at + monitor.probe_interval(self.id);
            let sampling = node.sample_is_wanted() && self.connection.is_some();
            let sample_due = self.sampled_at.map_or(asked_at, |at| at + SAMPLE_GAP);
            tokio::select! {
                () = closed(&mut self.connection) => return self.lost(),
                () = node.wake.notified() => {}
                () = sleep_until(due) => return,
                () = sleep_until(sample_due), if sampling => {
                    node.take_sample_wish();
                    if self.sample().await {
                        return;
                    }
                }
            }
        }
    }

    /// True: a probe should follow at once.
    async fn sample(&mut self) -> bool {
        let Some(connection) = &self.connection else {
            return true;
        };
        let now = Instant::now();
        self.sampled_at = Some(now);
        match connection.sample(now + self.timeout).await {
            Ok(None) => false,
            Ok(Some(sample)) => {
                let (id, mut changed) = (self.id, false);
                self.monitor.apply(|c, _| {
                    changed = c.sampled(id, sample);
                    Vec::new()
                });
                changed
            }
            Err(problem) => {
                self.failed(problem);
                true
            }
        }
    }

    fn failed(&mut self, problem: Problem) {
        let id = self.id;
        self.connection = None;
        self.monitor
            .apply(|c, now| c.probe_failed(now, id, problem.failure));
        self.node.has_problem(Some(problem.text.clone()));
        if self.last_problem.as_ref() != Some(&problem.text) {
            let node = self.monitor.name(id);
            tracing::warn!(%node, problem = problem.text, "probe failed");
            self.last_problem = Some(problem.text);
        }
    }

    fn lost(&mut self) {
        if let Some(connection) = self.connection.take() {
            let (id, number) = (self.id, connection.number);
            self.monitor
                .apply(|c, now| c.connection_lost(now, id, number, Failure::Closed));
        }
    }
}

/// Ends when the connection does; never without one. Cancel safe.
async fn closed(connection: &mut Option<Connection>) {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}
