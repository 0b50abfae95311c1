//! The measurements. Each returns figures of one run; `main` repeats and alternates them.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    Result,
    process::{cpu, memory_kib, output, system_calls},
    targets::{DATABASE, Protocol, Target},
    wire::{Client, Login},
};

/// Rows of the 200 MB result and COPY.
const BULK_ROWS: u64 = 1_000_000;
/// A row of them: short ones are the harder case for whoever looks at every message.
const BULK_TEXT: usize = 185;
const BULK_BYTES: u64 = 200_000_000;

/// What every measurement needs.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) login: Login,
    /// For files that go away afterwards.
    pub(crate) dir: PathBuf,
    pub(crate) pgbench: PathBuf,
}

/// What pgbench runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// `-S`: one primary-key SELECT.
    Select,
    /// `-N`: UPDATE, SELECT, INSERT in a transaction.
    SimpleUpdate,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) script: Script,
    pub(crate) protocol: Protocol,
    pub(crate) clients: u32,
}

impl Load {
    pub(crate) fn name(self) -> String {
        let script = match self.script {
            Script::Select => "-S",
            Script::SimpleUpdate => "-N",
        };
        let protocol = self.protocol.name();
        format!("{script} {protocol}, {} clients", self.clients)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadFigures {
    pub(crate) per_second: f64,
    /// Microseconds of the proxy's CPU per transaction.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// How long pgbench goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Seconds(u32),
    TransactionsPerClient(u32),
}

fn pgbench(ground: &Ground, target: &Target, load: Load, length: Length) -> Command {
    let mut command = Command::new(&ground.pgbench);
    command
        .env("PGPASSWORD", &ground.login.password)
        .args(["-n", "-h", "127.0.0.1", "-p", &target.port.to_string()])
        .args(["-U", &ground.login.user, "-M", load.protocol.name()])
        .args(["-c", &load.clients.to_string()])
        .args(["-j", &load.clients.min(2).to_string()])
        .arg(match load.script {
            Script::Select => "-S",
            Script::SimpleUpdate => "-N",
        });
    match length {
        Length::Seconds(n) => command.args(["-T", &n.to_string()]),
        Length::TransactionsPerClient(n) => command.args(["-t", &n.to_string()]),
    };
    command
}

/// Fills pgbench's tables through a direct connection.
pub(crate) fn prepare(ground: &Ground, direct: &Target) -> Result<()> {
    let login = &ground.login;
    output(
        Command::new(&ground.pgbench)
            .env("PGPASSWORD", &login.password)
            .args(["-i", "-q", "-s", "10", "-h", "127.0.0.1"])
            .args(["-p", &direct.port.to_string(), "-U", &login.user, DATABASE]),
    )?;
    let mut client = Client::connect(direct.port, login, DATABASE)?;
    client.query("create unlogged table bulk (number bigint, text text)")?;
    client.close()
}

pub(crate) fn load(
    ground: &Ground,
    target: &Target,
    load: Load,
    seconds: u32,
) -> Result<LoadFigures> {
    let mut command = pgbench(ground, target, load, Length::Seconds(seconds));
    let prefix = ground.dir.join("latency");
    command
        .args(["-l", "--sampling-rate=0.25", "--log-prefix"])
        .arg(&prefix)
        .arg(target.database(load.protocol));
    let before = target.pid().map(cpu).transpose()?;
    let text = output(&mut command)?;
    let used = match (target.pid().map(cpu).transpose()?, before) {
        (Some(after), Some(before)) => Some(after.saturating_sub(before)),
        _ => None,
    };
    let transactions = figure(&text, "number of transactions actually processed: ")?;
    let mut latencies = Vec::new();
    for file in fs::read_dir(&ground.dir)?.flatten() {
        if !file.file_name().to_string_lossy().starts_with("latency") {
            continue;
        }
        for line in fs::read_to_string(file.path())?.lines() {
            let latency = line.split(' ').nth(2).and_then(|us| us.parse::<f64>().ok());
            latencies.extend(latency);
        }
        fs::remove_file(file.path())?;
    }
    latencies.sort_by(f64::total_cmp);
    let percentile = |share: usize| {
        let place = latencies.len().saturating_sub(1) * share / 100;
        latencies.get(place).copied().unwrap_or(f64::NAN)
    };
    Ok(LoadFigures {
        per_second: figure(&text, "tps = ")?,
        cpu_us: used.map(|used| used.as_secs_f64() * 1e6 / transactions),
        p50_us: percentile(50),
        p99_us: percentile(99),
    })
}

/// System calls per transaction, by name: the difference of a long and a short run, so that
/// logins don't count.
pub(crate) fn syscalls(ground: &Ground, target: &Target, load: Load) -> Result<Vec<(String, f64)>> {
    const SHORT: u32 = 20;
    const LONG: u32 = 320;
    let pid = target.pid().ok_or("no process")?;
    let count = |transactions| {
        system_calls(pid, &ground.dir.join("strace"), || {
            let length = Length::TransactionsPerClient(transactions);
            let mut command = pgbench(ground, target, load, length);
            output(command.arg(target.database(load.protocol))).map(drop)
        })
    };
    let short = count(SHORT)?;
    let transactions = f64::from((LONG - SHORT) * load.clients);
    let mut calls: Vec<(String, f64)> = count(LONG)?
        .into_iter()
        .map(|(name, long)| {
            let before = short.iter().find(|(other, _)| *other == name);
            let more = long as f64 - before.map_or(0.0, |(_, count)| *count as f64);
            (name, more / transactions)
        })
        .filter(|(_, per_transaction)| *per_transaction > 0.01)
        .collect();
    calls.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(calls)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryFigures {
    pub(crate) logged_in_kib: f64,
    pub(crate) after_query_kib: f64,
}

/// Memory per client that has logged in, and per client that is idle after a query.
pub(crate) fn memory(ground: &Ground, target: &Target, clients: u32) -> Result<MemoryFigures> {
    let pid = target.pid().ok_or("no process")?;
    // Server connections and caches exist before the first reading.
    let mut first = Client::connect(target.port, &ground.login, DATABASE)?;
    first.query("select 1")?;
    let before = memory_kib(pid)?;
    let mut idle = Vec::new();
    for _ in 0..clients {
        idle.push(Client::connect(target.port, &ground.login, DATABASE)?);
    }
    let logged_in = memory_kib(pid)?;
    for client in &mut idle {
        client.query("select 1")?;
    }
    let after_query = memory_kib(pid)?;
    for client in idle {
        client.close()?;
    }
    first.close()?;
    let per_client = |reading: u64| (reading as f64 - before as f64) / f64::from(clients);
    Ok(MemoryFigures {
        logged_in_kib: per_client(logged_in),
        after_query_kib: per_client(after_query),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bulk {
    Result,
    CopyOut,
    CopyIn,
}

impl Bulk {
    pub(crate) const ALL: [Self; 3] = [Self::Result, Self::CopyOut, Self::CopyIn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Result => "200 MB result",
            Self::CopyOut => "200 MB COPY TO",
            Self::CopyIn => "200 MB COPY FROM",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkFigures {
    pub(crate) mb_per_second: f64,
    pub(crate) cpu_per_gb: Option<f64>,
}

pub(crate) fn bulk(ground: &Ground, target: &Target, bulk: Bulk) -> Result<BulkFigures> {
    let mut client = Client::connect(target.port, &ground.login, DATABASE)?;
    if bulk == Bulk::CopyIn {
        client.query("truncate bulk")?;
    }
    let rows = format!("select n, repeat('x', {BULK_TEXT}) from generate_series(1, {BULK_ROWS}) n");
    let before = target.pid().map(cpu).transpose()?;
    let start = Instant::now();
    let bytes = match bulk {
        Bulk::Result => client.query(&rows)?.bytes,
        Bulk::CopyOut => client.query(&format!("copy ({rows}) to stdout"))?.bytes,
        Bulk::CopyIn => {
            // Forty rows a message, near what psql's \copy sends.
            let row = format!("1234567\t{}\n", "x".repeat(BULK_TEXT));
            client.copy_in(
                "copy bulk from stdin",
                row.repeat(40).as_bytes(),
                BULK_BYTES,
            )?
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let used = match (target.pid().map(cpu).transpose()?, before) {
        (Some(after), Some(before)) => Some(after.saturating_sub(before)),
        _ => None,
    };
    if bulk == Bulk::CopyIn {
        client.query("truncate bulk")?;
    }
    client.close()?;
    Ok(BulkFigures {
        mb_per_second: bytes as f64 / 1e6 / seconds,
        cpu_per_gb: used.map(|used| used.as_secs_f64() * 1e9 / bytes as f64),
    })
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectFigures {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: Option<f64>,
}

/// Logins one after another from several threads, each with one query.
pub(crate) fn connect(
    ground: &Ground,
    target: &Target,
    length: Duration,
) -> Result<ConnectFigures> {
    const THREADS: usize = 8;
    let stop = AtomicBool::new(false);
    let before = target.pid().map(cpu).transpose()?;
    let start = Instant::now();
    let one_after_another = || -> std::result::Result<u64, String> {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            Client::connect(target.port, &ground.login, DATABASE)
                .and_then(|mut client| {
                    client.query("select 1")?;
                    client.close()
                })
                .map_err(|e| e.to_string())?;
            count += 1;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(one_after_another))
            .collect();
        std::thread::sleep(length);
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_panic| "a client panicked".to_owned())?
            })
            .collect::<std::result::Result<Vec<u64>, String>>()
    })?;
    let count = counts.iter().sum::<u64>() as f64;
    let seconds = start.elapsed().as_secs_f64();
    let used = match (target.pid().map(cpu).transpose()?, before) {
        (Some(after), Some(before)) => Some(after.saturating_sub(before)),
        _ => None,
    };
    Ok(ConnectFigures {
        per_second: count / seconds,
        cpu_us: used.map(|used| used.as_secs_f64() * 1e6 / count),
    })
}

/// The number behind a label in pgbench's report.
fn figure(text: &str, label: &str) -> Result<f64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .ok_or_else(|| format!("pgbench did not say {label:?}"))?;
    let number: String = rest
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    Ok(number.parse()?)
}
