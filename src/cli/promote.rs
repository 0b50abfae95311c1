//! `pgsplit switchover` and `pgsplit failover`: asked of the running proxy, at its console.
//!
//! The console has authentication, which the admin API hasn't: whoever may open it may do this.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::{FAILED, USAGE, block_on, flags::ConfigArgs, node, output};
use crate::config::{Host, Node, NodeTls, Secret, Settings, SslMode};

/// A switchover and what follows it take no longer than their own limits; this is for a proxy that
/// hangs.
const ANSWER: Duration = Duration::from_secs(3 * 3600);

/// Make a replica the primary, while writes wait
#[derive(Debug, Args)]
pub(super) struct SwitchoverArgs {
    /// The replica, by its name
    #[arg(long, value_name = "NODE")]
    to: String,

    #[command(flatten)]
    console: ConsoleArgs,
}

/// Promote a replica in the place of a lost primary
#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    /// The replica, by its name; by default the most advanced
    #[arg(long, value_name = "NODE")]
    to: Option<String>,

    /// Whatever is lost, and although replicas may still be connected to the primary
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    console: ConsoleArgs,
}

/// Where the proxy's console is, and who opens it.
#[derive(Debug, Args)]
struct ConsoleArgs {
    /// Who opens the console; by default the first of admin.console_users
    #[arg(long, value_name = "NAME")]
    console_user: Option<String>,

    /// That user's password, where the configuration has only a verifier or none
    #[arg(long, value_name = "TEXT", env = "PGPASSWORD", hide_env_values = true)]
    console_password: Option<String>,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn switchover(args: &SwitchoverArgs) -> u8 {
    ask(
        &args.console,
        &format!("SWITCHOVER TO {}", quoted(&args.to)),
    )
}

pub(super) fn failover(args: &FailoverArgs) -> u8 {
    let to = args.to.as_deref().map(quoted);
    let to = to.map_or_else(String::new, |name| format!(" TO {name}"));
    let force = if args.force { " FORCE" } else { "" };
    ask(&args.console, &format!("FAILOVER{to}{force}"))
}

/// Says it at the console, and prints the answer.
fn ask(args: &ConsoleArgs, command: &str) -> u8 {
    let settings = match args.config.load() {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            output::diagnostics(problems);
            return USAGE;
        }
    };
    let user = args.console_user.as_ref();
    let Some(user) = user.or(settings.admin.console_users.first()) else {
        output::error("nobody may open the console: name somebody in admin.console_users");
        return USAGE;
    };
    let Some(door) = door(&settings) else {
        output::error("the proxy listens nowhere");
        return USAGE;
    };
    let known = settings.user(user).and_then(|user| user.password.clone());
    let password = args.console_password.clone().map(Secret).or(known);
    block_on(async {
        let answer = async {
            let session = node::connect(&door, user, password.as_ref(), "pgsplit").await?;
            session.rows_within(command, ANSWER).await
        };
        match answer.await {
            Ok(rows) => {
                for told in rows.into_iter().flatten().flatten() {
                    output::line(told);
                }
                0
            }
            Err(problem) => {
                output::error(problem);
                FAILED
            }
        }
    })
}

/// Where clients of the proxy on this machine connect, as a server.
fn door(settings: &Settings) -> Option<Node> {
    let address = settings.listen.addresses.first()?;
    let host = match &settings.listen.unix_socket_dir {
        Some(directory) => Host::Unix(directory.clone()),
        None => Host::Tcp(super::http::reachable(*address).ip().to_string()),
    };
    Some(Node {
        name: Arc::from("console"),
        host,
        port: address.port(),
        tls: NodeTls {
            sslmode: SslMode::Prefer,
            ..NodeTls::default()
        },
        ..Node::default()
    })
}

/// A name as the console reads it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
