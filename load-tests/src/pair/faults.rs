//! What goes wrong: machines, processes, the network, and operators.

use srm::node::{By, Force, Op, Reply, Service};
use srm::safety::Role;

use presence_engine::ids::{Mode, NodeIx, Reg};

use super::host::Then;
use super::patience::Late;
use super::world::{Event, World};

/// How often operators have both nodes checked, in milliseconds, where they do.
const CHECKS_EVERY: u64 = 3_000;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a node, at once or so many outputs later; back after so many milliseconds.
    Kill(usize, u64, u64),
    /// The same, just after the node has formed a pair again.
    KillInPair(usize, u64),
    /// Both, the second after the first.
    KillBoth(u64, u64, u64),
    /// A node loses power; its host answers again after the first time, its server runs after the second.
    Power(usize, u64, u64),
    /// Both lose power, the second so much later (`commit = "peer-and-disk"` survives it); their servers run again
    /// after so long each.
    PowerBoth(u64, u64, u64),
    /// A process is stopped for so long.
    Pause(usize, u64),
    /// The path between the nodes is cut for so long; one direction only for beacons if named.
    Cut(u64, Option<usize>),
    /// What the nodes say on their connections is late by so much, for so long.
    Slow(Late, u64),
    /// The connection that a node dialled breaks.
    Break(usize),
    /// A client's connection breaks.
    Client(usize),
    /// The operator's failover of a node.
    Failover(usize),
    /// The operator's fallback at a node.
    Fallback(usize),
    /// The operator's `force-active` at a node, if its peer is dead and nothing would be missing.
    ForceActive(usize),
    /// The operator's words without automatics: `force-inactive` or `force-active` at a node.
    Force(usize, Force),
    /// The way of one node, or of both, to the witness is cut for so long.
    CutWitness(Option<usize>, u64),
    /// The witness loses its disk.
    EmptyWitness,
    /// SIGTERM, and a start after so long.
    Leave(usize, u64),
    /// The operator's restart of a node, which announces it, and starts again after so long.
    Restart(usize, u64),
    /// A critical service of a node is stopped for so long.
    Service(usize, Service, u64),
    /// The operator's recover at a node.
    Recover(usize),
    /// A check of a node's store and of its peer's copies.
    Check(usize),
    /// The nodes are cut off from each other, with some of the clients each, for so long.
    Part(u64),
    /// That is over.
    Meet,
    /// A node dies in the next turn in which it sets the tail of a log aside, then; back after so long.
    KillInCut(usize, Then, u64),
    /// Something else that operators ask for.
    Asked(super::group::Asked),
}

impl World {
    /// Draws the faults of a run.
    pub(super) fn plan(&mut self, from: u64, until: u64) {
        let count = self.rng.range(1, self.profile.faults);
        for _ in 0..count {
            let at = self.rng.range(from, until) - self.now;
            let fault = self.draw();
            self.at(at, Event::Fault(fault));
            self.plan_group(at, fault);
            self.plan_held(at);
            self.plan_restart(at, fault);
            if !self.profile.available && !self.profile.witness {
                let later = at + self.rng.range(100, 8_000);
                for node in 0..2 {
                    self.at(later, Event::Fault(Fault::ForceActive(node)));
                }
            }
            if matches!(fault, Fault::Service(..)) {
                let later = at + self.rng.range(2_000, 60_000);
                let by = self.rng.below(2);
                self.at(later, Event::Fault(Fault::Recover(by)));
            }
            if matches!(
                fault,
                Fault::Failover(_) | Fault::Leave(..) | Fault::Service(..) | Fault::Restart(..)
            ) {
                let later = at + self.rng.range(2_000, 15_000);
                for node in 0..2 {
                    self.at(later, Event::Fault(Fault::Fallback(node)));
                }
            }
        }
        if self.profile.witness {
            self.plan_witness(from, until);
        }
        let checks = if self.profile.checks { until - from } else { 0 };
        for at in (0..checks).step_by(CHECKS_EVERY as usize) {
            (0..2).for_each(|node| self.at(from + at - self.now, Event::Fault(Fault::Check(node))));
        }
        for _ in 0..self.rng.range(0, 4) {
            let at = self.rng.range(from, until) - self.now;
            let client = self.rng.below(self.clients.len());
            self.at(at, Event::Fault(Fault::Client(client)));
        }
        self.plan_slow(from, until);
        self.plan_alone(from, until);
    }

    fn plan_witness(&mut self, from: u64, until: u64) {
        for _ in 0..self.rng.range(0, 2) {
            let at = self.rng.range(from, until) - self.now;
            let only = if self.rng.chance(60) { Some(self.rng.below(2)) } else { None };
            let for_ms = self.rng.range(100, 60_000);
            self.at(at, Event::Fault(Fault::CutWitness(only, for_ms)));
        }
        if self.rng.chance(15) {
            let at = self.rng.range(from, until) - self.now;
            self.at(at, Event::Fault(Fault::EmptyWitness));
        }
    }

    fn draw(&mut self) -> Fault {
        let node = self.rng.below(2);
        let back =
            if self.rng.chance(50) { self.rng.range(100, 2_000) } else { self.rng.range(2_000, 20_000) };
        if self.profile.services && self.rng.chance(40) {
            let service = Service::ALL[self.rng.below(3)];
            let for_ms =
                if self.rng.chance(50) { self.rng.range(50, 4_000) } else { self.rng.range(4_000, 40_000) };
            return Fault::Service(node, service, for_ms);
        }
        if self.profile.held && self.rng.chance(35) {
            return Fault::Force(node, Force::Inactive);
        }
        if let Some(asked) = self.draw_group() {
            return asked;
        }
        if let Some(restart) = self.draw_restart() {
            return restart;
        }
        match self.rng.range(0, 99) {
            0..=5 => Fault::KillInPair(node, back),
            6..=29 => {
                let outputs = if self.rng.chance(50) { self.rng.range(1, 40) } else { 0 };
                Fault::Kill(node, outputs, back)
            }
            30..=39 => Fault::KillBoth(self.rng.range(0, 400), back, self.rng.range(100, 15_000)),
            40..=44 if self.profile.power && self.profile.peer_and_disk => Fault::PowerBoth(
                self.rng.range(0, 400),
                self.rng.range(500, 9_000),
                self.rng.range(500, 9_000),
            ),
            40..=44 if self.profile.power => {
                Fault::Power(node, self.rng.range(1_000, 8_000), self.rng.range(8_000, 20_000))
            }
            40..=52 => Fault::Pause(node, self.rng.range(200, 2_500)),
            53..=58 => Fault::Pause(node, self.rng.range(3_000, self.profile.longest)),
            59..=68 => {
                let one_way = if self.rng.chance(40) { Some(node) } else { None };
                Fault::Cut(self.rng.range(100, self.profile.longest), one_way)
            }
            69..=78 => Fault::Break(node),
            79..=88 => Fault::Failover(node),
            89..=93 => Fault::Fallback(node),
            _ => Fault::Leave(node, back),
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.over {
            return;
        }
        self.trace(|| format!("FAULT {fault:?}"));
        self.note_fault(fault);
        match fault {
            Fault::Kill(node, outputs, back) => {
                if !self.may_kill(node) {
                    return;
                }
                self.coverage.kills +=
                    u32::from(self.now < self.talk_until && self.hosts[node].process.is_some());
                self.restart(node, back);
                match &mut self.hosts[node].process {
                    Some(process) if outputs > 0 && !process.paused => process.doom = Some(outputs),
                    _ => self.die(node, false),
                }
            }
            Fault::KillInPair(node, back) => self.hosts[node].doomed_in_pair = Some(back),
            Fault::KillBoth(apart, first, second) => {
                let one = self.rng.below(2);
                self.at(0, Event::Fault(Fault::Kill(one, 0, first + apart)));
                self.at(apart, Event::Fault(Fault::Kill(1 - one, 0, second)));
            }
            Fault::PowerBoth(apart, first, second) => {
                let one = self.rng.below(2);
                self.at(0, Event::Fault(Fault::Power(one, 300, first + apart)));
                self.at(apart, Event::Fault(Fault::Power(1 - one, 300, second)));
            }
            Fault::Power(node, host, server) => self.lose_power(node, host, server),
            Fault::Pause(node, for_ms) => self.pause(node, for_ms),
            Fault::Cut(for_ms, one_way) => self.cut_path(for_ms, one_way),
            Fault::Slow(late, for_ms) => self.slow_down(late, for_ms),
            Fault::Break(node) => self.break_wire(node),
            Fault::Client(client) => {
                if let Some(socket) = self.clients[client].main {
                    self.break_socket(socket);
                }
            }
            Fault::Service(node, service, for_ms) => self.stop_service(node, service, for_ms),
            Fault::Part(for_ms) => self.part(for_ms),
            Fault::Meet => self.meet(),
            Fault::KillInCut(node, then, back) => self.doom_in_a_cut(node, then, back),
            Fault::Asked(asked) => self.asked(asked),
            Fault::Check(node) => _ = self.op(node, Op::Check),
            Fault::Recover(node) => _ = self.asks(node, Op::Recover),
            Fault::Failover(node) => _ = self.asks(node, Op::Failover(By::Here)),
            Fault::Fallback(node) => {
                self.coverage.fallbacks += u32::from(self.asks(node, Op::Fallback(By::Here)));
            }
            Fault::ForceActive(node) => self.force_active(node),
            Fault::Force(node, to) => self.force(node, to),
            Fault::CutWitness(only, for_ms) => self.cut_witness(only, for_ms),
            Fault::EmptyWitness => self.empty_witness(),
            Fault::Restart(node, back) => self.restart_planned(node, back),
            Fault::Leave(node, back) => {
                // Whoever leaves while the other cannot hear takes with it what it acknowledged alone (D6).
                let apart = !self.excuses() && self.now < self.isolated.1 + 4_000;
                if self.hosts[node].runs() && !apart {
                    self.leaving_until = self.now + 33_000;
                    self.restart(node, back + 32_000);
                    self.asks(node, Op::Leave);
                }
            }
        }
    }

    fn pause(&mut self, node: usize, for_ms: u64) {
        let for_ms = self.isolate(for_ms);
        if let Some(process) = self.hosts[node].process.as_mut().filter(|p| !p.paused) {
            process.paused = true;
            let boot = process.boot;
            self.at(for_ms, Event::Wake(node, boot));
        }
    }

    fn cut_path(&mut self, for_ms: u64, one_way: Option<usize>) {
        let until = self.now + self.isolate(for_ms);
        for to in 0..2 {
            if one_way.is_none_or(|way| way == to) {
                self.cut[to] = self.cut[to].max(until);
            }
        }
    }

    /// How long of this the nodes may not hear each other, so that nobody is given up who lives.
    fn isolate(&mut self, for_ms: u64) -> u64 {
        if self.excuses() {
            return for_ms;
        }
        if self.now < self.leaving_until {
            return 1;
        }
        if self.now > self.isolated.1 + 4_000 {
            self.isolated.0 = self.now;
        }
        let end = (self.now + for_ms).min(self.isolated.0 + self.profile.longest).max(self.now + 1);
        self.isolated.1 = self.isolated.1.max(end);
        end - self.now
    }

    /// The operator asks; whether something begins.
    pub fn asks(&mut self, node: usize, op: Op) -> bool {
        self.hosts[node].runs() && matches!(self.op(node, op), Some(Reply::Begun(_)))
    }

    /// Without a witness, what a node acknowledged alone before its living peer heard that it is alone dies with it for as
    /// long as it is down (D6): such a kill belongs to another profile. A peer that is down waits, when it starts.
    pub(super) fn may_kill(&self, node: usize) -> bool {
        let other = 1 - node;
        let Some(mine) = self.hosts[node].node() else { return true };
        // What the other had in memory only is gone with its power. As long as this node does not know, the rest is here alone, and
        // a start cannot tell that it was acknowledged: two faults at once, which `commit = "peer-and-disk"` is for.
        let leads_in_pair = |g: &NodeIx| {
            let core = mine.core(*g);
            core.role() == Role::Primary && core.reg().mode == Mode::Pair
        };
        let unaware = self.hosts[other].dark && NodeIx::BOTH.iter().any(leads_in_pair);
        if unaware && !self.excuses() && !self.profile.peer_and_disk {
            return false;
        }
        self.excuses()
            || self.profile.witness
            || NodeIx::BOTH.iter().all(|g| {
                let core = mine.core(*g);
                let reg = core.reg();
                let alone = core.role() == Role::Primary && reg.mode == Mode::Solo;
                let off = self.hosts[other].process.is_none();
                let theirs = self.hosts[other].disk.regs[g.index()].map(|r| r.reg);
                // One that has just come back and was taken over meanwhile goes by its own copy, which says that it leads.
                let known = |theirs: Reg| theirs.term >= reg.term || theirs.mode == Mode::Solo && !off;
                // One that is to come back and led alone when it ended serves at once, without what was said here since.
                let serves = |theirs: Reg| theirs.mode == Mode::Solo && theirs.primary.index() == other;
                !alone || theirs.is_some_and(known) || off && !theirs.is_some_and(serves)
            })
    }

    /// A careful operator: looks whether the other node serves, and what may be missing, before giving the word.
    fn force_active(&mut self, node: usize) {
        if !self.hosts[node].runs() || self.hosts[1 - node].process.is_some() {
            return;
        }
        let would = self.op(node, Op::Force { to: Force::Active, confirmed: false });
        if would == Some(Reply::MayMiss(Vec::new())) {
            let forced = self.op(node, Op::Force { to: Force::Active, confirmed: true });
            self.coverage.forced += u32::from(forced == Some(Reply::Forced(Vec::new())));
        }
    }

    /// Its death would belong to another profile by now.
    pub(super) fn spare(&mut self, node: usize) {
        if let Some(process) = &mut self.hosts[node].process {
            process.doom = None;
        }
        self.hosts[node].disk.doom = None;
    }

    fn lose_power(&mut self, node: usize, host: u64, server: u64) {
        if !self.may_kill(node)
            || (self.hosts[1 - node].process.is_none() && !self.profile.peer_and_disk)
            || self.hosts[node].process.is_none()
        {
            return;
        }
        self.coverage.powers += 1;
        self.hosts[node].dark = true;
        self.restart(node, host + server);
        self.die(node, true);
        self.hosts[node].disk.log.lose_power();
        self.hosts[node].disk.store.lose_power();
        self.at(host, Event::PowerBack(node));
    }

    pub(super) fn restart(&mut self, node: usize, after: u64) {
        if !std::mem::replace(&mut self.hosts[node].starting, true) {
            self.at(after.max(1), Event::Boot(node));
        }
    }

    /// Clients whose session the dead node had, and whose stream is at the other one.
    fn fronts_of_dead(&mut self, node: usize) {
        let Some(other) = self.hosts[1 - node].node() else { return };
        let state = other.driver().engine().state();
        for client in &mut self.clients {
            let main = client.main.filter(|socket| self.sockets[*socket].node != node);
            let owned = state.owner_of(&client.user).is_some_and(|owner| owner.index() == node);
            client.outlives = main.filter(|_| owned);
        }
    }

    /// A process ends without a word. `silent`: so does its host.
    pub(super) fn die(&mut self, node: usize, silent: bool) {
        self.end_early(node);
        let host = &mut self.hosts[node];
        if host.process.take().is_none() {
            return;
        }
        host.powered = !silent;
        host.disk.log.crash();
        for writer in &mut host.writers {
            writer.generation += 1;
            writer.busy = false;
        }
        self.trace(|| format!("{} dies", ["a", "b"][node]));
        if self.hosts[1 - node].process.is_none() {
            self.ledger.nobody_runs();
            self.questions.nobody_runs();
            self.people.nobody_runs();
        }
        self.hang_up_witness(node);
        self.fronts_of_dead(node);
        self.wires_of_dead(node, silent);
        self.sockets_of_dead(node, silent);
        // A start that was planned before a leave may come before the end; then another is.
        if !self.hosts[node].starting {
            self.restart(node, 1_000);
        }
    }
}
