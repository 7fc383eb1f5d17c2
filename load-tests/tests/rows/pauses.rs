//! A paced move of users pauses on each alarm that says that going on would do harm, says so, and goes on when it has
//! cleared. `srm::pause` has the list.

use load_tests::pair::Profile;
use load_tests::pair::rows::Stage;
use presence_engine::ids::NodeIx;
use srm::config::Assignment;
use srm::node::{Automatics, By, Health, Op, Service};
use srm::pause::Pause;

use super::services::SERVICES;
use super::{A, B, BOTH, MINUTE, PAIR, SECOND, STRICT, WITNESS, begun, fallback};

/// Node a died, and is back; its users are at b.
fn in_backup_mode() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage
}

/// Whether a node shows this as an alarm.
fn says(stage: &Stage, node: usize, alarm: &str) -> bool {
    stage.alarms(node).iter().any(|text| text == alarm)
}

#[test]
fn a_crowd_stops_a_fallback_in_its_course_and_it_goes_on_when_the_crowd_is_in() {
    for crowded in BOTH {
        let mut stage = Stage::pair(PAIR);
        stage.more_users(A, 1_500);
        stage.run(2 * SECOND);
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 103, 5 * SECOND);
        fallback(&mut stage, B);
        while stage.served(A) == 0 {
            stage.run(1);
        }
        stage.crowded(crowded, true);
        // What the peer says is on its way, and so is the batch that has left.
        stage.run(SECOND / 2);
        let (moved, left) = (stage.served(A), stage.served(B));
        assert!(moved > 0 && left > 5, "{moved} are home, {left} are not");
        stage.run(MINUTE);
        assert_eq!((stage.served(A), stage.served(B)), (moved, left), "nobody moved meanwhile");
        let (pause, name) = [(Pause::PeerCrowd, "a"), (Pause::OwnCrowd, "b")][crowded];
        assert_eq!(stage.pauses(B), [Some(pause)]);
        let alarm = format!("fallback paused: more clients log in at {name} than its processors can take");
        assert!(says(&stage, A, &alarm) && says(&stage, B, &alarm), "{:?}", stage.alarms(A));
        stage.crowded(crowded, false);
        stage.expect(BOTH, 1, 5 * SECOND);
        assert_eq!(stage.pauses(B), [Some(pause), None]);
        assert_eq!(stage.alarms(A), Vec::<String>::new());
    }
}

#[test]
fn a_service_that_is_down_at_the_giving_node_stops_a_fallback_until_it_is_back() {
    let mut stage = in_backup_mode();
    stage.automatics(SERVICES);
    stage.service(B, Service::Router, Health::Fails, true);
    fallback(&mut stage, B);
    stage.stays(&[B], 4, MINUTE);
    assert!(says(&stage, B, "fallback paused: a critical service of b is down"), "{:?}", stage.alarms(B));
    stage.service(B, Service::Router, Health::Runs, false);
    stage.expect(BOTH, 1, 2 * SECOND);
    assert_eq!(stage.pauses(B), [Some(Pause::OwnService), None]);
}

#[test]
fn a_service_that_stays_down_at_the_giving_node_ends_a_paused_fallback_and_everybody_goes_home() {
    let mut stage = in_backup_mode();
    stage.automatics(SERVICES);
    stage.service(B, Service::Router, Health::Stopped, true);
    fallback(&mut stage, B);
    stage.expect([B], 23, 91 * SECOND);
    stage.expect(BOTH, 12, 5 * SECOND);
}

#[test]
fn a_service_that_is_down_at_the_receiving_node_stops_a_fallback_until_it_is_back() {
    let mut stage = in_backup_mode();
    stage.automatics(SERVICES);
    stage.service(A, Service::Router, Health::Fails, true);
    stage.run(SECOND);
    fallback(&mut stage, B);
    stage.run(20 * SECOND);
    stage.expect([B], 4, 0);
    assert!(says(&stage, B, "fallback paused: a critical service of a is down"), "{:?}", stage.alarms(B));
    stage.service(A, Service::Router, Health::Runs, false);
    stage.expect(BOTH, 1, 2 * SECOND);
    assert_eq!(stage.pauses(B), [Some(Pause::PeerService), None]);
}

#[test]
fn a_rebalance_pauses_for_each_services_and_gives_way_to_the_failover_for_one() {
    let unequal = Automatics { assignment: Assignment::Balanced, ..SERVICES };
    for node in BOTH {
        let mut stage = Stage::pair(PAIR);
        stage.automatics(unequal);
        stage.more_users(A, 20);
        stage.run(2 * SECOND);
        let homed = |stage: &Stage| stage.users(A).iter().filter(|(_, u)| u.home == NodeIx::A).count();
        stage.service(node, Service::Router, Health::Fails, true);
        stage.run(SECOND);
        assert!(begun(stage.op(A, Op::Rebalance)));
        stage.run(MINUTE);
        assert_eq!(homed(&stage), 25);
        let alarm = format!("rebalance paused: a critical service of {} is down", ["a", "b"][node]);
        assert!(BOTH.iter().all(|n| says(&stage, *n, &alarm)), "{:?}", stage.alarms(B));
        if node == B {
            stage.service(B, Service::Router, Health::Runs, false);
            stage.run(2 * SECOND);
            assert_eq!(homed(&stage), 15, "it has gone on");
        } else {
            stage.expect(BOTH, 12, MINUTE);
        }
    }
}

#[test]
fn a_disk_that_stands_still_stops_a_failover_until_it_answers() {
    for (node, pause) in [(A, Pause::OwnDisk), (B, Pause::PeerDisk)] {
        let mut stage = Stage::pair(PAIR);
        // From 3 s on it is an alarm, and from 5 s on the node gives up.
        stage.disk_stalls(node, 4_700);
        stage.more_users(node, 1);
        stage.run(3_500);
        assert!(begun(stage.op(A, Op::Failover(By::Here))));
        stage.run(SECOND);
        let alarm = format!("failover paused: the disk of {} does not answer", ["a", "b"][node]);
        assert!(BOTH.iter().all(|n| says(&stage, *n, &alarm)), "{:?}", stage.alarms(A));
        assert_eq!(stage.served(B), 5 + usize::from(node == B), "nobody has moved");
        stage.expect(BOTH, 3, 2 * SECOND);
        assert_eq!(stage.pauses(A), [Some(pause), None]);
    }
}

#[test]
fn a_peer_that_does_not_keep_up_stops_a_move_until_it_does() {
    // Without a witness or leave to go on alone a node stays in Pair, and waits.
    let mut stage = Stage::pair(STRICT);
    stage.automatics(Automatics { add_users: true, ..SERVICES });
    stage.crowded(A, true);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.run(SECOND);
    // What is written does not arrive, but beacons do.
    stage.beacons_pass();
    stage.cut(20 * SECOND);
    stage.more_users(A, 1);
    stage.run(3 * SECOND);
    stage.crowded(A, false);
    stage.run(10 * SECOND);
    let alarm = "failover paused: b does not keep up with what a writes";
    assert!(BOTH.iter().all(|n| says(&stage, *n, alarm)), "{:?}", stage.alarms(A));
    assert_eq!(stage.served(A), 6, "nobody has moved");
    assert_eq!(stage.pauses(A), [Some(Pause::OwnCrowd), Some(Pause::Lag)]);
    stage.expect(BOTH, 3, 20 * SECOND);
    assert_eq!(stage.pauses(A).last(), Some(&None), "{:?}", stage.pauses(A));
}

#[test]
fn a_peer_that_is_not_heard_stops_a_move_until_it_is_and_holds_everything() {
    let mut stage = Stage::pair(WITNESS);
    stage.crowded(A, true);
    stage.run(SECOND);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.run(SECOND);
    stage.cut(15 * SECOND);
    stage.run(5 * SECOND);
    stage.crowded(A, false);
    stage.run(5 * SECOND);
    assert!(says(&stage, A, "failover paused: b is not heard"), "{:?}", stage.alarms(A));
    stage.expect(BOTH, 3, 30 * SECOND);
    let told = stage.pauses(A);
    let expected = [Pause::OwnCrowd, Pause::Unheard, Pause::Unprotected].map(Some);
    assert_eq!(told[..3], expected, "{told:?}");
    assert_eq!(told.last(), Some(&None));
}

/// Each batch of users is on its way for a second, and there are many.
#[test]
fn a_move_whose_steps_are_short_takes_as_long_as_it_takes() {
    let mut stage = Stage::pair(Profile { latency: 500, ..PAIR });
    stage.more_users(A, 3_200);
    stage.run(10 * SECOND);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    let took = stage.expect([A], 3, 5 * MINUTE);
    assert!(took > 80 * SECOND, "longer than one may stand still: {took}");
    assert_eq!((stage.served(B), stage.pauses(A)), (3_210, vec![]));
}
