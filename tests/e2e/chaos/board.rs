//! What checking clients have in common: when to stop, what went wrong, how long things took.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::support::eventually;

/// Shared by the clients of one load and the test that started them.
#[derive(Debug, Default)]
pub(super) struct Board {
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// Part of every statement's text, so that the nodes' logs tell what came when.
    phase: AtomicU32,
    connected: AtomicUsize,
    done: AtomicU64,
    slowest_us: AtomicU64,
}

/// How many phases all loads of this process have had.
static PHASES: AtomicU32 = AtomicU32::new(0);

impl Board {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self, what: String) {
        self.failures().push(what);
    }

    fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> bool {
        !self.failures().is_empty()
    }

    /// A client is in.
    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> u32 {
        self.phase.load(Ordering::Relaxed)
    }

    /// A request that began then, in that phase, has been answered as it should.
    pub(super) fn done(&self, began: Instant, phase: u32) {
        self.done.fetch_add(1, Ordering::Relaxed);
        if phase == self.phase() {
            let took = u64::try_from(began.elapsed().as_micros()).unwrap();
            self.slowest_us.fetch_max(took, Ordering::Relaxed);
        }
    }
}

/// Clients on two threads of their own, each with what it returns in the end.
#[derive(Debug)]
pub(super) struct Crowd<T> {
    pub(super) board: Arc<Board>,
    threads: Vec<JoinHandle<Vec<T>>>,
}

type Client<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Send + 'static> Crowd<T> {
    /// Starts `count` clients and waits until they are connected.
    pub(super) async fn start<F>(count: usize, client: F) -> Self
    where
        F: Fn(usize, Arc<Board>) -> Client<T> + Clone + Send + 'static,
    {
        let board: Arc<Board> = Arc::default();
        let threads = (0..THREADS).map(|thread| {
            let (client, board) = (client.clone(), Arc::clone(&board));
            std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(async {
                        let mine = (thread..count).step_by(THREADS);
                        let clients: JoinSet<T> =
                            mine.map(|i| client(i, Arc::clone(&board))).collect();
                        clients.join_all().await
                    })
            })
        });
        let crowd = Self {
            threads: threads.collect(),
            board,
        };
        eventually("all clients are connected", async || {
            crowd.check();
            crowd.board.connected.load(Ordering::Relaxed) == count
        })
        .await;
        crowd
    }

    /// Waits until `count` more requests have been answered.
    pub(super) async fn progress(&self, count: u64) {
        let goal = self.board.done.load(Ordering::Relaxed) + count;
        eventually("the clients go on", || async {
            self.board.done.load(Ordering::Relaxed) >= goal || self.board.failed()
        })
        .await;
        self.check();
    }

    /// Begins a new phase; its number, and how long the slowest request took that began and ended
    /// in the last one.
    pub(super) fn next_phase(&self) -> (u32, Duration) {
        self.check();
        // Of the nodes' logs, which outlive a test, no other load's statements are meant.
        let phase = PHASES.fetch_add(1, Ordering::Relaxed) + 1;
        self.board.phase.store(phase, Ordering::Relaxed);
        let slowest = self.board.slowest_us.swap(0, Ordering::Relaxed);
        (phase, Duration::from_micros(slowest))
    }

    /// Fails if anything went wrong so far.
    pub(super) fn check(&self) {
        let failures = self.board.failures();
        assert!(
            failures.is_empty(),
            "{} failures: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
    }

    /// Ends the clients; what they return, if nothing went wrong.
    pub(super) fn finish(mut self) -> Vec<T> {
        self.board.stop.store(true, Ordering::Relaxed);
        let mut results = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            results.extend(thread.join().unwrap());
        }
        self.check();
        results
    }
}

impl<T> Drop for Crowd<T> {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Relaxed);
    }
}

const THREADS: usize = 2;
