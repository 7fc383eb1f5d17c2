//! A node that is alone gets a peer while people talk, both serve, and it is alone again; nobody loses a session or a message.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use load_tests::rig::{Load, Nodes, QUICK, Rig, last_lines, seed, tandem};
use rustix::process::Signal;
use srm::admin::Status;
use srm::cli::Client;
use srm::config::Config;
use srm::demo::pair::Pair;
use srm::setup::{MadeNode, NodePlan, free_ports, grow};

const LIMIT: Duration = Duration::from_secs(40);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn client(rig: &Rig) -> Client {
    let made = &rig.pair.made.nodes[0];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// `tandem` with these words, at node a: what it says, and whether it did that.
fn ask(pair: &Pair, words: &[&str]) -> (String, bool) {
    let mut command = Command::new(tandem());
    command.args(words).arg("-c").arg(&pair.made.nodes[0].config);
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (said, done.status.success())
}

/// The same, which must succeed.
fn run(pair: &Pair, words: &[&str]) {
    let (said, done) = ask(pair, words);
    assert!(done, "{words:?}: {said}\n{}", last_lines(pair));
}

/// The same as soon as the nodes take it: a node that was started a moment ago has yet to meet the other.
fn run_soon(pair: &Pair, words: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (said, done) = ask(pair, words);
        if done {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?}: {said}\n{}", last_lines(pair));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Makes node b, and names it in the file of a.
fn grown(rig: &Rig) -> MadeNode {
    let dir = rig.pair.made.ca.ancestors().nth(2).unwrap();
    let ports = free_ports(1).unwrap()[0];
    let new = NodePlan { name: "b".into(), host: HERE.to_string(), listen: HERE, ports };
    let link = free_ports(1).unwrap()[0].link;
    let made = grow::pair(dir, &HERE.to_string(), (HERE, link).into(), &new).unwrap();
    assert!(made.foreign.is_none());
    let again = grow::pair(dir, &HERE.to_string(), (HERE, link).into(), &new).unwrap_err().to_string();
    assert!(again.contains("has its second one already"), "{again}");
    let config = Config::load(&made.new).unwrap();
    let at = |port| SocketAddr::new(HERE, port);
    MadeNode {
        name: "b".into(),
        config: made.new,
        c2s: at(ports.starttls),
        c2s_tls: at(ports.direct),
        admin: config.admin.listen,
        token_file: config.admin.token_file,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_alone_gets_a_peer_and_is_alone_again_while_people_talk() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(1, load, QUICK, &[]).await;
    rig.traffic(50).await;
    let b = grown(&rig);
    rig.pair.add(b).unwrap();
    rig.pair.start(1).unwrap();
    rig.mark_fault(0);
    run(&rig.pair, &["restart", "a"]);
    rig.clients_go_on(LIMIT).await;
    let has_peer = |s: &Status| s.nodes.len() == 2 && s.groups.iter().all(|g| g.mode == "Pair");
    rig.pair.wait_all(LIMIT, "Pair", has_peer).unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    rig.traffic(50).await;
    run(&rig.pair, &["fallback", "b"]);
    rig.until_paired(LIMIT);
    run(&rig.pair, &["rebalance"]);
    let homes = |rig: &Rig| {
        client(rig)
            .group()
            .unwrap_or_else(|f| panic!("{f:?}"))
            .nodes
            .iter()
            .map(|n| n.users)
            .collect::<Vec<_>>()
    };
    assert_eq!(homes(&rig), [6, 6]);
    assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
    run(&rig.pair, &["check"]);
    rig.traffic(50).await;

    // Each can do without the other.
    for (node, name) in [(1, "b"), (0, "a")] {
        rig.kill(node);
        rig.until(1 - node, LIMIT, "the other serves all", |s| s.groups.iter().all(|g| g.primary != name));
        rig.traffic(30).await;
        if node == 0 {
            refused_alone(&rig.pair, "high availability is on");
        }
        rig.pair.start(node).unwrap();
        rig.pair.wait_all(LIMIT, "Pair", has_peer).unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
        run(&rig.pair, &["fallback", name]);
        rig.until_paired(LIMIT);
        rig.clients_go_on(LIMIT).await;
    }

    // And back: everybody is assigned to a, and b leaves for good.
    run(&rig.pair, &["config", "set", "srm.user_assignment_mode", "active-standby"]);
    run(&rig.pair, &["rebalance"]);
    assert_eq!(homes(&rig), [12, 0]);
    run(&rig.pair, &["ha", "disable"]);
    rig.pair.signal(1, Signal::TERM).unwrap();
    rig.pair.wait(1, LIMIT).unwrap();
    let file = rig.pair.made.nodes[0].config.clone();
    fs::write(&file, without(&fs::read_to_string(&file).unwrap(), &["[peer]", "[link]"])).unwrap();
    rig.mark_fault(0);
    run(&rig.pair, &["restart", "a"]);
    let alone = |s: &Status| s.nodes.len() == 1 && matches!(s.row, Some(1 | 120));
    rig.until(0, LIMIT, "it is alone", alone);
    rig.clients_go_on(LIMIT).await;
    rig.traffic(50).await;
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}

/// With high availability off as well: users of the other node, and whom it serves, may be served there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_peer_in_the_file_leaves_nobody_to_two_nodes_without_high_availability() {
    let mut pair = Nodes::start(2, QUICK).await;
    pair.user_add(0, "anna", 0).unwrap();
    pair.user_add(0, "berta", 1).unwrap();
    run(&pair, &["failover", "a"]);
    let rests = |s: &Status| s.row == Some(3) && s.moving.is_none();
    pair.wait_all(LIMIT, "b serves all", rests).unwrap_or_else(|e| panic!("{e}\n{}", last_lines(&pair)));
    run_soon(&pair, &["ha", "disable", "--force"]);

    stop(&mut pair, 0);
    refused_alone(&pair, "1 users of this node are served by the other");
    pair.start(0).unwrap();
    until(&pair, "a fallback", |pair| pair.action(0, 0, "fallback").is_ok());
    let lives = |pair: &Pair, user: &str, home: &str, owner: &str| {
        let users = pair.users(0).unwrap_or_default();
        users.iter().any(|u| u.user.starts_with(user) && u.home == home && u.owner == owner)
    };
    until(&pair, "anna is at home", |pair| lives(pair, "anna", "a", "a"));
    let rests = |s: &Status| s.row == Some(122) && s.moving.is_none();
    pair.wait_all(LIMIT, "at rest", rests).unwrap_or_else(|e| panic!("{e}\n{}", last_lines(&pair)));

    stop(&mut pair, 0);
    refused_alone(&pair, "1 users are assigned to the other node");
    pair.start(0).unwrap();
    run_soon(&pair, &["assign", "berta", "a"]);
    until(&pair, "berta has another home", |pair| lives(pair, "berta", "a", "a"));

    // Nobody is left to the other: the node may be alone.
    stop(&mut pair, 1);
    stop(&mut pair, 0);
    let file = pair.made.nodes[0].config.clone();
    fs::write(&file, without(&fs::read_to_string(&file).unwrap(), &["[peer]", "[link]"])).unwrap();
    pair.start(0).unwrap();
    let alone = |s: &Status| s.nodes.len() == 1 && matches!(s.row, Some(1 | 120));
    let alone = pair.wait_status(0, LIMIT, "it is alone", alone);
    alone.unwrap_or_else(|error| panic!("{error}\n{}", last_lines(&pair)));
}

fn stop(pair: &mut Pair, node: usize) {
    pair.signal(node, Signal::TERM).unwrap();
    pair.wait(node, LIMIT).unwrap();
}

fn until(pair: &Pair, what: &str, so: impl Fn(&Pair) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so(pair) {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", last_lines(pair));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Node a does not serve without its peer only because somebody took the peer out of its file.
fn refused_alone(pair: &Pair, why: &str) {
    let file = &pair.made.nodes[0].config;
    let alone = file.with_file_name("alone.toml");
    fs::write(&alone, without(&fs::read_to_string(file).unwrap(), &["[peer]", "[link]"])).unwrap();
    let done = Command::new(tandem()).args(["serve", "-c"]).arg(&alone).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(!done.status.success(), "{said}");
    let told = format!("{why}: the other node may serve the same users. Put [peer] and [link] back");
    assert!(said.contains(&told), "{said}");
}

/// The file without these sections.
fn without(text: &str, sections: &[&str]) -> String {
    let mut keep = true;
    let lines = text.lines().filter(|line| {
        if line.starts_with('[') {
            keep = !sections.contains(line);
        }
        keep
    });
    lines.map(|line| format!("{line}\n")).collect()
}
