//! `pgsplit serve`.

use std::{io, sync::Arc};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{FAILED, USAGE, flags::ConfigArgs, logging, output, tls_files};
use crate::{
    admin::{self, Console},
    config::Settings,
    metrics::Inspect,
    net::listen_tcp,
    proxy::{Proxy, Reload, Running, StartError},
};

/// Run the proxy until SIGTERM or SIGINT; SIGHUP reads the configuration again
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: ServeArgs) -> u8 {
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
    logging::start(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!(configuration = args.config.name(), "{warning}");
    }
    let reload: Reload = Box::new(move || match args.config.load() {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => Err(problems.to_string()),
    });
    match serve(loaded.settings, reload) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "can't serve");
            FAILED
        }
    }
}

/// Runs the proxy and its admin side on this thread and the workers', until it is stopped.
fn serve(settings: Settings, reload: Reload) -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let admin = match settings.admin.address {
            Some(address) => {
                let listener =
                    listen_tcp(address, false).map_err(|problem| StartError::Listen {
                        address: address.to_string(),
                        problem,
                    })?;
                tracing::info!(%address, "admin listening");
                Some(listener)
            }
            None => None,
        };
        let running = Running::start(settings, reload)?;
        let proxy = Arc::clone(running.proxy());
        let inspect: Arc<dyn Inspect> = Arc::clone(&proxy) as Arc<dyn Inspect>;
        let console = Arc::new(Console::new(inspect, Arc::clone(proxy.all_metrics())));
        let stop = CancellationToken::new();
        let admin = tokio::spawn(admin::run(Arc::clone(&console), admin, stop.clone()));
        let signals = tokio::spawn(signals(proxy)?);
        let served = running.serve(console).await;
        stop.cancel();
        signals.abort();
        let _ended = admin.await;
        served.map_err(Problem::from)
    });
    runtime.shutdown_background();
    result
}

/// What can keep a proxy from serving.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// SIGTERM and SIGINT: stop when clients have left; again: at once. SIGHUP: read the configuration
/// again.
fn signals(proxy: Arc<Proxy>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut stopping = false;
        loop {
            tokio::select! {
                _signal = terminate.recv() => {}
                _signal = interrupt.recv() => {}
                _signal = hangup.recv() => {
                    match proxy.reload() {
                        Ok(done) => tracing::info!("configuration read again: {done}"),
                        Err(problems) => tracing::error!("configuration not changed: {problems}"),
                    }
                    continue;
                }
            }
            if stopping {
                tracing::warn!("stopping at once");
                proxy.shut_down_now();
            } else {
                tracing::info!("stopping: no new clients, waiting for transactions to end");
                proxy.shut_down();
                stopping = true;
            }
        }
    })
}
