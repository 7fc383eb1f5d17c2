//! Users that go back at a time of the day.

use super::*;

/// An hour before midnight, and one after it.
const NIGHT: Window = Window { from_min: 23 * 60, to_min: 60 };
const ELEVEN: u16 = 23 * 60;
const HALF_PAST_MIDNIGHT: u16 = 30;
const ONE: u16 = 60;
const NOON: u16 = 12 * 60;
/// How long the home node must have been well.
const HEALTH: u64 = 10 * MINUTE;

/// Node a has died and is back; it is noon.
fn failed_over() -> Stage {
    let mut stage = Stage::pair(PAIR);
    let after = (HEALTH / 250) as u32;
    stage.automatics(Automatics { window: Some(NIGHT), after, delay: 360, ..Automatics::default() });
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage.minute(NOON);
    stage.moves(A);
    stage.moves(B);
    stage
}

/// How the users of node a went back, as a node tells it.
fn back(stage: &mut Stage, node: usize) -> Vec<(Step, Cause)> {
    let told = moves(stage, node).into_iter();
    told.filter(|(group, back, ..)| *group == NodeIx::A && *back)
        .map(|(.., step, cause)| (step, cause))
        .collect()
}

#[test]
fn the_window_spans_midnight() {
    for (minute, open) in [(ELEVEN - 1, false), (ELEVEN, true), (0, true), (ONE - 1, true), (ONE, false)] {
        let mut stage = failed_over();
        stage.stays(&BOTH, 103, HEALTH + MINUTE);
        stage.minute(minute);
        if open {
            stage.expect([B], 10, SECOND);
            stage.expect(BOTH, 1, SECOND);
            let told = back(&mut stage, B);
            assert_eq!(told, [(Step::Began, Cause::Scheduled), (Step::Complete, Cause::Scheduled)]);
            assert_eq!(back(&mut stage, A).last(), Some(&(Step::Complete, Cause::Scheduled)));
        } else {
            stage.stays(&BOTH, 103, 5 * MINUTE);
        }
    }
}

#[test]
fn in_the_window_too_the_home_node_must_have_been_well_without_a_break() {
    let mut stage = failed_over();
    stage.minute(ELEVEN);
    stage.stays(&BOTH, 103, HEALTH - MINUTE);
    // A relapse.
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 126, 2 * SECOND);
    stage.stays(&BOTH, 126, 5 * MINUTE);
    stage.service(A, Service::Router, Health::Runs, false);
    stage.expect(BOTH, 103, 2 * SECOND);
    // Counted anew, and the window is still open.
    stage.minute(HALF_PAST_MIDNIGHT);
    stage.stays(&BOTH, 103, HEALTH - 10 * SECOND);
    stage.expect([B], 10, 12 * SECOND);
    stage.expect(BOTH, 1, SECOND);
}

#[test]
fn what_stands_in_the_way_when_the_window_opens_is_waited_for_until_it_ends() {
    let mut stage = failed_over();
    stage.stays(&BOTH, 103, HEALTH + MINUTE);
    stage.crowded(A, true);
    stage.run(SECOND);
    stage.minute(ELEVEN);
    stage.expect([B], 10, SECOND);
    stage.stays(&[B], 10, 5 * MINUTE);
    stage.minute(0);
    stage.stays(&[B], 10, 5 * MINUTE);
    stage.crowded(A, false);
    stage.expect(BOTH, 1, 2 * SECOND);
}

#[test]
fn a_scheduled_fallback_that_could_not_be_made_ends_with_its_window_and_is_made_in_the_next() {
    let mut stage = failed_over();
    stage.stays(&BOTH, 103, HEALTH + MINUTE);
    stage.crowded(B, true);
    stage.run(SECOND);
    stage.minute(ELEVEN);
    stage.expect([B], 10, SECOND);
    stage.stays(&[B], 10, 5 * MINUTE);
    stage.minute(ONE);
    stage.expect(BOTH, 103, 2 * SECOND);
    assert_eq!(back(&mut stage, B), [(Step::Began, Cause::Scheduled), (Step::Ended, Cause::Scheduled)]);
    // What stood in the way is gone, and the day has begun.
    stage.crowded(B, false);
    stage.stays(&BOTH, 103, HEALTH + MINUTE);
    stage.minute(ELEVEN);
    stage.expect([B], 10, SECOND);
    stage.expect(BOTH, 1, SECOND);
}

#[test]
fn a_scheduled_fallback_that_came_to_nothing_is_tried_again_after_a_minute() {
    let mut stage = failed_over();
    stage.stays(&BOTH, 103, HEALTH + MINUTE);
    stage.crowded(B, true);
    stage.run(SECOND);
    stage.minute(ELEVEN);
    stage.expect([B], 10, SECOND);
    // It has moved nobody when the clock is put forward; and then back, as at the end of summer.
    stage.minute(ONE);
    stage.expect(BOTH, 103, 2 * SECOND);
    stage.crowded(B, false);
    stage.run(SECOND);
    stage.minute(ELEVEN);
    stage.stays(&BOTH, 103, 50 * SECOND);
    assert_eq!(back(&mut stage, B), [(Step::Began, Cause::Scheduled), (Step::Ended, Cause::Scheduled)]);
    stage.expect([B], 10, 15 * SECOND);
    stage.expect(BOTH, 1, 5 * SECOND);
}

#[test]
fn a_fallback_by_hand_need_not_wait_for_the_window() {
    let mut stage = failed_over();
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    assert_eq!(back(&mut stage, B).last(), Some(&(Step::Complete, Cause::Operator)));
    stage.minute(ELEVEN);
    stage.stays(&BOTH, 1, HEALTH + MINUTE);
}
