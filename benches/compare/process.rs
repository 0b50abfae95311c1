//! Processes and what they cost: CPU time, memory, system calls.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::Result;

/// A process that ends with its value.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing here needs an orderly end: all data goes away with the directory.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Whom to run servers as that refuse to run as root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    /// The caller's own, or an unprivileged one when that is root.
    pub(crate) fn unprivileged() -> Result<Self> {
        if !is_root()? {
            return Ok(Self { ids: None });
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        let find = |name: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                if fields.next() != Some(name) {
                    return None;
                }
                let uid = fields.nth(1)?.parse().ok()?;
                Some((uid, fields.next()?.parse().ok()?))
            })
        };
        let ids = find("postgres")
            .or_else(|| find("nobody"))
            .ok_or("neither a user postgres nor nobody to run servers as")?;
        Ok(Self { ids: Some(ids) })
    }

    pub(crate) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub(crate) fn own(self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.ids {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

pub(crate) fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(status
        .lines()
        .any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"])))
}

/// Runs a command to its end; its standard output, or an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(format!("{program}: {}: {}", out.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// CPU time that a process has used so far, user and system.
///
/// The scheduler's own count has nanoseconds but forgets threads that have ended; the process's
/// total has clock ticks and forgets nothing. The larger of the two is the better.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name is in parentheses and may hold blanks.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // Linux shows ticks of 10 ms on every architecture.
    let total = Duration::from_millis(ticks * 10);

    let mut precise = 0;
    if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            precise += text
                .split_whitespace()
                .next()
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Ok(total.max(Duration::from_nanos(precise)))
}

/// Memory of a process in KiB: proportional set size, which counts shared pages by their share.
pub(crate) fn memory_kib(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| "no Pss in smaps_rollup".into())
}

/// How many system calls a process makes while `work` runs, by name, under `strace`.
pub(crate) fn system_calls(
    pid: u32,
    log: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<(String, u64)>> {
    let strace = find_program("strace").ok_or("strace is not installed")?;
    let mut command = Command::new(strace);
    command.args(["-c", "-f", "-q", "-p"]).arg(pid.to_string());
    command.arg("-o").arg(log);
    let mut tracer = Running::start(command, &log.with_extension("err"))?;
    wait_until(Duration::from_secs(5), "strace attached", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let traced = status
            .lines()
            .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
        Ok(traced || !tracer.is_alive())
    })?;
    if !tracer.is_alive() {
        return Err("strace could not attach (not permitted?)".into());
    }
    work()?;
    output(Command::new("kill").args(["-INT", &tracer.pid().to_string()]))?;
    wait_until(Duration::from_secs(5), "strace ended", || {
        Ok(!tracer.is_alive())
    })?;
    let mut calls = Vec::new();
    for line in fs::read_to_string(log)?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let ([_, _, _, count, .., name], true) = (fields.as_slice(), fields.len() >= 5)
            && let Ok(count) = count.parse()
            && *name != "total"
        {
            calls.push(((*name).to_owned(), count));
        }
    }
    Ok(calls)
}

/// Looks every few milliseconds until the condition holds.
pub(crate) fn wait_until(
    limit: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        if holds()? {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(format!("waited {} s in vain: {what}", limit.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
