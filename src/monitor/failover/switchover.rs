//! Carries a [`Switchover`] out.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    LOGIN, PROMOTE, Traffic, at,
    hand::{Hand, Mark},
    promote,
};
use crate::{
    cluster::{Cause, Failure, Fence, Lsn, News, NodeId, Patience, Phase, Step, Switchover, What},
    config::settings,
    monitor::{Monitor, connection::Problem},
};

/// For lifting the fence before the old primary stays withheld.
const LIFT: Duration = Duration::from_secs(3);
/// Between two attempts to lift it.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at the clients.
const LOOK: Duration = Duration::from_millis(1);
/// A replica further behind isn't waited for while writes are held.
const BEHIND: u64 = 64 << 20;

struct Drive<'a> {
    monitor: &'a Arc<Monitor>,
    traffic: &'a dyn Traffic,
    by: settings::Failover,
    old: Hand,
    new: Hand,
    machine: Switchover,
    mark: Option<Mark>,
    /// The promotion was ordered.
    ordered: bool,
    fence: Fence,
    /// What went wrong last.
    problem: Option<String>,
}

/// What was done, or why it wasn't.
pub(super) async fn run(
    monitor: &Arc<Monitor>,
    to: NodeId,
    traffic: &dyn Traffic,
) -> Result<String, String> {
    let by = traffic.failover();
    let (old, new) = prepare(monitor, to, &by).await?;
    let from = old.node;
    let patience = Patience {
        prepare: by.switchover_timeout,
        promote: PROMOTE,
        lift: LIFT,
    };
    let began = Instant::now();
    let mut drive = Drive {
        monitor,
        traffic,
        machine: Switchover::new(began.into_std(), patience),
        by,
        old,
        new,
        mark: None,
        ordered: false,
        fence: Fence::Open,
        problem: None,
    };
    monitor.withhold(from, true, Cause::Switchover);
    drive.drive().await;
    let phase = drive.machine.phase();
    if matches!(phase, Phase::Undone(_)) {
        monitor.withhold(from, false, Cause::Switchover);
    }
    let held = began.elapsed().as_millis();
    drive.report(phase, from, to, held).await
}

/// Whatever can be found out before anything is held. The two ends, logged in.
async fn prepare(
    monitor: &Arc<Monitor>,
    to: NodeId,
    by: &settings::Failover,
) -> Result<(Hand, Hand), String> {
    let view = monitor.view_full();
    let from = view.primary.ok_or(
        "there is no primary to switch from: FAILOVER promotes a replica in the place of a lost one",
    )?;
    let (from_name, to_name) = (monitor.name(from), monitor.name(to));
    if from == to {
        return Err(format!("{to_name} is the primary already"));
    }
    if !monitor.cluster().may_be_promoted(to) {
        return Err(format!(
            "{to_name} can't be promoted: it isn't a replica of {from_name} that is up, or its \
             setting \"role\" doesn't allow it"
        ));
    }
    let behind = view.node(to).and_then(|node| node.lag_bytes);
    if behind.is_none_or(|bytes| bytes > BEHIND) {
        return Err(format!("{to_name} is too far behind {from_name}"));
    }
    let deadline = Instant::now() + LOGIN;
    let checked = timeout_at(deadline, async {
        let old = Hand::open(monitor, from, by, deadline).await;
        let old = old.map_err(at(&from_name))?;
        let new = Hand::open(monitor, to, by, deadline).await;
        let new = new.map_err(at(&to_name))?;
        if let Some(why) = old.obstacle().await.map_err(at(&from_name))? {
            return Err(format!("{from_name} can't be fenced: {why}"));
        }
        let by_command = by.command.is_some();
        if let Some(why) = new.shortcoming(by_command).await.map_err(at(&to_name))? {
            return Err(format!("{to_name} can't be promoted: {why}"));
        }
        // It may be fenced from when it was the primary.
        let cleared = new.clear_fence(monitor, by, deadline).await;
        cleared.map_err(at(&to_name))?;
        Ok((old, new))
    });
    checked
        .await
        .map_err(|_elapsed| format!("{from_name} or {to_name} doesn't answer"))?
}

impl Drive<'_> {
    async fn drive(&mut self) {
        loop {
            let deadline = Instant::from(self.machine.deadline());
            let news = match self.machine.step() {
                Step::End => return,
                step => timeout_at(deadline, self.step(step)).await,
            };
            let news = news.unwrap_or(News::Tick);
            let before = self.machine.phase();
            if !self.machine.hear(Instant::now().into_std(), news) {
                continue;
            }
            let after = self.machine.phase();
            if let (Phase::Switched { .. }, _) | (_, News::Fenced(_)) = (after, news) {
                self.problem = None;
            }
            let (cause, lsn) = match after {
                Phase::Lifting(why) | Phase::Undone(why) | Phase::Stuck(why) => {
                    (Cause::Setback(why), None)
                }
                Phase::CatchingUp { to: lsn }
                | Phase::Checking { at: lsn }
                | Phase::Promoting { at: lsn }
                | Phase::Switched { at: lsn } => (Cause::Switchover, Some(lsn)),
                _ => (Cause::Switchover, None),
            };
            let what = What::Switchover {
                from: before,
                to: after,
            };
            self.monitor.note(self.new.node, what, cause, lsn);
        }
    }

    /// Does what the machine waits for. Not cancel safe where a node is changed: the next step
    /// then counts with either.
    async fn step(&mut self, step: Step) -> News {
        let done = match step {
            Step::Drain => {
                while self.traffic.busy(self.old.node) > 0 {
                    sleep(LOOK).await;
                }
                Ok(News::Drained)
            }
            Step::Fence => self.raise().await.map(News::Fenced),
            Step::AwaitReplay(to) => self.new.catch_up(to).await.map(News::Replayed),
            Step::Check => self.check().await,
            Step::Promote => self.promote().await,
            Step::Lift => self.lift().await,
            Step::End => Ok(News::Tick),
        };
        match done {
            Ok(news) => news,
            Err(problem) => {
                self.problem = Some(problem.text);
                if step == Step::Lift {
                    sleep(AGAIN).await;
                }
                News::Failed
            }
        }
    }

    async fn raise(&mut self) -> Result<Lsn, Problem> {
        let deadline = Instant::from(self.machine.deadline());
        self.fenced(Fence::Unknown);
        let moment = self.old.set_fence(true, self.monitor, &self.by, deadline);
        let moment = moment.await?;
        self.old.cut(&moment).await?;
        self.fenced(Fence::Up);
        self.marked().await
    }

    async fn marked(&mut self) -> Result<Lsn, Problem> {
        let mark = self.old.mark().await?;
        self.mark = Some(mark);
        Ok(mark.lsn)
    }

    async fn check(&mut self) -> Result<News, Problem> {
        match self.mark {
            Some(mark) if self.old.is_quiet(mark).await? => Ok(News::Quiet),
            _ => self.marked().await.map(News::Written),
        }
    }

    async fn promote(&mut self) -> Result<News, Problem> {
        let deadline = Instant::from(self.machine.deadline());
        if !self.ordered {
            self.ordered = true;
            *self.monitor.told() = Some(self.new.node);
            let order = promote::order(self.monitor, &self.by, &self.new, deadline);
            match order.await {
                Ok(()) => {}
                // An answer that says no. Whatever else: it may have been begun.
                Err(problem) if refused(&problem) => {
                    *self.monitor.told() = None;
                    return Err(problem);
                }
                Err(problem) => self.problem = Some(problem.text),
            }
        }
        if let Err(problem) = self.new.become_primary().await {
            // The view may still come to know.
            self.problem = Some(problem.text);
        }
        if self.monitor.is_primary(self.new.node, deadline).await {
            Ok(News::Promoted)
        } else {
            Ok(News::Tick)
        }
    }

    async fn lift(&mut self) -> Result<News, Problem> {
        let deadline = Instant::from(self.machine.deadline());
        lift(self.monitor, &self.by, self.old.node, deadline).await?;
        self.fenced(Fence::Open);
        Ok(News::Lifted)
    }

    fn fenced(&mut self, to: Fence) {
        let from = std::mem::replace(&mut self.fence, to);
        let what = What::Fence { from, to };
        self.monitor
            .note(self.old.node, what, Cause::Switchover, None);
    }

    /// What there is to tell; and what is left to be done afterwards.
    async fn report(
        self,
        phase: Phase,
        from: NodeId,
        to: NodeId,
        held: u128,
    ) -> Result<String, String> {
        let (from_name, to_name) = (self.monitor.name(from), self.monitor.name(to));
        let problem = self
            .problem
            .as_deref()
            .map_or_else(String::new, |p| format!(" ({p})"));
        match phase {
            Phase::Switched { at } => {
                let mut text = format!(
                    "{to_name} is the primary instead of {from_name}, from {at} on; writes were held \
                     for {held} ms"
                );
                if let Some(mark) = self.mark
                    && let Ok(Ok(false)) =
                        timeout_at(Instant::now() + LOGIN, self.old.is_quiet(mark)).await
                {
                    let _written = write!(
                        text,
                        "; somebody wrote to {from_name} past its fence at the last moment: that is \
                         lost, look for it there"
                    );
                    tracing::error!(
                        node = &*from_name,
                        "written to past its fence: that is lost"
                    );
                }
                text.push_str(&promote::follow(self.monitor, &self.by, self.new, from).await);
                promote::unfence_once_replica(self.monitor, self.by.clone(), from);
                Ok(text)
            }
            Phase::Undone(why) => Err(format!(
                "undone after {held} ms, {from_name} is the primary as before: {}{problem}",
                promote::words(why, self.by.switchover_timeout)
            )),
            Phase::Unresolved => Err(format!(
                "{to_name} was told to become the primary and hasn't said that it is{problem}; \
                 {from_name} refuses writes and gets none. If {to_name} will not be promoted: on \
                 {from_name} ALTER SYSTEM RESET default_transaction_read_only and reload, then ENABLE \
                 NODE {from_name} here"
            )),
            _ => {
                lift_later(self.monitor, self.by.clone(), from);
                Err(format!(
                    "not done, and {from_name} can't be told to take writes again{problem}; that is \
                     being tried on"
                ))
            }
        }
    }
}

/// The node has answered, and said no.
fn refused(problem: &Problem) -> bool {
    matches!(problem.failure, Failure::Answer(_) | Failure::Protocol)
}

async fn lift(
    monitor: &Monitor,
    by: &settings::Failover,
    node: NodeId,
    deadline: Instant,
) -> Result<(), Problem> {
    // The connection may be what has failed.
    let hand = Hand::open(monitor, node, by, deadline).await?;
    hand.set_fence(false, monitor, by, deadline).await?;
    Ok(())
}

/// Goes on trying to lift the fence, and lets the node be used then.
fn lift_later(monitor: &Arc<Monitor>, by: settings::Failover, node: NodeId) {
    let (stop, this) = (monitor.stop.clone(), Arc::clone(monitor));
    let task = async move {
        // Not once another has taken its place, or an operator has let it go.
        while this.view().withheld == Some(node) {
            let deadline = Instant::now() + LIFT;
            if let Ok(Ok(())) = timeout_at(deadline, lift(&this, &by, node, deadline)).await {
                let what = What::Fence {
                    from: Fence::Unknown,
                    to: Fence::Open,
                };
                this.note(node, what, Cause::Switchover, None);
                this.withhold(node, false, Cause::Switchover);
                return;
            }
            sleep(AGAIN * 5).await;
        }
    };
    monitor.tracker.spawn_on(
        async move { stop.run_until_cancelled(task).await },
        &monitor.runtime,
    );
}
