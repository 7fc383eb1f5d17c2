//! Writes numbered batches into a store until it is killed, for the test of power failures: `store-writer DIR
//! sled|redb [BATCHES]`. After so many it writes the last mark again and again, as a probe does. It prints `open NUMBER`, what it found, then `done NUMBER` for each batch that it was told is durable: the
//! promise that the test holds it to.

use std::path::Path;
use std::process::ExitCode;

use load_tests::batches::{check_store, numbered_batch};
use session_mover::store::{Batch, Checked, RedbStore, SledStore, Store, StoreError};

fn run(dir: &Path, engine: &str, batches: u64) -> Result<(), StoreError> {
    let mut store: Box<dyn Store> = match engine {
        "sled" => Box::new(Checked::new(SledStore::open(dir)?)),
        _ => Box::new(Checked::new(RedbStore::open(dir)?)),
    };
    let found = check_store(&mut *store).map_err(StoreError)?;
    println!("open {found}");
    for number in (found + 1..).take(batches as usize) {
        store.write(numbered_batch(number))?;
        if number % 4 != 3 {
            store.flush()?;
            println!("done {number}");
        }
    }
    loop {
        let mark = store.mark()?.ok_or_else(|| StoreError("no mark".into()))?;
        store.write(Batch { pairs: Vec::new(), mark })?;
        store.flush()?;
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, engine, batches @ ..] = &args[..] else { return ExitCode::from(2) };
    let batches = batches.first().map_or(Ok(u64::MAX), |number| number.parse());
    let Ok(batches) = batches else { return ExitCode::from(2) };
    match run(Path::new(dir), engine, batches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store-writer: {error}");
            ExitCode::FAILURE
        }
    }
}
