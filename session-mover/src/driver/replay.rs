//! Replay of both logs: before each own frame, what had been applied of the peer's when it was written; the rest of the
//! peer's last. So every record meets the state that it met at first.

use std::collections::VecDeque;

use presence_engine::ids::{Mode, NodeIx, Term};
use presence_engine::record::Record;
use presence_engine::state::{Place, State};

use super::checkpoint::Base;
use crate::frame::Frame;
use crate::log::{LogStore, Which};

/// Bytes that one read of a log brings.
const CHUNK: usize = 1 << 20;

/// Reads one log frame by frame.
#[derive(Debug)]
pub(super) struct Reader {
    which: Which,
    next: u64,
    frames: VecDeque<Frame>,
}

impl Reader {
    pub(super) fn new(which: Which, from: u64) -> Reader {
        Reader { which, next: from, frames: VecDeque::new() }
    }

    fn peek(&mut self, log: &mut dyn LogStore) -> Option<&Frame> {
        if self.frames.is_empty() {
            let read = log.read(self.which, self.next, CHUNK);
            self.next += read.len() as u64;
            // Damage was found and cut when the log was opened; what is read here was checked.
            self.frames.extend(read.iter().map_while(|bytes| Frame::decode(bytes).ok()));
        }
        self.frames.front()
    }

    pub(super) fn pop(&mut self, log: &mut dyn LogStore) -> Option<Frame> {
        self.peek(log)?;
        self.frames.pop_front()
    }
}

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replay {
    me: NodeIx,
    mine: Reader,
    theirs: Reader,
    base: Base,
}

impl Replay {
    /// A replay of what stands in the logs behind `base`.
    pub(super) fn new(me: NodeIx, base: Base) -> Replay {
        let mine = Reader::new(Which::Own, base.mark.own.end().seq + 1);
        let theirs = Reader::new(Which::Peer, base.mark.peer.end().seq + 1);
        Replay { me, mine, theirs, base }
    }

    /// The next own frame, not applied yet; everything that it was written upon is.
    pub(super) fn next(&mut self, log: &mut dyn LogStore) -> Option<Frame> {
        let frame = self.mine.pop(log)?;
        let built = frame.applied_peer;
        while let Some(f) = self.theirs.peek(log)
            && f.at.seq <= built.seq
            && !self.base.mark.peer.parted(f.at, built)
        {
            self.step_peer(log);
        }
        let mark = &mut self.base.mark;
        mark.built_on = mark.built_on.max_by_seq(frame.applied_peer);
        mark.own.push(frame.at);
        note_alone(&mut mark.alone, &frame);
        suppose_alone(&mut mark.alone, &frame);
        mark.own_leads.note(self.me, &frame);
        Some(frame)
    }

    fn step_peer(&mut self, log: &mut dyn LogStore) -> bool {
        let Some(frame) = self.theirs.pop(log) else { return false };
        self.base.mark.peer.push(frame.at);
        self.base.mark.built_on_ours = self.base.mark.built_on_ours.max_by_seq(frame.applied_peer);
        self.base.mark.peer_leads.note(self.me.peer(), &frame);
        apply(&mut self.base.state, self.me.peer(), &frame);
        true
    }

    /// This branch as it is before the frame that [`Replay::next`] gave.
    pub(super) fn state(&mut self) -> &mut State {
        &mut self.base.state
    }

    /// To the ends of both logs.
    pub(super) fn finish(mut self, log: &mut dyn LogStore) -> Base {
        while let Some(frame) = self.next(log) {
            apply(&mut self.base.state, self.me, &frame);
        }
        while self.step_peer(log) {}
        self.base
    }
}

pub(super) fn apply(state: &mut State, log: NodeIx, frame: &Frame) {
    let mut place = Place { log, at: frame.at, forwards: 0 };
    frame.records.iter().for_each(|record| state.apply(&mut place, record));
}

/// Client records while the group was led alone (R0). One that says nothing tells nobody anything.
pub(super) fn note_alone(alone: &mut [Term; 2], frame: &Frame) {
    for g in NodeIx::BOTH {
        let bit = 1 << g.index();
        let clients = frame.records.iter().any(|r| !matches!(r, Record::Lead { .. }) && !r.says_nothing());
        if frame.solo & frame.groups & bit != 0 && clients {
            alone[g.index()] = frame.terms[g.index()];
        }
    }
}

/// What waited when the group went Solo was let go alone, and stands in the log from before: after a restart nobody
/// knows whether there was any.
fn suppose_alone(alone: &mut [Term; 2], frame: &Frame) {
    for record in &frame.records {
        if let Record::Lead { group, reg, .. } = record
            && reg.mode == Mode::Solo
        {
            alone[group.index()] = reg.term;
        }
    }
}
