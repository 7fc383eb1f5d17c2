//! Stream management (XEP-0198 1.6): the counter, and the elements.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use compact_str::CompactString;

use crate::dual::{self, Epoch, Told};
use crate::error::{StanzaCondition, StreamCondition, StreamError};
use crate::ns;
use crate::stanza::Stanza;
use crate::xml::Writer;

/// How many stanzas were handled on a stream, modulo 2^32 (XEP-0198 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handled(pub u32);

impl Handled {
    /// The count after one more stanza.
    #[must_use]
    pub fn next(self) -> Handled {
        Handled(self.0.wrapping_add(1))
    }

    /// The count after `n` more stanzas.
    #[must_use]
    pub fn plus(self, n: u32) -> Handled {
        Handled(self.0.wrapping_add(n))
    }

    /// How many stanzas were handled since `base`. Only meaningful if `self` is not before `base`.
    pub fn distance_from(self, base: Handled) -> u32 {
        self.0.wrapping_sub(base.0)
    }

    /// Whether `self` counts more than `other`: serial numbers, right as long as they are less than 2^31 apart.
    pub fn is_after(self, other: Handled) -> bool {
        let distance = self.distance_from(other);
        distance != 0 && distance < 1 << 31
    }

    /// Whether `self` lies in `low ..= high`, going upwards from `low`.
    pub fn is_within(self, low: Handled, high: Handled) -> bool {
        self.distance_from(low) <= high.distance_from(low)
    }
}

impl fmt::Display for Handled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The stream feature.
pub const FEATURE: &str = "<sm xmlns='urn:xmpp:sm:3'/>";

const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

/// The elements of XEP-0198, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sm {
    /// Client: turn it on.
    Enable {
        /// Whether resumption is wanted.
        resume: bool,
        /// Longest time that is wanted between loss and resumption, in seconds.
        max_s: Option<u32>,
    },
    /// Server: it is on.
    Enabled {
        /// The SM-ID, at most 4000 bytes; `None` without resumption.
        id: Option<CompactString>,
        /// How long the session is kept after a loss, in seconds.
        max_s: Option<u32>,
        /// Where to reconnect to, `host:port`.
        location: Option<CompactString>,
    },
    /// Either: how much have you handled?
    Request,
    /// Either: this much.
    Answer {
        /// The count.
        h: Handled,
    },
    /// Client: go on with that session.
    Resume {
        /// Its SM-ID.
        previd: CompactString,
        /// How much the client has handled.
        h: Handled,
        /// What was told on the main stream (dual connection); `None` from a plain client.
        told: Option<Told>,
    },
    /// Server: that session goes on.
    Resumed {
        /// Its SM-ID.
        previd: CompactString,
        /// How much the server has handled.
        h: Handled,
    },
    /// Server: it could not be enabled or resumed.
    Failed {
        /// Why.
        condition: StanzaCondition,
        /// How much the server had handled, if it still knows.
        h: Option<Handled>,
    },
}

impl Sm {
    /// Reads an element; `Ok(None)` if it is not of this namespace, `bad-format` if it is and makes no sense.
    pub fn parse(stanza: &Stanza) -> Result<Option<Sm>, StreamError> {
        if stanza.head.ns != ns::SM {
            return Ok(None);
        }
        let bad = || StreamError::new(StreamCondition::BadFormat).with_text("stream management element");
        let handled = || number(stanza, "h").map(Handled);
        let previd = || stanza.attr("previd").ok_or_else(bad);
        Ok(Some(match stanza.head.name.as_str() {
            "enable" => Sm::Enable { resume: truth(stanza, "resume"), max_s: number(stanza, "max") },
            "enabled" => Sm::Enabled {
                id: stanza.attr("id").filter(|_| truth(stanza, "resume")),
                max_s: number(stanza, "max"),
                location: stanza.attr("location"),
            },
            "r" => Sm::Request,
            "a" => Sm::Answer { h: handled().ok_or_else(bad)? },
            "resume" => Sm::Resume {
                previd: previd()?,
                h: handled().ok_or_else(bad)?,
                told: epoch(stanza, "epoch").map(|told| Told {
                    epoch: told,
                    moved: epoch(stanza, "moved"),
                    attempt: stanza.attr_ns(dual::NS, "try").and_then(|n| n.parse().ok()),
                }),
            },
            "resumed" => Sm::Resumed { previd: previd()?, h: handled().ok_or_else(bad)? },
            "failed" => Sm::Failed {
                condition: (stanza.head.children.iter())
                    .filter(|c| c.ns == ns::STANZA_ERRORS)
                    .find_map(|c| StanzaCondition::parse(&c.name))
                    .unwrap_or(StanzaCondition::UndefinedCondition),
                h: handled(),
            },
            _ => return Err(bad()),
        }))
    }

    /// The element as it is sent.
    pub fn to_bytes(&self) -> Bytes {
        // Sent with every few stanzas.
        if *self == Sm::Request {
            return Bytes::from_static(REQUEST);
        }
        let mut w = Writer::new();
        match self {
            Sm::Enable { resume, max_s } => {
                w.open("enable", ns::SM).attr_opt("resume", resume.then_some("true")).attr_opt("max", *max_s);
            }
            Sm::Enabled { id, max_s, location } => {
                w.open("enabled", ns::SM).attr_opt("id", id.as_ref());
                w.attr_opt("resume", id.as_ref().map(|_| "true"));
                w.attr_opt("max", *max_s).attr_opt("location", location.as_ref());
            }
            Sm::Request => {
                w.open("r", ns::SM);
            }
            Sm::Answer { h } => {
                w.open("a", ns::SM).attr("h", h);
            }
            Sm::Resume { previd, h, told } => {
                w.open("resume", ns::SM).attr("previd", previd).attr("h", h);
                if let Some(told) = told {
                    w.attr("xmlns:D", dual::NS).attr("D:epoch", told.epoch);
                    w.attr_opt("D:moved", told.moved).attr_opt("D:try", told.attempt);
                }
            }
            Sm::Resumed { previd, h } => {
                w.open("resumed", ns::SM).attr("previd", previd).attr("h", h);
            }
            Sm::Failed { condition, h } => {
                w.open("failed", ns::SM).attr_opt("h", h.as_ref());
                w.open(condition.name(), ns::STANZA_ERRORS).close();
            }
        }
        w.finish()
    }
}

/// A decimal attribute that fits its type; absent if it does not.
pub(crate) fn number<T: FromStr>(stanza: &Stanza, name: &str) -> Option<T> {
    stanza.attr(name).filter(|v| v.bytes().all(|b| b.is_ascii_digit())).and_then(|v| v.parse().ok())
}

fn epoch(stanza: &Stanza, name: &str) -> Option<Epoch> {
    stanza.attr_ns(dual::NS, name).and_then(|e| e.parse().ok())
}

/// An xs:boolean attribute, false where it is absent.
fn truth(stanza: &Stanza, name: &str) -> bool {
    stanza.attr(name).is_some_and(|v| v == "true" || v == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wrap() {
        let last = Handled(u32::MAX);
        assert_eq!(last.next(), Handled(0));
        assert_eq!(last.plus(3).distance_from(last), 3);
        assert!(Handled(2).is_after(last) && !last.is_after(Handled(2)) && !last.is_after(last));
        assert!(Handled(0).is_within(last, Handled(1)) && !Handled(2).is_within(last, Handled(1)));
    }

    #[test]
    fn every_element_is_read_back() {
        let all = [
            Sm::Enable { resume: true, max_s: Some(300) },
            Sm::Enable { resume: false, max_s: None },
            Sm::Enabled { id: Some("x<y".into()), max_s: Some(300), location: Some("b:5222".into()) },
            Sm::Enabled { id: None, max_s: None, location: None },
            Sm::Request,
            Sm::Answer { h: Handled(u32::MAX) },
            Sm::Resume { previd: "p".into(), h: Handled(7), told: None },
            Sm::Resume { previd: "p".into(), h: Handled(7), told: Some(Epoch { term: 7, moves: 1 }.into()) },
            Sm::Resume {
                previd: "p".into(),
                h: Handled(7),
                told: Some(Told {
                    attempt: Some(3),
                    epoch: Epoch { term: 7, moves: 1 },
                    moved: Some(Epoch { term: 6, moves: 4 }),
                }),
            },
            Sm::Resumed { previd: "p".into(), h: Handled(0) },
            Sm::Failed { condition: StanzaCondition::ItemNotFound, h: Some(Handled(4)) },
        ];
        for sm in all {
            let stanza = Stanza::from_bytes(sm.to_bytes()).unwrap();
            assert_eq!(Sm::parse(&stanza).unwrap(), Some(sm));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["<a xmlns='urn:xmpp:sm:3'/>", "<a xmlns='urn:xmpp:sm:3' h='+1'/>", "<x xmlns='urn:xmpp:sm:3'/>"]
        {
            assert!(Sm::parse(&Stanza::parse(text.as_bytes()).unwrap()).is_err(), "{text}");
        }
        assert_eq!(Sm::parse(&Stanza::parse(b"<iq type='get'/>").unwrap()), Ok(None));
    }
}
