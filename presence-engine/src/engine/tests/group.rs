//! High availability on and off, and users with another home, as clients see it.

use super::*;
use crate::state::GroupInfo;

const ROMEO: &str = "romeo@example.org/orchard";
const JULIET: &str = "juliet@example.org/balcony";
const HA_OFF: &str = "<failed xmlns='urn:tandem:dual:0'><ha-disabled/></failed>";

fn ha(duo: &mut Duo, node: NodeIx, number: u64, ha: bool) {
    duo.input(node, Input::Group(GroupInfo { number, by: node, ha, ..GroupInfo::default() }));
}

fn assign(duo: &mut Duo, node: NodeIx, user: &str, home: Option<NodeIx>) {
    duo.input(node, Input::Assign { user: bare(user), home });
}

fn say(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat'><body>{body}</body></message>")
}

/// A session with its parked stream.
fn parked(duo: &mut Duo) -> (Client, Client) {
    let romeo = duo.login(ROMEO);
    duo.ack(romeo, ROMEO);
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    assert!(duo.got(romeo).concat().contains("<offer"));
    let second = duo.open_at("romeo@example.org", B);
    let standby = format!("<standby xmlns='urn:tandem:dual:0' sm-id='{}'/>", duo.sm_id(ROMEO));
    duo.send(second, &standby);
    assert!(duo.got_one(second).contains("<parked"));
    (romeo, second)
}

#[test]
fn without_high_availability_there_are_no_standby_connections() {
    let mut duo = Duo::new();
    let (romeo, second) = parked(&mut duo);
    // Asked of the other node: what its log says holds here too.
    ha(&mut duo, B, 1, false);
    assert_eq!(duo.got(romeo), [HA_OFF]);
    assert!(duo.closed(second).is_some_and(|end| end.contains("high availability was disabled")));
    duo.send(romeo, "<request xmlns='urn:tandem:dual:0'/>");
    assert_eq!(duo.got(romeo), [HA_OFF]);
    let third = duo.open_at("romeo@example.org", B);
    let standby = format!("<standby xmlns='urn:tandem:dual:0' sm-id='{}'/>", duo.sm_id(ROMEO));
    duo.send(third, &standby);
    assert_eq!(duo.got_one(third), HA_OFF);
    // An older word changes nothing; the next does, and the client is told unasked.
    ha(&mut duo, A, 1, true);
    assert!(!duo.got(romeo).concat().contains("<failed"));
    ha(&mut duo, B, 2, false);
    ha(&mut duo, A, 3, true);
    assert!(duo.got(romeo).concat().contains("<offer"), "there is one again");
    duo.send(third, &standby);
    assert!(duo.got_one(third).contains("<parked"));
}

#[test]
fn a_user_with_another_home_goes_on_there() {
    let mut duo = Duo::new();
    let (romeo, juliet) = (duo.login(ROMEO), duo.login(JULIET));
    duo.ack(romeo, ROMEO);
    assign(&mut duo, A, "romeo@example.org", Some(B));
    let user = duo.state().user(&bare("romeo@example.org")).unwrap();
    assert_eq!((user.home, user.register, user.assigned), (B, B, true));
    duo.send(juliet, &say(ROMEO, "to the new home"));
    assert!(duo.got(romeo).concat().contains("to the new home"), "the old node is its front");
    duo.send(romeo, &say(JULIET, "from there"));
    assert!(duo.got(juliet).concat().contains("from there"));
    // The owner gives it back; nobody else can.
    assign(&mut duo, A, "romeo@example.org", Some(A));
    assert_eq!(duo.state().user(&bare("romeo@example.org")).unwrap().home, B);
    assign(&mut duo, B, "romeo@example.org", Some(A));
    assert_eq!(duo.state().user(&bare("romeo@example.org")).unwrap().register, A);
    duo.send(juliet, &say(ROMEO, "and back"));
    assert!(duo.got(romeo).concat().contains("and back"));
}

#[test]
fn nobody_logs_in_as_a_user_that_is_not_assigned() {
    let mut duo = Duo::new();
    let (_, second) = parked(&mut duo);
    let juliet = duo.login(JULIET);
    let romeo = duo.login_at(B, "romeo@example.org/phone");
    assign(&mut duo, A, "romeo@example.org", None);
    for stream in [romeo, second] {
        let end = duo.closed(stream).unwrap_or_default().to_owned();
        assert!(end.contains("policy-violation") && end.contains("not assigned"), "{end}");
    }
    assert_eq!(duo.state().sessions().filter(|(_, s)| s.user == bare("romeo@example.org")).count(), 0);
    for node in NodeIx::BOTH {
        let again = duo.open_at("romeo@example.org", node);
        duo.send(again, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        assert!(duo.closed(again).is_some_and(|end| end.contains("not assigned")), "at {node:?}");
    }
    duo.send(juliet, &say("romeo@example.org", "later"));
    assign(&mut duo, A, "romeo@example.org", Some(B));
    let romeo = duo.open_at("romeo@example.org", B);
    duo.send(romeo, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    duo.send(romeo, "<presence/>");
    assert!(duo.all(romeo).concat().contains("later"), "what came meanwhile waits");
}
