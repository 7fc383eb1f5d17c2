//! When a checkpoint is written, what its mark says, and what leaves the logs then.

use presence_engine::ids::Mode;

use super::sides::{Disk, Side, lead, pair, part, reg, settle, start};
use super::*;
use crate::driver::checkpoint::Mark;
use crate::store::Store;

/// R0. After a start nobody knows whether a change to Solo let anything go: it counts, in the log and in the mark.
#[test]
fn that_a_node_led_alone_is_known_when_its_log_says_so_no_more() {
    for said in [true, false] {
        let [mut a, mut b] = pair(&[]);
        part(&mut a, &mut b);
        lead(&mut a, 4, Mode::Solo);
        if said {
            a.add("anna");
        }
        while a.write() {}
        a.driver.take();
        assert_eq!(a.driver.alone_term(NodeIx::A), Term(if said { 4 } else { 0 }));
        let alone = a.driver.own_end().seq;
        a.driver.connected();
        b.driver.connected();
        settle(&mut a, &mut b);
        lead(&mut a, 6, Mode::Pair);
        for n in 0..40 {
            a.add(&format!("a{n}"));
            settle(&mut a, &mut b);
        }
        assert!(a.disk.first(Which::Own) > alone, "{:?} {:?}", a.closed, b.closed);
        let mark = Mark::decode(&a.disk.store.mark().unwrap().unwrap()).unwrap();
        assert_eq!(mark.alone, [Term(4), Term(0)]);
        let again = start(NodeIx::A, 5, a.disk);
        assert_eq!(NodeIx::BOTH.map(|g| again.driver.alone_term(g)), [Term(4), Term(0)]);
    }
}

/// It has the numbers alone; which frames they were its runs tell.
#[test]
fn a_mark_that_is_read_knows_which_frame_of_the_other_log_each_lead_was_written_upon() {
    let mut mark = Mark::decode(&Mark::behind()).unwrap();
    let at = |inc| Position { seq: 1, inc };
    mark.own.push(at(4));
    mark.peer.push(at(5));
    for (writer, had) in [(NodeIx::A, at(5)), (NodeIx::B, at(4))] {
        let lead = Record::Lead { group: writer, reg: reg(writer, Mode::Solo), at_ms: 1, late: false };
        let leads = if writer == NodeIx::A { &mut mark.own_leads } else { &mut mark.peer_leads };
        leads.note(writer, &Frame { applied_peer: had, records: vec![lead], ..frame(1, 0) });
    }
    assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
    let mirrored = mark.clone().mirrored();
    assert_eq!(Mark::decode(&mirrored.encode()).unwrap(), mirrored);
    assert_eq!(mark.own_leads.had_after(NodeIx::A, Term(0)), Some(at(5)));
}

#[test]
fn a_checkpoint_takes_from_the_logs_what_it_holds_and_no_frame_more() {
    let frames = || (1..=6).map(|seq| frame(seq, 0));
    let mut a = start(NodeIx::A, 1, Disk::of(frames(), frames()));
    a.driver.stored = [3, 2];
    a.driver.checkpointed(true, &mut a.disk);
    assert_eq!([Which::Own, Which::Peer].map(|which| a.disk.first(which)), [4, 3]);
}

#[test]
fn a_checkpoint_waits_until_both_nodes_have_both_logs_for_good() {
    let [mut a, mut b] = pair(&[0, 1]);
    let waits = |side: &Side| side.driver.checkpoint.is_some();
    let (own, applied) = (a.driver.own_end().seq, a.driver.applied.seq);
    a.driver.checkpoint = None;
    a.driver.take_checkpoint();
    for (kept, peers) in [(own - 1, applied), (own, applied - 1)] {
        (a.driver.peer_kept, a.driver.peer_own) = (kept, peers);
        a.driver.keep_store(&mut a.disk);
        assert!(waits(&a), "{kept} of {own} and {peers} of {applied}");
    }
    (a.driver.peer_kept, a.driver.peer_own) = (own, applied);
    a.driver.keep_store(&mut a.disk);
    assert!(!waits(&a), "the last of both is enough");

    // Whatever the peer says: something of it waits here.
    a.add("more");
    a.driver.checkpoint = None;
    a.driver.take_checkpoint();
    (a.driver.peer_kept, a.driver.peer_own) = (u64::MAX, u64::MAX);
    while a.write() {}
    a.driver.keep_store(&mut a.disk);
    assert!(waits(&a), "the peer does not have it");
    settle(&mut a, &mut b);
    assert!(!waits(&a));
}
