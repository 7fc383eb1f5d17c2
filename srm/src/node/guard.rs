//! The flap guard: so many failovers of a node an hour that no operator asked for, then an alarm and no more by itself. It
//! outlives the process: a node that ends and begins anew counts on. Kept beside it is whether the peer's users went back in vain.

use serde::{Deserialize, Serialize};

use super::automatic::{IN_VAIN_TICKS, SETTINGS_DIFFER};
use super::moves::refused;
use super::{Disk, Node, Reply};
use crate::view::{Cause, Place};

/// For how long a failover counts, in milliseconds (an hour).
const COUNTS_MS: u64 = 3_600_000;
/// Milliseconds of a tick.
const TICK_MS: u64 = 250;
/// For how long it is soon after users went back by themselves, in milliseconds.
const SOON_MS: u64 = IN_VAIN_TICKS * TICK_MS;
/// More than may be set are not there: the file was changed by somebody else.
const MOST: usize = 60;

/// The failovers that count, and what came of the last fallback, as a disk keeps them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failovers {
    /// When this was so, in milliseconds since 1970.
    pub at_ms: u64,
    /// For how much longer each counts, in milliseconds.
    pub left_ms: Vec<u64>,
    /// The peer's users went back by themselves: for how much longer it is soon after that, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soon_ms: Option<u64>,
    /// They did in vain, and wait for the operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_vain: bool,
}

impl Failovers {
    /// What is left of it at this time, when so much has passed. Whatever a clock says, none counts for longer than an hour
    /// from then on, and nothing is soon after a fallback for longer than an hour and a half. Who waits for the operator waits on.
    #[must_use]
    pub fn after(&self, passed_ms: u64, now_ms: u64) -> Failovers {
        let left = |ms: u64, most: u64| Some(ms.saturating_sub(passed_ms).min(most)).filter(|left| *left > 0);
        let left_ms = self.left_ms.iter().filter_map(|ms| left(*ms, COUNTS_MS)).take(MOST).collect();
        let soon_ms = self.soon_ms.and_then(|ms| left(ms, SOON_MS));
        Failovers { at_ms: now_ms, left_ms, soon_ms, in_vain: self.in_vain }
    }
}

/// What the guard knows.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Until which tick each failover counts that no operator asked for.
    until: Vec<u64>,
    /// The disk does not know of that yet.
    unkept: bool,
    /// One more, for a service, is held back.
    service: bool,
    /// One more, by a rule or for clients that wait at the other node, was held back.
    rule: bool,
}

impl Node {
    /// What counts at the start.
    pub fn remember_failovers(&mut self, failovers: &Failovers) {
        let now = self.ticks;
        let until = |left: &u64| now + left.div_ceil(TICK_MS);
        self.guard.until = failovers.left_ms.iter().map(until).collect();
        self.automatic.remember(failovers.soon_ms.as_ref().map(until), failovers.in_vain);
    }

    /// Counts for how long there were too many. `overdue`: a service is down for too long.
    pub(super) fn watch_guard(&mut self, overdue: bool) {
        let (now, known) = (self.ticks, self.guard.until.len());
        self.guard.until.retain(|until| now < *until);
        // What is over is over, whatever the clock will say at the next start.
        self.guard.unkept |= self.guard.until.len() < known;
        self.guard.service &= overdue;
        if self.guard.rule {
            self.guard.rule = self.guard_holds() && self.facts(self.me).place == Place::AtHome;
        }
    }

    /// A failover that has begun is on the disk before anybody hears of it, and so is that users went back in vain.
    pub(super) fn keep_failovers(&mut self, disk: &mut dyn Disk) {
        let moved = self.automatic.take_unkept();
        if std::mem::take(&mut self.guard.unkept) || moved {
            let now = self.ticks;
            let left = |until: &u64| until.saturating_sub(now) * TICK_MS;
            let left_ms = self.guard.until.iter().map(left).collect();
            let (soon_until, in_vain) = self.automatic.kept();
            let soon_ms = soon_until.as_ref().map(left);
            disk.keep_failovers(&Failovers { at_ms: self.now_ms, left_ms, soon_ms, in_vain });
        }
    }

    /// Enough failovers of this node have begun within the hour that no operator asked for.
    pub(super) fn guard_holds(&self) -> bool {
        self.guard.until.len() >= self.cfg.automatics.failovers_per_hour as usize
    }

    /// One that no operator asks for: there are so many an hour, whatever brings them about.
    pub(super) fn begin_guarded(&mut self, cause: Cause) -> Reply {
        if let Some(refused) = self.failover_refused(cause) {
            return refused;
        }
        let held = self.guard_holds();
        match cause {
            Cause::Rule | Cause::Clients => self.guard.rule = held,
            _ => self.guard.service = held,
        }
        if held {
            let (error, hint) = self.guard_says();
            return refused(error, hint);
        }
        self.guard.until.push(self.ticks + COUNTS_MS / TICK_MS);
        self.guard.unkept = true;
        self.begin_failover(cause, None)
    }

    /// A rule of the operator fits to an event.
    pub(super) fn fail_over_by_rule(&mut self) -> Reply {
        if self.disarmed() {
            return refused(SETTINGS_DIFFER, "make them equal with `tandem config set`");
        }
        if self.cfg.automatics.disabled {
            let error = "automatic failover and fallback are disabled";
            return refused(error, "unset [srm] disable_automatics, or do a failover by hand");
        }
        self.begin_guarded(Cause::Rule)
    }

    /// The peer says that this node answers none of its clients that wait there. Not while something is known to hold the
    /// answers back that a hand-over would wait for too, not to a peer that answers nobody either, not while it does answer
    /// somebody, and not for what the operator stopped.
    pub(super) fn fail_over_for_clients(&mut self) {
        let waits = self.stops(true, Cause::Clients).is_some() || self.callers_alarm().is_some();
        if !self.would_fail_over() || waits {
            return;
        }
        match self.keeps_users() {
            Some(why) => self.tell_that_it_keeps_users(why),
            None => _ = self.begin_guarded(Cause::Clients),
        }
    }

    /// What holds a failover back, and what to do.
    fn guard_says(&self) -> (String, String) {
        let most = self.cfg.automatics.failovers_per_hour;
        let peer = &self.cfg.names[self.me.peer().index()];
        let error = format!("flap guard: {most} automatic failover(s) within an hour, no more by itself");
        let hint = format!("do one by hand if {peer} is well, or raise [srm] automatic_failovers_per_hour");
        (error, hint)
    }

    /// For the operator.
    pub(super) fn guard_alarm(&self) -> Option<String> {
        (self.guard.service || self.guard.rule).then(|| {
            let (what, to_do) = self.guard_says();
            format!("{what}; {to_do}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_clock_makes_a_failover_count_for_longer_than_an_hour_or_for_ever() {
        let left_ms = vec![1_000, 3_600_000, u64::MAX];
        let kept = Failovers { at_ms: 5_000_000, left_ms, ..Failovers::default() };
        let left = |passed| kept.after(passed, 7).left_ms;
        assert_eq!(left(0), [1_000, 3_600_000, 3_600_000]);
        assert_eq!(left(1_000), [3_599_000, 3_600_000]);
        assert_eq!(kept.after(3_600_000, 7).at_ms, 7);
        assert_eq!(kept.after(0, 7).after(3_600_000, 8).left_ms, [0; 0]);
        assert_eq!(left(u64::MAX), [0; 0]);
        let many = Failovers { left_ms: vec![1; 1_000], ..Failovers::default() };
        assert_eq!(many.after(0, 0).left_ms.len(), MOST);
    }

    #[test]
    fn it_is_soon_after_a_fallback_for_an_hour_and_a_half_at_most_and_in_vain_for_ever() {
        let kept = |soon_ms| Failovers { soon_ms: Some(soon_ms), in_vain: true, ..Failovers::default() };
        for (soon_ms, passed, left) in [
            (5_400_000, 0, Some(5_400_000)),
            (5_400_000, 5_399_999, Some(1)),
            (5_400_000, 5_400_000, None),
            (u64::MAX, 1, Some(5_400_000)),
            (1, u64::MAX, None),
        ] {
            let after = kept(soon_ms).after(passed, 7);
            assert_eq!((after.soon_ms, after.in_vain), (left, true), "{soon_ms} after {passed}");
        }
    }
}
