//! One node, pure: two safety cores, the evidence, and the driver of the log. The daemon gives it sockets, disks and a
//! clock; a simulation gives it the same in memory.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod accounts;
mod automatic;
mod check;
mod control;
mod cores;
mod crashes;
mod enabling;
mod facts;
mod force;
mod fronts;
mod group;
mod guard;
mod hear;
mod hold;
mod link;
mod look;
mod moves;
mod notice;
mod offers;
mod outputs;
mod pause;
mod probes;
mod promise;
mod restart;
mod room;
mod services;
mod stall;
mod status;
mod storm;
#[cfg(test)]
mod tests;
mod through;
mod waits;
mod witness;
mod words;

use std::collections::{BTreeMap, VecDeque};

use presence_engine::engine::{self, Input};
use presence_engine::ids::{Group, NodeIx, Reg};
use session_mover::driver::commit::Release;
use session_mover::driver::{self, Do, Driver, Link};
use xmpp_core::jid::BareJid;

use crate::beacon::{Secret, Turn};
use crate::evidence::{self, Evidence, Gone};
use crate::safety::{self, Consent, Core, RegisterKind};
use crate::view::Cause;

pub use automatic::Automatics;
pub(crate) use automatic::{DISARMED, SETTINGS_DIFFER};
pub use check::Checks;
use control::{CRASHES, FAIL_OVER, GOODBYE, RECOVER, RESTARTING, START_SERVICES, STOPS};
pub use crashes::{Crash, Crashes};
pub use group::{Check, GroupOp, SERVICES};
pub use guard::Failovers;
use moves::Moving;
pub use moves::{Progress, Refused};
pub use offers::Action;
use promise::Promises;
pub use room::Room;
pub use services::{Health, Service};
pub use status::Snapshot;
pub(crate) use waits::users_wait;
use witness::WitnessView;
pub use words::{By, Disk, Event, Force, In, Moved, Op, Out, RegisterCopy, Reply, Stage};

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of both nodes, in order; the second is empty in a group of one.
    pub names: [String; 2],
    /// The driver's part, with the engine's.
    pub driver: driver::Config,
    /// There is no peer.
    pub single: bool,
    /// Register and policy.
    pub register: RegisterKind,
    /// Lease in ticks.
    pub lease: u16,
    /// Ticks between beacons.
    pub beacon_ticks: u32,
    /// The evidence rule's times.
    pub evidence: evidence::Config,
    /// Cluster secret.
    pub secret: Secret,
    /// Hash of the clusterwide configuration.
    pub config_hash: u64,
    /// Random, for nonces that nobody can guess.
    pub nonce_key: Secret,
    /// How long a hand-over waits for a dual client's parked stream, in ticks.
    pub park_wait: u32,
    /// What happens without the operator.
    pub automatics: Automatics,
}

/// What a running node may be told anew.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The engine's part.
    pub engine: engine::Tuning,
    /// As [`Config::evidence`].
    pub evidence: evidence::Config,
    /// As [`Config::secret`].
    pub secret: Secret,
    /// As [`Config::config_hash`].
    pub config_hash: u64,
    /// As [`Config::park_wait`].
    pub park_wait: u32,
    /// As [`Config::automatics`].
    pub automatics: Automatics,
}

/// Items that a buffer has room for before they come.
const MOST_ROOM: usize = 4_096;

/// One node.
#[derive(Debug)]
pub struct Node {
    cfg: Config,
    me: NodeIx,
    core_cfgs: [safety::Config; 2],
    cores: [Core; 2],
    driver: Driver,
    evidence: Evidence,
    inbox: Vec<Input>,
    /// From clients whose front the peer is.
    relayed: VecDeque<Input>,
    outs: Vec<Out>,
    /// Empty between steps; kept for its room.
    dos: Vec<Do>,
    now_ms: u64,
    ticks: u64,
    beacon_number: u32,
    beacon_due: Option<Turn>,
    peer_boot: Option<u64>,
    /// A run of the peer that has not shown yet that it knows ours: the next beacon is for it.
    stranger: Option<u64>,
    old_boots: Vec<u64>,
    last_number: u32,
    peer_activity: crate::beacon::Activity,
    peer_config: Option<u64>,
    /// For how many ticks the peer has been heard with other settings.
    differ_ticks: u32,
    link_up: [bool; 2],
    told_parked: bool,
    peer_up: bool,
    /// That the peer is gone was told since it was heard last, and how.
    gone_told: Option<Gone>,
    peer_leaving: bool,
    /// The peer said that it is restarted: its end is no death.
    peer_restarts: bool,
    /// For each group: the register value whose Lead record was written, whether the engine serves it, the log's end
    /// when the peer began to be needed, and whether it was taken over so late that the peer may have led alone (D6).
    written: [Option<Reg>; 2],
    /// The frame with that record; `None`: it is to be written, be it once more.
    lead_at: [Option<u64>; 2],
    announced: [Option<Reg>; 2],
    serving: [bool; 2],
    rebuilds: u64,
    barrier: [Option<u64>; 2],
    late: [bool; 2],
    promises: Promises,
    shows: facts::Shows,
    /// For each group: why this node has taken it over, and the run of the peer that was lost then, as its disk knows it.
    kept_causes: [(Cause, Option<u64>); 2],
    automatic: automatic::Automatic,
    checks: Checks,
    services: services::Services,
    guard: guard::Guard,
    probes: probes::Probes,
    moving: Option<Moving>,
    /// See [`Node::lose_moves`].
    loses_moves: bool,
    storm: storm::Storm,
    /// Accounts that are being changed, and the operator's question.
    changing: BTreeMap<BareJid, u64>,
    changes: group::Changes,
    enabling: enabling::Enabling,
    /// Accounts of the peer whose clients call here.
    callers: fronts::Callers,
    nonce: u64,
    path_down_told: bool,
    /// When the peer was looked at last because a client had lost it.
    looked: Option<u64>,
    /// The peer's last acknowledgement while something waits for it, and for how many ticks.
    stuck: (u64, u32),
    through: through::Through,
    stall: stall::Stall,
    /// For how many ticks more has been in flight than may be.
    choked: u32,
    /// Ticks since each group is fenced here.
    fenced: [u32; 2],
    crashes: Crashes,
    witness: WitnessView,
    /// For each group: the operator forced this node inactive, and nobody has led it since.
    held: [bool; 2],
    /// As last heard: the peer leads a group.
    peer_leads: bool,
    /// This run has led, or has heard who leads: it is not one of two that were restarted together.
    knows: bool,
    /// Free bytes of the own disk, where they are known.
    room: Option<Room>,
}

impl Node {
    /// A process that starts over its disk. `durable`: the register copies found there. `inc`: random.
    pub fn start(cfg: Config, durable: [Option<RegisterCopy>; 2], inc: u64, disk: &mut dyn Disk) -> Node {
        let me = cfg.driver.engine.me;
        let core_cfgs = NodeIx::BOTH.map(|home| safety::Config {
            me,
            home,
            single: cfg.single,
            register: cfg.register,
            peer_disk: cfg.driver.ack_synced,
            lease: cfg.lease,
        });
        let driver = Driver::start(cfg.driver.clone(), inc, disk);
        let cores = [0, 1].map(|g| Core::start(&core_cfgs[g], durable[g].map(|copy| copy.reg)));
        let evidence = Evidence::new(cfg.evidence);
        let kept_causes = durable.map(|copy| copy.map(|copy| (copy.cause, copy.lost)).unwrap_or_default());
        let changes = group::Changes::new(driver.engine().state().group().ha);
        let enabling = enabling::Enabling::at_start(cfg.single, &driver, &durable);
        let mut node = Node {
            me,
            core_cfgs,
            cores,
            driver,
            evidence,
            inbox: Vec::new(),
            relayed: VecDeque::new(),
            outs: Vec::new(),
            dos: Vec::new(),
            now_ms: 0,
            ticks: 0,
            beacon_number: 0,
            beacon_due: Some(Turn::First),
            peer_boot: None,
            stranger: None,
            old_boots: Vec::new(),
            last_number: 0,
            peer_activity: Default::default(),
            peer_config: None,
            differ_ticks: 0,
            link_up: [false; 2],
            told_parked: false,
            peer_up: false,
            gone_told: None,
            peer_leaving: false,
            peer_restarts: false,
            written: [None; 2],
            lead_at: [None; 2],
            announced: [None; 2],
            serving: [false; 2],
            rebuilds: 0,
            barrier: [None; 2],
            late: durable.map(|copy| copy.is_none_or(|copy| copy.late)),
            promises: Promises::default(),
            shows: facts::Shows::since(me, kept_causes),
            kept_causes,
            automatic: automatic::Automatic::default(),
            checks: Checks::default(),
            services: services::Services::default(),
            guard: guard::Guard::default(),
            probes: probes::Probes::default(),
            moving: None,
            loses_moves: false,
            storm: storm::Storm {
                fixed: cfg.driver.engine.relogin_s,
                own: cfg.driver.engine.relogin_s,
                ..Default::default()
            },
            changing: BTreeMap::new(),
            changes,
            enabling,
            callers: fronts::Callers::default(),
            nonce: 0,
            path_down_told: false,
            looked: None,
            stuck: (0, 0),
            through: through::Through::default(),
            stall: stall::Stall::default(),
            choked: 0,
            fenced: [0; 2],
            crashes: Crashes::default(),
            witness: WitnessView::default(),
            held: durable.map(|copy| copy.is_some_and(|copy| copy.held)),
            peer_leads: false,
            knows: false,
            room: None,
            cfg,
        };
        node.hold_at_start(disk);
        node.recall(disk);
        node
    }

    /// What the log tells the cores after a start: the highest term, and what was acknowledged alone.
    fn recall(&mut self, disk: &mut dyn Disk) {
        let state = self.driver.engine().state();
        let floor = NodeIx::BOTH.iter().filter_map(|g| state.lead(*g)).map(|reg| reg.term).max();
        let floor = floor.max(self.cores.iter().map(|c| c.reg().term).max()).unwrap_or_default();
        for g in NodeIx::BOTH {
            self.feed(g, safety::In::Floor(floor), disk);
            let term = self.cores[g.index()].reg().term;
            if term.0 != 0 && self.driver.alone_term(g) == term {
                self.feed(g, safety::In::AckedAlone, disk);
            }
        }
        self.settle(disk);
    }

    /// Takes other settings from now on.
    pub fn tune(&mut self, tuning: Tuning) {
        let told = self.driver.relogin();
        self.driver.tune(tuning.engine);
        self.driver.set_relogin(told);
        self.storm.fixed = tuning.engine.relogin_s;
        if !tuning.automatics.computed_limits {
            self.storm.own = tuning.engine.relogin_s;
        }
        self.offer_limits();
        self.evidence.tune(tuning.evidence);
        self.cfg.evidence = tuning.evidence;
        self.cfg.secret = tuning.secret;
        self.cfg.config_hash = tuning.config_hash;
        self.compare_settings();
        self.cfg.park_wait = tuning.park_wait;
        self.cfg.automatics = tuning.automatics;
        // The peer compares the settings: it need not wait to hear of these.
        self.beacon_due = Some(Turn::First);
    }

    /// The driver, to be looked at.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// A group's core, to be looked at.
    pub fn core(&self, group: Group) -> &Core {
        &self.cores[group.index()]
    }

    /// What the shell has to do.
    pub fn take(&mut self) -> Vec<Out> {
        take_all(&mut self.outs)
    }

    /// Whether more client input is welcome (D9).
    pub fn clients_may_send(&self) -> bool {
        self.driver.clients_may_send() && !self.services_block()
    }

    /// One input. Client inputs wait for [`Node::step`], which makes one turn of all that came.
    pub fn handle(&mut self, now_ms: u64, input: In, disk: &mut dyn Disk) {
        self.now_ms = self.now_ms.max(now_ms);
        match input {
            In::Client(input) => {
                self.count_traffic(&input);
                return self.inbox.push(input);
            }
            In::Commit(number) => return self.probe_commit(number),
            In::Loop(stanza) => return self.probe_loop(stanza),
            In::Stored(which, at, synced) => {
                self.driver.stored(which, at, synced, disk);
            }
            In::Checkpointed(result) => {
                self.driver.checkpointed(result.is_ok(), disk);
                self.tell_store(result.err());
            }
            In::Ticks(n) => self.tick(n, disk),
            In::Datagram(bytes) => self.datagram(&bytes, disk),
            In::LinkUp(link) => {
                self.link_up[link as usize] = true;
                match link {
                    Link::Out => self.driver.connected(),
                    Link::In => self.driver.peer_comes(),
                }
            }
            In::LinkMsg(link, msg) => {
                if control::is_goodbye(&msg) {
                    // What came before it is still to be kept.
                    disk.peer_is_gone();
                }
                self.link_msg(link, msg, disk);
            }
            In::LinkDown(link, closed) => self.link_down(link, closed),
            In::Probed(probes) => {
                if let Some(gone) = self.evidence.probed(probes) {
                    self.peer_gone(gone, disk);
                } else if self.evidence.try_again() {
                    self.outs.push(Out::Probe);
                }
            }
            In::Witness(said) => self.witness_says(said, disk),
            In::Op(number, op) => self.op(number, op, disk),
            In::Service(service, health) => self.service(service, health),
            In::Restart(service) => self.restart_service(service),
            In::Logins { per_second, crowded } => self.logins(per_second, crowded),
            In::Checks(checks) => self.shell_checked(checks),
            In::Room(room) => self.room = room,
        }
        self.settle(disk);
    }

    /// One turn of everything that came since the last.
    pub fn step(&mut self, now_ms: u64, disk: &mut dyn Disk) {
        self.now_ms = self.now_ms.max(now_ms);
        self.pump_moves(disk);
        loop {
            self.take_relayed();
            let inputs = take_all(&mut self.inbox);
            if inputs.is_empty() && !self.driver.has_unprocessed() {
                break;
            }
            self.driver.turn(self.now_ms, inputs, disk);
            self.settle(disk);
        }
        self.probes_began(disk);
        self.settle(disk);
    }

    fn tick(&mut self, n: u16, disk: &mut dyn Disk) {
        self.ticks += u64::from(n);
        self.watch_callers(n);
        let gone = self.evidence.ticks(n > 2);
        for g in NodeIx::BOTH {
            self.feed(g, safety::In::Ticks(n), disk);
        }
        if let Some(gone) = gone {
            self.peer_gone(gone, disk);
        } else if self.evidence.gone().is_some() {
            // The evidence stands: a beacon from before the death may have undone what it did.
            self.cores_hear_peer_gone(disk);
        }
        self.watch_progress(n, disk);
        self.watch_link(n);
        self.watch_disk(n);
        self.watch_lag(n);
        self.watch_commits();
        self.tell_stalled();
        self.watch_states();
        self.watch_enabling(n);
        self.watch_settings();
        self.watch_automatics(n);
        self.watch_services(n);
        self.watch_agreement(n);
        self.watch_logins();
        self.serve_own(disk);
        self.watch_hold(disk);
        self.watch_night(n);
        self.driver.check_next(disk);
        let waits = self.driver.lacks_own() || self.driver.is_behind();
        if self.evidence.init_timeout() && !self.cfg.single && !waits {
            if matches!(self.cfg.register, RegisterKind::Consent(Consent { available: true })) {
                self.driver.drop_unseen_answers(disk);
            }
            for g in NodeIx::BOTH {
                let guest = self.cores[g.index()].reg().primary != self.me && self.stays_put()
                    || self.leaves_alone(g);
                if self.cores[g.index()].role() == safety::Role::Fenced && !guest {
                    self.feed(g, safety::In::InitTimeout, disk);
                }
            }
        }
        let quiet = self.evidence.silent().is_none_or(|ticks| ticks >= 4);
        if self.evidence.may_probe() && quiet && !self.cfg.single {
            self.probe();
        } else if self.evidence.wants_reports() && !self.peer_restarts {
            self.ask_clients();
        }
        if self.evidence.only_path_down() != self.path_down_told {
            self.path_down_told = !self.path_down_told;
            if self.path_down_told {
                self.outs.push(Out::Event(Event::OnlyPathDown));
            }
        }
        if self.ticks.is_multiple_of(u64::from(self.cfg.beacon_ticks)) {
            self.beacon_due = Some(Turn::First);
        }
        self.inbox.push(Input::Tick);
    }

    fn release_of(&self, group: Group) -> Release {
        let (g, core) = (group.index(), &self.cores[group.index()]);
        let lead_at = self.lead_at[g].filter(|_| self.written[g] == Some(core.reg()));
        match core.release() {
            safety::Release::Alone => Release::Alone(lead_at.unwrap_or(u64::MAX)),
            safety::Release::Both => Release::Both,
            safety::Release::Nothing => Release::Nothing,
        }
    }
}

/// Takes what is in a buffer. Next time as much may come: it need not grow to that again.
fn take_all<T>(buffer: &mut Vec<T>) -> Vec<T> {
    if buffer.is_empty() {
        return Vec::new();
    }
    let room = Vec::with_capacity(buffer.len().min(MOST_ROOM));
    std::mem::replace(buffer, room)
}
