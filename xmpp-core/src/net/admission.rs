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
//!
//! Who goes when is decided in [`super::turnstile`]; here are the sockets.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::hello::brings_ticket;
use super::turnstile::{Class, Logins, Turnstile};

/// What may be spent on logins, and who waits for it.
#[derive(Clone)]
pub(super) struct Admission {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    begun: Instant,
    turnstile: Turnstile<oneshot::Sender<()>>,
    pumped: bool,
}

impl Admission {
    /// `percent` of `cores` processors; nobody waits longer than `deadline`.
    pub fn new(percent: u32, cores: usize, deadline: Duration) -> Admission {
        let turnstile = Turnstile::new(percent, cores, deadline);
        let inner = Inner { begun: Instant::now(), turnstile, pumped: false };
        Admission { inner: Arc::new(Mutex::new(inner)) }
    }

    /// These settings with what `before` has measured, and who waits there.
    pub fn after(self, before: &Admission) -> Admission {
        let (share, deadline) = {
            let new = self.lock();
            (new.turnstile.share, new.turnstile.deadline)
        };
        let mut inner = before.lock();
        (inner.turnstile.share, inner.turnstile.deadline) = (share, deadline);
        drop(inner);
        before.clone()
    }

    pub fn logins(&self) -> Logins {
        self.lock().turnstile.logins()
    }

    /// Waits for the turn of this connection, if it must; `None`: it is not to go on.
    pub async fn enter(&self, tcp: &TcpStream) -> Option<Class> {
        // Who says nothing spends nothing.
        if !matches!(tcp.peek(&mut [0]).await, Ok(1)) {
            return None;
        }
        if self.lock().take(Class::New) {
            // Nobody looks who comes while all may come. What it costs is counted as for a new one.
            return Some(Class::New);
        }
        let class = if brings_ticket(tcp).await { Class::Returning } else { Class::New };
        let (waits, deadline) = {
            let mut inner = self.lock();
            if inner.take(class) {
                return Some(class);
            }
            if inner.turnstile.is_too_long(class) {
                return None;
            }
            let (go, waits) = oneshot::channel();
            inner.turnstile.wait(class, go);
            if !std::mem::replace(&mut inner.pumped, true) {
                tokio::spawn(pump(self.inner.clone()));
            }
            (waits, inner.turnstile.deadline())
        };
        matches!(tokio::time::timeout(deadline, waits).await, Ok(Ok(()))).then_some(class)
    }

    /// A login of this class took so much processor time up to SASL's end.
    pub fn learn(&self, class: Class, spent: Duration) {
        self.lock().turnstile.learn(class, spent);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn take(&mut self, class: Class) -> bool {
        let now = self.begun.elapsed();
        self.turnstile.take(class, now)
    }

    /// Lets go on who may; how long until the next, if somebody waits.
    fn grant(&mut self) -> Option<Duration> {
        let now = self.begun.elapsed();
        let next = self.turnstile.grant(now, |_, go| go.send(()).is_ok());
        self.pumped = next.is_some();
        next
    }
}

/// Lets those who wait go on until there are none.
async fn pump(inner: Arc<Mutex<Inner>>) {
    loop {
        let next = lock(&inner).grant();
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

    use super::super::turnstile::{TICK, nanos};
    use super::*;

    /// Half of one processor; a login costs 1 ms, so that 500 may come in a second, and 125 at once.
    fn admission(deadline_ms: u64) -> Admission {
        Admission::new(50, 1, Duration::from_millis(deadline_ms))
    }

    #[test]
    fn other_settings_go_on_with_what_was_measured() {
        let admission = admission(10_000);
        admission.learn(Class::New, Duration::from_millis(20));
        let other = Admission::new(100, 1, Duration::from_secs(1)).after(&admission);
        assert_eq!(other.logins().cost, admission.logins().cost, "what was measured goes on");
        assert_eq!(other.lock().turnstile.share, Duration::from_secs(1));
    }

    /// So much was spent ahead.
    fn owe(admission: &Admission, ms: u64) {
        let mut inner = admission.lock();
        let now = inner.begun.elapsed();
        (inner.turnstile.level, inner.turnstile.at) = (-nanos(Duration::from_millis(ms)), Some(now));
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
