//! `tandem drill` between two real nodes while people talk: it passes, or names the step that does not; either way nothing is left
//! of it, and nobody else notices.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig, place, seed, tandem};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use srm::admin::ServiceAction;
use srm::cli::Client;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs it at a node; exit code and answer.
fn drill(rig: &Rig, at: usize, args: &[&str]) -> (Option<i32>, Value) {
    let ca = rig.pair.made.ca.to_str().unwrap();
    at_node(rig, at, &[&["drill"][..], args, &["--trust", ca]].concat())
}

fn at_node(rig: &Rig, at: usize, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(tandem());
    command.args(args).args(["--json", "-c"]).arg(&rig.pair.made.nodes[at].config).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

fn users(rig: &Rig) -> usize {
    let made = &rig.pair.made.nodes[0];
    let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    client.users().unwrap_or_else(|failure| panic!("{failure:?}")).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_passes_or_names_the_step_that_does_not_and_leaves_nothing() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let rig = Rig::start(2, load, QUICK, &[]).await;
    rig.traffic(20).await;
    for (at, args) in [(0, &[][..]), (0, &["b"])] {
        let (code, answer) = drill(&rig, at, args);
        assert_eq!(code, Some(0), "{answer:#}\n{}", rig.logs());
        let steps = answer["steps"].as_array().map_or(0, Vec::len);
        assert_eq!((steps, answer["node"].as_str()), (12, Some(args.first().copied().unwrap_or("a"))));
        assert_eq!(users(&rig), 12, "the test user is gone");
        rig.until_paired(LIMIT);
    }
    let (code, answer) = drill(&rig, 1, &["c"]);
    let hint = answer["hint"].as_str().unwrap_or_default();
    assert!(code == Some(2) && hint.contains("the nodes are"), "{answer:#}");

    // Nobody can log in through b: whoever would fail over to it must know.
    let made = &rig.pair.made.nodes[1];
    let b = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    b.service("b", "authentication", ServiceAction::Stop).unwrap_or_else(|failure| panic!("{failure:?}"));
    let (code, answer) = drill(&rig, 0, &[]);
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(code == Some(1) && error.starts_with("step 4 of 12 failed"), "{answer:#}");
    assert!(error.contains("login through b"), "{error}");
    assert_eq!(answer["steps"].as_array().map(Vec::len), Some(3));
    assert_eq!(users(&rig), 12, "the test user is gone");
    b.service("b", "authentication", ServiceAction::Start).unwrap_or_else(|failure| panic!("{failure:?}"));

    b.service("b", "router", ServiceAction::Stop).unwrap_or_else(|failure| panic!("{failure:?}"));
    rig.until(0, LIMIT, "a says so", |status| !status.alarms.is_empty());
    let (code, answer) = drill(&rig, 0, &[]);
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(code == Some(1) && error.starts_with("step 1 of 12 failed"), "{answer:#}");
    assert!(error.contains("a critical service of b is down"), "{error}");
    b.service("b", "router", ServiceAction::Start).unwrap_or_else(|failure| panic!("{failure:?}"));
    rig.settle().await;
}

/// A drill at node a, as soon as its failover has begun.
fn begun(rig: &Rig) -> Child {
    let made = &rig.pair.made;
    let mut command = Command::new(tandem());
    command.args(["drill", "--json", "--trust"]).arg(&made.ca).arg("-c").arg(&made.nodes[0].config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let client =
        Client::at(made.nodes[0].admin, &made.nodes[0].token_file).unwrap_or_else(|f| panic!("{f:?}"));
    let deadline = Instant::now() + LIMIT;
    while !client.status().is_ok_and(|status| matches!(status.row, Some(2 | 3))) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "no failover: {ended:?}\n{}", rig.logs());
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_is_interrupted_in_its_failover_gives_the_users_back_and_removes_its_own() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let rig = Rig::start(2, load, QUICK, &[]).await;
    rig.traffic(20).await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let child = begun(&rig);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let (error, hint) =
            (answer["error"].as_str().unwrap_or_default(), answer["hint"].as_str().unwrap_or_default());
        assert!(
            output.status.code() == Some(1) && error.starts_with("interrupted before step"),
            "{answer:#}"
        );
        assert!(hint.starts_with("what was changed is undone"), "{answer:#}");
        assert_eq!(users(&rig), 12, "the test user is gone");
        for node in 0..2 {
            rig.until(node, LIMIT, "Normal", |status| status.row == Some(1) && status.moving.is_none());
        }
        rig.until_paired(LIMIT);
    }
    rig.settle().await;
}

/// The backup fails when the users are on it, and gives everybody back: the drill says at which step, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_whose_backup_fails_after_the_failover_has_begun_names_the_step_and_leaves_nothing() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    rig.traffic(20).await;
    let ended = |child: Child| {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(output.status.code(), Some(1), "{answer:#}");
        let hint = answer["hint"].as_str().unwrap_or_default();
        assert!(hint.starts_with("what was changed is undone"), "{answer:#}");
        answer["error"].as_str().unwrap_or_default().to_owned()
    };
    let is_step = |error: &str, steps: &[u8]| {
        let named = |step: &u8| error.starts_with(&format!("step {step} of 12 failed: "));
        assert!(steps.iter().any(named), "{error}");
    };

    // Nobody can log in there.
    let child = begun(&rig);
    let made = &rig.pair.made.nodes[1];
    let b = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    b.service("b", "authentication", ServiceAction::Stop).unwrap_or_else(|failure| panic!("{failure:?}"));
    let error = ended(child);
    is_step(&error, &[7, 8]);
    assert!(error.contains("login through b"), "{error}");
    b.service("b", "authentication", ServiceAction::Start).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(users(&rig), 12, "the test user is gone");
    rig.until_paired(LIMIT);

    // It dies.
    let child = begun(&rig);
    rig.kill(1);
    let error = ended(child);
    is_step(&error, &[5, 6, 7, 8]);
    rig.clients_go_on(LIMIT).await;
    assert_eq!(users(&rig), 12, "the test user is gone");
    rig.pair.start(1).unwrap();
    rig.until_paired(LIMIT);
    rig.fallback(1).await;
    let (code, answer) = drill(&rig, 0, &[]);
    assert_eq!(code, Some(0), "{answer:#}\n{}", rig.logs());
    rig.settle().await;
}

/// Whoever kills it has to do by hand what it cannot do any more; nothing else is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_that_is_killed_leaves_a_failover_and_a_user_that_the_operator_undoes() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let rig = Rig::start(2, load, QUICK, &[]).await;
    rig.traffic(20).await;
    let mut child = begun(&rig);
    child.kill().unwrap();
    child.wait().unwrap();
    rig.until(0, LIMIT, "the failover is complete", |status| {
        status.row == Some(3) && status.moving.is_none()
    });
    let (code, answer) = drill(&rig, 0, &[]);
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(code == Some(1) && error.starts_with("step 1 of 12 failed"), "{answer:#}");
    assert!(error.contains("a is Idle (On Admin Request)"), "{error}");
    rig.fallback(0).await;
    let made = &rig.pair.made.nodes[0];
    let client = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    let left = client.users().unwrap_or_else(|failure| panic!("{failure:?}"));
    let left: Vec<_> = left.into_iter().filter(|user| user.user.starts_with("drill-")).collect();
    assert_eq!(left.len(), 1, "its test user");
    client.user_remove(&left[0].user).unwrap_or_else(|failure| panic!("{failure:?}"));
    let (code, answer) = drill(&rig, 0, &[]);
    assert_eq!(code, Some(0), "{answer:#}\n{}", rig.logs());
    assert_eq!(users(&rig), 12);
    rig.settle().await;
}

/// Nothing is different while messages flow and the stores are written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_compares_everything_and_is_no_false_alarm() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(50), seed: seed() };
    let settings = [QUICK, &[("store.checkpoint_frames", "300")]].concat();
    let mut rig = Rig::start(2, load, &settings, &[]).await;
    rig.traffic(400).await;
    for at in [0, 1, 0] {
        let (code, answer) = at_node(&rig, at, &["check"]);
        assert_eq!(code, Some(0), "{answer:#}\n{}", rig.logs());
        let of = |node: &str, what: &str| answer["nodes"][node][what].as_u64();
        assert_eq!((of("a", "users"), of("b", "users")), (Some(6), Some(6)), "{answer:#}");
        assert!(of("a", "pairs") > Some(6) && of("b", "pairs") > Some(6), "{answer:#}");
        rig.traffic(50).await;
    }
    let (_, events) = at_node(&rig, 0, &["events"]);
    let told = events["events"].as_array().into_iter().flatten().filter(|event| event["event"] == "checked");
    assert_eq!(told.count(), 3, "{events:#}");

    // One that is alone compares what it has.
    rig.kill(1);
    rig.until(0, LIMIT, "a serves all", |status| status.groups.iter().all(|group| group.primary == "a"));
    let (code, answer) = at_node(&rig, 0, &["check"]);
    assert_eq!(code, Some(0), "{answer:#}");
    assert_eq!(answer["nodes"]["a"]["users"], Value::Null, "{answer:#}");
    assert_eq!(answer["nodes"]["b"], Value::Null, "{answer:#}");
    rig.pair.start(1).unwrap();
    rig.until_paired(LIMIT);
    rig.settle().await;
}

#[test]
fn a_single_node_has_nothing_to_fail_over_to() {
    let dir = tempfile::tempdir_in(place()).unwrap();
    let out = dir.path().join("one");
    let mut init = Command::new(tandem());
    init.args(["init", "--domain", "d.example", "--node", "a=127.0.0.1", "--out"]).arg(&out);
    let made = init.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let output =
        Command::new(tandem()).args(["drill", "-c"]).arg(out.join("a/tandem.toml")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("a drill needs two nodes"), "{text}");
}
