//! A store in memory that can lose what was not flushed: for simulation.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Batch, Pairs, Store, StoreError};

#[derive(Clone, Debug, Default)]
struct Content {
    pairs: BTreeMap<Bytes, Bytes>,
    mark: Option<Bytes>,
}

/// Pairs in memory, and what of them is on disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    now: Content,
    durable: Content,
}

impl MemoryStore {
    /// The power fails: what was not flushed is gone. (A killed process loses nothing.)
    pub fn lose_power(&mut self) {
        self.now = self.durable.clone();
    }

    /// The disk is a new one.
    pub fn lose_all(&mut self) {
        *self = MemoryStore::default();
    }
}

impl Store for MemoryStore {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.now.mark.clone())
    }

    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        let behind = (Bound::Excluded(Bytes::copy_from_slice(after)), Bound::Unbounded);
        let mut size = 0;
        let some = self.now.pairs.range(behind).take_while(|(key, value)| {
            let first = size == 0;
            size += key.len() + value.len();
            first || size <= max_bytes
        });
        Ok(some.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        for (key, value) in batch.pairs {
            match value {
                Some(value) => _ = self.now.pairs.insert(Bytes::from(key), value),
                None => _ = self.now.pairs.remove(&key[..]),
            }
        }
        self.now.mark = Some(batch.mark);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.durable = self.now.clone();
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.lose_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn memory_passes_the_suite() {
        suite(&mut MemoryStore::default());
    }

    #[test]
    fn only_what_was_flushed_outlives_a_power_loss() {
        let mut store = MemoryStore::default();
        let batch = |key: &str| Batch {
            pairs: vec![(key.into(), Some(Bytes::new()))],
            mark: Bytes::copy_from_slice(key.as_bytes()),
        };
        store.write(batch("a")).unwrap();
        store.flush().unwrap();
        store.write(batch("b")).unwrap();
        store.lose_power();
        assert_eq!(store.scan(b"", 100).unwrap().len(), 1);
        assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"a"))));
    }
}
