//! The cluster that these tests share, one after the other, with a relay before each node.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::support::{Cluster, Fault, Options, Proxy, Relay, Stop, own_cluster_with};

/// A primary and two replicas, each behind a relay.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    pub(super) relays: Vec<Relay>,
    /// The last test left everything as it should be.
    clean: bool,
}

/// The shared [`Arena`] while one test has it to itself: nothing else disturbs its timing.
pub(super) struct Held(MutexGuard<'static, Option<Arena>>);

/// Waits for the other tests, and makes a new cluster if one of them failed halfway.
pub(super) fn arena() -> Held {
    static SHARED: Mutex<Option<Arena>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if !shared.as_ref().is_some_and(|arena| arena.clean) {
        *shared = None;
        *shared = Some(Arena::build());
    }
    let mut held = Held(shared);
    held.clean = false;
    held
}

impl Held {
    /// All nodes run and all replicas follow the primary: the next test may have it.
    pub(super) fn give_back(mut self) {
        self.mend();
        self.clean = true;
    }
}

impl Deref for Held {
    type Target = Arena;

    fn deref(&self) -> &Arena {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Arena {
        self.0.as_mut().unwrap()
    }
}

impl Arena {
    pub(super) fn build() -> Self {
        let cluster = own_cluster_with(&Options {
            replicas: 2,
            settings: vec![("wal_log_hints".to_owned(), "on".to_owned())],
            ..Options::default()
        });
        let relays = cluster.nodes().iter().map(|node| Relay::to(node.port));
        Self {
            relays: relays.collect(),
            cluster,
            clean: false,
        }
    }

    /// A proxy before the relays, with the monitor's default pace. `settings` have no `[monitor]`.
    pub(super) async fn proxy(&self, settings: &str) -> Proxy {
        Proxy::start(&self.cluster, &self.settings(settings)).await
    }

    fn settings(&self, settings: &str) -> String {
        let mut all = format!(
            "{settings}\n[monitor]\ninterval = \"250ms\"\ntimeout = \"1s\"\nup_after = 3\n"
        );
        for (node, relay) in self.cluster.nodes().iter().zip(&self.relays) {
            all.push_str(&format!(
                "[[node]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n",
                node.name, relay.port
            ));
        }
        all
    }

    pub(super) fn primary(&self) -> usize {
        self.cluster.primary()
    }

    /// The two replicas.
    pub(super) fn replicas(&self) -> [usize; 2] {
        self.cluster.replicas().try_into().unwrap()
    }

    /// From now on the primary acknowledges only what this replica has: its promotion loses
    /// nothing. `None`: as before.
    pub(super) fn synchronous(&self, replica: Option<usize>) {
        let name = replica.map_or("", |replica| &self.cluster.nodes()[replica].name);
        self.cluster
            .set(self.primary(), "synchronous_standby_names", name)
            .unwrap();
    }

    /// Lets a running replica follow the node that was promoted, or makes it anew if it had received
    /// more of the old primary's log than that one.
    pub(super) fn reattach(&self, replica: usize) {
        self.cluster.follow(replica).unwrap();
        // Behind where the timelines part.
        let sql = "checkpoint; select pg_current_wal_flush_lsn()";
        let lsn = self.cluster.psql(self.primary(), sql).unwrap();
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{lsn}'");
        for _ in 0..40 {
            if self.cluster.psql(replica, &replayed).unwrap() == "t" {
                return;
            }
        }
        self.cluster.stop(replica, Stop::Fast).unwrap();
        self.cluster.rejoin(replica).unwrap();
    }

    /// Ends what disturbs the network and waits until both replicas stream and have caught up.
    pub(super) fn mend(&self) {
        for relay in &self.relays {
            relay.set(Fault::None);
        }
        self.synchronous(None);
        let streaming = "(select count(*) from pg_stat_replication where state = 'streaming') >= 2";
        self.cluster.wait_until(self.primary(), streaming).unwrap();
        for replica in self.replicas() {
            self.cluster.resume_replay(replica).unwrap();
            self.cluster.wait_for_replay(replica).unwrap();
        }
    }
}
