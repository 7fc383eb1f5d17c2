//! The safety core of one home group: who may acknowledge, alone or together (rules R0 to R9 of `docs/rules-safety.md`).
//!
//! Pure and small. It is driven by ticks (250 ms), beacons, evidence and the replies of its register; it never reads a
//! clock. [`Core::on`] changes the durable register copy only through `Out::Persist`, which the shell must have on
//! disk before it lets go of any later output. Two cores run on each node, one per home group; they share no state.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod changes;
mod hear;
mod register;
mod settle;
#[cfg(test)]
mod tests;
mod words;

pub use register::{Consent, Decision, Register, RegisterKind, Witness};

pub use words::{Beacon, CasResult, Config, In, Out, Release, Role, Why};

use presence_engine::ids::{Mode, Reg, Term};

/// A register request without a final answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Pending {
    req: u32,
    from: Reg,
    to: Reg,
}

/// The state of one home group on one node. `disk` alone is durable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Core {
    reg: Reg,
    /// The copy on disk. A value that names this node, or the first on a fresh disk, is put there only when this node
    /// holds everything: so a copy that names this node proves that its disk has all that was released under it.
    disk: Option<Reg>,
    role: Role,
    /// Ticks of right to lead in Pair that are left.
    lease_left: u16,
    /// Ticks for which a node that stood still for longer than its lease yet listens before it goes on alone (R5).
    listen: u16,
    /// Beacons sent and not acknowledged: number and age in ticks.
    sent: Vec<(u32, u16)>,
    /// Primary in Solo that has stopped acknowledging alone because it proposes Pair (R1).
    joining: bool,
    /// Near enough to join, as last told.
    near: bool,
    /// Backup: the primary told this boot that it holds everything (R6). Primary: the peer's boot does.
    holds: bool,
    /// Acknowledged alone under `reg`.
    alone: bool,
    took_other: bool,
    /// Met another Solo copy; stopped until it is settled who leads.
    conflict: bool,
    /// It has said so under this value of the register, which may yet be heard.
    said_stopped: bool,
    /// Led in this boot since it was backup last, or fetched the end of its log: it may lead without fetching.
    fetched: bool,
    /// Waits for `fetched` to lead.
    wants_lead: bool,
    /// Before the first word from the peer.
    starting: bool,
    /// May not lead: the operator's word.
    held: bool,
    pending: Option<Pending>,
    next_req: u32,
    floor: Term,
    heard: Option<u32>,
}

impl Core {
    /// A process that starts with this durable register copy; `None`: the disk has never seen the group.
    pub fn start(cfg: &Config, durable: Option<Reg>) -> Core {
        let reg =
            durable.unwrap_or(Reg { term: Term(0), primary: cfg.home, mode: Mode::Solo, settled: Term(0) });
        Core {
            reg,
            disk: durable,
            role: Role::Fenced,
            lease_left: 0,
            listen: 0,
            sent: Vec::new(),
            joining: false,
            near: false,
            holds: false,
            alone: false,
            took_other: false,
            conflict: false,
            said_stopped: false,
            fetched: false,
            wants_lead: false,
            starting: true,
            held: false,
            pending: None,
            next_req: 1,
            floor: Term(0),
            heard: None,
        }
    }

    /// The highest value of the register that this node knows.
    pub fn reg(&self) -> Reg {
        self.reg
    }

    /// This node's role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the group is still looking for its peer after a start.
    pub fn starting(&self) -> bool {
        self.starting
    }

    /// The register as it is on the disk.
    pub fn durable(&self) -> Option<Reg> {
        self.disk
    }

    /// Whether a word of the peer or the witness names this node, which has never led under this value: whoever led before
    /// may have written what this node lacks, and it leads only when it has all of that (R6).
    pub fn learns(&self) -> bool {
        self.role == Role::Fenced && self.wants_lead && self.pending.is_none() && !self.saved()
    }

    /// Whether it would lead in Pair but for the operator's word: it still knows what its backup holds (R6), for nothing is
    /// acknowledged meanwhile.
    pub fn waits(&self) -> bool {
        let owner = self.fetched && self.reg.mode == Mode::Pair && self.role == Role::Fenced;
        self.held && owner && self.pending.is_none() && !self.conflict
    }

    /// Whether it may not lead by the operator's word.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Whether two Solo copies met and this node has stopped.
    pub fn conflict(&self) -> bool {
        self.conflict
    }

    /// Whether the backup may be promoted on evidence: it knows Pair (R2) and holds everything (R6).
    pub fn promotable(&self) -> bool {
        self.role == Role::Backup && self.reg.mode == Mode::Pair && self.holds && self.pending.is_none()
    }

    /// Whether a register request is under way: neither beacon nor log frame is acknowledged (R4).
    pub fn asking(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether log frames that the peer sends as primary of this group are to be kept and acknowledged (R4, D3).
    pub fn accepts_frames(&self) -> bool {
        self.role == Role::Backup && self.pending.is_none()
    }

    /// The term above which this core issues its own.
    pub fn floor(&self) -> Term {
        self.floor
    }

    /// Whether the peer was last said to be near enough to join.
    pub fn is_near(&self) -> bool {
        self.near
    }

    /// Whether this node was last said to lead the other group away from home.
    pub fn has_taken_other(&self) -> bool {
        self.took_other
    }

    /// What the commit rule needs for this group now.
    pub fn release(&self) -> Release {
        match (self.role, self.reg.mode) {
            (Role::Primary, Mode::Solo) if self.joining || self.pending.is_some() => Release::Both,
            (Role::Primary, Mode::Solo) => Release::Alone,
            (Role::Primary, Mode::Pair) if self.pending.is_none() => Release::Both,
            _ => Release::Nothing,
        }
    }

    /// The group's part of the next beacon. `heard` counts of the peer's beacons are acknowledged unless we ask (R4).
    pub fn beacon(&self) -> Beacon {
        Beacon {
            reg: self.reg,
            role: self.role,
            ack: if self.pending.is_none() { self.heard } else { None },
            holds: self.holds && (self.role == Role::Primary || self.waits()),
            alone: self.alone,
            took_other: self.took_other,
            stopped: self.conflict,
        }
    }

    /// Ticks for which a Pair primary may still lead without another word from its backup (R3).
    pub fn lease_left(&self) -> u16 {
        self.lease_left
    }

    /// Whether a restarted owner waits for the end of its own log ([`In::Fetched`], R6).
    pub fn wants_fetch(&self) -> bool {
        self.wants_lead && !self.fetched
    }

    /// One input; outputs are appended in the order in which they must take effect.
    pub fn on(&mut self, cfg: &Config, input: In, out: &mut Vec<Out>) {
        match input {
            In::Ticks(n) => self.ticks(cfg, n, out),
            In::Sent(number) => self.sent(cfg, number),
            In::Heard(number) => self.heard = (self.role == Role::Backup).then_some(number),
            In::Beacon(b) => self.hear(cfg, b, out),
            In::PeerGone => self.peer_gone(cfg, out),
            In::InitTimeout => self.init_timeout(cfg, out),
            In::Fetched => {
                self.fetched |= self.wants_lead;
                self.lead_if_fetched(cfg, out);
            }
            In::Near(near) => self.near(near),
            In::PeerHolds => self.peer_holds(cfg, out),
            In::PeerRestarted => self.peer_restarted(),
            In::AckedAlone => self.alone = true,
            In::TookOther(took) => self.took_other = took,
            In::Floor(term) => self.floor = self.floor.max(term),
            In::Held(reg) => self.renew(cfg, reg, out),
            In::CasReply(req, result) => self.cas_reply(cfg, req, result, out),
            In::ForceActive { overrule } => self.force_active(cfg, overrule, out),
            In::Hold(held) => {
                self.held = held;
                self.lead_if_fetched(cfg, out);
            }
            In::GiveBack => self.give_back(cfg, out),
        }
        // Whatever it has the right to: it waits. To stop is safe at any time.
        if self.held && self.role == Role::Primary {
            self.role = Role::Fenced;
            self.joining = false;
            self.near = false;
            out.push(Out::BeaconNow);
        }
    }

    fn ticks(&mut self, cfg: &Config, n: u16, out: &mut Vec<Out>) {
        for (_, age) in &mut self.sent {
            *age = age.saturating_add(n);
        }
        self.sent.retain(|(_, age)| *age <= cfg.lease);
        self.lease_left = self.lease_left.saturating_sub(n);
        if self.starting && cfg.single {
            self.starting = false;
            self.change(cfg, self.solo(cfg), Why::OnlyMember, out);
        }
        self.lose_lease(cfg, n, out);
        if let Some(p) = self.pending {
            out.push(Out::Cas(p.req, p.from, p.to));
        }
    }

    /// A Pair primary without a lease is Fenced, and asks to go on alone. One that stood still first hears what was said
    /// meanwhile: its peer may have taken its place, and said so in words that it has yet to read (R5).
    fn lose_lease(&mut self, cfg: &Config, n: u16, out: &mut Vec<Out>) {
        let listened = self.listen > 0 && self.listen <= n;
        self.listen = self.listen.saturating_sub(n);
        let pair = self.reg.primary == cfg.me && self.reg.mode == Mode::Pair && self.pending.is_none();
        if self.role == Role::Primary && self.reg.mode == Mode::Pair && self.lease_left == 0 {
            self.role = Role::Fenced;
            if n > cfg.lease {
                self.listen = cfg.lease;
            } else if pair {
                self.change(cfg, self.solo(cfg), Why::LeaseLost, out);
            }
        } else if listened && pair && self.role == Role::Fenced && self.fetched {
            self.change(cfg, self.solo(cfg), Why::LeaseLost, out);
        }
    }

    fn sent(&mut self, cfg: &Config, number: u32) {
        let counts = self.reg.primary == cfg.me && self.reg.mode == Mode::Pair;
        if counts && self.sent.last().is_none_or(|(last, _)| *last != number) {
            self.sent.push((number, 0));
        }
    }

    /// An earlier run of this node was granted to lead alone, and died before it kept that: both nodes know of Pair only, and
    /// nobody could take the other's place. Who leads asks for that again; who follows asks that it may follow.
    fn renew(&mut self, cfg: &Config, held: Reg, out: &mut Vec<Out>) {
        let granted = held.primary == cfg.me && held.mode == Mode::Solo && held.term > self.reg.term;
        if !granted || self.reg.mode != Mode::Pair || self.pending.is_some() || self.conflict {
            return;
        }
        self.floor = self.floor.max(held.term);
        let next = self.solo(cfg);
        let to = match self.role {
            Role::Primary => next,
            Role::Backup => Reg { primary: self.reg.primary, mode: Mode::Pair, ..next },
            Role::Fenced => return,
        };
        self.change_from(cfg, held, to, Why::Settled, out);
    }

    fn follow(&mut self, holds: bool) {
        self.role = Role::Backup;
        // It waited for the other to lead.
        self.held = false;
        self.holds = holds;
        self.near = false;
        self.fetched = false;
        self.wants_lead = false;
        self.lease_left = 0;
    }

    fn find_role(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        if self.reg.primary != cfg.me {
            self.follow(false);
        } else if self.reg.mode == Mode::Pair && self.fetched {
            // It led and lost its lease: only an acknowledged beacon brings it back (R3).
            if self.lease_left > 0 && !self.held {
                self.role = Role::Primary;
            }
        } else {
            self.wants_lead = true;
            self.lead_if_fetched(cfg, out);
        }
    }

    fn lead_if_fetched(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        let may = self.role == Role::Fenced && self.pending.is_none() && !self.held;
        if !self.wants_lead || !self.fetched || !may {
            return;
        }
        if self.said_stopped {
            // The peer would compare what this node said then with what it acknowledges alone from now on: so that stands above it.
            self.change(cfg, self.solo(cfg), Why::Settled, out);
        } else {
            self.save(out);
            self.lead(cfg);
            out.push(Out::BeaconNow);
        }
    }

    fn lead(&mut self, cfg: &Config) {
        self.role = Role::Primary;
        // Leading in Pair releases nothing without the peer; the lease only times the question for Solo.
        self.lease_left = if self.reg.mode == Mode::Pair { cfg.lease } else { 0 };
        self.wants_lead = false;
        self.fetched = true;
        self.heard = None;
        self.holds = false;
        self.joining = false;
    }

    fn near(&mut self, near: bool) {
        self.near = near && self.role == Role::Primary;
        if !near && self.pending.is_none() {
            self.joining = false;
        }
    }

    fn peer_holds(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        if self.role != Role::Primary && !self.waits() || self.pending.is_some() {
            return;
        }
        match self.reg.mode {
            Mode::Pair => {
                self.holds = true;
                out.push(Out::BeaconNow);
            }
            Mode::Solo if self.joining => {
                self.holds = true;
                let to = Reg { mode: Mode::Pair, ..self.solo(cfg) };
                self.change(cfg, to, Why::PeerHolds, out);
            }
            Mode::Solo => {}
        }
    }

    fn peer_restarted(&mut self) {
        if self.role != Role::Backup {
            self.holds = false;
        }
        self.near = false;
        if self.pending.is_none() {
            self.joining = false;
        }
    }

    /// Solo under this node with the next term that it may issue.
    fn solo(&self, cfg: &Config) -> Reg {
        let term = self.reg.term.next(self.floor, cfg.me);
        Reg { term, primary: cfg.me, mode: Mode::Solo, settled: self.reg.settled }
    }

    fn leave_conflict(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        self.change(cfg, self.solo(cfg), Why::PeerGone, out);
    }

    /// Every change of "who may acknowledge" passes here: one compare-and-set of the register (R0).
    fn change(&mut self, cfg: &Config, to: Reg, why: Why, out: &mut Vec<Out>) {
        self.change_from(cfg, self.reg, to, why, out);
    }

    fn change_from(&mut self, cfg: &Config, from: Reg, to: Reg, why: Why, out: &mut Vec<Out>) {
        if self.held && to.primary == cfg.me {
            // Which of two that led alone goes on is not the operator's to choose: what both acknowledged is at stake.
            if why != Why::Settled {
                return;
            }
            self.held = false;
        }
        match cfg.register.decide(why) {
            Decision::Granted => {
                if matches!(why, Why::PeerGone | Why::LeaseLost | Why::InitTimeout) {
                    out.push(Out::Unprotected);
                }
                self.take(cfg, to, out);
            }
            Decision::Ask => {
                let req = self.next_req;
                self.next_req += 1;
                self.pending = Some(Pending { req, from, to });
                out.push(Out::Cas(req, from, to));
            }
            Decision::Refused => {}
        }
    }

    /// The register holds `to`, which this node asked for.
    fn take(&mut self, cfg: &Config, to: Reg, out: &mut Vec<Out>) {
        let led = self.role == Role::Primary;
        let keeps = led && to.primary == cfg.me && to.mode == Mode::Pair;
        let holds = self.holds;
        self.pending = None;
        self.conflict = false;
        self.joining = false;
        self.set_reg(to);
        self.save(out);
        self.starting = false;
        if to.primary == cfg.me {
            self.lead(cfg);
            // Proposing Pair needed the peer's boot to hold everything: it still does, unless it restarted meanwhile.
            self.holds = keeps && holds;
        } else {
            // Given away in Pair: if this node led, it holds everything.
            self.follow(led);
        }
        out.push(Out::BeaconNow);
    }

    fn set_reg(&mut self, reg: Reg) {
        // What was acknowledged alone stays so while the same node leads alone, under whatever term.
        self.alone &= self.reg.mode == reg.mode && self.reg.primary == reg.primary;
        self.sent.clear();
        self.listen = 0;
        self.said_stopped = false;
        self.reg = reg;
    }

    fn saved(&self) -> bool {
        self.disk == Some(self.reg)
    }

    fn save(&mut self, out: &mut Vec<Out>) {
        if !self.saved() {
            self.disk = Some(self.reg);
            out.push(Out::Persist(self.reg));
        }
    }

    /// R7: only an answer to this boot's outstanding request counts. R4: a lost reply that finds `to` in place won.
    fn cas_reply(&mut self, cfg: &Config, req: u32, result: CasResult, out: &mut Vec<Out>) {
        let Some(p) = self.pending.filter(|p| p.req == req) else { return };
        match result {
            CasResult::Won => self.take(cfg, p.to, out),
            CasResult::Lost(current) if current == p.to => self.take(cfg, p.to, out),
            CasResult::Lost(current) => {
                self.pending = None;
                self.joining = false;
                self.holds &= self.role == Role::Backup;
                if current.term > self.reg.term {
                    self.adopt(cfg, current, out);
                }
            }
            CasResult::Unknown => {}
            CasResult::NotSent => {
                self.pending = None;
                self.joining = false;
                self.holds &= self.role == Role::Backup;
            }
        }
    }
}
