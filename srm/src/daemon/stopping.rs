//! How this node is stopped: at once or when its clients have left by themselves, and what those are told whom nobody takes
//! over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use xmpp_core::error::{StreamCondition, StreamError};

/// What clients are told unless the operator says something else.
const TEXT: &str = "the server is shut down; your session waits until it is back";
/// How long clients have to close their streams after they were told.
const GOODBYE: Duration = Duration::from_secs(3);

/// The end of this process, as far as it is planned.
#[derive(Debug)]
pub struct Stopping {
    /// Nobody logs in any more.
    closed: AtomicBool,
    /// It has begun.
    begun: AtomicBool,
    /// Authenticated streams.
    open: watch::Sender<usize>,
    /// What clients are told, and whether they were.
    text: Mutex<String>,
    told: AtomicBool,
    due: Notify,
}

impl Stopping {
    pub(super) fn new() -> Arc<Stopping> {
        let no = || AtomicBool::new(false);
        let (open, text) = (watch::Sender::new(0), Mutex::new(TEXT.to_owned()));
        Arc::new(Stopping { closed: no(), begun: no(), told: no(), open, text, due: Notify::new() })
    }

    /// Whether nobody logs in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// It begins: nobody logs in from now on. `false`: it has begun before.
    pub(super) fn begin(&self) -> bool {
        self.closed.store(true, Ordering::Relaxed);
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Whether it has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// A client has logged in.
    pub(super) fn opened(&self) {
        self.open.send_modify(|open| *open += 1);
    }

    /// Its stream is gone.
    pub(super) fn ended(&self) {
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }

    /// How many streams there are.
    pub(super) fn streams(&self) -> usize {
        *self.open.borrow()
    }

    /// The operator wants it stopped: with this text for clients, and once the last client has left or so long has passed.
    pub(super) fn ask(self: &Arc<Self>, text: Option<&str>, drain: Option<Duration>) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(text) = text {
            text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let Some(drain) = drain else { return self.due.notify_one() };
        let this = self.clone();
        tokio::spawn(async move {
            this.all_left(drain).await;
            this.due.notify_one();
        });
    }

    /// Until it is to be done.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Until no stream is left, but no longer than this. Whether none is.
    async fn all_left(&self, limit: Duration) -> bool {
        let mut open = self.open.subscribe();
        matches!(timeout(limit, open.wait_for(|open| *open == 0)).await, Ok(Ok(_)))
    }

    /// Where clients were told: until they have closed their streams, but not for long.
    pub(super) async fn goodbye(&self) {
        if self.told.load(Ordering::Relaxed) {
            self.all_left(GOODBYE).await;
        }
    }

    /// The last words to clients (RFC 6120 section 4.9.3.20).
    pub(super) fn last_words(&self) -> Bytes {
        self.told.store(true, Ordering::Relaxed);
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StreamError::new(StreamCondition::SystemShutdown).with_text(text).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_secs(600);

    async fn becomes_due(stopping: &Stopping, limit: Duration) -> bool {
        timeout(limit, stopping.due()).await.is_ok()
    }

    #[tokio::test]
    async fn it_waits_for_the_last_client_or_for_its_limit() {
        let stopping = Stopping::new();
        stopping.opened();
        stopping.ask(Some("back at <noon>"), Some(LONG));
        assert!(stopping.is_closed() && !becomes_due(&stopping, Duration::from_millis(50)).await);
        stopping.ended();
        assert!(becomes_due(&stopping, LIMIT).await, "the last one has left");
        let words = String::from_utf8(stopping.last_words().to_vec()).unwrap();
        assert!(words.contains("<system-shutdown ") && words.contains("back at &lt;noon"), "{words}");

        let stopping = Stopping::new();
        stopping.opened();
        stopping.ask(None, Some(Duration::from_millis(50)));
        assert!(becomes_due(&stopping, LIMIT).await, "they had their time");
        let stopping = Stopping::new();
        stopping.opened();
        stopping.ask(None, None);
        assert!(becomes_due(&stopping, LIMIT).await, "at once");
        assert_eq!(stopping.streams(), 1);
    }
}
