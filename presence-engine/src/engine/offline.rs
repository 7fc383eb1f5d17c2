//! Offline messages (XEP-0160) on their way in and out. Who is to get which is told in `state/offline.rs`.

use compact_str::CompactString;
use xmpp_core::error::StanzaCondition;
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::stanza::Stanza;

use super::route::{HINTS, Route, is_volatile};
use super::{Engine, Output};
use crate::ids::{SmId, StanzaId};
use crate::record::{Effect, Record};
use crate::state::{JsmSession, Offline};

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

impl Engine {
    /// Keeps a message: for whoever is available next (`open`), and for the resources that are `due`. What may not be
    /// stored is not lost in silence: its sender gets an error.
    pub(super) fn store(
        &self,
        stanza: &Stanza,
        user: &BareJid,
        id: StanzaId,
        open: bool,
        due: Vec<CompactString>,
        route: &mut Route,
    ) {
        if is_volatile(stanza) {
            return;
        }
        let head = &stanza.head;
        let forbidden = head.has_child(HINTS, "no-store") || head.has_child(HINTS, "no-permanent-store");
        if forbidden && !head.has_child(ns::CLIENT, "body") {
            return;
        }
        let full = self.state.user(user).is_some_and(|u| {
            u.offline.len() >= self.cfg.limits.offline_messages
                || u.offline.bytes() + stanza.bytes.len() as u64 > self.cfg.limits.offline_bytes
        });
        if full || forbidden {
            // Somebody has it: for the sender it arrived.
            if open {
                self.bounce(stanza, id, StanzaCondition::ServiceUnavailable, route);
            }
            return;
        }
        let (user, at_ms, stanza) = (user.clone(), self.stored_at(user), stanza.bytes.clone());
        route.effects.push(Effect::Offline { user, id, at_ms, open, due, stanza });
    }

    /// The time stamp of what is stored for a user now: never before what waits already, whatever clock that was stored by. A
    /// clock that was set back, or that of the node which took over, may be behind. One that was ahead by more than a day was
    /// wrong: that stays with what was stored by it.
    pub(super) fn stored_at(&self, user: &BareJid) -> u64 {
        let newest =
            self.state.user(user).and_then(|u| u.offline.newest()).map_or(0, |message| message.at_ms);
        let now = self.turn.now_ms;
        if newest > now + DAY_MS { now } else { newest.max(now) }
    }

    /// Sessions that have older messages to take first, by resource; and the others.
    pub(super) fn by_backlog(&self, sessions: &[SmId]) -> (Vec<CompactString>, Vec<SmId>) {
        let (mut behind, mut ready) = (Vec::new(), Vec::new());
        for id in sessions {
            match self.state.session(*id).filter(|s| self.has_backlog(s)) {
                Some(s) => behind.push(s.resource.clone()),
                None => ready.push(*id),
            }
        }
        (behind, ready)
    }

    /// It has older messages to take: what is stored, if it is given that (XEP-0160 3), or, before its first presence,
    /// what its predecessor of the same resource left.
    fn has_backlog(&self, s: &JsmSession) -> bool {
        match s.priority {
            Some(priority) => priority >= 0 && self.backlog(s).next().is_some(),
            None => self.backlog(s).any(|m| m.due.contains(&s.resource)),
        }
    }

    fn backlog<'a>(&'a self, s: &'a JsmSession) -> impl Iterator<Item = &'a Offline> {
        self.state.user(&s.user).into_iter().flat_map(|u| u.offline.of(&s.resource))
    }

    /// How many stored messages a session may take now: half of its queue is for them (S28). A client without stream
    /// management has no queue: what is written to it is delivered.
    pub(super) fn room(&self, s: &JsmSession) -> u32 {
        if s.enabled_at.is_none() {
            return u32::MAX;
        }
        let limits = &self.cfg.limits;
        let (mut count, mut bytes) = (0, s.out_bytes);
        for message in self.backlog(s) {
            bytes += message.stanza.len() as u64;
            let fits = bytes <= limits.queue_bytes / 2
                && ((s.out_stanzas + count) as usize) < limits.queue_stanzas / 2;
            // Into an empty queue goes one, whatever its size.
            if !fits && (count > 0 || s.out_stanzas > 0) {
                break;
            }
            count += 1;
        }
        count
    }

    /// A session acknowledged something: is there more for it?
    pub(super) fn flush_more(&mut self, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session).filter(|s| s.priority.is_some() && self.has_backlog(s))
        else {
            return;
        };
        let count = self.room(s);
        if count > 0 {
            self.emit(Record::Flush { session, count }, out);
        }
    }

    /// A session of this account ended, and what it had not acknowledged is for whoever is available.
    pub(super) fn flush_others(&mut self, user: &BareJid, out: &mut Vec<Output>) {
        let sessions: Vec<SmId> = self.sessions_of(user).map(|(id, _)| id).collect();
        sessions.into_iter().for_each(|session| self.flush_more(session, out));
    }
}
