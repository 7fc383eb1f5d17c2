//! What is offered to an operator is what is accepted: [`Stage::op`] compares it wherever a test asks, and [`Stage::expect`]
//! sees to it that the rest is refused. Here it is said for the rows that an operator meets.

use srm::node::Action::{self, Failover, Fallback, ForceInactive, Recover};

use super::services::SERVICES;
use super::*;

fn failed_over() -> Stage {
    let mut stage = Stage::pair(PAIR);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, SECOND);
    stage
}

fn dead() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage
}

fn returned() -> Stage {
    let mut stage = dead();
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage.run(5 * SECOND);
    stage
}

/// A critical service is down on both nodes, for good.
pub(super) fn in_failed_mode() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(SERVICES);
    for node in BOTH {
        stage.service(node, Service::Router, Health::Stopped, true);
    }
    stage.expect(BOTH, 15, 2 * MINUTE);
    stage
}

fn without_automatics() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(Automatics { disabled: true, ..SERVICES });
    stage
}

#[test]
fn each_action_that_is_offered_in_a_row_is_accepted_there() {
    type Rows<'a> = [(u32, fn() -> Stage, [&'a [Action]; 2]); 6];
    let rows: Rows<'_> = [
        (1, || Stage::pair(PAIR), [&[Failover], &[Failover]]),
        (3, failed_over, [&[], &[Fallback]]),
        (17, dead, [&[], &[ForceInactive]]),
        (103, returned, [&[], &[Fallback]]),
        (15, in_failed_mode, [&[Recover], &[Recover]]),
        (1, without_automatics, [&[Failover, ForceInactive], &[Failover, ForceInactive]]),
    ];
    for (row, brought, offered) in rows {
        let stage = brought();
        assert!(stage.shown(B).is_some_and(|(id, _)| id == row), "{row}: {:?}", stage.shown(B));
        for node in BOTH {
            assert_eq!(stage.offers(node), offered[node], "row {row}, node {node}");
            for action in offered[node] {
                // Accepted: else it would not be as it was offered.
                brought().op(node, action.op()).expect("an answer");
            }
        }
    }
}

#[test]
fn a_move_that_is_under_way_leaves_nothing_to_be_asked_for() {
    let mut stage = Stage::pair(PAIR);
    stage.more_users(A, 200);
    stage.run(SECOND);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    assert_eq!(stage.offers(A), []);
    stage.expect(BOTH, 3, 20 * SECOND);
    assert_eq!(stage.offers(B), [Fallback]);
}

#[test]
fn force_active_beside_a_peer_that_serves_is_refused_with_automatics_disabled_too() {
    either(|home, backup| {
        for failed_over in [false, true] {
            let mut stage = without_automatics();
            if failed_over {
                assert!(begun(stage.op(home, Op::Failover(By::Here))));
                stage.expect(BOTH, 3, SECOND);
                stage.run(SECOND);
            }
            let led = |stage: &Stage| BOTH.map(|node| NodeIx::BOTH.map(|group| stage.leads(node, group)));
            let before = led(&stage);
            for confirmed in [false, true] {
                let error = refusal(stage.op(home, Op::Force { to: Force::Active, confirmed }));
                let heard =
                    format!("node {} is heard: force-active is for a peer that is not", ["a", "b"][backup]);
                assert!(
                    error.starts_with(&heard) && error.ends_with("with automatics disabled too"),
                    "{error}"
                );
            }
            stage.run(10 * SECOND);
            assert_eq!(led(&stage), before);
        }
    });
}
