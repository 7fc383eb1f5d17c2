//! What follows if a service stays down, what the node says of that beforehand, and how one that fails is started.

use srm::node::GroupOp;

use super::services::{DELAY, SERVICES, with_services};
use super::*;

fn stops(stage: &mut Stage, node: usize, service: Service) {
    stage.service(node, service, Health::Stopped, true);
}

fn failed_over(stage: &mut Stage) {
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, SECOND);
    stage.run(SECOND);
}

fn taken_over(stage: &mut Stage) {
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage.run(3 * SECOND);
}

/// There was the one failover of the hour.
fn guarded(stage: &mut Stage) {
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
}

fn in_failed_mode(stage: &mut Stage) {
    BOTH.into_iter().for_each(|node| stops(stage, node, Service::Router));
    stage.expect(BOTH, 15, DELAY + SECOND);
}

/// Node a is failed over, and nobody takes over any more.
fn failed_over_without_ha(stage: &mut Stage) {
    failed_over(stage);
    assert_eq!(stage.op(B, Op::Group(GroupOp::Ha { on: false, force: true })), None);
    stage.run(SECOND);
}

/// Whether a node says that the other is to serve all users.
fn promises(stage: &Stage, node: usize) -> bool {
    says(stage, node, &format!("after 90 s {} is to serve all users", ["b", "a"][node]))
}

#[test]
fn an_alarm_promises_the_move_that_follows_and_none_that_does_not() {
    type Case = (&'static str, fn(&mut Stage), usize, bool);
    let cases: [Case; 8] = [
        ("both are Normal", |_| {}, A, true),
        ("it serves all, and the other could", taken_over, B, true),
        ("it is Idle", failed_over, A, false),
        ("it is Failed Over", taken_over, A, false),
        ("the other lacks a service", |stage| stops(stage, B, Service::Database), A, false),
        ("the flap guard holds", guarded, A, false),
        ("both run in failed mode", in_failed_mode, A, false),
        ("it serves all, without high availability", failed_over_without_ha, B, false),
    ];
    for (what, before, node, moved) in cases {
        let mut stage = with_services();
        before(&mut stage);
        moves(&mut stage, node);
        stops(&mut stage, node, Service::PresenceEngine);
        stage.run(2 * SECOND);
        assert!(says(&stage, node, "critical service presence-engine is stopped"), "{what}");
        assert_eq!(promises(&stage, node), moved, "{what}: {:?}", stage.alarms(node));
        stage.run(DELAY + 10 * SECOND);
        let told = moves(&mut stage, node);
        assert_eq!(!told.is_empty(), moved, "{what}: {told:?}");
    }
}

#[test]
fn nothing_is_promised_while_users_are_served_without_a_standby() {
    let mut stage = Stage::pair(Profile { peer_and_disk: true, ..PAIR });
    stage.automatics(Automatics { add_users: true, ..SERVICES });
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.more_users(B, 3);
    stage.run(SECOND);
    // It is heard, and what it has missed waits for its disk.
    stage.start(A);
    stage.disk_stalls(A, 4 * SECOND);
    stage.run(2 * SECOND);
    stops(&mut stage, B, Service::Router);
    stage.run(SECOND);
    let Some(Reply::Checks(checks)) = stage.op(B, Op::HaChecks) else { panic!("no checks") };
    assert!(checks.iter().any(|check| check.what == "connection" && check.wrong.is_none()), "{checks:?}");
    assert!(says(&stage, B, "unprotected"), "{:?}", stage.alarms(B));
    assert!(!promises(&stage, B), "{:?}", stage.alarms(B));
    stage.run(20 * SECOND);
    assert!(promises(&stage, B), "{:?}", stage.alarms(B));
    stage.expect([B], 23, DELAY);
}

/// It keeps its own users, too, and those that it serves for the other go home when the operator says so.
#[test]
fn without_high_availability_a_service_of_the_node_in_backup_mode_moves_nobody() {
    let mut stage = with_services();
    failed_over_without_ha(&mut stage);
    stops(&mut stage, B, Service::Router);
    stage.stays(&BOTH, 3, 2 * DELAY);
    assert_eq!((stage.served(A), stage.served(B)), (0, 10));
    stage.service(B, Service::Router, Health::Runs, false);
    fallback(&mut stage, B);
    stage.expect(BOTH, 122, 5 * SECOND);
    assert_eq!((stage.served(A), stage.served(B)), (5, 5));
}

#[test]
fn a_fallback_has_the_home_node_restart_a_service_that_fails_and_waits_for_its_probe() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Database, Health::Fails, true);
        stage.expect(BOTH, 13, DELAY + 5 * SECOND);
        // Mended; nothing has shown that yet.
        stage.service(home, Service::Database, Health::Fails, false);
        fallback(&mut stage, backup);
        stage.stays(&[backup], 4, 4 * SECOND);
        stage.expect(BOTH, 1, 5 * SECOND);
        stage.stays(&BOTH, 1, 2 * DELAY);
    });
}

/// It is switched off on both: what the one tells is not of a time before that.
#[test]
fn row_14_without_high_availability_both_nodes_run_in_failed_mode() {
    either(|home, backup| {
        let mut stage = with_services();
        assert!(begun(stage.op(home, Op::Failover(By::Here))));
        stage.expect(BOTH, 3, SECOND);
        stage.run(SECOND);
        assert_eq!(stage.op(backup, Op::Group(GroupOp::Ha { on: false, force: true })), None);
        stage.run(SECOND);
        stage.service(home, Service::Router, Health::Stopped, true);
        fallback(&mut stage, backup);
        stage.run(20 * SECOND);
        stage.expect(BOTH, 14, 15 * SECOND);
        stage.stays(&BOTH, 14, MINUTE);
        stage.service(home, Service::Router, Health::Runs, false);
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 3, 5 * SECOND);
        stage.stays(&BOTH, 3, 10 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 122, 5 * SECOND);
    });
}

#[test]
fn row_14_a_service_that_was_restarted_in_vain() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Fails, true);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(&mut stage, B);
    stage.run(20 * SECOND);
    stage.expect(BOTH, 14, 15 * SECOND);
    // Mended by then; a recover restarts it once more.
    stage.service(A, Service::Router, Health::Fails, false);
    stage.stays(&BOTH, 14, MINUTE);
    assert_eq!(stage.op(B, Op::Recover), Some(Reply::Done));
    stage.expect(BOTH, 12, SECOND);
    stage.expect(BOTH, 11, 10 * SECOND);
}
