//! The peer's log: its records are applied as they are; what it forwards to users of this node is processed (D3).

use xmpp_core::stanza::{Kind, Stanza};

use super::emit::may_change_owners;
use super::route::Route;
use super::{Engine, Output};
use crate::ids::{Position, RecordId};
use crate::merge::{Seen, Word, question, word};
use crate::record::{Forward, Record};
use crate::state::Place;

impl Engine {
    /// Applies a frame of the peer's log. `own_end`: the last frame of our log that it builds on. Returns the forwards that it brought; they are processed after all frames
    /// of the turn are applied, so that a replay meets the same order.
    pub fn apply_peer(
        &mut self,
        at: Position,
        own_end: Position,
        records: &[Record],
        out: &mut Vec<Output>,
    ) -> Vec<RecordId> {
        // A node that lost its disk hears the peer's log before it has its own again. It is built anew from both then.
        let whole = own_end.seq < self.turn.at.seq;
        let mut place = Place { log: self.cfg.me.peer(), at, forwards: 0 };
        let mut all = false;
        for record in records {
            self.account_of_peer(record, out);
            if let Record::HandOver { user, to, counters, .. } = record {
                if *to == self.cfg.me {
                    self.forget_remote(user);
                    self.arrived.push(user.clone());
                }
                for (id, inbound, sent) in counters {
                    let here = self.state.session(*id).map(|s| (s.inbound, s.sent()));
                    debug_assert!(
                        !whole || here == Some((*inbound, *sent)),
                        "{user} in {at:?}: the standby's counters {here:?} differ from the owner's {inbound}, {sent}"
                    );
                }
            }
            all |= matches!(record, Record::HandOver { .. } | Record::Lead { .. });
            self.owners_changed |= may_change_owners(record);
            self.state.apply(&mut place, record);
            self.note_given(record);
        }
        if all {
            // Users came here: whatever is undone for them, in either log, comes first.
            return self.state.undone_in_order();
        }
        let brought = |index| RecordId { log: place.log, at, index };
        (0..place.forwards).map(brought).collect()
    }

    /// The peer goes on as the front of the streams that it had, behind everything that it has put out for them.
    fn note_given(&mut self, record: &Record) {
        let Record::HandOver { to, counters, .. } = record else { return };
        if *to != self.cfg.me {
            return;
        }
        let state = &self.state;
        if self.given.len() > 2 * state.session_count() + 16 {
            self.given.retain(|id, _| state.session(*id).is_some());
        }
        let streams = |id| state.session(id).map(|s| s.streams);
        self.given.extend(counters.iter().filter_map(|(id, _, sent)| Some((*id, (streams(*id)?, *sent)))));
    }

    /// Processes forwards that were brought, then what waited for them.
    pub fn process(&mut self, forwards: Vec<RecordId>, out: &mut Vec<Output>) {
        for id in forwards {
            let found = self.state.undone_forward(id).cloned();
            if let Some(forward) = found {
                self.process_one(id, forward, out);
            }
        }
        if std::mem::take(&mut self.owners_changed) {
            self.adopt(out);
        }
        debug_assert!(!self.misses_a_front(), "a front of a user whom this node serves");
        // A session that came without a stream waits for its client from now on, or ends.
        for user in std::mem::take(&mut self.arrived) {
            if self.serves(&user) {
                self.orphans_of(&user, out);
            }
        }
        self.retry(out);
    }

    /// Everything undone for users of this node.
    pub(super) fn process_all(&mut self, out: &mut Vec<Output>) {
        for id in self.state.undone_in_order() {
            if let Some(forward) = self.state.undone_forward(id).cloned() {
                self.process_one(id, forward, out);
            }
        }
    }

    /// What this node's branch of a partition took from clients: offers of the other branch are compared with it (D7).
    pub fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    /// Whether the addressee has this stanza from another branch of the sender's session (D7). Presence is what a session is
    /// now: another branch had another, if under the same number. What is said of subscriptions may be answered once more, if
    /// the answer came where nobody had asked yet.
    fn is_there(&mut self, id: RecordId, forward: &Forward, stanza: &Stanza) -> bool {
        let is_offer = self.state.is_offer(id);
        if is_offer {
            self.seen.compares(id);
        }
        let offered_twice = is_offer && self.seen.has(forward);
        let is_now = stanza.head.kind == Kind::Presence;
        offered_twice || !is_now && self.state.was_kept(forward.id, &forward.to.to_bare())
    }

    /// Whether a forward is ours to process. One for an account that was removed meanwhile belongs to whoever leads the
    /// group that it was sent to: it bounces.
    pub(super) fn processes(&self, id: RecordId, forward: &Forward) -> bool {
        let user = forward.to.to_bare();
        if self.state.user(&user).is_some() {
            return self.serves(&user);
        }
        let group = id.log.peer();
        let leads = self.state.lead(group).is_some_and(|reg| reg.primary == self.cfg.me);
        leads && self.serving[group.index()]
    }

    pub(super) fn process_one(&mut self, id: RecordId, forward: Forward, out: &mut Vec<Output>) {
        if !self.processes(id, &forward) {
            return;
        }
        // Checked by the node that took it from the client; a failure here would be our own bug.
        let Ok(stanza) = Stanza::from_bytes(forward.stanza.clone()) else {
            debug_assert!(false, "a forward that is no stanza");
            return;
        };
        if question(&stanza, &forward.to).is_some() {
            return self.questions.note(id);
        }
        if self.is_there(id, &forward, &stanza) {
            return self.emit(Record::Done { forward: id, effects: Vec::new() }, out);
        }
        self.handle_forward(id, &forward, &stanza, out);
    }

    /// Does what a forward says.
    pub(super) fn handle_forward(
        &mut self,
        id: RecordId,
        forward: &Forward,
        stanza: &Stanza,
        out: &mut Vec<Output>,
    ) {
        if self.is_poison(id, stanza, out) {
            return;
        }
        let before = self.processing(id, stanza);
        let mut route = Route::default();
        match word(stanza, &forward.to).filter(|_| self.state.is_offer(id)) {
            Some((said, contact)) => {
                let user = forward.to.to_bare();
                if said.lists() && self.is_full_for(&user, &contact) {
                    out.push(Output::RosterFull(user, contact));
                }
                self.hear(said, stanza, forward, &mut route);
            }
            None => self.route(stanza, &forward.to, forward.id, &mut route),
        }
        self.emit_with(Record::Done { forward: id, effects: route.effects }, route.volatile, out);
        self.processed(before);
    }

    /// A user whom this node serves said this of the own roster in a void branch (D7). What cannot be done any more, because
    /// the contact is gone or the roster is full, is not: nobody waits for an answer. The contact's end follows (`merge/ends.rs`).
    fn hear(&self, said: Word, stanza: &Stanza, forward: &Forward, route: &mut Route) {
        let user = forward.to.to_bare();
        match said {
            Word::Ask(ask) => self.ask(&user, stanza, ask, forward.id, route),
            Word::Set | Word::Remove => {
                let query = stanza.payload();
                _ = query.map(|query| self.write_roster(&user, &query, forward.id, route));
            }
        }
    }
}
