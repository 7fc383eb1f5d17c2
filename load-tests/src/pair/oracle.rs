//! A run from beginning to end, and what must be true in it.

use presence_engine::ids::{Mode, NodeIx};
use srm::node::{By, Op, Reply};
use srm::safety::{Release, Role};
use xmpp_core::jid::{BareJid, Jid};

use super::client::Client;
use super::faults::Fault;
use super::world::{Event, World};
use super::{Coverage, Profile};

/// Time that the pair has to heal, in milliseconds.
const HEAL_MS: u64 = 240_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What broke, if anything did.
    pub failure: Option<String>,
    /// What happened.
    pub coverage: Coverage,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// The last lines of the trace, if one was kept.
    pub trace: String,
}

/// One run.
pub fn run(seed: u64, profile: Profile) -> Verdict {
    play(seed, profile, &[], false)
}

/// The same run with its trace.
pub fn replay(seed: u64, profile: Profile) -> Verdict {
    play(seed, profile, &[], true)
}

/// A run with these faults, each at its time after the clients began to talk.
pub fn scenario(seed: u64, profile: Profile, plan: &[(u64, Fault)], tracing: bool) -> Verdict {
    play(seed, Profile { faults: 0, ..profile }, plan, tracing)
}

fn play(seed: u64, profile: Profile, plan: &[(u64, Fault)], tracing: bool) -> Verdict {
    let mut world = World::new(seed, profile, tracing);
    world.automatics_of_profile();
    world.form();
    world.enrol();
    for (at, fault) in plan {
        world.at(3_000 + at, Event::Fault(*fault));
    }
    let last = plan.iter().map(|(at, _)| at + 5_000).max().unwrap_or(0);
    let load = world.rng.range(8_000, 25_000).max(last);
    let load = world.longer_alone(load);
    world.load(load);
    world.heal();
    world.judge();
    world.coverage.messages = world.ledger.total() as u32;
    world.coverage.trims = world.hosts.iter().map(|host| host.disk.trims).sum();
    world.coverage.again = world.ledger.again();
    world.coverage.early = world.ledger.lost_early();
    world.coverage.presences = world.people.shown() as u32;
    Verdict {
        failure: world.failure.take(),
        coverage: world.coverage,
        virtual_ms: world.now,
        trace: world.last_lines(),
    }
}

/// What led to a panic is told too.
impl Drop for World {
    fn drop(&mut self) {
        if self.tracing && std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
    }
}

impl World {
    /// Two fresh machines become a pair.
    pub(super) fn form(&mut self) {
        for node in 0..2 {
            let wait = self.rng.range(0, 2_000);
            self.at(wait, Event::Boot(node));
        }
        let formed = |w: &World| NodeIx::BOTH.iter().all(|g| w.is_pair(*g));
        self.run_while(60_000, "the pair forms", |w| !formed(w));
    }

    /// Accounts and their clients.
    fn enrol(&mut self) {
        let users = self.rng.range(4, 8) as usize;
        for user in 0..users {
            let jid: Option<BareJid> = Jid::parse(&format!("u{user}@d")).ok().map(|jid| jid.to_bare());
            let Some(jid) = jid else { return self.fail("no JID".into()) };
            let home = NodeIx::BOTH[user % 2];
            let op = Op::UserAdd(jid.clone(), Some(home), Box::default());
            if let Some(Reply::Refused(why)) = self.op(user % 2, op) {
                self.fail(format!("user add: {why:?}"));
            }
            // A laptop, and with some a phone: each where its client happens to connect.
            let devices = if self.rng.chance(35) && !self.profile.people { 2 } else { 1 };
            for resource in &["r", "p"][..devices] {
                let (dual, silence) = (self.rng.chance(50), self.rng.range(6_000, 20_000));
                let dual = dual && (!self.profile.impatient || self.profile.mixed);
                let pace = self.rng.range(60, 500);
                self.ledger.client_of(user);
                self.clients.push(Client::new(jid.clone(), resource, dual, silence, pace));
            }
        }
        let end = self.now + 1_000;
        self.run_until(end);
        for client in 0..self.clients.len() {
            let node = self.rng.below(2);
            self.seek(client, Some(node));
            let (look, talk) = (self.rng.range(0, 1_000), self.rng.range(1_000, 3_000));
            self.at(look, Event::Look(client));
            self.at(talk, Event::Talk(client));
        }
    }

    /// They talk while things go wrong.
    fn load(&mut self, for_ms: u64) {
        self.talk_until = self.now + 3_000 + for_ms;
        self.disable_automatics();
        if self.profile.faults > 0 {
            let from = self.now + 2_000;
            self.plan(from, self.talk_until);
        }
        let end = self.talk_until;
        self.run_until(end);
    }

    /// Faults end; everything comes back by itself.
    fn heal(&mut self) {
        self.profile.beacon_loss = 0;
        self.over = true;
        self.mend_witness();
        (0..2).for_each(|node| self.spare(node));
        for node in 0..2 {
            self.start_services(node);
            self.op(node, Op::Recover);
        }
        self.mend_held();
        let back = self.rng.chance(50);
        self.run_while(HEAL_MS, "the pair heals", |w| w.what_is_open().is_some());
        // What was just over may have its last consequences.
        let end = self.now + 5_000;
        self.run_until(end);
        self.run_while(HEAL_MS, "the pair stays healed", |w| w.what_is_open().is_some());
        if self.failure.is_some() {
            return;
        }
        if back {
            self.go_back();
        }
    }

    /// The operator gives users back, and again where each node served the other's.
    fn go_back(&mut self) {
        let mut begun = 0;
        for _ in 0..2 {
            let before = begun;
            for node in 0..2 {
                begun += u32::from(self.asks(node, Op::Fallback(By::Here)));
            }
            let end = self.now + 12_000;
            self.run_until(end);
            self.run_while(HEAL_MS, "the pair heals after a fallback", |w| w.what_is_open().is_some());
            if begun == before || self.leads_at_home() {
                break;
            }
        }
        self.coverage.fallbacks += begun;
        if begun > 0 && self.failure.is_none() && !self.leads_at_home() {
            self.fail(format!("users are not back at home after {begun} fallbacks"));
        }
    }

    /// Whether each node leads its own users, as both see it.
    fn leads_at_home(&self) -> bool {
        let nodes = self.hosts.iter().filter_map(|host| host.node());
        nodes.flat_map(|n| NodeIx::BOTH.map(|g| n.core(g).reg().primary == g)).all(|at_home| at_home)
    }

    fn run_while(&mut self, for_ms: u64, what: &str, busy: impl Fn(&World) -> bool) {
        let end = self.now + for_ms;
        while busy(self) && self.failure.is_none() {
            if self.now >= end {
                let open = self.what_is_open().unwrap_or_default();
                return self.fail(format!("not in time: {what}: {open}"));
            }
            let next = self.now + 250;
            self.run_until(next);
            self.look_together();
        }
    }

    /// The group is led in Pair and its backup may take over.
    pub(super) fn is_pair(&self, group: NodeIx) -> bool {
        let (Some(a), Some(b)) = (self.hosts[0].node(), self.hosts[1].node()) else { return false };
        let [a, b] = [a.core(group), b.core(group)];
        let (first, second) = if a.role() == Role::Primary { (a, b) } else { (b, a) };
        let roles = first.role() == Role::Primary && second.role() == Role::Backup;
        roles && first.reg() == second.reg() && first.reg().mode == Mode::Pair && second.promotable()
    }

    /// What is not as it should be in the end; the first thing found.
    fn what_is_open(&self) -> Option<String> {
        if self.now < self.leaving_until {
            return Some("a node may be leaving".into());
        }
        for node in 0..2 {
            if !self.hosts[node].runs() {
                return Some(format!("node {node} does not run"));
            }
        }
        for group in NodeIx::BOTH {
            if !self.is_pair(group) {
                let cores = [0, 1].map(|n| {
                    self.hosts[n].node().map(|node| {
                        let core = node.core(group);
                        (core.role(), core.reg(), core.promotable(), core.wants_fetch(), core.is_near())
                    })
                });
                return Some(format!("group {group:?} is not in Pair: {cores:?}"));
            }
        }
        for (c, client) in self.clients.iter().enumerate() {
            if !client.is_settled() {
                let (main, seeks) = (client.main.map(|s| s + 1), client.seek.on);
                let backlog = client.sm.backlog();
                let machine = client.machine.is_up();
                return Some(format!(
                    "u{c} (dual {}) is not settled: main {main:?}, seeks {seeks}, up {machine}, backlog {backlog}",
                    client.dual
                ));
            }
        }
        if let Some(unseen) = self.unseen() {
            return Some(unseen);
        }
        if let Some(misnamed) = self.misnamed() {
            return Some(misnamed);
        }
        if let Some(unanswered) = self.unanswered().filter(|_| !self.is_weak()) {
            return Some(unanswered);
        }
        let open = if self.is_weak() { self.ledger.lost() } else { self.ledger.open() };
        (!open.is_empty()).then(|| format!("open: {open:?}"))
    }

    /// Quiet now: both hold the same, and nothing changes any more.
    fn judge(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let terms = |w: &World| [0, 1].map(|n| w.hosts[n].disk.regs.map(|r| r.map(|r| r.reg.term)));
        let before = terms(self);
        let end = self.now + 6_000;
        self.run_until(end);
        if self.failure.is_some() {
            return;
        }
        if terms(self) != before {
            return self.fail("roles go on changing after everything healed".into());
        }
        if let Some(open) = self.what_is_open() {
            return self.fail(format!("it does not stay healed: {open}"));
        }
        let lost = self.ledger.lost();
        if !lost.is_empty() {
            return self.fail(format!("acknowledged and not shown: {lost:?}"));
        }
        if let Some(twice) = self.shown_too_often() {
            return self.fail(twice);
        }
        let digests = [0, 1].map(|n| self.hosts[n].node().map(|n| n.driver().engine().state().digest()));
        if digests[0] != digests[1] {
            let states =
                [0, 1].map(|n| self.hosts[n].node().map(|n| format!("{:?}", n.driver().engine().state())));
            let at = states[0].iter().zip(&states[1]).next().map(|(a, b)| difference(a, b));
            self.fail(format!("the nodes hold different states: {}", at.unwrap_or_default()));
        }
    }

    /// Never two nodes that acknowledge for one group alone.
    pub(super) fn check_roles(&mut self) {
        let (Some(a), Some(b)) = (self.hosts[0].node(), self.hosts[1].node()) else { return };
        for group in NodeIx::BOTH {
            let both = [a, b].iter().all(|n| n.core(group).release() == Release::Alone);
            if both && !self.excuses() {
                return self.fail(format!("both nodes lead group {group:?} alone"));
            }
        }
    }
}

/// Where two texts part.
fn difference(a: &str, b: &str) -> String {
    let at = a.bytes().zip(b.bytes()).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let cut = |s: &str| {
        let bytes = s.as_bytes();
        let (from, to) = (at.saturating_sub(300), (at + 300).min(bytes.len()));
        String::from_utf8_lossy(&bytes[from..to]).into_owned()
    };
    format!("\n  a: {}\n  b: {}", cut(a), cut(b))
}
