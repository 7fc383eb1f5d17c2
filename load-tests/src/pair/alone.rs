//! Two nodes that are cut off from each other with clients on both sides, under policy `available`: each serves everybody whom it
//! sees, and what both acknowledged is merged when they meet. What that policy excuses is excused from such a cut until all
//! is well again, and at no other time; and even then nothing is lost, nothing goes astray, and nobody waits.

use presence_engine::ids::NodeIx;
use srm::safety::Release;

use super::faults::Fault;
use super::host::{SimDisk, Then};
use super::world::{Event, World};

/// Within this time of a cut each node serves everybody, in milliseconds; clients with one stream are there somewhat later.
const SERVES: u64 = 15_000;
const SERVED: u64 = 22_000;
/// A cut begins and ends in peace if nothing else has happened for so long.
const PEACE: u64 = 8_000;
/// All is well if it has been for so long.
const WELL: u64 = 3_000;

/// Nodes that are apart.
#[derive(Debug, Default)]
pub struct Apart {
    /// What the policy excuses is excused.
    on: bool,
    began: u64,
    until: u64,
    /// Which node each client sees.
    sides: Vec<usize>,
    /// Which of them had a session when the cut began, and no stream to a run that was gone without a word.
    fit: Vec<bool>,
    boots: [Option<u64>; 2],
    /// How many there have been.
    cuts: u32,
    /// They were a pair when the cut began.
    whole: bool,
    /// When something else went wrong last: with a node, and with a client.
    trouble: [u64; 2],
    well_since: Option<u64>,
}

impl World {
    /// Whether what the profile excuses is excused now.
    pub(super) fn excuses(&self) -> bool {
        self.profile.weak && (!self.profile.alone || self.apart.on)
    }

    /// Whether the profile excuses things all the time, up to the end.
    pub(super) fn is_weak(&self) -> bool {
        self.profile.weak && !self.profile.alone
    }

    /// Long enough for both nodes to take over, and to talk before and after.
    pub(super) fn longer_alone(&mut self, load: u64) -> u64 {
        if self.profile.alone { self.rng.range(40_000, 75_000).max(load) } else { load }
    }

    /// One or two cuts, and nodes that die when they set aside what is merged.
    pub(super) fn plan_alone(&mut self, from: u64, until: u64) {
        if !self.profile.alone {
            return;
        }
        let mut at = from + self.rng.range(1_000, 12_000);
        while at + 3_000 < until {
            let for_ms = if self.rng.chance(25) {
                self.rng.range(2_000, 11_000)
            } else {
                self.rng.range(11_000, 30_000)
            };
            let for_ms = for_ms.min(until - at - 1_000);
            self.at(at - self.now, Event::Fault(Fault::Part(for_ms)));
            if self.rng.chance(50) {
                let (node, back) = (self.rng.below(2), self.rng.range(100, 6_000));
                let then = [Then::Before, Then::Midway, Then::After][self.rng.below(3)];
                self.at(at - self.now + for_ms, Event::Fault(Fault::KillInCut(node, then, back)));
            }
            at += for_ms + self.rng.range(15_000, 40_000);
        }
    }

    /// Something goes wrong.
    pub(super) fn note_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Part(_) | Fault::Meet | Fault::KillInCut(..) => {}
            Fault::Client(_) => self.apart.trouble[1] = self.now,
            _ => self.apart.trouble[0] = self.now,
        }
    }

    fn boots(&self) -> [Option<u64>; 2] {
        [0, 1].map(|node| self.hosts[node].process.as_ref().filter(|p| !p.paused).map(|p| p.boot))
    }

    /// The cut begins. What clients had with the node beyond it breaks.
    pub(super) fn part(&mut self, for_ms: u64) {
        let until = self.now + for_ms;
        let sides = self.clients.iter().map(|_| self.rng.below(2)).collect();
        let fit = (0..self.clients.len()).map(|c| self.is_fit(c)).collect();
        let in_peace = self.apart.trouble[0] == 0 || self.apart.trouble[0] + PEACE < self.now;
        self.apart = Apart {
            on: true,
            began: self.now,
            until,
            sides,
            fit,
            cuts: self.apart.cuts + 1,
            boots: self.boots(),
            whole: in_peace && NodeIx::BOTH.iter().all(|g| self.is_pair(*g)),
            trouble: self.apart.trouble,
            well_since: None,
        };
        self.cut = self.cut.map(|cut| cut.max(until));
        self.isolated.1 = self.isolated.1.max(until);
        self.ledger.part(self.now);
        self.break_what_is_beyond();
        self.at(for_ms, Event::Fault(Fault::Meet));
        self.at(for_ms, Event::Together);
    }

    /// A message that was shown more often than policies.md says. Each branch of a cut may show what was there before once more,
    /// and once more what its sender, whose session was refused, said again; and what both have is not recognized everywhere.
    pub(super) fn shown_too_often(&self) -> Option<String> {
        self.ledger.too_often(4 * self.apart.cuts).filter(|_| self.profile.alone)
    }

    fn is_fit(&self, c: usize) -> bool {
        let stale = |s: &super::socket::Socket| s.client == c && s.client_open && !s.server_open;
        self.clients[c].main.is_some() && !self.sockets.iter().any(stale)
    }

    /// Whether a client does not see a node.
    pub(super) fn is_beyond(&self, client: usize, node: usize) -> bool {
        self.now < self.apart.until && self.apart.sides.get(client).is_some_and(|side| *side != node)
    }

    /// Clients see this node alone for so long. What they have with the other breaks; the nodes hear each other.
    pub(super) fn see_only(&mut self, node: usize, for_ms: u64) {
        (self.apart.sides, self.apart.until) = (vec![node; self.clients.len()], self.now + for_ms);
        self.break_what_is_beyond();
    }

    fn break_what_is_beyond(&mut self) {
        for socket in 0..self.sockets.len() {
            let s = &self.sockets[socket];
            if (s.client_open || s.server_open) && self.is_beyond(s.client, s.node) {
                self.break_socket(socket);
            }
        }
    }

    /// The cut ends. Nobody has waited for an operator: each node serves everybody whom it sees.
    pub(super) fn meet(&mut self) {
        if self.apart.until > self.now {
            return;
        }
        let leads = |node: usize, group: NodeIx| {
            self.hosts[node].node().is_some_and(|n| n.core(group).release() == Release::Alone)
        };
        let waits = [0, 1].into_iter().flat_map(|node| NodeIx::BOTH.map(|group| (node, group)));
        let waits = waits.filter(|(node, group)| !leads(*node, *group)).collect::<Vec<_>>();
        self.coverage.alone += u32::from(waits.is_empty());
        let took = self.now - self.apart.began;
        let calm = |trouble: u64| trouble < self.apart.began;
        let in_peace = self.apart.whole && self.boots() == self.apart.boots && calm(self.apart.trouble[0]);
        if in_peace && took > SERVES && !waits.is_empty() {
            return self
                .fail(format!("after {took} ms alone these nodes do not serve these users: {waits:?}"));
        }
        let unserved = |c: &usize| {
            let client = &self.clients[*c];
            self.apart.fit.get(*c) == Some(&true) && (!client.machine.is_up() || client.main.is_none())
        };
        let unserved: Vec<usize> = (0..self.clients.len()).filter(unserved).collect();
        if in_peace && took > SERVED && calm(self.apart.trouble[1]) && !unserved.is_empty() {
            self.fail(format!(
                "after {took} ms with one node alone these clients are not served: {unserved:?}"
            ));
        }
    }

    /// Whether all is well again: what happens from then on is excused no more.
    pub(super) fn look_together(&mut self) {
        if !self.apart.on || self.now < self.apart.until {
            return;
        }
        let served = |client: &super::client::Client| {
            let open =
                client.main.is_some_and(|s| self.sockets[s].server_open && self.sockets[s].client_open);
            open && client.machine.is_up() && !client.seek.on
        };
        let well = NodeIx::BOTH.iter().all(|g| self.is_pair(*g)) && self.clients.iter().all(served);
        if !well {
            self.apart.well_since = None;
        } else if *self.apart.well_since.get_or_insert(self.now) + WELL <= self.now {
            self.trace(|| "all is well again".into());
            self.apart.on = false;
            self.coverage.together += u32::from(!self.over);
            self.ledger.together();
            self.questions.met();
        }
    }

    /// Looks for it, until it is so.
    pub(super) fn together(&mut self) {
        self.look_together();
        if self.apart.on {
            self.at(250, Event::Together);
        }
    }

    pub(super) fn doom_in_a_cut(&mut self, node: usize, then: Then, back: u64) {
        self.hosts[node].disk.doom = Some(then);
        self.hosts[node].back = back;
    }

    /// A node died in the middle of a turn, with this on its disk; nobody hears what it said in it.
    pub(super) fn die_in_a_cut(&mut self, node: usize, disk: SimDisk) {
        self.trace(|| format!("{} dies in the middle of a turn", ["a", "b"][node]));
        self.coverage.cut_kills += 1;
        self.has_died(node);
        self.hosts[node].disk = disk;
        let back = self.hosts[node].back;
        self.restart(node, back);
        self.die(node, false);
    }
}
