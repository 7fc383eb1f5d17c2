//! A node that does not serve although it might: the operator forced it inactive, or it was restarted while automatics are
//! disabled. To stop is safe at any time; the cores are told to ([`safety::In::Hold`]).

use presence_engine::ids::{Group, Mode, NodeIx};

use super::moves::refused;
use super::waits::INACTIVE;
use super::{Action, Disk, Event, Force, Node, Out, Reply};
use crate::beacon::Held;
use crate::safety;

impl Node {
    /// Whoever was forced inactive stays so over a restart. And while automatics are disabled a node that was restarted
    /// waits until it knows that its peer was not.
    pub(super) fn hold_at_start(&mut self, disk: &mut dyn Disk) {
        if self.cfg.single {
            // There is nobody else to serve.
            self.held = [false; 2];
            return;
        }
        let disabled = self.cfg.automatics.disabled && self.ha();
        for g in NodeIx::BOTH {
            let reg = self.cores[g.index()].reg();
            let mine = reg.term.0 != 0 && reg.primary == self.me;
            if mine && (self.held[g.index()] || disabled) {
                self.feed(g, safety::In::Hold(true), disk);
            }
        }
    }

    /// Whoever waits since its start waits no longer once the peer leads, or knows who led, or automatics are enabled.
    pub(super) fn watch_hold(&mut self, disk: &mut dyn Disk) {
        let led = self.cores.iter().any(|core| core.role() == safety::Role::Primary);
        let peer_knows = self.hears_peer() && (self.peer_leads || self.peer_told().knows);
        self.knows |= led || peer_knows;
        if self.cfg.automatics.disabled && !peer_knows {
            return;
        }
        for g in NodeIx::BOTH {
            if self.cores[g.index()].held() && !self.held[g.index()] {
                self.feed(g, safety::In::Hold(false), disk);
            }
        }
    }

    /// The operator takes back the word by which this node waits; its peer is there, so nothing is forced.
    pub(super) fn release_held(&mut self, confirmed: bool, disk: &mut dyn Disk) -> Reply {
        if !confirmed {
            return Reply::TakesBack(false);
        }
        let held: Vec<Group> = NodeIx::BOTH.into_iter().filter(|g| self.cores[g.index()].held()).collect();
        for group in held {
            let g = group.index();
            self.held[g] = false;
            self.keep_register(group, disk);
            self.feed(group, safety::In::Hold(false), disk);
        }
        self.outs.push(Out::Event(Event::TakenBack));
        Reply::TakesBack(true)
    }

    /// Whether it takes nobody over by itself.
    pub(super) fn stays_put(&self) -> bool {
        self.cfg.automatics.disabled || self.disarmed() || self.held_now() == Held::Forced
    }

    /// Whether the own users wait for the operator.
    pub(super) fn held_now(&self) -> Held {
        match self.me.index() {
            g if !self.cores[g].held() => Held::No,
            g if self.held[g] => Held::Forced,
            _ => Held::Restarted,
        }
    }

    /// What the operator's word would do, or did: whose users are not served any more.
    pub(super) fn force_inactive(&mut self, confirmed: bool, disk: &mut dyn Disk) -> Reply {
        if let Some(reply) = self.refuses(Action::ForceInactive) {
            return reply;
        }
        let groups = NodeIx::BOTH.into_iter().filter(|g| self.cores[g.index()].reg().primary == self.me);
        let groups: Vec<Group> = groups.collect();
        let (me, peer) = (&self.cfg.names[self.me.index()], &self.cfg.names[self.me.peer().index()]);
        let unserved = |g: &NodeIx| {
            format!(
                "users of {} are served by nobody, until `tandem force-active {peer}` there, or `tandem force-active {me}`",
                self.cfg.names[g.index()]
            )
        };
        // Those that were handed over to this node are served by its register.
        let guests = self.driver.engine().state().away(self.me.peer()).map(|_| self.me.peer());
        let mut homes = groups.clone();
        homes.extend(guests.filter(|home| !groups.contains(home)));
        let unserved: Vec<String> = homes.iter().map(unserved).collect();
        if !confirmed {
            return Reply::MayMiss(unserved);
        }
        for group in groups {
            let g = group.index();
            self.held[g] = true;
            self.keep_register(group, disk);
            self.feed(group, safety::In::Hold(true), disk);
        }
        self.outs.push(Out::Event(Event::Forced(Force::Inactive, unserved.clone())));
        Reply::Forced(unserved)
    }

    pub(super) fn force_inactive_refused(&self) -> Option<Reply> {
        let (me, peer) = (&self.cfg.names[self.me.index()], &self.cfg.names[self.me.peer().index()]);
        if self.cfg.single {
            return Some(refused("this group has one node", "stop it with SIGTERM"));
        }
        if self.moving.is_some() {
            return Some(refused("a move is under way", "wait until it is complete: see `tandem status`"));
        }
        if !self.peer_is_silent() && !self.cfg.automatics.disabled {
            return Some(refused(
                format!("node {peer} is heard, and automatics are enabled: nobody's users need to wait"),
                format!("use `tandem failover {me}`; to serve nobody, set srm.disable_automatics first"),
            ));
        }
        let mine = |g: &NodeIx| {
            let reg = self.cores[g.index()].reg();
            reg.term.0 != 0 && reg.primary == self.me
        };
        let mut led = NodeIx::BOTH.into_iter().filter(mine);
        let away = self.driver.engine().state().away(self.me).is_some();
        if led.clone().all(|g| g == self.me && away) {
            return Some(refused(
                format!("this node serves nobody: all users are at {peer}"),
                "see `tandem status`",
            ));
        }
        if !self.peer_is_silent() && led.any(|g| self.cores[g.index()].reg().mode == Mode::Solo) {
            return Some(refused(
                format!("{peer} does not hold everything yet, and could not serve in this node's place"),
                "wait until `tandem status` shows no alarm \"unprotected\"",
            ));
        }
        None
    }

    /// For the operator.
    pub(super) fn hold_alarm(&self) -> Option<String> {
        let (me, peer) = (&self.cfg.names[self.me.index()], &self.cfg.names[self.me.peer().index()]);
        let held: Vec<usize> = [0, 1].into_iter().filter(|g| self.cores[*g].held()).collect();
        if held.is_empty() {
            None
        } else if held.iter().any(|g| self.held[*g]) {
            Some(format!(
                "{INACTIVE} by force: `tandem force-active {peer}` has {peer} serve everybody, `tandem force-active {me}` this \
                 node"
            ))
        } else if !self.hears_peer() {
            Some(format!(
                "{INACTIVE}: this node was restarted while automatic failover is disabled, and {peer} is not heard; start \
                 {peer}, or `tandem force-active {me}`, or enable automatics"
            ))
        } else {
            Some(format!(
                "{INACTIVE}: this node was restarted while automatic failover is disabled, and {peer} serves nobody; \
                 `tandem force-inactive` one node and `tandem force-active` the other, or enable automatics"
            ))
        }
    }
}
