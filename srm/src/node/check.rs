//! The check of this node's store, and of the peer's copies of its users ([`session_mover::driver::check`]): when the
//! operator wants one, and every night.

use presence_engine::ids::Mode;
use session_mover::driver::check::Report;

use super::{Event, Node, Out, Reply};

/// Checks of this run of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// One is under way.
    pub running: bool,
    /// How many have come to their end.
    pub ended: u64,
    /// When the last did, in milliseconds since 1970, and what it found.
    pub last: Option<(u64, Report)>,
    /// The window of the day in which the last nightly one began is not over.
    tonight: bool,
}

impl Node {
    /// The operator wants one; if one is under way, that is it.
    pub(super) fn check_op(&mut self) -> Reply {
        self.driver.check();
        self.checks.running = true;
        Reply::Done
    }

    /// It has come to its end.
    pub(super) fn checked(&mut self, report: Report) {
        self.checks.running = false;
        self.checks.ended += 1;
        self.checks.last = Some((self.now_ms, report.clone()));
        self.outs.push(Out::Event(Event::Checked(report)));
    }

    /// Once in each window, as soon as everything is at rest.
    pub(super) fn watch_night(&mut self) {
        let now = self.automatic.minute();
        let within = self.cfg.automatics.check.zip(now).is_some_and(|(window, now)| window.contains(now));
        let pair = self.cores.iter().all(|core| core.reg().mode == Mode::Pair);
        let rests = self.cfg.single || self.peer_up && pair && self.moving.is_none();
        if within && rests && !self.checks.tonight && !self.storm.is_crowded() {
            self.driver.check();
            (self.checks.running, self.checks.tonight) = (true, true);
        }
        self.checks.tonight &= within;
    }

    pub(super) fn check_alarm(&self) -> Option<String> {
        let (_, report) = self.checks.last.as_ref().filter(|(_, report)| report.different > 0)?;
        let peer = &self.cfg.names[self.me.peer().index()];
        let me = &self.cfg.names[self.me.index()];
        Some(format!(
            "{peer} holds {} of the accounts of {me} otherwise than {me} does ({}): stop {peer}, move its data folder away, and \
             start it again; it gets everything from {me}",
            report.different,
            report.named.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Window;
    use crate::node::tests::{Memory, config, started};
    use crate::node::{Config, In};

    fn at(node: &mut Node, disk: &mut Memory, minutes: std::ops::Range<u16>) -> u64 {
        let before = node.checks.ended;
        for minute in minutes {
            node.minute(minute);
            (0..4).for_each(|_| node.handle(0, In::Ticks(1), disk));
        }
        node.checks.ended - before
    }

    #[test]
    fn a_check_begins_once_each_night_when_all_is_at_rest() {
        let mut disk = Memory::default();
        let mut node = Node::start(Config { single: true, ..config(true) }, [None; 2], 1, &mut disk);
        assert_eq!(at(&mut node, &mut disk, 0..1_440), 0, "nobody wants one");
        node.cfg.automatics.check = Some(Window { from_min: 120, to_min: 300 });
        assert_eq!(at(&mut node, &mut disk, 0..120), 0);
        assert_eq!(at(&mut node, &mut disk, 120..121), 1, "as soon as the window is open");
        assert_eq!(at(&mut node, &mut disk, 121..1_440), 0, "once");
        assert_eq!(at(&mut node, &mut disk, 0..1_440), 1, "and the next night");
        node.storm.crowded = true;
        assert_eq!(at(&mut node, &mut disk, 0..200), 0, "not while clients storm");
        node.storm.crowded = false;
        assert_eq!(at(&mut node, &mut disk, 200..300), 1);

        let (mut node, mut disk) = started(true);
        node.cfg.automatics.check = Some(Window { from_min: 120, to_min: 300 });
        assert_eq!((at(&mut node, &mut disk, 0..1_440), node.peer_up), (0, false), "there is no pair");
    }

    #[test]
    fn accounts_that_the_peer_holds_otherwise_are_an_alarm_until_the_next_check() {
        let (mut node, _) = started(true);
        node.checked(Report { users: Some(3), different: 1, named: vec!["u@d".into()], ..Report::default() });
        let alarm = node.check_alarm().unwrap();
        assert!(alarm.contains("u@d") && alarm.contains("move its data folder away"), "{alarm}");
        node.checked(Report { users: Some(3), ..Report::default() });
        assert_eq!(node.check_alarm(), None);
    }
}
