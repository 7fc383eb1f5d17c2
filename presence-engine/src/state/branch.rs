//! Branches of a session (D6): after a partition without a witness both nodes may have led its group alone. The state
//! goes on from one branch; a client that lived on the other must not resume, because its `h` counts other stanzas.

use crate::ids::{Group, Mode, Reg, Term};
use serde::{Deserialize, Serialize};
use xmpp_core::dual::Epoch;

/// So many terms between two partitions are told apart one by one, in a session that waits since the first.
const MOST: u64 = 64;

/// What a client may have been told last if it is to resume here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// Up to this epoch all is here.
    pub known: Epoch,
    /// Terms that the node led alone in.
    pub terms: Vec<u64>,
    /// From this term on there is one branch again.
    pub from: u64,
}

impl Branch {
    /// Whether whoever was last told this epoch was promised nothing that is not here.
    pub fn has(&self, told: Epoch) -> bool {
        told <= self.known || told.term >= self.from || self.terms.contains(&told.term)
    }

    /// The same for a session that has waited for its client since an earlier partition: what either lacks is not here.
    pub(super) fn behind(&self, earlier: &Branch) -> Branch {
        // What came after a hand-over that is known comes with a later term, if it was let go alone.
        let last = |of: &Branch, term| {
            of.has(Epoch { term, moves: if term == of.known.term { of.known.moves } else { u32::MAX } })
        };
        let whole = |term: u64| last(self, term) && last(earlier, term);
        let between = earlier.from.max(self.known.term.saturating_sub(MOST))..=self.known.term;
        let mut terms: Vec<u64> = between
            .chain(earlier.terms.iter().chain(&self.terms).copied())
            .filter(|term| whole(*term))
            .collect();
        terms.sort_unstable();
        terms.dedup();
        let older = terms.len().saturating_sub(2 * MOST as usize);
        terms.drain(..older);
        Branch { known: self.known.min(earlier.known), terms, from: self.from.max(earlier.from) }
    }

    /// The same where there may be only one of them.
    pub fn of_both(later: Option<Branch>, earlier: Option<Branch>) -> Option<Branch> {
        match (later, earlier) {
            (Some(later), Some(earlier)) => Some(later.behind(&earlier)),
            (later, earlier) => later.or(earlier),
        }
    }

    /// The same for a user who came with this epoch: a hand-over carries the higher term of both groups.
    pub(super) fn of_user(&self, moved: Epoch) -> Branch {
        Branch { known: self.known.max(moved), ..self.clone() }
    }
}

/// The way that a group's register went.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub(super) struct Way {
    /// Term of the last value in Pair: both nodes were there.
    pub(super) pair: u64,
    /// Terms of the values since.
    alone: Vec<u64>,
    /// The branch that went on when two Solo copies last met.
    pub(super) went_on: Option<Branch>,
}

impl Way {
    /// The next value.
    pub(super) fn step(&mut self, reg: Reg) {
        match reg.mode {
            Mode::Pair => (self.pair, self.alone) = (reg.term.0, Vec::new()),
            // Said once more: after a restart, or a join that was called off.
            Mode::Solo if self.alone.last() == Some(&reg.term.0) => {}
            Mode::Solo => self.alone.push(reg.term.0),
        }
    }

    /// Whether a term that somebody was told is none of the values that led to `now`: the other node leads alone too, and
    /// it is not settled yet who leads on.
    pub(super) fn has_not(&self, term: u64, now: Reg) -> bool {
        let later = term > self.pair && term > now.settled.0 && term < now.term.0;
        later && !self.alone.contains(&term)
    }

    /// Whether this group's home node issued the term, and was in Pair here under a later one of its own. Its log, which said
    /// that, would have said before that it led the other group alone under the term: then that is settled, or the term is
    /// one of this group.
    pub(super) fn is_over(&self, group: Group, term: u64) -> bool {
        term <= self.pair && [term, self.pair].iter().all(|term| Term(*term).issuer() == group)
    }

    /// The branch that ends with the value `settled`, above two Solo copies that met.
    pub(super) fn branch(&self, settled: Reg) -> Branch {
        let known = Epoch { term: self.pair, moves: u32::MAX };
        Branch { known, terms: self.alone.clone(), from: settled.term.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeIx, Term};

    fn reg(term: u64, mode: Mode) -> Reg {
        Reg { term: Term(term), primary: NodeIx::B, mode, settled: Term(0) }
    }

    #[test]
    fn a_term_beside_ours_is_not_known_before_it_is_settled() {
        let mut way = Way::default();
        way.step(reg(11, Mode::Pair));
        way.step(reg(13, Mode::Solo));
        let now = reg(13, Mode::Solo);
        assert_eq!(
            [10, 11, 12, 13, 14].map(|term| way.has_not(term, now)),
            [false, false, true, false, false]
        );
        let settled = Reg { term: Term(15), settled: Term(12), ..now };
        assert!(!way.has_not(12, settled), "who leads on decides then");
    }

    #[test]
    fn what_a_node_issued_before_it_was_in_pair_in_its_own_group_is_over() {
        let over = |way: &Way| [2, 3, 4, 5, 7, 9].map(|term| way.is_over(NodeIx::B, term));
        let mut way = Way::default();
        [reg(3, Mode::Pair), reg(5, Mode::Solo)].into_iter().for_each(|r| way.step(r));
        assert_eq!(over(&way), [false, true, false, false, false, false]);
        [reg(7, Mode::Pair), reg(10, Mode::Solo)].into_iter().for_each(|r| way.step(r));
        assert_eq!(over(&way), [false, true, false, true, true, false]);
        way.step(reg(12, Mode::Pair));
        assert_eq!(over(&way), [false; 6], "by the word of the other node");
    }

    #[test]
    fn a_value_that_is_said_once_more_is_one() {
        let mut way = Way::default();
        [6, 8].into_iter().for_each(|term| way.step(reg(term, Mode::Solo)));
        let once = way.clone();
        way.step(reg(8, Mode::Solo));
        assert_eq!(way, once);
        assert_eq!(way.alone, [6, 8]);
    }

    /// A session whose client was here in neither: the first void branch stays refused, and so does the second.
    #[test]
    fn what_either_of_two_partitions_left_out_is_not_here() {
        let all = |term| Epoch { term, moves: u32::MAX };
        let first = Branch { known: all(5), terms: vec![9], from: 13 };
        let second = Branch { known: all(15), terms: vec![17], from: 19 };
        let both = second.behind(&first);
        let has = |term| both.has(Epoch { term, moves: 1 });
        assert!(has(5) && has(9), "from before the first, and what was told here then");
        assert!(!has(8) && !has(10) && !has(12), "the first void branch");
        assert!(has(13) && has(15), "between the two");
        assert!(!has(16) && !has(18), "the second void branch");
        assert!(has(17) && has(19) && has(30));
        // A takeover that may have missed something, later.
        let late = Branch { known: Epoch { term: 20, moves: 0 }, terms: Vec::new(), from: u64::MAX };
        let has = |told: Epoch| late.behind(&both).has(told);
        assert!(has(all(9)) && has(all(17)) && has(all(19)) && has(Epoch { term: 20, moves: 0 }));
        assert!(!has(all(10)) && !has(all(16)) && !has(all(21)));
        // Far apart: whoever cannot be told apart is refused.
        let far = Branch { known: all(1_000), terms: Vec::new(), from: 1_002 };
        assert!(!far.behind(&first).has(all(500)) && far.behind(&first).has(all(990)));
        assert!(far.behind(&first).terms.len() <= 2 + MOST as usize);
    }

    #[test]
    fn only_the_other_branch_is_refused() {
        let mut way = Way::default();
        [reg(3, Mode::Solo), reg(5, Mode::Pair), reg(9, Mode::Solo), reg(11, Mode::Solo)]
            .into_iter()
            .for_each(|r| way.step(r));
        let branch = way.branch(reg(13, Mode::Solo)).of_user(Epoch { term: 7, moves: 2 });
        let has = |term| branch.has(Epoch { term, moves: 2 });
        assert!(has(5) && has(7), "from before the partition");
        assert!(has(9) && has(11), "told by the node that leads on");
        assert!(!has(8) && !has(10) && !has(12), "told by the other");
        assert!(has(13) && has(20), "told since");
    }
}
