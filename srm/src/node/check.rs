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
