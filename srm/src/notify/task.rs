//! One receiver's task: one event after the other, each again and again until it is delivered or given up.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::queue::{Queue, Waiting};
use crate::events::Record;

/// Time for a connection, without what is said on it.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time for a whole delivery: name, connection, and the receiver's answer.
pub(super) const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two attempts: the first, and the longest. Each is twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long an event is tried; then it is given up.
const KEEP: Duration = Duration::from_secs(60 * 60);
/// How often a bug may end what is done with one event; then that is given up, since it may be what the bug comes from.
const BUGS: u32 = 3;

/// Why an event was not delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For the operator, without secrets.
    pub why: String,
    /// Whether the same event may be delivered later. If not, the receiver refuses this one for good.
    pub again: bool,
}

impl Failure {
    /// The receiver does not work at present.
    pub fn again(why: impl ToString) -> Failure {
        Failure { why: why.to_string(), again: true }
    }

    /// The receiver works and refuses this event, as it would again.
    pub fn refused(why: impl ToString) -> Failure {
        Failure { why: why.to_string(), again: false }
    }
}

/// A way to a receiver. What is dropped in the midst of a delivery must be able to begin another.
pub(super) trait Deliver {
    /// Delivers one event, or says why it cannot.
    fn deliver(&mut self, record: &Record) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The time that a task goes by.
pub(super) trait Clock {
    /// The present.
    fn now(&self) -> Instant;
    /// Until this time has passed.
    fn sleep(&self, pause: Duration) -> impl Future<Output = ()> + Send;
}

/// The time of this machine.
pub(super) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, pause: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(pause)
    }
}

/// Delivers what arrives in the queue. Dropping the future ends it. A panic costs one attempt: it is told, and the receiver
/// is told of events again after a pause.
pub(super) async fn run(queue: Arc<Queue>, mut way: impl Deliver, clock: impl Clock) -> Infallible {
    let mut pause = PAUSE.0;
    loop {
        let waiting = queue.next().await;
        let mut bugs = 0;
        while !ends(one(&queue, &mut way, &clock, &waiting, &mut pause)).await {
            bugs += 1;
            queue.panicked();
            let (to, id) = (queue.counts().to, waiting.record.id());
            error!(
                event = "notify_bug",
                to, id, "a bug ended a delivery; please report it with the lines above"
            );
            if bugs == BUGS {
                queue.given_up();
                break;
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Whether it comes to its end, and not to a panic.
async fn ends(work: impl Future<Output = ()>) -> bool {
    let mut work = pin!(work);
    let step = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(true),
        Err(_) => Poll::Ready(false),
    });
    step.await
}

/// The pause grows for as long as the receiver does not work, whichever event it is tried with.
async fn one(
    queue: &Queue,
    way: &mut impl Deliver,
    clock: &impl Clock,
    waiting: &Waiting,
    pause: &mut Duration,
) {
    while clock.now().saturating_duration_since(waiting.since) < KEEP {
        let Err(failure) = attempt(way, clock, &waiting.record).await else {
            *pause = PAUSE.0;
            if queue.delivered() {
                info!(event = "notify_works", to = queue.counts().to, "events arrive again");
            }
            return;
        };
        if queue.failed(&failure.why) {
            let why = queue.trouble().unwrap_or_default();
            warn!(event = "notify_failed", why, "events do not arrive");
        }
        if !failure.again {
            *pause = PAUSE.0;
            break;
        }
        clock.sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE.1);
    }
    queue.given_up();
}

async fn attempt(way: &mut impl Deliver, clock: &impl Clock, record: &Record) -> Result<(), Failure> {
    tokio::select! {
        biased;
        done = way.deliver(record) => done,
        () = clock.sleep(DELIVERY_LIMIT) => {
            Err(Failure::again(format!("it takes longer than {} seconds", DELIVERY_LIMIT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::super::queue::{Counts, WAITING};
    use super::super::tests::record;
    use super::*;

    /// What a receiver answers each time.
    enum Answer {
        Takes,
        Fails,
        Refuses,
        Hangs,
        Panics,
    }

    /// A clock on which every pause is over at once.
    #[derive(Clone)]
    struct Leaping {
        start: Instant,
        passed: Arc<Mutex<Duration>>,
    }

    impl Clock for Leaping {
        fn now(&self) -> Instant {
            self.start + *self.passed.lock().unwrap()
        }

        async fn sleep(&self, pause: Duration) {
            *self.passed.lock().unwrap() += pause;
        }
    }

    /// Answers by its list, then by its last one. It notes each attempt: seconds since its start, number of the event.
    struct Receiver {
        answers: VecDeque<Answer>,
        attempts: Attempts,
        clock: Leaping,
    }

    type Attempts = Arc<Mutex<Vec<(u64, u64)>>>;

    impl Deliver for Receiver {
        async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
            let second = self.clock.passed.lock().unwrap().as_secs();
            self.attempts.lock().unwrap().push((second, record.number));
            let answer = if self.answers.len() > 1 { self.answers.pop_front() } else { None };
            match answer.as_ref().or(self.answers.front()) {
                Some(Answer::Takes) | None => Ok(()),
                Some(Answer::Fails) => Err(Failure::again("down\r\nnow")),
                Some(Answer::Refuses) => Err(Failure::refused("no")),
                Some(Answer::Hangs) => std::future::pending().await,
                Some(Answer::Panics) => panic!("as the test wants"),
            }
        }
    }

    /// A running task. It runs when the test waits.
    struct Running {
        queue: Arc<Queue>,
        attempts: Attempts,
        start: Instant,
    }

    impl Running {
        fn new(answers: impl IntoIterator<Item = Answer>) -> Running {
            let queue = Arc::new(Queue::new("test".into()));
            let (attempts, start) = (Attempts::default(), Instant::now());
            let clock = Leaping { start, passed: Arc::default() };
            let receiver = Receiver {
                answers: answers.into_iter().collect(),
                attempts: Arc::clone(&attempts),
                clock: clock.clone(),
            };
            tokio::spawn(run(Arc::clone(&queue), receiver, clock));
            Running { queue, attempts, start }
        }

        fn put(&self, number: u64, second: u64) {
            let record = Record { number, ..record() };
            self.queue.put(Arc::new(record), self.start + Duration::from_secs(second));
        }

        /// All attempts since the last call, once everything is settled.
        async fn attempts(&self) -> Vec<(u64, u64)> {
            self.queue.settle().await;
            std::mem::take(&mut self.attempts.lock().unwrap())
        }
    }

    #[tokio::test]
    async fn pauses_double_up_to_a_minute_and_begin_anew_after_a_delivery() {
        use Answer::{Fails, Takes};
        let task = Running::new(std::iter::repeat_with(|| Fails).take(8).chain([Takes, Fails, Takes]));
        task.put(1, 0);
        let seconds: Vec<u64> = task.attempts().await.into_iter().map(|(second, _)| second).collect();
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        task.put(2, 183);
        assert_eq!(task.attempts().await, [(183, 2), (184, 2)]);
        assert_eq!((task.queue.counts().delivered, task.queue.counts().given_up), (2, 0));
    }

    #[tokio::test]
    async fn an_event_is_given_up_after_an_hour_and_those_behind_it_when_their_hour_is_over() {
        let task = Running::new([Answer::Fails]);
        task.put(1, 0);
        task.put(2, 1800);
        let attempts = task.attempts().await;
        let last = |number| attempts.iter().rfind(|(_, known)| *known == number).unwrap().0;
        assert!((3540..3600).contains(&last(1)) && (5340..5400).contains(&last(2)), "{attempts:?}");
        assert_eq!(task.queue.counts(), Counts { to: "test".into(), given_up: 2, ..Counts::default() });
        let why = task.queue.trouble().unwrap();
        assert!(
            why.starts_with("events do not reach test: down  now; 0 wait and 2 were given up: see"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn an_event_that_is_refused_for_good_holds_up_no_other() {
        let task = Running::new([Answer::Refuses, Answer::Takes]);
        task.put(1, 0);
        task.put(2, 0);
        assert_eq!(task.attempts().await, [(0, 1), (0, 2)]);
        let counts = task.queue.counts();
        assert_eq!((counts.given_up, counts.delivered, task.queue.trouble()), (1, 1, None));
    }

    #[tokio::test]
    async fn a_receiver_that_hangs_is_left_after_thirty_seconds() {
        let task = Running::new([Answer::Hangs, Answer::Takes]);
        task.put(1, 0);
        assert_eq!(task.attempts().await, [(0, 1), (31, 1)]);
        assert_eq!(task.queue.trouble(), None);
        let task = Running::new([Answer::Hangs]);
        task.put(1, 0);
        task.queue.settle().await;
        assert!(
            task.queue.trouble().unwrap().contains("longer than 30 seconds"),
            "{:?}",
            task.queue.trouble()
        );
    }

    #[tokio::test]
    async fn a_bug_in_a_delivery_costs_an_attempt_and_is_told_and_counted() {
        use Answer::{Panics, Takes};
        let task = Running::new([Panics, Panics, Takes]);
        task.put(1, 0);
        assert_eq!(task.attempts().await, [(0, 1), (1, 1), (3, 1)]);
        let delivered = Counts { to: "test".into(), delivered: 1, panics: 2, ..Counts::default() };
        assert_eq!((task.queue.counts(), task.queue.trouble()), (delivered, None));

        let task = Running::new([Panics]);
        task.put(1, 0);
        assert_eq!(task.attempts().await.len(), 3);
        let why = task.queue.trouble().unwrap();
        assert!(why.contains("deliveries that a bug of this node ended: 3, please report it"), "{why}");
        assert!(why.contains("0 wait and 1 were given up"), "{why}");
    }

    #[tokio::test]
    async fn an_event_that_a_bug_comes_from_holds_up_no_other() {
        use Answer::{Panics, Takes};
        let task = Running::new([Panics, Panics, Panics, Takes]);
        task.put(1, 0);
        task.put(2, 0);
        assert_eq!(task.attempts().await, [(0, 1), (1, 1), (3, 1), (3, 2)]);
        let counts = task.queue.counts();
        assert_eq!((counts.panics, counts.given_up, counts.delivered), (3, 1, 1));
        assert_eq!(task.queue.trouble(), None, "it works again");
    }

    #[tokio::test]
    async fn of_too_many_events_the_oldest_are_dropped_and_counted() {
        let task = Running::new([Answer::Takes]);
        let many = WAITING as u64 + 10;
        (1..=many).for_each(|number| task.put(number, 0));
        assert_eq!((task.queue.counts().waiting, task.queue.counts().dropped), (WAITING, 10));
        let numbers: Vec<u64> = task.attempts().await.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, (11..=many).collect::<Vec<_>>());
        assert_eq!(task.queue.counts().delivered, WAITING as u64);
    }
}
