//! The client's half of an exchange: approved bytes are passed on to it, and its data for a COPY taken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use super::{
    super::scratch::{CLIENT_BULK, Scratch},
    Copying, Ending, Exchange, JOINED, Stop, flush, write_out,
};
use crate::{
    net::Stream,
    protocol::{frame::Header, frontend::tag as front},
};

impl Exchange {
    pub(super) fn poll_to_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        if self.held {
            return Ok(false);
        }
        // A small answer goes out in one piece when it is complete, or when no more is here.
        if !scratch.to_client.is_empty() && self.approved > 0 && self.approved <= JOINED {
            self.stage(scratch);
        }
        let mut moved = write_out(cx, client, &mut scratch.to_client)?;
        while scratch.to_client.is_empty() && self.approved > 0 {
            let bytes = scratch.server_in.filled();
            let bytes = bytes.get(..self.approved).unwrap_or(bytes);
            match Pin::new(&mut *client).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    scratch.server_in.consume(count);
                    scratch.to_client.went += count;
                    self.approved -= count;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        flush(cx, client, moved, &mut self.unflushed.client)?;
        Ok(moved)
    }

    pub(super) fn poll_from_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<bool, Stop> {
        let mut moved = self.feed_copy(scratch)?;
        // A pipeline without an end waits until the server has taken what is here.
        let backlog = self.terms.open && scratch.to_server.unwritten().len() > CLIENT_BULK;
        if self.client_gone || scratch.client_in.is_full() || backlog {
            return Ok(moved);
        }
        match scratch.client_in.poll_fill(cx, client) {
            Poll::Pending => {}
            Poll::Ready(Ok(0) | Err(_)) => {
                self.client_left(scratch);
                moved = true;
            }
            Poll::Ready(Ok(_)) => {
                moved = true;
                self.unseen = true;
                self.feed_copy(scratch)?;
            }
        }
        Ok(moved)
    }

    /// Passes the client's copy data on, whole runs of frames at once.
    fn feed_copy(&mut self, scratch: &mut Scratch) -> Result<bool, Stop> {
        if self.copying == Copying::No || self.kept > 0 {
            return Ok(false);
        }
        let bytes = scratch.client_in.filled();
        let mut at = self.passing_on;
        while let Some(rest) = bytes.get(at..) {
            let header = match Header::parse(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(malformed) => return Err(Stop::ClientBroken(malformed)),
            };
            match header.tag {
                front::COPY_DATA if self.copying == Copying::Ready => self.copying = Copying::Fed,
                front::COPY_DATA | front::FLUSH => {}
                // The server ignores it while it copies.
                front::SYNC if self.copying == Copying::Ready => {}
                front::COPY_DONE | front::COPY_FAIL => {
                    scratch.replies.copy_ended();
                    // An extended COPY is answered only when the Sync behind it has come, too.
                    self.copying = Copying::No;
                    if !scratch.replies.ends_itself() {
                        self.terms.open = true;
                        self.unseen = true;
                    }
                }
                front::TERMINATE => return Err(Stop::ClientLost),
                tag => self.ending = Ending::Suspected(tag),
            }
            at += header.len;
            if self.copying == Copying::No {
                break;
            }
        }
        let moved = at > self.passing_on;
        self.passing_on = at;
        Ok(moved)
    }
}
