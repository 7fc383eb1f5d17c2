//! What a session without stream management was given and does not have (D1): it is in the log, and its output waits.
//!
//! What was let go counts as delivered: no client says more. What was not is lost with the stream if nobody keeps it. Only
//! who puts it out knows which is which, so it is no part of the state: it is written down when it matters, as what the
//! session drops ([`Record::Trim`], which means nothing to a session without stream management in the version before),
//! and as messages for offline storage.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::edge::Phase;
use super::{Engine, Output};
use crate::ids::{Conn, SmId, StanzaId};
use crate::record::{Effect, Record};
use crate::state::{Early, Entry, JsmSession, MOST_DUE};

/// An output that waits.
#[derive(Clone, Copy, Debug)]
struct Waits {
    id: StanzaId,
    /// Its frame.
    seq: u64,
    /// Nobody gets it any more: it waits for ever.
    void: bool,
}

/// Of sessions without stream management: what waits to be let go, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unreleased(BTreeMap<SmId, VecDeque<Waits>>);

impl Unreleased {
    fn waits(&self, session: SmId, stanza: StanzaId) -> bool {
        self.0.get(&session).is_some_and(|waits| waits.iter().any(|w| w.id == stanza))
    }

    fn is_void(&self, session: SmId, stanza: StanzaId) -> bool {
        self.0.get(&session).is_some_and(|waits| waits.iter().any(|w| w.id == stanza && w.void))
    }

    /// The session's stream is gone: what waits for it is let go to nobody.
    fn end(&mut self, session: SmId) {
        self.0.get_mut(&session).into_iter().flatten().for_each(|w| w.void = true);
    }

    /// Nothing of what waits will ever be let go.
    pub(super) fn end_all(&mut self) {
        self.0.values_mut().flatten().for_each(|w| w.void = true);
    }
}

impl Engine {
    /// Outputs of frames from this one on wait; those of all before it were let go. `u64::MAX`: none waits.
    pub fn waits_from(&mut self, seq: u64) {
        for waits in self.unreleased.0.values_mut() {
            waits.retain(|w| w.void || w.seq >= seq);
        }
    }

    /// What a record is about to give to streams without stream management.
    pub(super) fn find_early(&self, record: &Record, effects: &[Effect], early: &mut Vec<(SmId, StanzaId)>) {
        let plain = |session: SmId| {
            let s = self.state.session(session).filter(|s| s.enabled_at.is_none());
            s.filter(|_| self.edge.conn_of(session).is_some())
        };
        let stored = |session: SmId, count: u32| {
            let user = plain(session).and_then(|s| Some((self.state.user(&s.user)?, &s.resource)));
            let messages = user.into_iter().flat_map(|(u, resource)| u.offline.of(resource));
            messages.take(count as usize).map(|message| (session, message.id)).collect::<Vec<_>>()
        };
        if let Record::Flush { session, count } = record {
            early.extend(stored(*session, *count));
        }
        for effect in effects {
            match effect {
                Effect::FlushOffline { session, count } => early.extend(stored(*session, *count)),
                Effect::Out { to, id, keep: true, .. } if plain(*to).is_some() => early.push((*to, *id)),
                _ => {}
            }
        }
    }

    /// It was given: its output waits with this turn's frame.
    pub(super) fn note_early(&mut self, given: Vec<(SmId, StanzaId)>) {
        for (session, id) in given {
            let waits = Waits { id, seq: self.turn.at.seq, void: false };
            self.unreleased.0.entry(session).or_default().push_back(waits);
        }
    }

    /// A client is gone, and not by a word of ours that stands behind what waits for it.
    pub(super) fn client_gone(&mut self, conn: Conn) {
        if let Some(Phase::Bound(session)) = self.edge.phase(conn) {
            self.unreleased.end(session);
        }
    }

    /// Writes down what was let go.
    pub(super) fn drop_early(&mut self, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session).filter(|s| s.enabled_at.is_none()) else { return };
        let gone = s.early.iter().take_while(|early| !self.unreleased.waits(session, early.id)).count();
        if gone > 0 {
            self.emit(Record::Trim { session, h: gone as u32 }, out);
        }
    }

    /// The same for all streams.
    pub(super) fn drop_all_early(&mut self, out: &mut Vec<Output>) {
        for session in self.unreleased.0.keys().copied().collect::<Vec<_>>() {
            let s = self.state.session(session).filter(|s| s.enabled_at.is_none());
            let served = s.is_some_and(|s| self.serves(&s.user)) && self.edge.conn_of(session).is_some();
            if served {
                self.drop_early(session, out);
            }
            // Nothing is known any more that matters: it has all, or numbers what it gets, or is gone.
            let matters = |s: &JsmSession| s.enabled_at.is_none() && !s.early.is_empty();
            if !self.state.session(session).is_some_and(matters) {
                self.unreleased.0.remove(&session);
            }
        }
    }

    /// A stream goes on whose client was not told of its session: it was given nothing.
    pub(super) fn deliver_early(&mut self, conn: Conn, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        out.extend(s.early.iter().map(|early| Output::Deliver(conn, early.stanza.clone())));
        if s.enabled_at.is_none() {
            let again = s.early.iter().map(|early| (session, early.id)).collect();
            self.unreleased.0.remove(&session);
            self.note_early(again);
        }
    }

    /// A session is about to end: what it was given early and does not have goes offline. Before the record of the end,
    /// which brings what is in its queue: that is younger.
    pub(super) fn give_back_early(&mut self, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        // With stream management everything that it has not acknowledged is given back, and this was not.
        let lacks = |early: &&Early| s.enabled_at.is_some() || self.unreleased.is_void(session, early.id);
        let effects = self.for_storage(session, s, s.early.iter().filter(lacks));
        if !effects.is_empty() {
            let number = s.inbound;
            self.emit(Record::SmIn { session, number, effects }, out);
        }
        self.unreleased.0.remove(&session);
    }

    /// As [`crate::state::OfflineQueue`] has what comes back: open if nobody else has it or waits for it. An effect only adds
    /// to that queue. So each message is stored once, and none that the resource gets without: what waits there for it, or
    /// comes back with the end. Of what is not open none is stored while [`MOST_DUE`] such wait: the oldest would not go for it.
    fn for_storage<'a>(
        &self,
        session: SmId,
        s: &JsmSession,
        given: impl Iterator<Item = &'a Early>,
    ) -> Vec<Effect> {
        let Some(user) = self.state.user(&s.user) else { return Vec::new() };
        let mut room = MOST_DUE.saturating_sub(user.offline.iter().filter(|message| !message.open).count());
        let (mut effects, mut looked_at) = (Vec::new(), BTreeSet::new());
        for early in given {
            let id = early.id;
            let comes =
                |entry: &Entry| matches!(entry, Entry::Stanza { id: other, keep: true, .. } if *other == id);
            let mut stored = user.offline.iter().filter(|message| message.id == id).peekable();
            let waits = stored.peek().is_some();
            if !looked_at.insert(id) || stored.any(|m| m.is_for(&s.resource)) || s.out.iter().any(comes) {
                continue;
            }
            let mut others = self.sessions_of(&s.user).filter(|(other, _)| *other != session);
            let open = !early.seen && !waits && !others.any(|(_, s)| s.holds(id) || s.early.holds(id));
            if !open && room == 0 {
                continue;
            }
            room -= usize::from(!open);
            let (user, at_ms, due) = (s.user.clone(), self.stored_at(&s.user), vec![s.resource.clone()]);
            effects.push(Effect::Offline { user, id, at_ms, open, due, stanza: early.stanza.clone() });
        }
        effects
    }
}
