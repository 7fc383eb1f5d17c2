//! Operators who have a node restarted: it announces that, and its peer waits for the new run (rows 5 to 9).

use srm::node::{Op, Reply};

use super::faults::Fault;
use super::world::{Event, World};

/// What a node takes from the announcement to its end, in milliseconds; and some more.
const ENDS: u64 = 60;

impl World {
    pub(super) fn draw_restart(&mut self) -> Option<Fault> {
        if !self.profile.restarts || !self.rng.chance(40) {
            return None;
        }
        let node = self.rng.below(2);
        let back =
            if self.rng.chance(80) { self.rng.range(50, 5_000) } else { self.rng.range(5_000, 30_000) };
        Some(Fault::Restart(node, back))
    }

    /// Some are restarted in the middle of a failover or of the way back, and some while they are idle.
    pub(super) fn plan_restart(&mut self, at: u64, fault: Fault) {
        let Fault::Restart(node, back) = fault else { return };
        let mover = self.rng.below(2);
        match self.rng.below(3) {
            0 => {
                let before = at.saturating_sub(self.rng.range(0, 2_000));
                self.at(before, Event::Fault(Fault::Failover(mover)));
            }
            1 => {
                let before = at.saturating_sub(self.rng.range(2_000, 6_000));
                self.at(before, Event::Fault(Fault::Failover(mover)));
                let way_back = at.saturating_sub(self.rng.range(0, 1_000));
                self.at(way_back, Event::Fault(Fault::Fallback(mover)));
            }
            _ => {
                let again = at + self.rng.range(0, 8_000);
                self.at(again, Event::Fault(Fault::Restart(1 - node, back)));
            }
        }
    }

    /// A node that moves users refuses.
    pub(super) fn restart_planned(&mut self, node: usize, back: u64) {
        if !self.hosts[node].runs() || !self.may_kill(node) {
            return;
        }
        if self.op(node, Op::Restart) == Some(Reply::Done) {
            self.coverage.restarts += 1;
            self.restart(node, ENDS + back);
        }
    }
}
