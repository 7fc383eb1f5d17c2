//! The way back: replay of both logs, and cutting a divergent tail.

use std::collections::VecDeque;

use presence_engine::engine::Output;
use presence_engine::ids::{NodeIx, Position};
use presence_engine::state::{Place, State};

use super::leads::Leads;
use super::{Do, Driver, Link};
use crate::frame::Frame;
use crate::log::{LogStore, Which};
use crate::runs::Runs;

/// Bytes that one read of a log brings.
const CHUNK: usize = 1 << 20;

/// Reads one log frame by frame.
pub(super) struct Reader {
    which: Which,
    next: u64,
    frames: VecDeque<Frame>,
}

impl Reader {
    pub(super) fn new(which: Which, from: u64) -> Reader {
        Reader { which, next: from, frames: VecDeque::new() }
    }

    pub(super) fn peek(&mut self, store: &mut dyn LogStore) -> Option<&Frame> {
        if self.frames.is_empty() {
            let read = store.read(self.which, self.next, CHUNK);
            self.next += read.len() as u64;
            // Damage was found and cut when the log was opened; what is read here was checked.
            self.frames.extend(read.iter().map_while(|bytes| Frame::decode(bytes).ok()));
        }
        self.frames.front()
    }

    pub(super) fn pop(&mut self, store: &mut dyn LogStore) -> Option<Frame> {
        self.peek(store)?;
        self.frames.pop_front()
    }
}

pub(super) fn apply(state: &mut State, log: NodeIx, frame: &Frame) {
    let mut place = Place { log, at: frame.at, forwards: 0 };
    frame.records.iter().for_each(|record| state.apply(&mut place, record));
}

impl Driver {
    /// Builds the state from both logs: before each own frame, what had been applied of the peer's when it was
    /// written; the rest of the peer's last. So every record meets the state that it met at first.
    pub(super) fn rebuild(&mut self, store: &mut dyn LogStore) {
        let me = self.cfg.engine.me;
        let mut state = State::default();
        let (mut own, mut peer) = (Runs::default(), Runs::default());
        let mut built_on = Position::default();
        let (mut own_leads, mut peer_leads) = (Leads::default(), Leads::default());
        let (mut mine, mut theirs) = (Reader::new(Which::Own, 1), Reader::new(Which::Peer, 1));
        while let Some(frame) = mine.pop(store) {
            let built = frame.applied_peer;
            while theirs.peek(store).is_some_and(|f| f.at.seq <= built.seq && !peer.parted(f.at, built)) {
                let f = theirs.pop(store).expect("just seen");
                peer.push(f.at);
                peer_leads.note(me.peer(), &f);
                apply(&mut state, me.peer(), &f);
            }
            if frame.applied_peer.seq > built_on.seq {
                built_on = frame.applied_peer;
            }
            own.push(frame.at);
            self.note_alone(&frame);
            self.suppose_alone(&frame);
            own_leads.note(me, &frame);
            apply(&mut state, me, &frame);
        }
        while let Some(f) = theirs.pop(store) {
            peer.push(f.at);
            peer_leads.note(me.peer(), &f);
            apply(&mut state, me.peer(), &f);
        }
        let known = built_on.seq == 0 || peer.at(built_on.seq).is_some() || self.void == Some(built_on);
        self.lacks = (!known).then_some(built_on);
        self.applied = peer.end();
        (self.own, self.peer) = (own, peer);
        (self.own_leads, self.peer_leads) = (own_leads, peer_leads);
        self.unprocessed.clear();
        self.rebuilds += 1;
        let mut outputs = Vec::new();
        for (user, u) in state.users() {
            outputs.push(Output::Account(user.clone(), u.verifiers.clone()));
        }
        self.engine.rebuilt(state, self.commit.clear(), &mut outputs);
        self.dos.extend(outputs.into_iter().map(Do::Release));
    }

    /// This node gave a group away that no user belongs to: nothing of it can be void.
    pub fn give_away(&mut self, group: NodeIx) {
        self.commit.waive(group);
        self.release();
    }

    /// This node no longer leads what it led: nothing that waits may leave, memory is built anew (D8). Both ends of the
    /// own log are compared again before it goes on: its tail may be void.
    pub fn lose_role(&mut self, store: &mut dyn LogStore) {
        self.rebuild(store);
        if self.outgoing.is_up() {
            self.close(Link::Out, "this node lost a role: compare the logs");
        }
    }

    /// Sets the tail of the copy of the peer's log aside and builds the state anew.
    pub(super) fn cut_copy(&mut self, keep: u64, store: &mut dyn LogStore) {
        let end = self.peer.end().seq;
        if end <= keep {
            return;
        }
        let released = self.released_alone(Which::Peer, keep, store);
        store.replace_tail(Which::Peer, keep, Vec::new());
        self.dos.push(Do::SetAside(Which::Peer, end - keep, released, 0));
        self.rebuild(store);
    }

    /// Sets the tail of the own log aside, writes in its place what is left of it (D7), and builds the state anew. A
    /// new incarnation begins.
    pub(super) fn cut_own(&mut self, keep: u64, store: &mut dyn LogStore) {
        let end = self.own.end().seq;
        if end <= keep {
            return;
        }
        let released = self.released_alone(Which::Own, keep, store);
        self.inc = self.inc.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1) | 1;
        let (instead, before) = self.merged(keep, store);
        let kept = instead.len() as u64;
        store.replace_tail(Which::Own, keep, instead);
        // That leaves nothing that is not on disk.
        self.commit.restart(keep + kept);
        self.dos.push(Do::SetAside(Which::Own, end - keep, released, kept));
        self.rebuild(store);
        debug_assert!(self.is_same_branch(&before), "a merge changed numbers that clients were given");
    }

    /// Frames after `keep` that were written while their writer led alone: their effects may have been seen (D7).
    fn released_alone(&mut self, which: Which, keep: u64, store: &mut dyn LogStore) -> u64 {
        let mut reader = Reader::new(which, keep + 1);
        let mut released = 0;
        while let Some(frame) = reader.pop(store) {
            released += u64::from(frame.solo & frame.groups != 0);
        }
        released
    }
}
