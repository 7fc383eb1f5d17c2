//! What the peer wrote of a group and this node did not have when it came to lead it is void for ever, and nothing else is (D8).

use presence_engine::ids::{Mode, Reg};

use super::sides::{Disk, Side, pair, reg, start, taken};
use super::*;
use crate::msg::Hello;

fn at(seq: u64) -> Position {
    Position { seq, inc: INC }
}

/// A frame of b's log about its users, written when it led them under this term.
fn of_b(seq: u64, term: u64) -> Frame {
    Frame { groups: 2, terms: [Term(2), Term(term)], ..frame(seq, 0) }
}

/// The frame of a's log by which it took the users of b over, when it had so many of b's.
fn takes_over(had: u64) -> Frame {
    let lead = Record::Lead { group: NodeIx::B, reg: taken(), at_ms: 1, late: false };
    Frame { terms: [Term(2), Term(5)], applied_peer: at(had), records: vec![lead], ..of_b(1, 3) }
}

/// Node a had three frames of b when it took its users over, and has lost the third with its power.
fn without_the_third() -> Side {
    let mut a = start(NodeIx::A, 1, Disk::of([takes_over(3)], (1..=2).map(|seq| of_b(seq, 3))));
    give_back(&mut a);
    a
}

/// B leads its users again by now: a takes what it writes of them.
fn give_back(a: &mut Side) {
    let back = Reg { term: Term(7), ..reg(NodeIx::B, Mode::Pair) };
    let regs = [reg(NodeIx::A, Mode::Pair), back].map(Some);
    a.driver.set_view(View { regs, release: [Release::Nothing; 2], accept: [false, true] });
}

/// Whether a frame that comes over the link is kept; else the connection ends.
fn is_kept(a: &mut Side, frame: &Frame) -> bool {
    a.driver.take();
    a.driver.on_in(Msg::Frame(frame.encode()), &mut a.disk);
    let refused = Do::Close(Link::In, Why::Refused("a frame for a group that the peer does not lead"));
    let (closed, kept) = (a.driver.take().contains(&refused), a.driver.peer_end() == frame.at);
    assert_ne!(closed, kept);
    kept
}

#[test]
fn a_frame_from_before_a_takeover_is_refused_when_it_comes_after_it_whoever_leads_by_then() {
    for (term, kept) in [(3, false), (7, true)] {
        let [mut a, _] = pair(&[]);
        let (own, end) = (a.driver.own_end(), a.driver.peer_end());
        let regs = [reg(NodeIx::A, Mode::Pair), taken()].map(Some);
        let release = [Release::Nothing, Release::Alone(0)];
        a.driver.set_view(View { regs, release, accept: [false; 2] });
        let lead = Input::Lead { group: NodeIx::B, reg: taken(), late: false };
        a.driver.turn(0, vec![lead], &mut a.disk);
        give_back(&mut a);
        let next = Position { seq: end.seq + 1, ..end };
        let frame = Frame { at: next, prev: end, applied_peer: own, ..of_b(1, term) };
        assert_eq!(is_kept(&mut a, &frame), kept, "of term {term}");
    }
}

#[test]
fn a_frame_that_this_node_had_when_it_took_over_is_kept_when_it_comes_again() {
    let mut a = without_the_third();
    let mut runs = Runs::default();
    (1..=4).for_each(|seq| runs.push(at(seq)));
    let hello = Hello { node: NodeIx::B, boot: 2, regs: [None; 2], ..a.driver.hello(runs) };
    a.driver.on_in(Msg::Hello(hello), &mut a.disk);
    assert!(is_kept(&mut a, &of_b(3, 3)));
    assert!(!is_kept(&mut a, &of_b(4, 3)), "it did not have the next");
}

/// It had the third frame of b when it took over, which b lost, and wrote another with that number.
#[test]
fn a_frame_with_the_number_of_one_that_this_node_had_is_another() {
    let mut a = without_the_third();
    let other = Position { seq: 3, inc: INC + 1 };
    let mut runs = Runs::default();
    [at(1), at(2), other].into_iter().for_each(|at| runs.push(at));
    let hello = Hello { node: NodeIx::B, boot: 2, regs: [None; 2], ..a.driver.hello(runs) };
    a.driver.on_in(Msg::Hello(hello), &mut a.disk);
    assert!(!is_kept(&mut a, &Frame { at: other, ..of_b(3, 3) }));
}

/// The same as b sees it, which comes back with four frames: a, which took its users over, shows a copy of two.
#[test]
fn what_the_heir_had_when_it_took_over_and_has_lost_since_is_not_cut() {
    for had in [2, 3] {
        let disk = Disk::of((1..=4).map(|seq| of_b(seq, 3)), [takes_over(had)]);
        let mut b = start(NodeIx::B, 3, disk);
        b.wait();
        b.driver.connected();
        let mut runs = Runs::default();
        (1..=2).for_each(|seq| runs.push(at(seq)));
        let regs = [reg(NodeIx::A, Mode::Pair), taken()].map(Some);
        let hello = Hello { node: NodeIx::A, boot: 2, regs, ..b.driver.hello(runs) };
        b.driver.on_out(Msg::Hello(hello), &mut b.disk);
        assert_eq!(b.driver.own_end(), at(had));
        assert!(b.driver.take().contains(&Do::SetAside(Which::Own, 4 - had, 0, 0)));
    }
}

/// B wrote upon a frame of node a that a has no more: b will hear how far it has to go back. If b was alone, what it wrote was let
/// go, and is merged.
#[test]
fn a_frame_that_answers_another_than_this_node_has_is_refused_unless_its_writer_was_alone() {
    let refused = Do::Close(Link::In, Why::Refused("a frame that answers what our log does not have"));
    for mode in [Mode::Pair, Mode::Solo] {
        let disk = Disk::of((1..=2).map(|seq| frame(seq, 0)), []);
        let mut a = start(NodeIx::A, 1, disk);
        give_back(&mut a);
        let regs = [None, Some(reg(NodeIx::B, mode))];
        let hello = Hello { node: NodeIx::B, boot: 2, regs, ..a.driver.hello(Runs::default()) };
        a.driver.on_in(Msg::Hello(hello), &mut a.disk);
        a.driver.take();
        let answer = Frame { applied_peer: Position { seq: 2, inc: INC + 1 }, ..of_b(1, 7) };
        a.driver.on_in(Msg::Frame(answer.encode()), &mut a.disk);
        let kept = a.driver.peer_end() == at(1);
        assert_eq!((a.driver.take().contains(&refused), kept), (mode == Mode::Pair, mode == Mode::Solo));
    }
}

/// Nothing of them was let go. While the peer is there it says itself how much of them is void.
#[test]
fn answers_to_what_the_copy_has_lost_go_before_this_node_leads_alone_and_no_others() {
    for linked in [false, true] {
        let answers = [(1, 1), (2, 2), (3, 3), (4, 3)];
        let own = answers.map(|(seq, had)| Frame { applied_peer: at(had), ..frame(seq, 0) });
        let mut a = start(NodeIx::A, 1, Disk::of(own, (1..=2).map(|seq| of_b(seq, 3))));
        if linked {
            a.driver.connected();
        }
        a.driver.drop_unseen_answers(&mut a.disk);
        assert_eq!(a.driver.own_end(), at(if linked { 4 } else { 2 }));
    }
}
