//! A small value that survives everything but the disk itself: two checksummed files, written in turn.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// `count u64 | body | crc32c u32` in each of `slot0` and `slot1`; anything else is no slot: a torn write leaves the other.
#[derive(Debug)]
pub struct Slots {
    dir: PathBuf,
    /// How often it was written; the parity names the slot.
    writes: u64,
}

impl Slots {
    /// The slots of a folder that is there, and what was written last.
    pub fn open(dir: PathBuf) -> (Slots, Option<Bytes>) {
        let found = [0, 1].into_iter().filter_map(|n| read(&dir.join(format!("slot{n}"))));
        match found.max_by_key(|(count, _)| *count) {
            Some((writes, body)) => (Slots { dir, writes }, Some(body)),
            None => (Slots { dir, writes: 0 }, None),
        }
    }

    /// Where the next value goes.
    pub fn path(&self) -> PathBuf {
        self.dir.join(format!("slot{}", (self.writes + 1) % 2))
    }

    /// On disk when it returns.
    pub fn write(&mut self, value: &[u8]) -> io::Result<()> {
        let path = self.path();
        let count = self.writes + 1;
        let mut body = count.to_le_bytes().to_vec();
        body.extend_from_slice(value);
        let crc = crc32c::crc32c(&body);
        body.extend_from_slice(&crc.to_le_bytes());
        let fresh = !path.exists();
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.write_all(&body)?;
        // Values differ in length; what is left of a longer one would make this one no slot.
        file.set_len(body.len() as u64)?;
        file.sync_data()?;
        if fresh {
            // Its name, and that of its folder, which may be as new.
            for folder in [Some(self.dir.as_path()), self.dir.parent()].into_iter().flatten() {
                File::open(folder)?.sync_all()?;
            }
        }
        self.writes = count;
        Ok(())
    }
}

fn read(path: &Path) -> Option<(u64, Bytes)> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return None;
    }
    let (count, value) = body.split_at_checked(8)?;
    Some((u64::from_le_bytes(count.try_into().ok()?), Bytes::copy_from_slice(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_is_found_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Slots::open(dir.path().to_owned());
        let (mut slots, found) = open();
        assert_eq!(found, None);
        for value in ["one", "a longer one", "3"] {
            slots.write(value.as_bytes()).unwrap();
            assert_eq!(open().1.unwrap(), value);
        }
        let last = dir.path().join("slot1");
        let bytes = std::fs::read(&last).unwrap();
        std::fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
        let (mut slots, found) = open();
        assert_eq!(found.unwrap(), "a longer one");
        slots.write(b"4").unwrap();
        assert_eq!(open().1.unwrap(), "4");
    }
}
