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
    /// Frames before the first that is here.
    before: u64,
    frames: Vec<Bytes>,
    written: u64,
    synced: u64,
}

impl One {
    fn end(&self) -> u64 {
        self.before + self.frames.len() as u64
    }

    /// Position of the frame with this number, if it is here.
    fn at(&self, seq: u64) -> Option<Position> {
        let index = seq.checked_sub(self.before + 1)?;
        self.frames.get(index as usize).and_then(|frame| Frame::check(frame).ok())
    }

    fn cut(&mut self, keep: u64) -> Vec<Bytes> {
        let keep = keep.clamp(self.before, self.end());
        self.frames.split_off((keep - self.before) as usize)
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
        log.written = log.written.max(seq.min(log.end()));
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
        log.synced = log.synced.max(seq.min(log.written));
        log.at(log.synced)
    }

    /// Frames that were appended, on disk or not.
    pub fn appended(&self, which: Which) -> u64 {
        self.logs[which as usize].end()
    }

    /// The process is killed: what was not written is gone.
    pub fn crash(&mut self) {
        for log in &mut self.logs {
            log.cut(log.written);
        }
    }

    /// The power fails: what was not synced is gone.
    pub fn lose_power(&mut self) {
        for log in &mut self.logs {
            log.cut(log.synced);
            log.written = log.synced;
        }
    }

    /// Frames that were set aside.
    pub fn aside(&self) -> &[Bytes] {
        &self.aside
    }

    /// All frames of a log that are there.
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
        debug_assert_eq!(at.seq, log.end() + 1, "a hole in a log");
        log.frames.push(frame);
    }

    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        let log = &self.logs[which as usize];
        assert!(
            from > log.before,
            "{which:?} log: frame {from} was removed, {} is the first",
            log.before + 1
        );
        let mut size = 0;
        let frames = log.frames.iter().skip((from - log.before) as usize - 1);
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
        self.aside.extend(log.cut(keep));
        log.frames.extend(instead);
        log.written = log.end();
        log.synced = log.end();
    }

    fn sync(&mut self, which: Which) {
        let log = self.one(which);
        log.written = log.end();
        log.synced = log.written;
    }

    fn sync_soon(&mut self, _: Which) {}

    fn first(&self, which: Which) -> u64 {
        self.logs[which as usize].before + 1
    }

    fn trim(&mut self, which: Which, seq: u64) {
        let log = self.one(which);
        // Never the last: its completion may still be told.
        let count = seq.min(log.synced + 1).min(log.end()).saturating_sub(log.before + 1);
        log.frames.drain(..count as usize);
        log.before += count;
    }

    fn begin_at(&mut self, which: Which, next: u64) {
        let log = &mut self.logs[which as usize];
        self.aside.append(&mut log.frames);
        *log = One { before: next - 1, frames: Vec::new(), written: next - 1, synced: next - 1 };
    }
}
