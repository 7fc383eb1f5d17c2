//! What a node says too late: it had decided so, stood still before the socket, and was replaced meanwhile.

use super::faults::mend;
use super::*;

/// What a node signs waits as everything does that it says: for its right to speak, and for what it wrote before.
#[test]
fn a_node_that_is_fenced_or_whose_log_stands_still_vouches_for_nobody() {
    for fenced in [true, false] {
        // Under this policy nobody goes on alone by itself.
        let mut stage = Stage::pair(STRICT);
        stage.clients_of(&[A], 0);
        let vouches = |stage: &mut Stage| {
            let (answered, vouched) = (stage.reported(), stage.vouched());
            stage.say_lost(B);
            stage.run(5 * SECOND);
            assert!(stage.reported() > answered, "b has asked them");
            stage.vouched() - vouched
        };
        assert!(vouches(&mut stage) > 0, "a is well");
        if !fenced {
            stage.beacons_pass();
        }
        stage.cut(14 * SECOND);
        stage.more_users(A, usize::from(!fenced));
        stage.run(4 * SECOND);
        assert_eq!(stage.leads(A, NodeIx::A), !fenced);
        assert_eq!(vouches(&mut stage), 0, "fenced: {fenced}");
        assert!(!stage.leads(B, NodeIx::A), "and yet nobody takes its place");
        stage.run(30 * SECOND);
        mend(&mut stage);
        assert!(vouches(&mut stage) > 0, "a is well again");
    }
}

/// The client has begun to resume at b, and waits for the answer: on the stream that it had comes what a had to say under the
/// epoch of before. It reads nothing of that; b says it again.
#[test]
fn what_comes_late_from_a_node_that_was_replaced_is_shown_once() {
    for profile in [PAIR, WITNESS] {
        let mut stage = Stage::pair(profile);
        stage.clients(2 * MINUTE);
        let before: Vec<_> = stage.streams().0.into_iter().map(|(_, session)| session).collect();
        stage.run(2 * SECOND);
        let client = stage.stand_still_releasing(A);
        // The node is silent, nobody vouches for it, and its clients wait for twice as long before they give it up.
        let found = (0..15 * SECOND).find_map(|_| {
            stage.run(1);
            stage.old_stream(client)
        });
        let old = found.expect("told to resume at b, with the old stream still there");
        assert!(stage.leads(B, NodeIx::A));
        // What b answers waits for its disk.
        stage.disk_stalls(B, 2 * SECOND);
        stage.run(SECOND);
        assert_eq!(stage.old_stream(client), Some(old), "it has both streams when a goes on");
        let before_it = stage.came(A, old);
        let decided = stage.go_on(A);
        stage.run(SECOND / 2);
        let [to_it, all] = stage.came(A, old);
        assert!(to_it > before_it[0], "what a had decided has come");
        assert!(all - before_it[1] <= decided, "and nothing else: {} of {decided}", all - before_it[1]);
        assert!(!stage.leads(A, NodeIx::A) && !stage.leads(A, NodeIx::B));
        stage.run(2 * MINUTE);
        // Whatever was shown twice, or out of order, has failed before.
        assert_eq!(stage.open(), Vec::<String>::new(), "everything that was said was shown and acknowledged");
        let after: Vec<_> = stage.streams().0.into_iter().map(|(_, session)| session).collect();
        assert_eq!(after, before, "nobody logged in anew");
        assert_eq!(stage.served(B), 10);
    }
}
