//! A node without its disk, and a peer whose logs have no beginnings any more.

use presence_engine::engine::Print;
use presence_engine::ids::{Mode, Reg};
use presence_engine::record::Verifiers;

use super::*;
use crate::driver::checkpoint::Mark;
use crate::driver::ship::Phase;
use crate::log::Which;
use crate::store::{Batch, MemoryStore, Store};

#[derive(Default)]
struct Disk {
    log: MemoryLog,
    store: MemoryStore,
    sync_asked: bool,
}

impl LogStore for Disk {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }
    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        self.log.read(which, from, max_bytes)
    }
    fn replace_tail(&mut self, which: Which, keep: u64, instead: Vec<Bytes>) {
        self.log.replace_tail(which, keep, instead);
    }
    fn sync(&mut self, which: Which) {
        self.log.sync(which);
    }
    fn sync_soon(&mut self, _: Which) {
        self.sync_asked = true;
    }
    fn first(&self, which: Which) -> u64 {
        self.log.first(which)
    }
    fn trim(&mut self, which: Which, seq: u64) {
        self.log.trim(which, seq);
    }
    fn begin_at(&mut self, which: Which, next: u64) {
        self.log.begin_at(which, next);
    }
}

impl Storage for Disk {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }
    fn checkpoint(&mut self, batch: Batch) -> bool {
        self.log.sync(Which::Peer);
        self.store.write(batch).is_ok()
    }
    fn note_turn(&mut self, _: &[Print]) {}
}

struct Side {
    driver: Driver,
    disk: Disk,
    /// Why its connections were closed.
    closed: Vec<&'static str>,
}

fn reg(group: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(2 + group.index() as u64), primary: group, mode, settled: Term(0) }
}

/// Each node leads its own users in Pair.
fn start(me: NodeIx, boot: u64, mut disk: Disk) -> Side {
    let engine = engine::Config {
        me,
        peer: Some(xmpp_core::dual::Peer { node: "p".into(), host: "p".into(), port: 1, direct_tls: true }),
        domain: "d".into(),
        resume_ms: 300_000,
        relogin_s: (0, 1),
        limits: engine::Limits::DEFAULT,
        tokens: None,
        trap: None,
    };
    let cfg =
        Config { engine, versions: VERSIONS, cluster: 1, boot, ack_synced: false, checkpoint_frames: 10 };
    let driver = Driver::start(cfg, boot, &mut disk);
    Side { driver, disk, closed: Vec::new() }
}

impl Side {
    fn serve(&mut self) {
        let me = self.driver.cfg.engine.me;
        let release = NodeIx::BOTH.map(|g| if g == me { Release::Both } else { Release::Nothing });
        let regs = NodeIx::BOTH.map(|g| Some(reg(g, Mode::Pair)));
        self.driver.set_view(View { regs, release, accept: NodeIx::BOTH.map(|g| g != me) });
        let inputs = vec![
            Input::PeerUp(true),
            Input::Lead { group: me, reg: reg(me, Mode::Pair), late: false },
            Input::Serving { group: me, on: true },
        ];
        self.driver.turn(0, inputs, &mut self.disk);
    }

    fn wait(&mut self) {
        let regs = NodeIx::BOTH.map(|g| Some(reg(g, Mode::Pair)));
        let me = self.driver.cfg.engine.me;
        self.driver.set_view(View {
            regs,
            release: [Release::Nothing; 2],
            accept: NodeIx::BOTH.map(|g| g != me),
        });
    }

    fn add(&mut self, name: &str) {
        let (user, home) = (BareJid::parse(&format!("{name}@d")).unwrap(), self.driver.cfg.engine.me);
        self.driver.turn(
            0,
            vec![Input::UserAdd { user, home, verifiers: Verifiers::default() }],
            &mut self.disk,
        );
    }

    fn digest(&self) -> u64 {
        self.driver.engine().state().digest()
    }

    fn users(&self) -> usize {
        self.driver.engine().state().users().count()
    }

    /// The disk goes on, and everything of the peer's is applied; whether anything happened.
    fn run(&mut self) -> bool {
        let mut moved = false;
        for which in [Which::Own, Which::Peer] {
            let told =
                if which == Which::Own { self.driver.commit.own_end() } else { self.driver.commit.base() };
            let asked = which == Which::Peer && std::mem::take(&mut self.disk.sync_asked);
            if let Some(at) = self.disk.log.complete_write(which)
                && (at.seq > told || asked)
            {
                moved = true;
                self.driver.stored(which, at, false, &mut self.disk);
                if which == Which::Own || asked {
                    self.disk.log.complete_sync(which);
                    self.driver.stored(which, at, true, &mut self.disk);
                }
            }
        }
        if self.driver.has_unprocessed() {
            moved = true;
            self.driver.turn(0, Vec::new(), &mut self.disk);
        }
        self.driver.keep_store(&mut self.disk);
        moved
    }
}

/// Lets both go on until nothing moves. Who ends a connection is connected again.
fn settle(a: &mut Side, b: &mut Side) {
    for _ in 0..2_000 {
        let mut moved = false;
        for turn in 0..2 {
            let (one, other) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            moved |= one.run();
            let mut again = [false; 2];
            for what in one.driver.take() {
                match what {
                    Do::Send(Link::Out, msg) => _ = other.driver.on_in(msg, &mut other.disk),
                    Do::Send(Link::In, msg) => other.driver.on_out(msg, &mut other.disk),
                    Do::Close(link, why) => {
                        one.closed.push(why.text());
                        again[usize::from(link == Link::In)] = true;
                    }
                    _ => continue,
                }
                moved = true;
            }
            if one.closed.len() > 20 {
                return;
            }
            if again[0] {
                other.driver.peer_gone();
                one.driver.connected();
            }
            if again[1] {
                one.driver.peer_gone();
                other.driver.connected();
            }
        }
        if !moved {
            return;
        }
    }
    panic!("it does not end: {:?} {:?}", a.closed, b.closed);
}

/// A pair in which the node with this index, or both, wrote so much that the beginnings of their logs are gone.
fn pair(writers: &[usize]) -> [Side; 2] {
    let [mut a, mut b] = [(NodeIx::A, 1), (NodeIx::B, 2)].map(|(n, boot)| start(n, boot, Disk::default()));
    a.driver.connected();
    b.driver.connected();
    settle(&mut a, &mut b);
    a.serve();
    b.serve();
    for n in 0..40 {
        if writers.contains(&0) {
            a.add(&format!("a{n}"));
        }
        if writers.contains(&1) {
            b.add(&format!("b{n}"));
        }
        settle(&mut a, &mut b);
    }
    assert_eq!((a.digest(), a.users()), (b.digest(), 40 * writers.len()));
    [a, b]
}

/// B starts again with this disk, and the nodes meet.
fn meet(a: &mut Side, disk: Disk) -> Side {
    let mut b = start(NodeIx::B, 3, disk);
    b.wait();
    a.driver.peer_gone();
    a.driver.connected();
    b.driver.connected();
    settle(a, &mut b);
    b
}

#[test]
fn a_lost_disk_is_filled_from_the_peer() {
    for writers in [&[0][..], &[1], &[0, 1]] {
        let [mut a, old] = pair(writers);
        let trimmed = [Which::Own, Which::Peer].map(|which| a.disk.first(which) > 1);
        assert_eq!(
            trimmed,
            [writers.contains(&0), writers.contains(&1)],
            "what is not written is not removed"
        );
        let mut b = start(NodeIx::B, 3, Disk::default());
        assert_eq!(b.users(), 0);
        drop(b);
        b = meet(&mut a, Disk::default());
        assert_eq!((b.digest(), b.users()), (a.digest(), 40 * writers.len()), "{writers:?}: {:?}", b.closed);
        assert_eq!((b.driver.own_end(), b.driver.peer_end()), (a.driver.peer_end(), a.driver.own_end()));
        assert_eq!(b.driver.own_end(), old.driver.own_end());
        assert!(b.driver.fetched() && !b.driver.is_behind());
        // And what it has now is enough for a start.
        let again = start(NodeIx::B, 4, b.disk);
        assert_eq!(again.digest(), a.digest());
    }
}

#[test]
fn a_lost_store_makes_a_node_wait_for_the_peer() {
    let [mut a, mut b] = pair(&[0, 1]);
    b.disk.store.lose_all();
    let alone = start(NodeIx::B, 3, b.disk);
    assert!(alone.driver.is_behind(), "it must not lead with nothing");
    assert_eq!((alone.users(), alone.disk.log.aside().is_empty()), (0, false), "its logs are kept aside");
    let mut again = start(NodeIx::B, 4, alone.disk);
    assert!(again.driver.is_behind(), "nor after another start");
    // A snapshot that came in by half is none.
    again.wait();
    let mark = a.disk.store.mark().unwrap().unwrap();
    again.driver.begin_install(&mark, &mut again.disk);
    let some = a.disk.store.scan(&[], 1_000).unwrap();
    again.driver.install(some, &mut again.disk);
    for boot in [5, 6] {
        again = start(NodeIx::B, boot, again.disk);
        assert_eq!((again.users(), again.driver.is_behind()), (0, true), "boot {boot}");
    }
    let b = meet(&mut a, again.disk);
    assert_eq!(b.digest(), a.digest());
    assert!(!b.driver.is_behind());
}

#[test]
fn a_snapshot_comes_from_a_store_that_had_failed_too() {
    let [mut a, _] = pair(&[0, 1]);
    a.disk.store.lose_all();
    a.driver.checkpointed(false, &mut a.disk);
    let b = meet(&mut a, Disk::default());
    assert_eq!((b.digest(), b.users()), (a.digest(), 80), "{:?} {:?}", a.closed, b.closed);
}

#[test]
fn a_disk_that_went_on_by_itself_is_refused_and_the_peer_lives() {
    let [mut a, _] = pair(&[0, 1]);
    let before = (a.digest(), a.driver.own_end());
    // Another history of the same node.
    let mut disk = Disk::default();
    for seq in 1..=60 {
        let mut other = frame(seq, 10);
        other.groups = 2;
        disk.log.append(Which::Own, other.at, other.encode());
    }
    disk.log.sync(Which::Own);
    let b = meet(&mut a, disk);
    assert_eq!((a.digest(), a.driver.own_end()), before);
    let why = a
        .closed
        .iter()
        .chain(&b.closed)
        .any(|why| why.contains("old disk") || why.contains("does not know all"));
    assert!(why, "{:?} {:?}", a.closed, b.closed);
    assert_eq!(b.driver.own_end().seq, 60, "what is on it is not touched");
}

#[test]
fn a_mark_is_the_same_from_both_sides() {
    let mut runs = [Runs::default(), Runs::default()];
    runs[0].push(Position { seq: 1, inc: 4 });
    runs[1].push(Position { seq: 1, inc: 5 });
    let [own, peer] = runs;
    let at = |seq| Position { seq, inc: 9 };
    let mark = Mark { own, peer, built_on: at(7), built_on_ours: at(8), behind: true, ..Mark::default() };
    let mirrored = mark.clone().mirrored();
    assert_eq!((mirrored.built_on, mirrored.built_on_ours), (at(8), at(7)));
    assert_ne!(mirrored.own, mark.own);
    assert_eq!(mirrored.mirrored(), mark);
}

#[test]
fn who_serves_or_knows_more_takes_no_snapshot() {
    let [mut a, mut b] = pair(&[0, 1]);
    let mark = b.disk.store.mark().unwrap().unwrap();
    let refused = |side: &mut Side, why: &str| {
        let before = side.disk.store.mark().unwrap();
        side.driver.begin_install(&mark, &mut side.disk);
        let closed = side
            .driver
            .take()
            .into_iter()
            .any(|what| matches!(what, Do::Close(_, w) if w.text().contains(why)));
        closed && side.disk.store.mark().unwrap() == before
    };
    assert!(refused(&mut a, "serves"));
    let mut disk = Disk::default();
    disk.log.append(Which::Own, frame(1, 10).at, frame(1, 10).encode());
    disk.log.sync(Which::Own);
    let mut other = start(NodeIx::A, 5, disk);
    other.wait();
    assert!(refused(&mut other, "does not know all"));
    b.wait();
    b.driver.begin_install(b"?", &mut b.disk);
    assert_eq!(b.disk.store.mark().unwrap(), Some(mark), "what cannot be read is refused");
}

#[test]
fn the_store_stays_as_it_is_while_it_is_sent() {
    let [mut a, mut b] = pair(&[0, 1]);
    a.add("more");
    settle(&mut a, &mut b);
    let before = a.disk.store.mark().unwrap();
    for sending in [true, false] {
        a.driver.checkpoint = None;
        a.driver.take_checkpoint();
        (a.driver.peer_kept, a.driver.peer_own) = (u64::MAX, u64::MAX);
        a.driver.outgoing.phase = if sending { Phase::Sending } else { Phase::Live };
        a.driver.keep_store(&mut a.disk);
        assert_eq!(a.disk.store.mark().unwrap() == before, sending);
    }
}
