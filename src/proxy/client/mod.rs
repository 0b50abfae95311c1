//! One client's task: it serves the client and drives its server connection.
//!
//! # A request's life
//! ```text
//! idle ── bytes ──▶ scan ──▶ answered here ─────────────────────────────▶ idle
//!                     │
//!                     ▼
//!                   route ──▶ lend ──▶ emit ──▶ exchange ──▶ settle ────▶ idle
//!                     ▲        │                   │
//!                     │        ├ none in time: error to the client
//!                     │        │                   ├ refused by a replica ──▶ route, avoiding it
//!                     └────────┴───────────────────┤
//!                                                  ├ server lost, nothing shown, a read ──▶ route
//!                                                  ├ server lost else: 40001, 08007 or its own words
//!                                                  └ client lost: the server connection is closed
//! ```
//!
//! While a client rests its task owns no buffer ([`Scratch`]); what it needs while it is busy is a
//! future of its own, boxed for that time.
//!
//! Here it waits, finds requests and reads or drops the client's bytes. `request` is one request's
//! tries, `place` where it goes, `end` what follows from how it ended.

mod end;
mod place;
mod request;
mod wait;

use std::{sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    Proxy, answer,
    clients::{Activity, Client},
    exchange::{Exchange, send},
    observe,
    scratch::Scratch,
    tenant::Tenant,
};
use crate::{
    error::{Fault, Visible},
    net::Stream,
    pool::Lease,
    protocol::{
        SqlState,
        backend::Status,
        frame::{HEADER, Header},
        write,
    },
    session::{
        Session, Transaction,
        effects::server_lost,
        emit::Form,
        request::{End, Request, Scan, scan},
    },
    sql::{Class, Tables, Traits},
};

/// Bytes of one request that are kept for another try, and the longest text that is looked at.
const KEPT: usize = 1 << 20;

/// A client's connection, session and server connections.
pub(super) struct Task {
    pub(super) proxy: Arc<Proxy>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) worker: usize,
    pub(super) entry: Arc<Client>,
    pub(super) stream: Stream,
    pub(super) session: Session,
    /// The connection that the session holds between requests: of its transaction, of a pin, or
    /// (session mode) of its primary.
    pub(super) held: Option<Lease>,
    /// Session mode: its replica.
    pub(super) replica: Option<Lease>,
    pub(super) stance: Stance,
    /// Frames up to the next Sync are ignored: an error was answered before it.
    pub(super) ignoring: bool,
    /// What a client at rest between its messages and their Sync still needs.
    pub(super) scratch: Option<Box<Scratch>>,
    /// An exchange that waits for more of the client's bytes.
    pub(super) ongoing: Option<Box<Exchange>>,
    /// Reads in a row that no replica had caught up for.
    pub(super) bounced: u8,
    /// When the request in hand began.
    pub(super) began: Instant,
    /// When its transaction began.
    pub(super) opened: Instant,
    /// The cluster's epoch when the request's server was chosen.
    pub(super) epoch: u64,
    /// The tables whose freshness decided on the request's replica, if one was chosen for it.
    pub(super) reads: Tables,
    /// What the open transaction has changed of the catalogue.
    pub(super) ddl: Traits,
}

/// Where the open transaction, or the implicit one of an unsynced request, stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stance {
    pub(super) on_replica: bool,
    /// Something has run since the last Sync.
    ran: bool,
}

/// The client's connection ends.
#[derive(Debug)]
pub(super) enum Gone {
    /// It said goodbye, or went away.
    Left,
    /// It was told why.
    Told,
}

/// How a request went on.
enum Next {
    /// To the next request.
    Done,
    /// Another try, on another node.
    Again,
}

impl Task {
    /// Serves the client until it leaves. `unread`: bytes that came behind its login.
    pub(super) async fn run(mut self, unread: &[u8]) {
        let mut first = (!unread.is_empty()).then(|| unread.to_vec());
        loop {
            if first.is_none() && !self.idle().await {
                break;
            }
            if self.busy(first.take()).await.is_err() {
                break;
            }
        }
        self.proxy.clients.leave(self.entry.id);
    }

    /// Waits for the client, without a buffer. False: it is to be let go.
    async fn idle(&mut self) -> bool {
        self.entry.set_activity(self.resting());
        if self.proxy.is_stopping() && !self.told_to_go().await {
            return false;
        }
        if self.held.is_some() || self.replica.is_some() {
            return Box::pin(self.idle_holding()).await;
        }
        let (stream, wake, scratch) = (&mut self.stream, &self.entry.wake, &mut self.scratch);
        // The first look is to find nothing, most likely; a later one to find bytes.
        let mut look_only = true;
        let kept = scratch.is_some();
        let came = std::future::poll_fn(|cx| {
            if kept || std::mem::take(&mut look_only) {
                if let Poll::Ready(ready) = stream.poll_readable(cx) {
                    return Poll::Ready(Some(ready.is_ok()));
                }
            } else {
                let mut filled = Scratch::take();
                match filled.client_in.poll_fill(cx, stream) {
                    Poll::Ready(Ok(1..)) => {
                        *scratch = Some(filled);
                        return Poll::Ready(Some(true));
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(false)),
                    Poll::Pending => filled.give_back(),
                }
            }
            wake.watch(cx);
            if wake.silence() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        });
        match came.await {
            Some(open) => open && !self.entry.is_killed(),
            None => self.told_to_go().await,
        }
    }

    /// The same while a server connection is held: notifications, notices and its end are passed
    /// on as they come.
    async fn idle_holding(&mut self) -> bool {
        enum Event {
            Client,
            Server,
            Replica,
            Told,
        }
        loop {
            let event = {
                let (stream, held, replica) = (&mut self.stream, &mut self.held, &mut self.replica);
                let wake = &self.entry.wake;
                let ready = std::future::poll_fn(|cx| {
                    if stream.poll_readable(cx).is_ready() {
                        return Poll::Ready(Event::Client);
                    }
                    if let Some(lease) = held.as_deref_mut() {
                        lease.link.watch(cx);
                        if lease.link.is_doomed() || lease.stream.poll_readable(cx).is_ready() {
                            return Poll::Ready(Event::Server);
                        }
                    }
                    if let Some(lease) = replica.as_deref_mut() {
                        lease.link.watch(cx);
                        if lease.link.is_doomed() || lease.stream.poll_readable(cx).is_ready() {
                            return Poll::Ready(Event::Replica);
                        }
                    }
                    wake.watch(cx);
                    if wake.silence() {
                        return Poll::Ready(Event::Told);
                    }
                    Poll::Pending
                });
                ready.await
            };
            match event {
                Event::Client => return !self.entry.is_killed(),
                Event::Replica => self.replica = None,
                Event::Told => {
                    if !self.told_to_go().await {
                        return false;
                    }
                    if self.released() {
                        return true;
                    }
                }
                Event::Server => match self.server_spoke().await {
                    Ok(()) => return true,
                    Err(Gone::Left | Gone::Told) => return false,
                },
            }
        }
    }

    fn resting(&self) -> Activity {
        if self.session.transaction.status() != Status::Idle {
            Activity::InTransaction
        } else if self.held.is_some() {
            Activity::Pinned
        } else {
            Activity::Idle
        }
    }

    /// An operator woke the task: whether the client stays.
    async fn told_to_go(&mut self) -> bool {
        let stopping =
            self.proxy.is_stopping() && self.session.transaction.status() == Status::Idle;
        if self.entry.is_killed() || stopping {
            let mut scratch = Scratch::take();
            let error = Visible::fatal(
                Fault::Proxy,
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            );
            write::error(&mut scratch.to_client.bytes, &error);
            let _told = tokio::time::timeout(
                Duration::from_secs(1),
                send(&mut self.stream, &mut scratch.to_client),
            )
            .await;
            scratch.give_back();
            return false;
        }
        true
    }

    /// A held server connection has something to say while the client rests.
    async fn server_spoke(&mut self) -> Result<(), Gone> {
        let Some(mut lease) = self.held.take() else {
            return Ok(());
        };
        let mut scratch = Scratch::take();
        let result = observe::pass_on(&mut lease, &mut self.session, &mut scratch).await;
        match result {
            Ok(()) => self.held = Some(lease),
            Err(said) => {
                // An open transaction is lost with it, and what was pinned.
                let pinned = !self.session.pins.is_empty();
                let open = self.session.transaction.is_open();
                let node = lease.node();
                drop(lease);
                self.node_failed(node, said.is_none());
                // So does a session end that keeps a connection and does nothing (57P05).
                let decided = said.as_ref().is_some_and(|(state, _)| {
                    end::ends_the_session(*state) || &state.0 == b"57P05"
                });
                let moves = !decided && !pinned && !self.session.unsynced;
                if moves && self.move_transaction() {
                    scratch.give_back();
                    return Ok(());
                }
                server_lost(&mut self.session);
                if open {
                    // It hears of it with its next statement.
                    self.session.transaction = Transaction::Lost { told: false };
                }
                if pinned || decided {
                    let error = match said {
                        Some((sqlstate, message)) => Visible::fatal(Fault::Node, sqlstate, message),
                        None => Visible::fatal(
                            Fault::Node,
                            SqlState::CONNECTION_FAILURE,
                            "the server connection that this session was bound to is lost",
                        ),
                    };
                    write::error(&mut scratch.to_client.bytes, &error);
                    let _told = send(&mut self.stream, &mut scratch.to_client).await;
                    scratch.give_back();
                    return Err(Gone::Told);
                }
            }
        }
        let sent = send(&mut self.stream, &mut scratch.to_client).await;
        scratch.give_back();
        sent.map_err(|_gone| Gone::Left)
    }

    /// Serves requests until the client has nothing more to say.
    async fn busy(&mut self, first: Option<Vec<u8>>) -> Result<(), Gone> {
        let mut scratch = self.scratch.take().unwrap_or_else(Scratch::take);
        if let Some(bytes) = first {
            scratch.client_in.grow(bytes.len());
            let mut source = bytes.as_slice();
            let _filled =
                std::future::poll_fn(|cx| scratch.client_in.poll_fill(cx, &mut source)).await;
        }
        let result = self.requests(&mut scratch).await;
        self.count_bytes(&mut scratch);
        if result.is_ok() {
            if self.session.unsynced {
                // What has been answered since the last Sync decides what the next messages mean.
                self.scratch = Some(scratch);
            } else {
                scratch.give_back();
            }
        }
        result
    }

    fn count_bytes(&self, scratch: &mut Scratch) {
        let (received, sent) = (
            scratch.client_in.take_came(),
            std::mem::take(&mut scratch.to_client.went),
        );
        self.proxy.metrics(self.worker).bytes(received, sent);
        if let Some(stats) = self.tenant.database.stats.get(self.worker) {
            stats.bytes(received, sent);
        }
    }

    async fn requests(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        if scratch.client_in.is_empty() && !self.read_some(scratch).await? {
            return Ok(());
        }
        loop {
            let catalogues = self.proxy.monitor.catalogues_published();
            let mut found = {
                let (session, statements) = (&mut self.session, &self.proxy.statements);
                let classifier = Classifier {
                    tenant: &self.tenant,
                    worker: self.worker,
                    lexing: session.lexing,
                };
                scratch.resolved.clear();
                scan(
                    scratch.client_in.filled(),
                    KEPT,
                    session,
                    statements,
                    &mut scratch.resolved,
                    |text, form| classifier.classify(text, form),
                )
            };
            let published = self.proxy.monitor.catalogues_published();
            self.session.seen.under(published);
            if let Ok(Scan::Request(request)) = &mut found
                && published != catalogues
            {
                // By which of them its tables were named can't be told.
                request.class.tables = Tables::ALL;
            }
            match found {
                Ok(Scan::Request(request)) => {
                    if request.oversize && self.refuses_all() {
                        let header = Header::parse(scratch.client_in.filled()).ok().flatten();
                        self.discard(header.map_or(0, |header| header.len), scratch)
                            .await?;
                        if !self.ignoring {
                            self.answer_error(&request, &answer::aborted(), scratch);
                        }
                        continue;
                    }
                    if self.ignoring {
                        self.ignore(&request, scratch);
                    } else {
                        self.serve(request, scratch).await?;
                    }
                }
                Ok(Scan::More { needed }) => {
                    scratch.client_in.grow(needed.min(KEPT + HEADER));
                    if self.ongoing.is_some() {
                        self.pump(scratch).await?;
                        continue;
                    }
                    if scratch.client_in.is_empty() {
                        self.flush(scratch).await?;
                        return Ok(());
                    }
                    self.flush(scratch).await?;
                    if !self.read_some(scratch).await? && scratch.client_in.is_empty() {
                        return Ok(());
                    }
                }
                Ok(Scan::Stray { len }) => self.discard(len, scratch).await?,
                Ok(Scan::Terminate) => return Err(Gone::Left),
                Err(malformed) => {
                    let error = Visible::fatal(
                        Fault::Client,
                        SqlState::PROTOCOL_VIOLATION,
                        malformed.to_string(),
                    );
                    return Err(self.farewell(&error, scratch).await);
                }
            }
        }
    }

    /// Whatever comes is only answered with an error, or not at all.
    fn refuses_all(&self) -> bool {
        self.ignoring || matches!(self.session.transaction, Transaction::Lost { .. })
    }

    /// Reads once. Waits when part of a request is there. False: nothing was there after all.
    async fn read_some(&mut self, scratch: &mut Scratch) -> Result<bool, Gone> {
        let stream = &mut self.stream;
        let partial = !scratch.client_in.is_empty();
        let count = std::future::poll_fn(|cx| match scratch.client_in.poll_fill(cx, stream) {
            Poll::Pending if !partial => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(count) => Poll::Ready(count.map(Some)),
        })
        .await;
        match count {
            Ok(None) => Ok(false),
            Ok(Some(0)) | Err(_) => Err(Gone::Left),
            Ok(Some(_)) => Ok(true),
        }
    }

    async fn flush(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        // A TLS layer may hold the end of what was written.
        if scratch.to_client.is_empty() && !self.stream.is_tls() {
            return Ok(());
        }
        send(&mut self.stream, &mut scratch.to_client)
            .await
            .map_err(|_gone| Gone::Left)
    }

    async fn farewell(&mut self, error: &Visible, scratch: &mut Scratch) -> Gone {
        write::error(&mut scratch.to_client.bytes, error);
        let _told = send(&mut self.stream, &mut scratch.to_client).await;
        Gone::Told
    }

    /// Reads and drops `len` bytes: copy data behind a copy that has failed.
    async fn discard(&mut self, len: usize, scratch: &mut Scratch) -> Result<(), Gone> {
        let mut left = len;
        loop {
            let here = left.min(scratch.client_in.len());
            scratch.client_in.consume(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            let stream = &mut self.stream;
            let count = std::future::poll_fn(|cx| scratch.client_in.poll_fill(cx, stream)).await;
            if !matches!(count, Ok(1..)) {
                return Err(Gone::Left);
            }
        }
    }

    /// Drops frames up to the Sync that ends the error.
    fn ignore(&mut self, request: &Request, scratch: &mut Scratch) {
        scratch.client_in.consume(request.len);
        self.session.undo();
        if request.end == End::Sync {
            self.ignoring = false;
            write::ready_for_query(
                &mut scratch.to_client.bytes,
                self.session.transaction.status(),
            );
        }
    }
}

/// Classifies texts with the tenant's caches and catalogue.
pub(super) struct Classifier<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) worker: usize,
    pub(super) lexing: crate::sql::Lexing,
}

impl Classifier<'_> {
    pub(super) fn classify(&self, text: &[u8], form: Form) -> Class {
        let Some(mut classes) = self.tenant.database.classes(self.worker) else {
            return Class::UNKNOWN;
        };
        let database = &self.tenant.database;
        let generation = database.generation();
        let classify = || crate::sql::classify(text, self.lexing, database.catalogue().as_deref());
        match form {
            Form::Simple => classes.classify(text, self.lexing, generation, classify),
            Form::Extended => classes.classify_again(text, self.lexing, generation, classify),
        }
    }
}
