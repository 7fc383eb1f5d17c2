//! Storms of logins on the virtual clock, between two whole nodes: who comes in and when, and that the pair does not notice.

use load_tests::pair::storm::{Crowd, Machine};
use xmpp_core::net::Class;

const A: usize = 0;
const B: usize = 1;
const SECOND: u64 = 1_000;

/// Two processors of which logins may take one: 250 a second of those who return, 100 new ones.
const MACHINE: Machine = Machine { cores: 2, share: 50, deadline_ms: 10_000, cost_ms: [4, 10] };

/// Time that so many logins need at the rate that the machine allows, in milliseconds: W = N c / (k u).
fn window(returning: usize, new: usize) -> u64 {
    let [old, fresh] = MACHINE.cost_ms;
    let work = returning as u64 * old + new as u64 * fresh;
    work * 100 / (MACHINE.cores as u64 * u64::from(MACHINE.share))
}

/// Fault 62. Everybody is homed at one node; it dies, and all come to the other at once, whatever they were told.
#[test]
fn all_users_of_a_node_that_died_are_in_within_their_window_and_in_the_order_of_what_they_bring() {
    let (dual, plain, new) = (100, 1_500, 600);
    let mut crowd = Crowd::pair(dual, plain, new);
    crowd.storm_at(B, MACHINE);
    crowd.kill(A);
    crowd.come(dual + plain..dual + plain + new, B);
    let died = crowd.now();
    let w = window(plain, new);
    assert!(w > MACHINE.deadline_ms, "so many that some are turned away at first: {w}");
    while crowd.settled() < dual + plain + new {
        crowd.run(10);
        assert!(crowd.now() - died <= w * 13 / 10, "{} are in after 1.3 x {w} ms", crowd.settled());
    }
    let took = crowd.now() - died;
    assert!(took >= w * 7 / 10, "the share was kept: {took} of {w}");
    let seen = crowd.seen();
    assert!(seen.turned_away > 0 && seen.most > 500, "{} {}", seen.turned_away, seen.most);

    // A flip goes by all who wait.
    assert_eq!(seen.flipped.len(), dual);
    let last_flip = seen.flipped.iter().map(|(at, _)| at - died).max().unwrap();
    assert!(last_flip < SECOND, "{last_flip}");
    // Then who resumes, then who is new: from when all are there, nobody new comes in before the last of the others.
    let waited = |class| {
        let all = seen.admitted.iter().filter(move |a| a.2 == class && a.3);
        all.map(|a| a.0 - died).filter(|at| *at > SECOND)
    };
    let resumed = waited(Class::Returning).max().unwrap();
    let (first_new, last_new) = (waited(Class::New).min().unwrap(), waited(Class::New).max().unwrap());
    assert!(
        resumed <= first_new,
        "a new one came in after {first_new} ms, the last resume after {resumed} ms"
    );
    assert!(last_new > first_new + 2 * SECOND, "{first_new} {last_new}");
    // Each of them came in by one login: nothing was spent on those that gave up.
    assert!(seen.found.len() == plain + new, "{} of {}", seen.found.len(), plain + new);
}

/// Beacons and replication come before logins: under a full queue the other node misses nothing, and nothing waits for it.
#[test]
fn under_a_full_queue_of_logins_beacons_leave_in_time_and_what_is_replicated_is_acknowledged() {
    let (plain, new) = (50, 1_500);
    let mut crowd = Crowd::pair(0, plain, new);
    crowd.storm_at(B, MACHINE);
    let begun = crowd.now();
    crowd.come(plain..plain + new, B);
    crowd.run(SECOND / 2);
    assert!(crowd.waiting() > 500, "{}", crowd.waiting());
    for number in 0..16 {
        crowd.write(A, number);
        let written = crowd.node(A).driver().own_end().seq;
        crowd.run(SECOND / 2);
        let (acked, snapshot) = (crowd.node(A).driver().acked(), crowd.node(A).snapshot());
        assert!(acked >= written, "after half a second {acked} of {written} are with the peer");
        assert!(snapshot.peer_up && snapshot.heard_ms.is_some_and(|ms| ms <= 2_000), "{snapshot:?}");
        assert_eq!((snapshot.row.0, snapshot.alarms), (1, Vec::new()));
        assert!(crowd.waiting() > 0, "the queue was never empty");
    }
    let beacons = &crowd.seen().beacons[B];
    let gaps = beacons.windows(2).map(|two| two[1] - two[0]);
    let longest = gaps.chain([beacons[0] - begun]).max().unwrap();
    assert!(longest <= 1_400, "a beacon a second, and the longest gap is {longest} ms");
}
