//! Re-login limits by what logins cost: the time over which clients that lost a node log in again, so that the other can
//! take them (W = 2 N / n for N sessions and n logins a second), instead of a fixed one.

use presence_engine::engine::Input;

use super::Node;
use crate::beacon::Turn;

/// A client that has no standby need not come before the other node has taken over.
const TAKEOVER_S: u32 = 10;
/// Least time between the limits.
const SPREAD_S: u32 = 20;
/// Ticks between two looks (5 s).
const PERIOD: u64 = 20;

/// What is known of logins.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// The limits as they are set; computed ones stay within them.
    pub(super) fixed: (u32, u32),
    /// Logins that this node can take in a second, as measured; 0: not known yet.
    pub(super) per_second: u32,
    /// More clients log in here than the processors can take.
    pub(super) crowded: bool,
}

/// Lower and upper limit for so many sessions, in seconds.
fn limits(fixed: (u32, u32), sessions: u64, per_second: u32) -> (u32, u32) {
    let lower = TAKEOVER_S.min(fixed.0);
    let window = (2 * sessions).div_ceil(u64::from(per_second.max(1)));
    let window = u32::try_from(window).unwrap_or(u32::MAX).max(SPREAD_S);
    (lower, lower.saturating_add(window).min(fixed.1).max(lower))
}

impl Storm {
    /// More clients log in than the processors can take.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }
}

impl Node {
    pub(super) fn logins(&mut self, per_second: u32, crowded: bool) {
        self.storm.per_second = per_second;
        if std::mem::replace(&mut self.storm.crowded, crowded) != crowded {
            self.beacon_due = Some(Turn::First);
        }
    }

    /// Clients hear of limits that have become twice as long, or much shorter, than those that they were told.
    pub(super) fn watch_logins(&mut self) {
        let Storm { fixed, per_second, .. } = self.storm;
        let told = self.driver.relogin();
        let computed = self.cfg.automatics.computed_limits && per_second > 0;
        if !computed || !self.ticks.is_multiple_of(PERIOD) {
            return;
        }
        let sessions = self.driver.engine().state().session_count() as u64;
        let now = limits(fixed, sessions, per_second);
        let (window, before) = (now.1 - now.0, told.1.saturating_sub(told.0));
        if told.0 != now.0 || window >= 2 * before || 4 * window <= before {
            self.driver.set_relogin(now);
            self.inbox.push(Input::OfferAgain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::In;
    use crate::node::tests::started;

    #[test]
    fn computed_limits_are_told_when_they_are_much_longer_or_shorter_than_those_told() {
        let (mut node, mut disk) = started(true);
        node.storm.fixed = (120, 537);
        let mut after = |node: &mut Node, computed: bool, per_second: u32| {
            node.handle(0, In::Logins { per_second, crowded: false }, &mut disk);
            node.cfg.automatics.computed_limits = computed;
            for _ in 0..PERIOD {
                node.handle(0, In::Ticks(1), &mut disk);
            }
            let again = node.inbox.iter().filter(|input| matches!(input, Input::OfferAgain)).count();
            node.inbox.clear();
            (node.driver.relogin(), again)
        };
        assert_eq!(after(&mut node, true, 0), ((0, 1), 0), "what a login costs is not known yet");
        assert_eq!(after(&mut node, false, 500), ((0, 1), 0), "they are fixed");
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 0), "once");
        node.driver.set_relogin((10, 49));
        assert_eq!(after(&mut node, true, 500).1, 0, "little shorter");
        node.driver.set_relogin((10, 90));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1), "much shorter");
        node.driver.set_relogin((10, 20));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1), "twice as long");
    }

    #[test]
    fn the_time_grows_with_the_sessions_and_stays_within_what_is_set() {
        let of = |sessions| limits((120, 537), sessions, 400);
        assert_eq!(of(0), (10, 30), "few sessions need little time");
        assert_eq!(of(10_000), (10, 60));
        assert_eq!(of(60_001), (10, 311));
        assert_eq!(of(1_000_000), (10, 537));
        assert_eq!(limits((0, 5), 10_000, 400), (0, 5));
        assert_eq!(limits((120, 537), u64::MAX / 2, 0), (10, 537));
    }
}
