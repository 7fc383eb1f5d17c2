//! Roster management (RFC 6121 2).

use super::{A, Client, Duo, Limits, bare, presences};

const ROMEO: &str = "romeo@example.org";
const ORCHARD: &str = "romeo@example.org/orchard";

fn set(duo: &mut Duo, client: Client, item: &str) -> Vec<String> {
    duo.send(client, &format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
    duo.got(client)
}

fn get(duo: &mut Duo, client: Client, ver: &str) -> String {
    duo.send(client, &format!("<iq type='get' id='g'><query xmlns='jabber:iq:roster' ver='{ver}'/></iq>"));
    duo.got_one(client)
}

fn version(stanza: &str) -> String {
    stanza.split(" ver='").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

#[test]
fn a_set_is_pushed_to_interested_resources_from_the_bare_jid_with_an_id() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let interested = duo.login("romeo@example.org/home");
    let other = duo.bind("romeo@example.org/clock");
    duo.send(other, "<presence/>");
    [romeo, interested, other].into_iter().for_each(|c| drop(duo.got(c)));
    let got = set(
        &mut duo,
        romeo,
        "<item jid='juliet@example.org' name='J &amp; co'><group>Friends</group><group>Verona</group></item>",
    );
    assert_eq!(got.len(), 2, "push and result: {got:?}");
    let push = duo.got_one(interested);
    assert!(push.contains("type='set' id='push-") && push.contains("from='romeo@example.org'"), "{push}");
    let item = "<item jid='juliet@example.org' name='J &amp; co' subscription='none'>\
                <group>Friends</group><group>Verona</group></item>";
    assert!(push.contains(item), "{push}");
    assert!(duo.got(other).is_empty(), "never asked for the roster");
    assert!(get(&mut duo, other, "").contains(item));
    duo.send(interested, "<iq type='result' id='push-1' to='romeo@example.org'/>");
    assert!(duo.got(interested).is_empty(), "the answer to a push is nobody's");
}

#[test]
fn versions_name_one_roster_on_either_node_and_after_a_failover() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let first = version(&get(&mut duo, romeo, ""));
    // Two changes in one frame have two versions: a client that saw only the first must not be told "unchanged".
    duo.batch(
        romeo,
        &[
            "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='a@example.org'/></query></iq>",
            "<iq type='set' id='2'><query xmlns='jabber:iq:roster'><item jid='b@example.org'/></query></iq>",
        ],
    );
    let pushes: Vec<String> =
        duo.got(romeo).iter().filter(|s| s.contains("push-")).map(|s| version(s)).collect();
    assert_eq!(pushes.len(), 2);
    assert!(pushes[0] != pushes[1] && pushes[0] != first);
    assert!(get(&mut duo, romeo, &pushes[0]).contains("b@example.org"));
    let unchanged = "<iq xmlns='jabber:client' type='result' id='g' to='romeo@example.org/orchard'/>";
    assert_eq!(get(&mut duo, romeo, &pushes[1]), unchanged);
    let id = duo.sm_id(ORCHARD);
    let sent = duo.session(ORCHARD).unwrap().sent();
    duo.kill(A);
    let (romeo, _) = duo.resume(id, ROMEO, sent);
    assert_eq!(get(&mut duo, romeo, &pushes[1]), unchanged, "the same version on the other node");
    assert!(
        set(&mut duo, romeo, "<item jid='c@example.org'/>").iter().any(|s| s.contains("push-")),
        "interested still"
    );
    let last = version(&get(&mut duo, romeo, &pushes[1]));
    assert!(!pushes.contains(&last) && last != first);
}

#[test]
fn a_request_that_nobody_sees_in_the_roster_is_no_new_version() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let before = version(&get(&mut duo, romeo, ""));
    let juliet = duo.login("juliet@example.org/balcony");
    duo.send(juliet, "<presence to='romeo@example.org' type='subscribe'/>");
    assert!(duo.got_one(romeo).contains("subscribe"));
    assert_eq!(get(&mut duo, romeo, &before).matches("item").count(), 0);
}

#[test]
fn removing_a_contact_ends_both_subscriptions() {
    for other in ["juliet@example.org", "mercutio@example.org"] {
        let mut duo = Duo::new();
        let romeo = duo.login(ORCHARD);
        let friend = duo.login(&format!("{other}/balcony"));
        duo.befriend(romeo, friend, [ROMEO, other]);
        let got = set(&mut duo, romeo, &format!("<item jid='{other}' subscription='remove'/>"));
        assert!(got.iter().any(|s| s.contains("subscription='remove'") && s.contains("push-")), "{got:?}");
        assert_eq!(presences(&got), [format!("unavailable {other}/balcony")]);
        let told = duo.got(friend);
        assert_eq!(
            presences(&told),
            [
                "unavailable romeo@example.org/orchard".to_owned(),
                format!("unsubscribed {ROMEO}"),
                format!("unsubscribe {ROMEO}")
            ]
        );
        let friends = &duo.state().user(&bare(other)).unwrap().roster.items[&bare(ROMEO)];
        assert_eq!(friends.subscription.attribute(), "none");
        assert!(duo.state().user(&bare(ROMEO)).unwrap().roster.items.is_empty());
        let again = set(&mut duo, romeo, &format!("<item jid='{other}' subscription='remove'/>"));
        assert!(again[0].contains("item-not-found"), "{again:?}");
    }
}

#[test]
fn a_set_keeps_the_subscription_whatever_the_client_says() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let got = set(
        &mut duo,
        romeo,
        "<item jid='juliet@example.org' subscription='both' ask='subscribe' approved='true'/>",
    );
    assert!(
        got.iter().any(|s| s.contains("<item jid='juliet@example.org' subscription='none'/>")),
        "{got:?}"
    );
}

#[test]
fn what_a_roster_set_may_not_say() {
    let mut duo = Duo::with(Limits { roster_items: 2, roster_groups: 2, ..Limits::DEFAULT });
    let romeo = duo.login(ORCHARD);
    let long = "x".repeat(1_024);
    for (item, error) in [
        (String::new(), "bad-request"),
        ("<item jid='a@b'/><item jid='c@d'/>".into(), "bad-request"),
        ("<item/>".into(), "bad-request"),
        ("<item jid='a@'/>".into(), "bad-request"),
        ("<item jid='a@b'><group>x</group><group>x</group></item>".into(), "bad-request"),
        ("<item jid='a@b'><group/></item>".into(), "not-acceptable"),
        (format!("<item jid='a@b'><group>{long}</group></item>"), "not-acceptable"),
        (format!("<item jid='a@b' name='{long}'/>"), "not-acceptable"),
        ("<item jid='a@b'><group>1</group><group>2</group><group>3</group></item>".into(), "not-acceptable"),
        ("<item jid='nobody@b' subscription='remove'/>".into(), "item-not-found"),
        ("<item jid='romeo@example.org'/>".into(), "not-allowed"),
    ] {
        let got = set(&mut duo, romeo, &item);
        assert!(got.len() == 1 && got[0].contains(error), "{item}: {got:?}");
    }
    assert!(duo.state().user(&bare(ROMEO)).unwrap().roster.items.is_empty());
    for item in ["<item jid='a@b'/>", "<item jid='c@d'/>"] {
        assert_eq!(set(&mut duo, romeo, item).len(), 2);
    }
    assert!(set(&mut duo, romeo, "<item jid='e@f'/>")[0].contains("resource-constraint"));
    assert_eq!(set(&mut duo, romeo, "<item jid='a@b' name='known'/>").len(), 2, "a change is no new item");
    // Subscriptions are bound by the same limit.
    duo.send(romeo, "<presence to='juliet@example.org' type='subscribe' id='1'/>");
    assert!(duo.got_one(romeo).contains("resource-constraint"));
}

#[test]
fn the_roster_of_somebody_else_is_closed() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    for to in ["juliet@example.org", "mercutio@example.org", "nobody@example.org", "example.org"] {
        for (type_, item) in [("get", ""), ("set", "<item jid='x@y'/>")] {
            duo.send(
                romeo,
                &format!(
                    "<iq type='{type_}' id='1' to='{to}'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
                ),
            );
            assert!(duo.got_one(romeo).contains("service-unavailable"), "{to}");
        }
    }
}

#[test]
fn s19_no_client_can_push_a_roster_item_to_another() {
    let mut duo = Duo::new();
    let romeo = duo.login(ORCHARD);
    let juliet = duo.login("juliet@example.org/balcony");
    let own = duo.login("juliet@example.org/hall");
    duo.got(juliet);
    for sender in [romeo, own] {
        for (type_, before) in [("set", ""), ("get", ""), ("set", "<x xmlns='y'/>"), ("result", "")] {
            duo.send(
                sender,
                &format!(
                    "<iq type='{type_}' id='1' to='juliet@example.org/balcony' from='juliet@example.org'>{before}\
                     <query xmlns='jabber:iq:roster'><item jid='evil@example.org'/></query></iq>"
                ),
            );
            duo.got(sender);
            assert!(duo.got(juliet).is_empty(), "{type_}");
        }
    }
}
