//! What is given to a stream without stream management, and is not let go before the stream ends (D1).

use super::{A, B, Client, Duo};
use crate::state::MOST_DUE;

const ORCHARD: &str = "romeo@example.org/orchard";
const BALCONY: &str = "juliet@example.org/balcony";
const HALL: &str = "juliet@example.org/hall";
const JULIET: &str = "juliet@example.org";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn say(duo: &mut Duo, romeo: Client, to: &str, body: &str) {
    duo.send(romeo, &format!("<message to='{to}' id='{body}' type='chat'><body>{body}</body></message>"));
}

fn bodies(got: &[String]) -> Vec<String> {
    got.iter().filter_map(|s| Some(s.split("<body>").nth(1)?.split('<').next()?.to_owned())).collect()
}

/// Romeo, and Juliet without stream management; she has one message, and the next waits at her node.
fn one_waits() -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let (romeo, juliet) = (duo.login(ORCHARD), duo.bind(BALCONY));
    duo.send(juliet, "<presence/>");
    say(&mut duo, romeo, BALCONY, "released");
    assert_eq!(bodies(&duo.got(juliet)), ["released"]);
    duo.stick(B);
    say(&mut duo, romeo, BALCONY, "waits");
    (duo, romeo, juliet)
}

fn next_login(duo: &mut Duo, full: &str) -> Vec<String> {
    let juliet = duo.login_raw(full);
    bodies(&duo.got(juliet))
}

#[test]
fn what_waits_when_the_stream_ends_is_stored_and_what_was_let_go_is_not() {
    for clean in [false, true] {
        let (mut duo, _, juliet) = one_waits();
        if clean {
            duo.close(juliet);
        } else {
            duo.drop_tcp(juliet);
        }
        duo.let_go(B);
        let juliet = duo.login_raw(BALCONY);
        assert_eq!(bodies(&duo.got(juliet)), ["waits"]);
        duo.ack(juliet, BALCONY);
        assert_eq!(next_login(&mut duo, BALCONY), [""; 0], "once");
    }
}

#[test]
fn what_waits_when_the_state_is_built_anew_is_stored() {
    let (mut duo, ..) = one_waits();
    duo.rebuild(B);
    assert_eq!(next_login(&mut duo, BALCONY), ["waits"]);
}

#[test]
fn what_waited_before_stream_management_was_enabled_outlives_the_node() {
    let (mut duo, romeo, juliet) = one_waits();
    duo.send(juliet, ENABLE);
    say(&mut duo, romeo, BALCONY, "counts");
    duo.kill(B);
    assert_eq!(next_login(&mut duo, BALCONY), ["waits", "counts"], "in order, without what was let go");
}

#[test]
fn the_same_when_the_state_is_built_anew() {
    let (mut duo, _, juliet) = one_waits();
    duo.send(juliet, ENABLE);
    duo.rebuild(B);
    assert_eq!(next_login(&mut duo, BALCONY), ["waits"]);
}

#[test]
fn the_same_when_the_session_was_never_resumed() {
    let (mut duo, _, juliet) = one_waits();
    duo.send(juliet, ENABLE);
    duo.drop_tcp(juliet);
    duo.let_go(B);
    duo.after(301_000);
    assert!(duo.session(BALCONY).is_none());
    assert_eq!(next_login(&mut duo, BALCONY), ["waits"]);
}

#[test]
fn who_resumes_has_what_came_before_the_enabling() {
    let (mut duo, _, juliet) = one_waits();
    duo.send(juliet, ENABLE);
    // The client heard of the enabling, or it could not name its session.
    duo.let_go(B);
    let id = duo.sm_id(BALCONY);
    duo.kill(B);
    let (juliet, got) = duo.resume(id, JULIET, 0);
    assert_eq!(bodies(&got), [""; 0]);
    duo.close(juliet);
    assert_eq!(next_login(&mut duo, BALCONY), [""; 0]);
}

#[test]
fn who_counts_has_what_came_before_the_enabling() {
    let (mut duo, _, juliet) = one_waits();
    duo.send(juliet, ENABLE);
    duo.let_go(B);
    let all = duo.all(juliet);
    assert_eq!(bodies(&all), ["waits"]);
    assert!(all.last().is_some_and(|last| last.starts_with("<r ")), "it is asked: {all:?}");
    duo.send(juliet, "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert!(duo.session(BALCONY).unwrap().early.is_empty());
    duo.drop_tcp(juliet);
    duo.kill(B);
    assert_eq!(next_login(&mut duo, BALCONY), [""; 0]);
}

#[test]
fn what_was_let_go_is_dropped_within_a_second() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (duo.login(ORCHARD), duo.bind(BALCONY));
    say(&mut duo, romeo, BALCONY, "1");
    assert_eq!(duo.session(BALCONY).unwrap().early.iter().count(), 1);
    duo.after(1_000);
    assert!(duo.session(BALCONY).unwrap().early.is_empty(), "on both nodes");
    assert_eq!(bodies(&duo.got(juliet)), ["1"]);
}

#[test]
fn with_two_devices_each_gets_it_once() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let (hall, balcony) = (duo.login(HALL), duo.bind(BALCONY));
    duo.send(balcony, "<presence/>");
    duo.got(hall);
    duo.stick(B);
    say(&mut duo, romeo, JULIET, "both");
    duo.drop_tcp(balcony);
    duo.let_go(B);
    let queue = &duo.state().user(&super::bare(JULIET)).unwrap().offline;
    assert_eq!(queue.iter().map(|m| m.open).collect::<Vec<_>>(), [false], "the hall has it in its queue");
    duo.ack(hall, HALL);
    assert_eq!(next_login(&mut duo, BALCONY), ["both"]);
}

#[test]
fn the_same_with_a_client_whose_socket_the_other_node_has() {
    let ends: [fn(&mut Duo, Client); 4] = [
        Duo::close,
        Duo::drop_tcp,
        // Her front cannot know what got lost on the way, and ends her stream; it tells the owner all that it still has.
        |duo, _| {
            duo.cut_link();
            duo.mend_link();
            duo.settle();
        },
        // Her front is not heard any more.
        |duo, _| {
            duo.cut_link();
            duo.after(6_000);
            duo.mend_link();
            duo.settle();
        },
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let (juliet, answer) = duo.ask_at(A, BALCONY);
        assert!(answer.contains("type='result'"), "{answer}");
        duo.send(juliet, "<presence/>");
        say(&mut duo, romeo, BALCONY, "released");
        assert_eq!(bodies(&duo.got(juliet)), ["released"]);
        duo.stick(B);
        say(&mut duo, romeo, BALCONY, "waits");
        assert_eq!(bodies(&duo.got(juliet)), [""; 0]);
        end(&mut duo, juliet);
        duo.let_go(B);
        let juliet = duo.login_raw(BALCONY);
        assert_eq!(bodies(&duo.got(juliet)), ["waits"], "end {n}");
        duo.ack(juliet, BALCONY);
        assert_eq!(next_login(&mut duo, BALCONY), [""; 0], "once, after end {n}");
    }
}

#[test]
fn what_another_device_has_seen_is_given_back_for_this_one_alone() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let (hall, balcony) = (duo.login(HALL), duo.bind(BALCONY));
    duo.send(balcony, "<presence/>");
    duo.got(hall);
    duo.stick(B);
    say(&mut duo, romeo, JULIET, "both");
    duo.ack(hall, HALL);
    duo.drop_tcp(balcony);
    duo.let_go(B);
    let queue = &duo.state().user(&super::bare(JULIET)).unwrap().offline;
    assert_eq!(queue.iter().map(|m| m.open).collect::<Vec<_>>(), [false], "the hall has seen it");
    assert_eq!(next_login(&mut duo, "juliet@example.org/garden"), [""; 0]);
    assert_eq!(next_login(&mut duo, BALCONY), ["both"]);
}

/// What waits when another device ends first is in storage for that one already, given to this one once more if it is
/// available, and with stream management in its queue, too.
#[test]
fn what_waits_for_another_device_too_comes_to_each_once() {
    for (away, counts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let (hall, balcony) = (duo.login(HALL), duo.bind(BALCONY));
        duo.send(balcony, "<presence/>");
        duo.got(hall);
        duo.stick(B);
        say(&mut duo, romeo, JULIET, "both");
        if counts {
            duo.send(balcony, ENABLE);
        }
        if away {
            duo.send(balcony, "<presence type='unavailable'/>");
        }
        duo.close(hall);
        let queue = &duo.state().user(&super::bare(JULIET)).unwrap().offline;
        assert_eq!(queue.iter().map(|m| m.open).collect::<Vec<_>>(), [away], "for the hall");
        duo.close(balcony);
        duo.let_go(B);
        assert_eq!(next_login(&mut duo, BALCONY), ["both"], "away: {away}, counts: {counts}");
        assert_eq!(next_login(&mut duo, HALL), ["both"], "away: {away}, counts: {counts}");
        assert!(duo.state().user(&super::bare(JULIET)).unwrap().offline.is_empty());
    }
}

#[test]
fn what_others_have_does_not_fill_the_store_and_what_nobody_has_is_stored() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let (hall, garden) = (duo.login(HALL), duo.login("juliet@example.org/garden"));
    for number in 0..=MOST_DUE {
        say(&mut duo, romeo, JULIET, &number.to_string());
    }
    duo.ack(hall, HALL);
    duo.close(garden);
    let waits = |duo: &Duo| duo.state().user(&super::bare(JULIET)).unwrap().offline.len();
    assert_eq!(waits(&duo), MOST_DUE);
    for beside in [true, false] {
        if !beside {
            duo.close(hall);
        }
        let balcony = duo.bind(BALCONY);
        duo.send(balcony, "<presence/>");
        duo.stick(B);
        say(&mut duo, romeo, JULIET, "waits");
        if beside {
            duo.ack(hall, HALL);
        }
        duo.drop_tcp(balcony);
        duo.let_go(B);
        assert_eq!(waits(&duo), MOST_DUE + usize::from(!beside), "the hall has it: {beside}");
    }
}
