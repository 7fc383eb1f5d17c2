//! The materialised state: keys and values that a node can start from instead of reading its logs from their beginning.
//!
//! The logs are the truth. A store may lag behind them, may be lost, and may be thrown away at any time; what it holds
//! is always the state at *one* pair of log positions, and never from a frame that could still be void (D8).

mod behind;
mod checked;
mod kept;
mod memory;
mod redb;
mod sled;
#[cfg(test)]
mod tests;
mod watch;

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

pub use behind::{Behind, Hooks, Open};
pub use checked::Checked;
pub(crate) use checked::hash;
pub use kept::{Kept, unsign};
pub use memory::MemoryStore;
pub use redb::RedbStore;
pub use sled::SledStore;
pub use watch::{Found, Watch};

/// Why a store cannot be used. It is then cleared and built again from the logs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the store cannot be used: {0}; it is built again from the logs")]
pub struct StoreError(pub String);

/// Pairs in the order of their keys.
pub type Pairs = Vec<(Bytes, Bytes)>;

/// Changes that become visible together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Keys with their new values; `None`: the key goes away.
    pub pairs: Vec<(Vec<u8>, Option<Bytes>)>,
    /// Where the logs stand with these changes, as the driver writes it.
    pub mark: Bytes,
}

/// A store. What every engine promises, and one suite (`store::suite`) checks:
///
/// - A batch is atomic, its mark included: a process that dies finds all of it or nothing.
/// - Batches are ordered: whoever finds one finds all before it.
/// - A batch is durable when a later [`Store::flush`] has returned, and may be so earlier.
/// - Keys are non-empty, at most 3 KiB; values up to 64 MiB.
pub trait Store {
    /// The mark of the last batch; `None`: the store is empty.
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError>;
    /// Pairs behind key `after`, in order, about `max_bytes` at most; none only if there are none.
    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError>;
    /// Takes a batch.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError>;
    /// Makes all batches durable.
    fn flush(&mut self) -> Result<(), StoreError>;
    /// Forgets everything. Durable when it returns.
    fn clear(&mut self) -> Result<(), StoreError>;
    /// Forgets what cannot be used for this reason; where it can, it is kept beside the store, and the operator told.
    fn set_aside(&mut self, _why: &StoreError) -> Result<(), StoreError> {
        self.clear()
    }
    /// Whether there is any use in writing batches.
    fn is_used(&self) -> bool {
        true
    }
}

/// Makes a file's or a folder's name durable.
fn sync_parent(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// No store: every start reads the logs from their beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl Store for NoStore {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn scan(&mut self, _: &[u8], _: usize) -> Result<Pairs, StoreError> {
        Ok(Vec::new())
    }

    fn write(&mut self, _: Batch) -> Result<(), StoreError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_used(&self) -> bool {
        false
    }
}

/// What every engine must pass, on an empty store.
#[cfg(test)]
pub(crate) fn suite(store: &mut dyn Store) {
    let batch = |pairs: &[(&str, Option<&[u8]>)], mark: &'static str| Batch {
        pairs: (pairs.iter())
            .map(|(key, value)| (key.as_bytes().to_vec(), value.map(Bytes::copy_from_slice)))
            .collect(),
        mark: Bytes::from_static(mark.as_bytes()),
    };
    let all = |store: &mut dyn Store| {
        let mut all: Pairs = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.clone()).unwrap_or_default();
            let some = store.scan(&after, 1).unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    assert_eq!(store.mark(), Ok(None));
    assert_eq!(store.scan(b"", 100), Ok(Vec::new()));
    let big = vec![7; 256 << 10];
    store.write(batch(&[("b", Some(b"2")), ("a", Some(&big)), ("c", Some(b""))], "one")).unwrap();
    store.write(batch(&[("b", None), ("d", Some(b"4")), ("gone", None)], "two")).unwrap();
    assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"two"))));
    let pair =
        |key: &'static str, value: &[u8]| (Bytes::from_static(key.as_bytes()), Bytes::copy_from_slice(value));
    let wanted = vec![pair("a", &big), pair("c", b""), pair("d", b"4")];
    assert_eq!(all(store), wanted);
    assert_eq!(store.scan(b"a", usize::MAX), Ok(wanted[1..].to_vec()));
    store.flush().unwrap();
    store.clear().unwrap();
    assert_eq!((store.mark(), all(store)), (Ok(None), Vec::new()));
    store.write(batch(&[("e", Some(b"5"))], "three")).unwrap();
    assert_eq!(all(store), vec![pair("e", b"5")]);
}
