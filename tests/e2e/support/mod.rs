//! What the tests stand on.

mod load;
mod process;
mod proxy;
mod raw;
mod relay;
mod shared;

use std::{future::Future, time::Duration};

pub(crate) use load::{ReadLoad, WriteLoad};
pub(crate) use pgsplit::cli::demo::{
    cluster::{Cluster, Options, Stop},
    free_port,
};
pub(crate) use process::{Guarded, drivers, pgsplit, program, succeed, succeed_in_two};
pub(crate) use proxy::Proxy;
pub(crate) use raw::{Frame, Raw, message, tags};
pub(crate) use relay::{Cut, Fault, Relay};
pub(crate) use shared::{cluster, knows_tls, own_cluster, own_cluster_with, unique, version};

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

/// Waits until `condition` holds; fails after 30 s, saying `what` didn't come.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited 30 s in vain: {what}");
}

/// The SQLSTATE of an error; the whole error when it has none.
pub(crate) fn sqlstate(error: &tokio_postgres::Error) -> String {
    error
        .code()
        .map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())
}
