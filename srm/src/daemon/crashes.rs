//! What a run leaves for the next one of what it was handling when it ended (D15).
//!
//! `turn`: `crc32c u32 | count u32 | count × u64`, the names of the inputs of the turn that is under way; count 0 between
//! turns. Written without waiting for the disk: it has to outlive the process, not the machine. `crashes.json`: the crashes
//! of both nodes that are remembered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use presence_engine::engine::{Print, Trap};
use tracing::warn;

use crate::node::Crashes;

const TURN: &str = "turn";
const CRASHES: &str = "crashes.json";

/// The file of the turn that is under way.
pub struct TurnFile {
    file: File,
    bytes: Vec<u8>,
}

impl TurnFile {
    /// Opens it, made if it is not there; what the last run was handling when it ended.
    pub fn open(data: &Path) -> anyhow::Result<(TurnFile, Vec<u64>)> {
        let path = data.join(TURN);
        let context = || format!("{}: cannot be read or written; check the data folder", path.display());
        let found = match fs::read(&path) {
            Ok(bytes) => read_turn(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(context),
        };
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(context)?;
        Ok((TurnFile { file, bytes: Vec::new() }, found))
    }

    /// No turn is under way.
    pub fn clear(&self) -> io::Result<()> {
        self.file.write_all_at(&turn(&[]), 0)
    }

    /// A turn with these begins, or (none) it is over.
    pub fn note(&mut self, prints: &[Print]) {
        self.bytes.clear();
        put_turn(&mut self.bytes, prints.iter().map(|print| print.0));
        // A full disk ends the process by the log; the guard is not worth it.
        let _ = self.file.write_all_at(&self.bytes, 0);
    }
}

fn put_turn(bytes: &mut Vec<u8>, prints: impl ExactSizeIterator<Item = u64>) {
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(prints.len() as u32).to_le_bytes());
    prints.for_each(|print| bytes.extend_from_slice(&print.to_le_bytes()));
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

fn turn(prints: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_turn(&mut bytes, prints.iter().copied());
    bytes
}

/// What was being handled. Something torn says nothing: better no guess than a wrong one.
fn read_turn(bytes: &[u8]) -> Vec<u64> {
    let number =
        |from: usize| bytes.get(from..from + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four")));
    let (Some(crc), Some(count)) = (number(0), number(4)) else { return Vec::new() };
    let end = (count as usize).saturating_mul(8).saturating_add(8);
    match bytes.get(4..end) {
        Some(body) if crc32c::crc32c(body) == crc => {
            body[4..].chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight"))).collect()
        }
        _ => Vec::new(),
    }
}

/// The node's thread has panicked while it handled `print` (0: nothing): no other input of the turn is to blame.
pub fn panicked(data: &Path, print: u64) {
    if print != 0 {
        let file = OpenOptions::new().write(true).open(data.join(TURN));
        let _ = file.and_then(|file| file.write_all_at(&turn(&[print]), 0));
    }
}

/// What is remembered. A file that cannot be read is set aside: it may not keep a node from starting.
pub fn read(data: &Path) -> anyhow::Result<Crashes> {
    let path = data.join(CRASHES);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!(file = %path.display(), %error, "what is known of crashes cannot be read and is begun anew");
            Crashes::default()
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Crashes::default()),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    }
}

/// Keeps it, durably, in place of what was there.
pub fn write(data: &Path, crashes: &Crashes) -> anyhow::Result<()> {
    let path = data.join(CRASHES);
    let new = path.with_extension("new");
    let context = || format!("{}: cannot be written", path.display());
    let mut file = File::create(&new).with_context(context)?;
    file.write_all(&serde_json::to_vec(crashes)?).and_then(|()| file.sync_all()).with_context(context)?;
    fs::rename(&new, &path).with_context(context)?;
    File::open(data).and_then(|folder| folder.sync_all()).with_context(context)
}

/// For tests: `TANDEM_PANIC_AT=stream:FILE`, one such place in a line, has the task of the next connection panic that hands something over while there
/// is such a file. Whoever takes the file away panics, once.
pub fn stream_trap() {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    panic_once(FILE.get_or_init(|| trap_file("stream")).as_deref());
}

/// For tests: `TANDEM_PANIC_AT=services:FILE` has one of the tasks that supervise the critical services panic in the same way.
pub fn services_trap() {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    panic_once(FILE.get_or_init(|| trap_file("services")).as_deref());
}

/// For tests: with `TANDEM_PANIC_AT=task:FILE` a task panics that must not, as soon as FILE has its name.
pub fn task_trap() -> Option<PathBuf> {
    trap_file("task")
}

/// Panics when the file has this name.
pub async fn trapped(name: &str, file: &Path) {
    loop {
        if fs::read(file).is_ok_and(|wanted| wanted == name.as_bytes()) {
            panic_once(Some(file));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn trap_file(place: &str) -> Option<PathBuf> {
    let wanted = std::env::var("TANDEM_PANIC_AT").ok()?;
    let mut places = wanted.lines().filter_map(|line| line.split_once(':'));
    places.find_map(|(at, file)| (at == place).then(|| PathBuf::from(file)))
}

fn panic_once(file: Option<&Path>) {
    if file.is_some_and(|file| fs::remove_file(file).is_ok()) {
        panic!("asked for by TANDEM_PANIC_AT");
    }
}

/// For tests: `TANDEM_PANIC_AT=element:TEXT` or `forward:TEXT` is what the engine is to panic at.
pub fn trap() -> Option<Trap> {
    let wanted = std::env::var("TANDEM_PANIC_AT").ok()?;
    let mut places = wanted.lines().filter_map(|line| line.split_once(':'));
    places.find_map(|place| match place {
        ("element", text) if !text.is_empty() => Some(Trap::Element(text.into())),
        ("forward", text) if !text.is_empty() => Some(Trap::Forward(text.into())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Crash;

    #[test]
    fn what_a_run_was_handling_is_found_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let open = || TurnFile::open(dir.path()).unwrap();
        let (mut file, found) = open();
        assert_eq!(found, [0; 0]);
        file.note(&[Print(3), Print(4), Print(5)]);
        assert_eq!(open().1, [3, 4, 5]);
        // Shorter than what was there before.
        file.note(&[Print(9)]);
        assert_eq!(open().1, [9]);
        file.note(&[Print(3), Print(4)]);
        panicked(dir.path(), 4);
        assert_eq!(open().1, [4], "the one that was being handled");
        panicked(dir.path(), 0);
        assert_eq!(open().1, [4], "nothing was: the turn is what there is to say");
        file.note(&[]);
        assert_eq!(open().1, [0; 0]);
        fs::write(dir.path().join(TURN), b"\x01\0\0\0\x01\0\0\0\x07\0\0\0\0\0\0\0").unwrap();
        assert_eq!(open().1, [0; 0], "torn");
        fs::write(dir.path().join(TURN), [255; 8]).unwrap();
        assert_eq!(open().1, [0; 0], "too long");
    }

    #[test]
    fn crashes_are_kept_and_a_damaged_file_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Crashes::default());
        let mut crashes = Crashes::default();
        crashes.add(Crash { run: 7, at_ms: 1, prints: vec![u64::MAX] });
        write(dir.path(), &crashes).unwrap();
        assert_eq!(read(dir.path()).unwrap(), crashes);
        fs::write(dir.path().join(CRASHES), b"{").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Crashes::default());
    }
}
