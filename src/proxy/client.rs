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

use std::{future::Future as _, sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    Proxy, answer,
    clients::{Activity, Client},
    exchange::{Exchange, Lost, Outcome, Refusal, Refuse, Side, Terms, send},
    lend::{Lend, Refused},
    observe,
    scratch::Scratch,
    tenant::Tenant,
};
use crate::{
    cluster::NodeId,
    config::settings::PoolMode,
    error::{Fault, Visible},
    metrics::RetryReason,
    net::Stream,
    pool::Lease,
    protocol::{
        SqlState,
        backend::Status,
        frame::{HEADER, Header},
        write,
    },
    routing::{Ask, Consistency, Random, Reason, Route, Target, route},
    session::{
        Pin, Session, Transaction,
        effects::server_lost,
        emit::{self, Sink},
        request::{End, Request, Scan, Work, scan},
    },
    sql::{Access, Begin, Class, Effect, Hint, Kind, Traits, Why},
};

/// Bytes of one request that are kept for another try, and the longest text that is looked at.
const KEPT: usize = 1 << 20;

/// Of the reads in a row that have to go to the primary because no replica has caught up with the
/// session, every so-many-th waits for a replica: a session that reads without a pause would else
/// stay ahead of them. Soon at first, later rarely, since replicas may be far behind.
const PATIENCE: (u8, u8, u8) = (8, 16, 64);
/// So long at the most.
const CATCH_UP: Duration = Duration::from_millis(50);

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
    /// The cluster's epoch when the request's server was chosen.
    pub(super) epoch: u64,
    /// The open transaction has changed the catalogue.
    pub(super) ddl: bool,
}

/// Where the open transaction, or the implicit one of an unsynced request, stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stance {
    pub(super) on_replica: bool,
    /// Something has run since the last Sync.
    ran: bool,
    /// Nothing but reads ran in it: it can go on elsewhere.
    movable: bool,
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
            let busy = Box::pin(self.busy(first.take())).await;
            if busy.is_err() {
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
        if self.held.is_none() && self.replica.is_none() {
            let stream = &mut self.stream;
            let readable = std::future::poll_fn(|cx| stream.poll_readable(cx));
            tokio::select! {
                biased;
                ready = readable => return ready.is_ok() && !self.entry.is_killed(),
                () = self.entry.wake.notified() => {}
            }
        } else {
            return Box::pin(self.idle_holding()).await;
        }
        self.told_to_go().await
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
                    Poll::Pending
                });
                tokio::select! {
                    biased;
                    event = ready => event,
                    () = self.entry.wake.notified() => Event::Told,
                }
            };
            match event {
                Event::Client => return !self.entry.is_killed(),
                Event::Replica => self.replica = None,
                Event::Told => {
                    if !self.told_to_go().await {
                        return false;
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
                server_lost(&mut self.session);
                if open {
                    // It hears of it with its next statement.
                    self.session.transaction = Transaction::Lost { told: false };
                }
                // An end that the server itself has decided on (a timeout of the session's) is told
                // as it said it.
                let decided = said
                    .as_ref()
                    .is_some_and(|(state, _)| matches!(&state.0, b"25P03" | b"25P04" | b"57P05"));
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

    async fn requests(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        if scratch.client_in.is_empty() && !self.read_some(scratch).await? {
            return Ok(());
        }
        loop {
            let found = {
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
                    |text| classifier.classify(text),
                )
            };
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
        if let Some(names) = self.session.known_names() {
            names.undo();
        }
        if request.end == End::Sync {
            self.ignoring = false;
            write::ready_for_query(
                &mut scratch.to_client.bytes,
                self.session.transaction.status(),
            );
        }
    }

    // One request.

    async fn serve(&mut self, request: Request, scratch: &mut Scratch) -> Result<(), Gone> {
        self.began = Instant::now();
        if request.class.kind == Kind::Own {
            self.sampled().await;
        }
        if answer::answered(self, &request, scratch) {
            scratch.client_in.consume(request.len);
            return Ok(());
        }
        let mut tries = Tries {
            begin: self.begins(&request, scratch),
            leaning: self.leans(&request, scratch),
            ..Tries::default()
        };
        loop {
            match self.attempt(&request, &mut tries, scratch).await? {
                Next::Done => return Ok(()),
                Next::Again => scratch.resolved.rewind(),
            }
        }
    }

    /// One try: route, lend, send, pass the answer on.
    async fn attempt(
        &mut self,
        request: &Request,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let Some((mut lease, route)) = self.lend(request, tries, scratch).await? else {
            return Ok(Next::Done);
        };
        let replica = matches!(route.target, Target::Replica(_));
        let node = lease.node();
        if let Err(error) = self.bring_identity(&mut lease).await {
            return self
                .fail(request, &error, scratch)
                .await
                .map(|()| Next::Done);
        }
        self.proxy
            .metrics(self.worker)
            .query(route, request.class.access, node);
        let was_open = self.session.transaction.is_open();
        let continued = self.session.unsynced;
        let base = scratch.to_client.bytes.len();
        let Some(emitted) = self.emit(request, &mut lease, replica, scratch) else {
            drop(lease);
            let error = Visible::fatal(
                Fault::Client,
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "the text of a named prepared statement is too long to be kept",
            )
            .hint("prepare it without a name");
            return self
                .fail(request, &error, scratch)
                .await
                .map(|()| Next::Done);
        };
        let pure = request.class.traits.has(Traits::PURE_READ);
        let terms = Terms {
            refuse: if replica && !was_open && !continued {
                Refuse::FromReplica
            } else {
                Refuse::Nothing
            },
            heals: !was_open && !continued && request.describes && tries.count < Tries::LIMIT,
            ends_with_client: was_open || pure,
            open: request.end == End::Open,
            on: if replica {
                Side::Replica
            } else {
                Side::Primary
            },
        };
        let once = was_open || continued || request.end == End::Open || request.oversize;
        let kept = if once { 0 } else { emitted.consumed };
        let exchange = match self.ongoing.take() {
            Some(mut ongoing) => {
                ongoing.terms = terms;
                ongoing.passing_on = emitted.passing_on;
                ongoing
            }
            None => Box::new(Exchange::new(terms, kept, emitted.passing_on, base)),
        };
        if once {
            scratch.client_in.consume(emitted.consumed);
        }
        if terms.open && emitted.passing_on == 0 && !scratch.client_in.is_empty() {
            // More of it may be here already.
            return Ok(self.interrupt(lease, exchange, replica));
        }
        self.exchange(request, lease, route, exchange, tries, scratch)
            .await
    }

    /// The exchange goes on with more of the client's bytes.
    fn interrupt(&mut self, lease: Lease, exchange: Box<Exchange>, replica: bool) -> Next {
        self.session.unsynced = true;
        self.stance.on_replica = replica;
        self.held = Some(lease);
        self.ongoing = Some(exchange);
        Next::Done
    }

    /// Waits for more of the client's bytes while a server's answers are passed on.
    async fn pump(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        let (Some(lease), Some(mut exchange)) = (self.held.take(), self.ongoing.take()) else {
            return Err(Gone::Left);
        };
        exchange.terms.open = true;
        let target = if self.stance.on_replica {
            Target::Replica(lease.node())
        } else {
            Target::Primary
        };
        let route = Route {
            target,
            reason: Reason::Transaction,
        };
        let request = Request::unfinished();
        let mut tries = Tries::default();
        self.exchange(&request, lease, route, exchange, &mut tries, scratch)
            .await
            .map(|_next| ())
    }

    /// Passes the answer on, and deals with how that ended.
    async fn exchange(
        &mut self,
        request: &Request,
        mut lease: Lease,
        route: Route,
        mut exchange: Box<Exchange>,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let replica = matches!(route.target, Target::Replica(_));
        let node = lease.node();
        let was_open = self.session.transaction.is_open();
        self.entry.runs_on(&lease.link);
        self.entry.set_activity(Activity::Active);
        let load = self.proxy.enter(node);
        let outcome = exchange
            .run(&mut self.stream, &mut lease, &mut self.session, scratch)
            .await;
        drop(load);
        match outcome {
            Outcome::Answered(status) => {
                self.answered(request, lease, route, status, scratch)
                    .await?;
                Ok(Next::Done)
            }
            Outcome::ClientBytes => Ok(self.interrupt(lease, exchange, replica)),
            Outcome::Refused { refusal, status } => {
                if refusal.stale {
                    lease.backend.prepared.doubt_all();
                    lease.backend.unnamed = None;
                    tries.count += 1;
                }
                self.refused(request, lease, refusal, status, tries, scratch)
                    .await;
                Ok(Next::Again)
            }
            Outcome::ServerLost(lost) => {
                drop(lease);
                let _safe = self.entry.ended().await;
                self.server_lost(request, node, replica, was_open, lost, tries, scratch)
                    .await
            }
            Outcome::SetupFailed { sqlstate, message } => {
                drop(lease);
                let _safe = self.entry.ended().await;
                let error = Visible::error(
                    Fault::Proxy,
                    sqlstate,
                    format!("the session's settings could not be applied: {message}"),
                )
                .hint("the statement may have run without them; its server connection is closed");
                server_lost(&mut self.session);
                self.discard_unwanted(exchange.passing_on, scratch).await?;
                let consumed = if exchange.kept > 0 { request.len } else { 0 };
                scratch.client_in.consume(consumed);
                self.answer_error(request, &error, scratch);
                self.flush(scratch).await.map(|()| Next::Done)
            }
            Outcome::ClientLost => {
                self.proxy.abandon(lease);
                Err(Gone::Left)
            }
            Outcome::ClientBroken(malformed) => {
                drop(lease);
                let error = Visible::fatal(
                    Fault::Client,
                    SqlState::PROTOCOL_VIOLATION,
                    malformed.to_string(),
                );
                Err(self.farewell(&error, scratch).await)
            }
        }
    }

    /// A server connection for the request, and why that one. `None`: the client was told why not.
    async fn lend(
        &mut self,
        request: &Request,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Option<(Lease, Route)>, Gone> {
        // A transaction, an implicit one, and most pins stay where they are.
        if self.session.transaction.is_open() || self.session.unsynced {
            let reason = Reason::Transaction;
            let Some(lease) = self.held.take() else {
                let error = Visible::fatal(
                    Fault::Proxy,
                    SqlState::INTERNAL_ERROR,
                    "the server connection of the open transaction is missing",
                );
                return Err(self.farewell(&error, scratch).await);
            };
            match self.leaves_replica(request, scratch) {
                Leaving::Stays => {
                    let target = if self.stance.on_replica {
                        Target::Replica(lease.node())
                    } else {
                        Target::Primary
                    };
                    return Ok(Some((lease, Route { target, reason })));
                }
                Leaving::Can(how) => {
                    self.leave_replica(lease, how).await;
                    if belongs_on_primary(request) {
                        tries.primary = Some(Reason::Transaction);
                    }
                    tries.begin = self.begins(request, scratch);
                }
                Leaving::Cannot => {
                    self.held = Some(lease);
                    let error = Visible::error(
                        Fault::Client,
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "this statement belongs on the primary, and its transaction runs on a replica",
                    )
                    .hint("SET pgsplit.route = 'primary' before such a transaction");
                    self.fail_in_transaction(request, &error, scratch).await?;
                    return Ok(None);
                }
            }
        }
        let route = match self.route(request, tries).await {
            Ok(route) => route,
            Err(error) => {
                self.fail(request, &error, scratch).await?;
                return Ok(None);
            }
        };
        match route.target {
            Target::Primary => {
                if let Some(lease) = self.held.take() {
                    return Ok(Some((lease, route)));
                }
            }
            Target::Replica(node) => {
                if let Some(lease) = self.replica.take()
                    && lease.node() == node
                {
                    return Ok(Some((lease, route)));
                }
            }
        }
        self.flush_before_waiting(scratch).await?;
        let waiting = Instant::now();
        let lent = self.proxy.lend(Lend {
            tenant: &self.tenant,
            worker: self.worker,
            entry: &self.entry,
            target: route.target,
        });
        match lent.await {
            Ok(lease) => {
                let waited = waiting.elapsed();
                self.proxy.metrics(self.worker).pool_wait(waited);
                if let Some(stats) = self.tenant.database.stats.get(self.worker) {
                    stats.assigned(waited);
                }
                Ok(Some((lease, route)))
            }
            Err(Refused::Node(node)) => {
                tries.avoid.push(node);
                self.proxy
                    .metrics(self.worker)
                    .retry(RetryReason::ConnectionLost);
                Box::pin(self.lend(request, tries, scratch)).await
            }
            Err(Refused::Told(error)) => {
                self.fail(request, &error, scratch).await?;
                Ok(None)
            }
        }
    }

    /// Whether a request has to leave the replica that the transaction, or the implicit one of an
    /// unsynced request, is on.
    fn leaves_replica(&self, request: &Request, scratch: &Scratch) -> Leaving {
        // A transaction that begins here is one that has its own route.
        let needs_primary = belongs_on_primary(request) || request.begin.is_some();
        if !self.stance.on_replica || !needs_primary || scratch.replies.skipping() {
            return Leaving::Stays;
        }
        if self.session.transaction.status() == Status::Failed {
            return Leaving::Stays;
        }
        match (self.session.transaction.is_open(), self.session.unsynced) {
            (true, false) if self.stance.movable => Leaving::Can(Way::Rollback),
            (false, true) if !self.stance.ran && scratch.replies.is_empty() => {
                Leaving::Can(Way::Sync)
            }
            // Refused there in the same words.
            (true, false)
                if matches!(
                    request.class.access,
                    Access::Primary(Why::Write | Why::RowLock)
                ) =>
            {
                Leaving::Stays
            }
            _ => Leaving::Cannot,
        }
    }

    /// SET TRANSACTION: its modes are those that the transaction is opened with elsewhere, too.
    fn only_sets_transaction(&self, request: &Request, scratch: &Scratch) -> bool {
        let text = request
            .query
            .clone()
            .and_then(|range| scratch.client_in.filled().get(range));
        let effects = text.and_then(|text| crate::sql::effects(text, self.session.lexing));
        matches!(effects.as_deref(), Some([Effect::SetTransaction(_)]))
    }

    async fn leave_replica(&mut self, mut lease: Lease, how: Way) {
        let left = match how {
            Way::Rollback => {
                // Each statement had a snapshot of its own, so that it may go on elsewhere; what
                // ran was only read.
                let text: Box<[u8]> = b"BEGIN READ ONLY".as_slice().into();
                let modes = Begin {
                    read_only: Some(true),
                    ..Begin::default()
                };
                self.session.transaction = Transaction::Deferred { modes, text };
                observe::execute(&mut lease, "ROLLBACK").await
            }
            Way::Sync => {
                self.session.unsynced = false;
                observe::sync(&mut lease).await
            }
        };
        if left.is_ok() && self.entry.ended().await {
            lease.give_back();
        }
    }

    /// Answers that are ready must not wait for a server that isn't.
    async fn flush_before_waiting(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        if self.session.transaction.status() == Status::Idle || scratch.to_client.is_empty() {
            return Ok(());
        }
        self.flush(scratch).await
    }

    async fn route(&mut self, request: &Request, tries: &Tries) -> Result<Route, Visible> {
        self.epoch = self.proxy.monitor.view().epoch;
        if self.pinned_here(request) {
            return Ok(Route {
                target: Target::Primary,
                reason: Reason::Pinned,
            });
        }
        let mut chosen = self.decide(request, tries);
        if chosen.reason == Reason::Watermark {
            self.proxy.want_samples();
            self.bounced = self.bounced.wrapping_add(1);
            let configured = self.tenant.policy.wait_for_replica;
            let (soon, later, rarely) = PATIENCE;
            let waits =
                [soon, later].contains(&self.bounced) || self.bounced.is_multiple_of(rarely);
            let patience = if waits {
                configured.max(CATCH_UP)
            } else {
                configured
            };
            if !patience.is_zero() {
                let deadline = Instant::now() + patience;
                let mut views = self.proxy.monitor.subscribe();
                while chosen.reason == Reason::Watermark {
                    if !matches!(
                        tokio::time::timeout_at(deadline, views.changed()).await,
                        Ok(Ok(()))
                    ) {
                        break;
                    }
                    chosen = self.decide(request, tries);
                    if chosen.reason == Reason::Watermark {
                        self.proxy.want_samples();
                    }
                }
            }
        }
        if matches!(chosen.target, Target::Replica(_)) {
            self.bounced = 0;
        }
        self.proxy.or_no_fallback(chosen, &self.tenant.policy)
    }

    /// Waits until a position bounds what the session has seen, for SHOW pgsplit.last_lsn.
    async fn sampled(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + PATIENCE;
        let mut views = self.proxy.monitor.subscribe();
        while self
            .session
            .seen
            .watermark(&self.proxy.monitor.view())
            .is_err()
        {
            self.proxy.want_samples();
            if !matches!(
                tokio::time::timeout_at(deadline, views.changed()).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    /// The modes of the transaction that this request opens, if it opens one.
    fn begins(&self, request: &Request, scratch: &Scratch) -> Option<Begin> {
        match &self.session.transaction {
            Transaction::Deferred { modes, .. } => {
                let effects = request.class.traits.has(Traits::EFFECTS);
                let range = request.query.clone().filter(|_| effects);
                let text = range.and_then(|range| scratch.client_in.filled().get(range));
                Some(answer::merged(*modes, text, self.session.lexing))
            }
            Transaction::Idle | Transaction::Open { .. } | Transaction::Lost { .. } => {
                request.begin
            }
        }
    }

    /// The text of a request that is one simple Query, or runs the session's unnamed statement.
    fn text<'a>(&'a self, request: &Request, scratch: &'a Scratch) -> Option<&'a [u8]> {
        match &request.query {
            Some(range) => scratch.client_in.filled().get(range.clone()),
            None => self.session.unnamed.text(),
        }
    }

    fn leans(&self, request: &Request, scratch: &Scratch) -> bool {
        request.class.access == Access::Read
            && self
                .tenant
                .database
                .classes(self.worker)
                .is_some_and(|mut classes| {
                    self.text(request, scratch).is_some_and(|text| {
                        classes.leans(text, self.session.lexing, self.began.into_std())
                    })
                })
    }

    fn decide(&self, request: &Request, tries: &Tries) -> Route {
        if let Some(reason) = tries.primary {
            return Route {
                target: Target::Primary,
                reason,
            };
        }
        let unfinished = match request.end {
            End::Open => Some(Reason::TooLong),
            End::Flush if request.work == Work::Runs => Some(Reason::Flush),
            End::Flush | End::Sync | End::Ready => None,
        };
        let consistency = self
            .session
            .own
            .consistency
            .unwrap_or(self.tenant.policy.consistency);
        let seen_by_all = self.proxy.seen_by_all(consistency);
        let ask = Ask {
            class: request.class,
            begin: tries.begin,
            read_only_session: self.session.is_read_only_by_default(),
            isolation: self.session.default_isolation(),
            unfinished,
            leaning: tries.leaning,
            own: &self.session.own,
            seen: &self.session.seen,
            seen_by_all: &seen_by_all,
            avoid: &tries.avoid,
            now: self.began.into_std(),
        };
        let view = self.proxy.monitor.view();
        route(
            &ask,
            &self.tenant.policy,
            &view,
            |node| self.proxy.in_flight(node),
            Random(fastrand::u32(..)),
        )
    }

    /// What the session keeps on its connection binds this request, too.
    fn pinned_here(&self, request: &Request) -> bool {
        let pins = self.session.pins;
        if self.held.is_none() || pins.is_empty() {
            return false;
        }
        let splittable = pins
            .iter()
            .all(|pin| matches!(pin, Pin::Listen | Pin::AdvisoryLock));
        // What goes on over several requests would keep the other connection in this one's place.
        let alone = self.session.transaction == Transaction::Idle
            && request.begin.is_none()
            && matches!(request.end, End::Ready | End::Sync)
            && request.class.kind == Kind::Single;
        !(splittable && alone && request.class.access == Access::Read)
    }

    /// A role can't be carried over blindly: if that fails the statement must not run at all.
    async fn bring_identity(&mut self, lease: &mut Lease) -> Result<(), Visible> {
        if self.session.transaction.is_open() || self.session.unsynced {
            return Ok(());
        }
        let wanted = self.session.settings.current();
        let changes = match &lease.backend.settings {
            Some(known) if Arc::ptr_eq(known, wanted) => false,
            Some(known) => {
                known != wanted && (known.changes_identity() || wanted.changes_identity())
            }
            None => true,
        };
        if !changes {
            return Ok(());
        }
        let wanted = Arc::clone(wanted);
        let Some(sql) = lease.backend.statements_to(&wanted) else {
            return Ok(());
        };
        observe::execute(lease, &sql)
            .await
            .map_err(|problem| problem.visible("applying the session's settings"))?;
        lease.backend.settings = Some(wanted);
        Ok(())
    }

    /// Writes the request to the server. `None`: it can't be sent through a pool.
    fn emit(
        &mut self,
        request: &Request,
        lease: &mut Lease,
        replica: bool,
        scratch: &mut Scratch,
    ) -> Option<emit::Passing> {
        let class = request.class;
        if class.traits.has(Traits::OBSERVE) {
            self.session.suspect = true;
        }
        if class.traits.has(Traits::DDL) {
            // Nothing that is known of the catalogue holds while this runs, nor until it is read again.
            self.ddl = true;
            self.tenant.database.ddl_seen();
        }
        self.stance.on_replica = replica;
        if self.session.unsynced {
            if class.traits.has(Traits::EFFECTS) && !scratch.replies.is_empty() {
                self.session.suspect = true;
            }
            scratch.expected.next_part();
        } else {
            scratch.expected.clear();
            self.stance.ran = false;
        }
        self.stance.ran |= request.work == Work::Runs;
        if !self.session.transaction.is_open() {
            self.stance.movable = true;
        }
        self.stance.movable &= class.traits.has(Traits::PURE_READ)
            && (!class.traits.has(Traits::EFFECTS) || self.only_sets_transaction(request, scratch))
            && !request.oversize
            && request.end != End::Open;
        let skipping = scratch.replies.skipping();
        let server = &mut **lease;
        let mut sink = Sink {
            out: &mut scratch.to_server.bytes,
            replies: &mut scratch.replies,
            backend: &mut server.backend,
            prepared_limit: self.tenant.prepared_limit,
        };
        if !self.session.transaction.is_open() && !self.session.unsynced {
            if let Some(sql) = sink.backend.statements_to(self.session.settings.current()) {
                sink.hidden_query(sql.as_bytes());
                sink.backend.settings = Some(Arc::clone(self.session.settings.current()));
            }
            if let Transaction::Deferred { text, .. } = &self.session.transaction {
                sink.hidden_query(text);
            }
        }
        let bytes = scratch.client_in.filled();
        if request.oversize {
            return emit::oversize(bytes, &mut self.session, &mut sink);
        }
        let frames = bytes
            .get(..request.len.min(bytes.len()))
            .unwrap_or_default();
        if request.end == End::Ready {
            if class.traits.has(Traits::EFFECTS)
                && let Some(text) = request.query.clone().and_then(|range| bytes.get(range))
            {
                scratch.expected.expect_query(text, &mut self.session);
            }
            emit::simple(frames, &mut self.session, &mut sink);
        } else {
            if class.traits.has(Traits::EFFECTS) {
                scratch
                    .expected
                    .expect_extended(frames, &mut self.session, &mut scratch.resolved);
            }
            // A scan has found every frame well-formed.
            let _well_formed = emit::extended(
                frames,
                request.rewritten,
                &self.session,
                &mut scratch.resolved,
                &mut sink,
            );
            if request.end == End::Flush {
                // What comes behind may be no Flush: a Query, or the client's goodbye.
                write::frame(sink.out, crate::protocol::frontend::tag::FLUSH, |_| ());
            }
            if skipping {
                // The server passes over all this, up to a Sync.
                sink.backend.prepared.failed();
                sink.backend.unnamed = None;
                if let Some(names) = self.session.known_names() {
                    names.undo();
                }
            }
        }
        Some(emit::Passing {
            consumed: request.len,
            passing_on: 0,
        })
    }

    /// The answer is complete.
    async fn answered(
        &mut self,
        request: &Request,
        mut lease: Lease,
        route: Route,
        status: Option<Status>,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        let answered = Instant::now();
        let now = answered.into_std();
        let replica = matches!(route.target, Target::Replica(_));
        let (epoch, node) = (self.epoch, lease.node());
        self.count(replica, answered - self.began, status);
        if replica {
            let consistency = self
                .session
                .own
                .consistency
                .unwrap_or(self.tenant.policy.consistency);
            let covered = consistency != Consistency::Eventual;
            self.session.seen.on_replica(epoch, node, now, covered);
        } else {
            self.session.seen.on_primary(epoch, node, now);
            if !request.class.traits.has(Traits::PURE_READ) || self.session.unsynced {
                self.proxy.wrote(epoch, node, now);
            }
        }
        self.session.unsynced = status.is_none();
        if status == Some(Status::Idle) {
            if self.ddl {
                self.ddl = false;
                self.tenant.database.ddl_seen();
            }
            // What the client waits for goes out before pgsplit looks after itself.
            if self.session.suspect {
                self.flush(scratch).await?;
                let before = self.session.pins;
                let looked = observe::look(&mut lease, &mut self.session).await;
                for pin in self.session.pins.iter().filter(|pin| !before.has(*pin)) {
                    self.proxy.metrics(self.worker).pin(pin);
                }
                if let Ok(notifications) = &looked {
                    scratch.to_client.bytes.extend_from_slice(notifications);
                }
                if let Err(problem) = looked {
                    tracing::warn!(node = self.proxy.monitor.name(node), %problem, "server connection closed: its state could not be read");
                    let _safe = self.entry.ended().await;
                    drop(lease);
                    server_lost(&mut self.session);
                    return Ok(());
                }
            }
        }
        let keep = status != Some(Status::Idle)
            || self.tenant.mode == PoolMode::Session
            || (!replica && !self.session.pins.is_empty());
        if keep {
            let in_transaction = status != Some(Status::Idle);
            if replica && !in_transaction {
                self.replica = Some(lease)
            } else {
                self.held = Some(lease)
            }
            return Ok(());
        }
        if !self.entry.ended().await {
            return Ok(());
        }
        // The client's own bytes first: it waits, the pool doesn't.
        if !scratch.to_client.is_empty() {
            let stream = &mut self.stream;
            let mut flushed = std::pin::pin!(send(stream, &mut scratch.to_client));
            let now = std::future::poll_fn(|cx| Poll::Ready(flushed.as_mut().poll(cx))).await;
            if let Poll::Ready(Err(_)) = now {
                lease.give_back();
                return Err(Gone::Left);
            }
        }
        lease.give_back();
        Ok(())
    }

    fn count(&mut self, replica: bool, took: Duration, status: Option<Status>) {
        self.proxy.metrics(self.worker).query_duration(took);
        if let Some(stats) = self.tenant.database.stats.get(self.worker) {
            stats.query(replica, took);
            if status == Some(Status::Idle) {
                stats.transaction(took);
            }
        }
    }

    /// A replica has refused: the primary is asked.
    async fn refused(
        &mut self,
        request: &Request,
        mut lease: Lease,
        refusal: Refusal,
        status: Option<Status>,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) {
        let clean = match status {
            Some(Status::Idle) => true,
            Some(Status::InTransaction | Status::Failed) => {
                observe::execute(&mut lease, "ROLLBACK").await.is_ok()
            }
            None => observe::sync(&mut lease).await.is_ok(),
        };
        if clean && self.entry.ended().await {
            lease.give_back();
        }
        scratch.replies.clear();
        scratch.expected.clear();
        scratch.to_server.clear();
        let metrics = self.proxy.metrics(self.worker);
        if refusal.stale {
            metrics.retry(RetryReason::StalePlan);
            if let Some(names) = self.session.known_names() {
                names.rewind();
            }
            return;
        }
        metrics.retry(RetryReason::of(refusal.sqlstate));
        if let Some(names) = self.session.known_names() {
            names.rewind();
        }
        tries.primary = Some(Reason::Retry);
        if let Some(text) = self.text(request, scratch) {
            self.proxy.learn(
                &self.tenant,
                self.worker,
                text,
                self.session.lexing,
                refusal.sqlstate,
            );
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one decision from all that is known of a lost server"
    )]
    async fn server_lost(
        &mut self,
        request: &Request,
        node: NodeId,
        replica: bool,
        was_open: bool,
        lost: Lost,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        self.node_failed(node, lost.said.is_none() && !lost.doomed);
        tracing::debug!(
            node = self.proxy.monitor.name(node),
            ?lost,
            "server connection lost"
        );
        scratch.replies.clear();
        scratch.expected.clear();
        scratch.to_server.clear();
        scratch.server_in.clear();
        let pure = request.class.traits.has(Traits::PURE_READ);
        // PostgreSQL says so before it ends a connection whose transaction it has rolled back. Not so
        // 57P02: a crash may strike while a commit is being carried out.
        let rolled_back = lost.said.as_ref().is_some_and(|(state, _)| {
            matches!(
                &state.0,
                b"57P01" | b"57P03" | b"57P05" | b"25P03" | b"25P04"
            )
        });
        let again = lost.held
            && !was_open
            && !self.session.unsynced
            && self.session.pins.is_empty()
            && (replica || pure || rolled_back)
            && lost.unwanted == 0
            && !self.entry.is_killed()
            && tries.count < Tries::LIMIT;
        if again {
            tries.count += 1;
            if let Some(names) = self.session.known_names() {
                names.rewind();
            }
            tries.avoid.push(node);
            self.proxy
                .metrics(self.worker)
                .retry(RetryReason::ConnectionLost);
            return Ok(Next::Again);
        }
        self.ongoing = None;
        if lost.torn {
            return Err(Gone::Left);
        }
        self.discard_unwanted(lost.unwanted, scratch).await?;
        // What is kept isn't tried again.
        if lost.held {
            scratch.client_in.consume(request.len);
        }
        let deferred = matches!(self.session.transaction, Transaction::Deferred { .. });
        let ends_transaction = was_open || deferred || request.begin.is_some();
        // It may have committed: COMMIT itself, also AND CHAIN or among others, PREPARE TRANSACTION.
        let commit = request.class.kind == Kind::Commit
            || !pure
                && (request.class.kind == Kind::Several
                    || request.class.traits.has(Traits::EFFECTS)
                    || request.end == End::Open
                    || self.session.unsynced);
        if !replica {
            // Whoever looks whether it was carried out must not look at a replica that lags behind.
            self.session
                .seen
                .on_primary(self.epoch, node, Instant::now().into_std());
        }
        let pinned = !self.session.pins.is_empty();
        server_lost(&mut self.session);
        let error = lost_error(
            &lost,
            ends_transaction,
            commit,
            pure || replica,
            rolled_back,
        );
        if pinned || self.tenant.mode == PoolMode::Session && was_open {
            let error = Visible {
                fatal: true,
                ..error
            };
            return Err(self.farewell(&error, scratch).await);
        }
        if commit || !ends_transaction {
            self.session.transaction = Transaction::Idle;
        }
        self.answer_error(request, &error, scratch);
        self.flush(scratch).await?;
        Ok(Next::Done)
    }

    fn node_failed(&self, node: NodeId, broken: bool) {
        if broken {
            self.proxy
                .monitor
                .report_failure(node, crate::cluster::Failure::Closed);
        }
    }

    /// Tells the client why its request isn't carried out.
    async fn fail(
        &mut self,
        request: &Request,
        error: &Visible,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        self.proxy.metrics(self.worker).error(error.fault);
        if error.fatal {
            return Err(self.farewell(error, scratch).await);
        }
        scratch.client_in.consume(request.len);
        if request.oversize {
            let header = Header::parse(scratch.client_in.filled()).ok().flatten();
            self.discard(header.map_or(0, |header| header.len), scratch)
                .await?;
        }
        scratch.replies.clear();
        scratch.expected.clear();
        if matches!(self.session.transaction, Transaction::Deferred { .. }) {
            // The first statement of a transaction has failed, and with it the transaction.
            self.session.transaction = Transaction::Lost { told: true };
        }
        self.answer_error(request, error, scratch);
        self.flush(scratch).await
    }

    /// An error inside the open transaction, which fails with it, as it would at the server.
    async fn fail_in_transaction(
        &mut self,
        request: &Request,
        error: &Visible,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        if let Some(lease) = self.held.take() {
            self.proxy.abandon(lease);
        }
        server_lost(&mut self.session);
        self.fail(request, error, scratch).await
    }

    /// Takes what is still to come of a frame whose server is gone.
    async fn discard_unwanted(&mut self, count: usize, scratch: &mut Scratch) -> Result<(), Gone> {
        if count == 0 {
            Ok(())
        } else {
            self.discard(count, scratch).await
        }
    }

    /// An error in place of the request's answer.
    pub(super) fn answer_error(
        &mut self,
        request: &Request,
        error: &Visible,
        scratch: &mut Scratch,
    ) {
        let out = &mut scratch.to_client.bytes;
        if let Some(names) = self.session.known_names() {
            names.undo();
        }
        write::error(out, error);
        match request.end {
            End::Ready | End::Sync => {
                write::ready_for_query(out, self.session.transaction.status());
            }
            End::Flush | End::Open => self.ignoring = true,
        }
    }
}

fn belongs_on_primary(request: &Request) -> bool {
    matches!(request.class.access, Access::Primary(_)) && request.class.hint != Some(Hint::Replica)
}

/// Whether a request goes on where its transaction is.
enum Leaving {
    Stays,
    Can(Way),
    Cannot,
}

/// How a replica is left.
enum Way {
    Rollback,
    Sync,
}

/// What has been tried of one request.
#[derive(Debug, Default)]
struct Tries {
    count: u8,
    avoid: Vec<NodeId>,
    /// The modes of the transaction that it opens.
    begin: Option<Begin>,
    /// Its statement conflicted with recovery lately.
    leaning: bool,
    /// Only the primary may answer now.
    primary: Option<Reason>,
}

impl Tries {
    /// Nodes that one request is tried on after losing its server.
    const LIMIT: u8 = 3;
}

/// What the client hears of a lost server connection.
fn lost_error(
    lost: &Lost,
    in_transaction: bool,
    commit: bool,
    read: bool,
    rolled_back: bool,
) -> Visible {
    let cause = match (&lost.said, lost.doomed, &lost.problem) {
        (Some((_, message)), _, _) => message.clone(),
        (None, true, _) => "its node is down".to_owned(),
        (None, false, Some(problem)) => problem.to_string(),
        (None, false, None) => "the server closed the connection".to_owned(),
    };
    if in_transaction && (!commit || rolled_back) {
        return Visible::error(
            Fault::Node,
            SqlState::SERIALIZATION_FAILURE,
            format!("the transaction was rolled back: its server connection is lost ({cause})"),
        )
        .hint("run the transaction again");
    }
    if read || rolled_back {
        return Visible::error(
            Fault::Node,
            SqlState::CONNECTION_FAILURE,
            format!(
                "the server connection was lost while its answer was being passed on ({cause})"
            ),
        );
    }
    Visible::error(
        Fault::Node,
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        format!("the server connection was lost: it is not known whether the statement was carried out ({cause})"),
    )
    .hint("look whether it was before running it again")
}

/// Classifies texts with the tenant's caches and catalogue.
pub(super) struct Classifier<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) worker: usize,
    pub(super) lexing: crate::sql::Lexing,
}

impl Classifier<'_> {
    pub(super) fn classify(&self, text: &[u8]) -> Class {
        let Some(mut classes) = self.tenant.database.classes(self.worker) else {
            return Class::UNKNOWN;
        };
        let catalogue = self.tenant.database.catalogue();
        let generation = catalogue
            .as_ref()
            .map_or(0, |catalogue| catalogue.generation);
        classes.classify(text, self.lexing, generation, || {
            crate::sql::classify(text, self.lexing, catalogue.as_deref())
        })
    }
}
