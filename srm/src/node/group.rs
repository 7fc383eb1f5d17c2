//! The presence redundancy group at the operator's request: its name, high availability, and which node each user is
//! assigned to.

#[cfg(test)]
mod tests;

use presence_engine::engine::Input;
use presence_engine::ids::{Group, Mode, NodeIx};
use presence_engine::state::{GroupInfo, User};
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use super::automatic::SETTINGS_DIFFER;
use super::enabling::Enabling;
use super::moves::{BATCH, refused};
use super::{Disk, Event, Node, Out, Progress, Refused, Reply};
use crate::beacon::Activity;
use crate::config::Assignment;
use crate::safety::{Consent, In, RegisterKind, Role};
use crate::view::{Ha, Place, State};

/// The check of critical services.
pub const SERVICES: &str = "critical services";
/// The check of clusterwide settings, and what is to be done if it fails.
const SETTINGS: &str = "configuration";
const MAKE_EQUAL: &str = "`tandem status` says where; make them equal with `tandem config set`";
/// Longest name and description, in characters.
const LONGEST: usize = 128;
/// The nodes may say different things of the group for so long (30 s), in ticks: one that starts has yet to read it.
const DIFFER_TICKS: u32 = 120;

/// What operators ask of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOp {
    /// There is none yet.
    Create {
        /// Its name.
        name: String,
        /// What is said of it.
        description: String,
    },
    /// Other words for it; `None`: as it is.
    Edit {
        /// Its name.
        name: Option<String>,
        /// What is said of it.
        description: Option<String>,
    },
    /// No group any more.
    Delete,
    /// High availability; a node that is failed over keeps its state only if `force` says so.
    Ha {
        /// On or off.
        on: bool,
        /// Off although users are not at home.
        force: bool,
    },
}

/// What was looked at before high availability is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What is wrong and what to do; `None`: it is well.
    pub wrong: Option<(String, String)>,
    /// Whether it keeps high availability off.
    pub stops: bool,
}

impl Check {
    /// What is well, or not: what is wrong, and what to do.
    pub fn new(what: &'static str, well: bool, wrong: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { what, wrong: (!well).then(|| (wrong.into(), hint.into())), stops: true }
    }
}

/// What an operator waits for.
#[derive(Debug)]
enum Wanted {
    Group(GroupInfo),
    Assigned(BareJid, Option<NodeIx>),
}

/// What is asked and not answered yet, and what is known of the group.
#[derive(Debug)]
pub(super) struct Changes {
    /// The frame that must be safe, the question, and what then must be so.
    waiting: Vec<(u64, u64, Wanted)>,
    /// As it was last told.
    ha: bool,
    /// For how many ticks the peer has said something else.
    differs: u32,
}

impl Changes {
    /// Of a run that starts with high availability on, or off: that is no news.
    pub(super) fn new(ha: bool) -> Changes {
        Changes { waiting: Vec::new(), ha, differs: 0 }
    }
}

impl Node {
    /// High availability is on: each node takes over its peer's users. In a group of one there is nobody to do so.
    pub(super) fn ha(&self) -> bool {
        self.driver.engine().state().group().ha
    }

    /// Why a node does not start whose configuration names no other: its disk says that another may serve the same users.
    pub fn refused_alone(&self) -> Option<Refused> {
        if self.driver.peer_end().seq == 0 {
            return None;
        }
        let state = self.driver.engine().state();
        let (me, other) = (&self.cfg.names[self.me.index()], self.me.peer());
        let away = |u: &User| u.home == self.me && state.owner(u) == Some(other);
        let away = state.users().filter(|(_, u)| away(u)).count();
        let theirs = state.users().filter(|(_, u)| u.assigned && u.home == other).count();
        let (error, hint) = if self.ha() {
            ("high availability is on".to_owned(), "begin with `tandem ha disable`".to_owned())
        } else if away > 0 {
            let error = format!("{away} users of this node are served by the other");
            (error, format!("begin with `tandem fallback {me}`"))
        } else if theirs > 0 {
            let hint = format!(
                "assign all to this one while both nodes are Normal: `tandem config set srm.user_assignment_mode \
                 active-standby` and `tandem rebalance`, or `tandem assign USER {me}` for each; if the other is lost, give its \
                 files to a new machine first, and let that catch up"
            );
            (format!("{theirs} users are assigned to the other node"), hint)
        } else {
            return None;
        };
        Some(Refused { error, hint: format!("to go on without it for good, {hint}") })
    }

    /// As the table of states has it. Users that are served by the backup are shown so, even without high availability.
    pub(super) fn ha_shown(&self, place: Place) -> Ha {
        match self.ha() {
            _ if self.cfg.single => Ha::Single,
            _ if self.changes.differs >= DIFFER_TICKS => Ha::Improper,
            false if place == Place::AtHome => Ha::Disabled,
            true if self.begins_shown() => Ha::Begins,
            _ => Ha::Enabled,
        }
    }

    /// Whether this group's users are not taken over by this node: only the operator has a say.
    pub(super) fn leaves_alone(&self, group: Group) -> bool {
        !self.ha() && self.cores[group.index()].reg().primary != self.me
    }

    /// Without high availability and without a witness the own users are served on whatever becomes of the peer, which
    /// takes nobody over.
    pub(super) fn serve_own(&mut self, disk: &mut dyn Disk) {
        let (me, g) = (self.me, self.me.index());
        let lost = self.evidence.gone().is_some() || self.evidence.init_timeout();
        let strict = self.cfg.register == RegisterKind::Consent(Consent { available: false });
        let core = &self.cores[g];
        let waits = core.starting()
            || self.driver.lacks_own()
            || self.driver.is_behind()
            || core.conflict()
            || core.held();
        if !self.ha() && strict && lost && !waits && core.role() == Role::Fenced && core.reg().primary == me {
            self.feed(me, In::ForceActive { overrule: false }, disk);
        }
    }

    /// A reply, or none yet: then it comes when the change is safe.
    pub(super) fn group_op(&mut self, number: u64, op: GroupOp) -> Option<Reply> {
        let now = self.driver.engine().state().group().clone();
        let there = !now.name.is_empty();
        let change = match op {
            GroupOp::Create { .. } if there => {
                let error =
                    format!("the nodes are in the group {}, and a node is in one group only", now.name);
                return Some(refused(error, "use `tandem group edit`, or delete it first"));
            }
            // Clocks, of which the group must have the same, are the shell's to be looked at.
            GroupOp::Create { .. } if !self.same_settings() => {
                return Some(refused(format!("check of {SETTINGS}: {SETTINGS_DIFFER}"), MAKE_EQUAL));
            }
            GroupOp::Create { name, description } => {
                GroupInfo { name: name.into(), description: description.into(), ha: false, ..now.clone() }
            }
            _ if !there => {
                return Some(refused("the nodes are in no group", "make one: `tandem group create NAME`"));
            }
            GroupOp::Edit { name, description } => GroupInfo {
                name: name.map_or_else(|| now.name.clone(), Into::into),
                description: description.map_or_else(|| now.description.clone(), Into::into),
                ..now.clone()
            },
            GroupOp::Delete => match self.delete_refused(&now) {
                Some(reply) => return Some(reply),
                None => GroupInfo { name: "".into(), description: "".into(), ..now.clone() },
            },
            GroupOp::Ha { on: true, .. } => {
                let failed = self.ha_checks().into_iter().find(|check| check.stops && check.wrong.is_some());
                if let Some((what, (error, hint))) = failed.and_then(|c| Some((c.what, c.wrong?))) {
                    return Some(refused(format!("check of {what}: {error}"), hint));
                }
                GroupInfo { ha: true, ..now.clone() }
            }
            GroupOp::Ha { on: false, force } => match self.disable_refused(force) {
                Some(reply) => return Some(reply),
                None => GroupInfo { ha: false, ..now.clone() },
            },
        };
        if let Some(reply) = words_refused(&change) {
            return Some(reply);
        }
        if change == now {
            return Some(Reply::Done);
        }
        if !self.serving[self.me.index()] {
            if self.peer_up {
                return Some(Reply::NotHere);
            }
            let error = "this node serves nobody now, and writes nothing down";
            return Some(refused(error, "see `tandem status`; ask again when its users are served"));
        }
        let change = GroupInfo { number: now.number + 1, by: self.me, ..change };
        self.inbox.push(Input::Group(change.clone()));
        self.wait_for(number, Wanted::Group(change));
        None
    }

    fn delete_refused(&self, now: &GroupInfo) -> Option<Reply> {
        if now.ha && !self.cfg.single {
            let error = "high availability is enabled for this group";
            return Some(refused(error, "disable it first: `tandem ha disable`"));
        }
        if !self.cfg.single && !self.is_at_rest() {
            let error = "users are not at home, or on their way";
            return Some(refused(error, "do a fallback first: see `tandem status`"));
        }
        let assigned = self.driver.engine().state().users().filter(|(_, u)| u.assigned).count();
        (assigned > 0).then(|| {
            let error = format!("{assigned} users are assigned to nodes of this group");
            refused(error, "unassign them first: `tandem assign USER --none`")
        })
    }

    fn disable_refused(&self, force: bool) -> Option<Reply> {
        if self.cfg.single {
            return Some(refused("this group has one node", "there is no high availability to be disabled"));
        }
        // Who waits for the operator is not on the way: that may last.
        if self.is_moving_but(|place| place == Place::Held) {
            return Some(refused("users are on their way", "wait until they have arrived: `tandem status`"));
        }
        // A home node that waits for the operator is shown as that, whoever serves its users.
        let state = self.driver.engine().state();
        let is_away = |g: NodeIx| state.away(g).is_some() || self.facts(g).place == Place::AtBackup;
        let away = NodeIx::BOTH.into_iter().any(is_away);
        (away && !force).then(|| {
            refused(
                "users are served by their backup",
                "do a fallback first; or `tandem ha disable --force`: they stay there until a fallback",
            )
        })
    }

    fn is_moving(&self) -> bool {
        self.is_moving_but(|_| false)
    }

    fn is_moving_but(&self, rests: impl Fn(Place) -> bool) -> bool {
        let on_their_way = |g: &NodeIx| {
            let place = self.facts(*g).place;
            !matches!(place, Place::AtHome | Place::AtBackup | Place::Nobody | Place::Waiting)
                && !rests(place)
        };
        self.moving.is_some() || self.peer_activity != Activity::None || NodeIx::BOTH.iter().any(on_their_way)
    }

    /// Each node serves its own users, and both are heard; nobody is on the way.
    fn is_at_rest(&self) -> bool {
        matches!(self.shown().row.id, 1 | 122) && self.both_normal() && !self.is_moving()
    }

    /// What is looked at before high availability is enabled; versions and clocks are the shell's.
    pub(super) fn ha_checks(&self) -> Vec<Check> {
        let peer = &self.cfg.names[self.me.peer().index()];
        let pair = self.cores.iter().all(|core| core.reg().mode == Mode::Pair);
        let whole = !self.driver.is_behind() && !self.driver.lacks_own();
        let same = self.same_settings();
        let mut services = Check::new(
            SERVICES,
            !self.lacks_service() && !self.peer_told().lacks_service,
            "critical services are down; after the delay their node fails over, or, if they are down on both, both run in \
             failed mode",
            "start them: `tandem service list`",
        );
        services.stops = false;
        vec![
            Check::new(
                "nodes",
                !self.cfg.single,
                "this group has one node",
                "add a second one, see docs/operations.md",
            ),
            Check::new(
                "connection",
                self.peer_up,
                format!("node {peer} is not heard"),
                "start it, or repair the path between the nodes",
            ),
            Check::new(
                "replication",
                pair && whole,
                format!("{peer} does not hold everything yet"),
                "wait until it has caught up: see `tandem status`",
            ),
            Check::new(SETTINGS, same, SETTINGS_DIFFER, MAKE_EQUAL),
            services,
        ]
    }

    /// Gives a user another home, or none.
    pub(super) fn assign_op(&mut self, number: u64, user: BareJid, home: Option<NodeIx>) -> Option<Reply> {
        if let Some(reply) = self.accounts_stopped().or_else(|| self.not_at_rest("users are assigned")) {
            return Some(reply);
        }
        let Some(u) = self.driver.engine().state().user(&user) else {
            return Some(refused(format!("there is no account {user}"), "see `tandem user list`"));
        };
        if home.map_or(!u.assigned, |home| u.assigned && u.home == home) {
            return Some(Reply::Done);
        }
        if self.cfg.single && home.is_some_and(|home| home != self.me) {
            return Some(refused("this group has one node", "assign users to that"));
        }
        if u.register != self.me && !self.cfg.single {
            return Some(Reply::NotHere);
        }
        if u.register != self.me {
            if !self.serving.iter().all(|serving| *serving) {
                return Some(refused("this node does not serve yet", "it is starting: try again"));
            }
            // It was left with a node that is no peer any more. What was that one's is led here, and comes into the own register.
            self.inbox.push(Input::Absorb { from: self.me.peer() });
        }
        // A paced move would pause for it; one user would be served by nobody meanwhile.
        if home == Some(self.me.peer()) && self.peer_told().lacks_service {
            return Some(Reply::Lacks(self.me.peer()));
        }
        self.inbox.push(Input::Assign { user: user.clone(), home });
        self.wait_for(number, Wanted::Assigned(user, home));
        None
    }

    fn not_at_rest(&self, what: &str) -> Option<Reply> {
        if self.cfg.single || self.is_at_rest() {
            return None;
        }
        let (state, reason) = self.shown().states[self.me.index()];
        let error = format!(
            "{what} while both nodes are Normal and nobody is on the way; this node is {} ({})",
            state.name(),
            reason.name()
        );
        let action = self.shown().action(&self.cfg.names);
        let first = if action.is_empty() { "see `tandem status`".to_owned() } else { action };
        Some(refused(error, format!("{first}; then ask again")))
    }

    /// Moves users until each node has its share.
    pub(super) fn rebalance(&mut self) -> Reply {
        if self.cfg.single {
            return refused("this group has one node", "there is nothing to be balanced");
        }
        if let Some(reply) = self.not_at_rest("users are balanced") {
            return reply;
        }
        if self.cfg.automatics.assignment == Assignment::None {
            let hint = "assign each: `tandem assign USER NODE`; or set [srm] user_assignment_mode";
            return refused("users are assigned by the operator (user_assignment_mode = \"none\")", hint);
        }
        match self.surplus(self.me) {
            0 if self.surplus(self.me.peer()) > 0 => Reply::NotHere,
            left => {
                self.begin_rebalance();
                Reply::Begun(Progress { done: 0, left: left as u64 })
            }
        }
    }

    /// How many users a node has more than its share.
    fn surplus(&self, node: NodeIx) -> usize {
        let state = self.driver.engine().state();
        let homed = |n: NodeIx| state.users().filter(|(_, u)| u.assigned && u.home == n).count();
        match self.cfg.automatics.assignment {
            Assignment::Balanced => homed(node).saturating_sub(homed(node.peer())) / 2,
            Assignment::ActiveStandby if node == NodeIx::B => homed(node),
            _ => 0,
        }
    }

    /// The next users of a rebalance: those whom nobody is logged in as first, then those whose clients can follow at
    /// once, and the others after `patience` ticks.
    pub(super) fn pump_rebalance(&mut self, age: u64, patience: u64, paused: bool) {
        if !self.is_at_rest_but_for_this() {
            return self.end_rebalance();
        }
        if paused {
            return;
        }
        let end = self.driver.own_end().seq;
        if self.moving.as_ref().is_some_and(|m| self.driver.released() < m.batch) {
            return;
        }
        let left = self.surplus(self.me);
        let (me, engine) = (self.me, self.driver.engine());
        let mine = || engine.state().users().filter(|(_, u)| u.assigned && u.home == me && u.register == me);
        let (alone, used): (Vec<_>, Vec<_>) = mine().partition(|(_, u)| u.sessions.is_empty());
        let follow = used.into_iter().filter(|(user, _)| age > patience || engine.ready_to_move(user));
        let next = alone.into_iter().chain(follow).take(left.min(BATCH));
        let next: Vec<BareJid> = next.map(|(user, _)| user.clone()).collect();
        let Some(moving) = &mut self.moving else { return };
        moving.done += moving.left.saturating_sub(left as u64);
        moving.left = left as u64;
        if left == 0 {
            return self.end_rebalance();
        }
        if !next.is_empty() {
            moving.batch = end + 1;
            let home = Some(me.peer());
            self.inbox.extend(next.into_iter().map(|user| Input::Assign { user, home }));
        }
    }

    fn is_at_rest_but_for_this(&self) -> bool {
        let at_home = |g: &NodeIx| self.facts(*g).place == Place::AtHome;
        self.both_normal() && self.peer_activity == Activity::None && NodeIx::BOTH.iter().all(at_home)
    }

    pub(super) fn end_rebalance(&mut self) {
        if let Some(moving) = self.moving.take() {
            self.outs.push(Out::Event(Event::Rebalanced(moving.progress())));
        }
    }

    fn wait_for(&mut self, number: u64, wanted: Wanted) {
        self.changes.waiting.push((self.driver.own_end().seq + 1, number, wanted));
    }

    /// Answers what has become safe, and says when high availability was switched.
    pub(super) fn watch_changes(&mut self) {
        let released = self.driver.released();
        let state = self.driver.engine().state();
        let mut replies = Vec::new();
        self.changes.waiting.retain(|(at, number, wanted)| {
            if released < *at {
                return true;
            }
            let done = match wanted {
                Wanted::Group(group) => state.group() == group,
                Wanted::Assigned(user, home) => state
                    .user(user)
                    .is_some_and(|u| home.map_or(!u.assigned, |home| u.assigned && u.home == home)),
            };
            let reply = if done { Reply::Done } else { overtaken() };
            replies.push(Out::Reply(*number, reply));
            false
        });
        self.outs.extend(replies);
        let ha = self.ha();
        if std::mem::replace(&mut self.changes.ha, ha) != ha {
            self.shows.look = true;
            self.beacon_due = Some(crate::beacon::Turn::First);
            self.enabling = if ha { Enabling::begin() } else { Enabling::default() };
            if !ha {
                self.forget_failure();
            }
            self.outs.push(Out::Event(Event::Ha(ha)));
        }
    }

    /// Whether the peer says something else of the group for longer than its log is on the way.
    pub(super) fn watch_agreement(&mut self, ticks: u16) {
        let differs = self.hears_peer() && self.peer_told().ha_off == self.ha();
        let so_far = if differs { self.changes.differs } else { 0 };
        self.changes.differs = so_far.saturating_add(if differs { u32::from(ticks.min(2)) } else { 0 });
    }

    /// The state was built anew: what is in it nobody here can say.
    pub(super) fn forget_group_changes(&mut self) {
        for (_, number, _) in std::mem::take(&mut self.changes.waiting) {
            self.outs.push(Out::Reply(number, overtaken()));
        }
    }

    /// For the operator.
    pub(super) fn ha_alarm(&self) -> Option<String> {
        let name = &self.driver.engine().state().group().name;
        (!self.cfg.single && !self.ha()).then(|| {
            format!(
                "high availability is not enabled for the group {name:?}: if a node dies, its users wait for it (`tandem ha \
                 enable`)"
            )
        })
    }

    /// The home of an account that is added, and whether it is assigned to it.
    pub(super) fn home_to_give(&self, home: Option<NodeIx>) -> (NodeIx, bool) {
        let state = self.driver.engine().state();
        let homed = |n: NodeIx| state.users().filter(|(_, u)| u.assigned && u.home == n).count();
        match (home, self.cfg.automatics.assignment) {
            (Some(home), _) => (home, true),
            (None, Assignment::None) => (self.me, false),
            (None, _) if self.cfg.single => (self.me, true),
            (None, Assignment::ActiveStandby) => (NodeIx::A, true),
            (None, Assignment::Balanced) if homed(NodeIx::A) <= homed(NodeIx::B) => (NodeIx::A, true),
            (None, Assignment::Balanced) => (NodeIx::B, true),
        }
    }

    /// Whether accounts are added in this state.
    pub(super) fn adds_accounts(&self) -> Result<(), State> {
        let (state, _) = self.shown().states[self.me.index()];
        if state.lets_users_be_added() || self.cfg.automatics.add_users { Ok(()) } else { Err(state) }
    }
}

fn overtaken() -> Reply {
    refused("the change was overtaken by another", "look at `tandem group show`, and ask again")
}

/// What cannot be the name or the description of a group.
fn words_refused(group: &GroupInfo) -> Option<Reply> {
    let (name, description) = (&group.name, &group.description);
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.chars().count() > LONGEST || !name.chars().all(known) {
        let error = format!("{name:?} cannot be the name of a group");
        return Some(refused(error, "1 to 128 of the letters A to Z and a to z, digits, _ and -"));
    }
    if description.chars().count() > LONGEST || description.contains(['"', '%', '&', '/', '\\', '<', '>']) {
        let error = "the description cannot be taken".to_owned();
        return Some(refused(error, "at most 128 characters, none of \" % & / \\ < >"));
    }
    None
}
