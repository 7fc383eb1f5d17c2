//! Message carbons (XEP-0280 1.0.1): each device of a user sees both sides of all conversations.

use bytes::Bytes;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::ns;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

use super::Engine;
use super::iq::{Request, result};
use super::route::{HINTS, Route, is_volatile};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Flag};

/// Namespace of carbons.
pub(super) const CARBONS: &str = "urn:xmpp:carbons:2";
/// Stanza forwarding (XEP-0297 1.0).
const FORWARD: &str = "urn:xmpp:forward:0";
/// Marks messages of and to occupants of a room (XEP-0045 7.5).
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Payloads that are part of a conversation without having a body (XEP-0280 6.1).
const CONVERSATION: [&str; 3] =
    ["http://jabber.org/protocol/chatstates", "urn:xmpp:receipts", "urn:xmpp:chat-markers:0"];

/// Which side of a conversation a copy is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The user sent it.
    Sent,
    /// The user received it.
    Received,
}

/// Whether a message is copied (XEP-0280 6.1).
pub(super) fn is_eligible(stanza: &Stanza, side: Side) -> bool {
    let head = &stanza.head;
    let has_ns = |ns: &str| head.children.iter().any(|c| c.ns == ns);
    if head.kind != Kind::Message || head.has_child(CARBONS, "private") || head.has_child(HINTS, "no-copy") {
        return false;
    }
    // Of a copy no copy is made.
    if has_ns(CARBONS) {
        return false;
    }
    // The room sends private messages to all of an occupant's devices itself.
    if side == Side::Received && has_ns(MUC_USER) {
        return false;
    }
    match head.type_.as_deref() {
        Some("groupchat" | "headline") => false,
        Some("chat") => true,
        // The error of a message that was copied; without it other devices believe that it arrived.
        Some("error") => side == Side::Received,
        _ => head.has_child(ns::CLIENT, "body") || CONVERSATION.iter().any(|ns| has_ns(ns)),
    }
}

impl Engine {
    /// Enables or disables carbons; doing so twice is no error (XEP-0280 4).
    pub(super) fn carbons_switch(&self, request: &Request<'_>, on: bool, route: &mut Route) -> Bytes {
        let session = request.session;
        if self.state.session(session).is_some_and(|s| s.carbons != on) {
            route.effects.push(Effect::Flag { session, flag: Flag::Carbons, on });
        }
        result(request.stanza, |_| ())
    }

    /// Copies of what one of our sessions sends, for the others of its user.
    pub(super) fn carbons_sent(
        &self,
        stanza: &Stanza,
        session: SmId,
        user: &BareJid,
        id: StanzaId,
        route: &mut Route,
    ) {
        // To oneself: who is addressed gets it, and the others their copy as receivers.
        let to_self = stanza.head.to.as_ref().is_none_or(|to| to.same_bare(user));
        if !to_self && is_eligible(stanza, Side::Sent) {
            self.copy(stanza, Side::Sent, user, &[session], id, route);
        }
    }

    /// Copies of what a user of this node was sent, for the devices that did not get it. `given`: those that did.
    pub(super) fn carbons_received(
        &self,
        stanza: &Stanza,
        to: &Jid,
        user: &BareJid,
        given: &[SmId],
        id: StanzaId,
        route: &mut Route,
    ) {
        // A message that reached nobody reached no conversation; an error for a resource that is gone neither.
        if given.is_empty() || !is_eligible(stanza, Side::Received) {
            return;
        }
        let from_self = stanza.head.from.as_ref().filter(|from| from.same_bare(to));
        let sender =
            from_self.and_then(|from| self.state.user(user)?.sessions.get(from.resource()?).copied());
        let but: Vec<SmId> = given.iter().copied().chain(sender).collect();
        self.copy(stanza, Side::Received, user, &but, id, route);
    }

    /// A copy comes from the bare JID of the account, which no client can be (S20).
    fn copy(
        &self,
        stanza: &Stanza,
        side: Side,
        user: &BareJid,
        but: &[SmId],
        id: StanzaId,
        route: &mut Route,
    ) {
        let mut devices = self.sessions_of(user).filter(|(id, s)| s.carbons && !but.contains(id)).peekable();
        if devices.peek().is_none() {
            return;
        }
        // As it is: a tree that is written may be many times as long.
        let copied = stanza.inside();
        for (session, s) in devices {
            let Ok(to) = user.with_resource(&s.resource) else { continue };
            let mut w = Writer::new();
            w.open("message", ns::CLIENT).attr("from", user).attr("to", to);
            w.attr_opt("type", stanza.head.type_.as_deref().filter(|type_| *type_ != "error"));
            w.open(if side == Side::Sent { "sent" } else { "received" }, CARBONS).open("forwarded", FORWARD);
            w.raw(&copied);
            self.push_bytes(is_volatile(stanza), w.finish(), session, id, false, route);
        }
    }
}
