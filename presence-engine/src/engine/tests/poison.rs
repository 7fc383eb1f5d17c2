//! Inputs that were being handled when nodes crashed (D15).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use xmpp_core::stanza::Stanza;

use super::{A, B, Client, Duo, Input, NodeIx, presences};
use crate::engine::{Print, Trap};

const ORCHARD: &str = "romeo@example.org/orchard";
const BALCONY: &str = "juliet@example.org/balcony";
const POISON: &str = "<message to='juliet@example.org/balcony' id='m' type='chat'><body>x</body></message>";

fn two() -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login(BALCONY);
    duo.befriend(romeo, juliet, ["romeo@example.org", "juliet@example.org"]);
    (duo, romeo, juliet)
}

/// Both nodes know of so many crashes in which this was being handled.
fn crashed(duo: &mut Duo, print: Print, times: u32) {
    for node in NodeIx::BOTH {
        let engine = duo.engines[node.index()].as_mut().unwrap();
        engine.set_crashes(BTreeMap::from([(print, times)]));
    }
}

fn print_of(duo: &Duo, client: Client, xml: &str) -> Print {
    let stanza = Stanza::parse(xml.as_bytes()).unwrap();
    let engine = duo.engines[client.conn.node.index()].as_ref().unwrap();
    engine.prints(&[Input::Element { conn: client.conn, stanza }], &[])[0]
}

#[test]
fn an_element_that_was_there_at_two_crashes_ends_its_session_and_nothing_else() {
    let (mut duo, romeo, juliet) = two();
    let print = print_of(&duo, romeo, POISON);
    crashed(&mut duo, print, 1);
    duo.send(romeo, POISON);
    assert_eq!(duo.got(juliet).len(), 1, "once may be chance");
    crashed(&mut duo, print, 2);
    let inbound = duo.session(ORCHARD).unwrap().h().0;
    duo.all(romeo);
    duo.send(romeo, POISON);
    assert_eq!(duo.all(romeo), [format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", inbound + 1)]);
    assert!(duo.closed(romeo).is_some_and(|last| last.contains("<internal-server-error ")));
    assert!(duo.session(ORCHARD).is_none());
    assert_eq!(presences(&duo.got(juliet)), ["unavailable romeo@example.org/orchard"]);
    let again = duo.login(ORCHARD);
    duo.send(again, &POISON.replace("'m'", "'n'"));
    assert_eq!(
        duo.got(juliet).iter().filter(|s| s.contains("id='n'")).count(),
        1,
        "another element is handled"
    );
}

#[test]
fn it_does_not_help_to_send_it_through_the_other_node_or_in_another_session() {
    let (mut duo, romeo, juliet) = two();
    let print = print_of(&duo, romeo, POISON);
    crashed(&mut duo, print, 2);
    let front = duo.login_at(B, "romeo@example.org/inn");
    duo.got(juliet);
    duo.send(front, POISON);
    assert!(duo.closed(front).is_some_and(|last| last.contains("<internal-server-error ")));
    assert!(duo.closed(romeo).is_none(), "the user's other session goes on");
    assert_eq!(duo.got(juliet).iter().filter(|s| s.contains("<body>")).count(), 0);
}

#[test]
fn a_login_that_was_there_at_two_crashes_is_refused() {
    let (mut duo, ..) = two();
    let fresh = duo.open_at("romeo@example.org", A);
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let print = print_of(&duo, fresh, bind);
    crashed(&mut duo, print, 2);
    duo.send(fresh, bind);
    assert!(duo.closed(fresh).is_some_and(|last| last.contains("<internal-server-error ")));
}

#[test]
fn a_forward_that_was_there_at_two_crashes_is_done_and_its_sender_told_unless_that_is_what_crashes() {
    for (times, answers) in [(1, 0), (2, 1), (3, 0)] {
        let (mut duo, romeo, juliet) = two();
        duo.hold(true);
        duo.send(romeo, POISON);
        let id = duo.engines[0].as_ref().unwrap().state().undone().next().unwrap().0;
        let print = duo.engines[0].as_ref().unwrap().prints(&[], &[id])[0];
        crashed(&mut duo, print, times);
        duo.hold(false);
        let got = duo.got(romeo);
        assert_eq!(got.iter().filter(|s| s.contains("<internal-server-error ")).count(), answers, "{got:?}");
        assert_eq!(duo.got(juliet).len(), usize::from(times == 1));
        assert_eq!(duo.state().undone().count(), 0, "it is done");
        assert!(duo.closed(romeo).is_none());
    }
}

#[test]
fn whoever_is_left_after_a_panic_knows_what_was_being_handled() {
    for trap in [Trap::Element("<body>".into()), Trap::Forward("<body>".into())] {
        let (mut duo, romeo, _) = two();
        let element = print_of(&duo, romeo, POISON);
        let victim = if matches!(trap, Trap::Element(_)) { A } else { B };
        let engine = duo.engines[victim.index()].as_mut().unwrap();
        engine.cfg.trap = Some(trap.clone());
        let now = engine.being_handled();
        let fate = catch_unwind(AssertUnwindSafe(|| duo.send(romeo, POISON)));
        assert!(fate.is_err());
        let wanted = match trap {
            Trap::Element(_) => element,
            Trap::Forward(_) => {
                let engine = duo.engines[0].as_ref().unwrap();
                let id = engine.state().undone().next().unwrap().0;
                engine.prints(&[], &[id])[0]
            }
        };
        assert_eq!(now.load(Ordering::Relaxed), wanted.0, "{trap:?}");
    }
    let (mut duo, romeo, _) = two();
    duo.send(romeo, POISON);
    for engine in duo.engines.iter().flatten() {
        assert_eq!(engine.being_handled().load(Ordering::Relaxed), 0, "nothing is, between turns");
    }
}

#[test]
fn what_waits_for_a_decision_is_among_what_the_deciding_turn_handles() {
    let (mut duo, romeo, _) = two();
    duo.input(A, Input::Serving { group: A, on: false });
    duo.send(romeo, POISON);
    let engine = duo.engines[0].as_ref().unwrap();
    let prints = engine.prints(&[Input::Serving { group: A, on: true }], &[]);
    assert_eq!(prints, [print_of(&duo, romeo, POISON)]);
    assert_eq!(engine.prints(&[Input::Tick], &[]), []);
}
