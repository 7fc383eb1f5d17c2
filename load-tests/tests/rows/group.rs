//! The presence redundancy group: high availability on and off, users assigned and balanced.

use load_tests::pair::Profile;
use load_tests::pair::rows::Stage;
use presence_engine::ids::NodeIx;
use srm::config::Assignment;
use srm::node::{Automatics, By, GroupOp, Health, Op, Reply, Service};
use srm::view::{Reason, State};

use super::offers::in_failed_mode;
use super::services::DOWN_ON_BOTH;
use super::{
    A, B, BOTH, MINUTE, PAIR, SECOND, STRICT, WITNESS, begun, either, fallback, moves, refusal, says,
};

pub(super) const OFF: Op = Op::Group(GroupOp::Ha { on: false, force: false });
pub(super) const ON: Op = Op::Group(GroupOp::Ha { on: true, force: false });

pub(super) fn switched_off(profile: Profile) -> Stage {
    let mut stage = Stage::pair(profile);
    assert_eq!(stage.op(A, OFF), None, "answered when it is safe");
    stage.run(SECOND);
    stage.moves(A);
    stage.moves(B);
    stage.expect(BOTH, 122, 0);
    stage
}

/// Homes of the users that are assigned, as a node knows them: at a, at b, at none.
fn homes(stage: &Stage, node: usize) -> [usize; 3] {
    let users = stage.users(node);
    let at = |home| users.iter().filter(|(_, u)| u.assigned && u.home == home).count();
    [at(NodeIx::A), at(NodeIx::B), users.iter().filter(|(_, u)| !u.assigned).count()]
}

#[test]
fn row_122_without_high_availability_nobody_takes_over() {
    for profile in [PAIR, STRICT, WITNESS] {
        let mut stage = switched_off(profile);
        assert!(stage.alarms(B).iter().any(|alarm| alarm.contains("high availability is not enabled")));
        assert!(
            refusal(stage.op(A, Op::Failover(By::Here)))
                .contains("failover is offered while both nodes are Normal")
        );
        stage.kill(A);
        stage.run(3 * MINUTE);
        let (row, states) = stage.shown(B).unwrap();
        assert_eq!((row, states[B], states[A].0), (122, (State::Normal, Reason::Normal), State::Down));
        assert!(stage.ready(B), "b serves its own users");
        assert_eq!(moves(&mut stage, B), []);
        assert!(stage.leads(B, NodeIx::B) && !stage.leads(B, NodeIx::A));
        stage.start(A);
        stage.expect(BOTH, 122, MINUTE);
        stage.run(10 * SECOND);
        assert!(stage.leads(A, NodeIx::A) && stage.ready(A));
    }
}

/// Who serves nobody is not shown as one that does: there is something to wait for, or to do.
#[test]
fn who_may_not_serve_yet_is_not_shown_normal_without_high_availability() {
    let mut stage = switched_off(PAIR);
    stage.kill(A);
    stage.kill(B);
    stage.start(A);
    stage.expect([A], 101, SECOND);
    assert!(!stage.leads(A, NodeIx::A));
    stage.expect([A], 122, 3 * MINUTE);
    assert_eq!(NodeIx::BOTH.map(|group| stage.leads(A, group)), [true, false], "{:?}", stage.shown(A));

    let mut stage = switched_off(WITNESS);
    stage.witness_away(10 * MINUTE);
    stage.kill(A);
    stage.kill(B);
    stage.start(A);
    stage.expect([A], 101, SECOND);
    stage.stays(&[A], 101, 5 * MINUTE);
    assert!(!stage.leads(A, NodeIx::A));
    assert!(stage.alarms(A).iter().any(|alarm| alarm.contains("witness")), "{:?}", stage.alarms(A));
    stage.expect([A], 122, 8 * MINUTE);
}

#[test]
fn a_goodbye_is_no_failover_without_high_availability() {
    let mut stage = switched_off(PAIR);
    stage.never_again(B);
    stage.op(B, Op::Leave);
    stage.run(3 * MINUTE);
    assert!(!stage.leads(A, NodeIx::B) && stage.leads(A, NodeIx::A));
    assert_eq!(moves(&mut stage, A), []);
    stage.start(B);
    stage.expect(BOTH, 122, MINUTE);
}

#[test]
fn high_availability_is_enabled_when_every_check_passes() {
    let mut stage = switched_off(PAIR);
    stage.kill(B);
    stage.run(5 * SECOND);
    assert!(refusal(stage.op(A, ON)).contains("check of connection: node b is not heard"));
    stage.start(B);
    stage.expect(BOTH, 122, MINUTE);
    stage.run(5 * SECOND);
    // Whoever is asked: it is one value for both.
    assert_eq!(stage.op(B, ON), None);
    stage.expect(BOTH, 132, SECOND);
    stage.expect(BOTH, 1, 5 * SECOND);
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
}

#[test]
fn it_outlives_a_restart_of_both() {
    let mut stage = switched_off(PAIR);
    stage.kill(A);
    stage.kill(B);
    stage.run(SECOND);
    stage.start(B);
    stage.start(A);
    stage.expect(BOTH, 122, MINUTE);
    stage.stays(&BOTH, 122, MINUTE);
    assert_eq!(stage.switches(), 2, "each node told it once, and a restart is no news");
}

#[test]
fn enabled_with_services_down_it_fails_over_or_fails() {
    let mut stage = switched_off(PAIR);
    stage.automatics(Automatics { delay: 360, failovers_per_hour: 1, ..Automatics::default() });
    stage.service(A, Service::Router, Health::Stopped, true);
    stage.run(2 * MINUTE);
    stage.expect(BOTH, 122, 0);
    stage.op(A, ON);
    stage.expect(BOTH, 132, SECOND);
    stage.expect(BOTH, 12, 10 * SECOND);
    let mut stage = switched_off(PAIR);
    stage.automatics(Automatics { delay: 360, failovers_per_hour: 1, ..Automatics::default() });
    stage.service(A, Service::Router, Health::Stopped, true);
    stage.service(B, Service::Router, Health::Stopped, true);
    stage.run(2 * MINUTE);
    stage.op(A, ON);
    stage.expect(BOTH, 132, SECOND);
    stage.expect(BOTH, 15, 15 * SECOND);
    let failed = (State::RunningInFailedMode, Reason::CriticalServiceDown);
    assert_eq!(stage.shown(B).unwrap().1, [failed; 2]);
    assert_eq!(BOTH.map(|node| stage.advice(node)), [DOWN_ON_BOTH; 2]);
}

/// What the other node still says while it has yet to read of it does not bring the failed mode back.
#[test]
fn the_failed_mode_is_over_when_it_is_disabled_and_does_not_come_back_with_it() {
    for asked in BOTH {
        let mut stage = in_failed_mode();
        assert_eq!(stage.op(asked, OFF), None, "answered when it is safe");
        stage.expect(BOTH, 122, 5 * SECOND);
        stage.run(5 * SECOND);
        for node in BOTH {
            assert!(!says(&stage, node, "failed mode"), "{node}: {:?}", stage.alarms(node));
            stage.service(node, Service::Router, Health::Runs, false);
        }
        stage.run(SECOND);
        assert_eq!(stage.op(asked, ON), None, "answered when it is safe");
        stage.expect(BOTH, 132, SECOND);
        stage.expect(BOTH, 1, 5 * SECOND);
        stage.stays(&BOTH, 1, MINUTE);
    }
}

#[test]
fn it_is_disabled_after_the_fallback_or_by_force() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        assert!(begun(stage.op(home, Op::Failover(By::Here))));
        assert!(refusal(stage.op(home, OFF)).contains("users are on their way"));
        stage.expect(BOTH, 3, SECOND);
        stage.run(SECOND);
        assert!(refusal(stage.op(backup, OFF)).contains("users are served by their backup"));
        assert_eq!(stage.op(backup, Op::Group(GroupOp::Ha { on: false, force: true })), None);
        stage.run(SECOND);
        stage.stays(&BOTH, 3, MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 122, 5 * SECOND);
    });
}

#[test]
fn row_24_the_nodes_say_different_things_of_the_group() {
    either(|home, _| {
        let mut stage = Stage::pair(Profile { weak: true, ..PAIR });
        // The log does not come through, and beacons do; under `available` each goes on alone.
        stage.cut(4 * MINUTE);
        stage.run(90 * SECOND);
        assert_eq!(stage.op(home, Op::Group(GroupOp::Ha { on: false, force: true })), None);
        stage.run(20 * SECOND);
        stage.beacons_pass();
        stage.expect(BOTH, 24, MINUTE);
        assert_eq!(stage.shown(home).unwrap().1, [(State::Unknown, Reason::Unknown); 2]);
        // When the logs meet, what was said last holds.
        stage.expect(BOTH, 122, 5 * MINUTE);
    });
}

#[test]
fn the_group_is_named_edited_and_deleted() {
    let mut stage = Stage::pair(PAIR);
    let edit = |name: &str, description: &str| {
        Op::Group(GroupOp::Edit { name: Some(name.into()), description: Some(description.into()) })
    };
    let create = |name: &str| Op::Group(GroupOp::Create { name: name.into(), description: String::new() });
    assert_eq!(stage.op(A, edit("Head-Office_1", "first floor")), None);
    stage.run(SECOND);
    assert_eq!(stage.group(B).name, "Head-Office_1");
    assert_eq!(stage.group(B).description, "first floor");
    // Characters, not bytes.
    let [name, description] = ["x", "ä"].map(|c| c.repeat(128));
    assert_eq!(stage.op(A, edit(&name, &description)), None);
    stage.run(SECOND);
    assert_eq!(stage.group(B).name, *name);
    assert_eq!(stage.group(B).description, *description);
    let [long, long_too] = ["x", "ä"].map(|c| c.repeat(129));
    let refused: [(&str, &str); 5] = [("a b", ""), ("ä", ""), (&long, ""), ("x", &long), ("x", &long_too)];
    for (name, description) in refused {
        let error = refusal(stage.op(A, edit(name, description)));
        assert!(error.contains("cannot"), "{error}");
    }
    for taken in ['"', '%', '&', '/', '\\', '<', '>'] {
        let error = refusal(stage.op(A, edit("x", &format!("50{taken}"))));
        assert!(error.contains("cannot"), "{taken}: {error}");
    }
    assert_eq!(stage.group(A).name, *name);
    assert!(refusal(stage.op(A, create("other"))).contains("in one group only"));
    assert!(refusal(stage.op(A, Op::Group(GroupOp::Delete))).contains("high availability is enabled"));
    stage.op(A, OFF);
    stage.run(SECOND);
    assert!(refusal(stage.op(A, Op::Group(GroupOp::Delete))).contains("10 users are assigned"));
    for user in 0..10 {
        assert_eq!(stage.op(user % 2, Op::Assign(jid(user), None)), None);
    }
    stage.run(SECOND);
    assert_eq!(homes(&stage, B), [0, 0, 10]);
    assert_eq!(stage.op(A, Op::Group(GroupOp::Delete)), None);
    stage.run(SECOND);
    assert!(refusal(stage.op(B, ON)).contains("in no group"));
    assert_eq!(stage.op(B, create("other")), None);
    stage.run(SECOND);
    assert_eq!((&*stage.group(A).name, stage.group(A).ha), ("other", false));
    stage.op(A, ON);
    stage.expect(BOTH, 132, SECOND);
    stage.expect(BOTH, 1, 5 * SECOND);
}

#[test]
fn a_group_is_made_of_nodes_with_the_same_settings() {
    let mut stage = switched_off(PAIR);
    for user in 0..10 {
        assert_eq!(stage.op(user % 2, Op::Assign(jid(user), None)), None);
    }
    stage.run(SECOND);
    assert_eq!(stage.op(A, Op::Group(GroupOp::Delete)), None);
    stage.run(SECOND);
    assert_eq!(&*stage.group(B).name, "");
    let create = || Op::Group(GroupOp::Create { name: "other".into(), description: String::new() });
    stage.settings(B, 2);
    stage.run(2 * SECOND);
    for node in BOTH {
        let error = refusal(stage.op(node, create()));
        assert!(
            error.starts_with("check of configuration: the nodes' clusterwide settings differ"),
            "{error}"
        );
        assert_eq!(&*stage.group(node).name, "");
    }
    stage.settings(B, 1);
    stage.run(2 * SECOND);
    assert_eq!(stage.op(A, create()), None);
    stage.run(SECOND);
    assert_eq!(&*stage.group(B).name, "other");
}

fn jid(user: usize) -> xmpp_core::jid::BareJid {
    xmpp_core::jid::BareJid::new(Some(&format!("u{user}")), "d").expect("a name")
}

#[test]
fn users_are_balanced_and_nobody_else_moves() {
    let mut stage = Stage::pair(PAIR);
    for user in (0..10).step_by(2) {
        assert_eq!(stage.op(A, Op::Assign(jid(user), Some(NodeIx::B))), None);
        stage.run(100);
        assert!(stage.users(B).iter().any(|(name, u)| *name == jid(user) && u.register == NodeIx::B));
    }
    assert_eq!(homes(&stage, A), [0, 10, 0]);
    assert_eq!(stage.op(A, Op::Rebalance), Some(Reply::NotHere), "b has too many");
    assert!(begun(stage.op(B, Op::Rebalance)));
    stage.stays(&BOTH, 1, 2 * SECOND);
    assert_eq!((homes(&stage, A), homes(&stage, B)), ([5, 5, 0], [5, 5, 0]));
    assert!(stage.users(A).iter().all(|(_, u)| u.home == u.register));
    assert!(begun(stage.op(A, Op::Rebalance)), "nothing is left to be moved");
    stage.run(SECOND);
    assert_eq!(homes(&stage, B), [5, 5, 0]);
    stage.automatics(Automatics { assignment: Assignment::ActiveStandby, ..Automatics::default() });
    assert!(begun(stage.op(B, Op::Rebalance)));
    stage.run(2 * SECOND);
    assert_eq!(homes(&stage, B), [10, 0, 0]);
    stage.automatics(Automatics { assignment: Assignment::None, ..Automatics::default() });
    assert!(refusal(stage.op(B, Op::Rebalance)).contains("assigned by the operator"));
    // A home that was given holds through a failover.
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    assert!(refusal(stage.op(A, Op::Assign(jid(1), Some(NodeIx::B)))).contains("nobody is on the way"));
    stage.expect(BOTH, 3, SECOND);
    stage.kill(A);
    stage.start(A);
    stage.expect(BOTH, 5, 5 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    assert_eq!(homes(&stage, A), [10, 0, 0]);
    assert!(stage.users(B).iter().all(|(_, u)| u.register == NodeIx::A));
}

#[test]
fn a_user_without_an_assignment_is_assigned_to_the_node_that_serves_it_anyway() {
    let mut stage = Stage::pair(PAIR);
    let assign = |home| Op::Assign(jid(0), home);
    assert_eq!(stage.op(A, assign(None)), None, "answered when it is safe");
    stage.run(SECOND);
    assert_eq!(BOTH.map(|node| homes(&stage, node)), [[4, 5, 1]; 2]);
    assert_eq!(stage.op(A, assign(None)), Some(Reply::Done), "it has none");
    assert_eq!(stage.op(A, assign(Some(NodeIx::A))), None, "answered when it is safe");
    stage.run(SECOND);
    assert_eq!(BOTH.map(|node| homes(&stage, node)), [[5, 5, 0]; 2]);
    assert_eq!(stage.op(A, assign(Some(NodeIx::A))), Some(Reply::Done), "it is there");
}

#[test]
fn an_account_gets_the_home_that_the_assignment_says() {
    let mut stage = Stage::pair(PAIR);
    let new = |name: &str| xmpp_core::jid::BareJid::new(Some(name), "d").expect("a name");
    let add = |name: &str| Op::UserAdd(new(name), None, Box::default());
    let home = |stage: &Stage, name: &str| {
        let users = stage.users(B);
        users.into_iter().find(|(user, _)| *user == new(name)).map(|(_, u)| (u.home, u.assigned))
    };
    stage.op(A, add("one"));
    stage.run(SECOND);
    assert_eq!(home(&stage, "one"), Some((NodeIx::A, true)), "ties to the first");
    stage.automatics(Automatics { assignment: Assignment::None, ..Automatics::default() });
    stage.op(B, add("two"));
    stage.run(SECOND);
    assert_eq!(home(&stage, "two"), Some((NodeIx::B, false)));
    assert_eq!(stage.op(B, Op::Assign(new("two"), Some(NodeIx::A))), None);
    stage.run(SECOND);
    assert_eq!(home(&stage, "two"), Some((NodeIx::A, true)));
    stage.automatics(Automatics { assignment: Assignment::ActiveStandby, ..Automatics::default() });
    stage.op(A, add("three"));
    stage.op(A, add("four"));
    stage.run(SECOND);
    assert_eq!(home(&stage, "three"), Some((NodeIx::A, true)));
    assert_eq!(home(&stage, "four"), Some((NodeIx::A, true)));
}
