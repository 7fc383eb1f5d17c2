//! The world around two safety cores of one home group: beacons that may be lost or late, a log with its copy, disks
//! that forget what was not synced, a witness, crashes, pauses, and evidence that may be false.

use presence_engine::ids::{Mode, NodeIx, Reg, Term};
use srm::safety::{Beacon, CasResult, Config, Consent, Core, In, Out, RegisterKind, Release, Role, Witness};

/// Which register and policy is modelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Consent, policy `available`.
    Available,
    /// Consent, policy `strict`.
    Strict,
    /// A witness.
    Witness,
}

/// How much may happen in one run of the model.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Register and policy.
    pub kind: Kind,
    /// Entries that clients write.
    pub writes: u8,
    /// `kill -9`, page cache kept.
    pub crashes: u8,
    /// Power losses: what was not synced is gone.
    pub power: u8,
    /// Ticks of each node.
    pub ticks: u8,
    /// Pauses of a node for longer than its lease.
    pub pauses: u8,
    /// Pieces of evidence that say "gone" of a node that lives.
    pub lies: u8,
    /// Initialization time-outs.
    pub init: u8,
    /// Lease in ticks.
    pub lease: u16,
    /// Whether beacons may be lost for longer than a lease (then ticks age the lease).
    pub give_back: u8,
}

/// A beacon on its way, with the boots that it was written for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Datagram {
    boot: u8,
    to_boot: u8,
    number: u32,
    body: Beacon,
}

/// A request to the witness, or its reply, on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Asked {
    boot: u8,
    req: u32,
    from: Reg,
    to: Reg,
    result: Option<CasResult>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// `None`: the process is dead.
    pub core: Option<Core>,
    /// The register copy on disk.
    pub disk: Option<Reg>,
    /// Entries of the group's log that this node has, in order.
    pub log: Vec<u8>,
    /// How many of them survive a power loss.
    pub synced: u8,
    /// Entries set aside when a divergent tail was cut (R0, D7).
    pub aside: Vec<u8>,
    /// How many entries the peer's present boot acknowledged in this session.
    pub acked: u8,
    /// Log end when this node last stopped acknowledging alone, or the session began.
    barrier: u8,
    /// The link session: our log is being shipped to the peer's present boot.
    pub session: bool,
    boot: u8,
    /// The peer's boot as last heard.
    peer_boot: u8,
    /// Number of the next beacon. Beacons of one tick share it, which is all that a lease counted in ticks can tell.
    number: u32,
    due: bool,
    ticks: u8,
    fetched: bool,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The two nodes.
    pub nodes: [Node; 2],
    beacons: [Option<Datagram>; 2],
    acks: [Option<(u8, u8)>; 2],
    cas: [Option<Asked>; 2],
    /// The witness's register.
    pub register: Option<Reg>,
    /// Entries acknowledged to their clients.
    pub promised: Vec<u8>,
    next_entry: u8,
    left: [u8; 6],
    /// The first property that was broken on the way here.
    pub broken: Option<&'static str>,
    /// A node acknowledged although the other did so alone, or promised entries were missing where it serves.
    pub strong: bool,
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
    HearAck(NodeIx),
    Promise(NodeIx),
    Holds(NodeIx),
    Fetch(NodeIx),
    Gone(NodeIx),
    InitTimeout(NodeIx),
    Crash(NodeIx),
    PowerLoss(NodeIx),
    Restart(NodeIx),
    WitnessActs(NodeIx),
    HearWitness(NodeIx),
    GiveBack(NodeIx),
}

const CRASH: usize = 0;
const POWER: usize = 1;
const LIES: usize = 2;
const INIT: usize = 3;
const PAUSE: usize = 4;
const GIVE: usize = 5;

fn config(bounds: &Bounds, me: NodeIx) -> Config {
    let register = match bounds.kind {
        Kind::Available => RegisterKind::Consent(Consent { available: true }),
        Kind::Strict => RegisterKind::Consent(Consent { available: false }),
        Kind::Witness => RegisterKind::Witness(Witness),
    };
    Config { me, home: NodeIx::A, single: false, register, peer_disk: false, lease: bounds.lease }
}

impl World {
    /// Two fresh disks, brought to Pair by the rules themselves; then the counters start.
    pub fn start(bounds: &Bounds) -> World {
        let node = || Node {
            core: None,
            disk: None,
            log: Vec::new(),
            synced: 0,
            aside: Vec::new(),
            acked: 0,
            barrier: 0,
            session: false,
            boot: 0,
            peer_boot: 0,
            number: 0,
            due: false,
            ticks: 0,
            fetched: false,
        };
        let genesis = Reg { term: Term(0), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
        let mut world = World {
            nodes: [node(), node()],
            beacons: [None, None],
            acks: [None, None],
            cas: [None, None],
            register: (bounds.kind == Kind::Witness).then_some(genesis),
            promised: Vec::new(),
            next_entry: 0,
            left: [bounds.crashes, bounds.power, bounds.lies, bounds.init, bounds.pauses, bounds.give_back],
            broken: None,
            strong: false,
        };
        world.heal(bounds);
        for node in &mut world.nodes {
            node.ticks = 0;
            node.due = false;
        }
        world.beacons = [None, None];
        world
    }

    fn n(&mut self, i: NodeIx) -> &mut Node {
        &mut self.nodes[i.index()]
    }

    /// The core of a live node.
    pub fn core(&self, i: NodeIx) -> Option<&Core> {
        self.nodes[i.index()].core.as_ref()
    }

    fn feed(&mut self, bounds: &Bounds, i: NodeIx, input: In) {
        let cfg = config(bounds, i);
        let Some(mut core) = self.n(i).core.take() else { return };
        let before = core.release();
        let mut outs = Vec::new();
        core.on(&cfg, input, &mut outs);
        for out in outs {
            match out {
                Out::Persist(reg) => {
                    if self.n(i).disk.is_some_and(|old| old.term >= reg.term) {
                        self.broken.get_or_insert("a term goes back");
                    }
                    self.n(i).disk = Some(reg);
                }
                Out::BeaconNow => self.n(i).due = true,
                Out::Cas(req, from, to) => {
                    let boot = self.n(i).boot;
                    let slot = &mut self.cas[i.index()];
                    if slot.as_ref().is_none_or(|a| a.req != req || a.boot != boot || a.result.is_none()) {
                        *slot = Some(Asked { boot, req, from, to, result: None });
                    }
                }
                Out::SyncReceived => self.n(i).synced = self.n(i).log.len() as u8,
                Out::Unprotected => {}
            }
        }
        if core.release() != Release::Alone && before == Release::Alone {
            let end = self.n(i).log.len() as u8;
            self.n(i).barrier = end;
        }
        if core.role() != Role::Primary {
            self.n(i).session = false;
        }
        if !core.accepts_frames() {
            self.n(i.peer()).session = false;
        }
        self.n(i).core = Some(core);
    }

    /// Every action that the bounds still allow here.
    pub fn actions(&self, b: &Bounds, acts: &mut Vec<Action>) {
        for i in NodeIx::BOTH {
            let (me, peer) = (&self.nodes[i.index()], &self.nodes[i.peer().index()]);
            let Some(core) = &me.core else {
                acts.push(Action::Restart(i));
                continue;
            };
            if self.left[CRASH] > 0 {
                acts.push(Action::Crash(i));
            }
            // One loss of power at a time: the other's page cache may not have been lost before.
            if self.left[POWER] > 0 {
                acts.push(Action::PowerLoss(i));
            }
            // A backup's tick does nothing but send a beacon, which it does in reply below.
            if me.ticks < b.ticks && (core.role() != Role::Backup || core.asking()) {
                acts.push(Action::Tick(i));
            }
            if self.left[PAUSE] > 0 {
                acts.push(Action::Pause(i));
            }
            if me.due {
                acts.push(Action::SendBeacon(i));
            }
            if self.beacons[i.peer().index()].is_some() {
                acts.push(Action::HearBeacon(i));
            }
            self.data_actions(b, i, core, acts);
            if peer.core.is_none() || self.left[LIES] > 0 {
                acts.push(Action::Gone(i));
            }
            if self.left[INIT] > 0 && core.role() != Role::Primary {
                acts.push(Action::InitTimeout(i));
            }
            if self.left[GIVE] > 0 && core.role() == Role::Primary && i == NodeIx::B {
                acts.push(Action::GiveBack(i));
            }
            match &self.cas[i.index()] {
                Some(asked) if asked.result.is_none() => acts.push(Action::WitnessActs(i)),
                Some(_) => acts.push(Action::HearWitness(i)),
                None => {}
            }
        }
    }

    fn data_actions(&self, b: &Bounds, i: NodeIx, core: &Core, acts: &mut Vec<Action>) {
        let (me, peer) = (&self.nodes[i.index()], &self.nodes[i.peer().index()]);
        if core.role() == Role::Primary && self.next_entry < b.writes {
            acts.push(Action::Write(i));
        }
        if b.power > 0 && usize::from(me.synced) < me.log.len() {
            acts.push(Action::Fsync(i));
        }
        if self.can_connect(i) {
            acts.push(Action::Connect(i));
        }
        if me.session {
            acts.push(Action::Disconnect(i));
            if peer.log.len() < me.log.len() {
                acts.push(Action::Ship(i));
            }
        }
        if self.acks[i.index()].is_some() {
            acts.push(Action::HearAck(i));
        }
        if self.can_promise(i) {
            acts.push(Action::Promise(i));
        }
        if me.session && core.release() == Release::Both && me.acked >= me.barrier && !core.asking() {
            acts.push(Action::Holds(i));
        }
        if !me.fetched && peer.core.is_some() {
            acts.push(Action::Fetch(i));
        }
    }

    fn can_connect(&self, i: NodeIx) -> bool {
        let (Some(core), Some(peer)) = (self.core(i), self.core(i.peer())) else { return false };
        let leads = core.role() == Role::Primary && peer.accepts_frames();
        !self.nodes[i.index()].session
            && leads
            && peer.reg().primary == i
            && peer.reg().term <= core.reg().term
    }

    fn can_promise(&self, i: NodeIx) -> bool {
        let me = &self.nodes[i.index()];
        let Some(core) = &me.core else { return false };
        let Some(at) = me.log.iter().position(|e| !self.promised.contains(e)) else { return false };
        let own = usize::from(me.synced) > at;
        match core.release() {
            Release::Nothing => false,
            Release::Both => own && usize::from(me.acked) > at,
            Release::Alone => own,
        }
    }

    /// One step.
    pub fn act(&mut self, b: &Bounds, action: Action) {
        match action {
            Action::Tick(i) => {
                self.n(i).ticks += 1;
                self.n(i).number += 1;
                self.n(i).due = true;
                self.feed(b, i, In::Ticks(1));
            }
            Action::Pause(i) => {
                self.left[PAUSE] -= 1;
                self.n(i).number += 1;
                self.feed(b, i, In::Ticks(b.lease + 1));
            }
            Action::SendBeacon(i) => self.send_beacon(b, i),
            Action::HearBeacon(i) => self.hear_beacon(b, i),
            Action::Write(i) => {
                let entry = self.next_entry;
                self.next_entry += 1;
                self.n(i).log.push(entry);
                if b.power == 0 {
                    self.n(i).synced += 1;
                }
            }
            Action::Fsync(i) => self.n(i).synced = self.n(i).log.len() as u8,
            Action::Connect(i) => self.connect(b, i),
            Action::Disconnect(i) => {
                self.n(i).session = false;
                self.feed(b, i, In::Near(false));
            }
            Action::Ship(i) => self.ship(b, i),
            Action::HearAck(i) => {
                let (boot, n) = self.acks[i.index()].take().expect("offered only then");
                if boot == self.n(i).boot && self.n(i).session {
                    self.n(i).acked = self.n(i).acked.max(n);
                }
            }
            Action::Promise(i) => self.promise(b, i),
            Action::Holds(i) => self.feed(b, i, In::PeerHolds),
            Action::Fetch(i) => self.fetch(b, i),
            Action::Gone(i) => {
                if self.nodes[i.peer().index()].core.is_some() {
                    self.left[LIES] -= 1;
                }
                self.n(i).session = false;
                self.feed(b, i, In::PeerGone);
            }
            Action::InitTimeout(i) => {
                self.left[INIT] -= 1;
                self.feed(b, i, In::InitTimeout);
            }
            Action::Crash(i) => {
                self.left[CRASH] -= 1;
                self.kill(b, i);
            }
            Action::PowerLoss(i) => {
                self.left[POWER] -= 1;
                self.kill(b, i);
                let synced = usize::from(self.n(i).synced);
                self.n(i).log.truncate(synced);
            }
            Action::Restart(i) => self.restart(b, i),
            Action::WitnessActs(i) => self.witness(i),
            Action::HearWitness(i) => {
                let asked = self.cas[i.index()].take().expect("offered only then");
                if asked.boot == self.n(i).boot {
                    self.feed(b, i, In::CasReply(asked.req, asked.result.expect("answered")));
                }
            }
            Action::GiveBack(i) => {
                self.left[GIVE] -= 1;
                self.feed(b, i, In::GiveBack);
            }
        }
        self.check();
    }

    fn send_beacon(&mut self, b: &Bounds, i: NodeIx) {
        self.n(i).due = false;
        let node = &self.nodes[i.index()];
        let Some(core) = &node.core else { return };
        let (boot, to_boot, number) = (node.boot, node.peer_boot, node.number);
        self.beacons[i.index()] = Some(Datagram { boot, to_boot, number, body: core.beacon() });
        self.feed(b, i, In::Sent(number));
    }

    fn hear_beacon(&mut self, b: &Bounds, i: NodeIx) {
        let mut d = self.beacons[i.peer().index()].take().expect("offered only then");
        if d.boot < self.n(i).peer_boot {
            return;
        }
        if d.boot > self.n(i).peer_boot {
            self.n(i).peer_boot = d.boot;
            self.n(i).session = false;
            self.feed(b, i, In::PeerRestarted);
        }
        if d.to_boot != self.n(i).boot {
            d.body.ack = None;
            d.body.holds = false;
        }
        self.feed(b, i, In::Heard(d.number));
        self.feed(b, i, In::Beacon(d.body));
        if self.core(i).is_some_and(|c| c.role() == Role::Backup) {
            self.n(i).due = true;
        }
    }

    /// The link handshake: the backup keeps the common prefix and sets the rest aside.
    fn connect(&mut self, b: &Bounds, i: NodeIx) {
        let lead = self.nodes[i.index()].log.clone();
        let peer = self.n(i.peer());
        let common = peer.log.iter().zip(&lead).take_while(|(x, y)| x == y).count();
        let tail = peer.log.split_off(common);
        peer.synced = peer.synced.min(common as u8);
        peer.aside.extend(tail);
        let me = self.n(i);
        me.session = true;
        me.acked = common as u8;
        me.barrier = lead.len() as u8;
        self.acks[i.index()] = None;
        self.feed(b, i, In::Near(true));
    }

    fn ship(&mut self, _b: &Bounds, i: NodeIx) {
        let peer = &self.nodes[i.peer().index()];
        if !peer.core.as_ref().is_some_and(Core::accepts_frames) {
            return;
        }
        let entry = self.nodes[i.index()].log[peer.log.len()];
        let boot = self.nodes[i.index()].boot;
        self.n(i.peer()).log.push(entry);
        self.acks[i.index()] = Some((boot, self.nodes[i.peer().index()].log.len() as u8));
    }

    fn promise(&mut self, b: &Bounds, i: NodeIx) {
        let me = &self.nodes[i.index()];
        let alone = me.core.as_ref().is_some_and(|c| c.release() == Release::Alone);
        let entry = *me.log.iter().find(|e| !self.promised.contains(e)).expect("offered only then");
        if alone {
            self.feed(b, i, In::AckedAlone);
        }
        self.promised.push(entry);
        self.promised.sort_unstable();
    }

    /// R6: the restarted owner takes the end of its own log from the peer, if the peer has more of the same log.
    fn fetch(&mut self, b: &Bounds, i: NodeIx) {
        let theirs = self.nodes[i.peer().index()].log.clone();
        let me = self.n(i);
        if theirs.starts_with(&me.log) {
            me.log = theirs;
            me.synced = me.log.len() as u8;
        }
        me.fetched = true;
        self.feed(b, i, In::Fetched);
    }

    fn kill(&mut self, b: &Bounds, i: NodeIx) {
        self.n(i).core = None;
        self.n(i).session = false;
        self.n(i).due = false;
        self.n(i.peer()).session = false;
        self.feed(b, i.peer(), In::Near(false));
    }

    fn restart(&mut self, b: &Bounds, i: NodeIx) {
        let disk = self.n(i).disk;
        let me = self.n(i);
        me.boot += 1;
        me.core = Some(Core::start(&config(b, i), disk));
        me.acked = 0;
        me.session = false;
        me.fetched = false;
        me.peer_boot = 0;
        me.due = true;
        // What was acknowledged alone is known from the log.
        if disk.is_some_and(|r| r.mode == Mode::Solo && r.primary == i)
            && !self.nodes[i.index()].log.is_empty()
        {
            self.feed(b, i, In::AckedAlone);
        }
    }

    fn witness(&mut self, i: NodeIx) {
        let current = self.register.expect("only with a witness");
        let asked = self.cas[i.index()].as_mut().expect("offered only then");
        if current == asked.from {
            asked.result = Some(CasResult::Won);
            self.register = Some(asked.to);
        } else {
            asked.result = Some(CasResult::Lost(current));
        }
    }

    fn check(&mut self) {
        let alone = NodeIx::BOTH.map(|i| self.core(i).is_some_and(|c| c.release() == Release::Alone));
        let misses = |n: &Node| !self.promised.iter().all(|e| n.log.contains(e));
        if alone[0] && alone[1] || (0..2).any(|i| alone[i] && misses(&self.nodes[i])) {
            self.strong = true;
        }
        let kept = |e: &u8| self.nodes.iter().any(|n| n.log.contains(e) || n.aside.contains(e));
        if !self.promised.iter().all(kept) {
            self.broken.get_or_insert("an acknowledged entry was destroyed");
        }
    }

    /// Faults are over: everything that can happen happens. Used for "must heal" and for the first state.
    pub fn heal(&mut self, b: &Bounds) {
        for round in 0..24u8 {
            for i in NodeIx::BOTH {
                if self.core(i).is_none() {
                    self.act(b, Action::Restart(i));
                }
                if round % 2 == 0 {
                    self.n(i).ticks = 0;
                    self.act(b, Action::Tick(i));
                }
                self.act(b, Action::SendBeacon(i));
                self.act(b, Action::HearBeacon(i.peer()));
                for _ in 0..2 {
                    if self.cas[i.index()].as_ref().is_some_and(|a| a.result.is_none()) {
                        self.act(b, Action::WitnessActs(i));
                    }
                    if self.cas[i.index()].is_some() {
                        self.act(b, Action::HearWitness(i));
                    }
                }
                self.heal_data(b, i);
            }
        }
    }

    fn heal_data(&mut self, b: &Bounds, i: NodeIx) {
        if !self.nodes[i.index()].fetched && self.core(i.peer()).is_some() {
            self.act(b, Action::Fetch(i));
        }
        if self.can_connect(i) {
            self.act(b, Action::Connect(i));
        }
        self.act(b, Action::Fsync(i));
        if self.acks[i.index()].is_some() {
            self.act(b, Action::HearAck(i));
        }
        if self.nodes[i.index()].session {
            // A lost acknowledgement is told again with the next frame; the link resends none.
            let has = self.nodes[i.peer().index()].log.len() as u8;
            self.n(i).acked = has;
        }
        while self.nodes[i.index()].session
            && self.nodes[i.peer().index()].log.len() < self.nodes[i.index()].log.len()
        {
            self.act(b, Action::Ship(i));
            self.act(b, Action::HearAck(i));
        }
        let me = &self.nodes[i.index()];
        let both = me.core.as_ref().is_some_and(|c| c.release() == Release::Both && !c.asking());
        if me.session && both && me.acked >= me.barrier {
            self.act(b, Action::Holds(i));
        }
    }

    /// One primary and one promotable backup in Pair, of one register value.
    pub fn is_pair(&self) -> bool {
        NodeIx::BOTH.iter().any(|&i| {
            let (Some(p), Some(q)) = (self.core(i), self.core(i.peer())) else { return false };
            p.role() == Role::Primary && p.reg() == q.reg() && p.reg().mode == Mode::Pair && q.promotable()
        })
    }
}
