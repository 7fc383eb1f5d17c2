//! How a record leaves the engine: applied, put out, its effects written to live connections in the order in which
//! sessions number them, and whatever follows from it for users of this node.

use bytes::Bytes;
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;

use super::roster::roster_changes;
use super::{Engine, Output};
use crate::ids::{Conn, RecordId, SmId};
use crate::merge::mask_of;
use crate::record::{Effect, Record};
use crate::state::with_delay;

impl Engine {
    /// Appends a record to the turn.
    pub(super) fn emit(&mut self, record: Record, out: &mut Vec<Output>) {
        self.emit_with(record, Vec::new(), out);
    }

    /// Appends a record with gaps to the turn. `volatile`: what the gaps stand for, one for each `Effect::Gap`.
    pub(super) fn emit_with(&mut self, record: Record, volatile: Vec<Bytes>, out: &mut Vec<Output>) {
        let mut live = std::mem::take(&mut self.live);
        self.find_live(&record, volatile, &mut live);
        let mut early = Vec::new();
        self.find_early(&record, record.effects(), &mut early);
        let groups = self.groups(&record);
        let before = self.place.forwards;
        self.roster_changes += roster_changes(record.effects());
        self.owners_changed |= may_change_owners(&record);
        self.state.apply(&mut self.place, &record);
        // By the clock of this node.
        if let Record::Detached { session, at_ms } = record {
            self.waiting_since.insert(session, (at_ms, at_ms));
        }
        self.note_early(early);
        let full = self.overfull(&record);
        out.push(Output::Record { groups, record });
        for (conn, bytes) in live.drain(..) {
            self.edge.delivered(conn, &self.state);
            out.push(Output::Deliver(conn, bytes));
        }
        self.live = live;
        // Forwards to users of this node are done at once, each with a record of its own.
        for index in before..self.place.forwards {
            let id = RecordId { log: self.place.log, at: self.place.at, index };
            let Some(forward) = self.state.undone_forward(id) else { continue };
            if self.processes(id, forward) {
                self.process_one(id, forward.clone(), out);
            }
            self.note_waiting(id);
        }
        for session in full {
            self.give_up(session, out);
        }
    }

    /// What the effects of a record put on live connections, in order.
    fn find_live(&self, record: &Record, volatile: Vec<Bytes>, live: &mut Vec<(Conn, Bytes)>) {
        let mut volatile = volatile.into_iter();
        for effect in record.effects() {
            match effect {
                Effect::Out { to, stanza, .. } => {
                    live.extend(self.edge.conn_of(*to).map(|conn| (conn, stanza.clone())));
                }
                Effect::Gap { about, to } => {
                    let Some(bytes) = volatile.next() else {
                        debug_assert!(false, "a gap without the stanza that it stands for");
                        continue;
                    };
                    for session in to {
                        let Some(conn) = self.edge.conn_of(*session) else { continue };
                        let user = self.state.session(*session).map(|s| &s.user);
                        let bytes = match (about, user) {
                            (Some(_), Some(user)) => addressed(&bytes, user),
                            _ => bytes.clone(),
                        };
                        live.push((conn, bytes));
                    }
                }
                Effect::FlushOffline { session, count } => live.extend(self.stored(*session, *count)),
                _ => {}
            }
        }
        if let Record::Flush { session, count } = record {
            live.extend(self.stored(*session, *count));
        }
    }

    /// What a session takes from offline storage.
    fn stored(&self, session: SmId, count: u32) -> Vec<(Conn, Bytes)> {
        let s = self.state.session(session);
        let user = s.and_then(|s| self.state.user(&s.user));
        let (Some(conn), Some(s), Some(user)) = (self.edge.conn_of(session), s, user) else {
            return Vec::new();
        };
        let taken = user.offline.of(&s.resource).take(count as usize);
        taken.map(|m| (conn, with_delay(&m.stanza, &self.cfg.domain, m.at_ms))).collect()
    }

    /// Sessions whose queue a record made longer than it may be (S28).
    fn overfull(&self, record: &Record) -> Vec<SmId> {
        let mut full = Vec::new();
        let mut look = |session: &SmId| {
            let over = self.state.session(*session).is_some_and(|s| {
                let limits = &self.cfg.limits;
                let gaps = s.out.len() - s.out_stanzas as usize + s.missed.len();
                s.out_stanzas as usize > limits.queue_stanzas
                    || s.out_bytes > limits.queue_bytes
                    || gaps > limits.queue_gaps
            });
            if over && !full.contains(session) {
                full.push(*session);
            }
        };
        for effect in record.effects() {
            match effect {
                Effect::Out { to: session, .. } => look(session),
                Effect::Gap { to, .. } => to.iter().for_each(&mut look),
                _ => {}
            }
        }
        full
    }

    /// The client does not acknowledge what it gets: its session ends, what is kept goes offline.
    fn give_up(&mut self, session: SmId, out: &mut Vec<Output>) {
        let error = StreamError::new(StreamCondition::ResourceConstraint)
            .with_text("too much waits for your acknowledgement; log in again");
        for conn in [self.edge.conn_of(session), self.edge.parked_of(session)].into_iter().flatten() {
            self.edge.remove(conn);
            out.push(Output::Close(conn, error.to_bytes(), true));
        }
        self.end_session(session, out);
    }

    /// Mask of the groups that a record belongs to: its frame must be safe for each of them.
    fn groups(&self, record: &Record) -> u8 {
        let of_user = |user: &BareJid| self.state.user(user).map_or(0, |u| 1 << u.register.index());
        let of_session = |id: &SmId| self.state.session(*id).map_or(0, |s| of_user(&s.user));
        let of_effects = mask_of(&self.state, record.effects());
        let of_record = match record {
            Record::Lead { group, .. } => 1 << group.index(),
            Record::UserAdd { home, .. } => 1 << self.state.register_of_new(*home, self.cfg.me).index(),
            Record::Bind { user, .. }
            | Record::HandOver { user, .. }
            | Record::UserPasswd { user, .. }
            | Record::Assign { user, .. }
            | Record::UserRemove { user, .. } => of_user(user),
            Record::Enable { session, .. }
            | Record::Dual { session }
            | Record::Token { session, .. }
            | Record::Trim { session, .. }
            | Record::Resumed { session, .. }
            | Record::Reattached { session, .. }
            | Record::Detached { session, .. }
            | Record::End { session, .. }
            | Record::Lapse { session, .. }
            | Record::Flush { session, .. }
            | Record::SmIn { session, .. } => of_session(session),
            // Done is done for its addressee, even if nothing came of it.
            Record::Done { forward, .. } => {
                let of = self.state.undone_forward(*forward).map_or(0, |f| of_user(&f.to.to_bare()));
                // For an account that was removed meanwhile.
                if of == 0 { 1 << forward.log.peer().index() } else { of }
            }
            // The asker's; without one left, whoever has it in its log.
            Record::Cancel { forward, .. } => {
                let of = self.state.undone_forward(*forward).map_or(0, |f| of_session(&f.id.session));
                if of == 0 { 1 << self.cfg.me.index() } else { of }
            }
            // Of no session: the node's own, whomever its effects are for.
            Record::Kept { .. } | Record::Away { .. } | Record::Group(_) => 1 << self.cfg.me.index(),
            Record::Absorb { .. } => 0b11,
        };
        of_effects | of_record
    }
}

/// Whether a record may change which node owns some user.
pub(super) fn may_change_owners(record: &Record) -> bool {
    use Record::{Absorb, HandOver, Lead, UserAdd, UserRemove};
    matches!(record, Lead { .. } | HandOver { .. } | Absorb { .. } | UserAdd { .. } | UserRemove { .. })
}

/// A presence stanza that has no addressee, with one. Only its start tag changes.
pub(super) fn addressed(presence: &Bytes, to: &BareJid) -> Bytes {
    let name_end = presence.iter().position(|c| c.is_ascii_whitespace() || matches!(c, b'/' | b'>'));
    let (name, rest) = presence.split_at(name_end.unwrap_or(presence.len()));
    let mut tag = String::from_utf8_lossy(name).into_owned();
    tag.push_str(" to='");
    xmpp_core::xml::write::escape_attr(&mut tag, to.as_str());
    tag.push('\'');
    let mut bytes = tag.into_bytes();
    bytes.extend_from_slice(rest);
    Bytes::from(bytes)
}
