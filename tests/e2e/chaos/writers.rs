//! Clients that write, and know of each write whether it must be there, must not, or may.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Config};

use super::{
    board::{Board, Crowd},
    readers::{LIMIT, connect},
};
use crate::support::{Cluster, Proxy, sqlstate};

/// What a client was told of its writes, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) client: i32,
    /// The parts of each.
    acknowledged: BTreeMap<i32, usize>,
    /// 08007.
    pub(super) unknown: BTreeMap<i32, usize>,
    /// Any other error.
    pub(super) refused: BTreeMap<i32, String>,
}

/// Writers, and when they had which answer.
pub(super) struct Writers {
    pub(super) crowd: Crowd<Ledger>,
    acknowledged: Arc<Mutex<Vec<(usize, Instant)>>>,
}

/// Makes the table that is written to.
pub(super) async fn make(client: &Client) {
    client
        .batch_execute(
            "drop table if exists written; \
             create table written (client int, n int, part int, phase int, \
                 x xid8 default pg_current_xact_id()); \
             create index on written (client, n)",
        )
        .await
        .unwrap();
}

/// Starts writing clients.
pub(super) async fn writers(proxy: &Proxy, count: usize, pause: Duration) -> Writers {
    let config = proxy.config("app", "app");
    let acknowledged: Arc<Mutex<Vec<_>>> = Arc::default();
    let times = Arc::clone(&acknowledged);
    let crowd = Crowd::start(count, move |i, board| {
        let (config, times) = (config.clone(), Arc::clone(&times));
        Box::pin(async move { write(i, &board, &config, pause, &times).await })
    })
    .await;
    Writers {
        crowd,
        acknowledged,
    }
}

impl Writers {
    /// From `since` to the first acknowledged write that was begun by whomever, and until each
    /// client had one.
    pub(super) fn resumed(&self, clients: usize, since: Instant) -> Option<(Duration, Duration)> {
        let times = self.acknowledged.lock().unwrap();
        let mut first = BTreeMap::new();
        for (client, at) in times.iter().filter(|(_, at)| *at > since) {
            first.entry(*client).or_insert(at.duration_since(since));
        }
        let (earliest, latest) = (first.values().min()?, first.values().max()?);
        (first.len() == clients).then_some((*earliest, *latest))
    }
}

async fn write(
    i: usize,
    board: &Board,
    config: &Config,
    pause: Duration,
    times: &Mutex<Vec<(usize, Instant)>>,
) -> Ledger {
    let mut ledger = Ledger {
        client: i32::try_from(i).unwrap(),
        ..Ledger::default()
    };
    let Some(client) = connect(board, config).await else {
        return ledger;
    };
    let mut n = 0;
    while !board.stopped() {
        n += 1;
        let (phase, began) = (board.phase(), Instant::now());
        let Ok(result) = timeout(LIMIT * 2, step(&client, &ledger, n, phase)).await else {
            board.fail(format!("write {n} of client {i}: no answer"));
            return ledger;
        };
        let parts = parts(n);
        match result {
            Ok(()) => {
                ledger.acknowledged.insert(n, parts);
                times.lock().unwrap().push((i, Instant::now()));
                board.done(began, phase);
            }
            Err(error) => match sqlstate(&error).as_str() {
                "08007" => drop(ledger.unknown.insert(n, parts)),
                // A connection that is lost in between a transaction's statements.
                code @ ("40001" | "57P03" | "53300") => {
                    ledger.refused.insert(n, code.to_owned());
                }
                other => {
                    board.fail(format!("write {n} of client {i}: {other} {error:?}"));
                    return ledger;
                }
            },
        }
        if let Err(what) = read_back(&client, &ledger, n).await {
            board.fail(format!("client {i} behind write {n}: {what}"));
            return ledger;
        }
        tokio::time::sleep(pause).await;
    }
    ledger
}

/// Rows that write `n` consists of.
fn parts(n: i32) -> usize {
    match n % 4 {
        0 | 1 => 1,
        _ => 2,
    }
}

async fn step(
    client: &Client,
    ledger: &Ledger,
    n: i32,
    phase: u32,
) -> Result<(), tokio_postgres::Error> {
    let insert = |part: i32| {
        format!(
            "insert into written (client, n, part, phase) select {}, {n}, {part}, {phase}",
            ledger.client
        )
    };
    match n % 4 {
        // Long enough to be running when something happens.
        0 => {
            client
                .batch_execute(&format!("{} from pg_sleep(0.03)", insert(1)))
                .await
        }
        1 => client
            .query_one(&format!("{} returning n", insert(1)), &[])
            .await
            .map(drop),
        2 => {
            client
                .batch_execute(&format!("{}; {}", insert(1), insert(2)))
                .await
        }
        _ => {
            let work = async {
                client.batch_execute("begin").await?;
                client.batch_execute(&insert(1)).await?;
                client.execute(&insert(2), &[]).await?;
                client.batch_execute("commit").await
            };
            let result = work.await;
            if result
                .as_ref()
                .is_err_and(|error| error.code().is_some_and(|code| code.code() != "08007"))
            {
                // What becomes of it, the first error has told.
                drop(client.batch_execute("rollback").await);
            }
            result
        }
    }
}

/// The last writes are there as they must be: on a replica that has them, or the primary.
async fn read_back(client: &Client, ledger: &Ledger, n: i32) -> Result<(), String> {
    let from = n - 12;
    let sql = "select n, part from written where client = $1 and n > $2";
    let rows = match timeout(LIMIT, client.query(sql, &[&ledger.client, &from])).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(format!("{error:?}")),
        Err(_) => return Err("no answer to a read".to_owned()),
    };
    let found = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    ledger.compare(found, |n| n > from)
}

impl Ledger {
    /// Checks rows, given as number and part, of those writes.
    fn compare(&self, found: Vec<(i32, i32)>, these: impl Fn(i32) -> bool) -> Result<(), String> {
        let mut there: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
        for (n, part) in found {
            if !there.entry(n).or_default().insert(part) {
                return Err(format!("part {part} of write {n} is there twice"));
            }
        }
        for (n, parts) in self.acknowledged.iter().filter(|(n, _)| these(**n)) {
            if there.get(n).map_or(0, BTreeSet::len) != *parts {
                return Err(format!("write {n} was acknowledged and isn't there"));
            }
        }
        for (n, found) in &there {
            let known = self.acknowledged.contains_key(n)
                || self
                    .unknown
                    .get(n)
                    .is_some_and(|parts| found.len() == *parts);
            if !known {
                return Err(format!(
                    "write {n} is there ({found:?}), but its client was told {:?}",
                    self.refused.get(n)
                ));
            }
        }
        Ok(())
    }
}

/// Compares what the clients were told with what a node has; how many writes were acknowledged and
/// how many are of unknown outcome.
pub(super) fn verify(ledgers: &[Ledger], cluster: &Cluster, node: usize) -> (usize, usize) {
    let rows = cluster
        .psql(
            node,
            "select client, n, part, x from written order by client, n, part",
        )
        .unwrap();
    let mut by_client: BTreeMap<i32, Vec<(i32, i32)>> = BTreeMap::new();
    let mut last = (-1, 0);
    for row in rows.lines() {
        let fields: Vec<i64> = row.split('|').map(|field| field.parse().unwrap()).collect();
        let (client, n) = (fields[0], i32::try_from(fields[1]).unwrap());
        assert!(
            last.0 != client || last.1 <= fields[3],
            "write {n} of client {client} came before an earlier one"
        );
        last = (client, fields[3]);
        by_client
            .entry(i32::try_from(client).unwrap())
            .or_default()
            .push((n, i32::try_from(fields[2]).unwrap()));
    }
    let mut counts = (0, 0);
    for ledger in ledgers {
        let found = by_client.remove(&ledger.client).unwrap_or_default();
        if let Err(what) = ledger.compare(found, |_| true) {
            panic!("client {}: {what}", ledger.client);
        }
        counts.0 += ledger.acknowledged.len();
        counts.1 += ledger.unknown.len();
    }
    counts
}
