//! Engines that fail, panic and stand still.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::super::{Found, LIMIT, MemoryStore, suite};
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
        anew: Arc::new(open.clone()),
        open: Arc::new(open.clone()),
        limit: LIMIT,
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
            anew: Arc::new(move || anew.anew()),
            open: Arc::new(move || open.open()),
            limit: LIMIT,
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

/// Its writes and flushes stand still while that is locked.
struct Still(MemoryStore, Arc<Mutex<()>>);

impl Still {
    fn wait(&self) {
        drop(self.1.lock().unwrap());
    }
}

impl Store for Still {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.0.mark()
    }
    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        self.0.scan(after, max_bytes)
    }
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.wait();
        self.0.write(batch)
    }
    fn flush(&mut self) -> Result<(), StoreError> {
        self.wait();
        self.0.flush()
    }
    fn clear(&mut self) -> Result<(), StoreError> {
        self.0.clear()
    }
}

/// A store whose first engines stand still while the lock is held, and how many were opened.
fn start_still(
    lock: &Arc<Mutex<()>>,
    still: u32,
) -> (Behind, Arc<AtomicU32>, Receiver<Result<(), StoreError>>) {
    let (done, told) = channel();
    let (lock, opened) = (lock.clone(), Arc::new(AtomicU32::new(0)));
    let count = opened.clone();
    let open: Open = Arc::new(move || {
        let stands = count.fetch_add(1, Ordering::Relaxed) < still;
        let lock = if stands { lock.clone() } else { Arc::default() };
        Ok(Box::new(Still(MemoryStore::default(), lock)))
    });
    let hooks = Hooks {
        before: Box::new(|| ()),
        done: Box::new(move |result| _ = done.send(result)),
        anew: open.clone(),
        open: open.clone(),
        limit: Duration::from_millis(50),
    };
    (Behind::start(open().unwrap(), hooks).unwrap(), opened, told)
}

const LATE: &str = "a call of the engine has not come to its end for 0 s";

#[test]
fn an_engine_that_stands_still_at_a_probe_is_given_up_for_an_empty_one() {
    let lock = Arc::default();
    let (mut store, opened, told) = start_still(&lock, 1);
    store.checkpoint(batch("one"));
    assert_eq!(told.recv().unwrap(), Ok(()));
    let held = lock.lock().unwrap();
    let watch = store.watch();
    watch.probe();
    assert_eq!(wrong(look(&mut store, &watch)), LATE);
    assert_eq!(store.mark(), Ok(None), "another one, which answers");
    watch.probe();
    assert_eq!(look(&mut store, &watch), Found::Well(2));
    // What changed since checkpoint one is not enough for it.
    store.checkpoint(batch("half"));
    assert!(told.recv().unwrap().is_err());
    store.checkpoint(batch("all"));
    assert_eq!(told.recv().unwrap(), Ok(()));
    assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"all"))));
    assert!(store.scan(b"half", 1).unwrap().is_empty());
    assert!(opened.load(Ordering::Relaxed) >= 2);
    drop(held);
}

#[test]
fn an_engine_that_stands_still_at_a_checkpoint_is_given_up_and_the_node_told_once() {
    let lock = Arc::default();
    let (mut store, _, told) = start_still(&lock, 1);
    let held = lock.lock().unwrap();
    store.checkpoint(batch("one"));
    assert_eq!(told.recv().unwrap(), Err(StoreError(LATE.into())));
    store.checkpoint(batch("all"));
    assert_eq!(told.recv().unwrap(), Ok(()));
    assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"all"))));
    drop(held);
}

#[test]
fn no_more_engines_are_opened_than_may_stand_still_until_one_lets_go() {
    let lock = Arc::default();
    let (mut store, opened, told) = start_still(&lock, u32::MAX);
    let watch = store.watch();
    let held = lock.lock().unwrap();
    for _ in 0..2 * MOST_STUCK {
        watch.probe();
        wrong(look(&mut store, &watch));
    }
    let why = wrong(watch.look());
    assert_eq!(why, "there is none: its disk does not answer, and 3 engines wait for it");
    assert_eq!(opened.load(Ordering::Relaxed) as usize, MOST_STUCK);
    drop(held);
    let written = (0..1_000).any(|_| {
        store.checkpoint(batch("all"));
        told.recv().unwrap().is_ok()
    });
    assert!(written, "{:?}", watch.look());
    watch.probe();
    assert!(matches!(look(&mut store, &watch), Found::Well(_)), "{:?}", watch.look());
    assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"all"))));
}

#[test]
fn whoever_watches_does_not_keep_the_store_open() {
    let (store, watch, _) = Disk::default().start();
    drop(store);
    watch.restart();
    assert_eq!(watch.look(), Found::Well(0));
}
