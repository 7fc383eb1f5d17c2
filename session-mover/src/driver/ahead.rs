//! An end of our own log that this node lost, and that only the peer has: it took our users over with it, or went on alone with
//! its own whom we had led, and this node, back before it heard of that, went on without it. What the peer told its clients rests
//! on that end, so it stands (D7, D8): it is fetched, and what is left of our own tail is written behind it, both at once. Until
//! then our log is as it was, so a death on the way leaves what was there before, and the same happens again.
//!
//! Where the peer leads its own users only, and that end turns out to say nothing of them, nothing that goes on rests on it: the
//! peer sets it aside.
//!
//! Where that end says nothing of the groups that this node leads on, their records in the tail stay as they are: they are of
//! other users. Else clients of those groups were given numbers by the tail that do not hold behind it. Then all of the tail is
//! a void branch: what its senders were told is safe is offered, to this node itself where that leads the addressee, and
//! sessions that were there before are uncertain (D6).

use bytes::Bytes;
use presence_engine::ids::{Mode, NodeIx, Position, Reg};
use presence_engine::merge::{Merge, Seen, moves};
use presence_engine::record::Record;
use tracing::info;

use super::merge::Merged;
use super::receive::OLD_DISK;
use super::ship::Phase;
use super::{Do, Driver, Link};
use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::msg::Msg;
use crate::runs::Runs;

/// Bytes of such an end: it is in memory at once. What a node can lose that was not on its disk yet is less (D9): the disk had lost
/// more than its power.
const MOST: usize = 64 << 20;
/// Why two nodes do not talk: an operator must choose.
pub(super) const TOO_LONG: &str = "the peer has more of this node's log, and told clients more upon it, than this node can take \
                                   back beside what it told alone. Stop the node whose clients were told less since they \
                                   parted, move its data folder away, keep it, and start the node again";

/// Such an end, as far as it has come in.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Where it parts from our log.
    keep: u64,
    /// The peer's copy of our log.
    copy: Runs,
    end: Position,
    frames: Vec<Bytes>,
    bytes: usize,
    /// Groups that it says something of, as a bit mask.
    groups: u8,
    /// Who led each group, by its last word on that.
    leads: [Option<Reg>; 2],
    seen: Seen,
    /// What the peer wrote was applied before this was asked for.
    compared: bool,
}

impl Ahead {
    fn add(&mut self, frame: &Frame, bytes: Bytes) {
        self.groups |= groups_of(frame);
        for record in &frame.records {
            if let Record::Lead { group, reg, .. } = record {
                self.leads[group.index()] = Some(*reg);
            }
            self.seen.note(record, frame.now_ms);
        }
        self.end = frame.at;
        self.bytes += bytes.len();
        if self.is_too_long() {
            // It goes, or nothing is done: who it is of is all that is asked of it.
            (self.frames, self.seen) = (Vec::new(), Seen::default());
        } else {
            self.frames.push(bytes);
        }
    }

    fn is_too_long(&self) -> bool {
        self.bytes > MOST
    }
}

/// Groups that a frame says something of, as a bit mask.
pub(super) fn groups_of(frame: &Frame) -> u8 {
    let of_both = |record: &Record| moves(record) || matches!(record, Record::UserRemove { .. });
    if frame.records.iter().any(of_both) { 0b11 } else { frame.groups }
}

impl Driver {
    /// Asks for the end of our log that the peer may have built upon, if there is one, and our own log went on without it.
    /// `true`: nothing else is to be done now.
    pub(super) fn fetches_ahead(
        &mut self,
        common: u64,
        copy: &Runs,
        first_void: Option<u64>,
        store: &mut dyn Storage,
    ) -> bool {
        let parted = copy.end().seq > common && self.own.end().seq > common;
        if !parted || !NodeIx::BOTH.into_iter().any(|group| self.peer_may_build(group)) {
            return false;
        }
        if self.stored[Which::Own as usize] > common {
            self.close(Link::Out, OLD_DISK);
            return true;
        }
        // Of a tail that is void as a whole nothing may be left: then our log is just shorter.
        if first_void == Some(common + 1) && self.merged(common, store).0.is_empty() {
            return false;
        }
        if self.too_long == Some(copy.end()) {
            self.close(Link::Out, TOO_LONG);
            return true;
        }
        self.outgoing.ahead = Some(Ahead {
            keep: common,
            copy: copy.clone(),
            end: self.own.at(common).unwrap_or_default(),
            frames: Vec::new(),
            bytes: 0,
            groups: 0,
            leads: [None; 2],
            seen: Seen::default(),
            // What the peer wrote upon that end is applied behind it.
            compared: std::mem::take(&mut self.compared),
        });
        self.outgoing.phase = Phase::Fetching;
        self.dos.push(Do::Send(Link::Out, Msg::Fetch(common + 1)));
        true
    }

    /// What the peer told clients of this group, whom it leads now, may rest on what it has of our log and we do not: it took
    /// our own users over, or went on alone with its own.
    fn peer_may_build(&self, group: NodeIx) -> bool {
        let me = self.cfg.engine.me;
        let leader = self.leader(group).filter(|reg| reg.primary != me);
        leader.is_some_and(|reg| group == me || reg.mode == Mode::Solo)
    }

    /// Whether an end of our log that says something of these groups stands. Our own users it speaks of anyway.
    fn is_built_upon(&self, groups: u8) -> bool {
        let says = |group: NodeIx| group == self.cfg.engine.me || groups & (1 << group.index()) != 0;
        NodeIx::BOTH.into_iter().any(|group| says(group) && self.peer_may_build(group))
    }

    /// A piece of it.
    pub(super) fn on_ahead(&mut self, frames: Vec<Bytes>, last: bool, store: &mut dyn Storage) {
        let Some(ahead) = &mut self.outgoing.ahead else { return };
        for bytes in frames {
            let Ok(frame) = Frame::decode(&bytes) else { return self.close(Link::Out, "a damaged frame") };
            if frame.prev != ahead.end {
                return self.close(Link::Out, "a frame that does not follow");
            }
            ahead.add(&frame, bytes);
        }
        let (groups, too_long, next, whole) =
            (ahead.groups, ahead.is_too_long(), ahead.end.seq + 1, ahead.copy.end());
        if too_long && self.is_built_upon(groups) {
            self.too_long = Some(whole);
            return self.close(Link::Out, TOO_LONG);
        }
        if !last {
            return self.dos.push(Do::Send(Link::Out, Msg::Fetch(next)));
        }
        let regs = self.outgoing.peer_regs;
        let settled = NodeIx::BOTH.into_iter().all(|group| !self.in_conflict(group, regs[group.index()]));
        if let Some(ahead) = self.leave_ahead().filter(|_| settled) {
            if !self.is_built_upon(ahead.groups) {
                let first_void = self.first_void(ahead.keep, &ahead.copy, store);
                return self.meet(ahead.keep, &ahead.copy, first_void, store);
            }
            if !ahead.frames.is_empty() {
                self.go_on_behind(ahead, store);
            }
        }
        self.greet_again(Link::Out, "our log has what the peer built upon: compare it again");
    }

    /// It is waited for no more, be it that the connection ends.
    pub(super) fn leave_ahead(&mut self) -> Option<Ahead> {
        let ahead = self.outgoing.ahead.take()?;
        self.compared |= ahead.compared;
        Some(ahead)
    }

    /// All of it is here: it takes the place of our tail, and what is left of that stands behind it.
    fn go_on_behind(&mut self, ahead: Ahead, store: &mut dyn Storage) {
        let led = self.led_on();
        let lost = NodeIx::BOTH.iter().any(|g| led[g.index()] && ahead.groups & (1 << g.index()) != 0);
        let Ahead { keep, end, frames: mut instead, leads, seen, .. } = ahead;
        let fetched = instead.len() as u64;
        self.begin_incarnation();
        let branch = if lost { [false; 2] } else { led };
        let merge = Merge::new(self.cfg.engine.me, branch).behind(seen);
        let waits = self.commit.waits_from();
        let merged = self.merge_tail(keep, end, merge, waits, store);
        let doubt = if lost { self.doubt(&merged, leads) } else { None };
        instead.extend(merged.frames);
        instead.extend(doubt.map(|frame| frame.encode()));
        info!(fetched, lost, "what this node wrote alone stands behind what the peer built upon");
        self.replace_own(keep, instead, fetched, store);
        debug_assert!(
            lost || self.is_same_branch(&merged.before),
            "a merge changed numbers that clients were given"
        );
    }

    /// The groups that this node leads go on from what the peer had of them, as after a takeover that may have missed what was
    /// acknowledged since: that is what the tail was for their clients.
    fn doubt(&self, merged: &Merged, leads: [Option<Reg>; 2]) -> Option<Frame> {
        let (me, prev, at_ms) = (self.cfg.engine.me, merged.end, merged.at_ms);
        let (mut groups, mut records) = (0, Vec::new());
        for group in NodeIx::BOTH {
            let g = group.index();
            let Some(reg) = self.view.regs[g].filter(|reg| reg.primary == me) else { continue };
            let before = leads[g].or(merged.leads[g]).map(|before| Reg { primary: me.peer(), ..before });
            let lead = |reg, late| Record::Lead { group, reg, at_ms, late };
            records.extend(before.map(|before| lead(before, false)));
            records.push(lead(reg, true));
            groups |= 1 << g;
        }
        (groups != 0).then(|| Frame {
            groups,
            solo: 0,
            terms: self.view.regs.map(|reg| reg.map(|r| r.term).unwrap_or_default()),
            at: Position { seq: prev.seq + 1, inc: self.inc },
            prev,
            applied_peer: self.applied,
            now_ms: at_ms,
            records,
        })
    }
}
