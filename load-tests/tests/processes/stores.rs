//! Stores and the loss of power: what an engine called durable must be there, and whatever is there must be what some
//! batch left, whole.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use load_tests::batches::check_store;
use load_tests::powerloss::{Fault, Loss, Shim, Undone, copy_folder, set_faults, undo_unsynced};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use session_mover::store::{Checked, RedbStore, SledStore, Store, StoreError};
use tempfile::TempDir;

const SIGKILL: i32 = 9;

fn seed() -> u64 {
    std::env::var("TANDEM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn open(engine: &str, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
    Ok(match engine {
        "sled" => Box::new(Checked::new(SledStore::open(dir)?)),
        _ => Box::new(Checked::new(RedbStore::open(dir)?)),
    })
}

/// One disk, and what must be on it.
struct Disk<'a> {
    shim: &'a Shim,
    engine: &'a str,
    folder: TempDir,
    promised: u64,
    undone: Undone,
}

impl Disk<'_> {
    fn new<'a>(shim: &'a Shim, engine: &'a str) -> Disk<'a> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        Disk { shim, engine, folder, promised: 0, undone: Undone::default() }
    }

    /// Lets a process write for a while and kills it.
    fn write_and_kill(&mut self, faults: &[Fault], rng: &mut StdRng) -> Result<(), String> {
        let (data, journal) = (self.folder.path().join("data"), self.folder.path().join("journal"));
        set_faults(&journal, faults).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_store-writer"));
        command.arg(data.canonicalize().unwrap().join("store")).arg(self.engine);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.shim.preload(&mut command, &data, &journal).unwrap();
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let most = rng.random_range(1..60);
        let mut listen = |promised: &mut u64| {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            // Half a line is no promise.
            let Some((word, number)) = line.strip_suffix('\n').and_then(|l| l.split_once(' ')) else {
                return false;
            };
            if word == "done" {
                *promised = number.parse().unwrap();
            }
            true
        };
        let _ = (0..most).all(|_| listen(&mut self.promised));
        std::thread::sleep(Duration::from_micros(rng.random_range(0..8_000)));
        child.kill().unwrap();
        while listen(&mut self.promised) {}
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        match child.wait().unwrap() {
            status if status.signal() == Some(SIGKILL) => Ok(()),
            status => Err(format!("the writer ended by itself: {status}, {errors}")),
        }
    }

    /// Lets a process write so many batches, and the last mark again and again; then the disk fails it, and it has to end by itself.
    fn write_until_it_fails(&mut self, faults: &[Fault], batches: u32) -> ExitStatus {
        let (data, journal) = (self.folder.path().join("data"), self.folder.path().join("journal"));
        set_faults(&journal, &[]).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_store-writer"));
        command.arg(data.canonicalize().unwrap().join("store")).arg(self.engine).arg(batches.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        self.shim.preload(&mut command, &data, &journal).unwrap();
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let done = |line: String| line.strip_prefix("done ").and_then(|number| number.parse().ok());
        let last = if batches % 4 == 3 { batches - 1 } else { batches };
        while self.promised < u64::from(last) {
            self.promised = lines.by_ref().find_map(done).expect("it writes");
        }
        set_faults(&journal, faults).unwrap();
        let (ended, wait) = channel();
        let pid = child.id();
        let reaper = std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let _ = ended.send(());
            status
        });
        if wait.recv_timeout(Duration::from_secs(60)).is_err() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        reaper.join().unwrap()
    }

    fn lose_power(&mut self, loss: Loss, rng: &mut StdRng) {
        let (data, journal) = (self.folder.path().join("data"), self.folder.path().join("journal"));
        let undone = undo_unsynced(&data, &journal, loss, rng).unwrap();
        self.undone.unsynced += undone.unsynced;
        self.undone.writes += undone.writes;
    }

    /// Looks at a copy: what is torn stays for the next process.
    fn check(&self) -> Result<(), String> {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.folder.path().join("data"), copy.path());
        let mut store = open(self.engine, &copy.path().join("store")).map_err(|error| error.to_string())?;
        match check_store(&mut *store)? {
            found if found < self.promised => {
                Err(format!("lost: {} was promised, {found} found", self.promised))
            }
            _ => Ok(()),
        }
    }
}

/// Rounds of writing and killing, most of them with a loss of power, on a few disks. What was undone, how many batches
/// were promised, and the first broken promise.
fn rounds(engine: &str, count: u32, fault: Option<Fault>) -> (Undone, u64, Result<(), String>) {
    let shim = Shim::compile().unwrap();
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut undone, mut promised) = (Undone::default(), 0);
    let mut disk = Disk::new(&shim, engine);
    for round in 0..count {
        if round % 6 == 0 {
            disk = Disk::new(&shim, engine);
        }
        let slow = rng.random_ratio(1, 4).then(|| Fault::SlowSync(rng.random_range(1..5)));
        let faults: Vec<Fault> = slow.into_iter().chain(fault).collect();
        let before = (disk.promised, disk.undone);
        let loss = if round % 2 == 0 { Loss::All } else { Loss::Pieces };
        let result = disk.write_and_kill(&faults, &mut rng).and_then(|()| {
            if rng.random_ratio(3, 4) {
                disk.lose_power(loss, &mut rng);
            }
            disk.check()
        });
        undone.unsynced += disk.undone.unsynced - before.1.unsynced;
        undone.writes += disk.undone.writes - before.1.writes;
        promised += disk.promised - before.0;
        if let Err(error) = result {
            let after = disk.promised;
            let error =
                format!("seed {}, {engine}, round {round}, {loss:?}, {after} promised: {error}", seed());
            return (undone, promised, Err(error));
        }
    }
    (undone, promised, Ok(()))
}

#[test]
fn sled_survives_the_loss_of_power() {
    let (undone, promised, result) = rounds("sled", 60, None);
    result.unwrap();
    assert!(promised > 500 && undone.writes > 10, "the test tests something: {promised} {undone:?}");
}

#[test]
fn redb_survives_the_loss_of_power() {
    let (undone, promised, result) = rounds("redb", 60, None);
    result.unwrap();
    assert!(promised > 500 && undone.writes > 10, "the test tests something: {promised} {undone:?}");
}

/// An engine that waits for ever for what its disk refused would take its node's store with it.
#[test]
fn an_engine_whose_disk_fails_says_so() {
    let shim = Shim::compile().unwrap();
    for engine in ["sled", "redb"] {
        for round in 1..=12 {
            let mut disk = Disk::new(&shim, engine);
            let status = disk.write_until_it_fails(&[Fault::WriteFails], round);
            assert_eq!(status.code(), Some(1), "{engine}, round {round}: {status}");
            set_faults(&disk.folder.path().join("journal"), &[]).unwrap();
            disk.check().unwrap();
        }
    }
}

/// The control: where fdatasync does nothing the same check must fail. For sled that is also what its own flush is worth.
#[test]
fn a_store_on_a_disk_that_lies_is_found_out() {
    for engine in ["sled", "redb"] {
        let (_, promised, result) = rounds(engine, 8, Some(Fault::SyncIsNoop));
        let error = result.expect_err("a lying disk loses what was promised");
        assert!(promised > 0, "{error}");
    }
}
