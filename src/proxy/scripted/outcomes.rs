//! Whatever happens to server connections, a write that was acknowledged was carried out once, one
//! that failed wasn't, and only where the client was told so nobody knows.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{bed::*, message::*, postgres::Postgres};
use crate::cluster::NodeId;

/// How a server connection ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// What arrived isn't looked at.
    Before,
    /// It is carried out, and so much of the answer is sent.
    After(usize),
    /// As in an orderly shutdown.
    Told(&'static str),
}

fn ending() -> impl Strategy<Value = (usize, Ending)> {
    let how = prop_oneof![
        2 => Just(Ending::Before),
        3 => (0..60_usize).prop_map(Ending::After),
        1 => proptest::sample::select(&["57P01", "57P02", "57P03", "57P05"][..]).prop_map(Ending::Told),
    ];
    (0..12_usize, how)
}

#[derive(Clone, Debug)]
enum Work {
    Read,
    Write,
    /// So many writes, and whether they are committed.
    Transaction(usize, bool),
    /// Up to one Sync.
    Pipeline(usize),
}

fn work() -> impl Strategy<Value = (Work, bool)> {
    let work = prop_oneof![
        1 => Just(Work::Read),
        3 => Just(Work::Write),
        3 => (1..3_usize, any::<bool>()).prop_map(|(count, commits)| Work::Transaction(count, commits)),
        2 => (1..4_usize).prop_map(Work::Pipeline),
    ];
    (work, any::<bool>())
}

/// What a client knows of its writes.
#[derive(Debug, Default)]
struct Known {
    carried_out: Vec<u32>,
    failed: Vec<u32>,
    unknown: Vec<u32>,
}

struct Client {
    end: End,
    next: u32,
    known: Known,
}

impl Client {
    /// The messages that answer one request, up to ReadyForQuery.
    async fn ask(&mut self, text: &str, by_name: bool) -> Vec<Vec<u8>> {
        let bytes = if by_name {
            [extended(text), sync()].concat()
        } else {
            query(text)
        };
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.end.send(bytes).await;
        let mut answer = Vec::new();
        while answer.last().is_none_or(|last: &Vec<u8>| last[0] != b'Z') {
            // Now and then a read waits a little for a replica, or a write for a node that doesn't let
            // it in at once.
            let soon = Duration::from_millis(160);
            answer.push(self.end.message_within(soon).await);
        }
        answer
    }

    fn insert(&mut self) -> (u32, String) {
        self.next += 1;
        (self.next, format!("insert into t values ({})", self.next))
    }

    async fn does(&mut self, work: &Work, extended_protocol: bool) {
        match work {
            Work::Read => {
                let answer = self.ask("select c from t", extended_protocol).await;
                // A read that nothing was shown of goes on elsewhere.
                let failed = sqlstate(&answer);
                assert!(failed.is_none_or(|code| code == "08006"), "{answer:?}");
            }
            Work::Write => {
                let (number, text) = self.insert();
                let answer = self.ask(&text, extended_protocol).await;
                self.note(&[number], sqlstate(&answer));
            }
            Work::Transaction(count, commits) => {
                let mut numbers = Vec::new();
                let mut failed = None;
                let answer = self.ask("begin", extended_protocol).await;
                if sqlstate(&answer).is_some() {
                    assert_eq!(answer.last(), Some(&ready('I')), "no transaction has begun");
                    return;
                }
                for _ in 0..*count {
                    let (number, text) = self.insert();
                    numbers.push(number);
                    let answer = self.ask(&text, extended_protocol).await;
                    failed = failed.or(sqlstate(&answer));
                }
                let end = if *commits { "commit" } else { "rollback" };
                let answer = self.ask(end, extended_protocol).await;
                let rolled_back = answer
                    .iter()
                    .any(|message| *message == complete("ROLLBACK"));
                match (failed, sqlstate(&answer)) {
                    (_, Some(told)) => self.note(&numbers, Some(told)),
                    (failed, None) if rolled_back => {
                        self.note(&numbers, failed.or(Some("rolled back".to_owned())));
                    }
                    (failed, None) => {
                        assert_eq!(failed, None);
                        self.note(&numbers, None);
                    }
                }
                // Whatever happened, it is over.
                let status = answer.last().unwrap()[5];
                if status != b'I' {
                    self.ask("rollback", false).await;
                }
            }
            Work::Pipeline(count) => {
                let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
                for _ in 0..*count {
                    let (number, text) = self.insert();
                    numbers.push(number);
                    bytes.extend(extended(&text));
                }
                bytes.extend(sync());
                let answer = self.send(&bytes).await;
                self.note(&numbers, sqlstate(&answer));
            }
        }
    }

    fn note(&mut self, numbers: &[u32], failed: Option<String>) {
        let list = match failed.as_deref() {
            None => &mut self.known.carried_out,
            Some("08007") => &mut self.known.unknown,
            Some(_) => &mut self.known.failed,
        };
        list.extend(numbers);
    }
}

fn sqlstate(answer: &[Vec<u8>]) -> Option<String> {
    let error = answer.iter().find(|message| message[0] == b'E')?;
    Some(Told::read(error).sqlstate)
}

/// Serves all connections to a node; each that is made ends as the next of `endings` says.
fn serve(
    bed: &mut Bed,
    id: NodeId,
    first: Option<End>,
    endings: &Arc<Mutex<Vec<(usize, Ending)>>>,
    written: &Arc<Mutex<Vec<u32>>>,
) {
    let (endings, written) = (Arc::clone(endings), Arc::clone(written));
    let shutting_down = Arc::new(Mutex::new(None));
    let serve = move |mut end: End, logged_in: bool| {
        let written = Arc::clone(&written);
        let shutting_down = Arc::clone(&shutting_down);
        let refused = *shutting_down.lock().unwrap() == Some(Instant::now());
        let ending = (!refused).then(|| endings.lock().unwrap().pop()).flatten();
        async move {
            if refused {
                end.send(&fatal("57P03", "the database system is shutting down"))
                    .await;
                return;
            }
            if !logged_in {
                end.log_in().await;
            }
            let mut session = Postgres::new(id != PG1);
            let mut left = ending.map(|(after, _)| after);
            while let Some(bytes) = end.arrived().await {
                let last = left == Some(0);
                left = left.map(|left: usize| left.saturating_sub(1));
                match ending {
                    Some((_, Ending::Before)) if last => return,
                    Some((_, Ending::Told(code))) if last => {
                        *shutting_down.lock().unwrap() = Some(Instant::now());
                        end.send(&fatal(code, "terminating connection")).await;
                        return;
                    }
                    _ => {}
                }
                let answer = session.answers(&bytes);
                written.lock().unwrap().append(&mut session.written);
                match ending {
                    Some((_, Ending::After(count))) if last => {
                        end.send(&answer[..count.min(answer.len())]).await;
                        return;
                    }
                    _ => end.send(&answer).await,
                }
            }
        }
    };
    if let Some(first) = first {
        tokio::spawn(serve(first, true));
    }
    let mut dialled = bed.every_connection(id);
    tokio::spawn(async move {
        while let Some(end) = dialled.next().await {
            tokio::spawn(serve(end, false));
        }
    });
}

async fn play(steps: Vec<(Work, bool)>, endings: Vec<(usize, Ending)>) {
    let (mut bed, primary) = Bed::start(&[]).await;
    let (endings, written) = (Arc::new(Mutex::new(endings)), Arc::default());
    serve(&mut bed, PG1, Some(primary), &endings, &written);
    serve(&mut bed, PG2, None, &endings, &written);
    let mut client = Client {
        end: bed.client().await,
        next: 0,
        known: Known::default(),
    };
    let began = Instant::now();
    for (work, extended_protocol) in &steps {
        client.does(work, *extended_protocol).await;
    }
    assert!(began.elapsed().as_secs() < 5, "something was waited for");
    let written = written.lock().unwrap();
    let times = |number: &u32| written.iter().filter(|other| *other == number).count();
    for number in &client.known.carried_out {
        assert_eq!(times(number), 1, "{number} was acknowledged");
    }
    for number in &client.known.failed {
        assert_eq!(times(number), 0, "{number} failed");
    }
    for number in &client.known.unknown {
        assert!(times(number) <= 1, "{number} wasn't to be sent again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_acknowledged_write_is_lost_and_none_is_doubled(
        steps in proptest::collection::vec(work(), 1..12),
        endings in proptest::collection::vec(ending(), 0..12),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(play(steps, endings));
    }
}
