//! How the console and the HTTP API see and drive the proxy: plain rows, and the trait that
//! gives them. The proxy implements it, the admin side asks; neither imports the other.
//!
//! A row is a copy of one moment. Ages are durations, so that nobody needs a wall clock here.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::worker::DatabaseTotals;
use crate::{
    cluster::{self, Health, Lsn, NodeId, NodeView, Role, What},
    config::{self, settings::PoolMode},
    error::Visible,
    sql::CacheStats,
};

/// A future that the admin side waits for.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A look into one proxy.
///
/// All answer at once from memory, and may be called from any thread; [`Inspect::act`] alone waits.
pub trait Inspect: Send + Sync {
    /// All nodes, those included that are being let go.
    fn nodes(&self) -> Vec<NodeRow>;
    /// All pools: one row for each database, user and node.
    fn pools(&self) -> Vec<PoolRow>;
    /// All clients, the console's included.
    fn clients(&self) -> Vec<ClientRow>;
    /// All server connections.
    fn servers(&self) -> Vec<ServerRow>;
    /// Totals since the start, one row for each database.
    fn stats(&self) -> Vec<StatsRow>;
    /// Configured databases, and those that a `*` entry has brought to life.
    fn databases(&self) -> Vec<DatabaseRow>;
    /// Configured users.
    fn users(&self) -> Vec<UserRow>;
    /// Settings in force.
    fn config(&self) -> Vec<config::Row>;
    /// Recent events, oldest first. The console adds what operators did there.
    fn events(&self) -> Vec<EventRow>;
    /// Events since the start, by kind, and failovers that were refused, by reason.
    fn event_counts(&self) -> EventCounts {
        EventCounts::default()
    }
    /// Statements about which something isn't known, so that they go to the primary.
    fn queries(&self) -> Vec<StatementCount>;
    /// What the class caches have done, summed; `None` leaves it out.
    fn class_cache(&self) -> Option<CacheStats> {
        None
    }
    /// How many clients may be connected at once.
    fn max_clients(&self) -> usize;
    /// Whether the proxy can do its work now.
    fn ready(&self) -> Readiness;
    /// Where the text would go if a fresh session of `database` sent it now, and why. `None`: the
    /// first database that has a name and a catalogue.
    fn explain(&self, database: Option<&str>, sql: &str) -> Result<Explanation, Visible>;
    /// Does what an operator asked for, and gives what to tell him beyond "done", if anything.
    /// Waits until it is done (PAUSE: until the servers are idle). When the future is dropped,
    /// what was begun goes on.
    fn act(&self, action: Action) -> BoxFuture<'_, Result<Option<String>, Visible>>;
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let transactions end, close the server connections of the database (or of all), and let
    /// new requests wait until [`Action::Resume`].
    Pause(Option<String>),
    /// Undo a pause.
    Resume(Option<String>),
    /// Replace the server connections of the database (or of all) as they become idle.
    Reconnect(Option<String>),
    /// Wait until the server connections that are to be closed have been.
    WaitClose(Option<String>),
    /// Read the configuration again.
    Reload,
    /// Give a node work again, or none (maintenance).
    SetNode {
        name: String,
        enabled: bool,
    },
    /// Make this replica the primary, without an error to anybody.
    Switchover(String),
    /// Promote a replica in the place of a lost primary: this one, or else the most advanced.
    /// `forced`: whatever is lost.
    Failover {
        to: Option<String>,
        forced: bool,
    },
    /// Change a node's share of the reads.
    SetWeight {
        name: String,
        weight: u32,
    },
    /// Drop a database's clients and server connections at once.
    KillDatabase(String),
    /// Drop one client, by [`ClientRow::id`].
    KillClient(u64),
    Shutdown(Shutdown),
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// Once no server connection is in use; waiting clients are sent away.
    WaitForServers,
    /// Once the last client has left.
    WaitForClients,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeRow {
    pub id: NodeId,
    pub name: Arc<str>,
    /// A name, an address, or a socket directory.
    pub host: String,
    pub port: u16,
    pub zone: Arc<str>,
    pub weight: u32,
    pub role: Role,
    pub health: Health,
    /// No longer one of the nodes; what runs there may end.
    pub leaving: bool,
    pub timeline: Option<u32>,
    /// Insert LSN of a primary, replay LSN of a replica, as last sampled.
    pub lsn: Option<Lsn>,
    /// Of a replica, when known.
    pub lag: Option<Duration>,
    pub lag_bytes: Option<u64>,
    /// `server_version_num`.
    pub version: Option<u32>,
    /// Requests running there now.
    pub in_flight: u64,
    /// For how long it has been in this health.
    pub since: Option<Duration>,
    /// Newest failure, if any since it was last well.
    pub error: Option<String>,
}

/// One pool.
#[derive(Clone, Debug)]
pub struct PoolRow {
    pub database: String,
    pub user: String,
    /// The node's name.
    pub node: Arc<str>,
    pub mode: PoolMode,
    /// Clients that hold one of its connections.
    pub clients_active: usize,
    /// Clients that wait for one.
    pub clients_waiting: usize,
    /// Connections lent.
    pub servers_active: usize,
    pub servers_idle: usize,
    /// Connections being made.
    pub servers_connecting: usize,
    /// How long the client that has waited longest has waited.
    pub max_wait: Duration,
    pub max_size: usize,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Not authenticated yet.
    Login,
    /// Has no server connection and waits for none.
    Idle,
    /// Has a server connection.
    Active,
    /// Waits for a server connection.
    Waiting,
    /// Its request waits for a primary.
    Held,
}

/// One client.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Unique while the process lives.
    pub id: u64,
    pub user: String,
    pub database: String,
    pub state: ClientState,
    /// `None` for a Unix socket.
    pub addr: Option<SocketAddr>,
    /// `None`: not known.
    pub local_addr: Option<SocketAddr>,
    /// For how long it has been connected.
    pub connected: Duration,
    /// How long ago its newest request began.
    pub request: Option<Duration>,
    /// For how long it has been waiting.
    pub wait: Duration,
    /// [`ServerRow::id`] of the connection it holds.
    pub server: Option<u64>,
    /// TLS version and cipher.
    pub tls: Option<String>,
    pub application_name: String,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    pub in_transaction: bool,
    /// Why it keeps its server connection.
    pub pinned: Option<String>,
}

/// What a server connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    Login,
    Idle,
    Active,
}

/// One server connection.
#[derive(Clone, Debug)]
pub struct ServerRow {
    /// Unique while the process lives.
    pub id: u64,
    pub user: String,
    pub database: String,
    pub node: Arc<str>,
    pub state: ServerState,
    /// `None`: shown as the node's settings have it.
    pub addr: Option<SocketAddr>,
    pub local_addr: Option<SocketAddr>,
    /// For how long it has been connected.
    pub connected: Duration,
    /// How long ago its newest request began.
    pub request: Option<Duration>,
    /// To be closed as soon as it is free.
    pub close_needed: bool,
    /// [`ClientRow::id`] of the client that holds it.
    pub client: Option<u64>,
    /// The backend's process.
    pub pid: i32,
    pub tls: Option<String>,
    pub application_name: String,
}

/// One database's totals.
#[derive(Clone, Debug)]
pub struct StatsRow {
    pub database: String,
    pub totals: DatabaseTotals,
}

/// One database.
#[derive(Clone, Debug)]
pub struct DatabaseRow {
    pub name: String,
    /// As the nodes name it.
    pub dbname: String,
    /// Server connections per user and node.
    pub pool_size: usize,
    pub min_idle: usize,
    pub max_lifetime: Duration,
    pub mode: PoolMode,
    /// Clients connected now.
    pub clients: usize,
    pub paused: bool,
}

/// One user.
#[derive(Clone, Debug)]
pub struct UserRow {
    pub name: String,
    pub clients: usize,
    pub servers: usize,
}

/// Something that an operator would ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    pub at: SystemTime,
    /// A fixed name: `health`, `role`, `primary`, `alert`, `operator`, …
    pub kind: &'static str,
    /// The node that it is about.
    pub node: Option<String>,
    /// What was before, and is since.
    pub from: Option<String>,
    pub to: Option<String>,
    pub cause: String,
    /// The node's newest position and timeline when it happened.
    pub lsn: Option<Lsn>,
    pub timeline: Option<u32>,
    pub message: String,
}

/// How many events there were.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    pub by_kind: Vec<(&'static str, u64)>,
    pub refusals: Vec<(&'static str, u64)>,
}

/// A statement that keeps going to the primary because something about it isn't known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementCount {
    /// A routing reason's name.
    pub reason: &'static str,
    pub count: u64,
    /// Without its literals.
    pub text: String,
}

/// Whether the proxy can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub phase: Phase,
    /// A primary takes writes.
    pub writable: bool,
    /// Some node takes reads.
    pub readable: bool,
}

/// Where in its life the proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    /// Clients can connect.
    Listening,
    /// A shutdown was asked for.
    Stopping,
}

/// Where a text would go, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// `read`, `write`, …
    pub class: String,
    /// `primary` or `replica`.
    pub route: String,
    /// The node it would run on now, if there is one.
    pub node: Option<String>,
    /// A routing reason's name.
    pub reason: String,
    /// The name that made it so, and what is known of it.
    pub detail: Option<String>,
    /// The relations that the text names.
    pub tables: Vec<String>,
    /// The functions that the text calls.
    pub functions: Vec<String>,
}

impl Readiness {
    /// Ready: listening, not stopping, and at least reads can be answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.problem().is_none()
    }

    /// Why it isn't ready.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Starting => Some("starting"),
            Phase::Stopping => Some("shutting down"),
            Phase::Listening if !self.writable && !self.readable => Some("no node is usable"),
            Phase::Listening => None,
        }
    }
}

/// The fixed name of a role.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Primary => "primary",
        Role::Replica => "replica",
        Role::Fenced => "fenced",
    }
}

/// The fixed name of a health.
#[must_use]
pub fn health_name(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Suspect => "suspect",
        Health::Down => "down",
        Health::Maintenance => "maintenance",
    }
}

impl fmt::Display for Action {
    /// As an operator writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, command: &str, database: &Option<String>| {
            f.write_str(command)?;
            match database {
                Some(name) => write!(f, " {name}"),
                None => Ok(()),
            }
        };
        match self {
            Self::Pause(database) => with(f, "PAUSE", database),
            Self::Resume(database) => with(f, "RESUME", database),
            Self::Reconnect(database) => with(f, "RECONNECT", database),
            Self::WaitClose(database) => with(f, "WAIT_CLOSE", database),
            Self::Reload => f.write_str("RELOAD"),
            Self::SetNode {
                name,
                enabled: true,
            } => write!(f, "ENABLE NODE {name}"),
            Self::SetNode {
                name,
                enabled: false,
            } => write!(f, "DISABLE NODE {name}"),
            Self::Switchover(name) => write!(f, "SWITCHOVER TO {name}"),
            Self::Failover { to, forced } => {
                f.write_str("FAILOVER")?;
                if let Some(name) = to {
                    write!(f, " TO {name}")?;
                }
                f.write_str(if *forced { " FORCE" } else { "" })
            }
            Self::SetWeight { name, weight } => write!(f, "SET WEIGHT {name} = {weight}"),
            Self::KillDatabase(name) => write!(f, "KILL {name}"),
            Self::KillClient(id) => write!(f, "KILL {id}"),
            Self::Shutdown(how) => f.write_str(match how {
                Shutdown::Now => "SHUTDOWN",
                Shutdown::WaitForServers => "SHUTDOWN WAIT_FOR_SERVERS",
                Shutdown::WaitForClients => "SHUTDOWN WAIT_FOR_CLIENTS",
            }),
        }
    }
}

impl NodeRow {
    /// A node as the view has it; nothing else is known of it yet.
    #[must_use]
    pub fn of(view: &NodeView, host: String, port: u16) -> Self {
        Self {
            id: view.id,
            name: Arc::clone(&view.name),
            host,
            port,
            zone: Arc::clone(&view.zone),
            weight: view.weight,
            role: view.role,
            health: view.health,
            leaving: view.leaving,
            timeline: view.timeline,
            lsn: view.position().map(|position| position.lsn),
            lag: view.lag,
            lag_bytes: view.lag_bytes,
            version: view.version,
            in_flight: 0,
            since: None,
            error: None,
        }
    }
}

impl EventRow {
    /// A change in the cluster, in words.
    #[must_use]
    pub fn of<'a>(
        at: SystemTime,
        event: &cluster::Event,
        name: impl Fn(NodeId) -> &'a str,
    ) -> Self {
        let node = name(event.node);
        let of_primary = |id: Option<NodeId>| id.map_or("none", &name);
        let arrow = |from: &str, to: &str| format!("{node}: {from} -> {to}");
        let held = |on| if on { "held" } else { "sent" };
        let (from, to, what) = match event.what {
            What::Health { from, to } => {
                let (from, to) = (health_name(from), health_name(to));
                (from, to, arrow(from, to))
            }
            What::Role { from, to } => {
                let (from, to) = (role_name(from), role_name(to));
                (from, to, arrow(from, to))
            }
            What::Primary { from, to, epoch } => {
                let (from, to) = (of_primary(from), of_primary(to));
                (from, to, format!("primary: {from} -> {to}, epoch {epoch}"))
            }
            What::Withheld { from, to } => {
                let (from, to) = (held(from), held(to));
                (from, to, format!("{node}: new transactions are {to}"))
            }
            What::Fence { from, to } => {
                let (from, to) = (from.name(), to.name());
                (from, to, format!("{node}: fence {from} -> {to}"))
            }
            What::Switchover { from, to } => {
                let (from, to) = (from.name(), to.name());
                (from, to, format!("switchover to {node}: {from} -> {to}"))
            }
            What::Failover { from, to } => {
                let (from, to) = (from.name(), to.name());
                (from, to, format!("failover, {node}: {from} -> {to}"))
            }
            What::Follow { primary, done } => {
                let to = name(primary);
                let verb = if done { "follows" } else { "doesn't follow" };
                ("", to, format!("{node} {verb} {to}"))
            }
            What::Joined => ("", "joined", format!("{node}: is one of the nodes")),
            What::Leaving => (
                "joined",
                "leaving",
                format!("{node}: leaves, nothing new is sent there"),
            ),
            What::Left => ("leaving", "", format!("{node}: has left")),
            What::Weight { from, to } => ("", "", format!("{node}: weight {from} -> {to}")),
            What::Alert(alert) => ("", alert.name(), format!("{node}: {alert}")),
            What::AlertOver(alert) => (alert.name(), "", format!("{node}: no longer: {alert}")),
        };
        let state = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            at,
            kind: event.what.name(),
            node: Some(node.to_owned()),
            from: state(from),
            to: state(to),
            cause: event.cause.to_string(),
            lsn: event.lsn,
            timeline: event.timeline,
            message: format!("{what} ({})", event.cause),
        }
    }
}
