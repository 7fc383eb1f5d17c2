//! `tandem pair` and `tandem unpair`: what is looked at first, and that whoever is interrupted says the same again. Nobody loses a
//! session or a message by either.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig, last_lines, seed, tandem};
use rustix::process::{Pid, Signal, kill_process};
use srm::admin::Status;
use srm::cli::Client;
use srm::config::Config;
use srm::setup::{MadeNode, NodePlan, free_ports, grow};

const LIMIT: Duration = Duration::from_secs(40);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A node that is alone, with clients, and what `tandem extend pair` made for it in a copy of its directory: nothing of that is
/// in place yet.
struct Growing {
    rig: Rig,
    made: tempfile::TempDir,
}

async fn growing() -> Growing {
    let load = Load { users: 8, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let rig = Rig::start(1, load, QUICK, &[]).await;
    rig.traffic(30).await;
    let from = rig.pair.made.ca.ancestors().nth(2).unwrap().to_owned();
    let made = tempfile::tempdir_in(load_tests::rig::place()).unwrap();
    for folder in ["ca", "a"] {
        copy(&from.join(folder), &made.path().join(folder));
    }
    Growing { rig, made }
}

/// The files of a folder, but not its data.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

impl Growing {
    /// Makes node b, which is not started.
    fn extend(&mut self) {
        let ports = free_ports(1).unwrap()[0];
        let new = NodePlan { name: "b".into(), host: HERE.to_string(), listen: HERE, ports };
        let link = free_ports(1).unwrap()[0].link;
        let made = grow::pair(self.made.path(), &HERE.to_string(), (HERE, link).into(), &new).unwrap();
        let config = Config::load(&made.new).unwrap();
        let at = |port| SocketAddr::new(HERE, port);
        let b = MadeNode {
            name: "b".into(),
            config: made.new,
            c2s: at(ports.starttls),
            c2s_tls: at(ports.direct),
            admin: config.admin.listen,
            token_file: config.admin.token_file,
        };
        self.rig.pair.add(b).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.rig.pair.made.nodes[0].config.clone()
    }

    /// `tandem pair` at node a, killed behind a step if one is named.
    fn pair(&self, killed: Option<&str>) -> Output {
        tell(&self.file(), &["pair", self.made.path().to_str().unwrap()], killed)
    }

    /// The same, which must be refused by this check and change nothing: as soon as node b, which was started a moment ago, is
    /// there to be looked at.
    fn refused(&self, check: &str, said: &str) {
        let before = fs::read_to_string(self.file()).unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            let done = self.pair(None);
            let text = words(&done);
            assert_eq!(done.status.code(), Some(1), "{text}");
            assert_eq!(fs::read_to_string(self.file()).unwrap(), before, "the configuration is as it was");
            assert!(!self.file().with_file_name("secret").exists(), "a file came: {text}");
            assert_eq!(self.rig.pair.status(0).unwrap().nodes.len(), 1);
            if text.contains(&format!("check of {check}: ")) && text.contains(said) {
                assert!(text.contains("nothing was changed") && text.contains("say `tandem pair "), "{text}");
                return;
            }
            assert!(Instant::now() < deadline, "{check}, {said}: {text}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn unpair(&self, killed: Option<&str>) -> Output {
        tell(&self.file(), &["unpair", "b"], killed)
    }

    /// Somebody is added at b when all others are assigned to a and b is about to stop: nobody is parted from anybody.
    fn late_comer(&mut self) {
        let mut command = Command::new(tandem());
        command.args(["unpair", "b", "-c"]).arg(self.file()).env("TANDEM_STOP_AT", "pair.disabled");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let deadline = Instant::now() + LIMIT;
        while !fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
            assert!(Instant::now() < deadline, "it does not come so far\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.users_at("b"), 0);
        self.rig.pair.user_add(1, "late", 1).unwrap();
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        let done = child.wait_with_output().unwrap();
        let text = words(&done);
        assert_eq!(done.status.code(), Some(1), "{text}");
        assert!(text.contains("1 user came to b meanwhile; a keeps its peer"), "{text}");
        assert!(text.contains("start b, and say `tandem unpair b` again"), "{text}");
        assert!(Config::load(&self.file()).unwrap().peer.is_some() && self.users_at("b") == 1);
        assert!(self.rig.pair.ended(1), "b has left");

        // What it says is done, and said again as soon as b has caught up.
        self.rig.pair.start(1).unwrap();
        until(self, "b is back", is_pair);
        let deadline = Instant::now() + LIMIT;
        loop {
            let done = self.unpair(Some("assigned"));
            if done.status.signal().is_some() {
                return was_killed(&done);
            }
            assert!(Instant::now() < deadline, "{}\n{}", words(&done), self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Node b without anything, as a new machine.
    fn empty(&mut self) {
        if self.rig.pair.pid(1).is_some() && !self.rig.pair.ended(1) {
            self.rig.pair.kill(1).unwrap();
        }
        let data = Config::load(&self.rig.pair.made.nodes[1].config).unwrap().node.data;
        let _ = fs::remove_dir_all(data);
        self.rig.pair.start(1).unwrap();
    }

    /// As if the store of a were so large that it fits on the disk once and not twice: a file without content is there.
    fn refused_for_room(&self) {
        let data = Config::load(&self.file()).unwrap().node.data;
        let disk = rustix::fs::statvfs(&data).unwrap();
        let large = data.join("store/large");
        let file = fs::File::create(&large).unwrap();
        file.set_len(disk.f_bavail * disk.f_frsize / 10 * 7).unwrap();
        self.refused("room", "MiB are free on the disk of b, and");
        fs::remove_file(large).unwrap();
    }

    fn users_at(&self, node: &str) -> usize {
        self.rig.pair.users(0).unwrap_or_default().iter().filter(|user| user.home == node).count()
    }

    fn logs(&self) -> String {
        last_lines(&self.rig.pair)
    }
}

fn tell(file: &Path, what: &[&str], killed: Option<&str>) -> Output {
    let mut command = Command::new(tandem());
    command.args(what).arg("-c").arg(file);
    killed.iter().for_each(|step| _ = command.env("TANDEM_KILL_AT", format!("pair.{step}")));
    command.output().unwrap()
}

fn words(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

fn was_killed(done: &Output) {
    assert_eq!(done.status.signal(), Some(Signal::KILL.as_raw()), "{}", words(done));
}

fn until(growing: &Growing, what: &str, so: impl Fn(&Status) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !growing.rig.pair.status(0).is_some_and(|status| so(&status)) {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", growing.logs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_pair(status: &Status) -> bool {
    status.nodes.len() == 2 && status.nodes.iter().all(|node| node.state == "Normal")
}

/// In the file of a node, where it stands as a comment with its default.
fn set(file: &Path, key: &str, value: &str) {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("# {key} = "))).unwrap();
    fs::write(file, text.replace(line, &format!("{key} = \"{value}\""))).unwrap();
}

/// Every check says what it is about, and what is mended is not complained of again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_no_peer_before_everything_fits() {
    let mut growing = growing().await;
    let nothing = tell(&growing.file(), &["pair", growing.made.path().to_str().unwrap()], None);
    let said = words(&nothing);
    assert!(said.contains("check of files: ") && said.contains("tandem extend pair a=HOST"), "{said}");
    growing.extend();

    growing.refused("connection", "start b with the files that were made for it");
    // The port of the link is another's: the node would not come back from its restart.
    let link = Config::load(&growing.made.path().join("a/tandem.toml")).unwrap().link.unwrap().listen;
    let taken = std::net::TcpListener::bind(link).unwrap();
    growing.refused("ports", "cannot be listened on");
    drop(taken);

    // Node b with other settings than a.
    let file = growing.rig.pair.made.nodes[1].config.clone();
    let well = fs::read_to_string(&file).unwrap();
    for (key, value) in [
        ("initialization_keep_alive_timeout", "8s"),
        ("keep_alive_timeout", "8s"),
        ("keep_alive_interval", "2s"),
    ] {
        set(&file, key, value);
    }
    growing.empty();
    growing.refused("settings", "srm.keep_alive_timeout is 60s at a and 8s at b");
    fs::write(&file, &well).unwrap();

    // Another secret, then certificates of another authority.
    let secret = file.with_file_name("secret");
    let ours = fs::read_to_string(&secret).unwrap();
    fs::write(&secret, ours.replace(&ours[..8], "00000000")).unwrap();
    growing.empty();
    growing.refused("beacons", "is not signed with the secret of this pair");
    fs::write(&secret, &ours).unwrap();

    let (cert, key) = (file.with_file_name("link.pem"), file.with_file_name("link.key"));
    let kept = [&cert, &key].map(|file| fs::read(file).unwrap());
    let stray = tempfile::tempdir().unwrap();
    let plan = srm::setup::Plan::local("x.example", stray.path(), &["a", "b"]).unwrap();
    plan.make().unwrap();
    let ca = file.with_file_name("ca.pem");
    let kept_ca = fs::read(&ca).unwrap();
    for name in ["link.pem", "link.key", "ca.pem"] {
        fs::copy(stray.path().join("b").join(name), file.with_file_name(name)).unwrap();
    }
    growing.empty();
    growing.refused("certificates", "give b the folder that was made together with this node's");
    for (file, text) in [(&cert, &kept[0]), (&key, &kept[1]), (&ca, &kept_ca)] {
        fs::write(file, text).unwrap();
    }

    growing.empty();
    growing.refused_for_room();
    was_killed_soon(&growing, "checked");
    growing.rig.mark_fault(0);
    let done = growing.pair(None);
    assert!(done.status.success(), "{}\n{}", words(&done), growing.logs());
    growing.rig.clients_go_on(LIMIT).await;
    until(&growing, "a pair", is_pair);
    let again = growing.pair(None);
    assert!(again.status.success(), "said once more, it does nothing: {}", words(&again));
    growing.rig.traffic(30).await;
    growing.rig.settle().await;
}

/// Paired, parted and paired again, each killed behind each of its steps and said once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_interrupted_says_the_same_again_and_nobody_loses_anything() {
    let mut growing = growing().await;
    growing.extend();
    for round in 0..2 {
        growing.empty();
        was_killed_soon(&growing, "checked");
        assert_eq!(growing.rig.pair.status(0).unwrap().nodes.len(), 1);
        was_killed(&growing.pair(Some("written")));
        assert_eq!(growing.rig.pair.status(0).unwrap().nodes.len(), 1, "it runs with what it had");
        growing.rig.mark_fault(0);
        was_killed(&growing.pair(Some("restarted")));
        growing.rig.clients_go_on(LIMIT).await;
        let done = growing.pair(None);
        assert!(done.status.success(), "{round}: {}\n{}", words(&done), growing.logs());
        until(&growing, "a pair", is_pair);
        assert!(growing.rig.fleet.all_parked(LIMIT).await, "{:?}", growing.rig.fleet.snapshot());
        let balanced = tell(&growing.file(), &["rebalance"], None);
        assert!(balanced.status.success(), "{}", words(&balanced));
        assert_eq!((growing.users_at("a"), growing.users_at("b")), (4, 4));
        growing.rig.traffic(30).await;

        let stranger = tell(&growing.file(), &["unpair", "c"], None);
        assert!(words(&stranger).contains("the peer of a is b, not c"), "{}", words(&stranger));
        let second = tell(&growing.rig.pair.made.nodes[1].config, &["unpair", "a"], None);
        assert!(
            words(&second).contains("check of names: b is behind a in the alphabet"),
            "{}",
            words(&second)
        );

        was_killed(&growing.unpair(Some("assigning")));
        assert!(growing.users_at("b") >= 2, "one user at most is on the way");
        if round == 1 {
            was_killed(&growing.unpair(Some("assigned")));
            growing.late_comer();
        }
        let with_peer = fs::read_to_string(growing.file()).unwrap();
        for step in ["assigned", "disabled", "stopped", "parted"] {
            was_killed(&growing.unpair(Some(step)));
            assert!(step == "assigned" || growing.users_at("b") == 0, "{step}");
        }
        assert!(growing.rig.pair.ended(1), "b has left");
        growing.rig.mark_fault(0);
        let done = growing.unpair(None);
        assert!(done.status.success(), "{}\n{}", words(&done), growing.logs());
        until(&growing, "alone", |status| status.nodes.len() == 1 && matches!(status.row, Some(1 | 120)));
        growing.rig.clients_go_on(LIMIT).await;
        // The second time its file names the peer again: it would be served with from the next start on.
        for text in [None, Some(&with_peer)] {
            text.iter().for_each(|text| fs::write(growing.file(), text).unwrap());
            let again = growing.unpair(None);
            let said = words(&again);
            assert!(again.status.success() && said.contains("nothing is left to be done"), "{said}");
            assert!(Config::load(&growing.file()).unwrap().peer.is_none());
        }
        growing.rig.traffic(30).await;
    }
    let report = growing.rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}

/// Killed once all checks are well: node b, which was started a moment ago, has yet to listen.
fn was_killed_soon(growing: &Growing, step: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let done = growing.pair(Some(step));
        if done.status.signal().is_some() {
            return was_killed(&done);
        }
        assert!(Instant::now() < deadline, "{}\n{}", words(&done), growing.logs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A peer that is gone and has users does not go without them: nobody else has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_not_parted_from_a_peer_that_is_gone_with_users() {
    let load = Load { users: 4, plain: 0.0, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    rig.kill(1);
    rig.until(0, LIMIT, "a serves all", |s| s.groups.iter().all(|g| g.primary == "a"));
    let file = rig.pair.made.nodes[0].config.clone();
    let before = fs::read_to_string(&file).unwrap();
    let done = tell(&file, &["unpair", "b"], None);
    let said = words(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("check of the other node: ") && said.contains("give its files to a new machine first"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert!(rig.pair.status(0).is_some_and(|status| status.nodes.len() == 2));
    rig.clients_go_on(LIMIT).await;
}

/// A node has such an event, or will have it in a moment, that says who asked.
fn bears_the_name(rig: &Rig, node: usize, event: &str, who: &str) {
    let made = &rig.pair.made.nodes[node];
    let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    let deadline = Instant::now() + LIMIT;
    loop {
        let events = client.events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}"));
        if events.iter().any(|record| record.event == event && record.asked_by == who) {
            return;
        }
        assert!(Instant::now() < deadline, "no {event} of {who}: {events:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As operations.md says it: each machine is replaced by an empty one with its files, one after the other, while people talk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_machines_of_a_pair_are_replaced_one_after_the_other_while_people_talk() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    for (node, name) in [(0, "a"), (1, "b")] {
        rig.traffic(50).await;
        let file = rig.pair.made.nodes[node].config.clone();
        let done = tell(&file, &["failover", name, "--yes", "--operator", "alice"], None);
        assert!(done.status.success(), "{}\n{}", words(&done), rig.logs());
        for event in ["failover-began", "failover-complete"] {
            bears_the_name(&rig, node, event, &format!("alice at node {name}"));
        }
        rig.clients_go_on(LIMIT).await;
        rig.pair.signal(node, Signal::TERM).unwrap();
        rig.pair.wait(node, LIMIT).unwrap();
        fs::remove_dir_all(rig.data(node)).unwrap();
        rig.traffic(50).await;
        rig.pair.start(node).unwrap();
        let away = |s: &Status| {
            s.nodes.iter().any(|n| n.name == name && matches!(n.state.as_str(), "Idle" | "Failed Over"))
        };
        rig.until(1 - node, LIMIT, "it is back", away);
        rig.until_paired(LIMIT);
        rig.fallback(node).await;
        rig.until_paired(LIMIT);
    }
    rig.traffic(50).await;
    let checked = tell(&rig.pair.made.nodes[0].config, &["check"], None);
    assert!(checked.status.success(), "{}", words(&checked));
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}
