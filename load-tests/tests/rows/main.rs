//! The rows of the table of states, each brought about between two real nodes on the virtual clock, with the product's own
//! times. `docs/srm-states.md` has the table.

mod callers;
mod causes;
mod crossed;
mod deaths;
mod enabling;
mod ends;
mod faults;
mod follows;
mod group;
mod held;
mod late;
mod offers;
mod pauses;
mod reasons;
mod recover;
mod refusals;
mod restarts;
mod schedule;
mod services;
mod settings;
mod witness;

use load_tests::pair::Profile;
use load_tests::pair::rows::Stage;
use presence_engine::ids::NodeIx;
use srm::config::Window;
use srm::node::{Automatics, By, Force, Health, Op, Reply, Service, Stage as Step};
use srm::view::{Cause, Reason, State};

const A: usize = 0;
const B: usize = 1;
const BOTH: [usize; 2] = [A, B];
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

const PAIR: Profile = Profile::CALM;
const WITNESS: Profile = Profile { witness: true, available: false, ..Profile::CALM };
const STRICT: Profile = Profile { available: false, ..Profile::CALM };

fn begun(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Begun(_)))
}

/// The operator asks a node to give its guests back, as soon as their home has caught up.
fn fallback(stage: &mut Stage, node: usize) {
    for _ in 0..100 {
        if begun(stage.op(node, Op::Fallback(By::Here))) {
            return;
        }
        stage.run(50);
    }
    panic!("no fallback within 5 s: {}", refusal(stage.op(node, Op::Fallback(By::Here))));
}

/// Whether a node has an alarm that holds this.
fn says(stage: &Stage, node: usize, text: &str) -> bool {
    stage.alarms(node).iter().any(|alarm| alarm.contains(text))
}

/// A test, and the same with the nodes exchanged. It gets the home of those whom it is about, and their backup.
fn either(test: impl Fn(usize, usize)) {
    test(A, B);
    test(B, A);
}

/// States of both nodes, given as in a row: the home first.
fn by_node(home: usize, row: [(State, Reason); 2]) -> [(State, Reason); 2] {
    [row[home], row[1 - home]]
}

/// Why an action was refused.
fn refusal(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused(refused)) => refused.error,
        other => panic!("not refused: {other:?}"),
    }
}

/// What a node told of moves, in short.
fn moves(stage: &mut Stage, node: usize) -> Vec<(NodeIx, bool, Step, Cause)> {
    stage.moves(node).into_iter().map(|m| (m.group, m.back, m.stage, m.cause)).collect()
}

#[test]
fn rows_1_to_4_the_operator_fails_a_node_over_and_back() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.moves(home);
        stage.moves(backup);
        assert!(refusal(stage.op(home, Op::Fallback(By::Here))).contains("this node is Normal"));
        assert!(begun(stage.op(home, Op::Failover(By::Here))));
        stage.expect([home], 2, 0);
        stage.expect(BOTH, 3, SECOND);
        let states = by_node(
            home,
            [(State::Idle, Reason::OnAdminRequest), (State::RunningInBackupMode, Reason::OnAdminRequest)],
        );
        assert_eq!(stage.shown(home).unwrap().1, states);
        for node in BOTH {
            let told = moves(&mut stage, node);
            let moved = NodeIx::BOTH[home];
            let expected = [
                (moved, false, Step::Began, Cause::Operator),
                (moved, false, Step::Complete, Cause::Operator),
            ];
            assert_eq!(told, expected, "both nodes tell it");
        }
        assert!(refusal(stage.op(home, Op::Failover(By::Here))).contains("this node is Idle"));
        stage.stays(&BOTH, 3, MINUTE);
        fallback(&mut stage, backup);
        stage.expect([backup], 4, 0);
        stage.expect(BOTH, 1, SECOND);
        let told = moves(&mut stage, home);
        let last = told.last().copied();
        assert_eq!(last, Some((NodeIx::BOTH[home], true, Step::Complete, Cause::Operator)), "{told:?}");
    });
}

#[test]
fn row_5_a_node_is_restarted_while_it_is_idle() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.op(home, Op::Failover(By::Here));
        stage.expect(BOTH, 3, SECOND);
        stage.kill(home);
        stage.expect([backup], 107, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 5, 5 * SECOND);
        stage.stays(&BOTH, 5, MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_6_both_nodes_are_restarted_while_one_is_idle() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.op(home, Op::Failover(By::Here));
        stage.expect(BOTH, 3, SECOND);
        stage.kill(home);
        stage.expect([backup], 107, 2 * SECOND);
        stage.kill(backup);
        stage.run(SECOND);
        stage.start(backup);
        stage.start(home);
        stage.expect(BOTH, 6, 10 * SECOND);
        let states = by_node(
            home,
            [(State::Idle, Reason::Initialization), (State::RunningInBackupMode, Reason::Initialization)],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_7_a_node_in_backup_mode_is_restarted_and_nobody_takes_over() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.op(home, Op::Failover(By::Here));
        stage.expect(BOTH, 3, SECOND);
        stage.moves(home);
        stage.op(backup, Op::Restart);
        stage.run(900);
        stage.expect([home], 3, 0);
        stage.expect(BOTH, 7, 5 * SECOND);
        let states = by_node(
            home,
            [(State::Idle, Reason::OnAdminRequest), (State::RunningInBackupMode, Reason::Initialization)],
        );
        assert_eq!(stage.shown(home).unwrap().1, states);
        assert_eq!(moves(&mut stage, home), []);
        stage.stays(&BOTH, 7, MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_8_the_node_that_takes_over_is_restarted_meanwhile() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.moves(home);
        // Its last words take 50 ms; then it is away for a second.
        stage.op(backup, Op::Restart);
        stage.run(49);
        assert!(begun(stage.op(home, Op::Failover(By::Here))));
        stage.expect([home], 8, 5 * SECOND);
        stage.expect(BOTH, 7, 5 * SECOND);
        let told = moves(&mut stage, home);
        let moved = NodeIx::BOTH[home];
        let expected =
            [(moved, false, Step::Began, Cause::Operator), (moved, false, Step::Complete, Cause::Operator)];
        assert_eq!(told, expected);
    });
}

#[test]
fn row_9_the_node_that_takes_back_is_restarted_meanwhile() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.op(home, Op::Failover(By::Here));
        stage.expect(BOTH, 3, SECOND);
        stage.op(home, Op::Restart);
        stage.run(49);
        assert!(begun(stage.op(backup, Op::Fallback(By::Here))));
        stage.expect([backup], 9, 5 * SECOND);
        let states = by_node(
            home,
            [(State::TakingBack, Reason::Initialization), (State::FallingBack, Reason::OnAdminRequest)],
        );
        assert_eq!(stage.shown(backup).unwrap().1, states);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn a_restart_disturbs_no_roles_and_one_without_a_return_is_a_node_that_is_not_heard() {
    let mut stage = Stage::pair(PAIR);
    stage.moves(B);
    stage.op(A, Op::Restart);
    stage.run(900);
    assert_eq!(stage.shown(A), None);
    stage.expect(BOTH, 1, 5 * SECOND);
    assert_eq!(moves(&mut stage, B), []);
    // A program that does not start any more.
    stage.never_again(A);
    stage.op(A, Op::Restart);
    stage.run(SECOND);
    stage.stays(&[B], 1, 55 * SECOND);
    let took = stage.expect([B], 16, 10 * SECOND);
    assert!((2 * SECOND..=6 * SECOND).contains(&took), "{took}");
    stage.start(A);
    stage.expect(BOTH, 103, 10 * SECOND);
}

#[test]
fn an_idle_node_that_is_restarted_is_shown_as_idle_until_it_is_not_heard_for_too_long() {
    let mut stage = Stage::pair(PAIR);
    stage.op(A, Op::Failover(By::Here));
    stage.expect(BOTH, 3, SECOND);
    stage.never_again(A);
    stage.op(A, Op::Restart);
    stage.run(SECOND);
    stage.stays(&[B], 3, 55 * SECOND);
    stage.expect([B], 107, 10 * SECOND);
}

#[test]
fn row_10_users_go_back_by_themselves_after_30_minutes_of_health_counted_anew_after_each_relapse() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        let after = 30 * 60 * 4;
        stage.automatics(Automatics { fallback: true, after, ..Automatics::default() });
        stage.kill(home);
        stage.expect([backup], 17, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.stays(&BOTH, 103, 20 * MINUTE);
        // A relapse.
        stage.kill(home);
        stage.expect([backup], 17, 2 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.moves(home);
        stage.stays(&BOTH, 103, 29 * MINUTE);
        let took = stage.expect([backup], 10, 2 * MINUTE);
        assert!(took <= MINUTE + 10 * SECOND, "{took}");
        stage.expect(BOTH, 1, SECOND);
        let told = moves(&mut stage, home);
        assert_eq!(
            told.last(),
            Some(&(NodeIx::BOTH[home], true, Step::Complete, Cause::Automatic)),
            "{told:?}"
        );
    });
}

#[test]
fn an_operators_failover_is_never_undone_by_itself() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(Automatics { fallback: true, after: 40, ..Automatics::default() });
    stage.op(A, Op::Failover(By::Here));
    stage.expect(BOTH, 3, SECOND);
    stage.stays(&BOTH, 3, 5 * MINUTE);
}

#[test]
fn a_scheduled_fallback_waits_for_its_window() {
    let mut stage = Stage::pair(PAIR);
    let window = Some(Window { from_min: 23 * 60, to_min: 60 });
    stage.automatics(Automatics { window, after: 40, ..Automatics::default() });
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    for minute in [60, 12 * 60, 23 * 60 - 1] {
        stage.minute(minute);
        stage.stays(&BOTH, 103, MINUTE);
    }
    stage.minute(30);
    stage.expect([B], 10, SECOND);
    stage.expect(BOTH, 1, SECOND);
}

#[test]
fn rows_16_and_102_the_path_is_cut_for_longer_than_the_keep_alive_time_out() {
    either(|home, backup| {
        // By the witness's word, so that one node goes on.
        let mut stage = Stage::pair(WITNESS);
        stage.moves(backup);
        stage.cut_off(home, 90 * SECOND);
        let took = stage.expect([backup], 16, 70 * SECOND);
        assert!((58 * SECOND..=62 * SECOND).contains(&took), "after the keep-alive time-out of 60 s: {took}");
        stage.expect(BOTH, 102, 40 * SECOND);
        let told = stage.moves(backup);
        let takeover =
            told.iter().find(|m| m.stage == Step::Complete && m.group == NodeIx::BOTH[home]).unwrap();
        assert_eq!((takeover.cause, takeover.users), (Cause::PeerDown, 5));
        assert!(takeover.took_ms.is_some_and(|ms| (59 * SECOND..=62 * SECOND).contains(&ms)), "{takeover:?}");
        stage.stays(&BOTH, 102, 5 * MINUTE);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn rows_17_and_103_a_node_dies_and_returns_and_nobody_changes_roles_by_himself() {
    for (dead, other) in [(A, B), (B, A)] {
        let mut stage = Stage::pair(PAIR);
        stage.kill(dead);
        let took = stage.expect([other], 17, 2 * SECOND);
        assert!(took < 500, "a process that is dead is not waited for: {took} ms");
        assert_eq!(stage.shown(other).unwrap().1[dead].0, State::Down, "by symmetry");
        stage.start(dead);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.stays(&BOTH, 103, 5 * MINUTE);
        fallback(&mut stage, other);
        // It was restarted before, not meanwhile: that would be row 9.
        stage.expect([other], 4, 0);
        stage.expect(BOTH, 1, 5 * SECOND);
    }
}

#[test]
fn row_18_a_node_does_not_hear_the_other_during_its_own_start() {
    either(|home, backup| {
        // Only who cannot have forgotten anything may take the other's users then.
        let mut stage = Stage::pair(Profile { peer_and_disk: true, ..PAIR });
        stage.kill(home);
        stage.kill(backup);
        stage.run(SECOND);
        // The machine of the home node does not answer at all.
        stage.cut(1_000 * MINUTE);
        stage.start(backup);
        stage.expect([backup], 101, SECOND);
        let took = stage.expect([backup], 118, 3 * MINUTE);
        assert!(
            (119 * SECOND..=121 * SECOND).contains(&took),
            "after the initialization time-out of 120 s: {took}"
        );
        stage.cut(0);
        stage.start(home);
        stage.expect(BOTH, 18, 10 * SECOND);
        let states = [
            (State::FailedOver, Reason::Initialization),
            (State::RunningInBackupMode, Reason::PeerDownDuringInitialization),
        ];
        assert_eq!(stage.shown(home).unwrap().1, by_node(home, states));
        stage.service(home, Service::Database, Health::Stopped, false);
        let failed_over = (State::FailedOverServicesNotRunning, Reason::Initialization);
        stage.run(SECOND);
        assert_eq!(stage.shown(backup).unwrap(), (18, by_node(home, [failed_over, states[1]])));
        stage.service(home, Service::Database, Health::Runs, false);
        stage.run(SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 5 * SECOND);
    });
}

#[test]
fn row_101_both_nodes_start_in_any_order() {
    for (first, second) in [(A, B), (B, A)] {
        let mut stage = Stage::fresh(PAIR);
        stage.start(first);
        stage.expect([first], 101, 0);
        stage.stays(&[first], 101, MINUTE);
        stage.start(second);
        stage.expect(BOTH, 1, 15 * SECOND);
    }
}

#[test]
fn row_127_nobody_is_served_where_the_policy_says_so_until_the_operator_speaks() {
    either(|home, backup| {
        let mut stage = Stage::pair(STRICT);
        stage.kill(home);
        stage.expect([backup], 127, 2 * SECOND);
        assert_eq!(
            stage.shown(backup).unwrap().1,
            by_node(home, [(State::Down, Reason::Unknown), (State::Initializing, Reason::PeerDown)])
        );
        assert!(
            refusal(stage.op(backup, Op::Fallback(By::Here))).contains("offered from Running in Backup Mode")
        );
        stage.stays(&[backup], 127, 5 * MINUTE);
        assert!(matches!(
            stage.op(backup, Op::Force { to: Force::Active, confirmed: true }),
            Some(Reply::Forced(_))
        ));
        stage.run(SECOND);
        assert_eq!(stage.shown(backup).unwrap().1[backup].0, State::RunningInBackupMode);
    });
}

#[test]
fn row_105_the_first_node_up_serves_its_own_users_and_those_of_the_other_wait() {
    either(|home, backup| {
        // Beside a node that dies the other leads all; when both were killed and one is back alone, the users of the other wait
        // (R6).
        let mut stage = Stage::pair(PAIR);
        stage.kill(backup);
        stage.kill(home);
        stage.run(SECOND);
        stage.start(home);
        let took = stage.expect([home], 105, 3 * MINUTE);
        assert!(took <= 121 * SECOND, "by the initialization time-out: {took}");
        assert_eq!(stage.shown(home).unwrap().1[backup].0, State::Down);
        stage.start(backup);
        stage.expect(BOTH, 1, 10 * SECOND);
    });
}

#[test]
fn row_110_a_node_is_stopped_and_hands_its_users_over_first() {
    either(|home, backup| {
        let mut stage = Stage::pair(PAIR);
        stage.moves(backup);
        stage.op(home, Op::Leave);
        stage.expect([home], 110, 0);
        stage.expect([backup], 17, 5 * SECOND);
        stage.start(home);
        stage.expect(BOTH, 103, 5 * SECOND);
    });
}

#[test]
fn rows_120_and_121_a_group_of_one_node() {
    let mut stage = Stage::fresh(Profile { single: true, ..PAIR });
    stage.start(A);
    stage.expect([A], 121, 0);
    assert!(!stage.ready(A));
    stage.expect([A], 120, SECOND);
    stage.run(SECOND);
    stage.more_users(A, 3);
    stage.stays(&[A], 120, 5 * MINUTE);
    assert!(refusal(stage.op(A, Op::Failover(By::Here))).contains("this group has one node"));
    stage.kill(A);
    stage.start(A);
    stage.expect([A], 121, 0);
    stage.expect([A], 120, SECOND);
    assert!(stage.ready(A) && stage.has_row(A));
    assert_eq!((stage.served(A), stage.alarms(A)), (3, Vec::new()));
}

#[test]
fn a_new_node_that_has_not_got_everything_serves_nobody_however_long_its_peer_is_gone() {
    let leads_none = |stage: &Stage| NodeIx::BOTH.iter().all(|group| !stage.leads(B, *group));
    let has_nothing = "this node has nothing yet, and serves nobody until a has sent everything";
    let mut stage = Stage::fresh(Profile { single: true, ..PAIR });
    stage.start(A);
    stage.expect([A], 120, SECOND);
    stage.run(SECOND);
    stage.more_users(A, 3);
    stage.run(SECOND);
    stage.kill(A);
    stage.grows();
    // It is there long before the other.
    stage.start(B);
    stage.run(110 * SECOND);
    assert!(!says(&stage, B, has_nothing), "within the initialization time-out: {:?}", stage.alarms(B));
    stage.run(10 * MINUTE);
    assert!(leads_none(&stage) && says(&stage, B, has_nothing), "{:?}", stage.alarms(B));
    // The other dies as soon as the new node has joined it: before all is there.
    stage.start(A);
    let joined = "cannot take over: this node does not hold everything of a yet";
    for _ in 0..10_000 {
        if says(&stage, B, joined) {
            break;
        }
        stage.run(1);
    }
    assert!(says(&stage, B, joined), "{:?}", stage.alarms(B));
    stage.kill(A);
    for restarted in [false, true] {
        if restarted {
            stage.kill(B);
            stage.start(B);
        }
        for _ in 0..100 {
            stage.run(6 * SECOND);
            assert!(leads_none(&stage) && stage.has_row(B), "{restarted}: {:?}", stage.shown(B));
        }
        assert!(says(&stage, B, has_nothing), "{restarted}: {:?}", stage.alarms(B));
    }
    // All that was said is with the other, which goes on and sends it.
    stage.start(A);
    stage.run(20 * SECOND);
    fallback(&mut stage, A);
    stage.expect(BOTH, 1, 20 * SECOND);
    assert_eq!((stage.served(A), stage.users(B).len()), (3, 3));
    assert!(!says(&stage, B, "has nothing"), "{:?}", stage.alarms(B));
}

#[test]
fn with_automatics_disabled_the_users_of_a_dead_node_wait_for_the_operator() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(Automatics { disabled: true, fallback: true, after: 40, ..Automatics::default() });
    stage.kill(A);
    stage.run(5 * MINUTE);
    let (row, states) = stage.shown(B).unwrap();
    assert_eq!(row, 105, "{states:?}");
    // By his word, b takes over; and nothing goes back by itself.
    assert!(matches!(stage.op(B, Op::Force { to: Force::Active, confirmed: true }), Some(Reply::Forced(_))));
    stage.run(SECOND);
    assert_eq!(stage.shown(B).unwrap().1[B].0, State::RunningInBackupMode);
    stage.start(A);
    stage.run(5 * MINUTE);
    assert_eq!(stage.shown(B).unwrap().1[B].0, State::RunningInBackupMode);
}
