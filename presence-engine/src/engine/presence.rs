//! Presence (RFC 6121 4): broadcast, directed, probes, and what is told when a session ends or comes back.
//!
//! Both nodes hold all sessions of both, so no probe travels, but where branches were merged: a user who becomes available is told the presence of
//! contacts from the state that is here. For a contact of the other node that state is as new as the last frame of its
//! log that was applied; a change behind that frame brings a forward of its own. So each change is told once.
//!
//! Broadcast presence is volatile: it takes a number in a session's stream and leaves no body. A session that is resumed
//! is told the *current* presence of whoever it may have missed (D2). Directed presence is not volatile, because nobody
//! could say later what it said; neither are subscriptions.

use bytes::Bytes;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::Stanza;
use xmpp_core::xml::Writer;

use super::emit::addressed;
use super::route::Route;
use super::{Engine, Output};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Forward, Record};
use crate::state::JsmSession;
use crate::subscription::Ask;

/// An unavailable presence of the server's own making.
pub(super) fn unavailable(from: &Jid, to: Option<&Jid>) -> Bytes {
    let mut w = Writer::new();
    w.open("presence", ns::CLIENT).attr("from", from).attr_opt("to", to).attr("type", "unavailable");
    w.finish()
}

/// The session's address.
pub(super) fn full_jid(s: &JsmSession) -> Option<Jid> {
    s.user.with_resource(&s.resource).ok().map(Jid::from)
}

impl Engine {
    /// Presence from one of our sessions, stamped with its full JID.
    pub(super) fn presence(&mut self, session: SmId, stanza: &Stanza, id: StanzaId, route: &mut Route) {
        let type_ = stanza.head.type_.as_deref();
        if let Some(ask) = type_.and_then(Ask::of) {
            let Some(user) = self.state.session(session).map(|s| s.user.clone()) else { return };
            return self.ask(&user, stanza, ask, id, route);
        }
        match (type_, &stanza.head.to) {
            (None | Some("unavailable"), None) => self.broadcast(session, stanza, id, route),
            (None | Some("unavailable"), Some(to)) => self.direct(session, stanza, to, id, route),
            (Some("probe"), Some(to)) => self.probe(session, &to.to_bare(), route),
            (Some("error"), Some(to)) => self.route(stanza, to, id, route),
            (Some("error" | "probe"), None) => {}
            (Some(_), _) => self.bounce(stanza, id, StanzaCondition::BadRequest, route),
        }
    }

    /// RFC 6121 4.2, 4.4, 4.5: initial presence, a change, unavailable.
    fn broadcast(&self, session: SmId, stanza: &Stanza, id: StanzaId, route: &mut Route) {
        let Some(s) = self.state.session(session) else { return };
        let Some(from) = stanza.head.from.clone() else { return };
        if stanza.bytes.len() > self.cfg.limits.presence_bytes {
            let error = StanzaError::new(StanzaCondition::PolicyViolation);
            return self.refuse(stanza, id, &error.with_text("presence is too long"), route);
        }
        let available = stanza.head.type_.is_none();
        let priority = available.then(|| {
            let text = stanza.child(ns::CLIENT, "priority").map(|p| p.text).unwrap_or_default();
            text.trim().parse::<i8>().unwrap_or(0)
        });
        let presence = Effect::Presence { session, priority, stanza: stanza.bytes.clone() };
        if available || s.visible {
            self.tell_contacts(s, &from, &stanza.bytes, available, id, route);
            let mut own = self.available(&s.user);
            own.retain(|other| *other != session);
            own.extend(available.then_some(session));
            route.presence(&from, own, stanza.bytes.clone());
        }
        if !available {
            self.take_back(s, &from, id, route);
        }
        route.effects.push(presence);
        if available && s.priority.is_none() {
            self.look_around(session, s, id, route);
        }
        if priority.is_some_and(|p| p >= 0) && s.priority.is_none_or(|p| p < 0) {
            route.effects.push(Effect::FlushOffline { session, count: self.room(s) });
        }
    }

    /// To every contact who is subscribed. One record: the stanza once, and the list of targets.
    fn tell_contacts(
        &self,
        s: &JsmSession,
        from: &Jid,
        stanza: &Bytes,
        available: bool,
        id: StanzaId,
        route: &mut Route,
    ) {
        let Some(user) = self.state.user(&s.user) else { return };
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for (contact, _) in user.roster.items.iter().filter(|(_, item)| item.subscription.is_seen()) {
            let Some(u) = self.state.user(contact) else { continue };
            if !self.serves(contact) {
                there.push(contact.clone());
            } else if !available || u.roster.subscription(&s.user).sees() {
                here.extend(self.available(contact));
            }
        }
        route.presence(from, here, stanza.clone());
        if !there.is_empty() {
            route.effects.push(Effect::FanOut { id, to: there, stanza: stanza.clone() });
        }
    }

    /// Unavailable to wherever directed presence went, but to subscribers, who were told (RFC 6121 4.6.3).
    fn take_back(&self, s: &JsmSession, from: &Jid, id: StanzaId, route: &mut Route) {
        for to in &s.directed {
            let Ok(stanza) = Stanza::from_bytes(unavailable(from, Some(to))) else { continue };
            self.route(&stanza, to, id, route);
        }
    }

    /// What a resource that became available is told: who of its contacts and own resources is there, and who asks to
    /// see it (RFC 6121 3.1.3, 4.2.2, 4.3). Until it is answered a request is told at each login.
    fn look_around(&self, session: SmId, s: &JsmSession, id: StanzaId, route: &mut Route) {
        let Some(user) = self.state.user(&s.user) else { return };
        for (contact, item) in &user.roster.items {
            if item.subscription.sees() {
                self.tell_presence_of(contact, session, &s.user, route);
            }
            if item.subscription.pending_in() && !item.request.is_empty() {
                route.out(session, id, item.request.clone());
            }
        }
        for other in self.available(&s.user).into_iter().filter(|other| *other != session) {
            let Some(other) = self.state.session(other) else { continue };
            if let Some(about) = full_jid(other) {
                route.presence(&about, vec![session], other.presence.clone());
            }
        }
    }

    /// Presence of all available resources of a contact who lets the user see it.
    fn tell_presence_of(&self, contact: &BareJid, to: SmId, user: &BareJid, route: &mut Route) {
        let allowed = self.state.user(contact).is_some_and(|u| u.roster.subscription(user).is_seen());
        for (_, s) in self.sessions_of(contact).filter(|(_, s)| allowed && s.priority.is_some()) {
            if let Some(about) = full_jid(s) {
                route.presence(&about, vec![to], s.presence.clone());
            }
        }
    }

    /// A client that asks itself (RFC 6121 4.3; clients need not). Whoever may not know hears nothing, as if the account
    /// were away or did not exist.
    fn probe(&self, session: SmId, contact: &BareJid, route: &mut Route) {
        let Some(s) = self.state.session(session) else { return };
        self.tell_presence_of(contact, session, &s.user, route);
    }

    /// A node asks, for one of its users, for a session of ours of which the user was shown a branch that is void (D7); or for
    /// an account, what its roster says of the user.
    pub(super) fn answer_probe(&self, stanza: &Stanza, about: &Jid, route: &mut Route) {
        let Some(asker) = stanza.head.from.as_ref().map(Jid::to_bare) else { return };
        let Some(resource) = about.resource() else {
            return self.make_ends_agree(&about.to_bare(), &asker, route);
        };
        let user = self.state.user(&about.to_bare());
        let session = user.and_then(|u| u.sessions.get(resource)).copied();
        let Some((session, s)) = session.and_then(|id| Some((id, self.state.session(id)?))) else {
            return self.forward(&asker, StanzaId::default(), unavailable(about, None), route);
        };
        // The session's last stanza, so that what it says next is never put before this.
        let id = StanzaId { session, number: s.inbound };
        if user.is_some_and(|u| u.roster.subscription(&asker).is_seen()) {
            // Of one that was bound in the place of another, contacts are told by its first presence, or when it lapses (D14).
            if !s.presence.is_empty() {
                self.forward(&asker, id, s.presence.clone(), route);
            } else if !s.visible {
                self.forward(&asker, id, unavailable(about, None), route);
            }
            return;
        }
        let directed: Vec<&Jid> = s.directed.iter().filter(|to| to.to_bare() == asker).collect();
        if directed.is_empty() {
            return self.forward(&asker, id, unavailable(about, None), route);
        }
        // What it said to them nobody keeps: only that it is there.
        for to in directed {
            let mut w = Writer::new();
            w.open("presence", ns::CLIENT).attr("from", about).attr("to", to);
            route.effects.push(Effect::Forward(Forward { to: to.clone(), id, stanza: w.finish() }));
        }
    }

    /// Directed presence (RFC 6121 4.6).
    fn direct(&self, session: SmId, stanza: &Stanza, to: &Jid, id: StanzaId, route: &mut Route) {
        let Some(s) = self.state.session(session) else { return };
        let contact = to.to_bare();
        let user = self.state.user(&s.user);
        // Subscribers hear of the session's end anyway.
        let told = contact == s.user || user.is_some_and(|u| u.roster.subscription(&contact).is_seen());
        let on = stanza.head.type_.is_none();
        if on && !told && !s.directed.contains(to) && s.directed.len() >= self.cfg.limits.directed {
            let error = StanzaError::new(StanzaCondition::ResourceConstraint);
            let error = error.with_text("directed presence is out to too many addresses; take some back");
            return self.refuse(stanza, id, &error, route);
        }
        if on != s.directed.contains(to) && (!on || !told) {
            route.effects.push(Effect::Directed { session, to: to.clone(), on });
        }
        self.route(stanza, to, id, route);
    }

    /// Presence for a user of this node. Without `to` it is the broadcast of a contact.
    pub(super) fn presence_arrives(
        &self,
        stanza: &Stanza,
        to: &Jid,
        user: &BareJid,
        id: StanzaId,
        route: &mut Route,
    ) {
        let Some(from) = &stanza.head.from else { return };
        let type_ = stanza.head.type_.as_deref();
        if let Some(ask) = type_.and_then(Ask::of) {
            return self.asked(stanza, ask, user, &from.to_bare(), id, route);
        }
        if stanza.head.to.is_none() {
            let sees = self.state.user(user).is_some_and(|u| u.roster.subscription(&from.to_bare()).sees());
            if sees || type_.is_some() {
                route.presence(from, self.available(user), stanza.bytes.clone());
            }
            return;
        }
        // RFC 6121 8.5.2.1.2 and 8.5.3.1.
        match to.resource() {
            Some(resource) => {
                let session = self.state.user(user).and_then(|u| u.sessions.get(resource));
                session.into_iter().for_each(|s| route.out(*s, id, stanza.bytes.clone()));
            }
            None if type_ == Some("error") => {}
            None => {
                self.available(user).into_iter().for_each(|s| route.out(s, id, stanza.bytes.clone()));
            }
        }
    }

    /// What a session is told of a full JID when it is resumed (D2): its presence now, if it may still be seen. Of one
    /// that went and whose session is still there, the last that it said itself, with its status (RFC 6121 4.5.1).
    pub(super) fn current_presence(&self, s: &JsmSession, about: &Jid) -> Bytes {
        let user = about.to_bare();
        let other = self.state.user(&user);
        let session = other
            .and_then(|u| u.sessions.get(about.resource()?))
            .and_then(|id| self.state.session(*id))
            .filter(|other| !other.presence.is_empty());
        let seen = user == s.user || other.is_some_and(|u| u.roster.subscription(&s.user).is_seen());
        match session {
            Some(other) if seen => addressed(&other.presence, &s.user),
            _ => addressed(&unavailable(about, None), &s.user),
        }
    }

    /// What the contacts of a session are told when it ends: nothing, if they believe it gone already.
    fn farewell(&self, session: SmId) -> Route {
        let mut route = Route::default();
        let Some(s) = self.state.session(session) else { return route };
        let Some(from) = full_jid(s).filter(|_| s.visible || !s.directed.is_empty()) else { return route };
        // Of no stanza of the client: the number after its last.
        let id = StanzaId { session, number: s.inbound.wrapping_add(1) };
        if s.visible {
            let bytes = unavailable(&from, None);
            self.tell_contacts(s, &from, &bytes, false, id, &mut route);
            let mut own = self.available(&s.user);
            own.retain(|other| *other != session);
            route.presence(&from, own, bytes);
        }
        self.take_back(s, &from, id, &mut route);
        route
    }

    /// The session is over: whoever believes it available is told, once.
    pub(super) fn end_session(&mut self, session: SmId, out: &mut Vec<Output>) {
        self.give_back_early(session, out);
        let Some(s) = self.state.session(session) else { return };
        let user = s.user.clone();
        let mut route = self.farewell(session);
        self.return_requests(s, &mut route);
        let Route { effects, volatile, .. } = route;
        let at_ms = self.stored_at(&user);
        self.emit_with(Record::End { session, at_ms, effects }, volatile, out);
        self.flush_others(&user, out);
    }

    /// Sessions that were bound in the place of an available one, and have not sent presence for as long as the old one
    /// would have been waited for: its contacts are told now (D14). A time of binding that is still to come is the stamp of what
    /// the old one left, or that of another clock: such a session is waited for since it was first seen.
    pub(super) fn lapse(&mut self, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        let mut seen = std::mem::take(&mut self.bound_ahead);
        seen.retain(|id, _| self.state.session(*id).is_some_and(JsmSession::is_believed));
        let mut lapsed: Vec<(SmId, BareJid)> = Vec::new();
        for (id, s) in self.state.timed().filter(|(_, s)| s.is_believed()) {
            if s.bound_ms > now {
                seen.entry(id).or_insert(now);
            }
            let since = seen.get(&id).copied().unwrap_or(s.bound_ms);
            if now >= since.saturating_add(self.cfg.resume_ms) {
                lapsed.push((id, s.user.clone()));
            }
        }
        self.bound_ahead = seen;
        for (session, user) in lapsed {
            if self.serves(&user) {
                let Route { effects, volatile, .. } = self.farewell(session);
                self.emit_with(Record::Lapse { session, effects }, volatile, out);
            }
        }
    }
}
