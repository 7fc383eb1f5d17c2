//! What systemd hears of a node: readiness, reloads, life, the end.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use load_tests::rig::{self, QUICK, last_lines, tandem, turn};
use rustix::process::Signal;
use srm::demo::pair::{DOMAIN, Pair};
use srm::setup::Plan;

const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a machine on which other tests run.
const WATCHDOG: Duration = Duration::from_secs(6);

/// The next message that holds this word; what comes before it.
fn hear(socket: &UnixDatagram, word: &str, pair: &Pair) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    let mut before = Vec::new();
    let mut bytes = [0; 512];
    loop {
        assert!(Instant::now() < deadline, "{word} is not told, but {before:?}\n{}", last_lines(pair));
        let Ok(len) = socket.recv(&mut bytes) else { continue };
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        if text.contains(word) {
            return before;
        }
        before.push(text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_of_readiness_reloads_life_and_the_end() {
    let _turn = turn().await;
    let dir = tempfile::tempdir_in(load_tests::rig::place()).unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let plan = Plan::local_single(DOMAIN, dir.path()).unwrap();
    let plan = rig::with(plan, QUICK);
    // The watchdog is for one process, which systemd names.
    let wrapper = dir.path().join("tandem");
    let script = format!("#!/bin/sh\nexport WATCHDOG_PID=$$\nexec {} \"$@\"\n", tandem().display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut pair = Pair::make(&wrapper, &plan).unwrap();
    pair.env(0, "NOTIFY_SOCKET", path.to_str());
    pair.env(0, "WATCHDOG_USEC", Some(&WATCHDOG.as_micros().to_string()));
    pair.start(0).unwrap();
    assert!(hear(&socket, "READY=1", &pair).is_empty());
    assert!(
        std::net::TcpStream::connect(pair.made.nodes[0].c2s_tls).is_ok(),
        "ready means that clients may come"
    );

    // The watchdog is kept quiet in time, again and again.
    hear(&socket, "WATCHDOG=1", &pair);
    for _ in 0..5 {
        let since = Instant::now();
        hear(&socket, "WATCHDOG=1", &pair);
        assert!(since.elapsed() < WATCHDOG, "systemd would have ended the node");
    }
    pair.signal(0, Signal::HUP).unwrap();
    hear(&socket, "RELOADING=1", &pair);
    hear(&socket, "READY=1", &pair);

    pair.signal(0, Signal::TERM).unwrap();
    hear(&socket, "STOPPING=1", &pair);
    let status = pair.wait(0, LIMIT).unwrap();
    assert_eq!(status.code(), Some(0));
}
