//! How a request ended: answered, refused by a replica, or with its server connection lost.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    super::{
        exchange::{Heard, Lost, Refusal, poll_send},
        lend::AGAIN,
        observe,
        scratch::Scratch,
    },
    Gone, Next, Task,
    request::Tries,
};
use crate::{
    cluster::NodeId,
    config::settings::{PinPolicy, PoolMode},
    error::{Fault, Visible},
    metrics::RetryReason,
    pool::{Lease, connect::ConnectError},
    protocol::{SqlState, backend::Status, frame::Header, write},
    routing::{Consistency, Reason, Target},
    session::{
        Change, Pin, Transaction,
        committing::{Committing, Outcome},
        effects::server_lost,
        request::{End, Request},
    },
    sql::{Access, Class, Kind, Tables, Traits},
};

/// So long may a node take to let one in that has just ended a connection.
const STILL_SERVES: Duration = Duration::from_secs(1);

/// A complete answer, and the connection that it came over.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) lease: Lease,
    pub(super) replica: bool,
    pub(super) status: Option<Status>,
    pub(super) at: Instant,
}

/// Whether all that follows from an answer is done.
pub(super) enum Settled {
    Done(Result<(), Gone>),
    Later(Answered),
}

impl Task {
    /// The answer is complete: notes what follows from it.
    pub(super) fn answered(
        &mut self,
        request: &Request,
        lease: &mut Lease,
        replica: bool,
        status: Option<Status>,
    ) -> Instant {
        let answered = Instant::now();
        let now = answered.into_std();
        let (epoch, node) = (self.epoch, lease.node());
        self.count(replica, answered, status);
        if replica {
            let consistency = self
                .session
                .own
                .consistency
                .unwrap_or(self.tenant.policy.consistency);
            let covered = consistency != Consistency::Eventual;
            let tables = self.reads;
            self.session
                .seen
                .on_replica(epoch, node, now, covered, tables);
        } else {
            let ends = status == Some(Status::Idle);
            let change = self.change(request);
            let written = self.session.seen.on_primary(epoch, node, now, change, ends);
            if !request.class.traits.has(Traits::PURE_READ) || self.session.unsynced {
                let catalogues = self.session.seen.catalogues();
                self.proxy.wrote(epoch, node, now, written, catalogues);
                if self.session.unsynced || may_advance_sequences(request.class) {
                    lease.backend.writer = Some(self.session.number);
                    self.session.wrote_on = Some(lease.link.number());
                    if self.tenant.database.asks_for_sequences() {
                        self.session.pins.add(Pin::Sequence);
                    }
                }
            }
        }
        self.session.unsynced = status.is_none();
        if self.ddl.has(Traits::DDL) && status == Some(Status::Idle) {
            self.tenant.database.ddl_done(self.ddl);
            self.ddl = Traits::NONE;
        }
        answered
    }

    /// What the request, answered by the primary, has to do with which tables.
    fn change(&self, request: &Request) -> Change {
        let tables = request.class.tables;
        if tables.is_none() {
            Change::default()
        } else if !self.tenant.policy.track_tables || self.session.unsynced {
            Change::write(Tables::ALL)
        } else if request.class.traits.has(Traits::PURE_READ) {
            Change::READ
        } else {
            Change::write(tables)
        }
    }

    /// Passes the end of an answer on, and the connection back to the pool unless the session keeps
    /// it, if that takes no waiting; else [`Self::settle_later`] does.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context<'_>,
        answer: Answered,
        scratch: &mut Scratch,
    ) -> Settled {
        if answer.status == Some(Status::Idle) && self.session.suspect
            || self.is_pinned_in_vain(&answer)
        {
            return Settled::Later(answer);
        }
        let Some(answer) = self.keep(answer) else {
            return Settled::Done(Ok(()));
        };
        if !self.entry.ended_quietly() {
            return Settled::Later(answer);
        }
        Settled::Done(self.pass_on_and_give_back(cx, answer, scratch))
    }

    /// The same, whatever it takes.
    pub(super) async fn settle_later(
        &mut self,
        mut answer: Answered,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        if answer.status == Some(Status::Idle) && self.session.suspect {
            match self.looked_after(answer.lease, scratch).await? {
                Some(lease) => answer.lease = lease,
                None => return Ok(()),
            }
        }
        if self.is_pinned_in_vain(&answer) {
            drop(answer);
            return Err(self.pin_forbidden(scratch).await);
        }
        let Some(answer) = self.keep(answer) else {
            return Ok(());
        };
        if !self.entry.ended().await {
            return Ok(());
        }
        let mut answer = Some(answer);
        std::future::poll_fn(|cx| {
            Poll::Ready(match answer.take() {
                Some(answer) => self.pass_on_and_give_back(cx, answer, scratch),
                None => Ok(()),
            })
        })
        .await
    }

    /// The session needs a server connection of its own, and may not have it.
    fn is_pinned_in_vain(&mut self, answer: &Answered) -> bool {
        if self.session.pins != self.entry.pins() {
            self.pins_changed();
        }
        !self.session.pins.is_empty()
            && self.tenant.pin == PinPolicy::Error
            && self.tenant.mode != PoolMode::Session
            && answer.status == Some(Status::Idle)
    }

    /// The session keeps the connection, or doesn't.
    fn keep(&mut self, answer: Answered) -> Option<Answered> {
        let idle = answer.status == Some(Status::Idle);
        let keeps = !idle
            || self.tenant.mode == PoolMode::Session
            || (!answer.replica && !self.session.pins.is_empty());
        if !keeps {
            return Some(answer);
        }
        if answer.replica && idle {
            self.replica = Some(answer.lease);
        } else {
            self.held = Some(answer.lease);
        }
        None
    }

    fn pass_on_and_give_back(
        &mut self,
        cx: &mut Context<'_>,
        answer: Answered,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        // The client's own bytes first: it waits, the pool doesn't.
        let sent = if scratch.to_client.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            poll_send(cx, &mut self.stream, &mut scratch.to_client)
        };
        answer.lease.give_back(answer.at);
        match sent {
            Poll::Ready(Err(_)) => Err(Gone::Left),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Asks the server what its connection's state is, behind statements whose effects can't be told.
    /// `None`: it couldn't be read, and the connection is closed.
    async fn looked_after(
        &mut self,
        mut lease: Lease,
        scratch: &mut Scratch,
    ) -> Result<Option<Lease>, Gone> {
        // What the client waits for goes out before pgsplit looks after itself.
        self.flush(scratch).await?;
        let catalogue = self.tenant.database.catalogue();
        match observe::look(&mut lease, &mut self.session, catalogue.as_deref()).await {
            Ok(notifications) => {
                scratch.to_client.bytes.extend_from_slice(&notifications);
                Ok(Some(lease))
            }
            Err(problem) => {
                let node = self.proxy.monitor.name(lease.node());
                tracing::warn!(%node, %problem, "server connection closed: its state could not be read");
                let _safe = self.entry.ended().await;
                drop(lease);
                server_lost(&mut self.session);
                Ok(None)
            }
        }
    }

    async fn pin_forbidden(&mut self, scratch: &mut Scratch) -> Gone {
        let reasons: Vec<&str> = self.session.pins.iter().map(Pin::name).collect();
        let error = Visible::fatal(
            Fault::Client,
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "this session needs a server connection of its own ({})",
                reasons.join(", ")
            ),
        )
        .hint("pool.pin = \"error\" forbids it");
        self.farewell(&error, scratch).await
    }

    /// The reasons why the session keeps its connection have changed.
    pub(super) fn pins_changed(&mut self) {
        let before = self.entry.pins();
        let now = self.session.pins;
        for pin in now.iter().filter(|pin| !before.has(*pin)) {
            self.proxy.metrics(self.worker).pin(pin);
        }
        self.entry.set_pins(now);
    }

    fn count(&mut self, replica: bool, answered: Instant, status: Option<Status>) {
        let took = answered - self.began;
        self.proxy.metrics(self.worker).query_duration(took);
        if let Some(stats) = self.tenant.database.stats.get(self.worker) {
            stats.query(replica, took);
            if status == Some(Status::Idle) {
                stats.transaction(answered - self.opened);
            }
        }
    }

    /// A replica has refused: the primary is asked.
    pub(super) async fn refused(
        &mut self,
        request: &Request,
        mut lease: Lease,
        refusal: Refusal,
        status: Option<Status>,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) {
        self.entry.pauses();
        let left = observe::leave(&mut lease, status.is_none()).await;
        if left.is_ok() && self.entry.cancels_arrive().await {
            lease.give_back(Instant::now());
        }
        scratch.replies.clear();
        scratch.expected.clear();
        scratch.to_server.clear();
        if self.move_transaction() {
            tries.begin = self.begins(request, scratch);
        }
        let metrics = self.proxy.metrics(self.worker);
        if refusal.stale {
            metrics.retry(RetryReason::StalePlan);
            self.session.rewind();
            return;
        }
        metrics.retry(RetryReason::of(refusal.sqlstate));
        self.session.rewind();
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
    pub(super) async fn server_lost(
        &mut self,
        request: &Request,
        node: NodeId,
        replica: bool,
        was_open: bool,
        lost: Lost,
        tries: &mut Tries,
        scratch: &mut Scratch,
    ) -> Result<Next, Gone> {
        let broken = lost.said.is_none() && !lost.doomed && lost.heard != Heard::Told;
        self.node_failed(node, broken);
        tracing::debug!(
            node = %self.proxy.monitor.name(node),
            ?lost,
            "server connection lost"
        );
        let committed = lost.committing.and_then(|_| scratch.replies.committed());
        scratch.replies.clear();
        scratch.expected.clear();
        scratch.to_server.clear();
        scratch.server_in.clear();
        let pure = request.class.traits.has(Traits::PURE_READ);
        // PostgreSQL says so before it ends a connection whose transaction it has rolled back. Not so
        // 57P02: a crash may strike while a commit is being carried out.
        let rolled_back = lost
            .said
            .as_ref()
            .is_some_and(|(state, _)| matches!(&state.0, b"57P01" | b"57P03" | b"57P05"));
        // A timeout of the session's own.
        let decided = lost
            .said
            .as_ref()
            .is_some_and(|(state, _)| ends_the_session(*state));
        let moves = replica && self.session.transaction.visiting().is_some();
        let again = lost.held
            && !decided
            && (!was_open || moves)
            && !self.session.unsynced
            && self.session.pins.is_empty()
            && (replica || pure || rolled_back)
            && lost.unwanted == 0
            && !self.entry.is_killed()
            && tries.count < Tries::LIMIT;
        // Reads go on elsewhere even so: a whole replica may be cleared for maintenance.
        let by_hand = has_been_terminated(&lost)
            && !(again && (replica || pure))
            && self.still_serves(node).await;
        if again && !by_hand {
            tries.count += 1;
            self.session.rewind();
            if self.move_transaction() {
                tries.begin = self.begins(request, scratch);
            }
            tries.avoid.push(node);
            self.proxy
                .metrics(self.worker)
                .retry(RetryReason::ConnectionLost);
            return Ok(Next::Again);
        }
        self.ongoing = None;
        match lost.heard {
            Heard::Whole => {}
            Heard::Torn => return Err(Gone::Left),
            Heard::Told => {
                self.flush(scratch).await?;
                return Err(Gone::Told);
            }
        }
        if (decided || by_hand)
            && let Some((sqlstate, message)) = lost.said
        {
            let error = Visible::fatal(Fault::Client, sqlstate, message);
            return Err(self.farewell(&error, scratch).await);
        }
        self.discard_unwanted(lost.unwanted, scratch).await?;
        // What is kept isn't tried again.
        if lost.held {
            scratch.client_in.consume(request.len);
        }
        let deferred = matches!(self.session.transaction, Transaction::Deferred(_));
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
            self.session.seen.on_primary(
                self.epoch,
                node,
                Instant::now().into_std(),
                Change::write(Tables::ALL),
                true,
            );
        }
        let pinned = !self.session.pins.is_empty();
        let outcome = match (lost.committing, &committed) {
            (Some(committing), Some(_)) => self.resolve(committing).await,
            _ => Outcome::Unknown,
        };
        if outcome == Outcome::Committed {
            self.session.transaction_ended(true);
        }
        let rolled_back = rolled_back || outcome == Outcome::RolledBack;
        server_lost(&mut self.session);
        if outcome == Outcome::Committed
            && !pinned
            && let Some(answer) = committed
        {
            self.session.transaction = Transaction::Idle;
            scratch.to_client.bytes.extend_from_slice(&answer);
            self.flush(scratch).await?;
            return Ok(Next::Done);
        }
        let error = lost_error(
            &lost,
            ends_transaction,
            commit,
            pure || replica,
            rolled_back,
        );
        if error.sqlstate == SqlState::TRANSACTION_RESOLUTION_UNKNOWN {
            self.proxy.metrics(self.worker).outcome_unknown();
        }
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

    /// The node takes connections: it isn't shutting down, and what ended on it was ended by itself. A
    /// node that shuts down refuses new ones before it ends those that there are.
    async fn still_serves(&self, node: NodeId) -> bool {
        let deadline = Instant::now() + STILL_SERVES;
        let connected = self.tenant.connect_alone(node, &[], deadline).await;
        match connected {
            Ok(_connection) => true,
            Err(ConnectError::Refused { sqlstate, .. }) => {
                sqlstate == SqlState::TOO_MANY_CONNECTIONS
            }
            Err(_) => false,
        }
    }

    /// Asks the primary that there is next what became of a COMMIT whose answer is lost.
    async fn resolve(&mut self, committing: Committing) -> Outcome {
        let until = Instant::now() + self.proxy.settings().failover.hold;
        loop {
            let lend = self.proxy.lend(self.wants(Target::Primary));
            let Ok(Ok(mut lease)) = timeout_at(until, lend).await else {
                return Outcome::Unknown;
            };
            let node = lease.node();
            match observe::outcome(&mut lease, committing).await {
                Ok(outcome) => {
                    lease.give_back(Instant::now());
                    let node = self.proxy.monitor.name(node);
                    tracing::info!(%node, ?committing, ?outcome, "outcome of a COMMIT looked up");
                    return outcome;
                }
                // Of the last primary's connections.
                Err(problem) if problem.is_loss() && Instant::now() < until => {
                    drop(lease);
                    self.node_failed(node, true);
                    sleep(AGAIN).await;
                }
                Err(_problem) => return Outcome::Unknown,
            }
        }
    }

    pub(super) fn node_failed(&self, node: NodeId, broken: bool) {
        if broken {
            self.proxy
                .monitor
                .report_failure(node, crate::cluster::Failure::Closed);
        }
    }

    /// Tells the client why its request isn't carried out.
    pub(super) async fn fail(
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
        if matches!(self.session.transaction, Transaction::Deferred(_)) {
            // The first statement of a transaction has failed, and with it the transaction.
            self.session.transaction.lost();
            self.session.transaction_ended(false);
        }
        self.answer_error(request, error, scratch);
        self.flush(scratch).await
    }

    /// An error inside the open transaction, which fails with it, as it would at the server.
    pub(super) async fn fail_in_transaction(
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
    pub(super) async fn discard_unwanted(
        &mut self,
        count: usize,
        scratch: &mut Scratch,
    ) -> Result<(), Gone> {
        if count == 0 {
            Ok(())
        } else {
            self.discard(count, scratch).await
        }
    }

    /// An error in place of the request's answer.
    pub(in crate::proxy) fn answer_error(
        &mut self,
        request: &Request,
        error: &Visible,
        scratch: &mut Scratch,
    ) {
        let out = &mut scratch.to_client.bytes;
        self.session.undo();
        write::error(out, error);
        match request.end {
            End::Ready | End::Sync => {
                write::ready_for_query(out, self.session.transaction.status());
            }
            End::Flush | End::Open => self.ignoring = true,
        }
    }
}

/// What `currval` tells may be another value behind this statement.
fn may_advance_sequences(class: Class) -> bool {
    let of_session = class.access == Access::Anywhere && class.traits.has(Traits::EFFECTS);
    !(of_session || class.traits.has(Traits::NO_SEQUENCES))
}

/// `pg_terminate_backend`, or the shutdown of the node.
fn has_been_terminated(lost: &Lost) -> bool {
    let said = lost.said.as_ref();
    said.is_some_and(|(sqlstate, _)| *sqlstate == SqlState::ADMIN_SHUTDOWN)
}

/// The server ended the connection for how long the session's own transaction took, or was idle: its
/// words are for the client, whose connection ends likewise.
pub(super) fn ends_the_session(sqlstate: SqlState) -> bool {
    matches!(&sqlstate.0, b"25P03" | b"25P04")
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
    let undone = if in_transaction {
        (!commit || rolled_back).then_some("transaction")
    } else {
        (!read && rolled_back).then_some("statement")
    };
    if let Some(what) = undone {
        return Visible::error(
            Fault::Node,
            SqlState::SERIALIZATION_FAILURE,
            format!("the {what} was rolled back: its server connection is lost ({cause})"),
        )
        .hint(format!("run the {what} again"));
    }
    if read {
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
