//! Clients whose socket is on one node and whose session is on the other, with real processes under load (D5).

use std::time::Duration;

use client_sim::fleet::Snapshot;
use load_tests::rig::{Load, QUICK, Rig, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const LIMIT: Duration = Duration::from_secs(20);

/// Streams that clients had to leave.
fn moved(now: &Snapshot) -> u64 {
    now.resumes + now.flips.total()
}

/// Half of the clients are where their session is not. Each kill is the death of the owner for some and of the front for
/// others; only those whose socket was at the dead node have to move, and the ledger stays clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_owner_is_not_noticed_at_the_front_and_that_of_the_front_is_survived() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let load = Load { users: 40, plain: 0.5, interval: Duration::from_millis(100), seed };
    // Homes alternate with each user, places with each pair of users.
    let mut rig = Rig::start_at(2, load, QUICK, &[], |user| user / 2 % 2).await;
    let mut stayed = 0;
    for round in 0..8 {
        let node = round % 2;
        rig.traffic(40).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        let before = rig.fleet.snapshot();
        let name = rig.pair.made.nodes[node].name.clone();
        let there = before.by_node.get(&name).copied().unwrap_or(0) as u64;
        rig.kill(node);
        rig.clients_go_on(LIMIT).await;
        rig.traffic(40).await;
        let after = rig.fleet.snapshot();
        assert_eq!(moved(&after) - moved(&before), there, "round {round}: {before:?} {after:?}");
        assert_eq!(after.binds_anew, before.binds_anew, "round {round}");
        stayed += before.users as u64 - there;
        rig.pair.start(node).unwrap();
        rig.until_paired(LIMIT);
        rig.fallback(node).await;
        println!("round {round}: {there} clients were at {name}, all others stayed where they were");
    }
    let report = rig.settle().await;
    println!("flip_ms {:?}, plain_resume_ms {:?}", report.flip_ms, report.plain_resume_ms);
    assert!(stayed > 0, "nobody was at the other node");
}

/// Failover and fallback by the operator: a plain client keeps its connection, whoever has its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_leaves_plain_clients_where_they_are() {
    let seed = seed();
    let load = Load { users: 20, plain: 0.5, interval: Duration::from_millis(100), seed };
    let rig = Rig::start_at(2, load, QUICK, &[], |user| user / 2 % 2).await;
    let before = rig.fleet.snapshot();
    for node in [0, 1] {
        rig.traffic(50).await;
        rig.pair.action(1 - node, node, "failover").unwrap();
        rig.until(node, LIMIT, "row 3", |s| s.row == Some(3) && s.moving.is_none());
        rig.traffic(50).await;
        rig.fallback(node).await;
        rig.traffic(50).await;
    }
    let after = rig.settle().await.counters;
    assert_eq!(after.resumes, before.resumes, "{after:?}");
    assert_eq!(after.binds_anew, before.binds_anew, "{after:?}");
}
