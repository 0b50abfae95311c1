//! What scripts run on: a proxy, its nodes, its clients.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::message as m;
use crate::{
    cluster::{Claim, Failure, Health, Lsn, NodeId, Position, Probe},
    config::{self, Given, Settings, Sources},
    monitor::Monitor,
    net::{Dialer, Pipes, Stream},
    protocol::startup::{self, CancelKey},
    proxy::{
        ConsoleClient, ConsoleServer, Proxy, handshake::HandshakeContext, login::Door, observe,
        serve,
    },
    sql::{
        CatalogueBuilder,
        catalogue::{Catalogue, QueryId},
    },
};

pub(super) const PG1: NodeId = NodeId(0);
pub(super) const PG2: NodeId = NodeId(1);
pub(super) const PG3: NodeId = NodeId(2);

/// Longer than anything takes for which no timer is needed, shorter than any timer.
const AT_ONCE: Duration = Duration::from_millis(2);
/// What a client's connection holds in each direction.
const PIPE: usize = 64 << 10;
/// The nodes' WAL position at first.
const START: u64 = 0x0100_0000;

/// A proxy of one worker before nodes that a test plays: `pg1`, the primary, and replicas.
pub(super) struct Bed {
    pub(super) proxy: Arc<Proxy>,
    door: Arc<Door>,
    nodes: Vec<Node>,
    /// Numbers of server connections, which are their process ids, too.
    servers: u32,
}

struct Node {
    pipes: Pipes,
    dialled: UnboundedReceiver<DuplexStream>,
    /// The monitor's connections so far, and whether the last one lives.
    probed: u64,
    connected: bool,
    timeline: u32,
}

/// Connections as they are opened.
pub(super) struct Dialled {
    pipes: UnboundedReceiver<DuplexStream>,
    servers: u32,
}

/// One end of a connection that a test plays.
pub(super) struct End {
    pipe: DuplexStream,
    /// Read, and not asked for yet.
    unread: Vec<u8>,
    /// A client's or a server connection's.
    pub(super) key: CancelKey,
    /// Ends when the proxy is done with a client.
    task: Option<JoinHandle<()>>,
}

/// An ErrorResponse, in its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) severity: String,
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) hint: String,
}

struct NoConsole;

impl ConsoleServer for NoConsole {
    fn serve(
        &self,
        _client: ConsoleClient,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Bed {
    /// A primary and one replica that has caught up; the connection to the primary that the first
    /// login has made, idle.
    pub(super) async fn start(options: &[(&'static str, &str)]) -> (Self, End) {
        Self::with_replicas(1, options).await
    }

    pub(super) async fn with_replicas(
        replicas: u32,
        options: &[(&'static str, &str)],
    ) -> (Self, End) {
        let mut bed = Self::unopened(1 + replicas, options);
        let mut client = bed.knock().await;
        let primary = bed.server(PG1).await;
        client.greeted().await;
        client.send(&m::terminate()).await;
        client.gone().await;
        (bed, primary)
    }

    /// Nobody has logged in yet.
    pub(super) fn unopened(nodes: u32, options: &[(&'static str, &str)]) -> Self {
        let config = settings(nodes, options);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (dialers, nodes): (Vec<_>, Vec<_>) = config
            .nodes
            .iter()
            .map(|node| {
                let (pipes, dialled) = unbounded_channel();
                let pipes: Pipes = Arc::new(Mutex::new(Some(pipes)));
                let dialer = Dialer::new(node).unwrap().over(Arc::clone(&pipes));
                let dialled = Node {
                    pipes,
                    dialled,
                    probed: 0,
                    connected: false,
                    timeline: 1,
                };
                ((node.clone(), dialer), dialled)
            })
            .unzip();
        let monitor = Monitor::scripted(dialers, &config.monitor, &tasks, &stop, "app");
        let reload = Box::new(|| Err("not in a script".to_owned()));
        let proxy = Proxy::new(config, reload, 1, monitor, (tasks, stop)).unwrap();
        let mut bed = Self {
            door: Arc::new(Door {
                proxy: Arc::clone(&proxy),
                worker: 0,
                handshake: HandshakeContext::default(),
                console: Arc::new(NoConsole),
            }),
            proxy,
            nodes,
            servers: 0,
        };
        tokio::spawn(serve::fence(Arc::clone(&bed.proxy)));
        let proxy = Arc::clone(&bed.proxy);
        tokio::spawn(async move { serve::tend(&proxy, 0).await });
        bed.proxy.monitor.loaded("app", catalogue());
        for index in 0..bed.nodes.len() {
            bed.probed(NodeId(u16::try_from(index).unwrap()), index > 0, START);
        }
        // Lag is known once the primary's position is.
        for index in 1..bed.nodes.len() {
            bed.probed(NodeId(u16::try_from(index).unwrap()), true, START);
        }
        bed
    }

    // Nodes.

    /// The monitor's probe of a node was answered: its role and position.
    pub(super) fn probed(&mut self, id: NodeId, in_recovery: bool, lsn: u64) {
        let node = &mut self.nodes[id.index()];
        let first = !node.connected;
        if first {
            node.connected = true;
            node.probed += 1;
        }
        let (conn, timeline) = (node.probed, node.timeline);
        self.proxy.monitor.hears(|cluster, now| {
            let mut events = Vec::new();
            if first {
                events = cluster.connected(id, conn, now);
            }
            let probe = Probe {
                claim: Claim {
                    conn,
                    in_recovery,
                    timeline: Some(timeline),
                    system: Some(7),
                },
                position: Some(Position::exact(now, Lsn(lsn))),
                received: None,
                replay_paused: false,
                read_only: false,
                version: Some(150_000),
                comparable: true,
            };
            events.extend(cluster.probe_ok(now, id, probe));
            events
        });
    }

    /// A node refuses connections, and as many probes of it have failed as it takes.
    pub(super) fn falls(&mut self, id: NodeId) {
        self.refuses(id);
        for _ in 0..10 {
            self.proxy
                .monitor
                .hears(|cluster, now| cluster.probe_failed(now, id, Failure::Connect));
        }
        self.nodes[id.index()].connected = false;
    }

    /// A node takes no new connections; those that there are stay.
    pub(super) fn refuses(&mut self, id: NodeId) {
        *self.nodes[id.index()].pipes.lock().unwrap() = None;
    }

    /// It takes connections again.
    pub(super) fn accepts(&mut self, id: NodeId) {
        let (pipes, dialled) = unbounded_channel();
        let node = &mut self.nodes[id.index()];
        node.dialled = dialled;
        *node.pipes.lock().unwrap() = Some(pipes);
    }

    /// It is there again, and is probed until it is trusted.
    pub(super) async fn returns(&mut self, id: NodeId, in_recovery: bool) {
        self.accepts(id);
        for _ in 0..1000 {
            self.probed(id, in_recovery, START);
            if self.proxy.monitor.view_full().nodes[id.index()].health == Health::Up {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{id:?} stays away");
    }

    /// A replica has become the primary.
    pub(super) fn promoted(&mut self, id: NodeId) {
        self.nodes[id.index()].timeline += 1;
        self.probed(id, false, START + 100);
    }

    /// The next connection that the proxy opens to a node, logged in.
    pub(super) async fn server(&mut self, id: NodeId) -> End {
        let mut server = self.dialled(id).await;
        server.log_in().await;
        server
    }

    /// The next connection that the proxy opens to one of these, logged in.
    pub(super) async fn any_server(&mut self, ids: &[NodeId]) -> (NodeId, End) {
        // Whatever goes on without a timer has happened when this has elapsed.
        tokio::time::sleep(AT_ONCE).await;
        for id in ids {
            if !self.nodes[id.index()].dialled.is_empty() {
                return (*id, self.server(*id).await);
            }
        }
        panic!("none of {ids:?} is dialled");
    }

    /// The next connection that the proxy opens to a node: nothing has been said yet.
    pub(super) async fn dialled(&mut self, id: NodeId) -> End {
        self.servers += 1;
        let pipe = timeout(AT_ONCE, self.nodes[id.index()].dialled.recv()).await;
        let pipe = pipe.expect("the node is dialled").unwrap();
        let key = CancelKey {
            pid: self.servers,
            key: [9; 4].into(),
        };
        End::new(pipe, key, None)
    }

    /// The proxy asks whether the node still serves, and it doesn't.
    pub(super) async fn shuts_down(&mut self, id: NodeId) {
        let mut asked = self.dialled(id).await;
        asked
            .send(&super::message::fatal(
                "57P03",
                "the database system is shutting down",
            ))
            .await;
    }

    /// Nobody has dialled the node.
    pub(super) async fn not_dialled(&mut self, id: NodeId) {
        let pipe = timeout(AT_ONCE, self.nodes[id.index()].dialled.recv()).await;
        assert!(pipe.is_err(), "{id:?} is dialled");
    }

    /// All connections that the proxy opens to a node from now on.
    pub(super) fn every_connection(&mut self, id: NodeId) -> Dialled {
        let (_none, nothing) = unbounded_channel();
        Dialled {
            pipes: std::mem::replace(&mut self.nodes[id.index()].dialled, nothing),
            // Far from the others' numbers.
            servers: (u32::from(id.0) + 1) << 16,
        }
    }

    // Clients.

    /// A client that has logged in.
    pub(super) async fn client(&mut self) -> End {
        let mut client = self.knock().await;
        client.greeted().await;
        client
    }

    /// One that hasn't said anything yet.
    pub(super) fn stranger(&mut self) -> End {
        self.connects(PIPE)
    }

    /// As [`Self::client`], with a connection that holds little.
    pub(super) async fn narrow_client(&mut self, bytes: usize) -> End {
        let mut client = self.knock_over(bytes).await;
        client.greeted().await;
        client
    }

    /// A client that has asked to be let in.
    pub(super) async fn knock(&mut self) -> End {
        self.knock_over(PIPE).await
    }

    async fn knock_over(&mut self, bytes: usize) -> End {
        let mut client = self.connects(bytes);
        let hello = startup::startup_message([("user", "app"), ("database", "app")]).unwrap();
        client.send(&hello).await;
        client
    }

    fn connects(&self, bytes: usize) -> End {
        let (here, there) = tokio::io::duplex(bytes);
        let task = tokio::spawn(Arc::clone(&self.door).enter(Stream::memory(there)));
        let key = CancelKey {
            pid: 0,
            key: Box::default(),
        };
        End::new(here, key, Some(task))
    }

    /// Asks to cancel what a client runs; the connection that it was asked on.
    pub(super) async fn cancel(&self, key: &CancelKey) -> End {
        let mut canceller = self.connects(PIPE);
        canceller.send(&startup::cancel_request(key).unwrap()).await;
        canceller
    }
}

impl Dialled {
    pub(super) async fn next(&mut self) -> Option<End> {
        self.servers += 1;
        let key = CancelKey {
            pid: self.servers,
            key: [9; 4].into(),
        };
        Some(End::new(self.pipes.recv().await?, key, None))
    }
}

impl End {
    fn new(pipe: DuplexStream, key: CancelKey, task: Option<JoinHandle<()>>) -> Self {
        Self {
            pipe,
            unread: Vec::new(),
            key,
            task,
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let written = timeout(AT_ONCE, self.pipe.write_all(bytes)).await;
        written.expect("there is room for it").unwrap();
    }

    /// Writes as much as is taken at once, and says how much that was.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match timeout(AT_ONCE, self.pipe.write(rest)).await {
                Ok(count) => written += count.unwrap(),
                Err(_full) => break,
            }
        }
        written
    }

    /// Writes all, while the other side takes it.
    pub(super) async fn push_all(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.push(rest).await;
            assert!(count > 0, "{} bytes aren't taken", rest.len());
            rest = &rest[count..];
        }
    }

    /// Takes what arrives at once, whatever it is; how much that was.
    pub(super) async fn drain(&mut self) -> usize {
        self.read(usize::MAX, Instant::now() + AT_ONCE).await;
        std::mem::take(&mut self.unread).len()
    }

    /// Waits for something to arrive. `None`: the other side has closed the connection.
    pub(super) async fn arrived(&mut self) -> Option<Vec<u8>> {
        if self.unread.is_empty() {
            let read = self.pipe.read_buf(&mut self.unread).await;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
        Some(std::mem::take(&mut self.unread))
    }

    /// Goes without a word; what follows from it has happened then.
    pub(super) async fn hang_up(self) {
        drop(self);
        tokio::time::sleep(AT_ONCE).await;
    }

    /// These bytes arrive, at once. Others may be behind them.
    pub(super) async fn expect(&mut self, expected: &[&[u8]]) {
        self.expect_by(Instant::now() + AT_ONCE, &expected.concat())
            .await;
    }

    /// These bytes arrive within so much time.
    pub(super) async fn expect_within(&mut self, time: Duration, expected: &[u8]) {
        self.expect_by(Instant::now() + time, expected).await;
    }

    /// These bytes arrive, and nothing else.
    pub(super) async fn expect_only(&mut self, expected: &[&[u8]]) {
        self.expect(expected).await;
        self.quiet().await;
    }

    async fn expect_by(&mut self, by: Instant, expected: &[u8]) {
        self.read(expected.len(), by).await;
        let count = expected.len().min(self.unread.len());
        let got: Vec<u8> = self.unread.drain(..count).collect();
        assert!(
            got == expected,
            "expected {}\n     got {}\nand then {}",
            expected.escape_ascii(),
            got.escape_ascii(),
            self.unread.escape_ascii()
        );
    }

    /// Reads until so many bytes are there, the time has come, or nothing more will come.
    async fn read(&mut self, wanted: usize, by: Instant) {
        while self.unread.len() < wanted {
            let read = self.pipe.read_buf(&mut self.unread);
            match tokio::time::timeout_at(by, read).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// Nothing more arrives for now.
    pub(super) async fn quiet(&mut self) {
        self.quiet_for(AT_ONCE).await;
    }

    pub(super) async fn quiet_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.read(1, until).await;
        assert!(
            self.unread.is_empty() && Instant::now() >= until,
            "not quiet: {}",
            self.unread.escape_ascii()
        );
    }

    /// The next message, whatever it is, at once.
    pub(super) async fn message(&mut self) -> Vec<u8> {
        self.message_by(Instant::now() + AT_ONCE).await
    }

    pub(super) async fn message_within(&mut self, time: Duration) -> Vec<u8> {
        self.message_by(Instant::now() + time).await
    }

    async fn message_by(&mut self, by: Instant) -> Vec<u8> {
        self.read(5, by).await;
        let head = self.unread.get(1..5).expect("a message comes");
        let length = u32::from_be_bytes(head.try_into().unwrap()) as usize + 1;
        self.read(length, by).await;
        self.unread.drain(..length).collect()
    }

    /// An ErrorResponse arrives, at once.
    pub(super) async fn told(&mut self) -> Told {
        let message = self.message().await;
        Told::read(&message)
    }

    /// An ErrorResponse arrives exactly when this much time has passed since `began`.
    pub(super) async fn told_after(&mut self, began: Instant, time: Duration) -> Told {
        let due = began + time;
        let message = self.message_by(due + AT_ONCE).await;
        let early = due.saturating_duration_since(Instant::now());
        assert!(early < AT_ONCE, "{early:?} early");
        Told::read(&message)
    }

    /// The other side has closed the connection, having said nothing more.
    pub(super) async fn gone(&mut self) {
        self.gone_within(AT_ONCE).await;
    }

    pub(super) async fn gone_within(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.read(1, until).await;
        assert!(
            self.unread.is_empty(),
            "more comes: {}",
            self.unread.escape_ascii()
        );
        assert!(Instant::now() < until, "the connection is open");
        if let Some(task) = self.task.take() {
            timeout(AT_ONCE, task)
                .await
                .expect("its task ends with it")
                .unwrap();
        }
    }

    // A client's.

    /// It is let in: up to ReadyForQuery.
    pub(super) async fn greeted(&mut self) {
        self.expect(&[&m::authentication_ok()]).await;
        loop {
            let message = self.message().await;
            match message.as_slice() {
                [b'S', ..] => {}
                [b'K', _, _, _, _, a, b, c, d, key @ ..] => {
                    self.key = CancelKey {
                        pid: u32::from_be_bytes([*a, *b, *c, *d]),
                        key: key.into(),
                    };
                }
                [b'Z', ..] => return,
                other => panic!("no greeting: {}", other.escape_ascii()),
            }
        }
    }

    // A server's.

    /// Lets the proxy in.
    pub(super) async fn log_in(&mut self) {
        let hello = startup::startup_message([("user", "app"), ("database", "app")]).unwrap();
        self.expect(&[&hello]).await;
        let greeting = [
            m::authentication_ok(),
            m::parameter("server_version", "15.0"),
            m::parameter("client_encoding", "UTF8"),
            m::parameter("standard_conforming_strings", "on"),
            m::key_data(self.key.pid, &self.key.key),
            m::ready('I'),
        ];
        self.send(&greeting.concat()).await;
    }

    /// The proxy looks at the connection's state, and finds this (see [`observe`]).
    pub(super) async fn looked_at(&mut self, found: &[&str]) {
        self.expect(&[&m::query(observe::LOOK)]).await;
        for kind in found {
            self.send(&m::row_of_three(kind)).await;
        }
        self.send(&m::done("SELECT 0", 'I')).await;
    }

    /// Somebody asks this connection's node to cancel what runs on `other`.
    pub(super) async fn asked_to_cancel(&mut self, other: &Self) {
        self.expect(&[&startup::cancel_request(&other.key).unwrap()])
            .await;
    }
}

impl Told {
    pub(super) fn read(message: &[u8]) -> Self {
        assert_eq!(message.first(), Some(&b'E'), "{}", message.escape_ascii());
        let mut told = Self::default();
        for field in message[5..].split(|&byte| byte == 0) {
            let text = String::from_utf8_lossy(field.get(1..).unwrap_or_default()).into_owned();
            match field.first() {
                Some(b'V') => told.severity = text,
                Some(b'C') => told.sqlstate = text,
                Some(b'M') => told.message = text,
                Some(b'H') => told.hint = text,
                _ => {}
            }
        }
        told
    }

    /// Severity and SQLSTATE.
    pub(super) fn what(&self) -> (&str, &str) {
        (&self.severity, &self.sqlstate)
    }
}

fn settings(nodes: u32, options: &[(&'static str, &str)]) -> Settings {
    let sources = Sources {
        nodes: (1..=nodes)
            .map(|node| format!("postgres://app@pg{node}/app?sslmode=disable"))
            .collect(),
        options: [("listen.trust", "true")]
            .iter()
            .chain(options)
            .map(|(option, value)| Given {
                option,
                value: (*value).to_owned(),
                source: (*option).to_owned(),
            })
            .collect(),
        ..Sources::default()
    };
    config::load(&sources, &|_variable| None).unwrap().settings
}

/// Table `t`, an operator, and a function `f` that may do anything.
fn catalogue() -> Catalogue {
    let mut builder = CatalogueBuilder::new();
    let mut row = |query, columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|&column| Some(column)).collect();
        builder.row(query, &columns);
    };
    row(QueryId::Schemas, &["public"]);
    row(
        QueryId::Relations,
        &["20000", "t", "r", "p", "false", "f", "false"],
    );
    row(
        QueryId::Functions,
        &["20010", "f", "u", "f", "v", "plperl", "true", "false"],
    );
    builder.row(QueryId::Operators, &[None, Some("/"), None]);
    let isolation = [Some("0"), None, Some("read committed")];
    builder.row(QueryId::Isolations, &isolation);
    builder.finish(1)
}
