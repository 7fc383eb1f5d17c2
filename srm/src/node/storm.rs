//! Re-login limits by what logins cost: the time over which clients that lost a node log in again, so that the other can
//! take them (W = 2 N / n for N sessions and n logins a second), instead of a fixed one.

use presence_engine::engine::Input;

use super::Node;
use crate::beacon::Turn;
use crate::config::COMPUTED_LOWER_S;

/// Least time between the limits.
const SPREAD_S: u32 = 20;
/// Ticks between two looks (5 s).
const PERIOD: u64 = 20;

/// What is known of logins.
#[derive(Debug, Default)]
pub(super) struct Storm {
    /// The limits as they are set; computed ones stay within them.
    pub(super) fixed: (u32, u32),
    /// This node's limits now, as set or as computed: for clients that log in again here.
    pub(super) own: (u32, u32),
    /// The peer's, as it last told; `None`: it never did.
    pub(super) heard: Option<(u32, u32)>,
    /// Logins that this node can take in a second, as measured; 0: not known yet.
    pub(super) per_second: u32,
    /// More clients log in here than the processors can take.
    pub(super) crowded: bool,
}

/// Lower and upper limit for so many sessions, in seconds.
fn limits(fixed: (u32, u32), sessions: u64, per_second: u32) -> (u32, u32) {
    let lower = COMPUTED_LOWER_S.min(fixed.0);
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
        let told = self.storm.own;
        let computed = self.cfg.automatics.computed_limits && per_second > 0;
        if !computed || !self.ticks.is_multiple_of(PERIOD) {
            return;
        }
        let sessions = self.driver.engine().state().session_count() as u64;
        let now = limits(fixed, sessions, per_second);
        let (window, before) = (now.1 - now.0, told.1.saturating_sub(told.0));
        if told.0 != now.0 || window >= 2 * before || 4 * window <= before {
            self.storm.own = now;
            self.beacon_due = Some(Turn::First);
            self.offer_limits();
        }
    }

    /// The peer's limits, which clients of this node are told: they log in again there.
    pub(super) fn hear_limits(&mut self, limits: Option<(u32, u32)>) {
        if limits.is_some() && self.storm.heard != limits {
            self.storm.heard = limits;
            self.offer_limits();
        }
    }

    /// Clients hear of the limits that hold, if they were told others.
    pub(super) fn offer_limits(&mut self) {
        // Until the peer has told its own, this node's are as good as any.
        let now = self.storm.heard.unwrap_or(self.storm.own);
        if self.driver.relogin() != now {
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
        let said = |node: &mut Node, limits| {
            node.storm.own = limits;
            node.driver.set_relogin(limits);
        };
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
        node.storm.own = (0, 1);
        assert_eq!(after(&mut node, true, 0), ((0, 1), 0), "what a login costs is not known yet");
        assert_eq!(after(&mut node, false, 500), ((0, 1), 0), "they are fixed");
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 0), "once");
        node.storm.own = (10, 49);
        assert_eq!(after(&mut node, true, 500).1, 0, "little shorter");
        said(&mut node, (10, 90));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1), "much shorter");
        said(&mut node, (10, 20));
        assert_eq!(after(&mut node, true, 500), ((10, 30), 1), "twice as long");
    }

    /// A client logs in again at the other node: it is told that node's limits.
    #[test]
    fn clients_are_told_the_limits_of_the_peer_once_it_has_told_them() {
        let (mut node, _) = started(true);
        let offers = |node: &mut Node| std::mem::take(&mut node.inbox).len();
        (node.storm.own, node.storm.heard) = ((120, 537), None);
        offers(&mut node);
        node.offer_limits();
        assert_eq!(
            (node.driver.relogin(), offers(&mut node)),
            ((120, 537), 1),
            "its own, until it hears others"
        );
        assert_eq!(node.told().limits, Some((120, 537)));
        node.hear_limits(Some((30, 60)));
        assert_eq!((node.driver.relogin(), offers(&mut node)), ((30, 60), 1));
        node.hear_limits(Some((30, 60)));
        node.hear_limits(None);
        assert_eq!(
            (node.driver.relogin(), offers(&mut node)),
            ((30, 60), 0),
            "nothing new; an older version"
        );
        assert_eq!(node.told().limits, Some((120, 537)), "what it tells of itself is its own");
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
