//! A log that does not get through to a peer whose beacons are heard: the path loses large packets (MTU), goes one way only,
//! or is blocked for TCP. The peer lives, so nobody is taken over; each node goes on alone, and the operator is told why.

use super::Node;
use crate::safety::{Consent, RegisterKind};

/// Ticks since a beacon within which the peer is there (3 s).
const FRESH_TICKS: u32 = 12;
/// From here on it is an alarm (10 s). A link that is broken once is noticed and made anew before.
const ALARM_TICKS: u32 = 40;

/// From here on the beacons of the peer give no lease (6 s): a connection that is broken once is given up by then, and made anew.
const STILL_TICKS: u32 = 24;
/// No more is counted (3 s more, a lease)...
const STILL_MOST: u32 = 36;
/// ... and so much is forgotten whenever the peer gets on (2 s): a path or a disk that is as slow as that is no trouble, and a path on
/// which only a new connection brings something, once in six seconds, is.
const FORGOTTEN_TICKS: u32 = 8;

/// How long nothing has got through.
#[derive(Debug, Default)]
pub(super) struct Through {
    /// The end of our log when the peer had all of it last.
    goal: u64,
    acked: u64,
    ticks: u32,
    /// The same, and one moment in which it has all does not make up for it.
    still: u32,
}

impl Node {
    /// Counts how long the peer, although it is there, has not had what our log holds.
    pub(super) fn watch_link(&mut self, ticks: u16) {
        let (acked, end) = (self.driver.acked(), self.driver.own_end().seq);
        let there = self.evidence.silent().is_some_and(|ticks| ticks < FRESH_TICKS);
        let linked = self.link_up == [true; 2];
        // It says itself what is wrong.
        let stalls = self.peer_told().disk_stalls;
        // A log of which an end was set aside may be shorter by now.
        let has_all = linked && self.driver.ships() && acked >= self.through.goal.min(end);
        let moves = linked && acked > self.through.acked;
        if has_all || moves {
            self.through.still = self.through.still.saturating_sub(FORGOTTEN_TICKS);
        }
        if self.cfg.single || !there || stalls || has_all {
            let still = self.through.still;
            self.through = Through { goal: end, acked, ticks: 0, still };
            return;
        }
        // A peer that gets a snapshot, or has much to catch up, is no trouble of the path.
        let goes_on = linked && (!self.driver.ships() || acked != self.through.acked);
        self.through.acked = acked;
        if !goes_on {
            self.through.ticks += u32::from(ticks.min(2));
            // What waits for our own disk would wait without a peer too.
            let written = self.driver.own_synced() >= self.through.goal;
            let more = if written { u32::from(ticks.min(2)) } else { 0 };
            self.through.still = STILL_MOST.min(self.through.still + more);
        }
    }

    /// Whether a peer that says it is there gives no lease: what it says may be all that gets through (R9). To go without one is
    /// always safe; where nobody goes on alone it would be of no use.
    pub(super) fn log_stands_still(&self) -> bool {
        let strict = self.cfg.register == RegisterKind::Consent(Consent { available: false });
        let alone = !strict && self.witness_decides() != Some(false);
        alone && self.through.still >= STILL_TICKS
    }

    /// For the operator.
    pub(super) fn through_alarm(&self) -> Option<String> {
        let peer = &self.cfg.names[self.me.peer().index()];
        (self.through.ticks >= ALARM_TICKS).then(|| {
            format!(
                "the log does not get through to {peer}, whose beacons are heard: look on the path to {peer} for what loses \
                 large packets (MTU) or those of one direction, and for a filter at its TCP port of [link]"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use session_mover::driver::Link;
    use session_mover::msg::{Ack, Msg};

    use super::*;
    use crate::node::In;
    use crate::node::tests::{Memory, acknowledge, add, hear, link_up, started};

    /// Time passes, with a beacon of the peer at each tick or none; whether there is an alarm then.
    fn alarm(node: &mut Node, disk: &mut Memory, ticks: u32, beacons: bool) -> bool {
        for _ in 0..ticks {
            if beacons {
                hear(node, disk, node.last_number + 1);
            }
            node.handle(0, In::Ticks(1), disk);
        }
        node.snapshot().alarms.iter().any(|alarm| alarm.contains("the log does not get through to a"))
    }

    #[test]
    fn a_log_that_does_not_get_through_is_told_while_beacons_are_heard() {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        acknowledge(&mut node, &mut disk);
        assert!(!alarm(&mut node, &mut disk, 100, true), "the peer has all");
        add(&mut node, &mut disk, "u@d");
        node.step(0, &mut disk);
        // What is written from now on is not acknowledged: the first tick finds it so.
        assert!(!alarm(&mut node, &mut disk, ALARM_TICKS, true));
        assert!(alarm(&mut node, &mut disk, 1, true));
        // The link is broken and made anew, and it is as before.
        node.handle(0, In::LinkDown(Link::Out, false), &mut disk);
        assert!(alarm(&mut node, &mut disk, 1, true));
        link_up(&mut node, &mut disk);
        assert!(alarm(&mut node, &mut disk, 1, true));
        acknowledge(&mut node, &mut disk);
        assert!(!alarm(&mut node, &mut disk, 1, true), "it gets through");
    }

    #[test]
    fn a_link_that_is_not_made_is_told_unless_the_peer_is_silent_too() {
        for beacons in [true, false] {
            let (mut node, mut disk) = started(true);
            assert_eq!(alarm(&mut node, &mut disk, ALARM_TICKS + FRESH_TICKS, beacons), beacons);
        }
    }

    #[test]
    fn a_peer_that_catches_up_is_no_trouble() {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        let mut frames = Vec::new();
        for n in 0..2 * ALARM_TICKS {
            add(&mut node, &mut disk, &format!("u{n}@d"));
            frames.push(node.driver().own_end());
        }
        for at in frames {
            node.handle(0, In::LinkMsg(Link::Out, Msg::Ack(Ack { at, ..Ack::default() })), &mut disk);
            assert!(!alarm(&mut node, &mut disk, 1, true));
        }
    }
}
