//! The check finds what is different, and nothing else.

use presence_engine::record::Verifiers;
use presence_engine::state::{Key, Place};

use super::sides::{Side, meet, pair, settle};
use super::*;
use crate::msg::{CHECKS, Msg};
use crate::store::{Batch, Store};

/// A check of the first, to its end.
fn check(a: &mut Side, b: &mut Side) -> Report {
    assert!(a.driver.check());
    for _ in 0..1_000 {
        a.driver.check_next(&mut a.disk);
        settle(a, b);
        if let Some(report) = a.checked.pop() {
            assert!(!a.driver.checks());
            return report;
        }
    }
    panic!("it does not end");
}

/// Gives an account another value, behind the log's back.
fn alter(side: &mut Side, name: &str) {
    let key = Key::User(jid(name));
    let state = side.driver.engine.state_mut();
    let mut value = state.value(&key).unwrap().to_vec();
    // The last byte says that it is assigned.
    *value.last_mut().unwrap() ^= 1;
    state.set(&key.to_bytes(), &value).unwrap();
}

#[test]
fn nodes_that_hold_the_same_are_found_to_do_so_in_many_parts() {
    let [mut a, mut b] = pair(&[0, 1]);
    for n in 0..700 {
        a.add(&format!("more{n}"));
        settle(&mut a, &mut b);
    }
    let report = check(&mut a, &mut b);
    assert_eq!((report.users, report.different, report.wrong), (Some(740), 0, 0), "{report:?}");
    assert!(report.pairs.is_some_and(|pairs| pairs > 740), "{report:?}");
    assert_eq!(check(&mut b, &mut a).users, Some(40));
}

#[test]
fn an_account_that_the_peer_holds_otherwise_or_lacks_or_has_too_many_is_named() {
    let [mut a, mut b] = pair(&[0, 1]);
    alter(&mut b, "a7");
    let report = check(&mut a, &mut b);
    assert_eq!((report.users, report.different, report.named), (Some(40), 1, vec!["a7@d".to_owned()]));
    // The other node's are none of its business.
    assert_eq!(check(&mut b, &mut a).different, 0);
    let place = Place { log: NodeIx::A, at: Position::default(), forwards: 0 };
    for record in [
        Record::UserAdd { user: jid("zz"), home: NodeIx::A, verifiers: Verifiers::default() },
        Record::UserRemove { user: jid("a9"), effects: Vec::new() },
    ] {
        b.driver.engine.state_mut().apply(&mut place.clone(), &record);
    }
    let report = check(&mut a, &mut b);
    assert_eq!(report.named, ["a7@d", "a9@d", "zz@d"]);
    assert_eq!(report.different, 3);
}

#[test]
fn what_is_written_while_a_part_is_on_its_way_makes_no_difference() {
    let [mut a, mut b] = pair(&[0]);
    assert!(a.driver.check());
    a.driver.check_next(&mut a.disk);
    let part = a.driver.take();
    assert!(matches!(part[..], [Do::Send(Link::Out, Msg::Check(_))]), "{part:?}");
    let passwd = |a: &mut Side| {
        let input = Input::UserPasswd { user: jid("a7"), verifiers: Verifiers::default() };
        a.driver.turn(0, vec![input, Input::UserRemove { user: jid("a9") }], &mut a.disk);
    };
    passwd(&mut a);
    let frames = a.driver.take();
    // All of it arrives before the peer applies any of it, the part behind a frame that it waits for.
    let mut ahead = |msg: &Do| match msg {
        Do::Send(Link::Out, msg) => _ = b.driver.on_in(msg.clone(), &mut b.disk),
        other => panic!("{other:?}"),
    };
    part.iter().chain(&frames).for_each(&mut ahead);
    a.add("late");
    a.driver.check_next(&mut a.disk);
    settle(&mut a, &mut b);
    for _ in 0..10 {
        a.driver.check_next(&mut a.disk);
        settle(&mut a, &mut b);
    }
    let report = a.checked.pop().expect("it has ended");
    assert_eq!((report.users, report.different), (Some(40), 0), "{report:?}");
}

#[test]
fn a_part_is_answered_at_its_point_of_the_log_and_no_further() {
    let [mut a, mut b] = pair(&[0]);
    a.add("first");
    a.driver.check();
    a.driver.check_next(&mut a.disk);
    a.driver.turn(0, vec![Input::UserRemove { user: jid("a9") }], &mut a.disk);
    for what in a.driver.take() {
        if let Do::Send(Link::Out, msg) = what {
            b.driver.on_in(msg, &mut b.disk);
        }
    }
    // Both frames wait; one turn could apply both.
    b.driver.turn(0, Vec::new(), &mut b.disk);
    let answers: Vec<Do> = b.driver.take();
    let answer = answers.iter().find_map(|what| match what {
        Do::Send(Link::In, Msg::Checked(_, different)) => Some(different.clone()),
        _ => None,
    });
    assert_eq!(answer, Some(Vec::new()), "{answers:?}");
    assert!(b.driver.has_unprocessed());
}

#[test]
fn pairs_of_the_store_that_are_wrong_are_counted_and_the_store_begins_anew() {
    let wrong = |harm: &dyn Fn(&mut Side)| {
        let [mut a, mut b] = pair(&[0]);
        harm(&mut a);
        let report = check(&mut a, &mut b);
        // It was written anew, or there was nothing to mend.
        assert_eq!(check(&mut a, &mut b).wrong, 0);
        report.wrong
    };
    let put = |side: &mut Side, key: &[u8], value: Option<&'static [u8]>| {
        let mark = side.disk.store.mark().unwrap().unwrap();
        let pairs = vec![(key.to_vec(), value.map(Bytes::from_static))];
        side.disk.store.write(Batch { pairs, mark }).unwrap();
    };
    let key = |name: &str| Key::User(jid(name)).to_bytes();
    assert_eq!(wrong(&|_| ()), 0);
    assert_eq!(wrong(&|a| put(a, &key("a3"), Some(b"else"))), 1);
    assert_eq!(wrong(&|a| put(a, &key("a3"), None)), 1);
    assert_eq!(wrong(&|a| put(a, &key("nobody"), Some(b"x"))), 1);
    assert_eq!(wrong(&|a| put(a, &key("zz"), Some(b"x"))), 1, "behind all others");
    assert_eq!(wrong(&|a| put(a, b"g", None)), 1);
    // What has changed since the mark is not in the store yet.
    let changed = |a: &mut Side| {
        let inputs = vec![Input::UserRemove { user: jid("a3") }];
        a.driver.turn(0, inputs, &mut a.disk);
        a.add("new");
    };
    assert_eq!(wrong(&changed), 0);
}

#[test]
fn without_a_peer_that_can_the_accounts_are_compared_with_nobody() {
    let [mut a, b] = pair(&[0]);
    a.driver.disconnected();
    let mut alone = b;
    assert!(a.driver.check() && !a.driver.check(), "one at a time");
    for _ in 0..100 {
        a.driver.check_next(&mut a.disk);
    }
    let ended = a.driver.take().into_iter().find_map(|what| match what {
        Do::Checked(report) => Some(report),
        _ => None,
    });
    let report = ended.expect("it ends");
    assert_eq!((report.users, report.wrong), (None, 0));
    assert!(report.pairs.is_some());

    alone.driver.cfg.versions = (VERSIONS.0, CHECKS - 1);
    a.driver.connected();
    let disk = std::mem::take(&mut alone.disk);
    let mut b = meet(&mut a, disk);
    b.driver.cfg.versions = (VERSIONS.0, CHECKS - 1);
    a.driver.disconnected();
    b.driver.peer_gone();
    a.driver.connected();
    settle(&mut a, &mut b);
    assert_eq!(check(&mut a, &mut b).users, None, "the peer is of the version before");
}

#[test]
fn what_is_different_once_is_looked_at_again() {
    let [mut a, mut b] = pair(&[0]);
    for attempts in 1..=3 {
        alter(&mut b, "a7");
        a.driver.check();
        for _ in 0..attempts {
            a.driver.check_next(&mut a.disk);
            settle(&mut a, &mut b);
        }
        // The flag is back before the next attempt.
        alter(&mut b, "a7");
        for _ in 0..5 {
            a.driver.check_next(&mut a.disk);
            settle(&mut a, &mut b);
        }
        let report = a.checked.pop().expect("it has ended");
        assert_eq!(report.different, u64::from(attempts == 3), "after {attempts}");
    }
}
