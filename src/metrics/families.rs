//! [`Metrics`]: the shards, and what a scrape makes of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::{
    TextEncoder,
    proto::{
        Bucket, Counter, Gauge, Histogram as HistogramValue, LabelPair, Metric, MetricFamily,
        MetricType,
    },
};

use super::{
    cells::{BOUNDS, Distribution, Histogram},
    inspect::{EventCounts, NodeRow, PoolRow, role_name},
    labels::{LoginResult, REASONS, RetryReason},
    worker::WorkerMetrics,
};
use crate::{
    cluster::{Health, NodeId, Role},
    routing::Reason,
    session::Pin,
    sql::{Access, CacheStats},
};

/// Everything that one proxy counts.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[Arc<WorkerMetrics>]>,
    failovers: AtomicU64,
    reloads: AtomicU64,
}

/// What a scrape needs beside the counters, looked up at that moment.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub nodes: Vec<NodeRow>,
    pub pools: Vec<PoolRow>,
    pub events: EventCounts,
    /// `None`: not shown.
    pub class_cache: Option<CacheStats>,
    /// `None` where the system doesn't tell.
    pub process: Option<ProcessRow>,
}

/// What the system says about this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessRow {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    /// Since 1970.
    pub start_seconds: f64,
    pub threads: u64,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}

impl Metrics {
    /// Shards for so many workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_worker| Arc::default()).collect(),
            failovers: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
        }
    }

    /// The shard for worker `index` to write; counts wrap around, so that every index has one.
    #[must_use]
    pub fn worker(&self, index: usize) -> Arc<WorkerMetrics> {
        let index = index % self.workers.len().max(1);
        self.workers.get(index).cloned().unwrap_or_default()
    }

    /// The primary has changed.
    pub fn failover(&self) {
        self.failovers.fetch_add(1, Relaxed);
    }

    /// The node has left: its counters are the next one's.
    pub fn node_left(&self, node: NodeId) {
        self.workers
            .iter()
            .for_each(|worker| worker.reset_node(node));
    }

    /// The configuration was read again and applied.
    pub fn reload(&self) {
        self.reloads.fetch_add(1, Relaxed);
    }

    /// Clients connected now.
    #[must_use]
    pub fn clients(&self) -> u64 {
        let parts = self.workers.iter().map(|w| w.clients.part());
        parts.fold(0, u64::wrapping_add)
    }

    /// Requests held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        let parts = self.workers.iter().map(|w| w.held.part());
        parts.fold(0, u64::wrapping_add)
    }

    /// Reads that had to go to the primary, by reason; those that never happened are left out.
    #[must_use]
    pub fn primary_reads(&self) -> Vec<(&'static str, u64)> {
        let counts = REASONS.iter().enumerate().map(|(index, reason)| {
            let count = self.sum(|w| w.primary_reads.get(index));
            (reason.name(), count)
        });
        counts.filter(|(_reason, count)| *count > 0).collect()
    }

    /// The text format (version 0.0.4) of all families.
    ///
    /// # Errors
    /// None in practice: what the encoder refuses (a family without a name or samples) is not made.
    pub fn text(&self, scrape: &Scrape) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.families(scrape))
    }

    fn families(&self, scrape: &Scrape) -> Vec<MetricFamily> {
        let mut families = self.client_families();
        families.extend(self.request_families(&scrape.nodes));
        families.extend(self.node_families(scrape));
        families.extend(event_families(&scrape.events));
        families.push(gauge(
            "pgsplit_build_info",
            "Always 1; the label tells which pgsplit this is.",
            vec![sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ));
        if let Some(cache) = scrape.class_cache {
            families.extend(cache_families(&cache));
        }
        if let Some(process) = scrape.process {
            families.extend(process_families(&process));
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }

    fn client_families(&self) -> Vec<MetricFamily> {
        vec![
            gauge(
                "pgsplit_client_connections",
                "Clients connected.",
                vec![sample(&[], as_f64(self.clients()))],
            ),
            counter(
                "pgsplit_logins_total",
                "Client logins, by how they ended.",
                self.by(&LoginResult::ALL, "result", LoginResult::name, |w, i| {
                    w.logins.get(i)
                }),
            ),
            counter(
                "pgsplit_received_bytes_total",
                "Bytes received from clients since their logins, counted when a client rests.",
                self.one(|w| &w.received),
            ),
            counter(
                "pgsplit_sent_bytes_total",
                "Bytes sent to clients since their logins, counted when a client rests.",
                self.one(|w| &w.sent),
            ),
            counter(
                "pgsplit_cancels_total",
                "Cancel requests received from clients.",
                self.one(|w| &w.cancels),
            ),
            counter(
                "pgsplit_errors_total",
                "Errors that pgsplit itself gave to clients, by whose fault they were.",
                self.by(
                    &["client", "node", "proxy"],
                    "fault",
                    |name| name,
                    |w, i| w.errors.get(i),
                ),
            ),
            counter(
                "pgsplit_unknown_outcomes_total",
                "Writes whose outcome could not be known (SQLSTATE 08007).",
                self.one(|w| &w.outcomes_unknown),
            ),
            counter(
                "pgsplit_reloads_total",
                "Configurations read again and applied.",
                vec![sample(&[], as_f64(self.reloads.load(Relaxed)))],
            ),
        ]
    }

    fn request_families(&self, nodes: &[NodeRow]) -> Vec<MetricFamily> {
        let mut queries = vec![sample(
            &[("route", "none"), ("node", "")],
            as_f64(self.sum(|w| Some(&w.answered))),
        )];
        for node in nodes {
            let index = node.id.index();
            let on_primary = self.sum(|w| Some(&w.nodes.get(index)?.primary_queries));
            let on_replica = self.sum(|w| Some(&w.nodes.get(index)?.replica_queries));
            for (route, count) in [("primary", on_primary), ("replica", on_replica)] {
                queries.push(sample(
                    &[("route", route), ("node", &node.name)],
                    as_f64(count),
                ));
            }
        }
        let reads = REASONS
            .iter()
            .enumerate()
            .filter(|(_index, reason)| sends_reads_to_primary(**reason))
            .map(|(index, reason)| {
                let count = self.sum(|w| w.primary_reads.get(index));
                sample(&[("reason", reason.name())], as_f64(count))
            });
        let on_replicas = REASONS
            .iter()
            .enumerate()
            .filter(|(_index, reason)| leads_to_replica(**reason))
            .map(|(index, reason)| {
                let count = self.sum(|w| w.replica_reads.get(index));
                sample(&[("reason", reason.name())], as_f64(count))
            });
        vec![
            counter(
                "pgsplit_queries_total",
                "Requests, by route and node; route \"none\" was answered without a server.",
                queries,
            ),
            counter(
                "pgsplit_primary_reads_total",
                "Reads that had to go to the primary, by reason.",
                reads.collect(),
            ),
            counter(
                "pgsplit_replica_reads_total",
                "Reads on replicas for another reason than being reads by themselves, by reason.",
                on_replicas.collect(),
            ),
            counter(
                "pgsplit_transaction_moves_total",
                "Transactions that went on elsewhere than on the replica that they had begun on.",
                vec![sample(&[], as_f64(self.sum(|w| Some(&w.moves))))],
            ),
            self.histogram(
                "pgsplit_query_duration_seconds",
                "Time from a request's arrival to its last answer.",
                |w| &w.query_duration,
            ),
            self.histogram(
                "pgsplit_pool_wait_seconds",
                "Time that requests waited for a server connection.",
                |w| &w.pool_wait,
            ),
            counter(
                "pgsplit_pool_timeouts_total",
                "Requests that got no server connection within the pool's acquire_timeout.",
                self.one(|w| &w.pool_timeouts),
            ),
            counter(
                "pgsplit_retries_total",
                "Requests run again, by reason.",
                self.by(&RetryReason::ALL, "reason", RetryReason::name, |w, i| {
                    w.retries.get(i)
                }),
            ),
            gauge(
                "pgsplit_held_requests",
                "Requests waiting for a primary, or for RESUME.",
                vec![sample(&[], as_f64(self.held()))],
            ),
            counter(
                "pgsplit_pins_total",
                "Sessions that began to keep their server connection, by reason.",
                self.by(&Pin::ALL, "reason", Pin::name, |w, i| w.pins.get(i)),
            ),
            counter(
                "pgsplit_unparsed_statements_total",
                "Statements that could not be parsed, or were too long to be, and went to the primary.",
                self.one(|w| &w.unparsed),
            ),
        ]
    }

    fn node_families(&self, scrape: &Scrape) -> Vec<MetricFamily> {
        let mut servers = Vec::new();
        let mut up = Vec::new();
        let mut lag = Vec::new();
        let mut lag_bytes = Vec::new();
        let mut in_flight = Vec::new();
        let mut connects = Vec::new();
        let mut failures = Vec::new();
        for node in &scrape.nodes {
            let index = node.id.index();
            let name: &str = &node.name;
            let pools = || scrape.pools.iter().filter(|pool| *pool.node == *name);
            let states: [(&str, usize); 3] = [
                ("active", pools().map(|pool| pool.servers_active).sum()),
                ("idle", pools().map(|pool| pool.servers_idle).sum()),
                (
                    "connecting",
                    pools().map(|pool| pool.servers_connecting).sum(),
                ),
            ];
            for (state, count) in states {
                let labels = [("node", name), ("state", state)];
                servers.push(sample(&labels, as_f64(count as u64)));
            }
            let usable = matches!(node.health, Health::Up | Health::Suspect);
            let labels = [("node", name), ("role", role_name(node.role))];
            up.push(sample(&labels, f64::from(u8::from(usable))));
            if node.role == Role::Replica {
                if let Some(time) = node.lag {
                    lag.push(sample(&[("node", name)], time.as_secs_f64()));
                }
                if let Some(bytes) = node.lag_bytes {
                    lag_bytes.push(sample(&[("node", name)], as_f64(bytes)));
                }
            }
            in_flight.push(sample(&[("node", name)], as_f64(node.in_flight)));
            let made = self.sum(|w| Some(&w.nodes.get(index)?.connects));
            connects.push(sample(&[("node", name)], as_f64(made)));
            let failed = self.sum(|w| Some(&w.nodes.get(index)?.connect_failures));
            failures.push(sample(&[("node", name)], as_f64(failed)));
        }
        vec![
            gauge(
                "pgsplit_server_connections",
                "Server connections, by state.",
                servers,
            ),
            gauge(
                "pgsplit_node_up",
                "1 when the node may be used, 0 when it is down or in maintenance.",
                up,
            ),
            gauge(
                "pgsplit_replica_lag_seconds",
                "How long ago the primary passed what the replica has replayed.",
                lag,
            ),
            gauge(
                "pgsplit_replica_lag_bytes",
                "WAL that the replica has yet to replay.",
                lag_bytes,
            ),
            gauge(
                "pgsplit_node_requests_in_flight",
                "Requests running on the node.",
                in_flight,
            ),
            counter(
                "pgsplit_server_connects_total",
                "Server connections made.",
                connects,
            ),
            counter(
                "pgsplit_server_connect_failures_total",
                "Server connections that could not be made.",
                failures,
            ),
            counter(
                "pgsplit_failovers_total",
                "Changes of the primary.",
                vec![sample(&[], as_f64(self.failovers.load(Relaxed)))],
            ),
        ]
    }

    /// A counter's sum over the workers.
    fn sum(&self, cell: impl Fn(&WorkerMetrics) -> Option<&AtomicU64>) -> u64 {
        let counts = self.workers.iter().filter_map(|worker| cell(worker));
        counts.map(|count| count.load(Relaxed)).sum()
    }

    /// A counter without labels.
    fn one(&self, cell: impl Fn(&WorkerMetrics) -> &AtomicU64) -> Vec<Metric> {
        vec![sample(&[], as_f64(self.sum(|worker| Some(cell(worker)))))]
    }

    /// A counter with one label of a fixed set.
    fn by<L: Copy>(
        &self,
        labels: &[L],
        key: &str,
        name: impl Fn(L) -> &'static str,
        cell: impl Fn(&WorkerMetrics, usize) -> Option<&AtomicU64>,
    ) -> Vec<Metric> {
        let samples = labels.iter().enumerate().map(|(index, label)| {
            let count = self.sum(|worker| cell(worker, index));
            sample(&[(key, name(*label))], as_f64(count))
        });
        samples.collect()
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        cell: impl Fn(&WorkerMetrics) -> &Histogram,
    ) -> MetricFamily {
        let mut total = Distribution::default();
        for worker in &self.workers {
            cell(worker).add_to(&mut total);
        }
        let mut cumulative = 0;
        let buckets = BOUNDS.iter().zip(total.buckets).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut value = HistogramValue::default();
        value.set_bucket(buckets.collect());
        value.set_sample_count(total.count());
        value.set_sample_sum(seconds(total.sum));
        let mut metric = Metric::default();
        metric.set_histogram(value);
        family(name, help, MetricType::HISTOGRAM, vec![metric])
    }
}

/// Reasons that no read on the primary can have are not shown.
fn sends_reads_to_primary(reason: Reason) -> bool {
    match reason {
        Reason::Read | Reason::ReadOnlyTransaction | Reason::OptimisticTransaction => false,
        Reason::Statement(why) => super::counts_as_read(Access::Primary(why)),
        _ => true,
    }
}

fn event_families(events: &EventCounts) -> [MetricFamily; 2] {
    let by = |key, counts: &[(&str, u64)]| {
        let samples = counts.iter();
        samples
            .map(|(name, count)| sample(&[(key, name)], as_f64(*count)))
            .collect()
    };
    [
        counter(
            "pgsplit_events_total",
            "What SHOW EVENTS shows, by kind.",
            by("kind", &events.by_kind),
        ),
        counter(
            "pgsplit_failover_refusals_total",
            "Failovers that were asked for or due and not begun, by reason.",
            by("reason", &events.refusals),
        ),
    ]
}

/// Some reads are on replicas for this reason, beside plain ones.
fn leads_to_replica(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ReadOnlyTransaction
            | Reason::OptimisticTransaction
            | Reason::Transaction
            | Reason::Hint
            | Reason::Override
    )
}

fn cache_families(cache: &CacheStats) -> Vec<MetricFamily> {
    let of = |key, value| sample(&[("by", key)], as_f64(value));
    let number = |value| vec![sample(&[], as_f64(value))];
    vec![
        counter(
            "pgsplit_class_cache_hits_total",
            "Statements whose class was cached, as it is (prepared statements), by its skeleton (the text with its literals left out) or by its fingerprint.",
            vec![
                of("text", cache.text_hits),
                of("skeleton", cache.skeleton_hits),
                of("fingerprint", cache.fingerprint_hits),
            ],
        ),
        counter(
            "pgsplit_class_cache_misses_total",
            "Statements that had to be classified.",
            number(cache.misses),
        ),
        counter(
            "pgsplit_class_cache_evictions_total",
            "Cached classes dropped for others.",
            number(cache.evictions),
        ),
        counter(
            "pgsplit_class_cache_flushes_total",
            "Times that a change of the catalogue emptied a cache.",
            number(cache.flushes),
        ),
    ]
}

fn process_families(process: &ProcessRow) -> Vec<MetricFamily> {
    let number = |value: u64| vec![sample(&[], as_f64(value))];
    let optional = |value: Option<u64>| value.map(number).unwrap_or_default();
    vec![
        counter(
            "process_cpu_seconds_total",
            "Processor time used, in user and system mode.",
            vec![sample(&[], process.cpu_seconds)],
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            number(process.resident_bytes),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Virtual memory.",
            number(process.virtual_bytes),
        ),
        gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            vec![sample(&[], process.start_seconds)],
        ),
        gauge("process_threads", "Threads.", number(process.threads)),
        gauge(
            "process_open_fds",
            "Open file descriptors.",
            optional(process.open_fds),
        ),
        gauge(
            "process_max_fds",
            "Limit of open file descriptors.",
            optional(process.max_fds),
        ),
    ]
}

fn sample(labels: &[(&str, &str)], value: f64) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    // Whichever of the two the family's type asks for is read.
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples)
}

fn gauge(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples)
}

fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

/// Prometheus' numbers are floating-point: exact up to 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

fn seconds(nanos: u64) -> f64 {
    as_f64(nanos) / 1e9
}

#[cfg(test)]
mod tests;
