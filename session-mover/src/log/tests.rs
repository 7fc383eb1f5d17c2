//! One suite that every log store passes, and what only files can suffer.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::replace::Plan;
use super::segment::Segments;
use super::*;
use crate::frame::Frame;
use presence_engine::ids::{SmId, Term};
use presence_engine::record::Record;

fn frame(seq: u64) -> (Position, Bytes) {
    let at = Position { seq, inc: 5 };
    let prev = Position { seq: seq - 1, inc: if seq == 1 { 0 } else { 5 } };
    let records = vec![Record::Trim { session: SmId([seq as u8; 16]), h: seq as u32 }];
    let terms = [Term(2), Term(3)];
    let applied_peer = Position::default();
    (at, Frame { groups: 1, solo: 0, terms, at, prev, applied_peer, now_ms: 1, records }.encode())
}

/// A frame of another incarnation, which follows the third of the first.
fn other(seq: u64) -> (Position, Bytes) {
    let mut frame = Frame::decode(&frame(seq).1).unwrap();
    frame.at.inc = 6;
    frame.prev.inc = if seq == 4 { 5 } else { 6 };
    (frame.at, frame.encode())
}

fn all(store: &mut dyn LogStore, which: Which) -> Vec<Bytes> {
    let mut frames = Vec::new();
    loop {
        let some = store.read(which, frames.len() as u64 + 1, usize::MAX);
        if some.is_empty() {
            return frames;
        }
        frames.extend(some);
    }
}

fn suite(store: &mut dyn LogStore) {
    for which in [Which::Own, Which::Peer] {
        assert!(store.read(which, 1, 1000).is_empty());
        for seq in 1..=20 {
            let (at, bytes) = frame(seq);
            store.append(which, at, bytes);
        }
        assert_eq!(all(store, which), (1..=20).map(|s| frame(s).1).collect::<Vec<_>>());
        assert_eq!(store.read(which, 7, 1), vec![frame(7).1], "at least one");
        assert!(store.read(which, 21, 1000).is_empty());
    }
    store.replace_tail(Which::Own, 5, Vec::new());
    assert_eq!(all(store, Which::Own).len(), 5);
    assert_eq!(all(store, Which::Peer).len(), 20);
    let (at, bytes) = frame(6);
    store.append(Which::Own, at, bytes.clone());
    assert_eq!(store.read(Which::Own, 6, 1000), vec![bytes]);
    store.sync(Which::Peer);
    let instead: Vec<Bytes> = (4..=8).map(|seq| other(seq).1).collect();
    store.replace_tail(Which::Own, 3, instead.clone());
    assert_eq!(all(store, Which::Own), [vec![frame(1).1, frame(2).1, frame(3).1], instead].concat());
    let (at, bytes) = other(9);
    store.append(Which::Own, at, bytes.clone());
    assert_eq!(all(store, Which::Own)[7..], [other(8).1, bytes]);
    store.replace_tail(Which::Own, 6, Vec::new());
    assert_eq!(all(store, Which::Own).len(), 6);
}

/// Logs that begin later, of 20 frames each.
fn suite_of_beginnings(store: &mut dyn LogStore) {
    for which in [Which::Own, Which::Peer] {
        for seq in 1..=20 {
            let (at, bytes) = frame(seq);
            store.append(which, at, bytes);
        }
        assert_eq!(store.first(which), 1);
        store.sync(which);
    }
    store.trim(Which::Own, 11);
    assert_eq!((store.first(Which::Own), store.first(Which::Peer)), (11, 1));
    assert_eq!(store.read(Which::Own, 11, usize::MAX).len(), 10);
    store.begin_at(Which::Peer, 100);
    assert_eq!(store.first(Which::Peer), 100);
    assert!(store.read(Which::Peer, 100, 1).is_empty());
    for seq in 100..=102 {
        let (at, bytes) = frame(seq);
        store.append(Which::Peer, at, bytes);
    }
    assert_eq!(store.read(Which::Peer, 101, usize::MAX), [frame(101).1, frame(102).1]);
    store.replace_tail(Which::Peer, 100, Vec::new());
    assert_eq!(store.read(Which::Peer, 100, usize::MAX), [frame(100).1]);
    store.sync(Which::Peer);
}

fn open(dir: &Path) -> (FileLog, Opened, Receiver<Stored>) {
    let (tell, told) = channel();
    let (log, opened) = FileLog::open(dir, false, move |stored| _ = tell.send(stored)).unwrap();
    (log, opened, told)
}

fn wait_synced(told: &Receiver<Stored>, seq: u64) {
    loop {
        let stored = told.recv_timeout(Duration::from_secs(20)).expect("the log syncs");
        if stored.synced && stored.at.seq == seq {
            return;
        }
    }
}

#[test]
fn memory_passes_the_suite() {
    suite(&mut MemoryLog::default());
    suite_of_beginnings(&mut MemoryLog::default());
}

/// A segment is missing: what comes behind it is set aside, and does not stand in the way of what is written next.
#[test]
fn a_log_goes_on_where_a_segment_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("log/own");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join(format!("{:020}.log", 1)), [&frame(1).1[..], &frame(2).1].concat()).unwrap();
    fs::write(own.join(format!("{:020}.log", 5)), &frame(5).1).unwrap();
    let (mut log, opened, _told) = open(dir.path());
    assert_eq!(opened.set_aside[0], frame(5).1.len() as u64);
    let more: Vec<(Position, Bytes)> = (3..=8).map(frame).collect();
    more.iter().for_each(|(at, bytes)| log.append(Which::Own, *at, bytes.clone()));
    log.sync(Which::Own);
    drop(log);
    let (mut log, opened, _told) = open(dir.path());
    assert_eq!(opened.set_aside[0], 0);
    for seq in (1..=8).rev() {
        assert_eq!(log.read(Which::Own, seq, 1), [frame(seq).1], "frame {seq}");
    }
}

#[test]
fn a_log_begins_where_it_was_made_to_begin_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(dir.path());
    suite_of_beginnings(&mut log);
    log.begin_at(Which::Own, 7);
    drop(log);
    let (mut log, opened, told) = open(dir.path());
    assert_eq!(opened.set_aside, [0, 0]);
    assert_eq!((log.first(Which::Own), log.first(Which::Peer)), (7, 100));
    assert_eq!(log.read(Which::Peer, 100, usize::MAX), [frame(100).1]);
    let (at, bytes) = frame(7);
    log.append(Which::Own, at, bytes.clone());
    assert_eq!(log.read(Which::Own, 7, 1), [bytes]);
    wait_synced(&told, 7);
}

/// Whole segments go, and the newest never.
#[test]
fn old_segments_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let aside = dir.path().join("aside");
    let path = dir.path().join("log");
    let (mut log, _) = Segments::open(&path, &aside).unwrap();
    // Empty segments count as full: each frame gets its own.
    for seq in 1..=5 {
        log.append(&[frame(seq).1]).unwrap();
        log.begin_segment().unwrap();
    }
    let files = || fs::read_dir(&path).unwrap().count();
    assert_eq!((log.first(), files()), (1, 6));
    log.trim(3).unwrap();
    assert_eq!((log.first(), files()), (3, 4));
    log.trim(100).unwrap();
    assert_eq!((log.first(), files()), (6, 1), "the newest stays");
    drop(log);
    let (log, lost) = Segments::open(&path, &aside).unwrap();
    assert_eq!((log.first(), log.next(), lost), (6, 6, 0));
}

#[test]
fn files_pass_the_suite_and_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, told) = open(dir.path());
    suite(&mut log);
    wait_synced(&told, 6);
    drop(log);
    let (mut log, opened, _told) = open(dir.path());
    assert_eq!(opened.set_aside, [0, 0]);
    assert_eq!(all(&mut log, Which::Own).len(), 6);
    assert_eq!(log.read(Which::Peer, 15, usize::MAX).len(), 6);
    assert_eq!(fs::read_dir(dir.path().join("aside")).unwrap().count(), 3, "the cut tails are kept");
}

/// A process may die at any step of replacing a tail: the next one ends what it began.
#[test]
fn a_replaced_tail_is_whole_wherever_the_process_died() {
    let instead: Vec<Bytes> = (4..=6).map(|seq| other(seq).1).collect();
    // On the disk: so many of the old frames, then so many of the new ones.
    for (old, new) in [(9, 0), (5, 0), (3, 0), (3, 1), (3, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _, told) = open(dir.path());
        for seq in 1..=old {
            let (at, bytes) = frame(seq);
            log.append(Which::Own, at, bytes);
        }
        for seq in old + 1..=old + new {
            let (at, bytes) = other(seq);
            log.append(Which::Own, at, bytes);
        }
        wait_synced(&told, old + new);
        drop(log);
        let plan = Plan { keep: 3, frames: instead.clone() };
        plan.save(&dir.path().join("log/own")).unwrap();
        for _ in 0..2 {
            let (mut log, _, _told) = open(dir.path());
            let wanted = [vec![frame(1).1, frame(2).1, frame(3).1], instead.clone()].concat();
            assert_eq!(all(&mut log, Which::Own), wanted, "{old} old and {new} new frames");
        }
        assert_eq!(Plan::load(&dir.path().join("log/own")).unwrap(), None);
    }
}

#[test]
fn a_torn_plan_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, told) = open(dir.path());
    for seq in 1..=5 {
        let (at, bytes) = frame(seq);
        log.append(Which::Own, at, bytes);
    }
    wait_synced(&told, 5);
    drop(log);
    let own = dir.path().join("log/own");
    Plan { keep: 3, frames: vec![other(4).1] }.save(&own).unwrap();
    let bytes = fs::read(own.join("replace")).unwrap();
    fs::write(own.join("replace"), &bytes[..bytes.len() - 1]).unwrap();
    let (mut log, _, _told) = open(dir.path());
    assert_eq!(all(&mut log, Which::Own).len(), 5);
}

#[test]
fn a_torn_write_is_cut_and_kept_aside() {
    for cut in [1, 9, 40] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _, told) = open(dir.path());
        for seq in 1..=3 {
            let (at, bytes) = frame(seq);
            log.append(Which::Own, at, bytes);
        }
        wait_synced(&told, 3);
        drop(log);
        let path = fs::read_dir(dir.path().join("log/own")).unwrap().next().unwrap().unwrap().path();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        let (mut log, opened, told) = open(dir.path());
        let (good, torn) = (frame(1).1.len() + frame(2).1.len(), frame(3).1.len() - cut as usize);
        assert_eq!(opened.set_aside[0], torn as u64);
        assert_eq!(all(&mut log, Which::Own).len(), 2);
        // Nothing of it is left behind what comes next, and it is kept for whoever wants to look at it.
        assert_eq!(fs::metadata(&path).unwrap().len(), good as u64);
        let aside = fs::read_dir(dir.path().join("aside")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read(aside).unwrap(), frame(3).1[..torn]);
        let (at, bytes) = frame(3);
        log.append(Which::Own, at, bytes);
        wait_synced(&told, 3);
        assert_eq!(all(&mut log, Which::Own).len(), 3);
    }
}

#[test]
fn damage_in_the_middle_is_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, told) = open(dir.path());
    for seq in 1..=9 {
        let (at, bytes) = frame(seq);
        log.append(Which::Own, at, bytes);
    }
    wait_synced(&told, 9);
    drop(log);
    let path = fs::read_dir(dir.path().join("log/own")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let at = frame(1).1.len() * 4 + 30;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut log, opened, _told) = open(dir.path());
    assert!(opened.set_aside[0] > 0);
    assert_eq!(all(&mut log, Which::Own).len(), 4);
}
