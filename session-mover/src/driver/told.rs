//! An end of the peer's log that the peer lost, and that does not stand: it went on without it, and leads on whom that end speaks of.
//! This node may have led them alone upon it, and told senders that what they said in it is safe. So it is a void branch, as a tail of
//! our own is (D7): what was told is offered to whoever leads on, before our copy of it goes. What this node told nobody its sender
//! says again.
//!
//! What was told upon it stands in our own tail, which is void then too. Where that is cut first the offers are written with what is
//! left of it, at once. Else they are written behind it, and the copy is cut after that: a cut of the tail keeps them. So
//! they are there once, wherever this node dies.

use bytes::Bytes;
use presence_engine::ids::{Mode, NodeIx, Position, StanzaId};
use presence_engine::merge::{Merge, Seen, Spot, moves};
use presence_engine::record::{Effect, Record};
use presence_engine::state::{Place, State};
use xmpp_core::jid::Jid;

use super::Driver;
use super::ahead::groups_of;
use super::checkpoint::Base;
use super::replay::{Reader, Replay};
use super::ship::Phase;
use crate::frame::Frame;
use crate::log::{Storage, Which};

/// What is offered of such an end, and the stanzas of it that are.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) frames: Vec<Frame>,
    pub(super) seen: Seen,
}

impl Offers {
    pub(super) fn encode(&self) -> Vec<Bytes> {
        self.frames.iter().map(|frame| frame.encode()).collect()
    }
}

impl Driver {
    /// Before the own log is cut behind `keep`, and what it says of this with it: what stands first in the place of its tail.
    pub(super) fn offers_for_cut(&mut self, keep: u64, store: &mut dyn Storage) -> Offers {
        self.told_upon_copy = self.let_go_upon_copy(store);
        let told = self.told_upon_copy;
        let undone = self.incoming.undoes().filter(|parts| told.iter().any(|seq| seq > parts));
        let Some(parts) = undone else { return Offers::default() };
        if self.end_stands(parts, store) || !self.may_cut(Which::Peer, parts, store) {
            return Offers::default();
        }
        self.told_upon_copy = [0; 2];
        let prev = self.own.at(keep).unwrap_or_default();
        self.offers_of_copy(parts, told, prev, store)
    }

    /// Before the copy of the peer's log is cut behind `keep`: writes them behind our own. `false`: that lacks its end.
    pub(super) fn offer_what_was_told(&mut self, keep: u64, store: &mut dyn Storage) -> bool {
        let told = self.let_go_upon_copy(store);
        if told.iter().all(|seq| *seq <= keep) {
            return true;
        }
        if self.outgoing.phase == Phase::Fetching {
            return false;
        }
        let end = self.own.end();
        let offers = self.offers_of_copy(keep, told, end, store);
        if let Some(last) = offers.frames.last() {
            // The state is built anew when the copy is cut.
            store.replace_tail(Which::Own, end.seq, offers.encode());
            self.commit.restart(last.at.seq);
            self.cut_at = None;
        }
        true
    }

    /// Whether offers stand in the own log behind `keep`: what they are of was told alone.
    pub(super) fn has_offers_behind(&self, keep: u64, store: &mut dyn Storage) -> bool {
        let mut tail = Reader::new(Which::Own, keep + 1);
        while let Some(frame) = tail.pop(store) {
            let mut effects = frame.records.iter().flat_map(|record| record.effects());
            if effects.any(|effect| matches!(effect, Effect::Offer(_))) {
                return true;
            }
        }
        false
    }

    /// For each group, up to where clients were told something upon our copy of the peer's log, by this node alone.
    fn let_go_upon_copy(&self, store: &mut dyn Storage) -> [u64; 2] {
        let mut told = self.told_upon_copy;
        let Some(first) = self.first_answer(self.stored[Which::Peer as usize], store) else { return told };
        let waits = self.commit.waits_from();
        let mut answers = Reader::new(Which::Own, first);
        while let Some(frame) = answers.pop(store) {
            let upon = frame.applied_peer;
            let says = |record: &Record| !matches!(record, Record::Lead { .. }) && !record.says_nothing();
            let let_go = frame.at.seq < waits && frame.records.iter().any(says);
            if !let_go || self.peer.at(upon.seq) != Some(upon) {
                continue;
            }
            for group in NodeIx::BOTH {
                let g = group.index();
                if frame.solo & frame.groups & (1 << g) != 0 {
                    told[g] = told[g].max(upon.seq);
                }
            }
        }
        told
    }

    /// Whether the peer takes back what it lost behind `keep`, by what is known here of who leads: it decides.
    fn end_stands(&self, keep: u64, store: &mut dyn Storage) -> bool {
        let me = self.cfg.engine.me;
        let (mut end, mut groups) = (Reader::new(Which::Peer, keep + 1), 0);
        while let Some(frame) = end.pop(store) {
            groups |= groups_of(&frame);
        }
        NodeIx::BOTH.into_iter().any(|group| {
            let at_peer = group == me.peer();
            let says = at_peer || groups & (1 << group.index()) != 0;
            let leads = self.leader(group).filter(|reg| reg.primary == me);
            says && leads.is_some_and(|reg| at_peer || reg.mode == Mode::Solo)
        })
    }

    /// What is offered of the copy of the peer's log behind `keep`, in frames behind `prev`.
    fn offers_of_copy(
        &mut self,
        keep: u64,
        told: [u64; 2],
        mut prev: Position,
        store: &mut dyn Storage,
    ) -> Offers {
        let me = self.cfg.engine.me;
        let base = self.base(store);
        let base = if base.mark.peer.end().seq <= keep { base } else { Base::default() };
        let mut replay = Replay::new(me, base);
        replay.peer_up_to(keep, store);
        // Nobody whom this end speaks of is led here on.
        let mut merge = Merge::new(me, [false; 2]);
        let spot =
            |frame: &Frame| Spot { released: told.map(|seq| frame.at.seq <= seq), at_ms: frame.now_ms };
        let mut end = Reader::new(Which::Peer, keep + 1);
        while let Some(frame) = end.pop(store) {
            let state = self.engine.state();
            frame.records.iter().for_each(|record| merge.foresee(state, spot(&frame), record));
        }
        let mut offers = Offers::default();
        let mut end = Reader::new(Which::Peer, keep + 1);
        while let Some(frame) = end.pop(store) {
            let records = self.told_of(replay.state(), &frame, spot(&frame), &mut merge, &mut offers.seen);
            if records.is_empty() {
                continue;
            }
            let at = Position { seq: prev.seq + 1, inc: self.inc };
            offers.frames.push(Frame {
                groups: 0,
                solo: 0,
                terms: self.view.regs.map(|reg| reg.map(|r| r.term).unwrap_or_default()),
                at,
                prev,
                // All that the peer wrote since is compared with them.
                applied_peer: self.peer.at(keep).unwrap_or_default(),
                now_ms: frame.now_ms,
                records,
            });
            prev = at;
        }
        offers
    }

    /// What is offered of one frame of it. `seen` notes what is.
    fn told_of(
        &self,
        state: &mut State,
        frame: &Frame,
        spot: Spot,
        merge: &mut Merge,
        seen: &mut Seen,
    ) -> Vec<Record> {
        let place = Place { log: self.cfg.engine.me.peer(), at: frame.at, forwards: 0 };
        let (mut old, mut new, mut records) = (place, place, Vec::new());
        for record in &frame.records {
            let done = self.done_here(old, record);
            let lasts = |effect: &Effect| match effect {
                Effect::Offer(offer) => !done.iter().any(|(id, to)| (id, to) == (&offer.id, &offer.to)),
                _ => false,
            };
            for (_, kept) in merge.keep(state, spot, old, &mut new, record) {
                let Record::Kept { stanza, at_ms, effects } = kept else { continue };
                let effects: Vec<Effect> = effects.into_iter().filter(lasts).collect();
                if !effects.is_empty() {
                    seen.note(record, frame.now_ms);
                    records.push(Record::Kept { stanza, at_ms, effects });
                }
            }
            if !moves(record) {
                state.apply(&mut old, record);
            }
        }
        records
    }

    /// What a record of the peer's forwards to users who are led here on, and that was done: our own log says so.
    fn done_here(&self, mut place: Place, record: &Record) -> Vec<(StanzaId, Jid)> {
        let state = self.engine.state();
        let mut done = Vec::new();
        for effect in record.effects() {
            match effect {
                Effect::Forward(forward) | Effect::Offer(forward) => {
                    let id = place.next_forward();
                    let user = state.user(&forward.to.to_bare());
                    let led = user.is_none_or(|user| !self.peer_leads_now(user.register));
                    if led && state.undone_forward(id).is_none() {
                        done.push((forward.id, forward.to.clone()));
                    }
                }
                Effect::FanOut { to, .. } => to.iter().for_each(|_| _ = place.next_forward()),
                _ => {}
            }
        }
        done
    }
}
