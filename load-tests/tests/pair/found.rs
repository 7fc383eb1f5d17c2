//! Seeds that found something, one of each kind.

use load_tests::pair::{Profile, replay, run};

use super::explain;

/// Seeds of twenty thousand that failed once, each by a fault of its own. They stay in the run of every day.
#[test]
fn what_twenty_thousand_seeds_found_stays_mended() {
    let once = [
        // What a user sent before its session moved was processed after what it sent then.
        (477, Profile::HELD_APART),
        // An attempt to resume that came behind a later one numbered anew what its client had counted.
        (9_605, Profile::HELD),
        (4_387, Profile::HELD_APART),
        (17_068, Profile::WITNESS),
        // A stream that waited for a node was attached as it had been before its user went away and came back.
        (16_462, Profile::SERVICES),
        // What had waited at a node for a stream of the other, dead by then, took the session away from where its client was.
        (13_097, Profile::HELD),
        (16_477, Profile::HELD),
        // A backup that was back at once was told that it holds what the run before had held.
        (4_579, Profile::HELD_APART),
        // A node that lost its role told why a stream was to end, by a state that was void.
        (304, Profile::HELD_APART),
        // A message came out of the void tail of the own log, and out of the log of the node that leads its sender.
        (2_871, Profile::HELD_APART),
        // A client went on where its count was not the one of its branch.
        (19_653, Profile::PARTITION),
        // A witness had given a group to a node that died before it heard of it, and led much later with less than all.
        (15_049, Profile::GROUP_APART),
        // Who had lost its disk and leads both groups took no frames of the one that it was to fetch.
        (1_381, Profile::HELD),
        (7_872, Profile::GROUP_APART),
        // A client whose last word was a hand-over, and who had heard before that its old group was led alone.
        (3_247, Profile::HELD_APART),
        // The answer of somebody who is led on, to somebody who is led elsewhere by then.
        (1_488, Profile::HELD_APART),
        // A resume that had been given up was taken after the one that its client reads.
        (7_552, Profile::PEOPLE_APART),
        // Behind a move that was dropped with a tail, users of the peer counted as led here.
        (6_739, Profile::PEOPLE_APART),
        // What was undone for a session without stream management went to the stream that it had lost.
        (20_988, Profile::PEOPLE_APART),
        // A hand-over was not at the peer when each node took the other's group over: both served the user.
        (629, Profile::GROUP_APART),
        // An attempt that was given up came by a front that had not heard of the session, let alone of the later one.
        (3_375, Profile::IMPATIENT),
        (14_710, Profile::IMPATIENT),
        // The check of a merge left out what the peer's log says behind it.
        (1_548, Profile::WITNESS),
        // The simulated wire went on behind what it had lost.
        (1_287, Profile::GROUP_APART),
        // A term of the group that a user came from was taken for a branch of the one that leads alone now.
        (21_470, Profile::GROUP_APART),
        // A front said late what it had known before it had the session itself: the queue was numbered anew.
        (20_091, Profile::IMPATIENT_APART),
        // Between the announcement of a term and its record, a client of the void branch was taken for one of this.
        (195, Profile::ALONE),
        // Of two partitions, what a session lacks since the second was forgotten over what it lacks since the first.
        (143, Profile::ALONE_DEVICES),
        // Who asked again for what had been granted in a void branch was not answered.
        (915, Profile::ROSTERS),
        // A client had not enabled stream management when its node died.
        (600_634, Profile::ALONE_DEVICES),
        // What waited for a client whose front had forgotten it was lost, or had just been let go.
        (800_475, Profile::ALONE_DEVICES),
        // Who had been handed over was told the term of the node that it had left.
        (700_852, Profile::HELD_APART),
        // A front counted attempts by the tail of a log that was void, and a resume that had been given up was granted.
        (1_000_544, Profile::IMPATIENT),
        // A node was joined, and took over, while the end of its own log was still on its way to it.
        (1_100_413, Profile::IMPATIENT),
        // Who had been bound by a front, and heard of it after a takeover, was held to be without a stream: presence had no number.
        (1_100_702, Profile::ALONE_DEVICES),
        // A client that had left a node, and heard then of the term of who stayed, was held to have been told of another branch.
        (1_300_050, Profile::RESTARTS),
        // Each node took the other's users over, and a contact was shown once more what had been shown by who left.
        (1_000_902, Profile::IMPATIENT_WITNESS),
        // A node announced a term to who had left it with a hand-over, and died before it had let that go.
        (1_720_786, Profile::WITNESS),
        // Who asks once more to see somebody is shown that one's presence by that, too.
        (1_720_542, Profile::ROSTERS),
        // What was to get through was more than there is, since the end of a log had been set aside.
        (1_710_182, Profile::GROUP_APART),
    ];
    for (seed, profile) in once {
        let verdict = run(seed, profile);
        if verdict.failure.is_some() {
            explain("it failed once", seed, &verdict, &replay(seed, profile).trace);
        }
    }
}
