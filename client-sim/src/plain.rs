//! What every XEP-0198 client does, with or without the dual connection: bind or resume, follow `see-other-host`, and
//! after a loss try the nodes in turn with short random pauses.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use tokio::time::timeout;
use xmpp_core::dual::{Dual, Peer, Told};
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::xml::Writer;
use xmpp_core::{Kind, Stanza, StanzaError, ns};

use crate::conn::{Account, Conn, ConnError, Dialer, Features, MAX_REDIRECTS};

/// How long a server may hold a `<resume/>` while a takeover is undecided, and how long it may take to bind.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(90);
/// Roster management (RFC 6121 2).
const ROSTER: &str = "jabber:iq:roster";
/// The pause after a refusal that will not change by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The session a client wants back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// Its id.
    pub previd: String,
    /// How many stanzas were handled in it.
    pub h: u32,
    /// The epochs that the main stream told; `None` from a client without the dual connection.
    pub told: Option<Told>,
}

/// How a session came to a stream.
#[derive(Debug)]
pub enum Outcome {
    /// The old session goes on.
    Resumed {
        /// How many of our stanzas the server has.
        h: u32,
        /// What the server said of the dual connection before.
        told: Vec<Dual>,
    },
    /// A session that never was before.
    Bound {
        /// Full JID.
        jid: String,
        /// Id for resumption; `None` if the server gives none.
        sm_id: Option<String>,
        /// What the server still knew of the old session's count.
        failed_h: Option<u32>,
        /// What arrived before stream management was on, which nobody counts.
        early: Vec<Stanza>,
    },
}

/// A stream that carries a session.
#[derive(Debug)]
pub struct Established {
    /// The stream.
    pub conn: Conn,
    /// Where it is, after all redirects.
    pub at: Peer,
    /// What the stream offers.
    pub features: Features,
    /// Bound or resumed.
    pub outcome: Outcome,
}

/// Logs in at `place` and gets a session there, or wherever `see-other-host` leads. `nodes` gives places found that way
/// their names. `token`: the account by a one-time token of the session, which is tried before the password.
pub async fn establish(
    dialer: &Dialer,
    nodes: &[Peer],
    place: Peer,
    account: &Account,
    resumption: Option<&Resumption>,
    mut token: Option<&Account>,
) -> Result<Established, ConnError> {
    let mut at = place;
    for _ in 0..=MAX_REDIRECTS {
        let (mut conn, features) = match dialer.login(&at, token.unwrap_or(account)).await {
            Err(error) if token.is_some() && error.is_token_dead() => {
                token = None;
                dialer.login(&at, account).await?
            }
            other => other?,
        };
        let may_bind = token.is_none();
        let session = take_session(&mut conn, &features, account, resumption, may_bind);
        let session = timeout(SESSION_TIMEOUT, session);
        match session.await.unwrap_or(Err(ConnError::Timeout("the session"))) {
            Ok(outcome) => return Ok(Established { conn, at, features, outcome }),
            Err(ConnError::SeeOtherHost { host, port }) => at = named(nodes, &at, host, port),
            Err(error) if token.is_some() && error.is_token_dead() => token = None,
            Err(error) => return Err(error),
        }
    }
    Err(ConnError::Protocol(format!("more than {MAX_REDIRECTS} redirects")))
}

/// The node at this address; one we do not know is named by it.
fn named(nodes: &[Peer], from: &Peer, host: String, port: u16) -> Peer {
    let known = nodes.iter().find(|node| node.host == host && node.port == port);
    known.cloned().unwrap_or_else(|| Peer {
        node: format!("{host}:{port}").into(),
        host: host.into(),
        port,
        direct_tls: from.direct_tls,
    })
}

async fn take_session(
    conn: &mut Conn,
    features: &Features,
    account: &Account,
    resumption: Option<&Resumption>,
    may_bind: bool,
) -> Result<Outcome, ConnError> {
    let mut failed_h = None;
    if let Some(old) = resumption.filter(|_| features.sm) {
        let mut told = Vec::new();
        match resume(conn, old, &mut told).await? {
            Ok(h) => return Ok(Outcome::Resumed { h, told }),
            Err(h) => failed_h = h,
        }
    }
    if !may_bind {
        return Err(ConnError::SessionGone);
    }
    let mut early = Vec::new();
    let jid = bind(conn, account, &mut early).await?;
    let sm_id = if features.sm { enable(conn, &mut early).await? } else { None };
    Ok(Outcome::Bound { jid, sm_id, failed_h, early })
}

/// `Ok(h)` if the session goes on, `Err(h)` if it is gone; then the stream can still bind (XEP-0198 section 5).
/// `told`: what comes before, of which the epoch is the one that the session goes on with.
async fn resume(
    conn: &mut Conn,
    old: &Resumption,
    told: &mut Vec<Dual>,
) -> Result<Result<u32, Option<u32>>, ConnError> {
    let ask = Sm::Resume { previd: old.previd.as_str().into(), h: Handled(old.h), told: old.told };
    conn.send(&ask.to_bytes());
    loop {
        let answer = conn.recv().await?;
        match read_sm(&answer)? {
            Some(Sm::Resumed { previd, h }) if previd == old.previd => return Ok(Ok(h.0)),
            Some(Sm::Resumed { .. }) => return Err(ConnError::Protocol("another session resumed".into())),
            Some(Sm::Failed { h, .. }) => return Ok(Err(h.map(|h| h.0))),
            _ => told.extend(Dual::parse(&answer).ok().flatten()),
        }
    }
}

async fn bind(conn: &mut Conn, account: &Account, early: &mut Vec<Stanza>) -> Result<String, ConnError> {
    let mut w = Writer::new();
    w.open("iq", "").attr("type", "set").attr("id", "bind").open("bind", ns::BIND);
    if let Some(resource) = &account.resource {
        w.open("resource", "").text(resource).close();
    }
    conn.send(&w.finish());
    loop {
        let answer = conn.recv().await?;
        if answer.head.kind != Kind::Iq || answer.head.id.as_deref() != Some("bind") {
            keep(early, answer);
            continue;
        }
        let jid =
            answer.child(ns::BIND, "bind").and_then(|bind| Some(bind.child(ns::BIND, "jid")?.text.clone()));
        return match (answer.head.type_.as_deref(), jid) {
            (Some("result"), Some(jid)) => Ok(jid),
            _ => Err(ConnError::Protocol(format!("bind refused: {}", condition_of(&answer)))),
        };
    }
}

async fn enable(conn: &mut Conn, early: &mut Vec<Stanza>) -> Result<Option<String>, ConnError> {
    conn.send(&Sm::Enable { resume: true, max_s: None }.to_bytes());
    loop {
        let answer = conn.recv().await?;
        match read_sm(&answer)? {
            Some(Sm::Enabled { id, .. }) => return Ok(id.map(Into::into)),
            Some(Sm::Failed { .. }) => return Err(ConnError::Protocol("stream management refused".into())),
            _ => keep(early, answer),
        }
    }
}

fn keep(early: &mut Vec<Stanza>, stanza: Stanza) {
    if stanza.head.kind != Kind::Other {
        early.push(stanza);
    }
}

fn read_sm(stanza: &Stanza) -> Result<Option<Sm>, ConnError> {
    Sm::parse(stanza).map_err(|error| ConnError::Protocol(error.to_string()))
}

/// The condition in a stanza of type error, for a message to a human.
pub(crate) fn condition_of(stanza: &Stanza) -> String {
    let error = stanza.child(ns::CLIENT, "error").unwrap_or_default();
    let condition = error.children.iter().find(|child| child.ns == ns::STANZA_ERRORS && child.name != "text");
    condition.map_or("no condition", |child| child.name.as_str()).to_owned()
}

/// The request for the roster (RFC 6121 2.1.3).
pub(crate) fn ask_for_roster() -> bytes::Bytes {
    let mut w = Writer::new();
    w.open("iq", "").attr("type", "get").attr("id", "roster").open("query", ROSTER);
    w.finish()
}

/// The answer to a request that this client does not serve; pings (XEP-0199) and roster pushes (RFC 6121 2.1.6) it does.
/// `None` if none is due.
pub(crate) fn answer_request(request: &Stanza) -> Option<bytes::Bytes> {
    if request.head.kind != Kind::Iq || !matches!(request.head.type_.as_deref(), Some("get" | "set")) {
        return None;
    }
    // The fleet's clients keep no roster, so that it does not matter who pushes.
    if request.head.has_child("urn:xmpp:ping", "ping") || request.head.has_child(ROSTER, "query") {
        let mut w = Writer::new();
        w.open("iq", "").attr("type", "result").attr_opt("id", request.head.id.as_ref());
        w.attr_opt("to", request.head.from.as_ref());
        return Some(w.finish());
    }
    StanzaError::new(xmpp_core::StanzaCondition::ServiceUnavailable).reply(request)
}

/// The consent to a request to see our presence (RFC 6121 section 3.1.4). `None` if this is no such request.
pub(crate) fn approve(request: &Stanza) -> Option<bytes::Bytes> {
    if request.head.kind != Kind::Presence || request.head.type_.as_deref() != Some("subscribe") {
        return None;
    }
    let mut w = Writer::new();
    w.open("presence", "").attr("type", "subscribed").attr("to", request.head.from.as_ref()?.bare_str());
    Some(w.finish())
}

/// Which node to try next, and after what pause.
#[derive(Debug)]
pub struct Rotation {
    nodes: Vec<Peer>,
    next: usize,
    pause: RangeInclusive<Duration>,
}

impl Rotation {
    /// Over `nodes`, beginning with the one called `first` (the first of the list if there is none), with a random
    /// time within `pause` before each attempt.
    pub fn new(nodes: &[Peer], first: Option<&str>, pause: RangeInclusive<Duration>) -> Self {
        let next = nodes.iter().position(|node| Some(node.node.as_str()) == first).unwrap_or(0);
        Rotation { nodes: nodes.to_vec(), next, pause }
    }

    /// The next node and the time to wait before trying it; `None` without nodes.
    pub fn next(&mut self, rng: &mut impl Rng) -> Option<(Peer, Duration)> {
        let node = self.nodes.get(self.next)?.clone();
        self.next = (self.next + 1) % self.nodes.len();
        Some((node, random_within(&self.pause, rng)))
    }

    /// As `next`, after an attempt that failed like this.
    pub fn next_after(&mut self, error: &ConnError, rng: &mut impl Rng) -> Option<(Peer, Duration)> {
        let (node, pause) = self.next(rng)?;
        Some((node, if error.is_refusal() { pause + REFUSED_PAUSE } else { pause }))
    }
}

/// A random time within limits that may be equal, or the wrong way round.
pub(crate) fn random_within(range: &RangeInclusive<Duration>, rng: &mut impl Rng) -> Duration {
    if range.start() < range.end() { rng.random_range(range.clone()) } else { *range.start() }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn node(name: &str) -> Peer {
        Peer { node: name.into(), host: format!("{name}.example").into(), port: 5223, direct_tls: true }
    }

    #[test]
    fn nodes_are_tried_in_turn_with_pauses_within_the_limits() {
        let mut rng = StdRng::seed_from_u64(1);
        let pause = Duration::from_millis(50)..=Duration::from_millis(250);
        let mut rotation = Rotation::new(&[node("a"), node("b")], Some("b"), pause.clone());
        for expected in ["b", "a", "b", "a"] {
            let (place, wait) = rotation.next(&mut rng).unwrap();
            assert_eq!(place.node, expected);
            assert!(pause.contains(&wait));
        }
        let refused = ConnError::Login("not-authorized".into());
        assert!(rotation.next_after(&refused, &mut rng).unwrap().1 >= REFUSED_PAUSE);
        let busy = ConnError::Login("temporary-auth-failure".into());
        assert!(rotation.next_after(&busy, &mut rng).unwrap().1 < REFUSED_PAUSE);
        assert!(Rotation::new(&[], None, pause).next(&mut rng).is_none());
    }

    #[test]
    fn redirects_find_the_node_by_its_address() {
        let nodes = [node("a"), node("b")];
        assert_eq!(named(&nodes, &nodes[0], "b.example".into(), 5223).node, "b");
        let other = named(&nodes, &nodes[0], "c.example".into(), 1);
        assert_eq!((other.node.as_str(), other.direct_tls), ("c.example:1", true));
    }

    #[test]
    fn requests_are_answered_and_answers_are_not() {
        let answer = |text: &str| {
            answer_request(&Stanza::parse(text.as_bytes()).unwrap())
                .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        let ping = "<iq type='get' id='1' from='example.org'><ping xmlns='urn:xmpp:ping'/></iq>";
        assert_eq!(answer(ping).unwrap(), "<iq type='result' id='1' to='example.org'/>");
        let other = "<iq type='get' id='2' from='example.org'><query xmlns='jabber:iq:version'/></iq>";
        assert!(answer(other).unwrap().contains("service-unavailable"));
        assert_eq!(answer("<iq type='result' id='3'/>"), None);
        assert_eq!(answer("<message id='4'/>"), None);
        let consent = |text: &str| approve(&Stanza::parse(text.as_bytes()).unwrap());
        let asked = consent("<presence type='subscribe' from='u1@example.org/x'/>").unwrap();
        assert_eq!(asked, "<presence type='subscribed' to='u1@example.org'/>");
        assert_eq!(consent("<presence from='u1@example.org/x'/>"), None);
    }
}
