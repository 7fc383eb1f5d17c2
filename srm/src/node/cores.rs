//! The cores among the rest of the node: what they are told, and what follows from their roles.

use presence_engine::engine::Input;
use presence_engine::ids::{Group, Mode, NodeIx, Reg};
use session_mover::driver::View;
use session_mover::log::Which;
use xmpp_core::dual::Dual;

use super::{Disk, Event, Node, Out, RegisterCopy};
use crate::beacon::{Activity, Datagram, Held, Program, Turn};
use crate::evidence::Gone;
use crate::safety::{Beacon, Consent, In, Out as CoreOut, RegisterKind, Release, Role};

/// How long a group is fenced before its dual clients are told, in ticks (1 s after the lease).
const STALLED_TICKS: u32 = 4;
/// How often a node that stays fenced sends those away who wait there, in ticks (10 s).
const SEND_AWAY_TICKS: u32 = 40;

impl Node {
    /// One input for one core. A register copy is on disk before anything that depends on it goes on.
    pub(super) fn feed(&mut self, group: Group, input: In, disk: &mut dyn Disk) {
        let g = group.index();
        let before = self.cores[g].reg();
        let mut outs = Vec::new();
        let was_held = self.held[g];
        self.cores[g].on(&self.core_cfgs[g], input, &mut outs);
        let after = self.cores[g].reg();
        self.held[g] &= self.cores[g].held();
        let persists = outs.iter().any(|out| matches!(out, CoreOut::Persist(_)));
        if was_held && !self.held[g] && !persists {
            self.keep_register(group, disk);
        }
        if after.primary == self.me && before.primary != self.me {
            self.late[g] = !self.knows_all(group, before, after);
            self.driver.compare_no_more();
            if after.mode == Mode::Solo {
                self.note_takeover(group);
            }
        }
        for out in outs {
            match out {
                CoreOut::Persist(reg) => {
                    if reg.mode == Mode::Solo && reg.primary == self.me {
                        // Whoever finds this after a restart leads again with what is on this disk. The peer may have
                        // answered, and shown, more; and ours may answer more than is here (R8).
                        disk.sync(Which::Own);
                        disk.sync(Which::Peer);
                    }
                    self.persist(group, reg, disk);
                    self.outs.push(Out::Event(Event::Register(group, reg)));
                }
                CoreOut::BeaconNow => self.beacon_due = Some(Turn::First),
                CoreOut::SyncReceived => disk.sync(Which::Peer),
                CoreOut::Unprotected => self.outs.push(Out::Event(Event::Unprotected(group))),
                CoreOut::Cas(request, from, to) => self.ask_witness(group, (request, from, to), disk),
            }
        }
        let alone = after.primary == self.me && after.mode == Mode::Solo && before != after;
        if alone && before.mode == Mode::Pair && self.has_witness() {
            self.outs.push(Out::Event(Event::Unprotected(group)));
        }
    }

    fn persist(&mut self, group: Group, reg: Reg, disk: &mut dyn Disk) {
        let g = group.index();
        let (cause, lost) = self.cause_to_keep(group, reg);
        self.kept_causes[g] = (cause, lost);
        disk.persist(group, RegisterCopy { reg, late: self.late[g], held: self.held[g], cause, lost });
    }

    /// The register is as it was, and something that is kept with it is not.
    pub(super) fn keep_register(&mut self, group: Group, disk: &mut dyn Disk) {
        if let Some(reg) = self.cores[group.index()].durable() {
            self.persist(group, reg, disk);
        }
    }

    /// Why this node has taken the peer's users over outlives it: the table tells it to the next run, and no operator's word is
    /// taken back by itself.
    fn keep_causes(&mut self, disk: &mut dyn Disk) {
        for group in NodeIx::BOTH {
            let reg = self.cores[group.index()].durable();
            if reg.is_some_and(|reg| self.cause_to_keep(group, reg) != self.kept_causes[group.index()]) {
                self.keep_register(group, disk);
            }
        }
    }

    /// Whether nothing can have been acknowledged under `before`, which the peer led, that this node does not have (D6).
    fn knows_all(&self, group: Group, before: Reg, after: Reg) -> bool {
        // Given to us, Pair as it was; or last known to be led alone.
        if after.mode == Mode::Pair || before.mode == Mode::Solo {
            return after.mode == Mode::Pair;
        }
        match self.cfg.register {
            // The peer was heard a moment ago, and waits for the operator: it acknowledges nothing.
            _ if self.shows.forced[group.index()] => true,
            RegisterKind::Consent(Consent { available: true }) => {
                self.promises.holds(group, before, self.ticks)
            }
            // Nobody goes Solo by itself: only by a word that this node would have heard of, or that the operator gave.
            RegisterKind::Consent(_) => true,
            // Unless the operator gives it in the place of a witness that may have given its own to the other.
            RegisterKind::Witness(_) => !self.witness.overruled,
        }
    }

    /// The peer is gone: both cores hear it.
    pub(super) fn peer_gone(&mut self, gone: Gone, disk: &mut dyn Disk) {
        disk.peer_is_gone();
        self.peer_restarts = false;
        self.shows.forced = [false; 2];
        self.note_loss(gone);
        self.abandon_move();
        self.forget_failure();
        let silent_ms = self.evidence.silent().map(|ticks| u64::from(ticks) * 250);
        // A peer that stays away is found to be silent again and again.
        if self.gone_told.replace(gone) != Some(gone) {
            self.outs.push(Out::Event(Event::PeerGone(gone, silent_ms)));
        }
        if let Some(callers) = self.evidence.callers().filter(|_| gone == Gone::Silent) {
            self.outs.push(Out::Event(Event::Called(callers)));
        }
        // What it said last may say that it leads alone (R2).
        self.driver.compare_no_more();
        while self.driver.has_unprocessed() {
            self.driver.turn(self.now_ms, Vec::new(), disk);
        }
        self.learn_leads(disk);
        self.cores_hear_peer_gone(disk);
    }

    /// But not a node that has just started and lacks an end of its own log that was answered: alone it would lead with less
    /// than what was shown (R6).
    pub(super) fn cores_hear_peer_gone(&mut self, disk: &mut dyn Disk) {
        for g in NodeIx::BOTH {
            let waits = self.cores[g.index()].starting() && self.driver.lacks_own();
            // By itself no node takes over while that is disabled; a goodbye is the operator's word.
            let backup = self.cores[g.index()].reg().primary != self.me;
            // A goodbye is the operator's word, but not to a node that is to serve nobody.
            let leaving = self.peer_leaving && self.held_now() != Held::Forced;
            let disabled = self.stays_put() && !leaving && backup;
            if !waits && !disabled && !self.driver.is_behind() && !self.leaves_alone(g) {
                self.feed(g, In::PeerGone, disk);
            }
        }
    }

    /// Brings the cores, the driver and the engine into agreement after any step.
    pub(super) fn settle(&mut self, disk: &mut dyn Disk) {
        for _ in 0..8 {
            self.tell_cores(disk);
            self.announce_solo(disk);
            let left = self.leave_roles(disk);
            self.driver.set_view(self.view());
            self.drain_driver(disk);
            self.follow_rebuilds();
            if !self.follow_roles(disk) && !left {
                break;
            }
        }
        self.follow_peer();
        self.watch_changes();
        self.answer_commits();
        self.keep_causes(disk);
        if self.shows.look {
            self.watch_states();
        }
        self.keep_failovers(disk);
        if let Some(turn) = self.beacon_due.take().filter(|_| !self.cfg.single) {
            self.send_beacon(turn, disk);
        }
    }

    /// The peer's log tells its registers as its beacons do, and may be heard where those are lost: whoever read there
    /// that the peer leads alone may not take its place any more (R2).
    fn learn_leads(&mut self, disk: &mut dyn Disk) {
        for group in NodeIx::BOTH {
            let core = &self.cores[group.index()];
            let known = core.reg().term;
            let lead = self.driver.engine().state().lead(group);
            let news = lead.filter(|reg| reg.primary != self.me && reg.term > known && !core.starting());
            if let Some(reg) = news {
                let (role, ack) = (Role::Primary, None);
                let (holds, alone, took_other, stopped) = (false, false, false, false);
                let said = Beacon { reg, role, ack, holds, alone, took_other, stopped };
                self.feed(group, In::Beacon(said), disk);
            }
        }
    }

    fn tell_cores(&mut self, disk: &mut dyn Disk) {
        let me = self.me;
        self.learn_leads(disk);
        // A hand-over carries the higher term of both groups: whatever comes later must be above it (D6).
        let floor = self.cores.iter().map(|core| core.reg().term).max().unwrap_or_default();
        for group in NodeIx::BOTH {
            self.feed_once(group, In::Floor(floor), |c| c.floor() >= floor, disk);
        }
        for group in NodeIx::BOTH {
            let g = group.index();
            // Who led before may have the end of the group's records in its own log.
            let whole = !self.cores[g].learns() || self.driver.has_all_of_peer();
            if self.driver.fetched() && whole {
                self.feed_once(group, In::Fetched, |c| !c.wants_fetch(), disk);
            }
            let near = self.driver.near() && self.driver.ships_to() == self.peer_boot;
            self.feed_once(group, In::Near(near), |c| c.is_near() == near || c.role() != Role::Primary, disk);
            let other = group.peer();
            let took = self.cores[other.index()].reg().primary == me && other != me;
            self.feed_once(group, In::TookOther(took), |c| c.has_taken_other() == took, disk);
            let term = self.cores[g].reg().term;
            if term.0 != 0 && self.driver.alone_term(group) == term {
                self.feed_once(group, In::AckedAlone, |c| c.beacon().alone, disk);
            }
            self.check_holds(group, near, disk);
        }
    }

    fn feed_once(
        &mut self,
        group: Group,
        input: In,
        known: impl Fn(&crate::safety::Core) -> bool,
        disk: &mut dyn Disk,
    ) {
        if !known(&self.cores[group.index()]) {
            self.feed(group, input, disk);
        }
    }

    /// R1: the peer's present boot has everything up to where we stopped acknowledging alone.
    fn check_holds(&mut self, group: Group, near: bool, disk: &mut dyn Disk) {
        let g = group.index();
        let core = &self.cores[g];
        if !near || core.release() != Release::Both && !core.waits() || core.asking() {
            self.barrier[g] = None;
            return;
        }
        let barrier = *self.barrier[g].get_or_insert(self.driver.own_end().seq);
        if self.driver.acked() >= barrier && !core.beacon().holds {
            self.feed(group, In::PeerHolds, disk);
        }
    }

    /// Going Solo raises the epoch: dual clients hear it before what waited for the peer is let go (D6), and what is
    /// let go so was acknowledged alone. So it is where a join was called off: the register is as it was, and what was written
    /// for the join does not say that it is let go alone. The log says it once more, before that is (D7).
    fn announce_solo(&mut self, disk: &mut dyn Disk) {
        for group in NodeIx::BOTH {
            let (g, core) = (group.index(), &self.cores[group.index()]);
            let (reg, alone) = (core.reg(), core.release() == Release::Alone);
            let (known, said) = (self.announced[g] == Some(reg), self.driver.says_alone(group));
            if !alone || known && said {
                continue;
            }
            if !said {
                self.lead_at[g] = None;
            }
            if !known {
                self.announced[g] = Some(reg);
                for told in self.driver.announce(group, reg) {
                    self.released(told);
                }
            }
            if !self.driver.quiet() {
                self.feed(group, In::AckedAlone, disk);
            }
        }
    }

    fn view(&self) -> View {
        // What a node has only been told it does not speak or act upon: the peer would take its own log for void.
        let reg = |g: usize| match &self.cores[g] {
            core if core.learns() => core.durable(),
            core => Some(core.reg()).filter(|reg| reg.term.0 != 0),
        };
        View {
            regs: [reg(0), reg(1)],
            release: NodeIx::BOTH.map(|g| self.release_of(g)),
            accept: [0, 1].map(|g| self.accepts(&self.cores[g])),
        }
    }

    /// Whether records of a group are taken from the peer. Who is to lead it, and is not let before it has all that the peer
    /// has, takes them too: their writer leads it no more, so nothing is released by that.
    fn accepts(&self, core: &crate::safety::Core) -> bool {
        let waits = core.learns() || self.driver.is_behind() && core.role() == Role::Fenced && !core.asking();
        core.accepts_frames() || waits
    }

    /// A state that was built anew serves nobody until each group that is led here says so again.
    fn follow_rebuilds(&mut self) {
        if self.rebuilds != self.driver.rebuilds() {
            self.rebuilds = self.driver.rebuilds();
            self.forget_changes();
            self.forget_group_changes();
            self.serving = [false; 2];
            self.written = self.written.map(|_| None);
        }
    }

    /// A group that is no longer led is no longer served. What came before belongs to the time before, by its term too: a
    /// frame that bore the term of the node that leads the group by then would be void and not look so (D8). But nothing
    /// more is let go. `true` if there was such a group.
    fn leave_roles(&mut self, disk: &mut dyn Disk) -> bool {
        let mut left = false;
        for group in NodeIx::BOTH {
            let g = group.index();
            if self.serving[g] && self.cores[g].role() != Role::Primary {
                self.driver.set_view(View { regs: self.driver.regs(), ..self.view() });
                self.serving[g] = false;
                self.turn_now(Input::Serving { group, on: false }, disk);
                left = true;
            }
        }
        left
    }

    /// Roles become engine inputs; `true` if something changed that needs another round.
    fn follow_roles(&mut self, disk: &mut dyn Disk) -> bool {
        let mut again = false;
        for group in NodeIx::BOTH {
            let g = group.index();
            let (role, reg) = (self.cores[g].role(), self.cores[g].reg());
            let leads = role == Role::Primary;
            if leads && (self.written[g] != Some(reg) || self.lead_at[g].is_none()) {
                self.written[g] = Some(reg);
                self.serving[g] = true;
                let late = self.late[g];
                self.turn_now(Input::Lead { group, reg, late }, disk);
                self.lead_at[g] = Some(self.driver.own_end().seq);
                again = true;
            } else if leads && !self.serving[g] {
                self.serving[g] = true;
                self.turn_now(Input::Serving { group, on: true }, disk);
                again = true;
            }
            if role != Role::Backup || self.written[g].take().is_none() {
                continue;
            }
            // Given back, by this node's own consent; who takes over leads alone first, and need not have the hand-overs.
            let given = reg.mode == Mode::Pair && !self.driver.engine().has_members(group);
            if given {
                self.driver.give_away(group);
                again = true;
            } else {
                // Led until now: nothing that waits may leave any more (D8).
                self.driver.lose_role(disk);
                self.written = [None; 2];
                self.serving = [false; 2];
                again = true;
            }
        }
        again
    }

    fn turn_now(&mut self, input: Input, disk: &mut dyn Disk) {
        // What came before belongs to the time before; all that was acknowledged to the peer is applied first (D3).
        while self.driver.has_unprocessed() {
            self.driver.turn(self.now_ms, Vec::new(), disk);
        }
        let mut inputs = std::mem::take(&mut self.inbox);
        inputs.push(input);
        self.driver.turn(self.now_ms, inputs, disk);
    }

    /// What the engine must know of the peer, and the peer of our parked streams.
    fn follow_peer(&mut self) {
        let fresh = self.evidence.silent().is_some_and(|ticks| ticks < 12) && self.evidence.gone().is_none();
        if fresh {
            self.gone_told = None;
        }
        let up = fresh && self.link_up[0] && self.link_up[1];
        if up != self.peer_up {
            self.peer_up = up;
            if up {
                self.outs.push(Out::Event(Event::PeerUp));
            }
            self.inbox.push(Input::PeerUp(up));
        }
        if !self.told_parked && self.driver.ships() {
            self.told_parked = true;
            self.tell_crashes();
            let parked: Vec<_> = self.driver.engine().parked().map(|(_, session)| session).collect();
            for session in parked {
                self.driver.tell_parked(session, true);
            }
        }
    }

    fn send_beacon(&mut self, turn: Turn, disk: &mut dyn Disk) {
        self.beacon_number += 1;
        let number = self.beacon_number;
        self.promises.sent(number, self.ticks);
        self.enabling_said(number);
        for g in NodeIx::BOTH {
            self.feed(g, In::Sent(number), disk);
        }
        let mut groups = [0, 1].map(|g| self.group_beacon(g));
        let (mut heard, mut lease) = (self.last_number, [0, 1].map(|g| self.lease_left(g)));
        let stranger = self.stranger.take();
        if stranger.is_some() {
            // What is known of holdings and of beacons is known of the run before: this one may have lost what that one
            // had received (R6).
            groups = groups.map(|g| crate::safety::Beacon { ack: None, holds: false, ..g });
            (heard, lease) = (0, [0; 2]);
        } else {
            for g in NodeIx::BOTH {
                self.stall.says(g, number, groups[g.index()]);
            }
        }
        let datagram = Datagram {
            node: self.me.index() as u8,
            boot: self.cfg.driver.boot,
            to_boot: stranger.or(self.peer_boot).unwrap_or(0),
            number,
            config: self.cfg.config_hash,
            activity: self.activity(),
            turn,
            heard,
            lease,
            told: self.told(),
            groups,
            program: Program::of_this_node(self.now_ms, self.room.map(|room| room.free)),
        };
        self.outs.push(Out::Beacon(datagram.encode(&self.cfg.secret)));
        self.report_to_witness();
    }

    /// A backup that gets no log acknowledges no beacon either: progress counts as health (R9), and a primary whose
    /// frames go nowhere must not hold a lease for ever.
    pub(super) fn group_beacon(&self, g: usize) -> crate::safety::Beacon {
        let beacon = self.cores[g].beacon();
        let ack = beacon.ack.filter(|_| self.driver.hears_log());
        crate::safety::Beacon { ack, ..beacon }
    }

    /// What of a group's lease is promised to the peer (D6): none when the standstill of our log will be held against it
    /// before that.
    fn lease_left(&self, g: usize) -> u16 {
        let core = &self.cores[g];
        let leads_pair = core.role() == Role::Primary && core.reg().mode == Mode::Pair && !core.asking();
        let stuck = self.stuck.1 + u32::from(self.cfg.lease) + 4 >= self.cfg.evidence.silence;
        if leads_pair && !stuck { core.lease_left() } else { 0 }
    }

    /// A log that does not move although there is work is silence, whatever the beacons say (R9).
    pub(super) fn watch_progress(&mut self, ticks: u16, disk: &mut dyn Disk) {
        let acked = self.driver.acked();
        if !self.driver.lacks_peer() || acked != self.stuck.0 {
            self.stuck = (acked, 0);
            return;
        }
        self.stuck.1 += u32::from(ticks.min(2));
        if self.stuck.1 >= self.cfg.evidence.silence {
            self.stuck.1 = 0;
            self.peer_gone(Gone::Silent, disk);
        }
    }

    /// A node that stays fenced tells its dual clients, once, to look for their session at the other node (D13).
    pub(super) fn tell_stalled(&mut self) {
        for group in NodeIx::BOTH {
            let g = group.index();
            let fenced = self.cores[g].role() == Role::Fenced && !self.cores[g].starting();
            self.fenced[g] = if fenced { self.fenced[g].saturating_add(1) } else { 0 };
            if self.fenced[g] == STALLED_TICKS {
                for conn in self.driver.engine().dual_streams(group) {
                    self.outs.push(Out::Deliver(conn, Dual::Stalled.to_bytes()));
                }
            }
            if fenced && self.sends_away(group) {
                let away = self.driver.engine().send_away(group);
                away.into_iter().for_each(|output| self.released(output));
            }
        }
    }

    /// For the keep-alive time-out the node has not known whether it still serves these users: by then the other does, if it may
    /// and lives. Where it is known to be dead, nobody is better off there. Not all at once: who comes back waits here first.
    fn sends_away(&self, group: Group) -> bool {
        let fenced = self.fenced[group.index()];
        let since = fenced.checked_sub(self.cfg.evidence.silence);
        let owned = self.cores[group.index()].reg().primary == self.me;
        let unknown = !self.cfg.single && !self.peer_up && self.evidence.gone() != Some(Gone::Dead);
        owned && unknown && since.is_some_and(|since| since.is_multiple_of(SEND_AWAY_TICKS))
    }

    /// Whether each group has found its place: led, backed, but not fenced.
    pub fn is_ready(&self) -> bool {
        let me = self.me;
        let groups = NodeIx::BOTH.into_iter().filter(|g| !self.cfg.single || *g == me);
        let groups: Vec<NodeIx> = groups.collect();
        let role = |g: &NodeIx| self.cores[g.index()].role();
        // Whose users are at the peer is well served whatever its own services do.
        let serves = |g: &NodeIx| role(g) == Role::Primary && self.driver.engine().has_members(*g);
        let waits = self.services_block() && groups.iter().any(serves);
        !waits && groups.iter().all(|g| role(g) != Role::Fenced)
    }

    pub(super) fn activity(&self) -> Activity {
        self.moving.as_ref().map_or(Activity::None, |m| m.activity())
    }
}
