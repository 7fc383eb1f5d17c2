//! What a node does to see that it works: a record that says nothing, and a stanza that it sends to itself.

use xmpp_core::jid::Jid;
use xmpp_core::stanza::Stanza;

use super::route::Route;
use super::{Engine, Output};
use crate::ids::{Conn, SmId, StanzaId};
use crate::record::Record;

/// Resource of the domain that a node's stanzas to itself come from. Nobody can send from it: clients' stanzas are stamped.
const SELF: &str = "self";

impl Engine {
    /// A record that says nothing goes the way of all records. One that leads nothing writes nothing.
    pub(super) fn write_nothing(&mut self, out: &mut Vec<Output>) {
        if self.serving[self.cfg.me.index()] {
            self.emit(Record::nothing(), out);
        }
    }

    /// A request of the server to itself, handled as a client's is: stamped, answered by the handler, routed to its
    /// sender. It belongs to no session, so it is in no count, queue or archive, and nothing is written down of it.
    pub(super) fn loop_back(&mut self, stanza: &Stanza, out: &mut Vec<Output>) {
        let Some(me) = self.own_address() else { return };
        let Ok(stamped) = stanza.stamp(&me) else { return };
        let nobody = StanzaId { session: SmId::default(), number: 0 };
        let mut route = Route::default();
        self.iq(nobody.session, &me.to_bare(), &stamped, nobody, &mut route);
        let conn = Conn { node: self.cfg.me, number: Conn::SELF };
        out.extend(route.to_self.into_iter().map(|bytes| Output::Deliver(conn, bytes)));
    }

    /// Whether an answer is for the server itself.
    pub(super) fn is_self(&self, to: &Jid) -> bool {
        to.local().is_none() && to.resource() == Some(SELF) && to.domain() == self.cfg.domain
    }

    fn own_address(&self) -> Option<Jid> {
        Jid::parse(&format!("{}/{SELF}", self.cfg.domain)).ok()
    }
}
