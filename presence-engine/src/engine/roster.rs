//! Roster management (RFC 6121 2): get, set, remove, pushes, versions.

use bytes::Bytes;
use compact_str::CompactString;
use xmpp_core::error::{StanzaCondition, StanzaError};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::xml::Writer;
use xmpp_core::xml::tree::Element;

use super::Engine;
use super::iq::{Answer, Request, result};
use super::presence::full_jid;
use super::route::Route;
use super::subscribe::ask_stanza;
use crate::ids::StanzaId;
use crate::record::{Effect, Flag};
use crate::state::{Item, RosterVersion};
use crate::subscription::{Ask, Subscription};

/// Namespace of roster management.
pub(super) const ROSTER: &str = "jabber:iq:roster";

/// Stream features of the engine after authentication: roster versions (RFC 6121 2.6.1) and approval in advance (3.4.1).
pub const STREAM_FEATURES: &str =
    "<ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>";

/// What a client wants to be written down.
struct Wish {
    contact: BareJid,
    /// Name and groups; `None`: the item is to go.
    item: Option<(CompactString, Vec<CompactString>)>,
}

impl Engine {
    /// RFC 6121 2.2. Who asks gets pushes from now on; who has the present version gets an empty result (2.6).
    pub(super) fn roster_get(&self, request: &Request<'_>, route: &mut Route) -> Answer {
        let Some(user) = self.state.user(request.user) else {
            return Err(StanzaError::new(StanzaCondition::ItemNotFound));
        };
        if self.state.session(request.session).is_some_and(|s| !s.interested) {
            let (session, flag) = (request.session, Flag::Interested);
            route.effects.push(Effect::Flag { session, flag, on: true });
        }
        let version = user.roster.version.to_string();
        if request.payload.attr("ver") == Some(&version) {
            return Ok(result(request.stanza, |_| ()));
        }
        Ok(result(request.stanza, |w| {
            w.open("query", ROSTER).attr("ver", version);
            for (contact, item) in user.roster.listed() {
                write_item(w, contact, Some(item));
            }
            w.close();
        }))
    }

    /// RFC 6121 2.3 to 2.5.
    pub(super) fn roster_set(&self, request: &Request<'_>, route: &mut Route) -> Answer {
        self.write_roster(request.user, &request.payload, request.id, route)?;
        Ok(result(request.stanza, |_| ()))
    }

    /// What a user wants to be written down.
    pub(super) fn write_roster(
        &self,
        owner: &BareJid,
        query: &Element,
        id: StanzaId,
        route: &mut Route,
    ) -> Result<(), StanzaError> {
        let Wish { contact, item: wish } = self.wish(query)?;
        let Some(user) = self.state.user(owner) else {
            return Err(StanzaError::new(StanzaCondition::ItemNotFound));
        };
        let known = user.roster.items.get(&contact);
        match wish {
            Some((name, groups)) => {
                if contact == *owner {
                    let error = StanzaError::new(StanzaCondition::NotAllowed);
                    return Err(error.with_text("nobody is a contact of themselves"));
                }
                if self.is_full_for(owner, &contact) {
                    let error = StanzaError::new(StanzaCondition::ResourceConstraint);
                    return Err(error.with_text("the roster is full; remove a contact"));
                }
                let before = known.cloned().unwrap_or_default();
                let item = Item { name, groups, listed: true, ..before };
                // Pushed even if nothing changed: a client waits for the push, not for the result (2.1.6).
                self.change_roster(owner, &contact, known, Some(item), id, route);
            }
            None => {
                let Some(item) = known.filter(|item| item.listed) else {
                    return Err(StanzaError::new(StanzaCondition::ItemNotFound));
                };
                self.remove_contact(owner, &contact, item, id, route);
            }
        }
        Ok(())
    }

    /// Whether a contact who is not in the roster finds no room there.
    pub(super) fn is_full_for(&self, user: &BareJid, contact: &BareJid) -> bool {
        let Some(u) = self.state.user(user) else { return false };
        let listed = u.roster.items.get(contact).is_some_and(|item| item.listed);
        !listed && u.roster.listed().count() >= self.cfg.limits.roster_items
    }

    /// RFC 6121 2.5.2: what there was between the two ends in both directions. A request of the contact stays: it has no
    /// answer yet.
    fn remove_contact(
        &self,
        user: &BareJid,
        contact: &BareJid,
        item: &Item,
        id: StanzaId,
        route: &mut Route,
    ) {
        let state = item.subscription;
        let left = state.pending_in().then(|| Item {
            subscription: Subscription::NoneIn,
            request: item.request.clone(),
            ..Item::default()
        });
        self.change_roster(user, contact, Some(item), left, id, route);
        if state.is_seen() {
            self.hide(user, contact, id, route);
            self.forward(contact, id, ask_stanza(Ask::Unsubscribed, user, contact), route);
        }
        if state.sees() || state.pending_out() {
            self.forward(contact, id, ask_stanza(Ask::Unsubscribe, user, contact), route);
        }
    }

    /// Checks a roster set (RFC 6121 2.3.3).
    fn wish(&self, query: &Element) -> Result<Wish, StanzaError> {
        let bad = |condition, text: &'static str| Err(StanzaError::new(condition).with_text(text));
        let mut items = query.children_named(ROSTER, "item");
        let (Some(item), None) = (items.next(), items.next()) else {
            return bad(StanzaCondition::BadRequest, "one item at a time");
        };
        let Some(Ok(jid)) = item.attr("jid").map(Jid::parse) else {
            return bad(StanzaCondition::BadRequest, "the item has no JID");
        };
        let contact = jid.to_bare();
        if item.attr("subscription") == Some("remove") {
            return Ok(Wish { contact, item: None });
        }
        let limits = &self.cfg.limits;
        let name = item.attr("name").unwrap_or_default();
        let mut groups: Vec<CompactString> = Vec::new();
        for group in item.children_named(ROSTER, "group") {
            if group.text.is_empty() || group.text.len() > limits.roster_name_bytes {
                return bad(
                    StanzaCondition::NotAcceptable,
                    "a group has an empty name or one that is too long",
                );
            }
            if groups.iter().any(|g| *g == group.text) {
                return bad(StanzaCondition::BadRequest, "the same group twice");
            }
            groups.push(group.text.as_str().into());
        }
        if name.len() > limits.roster_name_bytes || groups.len() > limits.roster_groups {
            return bad(StanzaCondition::NotAcceptable, "the name is too long, or there are too many groups");
        }
        Ok(Wish { contact, item: Some((name.into(), groups)) })
    }

    /// Writes an item down and pushes it to whoever asked for the roster, if clients can see it (RFC 6121 2.1.6).
    pub(super) fn change_roster(
        &self,
        user: &BareJid,
        contact: &BareJid,
        before: Option<&Item>,
        after: Option<Item>,
        id: StanzaId,
        route: &mut Route,
    ) {
        let listed = after.as_ref().filter(|item| item.listed);
        let version = (listed.is_some() || before.is_some_and(|item| item.listed))
            .then(|| self.next_roster_version(user, route));
        let push = version.map(|version| (version, listed.cloned()));
        let (owner, contact) = (user.clone(), contact.clone());
        route.effects.push(Effect::Roster { user: owner, contact: contact.clone(), item: after, version });
        let Some((version, listed)) = push else { return };
        for (session, s) in self.sessions_of(user).filter(|(_, s)| s.interested) {
            let Some(to) = full_jid(s) else { continue };
            route.out(session, id, roster_push(user, &to, &contact, listed.as_ref(), version));
        }
    }

    fn next_roster_version(&self, user: &BareJid, route: &Route) -> RosterVersion {
        let epoch = self.state.user(user).map(|u| self.state.epoch(u)).unwrap_or_default();
        let number = self.roster_changes + roster_changes(&route.effects) + 1;
        RosterVersion { epoch, at: self.turn.at, number }
    }
}

/// How many of these are changes with a version of their own.
pub(super) fn roster_changes(effects: &[Effect]) -> u32 {
    effects.iter().filter(|e| matches!(e, Effect::Roster { version: Some(_), .. })).count() as u32
}

/// A roster push: from the account itself, which nobody else can be (S19).
fn roster_push(
    user: &BareJid,
    to: &Jid,
    contact: &BareJid,
    item: Option<&Item>,
    version: RosterVersion,
) -> Bytes {
    let version = version.to_string();
    let mut w = Writer::new();
    w.open("iq", ns::CLIENT).attr("type", "set").attr("id", format_args!("push-{version}"));
    w.attr("from", user).attr("to", to).open("query", ROSTER).attr("ver", &version);
    write_item(&mut w, contact, item);
    w.finish()
}

/// `None`: the item is gone.
fn write_item(w: &mut Writer, contact: &BareJid, item: Option<&Item>) {
    w.open("item", "").attr("jid", contact);
    match item {
        None => _ = w.attr("subscription", "remove"),
        Some(item) => {
            w.attr_opt("name", Some(&item.name).filter(|name| !name.is_empty()));
            w.attr("subscription", item.subscription.attribute());
            w.attr_opt("ask", item.subscription.pending_out().then_some("subscribe"));
            w.attr_opt("approved", item.approved.then_some("true"));
            for group in &item.groups {
                w.open("group", "").text(group).close();
            }
        }
    }
    w.close();
}
