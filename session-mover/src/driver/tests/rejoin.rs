//! A node that comes back to a peer that took its users over.

use presence_engine::ids::{Mode, Reg};

use super::sides::{pair, part, reg, settle, start, taken};
use super::*;

/// The last frame of b, which nobody had, is void. B leads nothing now and writes nothing: a must not wait for that frame.
#[test]
fn what_the_peer_sets_aside_is_not_waited_for() {
    let [mut a, mut b] = pair(&[0, 1]);
    let end = a.driver.peer_end();
    part(&mut a, &mut b);
    let led = Reg { term: Term(4), ..reg(NodeIx::B, Mode::Pair) };
    b.driver.turn(0, vec![Input::Lead { group: NodeIx::B, reg: led, late: false }], &mut b.disk);
    assert_eq!(b.driver.own_end().seq, end.seq + 1);
    b.write();
    let regs = [reg(NodeIx::A, Mode::Pair), taken()].map(Some);
    a.driver.set_view(View { regs, release: [Release::Nothing, Release::Alone(0)], accept: [false; 2] });
    a.driver.turn(0, vec![Input::Lead { group: NodeIx::B, reg: taken(), late: false }], &mut a.disk);
    let mut b = start(NodeIx::B, 3, b.disk);
    b.driver.set_view(View { regs, release: [Release::Nothing; 2], accept: [true; 2] });
    a.driver.connected();
    b.driver.connected();
    settle(&mut a, &mut b);
    assert_eq!((b.driver.own_end(), a.driver.peer_end()), (end, end), "{:?} {:?}", a.closed, b.closed);
    assert!(a.driver.has_all_of_peer() && b.driver.has_all_of_peer());
    assert_eq!((b.users(), b.digest()), (80, a.digest()));
}
