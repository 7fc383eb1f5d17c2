//! `tandem serve`: runs a node.

use tracing_subscriber::EnvFilter;

use super::args::{LogFormat, ServeArgs};
use super::output::{Answer, Exit, Failure, Paint};
use crate::config::{self, Config};

/// Checks everything that can be checked before the first port is opened, then runs the node until it is stopped.
pub(super) fn serve(args: &ServeArgs) -> Result<Answer, Failure> {
    let path = config::find(args.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let config = Config::load(&path).map_err(|error| Failure::environment(&error))?;
    config.check_files().map_err(|error| Failure::environment(&error))?;
    log_to_stderr(args.log_format)?;
    for warning in config.warnings() {
        tracing::warn!(event = "config_warning", "{warning}");
    }
    crate::daemon::run(config).map_err(|error| Failure::environment(&error))?;
    Ok(Answer::silent(Exit::Well))
}

fn log_to_stderr(format: LogFormat) -> Result<(), Failure> {
    let level = std::env::var("TANDEM_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&level).map_err(|error| {
        let hint = "write a level (error, warn, info, debug) or `module=level,...`";
        Failure::new(Exit::Usage, format!("TANDEM_LOG={level:?} is not understood: {error}"), hint)
    })?;
    let colour = Paint::of(&std::io::stderr()).is_on();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
