//! The witness among the rest of the node: what it is asked, and what its answers and its absence mean.

use presence_engine::ids::{Group, NodeIx, Reg};

use super::{Disk, Node, Out};
use crate::safety::{CasResult, In, RegisterKind};
use crate::witness::client::Said;
use crate::witness::words::{Ask, Verdict};

/// What a node knows of its witness.
#[derive(Debug)]
pub(super) struct WitnessView {
    /// Why it cannot be reached; `None`: it can.
    away: Option<String>,
    /// What keeps it from deciding about each group.
    undecided: [Option<String>; 2],
    /// The last request of each group that was on its way to it.
    sent: [Option<u32>; 2],
    /// What is done now the operator wants in its place.
    pub(super) overruled: bool,
}

impl Default for WitnessView {
    fn default() -> Self {
        let away = Some("it was not reached yet".to_owned());
        WitnessView { away, undecided: [None, None], sent: [None; 2], overruled: false }
    }
}

impl Node {
    /// Whether a witness is asked at all.
    pub(super) fn has_witness(&self) -> bool {
        matches!(self.cfg.register, RegisterKind::Witness(_)) && !self.cfg.single
    }

    /// Whether the witness can be reached and decides; `None`: there is none.
    pub(super) fn witness_decides(&self) -> Option<bool> {
        let undecided = self.witness.undecided.iter().any(Option::is_some);
        self.has_witness().then_some(self.witness.away.is_none() && !undecided)
    }

    /// Whether the operator's word takes the place of its word: it cannot be asked, or does not know.
    pub(super) fn may_overrule(&self) -> bool {
        let undecided = self.witness.undecided.iter().any(Option::is_some);
        self.has_witness() && (self.witness.away.is_some() || undecided)
    }

    pub(super) fn witness_says(&mut self, said: Said, disk: &mut dyn Disk) {
        match said {
            Said::Here(undecided) => {
                let back = self.witness.away.take().is_some();
                self.witness.undecided = undecided;
                if back {
                    self.report_to_witness();
                }
            }
            Said::Away(why) => self.witness.away = Some(why),
            Said::Holds(regs) => {
                for (group, reg) in NodeIx::BOTH.into_iter().zip(regs) {
                    reg.into_iter().for_each(|reg| self.feed(group, In::Held(reg), disk));
                }
            }
            Said::Answer(group, request, verdict) => {
                if verdict == Verdict::Won && self.cores[group.index()].starting() {
                    self.driver.drop_unseen_answers(disk);
                }
                self.feed(group, In::CasReply(request, verdict.result()), disk);
            }
        }
    }

    /// The core of a group asks. What cannot go out is taken back: nothing is worse than a request that nobody has and
    /// everybody waits for. What may have gone out cannot be (R4).
    pub(super) fn ask_witness(&mut self, group: Group, asked: (u32, Reg, Reg), disk: &mut dyn Disk) {
        let (request, expected, new) = asked;
        let sent = &mut self.witness.sent[group.index()];
        if self.witness.away.is_none() {
            *sent = Some(request);
            self.outs.push(Out::Witness(Ask::Cas { group, request, expected, new }));
        } else if *sent != Some(request) {
            self.feed(group, In::CasReply(request, CasResult::NotSent), disk);
        }
    }

    /// What both registers are here, told each second and whenever that changes.
    pub(super) fn report_to_witness(&mut self) {
        if self.has_witness() && self.witness.away.is_none() {
            self.outs.push(Out::Witness(Ask::Report(NodeIx::BOTH.map(|g| self.cores[g.index()].reg()))));
        }
    }

    /// For the operator.
    pub(super) fn witness_alarms(&self) -> Vec<String> {
        if !self.has_witness() {
            return Vec::new();
        }
        if let Some(why) = &self.witness.away {
            return vec![format!(
                "the witness is not reachable ({why}): no node takes over by itself until it is"
            )];
        }
        let mut undecided: Vec<&String> = self.witness.undecided.iter().flatten().collect();
        undecided.dedup();
        undecided.into_iter().map(|why| format!("the witness decides nothing: {why}")).collect()
    }
}
