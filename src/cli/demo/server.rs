//! Where PostgreSQL's programs are and as whom they run: the server refuses to run as root.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
};

/// Something that kept a cluster from doing what it was asked for, in words for a person.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(super) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// PostgreSQL's programs, and the user that they run as.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    bin: PathBuf,
    /// User and group when they must not be ours.
    run_as: Option<(u32, u32)>,
}

impl Programs {
    /// The programs in `bin`, or else in the first of these that has them: `PGSPLIT_PG_BIN`, what
    /// `pg_config --bindir` says, Debian's newest version, `PATH`.
    pub(super) fn find(bin: Option<&Path>) -> Result<Self, Failure> {
        let bin = match bin {
            Some(bin) if has_server(bin) => bin.to_owned(),
            Some(bin) => {
                return Err(Failure::new(format!(
                    "no PostgreSQL server programs (initdb, postgres, pg_ctl, psql) in {}",
                    bin.display()
                )));
            }
            None => candidates()
                .into_iter()
                .find(|dir| has_server(dir))
                .ok_or_else(|| {
                    Failure::new(
                        "no PostgreSQL server programs (initdb, postgres, pg_ctl, psql) found.\n\
                     Debian, Ubuntu:  apt-get install postgresql\n\
                     Fedora, RHEL:    dnf install postgresql-server\n\
                     Alpine:          apk add postgresql\n\
                     macOS:           brew install postgresql\n\
                     or set PGSPLIT_PG_BIN to the directory that holds them",
                    )
                })?,
        };
        Ok(Self {
            bin,
            run_as: unprivileged()?,
        })
    }

    pub(super) fn bin(&self) -> &Path {
        &self.bin
    }

    /// One of PostgreSQL's programs.
    pub(super) fn command(&self, program: &str) -> Command {
        self.as_user(self.bin.join(program))
    }

    /// Any program, as the user that owns the cluster, undisturbed by our PG… variables.
    pub(super) fn as_user(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid).env_remove("HOME");
        }
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

/// Runs `command` to its end; what it printed, or `what` failed and what it said.
pub(super) fn run(what: &str, command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|e| Failure::io(what, &e))?;
    finished(what, &output)
}

/// What a finished command printed, or why it failed.
pub(super) fn finished(what: &str, output: &Output) -> Result<String, Failure> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure(format!(
        "{what} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A TCP port on loopback that nobody listens on, never given out twice by this process.
///
/// Taken from below the range that the kernel gives to outgoing connections, so that none of
/// these takes it while its server is down.
pub fn free_port() -> Result<u16, Failure> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..PORT_TRIES {
        let port = fastrand::u16(PORTS);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(Failure::new("no free port on 127.0.0.1"))
}

fn has_server(dir: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl", "psql"]
        .iter()
        .all(|program| dir.join(program).is_file())
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    found.extend(std::env::var_os("PGSPLIT_PG_BIN").map(PathBuf::from));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        found.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.extend(versions.into_iter().map(|(_, bin)| bin));
    if let Some(path) = std::env::var_os("PATH") {
        found.extend(std::env::split_paths(&path));
    }
    found
}

/// Whom to run the servers as, when we are root.
fn unprivileged() -> Result<Option<(u32, u32)>, Failure> {
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    for user in ["postgres", "nobody"] {
        if let (Ok(uid), Ok(gid)) = (id(&["-u", user]), id(&["-g", user])) {
            return Ok(Some((uid, gid)));
        }
    }
    Err(Failure::new(
        "PostgreSQL refuses to run as root, and there is neither a user \"postgres\" nor \"nobody\"",
    ))
}

fn id(args: &[&str]) -> Result<u32, Failure> {
    let text = run("id", Command::new("id").args(args))?;
    text.trim()
        .parse()
        .map_err(|_ignored| Failure::new(format!("id printed {text:?}, not a number")))
}

const PORTS: std::ops::Range<u16> = 15_000..32_000;
const PORT_TRIES: usize = 1_000;
