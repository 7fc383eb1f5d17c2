//! The clock that sessions live by: it shows wall time, goes evenly, and never back. A wall clock that is set, by hand or by
//! NTP after a bad start, must not end in a moment all sessions that wait for their clients, nor keep them for hours.

use crate::sockets::boottime_ms;

/// A difference up to this is followed at once: NTP slews, and a process that slept.
const SMALL_US: i64 = 1_000_000;
/// A larger one is followed by so much of the time that passes: one part in ten.
const PART: i64 = 10;

/// Shows wall time, evenly.
#[derive(Debug)]
pub struct Clock {
    boot_ms: u64,
    /// In microseconds, so that short steps lose nothing.
    shown_us: i64,
    /// The wall clock was set, and is not caught up with yet.
    behind: bool,
}

impl Clock {
    /// Begins with the wall clock.
    pub fn start() -> Clock {
        Clock::at(boottime_ms(), super::worker::now_ms())
    }

    fn at(boot_ms: u64, wall_ms: u64) -> Clock {
        Clock { boot_ms, shown_us: wall_ms as i64 * 1_000, behind: false }
    }

    /// Milliseconds since 1970. The second value is by how many seconds the wall clock was just found to have been set.
    pub fn now(&mut self) -> (u64, Option<i64>) {
        self.step(boottime_ms(), super::worker::now_ms())
    }

    fn step(&mut self, boot_ms: u64, wall_ms: u64) -> (u64, Option<i64>) {
        let passed_us = boot_ms.saturating_sub(self.boot_ms) as i64 * 1_000;
        self.boot_ms = self.boot_ms.max(boot_ms);
        let even_us = self.shown_us + passed_us;
        let apart_us = wall_ms as i64 * 1_000 - even_us;
        let set = apart_us.abs() > SMALL_US;
        let told = (set && !self.behind).then_some(apart_us / 1_000_000);
        self.behind = set;
        let follow_us = if set { passed_us / PART } else { apart_us.abs() };
        self.shown_us = self.shown_us.max(even_us + apart_us.signum() * follow_us.min(apart_us.abs()));
        (self.shown_us as u64 / 1_000, told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_clock_that_is_set_is_followed_slowly_and_told_once() {
        let mut clock = Clock::at(0, WALL);
        assert_eq!(clock.step(1_000, WALL + 1_000), (WALL + 1_000, None));
        // Two hours ahead: a session that waits for five minutes is not ended by it.
        let (now, told) = clock.step(2_000, WALL + 2_000 + 2 * HOUR);
        assert_eq!((now, told), (WALL + 2_100, Some(7_200)));
        assert_eq!(clock.step(3_000, WALL + 3_000 + 2 * HOUR), (WALL + 3_200, None));
        // And it gets there.
        let mut boot = 3_000;
        while clock.step(boot, WALL + boot + 2 * HOUR).0 < WALL + boot + 2 * HOUR - 1_000 {
            boot += 250;
        }
        assert!((19 * HOUR..=21 * HOUR).contains(&boot), "{boot}");
    }

    #[test]
    fn it_never_goes_back_and_short_steps_add_up() {
        let mut clock = Clock::at(0, WALL);
        let (mut last, mut told) = (WALL, Vec::new());
        for boot in 1..=10_000 {
            let (now, set) = clock.step(boot, WALL + boot - 2 * HOUR);
            assert!(now >= last);
            last = now;
            told.extend(set);
        }
        assert_eq!((last, told), (WALL + 9_000, vec![-7_200]));
    }

    #[test]
    fn small_differences_are_followed_at_once() {
        let mut clock = Clock::at(0, WALL);
        assert_eq!(clock.step(1_000, WALL + 1_400).0, WALL + 1_400);
        assert_eq!(clock.step(2_000, WALL + 1_900).0, WALL + 1_900);
        assert_eq!(clock.step(2_010, WALL + 1_000).0, WALL + 1_900, "never back");
    }
}
