//! A disk that does not answer. What is written there is released to nobody, and in Pair the peer has all of it: so a node
//! whose disk stands still for longer than the lease gives its users to the peer instead of letting them wait.

use presence_engine::ids::{Mode, NodeIx};
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::{Event, GOODBYE, Node, Out};
use crate::safety::Role;

/// From here on it is an alarm (3 s).
const ALARM_TICKS: u32 = 12;
/// From here on the node gives up (5 s).
const GIVE_UP_TICKS: u32 = 20;

/// How far the own log was durable, and for how many ticks what came behind has waited.
#[derive(Debug, Default)]
pub(super) struct Stall {
    synced: u64,
    ticks: u32,
}

impl Node {
    /// Counts how long the own disk has not answered, and gives up where the peer can go on.
    pub(super) fn watch_disk(&mut self, ticks: u16) {
        let synced = self.driver.own_synced();
        if synced >= self.driver.own_end().seq || synced != self.stall.synced {
            self.stall = Stall { synced, ticks: 0 };
            return;
        }
        let before = self.stall.ticks;
        // A process that stood still itself has learned nothing about its disk.
        self.stall.ticks += u32::from(ticks.min(2));
        let passed = |limit: u32| before < limit && self.stall.ticks >= limit;
        if passed(ALARM_TICKS) {
            self.outs.push(Out::Event(Event::DiskStalled));
        }
        if passed(GIVE_UP_TICKS) && self.peer_could_lead() {
            // Nothing leaves this node after its goodbye: the process ends.
            self.outs.push(Out::Link(Link::Out, Msg::Control(vec![GOODBYE].into())));
            self.outs.push(Out::GiveUp("its disk has not answered for 5 s, and the peer can go on"));
        }
    }

    /// The peer is there, and all that this node leads is led in Pair: it has everything that was released.
    fn peer_could_lead(&self) -> bool {
        let led = |g: &NodeIx| self.cores[g.index()].role() == Role::Primary;
        let in_pair = |g: NodeIx| self.cores[g.index()].reg().mode == Mode::Pair;
        let link = self.link_up[Link::Out as usize] && self.peer_up && !self.peer_leaving;
        !self.cfg.single && link && NodeIx::BOTH.into_iter().filter(led).all(in_pair)
    }

    /// For the operator.
    pub(super) fn disk_alarm(&self) -> Option<String> {
        let seconds = self.stall.ticks / 4;
        (self.stall.ticks >= ALARM_TICKS).then(|| {
            format!(
                "the disk of this node has not answered for {seconds} s: nothing of its users is acknowledged"
            )
        })
    }
}
