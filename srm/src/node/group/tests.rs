//! Who is assigned where, and when high availability is not switched off.

use presence_engine::ids::Away;
use session_mover::log::Which;

use super::super::tests::{Memory, config, copy, link_up, pair, started};
use super::super::{Config, In as Word, Op};
use super::*;

/// Nobody else can have it: a single node leads what was led by a peer that it has no more, too.
#[test]
fn a_single_node_takes_an_account_that_was_left_with_a_peer_of_before() {
    let mut disk = Memory::default();
    let single = Config { single: true, ..config(true) };
    let of_pair = NodeIx::BOTH.map(|home| Some(copy(pair(home))));
    let mut node = Node::start(single, of_pair, 1, &mut disk);
    let user = BareJid::parse("u@d").unwrap();
    let there = Input::UserAdd { user: user.clone(), home: NodeIx::A, verifiers: Default::default() };
    node.handle(0, Word::Client(there), &mut disk);
    node.step(0, &mut disk);
    let assign = Op::Assign(user.clone(), Some(NodeIx::B));
    node.handle(0, Word::Op(1, assign.clone()), &mut disk);
    let early = node.take().into_iter().find_map(|out| match out {
        Out::Reply(1, Reply::Refused(refused)) => Some(refused.error),
        _ => None,
    });
    assert_eq!(early.as_deref(), Some("this node does not serve yet"), "and nobody is moved");

    node.handle(0, Word::Ticks(1), &mut disk);
    node.handle(0, Word::Client(Input::Assign { user: user.clone(), home: None }), &mut disk);
    node.step(0, &mut disk);
    let lives = |node: &Node| {
        let u = node.driver.engine().state().user(&user);
        u.map(|u| (u.assigned, u.home, u.register))
    };
    assert_eq!(lives(&node), Some((false, NodeIx::A, NodeIx::A)));
    node.handle(0, Word::Op(2, assign), &mut disk);
    node.step(0, &mut disk);
    assert_eq!(lives(&node), Some((true, NodeIx::B, NodeIx::B)));
    let end = node.driver.own_end();
    node.handle(0, Word::Stored(Which::Own, end, true), &mut disk);
    assert!(node.take().contains(&Out::Reply(2, Reply::Done)));
}

/// It leads what its peer led: so it does for such an account what it does for its own.
#[test]
fn a_single_node_removes_an_account_that_was_left_with_a_peer_of_before() {
    let mut disk = Memory::default();
    let single = Config { single: true, ..config(true) };
    let mut node = Node::start(single, [None, None], 1, &mut disk);
    node.handle(0, Word::Ticks(1), &mut disk);
    let user = BareJid::parse("u@d").unwrap();
    let there = Input::UserAdd { user: user.clone(), home: NodeIx::A, verifiers: Default::default() };
    node.handle(0, Word::Client(there), &mut disk);
    node.step(0, &mut disk);
    assert_eq!(node.driver.engine().state().user(&user).map(|u| u.register), Some(NodeIx::A));
    node.handle(0, Word::Op(1, Op::UserRemove(user.clone())), &mut disk);
    node.step(0, &mut disk);
    assert!(node.driver.engine().state().user(&user).is_none());
}

/// Its users are at the peer, whatever it waits for itself.
#[test]
fn it_is_not_disabled_without_force_beside_a_held_node_whose_users_are_away() {
    let (mut node, mut disk) = started(true);
    link_up(&mut node, &mut disk);
    assert_eq!(node.disable_refused(false), None);
    let away = Input::Away { group: node.me, why: Some(Away::Operator) };
    node.handle(0, Word::Client(away), &mut disk);
    node.step(0, &mut disk);
    node.feed(node.me, In::Hold(true), &mut disk);
    assert_eq!(node.facts(node.me).place, Place::Held);
    let Some(Reply::Refused(refused)) = node.disable_refused(false) else { panic!("they are away") };
    assert_eq!(refused.error, "users are served by their backup");
    assert_eq!(node.disable_refused(true), None);
}
