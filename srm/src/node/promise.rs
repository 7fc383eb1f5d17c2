//! What the peer has promised of its lease (D6).
//!
//! A Pair primary under the policy `available` may go Solo by itself when its lease has run out, and not before unless
//! it has evidence that its backup is dead. Its backup wants to know whether that can have happened when it takes over.
//! It cannot tell by what it acknowledged: an acknowledgement may be lost, and the lease runs from the last one that
//! arrived. So the primary says in each beacon how much of its lease is left, and which of our beacons it had heard by
//! then. That one we know when we sent: the lease lasts at least so long from there. No clock is compared with another,
//! and what is lost or late makes the promise shorter, never longer.

use std::collections::VecDeque;

use presence_engine::ids::{Group, Reg};

/// Beacons that are remembered: more than are sent within a lease.
const REMEMBERED: usize = 256;
/// What the ticks of both nodes may be apart from the time that they count.
const MARGIN: u64 = 2;

/// Promises of both groups, in ticks of this node.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Our beacons: number, and when they were sent.
    sent: VecDeque<(u32, u64)>,
    /// For each group: under which value of the register, and until when.
    until: [Option<(Reg, u64)>; 2],
}

impl Promises {
    /// A beacon of ours goes out.
    pub(super) fn sent(&mut self, number: u32, now: u64) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
    }

    /// The peer leads `group` under `reg`, and said, having heard our beacon `heard`, that `left` ticks of its lease are
    /// left. A later word replaces an earlier one only by a longer promise under the same value.
    pub(super) fn heard(&mut self, group: Group, reg: Reg, heard: u32, left: u16) {
        let slot = &mut self.until[group.index()];
        let before = slot.filter(|(of, _)| *of == reg).map_or(0, |(_, until)| until);
        let from = self.sent.iter().find(|(number, _)| *number == heard).map(|(_, at)| *at);
        let until = from.filter(|_| left > 0).map_or(0, |at| at + u64::from(left));
        *slot = Some((reg, before.max(until)));
    }

    /// The peer's run ended, or it does not lead the group in Pair: nothing is promised.
    pub(super) fn void(&mut self, group: Group) {
        self.until[group.index()] = None;
    }

    /// Whether the peer cannot have gone Solo by itself yet.
    pub(super) fn holds(&self, group: Group, reg: Reg, now: u64) -> bool {
        self.until[group.index()].is_some_and(|(of, until)| of == reg && now + MARGIN <= until)
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Mode, NodeIx, Term};

    use super::*;

    const GROUP: NodeIx = NodeIx::A;
    const REG: Reg = Reg { term: Term(4), primary: NodeIx::A, mode: Mode::Pair, settled: Term(0) };

    fn told(heard: u32, left: u16) -> Promises {
        let mut promises = Promises::default();
        for number in 1..=5 {
            promises.sent(number, u64::from(number) * 4);
        }
        promises.heard(GROUP, REG, heard, left);
        promises
    }

    #[test]
    fn a_promise_runs_from_the_beacon_that_the_peer_had_heard() {
        let promises = told(3, 12);
        assert!(promises.holds(GROUP, REG, 22), "sent at 12, 12 ticks left, 2 of margin");
        assert!(!promises.holds(GROUP, REG, 23));
        assert!(!promises.holds(GROUP.peer(), REG, 12));
        assert!(!promises.holds(GROUP, Reg { term: Term(6), ..REG }, 12), "another value");
    }

    #[test]
    fn acknowledgements_that_do_not_arrive_leave_no_promise() {
        // The peer hears nothing of us any more: it names the same beacon of ours again, and less and less of its lease.
        let mut promises = told(1, 12);
        for left in (0..12).rev() {
            promises.heard(GROUP, REG, 1, left);
        }
        assert!(promises.holds(GROUP, REG, 14) && !promises.holds(GROUP, REG, 15));
        assert!(!told(9, 12).holds(GROUP, REG, 4), "a beacon that was never sent");
        assert!(!told(0, 12).holds(GROUP, REG, 4), "it has heard none");
        assert!(!told(5, 0).holds(GROUP, REG, 20), "nothing is left");
    }

    #[test]
    fn what_was_promised_stands_until_it_is_void() {
        let mut promises = told(5, 12);
        promises.heard(GROUP, REG, 2, 3);
        assert!(promises.holds(GROUP, REG, 30), "an older word came late");
        promises.void(GROUP);
        assert!(!promises.holds(GROUP, REG, 20));
    }
}
