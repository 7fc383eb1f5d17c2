//! Two branches meet after a partition (D7): what is written in the place of the cut tail of the own log, and what the
//! peer's offers are compared with.

use bytes::Bytes;
use presence_engine::ids::{Mode, NodeIx, Position, Reg};
use presence_engine::merge::{Merge, Seen, Spot, moves};
use presence_engine::record::Record;
use presence_engine::state::{JsmSession, Place, State};
use xmpp_core::jid::Jid;

use super::Driver;
use super::checkpoint::Base;
use super::replay::{Reader, Replay, apply};
use super::told::only_offers;
use crate::frame::Frame;
use crate::log::{Storage, Which};

/// What takes a tail's place.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) frames: Vec<Bytes>,
    /// The last of them.
    pub(super) end: Position,
    /// The state before they do.
    pub(super) before: State,
    /// Who led each group where the tail begins.
    pub(super) leads: [Option<Reg>; 2],
    /// When its last frame was written.
    pub(super) at_ms: u64,
}

/// What is left of it, as far as it was read.
#[derive(Debug)]
struct Left {
    frames: Vec<Bytes>,
    end: Position,
}

impl Left {
    /// One more frame, if something is left of it. One of no group answers nothing, and the peer takes no answer to what its log
    /// does not have: it is behind `upon`.
    fn push(&mut self, frame: Option<Frame>, upon: Position) {
        let Some(mut frame) = frame else { return };
        if frame.groups | frame.solo == 0 {
            frame.applied_peer = upon;
        }
        self.end = frame.at;
        self.frames.push(frame.encode());
    }
}

/// What of a tail had been let go alone.
#[derive(Debug)]
pub(super) struct LetGo {
    /// For each group, the last frame that says that its writer leads it alone; 0: none. What waited then was let go.
    alone_from: [u64; 2],
    /// Nothing was let go of this frame and what follows it.
    waits: u64,
}

impl LetGo {
    /// Of the tail of a log behind `keep`.
    pub(super) fn of_tail(which: Which, keep: u64, waits: u64, store: &mut dyn Storage) -> LetGo {
        let mut alone_from = [0; 2];
        let mut tail = Reader::new(which, keep + 1);
        while let Some(frame) = tail.pop(store) {
            for record in &frame.records {
                if let Record::Lead { group, reg, .. } = record
                    && reg.mode == Mode::Solo
                {
                    alone_from[group.index()] = frame.at.seq;
                }
            }
        }
        LetGo { alone_from, waits }
    }

    /// For each group, whether the records of this frame that belong to it were let go alone.
    fn groups(&self, frame: &Frame) -> [bool; 2] {
        let alone = |g: usize| frame.solo & (1 << g) != 0 || frame.at.seq < self.alone_from[g];
        [0, 1].map(|g| alone(g) && frame.at.seq < self.waits)
    }

    /// Whether anything that the frame says was.
    pub(super) fn has(&self, frame: &Frame) -> bool {
        let [a, b] = self.groups(frame);
        let says = frame.records.iter().any(|record| !record.says_nothing());
        says && frame.groups & (u8::from(a) | u8::from(b) << 1) != 0
    }

    fn spot(&self, frame: &Frame) -> Spot {
        Spot { released: self.groups(frame), at_ms: frame.now_ms }
    }
}

impl Driver {
    /// Frames that take the place of everything after `keep` in the own log, and the state before they do.
    pub(super) fn merged(&mut self, keep: u64, store: &mut dyn Storage) -> (Vec<Bytes>, State) {
        let prev = self.own.at(keep).unwrap_or_default();
        let merge = Merge::new(self.cfg.engine.me, self.led_on());
        let merged = self.merge_tail(keep, prev, merge, u64::MAX, store);
        (merged.frames, merged.before)
    }

    /// The same by this merge, behind `prev`. Nothing was let go of the frame `waits` and what follows it.
    pub(super) fn merge_tail(
        &mut self,
        keep: u64,
        prev: Position,
        mut merge: Merge,
        waits: u64,
        store: &mut dyn Storage,
    ) -> Merged {
        let me = self.cfg.engine.me;
        let let_go = LetGo::of_tail(Which::Own, keep, waits, store);
        let offers = self.look_ahead(keep, &mut merge, &let_go, store);
        let base = self.base(store);
        debug_assert!(base.mark.own.end().seq <= keep, "a store that is ahead of what is kept");
        let base = if base.mark.own.end().seq <= keep { base } else { Base::default() };
        let mut replay = Replay::new(me, base);
        let (mut left, mut leads, mut at_ms) = (Left { frames: Vec::new(), end: prev }, None, 0);
        // What the peer's log has on from here of what the last frame before was written upon.
        let mut upon = Some(replay.built_on()).filter(|at| self.stays(*at)).unwrap_or_default();
        while let Some(frame) = replay.next(store) {
            upon = self.upon(&frame, upon);
            let state = replay.state();
            if frame.at.seq <= keep {
                apply(state, me, &frame);
                continue;
            }
            if leads.is_none() {
                leads = Some(NodeIx::BOTH.map(|g| state.lead(g)));
                // They are of what was before the rest of the tail, wherever they stand in it.
                for frame in &offers {
                    let next = self.merge_frame(state, frame, &mut merge, let_go.spot(frame), left.end);
                    left.push(next, self.upon(frame, upon));
                }
            }
            at_ms = frame.now_ms.max(at_ms);
            if !only_offers(&frame) {
                let next = self.merge_frame(state, &frame, &mut merge, let_go.spot(&frame), left.end);
                left.push(next, upon);
            }
        }
        let (before, leads) = (replay.finish(store).state, leads.unwrap_or_default());
        Merged { frames: left.frames, end: left.end, before, leads, at_ms }
    }

    /// What the peer's log has on from here of what a frame was written upon; if that goes, `before`, of the frames before.
    fn upon(&self, frame: &Frame, before: Position) -> Position {
        if self.stays(frame.applied_peer) { frame.applied_peer } else { before }
    }

    /// Groups that this node leads, as far as either node knows, by index.
    pub(super) fn led_on(&self) -> [bool; 2] {
        NodeIx::BOTH.map(|g| !self.peer_leads_now(g))
    }

    /// Clients of the groups that this node leads on were given numbers by the old tail: they hold in the new one.
    pub(super) fn is_same_branch(&self, before: &State) -> bool {
        let now = self.engine.state();
        let led = |user| now.user(user).is_some_and(|u| !self.peer_leads_now(u.register));
        let counts = |s: &JsmSession| (s.inbound, s.acked, s.sent());
        before
            .sessions()
            .filter(|(_, s)| led(&s.user))
            .all(|(id, s)| now.session(id).map(counts) == Some(counts(s)))
    }

    /// Whether the peer's log has this on from here, as far as it has said.
    fn stays(&self, at: Position) -> bool {
        let parts = self.incoming.undoes().unwrap_or(u64::MAX);
        at.seq == 0 || at.seq <= parts && self.peer.at(at.seq) == Some(at)
    }

    /// What is left of one frame, behind `prev`.
    fn merge_frame(
        &self,
        state: &mut State,
        frame: &Frame,
        merge: &mut Merge,
        spot: Spot,
        prev: Position,
    ) -> Option<Frame> {
        let log = self.cfg.engine.me;
        let at = Position { seq: prev.seq + 1, inc: self.inc };
        let (mut old, mut new) = (Place { log, at: frame.at, forwards: 0 }, Place { log, at, forwards: 0 });
        let (mut groups, mut records) = (0, Vec::new());
        for record in &frame.records {
            for (mask, kept) in merge.keep(state, spot, old, &mut new, record) {
                groups |= mask;
                records.push(kept);
            }
            if !moves(record) {
                state.apply(&mut old, record);
            }
        }
        let led = u8::from(merge.led()[0]) | u8::from(merge.led()[1]) << 1;
        (!records.is_empty()).then(|| Frame {
            groups,
            solo: frame.solo & led,
            terms: self.view.regs.map(|reg| reg.map(|r| r.term).unwrap_or_default()),
            at,
            prev,
            applied_peer: frame.applied_peer,
            now_ms: frame.now_ms,
            records,
        })
    }

    /// `merge` sees each record of the tail. Frames that only offer, in order.
    fn look_ahead(
        &self,
        keep: u64,
        merge: &mut Merge,
        let_go: &LetGo,
        store: &mut dyn Storage,
    ) -> Vec<Frame> {
        let (mut tail, mut offers) = (Reader::new(Which::Own, keep + 1), Vec::new());
        while let Some(frame) = tail.pop(store) {
            let spot = let_go.spot(&frame);
            frame.records.iter().for_each(|record| merge.foresee(self.engine.state(), spot, record));
            if only_offers(&frame) {
                offers.push(frame);
            }
        }
        offers
    }

    /// Before offers are processed: what the branch that goes on took from clients, up to now. It stands in the log of the
    /// node that does not offer, behind what the offering one had of it when it wrote the offer. Read once: as long as more of
    /// the peer's tail may come, it is kept.
    pub(super) fn compare_offers(&mut self, store: &mut dyn Storage) {
        if !self.engine.state().has_offers() {
            if self.is_whole() && std::mem::take(&mut self.compared_to) != [None; 2] {
                *self.engine.seen() = Seen::default();
            }
            return;
        }
        for offers in NodeIx::BOTH {
            let first = self.engine.state().offers_in(offers).next().map(|(at, _)| at);
            let Some(first) = first.filter(|_| self.may_answer(offers)) else { continue };
            let other = self.log_of(offers.peer());
            let next = self.compared_to[offers.index()];
            let from = next.unwrap_or_else(|| self.had_at(offers, first, store) + 1).max(store.first(other));
            if next.is_none() {
                self.note_offers(offers, from, store);
            }
            let mut branch = Reader::new(other, from);
            let mut next = from;
            while let Some(frame) = branch.pop(store) {
                next = frame.at.seq + 1;
                frame.records.iter().for_each(|record| self.engine.seen().note(record, frame.now_ms));
            }
            self.compared_to[offers.index()] = Some(next);
        }
    }

    /// Tells offers that frames of the other log from `from` on may have answered, before this run or in it: they stand behind
    /// what the frame before had.
    fn note_offers(&mut self, offers: NodeIx, from: u64, store: &mut dyn Storage) {
        let (log, other) = (self.log_of(offers), self.log_of(offers.peer()));
        let before = from.saturating_sub(1);
        let before = if before < store.first(other) { None } else { Reader::new(other, before).pop(store) };
        let had = before.map_or(0, |frame| frame.applied_peer.seq);
        let mut tail = Reader::new(log, store.first(log).max(had + 1));
        while let Some(frame) = tail.pop(store) {
            let mut place = Place { log: offers, at: frame.at, forwards: 0 };
            frame.records.iter().for_each(|record| self.engine.seen().note_offers(&mut place, record));
        }
    }

    /// The peer answers what is offered to it. This node does that only where it has the addressees itself, or takes them over.
    fn may_answer(&self, offers: NodeIx) -> bool {
        let (me, state) = (self.cfg.engine.me, self.engine.state());
        let leads = NodeIx::BOTH.map(|group| !self.peer_leads_now(group));
        let mine = |to: &Jid| {
            let user = state.user(&to.to_bare());
            user.is_none_or(|user| state.owner(user) == Some(me) || leads[user.register.index()])
        };
        offers != me || state.offers_in(me).any(|(_, to)| mine(to))
    }

    /// How much of the other log, as it is now, a node had when it wrote this frame; if that is gone, because what is here began
    /// with a snapshot behind it, all that there is of the other is compared.
    pub(super) fn had_at(&self, writer: NodeIx, at: Position, store: &mut dyn Storage) -> u64 {
        let log = self.log_of(writer);
        if at.seq < store.first(log) {
            return 0;
        }
        let Some(frame) = Reader::new(log, at.seq).pop(store).filter(|frame| frame.at == at) else {
            return 0;
        };
        let other = if log == Which::Own { &self.peer } else { &self.own };
        let is_there = |had: Position| had.seq == 0 || other.at(had.seq) == Some(had);
        if is_there(frame.applied_peer) {
            return frame.applied_peer.seq;
        }
        // That went, and what has its number now is another: frames before had what stayed.
        let (mut before, mut had) = (Reader::new(log, store.first(log)), 0);
        while let Some(frame) = before.pop(store).filter(|frame| frame.at.seq < at.seq) {
            if is_there(frame.applied_peer) {
                had = frame.applied_peer.seq;
            }
        }
        had
    }

    fn log_of(&self, writer: NodeIx) -> Which {
        if writer == self.cfg.engine.me { Which::Own } else { Which::Peer }
    }
}
