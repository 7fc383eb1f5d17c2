//! Two drivers with disks in memory, and what goes on between them.

use presence_engine::engine::Print;
use presence_engine::ids::{Mode, Reg};
use presence_engine::record::Verifiers;

use super::*;
use crate::log::Which;
use crate::store::{Batch, MemoryStore, Store};

#[derive(Default)]
pub(super) struct Disk {
    pub(super) log: MemoryLog,
    pub(super) store: MemoryStore,
    sync_asked: bool,
}

impl Disk {
    /// It has these frames in its logs for good.
    pub(super) fn of(own: impl IntoIterator<Item = Frame>, peer: impl IntoIterator<Item = Frame>) -> Disk {
        let mut disk = Disk::default();
        for frame in own {
            disk.log.append(Which::Own, frame.at, frame.encode());
        }
        for frame in peer {
            disk.log.append(Which::Peer, frame.at, frame.encode());
        }
        [Which::Own, Which::Peer].into_iter().for_each(|which| disk.log.sync(which));
        disk
    }
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

pub(super) struct Side {
    pub(super) driver: Driver,
    pub(super) disk: Disk,
    /// Why its connections were closed.
    pub(super) closed: Vec<&'static str>,
    /// What its checks found.
    pub(super) checked: Vec<Report>,
}

pub(super) fn reg(group: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(2 + group.index() as u64), primary: group, mode, settled: Term(0) }
}

/// Node a took the users of b over, under this value.
pub(super) fn taken() -> Reg {
    Reg { term: Term(5), primary: NodeIx::A, mode: Mode::Solo, ..reg(NodeIx::B, Mode::Solo) }
}

/// Each node leads its own users in Pair.
pub(super) fn start(me: NodeIx, boot: u64, mut disk: Disk) -> Side {
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
    Side { driver, disk, closed: Vec::new(), checked: Vec::new() }
}

impl Side {
    pub(super) fn serve(&mut self) {
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

    pub(super) fn wait(&mut self) {
        let regs = NodeIx::BOTH.map(|g| Some(reg(g, Mode::Pair)));
        let me = self.driver.cfg.engine.me;
        self.driver.set_view(View {
            regs,
            release: [Release::Nothing; 2],
            accept: NodeIx::BOTH.map(|g| g != me),
        });
    }

    pub(super) fn add(&mut self, name: &str) {
        let (user, home) = (jid(name), self.driver.cfg.engine.me);
        self.driver.turn(
            0,
            vec![Input::UserAdd { user, home, verifiers: Verifiers::default() }],
            &mut self.disk,
        );
    }

    pub(super) fn digest(&self) -> u64 {
        self.driver.engine().state().digest()
    }

    pub(super) fn users(&self) -> usize {
        self.driver.engine().state().users().count()
    }

    /// The disk goes on, and everything of the peer's is applied; whether anything happened.
    pub(super) fn run(&mut self) -> bool {
        let mut moved = self.write();
        if self.driver.has_unprocessed() {
            moved = true;
            self.driver.turn(0, Vec::new(), &mut self.disk);
        }
        self.driver.keep_store(&mut self.disk);
        moved
    }

    /// The disk goes on, and no turn is made; whether anything happened.
    pub(super) fn write(&mut self) -> bool {
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
        moved
    }
}

/// Lets both go on until nothing moves. Who ends a connection is connected again.
pub(super) fn settle(a: &mut Side, b: &mut Side) {
    settle_by(a, b, Side::run);
}

/// The same, where this is how a node goes on.
pub(super) fn settle_by(a: &mut Side, b: &mut Side, go_on: impl Fn(&mut Side) -> bool) {
    for _ in 0..2_000 {
        let mut moved = false;
        for turn in 0..2 {
            let (one, other) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            moved |= go_on(one);
            let mut again = [false; 2];
            for what in one.driver.take() {
                match what {
                    Do::Send(Link::Out, msg) => _ = other.driver.on_in(msg, &mut other.disk),
                    Do::Send(Link::In, msg) => other.driver.on_out(msg, &mut other.disk),
                    Do::Close(link, why) => {
                        one.closed.push(why.text());
                        again[usize::from(link == Link::In)] = true;
                    }
                    Do::Checked(report) => one.checked.push(report),
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
pub(super) fn pair(writers: &[usize]) -> [Side; 2] {
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

/// A leads its own group in this mode.
pub(super) fn lead(a: &mut Side, term: u64, mode: Mode) {
    let own = Reg { term: Term(term), ..reg(NodeIx::A, mode) };
    let release = if mode == Mode::Solo { Release::Alone(0) } else { Release::Both };
    a.driver.set_view(View {
        regs: [own, reg(NodeIx::B, Mode::Pair)].map(Some),
        release: [release, Release::Nothing],
        accept: [false, true],
    });
    a.driver.turn(0, vec![Input::Lead { group: NodeIx::A, reg: own, late: false }], &mut a.disk);
}

/// Both connections between them end.
pub(super) fn part(a: &mut Side, b: &mut Side) {
    for side in [a, b] {
        side.driver.disconnected();
        side.driver.peer_gone();
    }
}

/// B starts again with this disk, and the nodes meet.
pub(super) fn meet(a: &mut Side, disk: Disk) -> Side {
    let mut b = start(NodeIx::B, 3, disk);
    b.wait();
    a.driver.peer_gone();
    a.driver.connected();
    b.driver.connected();
    settle(a, &mut b);
    b
}
