//! Clients that check every answer, while a test does something to the cluster.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::task::JoinSet;

use super::{Proxy, eventually};

/// Clients that read and compare without a pause, on threads of their own.
#[derive(Debug)]
pub(crate) struct ReadLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    reads: AtomicU64,
    slowest_us: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl ReadLoad {
    /// Starts two threads of four clients each, which read `table` as [`ReadLoad::fill`] made it.
    pub(crate) fn start(proxy: &Proxy, table: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..2)
            .map(|_| {
                let (shared, config) = (Arc::clone(&shared), proxy.config("app", "app"));
                let sql = format!("select b from {table} where a = $1");
                std::thread::spawn(move || {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap()
                        .block_on(async {
                            let client = |_| read(Arc::clone(&shared), config.clone(), sql.clone());
                            let clients: JoinSet<()> = (0..4).map(client).collect();
                            clients.join_all().await;
                        });
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// Makes the table: a from 0 to 999, b twice that.
    pub(crate) async fn fill(client: &tokio_postgres::Client, table: &str) {
        client
            .batch_execute(&format!(
                "create table {table} (a int primary key, b int); \
                 insert into {table} select a, 2 * a from generate_series(0, 999) a"
            ))
            .await
            .unwrap();
    }

    /// Waits until `count` more reads have come back.
    pub(crate) async fn progress(&self, count: u64) {
        let goal = self.shared.reads.load(Ordering::Relaxed) + count;
        eventually("the readers go on", || async {
            self.shared.reads.load(Ordering::Relaxed) >= goal || self.failed()
        })
        .await;
    }

    /// Ends the load and fails unless every read was answered rightly; how many there were, and
    /// how long the slowest took.
    pub(crate) fn finish(mut self) -> (u64, Duration) {
        self.stop();
        let failures = self.shared.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} failed reads, the first: {}",
            failures.len(),
            failures[0]
        );
        (
            self.shared.reads.load(Ordering::Relaxed),
            Duration::from_micros(self.shared.slowest_us.load(Ordering::Relaxed)),
        )
    }

    fn failed(&self) -> bool {
        !self.shared.failures.lock().unwrap().is_empty()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for ReadLoad {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn read(shared: Arc<Shared>, config: tokio_postgres::Config, sql: String) {
    let failed = |what: String| shared.failures.lock().unwrap().push(what);
    let client = match config.connect(tokio_postgres::NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            client
        }
        Err(error) => return failed(format!("connecting: {error:?}")),
    };
    let statement = match client.prepare(&sql).await {
        Ok(statement) => statement,
        Err(error) => return failed(format!("preparing: {error:?}")),
    };
    let mut a = 0_i32;
    while !shared.stop.load(Ordering::Relaxed) {
        a = (a + 1) % 1000;
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(20);
        match tokio::time::timeout(limit, client.query_one(&statement, &[&a])).await {
            Ok(Ok(row)) if row.get::<_, i32>(0) == 2 * a => {}
            Ok(Ok(row)) => return failed(format!("{} for {a}", row.get::<_, i32>(0))),
            Ok(Err(error)) => return failed(format!("{error:?}")),
            Err(_) => return failed("no answer within 20 s".to_owned()),
        }
        let took = u64::try_from(began.elapsed().as_micros()).unwrap();
        shared.slowest_us.fetch_max(took, Ordering::Relaxed);
        shared.reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Clients that write and read what they wrote without a pause, on threads of their own: by turns a
/// statement by itself and one in a transaction.
#[derive(Debug)]
pub(crate) struct WriteLoad {
    shared: Arc<Shared>,
    /// What was acknowledged: client and number.
    acknowledged: Arc<Mutex<Vec<(i32, i32)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl WriteLoad {
    /// Makes the table `written`.
    pub(crate) async fn prepare(client: &tokio_postgres::Client) {
        client
            .batch_execute("create table written (client int, n int)")
            .await
            .unwrap();
    }

    /// Starts so many clients. Errors with the SQLSTATEs of `borne` count as no failure; what gave
    /// them is not done again.
    pub(crate) fn start(proxy: &Proxy, clients: i32, borne: &'static [&'static str]) -> Self {
        let shared = Arc::new(Shared::default());
        let acknowledged = Arc::<Mutex<Vec<(i32, i32)>>>::default();
        let threads = (0..2)
            .map(|thread| {
                let (shared, config) = (Arc::clone(&shared), proxy.config("app", "app"));
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap()
                        .block_on(async {
                            let of_thread = (0..clients).filter(|client| client % 2 == thread);
                            let client = |client| {
                                let (shared, config) = (Arc::clone(&shared), config.clone());
                                let acknowledged = Arc::clone(&acknowledged);
                                async move {
                                    let failed =
                                        write(&shared, config, client, &acknowledged, borne);
                                    if let Err(what) = failed.await {
                                        shared.failures.lock().unwrap().push(what);
                                    }
                                }
                            };
                            let clients: JoinSet<()> = of_thread.map(client).collect();
                            clients.join_all().await;
                        });
                })
            })
            .collect();
        Self {
            shared,
            acknowledged,
            threads,
        }
    }

    /// Waits until `count` more writes have been acknowledged.
    pub(crate) async fn progress(&self, count: u64) {
        let goal = self.shared.reads.load(Ordering::Relaxed) + count;
        eventually("the writers go on", || async {
            self.shared.reads.load(Ordering::Relaxed) >= goal
                || !self.shared.failures.lock().unwrap().is_empty()
        })
        .await;
    }

    /// Ends the load and fails unless all went well; what was acknowledged, and how long the slowest
    /// took.
    pub(crate) fn finish(mut self) -> (Vec<(i32, i32)>, Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let failures = self.shared.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} failed writers, the first: {}",
            failures.len(),
            failures[0]
        );
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let slowest = Duration::from_micros(self.shared.slowest_us.load(Ordering::Relaxed));
        (acknowledged, slowest)
    }
}

impl Drop for WriteLoad {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn write(
    shared: &Shared,
    config: tokio_postgres::Config,
    client: i32,
    acknowledged: &Mutex<Vec<(i32, i32)>>,
    borne: &[&str],
) -> Result<(), String> {
    let failed = |error: tokio_postgres::Error| format!("client {client}: {error:?}");
    let (mut session, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(failed)?;
    tokio::spawn(connection);
    let mut n = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        n += 1;
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(40);
        let insert = "insert into written values ($1, $2)";
        let written = tokio::time::timeout(limit, async {
            if n % 2 == 0 {
                session.execute(insert, &[&client, &n]).await.map(drop)
            } else {
                let transaction = session.transaction().await?;
                transaction.execute(insert, &[&client, &n]).await?;
                transaction.commit().await
            }
        });
        match written.await {
            Ok(Ok(())) => {
                acknowledged.lock().unwrap().push((client, n));
            }
            Ok(Err(error)) => {
                let state = error.code().map_or("", |code| code.code());
                if !borne.contains(&state) {
                    return Err(failed(error));
                }
                continue;
            }
            Err(_) => return Err(format!("client {client}: no answer within {limit:?}")),
        }
        let sql = "select coalesce(max(n), 0) from written where client = $1";
        let row = session.query_one(sql, &[&client]).await.map_err(failed)?;
        let seen: i32 = row.get(0);
        // A node that dies may take with it what was acknowledged and not replicated yet.
        if seen < n && borne.is_empty() {
            return Err(format!("client {client} sees {seen} after {n}"));
        }
        let took = u64::try_from(began.elapsed().as_micros()).unwrap();
        shared.slowest_us.fetch_max(took, Ordering::Relaxed);
        shared.reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
    Ok(())
}
