//! What happens when the faults are over, and how a run gets to its first state: everything that can happen happens.

use presence_engine::ids::NodeIx;

use super::bounds::{Bounds, Kind, Start};
use super::world::{Action, World};

impl World {
    /// The first state: reached from two fresh disks by the rules themselves. Only then do the bounds count.
    pub fn start(bounds: &Bounds) -> World {
        let mut world = World::fresh(bounds);
        let (a, b) = (NodeIx::A, NodeIx::B);
        world.heal(bounds);
        world.left.crashes += 1;
        world.left.force += 1;
        match bounds.start {
            Start::Home => {}
            Start::TakenOver => {
                world.act(bounds, Action::Crash(a));
                let strict = bounds.kind == Kind::Strict;
                world.act(bounds, if strict { Action::Force(b) } else { Action::Gone(b) });
                world.heal(bounds);
            }
            Start::Solo => {
                for _ in 0..bounds.lease {
                    world.act(bounds, Action::Tick(a));
                }
                world.witness_round(bounds, a);
                world.beacon_round(bounds);
            }
        }
        world.left = bounds.left;
        for node in &mut world.nodes {
            node.ticks = 0;
        }
        world
    }

    /// Faults are over. Stops at Pair.
    pub fn heal(&mut self, b: &Bounds) {
        for _ in 0..20 {
            for i in NodeIx::BOTH {
                if self.core(i).is_none() {
                    self.act(b, Action::Restart(i));
                }
                if !self.met[i.index()] {
                    self.act(b, Action::Reach(i));
                }
                if self.core(i).is_some_and(|core| core.held()) {
                    self.act(b, Action::Let(i));
                }
                self.act(b, Action::Tick(i));
            }
            self.beacon_round(b);
            if self.healed_pair(b).is_some() {
                return;
            }
            for i in NodeIx::BOTH {
                if self.told(b, i).is_some() {
                    self.act(b, Action::Told(i));
                }
                self.witness_round(b, i);
                self.heal_data(b, i);
            }
        }
    }

    fn beacon_round(&mut self, b: &Bounds) {
        for i in NodeIx::BOTH {
            self.act(b, Action::SendBeacon(i));
            self.act(b, Action::HearBeacon(i.peer()));
        }
    }

    fn witness_round(&mut self, b: &Bounds, i: NodeIx) {
        for late in [1, 0] {
            if self.cas[i.index()][late].is_some() {
                self.act(b, Action::WitnessActs(i, late));
            }
            if self.cas[i.index()][late].is_some() {
                self.act(b, Action::HearWitness(i, late));
            }
        }
    }

    fn heal_data(&mut self, b: &Bounds, i: NodeIx) {
        if self.core(i).is_some_and(|c| c.wants_fetch()) {
            self.act(b, Action::Fetch(i));
        }
        if self.can_connect(i) {
            self.act(b, Action::Connect(i));
        }
        self.act(b, Action::Fsync(i));
        // A log has few entries; one that does not flow in that time never does.
        for _ in 0..8 {
            let node = &self.nodes[i.index()];
            if node.session && node.acked < node.log.len() {
                self.act(b, Action::Ship(i));
            }
        }
        if self.can_hold(i) {
            self.act(b, Action::Holds(i));
        }
    }
}
