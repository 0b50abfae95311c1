//! `pgsplit check`: the configuration, and each node as it would be used.

mod findings;
mod probe;

use std::{fmt, sync::Arc};

use clap::Args;
use tokio::task::JoinSet;

use self::{
    findings::{Finding, Severity},
    probe::Report,
};
use super::{FAILED, USAGE, block_on, flags::ConfigArgs, output, tls_files};
use crate::{config::Settings, monitor::discovery::nodes_now};

/// Check the configuration, and each node: reachable, role, settings that will hurt
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// The configuration only: connect to nothing
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &CheckArgs) -> u8 {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            output::diagnostics(problems);
            return USAGE;
        }
    };
    if let Err(problem) = tls_files(&loaded.settings) {
        output::diagnostics(format_args!("{}: {problem}", args.config.name()));
        return USAGE;
    }
    output::line(format_args!("configuration: ok ({})", args.config.name()));
    for warning in loaded.warnings {
        output::line(Finding::new(Severity::Warning, warning));
    }
    let mut settings = loaded.settings;
    if args.offline {
        return 0;
    }
    let mut worst = Severity::Note;
    block_on(async move {
        let timeout = settings.monitor.timeout;
        match nodes_now(&settings.failover, timeout, &settings.nodes).await {
            Ok(nodes) => settings.nodes = nodes,
            Err(problem) => {
                output::line(Finding::new(Severity::Error, problem));
                return code(Severity::Error);
            }
        }
        let settings = Arc::new(settings);
        let reports = reports(&settings).await;
        for (node, report) in settings.nodes.iter().zip(&reports) {
            let heading = match report {
                Ok(facts) => facts.heading(),
                Err(_) => "unusable".to_owned(),
            };
            output::line(format_args!(
                "\n{} ({}:{}): {heading}",
                node.name, node.host, node.port
            ));
            for finding in findings::of_node(&settings, node, report) {
                worst = worst.max(finding.severity);
                output::line(finding);
            }
        }
        let of_cluster = findings::of_cluster(&settings, &reports);
        if !of_cluster.is_empty() {
            output::line("\nall nodes together:");
        }
        for finding in of_cluster {
            worst = worst.max(finding.severity);
            output::line(finding);
        }
        code(worst)
    })
}

fn code(worst: Severity) -> u8 {
    if worst == Severity::Error { FAILED } else { 0 }
}

/// Asks all nodes at once; in the order of the settings.
async fn reports(settings: &Arc<Settings>) -> Vec<Report> {
    let mut asking = JoinSet::new();
    for n in 0..settings.nodes.len() {
        let settings = Arc::clone(settings);
        asking.spawn(async move { (n, probe::ask(&settings, n).await) });
    }
    let mut reports = asking.join_all().await;
    reports.sort_by_key(|(n, _)| *n);
    reports.into_iter().map(|(_, report)| report).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(f, "  {word}: {}", self.text)
    }
}
