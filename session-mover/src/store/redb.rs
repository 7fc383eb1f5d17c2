//! redb as a store: the second engine, which proves the trait. It is named in this file and nowhere else.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Batch, Pairs, Store, StoreError};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pairs");
const MARK: TableDefinition<'_, (), &[u8]> = TableDefinition::new("mark");
/// Memory for pages, in bytes; see sled's.
const CACHE_BYTES: usize = 16 << 20;

/// A store in a file of its own.
#[derive(Debug)]
pub struct RedbStore {
    db: Database,
}

fn broken(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

impl RedbStore {
    /// Opens the folder, made if it is not there; the file in it is `redb`.
    pub fn open(dir: &Path) -> Result<RedbStore, StoreError> {
        std::fs::create_dir_all(dir).map_err(broken)?;
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb")).map_err(broken)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        for folder in [Some(dir), parent].into_iter().flatten() {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(broken)?;
        }
        let store = RedbStore { db };
        // So that reading never misses a table.
        store.change(Durability::Immediate, |_, _| Ok(()))?;
        Ok(store)
    }

    fn change(
        &self,
        durability: Durability,
        run: impl FnOnce(
            &mut redb::Table<'_, &'static [u8], &'static [u8]>,
            &mut redb::Table<'_, (), &'static [u8]>,
        ) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let mut turn = self.db.begin_write().map_err(broken)?;
        turn.set_durability(durability).map_err(broken)?;
        {
            let mut pairs = turn.open_table(PAIRS).map_err(broken)?;
            let mut mark = turn.open_table(MARK).map_err(broken)?;
            run(&mut pairs, &mut mark).map_err(broken)?;
        }
        turn.commit().map_err(broken)
    }
}

impl Store for RedbStore {
    fn mark(&mut self) -> Result<Option<Bytes>, StoreError> {
        let turn = self.db.begin_read().map_err(broken)?;
        let mark = turn.open_table(MARK).map_err(broken)?.get(()).map_err(broken)?;
        Ok(mark.map(|mark| Bytes::copy_from_slice(mark.value())))
    }

    fn scan(&mut self, after: &[u8], max_bytes: usize) -> Result<Pairs, StoreError> {
        let turn = self.db.begin_read().map_err(broken)?;
        let pairs = turn.open_table(PAIRS).map_err(broken)?;
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let (mut some, mut size) = (Pairs::new(), 0);
        for item in pairs.range::<&[u8]>((from, Bound::Unbounded)).map_err(broken)? {
            let (key, value) = item.map_err(broken)?;
            let (key, value) = (Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()));
            size += key.len() + value.len();
            if !some.is_empty() && size > max_bytes {
                break;
            }
            some.push((key, value));
        }
        Ok(some)
    }

    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.change(Durability::None, |pairs, mark| {
            for (key, value) in &batch.pairs {
                match value {
                    Some(value) => _ = pairs.insert(&key[..], &value[..])?,
                    None => _ = pairs.remove(&key[..])?,
                }
            }
            mark.insert((), &batch.mark[..])?;
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.change(Durability::Immediate, |_, _| Ok(()))
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.change(Durability::Immediate, |pairs, mark| {
            pairs.retain(|_, _| false)?;
            mark.remove(())?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn redb_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        suite(&mut RedbStore::open(&dir.path().join("store")).unwrap());
    }
}
