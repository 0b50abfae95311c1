//! Replicas that are lost, hang and come back: no read fails, and none waits for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    arena::{Arena, arena},
    readers::{Habit, counting, fill, readers},
};
use crate::support::{Cut, Fault, Proxy, Stop, eventually, run};

/// 32 of them: some 1,000 reads a second, a few always running.
const READING: Habit = Habit {
    pause: Duration::from_millis(25),
    long_every: 25,
    counter: true,
};

async fn prepared(arena: &Arena, settings: &str) -> Proxy {
    let proxy = arena.proxy(settings).await;
    fill(&proxy.connect("app", "app").await).await;
    proxy.wait_for_table(&arena.cluster, "fixed").await;
    proxy
}

/// A node is up as the proxy sees it.
fn is_up(proxy: &Proxy, name: &str) -> bool {
    proxy.metric("pgsplit_node_up", &[&format!("node=\"{name}\"")]) == 1.0
}

#[test]
fn a_lost_replica_costs_no_read() {
    let arena = arena();
    run(async {
        let proxy = prepared(&arena, "").await;
        let [victim, _] = arena.replicas();
        let crowd = readers(&proxy, 32, READING).await;
        let counting = counting(&proxy).await;
        crowd.progress(300).await;
        let cluster = &arena.cluster;
        let relay = &arena.relays[victim];
        let terminate = || {
            let sql =
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'";
            cluster.psql(victim, sql).unwrap();
        };
        let losses: [(&str, &dyn Fn()); 6] = [
            ("SIGKILL", &|| cluster.stop(victim, Stop::Kill).unwrap()),
            ("connection reset", &|| relay.cut(Cut::Reset)),
            ("end towards the proxy", &|| relay.cut(Cut::EndTowardsProxy)),
            ("end towards the node", &|| relay.cut(Cut::EndTowardsNode)),
            ("pg_terminate_backend", &terminate),
            ("restart", &|| cluster.stop(victim, Stop::Fast).unwrap()),
        ];
        for (what, lose) in losses {
            let (_, slowest) = crowd.next_phase();
            println!("before {what}: the slowest read took {slowest:?}");
            lose();
            crowd.progress(700).await;
            let (_, slowest) = crowd.next_phase();
            println!("{what}: the slowest read took {slowest:?}");
            assert!(slowest < Duration::from_millis(2500), "{what}: {slowest:?}");
            if matches!(what, "SIGKILL" | "restart") {
                cluster.start_node(victim).unwrap();
            }
            proxy.wait_for_nodes(3).await;
            crowd.progress(100).await;
        }
        crowd.finish();
        counting.finish();
    });
    arena.give_back();
}

#[test]
fn a_hung_replica_holds_reads_no_longer_than_the_monitor_takes_and_none_afterwards() {
    let arena = arena();
    run(async {
        // A small pool: some wait for a connection to the node that hangs.
        let proxy = prepared(&arena, "[pool]\nmax_size = 6").await;
        let [victim, _] = arena.replicas();
        let name = arena.cluster.nodes()[victim].name.to_string();
        let crowd = readers(&proxy, 32, READING).await;
        let counting = counting(&proxy).await;
        let relay = &arena.relays[victim];
        let cluster = &arena.cluster;
        type Fate<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
        let hangs: [Fate<'_>; 3] = [
            ("SIGSTOP", &|| cluster.hang(victim).unwrap(), &|| {
                cluster.unhang(victim).unwrap()
            }),
            ("black hole", &|| relay.set(Fault::BlackHole), &|| {
                relay.set(Fault::None)
            }),
            ("unreachable", &|| relay.set(Fault::Unreachable), &|| {
                relay.set(Fault::None)
            }),
        ];
        let mut returns = Vec::new();
        for (what, hang, end) in hangs {
            crowd.progress(200).await;
            crowd.next_phase();
            let hung = Instant::now();
            hang();
            eventually("the hung node is down", async || !is_up(&proxy, &name)).await;
            let noticed = hung.elapsed();
            // Those that were caught by it have come back.
            crowd.progress(200).await;
            let (after, slowest) = crowd.next_phase();
            println!("{what}: noticed after {noticed:?}, the slowest read took {slowest:?}");
            assert!(slowest < Duration::from_millis(2750), "{what}: {slowest:?}");
            crowd.progress(700).await;
            let (_, slowest) = crowd.next_phase();
            println!("{what}: while it hangs the slowest read takes {slowest:?}");
            assert!(slowest < Duration::from_millis(1250), "{what}: {slowest:?}");
            let ended = Instant::now();
            end();
            eventually("it is up again", async || is_up(&proxy, &name)).await;
            returns.push(ended.elapsed());
            crowd.progress(100).await;
            let touched = cluster
                .statements(victim, &format!("/* phase {after} */"))
                .unwrap();
            assert!(touched.is_empty(), "{what}: {touched:?}");
        }
        // Three good probes, six, twelve: 250 ms from one to the next, the first of which may have
        // been on its way already.
        println!("it returned after {returns:?}");
        for (returned, probes) in returns.iter().zip([3, 6, 12]) {
            let least = Duration::from_millis(250) * (probes - 2);
            assert!(*returned > least, "{returned:?} with {probes} probes");
            assert!(*returned < least + Duration::from_secs(3), "{returned:?}");
        }
        crowd.finish();
        counting.finish();
    });
    arena.give_back();
}

#[test]
fn a_slow_network_is_no_failure() {
    let arena = arena();
    run(async {
        let proxy = prepared(&arena, "").await;
        let [victim, _] = arena.replicas();
        let crowd = readers(&proxy, 8, READING).await;
        arena.relays[victim].set(Fault::Delay(Duration::from_millis(200)));
        let fell = Arc::new(AtomicBool::new(false));
        let name = arena.cluster.nodes()[victim].name.to_string();
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fell.fetch_or(!is_up(&proxy, &name), Ordering::Relaxed);
        }
        crowd.progress(100).await;
        crowd.finish();
        assert!(!fell.load(Ordering::Relaxed), "{}", proxy.log());
    });
    arena.give_back();
}
