//! What lets outputs go, and what is acknowledged to the peer (R4, R8): nothing for less than was promised.

use presence_engine::ids::Conn;
use xmpp_core::stanza::Stanza;

use super::sides::{Side, pair, settle};
use super::*;
use crate::msg::Ack;

/// What one node sends comes to the other.
fn come(dos: Vec<Do>, to: &mut Side) {
    for what in dos {
        match what {
            Do::Send(Link::Out, msg) => _ = to.driver.on_in(msg, &mut to.disk),
            Do::Send(Link::In, msg) => to.driver.on_out(msg, &mut to.disk),
            _ => {}
        }
    }
}

/// The peer has what A wrote, and says so.
fn acknowledge(a: &mut Side, b: &mut Side) {
    come(a.driver.take(), b);
    while b.write() {}
    come(b.driver.take(), a);
    assert_eq!(a.driver.acked(), a.driver.own_end().seq);
}

/// Accounts that were let go.
fn let_go(side: &mut Side) -> usize {
    let dos = side.driver.take();
    dos.iter().filter(|what| matches!(what, Do::Release(Output::Account(..)))).count()
}

/// What was acknowledged.
fn acknowledged(side: &mut Side) -> Option<Position> {
    side.driver.take().into_iter().find_map(|what| match what {
        Do::Send(Link::In, Msg::Ack(ack)) => Some(ack.at),
        _ => None,
    })
}

/// A wrote a frame, and B has got it and not written it. Its position.
fn on_its_way() -> (Side, Side, Position) {
    let [mut a, mut b] = pair(&[]);
    a.add("anna");
    come(a.driver.take(), &mut b);
    assert_eq!(b.driver.peer_end(), a.driver.own_end());
    let at = b.disk.log.complete_write(Which::Peer).unwrap();
    assert_eq!(at, a.driver.own_end());
    (a, b, at)
}

/// Node b asks to lead the users of a: see [`View::accept`].
fn asking(b: &Side) -> View {
    View { accept: [false; 2], ..b.driver.view }
}

#[test]
fn a_frame_is_on_the_own_disk_when_it_is_synced_and_still_the_same() {
    let [mut a, mut b] = pair(&[]);
    a.add("anna");
    acknowledge(&mut a, &mut b);
    let at = a.disk.log.complete_write(Which::Own).unwrap();
    assert_eq!(at, a.driver.own_end());
    a.driver.stored(Which::Own, at, false, &mut a.disk);
    assert_eq!(let_go(&mut a), 0, "it is written, no more");
    let other = Position { inc: at.inc + 1, ..at };
    a.driver.stored(Which::Own, other, true, &mut a.disk);
    assert_eq!(let_go(&mut a), 0, "that one was cut off since");
    a.driver.stored(Which::Own, at, true, &mut a.disk);
    assert_eq!((let_go(&mut a), a.driver.own_synced()), (1, at.seq));
}

#[test]
fn an_acknowledgement_of_a_frame_that_this_node_did_not_write_lets_nothing_go() {
    for inc in [0, 1] {
        let [mut a, _] = pair(&[]);
        a.add("anna");
        while a.write() {}
        a.driver.take();
        let (before, end) = (a.driver.acked(), a.driver.own_end());
        let at = Position { inc: end.inc + inc, ..end };
        a.driver.on_out(Msg::Ack(Ack { at, ..Ack::default() }), &mut a.disk);
        let dos = a.driver.take();
        let closed = dos.iter().any(|what| matches!(what, Do::Close(Link::Out, Why::Refused(_))));
        let released = dos.iter().any(|what| matches!(what, Do::Release(_)));
        assert_eq!((closed, released), (inc == 1, inc == 0), "{dos:?}");
        assert_eq!(a.driver.acked() == before, inc == 1);
    }
}

/// It may tell of what the frame before says.
#[test]
fn what_a_turn_without_a_record_puts_out_waits_behind_the_frame_before() {
    let [mut a, mut b] = pair(&[]);
    a.add("anna");
    settle(&mut a, &mut b);
    a.add("ida");
    let end = a.driver.own_end();
    let conn = Conn { node: NodeIx::A, number: 1 };
    let (user, salt, entropy) = (jid("anna"), Bytes::new(), [1; 16]);
    let opened = Input::Opened { conn, user, salt, entropy, token: None };
    // Whoever has not bound a resource may not say that.
    let stanza = Stanza::parse(b"<message to='ida@d'/>").unwrap();
    a.driver.turn(0, vec![opened, Input::Element { conn, stanza }], &mut a.disk);
    assert_eq!(a.driver.own_end(), end, "it is in no log");
    while a.write() {}
    let closes = |dos: &[Do]| dos.iter().any(|what| matches!(what, Do::Release(Output::Close(..))));
    let before = a.driver.take();
    assert!(!closes(&before), "{before:?}");
    come(before, &mut b);
    while b.write() {}
    come(b.driver.take(), &mut a);
    assert!(closes(&a.driver.take()));
}

#[test]
fn a_frame_is_acknowledged_when_it_is_written_or_synced_as_it_is_set() {
    for synced in [false, true] {
        let (_, mut b, at) = on_its_way();
        b.driver.cfg.ack_synced = synced;
        b.driver.stored(Which::Peer, at, false, &mut b.disk);
        assert_eq!(acknowledged(&mut b), (!synced).then_some(at), "written");
        assert_eq!(b.driver.copy_stored() == at.seq, !synced);
        b.driver.stored(Which::Peer, at, true, &mut b.disk);
        assert_eq!(acknowledged(&mut b), synced.then_some(at), "synced");
        assert_eq!((b.driver.copy_stored(), b.driver.copy_synced()), (at.seq, at.seq));
    }
}

/// R4: whoever acknowledged it and then led might not have heard of it when it asked.
#[test]
fn what_is_stored_while_this_node_asks_to_lead_is_acknowledged_when_it_asks_no_more() {
    let (_, mut b, at) = on_its_way();
    let (before, asks) = (b.driver.view, asking(&b));
    b.driver.set_view(asks);
    b.driver.stored(Which::Peer, at, false, &mut b.disk);
    assert_eq!(acknowledged(&mut b), None);
    assert_eq!(b.driver.copy_stored(), at.seq, "it is here all the same");
    b.driver.set_view(before);
    assert_eq!(acknowledged(&mut b), Some(at), "the peer may write nothing else");
    for view in [asks, before] {
        b.driver.set_view(view);
        assert_eq!(acknowledged(&mut b), None, "once");
    }
}

#[test]
fn who_asks_to_lead_takes_no_frame_of_who_led() {
    let [mut a, mut b] = pair(&[]);
    let end = b.driver.peer_end();
    b.driver.set_view(asking(&b));
    // What stands behind the first is on its way when the connection is closed.
    a.add("anna");
    a.add("berta");
    come(a.driver.take(), &mut b);
    let closed = Do::Close(Link::In, Why::Refused("a frame for a group that the peer does not lead"));
    let dos = b.driver.take();
    assert_eq!(dos.iter().filter(|what| matches!(what, Do::Close(..))).collect::<Vec<_>>(), [&closed]);
    assert_eq!((b.driver.peer_end(), b.disk.log.appended(Which::Peer)), (end, end.seq));
}
