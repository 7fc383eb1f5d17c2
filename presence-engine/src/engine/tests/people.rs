//! Presence (RFC 6121 4): broadcast, probes, directed, priorities.

use super::{Client, Duo, Limits, presences};

const ROMEO: &str = "romeo@example.org";
const JULIET: &str = "juliet@example.org";
const MERCUTIO: &str = "mercutio@example.org";
const ORCHARD: &str = "romeo@example.org/orchard";

/// Romeo and a friend who see each other; the friend lives on the same node (Mercutio) or on the other (Juliet).
fn friends(other: &str) -> (Duo, Client, Client) {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let friend = duo.login(&format!("{other}/balcony"));
    duo.befriend(romeo, friend, [ROMEO, other]);
    (duo, romeo, friend)
}

#[test]
fn a_subscriber_sees_initial_presence_change_and_unavailable_once_each() {
    for other in [JULIET, MERCUTIO] {
        let (mut duo, romeo, friend) = friends(other);
        duo.send(romeo, "<presence><show>away</show></presence>");
        let shown = duo.got_one(friend);
        assert!(shown.contains("<show>away</show>") && shown.contains(&format!("to='{other}'")), "{shown}");
        duo.send(romeo, "<presence type='unavailable'><status>gone</status></presence>");
        let shown = duo.got_one(friend);
        assert!(shown.contains("unavailable") && shown.contains("gone"), "{shown}");
        duo.close(romeo);
        assert!(duo.got(friend).is_empty(), "unavailable already");
        let romeo = duo.bind_sm(ORCHARD);
        assert!(duo.got(friend).is_empty(), "bound is not available");
        duo.send(romeo, "<presence/>");
        assert_eq!(presences(&duo.got(friend)), ["+ romeo@example.org/orchard"]);
        assert!(presences(&duo.got(romeo)).contains(&format!("+ {other}/balcony")), "probed");
    }
}

#[test]
fn who_becomes_available_is_told_of_contacts_and_own_resources_that_are_available() {
    let (mut duo, _romeo, juliet) = friends(JULIET);
    duo.send(juliet, "<presence><show>dnd</show><priority>-3</priority></presence>");
    let second = duo.bind("romeo@example.org/home");
    duo.send(second, "<presence/>");
    let got = duo.got(second);
    assert_eq!(
        presences(&got),
        ["+ romeo@example.org/home", "+ juliet@example.org/balcony", "+ romeo@example.org/orchard"]
    );
    assert!(got[1].contains("<show>dnd</show>"), "{got:?}");
    duo.send(second, "<presence><show>xa</show></presence>");
    assert_eq!(presences(&duo.got(second)), ["+ romeo@example.org/home"], "no second probe");
}

#[test]
fn nobody_sees_more_than_their_subscription() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    // Juliet sees Romeo; he does not see her.
    duo.send(juliet, "<presence to='romeo@example.org' type='subscribe'/>");
    duo.send(romeo, "<presence to='juliet@example.org' type='subscribed'/>");
    assert_eq!(presences(&duo.got(juliet)).last().unwrap(), "+ romeo@example.org/orchard");
    duo.got(romeo);
    duo.send(juliet, "<presence><show>away</show></presence>");
    assert!(duo.got(romeo).is_empty());
    duo.send(romeo, "<presence to='juliet@example.org' type='probe'/>");
    assert!(duo.got(romeo).is_empty(), "a probe tells nothing to those who may not know");
    duo.got(juliet);
    duo.send(juliet, "<presence to='romeo@example.org' type='probe'/>");
    assert_eq!(presences(&duo.got(juliet)), ["+ romeo@example.org/orchard"]);
    duo.send(romeo, "<presence to='juliet@example.org' type='unsubscribed'/>");
    assert_eq!(
        presences(&duo.got(juliet)),
        ["unavailable romeo@example.org/orchard", "unsubscribed romeo@example.org"]
    );
    duo.send(romeo, "<presence><show>chat</show></presence>");
    assert!(duo.got(juliet).is_empty());
}

#[test]
fn a_session_that_ends_without_unavailable_is_announced_once() {
    for other in [JULIET, MERCUTIO] {
        let (mut duo, romeo, friend) = friends(other);
        duo.close(romeo);
        assert_eq!(presences(&duo.got(friend)), ["unavailable romeo@example.org/orchard"]);
        let plain = duo.bind(ORCHARD);
        duo.send(plain, "<presence/>");
        duo.got(friend);
        duo.drop_tcp(plain);
        assert_eq!(
            presences(&duo.got(friend)),
            ["unavailable romeo@example.org/orchard"],
            "without stream management a lost stream is the end (D14)"
        );
    }
}

#[test]
fn directed_presence_is_taken_back_when_the_session_ends() {
    for nurse in ["nurse@example.org", MERCUTIO] {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let friend = duo.login(&format!("{nurse}/kitchen"));
        let other = duo.login(&format!("{nurse}/hall"));
        duo.got(friend);
        duo.send(romeo, &format!("<presence to='{nurse}/kitchen'><status>psst</status></presence>"));
        let shown = duo.got_one(friend);
        assert!(shown.contains("psst") && shown.contains("from='romeo@example.org/orchard'"), "{shown}");
        assert!(duo.got(other).is_empty());
        duo.send(romeo, "<presence><show>away</show></presence>");
        assert!(duo.got(friend).is_empty(), "a broadcast is for subscribers");
        duo.close(romeo);
        assert_eq!(presences(&duo.got(friend)), ["unavailable romeo@example.org/orchard"]);
        assert!(duo.got(other).is_empty());
    }
}

#[test]
fn directed_presence_that_was_taken_back_is_not_taken_back_again() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let nurse = duo.login("nurse@example.org/kitchen");
    duo.send(romeo, "<presence to='nurse@example.org'/>");
    duo.send(romeo, "<presence to='nurse@example.org' type='unavailable'/>");
    assert_eq!(presences(&duo.got(nurse)).len(), 2);
    duo.close(romeo);
    assert!(duo.got(nurse).is_empty());
}

#[test]
fn a_negative_priority_gets_presence_and_no_messages_to_the_account() {
    let (mut duo, romeo, juliet) = friends(JULIET);
    duo.send(juliet, "<presence><priority>-1</priority></presence>");
    duo.got(juliet);
    duo.got(romeo);
    duo.send(romeo, "<message to='juliet@example.org' type='chat'><body>hi</body></message>");
    assert!(duo.got(juliet).is_empty(), "stored");
    duo.send(romeo, "<presence><show>away</show></presence>");
    assert_eq!(presences(&duo.got(juliet)), ["+ romeo@example.org/orchard"]);
    duo.send(juliet, "<presence><priority>0</priority></presence>");
    let got = duo.got(juliet);
    assert!(got.last().unwrap().contains("<body>hi</body>"), "{got:?}");
    assert!(got.last().unwrap().contains("urn:xmpp:delay"), "{got:?}");
}

#[test]
fn presence_of_an_unknown_type_is_an_error_and_no_broadcast() {
    let (mut duo, romeo, juliet) = friends(JULIET);
    let long = "x".repeat(20_000);
    duo.send(romeo, &format!("<presence id='1'><status>{long}</status></presence>"));
    assert!(duo.got_one(romeo).contains("policy-violation"));
    duo.send(romeo, "<presence type='hello' id='1'/>");
    assert!(duo.got_one(romeo).contains("bad-request"));
    assert!(duo.got(juliet).is_empty());
}

#[test]
fn s28_presence_that_is_not_acknowledged_has_its_own_bound() {
    let mut duo = Duo::with(Limits { queue_gaps: 10, ..Limits::DEFAULT });
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    duo.befriend(romeo, juliet, [ROMEO, JULIET]);
    duo.ack(juliet, "juliet@example.org/balcony");
    let sent = duo.session("juliet@example.org/balcony").unwrap().sent();
    assert_eq!(duo.session("juliet@example.org/balcony").unwrap().acked, sent);
    for n in 0..10 {
        duo.ack(romeo, ORCHARD);
        duo.send(romeo, &format!("<presence><status>{n}</status></presence>"));
    }
    assert!(duo.closed(juliet).is_none());
    duo.send(romeo, "<presence/>");
    assert!(duo.closed(juliet).unwrap().contains("resource-constraint"));
    duo.ack(romeo, ORCHARD);
    assert!(presences(&duo.got(romeo)).contains(&"unavailable juliet@example.org/balcony".to_owned()));
    // Who lost the stream misses each full JID once, however often it changes.
    let juliet = duo.login("juliet@example.org/balcony");
    duo.ack(juliet, "juliet@example.org/balcony");
    duo.drop_tcp(juliet);
    for n in 0..30 {
        duo.ack(romeo, ORCHARD);
        duo.send(romeo, &format!("<presence><status>{n}</status></presence>"));
    }
    assert_eq!(duo.session("juliet@example.org/balcony").unwrap().missed.len(), 1);
}
