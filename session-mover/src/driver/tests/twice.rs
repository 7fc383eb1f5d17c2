//! Frames of the peer's log that come twice, or behind one that did not come.

use presence_engine::record::Forward;
use xmpp_core::jid::Jid;

use super::sides::{Side, pair, settle};
use super::*;

/// Two frames that follow A's log: in each an account of A's goes, with a last word to one of B's.
fn batch(a: &Side) -> [Frame; 2] {
    let end = a.driver.own_end();
    [0, 1].map(|n| {
        let at = |more| Position { seq: end.seq + more, inc: end.inc };
        let stanza = format!(
            "<message xmlns='jabber:client' type='chat' id='m{n}' from='a{n}@d/x' to='b{n}@d'><body>bye</body></message>"
        );
        let to = Jid::from(jid(&format!("b{n}")));
        let id = StanzaId { session: SmId([7; 16]), number: n as u32 + 1 };
        let user = jid(&format!("a{n}"));
        let effects = vec![Effect::Forward(Forward { to, id, stanza: stanza.into() })];
        Frame {
            groups: 1,
            solo: 0,
            terms: [Term(2), Term(3)],
            at: at(n + 1),
            prev: at(n),
            applied_peer: b_end(a),
            now_ms: 0,
            records: vec![Record::UserRemove { user, effects }],
        }
    })
}

/// How far A has applied B's log.
fn b_end(a: &Side) -> Position {
    a.driver.peer_end()
}

/// They come over the link, in this order; everything is processed, and what B does is returned.
fn come(b: &mut Side, frames: &[&Frame]) -> Vec<Do> {
    for frame in frames {
        b.driver.on_in(Msg::Frame(frame.encode()), &mut b.disk);
    }
    while b.run() {}
    b.driver.take()
}

fn closed(dos: &[Do]) -> Option<&'static str> {
    dos.iter().find_map(|what| match what {
        Do::Close(_, why) => Some(why.text()),
        _ => None,
    })
}

/// Messages that wait for each addressee, and B's view of both logs.
fn seen(b: &Side) -> ([usize; 2], Position, Position, u64) {
    let waiting = [0, 1].map(|n| {
        let user = jid(&format!("b{n}"));
        b.driver.engine().state().user(&user).unwrap().offline.len()
    });
    (waiting, b.driver.peer_end(), b.driver.own_end(), b.digest())
}

#[test]
fn a_batch_that_comes_twice_changes_nothing_the_second_time() {
    let [a, mut b] = pair(&[0, 1]);
    let [one, two] = batch(&a);
    let before = b.driver.own_end().seq;
    let first = come(&mut b, &[&one, &two]);
    assert_eq!(closed(&first), None);
    let once = seen(&b);
    assert_eq!((once.0, once.1), ([1, 1], two.at), "both were processed");
    assert!(once.2.seq > before, "which our own log says");
    let copy = b.disk.log.frames(Which::Peer).to_vec();
    for again in [&[&one, &two][..], &[&two], &[&one], &[&two, &one, &two]] {
        let dos = come(&mut b, again);
        assert_eq!(closed(&dos), None, "the connection goes on");
        assert_eq!(seen(&b), once);
        assert_eq!(b.disk.log.frames(Which::Peer), copy, "nothing is written twice");
    }
    // Each twice at once, before anything was processed.
    let [a, mut b] = pair(&[0, 1]);
    let [one, two] = batch(&a);
    assert_eq!(closed(&come(&mut b, &[&one, &one, &two, &one, &two])), None);
    assert_eq!(seen(&b), once);
}

#[test]
fn a_frame_behind_a_gap_is_refused_and_the_next_connection_brings_both() {
    let [mut a, mut b] = pair(&[0, 1]);
    let before = seen(&b);
    a.add("x");
    a.add("y");
    let mut frames = Vec::new();
    while a.run() {}
    for what in a.driver.take() {
        if let Do::Send(Link::Out, Msg::Frame(bytes)) = what {
            frames.push(Frame::decode(&bytes).unwrap());
        }
    }
    let [_, second] = &frames[..] else { panic!("{} frames", frames.len()) };
    let dos = come(&mut b, &[second]);
    assert_eq!(closed(&dos), Some("a frame that does not follow"));
    assert!(!dos.iter().any(|what| matches!(what, Do::Send(_, Msg::Ack(_)))), "nor acknowledged");
    assert_eq!(seen(&b), before);
    b.driver.peer_gone();
    a.driver.disconnected();
    a.driver.connected();
    settle(&mut a, &mut b);
    assert_eq!((b.driver.peer_end(), b.users(), b.digest()), (second.at, a.users(), a.digest()));
}

#[test]
fn another_frame_under_a_number_that_is_taken_is_refused() {
    let [a, mut b] = pair(&[0, 1]);
    let [one, two] = batch(&a);
    come(&mut b, &[&one, &two]);
    let before = seen(&b);
    let mut other = two.clone();
    other.at.inc += 1;
    assert_eq!(closed(&come(&mut b, &[&other])), Some("a frame that does not follow"));
    assert_eq!(seen(&b), before);
}
