//! The check of this node's store, and of the peer's copies of its users ([`session_mover::driver::check`]): when the
//! operator wants one, and every night.

use presence_engine::engine::Input;
use presence_engine::ids::Mode;
use session_mover::driver::check::Report;

use super::{Event, Node, Out, Reply};
use crate::config::Window;

/// A minute in which this node's clients say less than this, one element a second, is quiet, however idle the node always is.
const FEW: u32 = 60;
/// Else one with at most one part in so many of what the busiest had.
const PART: u32 = 4;
/// Ticks of a minute.
const MINUTE_TICKS: u32 = 240;
/// How long after its window one that found no quiet minute there may begin, in minutes: clocks that skip an hour may have
/// skipped the end of the window.
const AFTER_MIN: u16 = 60;
/// Minutes of a day.
const DAY_MIN: u16 = 1_440;

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
    /// The window that is open, or was just now, and in which none has begun.
    waits: Option<Window>,
    traffic: Traffic,
}

/// What this node's clients say, by the minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Traffic {
    /// Elements of the minute that is not over.
    now: u32,
    /// Ticks of it.
    ticks: u32,
    /// The last whole minute; `None`: this run is younger than that.
    last: Option<u32>,
    /// The busiest since the last nightly check.
    most: u32,
}

impl Traffic {
    fn ticks(&mut self, n: u16) {
        self.ticks += u32::from(n);
        if self.ticks >= MINUTE_TICKS {
            self.most = self.most.max(self.now);
            (self.last, self.now, self.ticks) = (Some(self.now), 0, 0);
        }
    }

    fn is_low(&self) -> bool {
        self.last.is_some_and(|last| {
            let busy = last.max(self.now);
            busy < FEW || busy <= self.most / PART
        })
    }
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

    /// What comes from clients.
    pub(super) fn count_traffic(&mut self, input: &Input) {
        let said = u32::from(matches!(input, Input::Element { .. }));
        self.checks.traffic.now = self.checks.traffic.now.saturating_add(said);
    }

    /// Once in each window, as soon as everything is at rest and clients say little; if they never do, at its end.
    pub(super) fn watch_night(&mut self, n: u16) {
        self.checks.traffic.ticks(n);
        let (window, now) = (self.cfg.automatics.check, self.automatic.minute());
        let within = window.zip(now).is_some_and(|(window, now)| window.contains(now));
        if within && !self.checks.tonight {
            self.checks.waits = window;
        }
        if !within && !window.zip(now).is_some_and(|(window, now)| is_just_over(window, now)) {
            self.checks.waits = None;
        }
        // Not one that was set otherwise meanwhile.
        self.checks.waits = self.checks.waits.filter(|waits| window == Some(*waits));
        let pair = self.cores.iter().all(|core| core.reg().mode == Mode::Pair);
        let rests = self.cfg.single || self.peer_up && pair && self.moving.is_none();
        let may = self.checks.waits.is_some() && (!within || self.checks.traffic.is_low());
        if may && rests && !self.storm.is_crowded() {
            self.driver.check();
            (self.checks.running, self.checks.tonight, self.checks.waits) = (true, true, None);
            self.checks.traffic.most = 0;
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

fn is_just_over(window: Window, now: u16) -> bool {
    (now + DAY_MIN - window.to_min) % DAY_MIN <= AFTER_MIN
}

#[cfg(test)]
mod tests {
    use presence_engine::ids::{Conn, NodeIx};
    use xmpp_core::stanza::Stanza;

    use super::*;
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

    const NIGHT: Window = Window { from_min: 120, to_min: 300 };

    /// A node by itself, which checks in this window.
    fn alone(window: Window) -> (Node, Memory) {
        let mut disk = Memory::default();
        let mut node = Node::start(Config { single: true, ..config(true) }, [None; 2], 1, &mut disk);
        node.cfg.automatics.check = Some(window);
        (node, disk)
    }

    /// In each of these minutes clients say so much. How many checks ended.
    fn say(node: &mut Node, disk: &mut Memory, minutes: std::ops::Range<u16>, elements: u32) -> u64 {
        let before = node.checks.ended;
        for minute in minutes {
            node.minute(minute);
            let stanza = Stanza::parse(b"<presence xmlns='jabber:client'/>").unwrap();
            for _ in 0..elements {
                let input =
                    Input::Element { conn: Conn { node: NodeIx::B, number: 1 }, stanza: stanza.clone() };
                node.handle(0, In::Client(input), disk);
            }
            (0..4).for_each(|_| node.handle(0, In::Ticks(60), disk));
            node.inbox.clear();
        }
        node.checks.ended - before
    }

    #[test]
    fn a_nightly_check_waits_within_its_window_until_clients_say_little() {
        let (mut node, mut disk) = alone(NIGHT);
        let mut say = |minutes, elements| say(&mut node, &mut disk, minutes, elements);
        assert_eq!(say(0..120, 400), 0);
        assert_eq!(say(120..200, 101), 0, "more than a quarter of the busiest minute");
        assert_eq!(say(200..202, 100), 1, "a quarter");
        assert_eq!(say(202..1_440, 400), 0, "once");
        assert_eq!(say(0..300, 400), 0, "busy all the time");
        assert_eq!(say(300..302, 400), 1, "the window is over");
        assert_eq!(say(302..1_440, 400), 0);
        assert_eq!(say(0..120, 400), 0);
        assert_eq!(say(120..123, 0), 1, "nobody says anything");
        assert_eq!(say(123..1_440, 59), 0);
        assert_eq!(say(0..120, 59), 0);
        assert_eq!(say(120..122, 59), 1, "a node that has little to do is always quiet");
    }

    #[test]
    fn a_run_that_is_young_waits_for_a_whole_minute_before_it_takes_one_for_quiet() {
        let (mut node, mut disk) = alone(NIGHT);
        node.minute(150);
        for (quarter, runs) in [(1, false), (2, false), (3, false), (4, true)] {
            node.handle(0, In::Ticks(60), &mut disk);
            assert_eq!(node.checks.running || node.checks.ended > 0, runs, "{quarter}");
        }
        let (mut node, mut disk) = alone(NIGHT);
        assert_eq!(say(&mut node, &mut disk, 150..300, 400), 0, "it is as busy as ever");
        assert_eq!(say(&mut node, &mut disk, 300..302, 400), 1);
    }

    #[test]
    fn a_window_whose_end_the_clock_skips_has_its_check_and_one_that_is_set_otherwise_has_none() {
        let skipped = Window { from_min: 60, to_min: 150 };
        let (mut node, mut disk) = alone(skipped);
        assert_eq!(say(&mut node, &mut disk, 60..120, 400), 0);
        assert_eq!(say(&mut node, &mut disk, 180..182, 400), 1, "two is three");
        let (mut node, mut disk) = alone(skipped);
        assert_eq!(say(&mut node, &mut disk, 60..120, 400), 0);
        assert_eq!(say(&mut node, &mut disk, 240..1_440, 0), 0, "not by day");
        assert_eq!(say(&mut node, &mut disk, 60..120, 400), 0);
        node.cfg.automatics.check = Some(Window { from_min: 30, to_min: 100 });
        assert_eq!((say(&mut node, &mut disk, 119..120, 0), node.checks.running), (0, false));
        node.cfg.automatics.check = None;
        assert_eq!(say(&mut node, &mut disk, 120..1_440, 0), 0);
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
