//! What happens without the operator: users go back to a home node that has been well for long enough.

use presence_engine::ids::{Group, Mode};

use super::{Node, Reply};
use crate::config::{Assignment, Window};
use crate::view::{Cause, Place};

/// How long settings must differ until automatics are off, in ticks (10 s): a change reaches both nodes in less.
const DIFFER_TICKS: u32 = 40;
/// After how long a fallback that came to nothing is tried again, in ticks (a minute).
const RETRY_TICKS: u32 = 240;
/// Who went back and is here again so soon after (an hour and a half) went back in vain, in ticks: the flap guard may keep those
/// who wait for an hour.
pub(super) const IN_VAIN_TICKS: u64 = 21_600;
/// How the alarm begins.
pub(crate) const SETTINGS_DIFFER: &str = "the nodes' clusterwide settings differ";

/// How it ends once automatics are off for that.
pub(crate) const DISARMED: &str = "; until they are equal no node fails over by itself";

/// What is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Automatics {
    /// Nothing: no node takes over and no users go back without the operator.
    pub disabled: bool,
    /// Users go back at any time.
    pub fallback: bool,
    /// They go back in this span of the day.
    pub window: Option<Window>,
    /// Ticks for which the home node must have been well before, without a break.
    pub after: u32,
    /// Ticks for which a critical service may be down before its node fails over.
    pub delay: u32,
    /// Whether the authentication service is one of them.
    pub authentication: bool,
    /// Such failovers within an hour; then only an alarm.
    pub failovers_per_hour: u32,
    /// Accounts may be added while a node is failed over.
    pub add_users: bool,
    /// Re-login limits are computed from the sessions and from what a login costs, within those that are set.
    pub computed_limits: bool,
    /// Which node an account gets that is added.
    pub assignment: Assignment,
    /// The span of the day in which store and copies are checked.
    pub check: Option<Window>,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Automatic {
    /// Ticks for which the home node could have had its users back.
    well: u32,
    /// Minute of the day in local time, as last told.
    minute: Option<u16>,
    /// The peer's users last went back by themselves: until which tick it is soon after that.
    soon_until: Option<u64>,
    /// They were answered so little there that they are here again.
    in_vain: bool,
    /// The disk does not know of these two yet.
    unkept: bool,
}

impl Automatic {
    pub(super) fn minute(&self) -> Option<u16> {
        self.minute
    }

    /// Until which tick it is soon after the peer's users went back by themselves, and whether that was in vain.
    pub(super) fn kept(&self) -> (Option<u64>, bool) {
        (self.soon_until, self.in_vain)
    }

    /// The same, as the last run left it.
    pub(super) fn remember(&mut self, soon_until: Option<u64>, in_vain: bool) {
        (self.soon_until, self.in_vain) = (soon_until, in_vain);
    }

    /// Whether the disk does not know of it; it is about to.
    pub(super) fn take_unkept(&mut self) -> bool {
        std::mem::take(&mut self.unkept)
    }

    fn set(&mut self, soon_until: Option<u64>, in_vain: bool) {
        self.unkept |= self.kept() != (soon_until, in_vain);
        self.remember(soon_until, in_vain);
    }

    /// A home node that is heard and answers no client looks well while nobody is there. Where it was failed over for that soon
    /// after it had its users back by itself, only the operator knows when it is.
    fn note_moved(&mut self, back: bool, cause: Cause, unanswered: bool, now: u64) {
        if back {
            let by_itself = matches!(cause, Cause::Automatic | Cause::Scheduled);
            self.set(by_itself.then_some(now + IN_VAIN_TICKS), false);
        } else {
            let soon = self.soon_until.is_some_and(|until| now < until);
            self.set(self.soon_until, self.in_vain || (unanswered && soon));
        }
    }

    /// The peer's users are at home, however they came there: nobody waits for the operator.
    pub(super) fn note_at_home(&mut self) {
        self.set(self.soon_until, false);
    }

    /// What is over is over, whatever the clock will say at the next start.
    fn pass(&mut self, now: u64) {
        self.set(self.soon_until.filter(|until| now < *until), self.in_vain);
    }
}

impl Node {
    /// Takes other settings.
    pub fn automatics(&mut self, automatics: Automatics) {
        self.cfg.automatics = automatics;
    }

    /// Takes the hash of other clusterwide settings.
    pub fn settings(&mut self, hash: u64) {
        self.cfg.config_hash = hash;
        self.compare_settings();
    }

    /// The minute of the day in local time, 0 to 1439.
    pub fn minute(&mut self, minute: u16) {
        self.automatic.minute = Some(minute);
    }

    /// Counts for how long the home node has been well, and gives its users back when it is time.
    pub(super) fn watch_automatics(&mut self, ticks: u16) {
        let Automatics { fallback, window, after, .. } = self.cfg.automatics;
        self.automatic.pass(self.ticks);
        let within =
            window.is_some_and(|window| self.automatic.minute.is_some_and(|now| window.contains(now)));
        if self.moving.as_ref().is_some_and(|moving| !within && moving.waits_for_a_window()) {
            // It is tried until its window ends.
            self.abandon_move();
        }
        if self.automatic.in_vain || !self.home_is_well() {
            // Counted anew after each relapse.
            self.automatic.well = 0;
            return;
        }
        // A pause of this process is no proof of anybody's health.
        self.automatic.well = self.automatic.well.saturating_add(u32::from(ticks.min(2)));
        if self.automatic.well >= after
            && self.moving.is_none()
            && (fallback || within)
            && matches!(
                self.begin_fallback(if fallback { Cause::Automatic } else { Cause::Scheduled }, None),
                Reply::Begun(_)
            )
        {
            // One that comes to nothing is no relapse.
            self.automatic.well = after.saturating_sub(RETRY_TICKS);
        }
    }

    /// All users of a group have moved, for this reason.
    pub(super) fn note_moved(&mut self, group: Group, back: bool, cause: Cause) {
        if group != self.me {
            // One that was silent to everybody was not well, which is seen.
            let unanswered = cause == Cause::Clients && self.driver.engine().state().away(group).is_some();
            self.automatic.note_moved(back, cause, unanswered, self.ticks);
        }
    }

    /// For the operator.
    pub(super) fn in_vain_alarm(&self) -> Option<String> {
        let Automatics { fallback, window, .. } = self.cfg.automatics;
        let peer = &self.cfg.names[self.me.peer().index()];
        (self.automatic.in_vain && !self.cfg.single && (fallback || window.is_some())).then(|| {
            format!(
                "automatic fallback waits for the operator: users of {peer} went back by themselves, and soon after {peer} \
                 answered none of them again; mend {peer}, then `tandem fallback {peer}`"
            )
        })
    }

    /// The peer's users are here, not by the operator's word, and it could have them back, or is being given them.
    fn home_is_well(&self) -> bool {
        if self.cfg.single || self.cfg.automatics.disabled || !self.peer_up {
            return false;
        }
        let facts = self.facts(self.me.peer());
        let away = matches!(facts.place, Place::AtBackup | Place::Returning);
        let away = away && facts.cause != Cause::Operator && facts.failed.is_none();
        let same = self.peer_config.is_some() && self.same_settings();
        let pair = self.cores.iter().all(|core| core.reg().mode == Mode::Pair);
        away && facts.home.heard && facts.home.serves && same && pair && !self.peer_leaves()
    }

    /// Both nodes have the same clusterwide settings, as far as is known.
    pub(super) fn same_settings(&self) -> bool {
        self.peer_config.is_none_or(|hash| hash == self.cfg.config_hash)
    }

    pub(super) fn compare_settings(&mut self) {
        if self.same_settings() {
            self.differ_ticks = 0;
        }
    }

    /// Counts for how long they have differed. A change that is on its way to the peer is no difference.
    pub(super) fn watch_settings(&mut self) {
        if !self.same_settings() && self.hears_peer() {
            self.differ_ticks = self.differ_ticks.saturating_add(1);
        }
    }

    /// Nodes that go by different settings do not judge each other: nobody fails over by itself.
    pub(super) fn disarmed(&self) -> bool {
        self.differ_ticks >= DIFFER_TICKS
    }

    pub(super) fn settings_alarm(&self) -> Option<String> {
        (!self.same_settings()).then(|| {
            let off = if self.disarmed() { DISARMED } else { "" };
            format!("{SETTINGS_DIFFER}: make them equal with `tandem config set`{off}")
        })
    }

    /// For the operator.
    pub(super) fn automatics_alarm(&self) -> Option<String> {
        self.cfg.automatics.disabled.then(|| {
            "automatic failover and fallback are disabled ([srm] disable_automatics): if a node dies, its users wait for \
             the operator"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether users who went back for this reason, and were here again later, wait for the operator.
    fn in_vain(back: Cause, unanswered: bool, later: u64) -> bool {
        let mut automatic = Automatic::default();
        automatic.note_moved(true, back, false, 1_000);
        automatic.note_moved(false, Cause::Clients, unanswered, 1_000 + later);
        automatic.in_vain
    }

    #[test]
    fn only_who_went_back_by_itself_and_was_soon_answered_by_nobody_went_in_vain() {
        for cause in [Cause::Automatic, Cause::Scheduled] {
            assert!(in_vain(cause, true, IN_VAIN_TICKS - 1), "{cause:?}");
            assert!(!in_vain(cause, true, IN_VAIN_TICKS), "it answered for long");
            assert!(!in_vain(cause, false, 1), "what the node itself lacked is seen, and counted anew");
        }
        assert!(!in_vain(Cause::Operator, true, 1));
        let mut automatic = Automatic::default();
        automatic.note_moved(false, Cause::Clients, true, 5);
        assert!(!automatic.in_vain, "they have not gone back yet");
    }

    #[test]
    fn it_is_over_when_they_are_at_home() {
        let mut automatic = Automatic { soon_until: Some(70), in_vain: true, ..Automatic::default() };
        automatic.note_moved(true, Cause::Operator, false, 9);
        assert_eq!(automatic.kept(), (None, false));
        automatic.remember(Some(70), true);
        automatic.note_at_home();
        assert_eq!(automatic.kept(), (Some(70), false), "a death has brought them there");
    }

    #[test]
    fn the_disk_is_told_of_what_changes_and_of_nothing_else() {
        let mut automatic = Automatic::default();
        automatic.note_moved(false, Cause::Clients, true, 1);
        automatic.note_moved(true, Cause::Operator, false, 2);
        automatic.note_at_home();
        automatic.pass(3);
        assert!(!automatic.take_unkept(), "nobody went back by himself");
        automatic.note_moved(true, Cause::Automatic, false, 4);
        assert!(automatic.take_unkept() && !automatic.take_unkept());
        let until = 4 + IN_VAIN_TICKS;
        automatic.note_at_home();
        automatic.pass(until - 1);
        assert!(!automatic.take_unkept());
        automatic.note_moved(false, Cause::Clients, true, until - 1);
        assert!(automatic.take_unkept());
        automatic.pass(until);
        assert_eq!((automatic.kept(), automatic.take_unkept()), ((None, true), true), "they wait for longer");
        automatic.note_moved(true, Cause::Operator, false, until + 1);
        assert_eq!((automatic.kept(), automatic.take_unkept()), ((None, false), true));
    }
}
