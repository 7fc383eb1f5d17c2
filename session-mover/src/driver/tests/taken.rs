//! A node that lost the end of its own log takes it from the peer (D8), which joins it only when it has that again (R1): until then
//! what both nodes had acknowledged is there only, and the state here is not theirs.

use super::sides::{Disk, Side, pair, settle, start};
use super::*;
use crate::log::Which;

/// What a driver says comes to the other, but for the end of the log, which is slow, and what stands behind that.
fn talk(one: &mut Side, other: &mut Side, slow: &mut Vec<Msg>) -> bool {
    let (serves, mut moved) = (one.driver.cfg.engine.me == NodeIx::B, one.run());
    for what in one.driver.take() {
        match what {
            Do::Send(Link::In, msg) if matches!(msg, Msg::Fetched(..)) || serves && !slow.is_empty() => {
                slow.push(msg)
            }
            Do::Send(Link::Out, msg) => _ = other.driver.on_in(msg, &mut other.disk),
            Do::Send(Link::In, msg) => other.driver.on_out(msg, &mut other.disk),
            _ => continue,
        }
        moved = true;
    }
    moved
}

fn talk_both(a: &mut Side, b: &mut Side, slow: &mut Vec<Msg>) {
    while talk(a, b, slow) | talk(b, a, slow) {}
}

/// A asks for the end of its log, which is on its way.
fn taking() -> (Side, Side, Vec<Msg>, Position) {
    let [mut a, mut b] = pair(&[]);
    for name in ["anna", "berta"] {
        a.add(name);
        settle(&mut a, &mut b);
    }
    // A dies, and its disk has all but its last frame.
    let decoded = |frames: &[Bytes]| -> Vec<Frame> {
        frames.iter().map(|bytes| Frame::decode(bytes).unwrap()).collect()
    };
    let mut own: Vec<Frame> = decoded(a.disk.log.frames(Which::Own));
    let lost = own.pop().unwrap();
    let peer: Vec<Frame> = decoded(a.disk.log.frames(Which::Peer));
    let mut a = start(NodeIx::A, 9, Disk::of(own, peer));
    a.wait();
    b.driver.disconnected();
    b.driver.peer_gone();
    let mut slow = Vec::new();
    a.driver.connected();
    b.driver.connected();
    talk_both(&mut a, &mut b, &mut slow);
    assert!(matches!(slow.first(), Some(Msg::Fetched(..))), "it was asked for, and given");
    (a, b, slow, lost.at)
}

#[test]
fn who_takes_the_end_of_its_log_from_the_peer_is_whole_when_it_says_so() {
    let (mut a, mut b, mut slow, lost) = taking();
    assert!(!b.driver.hears_log() && !b.driver.near(), "it is on its way");
    // What the peer says meanwhile comes by the other connection, and is acknowledged.
    b.add("clara");
    talk_both(&mut a, &mut b, &mut slow);
    assert_eq!(b.driver.acked(), b.driver.own_end().seq);
    assert!(!b.driver.near());
    slow.drain(..).for_each(|msg| a.driver.on_out(msg, &mut a.disk));
    assert_eq!(a.driver.own_end(), lost);
    assert!(!b.driver.near(), "it has not said so");
    // Nobody writes anything more.
    talk_both(&mut a, &mut b, &mut slow);
    assert!(b.driver.hears_log() && b.driver.near());
    assert_eq!((a.digest(), a.users()), (b.digest(), 3));
}

/// The connection breaks by which the node says so, and there is nothing else to say by it when it is made anew.
#[test]
fn who_could_not_say_that_it_has_the_end_of_its_log_says_so_when_it_is_greeted() {
    let (mut a, mut b, mut slow, _) = taking();
    b.driver.disconnected();
    a.driver.peer_gone();
    slow.drain(..).for_each(|msg| a.driver.on_out(msg, &mut a.disk));
    talk_both(&mut a, &mut b, &mut slow);
    assert!(!b.driver.hears_log());
    b.driver.connected();
    talk_both(&mut a, &mut b, &mut slow);
    assert!(b.driver.hears_log() && b.driver.near());
}
