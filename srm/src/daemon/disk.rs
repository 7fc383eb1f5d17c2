//! The node's disk: both logs, the cores' durable structs, and whose disk it is.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use presence_engine::engine::Print;
use presence_engine::ids::{Group, Mode, NodeIx, Position, Reg};
use presence_engine::record::Cursor;
use serde::{Deserialize, Serialize};
use session_mover::log::{FileLog, LogStore, Opened, Storage, Stored, Which};
use session_mover::store::{Batch, Behind, Store, Watch};
use tracing::warn;

use super::crashes::{self, TurnFile};
use super::guard;
use super::store;
use super::watchdog::Watchdog;
use super::worker::now_ms;
use crate::config::Engine;
use crate::node::{Crash, Crashes, Disk, Failovers, RegisterCopy};
use crate::slots::Slots;
use crate::view::Cause;

/// Whose disk it is: a disk of another node or cluster is refused.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u32,
    node: String,
    cluster: String,
}

/// The disk of a running node. Held by one process at a time.
pub struct NodeDisk {
    log: FileLog,
    store: Behind,
    /// Of each group.
    cores: [Slots; 2],
    /// What is in them.
    kept: [Option<Reg>; 2],
    me: NodeIx,
    watchdog: Arc<Watchdog>,
    /// The peer is there, and would go on in this node's place.
    peer_ready: bool,
    turn: TurnFile,
    data: PathBuf,
    _lock: File,
}

/// What was found on the disk.
pub struct Found {
    /// The disk.
    pub disk: NodeDisk,
    /// Register copies of both groups.
    pub durable: [Option<RegisterCopy>; 2],
    /// Torn or damaged log tails that were set aside.
    pub opened: Opened,
    /// What is known of crashes in the middle of a turn (D15).
    pub crashes: Crashes,
    /// The last run was one of them, with so many inputs.
    pub crashed: Option<usize>,
    /// What the flap guard counts.
    pub failovers: Failovers,
}

impl NodeDisk {
    /// Opens `data`, made if it is not there.
    pub fn open(
        data: &Path,
        node: (&str, NodeIx),
        cluster: u64,
        sync_peer: bool,
        engine: Engine,
        stored: impl Fn(Stored) + Clone + Send + 'static,
        checkpointed: impl Fn(Result<(), String>) + Send + 'static,
    ) -> anyhow::Result<Found> {
        let core = data.join("core");
        for name in ["own", "peer"] {
            fs::create_dir_all(core.join(name))
                .with_context(|| format!("{}: cannot be made", core.display()))?;
        }
        let lock = lock(data)?;
        check_identity(data, node, cluster)?;
        let (log, opened) = FileLog::open(data, sync_peer, stored)?;
        let store = store::open(engine, data, log.syncer(Which::Peer), checkpointed)?;
        let (turn, prints) = TurnFile::open(data)?;
        let mut crashes = crashes::read(data)?;
        let crashed = (!prints.is_empty()).then_some(prints.len());
        if crashed.is_some() {
            crashes.add(Crash { run: rand::random(), at_ms: now_ms(), prints });
            crashes::write(data, &crashes)?;
        }
        turn.clear()?;
        let failovers = guard::read(data);
        let mut durable = [None; 2];
        let cores = NodeIx::BOTH.map(|group| {
            let (slots, found) = Slots::open(core.join(if group == node.1 { "own" } else { "peer" }));
            durable[group.index()] = found.and_then(decode);
            slots
        });
        let kept = durable.map(|copy: Option<RegisterCopy>| copy.map(|copy| copy.reg));
        let (me, watchdog, data) = (node.1, Arc::default(), data.to_owned());
        let disk =
            NodeDisk { log, store, cores, kept, me, watchdog, peer_ready: false, turn, data, _lock: lock };
        Ok(Found { disk, durable, opened, crashes, crashed, failovers })
    }
}

impl NodeDisk {
    /// For whoever watches over the store.
    pub fn watch_store(&self) -> Watch {
        self.store.watch()
    }

    /// For whoever watches over the writes that the node's thread waits for.
    pub fn watchdog(&self) -> Arc<Watchdog> {
        self.watchdog.clone()
    }

    /// Whether the peer would go on in this node's place, as the node sees it: [`crate::node::Node::peer_would_go_on`].
    pub fn peer_is_ready(&mut self, ready: bool) {
        self.peer_ready = ready;
    }

    /// Whether the peer goes on if this node ends, and nobody is led alone, neither now nor by what is about to be written.
    fn peer_goes_on_after(&self, new: Reg) -> bool {
        self.peer_goes_on() && !self.is_alone(new)
    }

    /// The same as it is.
    fn peer_goes_on(&self) -> bool {
        self.peer_ready && !self.kept.into_iter().flatten().any(|reg| self.is_alone(reg))
    }

    fn is_alone(&self, reg: Reg) -> bool {
        reg.primary == self.me && reg.mode == Mode::Solo
    }
}

pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(|| {
            format!("{}: cannot be opened; check the permissions of the data folder", path.display())
        })?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "{}: another tandem uses this data folder; stop it first, or give this node its own",
            data.display()
        );
    }
    Ok(file)
}

fn check_identity(data: &Path, node: (&str, NodeIx), cluster: u64) -> anyhow::Result<()> {
    let path = data.join("node.json");
    let wanted = Identity { version: 1, node: node.0.to_owned(), cluster: format!("{cluster:016x}") };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found: Identity = serde_json::from_str(&text).with_context(|| {
                format!("{}: cannot be read; was it written by a newer version?", path.display())
            })?;
            if found.node != wanted.node {
                bail!(
                    "{}: this disk belongs to node {:?}, not to {:?}; give each node its own [node] data",
                    data.display(),
                    found.node,
                    wanted.node
                );
            }
            // A node that was alone becomes one of two: its disk is the first of the cluster. One that is alone again keeps the
            // name of the cluster, and may join that one only.
            let alone = format!("{:016x}", 0);
            if found.cluster == alone && wanted.cluster != alone && node.1 == NodeIx::A {
                return write_identity(data, &path, &wanted);
            }
            if found.cluster != wanted.cluster && wanted.cluster != alone {
                bail!(
                    "{}: this disk belongs to another cluster; give the node an empty data folder (its peer sends \
                     what is missing), or the right secret with its line `cluster`",
                    data.display()
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_identity(data, &path, &wanted),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be read", path.display())),
    }
}

/// Whole, or as it was.
fn write_identity(data: &Path, path: &Path, identity: &Identity) -> anyhow::Result<()> {
    let new = data.join("node.json.new");
    let mut file = File::create(&new).with_context(|| format!("{}: cannot be written", new.display()))?;
    file.write_all(serde_json::to_string_pretty(identity)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(File::open(data)?.sync_all()?)
}

/// `register | late u8 | held u8 | cause u8 | lost u64`, 0 for no run. Without the first flag, which older versions did not
/// write, nobody knows.
fn decode(body: Bytes) -> Option<RegisterCopy> {
    let mut c = Cursor::new(body);
    let reg = c.reg().ok()?;
    let late = if c.is_empty() { true } else { c.flag().ok()? };
    let held = if c.is_empty() { false } else { c.flag().ok()? };
    let number = if c.is_empty() { 0 } else { c.u8().ok()? };
    let cause = Cause::ALL.get(usize::from(number)).copied().unwrap_or_default();
    let lost = if c.is_empty() { None } else { Some(c.u64().ok()?).filter(|run| *run != 0) };
    Some(RegisterCopy { reg, late, held, cause, lost })
}

fn encode(copy: RegisterCopy) -> Vec<u8> {
    let mut body = Vec::new();
    copy.reg.encode(&mut body);
    body.push(u8::from(copy.late));
    body.push(u8::from(copy.held));
    body.push(Cause::ALL.iter().position(|known| *known == copy.cause).unwrap_or(0) as u8);
    body.extend_from_slice(&copy.lost.unwrap_or(0).to_le_bytes());
    body
}

/// A log, as the operator knows it.
fn name(which: Which) -> &'static str {
    match which {
        Which::Own => "this node's log",
        Which::Peer => "the copy of the other node's log",
    }
}

impl LogStore for NodeDisk {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }

    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        self.log.read(which, from, max_bytes)
    }

    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        let peer_goes_on = self.peer_goes_on();
        self.watchdog.during(name(which), peer_goes_on, || self.log.replace_tail(which, keep, instead));
    }

    fn sync(&mut self, which: Which) {
        let peer_goes_on = self.peer_goes_on();
        self.watchdog.during(name(which), peer_goes_on, || self.log.sync(which));
    }

    fn sync_soon(&mut self, which: Which) {
        self.log.sync_soon(which);
    }

    fn first(&self, which: Which) -> u64 {
        self.log.first(which)
    }

    fn trim(&mut self, which: Which, seq: u64) {
        self.log.trim(which, seq);
    }

    fn begin_at(&mut self, which: Which, next: u64) {
        let peer_goes_on = self.peer_goes_on();
        self.watchdog.during(name(which), peer_goes_on, || self.log.begin_at(which, next));
    }
}

impl Storage for NodeDisk {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }

    fn checkpoint(&mut self, batch: Batch) -> bool {
        self.store.checkpoint(batch);
        false
    }

    fn note_turn(&mut self, prints: &[Print]) {
        self.turn.note(prints);
    }
}

impl Disk for NodeDisk {
    fn persist(&mut self, group: Group, copy: RegisterCopy) {
        session_mover::kill_point!("core.before_persist");
        let peer_goes_on = self.peer_goes_on_after(copy.reg);
        let slots = &mut self.cores[group.index()];
        let path = slots.path();
        let write = || slots.write(&encode(copy));
        if let Err(error) = self.watchdog.during("who leads", peer_goes_on, write) {
            // A node that cannot remember who leads must not lead.
            eprintln!("tandem: fatal: {}: {error}. The process ends; the other node serves.", path.display());
            std::process::abort();
        }
        self.kept[group.index()] = Some(copy.reg);
        session_mover::kill_point!("core.after_persist");
    }

    fn keep_crashes(&mut self, crashes: &Crashes) {
        let write = || crashes::write(&self.data, crashes);
        if let Err(error) = self.watchdog.during("what is known of crashes", self.peer_goes_on(), write) {
            warn!(%error, "what is known of crashes is not kept");
        }
    }

    fn keep_failovers(&mut self, failovers: &Failovers) {
        // It may be the disk for which the node fails over: that must go on.
        let write = || guard::write(&self.data, failovers);
        if let Err(error) = self.watchdog.during("what the flap guard counts", self.peer_goes_on(), write) {
            warn!(%error, "what the flap guard counts is not kept: after a restart it begins anew");
        }
    }

    fn peer_is_gone(&mut self) {
        self.peer_ready = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use presence_engine::ids::Term;

    use super::*;

    fn reg(term: u64) -> RegisterCopy {
        let reg = Reg { term: Term(term), primary: NodeIx::B, mode: Mode::Solo, settled: Term(0) };
        let (late, held, lost) = (term == 4, term == 2, (term != 9).then_some(term << 40));
        RegisterCopy { reg, late, held, cause: Cause::ALL[term as usize], lost }
    }

    fn open(data: &Path, name: &str, me: NodeIx, cluster: u64) -> anyhow::Result<Found> {
        NodeDisk::open(data, (name, me), cluster, false, Engine::Sled, |_| (), |_| ())
    }

    #[test]
    fn register_copies_survive_and_a_torn_slot_leaves_the_one_before() {
        for me in NodeIx::BOTH {
            let dir = tempfile::tempdir().unwrap();
            let mut found = open(dir.path(), "n", me, 1).unwrap();
            assert_eq!(found.durable, [None, None]);
            found.disk.persist(me, reg(2));
            found.disk.persist(me, reg(4));
            found.disk.persist(me.peer(), reg(9));
            drop(found);
            let found = open(dir.path(), "n", me, 1).unwrap();
            let mut wanted = [Some(reg(4)), Some(reg(4))];
            wanted[me.peer().index()] = Some(reg(9));
            assert_eq!(found.durable, wanted);
            drop(found);
            let slot = dir.path().join("core/own/slot0");
            let mut bytes = fs::read(&slot).unwrap();
            bytes.truncate(5);
            fs::write(&slot, bytes).unwrap();
            let found = open(dir.path(), "n", me, 1).unwrap();
            assert_eq!(found.durable[me.index()], Some(reg(2)));
            drop(found);
            // As versions without the lost run, without the cause, without the second flag, and without both, wrote it.
            let known = reg(2).cause;
            for (less, late, held, cause) in [
                (8, false, true, known),
                (1, false, true, Cause::Nothing),
                (1, false, false, Cause::Nothing),
                (1, true, false, Cause::Nothing),
            ] {
                let bytes = fs::read(dir.path().join("core/own/slot1")).unwrap();
                let mut old = bytes[..bytes.len() - 4 - less].to_vec();
                old.extend_from_slice(&crc32c::crc32c(&old).to_le_bytes());
                fs::write(dir.path().join("core/own/slot1"), old).unwrap();
                let found = open(dir.path(), "n", me, 1).unwrap();
                assert_eq!(
                    found.durable[me.index()],
                    Some(RegisterCopy { late, held, cause, lost: None, ..reg(2) })
                );
            }
        }
    }

    #[test]
    fn who_leads_somebody_alone_is_nobody_in_whose_place_the_peer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let by = |primary, mode| Reg { term: Term(4), primary, mode, settled: Term(0) };
        let copy = |reg| RegisterCopy { reg, late: false, held: false, cause: Cause::Nothing, lost: None };
        let (pair, alone) = (by(NodeIx::A, Mode::Pair), by(NodeIx::A, Mode::Solo));
        let peer = by(NodeIx::B, Mode::Solo);
        let mut disk = open(dir.path(), "a", NodeIx::A, 1).unwrap().disk;
        assert!(!disk.peer_goes_on_after(pair), "nothing is known of the peer yet");
        disk.peer_is_ready(true);
        assert!(disk.peer_goes_on_after(pair) && disk.peer_goes_on_after(peer));
        assert!(!disk.peer_goes_on_after(alone), "it is about to");
        disk.peer_is_ready(false);
        assert!(!disk.peer_goes_on_after(pair), "it is not there, or takes nobody over");
        disk.peer_is_ready(true);
        disk.persist(NodeIx::B, copy(alone));
        assert!(!disk.peer_goes_on_after(pair), "the users of the other");
        disk.persist(NodeIx::A, copy(alone));
        disk.persist(NodeIx::B, copy(pair));
        drop(disk);
        let mut disk = open(dir.path(), "a", NodeIx::A, 1).unwrap().disk;
        disk.peer_is_ready(true);
        assert!(!disk.peer_goes_on_after(pair), "as another run wrote it, until that is written anew");
        disk.persist(NodeIx::A, copy(pair));
        assert!(disk.peer_goes_on_after(pair));
    }

    /// The log's own thread does it; the node's waits for that.
    #[test]
    fn what_is_waited_for_in_a_log_is_watched() {
        let waits: [fn(&mut NodeDisk); 3] = [
            |disk| disk.sync(Which::Peer),
            |disk| disk.begin_at(Which::Peer, 2),
            |disk| disk.replace_tail(Which::Peer, 0, Vec::new()),
        ];
        for wait in waits {
            let dir = tempfile::tempdir().unwrap();
            // The log's thread stands still when it has written the first frame.
            let (go_on, still) = channel::<()>();
            let still = Arc::new(Mutex::new(still));
            let stored = move |_: Stored| _ = still.lock().unwrap().recv();
            let found = NodeDisk::open(dir.path(), ("a", NodeIx::A), 1, false, Engine::Sled, stored, |_| ());
            let mut disk = found.unwrap().disk;
            let (watchdog, deadline) = (disk.watchdog(), Instant::now() + Duration::from_secs(60));
            disk.append(Which::Peer, Position { seq: 1, inc: 1 }, Bytes::from_static(b"frame"));
            let node = std::thread::spawn(move || wait(&mut disk));
            while watchdog.writes().is_none() {
                assert!(Instant::now() < deadline, "nobody watches");
                std::thread::yield_now();
            }
            assert_eq!(watchdog.writes(), Some("the copy of the other node's log"));
            drop(go_on);
            node.join().unwrap();
            assert_eq!(watchdog.writes(), None);
        }
    }

    #[test]
    fn a_foreign_disk_and_a_disk_in_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let found = open(dir.path(), "a", NodeIx::A, 1).unwrap();
        let text = |result: anyhow::Result<Found>| format!("{:#}", result.err().unwrap());
        assert!(text(open(dir.path(), "a", NodeIx::A, 1)).contains("another tandem uses"));
        drop(found);
        assert!(text(open(dir.path(), "b", NodeIx::B, 1)).contains("belongs to node \"a\""));
        assert!(text(open(dir.path(), "a", NodeIx::A, 2)).contains("another cluster"));
    }
}
