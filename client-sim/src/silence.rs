//! How long a stream has said nothing. While it is not read, nothing can be heard on it; that time is neither proof of
//! its death nor a new beginning.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The clock of one stream's silence. All times are counted from some fixed start.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    heard: Duration,
    /// For how long it was not read since it was last heard.
    unread: Duration,
    /// Since when it is not read.
    unread_since: Option<Duration>,
}

impl Silence {
    /// A stream that begins now, or is heard now.
    pub fn new(now: Duration) -> Silence {
        Silence { heard: now, unread: Duration::ZERO, unread_since: None }
    }

    /// Something arrived.
    pub fn heard(&mut self, now: Duration) {
        *self = Silence::new(now);
    }

    /// The stream is read from now on, or no longer.
    pub fn read(&mut self, now: Duration, on: bool) {
        match self.unread_since {
            Some(since) if on => {
                self.unread += now.saturating_sub(since);
                self.unread_since = None;
            }
            None if !on => self.unread_since = Some(now),
            _ => {}
        }
    }

    /// For how long nothing was heard, read or not.
    pub fn length(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// Whether it has been silent for `limit`, and for half of that while it was read. Periods add up: to stop reading
    /// it now and then keeps no dead stream alive.
    pub fn is_over(&self, now: Duration, limit: Duration) -> bool {
        let open = self.unread_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let silent = self.length(now);
        silent >= limit && silent.saturating_sub(self.unread + open) >= limit / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stream_that_is_read_is_silent_after_the_limit() {
        let mut silence = Silence::new(at(0));
        assert!(!silence.is_over(at(59), LIMIT) && silence.is_over(at(60), LIMIT));
        silence.heard(at(60));
        assert!(!silence.is_over(at(119), LIMIT) && silence.is_over(at(120), LIMIT));
    }

    #[test]
    fn a_stream_that_was_not_read_has_time_to_be_heard() {
        let mut silence = Silence::new(at(0));
        silence.read(at(5), false);
        assert!(!silence.is_over(at(500), LIMIT), "nobody listened");
        silence.read(at(90), true);
        assert!(!silence.is_over(at(114), LIMIT) && silence.is_over(at(115), LIMIT));
    }

    #[test]
    fn flips_that_fail_again_and_again_keep_no_dead_stream_alive() {
        let mut silence = Silence::new(at(0));
        let dead = (0..100).find(|round| {
            silence.read(at(round * 10 + 5), false);
            silence.read(at(round * 10 + 10), true);
            silence.is_over(at(round * 10 + 10), LIMIT)
        });
        assert_eq!(dead, Some(5), "six rounds of 10 s, half of it read");
    }
}
