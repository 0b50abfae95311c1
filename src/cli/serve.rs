//! `pgsplit serve`.

use std::io;

use clap::Args;

use super::{FAILED, USAGE, flags::ConfigArgs, logging, output};
use crate::config::Settings;

/// Run the proxy until SIGTERM or SIGINT; SIGHUP reads the configuration again
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Reads the configuration anew, for a reload; the mistakes as text.
type Reload = Box<dyn Fn() -> Result<Settings, String> + Send + Sync>;

pub(super) fn run(args: ServeArgs) -> u8 {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            output::diagnostics(problems);
            return USAGE;
        }
    };
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

/// Where `proxy::serve` is called.
fn serve(_settings: Settings, _reload: Reload) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
