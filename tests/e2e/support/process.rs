//! Other programs: the built `pgsplit`, PostgreSQL's own, drivers in other languages.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use super::Cluster;

/// The built binary.
pub(crate) fn pgsplit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsplit"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// One of the cluster's PostgreSQL programs, as ourselves.
pub(crate) fn program(cluster: &Cluster, name: &str) -> Command {
    let mut command = Command::new(cluster.bin().join(name));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("PGCONNECT_TIMEOUT", "20").stdin(Stdio::null());
    command
}

/// Where `tests/setup.sh` put the drivers.
pub(crate) fn drivers() -> PathBuf {
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers");
    assert!(
        drivers.join("stamp").exists(),
        "the drivers aren't set up: run `make test`, or tests/setup.sh once"
    );
    drivers
}

/// Runs a command to its end within two minutes; its standard output. Fails with all that it
/// printed unless it exits with 0.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = limited(command).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr),
    );
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout
}

/// Runs a command up to the line `ready` on its standard output, then `between`, and then the
/// command, given a line, to its end. Fails as [`succeed`] does.
pub(crate) async fn succeed_in_two(command: &Command, between: impl Future<Output = ()>) {
    let mut child = limited(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first = tokio::task::spawn_blocking(move || {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        child.stdout = Some(stdout.into_inner());
        (child, line)
    });
    let (mut child, line) = first.await.unwrap();
    if line == "ready\n" {
        between.await;
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let Output { status, stderr, .. } = output.await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        status.success() && line == "ready\n",
        "{command:?}: {status}\n{line}\n{stderr}"
    );
}

/// The same command, ended after two minutes.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    limited.args(["-k", "1", "120"]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    limited.stdin(Stdio::null());
    limited
}

/// A process that ends with this one, however this one ends: a shell that reads a pipe from us
/// kills it when the pipe closes.
#[derive(Debug)]
pub(crate) struct Guarded {
    shell: Child,
    pub(crate) pid: u32,
}

impl Guarded {
    /// Starts it with its output in `log`.
    pub(crate) fn start(command: &Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                "\"$@\" </dev/null >&2 & echo $!; exec >&-; read -r _; kill -KILL $! 2>/dev/null; wait",
                "sh",
            ])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = line.trim().parse().unwrap();
        Self { shell, pid }
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let mut kill = Command::new("sh");
        kill.args(["-c", &format!("kill -{signal} {}", self.pid)]);
        succeed(&mut kill);
    }

    /// It hasn't ended. (One that has is a zombie until the shell ends.)
    pub(crate) fn alive(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}
