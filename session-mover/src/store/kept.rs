//! A store that says when it was emptied behind the node's back. An engine may take a damaged file for an empty one, and a
//! folder that somebody removed is made anew: neither is an error to it.
//!
//! The sign is a file beside the store, made when the first checkpoint is durable, and taken away before the store is
//! cleared. So it is there only if there is a mark, whenever the process dies or the power fails.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Batch, Pairs, Store, StoreError, sync_parent};

/// What the sign says to whoever looks into the folder.
const TEXT: &str =
    "Checkpoints were written to the store. If it is empty at a start, it was lost or damaged.\n";

/// The sign beside an engine.
#[derive(Debug)]
pub struct Kept<S> {
    inner: S,
    sign: PathBuf,
    /// Whether the sign is there; `None` until that was looked up.
    signed: Option<bool>,
    /// A mark was written that is not durable yet.
    wrote: bool,
}

/// Takes the sign away, durably: the store that it spoke of is cleared or was set aside.
pub fn unsign(sign: &Path) -> io::Result<()> {
    match fs::remove_file(sign) {
        Ok(()) => sync_parent(sign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn make(sign: &Path) -> io::Result<()> {
    fs::write(sign, TEXT)?;
    File::open(sign)?.sync_all()?;
    sync_parent(sign)
}

impl<S: Store> Kept<S> {
    /// Around an engine; `sign` is a file outside of its folder.
    pub fn new(inner: S, sign: PathBuf) -> Kept<S> {
        Kept { inner, sign, signed: None, wrote: false }
    }

    fn signed(&mut self) -> bool {
        *self.signed.get_or_insert_with(|| self.sign.exists())
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError(format!("{}: {error}", self.sign.display()))
    }
}

impl<S: Store> Store for Kept<S> {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mark = self.inner.mark()?;
        if mark.is_none() && self.signed() {
            return Err(StoreError("it is empty, though checkpoints were written to it".into()));
        }
        Ok(mark)
    }

    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        self.inner.scan(after, max_bytes)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.wrote = true;
        self.inner.write(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.inner.flush()?;
        if std::mem::take(&mut self.wrote) && !self.signed() {
            make(&self.sign).map_err(|error| self.failed(&error))?;
            self.signed = Some(true);
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        unsign(&self.sign).map_err(|error| self.failed(&error))?;
        (self.signed, self.wrote) = (Some(false), false);
        self.inner.clear()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStore, suite};
    use super::*;

    fn batch() -> Batch {
        Batch { pairs: Vec::new(), mark: Bytes::from_static(b"m") }
    }

    #[test]
    fn a_kept_store_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        suite(&mut Kept::new(MemoryStore::default(), dir.path().join("sign")));
    }

    #[test]
    fn a_store_that_was_emptied_from_outside_says_so_and_one_that_was_cleared_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let again = |inner: MemoryStore| Kept::new(inner, dir.path().join("sign"));
        let mut store = again(MemoryStore::default());
        assert_eq!(store.mark(), Ok(None), "a new one");
        store.write(batch()).unwrap();
        let mut lost = store.inner.clone();
        lost.lose_power();
        assert_eq!(again(lost).mark(), Ok(None), "nothing was durable yet");
        store.flush().unwrap();
        assert_eq!(again(store.inner.clone()).mark(), Ok(Some(Bytes::from_static(b"m"))));
        let mut emptied = again(MemoryStore::default());
        let error = emptied.mark().unwrap_err();
        assert!(error.0.contains("empty, though checkpoints"), "{error}");
        emptied.clear().unwrap();
        assert_eq!(emptied.mark(), Ok(None));
        assert_eq!(again(emptied.inner).mark(), Ok(None), "and after a start");
        store.clear().unwrap();
        assert_eq!(again(store.inner).mark(), Ok(None));
    }
}
