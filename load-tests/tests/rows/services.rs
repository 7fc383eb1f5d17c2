//! The rows that critical services bring about, and the failed mode.

use load_tests::pair::rows::Stage;
use presence_engine::ids::NodeIx;
use srm::config::Assignment;
use srm::node::{Automatics, By, Health, Op, Reply, Service, Stage as Step};
use srm::view::{Cause, Reason, State};

use super::{A, B, BOTH, MINUTE, PAIR, SECOND, WITNESS, begun, by_node, either, fallback, moves, refusal};

/// The product's own times for services.
pub(super) const DELAY: u64 = 90 * SECOND;
pub(super) const SERVICES: Automatics = Automatics {
    check: None,
    computed_limits: false,
    disabled: false,
    fallback: false,
    window: None,
    after: 7_200,
    delay: 360,
    authentication: false,
    failovers_per_hour: 1,
    add_users: false,
    assignment: Assignment::Balanced,
};

/// What is said of the failed mode of two nodes that are at home.
pub(super) const DOWN_ON_BOTH: [&str; 2] = [
    "critical services are down on both nodes; neither could take the other's users",
    "on each node see which are down; a recover starts them; if not, reboot it",
];

pub(super) fn with_services() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(SERVICES);
    stage.moves(A);
    stage.moves(B);
    stage
}

#[test]
fn a_fallback_waits_while_clients_storm_one_of_the_nodes_and_a_failover_for_a_service_does_not() {
    for crowded in BOTH {
        let mut stage = Stage::pair(PAIR);
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.crowded(crowded, true);
        stage.run(SECOND);
        fallback(&mut stage, B);
        stage.expect([B], 4, 0);
        stage.stays(&[B], 4, 3 * MINUTE);
        let name = ["a", "b"][crowded];
        let alarms = stage.alarms(B);
        let expected = format!("fallback paused: more clients log in at {name} than its processors can take");
        assert!(alarms.contains(&expected), "{alarms:?}");
        stage.crowded(crowded, false);
        stage.expect(BOTH, 1, 2 * SECOND);
    }
    let mut stage = with_services();
    stage.crowded(A, true);
    stage.crowded(B, true);
    stage.service(A, Service::Router, Health::Stopped, true);
    stage.expect([B], 12, 2 * MINUTE);
}

#[test]
fn a_service_that_is_back_within_the_delay_disturbs_nobody() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.stays(&BOTH, 1, DELAY - SECOND);
    stage.service(A, Service::Router, Health::Runs, false);
    stage.stays(&BOTH, 1, DELAY);
    stage.service(A, Service::Database, Health::Fails, false);
    stage.stays(&BOTH, 1, DELAY - SECOND);
    stage.service(A, Service::Database, Health::Runs, false);
    stage.stays(&BOTH, 1, SECOND);
    assert_eq!(moves(&mut stage, A), []);
    // One that is not monitored is nobody's failover.
    stage.service(A, Service::Authentication, Health::Stopped, false);
    stage.stays(&BOTH, 1, 2 * DELAY);
}

#[test]
fn the_authentication_service_is_a_reason_to_fail_over_where_it_is_monitored_and_nowhere_else() {
    let monitored = Automatics { authentication: true, ..SERVICES };
    let mut stage = Stage::pair(PAIR);
    stage.automatics(monitored);
    stage.service(A, Service::Authentication, Health::Stopped, false);
    stage.stays(&BOTH, 1, DELAY - SECOND);
    stage.expect(BOTH, 12, 6 * SECOND);
    stage.service(A, Service::Authentication, Health::Runs, false);
    stage.expect(BOTH, 11, 2 * SECOND);
    // Within the delay it disturbs nobody.
    let mut stage = Stage::pair(PAIR);
    stage.automatics(monitored);
    stage.service(A, Service::Authentication, Health::Stopped, false);
    stage.stays(&BOTH, 1, DELAY - SECOND);
    stage.service(A, Service::Authentication, Health::Runs, false);
    stage.stays(&BOTH, 1, DELAY);
    // Not monitored; and once it is, it has been down for long enough.
    stage.automatics(SERVICES);
    stage.service(A, Service::Authentication, Health::Stopped, false);
    stage.stays(&BOTH, 1, 2 * DELAY);
    stage.automatics(monitored);
    stage.expect(BOTH, 12, 5 * SECOND);
}

#[test]
fn rows_12_108_and_11_a_service_is_down_for_longer_than_the_delay() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::PresenceEngine, Health::Stopped, false);
        assert!(!stage.ready(home) && stage.ready(backup));
        let took = stage.expect([home], 108, DELAY + SECOND);
        assert!(took >= DELAY - SECOND, "{took}");
        stage.expect(BOTH, 12, 5 * SECOND);
        assert!(stage.ready(home) && stage.ready(backup), "its users are served by the other");
        let states = by_node(
            home,
            [
                (State::FailedOverServicesNotRunning, Reason::CriticalServiceDown),
                (State::RunningInBackupMode, Reason::CriticalServiceDown),
            ],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        for node in BOTH {
            let moved = NodeIx::BOTH[home];
            let expected =
                [(moved, false, Step::Began, Cause::Service), (moved, false, Step::Complete, Cause::Service)];
            assert_eq!(moves(&mut stage, node), expected, "both nodes tell it");
        }
        stage.stays(&BOTH, 12, DELAY);
        stage.service(home, Service::PresenceEngine, Health::Runs, false);
        stage.expect(BOTH, 11, 2 * SECOND);
        let states = by_node(
            home,
            [
                (State::FailedOver, Reason::CriticalServiceDown),
                (State::RunningInBackupMode, Reason::CriticalServiceDown),
            ],
        );
        assert_eq!(stage.shown(home).unwrap().1, states);
        stage.stays(&BOTH, 11, MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_11_the_services_are_back_by_a_restart_of_their_node() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Router, Health::Stopped, false);
        stage.expect(BOTH, 12, DELAY + 5 * SECOND);
        stage.kill(home);
        stage.expect([backup], 106, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 11, 5 * SECOND);
        let states = by_node(
            home,
            [
                (State::FailedOver, Reason::Initialization),
                (State::RunningInBackupMode, Reason::CriticalServiceDown),
            ],
        );
        assert_eq!(stage.shown(home).unwrap().1, states);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn rows_13_109_123_and_124_the_database_is_down() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Database, Health::Stopped, false);
        stage.expect([home], 109, DELAY + SECOND);
        stage.expect(BOTH, 13, 5 * SECOND);
        let states = by_node(
            home,
            [
                (State::FailedOverServicesNotRunning, Reason::DatabaseFailure),
                (State::RunningInBackupMode, Reason::DatabaseFailure),
            ],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        stage.service(home, Service::Database, Health::Runs, false);
        stage.expect(BOTH, 123, 2 * SECOND);
        stage.kill(home);
        stage.expect([backup], 124, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 123, 5 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

/// Of two that have been down for as long the database is the one to be mended first.
#[test]
fn row_13_the_database_is_down_and_another_service_with_it() {
    either(|home, _| {
        let mut stage = with_services();
        // Both are overdue when the node may act.
        stage.automatics(Automatics { disabled: true, ..SERVICES });
        stage.service(home, Service::Router, Health::Stopped, true);
        stage.service(home, Service::Database, Health::Stopped, true);
        stage.stays(&BOTH, 1, DELAY + 2 * SECOND);
        stage.automatics(SERVICES);
        stage.expect(BOTH, 13, 5 * SECOND);
        for node in BOTH {
            let last = moves(&mut stage, node).last().copied();
            assert_eq!(last, Some((NodeIx::BOTH[home], false, Step::Complete, Cause::Database)), "{node}");
        }
    });
}

#[test]
fn row_14_the_services_of_the_home_node_do_not_start_in_a_fallback() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Router, Health::Stopped, true);
        stage.expect(BOTH, 12, DELAY + 5 * SECOND);
        fallback(&mut stage, backup);
        stage.run(20 * SECOND);
        stage.expect(BOTH, 14, 15 * SECOND);
        let failed = (State::RunningInFailedMode, Reason::StartOfCriticalServicesFailed);
        assert_eq!(stage.shown(home).unwrap().1, [failed; 2]);
        stage.stays(&BOTH, 14, DELAY);
        let why = refusal(stage.op(backup, Op::Fallback(By::Here)));
        assert!(why.contains("Running in Failed Mode"), "{why}");
        // They still do not start: the operator sees what is so.
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 12, SECOND);
        stage.service(home, Service::Router, Health::Runs, false);
        stage.expect(BOTH, 11, 2 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
        let why = refusal(stage.op(home, Op::Recover));
        assert!(why.contains("offered while both nodes run in failed mode"), "{why}");
    });
}

#[test]
fn a_fallback_starts_the_services_of_the_home_node_first() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    stage.stays(&BOTH, 1, 2 * DELAY);
}

#[test]
fn row_15_the_backup_loses_a_service_and_its_peer_cannot_help() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Router, Health::Stopped, true);
        stage.expect(BOTH, 12, DELAY + 5 * SECOND);
        stage.service(backup, Service::PresenceEngine, Health::Stopped, true);
        stage.expect(BOTH, 15, DELAY + 5 * SECOND);
        let failed = (State::RunningInFailedMode, Reason::CriticalServiceDown);
        assert_eq!(stage.shown(home).unwrap().1, [failed; 2]);
        stage.stays(&BOTH, 15, DELAY);
        // A recover that does not help: they have the whole delay, and then it is as before.
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 12, SECOND);
        stage.stays(&BOTH, 12, DELAY - 2 * SECOND);
        stage.expect(BOTH, 15, 5 * SECOND);
        // One that does starts them.
        stage.service(home, Service::Router, Health::Stopped, false);
        stage.service(backup, Service::PresenceEngine, Health::Stopped, false);
        assert_eq!(stage.op(backup, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 11, 2 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_15_while_both_nodes_are_normal_and_117_for_the_database() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Router, Health::Stopped, true);
        stage.service(backup, Service::Router, Health::Stopped, true);
        stage.expect(BOTH, 15, DELAY + SECOND);
        assert_eq!(BOTH.map(|node| stage.advice(node)), [DOWN_ON_BOTH; 2]);
        stage.service(home, Service::Router, Health::Runs, false);
        stage.service(backup, Service::Router, Health::Runs, false);
        stage.stays(&BOTH, 15, MINUTE);
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 1, SECOND);
        stage.service(home, Service::Database, Health::Stopped, true);
        stage.expect(BOTH, 13, DELAY + 5 * SECOND);
        stage.service(backup, Service::Database, Health::Stopped, true);
        stage.expect(BOTH, 117, DELAY + 5 * SECOND);
        let away = |stage: &Stage, node: usize| stage.advice(node)[0].contains("on the node in backup mode");
        assert!(BOTH.into_iter().all(|node| away(&stage, node)), "{:?}", stage.advice(home));
        let mut stage = with_services();
        stage.service(home, Service::Database, Health::Stopped, true);
        stage.service(backup, Service::Database, Health::Stopped, true);
        stage.expect(BOTH, 117, DELAY + SECOND);
        let [why, action] = stage.advice(backup);
        assert!(why.starts_with("critical services are down on both nodes, the database of one"), "{why}");
        assert_eq!(([why, action], action), (stage.advice(home), DOWN_ON_BOTH[1]));
    });
}

#[test]
fn row_21_a_node_is_restarted_while_both_run_in_failed_mode() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.service(home, Service::Router, Health::Stopped, true);
        stage.service(backup, Service::Router, Health::Stopped, true);
        stage.expect(BOTH, 15, DELAY + SECOND);
        stage.op(home, Op::Restart);
        stage.expect(BOTH, 21, 5 * SECOND);
        let failed = (State::RunningInFailedMode, Reason::Unknown);
        assert_eq!(stage.shown(backup).unwrap().1, [failed; 2]);
        stage.stays(&BOTH, 21, MINUTE);
        stage.service(backup, Service::Router, Health::Stopped, false);
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 1, 2 * SECOND);
        stage.stays(&BOTH, 1, DELAY);
    });
}

/// Users do not move for a minute, after the 10 s for which clients without a parked stream are waited for.
fn moving_fails(stage: &mut Stage, row: u32, reason: Reason) {
    let took = stage.expect(BOTH, row, 80 * SECOND);
    assert!((69 * SECOND..=75 * SECOND).contains(&took), "{took}");
    assert_eq!(stage.shown(A).unwrap().1, [(State::RunningInFailedMode, reason); 2]);
    stage.stays(&BOTH, row, MINUTE);
    for node in BOTH {
        for op in [Op::Failover(By::Here), Op::Fallback(By::Here)] {
            assert!(refusal(stage.op(node, op)).contains("Running in Failed Mode"));
        }
        assert!(stage.alarms(node).iter().any(|alarm| alarm.contains("until `tandem recover`")));
    }
}

#[test]
fn row_19_users_do_not_move_in_a_failover() {
    either(|from, to| {
        let mut stage = Stage::pair(PAIR);
        stage.moves_are_lost(from, true);
        assert!(begun(stage.op(from, Op::Failover(By::Here))));
        stage.expect([from], 2, 0);
        moving_fails(&mut stage, 19, Reason::TakeOverUsersFailed);
        for node in BOTH {
            let told = moves(&mut stage, node);
            let ended = (NodeIx::BOTH[from], false, Step::Ended, Cause::Operator);
            assert_eq!(told.last(), Some(&ended), "{node}: {told:?}");
        }
        assert_eq!((stage.served(from), stage.served(to)), (5, 5), "nobody has moved");
        // Nothing is left of what was begun.
        stage.moves_are_lost(from, false);
        assert_eq!(stage.op(to, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 1, 2 * SECOND);
        assert!(begun(stage.op(from, Op::Failover(By::Here))));
        stage.expect(BOTH, 3, 5 * SECOND);
        assert_eq!(stage.served(to), 10);
    });
}

#[test]
fn row_20_users_do_not_move_in_a_fallback() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        assert!(begun(stage.op(home, Op::Failover(By::Here))));
        stage.expect(BOTH, 3, SECOND);
        stage.moves_are_lost(backup, true);
        fallback(&mut stage, backup);
        stage.expect([backup], 4, 0);
        moving_fails(&mut stage, 20, Reason::TakeBackUsersFailed);
        assert_eq!(stage.served(backup), 10, "nobody has moved");
        // A recover that does not help: a minute later it is as before.
        assert_eq!(stage.op(home, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 3, 2 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 20, 80 * SECOND);
        stage.moves_are_lost(backup, false);
        assert_eq!(stage.op(backup, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 3, 2 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
        assert_eq!((stage.served(home), stage.served(backup)), (5, 5));
    });
}

/// After a takeover it begins with all of them in one step.
#[test]
fn row_20_users_do_not_move_in_a_fallback_after_a_death() {
    let mut stage = Stage::pair(PAIR);
    stage.kill(A);
    stage.run(15 * SECOND);
    stage.start(A);
    stage.run(15 * SECOND);
    stage.clients(5 * MINUTE);
    stage.moves_are_lost(B, true);
    fallback(&mut stage, B);
    moving_fails(&mut stage, 20, Reason::TakeBackUsersFailed);
    stage.moves_are_lost(B, false);
    assert_eq!(stage.op(B, Op::Recover), Some(Reply::Done));
    stage.expect(BOTH, 103, 2 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 30 * SECOND);
}

#[test]
fn the_failed_mode_ends_with_the_death_of_a_node() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, true);
    stage.service(B, Service::Router, Health::Stopped, true);
    stage.expect(BOTH, 15, DELAY + SECOND);
    stage.kill(A);
    stage.expect([B], 17, 5 * SECOND);
    stage.service(B, Service::Router, Health::Runs, false);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
}

#[test]
fn rows_22_and_23_the_node_in_backup_mode_loses_a_service() {
    either(|home, backup| {
        for (service, row, then, cause) in
            [(Service::Database, 22, 13, Cause::Database), (Service::Router, 23, 12, Cause::Service)]
        {
            let mut stage = with_services();
            stage.kill(home);
            stage.expect([backup], 17, 2 * SECOND);
            stage.start(home);
            stage.expect(BOTH, 103, 5 * SECOND);
            stage.moves(home);
            stage.moves(backup);
            stage.service(backup, service, Health::Stopped, false);
            stage.expect([backup], row, DELAY + SECOND);
            // Everybody is at node 1 then; node 2 is the one that failed over.
            stage.expect(BOTH, then, 5 * SECOND);
            let (state, _) = stage.shown(home).unwrap().1[home];
            assert_eq!(state, State::RunningInBackupMode);
            let told = moves(&mut stage, home);
            assert!(told.contains(&(NodeIx::BOTH[home], true, Step::Complete, cause)), "{told:?}");
            assert!(told.contains(&(NodeIx::BOTH[backup], false, Step::Complete, cause)), "{told:?}");
            // The way out: mend node 2's service, then fallback.
            stage.service(backup, service, Health::Runs, false);
            stage.run(SECOND);
            fallback(&mut stage, home);
            stage.expect(BOTH, 1, 5 * SECOND);
        }
    });
}

#[test]
fn a_failover_of_the_operator_is_undone_too_if_the_backup_loses_a_service() {
    let mut stage = with_services();
    stage.op(A, Op::Failover(By::Here));
    stage.expect(BOTH, 3, SECOND);
    stage.service(B, Service::Router, Health::Stopped, false);
    stage.expect([B], 23, DELAY + SECOND);
    stage.expect(BOTH, 12, 5 * SECOND);
}

#[test]
fn nobody_is_moved_to_a_node_that_cannot_serve() {
    let mut stage = with_services();
    stage.service(B, Service::Database, Health::Fails, false);
    stage.run(2 * SECOND);
    let why = refusal(stage.op(A, Op::Failover(By::Here)));
    assert!(why.contains("a critical service of b is down"), "{why}");
    stage.service(B, Service::Database, Health::Runs, false);
    stage.run(2 * SECOND);
    assert!(matches!(stage.op(A, Op::Failover(By::Here)), Some(Reply::Begun(_))));
    stage.expect(BOTH, 3, SECOND);
}

#[test]
fn there_is_one_automatic_failover_an_hour() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.stays(&BOTH, 1, 30 * MINUTE);
    assert!(stage.alarms(A).iter().any(|alarm| alarm.starts_with("flap guard")), "{:?}", stage.alarms(A));
    stage.expect(BOTH, 12, 30 * MINUTE + 5 * SECOND);
}

#[test]
fn a_restart_does_not_begin_the_hour_anew() {
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    // Twice: what is left is kept on, and not the hour again.
    for _ in 0..2 {
        stage.run(10 * MINUTE);
        stage.op(A, Op::Restart);
        stage.run(900);
        stage.expect(BOTH, 1, 5 * SECOND);
        stage.run(5 * SECOND);
    }
    let why = refusal(stage.op(A, Op::Failover(By::Rule)));
    assert!(why.starts_with("flap guard: 1 automatic failover(s)"), "{why}");
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.stays(&BOTH, 1, 30 * MINUTE);
    assert!(stage.alarms(A).iter().any(|alarm| alarm.starts_with("flap guard")), "{:?}", stage.alarms(A));
    stage.expect(BOTH, 12, 15 * MINUTE);
}

#[test]
fn a_failover_by_a_rule_and_one_for_a_service_count_as_two() {
    let guarded = |stage: &Stage| stage.alarms(A).iter().any(|alarm| alarm.starts_with("flap guard"));
    // A service first, then a rule.
    let mut stage = with_services();
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, DELAY + 5 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    stage.run(SECOND);
    assert!(!guarded(&stage));
    let why = refusal(stage.op(A, Op::Failover(By::Rule)));
    assert!(why.starts_with("flap guard: 1 automatic failover(s)"), "{why}");
    stage.stays(&BOTH, 1, 30 * MINUTE);
    assert!(guarded(&stage), "{:?}", stage.alarms(A));
    stage.run(35 * MINUTE);
    assert!(!guarded(&stage), "{:?}", stage.alarms(A));
    // An hour later a rule, then a service, and neither keeps the operator from it.
    assert!(matches!(stage.op(A, Op::Failover(By::Rule)), Some(Reply::Begun(_))));
    stage.expect(BOTH, 3, SECOND);
    let why = refusal(stage.op(A, Op::Failover(By::Rule)));
    assert!(why.contains("offered while both nodes are Normal"), "{why}");
    assert!(!guarded(&stage), "it is failed over already: {:?}", stage.alarms(A));
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.stays(&BOTH, 1, 30 * MINUTE);
    assert!(guarded(&stage), "{:?}", stage.alarms(A));
    stage.service(A, Service::Router, Health::Runs, false);
    stage.run(2 * SECOND);
    assert!(!guarded(&stage), "{:?}", stage.alarms(A));
    assert!(matches!(stage.op(A, Op::Failover(By::Here)), Some(Reply::Begun(_))));
    stage.expect(BOTH, 3, SECOND);
}

#[test]
fn with_automatics_disabled_a_service_moves_nobody() {
    let mut stage = with_services();
    stage.automatics(Automatics { disabled: true, ..SERVICES });
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.stays(&BOTH, 1, 2 * DELAY);
    assert!(stage.alarms(A).iter().any(|alarm| alarm.starts_with("critical service router is stopped")));
    stage.service(A, Service::Router, Health::Runs, false);
    stage.run(5 * SECOND);
    let why = refusal(stage.op(A, Op::Failover(By::Rule)));
    assert_eq!(why, "automatic failover and fallback are disabled", "nor does a rule");
    stage.stays(&BOTH, 1, MINUTE);
}

#[test]
fn rows_125_and_126_a_node_that_returned_loses_a_service() {
    either(|home, backup| {
        let mut stage = with_services();
        stage.kill(home);
        stage.expect([backup], 17, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.service(home, Service::Router, Health::Stopped, false);
        stage.expect(BOTH, 126, 2 * SECOND);
        let (state, reason) = stage.shown(backup).unwrap().1[home];
        assert_eq!((state, reason), (State::FailedOverServicesNotRunning, Reason::Initialization));
        // It serves nobody: nothing is to be moved for that.
        stage.stays(&BOTH, 126, 2 * DELAY);
        stage.service(home, Service::Router, Health::Runs, false);
        stage.expect(BOTH, 103, 2 * SECOND);

        let mut stage = Stage::pair(WITNESS);
        stage.automatics(SERVICES);
        stage.cut_off(home, 100 * SECOND);
        stage.expect([backup], 16, 90 * SECOND);
        stage.expect(BOTH, 102, 60 * SECOND);
        stage.service(home, Service::Database, Health::Fails, false);
        stage.expect(BOTH, 125, 2 * SECOND);
        stage.service(home, Service::Database, Health::Runs, false);
        stage.expect(BOTH, 102, 2 * SECOND);
    });
}
