//! Where the nodes under test have their data.

use std::path::{Path, PathBuf};

/// What a disk of memory must have free to be used.
const ENOUGH: u64 = 1 << 30;

/// A disk of memory if there is one with room: a real one stands still for seconds while the machine writes something
/// else to it, and a node gives up a disk that does. What disks do wrong is brought about by the tests themselves.
pub fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if free >= ENOUGH { memory.to_owned() } else { std::env::temp_dir() }
}
