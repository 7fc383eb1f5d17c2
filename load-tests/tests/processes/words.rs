//! What `tandem serve` says when something is wrong: in words, with what to do, and with the exit code of the environment.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use load_tests::rig::{Nodes, QUICK, place, tandem, turn};
use srm::config::Config;
use srm::demo::pair::DOMAIN;
use srm::setup::{Made, Plan};

const LIMIT: Duration = Duration::from_secs(20);

struct Found {
    dir: tempfile::TempDir,
    made: Made,
}

impl Found {
    fn new() -> Found {
        let dir = tempfile::tempdir_in(place()).unwrap();
        let made = Plan::local_pair(DOMAIN, dir.path()).unwrap().make().unwrap();
        Found { dir, made }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, node: usize) -> Config {
        Config::load(&self.made.nodes[node].config).unwrap()
    }

    /// `tandem serve` of a node; it must end by itself.
    fn serve(&self, node: usize) -> Output {
        serve(&self.made.nodes[node].config)
    }
}

fn serve(config: &Path) -> Output {
    let mut command = Command::new(tandem());
    command.arg("serve").arg("-c").arg(config).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            let said = child.wait_with_output().unwrap();
            panic!("the node serves instead of refusing: {}", String::from_utf8_lossy(&said.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// It refused, and said all of this.
fn said(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named_with_its_setting() {
    let _turn = turn().await;
    let found = Found::new();
    let config = found.config(0);
    let link = config.link.as_ref().unwrap();
    let ports = [
        ("c2s.starttls", config.c2s.starttls),
        ("c2s.direct", config.c2s.direct),
        ("link.listen", link.listen),
        ("life socket", link.life()),
        ("admin.listen", config.admin.listen),
    ];
    for (name, address) in ports {
        let _taken = TcpListener::bind(address).unwrap();
        said(&found.serve(0), &[name, &address.to_string(), "in use", "another process has it"]);
    }
    let _taken = std::net::UdpSocket::bind(link.listen).unwrap();
    said(&found.serve(0), &["link.listen (UDP, for beacons)", "another process has it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_here_is_told() {
    let _turn = turn().await;
    let found = Found::new();
    let file = &found.made.nodes[0].config;
    let text = fs::read_to_string(file).unwrap();
    let port = found.config(0).c2s.direct.port();
    fs::write(file, text.replace(&format!("127.0.0.1:{port}"), &format!("192.0.2.1:{port}"))).unwrap();
    said(&found.serve(0), &["c2s.direct: 192.0.2.1", "this machine has no such address"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_do_not_fit_or_cannot_be_read_are_named() {
    let _turn = turn().await;
    let found = Found::new();
    let put = |name: &str, bytes: &[u8]| {
        let before = fs::read(found.file(name)).unwrap();
        fs::write(found.file(name), bytes).unwrap();
        before
    };
    let key = put("a/c2s.key", &fs::read(found.file("a/link.key")).unwrap());
    said(&found.serve(0), &["c2s.cert", "a/c2s.key", "are they of one pair?"]);
    put("a/c2s.key", &key);

    fs::rename(found.file("a/link.pem"), found.file("a/gone")).unwrap();
    said(&found.serve(0), &["link.cert", "cannot read", "a/link.pem", "check the path"]);
    fs::rename(found.file("a/gone"), found.file("a/link.pem")).unwrap();

    let pem = put("a/link.pem", &fs::read(found.file("b/link.pem")).unwrap());
    let key = put("a/link.key", &fs::read(found.file("b/link.key")).unwrap());
    said(&found.serve(0), &["link.cert", "is not for a;"]);
    put("a/link.pem", &pem);
    put("a/link.key", &key);

    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(found.file("a/secret"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    said(&found.serve(0), &["link.secret", "open to every user", "chmod 600"]);
    mode(0o600);
    // A folder where a file should be: nobody can read it, whoever the tests run as.
    fs::remove_file(found.file("a/admin.token")).unwrap();
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700)
        .create(found.file("a/admin.token"))
        .unwrap();
    said(&found.serve(0), &["admin.token_file", "cannot be read"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_and_foreign_disks_are_refused() {
    let found = Found::new();
    let mut pair = Nodes::make(2, QUICK).await;
    pair.start(0).unwrap();
    pair.wait_status(0, LIMIT, "an answer", |_| true).unwrap();
    let out = serve(&pair.made.nodes[0].config);
    said(&out, &["link.listen (the life socket", "perhaps this one started before"]);
    // The same node from a second copy of its files, with ports of its own: the disk is taken.
    let text = fs::read_to_string(&pair.made.nodes[0].config).unwrap();
    let moved = ["starttls", "direct", "listen"].iter().fold(text, |text, key| {
        let lines = text.lines().map(|line| match line.starts_with(&format!("{key} = ")) {
            true => line.replace("127.0.0.1:", "127.0.0.2:"),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let second = pair.made.nodes[0].config.with_file_name("second.toml");
    fs::write(&second, moved).unwrap();
    said(&serve(&second), &["/data: another tandem uses this data folder"]);
    pair.kill(0).unwrap();

    let data = |made: &Made, node: usize| Config::load(&made.nodes[node].config).unwrap().node.data;
    let ours = data(&pair.made, 0);
    fs::rename(&ours, data(&found.made, 0)).unwrap();
    said(&found.serve(0), &["belongs to another cluster", "empty data folder", "right secret"]);
    fs::rename(data(&found.made, 0), data(&pair.made, 1)).unwrap();
    said(&serve(&pair.made.nodes[1].config), &["belongs to node \"a\"", "its own [node] data"]);
}

/// Nodes of two clusters, or with another's certificates, do not come together, and each says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_does_not_come_up_is_an_alarm_with_its_reason() {
    let mut pair = Nodes::make(2, &[]).await;
    let other = Found::new();
    for name in ["link.pem", "link.key", "ca.pem"] {
        fs::copy(other.file("b").join(name), pair.folder().join("b").join(name)).unwrap();
    }
    for node in 0..2 {
        pair.start(node).unwrap();
    }
    for node in 0..2 {
        let told = |s: &srm::admin::Status| s.alarms.iter().any(|alarm| alarm.contains("fails in TLS"));
        pair.wait_status(node, LIMIT, "the reason", told).unwrap_or_else(|e| panic!("{e}\n{}", pair.logs()));
    }
    // Put right while both run: the files are taken up, and the link comes up.
    for name in ["link.pem", "link.key", "ca.pem"] {
        fs::copy(other.file("a").join(name), pair.folder().join("a").join(name)).unwrap();
    }
    let paired = |s: &srm::admin::Status| s.alarms.is_empty() && s.groups.iter().all(|g| g.mode == "Pair");
    for node in 0..2 {
        pair.wait_status(node, LIMIT, "Pair", paired).unwrap_or_else(|e| panic!("{e}\n{}", pair.logs()));
    }
}

/// A certificate whose time is not now: the node starts and serves, and says it loudly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_time_is_an_alarm_and_no_reason_to_stand_still() {
    let mut pair = Nodes::make(1, &[]).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![DOMAIN.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    fs::write(pair.folder().join("a/c2s.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(pair.folder().join("a/c2s.key"), key.serialize_pem()).unwrap();
    pair.start(0).unwrap();
    let clock = |s: &srm::admin::Status| {
        s.row == Some(120) && s.alarms.iter().any(|alarm| alarm.contains("is the clock right?"))
    };
    pair.wait_status(0, LIMIT, "the alarm", clock).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    fs::write(pair.folder().join("a/c2s.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let over = |s: &srm::admin::Status| s.alarms.iter().any(|alarm| alarm.contains("not valid since 2021"));
    pair.wait_status(0, LIMIT, "the other alarm", over).unwrap();
}
