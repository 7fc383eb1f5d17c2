//! A store on a thread of its own: checkpoints are written behind the node's back. What the node asks of it, at starts and
//! when a log is cut, waits for what was written before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::watch::{Watch, Work};
use super::{Batch, Pairs, Store, StoreError};

/// How long a store that failed twice in a row is left alone; then twice as long, and so on,
const PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
}

/// Opens an engine.
pub type Open = Box<dyn Fn() -> Result<Box<dyn Store + Send>, StoreError> + Send>;

impl Behind {
    /// Begins the thread.
    pub fn start(store: Box<dyn Store + Send>, hooks: Hooks) -> io::Result<Behind> {
        let (jobs, queue) = channel();
        let jobs = Arc::new(jobs);
        let watch = Watch::new(&jobs);
        let (store, seen) = (Ok(store), watch.clone());
        let worker = Worker {
            store,
            hooks,
            seen,
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
    store: Result<Box<dyn Store + Send>, StoreError>,
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
            Job::Mark(answer) => _ = answer.send(self.with(|store| store.mark())),
            Job::Scan(after, most, answer) => _ = answer.send(self.with(|store| store.scan(&after, most))),
            Job::Write(batch, answer) => {
                self.mark = None;
                _ = answer.send(self.with(|store| store.write(batch)));
            }
            Job::Flush(answer) => _ = answer.send(self.with(|store| store.flush())),
            Job::Clear(answer) => {
                (self.mark, self.untold, self.closed) = (None, false, None);
                // Whatever is wrong with it, an empty one will do.
                let cleared = self.with(|store| store.clear()).or_else(|_| self.begin_anew());
                let _ = answer.send(cleared);
            }
            Job::SetAside(why, answer) => {
                (self.untold, self.closed) = (false, None);
                let _ = answer.send(self.begin_anew());
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
                Err(match self.begin_anew() {
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
        self.with(|store| store.write(batch).and_then(|()| store.flush()))
    }

    /// The last batch changes nothing if it is written again; an empty store is only flushed.
    fn probe(&mut self) {
        self.seen.begin(Work::Probe, 0);
        let result = self.with(|store| {
            if let Some(mark) = store.mark()? {
                store.write(Batch { pairs: Vec::new(), mark })?;
            }
            store.flush()
        });
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
            (None, None) => self.with(|store| store.mark()),
        };
        // The engine lets go of its files first.
        self.store = Err(StoreError("it is being opened".into()));
        self.store = (self.hooks.open)();
        match self.with(|store| store.mark()) {
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
        self.mark = None;
        self.store = Err(StoreError("it failed before".into()));
        self.store = (self.hooks.anew)();
        self.store.as_ref().map(|_| ()).map_err(|error| error.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::super::{Found, MemoryStore, suite};
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
            open: Box::new(open.clone()),
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

    /// What a disk holds, and whether it can be opened, and takes what is written.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<MemoryStore>>, Arc<AtomicBool>, Arc<AtomicBool>);

    impl Disk {
        fn fail(&self, on: bool) {
            self.1.store(on, Ordering::Relaxed);
            self.2.store(on, Ordering::Relaxed);
        }
        fn refused(of: &AtomicBool) -> Result<(), StoreError> {
            if of.load(Ordering::Relaxed) { Err(StoreError("EIO".into())) } else { Ok(()) }
        }
        fn open(&self) -> Result<Box<dyn Store + Send>, StoreError> {
            Disk::refused(&self.1)?;
            Ok(Box::new(self.clone()))
        }
        fn anew(&self) -> Result<Box<dyn Store + Send>, StoreError> {
            Disk::refused(&self.1)?;
            *self.0.lock().unwrap() = MemoryStore::default();
            self.open()
        }
        fn start(&self) -> (Behind, Watch, Receiver<Result<(), StoreError>>) {
            let (done, told) = channel();
            let (anew, open) = (self.clone(), self.clone());
            let hooks = Hooks {
                before: Box::new(|| ()),
                done: Box::new(move |result| _ = done.send(result)),
                anew: Box::new(move || anew.anew()),
                open: Box::new(move || open.open()),
            };
            let store = Behind::start(self.open().unwrap(), hooks).unwrap();
            let watch = store.watch();
            (store, watch, told)
        }
    }

    impl Store for Disk {
        fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
            self.0.lock().unwrap().mark()
        }
        fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
            self.0.lock().unwrap().scan(after, max_bytes)
        }
        fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
            Disk::refused(&self.2)?;
            self.0.lock().unwrap().write(batch)
        }
        fn flush(&mut self) -> Result<(), StoreError> {
            self.0.lock().unwrap().flush()
        }
        fn clear(&mut self) -> Result<(), StoreError> {
            self.0.lock().unwrap().clear()
        }
    }

    /// Everything that was asked so far is done.
    fn look(store: &mut Behind, watch: &Watch) -> Found {
        let _ = store.flush();
        watch.look()
    }

    fn wrong(found: Found) -> String {
        match found {
            Found::Wrong(why) => why,
            Found::Well(written) => panic!("it is well: {written}"),
        }
    }

    #[test]
    fn a_probe_shows_whether_the_store_takes_what_it_is_given() {
        let disk = Disk::default();
        let (mut store, watch, told) = disk.start();
        watch.probe();
        assert_eq!(look(&mut store, &watch), Found::Well(1), "an empty one can be flushed");
        store.checkpoint(batch("one"));
        assert_eq!(told.recv().unwrap(), Ok(()));
        disk.2.store(true, Ordering::Relaxed);
        watch.probe();
        assert_eq!(wrong(look(&mut store, &watch)), "EIO");
        assert!(told.try_recv().is_err(), "what is there stays");
        disk.2.store(false, Ordering::Relaxed);
        watch.probe();
        assert_eq!(look(&mut store, &watch), Found::Well(3));
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"one"))));
    }

    #[test]
    fn a_store_that_cannot_be_made_anew_is_left_alone_for_a_while_and_said_to_be_none() {
        let disk = Disk::default();
        let (mut store, watch, told) = disk.start();
        disk.fail(true);
        store.checkpoint(batch("one"));
        let why = told.recv().unwrap().unwrap_err();
        assert_eq!(why.0, "EIO; a new one cannot be made: EIO");
        assert_eq!(wrong(look(&mut store, &watch)), "there is none: EIO");
        store.checkpoint(batch("two"));
        assert!(told.recv().unwrap().is_err(), "once more at once");
        let begun = Instant::now();
        store.checkpoint(batch("three"));
        disk.fail(false);
        assert_eq!(told.recv().unwrap(), Ok(()), "and then by itself");
        assert!(begun.elapsed() >= PAUSE / 2, "{:?}", begun.elapsed());
        assert_eq!(look(&mut store, &watch), Found::Well(1));
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"three"))));
    }

    #[test]
    fn one_that_can_be_made_anew_and_takes_nothing_is_wrong_too() {
        let disk = Disk::default();
        let (mut store, watch, told) = disk.start();
        disk.2.store(true, Ordering::Relaxed);
        for number in 1..=3 {
            assert!(matches!(look(&mut store, &watch), Found::Well(_)), "{number}");
            store.checkpoint(batch("one"));
            assert!(told.recv().unwrap().is_err());
        }
        assert_eq!(wrong(look(&mut store, &watch)), "3 checkpoints in a row were not written: EIO");
    }

    #[test]
    fn a_store_is_opened_again_as_it_was_and_the_node_told_if_it_is_not() {
        let disk = Disk::default();
        let (mut store, watch, told) = disk.start();
        store.checkpoint(batch("one"));
        assert_eq!(told.recv().unwrap(), Ok(()));
        watch.restart();
        assert_eq!(look(&mut store, &watch), Found::Well(2));
        store.checkpoint(batch("two"));
        assert_eq!(told.recv().unwrap(), Ok(()), "nobody noticed");
        // It cannot be opened: nothing is set aside for that.
        disk.1.store(true, Ordering::Relaxed);
        watch.restart();
        assert_eq!(wrong(look(&mut store, &watch)), "there is none: EIO");
        disk.1.store(false, Ordering::Relaxed);
        watch.restart();
        assert_eq!(look(&mut store, &watch), Found::Well(4));
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"two"))));
        // It is another one: half of a state may not be written to it.
        *disk.0.lock().unwrap() = MemoryStore::default();
        watch.restart();
        wrong(look(&mut store, &watch));
        store.checkpoint(batch("half"));
        assert!(told.recv().unwrap().is_err());
        store.checkpoint(batch("all"));
        assert_eq!(told.recv().unwrap(), Ok(()));
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"all"))));
        let pairs = store.scan(b"", 1_000).unwrap();
        assert!(pairs.iter().all(|(key, _)| key.as_ref() != b"half"), "{pairs:?}");
    }

    #[test]
    fn whoever_watches_does_not_keep_the_store_open() {
        let (store, watch, _) = Disk::default().start();
        drop(store);
        watch.restart();
        assert_eq!(watch.look(), Found::Well(0));
    }
}
