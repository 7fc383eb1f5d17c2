//! A store whose pairs are compared with what was written: an engine that lost or mixed up some of them without noticing is
//! found out at the next start, before a state is made of them.
//!
//! The mark carries the number of pairs and the sum of their hashes. A sum, because it can follow each change: what a key
//! had is taken away, what it has now is added.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Batch, Pairs, Store, StoreError};

/// Bytes that one read brings while the pairs are counted.
const CHUNK: usize = 1 << 20;
/// Bytes before the mark: sum and count.
const PREFIX: usize = 16;

/// The check around an engine.
#[derive(Debug)]
pub struct Checked<S> {
    inner: S,
    /// Hash of each pair, by key; `None` until they were read.
    hashes: Option<HashMap<Vec<u8>, u64>>,
    /// A walk over all pairs that is under way.
    walk: HashMap<Vec<u8>, u64>,
}

/// Stays the same in every version: it is on disk. CRC-32C twice, of the pair forwards and of its parts exchanged.
pub(crate) fn hash(key: &[u8], value: &[u8]) -> u64 {
    let forwards = crc32c::crc32c_append(crc32c::crc32c(&(key.len() as u64).to_le_bytes()), key);
    let forwards = crc32c::crc32c_append(forwards, value);
    let exchanged = crc32c::crc32c_append(crc32c::crc32c(&(value.len() as u64).to_le_bytes()), value);
    let exchanged = crc32c::crc32c_append(exchanged, key);
    u64::from(forwards) << 32 | u64::from(exchanged)
}

fn sum(hashes: &HashMap<Vec<u8>, u64>) -> u64 {
    hashes.values().fold(0, |sum, hash| sum.wrapping_add(*hash))
}

impl<S: Store> Checked<S> {
    /// Around an engine that was just opened.
    pub fn new(inner: S) -> Checked<S> {
        Checked { inner, hashes: None, walk: HashMap::new() }
    }

    /// What the last mark says of the pairs: sum, count, and the mark of whoever uses the store.
    fn promised(&mut self) -> Result<Option<(u64, u64, Bytes)>, StoreError> {
        let Some(mark) = self.inner.mark()? else { return Ok(None) };
        let short = || StoreError("its mark was written by another version".into());
        let number =
            |from: usize| mark.get(from..from + 8).map(|b| u64::from_le_bytes(b.try_into().expect("8")));
        let (sum, count) = (number(0).ok_or_else(short)?, number(8).ok_or_else(short)?);
        Ok(Some((sum, count, mark.slice(PREFIX..))))
    }

    /// The end of a walk: these are all pairs.
    fn verify(&mut self) -> Result<(), StoreError> {
        let found = std::mem::take(&mut self.walk);
        let promised = self.promised()?.map_or((0, 0), |(sum, count, _)| (sum, count));
        if promised != (sum(&found), found.len() as u64) {
            let (wanted, found) = (promised.1, found.len());
            return Err(StoreError(format!(
                "its pairs are not those that were written: {found} found, {wanted} written"
            )));
        }
        self.hashes = Some(found);
        Ok(())
    }

    fn known(&mut self) -> Result<&mut HashMap<Vec<u8>, u64>, StoreError> {
        if self.hashes.is_none() {
            let mut after = Bytes::new();
            loop {
                let some = self.scan(&after, CHUNK)?;
                let Some((last, _)) = some.last() else { break };
                after = last.clone();
            }
        }
        Ok(self.hashes.get_or_insert_default())
    }
}

impl<S: Store> Store for Checked<S> {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.promised()?.map(|(_, _, mark)| mark))
    }

    /// A walk from the first pair to the last ends with an error if these are not the pairs that were written.
    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        if after.is_empty() {
            self.walk.clear();
        }
        let some = self.inner.scan(after, max_bytes)?;
        if self.hashes.is_none() {
            self.walk.extend(some.iter().map(|(key, value)| (key.to_vec(), hash(key, value))));
            if some.is_empty() {
                self.verify()?;
            }
        }
        Ok(some)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let hashes = self.known()?;
        for (key, value) in &batch.pairs {
            match value {
                Some(value) => _ = hashes.insert(key.clone(), hash(key, value)),
                None => _ = hashes.remove(key),
            }
        }
        let mut mark = BytesMut::with_capacity(PREFIX + batch.mark.len());
        mark.put_u64_le(sum(hashes));
        mark.put_u64_le(hashes.len() as u64);
        mark.put_slice(&batch.mark);
        self.inner.write(Batch { mark: mark.freeze(), ..batch })
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.inner.clear()?;
        (self.hashes, self.walk) = (Some(HashMap::new()), HashMap::new());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, suite};
    use super::*;

    fn batch(pairs: &[(&str, Option<&str>)]) -> Batch {
        let pairs = pairs.iter().map(|(key, value)| {
            (key.as_bytes().to_vec(), value.map(|value| Bytes::copy_from_slice(value.as_bytes())))
        });
        Batch { pairs: pairs.collect(), mark: Bytes::from_static(b"mark") }
    }

    fn walk(store: &mut impl Store) -> Result<usize, StoreError> {
        let (mut after, mut count) = (Bytes::new(), 0);
        loop {
            let some = store.scan(&after, 1)?;
            let Some((last, _)) = some.last() else { return Ok(count) };
            after = last.clone();
            count += some.len();
        }
    }

    #[test]
    fn the_hash_of_a_pair_is_the_same_in_every_version() {
        assert_eq!(hash(b"key", b"value"), 3_864_301_612_150_048_708);
    }

    #[test]
    fn a_checked_store_passes_the_suite() {
        suite(&mut Checked::new(MemoryStore::default()));
    }

    #[test]
    fn pairs_that_were_lost_changed_or_brought_back_are_found_out() {
        let mut store = Checked::new(MemoryStore::default());
        store.write(batch(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        store.write(batch(&[("a", Some("3")), ("b", None), ("c", Some("4"))])).unwrap();
        let good = store.inner.clone();
        assert_eq!(walk(&mut Checked::new(good.clone())), Ok(2));
        for damage in [("a", None), ("a", Some("1")), ("b", Some("2")), ("d", Some("4"))] {
            let mut damaged = good.clone();
            let mark = damaged.mark().unwrap().unwrap();
            damaged.write(Batch { mark, ..batch(&[damage]) }).unwrap();
            let error = walk(&mut Checked::new(damaged)).unwrap_err();
            assert!(error.to_string().contains("not those that were written"), "{damage:?}: {error}");
        }
        // Written to before anything was read.
        let mut again = Checked::new(good);
        again.write(batch(&[("a", None)])).unwrap();
        assert_eq!(walk(&mut Checked::new(again.inner)), Ok(1));
    }
}
