//! What a node says too late: it had decided so, stood still before the socket, and was replaced meanwhile.

use super::*;

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
