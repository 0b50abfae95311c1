//! pgsplit beside PgBouncer and beside no proxy, end to end, against the same cluster.
//!
//! `cargo bench --bench compare -- --help` says how. The three take turns within each round, so
//! that whatever else the machine does falls on all of them; the figures are medians over rounds,
//! the ratios medians of the ratios within rounds. On a busy machine transactions per second mean
//! little; CPU time per transaction still does.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "measures real time, in threads of its own without a runtime"
)]
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    reason = "a program, not a library"
)]

mod cases;
mod process;
mod report;
mod targets;
mod wire;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use pgsplit::cli::demo::cluster::{Cluster, Options};

use cases::{Bulk, Ground, Load, Script};
use process::{Account, output};
use report::{Goal, Report};
use targets::{Kind, PgBouncer, Protocol, Target};
use wire::{Client, Login};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Compares pgsplit with PgBouncer and with no proxy.
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, Parser)]
#[command(name = "compare", bin_name = "cargo bench --bench compare --")]
struct Args {
    /// Three short rounds at 16 clients: about two minutes instead of ten.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds; 5, or 3 with --quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each pgbench run; 3, or 2 with --quick.
    #[arg(long)]
    seconds: Option<u32>,
    /// Clients of the memory measurement.
    #[arg(long, default_value_t = 5_000)]
    idle_clients: u32,
    /// Another pgsplit than the one just built.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_pgsplit"))]
    pgsplit: PathBuf,
    /// Leave pgsplit out.
    #[arg(long)]
    no_pgsplit: bool,
    /// Write all samples as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Start everything, say where it is, and wait for Ctrl-C: for profiling by hand.
    #[arg(long)]
    stay: bool,
    /// Cargo passes this one.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// pgbench: rates, CPU per transaction, p50 and p99.
    Latency,
    /// System calls per transaction, under strace.
    Syscalls,
    /// Memory per idle client.
    Memory,
    /// Large results and COPY.
    Bulk,
    /// Logins.
    Connect,
}

/// Set by Ctrl-C; looked at between runs.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Open files that the largest measurement needs.
const OPEN_FILES: u64 = 16_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::parse();
    if let Some(status) = with_more_files()? {
        return if status {
            Ok(())
        } else {
            Err("see above".into())
        };
    }
    watch_interrupts()?;
    let dir = tempfile::Builder::new()
        .prefix("pgsplit-compare")
        .tempdir()?;
    let account = Account::unprivileged()?;
    account.own(dir.path())?;

    let bouncer = PgBouncer::find_or_install()?;
    eprintln!("starting a primary and two replicas");
    let cluster = Cluster::start(&cluster_options())?;
    let ground = Ground {
        login: Login::new("app", "app"),
        dir: dir.path().to_owned(),
        pgbench: cluster.bin().join("pgbench"),
    };
    let login = &ground.login;
    let direct = Target::direct(&cluster)?;
    cases::prepare(&ground, &direct)?;
    let pgbouncer = Target::pgbouncer(&bouncer, dir.path(), account, &cluster, login)?;
    let mut targets = vec![direct, pgbouncer];
    if !args.no_pgsplit {
        let pgsplit = Target::pgsplit(&args.pgsplit, dir.path(), &cluster, login)?;
        targets.push(pgsplit);
    }
    if args.stay {
        return stay(&cluster, &targets);
    }

    let mut report = Report::default();
    report.note(format!(
        "PgBouncer {}, {}",
        bouncer.version,
        output(std::process::Command::new("uname").args(["-srm"]))?.trim()
    ));
    let reads_before = replica_transactions(&cluster, login)?;
    let plan = Plan::new(&args);
    let bench = Bench {
        targets: &targets,
        ground: &ground,
        plan: &plan,
    };
    for part in &plan.parts {
        match part {
            Part::Latency => bench.latency(&mut report)?,
            Part::Syscalls => bench.syscalls(&mut report)?,
            Part::Memory => bench.memory(&mut report, args.idle_clients)?,
            Part::Bulk => bench.bulk(&mut report)?,
            Part::Connect => bench.connect(&mut report)?,
        }
    }
    if !bouncer.has_prepared() {
        report.note(format!(
            "PgBouncer {} has no prepared statements in transaction pooling: its prepared runs use session pooling",
            bouncer.version
        ));
    }
    let reads = replica_transactions(&cluster, login)? - reads_before;
    report.note(format!("{reads} transactions ran on the replicas"));
    println!("{}", report.table());
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(())
}

#[derive(Debug)]
struct Plan {
    parts: BTreeSet<Part>,
    rounds: usize,
    seconds: u32,
    loads: Vec<Load>,
}

impl Plan {
    fn new(args: &Args) -> Self {
        let parts: BTreeSet<Part> = if args.only.is_empty() {
            Part::value_variants().iter().copied().collect()
        } else {
            args.only.iter().copied().collect()
        };
        let counts: &[u32] = if args.quick { &[16] } else { &[1, 16, 64] };
        let mut loads = Vec::new();
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
            for &clients in counts {
                loads.push(Load {
                    script: Script::Select,
                    protocol,
                    clients,
                });
            }
        }
        loads.push(Load {
            script: Script::SimpleUpdate,
            protocol: Protocol::Simple,
            clients: 16,
        });
        Self {
            parts,
            rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }),
            seconds: args.seconds.unwrap_or(if args.quick { 2 } else { 3 }),
            loads,
        }
    }
}

struct Bench<'a> {
    targets: &'a [Target],
    ground: &'a Ground,
    plan: &'a Plan,
}

impl Bench<'_> {
    /// The targets, each round in another order.
    fn turn(&self, round: usize) -> impl Iterator<Item = &Target> {
        let count = self.targets.len();
        self.targets.iter().cycle().skip(round % count).take(count)
    }

    fn proxies(&self) -> impl Iterator<Item = &Target> {
        self.targets
            .iter()
            .filter(|target| target.process.is_some())
    }

    fn latency(&self, report: &mut Report) -> Result<()> {
        let rounds = self.plan.rounds;
        for round in 0..rounds {
            for &load in &self.plan.loads {
                eprintln!("round {} of {rounds}: {}", round + 1, load.name());
                for target in self.turn(round) {
                    continue_unless_interrupted()?;
                    let got = cases::load(self.ground, target, load, self.plan.seconds)
                        .map_err(|e| format!("{}: {e}", target.kind.name()))?;
                    let (case, kind) = (load.name(), target.kind);
                    let (cpu, p50) = if load.clients == 16 && load.script == Script::Select {
                        (Goal::OfPgBouncer(1.0), Goal::OfPgBouncer(1.05))
                    } else {
                        (Goal::None, Goal::None)
                    };
                    report.add(&case, "CPU us/transaction", cpu, kind, got.cpu_us);
                    report.add(
                        &case,
                        "transactions/s",
                        Goal::None,
                        kind,
                        Some(got.per_second),
                    );
                    report.add(&case, "p50 us", p50, kind, Some(got.p50_us));
                    report.add(&case, "p99 us", Goal::None, kind, Some(got.p99_us));
                }
            }
        }
        Ok(())
    }

    fn syscalls(&self, report: &mut Report) -> Result<()> {
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
            let load = Load {
                script: Script::Select,
                protocol,
                clients: 16,
            };
            eprintln!("system calls: {}", load.name());
            for target in self.proxies() {
                continue_unless_interrupted()?;
                let calls = match cases::syscalls(self.ground, target, load) {
                    Ok(calls) => calls,
                    Err(error) => {
                        report.note(format!("no system calls counted: {error}"));
                        return Ok(());
                    }
                };
                let sum = calls.iter().map(|(_, count)| count).sum();
                // A hair above four: timers and probes go on beside the transactions.
                let goal = Goal::AtMost(4.1);
                report.add(
                    &load.name(),
                    "syscalls/transaction",
                    goal,
                    target.kind,
                    Some(sum),
                );
                let each: Vec<String> = calls
                    .iter()
                    .map(|(name, count)| format!("{name} {count:.2}"))
                    .collect();
                report.note(format!(
                    "{}, {}: {}",
                    load.name(),
                    target.kind.name(),
                    each.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn memory(&self, report: &mut Report, clients: u32) -> Result<()> {
        for target in self.proxies() {
            continue_unless_interrupted()?;
            eprintln!("memory: {}", target.kind.name());
            let got = cases::memory(self.ground, target, clients)
                .map_err(|e| format!("{}: {e}", target.kind.name()))?;
            let case = format!("{clients} idle clients");
            for (metric, value) in [
                ("KiB each, logged in", got.logged_in_kib),
                ("KiB each, after query", got.after_query_kib),
            ] {
                report.add(&case, metric, Goal::AtMost(4.0), target.kind, Some(value));
            }
        }
        Ok(())
    }

    fn bulk(&self, report: &mut Report) -> Result<()> {
        for round in 0..self.plan.rounds {
            for bulk in Bulk::ALL {
                eprintln!("round {}: {}", round + 1, bulk.name());
                for target in self.turn(round) {
                    continue_unless_interrupted()?;
                    let got = cases::bulk(self.ground, target, bulk)
                        .map_err(|e| format!("{}: {e}", target.kind.name()))?;
                    let (case, kind) = (bulk.name(), target.kind);
                    let goal = Goal::OfPgBouncer(0.6);
                    report.add(case, "CPU s/GB", goal, kind, got.cpu_per_gb);
                    report.add(case, "MB/s", Goal::None, kind, Some(got.mb_per_second));
                }
            }
        }
        Ok(())
    }

    fn connect(&self, report: &mut Report) -> Result<()> {
        let length = Duration::from_secs(u64::from(self.plan.seconds.min(2)));
        for round in 0..self.plan.rounds {
            eprintln!("round {}: logins", round + 1);
            for target in self.turn(round) {
                continue_unless_interrupted()?;
                let got = cases::connect(self.ground, target, length)
                    .map_err(|e| format!("{}: {e}", target.kind.name()))?;
                let (case, kind) = ("SCRAM login + query", target.kind);
                report.add(
                    case,
                    "CPU us/login",
                    Goal::OfPgBouncer(1.2),
                    kind,
                    got.cpu_us,
                );
                report.add(case, "logins/s", Goal::None, kind, Some(got.per_second));
            }
        }
        Ok(())
    }
}

/// Transactions that the replicas have counted: shows that reads were split.
fn replica_transactions(cluster: &Cluster, login: &Login) -> Result<i64> {
    let mut sum = 0;
    for port in targets::ports(cluster).into_iter().skip(1) {
        let mut client = Client::connect(port, login, targets::DATABASE)?;
        let sql = "select xact_commit from pg_stat_database where datname = current_database()";
        let count = client.query(sql)?.value.ok_or("no statistics")?;
        sum += count.parse::<i64>()?;
        client.close()?;
    }
    Ok(sum)
}

/// Sized so that PostgreSQL does nothing beside answering.
fn cluster_options() -> Options {
    let settings = [
        ("log_statement", "none"),
        ("log_connections", "off"),
        ("log_disconnections", "off"),
        ("max_connections", "300"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "1h"),
        ("autovacuum", "off"),
    ];
    Options {
        replicas: 2,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..Options::default()
    }
}

fn stay(cluster: &Cluster, targets: &[Target]) -> Result<()> {
    println!("nodes on ports {:?}", targets::ports(cluster));
    for target in targets.iter().filter(|target| target.kind != Kind::Direct) {
        println!(
            "{}: PGPASSWORD=app psql -h 127.0.0.1 -p {} -U app app (process {})",
            target.kind.name(),
            target.port,
            target.pid().unwrap_or(0)
        );
    }
    while continue_unless_interrupted().is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Runs itself again with a higher limit of open files, where the limit is too low.
fn with_more_files() -> Result<Option<bool>> {
    const AGAIN: &str = "PGSPLIT_COMPARE_FILES";
    let limits = fs::read_to_string("/proc/self/limits")?;
    let now = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|field| field.parse().ok())
        .unwrap_or(u64::MAX);
    if now >= OPEN_FILES || std::env::var_os(AGAIN).is_some() {
        return Ok(None);
    }
    let script = format!("ulimit -n {OPEN_FILES} && exec \"$0\" \"$@\"");
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(AGAIN, "1")
        .status()?;
    Ok(Some(status.success()))
}

fn watch_interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

fn continue_unless_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err("interrupted".into());
    }
    Ok(())
}
