//! Logs in files: a thread for each, group commit, and a tail in memory so that a fresh frame is never read back.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use presence_engine::ids::Position;
use thiserror::Error;

use super::segment::{SegmentReader, Segments, sync_dir};
use super::{LogStore, Which};
use crate::frame::FrameError;

/// Bytes of written frames that stay in memory.
const TAIL_BYTES: usize = 8 << 20;

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// The disk said no.
    #[error("{path}: {error}; check the disk and the permissions of the data folder")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A frame that this version cannot read.
    #[error("{0}: {1}")]
    Frame(PathBuf, FrameError),
}

impl LogError {
    pub(super) fn at(path: &Path, error: io::Error) -> LogError {
        LogError::Io { path: path.to_owned(), error }
    }
}

/// A write or fdatasync is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Of which log.
    pub which: Which,
    /// Up to here.
    pub at: Position,
    /// Synced, or only written.
    pub synced: bool,
    /// How long that took.
    pub took: Duration,
}

enum Job {
    Append(Position, Bytes),
    Replace(u64, Vec<Bytes>, SyncSender<()>),
    Sync(SyncSender<()>),
    SyncSoon,
    /// Frames before this one may go.
    Trim(u64),
    BeginAt(u64, SyncSender<()>),
}

struct One {
    which: Which,
    dir: PathBuf,
    jobs: std::sync::mpsc::Sender<Job>,
    tail: VecDeque<(u64, Bytes)>,
    tail_bytes: usize,
    end: u64,
    /// The first frame that is there.
    first: Arc<AtomicU64>,
    /// The first that may still be asked for.
    wanted: u64,
    written: Arc<AtomicU64>,
    reader: SegmentReader,
}

/// Both logs of a node on disk.
pub struct FileLog {
    logs: [One; 2],
}

/// What opening found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Bytes of torn or damaged tails that were set aside: own log, copy of the peer's.
    pub set_aside: [u64; 2],
}

impl FileLog {
    /// Opens `data/log/{own,peer}`. `stored` is called on the log's own thread; `sync_peer`: sync the copy of the
    /// peer's log with every batch (`commit = "peer-and-disk"`).
    pub fn open(
        data: &Path,
        sync_peer: bool,
        stored: impl Fn(Stored) + Clone + Send + 'static,
    ) -> Result<(FileLog, Opened), LogError> {
        let aside = data.join("aside");
        let mut set_aside = [0; 2];
        let mut open = |which: Which, name: &str, sync: bool| {
            let dir = data.join("log").join(name);
            let (segments, lost) = Segments::open(&dir, &aside)?;
            set_aside[which as usize] = lost;
            let end = segments.next() - 1;
            let written = Arc::new(AtomicU64::new(end));
            let first = Arc::new(AtomicU64::new(segments.first()));
            let (jobs, queue) = channel();
            let worker = Worker {
                which,
                segments,
                aside: aside.clone(),
                sync,
                written: written.clone(),
                first: first.clone(),
                end: None,
                stored: stored.clone(),
            };
            thread::Builder::new()
                .name(format!("log-{name}"))
                .spawn(move || worker.run(queue))
                .map_err(|error| LogError::at(&dir, error))?;
            let tail = VecDeque::new();
            let reader = SegmentReader::default();
            Ok(One { which, dir, jobs, tail, tail_bytes: 0, end, first, wanted: 1, written, reader })
        };
        let logs = [open(Which::Own, "own", true)?, open(Which::Peer, "peer", sync_peer)?];
        // The folders' own names, without which what is in them is lost; the data folder's is whoever's made it.
        for dir in [&data.join("log"), data] {
            sync_dir(dir).map_err(|error| LogError::at(dir, error))?;
        }
        Ok((FileLog { logs }, Opened { set_aside }))
    }
}

impl FileLog {
    /// Makes what was appended to a log durable, from another thread.
    pub fn syncer(&self, which: Which) -> impl Fn() + Send + 'static {
        let jobs = self.logs[which as usize].jobs.clone();
        move || {
            let (done, wait) = sync_channel(1);
            if jobs.send(Job::Sync(done)).is_ok() {
                let _ = wait.recv();
            }
        }
    }
}

impl One {
    fn tell(&mut self, job: Job) {
        if self.jobs.send(job).is_err() {
            die(self.which, "the log's thread is gone", &io::Error::other("thread ended"));
        }
    }

    fn wait(&mut self, job: impl FnOnce(SyncSender<()>) -> Job) {
        let (done, wait) = sync_channel(1);
        if self.jobs.send(job(done)).is_err() || wait.recv().is_err() {
            die(self.which, "the log's thread is gone", &io::Error::other("thread ended"));
        }
    }

    /// Drops from memory what is in the file.
    fn shorten(&mut self) {
        let written = self.written.load(Ordering::Acquire);
        while self.tail_bytes > TAIL_BYTES && self.tail.front().is_some_and(|(seq, _)| *seq <= written) {
            let (_, bytes) = self.tail.pop_front().expect("just seen");
            self.tail_bytes -= bytes.len();
        }
    }
}

impl LogStore for FileLog {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        let log = &mut self.logs[which as usize];
        debug_assert_eq!(at.seq, log.end + 1, "a hole in a log");
        log.end = at.seq;
        log.tail_bytes += frame.len();
        log.tail.push_back((at.seq, frame.clone()));
        log.shorten();
        log.tell(Job::Append(at, frame));
    }

    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        let log = &mut self.logs[which as usize];
        let from = from.max(1);
        if from > log.end {
            return Vec::new();
        }
        let first = log.tail.front().map_or(log.end + 1, |(seq, _)| *seq);
        if from >= first {
            let mut size = 0;
            let rest = log.tail.iter().skip((from - first) as usize);
            return rest
                .take_while(|(_, f)| {
                    let take = size == 0 || size < max_bytes;
                    size += f.len();
                    take
                })
                .map(|(_, f)| f.clone())
                .collect();
        }
        match log.reader.read(&log.dir, from, first - 1, max_bytes) {
            Ok(frames) => frames,
            Err(error) => die(which, "reading back failed", &error),
        }
    }

    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        let log = &mut self.logs[which as usize];
        let keep = keep.min(log.end);
        let count = instead.len() as u64;
        log.wait(|done| Job::Replace(keep, instead, done));
        while log.tail.back().is_some_and(|(seq, _)| *seq > keep) {
            let (_, bytes) = log.tail.pop_back().expect("just seen");
            log.tail_bytes -= bytes.len();
        }
        if count > 0 {
            // They are in the file and not in the tail: what is appended next follows them there.
            log.tail.clear();
            log.tail_bytes = 0;
        }
        log.end = keep + count;
        log.reader.reset();
    }

    fn sync(&mut self, which: Which) {
        self.logs[which as usize].wait(Job::Sync);
    }

    fn sync_soon(&mut self, which: Which) {
        self.logs[which as usize].tell(Job::SyncSoon);
    }

    fn first(&self, which: Which) -> u64 {
        let log = &self.logs[which as usize];
        log.first.load(Ordering::Acquire).max(log.wanted)
    }

    fn trim(&mut self, which: Which, seq: u64) {
        let log = &mut self.logs[which as usize];
        // They may go at any time from now on.
        log.wanted = log.wanted.max(seq);
        log.tell(Job::Trim(seq));
    }

    fn begin_at(&mut self, which: Which, next: u64) {
        let log = &mut self.logs[which as usize];
        log.wait(|done| Job::BeginAt(next, done));
        log.tail.clear();
        (log.tail_bytes, log.end, log.wanted) = (0, next - 1, next);
        log.reader.reset();
    }
}

struct Worker<F> {
    which: Which,
    segments: Segments,
    aside: PathBuf,
    sync: bool,
    written: Arc<AtomicU64>,
    first: Arc<AtomicU64>,
    /// The last frame that was written.
    end: Option<Position>,
    stored: F,
}

impl<F: Fn(Stored)> Worker<F> {
    fn run(mut self, queue: Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let (mut frames, mut end, mut other) = (Vec::new(), None, Vec::new());
            for job in std::iter::once(first).chain(queue.try_iter()) {
                match job {
                    Job::Append(at, frame) if other.is_empty() => {
                        frames.push(frame);
                        end = Some(at);
                    }
                    job => other.push(job),
                }
            }
            self.write(&frames, end);
            self.others(other);
        }
    }

    /// Jobs behind the first that is no append, one by one: rare.
    fn others(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            match job {
                Job::Append(at, frame) => self.write(&[frame], Some(at)),
                Job::Replace(keep, instead, done) => {
                    if let Err(error) = self.segments.replace_tail(keep, instead, &self.aside) {
                        die(self.which, "cutting failed", &io::Error::other(error));
                    }
                    self.written.store(self.segments.next() - 1, Ordering::Release);
                    self.end = None;
                    let _ = done.send(());
                }
                Job::BeginAt(next, done) => {
                    if let Err(error) = self.segments.begin_at(next, &self.aside) {
                        die(self.which, "setting it aside failed", &io::Error::other(error));
                    }
                    self.written.store(next - 1, Ordering::Release);
                    self.first.store(next, Ordering::Release);
                    self.end = None;
                    let _ = done.send(());
                }
                Job::SyncSoon => {
                    let took = self.sync_now();
                    if let Some(at) = self.end {
                        (self.stored)(Stored { which: self.which, at, synced: true, took });
                    }
                }
                Job::Trim(seq) => {
                    if let Err(error) = self.segments.trim(seq) {
                        die(self.which, "removing old segments failed", &io::Error::other(error));
                    }
                    self.first.store(self.segments.first(), Ordering::Release);
                }
                Job::Sync(done) => {
                    _ = self.sync_now();
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, frames: &[Bytes], end: Option<Position>) {
        let (Some(at), which) = (end, self.which) else { return };
        match which {
            Which::Own => crate::kill_point!("log.own.before_write"),
            Which::Peer => crate::kill_point!("log.peer.before_write"),
        }
        let begun = Instant::now();
        if let Err(error) = self.segments.append(frames) {
            die(which, "writing failed", &error);
        }
        match which {
            Which::Own => crate::kill_point!("log.own.after_write"),
            Which::Peer => crate::kill_point!("log.peer.after_write"),
        }
        self.written.store(at.seq, Ordering::Release);
        self.end = Some(at);
        (self.stored)(Stored { which, at, synced: false, took: begun.elapsed() });
        if self.sync {
            let took = self.sync_now();
            crate::kill_point!("log.own.after_sync");
            (self.stored)(Stored { which, at, synced: true, took });
        }
    }

    fn sync_now(&mut self) -> Duration {
        let begun = Instant::now();
        if let Err(error) = self.segments.sync() {
            die(self.which, "fdatasync failed", &error);
        }
        begun.elapsed()
    }
}

/// A log that cannot be written ends the process at once, without a second try: after a failed fsync nobody knows what
/// is on the disk. The peer serves.
fn die(which: Which, what: &str, error: &io::Error) -> ! {
    eprintln!("tandem: fatal: {which:?} log: {what}: {error}. The process ends; the other node serves.");
    std::process::abort()
}
