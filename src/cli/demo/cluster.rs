//! A primary and streaming replicas of one's own, in a temporary directory: what `pgsplit demo`
//! shows, what the tests torture.
//!
//! Everything listens on 127.0.0.1 and on a Unix socket inside the directory. Each server logs
//! every statement with its text, which is how [`Cluster::ran_on`] tells where one ran.
//!
//! Invariant: no server outlives the process that started it, however it ends. A shell that reads
//! a pipe from us (`watchdog.sh`) owns the directory; when the pipe closes, it stops the servers
//! and removes the directory. Dropping a [`Cluster`] closes that pipe and waits.
//!
//! Nothing here is durable (`fsync = off`): this is for trying out and testing only.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::server::{Failure, Programs, finished, free_port, run};

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub replicas: usize,
    /// Where PostgreSQL's programs are; looked for when not given.
    pub bin: Option<PathBuf>,
    /// Lines of `postgresql.conf`, after (and so stronger than) our own.
    pub settings: Vec<(String, String)>,
}

/// A running cluster. Nodes are counted from 0; 0 is the primary until another is promoted.
///
/// There are the databases `app` and `other` and these roles, each with its name as its password:
/// `app` (owns both databases; SCRAM), `md5user` (md5), `textuser` (text password), `trusted`
/// (none asked), `postgres` (superuser; none asked on the Unix socket).
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    dir: PathBuf,
    nodes: Vec<Node>,
    primary: AtomicUsize,
    watchdog: Child,
    keep: bool,
}

/// One server of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// `pg1`, `pg2`, …; also its `cluster_name` and its `application_name` at the primary.
    pub name: Arc<str>,
    pub port: u16,
    data: PathBuf,
    log: PathBuf,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, replicas get everything (`pg_ctl -m fast`).
    Fast,
    /// As in a crash, but sessions are told (`pg_ctl -m immediate`).
    Immediate,
    /// SIGKILL for every process at once: connections break, nothing is said.
    Kill,
}

impl Cluster {
    /// Makes and starts a primary and its replicas; all are streaming when this returns.
    pub fn start(options: &Options) -> Result<Self, Failure> {
        let programs = Programs::find(options.bin.as_deref())?;
        let (watchdog, dir) = watch(&programs)?;
        let mut cluster = Self {
            programs,
            nodes: Vec::new(),
            primary: AtomicUsize::new(0),
            watchdog,
            dir,
            keep: false,
        };
        cluster.init(options)?;
        for i in 1..=options.replicas + 1 {
            let name = format!("pg{i}");
            cluster.nodes.push(Node {
                port: free_port()?,
                data: cluster.dir.join(&name),
                log: cluster.dir.join(format!("{name}.log")),
                name: name.into(),
            });
        }
        for i in 0..cluster.nodes.len() {
            cluster.lay_out(i)?;
        }
        std::thread::scope(|scope| {
            let cluster = &cluster;
            let starts: Vec<_> = (0..cluster.nodes.len())
                .map(|i| scope.spawn(move || cluster.start_node(i)))
                .collect();
            starts.into_iter().try_for_each(|start| {
                start
                    .join()
                    .unwrap_or_else(|_panic| Err(Failure::new("a start panicked")))
            })
        })?;
        cluster.wait_for_replicas(options.replicas)?;
        Ok(cluster)
    }

    /// The servers, in the order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that was promoted last, or else the first.
    #[must_use]
    pub fn primary(&self) -> usize {
        self.primary.load(Ordering::Relaxed)
    }

    /// The nodes that aren't the primary.
    #[must_use]
    pub fn replicas(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|i| *i != self.primary())
            .collect()
    }

    /// The temporary directory, which holds the Unix sockets, data directories and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of PostgreSQL's programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        self.programs.bin()
    }

    /// Leaves the directory behind when the cluster is dropped. The servers are stopped all the
    /// same.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Runs `sql` on a node's database `app` as superuser; unaligned rows, one a line, columns
    /// divided by `|`. Fails on the first error, after 10 s without a connection and 60 s without
    /// an answer.
    pub fn psql(&self, node: usize, sql: &str) -> Result<String, Failure> {
        let node = self.node(node)?;
        let mut command = self.programs.command("psql");
        command
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "app",
            ])
            .arg("-h")
            .arg(&self.dir)
            .args(["-p", &node.port.to_string()])
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGOPTIONS", "-c statement_timeout=60s")
            .env("PGAPPNAME", "pgsplit-demo")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let what = format!("psql on {}", node.name);
        let mut child = command.spawn().map_err(|e| Failure::io(&what, &e))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(sql.as_bytes())
                .map_err(|e| Failure::io(&what, &e))?;
        }
        let output = child
            .wait_with_output()
            .map_err(|e| Failure::io(&what, &e))?;
        finished(&what, &output).map(|text| text.trim_end().to_owned())
    }

    /// Waits until `node` has replayed all that the primary has written by now.
    pub fn wait_for_replay(&self, node: usize) -> Result<(), Failure> {
        let lsn = self.psql(self.primary(), "select pg_current_wal_flush_lsn()")?;
        self.wait_until(node, &format!("pg_last_wal_replay_lsn() >= '{lsn}'"))
    }

    /// Waits until `condition`, an SQL expression, is true on `node`; at most 60 s.
    pub fn wait_until(&self, node: usize, condition: &str) -> Result<(), Failure> {
        let sql = format!(
            "do $wait$ begin while ({condition}) is not true loop \
             perform pg_stat_clear_snapshot(); perform pg_sleep(0.01); end loop; end $wait$"
        );
        self.psql(node, &sql).map(drop)
    }

    /// Stops replay on a replica: what it shows stands still, while it goes on receiving.
    pub fn pause_replay(&self, node: usize) -> Result<(), Failure> {
        self.psql(node, "select pg_wal_replay_pause()")?;
        self.wait_until(node, "pg_get_wal_replay_pause_state() = 'paused'")
    }

    /// Lets replay go on.
    pub fn resume_replay(&self, node: usize) -> Result<(), Failure> {
        self.psql(node, "select pg_wal_replay_resume()").map(drop)
    }

    /// Lets a replica replay each commit only `delay` after the primary made it.
    pub fn delay_replay(&self, node: usize, delay: Duration) -> Result<(), Failure> {
        self.set(
            node,
            "recovery_min_apply_delay",
            &format!("{}ms", delay.as_millis()),
        )
    }

    /// `ALTER SYSTEM SET` and a reload; returns when new sessions have the setting and the others
    /// have been told.
    pub fn set(&self, node: usize, name: &str, value: &str) -> Result<(), Failure> {
        let value = value.replace('\'', "''");
        let loaded = "select pg_conf_load_time()";
        let before = self.psql(node, loaded)?;
        self.psql(
            node,
            &format!("alter system set {name} = '{value}'; select pg_reload_conf();"),
        )?;
        // A session learns of it between its statements only, so each look takes a new one.
        for _ in 0..RELOAD_TRIES {
            if self.psql(node, loaded)? != before {
                return Ok(());
            }
        }
        Err(Failure::new(format!(
            "{name} isn't in force after a reload"
        )))
    }

    /// Stops every process of a node (SIGSTOP): the kernel goes on accepting connections, nobody
    /// answers.
    pub fn hang(&self, node: usize) -> Result<(), Failure> {
        // Twice: a child may have been forked just before the postmaster was stopped.
        self.signal(node, "STOP")?;
        self.signal(node, "STOP")
    }

    /// Ends [`Cluster::hang`].
    pub fn unhang(&self, node: usize) -> Result<(), Failure> {
        self.signal(node, "CONT")
    }

    /// Stops a node. It may be started again by [`Cluster::start_node`].
    pub fn stop(&self, node: usize, how: Stop) -> Result<(), Failure> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
            Stop::Kill => return self.kill(node),
        };
        let node = self.node(node)?;
        run(
            &format!("stopping {}", node.name),
            self.programs
                .command("pg_ctl")
                .args(["stop", "-s", "-w", "-t", "60", "-m", mode, "-D"])
                .arg(&node.data),
        )
        .map(drop)
    }

    /// Starts a node; it takes connections when this returns.
    pub fn start_node(&self, node: usize) -> Result<(), Failure> {
        let node = self.node(node)?;
        let started = run(
            &format!("starting {}", node.name),
            self.programs
                .command("pg_ctl")
                .args(["start", "-s", "-w", "-t", "60", "-D"])
                .arg(&node.data)
                .arg("-l")
                .arg(&node.log)
                // Of its own group, so that Ctrl-C reaches us only.
                .process_group(0)
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        started.map(drop).map_err(|failure| {
            let log = fs::read_to_string(&node.log).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            Failure::new(format!("{failure}\n{}", end.join("\n")))
        })
    }

    /// Makes a replica the primary. The others don't follow by themselves: [`Cluster::follow`].
    pub fn promote(&self, node: usize) -> Result<(), Failure> {
        if self.psql(node, "select pg_promote(true, 60)")? != "t" {
            return Err(Failure::new(format!(
                "{} wasn't promoted within 60 s",
                self.node(node)?.name
            )));
        }
        self.primary.store(node, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that somebody else has made this node the primary.
    pub fn was_promoted(&self, node: usize) {
        self.primary.store(node, Ordering::Relaxed);
    }

    /// Lets a running replica stream from the present primary.
    pub fn follow(&self, node: usize) -> Result<(), Failure> {
        let conninfo = self.conninfo(node)?;
        self.set(node, "primary_conninfo", &conninfo)
    }

    /// Makes a stopped node anew, as a replica of the present primary, and starts it.
    pub fn rejoin(&self, node: usize) -> Result<(), Failure> {
        let at = self.node(node)?;
        let primary = self.node(self.primary())?;
        run("rm", self.programs.as_user("rm").arg("-rf").arg(&at.data))?;
        run(
            &format!("copying {} to {}", primary.name, at.name),
            self.programs
                .command("pg_basebackup")
                .args([
                    "-U",
                    "replicator",
                    "-c",
                    "fast",
                    "-X",
                    "stream",
                    "--no-sync",
                    "-h",
                ])
                .arg(&self.dir)
                .args(["-p", &primary.port.to_string(), "-D"])
                .arg(&at.data),
        )?;
        self.configure(node)?;
        self.start_node(node)
    }

    /// Makes a stopped node that was the primary a replica of the present one, and starts it: what
    /// it has written since the other was promoted is undone (`pg_rewind`, which needs
    /// `wal_log_hints`).
    pub fn rewind(&self, node: usize) -> Result<(), Failure> {
        let at = self.node(node)?;
        let source = format!(
            "host={} port={} user=postgres dbname=postgres",
            self.dir.display(),
            self.node(self.primary())?.port
        );
        // pg_rewind learns of the new timeline from the last checkpoint only.
        self.psql(self.primary(), "checkpoint")?;
        run(
            &format!("rewinding {}", at.name),
            self.programs
                .command("pg_rewind")
                .args(["--no-sync", "--source-server", &source, "--target-pgdata"])
                .arg(&at.data),
        )?;
        self.configure(node)?;
        self.start_node(node)
    }

    /// The statements logged by a node whose text contains `marker`, in the order in which they
    /// began. Simple and extended protocol alike; fast-path calls aren't statements.
    pub fn statements(&self, node: usize, marker: &str) -> Result<Vec<String>, Failure> {
        let node = self.node(node)?;
        let log = fs::read(&node.log).map_err(|e| Failure::io(node.log.display(), &e))?;
        Ok(records(&String::from_utf8_lossy(&log))
            .filter(|record| record.contains(marker))
            .collect())
    }

    /// The nodes that ran a statement whose text contains `marker`, once for each time.
    pub fn ran_on(&self, marker: &str) -> Result<Vec<usize>, Failure> {
        let mut ran = Vec::new();
        for i in 0..self.nodes.len() {
            ran.extend(self.statements(i, marker)?.iter().map(|_| i));
        }
        Ok(ran)
    }

    fn node(&self, node: usize) -> Result<&Node, Failure> {
        self.nodes
            .get(node)
            .ok_or_else(|| Failure::new(format!("no node {node}")))
    }

    /// The first node's data directory, with the roles and databases.
    fn init(&self, options: &Options) -> Result<(), Failure> {
        let template = self.dir.join("template");
        run(
            "initdb",
            self.programs
                .command("initdb")
                .args(["--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8"])
                .args(["--locale=C", "-D"])
                .arg(&template),
        )?;
        fs::write(template.join("pg_hba.conf"), HBA).map_err(|e| Failure::io("pg_hba.conf", &e))?;
        let mut conf = String::from(CONF);
        conf.push_str(&format!(
            "unix_socket_directories = '{}'\n",
            self.dir.display()
        ));
        for (name, value) in &options.settings {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        append(&template.join("postgresql.conf"), &conf)?;

        let mut command = self.programs.command("postgres");
        command
            .args(["--single", "-D"])
            .arg(&template)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let what = "creating roles";
        let mut child = command.spawn().map_err(|e| Failure::io(what, &e))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(ROLES.as_bytes())
                .map_err(|e| Failure::io(what, &e))?;
        }
        let output = child
            .wait_with_output()
            .map_err(|e| Failure::io(what, &e))?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("ERROR:") {
            return Err(Failure::new(format!("{what}: {errors}")));
        }
        finished(what, &output).map(drop)
    }

    /// A node's data directory from the template. The template was shut down cleanly, so that each
    /// copy can start as primary or as replica.
    fn lay_out(&self, node: usize) -> Result<(), Failure> {
        let data = &self.node(node)?.data;
        run(
            "cp",
            self.programs
                .as_user("cp")
                .arg("-a")
                .arg(self.dir.join("template"))
                .arg(data),
        )?;
        self.configure(node)
    }

    /// What differs from node to node.
    fn configure(&self, node: usize) -> Result<(), Failure> {
        let at = self.node(node)?;
        append(
            &at.data.join("postgresql.conf"),
            &format!("port = {}\ncluster_name = '{}'\n", at.port, at.name),
        )?;
        if node != self.primary() {
            append(
                &at.data.join("postgresql.auto.conf"),
                &format!("primary_conninfo = '{}'\n", self.conninfo(node)?),
            )?;
            run(
                "touch",
                self.programs
                    .as_user("touch")
                    .arg(at.data.join("standby.signal")),
            )?;
        }
        Ok(())
    }

    fn conninfo(&self, node: usize) -> Result<String, Failure> {
        Ok(format!(
            "host={} port={} user=replicator application_name={}",
            self.dir.display(),
            self.node(self.primary())?.port,
            self.node(node)?.name
        ))
    }

    fn wait_for_replicas(&self, count: usize) -> Result<(), Failure> {
        self.wait_until(
            self.primary(),
            &format!(
                "(select count(*) from pg_stat_replication where state = 'streaming') >= {count}"
            ),
        )
    }

    fn signal(&self, node: usize, signal: &str) -> Result<(), Failure> {
        let pids = self.processes(node)?;
        self.kill_command(&format!("-{signal}"), &pids)
    }

    fn kill_command(&self, signal: &str, pids: &[u32]) -> Result<(), Failure> {
        // A child may end by itself meanwhile: that kill then fails is no failure.
        let mut command = self.programs.as_user("sh");
        command.args(["-c", "kill \"$@\" 2>/dev/null || true", "sh", signal]);
        command.args(pids.iter().map(u32::to_string));
        run("kill", &mut command).map(drop)
    }

    fn kill(&self, node: usize) -> Result<(), Failure> {
        let at = self.node(node)?;
        let lock = at.data.join("postmaster.pid");
        let pids = self.processes(node)?;
        self.kill_command("-KILL", &pids)?;
        // Ends once none of them runs; those that nobody reaps are zombies ("Z").
        let mut wait = self.programs.as_user("sh");
        wait.args(["-c", WAIT_GONE, "sh"])
            .args(pids.iter().map(u32::to_string));
        run("waiting for the end of killed processes", &mut wait)?;
        // The lock file names processes and a shared memory segment that are no more.
        let text = fs::read_to_string(&lock).map_err(|e| Failure::io(lock.display(), &e))?;
        if let Some(segment) = text
            .lines()
            .nth(6)
            .and_then(|l| l.split_whitespace().nth(1))
        {
            // Gone already when the kernel removed it with its last user.
            let removed = self
                .programs
                .as_user("ipcrm")
                .args(["-m", segment])
                .output();
            drop(removed);
        }
        let socket = self.dir.join(format!(".s.PGSQL.{}", at.port));
        for left in [
            socket.with_extension(format!("{}.lock", at.port)),
            socket,
            lock,
        ] {
            fs::remove_file(&left).map_err(|e| Failure::io(left.display(), &e))?;
        }
        Ok(())
    }

    /// The postmaster and its children.
    fn processes(&self, node: usize) -> Result<Vec<u32>, Failure> {
        let at = self.node(node)?;
        let lock = at.data.join("postmaster.pid");
        let text = fs::read_to_string(&lock).map_err(|e| {
            Failure::io(format!("{} isn't running: {}", at.name, lock.display()), &e)
        })?;
        let postmaster: u32 = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .ok_or_else(|| Failure::new(format!("{}: no pid", lock.display())))?;
        let mut found = vec![postmaster];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && parent(pid) == Some(postmaster)
            {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.watchdog.stdin.take()
            && self.keep
        {
            // Were the pipe broken, the watchdog would have ended, and the servers with it.
            pipe.write_all(b"keep\n").ok();
        }
        self.watchdog.wait().ok();
    }
}

/// Starts the watchdog; the directory that it made.
fn watch(programs: &Programs) -> Result<(Child, PathBuf), Failure> {
    let what = "making a temporary directory";
    let mut child = programs
        .as_user("sh")
        .args(["-c", include_str!("watchdog.sh"), "sh"])
        .arg(programs.bin())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::io(what, &e))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|e| Failure::io(what, &e))?;
    }
    let dir = line.trim_end();
    if dir.is_empty() {
        return Err(Failure::new(format!("{what} failed")));
    }
    Ok((child, PathBuf::from(dir)))
}

fn append(path: &Path, text: &str) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failure::io(path.display(), &e))
}

/// The parent of a process, from the second field behind its parenthesised name.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The statements in a server's log. A record's further lines begin with a tab.
fn records(log: &str) -> impl Iterator<Item = String> {
    let mut records: Vec<String> = Vec::new();
    for line in log.lines() {
        match (line.strip_prefix('\t'), records.last_mut()) {
            (Some(more), Some(record)) => {
                record.push('\n');
                record.push_str(more);
            }
            _ => records.push(line.to_owned()),
        }
    }
    records.into_iter().filter(|record| {
        record.contains(" LOG:  statement: ") || record.contains(" LOG:  execute ")
    })
}

/// Each takes as long as a connection.
const RELOAD_TRIES: usize = 500;

const LOG_LINES_SHOWN: usize = 12;

/// Waits until each of its arguments is no process or a zombie.
const WAIT_GONE: &str = "for pid; do \
    while [ -r /proc/$pid/stat ] && ! grep -q ') Z ' /proc/$pid/stat 2>/dev/null; do sleep 0.01; done; \
    done";

const HBA: &str = "\
local all all trust
local replication all trust
host replication replicator 127.0.0.1/32 trust
host all trusted 127.0.0.1/32 trust
host all md5user 127.0.0.1/32 md5
host all textuser 127.0.0.1/32 password
host all all 127.0.0.1/32 scram-sha-256
";

const CONF: &str = "
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
max_prepared_transactions = 20
fsync = off
wal_level = replica
wal_keep_size = 512MB
max_wal_senders = 20
hot_standby_feedback = off
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
log_statement = all
log_line_prefix = '%m [%p] %a|%d|%u '
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
";

/// Single-user mode takes a statement a line.
const ROLES: &str = "\
alter role postgres password 'postgres';
create role replicator login replication;
create role app login password 'app';
create role textuser login password 'textuser' in role app;
create role trusted login in role app;
set password_encryption = 'md5';
create role md5user login password 'md5user' in role app;
create database app owner app;
create database other owner app;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_several_lines_is_one_statement() {
        let log = "2026-01-01 00:00:00 UTC [7] a|app|app LOG:  statement: select 1\n\
                   \t/* mark */\n\
                   2026-01-01 00:00:00 UTC [7] a|app|app ERROR:  no\n\
                   2026-01-01 00:00:00 UTC [7] a|app|app STATEMENT:  select 1 /* mark */\n\
                   2026-01-01 00:00:00 UTC [7] a|app|app LOG:  execute <unnamed>: select 2\n";
        let found: Vec<String> = records(log).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("select 1\n/* mark */"));
    }

    #[test]
    fn ports_are_given_once() {
        let mut ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }
}
