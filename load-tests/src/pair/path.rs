//! The path between the nodes beside their two connections: beacons, probes, and what cuts and delays it; and the clocks on
//! the walls of both.

use bytes::Bytes;
use srm::evidence::Probe;
use srm::node::In;

use super::world::{Event, World};

/// Wall clock at the start of a run, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_795_000_000_000;

impl World {
    /// The wall clock of a machine, in milliseconds since 1970.
    pub(super) fn wall(&self, node: usize) -> u64 {
        (EPOCH_MS + self.now).saturating_add_signed(self.profile.skew[node])
    }

    /// Whether the nodes cannot hear each other.
    pub fn is_cut(&self) -> bool {
        self.cut.iter().any(|until| *until > self.now)
    }

    pub(super) fn beacon(&mut self, node: usize, bytes: Bytes) {
        let to = 1 - node;
        let copies = if self.rng.chance(3) { 2 } else { 1 };
        for _ in 0..copies {
            let lost =
                self.cut[to] > self.now && !self.beacons_pass || self.rng.chance(self.profile.beacon_loss);
            let late = !self.over && self.rng.chance(3);
            let delay = if late { self.rng.range(10, 1_500) } else { self.rng.range(0, 3) };
            let delay = delay + self.profile.latency;
            if !lost {
                self.at(delay, Event::Datagram(to, bytes.clone()));
            }
        }
    }

    /// What the two ports of the peer say: the truth, unless the path is cut.
    pub(super) fn probe(&mut self, node: usize, boot: u64, first: Option<Probe>) {
        if !self.is_boot(node, boot) {
            return;
        }
        let host = &self.hosts[1 - node];
        let refused = host.powered && host.process.is_none() && !self.is_cut();
        let probe = Probe { life_refused: refused, beacon_refused: refused };
        match first {
            None => self.at(20, Event::Probe(node, boot, Some(probe))),
            Some(first) => self.feed(node, In::Probed([first, probe])),
        }
    }
}
