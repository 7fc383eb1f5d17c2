//! The witness of the model: one register, and what it makes of what both nodes say.

use presence_engine::ids::{NodeIx, Reg};
use srm::safety::{CasResult, Core};

use super::world::{Asked, World};

impl World {
    pub(super) fn witness(&mut self, i: NodeIx, late: usize) {
        let current = self.register.expect("only with a witness");
        let Some(asked) = &self.cas[i.index()][late] else { return };
        let unknown = self.later_than(asked).is_some();
        let later = self.latest_said().filter(|reg| reg.term > current.term);
        self.left.unsent = self.left.unsent.saturating_sub(u8::from(unknown));
        let slot = &mut self.cas[i.index()][late];
        let asked = slot.as_mut().expect("offered only then");
        asked.fresh = false;
        if unknown {
            asked.result = Some(CasResult::NotSent);
        } else if later.unwrap_or(current) == asked.from {
            asked.result = Some(CasResult::Won);
            self.register = Some(asked.to);
        } else {
            asked.result = Some(CasResult::Lost(current));
        }
        if asked.old {
            *slot = None;
        }
    }

    pub(super) fn has_end(&self, asked: &Asked) -> bool {
        self.later_than(asked).is_none() || self.left.unsent > 0
    }

    fn latest_said(&self) -> Option<Reg> {
        NodeIx::BOTH.into_iter().filter_map(|n| self.core(n).map(Core::reg)).max_by_key(|reg| reg.term)
    }

    /// A value that a node has, which is later than what the witness holds and not what the question builds upon.
    fn later_than(&self, asked: &Asked) -> Option<Reg> {
        let held = self.register?;
        self.latest_said().filter(|said| said.term > held.term && *said != asked.from)
    }

    /// A witness that was overruled takes over what both nodes say, once they say the same.
    pub(super) fn reseed(&mut self) {
        let regs = NodeIx::BOTH.map(|i| self.core(i).map(Core::reg));
        if let ([Some(a), Some(b)], Some(held)) = (regs, self.register)
            && a == b
            && a.term > held.term
        {
            self.register = Some(a);
        }
    }
}
