//! Every transition of the machine, by what a server can say and what can break.

use std::time::Duration;

use xmpp_core::StanzaCondition;
use xmpp_core::dual::{Dual, Epoch, Failure, MainStream, Peer, Told};

use super::{
    ANSWER_TIMEOUT, DualClient, FlipCause, Input, LOST_AGAIN, MAX_QUERIES, Output, Timer, VOUCH_TIMEOUT,
};

const LOWER: Duration = Duration::from_secs(1);
const UPPER: Duration = Duration::from_secs(3);

/// A client and the clock it is told.
struct Client {
    machine: DualClient,
    now: Duration,
}

fn peer(node: &str) -> Peer {
    Peer { node: node.into(), host: format!("{node}.example").into(), port: 5223, direct_tls: true }
}

fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn offer(at: &str, node: &str) -> Input {
    let (epoch, peer) = (epoch(at), peer(node));
    Input::Main(Dual::Offer { epoch, lower_s: 1, upper_s: 3, peer, token: None })
}

/// The same on the second stream.
fn early(at: &str, node: &str) -> Input {
    let Input::Main(said) = offer(at, node) else { unreachable!("made above") };
    Input::Parked(said)
}

fn take() -> Input {
    Input::Parked(Dual::Take { epoch: epoch("9.0") })
}

fn wait() -> Input {
    Input::Parked(Dual::Wait { ms: 500 })
}

fn stay() -> Input {
    Input::Parked(Dual::Stay)
}

fn moving(to: &str) -> Input {
    Input::Main(Dual::Moving { epoch: epoch("7.1"), to: to.into() })
}

fn query(n: usize) -> Input {
    Input::Parked(Dual::Query { id: format!("q{n}").into(), nonce: format!("n{n}").into() })
}

fn main_up(node: &str, anew: bool) -> Input {
    Input::MainUp { at: peer(node), sm_id: Some("sm-1".into()), anew, dual: true }
}

fn lost() -> Output {
    Output::Parked(Dual::Lost)
}

fn resume(at: &str) -> Output {
    Output::Resume { previd: "sm-1".into(), told: Some(epoch(at).into()) }
}

fn reconnect(first: Option<&str>) -> Output {
    Output::Reconnect { first: first.map(str::to_owned), anew: false }
}

fn flip(cause: FlipCause, keep_old: bool) -> Output {
    Output::Flip { cause, keep_old }
}

fn report(n: usize, main: MainStream, mac: Option<&str>, heard_ms: u64) -> Output {
    let (id, mac) = (format!("q{n}").into(), mac.map(Into::into));
    Output::Parked(Dual::Report { id, main, mac, heard_ms: Some(heard_ms) })
}

const ANSWER: Output = Output::SetTimer(Timer::Answer, ANSWER_TIMEOUT);
const ANSWERED: Output = Output::CancelTimer(Timer::Answer);
const PARK: Output = Output::SetRandomTimer(Timer::Park, LOWER, UPPER);
const MUTE: Output = Output::MainMode { read: false, write: false };
const READ_ONLY: Output = Output::MainMode { read: true, write: false };
const OPEN: Output = Output::MainMode { read: true, write: true };

impl Client {
    fn new() -> Self {
        Client { machine: DualClient::new(), now: Duration::from_secs(100) }
    }

    fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.on(self.now, input, &mut out);
        out
    }

    /// Bound at a, offered b, not yet parked.
    fn up() -> Self {
        let mut client = Client::new();
        assert_eq!(client.on(main_up("a", true)), [ANSWERED, Output::Main(Dual::Request)]);
        assert_eq!(client.on(offer("7.0", "b")), [PARK]);
        client
    }

    fn park(&mut self, node: &str) {
        assert_eq!(self.on(Input::Timer(Timer::Park)), [Output::ConnectParked(peer(node))]);
        assert_eq!(self.on(Input::ParkedOpen), [Output::Parked(Dual::Standby { sm_id: "sm-1".into() })]);
        assert!(!self.machine.is_parked());
        assert_eq!(self.on(Input::Parked(Dual::Parked { epoch: epoch("7.0"), token: None })), []);
        assert!(self.machine.is_parked());
        assert_eq!(self.machine.parked_node(), Some(node));
    }

    /// Main at a, parked at b.
    fn parked() -> Self {
        let mut client = Client::up();
        client.park("b");
        client
    }

    /// Main died, b told.
    fn asking() -> Self {
        let mut client = Client::parked();
        assert_eq!(client.on(Input::MainDied), [lost(), ANSWER]);
        client
    }

    /// Resume out on the parked stream, main alive but not read.
    fn resuming() -> Self {
        let mut client = Client::parked();
        assert_eq!(client.on(take()), [MUTE, resume("7.0"), ANSWER]);
        client
    }
}

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
fn an_epoch_never_goes_back_but_with_a_new_session() {
    let mut client = Client::parked();
    client.on(offer("8.0", "b"));
    client.on(offer("7.0", "b"));
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()));
    let told = Told { epoch: epoch("8.0"), moved: Some(epoch("7.1")) };
    let resume = Output::Resume { previd: "sm-1".into(), told: Some(told) };
    assert_eq!(client.on(moving("b")), [MUTE, resume, ANSWER], "the hand-over is named too");
    client.on(Input::Resumed);
    client.on(offer("8.0", "a"));
    assert_eq!(client.machine.told(), Some(epoch("8.0").into()), "it is not the last word any more");
    client.on(main_up("a", true));
    assert_eq!(client.machine.told(), None);
}
