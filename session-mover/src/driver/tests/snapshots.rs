//! A node without its disk, and a peer whose logs have no beginnings any more.

use super::sides::{Disk, Side, meet, pair, settle, start};
use super::*;
use crate::driver::checkpoint::Mark;
use crate::driver::ship::Phase;
use crate::store::Store;

#[test]
fn a_lost_disk_is_filled_from_the_peer() {
    for writers in [&[0][..], &[1], &[0, 1]] {
        let [mut a, old] = pair(writers);
        let trimmed = [Which::Own, Which::Peer].map(|which| a.disk.first(which) > 1);
        assert_eq!(
            trimmed,
            [writers.contains(&0), writers.contains(&1)],
            "what is not written is not removed"
        );
        let mut b = start(NodeIx::B, 3, Disk::default());
        assert_eq!(b.users(), 0);
        drop(b);
        b = meet(&mut a, Disk::default());
        assert_eq!((b.digest(), b.users()), (a.digest(), 40 * writers.len()), "{writers:?}: {:?}", b.closed);
        assert_eq!((b.driver.own_end(), b.driver.peer_end()), (a.driver.peer_end(), a.driver.own_end()));
        assert_eq!(b.driver.own_end(), old.driver.own_end());
        assert!(b.driver.fetched() && !b.driver.is_behind());
        // And what it has now is enough for a start.
        let again = start(NodeIx::B, 4, b.disk);
        assert_eq!(again.digest(), a.digest());
    }
}

#[test]
fn a_lost_store_makes_a_node_wait_for_the_peer() {
    let [mut a, mut b] = pair(&[0, 1]);
    b.disk.store.lose_all();
    let alone = start(NodeIx::B, 3, b.disk);
    assert!(alone.driver.is_behind(), "it must not lead with nothing");
    assert_eq!((alone.users(), alone.disk.log.aside().is_empty()), (0, false), "its logs are kept aside");
    let mut again = start(NodeIx::B, 4, alone.disk);
    assert!(again.driver.is_behind(), "nor after another start");
    // A snapshot that came in by half is none.
    again.wait();
    let mark = a.disk.store.mark().unwrap().unwrap();
    again.driver.begin_install(&mark, &mut again.disk);
    let some = a.disk.store.scan(&[], 1_000).unwrap();
    again.driver.install(some, &mut again.disk);
    for boot in [5, 6] {
        again = start(NodeIx::B, boot, again.disk);
        assert_eq!((again.users(), again.driver.is_behind()), (0, true), "boot {boot}");
    }
    let b = meet(&mut a, again.disk);
    assert_eq!(b.digest(), a.digest());
    assert!(!b.driver.is_behind());
}

#[test]
fn a_snapshot_comes_from_a_store_that_had_failed_too() {
    let [mut a, _] = pair(&[0, 1]);
    a.disk.store.lose_all();
    a.driver.checkpointed(false, &mut a.disk);
    let b = meet(&mut a, Disk::default());
    assert_eq!((b.digest(), b.users()), (a.digest(), 80), "{:?} {:?}", a.closed, b.closed);
}

#[test]
fn a_disk_that_went_on_by_itself_is_refused_and_the_peer_lives() {
    let [mut a, _] = pair(&[0, 1]);
    let before = (a.digest(), a.driver.own_end());
    // Another history of the same node.
    let frames = (1..=60).map(|seq| Frame { groups: 2, ..frame(seq, 10) });
    let b = meet(&mut a, Disk::of(frames, []));
    assert_eq!((a.digest(), a.driver.own_end()), before);
    let why = a
        .closed
        .iter()
        .chain(&b.closed)
        .any(|why| why.contains("old disk") || why.contains("does not know all"));
    assert!(why, "{:?} {:?}", a.closed, b.closed);
    assert_eq!(b.driver.own_end().seq, 60, "what is on it is not touched");
}

#[test]
fn a_mark_is_the_same_from_both_sides() {
    let mut runs = [Runs::default(), Runs::default()];
    runs[0].push(Position { seq: 1, inc: 4 });
    runs[1].push(Position { seq: 1, inc: 5 });
    let [own, peer] = runs;
    let at = |seq| Position { seq, inc: 9 };
    let mark = Mark { own, peer, built_on: at(7), built_on_ours: at(8), behind: true, ..Mark::default() };
    let mirrored = mark.clone().mirrored();
    assert_eq!((mirrored.built_on, mirrored.built_on_ours), (at(8), at(7)));
    assert_ne!(mirrored.own, mark.own);
    assert_eq!(mirrored.mirrored(), mark);
}

#[test]
fn who_serves_or_knows_more_takes_no_snapshot() {
    let [mut a, mut b] = pair(&[0, 1]);
    let mark = b.disk.store.mark().unwrap().unwrap();
    let refused = |side: &mut Side, why: &str| {
        let before = side.disk.store.mark().unwrap();
        side.driver.begin_install(&mark, &mut side.disk);
        let closed = side
            .driver
            .take()
            .into_iter()
            .any(|what| matches!(what, Do::Close(_, w) if w.text().contains(why)));
        closed && side.disk.store.mark().unwrap() == before
    };
    assert!(refused(&mut a, "serves"));
    let mut other = start(NodeIx::A, 5, Disk::of([frame(1, 10)], []));
    other.wait();
    assert!(refused(&mut other, "does not know all"));
    b.wait();
    b.driver.begin_install(b"?", &mut b.disk);
    assert_eq!(b.disk.store.mark().unwrap(), Some(mark), "what cannot be read is refused");
}

#[test]
fn the_store_stays_as_it_is_while_it_is_sent() {
    let [mut a, mut b] = pair(&[0, 1]);
    a.add("more");
    settle(&mut a, &mut b);
    let before = a.disk.store.mark().unwrap();
    for sending in [true, false] {
        a.driver.checkpoint = None;
        a.driver.take_checkpoint();
        (a.driver.peer_kept, a.driver.peer_own) = (u64::MAX, u64::MAX);
        a.driver.outgoing.phase = if sending { Phase::Sending } else { Phase::Live };
        a.driver.keep_store(&mut a.disk);
        assert_eq!(a.disk.store.mark().unwrap() == before, sending);
    }
}

/// It goes on from what is here, or is refused: the own log by the sender's copy of it, the copy by the sender's own log.
#[test]
fn both_logs_of_a_node_are_compared_with_the_snapshot_each_with_its_own() {
    let [_, mut b] = pair(&[0, 1]);
    let mark = b.disk.store.mark().unwrap().unwrap();
    // A's log was written by its first run, b's by its second.
    for (which, inc, fits) in
        [(Which::Own, 1, true), (Which::Own, 2, false), (Which::Peer, 1, false), (Which::Peer, 2, true)]
    {
        let mut disk = Disk::default();
        let at = Position { seq: 1, inc };
        disk.log.append(which, at, Frame { at, ..frame(1, 10) }.encode());
        disk.log.sync(which);
        let mut a = start(NodeIx::A, 5, disk);
        a.wait();
        a.driver.begin_install(&mark, &mut a.disk);
        let dos = a.driver.take();
        let wanted = dos.contains(&Do::Send(Link::In, Msg::Want(Bytes::new())));
        let refused = dos.iter().any(|what| matches!(what, Do::Close(Link::In, Why::Refused(_))));
        assert_eq!((wanted, refused), (fits, !fits), "{which:?} of {inc}: {dos:?}");
    }
}

#[test]
fn a_snapshot_begins_when_the_store_is_at_rest() {
    let [mut a, _] = pair(&[0, 1]);
    let mark = a.disk.store.mark().unwrap().unwrap();
    for writing in [true, false] {
        (a.driver.writing, a.driver.outgoing.phase) = (writing, Phase::Snapshot);
        a.driver.offer_snapshot(&mut a.disk);
        let begun = a.driver.take() == [Do::Send(Link::Out, Msg::Snapshot(mark.clone()))];
        assert_eq!(begun, !writing);
    }
}

/// Only the copy of the peer's log is lost: what this node has of its own is not set aside for that.
#[test]
fn a_snapshot_leaves_a_log_as_it_is_that_has_all_of_it() {
    let [mut a, b] = pair(&[0]);
    assert!(a.disk.first(Which::Own) > 1 && b.disk.first(Which::Own) == 1);
    let own = b.disk.log.frames(Which::Own).to_vec();
    let mut disk = Disk::default();
    for bytes in &own {
        disk.log.append(Which::Own, Frame::check(bytes).unwrap(), bytes.clone());
    }
    disk.log.sync(Which::Own);
    let b = meet(&mut a, disk);
    assert_eq!((b.users(), b.digest()), (40, a.digest()), "{:?} {:?}", a.closed, b.closed);
    assert!(!b.driver.is_behind());
    assert_eq!((b.disk.first(Which::Own), b.disk.log.aside().len()), (1, 0));
    assert_eq!(b.disk.log.frames(Which::Own), own);
}
