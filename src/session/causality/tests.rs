use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cluster::{CaughtUp, Health, NodeView, Position, Role, View, caught_up};

const PRIMARY: NodeId = NodeId(0);
const FORMER: NodeId = NodeId(2);
const REPLICA: NodeId = NodeId(1);

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn at(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

fn table(name: &str) -> Tables {
    Tables::of(name.as_bytes())
}

/// The primary writes a byte a millisecond, and was asked once at each; the replica has replayed
/// what was written up to `replayed`.
fn view(start: Instant, now: u64, replayed: u64) -> View {
    let node = |id, role, positions: Vec<Position>| NodeView {
        role,
        health: Health::Up,
        since: Some(start),
        positions: positions.into(),
        ..NodeView::new(id, "pg".into())
    };
    let position = |ms, lsn| Position::exact(at(start, ms), Lsn(1000 + lsn));
    View {
        epoch: 1,
        epoch_start: Some(Lsn(1000)),
        primary: Some(PRIMARY),
        nodes: [
            node(
                PRIMARY,
                Role::Primary,
                (0..=now).map(|ms| position(ms, ms)).collect(),
            ),
            node(REPLICA, Role::Replica, vec![position(now, replayed)]),
        ]
        .into(),
        withheld: None,
    }
}

fn reads(causality: &Causality, start: Instant, replayed: u64, tables: Tables) -> CaughtUp {
    caught_up(
        &view(start, 100, replayed),
        REPLICA,
        &causality.concerning(tables),
    )
}

#[test]
fn a_write_concerns_its_tables_and_what_a_read_on_the_primary_showed_concerns_all() {
    let start = start();
    let (log, other) = (table("log"), table("other"));
    let mut session = Causality::default();
    session.on_primary(1, PRIMARY, at(start, 20), Change::write(log), true);
    for (replayed, of_log) in [(10, CaughtUp::NotYet), (20, CaughtUp::Yes)] {
        assert_eq!(reads(&session, start, replayed, log), of_log);
        assert_eq!(reads(&session, start, replayed, log.with(other)), of_log);
        assert_eq!(reads(&session, start, replayed, Tables::ALL), of_log);
        assert_eq!(reads(&session, start, replayed, other), CaughtUp::Yes);
        assert_eq!(
            reads(&session, start, replayed, Tables::NONE),
            CaughtUp::Yes
        );
    }
    session.on_primary(1, PRIMARY, at(start, 40), Change::READ, true);
    assert_eq!(reads(&session, start, 30, other), CaughtUp::NotYet);
    assert_eq!(reads(&session, start, 40, other), CaughtUp::Yes);
    assert_eq!(session.some, None);
}

#[test]
fn a_transaction_concerns_what_it_touched_from_its_end_on() {
    let start = start();
    let (a, b) = (table("a"), table("b"));
    let mut session = Causality::default();
    session.on_primary(1, PRIMARY, at(start, 10), Change::write(a), false);
    session.on_primary(1, PRIMARY, at(start, 20), Change::write(b), false);
    let wrote = session.on_primary(1, PRIMARY, at(start, 60), Change::default(), true);
    assert_eq!(wrote, a.with(b));
    assert_eq!(reads(&session, start, 50, a), CaughtUp::NotYet);
    assert_eq!(reads(&session, start, 50, b), CaughtUp::NotYet);
    assert_eq!(reads(&session, start, 60, a.with(b)), CaughtUp::Yes);
    // The next one has nothing to do with them.
    let wrote = session.on_primary(1, PRIMARY, at(start, 70), Change::default(), true);
    assert_eq!(wrote, Tables::NONE);
    // What it read doesn't count as written.
    session.on_primary(1, PRIMARY, at(start, 80), Change::READ, false);
    let wrote = session.on_primary(1, PRIMARY, at(start, 80), Change::write(a), true);
    assert_eq!(wrote, a);
}

#[test]
fn a_write_concerns_every_table_once_names_may_mean_others() {
    let start = start();
    let (log, other) = (table("log"), table("other"));
    let mut session = Causality::default();
    session.under(1);
    session.on_primary(1, PRIMARY, at(start, 20), Change::write(log), true);
    session.under(1);
    assert_eq!(reads(&session, start, 10, other), CaughtUp::Yes);
    session.under(2);
    assert_eq!(reads(&session, start, 10, other), CaughtUp::NotYet);
    assert_eq!(reads(&session, start, 20, other), CaughtUp::Yes);
    // Also what a transaction has touched by then.
    session.on_primary(1, PRIMARY, at(start, 30), Change::write(log), false);
    session.under(3);
    let wrote = session.on_primary(1, PRIMARY, at(start, 40), Change::default(), true);
    assert_eq!(wrote, Tables::ALL);
    assert_eq!(reads(&session, start, 30, other), CaughtUp::NotYet);
    // Of all sessions' writes, those that were named earlier.
    let mut all = Causality::default();
    all.under(2);
    all.written(1, PRIMARY, at(start, 20), log, 2);
    assert_eq!(reads(&all, start, 10, other), CaughtUp::Yes);
    all.written(1, PRIMARY, at(start, 20), log, 1);
    assert_eq!(reads(&all, start, 10, other), CaughtUp::NotYet);
    all.written(1, PRIMARY, at(start, 20), Tables::NONE, 1);
    all.written(1, PRIMARY, at(start, 50), log, 3);
    assert_eq!(reads(&all, start, 20, other), CaughtUp::Yes);
    assert_eq!(reads(&all, start, 20, log), CaughtUp::NotYet);
}

#[test]
fn a_replica_that_shows_a_write_takes_its_place() {
    let start = start();
    let (log, other) = (table("log"), table("other"));
    let mut session = Causality::default();
    session.on_primary(1, PRIMARY, at(start, 20), Change::write(log), true);
    session.on_replica(1, REPLICA, at(start, 30), true, other);
    assert_eq!(reads(&session, start, 10, log), CaughtUp::NotYet);
    session.on_replica(1, REPLICA, at(start, 40), true, log);
    assert_eq!(session.some, None);
}

#[test]
fn after_a_promotion_the_former_primarys_writes_bind_until_it_is_replayed() {
    let start = start();
    let (log, other) = (table("log"), table("other"));
    let mut session = Causality::default();
    session.on_primary(0, FORMER, at(start, 20), Change::write(log), true);
    for _ in 0..2 {
        let mut view = view(start, 100, 10);
        view.epoch_start = Some(Lsn(1050));
        let shown = |view: &View| caught_up(view, REPLICA, &session.concerning(log));
        assert_eq!(shown(&view), CaughtUp::NotYet);
        view.epoch_start = Some(Lsn(1010));
        assert_eq!(shown(&view), CaughtUp::Yes);
        // Also when something else was read meanwhile.
        session.on_replica(1, REPLICA, at(start, 90), true, other);
    }
}

/// What happens to a session, and to all together.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8, bool),
    Read(u8),
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..20_u8, any::<bool>()).prop_map(|(table, ends)| Step::Write(table, ends)),
        3 => (0..20_u8).prop_map(Step::Read),
        1 => Just(Step::End),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Against a memory of every write: a replica is never taken to show a table before it has
    /// replayed the session's last write to it, whatever was forgotten or put together.
    #[test]
    fn no_write_is_forgotten_before_it_is_replayed(steps in steps(), replayed in 0..100_u64) {
        let start = start();
        let (mut session, mut all) = (Causality::default(), Causality::default());
        let mut last = [None; 20];
        let mut open = Vec::new();
        for (step, ms) in steps.iter().zip(1_u64..) {
            let now = at(start, ms);
            let (change, ends) = match *step {
                Step::Write(written, ends) => {
                    open.push(written);
                    (Change::write(table(&format!("t{written}"))), ends)
                }
                Step::End => (Change::default(), true),
                Step::Read(read) => {
                    let read = table(&format!("t{read}"));
                    if open.is_empty() && reads(&session, start, replayed, read) == CaughtUp::Yes {
                        session.on_replica(1, REPLICA, at(start, 100), true, read);
                    }
                    continue;
                }
            };
            for &written in &open {
                last[usize::from(written)] = Some(ms);
            }
            if ends {
                open.clear();
            }
            let wrote = session.on_primary(1, PRIMARY, now, change, ends);
            all.written(1, PRIMARY, now, wrote, 0);
        }
        for (number, last) in last.iter().enumerate() {
            let read = table(&format!("t{number}"));
            for causality in [&session, &all] {
                let shown = reads(causality, start, replayed, read) == CaughtUp::Yes;
                if let Some(last) = last && *last > replayed {
                    prop_assert!(!shown, "t{number}, last written at {last}");
                }
            }
        }
    }
}
