//! How soon the users of a node that is killed are served by the other: those with a parked stream, those who log in again
//! within the limits that clients are told, and those who all come at once.

mod dual;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use rustix::process::{Resource, Signal, getrlimit};
use srm::demo::pair::{DOMAIN, Pair};
use srm::setup::Plan;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xmpp_core::sasl::KeyCache;

use super::args::FailoverArgs;
use super::client::{Access, Client, log_in_all};
use super::processes;
use super::servers::{binary, dialer};
use dual::{Announced, DualClient, Served};
use report::{Report, Row};

/// Longest time until both nodes are Normal.
const START: Duration = Duration::from_secs(30);
/// Limits are computed every five seconds: they are taken for the last ones when they stay for longer than two of these.
const SETTLED: Duration = Duration::from_secs(11);
/// Longest wait for limits that are computed, and stay.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest upper limit that is waited for, in seconds.
const LONGEST_S: u32 = 900;
/// Files that this process needs besides one for each stream.
const OTHER_FILES: u64 = 200;
/// Settings. All clients come from one address; the limits are to be those that logins need, and not those of the default.
const SETTINGS: [(&str, &str); 3] = [
    ("srm.user_assignment_mode", "active-standby"),
    ("srm.client_re_login_limits", "computed"),
    ("srm.client_re_login_upper_limit", "7200s"),
];

/// A pair whose users are all at home at the first node, and its folder. What stands first is dropped first.
struct Running {
    pair: Pair,
    access: Access,
    dir: tempfile::TempDir,
}

/// Everybody's home and first login.
fn at_a(_user: usize) -> usize {
    0
}

/// Measures and prints.
pub async fn run(args: &FailoverArgs) -> anyhow::Result<()> {
    let users = args.users as usize;
    enough_files(users)?;
    let mut report = Report { users, began: processes::load_average(), ..Report::default() };
    let patience = Duration::from_secs(args.patience);

    let running = start(args).await?;
    let (served, announced) = by_parked(&running, args, patience).await.with_context(|| running.said())?;
    drop(running);
    report.announced = announced;
    let (resumed, served): (Vec<_>, Vec<_>) = served.into_iter().unzip();
    report.rows.extend(Row::of("parked stream: session resumed", resumed));
    report.rows.extend(Row::of("parked stream: message delivered", served));

    for (what, limits) in
        [("log in again, within the limits", announced), ("log in again, all at once", (0, 0))]
    {
        if limits.1 > LONGEST_S {
            eprintln!(
                "measure: `{what}` is left out, since clients were told to wait for up to {} s",
                limits.1
            );
            continue;
        }
        let running = start(args).await?;
        let again = Arc::new(AtomicU64::new(0));
        let times =
            by_login(&running, args, limits, patience, &again).await.with_context(|| running.said())?;
        report.rows.extend(Row::of_logins(what, times, again.load(Ordering::Relaxed)));
    }
    report.ended = processes::load_average();
    print!("{}", report.text(args.common.form()));
    Ok(())
}

/// Each user has two streams here.
fn enough_files(users: usize) -> anyhow::Result<()> {
    let (needed, most) = (2 * users as u64 + OTHER_FILES, getrlimit(Resource::Nofile).current);
    if most.is_some_and(|most| most < needed) {
        bail!(
            "{users} users need {needed} open files, and {} are allowed: raise the hard limit (`ulimit -Hn {needed}` as \
             root), or take fewer --users",
            most.unwrap_or_default()
        );
    }
    Ok(())
}

async fn start(args: &FailoverArgs) -> anyhow::Result<Running> {
    let args = args.clone();
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::Builder::new().prefix("tandem-measure-").tempdir()?;
        let plan = Plan::local_pair(DOMAIN, dir.path())?.set("limits.connections_per_minute", 100_000_000i64);
        let plan = SETTINGS.iter().fold(plan, |plan, (key, value)| plan.set(key, *value));
        let mut pair = Pair::make(&binary(args.common.tandem.as_deref())?, &plan)?;
        pair.start(0)?;
        pair.start(1)?;
        pair.wait_normal(START)?;
        pair.add_users(&vec![0; args.users as usize])?;
        let keys = Arc::new(KeyCache::new());
        let access = Access { places: pair.places(), dialer: dialer(&pair.made.ca)?, floor: false, keys };
        Ok(Running { pair, access, dir })
    })
    .await?
}

impl Running {
    /// The end of what the node that is left has written.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(self.pair.log_file(1)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("node b, of {}, said:\n{last}", self.dir.path().display())
    }

    /// Kills the node that serves everybody.
    fn kill(&self) -> anyhow::Result<Instant> {
        self.pair.signal(0, Signal::KILL)
    }
}

/// For each user when the session went on, and when a message was delivered; and the limits that clients had been told.
async fn by_parked(
    running: &Running,
    args: &FailoverArgs,
    patience: Duration,
) -> anyhow::Result<(Vec<(Duration, Duration)>, (u32, u32))> {
    let users = args.users as usize;
    let mut mains = log_in_all(&running.access, 0..users, args.at_once, at_a).await?;
    let mut ids = Vec::with_capacity(users);
    for main in &mut mains {
        ids.push(main.ask_for_second().await?);
    }
    let parked = park_all(&running.access, ids, args.at_once).await?;
    let announced = Arc::new(Announced::default());
    let mut clients = JoinSet::new();
    for (main, parked) in mains.into_iter().zip(parked) {
        let announced = Arc::clone(&announced);
        clients.spawn(async move { DualClient::new(main, parked).serve(&announced).await });
    }
    let limits = undisturbed(&mut clients, settled(&announced)).await?;
    let killed = running.kill()?;
    let all = async {
        let mut times = Vec::with_capacity(users);
        while let Some(done) = clients.join_next().await {
            let Served { resumed, served } = done.context("a client panicked")??;
            times.push((resumed.saturating_duration_since(killed), served.saturating_duration_since(killed)));
        }
        Ok::<_, anyhow::Error>(times)
    };
    let times = timeout(patience, all).await.context("not everybody was served: raise --patience")??;
    Ok((times, limits))
}

/// Parks the second streams of users 0, 1, ... at the other node, in their order, so many at a time.
async fn park_all(access: &Access, ids: Vec<String>, at_once: usize) -> anyhow::Result<Vec<Client>> {
    let room = Arc::new(tokio::sync::Semaphore::new(at_once.max(1)));
    let mut parking = JoinSet::new();
    for (user, id) in ids.into_iter().enumerate() {
        let (access, room) = (access.clone(), Arc::clone(&room));
        parking.spawn(async move {
            let _turn = room.acquire_owned().await?;
            access.park(user, 1, &id).await
        });
    }
    let mut all = Vec::new();
    while let Some(done) = parking.join_next().await {
        all.push(done.context("a client panicked")??);
    }
    all.sort_by_key(|client| client.user);
    Ok(all)
}

/// Waits for the limits while no client ends.
async fn undisturbed(
    clients: &mut JoinSet<anyhow::Result<Served>>,
    limits: impl Future<Output = (u32, u32)>,
) -> anyhow::Result<(u32, u32)> {
    tokio::select! {
        limits = limits => Ok(limits),
        ended = clients.join_next() => {
            ended.context("there is nobody")?.context("a client panicked")??;
            bail!("a client was moved before the node was killed")
        }
    }
}

/// The limits that clients were told, when they have stayed for a while.
async fn settled(announced: &Announced) -> (u32, u32) {
    let begun = Instant::now();
    let (mut last, mut since) = (announced.limits(), Instant::now());
    while since.elapsed() < SETTLED && begun.elapsed() < SETTLE {
        sleep(Duration::from_millis(200)).await;
        let now = announced.limits();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// For each user when a new login at the other node was complete. `again`: counts attempts that failed.
async fn by_login(
    running: &Running,
    args: &FailoverArgs,
    limits: (u32, u32),
    patience: Duration,
    again: &Arc<AtomicU64>,
) -> anyhow::Result<Vec<Duration>> {
    let mains = log_in_all(&running.access, 0..args.users as usize, args.at_once, at_a).await?;
    let (tell, _) = tokio::sync::broadcast::channel::<Instant>(1);
    let mut clients = JoinSet::new();
    for main in mains {
        let (access, again, mut killed) = (running.access.clone(), Arc::clone(again), tell.subscribe());
        clients.spawn(async move {
            let user = main.user;
            let died = main.idle().await.err().context("an idle client ended in good order")?;
            let killed = killed.recv().await.with_context(|| format!("before the kill: {died:#}"))?;
            sleep(wait(limits).saturating_sub(killed.elapsed())).await;
            loop {
                match access.log_in(user, 1).await {
                    // It stays, as a session does.
                    Ok(client) => return Ok::<_, anyhow::Error>((killed.elapsed(), client)),
                    Err(_) => {
                        again.fetch_add(1, Ordering::Relaxed);
                        sleep(pause()).await;
                    }
                }
            }
        });
    }
    let killed = running.kill()?;
    let _ = tell.send(killed);
    let all = async {
        let (mut times, mut stay) = (Vec::new(), JoinSet::new());
        while let Some(done) = clients.join_next().await {
            let (time, client) = done.context("a client panicked")??;
            times.push(time);
            stay.spawn(client.idle());
        }
        Ok::<_, anyhow::Error>(times)
    };
    let limit = patience + Duration::from_secs(u64::from(limits.1));
    timeout(limit, all).await.context("not everybody could log in: raise --patience")?
}

/// The random time that a client waits within the limits.
fn wait((lower, upper): (u32, u32)) -> Duration {
    let (lower, upper) = (f64::from(lower), f64::from(upper.max(lower)));
    Duration::from_secs_f64(rand::rng().random_range(lower..=upper))
}

/// The pause before another attempt.
fn pause() -> Duration {
    Duration::from_secs_f64(rand::rng().random_range(0.5..=1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_wait_within_the_limits() {
        for _ in 0..1_000 {
            let waited = wait((10, 30));
            assert!(waited >= Duration::from_secs(10) && waited <= Duration::from_secs(30), "{waited:?}");
        }
        assert_eq!(wait((0, 0)), Duration::ZERO);
        assert_eq!(wait((7, 3)), Duration::from_secs(7), "an upper limit below the lower one");
    }

    #[test]
    fn too_many_users_for_the_files_are_refused_with_what_to_do() {
        assert!(enough_files(1).is_ok());
        if getrlimit(Resource::Nofile).current.is_some() {
            let error = enough_files(usize::MAX / 4).unwrap_err().to_string();
            assert!(error.contains("ulimit -Hn"), "{error}");
        }
    }
}
