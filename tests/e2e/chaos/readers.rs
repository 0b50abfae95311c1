//! Clients that only read, and check every row.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::board::{Board, Crowd};
use crate::support::Proxy;

/// Rows of the table that is read.
const ROWS: usize = 1000;
/// Without an answer for so long a request has failed.
pub(super) const LIMIT: Duration = Duration::from_secs(25);

/// Makes the tables that readers look at: `fixed`, whose rows never change, and `counter`, whose
/// only row grows.
pub(super) async fn fill(client: &Client) {
    client
        .batch_execute(&format!(
            "drop table if exists fixed, counter; \
             create table fixed (a int primary key, b int); \
             insert into fixed select a, 2 * a from generate_series(0, {}) a; \
             create table counter (v bigint); insert into counter values (0)",
            ROWS - 1
        ))
        .await
        .unwrap();
}

/// How clients read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// Between two reads.
    pub(super) pause: Duration,
    /// Every so-many-th read takes [`LONG`]; 0: none.
    pub(super) long_every: usize,
    /// The counter never goes back: not to be asked for while the primary may change.
    pub(super) counter: bool,
}

/// What a long read takes.
const LONG: &str = "0.15";

/// Starts reading clients.
pub(super) async fn readers(proxy: &Proxy, count: usize, habit: Habit) -> Crowd<()> {
    let config = proxy.config("app", "app");
    Crowd::start(count, move |i, board| {
        Box::pin(read(i, board, config.clone(), habit))
    })
    .await
}

/// A client of a crowd. `None`: it couldn't connect, which is noted.
pub(super) async fn connect(board: &Board, config: &Config) -> Option<Client> {
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            board.connected();
            Some(client)
        }
        Err(error) => {
            board.fail(format!("connecting: {error:?}"));
            None
        }
    }
}

async fn read(i: usize, board: Arc<Board>, config: Config, habit: Habit) {
    let Some(client) = connect(&board, &config).await else {
        return;
    };
    let mut last = 0;
    let mut turn = i;
    while !board.stopped() {
        turn += 1;
        let (phase, began) = (board.phase(), Instant::now());
        let (from, count) = (turn * 31 % (ROWS - 40), 1 + turn % 40);
        let long = if habit.long_every > 0 && turn.is_multiple_of(habit.long_every) {
            format!(", (select pg_sleep({LONG})) s")
        } else {
            String::new()
        };
        let sql = format!(
            "select a, b from fixed{long} where a >= {from} and a < {} order by a /* phase {phase} */",
            from + count
        );
        let asked = async {
            match turn % 3 {
                0 => {
                    let messages = client.simple_query(&sql).await?;
                    Ok(simple_rows(&messages))
                }
                1 if habit.counter => {
                    let row = client.query_one("select v from counter", &[]).await?;
                    let value: i64 = row.get(0);
                    if value < last {
                        board.fail(format!("the counter was {last}, then {value}"));
                    }
                    last = value;
                    Ok((from..from + count).map(|a| (a, 2 * a)).collect())
                }
                _ => {
                    let rows = client.query(&sql, &[]).await?;
                    let pair = |row: &tokio_postgres::Row| {
                        (number(row.get::<_, i32>(0)), number(row.get::<_, i32>(1)))
                    };
                    Ok::<_, tokio_postgres::Error>(rows.iter().map(pair).collect())
                }
            }
        };
        match timeout(LIMIT, asked).await {
            Ok(Ok(rows)) => {
                let expected: Vec<_> = (from..from + count).map(|a| (a, 2 * a)).collect();
                if rows != expected {
                    return board.fail(format!("{sql}: {rows:?}"));
                }
            }
            Ok(Err(error)) => return board.fail(format!("{sql}: {error:?}")),
            Err(_) => return board.fail(format!("{sql}: no answer within {LIMIT:?}")),
        }
        board.done(began, phase);
        tokio::time::sleep(habit.pause).await;
    }
}

fn number(value: i32) -> usize {
    usize::try_from(value).unwrap()
}

fn simple_rows(messages: &[SimpleQueryMessage]) -> Vec<(usize, usize)> {
    let value = |row: &tokio_postgres::SimpleQueryRow, i| row.get(i).unwrap().parse().unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((value(row, 0), value(row, 1))),
        _ => None,
    });
    rows.collect()
}

/// One client that counts the counter up and reads what it has written.
pub(super) async fn counting(proxy: &Proxy) -> Crowd<i64> {
    let config = proxy.config("app", "app");
    Crowd::start(1, move |_, board| {
        let config = config.clone();
        Box::pin(async move {
            let mut written = 0;
            let Some(client) = connect(&board, &config).await else {
                return written;
            };
            while !board.stopped() {
                let (phase, began) = (board.phase(), Instant::now());
                let step = async {
                    client.batch_execute("update counter set v = v + 1").await?;
                    client.query_one("select v from counter", &[]).await
                };
                match timeout(LIMIT, step).await {
                    Ok(Ok(row)) if row.get::<_, i64>(0) == written + 1 => written += 1,
                    Ok(Ok(row)) => board.fail(format!(
                        "wrote {} and read {}",
                        written + 1,
                        row.get::<_, i64>(0)
                    )),
                    Ok(Err(error)) => board.fail(format!("counting: {error:?}")),
                    Err(_) => board.fail(format!("counting: no answer within {LIMIT:?}")),
                }
                board.done(began, phase);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            written
        })
    })
    .await
}
