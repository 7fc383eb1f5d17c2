//! What is done to nodes, their disks and their clocks.

use std::process::Command;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::disk;
use super::language::{DiskStep, Node, Part, Site, Step};
use super::world::World;
use crate::clock::Clock;
use crate::powerloss::{Fault, Loss, set_faults, undo_unsynced};

/// How long a killed process may take to end, and one that is told to stop.
const KILLED: Duration = Duration::from_secs(20);
const STOPPED: Duration = Duration::from_secs(45);

impl World {
    /// Does what is no waiting and no looking.
    pub(super) fn act(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Kill(nodes) => {
                for node in nodes {
                    let at = self.server_mut(*node).signal(Signal::KILL)?;
                    self.crowd().fault_at(*node, at);
                }
                nodes.iter().try_for_each(|node| self.server_mut(*node).wait(KILLED).map(|_| ()))
            }
            Step::Stop(node) => {
                self.server_mut(*node).signal(Signal::TERM)?;
                let status = self.server_mut(*node).wait(STOPPED)?;
                if status.success() { Ok(()) } else { Err(format!("{node} ended with {status}")) }
            }
            Step::Pause(nodes) => self.signal(nodes, Signal::STOP),
            Step::PauseReleasing(node) => {
                let file = self.stop_file(*node);
                std::fs::write(&file, "").map_err(|error| format!("{}: {error}", file.display()))?;
                self.until(KILLED, |world| world.server_mut(*node).stands_still())
            }
            Step::Continue(nodes) => self.signal(nodes, Signal::CONT),
            Step::Start(nodes) => nodes.iter().try_for_each(|node| self.start(*node)),
            Step::StartVersion(node, version) => self.start_version(*node, version),
            Step::StartBefore(node) => self.start_before(*node),
            Step::Unplug(node) => {
                if self.cables_are_timed {
                    self.crowd().fault_at(*node, Instant::now());
                }
                self.net.plug(*node, false)
            }
            Step::Plug(node) => self.net.plug(*node, true),
            Step::Cut(one, others) => {
                if let Some(node) = isolated(*one, others) {
                    self.crowd().fault_at(node, Instant::now());
                }
                self.net.cut(*one, others)
            }
            Step::CutOneWay(one, others) => self.net.cut_one_way(*one, others),
            Step::Path(one, other, faults) => self.net.lay_path(*one, *other, faults),
            Step::Mend => self.net.mend(),
            Step::KillWitness => self.witness()?.kill(),
            Step::StartWitness => self.start_witness(),
            Step::EmptyWitness => self.witness()?.empty(),
            Step::PowerOffWitness => {
                let undone = self.witness()?.power_off()?;
                self.watch.tell(&format!("        the disk of the witness lost: {undone:?}"));
                Ok(())
            }
            Step::FailWitnessWrite => self.witness()?.fail_write(),
            Step::PowerOff(nodes) => self.power_off(nodes),
            Step::Panic(node) => {
                self.crowd().fault_at(*node, Instant::now());
                self.crowd().say_mandrake(*node)
            }
            Step::PanicStream(node) => self.set_trap(*node, "stream"),
            Step::PanicServices(node) => {
                self.crowd().fault_at(*node, Instant::now());
                self.set_trap(*node, "services")
            }
            Step::Disk(node, fault) => self.disk(*node, fault),
            Step::Clock(node, by) => {
                let file = self.clock_file(*node);
                Clock::set(&file, *by).map_err(|e| format!("{}: {e}", file.display()))
            }
            Step::Move(node, command) => {
                let said = self.server(node.other()).tandem(&self.net, &[command, &node.to_string()], "")?;
                self.watch.tell(&said.replace('\n', "; "));
                Ok(())
            }
            Step::Tandem(node, command) => {
                let words: Vec<&str> = command.split_whitespace().collect();
                let said = self.server(*node).tandem(&self.net, &words, "")?;
                self.watch.tell(&said.trim_end().replace('\n', "; "));
                Ok(())
            }
            Step::Talk(count) => self.crowd.as_mut().expect("everybody has logged in").talk(*count),
            Step::Wait(..) | Step::Hold(..) | Step::Assert(_) | Step::Ledger(_) => Ok(()),
        }
    }

    /// What waits for this file panics.
    fn set_trap(&self, node: Node, place: &str) -> Result<(), String> {
        let file = self.panic_file(node, place);
        std::fs::write(&file, "").map_err(|error| format!("{}: {error}", file.display()))
    }

    fn signal(&mut self, nodes: &[Node], signal: Signal) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.server_mut(*node).signal(signal).map(|_| ()))
    }

    /// First the network, so that nobody hears of the end; then the process; then what the disk had not written.
    fn power_off(&mut self, nodes: &[Node]) -> Result<(), String> {
        for node in nodes {
            self.crowd().fault_at(*node, Instant::now());
            self.net.plug(*node, false)?;
        }
        for node in nodes {
            self.server_mut(*node).signal(Signal::KILL)?;
        }
        for node in nodes {
            self.server_mut(*node).wait(KILLED)?;
            let (data, journal) = (self.server(*node).data(), self.journal(*node));
            let mut luck = StdRng::seed_from_u64(1 + node.index() as u64);
            let undone = undo_unsynced(&data, &journal, Loss::Pieces, &mut luck);
            let undone = undone.map_err(|error| format!("{}: {error}", journal.display()))?;
            self.watch.tell(&format!("        the disk of {node} lost: {undone:?}"));
        }
        Ok(())
    }

    fn disk(&mut self, node: Node, step: &DiskStep) -> Result<(), String> {
        let (data, kept) = (self.server(node).data(), self.kept(node));
        match step {
            DiskStep::Empty => {
                // The numbers of its events begin anew: all of them are of the chat.
                self.events_before[node.index()] = 0;
                disk::replace(None, &data)
            }
            DiskStep::Keep => disk::replace(Some(&data), &kept),
            DiskStep::PutBack => disk::replace(Some(&kept), &data),
            DiskStep::OfPeer => disk::replace(Some(&self.server(node.other()).data()), &data),
            DiskStep::OfOtherCluster => disk::replace(Some(&self.disk_of_other_cluster(node)?), &data),
            DiskStep::StoreLost => disk::replace(None, &data.join("store")),
            DiskStep::StoreDamaged => disk::damage_store(&data),
            DiskStep::StoreOfPeer => {
                let peers = self.server(node.other()).data();
                disk::replace(Some(&peers.join("store")), &data.join("store"))
            }
            DiskStep::Torn(part) => disk::tear(&data, part.folder()),
            DiskStep::Rotten => disk::rot(&data),
            DiskStep::Full => self.hit(node, || disk::fill(&data)),
            DiskStep::Free => disk::free(&data),
            DiskStep::ReadOnly => self.hit(node, || disk::give_up(&data)),
            DiskStep::Writable => disk::repair(&data),
            DiskStep::SyncFailsOnce(part) => self.set(node, &[Fault::SyncFails, Fault::Once, part.only()]),
            DiskStep::WriteFailsOnce(part) => self.set(node, &[Fault::WriteFails, Fault::Once, part.only()]),
            DiskStep::WriteShortOnce(part) => self.set(node, &[Fault::WriteShort, Fault::Once, part.only()]),
            DiskStep::Slow(time) => self.set(node, &[Fault::SlowSync(time.as_millis() as u32)]),
            DiskStep::Stalls(part, time) => {
                self.set(node, &[Fault::SlowSync(time.as_millis() as u32), Fault::Once, part.only()])
            }
            DiskStep::StoreFails => self.set(node, &[Fault::WriteFails, Fault::OnlyStore]),
            DiskStep::Well => self.set(node, &[]),
        }
    }

    /// A fault that ends the node: its clients are timed.
    fn hit(&self, node: Node, act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        self.crowd().fault_at(node, Instant::now());
        act()
    }

    fn set(&self, node: Node, faults: &[Fault]) -> Result<(), String> {
        let ends = faults.iter().any(|fault| matches!(fault, Fault::SyncFails | Fault::WriteFails));
        if ends && !faults.contains(&Fault::OnlyStore) {
            self.crowd().fault_at(node, Instant::now());
        }
        let journal = self.journal(node);
        set_faults(&journal, faults).map_err(|error| format!("{}: {error}", journal.display()))
    }
}

/// The node that a cut leaves without its peer and without the witness: it may serve nobody, and its clients are timed.
fn isolated(one: Site, others: &[Site]) -> Option<Node> {
    let Site::Node(node) = one else { return None };
    let alone = others.contains(&Site::Node(node.other())) && others.contains(&Site::Witness);
    alone.then_some(node)
}

impl DiskStep {
    /// Whether it is the preloaded library that does it.
    pub(super) fn is_of_shim(&self) -> bool {
        use DiskStep::{Slow, Stalls, StoreFails, SyncFailsOnce, Well, WriteFailsOnce, WriteShortOnce};
        matches!(
            self,
            SyncFailsOnce(_)
                | WriteFailsOnce(_)
                | WriteShortOnce(_)
                | StoreFails
                | Slow(_)
                | Stalls(..)
                | Well
        )
    }
}

impl Part {
    /// What keeps a fault to it.
    fn only(self) -> Fault {
        match self {
            Part::OwnLog => Fault::OnlyOwnLog,
            Part::Copy => Fault::OnlyPeerLog,
            Part::Core => Fault::OnlyCore,
        }
    }

    /// Where it is in the data folder.
    fn folder(self) -> &'static str {
        match self {
            Part::OwnLog => disk::OWN_LOG,
            Part::Copy => "log/peer",
            Part::Core => "core",
        }
    }
}

/// The network tools that a world needs are there; what is missing, with the line that installs it.
pub(super) fn tools() -> Result<(), String> {
    for (tool, package) in [("ip", "iproute2"), ("mount", "mount"), ("mkfs.ext4", "e2fsprogs"), ("cc", "gcc")]
    {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !found.is_ok_and(|found| found.status.success()) {
            return Err(format!("{tool} is not installed: apt-get install -y {package} (.ci/run does)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_isolates_a_node_if_it_leaves_it_neither_peer_nor_witness() {
        let [a, b] = Node::BOTH.map(Site::Node);
        assert_eq!(isolated(a, &[b, Site::Witness]), Some(Node::A));
        assert_eq!(isolated(b, &[Site::Clients, Site::Witness, a]), Some(Node::B));
        assert_eq!(isolated(a, &[b]), None);
        assert_eq!(isolated(a, &[Site::Witness]), None);
        assert_eq!(isolated(Site::Witness, &[a, b]), None);
    }
}
