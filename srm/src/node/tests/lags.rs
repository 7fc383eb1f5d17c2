//! What the log says of where users are, while it lags behind the registers: an old word, which its rest may take back.

use presence_engine::ids::Away;
use presence_engine::record::Record;
use session_mover::frame::Frame;

use super::*;
use crate::view::Place;

/// One frame of a log, on the disk before the node starts.
fn write(disk: &mut Memory, which: Which, group: Group, records: Vec<Record>) {
    let at = Position { seq: 1, inc: 5 };
    let frame = Frame {
        groups: 1 << group.index(),
        solo: 0,
        terms: [Term(2); 2],
        at,
        prev: Position::default(),
        applied_peer: Position::default(),
        now_ms: 1,
        records,
    };
    disk.log.append(which, at, frame.encode());
    disk.log.sync(which);
}

/// A group has the register that its node knows, or had one before, as the log says.
fn lead(group: Group, term: u64) -> Record {
    let reg = Reg { term: Term(term), ..pair(group) };
    Record::Lead { group, reg, at_ms: 1, late: false }
}

#[test]
fn an_old_word_in_the_log_that_users_are_away_is_not_shown() {
    for (terms, place) in
        [([4, 4], Place::AtBackup), ([2, 4], Place::Nobody), ([4, 2], Place::Nobody), ([2, 2], Place::Nobody)]
    {
        let mut disk = Memory::default();
        let away = Record::Away { group: NodeIx::A, why: Some(Away::Operator) };
        write(&mut disk, Which::Peer, NodeIx::A, vec![lead(NodeIx::A, terms[0]), away]);
        write(&mut disk, Which::Own, NodeIx::B, vec![lead(NodeIx::B, terms[1])]);
        let mut node = Node::start(config(true), PAIR, 1, &mut disk);
        hear(&mut node, &mut disk, 1);
        assert_eq!(node.core(NodeIx::A).role(), safety::Role::Backup);
        assert_eq!(node.driver().engine().state().away(NodeIx::A), Some(Away::Operator));
        let led = NodeIx::BOTH.map(|g| node.driver().engine().state().lead(g).map(|reg| reg.term));
        assert_eq!(led, terms.map(|term| Some(Term(term))));
        assert_eq!(node.facts(NodeIx::A).place, place, "{terms:?}");
    }
}
