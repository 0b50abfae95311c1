//! What the tests stand on.

mod shared;

pub(crate) use pgsplit::cli::demo::cluster::{Cluster, Options, Stop};
pub(crate) use shared::{cluster, own_cluster, unique};

use std::{future::Future, time::Duration};

/// Runs a test's async body on a runtime of its own; a test that hangs fails after two minutes.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(120), test)
                .await
                .expect("the test took longer than two minutes");
        });
}
