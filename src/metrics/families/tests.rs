//! The text format as a scraper reads it.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    cluster::NodeId,
    error::Fault,
    routing::{Route, Target},
    sql::Why,
};

/// One family as read back.
#[derive(Debug, Default)]
struct Parsed {
    kind: String,
    /// By what stands before the value.
    samples: BTreeMap<String, f64>,
}

/// Reads the text format strictly: HELP, TYPE, samples of that name, each series once.
fn parse(text: &str) -> BTreeMap<String, Parsed> {
    let mut families: BTreeMap<String, Parsed> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && help.len() > 5, "{line}");
            assert!(!families.contains_key(name), "{name} twice");
            current = name.to_owned();
            families.insert(current.clone(), Parsed::default());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(&*current).expect(line);
            let suffixes: &[&str] = match &*family.kind {
                "counter" | "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("{other}"),
            };
            assert!(suffixes.contains(&suffix), "{line}");
            let value = value.parse().unwrap();
            let before = family.samples.insert(series.to_owned(), value);
            assert_eq!(before, None, "{series} twice");
        }
    }
    families
}

fn node(name: &str, role: Role, health: Health) -> NodeRow {
    NodeRow {
        id: NodeId(u16::from(role == Role::Replica)),
        name: name.into(),
        host: "h".into(),
        port: 5432,
        zone: "".into(),
        weight: 1,
        role,
        health,
        leaving: false,
        timeline: None,
        lsn: None,
        lag: Some(Duration::from_millis(1_500)),
        lag_bytes: Some(7),
        version: None,
        in_flight: 3,
        since: None,
        error: None,
    }
}

fn scrape() -> Scrape {
    Scrape {
        nodes: vec![
            node("pg1", Role::Primary, Health::Up),
            node("pg\"2\\\n", Role::Replica, Health::Suspect),
            node("pg3", Role::Unknown, Health::Down),
        ],
        pools: Vec::new(),
        events: EventCounts {
            by_kind: vec![("health", 3)],
            refusals: vec![("loss", 1)],
        },
        class_cache: Some(CacheStats {
            skeleton_hits: 5,
            misses: 2,
            ..CacheStats::default()
        }),
        process: Some(ProcessRow {
            cpu_seconds: 1.5,
            max_fds: Some(1024),
            ..ProcessRow::default()
        }),
    }
}

fn route(target: Target, reason: Reason) -> Route {
    Route { target, reason }
}

#[test]
fn all_families_of_the_contract_are_there_with_their_labels() {
    let metrics = Metrics::new(2);
    let families = parse(&metrics.text(&scrape()).unwrap());
    let contract = [
        ("pgsplit_client_connections", "gauge", ""),
        (
            "pgsplit_server_connections",
            "gauge",
            "{node=\"pg1\",state=\"idle\"}",
        ),
        (
            "pgsplit_queries_total",
            "counter",
            "{route=\"primary\",node=\"pg1\"}",
        ),
        (
            "pgsplit_primary_reads_total",
            "counter",
            "{reason=\"watermark\"}",
        ),
        (
            "pgsplit_query_duration_seconds",
            "histogram",
            "_bucket{le=\"0.00005\"}",
        ),
        (
            "pgsplit_pool_wait_seconds",
            "histogram",
            "_bucket{le=\"+Inf\"}",
        ),
        (
            "pgsplit_replica_lag_seconds",
            "gauge",
            "{node=\"pg\\\"2\\\\\\n\"}",
        ),
        (
            "pgsplit_replica_lag_bytes",
            "gauge",
            "{node=\"pg\\\"2\\\\\\n\"}",
        ),
        (
            "pgsplit_node_up",
            "gauge",
            "{node=\"pg3\",role=\"unknown\"}",
        ),
        (
            "pgsplit_retries_total",
            "counter",
            "{reason=\"recovery_conflict\"}",
        ),
        ("pgsplit_held_requests", "gauge", ""),
        ("pgsplit_failovers_total", "counter", ""),
        ("pgsplit_pins_total", "counter", "{reason=\"listen\"}"),
        ("pgsplit_logins_total", "counter", "{result=\"ok\"}"),
        ("pgsplit_pool_timeouts_total", "counter", ""),
        (
            "pgsplit_class_cache_hits_total",
            "counter",
            "{by=\"skeleton\"}",
        ),
        ("pgsplit_class_cache_misses_total", "counter", ""),
        ("pgsplit_unparsed_statements_total", "counter", ""),
        ("pgsplit_received_bytes_total", "counter", ""),
        ("pgsplit_sent_bytes_total", "counter", ""),
        ("process_cpu_seconds_total", "counter", ""),
        ("process_resident_memory_bytes", "gauge", ""),
    ];
    for (name, kind, labels) in contract {
        let family = families.get(name).expect(name);
        assert_eq!(family.kind, kind, "{name}");
        let series = format!("{name}{labels}");
        assert!(
            family.samples.contains_key(&series),
            "{series}: {:?}",
            family.samples
        );
    }
    let lag = &families["pgsplit_replica_lag_seconds"].samples;
    assert_eq!(lag.values().collect::<Vec<_>>(), [&1.5], "replicas only");
    let up = &families["pgsplit_node_up"].samples;
    assert_eq!(up["pgsplit_node_up{node=\"pg1\",role=\"primary\"}"], 1.0);
    assert_eq!(up["pgsplit_node_up{node=\"pg3\",role=\"unknown\"}"], 0.0);
    let build = &families["pgsplit_build_info"].samples;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        build[&format!("pgsplit_build_info{{version=\"{version}\"}}")],
        1.0
    );
    assert!(!families.contains_key("process_open_fds"), "not known");
}

#[test]
fn without_nodes_and_process_the_text_is_still_valid() {
    parse(&Metrics::new(0).text(&Scrape::default()).unwrap());
}

#[test]
fn the_workers_shards_are_summed() {
    let metrics = Metrics::new(2);
    let workers = [metrics.worker(0), metrics.worker(1)];
    for worker in &workers {
        worker.query(
            route(Target::Primary, Reason::Statement(Why::Write)),
            Access::Primary(Why::Write),
            NodeId(0),
        );
        worker.query(
            route(Target::Replica(NodeId(1)), Reason::Read),
            Access::Read,
            NodeId(1),
        );
        worker.retry(RetryReason::ReadOnly);
        worker.pin(Pin::Listen);
        worker.login(LoginResult::Refused);
        worker.error(Fault::Node);
        worker.bytes(100, 7);
        worker.answered();
        worker.query_duration(Duration::from_micros(60));
        worker.query_duration(Duration::from_secs(31));
    }
    // Beyond the known nodes: counted nowhere, but no harm.
    workers[0].query(
        route(Target::Replica(NodeId(9)), Reason::Read),
        Access::Read,
        NodeId(u16::MAX),
    );
    let families = parse(&metrics.text(&scrape()).unwrap());
    let cases = [
        ("pgsplit_queries_total{route=\"primary\",node=\"pg1\"}", 2.0),
        (
            "pgsplit_queries_total{route=\"replica\",node=\"pg\\\"2\\\\\\n\"}",
            2.0,
        ),
        ("pgsplit_queries_total{route=\"none\",node=\"\"}", 2.0),
        ("pgsplit_retries_total{reason=\"read_only\"}", 2.0),
        ("pgsplit_pins_total{reason=\"listen\"}", 2.0),
        ("pgsplit_logins_total{result=\"refused\"}", 2.0),
        ("pgsplit_errors_total{fault=\"node\"}", 2.0),
        ("pgsplit_received_bytes_total", 200.0),
        ("pgsplit_sent_bytes_total", 14.0),
        ("pgsplit_query_duration_seconds_bucket{le=\"0.00005\"}", 0.0),
        ("pgsplit_query_duration_seconds_bucket{le=\"0.0001\"}", 2.0),
        ("pgsplit_query_duration_seconds_bucket{le=\"30\"}", 2.0),
        ("pgsplit_query_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("pgsplit_query_duration_seconds_count", 4.0),
        ("pgsplit_query_duration_seconds_sum", 62.000_12),
    ];
    for (series, value) in cases {
        let found = families
            .values()
            .find_map(|family| family.samples.get(series));
        assert_eq!(found, Some(&value), "{series}");
    }
}

#[test]
fn only_reads_on_the_primary_are_counted_by_reason() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    let primary = |reason, access| worker.query(route(Target::Primary, reason), access, NodeId(0));
    primary(Reason::Statement(Why::Write), Access::Primary(Why::Write));
    primary(Reason::Transaction, Access::Primary(Why::Ddl));
    primary(Reason::Transaction, Access::Anywhere);
    assert!(metrics.primary_reads().is_empty());
    primary(Reason::Transaction, Access::Read);
    primary(Reason::Watermark, Access::Read);
    primary(
        Reason::Statement(Why::Function),
        Access::Primary(Why::Function),
    );
    primary(Reason::Transaction, Access::Primary(Why::Unparsable));
    primary(Reason::Hint, Access::Read);
    primary(Reason::Statement(Why::Hint), Access::Primary(Why::Hint));
    worker.query(
        route(Target::Replica(NodeId(1)), Reason::Read),
        Access::Read,
        NodeId(1),
    );
    let expected = [
        ("in_transaction", 2),
        ("hint", 2),
        ("watermark", 1),
        ("function", 1),
    ];
    assert_eq!(metrics.primary_reads(), expected);
}

#[test]
fn reads_on_replicas_are_counted_by_reason_but_plain_ones() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    let replica = Target::Replica(NodeId(1));
    for (reason, access) in [
        (Reason::OptimisticTransaction, Access::Read),
        (Reason::OptimisticTransaction, Access::Anywhere),
        (Reason::Read, Access::Read),
    ] {
        worker.query(route(replica, reason), access, NodeId(1));
    }
    worker.moved();
    let families = parse(&metrics.text(&scrape()).unwrap());
    let reads = &families["pgsplit_replica_reads_total"].samples;
    assert_eq!(
        reads["pgsplit_replica_reads_total{reason=\"optimistic_transaction\"}"],
        1.0
    );
    assert_eq!(reads.values().sum::<f64>(), 1.0);
    let moves = &families["pgsplit_transaction_moves_total"].samples;
    assert_eq!(moves["pgsplit_transaction_moves_total"], 1.0);
}

#[test]
fn guards_count_for_as_long_as_they_live_whoever_drops_them() {
    let metrics = Metrics::new(2);
    let (first, second) = (metrics.worker(0), metrics.worker(1));
    let one = first.client();
    let two = second.client();
    let held = second.held();
    assert_eq!((metrics.clients(), metrics.held()), (2, 1));
    drop((one, held));
    std::thread::spawn(move || drop(two)).join().unwrap();
    assert_eq!((metrics.clients(), metrics.held()), (0, 0));
}
