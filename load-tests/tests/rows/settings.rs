//! Nodes that go by different settings do not judge each other (disarmed automatics).

use super::faults::mend;
use super::*;

/// A pair whose nodes have had different settings for so long.
fn apart_for(profile: Profile, ms: u64) -> Stage {
    let mut stage = Stage::pair(profile);
    stage.settings(B, 2);
    stage.run(ms);
    stage
}

#[test]
fn nobody_takes_over_while_the_settings_differ_but_at_the_operators_word() {
    for profile in [PAIR, WITNESS] {
        let mut stage = apart_for(profile, 5 * SECOND);
        for node in BOTH {
            assert!(says(&stage, node, "the nodes' clusterwide settings differ: make them equal"));
            assert!(!says(&stage, node, "no node fails over by itself"), "it may be on its way");
        }
        stage.run(7 * SECOND);
        assert!(BOTH.iter().all(|node| says(
            &stage,
            *node,
            "until they are equal no node fails over by itself"
        )));
        stage.expect(BOTH, 1, 0);
        stage.kill(A);
        stage.run(11 * MINUTE);
        assert!(stage.leads(B, NodeIx::B) && !stage.leads(B, NodeIx::A), "{:?}", stage.shown(B));
        assert!(stage.has_row(B), "{:?}", stage.shown(B));
        let forced = stage.op(B, Op::Force { to: Force::Active, confirmed: true });
        assert!(matches!(forced, Some(Reply::Forced(_))), "{forced:?}");
        stage.run(SECOND);
        assert!(stage.leads(B, NodeIx::A));
    }
}

#[test]
fn a_difference_of_a_moment_takes_no_failover_away_nor_does_one_that_is_over() {
    let mut short = apart_for(PAIR, 5 * SECOND);
    short.kill(A);
    short.expect([B], 17, 2 * SECOND);
    let mut over = apart_for(PAIR, MINUTE);
    over.settings(A, 2);
    over.run(2 * SECOND);
    assert!(!says(&over, A, "settings differ") && !says(&over, B, "settings differ"));
    over.kill(A);
    over.expect([B], 17, 2 * SECOND);
    // The operator may make them equal when the other node is gone: then it is taken over.
    let mut late = apart_for(PAIR, MINUTE);
    late.kill(A);
    late.run(MINUTE);
    assert!(!late.leads(B, NodeIx::A));
    late.settings(B, 1);
    late.run(2 * MINUTE);
    assert!(late.leads(B, NodeIx::A), "{:?} {:?}", late.shown(B), late.alarms(B));
}

#[test]
fn neither_a_service_nor_a_rule_fails_a_node_over_while_the_settings_differ() {
    let mut stage = apart_for(PAIR, MINUTE);
    assert!(refusal(stage.op(A, Op::Failover(By::Rule))).contains("settings differ"));
    stage.service(A, Service::Database, Health::Stopped, true);
    stage.run(10 * SECOND);
    assert!(says(&stage, A, "critical service database is stopped"));
    assert!(!says(&stage, A, "is to serve all users"), "{:?}", stage.alarms(A));
    stage.run(5 * MINUTE);
    assert!(stage.leads(A, NodeIx::A) && stage.shown(A).unwrap().1[A].0 == State::Normal);
    // The operator's own word is another thing.
    stage.service(A, Service::Database, Health::Runs, false);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, SECOND);
}

#[test]
fn a_rule_is_told_as_the_cause_and_shown_as_the_operators_word() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(services::SERVICES);
    stage.moves(A);
    stage.moves(B);
    assert!(begun(stage.op(A, Op::Failover(By::Rule))));
    stage.expect(BOTH, 3, SECOND);
    let told =
        [(NodeIx::A, false, Step::Began, Cause::Rule), (NodeIx::A, false, Step::Complete, Cause::Rule)];
    assert_eq!(moves(&mut stage, A), told);
    assert_eq!(moves(&mut stage, B), told);
}

#[test]
fn both_nodes_tell_where_an_operator_asked() {
    for (by, at) in [(By::Here, NodeIx::A), (By::Peer, NodeIx::B)] {
        let mut stage = Stage::pair(PAIR);
        stage.moves(A);
        stage.moves(B);
        assert!(begun(stage.op(A, Op::Failover(by))));
        stage.expect(BOTH, 3, SECOND);
        for node in BOTH {
            let asked: Vec<_> = stage.moves(node).into_iter().map(|m| (m.stage, m.asked)).collect();
            assert_eq!(asked, [(Step::Began, Some(at)), (Step::Complete, Some(at))], "{node}");
        }
    }
}

#[test]
fn a_fallback_in_its_window_is_told_as_scheduled() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(Automatics {
        window: Some(Window { from_min: 180, to_min: 360 }),
        after: 40,
        ..Automatics::default()
    });
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage.moves(A);
    stage.moves(B);
    stage.minute(200);
    stage.expect(BOTH, 1, MINUTE);
    for node in BOTH {
        let causes: Vec<Cause> = stage.moves(node).into_iter().map(|m| m.cause).collect();
        assert_eq!(causes, [Cause::Scheduled; 2], "{node}");
    }
}

/// Two operators, or one who asks twice: one node ends as the other's backup, and nobody is led twice.
#[test]
fn failovers_of_both_nodes_at_one_instant_end_in_a_row_of_the_table_and_from_there_in_normal() {
    for apart in [0, 1, 2, 5, 20] {
        for first in BOTH {
            let mut stage = Stage::pair(PAIR);
            assert!(begun(stage.op(first, Op::Failover(By::Here))));
            stage.run(apart);
            let _ = stage.op(1 - first, Op::Failover(By::Here));
            for _ in 0..2_400 {
                stage.run(50);
                for group in NodeIx::BOTH {
                    assert!(!(stage.leads(A, group) && stage.leads(B, group)), "{apart} {first}");
                }
                for node in BOTH {
                    assert!(stage.has_row(node), "{apart} {first}: {:?}", stage.shown(node));
                }
            }
            mend(&mut stage);
        }
    }
}

/// The failover of the operator has just begun when its node is cut off: its peer takes over, once.
#[test]
fn a_takeover_on_evidence_that_meets_the_operators_failover_is_one_failover() {
    for apart in [0, 50, 250, 1_000] {
        let mut stage = Stage::pair(WITNESS);
        stage.moves(B);
        stage.cut_off(A, 3 * MINUTE);
        // What the evidence decides and what the operator asks for fall together, more or less.
        stage.run(MINUTE - 500 + apart);
        let _ = stage.op(A, Op::Failover(By::Here));
        for _ in 0..1_200 {
            stage.run(50);
            assert!(!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::A)), "{apart}");
        }
        assert!(stage.leads(B, NodeIx::A) && !stage.leads(A, NodeIx::A));
        let complete =
            stage.moves(B).into_iter().filter(|m| m.group == NodeIx::A && m.stage == Step::Complete);
        assert_eq!(complete.count(), 1, "{apart}");
        mend(&mut stage);
    }
}
