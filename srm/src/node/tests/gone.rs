//! A death that the peer tells of itself, or that another run of it shows (R9): at once, whatever ports and clients say.

use super::runs::hear_run;
use super::*;

/// As what the node has told the peer to be gone.
fn told(node: &mut Node) -> Vec<Gone> {
    let told = node.take().into_iter().filter_map(|out| match out {
        Out::Event(Event::PeerGone(gone, _)) => Some(gone),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_goodbye_is_a_death_at_once() {
    let (mut node, mut disk) = started(true);
    node.control(&Bytes::from_static(&[GOODBYE]), &mut disk);
    assert_eq!((told(&mut node), node.evidence.gone()), (vec![Gone::Dead], Some(Gone::Dead)));
    assert_eq!(node.core(NodeIx::A).role(), safety::Role::Primary, "who was ready for it takes over");
}

#[test]
fn another_run_of_the_peer_is_the_death_of_the_one_before_unless_that_was_announced() {
    for announced in [false, true] {
        let (mut node, mut disk) = started(true);
        if announced {
            node.control(&Bytes::from_static(&[RESTARTING]), &mut disk);
        }
        // One that was heard a moment ago would be taken for the present one.
        for _ in 0..super::super::hear::LATE_TICKS {
            node.handle(0, In::Ticks(1), &mut disk);
        }
        assert_eq!(told(&mut node), []);
        hear_run(&mut node, &mut disk, 6, 1);
        assert_eq!(node.peer_boot, Some(6), "they have met");
        let deaths = told(&mut node);
        assert_eq!(deaths, if announced { vec![] } else { vec![Gone::Dead] }, "announced: {announced}");
        let led = node.core(NodeIx::A).role() == safety::Role::Primary;
        assert_eq!(led, !announced);
    }
}

/// A disk that stands still ends the process where the peer goes on in its place.
#[test]
fn the_disk_hears_that_the_peer_is_gone_before_anything_is_kept_for_that() {
    let deaths: [fn(&mut Node, &mut Memory); 2] = [
        |node, disk| {
            let goodbye = Msg::Control(Bytes::from_static(&[GOODBYE]));
            node.handle(0, In::LinkMsg(Link::In, goodbye), disk);
        },
        |node, disk| {
            for _ in 0..super::super::hear::LATE_TICKS {
                node.handle(0, In::Ticks(1), disk);
            }
            hear_run(node, disk, 6, 1);
        },
    ];
    for (number, death) in deaths.into_iter().enumerate() {
        let (mut node, mut disk) = started(true);
        link_up(&mut node, &mut disk);
        disk.done.clear();
        disk.gone = None;
        death(&mut node, &mut disk);
        let leads = disk.done.iter().flatten().any(|reg| reg.mode == Mode::Solo);
        assert_eq!((disk.gone, leads), (Some(0), true), "{number}: {:?}", disk.done);
    }
}
