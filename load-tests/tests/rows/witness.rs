//! What is shown while the witness is asked, and while it does not answer.

use super::faults::mend;
use super::*;

#[test]
fn row_112_the_witness_is_asked_whether_a_dead_node_may_be_taken_over() {
    either(|dead, other| {
        let mut stage = Stage::pair(WITNESS);
        stage.kill(dead);
        stage.expect([other], 112, 2 * SECOND);
        let shown = stage.shown(other).unwrap().1;
        assert_eq!(shown[dead].0, State::Down);
        assert_eq!(shown[other], (State::TakingOver, Reason::PeerReboot));
        stage.expect([other], 17, SECOND);
    });
}

#[test]
fn row_111_the_witness_is_asked_whether_a_silent_node_may_be_taken_over() {
    either(|lost, other| {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(lost, 90 * SECOND);
        stage.expect([other], 111, 70 * SECOND);
        assert_eq!(stage.shown(other).unwrap().1[other], (State::TakingOver, Reason::PeerDown));
        stage.expect([other], 16, SECOND);
    });
}

#[test]
fn row_113_the_witness_is_asked_by_a_node_that_did_not_hear_the_other_during_its_start() {
    either(|lost, other| {
        // Only who cannot have forgotten anything asks for the other's users then.
        let mut stage = Stage::pair(Profile { peer_and_disk: true, ..WITNESS });
        stage.kill(lost);
        stage.kill(other);
        stage.run(SECOND);
        // The machine of the other does not answer at all.
        stage.cut(1_000 * MINUTE);
        stage.start(other);
        stage.expect([other], 113, 3 * MINUTE);
        let shown = stage.shown(other).unwrap().1[other];
        assert_eq!(shown, (State::TakingOver, Reason::PeerDownDuringInitialization));
        stage.expect([other], 118, SECOND);
    });
}

#[test]
fn row_114_the_node_is_back_while_the_witness_has_not_answered() {
    either(|dead, other| {
        let mut stage = Stage::pair(WITNESS);
        stage.witness_away(MINUTE);
        stage.kill(dead);
        stage.expect([other], 112, 2 * SECOND);
        stage.start(dead);
        stage.expect([other], 114, 5 * SECOND);
        let shown = stage.shown(other).unwrap().1;
        assert_eq!(shown[dead], (State::Initializing, Reason::Initialization));
        assert_eq!(shown[other], (State::TakingOver, Reason::PeerReboot));
        mend(&mut stage);
    });
}

#[test]
fn row_127_users_wait_for_a_witness_that_does_not_answer_and_the_operator_hears_what_helps() {
    either(|dead, other| {
        let mut stage = Stage::pair(WITNESS);
        stage.witness_away(30 * SECOND);
        stage.kill(dead);
        // Once it is found not to be there: until then it may answer at any moment.
        stage.expect([other], 127, 5 * SECOND);
        let shown = stage.shown(other).unwrap().1;
        assert_eq!((shown[dead].0, shown[other]), (State::Down, (State::Initializing, Reason::PeerDown)));
        stage.stays(&[other], 127, 20 * SECOND);
        stage.expect([other], 17, 15 * SECOND);
    });
}

#[test]
fn row_115_the_backup_of_a_node_that_was_forced_inactive_dies() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.automatics(Automatics { disabled: true, ..Automatics::default() });
        stage.run(SECOND);
        let force = |stage: &mut Stage, node, to| stage.op(node, Op::Force { to, confirmed: true });
        assert!(matches!(force(&mut stage, home, Force::Inactive), Some(Reply::Forced(_))));
        stage.run(SECOND);
        assert_eq!(force(&mut stage, backup, Force::Active), Some(Reply::Forced(Vec::new())));
        stage.expect(BOTH, 3, 10 * SECOND);
        stage.run(10 * SECOND);
        stage.kill(backup);
        stage.expect([home], 115, 5 * SECOND);
        assert_eq!(stage.shown(home).unwrap().1[home], (State::Idle, Reason::PeerDown));
        // Nobody is taken over without automatics.
        stage.stays(&[home], 115, MINUTE);
        stage.start(backup);
        stage.automatics(Automatics::default());
        mend(&mut stage);
    });
}

#[test]
fn the_backup_of_users_who_failed_over_dies_and_their_home_serves_all() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.op(home, Op::Failover(By::Here));
        stage.expect(BOTH, 3, SECOND);
        stage.kill(backup);
        // By the witness's word.
        stage.expect([home], 17, 5 * SECOND);
        assert_eq!(stage.shown(home).unwrap().1[home].0, State::RunningInBackupMode);
        stage.start(backup);
        stage.expect(BOTH, 103, 10 * SECOND);
    });
}

#[test]
fn row_116_the_backup_dies_while_the_home_node_is_failed_over() {
    either(|home, backup| {
        let mut stage = Stage::pair(WITNESS);
        stage.kill(home);
        stage.expect([backup], 17, 5 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 103, 10 * SECOND);
        // It gets what it lacks: without that it could not serve.
        stage.run(10 * SECOND);
        stage.witness_away(MINUTE);
        stage.kill(backup);
        stage.expect([home], 116, 5 * SECOND);
        // By the witness's word it serves its own users again, and those of the other.
        stage.expect([home], 17, 2 * MINUTE);
        assert_eq!(stage.shown(home).unwrap().1[home].0, State::RunningInBackupMode);
    });
}

#[test]
fn who_asks_the_witness_whether_to_go_on_alone_is_shown_as_before_until_it_answers() {
    either(|gone, other| {
        let mut stage = Stage::pair(WITNESS);
        stage.never_again(gone);
        stage.op(gone, Op::Restart);
        stage.told_rows(other);
        stage.run(30 * SECOND);
        assert_eq!(stage.told_rows(other), [] as [u32; 0]);
    });
}
