//! What is measured, side by side: no proxy, PgBouncer, pgsplit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgsplit::cli::demo::{cluster::Cluster, free_port};

use super::{
    Result,
    process::{Account, Running, find_program, is_root, output, wait_until},
    wire::{Client, Login},
};

/// Clients that a proxy must take at once, with some to spare.
const MAX_CLIENTS: usize = 6_000;
/// Server connections per pool and node.
const POOL: usize = 20;
/// The database, as the nodes name it.
pub(crate) const DATABASE: &str = "app";
/// PgBouncer's second name of it, with session pooling.
const SESSION_DATABASE: &str = "app_session";

/// pgbench's `-M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    PgBouncer,
    Pgsplit,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::PgBouncer => "PgBouncer",
            Self::Pgsplit => "pgsplit",
        }
    }
}

/// The nodes' ports, the primary's first.
pub(crate) fn ports(cluster: &Cluster) -> Vec<u16> {
    cluster.nodes().iter().map(|node| node.port).collect()
}

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// None: no proxy whose cost could be measured.
    pub(crate) process: Option<Running>,
    /// PgBouncer before 1.21 has no prepared statements in transaction pooling.
    prepared_by_session: bool,
}

impl Target {
    pub(crate) fn direct(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            kind: Kind::Direct,
            port: *ports(cluster).first().ok_or("no primary")?,
            process: None,
            prepared_by_session: false,
        })
    }

    pub(crate) fn pgbouncer(
        bouncer: &PgBouncer,
        dir: &Path,
        account: Account,
        cluster: &Cluster,
        login: &Login,
    ) -> Result<Self> {
        let port = free_port()?;
        let primary = *ports(cluster).first().ok_or("no primary")?;
        // The verifier rather than the password: PgBouncer would salt that for every login.
        let users = dir.join("users.txt");
        let verifier = cluster.psql(
            cluster.primary(),
            &format!(
                "select rolpassword from pg_authid where rolname = '{}'",
                login.user
            ),
        )?;
        fs::write(&users, format!("\"{}\" \"{verifier}\"\n", login.user))?;
        let node = format!("host=127.0.0.1 port={primary} dbname={DATABASE}");
        let prepared = if bouncer.has_prepared() {
            "max_prepared_statements = 200\n"
        } else {
            ""
        };
        let conf = dir.join("pgbouncer.ini");
        fs::write(
            &conf,
            format!(
                "[databases]\n\
                 {DATABASE} = {node}\n\
                 {SESSION_DATABASE} = {node} pool_mode=session pool_size=100\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = scram-sha-256\n\
                 auth_file = {users}\n\
                 pool_mode = transaction\n\
                 default_pool_size = {POOL}\n\
                 max_client_conn = {MAX_CLIENTS}\n\
                 ignore_startup_parameters = extra_float_digits\n\
                 log_connections = 0\n\
                 log_disconnections = 0\n\
                 {prepared}",
                users = users.display(),
            ),
        )?;
        let mut command = account.command(&bouncer.program);
        command.arg(&conf);
        let mut target = Self {
            kind: Kind::PgBouncer,
            port,
            process: Some(Running::start(command, &dir.join("pgbouncer.log"))?),
            prepared_by_session: !bouncer.has_prepared(),
        };
        target.wait_for_login(login, &dir.join("pgbouncer.log"))?;
        Ok(target)
    }

    /// pgsplit with one worker, as PgBouncer has one thread, and splitting on.
    pub(crate) fn pgsplit(
        program: &Path,
        dir: &Path,
        cluster: &Cluster,
        login: &Login,
    ) -> Result<Self> {
        let (port, admin) = (free_port()?, free_port()?);
        let mut text = format!(
            "[listen]\n\
             address = \"127.0.0.1:{port}\"\n\
             max_clients = {MAX_CLIENTS}\n\
             workers = 1\n\
             [admin]\n\
             address = \"127.0.0.1:{admin}\"\n\
             [pool]\n\
             mode = \"transaction\"\n\
             max_size = {POOL}\n"
        );
        for (number, port) in ports(cluster).into_iter().enumerate() {
            text += &format!(
                "[[node]]\nname = \"node{number}\"\nhost = \"127.0.0.1\"\nport = {port}\n"
            );
        }
        text += &format!(
            "[[database]]\nname = \"{DATABASE}\"\n\
             [[user]]\nname = \"{}\"\npassword = \"{}\"\n",
            login.user, login.password
        );
        let conf = dir.join("pgsplit.toml");
        fs::write(&conf, text)?;
        let log = dir.join("pgsplit.log");
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&conf);
        let mut target = Self {
            kind: Kind::Pgsplit,
            port,
            process: Some(Running::start(command, &log)?),
            prepared_by_session: false,
        };
        target.wait_for_login(login, &log)?;
        target.wait_for_replicas(cluster, login)?;
        Ok(target)
    }

    /// The database to connect to for a protocol.
    pub(crate) fn database(&self, protocol: Protocol) -> &'static str {
        if self.prepared_by_session && protocol == Protocol::Prepared {
            SESSION_DATABASE
        } else {
            DATABASE
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    fn wait_for_login(&mut self, login: &Login, log: &Path) -> Result<()> {
        let mut last = String::new();
        wait_until(Duration::from_secs(15), "a first login", || {
            if self.process.as_mut().is_some_and(|p| !p.is_alive()) {
                return Err("it ended".into());
            }
            match Client::connect(self.port, login, DATABASE) {
                Ok(client) => client.close().map(|()| true),
                Err(error) => {
                    last = error.to_string();
                    Ok(false)
                }
            }
        })
        .map_err(|error| {
            let said = fs::read_to_string(log).unwrap_or_default();
            format!("{}: {error}; {last}; it said: {said}", self.kind.name()).into()
        })
    }

    /// Waits until every replica has served a read.
    fn wait_for_replicas(&self, cluster: &Cluster, login: &Login) -> Result<()> {
        let mut missing = ports(cluster);
        missing.remove(0);
        let mut client = Client::connect(self.port, login, DATABASE)?;
        wait_until(Duration::from_secs(15), "reads on every replica", || {
            let sql = "/* pgsplit: replica */ select inet_server_port()";
            let port = client.query(sql)?.value.and_then(|port| port.parse().ok());
            missing.retain(|other| Some(*other) != port);
            Ok(missing.is_empty())
        })
        .map_err(|e| format!("{e}; not on ports {missing:?}"))?;
        client.close()
    }
}

#[derive(Debug)]
pub(crate) struct PgBouncer {
    program: PathBuf,
    pub(crate) version: String,
}

impl PgBouncer {
    /// Finds it, or installs it from the system's packages when that is permitted.
    pub(crate) fn find_or_install() -> Result<Self> {
        let program = match find_program("pgbouncer") {
            Some(program) => program,
            None => {
                install()?;
                find_program("pgbouncer").ok_or("pgbouncer was installed but is not found")?
            }
        };
        let said = output(Command::new(&program).arg("--version"))?;
        let version = said
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().nth(1))
            .ok_or("pgbouncer --version says nothing")?
            .to_owned();
        Ok(Self { program, version })
    }

    /// Prepared statements in transaction pooling came with 1.21.
    pub(crate) fn has_prepared(&self) -> bool {
        let mut parts = self
            .version
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 21)
    }
}

fn install() -> Result<()> {
    const HELP: &str = "PgBouncer is not installed: install it (Debian: apt-get install pgbouncer)";
    let Some(apt) = find_program("apt-get").filter(|_| is_root().unwrap_or(false)) else {
        return Err(HELP.into());
    };
    eprintln!("installing PgBouncer from the system's packages");
    let install = ["install", "--yes", "--no-install-recommends", "pgbouncer"];
    let attempt = || {
        output(
            Command::new(&apt)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(install),
        )
    };
    if attempt().is_err() {
        output(Command::new(&apt).arg("update"))?;
        attempt().map_err(|e| format!("{HELP}; {e}"))?;
    }
    Ok(())
}
