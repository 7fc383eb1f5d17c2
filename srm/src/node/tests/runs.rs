//! Runs of the peer: which one is there, and what is said to one that has not been met.

use super::*;

/// A beacon of another run of the peer.
pub(super) fn hear_run(node: &mut Node, disk: &mut Memory, boot: u64, number: u32) {
    hear_told_to(node, disk, boot, 7, number);
}

/// The same, said to a run of this node.
fn hear_told_to(node: &mut Node, disk: &mut Memory, boot: u64, to_boot: u64, number: u32) {
    let group = |g| safety::Beacon {
        reg: pair(g),
        role: if g == NodeIx::A { safety::Role::Primary } else { safety::Role::Backup },
        ack: None,
        holds: false,
        alone: false,
        took_other: false,
        stopped: false,
    };
    let datagram = Datagram {
        node: 0,
        boot,
        to_boot,
        number,
        config: 1,
        activity: Default::default(),
        turn: Turn::First,
        heard: 0,
        lease: [0; 2],
        told: Default::default(),
        groups: NodeIx::BOTH.map(group),
        program: Default::default(),
    };
    node.handle(0, In::Datagram(datagram.encode(&Secret::new(b"s"))), disk);
}

#[test]
fn a_late_beacon_of_an_earlier_run_does_not_take_the_place_of_the_present_one() {
    let (mut node, mut disk) = started(true);
    hear_run(&mut node, &mut disk, 5, 80);
    assert_eq!(node.peer_boot, Some(PEER_BOOT), "it was heard a moment ago");
    hear(&mut node, &mut disk, 2);
    assert_eq!(node.last_number, 2);
    // A run that is silent may have been followed by another.
    for _ in 0..super::hear::LATE_TICKS {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    hear_run(&mut node, &mut disk, 6, 1);
    assert_eq!(node.peer_boot, Some(6));
    // Whoever greets on a connection is there, whatever was believed.
    link_up(&mut node, &mut disk);
    assert_eq!(node.peer_boot, Some(PEER_BOOT));
}

/// It was said to the run of this node before, which had not been taken over yet, and is late: by it this one would lead.
#[test]
fn a_late_beacon_to_the_run_before_says_nothing_to_one_that_was_only_greeted() {
    let mut disk = Memory::default();
    let mut node = Node::start(config(true), PAIR, 1, &mut disk);
    link_up(&mut node, &mut disk);
    let leads = |node: &Node| node.cores[NodeIx::B.index()].role() == safety::Role::Primary;
    hear_told_to(&mut node, &mut disk, PEER_BOOT, 6, 80);
    node.step(0, &mut disk);
    assert_eq!((node.peer_boot, node.last_number, leads(&node)), (Some(PEER_BOOT), 0, false));
    hear_told_to(&mut node, &mut disk, PEER_BOOT, 7, 1);
    node.step(0, &mut disk);
    assert_eq!((node.last_number, leads(&node)), (1, true), "what is said to this run counts");
}

/// R6: a backup that died and is back before anybody missed it may have lost what it had received, and not known it. What
/// its primary says to it before they have met says nothing of what the run before had.
#[test]
fn a_run_that_has_not_been_met_is_not_told_that_it_holds_everything() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    assert!(!add(&mut node, &mut disk, "u1@d"), "nothing leaves in Pair before the peer has it");
    acknowledge(&mut node, &mut disk);
    let mut said = || {
        node.handle(0, In::Ticks(1), &mut disk);
        let beacons = node.take().into_iter().filter_map(|out| match out {
            Out::Beacon(bytes) => Datagram::decode(&Secret::new(b"s"), &bytes),
            _ => None,
        });
        beacons.last()
    };
    let told = (0..8).find_map(|_| said()).expect("a beacon each second");
    assert_eq!((told.to_boot, told.groups[1].holds), (PEER_BOOT, true));
    hear_run(&mut node, &mut disk, 6, 1);
    let stranger = node.take().into_iter().find_map(|out| match out {
        Out::Beacon(bytes) => Datagram::decode(&Secret::new(b"s"), &bytes),
        _ => None,
    });
    let told = stranger.expect("whoever does not know this run is answered at once");
    assert_eq!(told.to_boot, 6);
    assert_eq!(told.groups.map(|group| (group.holds, group.ack)), [(false, None); 2]);
    assert_eq!((told.heard, told.lease), (0, [0; 2]));
}

/// A recording of the last beacon, which is all that somebody on the path has, keeps nobody alive.
#[test]
fn a_beacon_that_comes_again_is_no_sign_of_life() {
    let (mut node, mut disk) = started(true);
    hear(&mut node, &mut disk, 2);
    for _ in 0..3 {
        node.handle(0, In::Ticks(1), &mut disk);
    }
    let silent = node.evidence.silent();
    assert_eq!(silent, Some(3));
    for number in [2, 1, 2] {
        hear(&mut node, &mut disk, number);
        assert_eq!(node.evidence.silent(), silent, "beacon {number}");
    }
    hear(&mut node, &mut disk, 3);
    assert_eq!(node.evidence.silent(), Some(0), "the next one");
}
