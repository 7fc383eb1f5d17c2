//! Logs in memory, with a disk that can lose what was not synced: for simulation.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use presence_engine::engine::Print;
use presence_engine::ids::Position;

use super::{LogStore, Storage, Which};
use crate::frame::Frame;
use crate::store::{Batch, NoStore, Store};

#[derive(Clone, Debug, Default)]
struct One {
    frames: Vec<Bytes>,
    written: usize,
    synced: usize,
}

impl One {
    /// Position of the frame with this number; none for 0.
    fn at(&self, seq: usize) -> Option<Position> {
        seq.checked_sub(1).and_then(|i| Frame::check(&self.frames[i]).ok())
    }
}

/// Two logs in memory. The simulation says when writes and syncs complete.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    logs: [One; 2],
    aside: Vec<Bytes>,
    store: NoStore,
}

impl MemoryLog {
    fn one(&mut self, which: Which) -> &mut One {
        &mut self.logs[which as usize]
    }

    /// Completes the write(2) of everything appended; its end.
    pub fn complete_write(&mut self, which: Which) -> Option<Position> {
        let all = self.appended(which);
        self.complete_write_to(which, all)
    }

    /// Completes the write(2) of what was appended up to frame `seq`; its end.
    pub fn complete_write_to(&mut self, which: Which, seq: u64) -> Option<Position> {
        let log = self.one(which);
        log.written = log.written.max((seq as usize).min(log.frames.len()));
        log.at(log.written)
    }

    /// Completes an fdatasync of everything written; its end.
    pub fn complete_sync(&mut self, which: Which) -> Option<Position> {
        let log = self.one(which);
        log.synced = log.written;
        log.at(log.synced)
    }

    /// Completes an fdatasync that began when frame `seq` was the last one written; its end.
    pub fn complete_sync_to(&mut self, which: Which, seq: u64) -> Option<Position> {
        let log = self.one(which);
        log.synced = log.synced.max((seq as usize).min(log.written));
        log.at(log.synced)
    }

    /// Frames that were appended, on disk or not.
    pub fn appended(&self, which: Which) -> u64 {
        self.logs[which as usize].frames.len() as u64
    }

    /// The process is killed: what was not written is gone.
    pub fn crash(&mut self) {
        for log in &mut self.logs {
            log.frames.truncate(log.written);
        }
    }

    /// The power fails: what was not synced is gone.
    pub fn lose_power(&mut self) {
        for log in &mut self.logs {
            log.frames.truncate(log.synced);
            log.written = log.synced;
        }
    }

    /// Frames that were set aside.
    pub fn aside(&self) -> &[Bytes] {
        &self.aside
    }

    /// All frames of a log.
    pub fn frames(&self, which: Which) -> &[Bytes] {
        &self.logs[which as usize].frames
    }
}

impl Storage for MemoryLog {
    fn checkpoint(&mut self, _: Batch) -> bool {
        true
    }

    fn note_turn(&mut self, _: &[Print]) {}

    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }
}

impl LogStore for MemoryLog {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        let log = self.one(which);
        debug_assert_eq!(at.seq as usize, log.frames.len() + 1, "a hole in a log");
        log.frames.push(frame);
    }

    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        let mut size = 0;
        let frames = self.logs[which as usize].frames.iter().skip(from.max(1) as usize - 1);
        frames
            .take_while(|f| {
                let first = size == 0;
                size += f.len();
                first || size <= max_bytes
            })
            .cloned()
            .collect()
    }

    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        let log = &mut self.logs[which as usize];
        let keep = (keep as usize).min(log.frames.len());
        self.aside.extend(log.frames.split_off(keep));
        log.frames.extend(instead);
        log.written = log.frames.len();
        log.synced = log.frames.len();
    }

    fn sync(&mut self, which: Which) {
        let log = self.one(which);
        log.written = log.frames.len();
        log.synced = log.written;
    }
}
