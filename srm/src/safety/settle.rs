//! Two Solo copies meet (R0): which node leads.

use presence_engine::ids::{Mode, Reg};

use super::{Beacon, Config};

/// Both nodes lead the same group alone, each by its own copy.
pub(super) fn conflicting(cfg: &Config, mine: Reg, theirs: Reg) -> bool {
    let solo = mine.mode == Mode::Solo && theirs.mode == Mode::Solo;
    let led = mine.term.0 != 0 && theirs.term.0 != 0;
    let settled = theirs.settled >= mine.term || mine.settled >= theirs.term;
    solo && led && !settled && mine.primary == cfg.me && theirs.primary == cfg.me.peer()
}

/// A Pair above the Solo that this node leads, not proposed with what it acknowledged alone since: by an earlier boot's
/// request that the register granted late, or by a give-back that crossed with a takeover.
pub(super) fn outdone(cfg: &Config, mine: Reg, theirs: Reg) -> bool {
    let led = mine.term.0 != 0 && mine.primary == cfg.me && mine.mode == Mode::Solo;
    led && theirs.mode == Mode::Pair && theirs.settled < mine.term
}

/// Whether this node leads once both have stopped. One that acknowledged nothing alone yields; if neither did, or each
/// took over the other's group, the home node leads; else the node that took over. Both nodes come to the same answer
/// from each other's facts.
pub(super) fn leads(cfg: &Config, alone: bool, took_other: bool, b: &Beacon) -> bool {
    if alone != b.alone {
        return alone;
    }
    let at_home = cfg.me == cfg.home;
    let each_took = if at_home { took_other } else { b.took_other };
    if !alone || each_took { at_home } else { !at_home }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{NodeIx, Term};

    use super::super::{Consent, RegisterKind, Role};
    use super::*;

    fn beacon(alone: bool, took_other: bool) -> Beacon {
        let reg = Reg { term: Term(2), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
        Beacon { reg, role: Role::Fenced, ack: None, holds: false, alone, took_other, stopped: true }
    }

    fn config(me: NodeIx, home: NodeIx) -> Config {
        let register = RegisterKind::Consent(Consent { available: true });
        Config { me, home, single: false, register, peer_disk: false, lease: 12 }
    }

    #[test]
    fn of_two_that_acknowledged_alone_the_one_that_took_over_leads_and_the_home_node_if_each_did() {
        for home in NodeIx::BOTH {
            let backup = home.peer();
            for each_took in [false, true] {
                // The backup leads this group, so it took it over; whether the home node took over the backup's is the question.
                let at_home = leads(&config(home, home), true, each_took, &beacon(true, true));
                let at_backup = leads(&config(backup, home), true, true, &beacon(true, each_took));
                assert_eq!((at_home, at_backup), (each_took, !each_took), "home {home:?}");
            }
        }
    }

    #[test]
    fn exactly_one_node_leads_whatever_the_facts() {
        for home in NodeIx::BOTH {
            for bits in 0..16u8 {
                let [a_alone, b_alone, a_took, b_took] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let a = leads(&config(NodeIx::A, home), a_alone, a_took, &beacon(b_alone, b_took));
                let b = leads(&config(NodeIx::B, home), b_alone, b_took, &beacon(a_alone, a_took));
                assert_ne!(a, b, "home {home:?}, facts {bits:04b}");
                if a_alone != b_alone {
                    assert_eq!(a, a_alone, "the one that acknowledged nothing alone yields");
                }
            }
        }
    }
}
