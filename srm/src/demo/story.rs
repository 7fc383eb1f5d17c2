//! What happens in the demo, phase by phase.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use client_sim::fleet::{Fleet, FleetOptions};

use super::pair::{DOMAIN, PASSWORD, Pair, protected};
use super::report::{CountersLine, Report, StateLine};
use crate::admin::Status;

/// Settings that differ from the defaults: without them a demo would wait for minutes.
pub(super) const OVERRIDES: &[(&str, &str)] =
    &[("srm.client_re_login_lower_limit", "1s"), ("srm.client_re_login_upper_limit", "3s")];

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Accounts; half are homed on each node.
    pub users: usize,
    /// Share of clients without the dual connection, 0 to 1.
    pub plain: f64,
    /// Length of the load, faults included; `None`: as long as the story takes.
    pub seconds: Option<u64>,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Options {
    /// Home of each account: half and half.
    pub fn homes(&self) -> Vec<usize> {
        (0..self.users).map(|user| user % 2).collect()
    }
}

struct Stage<'a> {
    pair: &'a mut Pair,
    since: Instant,
    talk: bool,
    states: Arc<Mutex<Vec<StateLine>>>,
    counters: Vec<CountersLine>,
}

impl Stage<'_> {
    fn say(&self, text: &str) {
        if self.talk {
            eprintln!("{:6.1} s  {text}", self.since.elapsed().as_secs_f64());
        }
    }

    /// Notes what a node shows; says it if it is new.
    fn note(&self, status: &Status) {
        let mut states = self.states.lock().expect("no panic holds it");
        for node in &status.nodes {
            let last = states.iter().rev().find(|line| line.node == node.name);
            if last.is_none_or(|line| line.state != node.state || line.reason != node.reason) {
                let ms = self.since.elapsed().as_millis() as u64;
                let (name, state, reason) = (node.name.clone(), node.state.clone(), node.reason.clone());
                self.say(&format!("          node {name}: {state} / {reason}"));
                states.push(StateLine { ms, node: name, state, reason });
            }
        }
    }

    /// Waits, looking at node `at`, until its view fits.
    async fn until(
        &self,
        at: usize,
        limit: Duration,
        what: &str,
        fits: impl Fn(&Status) -> bool,
    ) -> anyhow::Result<Status> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.pair.status(at) {
                self.note(&status);
                if fits(&status) {
                    return Ok(status);
                }
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {limit:?}; see {}", self.pair.log_file(at).display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn chat(&self, at: usize, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Some(status) = self.pair.status(at) {
                self.note(&status);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn count(&mut self, phase: &str, at: usize) {
        let Some(status) = self.pair.status(at) else { return };
        for node in &status.nodes {
            let c = &node.counters;
            self.say(&format!(
                "          node {}: JsmSessionsClient {}  JsmSessionsClientInactive {}  ActiveJsmSessions {}  InactiveJsmSessions {}",
                node.name, c.jsm_sessions_client, c.jsm_sessions_client_inactive, c.active_jsm_sessions, c.inactive_jsm_sessions
            ));
            self.counters.push(CountersLine {
                phase: phase.to_owned(),
                node: node.name.clone(),
                counters: c.clone(),
            });
        }
    }
}

/// Starts both nodes, waits for Normal, adds the accounts.
pub fn bring_up(pair: &mut Pair, homes: &[usize]) -> anyhow::Result<()> {
    for node in 0..pair.made.nodes.len() {
        pair.start(node)?;
    }
    pair.wait_normal(Duration::from_secs(20))?;
    pair.add_users(homes)
}

/// The fleet of the demo on this pair.
pub async fn fleet(options: &Options, pair: &Pair) -> anyhow::Result<Fleet> {
    let mut fleet = FleetOptions::new(DOMAIN, PASSWORD, pair.places(), options.homes(), pair.dialer()?);
    fleet.plain = options.plain;
    fleet.seed = options.seed;
    fleet.logins_per_second = 150.0;
    Ok(Fleet::start(fleet).await)
}

/// The whole story on a pair that was made and not started.
pub async fn play(options: &Options, pair: &mut Pair, talk: bool) -> anyhow::Result<Report> {
    let mut stage = Stage { pair, since: Instant::now(), talk, states: Arc::default(), counters: Vec::new() };
    stage.say(&format!("two nodes start, {} accounts (seed {})", options.users, options.seed));
    bring_up(stage.pair, &options.homes())?;
    stage.until(0, Duration::from_secs(5), "Normal", protected).await?;
    stage.say("clients log in; each dual client parks a second stream at the other node");
    let fleet = fleet(options, stage.pair).await?;
    if !fleet.all_logged_in(Duration::from_secs(60)).await || !fleet.all_parked(Duration::from_secs(30)).await
    {
        bail!("clients could not log in and park: {:?} {:?}", fleet.snapshot(), fleet.report().error_list);
    }
    stage.count("all parked", 0);
    let load = Instant::now();
    stage.say("everybody chats, and changes presence now and then");
    fleet.start_sending();
    stage.chat(0, Duration::from_secs(3)).await;
    let sent_before = fleet.snapshot().messages.acknowledged;
    let rate = sent_before as f64 / load.elapsed().as_secs_f64();
    fault(&mut stage, &fleet).await?;
    way_back(&mut stage, &fleet).await?;
    let rest = options.seconds.map(|s| Duration::from_secs(s).saturating_sub(load.elapsed()));
    stage.chat(1, rest.unwrap_or(Duration::from_secs(2))).await;
    stage.say("the chat ends; everything sent must arrive");
    fleet.drain(Duration::from_secs(10)).await;
    // A double would come late: give it the time to show.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.count("end", 1);
    let states = stage.states.lock().expect("no panic holds it").clone();
    let report = Report::new(options, &fleet.report(), states, stage.counters, rate);
    fleet.stop().await;
    Ok(report)
}

async fn fault(stage: &mut Stage<'_>, fleet: &Fleet) -> anyhow::Result<()> {
    let name = stage.pair.made.nodes[0].name.clone();
    stage.say(&format!("kill -9 of node {name}, under load"));
    let at = stage.pair.signal(0, rustix::process::Signal::KILL)?;
    fleet.fault_at(&name, at);
    stage.pair.wait(0, Duration::from_secs(5))?;
    stage
        .until(1, Duration::from_secs(100), "node b serves all", |s| s.row == Some(17) || s.row == Some(16))
        .await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while fleet.fault_pending() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report = fleet.report();
    stage.say(&format!(
        "          dual clients: {} flipped, p50 {:.1} ms, p99 {:.1} ms; plain clients: {} resumed, p99 {:.1} ms",
        report.flip_ms.count, report.flip_ms.p50, report.flip_ms.p99, report.plain_resume_ms.count, report.plain_resume_ms.p99
    ));
    stage.count("node a killed", 1);
    stage.chat(1, Duration::from_secs(3)).await;
    Ok(())
}

async fn way_back(stage: &mut Stage<'_>, fleet: &Fleet) -> anyhow::Result<()> {
    let name = stage.pair.made.nodes[0].name.clone();
    stage.say(&format!("node {name} starts again and catches up, under load"));
    stage.pair.start(0)?;
    stage
        .until(1, Duration::from_secs(60), "node a is backup again", |s| {
            s.row == Some(103) && s.groups.iter().all(|g| g.mode == "Pair") && s.alarms.is_empty()
        })
        .await?;
    if !fleet.all_parked(Duration::from_secs(30)).await {
        bail!("clients did not park again: {:?}", fleet.snapshot());
    }
    stage.count("node a returned", 1);
    stage.say(&format!("fallback: node {name} takes its users back, one by one"));
    stage.pair.action(1, 0, "fallback")?;
    stage
        .until(1, Duration::from_secs(60), "fallback complete", |s| s.moving.is_none() && protected(s))
        .await?;
    stage.count("fallback complete", 1);
    Ok(())
}
