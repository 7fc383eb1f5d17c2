//! Operators who have disabled the automatics, and say themselves who serves.

use presence_engine::ids::NodeIx;
use srm::node::{Automatics, Force, Op, Reply};

use super::faults::Fault;
use super::world::{Event, World};

/// How often they say so again, at most, once the faults are over: every second, for longer than the longest cut.
const WORDS: usize = 150;

impl World {
    pub(super) fn disable_automatics(&mut self) {
        if self.profile.held {
            self.set_automatics(Automatics { disabled: true, ..self.automatics });
        }
    }

    fn set_automatics(&mut self, automatics: Automatics) {
        self.automatics = automatics;
        for host in &mut self.hosts {
            if let Some(process) = &mut host.process {
                process.node.automatics(automatics);
            }
        }
    }

    /// Some time after something has happened one of them is told to serve, and later the other.
    pub(super) fn plan_held(&mut self, at: u64) {
        if !self.profile.held {
            return;
        }
        let (first, later) = (self.rng.below(2), at + self.rng.range(200, 5_000));
        self.at(later, Event::Fault(Fault::Force(first, Force::Active)));
        let last = later + self.rng.range(200, 5_000);
        self.at(last, Event::Fault(Fault::Force(1 - first, Force::Active)));
    }

    /// Automatics are enabled, and nobody is held back any more.
    pub(super) fn mend_held(&mut self) {
        if !self.profile.held {
            return;
        }
        self.set_automatics(Automatics { disabled: false, ..self.automatics });
        for word in 0..WORDS {
            let held = |host: &super::host::Host| {
                host.node().is_none_or(|node| NodeIx::BOTH.iter().any(|g| node.core(*g).held()))
            };
            if !self.hosts.iter().any(held) {
                return;
            }
            let next = self.now + 1_000;
            self.run_until(next);
            // Never to both at the same moment.
            self.force(word % 2, Force::Active);
        }
    }

    /// A careful operator: has nobody serve if anything would be missing.
    pub(super) fn force(&mut self, node: usize, to: Force) {
        if !self.hosts[node].runs() {
            return;
        }
        let would = self.op(node, Op::Force { to, confirmed: false });
        let nothing_missing = matches!(&would, Some(Reply::MayMiss(missing)) if missing.is_empty())
            || would == Some(Reply::TakesBack(false));
        // Whoever may serve alone here must be the only one.
        let alone = to == Force::Active && self.hosts[1 - node].process.is_some() && !self.hears(node);
        // Nor does anybody tell both nodes to serve within the same two seconds, without having looked what came of the first.
        let just_told = self.told_active.is_some_and(|(other, at)| other != node && self.now < at + 2_000);
        let alone = alone || to == Force::Active && just_told;
        if (to == Force::Inactive || nothing_missing) && !alone {
            let answer = self.op(node, Op::Force { to, confirmed: true });
            let forced = matches!(answer, Some(Reply::Forced(_) | Reply::TakesBack(true)));
            match to {
                Force::Active => {
                    self.coverage.forced += u32::from(forced);
                    self.told_active = Some((node, self.now)).filter(|_| forced).or(self.told_active);
                }
                Force::Inactive => self.coverage.held += u32::from(forced),
            }
        }
    }

    fn hears(&self, node: usize) -> bool {
        self.hosts[node].node().is_some_and(|node| node.snapshot().heard_ms.is_some_and(|ms| ms < 3_000))
    }
}
