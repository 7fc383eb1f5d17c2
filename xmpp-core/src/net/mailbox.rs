//! From the node to one connection: writes, credits and the wish to close. Takes no memory while it is empty.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::ToConn;

/// Writes to one connection. Cheap to clone; never blocks. What is sent after the connection is gone is dropped.
pub struct ConnSender(Arc<Shared>);

/// The connection's end. Dropping it makes every sender a no-op.
pub(super) struct Mailbox(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Bytes sent and not yet given to TLS.
    queued: AtomicUsize,
    limit: usize,
    senders: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    queue: Queue,
    credits: u32,
    /// The connection reads nothing until it gets credits.
    starved: bool,
    overflow: bool,
    close: bool,
    gone: bool,
    waker: Option<Waker>,
}

/// Messages in order. Most of the time there is none, or one, and neither takes memory of its own.
#[derive(Default)]
pub(super) enum Queue {
    #[default]
    Empty,
    One(ToConn),
    Many(VecDeque<ToConn>),
}

impl Queue {
    pub fn push(&mut self, message: ToConn) {
        *self = match std::mem::take(self) {
            Queue::Empty => Queue::One(message),
            Queue::One(first) => Queue::Many(VecDeque::from([first, message])),
            Queue::Many(mut all) => {
                all.push_back(message);
                Queue::Many(all)
            }
        }
    }

    pub fn pop(&mut self) -> Option<ToConn> {
        let (first, rest) = match std::mem::take(self) {
            Queue::Empty => return None,
            Queue::One(first) => (Some(first), Queue::Empty),
            Queue::Many(mut all) => {
                let first = all.pop_front();
                (first, if all.is_empty() { Queue::Empty } else { Queue::Many(all) })
            }
        };
        *self = rest;
        first
    }

    fn append(&mut self, mut other: Queue) {
        if matches!(self, Queue::Empty) {
            *self = other;
        } else {
            while let Some(message) = other.pop() {
                self.push(message);
            }
        }
    }
}

/// What was in the mailbox beside messages.
pub(super) struct Taken {
    /// Credits given back since the last time.
    pub credits: u32,
    /// More bytes were queued than the limit allows; they have been dropped.
    pub overflow: bool,
    /// `ToConn::Close` has been sent.
    pub close: bool,
    /// There is no sender any more.
    pub abandoned: bool,
}

/// A mailbox that holds at most `limit` bytes.
pub(super) fn mailbox(limit: usize) -> (ConnSender, Mailbox) {
    let shared = Arc::new(Shared {
        inner: Mutex::default(),
        queued: AtomicUsize::new(0),
        limit,
        senders: AtomicUsize::new(1),
    });
    (ConnSender(shared.clone()), Mailbox(shared))
}

impl ConnSender {
    /// Queues a message. Above the limit on queued bytes the connection is closed instead, resumable.
    pub fn send(&self, message: ToConn) {
        let (ToConn::Write(bytes) | ToConn::Close { last: bytes, .. }) = &message;
        let len = bytes.len();
        let mut inner = self.0.lock();
        if inner.gone || inner.overflow || inner.close {
            return;
        }
        inner.close = matches!(message, ToConn::Close { .. });
        if self.0.queued.fetch_add(len, Ordering::Relaxed) + len > self.0.limit {
            inner.overflow = true;
            inner.queue = Queue::Empty;
        } else {
            inner.queue.push(message);
        }
        wake(inner);
    }

    /// Gives back `n` credits. A connection that waits for them reads on; another finds them when it next looks.
    pub fn credit(&self, n: u32) {
        let mut inner = self.0.lock();
        inner.credits = inner.credits.saturating_add(n);
        if std::mem::take(&mut inner.starved) {
            wake(inner);
        }
    }

    /// Bytes sent and not yet given to TLS: what a slow reader costs.
    pub fn queued_bytes(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Whether the connection is gone, or about to go because it was told to or read too slowly.
    pub fn is_closed(&self) -> bool {
        let inner = self.0.lock();
        inner.gone || inner.overflow || inner.close
    }
}

impl Mailbox {
    /// Moves all messages to `out` and asks to be woken at the next.
    pub fn take(&self, cx: &Context<'_>, out: &mut Queue) -> Taken {
        let mut inner = self.0.lock();
        out.append(std::mem::take(&mut inner.queue));
        if !inner.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        Taken {
            credits: std::mem::take(&mut inner.credits),
            overflow: inner.overflow,
            close: inner.close,
            abandoned: self.0.senders.load(Ordering::Acquire) == 0,
        }
    }

    /// The connection reads nothing until it gets credits: asks to be woken by them. Credits that have come meanwhile are
    /// given instead.
    pub fn starve(&self) -> u32 {
        let mut inner = self.0.lock();
        inner.starved = inner.credits == 0;
        std::mem::take(&mut inner.credits)
    }

    /// `n` of the bytes sent were given to TLS.
    pub fn written(&self, n: usize) {
        self.0.queued.fetch_sub(n, Ordering::Relaxed);
    }
}

/// What comes to a connection that has no socket: a node's own, for what it says to itself.
pub struct Inbox {
    mailbox: Mailbox,
    queue: Mutex<Queue>,
}

impl Inbox {
    /// One that holds at most `limit` bytes, and its sender.
    pub fn new(limit: usize) -> (ConnSender, Inbox) {
        let (sender, mailbox) = mailbox(limit);
        (sender, Inbox { mailbox, queue: Mutex::default() })
    }

    /// The next that was sent; `None`: nothing comes any more.
    pub async fn next(&self) -> Option<ToConn> {
        std::future::poll_fn(|cx| {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = self.mailbox.take(cx, &mut queue);
            let message = queue.pop();
            if let Some(ToConn::Write(bytes) | ToConn::Close { last: bytes, .. }) = &message {
                self.mailbox.written(bytes.len());
            }
            match message {
                None if !taken.abandoned && !taken.overflow => Poll::Pending,
                message => Poll::Ready(message),
            }
        })
        .await
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes after the lock is free, so that the task does not run into it.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Clone for ConnSender {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        ConnSender(self.0.clone())
    }
}

impl Drop for ConnSender {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            wake(self.0.lock());
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.gone = true;
        inner.queue = Queue::Empty;
        inner.waker = None;
    }
}

impl fmt::Debug for ConnSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnSender").field("queued_bytes", &self.queued_bytes()).finish()
    }
}
