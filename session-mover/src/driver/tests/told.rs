//! An end of a's log that a lost, and that does not stand: a went on without it and leads on whom it speaks of. B led them alone upon
//! it meanwhile.

use presence_engine::record::Forward;
use xmpp_core::jid::Jid;

use super::ahead::{
    AT_HOME, END, MERCUTIO, NURSE, ROMEO, all_go_on, alone, chain, disks, has_end, id, inbound,
    juliet_goes_on, lead, led, meet, message, of, out, people, put, queue, said, serve, until,
};
use super::sides::{Disk, Side, settle, start};
use super::*;

/// Romeo says something to mercutio: both are at home at a.
fn to_mercutio(number: u32) -> Record {
    said(ROMEO, number, out(MERCUTIO, id(ROMEO, number), message("romeo", "mercutio")))
}

/// B leads everybody alone, and romeo comes to it: he is told how much it has of him.
fn romeo_is_told() -> Vec<Frame> {
    let both = NodeIx::BOTH.map(|group| lead(group, alone(7, NodeIx::B)));
    let resumed = Record::Resumed { session: ROMEO, h: 0 };
    vec![of(3, 3, [7, 7], both.into()), of(1, 3, [7, 7], vec![resumed])]
}

/// Each leads who is at home there. An end of a's log is not to stand in which romeo said something to mercutio.
fn discarded(tail: Vec<Frame>, upon: Vec<Frame>) -> [Side; 2] {
    chain(of(1, 0, [4, 4], vec![to_mercutio(1)]), tail, upon, AT_HOME)
}

/// They meet, and this is what mercutio has of romeo.
fn mercutio_has(a: &mut Side, b: &mut Side, of_romeo: &[StanzaId]) {
    meet(a, b, AT_HOME);
    serve(b, AT_HOME);
    settle(a, b);
    assert_eq!(a.digest(), b.digest(), "{:?} {:?}", a.closed, b.closed);
    assert!(!has_end(a), "it says nothing of whom b leads");
    for side in [&*a, &*b] {
        assert_eq!(queue(side, MERCUTIO), of_romeo);
        assert_eq!(side.driver.engine().state().undone().count(), 0);
    }
}

#[test]
fn what_the_peer_told_alone_of_an_end_that_does_not_stand_is_offered() {
    let [mut a, mut b] = discarded(all_go_on(), romeo_is_told());
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
}

/// He says it again wherever he comes.
#[test]
fn what_the_peer_told_nobody_of_an_end_that_does_not_stand_is_not_offered() {
    let mut led = romeo_is_told();
    led.truncate(1);
    for upon in [led, juliet_goes_on()] {
        let [mut a, mut b] = discarded(all_go_on(), upon);
        mercutio_has(&mut a, &mut b, &[]);
    }
}

#[test]
fn what_is_offered_of_an_end_that_does_not_stand_comes_once_though_its_sender_said_it_again() {
    let both = NodeIx::BOTH.map(|group| lead(group, alone(6, NodeIx::A)));
    let tail = vec![of(3, 3, [6, 6], both.into()), of(1, 1, [6, 6], vec![to_mercutio(1)])];
    let [mut a, mut b] = discarded(tail, romeo_is_told());
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
}

/// What a has to say comes to b, and nothing back.
fn hear(a: &mut Side, b: &mut Side) {
    for what in a.driver.take() {
        if let Do::Send(Link::Out, msg) = what {
            b.driver.on_in(msg, &mut b.disk);
        }
    }
    b.driver.take();
}

/// B is up again with this disk, and meets a, whose connections are gone.
fn again(a: &mut Side, mut disk: Disk) -> Side {
    a.driver.peer_gone();
    a.driver.disconnected();
    disk.log.crash();
    let mut b = start(NodeIx::B, 22, disk);
    assert!(b.driver.engine().state().has_offers(), "what he was told is safe");
    serve(&mut b, AT_HOME);
    b
}

/// B cuts its own tail, which says that romeo was told, before it hears that the end is to go, or after that.
#[test]
fn what_is_offered_of_an_end_that_does_not_stand_is_there_once_wherever_the_peer_dies() {
    for tail_first in [true, false] {
        let [mut a, mut b] = discarded(all_go_on(), romeo_is_told());
        if tail_first {
            a.driver.connected();
            hear(&mut a, &mut b);
            until(&mut b, &mut a, |b| b.driver.engine().state().has_offers());
        } else {
            until(&mut a, &mut b, |a| a.driver.ships());
            hear(&mut a, &mut b);
        }
        assert_eq!(b.driver.peer.at(END.seq) == Some(END), tail_first);
        let mut b = again(&mut a, b.disk);
        mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
    }
}

#[test]
fn who_dies_between_the_offer_and_the_cut_of_the_copy_offers_nothing_twice() {
    let [mut a, mut b] = discarded(all_go_on(), romeo_is_told());
    let copy = b.disk.log.frames(Which::Peer).to_vec();
    until(&mut a, &mut b, |a| a.driver.ships());
    hear(&mut a, &mut b);
    let mut disk = Disk::default();
    for (which, frames) in [(Which::Own, b.disk.log.frames(Which::Own).to_vec()), (Which::Peer, copy)] {
        frames.into_iter().for_each(|bytes| disk.log.append(which, Frame::check(&bytes).unwrap(), bytes));
        disk.log.sync(which);
    }
    let mut b = again(&mut a, disk);
    assert_eq!(b.driver.peer.at(END.seq), Some(END), "the copy was not cut yet");
    hear_all(&mut a, &mut b);
    assert_eq!(b.driver.engine().state().offers_in(NodeIx::B).count(), 1);
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
}

/// A tells b what it lost, and no more.
fn hear_all(a: &mut Side, b: &mut Side) {
    until(a, b, |a| a.driver.ships());
    hear(a, b);
    a.driver.disconnected();
    b.driver.peer_gone();
    assert_ne!(b.driver.peer.at(END.seq), Some(END));
}

/// The peer's answer to its greeting came, and is not looked at yet.
fn waits(side: &Side) -> bool {
    side.driver.outgoing.waits.is_some()
}

/// The tail says what romeo was told: until a has said what it lost, it is not known whether that is to be offered.
#[test]
fn a_tail_that_tells_what_was_told_upon_an_end_is_not_cut_before_the_peer_said_what_it_lost() {
    let [mut a, mut b] = discarded(all_go_on(), romeo_is_told());
    let before = b.driver.own_end();
    until(&mut b, &mut a, waits);
    assert_eq!((b.driver.own_end(), b.driver.engine().state().has_offers()), (before, false));
    // Another run of a's said that before: it may have lost more.
    b.driver.disconnected();
    a.driver.peer_gone();
    a.driver.connected();
    hear(&mut a, &mut b);
    b.driver.incoming.boot += 1;
    until(&mut b, &mut a, waits);
    assert_eq!(b.driver.own_end(), before);
    assert_eq!(b.closed, [""; 0]);
    let Side { mut disk, .. } = b;
    disk.log.crash();
    a.driver.peer_gone();
    a.driver.disconnected();
    let mut b = start(NodeIx::B, 22, disk);
    serve(&mut b, AT_HOME);
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
}

/// A leads everybody on, and takes no answer to what it lost.
#[test]
fn who_leads_nobody_on_offers_behind_what_the_peer_has() {
    for copy_first in [false, true] {
        let regs = [alone(8, NodeIx::A), alone(9, NodeIx::A)];
        let upon = [romeo_is_told(), vec![of(1, 3, [7, 7], vec![to_mercutio(3)])]].concat();
        let [mut a, mut b] = chain(of(1, 0, [4, 4], vec![to_mercutio(1)]), all_go_on(), upon, regs);
        if copy_first {
            hear_all(&mut a, &mut b);
        }
        meet(&mut a, &mut b, regs);
        for side in [&a, &b] {
            assert_eq!(queue(side, MERCUTIO), [id(ROMEO, 1), id(ROMEO, 3)]);
            assert_eq!(side.driver.engine().state().undone().count(), 0);
            assert!(side.closed.len() < 10, "{:?}", side.closed);
        }
    }
}

/// Nobody saw what the nurse said upon that end. What romeo said in a tail that was cut before is offered behind it.
fn answer_and_offer() -> Vec<Frame> {
    let answer = said(NURSE, 1, out(NURSE, id(NURSE, 1), message("nurse", "nurse")));
    let to = Jid::parse("mercutio@d/r").unwrap();
    let offer = Effect::Offer(Forward { to, id: id(ROMEO, 5), stanza: message("romeo", "mercutio") });
    let kept = Record::Kept { stanza: id(ROMEO, 5), at_ms: 1, effects: vec![offer] };
    vec![of(2, 0, [4, 4], vec![answer]), of(0, 0, [4, 4], vec![kept])]
}

/// A leads its own users alone, and only romeo says something.
fn romeo_goes_on_alone() -> Vec<Frame> {
    vec![of(1, 1, [6, 4], vec![lead(NodeIx::A, alone(6, NodeIx::A)), to_mercutio(1)])]
}

/// B cut a tail before, and wrote offers of it, before a lost what its log had then.
#[test]
fn offers_stay_where_answers_to_what_the_peer_lost_go() {
    let upon = answer_and_offer();
    let end = of(1, 0, [4, 4], vec![to_mercutio(1)]);
    let [mut mine, mut theirs] = disks(end, romeo_goes_on_alone(), upon);
    for disk in [&mut mine, &mut theirs] {
        [Which::Own, Which::Peer].into_iter().for_each(|which| disk.log.sync(which));
    }
    let (mut a, mut b) = (start(NodeIx::A, 11, mine), start(NodeIx::B, 12, theirs));
    serve(&mut a, AT_HOME);
    let view = View { regs: AT_HOME.map(Some), release: [Release::Nothing; 2], accept: [true, false] };
    b.driver.set_view(view);
    hear_all(&mut a, &mut b);
    assert!(b.driver.engine().state().has_offers());
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1), id(ROMEO, 5)]);
    assert_eq!(inbound(&b, NURSE), 0, "she says that again");
}

/// The same after a power loss of b's, which took the end from its copy.
#[test]
fn offers_stay_where_answers_to_what_the_copy_lost_go() {
    let upon = answer_and_offer();
    let [mut a, b] = discarded(romeo_goes_on_alone(), upon);
    let Side { mut disk, .. } = b;
    disk.log.replace_tail(Which::Peer, END.seq - 1, Vec::new());
    let mut b = start(NodeIx::B, 22, disk);
    b.driver.drop_unseen_answers(&mut b.disk);
    assert!(b.driver.engine().state().has_offers());
    serve(&mut b, AT_HOME);
    mercutio_has(&mut a, &mut b, &[id(ROMEO, 1), id(ROMEO, 5)]);
    assert_eq!(inbound(&b, NURSE), 0, "she says that again");
}

/// Each led everybody alone, and cuts its tail once the other has said what it lost: nothing. Whoever dials first waits for that.
#[test]
fn two_tails_that_wait_for_the_other_node_do_not_wait_for_ever() {
    for first in [NodeIx::A, NodeIx::B] {
        let [mut mine, mut theirs] = [Disk::default(), Disk::default()];
        let [of_a, of_b] = [1, 3].map(|inc| Position { seq: 1, inc });
        for (disk, which) in [(&mut mine, Which::Own), (&mut theirs, Which::Peer)] {
            put(disk, which, of_a.inc, of(3, 0, [4, 4], people()));
        }
        let nurse = said(NURSE, 1, out(NURSE, id(NURSE, 1), message("nurse", "nurse")));
        for (disk, which) in [(&mut theirs, Which::Own), (&mut mine, Which::Peer)] {
            put(disk, which, of_b.inc, Frame { applied_peer: of_a, ..of(2, 0, [4, 4], vec![nurse.clone()]) });
        }
        for frame in all_go_on() {
            put(&mut mine, Which::Own, 2, Frame { applied_peer: of_b, ..frame });
        }
        for frame in [romeo_is_told(), vec![of(1, 3, [7, 7], vec![to_mercutio(1)])]].concat() {
            put(&mut theirs, Which::Own, 4, Frame { applied_peer: of_a, ..frame });
        }
        let [mut a, mut b] = led([mine, theirs], AT_HOME);
        for dial in 0..6 {
            let side = if (dial % 2 == 0) == (first == NodeIx::A) { &mut a } else { &mut b };
            if !side.driver.outgoing.is_up() {
                side.driver.connected();
            }
            drain(&mut a, &mut b);
        }
        assert!(a.driver.ships() && b.driver.ships(), "{:?} {:?}", a.closed, b.closed);
        mercutio_has(&mut a, &mut b, &[id(ROMEO, 1)]);
    }
}

/// All that is on its way arrives. Nobody dials.
fn drain(a: &mut Side, b: &mut Side) {
    let mut moved = true;
    while std::mem::take(&mut moved) {
        for turn in 0..2 {
            let (one, other) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            moved |= one.run();
            for what in one.driver.take() {
                moved = true;
                match what {
                    Do::Send(Link::Out, msg) => _ = other.driver.on_in(msg, &mut other.disk),
                    Do::Send(Link::In, msg) => other.driver.on_out(msg, &mut other.disk),
                    Do::Close(Link::Out, why) => {
                        one.closed.push(why.text());
                        other.driver.peer_gone();
                    }
                    Do::Close(Link::In, why) => {
                        one.closed.push(why.text());
                        other.driver.disconnected();
                    }
                    _ => {}
                }
            }
        }
    }
}
