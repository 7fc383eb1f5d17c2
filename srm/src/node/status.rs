//! What a node knows, for operators: the facts of the table, and figures.

use presence_engine::engine::Counters;
use presence_engine::ids::{Group, Mode, NodeIx};

use super::{Node, Progress};
use crate::safety::{Release, Role};
use crate::view::{self, Facts, Place, Reason, Row, State};

/// A moment of one node, to be shown.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// This node.
    pub me: NodeIx,
    /// States and reasons of both nodes.
    pub states: [(State, Reason); 2],
    /// Number, cause and action of the row.
    pub row: (u32, &'static str, &'static str),
    /// For each group: primary, mode, role here, term, what a release needs.
    pub groups: [(NodeIx, Mode, Role, u64, Release); 2],
    /// Sessions and streams of this node.
    pub counters: Counters,
    /// Own log's end, how far the peer acknowledged it, copy of the peer's log.
    pub log: (u64, u64, u64),
    /// Accounts in all, and by home.
    pub users: (u64, [u64; 2]),
    /// The peer is heard and the link is up both ways.
    pub peer_up: bool,
    /// Milliseconds since the peer was heard.
    pub heard_ms: Option<u64>,
    /// A move under way: what, how far.
    pub moving: Option<(&'static str, Progress)>,
    /// What is wrong, in words.
    pub alarms: Vec<String>,
    /// Digest of the replicated state.
    pub digest: u64,
}

impl Node {
    fn facts(&self, group: Group) -> Facts {
        let heard = self.evidence.silent().is_some_and(|ticks| ticks < 20) && self.evidence.gone().is_none();
        let core = &self.cores[group.index()];
        let reg = core.reg();
        let home_is_me = group == self.me;
        let moving = view::activity_place(self.activity(), self.peer_activity, home_is_me);
        let state = self.driver.engine().state();
        // Nobody looks for a node that is known to be gone: whoever may not take its users over waits for it.
        let waits = core.starting() || core.role() == Role::Fenced;
        let lost = self.evidence.gone().is_some() || self.evidence.init_timeout();
        let awaited = waits && lost && !home_is_me && reg.primary == group;
        let place = match moving.filter(|_| heard || home_is_me) {
            Some(place) => place,
            None if awaited && reg.term.0 != 0 => Place::AtHome,
            None if reg.term.0 == 0 || core.starting() => Place::Nobody,
            None if core.role() == Role::Fenced => Place::Nobody,
            None if reg.primary != group => Place::TakenOver,
            None if state.away(group).is_some() => Place::Away,
            None => Place::AtHome,
        };
        Facts {
            place,
            home_heard: home_is_me || heard,
            backup_heard: !home_is_me || heard || self.cfg.single,
            cause: self.causes[group.index()],
        }
    }

    pub(super) fn own_state(&self) -> ((State, Reason), &'static Row) {
        if self.cfg.single {
            let facts = self.facts(self.me);
            let row = view::row(&facts);
            return (row.home, row);
        }
        let facts = NodeIx::BOTH.map(|g| self.facts(g));
        let (states, row) = view::states([&facts[0], &facts[1]]);
        (states[self.me.index()], row)
    }

    /// Everything that is shown of this node.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.driver.engine().state();
        let ((own, reason), row) = self.own_state();
        let mut states = [(own, reason); 2];
        if !self.cfg.single {
            let facts = NodeIx::BOTH.map(|g| self.facts(g));
            states = view::states([&facts[0], &facts[1]]).0;
        }
        let homed = NodeIx::BOTH.map(|n| state.users().filter(|(_, u)| u.home == n).count() as u64);
        let name = |m: &super::Moving| match m.activity() {
            crate::beacon::Activity::FailingOver => "failover",
            crate::beacon::Activity::FallingBack => "fallback",
            _ => "leaving",
        };
        Snapshot {
            me: self.me,
            states,
            row: (row.id, row.why, row.action),
            groups: NodeIx::BOTH.map(|g| {
                let core = &self.cores[g.index()];
                (core.reg().primary, core.reg().mode, core.role(), core.reg().term.0, core.release())
            }),
            counters: self.driver.engine().counters(),
            log: (self.driver.own_end().seq, self.driver.acked(), self.driver.peer_end().seq),
            users: (homed[0] + homed[1], homed),
            peer_up: self.peer_up,
            heard_ms: self.evidence.silent().map(|ticks| u64::from(ticks) * 250),
            moving: self.moving.as_ref().map(|m| (name(m), m.progress())),
            alarms: self.alarms(),
            digest: state.digest(),
        }
    }

    fn alarms(&self) -> Vec<String> {
        let mut alarms: Vec<String> = self.disk_alarm().into_iter().collect();
        if self.cfg.single {
            return alarms;
        }
        for g in NodeIx::BOTH {
            let core = &self.cores[g.index()];
            let name = &self.cfg.names[g.index()];
            if core.role() == Role::Primary && core.reg().mode == Mode::Solo {
                alarms.push(format!("unprotected: users of {name} are served without a standby"));
            }
            if core.role() == Role::Fenced && !core.starting() {
                alarms.push(format!("fenced: users of {name} are not served here"));
            }
            if core.role() == Role::Backup && !core.promotable() {
                alarms.push(format!("cannot take over: this node does not hold everything of {name} yet"));
            }
        }
        alarms.extend(self.witness_alarms());
        if self.path_down_told {
            alarms.push("only the path between the nodes is down; clients see both".to_owned());
        }
        if self.peer_config.is_some_and(|hash| hash != self.cfg.config_hash) {
            alarms.push("the nodes' clusterwide settings differ: compare the configuration files".to_owned());
        }
        alarms
    }
}
