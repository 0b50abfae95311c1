//! The resolved settings: every default filled in, every reference checked.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// All of it. Each part is shared by reference with the module that needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: Listen,
    pub admin: Admin,
    pub pool: Pool,
    pub routing: Routing,
    pub monitor: Monitor,
    pub failover: Failover,
    pub log: Log,
    /// In the order of the file; the place is the node's `NodeId`.
    pub nodes: Vec<Node>,
    pub databases: Vec<Database>,
    pub users: Vec<User>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub addresses: Vec<SocketAddr>,
    /// A socket `.s.PGSQL.<port>` is made there beside the first address.
    pub unix_socket_dir: Option<PathBuf>,
    pub max_clients: usize,
    /// Threads that serve clients; 0: one per core.
    pub workers: usize,
    /// How long a client may take from connecting to having authenticated.
    pub login_timeout: Duration,
    /// How long running transactions may go on after a shutdown was asked for.
    pub drain_timeout: Duration,
    pub tls: Option<ListenTls>,
    /// Clients on the Unix socket and loopback need no password. Off by default.
    pub trust: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListenTls {
    pub mode: ListenTlsMode,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenTlsMode {
    /// Offered; plain connections are accepted.
    Prefer,
    /// Plain connections over TCP are refused.
    Require,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// None: no HTTP listener.
    pub address: Option<SocketAddr>,
    pub console_users: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    Transaction,
    Session,
    Statement,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    pub mode: PoolMode,
    /// Server connections per database, user and node.
    pub max_size: usize,
    pub min_idle: usize,
    pub acquire_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
    /// Statements that one server connection keeps prepared.
    pub prepared_statements: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    Eventual,
    Session,
    Global,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    LeastLag,
    LeastConnections,
    RoundRobin,
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutingMode {
    Split,
    Primary,
    Shadow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadFallback {
    Primary,
    Error,
}

/// `pgsplit.route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteOverride {
    Auto,
    Primary,
    Replica,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    pub consistency: Consistency,
    pub balance: Balance,
    pub max_lag: Duration,
    pub max_lag_bytes: u64,
    pub lag_tolerance: Duration,
    pub wait_for_replica: Duration,
    pub mode: RoutingMode,
    pub read_fallback: ReadFallback,
    pub zone: Arc<str>,
    /// A user's or database's default of `pgsplit.route`.
    pub route: RouteOverride,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    pub interval: Duration,
    pub timeout: Duration,
    pub down_after: u32,
    pub up_after: u32,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverMode {
    Follow,
    Promote,
    Off,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    pub mode: FailoverMode,
    pub hold: Duration,
    pub hold_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// What a node is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Whatever it says it is.
    Auto,
    /// Used only while it says that it is a primary.
    Primary,
    /// Used only while it says that it is a replica.
    Replica,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: Arc<str>,
    pub host: Host,
    pub port: u16,
    pub zone: Arc<str>,
    pub weight: u32,
    pub role: NodeRole,
    pub tls: NodeTls,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of the socket.
    Unix(PathBuf),
}

/// libpq's `sslmode`, as far as supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeTls {
    pub sslmode: SslMode,
    /// Certificates that vouch for the node; the system's when none.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// As clients name it; `*` for any.
    pub name: String,
    /// As the nodes name it; `None`: as the client does.
    pub dbname: Option<String>,
    pub pool: Pool,
    pub routing: Routing,
}

#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub name: String,
    pub password: Option<Secret>,
    /// When the nodes know it by another name.
    pub server_user: Option<String>,
    pub server_password: Option<Secret>,
    /// Overrides of the database's, if any.
    pub routing: Option<Routing>,
}

/// A password or verifier. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
