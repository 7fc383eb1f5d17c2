//! What a node does to see that it works.

use xmpp_core::jid::Jid;
use xmpp_core::stanza::Stanza;

use super::{A, Client, Duo};
use crate::engine::Input;
use crate::ids::Conn;
use crate::record::Record;

const PING: &str =
    "<iq xmlns='jabber:client' type='get' id='7' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";

fn stanza(text: &str) -> Stanza {
    Stanza::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_stanza_to_itself_comes_back_and_leaves_no_trace() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    duo.raw(romeo);
    let (records, before) = (duo.log.len(), duo.state().clone());
    let own = Client { conn: Conn { node: A, number: Conn::SELF } };
    duo.input(A, Input::Loop(stanza(PING)));
    let answer = duo.raw(own);
    assert_eq!(answer.len(), 1, "{answer:?}");
    let told = "type='result' id='7' from='example.org' to='example.org/self'";
    assert!(answer[0].contains(told), "{answer:?}");
    duo.input(A, Input::Loop(stanza(&PING.replace("urn:xmpp:ping", "urn:none"))));
    assert!(duo.raw(own)[0].contains("type='error'"), "what nobody answers is refused");
    assert_eq!((duo.log.len(), duo.state()), (records, &before));
    assert_eq!(duo.raw(romeo), Vec::<String>::new());
}

#[test]
fn nobody_else_reaches_the_servers_own_address_or_speaks_from_it() {
    let mut duo = Duo::new();
    let romeo = duo.login("romeo@example.org/orchard");
    duo.raw(romeo);
    let own = Client { conn: Conn { node: A, number: Conn::SELF } };
    let ping = PING.replace("'example.org'", "'example.org/self'");
    duo.send(romeo, &ping);
    assert!(duo.got_one(romeo).contains("type='error'"));
    duo.send(romeo, &PING.replace(" id=", " from='example.org/self' id="));
    assert!(duo.got_one(romeo).contains("to='romeo@example.org/orchard'"), "the sender is stamped");
    assert!(duo.raw(own).is_empty());
    let engine = duo.engines[0].as_ref().unwrap();
    let is_self = |text| engine.is_self(&Jid::parse(text).unwrap());
    assert!(is_self("example.org/self"));
    assert!(!is_self("romeo@example.org/self") && !is_self("example.org") && !is_self("example.net/self"));
}

#[test]
fn a_record_that_says_nothing_changes_nothing_and_is_written_by_whoever_leads() {
    let mut duo = Duo::new();
    let before = duo.state().clone();
    duo.input(A, Input::Nothing);
    assert!(duo.log.last().is_some_and(Record::says_nothing));
    assert_eq!(duo.state(), &before);
    let records = duo.log.len();
    duo.input(A, Input::Serving { group: A, on: false });
    duo.input(A, Input::Nothing);
    assert_eq!(duo.log.len(), records, "one that leads nothing writes nothing");
}
