//! [`Cluster`]: everything that is known of the nodes, fed by events, looked at as a [`View`].
//!
//! | event             | does                                                                  |
//! |-------------------|-----------------------------------------------------------------------|
//! | `connected`       | what earlier connections said is void; positions begin anew           |
//! | `probe_ok`        | health: good probe; the node's claim, confirmed; a position           |
//! | `sampled`         | a position                                                            |
//! | `probe_failed`    | health: failed probe; the claim is void                               |
//! | `connection_lost` | the same, if it is the present connection                             |
//! | `disturbed`       | health: a query failed; the claim is unconfirmed until the next probe |
//! | `set_maintenance` | health; the node takes part in no election                            |
//! | `withhold`        | the node, a primary, isn't used as one                                |
//! | `join`            | one node more                                                         |
//! | `reconfigure`     | its zone, weight or expected role is another                          |
//! | `leave`           | as in maintenance, for good: what runs there may end                  |
//! | `gone`            | the node is forgotten                                                 |
//!
//! After each of them roles are decided afresh, and what changed is returned as [`Event`]s.
//!
//! Invariants of every view: the primary, if any, is up, has said so on a living connection since
//! the last disturbance, and isn't fenced; the epoch never decreases; a replica whose history may
//! have parted from the primary's has no role.

use std::{sync::Arc, time::Instant};

use super::{
    Alert, Cause, Claim, Event, Expected, Failure, Health, HealthMachine, HealthRules, History,
    Lag, Lsn, NodeId, NodeView, Position, Primacy, Role, Roles, View, What, lag,
};

/// A node as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Arc<str>,
    pub zone: Arc<str>,
    pub weight: u32,
    pub expected: Expected,
}

/// A full answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub claim: Claim,
    pub position: Option<Position>,
    pub received: Option<Lsn>,
    pub replay_paused: bool,
    /// A primary whose configuration makes transactions read-only.
    pub read_only: bool,
    pub version: Option<u32>,
    pub comparable: bool,
}

/// An answer to the question for a position alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub conn: u64,
    pub in_recovery: bool,
    pub position: Option<Position>,
}

/// How soon a node should be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Normal,
    /// Something hangs on it: the node is suspect, or there is no primary.
    Fast,
}

/// What is known of all nodes.
#[derive(Debug)]
pub struct Cluster {
    rules: HealthRules,
    nodes: Vec<Node>,
    roles: Roles,
    primary: Option<NodeId>,
    /// The last primary's positions: what lag is measured by.
    primary_history: History,
    /// What surely was written before the present primary's timeline began.
    fork_floor: Option<Lsn>,
    epoch_start: Option<Lsn>,
    /// Not to be the primary: a switchover or failover from it to another node is going on.
    withheld: Option<NodeId>,
}

/// Whether a node is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Stays,
    Leaves,
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as the node tells them"
)]
struct Node {
    id: NodeId,
    member: Member,
    stay: Stay,
    health: HealthMachine,
    conn: Option<u64>,
    since: Option<Instant>,
    claim: Option<Claim>,
    confirmed: bool,
    history: History,
    /// `history` as views share it.
    positions: Arc<[Position]>,
    /// The last LSN replayed on the present connection, while in recovery.
    replayed: Option<Lsn>,
    received: Option<Lsn>,
    replay_paused: bool,
    read_only: bool,
    version: Option<u32>,
    comparable: bool,
    role: Role,
    alert: Option<Alert>,
}

impl Cluster {
    /// Nothing is known yet of any node.
    #[must_use]
    pub fn new(rules: HealthRules, members: impl IntoIterator<Item = Member>) -> Self {
        Self {
            rules,
            nodes: (0..)
                .map(NodeId)
                .zip(members)
                .map(|(id, member)| Node::new(id, rules, member))
                .collect(),
            roles: Roles::default(),
            primary: None,
            primary_history: History::default(),
            fork_floor: None,
            epoch_start: None,
            withheld: None,
        }
    }

    /// A new connection to the node, `conn`, was begun at `at`. Numbers aren't used twice.
    #[must_use]
    pub fn connected(&mut self, id: NodeId, conn: u64, at: Instant) -> Vec<Event> {
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        node.void();
        node.conn = Some(conn);
        node.since = Some(at);
        self.settle(id, Cause::Probe, None)
    }

    /// A probe was answered; one from another connection than the present is ignored.
    #[must_use]
    pub fn probe_ok(&mut self, now: Instant, id: NodeId, probe: Probe) -> Vec<Event> {
        let no_primary = self.primary.is_none();
        let Some(node) = self
            .node_mut(id)
            .filter(|n| n.conn == Some(probe.claim.conn))
        else {
            return Vec::new();
        };
        let was = node.health.health();
        let wanted =
            no_primary && !probe.claim.in_recovery && node.member.expected != Expected::Replica;
        node.health.good_probe(now, wanted);
        // Insert and replay positions are never mixed. Those of a primary that was lost and is back
        // go on.
        if node.claim.is_none_or(|c| !c.in_recovery) == probe.claim.in_recovery {
            node.forget_positions();
        }
        node.claim = Some(probe.claim.following(node.claim));
        node.confirmed = true;
        node.received = probe.received;
        node.replay_paused = probe.replay_paused;
        node.read_only = probe.read_only;
        node.version = probe.version;
        node.comparable = probe.comparable;
        self.place(id, probe.claim.in_recovery, probe.position);
        self.settle(id, Cause::Probe, Some(was))
    }

    /// A position was sampled. True: the node's role has changed since the last probe, so it
    /// should be probed at once.
    #[must_use]
    pub fn sampled(&mut self, id: NodeId, sample: Sample) -> bool {
        let Some(node) = self.node_mut(id).filter(|n| n.conn == Some(sample.conn)) else {
            return false;
        };
        let Some(claim) = node.claim else {
            return false;
        };
        if claim.in_recovery != sample.in_recovery {
            return true;
        }
        self.place(id, sample.in_recovery, sample.position);
        false
    }

    /// A probe failed: whatever the node's connection said is void.
    #[must_use]
    pub fn probe_failed(&mut self, now: Instant, id: NodeId, failure: Failure) -> Vec<Event> {
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        let was = node.health.health();
        node.health.failed_probe(now, failure);
        node.void();
        self.settle(id, Cause::ProbeFailed(failure), Some(was))
    }

    /// The monitor's connection broke while nothing was asked.
    #[must_use]
    pub fn connection_lost(
        &mut self,
        now: Instant,
        id: NodeId,
        conn: u64,
        failure: Failure,
    ) -> Vec<Event> {
        if self.node_mut(id).is_none_or(|n| n.conn != Some(conn)) {
            return Vec::new();
        }
        self.probe_failed(now, id, failure)
    }

    /// A query's connection to the node failed; the node is to be probed at once.
    #[must_use]
    pub fn disturbed(&mut self, now: Instant, id: NodeId, failure: Failure) -> Vec<Event> {
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        let was = node.health.health();
        node.confirmed = false;
        let _news = node.health.query_failed(now);
        self.settle(id, Cause::QueryFailed(failure), Some(was))
    }

    /// An operator takes the node out, or puts it back.
    #[must_use]
    pub fn set_maintenance(&mut self, id: NodeId, on: bool) -> Vec<Event> {
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        let was = node.health.health();
        node.health.set_maintenance(on || node.stay == Stay::Leaves);
        self.settle(id, Cause::Operator, Some(was))
    }

    /// Keeps everything new from the node while another is to take its place, or no longer. Ends
    /// by itself when another node becomes the primary. One node at a time.
    #[must_use]
    pub fn withhold(&mut self, id: NodeId, on: bool, cause: Cause) -> Vec<Event> {
        let from = self.withheld == Some(id);
        let Some(node) = self.node(id).filter(|_| from != on) else {
            return Vec::new();
        };
        let event = node.event(What::Withheld { from, to: on }, cause);
        self.withheld = on.then_some(id);
        let mut events = vec![event];
        if let Some(node) = self.node_mut(id) {
            // Of a fence that has just been lifted, perhaps: the next probe tells.
            node.read_only = false;
        }
        events.extend(self.settle(id, cause, None));
        events
    }

    /// One node more, of which nothing is known yet. Nothing happens if there is one of that id.
    #[must_use]
    pub fn join(&mut self, id: NodeId, member: Member, cause: Cause) -> Vec<Event> {
        if self.node(id).is_some() {
            return Vec::new();
        }
        self.yield_name(id, &member);
        let node = Node::new(id, self.rules, member);
        let joined = node.event(What::Joined, cause);
        let at = self.nodes.partition_point(|n| n.id.index() < id.index());
        self.nodes.insert(at, node);
        let mut events = vec![joined];
        events.extend(self.settle(id, cause, None));
        events
    }

    /// The last node that was trusted as the primary, and whether it is lost: down, and not taken
    /// out by an operator.
    #[must_use]
    pub fn incumbent(&self) -> Option<(NodeId, bool)> {
        let (id, _) = self.roles.incumbent()?;
        let node = self.node(id)?;
        let lost = self.primary.is_none() && node.health.health() == Health::Down;
        Some((id, lost))
    }

    /// The node is an up-to-date member of this cluster that its settings allow to be a primary.
    #[must_use]
    pub fn may_be_promoted(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| {
            node.role == Role::Replica
                && node.health.health() == Health::Up
                && node.comparable
                && node.member.expected != Expected::Replica
        })
    }

    /// What the last primary may have written at most by `moment`, to judge by its pace.
    #[must_use]
    pub fn written_by(&self, moment: Instant) -> Option<Lsn> {
        self.primary_history.extrapolate(moment)
    }

    /// Its share of the reads.
    #[must_use]
    pub fn weight(&self, id: NodeId) -> Option<u32> {
        self.node(id).map(|n| n.member.weight)
    }

    /// An operator changes its share of the reads.
    #[must_use]
    pub fn set_weight(&mut self, id: NodeId, weight: u32) -> Vec<Event> {
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        let from = std::mem::replace(&mut node.member.weight, weight);
        let to = weight;
        let changed = (from != to).then(|| node.event(What::Weight { from, to }, Cause::Operator));
        changed.into_iter().collect()
    }

    /// Its settings are others, or it is wanted again after all.
    #[must_use]
    pub fn reconfigure(&mut self, id: NodeId, member: Member, cause: Cause) -> Vec<Event> {
        self.yield_name(id, &member);
        let Some(node) = self.node_mut(id) else {
            return Vec::new();
        };
        let was = node.health.health();
        let mut events = Vec::new();
        if node.member.weight != member.weight {
            let (from, to) = (node.member.weight, member.weight);
            events.push(node.event(What::Weight { from, to }, cause));
        }
        node.member = member;
        if std::mem::replace(&mut node.stay, Stay::Stays) == Stay::Leaves {
            node.health.set_maintenance(false);
            events.push(node.event(What::Joined, cause));
        }
        events.extend(self.settle(id, cause, Some(was)));
        events
    }

    /// One that leaves isn't mistaken for its successor of the same name.
    fn yield_name(&mut self, to: NodeId, member: &Member) {
        let others = self.nodes.iter_mut().filter(|n| n.id != to);
        for node in others.filter(|n| n.member.name == member.name) {
            node.member.name = format!("{} (leaving, {})", node.member.name, node.id.0).into();
        }
    }

    /// The node isn't one of ours any more: nothing new is sent there.
    #[must_use]
    pub fn leave(&mut self, id: NodeId, cause: Cause) -> Vec<Event> {
        let Some(node) = self.node_mut(id).filter(|n| n.stay == Stay::Stays) else {
            return Vec::new();
        };
        let was = node.health.health();
        node.stay = Stay::Leaves;
        node.health.set_maintenance(true);
        let mut events = vec![node.event(What::Leaving, cause)];
        events.extend(self.settle(id, cause, Some(was)));
        events
    }

    /// Nothing runs there any more: forgotten, if it was to leave.
    #[must_use]
    pub fn gone(&mut self, id: NodeId, cause: Cause) -> Vec<Event> {
        let Some(at) = self
            .nodes
            .iter()
            .position(|n| n.id == id && n.stay == Stay::Leaves)
        else {
            return Vec::new();
        };
        let node = self.nodes.remove(at);
        let mut events = vec![node.event(What::Left, cause)];
        events.extend(self.settle(id, cause, None));
        events
    }

    /// How soon the node should be asked again.
    #[must_use]
    pub fn pace(&self, id: NodeId) -> Pace {
        match self.node(id).map(|n| n.health.health()) {
            Some(Health::Suspect) => Pace::Fast,
            Some(Health::Up | Health::Down) if self.primary.is_none() => Pace::Fast,
            Some(Health::Up | Health::Down | Health::Maintenance) | None => Pace::Normal,
        }
    }

    /// Replicas that would be of use if only it were known that they follow the primary.
    pub fn detached(&self) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(|n| matches!(n.alert, Some(Alert::Detached { .. })))
            .map(|n| n.id)
    }

    /// What is wrong at present, by node.
    #[must_use]
    pub fn alerts(&self) -> Vec<(NodeId, Alert)> {
        self.nodes
            .iter()
            .filter_map(|n| Some((n.id, n.alert?)))
            .collect()
    }

    /// The cluster at this moment.
    #[must_use]
    pub fn view(&self) -> View {
        let nodes = self.nodes.iter().map(|node| {
            let lag = self.lag(node);
            NodeView {
                id: node.id,
                name: node.member.name.clone(),
                zone: node.member.zone.clone(),
                weight: node.member.weight,
                role: node.role,
                health: node.health.health(),
                timeline: node.claim.and_then(|c| c.timeline),
                since: node.since.filter(|_| node.claim.is_some()),
                positions: node.positions.clone(),
                received: node.received,
                replay_paused: node.replay_paused,
                lag: lag.and_then(|l| l.time),
                lag_bytes: lag.map(|l| l.bytes),
                version: node.version,
                comparable: node.comparable,
                leaving: node.stay == Stay::Leaves,
            }
        });
        View {
            nodes: nodes.collect(),
            primary: self.primary,
            epoch: self.roles.epoch(),
            epoch_start: self.epoch_start,
            withheld: self.withheld,
        }
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|n| n.id == id)
    }

    /// Notes a position, in the primary's history as well if it is the primary's.
    fn place(&mut self, id: NodeId, in_recovery: bool, position: Option<Position>) {
        let is_primary = self.primary == Some(id);
        let Some((node, position)) = self.node_mut(id).zip(position) else {
            return;
        };
        node.history.push(position);
        node.positions = node.history.iter().collect();
        if in_recovery {
            node.replayed = Some(position.lsn);
        } else if is_primary {
            self.primary_history.push(position);
        }
    }

    fn lag(&self, node: &Node) -> Option<Lag> {
        let position = node.history.newest()?;
        match node.role {
            Role::Primary if self.primary == Some(node.id) => Some(Lag {
                time: Some(std::time::Duration::ZERO),
                bytes: 0,
            }),
            Role::Replica if !node.comparable => None,
            Role::Replica if self.roles.incumbent().is_some() => {
                lag(&self.primary_history, position.lsn, position.asked_at)
            }
            Role::Replica => self.lag_among_replicas(position.lsn),
            Role::Primary | Role::Fenced | Role::Unknown => None,
        }
    }

    /// While no primary has ever been seen, the most advanced replica is as good as it gets.
    fn lag_among_replicas(&self, replayed: Lsn) -> Option<Lag> {
        let best = self
            .nodes
            .iter()
            .filter(|n| n.role == Role::Replica)
            .filter_map(|n| Some(n.history.newest()?.lsn))
            .max()?;
        Some(Lag {
            time: replayed.reached(best).then_some(std::time::Duration::ZERO),
            bytes: best.bytes_since(replayed),
        })
    }

    /// Decides roles afresh after `cause` befell `id`, whose health was `was` before.
    fn settle(&mut self, id: NodeId, cause: Cause, was: Option<Health>) -> Vec<Event> {
        let mut events = Vec::new();
        if let (Some(node), Some(from)) = (self.node(id), was) {
            let to = node.health.health();
            if from != to {
                events.push(node.event(What::Health { from, to }, cause));
            }
        }
        let mut standings: Vec<Primacy> = self.nodes.iter().map(Node::primacy).collect();
        for withheld in standings.iter_mut().filter(|s| Some(s.id) == self.withheld) {
            withheld.usable = false;
        }
        let verdict = self.roles.decide(&standings);
        if verdict.changed {
            self.begin_epoch(verdict.primary);
        }
        let attached: Vec<Option<Alert>> = self.nodes.iter().map(|n| self.detachment(n)).collect();
        let decided = verdict.roles.into_iter().zip(verdict.alerts).zip(attached);
        for (node, ((role, alert), detached)) in self.nodes.iter_mut().zip(decided) {
            let (role, alert) = match (role, detached) {
                (Role::Replica, Some(detached)) => (Role::Unknown, Some(detached)),
                (Role::Primary, None) if node.read_only && Some(node.id) != self.withheld => {
                    (Role::Primary, alert.or(Some(Alert::ReadOnly)))
                }
                decided => (decided.0, alert),
            };
            events.extend(node.change(role, alert, cause));
        }
        let from = std::mem::replace(&mut self.primary, verdict.primary);
        if from != self.primary
            && let Some(subject) = self.primary.or(from)
            && let Some(node) = self.node(subject)
        {
            let what = What::Primary {
                from,
                to: self.primary,
                epoch: self.roles.epoch(),
            };
            events.push(node.event(what, cause));
        }
        if let Some(id) = self.withheld.filter(|_| self.primary.is_some()) {
            self.withheld = None;
            let what = What::Withheld {
                from: true,
                to: false,
            };
            events.extend(self.node(id).map(|n| n.event(what, cause)));
        }
        events
    }

    /// A new primary, or the old one on a new timeline.
    fn begin_epoch(&mut self, primary: Option<NodeId>) {
        let Some(node) = primary.and_then(|id| self.nodes.iter().find(|n| n.id == id)) else {
            return;
        };
        // Known only when the promotion happened under the eyes of one connection: else the node
        // may have been rebuilt from something older meanwhile.
        self.fork_floor = node.replayed;
        match self.fork_floor {
            Some(floor) => self.primary_history.keep_until(floor),
            None => self.primary_history.clear(),
        }
        let position = node.history.newest();
        self.epoch_start = position.map(|p| p.lsn);
        if let Some(position) = position {
            self.primary_history.push(position);
        }
    }

    /// Whether what this replica has replayed may not be of the primary's history.
    fn detachment(&self, node: &Node) -> Option<Alert> {
        let (_, primary) = self.roles.incumbent()?;
        let claim = node.claim.filter(|c| c.in_recovery)?;
        if !node.comparable || primary == 0 {
            return None;
        }
        let shared = || {
            // Not beyond where the timelines parted, when last asked.
            self.fork_floor
                .zip(node.replayed)
                .is_some_and(|(floor, lsn)| floor.reached(lsn))
        };
        let follows = match claim.timeline {
            Some(timeline) if timeline < primary => shared(),
            Some(timeline) => timeline == primary,
            // Not told: believed as long as there has been nothing else to follow.
            None => self.roles.epoch() <= 1 || shared(),
        };
        if follows {
            return None;
        }
        Some(Alert::Detached {
            timeline: claim.timeline,
            primary,
        })
    }
}

impl Node {
    fn new(id: NodeId, rules: HealthRules, member: Member) -> Self {
        Self {
            id,
            member,
            stay: Stay::Stays,
            health: HealthMachine::new(rules),
            conn: None,
            since: None,
            claim: None,
            confirmed: false,
            history: History::default(),
            positions: Arc::from([]),
            replayed: None,
            received: None,
            replay_paused: false,
            read_only: false,
            version: None,
            comparable: true,
            role: Role::Unknown,
            alert: None,
        }
    }

    /// Forgets what the connection said. `version` and `comparable` are of the past, but true
    /// enough to be shown. A lost primary's positions stay, since they bound what was seen there:
    /// should it come back with less in its log, [`History`] notices.
    fn void(&mut self) {
        if self.claim.is_some_and(|c| c.in_recovery) {
            self.forget_positions();
        }
        self.conn = None;
        self.since = None;
        self.claim = None;
        self.confirmed = false;
        self.replayed = None;
        self.received = None;
        self.replay_paused = false;
        self.read_only = false;
    }

    fn forget_positions(&mut self) {
        self.history.clear();
        self.positions = Arc::from([]);
    }

    fn primacy(&self) -> Primacy {
        Primacy {
            id: self.id,
            claim: self.claim,
            expected: self.member.expected,
            maintenance: self.health.in_maintenance(),
            asked: self.health.was_asked(),
            usable: self.confirmed && self.health.health() == Health::Up,
        }
    }

    fn change(
        &mut self,
        role: Role,
        alert: Option<Alert>,
        cause: Cause,
    ) -> impl Iterator<Item = Event> + use<> {
        let from = std::mem::replace(&mut self.role, role);
        let before = std::mem::replace(&mut self.alert, alert);
        let role = (from != role).then(|| self.event(What::Role { from, to: role }, cause));
        // A silent node's trouble isn't over, only out of sight.
        let over = before
            .filter(|_| before != alert)
            .map(|a| self.event(What::AlertOver(a), cause));
        let new = alert
            .filter(|_| before != alert)
            .map(|a| self.event(What::Alert(a), cause));
        [role, over, new].into_iter().flatten()
    }

    fn event(&self, what: What, cause: Cause) -> Event {
        Event {
            node: self.id,
            what,
            cause,
            lsn: self.history.newest().map(|p| p.lsn),
            timeline: self.claim.and_then(|c| c.timeline),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Fixture {
        now: Instant,
        cluster: Cluster,
    }

    impl Fixture {
        fn new() -> Self {
            let rules = HealthRules {
                down_after: 2,
                up_after: 3,
            };
            let members = (1..=3).map(|n| Member {
                name: format!("pg{n}").into(),
                zone: "".into(),
                weight: 1,
                expected: Expected::Any,
            });
            Self {
                now: tokio::time::Instant::now().into_std(),
                cluster: Cluster::new(rules, members),
            }
        }

        /// pg1 is the primary, the others follow it.
        fn running() -> Self {
            let mut fixture = Self::new();
            for id in 0..3 {
                fixture.connect(id, 1);
                fixture.probe(id, 1, id != 0, Some(1), 1000);
            }
            fixture
        }

        fn connect(&mut self, id: u16, conn: u64) {
            self.now += Duration::from_millis(1);
            let _ = self.cluster.connected(NodeId(id), conn, self.now);
        }

        fn probe(
            &mut self,
            id: u16,
            conn: u64,
            in_recovery: bool,
            timeline: Option<u32>,
            lsn: u64,
        ) -> Vec<Event> {
            self.now += Duration::from_millis(1);
            let probe = Probe {
                claim: Claim {
                    conn,
                    in_recovery,
                    timeline,
                    system: Some(7),
                },
                position: Some(Position::exact(self.now, Lsn(lsn))),
                received: None,
                replay_paused: false,
                read_only: false,
                version: Some(150_000),
                comparable: true,
            };
            self.cluster.probe_ok(self.now, NodeId(id), probe)
        }

        fn role(&self, id: u16) -> Role {
            self.cluster.view().node(NodeId(id)).unwrap().role
        }

        fn primary(&self) -> Option<u16> {
            self.cluster.view().primary.map(|id| id.0)
        }
    }

    #[test]
    fn a_disturbed_primary_gets_no_writes_until_it_was_asked_again() {
        let mut f = Fixture::running();
        assert_eq!(f.primary(), Some(0));
        let events = f.cluster.disturbed(f.now, NodeId(0), Failure::Closed);
        assert_eq!((f.primary(), f.role(0)), (None, Role::Primary));
        assert_eq!(f.cluster.pace(NodeId(1)), Pace::Fast);
        assert_eq!(events.len(), 2, "suspect, and no primary: {events:?}");
        let events = f.probe(0, 1, false, Some(1), 1000);
        assert_eq!((f.primary(), f.cluster.view().epoch), (Some(0), 1));
        assert_eq!(events.len(), 2, "up, and the primary again: {events:?}");
    }

    #[test]
    fn a_role_dies_with_the_connection_that_gave_it() {
        let mut f = Fixture::running();
        let _ = f
            .cluster
            .connection_lost(f.now, NodeId(0), 1, Failure::Closed);
        assert_eq!((f.primary(), f.role(0)), (None, Role::Unknown));
        f.connect(0, 2);
        assert_eq!(f.probe(0, 1, false, Some(1), 1000), [], "a late answer");
        assert_eq!((f.primary(), f.role(0)), (None, Role::Unknown));
        let _ = f
            .cluster
            .connection_lost(f.now, NodeId(0), 1, Failure::Closed);
        f.probe(0, 2, false, Some(1), 1000);
        assert_eq!((f.primary(), f.role(0)), (Some(0), Role::Primary));
    }

    #[test]
    fn what_a_replica_follows_is_remembered_while_its_connection_lives() {
        let mut f = Fixture::running();
        f.probe(1, 1, false, Some(2), 1200);
        assert_eq!(f.primary(), Some(1));
        assert_eq!(f.role(2), Role::Replica, "not beyond the fork");
        f.probe(2, 1, true, Some(1), 1300);
        assert_eq!(f.role(2), Role::Unknown, "of which timeline is that?");
        f.probe(2, 1, true, Some(2), 1300);
        assert_eq!(f.role(2), Role::Replica);
        // Its upstream is lost, and the control file lags behind.
        f.probe(2, 1, true, Some(1), 1300);
        f.probe(2, 1, true, None, 1300);
        assert_eq!(f.role(2), Role::Replica);
        f.connect(2, 2);
        f.probe(2, 2, true, Some(1), 1300);
        assert_eq!(f.role(2), Role::Unknown, "it may have been set up anew");
    }

    #[test]
    fn a_timeline_that_nobody_tells_is_believed_until_there_are_two() {
        let mut f = Fixture::running();
        f.connect(2, 2);
        f.probe(2, 2, true, None, 1000);
        assert_eq!(f.role(2), Role::Replica);
        f.probe(1, 1, false, Some(2), 1200);
        assert_eq!(f.role(2), Role::Replica, "not beyond the fork");
        f.probe(2, 2, true, None, 1300);
        assert_eq!(f.role(2), Role::Unknown);
    }

    #[test]
    fn lag_survives_the_primary_and_its_successor() {
        let mut f = Fixture::running();
        f.probe(0, 1, false, Some(1), 2000);
        f.probe(1, 1, true, Some(1), 2000);
        f.now += Duration::from_secs(100);
        f.probe(0, 1, false, Some(1), 2000);
        f.probe(2, 1, true, Some(1), 1000);
        let lag = |f: &Fixture, id| f.cluster.view().node(NodeId(id)).unwrap().lag;
        let behind = lag(&f, 2).unwrap();
        assert!(behind >= Duration::from_secs(100));
        assert_eq!(lag(&f, 1), Some(Duration::ZERO));
        let _ = f.cluster.probe_failed(f.now, NodeId(0), Failure::Timeout);
        f.now += Duration::from_secs(100);
        f.probe(2, 1, true, Some(1), 1000);
        assert!(
            lag(&f, 2).unwrap() <= behind,
            "nobody grows older without a primary"
        );
        f.probe(1, 1, false, Some(2), 2100);
        f.probe(2, 1, true, Some(2), 2000);
        assert!(lag(&f, 2).unwrap() < behind);
    }

    #[test]
    fn without_any_primary_the_most_advanced_replica_sets_the_mark() {
        let mut f = Fixture::new();
        for (id, lsn) in [(1, 1000), (2, 1100)] {
            f.connect(id, 1);
            f.probe(id, 1, true, Some(1), lsn);
        }
        let _ = f.cluster.probe_failed(f.now, NodeId(0), Failure::Timeout);
        let view = f.cluster.view();
        let lags: Vec<_> = view.nodes.iter().map(|n| (n.lag, n.lag_bytes)).collect();
        let zero = Some(Duration::ZERO);
        assert_eq!(lags, [(None, None), (None, Some(100)), (zero, Some(0))]);
    }

    #[test]
    fn nobody_is_asked_of_a_node_that_does_not_exist() {
        let mut f = Fixture::running();
        assert_eq!(f.probe(3, 1, false, Some(9), 1), []);
        assert_eq!(f.cluster.set_maintenance(NodeId(9), true), []);
        assert_eq!(f.cluster.disturbed(f.now, NodeId(9), Failure::Closed), []);
        assert_eq!(f.cluster.pace(NodeId(9)), Pace::Normal);
    }
}
