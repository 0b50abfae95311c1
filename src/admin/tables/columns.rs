//! The columns of the tables that SHOW gives.
//!
//! Where PgBouncer has a table of that name, its columns come first, with its names, types and
//! order (1.18, then what newer ones added); behind them come pgsplit's own.

use super::{Column, Show, Type};

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

pub(super) const HELP: [Column; 2] = [text("command"), text("effect")];
pub(super) const VERSION: [Column; 1] = [text("version")];
pub(super) const KEY_VALUE: [Column; 2] = [text("key"), text("value")];
/// PgBouncer's tools insist on four columns here, and on two in [`LISTS`].
pub(super) const CONFIG: [Column; 4] = [
    text("key"),
    text("value"),
    text("default"),
    text("changeable"),
];
pub(super) const LISTS: [Column; 2] = [text("list"), int4("items")];
pub(super) const USERS: [Column; 4] = [
    text("name"),
    text("pool_mode"),
    int4("current_connections"),
    int4("current_client_connections"),
];
pub(super) const EVENTS: [Column; 9] = [
    text("time"),
    text("kind"),
    text("node"),
    text("message"),
    text("old"),
    text("new"),
    text("cause"),
    text("lsn"),
    int4("timeline"),
];
/// Of all reads of a reason, `query` is NULL.
pub(super) const QUERIES: [Column; 3] = [text("reason"), int8("count"), text("query")];
pub(super) const TOTALS: [Column; 2] = [text("name"), numeric("value")];

pub(super) const NODES: [Column; 17] = [
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

pub(super) const DATABASES: [Column; 15] = [
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

pub(super) const POOLS: [Column; 18] = [
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

pub(super) const CLIENTS: [Column; 22] = [
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
    int8("id"),
    text("node"),
    Column("in_transaction", Type::Bool),
    text("pinned"),
];

pub(super) const SERVERS: [Column; 20] = [
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
    int8("id"),
    text("node"),
];

pub(super) const STATS: [Column; 18] = [
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
    numeric("avg_server_assignment_count"),
    numeric("total_replica_query_count"),
];

pub(super) const STATS_TOTALS: [Column; 10] = [
    text("database"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("server_assignment_count"),
    numeric("replica_query_count"),
];

pub(super) const STATS_AVERAGES: [Column; 9] = [
    text("database"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("server_assignment_count"),
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
