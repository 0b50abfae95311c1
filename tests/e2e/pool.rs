//! Limits of the pools, and server connections that end.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::support::{Proxy, cluster, own_cluster, run, sqlstate, unique};

#[test]
fn a_full_pool_gives_53300_after_the_timeout_and_serves_again_after() {
    run(async {
        let settings = "[pool]\nmax_size = 2\nacquire_timeout = \"400ms\"";
        let proxy = Proxy::start(cluster(), settings).await;
        let mut holders = Vec::new();
        for _ in 0..2 {
            let holder = proxy.connect("app", "app").await;
            holder
                .batch_execute("begin; select 1 for update")
                .await
                .unwrap();
            holders.push(holder);
        }
        let waiting = proxy.connect("app", "app").await;
        let began = Instant::now();
        let error = waiting
            .simple_query("/* pgsplit: primary */ select 1")
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "53300");
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(390) && took < Duration::from_secs(5),
            "{took:?}"
        );
        // Reads have pools of their own, and busy is not dead.
        waiting.simple_query("select 1").await.unwrap();
        proxy.wait_for_nodes(3).await;
        holders[0].batch_execute("commit").await.unwrap();
        waiting
            .simple_query("/* pgsplit: primary */ select 1")
            .await
            .unwrap();
    });
}

#[test]
fn many_more_clients_than_connections_all_get_their_turn() {
    run(async {
        let proxy =
            Proxy::start(cluster(), "[pool]\nmax_size = 2\nacquire_timeout = \"60s\"").await;
        let t = unique("t");
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute(&format!("create table {t} (a int)"))
            .await
            .unwrap();
        let mut clients = JoinSet::new();
        for _ in 0..40 {
            // Logins one after the other: an unoptimised build is slow to check passwords.
            let (client, t) = (proxy.connect("app", "app").await, t.clone());
            clients.spawn(async move {
                for _ in 0..5 {
                    client
                        .batch_execute(&format!("begin; insert into {t} values (1); commit"))
                        .await
                        .unwrap();
                    client.simple_query("select 1").await.unwrap();
                }
            });
        }
        clients.join_all().await;
        let row = client
            .query_one(
                &format!("/* pgsplit: primary */ select count(*) from {t}"),
                &[],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 200);
        let open = [1, 2, 3]
            .map(|n| proxy.metric("pgsplit_server_connections", &[&format!("node=\"pg{n}\"")]));
        assert!(open.iter().all(|open| *open <= 2.0), "{open:?}");
    });
}

#[test]
fn server_connections_ended_from_outside_are_not_handed_out_again() {
    run(async {
        let cluster = cluster();
        let database = "other";
        let proxy = Proxy::start(cluster, "[pool]\nmax_size = 5").await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(proxy.connect("textuser", database).await);
        }
        for _ in 0..3 {
            let busy = clients
                .iter()
                .map(|client| client.simple_query("/* pgsplit: primary */ select pg_sleep(0.1)"));
            futures_util::future::join_all(busy)
                .await
                .into_iter()
                .for_each(|r| drop(r.unwrap()));
            let reads = clients
                .iter()
                .map(|client| client.simple_query("select pg_sleep(0.1)"));
            futures_util::future::join_all(reads)
                .await
                .into_iter()
                .for_each(|r| drop(r.unwrap()));
            for node in 0..3 {
                let end = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = 'textuser' and datname = 'other'";
                cluster.psql(node, end).unwrap();
            }
            // Nothing had been sent on them: nobody may notice.
            for client in &clients {
                client
                    .simple_query("/* pgsplit: primary */ select 1")
                    .await
                    .unwrap();
                client.simple_query("select 1").await.unwrap();
            }
        }
    });
}

#[test]
fn a_server_connection_ended_in_a_transaction_is_reported_and_the_session_goes_on() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client.batch_execute("begin").await.unwrap();
        let row = client
            .query_one("select pg_backend_pid()", &[])
            .await
            .unwrap();
        let pid: i32 = row.get(0);
        cluster
            .psql(0, &format!("select pg_terminate_backend({pid}, 5000)"))
            .unwrap();
        let error = client.simple_query("select 1").await.unwrap_err();
        let state = sqlstate(&error);
        assert!(
            ["40001", "57P01", "08006"].contains(&state.as_str()),
            "{state}"
        );
        if client.is_closed() {
            return;
        }
        client.batch_execute("rollback").await.unwrap();
        client.simple_query("select 1").await.unwrap();
    });
}

#[test]
fn more_clients_than_allowed_are_told_so() {
    run(async {
        let proxy = Proxy::start(cluster(), "[listen]\nmax_clients = 3").await;
        let mut clients = Vec::new();
        let error = loop {
            match proxy.try_connect("app", "app", "app").await {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
            assert!(clients.len() <= 3, "more clients than max_clients");
        };
        assert_eq!(sqlstate(&error), "53300");
        drop(clients.pop());
        crate::support::eventually("a place is free again", async || {
            proxy.try_connect("app", "app", "app").await.is_ok()
        })
        .await;
    });
}

#[test]
fn idle_connections_are_closed() {
    run(async {
        let cluster = cluster();
        let settings = "[pool]\nidle_timeout = \"1s\"";
        let proxy = Proxy::start(cluster, settings).await;
        let client = proxy.connect("trusted", "other").await;
        client
            .simple_query("/* pgsplit: primary */ select 1")
            .await
            .unwrap();
        let count =
            "select count(*) from pg_stat_activity where usename = 'trusted' and datname = 'other'";
        assert_eq!(cluster.psql(0, count).unwrap(), "1");
        crate::support::eventually("the idle connection is closed", async || {
            cluster.psql(0, count).unwrap() == "0"
        })
        .await;
        client
            .simple_query("/* pgsplit: primary */ select 1")
            .await
            .unwrap();
    });
}

/// pgsplit's own idle connections keep nobody from dropping, renaming or copying a database.
#[test]
fn a_database_that_no_client_uses_can_be_dropped_renamed_and_copied() {
    run(async {
        let cluster = own_cluster(1);
        cluster.psql(0, "alter role app createdb").unwrap();
        let proxy = Proxy::start(&cluster, "[[database]]\nname = \"*\"").await;
        let app = proxy.connect("app", "app").await;
        let visit = async |database: &str| {
            let visitor = proxy.connect("app", database).await;
            for sql in ["select 1", "/* pgsplit: primary */ select 1"] {
                visitor.batch_execute(sql).await.unwrap();
            }
        };
        // One that a client uses is left alone, whoever asks for it.
        let elsewhere = proxy.connect("app", "other").await;
        let pid = async || {
            let sql = "/* pgsplit: primary */ select pg_backend_pid()";
            app.query_one(sql, &[]).await.unwrap().get::<_, i32>(0)
        };
        let before = pid().await;
        let drop = elsewhere.batch_execute("drop database app").await;
        assert_eq!(sqlstate(&drop.unwrap_err()), "55006");
        assert_eq!(pid().await, before);
        visit("template1").await;
        app.batch_execute("create database one").await.unwrap();
        visit("one").await;
        app.batch_execute("create database two template one")
            .await
            .unwrap();
        visit("one").await;
        app.batch_execute("alter database one rename to three")
            .await
            .unwrap();
        for database in ["two", "three"] {
            visit(database).await;
            let drop = format!("drop database {database}");
            app.batch_execute(&drop).await.unwrap();
        }
    });
}
