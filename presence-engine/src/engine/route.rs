//! Where a stanza goes (RFC 6121 8.5), for the addressees that this node serves; the rest is forwarded.

use bytes::Bytes;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use super::{Engine, Output};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Forward};

/// Chat states (XEP-0085 2.0).
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";

/// What a stanza causes.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// Durable effects, in order.
    pub(super) effects: Vec<Effect>,
    /// Volatile stanzas for live sessions; their gaps are among the effects.
    pub(super) volatile: Vec<(SmId, Bytes)>,
}

/// A message that carries a chat state and nothing else: may be dropped before it is numbered, keeps no body.
fn is_volatile(stanza: &Stanza) -> bool {
    let head = &stanza.head;
    head.kind == Kind::Message
        && !head.children.is_empty()
        && head.children.iter().all(|c| c.ns == CHAT_STATES)
}

impl Engine {
    /// Routes a stanza that is stamped with its sender.
    pub(super) fn route(&self, stanza: &Stanza, to: &Jid, id: StanzaId, route: &mut Route) {
        if to.domain() != self.cfg.domain {
            return self.bounce(stanza, id, StanzaCondition::RemoteServerNotFound, route);
        }
        let user = to.to_bare();
        let Some(u) = self.state.user(&user) else {
            return self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route);
        };
        if !self.serves(&user) {
            let forward = Forward { to: to.clone(), id, stanza: stanza.bytes.clone() };
            return route.effects.push(Effect::Forward(forward));
        }
        let full = to.resource().and_then(|r| u.sessions.get(r).copied());
        match stanza.head.kind {
            Kind::Message => self.route_message(stanza, &user, full, id, route),
            Kind::Iq => match full {
                Some(session) => self.push(stanza, session, id, false, route),
                None => self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route),
            },
            // Broadcast and subscriptions come with their own issue; directed presence reaches a bound resource.
            Kind::Presence => {
                if let Some(session) = full {
                    self.push(stanza, session, id, false, route);
                }
            }
            Kind::Other => {}
        }
    }

    /// RFC 6121 8.5.2 and 8.5.3.
    fn route_message(
        &self,
        stanza: &Stanza,
        user: &BareJid,
        full: Option<SmId>,
        id: StanzaId,
        route: &mut Route,
    ) {
        let type_ = stanza.head.type_.as_deref().unwrap_or("normal");
        let keep = !matches!(type_, "headline" | "error" | "groupchat");
        if let Some(session) = full {
            return self.push(stanza, session, id, keep, route);
        }
        match type_ {
            "groupchat" => return self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route),
            "error" => return,
            _ => {}
        }
        let sessions = self.state.user(user).map(|u| u.sessions.values().copied().collect::<Vec<_>>());
        let available: Vec<SmId> = sessions
            .unwrap_or_default()
            .into_iter()
            .filter(|s| self.state.session(*s).and_then(|s| s.priority).is_some_and(|p| p >= 0))
            .collect();
        for session in &available {
            self.push(stanza, *session, id, keep, route);
        }
        if available.is_empty() && keep && !is_volatile(stanza) {
            let (user, at_ms) = (user.clone(), self.turn.now_ms);
            route.effects.push(Effect::Offline { user, id, at_ms, stanza: stanza.bytes.clone() });
        }
    }

    /// Into one session's out-queue.
    fn push(&self, stanza: &Stanza, to: SmId, id: StanzaId, keep: bool, route: &mut Route) {
        if !is_volatile(stanza) {
            return route.effects.push(Effect::Out { to, id, keep, stanza: stanza.bytes.clone() });
        }
        if self.edge.conn_of(to).is_some() {
            route.effects.push(Effect::Gap { to });
            route.volatile.push((to, stanza.bytes.clone()));
        }
    }

    /// Volatile bytes follow the record that holds their gap.
    pub(super) fn deliver_volatile(&mut self, volatile: Vec<(SmId, Bytes)>, out: &mut Vec<Output>) {
        for (session, bytes) in volatile {
            if let Some(conn) = self.edge.conn_of(session) {
                self.edge.delivered(conn, &self.state);
                out.push(Output::Deliver(conn, bytes));
            }
        }
    }

    /// An error for the sender, by the way that any stanza takes.
    pub(super) fn bounce(
        &self,
        stanza: &Stanza,
        id: StanzaId,
        condition: StanzaCondition,
        route: &mut Route,
    ) {
        let Some(bytes) = StanzaError::new(condition).reply(stanza) else { return };
        let Some(sender) = stanza.head.from.clone() else { return };
        self.answer(bytes, &sender, id, route);
    }

    /// A stanza of the server itself for the session that caused it.
    pub(super) fn answer(&self, bytes: Bytes, to: &Jid, id: StanzaId, route: &mut Route) {
        let Some(user) = self.state.user(&to.to_bare()) else { return };
        if !self.serves(&to.to_bare()) {
            route.effects.push(Effect::Forward(Forward { to: to.clone(), id, stanza: bytes }));
        } else if let Some(session) = to.resource().and_then(|r| user.sessions.get(r)) {
            route.effects.push(Effect::Out { to: *session, id, keep: false, stanza: bytes });
        }
    }
}
