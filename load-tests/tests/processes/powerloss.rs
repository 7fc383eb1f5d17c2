//! What the log calls synced survives a power failure. A process writes both logs, is killed at a seeded moment, and
//! what no fsync covered is undone; then every frame that it called synced must be there, and nothing else may be read
//! but whole frames in their order. `TANDEM_SEED` replays.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use load_tests::numbered::{Size, check_log, numbered_frame};
use load_tests::powerloss::{Fault, Loss, Shim, Undone, copy_folder, set_faults, undo_unsynced};
use presence_engine::ids::Position;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use session_mover::log::{FileLog, Which};
use session_mover::runs::Runs;
use tempfile::TempDir;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// Time that a process has to end.
const LIMIT: Duration = Duration::from_secs(60);

fn seed() -> u64 {
    std::env::var("TANDEM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// One disk, and what must be on it.
struct Disk<'a> {
    shim: &'a Shim,
    folder: TempDir,
    size: Size,
    /// What the last look found: own log, copy of the peer's.
    present: [Runs; 2],
    /// How far each is promised.
    promised: [u64; 2],
    /// Incarnation of the next process.
    inc: u64,
    undone: Undone,
}

/// A process that writes, and what it said.
struct Writer {
    child: Child,
    lines: BufReader<ChildStdout>,
    inc: u64,
    opened: Option<[u64; 2]>,
    promised: [u64; 2],
}

impl Writer {
    /// One line; false when the process is dead and has no more to say.
    fn listen(&mut self) -> bool {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        // Half a line is no promise.
        let Some(line) = line.strip_suffix('\n') else { return false };
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<u64>().unwrap();
        match words[0] {
            "open" => self.opened = Some([number(1), number(2)]),
            "own" => self.promised[0] = number(1),
            "peer" => self.promised[1] = number(1),
            _ => panic!("{line}"),
        }
        true
    }

    /// Frames of its own log that it promised.
    fn written(&self) -> u64 {
        self.opened.map_or(0, |opened| self.promised[0].saturating_sub(opened[0]))
    }

    /// A process that does not end is killed after a while, which its status tells.
    fn listen_to_the_end(&mut self) -> (ExitStatus, String) {
        let (ended, wait) = channel::<()>();
        let pid = rustix::process::Pid::from_child(&self.child);
        let watch = thread::spawn(move || {
            if wait.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        while self.listen() {}
        drop(ended);
        watch.join().unwrap();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap(), errors)
    }
}

impl Disk<'_> {
    fn new(shim: &Shim, size: Size) -> Disk<'_> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        let (present, promised) = (Default::default(), [0; 2]);
        Disk { shim, folder, size, present, promised, inc: 1, undone: Undone::default() }
    }

    fn start(&mut self, faults: &[Fault]) -> Writer {
        self.start_with(faults, |_| ())
    }

    /// The same; `more`: what else it is told.
    fn start_with(&mut self, faults: &[Fault], more: impl FnOnce(&mut Command)) -> Writer {
        let (data, journal) = (self.folder.path().join("data"), self.folder.path().join("journal"));
        set_faults(&journal, faults).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_log-writer"));
        let size = if self.size == Size::Large { "large" } else { "usual" };
        command.arg(data.canonicalize().unwrap()).arg(self.inc.to_string()).arg(size);
        more(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.shim.preload(&mut command, &data, &journal).unwrap();
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        self.inc += 1;
        Writer { child, lines, inc: self.inc - 1, opened: None, promised: [0; 2] }
    }

    /// Lets a process write for a while and kills it.
    fn write_and_kill(&mut self, faults: &[Fault], rng: &mut StdRng) -> Result<Writer, String> {
        let mut writer = self.start(faults);
        let (mut lines, most) = (0, rng.random_range(0..60));
        // Large frames: a segment has some 64 of them.
        let frames = if self.size == Size::Large { rng.random_range(1..60) } else { u64::MAX };
        while lines < most && writer.written() < frames && writer.listen() {
            lines += 1;
        }
        thread::sleep(Duration::from_micros(rng.random_range(0..4_000)));
        writer.child.kill().unwrap();
        match writer.listen_to_the_end() {
            (status, _) if status.signal() == Some(SIGKILL) => Ok(writer),
            (status, errors) => Err(format!("the writer ended by itself: {status}, {errors}")),
        }
    }

    fn lose_power(&mut self, loss: Loss, rng: &mut StdRng) {
        let (data, journal) = (self.folder.path().join("data"), self.folder.path().join("journal"));
        let undone = undo_unsynced(&data, &journal, loss, rng).unwrap();
        self.undone.unsynced += undone.unsynced;
        self.undone.writes += undone.writes;
        self.undone.names += undone.names;
    }

    /// Compares the disk with what was promised on it. Looks at a copy: what is torn stays for the next process.
    fn check(&mut self, writer: &Writer) -> Result<(), String> {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.folder.path().join("data"), copy.path());
        let (mut log, _) = FileLog::open(copy.path(), false, |_| {}).map_err(|error| error.to_string())?;
        for which in [Which::Own, Which::Peer] {
            let i = which as usize;
            let mut wanted = self.present[i].clone();
            if let Some(opened) = writer.opened {
                if opened[i] != wanted.end().seq {
                    return Err(format!("{which:?} log: found {}, then {}", wanted.end().seq, opened[i]));
                }
                (opened[i] + 1..=writer.promised[i])
                    .for_each(|seq| wanted.push(Position { seq, inc: writer.inc }));
                self.promised[i] = self.promised[i].max(writer.promised[i]);
            }
            wanted.truncate(self.promised[i]);
            let found = check_log(&mut log, which, self.size)?;
            if found.common(&wanted) < wanted.end().seq {
                return Err(format!("{which:?} log: lost: {:?} was promised, {found:?} found", wanted.end()));
            }
            self.present[i] = found;
        }
        Ok(())
    }
}

/// Rounds of writing and killing, most of them with a loss of power, on a few disks. What was done, and the first
/// broken promise.
fn rounds(
    shim: &Shim,
    loss: Loss,
    size: Size,
    count: u32,
    fault: Option<Fault>,
) -> (Undone, u64, Result<(), String>) {
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut undone, mut promised) = (Undone::default(), 0);
    let mut disk = Disk::new(shim, size);
    for round in 0..count {
        if round % 8 == 0 {
            disk = Disk::new(shim, size);
        }
        let slow = rng.random_ratio(1, 3).then(|| Fault::SlowSync(rng.random_range(1..5)));
        let faults: Vec<Fault> = slow.into_iter().chain(fault).collect();
        let before = (disk.promised, disk.undone);
        let result = disk.write_and_kill(&faults, &mut rng).and_then(|writer| {
            // Only the process dies now and then: its successor finds what is not synced yet.
            if rng.random_ratio(2, 3) {
                disk.lose_power(loss, &mut rng);
            }
            disk.check(&writer)
        });
        undone.unsynced += disk.undone.unsynced - before.1.unsynced;
        undone.writes += disk.undone.writes - before.1.writes;
        undone.names += disk.undone.names - before.1.names;
        promised += disk.promised[0] - before.0[0] + disk.promised[1] - before.0[1];
        if let Err(error) = result {
            return (undone, promised, Err(format!("seed {}, {loss:?}, round {round}: {error}", seed())));
        }
    }
    (undone, promised, Ok(()))
}

#[test]
fn what_is_synced_survives_the_loss_of_all_that_is_not() {
    let shim = Shim::compile().unwrap();
    let (undone, promised, result) = rounds(&shim, Loss::All, Size::Usual, 40, None);
    result.unwrap();
    assert!(promised > 2_000 && undone.writes > 10, "the test tests something: {promised} {undone:?}");
}

#[test]
fn what_is_synced_survives_the_loss_of_random_pieces() {
    let shim = Shim::compile().unwrap();
    let (undone, promised, result) = rounds(&shim, Loss::Pieces, Size::Usual, 40, None);
    result.unwrap();
    assert!(promised > 2_000 && undone.writes > 10, "the test tests something: {promised} {undone:?}");
}

#[test]
fn what_is_synced_survives_at_the_edges_of_segments() {
    let shim = Shim::compile().unwrap();
    for loss in [Loss::All, Loss::Pieces] {
        let (_, promised, result) = rounds(&shim, loss, Size::Large, 6, None);
        result.unwrap();
        assert!(promised > 100, "each log fills a segment: {promised}");
    }
}

/// Only the process dies first, and the power fails when its successor has just said that all it found is safe.
#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_counts() {
    let shim = Shim::compile().unwrap();
    let mut rng = StdRng::seed_from_u64(seed());
    for round in 0..6 {
        let mut disk = Disk::new(&shim, Size::Usual);
        let mut first = disk.start(&[Fault::SlowSync(30)]);
        for _ in 0..rng.random_range(4..12) {
            assert!(first.listen());
        }
        first.child.kill().unwrap();
        first.listen_to_the_end();
        disk.check(&first).unwrap();
        let mut second = disk.start(&[Fault::SlowSync(30)]);
        while second.promised[1] == 0 {
            assert!(second.listen());
        }
        second.child.kill().unwrap();
        second.listen_to_the_end();
        disk.lose_power(Loss::All, &mut rng);
        disk.check(&second).unwrap_or_else(|error| panic!("seed {}, round {round}: {error}", seed()));
    }
}

/// The own log as a process finds it that replaces its tail: five frames of an earlier run, in two segments.
fn two_segments(data: &Path) -> Vec<Bytes> {
    let own = data.join("log/own");
    fs::create_dir_all(&own).unwrap();
    let mut frames: Vec<Bytes> = Vec::new();
    let mut prev = Position::default();
    for seq in 1..=5 {
        let at = Position { seq, inc: 1 };
        frames.push(numbered_frame(at, prev, Size::Usual));
        prev = at;
    }
    fs::write(own.join(format!("{:020}.log", 1)), in_a_row(&frames[..3])).unwrap();
    fs::write(own.join(format!("{:020}.log", 4)), in_a_row(&frames[3..])).unwrap();
    frames
}

fn in_a_row(frames: &[Bytes]) -> Vec<u8> {
    frames.iter().flatten().copied().collect()
}

/// A process replaces all behind the second frame. The power fails when it has said so, or when of what it cuts the newer segment is
/// gone: then neither the old tail is there any more nor the new one, but the plan of it.
#[test]
fn a_tail_that_was_cut_is_kept_aside_and_what_comes_in_its_place_is_whole_whenever_the_power_fails() {
    let shim = Shim::compile().unwrap();
    let mut rng = StdRng::seed_from_u64(seed());
    for dies_at in [None, Some("log.truncate.after_aside:2")] {
        let mut disk = Disk::new(&shim, Size::Usual);
        let data = disk.folder.path().join("data");
        let old = two_segments(&data);
        disk.inc = 2;
        let mut writer = disk.start_with(&[], |command| {
            command.arg("2").envs(dies_at.map(|point| ("TANDEM_KILL_AT", point)));
        });
        if dies_at.is_none() {
            while writer.promised[0] == 0 {
                assert!(writer.listen(), "it ends before it is done");
            }
            writer.child.kill().unwrap();
        }
        let (status, errors) = writer.listen_to_the_end();
        assert_eq!(status.signal(), Some(SIGKILL), "{dies_at:?}: {status} {errors}");
        assert_eq!(writer.opened, Some([5, 0]), "{dies_at:?}");
        disk.lose_power(Loss::All, &mut rng);
        let aside = fs::read(data.join(format!("aside/own-{:020}-0-0.log", 4))).unwrap();
        assert!(aside == in_a_row(&old[3..]), "{dies_at:?}: {} bytes of the newer segment", aside.len());
        let (mut log, _) = FileLog::open(&data, false, |_| {}).unwrap();
        let mut wanted = Runs::default();
        (1..=5).for_each(|seq| wanted.push(Position { seq, inc: if seq > 2 { 2 } else { 1 } }));
        assert_eq!(check_log(&mut log, Which::Own, Size::Usual), Ok(wanted), "{dies_at:?}");
    }
}

/// The control: on a disk whose sync does nothing the same check must fail.
#[test]
fn a_disk_that_lies_is_found_out() {
    let shim = Shim::compile().unwrap();
    for loss in [Loss::All, Loss::Pieces] {
        let (_, promised, result) = rounds(&shim, loss, Size::Usual, 8, Some(Fault::SyncIsNoop));
        assert!(promised > 0);
        let error = result.expect_err("a lying disk loses what was promised");
        assert!(error.contains("lost:"), "{error}");
    }
}

#[test]
fn a_disk_that_fails_ends_the_process_and_breaks_no_promise() {
    let shim = Shim::compile().unwrap();
    let mut rng = StdRng::seed_from_u64(seed());
    for fault in [Fault::SyncFails, Fault::WriteFails, Fault::DiskFull] {
        for loss in [Loss::All, Loss::Pieces] {
            let mut disk = Disk::new(&shim, Size::Usual);
            let mut writer = disk.start(&[]);
            for _ in 0..rng.random_range(1..40) {
                assert!(writer.listen());
            }
            set_faults(&disk.folder.path().join("journal"), &[fault]).unwrap();
            let (status, errors) = writer.listen_to_the_end();
            assert_eq!(status.signal(), Some(SIGABRT), "{fault:?}: {status} {errors}");
            assert!(errors.contains("fatal"), "{errors}");
            disk.lose_power(loss, &mut rng);
            disk.check(&writer).unwrap_or_else(|error| panic!("{fault:?} {loss:?}: {error}"));
            // The disk is well again.
            for _ in 0..3 {
                let writer = disk.write_and_kill(&[], &mut rng).unwrap();
                disk.lose_power(loss, &mut rng);
                disk.check(&writer).unwrap_or_else(|error| panic!("after {fault:?} {loss:?}: {error}"));
            }
        }
    }
}
