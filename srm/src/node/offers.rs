//! What an operator may ask of this node now. What is offered and what is refused are decided in one place, so that nothing is
//! offered that is then refused, nor the other way round.

use presence_engine::ids::Mode;

use super::moves::refused;
use super::{By, Force, Node, Op, Reply};
use crate::view::{Cause, State};

/// What an operator may ask of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Hand its users to the peer.
    Failover,
    /// Hand the peer's users back to it.
    Fallback,
    /// End the failed mode of both nodes.
    Recover,
    /// Serve all users whatever the rules say.
    ForceActive,
    /// Serve nobody.
    ForceInactive,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 5] =
        [Action::Failover, Action::Fallback, Action::Recover, Action::ForceActive, Action::ForceInactive];

    /// The command.
    pub fn name(self) -> &'static str {
        match self {
            Action::Failover => "failover",
            Action::Fallback => "fallback",
            Action::Recover => "recover",
            Action::ForceActive => Force::Active.command(),
            Action::ForceInactive => Force::Inactive.command(),
        }
    }

    /// What an operator at this node asks for; of what is confirmed first, what it would mean.
    pub fn op(self) -> Op {
        match self {
            Action::Failover => Op::Failover(By::Here),
            Action::Fallback => Op::Fallback(By::Here),
            Action::Recover => Op::Recover,
            Action::ForceActive => Op::Force { to: Force::Active, confirmed: false },
            Action::ForceInactive => Op::Force { to: Force::Inactive, confirmed: false },
        }
    }

    /// Which of them an operator asks for; `None`: something else, or nobody asks.
    pub fn of(op: &Op) -> Option<Action> {
        match op {
            Op::Failover(By::Here | By::Peer) => Some(Action::Failover),
            Op::Fallback(By::Here | By::Peer) => Some(Action::Fallback),
            Op::Recover => Some(Action::Recover),
            Op::Force { to: Force::Active, .. } => Some(Action::ForceActive),
            Op::Force { to: Force::Inactive, .. } => Some(Action::ForceInactive),
            _ => None,
        }
    }
}

impl Node {
    /// Why this is not done now; `None`: it is, if it is asked for.
    pub(super) fn refuses(&self, action: Action) -> Option<Reply> {
        match action {
            Action::Failover => self.failover_refused(Cause::Operator),
            Action::Fallback => self.fallback_refused(),
            Action::Recover => self.recover_refused(),
            Action::ForceActive => self.force_active_refused(),
            Action::ForceInactive => self.force_inactive_refused(),
        }
    }

    /// What is done now if it is asked for.
    pub fn offers(&self) -> Vec<Action> {
        Action::ALL.into_iter().filter(|action| self.refuses(*action).is_none()).collect()
    }

    /// A check that fails keeps the operator from it, and not the users of a node that cannot serve them.
    pub(super) fn failover_refused(&self, cause: Cause) -> Option<Reply> {
        // A rebalance gives way.
        if self.moving.as_ref().is_some_and(|moving| !moving.is_rebalance()) {
            let hint = "wait until it is complete: see `tandem status`";
            return Some(refused("another move is under way", hint));
        }
        if self.cfg.single {
            return Some(refused("this group has one node", "add a second node first"));
        }
        let shown = self.shown();
        let (state, reason) = shown.states[self.me.index()];
        let needed = matches!(cause, Cause::Service | Cause::Database);
        let normal = shown.row.id == 1 || needed && self.is_home();
        if !self.both_normal() || !normal {
            let error =
                format!("failover is offered while both nodes are Normal; this node is {}", state.name());
            let action = shown.action(&self.cfg.names);
            let hint = if action.is_empty() { "wait until both nodes are Normal".to_owned() } else { action };
            return Some(refused(format!("{error} ({})", reason.name()), hint));
        }
        if self.peer_told().lacks_service {
            let error = format!("a critical service of {} is down", self.cfg.names[self.me.peer().index()]);
            return Some(refused(error, "start it first: `tandem service list`"));
        }
        None
    }

    fn fallback_refused(&self) -> Option<Reply> {
        if self.moving.is_some() {
            let hint = "wait until it is complete: see `tandem status`";
            return Some(refused("another move is under way", hint));
        }
        let shown = self.shown();
        let (state, reason) = shown.states[self.me.index()];
        if state == State::RunningInBackupMode && !self.peer_up {
            let error = format!("node {} is not heard", self.cfg.names[self.me.peer().index()]);
            return Some(refused(error, "start it, or repair the path between the nodes; then ask again"));
        }
        if state != State::RunningInBackupMode {
            let error =
                format!("fallback is offered from Running in Backup Mode; this node is {}", state.name());
            let action = shown.action(&self.cfg.names);
            let hint = if action.is_empty() { "nothing is to be moved back".to_owned() } else { action };
            return Some(refused(format!("{error} ({})", reason.name()), hint));
        }
        let home = self.me.peer();
        let reg = self.cores[home.index()].reg();
        if reg.mode != Mode::Pair || self.cores[self.me.index()].reg().mode != Mode::Pair {
            return Some(refused(
                "the node that users go back to has not caught up",
                "wait until it has: see `tandem status`",
            ));
        }
        None
    }

    fn recover_refused(&self) -> Option<Reply> {
        let peer = &self.cfg.names[self.me.peer().index()];
        if self.services.failed.is_none() {
            let (state, reason) = self.shown().states[self.me.index()];
            let error = format!(
                "recover is offered while both nodes run in failed mode; this node is {} ({})",
                state.name(),
                reason.name()
            );
            return Some(refused(error, "nothing is to be recovered: see `tandem status`"));
        }
        if !self.peer_up {
            let error = format!("node {peer} is not heard");
            return Some(refused(error, "start it, or repair the path between the nodes; then ask again"));
        }
        None
    }
}
