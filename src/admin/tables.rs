//! The tables that SHOW gives: columns and rows. The HTTP API gives the same ones as objects.

mod columns;

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

pub(super) use self::columns::columns;
use self::columns::{
    CLIENTS, CONFIG, DATABASES, EVENTS, HELP, KEY_VALUE, LISTS, NODES, POOLS, QUERIES, SERVERS,
    STATS, STATS_AVERAGES, STATS_TOTALS, TOTALS, USERS, VERSION,
};
use super::{lookout::Moment, time::utc};
use crate::{
    config::Reload,
    metrics::inspect::{
        ClientRow, ClientState, NodeRow, Phase, PoolRow, ServerState, StatsRow, health_name,
        role_name,
    },
};

/// A column's name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column(pub(super) &'static str, pub(super) Type);

/// The types that the console has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Text,
    Int4,
    Int8,
    Numeric,
    Float8,
}

/// A value in text form, or NULL.
pub(super) type Cell = Option<String>;

/// Columns and rows.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) columns: Cow<'static, [Column]>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Help,
    Version,
    Config,
    Databases,
    Nodes,
    Pools,
    Clients,
    Servers,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Queries,
    Lists,
    Users,
    Events,
    State,
}

/// A table's name, and what SHOW HELP says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) show: Show,
    pub(super) about: &'static str,
}

impl Show {
    /// Every table.
    pub(super) const ALL: [Topic; 17] = [
        Topic {
            name: "HELP",
            show: Self::Help,
            about: "this list",
        },
        Topic {
            name: "VERSION",
            show: Self::Version,
            about: "the version of pgsplit",
        },
        Topic {
            name: "CONFIG",
            show: Self::Config,
            about: "settings in force, with their defaults",
        },
        Topic {
            name: "DATABASES",
            show: Self::Databases,
            about: "databases as configured, and their connections",
        },
        Topic {
            name: "NODES",
            show: Self::Nodes,
            about: "nodes with role, health, lag and position",
        },
        Topic {
            name: "POOLS",
            show: Self::Pools,
            about: "server connections of each database, user and node, and who waits for them",
        },
        Topic {
            name: "CLIENTS",
            show: Self::Clients,
            about: "connected clients",
        },
        Topic {
            name: "SERVERS",
            show: Self::Servers,
            about: "server connections",
        },
        Topic {
            name: "STATS",
            show: Self::Stats,
            about: "totals of each database since the start, and averages of the last minute",
        },
        Topic {
            name: "STATS_TOTALS",
            show: Self::StatsTotals,
            about: "the totals alone",
        },
        Topic {
            name: "STATS_AVERAGES",
            show: Self::StatsAverages,
            about: "the averages alone",
        },
        Topic {
            name: "TOTALS",
            show: Self::Totals,
            about: "the totals of all databases together",
        },
        Topic {
            name: "QUERIES",
            show: Self::Queries,
            about: "statements that keep going to the primary, and reads there by reason",
        },
        Topic {
            name: "LISTS",
            show: Self::Lists,
            about: "how many there are of each thing",
        },
        Topic {
            name: "USERS",
            show: Self::Users,
            about: "users as configured, and their connections",
        },
        Topic {
            name: "EVENTS",
            show: Self::Events,
            about: "what happened lately: nodes, failovers, operators",
        },
        Topic {
            name: "STATE",
            show: Self::State,
            about: "whether pgsplit is active or paused, takes writes and reads",
        },
    ];
}

/// The table as it is now.
pub(super) fn table(show: Show, from: &Moment<'_>) -> Table {
    let rows = match show {
        Show::Help => help(),
        Show::Version => {
            rows::<{ VERSION.len() }>([[some(concat!("pgsplit ", env!("CARGO_PKG_VERSION")))]])
        }
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
    const COMMANDS: [(&str, &str); 16] = [
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
        (
            "SET WEIGHT name = 0..1000",
            "change a node's share of the reads until its settings change",
        ),
        ("ENABLE NODE name", "give it work again"),
        (
            "SWITCHOVER TO name",
            "make this replica the primary; writes are held meanwhile",
        ),
        (
            "FAILOVER [TO name] [FORCE]",
            "promote a replica in the place of a lost primary; FORCE: whatever is lost",
        ),
        (
            "RECONNECT [database]",
            "replace server connections as they become free",
        ),
        (
            "WAIT_CLOSE [database]",
            "wait until RECONNECT has replaced them all",
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
    ];
    let tables =
        Show::ALL.map(|topic| [some(format_args!("SHOW {}", topic.name)), some(topic.about)]);
    let commands = COMMANDS.map(|(command, effect)| [some(command), some(effect)]);
    rows::<{ HELP.len() }>(tables.into_iter().chain(commands))
}

fn config(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    rows::<{ CONFIG.len() }>(from.of.inspect.config().into_iter().map(|row| {
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

fn databases(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let nodes = from.of.inspect.nodes();
    let hosts: Vec<_> = nodes.iter().map(|node| node.host.as_str()).collect();
    let hosts = hosts.join(",");
    let port = nodes.first().map(|node| node.port);
    let pools = from.of.inspect.pools();
    rows::<{ DATABASES.len() }>(from.of.inspect.databases().into_iter().map(|row| {
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

fn nodes(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let pools = from.of.inspect.pools();
    let row = |node: NodeRow| {
        let pools = || pools.iter().filter(|pool| pool.node == node.name);
        let active: usize = pools().map(|pool| pool.servers_active).sum();
        let idle: usize = pools().map(|pool| pool.servers_idle).sum();
        [
            some(&node.name),
            some(node.host),
            some(node.port),
            some(role_name(node.role)),
            some(if node.leaving {
                "leaving"
            } else {
                health_name(node.health)
            }),
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
    rows::<{ NODES.len() }>(from.of.inspect.nodes().into_iter().map(row))
}

fn pools(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let mut pools = from.of.inspect.pools();
    if from.pgbouncer {
        pools = per_database_and_user(pools);
        count_clients(&mut pools, &from.of.inspect.clients());
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

/// PgBouncer counts clients at rest as active, and all that wait, for whatever.
fn count_clients(pools: &mut [PoolRow], clients: &[ClientRow]) {
    for pool in pools {
        let of_pool =
            |client: &&ClientRow| (&client.database, &client.user) == (&pool.database, &pool.user);
        let (waiting, active): (Vec<_>, Vec<_>) = clients
            .iter()
            .filter(of_pool)
            .partition(|client| matches!(client.state, ClientState::Waiting | ClientState::Held));
        pool.clients_active = active.len();
        pool.clients_waiting = waiting.len();
        let waits = waiting.iter().map(|client| client.wait);
        pool.max_wait = waits.fold(pool.max_wait, Ord::max);
    }
}

fn clients(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    rows::<{ CLIENTS.len() }>(from.of.inspect.clients().into_iter().map(|client| {
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
            opt(client.local_addr.map(|addr| addr.ip())),
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
            some(client.id),
            opt(client.node),
            some(if client.in_transaction { "t" } else { "f" }),
            opt(client.pinned),
        ]
    }))
}

fn servers(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let nodes = from.of.inspect.nodes();
    rows::<{ SERVERS.len() }>(from.of.inspect.servers().into_iter().map(|server| {
        let state = match server.state {
            ServerState::Login => "login",
            ServerState::Idle => "idle",
            ServerState::Active => "active",
        };
        // Where the address isn't known: the node's, as configured.
        let node = nodes.iter().find(|node| node.name == server.node);
        let (addr, port) = match server.addr {
            Some(addr) => (some(addr.ip()), some(addr.port())),
            None => (
                opt(node.map(|node| &node.host)),
                opt(node.map(|node| node.port)),
            ),
        };
        [
            some("S"),
            some(server.user),
            some(server.database),
            some(state),
            addr,
            port,
            opt(server.local_addr.map(|addr| addr.ip())),
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
            some(server.id),
            some(server.node),
        ]
    }))
}

fn stats(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    rows::<{ STATS.len() }>(from.of.inspect.stats().into_iter().map(|row| {
        let average = from.of.averages.average(from.now, &row);
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
            some(average.assignments),
            some(total.replica_queries),
        ]
    }))
}

fn stats_totals(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    rows::<{ STATS_TOTALS.len() }>(from.of.inspect.stats().into_iter().map(|row| {
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
            some(total.replica_queries),
        ]
    }))
}

fn stats_averages(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let row = |row: StatsRow| {
        let average = from.of.averages.average(from.now, &row);
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
        ]
    };
    rows::<{ STATS_AVERAGES.len() }>(from.of.inspect.stats().into_iter().map(row))
}

/// SHOW STATS summed over the databases, a row for each total.
fn totals(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let stats = stats(from);
    let columns = STATS.iter().enumerate().skip(1);
    let sums = columns.filter(|(_index, column)| column.0.starts_with("total_"));
    rows::<{ TOTALS.len() }>(sums.map(|(index, column)| {
        let cells = stats.iter().filter_map(|row| row.get(index)?.as_deref());
        let sum: u64 = cells.filter_map(|cell| cell.parse::<u64>().ok()).sum();
        [some(column.0), some(sum)]
    }))
}

fn queries(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let mut statements = from.of.inspect.queries();
    statements.sort_by(|a, b| (b.count, &a.text).cmp(&(a.count, &b.text)));
    let statements = statements
        .into_iter()
        .map(|row| [some(row.reason), some(row.count), some(row.text)]);
    // Behind the statements, all reads on the primary by reason.
    let mut reads = from.of.metrics.primary_reads();
    reads.sort_by_key(|(_reason, count)| std::cmp::Reverse(*count));
    let reads = reads
        .into_iter()
        .map(|(reason, count)| [some(reason), some(count), None]);
    rows::<{ QUERIES.len() }>(statements.chain(reads))
}

fn lists(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let clients = usize::try_from(from.of.metrics.clients()).unwrap_or(usize::MAX);
    let pools = from.of.inspect.pools();
    let free_servers: usize = pools.iter().map(|pool| pool.servers_idle).sum();
    let used_servers: usize = pools.iter().map(servers_of).sum::<usize>() - free_servers;
    let counts = [
        ("databases", from.of.inspect.databases().len()),
        ("users", from.of.inspect.users().len()),
        ("pools", pools.len()),
        (
            "free_clients",
            from.of.inspect.max_clients().saturating_sub(clients),
        ),
        ("used_clients", clients),
        ("login_clients", 0),
        ("free_servers", free_servers),
        ("used_servers", used_servers),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("nodes", from.of.inspect.nodes().len()),
        (
            "held_requests",
            usize::try_from(from.of.metrics.held()).unwrap_or(usize::MAX),
        ),
    ];
    rows::<{ LISTS.len() }>(counts.map(|(list, items)| [some(list), some(items)]))
}

fn users(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let users = from.of.inspect.users().into_iter();
    rows::<{ USERS.len() }>(
        users.map(|row| [some(row.name), None, some(row.servers), some(row.clients)]),
    )
}

fn events(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let mut events = from.of.inspect.events();
    events.extend(from.of.operators.list());
    events.sort_by_key(|event| event.at);
    rows::<{ EVENTS.len() }>(events.into_iter().map(|event| {
        [
            some(utc(event.at)),
            some(event.kind),
            event.node,
            some(event.message),
            event.from,
            event.to,
            some(event.cause),
            event.lsn.map(|lsn| lsn.to_string()),
            event.timeline.map(|timeline| timeline.to_string()),
        ]
    }))
}

fn state(from: &Moment<'_>) -> Vec<Vec<Cell>> {
    let databases = from.of.inspect.databases();
    let paused = !databases.is_empty() && databases.iter().all(|database| database.paused);
    let ready = from.of.inspect.ready();
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

impl Moment<'_> {
    /// The wall-clock time of so long ago, as PgBouncer writes it.
    fn ago(&self, age: Duration) -> String {
        utc(self.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}
