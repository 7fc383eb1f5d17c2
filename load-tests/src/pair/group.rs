//! Operators who switch high availability, and assign users to other homes, while everything else goes wrong.

use presence_engine::ids::NodeIx;
use srm::config::Assignment;
use srm::node::{GroupOp, In, Op, Reply};

use super::faults::Fault;
use super::world::{Event, World};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// High availability, asked of a node.
    Ha(usize, bool),
    /// Another home for a user, asked of both nodes.
    Assign(usize, NodeIx),
    /// Equal shares, or all to the first node; asked of both.
    Rebalance(bool),
}

impl World {
    /// Something for the operator's ear.
    pub fn op(&mut self, node: usize, op: Op) -> Option<Reply> {
        self.count += 1;
        let number = self.count;
        self.feed(node, In::Op(number, op));
        self.replies.iter().rev().find(|(n, _)| *n == number).map(|(_, reply)| reply.clone())
    }

    /// What the shell of a node sees of the checks before high availability.
    pub(super) fn answer_checks(&mut self, node: usize) {
        let seen = self.hosts[node].checks.clone();
        self.feed_later(node, In::Checks(seen));
    }

    pub(super) fn draw_group(&mut self) -> Option<Fault> {
        if !self.profile.group || !self.rng.chance(40) {
            return None;
        }
        let node = self.rng.below(2);
        Some(Fault::Asked(match self.rng.below(10) {
            0..=2 => Asked::Ha(node, self.rng.chance(30)),
            3..=6 => Asked::Assign(self.rng.below(self.clients.len()), NodeIx::BOTH[node]),
            _ => Asked::Rebalance(self.rng.chance(60)),
        }))
    }

    /// High availability that is switched off is switched on again, mostly.
    pub(super) fn plan_group(&mut self, at: u64, fault: Fault) {
        if let Fault::Asked(Asked::Ha(_, false)) = fault {
            let later = at + self.rng.range(1_000, 30_000);
            let node = self.rng.below(2);
            self.at(later, Event::Fault(Fault::Asked(Asked::Ha(node, true))));
        }
    }

    pub(super) fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Ha(node, on) => _ = self.op(node, Op::Group(GroupOp::Ha { on, force: true })),
            Asked::Assign(user, home) => {
                let user = self.clients[user].user.clone();
                (0..2).for_each(|node| _ = self.op(node, Op::Assign(user.clone(), Some(home))));
            }
            Asked::Rebalance(balanced) => {
                let assignment = if balanced { Assignment::Balanced } else { Assignment::ActiveStandby };
                self.automatics.assignment = assignment;
                let automatics = self.automatics;
                for node in 0..2 {
                    if let Some(process) = &mut self.hosts[node].process {
                        process.node.automatics(automatics);
                    }
                    let begun = self.asks(node, Op::Rebalance);
                    self.coverage.rebalances += u32::from(begun);
                }
            }
        }
    }
}
