//! Which server connection a request gets: the one its session holds, or one that its route leads to.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{
        answer,
        clients::Activity,
        lend::{Lend, Refused},
        observe,
        scratch::Scratch,
    },
    Gone, Task,
    request::Tries,
    wait::{Waited, wait},
};
use crate::{
    cluster::{NodeId, Seen},
    config::settings::PoolMode,
    error::{Fault, Visible},
    metrics::RetryReason,
    pool::Lease,
    protocol::{SqlState, backend::Status},
    routing::{self, Ask, Consistency, MustSee, Random, Reason, Route, Target, route},
    session::{
        Pin, Transaction,
        demand::{Demand, Needs},
        replay::Replay,
        request::{End, Request, Work},
        transaction::{Leaving, Part, Place},
    },
    sql::{Access, Begin, Isolation, Kind, Tables, Traits},
};

/// Of the reads in a row that have to go to the primary because no replica has caught up with the
/// session, every so-many-th waits for a replica: a session that reads without a pause would else
/// stay ahead of them. Soon at first, later rarely, since replicas may be far behind.
const PATIENCE: (u8, u8, u8) = (8, 16, 64);
/// So long at the most.
const CATCH_UP: Duration = Duration::from_millis(50);

impl Task {
    /// A server connection for the request, and why that one, if that takes no waiting: the one that
    /// its transaction is on, or a warm one. Else the route that was found, if one was; [`Self::lend`]
    /// goes on from there.
    pub(super) fn lend_at_once(
        &mut self,
        request: &Request,
        tries: &Tries,
    ) -> Result<(Lease, Route), Option<Route>> {
        if self.session.transaction.is_open() || self.session.unsynced {
            if self.stance.on_replica {
                return Err(None);
            }
            let lease = self.held.take().ok_or(None)?;
            let route = Route {
                target: Target::Primary,
                reason: Reason::Transaction,
            };
            return Ok((lease, route));
        }
        if self.held.is_some() || self.replica.is_some() {
            return Err(None);
        }
        let route = self.decide(request, tries);
        match route.target {
            Target::Replica(_) => self.bounced = 0,
            Target::Primary
                if route.is_fallback() || request.class.traits.has(Traits::SEQUENCES) =>
            {
                return Err(Some(route));
            }
            Target::Primary => {}
        }
        let mut epoch = self.epoch;
        let lease = self
            .proxy
            .at_hand(&self.wants(route.target), self.began, &mut epoch);
        self.epoch = epoch;
        let lease = lease.ok_or(Some(route))?;
        self.lent(Duration::ZERO);
        Ok((lease, route))
    }

    /// The same, whatever it takes. `None`: the client was told why not.
    pub(super) async fn lend(
        &mut self,
        request: &Request,
        tries: &mut Tries,
        mut found: Option<Route>,
        scratch: &mut Scratch,
    ) -> Result<Option<(Lease, Route)>, Gone> {
        tries.waited = true;
        self.entry.waits();
        // A transaction, an implicit one, and most pins stay where they are.
        if self.session.transaction.is_open() || self.session.unsynced {
            let Some(lease) = self.held.take() else {
                let error = Visible::fatal(
                    Fault::Proxy,
                    SqlState::INTERNAL_ERROR,
                    "the server connection of the open transaction is missing",
                );
                return Err(self.farewell(&error, scratch).await);
            };
            match self.leaves_replica(request, tries, lease.node(), scratch) {
                Leaving::Stays => {
                    let target = Target::Replica(lease.node());
                    let reason = match self.session.transaction.visiting() {
                        Some(replay) if replay.read_only => Reason::ReadOnlyTransaction,
                        Some(_) => Reason::OptimisticTransaction,
                        None => Reason::Transaction,
                    };
                    return Ok(Some((lease, Route { target, reason })));
                }
                Leaving::Leaves => {
                    self.leave_replica(lease).await;
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
        loop {
            let route = match self.route(request, tries, found.take()).await {
                Ok(route) => route,
                Err(error) => {
                    self.fail(request, &error, scratch).await?;
                    return Ok(None);
                }
            };
            if self.cancelled_between(request, scratch).await? {
                return Ok(None);
            }
            let read_since = route
                .is_fallback()
                .then(|| *tries.read_since.get_or_insert_with(Instant::now));
            match self.lend_for(request, route, read_since, scratch).await? {
                Ok(lease) => return Ok(Some((lease, route))),
                Err(Refused::Again) => {}
                Err(Refused::Node(_)) if self.held.is_some() && self.is_paused() => {
                    tries.primary = Some(Reason::Pinned);
                }
                Err(Refused::Node(node)) => {
                    tries.avoid.push(node);
                    self.proxy
                        .metrics(self.worker)
                        .retry(RetryReason::ConnectionLost);
                }
                Err(Refused::Told(error)) => {
                    self.fail(request, &error, scratch).await?;
                    return Ok(None);
                }
            }
        }
    }

    /// A server connection where the route leads.
    async fn lend_for(
        &mut self,
        request: &Request,
        route: Route,
        read_since: Option<Instant>,
        scratch: &mut Scratch,
    ) -> Result<Result<Lease, Refused>, Gone> {
        match route.target {
            Target::Primary => {
                if let Some(lease) = self.held.take() {
                    match self.keeps(lease).await {
                        Ok(Some(lease)) => return Ok(Ok(lease)),
                        Ok(None) => {}
                        Err(error) => return Ok(Err(Refused::Told(error))),
                    }
                }
                if request.class.traits.has(Traits::SEQUENCES)
                    && let Some(lease) = self.written_on()
                {
                    return Ok(Ok(lease));
                }
            }
            Target::Replica(node) => {
                if let Some(lease) = self.replica.take()
                    && lease.node() == node
                    && !self.yields_to_pause()
                {
                    return Ok(Ok(lease));
                }
            }
        }
        let wants = Lend {
            fallback: self.falls_back(route),
            read_since,
            ..self.wants(route.target)
        };
        let mut epoch = self.epoch;
        let lease = self.proxy.at_hand(&wants, self.began, &mut epoch);
        let how = (wants.fallback, read_since);
        self.epoch = epoch;
        if let Some(lease) = lease {
            self.lent(Duration::ZERO);
            return Ok(Ok(lease));
        }
        Box::pin(self.wait_for(request, route.target, how, scratch)).await
    }

    /// Waits for a server connection, or for the primary.
    async fn wait_for(
        &mut self,
        request: &Request,
        target: Target,
        (fallback, read_since): (bool, Option<Instant>),
        scratch: &mut Scratch,
    ) -> Result<Result<Lease, Refused>, Gone> {
        self.flush_before_waiting(scratch).await?;
        let waiting = Instant::now();
        self.entry.wait_begins(waiting);
        let lent = self.proxy.lend(Lend {
            tenant: &self.tenant,
            worker: self.worker,
            entry: &self.entry,
            target,
            fallback,
            read_since,
        });
        let (stream, client_in) = (&mut self.stream, &mut scratch.client_in);
        let lent = match wait(lent, &self.entry, stream, client_in, request.len).await {
            Waited::Got(lent) => lent,
            Waited::Left => return Err(Gone::Left),
            Waited::Cancelled => Err(Refused::Told(cancelled())),
            Waited::Killed => Err(Refused::Told(Visible::fatal(
                Fault::Proxy,
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ))),
        };
        self.entry.wait_ends();
        if lent.is_ok() {
            self.lent(waiting.elapsed());
            // Another node may have become the primary while it was waited for.
            self.epoch = self.proxy.monitor.view().epoch;
        }
        Ok(lent)
    }

    fn is_paused(&self) -> bool {
        self.tenant.database.gate.is_shut()
    }

    /// The database is paused, and nothing speaks against giving up the session's connections.
    fn yields_to_pause(&self) -> bool {
        self.is_paused()
            && self.session.pins.is_empty()
            && self.session.transaction.status() == Status::Idle
            && !self.session.unsynced
    }

    /// Gives up what an idle session holds while its database is paused (session mode); whether it
    /// holds nothing.
    pub(super) fn released(&mut self) -> bool {
        if self.yields_to_pause() {
            // A cancel on its way meets a connection that is closed.
            let _quiet = self.entry.ended_quietly();
            self.held = None;
            self.replica = None;
        }
        self.held.is_none() && self.replica.is_none()
    }

    /// The connection to the primary that the session has, unless new transactions are kept from
    /// that node or the database is paused: then one without state goes, and what is pinned waits
    /// for how that ends (but not for the end of a pause, which waits for it).
    async fn keeps(&mut self, lease: Lease) -> Result<Option<Lease>, Visible> {
        let node = lease.node();
        // Said before looking: whoever withholds the node looks at clients afterwards.
        self.entry.set_activity(Activity::Waiting);
        let withheld = self.proxy.monitor.view().withheld == Some(node);
        if !withheld && !self.yields_to_pause() {
            return Ok(Some(lease));
        }
        if self.session.pins.is_empty() {
            drop(lease);
            return Ok(None);
        }
        let waited = self
            .proxy
            .wait_out(&self.wants(Target::Primary), node)
            .await;
        match waited {
            Ok(()) => Ok(Some(lease)),
            Err(error) => {
                self.held = Some(lease);
                Err(error)
            }
        }
    }

    pub(super) fn wants(&self, target: Target) -> Lend<'_> {
        Lend {
            tenant: &self.tenant,
            worker: self.worker,
            entry: &self.entry,
            target,
            fallback: false,
            read_since: None,
        }
    }

    /// A read that belongs on a replica takes a connection of the primary's. (Not where the session
    /// keeps it for all that it sends later.)
    fn falls_back(&self, route: Route) -> bool {
        route.is_fallback()
            && self.tenant.mode != PoolMode::Session
            && self.proxy.monitor.view().nodes.len() > 1
    }

    fn lent(&self, waited: Duration) {
        self.proxy.metrics(self.worker).pool_wait(waited);
        if let Some(stats) = self.tenant.database.stats.get(self.worker) {
            stats.assigned(waited);
        }
    }

    /// The connection that the session wrote on last, if it is there and free.
    fn written_on(&self) -> Option<Lease> {
        let view = self.proxy.monitor.view();
        let primary = view.primary.filter(|_| view.withheld.is_none())?;
        let pool = self.tenant.pool(primary)?;
        pool.acquire_link(self.worker, self.session.wrote_on?)
    }

    /// Whether a request has to leave the replica that the transaction, or the implicit one of an
    /// unsynced request, is on; to the primary, or to wherever a read may go.
    fn leaves_replica(
        &self,
        request: &Request,
        tries: &mut Tries,
        node: NodeId,
        scratch: &Scratch,
    ) -> Leaving {
        if scratch.replies.skipping() {
            return Leaving::Stays;
        }
        let part = match (self.session.unsynced, self.stance.ran) {
            (false, _) => Part::First,
            (true, false) if scratch.replies.is_empty() => Part::Prepared,
            (true, _) => Part::Running,
        };
        let of_class;
        let demand = match &tries.demand {
            Some(demand) => demand,
            None => {
                of_class = Demand::of_class(request.class);
                &of_class
            }
        };
        let (leaving, needs) = (self.session.transaction.leaving(demand, part), demand.needs);
        // A transaction that begins here is one that has its own route; one that is open goes on.
        let kind = request.class.kind;
        let begins = match &self.session.transaction {
            Transaction::Open {
                failed: false,
                place: Place::Replica,
            } => request.begin.is_some() && !matches!(kind, Kind::Begin(_)),
            Transaction::Open { .. } => false,
            _ => request.begin.is_some() || matches!(kind, Kind::Begin(_)),
        };
        // What isn't finished may be followed by a write in the same implicit transaction.
        let unfinished = request.work == Work::Runs
            && matches!(request.end, End::Flush | End::Open)
            && !self.session.transaction.is_open();
        let begins = begins || unfinished;
        match leaving {
            Leaving::Stays if begins && part == Part::Prepared => Leaving::Leaves,
            // What is only prepared may be prepared anywhere.
            Leaving::Cannot if request.work != Work::Runs => Leaving::Stays,
            Leaving::Stays if begins && request.work != Work::Runs => Leaving::Stays,
            Leaving::Stays if begins => Leaving::Cannot,
            Leaving::Leaves => {
                tries.primary = Some(if needs == Needs::Time {
                    Reason::TransactionTime
                } else {
                    Reason::Transaction
                });
                Leaving::Leaves
            }
            Leaving::Stays if part == Part::First && needs == Needs::Repeatable => {
                match self.session.transaction.visiting() {
                    Some(replay) if !self.is_served_well(request, tries, replay, node) => {
                        Leaving::Leaves
                    }
                    _ => Leaving::Stays,
                }
            }
            Leaving::Stays | Leaving::Cannot => leaving,
        }
    }

    /// The replica that the transaction visits may also serve this request of it.
    fn is_served_well(
        &self,
        request: &Request,
        tries: &Tries,
        replay: &Replay,
        node: NodeId,
    ) -> bool {
        let view = self.proxy.monitor.view();
        let must_see = self.must_see(Tables::ALL);
        let ask = Ask {
            begin: Some(Begin {
                read_only: Some(replay.read_only),
                ..replay.modes
            }),
            ..self.ask(request, tries, &must_see)
        };
        view.epoch == self.epoch && routing::stays(&ask, &self.tenant.policy, &view, node)
    }

    /// The transaction's server is lost, and it goes on elsewhere if it may; whether it does.
    pub(super) fn move_transaction(&mut self) -> bool {
        let moves = self.session.transaction.survives();
        if moves {
            self.proxy.metrics(self.worker).moved();
        }
        moves
    }

    /// Ends what the session has on a replica, to go on elsewhere.
    async fn leave_replica(&mut self, mut lease: Lease) {
        self.entry.pauses();
        let unsynced = std::mem::take(&mut self.session.unsynced);
        let left = observe::leave(&mut lease, unsynced).await;
        if self.session.transaction.replay().is_some() {
            self.proxy.metrics(self.worker).moved();
        }
        self.session.transaction.leave();
        self.session.visit = None;
        if left.is_ok() && self.entry.cancels_arrive().await {
            if self.tenant.mode == PoolMode::Session {
                self.replica = Some(lease);
            } else {
                lease.give_back(Instant::now());
            }
        }
    }

    /// A cancel came while the request was between two servers, or waited for one: it has ended.
    pub(super) async fn cancelled_between(
        &mut self,
        request: &Request,
        scratch: &mut Scratch,
    ) -> Result<bool, Gone> {
        if !self.entry.is_cancelled() {
            return Ok(false);
        }
        self.fail(request, &cancelled(), scratch).await?;
        Ok(true)
    }

    /// Answers that are ready must not wait for a server that isn't.
    async fn flush_before_waiting(&mut self, scratch: &mut Scratch) -> Result<(), Gone> {
        if self.session.transaction.status() == Status::Idle || scratch.to_client.is_empty() {
            return Ok(());
        }
        self.flush(scratch).await
    }

    /// Where the request goes. `found`: a route that was found for it just now.
    async fn route(
        &mut self,
        request: &Request,
        tries: &Tries,
        found: Option<Route>,
    ) -> Result<Route, Visible> {
        if self.pinned_here(request) {
            self.epoch = self.proxy.monitor.view().epoch;
            return Ok(Route {
                target: Target::Primary,
                reason: Reason::Pinned,
            });
        }
        let mut chosen = match found {
            Some(found) => found,
            None => self.decide(request, tries),
        };
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
    pub(super) async fn sampled(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + PATIENCE;
        let mut views = self.proxy.monitor.subscribe();
        while self
            .session
            .seen
            .whole()
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
    pub(super) fn begins(&self, request: &Request, scratch: &Scratch) -> Option<Begin> {
        match &self.session.transaction {
            Transaction::Deferred(replay) => {
                // Among other statements it might not be carried out.
                let sets =
                    request.class.traits.has(Traits::EFFECTS) && request.class.kind == Kind::Single;
                let range = request.query.clone().filter(|_| sets);
                let text = range.and_then(|range| scratch.client_in.filled().get(range));
                Some(answer::merged(replay.modes, text, self.session.lexing))
            }
            Transaction::Idle | Transaction::Open { .. } | Transaction::Lost { .. } => {
                match request.class.kind {
                    // Not answered at once: it comes behind messages without a Sync.
                    Kind::Begin(modes) if request.query.is_some() => Some(modes),
                    _ => request.begin,
                }
            }
        }
    }

    /// The text of a request that is one simple Query, or runs the session's unnamed statement.
    pub(super) fn text<'a>(&'a self, request: &Request, scratch: &'a Scratch) -> Option<&'a [u8]> {
        match &request.query {
            Some(range) => scratch.client_in.filled().get(range.clone()),
            None => self.session.unnamed.now().text(),
        }
    }

    pub(super) fn leans(&self, request: &Request, scratch: &Scratch) -> bool {
        request.class.access == Access::Read
            && self.tenant.database.may_lean()
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

    fn consistency(&self) -> Consistency {
        self.session
            .own
            .consistency
            .unwrap_or(self.tenant.policy.consistency)
    }

    /// The level of a transaction whose BEGIN names none, where it matters and isn't READ COMMITTED.
    fn default_isolation(&self, tries: &Tries) -> Option<Isolation> {
        let own = self.session.default_isolation();
        if own.is_some() || tries.demand.is_none() {
            return own;
        }
        let (database, role) = (&self.tenant.database, self.tenant.server_user());
        let read_committed = database
            .catalogue()
            .is_some_and(|catalogue| catalogue.is_read_committed(role));
        (!read_committed).then_some(Isolation::Serializable)
    }

    /// The tables that whatever may follow on the same replica reads: of a transaction all, since
    /// nothing is known yet of its other statements.
    fn reads(&self, request: &Request, tries: &Tries) -> Tables {
        let alone = self.session.transaction == Transaction::Idle
            && !self.session.unsynced
            && tries.begin.is_none()
            && matches!(request.end, End::Ready | End::Sync);
        if alone && self.tenant.policy.track_tables {
            request.class.tables
        } else {
            Tables::ALL
        }
    }

    fn must_see(&self, tables: Tables) -> MustSee {
        MustSee {
            own: self.session.seen.concerning(tables),
            written: if self.consistency() == Consistency::Global {
                let mut written = self.proxy.written();
                written.under(self.session.seen.catalogues());
                written.concerning(tables)
            } else {
                Seen::default()
            },
        }
    }

    fn ask<'a>(&'a self, request: &Request, tries: &'a Tries, must_see: &'a MustSee) -> Ask<'a> {
        let unfinished = match request.end {
            End::Open => Some(Reason::TooLong),
            End::Flush if request.work == Work::Runs => Some(Reason::Flush),
            End::Flush | End::Sync | End::Ready => None,
        };
        Ask {
            class: request.class,
            begin: tries.begin,
            needs: tries.demand.as_ref().map(|demand| demand.needs),
            read_only_session: tries.begin.is_some() && self.session.is_read_only_by_default(),
            isolation: tries.begin.and_then(|_| self.default_isolation(tries)),
            unfinished,
            leaning: tries.leaning,
            own: &self.session.own,
            must_see,
            avoid: &tries.avoid,
            now: self.began.into_std(),
        }
    }

    fn decide(&mut self, request: &Request, tries: &Tries) -> Route {
        let view = self.proxy.monitor.view();
        self.epoch = view.epoch;
        if let Some(reason) = tries.primary {
            return Route {
                target: Target::Primary,
                reason,
            };
        }
        self.reads = self.reads(request, tries);
        let must_see = self.must_see(self.reads);
        let ask = self.ask(request, tries, &must_see);
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
        let splittable = pins.iter().all(Pin::leaves_reads);
        // What goes on over several requests would keep the other connection in this one's place.
        let alone = self.session.transaction == Transaction::Idle
            && request.begin.is_none()
            && matches!(request.end, End::Ready | End::Sync)
            && request.class.kind == Kind::Single;
        !(splittable && alone && request.class.access == Access::Read)
    }
}

fn cancelled() -> Visible {
    Visible::error(
        Fault::Client,
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}
