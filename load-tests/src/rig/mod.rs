//! Real processes under load: a pair or a single node in a temporary folder, a fleet with its ledger, and the faults.

mod ask;
mod binary;
mod nodes;
mod person;
mod place;
mod turn;
mod witness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use client_sim::conn::Dialer;
use client_sim::fleet::{Fleet, FleetOptions, FleetReport};
use srm::admin::Status;
use srm::demo::pair::{DOMAIN, PASSWORD, protected};
use srm::setup::Plan;

pub use binary::tandem;
pub use nodes::{Nodes, last_lines};
pub use person::{Person, account};
pub use place::place;
pub use turn::{Turn, alone, turn};

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
    pub pair: Nodes,
    /// The clients.
    pub fleet: Fleet,
    /// How they connect.
    pub dialer: Dialer,
    /// Who decides between the nodes, if anybody does.
    _witness: Option<witness::Witness>,
}

/// A seed from the environment (`TANDEM_SEED`), or from the clock; printed, so that a failure can be played again.
pub fn seed() -> u64 {
    let given = std::env::var("TANDEM_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random::<u32>().into());
    println!("TANDEM_SEED={seed}");
    seed
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
        Rig::serve(Nodes::make(nodes, settings).await, load, env, login).await
    }

    /// The same with no test beside it, for one that measures times of milliseconds.
    pub async fn start_alone(
        nodes: usize,
        load: Load,
        settings: &[(&str, &str)],
        env: &[(usize, &str, String)],
    ) -> Rig {
        let made = Nodes::make_as(alone().await, nodes, false, settings);
        Rig::serve(made, load, env, |user| user % nodes).await
    }

    /// A pair with a witness.
    pub async fn start_with_witness(
        load: Load,
        settings: &[(&str, &str)],
        env: &[(usize, &str, String)],
    ) -> Rig {
        let made = Nodes::make_as(turn().await, 2, true, settings);
        Rig::serve(made, load, env, |user| user % 2).await
    }

    /// Starts what was made, and the clients.
    async fn serve(
        mut pair: Nodes,
        load: Load,
        env: &[(usize, &str, String)],
        login: impl Fn(usize) -> usize,
    ) -> Rig {
        let nodes = pair.made.nodes.len();
        let witness =
            pair.made.witness.as_deref().map(|config| witness::Witness::start(config, pair.folder()));
        for (node, key, value) in env {
            pair.env(*node, key, Some(value));
        }
        pair.serve();
        let homes: Vec<usize> = (0..load.users).map(|user| user % nodes).collect();
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
        Rig { pair, fleet, dialer, _witness: witness }
    }

    /// The data folder of a node.
    pub fn data(&self, node: usize) -> PathBuf {
        self.pair.folder().join(&self.pair.made.nodes[node].name).join("data")
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
        self.pair.logs()
    }
}
