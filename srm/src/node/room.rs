//! The room on the disk of the data folder: a node whose log cannot be written ends.

use super::Node;

/// Little is the smaller of these: a part of the whole disk, and so many bytes, which a busy pair writes in some minutes.
const PART: u64 = 20;
const BYTES: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Bytes of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Those that are free, for whoever is not root.
    pub free: u64,
    /// All of them.
    pub whole: u64,
}

impl Room {
    fn is_little(self) -> bool {
        self.free < BYTES.min(self.whole / PART)
    }
}

impl Node {
    /// For the operator.
    pub(super) fn room_alarm(&self) -> Option<String> {
        let free = self.room.filter(|room| room.is_little())?.free / MIB;
        Some(format!(
            "little room: {free} MiB are free on the disk of [node] data; make room, for a node whose log cannot be written \
             ends"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::In;
    use crate::node::tests::started;

    #[test]
    fn little_room_is_an_alarm_for_as_long_as_it_is() {
        let (mut node, mut disk) = started(true);
        let mut alarms = |free| {
            node.handle(0, In::Room(Some(Room { free, whole: 1 << 40 })), &mut disk);
            let alarms = node.snapshot().alarms;
            alarms.iter().filter(|alarm| alarm.starts_with("little room: 7 MiB are free")).count()
        };
        assert_eq!([7 * MIB, BYTES, 7 * MIB].map(&mut alarms), [1, 0, 1]);
    }

    #[test]
    fn little_room_is_a_part_of_a_small_disk_and_a_gigabyte_of_a_large_one() {
        let is_little = |free, whole| Room { free, whole }.is_little();
        assert!(is_little(3 * MIB, 64 * MIB) && !is_little(4 * MIB, 64 * MIB));
        assert!(is_little(BYTES - 1, 1 << 40) && !is_little(BYTES, 1 << 40));
        assert!(!is_little(0, 0), "a file system that tells nothing");
    }
}
