//! The demo's load: readers and writers through the proxy, and a line of figures each second.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{super::output, Cluster, Failure, serve::Proxy};

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

/// Runs until the proxy ends.
pub(super) async fn run(cluster: &Cluster, proxy: &mut Proxy) -> Result<(), Failure> {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for seed in 0..READERS + WRITERS {
        let client = Client {
            url: proxy.url(),
            counts: Arc::clone(&counts),
            random: fastrand::Rng::with_seed(seed),
        };
        if seed < READERS {
            clients.spawn(client.read());
        } else {
            clients.spawn(client.write());
        }
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut before = Figures::take(proxy, &counts).await;
    for line in 0_u64.. {
        ticks.tick().await;
        proxy.check()?;
        if line.is_multiple_of(HEADER_EVERY) {
            print_header(cluster);
        }
        let now = Figures::take(proxy, &counts).await;
        now.print(cluster, &before);
        before = now;
    }
    Ok(())
}

/// What has been counted at one moment.
#[derive(Debug)]
struct Figures {
    reads: u64,
    writes: u64,
    errors: u64,
    /// Requests by node, from the proxy's metrics.
    requests: BTreeMap<String, f64>,
    lag: BTreeMap<String, f64>,
}

impl Figures {
    async fn take(proxy: &Proxy, counts: &Counts) -> Self {
        let metrics = proxy.get("/metrics").await.unwrap_or_default();
        Self {
            reads: counts.reads.load(Ordering::Relaxed),
            writes: counts.writes.load(Ordering::Relaxed),
            errors: counts.errors.load(Ordering::Relaxed),
            requests: by_node(&metrics, "pgsplit_queries_total"),
            lag: by_node(&metrics, "pgsplit_replica_lag_seconds"),
        }
    }

    fn print(&self, cluster: &Cluster, before: &Self) {
        let mut line = format!(
            "{:>8} {:>9} {:>7}  ",
            self.reads - before.reads,
            self.writes - before.writes,
            self.errors - before.errors
        );
        for (i, node) in cluster.nodes().iter().enumerate() {
            let at = |figures: &BTreeMap<String, f64>| figures.get(&*node.name).copied();
            let requests =
                at(&self.requests).unwrap_or_default() - at(&before.requests).unwrap_or_default();
            line.push_str(&format!("{requests:>7.0}"));
            if i == cluster.primary() {
                line.push_str("         ");
            } else {
                let lag = at(&self.lag).map_or("?".to_owned(), |s| format!("{:.0}", s * 1000.0));
                line.push_str(&format!("{lag:>6} ms"));
            }
        }
        output::line(line);
    }
}

fn print_header(cluster: &Cluster) {
    let mut line = format!("\n{:>8} {:>9} {:>7}  ", "reads/s", "writes/s", "errors");
    for (i, node) in cluster.nodes().iter().enumerate() {
        let second = if i == cluster.primary() {
            "primary "
        } else {
            "lag"
        };
        line.push_str(&format!("{:>7}{second:>9}", node.name));
    }
    output::line(line);
}

/// A client that connects anew when its connection ends.
struct Client {
    url: String,
    counts: Arc<Counts>,
    random: fastrand::Rng,
}

impl Client {
    async fn connect(&self) -> Option<tokio_postgres::Client> {
        match tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                // Ends when the client is dropped; its error comes with the next query.
                drop(tokio::spawn(connection));
                Some(client)
            }
            Err(_error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RECONNECT_AFTER).await;
                None
            }
        }
    }

    async fn read(mut self) {
        loop {
            let Some(client) = self.connect().await else {
                continue;
            };
            let Ok(read) = client.prepare(READ).await else {
                continue;
            };
            while !client.is_closed() {
                let id = self.random.i32(1..=1000);
                let done = client.query_one(&read, &[&id]).await.is_ok();
                self.count(&self.counts.reads, done);
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }

    async fn write(mut self) {
        loop {
            let Some(mut client) = self.connect().await else {
                continue;
            };
            while !client.is_closed() {
                let id = self.random.i32(1..=1000);
                let done = transfer(&mut client, id).await.is_ok();
                self.count(&self.counts.writes, done);
                tokio::time::sleep(WRITE_PAUSE).await;
            }
        }
    }

    fn count(&self, kind: &AtomicU64, done: bool) {
        let counter = if done { kind } else { &self.counts.errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn transfer(
    client: &mut tokio_postgres::Client,
    id: i32,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction
        .execute(
            "update accounts set balance = balance - 1 where id = $1",
            &[&id],
        )
        .await?;
    transaction
        .execute(
            "insert into transfers (account, amount) values ($1, 1)",
            &[&id],
        )
        .await?;
    transaction.commit().await
}

/// Sums of a metric's samples by their label `node`.
fn by_node(metrics: &str, name: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in metrics.lines() {
        let sample = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('{'))
            .and_then(|rest| rest.rsplit_once("} "));
        if let Some((labels, value)) = sample
            && let Some((_, node)) = labels.split_once("node=\"")
            && let Some((node, _)) = node.split_once('"')
            && let Ok(value) = value.parse::<f64>()
        {
            *sums.entry(node.to_owned()).or_default() += value;
        }
    }
    sums
}

const READERS: u64 = 8;
const WRITERS: u64 = 2;
/// The load is there to be watched, not to be the most that there can be.
const READ_PAUSE: Duration = Duration::from_millis(2);
const WRITE_PAUSE: Duration = Duration::from_millis(10);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
const HEADER_EVERY: u64 = 20;
const READ: &str = "select owner, balance from accounts where id = $1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_node_are_added_up() {
        let metrics = "# HELP q x\n\
            q{route=\"replica\",node=\"pg2\"} 3\n\
            q{node=\"pg2\",route=\"primary\"} 4\n\
            q{node=\"pg1\"} 1.5\n\
            q_other{node=\"pg1\"} 9\n";
        let sums = by_node(metrics, "q");
        assert_eq!(sums.get("pg2"), Some(&7.0));
        assert_eq!(sums.get("pg1"), Some(&1.5));
    }
}
