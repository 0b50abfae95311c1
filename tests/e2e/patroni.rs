//! Nodes that Patroni lists: found, followed through a switchover and a failover of Patroni's own, and
//! joined by another.

use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::support::{Guarded, Proxy, drivers, eventually, free_port, pgsplit, run, sqlstate};

/// A Patroni cluster over an etcd of its own.
struct Patroni {
    dir: TempDir,
    etcd_port: u16,
    members: Vec<Member>,
    _etcd: Guarded,
}

struct Member {
    name: String,
    api: u16,
    port: u16,
    data: PathBuf,
    _process: Guarded,
}

/// A program as a user who isn't root: PostgreSQL wants that.
fn unprivileged(program: &Path) -> Command {
    let id = |what| {
        let output = Command::new("id")
            .args([what, "postgres"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let own = Command::new("id").arg("-u").output().unwrap();
    if own.stdout != b"0\n" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id("-u"), "--regid", &id("-g"), "--clear-groups"])
        .arg(program)
        .env_remove("HOME");
    command
}

/// One request of a member's REST API; its status and body.
fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

impl Patroni {
    fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("patroni")
            .tempdir()
            .unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let (client, peer) = (free_port().unwrap(), free_port().unwrap());
        let extracted = drivers().join("etcd/usr/bin/etcd");
        let etcd = if extracted.exists() {
            extracted
        } else {
            "etcd".into()
        };
        let url = |port| format!("http://127.0.0.1:{port}");
        let mut command = unprivileged(&etcd);
        command
            .arg("--data-dir")
            .arg(dir.path().join("etcd"))
            .args(["--name", "one", "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &url(client)])
            .args(["--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer)])
            .args(["--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("one={}", url(peer))]);
        Self {
            etcd_port: client,
            members: Vec::new(),
            _etcd: Guarded::start(&command, &dir.path().join("etcd.log")),
            dir,
        }
    }

    fn add(&mut self) {
        let name = format!("pg{}", self.members.len() + 1);
        let (api, port) = (free_port().unwrap(), free_port().unwrap());
        let dir = self.dir.path();
        let data = dir.join(&name);
        let bin = crate::support::cluster().bin();
        let config = json!({
            "scope": "demo",
            "name": name,
            "restapi": {
                "listen": format!("127.0.0.1:{api}"),
                "connect_address": format!("127.0.0.1:{api}"),
            },
            "etcd3": {"host": format!("127.0.0.1:{}", self.etcd_port)},
            "bootstrap": {
                "dcs": {
                    "ttl": 20, "loop_wait": 1, "retry_timeout": 3,
                    // A primary that crashed isn't waited for.
                    "primary_start_timeout": 0,
                    "postgresql": {"use_pg_rewind": false},
                },
                "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"],
                "pg_hba": [
                    "host replication all 127.0.0.1/32 trust",
                    "host all postgres 127.0.0.1/32 trust",
                    "local all all trust",
                    "host all all 127.0.0.1/32 scram-sha-256",
                ],
            },
            "postgresql": {
                "listen": format!("127.0.0.1:{port}"),
                "connect_address": format!("127.0.0.1:{port}"),
                "data_dir": data,
                "bin_dir": bin,
                "pgpass": dir.join(format!("{name}.pgpass")),
                "basebackup": [{"checkpoint": "fast"}],
                "remove_data_directory_on_diverged_timelines": true,
                "authentication": {
                    "superuser": {"username": "postgres", "password": "x"},
                    "replication": {"username": "replicator", "password": "x"},
                },
                "parameters": {"unix_socket_directories": dir, "fsync": "off"},
            },
        });
        // YAML includes JSON.
        let file = dir.join(format!("{name}.yml"));
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = unprivileged(&drivers().join("patroni/bin/patroni"));
        command.arg(&file);
        let process = Guarded::start(&command, &dir.join(format!("{name}.log")));
        self.members.push(Member {
            name,
            api,
            port,
            data,
            _process: process,
        });
    }

    /// What the first member that answers says of the cluster.
    fn members(&self) -> Vec<Value> {
        let answer = self
            .members
            .iter()
            .find_map(|member| ask(member.api, "GET", "/cluster", ""));
        let body = answer
            .filter(|(status, _)| *status == 200)
            .map(|(_, body)| body);
        let cluster: Value = body
            .and_then(|body| serde_json::from_str(&body).ok())
            .unwrap_or_default();
        cluster["members"].as_array().cloned().unwrap_or_default()
    }

    fn leader(&self) -> Option<&Member> {
        let members = self.members();
        let leader = members
            .iter()
            .find(|member| member["role"] == "leader" && member["state"] == "running")?;
        let name = leader["name"].as_str()?;
        self.members.iter().find(|member| member.name == name)
    }

    async fn wait_for_streaming(&self, replicas: usize) {
        eventually("Patroni's replicas stream", async || {
            let streaming = |member: &&Value| member["state"] == "streaming";
            let found = self.members().iter().filter(streaming).count();
            found == replicas && self.leader().is_some()
        })
        .await;
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // Patroni ends before what it would start again.
        for member in self.members.drain(..) {
            let Member { data, _process, .. } = member;
            drop(_process);
            kill_postmaster(&data);
        }
    }
}

/// Ends a server at once, with every backend: one that outlived its postmaster might still carry out
/// and acknowledge a write that no replica would get.
fn kill_postmaster(data: &Path) {
    let Ok(file) = std::fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    if let Some(pid) = file.lines().next() {
        // Stopped, it starts no further child meanwhile.
        let script = format!(
            "kill -STOP {pid}; kill -KILL {pid} \
             $(cat /proc/[0-9]*/stat 2>/dev/null | awk '$4 == {pid} {{print $1}}')"
        );
        let _ended = Command::new("sh").args(["-c", &script]).output();
    }
}

#[test]
fn patronis_members_are_the_nodes_and_its_changes_are_followed() {
    run(async {
        let mut patroni = Patroni::start();
        patroni.add();
        eventually("Patroni has a leader", async || patroni.leader().is_some()).await;
        patroni.add();
        patroni.wait_for_streaming(1).await;
        let leader = patroni.leader().unwrap();
        let direct = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            leader.port
        );
        let (client, connection) = tokio_postgres::connect(&direct, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        for sql in [
            "create role app login password 'app'",
            "grant pg_monitor to app",
            "create database app owner app",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        drop(client);
        connection.await.unwrap().unwrap();

        // No node is configured: one member is asked who they are.
        let dir = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port().unwrap(), free_port().unwrap());
        let file = dir.path().join("pgsplit.toml");
        let config = format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n[admin]\naddress = \"127.0.0.1:{admin}\"\n\
             [failover]\ndiscovery = \"patroni\"\ndiscovery_interval = \"200ms\"\n\
             patroni = [\"http://127.0.0.1:{}\"]\n\
             [[database]]\nname = \"app\"\n[[user]]\nname = \"app\"\npassword = \"app\"\n",
            patroni.members[0].api
        );
        std::fs::write(&file, config).unwrap();
        let mut command = pgsplit();
        command.arg("serve").arg("--config").arg(&file);
        let process = Guarded::start(&command, &dir.path().join("log"));
        let proxy = Proxy {
            port,
            admin,
            process: Some(process),
            dir,
        };
        proxy.wait_for_nodes(2).await;
        let writer = proxy.connect("app", "app").await;
        writer
            .batch_execute("create table written (n int primary key)")
            .await
            .unwrap();
        patroni.add();
        proxy.wait_for_nodes(3).await;
        let rows = proxy.console("show nodes").await;
        let mut names: Vec<&str> = rows.iter().map(|row| row.get("name").unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["pg1", "pg2", "pg3"]);
        let events = proxy.console("show events").await;
        let joined = events
            .iter()
            .filter(|row| row.get("kind") == Some("joined"))
            .map(|row| row.get("cause").unwrap());
        assert_eq!(joined.collect::<Vec<_>>(), ["discovery"; 3]);

        // One session writes on, whoever is the leader.
        let acknowledged = RefCell::new(Vec::new());
        let next = Cell::new(0);
        let write = async |count: usize| {
            let goal = acknowledged.borrow().len() + count;
            while acknowledged.borrow().len() < goal {
                next.set(next.get() + 1);
                let sql = format!("insert into written values ({})", next.get());
                match writer.simple_query(&sql).await {
                    Ok(_) => acknowledged.borrow_mut().push(next.get()),
                    // Cut off by the end of a primary, or told that it ended.
                    Err(error) => {
                        let state = sqlstate(&error);
                        let known = ["08007", "40001", "57P01"];
                        assert!(known.contains(&&*state), "{error:?}");
                    }
                }
            }
        };
        write(20).await;
        patroni.wait_for_streaming(2).await;
        let (from, to) = {
            let leader = patroni.leader().unwrap().name.clone();
            let other = ["pg1", "pg2"]
                .into_iter()
                .find(|name| *name != leader)
                .unwrap();
            (leader, other)
        };
        let order = json!({"leader": from, "candidate": to}).to_string();
        let api = patroni.members[0].api;
        let ordered = tokio::task::spawn_blocking(move || ask(api, "POST", "/switchover", &order));
        while !ordered.is_finished() {
            write(1).await;
        }
        let (status, said) = ordered.await.unwrap().unwrap();
        assert_eq!(status, 200, "{said}");
        write(20).await;
        eventually("the new leader is the primary", async || {
            let rows = proxy.console("show nodes").await;
            rows.iter()
                .any(|row| row.get("name") == Some(to) && row.get("role") == Some("primary"))
        })
        .await;

        patroni.wait_for_streaming(2).await;
        let lost = patroni.leader().unwrap();
        // Nothing that was acknowledged is to be lost by the cluster itself.
        let replicas = patroni
            .members
            .iter()
            .filter(|member| member.name != lost.name);
        for replica in replicas {
            let there = format!(
                "host=127.0.0.1 port={} user=app password=app dbname=app",
                replica.port
            );
            let (client, connection) = tokio_postgres::connect(&there, NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let written: Vec<i32> = acknowledged.borrow().clone();
            eventually("a replica has replayed all", async || {
                let count = "select count(*) from written where n = any($1)";
                let row = client.query_one(count, &[&written]).await.unwrap();
                row.get::<_, i64>(0) == written.len() as i64
            })
            .await;
            drop(client);
            connection.await.unwrap().unwrap();
        }
        kill_postmaster(&lost.data);
        write(20).await;
        let lost = lost.name.clone();
        eventually("another is the primary", async || {
            let rows = proxy.console("show nodes").await;
            rows.iter()
                .any(|row| row.get("name") != Some(&lost) && row.get("role") == Some("primary"))
        })
        .await;
        let rows = writer.query("select n from written", &[]).await.unwrap();
        let there: std::collections::HashSet<i32> = rows.iter().map(|row| row.get(0)).collect();
        let acknowledged = acknowledged.into_inner();
        let missing: Vec<_> = acknowledged.iter().filter(|n| !there.contains(n)).collect();
        assert!(
            missing.is_empty(),
            "acknowledged and not there: {missing:?}"
        );
    });
}
