//! What may be spent on logins, and who waits for that: pure, so that a storm can be played on a virtual clock.
//!
//! A bucket is filled with a share of all processors' time. Who comes takes what a login of its class costs; below zero
//! connections wait in two rows, and those who were here before go first.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;
use std::time::Duration;

/// What a login costs before one was measured.
pub(super) const COST: Duration = Duration::from_millis(1);
/// What is believed of a measure.
pub(super) const COSTS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(50));
/// A new measure has this part in the mean.
const WEIGHT: u32 = 16;
/// A login goes on after TLS and SASL: bind, roster, presence, and the peer's copy of it all. Measured, that is about as
/// much again.
pub const WHAT_FOLLOWS: u32 = 2;
/// Processor time that may be spent at once after a rest, as a time of the whole share.
const BURST: Duration = Duration::from_millis(250);
/// The timer's grain.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// What a connection is before TLS, by what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its hello brings a ticket.
    Returning,
    /// It does not, or cannot be told.
    New,
}

/// How logins are doing at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logins {
    /// Processor time of one of a new client, as measured, what follows included.
    pub cost: Duration,
    /// How many such there may be in a second.
    pub per_second: u32,
    /// Connections that wait before TLS.
    pub waiting: usize,
}

/// The bucket, and who waits, each by a `T`. Times are of one clock that does not go back.
#[derive(Debug)]
pub struct Turnstile<T> {
    /// Processor time per second, of all processors.
    pub(super) share: Duration,
    pub(super) deadline: Duration,
    /// Processor time that may be spent now, in nanoseconds; below zero, what was spent ahead.
    pub(super) level: i64,
    pub(super) at: Option<Duration>,
    /// By class.
    costs: [Duration; 2],
    waiting: [VecDeque<T>; 2],
}

impl<T> Turnstile<T> {
    /// `percent` of `cores` processors; nobody waits longer than `deadline`.
    pub fn new(percent: u32, cores: usize, deadline: Duration) -> Turnstile<T> {
        let share = Duration::from_millis(10).saturating_mul(percent) * cores.max(1) as u32;
        let waiting = [VecDeque::new(), VecDeque::new()];
        Turnstile { share, deadline, level: 0, at: None, costs: [COST; 2], waiting }
    }

    /// What logins cost, and how many wait.
    pub fn logins(&self) -> Logins {
        let cost = self.costs[Class::New as usize];
        let per_second = (self.share.as_nanos() / cost.as_nanos().max(1)).max(1) as u32;
        Logins { cost, per_second, waiting: self.waiting.iter().map(VecDeque::len).sum() }
    }

    /// Longest time that a connection may wait.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A login of this class took so much processor time up to SASL's end.
    pub fn learn(&mut self, class: Class, spent: Duration) {
        let (least, most) = COSTS;
        let spent = (spent * WHAT_FOLLOWS).clamp(least, most);
        let cost = &mut self.costs[class as usize];
        *cost = (*cost * (WEIGHT - 1) + spent) / WEIGHT;
    }

    /// Goes on at once, unless somebody waits or nothing is left.
    pub fn take(&mut self, class: Class, now: Duration) -> bool {
        self.refill(now);
        let free = self.level > 0 && self.waiting.iter().all(VecDeque::is_empty);
        if free {
            self.level -= nanos(self.costs[class as usize]);
        }
        free
    }

    /// Whether one of this class that comes now would wait longer than the deadline.
    pub fn is_too_long(&self, class: Class) -> bool {
        let before = |c: Class| self.costs[c as usize] * self.waiting[c as usize].len() as u32;
        let new = if class == Class::New { before(Class::New) } else { Duration::ZERO };
        (before(Class::Returning) + new + self.debt()).div_f64(self.share.as_secs_f64()) > self.deadline
    }

    /// One more waits, until [`Turnstile::grant`] calls it.
    pub fn wait(&mut self, class: Class, who: T) {
        self.waiting[class as usize].push_back(who);
    }

    /// Lets go on who may: `go` says whether they were still there. How long until the next, if somebody waits.
    pub fn grant(&mut self, now: Duration, mut go: impl FnMut(Class, T) -> bool) -> Option<Duration> {
        self.refill(now);
        while self.level > 0 {
            let mut rows = [Class::Returning, Class::New].into_iter();
            let Some((class, who)) =
                rows.find_map(|class| Some((class, self.waiting[class as usize].pop_front()?)))
            else {
                break;
            };
            // Who has given up costs nothing.
            if go(class, who) {
                self.level -= nanos(self.costs[class as usize]);
            }
        }
        let waits = self.waiting.iter().any(|row| !row.is_empty());
        waits.then(|| self.debt().div_f64(self.share.as_secs_f64()).max(TICK))
    }

    fn debt(&self) -> Duration {
        Duration::from_nanos(self.level.min(0).unsigned_abs())
    }

    fn refill(&mut self, now: Duration) {
        let most = nanos(self.share.mul_f64(BURST.as_secs_f64()));
        let since = self.at.replace(now).map(|at| now.saturating_sub(at));
        let come = since.map_or(most, |since| nanos(self.share.mul_f64(since.as_secs_f64().min(3_600.0))));
        self.level = self.level.saturating_add(come).min(most);
    }
}

pub(super) fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of one processor; a login costs 1 ms, so that 500 may come in a second, and 125 at once.
    fn turnstile() -> Turnstile<(&'static str, usize)> {
        Turnstile::new(50, 1, Duration::from_secs(10))
    }

    fn drain<T>(turnstile: &mut Turnstile<T>, now: Duration) -> usize {
        (0..).take_while(|_| turnstile.take(Class::New, now)).count()
    }

    #[test]
    fn a_share_of_the_processors_is_what_logins_get_and_a_rest_saves_a_quarter_of_a_second() {
        let mut turnstile = turnstile();
        assert_eq!(turnstile.logins(), Logins { cost: COST, per_second: 500, waiting: 0 });
        let now = Duration::from_secs(5);
        assert_eq!(drain(&mut turnstile, now), 125);
        assert_eq!(drain(&mut turnstile, now + Duration::from_millis(20)), 10);
        assert_eq!(drain(&mut turnstile, now + Duration::from_secs(3_600)), 125);
    }

    #[test]
    fn who_brings_a_ticket_goes_first_and_each_row_keeps_its_order() {
        let mut turnstile = turnstile();
        drain(&mut turnstile, Duration::ZERO);
        for n in 0..2 {
            turnstile.wait(Class::New, ("new", n));
        }
        for n in 0..3 {
            turnstile.wait(Class::Returning, ("returning", n));
        }
        let mut order = Vec::new();
        let mut at = Duration::ZERO;
        let mut go = |_, who: (&'static str, usize)| {
            let there = who != ("returning", 2);
            order.extend(there.then_some(who));
            there
        };
        while let Some(wait) = turnstile.grant(at, &mut go) {
            at += wait;
        }
        assert_eq!(order, [("returning", 0), ("returning", 1), ("new", 0), ("new", 1)]);
        assert!(at > Duration::from_millis(4) && at < Duration::from_millis(12), "{at:?}");
    }

    #[test]
    fn what_a_login_costs_is_learned_and_no_measure_is_believed_without_bounds() {
        let mut turnstile = turnstile();
        for _ in 0..200 {
            turnstile.learn(Class::New, Duration::from_micros(250));
        }
        let logins = turnstile.logins();
        assert!((499..=502).contains(&logins.cost.as_micros()), "{logins:?}");
        assert!((995..=1_001).contains(&logins.per_second), "{logins:?}");
        for _ in 0..200 {
            turnstile.learn(Class::New, Duration::from_secs(5));
        }
        assert!(turnstile.logins().cost <= COSTS.1);
    }
}
