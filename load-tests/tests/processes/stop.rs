//! A node that stops and whose clients nobody takes over: they are told so, and their sessions wait for its return. And one
//! whose peer takes them over: then nobody is told anything.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use client_sim::session::Event;
use load_tests::rig::{Load, Person, QUICK, Rig, last_lines, seed, tandem};
use rustix::process::Signal;
use srm::admin::Stop;
use srm::cli::Client;

const LIMIT: Duration = Duration::from_secs(30);

/// Its session goes on.
async fn resumed(person: &mut Person, rig: &Rig) {
    let resumed = |event: &Event| match event {
        Event::Resumed { .. } => Some(()),
        Event::SessionGone { .. } | Event::Bound { .. } => panic!("the session is lost: {event:?}"),
        _ => None,
    };
    person.next(&rig.pair, "resumed", resumed).await;
}

/// The reason for which the server ended the stream.
async fn shown_out(person: &mut Person, rig: &Rig) -> String {
    let reason = |event: &Event| match event {
        Event::MainLost { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    person.next(&rig.pair, "the stream ends", reason).await
}

fn client(rig: &Rig, node: usize) -> Client {
    let made = &rig.pair.made.nodes[node];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// `tandem stop`, asked at this node: what it says.
fn stop_by_command(rig: &Rig, at: usize, node: &str, more: &[&str]) -> String {
    let mut command = Command::new(tandem());
    command.args(["stop", node, "-c"]).arg(&rig.pair.made.nodes[at].config).args(more);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn load() -> Load {
    Load { users: 8, plain: 0.5, interval: Duration::from_millis(100), seed: seed() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_alone_tells_its_clients_and_keeps_their_sessions() {
    let mut rig = Rig::start(1, load(), QUICK, &[]).await;
    rig.pair.user_add(0, "eva", 0).unwrap();
    let mut eva = Person::at(&rig.pair, 0, "eva");
    eva.bound(&rig.pair).await;
    rig.traffic(50).await;
    for text in [None, Some("back in a minute")] {
        rig.mark_fault(0);
        match text {
            None => _ = rig.pair.signal(0, Signal::TERM).unwrap(),
            Some(text) => {
                // The command is over when the node is gone.
                let done = stop_by_command(&rig, 0, "a", &["--text", text]);
                assert!(done.starts_with("a has stopped after "), "{done}");
            }
        }
        let reason = shown_out(&mut eva, &rig).await;
        let told = text.unwrap_or("the server is shut down; your session waits until it is back");
        assert!(reason.contains("system-shutdown") && reason.contains(told), "{reason}");
        assert_eq!(rig.pair.wait(0, LIMIT).unwrap().code(), Some(0), "{}", rig.logs());
        rig.pair.start(0).unwrap();
        resumed(&mut eva, &rig).await;
        rig.clients_go_on(LIMIT).await;
        rig.traffic(20).await;
    }
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hands_over_where_it_can_and_else_waits_for_its_clients() {
    let mut rig = Rig::start(2, load(), QUICK, &[]).await;
    for user in ["eva", "max"] {
        rig.pair.user_add(0, user, 0).unwrap();
    }
    let mut eva = Person::at(&rig.pair, 0, "eva");
    eva.bound(&rig.pair).await;
    eva.parked(&rig.pair).await;

    // The other node is well: a takes nobody's stream away with words, and waits for nobody, whatever it is told.
    rig.mark_fault(0);
    let stop = Stop { text: Some("goodbye".into()), drain_s: Some(600) };
    // Asked at the other node, as an operator may.
    let done = stop_by_command(&rig, 1, "a", &["--text", "goodbye", "--drain", "10min"]);
    assert!(done.starts_with("a has stopped after "), "{done}");
    let flipped = |event: &Event| match event {
        Event::Flipped { .. } => Some(()),
        Event::MainLost { reason, .. } => panic!("{reason}"),
        _ => None,
    };
    eva.next(&rig.pair, "flipped", flipped).await;
    assert_eq!(rig.pair.wait(0, LIMIT).unwrap().code(), Some(0));
    rig.clients_go_on(LIMIT).await;

    // b is alone now. It lets nobody in any more, and goes on with who is there.
    let done = client(&rig, 1).stop("b", &stop).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert!(!done.hands_over && done.streams >= 9, "{done:?}");
    rig.traffic(20).await;
    let mut max = Person::at(&rig.pair, 0, "max");
    let refused = |event: &Event| match event {
        Event::AttemptFailed { node, reason } if node == "b" => Some(reason.clone()),
        Event::Bound { .. } => panic!("let in"),
        _ => None,
    };
    let reason = max.next(&rig.pair, "refused", refused).await;
    assert!(reason.contains("temporary-auth-failure"), "{reason}");
    max.session.stop().await;
    rig.settle().await;
    // The last ones leave by themselves, long before the time is over.
    let began = Instant::now();
    eva.session.stop().await;
    let Rig { mut pair, fleet, .. } = rig;
    fleet.stop().await;
    assert_eq!(pair.wait(1, LIMIT).unwrap().code(), Some(0), "{}", last_lines(&pair));
    assert!(began.elapsed() < LIMIT);
}

/// What a node cannot be without, by the names that its last words have; but for what systemd is told, which only systemd starts.
const VITAL: [&str; 10] = [
    "the admin API",
    "alarms",
    "rules on events",
    "the watch on files",
    "the watch on logins",
    "the supervision of critical services",
    "the port for clients",
    "the port for the peer",
    "the link to the peer",
    "the connection to the witness",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_in_anything_that_a_node_cannot_be_without_ends_it_and_the_other_serves() {
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let env = [(0, "TANDEM_PANIC_AT", format!("task:{}", trap.display()))];
    let mut rig = Rig::start_with_witness(load(), QUICK, &env).await;
    for what in VITAL {
        rig.mark_fault(0);
        let new = trap.with_extension("new");
        fs::write(&new, what).unwrap();
        fs::rename(&new, &trap).unwrap();
        let ended = rig.pair.wait(0, LIMIT).unwrap_or_else(|error| panic!("{what}: {error}\n{}", rig.logs()));
        assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()), "{what}: {ended}");
        let log = fs::read_to_string(rig.pair.log_file(0)).unwrap();
        assert!(log.contains(&format!("tandem: fatal: a bug ended {what:?}")), "{}", rig.logs());
        rig.clients_go_on(LIMIT).await;
        rig.pair.start(0).unwrap();
        rig.until_paired(LIMIT);
    }
    rig.settle().await;
}
