//! The tables that SHOW gives: columns and rows. The HTTP API gives the same ones as objects.
//!
//! Where PgBouncer has a table of that name, its columns come first, with its names, types and
//! order (1.18, then what newer ones added); behind them come pgsplit's own.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use super::{averages::Averages, operators::Operators, parse::Show};
use crate::{
    admin::time::utc,
    config::Reload,
    metrics::{
        Inspect, Metrics,
        inspect::{
            ClientState, NodeRow, Phase, PoolRow, ServerState, StatsRow, health_name, role_name,
        },
    },
};

/// A column's name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Column(pub(in crate::admin) &'static str, pub(in crate::admin) Type);

/// The types that the console has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Type {
    Bool,
    Text,
    Int4,
    Int8,
    Numeric,
    Float8,
}

/// A value in text form, or NULL.
pub(in crate::admin) type Cell = Option<String>;

/// Columns and rows.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Table {
    pub(in crate::admin) columns: Cow<'static, [Column]>,
    pub(in crate::admin) rows: Vec<Vec<Cell>>,
}

/// What tables are made from.
pub(in crate::admin) struct Sources<'a> {
    pub(in crate::admin) inspect: &'a dyn Inspect,
    pub(in crate::admin) metrics: &'a Metrics,
    pub(in crate::admin) averages: &'a Averages,
    pub(in crate::admin) operators: &'a Operators,
    pub(in crate::admin) now: Instant,
    pub(in crate::admin) wall: SystemTime,
    /// As the database `pgbouncer`: one row for each database and user in SHOW POOLS, because its
    /// tools take these two for a key.
    pub(in crate::admin) pgbouncer: bool,
}

const fn text(name: &'static str) -> Column {
    Column(name, Type::Text)
}

const fn int4(name: &'static str) -> Column {
    Column(name, Type::Int4)
}

const fn int8(name: &'static str) -> Column {
    Column(name, Type::Int8)
}

const fn numeric(name: &'static str) -> Column {
    Column(name, Type::Numeric)
}

const HELP: [Column; 2] = [text("command"), text("effect")];
const VERSION: [Column; 1] = [text("version")];
const KEY_VALUE: [Column; 2] = [text("key"), text("value")];
/// PgBouncer's tools insist on four columns here, and on two in [`LISTS`].
const CONFIG: [Column; 4] = [
    text("key"),
    text("value"),
    text("default"),
    text("changeable"),
];
const LISTS: [Column; 2] = [text("list"), int4("items")];
const USERS: [Column; 4] = [
    text("name"),
    text("pool_mode"),
    int4("current_connections"),
    int4("current_client_connections"),
];
const EVENTS: [Column; 4] = [text("time"), text("kind"), text("node"), text("message")];
const QUERIES: [Column; 5] = [
    text("fingerprint"),
    text("reason"),
    int8("count"),
    int8("at_least"),
    text("query"),
];
const TOTALS: [Column; 2] = [text("name"), numeric("value")];

const NODES: [Column; 17] = [
    text("name"),
    text("host"),
    int4("port"),
    text("role"),
    text("health"),
    Column("lag_seconds", Type::Float8),
    int8("lag_bytes"),
    text("lsn"),
    int4("timeline"),
    int4("version"),
    text("zone"),
    int4("weight"),
    int8("in_flight"),
    int4("sv_active"),
    int4("sv_idle"),
    int8("since_seconds"),
    text("error"),
];

const DATABASES: [Column; 15] = [
    text("name"),
    text("host"),
    int4("port"),
    text("database"),
    text("force_user"),
    int4("pool_size"),
    int4("min_pool_size"),
    int4("reserve_pool"),
    text("pool_mode"),
    int4("max_connections"),
    int4("current_connections"),
    int4("paused"),
    int4("disabled"),
    int4("server_lifetime"),
    int4("current_client_connections"),
];

const POOLS: [Column; 18] = [
    text("database"),
    text("user"),
    int4("cl_active"),
    int4("cl_waiting"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active"),
    int4("sv_active_cancel"),
    int4("sv_being_canceled"),
    int4("sv_idle"),
    int4("sv_used"),
    int4("sv_tested"),
    int4("sv_login"),
    int4("maxwait"),
    int4("maxwait_us"),
    text("pool_mode"),
    text("node"),
    int4("max_size"),
];

const CLIENTS: [Column; 24] = [
    text("type"),
    text("user"),
    text("database"),
    text("state"),
    text("addr"),
    int4("port"),
    text("local_addr"),
    int4("local_port"),
    text("connect_time"),
    text("request_time"),
    int4("wait"),
    int4("wait_us"),
    int4("close_needed"),
    text("ptr"),
    text("link"),
    int4("remote_pid"),
    text("tls"),
    text("application_name"),
    int4("prepared_statements"),
    int8("id"),
    text("node"),
    Column("in_transaction", Type::Bool),
    text("pinned"),
    text("watermark"),
];

const SERVERS: [Column; 21] = [
    text("type"),
    text("user"),
    text("database"),
    text("state"),
    text("addr"),
    int4("port"),
    text("local_addr"),
    int4("local_port"),
    text("connect_time"),
    text("request_time"),
    int4("wait"),
    int4("wait_us"),
    int4("close_needed"),
    text("ptr"),
    text("link"),
    int4("remote_pid"),
    text("tls"),
    text("application_name"),
    int4("prepared_statements"),
    int8("id"),
    text("node"),
];

const STATS: [Column; 24] = [
    text("database"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("total_server_assignment_count"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("total_replica_query_count"),
];

const STATS_TOTALS: [Column; 13] = [
    text("database"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("server_assignment_count"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("replica_query_count"),
];

const STATS_AVERAGES: [Column; 12] = [
    text("database"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("server_assignment_count"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
];

/// The table's columns, without making the table.
pub(in crate::admin) fn columns(show: Show) -> &'static [Column] {
    match show {
        Show::Help => &HELP,
        Show::Version => &VERSION,
        Show::Config => &CONFIG,
        Show::Databases => &DATABASES,
        Show::Nodes => &NODES,
        Show::Pools => &POOLS,
        Show::Clients => &CLIENTS,
        Show::Servers => &SERVERS,
        Show::Stats => &STATS,
        Show::StatsTotals => &STATS_TOTALS,
        Show::StatsAverages => &STATS_AVERAGES,
        Show::Totals => &TOTALS,
        Show::Queries => &QUERIES,
        Show::Lists => &LISTS,
        Show::Users => &USERS,
        Show::Events => &EVENTS,
        Show::State => &KEY_VALUE,
    }
}

/// The table as it is now.
pub(in crate::admin) fn table(show: Show, from: &Sources<'_>) -> Table {
    let rows = match show {
        Show::Help => help(),
        Show::Version => rows([[some(super::VERSION)]]),
        Show::Config => config(from),
        Show::Databases => databases(from),
        Show::Nodes => nodes(from),
        Show::Pools => pools(from),
        Show::Clients => clients(from),
        Show::Servers => servers(from),
        Show::Stats => stats(from),
        Show::StatsTotals => stats_totals(from),
        Show::StatsAverages => stats_averages(from),
        Show::Totals => totals(from),
        Show::Queries => queries(from),
        Show::Lists => lists(from),
        Show::Users => users(from),
        Show::Events => events(from),
        Show::State => state(from),
    };
    Table {
        columns: Cow::Borrowed(columns(show)),
        rows,
    }
}

fn some(value: impl ToString) -> Cell {
    Some(value.to_string())
}

fn opt(value: Option<impl ToString>) -> Cell {
    value.map(|value| value.to_string())
}

fn flag(value: bool) -> Cell {
    some(u8::from(value))
}

/// Rows of a fixed width: a row can't have more or fewer cells than its table has columns.
fn rows<const N: usize>(rows: impl IntoIterator<Item = [Cell; N]>) -> Vec<Vec<Cell>> {
    rows.into_iter().map(Vec::from).collect()
}

fn help() -> Vec<Vec<Cell>> {
    const COMMANDS: [(&str, &str); 13] = [
        (
            "EXPLAIN ROUTE [FOR database] statement",
            "where a statement would go, and why",
        ),
        (
            "PAUSE [database]",
            "let transactions end, close server connections, hold requests",
        ),
        ("RESUME [database]", "end a pause"),
        (
            "DISABLE NODE name",
            "give a node no more work (maintenance)",
        ),
        ("ENABLE NODE name", "give it work again"),
        (
            "RECONNECT [database]",
            "replace server connections as they become free",
        ),
        ("RELOAD", "read the configuration again"),
        (
            "KILL database",
            "drop its clients and server connections at once",
        ),
        ("KILL id", "drop one client (id from SHOW CLIENTS)"),
        ("SHUTDOWN", "stop at once"),
        (
            "SHUTDOWN WAIT_FOR_SERVERS",
            "stop when no server connection is in use",
        ),
        (
            "SHUTDOWN WAIT_FOR_CLIENTS",
            "stop when the last client has left",
        ),
        (
            "SET key = value",
            "accepted and ignored, for drivers that send it",
        ),
    ];
    let tables =
        Show::ALL.map(|topic| [some(format_args!("SHOW {}", topic.name)), some(topic.about)]);
    let commands = COMMANDS.map(|(command, effect)| [some(command), some(effect)]);
    rows::<{ HELP.len() }>(tables.into_iter().chain(commands))
}

fn config(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    rows::<{ CONFIG.len() }>(from.inspect.config().into_iter().map(|row| {
        let secret = looks_secret(&row.key);
        let mask = |value: String| {
            if secret && !value.is_empty() {
                "********".to_owned()
            } else {
                value
            }
        };
        [
            some(row.key),
            Some(mask(row.value)),
            Some(mask(row.default)),
            some(match row.reload {
                Reload::Live => "yes",
                Reload::Restart => "no",
            }),
        ]
    }))
}

/// Whether a setting's name says that its value isn't to be shown.
fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let last = key.rsplit('.').next().unwrap_or(&key);
    !last.ends_with("_file") && (last.contains("password") || last.contains("secret"))
}

fn databases(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let nodes = from.inspect.nodes();
    let hosts: Vec<_> = nodes.iter().map(|node| node.host.as_str()).collect();
    let hosts = hosts.join(",");
    let port = nodes.first().map(|node| node.port);
    let pools = from.inspect.pools();
    rows::<{ DATABASES.len() }>(from.inspect.databases().into_iter().map(|row| {
        let current: usize = pools
            .iter()
            .filter(|pool| pool.database == row.name)
            .map(servers_of)
            .sum();
        [
            some(&row.name),
            some(&hosts),
            opt(port),
            some(row.dbname),
            None,
            some(row.pool_size),
            some(row.min_idle),
            some(0),
            some(row.mode.name()),
            some(0),
            some(current),
            flag(row.paused),
            some(0),
            some(row.max_lifetime.as_secs()),
            some(row.clients),
        ]
    }))
}

fn servers_of(pool: &PoolRow) -> usize {
    pool.servers_active + pool.servers_idle + pool.servers_connecting
}

fn nodes(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let pools = from.inspect.pools();
    let row = |node: NodeRow| {
        let pools = || pools.iter().filter(|pool| pool.node == node.name);
        let active: usize = pools().map(|pool| pool.servers_active).sum();
        let idle: usize = pools().map(|pool| pool.servers_idle).sum();
        [
            some(&node.name),
            some(node.host),
            some(node.port),
            some(role_name(node.role)),
            some(health_name(node.health)),
            opt(node.lag.map(|lag| lag.as_secs_f64())),
            opt(node.lag_bytes),
            opt(node.lsn),
            opt(node.timeline),
            opt(node.version),
            some(node.zone),
            some(node.weight),
            some(node.in_flight),
            some(active),
            some(idle),
            opt(node.since.map(|since| since.as_secs())),
            node.error,
        ]
    };
    rows::<{ NODES.len() }>(from.inspect.nodes().into_iter().map(row))
}

fn pools(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let mut pools = from.inspect.pools();
    if from.pgbouncer {
        pools = per_database_and_user(pools);
    }
    rows::<{ POOLS.len() }>(pools.into_iter().map(|pool| {
        [
            some(pool.database),
            some(pool.user),
            some(pool.clients_active),
            some(pool.clients_waiting),
            some(0),
            some(0),
            some(pool.servers_active),
            some(0),
            some(0),
            some(pool.servers_idle),
            some(0),
            some(0),
            some(pool.servers_connecting),
            some(pool.max_wait.as_secs()),
            some(pool.max_wait.subsec_micros()),
            some(pool.mode.name()),
            some(pool.node),
            some(pool.max_size),
        ]
    }))
}

/// Sums over the nodes, whose names are joined.
fn per_database_and_user(mut pools: Vec<PoolRow>) -> Vec<PoolRow> {
    // Stable: the nodes keep their order.
    pools.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
    let mut sums: Vec<PoolRow> = Vec::new();
    for pool in pools {
        match sums.last_mut() {
            Some(sum) if (&sum.database, &sum.user) == (&pool.database, &pool.user) => {
                sum.node = format!("{},{}", sum.node, pool.node).into();
                sum.clients_active += pool.clients_active;
                sum.clients_waiting += pool.clients_waiting;
                sum.servers_active += pool.servers_active;
                sum.servers_idle += pool.servers_idle;
                sum.servers_connecting += pool.servers_connecting;
                sum.max_wait = sum.max_wait.max(pool.max_wait);
                sum.max_size += pool.max_size;
            }
            _ => sums.push(pool),
        }
    }
    sums
}

fn clients(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    rows::<{ CLIENTS.len() }>(from.inspect.clients().into_iter().map(|client| {
        let state = match client.state {
            ClientState::Login => "login",
            ClientState::Idle => "idle",
            ClientState::Active => "active",
            ClientState::Waiting => "waiting",
            ClientState::Held => "held",
        };
        [
            some("C"),
            some(client.user),
            some(client.database),
            some(state),
            some(
                client
                    .addr
                    .map_or("unix".to_owned(), |addr| addr.ip().to_string()),
            ),
            opt(client.addr.map(|addr| addr.port())),
            some(
                client
                    .local_addr
                    .map_or("unix".to_owned(), |addr| addr.ip().to_string()),
            ),
            opt(client.local_addr.map(|addr| addr.port())),
            some(from.ago(client.connected)),
            opt(client.request.map(|request| from.ago(request))),
            some(client.wait.as_secs()),
            some(client.wait.subsec_micros()),
            some(0),
            some(format_args!("C{}", client.id)),
            some(client.server.map_or(String::new(), |id| format!("S{id}"))),
            some(0),
            some(client.tls.unwrap_or_default()),
            some(client.application_name),
            some(client.prepared_statements),
            some(client.id),
            opt(client.node),
            some(if client.in_transaction { "t" } else { "f" }),
            opt(client.pinned),
            opt(client.watermark),
        ]
    }))
}

fn servers(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    rows::<{ SERVERS.len() }>(from.inspect.servers().into_iter().map(|server| {
        let state = match server.state {
            ServerState::Login => "login",
            ServerState::Idle => "idle",
            ServerState::Active => "active",
        };
        [
            some("S"),
            some(server.user),
            some(server.database),
            some(state),
            some(
                server
                    .addr
                    .map_or("unix".to_owned(), |addr| addr.ip().to_string()),
            ),
            opt(server.addr.map(|addr| addr.port())),
            some(
                server
                    .local_addr
                    .map_or("unix".to_owned(), |addr| addr.ip().to_string()),
            ),
            opt(server.local_addr.map(|addr| addr.port())),
            some(from.ago(server.connected)),
            opt(server.request.map(|request| from.ago(request))),
            some(0),
            some(0),
            flag(server.close_needed),
            some(format_args!("S{}", server.id)),
            some(server.client.map_or(String::new(), |id| format!("C{id}"))),
            some(server.pid),
            some(server.tls.unwrap_or_default()),
            some(server.application_name),
            some(server.prepared_statements),
            some(server.id),
            some(server.node),
        ]
    }))
}

fn stats(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    rows::<{ STATS.len() }>(from.inspect.stats().into_iter().map(|row| {
        let average = from.averages.average(from.now, &row);
        let total = row.totals;
        [
            some(row.database),
            some(total.transactions),
            some(total.queries),
            some(total.received),
            some(total.sent),
            some(total.transaction_micros),
            some(total.query_micros),
            some(total.wait_micros),
            some(average.transactions),
            some(average.queries),
            some(average.received),
            some(average.sent),
            some(average.transaction_micros),
            some(average.query_micros),
            some(average.wait_micros),
            some(total.assignments),
            some(total.client_parses),
            some(total.server_parses),
            some(total.binds),
            some(average.assignments),
            some(average.client_parses),
            some(average.server_parses),
            some(average.binds),
            some(total.replica_queries),
        ]
    }))
}

fn stats_totals(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    rows::<{ STATS_TOTALS.len() }>(from.inspect.stats().into_iter().map(|row| {
        let total = row.totals;
        [
            some(row.database),
            some(total.transactions),
            some(total.queries),
            some(total.received),
            some(total.sent),
            some(total.transaction_micros),
            some(total.query_micros),
            some(total.wait_micros),
            some(total.assignments),
            some(total.client_parses),
            some(total.server_parses),
            some(total.binds),
            some(total.replica_queries),
        ]
    }))
}

fn stats_averages(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let row = |row: StatsRow| {
        let average = from.averages.average(from.now, &row);
        [
            some(row.database),
            some(average.transactions),
            some(average.queries),
            some(average.received),
            some(average.sent),
            some(average.transaction_micros),
            some(average.query_micros),
            some(average.wait_micros),
            some(average.assignments),
            some(average.client_parses),
            some(average.server_parses),
            some(average.binds),
        ]
    };
    rows::<{ STATS_AVERAGES.len() }>(from.inspect.stats().into_iter().map(row))
}

/// SHOW STATS summed over the databases, a row for each total.
fn totals(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let stats = stats(from);
    let columns = STATS.iter().enumerate().skip(1);
    let sums = columns.filter(|(_index, column)| column.0.starts_with("total_"));
    rows::<{ TOTALS.len() }>(sums.map(|(index, column)| {
        let cells = stats.iter().filter_map(|row| row.get(index)?.as_deref());
        let sum: u64 = cells.filter_map(|cell| cell.parse::<u64>().ok()).sum();
        [some(column.0), some(sum)]
    }))
}

fn queries(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let statements = from.inspect.queries().into_iter().map(|row| {
        [
            some(format_args!("{:016x}", row.fingerprint)),
            some(row.reason),
            some(row.count),
            some(row.at_least),
            some(row.text),
        ]
    });
    // Behind the statements, all reads on the primary by reason.
    let reads = from.metrics.primary_reads().into_iter();
    let reads = reads.map(|(reason, count)| [None, some(reason), some(count), some(count), None]);
    rows::<{ QUERIES.len() }>(statements.chain(reads))
}

fn lists(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let clients = usize::try_from(from.metrics.clients()).unwrap_or(usize::MAX);
    let pools = from.inspect.pools();
    let free_servers: usize = pools.iter().map(|pool| pool.servers_idle).sum();
    let used_servers: usize = pools.iter().map(servers_of).sum::<usize>() - free_servers;
    let counts = [
        ("databases", from.inspect.databases().len()),
        ("users", from.inspect.users().len()),
        ("pools", pools.len()),
        (
            "free_clients",
            from.inspect.max_clients().saturating_sub(clients),
        ),
        ("used_clients", clients),
        ("login_clients", 0),
        ("free_servers", free_servers),
        ("used_servers", used_servers),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("nodes", from.inspect.nodes().len()),
        (
            "held_requests",
            usize::try_from(from.metrics.held()).unwrap_or(usize::MAX),
        ),
    ];
    rows::<{ LISTS.len() }>(counts.map(|(list, items)| [some(list), some(items)]))
}

fn users(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let users = from.inspect.users().into_iter();
    rows::<{ USERS.len() }>(
        users.map(|row| [some(row.name), None, some(row.servers), some(row.clients)]),
    )
}

fn events(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let mut events = from.inspect.events();
    events.extend(from.operators.list());
    events.sort_by_key(|event| event.at);
    rows::<{ EVENTS.len() }>(events.into_iter().map(|event| {
        [
            some(utc(event.at)),
            some(event.kind),
            event.node,
            some(event.message),
        ]
    }))
}

fn state(from: &Sources<'_>) -> Vec<Vec<Cell>> {
    let databases = from.inspect.databases();
    let paused = !databases.is_empty() && databases.iter().all(|database| database.paused);
    let ready = from.inspect.ready();
    let answers = [
        ("active", ready.phase == Phase::Listening && !paused),
        ("paused", paused),
        ("suspended", false),
        ("writable", ready.writable),
        ("readable", ready.readable),
        ("stopping", ready.phase == Phase::Stopping),
    ];
    let yes = |value| some(if value { "yes" } else { "no" });
    rows::<{ KEY_VALUE.len() }>(answers.map(|(key, value)| [some(key), yes(value)]))
}

impl Sources<'_> {
    /// The wall-clock time of so long ago, as PgBouncer writes it.
    fn ago(&self, age: Duration) -> String {
        utc(self.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}
