//! Node a lost an end of its log, b took over with it or went on alone with its own users, and a, back before it heard of that, went
//! on without it.

use presence_engine::ids::{Epoch, Mode, Reg};
use presence_engine::record::{Forward, Verifiers};
use presence_engine::state::Entry;
use xmpp_core::jid::Jid;

use super::sides::{Disk, Side, pair, settle, start};
use super::*;
use crate::driver::ahead::TOO_LONG;
use crate::driver::receive::{OLD_DISK, TOLD_UPON};

pub(super) const ROMEO: SmId = SmId([1; 16]);
const JULIET: SmId = SmId([2; 16]);
pub(super) const NURSE: SmId = SmId([3; 16]);
pub(super) const MERCUTIO: SmId = SmId([4; 16]);

/// Where the end stands that a lost: behind the frame that both have.
pub(super) const END: Position = Position { seq: 2, inc: 1 };

/// B leads romeo, who is at home at a, and a leads juliet and the nurse, who are at home at b.
const CROSSED: [Reg; 2] = [alone(7, NodeIx::B), alone(6, NodeIx::A)];

/// Each leads who is at home there, as it is settled where both led everybody alone.
pub(super) const AT_HOME: [Reg; 2] = [alone(8, NodeIx::A), alone(7, NodeIx::B)];

pub(super) const fn alone(term: u64, primary: NodeIx) -> Reg {
    Reg { term: Term(term), primary, mode: Mode::Solo, settled: Term(0) }
}

pub(super) fn lead(group: NodeIx, reg: Reg) -> Record {
    Record::Lead { group, reg, at_ms: 1, late: false }
}

pub(super) fn id(session: SmId, number: u32) -> StanzaId {
    StanzaId { session, number }
}

/// It has no id: nobody knows it by that.
pub(super) fn message(from: &str, to: &str) -> Bytes {
    let text =
        format!("<message xmlns='jabber:client' from='{from}@d/r' to='{to}@d/r'><body>x</body></message>");
    Bytes::from(text)
}

pub(super) fn said(session: SmId, number: u32, effect: Effect) -> Record {
    Record::SmIn { session, number, effects: vec![effect] }
}

pub(super) fn out(to: SmId, id: StanzaId, stanza: Bytes) -> Effect {
    Effect::Out { to, id, keep: true, stanza }
}

fn forward(to: &str, id: StanzaId, stanza: Bytes) -> Effect {
    Effect::Forward(Forward { to: Jid::parse(&format!("{to}@d/r")).unwrap(), id, stanza })
}

/// A led everybody.
pub(super) fn people() -> Vec<Record> {
    let pair = Reg { mode: Mode::Pair, ..alone(4, NodeIx::A) };
    let mut all: Vec<Record> = NodeIx::BOTH.map(|group| lead(group, pair)).into();
    let people = [
        ("romeo", NodeIx::A, ROMEO),
        ("juliet", NodeIx::B, JULIET),
        ("nurse", NodeIx::B, NURSE),
        ("mercutio", NodeIx::A, MERCUTIO),
    ];
    for (name, home, session) in people {
        let user = BareJid::parse(&format!("{name}@d")).unwrap();
        all.push(Record::UserAdd { user: user.clone(), home, verifiers: Verifiers::default() });
        all.push(Record::Bind { session, user, resource: "r".into(), at_ms: 1, effects: Vec::new() });
        all.push(Record::Enable { session, resume_ms: 300_000 });
    }
    all
}

/// What belongs to these groups, written by who led those alone.
pub(super) fn of(groups: u8, solo: u8, terms: [u64; 2], records: Vec<Record>) -> Frame {
    Frame { groups, solo, terms: terms.map(Term), records, ..frame(1, 0) }
}

pub(super) fn put(disk: &mut Disk, which: Which, inc: u64, frame: Frame) {
    let last = disk.log.frames(which).last().map(|bytes| Frame::check(bytes).unwrap());
    let prev = last.unwrap_or_default();
    let at = Position { seq: prev.seq + 1, inc };
    disk.log.append(which, at, Frame { at, prev, ..frame }.encode());
}

/// Behind what both have a's disk has `tail`. B's copy has `end` instead, and b wrote `upon` that.
pub(super) fn chain(end: Frame, tail: Vec<Frame>, upon: Vec<Frame>, regs: [Reg; 2]) -> [Side; 2] {
    led(disks(end, tail, upon), regs)
}

pub(super) fn disks(end: Frame, tail: Vec<Frame>, upon: Vec<Frame>) -> [Disk; 2] {
    let [mut mine, mut theirs] = [Disk::default(), Disk::default()];
    let common = of(3, 0, [4, 4], people());
    put(&mut mine, Which::Own, END.inc, common.clone());
    put(&mut theirs, Which::Peer, END.inc, common);
    put(&mut theirs, Which::Peer, END.inc, end);
    tail.into_iter().for_each(|frame| put(&mut mine, Which::Own, 2, frame));
    upon.into_iter().for_each(|frame| put(&mut theirs, Which::Own, 3, Frame { applied_peer: END, ..frame }));
    [mine, theirs]
}

/// Both start with what is on these disks.
pub(super) fn led([mut mine, mut theirs]: [Disk; 2], regs: [Reg; 2]) -> [Side; 2] {
    for disk in [&mut mine, &mut theirs] {
        [Which::Own, Which::Peer].into_iter().for_each(|which| disk.log.sync(which));
    }
    let mut sides = [start(NodeIx::A, 11, mine), start(NodeIx::B, 12, theirs)];
    sides.iter_mut().for_each(|side| serve(side, regs));
    sides
}

/// It leads alone what its register says.
pub(super) fn serve(side: &mut Side, regs: [Reg; 2]) {
    let me = side.driver.cfg.engine.me;
    let leads = |group: NodeIx| regs[group.index()].primary == me;
    let release = |group| if leads(group) { Release::Alone(0) } else { Release::Nothing };
    side.driver.set_view(View {
        regs: regs.map(Some),
        release: NodeIx::BOTH.map(release),
        accept: NodeIx::BOTH.map(|group| !leads(group)),
    });
    side.driver.compare_no_more();
    let mut inputs = vec![Input::PeerUp(true)];
    for group in NodeIx::BOTH.into_iter().filter(|group| leads(*group)) {
        inputs.push(Input::Lead { group, reg: regs[group.index()], late: false });
        inputs.push(Input::Serving { group, on: true });
    }
    side.driver.turn(9, inputs, &mut side.disk);
}

/// They meet, and whoever built its state anew serves again.
pub(super) fn meet(a: &mut Side, b: &mut Side, regs: [Reg; 2]) {
    a.driver.connected();
    b.driver.connected();
    settle(a, b);
    serve(a, regs);
    settle(a, b);
    assert!(a.driver.ships() && b.driver.ships(), "{:?} {:?}", a.closed, b.closed);
    assert_eq!(a.digest(), b.digest(), "{:?} {:?}", a.closed, b.closed);
    assert_eq!((a.driver.own_end(), b.driver.own_end()), (b.driver.peer_end(), a.driver.peer_end()));
}

/// What waits for a client, in order.
pub(super) fn queue(side: &Side, session: SmId) -> Vec<StanzaId> {
    let session = side.driver.engine().state().session(session).unwrap();
    let whose = |entry: &Entry| match entry {
        Entry::Stanza { id, .. } => Some(*id),
        Entry::Gap { .. } => None,
    };
    session.out.iter().filter_map(whose).collect()
}

pub(super) fn inbound(side: &Side, session: SmId) -> u32 {
    side.driver.engine().state().session(session).unwrap().inbound
}

pub(super) fn has_end(side: &Side) -> bool {
    side.driver.own.at(END.seq) == Some(END)
}

/// A leads juliet and the nurse alone: juliet says something to the nurse, and is told that it is safe.
fn juliet_says() -> Vec<Frame> {
    let said = said(JULIET, 1, out(NURSE, id(JULIET, 1), message("juliet", "nurse")));
    vec![of(2, 2, [4, 6], vec![lead(NodeIx::B, CROSSED[1])]), of(2, 2, [4, 6], vec![said])]
}

/// B leads romeo alone, who says something to juliet.
fn romeo_goes_on() -> Vec<Frame> {
    let said = said(ROMEO, 2, forward("juliet", id(ROMEO, 2), message("romeo", "juliet")));
    vec![of(1, 1, [7, 4], vec![lead(NodeIx::A, CROSSED[0])]), of(1, 1, [7, 4], vec![said])]
}

/// What romeo said to the nurse where a still led both, in one node.
fn end_of_both() -> Frame {
    of(3, 0, [4, 4], vec![said(ROMEO, 1, out(NURSE, id(ROMEO, 1), message("romeo", "nurse")))])
}

/// A leads everybody alone: the nurse says something to juliet, and romeo does.
pub(super) fn all_go_on() -> Vec<Frame> {
    let both = NodeIx::BOTH.map(|group| lead(group, alone(6, NodeIx::A)));
    let nurse = said(NURSE, 1, out(JULIET, id(NURSE, 1), message("nurse", "juliet")));
    let romeo = said(ROMEO, 2, forward("juliet", id(ROMEO, 2), message("romeo", "juliet")));
    vec![of(3, 3, [6, 6], [&both[..], &[nurse]].concat()), of(1, 1, [6, 6], vec![romeo])]
}

/// B leads juliet alone, who says something to the nurse.
pub(super) fn juliet_goes_on() -> Vec<Frame> {
    let said = said(JULIET, 2, out(NURSE, id(JULIET, 2), message("juliet", "nurse")));
    vec![of(2, 2, [7, 7], vec![lead(NodeIx::B, AT_HOME[1])]), of(2, 2, [7, 7], vec![said])]
}

/// Romeo says something to nobody.
fn end_of_romeo() -> Frame {
    of(1, 0, [4, 4], vec![Record::SmIn { session: ROMEO, number: 1, effects: Vec::new() }])
}

/// As [`meet`], where a's tail is [`all_go_on`]: what it says of juliet's group is void, and b takes what it is offered of that.
fn meet_at_home(a: &mut Side, b: &mut Side) {
    meet(a, b, AT_HOME);
    serve(b, AT_HOME);
    settle(a, b);
    assert_eq!(a.digest(), b.digest(), "{:?} {:?}", a.closed, b.closed);
    for side in [&*a, &*b] {
        assert_eq!(inbound(side, JULIET), 2, "what b told her");
        let mut queue = queue(side, JULIET);
        queue.sort();
        assert_eq!(queue, [id(ROMEO, 2), id(NURSE, 1)]);
    }
}

/// B had as many frames of a's log when it came to lead, and others: what a wrote in their place is no less void for its number,
/// and a knows b's lead already.
#[test]
fn a_void_frame_that_has_the_number_of_one_that_the_peer_had_is_cut_all_the_same() {
    let [mut mine, theirs] = disks(end_of_romeo(), all_go_on(), juliet_goes_on());
    for frame in juliet_goes_on() {
        put(&mut mine, Which::Peer, 3, Frame { applied_peer: END, ..frame });
    }
    let [mut a, mut b] = led([mine, theirs], AT_HOME);
    meet_at_home(&mut a, &mut b);
    assert!(!has_end(&a), "it says nothing of whom b leads");
    for side in [&a, &b] {
        assert_eq!(inbound(side, ROMEO), 2);
        assert_eq!(side.driver.engine().state().session(ROMEO).unwrap().uncertain, None);
        assert_eq!(queue(side, NURSE), [id(JULIET, 2)]);
    }
}

/// Juliet says something to the nurse where a led both.
fn end_of_juliet() -> Frame {
    of(2, 0, [4, 4], vec![said(JULIET, 1, out(NURSE, id(JULIET, 1), message("juliet", "nurse")))])
}

#[test]
fn what_the_peer_told_its_own_users_alone_rests_on_that_end_too() {
    let [mut a, mut b] = chain(end_of_juliet(), all_go_on(), juliet_goes_on(), AT_HOME);
    meet_at_home(&mut a, &mut b);
    assert!(has_end(&a));
    for side in [&a, &b] {
        assert_eq!(queue(side, NURSE), [id(JULIET, 1), id(JULIET, 2)]);
        assert_eq!(inbound(side, ROMEO), 2, "what a told him alone");
        assert_eq!(side.driver.engine().state().session(ROMEO).unwrap().uncertain, None);
    }
}

/// Romeo's numbers behind that end are others than those that he was given without it.
#[test]
fn an_end_that_speaks_of_the_peers_users_stands_though_it_speaks_of_our_own_too() {
    let [mut a, mut b] = chain(end_of_both(), all_go_on(), juliet_goes_on(), AT_HOME);
    meet_at_home(&mut a, &mut b);
    assert!(has_end(&a));
    for side in [&a, &b] {
        assert_eq!(queue(side, NURSE), [id(ROMEO, 1), id(JULIET, 2)]);
        assert_eq!(inbound(side, ROMEO), 1, "what he said behind that is offered");
        let state = side.driver.engine().state();
        let branch = state.session(ROMEO).unwrap().uncertain.as_ref().expect("another branch");
        let told = |term| branch.has(Epoch { term, moves: 0 });
        assert_eq!([told(4), told(6)], [true, false]);
    }
}

/// An older program asks for that without a look at it.
#[test]
fn what_clients_of_the_peer_were_told_something_upon_is_not_undone() {
    for (end, stays) in [(end_of_juliet(), true), (end_of_both(), true), (end_of_romeo(), false)] {
        let [a, mut b] = chain(end, all_go_on(), juliet_goes_on(), AT_HOME);
        let hello = a.driver.hello(a.driver.own.clone());
        b.driver.on_in(Msg::Hello(hello), &mut b.disk);
        b.driver.take();
        b.driver.on_in(Msg::Rewind(1), &mut b.disk);
        let refused = b.driver.take().contains(&Do::Close(Link::In, Why::Refused(TOLD_UPON)));
        assert_eq!((refused, b.driver.peer_end() == END), (stays, stays));
    }
}

#[test]
fn a_tail_of_other_users_stays_as_it_is_behind_the_end_that_the_peer_built_upon() {
    let end =
        of(1, 0, [4, 4], vec![said(ROMEO, 1, forward("nurse", id(ROMEO, 1), message("romeo", "nurse")))]);
    let [mut a, mut b] = chain(end, juliet_says(), romeo_goes_on(), CROSSED);
    meet(&mut a, &mut b, CROSSED);
    assert!(has_end(&a));
    for side in [&a, &b] {
        assert_eq!((inbound(side, ROMEO), inbound(side, JULIET)), (2, 1), "what both told their clients");
        assert_eq!(queue(side, NURSE), [id(JULIET, 1), id(ROMEO, 1)], "numbers that she was given hold");
        assert_eq!(queue(side, JULIET), [id(ROMEO, 2)]);
        assert_eq!(side.driver.engine().state().session(JULIET).unwrap().uncertain, None);
    }
}

#[test]
fn a_tail_of_users_whom_that_end_speaks_of_is_void_and_offered() {
    let [mut a, mut b] = chain(end_of_both(), juliet_says(), romeo_goes_on(), CROSSED);
    meet(&mut a, &mut b, CROSSED);
    offered(&a, &b);
}

/// All is there that any client was told is safe, and nobody goes on in a branch that does not.
fn offered(a: &Side, b: &Side) {
    assert!(has_end(a));
    for side in [a, b] {
        assert_eq!((inbound(side, ROMEO), inbound(side, JULIET)), (2, 0));
        assert_eq!(queue(side, NURSE), [id(ROMEO, 1), id(JULIET, 1)], "once each");
        assert_eq!(queue(side, JULIET), [id(ROMEO, 2)]);
        let state = side.driver.engine().state();
        assert_eq!(state.undone().count(), 0);
        for session in [JULIET, NURSE] {
            let branch = state.session(session).unwrap().uncertain.as_ref().expect("another branch");
            let told = |term| branch.has(Epoch { term, moves: 0 });
            assert_eq!([told(4), told(6)], [true, false], "who was here after that");
        }
        assert_eq!(state.session(ROMEO).unwrap().uncertain, None);
    }
}

/// All that a told alone is offered where b leads everybody; but not what the end has that a lost.
#[test]
fn what_the_sender_said_again_is_not_offered_where_that_end_has_it() {
    let regs = [alone(7, NodeIx::B), alone(9, NodeIx::B)];
    let to_nurse = || message("romeo", "nurse");
    let end = of(1, 0, [4, 4], vec![said(ROMEO, 1, forward("nurse", id(ROMEO, 1), to_nurse()))]);
    let both = NodeIx::BOTH.map(|group| lead(group, alone(6, NodeIx::A)));
    let tail = vec![
        of(3, 3, [6, 6], both.into()),
        of(3, 3, [6, 6], vec![said(ROMEO, 1, out(NURSE, id(ROMEO, 1), to_nurse()))]),
        of(3, 3, [6, 6], vec![said(ROMEO, 2, out(JULIET, id(ROMEO, 2), message("romeo", "juliet")))]),
    ];
    let forward = RecordId { log: NodeIx::A, at: END, index: 0 };
    let done = Record::Done { forward, effects: vec![out(NURSE, id(ROMEO, 1), to_nurse())] };
    let upon = vec![
        of(3, 3, [7, 9], vec![lead(NodeIx::A, regs[0]), lead(NodeIx::B, regs[1])]),
        of(2, 3, [7, 9], vec![done]),
    ];
    let [mut a, mut b] = chain(end, tail, upon, regs);
    meet(&mut a, &mut b, regs);
    assert!(has_end(&a));
    for side in [&a, &b] {
        assert_eq!(queue(side, NURSE), [id(ROMEO, 1)]);
        assert_eq!(queue(side, JULIET), [id(ROMEO, 2)]);
    }
}

/// A talks to b on the connection that it dialled, until this is so.
pub(super) fn until(a: &mut Side, b: &mut Side, done: impl Fn(&Side) -> bool) {
    a.driver.connected();
    for _ in 0..10 {
        for what in a.driver.take() {
            if let Do::Send(Link::Out, msg) = what {
                b.driver.on_in(msg, &mut b.disk);
            }
        }
        for what in b.driver.take() {
            if let Do::Send(Link::In, msg) = what {
                a.driver.on_out(msg, &mut a.disk);
                if done(a) {
                    return;
                }
            }
        }
    }
    panic!("it does not come to that");
}

#[test]
fn a_death_on_the_way_leaves_what_was_there_or_all_of_it() {
    let asked = |a: &Side| a.driver.outgoing.ahead.is_some();
    for late in [false, true] {
        let [mut a, mut b] = chain(end_of_both(), juliet_says(), romeo_goes_on(), CROSSED);
        until(&mut a, &mut b, |a| if late { has_end(a) } else { asked(a) });
        assert_eq!(has_end(&a), late);
        let Side { mut disk, .. } = a;
        disk.log.crash();
        b.driver.peer_gone();
        b.driver.disconnected();
        let mut a = start(NodeIx::A, 21, disk);
        serve(&mut a, CROSSED);
        meet(&mut a, &mut b, CROSSED);
        offered(&a, &b);
    }
}

/// As [`chain`], and `end` goes on for more than is fetched.
fn long_chain(end: Frame, tail: Vec<Frame>, upon: Vec<Frame>, regs: [Reg; 2]) -> [Side; 2] {
    let [mine, mut theirs] = disks(end, tail, upon);
    for _ in 0..17 {
        put(&mut theirs, Which::Peer, END.inc, frame(1, 4 << 20));
    }
    led([mine, theirs], regs)
}

#[test]
fn an_end_that_is_too_long_is_fetched_once_and_the_operator_is_told_that() {
    let [mut a, mut b] = long_chain(end_of_both(), juliet_says(), romeo_goes_on(), CROSSED);
    let before = a.driver.own_end();
    a.driver.connected();
    b.driver.connected();
    settle(&mut a, &mut b);
    assert!(a.closed.iter().all(|why| *why == TOO_LONG) && !a.closed.is_empty(), "{:?}", a.closed);
    assert!(!has_end(&a) && a.driver.own_end().seq >= before.seq, "what b let go alone is answered");
    let dialled = |a: &mut Side| {
        a.driver.connected();
        a.driver.take();
        let hello = b.driver.hello(b.driver.peer.clone());
        a.driver.on_out(Msg::Hello(hello), &mut a.disk);
        a.driver.take()
    };
    let refused = Do::Close(Link::Out, Why::Refused(TOO_LONG));
    assert_eq!(dialled(&mut a), [refused], "it is not fetched again");
    // Other registers may make another end of it.
    let view = a.driver.view;
    a.driver.set_view(View { release: [Release::Nothing; 2], ..view });
    assert_eq!(dialled(&mut a), [Do::Send(Link::Out, Msg::Fetch(2))]);
}

#[test]
fn an_end_upon_which_nobody_was_told_anything_may_be_as_long_as_it_likes_and_nobody_waits_for_it() {
    let [mut a, mut b] = long_chain(end_of_romeo(), all_go_on(), juliet_goes_on(), AT_HOME);
    meet_at_home(&mut a, &mut b);
    assert!(!has_end(&a) && !a.closed.contains(&TOO_LONG));
}

/// It parts before what both nodes had for good: nothing of that is what a lost with its power.
#[test]
fn a_peer_with_an_old_disk_that_went_on_is_refused_by_who_leads_its_users_too() {
    let [mut a, _] = pair(&[0, 1]);
    let before = (a.digest(), a.driver.own_end());
    let regs = [super::sides::reg(NodeIx::A, Mode::Pair), alone(4, NodeIx::A)];
    let view =
        |leads: bool| View { regs: regs.map(Some), release: [Release::Nothing; 2], accept: [!leads; 2] };
    let mut disk = Disk::default();
    for n in 0..60 {
        let user = BareJid::parse(&format!("c{n}@d")).unwrap();
        let added = Record::UserAdd { user, home: NodeIx::B, verifiers: Verifiers::default() };
        put(&mut disk, Which::Own, INC, of(2, 2, [2, 3], vec![added]));
    }
    disk.log.sync(Which::Own);
    let mut b = start(NodeIx::B, 13, disk);
    a.driver.set_view(view(true));
    b.driver.set_view(view(false));
    a.driver.peer_gone();
    a.driver.connected();
    b.driver.connected();
    settle(&mut a, &mut b);
    assert!(a.closed.contains(&OLD_DISK), "{:?} {:?}", a.closed, b.closed);
    assert_eq!((a.digest(), a.driver.own_end()), before);
    assert_eq!(b.driver.own_end().seq, 60, "what is on it is not touched");
}
