//! An engine on a thread of its own, for whoever does not wait for it without end. sled 0.34 may wait for ever for what was
//! not written when its disk failed for a while, and a disk may answer nothing at all. Such an engine is given up: its thread
//! stays behind with the files that it has open, and another engine begins in another folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::{Store, StoreError};

/// How long closing may take. What was not closed by then keeps its lock.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Opens an engine.
pub type Open = Arc<dyn Fn() -> Result<Box<dyn Store + Send>, StoreError> + Send + Sync>;

type Call = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// The other end. Dropping it closes the engine.
pub(super) struct Limited {
    /// `None`: it is being closed, or was given up.
    calls: Option<Sender<Call>>,
    /// Nothing comes here; it ends when the engine has let go of its files.
    ended: Receiver<()>,
}

impl Limited {
    /// Gives an engine a thread. `engines` has one more reference until it has let go of its files.
    pub(super) fn new(store: Box<dyn Store + Send>, engines: &Arc<()>) -> Result<Limited, StoreError> {
        let mut given = Some(store);
        Limited::start(move || given.take().ok_or_else(|| StoreError("it was opened before".into())), engines)
    }

    /// Opens an engine.
    pub(super) fn open(open: &Open, limit: Duration, engines: &Arc<()>) -> Result<Limited, StoreError> {
        let open = open.clone();
        let (told, wait) = sync_channel(1);
        let limited = Limited::start(
            move || {
                let opened = open();
                let _ = told.send(opened.as_ref().map(|_| ()).map_err(|error| error.clone()));
                opened
            },
            engines,
        )?;
        match wait.recv_timeout(limit) {
            Ok(result) => result.map(|()| limited),
            Err(RecvTimeoutError::Timeout) => Err(late("its opening", limit)),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError("the engine panicked".into())),
        }
    }

    fn start(
        mut open: impl FnMut() -> Result<Box<dyn Store + Send>, StoreError> + Send + 'static,
        engines: &Arc<()>,
    ) -> Result<Limited, StoreError> {
        let (calls, queue) = channel::<Call>();
        let (end, ended) = channel();
        let engine = engines.clone();
        let run = move || {
            let serve = AssertUnwindSafe(|| {
                let Ok(mut store) = open() else { return };
                queue.iter().for_each(|call| call(&mut *store));
            });
            let _ = catch_unwind(serve);
            drop((engine, end));
        };
        // The name that a panic is caught and told by.
        let thread = thread::Builder::new().name("store".into()).spawn(run);
        thread.map_err(|error| StoreError(format!("it has no thread: {error}")))?;
        Ok(Limited { calls: Some(calls), ended })
    }

    /// Runs it on the engine. One that does not come to its end is given up.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        limit: Duration,
        run: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = sync_channel(1);
        let panicked = || StoreError("the engine panicked".into());
        let call = move |store: &mut dyn Store| {
            let result = catch_unwind(AssertUnwindSafe(|| run(store))).unwrap_or_else(|_| Err(panicked()));
            let _ = answer.send(result);
        };
        let calls = self.calls.as_ref().ok_or_else(panicked)?;
        calls.send(Box::new(call)).map_err(|_| panicked())?;
        match wait.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.calls = None;
                Err(late("a call of the engine", limit))
            }
            Err(RecvTimeoutError::Disconnected) => Err(panicked()),
        }
    }

    /// It was given up.
    pub(super) fn is_stuck(&self) -> bool {
        self.calls.is_none()
    }
}

fn late(what: &str, limit: Duration) -> StoreError {
    StoreError(format!("{what} has not come to its end for {} s", limit.as_secs()))
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.calls.take().is_some() {
            let _ = self.ended.recv_timeout(CLOSE_LIMIT);
        }
    }
}
