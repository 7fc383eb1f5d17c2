//! `force-active`: the operator says that this node serves although the rules say wait (R2, R6, the way out of the policy
//! `strict`). Nobody else can know that the other node does not serve; so the node first says what may be missing.

use presence_engine::ids::{Group, Mode, NodeIx};

use super::hear::LATE_TICKS;
use super::moves::refused;
use super::{Action, Disk, Event, Force, Node, Reply};
use crate::beacon::Held;
use crate::safety::{Core, In, Role};

/// Beacons come every second: a peer that has not been heard for longer may have gone on from what it said (1.25 s).
const UNSURE_TICKS: u32 = 5;

impl Node {
    /// What the operator's word would do, or did: what of each group may be missing here.
    pub(super) fn force_active(&mut self, confirmed: bool, disk: &mut dyn Disk) -> Reply {
        if let Some(reply) = self.refuses(Action::ForceActive) {
            return reply;
        }
        if self.takes_its_own_back() {
            return self.release_held(confirmed, disk);
        }
        // What the peer said last may say that it leads alone (R2).
        self.driver.compare_no_more();
        while self.driver.has_unprocessed() {
            self.driver.turn(self.now_ms, Vec::new(), disk);
        }
        self.settle(disk);
        let groups = NodeIx::BOTH.into_iter().filter(|g| self.cores[g.index()].role() != Role::Primary);
        let groups: Vec<Group> = groups.collect();
        let mut missing: Vec<String> = groups.iter().filter_map(|g| self.may_miss(*g)).collect();
        let silent = self.evidence.silent().unwrap_or(0);
        if !self.peer_is_silent() && silent >= UNSURE_TICKS {
            let peer = &self.cfg.names[self.me.peer().index()];
            missing.push(format!(
                "{peer} has not been heard for {:.1} s: if it was made active since, both serve until they hear each other",
                f64::from(silent) / 4.0
            ));
        }
        if self.may_overrule() {
            let peer = &self.cfg.names[self.me.peer().index()];
            missing.push(format!(
                "the witness does not say who leads: if it let {peer} go on alone, what {peer} acknowledged then is missing \
                 until it returns"
            ));
        }
        if !confirmed {
            return Reply::MayMiss(missing);
        }
        // The operator takes the place of a witness that cannot be asked; one that can decides.
        let overrule = self.may_overrule();
        self.witness.overruled = overrule;
        // A second less than its lease: it has not gone on alone since.
        let waits = self.evidence.silent().is_some_and(|ticks| ticks < LATE_TICKS) && !self.peer_is_silent();
        for group in groups {
            self.shows.forced[group.index()] = waits;
            self.feed(group, In::ForceActive { overrule }, disk);
        }
        self.witness.overruled = false;
        self.outs.push(super::Out::Event(Event::Forced(Force::Active, missing.clone())));
        Reply::Forced(missing)
    }

    /// The operator was told that nothing is forced. That may not be so any more, and then nothing is done.
    pub(super) fn take_back(&mut self, disk: &mut dyn Disk) -> Reply {
        if self.takes_its_own_back() {
            return self.release_held(true, disk);
        }
        let hint = format!("ask again: `tandem force-active {}`", self.cfg.names[self.me.index()]);
        refused("it has changed since you were asked: nothing was done", hint)
    }

    /// Not heard for as long as its lease, or held to be gone.
    pub(super) fn peer_is_silent(&self) -> bool {
        let silent = self.evidence.silent().is_none_or(|ticks| ticks >= u32::from(self.cfg.lease));
        silent || self.evidence.gone().is_some()
    }

    /// It waits by the operator's word, and its peer is there: where that does not wait too, or only it has everything of its
    /// users, they stay with it.
    fn takes_its_own_back(&self) -> bool {
        let of_peer = NodeIx::BOTH.into_iter().filter(|g| self.cores[g.index()].reg().primary != self.me);
        let may_take =
            self.peer_told().held != Held::No && of_peer.map(|g| self.may_miss(g)).all(|m| m.is_none());
        self.cores.iter().any(Core::held) && !self.peer_is_silent() && !may_take
    }

    pub(super) fn force_active_refused(&self) -> Option<Reply> {
        if self.takes_its_own_back() {
            return None;
        }
        let peer = &self.cfg.names[self.me.peer().index()];
        if self.cfg.single {
            return Some(refused("this group has one node", "it serves by itself; nothing is to be forced"));
        }
        if self.moving.is_some() {
            return Some(refused("a move is under way", "wait until it is complete: see `tandem status`"));
        }
        // A peer that is there may wait for the operator, who knows why.
        let waits = self.peer_told().held != Held::No && !self.peer_leads;
        if !self.peer_is_silent() && !waits {
            let hint = format!(
                "use `tandem failover` or `tandem fallback`; if {peer} must not serve any more, stop it first, or disable \
                 automatics and `tandem force-inactive {peer}`"
            );
            let error = format!(
                "node {peer} is heard: force-active is for a peer that is not, or that waits for the operator; else both would \
                 serve the same users, with automatics disabled too"
            );
            return Some(refused(error, hint));
        }
        let alone = |g: &NodeIx| {
            let reg = self.cores[g.index()].reg();
            reg.primary != self.me && reg.mode == Mode::Solo
        };
        if !self.peer_is_silent() && NodeIx::BOTH.iter().any(alone) {
            return Some(refused(
                format!("{peer} led users alone and waits; only it has everything of them"),
                format!(
                    "`tandem force-active {peer}`, wait until nothing is unprotected, then `tandem failover {peer}`"
                ),
            ));
        }
        if self.cores.iter().all(|core| core.role() == Role::Primary) {
            return Some(refused("this node leads all users already", "see `tandem status`"));
        }
        None
    }

    /// What of a group may be missing on this node, in words for the operator; `None`: nothing.
    fn may_miss(&self, group: Group) -> Option<String> {
        let (core, names) = (&self.cores[group.index()], &self.cfg.names);
        let (home, peer) = (&names[group.index()], &names[self.me.peer().index()]);
        let reg = core.reg();
        if core.conflict() {
            return Some(format!(
                "both nodes led the users of {home} alone: what {peer} acknowledged is only there"
            ));
        }
        if reg.term.0 == 0 {
            return Some(format!(
                "this node has never met {peer}: whatever users of {home} have there is missing"
            ));
        }
        match reg.mode {
            _ if self.driver.is_behind() => Some(format!(
                "this node lost its disk or got an old one, and {peer} has not sent everything yet: whatever users of {home} \
                 have since is missing"
            )),
            _ if reg.primary == self.me && self.driver.lacks_own() => Some(format!(
                "this node died before it had written the last of its own log, which {peer} has: what {peer} answered \
                 upon it may be shown twice"
            )),
            Mode::Pair if reg.primary == self.me && core.starting() => Some(format!(
                "this node was down, and has not heard {peer} since: if {peer} served the users of {home} meanwhile, what it \
                 acknowledged is missing until it returns"
            )),
            // All that was acknowledged is on the own disk (R8).
            _ if reg.primary == self.me => None,
            Mode::Solo => Some(format!(
                "{peer} led the users of {home} alone (term {}): what it acknowledged then is missing until it returns",
                reg.term.0
            )),
            Mode::Pair if core.promotable() || self.cfg.driver.ack_synced && !core.starting() => None,
            Mode::Pair => Some(format!(
                "this node restarted and has not been told since that it holds everything: the last that {peer} \
                 acknowledged for the users of {home} may be missing until it returns"
            )),
        }
    }
}
