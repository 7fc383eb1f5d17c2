//! How high availability begins, at the operator's word or with the first start of a pair: both nodes look whether each can be
//! the other's standby, and are Normal when each has heard of the other that it can. Both are Initializing until then, and serve
//! their users as ever; a node that dies is taken over for. A check that fails is an alarm with its name.

use session_mover::driver::Driver;

use super::group::Check;
use super::{Node, Out, RegisterCopy};
use crate::beacon::{Checking, Turn};

/// The row that is shown meanwhile.
pub(super) const ROW: u32 = 132;
/// How often the shell is asked (1 s), in ticks.
const ASK_TICKS: u64 = 4;
/// A check that fails is told from then on (5 s), in ticks: a node that starts has yet to catch up.
const TELL_TICKS: u32 = 20;
/// A service that is down is acted on all the same from then on (10 s), in ticks.
const LASTS_TICKS: u32 = 40;

/// How far this node is.
#[derive(Debug, Default)]
pub(super) struct Enabling {
    /// High availability begins.
    now: bool,
    /// For so many ticks.
    age: u32,
    /// When the shell is asked next.
    ask_at: u64,
    /// What only the shell sees; `None`: it has not said yet.
    shell: Option<Vec<Check>>,
    /// Every check holds here.
    holds: bool,
    /// The first beacon that says so.
    said: Option<u32>,
    /// The peer has heard it.
    heard: bool,
}

impl Enabling {
    /// With the first start of a pair: nothing is on the disk, and high availability is on from the beginning.
    pub(super) fn at_start(single: bool, driver: &Driver, durable: &[Option<RegisterCopy>; 2]) -> Enabling {
        let fresh =
            durable.iter().all(Option::is_none) && driver.own_end().seq == 0 && driver.peer_end().seq == 0;
        let now = fresh && !single && driver.engine().state().group().ha;
        Enabling { now, ..Enabling::default() }
    }

    /// It begins now.
    pub(super) fn begin() -> Enabling {
        Enabling { now: true, ..Enabling::default() }
    }
}

impl Node {
    /// What this node tells the peer of it.
    pub(super) fn checking(&self) -> Checking {
        match (self.enabling.now, self.enabling.holds) {
            (false, _) => Checking::Not,
            (true, false) => Checking::Fails,
            (true, true) => Checking::Holds,
        }
    }

    /// High availability begins, as far as this node is concerned.
    pub(super) fn is_enabling(&self) -> bool {
        self.enabling.now
    }

    /// A check fails for so long, or at the peer alone: what else is to be done does not wait for that.
    pub(super) fn enabling_lasts(&self) -> bool {
        !self.enabling.now || self.enabling.age >= LASTS_TICKS
    }

    /// What the shell sees.
    pub(super) fn shell_checked(&mut self, checks: Vec<Check>) {
        if self.enabling.now {
            self.enabling.shell = Some(checks);
        }
    }

    /// A beacon with this number goes out.
    pub(super) fn enabling_said(&mut self, number: u32) {
        if self.enabling.holds {
            self.enabling.said.get_or_insert(number);
        }
    }

    /// The peer has heard beacons of this run up to this one.
    pub(super) fn enabling_heard(&mut self, number: u32) {
        self.enabling.heard |= self.enabling.said.is_some_and(|said| said <= number);
    }

    /// Looks, and ends it when the checks hold on both nodes and both know that. What was never shown is not over.
    pub(super) fn watch_enabling(&mut self, ticks: u16) {
        if !self.enabling.now {
            return;
        }
        self.enabling.age = self.enabling.age.saturating_add(u32::from(ticks.min(2)));
        if self.peer_up && self.ticks >= self.enabling.ask_at {
            self.enabling.ask_at = self.ticks + ASK_TICKS;
            self.outs.push(Out::Checks);
        }
        let holds = self.enabling.shell.is_some() && self.failing().is_empty();
        if holds != self.enabling.holds {
            (self.enabling.holds, self.enabling.said, self.enabling.heard) = (holds, None, false);
            self.beacon_due = Some(Turn::First);
        }
        let peer = self.peer_told();
        let peer_too = !peer.ha_off && peer.checking != Checking::Fails;
        let shown = self.shown().row.id != ROW || self.has_told(ROW);
        if holds && peer_too && self.enabling.heard && shown {
            self.enabling = Enabling::default();
            self.shows.look = true;
            // The other node shows what this one says.
            self.beacon_due = Some(Turn::First);
        }
    }

    /// The checks that fail and keep it from being over.
    fn failing(&self) -> Vec<Check> {
        let shell = self.enabling.shell.iter().flatten().cloned();
        self.ha_checks()
            .into_iter()
            .chain(shell)
            .filter(|check| check.stops && check.wrong.is_some())
            .collect()
    }

    /// For the operator.
    pub(super) fn enabling_alarms(&self) -> Vec<String> {
        if !self.enabling.now || self.enabling.age < TELL_TICKS {
            return Vec::new();
        }
        let failing = self.failing().into_iter().filter_map(|check| {
            let (error, hint) = check.wrong?;
            Some(format!("high availability has yet to begin: check of {}: {error}; {hint}", check.what))
        });
        let mut alarms: Vec<String> = failing.collect();
        if alarms.is_empty() && self.hears_peer() && self.peer_told().checking == Checking::Fails {
            let peer = &self.cfg.names[self.me.peer().index()];
            alarms
                .push(format!("high availability has yet to begin: a check of {peer} fails; see its alarms"));
        }
        alarms
    }
}
