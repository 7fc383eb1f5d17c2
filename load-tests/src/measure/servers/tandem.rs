//! Tandem: a pair or a single node with the settings that `tandem init` gives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use srm::demo::pair::{DOMAIN, Pair};
use srm::setup::Plan;
use xmpp_core::sasl::KeyCache;

use super::{Running, dialer};
use crate::measure::args::{Kind, Settings};
use crate::measure::client::Access;

/// Longest time until it serves.
const START: Duration = Duration::from_secs(30);

/// The binary to measure: the one that is named, or else the one beside this command.
pub(in crate::measure) fn binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return given
            .is_file()
            .then(|| given.to_owned())
            .with_context(|| format!("{} is no file", given.display()));
    }
    let beside = std::env::current_exe()?.with_file_name("tandem");
    if !beside.is_file() {
        bail!(
            "{} is not built: run `cargo build --workspace` with the profile of this command, or name it with --tandem",
            beside.display()
        );
    }
    Ok(beside)
}

pub(super) fn start(
    kind: Kind,
    settings: &Settings,
    nodes: usize,
    users: usize,
    home: fn(usize) -> usize,
) -> anyhow::Result<Running> {
    let dir = tempfile::Builder::new().prefix("tandem-measure-").tempdir()?;
    let plan = match nodes {
        2 => Plan::local_pair(DOMAIN, dir.path()),
        _ => Plan::local_single(DOMAIN, dir.path()),
    };
    // All clients come from one address here: the limit on new connections is not what is measured.
    let plan = plan?.set("limits.connections_per_minute", 100_000_000i64);
    let mut pair = Pair::make(&binary(settings.tandem.as_deref())?, &plan)?;
    for node in 0..nodes {
        pair.start(node)?;
    }
    if nodes == 2 {
        pair.wait_normal(START)?;
    } else {
        pair.wait_status(0, START, "serving", |status| matches!(status.row, Some(1 | 120)))?;
    }
    pair.add_users(&(0..users).map(|user| home(user) % nodes).collect::<Vec<_>>())?;
    let processes = (0..nodes).map(|node| {
        let pid = pair.pid(node).context("a node has ended")?;
        Ok((pair.made.nodes[node].name.clone(), pid))
    });
    let processes = processes.collect::<anyhow::Result<Vec<_>>>()?;
    let access = Access {
        places: pair.places(),
        dialer: dialer(&pair.made.ca)?,
        floor: false,
        keys: Arc::new(KeyCache::new()),
        from: Vec::new(),
    };
    let logs = (0..nodes).map(|node| pair.log_file(node)).collect();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    // The pair first: processes end before their folder goes.
    Ok(Running { name: kind.name(), version, access, processes, logs, _guard: Box::new(Guard(pair, dir)) })
}

struct Guard(
    #[expect(dead_code, reason = "held")] Pair,
    #[expect(dead_code, reason = "held")] tempfile::TempDir,
);
