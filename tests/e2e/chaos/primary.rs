//! The primary is lost, hangs, or comes back as a second one, under clients that write.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    arena::{Arena, arena},
    readers::{Habit, fill, readers},
    writers::{make, verify, writers},
};
use crate::support::{Proxy, Stop, eventually, run, sqlstate};

const READING: Habit = Habit {
    pause: Duration::from_millis(50),
    long_every: 25,
    counter: false,
};
const WRITERS: usize = 32;
const BETWEEN: Duration = Duration::from_millis(40);

pub(super) async fn prepared(arena: &Arena, settings: &str) -> Proxy {
    let proxy = arena.proxy(settings).await;
    let client = proxy.connect("app", "app").await;
    fill(&client).await;
    make(&client).await;
    proxy.wait_for_table(&arena.cluster, "fixed").await;
    proxy.wait_for_table(&arena.cluster, "written").await;
    proxy
}

pub(super) async fn wait_for_primary(proxy: &Proxy, name: &str) {
    let labels = [format!("node=\"{name}\""), "role=\"primary\"".to_owned()];
    eventually("the proxy knows the primary", async || {
        proxy.metric("pgsplit_node_up", &[&labels[0], &labels[1]]) == 1.0
    })
    .await;
}

#[test]
fn a_lost_primary_loses_and_doubles_no_write() {
    let arena = arena();
    run(async {
        let cluster = &arena.cluster;
        let proxy = prepared(&arena, "").await;
        let (old, [new, other]) = (arena.primary(), arena.replicas());
        arena.synchronous(Some(new));
        let reading = readers(&proxy, 8, READING).await;
        let writing = writers(&proxy, WRITERS, BETWEEN).await;
        writing.crowd.progress(200).await;
        cluster.stop(old, Stop::Kill).unwrap();
        let lost = Instant::now();
        reading.progress(150).await;
        cluster.promote(new).unwrap();
        let promoted = Instant::now();
        eventually("all clients write again", async || {
            writing.crowd.check();
            writing.resumed(WRITERS, promoted).is_some()
        })
        .await;
        let (first, last) = writing.resumed(WRITERS, promoted).unwrap();
        println!(
            "without a primary for {:?}; writes resumed {first:?} after the promotion, all clients after {last:?}",
            promoted - lost
        );
        assert!(first < Duration::from_millis(1500), "{first:?}");
        let (_, slowest) = reading.next_phase();
        println!("the slowest read took {slowest:?}");
        arena.reattach(other);
        cluster.rewind(old).unwrap();
        proxy.wait_for_nodes(3).await;
        writing.crowd.progress(200).await;
        reading.progress(100).await;
        reading.finish();
        let ledgers = writing.crowd.finish();
        let (acknowledged, unknown) = verify(&ledgers, cluster, new);
        println!("{acknowledged} writes were acknowledged, {unknown} are of unknown outcome");
    });
    arena.give_back();
}

#[test]
fn a_primary_that_hung_and_comes_back_as_a_second_one_gets_no_write() {
    let arena = arena();
    run(async {
        let cluster = &arena.cluster;
        let proxy = prepared(&arena, "").await;
        let (old, [new, other]) = (arena.primary(), arena.replicas());
        arena.synchronous(Some(new));
        let reading = readers(&proxy, 8, READING).await;
        let writing = writers(&proxy, WRITERS, BETWEEN).await;
        writing.crowd.progress(200).await;
        cluster.hang(old).unwrap();
        let hung = Instant::now();
        // Who comes now gets in as soon as it is known that there is no primary.
        let late = proxy.connect("app", "app").await;
        println!("a client was let in after {:?}", hung.elapsed());
        assert!(hung.elapsed() < Duration::from_secs(4));
        let row = late.query_one("select b from fixed where a = 7", &[]).await;
        assert_eq!(row.unwrap().get::<_, i32>(0), 14);
        reading.progress(150).await;
        cluster.promote(new).unwrap();
        let promoted = Instant::now();
        let name = cluster.nodes()[new].name.to_string();
        wait_for_primary(&proxy, &name).await;
        let (after, _) = writing.crowd.next_phase();
        eventually("all clients write again", async || {
            writing.crowd.check();
            writing.resumed(WRITERS, promoted).is_some()
        })
        .await;
        let (first, last) = writing.resumed(WRITERS, promoted).unwrap();
        println!(
            "hung for {:?}; writes resumed {first:?} after the promotion, all clients after {last:?}",
            promoted - hung
        );
        assert!(first < Duration::from_millis(1500), "{first:?}");
        // It wakes up, and believes that it is the primary.
        cluster.unhang(old).unwrap();
        writing.crowd.progress(300).await;
        // And once more, with its memory lost.
        cluster.stop(old, Stop::Immediate).unwrap();
        cluster.start_node(old).unwrap();
        writing.crowd.progress(300).await;
        eventually("it is fenced", async || {
            proxy.log().contains("fenced") || proxy.log().contains("superseded")
        })
        .await;
        let reached = cluster
            .psql(
                old,
                &format!("select * from written where phase >= {after}"),
            )
            .unwrap();
        assert_eq!(reached, "");
        cluster.stop(old, Stop::Fast).unwrap();
        arena.reattach(other);
        cluster.rewind(old).unwrap();
        writing.crowd.progress(100).await;
        reading.progress(100).await;
        reading.finish();
        let ledgers = writing.crowd.finish();
        let (acknowledged, unknown) = verify(&ledgers, cluster, new);
        println!("{acknowledged} writes were acknowledged, {unknown} are of unknown outcome");
    });
    arena.give_back();
}

#[test]
fn what_waits_for_a_primary_is_bounded_in_number_and_time() {
    let arena = arena();
    run(async {
        let cluster = &arena.cluster;
        let proxy = prepared(&arena, "[failover]\nhold = \"1500ms\"\nhold_max = 8").await;
        let reading = readers(&proxy, 4, READING).await;
        let primary = arena.primary();
        let mut clients = Vec::new();
        for _ in 0..24 {
            clients.push(proxy.connect("app", "app").await);
        }
        cluster.stop(primary, Stop::Kill).unwrap();
        eventually("the loss is noticed", async || {
            proxy.metric("pgsplit_node_up", &["role=\"primary\""]) == 0.0
        })
        .await;
        let writes = clients.iter().map(|client| async {
            let began = Instant::now();
            let sql = "insert into written (client, n, part) values (0, 0, 0)";
            let error = client.batch_execute(sql).await.unwrap_err();
            (
                began.elapsed(),
                sqlstate(&error),
                error.as_db_error().unwrap().message().to_owned(),
            )
        });
        let results = join_all(writes).await;
        let (waited, refused): (Vec<_>, Vec<_>) = results
            .iter()
            .partition(|(took, ..)| *took > Duration::from_millis(1000));
        assert_eq!((waited.len(), refused.len()), (8, 16), "{results:?}");
        for (took, code, message) in waited {
            assert_eq!(code, "57P03");
            assert!(message.contains("no primary could be reached"), "{message}");
            assert!(*took < Duration::from_secs(4), "{took:?}");
        }
        for (_, code, message) in refused {
            assert_eq!(code, "57P03");
            assert!(message.contains("waiting for one already"), "{message}");
        }
        reading.progress(50).await;
        cluster.start_node(primary).unwrap();
        for client in &clients {
            client
                .batch_execute("insert into written (client, n, part) values (1, 1, 1)")
                .await
                .unwrap();
        }
        reading.finish();
        let count = |client| {
            let sql = format!("select count(*) from written where client = {client}");
            cluster.psql(primary, &sql).unwrap()
        };
        assert_eq!((count(0), count(1)), ("0".to_owned(), "24".to_owned()));
    });
    arena.give_back();
}

#[test]
fn what_is_open_when_the_primary_is_lost_is_told_and_goes_on() {
    let arena = arena();
    run(async {
        let cluster = &arena.cluster;
        let proxy = prepared(&arena, "").await;
        let (old, [new, other]) = (arena.primary(), arena.replicas());
        arena.synchronous(Some(new));
        let insert = |n: i32| format!("insert into written (client, n, part) values (7, {n}, 1)");
        let mut open = Vec::new();
        for n in 0..4 {
            let client = proxy.connect("app", "app").await;
            client.batch_execute("begin").await.unwrap();
            client.batch_execute(&insert(n)).await.unwrap();
            open.push(client);
        }
        let reader = proxy.connect("app", "app").await;
        let read = async || {
            let row = reader
                .query_one("select b from fixed where a = 7", &[])
                .await;
            row.unwrap().get::<_, i32>(0)
        };
        reader.batch_execute("begin read only").await.unwrap();
        assert_eq!(read().await, 14);
        let writer = proxy.connect("app", "app").await;
        let writing = async {
            let sql = format!("{} returning pg_sleep(5)", insert(4));
            writer.query(&sql, &[]).await.unwrap_err()
        };
        let running = async {
            let sql = "select pg_sleep(5), 'within'";
            open[3].batch_execute(sql).await.unwrap_err()
        };
        let losing = async {
            let both = "(select count(*) from pg_stat_activity where wait_event = 'PgSleep') = 2";
            // Not by a client of the runtime that has to send them.
            eventually("both run", async || {
                cluster.psql(old, &format!("select {both}")).unwrap() == "t"
            })
            .await;
            cluster.stop(old, Stop::Kill).unwrap();
        };
        let (in_flight, within, ()) = tokio::join!(writing, running, losing);
        assert_eq!(sqlstate(&in_flight), "08007");
        assert_eq!(sqlstate(&within), "40001");
        // Those that rested hear of it with their next statement, be it what it may.
        let code = async |sql| match open[0].batch_execute(sql).await {
            Ok(()) => "ok".to_owned(),
            Err(error) => sqlstate(&error),
        };
        assert_eq!(code("commit").await, "40001");
        let error = open[1].execute("commit", &[]).await.unwrap_err();
        assert_eq!(sqlstate(&error), "40001");
        let error = open[2].batch_execute("select 1").await.unwrap_err();
        assert_eq!(sqlstate(&error), "40001");
        let error = open[2].batch_execute("select 1").await.unwrap_err();
        assert_eq!(sqlstate(&error), "25P02");
        open[2].batch_execute("commit").await.unwrap();
        open[3].batch_execute("rollback").await.unwrap();
        // Who has only read doesn't notice.
        assert_eq!(read().await, 14);
        let text = insert(5);
        let held = writer.batch_execute(&text);
        let promoting = async { cluster.promote(new).unwrap() };
        let (written, ()) = tokio::join!(held, promoting);
        written.unwrap();
        assert_eq!(read().await, 14);
        reader.batch_execute("commit").await.unwrap();
        // What was written after the promotion is what this session's reads must see.
        let row = writer
            .query_one("show pgsplit.last_lsn", &[])
            .await
            .unwrap();
        let seen: String = row.get(0);
        let beyond = cluster.psql(new, &format!("select '{seen}'::pg_lsn > '0/1000000'"));
        assert_eq!(beyond.unwrap(), "t", "{seen}");
        for client in &open {
            client.batch_execute(&insert(6)).await.unwrap();
        }
        assert_eq!(
            cluster
                .psql(new, "select n, count(*) from written group by n order by n")
                .unwrap(),
            "5|1\n6|4"
        );
        arena.reattach(other);
        cluster.rewind(old).unwrap();
    });
    arena.give_back();
}

async fn join_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures_util::future::join_all(futures).await
}
