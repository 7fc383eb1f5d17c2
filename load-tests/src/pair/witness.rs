//! The witness on its own machine, and the way of each node to it. Its rules are the real ones; its disk keeps everything.

use presence_engine::ids::NodeIx;
use srm::node::In;
use srm::witness::client::Said;
use srm::witness::registers::{Register, Registers};
use srm::witness::words::{Ask, Verdict};

use super::world::{Event, World};

/// The witness.
#[derive(Debug, Default)]
pub struct Witness {
    registers: Registers,
    /// The way from each node is cut until then.
    cut: [u64; 2],
    /// Number of each node's connection, if it has one.
    connected: [Option<u64>; 2],
    count: u64,
    /// It decides nothing that these nodes ask of these groups.
    pub(super) undecided: Vec<(usize, NodeIx)>,
}

impl World {
    /// A node tries to connect, and again while it cannot.
    pub(super) fn dial_witness(&mut self, node: usize, boot: u64) {
        if !self.is_boot(node, boot) || self.witness.connected[node].is_some() {
            return;
        }
        if self.witness.cut[node] > self.now {
            return self.at(500, Event::DialWitness(node, boot));
        }
        self.witness.count += 1;
        self.witness.connected[node] = Some(self.witness.count);
        self.witness.registers.gone(NodeIx::BOTH[node]);
        self.feed_later(node, In::Witness(Said::Here([None, None])));
    }

    /// A process starts or ends: its connection is a new one.
    pub(super) fn hang_up_witness(&mut self, node: usize) {
        self.witness.connected[node] = None;
        self.witness.registers.gone(NodeIx::BOTH[node]);
    }

    /// Something for the witness leaves a node.
    pub(super) fn ask_witness(&mut self, node: usize, ask: Ask) {
        if let Some(connection) = self.witness.connected[node] {
            let wait = self.rng.range(1, 20);
            self.at(wait, Event::WitnessHears(node, connection, ask));
        }
    }

    pub(super) fn witness_hears(&mut self, node: usize, connection: u64, ask: Ask) {
        if self.witness.connected[node] != Some(connection) {
            return;
        }
        if self.witness.cut[node] > self.now {
            // TCP brings it when the way is open again, if the connection lives until then.
            let wait = self.witness.cut[node] - self.now + 1;
            return self.at(wait, Event::WitnessHears(node, connection, ask));
        }
        let registers = &mut self.witness.registers;
        let undecided = |group| self.witness.undecided.contains(&(node, group));
        let verdict = match ask {
            Ask::Cas { group, .. } if undecided(group) => Some(Verdict::Undecided),
            _ => registers.on(NodeIx::BOTH[node], ask).1,
        };
        let said = match (ask, verdict) {
            (Ask::Cas { group, request, .. }, Some(verdict)) => vec![Said::Answer(group, request, verdict)],
            _ => {
                let undecided = |r: &Register| r.undecided().map(|why| why.text().to_owned());
                let here = Said::Here(registers.0.each_ref().map(undecided));
                vec![here, Said::Holds(registers.0.each_ref().map(Register::held))]
            }
        };
        let wait = self.rng.range(1, 20);
        for said in said {
            self.at(wait, Event::WitnessSays(node, connection, Box::new(said)));
        }
    }

    pub(super) fn witness_says(&mut self, node: usize, connection: u64, said: Said) {
        // An answer that is on its way when the way is cut is lost.
        if self.witness.connected[node] == Some(connection) && self.witness.cut[node] <= self.now {
            self.feed(node, In::Witness(said));
        }
    }

    /// Nodes cannot reach the witness for so long.
    pub(super) fn cut_witness(&mut self, only: Option<usize>, for_ms: u64) {
        for node in (0..2).filter(|node| only.is_none_or(|only| only == *node)) {
            self.witness.cut[node] = self.witness.cut[node].max(self.now + for_ms);
            if let Some(connection) = self.witness.connected[node] {
                let wait = self.rng.range(0, 3_000);
                self.at(wait, Event::WitnessLost(node, connection));
            }
        }
    }

    /// A node notices that it does not hear the witness; a cut that is over by then has done nothing.
    pub(super) fn witness_lost(&mut self, node: usize, connection: u64) {
        if self.witness.connected[node] != Some(connection) || self.witness.cut[node] <= self.now {
            return;
        }
        self.hang_up_witness(node);
        if let Some(boot) = self.hosts[node].process.as_ref().map(|p| p.boot) {
            self.feed(node, In::Witness(Said::Away("cut".to_owned())));
            self.at(500, Event::DialWitness(node, boot));
        }
    }

    /// Its disk is lost.
    pub(super) fn empty_witness(&mut self) {
        self.coverage.witnesses += 1;
        self.witness.registers = Registers([Register::default(), Register::default()]);
    }

    /// The way to it is open for good.
    pub(super) fn mend_witness(&mut self) {
        self.witness.cut = [0; 2];
    }
}
