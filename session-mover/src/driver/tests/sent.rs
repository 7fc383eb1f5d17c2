//! What of the own log goes out on a connection: what the peer lacks, as much as the window holds.

use super::sides::{Disk, Side, pair, start};
use super::*;
use crate::msg::{Ack, Hello};

/// Numbers of the frames that are sent.
fn sent(dos: &[Do]) -> Vec<u64> {
    let frames = dos.iter().filter_map(|what| match what {
        Do::Send(Link::Out, Msg::Frame(bytes)) => Some(Frame::check(bytes).unwrap().seq),
        _ => None,
    });
    frames.collect()
}

/// The connection to B is made, whose copy of the log has this. What is done then.
fn meet(a: &mut Side, copy: Runs) -> Vec<Do> {
    a.driver.connected();
    let hello = Hello { node: NodeIx::B, boot: 2, ..a.driver.hello(copy) };
    a.driver.take();
    a.driver.on_out(Msg::Hello(hello), &mut a.disk);
    assert!(a.driver.ships());
    a.driver.take()
}

/// A node with frames of about this size in its log.
fn with_log(sizes: &[usize]) -> Side {
    let frames = (1..).zip(sizes).map(|(seq, bytes)| frame(seq, *bytes));
    start(NodeIx::A, 1, Disk::of(frames, []))
}

#[test]
fn a_new_connection_brings_what_the_peer_lacks_and_nothing_that_it_has() {
    let [mut a, _] = pair(&[0]);
    a.driver.disconnected();
    a.driver.peer_gone();
    let end = a.driver.own_end().seq;
    for name in ["x", "y", "z"] {
        a.add(name);
    }
    while a.write() {}
    assert!(sent(&a.driver.take()).is_empty(), "there is no connection");
    for has in end..=end + 3 {
        let mut copy = a.driver.own.clone();
        copy.truncate(has);
        let lacks: Vec<u64> = (has + 1..=end + 3).collect();
        assert_eq!(sent(&meet(&mut a, copy)), lacks, "it has {has}");
    }
}

#[test]
fn a_copy_that_went_on_otherwise_is_cut_where_it_parts_and_gets_the_rest() {
    let mut a = with_log(&[0; 4]);
    let mut copy = Runs::default();
    for (seq, inc) in [(1, INC), (2, INC), (3, INC + 1)] {
        copy.push(Position { seq, inc });
    }
    let dos = meet(&mut a, copy);
    assert!(dos.contains(&Do::Send(Link::Out, Msg::Rewind(2))), "{dos:?}");
    assert_eq!(sent(&dos), [3_u64, 4]);
}

#[test]
fn what_is_more_than_the_window_goes_out_when_what_is_in_it_is_acknowledged() {
    let mut a = with_log(&[5 << 20, 10, 5 << 20, 10]);
    assert_eq!(sent(&meet(&mut a, Runs::default())), [1_u64]);
    let mut acknowledged = |seq| {
        let at = Position { seq, inc: INC };
        a.driver.on_out(Msg::Ack(Ack { at, ..Ack::default() }), &mut a.disk);
        sent(&a.driver.take())
    };
    assert_eq!(acknowledged(1), [2_u64, 3]);
    assert!(acknowledged(2).is_empty(), "the third is more than the window by itself");
    assert_eq!(acknowledged(3), [4_u64]);
}
