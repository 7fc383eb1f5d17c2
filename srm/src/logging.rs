//! The log: to standard error, as text or JSON, at a level that can be changed while the process runs.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Changes the level of the log.
#[derive(Clone)]
pub struct LogLevel {
    handle: Option<Handle<EnvFilter, Registry>>,
    now: Arc<Mutex<String>>,
}

/// Why a level is not taken.
#[derive(Debug, thiserror::Error)]
#[error("{level:?} is no log level: {why}")]
pub struct BadLevel {
    level: String,
    why: String,
}

/// What may be written for a level.
pub const HINT: &str = "write error, warn, info, debug or trace, or for parts of it `module=level,...`, such as \
                        info,session_mover=debug";

fn filter(level: &str) -> Result<EnvFilter, BadLevel> {
    let bad = |why: String| BadLevel { level: level.to_owned(), why };
    if level.trim().is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    EnvFilter::try_new(level).map_err(|error| bad(error.to_string()))
}

impl LogLevel {
    /// Begins the log of this process, once; with colours for a terminal.
    pub fn begin(level: &str, form: Form, colour: bool) -> Result<LogLevel, BadLevel> {
        let (filter, handle) = reload::Layer::new(filter(level)?);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        let registry = tracing_subscriber::registry().with(filter);
        match form {
            Form::Text => registry.with(lines).init(),
            Form::Json => registry.with(lines.json()).init(),
        }
        Ok(LogLevel { handle: Some(handle), now: Arc::new(Mutex::new(level.to_owned())) })
    }

    /// For a process that has no log, such as a test.
    pub fn none() -> LogLevel {
        LogLevel { handle: None, now: Arc::default() }
    }

    /// The present level.
    pub fn level(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another level from now on; it does not outlast the process.
    pub fn set(&self, level: &str) -> Result<(), BadLevel> {
        let filter = filter(level)?;
        if let Some(handle) = &self.handle {
            let bad = |error: reload::Error| BadLevel { level: level.to_owned(), why: error.to_string() };
            handle.reload(filter).map_err(bad)?;
        }
        level.clone_into(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused_and_the_one_before_stays() {
        let log = LogLevel::none();
        log.set("info,session_mover=debug").unwrap();
        for bad in ["", "loud=?", "info,=x=y"] {
            assert!(log.set(bad).is_err(), "{bad}");
        }
        assert_eq!(log.level(), "info,session_mover=debug");
    }
}
