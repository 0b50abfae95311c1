//! One request: tried on a server connection, and tried again where that is safe.

use std::{sync::Arc, task::Poll};

use tokio::time::Instant;

use super::{
    super::{
        answer,
        clients::Activity,
        exchange::{Exchange, Outcome, Refuse, Side, Stop, Terms},
        observe::{self, Problem},
        scratch::Scratch,
    },
    Gone, Next, Task,
    end::{Answered, Settled},
};
use crate::{
    cluster::NodeId,
    error::{Fault, Visible},
    metrics::RetryReason,
    pool::Lease,
    protocol::{SqlState, backend::Status, frame::Header, write},
    routing::{Reason, Route, Target, Transactions},
    session::{
        Pin, Session, Transaction,
        demand::Demand,
        effects::{see_extended, server_lost},
        emit::{self, Mentions, Sink},
        request::{End, Request, Work},
    },
    sql::{self, Access, Begin, Class, Kind, Tables, Traits},
};

impl Task {
    pub(super) async fn serve(
        &mut self,
        request: Request,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        self.began = Instant::now();
        self.reads = Tables::NONE;
        if !self.session.transaction.is_open() && !self.session.unsynced {
            self.opened = self.began;
        }
        if request.class.kind == Kind::Own {
            Box::pin(self.sampled()).await;
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
        tries.demand = self.demand(&request, tries.begin, scratch);
        loop {
            match self.attempt(&request, &mut tries, scratch).await? {
                Next::Done => {
                    if tries.waited {
                        self.entry.rests();
                    }
                    return Ok(());
                }
                Next::Again => {
                    tries.waited = true;
                    scratch.resolved.rewind();
                    if Box::pin(self.cancelled_between(&request, scratch)).await? {
                        self.entry.rests();
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What the request needs of its transaction's server, where that may be a replica.
    fn demand(
        &self,
        request: &Request,
        begin: Option<Begin>,
        scratch: &mut Scratch,
    ) -> Option<Demand> {
        let replay = self.session.transaction.replay();
        let may = match begin {
            Some(modes) => self.may_begin_on_replica(modes),
            None if replay.is_some() => true,
            // A text that begins a transaction and goes on.
            None => {
                request.class.kind == Kind::Several
                    && request.query.is_some()
                    && request.class.traits.has(Traits::EFFECTS)
                    && self.session.transaction == Transaction::Idle
            }
        };
        may.then(|| {
            let bytes = scratch.client_in.filled();
            let frames = bytes
                .get(..request.len.min(bytes.len()))
                .unwrap_or_default();
            Demand::of_request(
                request,
                frames,
                &self.session,
                &mut scratch.resolved,
                replay,
            )
        })
    }

    fn may_begin_on_replica(&self, modes: Begin) -> bool {
        modes
            .read_only
            .unwrap_or_else(|| self.session.is_read_only_by_default())
            || self
                .session
                .own
                .transactions
                .unwrap_or(self.tenant.policy.transactions)
                == Transactions::Optimistic
    }

    /// One try: route, lend, send, pass the answer on.
    async fn attempt(
        &mut self,
        request: &Request,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let lent = match self.lend_at_once(request, tries) {
            Ok(lent) => Some(lent),
            Err(found) => Box::pin(self.lend(request, tries, found, scratch)).await?,
        };
        let Some((mut lease, route)) = lent else {
            return Ok(Next::Done);
        };
        let replica = matches!(route.target, Target::Replica(_));
        let node = lease.node();
        self.heed_defaults(&lease, replica);
        if self.needs_identity(&lease)
            && let Some(next) =
                Box::pin(self.bring_identity(request, &mut lease, tries, scratch)).await?
        {
            return Ok(next);
        }
        self.proxy
            .metrics(self.worker)
            .query(route, request.class.access, node);
        let was_open = self.session.transaction.is_open();
        let continued = self.session.unsynced;
        // It can be run again elsewhere with its transaction.
        let moves = replica && self.session.transaction.visiting().is_some();
        let base = scratch.to_client.bytes.len();
        let Some(emitted) = self.emit(request, &mut lease, replica, tries, scratch) else {
            drop(lease);
            return Err(Box::pin(self.text_too_long(scratch)).await);
        };
        let pure = request.class.traits.has(Traits::PURE_READ);
        let terms = Terms {
            refuse: if replica && (!was_open || moves) && !continued {
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
        let once = was_open && !moves || continued || request.end == End::Open || request.oversize;
        let kept = if once { 0 } else { emitted.consumed };
        let exchange = match self.ongoing.take() {
            Some(mut ongoing) => {
                ongoing.terms = terms;
                ongoing.passing_on = emitted.passing_on;
                ongoing
            }
            None => {
                let mut exchange = scratch.exchange.take().unwrap_or_default();
                exchange.begin(terms, kept, emitted.passing_on, base);
                exchange
            }
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

    /// A statement with a name would have to be kept. The client hears why not once it has sent it all:
    /// few look for an answer before.
    async fn text_too_long(&mut self, scratch: &mut Scratch) -> Gone {
        let error = Visible::fatal(
            Fault::Client,
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "the text of a named prepared statement is too long to be kept",
        )
        .hint("prepare it without a name");
        self.proxy.metrics(self.worker).error(error.fault);
        let frame = Header::parse(scratch.client_in.filled()).ok().flatten();
        let length = frame.map_or(0, |header| header.len);
        match self.discard(length, scratch).await {
            Ok(()) => self.farewell(&error, scratch).await,
            Err(gone) => gone,
        }
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
    pub(super) async fn pump(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
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
        let next = self
            .exchange(&request, lease, route, exchange, &mut tries, scratch)
            .await;
        if tries.waited {
            self.entry.rests();
        }
        next.map(|_next| ())
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
            Ok(Outcome::Answered(status)) => {
                scratch.exchange = Some(exchange);
                let at = self.answered(request, &mut lease, replica, status);
                let mut answer = Some(Answered {
                    lease,
                    replica,
                    status,
                    at,
                });
                let settled = std::future::poll_fn(|cx| {
                    Poll::Ready(answer.take().map(|answer| self.settle(cx, answer, scratch)))
                });
                match settled.await {
                    Some(Settled::Later(answer)) => {
                        Box::pin(self.settle_later(answer, scratch)).await?;
                    }
                    Some(Settled::Done(done)) => done?,
                    None => {}
                }
                Ok(Next::Done)
            }
            Ok(Outcome::ClientBytes) => Ok(self.interrupt(lease, exchange, replica)),
            Err(stop) => {
                let ended = Ended {
                    lease,
                    replica,
                    was_open,
                    exchange,
                };
                Box::pin(self.stopped(request, ended, stop, tries, scratch)).await
            }
        }
    }

    /// Deals with how an exchange ended, if it wasn't answered.
    async fn stopped(
        &mut self,
        request: &Request,
        ended: Ended,
        stop: Stop,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let Ended {
            mut lease,
            replica,
            was_open,
            exchange,
        } = ended;
        let node = lease.node();
        match stop {
            Stop::Refused { refusal, status } => {
                if refusal.stale {
                    lease.backend.prepared.doubt_all();
                    lease.backend.unnamed = None;
                    tries.count += 1;
                }
                self.refused(request, lease, refusal, status, tries, scratch)
                    .await;
                Ok(Next::Again)
            }
            Stop::ServerLost(lost) => {
                drop(lease);
                tries.waited = true;
                self.entry.pauses();
                let _safe = self.entry.cancels_arrive().await;
                self.server_lost(request, node, replica, was_open, lost, tries, scratch)
                    .await
            }
            Stop::SetupFailed { sqlstate, message } => {
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
            Stop::ClientLost => {
                self.proxy.abandon(lease);
                Err(Gone::Left)
            }
            Stop::ClientBroken(malformed) => {
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

    /// Where sessions begin with other settings than this one did, it keeps those that it was told.
    fn heed_defaults(&mut self, lease: &Lease, replica: bool) {
        let defaults = self.tenant.defaults_in_use();
        if self.session.defaults == defaults
            || self.session.transaction.is_open()
            || self.session.unsynced
        {
            return;
        }
        let told = self.session.told.iter().filter(|told| {
            let fresh = lease.parameters.iter().find(|(name, _)| *name == told.0);
            fresh.is_some_and(|(_, value)| *value != told.1) && !UNCHANGEABLE.contains(&&*told.0)
        });
        let kept = self.session.settings.keep(told.map(|(n, v)| (&**n, &**v)));
        // A replica's connection may still be as before, and one that is pinned is.
        if kept && !replica && !lease.link.is_retired() {
            self.session.defaults = defaults;
        }
    }

    /// The connection's role may be another than the session's.
    fn needs_identity(&self, lease: &Lease) -> bool {
        if self.session.transaction.is_open() || self.session.unsynced {
            return false;
        }
        let wanted = self.session.settings.outside();
        match &lease.backend.settings {
            Some(known) if Arc::ptr_eq(known, wanted) => false,
            Some(known) => {
                known != wanted && (known.changes_identity() || wanted.changes_identity())
            }
            None => true,
        }
    }

    /// A role can't be carried over blindly: if that fails the statement must not run at all. What is
    /// next, if not the statement.
    async fn bring_identity(
        &mut self,
        request: &Request,
        lease: &mut Lease,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Option<Next>, Gone> {
        let wanted = Arc::clone(self.session.settings.outside());
        let Some(sql) = lease.backend.statements_to(&wanted) else {
            return Ok(None);
        };
        tries.waited = true;
        self.entry.waits();
        match observe::execute(lease, &sql).await {
            Ok(notifications) if self.session.pins.has(Pin::Listen) => {
                scratch.to_client.bytes.extend_from_slice(&notifications);
            }
            Ok(_others) => {}
            Err(problem) => {
                return self
                    .identity_failed(request, lease, problem, tries, scratch)
                    .await
                    .map(Some);
            }
        }
        lease.backend.settings = Some(wanted);
        let cancelled = self.cancelled_between(request, scratch).await?;
        Ok(cancelled.then_some(Next::Done))
    }

    /// The session's role couldn't be taken on; nothing of the request has been sent.
    async fn identity_failed(
        &mut self,
        request: &Request,
        lease: &Lease,
        problem: Problem,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let (node, doomed) = (lease.node(), lease.link.is_doomed());
        if problem.is_loss() && self.session.pins.is_empty() && tries.count < Tries::LIMIT {
            self.node_failed(node, !doomed && !problem.was_said());
            tries.count += 1;
            tries.avoid.push(node);
            self.proxy
                .metrics(self.worker)
                .retry(RetryReason::ConnectionLost);
            return Ok(Next::Again);
        }
        let mut error = problem.visible("applying the session's settings");
        error
            .hint
            .get_or_insert("said when the session's role was taken on".into());
        self.fail(request, &error, scratch)
            .await
            .map(|()| Next::Done)
    }

    /// A request may do what its text doesn't tell, or asks for what lives in one backend.
    #[cold]
    fn expect_unseen(&mut self, request: &Request, lease: &mut Lease, scratch: &mut Scratch) {
        let traits = request.class.traits;
        if traits.has(Traits::BACKEND_STATE) {
            self.session.pending.add(Pin::Backend);
        }
        if traits.has(Traits::OBSERVE) {
            self.session.suspect = true;
            let catalogue = self.tenant.database.catalogue();
            let catalogue = catalogue.as_deref();
            let bytes = scratch.client_in.filled();
            let query = request.query.clone().and_then(|range| bytes.get(range));
            let lexing = self.session.lexing;
            if traits.has(Traits::SQL_PREPARED) {
                let effects = query.and_then(|text| sql::effects(text, lexing));
                self.session.sees_prepared(effects.as_deref(), catalogue);
            }
            if let Some(text) = query {
                self.session.untold.see_statements(text, lexing, catalogue);
            } else if let Some(frames) = bytes.get(..request.len) {
                let resolved = &mut scratch.resolved;
                see_extended(frames, &mut self.session, resolved, catalogue);
            }
        }
        if traits.has(Traits::SEQUENCES) {
            self.tenant.database.keeps_sequences();
            let writer = lease.backend.writer;
            let own = self.session.wrote_on == Some(lease.link.number());
            if writer.is_some_and(|writer| writer != self.session.number || !own)
                && self.session.transaction.status() != Status::Failed
                && !self.session.unsynced
            {
                // What another session's statements have left there is none of this one's business.
                let mut sink = Sink {
                    out: &mut scratch.to_server.bytes,
                    replies: &mut scratch.replies,
                    backend: &mut lease.backend,
                    prepared_limit: self.tenant.prepared_limit,
                };
                sink.hidden_query(b"DISCARD SEQUENCES");
                lease.backend.writer = None;
            }
        }
    }

    /// Writes the request to the server. `None`: it can't be sent through a pool.
    fn emit(
        &mut self,
        request: &Request,
        lease: &mut Lease,
        replica: bool,
        tries: &Tries,
        scratch: &mut Scratch,
    ) -> Option<emit::Passing> {
        let class = request.class;
        if class.traits.any(UNSEEN) {
            self.expect_unseen(request, lease, scratch);
        }
        if class.traits.has(Traits::DDL) {
            // Nothing that is known of the catalogue holds while this runs, nor until it is read again.
            self.ddl = self.ddl.with(class.traits);
            self.tenant.database.ddl_seen();
            if let Some(text) = self.text(request, scratch)
                && let Some(database) = sql::needs_alone(text, self.session.lexing)
            {
                self.proxy.leave_database(&database);
            }
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
            self.session.visit = None;
        }
        self.stance.ran |= request.work == Work::Runs;
        if replica && let Some(demand) = &tries.demand {
            let read_only = tries.begin.is_some_and(|modes| {
                let by_default = || self.session.is_read_only_by_default();
                modes.read_only.unwrap_or_else(by_default)
            });
            let visit = self.session.visit.get_or_insert_default();
            visit.sent(demand, read_only);
        }
        let skipping = scratch.replies.skipping();
        let server = &mut **lease;
        let mut sink = Sink {
            out: &mut scratch.to_server.bytes,
            replies: &mut scratch.replies,
            backend: &mut server.backend,
            prepared_limit: self.tenant.prepared_limit,
        };
        if !self.session.transaction.is_open() && !self.session.unsynced {
            let wanted = self.session.settings.outside();
            if let Some(sql) = sink.backend.statements_to(wanted) {
                sink.hidden_query(sql.as_bytes());
                sink.backend.settings = Some(Arc::clone(wanted));
            }
            if let Transaction::Deferred(replay) = &self.session.transaction {
                replay.write(&mut sink, replica, class.traits.has(Traits::EFFECTS));
            }
        }
        // The settings last: few requests need to look at them.
        let resolves = !replica && !self.session.unsynced;
        if resolves
            && class.kind == Kind::Commit
            && self.session.transaction.status() == Status::InTransaction
            && self.session.seen.has_written()
            && self.proxy.settings().failover.resolve_commits
        {
            sink.committing();
        }
        let bytes = scratch.client_in.filled();
        if request.oversize {
            return emit::oversize(bytes, &mut self.session, &mut sink);
        }
        let frames = bytes
            .get(..request.len.min(bytes.len()))
            .unwrap_or_default();
        let whole = emit::Passing {
            consumed: request.len,
            passing_on: 0,
        };
        let mentions = mentions(class.traits, &self.session);
        if request.end == End::Ready {
            // Behind an error the server passes over it, up to a Sync: nothing may be sent for it.
            if !skipping
                && class.traits.any(Traits::EFFECTS.with(RESTING))
                && let Some(text) = request.query.clone().and_then(|range| bytes.get(range))
            {
                emit::names(text, mentions, &self.session, &mut sink);
                if class.traits.has(Traits::EFFECTS) {
                    scratch.expected.expect_query(text, &mut self.session);
                }
                if class.kind == Kind::Single
                    && self.session.transaction.status() != Status::Failed
                    && sql::sets_or_resets(text, self.session.lexing)
                    && let base = self.session.settings.base()
                    && let restores = scratch.expected.restores(base)
                    && !restores.is_empty()
                {
                    emit::restoring(text, &restores, &mut self.session, &mut sink);
                    return Some(whole);
                }
            }
            emit::simple(frames, &mut self.session, &mut sink);
        } else {
            let mut restores = Vec::new();
            if class.traits.has(Traits::EFFECTS) {
                scratch
                    .expected
                    .expect_extended(frames, &mut self.session, &mut scratch.resolved);
                restores = scratch.expected.restores(self.session.settings.base());
            }
            let commits = resolves
                && request.end == End::Sync
                && matches!(self.session.transaction, Transaction::Idle)
                && commits_by_sync(class)
                && self.proxy.settings().failover.resolve_commits;
            let unnamed = sink.backend.unnamed;
            // A scan has found every frame well-formed.
            let _well_formed = emit::extended(
                frames,
                emit::Along {
                    rewritten: request.rewritten,
                    mentions,
                    commits,
                    restores: &restores,
                },
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
                sink.backend.unnamed = unnamed;
                self.session.undo();
            }
        }
        Some(whole)
    }
}

/// What happens, or is asked for, out of sight.
const UNSEEN: Traits = Traits::OBSERVE
    .with(Traits::BACKEND_STATE)
    .with(Traits::SEQUENCES);

/// Reported settings that no session sets (PostgreSQL manual, "Asynchronous Operations"), or not as
/// a setting.
const UNCHANGEABLE: [&str; 6] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
];

/// Statements that write, each of which another may follow before their Sync: no COPY, whose server
/// then waits for data, and none that ends transactions itself.
fn commits_by_sync(class: Class) -> bool {
    matches!(class.access, Access::Primary(_))
        && !class.traits.any(
            Traits::PURE_READ
                .with(Traits::COPY)
                .with(Traits::NO_TRANSACTION)
                .with(Traits::EFFECTS),
        )
}

/// Which prepared statements a request rests on under the session's own names.
fn mentions(traits: Traits, session: &Session) -> Mentions {
    if !traits.any(RESTING) || session.transaction.status() == Status::Failed {
        Mentions::None
    } else if traits.has(Traits::PREPARED_VIEW) {
        Mentions::All
    } else if traits.has(Traits::SQL_PREPARED) {
        Mentions::Some
    } else {
        Mentions::Unseen
    }
}

const RESTING: Traits = Traits::OBSERVE
    .with(Traits::PREPARED_VIEW)
    .with(Traits::SQL_PREPARED);

/// What an exchange leaves behind.
struct Ended {
    lease: Lease,
    replica: bool,
    was_open: bool,
    exchange: Box<Exchange>,
}

/// What has been tried of one request.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pub(super) count: u8,
    pub(super) avoid: Vec<NodeId>,
    /// The modes of the transaction that it opens.
    pub(super) begin: Option<Begin>,
    /// Its statement conflicted with recovery lately.
    pub(super) leaning: bool,
    /// What it needs of its transaction's server, where that may be a replica.
    pub(super) demand: Option<Demand>,
    /// Only the primary may answer now.
    pub(super) primary: Option<Reason>,
    /// Since when it has been waiting as a read that no replica could serve.
    pub(super) read_since: Option<Instant>,
    /// It had no server connection for a while ([`super::super::clients::Client::waits`]).
    pub(super) waited: bool,
}

impl Tries {
    /// Nodes that one request is tried on after losing its server.
    pub(super) const LIMIT: u8 = 3;
}
