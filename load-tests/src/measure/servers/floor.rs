//! The floor, as a process of its own: this command again.

use std::process::Command;

use super::{Foreign, Running};
use crate::measure::args::Kind;

pub(super) fn start(kind: Kind) -> anyhow::Result<Running> {
    let foreign = Foreign::start(|dir, made| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-floor").arg("--listen").arg(made.nodes[0].c2s_tls.to_string());
        command.arg("--cert").arg(dir.join("a/c2s.pem")).arg("--key").arg(dir.join("a/c2s.key"));
        Ok(command)
    })?;
    foreign.running(kind, "tokio, rustls".into())
}
