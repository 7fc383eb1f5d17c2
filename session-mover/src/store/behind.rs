//! A store on a thread of its own: checkpoints are written behind the node's back. What the node asks of it, at starts and
//! when a log is cut, waits for what was written before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::{Batch, Pairs, Store, StoreError};

type Answer<T> = SyncSender<Result<T, StoreError>>;

enum Job {
    Mark(Answer<Option<Bytes>>),
    Scan(Bytes, usize, Answer<Pairs>),
    Write(Batch, Answer<()>),
    Flush(Answer<()>),
    Clear(Answer<()>),
    SetAside(StoreError, Answer<()>),
    Checkpoint(Batch),
}

/// The node's end. Dropping it waits until everything is written and the engine has let go of its files.
#[derive(Debug)]
pub struct Behind {
    /// `None` while it is dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the store's thread does besides.
pub struct Hooks {
    /// Before a checkpoint is written: what it builds on must be durable first.
    pub before: Box<dyn Fn() + Send>,
    /// A checkpoint is durable; or one could not be written, or what there was is of no use, and the store is empty.
    pub done: Box<dyn Fn(Result<(), StoreError>) + Send>,
    /// After an engine failed: sets aside what there is and opens an empty one.
    pub anew: Box<dyn Fn() -> Result<Box<dyn Store + Send>, StoreError> + Send>,
}

impl Behind {
    /// Begins the thread.
    pub fn start(store: Box<dyn Store + Send>, hooks: Hooks) -> io::Result<Behind> {
        let (jobs, queue) = channel();
        let worker = Worker { store: Ok(store), hooks };
        let thread = thread::Builder::new().name("store".into()).spawn(move || worker.run(queue))?;
        Ok(Behind { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Written soon, in order; [`Hooks::done`] tells.
    pub fn checkpoint(&mut self, batch: Batch) {
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job::Checkpoint(batch)));
    }

    fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let (answer, wait) = sync_channel(1);
        let gone = || StoreError("its thread is gone".into());
        self.jobs.as_ref().ok_or_else(gone)?.send(job(answer)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store for Behind {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.ask(Job::Mark)
    }

    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        self.ask(|answer| Job::Scan(Bytes::copy_from_slice(after), max_bytes, answer))
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.ask(|answer| Job::Write(batch, answer))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.ask(Job::Flush)
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.ask(Job::Clear)
    }

    fn set_aside(&mut self, why: &StoreError) -> Result<(), StoreError> {
        self.ask(|answer| Job::SetAside(why.clone(), answer))
    }
}

struct Worker {
    /// The engine, or why there is none.
    store: Result<Box<dyn Store + Send>, StoreError>,
    hooks: Hooks,
}

impl Worker {
    fn run(mut self, queue: Receiver<Job>) {
        for job in queue {
            match job {
                Job::Mark(answer) => _ = answer.send(self.with(|store| store.mark())),
                Job::Scan(after, most, answer) => {
                    _ = answer.send(self.with(|store| store.scan(&after, most)))
                }
                Job::Write(batch, answer) => _ = answer.send(self.with(|store| store.write(batch))),
                Job::Flush(answer) => _ = answer.send(self.with(|store| store.flush())),
                Job::Clear(answer) => {
                    // Whatever is wrong with it, an empty one will do.
                    let cleared = self.with(|store| store.clear()).or_else(|_| self.begin_anew());
                    let _ = answer.send(cleared);
                }
                Job::SetAside(why, answer) => {
                    let _ = answer.send(self.begin_anew());
                    (self.hooks.done)(Err(why));
                }
                Job::Checkpoint(batch) => {
                    (self.hooks.before)();
                    let written = self.with(|store| store.write(batch).and_then(|()| store.flush()));
                    if written.is_err() {
                        let _ = self.begin_anew();
                    }
                    (self.hooks.done)(written);
                }
            }
        }
    }

    /// An engine that panics has failed; the node goes on without it.
    fn with<T>(
        &mut self,
        run: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let store = self.store.as_mut().map_err(|error| error.clone())?;
        catch_unwind(AssertUnwindSafe(|| run(&mut **store)))
            .unwrap_or_else(|_| Err(StoreError("the engine panicked".into())))
    }

    fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.store = Err(StoreError("it failed before".into()));
        self.store = (self.hooks.anew)();
        self.store.as_ref().map(|_| ()).map_err(|error| error.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::super::{MemoryStore, suite};
    use super::*;

    /// Fails when it is told to.
    struct Fragile(MemoryStore, Arc<AtomicBool>);

    impl Store for Fragile {
        fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
            self.0.mark()
        }
        fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
            self.0.scan(after, max_bytes)
        }
        fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
            assert!(!self.1.swap(false, Ordering::Relaxed), "asked to panic");
            self.0.write(batch)
        }
        fn flush(&mut self) -> Result<(), StoreError> {
            self.0.flush()
        }
        fn clear(&mut self) -> Result<(), StoreError> {
            self.0.clear()
        }
    }

    fn batch(mark: &'static str) -> Batch {
        Batch { pairs: vec![(mark.into(), Some(Bytes::new()))], mark: Bytes::from_static(mark.as_bytes()) }
    }

    fn start(fail: &Arc<AtomicBool>) -> (Behind, Arc<AtomicU32>, Receiver<Result<(), StoreError>>) {
        let synced = Arc::new(AtomicU32::new(0));
        let (done, told) = channel();
        let (count, fragile) = (synced.clone(), fail.clone());
        let open = move || -> Result<Box<dyn Store + Send>, StoreError> {
            Ok(Box::new(Fragile(MemoryStore::default(), fragile.clone())))
        };
        let hooks = Hooks {
            before: Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed)),
            done: Box::new(move |result| _ = done.send(result)),
            anew: Box::new(open.clone()),
        };
        (Behind::start(open().unwrap(), hooks).unwrap(), synced, told)
    }

    #[test]
    fn behind_passes_the_suite_and_writes_checkpoints_in_order() {
        let (mut store, synced, told) = start(&Arc::default());
        suite(&mut store);
        store.checkpoint(batch("one"));
        store.checkpoint(batch("two"));
        assert_eq!(
            store.mark(),
            Ok(Some(Bytes::from_static(b"two"))),
            "a question waits for what came before it"
        );
        assert_eq!((told.recv(), told.recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert_eq!(synced.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_engine_that_panics_is_replaced_by_an_empty_one() {
        let fail = Arc::default();
        let (mut store, _, told) = start(&fail);
        store.checkpoint(batch("one"));
        assert!(told.recv().unwrap().is_ok());
        assert_eq!(store.set_aside(&StoreError("ahead of a log".into())), Ok(()));
        assert_eq!(told.recv().unwrap(), Err(StoreError("ahead of a log".into())));
        assert_eq!(store.mark(), Ok(None));
        fail.store(true, Ordering::Relaxed);
        store.checkpoint(batch("two"));
        assert!(told.recv().unwrap().unwrap_err().to_string().contains("panicked"));
        assert_eq!(store.mark(), Ok(None), "half a store is worse than none");
        store.checkpoint(batch("three"));
        assert!(told.recv().unwrap().is_ok());
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"three"))));
    }
}
