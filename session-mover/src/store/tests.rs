//! What every engine on disk must do besides the suite.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Batch, Checked, Pairs, RedbStore, SledStore, Store, StoreError};

type OpenAt = fn(&Path) -> Result<Box<dyn Store + Send>, StoreError>;

const ENGINES: [(&str, OpenAt); 2] = [
    ("sled", |dir| Ok(Box::new(Checked::new(SledStore::open(dir)?)))),
    ("redb", |dir| Ok(Box::new(Checked::new(RedbStore::open(dir)?)))),
];

fn all(store: &mut dyn Store) -> Result<Pairs, StoreError> {
    let mut all = Pairs::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone()).unwrap_or_default();
        let some = store.scan(&after, 100_000)?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

/// Some keys change, some go, some have long values.
fn batch(round: u32) -> Batch {
    let pair = |n: u32| {
        let length = if n.is_multiple_of(7) { 90_000 } else { 20 + n as usize };
        let value = (n % 5 != round % 5).then(|| Bytes::from(vec![(n + round) as u8; length]));
        (format!("key{n}").into_bytes(), value)
    };
    Batch { pairs: (0..40).map(pair).collect(), mark: Bytes::from(format!("mark {round}")) }
}

#[test]
fn an_engine_gives_back_what_it_was_given_when_it_is_opened_again() {
    for (name, open) in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let mut wanted = None;
        for round in 0..6 {
            let mut store = open(&path).unwrap();
            if let Some(wanted) = wanted {
                assert_eq!(all(&mut *store).unwrap(), wanted, "{name}");
            }
            store.write(batch(round)).unwrap();
            store.flush().unwrap();
            wanted = Some(all(&mut *store).unwrap());
            assert_eq!(store.mark().unwrap().unwrap(), format!("mark {round}"));
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Damage anywhere: whatever the engine makes of it, nobody takes for a store what was never written.
#[test]
fn a_damaged_store_is_an_error_or_whole() {
    for (name, open) in ENGINES {
        let (mut refused, mut whole) = (0, 0);
        for seed in 0..24u64 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let mut states = vec![(None, Pairs::new())];
            let mut store = open(&path).unwrap();
            for round in 0..4 {
                store.write(batch(round)).unwrap();
                store.flush().unwrap();
                states.push((store.mark().unwrap(), all(&mut *store).unwrap()));
            }
            drop(store);
            let all_files = files(&path);
            let file = &all_files[seed as usize % all_files.len()];
            let length = fs::metadata(file).unwrap().len();
            let at = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % length.max(1);
            let damage = [0xa5; 64];
            let open_file = OpenOptions::new().write(true).open(file).unwrap();
            let fits = damage.len().min((length - at) as usize);
            open_file.write_all_at(&damage[..fits], at).unwrap();
            let found = catch_unwind(AssertUnwindSafe(|| -> Result<_, StoreError> {
                let mut store = open(&path)?;
                let mark = store.mark()?;
                Ok((mark, all(&mut *store)?))
            }));
            match found {
                Ok(Ok(state)) => {
                    assert!(states.contains(&state), "{name}, seed {seed}: a state that nobody wrote");
                    whole += 1;
                }
                Ok(Err(_)) | Err(_) => refused += 1,
            }
        }
        println!("{name}: {refused} refused, {whole} whole");
        assert!(refused > 0, "{name}: the damage hits nothing");
    }
}
