//! Progress counts as health (R9): a log that does not move although there is work.

use super::*;

/// Keep-alive time-out, in ticks.
const SILENCE: u32 = 240;

/// Node b leads its users in Pair, and what one of them said is on its own disk alone.
fn waiting() -> (Node, Memory) {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    hear(&mut node, &mut disk, 2);
    node.step(0, &mut disk);
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), &mut disk);
    acknowledge(&mut node, &mut disk);
    assert!(!add(&mut node, &mut disk, "u1@d"));
    (node, disk)
}

/// A tick later, with a beacon of the peer and the proof of a client that it lives. Whether the peer is held to be silent now.
fn tick(node: &mut Node, disk: &mut Memory) -> bool {
    hear(node, disk, node.last_number + 1);
    node.ask_clients();
    let (id, nonce) = (node.nonce.to_string(), node.evidence.question().expect("just put").to_owned());
    let mac = Secret::new(b"s").vouch(NodeIx::A, &nonce);
    let conn = Conn { node: NodeIx::B, number: 1 };
    node.released(Output::Report { conn, id: id.as_str().into(), mac: Some(mac.into()) });
    node.handle(0, In::Ticks(1), disk);
    node.take().iter().any(|out| matches!(out, Out::Event(Event::PeerGone(Gone::Silent, _))))
}

#[test]
fn a_log_that_stands_still_is_silence_whatever_beacons_and_clients_say() {
    let (mut node, mut disk) = waiting();
    // The first tick sees where the log is.
    let gone = (1..=2 * SILENCE).find(|_| tick(&mut node, &mut disk));
    assert!(gone.is_some_and(|ticks| (SILENCE..=SILENCE + 1).contains(&ticks)), "{gone:?}");
    let led = |g: &NodeIx| (node.core(*g).role(), node.core(*g).reg().mode);
    assert!(
        NodeIx::BOTH.iter().all(|g| led(g) == (safety::Role::Primary, Mode::Solo)),
        "it serves everybody"
    );
}

#[test]
fn a_log_that_moves_however_slowly_is_none() {
    let (mut node, mut disk) = waiting();
    for round in 0..4 {
        assert!(!(0..SILENCE - 1).any(|_| tick(&mut node, &mut disk)), "round {round}");
        acknowledge(&mut node, &mut disk);
        assert!(!add(&mut node, &mut disk, &format!("v{round}@d")), "there is always work");
    }
}
