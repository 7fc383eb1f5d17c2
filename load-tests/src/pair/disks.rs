//! Disks: when writes and syncs complete, and what is lost.

use presence_engine::ids::NodeIx;
use session_mover::log::Which;
use srm::node::In;
use srm::safety::Role;

use super::host::Lost;
use super::world::{Event, World};

impl World {
    /// Begins to write what was appended.
    pub(super) fn write_on(&mut self, node: usize) {
        for which in [Which::Own, Which::Peer] {
            let host = &mut self.hosts[node];
            let writer = &mut host.writers[which as usize];
            if std::mem::take(&mut host.disk.cut[which as usize]) {
                writer.generation += 1;
                writer.busy = false;
                writer.told = writer.told.min(host.disk.log.appended(which));
            }
            let (end, generation) = (host.disk.log.appended(which), writer.generation);
            if !writer.busy && end > writer.told {
                writer.busy = true;
                let wait = if self.rng.chance(95) { self.rng.range(0, 3) } else { self.rng.range(5, 60) };
                self.at(wait, Event::Written(node, which, generation, end));
            }
            let asked = which == Which::Peer && std::mem::take(&mut self.hosts[node].disk.sync_asked);
            if asked {
                let wait = self.rng.range(0, 40);
                self.at(wait, Event::Kept(node, generation, end));
            }
        }
    }

    /// Whether the disk stands still: what it was to do is done when it goes on.
    fn stalls(&mut self, node: usize, event: Event) -> bool {
        let left = self.hosts[node].stalls_until.saturating_sub(self.now);
        if left > 0 {
            self.at(left, event);
        }
        left > 0
    }

    pub(super) fn kept(&mut self, node: usize, generation: u64, seq: u64) {
        if self.stalls(node, Event::Kept(node, generation, seq)) {
            return;
        }
        let host = &mut self.hosts[node];
        if host.writers[Which::Peer as usize].generation != generation {
            return;
        }
        host.disk.log.complete_write_to(Which::Peer, seq);
        if let Some(at) = host.disk.log.complete_sync_to(Which::Peer, seq) {
            self.feed(node, In::Stored(Which::Peer, at, true));
        }
    }

    pub(super) fn written(&mut self, node: usize, which: Which, generation: u64, seq: u64) {
        if self.stalls(node, Event::Written(node, which, generation, seq)) {
            return;
        }
        let host = &mut self.hosts[node];
        if host.writers[which as usize].generation != generation {
            return;
        }
        let at = host.disk.log.complete_write_to(which, seq);
        let wait = if self.rng.chance(90) { self.rng.range(0, 8) } else { self.rng.range(10, 150) };
        if which == Which::Own || self.profile.peer_and_disk {
            self.at(wait, Event::Synced(node, which, generation, seq));
        } else {
            let writer = &mut self.hosts[node].writers[which as usize];
            (writer.busy, writer.told) = (false, seq);
        }
        if let Some(at) = at {
            self.feed(node, In::Stored(which, at, false));
        }
        self.write_on(node);
    }

    pub(super) fn synced(&mut self, node: usize, which: Which, generation: u64, seq: u64) {
        if self.stalls(node, Event::Synced(node, which, generation, seq)) {
            return;
        }
        let host = &mut self.hosts[node];
        let writer = &mut host.writers[which as usize];
        if writer.generation != generation {
            return;
        }
        (writer.busy, writer.told) = (false, seq);
        if let Some(at) = host.disk.log.complete_sync_to(which, seq) {
            self.feed(node, In::Stored(which, at, true));
        }
        self.write_on(node);
    }

    /// A disk that loses more than logs can tell must find the other node alive and in charge.
    pub(super) fn draw_loss(&mut self, node: usize, boot: u64) -> Lost {
        let in_charge = self.hosts[1 - node]
            .node()
            .is_some_and(|other| NodeIx::BOTH.iter().all(|g| other.core(*g).role() == Role::Primary));
        let replaceable = in_charge && !self.profile.weak;
        if self.places_deaths() {
            return Lost::Nothing;
        }
        let lost = match boot % 16 {
            0 | 8 if replaceable || !self.hosts[node].is_trimmed() => Lost::Store,
            1 | 9 if replaceable && !self.over => Lost::Everything,
            _ => Lost::Nothing,
        };
        self.coverage.disks +=
            u32::from(lost != Lost::Nothing && replaceable && self.hosts[node].is_trimmed());
        lost
    }
}
