//! How soon the users of a node that is killed are served by the other: those with a parked stream, those who log in again
//! within the limits that clients are told, and those who all come at once. Who has its home at the other node must notice
//! nothing of it.

mod dual;
mod report;
mod room;
mod split;
mod stay;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use rustix::process::Signal;
use srm::demo::pair::{DOMAIN, Pair};
use srm::setup::Plan;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xmpp_core::sasl::KeyCache;

use super::args::FailoverArgs;
use super::client::{Access, Client, log_in_all};
use super::processes;
use super::servers::{binary, dialer};
use dual::{Announced, DualClient, KEPT, Served};
use report::{Losses, Report, Row, Stayed};
use room::Room;
use split::{KILLED, LEFT, home, moved, other, split};
use stay::Stayers;

/// Longest time until both nodes are Normal.
const START: Duration = Duration::from_secs(30);
/// Limits are computed every five seconds: they are taken for the last ones when they stay for longer than two of these.
const SETTLED: Duration = Duration::from_secs(11);
/// Longest wait for limits that are computed, and stay.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest upper limit that is waited for, in seconds.
const LONGEST_S: u32 = 900;
/// Attempts to log in that all clients together make in a second, about: they take the nodes' processors.
const ATTEMPTS_PER_SECOND: f64 = 2_500.0;
/// Errors of clients that are told.
const TOLD: u64 = 3;
/// Settings. All clients come from few addresses; the limits are to be those that logins need, and not those of the default.
const SETTINGS: [(&str, &str); 2] =
    [("srm.client_re_login_limits", "computed"), ("srm.client_re_login_upper_limit", "7200s")];

/// A pair, and its folder. What stands first is dropped first.
struct Running {
    pair: Pair,
    access: Access,
    dir: tempfile::TempDir,
}

/// Measures and prints.
pub async fn run(args: &FailoverArgs) -> anyhow::Result<()> {
    let users = args.users as usize;
    let room = Room::now();
    room.holds(u64::from(args.users))?;
    let from = room.addresses(u64::from(args.users));
    let mut report = Report {
        users,
        moved: moved(args.assignment, users),
        assignment: args.assignment,
        began: processes::load_average(),
        ..Report::default()
    };
    let patience = Duration::from_secs(args.patience);

    let running = start(args, &from).await?;
    let parked = by_parked(&running, args, patience).await.with_context(|| running.said())?;
    drop(running);
    (report.announced, report.losses) = (parked.announced, parked.losses);
    report.stayed.extend(parked.stayed);
    report.rows.extend(Row::of("parked stream: session resumed", parked.resumed));
    report.rows.extend(Row::of("parked stream: message delivered", parked.served));

    for (what, limits) in
        [("log in again, within the limits", report.announced), ("log in again, all at once", (0, 0))]
    {
        if limits.1 > LONGEST_S {
            eprintln!(
                "measure: `{what}` is left out, since clients were told to wait for up to {} s",
                limits.1
            );
            continue;
        }
        let running = start(args, &from).await?;
        let back = by_login(&running, args, what, limits, patience).await.with_context(|| running.said())?;
        report.stayed.extend(back.stayed);
        report.rows.extend(Row::of_logins(what, back.times, back.again));
    }
    report.ended = processes::load_average();
    print!("{}", report.text(args.common.form()));
    report.verdict()
}

/// A pair with the accounts, whose clients come from these addresses.
async fn start(args: &FailoverArgs, from: &[IpAddr]) -> anyhow::Result<Running> {
    let (args, from) = (args.clone(), from.to_vec());
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::Builder::new().prefix("tandem-measure-").tempdir()?;
        let plan = Plan::local_pair(DOMAIN, dir.path())?
            .set("limits.connections_per_minute", 100_000_000i64)
            .set("srm.user_assignment_mode", args.assignment.as_str());
        let plan = SETTINGS.iter().fold(plan, |plan, (key, value)| plan.set(key, *value));
        let mut pair = Pair::make(&binary(args.common.tandem.as_deref())?, &plan)?;
        pair.start(KILLED)?;
        pair.start(LEFT)?;
        pair.wait_normal(START)?;
        pair.add_users(&(0..args.users as usize).map(home(args.assignment)).collect::<Vec<_>>())?;
        let keys = Arc::new(KeyCache::new());
        let access =
            Access { places: pair.places(), dialer: dialer(&pair.made.ca)?, floor: false, keys, from };
        Ok(Running { pair, access, dir })
    })
    .await?
}

impl Running {
    /// The end of what the node that is left has written.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(self.pair.log_file(LEFT)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("node b, of {}, said:\n{last}", self.dir.path().display())
    }

    /// Kills the node that serves those who are to move.
    fn kill(&self) -> anyhow::Result<Instant> {
        self.pair.signal(KILLED, Signal::KILL)
    }

    /// The first login of everybody, at home.
    async fn log_in(&self, args: &FailoverArgs) -> anyhow::Result<Vec<Client>> {
        log_in_all(&self.access, 0..args.users as usize, args.at_once, home(args.assignment)).await
    }
}

/// What came of a failover to parked streams.
#[derive(Default)]
struct Parked {
    /// For each user who moved, when its session went on.
    resumed: Vec<Duration>,
    /// When a message was delivered to it.
    served: Vec<Duration>,
    losses: Losses,
    /// The limits that they had been told.
    announced: (u32, u32),
    stayed: Option<Stayed>,
}

impl Parked {
    fn add(&mut self, killed: Instant, served: &Served) {
        self.resumed.push(served.resumed.saturating_duration_since(killed));
        self.served.push(served.served.saturating_duration_since(killed));
        self.losses.came(served.kept);
    }

    fn lost(&mut self, error: &anyhow::Error) {
        self.losses.sessions += 1;
        if self.losses.sessions <= TOLD {
            eprintln!("measure: {error:#}");
        }
    }
}

async fn by_parked(running: &Running, args: &FailoverArgs, patience: Duration) -> anyhow::Result<Parked> {
    let mains = running.log_in(args).await?;
    let both = park_all(&running.access, mains, args).await?;
    let (moving, staying) = split(both, args.assignment, |(main, _)| main.user);
    let announced = Arc::new(Announced::default());
    let mut clients = JoinSet::new();
    for (main, parked) in moving {
        let announced = Arc::clone(&announced);
        clients.spawn(async move { DualClient::new(main, parked).serve(&announced).await });
    }
    let staying = staying.into_iter().map(|(main, parked)| (main, Some(parked)));
    let stayers = Stayers::begin(&running.access, staying);
    let limits = undisturbed(&mut clients, settled(&announced)).await?;
    stayers.are_undisturbed()?;
    let killed = running.kill()?;
    let all = async {
        let (mut parked, mut stay) = (Parked { announced: limits, ..Parked::default() }, JoinSet::new());
        while let Some(done) = clients.join_next().await {
            match done.context("a client panicked")? {
                Ok((served, client)) => {
                    parked.add(killed, &served);
                    stay.spawn(client.idle());
                }
                Err(error) => parked.lost(&error),
            }
        }
        Ok::<_, anyhow::Error>((parked, stay))
    };
    let all = timeout(patience, all).await.context("not everybody was served: raise --patience")?;
    let (parked, _stay) = all?;
    Ok(Parked { stayed: stayers.end("parked stream", patience).await, ..parked })
}

/// Parks a second stream of each session at the node that is not its home, in the order of the users, so many at a time.
/// Those who are to move leave a message unhandled.
async fn park_all(
    access: &Access,
    mains: Vec<Client>,
    args: &FailoverArgs,
) -> anyhow::Result<Vec<(Client, Client)>> {
    let (home, turns) = (home(args.assignment), Arc::new(tokio::sync::Semaphore::new(args.at_once.max(1))));
    let mut parking = JoinSet::new();
    for mut main in mains {
        let (access, turns) = (access.clone(), Arc::clone(&turns));
        parking.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            let (id, at) = (main.ask_for_second().await?, home(main.user));
            let parked = access.park(main.user, other(at), &id).await?;
            if at == KILLED {
                main.leave_unhandled(KEPT).await?;
            }
            Ok::<_, anyhow::Error>((main, parked))
        });
    }
    let mut all = Vec::new();
    while let Some(done) = parking.join_next().await {
        all.push(done.context("a client panicked")??);
    }
    all.sort_by_key(|(main, _)| main.user);
    Ok(all)
}

/// Waits for the limits while no client ends.
async fn undisturbed(
    clients: &mut JoinSet<anyhow::Result<(Served, Client)>>,
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

/// What came of logins at the other node.
struct Back {
    /// For each user who moved, when it was complete.
    times: Vec<Duration>,
    /// Attempts that failed.
    again: u64,
    stayed: Option<Stayed>,
}

async fn by_login(
    running: &Running,
    args: &FailoverArgs,
    what: &str,
    limits: (u32, u32),
    patience: Duration,
) -> anyhow::Result<Back> {
    let (moving, staying) = split(running.log_in(args).await?, args.assignment, |main| main.user);
    let (users, again) = (moving.len(), Arc::new(AtomicU64::new(0)));
    let (tell, _) = tokio::sync::broadcast::channel::<Instant>(1);
    let mut clients = JoinSet::new();
    for main in moving {
        let (access, again, mut killed) = (running.access.clone(), Arc::clone(&again), tell.subscribe());
        clients.spawn(async move {
            let user = main.user;
            let died = main.idle().await.err().context("an idle client ended in good order")?;
            let killed = killed.recv().await.with_context(|| format!("before the kill: {died:#}"))?;
            sleep(wait(limits).saturating_sub(killed.elapsed())).await;
            loop {
                match access.log_in(user, LEFT).await {
                    // It stays, as a session does.
                    Ok(client) => return Ok::<_, anyhow::Error>((killed.elapsed(), client)),
                    Err(_) => {
                        again.fetch_add(1, Ordering::Relaxed);
                        sleep(pause(users)).await;
                    }
                }
            }
        });
    }
    let stayers = Stayers::begin(&running.access, staying.into_iter().map(|main| (main, None)));
    let killed = running.kill()?;
    let _ = tell.send(killed);
    let all = async {
        let (mut times, mut stay) = (Vec::with_capacity(users), JoinSet::new());
        while let Some(done) = clients.join_next().await {
            let (time, client) = done.context("a client panicked")??;
            times.push(time);
            stay.spawn(client.idle());
        }
        Ok::<_, anyhow::Error>((times, stay))
    };
    let limit = patience + Duration::from_secs(u64::from(limits.1));
    let all = timeout(limit, all).await.context("not everybody could log in: raise --patience")?;
    let (times, _stay) = all?;
    let stayed = stayers.end(what, patience).await;
    Ok(Back { times, again: again.load(Ordering::Relaxed), stayed })
}

/// The random time that a client waits within the limits.
fn wait((lower, upper): (u32, u32)) -> Duration {
    let (lower, upper) = (f64::from(lower), f64::from(upper.max(lower)));
    Duration::from_secs_f64(rand::rng().random_range(lower..=upper))
}

/// The pause before another attempt of one of so many users: the longer, the more of them share the machine with the nodes.
fn pause(users: usize) -> Duration {
    let mean = (users as f64 / ATTEMPTS_PER_SECOND).max(1.0);
    let part: f64 = rand::rng().random_range(0.5..=1.5);
    Duration::from_secs_f64(mean * part)
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
    fn more_clients_make_no_more_attempts_in_a_second() {
        let within = |users, lower, upper| {
            let all = (0..1_000).map(|_| pause(users)).collect::<Vec<_>>();
            let (lower, upper) = (Duration::from_secs_f64(lower), Duration::from_secs_f64(upper));
            assert!(all.iter().all(|pause| *pause >= lower && *pause <= upper), "{users}: {all:?}");
        };
        within(1, 0.5, 1.5);
        within(2_500, 0.5, 1.5);
        within(25_000, 5.0, 15.0);
    }
}
