//! What waits for one receiver: bounded, the oldest goes first out and first away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Notify;

use super::text::{clean, cut};
use crate::events::Record;

/// How the alarm begins that tells of a receiver; behind its name stands what that answered.
pub const UNREACHED: &str = "events do not reach ";

/// Most events that wait for one receiver, beside the one that is on its way.
pub const WAITING: usize = 1000;
/// Longest reason that is shown, in bytes.
const REASON_BYTES: usize = 300;

/// What became of the events for one receiver since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The receiver, without secrets, such as `syslog at udp://log.example.org:514`.
    pub to: String,
    /// Delivered, as far as the receiver's protocol tells.
    pub delivered: u64,
    /// Dropped because [`WAITING`] others waited.
    pub dropped: u64,
    /// Given up: not delivered within an hour, refused for good, or what a bug comes from.
    pub given_up: u64,
    /// Deliveries that a bug ended.
    pub panics: u64,
    /// Not delivered yet.
    pub waiting: usize,
}

/// An event and the time since it waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub record: Arc<Record>,
    pub since: Instant,
}

/// The events for one receiver.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    settled: Notify,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// One is on its way.
    busy: bool,
    counts: Counts,
    /// Why the last attempt failed, if it did.
    trouble: Option<String>,
}

impl Queue {
    pub fn new(to: String) -> Queue {
        let counts = Counts { to, ..Counts::default() };
        let state = State { waiting: VecDeque::new(), busy: false, counts, trouble: None };
        Queue { state: Mutex::new(state), arrived: Notify::new(), settled: Notify::new() }
    }

    /// Adds one. It never waits: where it is full, the oldest goes.
    pub fn put(&self, record: Arc<Record>, now: Instant) {
        let mut state = self.state();
        if state.waiting.len() >= WAITING {
            state.waiting.pop_front();
            state.counts.dropped += 1;
        }
        state.waiting.push_back(Waiting { record, since: now });
        drop(state);
        self.arrived.notify_one();
    }

    /// The oldest, as soon as there is one; it is on its way from then on.
    pub async fn next(&self) -> Waiting {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Waiting> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        state.busy = next.is_some();
        if !state.busy {
            self.settled.notify_waiters();
        }
        next
    }

    /// The one on its way has arrived. Whether the receiver was in trouble until now.
    pub fn delivered(&self) -> bool {
        let mut state = self.state();
        state.counts.delivered += 1;
        state.trouble.take().is_some()
    }

    /// The one on its way is given up.
    pub fn given_up(&self) {
        self.state().counts.given_up += 1;
    }

    /// An attempt failed. Whether this is the first one that did.
    pub fn failed(&self, why: &str) -> bool {
        let why = cut(&clean(why), REASON_BYTES).to_owned();
        self.state().trouble.replace(why).is_none()
    }

    /// A bug ended an attempt.
    pub fn panicked(&self) {
        let mut state = self.state();
        state.counts.panics += 1;
        let panics = state.counts.panics;
        // Only the figure changes while the alarm stays.
        state.trouble = Some(format!(
            "deliveries that a bug of this node ended: {panics}, please report it with the node's log"
        ));
    }

    /// One sentence for the operator while the receiver does not work.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        let why = state.trouble.as_ref()?;
        let Counts { to, dropped, given_up, .. } = &state.counts;
        let lost = dropped + given_up;
        let waiting = state.count_waiting();
        Some(format!(
            "{UNREACHED}{to}: {why}; {waiting} wait and {lost} were given up: see that it runs and can be \
             reached from here, or correct its [[notify]]"
        ))
    }

    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts { waiting: state.count_waiting(), ..state.counts.clone() }
    }

    /// Until nothing waits and nothing is on its way.
    pub async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.state().count_waiting() == 0 {
                return;
            }
            settled.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count_waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.busy)
    }
}
