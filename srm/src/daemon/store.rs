//! The store of a node: which engine, where, and what happens to one that fails. The logs have everything that it has, so
//! no failure of a store keeps a node from starting or serving: it is set aside and filled anew.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use session_mover::store::{
    Behind, Checked, Found, Hooks, Kept, RedbStore, SledStore, Store, StoreError, Watch, unsign,
};
use tracing::warn;

use crate::config::Engine;

/// Name of the thread. An engine may panic there: that is caught, and costs the engine.
pub const THREAD: &str = "store";

/// Opens the store below `data`, as it is or anew. `before` makes durable what a checkpoint builds on; `done` is told of
/// each checkpoint.
pub fn open(
    engine: Engine,
    data: &Path,
    before: impl Fn() + Send + 'static,
    done: impl Fn(Result<(), String>) + Send + 'static,
) -> anyhow::Result<Behind> {
    let place = Place { engine, data: data.to_owned() };
    let again = Place { engine, data: data.to_owned() };
    fs::create_dir_all(data.join("store"))
        .with_context(|| format!("{}: cannot be made", data.join("store").display()))?;
    let store = match place.open() {
        Ok(store) => store,
        Err(error) => {
            warn!(%error, "store set aside");
            done(Err(error.0.clone()));
            place.anew().with_context(|| {
                format!("{}: a new store cannot be made; check the disk", place.dir().display())
            })?
        }
    };
    let hooks = Hooks {
        before: Box::new(before),
        done: Box::new(move |result| done(result.map_err(|error| error.0))),
        anew: Box::new(move || place.anew()),
        open: Box::new(move || again.open()),
    };
    Behind::start(store, hooks).context("the store's thread cannot be started")
}

/// For the operator: a store that cannot be used, nor written anew.
pub fn alarm(store: &Watch) -> Option<String> {
    let Found::Wrong(why) = store.look() else { return None };
    Some(format!(
        "the store of this node cannot be written ({why}): this node serves on from its logs, which grow. Make room on its \
         disk, or mend it; then `tandem service restart database`"
    ))
}

struct Place {
    engine: Engine,
    data: PathBuf,
}

impl Place {
    fn name(&self) -> &'static str {
        match self.engine {
            Engine::Sled => "sled",
            Engine::Redb => "redb",
        }
    }

    fn dir(&self) -> PathBuf {
        self.data.join("store").join(self.name())
    }

    /// What tells that there were checkpoints, should the store be empty one day.
    fn sign(&self) -> PathBuf {
        self.data.join(format!("store-{}.kept", self.name()))
    }

    fn kept<S: Store>(&self, engine: S) -> Kept<Checked<S>> {
        Kept::new(Checked::new(engine), self.sign())
    }

    fn open(&self) -> Result<Box<dyn Store + Send>, StoreError> {
        let dir = self.dir();
        Ok(match self.engine {
            Engine::Sled => Box::new(self.kept(SledStore::open(&dir)?)),
            Engine::Redb => Box::new(self.kept(RedbStore::open(&dir)?)),
        })
    }

    /// Sets aside what there is and opens an empty one. What has never held a checkpoint is not worth keeping: on a disk that
    /// takes nothing there is one at each attempt.
    fn anew(&self) -> Result<Box<dyn Store + Send>, StoreError> {
        let (dir, aside) = (self.dir(), self.data.join("aside"));
        let failed = |error: std::io::Error| StoreError(format!("{}: {error}", dir.display()));
        if dir.exists() && !self.sign().exists() {
            fs::remove_dir_all(&dir).map_err(failed)?;
        } else if dir.exists() {
            fs::create_dir_all(&aside).map_err(failed)?;
            let target =
                (0u32..).map(|n| aside.join(format!("store-{}-{n}", self.name()))).find(|p| !p.exists());
            fs::rename(&dir, target.expect("some number is free")).map_err(failed)?;
        }
        unsign(&self.sign()).map_err(failed)?;
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use session_mover::store::Batch;

    use super::*;

    #[test]
    fn a_damaged_store_is_set_aside_and_a_new_one_opened() {
        for engine in [Engine::Sled, Engine::Redb] {
            let dir = tempfile::tempdir().unwrap();
            let open = || open(engine, dir.path(), || (), |_| ()).unwrap();
            let mut store = open();
            store.write(Batch { pairs: Vec::new(), mark: Bytes::from_static(b"m") }).unwrap();
            store.flush().unwrap();
            assert_eq!(store.mark(), Ok(Some(Bytes::from_static(b"m"))));
            let place = Place { engine, data: dir.path().to_owned() };
            drop(store);
            assert_eq!(place.open().unwrap().mark(), Ok(Some(Bytes::from_static(b"m"))));
            let file = place.dir().join(if engine == Engine::Sled { "db" } else { "redb" });
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
            let mut store = open();
            assert_eq!(store.mark(), Ok(None));
            assert!(dir.path().join("aside").join(format!("store-{}-0", place.name())).exists());
        }
    }

    #[test]
    fn a_store_that_an_engine_takes_for_an_empty_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { engine: Engine::Sled, data: dir.path().to_owned() };
        let told = Arc::new(Mutex::new(Vec::new()));
        let open = || {
            let told = told.clone();
            open(Engine::Sled, dir.path(), || (), move |result| told.lock().unwrap().push(result)).unwrap()
        };
        let write = |mut store: Behind| {
            let value = Some(Bytes::from(vec![7; 10_000]));
            let pairs = (0..1_000).map(|key: u16| (key.to_be_bytes().to_vec(), value.clone())).collect();
            store.write(Batch { pairs, mark: Bytes::from_static(b"m") }).unwrap();
            store.flush().unwrap();
        };
        write(open());
        let file = place.dir().join("db");
        let damage = |file: &Path| {
            let mut bytes = fs::read(file).unwrap();
            bytes[512..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            fs::write(file, bytes).unwrap();
        };
        let damages: [&dyn Fn(); 2] = [&|| damage(&file), &|| fs::remove_dir_all(place.dir()).unwrap()];
        for (number, harm) in damages.iter().enumerate() {
            harm();
            let mut store = open();
            let error = store.mark().expect_err(&number.to_string());
            assert!(error.0.contains("checkpoints were written"), "{error}");
            store.set_aside(&error).unwrap();
            assert_eq!(store.mark(), Ok(None));
            assert_eq!(*told.lock().unwrap(), vec![Err(error.0.clone()); number + 1]);
            assert!(dir.path().join(format!("aside/store-sled-{number}")).exists());
            write(store);
        }
    }
}
