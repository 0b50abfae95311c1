//! Clients that go without a word.

use crate::support::{Proxy, Raw, cluster, eventually, message, run, unique};

/// How a client ends while it holds a row lock in a transaction.
async fn lock_is_free_after(end: impl AsyncFnOnce(Raw)) {
    let cluster = cluster();
    let proxy = Proxy::start(cluster, "[pool]\nmax_size = 2").await;
    let other = proxy.connect("app", "app").await;
    let t = unique("t");
    other
        .batch_execute(&format!(
            "create table {t} (a int); insert into {t} values (1)"
        ))
        .await
        .unwrap();
    let mut raw = Raw::connect(proxy.port).await;
    raw.query("begin").await;
    raw.query(&format!("update {t} set a = 2")).await;
    end(raw).await;
    other
        .batch_execute("set lock_timeout = '5s'")
        .await
        .unwrap();
    let row = other
        .query_one(&format!("select a from {t} for update"), &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 1, "the write wasn't rolled back");
    // And no connection is lost to the pool.
    for _ in 0..5 {
        other
            .batch_execute("begin; select 1 for update; commit")
            .await
            .unwrap();
    }
}

#[test]
fn a_closed_connection_is_rolled_back_and_its_locks_are_free() {
    run(lock_is_free_after(async |raw| drop(raw)));
}

#[test]
fn a_reset_connection_is_rolled_back_and_its_locks_are_free() {
    run(lock_is_free_after(async |raw| {
        // What is unread when a socket is closed makes the kernel send a reset.
        let mut raw = raw;
        raw.send(&message::query("select generate_series(1, 100000)"))
            .await;
        raw.stream.readable().await.unwrap();
        drop(raw);
    }));
}

#[test]
fn a_terminate_in_a_transaction_rolls_back() {
    run(lock_is_free_after(async |mut raw| {
        raw.send(&message::tagged(b'X', b"")).await;
        assert!(raw.next().await.is_none());
    }));
}

#[test]
fn a_client_lost_in_a_copy_or_in_half_a_message_is_rolled_back() {
    run(async {
        lock_is_free_after(async |mut raw| {
            let t = unique("t");
            raw.query(&format!("create table {t} (a int)")).await;
            raw.send(&message::query(&format!("copy {t} from stdin")))
                .await;
            raw.frame().await;
            raw.send(&message::copy_data(b"1\n")).await;
        })
        .await;
        lock_is_free_after(async |mut raw| raw.send(&message::query("select 1")[..7]).await).await;
    });
}

#[test]
fn a_client_lost_while_its_statement_runs_does_not_leave_it_running() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        for route in ["primary", "replica"] {
            let mark = unique("mark");
            let mut raw = Raw::connect(proxy.port).await;
            let sql = format!("/* pgsplit: {route} */ select pg_sleep(100) /* {mark} */");
            raw.send(&message::query(&sql)).await;
            eventually("the statement runs", async || {
                !cluster.ran_on(&mark).unwrap().is_empty()
            })
            .await;
            let node = cluster.ran_on(&mark).unwrap()[0];
            drop(raw);
            eventually("the statement is ended", async || {
                let running = format!("select count(*) from pg_stat_activity where state = 'active' and query like '%{mark}%' and pid <> pg_backend_pid()");
                cluster.psql(node, &running).unwrap() == "0"
            })
            .await;
        }
    });
}

#[test]
fn a_client_killed_while_pinned_leaves_nothing_behind() {
    run(async {
        let proxy = Proxy::start(cluster(), "[pool]\nmax_size = 1").await;
        let mut raw = Raw::connect(proxy.port).await;
        raw.query(
            "create temp table left_behind (a int); set work_mem = '1MB'; listen left_behind",
        )
        .await;
        drop(raw);
        let other = proxy.connect("app", "app").await;
        for _ in 0..5 {
            let row = other
                .query_one(
                    "/* pgsplit: primary */ select to_regclass('pg_temp.left_behind') is null \
                     and current_setting('work_mem') = '4MB' \
                     and not exists (select from pg_listening_channels())",
                    &[],
                )
                .await
                .unwrap();
            assert!(row.get::<_, bool>(0));
        }
    });
}
