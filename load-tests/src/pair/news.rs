//! What nodes tell their operators, as the world hears it.

use presence_engine::ids::Mode;
use srm::node::{Event as News, Node};
use srm::safety::Release;

use super::faults::Fault;
use super::world::{Event, World};

impl World {
    pub(super) fn news(&mut self, node: usize, news: News) {
        self.keep_moves(node, &news);
        self.replace_early(node, &news);
        match news {
            // It leads the other's users alone, and hears that the other leads its own.
            News::Register(group, reg) if reg.primary.index() != node && group.index() == node => {
                let leads = |n: &Node| n.core(group.peer()).release() == Release::Alone;
                if self.hosts[node].node().is_some_and(leads) {
                    self.people.crossed();
                }
            }
            News::Register(group, reg) if reg.primary.index() == node && group.index() != node => {
                self.coverage.takeovers += u32::from(reg.mode == Mode::Solo);
            }
            News::Register(_, reg) if reg.primary.index() == node && reg.mode == Mode::Pair => {
                if let Some(back) = self.hosts[node].doomed_in_pair.take() {
                    let (wait, outputs) = (self.rng.range(0, 25), self.rng.range(0, 3));
                    self.at(wait, Event::Fault(Fault::Kill(node, outputs, back)));
                }
            }
            News::Checked(report) if report.different + report.wrong > 0 => {
                self.fail(format!("a check of node {node} found {report:?}"));
            }
            News::Checked(report) => self.coverage.checks += u32::from(report.users.is_some()),
            News::SetAside(_, frames, _, kept) if frames > 0 => {
                self.coverage.asides += 1;
                self.coverage.merges += u32::from(kept > 0);
            }
            _ => {}
        }
    }
}
