//! Progress counts as health (R9): a log that does not move although there is work.

use super::*;

/// Keep-alive time-out, in ticks.
const SILENCE: u32 = 240;

/// Node b leads its users in Pair, and what one of them said is on its own disk alone.
fn waiting(available: bool) -> (Node, Memory) {
    let (mut node, mut disk) = started(available);
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

fn led(node: &Node, group: NodeIx) -> (safety::Role, Mode) {
    (node.core(group).role(), node.core(group).reg().mode)
}

/// Ticks until b goes on alone. Whatever is done at a tick, the peer lives and nobody is taken over.
fn alone(node: &mut Node, disk: &mut Memory, mut at: impl FnMut(u32, &mut Node, &mut Memory)) -> Option<u32> {
    let alone = (1..=SILENCE).find(|ticks| {
        at(*ticks, node, disk);
        assert!(!tick(node, disk), "the peer lives");
        led(node, NodeIx::B) == (safety::Role::Primary, Mode::Solo)
    });
    assert_eq!(led(node, NodeIx::A).0, safety::Role::Backup);
    alone
}

#[test]
fn a_log_that_stands_still_gives_no_lease_and_nobody_is_taken_over() {
    let (mut node, mut disk) = waiting(true);
    // Six seconds, and a lease of three.
    let ticks = alone(&mut node, &mut disk, |_, _, _| ());
    assert!(ticks.is_some_and(|ticks| (36..=38).contains(&ticks)), "{ticks:?}");
}

#[test]
fn nor_does_one_that_moves_only_when_a_link_is_made_anew() {
    let (mut node, mut disk) = waiting(true);
    let ticks = alone(&mut node, &mut disk, |ticks, node, disk| {
        if ticks % 26 == 0 {
            acknowledge(node, disk);
            add(node, disk, &format!("v{ticks}@d"));
        }
    });
    assert!(ticks.is_some_and(|ticks| ticks <= 2 * 26), "{ticks:?}");
}

#[test]
fn a_path_that_is_slow_gives_one() {
    let (mut node, mut disk) = waiting(true);
    let ticks = alone(&mut node, &mut disk, |ticks, node, disk| {
        if ticks % 8 == 0 {
            acknowledge(node, disk);
            add(node, disk, &format!("v{ticks}@d"));
        }
    });
    assert_eq!(ticks, None);
}

#[test]
fn a_log_that_stands_still_is_silence_whatever_beacons_and_clients_say_where_nobody_may_go_on_alone() {
    let (mut node, mut disk) = waiting(false);
    // The first tick sees where the log is.
    let gone = (1..=2 * SILENCE).find(|_| tick(&mut node, &mut disk));
    assert!(gone.is_some_and(|ticks| (SILENCE..=SILENCE + 1).contains(&ticks)), "{gone:?}");
}

#[test]
fn a_log_that_moves_however_slowly_is_none() {
    let (mut node, mut disk) = waiting(false);
    for round in 0..4 {
        assert!(!(0..SILENCE - 1).any(|_| tick(&mut node, &mut disk)), "round {round}");
        acknowledge(&mut node, &mut disk);
        assert!(!add(&mut node, &mut disk, &format!("v{round}@d")), "there is always work");
    }
}
