//! `tandem demo`: two processes, a fleet that chats, one of them killed, started again, and its users taken back.

pub mod pair;
mod report;
mod story;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::setup::Plan;
use pair::{DOMAIN, PASSWORD, Pair};
pub use report::Report;
pub use story::{Options, play};

/// Runs the demo. Exit 0 only if nothing was lost, doubled or reordered.
pub fn run(options: &Options, json: bool, keep: bool) -> anyhow::Result<ExitCode> {
    let dir = tempfile::Builder::new().prefix("tandem-demo-").tempdir().context("no temporary folder")?;
    let tandem = std::env::current_exe().context("the path of this program is not known")?;
    let plan = options.plan(dir.path())?;
    let mut pair = Pair::make(&tandem, &plan)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if keep {
        return runtime.block_on(stay(options, &mut pair, dir.path(), json));
    }
    let report = match runtime.block_on(play(options, &mut pair, !json)) {
        Ok(report) => report,
        Err(error) => {
            return Err(error.context(format!("logs and disks are kept in {}", dir.keep().display())));
        }
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    if !report.ok {
        let kept = dir.keep();
        eprintln!("The promise was broken. Logs and disks are kept in {}.", kept.display());
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// The pair without load, until SIGINT or SIGTERM.
async fn stay(
    options: &Options,
    pair: &mut Pair,
    dir: &std::path::Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let homes = options.homes();
    story::bring_up(pair, &homes)?;
    let nodes: Vec<_> = (pair.made.nodes.iter().enumerate())
        .map(|(i, node)| {
            serde_json::json!({
                "name": node.name, "pid": pair.pid(i), "c2s": node.c2s, "c2s_tls": node.c2s_tls,
                "admin": node.admin, "config": node.config,
            })
        })
        .collect();
    let users: Vec<String> =
        (0..homes.len()).map(|i| format!("{}@{DOMAIN}", client_sim::fleet::user_name(i))).collect();
    if json {
        let line = serde_json::json!({
            "domain": DOMAIN, "nodes": nodes, "users": users, "password": PASSWORD, "ca": pair.made.ca, "dir": dir,
        });
        println!("{line}");
    } else {
        println!("The pair runs. Accounts u0 to u{}, password {PASSWORD}.", homes.len().saturating_sub(1));
        for (i, node) in pair.made.nodes.iter().enumerate() {
            let pid = pair.pid(i).unwrap_or(0);
            println!(
                "  node {}  pid {pid}  clients {} (TLS) {} (STARTTLS)",
                node.name, node.c2s_tls, node.c2s
            );
            println!("          tandem status -c {}", node.config.display());
        }
        println!("  authority {}\nStop with Ctrl-C.", pair.made.ca.display());
    }
    std::io::stdout().flush()?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    /// What is made for the pair, with the overrides that the report names.
    fn plan(&self, dir: &std::path::Path) -> anyhow::Result<Plan> {
        let mut plan = Plan::local_pair(DOMAIN, dir)?;
        for (key, value) in story::OVERRIDES {
            plan = plan.set(key, *value);
        }
        Ok(plan)
    }
}
