//! Failover and fallback at the operator's request, and leaving: paced hand-overs of one user after the other (D4).

use presence_engine::engine::Input;
use presence_engine::ids::{Away, Group, Mode, NodeIx};
use session_mover::driver::Link;
use session_mover::msg::Msg;
use xmpp_core::jid::BareJid;

use super::{Action, By, Disk, Force, GOODBYE, Node, Op, Out, Reply, STOPS};
use crate::beacon::{Activity, Held, Turn};
use crate::pause::Pause;
use crate::safety::{In, Role};
use crate::view::{Cause, Failure};

/// Users that are handed over in one turn.
pub(super) const BATCH: usize = 32;
/// How long leaving may take in all, in ticks (30 s).
const LEAVE_TICKS: u64 = 120;
/// How long leaving waits for parked streams, in ticks (2 s).
const LEAVE_PARK_TICKS: u64 = 8;

/// How long a move may stand still before it has failed, in ticks (60 s).
const STUCK_TICKS: u64 = 240;

/// How far a move is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Users that have moved.
    pub done: u64,
    /// Users that will.
    pub left: u64,
}

/// Why an action is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What is wrong.
    pub error: String,
    /// What the operator may do instead.
    pub hint: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Failover,
    Fallback,
    /// Everybody to the home node of our guests, because a service of this node is down.
    Recover,
    Leave,
    /// Some users get another home.
    Rebalance,
}

/// A move under way.
#[derive(Debug)]
pub(super) struct Moving {
    what: What,
    since: u64,
    pub(super) done: u64,
    pub(super) left: u64,
    /// `Absorb` was written with the log's end at this sequence number.
    absorbed: Option<u64>,
    cause: Cause,
    /// The node at which an operator asked for it.
    asked: Option<NodeIx>,
    /// The peer's run when it began.
    peer_boot: Option<u64>,
    marked: bool,
    /// The log's end when all was done: the peer must have it.
    closing: Option<u64>,
    /// The frame that the last batch of hand-overs is in.
    pub(super) batch: u64,
    /// Who is left and what is done, and the log's end when that was so last.
    pub(super) step: ((u64, bool, bool, bool), u64),
    /// How much of the log up to there was released and read when it was last seen to go on, and when.
    pub(super) seen: ((u64, u64), u64),
    /// For what it pauses.
    pub(super) paused: Option<Pause>,
}

impl Moving {
    pub(super) fn activity(&self) -> Activity {
        match self.what {
            What::Failover => Activity::FailingOver,
            What::Fallback => Activity::FallingBack,
            What::Recover => Activity::Recovering,
            What::Leave => Activity::Leaving,
            // Nobody is away from home.
            What::Rebalance => Activity::None,
        }
    }

    /// For the operator.
    pub(super) fn name(&self) -> &'static str {
        match self.what {
            What::Failover => "failover",
            What::Fallback | What::Recover => "fallback",
            What::Leave => "leaving",
            What::Rebalance => "rebalance",
        }
    }

    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    pub(super) fn asked(&self) -> Option<NodeIx> {
        self.asked
    }

    pub(super) fn peer_boot(&self) -> Option<u64> {
        self.peer_boot
    }

    /// Whether it can as well be made later: for neither node's trouble is it made worse.
    pub(super) fn can_wait(&self) -> bool {
        matches!(self.what, What::Failover | What::Fallback | What::Rebalance)
            && !matches!(self.cause, Cause::Service | Cause::Database | Cause::Clients)
    }

    /// Whether it waits for something, may only be made at a time of the day, and has moved nobody.
    pub(super) fn waits_for_a_window(&self) -> bool {
        let begun = self.marked || self.absorbed.is_some();
        self.what == What::Fallback && self.cause == Cause::Scheduled && self.paused.is_some() && !begun
    }

    pub(super) fn is_rebalance(&self) -> bool {
        self.what == What::Rebalance
    }

    pub(super) fn is_failover(&self) -> bool {
        self.what == What::Failover
    }

    /// Whether clients are waited for that have no parked stream yet: not by a node that cannot serve.
    fn may_wait(&self) -> bool {
        self.what != What::Leave && matches!(self.cause.of_table(), Cause::Operator | Cause::Automatic)
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { done: self.done, left: self.left }
    }
}

pub(super) fn refused(error: impl Into<String>, hint: impl Into<String>) -> Reply {
    Reply::Refused(Refused { error: error.into(), hint: hint.into() })
}

impl Node {
    pub(super) fn op(&mut self, number: u64, op: Op, disk: &mut dyn Disk) {
        let reply = match op {
            Op::UserAdd(..) | Op::UserPasswd(..) | Op::UserRemove(_) => match self.account_op(number, op) {
                Some(reply) => reply,
                None => return,
            },
            Op::Assign(user, home) => match self.assign_op(number, user, home) {
                Some(reply) => reply,
                None => return,
            },
            Op::Group(op) => match self.group_op(number, op) {
                Some(reply) => reply,
                None => return,
            },
            Op::Notice(id, stanza) => return self.notice(number, id, *stanza),
            Op::HaChecks => Reply::Checks(self.ha_checks()),
            Op::Rebalance => self.rebalance(),
            Op::Check => self.check_op(),
            Op::Failover(By::Rule) => self.fail_over_by_rule(),
            Op::Failover(by) => {
                let (cause, asked) = self.word_of(by);
                self.begin_failover(cause, asked)
            }
            Op::Recover => self.recover(),
            Op::Fallback(by) => {
                let (cause, asked) = self.word_of(by);
                self.begin_fallback(cause, asked)
            }
            Op::Force { to: Force::Active, confirmed } => self.force_active(confirmed, disk),
            Op::Force { to: Force::Inactive, confirmed } => self.force_inactive(confirmed, disk),
            Op::TakeBack => self.take_back(disk),
            Op::Restart => self.restart(),
            // Nobody takes over: there is nothing to be handed over.
            Op::Leave if !self.ha() || self.hears_peer() && self.peer_told().held != Held::No => {
                self.finish_leave();
                Reply::Done
            }
            Op::Leave => {
                self.begin(What::Leave, Cause::PeerReboot, None);
                Reply::Done
            }
        };
        self.outs.push(Out::Reply(number, reply));
    }

    /// Why, and where it was asked for.
    fn word_of(&self, by: By) -> (Cause, Option<NodeIx>) {
        match by {
            By::Here => (Cause::Operator, Some(self.me)),
            By::Peer => (Cause::Operator, Some(self.me.peer())),
            By::Rule => (Cause::Rule, None),
        }
    }

    fn begin(&mut self, what: What, cause: Cause, asked: Option<NodeIx>) {
        let (since, done, left, peer_boot) = (self.ticks, 0, 0, self.peer_boot);
        let (absorbed, marked, batch, closing, paused) = (None, false, 0, None, None);
        let (step, seen) = (Default::default(), ((0, 0), since));
        self.moving = Some(Moving {
            what,
            since,
            done,
            left,
            absorbed,
            cause,
            asked,
            peer_boot,
            marked,
            batch,
            closing,
            step,
            seen,
            paused,
        });
        self.shows.look = true;
        self.beacon_due = Some(Turn::First);
        if what == What::Leave {
            self.inbox.push(Input::Leaving);
            if self.link_up[Link::Out as usize] {
                // Before anybody that is handed over: who comes from here is not given back here.
                self.outs.push(Out::Link(Link::Out, Msg::Control(vec![STOPS].into())));
            }
        }
    }

    /// The peer hands everything over because it stops.
    pub(super) fn peer_stops(&mut self) {
        (self.peer_activity, self.shows.look) = (Activity::Leaving, true);
    }

    /// The peer has left, or is about to: it is given nobody (D4).
    pub(super) fn peer_leaves(&self) -> bool {
        self.peer_leaving || self.peer_activity == Activity::Leaving
    }

    /// Both nodes lead their own groups in Pair and hear each other.
    pub(super) fn both_normal(&self) -> bool {
        let pair = |g: NodeIx| {
            let reg = self.cores[g.index()].reg();
            reg.mode == Mode::Pair && reg.primary == g
        };
        pair(NodeIx::A) && pair(NodeIx::B) && self.peer_up && !self.peer_leaves()
    }

    pub(super) fn begin_rebalance(&mut self) {
        self.begin(What::Rebalance, Cause::Operator, None);
    }

    pub(super) fn begin_failover(&mut self, cause: Cause, asked: Option<NodeIx>) -> Reply {
        if let Some(refused) = self.failover_refused(cause) {
            return refused;
        }
        // What has another home already keeps it.
        self.begin(What::Failover, cause, asked);
        let users = self.driver.engine().state().users();
        let left = users.filter(|(_, u)| u.register == self.me).count() as u64;
        Reply::Begun(Progress { done: 0, left })
    }

    pub(super) fn begin_fallback(&mut self, cause: Cause, asked: Option<NodeIx>) -> Reply {
        if let Some(refused) = self.refuses(Action::Fallback) {
            return refused;
        }
        let home = self.me.peer();
        self.begin(What::Fallback, cause, asked);
        let left = self.driver.engine().state().users().filter(|(_, u)| u.home == home).count() as u64;
        Reply::Begun(Progress { done: 0, left })
    }

    /// Guests go home and own users with them: their home node is well, and this one is not.
    pub(super) fn begin_recovery(&mut self, cause: Cause) {
        self.begin(What::Recover, cause, None);
    }

    /// A move that can wait does not keep from the users what they need more: those that have moved have moved.
    pub(super) fn give_way(&mut self) {
        match self.moving.as_ref().map(|moving| moving.what) {
            Some(What::Rebalance) => self.end_rebalance(),
            Some(What::Fallback) if self.moving.as_ref().is_some_and(|m| m.paused.is_some()) => {
                self.abandon_move();
            }
            _ => {}
        }
    }

    /// The peer died, or is lost: what has moved has moved, what has not stays.
    pub(super) fn abandon_move(&mut self) {
        if self.moving.as_ref().is_some_and(|moving| moving.what != What::Leave) {
            self.moving = None;
            self.shows.look = true;
        }
    }

    /// The peer stops: it gets nobody any more. Whom it was given already it gives back with its own users, or leaves here when
    /// it goes.
    fn call_off(&mut self) {
        let marked = |moving: &Moving| moving.marked && matches!(moving.what, What::Failover | What::Recover);
        if self.moving.as_ref().is_some_and(marked) {
            self.inbox.push(Input::Away { group: self.me, why: None });
        }
        self.abandon_move();
    }

    /// Goes on with the move that is under way.
    pub(super) fn pump_moves(&mut self, disk: &mut dyn Disk) {
        let Some(moving) = &self.moving else { return };
        let what = moving.what;
        let age = self.ticks - moving.since;
        let leads = self.cores[self.me.index()].role() == Role::Primary;
        if what == What::Leave && (age > LEAVE_TICKS || !leads || !self.can_give()) {
            return self.finish_leave();
        }
        if what == What::Leave && self.me == NodeIx::B && self.peer_leaves() {
            // Two that stop would hand the same users to and fro: this one ends when the other has left everybody here.
            return;
        }
        let paused = self.pauses();
        if what != What::Leave && !self.peer_up && age > 8 {
            // One that is restarted is waited for.
            return;
        }
        if what == What::Rebalance {
            return self.pump_rebalance(age, u64::from(self.cfg.park_wait), paused);
        }
        if what != What::Leave && self.peer_leaves() {
            return self.call_off();
        }
        if self.is_stuck() {
            return self.fail(if what == What::Fallback { Failure::TakeBack } else { Failure::TakeOver });
        }
        if what == What::Fallback && self.home_must_start() {
            return;
        }
        if paused && self.moving.as_ref().is_some_and(|moving| !moving.marked) {
            return;
        }
        if matches!(what, What::Fallback | What::Recover | What::Leave) && !self.give_register_back(disk) {
            return;
        }
        self.mark(what);
        self.hand_over_batch(what, age, paused);
    }

    /// Nothing has gone on for a minute although the peer is there and no client is waited for.
    fn is_stuck(&mut self) -> bool {
        let (ticks, park_wait) = (self.ticks, u64::from(self.cfg.park_wait));
        let (released, acked) = (self.driver.released(), self.driver.acked());
        let end = self.driver.own_end().seq;
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.what != What::Leave) else {
            return false;
        };
        let step = (moving.left, moving.marked, moving.absorbed.is_some(), moving.closing.is_some());
        if moving.step.0 != step {
            moving.step = (step, end + 1);
            moving.seen.1 = ticks;
        }
        // What the other node has yet to read goes before the step. What clients have written since is no progress of a move.
        let seen = (released.min(moving.step.1), acked.min(moving.step.1));
        if moving.seen.0 != seen || !self.peer_up {
            moving.seen = (seen, ticks);
        }
        let patience = STUCK_TICKS + if moving.may_wait() { park_wait } else { LEAVE_PARK_TICKS };
        ticks - moving.seen.1 >= patience
    }

    /// The other node can be given users: it leads its register and serves, in Pair, and we hold ours in Pair.
    fn can_give(&self) -> bool {
        let pair = |g: Group| self.cores[g.index()].reg().mode == Mode::Pair;
        let serves = self.peer_told().held == Held::No;
        serves && self.peer_up && !self.peer_leaving && pair(NodeIx::A) && pair(NodeIx::B)
    }

    /// After a takeover: the peer's users into our register, if we lead that, then their register to its home node; `true` when
    /// the peer leads it and its log has told us so.
    fn give_register_back(&mut self, disk: &mut dyn Disk) -> bool {
        let home = self.me.peer();
        if self.cores[home.index()].reg().primary == self.me {
            if self.cores[self.me.index()].reg().primary == home {
                // Each serves the other's users: there is no register of our own that they could move into first.
                self.feed(home, In::GiveBack, disk);
                return false;
            }
            let (absorbed, end) = (self.moving.as_ref().and_then(|m| m.absorbed), self.driver.own_end().seq);
            if absorbed.is_some_and(|at| self.driver.released() < at || self.driver.acked() < at) {
                return false;
            }
            let left = self.driver.engine().state().users().any(|(_, u)| u.register == home);
            if absorbed.is_some() && !left {
                self.feed(home, In::GiveBack, disk);
            } else if let Some(moving) = &mut self.moving {
                // For the first time, or somebody was added meanwhile: that is no progress.
                moving.absorbed = Some(end + 1);
                if !self.loses_moves {
                    self.inbox.push(Input::Absorb { from: home });
                }
            }
            return false;
        }
        self.driver.engine().state().lead(home).is_some_and(|reg| reg.primary == home)
    }

    /// The mark "failed over at the operator's request" is set first and taken away last.
    fn mark(&mut self, what: What) {
        let me = self.me;
        if let Some(moving) = self.moving.as_mut().filter(|m| !m.marked) {
            moving.marked = true;
            let why = match moving.cause {
                Cause::Service | Cause::Clients => Away::Service,
                Cause::Database => Away::Database,
                _ => Away::Operator,
            };
            if matches!(what, What::Failover | What::Recover) {
                self.inbox.push(Input::Away { group: me, why: Some(why) });
            }
        }
    }

    /// The next users; if the move pauses, none, but if there are none left it comes to its end.
    fn hand_over_batch(&mut self, what: What, age: u64, paused: bool) {
        // Paced by what is safe: the next batch when the last one has left.
        let end = self.driver.own_end().seq;
        if self.moving.as_ref().is_some_and(|m| self.driver.released() < m.batch) {
            return;
        }
        let engine = self.driver.engine();
        let (me, peer) = (self.me, self.me.peer());
        let goes = |home: NodeIx| what != What::Fallback || home == peer;
        let waits = self.moving.as_ref().is_some_and(Moving::may_wait);
        let patience = if waits { u64::from(self.cfg.park_wait) } else { LEAVE_PARK_TICKS };
        let mut left = 0;
        let mut ready: Vec<BareJid> = Vec::new();
        for (user, _) in engine.state().users().filter(|(_, u)| u.register == me && goes(u.home)) {
            left += 1;
            if ready.len() < BATCH && (age > patience || engine.ready_to_move(user)) {
                ready.push(user.clone());
            }
        }
        if let Some(moving) = &mut self.moving {
            moving.done += moving.left.saturating_sub(left);
            moving.left = left;
        }
        if left == 0 {
            return self.finish_move(what);
        }
        if !ready.is_empty() && !paused {
            if let Some(moving) = &mut self.moving {
                moving.batch = end + 1;
            }
            if !self.loses_moves {
                self.inbox.extend(ready.into_iter().map(|user| Input::HandOver { user }));
            }
        }
    }

    /// A fault for tests: what hands users over is lost between this node and its engine. Whatever is known to stand in the way
    /// of a move makes it pause, and is an alarm; that users do not move all the same (rows 19 and 20) needs an error within.
    pub fn lose_moves(&mut self, lose: bool) {
        self.loses_moves = lose;
    }

    fn finish_move(&mut self, what: What) {
        if what == What::Leave {
            return self.finish_leave();
        }
        // It is complete when its mark is, too: until then the log says something else than is so.
        let state = self.driver.engine().state();
        if what != What::Fallback && state.away(self.me).is_none() {
            return;
        }
        let end = self.driver.own_end().seq;
        let unmark = what != What::Failover && state.away(self.me.peer()).is_some();
        let Some(moving) = &mut self.moving else { return };
        if unmark {
            self.inbox.push(Input::Away { group: self.me.peer(), why: None });
            moving.batch = end + 1;
            return;
        }
        // And the peer has read so, before it hears that nothing is moved any more.
        if self.driver.acked() < *moving.closing.get_or_insert(end) {
            return;
        }
        self.moving = None;
        self.beacon_due = Some(Turn::First);
        self.shows.look = true;
    }

    /// Whether the other node serves, or will, whoever is served here: by a hand-over, or because it leads already.
    pub(super) fn is_taken_over(&self) -> bool {
        let alone = |g: Group| {
            let core = &self.cores[g.index()];
            core.role() == Role::Primary && core.reg().mode != Mode::Pair
        };
        let there = self.peer_up && !self.peer_leaving && self.peer_told().held == Held::No;
        !self.cfg.single && self.ha() && there && !NodeIx::BOTH.into_iter().any(alone)
    }

    fn finish_leave(&mut self) {
        if !self.is_taken_over() {
            self.outs.push(Out::Shut);
        }
        self.moving = None;
        self.outs.push(Out::Link(Link::Out, Msg::Control(vec![GOODBYE].into())));
        self.outs.push(Out::Leave);
    }
}
