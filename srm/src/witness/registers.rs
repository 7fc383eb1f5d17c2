//! The rules of the witness, without its sockets and its disk.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use presence_engine::ids::{NodeIx, Reg};

use super::words::{Ask, Verdict};

/// The register of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Register {
    held: Option<Reg>,
    /// What each node said last on its present connection.
    reported: [Option<Reg>; 2],
}

/// Why a register is not changed, whatever it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Undecided {
    /// It has no value: a new witness, or one that lost its disk.
    Empty,
    /// A node has a later value: the witness got an old disk, or an operator overruled it.
    Behind,
}

impl Undecided {
    /// For the operator.
    pub fn text(self) -> &'static str {
        match self {
            Undecided::Empty => {
                "it has no register yet: it takes over what both nodes say once they agree and are connected to it"
            }
            Undecided::Behind => {
                "its register is older than a node's: it decides nothing but for who knows that value, until both nodes agree and are \
                 connected to it"
            }
        }
    }
}

impl Register {
    /// As it was found on the disk.
    pub fn new(held: Option<Reg>) -> Register {
        Register { held, reported: [None; 2] }
    }

    /// As it is known elsewhere: its value, and what each node says.
    pub fn known(held: Option<Reg>, reported: [Option<Reg>; 2]) -> Register {
        Register { held, reported }
    }

    /// The value, if there is one.
    pub fn held(&self) -> Option<Reg> {
        self.held
    }

    /// What keeps it from deciding.
    pub fn undecided(&self) -> Option<Undecided> {
        let Some(held) = self.held else { return Some(Undecided::Empty) };
        let later = self.reported.iter().flatten().any(|said| said.term > held.term);
        later.then_some(Undecided::Behind)
    }

    /// A node said what its copy is. `true` if the value is new: both say the same, and it is later than the one held. Two
    /// nodes that agree are the register where there is no witness, too.
    pub fn report(&mut self, node: NodeIx, reg: Reg) -> bool {
        self.reported[node.index()] = Some(reg);
        let agreed = self.reported[0] == self.reported[1];
        let later = self.held.is_none_or(|held| held.term < reg.term);
        if agreed && later {
            self.held = Some(reg);
        }
        agreed && later
    }

    /// A node is not connected any more: what it said may not be so any more.
    pub fn gone(&mut self, node: NodeIx) {
        self.reported[node.index()] = None;
    }

    /// The latest value that anybody is known to have; `None` if that cannot be known. The word of an operator, who
    /// overruled the witness, is the register as much as its own.
    fn latest(&self) -> Option<Reg> {
        let said = self.reported.iter().flatten().max_by_key(|reg| reg.term).copied();
        match (self.held, said) {
            (Some(held), Some(said)) if said.term > held.term => Some(said),
            (Some(held), _) => Some(held),
            // One node alone may be behind.
            (None, said) => said.filter(|_| self.reported.iter().all(Option::is_some)),
        }
    }

    /// One compare-and-set by a node. A value that is there already was asked for before, and the answer was lost.
    pub fn cas(&mut self, node: NodeIx, expected: Reg, new: Reg) -> Verdict {
        let Some(latest) = self.latest() else { return Verdict::Undecided };
        if self.held == Some(new) {
            return Verdict::Won;
        }
        if latest == expected && new.term > latest.term && new.term.issuer() == node {
            self.held = Some(new);
            return Verdict::Won;
        }
        match self.undecided() {
            Some(_) => Verdict::Undecided,
            None => Verdict::Lost(latest),
        }
    }
}

/// Both registers, and what nodes say about them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Registers(pub [Register; 2]);

impl Registers {
    /// What a node said. Groups whose value is new, which is to be on the disk before any answer leaves; and the verdict.
    pub fn on(&mut self, node: NodeIx, ask: Ask) -> ([bool; 2], Option<Verdict>) {
        match ask {
            Ask::Report(regs) => {
                let new = [0, 1].map(|g| self.0[g].report(node, regs[g]));
                (new, None)
            }
            Ask::Cas { group, expected, new, .. } => {
                let register = &mut self.0[group.index()];
                let before = register.held;
                let verdict = register.cas(node, expected, new);
                let mut changed = [false; 2];
                changed[group.index()] = register.held != before;
                (changed, Some(verdict))
            }
        }
    }

    /// A node's connection ended.
    pub fn gone(&mut self, node: NodeIx) {
        self.0.iter_mut().for_each(|register| register.gone(node));
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Mode, Term};

    use super::*;

    const A: NodeIx = NodeIx::A;
    const B: NodeIx = NodeIx::B;

    fn reg(term: u64, primary: NodeIx, mode: Mode) -> Reg {
        Reg { term: Term(term), primary, mode, settled: Term(0) }
    }

    fn pair(term: u64) -> Reg {
        reg(term, A, Mode::Pair)
    }

    fn solo(term: u64, primary: NodeIx) -> Reg {
        reg(term, primary, Mode::Solo)
    }

    #[test]
    fn of_two_who_ask_one_wins_and_the_other_hears_what_is() {
        let mut register = Register::new(Some(pair(4)));
        assert_eq!(register.cas(B, pair(4), solo(7, B)), Verdict::Won);
        assert_eq!(register.cas(A, pair(4), solo(6, A)), Verdict::Lost(solo(7, B)));
        assert_eq!(register.cas(B, pair(4), solo(7, B)), Verdict::Won, "asked again: the answer was lost");
        assert_eq!(register.held(), Some(solo(7, B)));
    }

    #[test]
    fn a_value_that_is_not_above_or_not_the_askers_is_refused() {
        let mut register = Register::new(Some(pair(4)));
        for (node, new) in [(B, solo(6, B)), (A, solo(4, A)), (A, solo(2, A))] {
            assert_eq!(register.cas(node, pair(4), new), Verdict::Lost(pair(4)));
        }
        assert_eq!(register.cas(A, pair(4), reg(6, B, Mode::Pair)), Verdict::Won, "given away");
    }

    #[test]
    fn an_empty_register_decides_nothing_until_both_nodes_agree() {
        let mut register = Register::default();
        assert_eq!(register.undecided(), Some(Undecided::Empty));
        assert!(!register.report(B, pair(4)));
        assert_eq!(register.cas(B, pair(4), solo(7, B)), Verdict::Undecided, "one alone may be behind");
        assert!(!register.report(A, solo(6, A)), "it is");
        assert_eq!(register.cas(B, pair(4), solo(7, B)), Verdict::Undecided);
        assert_eq!(
            register.clone().cas(A, solo(6, A), pair(8)),
            Verdict::Won,
            "both have said what they have"
        );
        assert!(register.report(B, solo(6, A)), "it followed");
        assert_eq!(register.held(), Some(solo(6, A)));
        assert!(!register.report(A, solo(6, A)), "nothing new");
    }

    #[test]
    fn what_a_node_said_counts_only_while_it_is_connected() {
        let mut register = Register::default();
        register.report(A, pair(4));
        register.gone(A);
        assert!(!register.report(B, pair(4)));
        assert_eq!(register.held(), None);
    }

    #[test]
    fn a_register_that_is_behind_decides_nothing_and_follows_both() {
        let mut register = Register::new(Some(pair(4)));
        register.report(A, solo(8, A));
        assert_eq!(register.undecided(), Some(Undecided::Behind));
        assert_eq!(register.cas(B, pair(4), solo(7, B)), Verdict::Undecided, "A goes on alone already");
        assert!(register.clone().report(B, solo(8, A)), "both agree");
        assert_eq!(
            register.cas(A, solo(8, A), pair(10)),
            Verdict::Won,
            "who knows the latest goes on from there"
        );
        assert!(
            !register.report(A, pair(4)) && !register.report(B, pair(4)),
            "what is older never comes back"
        );
        assert_eq!(register.held(), Some(pair(10)));
    }
}
