//! kill -9 of either node under load, at seeded moments and at every named point: nothing lost, doubled or reordered.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use session_mover::kill::POINTS;
use srm::admin::ServiceAction;
use srm::cli::Client;

const LIMIT: Duration = Duration::from_secs(20);

fn load(seed: u64) -> Load {
    Load { users: 40, plain: 0.25, interval: Duration::from_millis(100), seed }
}

/// 30 rounds with one fleet. The flips need no timer: evidence of death is positive and comes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_thirty_seeded_moments() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::start(2, load(seed), QUICK, &[]).await;
    for round in 0..30 {
        let node = rng.random_range(0..2);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        let since = std::time::Instant::now();
        rig.kill(node);
        rig.clients_go_on(LIMIT).await;
        rig.traffic(20).await;
        let gone_on = since.elapsed();
        rig.pair.start(node).unwrap();
        rig.until_paired(LIMIT);
        let paired = since.elapsed();
        assert!(rig.fleet.all_parked(LIMIT).await, "round {round}: {:?}", rig.fleet.snapshot());
        let parked = since.elapsed();
        rig.fallback(node).await;
        println!(
            "round {round}: on {gone_on:.1?} paired {paired:.1?} parked {parked:.1?} back {:.1?}",
            since.elapsed()
        );
    }
    let report = rig.settle().await;
    let flips = &report.counters.flips;
    println!("flip_ms {:?}, plain_resume_ms {:?}, {flips:?}", report.flip_ms, report.plain_resume_ms);
    assert!(report.flip_ms.count >= 300, "{report:?}");
    // On the way back dual clients swap their streams; nobody has to look for a node.
    assert!(flips.moving >= 300, "{report:?}");
    // A lease is 3 s, and the shortest silence timer 10 s: these came from dead evidence, and most of them at once.
    assert!(report.flip_ms.max < 2_500.0 && report.flip_ms.p50 < 500.0, "{report:?}");
}

/// Starts node 0 so that it dies at `step`, gives it its users back as soon as it may have them, and waits for its end;
/// `false`: it is in Pair again and `patience` has passed without reaching the point.
async fn dies_at(rig: &mut Rig, step: &str, patience: Duration) -> bool {
    rig.clients_go_on(LIMIT).await;
    rig.pair.env(0, "TANDEM_KILL_AT", Some(step));
    rig.pair.start(0).unwrap();
    let deadline = std::time::Instant::now() + patience;
    let mut went_back = false;
    while !rig.pair.ended(0) {
        if std::time::Instant::now() > deadline {
            return false;
        }
        // Points on the way of a primary's own work are reached once the users are back.
        if !went_back && rig.pair.status(1).is_some_and(|s| s.row == Some(103) && s.alarms.is_empty()) {
            went_back = rig.pair.action(1, 0, "fallback").is_ok();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.pair.wait(0, LIMIT).unwrap();
    println!("{step}: killed");
    true
}

/// Each kill point once, on a node that serves and backs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kill_point_once() {
    let seed = seed();
    let mut rig = Rig::start(2, load(seed), QUICK, &[]).await;
    for point in POINTS {
        rig.kill(0);
        match *point {
            // A divergent tail is what a node leaves that dies between its disk and its link: nearly always so right
            // after a write, and the point is reached by the next start that finds one.
            "log.truncate.after_aside" => {
                let mut reached = false;
                for _ in 0..10 {
                    assert!(dies_at(&mut rig, "log.own.after_write:40", LIMIT).await, "{}", rig.logs());
                    reached = dies_at(&mut rig, "log.truncate.after_aside:1", Duration::from_secs(4)).await;
                    if reached {
                        break;
                    }
                    rig.kill(0);
                }
                assert!(reached, "no tail had to be cut in ten kills\n{}", rig.logs());
            }
            _ => {
                let nth = match *point {
                    "core.before_persist" | "move.before_event" | "move.after_event" => 1,
                    "core.after_persist" => 2,
                    "beacon.before_send" => 6,
                    _ => 30,
                };
                assert!(
                    dies_at(&mut rig, &format!("{point}:{nth}"), LIMIT).await,
                    "{point}: not reached\n{}",
                    rig.logs()
                );
            }
        }
        rig.clients_go_on(LIMIT).await;
        rig.pair.env(0, "TANDEM_KILL_AT", None);
        rig.pair.start(0).unwrap();
        rig.until_paired(LIMIT);
        assert!(rig.fleet.all_parked(LIMIT).await, "{point}: {:?}", rig.fleet.snapshot());
        if rig.pair.status(1).is_some_and(|s| s.row != Some(1)) {
            rig.fallback(0).await;
        }
    }
    rig.settle().await;
}

/// Both at once, started again in either order: everything acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_killed_and_started_in_either_order() {
    let seed = seed();
    let mut rig = Rig::start(2, load(seed), QUICK, &[]).await;
    for first in [0, 1] {
        rig.traffic(100).await;
        rig.kill(first);
        rig.kill(1 - first);
        rig.pair.start(first).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        rig.pair.start(1 - first).unwrap();
        let since = std::time::Instant::now();
        rig.until_paired(Duration::from_secs(10));
        rig.pair.wait_normal(Duration::from_secs(10)).unwrap();
        println!("Normal {:?} after the second start", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(10));
        rig.clients_go_on(Duration::from_secs(30)).await;
        assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
    }
    rig.settle().await;
}

/// SIGTERM: dual clients see a flip, plain ones one closed connection and a resume; the process ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_hands_everything_over_and_leaves() {
    let seed = seed();
    let mut rig = Rig::start(2, load(seed), QUICK, &[]).await;
    // Whom the first one left with stays where it went, as at a front: the second one has all ten plain clients.
    for (node, plain) in [(0, 5), (1, 10)] {
        rig.traffic(50).await;
        let before = rig.fleet.snapshot();
        rig.pair.signal(node, rustix::process::Signal::TERM).unwrap();
        let status = rig.pair.wait(node, Duration::from_secs(35)).unwrap();
        assert!(status.success(), "{status:?}\n{}", rig.logs());
        rig.clients_go_on(LIMIT).await;
        let after = rig.fleet.snapshot();
        // 20 users on each node, a quarter of them plain.
        assert_eq!(after.flips.moving - before.flips.moving, 15, "{after:?}");
        assert_eq!(after.resumes - before.resumes, plain, "{after:?}");
        assert_eq!(after.binds_anew, before.binds_anew);
        rig.traffic(50).await;
        rig.pair.start(node).unwrap();
        rig.until_paired(LIMIT);
        rig.fallback(node).await;
    }
    rig.settle().await;
}

/// The operator's failover and fallback under load: nobody reconnects. Dual clients flip; of plain ones' streams the node
/// that gave their sessions away is the front.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_and_fallback_at_the_operators_request() {
    let seed = seed();
    let rig = Rig::start(2, load(seed), QUICK, &[]).await;
    for node in [0, 1] {
        rig.traffic(50).await;
        rig.pair.action(1 - node, node, "failover").unwrap();
        rig.until(node, LIMIT, "row 3", |s| s.row == Some(3) && s.moving.is_none());
        let refused = rig.pair.action(node, node, "failover").unwrap_err().to_string();
        assert!(refused.contains("refused"), "{refused}");
        rig.clients_go_on(LIMIT).await;
        rig.traffic(50).await;
        rig.fallback(node).await;
    }
    let report = rig.settle().await;
    assert_eq!(report.counters.resumes, 0, "{report:?}");
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}

/// Under `strict` nobody takes over and nothing is acknowledged until the killed node is back; then all goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_waits_for_the_killed_node() {
    let seed = seed();
    let settings = [QUICK, &[("link.policy", "strict")]].concat();
    let mut rig = Rig::start(2, load(seed), &settings, &[]).await;
    rig.traffic(100).await;
    rig.kill(0);
    // Longer than the lease: the node that is left is fenced in its own group, and backs the other.
    let fenced = |s: &srm::admin::Status| s.groups.iter().all(|g| g.release == "nothing");
    rig.until(1, LIMIT, "nothing is released", fenced);
    let before = rig.fleet.snapshot().messages.acknowledged;
    for _ in 0..20 {
        assert!(rig.pair.status(1).is_some_and(|s| fenced(&s)), "{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.fleet.snapshot().messages.acknowledged, before, "acknowledged without the peer");
    rig.pair.start(0).unwrap();
    rig.pair.wait_normal(LIMIT).unwrap_or_else(|e| panic!("{e}\n{}", rig.logs()));
    rig.clients_go_on(Duration::from_secs(60)).await;
    rig.settle().await;
}

/// Under `strict` a node is killed for good: the operator makes the survivor active, which first says what may be
/// missing, and it serves all users; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_serves_on_at_the_operators_word() {
    let seed = seed();
    let settings = [QUICK, &[("link.policy", "strict")]].concat();
    let mut rig = Rig::start(2, load(seed), &settings, &[]).await;
    rig.traffic(100).await;
    let force = |rig: &Rig, node: usize, confirm: Option<&str>| {
        let made = &rig.pair.made.nodes[node];
        let mut command = std::process::Command::new(load_tests::rig::tandem());
        command.args(["force-active", &made.name, "--json", "-c"]).arg(&made.config);
        command.args(confirm.map(|name| ["--confirm", name]).into_iter().flatten());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let name = rig.pair.made.nodes[1].name.clone();
    let (code, text) = force(&rig, 1, Some(&name));
    assert!(code == Some(1) && text.contains("is heard"), "while both serve it is refused: {text}");
    rig.kill(0);
    let fenced = |s: &srm::admin::Status| s.groups.iter().all(|g| g.release == "nothing");
    rig.until(1, LIMIT, "nothing is released", fenced);
    let (code, text) = force(&rig, 1, None);
    assert!(code == Some(2) && text.contains(r#""missing":[]"#) && text.contains("diverge"), "{text}");
    assert!(rig.pair.status(1).is_some_and(|s| fenced(&s)), "nothing is done unconfirmed");
    let (code, text) = force(&rig, 1, Some(&name));
    assert!(code == Some(0) && text.contains(r#""done":true"#), "{text}");
    rig.until(1, LIMIT, "alone", |s| s.groups.iter().all(|g| g.mode == "Solo" && g.role == "Primary"));
    // Whoever reads the events later finds who said so.
    let made = &rig.pair.made.nodes[1];
    let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|f| panic!("{f:?}"));
    let events = client.events(0, 1_000, 0).unwrap_or_else(|f| panic!("{f:?}"));
    let asked: Vec<&str> = events.iter().filter(|e| e.event == "asked").map(|e| e.text.as_str()).collect();
    let expected = format!("force-active {name} was asked for ");
    assert!(asked.len() == 1 && asked[0].starts_with(&expected), "what was refused is not there: {asked:?}");
    rig.clients_go_on(Duration::from_secs(60)).await;
    rig.traffic(200).await;
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}

/// A single node is a good server: killed and started again, nothing is lost, doubled or reordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_survives_kills() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::start(1, load(seed), &[], &[]).await;
    for _ in 0..6 {
        rig.traffic(100).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        rig.kill(0);
        rig.pair.start(0).unwrap();
        rig.clients_go_on(LIMIT).await;
    }
    rig.settle().await;
}

/// When the file that names the point is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Armed {
    /// Before the operator asks.
    Before,
    /// As soon as it was begun.
    During,
}

/// Where a node dies while users are on their way. Nothing is cut from a log there: `log.truncate.after_aside` is another test's.
const ON_THE_WAY: &[(Armed, &str)] = &[
    (Armed::Before, "move.before_event"),
    (Armed::Before, "move.after_event"),
    (Armed::During, "move.before_event"),
    (Armed::During, "move.after_event"),
    (Armed::During, "log.own.before_write"),
    (Armed::During, "log.own.after_write"),
    (Armed::During, "log.own.after_sync"),
    (Armed::During, "log.peer.before_write"),
    (Armed::During, "log.peer.after_write"),
    (Armed::During, "link.frame.before_send"),
    (Armed::During, "link.frame.after_send"),
    (Armed::During, "link.ack.before_send"),
    (Armed::During, "link.ack.after_send"),
    (Armed::During, "beacon.before_send"),
    (Armed::During, "release.before"),
    (Armed::During, "release.after"),
];

/// The operator asks for something, and a node dies at a point on the way. Whatever came of it, both nodes show a row of the
/// table, and from there users go home.
async fn dies_on_the_way(rig: &mut Rig, what: &str, of: usize, dying: usize, at: (Armed, &str), file: &Path) {
    let told = format!("{what} of {of}, {dying} dies: {at:?}");
    let (armed, point) = at;
    let arm = || std::fs::write(file, point).expect("the file is written");
    rig.mark_fault(dying);
    if armed == Armed::Before {
        arm();
    }
    // Who is asked may be dead before it has answered, and one that was started a moment ago not be heard yet.
    let asked = Instant::now();
    let again = |e: &anyhow::Error| e.to_string().contains("is not heard") && asked.elapsed() < LIMIT;
    while rig.pair.action(1 - dying, of, what).is_err_and(|e| again(&e)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if armed == Armed::During {
        arm();
    }
    ends(rig, dying, file, &told).await;
    starts_again(rig, &[dying], &told).await;
}

/// A node dies at the point that its file names.
async fn ends(rig: &mut Rig, dying: usize, file: &Path, told: &str) {
    let deadline = Instant::now() + LIMIT;
    while !rig.pair.ended(dying) {
        assert!(Instant::now() < deadline, "{told}: the point is not reached\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.pair.wait(dying, LIMIT).expect("a killed process ends");
    assert!(!file.exists(), "{told}: it died of something else\n{}", rig.logs());
}

/// Nodes that died are started in this order; both are a pair again, and show a row of the table.
async fn starts_again(rig: &mut Rig, dead: &[usize], told: &str) {
    for node in dead {
        rig.pair.start(*node).expect("it starts again");
    }
    rig.until_paired(LIMIT);
    rig.clients_go_on(Duration::from_secs(30)).await;
    for node in [0, 1] {
        rig.until(node, LIMIT, &format!("a row of the table after {told}"), |s| s.row.is_some());
    }
    println!("{told}: rows {:?}", [0, 1].map(|node| rig.pair.status(node).and_then(|s| s.row)));
}

/// Whether the other node leads those who are at home at this one.
fn away(rig: &Rig, node: usize) -> bool {
    let name = &rig.pair.made.nodes[node].name;
    let away = |s: srm::admin::Status| s.groups.iter().any(|g| g.home == *name && g.primary != *name);
    rig.pair.status(1 - node).is_some_and(away)
}

/// Everybody is served at home again.
async fn home(rig: &mut Rig) {
    for node in [0, 1] {
        if away(rig, node) {
            rig.fallback(node).await;
        }
    }
}

/// A file for each node that may name the point where it dies, and what tells the nodes so.
fn kill_files(folder: &Path) -> ([PathBuf; 2], [(usize, &'static str, String); 2]) {
    let files = [0, 1].map(|node| folder.join(node.to_string()));
    let env = [0, 1].map(|node| (node, "TANDEM_KILL_FILE", files[node].to_str().expect("UTF-8").to_owned()));
    (files, env)
}

/// A node dies at each point of a failover and of a fallback, in turn who gives the users away and who gets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_every_point_of_a_failover_and_a_fallback() {
    let seed = seed();
    let folder = tempfile::tempdir().unwrap();
    let (files, env) = kill_files(folder.path());
    let mut rig = Rig::start(2, load(seed), QUICK, &env).await;
    for (index, at) in ON_THE_WAY.iter().enumerate() {
        // Each node is home to those who move, every other time; who dies changes less often.
        let (of, giver) = (index % 2, index / 2 % 2 == 0);
        let dying = if giver { of } else { 1 - of };
        dies_on_the_way(&mut rig, "failover", of, dying, *at, &files[dying]).await;
        home(&mut rig).await;
        rig.pair.action(1 - of, of, "failover").expect("a failover without a death");
        rig.until(1 - of, LIMIT, "failed over", |s| s.moving.is_none() && s.row == Some(3));
        assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
        dies_on_the_way(&mut rig, "fallback", of, 1 - dying, *at, &files[1 - dying]).await;
        home(&mut rig).await;
    }
    rig.settle().await;
}

/// Where the node that is left dies in a takeover, and who moves its users in the fallback after one: when that is asked for, and
/// the point there.
const ALONE: &[(&str, Armed, &str)] = &[
    ("core.before_persist", Armed::Before, "core.before_persist"),
    ("core.after_persist", Armed::Before, "core.after_persist"),
    // What it writes once it knows that it leads.
    ("core.after_persist\nlog.own.before_write", Armed::During, "log.own.before_write"),
    ("core.after_persist\nlog.own.after_write", Armed::During, "log.own.after_write"),
    ("core.after_persist\nlog.own.after_sync", Armed::During, "log.own.after_sync"),
    ("log.peer.after_write", Armed::During, "log.peer.after_write"),
];

/// A node is killed, and the one that is left dies at a point while it takes over. Both are started again.
async fn dies_alone(rig: &mut Rig, of: usize, point: &str, file: &Path) {
    let (left, told) = (1 - of, format!("takeover of {of}, {} dies at {point:?}", 1 - of));
    rig.mark_fault(left);
    std::fs::write(file, point).expect("the file is written");
    // Of one that is dead it receives nothing more: there it dies first, and the other before it can take over.
    let deadline = Instant::now() + LIMIT;
    while point.starts_with("log.peer") && file.exists() {
        assert!(Instant::now() < deadline, "{told}: the point is not reached\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.kill(of);
    ends(rig, left, file, &told).await;
    starts_again(rig, &[left, of], &told).await;
}

/// A node whose disk has more of its own log than it has sent dies while that is set aside, because the other went on without it.
async fn dies_while_a_tail_is_set_aside(rig: &mut Rig, of: usize, file: &Path) {
    for attempt in 0..10 {
        let told = format!("attempt {attempt} of {of} to leave a tail");
        rig.mark_fault(of);
        std::fs::write(file, "log.own.after_write").expect("the file is written");
        ends(rig, of, file, &told).await;
        rig.clients_go_on(LIMIT).await;
        std::fs::write(file, "log.truncate.after_aside").expect("the file is written");
        rig.pair.start(of).expect("it starts again");
        let deadline = Instant::now() + LIMIT;
        let pair = |rig: &Rig, node| {
            rig.pair.status(node).is_some_and(|s| s.groups.iter().all(|g| g.mode == "Pair"))
        };
        while !(rig.pair.ended(of) || pair(rig, 0) && pair(rig, 1)) {
            assert!(Instant::now() < deadline, "{told}\n{}", rig.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if rig.pair.ended(of) {
            ends(rig, of, file, "a tail is set aside").await;
            return starts_again(rig, &[of], "a tail is set aside").await;
        }
        // What it had written was on its way already.
        std::fs::remove_file(file).expect("it was not reached");
        home(rig).await;
    }
    panic!("no tail in ten deaths\n{}", rig.logs());
}

/// The node that is left dies at each point of a takeover, each node at each point of the fallback after one.
async fn takeovers(witness: bool) {
    let seed = seed();
    let folder = tempfile::tempdir().unwrap();
    let (files, env) = kill_files(folder.path());
    let load = Load { users: 20, ..load(seed) };
    let mut rig = match witness {
        true => Rig::start_with_witness(load, QUICK, &env).await,
        false => Rig::start(2, load, QUICK, &env).await,
    };
    for (index, (alone, armed, point)) in ALONE.iter().enumerate() {
        let of = index % 2;
        dies_alone(&mut rig, of, alone, &files[1 - of]).await;
        if !away(&rig, of) {
            home(&mut rig).await;
            rig.kill(of);
            rig.clients_go_on(LIMIT).await;
            starts_again(&mut rig, &[of], "a takeover without a second death").await;
        }
        assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
        // Where there is a witness the one dies, and where there is none the other.
        let giver = (index / 2 % 2 == 0) == witness;
        let dying = if giver { 1 - of } else { of };
        dies_on_the_way(&mut rig, "fallback", of, dying, (*armed, point), &files[dying]).await;
        home(&mut rig).await;
        rig.pair.wait_normal(LIMIT).unwrap_or_else(|e| panic!("{e}\n{}", rig.logs()));
    }
    let of = usize::from(witness);
    dies_while_a_tail_is_set_aside(&mut rig, of, &files[of]).await;
    home(&mut rig).await;
    if witness {
        rig.settle().await;
    } else {
        // Deaths follow each other within moments, before the nodes can promise each other anything.
        rig.settle_but_refused().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_every_point_of_a_takeover_and_of_the_fallback_after_it() {
    takeovers(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_every_point_of_a_takeover_with_a_witness_and_of_the_fallback_after_it() {
    takeovers(true).await;
}

/// Both nodes run in failed mode, the operator asks for a recover, and a node dies at a point after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_at_every_point_of_a_recover() {
    let seed = seed();
    let folder = tempfile::tempdir().unwrap();
    let (files, env) = kill_files(folder.path());
    let settings = [QUICK, &[("srm.critical_service_delay", "10s")]].concat();
    let mut rig = Rig::start(2, Load { users: 20, ..load(seed) }, &settings, &env).await;
    for (asked, dying, point) in [(0, 1, "log.own.after_write"), (1, 1, "beacon.before_send")] {
        let told = format!("recover asked of {asked}, {dying} dies: {point}");
        let client = |node: usize| {
            let made = &rig.pair.made.nodes[node];
            Client::at(made.admin, &made.token_file).unwrap_or_else(|f| panic!("{f:?}"))
        };
        for node in [0, 1] {
            let name = &rig.pair.made.nodes[node].name;
            client(node).service(name, "router", ServiceAction::Stop).unwrap_or_else(|f| panic!("{f:?}"));
        }
        for node in [0, 1] {
            rig.until(node, 2 * LIMIT, "failed mode", |s| s.row == Some(15));
        }
        rig.mark_fault(dying);
        client(asked).recover().unwrap_or_else(|f| panic!("{f:?}"));
        std::fs::write(&files[dying], point).expect("the file is written");
        ends(&mut rig, dying, &files[dying], &told).await;
        starts_again(&mut rig, &[dying], &told).await;
        home(&mut rig).await;
        rig.pair.wait_normal(LIMIT).unwrap_or_else(|e| panic!("{e}\n{}", rig.logs()));
    }
    rig.settle().await;
}
