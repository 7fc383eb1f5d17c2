//! The way back: replay of both logs, and cutting a divergent tail.

use bytes::Bytes;
use presence_engine::engine::Output;
use presence_engine::ids::NodeIx;
use presence_engine::merge::{Merge, Seen};
use presence_engine::record::Record;

use super::checkpoint::Base;
use super::commit::Release;
use super::merge::LetGo;
use super::replay::{Reader, Replay};
use super::{Do, Driver, Link};
use crate::log::{Storage, Which};

impl Driver {
    /// Builds the state from the store and both logs.
    pub(super) fn rebuild(&mut self, store: &mut dyn Storage) {
        self.checkpoint = None;
        let mut base = self.base(store);
        if !self.follows(&base.mark, store) {
            self.set_all_aside(store);
            base = Base::default();
        }
        self.stored = [base.mark.own.end().seq, base.mark.peer.end().seq];
        self.behind |= base.mark.behind;
        if store.store().is_used() {
            base.state.note_changes();
        }
        let found = Replay::new(self.cfg.engine.me, base).finish(store);
        let (mark, state) = (found.mark, found.state);
        let built_on = mark.built_on;
        let known = built_on.seq == 0 || mark.peer.at(built_on.seq).is_some() || self.void == Some(built_on);
        self.lacks = (!known).then_some(built_on);
        self.applied = mark.peer.end();
        self.built_on_ours = mark.built_on_ours;
        (self.own, self.peer, self.built_on, self.alone) = (mark.own, mark.peer, built_on, mark.alone);
        (self.own_leads, self.peer_leads) = (mark.own_leads, mark.peer_leads);
        self.unprocessed.clear();
        (self.compared_to, *self.engine.seen()) = ([None; 2], Seen::default());
        self.rebuilds += 1;
        let mut outputs = Vec::new();
        for (user, u) in state.users() {
            outputs.push(Output::Account(user.clone(), Some(u.verifiers.clone())));
        }
        self.look_for_doubts(store);
        self.engine.waits_from(self.commit.waits_from());
        self.engine.rebuilt(state, self.commit.clear(), &mut outputs);
        self.dos.extend(outputs.into_iter().map(Do::Release));
    }

    /// Whom this node handed over in frames that the peer is not known to have. If the peer took the own group over it took
    /// these users too, or it has the hand-overs, and nobody here knows which: until the logs are compared nobody serves them
    /// here, though their group by this log be led here since (D4).
    fn look_for_doubts(&mut self, store: &mut dyn Storage) {
        let known = self.commit.peer_end().max(self.built_on_ours.seq).max(self.stored[0]);
        let mut reader = Reader::new(Which::Own, store.first(Which::Own).max(known + 1));
        self.doubts.clear();
        while let Some(frame) = reader.pop(store) {
            for record in frame.records {
                if let Record::HandOver { user, .. } = record {
                    self.doubts.push((frame.at.seq, user));
                }
            }
        }
        self.tell_doubts();
    }

    /// The peer has our log up to here: what it has of these hand-overs stands.
    pub(super) fn no_doubts_up_to(&mut self, seq: u64) {
        if !self.doubts.is_empty() {
            self.doubts.retain(|(at, _)| *at > seq);
            self.tell_doubts();
        }
    }

    /// Who leads the own group alone has decided.
    pub(super) fn tell_doubts(&mut self) {
        let alone = matches!(self.view.release[self.cfg.engine.me.index()], Release::Alone(_));
        let users = self.doubts.iter().filter(|_| !alone).map(|(_, user)| user.clone());
        self.engine.set_doubtful(users.collect());
    }

    /// This node gave a group away that no user belongs to: nothing of it can be void.
    pub fn give_away(&mut self, group: NodeIx) {
        self.commit.waive(group);
        self.release();
    }

    /// This node no longer leads what it led: nothing that waits may leave, memory is built anew (D8). Both ends of the
    /// own log are compared again before it goes on: its tail may be void.
    pub fn lose_role(&mut self, store: &mut dyn Storage) {
        self.rebuild(store);
        self.leave_ahead();
        self.compared = false;
        // What is in our log answers nothing that could still be lost with this process.
        store.sync(Which::Peer);
        self.commit.copied(self.peer.end().seq);
        if self.outgoing.is_up() {
            self.greet_again(Link::Out, "this node lost a role: compare the logs");
        }
    }

    /// Sets the tail of the copy of the peer's log aside and builds the state anew.
    pub(super) fn cut_copy(&mut self, keep: u64, store: &mut dyn Storage) {
        let end = self.peer.end().seq;
        if end <= keep {
            return;
        }
        let released = self.released_alone(Which::Peer, keep, store);
        store.replace_tail(Which::Peer, keep, Vec::new());
        (self.kept, self.peer_own, self.told_upon_copy) = (keep, self.peer_own.min(keep), [0; 2]);
        self.cut_store(Which::Peer, keep, store);
        self.commit.copy_is(keep);
        self.dos.push(Do::SetAside(Which::Peer, end - keep, released, 0));
        self.rebuild(store);
    }

    /// Sets the tail of the own log aside and writes in its place what is left of it (D7), behind what was told alone of an end of
    /// the peer's that it was written upon, if that goes too.
    pub(super) fn cut_own(&mut self, keep: u64, store: &mut dyn Storage) {
        self.begin_incarnation();
        let offers = self.offers_for_cut(keep, store);
        let kept = self.own.at(keep).unwrap_or_default();
        let prev = offers.frames.last().map_or(kept, |frame| frame.at);
        let mut instead = offers.encode();
        let merge = Merge::new(self.cfg.engine.me, self.led_on()).behind(offers.seen);
        let merged = self.merge_tail(keep, prev, merge, u64::MAX, store);
        instead.extend(merged.frames);
        self.replace_own(keep, instead, 0, store);
        debug_assert!(self.is_same_branch(&merged.before), "a merge changed numbers that clients were given");
    }

    /// What is written from here on is another history than what was written before.
    pub(super) fn begin_incarnation(&mut self) {
        self.inc = self.inc.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1) | 1;
    }

    /// A new incarnation has begun; the state is built anew. The first `fetched` frames come from the peer's copy, and are not
    /// left of the tail.
    pub(super) fn replace_own(
        &mut self,
        keep: u64,
        instead: Vec<Bytes>,
        fetched: u64,
        store: &mut dyn Storage,
    ) {
        let (end, kept) = (self.own.end().seq, instead.len() as u64);
        let released = self.released_alone(Which::Own, keep, store);
        store.replace_tail(Which::Own, keep, instead);
        (self.peer_kept, self.alone_to) = (self.peer_kept.min(keep), self.alone_to.min(keep));
        self.cut_store(Which::Own, keep, store);
        // That leaves nothing that is not on disk.
        self.commit.restart(keep + kept);
        self.dos.push(Do::SetAside(Which::Own, end - keep, released, kept - fetched));
        self.rebuild(store);
    }

    /// Frames after `keep` that their writer let go alone: their effects may have been seen (D7).
    pub(super) fn released_alone(&mut self, which: Which, keep: u64, store: &mut dyn Storage) -> u64 {
        let let_go = LetGo::of_tail(which, keep, u64::MAX, store);
        let mut reader = Reader::new(which, keep + 1);
        let mut released = 0;
        while let Some(frame) = reader.pop(store) {
            released += u64::from(let_go.has(&frame));
        }
        released
    }
}
