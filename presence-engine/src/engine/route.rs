//! Where a stanza goes, for the addressees that this node serves; the rest is forwarded (RFC 6121 8).

use bytes::Bytes;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use super::Engine;
use super::delivery::{Account, Delivery, Named, Type, delivery};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Forward};
use crate::state::{JsmSession, User};

/// Chat states (XEP-0085 2.0).
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// Message processing hints (XEP-0334 0.4).
pub(super) const HINTS: &str = "urn:xmpp:hints";

/// What a stanza causes.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// What happens, in order.
    pub(super) effects: Vec<Effect>,
    /// The volatile stanzas that its gaps stand for, one for each `Effect::Gap`, in order. Presence has no `to` yet.
    pub(super) volatile: Vec<Bytes>,
    /// Answers for the server itself.
    pub(super) to_self: Vec<Bytes>,
}

impl Route {
    /// A stanza for a session that lives as long as the session does.
    pub(super) fn out(&mut self, to: SmId, id: StanzaId, stanza: Bytes) {
        self.effects.push(Effect::Out { to, id, keep: false, stanza });
    }

    /// Somebody's presence for sessions; it keeps no body.
    pub(super) fn presence(&mut self, about: &Jid, to: Vec<SmId>, stanza: Bytes) {
        if !to.is_empty() {
            self.effects.push(Effect::Gap { about: Some(about.clone()), to });
            self.volatile.push(stanza);
        }
    }
}

/// A message that carries a chat state and nothing else: may be dropped before it is numbered, keeps no body.
pub(super) fn is_volatile(stanza: &Stanza) -> bool {
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
        let found = self.state.user(&user);
        if found.is_some() && !self.serves(&user) {
            let forward = Forward { to: to.clone(), id, stanza: stanza.bytes.clone() };
            return route.effects.push(Effect::Forward(forward));
        }
        match stanza.head.kind {
            Kind::Message => self.route_message(stanza, to, &user, id, route),
            Kind::Iq => match found.and_then(|u| self.named(u, to)) {
                Some(session) => route.out(session, id, stanza.bytes.clone()),
                None => self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route),
            },
            Kind::Presence if stanza.head.type_.as_deref() == Some("probe") => {
                self.answer_probe(stanza, to, route);
            }
            // RFC 6121 8.5.1: presence for nobody is ignored, so it tells nobody whether the account exists.
            Kind::Presence if found.is_none() => {}
            Kind::Presence => self.presence_arrives(stanza, to, &user, id, route),
            Kind::Other => {}
        }
    }

    /// RFC 6121 8.5.2 and 8.5.3, by the table in `delivery.rs`.
    fn route_message(&self, stanza: &Stanza, to: &Jid, user: &BareJid, id: StanzaId, route: &mut Route) {
        let type_ = Type::of(stanza.head.type_.as_deref());
        let u = self.state.user(user);
        let resource = u.and_then(|u| self.named(u, to));
        let names = match to.resource() {
            None => Named::Bare,
            Some(_) if resource.is_some() => Named::Resource,
            Some(_) => Named::NoResource,
        };
        let mut given = Vec::new();
        let keeps = type_.is_kept() && !is_volatile(stanza);
        match delivery(self.account(u), names, type_) {
            Delivery::Drop => {}
            Delivery::Bounce => self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route),
            Delivery::Store => self.store(stanza, user, id, true, Vec::new(), route),
            Delivery::One => given.extend(resource),
            Delivery::All => given.extend(
                self.sessions_of(user)
                    .filter(|(id, s)| s.priority.is_some_and(|p| p >= 0) && self.is_routable(*id, s))
                    .map(|(id, _)| id),
            ),
        }
        let (behind, ready) = self.by_backlog(&given);
        for session in if keeps { &ready } else { &given } {
            self.push(stanza, *session, id, type_.is_kept(), route);
        }
        if keeps && !behind.is_empty() {
            self.store(stanza, user, id, ready.is_empty(), behind, route);
        }
        self.carbons_received(stanza, to, user, &given, id, route);
    }

    fn account(&self, user: Option<&User>) -> Account {
        let Some(user) = user else { return Account::Missing };
        let priority = |id: &SmId| self.state.session(*id).filter(|s| self.is_routable(*id, s))?.priority;
        match user.sessions.values().filter_map(priority).max() {
            None => Account::Away,
            Some(p) if p < 0 => Account::Negative,
            Some(_) => Account::Present,
        }
    }

    /// The session that a full JID names.
    fn named(&self, user: &User, to: &Jid) -> Option<SmId> {
        let id = *user.sessions.get(to.resource()?)?;
        self.state.session(id).filter(|s| self.is_routable(id, s)).map(|_| id)
    }

    /// Whether a session is given anything (D14). One without stream management keeps nothing: without a stream it only
    /// waits for its end to be written, by who takes over or looks anew and first does what is undone (D3).
    fn is_routable(&self, id: SmId, s: &JsmSession) -> bool {
        s.enabled_at.is_some() || self.edge.conn_of(id).is_some()
    }

    /// Into one session's out-queue.
    pub(super) fn push(&self, stanza: &Stanza, to: SmId, id: StanzaId, keep: bool, route: &mut Route) {
        self.push_bytes(is_volatile(stanza), stanza.bytes.clone(), to, id, keep, route);
    }

    /// The same for bytes that are made from a stanza.
    pub(super) fn push_bytes(
        &self,
        volatile: bool,
        stanza: Bytes,
        to: SmId,
        id: StanzaId,
        keep: bool,
        route: &mut Route,
    ) {
        if !volatile {
            return route.effects.push(Effect::Out { to, id, keep, stanza });
        }
        if self.edge.conn_of(to).is_some() {
            route.effects.push(Effect::Gap { about: None, to: vec![to] });
            route.volatile.push(stanza);
        }
    }

    /// Sessions of an account, by resource.
    pub(super) fn sessions_of(&self, user: &BareJid) -> impl Iterator<Item = (SmId, &JsmSession)> {
        let ids = self.state.user(user).into_iter().flat_map(|u| u.sessions.values());
        ids.filter_map(|id| self.state.session(*id).map(|s| (*id, s)))
    }

    /// Available sessions of an account (RFC 6121 1.4).
    pub(super) fn available(&self, user: &BareJid) -> Vec<SmId> {
        self.sessions_of(user).filter(|(_, s)| s.priority.is_some()).map(|(id, _)| id).collect()
    }

    /// An error for the sender, by the way that any stanza takes.
    pub(super) fn bounce(
        &self,
        stanza: &Stanza,
        id: StanzaId,
        condition: StanzaCondition,
        route: &mut Route,
    ) {
        self.refuse(stanza, id, &StanzaError::new(condition), route);
    }

    /// The same with a text.
    pub(super) fn refuse(&self, stanza: &Stanza, id: StanzaId, error: &StanzaError, route: &mut Route) {
        let Some(bytes) = error.reply(stanza) else { return };
        let Some(sender) = stanza.head.from.clone() else { return };
        self.answer(bytes, &sender, id, route);
    }

    /// A stanza of the server itself for the session that caused it.
    pub(super) fn answer(&self, bytes: Bytes, to: &Jid, id: StanzaId, route: &mut Route) {
        let Some(user) = self.state.user(&to.to_bare()) else {
            return route.to_self.extend(self.is_self(to).then_some(bytes));
        };
        if !self.serves(&to.to_bare()) {
            route.effects.push(Effect::Forward(Forward { to: to.clone(), id, stanza: bytes }));
        } else if let Some(session) = to.resource().and_then(|r| user.sessions.get(r)) {
            route.out(*session, id, bytes);
        }
    }
}
