//! What operators touch: commands and their exit codes, mistakes in the configuration, the
//! console, HTTP.

use std::process::{Command, Output};

use crate::support::{
    Cluster, Proxy, cluster, free_port, own_cluster, pgsplit, program, run, succeed,
};

fn serve(config: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pgsplit.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(pgsplit().get_program())
        .args(["serve", "--config"])
        .arg(&file);
    let Output { status, stderr, .. } = command.output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

#[test]
fn mistakes_in_the_configuration_stop_the_start_and_say_where_they_are() {
    let good = "[[node]]\nname = \"pg1\"\nhost = \"127.0.0.1\"\n\
        [[database]]\nname = \"app\"\n[[user]]\nname = \"app\"\npassword = \"app\"\n";
    // Line 9 is the first of what is appended.
    let cases: &[(&str, &[&str])] = &[
        ("[pool]\nmax_sice = 3", &["max_sice", "max_size", "10"]),
        ("[rooting]\nmode = \"split\"", &["rooting", "routing", "9"]),
        ("[pool]\nmax_size = \"many\"", &["max_size", "10"]),
        (
            "[pool]\nmode = \"transactions\"",
            &["transactions", "transaction", "10"],
        ),
        (
            "[monitor]\ninterval = \"250 lightyears\"",
            &["interval", "10"],
        ),
        (
            "[routing]\nmax_lag_bytes = \"64MiC\"",
            &["max_lag_bytes", "10"],
        ),
        ("[listen]\naddress = \"nonsense\"", &["address", "10"]),
        (
            "[listen]\naddress = \"127.0.0.1:6432\"\naddress = \"127.0.0.1:6433\"",
            &["address"],
        ),
        ("[pool", &["9"]),
        ("[[node]]\nname = \"pg1\"\nhost = \"127.0.0.2\"", &["pg1"]),
        (
            "[listen.tls]\nmode = \"require\"\ncert = \"/nonexistent/c\"\nkey = \"/nonexistent/k\"",
            &["/nonexistent/"],
        ),
        (
            "[listen.tls]\ncert = \"/etc/passwd\"\nkey = \"/etc/passwd\"",
            &["[listen.tls]", "/etc/passwd", "no certificate"],
        ),
        (
            "[[user]]\nname = \"two\"\npassword = \"${THERE_IS_NO_SUCH_VARIABLE}\"",
            &["THERE_IS_NO_SUCH_VARIABLE"],
        ),
    ];
    for (mistake, expected) in cases {
        let (code, said) = serve(&format!("{good}{mistake}\n"));
        assert_eq!(code, 2, "{mistake}: {said}");
        assert!(said.contains("pgsplit.toml"), "{mistake}: {said}");
        for part in *expected {
            assert!(said.contains(part), "{mistake}: no {part} in {said}");
        }
    }
    let (code, _) = serve("");
    assert_eq!(code, 2, "nothing configured");
}

#[test]
fn usage_mistakes_end_with_2() {
    for arguments in [
        &["serve", "--config", "/nonexistent/pgsplit.toml"][..],
        &["serve", "--no-such-flag"],
        &["no-such-command"],
        &["explain"],
    ] {
        let output = pgsplit().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert!(pgsplit().args(arguments).output().unwrap().status.success());
    }
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = serve(&format!(
        "[listen]\naddress = \"{address}\"\n[admin]\naddress = \"127.0.0.1:{}\"\n\
         [[node]]\nname = \"pg1\"\nhost = \"127.0.0.1\"\n\
         [[database]]\nname = \"app\"\n[[user]]\nname = \"app\"\npassword = \"app\"\n",
        free_port().unwrap()
    ));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn flags_and_variables_do_without_a_file() {
    run(async {
        let cluster = cluster();
        let (port, admin) = (free_port().unwrap(), free_port().unwrap());
        let node = |i: usize| {
            format!(
                "postgres://app:app@127.0.0.1:{}/app",
                cluster.nodes()[i].port
            )
        };
        let mut flags = pgsplit();
        flags.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        flags.env("PGSPLIT_ADMIN", format!("127.0.0.1:{admin}"));
        for i in 0..3 {
            flags.args(["--node", &node(i)]);
        }
        let mut variables = pgsplit();
        variables
            .arg("serve")
            .env("PGSPLIT_LISTEN", format!("127.0.0.1:{port}"))
            .env("PGSPLIT_ADMIN", format!("127.0.0.1:{admin}"))
            .env("PGSPLIT_NODES", [node(0), node(1), node(2)].join(","));
        for command in [flags, variables] {
            let dir = tempfile::tempdir().unwrap();
            let process = crate::support::Guarded::start(&command, &dir.path().join("log"));
            let proxy = Proxy {
                port,
                admin,
                process: Some(process),
                dir,
            };
            crate::support::eventually("a client is served", async || {
                proxy.try_connect("app", "app", "app").await.is_ok()
            })
            .await;
            proxy.wait_for_splitting(cluster, "app").await;
        }
    });
}

#[test]
fn the_console_answers_as_pgbouncers_tools_expect() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for database in ["pgsplit", "pgbouncer"] {
            let client = proxy.connect("app", database).await;
            for show in [
                "nodes",
                "pools",
                "clients",
                "servers",
                "stats",
                "version",
                "config",
                "databases",
                "lists",
                "help",
            ] {
                client
                    .simple_query(&format!("SHOW {show}"))
                    .await
                    .unwrap_or_else(|e| panic!("SHOW {show}: {e:?}"));
            }
            client.simple_query("EXPLAIN ROUTE select 1").await.unwrap();
            client.simple_query("select 1").await.unwrap_err();
            client.simple_query("SHOW nonsense").await.unwrap_err();
            client.simple_query("SHOW VERSION").await.unwrap();
        }
        assert!(
            proxy
                .try_connect("md5user", "md5user", "pgsplit")
                .await
                .is_err()
        );
        let nodes = psql(cluster(), &proxy, "SHOW NODES");
        for node in ["pg1", "pg2", "pg3"] {
            assert!(nodes.contains(node), "{nodes}");
        }
        let pools = psql(cluster(), &proxy, "SHOW POOLS");
        assert!(
            pools.starts_with("database|user|cl_active|cl_waiting|"),
            "{pools}"
        );
        let route = psql(cluster(), &proxy, "EXPLAIN ROUTE delete from pg_class");
        assert!(
            route.contains("primary") && route.contains("write"),
            "{route}"
        );
    });
}

#[test]
fn http_says_how_things_are() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let client = proxy.connect("app", "app").await;
        client
            .batch_execute("create table t (a int)")
            .await
            .unwrap();
        client.simple_query("select 1").await.unwrap();
        for path in ["/metrics", "/healthz", "/readyz", "/"] {
            let answer = proxy.get(path).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        assert!(proxy.get("/nowhere").unwrap().starts_with("HTTP/1.1 404"));
        for metric in [
            "pgsplit_client_connections",
            "pgsplit_server_connections",
            "pgsplit_queries_total",
            "pgsplit_node_up",
            "pgsplit_replica_lag_seconds",
            "pgsplit_replica_lag_bytes",
            "pgsplit_query_duration_seconds",
            "pgsplit_pool_wait_seconds",
        ] {
            assert!(proxy.get("/metrics").unwrap().contains(metric), "{metric}");
        }
        let mut status = pgsplit();
        status
            .args(["status", "--config"])
            .arg(proxy.dir.path().join("pgsplit.toml"));
        let status = succeed(&mut status);
        assert!(
            status.contains("pg1") && status.contains("pg2") && status.contains("primary"),
            "{status}"
        );
        // Not ready with no node, but alive.
        cluster.stop(0, crate::support::Stop::Kill).unwrap();
        cluster.stop(1, crate::support::Stop::Kill).unwrap();
        crate::support::eventually("not ready", async || {
            proxy.get("/readyz").unwrap().starts_with("HTTP/1.1 503")
        })
        .await;
        assert!(proxy.get("/healthz").unwrap().starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_log_has_no_line_per_query_and_names_no_password() {
    run(async {
        let proxy = Proxy::start(cluster(), "[log]\nformat = \"json\"").await;
        let client = proxy.connect("app", "app").await;
        let lines = proxy.log().lines().count();
        for _ in 0..100 {
            client.simple_query("select 1").await.unwrap();
        }
        assert!(proxy.log().lines().count() < lines + 10);
        assert!(!proxy.log().contains("textuser\"}"), "{}", proxy.log());
        for line in proxy.log().lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    });
}

#[test]
fn sigterm_lets_a_running_transaction_finish() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let Some(process) = &proxy.process else {
            return;
        };
        let mut client = proxy.connect("app", "app").await;
        let t = crate::support::unique("t");
        let transaction = client.transaction().await.unwrap();
        transaction
            .batch_execute(&format!("create table {t} (a int)"))
            .await
            .unwrap();
        process.signal("TERM");
        crate::support::eventually("no new clients are taken", async || {
            proxy.try_connect("app", "app", "app").await.is_err()
        })
        .await;
        transaction.commit().await.unwrap();
        drop(client);
        crate::support::eventually("the process ends", async || !process.alive()).await;
        assert_eq!(
            cluster()
                .psql(0, &format!("select count(*) from {t}"))
                .unwrap(),
            "0"
        );
    });
}

fn psql(cluster: &Cluster, proxy: &Proxy, sql: &str) -> String {
    let mut psql = program(cluster, "psql");
    psql.args(["-XA", "-c", sql]).arg(format!(
        "postgresql://app:app@127.0.0.1:{}/pgsplit",
        proxy.port
    ));
    succeed(&mut psql)
}
