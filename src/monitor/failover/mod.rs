//! Makes another node the primary: a planned switchover, or a failover when the primary is lost.
//!
//! What is to be done and when is decided by pure machines ([`crate::cluster::Switchover`],
//! [`crate::cluster::FailoverWatch`], [`crate::cluster::choose`]); here it is carried out, over
//! connections of its own as `failover.user`.
//!
//! **Invariants.** One operation at a time. The old primary is withheld, so that no new transaction
//! of ours goes there, from before the first change until another node is the primary or the
//! operation has surely been undone. An operation that was begun goes on when whoever asked for it
//! leaves. Every wait has a deadline.

mod conninfo;
mod hand;
mod promote;
mod switchover;

use std::sync::{Arc, Weak};

use tokio::{
    sync::MutexGuard,
    time::{Duration, Instant, sleep_until, timeout, timeout_at},
};

use super::{Monitor, connection::Problem};
use crate::{
    cluster::{Act, Cause, Event, FailoverWatch, Lsn, NodeId, Refusal, Stand, What},
    config::settings::{self, FailoverMode},
};

/// What an operation has to know of the clients, and of the settings in force.
pub trait Traffic: Send + Sync {
    /// How many clients have something running on the node, or are about to.
    fn busy(&self, node: NodeId) -> usize;
    /// `[failover]` at this moment.
    fn failover(&self) -> settings::Failover;
}

/// For logging in before something is begun.
const LOGIN: Duration = Duration::from_secs(5);
/// From the order to promote until the view has the new primary.
const PROMOTE: Duration = Duration::from_secs(30);

impl Monitor {
    /// Makes a replica the primary, without an error to anybody. What was done; or why not, or not
    /// wholly. Cancel safe: what was begun goes on.
    ///
    /// # Errors
    /// For people.
    pub async fn switchover(
        self: &Arc<Self>,
        to: NodeId,
        traffic: Arc<dyn Traffic>,
    ) -> Result<String, String> {
        let monitor = Arc::clone(self);
        let task = self.tracker.spawn_on(
            async move {
                let _alone = monitor.alone().await?;
                Box::pin(switchover::run(&monitor, to, &*traffic)).await
            },
            &self.runtime,
        );
        task.await
            .unwrap_or_else(|_ended| Err("ended early".to_owned()))
    }

    /// Promotes a replica in the place of a lost primary: the wanted one, or else the most advanced.
    /// `forced`: whatever may be lost. Cancel safe: what was begun goes on.
    ///
    /// # Errors
    /// For people.
    pub async fn fail_over(
        self: &Arc<Self>,
        wanted: Option<NodeId>,
        forced: bool,
        traffic: Arc<dyn Traffic>,
    ) -> Result<String, String> {
        let monitor = Arc::clone(self);
        let task = self.tracker.spawn_on(
            async move {
                let _alone = monitor.alone().await?;
                let order = promote::Order { wanted, forced };
                let by = traffic.failover();
                let decided = promote::choose(&monitor, &by, order).await;
                match decided {
                    Ok(chosen) => Box::pin(promote::carry_out(&monitor, &by, chosen)).await,
                    Err(refusal) => {
                        let node = wanted.or(monitor.incumbent()).unwrap_or(NodeId(0));
                        let what = What::Failover {
                            from: Stand::Deciding,
                            to: Stand::Watching,
                        };
                        monitor.note(node, what, Cause::Refused(refusal), None);
                        Err(refusal.to_string())
                    }
                }
            },
            &self.runtime,
        );
        task.await
            .unwrap_or_else(|_ended| Err("ended early".to_owned()))
    }

    /// Begins to watch over the primary, for `failover.mode = "promote"`.
    pub fn watch_over(self: &Arc<Self>, traffic: Weak<dyn Traffic>) {
        let stop = self.stop.clone();
        let watch = watch(Arc::downgrade(self), traffic);
        self.tracker.spawn_on(
            async move { stop.run_until_cancelled(watch).await },
            &self.runtime,
        );
    }

    /// The right to change the primary, on the premise that it is the one that it was at this call.
    async fn alone(&self) -> Result<MutexGuard<'_, ()>, String> {
        let epoch = self.view().epoch;
        // Whether to fail over may just be being decided.
        let Ok(alone) = timeout(LOGIN, self.operation.lock()).await else {
            return Err("a switchover or failover is going on already".to_owned());
        };
        if self.view().epoch != epoch {
            return Err(
                "the primary has just become another one: look at `pgsplit status` before ordering it again"
                    .to_owned(),
            );
        }
        Ok(alone)
    }

    fn incumbent(&self) -> Option<NodeId> {
        self.cluster().incumbent().map(|(node, _)| node)
    }

    /// Records what an operation did.
    fn note(&self, node: NodeId, what: What, cause: Cause, lsn: Option<Lsn>) {
        let view = self.view_full();
        let at = view.node(node);
        let event = Event {
            node,
            what,
            cause,
            lsn: lsn.or(at.and_then(|n| n.position()).map(|p| p.lsn)),
            timeline: at.and_then(|n| n.timeline),
        };
        let view = self.view();
        self.events.record(event, [&view, &view]);
    }

    fn withhold(&self, node: NodeId, on: bool, cause: Cause) {
        self.apply(|cluster, _| cluster.withhold(node, on, cause));
    }

    /// Waits until the view has `node` as the primary. False: not by then.
    async fn is_primary(&self, node: NodeId, deadline: Instant) -> bool {
        let mut ticks = self.subscribe();
        loop {
            if self.view().primary == Some(node) {
                return true;
            }
            // The sample shows that the role has changed, and a probe follows at once.
            self.want_sample(node);
            let next = deadline.min(Instant::now() + Duration::from_millis(20));
            let _ticked = timeout_at(next, ticks.changed()).await;
            if Instant::now() >= deadline {
                return self.view().primary == Some(node);
            }
        }
    }
}

/// Promotes a replica whenever the settings say so and the primary is lost. Until dropped.
async fn watch(monitor: Weak<Monitor>, traffic: Weak<dyn Traffic>) {
    let mut watch = FailoverWatch::default();
    let mut told: Option<&'static str> = None;
    let began = Instant::now();
    loop {
        let (Some(monitor), Some(traffic)) = (monitor.upgrade(), traffic.upgrade()) else {
            return;
        };
        let mut ticks = monitor.subscribe();
        let by = traffic.failover();
        let before = watch.stand();
        let incumbent = monitor.cluster().incumbent();
        let lost = by.mode == FailoverMode::Promote && incumbent.is_some_and(|(_, lost)| lost);
        let act = watch.look(Instant::now().into_std(), lost, by.confirm);
        let node = incumbent.map_or(NodeId(0), |(node, _)| node);
        let stand =
            |to, cause| monitor.note(node, What::Failover { from: before, to }, cause, None);
        if incumbent.is_none()
            && by.mode == FailoverMode::Promote
            && began.elapsed() > by.confirm.max(LOGIN)
            && told.is_none()
        {
            // Nothing can be done, and whoever waits for it should know.
            told = Some(Refusal::NoPrimarySeen.name());
            stand(Stand::Watching, Cause::Refused(Refusal::NoPrimarySeen));
        }
        match (before, watch.stand()) {
            (Stand::Watching, to @ Stand::Confirming) => stand(to, Cause::Failover),
            (Stand::Confirming | Stand::Resting, to @ Stand::Watching) => {
                told = None;
                stand(to, Cause::Probe);
            }
            _ => {}
        }
        match act {
            Act::Decide => {
                let outcome = decide(&monitor, &by, &mut watch).await;
                let now = Instant::now().into_std();
                watch.ended(now, outcome.is_ok());
                let to = watch.stand();
                match outcome {
                    Ok(()) => told = None,
                    // Once for each reason, not with every attempt.
                    Err(refusal) if told != Some(refusal.name()) => {
                        told = Some(refusal.name());
                        let what = What::Failover {
                            from: Stand::Deciding,
                            to,
                        };
                        monitor.note(node, what, Cause::Refused(refusal), None);
                    }
                    Err(_) => {}
                }
            }
            Act::WaitUntil(until) => {
                drop((monitor, traffic));
                tokio::select! {
                    () = sleep_until(until.into()) => {}
                    changed = ticks.changed() => if changed.is_err() { return },
                }
            }
            Act::Wait => {
                drop((monitor, traffic));
                if ticks.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn decide(
    monitor: &Arc<Monitor>,
    by: &settings::Failover,
    watch: &mut FailoverWatch,
) -> Result<(), Refusal> {
    // Somebody is at it already.
    let Ok(_alone) = monitor.operation.try_lock() else {
        return Err(Refusal::NotPromoted);
    };
    let order = promote::Order {
        wanted: None,
        forced: false,
    };
    let chosen = promote::choose(monitor, by, order).await?;
    watch.promoting();
    match Box::pin(promote::carry_out(monitor, by, chosen)).await {
        Ok(done) => {
            tracing::info!("{done}");
            Ok(())
        }
        Err(problem) => {
            tracing::error!(problem, "failover not carried out");
            Err(Refusal::NotPromoted)
        }
    }
}

/// A problem with where it occurred.
fn at(node: &str) -> impl Fn(Problem) -> String {
    move |problem| format!("{node}: {}", problem.text)
}
