//! Why users are served where they are outlives a restart of either node, and of both.

use super::*;

/// Both are killed at once, and started at once.
fn restart_both(stage: &mut Stage) {
    for node in BOTH {
        stage.kill(node);
    }
    for node in BOTH {
        stage.start(node);
    }
}

#[test]
fn rows_16_and_102_a_cut_is_not_taken_for_a_reboot_after_a_restart() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(home, 10 * MINUTE);
        stage.expect([backup], 16, 70 * SECOND);
        stage.kill(backup);
        stage.start(backup);
        stage.expect([backup], 16, 3 * MINUTE);
        stage.stays(&[backup], 16, MINUTE);
        stage.expect(BOTH, 102, 10 * MINUTE);
        stage.stays(&BOTH, 102, MINUTE);
        restart_both(&mut stage);
        stage.expect(BOTH, 102, MINUTE);
        let states = by_node(
            home,
            [(State::FailedOver, Reason::Initialization), (State::RunningInBackupMode, Reason::PeerDown)],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        stage.stays(&BOTH, 102, MINUTE);
        // The home node alone: it comes back as another process, and the reason is corrected, which both tell.
        BOTH.into_iter().for_each(|node| _ = stage.told_rows(node));
        stage.kill(home);
        stage.run(100);
        stage.start(home);
        stage.run(10 * SECOND);
        stage.stays(&BOTH, 103, MINUTE);
        for node in BOTH {
            let told = stage.told_rows(node);
            assert_eq!(told.last(), Some(&103), "{node}: {told:?}");
        }
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_103_a_reboot_during_a_cut_is_told_by_a_node_that_was_restarted_meanwhile() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(home, 10 * MINUTE);
        stage.expect([backup], 16, 70 * SECOND);
        stage.kill(backup);
        stage.start(backup);
        stage.expect([backup], 16, 3 * MINUTE);
        stage.kill(home);
        stage.start(home);
        stage.stays(&[backup], 16, MINUTE);
        stage.told_rows(backup);
        stage.expect(BOTH, 103, 10 * MINUTE);
        stage.run(SECOND);
        let told = stage.told_rows(backup);
        assert_eq!(told.last(), Some(&103), "the reason is corrected, with an event: {told:?}");
        let states = by_node(
            home,
            [(State::FailedOver, Reason::Initialization), (State::RunningInBackupMode, Reason::PeerReboot)],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        stage.stays(&BOTH, 103, MINUTE);
        // It is known from now on.
        restart_both(&mut stage);
        stage.expect(BOTH, 103, MINUTE);
        stage.stays(&BOTH, 103, MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_102_whoever_was_heard_again_after_a_cut_was_not_rebooted_during_it() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(home, 2 * MINUTE);
        stage.expect([backup], 16, 70 * SECOND);
        stage.expect(BOTH, 102, 3 * MINUTE);
        stage.stays(&BOTH, 102, 10 * SECOND);
        // What becomes of it later is another story: the users were taken over because of the cut.
        restart_both(&mut stage);
        stage.expect(BOTH, 102, MINUTE);
        stage.stays(&BOTH, 102, MINUTE);
    });
}

#[test]
fn rows_18_and_118_who_was_not_heard_during_a_start_is_not_said_to_have_rebooted_after_the_next() {
    let mut stage = Stage::pair(Profile { peer_and_disk: true, ..PAIR });
    stage.kill(A);
    stage.kill(B);
    stage.run(SECOND);
    stage.cut(1_000 * MINUTE);
    stage.start(B);
    stage.expect([B], 118, 3 * MINUTE);
    stage.kill(B);
    stage.start(B);
    stage.expect([B], 118, 3 * MINUTE);
    stage.stays(&[B], 118, MINUTE);
    stage.cut(0);
    stage.start(A);
    stage.expect(BOTH, 18, 10 * SECOND);
    stage.stays(&BOTH, 18, MINUTE);
    stage.op(B, Op::Restart);
    stage.run(900);
    stage.expect(BOTH, 18, 10 * SECOND);
    restart_both(&mut stage);
    stage.expect(BOTH, 18, MINUTE);
    let states = [
        (State::FailedOver, Reason::Initialization),
        (State::RunningInBackupMode, Reason::PeerDownDuringInitialization),
    ];
    assert_eq!(stage.shown(A).unwrap().1, states);
}

#[test]
fn rows_11_and_13_a_service_stays_the_reason_when_the_node_in_backup_mode_is_restarted() {
    for (service, away, back) in [(Service::Router, 12, 11), (Service::Database, 13, 123)] {
        let mut stage = Stage::pair(PAIR);
        stage.automatics(super::services::SERVICES);
        stage.service(A, service, Health::Stopped, true);
        stage.expect(BOTH, away, 2 * MINUTE);
        stage.op(B, Op::Restart);
        stage.run(900);
        stage.expect(BOTH, away, 10 * SECOND);
        stage.stays(&BOTH, away, MINUTE);
        // Both: the services of the home node are back by its restart.
        restart_both(&mut stage);
        stage.expect(BOTH, back, MINUTE);
        assert_eq!(stage.shown(B).unwrap().1[A], (State::FailedOver, Reason::Initialization));
        stage.stays(&BOTH, back, MINUTE);
    }
}

#[test]
fn row_6_a_failover_by_force_stays_the_operators_and_is_not_undone_by_itself_after_a_restart() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(Automatics { disabled: true, ..Automatics::default() });
    stage.run(SECOND);
    for (node, to) in [(A, Force::Inactive), (B, Force::Active)] {
        assert!(matches!(stage.op(node, Op::Force { to, confirmed: true }), Some(Reply::Forced(_))));
        stage.run(SECOND);
    }
    stage.expect(BOTH, 3, 10 * SECOND);
    stage.automatics(Automatics { fallback: true, after: 40, ..Automatics::default() });
    stage.run(MINUTE);
    stage.expect(BOTH, 3, 0);
    restart_both(&mut stage);
    stage.expect(BOTH, 6, MINUTE);
    stage.stays(&BOTH, 6, 5 * MINUTE);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
}

#[test]
fn row_103_a_reason_that_changes_while_no_register_does_outlives_the_next_restart() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(home, 2 * MINUTE);
        stage.expect([backup], 16, 70 * SECOND);
        stage.expect(BOTH, 102, 3 * MINUTE);
        stage.stays(&BOTH, 102, 10 * SECOND);
        // By itself, then the other: nobody is taken to be gone by that, and nobody leads anything else.
        for node in [home, backup] {
            stage.op(node, Op::Restart);
            stage.run(900);
            assert_eq!(stage.shown(node), None);
            stage.expect(BOTH, 103, 10 * SECOND);
            stage.stays(&BOTH, 103, MINUTE);
        }
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}
