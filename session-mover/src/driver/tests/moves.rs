//! Moves of users in a tail that is set aside: none of them holds, and what stands behind them is judged by where the users
//! stay (D7).

use presence_engine::ids::{Conn, Epoch, Mode, Reg};
use presence_engine::record::{Forward, Verifiers};
use xmpp_core::jid::Jid;
use xmpp_core::stanza::Stanza;

use super::*;
use crate::msg::Hello;

const ROMEO: SmId = SmId([1; 16]);
pub(super) const JULIET: SmId = SmId([2; 16]);
pub(super) const NURSE: SmId = SmId([3; 16]);

fn reg(term: u64, primary: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(term), primary, mode, settled: Term(0) }
}

pub(super) fn lead(group: NodeIx, term: u64, mode: Mode) -> Record {
    Record::Lead { group, reg: reg(term, NodeIx::A, mode), at_ms: 1, late: false }
}

pub(super) fn said(by: SmId, number: u32, to: SmId) -> Record {
    let id = StanzaId { session: by, number };
    Record::SmIn { session: by, number, effects: vec![Effect::Out { to, id, keep: true, stanza: stanza() }] }
}

fn stanza() -> Bytes {
    Bytes::from_static(
        b"<message xmlns='jabber:client' from='juliet@d/r' to='nurse@d/r' id='m'><body>x</body></message>",
    )
}

/// Node a, which led both groups; its users are at home.
fn people() -> Vec<Record> {
    let mut start = vec![lead(NodeIx::A, 4, Mode::Pair), lead(NodeIx::B, 4, Mode::Pair)];
    let people = [("romeo", NodeIx::A, ROMEO), ("juliet", NodeIx::B, JULIET), ("nurse", NodeIx::B, NURSE)];
    for (name, home, session) in people {
        let user = jid(name);
        start.push(Record::UserAdd { user: user.clone(), home, verifiers: Verifiers::default() });
        start.push(Record::Bind { session, user, resource: "r".into(), at_ms: 1, effects: Vec::new() });
        start.push(Record::Enable { session, resume_ms: 1_000 });
    }
    start
}

fn write(log: &mut MemoryLog, frames: Vec<(u8, u8, Vec<Record>)>) {
    for (seq, (groups, solo, records)) in (1..).zip(frames) {
        let frame = Frame { groups, solo, records, ..frame(seq, 0) };
        log.append(Which::Own, frame.at, frame.encode());
    }
    log.sync(Which::Own);
}

fn hand_over_of_romeo() -> Record {
    Record::HandOver {
        user: jid("romeo"),
        to: NodeIx::B,
        epoch: Epoch { term: 4, moves: 1 },
        applied_peer: Position::default(),
        counters: vec![(ROMEO, 0, 0)],
    }
}

/// What is left of the tail of node a, which led both groups and leads its own on, behind the frame of its start.
pub(super) fn left(tail: Vec<(u8, u8, Vec<Record>)>) -> Vec<(u8, Vec<Record>)> {
    let mut log = MemoryLog::default();
    write(&mut log, [(3, 0, people())].into_iter().chain(tail).collect());
    let mut driver = driver(NodeIx::A, 1, &mut log);
    driver.set_view(View {
        regs: [reg(8, NodeIx::A, Mode::Solo), reg(7, NodeIx::B, Mode::Solo)].map(Some),
        ..driver.view
    });
    let (instead, _) = driver.merged(1, &mut log);
    let decoded = instead.iter().map(|bytes| Frame::decode(bytes).unwrap());
    decoded.map(|frame| (frame.groups, frame.records)).collect()
}

#[test]
fn users_that_were_taken_into_the_own_group_in_it_are_the_peers_all_the_same() {
    let tail = vec![
        (3, 0, vec![Record::Absorb { from: NodeIx::B, into: NodeIx::A }]),
        (1, 0, vec![said(JULIET, 1, NURSE), Record::Detached { session: JULIET, at_ms: 5 }]),
        // Alone with its own group, in which they were then: so they were told that it is safe.
        (1, 1, vec![lead(NodeIx::A, 6, Mode::Solo)]),
    ];
    let to = Jid::parse("nurse@d/r").unwrap();
    let id = StanzaId { session: JULIET, number: 1 };
    let effects = vec![Effect::Offer(Forward { to, id, stanza: stanza() })];
    let left = left(tail);
    assert_eq!(left[0], (0, vec![Record::Kept { stanza: id, at_ms: 0, effects }]), "{left:?}");
    let sessions = left.iter().flat_map(|(_, records)| records);
    assert_eq!(sessions.filter(|r| matches!(r, Record::SmIn { .. } | Record::Detached { .. })).count(), 0);
}

#[test]
fn a_user_that_was_handed_over_in_it_stays_and_with_it_what_it_said() {
    let left = left(vec![(3, 0, vec![hand_over_of_romeo()]), (2, 3, vec![said(ROMEO, 1, ROMEO)])]);
    assert_eq!(left, [(1, vec![said(ROMEO, 1, ROMEO)])]);
}

/// Node a handed romeo over, was cut off, and took the other group over; the peer took that of a over.
#[test]
fn who_was_handed_over_unheard_is_served_by_nobody_until_the_logs_are_compared() {
    let mut log = MemoryLog::default();
    let lost = lead(NodeIx::B, 8, Mode::Solo);
    write(&mut log, vec![(3, 0, people()), (3, 0, vec![hand_over_of_romeo()]), (2, 2, vec![lost])]);
    let mut driver = driver(NodeIx::A, 1, &mut log);
    let other = reg(8, NodeIx::A, Mode::Solo);
    let regs = [reg(7, NodeIx::B, Mode::Solo), other].map(Some);
    let release = [Release::Nothing, Release::Alone(3)];
    driver.set_view(View { regs, release, ..driver.view });
    let conn = Conn { node: NodeIx::A, number: 1 };
    let (user, salt, entropy) = (jid("romeo"), Bytes::new(), [9; 16]);
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='01010101010101010101010101010101' h='0'/>";
    let inputs = vec![
        Input::Lead { group: NodeIx::B, reg: other, late: false },
        Input::Opened { conn, user, salt, entropy, token: None },
        Input::Element { conn, stanza: Stanza::from_bytes(resume.into()).unwrap() },
    ];
    driver.turn(2, inputs, &mut log);
    assert!(driver.engine().state().session(ROMEO).is_some());
    assert!(!is_resumed(&mut log), "the peer may serve him");

    // The peer has all of it: the hand-over stands.
    driver.connected();
    let runs = driver.own.clone();
    driver.on_out(Msg::Hello(Hello { node: NodeIx::B, boot: 2, ..driver.hello(runs) }), &mut log);
    assert!(driver.ships());
    driver.turn(3, vec![Input::Tick], &mut log);
    assert!(is_resumed(&mut log));
}

fn is_resumed(log: &mut MemoryLog) -> bool {
    let frames = log.read(Which::Own, 1, usize::MAX);
    let mut records = frames.iter().flat_map(|bytes| Frame::decode(bytes).unwrap().records);
    records.any(|record| matches!(record, Record::Resumed { session: ROMEO, .. }))
}
