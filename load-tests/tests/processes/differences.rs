//! Nodes that go by different clusterwide settings do not judge each other: where one of them dies, the other takes nobody over,
//! and says why.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig, seed};
use srm::admin::Status;
use srm::cli::Client;
use srm::events::Record;

const LIMIT: Duration = Duration::from_secs(60);
/// For so long it is looked whether anybody is taken over: a death is seen within a moment.
const LOOKED: Duration = Duration::from_secs(5);

fn client(rig: &Rig, node: usize) -> Client {
    let made = &rig.pair.made.nodes[node];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// Gives node b this file, and has it read.
fn goes_by(rig: &Rig, config: &Path, text: &str) {
    fs::write(config, text).unwrap();
    let done = client(rig, 1).reload().unwrap_or_else(|failure| panic!("{failure:?}\n{}", rig.logs()));
    assert!(done.restart.is_empty(), "{done:?}");
}

/// The events of node b, of those kinds that begin so.
fn events(rig: &Rig, kind: &str) -> Vec<Record> {
    let all =
        client(rig, 1).events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}\n{}", rig.logs()));
    all.into_iter().filter(|record| record.event.starts_with(kind)).collect()
}

/// What differs is told, and what follows from that since the node has seen it for long enough.
fn says_why(status: &Status) -> bool {
    let differ = "the nodes' clusterwide settings differ: ";
    let follows = "; until they are equal no node fails over by itself";
    status.alarms.iter().any(|alarm| alarm.starts_with(differ) && alarm.ends_with(follows))
}

/// Node a is dead, and its users wait for it: b does not lead them.
fn they_wait(status: &Status) -> bool {
    let own = status.groups.iter().all(|group| group.primary == group.home);
    status.row == Some(105) && own && says_why(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_over_while_the_settings_differ_and_everybody_once_they_do_not() {
    let load = Load { users: 12, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, QUICK, &[]).await;
    let config = rig.pair.made.nodes[1].config.clone();
    let sound = fs::read_to_string(&config).unwrap();
    let other = sound.replace("[limits]", "[limits]\nstanza_bytes = 20000");
    assert_ne!(other, sound);
    goes_by(&rig, &config, &other);
    let named = "differ: limits.stanza_bytes is 262144 at a and 20000 at b;";
    for node in 0..2 {
        rig.until(node, LIMIT, "the difference", |s| {
            says_why(s) && s.alarms.iter().any(|alarm| alarm.contains(named))
        });
    }
    rig.traffic(5).await;

    rig.kill(0);
    rig.until(1, LIMIT, "a is gone, and its users wait", they_wait);
    let since = Instant::now();
    while since.elapsed() < LOOKED {
        let now = rig.pair.status(1);
        assert!(now.as_ref().is_some_and(they_wait), "{now:#?}\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = events(&rig, "peer-down");
    assert!(matches!(&gone[..], [told] if told.text.starts_with("a is held to be gone: ")), "{gone:#?}");
    // They are served where they were, when it is back; and the difference is still told.
    rig.pair.start(0).unwrap();
    rig.clients_go_on(LIMIT).await;
    let home = |s: &Status| {
        let pair = s.groups.iter().all(|group| group.mode == "Pair" && group.primary == group.home);
        s.row == Some(1) && pair && says_why(s)
    };
    rig.pair.wait_all(LIMIT, "all at home", home).unwrap_or_else(|e| panic!("{e}\n{}", rig.logs()));
    let moved = events(&rig, "failover-");
    assert!(moved.is_empty(), "{moved:#?}");

    goes_by(&rig, &config, &sound);
    rig.pair.wait_normal(LIMIT).unwrap_or_else(|e| panic!("{e}\n{}", rig.logs()));
    assert!(rig.fleet.all_parked(LIMIT).await, "parking: {:?}", rig.fleet.snapshot());
    rig.kill(0);
    rig.clients_go_on(LIMIT).await;
    rig.until(1, LIMIT, "b serves everybody", |s| s.row == Some(17));
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    rig.fallback(0).await;
    rig.settle().await;
}
