//! `tandem demo`: a pair, clients, faults and a ledger on one machine.

use crate::cli::{DemoArgs, Exit};

/// Runs the demo to its end. An error means that it could not be run.
pub fn run(_args: DemoArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("this build has no demo")
}
