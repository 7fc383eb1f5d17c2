//! Replay of both logs: before each own frame, what had been applied of the peer's when it was written; the rest of the
//! peer's last. So every record meets the state that it met at first.

use std::collections::VecDeque;

use presence_engine::ids::{Mode, NodeIx, Position, Term};
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

    /// To this frame of the peer's, and in the own log as far as nothing was written upon a later one.
    pub(super) fn peer_up_to(&mut self, seq: u64, log: &mut dyn LogStore) {
        while self.mine.peek(log).is_some_and(|frame| frame.applied_peer.seq <= seq) {
            let Some(frame) = self.next(log) else { return };
            apply(&mut self.base.state, self.me, &frame);
        }
        while self.theirs.peek(log).is_some_and(|frame| frame.at.seq <= seq) {
            self.step_peer(log);
        }
    }

    fn step_peer(&mut self, log: &mut dyn LogStore) -> bool {
        let Some(frame) = self.theirs.pop(log) else { return false };
        self.base.mark.peer.push(frame.at);
        self.base.mark.built_on_ours = self.base.mark.built_on_ours.max_by_seq(frame.applied_peer);
        self.base.mark.peer_leads.note(self.me.peer(), &frame);
        apply(&mut self.base.state, self.me.peer(), &frame);
        true
    }

    /// The last of the peer's frames that an own one was written upon.
    pub(super) fn built_on(&self) -> Position {
        self.base.mark.built_on
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

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Reg, SmId};

    use super::*;
    use crate::log::MemoryLog;

    /// Terms of both groups in every frame.
    const TERMS: [Term; 2] = [Term(6), Term(7)];

    fn frame(seq: u64, groups: u8, solo: u8, records: Vec<Record>) -> Frame {
        let at = |seq| Position { seq, inc: u64::from(seq > 0) };
        let applied_peer = Position::default();
        Frame { groups, solo, terms: TERMS, at: at(seq), prev: at(seq - 1), applied_peer, now_ms: 0, records }
    }

    fn lead(group: NodeIx, term: u64, mode: Mode) -> Record {
        let reg = Reg { term: Term(term), primary: NodeIx::A, mode, settled: Term(0) };
        Record::Lead { group, reg, at_ms: 0, late: false }
    }

    fn of_client() -> Record {
        Record::Trim { session: SmId([1; 16]), h: 0 }
    }

    /// Under which terms node a led alone, as it knows after a start with these records, each in a frame of its own.
    fn after_a_start(records: Vec<Record>) -> [Term; 2] {
        let mut log = MemoryLog::default();
        for (seq, record) in (1..).zip(records) {
            let frame = frame(seq, 3, 0, vec![record]);
            log.append(Which::Own, frame.at, frame.encode());
        }
        Replay::new(NodeIx::A, Base::default()).finish(&mut log).mark.alone
    }

    /// What waited when the group went Solo stands before that, in frames that do not say that it was let go alone.
    #[test]
    fn after_a_start_a_change_to_solo_counts_whatever_was_written_since() {
        let (pair, solo) = (lead(NodeIx::A, 4, Mode::Pair), lead(NodeIx::A, 6, Mode::Solo));
        assert_eq!(after_a_start(vec![of_client(), pair.clone()]), [Term(0); 2]);
        assert_eq!(after_a_start(vec![of_client(), solo.clone()]), [Term(6), Term(0)]);
        let again = lead(NodeIx::A, 8, Mode::Pair);
        assert_eq!(after_a_start(vec![pair, solo, again]), [Term(6), Term(0)], "it does not end with that");
        assert_eq!(after_a_start(vec![lead(NodeIx::B, 9, Mode::Solo)]), [Term(0), Term(9)]);
    }

    #[test]
    fn what_a_client_said_counts_in_a_group_that_was_led_alone_then() {
        let noted = |groups, solo, records| {
            let mut alone = [Term(0); 2];
            note_alone(&mut alone, &frame(1, groups, solo, records));
            alone
        };
        assert_eq!(noted(1, 1, vec![of_client()]), [Term(6), Term(0)]);
        assert_eq!(noted(3, 3, vec![lead(NodeIx::A, 6, Mode::Solo), of_client()]), TERMS);
        let none = [Term(0); 2];
        assert_eq!(noted(1, 2, vec![of_client()]), none, "the other group was led alone");
        assert_eq!(noted(2, 1, vec![of_client()]), none, "it is of the other group");
        assert_eq!(noted(1, 1, vec![lead(NodeIx::A, 6, Mode::Solo)]), none, "nobody said anything");
        assert_eq!(noted(1, 1, vec![Record::nothing()]), none, "it tells nobody anything");
    }
}
