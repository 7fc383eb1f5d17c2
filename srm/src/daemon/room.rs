//! How much room the disk has. The operator is told when it is little. Whoever makes this node its peer hears it in the beacons, and
//! looks whether everything fits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::worker::ToNode;
use crate::node::{In, Room};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Bytes that are free on the disk of this folder, for whoever is not root.
pub(crate) fn free(data: &Path) -> io::Result<u64> {
    look(data).map(|room| room.free)
}

fn look(data: &Path) -> io::Result<Room> {
    let disk = rustix::fs::statvfs(data)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Room { free: bytes(disk.f_bavail), whole: bytes(disk.f_blocks) })
}

/// Tells the node, at once and then again and again, on a thread of its own: a disk that does not answer keeps nobody else
/// waiting.
pub(super) fn watch(data: PathBuf, to_node: Sender<ToNode>) -> io::Result<()> {
    let tell = move || to_node.send(ToNode::In(In::Room(look(&data).ok()))).is_ok();
    tell();
    let again = move || {
        while tell() {
            thread::sleep(PERIOD);
        }
    };
    thread::Builder::new().name("room".into()).spawn(again)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_node_is_told_at_once_and_a_folder_that_cannot_be_looked_at_has_no_known_room() {
        let dir = tempfile::tempdir().unwrap();
        for (data, known) in [(dir.path().to_owned(), true), (dir.path().join("missing"), false)] {
            let (to_node, told) = channel();
            watch(data, to_node).unwrap();
            let Ok(ToNode::In(In::Room(room))) = told.try_recv() else { panic!("nothing was told") };
            assert_eq!(room.is_some_and(|room| room.free > 0 && room.whole >= room.free), known);
        }
    }
}
