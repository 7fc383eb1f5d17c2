//! What the peer's beacons bring about.

use presence_engine::ids::{Mode, Reg, Term};

use super::{Beacon, Config, Core, Out, Role, Why, settle};

impl Core {
    pub(super) fn hear(&mut self, cfg: &Config, b: Beacon, out: &mut Vec<Out>) {
        if cfg.single {
            return;
        }
        self.starting = false;
        self.age_of_ack(cfg, &b);
        if self.saved() && settle::conflicting(cfg, self.reg, b.reg) {
            return self.on_conflict(cfg, &b, out);
        }
        if b.reg.term > self.reg.term {
            self.adopt(cfg, b.reg, out);
        } else if self.reg.term == Term(0) && b.reg.term == Term(0) {
            // Two fresh disks: the home node opens the group.
            if cfg.home == cfg.me && self.pending.is_none() {
                self.change(cfg, self.solo(cfg), Why::Settled, out);
            }
            return;
        }
        self.conflict = false;
        match self.role {
            Role::Fenced if self.pending.is_none() => self.find_role(cfg, out),
            _ => {}
        }
        if self.role == Role::Backup && b.reg == self.reg && b.holds {
            self.holds = true;
            self.save(out);
        }
        self.join_if_near(cfg, &b);
    }

    /// A beacon that acknowledges one of ours renews the lease from the moment that one was sent (R3).
    fn age_of_ack(&mut self, cfg: &Config, b: &Beacon) {
        let Some(ack) = b.ack else { return };
        let counts = self.reg.primary == cfg.me && self.reg.mode == Mode::Pair;
        if !counts || b.reg.primary != cfg.me || b.role != Role::Backup {
            return;
        }
        if let Some(i) = self.sent.iter().position(|(number, _)| *number == ack) {
            self.lease_left = self.lease_left.max(cfg.lease - self.sent[i].1);
            self.sent.drain(..=i);
        }
    }

    /// Takes over a newer register value as it is; the role follows from it.
    pub(super) fn adopt(&mut self, cfg: &Config, reg: Reg, out: &mut Vec<Out>) {
        if self.pending.is_some_and(|p| p.to == reg) {
            return self.take(cfg, reg, out);
        }
        if self.saved() && settle::outdone(cfg, self.reg, reg) {
            return self.reclaim(cfg, reg, out);
        }
        let whole = self.role == Role::Primary || self.role == Role::Backup && self.holds;
        self.set_reg(reg);
        self.pending = None;
        self.joining = false;
        if reg.primary != cfg.me {
            if self.disk.is_some() {
                self.save(out);
            }
            // The primary tells anew what this boot holds: it may have acknowledged alone since.
            self.follow(false);
        } else if whole {
            // Given to us by fallback. A backup has the end of the log already, but not on its disk (R8).
            out.push(Out::SyncReceived);
            self.save(out);
            self.lead(cfg);
        } else {
            self.role = Role::Fenced;
            self.fetched = false;
            self.wants_lead = true;
        }
    }

    /// A Pair that names another state than the Solo that we lead: what we acknowledged alone is not in it (R1). Stay
    /// Solo, above it.
    fn reclaim(&mut self, cfg: &Config, pair: Reg, out: &mut Vec<Out>) {
        if self.pending.is_some_and(|p| p.from == pair) {
            return;
        }
        self.pending = None;
        self.joining = false;
        self.floor = self.floor.max(pair.term);
        self.change_from(cfg, pair, self.solo(cfg), Why::Settled, out);
    }

    /// A Solo primary proposes Pair to a backup that follows it: from here it acknowledges nothing alone (R1).
    fn join_if_near(&mut self, cfg: &Config, b: &Beacon) {
        let follows = b.role == Role::Backup && b.reg == self.reg && b.ack.is_some();
        let may = self.role == Role::Primary && self.reg.mode == Mode::Solo && self.pending.is_none();
        if may && follows && self.near && !cfg.single {
            self.joining = true;
        }
    }

    fn on_conflict(&mut self, cfg: &Config, b: &Beacon, out: &mut Vec<Out>) {
        if !self.conflict {
            (self.conflict, self.said_stopped) = (true, true);
            self.role = Role::Fenced;
            self.joining = false;
            self.near = false;
            self.wants_lead = false;
            out.push(Out::BeaconNow);
        }
        self.floor = self.floor.max(b.reg.term);
        if b.stopped && self.pending.is_none() && settle::leads(cfg, self.alone, self.took_other, b) {
            // Exactly what was compared: a peer that went on from there, not knowing, is met anew.
            let settled = b.reg.term;
            // A witness, where the operator overruled it, holds the higher of the two.
            let from = if b.reg.term > self.reg.term { b.reg } else { self.reg };
            self.change_from(cfg, from, Reg { settled, ..self.solo(cfg) }, Why::Settled, out);
        }
    }
}
