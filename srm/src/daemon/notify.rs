//! What systemd is told (sd_notify): that the node serves, that it reads its configuration again, that it stops, and, as
//! long as the node's thread goes round, that it lives. Without systemd all of it does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::sockets::boottime_ms;

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens, or not any more: the node serves all the same.
    let _ = sd_notify::notify(false, states);
}

/// All ports are open. Then keeps the watchdog quiet, if there is one: a node whose thread stands still for as long as the
/// watchdog waits is ended by it, and its peer takes over.
pub(super) async fn serving(heart: Arc<AtomicU64>) {
    tell(&[NotifyState::Ready]);
    let mut limit_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut limit_us) {
        return;
    }
    let limit = Duration::from_micros(limit_us);
    loop {
        let since_ms = boottime_ms().saturating_sub(heart.load(Ordering::Relaxed));
        if goes_round(since_ms, limit) {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(limit / 4).await;
    }
}

/// Whether the node's thread went round lately, so that there is time to end it before its users have waited for long.
fn goes_round(since_ms: u64, limit: Duration) -> bool {
    u128::from(since_ms) < limit.as_millis() / 2
}

/// The configuration is being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(since) => tell(&[NotifyState::Reloading, since]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It was read.
pub(super) fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The node hands everything over and ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_for_half_of_the_watchdogs_time_is_not_told_to_live() {
        let limit = Duration::from_secs(10);
        assert!(goes_round(0, limit) && goes_round(4_999, limit));
        assert!(!goes_round(5_000, limit) && !goes_round(u64::MAX, limit));
    }
}
