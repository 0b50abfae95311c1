//! The built proxy before a cluster.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use tempfile::TempDir;
use toml::{Table, Value};

use super::{Cluster, Guarded, eventually, free_port, pgsplit, unique};

/// With `PGSPLIT_TEST_DIRECT` set, clients are connected to the primary itself: so a test of what
/// must be as without a proxy is checked for saying what PostgreSQL says.
fn direct() -> bool {
    std::env::var_os("PGSPLIT_TEST_DIRECT").is_some()
}

/// A running `pgsplit serve`. Dropping it ends it and fails the test if it panicked.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) process: Option<Guarded>,
    pub(crate) dir: TempDir,
}

impl Proxy {
    /// Starts the proxy before all nodes of `cluster` and waits until it splits. `settings` is
    /// TOML that is laid over [`base`]'s.
    pub(crate) async fn start(cluster: &Cluster, settings: &str) -> Self {
        let proxy = Self::launch(cluster, settings).await;
        if !direct() {
            proxy.wait_for_splitting(cluster, "app").await;
        }
        proxy
    }

    /// Starts the proxy and waits until it is ready and sees all nodes.
    pub(crate) async fn launch(cluster: &Cluster, settings: &str) -> Self {
        let proxy = Self::spawn(cluster, settings);
        if direct() {
            return proxy;
        }
        eventually("the proxy is ready", || async {
            let alive = proxy.process.as_ref().unwrap().alive();
            assert!(alive, "the proxy ended");
            proxy
                .get("/readyz")
                .is_some_and(|answer| answer.contains(" 200 "))
        })
        .await;
        proxy.wait_for_nodes(cluster.nodes().len()).await;
        proxy
    }

    /// Starts the proxy and waits for nothing.
    pub(crate) fn spawn(cluster: &Cluster, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port().unwrap(), free_port().unwrap());
        if direct() {
            return Self {
                port: cluster.nodes()[cluster.primary()].port,
                admin,
                process: None,
                dir,
            };
        }
        let mut config = base(cluster, port, admin);
        lay_over(&mut config, settings.parse().unwrap());
        let file = dir.path().join("pgsplit.toml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = pgsplit();
        command.arg("serve").arg("--config").arg(&file);
        Self {
            port,
            admin,
            process: Some(Guarded::start(&command, &dir.path().join("log"))),
            dir,
        }
    }

    /// Waits until `count` nodes are up.
    pub(crate) async fn wait_for_nodes(&self, count: usize) {
        if !direct() {
            eventually(&format!("{count} nodes are up"), || async {
                self.nodes_up() == count
            })
            .await;
        }
    }

    /// Waits until the catalogue of `database` is known and a plain read is served by a replica.
    pub(crate) async fn wait_for_splitting(&self, cluster: &Cluster, database: &str) {
        self.wait_for_route(database, "select 1 + 1").await;
        let client = self.connect("app", database).await;
        eventually("reads go to a replica", || async {
            let mark = unique("warm");
            client
                .simple_query(&format!("select 1 /* {mark} */"))
                .await
                .unwrap();
            cluster.ran_on(&mark).unwrap() != [cluster.primary()]
        })
        .await;
    }

    /// Waits until replicas have `table` of the database `app` and the proxy knows it: a table made
    /// a moment ago is unknown until the catalogue has been read again, and is read on the primary
    /// meanwhile.
    pub(crate) async fn wait_for_table(&self, cluster: &Cluster, table: &str) {
        for replica in cluster.replicas() {
            cluster.wait_for_replay(replica).unwrap();
        }
        self.wait_for_route("app", &format!("select from {table}"))
            .await;
    }

    /// Waits until a session that has seen nothing yet would run `sql` on a replica.
    pub(crate) async fn wait_for_route(&self, database: &str, sql: &str) {
        if !direct() {
            eventually(&format!("{sql} is for replicas"), || async {
                self.explain(database, sql)
                    .is_some_and(|answer| answer["route"] == "replica")
            })
            .await;
        }
    }

    /// Waits until a read of this session runs on a replica: where something of it ran on the
    /// primary, that is once a replica is known to have caught up with it.
    pub(crate) async fn wait_for_replica(
        &self,
        cluster: &Cluster,
        client: &tokio_postgres::Client,
    ) {
        eventually("the session reads on a replica", || async {
            let mark = unique("seen");
            client
                .simple_query(&format!("select 1 /* {mark} */"))
                .await
                .unwrap();
            direct() || !cluster.ran_on(&mark).unwrap().contains(&cluster.primary())
        })
        .await;
    }

    /// A client. Its password is its name.
    pub(crate) async fn connect(&self, user: &str, database: &str) -> tokio_postgres::Client {
        self.try_connect(user, user, database).await.unwrap()
    }

    /// A client, or why not.
    pub(crate) async fn try_connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = self.config(user, database);
        config.password(password);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What to connect with.
    pub(crate) fn config(&self, user: &str, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .password(user)
            .dbname(database)
            .connect_timeout(Duration::from_secs(20));
        config
    }

    /// As drivers take it.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://app:app@127.0.0.1:{}/app", self.port)
    }

    /// What the admin listener answers: status line, headers and body. `None`: it doesn't.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    /// What the admin listener says about a statement. `None`: nothing.
    pub(crate) fn explain(&self, database: &str, sql: &str) -> Option<serde_json::Value> {
        let question = serde_json::json!({ "database": database, "sql": sql }).to_string();
        let answer = self.ask(&format!(
            "POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{question}",
            question.len()
        ))?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn ask(&self, request: &str) -> Option<String> {
        let address = ([127, 0, 0, 1], self.admin).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The sum of a metric's samples whose labels contain each of `labels` (`node="pg1"`).
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.samples(name)
            .iter()
            .filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Writes the configuration anew, with `settings` laid over the usual one, and has it read.
    pub(crate) async fn reconfigure(&self, cluster: &Cluster, settings: &str) {
        let mut config = base(cluster, self.port, self.admin);
        lay_over(&mut config, settings.parse().unwrap());
        let file = self.dir.path().join("pgsplit.toml");
        std::fs::write(&file, config.to_string()).unwrap();
        self.console("reload").await;
    }

    /// Runs a command at the console: the rows that it gives.
    pub(crate) async fn console(&self, command: &str) -> Vec<tokio_postgres::SimpleQueryRow> {
        let client = self.connect("app", "pgsplit").await;
        let messages = client.simple_query(command).await;
        let messages = messages.unwrap_or_else(|error| panic!("{command}: {error:?}"));
        let rows = messages.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.collect()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn nodes_up(&self) -> usize {
        self.samples("pgsplit_node_up")
            .iter()
            .filter(|(_, value)| *value == 1.0)
            .count()
    }

    fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let metrics = self.get("/metrics").unwrap_or_default();
        metrics
            .lines()
            .filter_map(|line| {
                let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
                let whole = labels.is_empty() || labels.starts_with('{');
                Some((labels.to_owned(), value.parse().ok()?)).filter(|_| whole)
            })
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.process.take());
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(40);
            println!("the proxy's log ends with:\n{}", lines[from..].join("\n"));
        } else {
            assert!(!log.contains("panicked at"), "the proxy panicked:\n{log}");
        }
    }
}

/// Probes are frequent here so that tests are quick, and patient, as the machine may be busy.
fn base(cluster: &Cluster, port: u16, admin: u16) -> Table {
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\nworkers = 2\n\
         [admin]\naddress = \"127.0.0.1:{admin}\"\nconsole_users = [\"app\"]\n\
         [monitor]\ninterval = \"50ms\"\ntimeout = \"3s\"\nup_after = 2\n\
         [[database]]\nname = \"app\"\n[[database]]\nname = \"other\"\n"
    );
    for user in ["app", "md5user", "textuser", "trusted"] {
        text.push_str(&format!(
            "[[user]]\nname = \"{user}\"\npassword = \"{user}\"\n"
        ));
    }
    for node in cluster.nodes() {
        text.push_str(&format!(
            "[[node]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n",
            node.name, node.port
        ));
    }
    text.parse().unwrap()
}

/// Tables are merged, anything else is replaced.
fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
