//! The world around two safety cores of one home group: beacons that may be lost, late or doubled, a witness whose
//! replies may be late, crashes, pauses, and evidence that may be false. The log and its disks are in `data`.
//!
//! What cannot matter is not kept, so that states that differ only there are one state: boots are counted from the
//! present one, a beacon says only what its receiver can use, dead flags are cleared (`tidy`). The beacon of a
//! live boot is not consumed: hearing it again stands for the next one with the same words.

use presence_engine::ids::{Mode, NodeIx, Reg, Term};
use srm::safety::{Beacon, CasResult, Config, Consent, Core, In, Out, RegisterKind, Release, Role, Witness};

use super::bounds::{Bounds, Break, Kind, Left};
use super::data::Log;

/// A beacon on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Datagram {
    /// How many boots of the sender ago it was sent.
    pub age: u8,
    number: u32,
    body: Beacon,
}

/// A request to the witness, or its reply, on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asked {
    /// Of an earlier boot: its reply reaches nobody.
    pub old: bool,
    pub(super) req: u32,
    pub(super) from: Reg,
    pub(super) to: Reg,
    pub(super) result: Option<CasResult>,
    /// It was asked once, and may not have left the node.
    pub(super) fresh: bool,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// `None`: the process is dead.
    pub core: Option<Core>,
    /// The register copy on disk.
    pub disk: Option<Reg>,
    /// Beside it: the operator said that this node serves nobody.
    pub held: bool,
    /// The group's log as this node has it.
    pub log: Log,
    /// How many of its entries survive a power loss.
    pub synced: u8,
    /// Entries set aside when a divergent tail was cut (R0, D7), as bits.
    pub aside: u8,
    /// Entries released when the group last went Solo under this node: what follows may be acknowledged alone.
    pub base: u8,
    /// How many entries the peer's present boot acknowledged in this session.
    pub acked: u8,
    /// Log end when this node last stopped acknowledging alone, or the session began.
    pub barrier: u8,
    /// Our log is being shipped to the peer's present boot.
    pub session: bool,
    /// How many boots ago the peer's boot is that this boot heard last.
    pub heard_age: Option<u8>,
    /// Ticks since the beginning, those of pauses included; also the number of the next beacon.
    pub clock: u32,
    /// Ticks used of the bound.
    pub ticks: u8,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The two nodes.
    pub nodes: [Node; 2],
    /// The last beacon that each node sent.
    pub beacons: [Option<Datagram>; 2],
    /// Requests of each node: the present one and a late one.
    pub cas: [[Option<Asked>; 2]; 2],
    /// The witness's register; `None`: it is empty, or there is no witness.
    pub register: Option<Reg>,
    /// Which nodes have connected to the witness since it was last empty, or can once they live.
    pub met: [bool; 2],
    /// Entries acknowledged to their clients, as bits.
    pub promised: u8,
    /// The next entry that a client writes.
    pub next_entry: u8,
    /// What may still happen.
    pub left: Left,
    /// The first promise that was broken on the way here, under every policy.
    pub broken: Option<&'static str>,
    /// The first promise of one owner at every moment that was broken.
    pub dual: Option<&'static str>,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Action {
    Tick(NodeIx),
    Pause(NodeIx),
    SendBeacon(NodeIx),
    HearBeacon(NodeIx),
    Write(NodeIx),
    Fsync(NodeIx),
    Connect(NodeIx),
    Disconnect(NodeIx),
    Ship(NodeIx),
    Promise(NodeIx),
    Holds(NodeIx),
    Fetch(NodeIx),
    Gone(NodeIx),
    InitTimeout(NodeIx),
    Crash(NodeIx),
    PowerLoss(NodeIx),
    LoseDisk(NodeIx),
    LoseRegister(NodeIx),
    Restart(NodeIx),
    WitnessActs(NodeIx, usize),
    HearWitness(NodeIx, usize),
    TakeBack(NodeIx),
    Told(NodeIx),
    Forget,
    Reach(NodeIx),
    GiveBack(NodeIx),
    Force(NodeIx),
    Overrule(NodeIx),
    Hold(NodeIx),
    Let(NodeIx),
}

/// The settings of one node's core within these bounds.
pub fn config(bounds: &Bounds, me: NodeIx) -> Config {
    let register = match bounds.kind {
        Kind::Available => RegisterKind::Consent(Consent { available: true }),
        Kind::Strict => {
            RegisterKind::Consent(Consent { available: bounds.broken == Some(Break::StrictGrants) })
        }
        Kind::Witness => RegisterKind::Witness(Witness),
    };
    Config { me, home: NodeIx::A, single: false, register, peer_disk: bounds.peer_disk, lease: bounds.lease }
}

impl World {
    /// Two fresh disks and two dead processes.
    pub fn fresh(bounds: &Bounds) -> World {
        let node = || Node {
            core: None,
            disk: None,
            held: false,
            log: Log::default(),
            synced: 0,
            aside: 0,
            base: 0,
            acked: 0,
            barrier: 0,
            session: false,
            heard_age: None,
            clock: 1,
            ticks: 0,
        };
        World {
            nodes: [node(), node()],
            beacons: [None, None],
            cas: [[None, None], [None, None]],
            register: None,
            met: [true; 2],
            promised: 0,
            next_entry: 0,
            left: bounds.left,
            broken: None,
            dual: None,
        }
    }

    pub(super) fn n(&mut self, i: NodeIx) -> &mut Node {
        &mut self.nodes[i.index()]
    }

    /// The core of a live node.
    pub fn core(&self, i: NodeIx) -> Option<&Core> {
        self.nodes[i.index()].core.as_ref()
    }

    pub(super) fn feed(&mut self, bounds: &Bounds, i: NodeIx, input: In) {
        let cfg = config(bounds, i);
        let Some(mut core) = self.n(i).core.take() else { return };
        let before = core.clone();
        let mut outs = Vec::new();
        core.on(&cfg, input.clone(), &mut outs);
        for out in outs {
            self.obey(i, out);
        }
        if core.release() != Release::Alone && before.release() == Release::Alone {
            self.n(i).barrier = self.n(i).log.len();
        }
        // A word to the contrary, or the other leads.
        self.n(i).held &= core.held() || !before.held();
        if core.role() != Role::Primary {
            self.n(i).session = false;
        }
        if !core.accepts_frames() {
            self.n(i.peer()).session = false;
        }
        self.check_step(&cfg, i, &input, &before, &core);
        self.n(i).core = Some(core);
    }

    fn obey(&mut self, i: NodeIx, out: Out) {
        match out {
            Out::Persist(reg) => {
                let old = self.n(i).disk;
                if old.is_some_and(|old| old.term >= reg.term) {
                    self.broken.get_or_insert("a term goes back");
                }
                let led = old.is_some_and(|r| r.primary == i && r.mode == Mode::Solo);
                if !led {
                    let promised = self.promised;
                    let released = |e: &&u8| promised & 1 << **e != 0;
                    self.n(i).base = self.n(i).log.entries().iter().take_while(released).count() as u8;
                }
                self.n(i).disk = Some(reg);
            }
            Out::Cas(req, from, to) => {
                let slots = &mut self.cas[i.index()];
                match &mut slots[0] {
                    // Asked again after a tick: the reply, if there was one, is lost.
                    Some(a) if !a.old && a.req == req => (a.result, a.fresh) = (None, false),
                    _ => {
                        if let Some(late) = slots[0].take() {
                            slots[1] = Some(late);
                        }
                        slots[0] = Some(Asked { old: false, req, from, to, result: None, fresh: true });
                    }
                }
            }
            Out::SyncReceived => self.n(i).synced = self.n(i).log.len(),
            Out::BeaconNow | Out::Unprotected => {}
        }
    }

    /// What one input may not do: R3 (a lease is as old as the beacon it rests on) and R5 (a pause is no evidence).
    fn check_step(&mut self, cfg: &Config, i: NodeIx, input: &In, before: &Core, after: &Core) {
        let same = before.reg() == after.reg() && after.reg().mode == Mode::Pair;
        let leads = after.role() == Role::Primary && same;
        let follows = |c: &Core| c.role() == Role::Backup && !c.asking();
        match input {
            In::Beacon(b) if leads => {
                let age = b.ack.map_or(u32::MAX, |n| self.nodes[i.index()].clock - n);
                let granted = u32::from(cfg.lease).saturating_sub(age) as u16;
                if after.lease_left() > before.lease_left().max(granted) {
                    self.broken.get_or_insert("a lease outlives the beacon that it rests on (R3)");
                }
            }
            In::Ticks(n) if leads && after.lease_left() > before.lease_left().saturating_sub(*n) => {
                self.broken.get_or_insert("a pause does not age the lease (R5)");
            }
            In::Ticks(_) if follows(before) && !follows(after) => {
                self.broken.get_or_insert("a pause is taken for silence of the peer (R5)");
            }
            _ => {}
        }
    }

    /// Every action that the bounds still allow here.
    pub fn actions(&self, b: &Bounds, acts: &mut Vec<Action>) {
        if self.left.forgets > 0 && self.register.is_some() {
            acts.push(Action::Forget);
        }
        for i in NodeIx::BOTH {
            for (late, asked) in self.cas[i.index()].iter().enumerate() {
                match asked {
                    Some(asked) if asked.result.is_none() && self.may_answer(b, i, asked) => {
                        acts.push(Action::WitnessActs(i, late));
                    }
                    Some(asked) if asked.result.is_none() => {}
                    Some(_) => acts.push(Action::HearWitness(i, late)),
                    None => {}
                }
            }
            if self.told(b, i).is_some() {
                acts.push(Action::Told(i));
            }
            let unsent = |a: &Asked| a.fresh && !a.old && a.result.is_none() && self.left.unsent > 0;
            if self.core(i).is_some_and(Core::asking) && self.cas[i.index()][0].as_ref().is_some_and(unsent) {
                acts.push(Action::TakeBack(i));
            }
            match &self.nodes[i.index()].core {
                None => acts.push(Action::Restart(i)),
                Some(core) => {
                    self.core_actions(b, i, core, acts);
                    self.data_actions(b, i, core, acts);
                }
            }
        }
    }

    fn core_actions(&self, b: &Bounds, i: NodeIx, core: &Core, acts: &mut Vec<Action>) {
        let (me, peer, left) = (&self.nodes[i.index()], &self.nodes[i.peer().index()], &self.left);
        let mut offer = |may: bool, act: Action| {
            if may {
                acts.push(act);
            }
        };
        let leads = core.role() == Role::Primary;
        offer(left.crashes > 0, Action::Crash(i));
        offer(left.power > 0, Action::PowerLoss(i));
        offer(left.disks > 0 && self.kept_without(i), Action::LoseDisk(i));
        offer(left.disks > 0 && self.kept_without(i), Action::LoseRegister(i));
        // A backup's tick does nothing but send a beacon.
        offer(me.ticks < b.ticks && (core.role() != Role::Backup || core.asking()), Action::Tick(i));
        offer(left.pauses > 0, Action::Pause(i));
        offer(self.datagram(i).is_some_and(|d| self.beacons[i.index()] != Some(d)), Action::SendBeacon(i));
        offer(self.beacons[i.peer().index()].is_some(), Action::HearBeacon(i));
        offer(peer.core.is_none() || self.restart_unheard(i) || left.lies > 0, Action::Gone(i));
        offer(left.init > 0 && !leads, Action::InitTimeout(i));
        offer(left.give_back > 0 && leads && i == NodeIx::B, Action::GiveBack(i));
        offer(left.force > 0 && !leads, Action::Force(i));
        offer(left.overrule > 0 && !leads, Action::Overrule(i));
        let owns = core.reg().primary == i && core.reg().term != Term(0);
        offer(left.holds > 0 && owns && !core.held(), Action::Hold(i));
        offer(core.held(), Action::Let(i));
        offer(!self.met[i.index()], Action::Reach(i));
    }

    /// The peer restarted and this boot knew its former boot: its new boot id is true evidence (R9).
    fn restart_unheard(&self, i: NodeIx) -> bool {
        self.nodes[i.index()].heard_age.is_some_and(|age| age > 0)
    }

    /// One step.
    pub fn act(&mut self, b: &Bounds, action: Action) {
        match action {
            Action::Tick(i) => {
                self.n(i).ticks += 1;
                self.n(i).clock += 1;
                self.feed(b, i, In::Ticks(1));
            }
            Action::Pause(i) => {
                self.left.pauses -= 1;
                self.n(i).clock += u32::from(b.lease) + 1;
                self.feed(b, i, In::Ticks(b.lease + 1));
            }
            Action::SendBeacon(i) => {
                self.beacons[i.index()] = self.datagram(i);
                let acks = self.beacons[i.index()].as_ref().is_some_and(|d| d.body.ack.is_some());
                if acks && self.core(i).is_some_and(Core::asking) {
                    self.broken.get_or_insert("acknowledges a beacon while it asks for promotion (R4)");
                }
                let number = self.n(i).clock;
                self.feed(b, i, In::Sent(number));
            }
            Action::HearBeacon(i) => self.hear_beacon(b, i),
            Action::Gone(i) => {
                if self.core(i.peer()).is_some() && !self.restart_unheard(i) {
                    self.left.lies -= 1;
                }
                self.n(i).session = false;
                self.feed(b, i, In::PeerGone);
            }
            Action::InitTimeout(i) => {
                self.left.init -= 1;
                self.feed(b, i, In::InitTimeout);
            }
            Action::Crash(_) | Action::PowerLoss(_) | Action::LoseDisk(_) | Action::LoseRegister(_) => {
                self.act_death(b, action);
            }
            Action::Restart(i) => self.restart(b, i),
            Action::WitnessActs(i, late) => self.witness(b, i, late),
            Action::HearWitness(i, late) => {
                let asked = self.cas[i.index()][late].take().expect("offered only then");
                let waited = self.core(i).is_some_and(Core::asking) && late == 0;
                self.feed(b, i, In::CasReply(asked.req, asked.result.expect("answered")));
                let made = asked.result == Some(CasResult::Lost(asked.to)) && asked.to.primary == i;
                let leads = |c: &Core| c.role() == Role::Primary || c.held();
                if waited && made && !self.core(i).is_some_and(leads) {
                    self.broken.get_or_insert(
                        "a change that was made is taken for refused: its reply was lost (R4)",
                    );
                }
            }
            Action::TakeBack(i) => {
                self.left.unsent -= 1;
                let asked = self.cas[i.index()][0].take().expect("offered only then");
                self.feed(b, i, In::CasReply(asked.req, CasResult::NotSent));
            }
            Action::Told(i) => {
                let held = self.told(b, i).expect("offered only then");
                self.feed(b, i, In::Held(held));
            }
            Action::Forget => self.forget(),
            Action::Reach(i) => self.reach(b, i),
            _ => self.act_operator(b, action),
        }
        self.report(b);
        self.tidy();
        self.check(b);
    }

    fn act_death(&mut self, b: &Bounds, action: Action) {
        match action {
            Action::Crash(i) => {
                self.left.crashes -= 1;
                self.kill(b, i);
            }
            Action::PowerLoss(i) => {
                self.left.power -= 1;
                self.kill(b, i);
                let synced = self.n(i).synced;
                self.n(i).log.cut(synced);
            }
            Action::LoseDisk(i) | Action::LoseRegister(i) => {
                self.left.disks -= 1;
                self.kill(b, i);
                self.n(i).disk = None;
                self.n(i).held = false;
                if action == Action::LoseDisk(i) {
                    self.n(i).log = Log::default();
                    self.n(i).aside = 0;
                    self.n(i).synced = 0;
                }
            }
            _ => unreachable!("no death"),
        }
    }

    /// What the node would say now, without what its receiver could not use.
    fn datagram(&self, i: NodeIx) -> Option<Datagram> {
        let node = &self.nodes[i.index()];
        let core = node.core.as_ref()?;
        let mut body = core.beacon();
        if node.heard_age != Some(0) {
            // Written to no boot, or to an earlier one.
            body.ack = None;
            body.holds = false;
        }
        let leads = body.reg.primary == i;
        body.alone &= leads && body.reg.mode == Mode::Solo;
        let number = if leads && body.reg.mode == Mode::Pair { node.clock } else { 0 };
        Some(Datagram { age: 0, number, body })
    }

    fn hear_beacon(&mut self, b: &Bounds, i: NodeIx) {
        let d = self.beacons[i.peer().index()].clone().expect("offered only then");
        if d.age > 0 || self.core(i.peer()).is_none() {
            // No other beacon with these words will be sent.
            self.beacons[i.peer().index()] = None;
        }
        let known = self.n(i).heard_age;
        if known.is_some_and(|known| d.age > known) {
            return;
        }
        if known != Some(d.age) {
            self.hear_boot(b, i, d.age);
        }
        self.feed(b, i, In::Heard(d.number));
        self.feed(b, i, In::Beacon(d.body));
    }

    /// The hello of the link tells both nodes of each other's present boot.
    pub(super) fn hello(&mut self, b: &Bounds) {
        for i in NodeIx::BOTH {
            if self.n(i).heard_age != Some(0) {
                self.hear_boot(b, i, 0);
            }
        }
    }

    /// Another boot of the peer than the last is heard of.
    fn hear_boot(&mut self, b: &Bounds, i: NodeIx, age: u8) {
        self.n(i).heard_age = Some(age);
        self.n(i).session = false;
        self.feed(b, i, In::PeerRestarted);
    }

    fn kill(&mut self, b: &Bounds, i: NodeIx) {
        self.n(i).core = None;
        let met = self.met[i.index()];
        for slot in &mut self.cas[i.index()] {
            // What was asked may still be done; what was answered is heard by nobody.
            let waits = slot.take().filter(|a| met && a.result.is_none());
            *slot = waits.map(|a| Asked { old: true, req: 0, ..a });
        }
        self.n(i.peer()).session = false;
        self.feed(b, i.peer(), In::Near(false));
    }

    fn restart(&mut self, b: &Bounds, i: NodeIx) {
        let disk = self.n(i).disk;
        let me = self.n(i);
        me.core = Some(Core::start(&config(b, i), disk));
        me.heard_age = None;
        if let Some(age) = &mut self.n(i.peer()).heard_age {
            *age += 1;
        }
        if let Some(d) = &mut self.beacons[i.index()] {
            d.age += 1;
        }
        if let Some(d) = &mut self.beacons[i.peer().index()] {
            d.body.ack = None;
            d.body.holds = false;
        }
        self.n(i).held &= disk.is_some_and(|r| r.primary == i && r.term != Term(0));
        if self.n(i).held && b.broken != Some(Break::HoldForgotten) {
            self.feed(b, i, In::Hold(true));
        }
        self.feed(b, i, In::TookOther(b.took_other[i.index()]));
        // What was acknowledged alone is known from the log.
        let led = disk.is_some_and(|r| r.mode == Mode::Solo && r.primary == i);
        let told = b.broken != Some(Break::AloneForgotten);
        if told && led && self.nodes[i.index()].log.len() > self.nodes[i.index()].base {
            self.feed(b, i, In::AckedAlone);
        }
    }

    /// Forgets what can no longer matter, so that more states are equal.
    fn tidy(&mut self) {
        for i in NodeIx::BOTH {
            let no_power = self.left.power == 0;
            let me = self.n(i);
            if no_power {
                me.synced = me.log.len();
            }
            if !me.disk.is_some_and(|r| r.primary == i && r.mode == Mode::Solo) {
                me.base = 0;
            }
            if me.core.is_none() {
                me.session = false;
                me.heard_age = None;
            }
            if !me.session {
                // What was acknowledged before the session ended could have been promised before it ended.
                me.acked = 0;
                me.barrier = 0;
            }
        }
    }

    fn check(&mut self, b: &Bounds) {
        let promised = self.promised;
        if promised & !self.nodes.iter().fold(0, |bits, n| bits | n.log.bits() | n.aside) != 0 {
            self.broken.get_or_insert("an acknowledged entry was destroyed");
        }
        let unleased =
            |c: &Core| c.role() == Role::Primary && c.reg().mode == Mode::Pair && c.lease_left() == 0;
        if self.nodes.iter().any(|n| n.core.as_ref().is_some_and(unleased)) {
            self.broken.get_or_insert("leads in Pair without a lease (R3)");
        }
        let serves = |c: &Core| c.release() != Release::Nothing;
        if self.nodes.iter().any(|n| n.held && n.core.as_ref().is_some_and(serves)) {
            self.broken.get_or_insert("whoever was forced inactive serves");
        }
        // Whoever is forced to serve may do so beside the other, and lack what the operator was told of.
        let forced = self.left.force < b.left.force || self.left.overrule < b.left.overrule;
        if !b.strong || forced {
            return;
        }
        let alone = NodeIx::BOTH.map(|i| self.core(i).is_some_and(|c| c.release() == Release::Alone));
        if alone[0] && alone[1] {
            self.dual.get_or_insert("both acknowledge alone");
        }
        for i in NodeIx::BOTH {
            let may_lead = |c: &&Core| c.role() == Role::Primary || c.promotable();
            let Some(core) = self.core(i).filter(may_lead) else { continue };
            // A Pair primary whose peer was promoted since releases nothing, and learns it from the peer; a backup
            // whose primary went on since is refused by the witness.
            let stale = self.nodes[i.peer().index()].disk.is_some_and(|r| r.term > core.reg().term);
            let lacks = promised & !self.nodes[i.index()].log.bits() != 0;
            if lacks && (alone[i.index()] || !stale) {
                self.dual.get_or_insert("who leads or may be promoted lacks what was acknowledged");
                return;
            }
        }
    }

    /// Pair that the witness knows of: what it holds is this, or a give-back that nobody heard of, which is Pair too.
    pub fn healed_pair(&self, b: &Bounds) -> Option<Reg> {
        let knows = self.register.is_some_and(|held| held.mode == Mode::Pair);
        self.pair_under().filter(|_| b.kind != Kind::Witness || knows)
    }

    /// One primary and one promotable backup in Pair, of one register value.
    pub fn pair_under(&self) -> Option<Reg> {
        NodeIx::BOTH.iter().find_map(|&i| {
            let (p, q) = (self.core(i)?, self.core(i.peer())?);
            let pair = p.reg() == q.reg() && p.reg().mode == Mode::Pair;
            (p.role() == Role::Primary && pair && q.promotable()).then(|| p.reg())
        })
    }
}
