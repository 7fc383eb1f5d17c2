//! Processor time of a server for a message: users chat in pairs, one message of each in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::args::{Kind, Settings};
use super::client::{Client, Traffic, log_in_all};
use super::processes::{self, Machine};
use super::report::Sample;
use super::servers::{self, Running};

/// The home of each user. Of four pairs one is within each node and two are across, as for users of a pair who know
/// nothing of nodes.
pub fn home(user: usize) -> usize {
    [0, 0, 1, 1, 0, 1, 1, 0][user % 8]
}

/// One run: a server of its own, a warm-up, and then the time that counts.
pub async fn measure(kind: Kind, settings: &Settings) -> anyhow::Result<Sample> {
    let server = servers::start(kind, settings, settings.users, home).await?;
    run(&server, settings).await.with_context(|| format!("{}; it said:\n{}", kind.name(), server.said()))
}

async fn run(server: &Running, settings: &Settings) -> anyhow::Result<Sample> {
    let clients = log_in_all(&server.access, 0..settings.users, settings.at_once, home).await?;
    let traffic = Arc::new(Traffic::default());
    let mut chats = JoinSet::new();
    for client in clients {
        chats.spawn(chat(client, settings.body, settings.ack_every, Arc::clone(&traffic)));
    }
    let count = || (traffic.arrived.load(Ordering::Relaxed), traffic.asked.load(Ordering::Relaxed));
    undisturbed(&mut chats, Duration::from_secs(settings.warm_up)).await?;
    let (cpu, machine, since, before) = (server.cpu(), Machine::now(), Instant::now(), count());
    undisturbed(&mut chats, settings.counted()).await?;
    let (time, now) = (since.elapsed(), count());
    let (spent, busy) = (server.cpu() - cpu, Machine::now().busy_since(machine));
    let (messages, asked) = (now.0 - before.0, now.1 - before.1);
    if messages == 0 {
        bail!("no message arrived in {} s", settings.seconds);
    }
    Ok(Sample {
        server: server.name.into(),
        version: server.version.clone(),
        cpu_us: spent.as_secs_f64() * 1e6 / messages as f64,
        rate: messages as f64 / time.as_secs_f64(),
        count: messages,
        asked: asked as f64 / messages as f64,
        busy,
        load: processes::load_average(),
    })
}

async fn chat(client: Client, body: usize, ack_every: u32, traffic: Arc<Traffic>) -> anyhow::Result<()> {
    client.chat(body, ack_every, &traffic).await
}

/// Lets the chats go on for this long. They never end by themselves but by an error.
async fn undisturbed(chats: &mut JoinSet<anyhow::Result<()>>, time: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        ended = chats.join_next() => {
            ended.context("there is nobody")?.context("a client panicked")??;
            bail!("a chat ended")
        }
    }
}
