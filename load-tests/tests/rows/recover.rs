//! What clients with streams see of the path between the nodes and of the failed mode.

use super::services::SERVICES;
use super::*;

/// Clients go on for a minute, and then everything that they sent is acknowledged and shown.
pub(super) fn all_arrives(stage: &mut Stage) {
    let before = stage.sent();
    stage.run(MINUTE);
    assert!(stage.sent() > before, "they still talk");
    stage.run(5 * MINUTE);
    assert_eq!(stage.open(), Vec::<String>::new());
}

#[test]
fn row_119_only_the_path_between_the_nodes_is_down() {
    let mut stage = Stage::pair(PAIR);
    stage.clients(0);
    BOTH.into_iter().for_each(|node| _ = stage.moves(node));
    stage.cut(1_000 * MINUTE);
    // Clients are asked after 10 s; until then the other node is not heard, and that is all that is known.
    stage.expect(BOTH, 119, 15 * SECOND);
    assert_eq!(BOTH.map(|node| stage.shown(node).unwrap().1), [[(State::Normal, Reason::Normal); 2]; 2]);
    // For longer than the keep-alive time-out: nobody is held to be gone, and nobody is taken over.
    stage.stays(&BOTH, 119, 3 * MINUTE);
    for (node, own) in BOTH.into_iter().zip(NodeIx::BOTH) {
        assert!(stage.ready(node) && stage.leads(node, own) && !stage.leads(node, own.peer()));
        assert_eq!((moves(&mut stage, node), stage.losses(node)), (vec![], 0));
        assert!(says(&stage, node, "only the path between the nodes is down"), "{:?}", stage.alarms(node));
        assert!(says(&stage, node, "unprotected"), "{:?}", stage.alarms(node));
    }
    stage.cut(0);
    stage.expect(BOTH, 1, MINUTE);
    stage.run(2 * SECOND);
    assert!(
        BOTH.into_iter().all(|node| !says(&stage, node, "only the path")),
        "{:?}",
        BOTH.map(|node| stage.alarms(node))
    );
}

#[test]
fn a_recover_after_services_failed_on_both_nodes_drops_no_stream() {
    for asked in BOTH {
        let mut stage = Stage::pair(PAIR);
        stage.automatics(SERVICES);
        stage.clients(5 * MINUTE);
        let streams = stage.streams();
        for node in BOTH {
            stage.service(node, Service::Router, Health::Fails, true);
        }
        stage.expect(BOTH, 15, 2 * MINUTE);
        stage.stays(&BOTH, 15, 30 * SECOND);
        for node in BOTH {
            stage.service(node, Service::Router, Health::Fails, false);
        }
        let sent = stage.sent();
        assert_eq!(stage.op(asked, Op::Recover), Some(Reply::Done));
        stage.expect(BOTH, 1, 2 * SECOND);
        assert_eq!(
            stage.streams(),
            streams,
            "the same connections carry the same sessions, and nobody logged in"
        );
        assert!(sent > 0);
        all_arrives(&mut stage);
        assert_eq!(stage.streams(), streams, "and so they do afterwards");
    }
}

#[test]
fn a_recover_after_a_failover_that_moved_nobody_drops_no_stream() {
    let mut stage = Stage::pair(PAIR);
    stage.clients(5 * MINUTE);
    let streams = stage.streams();
    stage.moves_are_lost(A, true);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 19, 80 * SECOND);
    stage.stays(&BOTH, 19, 10 * SECOND);
    stage.moves_are_lost(A, false);
    assert_eq!(stage.op(B, Op::Recover), Some(Reply::Done));
    stage.expect(BOTH, 1, 2 * SECOND);
    assert_eq!(
        stage.streams(),
        streams,
        "the same connections carry the same sessions, and nobody logged in"
    );
    all_arrives(&mut stage);
    assert_eq!(stage.streams(), streams, "and so they do afterwards");
}
