//! A node by itself: what it does at once, without a pair around it.

use bytes::Bytes;
use presence_engine::engine::{self, Output};
use presence_engine::ids::{Conn, Mode, Position, SmId, Term};
use session_mover::log::{LogStore, MemoryLog, Storage, Which};
use session_mover::msg::{Ack, Hello, Msg, VERSIONS};
use session_mover::runs::Runs;
use session_mover::store::{Batch, Store};

mod gone;
mod joins;
mod lags;
mod lies;
mod runs;
mod stuck;

use super::look::LOOK_TICKS;
use super::*;
use crate::beacon::Datagram;
use crate::evidence::{Gone, Probe};
use crate::view;
use crate::witness::client::Said;
use crate::witness::words::{Ask, Verdict};

/// A disk in memory.
#[derive(Default)]
pub(super) struct Memory {
    log: MemoryLog,
    /// What was made durable, in order: a register copy, or (`None`) what was received.
    done: Vec<Option<Reg>>,
    /// How much of that there was when the peer was first said to be gone.
    gone: Option<usize>,
    crashes: Crashes,
    pub(super) failovers: Failovers,
}

impl LogStore for Memory {
    fn append(&mut self, which: Which, at: Position, frame: Bytes) {
        self.log.append(which, at, frame);
    }
    fn read(&mut self, which: Which, from: u64, max_bytes: usize) -> Vec<Bytes> {
        self.log.read(which, from, max_bytes)
    }
    fn replace_tail(&mut self, which: Which, keep: u64, frames: Vec<Bytes>) {
        self.log.replace_tail(which, keep, frames);
    }
    fn sync(&mut self, _: Which) {
        self.done.push(None);
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
        self.log.begin_at(which, next);
    }
}

impl Storage for Memory {
    fn store(&mut self) -> &mut dyn Store {
        self.log.store()
    }
    fn checkpoint(&mut self, _: Batch) -> bool {
        true
    }
    fn note_turn(&mut self, _: &[engine::Print]) {}
}

impl Disk for Memory {
    fn persist(&mut self, _group: Group, copy: RegisterCopy) {
        self.done.push(Some(copy.reg));
    }
    fn keep_crashes(&mut self, crashes: &Crashes) {
        self.crashes = crashes.clone();
    }
    fn keep_failovers(&mut self, failovers: &Failovers) {
        self.failovers = failovers.clone();
    }
    fn peer_is_gone(&mut self) {
        self.gone.get_or_insert(self.done.len());
    }
}

const PEER_BOOT: u64 = 9;
const PAIR: [Option<RegisterCopy>; 2] = [Some(copy(pair(NodeIx::A))), Some(copy(pair(NodeIx::B)))];

pub(super) const fn copy(reg: Reg) -> RegisterCopy {
    RegisterCopy { reg, late: false, held: false, cause: view::Cause::Nothing, lost: None }
}

pub(super) const fn pair(primary: NodeIx) -> Reg {
    Reg { term: Term(4), primary, mode: Mode::Pair, settled: Term(0) }
}

pub(super) fn config(available: bool) -> Config {
    let engine = engine::Config {
        me: NodeIx::B,
        peer: None,
        domain: "d".into(),
        resume_ms: 300_000,
        relogin_s: (0, 1),
        limits: engine::Limits::DEFAULT,
        tokens: None,
        trap: None,
    };
    Config {
        names: ["a".into(), "b".into()],
        driver: driver::Config {
            engine,
            versions: VERSIONS,
            cluster: 1,
            boot: 7,
            ack_synced: false,
            checkpoint_frames: 10,
        },
        single: false,
        register: RegisterKind::Consent(Consent { available }),
        lease: 12,
        beacon_ticks: 4,
        evidence: evidence::Config { silence: 240, quick: 40, init: 480, callers: 0 },
        secret: Secret::new(b"s"),
        config_hash: 1,
        nonce_key: Secret::new(b"n"),
        park_wait: 40,
        automatics: Automatics::default(),
    }
}

/// Node b, which led its own group in Pair and backed the other when it stopped, and has heard its peer once since.
pub(super) fn started(available: bool) -> (Node, Memory) {
    let mut disk = Memory::default();
    let mut node = Node::start(config(available), PAIR, 1, &mut disk);
    hear(&mut node, &mut disk, 1);
    node.take();
    disk.done.clear();
    disk.gone = None;
    (node, disk)
}

/// A beacon of the peer, which leads its own group, holds everything, and backs the other.
pub(super) fn hear(node: &mut Node, disk: &mut Memory, number: u32) {
    hear_of(
        node,
        disk,
        number,
        [(pair(NodeIx::A), safety::Role::Primary), (pair(NodeIx::B), safety::Role::Backup)],
    );
}

/// A beacon of the peer with these registers and roles, which acknowledges all that it can have heard.
pub(super) fn hear_of(node: &mut Node, disk: &mut Memory, number: u32, groups: [(Reg, safety::Role); 2]) {
    let group = |(reg, role)| safety::Beacon {
        reg,
        role,
        ack: (role == safety::Role::Backup).then_some(node.beacon_number),
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
        told: Default::default(),
        groups: groups.map(group),
        program: Default::default(),
    };
    node.handle(0, In::Datagram(datagram.encode(&Secret::new(b"s"))), disk);
}

/// Both connections of the link are up; both logs are empty on both sides.
pub(super) fn link_up(node: &mut Node, disk: &mut Memory) {
    for link in [Link::Out, Link::In] {
        let hello = Hello {
            versions: VERSIONS,
            cluster: 1,
            node: NodeIx::A,
            boot: PEER_BOOT,
            regs: PAIR.map(|copy| copy.map(|copy| copy.reg)),
            runs: Runs::default(),
        };
        node.handle(0, In::LinkUp(link), disk);
        node.handle(0, In::LinkMsg(link, Msg::Hello(hello)), disk);
    }
}

/// An account is added; its record is on the own disk. Whether that was let go.
pub(super) fn add(node: &mut Node, disk: &mut Memory, name: &str) -> bool {
    let user = BareJid::parse(name).unwrap();
    let verifiers = presence_engine::record::Verifiers::default();
    node.handle(0, In::Client(Input::UserAdd { user, home: NodeIx::B, verifiers }), disk);
    node.step(0, disk);
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), disk);
    is_out(node, name)
}

fn is_out(node: &mut Node, name: &str) -> bool {
    node.take().iter().any(|out| matches!(out, Out::Account(user, _) if user.to_string() == name))
}

/// The peer has everything of our log.
pub(super) fn acknowledge(node: &mut Node, disk: &mut Memory) {
    let end = node.driver().own_end();
    node.handle(0, In::LinkMsg(Link::Out, Msg::Ack(Ack { at: end, ..Ack::default() })), disk);
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
    node.handle(0, In::Op(1, Op::Force { to: Force::Active, confirmed }), disk);
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
    // What is on two disks before it counts is on this one, up to its end: the peer may have gone on alone since.
    for ack_synced in [false, true] {
        let mut config = config(false);
        config.driver.ack_synced = ack_synced;
        let mut node = Node::start(config, PAIR, 1, &mut disk);
        let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else { panic!("never heard") };
        assert!(missing.len() == 2 && missing[0].contains("restarted"), "{missing:?}");
        assert!(missing[1].contains("if a served the users of b meanwhile"), "{missing:?}");
    }
    let alone = [Some(copy(Reg { mode: Mode::Solo, ..pair(NodeIx::A) })), PAIR[1]];
    let mut node = Node::start(config(false), alone, 1, &mut disk);
    let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else { panic!("never heard") };
    assert!(missing[0].contains("a led the users of a alone (term 4)"), "{missing:?}");
    let mut node = Node::start(Config { single: true, ..config(false) }, [None; 2], 1, &mut disk);
    assert!(matches!(force(&mut node, &mut disk, true), Reply::Refused(_)));
}

/// R1: back to Pair only when the peer holds everything that was acknowledged alone; nothing more is, from the proposal
/// on.
#[test]
fn a_pair_is_formed_only_of_what_the_peer_holds() {
    let mut disk = Memory::default();
    let solo = Reg { mode: Mode::Solo, ..pair(NodeIx::B) };
    let mut node = Node::start(config(true), [PAIR[0], Some(copy(solo))], 1, &mut disk);
    let peer = [(pair(NodeIx::A), safety::Role::Primary), (solo, safety::Role::Backup)];
    hear_of(&mut node, &mut disk, 1, peer);
    link_up(&mut node, &mut disk);
    assert_eq!(node.core(NodeIx::B).release(), safety::Release::Alone);
    assert!(add(&mut node, &mut disk, "u1@d"), "led alone");
    hear_of(&mut node, &mut disk, 2, peer);
    assert!(!add(&mut node, &mut disk, "u2@d"), "acknowledged alone after the proposal");
    assert_eq!(node.core(NodeIx::B).reg().mode, Mode::Solo, "the peer has nothing yet");
    acknowledge(&mut node, &mut disk);
    assert_eq!(node.core(NodeIx::B).reg().mode, Mode::Pair);
    assert!(is_out(&mut node, "u2@d"), "safe in Pair");
}

/// D8: what waits when a role is lost never leaves, also when the role comes back; streams are closed.
#[test]
fn what_waited_when_a_role_was_lost_never_leaves() {
    let mut disk = Memory::default();
    let mut node = Node::start(config(true), PAIR, 1, &mut disk);
    hear(&mut node, &mut disk, 1);
    link_up(&mut node, &mut disk);
    hear(&mut node, &mut disk, 2);
    node.step(0, &mut disk);
    assert_eq!(node.core(NodeIx::B).release(), safety::Release::Both);
    assert!(!add(&mut node, &mut disk, "u1@d"), "the peer does not have it");
    let conn = Conn { node: NodeIx::B, number: 1 };
    let user = BareJid::parse("u1@d").unwrap();
    node.handle(
        0,
        In::Client(Input::Opened { conn, user, salt: Bytes::new(), entropy: [1; 16], token: None }),
        &mut disk,
    );
    node.step(0, &mut disk);
    node.take();
    // The peer has taken the group over.
    let taken = Reg { term: Term(6), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
    hear_of(
        &mut node,
        &mut disk,
        3,
        [(pair(NodeIx::A), safety::Role::Primary), (taken, safety::Role::Primary)],
    );
    let closed = node.take().iter().any(|out| matches!(out, Out::Close(of, ..) if *of == conn));
    assert!(closed && node.core(NodeIx::B).role() == safety::Role::Backup);
    // It gives it back, and has all of our log.
    let given = Reg { term: Term(8), primary: NodeIx::B, mode: Mode::Pair, settled: Term(0) };
    let back = [(pair(NodeIx::A), safety::Role::Primary), (given, safety::Role::Backup)];
    hear_of(&mut node, &mut disk, 4, [back[0], (Reg { mode: Mode::Pair, ..taken }, safety::Role::Primary)]);
    hear_of(&mut node, &mut disk, 5, back);
    let runs = Runs::default();
    node.handle(0, In::LinkUp(Link::Out), &mut disk);
    let hello = Hello {
        versions: VERSIONS,
        cluster: 1,
        node: NodeIx::A,
        boot: PEER_BOOT,
        regs: PAIR.map(|copy| copy.map(|copy| copy.reg)),
        runs,
    };
    node.handle(0, In::LinkMsg(Link::Out, Msg::Hello(hello)), &mut disk);
    node.step(0, &mut disk);
    assert_eq!(node.core(NodeIx::B).release(), safety::Release::Both);
    node.take();
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), &mut disk);
    acknowledge(&mut node, &mut disk);
    assert!(!is_out(&mut node, "u1@d"), "it waited for a role that was lost");
}

/// D8: what clients said before this node heard that it had lost a role belongs to the time before, by its term too. Else
/// it would not look void to either node: the one would ship it for ever, and the other refuse it.
#[test]
fn what_came_before_a_role_was_lost_bears_the_term_of_that_time() {
    let mut disk = Memory::default();
    let mut node = Node::start(config(true), PAIR, 1, &mut disk);
    hear(&mut node, &mut disk, 1);
    link_up(&mut node, &mut disk);
    hear(&mut node, &mut disk, 2);
    node.step(0, &mut disk);
    let before = node.driver().own_end().seq;
    // It stood still. A client's words and the peer's takeover came meanwhile, and are found at once.
    let user = BareJid::parse("u1@d").unwrap();
    let verifiers = presence_engine::record::Verifiers::default();
    node.handle(0, In::Client(Input::UserAdd { user, home: NodeIx::B, verifiers }), &mut disk);
    let taken = Reg { term: Term(6), primary: NodeIx::A, mode: Mode::Solo, settled: Term(0) };
    let peer = [(pair(NodeIx::A), safety::Role::Primary), (taken, safety::Role::Primary)];
    hear_of(&mut node, &mut disk, 3, peer);
    node.step(0, &mut disk);
    assert_eq!(node.core(NodeIx::B).role(), safety::Role::Backup);
    let frames = disk.log.read(Which::Own, before + 1, usize::MAX);
    let frames = frames.iter().map(|bytes| session_mover::frame::Frame::decode(bytes).unwrap());
    let of_group: Vec<Term> = frames.filter(|f| f.groups & 2 != 0).map(|f| f.terms[1]).collect();
    assert!(!of_group.is_empty() && of_group.iter().all(|term| *term == Term(4)), "{of_group:?}");
}

#[test]
fn crashes_that_the_peer_tells_of_are_kept_and_told_back() {
    let (mut node, mut disk) = started(true);
    let crash = |run: u64| Crash { run, at_ms: run, prints: vec![5] };
    let mut own = Crashes::default();
    own.add(crash(1));
    node.remember_crashes(own.clone());
    let mut of_peer = own.clone();
    of_peer.add(crash(2));
    let mut bytes = vec![CRASHES];
    bytes.extend(postcard::to_stdvec(&of_peer).unwrap());
    for garbage in [&bytes[..bytes.len() - 1], &[CRASHES, 255, 255, 255, 255]] {
        node.control(&Bytes::copy_from_slice(garbage), &mut disk);
        assert_eq!(disk.crashes, Crashes::default());
    }
    node.control(&bytes.clone().into(), &mut disk);
    assert_eq!(disk.crashes, of_peer);
    node.take();
    node.tell_crashes();
    assert_eq!(node.take(), [Out::Link(Link::Out, Msg::Control(bytes.into()))]);
}

/// R6: who lost its disk has nothing to lead with, however long the peer is silent. Only the operator may decide otherwise.
#[test]
fn a_node_without_its_state_does_not_go_on_alone() {
    for lost in [false, true] {
        let mut disk = Memory::default();
        if lost {
            disk.log.begin_at(Which::Own, 5);
        }
        let mut node = Node::start(config(true), PAIR, 1, &mut disk);
        for _ in 0..600 {
            node.handle(0, In::Ticks(1), &mut disk);
        }
        let alone = NodeIx::BOTH.iter().any(|g| node.core(*g).release() == safety::Release::Alone);
        assert_eq!(alone, !lost, "the initialization time-out");
        // It has met the peer again, which dies before it has sent anything.
        if lost {
            disk.log.begin_at(Which::Own, 5);
        }
        let mut node = Node::start(config(true), PAIR, 1, &mut disk);
        hear(&mut node, &mut disk, 1);
        for _ in 0..600 {
            node.handle(0, In::Ticks(1), &mut disk);
        }
        let alone = NodeIx::BOTH.iter().any(|g| node.core(*g).release() == safety::Release::Alone);
        assert_eq!(alone, !lost, "the peer is gone");
        if lost {
            let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else {
                panic!("it is asked first")
            };
            assert!(missing.iter().all(|m| m.contains("lost its disk")) && missing.len() == 2, "{missing:?}");
        }
    }
}

fn gives_up(node: &mut Node) -> bool {
    let outs = node.take();
    let goodbye =
        |out: &Out| matches!(out, Out::Link(Link::Out, Msg::Control(text)) if text.first() == Some(&GOODBYE));
    let at = |what: &dyn Fn(&Out) -> bool| outs.iter().position(what);
    let (bye, end) = (at(&goodbye), at(&|out| matches!(out, Out::GiveUp(_))));
    assert!(bye < end || (bye, end) == (None, None), "the peer hears of it first");
    end.is_some()
}

/// Ticks with an own log that is never durable; how many until the node gives up, at most `most`.
fn ticks_until_it_gives_up(node: &mut Node, disk: &mut Memory, most: u32) -> Option<u32> {
    add_without_disk(node, disk);
    let heard = node.last_number;
    (1..=most).find(|n| {
        hear(node, disk, heard + n);
        node.handle(0, In::Ticks(1), disk);
        gives_up(node)
    })
}

fn add_without_disk(node: &mut Node, disk: &mut Memory) {
    let user = BareJid::parse(&format!("u{}@d", node.driver().own_end().seq)).unwrap();
    let verifiers = presence_engine::record::Verifiers::default();
    node.handle(0, In::Client(Input::UserAdd { user, home: NodeIx::B, verifiers }), disk);
    node.step(0, disk);
    assert!(node.driver().own_end().seq > node.driver().own_synced());
    node.take();
}

#[test]
fn a_disk_that_does_not_answer_is_told_and_then_the_peer_goes_on() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    acknowledge(&mut node, &mut disk);
    assert_eq!(ticks_until_it_gives_up(&mut node, &mut disk, 100), Some(20));
    assert!(node.snapshot().alarms.iter().any(|alarm| alarm.contains("has not answered for 5 s")));
}

#[test]
fn a_disk_that_answers_slowly_keeps_its_node() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    acknowledge(&mut node, &mut disk);
    for round in 0..5 {
        assert_eq!(ticks_until_it_gives_up(&mut node, &mut disk, 19), None, "round {round}");
        let end = node.driver().own_end();
        node.handle(0, In::Stored(Which::Own, end, true), &mut disk);
        node.handle(0, In::Ticks(1), &mut disk);
        node.take();
        assert!(node.snapshot().alarms.iter().all(|alarm| !alarm.contains("disk")));
    }
}

#[test]
fn a_node_that_nobody_can_replace_does_not_give_up() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    acknowledge(&mut node, &mut disk);
    node.handle(0, In::LinkDown(Link::Out, false), &mut disk);
    node.take();
    assert_eq!(ticks_until_it_gives_up(&mut node, &mut disk, 100), None);
}

#[test]
fn a_node_that_nobody_is_to_replace_waits_for_its_disk_until_somebody_may() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    acknowledge(&mut node, &mut disk);
    node.automatics(Automatics { disabled: true, ..node.cfg.automatics });
    assert_eq!(ticks_until_it_gives_up(&mut node, &mut disk, 30), None);
    let waits = |alarm: &String| alarm.contains("a would not serve in its place");
    assert!(node.snapshot().alarms.iter().any(waits), "{:?}", node.snapshot().alarms);
    node.automatics(Automatics { disabled: false, ..node.cfg.automatics });
    assert!(!node.snapshot().alarms.iter().any(waits), "{:?}", node.snapshot().alarms);
    assert_eq!(ticks_until_it_gives_up(&mut node, &mut disk, 30), Some(1));
}

/// R6, as the operator sees it: both were killed, and the one that was started again serves its own users. It does not say
/// that it looks for the other, but what the operator can do.
#[test]
fn who_serves_alone_after_a_start_says_that_the_peers_users_wait() {
    let mut disk = Memory::default();
    let mut node = Node::start(config(true), PAIR, 1, &mut disk);
    assert_eq!(node.snapshot().row.0, 101, "it looks for its peer");
    for _ in 0..600 {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    let (own, other) = (node.core(NodeIx::B), node.core(NodeIx::A));
    assert_eq!((own.release(), other.release()), (safety::Release::Alone, safety::Release::Nothing));
    let shown = node.snapshot();
    assert_eq!(shown.row.0, 105, "{shown:?}");
    assert_eq!(shown.states[0], (view::State::Down, view::Reason::Unknown));
}

fn with_witness() -> (Node, Memory) {
    let mut disk = Memory::default();
    let config = Config { register: RegisterKind::Witness(safety::Witness), ..config(true) };
    let mut node = Node::start(config, PAIR, 1, &mut disk);
    hear(&mut node, &mut disk, 1);
    node.take();
    (node, disk)
}

fn asked(node: &mut Node) -> Vec<Ask> {
    let asked = node.take().into_iter().filter_map(|out| match out {
        Out::Witness(ask @ Ask::Cas { .. }) => Some(ask),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_request_that_cannot_go_out_is_taken_back_and_one_that_may_have_is_not() {
    let (mut node, mut disk) = with_witness();
    node.peer_gone(Gone::Dead, &mut disk);
    assert_eq!(asked(&mut node), []);
    assert!(!node.cores[0].asking(), "nobody is asked, so nobody waits: the backup acknowledges again");
    node.handle(0, In::Witness(Said::Here([None, None])), &mut disk);
    node.peer_gone(Gone::Dead, &mut disk);
    let [Ask::Cas { request, .. }] = asked(&mut node)[..] else { panic!("the group of a, once") };
    node.handle(0, In::Witness(Said::Away("cut".into())), &mut disk);
    node.handle(0, In::Ticks(1), &mut disk);
    assert!(node.cores[0].asking(), "it may have been granted (R4)");
    node.handle(0, In::Witness(Said::Here([None, None])), &mut disk);
    node.handle(0, In::Ticks(1), &mut disk);
    assert!(matches!(asked(&mut node)[..], [Ask::Cas { request: again, .. }] if again == request));
    node.handle(0, In::Witness(Said::Answer(NodeIx::A, request, Verdict::Won)), &mut disk);
    assert_eq!(node.cores[0].role(), safety::Role::Primary);
    let unprotected = Out::Event(Event::Unprotected(NodeIx::A));
    assert!(node.take().contains(&unprotected));
}

#[test]
fn the_operators_word_counts_in_the_place_of_a_witness_that_is_away() {
    let (mut node, mut disk) = with_witness();
    for _ in 0..20 {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    node.take();
    let Reply::MayMiss(missing) = force(&mut node, &mut disk, false) else { panic!("it is told first") };
    assert!(missing.iter().any(|line| line.contains("the witness does not say who leads")), "{missing:?}");
    force(&mut node, &mut disk, true);
    assert!(node.cores.iter().all(|core| core.role() == safety::Role::Primary));
    assert!(node.late[0], "a may have been granted what b does not know of (D6)");
}
