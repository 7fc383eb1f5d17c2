//! Stanzas of a bound session: counted, stamped, handled, routed. One stanza is one record (architecture: `SmIn`).

use bytes::Bytes;
use xmpp_core::error::StanzaCondition;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::stanza::{Kind, Stanza};

use super::route::Route;
use super::{Engine, Output};
use crate::ids::{SmId, StanzaId};
use crate::record::Record;

/// Delayed delivery (XEP-0203 2.0).
pub(super) const DELAY: &str = "urn:xmpp:delay";

impl Engine {
    pub(super) fn stanza(&mut self, session: SmId, stanza: &Stanza, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        let number = s.inbound.wrapping_add(1);
        let id = StanzaId { session, number };
        let Ok(from) = s.user.with_resource(&s.resource) else { return };
        let (from, user): (Jid, BareJid) = ((*from).clone(), s.user.clone());
        let Some(stamped) = self.stamped(stanza, &from) else { return };
        let mut route = Route::default();
        if stamped.check_addresses().is_err() {
            self.bounce(&stamped, id, StanzaCondition::JidMalformed, &mut route);
        } else {
            match stamped.head.kind {
                Kind::Message => {
                    let to = stamped.head.to.clone().unwrap_or_else(|| (*user).clone());
                    self.route(&stamped, &to, id, &mut route);
                    self.carbons_sent(&stamped, session, &user, id, &mut route);
                }
                Kind::Presence => self.presence(session, &stamped, id, &mut route),
                Kind::Iq => self.iq(session, &user, &stamped, id, &mut route),
                Kind::Other => {}
            }
        }
        self.emit_with(Record::SmIn { session, number, effects: route.effects }, route.volatile, out);
    }

    /// S18: whatever the client wrote, the sender is the session; errors are built from the stamped stanza too. S43:
    /// what only this server says, that it kept a stanza, no client says in its name.
    fn stamped(&self, stanza: &Stanza, from: &Jid) -> Option<Stanza> {
        let mut stamped = stanza.stamp(from);
        if let Ok(forged) = stamped.as_ref()
            && forged.head.has_child(DELAY, "delay")
            && let Some(rest) = self.without_forged_delay(forged)
        {
            stamped = Stanza::from_bytes(rest);
        }
        debug_assert!(stamped.is_ok(), "rewriting broke a stanza");
        stamped.ok()
    }

    fn without_forged_delay(&self, stanza: &Stanza) -> Option<Bytes> {
        let ours = |from: &str| Jid::parse(from).is_ok_and(|jid| jid.as_str() == self.cfg.domain);
        stanza.without(|child| child.is(DELAY, "delay") && child.attr("from").is_none_or(ours))
    }
}
