//! Addresses: what is prepared once stays as it is, its parts are what they may be, and all ways to read it agree.
//!
//! Input: a text. Where it has line feeds, the lines are also taken as local part, domain and resource.

use xmpp_core::jid::{BareJid, FullJid, Jid, JidError, PART_BYTES};
use xmpp_core::stanza::Stanza;
use xmpp_core::xml::Writer;

pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(jid) = Jid::parse(&text) {
        check(&jid);
        other_spelling(&text, &jid);
    }
    let mut lines = text.splitn(3, '\n');
    let (local, domain) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (local, resource) = (Some(local).filter(|l| !l.is_empty()), lines.next());
    if let Ok(jid) = Jid::new(local, domain, resource) {
        check(&jid);
    }
    if let Ok(account) = BareJid::new(Some("romeo"), "example.org") {
        let full = account.with_resource(&text);
        assert_eq!(full, Jid::new(Some("romeo"), "example.org", Some(&text)).and_then(FullJid::try_from));
        full.iter().for_each(|full| check(full));
    }
}

fn check(jid: &Jid) {
    let text = jid.as_str();
    assert_eq!(Jid::parse(text).as_ref(), Ok(jid), "prepared, and not as it stays");
    assert_eq!(Jid::new(jid.local(), jid.domain(), jid.resource()).as_ref(), Ok(jid));
    let parts = [jid.local().unwrap_or("x"), jid.domain(), jid.resource().unwrap_or("x")];
    assert!(parts.iter().all(|part| (1..=PART_BYTES).contains(&part.len())), "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    if let Some(local) = jid.local() {
        assert!(!local.contains(['"', '&', '\'', '/', ':', '<', '>', '@', ' ']), "{local:?}");
    }
    assert!(!jid.domain().contains(['@', '/', ' ', '<', '&', '\'', '"']), "{text:?}");
    assert!(jid.domain().parse::<std::net::Ipv6Addr>().is_err(), "an address without its brackets");

    let bare = jid.to_bare();
    assert_eq!((bare.local(), bare.domain(), bare.resource()), (jid.local(), jid.domain(), None));
    assert!(jid.same_bare(&bare) && jid.is_bare() == jid.resource().is_none());
    match (jid.resource(), jid.to_full()) {
        (Some(resource), Some(full)) => {
            assert_eq!(bare.with_resource(resource).as_ref(), Ok(&full));
            assert_eq!(full.resource_str(), resource);
            assert_eq!(BareJid::parse(text), Err(JidError::WrongKind));
        }
        (None, None) => assert_eq!(FullJid::parse(text), Err(JidError::WrongKind)),
        other => panic!("a full JID or none: {other:?}"),
    }
    let json = serde_json::to_string(jid).expect("a JID is a string");
    assert_eq!(serde_json::from_str::<Jid>(&json).ok().as_ref(), Some(jid));

    let mut w = Writer::new();
    w.open("message", "").attr("to", jid).close();
    let stanza = Stanza::from_bytes(w.finish()).expect("a JID can be written");
    assert_eq!(stanza.head.to.as_ref(), Some(jid), "another address after it was written");
}

/// Names are compared without regard to case (RFC 7622 3.2, 3.3).
fn other_spelling(text: &str, jid: &Jid) {
    let bare_len = text.find('/').unwrap_or(text.len());
    let (bare, resource) = text.split_at(bare_len);
    let shouted = bare.to_ascii_uppercase() + resource;
    assert_eq!(Jid::parse(&shouted).as_ref(), Ok(jid), "{shouted:?}");
}
