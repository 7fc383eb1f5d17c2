//! A store on a thread of its own: checkpoints are written behind the node's back. What the node asks of it, at starts and
//! when a log is cut, waits for what was written before.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::limited::Limited;
use super::watch::{Watch, Work, limit_of};
use super::{Batch, Open, Pairs, Store, StoreError};

/// How long a store that failed twice in a row is left alone; then twice as long, and so on,
const PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many engines at most may stand still: each has a thread and memory of its own.
const MOST_STUCK: usize = 3;

type Answer<T> = SyncSender<Result<T, StoreError>>;

pub(super) enum Job {
    Mark(Answer<Option<Bytes>>),
    Scan(Bytes, usize, Answer<Pairs>),
    Write(Batch, Answer<()>),
    Flush(Answer<()>),
    Clear(Answer<()>),
    SetAside(StoreError, Answer<()>),
    Checkpoint(Batch),
    /// Write what is there once more.
    Probe,
    /// Close the engine and open it again, as it is.
    Reopen,
}

/// The node's end. Dropping it waits until everything is written and the engine has let go of its files.
#[derive(Debug)]
pub struct Behind {
    /// `None` while it is dropped.
    jobs: Option<Arc<Sender<Job>>>,
    watch: Watch,
    thread: Option<JoinHandle<()>>,
}

/// What the store's thread does besides.
pub struct Hooks {
    /// Before a checkpoint is written: what it builds on must be durable first.
    pub before: Box<dyn Fn() + Send>,
    /// A checkpoint is durable; or one could not be written, or what there was is of no use, and the store is empty.
    pub done: Box<dyn Fn(Result<(), StoreError>) + Send>,
    /// After an engine failed: sets aside what there is and opens an empty one.
    pub anew: Open,
    /// Opens what there is, after it was closed.
    pub open: Open,
    /// How long an engine may take for one call, besides [what its pairs take](super::LIMIT). It is given up then.
    pub limit: Duration,
}

impl Behind {
    /// Begins the thread, with an engine that was just opened.
    pub fn start(store: Box<dyn Store + Send>, hooks: Hooks) -> io::Result<Behind> {
        let (jobs, queue) = channel();
        let jobs = Arc::new(jobs);
        let watch = Watch::new(&jobs);
        let engines = Arc::new(());
        let worker = Worker {
            store: Limited::new(store, &engines),
            engines,
            hooks,
            seen: watch.clone(),
            mark: None,
            untold: false,
            closed: None,
            failures: 0,
            held: None,
            next: None,
        };
        let thread = thread::Builder::new().name("store".into()).spawn(move || worker.run(queue))?;
        Ok(Behind { jobs: Some(jobs), watch, thread: Some(thread) })
    }

    /// For whoever watches over it.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
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
    store: Result<Limited, StoreError>,
    /// One reference for each engine that has not let go of its files.
    engines: Arc<()>,
    hooks: Hooks,
    seen: Watch,
    /// The mark of the last batch that became durable here.
    mark: Option<Bytes>,
    /// What was written is not there any more, and the node does not know: its next checkpoint is refused.
    untold: bool,
    /// It could not be opened again: the mark that it should have.
    closed: Option<Result<Option<Bytes>, StoreError>>,
    /// Checkpoints in a row that came to nothing.
    failures: u32,
    /// A checkpoint with everything in it, for a store that is left alone until then.
    held: Option<Batch>,
    next: Option<Instant>,
}

impl Worker {
    fn run(mut self, queue: Receiver<Job>) {
        loop {
            let job = match self.wait() {
                Some(wait) => queue.recv_timeout(wait),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match job {
                Ok(job) => self.job(job),
                Err(RecvTimeoutError::Timeout) => self.write_held(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How long the checkpoint that waits still does.
    fn wait(&self) -> Option<Duration> {
        let next = self.next.filter(|_| self.held.is_some())?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn job(&mut self, job: Job) {
        if !matches!(job, Job::Checkpoint(_) | Job::Probe | Job::Reopen) && self.held.take().is_some() {
            // What the node asks does not wait, and finds nothing that was not written.
            (self.hooks.done)(Err(StoreError("it failed before".into())));
        }
        match job {
            Job::Mark(answer) => _ = answer.send(self.with(0, |store| store.mark())),
            Job::Scan(after, most, answer) => {
                _ = answer.send(self.with(0, move |store| store.scan(&after, most)));
            }
            Job::Write(batch, answer) => {
                self.mark = None;
                _ = answer.send(self.with(batch.pairs.len(), |store| store.write(batch)));
            }
            Job::Flush(answer) => _ = answer.send(self.with(0, |store| store.flush())),
            Job::Clear(answer) => {
                // Whatever is wrong with it, an empty one will do.
                let cleared = self.with(0, |store| store.clear()).or_else(|_| self.begin_anew());
                (self.mark, self.untold, self.closed) = (None, false, None);
                let _ = answer.send(cleared);
            }
            Job::SetAside(why, answer) => {
                let _ = answer.send(self.begin_anew());
                (self.untold, self.closed) = (false, None);
                (self.hooks.done)(Err(why));
            }
            Job::Checkpoint(batch) => {
                self.held = Some(batch);
                if self.next.is_none_or(|next| Instant::now() >= next) {
                    self.write_held();
                }
            }
            Job::Probe => self.probe(),
            Job::Reopen => {
                self.reopen();
                // Who asks for that has seen to the disk.
                self.write_held();
            }
        }
        self.seen.engine(self.store.as_ref().err());
    }

    fn write_held(&mut self) {
        let Some(batch) = self.held.take() else { return };
        self.seen.begin(Work::Checkpoint, batch.pairs.len());
        let (mark, written) = (batch.mark.clone(), self.write(batch));
        let result = match written {
            Ok(()) => {
                (self.mark, self.failures, self.next) = (Some(mark), 0, None);
                Ok(())
            }
            Err(why) => {
                self.failures += 1;
                let pause = PAUSE * (1 << (self.failures - 1).min(6)) / 2;
                self.next = (self.failures > 1).then(|| Instant::now() + pause.min(LONGEST_PAUSE));
                let anew = self.begin_anew();
                // The node is told below.
                self.untold = false;
                Err(match anew {
                    Ok(()) => why,
                    Err(new) => StoreError(format!("{}; a new one cannot be made: {}", why.0, new.0)),
                })
            }
        };
        self.seen.engine(self.store.as_ref().err());
        self.seen.end(Work::Checkpoint, &result);
        (self.hooks.done)(result);
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        (self.hooks.before)();
        if std::mem::take(&mut self.untold) || self.closed.take().is_some() {
            return Err(self
                .store
                .as_ref()
                .err()
                .cloned()
                .unwrap_or_else(|| StoreError("it was lost".into())));
        }
        if self.store.is_err() {
            // The node was told, and has put everything into the batch.
            self.begin_anew()?;
        }
        self.with(batch.pairs.len(), |store| store.write(batch).and_then(|()| store.flush()))
    }

    /// The last batch changes nothing if it is written again; an empty store is only flushed.
    fn probe(&mut self) {
        self.seen.begin(Work::Probe, 0);
        let result = self.with(0, |store| {
            if let Some(mark) = store.mark()? {
                store.write(Batch { pairs: Vec::new(), mark })?;
            }
            store.flush()
        });
        if self.untold && self.store.is_err() {
            // It stands still, and not even a restart would come by.
            let _ = self.begin_anew();
        }
        self.seen.end(Work::Probe, &result);
    }

    fn reopen(&mut self) {
        self.seen.begin(Work::Reopen, 0);
        let told = self.store.is_err() && self.closed.is_none() && !self.untold;
        let result = if told { self.begin_anew() } else { self.open_again() };
        self.next = None;
        self.seen.end(Work::Reopen, &result);
    }

    /// Nothing is set aside for that: what cannot be read now may be read later.
    fn open_again(&mut self) -> Result<(), StoreError> {
        let known = match (self.closed.take(), self.mark.take()) {
            (Some(known), _) => known,
            (None, Some(mark)) => Ok(Some(mark)),
            (None, None) => self.with(0, |store| store.mark()),
        };
        let _ = self.open(&self.hooks.open.clone());
        match self.with(0, |store| store.mark()) {
            Ok(found) if known.as_ref() == Ok(&found) => {
                self.mark = found;
                Ok(())
            }
            Ok(_) => {
                self.untold = true;
                let error = StoreError("it is not what was written to it".into());
                self.store = Err(error.clone());
                Err(error)
            }
            Err(why) => {
                (self.store, self.closed) = (Err(why.clone()), Some(known));
                Err(why)
            }
        }
    }

    /// An engine that panics has failed, and so has one that stands still; the node goes on without it. `pairs`: how many are
    /// written.
    fn with<T: Send + 'static>(
        &mut self,
        pairs: usize,
        run: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.as_mut().map_err(|error| error.clone())?;
        let result = store.call(limit_of(self.hooks.limit, pairs), run);
        if store.is_stuck() {
            self.mark = None;
            self.untold = true;
            self.store =
                Err(result.as_ref().err().cloned().unwrap_or_else(|| StoreError("it stands still".into())));
        }
        result
    }

    fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.mark = None;
        self.open(&self.hooks.anew.clone())
    }

    fn open(&mut self, open: &Open) -> Result<(), StoreError> {
        // The engine lets go of its files first.
        self.store = Err(StoreError("it is being opened".into()));
        let stuck = Arc::strong_count(&self.engines) - 1;
        self.store = if stuck < MOST_STUCK {
            Limited::open(open, self.hooks.limit, &self.engines)
        } else {
            Err(StoreError(format!("its disk does not answer, and {stuck} engines wait for it")))
        };
        self.store.as_ref().map(|_| ()).map_err(|error| error.clone())
    }
}
