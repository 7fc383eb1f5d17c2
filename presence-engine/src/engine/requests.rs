//! Requests (IQ get and set) get an answer whatever happens (D10).
//!
//! What the server answers itself is an effect of the request: the record that counts the request holds the answer, in
//! the session's queue, until the client acknowledges it. So a new owner gives it again, and nothing more is needed.
//! Requests between clients need two things: a session that ends returns those that its client never acknowledged, and
//! one that waits for a node which does not answer is called off.

use std::collections::BTreeMap;

use bytes::Bytes;
use xmpp_core::error::StanzaCondition;
use xmpp_core::stanza::{Kind, Stanza};

use super::route::Route;
use super::{Engine, Output};
use crate::ids::RecordId;
use crate::record::Record;
use crate::state::{Entry, JsmSession};

/// How long a request to a user of the other node waits for that node, in milliseconds.
const OVERDUE_MS: u64 = 30_000;

/// Requests that wait for the other node, and since when: no part of the state, because time begins anew with an owner.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<RecordId, u64>);

/// A request, if these bytes are one. They are not looked into unless the element is an IQ.
fn request(bytes: &Bytes) -> Option<Stanza> {
    let end = bytes.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))?;
    if !bytes[..end].ends_with(b"iq") {
        return None;
    }
    let stanza = Stanza::from_bytes(bytes.clone()).ok()?;
    let asks = matches!(stanza.head.type_.as_deref(), Some("get" | "set"));
    (stanza.head.kind == Kind::Iq && asks).then_some(stanza)
}

impl Engine {
    /// A forward of ours was not done at once.
    pub(super) fn note_waiting(&mut self, id: RecordId) {
        let waits = self.state.undone_forward(id).is_some_and(|forward| request(&forward.stanza).is_some());
        if waits {
            self.waiting.0.entry(id).or_insert(self.turn.now_ms);
        }
    }

    /// This node came to serve a group: what its users asked before is waited for from now on.
    pub(super) fn note_all_waiting(&mut self) {
        let all: Vec<RecordId> = self.state.undone().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| self.note_waiting(id));
    }

    /// This node serves nobody for now.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.0.clear();
    }

    /// Calls off what has waited too long: `remote-server-timeout` to whoever asked.
    pub(super) fn call_off_overdue(&mut self, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        self.waiting.0.retain(|id, _| self.state.undone_forward(*id).is_some());
        let overdue = self.waiting.0.iter().filter(|(_, since)| now.saturating_sub(**since) >= OVERDUE_MS);
        for id in overdue.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(forward) = self.state.undone_forward(id) else { continue };
            let asker = self.state.session(forward.id.session).map(|s| &s.user);
            // Whoever asked may have moved to the other node: then that one waits.
            if !asker.is_some_and(|user| self.serves(user)) {
                continue;
            }
            let Some(stanza) = request(&forward.stanza) else { continue };
            let mut route = Route::default();
            self.bounce(&stanza, forward.id, StanzaCondition::RemoteServerTimeout, &mut route);
            self.emit(Record::Cancel { forward: id, effects: route.effects }, out);
        }
    }

    /// A session ends: requests of others that its client has not acknowledged are answered as if they came now.
    pub(super) fn return_requests(&self, s: &JsmSession, route: &mut Route) {
        for entry in &s.out {
            let Entry::Stanza { id, keep: false, stanza, .. } = entry else { continue };
            let Some(stanza) = request(stanza) else { continue };
            // A roster push is our own, and what the client asks itself ends with it.
            let of_other = stanza.head.from.as_ref().is_some_and(|from| {
                from.resource().is_some_and(|r| r != s.resource || !s.user.same_bare(from))
            });
            if of_other {
                self.bounce(&stanza, *id, StanzaCondition::ServiceUnavailable, route);
            }
        }
    }
}
