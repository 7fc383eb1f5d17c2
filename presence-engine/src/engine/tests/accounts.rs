//! Another password, and removal: who is shown out, what contacts see, what becomes of what was on its way.

use bytes::Bytes;
use xmpp_core::jid::Jid;

use super::{A, B, Client, Duo, Input, NodeIx, Verifiers, bare, presences};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const ORCHARD: &str = "romeo@example.org/orchard";
const BALCONY: &str = "juliet@example.org/balcony";

/// Romeo at A and Juliet at B see each other; Juliet has a stream parked at A.
fn friends() -> (Duo, Client, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login(BALCONY);
    duo.befriend(romeo, juliet, [ROMEO, JULIET]);
    let parked = duo.open_at(JULIET, A);
    let id = duo.sm_id(BALCONY);
    duo.send(parked, &format!("<standby xmlns='urn:tandem:dual:0' sm-id='{id}'/>"));
    assert!(duo.got_one(parked).starts_with("<parked"));
    (duo, romeo, juliet, parked)
}

const SALT: &[u8] = b"new";

fn new_password() -> Verifiers {
    Verifiers { salt: Bytes::from_static(SALT), ..Verifiers::default() }
}

fn passwd(duo: &mut Duo, node: NodeIx, user: &str) {
    duo.input(node, Input::UserPasswd { user: bare(user), verifiers: new_password() });
}

fn remove(duo: &mut Duo, node: NodeIx, user: &str) {
    duo.input(node, Input::UserRemove { user: bare(user) });
}

#[test]
fn another_password_ends_every_stream_and_session_on_both_nodes() {
    let (mut duo, romeo, juliet, parked) = friends();
    let fresh = [duo.open_at(JULIET, A), duo.open_at(JULIET, B)];
    duo.send(romeo, "<message to='juliet@example.org' id='m' type='chat'><body>hi</body></message>");
    passwd(&mut duo, B, JULIET);
    for stream in [juliet, parked, fresh[0], fresh[1]] {
        let last = duo.closed(stream).unwrap_or_else(|| panic!("{stream:?} goes on"));
        assert!(last.contains("<reset ") && last.contains("password was changed"), "{last}");
    }
    assert!(duo.session(BALCONY).is_none(), "nobody resumes it");
    assert_eq!(presences(&duo.got(romeo)), ["unavailable juliet@example.org/balcony"]);
    assert_eq!(duo.state().user(&bare(JULIET)).unwrap().verifiers, new_password());
    assert!(duo.closed(romeo).is_none(), "nobody else is touched");
    let juliet = duo.open_with(JULIET, B, SALT);
    duo.send(juliet, BIND);
    duo.send(juliet, "<presence/>");
    assert!(duo.got(juliet).iter().any(|s| s.contains("<body>hi</body>")), "what waited was kept");
}

const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

#[test]
fn an_exchange_that_began_with_the_old_password_ends_too_late() {
    for node in NodeIx::BOTH {
        let (mut duo, ..) = friends();
        passwd(&mut duo, B, JULIET);
        let late = duo.open_at(JULIET, node);
        assert!(duo.closed(late).is_some_and(|last| last.contains("password was changed")), "at {node:?}");
        duo.send(late, BIND);
        assert_eq!(duo.raw(late), [""; 0]);
        let new = duo.open_with(JULIET, node, SALT);
        duo.send(new, BIND);
        assert!(duo.got_one(new).contains("type='result'"));
    }
}

#[test]
fn a_front_that_has_not_heard_of_the_new_password_does_not_help() {
    let (mut duo, ..) = friends();
    duo.hold(true);
    passwd(&mut duo, B, JULIET);
    // A lets the client in and asks B for its session, before it hears of the change.
    let late = duo.open_at(JULIET, A);
    assert!(duo.closed(late).is_none());
    duo.send(late, BIND);
    duo.hold(false);
    assert!(duo.closed(late).is_some_and(|last| last.contains("password was changed")));
    assert_eq!(duo.raw(late), [""; 0]);
    assert!(duo.state().user(&bare(JULIET)).unwrap().sessions.is_empty(), "nothing was bound");
}

#[test]
fn a_removed_account_is_gone_on_both_nodes_and_its_contacts_see_it_no_more() {
    let (mut duo, romeo, juliet, parked) = friends();
    let mercutio = duo.login("mercutio@example.org/inn");
    duo.send(mercutio, "<presence to='juliet@example.org' type='subscribe'/>");
    duo.got(mercutio);
    remove(&mut duo, B, JULIET);
    for stream in [juliet, parked] {
        let last = duo.closed(stream).unwrap_or_else(|| panic!("{stream:?} goes on"));
        assert!(last.contains("<not-authorized ") && last.contains("removed"), "{last}");
    }
    assert!(duo.state().user(&bare(JULIET)).is_none());
    let got = duo.got(romeo);
    let told = presences(&got);
    assert_eq!(
        told,
        [
            "unavailable juliet@example.org/balcony",
            "unsubscribed juliet@example.org",
            "unsubscribe juliet@example.org"
        ]
    );
    let roster = &duo.state().user(&bare(ROMEO)).unwrap().roster;
    let item = &roster.items[&bare(JULIET)];
    assert_eq!((item.subscription.attribute(), item.listed), ("none", true), "the name stays in the list");
    assert!(got.iter().any(|s| s.contains("subscription='none'")), "pushed: {got:?}");
    assert_eq!(presences(&duo.got(mercutio)), ["unsubscribed juliet@example.org"], "the request is answered");
    duo.send(romeo, "<message to='juliet@example.org' id='late' type='chat'><body>hi</body></message>");
    assert!(duo.got_one(romeo).contains("service-unavailable"));
    let late = duo.open_at(JULIET, B);
    duo.send(late, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(
        duo.closed(late).is_some_and(|last| last.contains("<not-authorized ")),
        "a login that was under way"
    );
    assert!(duo.state().user(&bare(JULIET)).is_none());
}

#[test]
fn what_is_on_its_way_to_an_account_that_is_removed_bounces() {
    for heir in [None, Some(B)] {
        let (mut duo, romeo, _, _) = friends();
        duo.hold(true);
        duo.send(
            romeo,
            "<message to='juliet@example.org' id='crossing' type='chat'><body>hi</body></message>",
        );
        duo.send(romeo, "<iq to='juliet@example.org/balcony' id='q' type='get'><x xmlns='y'/></iq>");
        remove(&mut duo, B, JULIET);
        duo.hold(false);
        if let Some(dead) = heir {
            duo.kill(dead);
        }
        let got = duo.got(romeo);
        let bounced = |id: &str| {
            got.iter().any(|s| s.contains(&format!("id='{id}'")) && s.contains("service-unavailable"))
        };
        assert!(bounced("crossing") && bounced("q"), "{got:?}");
        assert_eq!(duo.state().undone().count(), 0, "nothing waits for nobody");
    }
}

#[test]
fn the_heir_bounces_what_the_dead_node_did_not() {
    let (mut duo, romeo, _, _) = friends();
    duo.hold(true);
    remove(&mut duo, B, JULIET);
    duo.send(romeo, "<message to='juliet@example.org' id='crossing' type='chat'><body>hi</body></message>");
    duo.deliver(A);
    assert_eq!(duo.state().undone().filter(|(_, f)| f.to == Jid::parse(JULIET).unwrap()).count(), 1);
    duo.lose(B);
    duo.hold(false);
    let got = duo.got(romeo);
    assert!(got.iter().any(|s| s.contains("id='crossing'") && s.contains("service-unavailable")), "{got:?}");
    assert_eq!(duo.state().undone().count(), 0);
}

#[test]
fn only_the_owner_changes_an_account_and_a_name_can_be_given_again() {
    let (mut duo, _, juliet, _) = friends();
    passwd(&mut duo, A, JULIET);
    remove(&mut duo, A, JULIET);
    remove(&mut duo, B, "nobody@example.org");
    assert!(duo.closed(juliet).is_none() && duo.session(BALCONY).is_some());
    let id = duo.sm_id(BALCONY);
    remove(&mut duo, B, JULIET);
    duo.add(A, "juliet");
    let user = duo.state().user(&bare(JULIET)).unwrap();
    assert!(user.home == A && user.roster.items.is_empty() && user.offline.is_empty());
    let again = duo.open_at(JULIET, A);
    duo.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert!(duo.raw(again).concat().contains("item-not-found"), "the old session is nobody's");
}
