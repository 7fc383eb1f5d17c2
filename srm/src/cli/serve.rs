//! `tandem serve` and `tandem witness`: what runs until it is stopped.

use super::args::{LogFormat, ServeArgs, WitnessArgs};
use super::output::{Answer, Exit, Failure, Paint};
use crate::config::{self, Config, WitnessConfig};
use crate::logging::{self, Form, LogLevel};

/// Checks everything that can be checked before the first port is opened, then runs the node until it is stopped.
pub(super) fn serve(args: &ServeArgs) -> Result<Answer, Failure> {
    let path = config::find(args.config.as_deref()).map_err(|error| Failure::environment(&error))?;
    let config = Config::load(&path).map_err(|error| Failure::environment(&error))?;
    config.check_files().map_err(|error| Failure::environment(&error))?;
    let log = begin_log(args.log_format)?;
    for warning in config.warnings() {
        tracing::warn!(event = "config_warning", "{warning}");
    }
    crate::daemon::run(config, log).map_err(|error| Failure::environment(&error))?;
    Ok(Answer::silent(Exit::Well))
}

/// Runs the witness until it is stopped.
pub(super) fn witness(args: &WitnessArgs) -> Result<Answer, Failure> {
    let config = WitnessConfig::load(&args.config).map_err(|error| Failure::environment(&error))?;
    begin_log(args.log_format)?;
    crate::witness::run(&config).map_err(|error| Failure::environment(&error))?;
    Ok(Answer::silent(Exit::Well))
}

fn begin_log(format: LogFormat) -> Result<LogLevel, Failure> {
    let level = std::env::var("TANDEM_LOG").unwrap_or_else(|_| "info".to_owned());
    let form = match format {
        LogFormat::Text => Form::Text,
        LogFormat::Json => Form::Json,
    };
    LogLevel::begin(&level, form, Paint::of(&std::io::stderr()).is_on())
        .map_err(|error| Failure::new(Exit::Usage, format!("TANDEM_LOG: {error}"), logging::HINT))
}
