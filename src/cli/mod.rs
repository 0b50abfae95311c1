//! Commands: what an operator types, and what he reads.
//!
//! Exit codes: 0 done, 1 failed, 2 a mistake in the command line or the configuration.

mod check;
pub mod demo;
mod explain;
mod flags;
mod http;
mod logging;
mod node;
mod output;
mod promote;
mod serve;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{config::Settings, net::tls::ServerTls};

/// It was tried and didn't work.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

/// What is in the files of `[listen.tls]` can be used; else what is wrong, and with which.
fn tls_files(settings: &Settings) -> Result<(), String> {
    match &settings.listen.tls {
        Some(tls) => ServerTls::load(tls)
            .map(drop)
            .map_err(|error| format!("[listen.tls]: {error}")),
        None => Ok(()),
    }
}

/// A PostgreSQL proxy that pools connections, splits reads from writes and survives failover.
#[derive(Debug, Parser)]
#[command(name = "pgsplit", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    /// Start a primary, replicas and the proxy before them; Ctrl-C removes everything
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Status(status::StatusArgs),
    Switchover(promote::SwitchoverArgs),
    Failover(promote::FailoverArgs),
    /// Print the version
    Version,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too. Nobody is left to tell if this can't be written.
            let _written = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let code = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => return demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Switchover(args) => promote::switchover(&args),
        Command::Failover(args) => promote::failover(&args),
        Command::Version => {
            output::line(format_args!("pgsplit {}", env!("CARGO_PKG_VERSION")));
            0
        }
    };
    ExitCode::from(code)
}

/// Runs one command's work to its end on this thread.
fn block_on(work: impl Future<Output = u8>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A name being resolved may hang; nobody waits for it.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            output::error(format_args!("can't start: {error}"));
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
