//! A node by itself: what it does at once, without a pair around it.

use presence_engine::engine;
use presence_engine::ids::{SmId, Term};
use session_mover::log::MemoryLog;

use super::*;
use crate::safety::Consent;

/// A disk in memory.
#[derive(Default)]
struct Memory {
    log: MemoryLog,
    /// What was made durable, in order: a register copy, or (`None`) what was received.
    done: Vec<Option<Reg>>,
}

impl LogStore for Memory {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }
    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        self.log.read(which, from, max_bytes)
    }
    fn truncate(&mut self, which: Which, keep: u64) {
        self.log.truncate(which, keep);
    }
    fn sync_received(&mut self) {
        self.done.push(None);
    }
}

impl Disk for Memory {
    fn persist(&mut self, _group: Group, reg: Reg) {
        self.done.push(Some(reg));
    }
}

const PEER_BOOT: u64 = 9;
const PAIR: [Option<Reg>; 2] = [Some(pair(NodeIx::A)), Some(pair(NodeIx::B))];

const fn pair(primary: NodeIx) -> Reg {
    Reg { term: Term(4), primary, mode: Mode::Pair, settled: Term(0) }
}

fn config(available: bool) -> Config {
    let engine = engine::Config {
        me: NodeIx::B,
        peer: None,
        domain: "d".into(),
        resume_ms: 300_000,
        relogin_s: (0, 1),
    };
    Config {
        names: ["a".into(), "b".into()],
        driver: driver::Config { engine, cluster: 1, boot: 7, ack_synced: false },
        single: false,
        register: RegisterKind::Consent(Consent { available }),
        lease: 12,
        beacon_ticks: 4,
        evidence: evidence::Config { silence: 240, quick: 40, init: 480 },
        secret: Secret::new(b"s"),
        config_hash: 1,
        nonce_key: Secret::new(b"n"),
        park_wait: 40,
    }
}

/// Node b, which led its own group in Pair and backed the other when it stopped, and has heard its peer once since.
fn started(available: bool) -> (Node, Memory) {
    let mut disk = Memory::default();
    let mut node = Node::start(config(available), PAIR, 1, &mut disk);
    hear(&mut node, &mut disk, 1);
    node.take();
    disk.done.clear();
    (node, disk)
}

/// A beacon of the peer, which leads its own group, holds everything, and backs the other.
fn hear(node: &mut Node, disk: &mut Memory, number: u32) {
    let group = |g: usize, role| safety::Beacon {
        reg: PAIR[g].unwrap(),
        role,
        ack: None,
        holds: role == safety::Role::Primary,
        alone: false,
        took_other: false,
        stopped: false,
    };
    let datagram = Datagram {
        node: 0,
        boot: PEER_BOOT,
        to_boot: 7,
        number,
        config: 1,
        activity: Default::default(),
        turn: Turn::Confirmation,
        heard: 0,
        lease: [0; 2],
        groups: [group(0, safety::Role::Primary), group(1, safety::Role::Backup)],
    };
    node.handle(0, In::Datagram(datagram.encode(&Secret::new(b"s"))), disk);
}

fn probes(node: &mut Node) -> usize {
    node.take().iter().filter(|out| **out == Out::Probe).count()
}

#[test]
fn a_client_that_lost_its_main_stream_has_the_peer_looked_at_once_a_second() {
    let (mut node, mut disk) = started(true);
    node.released(Output::MainLost(SmId([1; 16])));
    assert_eq!(probes(&mut node), 1);
    node.released(Output::MainLost(SmId([2; 16])));
    node.handle(0, In::Probed([Probe { life_refused: true, beacon_refused: true }; 2]), &mut disk);
    node.released(Output::MainLost(SmId([3; 16])));
    assert_eq!(probes(&mut node), 0, "one look a second");
    assert_eq!(node.evidence.gone(), None, "nothing ended the link, so refusals prove nothing");
    for _ in 0..LOOK_TICKS {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    node.take();
    node.released(Output::MainLost(SmId([4; 16])));
    assert_eq!(probes(&mut node), 1);
}

fn force(node: &mut Node, disk: &mut Memory, confirmed: bool) -> Reply {
    node.handle(0, In::Op(1, Op::ForceActive { confirmed }), disk);
    let replies = node.take().into_iter().filter_map(|out| match out {
        Out::Reply(1, reply) => Some(reply),
        _ => None,
    });
    replies.last().unwrap()
}

#[test]
fn force_active_waits_for_the_lease_says_what_may_be_missing_and_syncs_first() {
    let (mut node, mut disk) = started(false);
    let Reply::Refused(refused) = force(&mut node, &mut disk, true) else { panic!("the peer is heard") };
    assert!(refused.error.contains("node a is heard"), "{refused:?}");
    for _ in 0..12 {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    assert_eq!(
        force(&mut node, &mut disk, false),
        Reply::MayMiss(vec![]),
        "it was told that it holds everything"
    );
    assert!(disk.done.is_empty(), "nothing is done unconfirmed");
    assert_eq!(force(&mut node, &mut disk, true), Reply::Forced(vec![]));
    assert!(NodeIx::BOTH.iter().all(|g| node.core(*g).release() == safety::Release::Alone));
    let first = disk.done.iter().position(Option::is_some);
    assert!(disk.done.iter().position(Option::is_none) < first, "R8: {:?}", disk.done);
    let Reply::Refused(again) = force(&mut node, &mut disk, true) else { panic!("it leads") };
    assert!(again.error.contains("leads all users"), "{again:?}");
}

#[test]
fn force_active_names_what_a_restart_and_a_peer_alone_may_have_taken() {
    let mut disk = Memory::default();
    let mut node = Node::start(config(false), PAIR, 1, &mut disk);
    let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else { panic!("never heard") };
    assert!(missing.len() == 1 && missing[0].contains("restarted"), "{missing:?}");
    let alone = [PAIR[0].map(|reg| Reg { mode: Mode::Solo, ..reg }), PAIR[1]];
    let mut node = Node::start(config(false), alone, 1, &mut disk);
    let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else { panic!("never heard") };
    assert!(missing.len() == 1 && missing[0].contains("a led the users of a alone (term 4)"), "{missing:?}");
    let mut node = Node::start(Config { single: true, ..config(false) }, [None; 2], 1, &mut disk);
    assert!(matches!(force(&mut node, &mut disk, true), Reply::Refused(_)));
}
