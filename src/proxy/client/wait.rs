//! Waiting for a server connection, and what ends that besides getting one.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use super::super::clients::Client;
use crate::{
    net::{Buffer, Stream},
    protocol::{frame::Header, frontend::tag},
};

/// How a wait ended.
#[derive(Debug)]
pub(super) enum Waited<T> {
    Got(T),
    /// The client went away: nobody waits for what was not begun.
    Left,
    /// The client's cancel request came.
    Cancelled,
    /// An operator ended the client.
    Killed,
}

/// Awaits `lent` for a client whose request is the first `len` bytes of `client_in`. A client that
/// says goodbye behind its request doesn't wait for the answer but does want it carried out, as
/// it would be directly; one that vanishes may well send it again elsewhere.
pub(super) async fn wait<T>(
    lent: impl Future<Output = T>,
    entry: &Client,
    stream: &mut Stream,
    client_in: &mut Buffer,
    len: usize,
) -> Waited<T> {
    let mut lent = pin!(lent);
    // Before looking, so that none is missed.
    let mut cancelled = pin!(entry.cancelled_waiting());
    if entry.is_cancelled() {
        return Waited::Cancelled;
    }
    // Most need not wait.
    if let Poll::Ready(got) = poll_fn(|cx| Poll::Ready(lent.as_mut().poll(cx))).await {
        return Waited::Got(got);
    }
    let mut present = true;
    poll_fn(|cx| {
        if let Poll::Ready(got) = lent.as_mut().poll(cx) {
            return Poll::Ready(Waited::Got(got));
        }
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Waited::Cancelled);
        }
        // It isn't silenced: whoever rang may mean the client at rest.
        entry.wake.watch(cx);
        if entry.is_killed() {
            return Poll::Ready(Waited::Killed);
        }
        while present && !client_in.is_full() {
            match client_in.poll_fill(cx, stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => {
                    present = false;
                    if !says_goodbye(client_in.filled().get(len..).unwrap_or_default()) {
                        return Poll::Ready(Waited::Left);
                    }
                }
            }
        }
        Poll::Pending
    })
    .await
}

/// The last message is Terminate.
fn says_goodbye(mut messages: &[u8]) -> bool {
    while let Ok(Some(header)) = Header::parse(messages) {
        if header.tag == tag::TERMINATE {
            return true;
        }
        messages = messages.get(header.len..).unwrap_or_default();
    }
    false
}
