//! Drivers and PostgreSQL's own tools, at their defaults.

use std::{path::Path, process::Command};

use crate::support::{
    Proxy, cluster, drivers, own_cluster, program, run, succeed, succeed_in_two, unique,
};

/// Runs a driver's script and checks that its reads ran on replicas. The script says `ready` when
/// it has made its table, and reads once it is told that the proxy knows the table.
async fn drive(make: impl Fn(&Proxy) -> Command, settings: &str) {
    let cluster = cluster();
    let proxy = Proxy::start(cluster, settings).await;
    let (table, mark) = (unique("t"), unique("mark"));
    let mut command = make(&proxy);
    command.args([&table, &mark]);
    succeed_in_two(&command, proxy.wait_for_table(cluster, &table)).await;
    let ran = cluster.ran_on(&mark).unwrap();
    let on_replicas = ran.iter().filter(|node| **node != 0).count();
    // Right after a write the primary may serve some of them: replicas haven't replayed it yet.
    assert!(on_replicas > 0, "reads ran on {ran:?}");
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/drivers")
        .join(name)
}

fn python(name: &'static str) -> impl Fn(&Proxy) -> Command {
    move |proxy| {
        let mut command = Command::new(drivers().join("venv/bin/python"));
        command.arg(script(name)).arg(proxy.url());
        command
    }
}

fn node(proxy: &Proxy) -> Command {
    let mut command = Command::new("node");
    command
        .arg(script("node_defaults.js"))
        .arg(proxy.url())
        .env("NODE_PATH", drivers().join("node/node_modules"));
    command
}

fn prisma(proxy: &Proxy) -> Command {
    let mut command = Command::new("node");
    command
        .arg(drivers().join("prisma/defaults.js"))
        .arg(proxy.url());
    command
}

fn jdbc(proxy: &Proxy) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-cp", "/usr/share/java/postgresql.jar"])
        .arg(script("JdbcDefaults.java"))
        .arg(format!("127.0.0.1:{}/app", proxy.port));
    command
}

fn sqlx(proxy: &Proxy) -> Command {
    let mut command = Command::new(drivers().join("sqlx/debug/sqlx-defaults"));
    command.arg(proxy.url());
    command
}

/// Two server connections for each node: sessions can't have one of their own.
const FEW: &str = "[pool]\nmax_size = 2";

#[test]
fn psycopg() {
    run(drive(python("psycopg_defaults.py"), ""));
}

#[test]
fn psycopg_over_few_connections() {
    run(drive(python("psycopg_defaults.py"), FEW));
}

#[test]
fn asyncpg() {
    run(drive(python("asyncpg_defaults.py"), ""));
}

#[test]
fn asyncpg_over_few_connections() {
    run(drive(python("asyncpg_defaults.py"), FEW));
}

#[test]
fn sqlalchemy() {
    run(drive(python("sqlalchemy_defaults.py"), ""));
}

#[test]
fn django() {
    run(drive(python("django_defaults.py"), ""));
}

/// Frameworks that open a transaction around everything.
#[test]
fn transactions_of_frameworks_that_begin_on_replicas() {
    run(async {
        let optimistic = "[routing]\ntransactions = \"optimistic\"";
        drive(python("django_defaults.py"), optimistic).await;
        drive(python("sqlalchemy_defaults.py"), optimistic).await;
        drive(jdbc, optimistic).await;
    });
}

#[test]
fn node_postgres() {
    run(drive(node, ""));
}

#[test]
fn node_postgres_over_few_connections() {
    run(drive(node, FEW));
}

#[test]
fn prisma_through_its_adapter() {
    run(drive(prisma, ""));
}

#[test]
fn sqlx_pool() {
    run(drive(sqlx, ""));
}

#[test]
fn sqlx_over_few_connections() {
    run(drive(sqlx, FEW));
}

#[test]
fn pgjdbc() {
    run(drive(jdbc, ""));
}

#[test]
fn pgjdbc_in_session_mode() {
    run(drive(jdbc, "[pool]\nmode = \"session\""));
}

#[test]
fn pgbench_in_every_protocol() {
    run(async {
        let cluster = own_cluster(2);
        let proxy = Proxy::start(&cluster, "[pool]\nmax_size = 5").await;
        let pgbench = async |arguments: &[&str]| {
            let mut command = program(&cluster, "pgbench");
            command
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &proxy.port.to_string(),
                    "-U",
                    "app",
                ])
                .env("PGPASSWORD", "app")
                .args(arguments)
                .arg("app");
            let text = tokio::task::spawn_blocking(move || succeed(&mut command))
                .await
                .unwrap();
            assert!(
                !text.contains("failed transactions: ") || text.contains("failed transactions: 0 "),
                "{text}"
            );
        };
        pgbench(&["-i", "-s", "1", "-q"]).await;
        // A thread per client: pgbench waits for each Parse, and would keep the others of its thread from
        // ending the transactions that hold the connections it waits for.
        let load = ["-c", "10", "-j", "10", "-t", "60", "-n"];
        for protocol in ["simple", "extended", "prepared"] {
            for script in ["tpcb-like", "simple-update", "select-only"] {
                pgbench(&[&["-M", protocol, "-b", script], &load[..]].concat()).await;
            }
        }
        // A connection for each transaction.
        pgbench(&["-S", "-C", "-c", "4", "-t", "10", "-n"]).await;
        // Every transaction arrived once.
        let sums = cluster
            .psql(0, "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), count(*) from pgbench_history")
            .unwrap();
        assert_eq!(sums, "t|3600");
        let replica_reads: usize = (1..3)
            .map(|i| {
                cluster
                    .statements(i, "SELECT abalance FROM pgbench_accounts")
                    .unwrap()
                    .len()
            })
            .sum();
        assert!(replica_reads > 1000, "{replica_reads} reads on replicas");
    });
}

#[test]
fn psql_describes_and_dumps_and_restores() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let t = unique("t");
        let tool = |name: &str, arguments: &[&str]| {
            let mut command = program(cluster, name);
            command.args(arguments).arg(proxy.url());
            command
        };
        let sql = format!(
            "create table {t} (id serial primary key, a text); insert into {t} (a) select 'é' || i from generate_series(1, 100) i; \
             create view {t}view as select * from {t}"
        );
        succeed(&mut tool("psql", &["-Xqc", &sql]));
        for command in [
            "\\d",
            "\\dt+",
            "\\df",
            "\\du",
            "\\l",
            "\\dn+",
            "\\conninfo",
            "\\dconfig",
            &format!("\\d+ {t}"),
        ] {
            let said = succeed(&mut tool("psql", &["-Xc", command]));
            assert!(!said.is_empty(), "{command}");
        }
        // Answers are those of a direct connection.
        let direct = format!(
            "postgresql://app:app@127.0.0.1:{}/app",
            cluster.nodes()[0].port
        );
        let dump = |url: &str| {
            let mut command = program(cluster, "pg_dump");
            command.args(["-t", &t, "-t", &format!("{t}view"), url]);
            let text = succeed(&mut command);
            // Each run makes up a word of its own for \restrict.
            let lines = text.lines().filter(|line| !line.contains("restrict"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let dumped = dump(&proxy.url());
        assert_eq!(dumped, dump(&direct));
        let file = proxy.dir.path().join("dump.sql");
        std::fs::write(&file, dumped).unwrap();
        succeed(&mut tool(
            "psql",
            &["-Xqc", &format!("drop table {t} cascade")],
        ));
        succeed(&mut tool(
            "psql",
            &["-Xq", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()],
        ));
        let count = succeed(&mut tool(
            "psql",
            &["-XAtc", &format!("select count(*) from {t}")],
        ));
        assert_eq!(count.trim(), "100");
        let error = tool("psql", &["-XAtc", "select 1 +"]).output().unwrap();
        assert!(String::from_utf8_lossy(&error.stderr).contains("LINE 1"));
    });
}

#[test]
fn pg_isready_and_libpq_pipelines_of_pgbench() {
    run(async {
        let cluster = cluster();
        let proxy = Proxy::start(cluster, "").await;
        let mut ready = program(cluster, "pg_isready");
        ready.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string()]);
        succeed(&mut ready);
        let file = proxy.dir.path().join("pipeline.sql");
        std::fs::write(
            &file,
            "\\startpipeline\nselect 1;\nbegin;\nselect 2;\ncommit;\nselect :client_id;\n\\endpipeline\n",
        )
        .unwrap();
        for protocol in ["extended", "prepared"] {
            let mut command = program(cluster, "pgbench");
            command
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &proxy.port.to_string(),
                    "-U",
                    "app",
                    "-n",
                ])
                .args(["-M", protocol, "-c", "4", "-t", "50", "-f"])
                .arg(&file)
                .arg("app")
                .env("PGPASSWORD", "app");
            let text = tokio::task::spawn_blocking(move || succeed(&mut command))
                .await
                .unwrap();
            assert!(text.contains("processed: 200/200"), "{text}");
        }
    });
}
