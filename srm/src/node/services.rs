//! Critical services: what the node does when one of them is down, and the failed mode of both nodes.
//!
//! The shell starts, stops and probes them; here it is decided who serves. While one is down its node's sessions stay with
//! it, and what needs the service waits; but for clients that wait at the peer (`super::fronts`), if the operator did not stop
//! it. From the delay on its users go to the peer, if that is well: by a failover (rows
//! 108, 109, then 11 to 13), or, if they were guests of this node, back home with everybody else (rows 22, 23). If the peer is
//! not well either, both run in failed mode until the operator has them recover (rows 14, 15, 19 to 21, 117).

use presence_engine::engine::Input;
use presence_engine::ids::Mode;
use session_mover::driver::Link;
use session_mover::msg::Msg;

use super::moves::refused;
use super::waits::{CRITICAL_SERVICE, FAILED_MODE};
use super::{Action, Event, Node, Out, RECOVER, Reply, START_SERVICES, enabling};
use crate::beacon::Turn;
use crate::view::{Cause, Failure, Place};

/// A critical service of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Service {
    /// The logs and the store.
    Database,
    /// Sessions, presence, rosters.
    PresenceEngine,
    /// The way of stanzas from stream to stream.
    Router,
    /// Logins. Critical only where it is monitored.
    Authentication,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 4] =
        [Service::Database, Service::PresenceEngine, Service::Router, Service::Authentication];

    /// Its name, as operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Database => "database",
            Service::PresenceEngine => "presence-engine",
            Service::Router => "router",
            Service::Authentication => "authentication",
        }
    }

    /// The service of this name.
    pub fn named(name: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.name() == name)
    }
}

/// How a service is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It runs.
    #[default]
    Runs,
    /// It does not do its work; what needs it waits by itself.
    Fails,
    /// It does not run, because the operator stopped it: what needs it is made to wait.
    Stopped,
    /// It died and has yet to start again: the same.
    Dead,
}

impl Health {
    /// Whether what needs the service is made to wait.
    pub fn blocks(self) -> bool {
        matches!(self, Health::Stopped | Health::Dead)
    }
}

/// What follows if a service of this node stays down for longer than the delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Follows {
    /// Nothing: nobody moves users by itself, or there is nobody to be moved, or nowhere to go.
    Nothing,
    /// What the other move comes to is waited for, if it does not give way.
    Later,
    /// Neither node can serve: both run in failed mode.
    FailedMode,
    /// The guests of this node go home, and its own users with them.
    Recovery,
    /// Its users go to the peer.
    Failover,
    /// They would, but there were enough of such failovers.
    Guarded,
}

/// How long the services of the home node may take to start in a fallback, in ticks (30 s).
const START_TICKS: u64 = 120;
/// How often the peer is asked again, in ticks (1 s).
const ASK_TICKS: u64 = 4;
/// The peer lacks a service for so long (5 s): it is no restart.
const LACKS_TICKS: u32 = 20;

/// What is known of services.
#[derive(Debug, Default)]
pub(super) struct Services {
    health: [Health; 4],
    /// For how many ticks each has been down.
    down: [u32; 4],
    /// For how many ticks the peer has lacked one.
    peer_lacks: u32,
    /// Why both nodes run in failed mode.
    pub(super) failed: Option<Failure>,
    /// The peer has told this run whether it does.
    heard: bool,
    /// The failed mode was ended here: the peer need not know yet.
    recovers: bool,
    /// Since when a fallback waits for the home node's services.
    waits: Option<u64>,
    /// Why the store did not take the last checkpoint.
    store_failed: Option<String>,
}

impl Node {
    /// The shell says how a service is.
    pub(super) fn service(&mut self, service: Service, health: Health) {
        let lacked = self.lacks_service();
        let i = service as usize;
        self.services.health[i] = health;
        if health == Health::Runs {
            self.services.down[i] = 0;
        }
        if lacked != self.lacks_service() {
            self.shows.look = true;
            self.beacon_due = Some(Turn::First);
        }
    }

    /// A service begins anew, whatever it was. Nobody's session is touched.
    pub(super) fn restart_service(&mut self, service: Service) {
        match service {
            // Its store was opened anew: a checkpoint shows whether it takes one.
            Service::Database => self.driver.checkpoint_soon(),
            // All that waits for users that are led here is taken up again.
            Service::PresenceEngine | Service::Router => self.serving = [false; 2],
            Service::Authentication => {
                let accounts = self.driver.engine().accounts();
                self.outs.extend(accounts.map(|(user, verifiers)| Out::Account(user, Some(verifiers))));
            }
        }
    }

    /// The store took a checkpoint, or failed: told once of those that fail for one reason in a row.
    pub(super) fn tell_store(&mut self, failed: Option<String>) {
        let news = failed.clone().filter(|why| self.services.store_failed.as_ref() != Some(why));
        self.services.store_failed = failed;
        self.outs.extend(news.map(|why| Out::Event(Event::StoreFailed(why))));
    }

    /// Critical services that are down.
    fn down(&self) -> impl Iterator<Item = Service> {
        let critical = |s: &Service| *s != Service::Authentication || self.cfg.automatics.authentication;
        Service::ALL
            .into_iter()
            .filter(critical)
            .filter(|s| self.services.health[*s as usize] != Health::Runs)
    }

    pub(super) fn lacks_service(&self) -> bool {
        self.down().next().is_some()
    }

    /// Whether what clients say waits for a service.
    pub(super) fn services_block(&self) -> bool {
        let blocks = |s: Service| self.services.health[s as usize].blocks();
        blocks(Service::Database) || blocks(Service::PresenceEngine) || blocks(Service::Router)
    }

    /// Whether a critical service is down because the operator stopped it.
    pub(super) fn has_stopped_service(&self) -> bool {
        self.down().any(|service| self.services.health[service as usize] == Health::Stopped)
    }

    /// No account is changed without a database.
    pub(super) fn accounts_stopped(&self) -> Option<Reply> {
        let blocks = self.services.health[Service::Database as usize].blocks();
        blocks.then(|| {
            refused("the database of this node is stopped", "start it: `tandem service start database`")
        })
    }

    /// What is down for longer than the delay.
    fn overdue(&self) -> Option<Cause> {
        let late = |s: &Service| self.services.down[*s as usize] >= self.cfg.automatics.delay;
        let late: Vec<Service> = self.down().filter(late).collect();
        let database = late.contains(&Service::Database);
        let other = (!late.is_empty()).then_some(Cause::Service);
        if database { Some(Cause::Database) } else { other }
    }

    /// Counts for how long services have been down, and acts when it is time.
    pub(super) fn watch_services(&mut self, ticks: u16) {
        // A pause of this process is no proof of anything.
        let passed = u32::from(ticks.min(2));
        for i in 0..Service::ALL.len() {
            if self.services.health[i] != Health::Runs {
                self.services.down[i] = self.services.down[i].saturating_add(passed);
            }
        }
        let lacks = self.peer_told().lacks_service;
        self.services.peer_lacks = if lacks { self.services.peer_lacks.saturating_add(passed) } else { 0 };
        if self.services.recovers && self.ticks.is_multiple_of(ASK_TICKS) && self.peer_told().failed.is_some()
        {
            self.tell_peer(RECOVER);
        }
        let overdue = self.overdue();
        self.watch_guard(overdue.is_some());
        if let Some(cause) = overdue {
            self.act(cause);
        }
    }

    /// Whether a node would serve the other's users if a service of that stays down.
    pub(super) fn would_fail_over(&self) -> bool {
        !self.cfg.automatics.disabled && !self.disarmed() && self.ha() && self.peer_up && !self.peer_leaves()
    }

    /// What is done when it is time, as far as can be said now. The operator is told that beforehand.
    fn follows(&self) -> Follows {
        let pair = self.cores.iter().all(|core| core.reg().mode == Mode::Pair);
        let settled = self.services.failed.is_none() && pair;
        if self.cfg.single || !settled || !self.would_fail_over() {
            return Follows::Nothing;
        }
        if self.moving.is_some() {
            return Follows::Later;
        }
        let home = self.is_home();
        if !home && self.facts(self.me.peer()).place != Place::AtBackup {
            Follows::Nothing
        } else if self.peer_told().lacks_service {
            Follows::FailedMode
        } else if !home {
            Follows::Recovery
        } else if self.guard_holds() {
            Follows::Guarded
        } else {
            Follows::Failover
        }
    }

    /// A service of this node is down for too long.
    fn act(&mut self, cause: Cause) {
        match self.follows() {
            Follows::Nothing => {}
            // The table is to show that it came to nothing: it is acted on in the next tick.
            Follows::Later => self.give_way(),
            Follows::FailedMode if self.services.peer_lacks < LACKS_TICKS => {}
            Follows::FailedMode => {
                let database = cause == Cause::Database;
                self.fail(if database { Failure::Database } else { Failure::Service });
            }
            Follows::Recovery => self.begin_recovery(cause),
            // The guard says that it held one back.
            Follows::Failover | Follows::Guarded => _ = self.begin_guarded(cause),
        }
    }

    /// Each node serves its own users; what is looked at before high availability has had its time.
    pub(super) fn is_home(&self) -> bool {
        let row = self.shown().row.id;
        row == 1 || row == enabling::ROW && self.enabling_lasts()
    }

    /// Both nodes run in failed mode from now on: nobody moves users until the operator says so.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.services.failed = Some(failure);
        self.services.waits = None;
        self.abandon_move();
        self.shows.look = true;
        self.beacon_due = Some(Turn::First);
    }

    /// The peer is gone: what both nodes were in is over.
    pub(super) fn forget_failure(&mut self) {
        self.services.failed = None;
        self.services.recovers = false;
    }

    /// The peer says whether it runs in failed mode, and whether high availability is off there. A node that meets that when it
    /// starts does not know why.
    pub(super) fn hear_failure(&mut self, failed: Option<Failure>, ha_off: bool) {
        let fresh = !std::mem::replace(&mut self.services.heard, true);
        // Switched off, it was over: a peer that has yet to read that tells of the one before.
        let Some(failure) = failed.filter(|_| self.ha() || ha_off) else {
            self.services.recovers = false;
            return;
        };
        let failure = if fresh { Failure::Unknown } else { failure };
        if self.services.recovers || self.services.failed >= Some(failure) {
            return;
        }
        self.fail(failure);
    }

    /// The operator ends the failed mode.
    pub(super) fn recover(&mut self) -> Reply {
        if let Some(refused) = self.refuses(Action::Recover) {
            return refused;
        }
        self.tell_peer(RECOVER);
        self.recovered();
        Reply::Done
    }

    /// Both nodes begin anew: services are started, and have the whole delay for that.
    pub(super) fn recovered(&mut self) {
        if self.services.failed.take().is_none() {
            return;
        }
        self.services.recovers = true;
        self.services.down = [0; 4];
        self.services.peer_lacks = 0;
        self.shows.look = true;
        self.beacon_due = Some(Turn::First);
        if self.nobody_moved() {
            self.inbox.push(Input::Away { group: self.me, why: None });
        }
        self.outs.push(Out::StartServices);
        self.outs.push(Out::Event(Event::Recovered));
    }

    /// Whether a failover of this node that failed has moved nobody: it is at home as before, and not Idle.
    fn nobody_moved(&self) -> bool {
        let (me, state) = (self.me, self.driver.engine().state());
        let mut own = state.users().filter(|(_, user)| user.home == me).peekable();
        let here = own.peek().is_some() && own.all(|(_, user)| user.register == me);
        state.away(me).is_some() && here && self.leads().any(|group| group == me)
    }

    /// Whether a fallback waits because services of the home node do not run: they are started first.
    pub(super) fn home_must_start(&mut self) -> bool {
        if !self.peer_told().lacks_service {
            self.services.waits = None;
            return false;
        }
        let now = self.ticks;
        match self.services.waits {
            None => {
                self.services.waits = Some(now);
                self.tell_peer(START_SERVICES);
            }
            Some(since) if now - since >= START_TICKS => self.fail(Failure::StartOfServices),
            Some(_) => {}
        }
        true
    }

    pub(super) fn tell_peer(&mut self, word: u8) {
        if self.link_up[Link::Out as usize] {
            self.outs.push(Out::Link(Link::Out, Msg::Control(vec![word].into())));
        }
    }

    /// For the operator.
    pub(super) fn service_alarms(&self) -> Vec<String> {
        let after = self.cfg.automatics.delay / 4;
        let peer = &self.cfg.names[self.me.peer().index()];
        let peer_serves = matches!(self.follows(), Follows::Recovery | Follows::Failover);
        let mut alarms: Vec<String> = Vec::new();
        for service in self.down() {
            let (name, i) = (service.name(), service as usize);
            let how = if self.services.health[i].blocks() { "is stopped" } else { "fails" };
            let (seconds, overdue) =
                (self.services.down[i] / 4, self.services.down[i] >= self.cfg.automatics.delay);
            let then = match (self.cfg.single, overdue) {
                (true, _) => "users wait for it".to_owned(),
                (false, false) if peer_serves => format!("after {after} s {peer} is to serve all users"),
                (false, _) if how == "fails" => {
                    "see `tandem service list`; it is tried again by itself".to_owned()
                }
                (false, _) => "start it: `tandem service start`".to_owned(),
            };
            alarms.push(format!("{CRITICAL_SERVICE} {name} {how}, for {seconds} s: {then}"));
        }
        if self.services.peer_lacks > 0 {
            alarms.push(format!("a critical service of {peer} is down: `tandem service list`"));
        }
        alarms.extend(self.guard_alarm());
        if self.services.failed.is_some() {
            alarms.push(format!("{FAILED_MODE}: no users are moved until `tandem recover`"));
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{NodeIx, Reg};

    use super::super::By;
    use super::super::tests::{Memory, acknowledge, add, config, copy, hear_of, link_up, pair, started};
    use super::super::{Automatics, In, Op};
    use super::*;
    use crate::safety::Role;

    /// Node b, its peer that has it all, and what moves users, which does not come to the engine.
    fn stuck(groups: [(Reg, Role); 2], op: Op) -> (Option<Failure>, u64) {
        let regs = groups.map(|(reg, _)| Some(copy(reg)));
        let mut disk = Memory::default();
        let mut cfg = config(true);
        cfg.automatics = Automatics { delay: 360, failovers_per_hour: 1, ..Automatics::default() };
        let mut node = Node::start(cfg, regs, 1, &mut disk);
        hear_of(&mut node, &mut disk, 1, groups);
        link_up(&mut node, &mut disk);
        assert!(!add(&mut node, &mut disk, "u"));
        acknowledge(&mut node, &mut disk);
        let mut asked = false;
        for tick in 0..1_000 {
            hear_of(&mut node, &mut disk, 2 + tick, groups);
            node.handle(0, In::Ticks(1), &mut disk);
            if asked {
                node.pump_moves(&mut disk);
                node.inbox.clear();
            } else {
                node.step(0, &mut disk);
                node.op(9, op.clone(), &mut disk);
                asked = node.moving.is_some();
            }
            acknowledge(&mut node, &mut disk);
            if node.services.failed.is_some() {
                return (node.services.failed, u64::from(tick));
            }
        }
        (None, 1_000)
    }

    #[test]
    fn rows_19_and_20_users_that_do_not_move_for_a_minute_have_both_nodes_run_in_failed_mode() {
        let (a, b) = (pair(NodeIx::A), pair(NodeIx::B));
        let (failed, at) = stuck([(a, Role::Primary), (b, Role::Backup)], Op::Failover(By::Here));
        assert_eq!(failed, Some(Failure::TakeOver));
        // Clients that have no parked stream yet are waited for first: 10 s here.
        assert!((280..300).contains(&at), "{at}");
        let guests = Reg { primary: NodeIx::B, ..a };
        let (failed, _) = stuck([(guests, Role::Backup), (b, Role::Backup)], Op::Fallback(By::Here));
        assert_eq!(failed, Some(Failure::TakeBack));
    }

    #[test]
    fn time_in_which_this_process_stood_still_is_no_time_in_which_a_service_was_down() {
        let (mut node, mut disk) = started(true);
        node.automatics(Automatics { delay: 360, ..Automatics::default() });
        node.handle(0, In::Service(Service::Router, Health::Stopped), &mut disk);
        node.handle(0, In::Ticks(400), &mut disk);
        let down = |node: &Node| node.services.down[Service::Router as usize];
        assert_eq!((down(&node), node.overdue()), (2, None));
        node.handle(0, In::Ticks(1), &mut disk);
        assert_eq!(down(&node), 3);
    }
}
