//! High availability begins: by the operator's word, and with the first start of a pair.

use srm::node::{Check, SERVICES as CRITICAL};

use super::group::{ON, switched_off};
use super::services::SERVICES;
use super::*;

/// What a shell says that sees another version at the other node.
fn versions() -> Vec<Check> {
    vec![Check::new("versions", false, "the other runs version 0", "run the same version on both nodes")]
}

/// What is wrong with what is looked at, by the name of the check.
fn wrong(stage: &mut Stage, node: usize) -> Vec<&'static str> {
    let Some(Reply::Checks(checks)) = stage.op(node, Op::HaChecks) else { panic!("no checks") };
    checks.into_iter().filter(|check| check.wrong.is_some()).map(|check| check.what).collect()
}

/// Each node serves its own users.
fn serve(stage: &Stage) {
    for (node, own) in BOTH.into_iter().zip(NodeIx::BOTH) {
        assert!(stage.ready(node) && stage.leads(node, own), "{node}: {:?}", stage.shown(node));
    }
}

#[test]
fn row_132_both_nodes_are_initializing_until_the_checks_hold_on_both() {
    for (profile, asked) in [(PAIR, A), (PAIR, B), (STRICT, A), (WITNESS, B)] {
        let mut stage = switched_off(profile);
        BOTH.into_iter().for_each(|node| _ = stage.told_rows(node));
        assert_eq!(stage.op(asked, ON), None, "answered when it is safe");
        stage.expect(BOTH, 132, SECOND);
        let states = [(State::Initializing, Reason::Initialization); 2];
        assert_eq!(BOTH.map(|node| stage.shown(node).unwrap().1), [states; 2]);
        serve(&stage);
        let why = refusal(stage.op(asked, Op::Failover(By::Here)));
        assert!(why.contains("this node is Initializing"), "{why}");
        stage.expect(BOTH, 1, 5 * SECOND);
        stage.stays(&BOTH, 1, MINUTE);
        for node in BOTH {
            assert_eq!(stage.told_rows(node), [132, 1], "each node writes it down");
            assert!(!says(&stage, node, "has yet to begin"), "{:?}", stage.alarms(node));
        }
    }
}

#[test]
fn a_check_that_fails_at_either_node_keeps_both_initializing_and_is_named_and_everybody_is_served() {
    either(|fails, other| {
        let mut stage = switched_off(PAIR);
        stage.checks(fails, versions());
        assert_eq!(stage.op(other, ON), None);
        stage.expect(BOTH, 132, SECOND);
        stage.stays(&BOTH, 132, MINUTE);
        serve(&stage);
        stage.more_users(fails, 1);
        stage.run(SECOND);
        assert_eq!(stage.served(fails), 6);
        let alarm = "high availability has yet to begin: check of versions: the other runs version 0";
        assert!(says(&stage, fails, alarm), "{:?}", stage.alarms(fails));
        assert!(says(&stage, other, "a check of"), "{:?}", stage.alarms(other));
        // Whoever dies meanwhile is taken over for all the same.
        stage.kill(fails);
        stage.expect([other], 17, 2 * SECOND);
        stage.start(fails);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.checks(fails, Vec::new());
        stage.run(SECOND);
        fallback(&mut stage, other);
        stage.expect(BOTH, 1, 10 * SECOND);
        assert!(BOTH.into_iter().all(|node| !says(&stage, node, "has yet to begin")));
    });
}

#[test]
fn it_is_over_when_the_check_holds() {
    let mut stage = switched_off(PAIR);
    stage.checks(A, versions());
    assert_eq!(stage.op(A, ON), None);
    stage.expect(BOTH, 132, SECOND);
    stage.stays(&BOTH, 132, 20 * SECOND);
    stage.checks(A, Vec::new());
    stage.expect(BOTH, 1, 5 * SECOND);
    // And when it is switched off again.
    stage.checks(A, versions());
    stage.op(A, Op::Group(srm::node::GroupOp::Ha { on: false, force: false }));
    stage.run(SECOND);
    stage.op(A, ON);
    stage.expect(BOTH, 132, SECOND);
    stage.op(B, Op::Group(srm::node::GroupOp::Ha { on: false, force: false }));
    stage.expect(BOTH, 122, SECOND);
    stage.stays(&BOTH, 122, MINUTE);
}

/// What a node says of its checks counts once the other has heard it: what fails there meanwhile keeps both from being Normal.
#[test]
fn it_is_not_over_while_the_other_node_has_yet_to_hear_that_the_checks_hold() {
    let seen = |text: &str| vec![Check::new("versions", false, text, "run the same version on both nodes")];
    let mut stage = switched_off(PAIR);
    stage.checks(A, versions());
    assert_eq!(stage.op(A, ON), None);
    stage.expect(BOTH, 132, SECOND);
    stage.stays(&BOTH, 132, 20 * SECOND);
    // It looks once a second, and has done so just now.
    let until = |stage: &mut Stage, node: usize, text: &str, there: bool| {
        for _ in 0..120 {
            if says(stage, node, text) == there {
                return;
            }
            stage.run(10);
        }
        panic!("{text}, {there}: {:?}", stage.alarms(node));
    };
    stage.checks(A, seen("the other runs version 1"));
    until(&mut stage, A, "the other runs version 1", true);
    stage.run(800);
    // What b says is heard by a: that all holds there. What a says from now on is lost.
    stage.cut_one_way(B, 2 * SECOND);
    stage.checks(A, Vec::new());
    until(&mut stage, A, "the other runs version 1", false);
    stage.checks(B, versions());
    until(&mut stage, B, "check of versions", true);
    stage.run(3 * SECOND);
    assert!(says(&stage, A, "a check of b fails"), "{:?}", stage.alarms(A));
    stage.stays(&BOTH, 132, 10 * SECOND);
    stage.checks(B, Vec::new());
    stage.expect(BOTH, 1, 5 * SECOND);
}

#[test]
fn a_first_start_makes_the_same_checks_and_serves_whatever_they_say() {
    let mut stage = Stage::fresh(PAIR);
    BOTH.into_iter().for_each(|node| stage.start(node));
    stage.expect(BOTH, 132, 10 * SECOND);
    serve(&stage);
    stage.expect(BOTH, 1, 5 * SECOND);
    for node in BOTH {
        let told = stage.told_rows(node);
        assert!(told.ends_with(&[132, 1]), "{told:?}");
    }

    let mut stage = Stage::fresh(PAIR);
    stage.checks(B, versions());
    BOTH.into_iter().for_each(|node| stage.start(node));
    stage.expect(BOTH, 132, 10 * SECOND);
    stage.stays(&BOTH, 132, MINUTE);
    serve(&stage);
    stage.more_users(A, 3);
    stage.run(SECOND);
    assert_eq!(stage.served(A), 3);
    assert!(says(&stage, B, "check of versions: the other runs version 0"), "{:?}", stage.alarms(B));
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    assert!(says(&stage, B, "check of connection: node a is not heard"), "{:?}", stage.alarms(B));
}

#[test]
fn a_restart_is_no_first_start() {
    let mut stage = Stage::pair(PAIR);
    stage.checks(A, versions());
    stage.checks(B, versions());
    BOTH.into_iter().for_each(|node| stage.kill(node));
    BOTH.into_iter().for_each(|node| stage.start(node));
    stage.expect(BOTH, 1, 10 * SECOND);
    stage.stays(&BOTH, 1, 10 * SECOND);
}

#[test]
fn a_service_that_is_down_fails_over_or_fails_both_although_a_check_fails() {
    for both in [false, true] {
        let mut stage = switched_off(PAIR);
        stage.automatics(SERVICES);
        stage.checks(B, versions());
        stage.service(A, Service::Router, Health::Stopped, true);
        if both {
            stage.service(B, Service::Router, Health::Stopped, true);
        }
        stage.run(2 * MINUTE);
        assert_eq!(stage.op(A, ON), None);
        stage.expect(BOTH, 132, SECOND);
        stage.expect(BOTH, if both { 15 } else { 12 }, 20 * SECOND);
    }
}

#[test]
fn each_check_that_fails_is_named_by_both_nodes_and_refuses_where_it_must() {
    // A log that does not come through: what the other has missed waits for its disk.
    let mut stage = switched_off(Profile { peer_and_disk: true, ..PAIR });
    stage.kill(B);
    stage.run(5 * SECOND);
    assert_eq!(wrong(&mut stage, A), ["connection", "replication"]);
    assert!(refusal(stage.op(A, ON)).starts_with("check of connection: node b is not heard"));
    stage.more_users(A, 3);
    stage.run(SECOND);
    stage.start(B);
    stage.disk_stalls(B, 4 * SECOND);
    stage.run(3 * SECOND);
    assert_eq!(wrong(&mut stage, A), ["replication"]);
    assert!(refusal(stage.op(A, ON)).starts_with("check of replication: b does not hold everything yet"));
    assert!(refusal(stage.op(B, ON)).starts_with("check of replication:"));
    stage.expect(BOTH, 122, MINUTE);
    stage.run(10 * SECOND);
    // Other settings.
    stage.settings(B, 2);
    stage.run(2 * SECOND);
    for node in BOTH {
        assert_eq!(wrong(&mut stage, node), ["configuration"]);
        assert!(refusal(stage.op(node, ON)).starts_with("check of configuration:"));
    }
    stage.settings(B, 1);
    stage.run(2 * SECOND);
    // A service that is down is named, and does not keep it off.
    stage.service(B, Service::Router, Health::Stopped, true);
    stage.run(2 * SECOND);
    assert_eq!(BOTH.map(|node| wrong(&mut stage, node)), [[CRITICAL]; 2]);
    assert_eq!(stage.op(A, ON), None);
    stage.expect(BOTH, 132, SECOND);
}
