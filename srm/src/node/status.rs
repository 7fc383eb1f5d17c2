//! What a node knows, for operators: the facts of the table, and figures.

use presence_engine::engine::Counters;
use presence_engine::ids::{Mode, NodeIx};
use presence_engine::state::GroupInfo;

use super::room::Room;
use super::waits::{FENCED, NOTHING_YET};
use super::{Action, Checks, Node, Progress};
use crate::safety::{Release, Role};
use crate::view::{Reason, State};

/// A moment of one node, to be shown.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// This node.
    pub me: NodeIx,
    /// States and reasons of both nodes.
    pub states: [(State, Reason); 2],
    /// Number, cause and action of the row.
    pub row: (u32, String, String),
    /// For each group: primary, mode, role here, term, what a release needs.
    pub groups: [(NodeIx, Mode, Role, u64, Release); 2],
    /// Sessions and streams of this node.
    pub counters: Counters,
    /// Own log's end, how far the peer acknowledged it, copy of the peer's log.
    pub log: (u64, u64, u64),
    /// Accounts in all, and those that are assigned, by home.
    pub users: (u64, [u64; 2]),
    /// The presence redundancy group.
    pub group: GroupInfo,
    /// The peer is heard and the link is up both ways.
    pub peer_up: bool,
    /// Milliseconds since the peer was heard.
    pub heard_ms: Option<u64>,
    /// A move under way: what, how far.
    pub moving: Option<(&'static str, Progress)>,
    /// What is done now if an operator asks this node for it.
    pub offers: Vec<Action>,
    /// What is wrong, in words.
    pub alarms: Vec<String>,
    /// Whether the witness can be reached and decides; `None`: there is none.
    pub witness: Option<bool>,
    /// Checks of the store and of the peer's copies.
    pub checks: Checks,
    /// The disk of the data folder, if it can be looked at.
    pub room: Option<Room>,
    /// This run: a random number.
    pub run: u64,
    /// The other node takes over what is here if this one is stopped.
    pub taken_over: bool,
    /// Digest of the replicated state.
    pub digest: u64,
}

impl Node {
    /// Everything that is shown of this node.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.driver.engine().state();
        let shown = self.shown();
        let homed =
            NodeIx::BOTH.map(|n| state.users().filter(|(_, u)| u.assigned && u.home == n).count() as u64);
        Snapshot {
            me: self.me,
            states: shown.states,
            row: (shown.row.id, shown.why(&self.cfg.names), shown.action(&self.cfg.names)),
            groups: NodeIx::BOTH.map(|g| {
                let core = &self.cores[g.index()];
                (core.reg().primary, core.reg().mode, core.role(), core.reg().term.0, core.release())
            }),
            counters: self.driver.engine().counters(),
            log: (self.driver.own_end().seq, self.driver.acked(), self.driver.peer_end().seq),
            users: (state.users().count() as u64, homed),
            group: state.group().clone(),
            peer_up: self.peer_up,
            heard_ms: self.evidence.silent().map(|ticks| u64::from(ticks) * 250),
            moving: self.moving.as_ref().map(|m| (m.name(), m.progress())),
            offers: self.offers(),
            alarms: self.alarms(),
            witness: self.witness_decides(),
            checks: self.checks.clone(),
            room: self.room,
            run: self.cfg.driver.boot,
            taken_over: self.is_taken_over(),
            digest: state.digest(),
        }
    }

    /// A disk that holds nothing whole of either group: without its peer this node can only wait, even where it would serve by
    /// itself after a start.
    fn nothing_alarm(&self) -> Option<String> {
        let nothing = self.cores.iter().all(|core| core.durable().is_none());
        let peer = &self.cfg.names[self.me.peer().index()];
        (nothing && self.evidence.init_timeout()).then(|| {
            format!(
                "{NOTHING_YET}, and serves nobody until {peer} has sent everything: start {peer}, or repair the path \
                 between the nodes"
            )
        })
    }

    fn alarms(&self) -> Vec<String> {
        let mut alarms: Vec<String> = self.disk_alarm().into_iter().collect();
        alarms.extend(self.service_alarms());
        alarms.extend(self.room_alarm());
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
                alarms.push(format!("{FENCED} users of {name} are not served here"));
            }
            if core.role() == Role::Backup && !core.promotable() {
                alarms.push(format!("cannot take over: this node does not hold everything of {name} yet"));
            }
        }
        alarms.extend(self.nothing_alarm());
        alarms.extend(self.pause_alarm());
        alarms.extend(self.hold_alarm());
        alarms.extend(self.automatics_alarm());
        alarms.extend(self.in_vain_alarm());
        alarms.extend(self.ha_alarm());
        alarms.extend(self.enabling_alarms());
        alarms.extend(self.witness_alarms());
        alarms.extend(self.check_alarm());
        if self.path_down_told {
            alarms.push("only the path between the nodes is down; clients see both".to_owned());
        }
        alarms.extend(self.callers_alarm());
        alarms.extend(self.through_alarm());
        alarms.extend(self.settings_alarm());
        alarms
    }
}
