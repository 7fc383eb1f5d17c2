//! What is played with a death at every step: what operators ask for, and what nodes do by themselves.

use srm::config::Assignment;
use xmpp_core::jid::BareJid;

use super::super::group::{OFF, ON};
use super::super::services::SERVICES;
use super::*;

/// The delay for services is two seconds, and the flap guard is another test's.
const SOON: Automatics = Automatics { delay: 8, failovers_per_hour: 100, ..SERVICES };
/// Ten seconds: a service that is restarted has been probed by then.
const PROBED: Automatics = Automatics { delay: 40, ..SOON };
/// Users who are not at home go there by themselves after three seconds.
const BACK_SOON: Automatics = Automatics { fallback: true, after: 12, ..SOON };
const WITHOUT: Automatics = Automatics { disabled: true, ..SOON };

fn failed_over(stage: &mut Stage) {
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, 10 * SECOND);
    stage.run(3 * SECOND);
}

fn taken_over(stage: &mut Stage) {
    stage.kill(A);
    stage.expect([B], 17, 5 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 20 * SECOND);
    stage.run(3 * SECOND);
}

/// As soon as the home node has caught up; whoever is asked may die meanwhile.
fn gives_back(stage: &mut Stage) {
    for _ in 0..100 {
        match stage.op(B, Op::Fallback(By::Here)) {
            Some(Reply::Refused(_)) => stage.run(50),
            _ => return,
        }
    }
}

fn watched(stage: &mut Stage) {
    stage.automatics(SOON);
    stage.run(SECOND);
}

fn failed_over_and_watched(stage: &mut Stage) {
    watched(stage);
    failed_over(stage);
}

fn without_automatics(stage: &mut Stage) {
    stage.automatics(WITHOUT);
    stage.run(SECOND);
}

fn forced_inactive(stage: &mut Stage) {
    without_automatics(stage);
    let forced = stage.op(A, Op::Force { to: Force::Inactive, confirmed: true });
    assert!(matches!(forced, Some(Reply::Forced(_))), "{forced:?}");
    stage.expect(BOTH, 130, 10 * SECOND);
    stage.run(SECOND);
}

fn switched_off(stage: &mut Stage) {
    assert_eq!(stage.op(A, OFF), None, "answered when it is safe");
    stage.expect(BOTH, 122, 5 * SECOND);
    stage.run(SECOND);
}

/// Both are killed. The machine of node a does not answer, and node b has waited for it nearly as long as it waits.
fn starts_alone(stage: &mut Stage) {
    BOTH.into_iter().for_each(|node| stage.kill(node));
    stage.run(SECOND);
    stage.cut(1_000 * MINUTE);
    stage.start(B);
    stage.expect([B], 101, SECOND);
    stage.run(118 * SECOND);
}

/// Node b takes over, or dies of it; then node a starts, and the two hear each other.
fn takes_over_and_is_heard(stage: &mut Stage) {
    for _ in 0..5 * SECOND {
        if shown(stage)[B] == Some(118) {
            break;
        }
        stage.run(1);
    }
    stage.cut(0);
    stage.start(A);
}

/// A node announces its restart, and something else is asked for before it is gone.
fn restarts_and_then(stage: &mut Stage, node: usize, asks: fn(&mut Stage)) {
    stage.op(node, Op::Restart);
    stage.run(49);
    asks(stage);
}

/// Whether all users of whom this is true are at home at a node, and both nodes know it.
fn at_home(stage: &Stage, home: NodeIx, of: impl Fn(&BareJid) -> bool) -> bool {
    BOTH.into_iter().all(|node| {
        let users = stage.users(node);
        let mut those = users.iter().filter(|(user, _)| of(user));
        !users.is_empty() && those.all(|(_, user)| user.home == home && user.register == home)
    })
}

/// The first user, who is at home at a.
fn first() -> BareJid {
    BareJid::new(Some("u0"), "d").expect("a name")
}

/// Wherever that user is now.
fn knows_the_home(stage: &Stage) -> bool {
    BOTH.into_iter().all(|node| {
        let users = stage.users(node);
        users.iter().any(|(user, known)| *user == first() && known.home == NodeIx::B)
    })
}

/// What most operations have in common.
const ANY: Operation = Operation {
    name: "",
    profile: PAIR,
    before: |_| {},
    asks: |_| {},
    later: false,
    done: |_| false,
    ends: &[],
    keeps: |_| true,
    has: &[],
    again: false,
};

/// Node a loses a service, and its users go to node b.
const SERVICE: Operation = Operation {
    before: watched,
    later: true,
    has: &[What::Save, What::Written, What::Frame, What::Link, What::Told],
    ..ANY
};

const ROUTER: Operation = Operation {
    name: "a failover for a service (108, 12)",
    asks: |stage| stage.service(A, Service::Router, Health::Fails, false),
    done: |stage| both(stage, 12),
    ends: &[1, 11, 12, 103],
    ..SERVICE
};

#[test]
fn a_death_at_every_step_of_a_failover_for_a_service() {
    at_every_step(&ROUTER);
}

#[test]
fn a_death_at_every_step_of_a_failover_for_a_service_with_a_witness() {
    at_every_step(&Operation {
        name: "a failover for a service, with a witness",
        profile: WITNESS,
        ..ROUTER
    });
}

#[test]
fn a_death_at_every_step_of_a_failover_for_the_database() {
    at_every_step(&Operation {
        name: "a failover for the database (109, 13)",
        asks: |stage| stage.service(A, Service::Database, Health::Fails, false),
        done: |stage| both(stage, 13),
        ends: &[1, 13, 103, 123],
        ..SERVICE
    });
}

/// Node b, which serves all, loses a service, and all users go to node a.
const BACKUP: Operation = Operation {
    before: failed_over_and_watched,
    has: &[What::Written, What::Frame, What::Link, What::Told],
    ..SERVICE
};

#[test]
fn a_death_at_every_step_of_a_move_to_the_home_node_because_its_backup_lost_a_service() {
    at_every_step(&Operation {
        name: "a service of the backup (23)",
        asks: |stage| stage.service(B, Service::Router, Health::Fails, false),
        done: |stage| both(stage, 12),
        ends: &[1, 11, 12, 103],
        ..BACKUP
    });
}

#[test]
fn a_death_at_every_step_of_a_move_to_the_home_node_because_its_backup_lost_the_database() {
    at_every_step(&Operation {
        name: "the database of the backup (22)",
        asks: |stage| stage.service(B, Service::Database, Health::Fails, false),
        done: |stage| both(stage, 13),
        ends: &[1, 13, 103, 123],
        ..BACKUP
    });
}

#[test]
fn a_death_at_every_step_of_a_recover() {
    at_every_step(&Operation {
        name: "a recover (15)",
        before: |stage| {
            stage.automatics(PROBED);
            stage.run(SECOND);
            BOTH.into_iter().for_each(|node| stage.service(node, Service::Router, Health::Fails, true));
            stage.expect(BOTH, 15, 20 * SECOND);
            stage.run(SECOND);
            // They can be started again.
            BOTH.into_iter().for_each(|node| stage.service(node, Service::Router, Health::Fails, false));
        },
        asks: |stage| _ = stage.op(A, Op::Recover),
        done: |stage| both(stage, 1),
        ends: &[1, 11, 12, 15, 21, 103],
        has: &[What::Link, What::Told, What::Shell],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_an_automatic_fallback() {
    at_every_step(&Operation {
        name: "an automatic fallback (10)",
        before: taken_over,
        asks: |stage| stage.automatics(BACK_SOON),
        later: true,
        done: |stage| both(stage, 1),
        // Whoever is not at home goes there by himself, whatever the death has made of it.
        ends: &[1],
        has: &[What::Save, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_failover_with_a_witness() {
    at_every_step(&Operation {
        name: "a failover of the operator, with a witness (2, 3)",
        profile: WITNESS,
        asks: |stage| _ = stage.op(A, Op::Failover(By::Here)),
        done: |stage| both(stage, 3),
        ends: &[1, 3, 5, 103],
        has: &[What::Reply, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_fallback_after_a_takeover_with_a_witness() {
    at_every_step(&Operation {
        name: "a fallback after a takeover, with a witness (4)",
        profile: WITNESS,
        before: taken_over,
        asks: gives_back,
        done: |stage| both(stage, 1),
        ends: &[1, 103],
        has: &[What::Save, What::Asked, What::Heard, What::Reply, What::Frame],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_takeover_with_a_witness() {
    at_every_step(&Operation {
        name: "a takeover with a witness (112, 17, 103)",
        profile: WITNESS,
        asks: |stage| stage.dies_now(A),
        done: |stage| both(stage, 103),
        ends: &[1, 103],
        has: &[What::Save, What::Asked, What::Heard, What::Told],
        ..ANY
    });
}

/// The same without a witness: nobody is asked.
#[test]
fn a_death_at_every_step_of_a_failover() {
    at_every_step(&Operation {
        name: "a failover of the operator (2, 3)",
        asks: |stage| _ = stage.op(A, Op::Failover(By::Here)),
        done: |stage| both(stage, 3),
        ends: &[1, 3, 5, 103],
        has: &[What::Reply, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_takeover() {
    at_every_step(&Operation {
        name: "a takeover (17, 103)",
        asks: |stage| stage.dies_now(A),
        done: |stage| both(stage, 103),
        ends: &[1, 103],
        has: &[What::Save, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_takeover_by_a_node_that_starts_and_does_not_hear_the_other() {
    at_every_step(&Operation {
        name: "a takeover during initialization (118, 18)",
        profile: Profile { peer_and_disk: true, ..PAIR },
        before: starts_alone,
        asks: takes_over_and_is_heard,
        done: |stage| both(stage, 18),
        ends: &[1, 18, 103],
        has: &[What::Save, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

/// A node says that it restarts, and its peer waits for it: nobody takes over.
const RESTART: Operation =
    Operation { before: failed_over, has: &[What::Reply, What::Link, What::Shell, What::Told], ..ANY };

#[test]
fn a_death_at_every_step_of_a_restart_of_an_idle_node() {
    at_every_step(&Operation {
        name: "a restart of the node that is Idle (5)",
        asks: |stage| _ = stage.op(A, Op::Restart),
        done: |stage| both(stage, 5),
        ends: &[5, 6, 103],
        ..RESTART
    });
}

#[test]
fn a_death_at_every_step_of_a_restart_of_the_node_in_backup_mode() {
    at_every_step(&Operation {
        name: "a restart of the node in backup mode (7)",
        asks: |stage| _ = stage.op(B, Op::Restart),
        done: |stage| both(stage, 7),
        ends: &[5, 6, 7, 103],
        ..RESTART
    });
}

#[test]
fn a_death_at_every_step_of_a_restart_of_the_node_that_takes_over() {
    at_every_step(&Operation {
        name: "a restart of the node that takes over (8, 7)",
        before: |_| {},
        asks: |stage| restarts_and_then(stage, B, |stage| _ = stage.op(A, Op::Failover(By::Here))),
        done: |stage| both(stage, 7),
        ends: &[1, 5, 6, 7, 103],
        ..RESTART
    });
}

#[test]
fn a_death_at_every_step_of_a_restart_of_the_node_that_takes_back() {
    at_every_step(&Operation {
        name: "a restart of the node that takes back (9, 1)",
        asks: |stage| restarts_and_then(stage, A, |stage| _ = stage.op(B, Op::Fallback(By::Here))),
        done: |stage| both(stage, 1),
        ends: &[1, 5, 6, 103],
        ..RESTART
    });
}

#[test]
fn a_death_at_every_step_of_a_stop_of_a_node_that_hands_its_users_over() {
    at_every_step(&Operation {
        name: "a node that is stopped, and started again (110, 103)",
        asks: |stage| _ = stage.op(A, Op::Leave),
        done: |stage| both(stage, 103),
        ends: &[1, 103],
        has: &[What::Reply, What::Written, What::Frame, What::Link, What::Shell, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_rebalance() {
    at_every_step(&Operation {
        name: "a rebalance",
        asks: |stage| {
            stage.automatics(Automatics { assignment: Assignment::ActiveStandby, ..Automatics::default() });
            BOTH.into_iter().for_each(|node| _ = stage.op(node, Op::Rebalance));
        },
        done: |stage| at_home(stage, NodeIx::A, |_| true),
        ends: &[1, 103],
        has: &[What::Written, What::Frame, What::Link, What::Reply],
        again: true,
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_an_assignment() {
    at_every_step(&Operation {
        name: "an assignment",
        asks: |stage| _ = stage.op(A, Op::Assign(first(), Some(NodeIx::B))),
        done: |stage| at_home(stage, NodeIx::B, |user| *user == first()),
        ends: &[1, 103],
        keeps: knows_the_home,
        has: &[What::Written, What::Frame, What::Link],
        again: true,
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_switching_high_availability_off() {
    at_every_step(&Operation {
        name: "high availability off (122)",
        asks: |stage| _ = stage.op(A, OFF),
        done: |stage| both(stage, 122),
        ends: &[1, 103, 122],
        keeps: |stage| both(stage, 122),
        has: &[What::Written, What::Frame, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_switching_high_availability_on() {
    at_every_step(&Operation {
        name: "high availability on (132)",
        before: switched_off,
        asks: |stage| _ = stage.op(A, ON),
        done: |stage| both(stage, 1),
        ends: &[1, 103, 122],
        keeps: |stage| !both(stage, 122),
        has: &[What::Written, What::Frame, What::Told, What::Shell],
        ..ANY
    });
}

/// Node a is to serve nobody.
const INACTIVE: Operation = Operation {
    name: "a node forced inactive (130)",
    before: without_automatics,
    asks: |stage| _ = stage.op(A, Op::Force { to: Force::Inactive, confirmed: true }),
    done: |stage| both(stage, 130),
    ends: &[1, 130],
    keeps: |stage| both(stage, 130),
    has: &[What::Save, What::Reply, What::Told],
    ..ANY
};

#[test]
fn a_death_at_every_step_of_forcing_a_node_inactive() {
    at_every_step(&INACTIVE);
}

#[test]
fn a_death_at_every_step_of_forcing_a_node_inactive_with_a_witness() {
    at_every_step(&Operation {
        name: "a node forced inactive, with a witness",
        profile: WITNESS,
        ..INACTIVE
    });
}

/// Node b is to serve everybody beside one that serves nobody.
const ACTIVE: Operation = Operation {
    name: "a node forced active (3)",
    before: forced_inactive,
    asks: |stage| _ = stage.op(B, Op::Force { to: Force::Active, confirmed: true }),
    done: |stage| both(stage, 3),
    ends: &[1, 3, 5, 6, 7, 128, 130],
    has: &[What::Save, What::Reply, What::Frame, What::Told],
    ..ANY
};

#[test]
fn a_death_at_every_step_of_forcing_a_node_active() {
    at_every_step(&ACTIVE);
}

#[test]
fn a_death_at_every_step_of_forcing_a_node_active_with_a_witness() {
    at_every_step(&Operation {
        name: "a node forced active, with a witness",
        profile: WITNESS,
        // The death is seen before the witness has answered the operator's word: it is the reason then.
        ends: &[1, 3, 5, 6, 7, 103, 128, 130],
        has: &[What::Save, What::Asked, What::Heard, What::Reply, What::Told],
        ..ACTIVE
    });
}
