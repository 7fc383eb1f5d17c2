//! An end of the peer's log that the peer lost, and that does not stand: it went on without it, and leads on whom that end speaks of.
//! This node may have led them alone upon it, and told senders that what they said in it is safe. So it is a void branch, as a tail of
//! our own is (D7): what was told is offered to whoever leads on, before our copy of it goes. What this node told nobody its sender
//! says again.
//!
//! What was told upon it stands in our own tail, which is void then too. Where that is cut first the offers are written with what is
//! left of it, at once; so it is not cut before the peer said what it lost. Else they are written behind it, and the copy is cut
//! after that: a cut of the tail keeps them, and who dies in between offers nothing twice. An offer answers nothing: it stays when
//! answers go to what the peer lost.

use std::collections::BTreeSet;

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

/// What is offered of such an end.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) frames: Vec<Frame>,
    /// The stanzas of it that are.
    pub(super) seen: Seen,
    /// What is offered already, and to whom.
    there: BTreeSet<(StanzaId, String)>,
}

impl Offers {
    /// For a log that has these already behind `keep`.
    fn behind(which: Which, keep: u64, store: &mut dyn Storage) -> Offers {
        let (mut tail, mut offers) = (Reader::new(which, keep + 1), Offers::default());
        while let Some(frame) = tail.pop(store) {
            for effect in frame.records.iter().flat_map(Record::effects) {
                if let Effect::Offer(offer) = effect {
                    offers.there.insert((offer.id, offer.to.to_string()));
                }
            }
        }
        offers
    }

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
        if !self.may_cut(Which::Peer, parts, store) || self.end_stands(parts, store) {
            return Offers::default();
        }
        self.told_upon_copy = [0; 2];
        let prev = self.own.at(keep).unwrap_or_default();
        let offers = Offers::behind(Which::Own, keep, store);
        self.offers_of_copy(parts, told, prev, offers, store)
    }

    /// Whether clients were told something upon our copy of the peer's log, and it is not known yet whether that stands.
    pub(super) fn may_be_undone(&self, store: &mut dyn Storage) -> bool {
        self.peer_boot() != Some(self.outgoing.boot) && self.let_go_upon_copy(store) != [0; 2]
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
        let (end, first) = (self.own.end(), self.first_answer(keep, store));
        let from = first.unwrap_or_else(|| store.first(Which::Own));
        let offers = Offers::behind(Which::Own, from - 1, store);
        let offers = self.offers_of_copy(keep, told, end, offers, store);
        if let Some(last) = offers.frames.last() {
            // The state is built anew when the copy is cut.
            store.replace_tail(Which::Own, end.seq, offers.encode());
            self.commit.restart(last.at.seq);
            self.cut_at = None;
        }
        true
    }

    /// Sets the tail of the own log aside, which answers what our copy of the peer's has, or had, behind `upon`. Offers answer
    /// nothing, and stay.
    pub(super) fn drop_answers(&mut self, keep: u64, upon: u64, store: &mut dyn Storage) {
        self.begin_incarnation();
        let applied_peer = self.peer.at(upon.min(self.peer.end().seq)).unwrap_or_default();
        let (mut prev, mut left) = (self.own.at(keep).unwrap_or_default(), Vec::new());
        let mut tail = Reader::new(Which::Own, keep + 1);
        while let Some(frame) = tail.pop(store) {
            let records: Vec<_> = frame.records.iter().filter_map(offers_of).collect();
            if !records.is_empty() {
                let at = Position { seq: prev.seq + 1, inc: self.inc };
                let offers = Frame { groups: 0, solo: 0, at, prev, applied_peer, records, ..frame };
                left.push(offers.encode());
                prev = at;
            }
        }
        let nothing = left.is_empty();
        self.replace_own(keep, left, 0, store);
        self.cut_at = nothing.then_some(keep);
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
        mut offers: Offers,
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
        let mut end = Reader::new(Which::Peer, keep + 1);
        while let Some(frame) = end.pop(store) {
            let records = self.told_of(replay.state(), &frame, spot(&frame), &mut merge, &mut offers);
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

    /// What is offered of one frame of it, which `offers` notes.
    fn told_of(
        &self,
        state: &mut State,
        frame: &Frame,
        spot: Spot,
        merge: &mut Merge,
        offers: &mut Offers,
    ) -> Vec<Record> {
        let place = Place { log: self.cfg.engine.me.peer(), at: frame.at, forwards: 0 };
        let (mut old, mut new, mut records) = (place, place, Vec::new());
        for record in &frame.records {
            let done = self.done_here(old, record);
            let lasts = |effect: &Effect| match effect {
                Effect::Offer(offer) => {
                    let done = done.iter().any(|(id, to)| (id, to) == (&offer.id, &offer.to));
                    !done && !offers.there.contains(&(offer.id, offer.to.to_string()))
                }
                _ => false,
            };
            for (_, kept) in merge.keep(state, spot, old, &mut new, record) {
                let Record::Kept { stanza, at_ms, effects } = kept else { continue };
                let effects: Vec<Effect> = effects.into_iter().filter(lasts).collect();
                if !effects.is_empty() {
                    offers.seen.note(record, frame.now_ms);
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

/// What of a record is offered, if something is.
fn offers_of(record: &Record) -> Option<Record> {
    let Record::Kept { stanza, at_ms, effects } = record else { return None };
    let offers = effects.iter().filter(|effect| matches!(effect, Effect::Offer(_)));
    let effects: Vec<_> = offers.cloned().collect();
    (!effects.is_empty()).then_some(Record::Kept { stanza: *stanza, at_ms: *at_ms, effects })
}

/// Whether a frame offers, and says nothing else: that answers nothing.
pub(super) fn only_offers(frame: &Frame) -> bool {
    let offers = |effect: &Effect| matches!(effect, Effect::Offer(_));
    frame.groups == 0
        && frame
            .records
            .iter()
            .all(|record| matches!(record, Record::Kept { .. }) && record.effects().iter().all(offers))
}
