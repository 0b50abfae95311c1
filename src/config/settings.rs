//! The settings, resolved: every option with its description, default, range and reload rule.
//! [`super::file`] fills them in and checks what concerns several of them.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    schema::{Key, Options, Overrides, absolute, any, http_urls, name, options, some, within},
    value::words,
};
use crate::routing::{
    Balance, Consistency, ReadFallback, RouteOverride, RoutingMode, Transactions,
};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);

/// All of it. Each part is shared by reference with the module that needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub listen: Listen,
    pub admin: Admin,
    pub pool: Pool,
    pub routing: Routing,
    pub monitor: Monitor,
    pub failover: Failover,
    pub auth: Auth,
    pub log: Log,
    /// In the order of the file.
    pub nodes: Vec<Node>,
    pub databases: Vec<Database>,
    pub users: Vec<User>,
}

options! {
    /// Where clients connect.
    pub struct Listen in "listen" {
        /// IP address and port, or a list of them.
        addresses as "address": Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 6432))], |list: &Vec<SocketAddr>| some(list), Restart;
        /// Directory for a Unix socket `.s.PGSQL.<port>`, with the port of the first address.
        unix_socket_dir: Option<PathBuf> = None, absolute, Restart;
        /// Clients at a time; one more is refused with 53300.
        max_clients: usize = 10_000, within(1, 1_000_000), Live;
        /// Threads that serve clients; 0: one per core.
        workers: usize = 0, within(0, 1024), Restart;
        /// How long a client may take from connecting to having logged in.
        login_timeout: Duration = secs(15), within(ms(100), HOUR), Live;
        /// How long running transactions may go on after a shutdown was asked for.
        drain_timeout: Duration = secs(30), within(ms(0), DAY), Live;
        /// Clients on the Unix socket and on loopback need no password.
        trust: bool = false, any, Live;
    }
    tables {
        /// `None`: no TLS is offered.
        tls: Option<ListenTls> = None;
    }
}

words! {
    pub enum ListenTlsMode {
        /// Offered; plain connections are accepted.
        Prefer = "prefer",
        /// Plain connections over TCP are refused.
        Require = "require",
    }
}

options! {
    /// TLS to clients.
    pub struct ListenTls in "listen.tls" {
        /// "prefer": offered; "require": TCP connections without TLS are refused.
        mode: ListenTlsMode = ListenTlsMode::Prefer, any, Restart;
        /// Certificate chain, PEM.
        cert: PathBuf = PathBuf::new(), any, Restart;
        /// Its private key, PEM.
        key: PathBuf = PathBuf::new(), any, Restart;
        /// Certificates (PEM) one of which must vouch for the client's own.
        client_ca: Option<PathBuf> = None, any, Restart;
    }
}

options! {
    /// The HTTP listener and the console.
    pub struct Admin in "admin" {
        /// IP address and port of /metrics, /healthz, /readyz, /api/v1/… and the page at /; "": no HTTP.
        address: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 9432))), any, Restart;
        /// Who may open the databases "pgsplit" and "pgbouncer"; by default the first [[user]].
        console_users: Vec<String> = Vec::new(), any, Live;
    }
}

words! {
    pub enum PoolMode {
        /// A server connection for each transaction.
        Transaction = "transaction",
        /// Server connections for as long as the client stays.
        Session = "session",
        /// A server connection for each statement; transactions are refused.
        Statement = "statement",
    }
}

words! {
    pub enum PinPolicy {
        /// A session that leaves state in a server connection keeps it.
        Auto = "auto",
        /// It is ended with an error that names the state.
        Error = "error",
    }
}

options! {
    /// Server connections of one database, user and node.
    pub struct Pool: Eq, Hash in "pool" {
        /// "transaction", "session" or "statement": how long a client keeps a server connection.
        mode: PoolMode = PoolMode::Transaction, any, Live;
        /// "auto" or "error": a session that leaves state in a server connection (temporary tables,
        /// session locks, LISTEN, …) keeps it, or is ended.
        pin: PinPolicy = PinPolicy::Auto, any, Live;
        /// Server connections at most.
        max_size: usize = 20, within(1, 10_000), Live;
        /// Server connections kept open without work.
        min_idle: usize = 0, within(0, 10_000), Live;
        /// How long a request waits for a server connection before it fails with 53300.
        acquire_timeout: Duration = secs(5), within(ms(1), HOUR), Live;
        /// How long a request waits for RESUME while its database is paused, before it fails with 57P03.
        pause_timeout: Duration = secs(120), within(secs(1), DAY), Live;
        /// What part of the primary's pool may be in use by reads that no replica could serve.
        primary_reads_share: Percent = Percent(80), within(Percent(1), Percent(100)), Live;
        /// How long connecting and logging in to a node may take.
        connect_timeout: Duration = secs(3), within(ms(1), HOUR), Live;
        /// A server connection without work for so long is closed.
        idle_timeout: Duration = secs(600), within(secs(1), secs(365 * 86_400)), Live;
        /// A server connection of this age is closed once it is free.
        max_lifetime: Duration = HOUR, within(secs(1), secs(365 * 86_400)), Live;
        /// Statements that one server connection keeps prepared.
        prepared_statements: usize = 200, within(1, 100_000), Live;
    }
}

options! {
    /// Which node serves a read.
    pub struct Routing in "routing" {
        /// "eventual", "session" or "global": what a read must have seen.
        consistency: Consistency = Consistency::Session, any, Live;
        /// A write concerns the tables that it changed, so that reads of others needn't wait for it.
        track_tables: bool = true, any, Live;
        /// "least_lag", "least_connections", "round_robin" or "random": the choice among replicas.
        balance: Balance = Balance::LeastLag, any, Live;
        /// A replica that lags more, in time, serves no reads.
        max_lag: Duration = secs(10), within(ms(0), DAY), Live;
        /// A replica that lags more, in bytes of WAL, serves no reads.
        max_lag_bytes: u64 = 64 << 20, any, Live;
        /// Replicas this close to the least lagged one count as equal.
        lag_tolerance: Duration = ms(100), within(ms(0), DAY), Live;
        /// How long a read waits for a replica to catch up before it goes to the primary.
        wait_for_replica: Duration = ms(0), within(ms(0), HOUR), Live;
        /// "split", "primary" (replicas only for what asks for them) or "shadow" (all to the primary, but counted).
        mode: RoutingMode = RoutingMode::Split, any, Live;
        /// "primary" or "error": what becomes of a read that no replica may serve.
        read_fallback: ReadFallback = ReadFallback::Primary, any, Live;
        /// Where this proxy runs: replicas of the same zone are preferred.
        zone: Arc<str> = Arc::from(""), any, Live;
        /// "auto", "primary" or "replica": what sessions start with as pgsplit.route.
        route: RouteOverride = RouteOverride::Auto, any, Live;
        /// "primary" or "optimistic": where a transaction begins that may write (BEGIN without READ ONLY).
        transactions: Transactions = Transactions::Primary, any, Live;
    }
}

options! {
    /// How nodes are watched.
    pub struct Monitor in "monitor" {
        /// Time from one question to a node to the next.
        interval: Duration = ms(250), within(ms(10), secs(60)), Restart;
        /// A question without an answer for so long has failed.
        timeout: Duration = secs(1), within(ms(10), secs(60)), Restart;
        /// A node is down after so many failures in a row.
        down_after: u32 = 2, within(1, 100), Restart;
        /// A node is up again after so many answers in a row.
        up_after: u32 = 3, within(1, 100), Restart;
        /// Who asks; by default the first [[user]].
        user: String = String::new(), |user: &String| name(user), Restart;
        /// Text; by default that [[user]]'s.
        password: Option<Secret> = None, any, Live;
        /// A file with the password in its first line.
        password_file: Option<PathBuf> = None, any, Live;
        /// Where to ask, as the nodes name it; by default the first [[database]].
        database: String = String::new(), |database: &String| name(database), Restart;
    }
}

words! {
    pub enum FailoverMode {
        /// Someone else promotes; the new primary is found and used.
        Follow = "follow",
        /// pgsplit promotes a replica in the place of a lost primary.
        Promote = "promote",
        /// Requests aren't held while there is no primary.
        Off = "off",
    }
}

words! {
    pub enum Discovery {
        /// The nodes are those of the configuration.
        Static = "static",
        /// They are those that Patroni lists.
        Patroni = "patroni",
        /// They are all addresses that the configured names lead to.
        Dns = "dns",
    }
}

options! {
    /// What happens while the primary is lost.
    pub struct Failover in "failover" {
        /// "follow": someone else promotes, writes are held meanwhile; "promote": pgsplit does; "off":
        /// someone else, and writes fail at once.
        mode: FailoverMode = FailoverMode::Follow, any, Live;
        /// How long a write waits for a new primary.
        hold: Duration = secs(30), within(ms(0), HOUR), Live;
        /// Requests that may wait at a time.
        hold_max: usize = 1000, within(0, 1_000_000), Live;
        /// The next primary is asked what became of a COMMIT whose answer was lost with the last one.
        resolve_commits: bool = false, any, Live;
        /// Nothing else promotes: no other pgsplit, no Patroni. "promote" needs it.
        sole_promoter: bool = false, any, Live;
        /// "promote": how long the primary must be lost.
        confirm: Duration = secs(1), within(ms(100), HOUR), Live;
        /// "promote": nothing is promoted where more WAL than this could be lost.
        max_loss_bytes: u64 = 16 << 20, any, Live;
        /// A switchover that isn't ready to promote by then is undone.
        switchover_timeout: Duration = secs(10), within(ms(100), HOUR), Live;
        /// A program that promotes, and makes nodes follow, instead of SQL.
        command: Option<PathBuf> = None, absolute, Live;
        /// Who fences and promotes; by default [monitor]'s user.
        user: String = String::new(), |user: &String| name(user), Live;
        /// Text; by default that user's.
        password: Option<Secret> = None, any, Live;
        /// A file with the password in its first line.
        password_file: Option<PathBuf> = None, any, Live;
        /// "static": the nodes are those of the configuration; "patroni": those that Patroni lists;
        /// "dns": one for each address that a node's host leads to.
        discovery: Discovery = Discovery::Static, any, Restart;
        /// How often Patroni or DNS is asked.
        discovery_interval: Duration = secs(1), within(ms(100), HOUR), Restart;
        /// Patroni's REST API at any of its members: a list of URLs such as "http://10.0.0.1:8008".
        patroni: Vec<String> = Vec::new(), |urls: &Vec<String>| http_urls(urls), Restart;
    }
}

options! {
    /// Passwords of users that the configuration doesn't have, asked of the nodes.
    pub struct Auth in "auth" {
        /// Gives a user's name and password (as in a [[user]]) for the name $1; by default nobody is asked.
        query: Option<String> = None, any, Live;
        /// Who asks; by default [monitor]'s user.
        user: String = String::new(), |user: &String| name(user), Live;
        /// Text; by default that user's.
        password: Option<Secret> = None, any, Live;
        /// A file with the password in its first line.
        password_file: Option<PathBuf> = None, any, Live;
        /// Where to ask, as the nodes name it; by default [monitor]'s database.
        database: String = String::new(), |database: &String| name(database), Live;
        /// How long an answer is used. After a failed login it is asked for again.
        cache: Duration = secs(30), within(ms(0), HOUR), Live;
        /// Users whose answers are kept.
        cache_users: usize = 1000, within(1, 100_000), Live;
    }
}

words! {
    pub enum LogFormat {
        Text = "text",
        Json = "json",
    }
}

words! {
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
    }
}

options! {
    /// The log, on standard error.
    pub struct Log in "log" {
        /// "text" or "json".
        format: LogFormat = LogFormat::Text, any, Restart;
        /// "error", "warn", "info" or "debug".
        level: LogLevel = LogLevel::Info, any, Restart;
    }
}

words! {
    /// What a node is expected to be.
    pub enum NodeRole {
        /// Whatever it says it is.
        Auto = "auto",
        /// Used only while it says that it is a primary.
        Primary = "primary",
        /// Used only while it says that it is a replica.
        Replica = "replica",
    }
}

/// The largest share of the reads.
pub const MOST_WEIGHT: u32 = 1000;

options! {
    /// One PostgreSQL server.
    pub struct Node in "node" {
        /// How logs, metrics and commands call it; by default its host.
        name: Arc<str> = Arc::from(""), |text: &Arc<str>| name(text), Live;
        /// A name, an address, or a socket directory such as "/run/postgresql".
        host: Host = Host::Tcp(String::new()), any, Live;
        port: u16 = 5432, within(1, u16::MAX), Live;
        /// Where it runs; see routing.zone.
        zone: Arc<str> = Arc::from(""), any, Live;
        /// Its share of the reads, relative to the others'; 0: none. SET WEIGHT at the console changes it while it runs.
        weight: u32 = 100, within(0, MOST_WEIGHT), Live;
        /// "auto": whatever it says it is; "primary" or "replica": used only while it is that.
        role: NodeRole = NodeRole::Auto, any, Live;
    }
    tables {
        tls: NodeTls = NodeTls::default();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of the socket.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.write_str(host),
            Self::Unix(directory) => directory.display().fmt(f),
        }
    }
}

words! {
    /// libpq's `sslmode`, as far as supported.
    pub enum SslMode {
        Disable = "disable",
        Prefer = "prefer",
        Require = "require",
        VerifyFull = "verify-full",
    }
}

options! {
    /// TLS to a node.
    pub struct NodeTls in "node.tls" {
        /// "disable", "prefer", "require" (without looking at the certificate) or "verify-full".
        sslmode: SslMode = SslMode::Prefer, any, Live;
        /// Certificates (PEM) that vouch for the node; by default the system's.
        ca: Option<PathBuf> = None, any, Live;
        /// Our own certificate, PEM.
        cert: Option<PathBuf> = None, any, Live;
        /// Its private key, PEM.
        key: Option<PathBuf> = None, any, Live;
    }
}

options! {
    /// A database that clients may connect to.
    pub struct Database in "database" {
        /// As clients name it; "*" for any.
        name: String = String::new(), |text: &String| name(text), Live;
        /// As the nodes name it; by default as clients do.
        dbname: Option<String> = None, any, Live;
    }
    tables {
        pool: Pool = Pool::default();
        routing: Routing = Routing::default();
    }
}

options! {
    /// A user whom clients may log in as.
    pub struct User in "user" {
        name: String = String::new(), |text: &String| name(text), Live;
        /// Text, "SCRAM-SHA-256$…" or "md5…".
        password: Option<Secret> = None, any, Live;
        /// A file with the password in its first line.
        password_file: Option<PathBuf> = None, any, Live;
        /// When the nodes know the user by another name.
        server_user: Option<String> = None, any, Live;
        /// By default the password above.
        server_password: Option<Secret> = None, any, Live;
    }
    tables {
        /// What differs from the database's.
        routing: Overrides = Overrides::default();
    }
}

/// A part of something, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

impl Percent {
    /// That part of `whole`, rounded down, but at least one.
    #[must_use]
    pub fn of(self, whole: usize) -> usize {
        (whole.saturating_mul(usize::from(self.0)) / 100).max(1)
    }
}

/// A password or verifier. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Settings {
    /// The entry for a database that a client names; the one named `*` when no other fits.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Database> {
        let named = |wanted: &str| self.databases.iter().find(|db| db.name == wanted);
        named(name).or_else(|| named("*"))
    }

    /// The entry for a user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// How requests of this user in this database are routed: the user's own options, then the
    /// database's, then `[routing]`.
    #[must_use]
    pub fn routing_for(&self, database: &Database, user: &User) -> Routing {
        user.routing.apply(&database.routing)
    }
}

/// A section that the file may have.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub name: &'static str,
    pub keys: &'static [Key],
    /// Sections inside it.
    pub tables: &'static [&'static str],
}

/// Every section of the file.
#[must_use]
pub fn sections() -> [Section; 16] {
    fn section<T: Options>(name: &'static str) -> Section {
        Section {
            name,
            keys: T::KEYS,
            tables: T::TABLES,
        }
    }
    [
        section::<Listen>(Listen::SECTION),
        section::<ListenTls>(ListenTls::SECTION),
        section::<Admin>(Admin::SECTION),
        section::<Pool>(Pool::SECTION),
        section::<Routing>(Routing::SECTION),
        section::<Monitor>(Monitor::SECTION),
        section::<Failover>(Failover::SECTION),
        section::<Auth>(Auth::SECTION),
        section::<Log>(Log::SECTION),
        section::<Node>(Node::SECTION),
        section::<NodeTls>(NodeTls::SECTION),
        section::<Database>(Database::SECTION),
        section::<Pool>("database.pool"),
        section::<Routing>("database.routing"),
        section::<User>(User::SECTION),
        section::<Routing>("user.routing"),
    ]
}
