//! Clients of a node that is heard and answers nobody call at the other: it is asked to fail over when they have waited for the
//! keep-alive time-out.

use super::services::SERVICES;
use super::*;

const KEEP_ALIVE: u64 = MINUTE;
/// A service that is down brings about nothing by itself in these tests.
const CALLERS: Automatics = Automatics { delay: 1_200, ..SERVICES };
const ENOUGH: u32 = 3;

/// A pair with clients at home, which believes so many that call at the wrong node.
fn with_clients(callers: u32, automatics: Automatics) -> Stage {
    let mut stage = Stage::pair_with_callers(PAIR, callers);
    stage.automatics(automatics);
    stage.plain_clients();
    stage.moves(A);
    stage.moves(B);
    stage
}

/// The presence engine of a node dies and does not start, and so many of its clients call at the other, which says after 10 s that nobody
/// answers them.
#[track_caller]
fn answers_nobody(stage: &mut Stage, home: usize, clients: usize) {
    stage.service(home, Service::PresenceEngine, Health::Dead, true);
    stage.clients_call(home, clients);
    stage.stays(&BOTH, 1, 15 * SECOND);
    assert!(says(stage, 1 - home, "does not answer them"), "{:?}", stage.alarms(1 - home));
}

/// Everybody has a stream.
fn all_there(stage: &Stage) -> bool {
    stage.streams().0.iter().all(|(main, _)| main.is_some())
}

#[test]
fn a_node_that_answers_none_of_its_clients_for_the_keep_alive_time_out_fails_over() {
    either(|home, backup| {
        let mut stage = with_clients(ENOUGH, CALLERS);
        answers_nobody(&mut stage, home, 3);
        // It may be slow.
        stage.stays(&BOTH, 1, KEEP_ALIVE - 18 * SECOND);
        assert_eq!((stage.called(backup), all_there(&stage)), (Vec::new(), false));
        stage.expect([home], 108, 8 * SECOND);
        stage.expect(BOTH, 12, 10 * SECOND);
        assert_eq!((stage.called(backup), stage.called(home)), (vec![3], Vec::new()));
        let group = NodeIx::BOTH[home];
        let told =
            [(group, false, Step::Began, Cause::Clients), (group, false, Step::Complete, Cause::Clients)];
        assert_eq!(moves(&mut stage, home), told);
        // The other hears of it by a beacon, which may come after the end.
        let there = moves(&mut stage, backup);
        assert!(there == told || there == told[1..], "{there:?}");
        stage.run(30 * SECOND);
        assert!(all_there(&stage) && !says(&stage, backup, "does not answer them"));
        assert_eq!(stage.served(backup), 10);
        stage.service(home, Service::PresenceEngine, Health::Runs, false);
        stage.expect(BOTH, 11, 2 * SECOND);
        fallback(&mut stage, backup);
        stage.expect(BOTH, 1, 20 * SECOND);
    });
}

#[test]
fn nobody_is_moved_for_clients_that_wait_where_that_is_off_or_something_explains_it() {
    let off = Automatics { disabled: true, ..CALLERS };
    for (what, enough, automatics, clients) in [
        ("off", 0, CALLERS, 5),
        ("automatics are disabled", ENOUGH, off, 5),
        ("too few", ENOUGH + 1, CALLERS, 3),
        ("a storm of logins", ENOUGH, CALLERS, 5),
        ("its peer is no better", ENOUGH, CALLERS, 5),
    ] {
        let mut stage = with_clients(enough, automatics);
        if what == "a storm of logins" {
            stage.crowded(A, true);
        }
        if what == "its peer is no better" {
            stage.service(B, Service::Router, Health::Fails, true);
        }
        stage.service(A, Service::PresenceEngine, Health::Dead, true);
        stage.clients_call(A, clients);
        stage.run(KEEP_ALIVE + 20 * SECOND);
        assert_eq!(
            says(&stage, B, "does not answer them"),
            what != "too few",
            "{what}: {:?}",
            stage.alarms(B)
        );
        assert!(!all_there(&stage), "{what}: they wait");
        assert_eq!((stage.called(B), moves(&mut stage, A)), (Vec::new(), Vec::new()), "{what}");
    }
}

#[test]
fn a_node_that_answers_within_the_time_is_left_alone_and_so_is_one_that_answers_anybody() {
    let mut stage = with_clients(ENOUGH, CALLERS);
    for _ in 0..2 {
        answers_nobody(&mut stage, A, 3);
        stage.stays(&BOTH, 1, KEEP_ALIVE - 20 * SECOND);
        assert!(!all_there(&stage), "they wait");
        // For a moment, in which they are answered; then they come again, sooner than they would be forgotten.
        stage.service(A, Service::PresenceEngine, Health::Runs, false);
        stage.run(1_500);
        assert!(all_there(&stage), "{:?}", stage.streams());
    }
    stage.stays(&BOTH, 1, 2 * MINUTE);
    assert_eq!((stage.called(B), moves(&mut stage, B)), (Vec::new(), Vec::new()));
    assert!(!says(&stage, B, "does not answer them"));
}

#[test]
fn the_flap_guard_holds_back_a_failover_for_clients_that_wait() {
    let mut stage = with_clients(ENOUGH, CALLERS);
    assert!(begun(stage.op(A, Op::Failover(By::Rule))));
    stage.expect(BOTH, 3, 20 * SECOND);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 20 * SECOND);
    stage.run(30 * SECOND);
    assert!(all_there(&stage), "{:?}", stage.streams());
    stage.moves(A);
    answers_nobody(&mut stage, A, 3);
    stage.stays(&BOTH, 1, KEEP_ALIVE);
    assert_eq!((stage.called(B), moves(&mut stage, A)), (vec![3], Vec::new()), "it was asked, and refused");
    assert!(says(&stage, A, "flap guard"), "{:?}", stage.alarms(A));
    assert!(says(&stage, B, "does not answer them"), "{:?}", stage.alarms(B));
}

/// Three accounts are left unanswered at the other node, and nobody else is.
#[test]
fn a_node_that_lets_others_in_keeps_its_users_and_says_so() {
    either(|home, backup| {
        let mut stage = with_clients(ENOUGH, CALLERS);
        stage.goes_deaf(home);
        stage.clients_call(home, 3);
        for seconds in [30, 45] {
            stage.comes_again(home);
            stage.stays(&BOTH, 1, seconds * SECOND);
        }
        assert!(says(&stage, backup, "does not answer them"), "{:?}", stage.alarms(backup));
        assert_eq!(stage.called(backup), [3], "it was asked");
        assert_eq!(stage.kept(home), ["this node answers clients"]);
        assert_eq!((moves(&mut stage, home), stage.served(home)), (Vec::new(), 5));
        // They look for it themselves in the end.
        stage.run(40 * SECOND);
        assert!(all_there(&stage) && !says(&stage, backup, "does not answer them"));
    });
}

#[test]
fn a_service_that_the_operator_stopped_has_its_own_delay_whoever_waits() {
    either(|home, backup| {
        let mut stage = with_clients(ENOUGH, SERVICES);
        stage.service(home, Service::PresenceEngine, Health::Stopped, true);
        stage.clients_call(home, 3);
        stage.stays(&BOTH, 1, 88 * SECOND);
        assert_eq!((stage.called(backup), moves(&mut stage, home)), (vec![3], Vec::new()), "it was asked");
        let kept = stage.kept(home);
        assert!(kept.len() == 1 && kept[0].contains("the operator stopped"), "{kept:?}");
        stage.expect([home], 108, 4 * SECOND);
        stage.expect(BOTH, 12, 10 * SECOND);
        let group = NodeIx::BOTH[home];
        let told =
            [(group, false, Step::Began, Cause::Service), (group, false, Step::Complete, Cause::Service)];
        assert_eq!(moves(&mut stage, home), told);
        // Whoever has seen it begin knows that it was not for those who wait.
        let there = moves(&mut stage, backup);
        assert!(there.len() < 2 || there == told, "{there:?}");
    });
}

/// Nothing shows what keeps a node from answering: users go back to it by themselves, and wait for it again.
#[test]
fn with_automatic_fallback_users_do_not_go_to_and_fro() {
    let mut stage = with_clients(ENOUGH, Automatics { fallback: true, after: 120, ..CALLERS });
    stage.goes_deaf(A);
    stage.clients_see_only(B, 30 * MINUTE);
    stage.expect([A], 108, KEEP_ALIVE + 30 * SECOND);
    stage.expect(BOTH, 11, 10 * SECOND);
    stage.expect([B], 10, 40 * SECOND);
    stage.expect(BOTH, 1, 20 * SECOND);
    assert!(!says(&stage, A, "flap guard"), "{:?}", stage.alarms(A));
    // It is asked again and again, and they stay: as long as the failover before counts.
    stage.stays(&BOTH, 1, 200 * SECOND);
    assert_eq!(stage.called(B).len(), 2, "it was asked both times");
    assert!(says(&stage, A, "flap guard"), "{:?}", stage.alarms(A));
    assert!(says(&stage, B, "does not answer them"), "{:?}", stage.alarms(B));
    let told = moves(&mut stage, A);
    let began = told.iter().filter(|(_, back, step, _)| !back && *step == Step::Began);
    assert_eq!(began.count(), 1, "{told:?}");
    assert_eq!(told.last(), Some(&(NodeIx::A, true, Step::Complete, Cause::Automatic)), "{told:?}");
}

/// What node b says of those who went back in vain.
const WAITS: &str = "automatic fallback waits for the operator";

/// The users of node a, which answers none of them, were at node b and went back by themselves.
fn went_back() -> Stage {
    let automatics = Automatics { fallback: true, after: 120, failovers_per_hour: 3, ..CALLERS };
    let mut stage = with_clients(ENOUGH, automatics);
    stage.goes_deaf(A);
    stage.clients_see_only(B, 30 * MINUTE);
    stage.expect([A], 108, KEEP_ALIVE + 30 * SECOND);
    stage.expect(BOTH, 11, 10 * SECOND);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    stage.expect([B], 10, 40 * SECOND);
    stage.expect(BOTH, 1, 20 * SECOND);
    stage
}

/// They wait for it once more, and are at node b again.
#[track_caller]
fn come_again(stage: &mut Stage) {
    stage.expect([A], 108, 200 * SECOND);
    stage.expect(BOTH, 11, 10 * SECOND);
}

fn went_back_in_vain() -> Stage {
    let mut stage = went_back();
    come_again(&mut stage);
    stage
}

/// Node b is restarted, and both show this row again.
#[track_caller]
fn restarted(stage: &mut Stage, row: u32) {
    stage.op(B, Op::Restart);
    stage.run(900);
    assert_eq!(stage.shown(B), None);
    stage.expect(BOTH, row, 5 * SECOND);
    stage.run(5 * SECOND);
}

/// Of a node that was failed over anew when it had them back, only the operator knows when it answers again.
#[test]
fn users_who_went_back_in_vain_go_back_again_at_the_operators_word() {
    let mut stage = went_back_in_vain();
    stage.stays(&BOTH, 11, 5 * MINUTE);
    assert!(all_there(&stage) && says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 20 * SECOND);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
}

#[test]
fn users_who_went_back_in_vain_stay_when_the_node_where_they_are_is_restarted() {
    let mut stage = went_back_in_vain();
    // The last run has it from one that had it from its disk.
    for _ in 0..2 {
        restarted(&mut stage, 11);
        stage.stays(&BOTH, 11, 5 * MINUTE);
        assert!(all_there(&stage) && says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    }
}

/// A restart between the fallback and the failover behind it does not part them.
#[test]
fn users_went_back_in_vain_although_the_node_that_gave_them_back_was_restarted_since() {
    let mut stage = went_back();
    restarted(&mut stage, 1);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    come_again(&mut stage);
    stage.stays(&BOTH, 11, 5 * MINUTE);
    assert!(says(&stage, B, WAITS), "{:?}", stage.alarms(B));
}

/// Nothing of it comes back with the next run: when they are failed over once more, they go back by themselves again.
#[test]
fn the_operators_fallback_ends_it_for_good() {
    let mut stage = went_back_in_vain();
    restarted(&mut stage, 11);
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 20 * SECOND);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    restarted(&mut stage, 1);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    come_again(&mut stage);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    stage.expect([B], 10, 40 * SECOND);
    stage.expect(BOTH, 1, 20 * SECOND);
}

/// Their home node has taken them back itself, as the other died: nobody is to be given back.
#[test]
fn it_ends_too_when_the_node_where_they_are_dies() {
    let mut stage = went_back_in_vain();
    stage.run(SECOND);
    assert!(says(&stage, B, WAITS), "{:?}", stage.alarms(B));
    stage.kill(B);
    stage.run(5 * SECOND);
    stage.start(B);
    stage.expect(BOTH, 103, 20 * SECOND);
    stage.run(5 * SECOND);
    assert!(!says(&stage, B, WAITS), "{:?}", stage.alarms(B));
}
