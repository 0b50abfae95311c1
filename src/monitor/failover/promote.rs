//! Promotes a replica, and makes the others follow it.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    LOGIN, PROMOTE,
    hand::{self, Hand, Testimony},
};
use crate::{
    cluster::{
        self, Candidate, Cause, Health, Inquest, NodeId, Refusal, Role, Setback, Stand, What,
        Witness,
    },
    config::settings,
    monitor::{Monitor, connection::Problem},
};

/// For asking the replicas, all at once.
const INQUEST: Duration = Duration::from_secs(1);
/// For a replica to stream from the new primary.
const FOLLOW: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) wanted: Option<NodeId>,
    pub(super) forced: bool,
}

/// The node to promote, logged in.
pub(super) struct Chosen {
    candidate: Candidate,
    hand: Hand,
}

/// Asks the replicas, and chooses.
pub(super) async fn choose(
    monitor: &Arc<Monitor>,
    by: &settings::Failover,
    order: Order,
) -> Result<Chosen, Refusal> {
    let incumbent = monitor.cluster().incumbent();
    let primary = match incumbent {
        None if !order.forced => return Err(Refusal::NoPrimarySeen),
        Some((_, false)) => return Err(Refusal::PrimaryAnswers),
        None | Some((_, true)) => incumbent.map(|(node, _)| node),
    };
    // Whoever was told already is told again, and nobody else.
    let told = *monitor.told();
    let wanted = match told.filter(|_| !order.forced) {
        Some(told) if order.wanted.is_some_and(|wanted| wanted != told) => {
            return Err(Refusal::Unresolved);
        }
        told => order.wanted.or(told),
    };
    let view = monitor.view_full();
    let may_follow = |id| Some(id) != primary;
    let replicas = view
        .nodes
        .iter()
        .filter(|n| may_follow(n.id) && n.health != Health::Maintenance);
    let mut asked = JoinSet::new();
    for node in replicas.clone().filter(|n| n.role == Role::Replica) {
        let (monitor, by, id) = (Arc::clone(monitor), by.clone(), node.id);
        asked.spawn(async move {
            let deadline = Instant::now() + INQUEST;
            let answer = timeout_at(deadline, async {
                let hand = Hand::open(&monitor, id, &by, deadline).await?;
                let said = hand.testimony().await?;
                Ok::<_, Problem>((hand, said))
            });
            match answer.await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(problem)) => {
                    let node = monitor.name(id);
                    tracing::warn!(
                        %node,
                        problem = problem.text,
                        "can't be asked before a failover"
                    );
                    None
                }
                Err(_elapsed) => None,
            }
        });
    }
    let mut answers: Vec<(Hand, Testimony)> =
        asked.join_all().await.into_iter().flatten().collect();
    let (written, witnesses) = {
        let cluster = monitor.cluster();
        let written = monitor.lost_at().and_then(|at| cluster.written_by(at));
        let witness = |(hand, said): &(Hand, Testimony)| Witness {
            node: hand.node,
            received: said.received,
            hears: said.hears && !follows_another(monitor, hand.node, said, primary),
            eligible: cluster.may_be_promoted(hand.node),
        };
        (written, answers.iter().map(witness).collect::<Vec<_>>())
    };
    let candidate = cluster::choose(&Inquest {
        replicas: replicas.count(),
        witnesses: &witnesses,
        written,
        max_loss: by.max_loss_bytes,
        wanted,
        forced: order.forced,
    });
    let candidate = match (candidate, told) {
        (Err(Refusal::NoCandidate), Some(_)) => return Err(Refusal::Unresolved),
        (candidate, _) => candidate?,
    };
    let place = answers
        .iter()
        .position(|(hand, _)| hand.node == candidate.node);
    let (hand, _) = answers.swap_remove(place.ok_or(Refusal::NoCandidate)?);
    // The primary may have come back while the replicas were asked.
    match monitor.cluster().incumbent() {
        Some((_, false)) => Err(Refusal::PrimaryAnswers),
        None | Some((_, true)) => Ok(Chosen { candidate, hand }),
    }
}

/// Promotes the node that was chosen, and makes the others follow.
pub(super) async fn carry_out(
    monitor: &Arc<Monitor>,
    by: &settings::Failover,
    chosen: Chosen,
) -> Result<String, String> {
    let Chosen { candidate, hand } = chosen;
    let began = Instant::now();
    let deadline = began + PROMOTE;
    let old = monitor.incumbent();
    let name = monitor.name(candidate.node);
    let note = |from, to, cause| {
        let what = What::Failover { from, to };
        monitor.note(candidate.node, what, cause, Some(candidate.received));
    };
    if let Some(old) = old {
        // Should it come back now: nothing is sent there any more.
        monitor.withhold(old, true, Cause::Failover);
    }
    note(Stand::Deciding, Stand::Promoting, Cause::Failover);
    let promoted = timeout_at(deadline, async {
        hand.clear_fence(monitor, by, deadline).await?;
        *monitor.told() = Some(candidate.node);
        order(monitor, by, &hand, deadline).await
    });
    let problem = match promoted.await {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_elapsed) => Some(Problem::new(crate::cluster::Failure::Timeout)),
    };
    if let Some(problem) = &problem
        && matches!(
            problem.failure,
            crate::cluster::Failure::Answer(_) | crate::cluster::Failure::Protocol
        )
    {
        // Surely not begun.
        *monitor.told() = None;
        note(Stand::Promoting, Stand::Resting, Cause::NotDone);
        if let Some(old) = old {
            monitor.withhold(old, false, Cause::Failover);
        }
        return Err(format!("{name} can't be promoted: {}", problem.text));
    }
    let _said = timeout_at(deadline, hand.become_primary()).await;
    if !monitor.is_primary(candidate.node, deadline).await {
        // The old one stays withheld: there may be two of them at any moment.
        note(Stand::Promoting, Stand::Resting, Cause::NotDone);
        return Err(format!(
            "{name} was told to become the primary and hasn't said that it is{}",
            problem.map_or_else(String::new, |problem| format!(": {}", problem.text))
        ));
    }
    note(Stand::Promoting, Stand::Watching, Cause::Failover);
    let took = began.elapsed().as_millis();
    let mut text = format!(
        "{name} is the primary, promoted within {took} ms at {}",
        candidate.received
    );
    text.push_str(&match candidate.loss {
        Some(bytes) => format!("; at most {bytes} bytes of WAL are lost"),
        None => "; it isn't known what is lost".to_owned(),
    });
    text.push_str(&follow(monitor, by, hand, old.unwrap_or(candidate.node)).await);
    Ok(text)
}

/// Orders the promotion: by SQL, or by the program that the settings name.
pub(super) async fn order(
    monitor: &Monitor,
    by: &settings::Failover,
    hand: &Hand,
    deadline: Instant,
) -> Result<(), Problem> {
    match &by.command {
        None => hand.promote().await,
        Some(command) => {
            let (name, host, port) = place(monitor, hand.node);
            let port = port.to_string();
            let arguments = ["promote", &*name, &host, &port, &name, &host, &port];
            hand::run(command, &arguments, deadline).await
        }
    }
}

/// Makes the other replicas follow the new primary, and where there is a program for that the old
/// primary, too. What came of it, to be added to a report.
pub(super) async fn follow(
    monitor: &Arc<Monitor>,
    by: &settings::Failover,
    primary: Hand,
    old: NodeId,
) -> String {
    let deadline = Instant::now() + FOLLOW;
    let view = monitor.view_full();
    let Some(timeline) = view.node(primary.node).and_then(|n| n.timeline) else {
        return String::new();
    };
    let mut text = String::new();
    let to = primary.node;
    let others = view.nodes.iter().filter(|n| {
        // Where the timeline that it follows isn't told its role isn't known for a while.
        let replica = matches!(n.role, Role::Replica | Role::Unknown) && n.since.is_some();
        let takes_part = n.id != to && n.health != Health::Maintenance;
        takes_part && (n.id != old && replica || by.command.is_some())
    });
    let primary = Arc::new(primary);
    let mut followers = JoinSet::new();
    for node in others {
        let (monitor, by, primary) = (Arc::clone(monitor), by.clone(), Arc::clone(&primary));
        let id = node.id;
        followers.spawn(async move {
            let (to, host, port) = place(&monitor, primary.node);
            let done = timeout_at(deadline, async {
                if let Some(command) = &by.command {
                    let (name, its_host, its_port) = place(&monitor, id);
                    let (its_port, port) = (its_port.to_string(), port.to_string());
                    let arguments = ["follow", &name, &its_host, &its_port, &to, &host, &port];
                    return hand::run(command, &arguments, deadline).await;
                }
                let hand = Hand::open(&monitor, id, &by, deadline).await?;
                let said = hand.testimony().await?;
                if follows_another(&monitor, id, &said, Some(old)) {
                    // What it streams from follows, and it with that.
                    return hand.streams(timeline).await;
                }
                hand.follow(&primary, (&host, port), timeline).await
            });
            let problem = match done.await {
                Ok(Ok(())) => None,
                Ok(Err(problem)) => Some(problem.text),
                Err(_elapsed) => Some("it doesn't stream in time".to_owned()),
            };
            (id, problem)
        });
    }
    let mut outcomes = followers.join_all().await;
    outcomes.sort_by_key(|(id, _)| *id);
    for (id, problem) in outcomes {
        let done = problem.is_none();
        let what = What::Follow { primary: to, done };
        let cause = if done {
            Cause::Failover
        } else {
            Cause::NotDone
        };
        monitor.note(id, what, cause, None);
        let name = monitor.name(id);
        text.push_str(&match problem {
            None => format!("; {name} follows"),
            Some(problem) => format!("; {name} doesn't follow: {problem}"),
        });
    }
    if old != to && by.command.is_none() {
        let name = monitor.name(old);
        text.push_str(&format!(
            "; {name} doesn't follow by itself: rewind or rebuild it as a replica"
        ));
    }
    text
}

/// A replica streams from another node than the primary that was: from one of the others, named
/// there as it is in our settings.
fn follows_another(
    monitor: &Monitor,
    node: NodeId,
    said: &Testimony,
    primary: Option<NodeId>,
) -> bool {
    let Some((from, at)) = &said.from else {
        return false;
    };
    let view = monitor.view();
    let mut others = view.nodes.iter().filter(|n| n.id != node);
    others.any(|other| {
        let (_, host, port) = place(monitor, other.id);
        Some(other.id) != primary && host == *from && port == *at
    })
}

/// The old primary's fence is lifted once it is a replica: should it be promoted again by somebody
/// else, it must take writes.
pub(super) fn unfence_once_replica(monitor: &Arc<Monitor>, by: settings::Failover, node: NodeId) {
    let (stop, this) = (monitor.stop.clone(), Arc::clone(monitor));
    let task = async move {
        let mut ticks = this.subscribe();
        while ticks.changed().await.is_ok() {
            let role = this.view().node(node).map(|n| n.role);
            match role {
                Some(Role::Primary) | None => return,
                Some(Role::Replica) => {}
                Some(Role::Fenced | Role::Unknown) => continue,
            }
            let deadline = Instant::now() + LOGIN;
            let cleared = timeout_at(deadline, async {
                let hand = Hand::open(&this, node, &by, deadline).await?;
                hand.clear_fence(&this, &by, deadline).await
            });
            if let Ok(Ok(_)) = cleared.await {
                return;
            }
            sleep(LOGIN).await;
        }
    };
    monitor.tracker.spawn_on(
        async move { stop.run_until_cancelled(task).await },
        &monitor.runtime,
    );
}

/// Why a switchover was undone, in words.
pub(super) fn words(why: Setback, limit: Duration) -> String {
    let limit = format!(
        "within failover.switchover_timeout ({} ms)",
        limit.as_millis()
    );
    match why {
        Setback::Busy => format!(
            "transactions on it didn't end {limit} (SHOW CLIENTS tells whose they are, KILL ends one)"
        ),
        Setback::NotFenced => format!("it couldn't be kept from being written to {limit}"),
        Setback::Behind => format!("the replica didn't catch up {limit}"),
        Setback::NotPromoted => "the replica refused to be promoted".to_owned(),
    }
}

/// A node's name, host and port.
fn place(monitor: &Monitor, node: NodeId) -> (Arc<str>, String, u16) {
    let watched = monitor.watched(node);
    let (host, port) = watched.map_or_else(Default::default, |watched| {
        let wanted = watched.wanted();
        (wanted.host(), wanted.node.port)
    });
    (monitor.name(node), host, port)
}
