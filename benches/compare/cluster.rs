//! A primary and streaming replicas in a directory of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Result,
    process::{Account, find_program, free_port, output},
};

#[derive(Debug)]
pub(crate) struct Cluster {
    bin: PathBuf,
    account: Account,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    data: PathBuf,
}

impl Cluster {
    /// Starts a primary and `replicas` replicas below `dir`.
    ///
    /// Commits don't wait for the disk: the disk is not what is measured.
    pub(crate) fn start(dir: &Path, account: Account, replicas: usize) -> Result<Self> {
        let mut cluster = Self {
            bin: server_binaries()?,
            account,
            nodes: Vec::new(),
        };
        let primary = dir.join("node0");
        output(
            cluster
                .command("initdb")
                .args(["--username=postgres", "--encoding=UTF8", "--locale=C"])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
                .args(["--no-sync", "-D"])
                .arg(&primary),
        )?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\n\
             unix_socket_directories = '{}'\n\
             max_connections = 300\n\
             shared_buffers = '256MB'\n\
             fsync = off\n\
             max_wal_size = '4GB'\n\
             wal_keep_size = '1GB'\n\
             checkpoint_timeout = '1h'\n\
             autovacuum = off\n",
            dir.display()
        );
        let path = primary.join("postgresql.conf");
        let conf = fs::read_to_string(&path)? + &settings;
        fs::write(&path, conf)?;
        cluster.start_node(primary)?;
        cluster.psql("create role bench login password 'bench' in role pg_monitor")?;
        cluster.psql("create database bench owner bench")?;

        for number in 1..=replicas {
            let data = dir.join(format!("node{number}"));
            output(
                cluster
                    .command("pg_basebackup")
                    .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
                    .args(["--username=postgres", "--host"])
                    .arg(dir)
                    .args(["--port", &cluster.port(0)?.to_string(), "--pgdata"])
                    .arg(&data),
            )?;
            cluster.start_node(data)?;
        }
        Ok(cluster)
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// What the nodes keep of a role's password.
    pub(crate) fn verifier(&self, role: &str) -> Result<String> {
        let sql = format!("select rolpassword from pg_authid where rolname = '{role}'");
        Ok(self.psql(&sql)?.trim().to_owned())
    }

    fn port(&self, number: usize) -> Result<u16> {
        Ok(self.nodes.get(number).ok_or("no such node")?.port)
    }

    /// A command of PostgreSQL's own, run as the servers' owner.
    fn command(&self, name: &str) -> std::process::Command {
        self.account.command(self.bin.join(name))
    }

    fn start_node(&mut self, data: PathBuf) -> Result<()> {
        let port = free_port()?;
        let log = data.with_extension("log");
        output(
            self.command("pg_ctl")
                .args(["start", "--wait", "--silent"])
                .args(["-o", &format!("-p {port}"), "-D"])
                .arg(&data)
                .arg("--log")
                .arg(&log),
        )
        .map_err(|e| format!("{e} (see {})", log.display()))?;
        self.nodes.push(Node { port, data });
        Ok(())
    }

    fn psql(&self, sql: &str) -> Result<String> {
        let primary = self.nodes.first().ok_or("no primary")?;
        let sockets = primary.data.parent().ok_or("no directory")?;
        output(
            self.command("psql")
                .args(["-X", "-q", "-A", "-t", "-U", "postgres", "-d", "postgres"])
                .args(["-p", &primary.port.to_string(), "-c", sql, "-h"])
                .arg(sockets),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Replicas first, so that the primary has nobody to wait for.
        for node in self.nodes.iter().rev() {
            let _stopped = output(
                self.command("pg_ctl")
                    .args(["stop", "--wait", "--mode=immediate", "-D"])
                    .arg(&node.data),
            );
        }
    }
}

/// The newest installed server's programs.
fn server_binaries() -> Result<PathBuf> {
    if let Some(initdb) = find_program("initdb")
        && let Some(bin) = fs::canonicalize(initdb)?.parent()
    {
        return Ok(bin.to_owned());
    }
    let installed = |root: &str| {
        let versions = fs::read_dir(root).into_iter().flatten().flatten();
        versions
            .map(|version| version.path().join("bin"))
            .filter(|bin| bin.join("initdb").is_file())
            .max()
    };
    installed("/usr/lib/postgresql").ok_or_else(|| {
        "no PostgreSQL server programs found: install them (Debian: apt-get install postgresql)"
            .into()
    })
}
