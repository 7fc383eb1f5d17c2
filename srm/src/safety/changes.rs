//! What evidence and the operator bring about.

use presence_engine::ids::{Mode, Reg};

use super::{Config, Core, Out, Role, Why};

impl Core {
    pub(super) fn peer_gone(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        if self.pending.is_some() {
            return;
        }
        match self.role {
            // R2: only from Pair. R6: only when told that this boot holds everything.
            Role::Backup if self.promotable() => {
                out.push(Out::SyncReceived);
                self.change(cfg, self.solo(cfg), Why::PeerGone, out);
            }
            Role::Primary if self.reg.mode == Mode::Pair => {
                self.role = Role::Fenced;
                self.change(cfg, self.solo(cfg), Why::PeerGone, out);
            }
            Role::Primary => self.near(false),
            // A Pair primary that waits for its lease, or a start beside a dead peer that held nothing alone.
            Role::Fenced if self.conflict => self.leave_conflict(cfg, out),
            Role::Fenced if self.starting && self.held_solo(cfg) => self.init_timeout(cfg, out),
            // It lost its lease while the register could not be reached, and has not asked yet.
            Role::Fenced if self.fetched && self.reg.primary == cfg.me && self.reg.mode == Mode::Pair => {
                self.change(cfg, self.solo(cfg), Why::PeerGone, out);
            }
            _ => {}
        }
    }

    fn held_solo(&self, cfg: &Config) -> bool {
        self.saved() && self.reg.primary == cfg.me && self.reg.mode == Mode::Solo
    }

    /// First node up alone: what it led it leads again, for its disk has all that was released. What the other led only
    /// if that was Pair and power loss cannot have taken what this node acknowledged (R6), home or not.
    pub(super) fn init_timeout(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        if self.role == Role::Primary || self.pending.is_some() || !self.saved() {
            return;
        }
        let pair = self.reg.mode == Mode::Pair && cfg.peer_disk;
        if self.reg.primary == cfg.me || pair {
            self.change(cfg, self.solo(cfg), Why::InitTimeout, out);
        }
    }

    pub(super) fn force_active(&mut self, cfg: &Config, overrule: bool, out: &mut Vec<Out>) {
        if self.role == Role::Primary || self.pending.is_some() && !overrule {
            return;
        }
        // What a witness was asked and did not answer does not count any more: what is issued now lies above it. So it does
        // above what the run before may have asked, which nobody here knows.
        if let Some(asked) = self.pending.take() {
            self.floor = self.floor.max(asked.to.term);
        } else if overrule {
            self.floor = self.floor.max(self.reg.term.next(self.floor, cfg.me));
        }
        self.conflict = false;
        self.held = false;
        out.push(Out::SyncReceived);
        let why = if overrule { Why::Overruled } else { Why::Operator };
        self.change(cfg, self.solo(cfg), why, out);
    }

    /// Fallback after a takeover: consent on our disk to (home node, Pair), then the home node takes it up (D4).
    pub(super) fn give_back(&mut self, cfg: &Config, out: &mut Vec<Out>) {
        let pair = self.role == Role::Primary && self.reg.mode == Mode::Pair && self.holds;
        if pair && cfg.home != cfg.me && self.pending.is_none() {
            let to = Reg { primary: cfg.home, mode: Mode::Pair, ..self.solo(cfg) };
            self.change(cfg, to, Why::GiveBack, out);
        }
    }
}
