//! The witness of the model: the register of production (`srm::witness::registers`), what it is told, and how it loses what
//! it holds. What a node says of its copy arrives at once, on whatever connection it has.

use presence_engine::ids::{Mode, NodeIx, Reg};
use srm::safety::{CasResult, Core, Role};
use srm::witness::registers::Register;
use srm::witness::words::Verdict;

use super::bounds::{Bounds, Break, Kind};
use super::world::{Asked, World};

impl World {
    /// A request is decided.
    pub(super) fn witness(&mut self, b: &Bounds, i: NodeIx, late: usize) {
        let Some(asked) = self.cas[i.index()][late].clone() else { return };
        let (verdict, held) = self.verdict(b, i, &asked);
        let result = match verdict {
            // Asked again, since the reply was lost: a node must know its own change, however it is told (R4).
            Verdict::Won if self.register == Some(asked.to) => CasResult::Lost(asked.to),
            verdict => verdict.result(),
        };
        self.left.unsent = self.left.unsent.saturating_sub(u8::from(verdict == Verdict::Undecided));
        self.register = held;
        let answered = Asked { result: Some(result), fresh: false, ..asked };
        self.cas[i.index()][late] = Some(answered).filter(|a| !a.old);
    }

    /// Whether a request is decided next. Each answer that the witness does not know leads to another question: there is
    /// no end to them.
    pub(super) fn may_answer(&self, b: &Bounds, i: NodeIx, asked: &Asked) -> bool {
        let decides = || self.verdict(b, i, asked).0 != Verdict::Undecided;
        self.met[i.index()] && (self.left.unsent > 0 || decides())
    }

    /// What it says to a request, and what it holds then.
    fn verdict(&self, b: &Bounds, i: NodeIx, asked: &Asked) -> (Verdict, Option<Reg>) {
        let mut register = self.known();
        if b.broken == Some(Break::EmptyGrants) && self.register.is_none() {
            register = Register::new(Some(asked.from));
        }
        let verdict = register.cas(i, asked.from, asked.to);
        (verdict, register.held())
    }

    /// What it tells a node of what it holds, where that is news.
    pub(super) fn told(&self, b: &Bounds, i: NodeIx) -> Option<Reg> {
        let core = self.core(i).filter(|core| core.role() != Role::Fenced && !core.asking());
        let core = core.filter(|_| b.kind == Kind::Witness && self.met[i.index()])?;
        let knows = core.reg();
        let granted = |held: &Reg| held.primary == i && held.mode == Mode::Solo && held.term > knows.term;
        self.register.filter(|held| knows.mode == Mode::Pair && granted(held))
    }

    fn known(&self) -> Register {
        Register::known(self.register, NodeIx::BOTH.map(|i| self.said(i)))
    }

    fn said(&self, i: NodeIx) -> Option<Reg> {
        self.core(i).filter(|_| self.met[i.index()]).map(Core::reg)
    }

    /// It hears both nodes: one that is empty, or was overruled, takes over what both say once they say the same.
    pub(super) fn report(&mut self, b: &Bounds) {
        if b.kind != Kind::Witness {
            return;
        }
        if b.broken == Some(Break::SeededByOne) && self.register.is_none() {
            self.register = NodeIx::BOTH.into_iter().find_map(|i| self.said(i));
        }
        let mut register = self.known();
        for i in NodeIx::BOTH {
            if let Some(reg) = self.said(i) {
                register.report(i, reg);
            }
        }
        self.register = register.held();
    }

    /// It begins again, empty. All connections end, and with them what was on its way to it.
    pub(super) fn forget(&mut self) {
        self.left.forgets -= 1;
        self.register = None;
        self.met = [false; 2];
        for [present, late] in &mut self.cas {
            *present = present.take().filter(|asked| !asked.old);
            *late = None;
        }
    }

    /// A node connects to it anew. Until then it has heard what the connection before had brought; the rest is lost, and
    /// what it still wants it asks again.
    pub(super) fn reach(&mut self, b: &Bounds, i: NodeIx) {
        self.met[i.index()] = true;
        if b.broken == Some(Break::LateAnswer) {
            return;
        }
        let [present, late] = &mut self.cas[i.index()];
        *late = None;
        if let Some(asked) = present {
            (asked.result, asked.fresh) = (None, false);
        }
    }
}
