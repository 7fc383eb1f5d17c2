//! Logs: records and frames are read back as they were, a frame with a flipped bit is none, and of damaged files the good
//! beginning is kept, the rest set aside once, and the log goes on.
//!
//! Input: a byte that chooses, then records (0), the inside of a frame whose length and checksum are put right (1), or
//! orders for files (2): see [`Files`].

use std::fs;
use std::path::Path;

use bytes::Bytes;
use presence_engine::ids::{Position, Term};
use presence_engine::record::{Cursor, Record};
use session_mover::frame::{Frame, FrameError, PREFIX};
use session_mover::log::{FileLog, LogError, LogStore, Which};

use super::input::Input;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => records(input.0),
        1 => frame(input.0),
        _ => files(&Files::from(&mut input)),
    }
}

fn records(bytes: &[u8]) {
    let mut cursor = Cursor::new(Bytes::copy_from_slice(bytes));
    let mut before = cursor.len();
    while let Ok(record) = Record::decode(&mut cursor) {
        let mut copy = Vec::new();
        record.encode(&mut copy);
        // What JIDs become when they are prepared may be longer.
        let read = before - cursor.len();
        assert!(copy.len() <= 16 * read, "{} bytes of {read}", copy.len());
        before = cursor.len();
        let mut again = Cursor::new(copy.into());
        assert_eq!(Record::decode(&mut again).as_ref(), Ok(&record));
        assert!(again.is_empty(), "more was written than is read: {record:?}");
    }
}

/// Puts length and checksum in front of the inside of a frame.
fn sealed(inside: &[u8]) -> Bytes {
    let length = (inside.len() as u32).to_le_bytes();
    [&length, &crc32c::crc32c(inside).to_le_bytes(), inside].concat().into()
}

fn frame(inside: &[u8]) {
    let bytes = sealed(inside);
    let Ok(at) = Frame::check(&bytes) else {
        assert!(Frame::decode(&bytes).is_err(), "read although it was refused");
        return;
    };
    if let Ok(frame) = Frame::decode(&bytes) {
        assert_eq!(frame.at, at);
        let copy = frame.encode();
        assert_eq!(Frame::length(&copy), Ok(copy.len()));
        assert_eq!(Frame::decode(&copy).as_ref(), Ok(&frame));
    }
    let mut damaged = bytes.to_vec();
    let bit = (inside.len() * 31 + usize::from(inside[0])) % (damaged.len() * 8);
    damaged[bit / 8] ^= 1 << (bit % 8);
    assert!(Frame::check(&damaged).is_err(), "bit {bit} was flipped and nobody saw it");
}

/// Files of a log as orders make them: a good frame (0), one with these records (1), these bytes (2), the last bytes lost
/// (3), a flipped bit (4), another file (5), numbers left out (6), a frame of another version (7). Each order is a
/// byte and a length byte, which says how many bytes belong to it; or how much is lost, or which bit, number or version.
struct Files {
    files: Vec<(u64, Vec<u8>)>,
    next: u64,
}

impl Files {
    fn from(input: &mut Input<'_>) -> Files {
        let mut made = Files { files: vec![(1, Vec::new())], next: 1 };
        while !input.is_empty() {
            let (order, n) = (input.byte() % 8, input.byte());
            let mut content: &[u8] = &[];
            if matches!(order, 1 | 2) {
                let (ours, rest) = input.0.split_at(input.0.len().min(n.into()));
                (content, input.0) = (ours, rest);
            }
            made.obey(order, n, content);
        }
        made
    }

    fn obey(&mut self, order: u8, n: u8, content: &[u8]) {
        let bytes = match order {
            0 => self.frame(0, content),
            1 => self.frame(n, content),
            2 => content.to_vec(),
            3 | 4 => return self.damage(order, n),
            5 => return self.files.push((self.next, Vec::new())),
            6 => return self.next += u64::from(n),
            _ => {
                let mut inside = self.frame(0, content).split_off(PREFIX);
                inside[0] = n;
                sealed(&inside).to_vec()
            }
        };
        self.last().extend_from_slice(&bytes);
    }

    fn last(&mut self) -> &mut Vec<u8> {
        &mut self.files.last_mut().expect("there is one").1
    }

    /// A frame with the next number and these records; `count` says how many they are.
    fn frame(&mut self, count: u8, records: &[u8]) -> Vec<u8> {
        let at = Position { seq: self.next, inc: 9 };
        self.next += 1;
        let frame = Frame {
            groups: 1,
            solo: 0,
            terms: [Term(2), Term(3)],
            at,
            prev: Position { seq: at.seq - 1, inc: 9 },
            applied_peer: Position::default(),
            now_ms: 11,
            records: Vec::new(),
        };
        let mut inside = frame.encode()[PREFIX..].to_vec();
        let counted = inside.len() - 4;
        let count = if records.is_empty() { 0 } else { u32::from(count).min(1) };
        inside[counted..].copy_from_slice(&count.to_le_bytes());
        inside.extend_from_slice(records);
        sealed(&inside).to_vec()
    }

    fn damage(&mut self, order: u8, n: u8) {
        let bytes = self.last();
        if order == 3 {
            bytes.truncate(bytes.len().saturating_sub(n.into()));
        } else if let Some(last) = bytes.len().checked_sub(1) {
            let at = last.saturating_sub(usize::from(n) / 8);
            bytes[at] ^= 1 << (n % 8);
        }
    }

    fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("a folder");
        for (first, bytes) in &self.files {
            fs::write(dir.join(format!("{first:020}.log")), bytes).expect("a file");
        }
    }

    /// The good beginning, by the bytes alone. `Err`: a frame that cannot be read, and that nobody damaged.
    fn good(&self) -> Result<Vec<Bytes>, ()> {
        let mut good: Vec<Bytes> = Vec::new();
        for (first, bytes) in self.on_disk() {
            if first != good.len() as u64 + 1 {
                break;
            }
            let mut rest = &bytes[..];
            while let Some((frame, behind)) = Frame::length(rest).ok().and_then(|n| rest.split_at_checked(n))
            {
                match Frame::check(frame) {
                    Ok(at) if at.seq == good.len() as u64 + 1 => {}
                    Err(FrameError::Version(_)) => return Err(()),
                    _ => break,
                }
                let frame = Bytes::copy_from_slice(frame);
                Frame::decode(&frame).map_err(|_| ())?;
                good.push(frame);
                rest = behind;
            }
            if !rest.is_empty() {
                break;
            }
        }
        Ok(good)
    }

    /// Files by their names: of two with one name the second was written over the first.
    fn on_disk(&self) -> std::collections::BTreeMap<u64, Vec<u8>> {
        self.files.iter().cloned().collect()
    }

    fn bytes(&self) -> u64 {
        self.on_disk().values().map(|bytes| bytes.len() as u64).sum()
    }
}

fn open(data: &Path) -> Result<(FileLog, u64), LogError> {
    FileLog::open(data, false, |_| {}).map(|(log, opened)| (log, opened.set_aside[0]))
}

/// The log holds these frames, from wherever it is read.
fn holds(log: &mut FileLog, frames: &[Bytes]) {
    let mut read = Vec::new();
    loop {
        let more = log.read(Which::Own, read.len() as u64 + 1, 200);
        if more.is_empty() {
            break;
        }
        read.extend(more);
    }
    assert_eq!(read, frames);
    for (at, frame) in frames.iter().enumerate().rev() {
        assert_eq!(log.read(Which::Own, at as u64 + 1, 1).first(), Some(frame), "frame {}", at + 1);
    }
}

fn files(files: &Files) {
    let data =
        tempfile::Builder::new().prefix("tandem-fuzz").tempdir_in(crate::rig::place()).expect("a folder");
    let data = data.path();
    files.write(&data.join("log/own"));
    let Ok(mut good) = files.good() else {
        assert!(open(data).is_err(), "frames that cannot be read were thrown away");
        return;
    };
    let kept: u64 = good.iter().map(|frame| frame.len() as u64).sum();
    let (mut log, aside) = open(data).expect("damage is no reason to stay away");
    holds(&mut log, &good);
    assert_eq!(aside, files.bytes() - kept, "of damage nothing is lost");
    let saved = fs::read_dir(data.join("aside")).into_iter().flatten().flatten();
    assert_eq!(saved.map(|entry| entry.metadata().expect("its size").len()).sum::<u64>(), aside);
    drop(log);

    let mut more = Files { files: Vec::new(), next: good.len() as u64 + 1 };
    let (mut log, aside) = open(data).expect("it was opened before");
    assert_eq!(aside, 0, "damage is found once");
    for _ in 0..4 {
        let frame = Bytes::from(more.frame(0, &[]));
        log.append(Which::Own, Frame::check(&frame).expect("a frame"), frame.clone());
        good.push(frame);
    }
    log.sync(Which::Own);
    drop(log);
    let (mut log, aside) = open(data).expect("it was opened before");
    assert_eq!(aside, 0, "the log does not go on");
    holds(&mut log, &good);
}
