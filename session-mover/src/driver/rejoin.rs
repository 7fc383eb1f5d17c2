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
struct Reader {
    which: Which,
    next: u64,
    frames: VecDeque<Frame>,
}

impl Reader {
    fn new(which: Which) -> Reader {
        Reader { which, next: 1, frames: VecDeque::new() }
    }

    fn peek(&mut self, store: &mut dyn LogStore) -> Option<&Frame> {
        if self.frames.is_empty() {
            let read = store.read(self.which, self.next, CHUNK);
            self.next += read.len() as u64;
            // Damage was found and cut when the log was opened; what is read here was checked.
            self.frames.extend(read.iter().map_while(|bytes| Frame::decode(bytes).ok()));
        }
        self.frames.front()
    }

    fn pop(&mut self, store: &mut dyn LogStore) -> Option<Frame> {
        self.peek(store)?;
        self.frames.pop_front()
    }
}

fn apply(state: &mut State, log: NodeIx, frame: &Frame) {
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
        let (mut mine, mut theirs) = (Reader::new(Which::Own), Reader::new(Which::Peer));
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

    /// Sets the tail of a log aside and builds the state anew. A new incarnation begins with a cut of the own log.
    pub(super) fn cut(&mut self, which: Which, keep: u64, store: &mut dyn LogStore) {
        let end = match which {
            Which::Own => self.own.end().seq,
            Which::Peer => self.peer.end().seq,
        };
        if end <= keep {
            return;
        }
        let released = self.released_alone(which, keep, store);
        store.truncate(which, keep);
        if which == Which::Own {
            // A cut leaves nothing that is not on disk.
            self.commit.restart(keep);
            self.inc = self.inc.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1) | 1;
        }
        self.dos.push(Do::SetAside(which, end - keep, released));
        self.rebuild(store);
    }

    /// Frames after `keep` that were written while their writer led alone: their effects may have been seen (D7).
    fn released_alone(&mut self, which: Which, keep: u64, store: &mut dyn LogStore) -> u64 {
        let mut reader = Reader { which, next: keep + 1, frames: VecDeque::new() };
        let mut released = 0;
        while let Some(frame) = reader.pop(store) {
            released += u64::from(frame.solo & frame.groups != 0);
        }
        released
    }
}
