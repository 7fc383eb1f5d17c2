//! Messages of the server to its own accounts.

use xmpp_core::stanza::Stanza;

use super::{A, B, Client, Duo};
use crate::engine::{Input, Limits, Notice, Unsent};
use crate::ids::{NodeIx, SmId, StanzaId};

/// Has the node tell somebody; what came of it.
fn tell(duo: &mut Duo, node: NodeIx, to: &str, event: u8) -> Result<(), Unsent> {
    let text = format!(
        "<message xmlns='jabber:client' from='example.org' to='{to}' id='e{event}'><body>event {event}</body></message>"
    );
    let stanza = Stanza::parse(text.as_bytes()).unwrap();
    let id = StanzaId { session: SmId([event; 16]), number: 1 };
    duo.input(node, Input::Notice(Box::new(Notice { number: event.into(), id, stanza })));
    let (number, taken) = duo.noticed.pop().expect("it is told what came of it");
    assert_eq!(number, event.into());
    taken
}

/// Has the other node tell it if this one cannot.
fn tell_by_either(duo: &mut Duo, node: NodeIx, to: &str, event: u8) -> Result<(), Unsent> {
    match tell(duo, node, to, event) {
        Err(Unsent::NotHere) => tell(duo, node.peer(), to, event),
        taken => taken,
    }
}

/// The bodies of all messages that came, with whether each was stored.
fn told(duo: &mut Duo, client: Client) -> Vec<(String, bool)> {
    let messages = duo.got(client).into_iter().filter(|text| text.starts_with("<message"));
    let body = |text: &str| text.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0.to_owned();
    messages
        .inspect(|text| assert!(text.contains("from='example.org'"), "{text}"))
        .map(|text| (body(&text), text.contains("urn:xmpp:delay")))
        .collect()
}

#[test]
fn either_node_tells_accounts_of_both_whether_they_are_there_or_come_later() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    for (event, node) in [(1, A), (2, B)] {
        assert_eq!(tell_by_either(&mut duo, node, "romeo@example.org", event), Ok(()));
        assert_eq!(told(&mut duo, romeo), [(format!("event {event}"), false)]);
        assert_eq!(tell_by_either(&mut duo, node, "juliet@example.org", event), Ok(()));
    }
    // It is in the records of both nodes: either may be lost.
    duo.kill(B);
    let juliet = duo.login_raw("juliet@example.org/balcony");
    assert_eq!(told(&mut duo, juliet), [("event 1".to_owned(), true), ("event 2".to_owned(), true)]);
}

#[test]
fn a_message_that_is_tried_again_is_kept_once_and_nobody_answers_the_server() {
    let mut duo = Duo::new();
    for _ in 0..3 {
        assert_eq!(tell(&mut duo, A, "romeo@example.org", 1), Ok(()));
    }
    let records = duo.log.len();
    assert_eq!(tell(&mut duo, A, "nobody@example.org", 2), Err(Unsent::NoAccount));
    assert_eq!(duo.log.len(), records);
    let romeo = duo.login_raw("romeo@example.org/orchard");
    assert_eq!(told(&mut duo, romeo), [("event 1".to_owned(), true)]);
    // Whoever answers gets an error, and that is all.
    duo.send(romeo, "<message to='example.org'><body>why?</body></message>");
    assert!(duo.got_one(romeo).contains("type='error'"));
    duo.send(romeo, "<message to='example.org' type='error'/>");
    assert!(duo.got(romeo).is_empty());
}

#[test]
fn half_of_what_may_be_stored_is_left_to_people() {
    let mut duo = Duo::with(Limits { offline_messages: 4, ..Limits::DEFAULT });
    let results: Vec<_> = (1..=3).map(|event| tell(&mut duo, A, "romeo@example.org", event)).collect();
    assert_eq!(results, [Ok(()), Ok(()), Err(Unsent::Full)]);
    assert_eq!(
        tell(&mut duo, B, "romeo@example.org", 3),
        Err(Unsent::NotHere),
        "who leads the account decides"
    );
    let mercutio = duo.login("mercutio@example.org/street");
    duo.send(mercutio, "<message to='romeo@example.org'><body>hi</body></message>");
    assert!(duo.got(mercutio).is_empty(), "there is room for people");
    let romeo = duo.login_raw("romeo@example.org/orchard");
    assert_eq!(told_bodies(&mut duo, romeo), ["event 1", "event 2", "hi"]);
    assert_eq!(tell(&mut duo, A, "romeo@example.org", 4), Ok(()), "somebody takes it");
}

fn told_bodies(duo: &mut Duo, client: Client) -> Vec<String> {
    let got = duo.got(client).into_iter().filter(|text| text.starts_with("<message"));
    got.map(|text| text.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0.to_owned()).collect()
}

#[test]
fn a_node_that_writes_nothing_says_so() {
    let mut duo = Duo::new();
    duo.input(A, Input::Serving { group: A, on: false });
    assert_eq!(tell(&mut duo, A, "romeo@example.org", 1), Err(Unsent::NotHere));
}

#[test]
fn what_is_tried_again_at_the_node_that_took_over_is_kept_once() {
    let mut duo = Duo::new();
    assert_eq!(tell(&mut duo, A, "juliet@example.org", 1), Err(Unsent::NotHere));
    assert_eq!(tell(&mut duo, B, "juliet@example.org", 1), Ok(()));
    duo.kill(B);
    assert_eq!(tell(&mut duo, A, "juliet@example.org", 1), Ok(()));
    let juliet = duo.login_raw("juliet@example.org/balcony");
    assert_eq!(told(&mut duo, juliet), [("event 1".to_owned(), true)]);
}
