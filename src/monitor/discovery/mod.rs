//! Who the nodes are, where that isn't said by the configuration alone: Patroni or DNS is asked, now
//! and then, for as long as the proxy runs.
//!
//! What was found stays until something else is found: silence and nonsense change nothing. Neither
//! source says what a node *is*: roles come from the nodes themselves.

mod dns;
mod patroni;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{Monitor, Wanted};
use crate::{
    cluster::Cause,
    config::settings::{self, Discovery},
};

/// Where the nodes come from.
pub(super) enum Source {
    Patroni(patroni::Patroni),
    Dns(dns::Dns),
}

impl Source {
    /// `None`: the configuration.
    pub(super) fn new(settings: &settings::Failover, timeout: Duration) -> Option<Self> {
        match settings.discovery {
            Discovery::Static => None,
            Discovery::Patroni => Some(Self::Patroni(patroni::Patroni::new(
                &settings.patroni,
                timeout,
            ))),
            Discovery::Dns => Some(Self::Dns(dns::Dns::new(timeout))),
        }
    }

    /// Who the nodes are now. `configured`: the nodes of the configuration.
    async fn find(&mut self, configured: &[settings::Node]) -> Result<Vec<Wanted>, String> {
        match self {
            Self::Patroni(patroni) => patroni.find(configured).await,
            Self::Dns(dns) => dns.find(configured).await,
        }
    }
}

/// Asks for ever. A change of `configured` is looked at at once.
pub(super) async fn run(
    monitor: Arc<Monitor>,
    mut source: Source,
    every: Duration,
    mut configured: watch::Receiver<Arc<[settings::Node]>>,
) {
    let mut every = interval(every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_problem = None;
    loop {
        tokio::select! {
            _tick = every.tick() => {}
            changed = configured.changed() => if changed.is_err() { return },
        }
        let nodes = Arc::clone(&configured.borrow_and_update());
        let problem = match source.find(&nodes).await {
            Ok(wanted) => monitor
                .set_nodes(&wanted, Cause::Discovery)
                .err()
                .map(|error| error.to_string()),
            Err(problem) => Some(problem),
        };
        if problem != last_problem {
            match &problem {
                Some(problem) => tracing::warn!(
                    "who the nodes are could not be found out, and stays as it was: {problem}"
                ),
                None => tracing::info!("who the nodes are can be found out again"),
            }
            last_problem = problem;
        }
    }
}

/// The nodes that Patroni lists now, or those of the configuration where it isn't asked: for
/// commands that look once.
///
/// # Errors
/// No member of Patroni answers.
pub async fn nodes_now(
    settings: &settings::Failover,
    timeout: Duration,
    configured: &[settings::Node],
) -> Result<Vec<settings::Node>, String> {
    match Source::new(settings, timeout) {
        Some(mut source @ Source::Patroni(_)) => {
            let found = source.find(configured).await?;
            Ok(found.into_iter().map(|wanted| wanted.node).collect())
        }
        Some(Source::Dns(_)) | None => Ok(configured.to_vec()),
    }
}
