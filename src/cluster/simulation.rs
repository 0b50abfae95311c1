//! A model of PostgreSQL nodes with real logs, watched by a real [`Cluster`], read by sessions:
//! whatever happens in whatever order, no session misses what it saw before.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
const SESSIONS: usize = 3;
/// Two records fill a page, so that every second one ends at a page's end.
const RECORD: u64 = (8192 - 24) / 2;
const START: u64 = 1000 * 8192;

/// A server. Records are told apart by number; the same LSN may mean different ones elsewhere.
#[derive(Clone, Debug)]
struct Server {
    /// Written or received.
    log: Vec<u32>,
    replayed: usize,
    /// `replayed`, or one more: a record shows its effect before the replay LSN passes it.
    visible: usize,
    in_recovery: bool,
    alive: bool,
    timeline: u32,
    /// As the control file tells.
    noted_timeline: u32,
    /// The timeline on which it was the view's primary.
    elected: u32,
    upstream: usize,
    conn: u64,
    connected: bool,
    asked_at: Option<Instant>,
}

#[derive(Debug, Default, Clone)]
struct Session {
    seen: Seen,
    /// What it has seen, in truth.
    saw: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    ReadPrimary(usize),
    /// A write that was sent to a primary of the past is acknowledged.
    WriteLate(usize, usize),
    ReadReplica(usize, usize),
    OthersWrite(usize),
    Receive(usize),
    BeginReplay(usize),
    EndReplay(usize),
    Ask(usize),
    Answer(usize),
    RestartReplica(usize, usize),
    /// A primary is restarted as a replica.
    Demote(usize, usize),
    Stop(usize),
    Start(usize),
    Promote(usize),
    Follow(usize, usize),
    RestartPoint(usize),
    Disturb(usize),
    Maintenance(usize, bool),
    Withhold(usize, bool),
}

struct World {
    now: Instant,
    cluster: Cluster,
    servers: Vec<Server>,
    sessions: Vec<Session>,
    /// The monitor's user may see what timeline a replica streams.
    privileged: bool,
    next_record: u32,
    served: usize,
    epoch: u64,
    last_primary: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let session = || 0..SESSIONS;
    let step = prop_oneof![
        6 => session().prop_map(Step::Write),
        2 => session().prop_map(Step::ReadPrimary),
        1 => (session(), node()).prop_map(|(s, n)| Step::WriteLate(s, n)),
        16 => (session(), node()).prop_map(|(s, n)| Step::ReadReplica(s, n)),
        2 => node().prop_map(Step::OthersWrite),
        12 => node().prop_map(Step::Receive),
        12 => node().prop_map(Step::BeginReplay),
        12 => node().prop_map(Step::EndReplay),
        14 => node().prop_map(Step::Ask),
        14 => node().prop_map(Step::Answer),
        1 => (node(), 0usize..4).prop_map(|(n, back)| Step::RestartReplica(n, back)),
        1 => (node(), 0usize..4).prop_map(|(n, back)| Step::Demote(n, back)),
        1 => node().prop_map(Step::Stop),
        2 => node().prop_map(Step::Start),
        1 => node().prop_map(Step::Promote),
        2 => (node(), node()).prop_map(|(n, u)| Step::Follow(n, u)),
        1 => node().prop_map(Step::RestartPoint),
        1 => node().prop_map(Step::Disturb),
        1 => (node(), any::<bool>()).prop_map(|(n, on)| Step::Maintenance(n, on)),
        1 => (node(), prop::bool::weighted(0.3)).prop_map(|(n, on)| Step::Withhold(n, on)),
    ];
    prop::collection::vec(step, 100..600)
}

/// The end of the record that makes the log so long: as replay tells it.
fn end(records: usize) -> Lsn {
    let bytes = records as u64 * RECORD;
    let (page, rest) = (bytes / (2 * RECORD), bytes % (2 * RECORD));
    Lsn(START + page * 8192 + if rest == 0 { 0 } else { 24 + rest })
}

/// The same, as the insert position is told: behind the next page's header.
fn insert(records: usize) -> Lsn {
    let end = end(records);
    Lsn(if end.0.is_multiple_of(8192) {
        end.0 + 24
    } else {
        end.0
    })
}

impl World {
    fn new(privileged: bool) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let rules = HealthRules {
            down_after: 2,
            up_after: 2,
        };
        let members = (0..NODES).map(|n| Member {
            name: format!("pg{n}").into(),
            zone: "".into(),
            weight: 1,
            expected: Expected::Any,
        });
        let servers = (0..NODES).map(|n| Server {
            log: vec![0],
            replayed: 1,
            visible: 1,
            in_recovery: n != 0,
            alive: true,
            timeline: 1,
            noted_timeline: 1,
            elected: 0,
            upstream: 0,
            conn: 0,
            connected: false,
            asked_at: None,
        });
        let mut world = Self {
            now,
            cluster: Cluster::new(rules, members),
            servers: servers.collect(),
            sessions: vec![Session::default(); SESSIONS],
            privileged,
            next_record: 1,
            served: 0,
            epoch: 0,
            last_primary: 0,
        };
        for node in 0..NODES {
            world.apply(Step::Ask(node));
            world.apply(Step::Answer(node));
        }
        world
    }

    fn record(&mut self) -> u32 {
        self.next_record += 1;
        self.next_record
    }

    fn lose_connection(&mut self, node: usize) {
        let server = &mut self.servers[node];
        if std::mem::take(&mut server.connected) {
            server.asked_at = None;
            let (conn, id) = (server.conn, NodeId(node as u16));
            let _ = self
                .cluster
                .connection_lost(self.now, id, conn, Failure::Closed);
        }
    }

    fn apply(&mut self, step: Step) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        let view = self.cluster.view();
        match step {
            Step::Write(session) | Step::ReadPrimary(session) => {
                let Some(id) = view.primary else { return };
                let record = self.record();
                let server = &mut self.servers[id.index()];
                if !server.alive || server.in_recovery {
                    return;
                }
                if matches!(step, Step::Write(_)) {
                    server.log.push(record);
                }
                let session = &mut self.sessions[session];
                session.saw = server.log.clone();
                session.seen.on_primary(view.epoch, id, now);
            }
            Step::WriteLate(session, node) => {
                let record = self.record();
                let server = &mut self.servers[node];
                if server.alive && !server.in_recovery && server.elected == server.timeline {
                    server.log.push(record);
                    let session = &mut self.sessions[session];
                    session.saw = server.log.clone();
                    let id = NodeId(node as u16);
                    session.seen.on_primary(view.epoch, id, now);
                }
            }
            Step::ReadReplica(session, node) => self.read_replica(&view, session, node),
            Step::OthersWrite(node) => {
                let record = self.record();
                let server = &mut self.servers[node];
                if server.alive && !server.in_recovery {
                    server.log.push(record);
                }
            }
            Step::Receive(node) => {
                let upstream = self.servers[self.servers[node].upstream].clone();
                let server = &mut self.servers[node];
                if server.alive
                    && server.in_recovery
                    && upstream.alive
                    && upstream.timeline == server.timeline
                    && upstream.log.starts_with(&server.log)
                    && let Some(record) = upstream.log.get(server.log.len())
                {
                    server.log.push(*record);
                }
            }
            Step::BeginReplay(node) => {
                let server = &mut self.servers[node];
                if server.alive && server.in_recovery && server.replayed < server.log.len() {
                    server.visible = server.replayed + 1;
                }
            }
            Step::EndReplay(node) => {
                let server = &mut self.servers[node];
                if server.alive && server.in_recovery {
                    server.replayed = server.visible;
                }
            }
            Step::Ask(node) => {
                let server = &mut self.servers[node];
                if !server.alive {
                    let _ = self
                        .cluster
                        .probe_failed(now, NodeId(node as u16), Failure::Connect);
                    return;
                }
                if !server.connected {
                    server.connected = true;
                    server.conn += 1;
                    let _ = self
                        .cluster
                        .connected(NodeId(node as u16), server.conn, now);
                }
                server.asked_at.get_or_insert(now);
            }
            Step::Answer(node) => self.answer(node),
            Step::RestartReplica(node, back) => {
                let server = &mut self.servers[node];
                if server.alive && server.in_recovery {
                    server.replayed = server.replayed.saturating_sub(back).max(1);
                    server.visible = server.replayed;
                    self.lose_connection(node);
                }
            }
            Step::Demote(node, back) => {
                let server = &mut self.servers[node];
                if server.alive && !server.in_recovery {
                    server.in_recovery = true;
                    server.replayed = server.log.len().saturating_sub(back).max(1);
                    server.visible = server.replayed;
                    server.noted_timeline = server.timeline;
                    self.lose_connection(node);
                }
            }
            Step::Stop(node) => {
                self.servers[node].alive = false;
                self.lose_connection(node);
            }
            Step::Start(node) => self.servers[node].alive = true,
            Step::Promote(node) => {
                let record = self.record();
                let newest = self.servers.iter().map(|s| s.timeline).max().unwrap();
                let server = &mut self.servers[node];
                if server.alive && server.in_recovery && newest < 5 {
                    server.in_recovery = false;
                    server.timeline = newest + 1;
                    server.log.push(record);
                    server.replayed = 0;
                    server.visible = 0;
                }
            }
            Step::Follow(node, upstream) => {
                let other = self.servers[upstream].clone();
                let server = &mut self.servers[node];
                if server.in_recovery
                    && other.timeline >= server.timeline
                    && other.log.starts_with(&server.log)
                {
                    server.upstream = upstream;
                    server.timeline = other.timeline;
                }
            }
            Step::RestartPoint(node) => {
                self.servers[node].noted_timeline = self.servers[node].timeline;
            }
            Step::Disturb(node) => {
                let _ = self
                    .cluster
                    .disturbed(now, NodeId(node as u16), Failure::Closed);
            }
            Step::Maintenance(node, on) => {
                let _ = self.cluster.set_maintenance(NodeId(node as u16), on);
            }
            Step::Withhold(node, on) => {
                let id = NodeId(node as u16);
                let _ = self.cluster.withhold(id, on, Cause::Switchover);
            }
        }
        self.check();
    }

    fn answer(&mut self, node: usize) {
        let server = &mut self.servers[node];
        let Some(asked_at) = server.asked_at.take() else {
            return;
        };
        let position = if !server.in_recovery {
            Position::exact(asked_at, insert(server.log.len()))
        } else if server.replayed == server.log.len() {
            Position::exact(asked_at, end(server.replayed))
        } else {
            Position::replaying(asked_at, end(server.replayed))
        };
        let timeline = if server.in_recovery && !self.privileged {
            server.noted_timeline
        } else {
            server.timeline
        };
        let probe = Probe {
            claim: Claim {
                conn: server.conn,
                in_recovery: server.in_recovery,
                timeline: Some(timeline),
                system: Some(7),
            },
            position: Some(position),
            received: None,
            replay_paused: false,
            read_only: false,
            version: None,
            comparable: true,
        };
        let _ = self.cluster.probe_ok(self.now, NodeId(node as u16), probe);
    }

    fn read_replica(&mut self, view: &View, session: usize, node: usize) {
        let id = NodeId(node as u16);
        let server = &self.servers[node];
        let session = &mut self.sessions[session];
        if !server.alive || caught_up(view, id, &session.seen) != CaughtUp::Yes {
            return;
        }
        let shown = if server.in_recovery {
            &server.log[..server.visible]
        } else {
            &server.log[..]
        };
        // What the present (or else last) primary hasn't is lost to everybody. Without the privilege to see what a
        // replica streams, that it follows a primary which the monitor doesn't know of yet can't be
        // seen either.
        let newest = self.servers.iter().max_by_key(|s| s.timeline);
        let survives = |record: &&u32| {
            self.servers[self.last_primary].log.contains(record)
                && (self.privileged || newest.is_some_and(|s| s.log.contains(record)))
        };
        for record in session.saw.iter().filter(survives) {
            assert!(
                shown.contains(record),
                "record {record} was seen before, but node {node} shows {shown:?} at {:?}",
                view
            );
        }
        self.served += 1;
        session.saw = shown.to_vec();
        session.seen.on_replica(view.epoch, id, self.now, true);
    }

    /// What holds of every view.
    fn check(&mut self) {
        let view = self.cluster.view();
        assert!(view.epoch >= self.epoch, "epochs only grow");
        self.epoch = view.epoch;
        if let Some(primary) = view.primary {
            assert_ne!(view.withheld, Some(primary));
            let node = view.node(primary).unwrap();
            self.last_primary = primary.index();
            self.servers[primary.index()].elected = node.timeline.unwrap();
            assert_eq!((node.role, node.health), (Role::Primary, Health::Up));
            assert!(view.epoch_start.is_some());
            let newer = view.nodes.iter().filter(|n| n.timeline > node.timeline);
            assert!(
                newer.filter(|n| n.health != Health::Maintenance).count() == 0,
                "writes go to the newest timeline: {view:?}"
            );
        }
        let primaries = view.nodes.iter().filter(|n| n.role == Role::Primary);
        assert!(primaries.count() <= 1);
        for node in &view.nodes {
            assert!(node.role == Role::Unknown || node.since.is_some());
            assert!(node.positions.len() <= History::CAPACITY);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_session_misses_what_it_saw_before(privileged in any::<bool>(), steps in steps()) {
        let mut world = World::new(privileged);
        for step in steps {
            world.apply(step);
        }
    }
}

#[test]
fn the_simulation_does_serve_reads_from_replicas() {
    let mut world = World::new(true);
    let mut served = 0;
    for _ in 0..10 {
        let session = 0;
        for step in [
            Step::Write(session),
            Step::Receive(1),
            Step::BeginReplay(1),
            Step::ReadReplica(session, 1),
            Step::Ask(0),
            Step::Answer(0),
            Step::ReadReplica(session, 1),
            Step::EndReplay(1),
            Step::Ask(1),
            Step::Answer(1),
            Step::ReadReplica(session, 1),
        ] {
            world.apply(step);
        }
        served += 1;
        assert_eq!(world.served, served);
    }
}
