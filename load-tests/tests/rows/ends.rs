//! An end of a node's log that its disk lost and its peer has, which took over with it. The node is back while the peer is away,
//! and goes on alone without that end.

use bytes::Bytes;
use presence_engine::record::Verifiers;
use xmpp_core::jid::BareJid;

use super::*;

/// Both nodes may lead one group alone for a while.
const ALONE: Profile = Profile { weak: true, may_refuse: true, ..PAIR };

fn until(stage: &mut Stage, within_ms: u64, what: &str, holds: impl Fn(&Stage) -> bool) {
    for _ in 0..within_ms / 50 {
        if holds(stage) {
            return;
        }
        stage.run(50);
    }
    let shown = BOTH.map(|node| stage.shown(node));
    panic!("not within {within_ms} ms: {what}: {shown:?} {:?}", stage.unwell());
}

fn account(user: u8) -> BareJid {
    BareJid::new(Some(&format!("u{user}")), "d").expect("a name")
}

/// The account gets a password at this node that is known by its salt.
fn passwd(stage: &mut Stage, node: usize, user: u8) {
    let verifiers = Verifiers { salt: Bytes::from(vec![user + 1]), ..Verifiers::default() };
    let reply = stage.op(node, Op::UserPasswd(account(user), Box::new(verifiers)));
    assert!(!matches!(reply, Some(Reply::Refused(_) | Reply::NotHere)), "{reply:?}");
}

fn salt(stage: &Stage, node: usize, user: u8) -> Bytes {
    let found = stage.users(node).into_iter().find(|(jid, _)| *jid == account(user));
    found.expect("an account").1.verifiers.salt
}

fn leads_all(stage: &Stage, node: usize) -> bool {
    NodeIx::BOTH.iter().all(|group| stage.leads(node, *group))
}

/// `end`: of whom the lost end of a's log is. `told`: to whom each node has told something that is safe then, while it led everybody
/// alone. (Even ones are at home at a, odd ones at b.)
fn lost_and_gone_on(end: &[u8], told: [&[u8]; 2]) -> Stage {
    let mut stage = Stage::pair(ALONE);
    stage.kill(B);
    until(&mut stage, 10 * MINUTE, "a leads everybody", |stage| leads_all(stage, A));
    stage.start(B);
    let in_pair = |stage: &Stage| NodeIx::BOTH.iter().all(|group| stage.lease_left(A, *group).is_some());
    until(&mut stage, 10 * MINUTE, "both are back in Pair", in_pair);
    stage.run(10 * SECOND);

    stage.disk_stalls(A, 2 * SECOND);
    end.iter().for_each(|user| passwd(&mut stage, A, *user));
    stage.run(SECOND / 2);
    stage.kill(A);
    assert!(stage.copy_is_ahead(A), "what a lost b has");
    until(&mut stage, 10 * MINUTE, "b leads everybody", |stage| leads_all(stage, B));
    told[B].iter().for_each(|user| passwd(&mut stage, B, *user));
    stage.run(2 * SECOND);
    stage.kill(B);

    stage.start(A);
    until(&mut stage, 10 * MINUTE, "a leads everybody alone", |stage| leads_all(stage, A));
    told[A].iter().for_each(|user| passwd(&mut stage, A, *user));
    stage.run(2 * SECOND);
    stage.start(B);
    until(&mut stage, 5 * MINUTE, "the pair is well again", |stage| stage.unwell().is_none());
    for node in BOTH {
        for user in end.iter().chain(told[A]).chain(told[B]) {
            assert_eq!(salt(&stage, node, *user), vec![user + 1], "u{user} at {node}");
        }
    }
    stage
}

#[test]
fn a_node_that_lost_what_its_peer_took_over_with_and_went_on_alone_finds_back_to_it() {
    lost_and_gone_on(&[0], [&[3], &[2]]);
}

#[test]
fn so_does_one_that_lost_what_both_groups_were_told() {
    lost_and_gone_on(&[0, 1], [&[3], &[2]]);
}

/// Then it is settled that each leads its own users on.
#[test]
fn what_a_node_lost_stands_where_its_peer_leads_only_those_of_whom_that_is() {
    for end in [&[1][..], &[0, 1]] {
        let stage = lost_and_gone_on(end, [&[4, 3], &[2, 5]]);
        assert!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    }
}
