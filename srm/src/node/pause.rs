//! A move of users pauses while an alarm says that going on would do harm ([`crate::pause`]).

use presence_engine::ids::Mode;

use super::{Event, Node, Out};
use crate::beacon::{Activity, Turn};
use crate::pause::Pause;
use crate::view::Cause;

/// The peer does not keep up for so long (2 s): it is no hiccup, and the lease still runs.
const LAG_TICKS: u32 = 8;

impl Node {
    /// The first alarm on the list for which the move that is under way pauses.
    fn pause(&self) -> Option<Pause> {
        let moving = self.moving.as_ref().filter(|moving| moving.can_wait())?;
        self.stops(moving.is_failover(), moving.cause())
    }

    /// The first alarm on the list for which a failover, or another move, would pause.
    pub(super) fn stops(&self, failover: bool, cause: Cause) -> Option<Pause> {
        // Those who crowd the other node then are the clients that wait there for this one.
        let counts = |pause: &Pause| *pause != Pause::PeerCrowd || cause != Cause::Clients;
        let mut list =
            Pause::ALL.into_iter().filter(|pause| !failover || pause.stops_failover()).filter(counts);
        list.find(|pause| match pause {
            Pause::Unheard => !self.peer_up,
            Pause::OwnDisk => self.disk_alarm().is_some(),
            Pause::PeerDisk => self.peer_told().disk_stalls,
            Pause::Unprotected => self.cores.iter().any(|core| core.reg().mode != Mode::Pair),
            Pause::Lag => self.stuck.1 >= LAG_TICKS || self.choked >= LAG_TICKS,
            Pause::OwnService => self.lacks_service(),
            Pause::PeerService => self.peer_told().lacks_service,
            Pause::Differs => self.checks.last.as_ref().is_some_and(|(_, report)| report.different > 0),
            Pause::OwnCrowd => self.storm.is_crowded(),
            Pause::PeerCrowd => self.peer_told().crowded,
        })
    }

    /// Whether the move pauses now; says so when that changes.
    pub(super) fn pauses(&mut self) -> bool {
        let now = self.pause();
        let ticks = self.ticks;
        let Some(moving) = &mut self.moving else { return false };
        if now.is_some() {
            // A move that pauses is not one that does not get on.
            moving.seen.1 = ticks;
        }
        if std::mem::replace(&mut moving.paused, now) != now {
            self.outs.push(Out::Event(Event::Paused(moving.name(), now)));
            self.beacon_due = Some(Turn::First);
        }
        now.is_some()
    }

    /// For how long more is in flight than may be.
    pub(super) fn watch_lag(&mut self, ticks: u16) {
        let choked = !self.cfg.single && !self.driver.clients_may_send();
        self.choked = if choked { self.choked.saturating_add(u32::from(ticks.min(2))) } else { 0 };
    }

    /// For the operator, at both nodes.
    pub(super) fn pause_alarm(&self) -> Option<String> {
        let (me, peer) = (&self.cfg.names[self.me.index()], &self.cfg.names[self.me.peer().index()]);
        if let Some(moving) = &self.moving {
            return moving.paused.map(|pause| format!("{} paused: {}", moving.name(), pause.what(me, peer)));
        }
        let paused = self.peer_told().paused.filter(|_| self.hears_peer())?;
        let name = match self.peer_activity {
            Activity::FailingOver => "failover",
            Activity::FallingBack => "fallback",
            _ => "rebalance",
        };
        Some(format!("{name} paused: {}", paused.what(peer, me)))
    }
}

#[cfg(test)]
mod tests {
    use session_mover::driver::check::Report;

    use super::super::tests::{link_up, started};
    use super::*;
    use crate::node::In;

    fn said(node: &mut Node) -> Vec<Option<Pause>> {
        let told = node.take().into_iter().filter_map(|out| match out {
            Out::Event(Event::Paused("rebalance", pause)) => Some(pause),
            _ => None,
        });
        told.collect()
    }

    /// The others are seen between two whole nodes; where a check finds something a run of those has failed.
    #[test]
    fn accounts_that_differ_stop_a_move_until_a_check_finds_them_equal() {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        node.handle(0, In::Ticks(1), &mut disk);
        node.begin_rebalance();
        assert!(!node.pauses() && said(&mut node).is_empty());
        let found = |different| Some((0, Report { users: Some(1), different, ..Report::default() }));
        node.checks.last = found(1);
        assert!(node.pauses() && node.pauses());
        assert_eq!(said(&mut node), [Some(Pause::Differs)], "once");
        let alarm =
            "rebalance paused: a holds some accounts otherwise than b; mend that, then `tandem check`";
        assert_eq!(node.pause_alarm().as_deref(), Some(alarm));
        assert_eq!(node.told().paused, Some(Pause::Differs));
        node.checks.last = found(0);
        assert!(!node.pauses());
        assert_eq!((said(&mut node), node.pause_alarm(), node.told().paused), (vec![None], None, None));
    }
}
