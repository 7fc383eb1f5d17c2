//! Wire scripts (`tests/scripts/*.txt`; what they may say stands in `client_sim::script`), each against one node, against
//! a pair with the script's people homed on different nodes, with a node killed in the middle, and against Prosody,
//! which proves the scripts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client_sim::script::{Failure, Middle, Names, Player, Script, Stage};
use load_tests::foreign::prosody::Prosody;
use load_tests::rig::{Nodes, QUICK, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use srm::demo::pair::{DOMAIN, PASSWORD};
use tokio::sync::{mpsc, watch};

const LIMIT: Duration = Duration::from_secs(20);

/// All scripts, with accounts of their own: the tag keeps those of several rounds apart. `TANDEM_SCRIPT`: only
/// these, with commas between.
fn scripts(round: &str) -> Vec<Script> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scripts")
        .map(|entry| entry.expect("a script").path())
        .collect();
    files.sort();
    if let Ok(wanted) = std::env::var("TANDEM_SCRIPT") {
        let wanted: Vec<&str> = wanted.split(',').collect();
        files.retain(|file| file.file_stem().is_some_and(|stem| wanted.iter().any(|name| stem == *name)));
    }
    assert!(!files.is_empty(), "no scripts");
    let load = |(index, file): (usize, &PathBuf)| {
        let names = Names { domain: DOMAIN.into(), tag: format!("{round}{index}") };
        Script::load(file, &names).unwrap_or_else(|error| panic!("{error}"))
    };
    files.iter().enumerate().map(load).collect()
}

fn accounts(scripts: &[Script]) -> Vec<String> {
    scripts.iter().flat_map(|script| script.accounts.clone()).collect()
}

/// Plays all at the same time.
async fn play(scripts: &[Script], stage: &Stage, mut middles: Vec<Option<Middle>>) -> Vec<Failure> {
    middles.resize_with(scripts.len(), || None);
    let plays = scripts.iter().zip(middles).map(|(script, middle)| {
        let (script, stage) = (script.clone(), stage.clone());
        tokio::spawn(async move { Player::new(&script, &stage).play(middle).await })
    });
    let mut failures = Vec::new();
    for play in plays.collect::<Vec<_>>() {
        failures.extend(play.await.expect("a player does not panic").err());
    }
    failures
}

fn assert_none(failures: &[Failure], count: usize, logs: &str) {
    let text: String = failures.iter().map(|failure| format!("{failure}\n")).collect();
    assert!(failures.is_empty(), "{} of {count} scripts failed\n{text}\n{logs}", failures.len());
    println!("{count} scripts played");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prosody_follows_the_scripts() {
    let scripts = scripts("p");
    let prosody = Prosody::start(&accounts(&scripts));
    let failures = play(&scripts, &on_prosody(&prosody), Vec::new()).await;
    assert_none(&failures, scripts.len(), &prosody.log());
}

fn on_prosody(prosody: &Prosody) -> Stage {
    Stage {
        server: "Prosody".into(),
        nodes: prosody.places(),
        dialer: prosody.dialer(),
        password: PASSWORD.into(),
        away: 0,
        dual: [false, false],
        limit: LIMIT,
    }
}

/// Scripts that are wrong on their last line, and what is said of it. In the first two the message comes a moment later:
/// without the pings behind it nothing would have come yet.
const WRONG: &[(&str, &str)] = &[
    (
        "Romeo sends:\n  <message to='juliet@example.org/b' id='m'/>\nJuliet receives nothing",
        "expected nothing",
    ),
    ("Romeo sends:\n  <message to='juliet@example.org/b' id='m'/>", "expected nothing"),
    (
        "Romeo sends:\n  <message to='juliet@example.org/b' id='m'/>\nJuliet receives:\n  <message \
         from='romeo@example.org/a' id='n'/>",
        "id of <message xmlns='jabber:client'> is 'm', not 'n'",
    ),
    ("Romeo opens a stream\nRomeo's stream ends with conflict", "the stream goes on"),
    ("Romeo sends:\n  <message to='juliet@example.org' id='{never}'/>", "{never} was not received before"),
    ("Romeo disconnects\nRomeo sends:\n  <presence/>", "it is not connected"),
];

/// A test that cannot fail proves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_script_fails_where_it_is_wrong() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cast =
        "Romeo is romeo@example.org/a\nJuliet is juliet@example.org/b\nRomeo connects\nJuliet connects\n";
    let load = |(index, (text, _)): (usize, &(&str, &str))| {
        let path = dir.path().join("wrong.txt");
        std::fs::write(&path, format!("{cast}{text}\n")).expect("a script");
        let names = Names { domain: DOMAIN.into(), tag: format!("w{index}") };
        Script::load(&path, &names).unwrap_or_else(|error| panic!("{error}"))
    };
    let scripts: Vec<Script> = WRONG.iter().enumerate().map(load).collect();
    let prosody = Prosody::start(&accounts(&scripts));
    let stage = Stage { limit: Duration::from_secs(5), ..on_prosody(&prosody) };
    for (script, (text, what)) in scripts.iter().zip(WRONG) {
        let failure = Player::new(script, &stage).play(None).await.expect_err(text);
        assert!(failure.what.contains(what), "{text}: {failure}");
        let step = text.lines().enumerate().filter(|(_, line)| !line.starts_with(' ')).last();
        let line = step.map_or(0, |(index, _)| cast.lines().count() + index + 1);
        let at_the_end = failure.place.ends_with("the end");
        assert!(at_the_end || failure.place.ends_with(&format!("wrong.txt:{line}")), "{failure}");
    }
}

/// A node, or a pair, ready.
struct Theatre {
    pair: Nodes,
}

impl Theatre {
    async fn open(nodes: usize) -> Theatre {
        Theatre { pair: Nodes::start(nodes, QUICK).await }
    }

    /// Gives every script its accounts: the first at the first node, the second at the next.
    fn admit(&self, scripts: &[Script]) {
        let nodes = self.pair.made.nodes.len();
        let homes = |script: &Script| {
            let accounts = script.accounts.clone().into_iter().enumerate();
            accounts.map(|(index, account)| (account, index % nodes)).collect::<Vec<_>>()
        };
        let all: Vec<_> = scripts.iter().flat_map(homes).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some((user, home)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.pair.user_add(*home, user, *home).expect("an account");
                    }
                });
            }
        });
    }

    fn stage(&self, away: usize, dual: [bool; 2]) -> Stage {
        Stage {
            server: "Tandem".into(),
            nodes: self.pair.places(),
            dialer: self.pair.dialer().expect("a CA"),
            password: PASSWORD.into(),
            away,
            dual,
            limit: LIMIT,
        }
    }

    fn logs(&self) -> String {
        self.pair.logs()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_follows_the_scripts() {
    let theatre = Theatre::open(1).await;
    let scripts = scripts("n");
    theatre.admit(&scripts);
    let failures = play(&scripts, &theatre.stage(0, [false, false]), Vec::new()).await;
    assert_none(&failures, scripts.len(), &theatre.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_follows_the_scripts_with_people_on_different_nodes() {
    let theatre = Theatre::open(2).await;
    let scripts = scripts("h");
    theatre.admit(&scripts);
    let failures = play(&scripts, &theatre.stage(0, [true, false]), Vec::new()).await;
    assert_none(&failures, scripts.len(), &theatre.logs());
}

/// Whatever node people come to, they are served as at home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_follows_the_scripts_with_everybody_at_the_other_node() {
    let theatre = Theatre::open(2).await;
    let scripts = scripts("x");
    theatre.admit(&scripts);
    let failures = play(&scripts, &theatre.stage(1, [false, true]), Vec::new()).await;
    assert_none(&failures, scripts.len(), &theatre.logs());
}

/// Each script comes to some step in its middle; then a node is killed while they all go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_go_on_over_kill_9_in_their_middle() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut theatre = Theatre::open(2).await;
    for (round, victim) in [("a", 0), ("b", 1), ("c", rng.random_range(0..2))] {
        let mut scripts = scripts(round);
        scripts.retain(|script| script.no_failover.is_none());
        theatre.admit(&scripts);
        let (go_on, phase) = watch::channel(0);
        let (reached, mut waiting) = mpsc::unbounded_channel();
        let mut middle = |script: &Script| {
            let steps = script.middles();
            let name = &script.name;
            assert!(
                !steps.is_empty(),
                "{name}: no step at which a node can be killed; say why in the script"
            );
            let step = steps[rng.random_range(0..steps.len())];
            println!("{name}: killed before {}", script.place(step));
            Some(Middle { step, reached: reached.clone(), phase: phase.clone() })
        };
        let middles = scripts.iter().map(&mut middle).collect();
        let stage = theatre.stage(0, [victim == 0, victim != 0]);
        let count = scripts.len();
        let playing = tokio::spawn(async move { play(&scripts, &stage, middles).await });
        for _ in 0..count {
            waiting.recv().await.expect("every script comes to its middle, or to its end");
        }
        go_on.send_replace(1);
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..4000))).await;
        theatre.pair.kill(victim).expect("it runs");
        go_on.send_replace(2);
        let failures = playing.await.expect("the players do not panic");
        assert_none(&failures, count, &theatre.logs());
        theatre.pair.start(victim).expect("it starts");
        theatre.back_to_normal(victim);
    }
}

impl Theatre {
    fn back_to_normal(&self, node: usize) {
        let other = 1 - node;
        let paired =
            |s: &srm::admin::Status| s.groups.iter().all(|g| g.mode == "Pair") && s.alarms.is_empty();
        self.pair
            .wait_status(other, LIMIT, "Pair", paired)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.logs()));
        self.pair.action(other, node, "fallback").unwrap_or_else(|e| panic!("{e}\n{}", self.logs()));
        self.pair.wait_normal(LIMIT).unwrap_or_else(|e| panic!("{e}\n{}", self.logs()));
    }
}
