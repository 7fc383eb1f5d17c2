//! Real processes under load: a pair or a single node in a temporary folder, a fleet with its ledger, and the faults.

mod ask;
mod binary;
mod place;
mod witness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use client_sim::conn::Dialer;
use client_sim::fleet::{Fleet, FleetOptions, FleetReport};
use srm::admin::Status;
use srm::demo::pair::{DOMAIN, PASSWORD, Pair, protected};
use srm::setup::Plan;
use tokio::sync::{Mutex, MutexGuard};

pub use binary::tandem;
pub use place::place;

/// Tests with processes take turns: they measure, and there are two cores.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits for the turn of a test that starts processes.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// Settings that tests use: short waits, and nothing that depends on the time of the day; everything else as it is.
pub const QUICK: &[(&str, &str)] = &[
    ("srm.client_re_login_lower_limit", "0s"),
    ("srm.client_re_login_upper_limit", "1s"),
    ("srm.nightly_check", "false"),
];

/// A plan with these settings: numbers, `true` and `false` as they are, everything else as text.
pub fn with(plan: Plan, settings: &[(&str, &str)]) -> Plan {
    settings.iter().fold(plan, |plan, (key, value)| match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) => plan.set(key, number),
        (_, Ok(flag)) => plan.set(key, flag),
        _ => plan.set(key, *value),
    })
}

/// How many users, and how they chat.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Users, half on each node.
    pub users: usize,
    /// Share of plain clients.
    pub plain: f64,
    /// Mean time between two messages of one user.
    pub interval: Duration,
    /// Seed.
    pub seed: u64,
}

/// A running pair (or single node) with a fleet.
pub struct Rig {
    /// The processes.
    pub pair: Pair,
    /// The clients.
    pub fleet: Fleet,
    /// How they connect.
    pub dialer: Dialer,
    /// Who decides between the nodes, if anybody does.
    _witness: Option<witness::Witness>,
    dir: tempfile::TempDir,
    /// `None`: the test has the turn itself.
    _turn: Option<MutexGuard<'static, ()>>,
}

/// A seed from the environment (`TANDEM_SEED`), or from the clock; printed, so that a failure can be played again.
pub fn seed() -> u64 {
    let given = std::env::var("TANDEM_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random::<u32>().into());
    println!("TANDEM_SEED={seed}");
    seed
}

/// A folder for the nodes of one test.
fn folder() -> tempfile::TempDir {
    let mut dir = tempfile::Builder::new();
    dir.prefix("tandem-test-").tempdir_in(place()).expect("a temporary folder")
}

impl Rig {
    /// Makes, starts and loads `nodes` nodes. `env`: environment of each node's first start.
    pub async fn start(
        nodes: usize,
        load: Load,
        settings: &[(&str, &str)],
        env: &[(usize, &str, String)],
    ) -> Rig {
        Rig::start_at(nodes, load, settings, env, |user| user % nodes).await
    }

    /// The same with clients that log in at the node that `login` says; the account's home is another matter.
    pub async fn start_at(
        nodes: usize,
        load: Load,
        settings: &[(&str, &str)],
        env: &[(usize, &str, String)],
        login: impl Fn(usize) -> usize,
    ) -> Rig {
        let turn = TURN.lock().await;
        let dir = folder();
        let plan = if nodes == 2 {
            Plan::local_pair(DOMAIN, dir.path())
        } else {
            Plan::local_single(DOMAIN, dir.path())
        };
        let plan = with(plan.expect("free ports"), settings);
        Rig { _turn: Some(turn), ..Rig::serve(dir, &plan, load, env, login).await }
    }

    /// A pair that runs beside others of the same test, which has the turn (see [`turn`]) itself; with a witness or without.
    pub async fn start_beside(
        witness: bool,
        load: Load,
        settings: &[(&str, &str)],
        env: &[(usize, &str, String)],
    ) -> Rig {
        let dir = folder();
        let plan = with(Plan::local_pair(DOMAIN, dir.path()).expect("free ports"), settings);
        let plan = if witness { plan.local_witness().expect("a free port") } else { plan };
        Rig::serve(dir, &plan, load, env, |user| user % 2).await
    }

    /// Starts what was planned, and the clients.
    async fn serve(
        dir: tempfile::TempDir,
        plan: &Plan,
        load: Load,
        env: &[(usize, &str, String)],
        login: impl Fn(usize) -> usize,
    ) -> Rig {
        let nodes = plan.nodes.len();
        let mut pair = Pair::make(&tandem(), plan).expect("files are made");
        let witness = pair.made.witness.as_deref().map(|config| witness::Witness::start(config, dir.path()));
        for (node, key, value) in env {
            pair.env(*node, key, Some(value));
        }
        for node in 0..nodes {
            pair.start(node).expect("the node starts");
        }
        let homes: Vec<usize> = (0..load.users).map(|user| user % nodes).collect();
        if nodes == 2 {
            pair.wait_normal(Duration::from_secs(20)).expect("Normal");
        } else {
            pair.wait_status(0, Duration::from_secs(20), "serving", |s| matches!(s.row, Some(1 | 120)))
                .expect("serving");
        }
        pair.add_users(&homes).expect("accounts");
        let places = (0..load.users).map(login).collect();
        let dialer = pair.dialer().expect("a CA");
        let mut options = FleetOptions::new(DOMAIN, PASSWORD, pair.places(), places, dialer.clone());
        options.plain = load.plain;
        options.interval = load.interval;
        options.seed = load.seed;
        options.change_presence = load.interval * 5;
        let fleet = Fleet::start(options).await;
        assert!(
            fleet.all_logged_in(Duration::from_secs(30)).await,
            "logins: {:?}",
            fleet.report().error_list
        );
        if nodes == 2 {
            assert!(fleet.all_parked(Duration::from_secs(30)).await, "parking: {:?}", fleet.snapshot());
        }
        fleet.start_sending();
        Rig { pair, fleet, dialer, dir, _witness: witness, _turn: None }
    }

    /// The data folder of a node.
    pub fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(&self.pair.made.nodes[node].name).join("data")
    }

    /// `kill -9`, with the clients' clocks started; does not wait for the clients.
    pub fn kill(&mut self, node: usize) {
        let name = self.pair.made.nodes[node].name.clone();
        let at = self.pair.signal(node, rustix::process::Signal::KILL).expect("the node runs");
        self.fleet.fault_at(&name, at);
        self.pair.wait(node, Duration::from_secs(10)).expect("a killed process ends");
    }

    /// A fault that is about to hit a node by other means than a signal: the clients' clocks start.
    pub fn mark_fault(&self, node: usize) {
        self.fleet.fault_at(&self.pair.made.nodes[node].name, Instant::now());
    }

    /// Waits for the clients where another node serves them; a single node's clients wait for its return.
    pub async fn clients_go_on_without(&self, limit: Duration) {
        if self.pair.made.nodes.len() > 1 {
            self.clients_go_on(limit).await;
        }
    }

    /// Waits until every client that was hit by a fault goes on.
    pub async fn clients_go_on(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.fleet.fault_pending() > 0 || !self.everybody_in() {
            assert!(Instant::now() < deadline, "clients hang: {:?}\n{}", self.fleet.snapshot(), self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn everybody_in(&self) -> bool {
        let now = self.fleet.snapshot();
        now.logged_in == now.users
    }

    /// Waits for a condition on a node's view.
    pub fn until(&self, node: usize, limit: Duration, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
        match self.pair.wait_status(node, limit, what, fits) {
            Ok(status) => status,
            Err(error) => panic!("{error}\n{}", self.logs()),
        }
    }

    /// Both groups in Pair with backups that can take over, whoever leads, on both views.
    pub fn until_paired(&self, limit: Duration) {
        let paired = self.pair.wait_all(limit, "Pair", |s| {
            s.groups.iter().all(|g| g.mode == "Pair") && s.alarms.is_empty() && s.moving.is_none()
        });
        paired.unwrap_or_else(|e| panic!("{e}\n{}", self.logs()));
    }

    /// Fallback to a node, complete.
    pub async fn fallback(&self, node: usize) {
        assert!(self.fleet.all_parked(Duration::from_secs(30)).await, "parking: {:?}", self.fleet.snapshot());
        // A node that was started a moment ago may still be in the other's eyes the process that died: its refusal says
        // to ask again.
        let asked = Instant::now();
        while let Err(e) = self.pair.action(1 - node, node, "fallback") {
            let again = e.to_string().contains("is not heard") && asked.elapsed() < Duration::from_secs(10);
            assert!(again, "{e}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.until(1 - node, Duration::from_secs(30), "fallback complete", |s| {
            s.moving.is_none() && protected(s)
        });
        self.until(node, Duration::from_secs(10), "fallback complete", protected);
        self.clients_go_on(Duration::from_secs(20)).await;
    }

    /// Waits until so many more messages were acknowledged: traffic goes on.
    pub async fn traffic(&self, more: u64) {
        let goal = self.fleet.snapshot().messages.acknowledged + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.fleet.snapshot().messages.acknowledged < goal {
            assert!(
                Instant::now() < deadline,
                "traffic stands still: {:?}\n{}",
                self.fleet.snapshot(),
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end: everything sent must arrive, once, in order.
    pub async fn settle(&self) -> FleetReport {
        self.settle_where(false).await
    }

    /// The end where a node took over that could not know whether the other had gone on alone (policy `available`): sessions
    /// may have been refused. Nothing is lost all the same, and nobody else gets anything twice.
    pub async fn settle_but_refused(&self) -> FleetReport {
        self.settle_where(true).await
    }

    async fn settle_where(&self, refused: bool) -> FleetReport {
        let drained = self.fleet.drain(Duration::from_secs(20)).await;
        // A double would come behind: one more round of stanzas through every session shows it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report = self.fleet.report();
        let ledger = &report.ledger;
        let anew = |who: &String| refused && report.refused.contains_key(who);
        let kept = ledger.lost == 0
            && ledger.strangers == 0
            && ledger.disturbed.iter().all(|(sender, receiver)| anew(sender) || anew(receiver));
        let resumed = report.fault_unresumed == 0 || refused && !report.refused.is_empty();
        let whole = drained && kept && ledger.unacknowledged == 0 && resumed;
        let presence = &report.presence;
        println!(
            "presence: {} changes, shown {}, flickers {}, repeats {}, missed {}",
            presence.changes, presence.shown, presence.flickers, presence.repeats, presence.missed
        );
        let whole = whole && presence.kept() && presence.shown > 0;
        assert!(whole, "the ledger is not clean: {report:#?}\n{}", self.logs());
        assert!(ledger.acknowledged > 0, "nothing was sent");
        report
    }

    /// The last lines of the nodes' logs.
    pub fn logs(&self) -> String {
        last_lines(&self.pair)
    }
}

/// The last lines of the nodes' logs.
pub fn last_lines(pair: &Pair) -> String {
    let mut all = String::new();
    for node in 0..pair.made.nodes.len() {
        let text = std::fs::read_to_string(pair.log_file(node)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(25)..];
        all.push_str(&format!("--- {}\n{}\n", pair.made.nodes[node].name, last.join("\n")));
    }
    all
}
