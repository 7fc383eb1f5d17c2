//! What fails, comes late, or is asked by the server.

use super::*;

#[test]
fn failed_with_a_dead_main_binds_anew() {
    let anew = Output::Reconnect { first: None, anew: true };
    let mut client = Client::asking();
    assert_eq!(client.on(Input::Failed), [Output::CloseParked, ANSWERED, anew.clone()]);
    let mut client = Client::asking();
    client.on(take());
    assert_eq!(client.on(Input::Failed), [Output::CloseParked, ANSWERED, anew]);
}

#[test]
fn failed_with_a_living_main_stays_there() {
    let mut client = Client::resuming();
    assert_eq!(client.on(Input::Failed), [Output::CloseParked, ANSWERED, OPEN, PARK]);
    assert!(client.machine.is_up());
    let mut client = Client::parked();
    assert_eq!(client.on(Input::Failed), [Output::CloseParked, PARK]);
}

#[test]
fn failed_while_reconnecting_gives_the_parked_stream_up() {
    let mut client = Client::asking();
    client.on(stay());
    assert_eq!(client.on(Input::Failed), [Output::CloseParked]);
    assert_eq!(client.on(Input::ReconnectFailed), []);
}

#[test]
fn hand_back_swaps_the_roles_of_two_living_streams() {
    let mut client = Client::parked();
    assert_eq!(client.on(moving("b")), [MUTE, resume("7.1"), ANSWER]);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::Moving, true)]);
    assert!(client.machine.is_up() && client.machine.is_parked());
    assert_eq!((client.machine.main_node(), client.machine.parked_node()), (Some("b"), Some("a")));
    assert_eq!(client.on(offer("7.1", "a")), [], "it is parked there already");
    // And back again.
    assert_eq!(client.on(moving("a")), [MUTE, resume("7.1"), ANSWER]);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::Moving, true)]);
    assert_eq!(client.machine.main_node(), Some("a"));
}

#[test]
fn hand_back_whose_old_stream_dies_parks_again() {
    let mut client = Client::parked();
    client.on(moving("b"));
    client.on(Input::MainDied);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::Moving, false), PARK]);
    client.park("a");
}

#[test]
fn a_moved_stream_is_never_written_to_again() {
    let mut client = Client::parked();
    client.on(moving("b"));
    assert_eq!(client.on(wait()), [READ_ONLY, ANSWER]);
    assert_eq!(client.on(take()), [MUTE, resume("7.1"), ANSWER]);
    assert_eq!(client.on(wait()), [READ_ONLY, ANSWER]);
    assert_eq!(client.on(stay()), [Output::CloseMain, ANSWERED, reconnect(Some("a"))]);
    let mut client = Client::parked();
    client.on(moving("b"));
    let anew = Output::Reconnect { first: None, anew: true };
    assert_eq!(client.on(Input::Failed), [Output::CloseParked, Output::CloseMain, ANSWERED, anew]);
}

#[test]
fn hand_back_without_a_parked_stream_there_goes_and_looks() {
    let looks = [ANSWERED, reconnect(Some("b"))];
    let mut client = Client::up();
    let timer = Output::CancelTimer(Timer::Park);
    let expected = [vec![timer, Output::CloseMain], looks.to_vec()].concat();
    assert_eq!(client.on(moving("b")), expected);
    let mut client = Client::parked();
    let expected = [Output::CloseParked, Output::CloseMain, ANSWERED, reconnect(Some("c"))];
    assert_eq!(client.on(moving("c")), expected);
}

#[test]
fn stalled_flips_at_once() {
    let mut client = Client::parked();
    assert_eq!(client.on(Input::Main(Dual::Stalled)), [MUTE, resume("7.0"), ANSWER]);
    assert_eq!(client.on(wait()), [READ_ONLY, ANSWER]);
    assert_eq!(client.on(take()), [MUTE, resume("7.0"), ANSWER]);
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::Stalled, false), PARK]);
}

#[test]
fn stalled_while_waiting_only_stops_writing_and_stay_thaws() {
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(Input::Main(Dual::Stalled)), [READ_ONLY]);
    assert_eq!(client.on(stay()), [ANSWERED, OPEN]);
}

#[test]
fn stalled_without_a_parked_stream_goes_and_looks() {
    let mut client = Client::up();
    assert_eq!(
        client.on(Input::Main(Dual::Stalled)),
        [Output::CancelTimer(Timer::Park), Output::CloseMain, ANSWERED, reconnect(None)]
    );
}

#[test]
fn parked_dying_under_a_resume_leaves_the_old_stream_untrusted() {
    let mut client = Client::resuming();
    assert_eq!(client.on(Input::ParkedDied), [Output::CloseMain, ANSWERED, reconnect(Some("b"))]);
    let mut client = Client::asking();
    assert_eq!(client.on(Input::ParkedDied), [ANSWERED, reconnect(Some("b"))]);
}

#[test]
fn parked_dying_after_wait_leaves_a_living_main_in_charge() {
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(Input::ParkedDied), [ANSWERED, OPEN, PARK]);
    assert!(client.machine.is_up());
}

#[test]
fn parked_dying_while_reconnecting_is_no_matter() {
    let mut client = Client::asking();
    client.on(stay());
    assert_eq!(client.on(Input::ParkedDied), []);
    assert_eq!(client.on(main_up("a", false)), [ANSWERED, PARK]);
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let mut client = Client::asking();
    let looks = [Output::CloseParked, ANSWERED, reconnect(None)];
    assert_eq!(client.on(Input::Timer(Timer::Answer)), looks);
    let mut client = Client::resuming();
    let looks = [Output::CloseParked, Output::CloseMain, ANSWERED, reconnect(None)];
    assert_eq!(client.on(Input::Timer(Timer::Answer)), looks);
    let mut client = Client::resuming();
    client.on(wait());
    assert_eq!(client.on(Input::Timer(Timer::Answer)), [Output::CloseParked, ANSWERED, OPEN, PARK]);
    let mut client = Client::parked();
    assert_eq!(client.on(Input::Timer(Timer::Answer)), []);
}

#[test]
fn a_new_peer_is_parked_at_instead_of_the_old_one() {
    let mut client = Client::parked();
    assert_eq!(client.on(offer("7.0", "c")), [Output::CloseParked, PARK]);
    client.park("c");
    let mut client = Client::up();
    assert_eq!(client.on(offer("7.0", "c")), [], "the time already runs");
    client.park("c");
}

#[test]
fn a_higher_epoch_told_on_main_is_named_in_the_resume() {
    let mut client = Client::parked();
    assert_eq!(client.on(offer("8.0", "b")), []);
    assert_eq!(client.on(take()), [MUTE, resume("8.0"), ANSWER]);
}

#[test]
fn take_before_parked_is_nothing() {
    let mut client = Client::up();
    client.on(Input::Timer(Timer::Park));
    assert_eq!(client.on(take()), []);
    client.on(Input::ParkedOpen);
    assert_eq!(client.on(take()), []);
    assert!(client.machine.is_up());
}

#[test]
fn a_query_is_answered_with_the_proof_of_the_main_stream() {
    let mut client = Client::parked();
    let vouch = Output::Main(Dual::Vouch { nonce: "n1".into() });
    assert_eq!(client.on(query(1)), [vouch, Output::SetTimer(Timer::Vouch, VOUCH_TIMEOUT)]);
    client.now += Duration::from_millis(40);
    client.machine.main_heard(client.now);
    let vouched = |nonce: &str| Input::Main(Dual::Vouched { nonce: nonce.into(), mac: "m".into() });
    assert_eq!(client.on(vouched("other")), []);
    assert_eq!(client.on(vouched("n1")), [report(1, MainStream::Alive, Some("m"), 0)]);
    assert_eq!(client.on(vouched("n1")), []);
    client.now += VOUCH_TIMEOUT;
    assert_eq!(client.on(Input::Timer(Timer::Vouch)), []);
}

#[test]
fn a_silent_or_lost_main_stream_is_reported_as_such() {
    let mut client = Client::parked();
    client.on(query(1));
    client.now += Duration::from_millis(200);
    let vouch = Output::Main(Dual::Vouch { nonce: "n2".into() });
    assert_eq!(client.on(query(2)), [vouch]);
    client.now += VOUCH_TIMEOUT - Duration::from_millis(200);
    let next = Output::SetTimer(Timer::Vouch, Duration::from_millis(200));
    assert_eq!(client.on(Input::Timer(Timer::Vouch)), [report(1, MainStream::Silent, None, 700), next]);
    client.on(Input::MainDied);
    client.now += Duration::from_millis(200);
    assert_eq!(client.on(Input::Timer(Timer::Vouch)), [report(2, MainStream::Lost, None, 900)]);
    assert_eq!(client.on(query(3)), [report(3, MainStream::Lost, None, 900)]);
    let mut client = Client::resuming();
    assert_eq!(client.on(query(4)), [report(4, MainStream::Silent, None, 0)]);
}

#[test]
fn queries_are_bounded() {
    let mut client = Client::parked();
    for n in 0..MAX_QUERIES + 3 {
        client.on(query(n));
    }
    client.now += VOUCH_TIMEOUT;
    assert_eq!(client.on(Input::Timer(Timer::Vouch)).len(), MAX_QUERIES);
}

#[test]
fn a_session_that_cannot_be_resumed_is_looked_for_anew_from_every_phase() {
    let anew = Output::Reconnect { first: None, anew: true };
    let mut up = Client::parked();
    assert_eq!(up.on(Input::Gone), [Output::CloseParked, Output::CloseMain, ANSWERED, anew.clone()]);
    let mut asking = Client::parked();
    asking.on(Input::MainDied);
    assert_eq!(asking.on(Input::Gone), [Output::CloseParked, ANSWERED, anew.clone()]);
    let mut resuming = Client::parked();
    resuming.on(take());
    assert_eq!(resuming.on(Input::Gone), [Output::CloseParked, Output::CloseMain, ANSWERED, anew.clone()]);
    assert_eq!(resuming.on(take()), [], "nothing is left to take");
    let mut down = Client::up();
    down.on(Input::MainDied);
    assert_eq!(down.on(Input::Gone), [ANSWERED, anew]);
    assert_eq!(down.on(main_up("a", true)), [ANSWERED, Output::Main(Dual::Request)]);
}

#[test]
fn an_offer_before_resumed_counts_with_it() {
    let mut client = Client::resuming();
    assert_eq!(client.on(early("9.0", "a")), []);
    assert_eq!(client.machine.told(), Some(epoch("7.0").into()), "the session may yet stay where it is");
    assert_eq!(client.on(early("8.0", "a")), [], "what waited comes behind what overtook it");
    assert_eq!(client.on(Input::Resumed), [ANSWERED, flip(FlipCause::TakeUnasked, false), PARK]);
    assert_eq!(client.machine.told(), Some(epoch("9.0").into()));
}

#[test]
fn an_offer_before_a_resume_that_fails_counts_for_nothing() {
    let mut client = Client::resuming();
    client.on(early("9.0", "a"));
    client.on(wait());
    assert_eq!(client.machine.told(), Some(epoch("7.0").into()));
    client.on(take());
    client.on(Input::Resumed);
    assert_eq!(client.machine.told(), Some(epoch("7.0").into()), "it belonged to the resume that is void");
}

#[test]
fn an_epoch_never_goes_back_on_one_stream_of_a_session() {
    let mut client = Client::parked();
    client.on(offer("8.0", "b"));
    client.on(offer("7.0", "b"));
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()));
    let told = Told { epoch: epoch("8.0"), moved: Some(epoch("7.1")), attempt: None };
    let resume = Output::Resume { previd: "sm-1".into(), told: Some(told) };
    assert_eq!(client.on(moving("b")), [MUTE, resume, ANSWER], "the hand-over is named too");
    client.on(Input::Resumed);
    client.on(offer("8.0", "a"));
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()), "it is not the last word any more");
    client.on(main_up("a", true));
    assert_eq!(client.machine.told(), None);
}

/// Who granted the session there knew of all that was told before.
#[test]
fn what_was_told_before_a_stream_goes_on_with_the_session_is_forgotten_with_what_that_tells() {
    let mut client = Client::parked();
    client.on(offer("9.0", "b"));
    client.on(take());
    client.on(early("8.0", "a"));
    client.on(Input::Resumed);
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()));
    client.on(main_up("b", false));
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()), "it tells nothing yet");
    client.on(offer("7.0", "a"));
    client.on(offer("6.0", "a"));
    assert_eq!(client.machine.told(), Some(epoch("7.0").into()));
    client.on(main_up("b", false));
    client.on(moving("a"));
    assert_eq!(client.machine.told(), Some(epoch("7.1").into()));
}
