//! One machine: a disk that persists, and a process that may be killed, paused and started again.

use std::collections::BTreeMap;

use bytes::Bytes;
use presence_engine::engine::Print;
use presence_engine::ids::{Group, Position};
use session_mover::log::{LogStore, MemoryLog, Storage, Which};
use session_mover::store::{Batch, MemoryStore, Store};
use srm::node::{Check, Crashes, Disk, Failovers, In, Node, RegisterCopy, Service};

/// Both logs and both register slots.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// The logs.
    pub log: MemoryLog,
    /// The store.
    pub store: MemoryStore,
    /// The registers' durable copies.
    pub regs: [Option<RegisterCopy>; 2],
    /// Logs that were cut since the world last looked.
    pub cut: [bool; 2],
    /// The copy of the peer's log is to be synced.
    pub sync_asked: bool,
    /// How often the beginning of a log was removed.
    pub trims: u32,
    /// What the running turn handles.
    pub turn: Vec<u64>,
    /// What is known of crashes.
    pub crashes: Crashes,
    /// What the flap guard counts, and whether users went back in vain.
    failovers: Failovers,
    /// The node dies in the turn in which it sets the tail of a log aside next.
    pub doom: Option<Then>,
    /// Registers and counts of the flap guard that were kept since the world last looked.
    pub saves: usize,
    /// The node dies instead of keeping such a thing after so many more.
    pub dies_at_save: Option<usize>,
    /// It has died in the middle of a turn: this was on the disk.
    pub died_with: Option<Box<SimDisk>>,
}

/// When a node dies that sets the tail of a log aside. What it writes in the place of the tail is there as a whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// All is as it was.
    Before,
    /// A part of the tail is gone, if nothing comes in its place.
    Midway,
    /// The log is what it should be, and nothing else has been done.
    After,
}

impl SimDisk {
    /// The process dies here if it is to: what it does in this turn from now on has no effect.
    fn dies(&mut self, then: Then) {
        if self.doom == Some(then) {
            self.doom = None;
            self.died_with = Some(Box::new(self.clone()));
        }
    }

    /// Something is about to be kept that is on disk when the node goes on.
    fn saves(&mut self) {
        self.saves += 1;
        let left = self.dies_at_save.take();
        if left == Some(0) {
            self.died_with = Some(Box::new(self.clone()));
        }
        self.dies_at_save = left.and_then(|left| left.checked_sub(1));
    }
}

impl LogStore for SimDisk {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }

    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        self.log.read(which, from, max_bytes)
    }

    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        // A cut waits for what was appended before it, and leaves nothing that is not on disk.
        self.log.complete_write(which);
        self.log.complete_sync(which);
        let end = self.log.appended(which);
        if end > keep {
            self.dies(Then::Before);
        }
        if end > keep + 1 && instead.is_empty() && self.doom == Some(Then::Midway) {
            self.log.replace_tail(which, (keep + end) / 2, Vec::new());
            self.dies(Then::Midway);
        }
        self.log.replace_tail(which, keep, instead);
        if end > keep {
            self.dies(Then::After);
        }
        self.cut[which as usize] = true;
    }

    fn sync(&mut self, which: Which) {
        self.log.sync(which);
    }

    fn sync_soon(&mut self, which: Which) {
        assert_eq!(which, Which::Peer, "the own log is always synced");
        self.sync_asked = true;
    }

    fn first(&self, which: Which) -> u64 {
        self.log.first(which)
    }

    fn trim(&mut self, which: Which, seq: u64) {
        self.trims += u32::from(seq > self.log.first(which));
        self.log.trim(which, seq);
    }

    fn begin_at(&mut self, which: Which, next: u64) {
        self.log.begin_at(which, next);
        self.cut[which as usize] = true;
    }
}

impl Storage for SimDisk {
    fn checkpoint(&mut self, batch: Batch) -> bool {
        self.log.sync(Which::Peer);
        self.store.write(batch).and_then(|()| self.store.flush()).is_ok()
    }

    fn note_turn(&mut self, prints: &[Print]) {
        self.turn = prints.iter().map(|print| print.0).collect();
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }
}

impl Disk for SimDisk {
    fn persist(&mut self, group: Group, copy: RegisterCopy) {
        self.saves();
        self.regs[group.index()] = Some(copy);
    }

    fn keep_crashes(&mut self, crashes: &Crashes) {
        self.crashes = crashes.clone();
    }

    fn keep_failovers(&mut self, failovers: &Failovers) {
        self.saves();
        self.failovers = failovers.clone();
    }
}

impl SimDisk {
    /// What the flap guard counts at a start, by this clock.
    pub fn failovers(&mut self, now_ms: u64) -> &Failovers {
        self.failovers = self.failovers.after(now_ms.saturating_sub(self.failovers.at_ms), now_ms);
        &self.failovers
    }
}

/// What writes one log: one batch at a time, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer {
    /// A batch is on its way to the disk.
    pub busy: bool,
    /// Completions of an earlier generation are of no interest: the process died, or the log was cut.
    pub generation: u64,
    /// Frames whose completion was told.
    pub told: u64,
}

/// A run of the server.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: Node,
    /// Its boot id.
    pub boot: u64,
    /// Stopped by a signal or by its hypervisor.
    pub paused: bool,
    /// Goes on, and has not read all of that yet.
    pub draining: bool,
    /// What waits in sockets and channels meanwhile.
    pub mailbox: Vec<In>,
    /// What clients said and must wait for a service.
    pub deferred: Vec<In>,
    /// When it was last given its ticks.
    pub ticked: u64,
    /// A step is scheduled.
    pub step_due: bool,
    /// Dies after so many more outputs.
    pub doom: Option<u64>,
}

/// What a disk has lost when its node starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// Nothing.
    Nothing,
    /// The store: it is built again from the logs if they have their beginnings.
    Store,
    /// Everything: the disk is a new one.
    Everything,
}

/// A machine.
#[derive(Debug, Default)]
pub struct Host {
    /// Its disk.
    pub disk: SimDisk,
    /// The server, if it runs.
    pub process: Option<Process>,
    /// One for each log.
    pub writers: [Writer; 2],
    /// The disk answers no more until then.
    pub stalls_until: u64,
    /// Its kernel answers, with a refusal where nobody listens.
    pub powered: bool,
    /// It has lost power, and its server has not started since.
    pub dark: bool,
    /// Its server dies soon after it has formed a pair again; back after so long.
    pub doomed_in_pair: Option<u64>,
    /// Back after so long when it has died while it set a tail aside.
    pub back: u64,
    /// A start is planned.
    pub starting: bool,
    /// What its shell sees of the checks before high availability.
    pub checks: Vec<Check>,
    /// Rows that its node has told.
    pub rows: Vec<u32>,
    /// Services that fail, and when the probe of one that was restarted is due.
    pub failing: BTreeMap<Service, Option<u64>>,
    /// Why its node has told that it keeps its users although clients of it wait at the other.
    pub kept: Vec<&'static str>,
    /// What clients say at the other node for this one is lost here, and nobody notices.
    pub deaf: bool,
}

impl Host {
    /// The server runs and is not paused.
    pub fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|p| !p.paused)
    }

    /// The disk as a start finds it; whether there is a state in the store.
    pub fn power_up(&mut self, lost: Lost) -> bool {
        (self.powered, self.dark) = (true, false);
        self.disk.cut = [false; 2];
        self.failing.clear();
        for which in [Which::Own, Which::Peer] {
            let writer = &mut self.writers[which as usize];
            writer.generation += 1;
            writer.busy = false;
            writer.told = self.disk.log.appended(which);
        }
        self.disk.sync_asked = false;
        if lost != Lost::Nothing {
            self.disk.store.lose_all();
        }
        if lost == Lost::Everything {
            self.disk = SimDisk::default();
            self.writers.iter_mut().for_each(|writer| writer.told = 0);
        }
        self.disk.store.mark().is_ok_and(|mark| mark.is_some())
    }

    /// Whether the logs alone give the state no more.
    pub fn is_trimmed(&self) -> bool {
        [Which::Own, Which::Peer].iter().any(|which| self.disk.log.first(*which) > 1)
    }

    /// The node, alive or paused.
    pub fn node(&self) -> Option<&Node> {
        self.process.as_ref().map(|p| &p.node)
    }
}
