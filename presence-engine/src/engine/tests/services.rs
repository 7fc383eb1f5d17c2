//! What the server answers itself: discovery, ping, version, time.

use super::{A, B, Client, Duo};
use crate::engine::disco::features;
use crate::engine::iq::{HANDLERS, Target};

const ORCHARD: &str = "romeo@example.org/orchard";

fn ask(duo: &mut Duo, client: Client, to: &str, payload: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    duo.send(client, &format!("<iq type='get' id='1'{to}>{payload}</iq>"));
    duo.got_one(client)
}

const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const ITEMS: &str = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";
const VERSION: &str = "<query xmlns='jabber:iq:version'/>";

#[test]
fn features_are_those_of_the_handlers_and_the_same_on_both_nodes() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    let body = |s: String| s.split_once("<query").unwrap().1.to_owned();
    let on_a = body(ask(&mut duo, romeo, "example.org", INFO));
    let on_b = body(ask(&mut duo, juliet, "example.org", INFO));
    assert_eq!(on_a, on_b);
    assert!(on_a.contains("<identity category='server' type='im' name='Tandem'/>"), "{on_a}");
    for feature in HANDLERS.iter().flat_map(|h| h.features) {
        assert!(on_a.contains(&format!("<feature var='{feature}'/>")), "{feature}: {on_a}");
    }
    let mut unique = features(Target::Server);
    unique.dedup();
    assert_eq!(unique, features(Target::Server), "sorted, and each once");
}

#[test]
fn every_feature_that_is_advertised_is_answered() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let own = ask(&mut duo, romeo, "", INFO);
    assert!(own.contains("<identity category='account' type='registered'/>"), "{own}");
    for (to, payload) in [
        ("", PING),
        ("romeo@example.org", PING),
        ("example.org", PING),
        ("example.org", VERSION),
        ("example.org", "<time xmlns='urn:xmpp:time'/>"),
        ("example.org", ITEMS),
        ("", ITEMS),
    ] {
        let answer = ask(&mut duo, romeo, to, payload);
        assert!(answer.contains("type='result' id='1'"), "{to} {payload}: {answer}");
    }
}

#[test]
fn the_version_tells_no_operating_system() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let answer = ask(&mut duo, romeo, "example.org", VERSION);
    assert!(answer.contains("<name>Tandem</name><version>") && !answer.contains("<os"), "{answer}");
}

#[test]
fn an_account_is_discovered_only_by_those_who_see_its_presence() {
    for other in ["juliet@example.org", "mercutio@example.org"] {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let friend = duo.login(&format!("{other}/balcony"));
        let strange = ask(&mut duo, romeo, other, INFO).replace(other, "X");
        let nobody = ask(&mut duo, romeo, "nobody@example.org", INFO).replace("nobody@example.org", "X");
        assert!(strange.contains("service-unavailable"));
        assert_eq!(strange, nobody, "no oracle");
        duo.befriend(romeo, friend, ["romeo@example.org", other]);
        assert!(ask(&mut duo, romeo, other, INFO).contains("type='registered'"));
        assert!(ask(&mut duo, romeo, other, PING).contains("service-unavailable"));
    }
}

#[test]
fn requests_that_are_none_get_errors() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    for (iq, error) in [
        ("<iq type='get' id='1'/>", "bad-request"),
        (
            "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/></iq>",
            "bad-request",
        ),
        ("<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='hello' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='set' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "service-unavailable"),
        ("<iq type='get' id='1'><x xmlns='urn:unknown'/></iq>", "service-unavailable"),
        (
            "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='x'/></iq>",
            "item-not-found",
        ),
        (
            "<iq type='get' id='1' to='juliet@example.org/away'><ping xmlns='urn:xmpp:ping'/></iq>",
            "service-unavailable",
        ),
        (
            "<iq type='get' id='1' to='x.example'><ping xmlns='urn:xmpp:ping'/></iq>",
            "remote-server-not-found",
        ),
    ] {
        duo.send(romeo, iq);
        let answer = duo.got_one(romeo);
        assert!(answer.contains(error), "{iq}: {answer}");
    }
    for silent in ["<iq type='result' id='1'/>", "<iq type='error' id='1'><error/></iq>"] {
        duo.send(romeo, silent);
        assert!(duo.got(romeo).is_empty());
    }
}

#[test]
fn a_request_between_clients_reaches_the_resource_on_either_node() {
    for node in [None, Some(B), Some(A)] {
        let mut duo = Duo::new();
        let mut romeo = duo.login(ORCHARD);
        let mut juliet = duo.login("juliet@example.org/balcony");
        if let Some(node) = node {
            let user = if node == A { "romeo@example.org/orchard" } else { "juliet@example.org/balcony" };
            let (id, sent) = (duo.sm_id(user), duo.session(user).unwrap().sent());
            duo.kill(node);
            let (client, _) = duo.resume(id, user.split('/').next().unwrap(), sent);
            *(if node == A { &mut romeo } else { &mut juliet }) = client;
        }
        duo.send(
            romeo,
            "<iq type='get' id='1' to='juliet@example.org/balcony'><ping xmlns='urn:xmpp:ping'/></iq>",
        );
        assert!(duo.got_one(juliet).contains("from='romeo@example.org/orchard'"));
        duo.send(juliet, "<iq type='result' id='1' to='romeo@example.org/orchard'/>");
        assert!(duo.got_one(romeo).contains("type='result'"));
    }
}
