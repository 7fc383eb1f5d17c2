//! The files of one log: segments of at most 64 MiB, named by their first sequence number. Only std's file functions
//! are used, so that a preloaded library can make them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::file::LogError;
use super::replace::Plan;
use crate::frame::{Frame, FrameError};

/// Size at which a segment is closed and the next begun.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// One file.
#[derive(Clone, Debug)]
struct Segment {
    first: u64,
    bytes: u64,
    path: PathBuf,
}

/// The files of one log, open for appending.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    segments: Vec<Segment>,
    current: Option<File>,
    next: u64,
}

fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Segments {
    /// Opens a log and checks every frame. What follows the last good frame — a torn write, or damage — is moved to
    /// `aside`; how many bytes that were.
    pub(super) fn open(dir: &Path, aside: &Path) -> Result<(Segments, u64), LogError> {
        let io = |error| LogError::at(dir, error);
        fs::create_dir_all(dir).map_err(io)?;
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let stem = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".log"));
            if let Some(first) = stem.and_then(|s| s.parse().ok()) {
                found.push((first, path));
            }
        }
        found.sort();
        // Older segments may have been removed; whoever needs them finds out.
        let next = found.first().map_or(1, |(first, _)| *first);
        let mut log = Segments { dir: dir.to_owned(), segments: Vec::new(), current: None, next };
        let mut lost = 0;
        let mut files = found.into_iter();
        for (first, path) in files.by_ref() {
            let size = fs::metadata(&path).map_err(|e| LogError::at(&path, e))?.len();
            let good = if first == log.next { log.check(&path)? } else { 0 };
            log.segments.push(Segment { first, bytes: good, path: path.clone() });
            if good < size {
                lost += size - good;
                log.save_tail(&path, good, aside)?;
                break;
            }
        }
        for (_, path) in files {
            lost += fs::metadata(&path).map_err(|e| LogError::at(&path, e))?.len();
            log.save_tail(&path, 0, aside)?;
            fs::remove_file(&path).map_err(|e| LogError::at(&path, e))?;
        }
        // One that is empty and not the next would hide frames of the segment that grows past its name.
        let next = log.next;
        for segment in log.segments.extract_if(.., |s| s.bytes == 0 && s.first != next) {
            fs::remove_file(&segment.path).map_err(|e| LogError::at(&segment.path, e))?;
        }
        // What was found may never have been synced: the last run can have been killed before. From here on it counts
        // as ours, so it must be. The segments before were synced before this one was begun.
        if let Some(last) = log.segments.last() {
            File::open(&last.path)
                .and_then(|file| file.sync_all())
                .map_err(|e| LogError::at(&last.path, e))?;
        }
        sync_dir(dir).map_err(io)?;
        if let Some(plan) = Plan::load(dir).map_err(io)? {
            log.carry_out(&plan, aside)?;
        }
        Ok((log, lost))
    }

    /// Reads one file through; the length of its good part. Moves `next` along.
    fn check(&mut self, path: &Path) -> Result<u64, LogError> {
        let at = |error| LogError::at(path, error);
        let mut file = io::BufReader::with_capacity(1 << 20, File::open(path).map_err(at)?);
        let mut good = 0;
        while let Some(bytes) = read_frame(&mut file).map_err(at)? {
            match Frame::check(&bytes) {
                Ok(position) if position.seq == self.next => {
                    Frame::decode(&bytes).map_err(|error| LogError::Frame(path.to_owned(), error))?;
                    self.next += 1;
                    good += bytes.len() as u64;
                }
                Err(FrameError::Version(v)) => {
                    return Err(LogError::Frame(path.to_owned(), FrameError::Version(v)));
                }
                _ => break,
            }
        }
        Ok(good)
    }

    /// Copies everything after `keep` bytes of a file to a new file in `aside`, then cuts the file.
    fn save_tail(&self, path: &Path, keep: u64, aside: &Path) -> Result<(), LogError> {
        let at = |error| LogError::at(path, error);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(at)?;
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(keep)).map_err(at)?;
        file.read_to_end(&mut tail).map_err(at)?;
        if tail.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(aside).map_err(|e| LogError::at(aside, e))?;
        let label = self.dir.file_name().and_then(|n| n.to_str()).unwrap_or("log");
        let stem = path.file_stem().and_then(|n| n.to_str()).unwrap_or("0");
        let target = (0u32..)
            .map(|n| aside.join(format!("{label}-{stem}-{keep}-{n}.log")))
            .find(|p| !p.exists())
            .expect("some number is free");
        let saved = || -> io::Result<()> {
            let mut out = File::create(&target)?;
            out.write_all(&tail)?;
            out.sync_all()?;
            sync_dir(aside)?;
            aside.parent().map_or(Ok(()), sync_dir)
        };
        saved().map_err(|e| LogError::at(&target, e))?;
        crate::kill_point!("log.truncate.after_aside");
        file.set_len(keep).map_err(at)?;
        file.sync_all().map_err(at)
    }

    /// Sequence number that the next frame will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Sequence number of the first frame that is there, or would be.
    pub(super) fn first(&self) -> u64 {
        self.segments.first().map_or(self.next, |segment| segment.first)
    }

    /// Removes segments that have no frame from `seq` on; never the last one.
    pub(super) fn trim(&mut self, seq: u64) -> Result<(), LogError> {
        let old = self.segments.windows(2).take_while(|pair| pair[1].first <= seq).count();
        // The oldest first: what is left after a crash has no hole.
        for segment in self.segments.drain(..old) {
            fs::remove_file(&segment.path).map_err(|e| LogError::at(&segment.path, e))?;
            sync_dir(&self.dir).map_err(|e| LogError::at(&self.dir, e))?;
        }
        Ok(())
    }

    /// Sets all frames aside; the next one is number `next`.
    pub(super) fn begin_at(&mut self, next: u64, aside: &Path) -> Result<(), LogError> {
        let dir = self.dir.clone();
        let at = |error| LogError::at(&dir, error);
        self.sync().map_err(at)?;
        self.current = None;
        fs::create_dir_all(aside).map_err(at)?;
        let label = self.dir.file_name().and_then(|n| n.to_str()).unwrap_or("log");
        // The newest first: what is left after a crash has no hole.
        while let Some(segment) = self.segments.last() {
            let stem = segment.path.file_stem().and_then(|n| n.to_str()).unwrap_or("0");
            let target =
                (0u32..).map(|n| aside.join(format!("{label}-{stem}-0-{n}.log"))).find(|p| !p.exists());
            fs::rename(&segment.path, target.expect("some number is free")).map_err(at)?;
            self.segments.pop();
            sync_dir(&self.dir).map_err(at)?;
        }
        sync_dir(aside).map_err(at)?;
        self.next = next;
        self.begin_segment().map_err(at)
    }

    /// Appends whole frames. Not durable before [`Segments::sync`].
    pub(super) fn append(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut buffer = Vec::new();
        for bytes in frames {
            let full = self.segments.last().is_none_or(|s| s.bytes + buffer.len() as u64 >= SEGMENT_BYTES);
            if full {
                self.write(&mut buffer)?;
                self.begin_segment()?;
            }
            buffer.extend_from_slice(bytes);
            self.next += 1;
        }
        self.write(&mut buffer)
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let segment = self.segments.last_mut().expect("a segment was begun");
        if self.current.is_none() {
            self.current = Some(OpenOptions::new().append(true).open(&segment.path)?);
        }
        self.current.as_mut().expect("just opened").write_all(buffer)?;
        segment.bytes += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    pub(super) fn begin_segment(&mut self) -> io::Result<()> {
        self.sync()?;
        let path = self.dir.join(name(self.next));
        self.current = Some(OpenOptions::new().create_new(true).append(true).open(&path)?);
        sync_dir(&self.dir)?;
        self.segments.push(Segment { first: self.next, bytes: 0, path });
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &self.current {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }

    /// Sets everything after sequence number `keep` aside and writes `instead` in its place, all of that or nothing.
    pub(super) fn replace_tail(
        &mut self,
        keep: u64,
        instead: Vec<Bytes>,
        aside: &Path,
    ) -> Result<(), LogError> {
        if instead.is_empty() {
            return self.truncate(keep, aside);
        }
        let plan = Plan { keep, frames: instead };
        plan.save(&self.dir).map_err(|e| LogError::at(&self.dir, e))?;
        self.carry_out(&plan, aside)
    }

    /// What stands behind `keep` is the tail that is to go, or what an earlier try put there; nothing came after it.
    fn carry_out(&mut self, plan: &Plan, aside: &Path) -> Result<(), LogError> {
        let at = |error| LogError::at(&self.dir, error);
        if self.next <= plan.keep {
            // Damage took what it stands on.
            fs::create_dir_all(aside).map_err(at)?;
            fs::rename(self.dir.join("replace"), aside.join("replace")).map_err(at)?;
            return sync_dir(aside).map_err(at);
        }
        self.truncate(plan.keep, aside)?;
        let appended = self.append(&plan.frames).and_then(|()| self.sync());
        appended.map_err(|e| LogError::at(&self.dir, e))?;
        Plan::forget(&self.dir).map_err(|e| LogError::at(&self.dir, e))
    }

    /// Sets everything after sequence number `keep` aside.
    fn truncate(&mut self, keep: u64, aside: &Path) -> Result<(), LogError> {
        self.sync().map_err(|e| LogError::at(&self.dir, e))?;
        self.current = None;
        while let Some(last) = self.segments.last().cloned() {
            let whole = last.first > keep;
            let offset = if whole { 0 } else { offset_after(&last.path, last.first, keep)? };
            self.save_tail(&last.path, offset, aside)?;
            let index = self.segments.len() - 1;
            self.segments[index].bytes = offset;
            if !whole {
                break;
            }
            fs::remove_file(&last.path).map_err(|e| LogError::at(&last.path, e))?;
            self.segments.pop();
        }
        sync_dir(&self.dir).map_err(|e| LogError::at(&self.dir, e))?;
        self.next = keep + 1;
        Ok(())
    }
}

/// Reads frames of a directory of segments from a sequence number on. Remembers where it stopped.
#[derive(Debug, Default)]
pub(super) struct SegmentReader {
    place: Option<(u64, PathBuf, u64)>,
}

impl SegmentReader {
    /// Frames from `from` to `to` until `max_bytes` are exceeded; at least one if there is.
    pub(super) fn read(
        &mut self,
        dir: &Path,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> io::Result<Vec<Bytes>> {
        let (mut seq, path, mut offset) = match self.place.take() {
            // Its segment may have been removed when it was read to its end.
            Some(place) if place.0 == from && place.1.exists() => place,
            _ => find_segment(dir, from)?,
        };
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut file = io::BufReader::with_capacity(1 << 18, file);
        let (mut frames, mut size) = (Vec::new(), 0);
        while seq <= to && (size == 0 || size < max_bytes) {
            let Some(bytes) = read_frame(&mut file)? else { break };
            offset += bytes.len() as u64;
            if seq >= from {
                size += bytes.len();
                frames.push(bytes);
            }
            seq += 1;
        }
        if !frames.is_empty() {
            self.place = Some((seq, path, offset));
        } else if from <= to && seq == from {
            // The end of a segment: the next one starts with `from`.
            let next = dir.join(name(from));
            if next != path && next.exists() {
                self.place = Some((from, next, 0));
                return self.read(dir, from, to, max_bytes);
            }
        }
        Ok(frames)
    }

    /// Forgets the place: the log was cut.
    pub(super) fn reset(&mut self) {
        self.place = None;
    }
}

fn find_segment(dir: &Path, seq: u64) -> io::Result<(u64, PathBuf, u64)> {
    let mut best = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".log"));
        let first = stem.and_then(|s| s.parse::<u64>().ok()).filter(|first| *first <= seq);
        if let Some(first) = first {
            best = best.max(Some((first, path)));
        }
    }
    let (first, path) = best.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such log segment"))?;
    Ok((first, path, 0))
}

fn offset_after(path: &Path, first: u64, keep: u64) -> Result<u64, LogError> {
    let at = |error| LogError::at(path, error);
    let mut file = io::BufReader::new(File::open(path).map_err(at)?);
    let mut offset = 0;
    for _ in first..=keep {
        let Some(bytes) = read_frame(&mut file).map_err(at)? else { break };
        offset += bytes.len() as u64;
    }
    Ok(offset)
}

/// One frame by its length; `None` where the file ends, a frame is cut, or a length makes no sense.
fn read_frame(file: &mut impl Read) -> io::Result<Option<Bytes>> {
    let mut front = [0; crate::frame::PREFIX];
    if !fill(file, &mut front)? {
        return Ok(None);
    }
    let Ok(length) = Frame::length(&front) else { return Ok(None) };
    let mut bytes = vec![0; length];
    bytes[..front.len()].copy_from_slice(&front);
    if !fill(file, &mut bytes[crate::frame::PREFIX..])? {
        return Ok(None);
    }
    Ok(Some(Bytes::from(bytes)))
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
