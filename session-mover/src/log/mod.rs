//! The two logs of a node: its own, and its copy of the peer's.

mod file;
mod memory;
mod replace;
mod segment;

use bytes::Bytes;
use presence_engine::engine::Print;
use presence_engine::ids::Position;

use crate::store::{Batch, Store};

pub use file::{FileLog, LogError, Opened, Stored};
pub use memory::MemoryLog;

/// A disk: both logs, and the store that is built from them.
pub trait Storage: LogStore {
    /// The store.
    fn store(&mut self) -> &mut dyn Store;
    /// Writes a batch into the store once the copy of the peer's log is durable: the store must not know more of that log than
    /// the disk does. `true`: it is durable. Else that is told later, to [`crate::driver::Driver::checkpointed`].
    fn checkpoint(&mut self, batch: Batch) -> bool;
    /// Notes what is about to be handled, or (none) that it was: whoever starts after a crash finds it (D15). Outlives the
    /// process, not the machine.
    fn note_turn(&mut self, prints: &[Print]);
}

/// Which of the two logs on a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Which {
    /// What this node writes.
    Own,
    /// The copy of what the peer writes.
    Peer,
}

/// A disk with two logs. Appends are ordered and return at once; their completion is told to
/// [`crate::driver::Driver::stored`]. Reads see what was appended, whether it is on disk yet or not.
pub trait LogStore {
    /// Appends one encoded frame.
    fn append(&mut self, which: Which, at: Position, frame: Bytes);
    /// Some frames from sequence number `from` on, about `max_bytes` at most; none only if the log ends before.
    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes>;
    /// Sets everything after `keep` aside and puts `instead` in its place: all of that or nothing, whenever the process
    /// dies. Durable when it returns.
    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>);
    /// Makes durable what was appended. Durable when it returns.
    fn sync(&mut self, which: Which);
    /// Begins to make durable what was appended; its completion is told.
    fn sync_soon(&mut self, which: Which);
    /// The first frame that can be read; the next one's number if there is none.
    fn first(&self, which: Which) -> u64;
    /// Frames before `seq` are not needed any more. Some may stay.
    fn trim(&mut self, which: Which, seq: u64);
    /// Sets everything aside; the next frame is number `next`. Durable when it returns.
    fn begin_at(&mut self, which: Which, next: u64);
}

#[cfg(test)]
mod tests;
