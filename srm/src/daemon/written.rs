//! What builds of before wrote is read by this one: a data folder of each format of the log, and of each engine of the store, is
//! kept in `tests/formats`.
//!
//! `TANDEM_WRITE_FIXTURES=1 cargo test --profile ci -p srm --lib written` writes those that are missing. One that is there is
//! never written again: it is of the build that wrote it, and that is the point of it. Whoever changes a format keeps it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use presence_engine::engine::{self, Input};
use presence_engine::ids::{Mode, NodeIx, Position, Reg, SmId, StanzaId, Term};
use presence_engine::record::{Effect, Forward, Record, Verifiers};
use session_mover::driver::commit::Release;
use session_mover::driver::{self, Do, Driver, Link, View};
use session_mover::frame::{self, Frame};
use session_mover::log::{LogStore, Storage, Stored, Which};
use session_mover::msg::{Msg, VERSIONS};
use xmpp_core::dual::Peer;
use xmpp_core::jid::{BareJid, Jid};

use super::disk::NodeDisk;
use super::{crashes, guard};
use crate::config::Engine;
use crate::events::Record as Told;
use crate::events::journal::Journal;
use crate::node::{Crash, Crashes, Disk, Failovers, RegisterCopy};
use crate::view::Cause;

/// Formats of the log that this program reads, oldest first. Nothing older than the first one was ever used.
const FORMATS: [u8; 1] = [1];
const ENGINES: [(Engine, &str); 2] = [(Engine::Sled, "sled"), (Engine::Redb, "redb")];
const LIMIT: Duration = Duration::from_secs(30);
const CLUSTER: u64 = 0x7a0d;
/// All of it happened at this time.
const NOW_MS: u64 = 1_764_000_000_000;
/// Accounts of each node, so many that the store has some of them; and one more that only the logs have.
const ACCOUNTS: usize = 20;
const QUEUED: &str = "<message xmlns='jabber:client' type='chat' id='m1' from='a0@d/desk' to='b0@d'><body>good-bye</body></message>";

/// One node, whose disk is a folder.
struct Side {
    me: NodeIx,
    driver: Driver,
    disk: NodeDisk,
    done: Receiver<Done>,
}

/// What the disk has done.
enum Done {
    Stored(Stored),
    Checkpointed(bool),
}

impl Side {
    /// Opens the folder and replays what is there.
    fn open(data: &Path, engine: Engine, me: NodeIx) -> (Side, [Option<RegisterCopy>; 2], Crashes) {
        let (tell, done): (Sender<Done>, _) = channel();
        let told = tell.clone();
        let name = ["a", "b"][me.index()];
        let found = NodeDisk::open(
            data,
            (name, me),
            CLUSTER,
            false,
            engine,
            move |stored| _ = tell.send(Done::Stored(stored)),
            move |written| _ = told.send(Done::Checkpointed(written.is_ok())),
        );
        let found = found.unwrap_or_else(|error| panic!("{}: {error:#}", data.display()));
        assert_eq!(found.opened.set_aside, [0, 0], "the logs are whole");
        let mut disk = found.disk;
        let peer = Peer { node: "p".into(), host: "p".into(), port: 1, direct_tls: true };
        let engine = engine::Config {
            me,
            peer: Some(peer),
            domain: "d".into(),
            resume_ms: 300_000,
            relogin_s: (0, 1),
            limits: engine::Limits::DEFAULT,
            tokens: None,
            trap: None,
        };
        let boot = 1 + me.index() as u64;
        let config = driver::Config {
            engine,
            versions: VERSIONS,
            cluster: CLUSTER,
            boot,
            ack_synced: false,
            checkpoint_frames: 10,
        };
        let driver = Driver::start(config, boot, &mut disk);
        (Side { me, driver, disk, done }, found.durable, found.crashes)
    }

    fn turn(&mut self, inputs: Vec<Input>) {
        self.driver.turn(NOW_MS, inputs, &mut self.disk);
    }

    /// It leads its own users, with a standby.
    fn serve(&mut self) {
        let me = self.me;
        let release = NodeIx::BOTH.map(|g| if g == me { Release::Both } else { Release::Nothing });
        let regs = NodeIx::BOTH.map(|g| Some(reg(g)));
        self.driver.set_view(View { regs, release, accept: NodeIx::BOTH.map(|g| g != me) });
        let lead = Input::Lead { group: me, reg: reg(me), late: false };
        self.turn(vec![Input::PeerUp(true), lead, Input::Serving { group: me, on: true }]);
    }

    fn add(&mut self, number: usize) {
        let user = account(self.me, number);
        let key = |byte: u8, bytes: usize| Bytes::from(vec![byte; bytes]);
        let keys = |bytes: usize| (key(1, bytes), key(2, bytes));
        let verifiers = Verifiers {
            salt: key(number as u8, 16),
            iterations: 4096,
            sha1: keys(20),
            sha256: keys(32),
            sha512: keys(64),
        };
        self.turn(vec![Input::UserAdd { user, home: self.me, verifiers }]);
    }

    /// Goes on with what the disk has done and the peer has written.
    fn go_on(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            match done {
                Done::Stored(s) => self.driver.stored(s.which, s.at, s.synced, &mut self.disk),
                Done::Checkpointed(written) => self.driver.checkpointed(written, &mut self.disk),
            }
        }
        // A turn of nothing looks whether a checkpoint is due.
        self.turn(vec![Input::PeerUp(true)]);
    }

    fn digest(&self) -> u64 {
        self.driver.engine().state().digest()
    }

    /// The store has a checkpoint.
    fn is_kept(&mut self) -> bool {
        matches!(self.disk.store().mark(), Ok(Some(_)))
    }
}

fn reg(group: NodeIx) -> Reg {
    Reg { term: Term(2 + group.index() as u64), primary: group, mode: Mode::Pair, settled: Term(0) }
}

fn account(home: NodeIx, number: usize) -> BareJid {
    BareJid::parse(&format!("{}{number}@d", ["a", "b"][home.index()])).unwrap()
}

/// Register copies as they are written; no two fields are the same by chance.
fn copies() -> [Option<RegisterCopy>; 2] {
    NodeIx::BOTH.map(|group| {
        let own = group == NodeIx::B;
        let cause = if own { Cause::Operator } else { Cause::PeerReboot };
        Some(RegisterCopy { reg: reg(group), late: own, held: !own, cause, lost: (!own).then_some(77) })
    })
}

fn crash() -> Crashes {
    let mut crashes = Crashes::default();
    crashes.add(Crash { run: 5, at_ms: NOW_MS, prints: vec![3, 4] });
    crashes
}

fn failovers() -> Failovers {
    Failovers { at_ms: NOW_MS, left_ms: vec![1_800_000, 60_000], ..Failovers::default() }
}

/// Both go on, with what they say to each other, until this is so.
fn until(what: &str, [a, b]: [&mut Side; 2], so: impl Fn(&mut Side, &mut Side) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so(a, b) {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        for turn in 0..2 {
            let (one, other) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            one.go_on();
            for what in one.driver.take() {
                match what {
                    Do::Send(Link::Out, msg) => _ = other.driver.on_in(msg, &mut other.disk),
                    Do::Send(Link::In, msg) => other.driver.on_out(msg, &mut other.disk),
                    // Whoever ends a connection is connected again.
                    Do::Close(Link::Out, _) => {
                        other.driver.peer_gone();
                        one.driver.connected();
                    }
                    Do::Close(Link::In, _) => {
                        one.driver.peer_gone();
                        other.driver.connected();
                    }
                    _ => {}
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each has what the other wrote, on its disk and in its state.
fn alike(a: &mut Side, b: &mut Side) -> bool {
    let whole = |one: &Side, other: &Side| {
        let end = one.driver.own_end();
        one.driver.own_synced() == end.seq && other.driver.peer_end() == end && !one.driver.has_unprocessed()
    };
    whole(a, b) && whole(b, a) && a.digest() == b.digest()
}

/// What A wrote last: one of its users logs in, and another says good-bye to one of B's, who is not there, and is removed.
fn last_words(a: &Side) -> Frame {
    let end = a.driver.own_end();
    let session = SmId([7; 16]);
    let to = Jid::from(account(NodeIx::B, 0));
    let id = StanzaId { session: SmId([9; 16]), number: 1 };
    let effects = vec![Effect::Forward(Forward { to, id, stanza: Bytes::from_static(QUEUED.as_bytes()) })];
    let user = account(NodeIx::A, 1);
    Frame {
        groups: 1,
        solo: 0,
        terms: NodeIx::BOTH.map(|group| reg(group).term),
        at: Position { seq: end.seq + 1, ..end },
        prev: end,
        applied_peer: a.driver.peer_end(),
        now_ms: NOW_MS,
        records: vec![
            Record::Bind { session, user, resource: "desk".into(), at_ms: NOW_MS, effects: Vec::new() },
            Record::Enable { session, resume_ms: 300_000 },
            Record::UserRemove { user: account(NodeIx::A, 0), effects },
        ],
    }
}

/// Writes the data folder of a node B, and all that a node keeps there; a digest of what it holds then.
fn write(data: &Path, engine: Engine) -> u64 {
    let elsewhere = tempfile::tempdir().unwrap();
    crashes::write(data, &crash()).unwrap();
    let (mut journal, _) = Journal::open(data).unwrap();
    journal
        .append(&mut [Told { event: "started".into(), text: "b has started".into(), ..Told::default() }])
        .unwrap();
    let (mut a, ..) = Side::open(elsewhere.path(), engine, NodeIx::A);
    let (mut b, ..) = Side::open(data, engine, NodeIx::B);
    a.driver.connected();
    b.driver.connected();
    until("they meet", [&mut a, &mut b], |a, b| a.driver.hears_log() && b.driver.hears_log());
    a.serve();
    b.serve();
    for number in 0..ACCOUNTS {
        a.add(number);
        b.add(number);
        until("an account is on both", [&mut a, &mut b], alike);
    }
    until("a checkpoint", [&mut a, &mut b], |_, b| b.is_kept());
    b.add(ACCOUNTS);
    until("the last account is on both", [&mut a, &mut b], alike);

    let frame = last_words(&a);
    b.driver.on_in(Msg::Frame(frame.encode()), &mut b.disk);
    let deadline = Instant::now() + LIMIT;
    while b.driver.peer_end() != frame.at
        || b.driver.has_unprocessed()
        || b.driver.own_synced() < b.driver.own_end().seq
    {
        assert!(Instant::now() < deadline, "the last frame is not done");
        b.go_on();
        std::thread::sleep(Duration::from_millis(1));
    }
    for group in NodeIx::BOTH {
        b.disk.persist(group, copies()[group.index()].unwrap());
    }
    b.disk.sync(Which::Own);
    b.disk.sync(Which::Peer);
    b.disk.store().flush().unwrap();
    // A node that starts writes how much of it is left.
    guard::write(data, &failovers()).unwrap();
    b.digest()
}

/// What this build reads from a data folder of a node B; a digest of what it holds then.
fn read(data: &Path, engine: Engine) -> u64 {
    assert_eq!(guard::written(data).unwrap().left_ms, failovers().left_ms, "failovers");
    let (mut b, durable, crashes) = Side::open(data, engine, NodeIx::B);
    assert_eq!(durable, copies(), "register copies");
    assert_eq!(crashes, crash(), "crashes");
    let (_, told) = Journal::open(data).unwrap();
    let texts: Vec<_> = told.iter().map(|record| (record.number, record.text.as_str())).collect();
    assert_eq!(texts, [(1, "b has started")], "events");

    assert!(b.is_kept() && !data.join("aside").exists(), "the store is used, and nothing was set aside");
    b.driver.compare_no_more();
    while b.driver.has_unprocessed() {
        b.turn(Vec::new());
    }
    let state = b.driver.engine().state();
    let user = |home, number| state.user(&account(home, number));
    assert_eq!(state.users().count(), 2 * ACCOUNTS, "one was removed, and one added behind the checkpoint");
    assert!(user(NodeIx::A, 0).is_none() && user(NodeIx::B, ACCOUNTS).is_some());
    for (home, other) in [(NodeIx::A, 1), (NodeIx::B, ACCOUNTS)] {
        assert_eq!(user(home, other).map(|user| user.home), Some(home));
    }
    let sessions: Vec<_> = user(NodeIx::A, 1).unwrap().sessions.iter().collect();
    assert_eq!(sessions, [(&"desk".into(), &SmId([7; 16]))], "a session");
    let waiting = &user(NodeIx::B, 0).unwrap().offline;
    let texts: Vec<_> = waiting.iter().map(|queued| String::from_utf8_lossy(&queued.stanza)).collect();
    assert!(matches!(&texts[..], [text] if text.contains("<body>good-bye</body>")), "{texts:?}");
    b.digest()
}

fn fixture(format: u8, engine: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    folder.join(format!("data-{format}-{engine}.tar.gz"))
}

/// Puts the folder into a file.
fn pack(data: &Path, file: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    tar.append_dir_all(".", data).unwrap();
    let bytes = tar.into_inner().and_then(|gz| gz.finish()).unwrap();
    fs::write(file, &bytes).unwrap();
    println!("{}: {} bytes", file.display(), bytes.len());
}

#[test]
fn what_builds_of_before_wrote_is_read_to_the_same_state() {
    let newest = FORMATS.last().copied();
    assert_eq!(newest, Some(frame::VERSION), "keep the files of the older formats, and add the new one here");
    for (engine, name) in ENGINES {
        let now = tempfile::tempdir().unwrap();
        let digest = write(now.path(), engine);
        for format in FORMATS {
            let file = fixture(format, name);
            if std::env::var_os("TANDEM_WRITE_FIXTURES").is_some() && !file.exists() && newest == Some(format)
            {
                pack(now.path(), &file);
            }
            let packed = File::open(&file).unwrap_or_else(|error| {
                panic!(
                    "{}: {error}: it is written by a build that writes format {format}, once and for all later ones, with \
                     `TANDEM_WRITE_FIXTURES=1 cargo test --profile ci -p srm --lib written`, and committed",
                    file.display()
                )
            });
            let then = tempfile::tempdir().unwrap();
            tar::Archive::new(GzDecoder::new(packed)).unpack(then.path()).unwrap();
            assert_eq!(
                read(then.path(), engine),
                digest,
                "{}: what is read is what was written",
                file.display()
            );
        }
    }
}

/// What a newer program wrote, which this one cannot read: it does not start, says what to do, and leaves everything as it is.
#[test]
fn a_log_of_a_newer_program_keeps_this_one_from_starting_and_is_left_as_it_is() {
    const PREFIX: usize = frame::PREFIX;
    type Newer = (fn(&mut [u8]), &'static str);
    let newer: [Newer; 2] = [
        (|bytes| bytes[PREFIX] = frame::VERSION + 1, "is not known here"),
        (|bytes| bytes[PREFIX + 80] = 250, "unknown record type 250"),
    ];
    let at = |seq: u64| Position { seq, inc: if seq == 0 { 0 } else { 5 } };
    let good = |seq: u64| Frame {
        groups: 1,
        solo: 0,
        terms: [Term(2); 2],
        at: at(seq),
        prev: at(seq - 1),
        applied_peer: at(0),
        now_ms: NOW_MS,
        records: vec![Record::UserRemove { user: account(NodeIx::A, 0), effects: Vec::new() }],
    };
    for (change, text) in newer {
        for log in ["own", "peer"] {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = good(2).encode().to_vec();
            change(&mut bytes);
            let crc = crc32c::crc32c(&bytes[PREFIX..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            let all = [&good(1).encode()[..], &bytes, &good(3).encode()].concat();
            let folder = dir.path().join("log").join(log);
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{:020}.log", 1));
            fs::write(&file, &all).unwrap();
            let opened =
                NodeDisk::open(dir.path(), ("a", NodeIx::A), CLUSTER, false, Engine::Sled, |_| (), |_| ());
            let error = format!("{:#}", opened.err().expect("it does not start"));
            assert!(error.contains(text) && error.contains("upgrade this node first"), "{log}: {error}");
            assert_eq!(fs::read(&file).unwrap(), all, "{log}");
            assert!(!dir.path().join("aside").exists(), "{log}: nothing is set aside");
        }
    }
}
