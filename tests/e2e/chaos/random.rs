//! All of it in an order that a seed decides, under clients that check every answer.
//!
//! `make chaos` runs it for long: `PGSPLIT_CHAOS_SEED` and `PGSPLIT_CHAOS_SECONDS` say which order, and
//! for how long. The same seed gives the same order again.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::{
    arena::{Arena, arena},
    primary::{prepared, wait_for_primary},
    readers::{Habit, readers},
    writers::{verify, writers},
};
use crate::support::{Cut, Fault, Stop};

const READING: Habit = Habit {
    pause: Duration::from_millis(20),
    long_every: 25,
    // It may go back where a primary is lost between a write and its acknowledgement.
    counter: false,
};
const READERS: usize = 8;
const WRITERS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(20);

/// Of a test run that has other things to do, too.
const SECONDS: u64 = 10;
const SEED: u64 = 7;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// What happens to one node for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    Restarted,
    Hung,
    BlackHole,
    Unreachable,
    Slow,
    Reset,
    EndTowardsProxy,
    EndTowardsNode,
    Terminated,
    Paused,
    Delayed,
}

/// What may happen to any node, and what to replicas only.
const ANY: [Trouble; 8] = [
    Trouble::Restarted,
    Trouble::BlackHole,
    Trouble::Slow,
    Trouble::Reset,
    Trouble::EndTowardsProxy,
    Trouble::EndTowardsNode,
    Trouble::Terminated,
    Trouble::Hung,
];
const REPLICA: [Trouble; 4] = [
    Trouble::Killed,
    Trouble::Unreachable,
    Trouble::Paused,
    Trouble::Delayed,
];

impl Trouble {
    fn begin(self, arena: &Arena, node: usize) {
        let (cluster, relay) = (&arena.cluster, &arena.relays[node]);
        match self {
            Self::Killed => cluster.stop(node, Stop::Kill).unwrap(),
            Self::Restarted => cluster.stop(node, Stop::Fast).unwrap(),
            Self::Hung => cluster.hang(node).unwrap(),
            Self::BlackHole => relay.set(Fault::BlackHole),
            Self::Unreachable => relay.set(Fault::Unreachable),
            Self::Slow => relay.set(Fault::Delay(Duration::from_millis(40))),
            Self::Reset => relay.cut(Cut::Reset),
            Self::EndTowardsProxy => relay.cut(Cut::EndTowardsProxy),
            Self::EndTowardsNode => relay.cut(Cut::EndTowardsNode),
            Self::Terminated => {
                let sql =
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'";
                cluster.psql(node, sql).unwrap();
            }
            Self::Paused => cluster.pause_replay(node).unwrap(),
            Self::Delayed => cluster
                .delay_replay(node, Duration::from_millis(300))
                .unwrap(),
        }
    }

    fn end(self, arena: &Arena, node: usize) {
        let (cluster, relay) = (&arena.cluster, &arena.relays[node]);
        match self {
            Self::Killed | Self::Restarted => cluster.start_node(node).unwrap(),
            Self::Hung => cluster.unhang(node).unwrap(),
            Self::BlackHole | Self::Unreachable | Self::Slow => relay.set(Fault::None),
            Self::Reset | Self::EndTowardsProxy | Self::EndTowardsNode | Self::Terminated => {}
            Self::Paused => cluster.resume_replay(node).unwrap(),
            Self::Delayed => cluster.delay_replay(node, Duration::ZERO).unwrap(),
        }
    }
}

/// The primary is lost, or hangs and comes back, and a replica is promoted that has all that was
/// acknowledged.
async fn fail_over(arena: &Arena, rng: &mut Rng) {
    arena.mend();
    let (old, [one, two]) = (arena.primary(), arena.replicas());
    let (new, other) = if rng.bool() { (one, two) } else { (two, one) };
    let hangs = rng.bool();
    println!(
        "primary {old} {}, {new} is promoted",
        if hangs { "hangs" } else { "is killed" }
    );
    let cluster = &arena.cluster;
    arena.synchronous(Some(new));
    if hangs {
        cluster.hang(old).unwrap();
    } else {
        cluster.stop(old, Stop::Kill).unwrap();
    }
    sleep(Duration::from_millis(rng.u64(0..2000))).await;
    cluster.promote(new).unwrap();
    if hangs {
        // It wakes up, and believes that it is the primary.
        sleep(Duration::from_millis(rng.u64(0..1500))).await;
        cluster.unhang(old).unwrap();
        sleep(Duration::from_millis(rng.u64(0..1000))).await;
        cluster.stop(old, Stop::Fast).unwrap();
    }
    arena.reattach(other);
    cluster.rewind(old).unwrap();
}

#[test]
fn whatever_happens_in_whatever_order_no_answer_is_wrong() {
    let seed = from_environment("PGSPLIT_CHAOS_SEED", SEED);
    let lasts = Duration::from_secs(from_environment("PGSPLIT_CHAOS_SECONDS", SECONDS));
    let arena = arena();
    let test = async {
        let mut rng = Rng::with_seed(seed);
        println!("seed {seed}");
        let proxy = prepared(&arena, "").await;
        let reading = readers(&proxy, READERS, READING).await;
        let writing = writers(&proxy, WRITERS, BETWEEN).await;
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            if rng.u8(0..6) == 0 {
                fail_over(&arena, &mut rng).await;
            } else {
                let on_primary = rng.u8(0..4) == 0;
                let node = if on_primary {
                    arena.primary()
                } else {
                    arena.replicas()[rng.usize(0..2)]
                };
                let some = rng.usize(0..ANY.len() + REPLICA.len());
                let trouble = match REPLICA.get(some) {
                    Some(trouble) if !on_primary => *trouble,
                    _ => ANY[some % ANY.len()],
                };
                let long = Duration::from_millis(rng.u64(20..1800));
                println!("{trouble:?} at node {node} for {long:?}");
                trouble.begin(&arena, node);
                sleep(long).await;
                trouble.end(&arena, node);
            }
            // Sometimes the next trouble comes before this one is over.
            if rng.bool() {
                arena.mend();
                let name = arena.cluster.nodes()[arena.primary()].name.to_string();
                wait_for_primary(&proxy, &name).await;
                writing.crowd.progress(20).await;
                reading.progress(40).await;
            }
            writing.crowd.check();
            reading.check();
        }
        arena.mend();
        writing.crowd.progress(50).await;
        reading.progress(50).await;
        reading.finish();
        let ledgers = writing.crowd.finish();
        let (acknowledged, unknown) = verify(&ledgers, &arena.cluster, arena.primary());
        println!("{acknowledged} writes were acknowledged, {unknown} are of unknown outcome");
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
    arena.give_back();
}
