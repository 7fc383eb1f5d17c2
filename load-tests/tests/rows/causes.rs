//! Every failover and fallback is told with its cause, on both nodes; one that was dead tells it when it is back. (That clients of
//! a silent node call at the other needs clients: the scenario `clients-call`; of one that is heard: `callers`.)

use srm::events::Record;

use super::services::SERVICES;
use super::*;

/// The event of this kind that a node has written since it was asked last.
#[track_caller]
fn told(stage: &mut Stage, node: usize, kind: &str) -> Record {
    let told = stage.told(node);
    let of_kind: Vec<&Record> = told.iter().filter(|record| record.event == kind).collect();
    assert!(of_kind.len() == 1, "{kind} at {node}: {told:#?}");
    of_kind[0].clone()
}

/// Its fields say this, and its text says the same in words.
#[track_caller]
fn says_why(record: &Record, cause: &str, asked_by: &str, row: u32) {
    let (fields, expected) = (
        (record.cause.as_str(), record.asked_by.as_str(), record.row, record.users),
        (cause, asked_by, Some(row), Some(5)),
    );
    assert_eq!(fields, expected, "{record:?}");
    let asked = if asked_by.is_empty() { String::new() } else { format!(", asked for at the {asked_by}") };
    let end = format!("; users: 5; cause: {cause}{asked}");
    assert!(record.text.ends_with(&end), "{record:?}");
    assert_eq!(record.states.keys().collect::<Vec<_>>(), ["a", "b"]);
}

/// What was told so far is of no interest.
fn begin(profile: Profile, automatics: Automatics) -> Stage {
    let mut stage = Stage::pair(profile);
    stage.automatics(automatics);
    BOTH.into_iter().for_each(|node| _ = stage.told(node));
    stage
}

#[test]
fn an_operator_asks_for_a_failover_and_for_a_fallback() {
    let mut stage = begin(PAIR, SERVICES);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, 5 * SECOND);
    for node in BOTH {
        let record = told(&mut stage, node, "failover-complete");
        says_why(&record, "operator", "admin API of a", 3);
        assert!(record.took_ms.is_some(), "{record:?}");
    }
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    for node in BOTH {
        says_why(&told(&mut stage, node, "fallback-complete"), "operator", "admin API of b", 1);
    }
}

#[test]
fn users_go_back_by_themselves_and_in_their_window() {
    let window = Some(Window { from_min: 60, to_min: 120 });
    for (automatics, cause) in [
        (Automatics { fallback: true, after: 40, ..SERVICES }, "automatic"),
        (Automatics { window, after: 40, ..SERVICES }, "scheduled"),
    ] {
        let mut stage = begin(PAIR, automatics);
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.minute(90);
        stage.expect(BOTH, 1, MINUTE);
        for node in BOTH {
            says_why(&told(&mut stage, node, "fallback-complete"), cause, "", 1);
        }
    }
}

#[test]
fn a_node_crashes_and_tells_on_return_that_its_users_were_taken_over() {
    let mut stage = begin(PAIR, SERVICES);
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    let record = told(&mut stage, B, "failover-complete");
    says_why(&record, "node stopped or crashed", "", 17);
    assert!(record.took_ms.is_some_and(|ms| ms < 2 * SECOND), "{record:?}");
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    says_why(&told(&mut stage, A, "failover-found"), "node stopped or crashed", "", 103);
}

#[test]
fn a_service_stops_and_a_database_does() {
    for (service, cause, row) in
        [(Service::Router, "service stopped", 12), (Service::Database, "database", 13)]
    {
        let mut stage = begin(PAIR, SERVICES);
        stage.service(A, service, Health::Stopped, true);
        stage.expect(BOTH, row, 2 * MINUTE);
        for node in BOTH {
            says_why(&told(&mut stage, node, "failover-complete"), cause, "", row);
        }
    }
}

#[test]
fn the_network_is_cut_and_who_was_cut_off_tells_it_when_it_is_heard_again() {
    let mut stage = begin(WITNESS, SERVICES);
    stage.cut_off(A, 90 * SECOND);
    stage.expect([B], 16, 70 * SECOND);
    says_why(&told(&mut stage, B, "failover-complete"), "network", "", 16);
    stage.expect(BOTH, 102, 40 * SECOND);
    says_why(&told(&mut stage, A, "failover-complete"), "network", "", 102);
}

#[test]
fn a_rule_fits_to_another_event() {
    let mut stage = begin(PAIR, SERVICES);
    assert!(begun(stage.op(A, Op::Failover(By::Rule))));
    stage.expect(BOTH, 3, 5 * SECOND);
    for node in BOTH {
        says_why(&told(&mut stage, node, "failover-complete"), "a rule on another event", "", 3);
    }
}
