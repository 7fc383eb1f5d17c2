//! What is heard of the peer: its beacons, and which run of it there is.

use presence_engine::ids::{Mode, NodeIx};

use super::{Disk, Node};
use crate::beacon::{Datagram, Turn};
use crate::safety;

/// How late a datagram may be, in ticks (2 s).
pub(super) const LATE_TICKS: u32 = 8;

impl Node {
    pub(super) fn datagram(&mut self, bytes: &[u8], disk: &mut dyn Disk) {
        let Some(mut d) = Datagram::decode(&self.cfg.secret, bytes) else { return };
        if usize::from(d.node) != self.me.peer().index() || self.old_boots.contains(&d.boot) {
            return;
        }
        let known = self.peer_boot == Some(d.boot);
        // Of a run that has greeted on the link and was not heard yet: said to the run before this one, it is late, and may name
        // who led then.
        if known && self.last_number == 0 && d.to_boot != self.cfg.driver.boot {
            self.beacon_due = Some(Turn::First);
            return;
        }
        let heard_now =
            self.evidence.gone().is_none() && self.evidence.silent().is_some_and(|ticks| ticks < LATE_TICKS);
        if !known && (d.to_boot != self.cfg.driver.boot || self.peer_boot.is_some() && heard_now) {
            // A run that does not know ours: fresh, or a recording. Or one before the run that was heard a moment ago, whose
            // last words are late. A fresh one will answer to our run, and greet on the link.
            self.stranger = Some(d.boot);
            self.beacon_due = Some(Turn::First);
            return;
        }
        self.meet_boot(d.boot, disk);
        if d.number <= self.last_number {
            return;
        }
        self.last_number = d.number;
        self.evidence.heard();
        self.shows.look |= self.peer_activity != d.activity;
        self.peer_activity = d.activity;
        self.hear_told(d.told);
        if d.to_boot == self.cfg.driver.boot {
            self.enabling_heard(d.heard);
        }
        self.peer_config = Some(d.config);
        self.compare_settings();
        self.peer_leads = d.groups.iter().any(|group| group.role == safety::Role::Primary);
        for g in NodeIx::BOTH {
            let body = &mut d.groups[g.index()];
            if d.to_boot != self.cfg.driver.boot {
                body.ack = None;
                body.holds = false;
                (d.heard, d.lease) = (0, [0; 2]);
            }
            if self.log_stands_still() {
                body.ack = None;
            }
            self.feed(g, safety::In::Heard(d.number), disk);
            let body = *body;
            self.stall.heard(g, body);
            self.feed(g, safety::In::Beacon(body), disk);
            if body.role == safety::Role::Primary && body.reg.mode == Mode::Pair {
                self.promises.heard(g, body.reg, d.heard, d.lease[g.index()]);
            } else {
                self.promises.void(g);
            }
        }
        // Promises are made in Pair only.
        if self.cores.iter().any(|core| core.role() != safety::Role::Fenced && core.reg().mode == Mode::Pair)
        {
            self.beacon_due = self.beacon_due.or(d.turn.next());
        }
    }

    /// The peer's run, as a beacon or a greeting names it. Another than before: the old one is dead (R9).
    pub(super) fn meet_boot(&mut self, boot: u64, disk: &mut dyn Disk) {
        if self.peer_boot == Some(boot) || self.old_boots.contains(&boot) {
            return;
        }
        disk.peer_is_gone();
        let before = self.peer_boot.replace(boot);
        if let Some(old) = before {
            self.old_boots.push(old);
            if self.old_boots.len() > 64 {
                self.old_boots.remove(0);
            }
            let planned = std::mem::take(&mut self.peer_restarts);
            if self.evidence.gone().is_none() && !planned {
                let gone = self.evidence.dead();
                self.peer_gone(gone, disk);
            }
        }
        self.last_number = 0;
        self.stall.peer_begins();
        self.peer_leaving = false;
        self.peer_activity = crate::beacon::Activity::None;
        self.correct_causes(before, boot);
        self.evidence.heard();
        for g in NodeIx::BOTH {
            self.feed(g, safety::In::PeerRestarted, disk);
            self.promises.void(g);
        }
        self.barrier = [None; 2];
    }
}
