//! The events of one node on its disk: a line of JSON for each, in two files of which the older is dropped in its turn.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Record;

/// How long a file may get before the next one begins, in bytes.
const LENGTH: u64 = 4 << 20;
/// Events that are kept in memory, and can be asked for.
pub const RECENT: usize = 1_000;

/// The files, and the end of what is in them.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    length: u64,
    last: u64,
}

impl Journal {
    /// Opens the files in this folder, or makes them. What a crash left half written is cut off; a line that cannot be read
    /// is passed over. The last [`RECENT`] events are given too.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<(Journal, VecDeque<Record>)> {
        let mut recent = VecDeque::new();
        for path in [old(folder), new(folder)] {
            let mut text = Vec::new();
            match File::open(&path) {
                Ok(mut file) => _ = file.read_to_end(&mut text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < text.len() {
                OpenOptions::new().write(true).open(&path)?.set_len(whole as u64)?;
            }
            let records = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            recent.extend(records.filter_map(|line| serde_json::from_slice::<Record>(line).ok()));
            let more = recent.len().saturating_sub(RECENT);
            recent.drain(..more);
        }
        let last = recent.iter().map(|record| record.number).max().unwrap_or(0);
        let file = OpenOptions::new().create(true).append(true).open(new(folder))?;
        let length = file.metadata()?.len();
        Ok((Journal { folder: folder.to_owned(), file, length, last }, recent))
    }

    /// Numbers these events and puts them on the disk; it is there when this returns. They are numbered even if that
    /// fails.
    ///
    /// # Errors
    /// The disk is full, or fails. What was written in part is cut off at the next start.
    pub fn append(&mut self, records: &mut [Record]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            self.last += 1;
            record.number = self.last;
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        if self.length + lines.len() as u64 > LENGTH && self.length > 0 {
            fs::rename(new(&self.folder), old(&self.folder))?;
            self.file = OpenOptions::new().create(true).append(true).open(new(&self.folder))?;
            self.length = 0;
            File::open(&self.folder)?.sync_all()?;
        }
        // After an error the file may end in half a line: the next one begins with its end.
        if self.file.metadata()?.len() != self.length {
            self.file.set_len(self.length)?;
        }
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }
}

fn new(folder: &Path) -> PathBuf {
    folder.join("events.jsonl")
}

fn old(folder: &Path) -> PathBuf {
    folder.join("events.old.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record { node: "a".into(), event: "state".into(), text: text.into(), ..Record::default() }
    }

    fn texts(recent: &VecDeque<Record>) -> Vec<(u64, String)> {
        recent.iter().map(|record| (record.number, record.text.clone())).collect()
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_half_a_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, recent) = Journal::open(folder.path()).unwrap();
        assert!(recent.is_empty());
        journal.append(&mut [record("one"), record("two\nlines")]).unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(new(folder.path())).unwrap();
        file.write_all(b"{\"number\": 3, \"text\": \"ha").unwrap();
        let (mut journal, recent) = Journal::open(folder.path()).unwrap();
        assert_eq!(texts(&recent), [(1, "one".into()), (2, "two\nlines".into())]);
        journal.append(&mut [record("three")]).unwrap();
        let (_, recent) = Journal::open(folder.path()).unwrap();
        assert_eq!(texts(&recent)[2], (3, "three".into()));
    }

    #[test]
    fn a_line_that_is_damaged_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal.append(&mut [record("one"), record("two"), record("three")]).unwrap();
        let text = fs::read_to_string(new(folder.path())).unwrap();
        fs::write(new(folder.path()), text.replace("\"two\"", "two")).unwrap();
        let (mut journal, recent) = Journal::open(folder.path()).unwrap();
        assert_eq!(texts(&recent), [(1, "one".into()), (3, "three".into())]);
        let mut more = [record("four")];
        journal.append(&mut more).unwrap();
        assert_eq!(more[0].number, 4);
    }

    #[test]
    fn the_older_file_is_dropped_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        let long = "x".repeat(100_000);
        for _ in 0..130 {
            journal.append(&mut [record(&long)]).unwrap();
        }
        let length = |path: PathBuf| fs::metadata(path).unwrap().len();
        assert!(length(new(folder.path())) <= LENGTH && length(old(folder.path())) <= LENGTH);
        let (_, recent) = Journal::open(folder.path()).unwrap();
        assert_eq!(recent.back().map(|record| record.number), Some(130));
        assert!((41..=90).contains(&recent.len()), "{}", recent.len());
    }
}
