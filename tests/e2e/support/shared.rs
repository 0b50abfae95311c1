//! The cluster that tests share, and names that keep them apart in it.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use super::{Cluster, Options};

/// A primary and two replicas, started once in this process. Tests that use it leave its nodes and
/// their settings alone and make only objects with [`unique`] names.
pub(crate) fn cluster() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| own_cluster(2));
    &SHARED
}

/// A cluster for one test that stops, hangs, delays or promotes nodes.
pub(crate) fn own_cluster(replicas: usize) -> Cluster {
    own_cluster_with(&Options {
        replicas,
        ..Options::default()
    })
}

/// The same with other options.
pub(crate) fn own_cluster_with(options: &Options) -> Cluster {
    Cluster::start(options).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The major version of a cluster's PostgreSQL.
pub(crate) fn version(cluster: &Cluster) -> u32 {
    let number = cluster.psql(0, "show server_version_num").unwrap();
    number.trim().parse::<u32>().unwrap() / 10_000
}

/// Whether the cluster's programs were built with TLS. A test that needs it has nothing to say of
/// others.
pub(crate) fn knows_tls(cluster: &Cluster) -> bool {
    !cluster
        .psql(0, "show ssl_library")
        .unwrap()
        .trim()
        .is_empty()
}

/// A name that no other call returns: for tables, roles, channels, and marks in statement texts.
/// None is the beginning of another.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{:04x}_", COUNT.fetch_add(1, Ordering::Relaxed))
}
