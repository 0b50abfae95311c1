//! `pgsplit demo`: a primary, streaming replicas and the proxy before them, in one command, all in
//! a temporary directory that goes when the command ends.
#![allow(clippy::print_stderr, reason = "a command talks")]

pub mod cluster;
mod load;
mod serve;
mod server;

pub use server::{Failure, free_port};

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::output;
use cluster::{Cluster, Options};
use serve::Proxy;

/// Flags of `pgsplit demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// How many replicas to start.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = replicas)]
    pub replicas: usize,
    /// Where the proxy listens on 127.0.0.1.
    #[arg(long, value_name = "PORT", default_value_t = 6432, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Where its metrics and its page are.
    #[arg(long, value_name = "PORT", default_value_t = 9432, value_parser = clap::value_parser!(u16).range(1..))]
    pub admin_port: u16,
    /// Run a mixed load and show each second where it goes.
    #[arg(long)]
    pub load: bool,
    /// Leave the directory with data, logs and configuration behind.
    #[arg(long)]
    pub keep: bool,
}

/// Runs until Ctrl-C (success) or until something fails.
#[must_use]
pub fn run(args: &DemoArgs) -> ExitCode {
    match demo(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pgsplit demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &DemoArgs) -> Result<(), Failure> {
    // Before half a minute has gone into a cluster.
    for port in [args.port, args.admin_port] {
        free(port)?;
    }
    let plural = if args.replicas == 1 { "" } else { "s" };
    output::line(format_args!(
        "Starting a primary and {} replica{plural} …",
        args.replicas
    ));
    let mut cluster = Cluster::start(&Options {
        replicas: args.replicas,
        ..Options::default()
    })?;
    cluster.psql(cluster.primary(), SAMPLE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("starting a runtime", &e))?;
    let mut proxy = None;
    let ended = runtime.block_on(until_stopped(args, &cluster, &mut proxy));
    output::line("\nStopping …");
    // The load's connections first: the proxy waits for their transactions.
    drop(runtime);
    drop(proxy);
    if args.keep {
        output::line(format_args!(
            "Data, logs and configuration stay in {}",
            cluster.dir().display()
        ));
        cluster.keep();
    }
    ended
}

/// Serves, and shows the load if asked to, until a signal or the proxy's end.
async fn until_stopped(
    args: &DemoArgs,
    cluster: &Cluster,
    proxy: &mut Option<Proxy>,
) -> Result<(), Failure> {
    let stop = |e| Failure::io("waiting for signals", &e);
    let mut interrupted = signal(SignalKind::interrupt()).map_err(stop)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(stop)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(stop)?;
    let serving = async {
        let proxy = proxy.insert(Proxy::start(cluster, args).await?);
        print_guide(args, cluster, proxy);
        if args.load {
            load::run(cluster, proxy).await
        } else {
            loop {
                proxy.check()?;
                tokio::time::sleep(CHECK_EVERY).await;
            }
        }
    };
    tokio::select! {
        ended = serving => ended,
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
    }
}

fn print_guide(args: &DemoArgs, cluster: &Cluster, proxy: &Proxy) {
    let (url, port) = (proxy.url(), args.port);
    let psql = cluster.bin().join("psql");
    let psql = psql.display();
    output::line("");
    for (i, node) in cluster.nodes().iter().enumerate() {
        let role = if i == cluster.primary() {
            "primary"
        } else {
            "replica"
        };
        output::line(format_args!(
            "  {}  {role}  127.0.0.1:{}",
            node.name, node.port
        ));
    }
    output::line(format_args!(
        "
  DATABASE_URL={url}
  admin        http://127.0.0.1:{admin}/  (/metrics, /readyz)
  files        {dir}

Three things to try in another terminal:

  1. Ask where statements go, and why:
     {exe} explain --config {config} 'SELECT * FROM accounts'
     {exe} explain --config {config} 'SELECT * FROM accounts FOR UPDATE'

  2. Read your own write at once, though replicas are always a little behind:
     {psql} {url} \\
       -c 'UPDATE accounts SET balance = balance + 1 WHERE id = 1' \\
       -c 'SELECT balance FROM accounts WHERE id = 1'

  3. Let a replica crash and see reads go on without it:
     kill -QUIT $(head -n 1 {dir}/pg2/postmaster.pid)
     {psql} postgresql://app:app@127.0.0.1:{port}/pgsplit -c 'SHOW NODES'

Ctrl-C stops and removes everything.",
        admin = args.admin_port,
        dir = cluster.dir().display(),
        exe = proxy.program().display(),
        config = proxy.config().display(),
    ));
}

/// Nobody listens there.
fn free(port: u16) -> Result<(), Failure> {
    match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_listener) => Ok(()),
        Err(error) => Err(Failure::io(
            format_args!("listening on 127.0.0.1:{port} (--port and --admin-port choose others)"),
            &error,
        )),
    }
}

fn replicas(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=MOST_REPLICAS) => Ok(count),
        _ => Err(format!("a number from 0 to {MOST_REPLICAS}")),
    }
}

const SAMPLE: &str = "
set role app;
create table accounts (id int primary key, owner text not null, balance bigint not null);
create table transfers (
    id bigint generated always as identity primary key,
    account int not null references accounts,
    amount bigint not null,
    at timestamptz not null default now()
);
insert into accounts
    select i, 'owner ' || i, 1000 from generate_series(1, 1000) i;
analyze accounts;
";

/// More than anybody wants on one machine.
const MOST_REPLICAS: usize = 16;

const CHECK_EVERY: Duration = Duration::from_millis(250);
