//! The daemon: one node, running.

use crate::config::Config;

/// Runs the node until it is told to stop (SIGTERM, SIGINT). An error means that it could not start.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("this build has no daemon")
}
