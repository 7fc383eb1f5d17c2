//! Subscription handshakes (RFC 6121 3), every cell of appendix A with both users on one node and on two.

use bytes::Bytes;

use super::{A, B, Client, Duo, Limits, bare, presences};
use crate::ids::SmId;
use crate::record::{Effect, Record};
use crate::state::{Item, Place};
use crate::subscription::{Ask, Direction, Subscription, step};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const MERCUTIO: &str = "mercutio@example.org";

impl Duo {
    /// Puts a roster item into the state of both nodes.
    pub(super) fn put(&mut self, user: &str, contact: &str, subscription: Subscription) {
        let request = match subscription.pending_in() {
            true => Bytes::from(format!("<presence type='subscribe' from='{contact}' to='{user}'/>")),
            false => Bytes::new(),
        };
        let listed = subscription != Subscription::NoneIn;
        let item = Some(Item { subscription, listed, request, ..Item::default() });
        let (user, contact) = (bare(user), bare(contact));
        let effects = vec![Effect::Roster { user, contact, item, version: None }];
        let record = Record::Lapse { session: SmId::default(), effects };
        for engine in self.engines.iter_mut().flatten() {
            let mut place = Place { log: A, at: Default::default(), forwards: 0 };
            engine.state.apply(&mut place, &record);
        }
    }

    pub(super) fn subscription(&self, user: &str, contact: &str) -> Subscription {
        self.state().user(&bare(user)).unwrap().roster.subscription(&bare(contact))
    }

    fn asks(&mut self, client: Client, ask: Ask, to: &str) {
        self.send(client, &format!("<presence to='{to}' type='{}'/>", ask.name()));
    }
}

fn online(other: &str) -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let friend = duo.login(&format!("{other}/balcony"));
    (duo, romeo, friend)
}

#[test]
fn every_outbound_cell_changes_the_state_and_is_routed_as_the_table_says() {
    for other in [JULIET, MERCUTIO] {
        for ask in Ask::ALL {
            for state in Subscription::ALL {
                let at = format!("{state:?} {ask:?} to {other}");
                let cell = step(Direction::Outbound, ask, state);
                let (mut duo, romeo, friend) = online(other);
                duo.put(ROMEO, other, state);
                // A contact in a state in which everything is delivered or answered, to see what arrives.
                let contact = if ask == Ask::Subscribed { Subscription::NoneOut } else { Subscription::None };
                let contact = match ask {
                    Ask::Unsubscribe => Subscription::From,
                    Ask::Unsubscribed => Subscription::To,
                    _ => contact,
                };
                duo.put(other, ROMEO, contact);
                duo.asks(romeo, ask, other);
                assert_eq!(duo.subscription(ROMEO, other), cell.next, "{at}");
                let arrived = presences(&duo.got(friend));
                let routed = arrived.contains(&format!("{} {ROMEO}", ask.name()));
                assert_eq!(routed, cell.pass, "{at}: {arrived:?}");
                let shown = arrived.contains(&"+ romeo@example.org/orchard".to_owned());
                assert_eq!(shown, !state.is_seen() && cell.next.is_seen(), "{at}: {arrived:?}");
                let hidden = arrived.contains(&"unavailable romeo@example.org/orchard".to_owned());
                assert_eq!(hidden, state.is_seen() && !cell.next.is_seen(), "{at}: {arrived:?}");
                let pushes = duo.got(romeo).iter().filter(|s| s.contains("jabber:iq:roster")).count();
                // What a client can see of a state: requests of the contact are not in the roster (RFC 6121 3.1.3).
                let look = |s: Subscription| (s != Subscription::NoneIn, s.attribute(), s.pending_out());
                let kept = cell.next != Subscription::None || state != Subscription::NoneIn;
                let visible = (kept && look(cell.next) != look(state))
                    || (ask == Ask::Subscribed && !cell.pass && !state.is_seen());
                assert_eq!(pushes == 1, visible, "{at}: {pushes} pushes");
            }
        }
    }
}

#[test]
fn every_inbound_cell_changes_the_state_and_is_delivered_as_the_table_says() {
    for other in [JULIET, MERCUTIO] {
        for ask in Ask::ALL {
            for state in Subscription::ALL {
                let at = format!("{state:?} {ask:?} from {other}");
                let cell = step(Direction::Inbound, ask, state);
                let (mut duo, romeo, friend) = online(other);
                duo.put(ROMEO, other, state);
                let sender = match ask {
                    Ask::Subscribe => Subscription::None,
                    Ask::Unsubscribe => Subscription::To,
                    Ask::Subscribed => Subscription::NoneIn,
                    Ask::Unsubscribed => Subscription::From,
                };
                duo.put(other, ROMEO, sender);
                duo.asks(friend, ask, ROMEO);
                assert_eq!(duo.subscription(ROMEO, other), cell.next, "{at}");
                let arrived = presences(&duo.got(romeo));
                assert_eq!(
                    arrived.contains(&format!("{} {other}", ask.name())),
                    cell.pass,
                    "{at}: {arrived:?}"
                );
                let answers = presences(&duo.got(friend));
                let granted = ask == Ask::Subscribe && state.is_seen();
                assert_eq!(answers.contains(&format!("subscribed {ROMEO}")), granted, "{at}: {answers:?}");
                let hidden = answers.contains(&"unavailable romeo@example.org/orchard".to_owned());
                assert_eq!(hidden, state.is_seen() && !cell.next.is_seen(), "{at}: {answers:?}");
            }
        }
    }
}

#[test]
fn a_request_is_told_at_each_login_until_it_is_answered() {
    for other in [JULIET, MERCUTIO] {
        let mut duo = Duo::new();
        let friend = duo.login(&format!("{other}/balcony"));
        duo.send(
            friend,
            "<presence to='romeo@example.org/x' type='subscribe'><status>me!</status></presence>",
        );
        for node in [None, Some(B)] {
            if let (Some(node), JULIET) = (node, other) {
                duo.kill(node);
            }
            let romeo = duo.bind("romeo@example.org/orchard");
            duo.send(romeo, "<presence/>");
            let got = duo.got(romeo);
            let request = got.iter().find(|s| s.contains("subscribe")).unwrap();
            let whom = format!("from='{other}' to='romeo@example.org'");
            assert!(request.contains("me!") && request.contains(&whom), "{request}");
            assert!(
                !duo.state().user(&bare(ROMEO)).unwrap().roster.listed().any(|_| true),
                "not in the roster"
            );
            duo.close(romeo);
        }
        let romeo = duo.login("romeo@example.org/orchard");
        duo.send(romeo, &format!("<presence to='{other}' type='unsubscribed'/>"));
        duo.close(romeo);
        let romeo = duo.bind("romeo@example.org/orchard");
        duo.send(romeo, "<presence/>");
        assert_eq!(presences(&duo.got(romeo)), ["+ romeo@example.org/orchard"]);
    }
}

#[test]
fn requests_that_cross_leave_both_with_both() {
    let (mut duo, romeo, juliet) = online(JULIET);
    duo.hold(true);
    duo.asks(romeo, Ask::Subscribe, JULIET);
    duo.asks(juliet, Ask::Subscribe, ROMEO);
    duo.settle();
    assert_eq!(duo.subscription(ROMEO, JULIET), Subscription::NoneOutIn);
    assert_eq!(duo.subscription(JULIET, ROMEO), Subscription::NoneOutIn);
    duo.asks(romeo, Ask::Subscribed, JULIET);
    duo.asks(juliet, Ask::Subscribed, ROMEO);
    duo.hold(false);
    assert_eq!(duo.subscription(ROMEO, JULIET), Subscription::Both);
    assert_eq!(duo.subscription(JULIET, ROMEO), Subscription::Both);
    duo.got(romeo);
    duo.send(juliet, "<presence><show>away</show></presence>");
    assert_eq!(presences(&duo.got(romeo)), ["+ juliet@example.org/balcony"]);
}

#[test]
fn consent_that_crosses_its_withdrawal_ends_where_both_agree() {
    let (mut duo, romeo, juliet) = online(JULIET);
    duo.asks(romeo, Ask::Subscribe, JULIET);
    duo.hold(true);
    duo.asks(juliet, Ask::Subscribed, ROMEO);
    duo.asks(romeo, Ask::Unsubscribe, JULIET);
    duo.hold(false);
    assert_eq!(duo.subscription(ROMEO, JULIET), Subscription::None);
    assert_eq!(duo.subscription(JULIET, ROMEO), Subscription::None);
    duo.got(romeo);
    duo.send(juliet, "<presence><show>away</show></presence>");
    assert!(duo.got(romeo).is_empty());
}

#[test]
fn a_handshake_survives_the_death_of_either_node_at_each_step() {
    for dead in [A, B] {
        for step in 0..3 {
            let (mut duo, romeo, juliet) = online(JULIET);
            let [mut romeo, mut juliet] = [romeo, juliet];
            let ids = [duo.sm_id("romeo@example.org/orchard"), duo.sm_id("juliet@example.org/balcony")];
            let mut at = 0;
            let mut maybe_die = |duo: &mut Duo, romeo: &mut Client, juliet: &mut Client| {
                if at == step {
                    duo.lose(dead);
                    duo.hold(false);
                    if dead == A {
                        let h = duo.session("romeo@example.org/orchard").unwrap().acked;
                        *romeo = duo.resume(ids[0], ROMEO, h).0;
                    } else {
                        let h = duo.session("juliet@example.org/balcony").unwrap().acked;
                        *juliet = duo.resume(ids[1], JULIET, h).0;
                    }
                }
                at += 1;
                duo.hold(false);
            };
            duo.hold(true);
            duo.asks(romeo, Ask::Subscribe, JULIET);
            maybe_die(&mut duo, &mut romeo, &mut juliet);
            duo.hold(true);
            duo.asks(juliet, Ask::Subscribed, ROMEO);
            maybe_die(&mut duo, &mut romeo, &mut juliet);
            duo.got(romeo);
            duo.hold(true);
            duo.send(juliet, "<presence><show>away</show></presence>");
            maybe_die(&mut duo, &mut romeo, &mut juliet);
            let lost = [Subscription::None, Subscription::NoneOut, Subscription::NoneIn];
            let (one, two) = (duo.subscription(ROMEO, JULIET), duo.subscription(JULIET, ROMEO));
            // What had not left the node that died is as if it never was said; the two sides agree all the same.
            let agree = one.sees() == two.is_seen() && one.pending_out() == two.pending_in();
            assert!(agree, "{dead:?} dies at {step}: {one:?} {two:?}");
            assert!(one == Subscription::To || lost.contains(&one), "{dead:?} dies at {step}: {one:?}");
        }
    }
}

#[test]
fn approval_in_advance_answers_the_request_without_asking() {
    for other in [JULIET, MERCUTIO] {
        let (mut duo, romeo, friend) = online(other);
        duo.asks(romeo, Ask::Subscribed, other);
        assert!(duo.got_one(romeo).contains("approved='true'"));
        assert!(duo.got(friend).is_empty(), "nobody asked: nothing is said");
        duo.asks(friend, Ask::Subscribe, ROMEO);
        let got = presences(&duo.got(friend));
        assert_eq!(got, [format!("subscribed {ROMEO}"), "+ romeo@example.org/orchard".into()]);
        assert!(presences(&duo.got(romeo)).is_empty(), "not shown");
        assert_eq!(duo.subscription(ROMEO, other), Subscription::From);
        duo.asks(romeo, Ask::Unsubscribed, other);
        duo.asks(friend, Ask::Subscribe, ROMEO);
        assert_eq!(duo.subscription(ROMEO, other), Subscription::NoneIn, "withdrawn, so it is asked");
    }
}

#[test]
fn a_request_to_nobody_waits_for_ever_and_tells_nothing() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    duo.asks(romeo, Ask::Subscribe, "nobody@example.org");
    assert!(duo.got_one(romeo).contains("ask='subscribe'"));
    duo.asks(romeo, Ask::Subscribe, "x@elsewhere.example");
    assert!(duo.got_one(romeo).contains("remote-server-not-found"));
    duo.asks(romeo, Ask::Subscribe, ROMEO);
    assert!(duo.got_one(romeo).contains("not-allowed"));
    duo.send(romeo, "<presence type='subscribe' id='1'/>");
    assert!(duo.got_one(romeo).contains("bad-request"));
}

#[test]
fn consent_for_oneself_cannot_be_forged() {
    // S18, S19: a stanger says that Juliet granted something, and that he is in Romeo's roster.
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    let nurse = duo.login("nurse@example.org/kitchen");
    duo.send(nurse, "<presence to='romeo@example.org' from='juliet@example.org' type='subscribed'/>");
    duo.send(nurse, "<presence to='romeo@example.org' type='subscribed'/>");
    duo.send(nurse, "<presence to='romeo@example.org' type='unsubscribed'/>");
    assert!(duo.got(romeo).is_empty());
    assert!(duo.state().user(&bare(ROMEO)).unwrap().roster.items.is_empty());
}

#[test]
fn strangers_that_ask_do_not_fill_the_roster() {
    let mut duo = Duo::with(Limits { requests: 1, roster_items: 1, request_bytes: 200, ..Limits::DEFAULT });
    let romeo = duo.login("romeo@example.org/orchard");
    let [nurse, juliet] = ["nurse@example.org/x", "juliet@example.org/x"].map(|full| duo.login(full));
    let long = "x".repeat(300);
    duo.send(
        nurse,
        &format!("<presence to='romeo@example.org' type='subscribe'><status>{long}</status></presence>"),
    );
    let request = duo.got_one(romeo);
    assert!(
        request.contains("type='subscribe'") && !request.contains("xxx"),
        "cut to what matters: {request}"
    );
    duo.send(juliet, "<presence to='romeo@example.org' type='subscribe'/>");
    assert!(duo.got(romeo).is_empty(), "one may wait at a time");
    assert_eq!(presences(&duo.got(juliet)), ["unsubscribed romeo@example.org"]);
    duo.asks(romeo, Ask::Subscribe, JULIET);
    assert_eq!(duo.subscription(ROMEO, JULIET), Subscription::NoneOut, "the roster has room all the same");
    duo.asks(romeo, Ask::Subscribed, "nurse@example.org");
    assert!(duo.got(romeo).iter().any(|s| s.contains("resource-constraint")), "and is full now");
}

#[test]
fn presence_that_crosses_the_end_of_a_subscription_is_not_shown() {
    let (mut duo, romeo, juliet) = online(JULIET);
    duo.befriend(romeo, juliet, [ROMEO, JULIET]);
    duo.hold(true);
    duo.asks(juliet, Ask::Unsubscribe, ROMEO);
    duo.send(romeo, "<presence><show>away</show></presence>");
    duo.hold(false);
    let told = presences(&duo.got(juliet));
    assert!(!told.contains(&"+ romeo@example.org/orchard".to_owned()), "{told:?}");
    assert!(told.contains(&"unavailable romeo@example.org/orchard".to_owned()), "{told:?}");
}
