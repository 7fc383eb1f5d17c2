//! Two nodes on a virtual clock, thousands of seeds. `PAIR_SEED=n` replays one with its trace (`PAIR_PROFILE=people` and so
//! on for the other profiles, by their names in `load_tests::pair::PROFILES`).

mod found;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use load_tests::pair::{Coverage, FIGURES, Fault, Profile, Then, Verdict, replay, run, scenario};

/// Lines of a trace that are printed.
const LINES: usize = 300;

fn wanted_seed() -> Option<u64> {
    std::env::var("PAIR_SEED").ok().and_then(|seed| seed.parse().ok())
}

fn explain(what: &str, seed: u64, verdict: &Verdict, trace: &str) -> ! {
    let lines: Vec<&str> = trace.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
    panic!("{tail}\n{what}, PAIR_SEED={seed}: {}", verdict.failure.as_deref().unwrap_or_default());
}

/// Runs seeds on two threads; for each figure, how many seeds had it.
fn hunt(name: &str, count: u64, profile: Profile) -> Vec<(&'static str, u32)> {
    if let Some(seed) = wanted_seed() {
        if std::env::var("PAIR_PROFILE").unwrap_or("strict".into()) == name {
            let verdict = replay(seed, profile);
            println!("{}\n{:?}", verdict.trace, verdict.coverage);
            assert_eq!(verdict.failure, None);
        }
        return Vec::new();
    }
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None::<u64>));
    let seeds = Mutex::new([0u32; FIGURES]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let Ok(verdict) = std::panic::catch_unwind(|| run(seed, profile)) else {
                        println!("{name}: PAIR_SEED={seed} panics");
                        failed.lock().unwrap().get_or_insert(seed);
                        return;
                    };
                    let mut seeds = seeds.lock().unwrap();
                    for (sum, (_, figure)) in seeds.iter_mut().zip(verdict.coverage.figures()) {
                        *sum += u32::from(figure > 0);
                    }
                    if verdict.failure.is_some() {
                        failed.lock().unwrap().get_or_insert(seed);
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        let verdict = replay(seed, profile);
        explain(name, seed, &verdict, &verdict.trace);
    }
    let names = Coverage::default().figures().map(|(name, _)| name);
    names.into_iter().zip(seeds.into_inner().unwrap()).collect()
}

fn at_least(figures: &[(&str, u32)], wanted: &[(&str, u32)]) {
    // One seed was asked for: nothing was counted.
    for (name, least) in wanted.iter().filter(|_| !figures.is_empty()) {
        let found = figures.iter().find(|(n, _)| n == name);
        let (_, seeds) = found.unwrap_or_else(|| panic!("nothing counts {name:?}"));
        assert!(seeds >= least, "only {seeds} seeds with {name}, {least} are wanted: {figures:?}");
    }
}

/// A named scenario must hold whatever the rest of the seed says.
fn holds(what: &str, profile: Profile, plan: &[(u64, Fault)]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for seed in 0..12 {
        let verdict = scenario(seed, profile, plan, false);
        if verdict.failure.is_some() {
            let verdict = scenario(seed, profile, plan, true);
            explain(what, seed, &verdict, &verdict.trace);
        }
        verdicts.push(verdict);
    }
    verdicts
}

/// What runs at night is judged by its exit code, and a name that is misspelt must not be another profile.
#[test]
fn the_program_ends_well_only_if_it_played_what_was_meant_and_nothing_failed() {
    let pair = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_pair")).args(args).output().unwrap();
    let well = pair(&["0", "2", "calm"]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    assert!(String::from_utf8_lossy(&well.stdout).starts_with("0 of 2 failed; "), "{well:?}");
    let misspelt = pair(&["0", "2", "clam"]);
    assert_eq!((misspelt.status.code(), misspelt.stdout.len()), (Some(2), 0), "{misspelt:?}");
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains(" clocks-apart "), "{misspelt:?}");
}

#[test]
fn nothing_goes_wrong_without_faults() {
    for seed in 0..20 {
        let verdict = run(seed, Profile::CALM);
        assert_eq!(verdict.failure, None, "seed {seed}");
        assert_eq!(verdict.coverage.takeovers + verdict.coverage.resumes, 0, "seed {seed}");
    }
}

#[test]
fn services_stop_and_operators_act() {
    let figures = hunt("services", 2_000, Profile::SERVICES);
    at_least(
        &figures,
        &[
            ("stanzas of a node to itself", 1_990),
            ("services that stop", 1_200),
            ("moves for a service", 400),
            ("fallbacks", 600),
        ],
    );
}

#[test]
fn operators_switch_high_availability_and_assign_users() {
    let figures = hunt("group", 1_000, Profile::GROUP);
    at_least(
        &figures,
        &[("switches of high availability", 150), ("rebalances", 180), ("checks of all accounts", 900)],
    );
    hunt("group-apart", 500, Profile::GROUP_APART);
}

#[test]
fn without_automatics_operators_say_who_serves() {
    let figures = hunt("held", 400, Profile::HELD);
    at_least(
        &figures,
        &[("made inactive by force", 100), ("made active by force", 100), ("kills under load", 100)],
    );
    hunt("held-apart", 200, Profile::HELD_APART);
}

/// A failover was on its way when its node was cut off, and the peer took over: what the hand-overs and the streams that
/// they made parked ones were to be told was void, and left all the same.
#[test]
fn a_failover_that_a_takeover_overtakes_tells_nobody_anything() {
    assert_eq!(run(1_987, Profile::GROUP_APART).failure, None);
}

/// A node that left was cut off, went on alone, and let go what streams that it had handed over were waiting for, without
/// the word that it was alone: their clients counted what nobody else had.
#[test]
fn clients_whose_stream_a_hand_over_ends_hear_of_a_new_term_first() {
    assert_eq!(run(4_873, Profile::PARTITION).failure, None);
}

/// What a front had said on a connection that was gone was read after its client had resumed elsewhere.
#[test]
fn nothing_is_read_of_a_front_whose_connection_is_gone() {
    for seed in [1_813, 2_838] {
        assert_eq!(run(seed, Profile::WITNESS).failure, None, "seed {seed}");
    }
}

/// What a front had said waited for a service until its user had gone elsewhere and come back.
#[test]
fn what_was_said_before_a_user_went_away_is_void_when_it_is_back() {
    assert_eq!(run(2_324, Profile::SERVICES).failure, None);
}

/// A resume waited for a service, its user went away and came back, and its client had been told to look elsewhere since.
#[test]
fn a_client_that_is_told_to_look_elsewhere_waits_for_no_answer() {
    assert_eq!(run(11_562, Profile::SERVICES).failure, None);
}

/// The end of a node's own log arrived while its store was being filled with the peer's.
#[test]
fn nothing_is_built_on_half_a_snapshot() {
    assert_eq!(run(464, Profile::SERVICES).failure, None);
}

#[test]
fn a_seed_gives_the_same_run_for_ever() {
    for seed in [3, 14] {
        let [one, two] = [(); 2].map(|()| replay(seed, Profile::STRICT));
        assert_eq!((one.virtual_ms, one.coverage), (two.virtual_ms, two.coverage));
        assert_eq!(one.trace, two.trace);
    }
}

#[test]
fn two_thousand_seeds_keep_every_promise() {
    let figures = hunt("strict", 2_000, Profile::STRICT);
    at_least(
        &figures,
        &[
            ("kills under load", 800),
            ("power losses", 80),
            ("takeovers", 1_000),
            ("fallbacks", 500),
            ("hand-overs that cross a message", 30),
            ("tails set aside", 20),
            ("plain resumes at the other node", 800),
            ("flips: take", 40),
            ("flips: lost", 800),
            ("flips: moving", 150),
            ("planned exits", 100),
            ("logins by token", 1_900),
            ("starts from a store", 500),
            ("lost disks", 200),
            ("logs trimmed", 1_900),
            ("logins at the other node", 1_500),
            ("streams attached again", 900),
            ("streams that outlive their owner", 600),
            ("requests answered", 1_900),
        ],
    );
}

#[test]
fn contacts_see_no_flicker_and_miss_nothing() {
    let figures = hunt("people", 400, Profile::PEOPLE);
    at_least(&figures, &[("takeovers", 200), ("flips: moving", 26), ("presence shown", 400)]);
}

#[test]
fn impatient_clients_lose_nothing_and_come_back() {
    let figures = hunt("impatient", 200, Profile::IMPATIENT);
    at_least(
        &figures,
        &[
            ("resumes given up", 150),
            ("resumes behind an unknown grant", 40),
            ("plain resumes at the other node", 120),
        ],
    );
}

#[test]
fn impatient_clients_lose_nothing_among_dual_ones_with_a_witness_and_apart() {
    let figures = hunt("impatient-witness", 200, Profile::IMPATIENT_WITNESS);
    at_least(
        &figures,
        &[("resumes given up", 130), ("resumes behind an unknown grant", 80), ("flips: lost", 70)],
    );
    let figures = hunt("impatient-apart", 150, Profile::IMPATIENT_APART);
    at_least(
        &figures,
        &[("resumes given up", 85), ("resumes behind an unknown grant", 50), ("flips: lost", 60)],
    );
}

#[test]
fn who_is_restarted_keeps_its_users_and_every_promise() {
    let figures = hunt("restarts", 400, Profile::RESTARTS);
    at_least(&figures, &[("restarts announced", 250), ("fallbacks", 180), ("kills under load", 140)]);
}

/// A node that led alone dies when it sets aside what it wrote: before, with a part of it gone, and after, and nothing is lost.
#[test]
fn who_dies_while_it_sets_its_tail_aside_loses_nothing() {
    let mut deaths = 0;
    for then in [Then::Before, Then::Midway, Then::After] {
        let kills = [0, 1].map(|node| (24_000, Fault::KillInCut(node, then, 1_500)));
        let plan = [(4_000, Fault::Part(20_000)), kills[0], kills[1]];
        for verdict in holds("a death while a tail is set aside", Profile::ALONE_DEVICES, &plan) {
            deaths += verdict.coverage.cut_kills;
        }
    }
    assert!(deaths > 12, "the scenario is not met: {deaths}");
}

/// Policy `available`, where both nodes serve everybody, each with clients of its own side: nothing that either acknowledged is
/// lost, neither messages nor what users wrote into their rosters, and nothing is excused before and after.
#[test]
fn what_both_sides_acknowledged_to_everybody_is_merged() {
    let cuts = [("cuts with two leaders of everybody", 40), ("such cuts after which all was well", 60)];
    for (name, profile) in [("alone", Profile::ALONE), ("alone-devices", Profile::ALONE_DEVICES)] {
        at_least(&hunt(name, 100, profile), &cuts);
    }
    let figures = hunt("rosters", 150, Profile::ROSTERS);
    at_least(
        &figures,
        &[("cuts with two leaders of everybody", 70), ("deaths while a tail is set aside", 30)],
    );
}

/// By clocks that are apart an older word may stand in the place of one that was said soon behind it, and of no other.
#[test]
fn of_two_words_on_a_contact_the_later_stands_as_far_as_the_clocks_can_tell() {
    let figures = hunt("rosters-apart", 60, Profile::ROSTERS_APART);
    at_least(&figures, &[("cuts with two leaders of everybody", 20)]);
}

/// A client without numbered attempts gave one up that was late between the nodes, and went on at the other node. There it was
/// given a chat state, which a grant of the first attempt would have taken out of the numbers again.
#[test]
fn an_attempt_that_was_given_up_and_is_late_takes_nothing_away() {
    // It fails where the engine grants what is overtaken.
    const SEED: u64 = 38;
    assert_eq!(run(SEED, Profile::IMPATIENT).failure, None);
    let mut overtaken = 0;
    for front in 0..2 {
        for relays in [1_500, 2_500, 3_500] {
            // What this front relays is late; less so what the other node writes, and hears back.
            let mut late = [[500; 2]; 2];
            late[front] = [0, relays];
            let mut plan = vec![(4_000, Fault::Slow(late, 6_000))];
            plan.extend((0..4).map(|client| (4_100 + 100 * client as u64, Fault::Client(client))));
            for verdict in holds("resumes are late, and given up", Profile::IMPATIENT, &plan) {
                overtaken += verdict.coverage.overtaken;
            }
        }
    }
    assert!(overtaken > 20, "the scenario is not met: {overtaken}");
}

#[test]
fn contacts_on_both_sides_of_a_long_partition_lose_no_message_and_the_nodes_agree() {
    hunt("apart", 150, Profile::PEOPLE_APART);
}

/// Leases count from the boot of each machine, and what is merged is in the order of the logs: nothing goes by the clock.
#[test]
fn clocks_that_are_ten_minutes_apart_make_no_difference_to_a_merge() {
    let figures = hunt("clocks-apart", 150, Profile::CLOCKS_APART);
    at_least(&figures, &[("tails merged", 1), ("tails set aside", 3)]);
}

#[test]
fn presence_of_contacts_on_both_nodes_survives_a_kill_and_the_way_back() {
    let plan = [(4_000, Fault::Kill(0, 0, 1_000)), (12_000, Fault::Fallback(1))];
    let verdicts = holds("a kill and a fallback among contacts", Profile::PEOPLE, &plan);
    assert!(verdicts.iter().all(|v| v.coverage.takeovers > 0 && v.coverage.presences > 20));
}

#[test]
fn seeds_keep_every_promise_when_both_disks_must_hold_what_is_acknowledged() {
    hunt("disk", 300, Profile::DISK);
}

#[test]
fn what_both_sides_of_a_long_partition_acknowledged_is_shown() {
    let figures = hunt("partition", 300, Profile::PARTITION);
    at_least(&figures, &[("tails merged", 3), ("tails set aside", 10), ("requests called off", 6)]);
}

/// Policy `strict`: what nobody may decide by itself the operator decides, where the other node is dead.
#[test]
fn seeds_keep_every_promise_when_nobody_takes_over_but_at_the_operators_word() {
    let figures = hunt("operated", 300, Profile::OPERATED);
    at_least(&figures, &[("made active by force", 70), ("kills under load", 120), ("takeovers", 70)]);
}

/// Policy `strict+witness`: partitions of any length, and nobody is refused, nothing is merged, nothing is shown twice.
#[test]
fn seeds_keep_every_promise_when_a_witness_decides() {
    let figures = hunt("witness", 600, Profile::WITNESS);
    at_least(
        &figures,
        &[
            ("takeovers", 250),
            ("disks of the witness lost", 60),
            ("kills under load", 250),
            ("flips: lost", 200),
        ],
    );
    for (name, seeds) in figures {
        assert!(
            !matches!(name, "sessions refused" | "tails merged") || seeds == 0,
            "{seeds} seeds with {name}"
        );
    }
}

#[test]
fn the_last_words_of_a_run_that_come_late_do_not_hide_the_next() {
    assert_eq!(run(1_336, Profile::WITNESS).failure, None);
}

#[test]
fn who_dies_while_it_takes_over_knows_afterwards_what_it_knew() {
    // Evidence comes some 20 ms after the death; the register is written, and then the record that says so.
    let mut takeovers = 0;
    for after in [10, 20, 25, 30, 40] {
        for outputs in [0, 3] {
            let plan = [(3_000, Fault::Kill(1, 0, 2_000)), (3_000 + after, Fault::Kill(0, outputs, 1_000))];
            for verdict in holds("the heir dies too", Profile::STRICT, &plan) {
                assert_eq!(verdict.coverage.refused, 0, "a session is refused although nobody went on alone");
                takeovers += verdict.coverage.takeovers;
            }
        }
    }
    assert!(takeovers > 0);
}

#[test]
fn who_died_before_its_own_log_was_written_does_not_go_on_alone_with_less_than_was_shown() {
    for at in (3_000..9_000).step_by(149) {
        let plan = [(at, Fault::Kill(1, 0, 150_000)), (at + 5, Fault::Kill(0, 0, 1_000))];
        holds("both die, and one stays away longer than the other waits", Profile::STRICT, &plan);
    }
}

#[test]
fn a_backup_accepts_history_of_an_older_term_of_its_primary() {
    let verdicts = holds("a kill and a return", Profile::STRICT, &[(4_000, Fault::Kill(0, 0, 1_000))]);
    assert!(verdicts.iter().all(|v| v.coverage.takeovers > 0));
}

#[test]
fn a_cut_own_log_is_told_to_the_peer_that_was_greeted_with_more() {
    for outputs in [5, 15, 25, 35] {
        holds("killed between outputs", Profile::STRICT, &[(4_000, Fault::Kill(1, outputs, 700))]);
    }
}

#[test]
fn a_forward_that_is_done_is_not_done_again_after_the_copy_of_the_peers_log_was_lost() {
    for node in 0..2 {
        holds("power", Profile::STRICT, &[(5_000, Fault::Power(node, 1_000, 2_000))]);
    }
}

#[test]
fn frames_from_before_a_fallback_are_no_void_tail() {
    let plan = [
        (2_000, Fault::Kill(0, 0, 800)),
        (7_000, Fault::Fallback(1)),
        (10_000, Fault::Power(0, 1_000, 2_000)),
    ];
    holds("power after a fallback, its home", Profile::STRICT, &plan);
    let plan = [plan[0], plan[1], (10_000, Fault::Power(1, 1_000, 2_000))];
    holds("power after a fallback, its giver", Profile::STRICT, &plan);
}

#[test]
fn a_node_that_failed_over_and_takes_over_is_no_longer_away() {
    let plan = [
        (2_000, Fault::Failover(0)),
        (6_000, Fault::Leave(1, 1_000)),
        (45_000, Fault::Fallback(0)),
        (45_000, Fault::Fallback(1)),
    ];
    let verdicts = holds("failover, then the other leaves", Profile::STRICT, &plan);
    assert!(verdicts.iter().any(|v| v.coverage.fallbacks > 0), "the fallback is offered");
}

#[test]
fn a_node_that_leads_nothing_leaves_at_once() {
    let plan = [(2_000, Fault::Kill(1, 0, 500)), (8_000, Fault::Leave(1, 500))];
    let verdicts = holds("leave of a backup", Profile::STRICT, &plan);
    assert!(verdicts.iter().all(|v| v.coverage.leaves == 1));
}

#[test]
fn acknowledgements_that_a_cut_swallows_make_no_late_takeover_certain() {
    // The primary's beacons are lost, the backup's still go: whoever acknowledged alone meanwhile must not be guessed at.
    for node in 0..2 {
        let plan = [(3_000, Fault::Cut(6_000, Some(node))), (5_000, Fault::Kill(1 - node, 0, 9_000))];
        holds("a one-way cut, then a kill", Profile::STRICT, &plan);
    }
}

#[test]
fn acknowledgements_that_are_lost_on_the_way_make_no_takeover_certain() {
    // Node 1 hears and acknowledges to the last, and node 0 hears none of it: its lease runs out, it goes on alone, and
    // what would tell is lost. Then it dies, and node 1, which has heard it a moment ago, must not claim to know all.
    let mut refused = 0;
    for node in 0..2 {
        for quiet in [5_300, 5_600, 5_900] {
            let plan = [
                (3_000, Fault::Cut(4_300, Some(node))),
                (quiet, Fault::Cut(7_300 - quiet, Some(1 - node))),
                (7_280, Fault::Kill(node, 0, 9_000)),
            ];
            for verdict in holds("acknowledgements are lost, then a kill", Profile::PARTITION, &plan) {
                assert_eq!(verdict.coverage.bad_counts, 0, "a session went on that had gone on elsewhere");
                refused += verdict.coverage.refused;
            }
        }
    }
    assert!(refused > 20, "the scenario is not met: {refused}");
}

#[test]
fn who_resumed_at_a_node_that_leads_alone_does_not_go_on_at_the_other_as_if_it_had_not() {
    // Node 0 dies alone, just when it has resumed sessions whose streams at node 1 were stuck: their clients have counted
    // some of what waited for them, which node 1 never had.
    let mut refused = 0;
    for at in [9_320, 9_360, 10_840] {
        let plan = [(3_000, Fault::Cut(22_000, None)), (at, Fault::Kill(0, 0, 20_000))];
        for verdict in holds("a resume at who is alone, then a kill", Profile::PARTITION, &plan) {
            assert_eq!(verdict.coverage.bad_counts, 0, "a session went on that had gone on elsewhere");
            refused += verdict.coverage.refused;
        }
    }
    assert!(refused > 20, "the scenario is not met: {refused}");
    assert_eq!(run(10_636, Profile::PARTITION).failure, None);
}

#[test]
fn who_was_handed_over_just_before_a_partition_is_as_uncertain_as_all_others_there() {
    // Node 0 hands its users over when nobody hears it any more, and takes the other group over with them in it.
    let mut refused = 0;
    for at in [2_800, 3_300] {
        let plan = [(3_000, Fault::Cut(61_000, None)), (at, Fault::Failover(0))];
        for verdict in holds("a failover at the beginning of a partition", Profile::PARTITION, &plan) {
            refused += verdict.coverage.refused;
        }
    }
    assert!(refused > 20, "the scenario is not met: {refused}");
    assert_eq!(run(1_601, Profile::PARTITION).failure, None);
}

#[test]
fn a_group_that_is_given_back_empty_holds_nothing_up() {
    // The register went to Pair again between the users' move and the gift: its record waited for a group led no more.
    for at in [9_000, 9_500, 10_000] {
        let plan =
            [(2_000, Fault::Kill(1, 0, 800)), (8_000, Fault::Cut(4_000, Some(1))), (at, Fault::Fallback(0))];
        holds("a fallback during a cut", Profile::DISK, &plan);
    }
}
