//! Replication connections: passed through whole.
//!
//! A client that asks for `replication` gets a connection of its own to the primary, logged in as
//! its user with the same parameter, and from then on both ends' bytes are passed on as they are
//! until either closes. Nothing is looked at: a WAL sender speaks COPY in both directions for
//! months. No pool counts it, but the pool's node can end it, cancels reach it, and it is listed as
//! pinned.

use std::{future::Future as _, sync::Arc, task::Poll};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use super::{
    Proxy,
    clients::{Activity, Client},
    handshake::Login,
    tenant::Tenant,
};
use crate::{
    error::{Fault, Visible},
    net::Stream,
    pool::{Server, connect::ConnectError},
    protocol::{SqlState, backend::Status, startup::Setting, write},
    session::{Pin, Pins},
};

/// Bytes that are read at once, in each direction.
const CHUNK: usize = 64 << 10;

/// A replication connection to the primary for this login.
///
/// # Errors
/// There is no primary, or it doesn't let the user in so.
pub(super) async fn connect(
    proxy: &Proxy,
    tenant: &Tenant,
    login: &Login,
    deadline: Instant,
) -> Result<(Server, Vec<u8>), Visible> {
    let Some(node) = proxy.monitor.view().primary else {
        return Err(Visible::fatal(
            Fault::Node,
            SqlState::CANNOT_CONNECT_NOW,
            "no primary is known, from which replication could start",
        ));
    };
    let mut parameters: Vec<Setting> = login
        .parameters
        .iter()
        .filter(|(name, _)| !name.starts_with("pgsplit."))
        .cloned()
        .collect();
    let mode = login.replication.as_deref().unwrap_or_default();
    parameters.push(("replication".into(), mode.into()));
    let connected = tenant.connect_alone(node, &parameters, deadline).await;
    connected.map_err(|error| match error {
        ConnectError::Refused { sqlstate, message } => {
            Visible::fatal(Fault::Node, sqlstate, message.into_string())
        }
        error => Visible::fatal(
            Fault::Node,
            SqlState::CONNECTION_FAILURE,
            format!(
                "no connection to node {}: {error}",
                proxy.monitor.name(node)
            ),
        ),
    })
}

/// Greets the client and passes bytes on until either end closes, or somebody ends it.
pub(super) async fn relay(
    proxy: &Proxy,
    worker: usize,
    entry: &Arc<Client>,
    (mut server, unread): (Server, Vec<u8>),
    (mut client, mut greeting, sent): (Stream, Vec<u8>, Vec<u8>),
    deadline: Instant,
) {
    write::authentication_ok(&mut greeting);
    for (name, value) in server.parameters.iter() {
        write::parameter_status(&mut greeting, name.as_bytes(), value.as_bytes());
    }
    entry.write_key(&mut greeting);
    write::ready_for_query(&mut greeting, Status::Idle);
    greeting.extend_from_slice(&unread);
    let link = Arc::clone(&server.link);
    let begun = async {
        client.write_all(&greeting).await?;
        client.flush().await?;
        server.stream.write_all(&sent).await?;
        server.stream.flush().await
    };
    if !matches!(timeout_at(deadline, begun).await, Ok(Ok(()))) {
        return;
    }
    let mut pins = Pins::default();
    pins.add(Pin::Replication);
    entry.set_pins(pins);
    proxy.metrics(worker).pin(Pin::Replication);
    entry.runs_on(&link);
    entry.set_activity(Activity::Pinned);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server.stream);
    let mut up = std::pin::pin!(pass_on(&mut from_client, &mut to_server));
    let mut down = std::pin::pin!(pass_on(&mut from_server, &mut to_client));
    let mut sending = true;
    std::future::poll_fn(|cx| {
        link.watch(cx);
        entry.wake.watch(cx);
        if link.is_doomed() || entry.is_killed() || proxy.is_stopping() {
            return Poll::Ready(());
        }
        if sending && let Poll::Ready(ended) = up.as_mut().poll(cx) {
            if ended.is_ok() {
                return Poll::Ready(());
            }
            // What the server said before it closed is still to be passed on.
            sending = false;
        }
        down.as_mut().poll(cx).map(|_ended| ())
    })
    .await;
    let _no_cancel_is_left = entry.ended().await;
}

/// Passes bytes on until their source ends.
async fn pass_on(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}
