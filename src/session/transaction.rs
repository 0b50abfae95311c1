//! Where a session's transaction stands, and whether it may go on elsewhere.
//!
//! # Theory
//! At READ COMMITTED each statement has a snapshot of its own, and no replica is ahead of the
//! primary. So a transaction on a replica in which nothing but reads ran may be rolled back there
//! and go on, with another server, as if it had been there from its beginning, once its settings
//! and savepoints are made again ([`Replay`]).
//!
//! | state | event | next |
//! |---|---|---|
//! | `Idle` | the client sends BEGIN | `Deferred`: answered at once, no server yet |
//! | `Deferred` | COMMIT or ROLLBACK | `Idle`, answered at once |
//! | `Deferred` | a statement goes to the primary | `Open` at `Primary`, once the server says so |
//! | `Deferred` | a statement goes to a replica | `Open` at `Visiting`, or `Replica` if it binds |
//! | any | ReadyForQuery | what it says |
//! | `Visiting` | a read | `Visiting` |
//! | `Visiting` | a setting, a savepoint | `Visiting`, kept to be made again |
//! | `Visiting` | what stays in the server (a cursor), READ ONLY | `Replica` |
//! | `Visiting` | [`Leaving::Leaves`] | `Deferred`: to be opened elsewhere |
//! | `Visiting`, not failed | the connection is lost | the same |
//! | other `Open` | the connection is lost | `Lost`: every statement fails until the client ends it |
//! | `Lost` | COMMIT or ROLLBACK | `Idle`, answered ROLLBACK; COMMIT with an error, if that is the first that the client hears of it |
//!
//! What a request means for a transaction that is on a replica ([`Transaction::leaving`]):
//!
//! | [`Needs`] | `Visiting`, may write | `Visiting`, READ ONLY | `Replica` |
//! |---|---|---|---|
//! | `Nothing`, `Repeatable` | stays | stays | stays |
//! | `Time` | leaves | stays | stays |
//! | `Server` | leaves | stays | stays |
//! | `Write` | leaves | leaves | stays: refused there in the same words |
//! | `Primary` | leaves | leaves | can't be served |
//!
//! A failed transaction stays where it is, unless the request rolls back what failed and goes on
//! to what leaves.
//!
//! Invariants: whether a transaction is open is never guessed from a text: only ReadyForQuery says
//! so, and a BEGIN that pgsplit has answered itself. Only what the server has carried out is kept
//! to be made again.

use super::{
    demand::{Demand, Needs},
    replay::{Change, Replay},
};
use crate::{protocol::backend::Status, sql::Begin};

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    #[default]
    Idle,
    /// BEGIN was answered and not sent, or has to be sent again elsewhere.
    Deferred(Replay),
    /// Open on a server connection, which the session keeps.
    Open { failed: bool, place: Place },
    /// It was open on a server connection that is gone: surely rolled back. `told`: the client has
    /// heard of it.
    Lost { told: bool },
}

/// Where an open transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Primary,
    /// On a replica to its end.
    Replica,
    /// On a replica, and it may go on elsewhere.
    Visiting(Replay),
}

/// What a request that was sent to a replica does to its transaction, once it is carried out.
#[derive(Debug, Default)]
pub struct Visit {
    /// The modes of the transaction that it begins.
    begins: Option<Begin>,
    /// Its transaction may not write.
    read_only: bool,
    queries: bool,
    then: Then,
    changes: Vec<Change>,
}

/// Whether the transaction may go on elsewhere after a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Then {
    #[default]
    Moves,
    Stays,
    /// As another one with the same modes.
    Restarts,
}

impl Visit {
    /// One more part of the request. `read_only`: its transaction may not write.
    pub fn sent(&mut self, demand: &Demand, read_only: bool) {
        self.begins = self.begins.or(demand.begins);
        self.read_only |= read_only;
        self.queries |= demand.queries;
        if demand.chains {
            self.then = Then::Restarts;
        } else if demand.needs == Needs::Server {
            self.then = Then::Stays;
        }
        self.changes.extend_from_slice(&demand.changes);
    }
}

/// How far a request has come that goes on behind messages sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It begins with this.
    First,
    /// So far statements were only prepared, and all of it was answered.
    Prepared,
    /// Something ran, or isn't answered yet.
    Running,
}

/// Whether a request goes on where its transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Leaving {
    Stays,
    Leaves,
    Cannot,
}

impl Transaction {
    /// ReadyForQuery's letter for the client.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Idle => Status::Idle,
            Self::Deferred(_) | Self::Open { failed: false, .. } => Status::InTransaction,
            Self::Open { failed: true, .. } | Self::Lost { .. } => Status::Failed,
        }
    }

    /// A server connection holds it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// It is on a replica, and may go on elsewhere.
    #[must_use]
    pub fn visiting(&self) -> Option<&Replay> {
        match self {
            Self::Open {
                failed: false,
                place: Place::Visiting(replay),
            } => Some(replay),
            _ => None,
        }
    }

    /// What opens it elsewhere, if it isn't open yet or may go on elsewhere once it isn't failed.
    #[must_use]
    pub fn replay(&self) -> Option<&Replay> {
        match self {
            Self::Deferred(replay)
            | Self::Open {
                place: Place::Visiting(replay),
                ..
            } => Some(replay),
            Self::Idle | Self::Open { .. } | Self::Lost { .. } => None,
        }
    }

    /// A server has said where it stands. `visit`: it is a replica, and what the request did there.
    pub fn ready(&mut self, status: Status, visit: Option<Box<Visit>>) {
        let failed = match status {
            Status::Idle => {
                *self = Self::Idle;
                return;
            }
            Status::InTransaction => false,
            Status::Failed => true,
        };
        let place = match visit {
            None => match std::mem::take(self) {
                // A request that says nothing of it leaves it where it is.
                Self::Open { place, .. } => place,
                _ => Place::Primary,
            },
            Some(visit) => visit.place(std::mem::take(self), failed),
        };
        *self = Self::Open { failed, place };
    }

    /// What this request means for the transaction, or the implicit one of messages since the last
    /// Sync, which is on a replica.
    pub fn leaving(&self, demand: &Demand, part: Part) -> Leaving {
        let wants = match self {
            Self::Open { failed: true, .. } if !demand.recovers => return Leaving::Stays,
            Self::Lost { .. } => return Leaving::Stays,
            Self::Open {
                place: Place::Primary,
                ..
            } => return Leaving::Stays,
            Self::Open {
                place: Place::Visiting(replay),
                ..
            }
            | Self::Deferred(replay) => replay.wants(demand),
            Self::Open {
                place: Place::Replica,
                ..
            } => match demand.needs {
                Needs::Primary => return Leaving::Cannot,
                _ => return Leaving::Stays,
            },
            Self::Idle => demand.needs.is_primary(),
        };
        match (wants, part) {
            (false, _) => Leaving::Stays,
            (true, Part::First | Part::Prepared) => Leaving::Leaves,
            (true, Part::Running) if self.is_open() && demand.needs == Needs::Write => {
                Leaving::Stays
            }
            (true, Part::Running) => Leaving::Cannot,
        }
    }

    /// Its server connection is left, as [`Self::leaving`] said, and it goes on elsewhere as if it had
    /// been there all along.
    pub fn leave(&mut self) {
        *self = match std::mem::take(self) {
            Self::Open {
                place: Place::Visiting(replay),
                ..
            } => Self::Deferred(replay),
            other => other,
        };
    }

    /// Its server connection is lost. True: it goes on elsewhere. False: nothing has changed.
    pub fn survives(&mut self) -> bool {
        let survives = self.visiting().is_some();
        if survives {
            self.leave();
        }
        survives
    }

    /// Its server connection is gone for good, or can't be had.
    pub fn lost(&mut self) {
        match self {
            Self::Open { .. } | Self::Deferred(_) => *self = Self::Lost { told: true },
            Self::Idle | Self::Lost { .. } => {}
        }
    }
}

impl Replay {
    /// The primary has to take the transaction over for this.
    fn wants(&self, demand: &Demand) -> bool {
        match demand.needs {
            Needs::Nothing => false,
            Needs::Repeatable => !self.read_only && !self.takes(&demand.changes),
            Needs::Time | Needs::Server => !self.read_only,
            Needs::Write | Needs::Primary => true,
        }
    }
}

impl Visit {
    /// Where a transaction is that this visit found in state `before`.
    fn place(self, before: Transaction, failed: bool) -> Place {
        let mut replay = match before {
            Transaction::Deferred(replay)
            | Transaction::Open {
                place: Place::Visiting(replay),
                ..
            } => replay,
            Transaction::Idle => match self.begins {
                Some(modes) => Replay::of(modes),
                None => return Place::Replica,
            },
            Transaction::Open { .. } | Transaction::Lost { .. } => return Place::Replica,
        };
        replay.read_only |= self.read_only;
        if failed {
            return Place::Visiting(replay);
        }
        match self.then {
            Then::Moves if replay.takes(&self.changes) => {}
            Then::Moves | Then::Stays => return Place::Replica,
            Then::Restarts => replay.restart(),
        }
        replay.queried |= self.queries;
        for change in self.changes {
            replay.add(change);
        }
        Place::Visiting(replay)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::replay::Message;

    fn demand(needs: Needs) -> Demand {
        Demand {
            needs,
            queries: true,
            chains: false,
            recovers: false,
            begins: None,
            changes: Vec::new(),
        }
    }

    fn visiting(read_only: bool, failed: bool) -> Transaction {
        let mut replay = Replay::of(Begin::default());
        replay.read_only = read_only;
        Transaction::Open {
            failed,
            place: Place::Visiting(replay),
        }
    }

    fn on_replica() -> Transaction {
        Transaction::Open {
            failed: false,
            place: Place::Replica,
        }
    }

    #[test]
    fn requests_stay_and_leave_as_the_table_says() {
        use Leaving::{Cannot, Leaves, Stays};
        let rows = [
            (Needs::Nothing, Stays, Stays, Stays),
            (Needs::Repeatable, Stays, Stays, Stays),
            (Needs::Time, Leaves, Stays, Stays),
            (Needs::Server, Leaves, Stays, Stays),
            (Needs::Write, Leaves, Leaves, Stays),
            (Needs::Primary, Leaves, Leaves, Cannot),
        ];
        for (needs, writing, reading, bound) in rows {
            let demand = demand(needs);
            let cases = [
                (visiting(false, false), writing),
                (visiting(true, false), reading),
                (on_replica(), bound),
                (visiting(false, true), Stays),
            ];
            for (transaction, expected) in cases {
                assert_eq!(
                    transaction.leaving(&demand, Part::First),
                    expected,
                    "{needs:?} in {transaction:?}"
                );
            }
        }
        // Behind statements of the same implicit transaction there is no way back.
        let running = visiting(false, false).leaving(&demand(Needs::Primary), Part::Running);
        assert_eq!(running, Cannot);
    }

    #[test]
    fn a_lost_server_is_the_end_of_what_can_not_go_on_elsewhere() {
        let mut moves = visiting(false, false);
        assert!(moves.survives());
        assert!(matches!(moves, Transaction::Deferred(_)));
        for mut stays in [on_replica(), visiting(false, true)] {
            let before = stays.clone();
            assert!(!stays.survives());
            assert_eq!(stays, before);
            stays.lost();
            assert_eq!(stays, Transaction::Lost { told: true });
        }
    }

    /// A request to a transaction that may write, and how it ends.
    fn step() -> impl Strategy<Value = (Needs, bool, u8, Status)> {
        let needs = prop::sample::select(vec![
            Needs::Nothing,
            Needs::Repeatable,
            Needs::Time,
            Needs::Server,
            Needs::Write,
            Needs::Primary,
        ]);
        let status = prop::sample::select(vec![Status::InTransaction, Status::Failed]);
        (needs, any::<bool>(), 0u8..4, status)
    }

    proptest! {
        /// Obeying [`Transaction::leaving`], a transaction that may write is never bound to a
        /// replica, and whatever belongs on the primary gets there.
        #[test]
        fn a_transaction_that_may_write_always_reaches_the_primary(
            steps in proptest::collection::vec(step(), 1..30),
        ) {
            let mut transaction =
                Transaction::Deferred(Replay::new(Begin::default(), b"BEGIN".as_slice().into()));
            let mut replica = false;
            for (needs, chains, change, status) in steps {
                let mut demand = demand(needs);
                // Ends the transaction and begins another: only a failed one does that on a replica.
                demand.chains = chains && needs == Needs::Server;
                let message = Message::Query(vec![b'x'; 600].into());
                demand.changes.extend(match change {
                    0 => Some(Change::Settings(message)),
                    1 => Some(Change::Savepoint("s".into(), message)),
                    2 => Some(Change::RollbackTo("s".into())),
                    _ => None,
                });
                demand.recovers = demand.chains || change == 2;
                let failed = transaction.status() == Status::Failed;
                if transaction.is_open() && replica {
                    match transaction.leaving(&demand, Part::First) {
                        Leaving::Stays => {}
                        Leaving::Leaves => transaction.leave(),
                        Leaving::Cannot => prop_assert!(false, "{transaction:?} {demand:?}"),
                    }
                }
                if !transaction.is_open() {
                    let repeatable = matches!(needs, Needs::Nothing | Needs::Repeatable);
                    replica = repeatable && transaction.replay().is_some_and(|r| r.takes(&demand.changes));
                }
                if replica && (!failed || demand.recovers) {
                    prop_assert!(!matches!(needs, Needs::Write | Needs::Primary | Needs::Time));
                }
                let visit = replica.then(|| {
                    let mut visit = Box::<Visit>::default();
                    visit.sent(&demand, false);
                    visit
                });
                // Nothing but ROLLBACK TO and the chain gets a transaction out of its failure.
                let status = if failed && !demand.recovers { Status::Failed } else { status };
                transaction.ready(status, visit);
                let place = match &transaction {
                    Transaction::Open { place, .. } => place,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                prop_assert_eq!(replica, matches!(place, Place::Visiting(_)));
                prop_assert!(*place != Place::Replica);
            }
        }
    }
}
