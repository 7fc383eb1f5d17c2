//! Memory of a server for an idle session, and of Tandem for a parked stream.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::{Kind, Settings};
use super::client::{Client, log_in_all};
use super::processes::Memory;
use super::report::Held;
use super::servers::{self, Running};

/// All sessions are at one node, so that it shows what a session costs its home and what it costs the standby.
fn at_the_first(_user: usize) -> usize {
    0
}

/// Starts the server, fills it with sessions that do nothing, and of a pair then parks a second stream for each.
pub async fn measure(kind: Kind, settings: &Settings) -> anyhow::Result<Vec<Held>> {
    let server = servers::start(kind, settings, settings.sessions, at_the_first).await?;
    let held = run(&server, kind, settings).await;
    held.with_context(|| format!("{}; it said:\n{}", kind.name(), server.said()))
}

async fn run(server: &Running, kind: Kind, settings: &Settings) -> anyhow::Result<Vec<Held>> {
    let rest = Duration::from_secs(settings.rest);
    sleep(rest).await;
    let empty = server.memory();
    let mut clients =
        log_in_all(&server.access, 0..settings.sessions, settings.at_once, at_the_first).await?;
    let mut second = Vec::new();
    if kind == Kind::Tandem {
        for client in &mut clients {
            second.push(client.ask_for_second().await?);
        }
    }
    let mut idle: JoinSet<_> = clients.into_iter().map(Client::idle).collect();
    sleep(rest).await;
    let full = server.memory();
    let name = server.name.to_owned();
    let mut all = held(server, &name, &empty, &full, settings.sessions);
    if kind == Kind::Tandem {
        for (user, sm_id) in second.iter().enumerate() {
            idle.spawn(server.access.park(user, 1, sm_id).await?.idle());
        }
        sleep(rest).await;
        let parked = server.memory();
        all.extend(held(server, &format!("{name}, parked"), &full, &parked, settings.sessions));
    }
    match idle.try_join_next() {
        None => Ok(all),
        Some(ended) => {
            ended.context("a client panicked")??;
            bail!("a session ended")
        }
    }
}

fn held(server: &Running, name: &str, before: &[Memory], after: &[Memory], sessions: usize) -> Vec<Held> {
    let nodes = server.processes.iter().zip(before.iter().zip(after));
    let each = nodes.map(|((node, _), (before, after))| {
        let (rss, pss) = after.growth(*before, sessions);
        Held {
            server: name.to_owned(),
            version: server.version.clone(),
            node: node.clone(),
            rss,
            pss,
            sessions: sessions as u64,
            empty: before.rss,
            full: after.rss,
        }
    });
    each.collect()
}
