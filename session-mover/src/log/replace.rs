//! The plan of replacing a tail, on disk before the tail is cut: a process that dies meanwhile ends it at its next
//! start.
//!
//! `keep u64 | count u32 | count × (length u32, frame) | crc32c u32`, little-endian.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use presence_engine::record::{Cursor, put_bytes};

use super::segment::sync_dir;

/// Frames that take the place of everything after `keep`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) keep: u64,
    pub(super) frames: Vec<Bytes>,
}

fn place(dir: &Path) -> PathBuf {
    dir.join("replace")
}

impl Plan {
    /// Writes it down. Durable when it returns.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let mut out = self.keep.to_le_bytes().to_vec();
        out.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        self.frames.iter().for_each(|frame| put_bytes(&mut out, frame));
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let draft = dir.join("replace.new");
        let mut file = File::create(&draft)?;
        file.write_all(&out)?;
        file.sync_all()?;
        fs::rename(&draft, place(dir))?;
        sync_dir(dir)
    }

    /// A plan that was not carried out to its end.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Plan>> {
        match fs::read(place(dir)) {
            Ok(bytes) => Ok(Plan::read(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(bytes: &[u8]) -> Option<Plan> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return None;
        }
        let mut c = Cursor::new(Bytes::copy_from_slice(body));
        let (keep, count) = (c.u64().ok()?, c.u32().ok()?);
        let frames = (0..count).map(|_| c.bytes().ok()).collect::<Option<Vec<Bytes>>>()?;
        Some(Plan { keep, frames })
    }

    /// It was carried out. Durable when it returns.
    pub(super) fn forget(dir: &Path) -> io::Result<()> {
        match fs::remove_file(place(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(dir),
        }
    }
}
