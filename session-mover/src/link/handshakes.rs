//! Handshakes of strangers, of which there may be many and slow ones.

use std::collections::VecDeque;
use std::future::{Future, pending};

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Handshakes at a time. One more and the oldest is given up: those of the cluster take milliseconds, so that strangers
/// who connect and say nothing do not keep them out.
const HANDSHAKES: usize = 64;

/// Those under way.
#[derive(Debug)]
pub struct Handshakes<T> {
    running: JoinSet<T>,
    order: VecDeque<AbortHandle>,
}

impl<T> Default for Handshakes<T> {
    fn default() -> Self {
        Handshakes { running: JoinSet::new(), order: VecDeque::new() }
    }
}

impl<T: Send + 'static> Handshakes<T> {
    /// One more. It limits its own time.
    pub fn begin(&mut self, handshake: impl Future<Output = T> + Send + 'static) {
        self.order.retain(|handshake| !handshake.is_finished());
        if self.order.len() >= HANDSHAKES
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.running.spawn(handshake));
    }

    /// The next that is done. May be dropped and asked again.
    pub async fn next(&mut self) -> T {
        loop {
            match self.running.join_next().await {
                Some(Ok(done)) => return done,
                Some(Err(error)) => our_bug(error),
                None => pending().await,
            }
        }
    }
}

/// A handshake that was given up is no news; a panic goes on to whoever runs this.
pub(super) fn our_bug(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
