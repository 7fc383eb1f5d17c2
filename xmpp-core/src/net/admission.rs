//! Which connections may go on to TLS when more come than the processors can take: a storm of logins, after a failover or
//! a break of the network.
//!
//! A login costs processor time, most of it for TLS. Logins may take a share of all processors and no more; the rest
//! is for those who have logged in, for replication and for beacons. What comes above waits *before* TLS, where it costs
//! a socket and little memory, in two rows: first who brings a TLS ticket, because it was here or on the peer before and
//! most likely resumes a session, then all others. Who flips a parked stream does not come here at all.
//!
//! A connection that would have to wait longer than the deadline is closed at once, and one that has waited for so long
//! is closed too: its client has given up, or soon will, and what is spent on it is lost.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::hello::brings_ticket;

/// What a login costs before one was measured.
const COST: Duration = Duration::from_millis(1);
/// What is believed of a measure.
const COSTS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(50));
/// A new measure has this part in the mean.
const WEIGHT: u32 = 16;
/// A login goes on after TLS and SASL: bind, roster, presence, and the peer's copy of it all. Measured, that is about as
/// much again.
const WHAT_FOLLOWS: u32 = 2;
/// Processor time that may be spent at once after a rest, as a time of the whole share.
const BURST: Duration = Duration::from_millis(250);
/// The timer's grain.
const TICK: Duration = Duration::from_millis(1);

/// What a connection is before TLS, by what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Its hello brings a ticket.
    Returning,
    /// It does not, or cannot be told.
    New,
}

/// What may be spent on logins, and who waits for it.
#[derive(Clone)]
pub(super) struct Admission {
    inner: Arc<Mutex<Inner>>,
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

struct Inner {
    /// Processor time per second, of all processors.
    share: Duration,
    deadline: Duration,
    /// Processor time that may be spent now, in nanoseconds; below zero, what was spent ahead.
    level: i64,
    at: Option<Instant>,
    /// By class.
    costs: [Duration; 2],
    waiting: [VecDeque<oneshot::Sender<()>>; 2],
    pumped: bool,
}

impl Admission {
    /// `percent` of `cores` processors; nobody waits longer than `deadline`.
    pub fn new(percent: u32, cores: usize, deadline: Duration) -> Admission {
        let share = Duration::from_millis(10).saturating_mul(percent) * cores.max(1) as u32;
        let inner = Inner {
            share,
            deadline,
            level: 0,
            at: None,
            costs: [COST; 2],
            waiting: Default::default(),
            pumped: false,
        };
        Admission { inner: Arc::new(Mutex::new(inner)) }
    }

    /// These settings with what `before` has measured, and who waits there.
    pub fn after(self, before: &Admission) -> Admission {
        let (share, deadline) = {
            let new = self.lock();
            (new.share, new.deadline)
        };
        let mut inner = before.lock();
        (inner.share, inner.deadline) = (share, deadline);
        drop(inner);
        before.clone()
    }

    pub fn logins(&self) -> Logins {
        let inner = self.lock();
        let cost = inner.costs[Class::New as usize];
        let per_second = (inner.share.as_nanos() / cost.as_nanos().max(1)).max(1) as u32;
        Logins { cost, per_second, waiting: inner.waiting.iter().map(VecDeque::len).sum() }
    }

    /// Waits for the turn of this connection, if it must; `None`: it is not to go on.
    pub async fn enter(&self, tcp: &TcpStream) -> Option<Class> {
        // Who says nothing spends nothing.
        if !matches!(tcp.peek(&mut [0]).await, Ok(1)) {
            return None;
        }
        if self.lock().take(Class::New, Instant::now()) {
            // Nobody looks who comes while all may come. What it costs is counted as for a new one.
            return Some(Class::New);
        }
        let class = if brings_ticket(tcp).await { Class::Returning } else { Class::New };
        let (waits, deadline) = {
            let mut inner = self.lock();
            if inner.take(class, Instant::now()) {
                return Some(class);
            }
            if inner.delay(class) > inner.deadline {
                return None;
            }
            let (go, waits) = oneshot::channel();
            inner.waiting[class as usize].push_back(go);
            if !std::mem::replace(&mut inner.pumped, true) {
                tokio::spawn(pump(self.inner.clone()));
            }
            (waits, inner.deadline)
        };
        matches!(tokio::time::timeout(deadline, waits).await, Ok(Ok(()))).then_some(class)
    }

    /// A login of this class took so much processor time up to SASL's end.
    pub fn learn(&self, class: Class, spent: Duration) {
        let (least, most) = COSTS;
        let spent = (spent * WHAT_FOLLOWS).clamp(least, most);
        let cost = &mut self.lock().costs[class as usize];
        *cost = (*cost * (WEIGHT - 1) + spent) / WEIGHT;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn refill(&mut self, now: Instant) {
        let most = nanos(self.share.mul_f64(BURST.as_secs_f64()));
        let since = self.at.replace(now).map(|at| now.saturating_duration_since(at));
        let come = since.map_or(most, |since| nanos(self.share.mul_f64(since.as_secs_f64().min(3_600.0))));
        self.level = self.level.saturating_add(come).min(most);
    }

    /// Goes on at once, unless somebody waits or nothing is left.
    fn take(&mut self, class: Class, now: Instant) -> bool {
        self.refill(now);
        let free = self.level > 0 && self.waiting.iter().all(VecDeque::is_empty);
        if free {
            self.level -= nanos(self.costs[class as usize]);
        }
        free
    }

    /// How long one of this class would wait that came now.
    fn delay(&self, class: Class) -> Duration {
        let before = |c: Class| self.costs[c as usize] * self.waiting[c as usize].len() as u32;
        let new = if class == Class::New { before(Class::New) } else { Duration::ZERO };
        let debt = Duration::from_nanos(self.level.min(0).unsigned_abs());
        (before(Class::Returning) + new + debt).div_f64(self.share.as_secs_f64())
    }

    /// Lets go on who may; how long until the next, if somebody waits.
    fn grant(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        while self.level > 0 {
            let mut rows = [Class::Returning, Class::New].into_iter();
            let Some((class, go)) =
                rows.find_map(|class| Some((class, self.waiting[class as usize].pop_front()?)))
            else {
                break;
            };
            // Who has given up costs nothing.
            if go.send(()).is_ok() {
                self.level -= nanos(self.costs[class as usize]);
            }
        }
        if self.waiting.iter().all(VecDeque::is_empty) {
            self.pumped = false;
            return None;
        }
        let debt = Duration::from_nanos(self.level.min(0).unsigned_abs());
        Some(debt.div_f64(self.share.as_secs_f64()).max(TICK))
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Lets those who wait go on until there are none.
async fn pump(inner: Arc<Mutex<Inner>>) {
    loop {
        let next = lock(&inner).grant(Instant::now());
        let Some(next) = next else { return };
        tokio::time::sleep(next).await;
    }
}

/// Processor time of one login, in whichever threads it runs.
#[derive(Default)]
pub(super) struct Spent(AtomicU64);

impl Spent {
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// A future whose processor time is counted.
pub(super) struct Metered<'a, F> {
    pub future: Pin<Box<F>>,
    pub spent: &'a Spent,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let from = thread_time();
        let poll = self.future.as_mut().poll(cx);
        self.spent.add(thread_time().saturating_sub(from));
        poll
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// Half of one processor; a login costs 1 ms, so that 500 may come in a second, and 125 at once.
    fn admission(deadline_ms: u64) -> Admission {
        Admission::new(50, 1, Duration::from_millis(deadline_ms))
    }

    fn drain(inner: &mut Inner, now: Instant) -> usize {
        (0..).take_while(|_| inner.take(Class::New, now)).count()
    }

    #[test]
    fn a_share_of_the_processors_is_what_logins_get_and_a_rest_saves_a_quarter_of_a_second() {
        let admission = admission(10_000);
        assert_eq!(admission.logins(), Logins { cost: COST, per_second: 500, waiting: 0 });
        let mut inner = admission.lock();
        let now = Instant::now();
        assert_eq!(drain(&mut inner, now), 125);
        assert_eq!(drain(&mut inner, now + Duration::from_millis(20)), 10);
        assert_eq!(drain(&mut inner, now + Duration::from_secs(3_600)), 125);
    }

    #[test]
    fn who_brings_a_ticket_goes_first_and_each_row_keeps_its_order() {
        let admission = admission(10_000);
        let mut inner = admission.lock();
        let now = Instant::now();
        drain(&mut inner, now);
        let mut come = |class: Class| {
            let (go, waits) = oneshot::channel();
            inner.waiting[class as usize].push_back(go);
            waits
        };
        let mut new = [come(Class::New), come(Class::New)];
        let mut returning = [come(Class::Returning), come(Class::Returning)];
        drop(come(Class::Returning));
        let mut order = Vec::new();
        for ms in (0..).step_by(2) {
            let next = inner.grant(now + Duration::from_millis(ms));
            let rows = [("returning", &mut returning), ("new", &mut new)];
            order.extend(rows.into_iter().flat_map(|(name, row)| {
                let went =
                    row.iter_mut().enumerate().filter_map(|(i, waits)| waits.try_recv().ok().map(|()| i));
                went.map(|i| (name, i)).collect::<Vec<_>>()
            }));
            if next.is_none() {
                break;
            }
        }
        assert_eq!(order, [("returning", 0), ("returning", 1), ("new", 0), ("new", 1)]);
        assert!(!inner.pumped);
    }

    #[test]
    fn what_a_login_costs_is_learned_and_no_measure_is_believed_without_bounds() {
        let admission = admission(10_000);
        for _ in 0..200 {
            admission.learn(Class::New, Duration::from_micros(250));
        }
        let logins = admission.logins();
        assert!((499..=502).contains(&logins.cost.as_micros()), "{logins:?}");
        assert!((995..=1_001).contains(&logins.per_second), "{logins:?}");
        for _ in 0..200 {
            admission.learn(Class::New, Duration::from_secs(5));
        }
        assert!(admission.logins().cost <= COSTS.1);
        let other = Admission::new(100, 1, Duration::from_secs(1)).after(&admission);
        assert_eq!(other.logins().cost, admission.logins().cost, "what was measured goes on");
        assert_eq!(other.lock().share, Duration::from_secs(1));
    }

    /// So much was spent ahead.
    fn owe(admission: &Admission, ms: u64) {
        let mut inner = admission.lock();
        (inner.level, inner.at) = (-nanos(Duration::from_millis(ms)), Some(Instant::now()));
    }

    async fn socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_not_kept_and_all_others_go_on_in_time() {
        let admission = admission(10_000);
        let (client, server) = socket().await;
        client.try_write(b"no TLS at all").unwrap();
        owe(&admission, 20);
        let server = Arc::new(server);
        let mut all = JoinSet::new();
        for _ in 0..20 {
            let (admission, server) = (admission.clone(), server.clone());
            all.spawn(async move { admission.enter(&server).await });
        }
        let all = all.join_all().await;
        assert!(all.iter().all(|class| *class == Some(Class::New)), "{all:?}");
        assert_eq!(admission.logins().waiting, 0);
        // Six seconds of processor time ahead are twelve seconds.
        owe(&admission, 6_000);
        assert_eq!(admission.enter(&server).await, None);
        assert_eq!(admission.logins().waiting, 0, "it was closed without having waited");
    }

    #[tokio::test]
    async fn who_has_waited_until_the_deadline_goes() {
        let admission = admission(30);
        let (client, server) = socket().await;
        client.try_write(b"no TLS at all").unwrap();
        let first = async {
            owe(&admission, 10);
            admission.enter(&server).await
        };
        let flood = async {
            tokio::task::yield_now().await;
            // Others spend what it waited for.
            for _ in 0..60 {
                owe(&admission, 10);
                tokio::time::sleep(TICK).await;
            }
        };
        let (first, ()) = tokio::join!(first, flood);
        assert_eq!(first, None);
    }

    #[tokio::test]
    async fn processor_time_of_a_future_is_counted_and_waiting_is_not() {
        let spent = Spent::default();
        let future = Box::pin(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let until = thread_time() + Duration::from_millis(3);
            while thread_time() < until {}
        });
        Metered { future, spent: &spent }.await;
        let time = spent.time();
        assert!(time >= Duration::from_millis(3) && time < Duration::from_millis(40), "{time:?}");
    }
}
