//! Processor time of a server for a login: TCP, TLS, SASL, bind, stream management, presence.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::{Kind, Settings};
use super::client::{Client, log_in_all};
use super::messages::home;
use super::processes::{self, Machine};
use super::report::Sample;
use super::servers::{self, Running};

/// Users that log in and out before it counts: code is loaded and tables have grown by then.
const WARM_UP: usize = 100;
/// What a server still does for a login that its client has seen the end of.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// One run, with a server of its own.
pub async fn measure(kind: Kind, settings: &Settings) -> anyhow::Result<Sample> {
    let server = servers::start(kind, settings, WARM_UP + settings.logins, home).await?;
    run(&server, settings).await.with_context(|| format!("{}; it said:\n{}", kind.name(), server.said()))
}

async fn run(server: &Running, settings: &Settings) -> anyhow::Result<Sample> {
    let warm = log_in_all(&server.access, 0..WARM_UP, settings.at_once, home).await?;
    warm.into_iter().map(Client::log_out).collect::<JoinSet<()>>().join_all().await;
    sleep(AFTERWARDS).await;
    let (cpu, machine, since) = (server.cpu(), Machine::now(), Instant::now());
    let users = WARM_UP..WARM_UP + settings.logins;
    let clients = log_in_all(&server.access, users, settings.at_once, home).await?;
    let (time, busy) = (since.elapsed(), Machine::now().busy_since(machine));
    sleep(AFTERWARDS).await;
    let spent = server.cpu() - cpu;
    Ok(Sample {
        server: server.name.into(),
        version: server.version.clone(),
        cpu_us: spent.as_secs_f64() * 1e6 / clients.len() as f64,
        rate: clients.len() as f64 / time.as_secs_f64(),
        count: clients.len() as u64,
        asked: 0.0,
        busy,
        load: processes::load_average(),
    })
}
