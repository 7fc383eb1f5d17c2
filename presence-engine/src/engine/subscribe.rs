//! Subscription handshakes (RFC 6121 3), by the tables in `subscription.rs`. The user's owner and the contact's owner
//! each change their own roster; between them go stanzas, in the order of the logs, also when both owners are one node:
//! every step is a record of its own.

use bytes::Bytes;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::Stanza;
use xmpp_core::xml::Writer;

use super::Engine;
use super::presence::{full_jid, unavailable};
use super::route::Route;
use crate::ids::StanzaId;
use crate::record::{Effect, Forward};
use crate::state::{Item, JsmSession};
use crate::subscription::{Ask, Direction, step};

/// A subscription stanza of the server's own making.
pub(crate) fn ask_stanza(ask: Ask, from: &BareJid, to: &BareJid) -> Bytes {
    let mut w = Writer::new();
    w.open("presence", ns::CLIENT).attr("from", from).attr("to", to).attr("type", ask.name());
    w.finish()
}

impl Engine {
    /// One of our users manages a subscription (RFC 6121 3.1.2, 3.2.1, 3.3.2, 3.4.2).
    pub(super) fn ask(&self, user: &BareJid, stanza: &Stanza, ask: Ask, id: StanzaId, route: &mut Route) {
        let Some(to) = &stanza.head.to else {
            return self.bounce(stanza, id, StanzaCondition::BadRequest, route);
        };
        let contact = to.to_bare();
        if contact == *user {
            return self.bounce(stanza, id, StanzaCondition::NotAllowed, route);
        }
        if contact.domain() != self.cfg.domain {
            return self.bounce(stanza, id, StanzaCondition::RemoteServerNotFound, route);
        }
        let Some(u) = self.state.user(user) else { return };
        let known = u.roster.items.get(&contact).cloned();
        let before = known.clone().unwrap_or_default();
        let done = step(Direction::Outbound, ask, before.subscription);
        let mut item = Item { subscription: done.next, ..before.clone() };
        match ask {
            Ask::Subscribe => item.listed = true,
            // Consent that nobody asked for yet holds for the request to come (RFC 6121 3.4.2).
            Ask::Subscribed if !done.pass && !before.subscription.is_seen() => {
                (item.listed, item.approved) = (true, true);
            }
            Ask::Subscribed => item.listed = true,
            Ask::Unsubscribed => item.approved = false,
            Ask::Unsubscribe => {}
        }
        if item.listed && self.is_full_for(user, &contact) {
            let error = StanzaError::new(StanzaCondition::ResourceConstraint);
            return self.refuse(stanza, id, &error.with_text("the roster is full; remove a contact"), route);
        }
        self.set_item(user, &contact, known.as_ref(), item, id, route);
        if before.subscription.is_seen() && !done.next.is_seen() {
            self.hide(user, &contact, id, route);
        }
        if done.pass {
            // RFC 6121 3.1.2: stamped with the bare JID, addressed to the bare JID.
            let bytes = stanza.rewrite(Some(user), Some(&contact));
            self.forward(&contact, id, bytes, route);
        }
        if ask == Ask::Subscribed && done.next.is_seen() && !before.subscription.is_seen() {
            self.show(user, &contact, id, route);
        }
    }

    /// A contact manages a subscription; the stanza is for a user of this node (RFC 6121 3.1.3, 3.2.3, 3.3.3).
    pub(super) fn asked(
        &self,
        stanza: &Stanza,
        ask: Ask,
        user: &BareJid,
        contact: &BareJid,
        id: StanzaId,
        route: &mut Route,
    ) {
        let Some(u) = self.state.user(user).filter(|_| contact != user) else { return };
        let known = u.roster.items.get(contact).cloned();
        let before = known.clone().unwrap_or_default();
        let done = step(Direction::Inbound, ask, before.subscription);
        let mut item = Item { subscription: done.next, ..before.clone() };
        if ask == Ask::Subscribe && !done.pass {
            // Granted before: the answer was lost on the way, or the contact forgot (RFC 6121 3.1.3).
            if before.subscription.is_seen() {
                self.forward(contact, id, ask_stanza(Ask::Subscribed, user, contact), route);
                self.show(user, contact, id, route);
            }
            return;
        }
        if ask == Ask::Subscribe && before.approved {
            item.subscription = before.subscription.preapproved();
            self.set_item(user, contact, known.as_ref(), item, id, route);
            self.forward(contact, id, ask_stanza(Ask::Subscribed, user, contact), route);
            return self.show(user, contact, id, route);
        }
        if !done.pass {
            return;
        }
        if ask == Ask::Subscribe {
            let waiting = u.roster.items.len() - u.roster.listed().count();
            if known.is_none() && waiting >= self.cfg.limits.requests {
                return self.forward(contact, id, ask_stanza(Ask::Unsubscribed, user, contact), route);
            }
            item.request = match stanza.bytes.len() <= self.cfg.limits.request_bytes {
                true => stanza.bytes.clone(),
                false => ask_stanza(Ask::Subscribe, contact, user),
            };
        }
        let request = item.request.clone();
        // A request is for whoever is there; the rest is for those who know the roster (RFC 6121 8.5.2.1.2).
        let told = |s: &JsmSession| if ask == Ask::Subscribe { s.priority.is_some() } else { s.interested };
        let bytes = if ask == Ask::Subscribe { request } else { stanza.bytes.clone() };
        for (session, _) in self.sessions_of(user).filter(|(_, s)| told(s)) {
            route.out(session, id, bytes.clone());
        }
        self.set_item(user, contact, known.as_ref(), item, id, route);
        if before.subscription.is_seen() && !done.next.is_seen() {
            self.hide(user, contact, id, route);
        }
    }

    /// Writes down a roster item, if it is another, and pushes what clients can see of it.
    pub(super) fn set_item(
        &self,
        user: &BareJid,
        contact: &BareJid,
        before: Option<&Item>,
        mut item: Item,
        id: StanzaId,
        route: &mut Route,
    ) {
        if !item.subscription.pending_in() {
            item.request = Bytes::new();
        }
        let nothing = !item.listed && !item.subscription.pending_in();
        let after = (!nothing).then_some(item);
        if before == after.as_ref() {
            return;
        }
        if let (Some(before), Some(after)) = (before, &after)
            && before.looks_like(after)
        {
            // A request that waits is no change of the roster: nothing to push, and no new version (RFC 6121 3.1.3).
            let (user, contact, item) = (user.clone(), contact.clone(), Some(after.clone()));
            return route.effects.push(Effect::Roster { user, contact, item, version: None });
        }
        self.change_roster(user, contact, before, after, id, route);
    }

    /// A stanza for a contact, wherever the contact lives: a step of its own.
    pub(super) fn forward(&self, contact: &BareJid, id: StanzaId, stanza: Bytes, route: &mut Route) {
        if self.state.user(contact).is_some() {
            let to: Jid = (**contact).clone();
            route.effects.push(Effect::Forward(Forward { to, id, stanza }));
        }
    }

    /// The contact may see the user from now on.
    pub(super) fn show(&self, user: &BareJid, contact: &BareJid, id: StanzaId, route: &mut Route) {
        for (_, s) in self.sessions_of(user).filter(|(_, s)| s.priority.is_some()) {
            self.forward(contact, id, s.presence.clone(), route);
        }
    }

    /// The contact may no longer see the user (RFC 6121 3.2.1, 3.3.3).
    pub(super) fn hide(&self, user: &BareJid, contact: &BareJid, id: StanzaId, route: &mut Route) {
        for (_, s) in self.sessions_of(user).filter(|(_, s)| s.visible) {
            if let Some(from) = full_jid(s) {
                self.forward(contact, id, unavailable(&from, None), route);
            }
        }
    }
}
