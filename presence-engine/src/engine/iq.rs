//! Requests that the server answers itself (RFC 6120 8.2.3): one list, from which service discovery takes its features.

use bytes::Bytes;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::Stanza;
use xmpp_core::xml::Writer;
use xmpp_core::xml::tree::Element;

use super::Engine;
use super::carbons::CARBONS;
use super::disco::{DISCO_INFO, DISCO_ITEMS};
use super::roster::ROSTER;
use super::route::Route;
use crate::ids::{SmId, StanzaId};
use crate::state::stamp;

/// XMPP ping (XEP-0199 2.0).
const PING: &str = "urn:xmpp:ping";
/// Software version (XEP-0092 1.1).
const VERSION: &str = "jabber:iq:version";
/// Entity time (XEP-0202 2.0).
const TIME: &str = "urn:xmpp:time";

/// Whom a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// The sender's own account: no `to`, or the own bare JID.
    Own,
    /// The domain.
    Server,
    /// The account of somebody else, by its bare JID.
    Other,
}

/// A request to the server.
pub(super) struct Request<'a> {
    /// Who asks.
    pub(super) session: SmId,
    /// Their account.
    pub(super) user: &'a BareJid,
    /// Whom.
    pub(super) target: Target,
    /// Identity of the request.
    pub(super) id: StanzaId,
    /// The request.
    pub(super) stanza: &'a Stanza,
    /// Its payload.
    pub(super) payload: Element,
}

/// The result stanza, or why there is none.
pub(super) type Answer = Result<Bytes, StanzaError>;

/// A kind of request.
pub(super) struct Handler {
    /// Payload.
    name: (&'static str, &'static str),
    /// `get` or `set`.
    verb: &'static str,
    targets: &'static [Target],
    /// What service discovery says of it (XEP-0030), at each of its targets that has features.
    pub(super) features: &'static [&'static str],
    run: fn(&Engine, &Request<'_>, &mut Route) -> Answer,
}

impl Handler {
    /// Whether it answers for this target.
    pub(super) fn answers_for(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }
}

const EVERYWHERE: &[Target] = &[Target::Own, Target::Server, Target::Other];
const HERE: &[Target] = &[Target::Own, Target::Server];

/// All requests that the server answers.
pub(super) const HANDLERS: &[Handler] = &[
    Handler {
        name: (ROSTER, "query"),
        verb: "get",
        targets: &[Target::Own],
        features: &[ROSTER],
        run: |engine, request, route| engine.roster_get(request, route),
    },
    Handler {
        name: (ROSTER, "query"),
        verb: "set",
        targets: &[Target::Own],
        features: &[],
        run: |engine, request, route| engine.roster_set(request, route),
    },
    Handler {
        name: (PING, "ping"),
        verb: "get",
        targets: HERE,
        features: &[PING],
        run: |_, request, _| Ok(result(request.stanza, |_| ())),
    },
    Handler {
        name: (VERSION, "query"),
        verb: "get",
        targets: &[Target::Server],
        features: &[VERSION],
        run: |_, request, _| Ok(result(request.stanza, version)),
    },
    Handler {
        name: (TIME, "time"),
        verb: "get",
        targets: &[Target::Server],
        features: &[TIME],
        run: |engine, request, _| Ok(engine.time(request)),
    },
    Handler {
        name: (CARBONS, "enable"),
        verb: "set",
        targets: HERE,
        features: &[CARBONS, "urn:xmpp:carbons:rules:0"],
        run: |engine, request, route| Ok(engine.carbons_switch(request, true, route)),
    },
    Handler {
        name: (CARBONS, "disable"),
        verb: "set",
        targets: HERE,
        features: &[],
        run: |engine, request, route| Ok(engine.carbons_switch(request, false, route)),
    },
    Handler {
        name: (DISCO_INFO, "query"),
        verb: "get",
        targets: EVERYWHERE,
        features: &[DISCO_INFO],
        run: |engine, request, _| engine.disco_info(request),
    },
    Handler {
        name: (DISCO_ITEMS, "query"),
        verb: "get",
        targets: EVERYWHERE,
        features: &[DISCO_ITEMS],
        run: |engine, request, _| engine.disco_items(request),
    },
];

impl Engine {
    /// An IQ of one of our sessions, stamped.
    pub(super) fn iq(&self, session: SmId, user: &BareJid, stanza: &Stanza, id: StanzaId, route: &mut Route) {
        let head = &stanza.head;
        let type_ = head.type_.as_deref();
        let asks = matches!(type_, Some("get" | "set"));
        let known = asks || matches!(type_, Some("result" | "error"));
        // RFC 6120 8.2.3: an id, one of four types, and one payload for a request.
        if !known || head.id.is_none() || (asks && head.child_count != 1) {
            return self.bounce(stanza, id, StanzaCondition::BadRequest, route);
        }
        let target = match &head.to {
            None => Target::Own,
            Some(to) if to == &**user => Target::Own,
            Some(to) if to.as_str() == self.cfg.domain => Target::Server,
            Some(to) if to.is_bare() && to.domain() == self.cfg.domain => Target::Other,
            Some(to) => return self.iq_between_clients(stanza, to, id, route),
        };
        // What is sent to the server as an answer, to a roster push above all, needs none.
        let Some(payload) = stanza.payload().filter(|_| asks) else { return };
        let handler = HANDLERS.iter().find(|h| {
            let (ns, name) = h.name;
            payload.is(ns, name) && Some(h.verb) == type_ && h.answers_for(target)
        });
        let request = Request { session, user, target, id, stanza, payload };
        let answer = match handler {
            Some(handler) => (handler.run)(self, &request, route),
            None => Err(StanzaError::new(StanzaCondition::ServiceUnavailable)),
        };
        match (answer, head.from.clone()) {
            (Ok(bytes), Some(sender)) => self.answer(bytes, &sender, id, route),
            (Err(error), _) => self.refuse(stanza, id, &error, route),
            (Ok(_), None) => {}
        }
    }

    /// S19: a request about a roster between clients could only be meant to look like a push.
    fn iq_between_clients(&self, stanza: &Stanza, to: &Jid, id: StanzaId, route: &mut Route) {
        match stanza.head.children.iter().any(|c| c.ns == ROSTER) {
            true => self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route),
            false => self.route(stanza, to, id, route),
        }
    }

    fn time(&self, request: &Request<'_>) -> Bytes {
        result(request.stanza, |w| {
            w.open("time", TIME).open("tzo", "").text("+00:00").close();
            w.open("utc", "").text(stamp(self.turn.now_ms)).close().close();
        })
    }
}

/// Name and version; the operating system is nobody's business (XEP-0092 5).
fn version(w: &mut Writer) {
    w.open("query", VERSION).open("name", "").text("Tandem").close();
    w.open("version", "").text(env!("CARGO_PKG_VERSION")).close().close();
}

/// The result of a request.
pub(super) fn result(stanza: &Stanza, payload: impl FnOnce(&mut Writer)) -> Bytes {
    let head = &stanza.head;
    let mut w = Writer::new();
    w.open("iq", ns::CLIENT).attr("type", "result").attr_opt("id", head.id.as_deref());
    w.attr_opt("from", head.to.as_ref()).attr_opt("to", head.from.as_ref());
    payload(&mut w);
    w.finish()
}
