//! Dual connection (`urn:tandem:dual:0`): a client's second stream, parked at the peer. The elements and the epoch.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::error::{StanzaCondition, StreamCondition, StreamError};
use crate::ns;
use crate::sm::number;
use crate::stanza::Stanza;
use crate::xml::Writer;

/// Namespace of all elements here.
pub const NS: &str = "urn:tandem:dual:0";
/// The stream feature, offered beside `<sm/>` while HA is on.
pub const FEATURE: &str = "<dual xmlns='urn:tandem:dual:0'/>";

/// Epoch of a user: a takeover raises the term, a hand-over the moves. Shown as `TERM.MOVES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Term of the home group: 2 × number + index of the node.
    pub term: u64,
    /// Hand-overs of this user within the term.
    pub moves: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.moves)
    }
}

/// The text is not `TERM.MOVES` in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch")]
pub struct EpochError;

impl FromStr for Epoch {
    type Err = EpochError;
    fn from_str(text: &str) -> Result<Epoch, EpochError> {
        let (term, moves) = text.split_once('.').ok_or(EpochError)?;
        let decimal = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !decimal(term) || !decimal(moves) {
            return Err(EpochError);
        }
        let term = term.parse().map_err(|_| EpochError)?;
        Ok(Epoch { term, moves: moves.parse().map_err(|_| EpochError)? })
    }
}

/// What a client says of the epochs that it was told, with `<resume/>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The highest since the stream that told it goes on with the session.
    pub epoch: Epoch,
    /// A lower one that `<moving/>` told last.
    pub moved: Option<Epoch>,
    /// Which of the client's attempts at this session this is: one that comes late, behind a later one, is none any more.
    pub attempt: Option<u32>,
}

impl Told {
    /// The client heard an offer.
    pub fn offered(before: Option<Told>, epoch: Epoch) -> Told {
        Told { epoch: before.map_or(epoch, |told| told.epoch.max(epoch)), moved: None, attempt: None }
    }

    /// The client heard that its session moves.
    pub fn moving(before: Option<Told>, epoch: Epoch) -> Told {
        let highest = Told::offered(before, epoch).epoch;
        Told { epoch: highest, moved: Some(epoch).filter(|moved| *moved < highest), attempt: None }
    }
}

impl From<Epoch> for Told {
    fn from(epoch: Epoch) -> Told {
        Told { epoch, moved: None, attempt: None }
    }
}

/// Where the other node is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name of the node.
    pub node: CompactString,
    /// Host name or address.
    pub host: CompactString,
    /// TCP port.
    pub port: u16,
    /// TLS from the first byte (`tls='direct'`), else STARTTLS.
    pub direct_tls: bool,
}

/// Why duality or parking was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// High availability is switched off.
    HaDisabled,
    /// Any other reason.
    Other(StanzaCondition),
}

/// What a client says of its main stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MainStream {
    /// It has just heard from it.
    Alive,
    /// It is open and says nothing.
    Silent,
    /// It has ended.
    Lost,
}

impl MainStream {
    fn name(self) -> &'static str {
        match self {
            MainStream::Alive => "alive",
            MainStream::Silent => "silent",
            MainStream::Lost => "lost",
        }
    }
}

/// The elements, in the order of their use. "Main" and "parked" say on which stream; C is the client, S the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dual {
    /// C, main, after `<enabled/>`: may I have a second stream?
    Request,
    /// S, main: yes, there.
    Offer {
        /// Epoch of the user.
        epoch: Epoch,
        /// Shortest wait before parking, in seconds.
        lower_s: u32,
        /// Longest wait before parking, in seconds.
        upper_s: u32,
        /// The other node.
        peer: Peer,
        /// One-time token, reserved (D16).
        token: Option<CompactString>,
    },
    /// S, either: no.
    Failed(Failure),
    /// C, parked, after SASL and without bind: this is the second stream of that session.
    Standby {
        /// Its SM-ID.
        sm_id: CompactString,
    },
    /// S, parked: known.
    Parked {
        /// Epoch of the user as this node holds it.
        epoch: Epoch,
        /// One-time token, reserved (D16).
        token: Option<CompactString>,
    },
    /// S, parked: does your main stream live?
    Query {
        /// Names this question.
        id: CompactString,
        /// To be answered by the other node.
        nonce: CompactString,
    },
    /// C, main: prove that you live.
    Vouch {
        /// From the query.
        nonce: CompactString,
    },
    /// S, main: the proof.
    Vouched {
        /// From the query.
        nonce: CompactString,
        /// Made with the cluster secret.
        mac: CompactString,
    },
    /// C, parked: the answer to a query.
    Report {
        /// From the query.
        id: CompactString,
        /// What the client sees.
        main: MainStream,
        /// The proof, if there is one.
        mac: Option<CompactString>,
        /// How long ago the main stream was heard last, in milliseconds.
        heard_ms: Option<u64>,
    },
    /// C, parked, unasked: my main stream died.
    Lost,
    /// S, parked: resume here.
    Take {
        /// The new epoch.
        epoch: Epoch,
    },
    /// S, parked: not yet; voids the resume that it answers.
    Wait {
        /// When to expect more, in milliseconds.
        ms: u64,
    },
    /// S, parked: the owner lives; reconnect to it if need be.
    Stay,
    /// S, main: this node stays fenced; flip.
    Stalled,
    /// S, main: hand-back. Nothing after it is counted.
    Moving {
        /// The new epoch.
        epoch: Epoch,
        /// Name of the node that serves from now on.
        to: CompactString,
    },
}

impl Dual {
    /// Reads an element; `Ok(None)` if it is not of this namespace, `bad-format` if it is and lacks what it needs.
    /// Unknown attributes and children are ignored.
    pub fn parse(stanza: &Stanza) -> Result<Option<Dual>, StreamError> {
        if stanza.head.ns != NS {
            return Ok(None);
        }
        let bad = || StreamError::new(StreamCondition::BadFormat).with_text("dual connection element");
        let (text, epoch) = (
            |name| stanza.attr(name).ok_or_else(bad),
            || stanza.attr("epoch").and_then(|e| e.parse::<Epoch>().ok()).ok_or_else(bad),
        );
        Ok(Some(match stanza.head.name.as_str() {
            "request" => Dual::Request,
            "offer" => Dual::Offer {
                epoch: epoch()?,
                lower_s: number(stanza, "lower").ok_or_else(bad)?,
                upper_s: number(stanza, "upper").ok_or_else(bad)?,
                peer: read_peer(stanza).ok_or_else(bad)?,
                token: stanza.attr("token"),
            },
            "failed" => Dual::Failed(read_failure(stanza)),
            "standby" => Dual::Standby { sm_id: text("sm-id")? },
            "parked" => Dual::Parked { epoch: epoch()?, token: stanza.attr("token") },
            "query" => Dual::Query { id: text("id")?, nonce: text("nonce")? },
            "vouch" => Dual::Vouch { nonce: text("nonce")? },
            "vouched" => Dual::Vouched { nonce: text("nonce")?, mac: text("mac")? },
            "report" => Dual::Report {
                id: text("id")?,
                main: match text("main")?.as_str() {
                    "alive" => MainStream::Alive,
                    "silent" => MainStream::Silent,
                    "lost" => MainStream::Lost,
                    _ => return Err(bad()),
                },
                mac: stanza.attr("mac"),
                heard_ms: number(stanza, "heard-ms"),
            },
            "lost" => Dual::Lost,
            "take" => Dual::Take { epoch: epoch()? },
            "wait" => Dual::Wait { ms: number(stanza, "ms").ok_or_else(bad)? },
            "stay" => Dual::Stay,
            "stalled" => Dual::Stalled,
            "moving" => Dual::Moving { epoch: epoch()?, to: text("to")? },
            _ => return Err(bad()),
        }))
    }

    /// The element as it is sent.
    pub fn to_bytes(&self) -> Bytes {
        let mut w = Writer::new();
        w.open(self.name(), NS);
        match self {
            Dual::Request | Dual::Lost | Dual::Stay | Dual::Stalled => {}
            Dual::Offer { epoch, lower_s, upper_s, peer, token } => {
                w.attr("epoch", epoch).attr("lower", lower_s).attr("upper", upper_s);
                w.attr_opt("token", token.as_ref());
                w.open("peer", "").attr("node", &peer.node).attr("host", &peer.host).attr("port", peer.port);
                w.attr("tls", if peer.direct_tls { "direct" } else { "starttls" });
            }
            Dual::Failed(Failure::HaDisabled) => {
                w.open("ha-disabled", "");
            }
            Dual::Failed(Failure::Other(condition)) => {
                w.open(condition.name(), "");
            }
            Dual::Standby { sm_id } => {
                w.attr("sm-id", sm_id);
            }
            Dual::Parked { epoch, token } => {
                w.attr("epoch", epoch).attr_opt("token", token.as_ref());
            }
            Dual::Query { id, nonce } => {
                w.attr("id", id).attr("nonce", nonce);
            }
            Dual::Vouch { nonce } => {
                w.attr("nonce", nonce);
            }
            Dual::Vouched { nonce, mac } => {
                w.attr("nonce", nonce).attr("mac", mac);
            }
            Dual::Report { id, main, mac, heard_ms } => {
                w.attr("id", id).attr("main", main.name());
                w.attr_opt("mac", mac.as_ref()).attr_opt("heard-ms", *heard_ms);
            }
            Dual::Take { epoch } => {
                w.attr("epoch", epoch);
            }
            Dual::Wait { ms } => {
                w.attr("ms", ms);
            }
            Dual::Moving { epoch, to } => {
                w.attr("epoch", epoch).attr("to", to);
            }
        }
        w.finish()
    }

    /// Local name of the element.
    pub fn name(&self) -> &'static str {
        match self {
            Dual::Request => "request",
            Dual::Offer { .. } => "offer",
            Dual::Failed(_) => "failed",
            Dual::Standby { .. } => "standby",
            Dual::Parked { .. } => "parked",
            Dual::Query { .. } => "query",
            Dual::Vouch { .. } => "vouch",
            Dual::Vouched { .. } => "vouched",
            Dual::Report { .. } => "report",
            Dual::Lost => "lost",
            Dual::Take { .. } => "take",
            Dual::Wait { .. } => "wait",
            Dual::Stay => "stay",
            Dual::Stalled => "stalled",
            Dual::Moving { .. } => "moving",
        }
    }
}

fn read_peer(stanza: &Stanza) -> Option<Peer> {
    let peer = stanza.child(NS, "peer")?;
    Some(Peer {
        node: peer.attr("node")?.into(),
        host: peer.attr("host")?.into(),
        port: peer.attr("port")?.parse().ok()?,
        direct_tls: peer.attr("tls") == Some("direct"),
    })
}

fn read_failure(stanza: &Stanza) -> Failure {
    let known = |name: &str| match name {
        "ha-disabled" => Some(Failure::HaDisabled),
        name => StanzaCondition::parse(name).map(Failure::Other),
    };
    let ours = stanza.head.children.iter().filter(|c| c.ns == NS || c.ns == ns::STANZA_ERRORS);
    ours.filter_map(|c| known(&c.name)).next().unwrap_or(Failure::Other(StanzaCondition::UndefinedCondition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_read_back() {
        let epoch = Epoch { term: 9, moves: 2 };
        let peer = Peer { node: "b".into(), host: "::1".into(), port: 5223, direct_tls: true };
        let all = [
            Dual::Request,
            Dual::Offer { epoch, lower_s: 120, upper_s: 537, peer, token: Some("t".into()) },
            Dual::Failed(Failure::HaDisabled),
            Dual::Failed(Failure::Other(StanzaCondition::ItemNotFound)),
            Dual::Standby { sm_id: "s".into() },
            Dual::Parked { epoch, token: None },
            Dual::Query { id: "1".into(), nonce: "n".into() },
            Dual::Vouch { nonce: "n".into() },
            Dual::Vouched { nonce: "n".into(), mac: "m=".into() },
            Dual::Report { id: "1".into(), main: MainStream::Silent, mac: None, heard_ms: Some(900) },
            Dual::Lost,
            Dual::Take { epoch },
            Dual::Wait { ms: 250 },
            Dual::Stay,
            Dual::Stalled,
            Dual::Moving { epoch, to: "b".into() },
        ];
        for element in all {
            let stanza = Stanza::from_bytes(element.to_bytes()).unwrap();
            assert_eq!(Dual::parse(&stanza).unwrap(), Some(element));
        }
    }

    #[test]
    fn an_epoch_is_two_numbers() {
        assert_eq!("7.1".parse(), Ok(Epoch { term: 7, moves: 1 }));
        assert_eq!(Epoch { term: 7, moves: 1 }.to_string(), "7.1");
        for bad in ["", "7", "7.", ".1", "+7.1", "7.1.2", "7.99999999999"] {
            assert_eq!(bad.parse::<Epoch>(), Err(EpochError), "{bad}");
        }
        assert!(Epoch { term: 9, moves: 0 } > Epoch { term: 7, moves: 5 });
    }
}
