//! More than the bounds of what waits (D9): clients are held back, and nothing of the peer's is.

use presence_engine::ids::Mode;
use presence_engine::record::Verifiers;

use super::sides::{Side, lead, pair, part, settle, settle_by};
use super::*;

/// So many frames are more than a peer may lag behind, and they have more bytes than may be in flight.
const FRAMES: usize = MAX_PEER_LAG as usize + 100;

/// Writes so many frames: an account gets ever another password.
fn fill(side: &mut Side, name: &str) {
    let user = jid(name);
    for _ in 0..FRAMES {
        let verifiers = Verifiers { salt: Bytes::from_static(&[7; 450]), ..Verifiers::default() };
        let input = Input::UserPasswd { user: user.clone(), verifiers };
        side.driver.turn(0, vec![input], &mut side.disk);
    }
}

/// A pair with one account each.
fn two() -> [Side; 2] {
    let [mut a, mut b] = pair(&[]);
    a.add("anna");
    b.add("bert");
    settle(&mut a, &mut b);
    [a, b]
}

#[test]
fn two_nodes_with_more_than_they_may_hold_back_their_clients_and_never_each_other() {
    let [mut a, mut b] = two();
    for (side, name) in [(&mut a, "anna"), (&mut b, "bert")] {
        assert!(side.driver.clients_may_send());
        fill(side, name);
        assert!(side.driver.commit.waiting_bytes() >= MAX_WAITING);
        assert!(!side.driver.clients_may_send(), "{name}: too much is in flight");
    }
    // What came is written and acknowledged, all of it, before anybody makes a turn.
    settle_by(&mut a, &mut b, Side::write);
    for side in [&a, &b] {
        assert_eq!(side.driver.acked(), side.driver.own_end().seq, "{:?}", side.closed);
        assert_eq!(side.driver.commit.waiting_bytes(), 0, "and so let go");
        assert!(side.driver.has_unprocessed());
        assert!(!side.driver.clients_may_send(), "the peer has not applied it");
    }
    settle(&mut a, &mut b);
    for side in [&a, &b] {
        assert!(side.driver.clients_may_send() && !side.driver.has_unprocessed());
        assert_eq!(side.closed, [""; 0]);
    }
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn who_leads_alone_holds_nobody_back_for_a_peer_that_catches_up() {
    let [mut a, mut b] = two();
    part(&mut a, &mut b);
    lead(&mut a, 4, Mode::Solo);
    fill(&mut a, "anna");
    while a.write() {}
    a.driver.take();
    assert!(a.driver.clients_may_send(), "all of it is on the own disk");
    a.driver.connected();
    b.driver.connected();
    let read = |side: &mut Side| {
        let moved = side.write();
        assert!(side.driver.clients_may_send(), "{} of {}", side.driver.acked(), side.driver.own_end().seq);
        moved
    };
    settle_by(&mut a, &mut b, read);
    // The peer has all of it, and has yet to apply it when they are a pair again.
    assert!(a.driver.near() && b.driver.has_unprocessed(), "{:?} {:?}", a.closed, b.closed);
    lead(&mut a, 6, Mode::Pair);
    assert!(a.driver.clients_may_send());
    settle_by(&mut a, &mut b, read);
    // What comes from now on waits for the peer again.
    fill(&mut a, "anna");
    settle_by(&mut a, &mut b, Side::write);
    assert_eq!(a.driver.commit.waiting_bytes(), 0);
    assert!(!a.driver.clients_may_send(), "the peer has not applied it");
    settle(&mut a, &mut b);
    assert!(a.driver.clients_may_send());
    assert_eq!(a.digest(), b.digest());
}
