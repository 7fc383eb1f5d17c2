//! Whether a store does its work, for whoever watches over it. Nothing here waits for the store: it may stand still.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::StoreError;
use super::behind::Job;

/// How long a write may take,
const LIMIT: Duration = Duration::from_secs(60);
/// and for each pair of it more: a store that is built anew is written in one batch.
const LIMIT_OF_PAIR: Duration = Duration::from_millis(1);
/// So many checkpoints in a row that come to nothing are more than an engine that has to be built anew.
const FAILURES: u32 = 3;

/// What a store is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Checkpoint,
    Probe,
    Reopen,
}

/// How a store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It takes what it is given. So often it has made a write durable.
    Well(u64),
    /// It does not: why.
    Wrong(String),
}

#[derive(Debug, Default)]
struct Seen {
    /// The write under way: since when, and how long it may take.
    busy: Option<(Instant, Duration)>,
    /// A probe is on its way.
    asked: bool,
    /// Why there is no engine.
    none: Option<String>,
    /// What the last probe came to, if it failed.
    probe: Option<String>,
    /// Checkpoints in a row that came to nothing, and why the last one did.
    failures: (u32, String),
    written: u64,
}

/// Another end of a [`super::Behind`].
#[derive(Clone, Debug)]
pub struct Watch {
    jobs: Weak<Sender<Job>>,
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    pub(super) fn new(jobs: &Arc<Sender<Job>>) -> Watch {
        Watch { jobs: Arc::downgrade(jobs), seen: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, job: Job) {
        if let Some(jobs) = self.jobs.upgrade() {
            let _ = jobs.send(job);
        }
    }

    /// How it is now.
    pub fn look(&self) -> Found {
        let seen = self.seen();
        let late = seen.busy.filter(|(since, limit)| since.elapsed() > *limit);
        let wrong = match (&seen.none, &seen.probe, late) {
            (Some(why), ..) => format!("there is none: {why}"),
            _ if seen.failures.0 >= FAILURES => {
                format!("{} checkpoints in a row were not written: {}", seen.failures.0, seen.failures.1)
            }
            (_, Some(why), _) => why.clone(),
            (.., Some((since, _))) => {
                format!("a write has not come to its end for {} s", since.elapsed().as_secs())
            }
            _ => return Found::Well(seen.written),
        };
        Found::Wrong(wrong)
    }

    /// Has it write and flush what it holds once more, as soon as it comes to that; [`Watch::look`] shows what came of it.
    pub fn probe(&self) {
        if !std::mem::replace(&mut self.seen().asked, true) {
            self.tell(Job::Probe);
        }
    }

    /// Has it close its engine and open it again, and write.
    pub fn restart(&self) {
        self.tell(Job::Reopen);
        self.probe();
    }

    pub(super) fn begin(&self, work: Work, pairs: usize) {
        let mut seen = self.seen();
        seen.asked &= work != Work::Probe;
        let pairs = u32::try_from(pairs).unwrap_or(u32::MAX);
        seen.busy = Some((Instant::now(), LIMIT + LIMIT_OF_PAIR * pairs));
    }

    pub(super) fn end(&self, work: Work, result: &Result<(), StoreError>) {
        let mut seen = self.seen();
        seen.busy = None;
        let why = result.as_ref().err().map(|error| error.0.clone());
        match (work, why) {
            (Work::Checkpoint, Some(why)) => seen.failures = (seen.failures.0 + 1, why),
            (Work::Checkpoint, None) => {
                (seen.failures, seen.probe) = ((0, String::new()), None);
                seen.written += 1;
            }
            (Work::Probe, None) => {
                seen.probe = None;
                seen.written += 1;
            }
            (Work::Probe | Work::Reopen, why) => seen.probe = why.or(seen.probe.take()),
        }
    }

    pub(super) fn engine(&self, none: Option<&StoreError>) {
        self.seen().none = none.map(|error| error.0.clone());
    }
}
