//! Parking, flips, and what waits for an answer.

use super::*;

#[test]
fn parks_at_the_peer_after_a_time_within_the_limits() {
    let client = Client::parked();
    assert!(client.machine.is_up());
    assert_eq!(client.machine.main_node(), Some("a"));
}

#[test]
fn asks_for_nothing_where_nothing_is_offered() {
    let mut client = Client::new();
    let plain = |dual, sm_id| Input::MainUp { at: peer("a"), sm_id, anew: true, dual };
    assert_eq!(client.on(plain(false, Some("sm-1".into()))), [ANSWERED]);
    assert_eq!(client.on(offer("7.0", "b")), [], "an ordinary client takes no offers");
    assert_eq!(client.on(moving("b")), []);
    assert_eq!(client.on(plain(true, None)), [ANSWERED]);
    assert_eq!(client.on(offer("7.0", "b")), [], "what cannot be resumed cannot flip");
    assert_eq!(client.on(main_up("a", true)), [ANSWERED, Output::Main(Dual::Request)]);
    assert_eq!(client.on(Input::Main(Dual::Failed(Failure::HaDisabled))), []);
    assert_eq!(client.on(Input::MainDied), [ANSWERED, reconnect(None)]);
}

#[test]
fn an_offer_that_is_taken_back_leaves_an_ordinary_client_until_the_next() {
    let mut client = Client::up();
    client.park("b");
    let off = client.on(Input::Main(Dual::Failed(Failure::HaDisabled)));
    assert!(off.contains(&Output::CloseParked), "{off:?}");
    assert_eq!(client.on(Input::Main(Dual::Failed(Failure::HaDisabled))), [], "once");
    assert_eq!(client.on(Input::MainDied), [ANSWERED, reconnect(None)]);
    let mut client = Client::up();
    client.on(Input::Main(Dual::Failed(Failure::HaDisabled)));
    assert_eq!(client.on(offer("9.0", "b")), [PARK], "switched on again");
}

#[test]
fn parking_is_tried_again_while_the_other_node_is_down() {
    let mut client = Client::up();
    for _ in 0..3 {
        assert_eq!(client.on(Input::Timer(Timer::Park)), [Output::ConnectParked(peer("b"))]);
        assert_eq!(client.on(Input::ParkedDied), [PARK]);
    }
    client.park("b");
    assert_eq!(client.on(Input::ParkedDied), [PARK]);
    assert!(!client.machine.is_parked());
}

#[test]
fn a_refused_standby_is_tried_again_later() {
    let mut client = Client::up();
    client.on(Input::Timer(Timer::Park));
    client.on(Input::ParkedOpen);
    let refused = Input::Parked(Dual::Failed(Failure::Other(StanzaCondition::ItemNotFound)));
    assert_eq!(client.on(refused), [Output::CloseParked, PARK]);
    client.park("b");
}

#[test]
fn a_stream_that_opens_too_late_is_closed() {
    let mut client = Client::up();
    client.on(Input::Timer(Timer::Park));
    assert_eq!(client.on(Input::MainDied), [Output::CloseParked, ANSWERED, reconnect(None)]);
    assert_eq!(client.on(Input::ParkedOpen), [Output::CloseParked]);
    assert_eq!(client.on(Input::Timer(Timer::Park)), []);
}

#[test]
fn without_a_parked_stream_it_is_a_plain_client() {
    let mut client = Client::up();
    assert_eq!(client.on(Input::MainDied), [Output::CancelTimer(Timer::Park), ANSWERED, reconnect(None)]);
    assert_eq!(client.on(Input::ReconnectFailed), []);
    // Resumed at b: the second stream belongs at a now, whether or not b says so.
    assert_eq!(client.on(main_up("b", false)), [ANSWERED, PARK]);
    client.park("a");
}

#[test]
fn take_unasked_flips_and_closes_the_old_stream() {
    let mut client = Client::resuming();
    assert!(!client.machine.is_up());
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeUnasked, false), PARK]);
    assert!(client.machine.is_up());
    assert_eq!(client.machine.main_node(), Some("b"));
    assert_eq!(client.on(offer("9.0", "a")), []);
    client.park("a");
}

#[test]
fn main_death_is_told_and_take_flips() {
    let mut client = Client::asking();
    assert_eq!(client.on(take()), [resume("7.0"), ANSWER]);
    assert_eq!(client.on(take()), [], "one resume is enough");
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeAfterLost, false), PARK]);
}

#[test]
fn main_dying_under_a_resume_changes_nothing() {
    let mut client = Client::resuming();
    assert_eq!(client.on(Input::MainDied), []);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeUnasked, false), PARK]);
}

#[test]
fn nothing_from_main_counts_under_a_resume() {
    let mut client = Client::resuming();
    assert_eq!(client.on(offer("8.0", "b")), []);
    assert_eq!(client.on(Input::Main(Dual::Stalled)), []);
    assert_eq!(client.on(wait()), [OPEN, ANSWER]);
    assert_eq!(client.on(take()), [MUTE, resume("7.0"), ANSWER]);
}

#[test]
fn wait_voids_the_resume_and_take_sends_a_fresh_one() {
    let mut client = Client::resuming();
    assert_eq!(client.on(wait()), [OPEN, ANSWER]);
    assert_eq!(client.on(wait()), [ANSWER]);
    // The epoch may rise while main is read again; the next resume names the new one.
    assert_eq!(client.on(offer("8.0", "b")), []);
    assert_eq!(client.on(take()), [MUTE, resume("8.0"), ANSWER]);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeUnasked, false), PARK]);
}

#[test]
fn main_dying_after_wait_is_told() {
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(Input::MainDied), [lost()]);
    assert_eq!(client.on(Input::MainDied), []);
    assert_eq!(client.on(take()), [resume("7.0"), ANSWER]);
}

#[test]
fn wait_after_lost_goes_on_waiting() {
    let mut client = Client::asking();
    assert_eq!(client.on(wait()), [ANSWER]);
    assert_eq!(client.on(take()), [resume("7.0"), ANSWER]);
    assert_eq!(client.on(wait()), [ANSWER]);
    assert_eq!(client.on(take()), [resume("7.0"), ANSWER]);
}

#[test]
fn wait_out_of_place_is_nothing() {
    let mut client = Client::parked();
    assert_eq!(client.on(wait()), []);
    assert!(client.machine.is_up());
}

#[test]
fn resumed_for_a_void_resume_is_not_believed() {
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(Input::Resumed), [Output::CloseParked, ANSWERED, OPEN, PARK]);
    assert_eq!(client.machine.main_node(), Some("a"));
}

#[test]
fn stay_with_a_living_main_goes_on() {
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(stay()), [ANSWERED, OPEN]);
    assert!(client.machine.is_up() && client.machine.is_parked());
    let mut client = Client::resuming();
    assert_eq!(client.on(stay()), [ANSWERED, OPEN]);
    assert_eq!(client.on(stay()), []);
}

#[test]
fn stay_with_a_dead_main_reconnects_to_the_owner_and_keeps_the_parked_stream() {
    let mut client = Client::asking();
    assert_eq!(client.on(stay()), [ANSWERED, reconnect(Some("a"))]);
    assert!(client.machine.is_parked() && !client.machine.is_up());
    assert_eq!(client.on(main_up("a", false)), [ANSWERED]);
    assert!(client.machine.is_parked() && client.machine.is_up());
    assert_eq!(client.on(Input::MainDied), [lost(), ANSWER]);
}

#[test]
fn while_the_owner_cannot_be_reached_it_is_lost_again() {
    let mut client = Client::asking();
    client.on(stay());
    assert_eq!(client.on(Input::ReconnectFailed), [lost()]);
    assert_eq!(client.on(Input::ReconnectFailed), []);
    client.now += LOST_AGAIN;
    assert_eq!(client.on(Input::ReconnectFailed), [lost()]);
    assert_eq!(client.on(stay()), []);
    assert_eq!(client.on(take()), [Output::StopReconnect, resume("7.0"), ANSWER]);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeAfterLost, false), PARK]);
}

#[test]
fn reconnecting_to_where_it_was_parked_closes_the_parked_stream() {
    let mut client = Client::asking();
    client.on(stay());
    assert_eq!(client.on(main_up("b", false)), [ANSWERED, Output::CloseParked, PARK]);
    client.park("a");
}

#[test]
fn a_session_bound_anew_asks_and_parks_anew() {
    let mut client = Client::asking();
    client.on(stay());
    assert_eq!(client.on(main_up("a", true)), [ANSWERED, Output::CloseParked, Output::Main(Dual::Request)]);
    assert_eq!(client.on(offer("11.0", "b")), [PARK]);
}

#[test]
fn a_session_that_is_older_than_the_second_node_asks_when_it_is_resumed() {
    let mut client = Client::new();
    client.on(Input::MainUp { at: peer("a"), sm_id: Some("sm-1".into()), anew: true, dual: false });
    client.on(Input::MainDied);
    assert_eq!(client.on(main_up("a", false)), [ANSWERED, Output::Main(Dual::Request)]);
    assert_eq!(client.on(offer("7.0", "b")), [PARK]);
    client.on(Input::MainDied);
    assert!(!client.on(main_up("a", false)).contains(&Output::Main(Dual::Request)), "it knows");
}
