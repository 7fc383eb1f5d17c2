//! What was written while a node that leads alone let nothing go alone, and is let go so after all: the log says it before that,
//! or a merge would take it for what nobody was told of (D7).

use presence_engine::record::{Record, Verifiers};
use session_mover::frame::Frame;

use super::*;

fn solo() -> Reg {
    Reg { mode: Mode::Solo, ..pair(NodeIx::B) }
}

/// A beacon of the peer, which backs the group that this node leads alone.
fn hear_backup(node: &mut Node, disk: &mut Memory, number: u32) {
    let groups = [(pair(NodeIx::A), safety::Role::Primary), (solo(), safety::Role::Backup)];
    hear_of(node, disk, number, groups);
}

/// Node b leads its users alone, nobody of whom has said anything, and its log flows.
fn alone() -> (Node, Memory) {
    let mut disk = Memory::default();
    let mut node = Node::start(config(true), [PAIR[0], Some(copy(solo()))], 1, &mut disk);
    hear_backup(&mut node, &mut disk, 1);
    link_up(&mut node, &mut disk);
    node.step(0, &mut disk);
    assert_eq!(release(&node), safety::Release::Alone);
    assert_eq!(leads(&mut disk).len(), 1);
    (node, disk)
}

fn release(node: &Node) -> safety::Release {
    node.core(NodeIx::B).release()
}

fn own_log(disk: &mut Memory) -> Vec<Frame> {
    let frames = disk.log.read(Which::Own, 1, usize::MAX);
    frames.iter().map(|bytes| Frame::decode(bytes).unwrap()).collect()
}

/// Where the own log says that the group is led alone.
fn leads(disk: &mut Memory) -> Vec<u64> {
    let says = |record: &Record| matches!(record, Record::Lead { reg, .. } if *reg == solo());
    let frames = own_log(disk).into_iter().filter(|frame| frame.records.iter().any(says));
    frames.map(|frame| frame.at.seq).collect()
}

/// The account waits, in a frame that does not say that it is let go alone. It is when a frame behind it, which does, is on the
/// disk.
fn goes_behind_a_lead(node: &mut Node, disk: &mut Memory, name: &str) {
    let adds = |record: &Record| matches!(record, Record::UserAdd { .. });
    let added = own_log(disk).into_iter().rfind(|frame| frame.records.iter().any(adds)).unwrap();
    assert_eq!((added.groups & 2, added.solo & 2), (2, 0));
    let leads = leads(disk);
    assert!(leads.len() == 2 && leads[1] > added.at.seq, "{leads:?}");
    assert!(!is_out(node, name));
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), disk);
    assert!(is_out(node, name));
    assert!(node.core(NodeIx::B).beacon().alone, "who told nothing alone yields to it (R0)");
}

#[test]
fn what_was_written_for_a_join_that_is_called_off_goes_when_the_log_says_alone_once_more() {
    let (mut node, mut disk) = alone();
    hear_backup(&mut node, &mut disk, 2);
    assert_eq!(release(&node), safety::Release::Both);
    assert!(!add(&mut node, &mut disk, "u@d"), "the peer does not have it");
    assert!(!node.core(NodeIx::B).beacon().alone);
    node.handle(0, In::LinkDown(Link::Out, false), &mut disk);
    assert_eq!(release(&node), safety::Release::Alone);
    goes_behind_a_lead(&mut node, &mut disk, "u@d");
    // A link that comes and goes without a join says nothing new.
    node.handle(0, In::LinkDown(Link::In, false), &mut disk);
    link_up(&mut node, &mut disk);
    node.handle(0, In::LinkDown(Link::Out, false), &mut disk);
    assert_eq!((release(&node), leads(&mut disk).len()), (safety::Release::Alone, 2));
}

/// A client's words and the operator's came at once.
#[test]
fn what_waited_while_the_node_was_not_to_lead_goes_when_the_log_says_alone_once_more() {
    let (mut node, mut disk) = alone();
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), &mut disk);
    let (user, verifiers) = (BareJid::parse("u@d").unwrap(), Verifiers::default());
    node.handle(0, In::Client(Input::UserAdd { user, home: NodeIx::B, verifiers }), &mut disk);
    node.feed(NodeIx::B, safety::In::Hold(true), &mut disk);
    node.settle(&mut disk);
    assert_eq!(release(&node), safety::Release::Nothing);
    let end = node.driver().own_end();
    node.handle(0, In::Stored(Which::Own, end, true), &mut disk);
    assert!(!is_out(&mut node, "u@d"));
    node.feed(NodeIx::B, safety::In::Hold(false), &mut disk);
    hear_backup(&mut node, &mut disk, 2);
    assert_eq!(release(&node), safety::Release::Alone);
    goes_behind_a_lead(&mut node, &mut disk, "u@d");
}
