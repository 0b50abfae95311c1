use std::{sync::atomic::AtomicUsize, time::Duration};

use tokio::io::DuplexStream;

use super::*;
use crate::{
    net::Stream,
    protocol::{backend::Status, startup::CancelKey},
};

/// Connections to nobody, each once it is let through.
#[derive(Clone)]
struct Gated {
    let_through: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
    ends: Arc<Mutex<Vec<DuplexStream>>>,
}

impl Connect for Gated {
    fn connect(
        &self,
        _node: NodeId,
        _deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send + '_>> {
        Box::pin(async {
            self.begun.fetch_add(1, Ordering::Relaxed);
            self.let_through.acquire().await.unwrap().forget();
            let (here, there) = tokio::io::duplex(64);
            self.ends.lock().unwrap().push(there);
            Ok(Connected {
                stream: Stream::memory(here),
                unread: Vec::new(),
                parameters: Vec::new(),
                cancel: CancelKey {
                    pid: 1,
                    key: Box::new([0; 4]),
                },
            })
        })
    }
}

fn pool(max_size: usize, workers: usize) -> (Arc<Pool>, Gated) {
    let gated = Gated {
        let_through: Arc::new(Semaphore::new(0)),
        begun: Arc::default(),
        ends: Arc::default(),
    };
    let limits = settings::Pool {
        max_size,
        ..settings::Pool::default()
    };
    let pool = Pool::new(
        NodeId(0),
        &"app".into(),
        Box::new(gated.clone()),
        &limits,
        &Arc::default(),
        workers,
        Gate::default(),
    );
    (Arc::new(pool), gated)
}

#[tokio::test(start_paused = true)]
async fn whoever_connects_at_another_worker_does_not_hide_what_is_idle_there() {
    let (pool, gated) = pool(2, 2);
    gated.let_through.add_permits(1);
    let first = pool.acquire(0).await.unwrap();
    // The other worker's, with whoever waits keeping it from being kept warm.
    let waits = Waiting::new(&pool.shared.waiting);
    let slow = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.acquire(0).await })
    };
    while gated.begun.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    first.give_back(Instant::now());
    let second = tokio::time::timeout(Duration::from_secs(1), pool.acquire(1));
    let second = second.await.unwrap().unwrap();
    assert_eq!(gated.begun.load(Ordering::Relaxed), 2);
    assert_eq!(pool.status().open, 2);
    gated.let_through.add_permits(1);
    let slow = slow.await.unwrap().unwrap();
    assert_eq!(pool.status().open, 2);
    drop((second, slow, waits));
    assert_eq!(pool.status().open, 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_in_a_transaction_is_closed() {
    let (pool, gated) = pool(2, 1);
    gated.let_through.add_permits(2);
    for (status, left) in [
        (Status::Failed, 0),
        (Status::InTransaction, 0),
        (Status::Idle, 1),
    ] {
        let mut lease = pool.acquire(0).await.unwrap();
        lease.backend.status = status;
        lease.give_back(Instant::now());
        assert_eq!(pool.status().open, left, "{status:?}");
        gated.let_through.add_permits(1);
    }
}
