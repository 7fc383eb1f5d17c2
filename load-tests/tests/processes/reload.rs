//! Certificates, the authority, the secret and settings are replaced under load, and nobody notices.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use load_tests::rig::{Load, QUICK, Rig, seed, tandem};
use rustix::process::Signal;
use srm::admin::Status;
use srm::cli::Client;
use srm::config::Zone;
use srm::setup::renew;
use xmpp_core::tls::Authority;

const LIMIT: Duration = Duration::from_secs(30);

fn load(seed: u64) -> Load {
    Load { users: 20, plain: 0.25, interval: Duration::from_millis(100), seed }
}

/// The directory that `init` made.
fn dir(rig: &Rig) -> PathBuf {
    rig.pair.made.ca.ancestors().nth(2).expect("DIR/ca/ca.pem").to_owned()
}

fn client(rig: &Rig, node: usize) -> Client {
    let made = &rig.pair.made.nodes[node];
    match Client::at(made.admin, &made.token_file) {
        Ok(client) => client,
        Err(failure) => panic!("{failure:?}"),
    }
}

/// Both nodes take up what lies in their directories.
fn reload(rig: &Rig, expected: &str) {
    for node in 0..2 {
        let done = client(rig, node).reload().unwrap_or_else(|failure| panic!("{failure:?}\n{}", rig.logs()));
        assert!(done.restart.is_empty(), "{done:?}");
        // The node may have seen the change by itself before it was asked.
        let seen = done.taken.is_empty() || done.taken.iter().any(|key| key == expected);
        assert!(seen, "{done:?}");
    }
}

fn trusting(ca: &Path) -> Arc<rustls::ClientConfig> {
    xmpp_core::tls::c2s_client(&Authority::load(ca).unwrap()).unwrap()
}

/// Whether a client that trusts only this authority connects to a node.
async fn trusts(rig: &Rig, node: usize, ca: &Path) -> bool {
    let tcp = tokio::net::TcpStream::connect(rig.pair.made.nodes[node].c2s_tls).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(trusting(ca)).connect(name, tcp).await.is_ok()
}

/// The link between the nodes is made anew: the one that dials is told to by a restart of its peer's process.
async fn restart_both(rig: &mut Rig) {
    for node in 0..2 {
        rig.kill(node);
        rig.clients_go_on(LIMIT).await;
        rig.pair.start(node).unwrap();
        rig.until_paired(LIMIT);
        rig.fallback(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_and_the_secret_are_replaced_under_load() {
    let mut rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    let dir = dir(&rig);
    let old_ca = dir.join("old.pem");
    fs::copy(dir.join("ca/ca.pem"), &old_ca).unwrap();
    for step in 1..=3 {
        assert_eq!(renew::authority(&dir).unwrap().step.0, step);
        rig.dialer.trust(trusting(&dir.join("ca/ca.pem")));
        reload(&rig, "link.ca");
        rig.traffic(50).await;
    }
    for step in 1..=3 {
        assert_eq!(renew::secret(&dir).unwrap().step.0, step);
        reload(&rig, "link.secret");
        // Several beacons long: a node whose beacons were refused would be fenced after three seconds.
        rig.traffic(50).await;
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            rig.until(0, LIMIT, "no alarm", |s| s.alarms.is_empty());
            rig.until(1, LIMIT, "no alarm", |s| s.alarms.is_empty());
            rig.traffic(5).await;
        }
    }
    for node in 0..2 {
        assert!(trusts(&rig, node, &dir.join("ca/ca.pem")).await && !trusts(&rig, node, &old_ca).await);
    }
    // Nobody was disconnected by any of it, and every link connection is made anew with what is new.
    let now = rig.fleet.snapshot();
    assert_eq!((now.resumes, now.binds_anew, now.attempts_failed), (0, 0, 0));
    restart_both(&mut rig).await;
    rig.traffic(50).await;
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_changes_nothing_and_is_told() {
    let rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    let (dir, config) = (dir(&rig), rig.pair.made.nodes[0].config.clone());
    let key = fs::read(dir.join("a/c2s.key")).unwrap();
    // The key of another certificate, as if only one of two files had been copied.
    fs::copy(dir.join("a/link.key"), dir.join("a/c2s.key")).unwrap();
    let refused = client(&rig, 0).reload().unwrap_err();
    assert!(refused.refusal.error.contains("are they of one pair?"), "{refused:?}");
    rig.until(0, LIMIT, "the alarm", |s| s.alarms.iter().any(|alarm| alarm.contains("was not reloaded")));
    assert!(trusts(&rig, 0, &dir.join("ca/ca.pem")).await);
    rig.traffic(50).await;
    fs::write(dir.join("a/c2s.key"), key).unwrap();
    // The node sees by itself that it was put right.
    rig.until(0, LIMIT, "no alarm", |s| s.alarms.is_empty());

    let sound = fs::read_to_string(&config).unwrap();
    fs::write(&config, sound.replace("[limits]", "[limits]\nunknown = 1")).unwrap();
    rig.until(0, LIMIT, "the alarm", |s| s.alarms.iter().any(|alarm| alarm.contains("unknown field")));
    let more = sound.replace("[limits]", "[limits]\nstanza_bytes = 20000\ncredits = 16");
    fs::write(&config, more.replace("[store]", "[store]\ncheckpoint_frames = 500")).unwrap();
    let told = |s: &srm::admin::Status| {
        let with = |text: &str| s.alarms.iter().any(|alarm| alarm.contains(text));
        with("wait for a restart of this node: store.checkpoint_frames") && with("settings differ")
    };
    // A clusterwide setting that only one node has is told by both.
    rig.until(0, LIMIT, "a setting that waits", told);
    let text = "settings differ: limits.stanza_bytes is 20000 at a and 262144 at b;";
    for node in 0..2 {
        rig.until(node, LIMIT, "the difference", |s| s.alarms.iter().any(|alarm| alarm.contains(text)));
    }
    fs::write(&config, &sound).unwrap();
    rig.until_paired(LIMIT);
    rig.traffic(50).await;
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_is_changed_on_both_nodes_where_both_must_have_it() {
    let mut rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    let files: Vec<PathBuf> = rig.pair.made.nodes.iter().map(|node| node.config.clone()).collect();
    let written = |node: usize, line: &str| {
        let text = fs::read_to_string(&files[node]).unwrap();
        text.lines().any(|known| known.starts_with(line))
    };
    let logged = || fs::read_to_string(rig.pair.log_file(0)).unwrap().matches("config_warning").count();
    let at_start = logged();
    let done = client(&rig, 0).set("srm.critical_service_delay", Some("45s"));
    let done = done.unwrap_or_else(|f| panic!("{f:?}"));
    // What deserves a second look is told at once, and not only at the next start.
    let warning = "srm.client_re_login_lower_limit = 0s does not follow critical_service_delay (45s)";
    assert!(done.warnings.iter().any(|told| told.starts_with(warning)), "{done:?}");
    assert!(logged() > at_start, "{}", rig.logs());
    let again = client(&rig, 0).reload().unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(again.warnings, done.warnings);
    for words in [&["set", "srm.critical_service_delay", "45s"][..], &["reload"]] {
        let mut command = Command::new(tandem());
        let done = command.arg("config").args(words).arg("-c").arg(&files[0]).output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && said.contains(&format!("warning: {warning}")), "{words:?}: {said}");
    }
    for node in 0..2 {
        assert!(written(node, "critical_service_delay = \"45s\""), "node {node}");
    }
    // One that each node has for itself stays with it.
    client(&rig, 1).set("srm.client_re_login_upper_limit", Some("2s")).unwrap_or_else(|f| panic!("{f:?}"));
    assert!(
        written(1, "client_re_login_upper_limit = \"2s\"")
            && !written(0, "client_re_login_upper_limit = \"2s\"")
    );
    for node in 0..2 {
        rig.until(node, LIMIT, "only a difference that may be meant", |s| {
            let limits = "the re-login limits differ: 0s to 1s at a, 0s to 2s at b";
            s.alarms.len() == 1 && s.alarms[0].starts_with(limits)
        });
    }
    client(&rig, 0).set("srm.client_re_login_upper_limit", Some("2s")).unwrap_or_else(|f| panic!("{f:?}"));
    for node in 0..2 {
        rig.until(node, LIMIT, "no difference", |s| s.alarms.is_empty());
    }
    let refused = client(&rig, 0).set("srm.critical_service_delay", Some("5s")).unwrap_err();
    assert!(refused.refusal.error.contains("is not within 10s to 600s"), "{refused:?}");
    // Without the peer nothing is changed that both must have.
    rig.kill(1);
    rig.clients_go_on(LIMIT).await;
    let refused = client(&rig, 0).set("srm.critical_service_delay", None).unwrap_err();
    assert!(refused.refusal.error.contains("b does not answer"), "{refused:?}");
    assert!(written(0, "critical_service_delay = \"45s\""));
    // Nor what both write down of their group: the other may be of any version.
    let refused = client(&rig, 0).group_edit(Some("other"), None).unwrap_err();
    assert!(refused.refusal.error.contains("b does not answer, and whether it runs"), "{refused:?}");
    rig.pair.env(1, "TZ", Some("XYZ-5:17"));
    rig.pair.start(1).unwrap();
    rig.until_paired(LIMIT);
    let edited = client(&rig, 0).group_edit(Some("other"), None).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(edited.name, "other");
    client(&rig, 0).set("srm.critical_service_delay", None).unwrap_or_else(|f| panic!("{f:?}"));
    assert!((0..2).all(|node| !written(node, "critical_service_delay = \"45s\"")));
    users_go_back_by_the_zone_of_the_file(&rig).await;
    rig.traffic(50).await;
    rig.settle().await;
}

/// The users of b are at a, and the machines go by different time zones: by those it is no time for them to go back.
async fn users_go_back_by_the_zone_of_the_file(rig: &Rig) {
    let known = |s: &Status| s.nodes[1].time_zone == "UTC+05:17" && s.alarms.is_empty();
    rig.until(0, LIMIT, "nothing goes by the time of the day, and no alarm says so", known);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let (here, utc) = (i32::from(Zone::default().minute(now_ms)), (now_ms / 60_000 % 1_440) as i32);
    let clock = |minute: i32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let there = |ahead: i32| clock((here + ahead).rem_euclid(1_440));
    let window = format!("{}-{}", there(11 * 60), there(13 * 60));
    // Where it is so late.
    let ahead = match (here + 720 - utc).rem_euclid(1_440) {
        ahead @ ..=720 => ahead,
        ahead => ahead - 1_440,
    };
    let zone = format!("{}{}", if ahead < 0 { '-' } else { '+' }, clock(ahead.abs()));
    let set = |key: &str, value: &str| {
        client(rig, 0).set(key, Some(value)).unwrap_or_else(|f| panic!("{key} = {value}: {f:?}"))
    };
    set("srm.automatic_fallback_after", "1s");
    set("srm.scheduled_fallback_window", &window);
    set("srm.scheduled_fallback", "true");
    for node in 0..2 {
        rig.until(node, LIMIT, "the zones differ", |s| {
            let differ = |alarm: &&String| alarm.starts_with("the time zones of the nodes differ: ");
            s.alarms.iter().find(differ).is_some_and(|alarm| alarm.contains("UTC+05:17 at b"))
        });
    }
    let at_a = rig.pair.status(0).unwrap().groups.iter().all(|group| group.primary == "a");
    assert!(at_a, "the window {window} is closed here");
    set("srm.time_zone", &zone);
    let zone = format!("UTC{zone}");
    for node in 0..2 {
        rig.until(node, LIMIT, "they go home by the zone of the file", |s| {
            let same = s.nodes.iter().all(|node| node.time_zone == zone);
            same && s.row == Some(1) && s.moving.is_none() && s.alarms.is_empty()
        });
    }
    rig.clients_go_on(LIMIT).await;
}

/// A pair under `available` is given a witness, and restarted node by node, in place: no session is lost, and it decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_gets_a_witness_while_clients_talk() {
    let mut rig = Rig::start(2, load(seed()), QUICK, &[]).await;
    let dir = dir(&rig);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let extend = |dir: &Path| {
        let mut command = Command::new(tandem());
        command.args(["extend", "witness", "127.0.0.1", "--port", &port, "--dir"]).arg(dir).output().unwrap()
    };
    let made = extend(&dir);
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success() && text.contains("asks the witness"), "{text}");
    let again = extend(&dir);
    assert!(String::from_utf8(again.stderr).unwrap().contains("is there already"));
    let config = dir.join("witness/witness.toml");
    let log = dir.join("witness.log");
    let mut command = Command::new(tandem());
    command.args(["witness", "-c"]).arg(config);
    command
        .stdout(fs::File::create(&log).unwrap())
        .stderr(fs::File::options().append(true).open(&log).unwrap());
    let witness = Killed(command.spawn().unwrap());
    for node in [0, 1] {
        rig.traffic(20).await;
        let before = run_of(&rig, node);
        let mut command = Command::new(tandem());
        command.args(["restart", ["a", "b"][node], "-c"]).arg(&rig.pair.made.nodes[node].config);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        until("the restart", || run_of(&rig, node).is_some_and(|run| Some(run) != before));
        // Until both are restarted, an alarm says that their settings differ.
        rig.pair.wait_all(LIMIT, "Pair", |s| s.groups.iter().all(|g| g.mode == "Pair")).unwrap();
        rig.clients_go_on(LIMIT).await;
    }
    rig.until_paired(LIMIT);
    assert!(rig.fleet.all_parked(LIMIT).await);
    for node in [0, 1] {
        let status = rig.pair.status(node).unwrap();
        assert_eq!((status.row, status.witness.as_deref()), (Some(1), Some("decides")));
    }
    // The witness follows when the authority is replaced: the deaths that come then are decided with what is new.
    let reloads = || fs::read_to_string(&log).unwrap().matches("witness_reloaded").count();
    for step in 1..=3 {
        assert_eq!(renew::authority(&dir).unwrap().step.0, step);
        let before = reloads();
        rustix::process::kill_process(witness.pid(), Signal::HUP).unwrap();
        until("the witness takes it up", || reloads() > before);
        rig.dialer.trust(trusting(&dir.join("ca/ca.pem")));
        reload(&rig, "link.ca");
        rig.traffic(20).await;
    }
    restart_both(&mut rig).await;
    for node in [0, 1] {
        assert_eq!(rig.pair.status(node).unwrap().witness.as_deref(), Some("decides"));
    }
    let report = rig.settle().await;
    assert_eq!(report.counters.binds_anew, 0, "{report:?}");
}

/// Which run of its process a node is in.
fn run_of(rig: &Rig, node: usize) -> Option<u64> {
    rig.pair.status(node)?.nodes.iter().find(|n| n.local).map(|n| n.run)
}

/// A process that ends with the test.
struct Killed(Child);

impl Killed {
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
