//! Messages of XMPP from the server's domain to accounts of its own (RFC 6121 5): kept on both nodes like any message, for
//! whoever is there and for who comes later.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::xml::write::Writer;

use super::task::{Deliver, Failure};
use super::template::{Sender, Template};
use super::text::{clean, cut};
use crate::admin::BoxFuture;
use crate::events::Record;

/// Longest subject in bytes.
const SUBJECT_BYTES: usize = 250;
/// Longest text in bytes.
const BODY_BYTES: usize = 8_192;

/// A message of the server to one of its accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names it for ever: what is posted twice under one name arrives once.
    pub name: [u8; 16],
    /// The account.
    pub to: BareJid,
    /// The stanza.
    pub stanza: String,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unposted {
    /// There is no such account.
    NoAccount,
    /// Not now, for this reason.
    NotNow(String),
}

/// What takes messages for the server's own accounts: the node.
pub trait Post: Send + Sync {
    /// Ends well when the message is safe.
    fn post(&self, message: Message) -> BoxFuture<'_, Result<(), Unposted>>;
    /// Whether it is known that there is no such account.
    fn misses(&self, account: &BareJid) -> bool;
}

/// One account that is told.
pub(super) struct Xmpp {
    /// Place of its `[[notify]]`: another one may tell the same account of the same event in other words.
    pub number: usize,
    pub to: BareJid,
    pub subject: Template,
    pub body: Template,
    pub sender: Sender,
    pub post: Arc<dyn Post>,
}

impl Deliver for Xmpp {
    async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
        let message = self.message(record);
        self.post.post(message).await.map_err(|why| match why {
            Unposted::NoAccount => Failure::refused("there is no such account"),
            Unposted::NotNow(why) => Failure::again(why),
        })
    }
}

impl Xmpp {
    /// The same event gives the same message under the same name.
    fn message(&self, record: &Record) -> Message {
        let id = record.id();
        let subject = clean(&self.subject.fill(record, &self.sender));
        let body = lines(&self.body.fill(record, &self.sender));
        let mut w = Writer::new();
        w.open("message", ns::CLIENT).attr("from", &self.sender.domain).attr("to", &self.to);
        w.attr("id", format!("tandem-{id}"));
        w.open("subject", "").text(cut(&subject, SUBJECT_BYTES)).close();
        w.open("body", "").text(cut(&body, BODY_BYTES)).close();
        let stanza = String::from_utf8_lossy(&w.finish()).into_owned();
        let names = digest(&SHA256, format!("{} {id} {}", self.number, record.at_ms).as_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&names.as_ref()[..16]);
        Message { name, to: self.to.clone(), stanza }
    }
}

/// What no XML holds becomes a space; lines stay.
fn lines(text: &str) -> String {
    let cleaned: Vec<String> = text.lines().map(clean).collect();
    cleaned.join("\n").trim_end().replace(['\u{fffe}', '\u{ffff}'], " ")
}

#[cfg(test)]
mod tests {
    use xmpp_core::stanza::Stanza;

    use super::super::tests::{record, sender};
    use super::*;

    struct Nowhere;

    impl Post for Nowhere {
        fn post(&self, _: Message) -> BoxFuture<'_, Result<(), Unposted>> {
            Box::pin(async { Err(Unposted::NoAccount) })
        }

        fn misses(&self, _: &BareJid) -> bool {
            true
        }
    }

    fn message(number: usize, body: &str, record: &Record) -> Message {
        let way = Xmpp {
            number,
            to: BareJid::parse("admin@im.example").unwrap(),
            subject: Template::parse("{severity}: {event}").unwrap(),
            body: Template::parse(body).unwrap(),
            sender: sender(),
            post: Arc::new(Nowhere),
        };
        way.message(record)
    }

    #[test]
    fn a_message_is_a_sound_stanza_whatever_the_event_says() {
        let sly = Record { text: "a </body>&\u{1}\u{ffff}\nb".into(), ..record() };
        let message = message(1, "{text}\nnext\u{2}line", &sly);
        let stanza = Stanza::parse(message.stanza.as_bytes()).unwrap();
        let (from, to) = (stanza.head.from.clone().unwrap(), stanza.head.to.clone().unwrap());
        assert_eq!((from.as_str(), to.as_str()), ("im.example", "admin@im.example"));
        let text = |name| stanza.child(ns::CLIENT, name).unwrap().text.clone();
        assert_eq!(text("subject"), "critical: failover-complete");
        assert_eq!(text("body"), "a </body>&   b\nnext line");
        assert_eq!((stanza.head.type_, stanza.head.id.as_deref()), (None, Some("tandem-a-17")));
    }

    #[test]
    fn one_event_has_one_name_for_each_table() {
        let name = |number, record: &Record| message(number, "{text}", record).name;
        assert_eq!(name(1, &record()), name(1, &record()));
        assert_ne!(name(1, &record()), name(2, &record()));
        assert_ne!(name(1, &record()), name(1, &Record { number: 18, ..record() }));
    }
}
