//! The commit rule (D1, R8): nothing that a turn put out leaves before the turn's frame is safe, and everything leaves
//! in order. This is the whole of "acknowledged means safe"; there is no second way out of the engine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;

use presence_engine::engine::Output;
use presence_engine::ids::Group;

/// What the safety core of a group demands before a frame with its records is let go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Release {
    /// Our own disk, which holds at least everything up to this frame: the record that says that we lead alone. A tail
    /// whose writer died can then be told from one that nobody ever saw (D7).
    Alone(u64),
    /// Our own disk and the peer (R8).
    Both,
    /// Nothing leaves.
    Nothing,
}

/// One turn whose outputs wait.
#[derive(Debug)]
struct Held {
    /// The last frame that must be safe: the turn's own, or the one before if it wrote none.
    seq: u64,
    /// Groups of the turn's records; 0 if it wrote none.
    groups: u8,
    bytes: usize,
    /// Frames of the peer up to here were applied before it.
    base: u64,
    outputs: Vec<Output>,
}

/// Turns in flight.
#[derive(Debug, Default)]
pub struct Commit {
    queue: VecDeque<Held>,
    bytes: usize,
    synced: u64,
    acked: u64,
    base: u64,
    released: u64,
}

impl Commit {
    /// A turn's outputs wait for frame `seq`.
    pub fn hold(&mut self, seq: u64, groups: u8, bytes: usize, base: u64, outputs: Vec<Output>) {
        self.bytes += bytes;
        self.queue.push_back(Held { seq, groups, bytes, base, outputs });
    }

    /// Our copy of the peer's log holds everything up to `seq`, as surely as we acknowledge it. An answer must not be
    /// seen while a crash of both nodes could still take what it answers from either of them.
    pub fn copied(&mut self, seq: u64) {
        self.base = self.base.max(seq);
    }

    /// Our copy of the peer's log ends here, and all of it is on disk.
    pub fn copy_is(&mut self, seq: u64) {
        self.base = seq;
    }

    /// The last frame that may be shipped. One that answers what is not in our copy yet must not be all that is left of it
    /// when both nodes die: the other would have the answer, and nobody the question.
    pub fn shippable(&self) -> u64 {
        if self.queue.back().is_none_or(|last| last.base <= self.base) {
            return u64::MAX;
        }
        let first = self.queue.partition_point(|held| held.base <= self.base);
        self.queue.range(first..).find(|held| held.bytes > 0).map_or(u64::MAX, |held| held.seq - 1)
    }

    /// Our own disk holds everything up to `seq`.
    pub fn synced(&mut self, seq: u64) {
        self.synced = self.synced.max(seq);
    }

    /// The peer's present boot acknowledged everything up to `seq`.
    pub fn acked(&mut self, seq: u64) {
        self.acked = self.acked.max(seq);
    }

    /// A new session of the link, or none: what an earlier boot of the peer acknowledged does not count for the
    /// future, only what this one says it has.
    pub fn session(&mut self, acked: u64) {
        self.acked = acked;
    }

    /// How far our own disk is.
    pub fn own_end(&self) -> u64 {
        self.synced
    }

    /// How far our copy of the peer's log is.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// How far the peer is.
    pub fn peer_end(&self) -> u64 {
        self.acked
    }

    /// Whether the first turn that waits is on our disk and lacks only the peer.
    pub fn lacks_peer(&self) -> bool {
        self.queue.front().is_some_and(|held| self.synced >= held.seq && self.acked < held.seq)
    }

    /// The last frame that was let go.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Whether nothing up to `seq` waits, and all of it is on our disk.
    pub fn is_done(&self, seq: u64) -> bool {
        self.synced >= seq && self.queue.front().is_none_or(|held| held.seq > seq)
    }

    /// The first frame whose outputs wait; `u64::MAX`: none does.
    pub fn waits_from(&self) -> u64 {
        self.queue.iter().find(|held| held.bytes > 0).map_or(u64::MAX, |held| held.seq)
    }

    /// The frame that the first turn that waits belongs to or stands behind; `u64::MAX`: none waits.
    pub fn holds_from(&self) -> u64 {
        self.queue.front().map_or(u64::MAX, |held| held.seq)
    }

    /// Whether no turn waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of frames whose outputs wait.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing that waits may leave any more: this node lost its role, or its log was cut. What is on disk stays so.
    pub fn clear(&mut self) -> Vec<Output> {
        self.bytes = 0;
        self.queue.drain(..).flat_map(|held| held.outputs).collect()
    }

    /// The group was given away without a user in it: what waits with its records waits for the other group alone.
    pub fn waive(&mut self, group: Group) {
        for held in &mut self.queue {
            held.groups &= !(1 << group.index());
        }
    }

    /// The log ends here, and all of it is on disk.
    pub fn restart(&mut self, synced: u64) {
        self.synced = synced;
    }

    /// Whether a frame is safe: for every group with a record in it. One without a group counts for all that are led.
    fn is_safe(&self, held: &Held, need: [Release; 2]) -> bool {
        if self.base < held.base {
            return false;
        }
        let safe = |release| match release {
            Release::Nothing => false,
            Release::Both => self.synced >= held.seq && self.acked >= held.seq,
            Release::Alone(since) => self.synced >= held.seq.max(since),
        };
        let of = |group: Group| held.groups & (1 << group.index()) != 0;
        let named = Group::BOTH.into_iter().filter(|g| of(*g));
        match held.groups {
            0 => need.into_iter().filter(|n| *n != Release::Nothing).all(safe),
            _ => named.map(|g| need[g.index()]).all(safe),
        }
    }

    /// Lets go of what is safe, in order.
    pub fn release(&mut self, need: [Release; 2], mut let_go: impl FnMut(Output)) -> Option<u64> {
        let mut last = None;
        while let Some(front) = self.queue.front() {
            if !self.is_safe(front, need) {
                break;
            }
            let held = self.queue.pop_front().expect("just seen");
            self.bytes -= held.bytes;
            last = Some(held.seq);
            self.released = self.released.max(held.seq);
            held.outputs.into_iter().for_each(&mut let_go);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Conn, NodeIx};

    use super::*;

    fn credit(number: u64) -> Vec<Output> {
        vec![Output::Credit(Conn { node: NodeIx::A, number })]
    }

    fn released(commit: &mut Commit, need: [Release; 2]) -> usize {
        let mut out = Vec::new();
        commit.release(need, |output| out.push(output));
        out.len()
    }

    #[test]
    fn pair_needs_the_own_disk_and_the_peer() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        let need = [Release::Both, Release::Nothing];
        assert_eq!(released(&mut commit, need), 0);
        commit.acked(1);
        assert_eq!(released(&mut commit, need), 0, "the peer alone is not enough");
        commit.synced(1);
        assert_eq!(released(&mut commit, need), 1);
        commit.hold(2, 1, 10, 0, credit(2));
        commit.synced(2);
        assert_eq!(released(&mut commit, need), 0, "the own disk alone is not enough");
        assert_eq!(released(&mut commit, [Release::Alone(0), Release::Nothing]), 1);
    }

    #[test]
    fn a_frame_of_both_groups_waits_for_the_stricter() {
        let mut commit = Commit::default();
        commit.hold(1, 0b11, 10, 0, credit(1));
        commit.synced(1);
        assert_eq!(released(&mut commit, [Release::Alone(0), Release::Both]), 0);
        assert_eq!(released(&mut commit, [Release::Alone(0), Release::Nothing]), 0);
        assert_eq!(released(&mut commit, [Release::Alone(0), Release::Alone(0)]), 1);
    }

    #[test]
    fn an_answer_waits_until_what_it_answers_is_in_our_copy() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 7, credit(1));
        commit.synced(1);
        commit.acked(1);
        commit.copied(6);
        assert_eq!(released(&mut commit, [Release::Both, Release::Nothing]), 0);
        commit.copied(7);
        assert_eq!(released(&mut commit, [Release::Both, Release::Nothing]), 1);
    }

    #[test]
    fn an_answer_is_not_shipped_before_what_it_answers_is_in_our_copy() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        assert_eq!(commit.shippable(), u64::MAX);
        commit.hold(2, 1, 10, 7, credit(2));
        commit.hold(2, 0, 0, 8, credit(3));
        commit.hold(3, 1, 10, 8, credit(4));
        assert_eq!(commit.shippable(), 1);
        commit.copied(7);
        assert_eq!(commit.shippable(), 2);
        commit.copied(8);
        assert_eq!(commit.shippable(), u64::MAX);
    }

    #[test]
    fn nothing_overtakes() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        commit.hold(1, 0, 0, 0, credit(2));
        commit.hold(2, 2, 10, 0, credit(3));
        commit.synced(2);
        assert_eq!(released(&mut commit, [Release::Both, Release::Alone(0)]), 0);
        commit.acked(1);
        assert_eq!(released(&mut commit, [Release::Both, Release::Alone(0)]), 3);
    }

    #[test]
    fn a_turn_that_wrote_nothing_waits_too() {
        let mut commit = Commit::default();
        assert_eq!(commit.holds_from(), u64::MAX);
        commit.hold(4, 0, 0, 7, credit(1));
        commit.hold(5, 1, 10, 7, credit(2));
        assert_eq!((commit.holds_from(), commit.waits_from()), (4, 5));
    }

    #[test]
    fn what_waits_for_a_group_that_was_given_away_empty_is_let_go() {
        let mut commit = Commit::default();
        commit.hold(1, 0b10, 10, 0, credit(1));
        commit.hold(2, 0b01, 10, 0, credit(2));
        commit.synced(2);
        commit.acked(2);
        let need = [Release::Both, Release::Nothing];
        assert_eq!(released(&mut commit, need), 0);
        commit.waive(NodeIx::B);
        assert_eq!(released(&mut commit, need), 2);
    }

    #[test]
    fn what_an_earlier_boot_of_the_peer_acknowledged_does_not_count() {
        let mut commit = Commit::default();
        commit.acked(5);
        commit.session(2);
        commit.hold(3, 1, 10, 0, credit(1));
        commit.synced(3);
        assert_eq!(released(&mut commit, [Release::Both, Release::Nothing]), 0);
    }

    #[test]
    fn alone_nothing_leaves_before_the_record_that_says_so_is_on_the_own_disk() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        commit.hold(2, 1, 10, 0, credit(2));
        commit.synced(2);
        let need = [Release::Alone(3), Release::Nothing];
        assert_eq!(released(&mut commit, need), 0);
        commit.synced(3);
        assert_eq!(released(&mut commit, need), 2);
    }

    #[test]
    fn alone_a_frame_waits_for_the_own_disk_however_long_the_node_has_been_alone() {
        let mut commit = Commit::default();
        commit.synced(4);
        commit.hold(5, 1, 10, 0, credit(1));
        let need = [Release::Alone(3), Release::Nothing];
        assert_eq!(released(&mut commit, need), 0);
        commit.synced(5);
        assert_eq!(released(&mut commit, need), 1);
    }

    #[test]
    fn what_belongs_to_no_group_waits_for_each_that_is_led_and_for_no_other() {
        let mut commit = Commit::default();
        commit.hold(4, 0, 0, 0, credit(1));
        let need = [Release::Both, Release::Nothing];
        assert_eq!(released(&mut commit, need), 0);
        commit.synced(4);
        assert_eq!(released(&mut commit, [Release::Both, Release::Alone(0)]), 0, "one of them is not enough");
        commit.acked(4);
        assert_eq!(released(&mut commit, need), 1);
    }

    #[test]
    fn what_was_cut_off_is_neither_on_the_disk_nor_in_the_copy_any_more() {
        let mut commit = Commit::default();
        commit.synced(5);
        commit.copied(7);
        commit.restart(2);
        commit.hold(3, 1, 10, 6, credit(1));
        let need = [Release::Alone(0), Release::Nothing];
        assert_eq!(released(&mut commit, need), 0, "it was another frame 3 that was on the disk");
        commit.synced(3);
        commit.copy_is(5);
        assert_eq!(released(&mut commit, need), 0, "another frame 6 was in the copy");
        commit.copied(6);
        assert_eq!(released(&mut commit, need), 1);
    }

    #[test]
    fn what_is_done_waits_no_more_and_what_lacks_the_peer_lacks_nothing_else() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        commit.hold(2, 1, 10, 0, credit(2));
        assert!(!commit.lacks_peer(), "it lacks the own disk");
        commit.synced(2);
        assert!(commit.lacks_peer() && !commit.is_done(1));
        commit.acked(1);
        assert!(!commit.lacks_peer());
        assert_eq!(released(&mut commit, [Release::Both, Release::Nothing]), 1);
        assert!(commit.is_done(1) && !commit.is_done(2));
        commit.acked(2);
        assert_eq!(released(&mut commit, [Release::Both, Release::Nothing]), 1);
        assert!(commit.is_done(2) && !commit.is_done(3), "nothing waits, and frame 3 is on no disk");
    }

    #[test]
    fn what_is_void_takes_no_room() {
        let mut commit = Commit::default();
        commit.hold(1, 1, 10, 0, credit(1));
        commit.hold(2, 1, 20, 0, credit(2));
        assert_eq!(commit.waiting_bytes(), 30);
        assert_eq!(commit.clear(), [credit(1), credit(2)].concat());
        assert_eq!((commit.is_empty(), commit.waiting_bytes()), (true, 0));
    }
}
