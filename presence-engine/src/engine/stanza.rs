//! Stanzas of a bound session: counted, stamped, handled, routed. One stanza is one record (architecture: `SmIn`).

use bytes::Bytes;
use xmpp_core::error::StanzaCondition;
use xmpp_core::jid::Jid;
use xmpp_core::ns;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

use super::route::Route;
use super::{Engine, Output};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Record};

/// Roster management (RFC 6121 2).
const ROSTER: &str = "jabber:iq:roster";
/// XMPP ping (XEP-0199 2.0).
const PING: &str = "urn:xmpp:ping";

impl Engine {
    pub(super) fn stanza(&mut self, session: SmId, stanza: &Stanza, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        let number = s.inbound.wrapping_add(1);
        let id = StanzaId { session, number };
        let Ok(from) = s.user.with_resource(&s.resource) else { return };
        let from: Jid = (*from).clone();
        let user: Jid = (*s.user).clone();
        // S18: whatever the client wrote, the sender is the session. Errors are built from the stamped stanza too.
        let stamped = Stanza::from_bytes(stanza.rewrite(Some(&from), None));
        let Ok(stamped) = stamped else {
            debug_assert!(false, "rewriting broke a stanza");
            return;
        };
        let mut route = Route::default();
        if stamped.check_addresses().is_err() {
            self.bounce(&stamped, id, StanzaCondition::JidMalformed, &mut route);
        } else {
            match stamped.head.kind {
                Kind::Message => {
                    let to = stamped.head.to.clone().unwrap_or(user);
                    self.route(&stamped, &to, id, &mut route);
                }
                Kind::Presence => self.presence(session, &stamped, id, &mut route),
                Kind::Iq => self.iq(&stamped, &user, id, &mut route),
                Kind::Other => {}
            }
        }
        self.emit(Record::SmIn { session, number, effects: route.effects }, out);
        self.deliver_volatile(route.volatile, out);
    }

    /// The session's own presence is recorded, with its priority. The first available one brings what is stored.
    fn presence(&self, session: SmId, stanza: &Stanza, id: StanzaId, route: &mut Route) {
        if let Some(to) = &stanza.head.to {
            return self.route(stanza, to, id, route);
        }
        let was = self.state.session(session).and_then(|s| s.priority);
        let priority = match stanza.head.type_.as_deref() {
            None => {
                let text = stanza.child(ns::CLIENT, "priority").map(|p| p.text).unwrap_or_default();
                Some(text.trim().parse::<i8>().unwrap_or(0))
            }
            Some("unavailable") => None,
            Some(_) => return,
        };
        route.effects.push(Effect::Presence { session, priority, stanza: stanza.bytes.clone() });
        if was.is_none_or(|p| p < 0) && priority.is_some_and(|p| p >= 0) {
            route.effects.push(Effect::FlushOffline { session });
        }
    }

    fn iq(&self, stanza: &Stanza, user: &Jid, id: StanzaId, route: &mut Route) {
        let head = &stanza.head;
        let asks = matches!(head.type_.as_deref(), Some("get" | "set"));
        let own = head.to.as_ref().is_none_or(|to| to == user || to.as_str() == self.cfg.domain);
        if let Some(to) = head.to.as_ref().filter(|_| !own) {
            return self.route(stanza, to, id, route);
        }
        if !asks {
            return;
        }
        let Some(sender) = head.from.clone() else { return };
        let get = head.type_.as_deref() == Some("get");
        if get && head.has_child(ROSTER, "query") {
            self.answer(result(stanza, |w| _ = w.open("query", ROSTER).close()), &sender, id, route);
        } else if get && head.has_child(PING, "ping") {
            self.answer(result(stanza, |_| ()), &sender, id, route);
        } else {
            self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route);
        }
    }
}

fn result(stanza: &Stanza, payload: impl FnOnce(&mut Writer)) -> Bytes {
    let head = &stanza.head;
    let mut w = Writer::new();
    w.open("iq", ns::CLIENT).attr("type", "result").attr_opt("id", head.id.as_deref());
    w.attr_opt("from", head.to.as_ref()).attr_opt("to", head.from.as_ref());
    payload(&mut w);
    w.finish()
}
