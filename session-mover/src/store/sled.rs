//! sled 0.34 as a store. It is named in this file and nowhere else.
//!
//! Five things about it decide how it is used:
//!
//! - `flush()` is not durable on Linux: it calls `sync_file_range`, never fsync. So `fdatasync` follows it, on a second
//!   descriptor of the same file. Without it a power loss takes what was flushed, and often the database too.
//! - A node of its tree that is longer than a quarter of a segment goes to a file that is never synced. A node has some 20
//!   pairs, an inner one 257 keys, whatever their lengths. So long values are cut into pieces, and segments are large.
//! - It never syncs its configuration, nor the names of its files. So a database is made beside its place, synced whole, and
//!   renamed.
//! - It may panic where it finds damage. So it is opened inside `catch_unwind`.
//! - Whoever waits in `flush()` is not always told that a write has failed (`Log::exit_reservation` sets the error and wakes
//!   nobody), and with him everything that writes waits, in every database of the process. The next who flushes is told, and
//!   wakes all. So somebody else does, if it takes long.
//!
//! One tree. `m`: the mark. `p` and a key: byte 0 and the value, or byte 1 and how many pieces it has. `v`, the length of a
//! key in two bytes, the key, and a number in four bytes: a piece.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::{Batch, Pairs, Store, StoreError, sync_parent};

/// Longest piece, in bytes. 20 pieces with their keys, or 257 of the longest keys, are less than a quarter of a segment.
const PIECE: usize = 16 << 10;
/// In bytes.
const SEGMENT: usize = 4 << 20;
/// Memory for pages, in bytes. The state is in the node's memory anyway: the store is read at starts only.
const CACHE_BYTES: u64 = 16 << 20;
/// How often sled writes by itself, in milliseconds. It collects garbage on this occasion.
const FLUSH_EVERY_MS: u64 = 500;

/// How often its lock is tried, and how long each try waits.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// When somebody else flushes too; then after twice as long, and so on,
const FIRST_WAKE: Duration = Duration::from_millis(500);
/// so often. The last is half an hour later: no disk that fails says so later than that.
const WAKES: u32 = 12;
/// Names of its threads: what panics there is told, and ends nothing.
const THREAD: &str = "store";

const MARK: &[u8] = b"m";
const WHOLE: u8 = 0;
const CUT: u8 = 1;

/// A store in a folder of its own.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    /// `None` while it is being cleared.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    db: sled::Db,
    /// sled's one file, for fdatasync.
    file: File,
}

fn broken(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

fn pair_key(key: &[u8]) -> Vec<u8> {
    [b"p", key].concat()
}

fn piece_key(key: &[u8], number: u32) -> Vec<u8> {
    let length = (key.len() as u16).to_be_bytes();
    [b"v", &length[..], key, &number.to_be_bytes()].concat()
}

impl SledStore {
    /// Opens the folder, made if it is not there.
    pub fn open(dir: &Path) -> Result<SledStore, StoreError> {
        Ok(SledStore { dir: dir.to_owned(), open: Some(Open::new(dir)?) })
    }

    fn open_now(&self) -> Result<&Open, StoreError> {
        self.open
            .as_ref()
            .ok_or_else(|| StoreError("it could not be opened again after it was cleared".into()))
    }

    /// How many pieces the value of a key has; 0 for one that is whole, or not there.
    fn pieces(db: &sled::Db, key: &[u8]) -> Result<u32, StoreError> {
        match db.get(pair_key(key)).map_err(broken)? {
            Some(value) if value.first() == Some(&CUT) => count(&value),
            _ => Ok(0),
        }
    }
}

fn count(value: &[u8]) -> Result<u32, StoreError> {
    let count = value.get(1..).and_then(|bytes| bytes.try_into().ok());
    Ok(u32::from_be_bytes(count.ok_or_else(|| StoreError("a value that was not written by it".into()))?))
}

/// Makes files and names below a folder durable, and its own name.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_all(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    File::open(dir)?.sync_all()?;
    sync_parent(dir)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes an empty database where there is none: all of it is there after a power loss, or nothing.
fn make(dir: &Path) -> Result<(), StoreError> {
    let new = dir.with_extension("new");
    remove(&new).map_err(broken)?;
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(broken)?;
    }
    drop(Open::existing(&new)?);
    sync_all(&new).and_then(|()| fs::rename(&new, dir)).and_then(|()| sync_parent(dir)).map_err(broken)
}

/// Flushes, and comes back even if a write has failed and nobody said so.
fn flush(db: &sled::Db) -> sled::Result<usize> {
    let named = || thread::Builder::new().name(THREAD.into());
    let (done, wait) = channel::<()>();
    thread::scope(|scope| {
        let wake = move || {
            for number in 0..WAKES {
                let pause = FIRST_WAKE * (1 << number);
                if wait.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let db = db.clone();
                // This one may come to wait too.
                let _ = named().spawn(move || drop(db.flush()));
            }
        };
        let _ = named().spawn_scoped(scope, wake);
        let flushed = db.flush();
        drop(done);
        flushed
    })
}

/// Closing it waits as flushing does, and nobody could wake it.
impl Drop for Open {
    fn drop(&mut self) {
        let _ = flush(&self.db);
    }
}

impl Open {
    fn new(dir: &Path) -> Result<Open, StoreError> {
        if !dir.exists() {
            make(dir)?;
        }
        Open::existing(dir)
    }

    fn existing(dir: &Path) -> Result<Open, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .use_compression(false);
        let mut tries = 0..LOCK_TRIES;
        let db = loop {
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
                .map_err(|_| StoreError("sled panicked when it was opened: it is damaged".into()))?;
            match opened {
                Ok(db) => break db,
                // One that was just dropped lets go of its lock a little later, on a thread of its own.
                Err(error) if error.to_string().contains("lock") && tries.next().is_some() => {
                    thread::sleep(LOCK_WAIT);
                }
                Err(error) => return Err(broken(error)),
            }
        };
        let file = OpenOptions::new().read(true).write(true).open(dir.join("db")).map_err(broken)?;
        // The name of the snapshot that it made just now, as it does here only: without it the log alone may mean nothing.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(broken)?;
        Ok(Open { db, file })
    }

    fn sync(&self) -> Result<(), StoreError> {
        flush(&self.db).map_err(broken)?;
        self.file.sync_data().map_err(broken)
    }

    fn value(&self, key: &[u8], stored: &[u8]) -> Result<Bytes, StoreError> {
        if stored.first() == Some(&WHOLE) {
            return Ok(Bytes::copy_from_slice(&stored[1..]));
        }
        let mut value = Vec::new();
        for number in 0..count(stored)? {
            let piece = self.db.get(piece_key(key, number)).map_err(broken)?;
            value
                .extend_from_slice(&piece.ok_or_else(|| StoreError("a piece of a value is missing".into()))?);
        }
        Ok(value.into())
    }
}

impl Store for SledStore {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mark = self.open_now()?.db.get(MARK).map_err(broken)?;
        Ok(mark.map(|mark| Bytes::copy_from_slice(&mark)))
    }

    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        let open = self.open_now()?;
        let from = match after {
            [] => Bound::Included(pair_key(b"")),
            after => Bound::Excluded(pair_key(after)),
        };
        let (mut some, mut size) = (Pairs::new(), 0);
        for item in open.db.range::<Vec<u8>, _>((from, Bound::Excluded(b"q".to_vec()))) {
            let (key, stored) = item.map_err(broken)?;
            let key = Bytes::copy_from_slice(&key[1..]);
            let value = open.value(&key, &stored)?;
            size += key.len() + value.len();
            if !some.is_empty() && size > max_bytes {
                break;
            }
            some.push((key, value));
        }
        Ok(some)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let open = self.open_now()?;
        let mut all = sled::Batch::default();
        for (key, value) in &batch.pairs {
            let before = SledStore::pieces(&open.db, key)?;
            let mut pieces = 0;
            match value {
                None => all.remove(pair_key(key)),
                Some(value) if value.len() <= PIECE => {
                    all.insert(pair_key(key), [&[WHOLE], &value[..]].concat());
                }
                Some(value) => {
                    for piece in value.chunks(PIECE) {
                        all.insert(piece_key(key, pieces), piece);
                        pieces += 1;
                    }
                    all.insert(pair_key(key), [&[CUT], &pieces.to_be_bytes()[..]].concat());
                }
            }
            (pieces..before).for_each(|number| all.remove(piece_key(key, number)));
        }
        all.insert(MARK, &batch.mark[..]);
        open.db.apply_batch(all).map_err(broken)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.open_now()?.sync()
    }

    /// sled's own way takes the keys away one by one. A folder that is half removed when the process dies is damaged, and
    /// the next start sets it aside.
    fn clear(&mut self) -> Result<(), StoreError> {
        self.open = None;
        let old = self.dir.with_extension("old");
        remove(&old).and_then(|()| fs::rename(&self.dir, &old)).map_err(broken)?;
        self.open = Some(Open::new(&self.dir)?);
        remove(&old).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn sled_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        suite(&mut SledStore::open(&dir.path().join("store")).unwrap());
    }

    #[test]
    fn pieces_go_with_the_value_that_they_belong_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(&dir.path().join("store")).unwrap();
        let put = |store: &mut SledStore, value: Option<usize>| {
            let value = value.map(|length| Bytes::from(vec![7; length]));
            store
                .write(Batch { pairs: vec![(b"k".to_vec(), value)], mark: Bytes::from_static(b"m") })
                .unwrap();
            let pieces = store.open_now().unwrap().db.scan_prefix(b"v").count();
            (store.scan(b"", 1).unwrap().first().map(|(_, value)| value.len()), pieces)
        };
        for (length, pieces) in [(PIECE, 0), (PIECE + 1, 2), (20 * PIECE, 20), (3 * PIECE, 3), (0, 0)] {
            assert_eq!(put(&mut store, Some(length)), (Some(length), pieces));
        }
        put(&mut store, Some(2 * PIECE));
        assert_eq!(put(&mut store, None), (None, 0));
    }
}
