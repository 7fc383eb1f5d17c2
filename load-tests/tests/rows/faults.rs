//! Faults that must move nobody, or move everybody once: paths that are lossy, slow, cut one way or ever again; nodes that
//! die over and over, or in the middle of a move; what an operator asks for at the moment when it happens by itself.

use super::*;

/// Users of a group were taken over, or went back, so many times, as both nodes tell.
fn completed(stage: &mut Stage, node: usize, group: NodeIx) -> usize {
    let told = stage.moves(node);
    told.iter().filter(|m| m.stage == Step::Complete && m.group == group).count()
}

/// What was told so far is of no interest.
fn forget_moves(stage: &mut Stage) {
    for node in BOTH {
        stage.moves(node);
    }
}

fn nobody_moves(stage: &mut Stage) {
    for node in BOTH {
        assert_eq!(moves(stage, node), []);
    }
}

/// For so long, at no moment do both nodes lead one group.
fn never_both(stage: &mut Stage, for_ms: u64) {
    for _ in 0..for_ms / 50 {
        stage.run(50);
        for group in NodeIx::BOTH {
            assert!(!(stage.leads(A, group) && stage.leads(B, group)), "{:?}", stage.shown(A));
        }
    }
}

/// What became of who leads while the path was bad.
#[derive(Default)]
struct Leading {
    /// Node that led each group last; at first its home.
    led: Option<[usize; 2]>,
    /// How often another node came to lead a group.
    changes: usize,
    /// Ticks that were left of each home node's lease as the primary of a Pair, when it was looked at last.
    left: [Option<u16>; 2],
    /// The fewest that ever were.
    fewest: Option<u16>,
}

impl Leading {
    /// Looks for so long: at no moment do both nodes lead one group, and no Pair is left before its lease is over. (A tick is
    /// 250 ms, and it is looked five times as often.)
    fn watch(&mut self, stage: &mut Stage, for_ms: u64) {
        let led = self.led.get_or_insert(BOTH);
        for _ in 0..for_ms / 50 {
            stage.run(50);
            for (home, group) in BOTH.into_iter().zip(NodeIx::BOTH) {
                let leaders: Vec<usize> = BOTH.into_iter().filter(|node| stage.leads(*node, group)).collect();
                assert!(leaders.len() < 2, "{:?}", stage.shown(A));
                if let Some(leader) = leaders.first() {
                    self.changes += usize::from(*leader != led[home]);
                    led[home] = *leader;
                }
                let left = stage.lease_left(home, group);
                let before = std::mem::replace(&mut self.left[home], left);
                let in_time = left.is_none() && before.is_some_and(|ticks| ticks > 1);
                assert!(
                    !in_time,
                    "{group:?} left its Pair with {before:?} ticks of its lease: {:?}",
                    stage.shown(home)
                );
                self.fewest = self.fewest.into_iter().chain(left).min();
            }
        }
    }

    /// Whether beacons came late or were lost: where one is acknowledged each second, 8 ticks of 12 are always left.
    fn was_short(&self) -> bool {
        self.fewest.is_some_and(|ticks| ticks < 8)
    }
}

/// Back to Normal, whatever there was: both run, the path is whole, and the operator gives users back where he may.
pub(super) fn mend(stage: &mut Stage) {
    stage.cut(0);
    for node in BOTH {
        if stage.shown(node).is_none() {
            stage.start(node);
        }
    }
    for _ in 0..600 {
        if BOTH.iter().all(|node| stage.shown(*node).is_some_and(|(row, _)| row == 1)) {
            return;
        }
        for node in BOTH {
            stage.op(node, Op::Fallback(By::Here));
        }
        stage.run(500);
    }
    panic!("not Normal within 5 minutes: {:?} {:?}", stage.shown(A), stage.shown(B));
}

#[test]
fn a_node_that_dies_ten_times_in_five_minutes_is_failed_over_once() {
    let mut stage = Stage::pair(PAIR);
    let after = 30 * 60 * 4;
    stage.automatics(Automatics { fallback: true, after, ..Automatics::default() });
    stage.moves(B);
    for _ in 0..10 {
        stage.kill(A);
        stage.run(15 * SECOND);
        stage.start(A);
        stage.run(15 * SECOND);
    }
    assert_eq!(completed(&mut stage, B, NodeIx::A), 1);
    // An hour later it was given back once, after 30 minutes of health.
    stage.run(60 * MINUTE);
    stage.expect(BOTH, 1, 0);
    assert_eq!(completed(&mut stage, B, NodeIx::A), 1);
    assert_eq!(completed(&mut stage, A, NodeIx::B), 0);
}

#[test]
fn a_path_that_comes_and_goes_moves_nobody() {
    for profile in [PAIR, WITNESS] {
        let mut stage = Stage::pair(profile);
        forget_moves(&mut stage);
        let mut leading = Leading::default();
        for _ in 0..75 {
            stage.cut(2 * SECOND);
            leading.watch(&mut stage, 4 * SECOND);
        }
        // To go on alone and together again is no change of roles.
        assert!(leading.changes <= 1, "{} changes of who leads in five minutes", leading.changes);
        assert!(leading.was_short(), "the path was cut: {:?}", leading.fewest);
        nobody_moves(&mut stage);
        stage.expect(BOTH, 1, 10 * SECOND);
        assert!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    }
}

#[test]
fn loss_and_latency_move_nobody_and_hide_no_death() {
    let lossy = Profile { beacon_loss: 30, ..PAIR };
    let slow = Profile { latency: 500, ..PAIR };
    for profile in [lossy, slow, Profile { latency: 500, ..lossy }] {
        let mut stage = Stage::pair(profile);
        forget_moves(&mut stage);
        // Loss may do two things, and no more. Who has lost five beacons in a row shows the other node as down until it hears
        // one (105): it is a word, and nothing is done. A primary none of whose beacons was acknowledged for the lease of 3 s
        // goes on alone until the next one is (rule R3). Users move only after silence for the keep-alive time-out (rule R9).
        let mut leading = Leading::default();
        leading.watch(&mut stage, 10 * MINUTE);
        assert_eq!(leading.changes, 0, "nobody else came to lead");
        assert!(leading.was_short(), "beacons were lost, or late: {:?}", leading.fewest);
        nobody_moves(&mut stage);
        stage.expect(BOTH, 1, 5 * SECOND);
        assert!(begun(stage.op(A, Op::Failover(By::Here))));
        stage.expect(BOTH, 3, 10 * SECOND);
        fallback(&mut stage, B);
        stage.expect(BOTH, 1, 10 * SECOND);
        // Who led alone for want of beacons is not taken over (R2): both nodes have everything again in a moment.
        for _ in 0..400 {
            if stage.unwell().is_none() {
                break;
            }
            stage.run(50);
        }
        assert_eq!(stage.unwell(), None);
        stage.kill(A);
        stage.expect([B], 17, 3 * SECOND);
    }
}

#[test]
fn a_path_that_is_cut_one_way_makes_no_two_leaders_and_the_witness_decides() {
    for deaf in BOTH {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_one_way(deaf, 90 * SECOND);
        never_both(&mut stage, 90 * SECOND);
        // Both hear the witness: whoever is the home keeps its users.
        for (node, group) in BOTH.into_iter().zip(NodeIx::BOTH) {
            assert!(stage.leads(node, group), "deaf: {deaf}, node: {node}, {:?}", stage.shown(node));
        }
        mend(&mut stage);
    }
}

#[test]
fn a_path_that_drops_what_is_large_counts_as_broken_although_beacons_pass() {
    let mut stage = Stage::pair(PAIR);
    forget_moves(&mut stage);
    stage.beacons_pass();
    stage.cut(5 * MINUTE);
    // Whatever is to be written waits for the peer, for six seconds and a lease. Then each node goes on alone.
    for node in BOTH {
        let jid = xmpp_core::jid::BareJid::new(Some(&format!("new{node}")), "d").unwrap();
        stage.op(node, Op::UserAdd(jid, Some(NodeIx::BOTH[node]), Box::default()));
    }
    never_both(&mut stage, 8 * SECOND);
    assert!(BOTH.iter().all(|node| !says(&stage, *node, "unprotected")));
    never_both(&mut stage, 3 * SECOND);
    assert!(BOTH.iter().all(|node| says(&stage, *node, "unprotected")), "{:?}", stage.alarms(A));
    never_both(&mut stage, 4 * MINUTE);
    nobody_moves(&mut stage);
    stage.expect(BOTH, 1, SECOND);
    assert!(BOTH.into_iter().zip(NodeIx::BOTH).all(|(node, group)| stage.leads(node, group)));
    mend(&mut stage);
}

/// What a's users say does not get through. Nobody says anything at b, so that nothing is stuck there: it signs what it is
/// asked, and its clients prove to a in the last seconds, up to the end, that it lives.
#[test]
fn a_log_that_stands_still_counts_as_silence_although_beacons_pass_and_clients_vouch() {
    // Nobody goes on alone: the operator is to know.
    let mut stage = Stage::pair(STRICT);
    stage.clients_of(&[B], 0);
    let sessions = |stage: &Stage| stage.streams().0.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let before = sessions(&stage);
    forget_moves(&mut stage);
    stage.beacons_pass();
    stage.cut(5 * MINUTE);
    stage.more_users(A, 1);
    let asks = |stage: &mut Stage| {
        let vouched = stage.vouched();
        stage.say_lost(A);
        // Longer than the second in which a node looks once.
        never_both(stage, 3 * SECOND / 2);
        assert!(stage.vouched() > vouched, "b's clients prove that it lives");
    };
    never_both(&mut stage, 47 * SECOND);
    // Not all the time: a reads sixteen elements of a connection before it waits for its log.
    (0..6).for_each(|_| asks(&mut stage));
    nobody_moves(&mut stage);
    assert_eq!(BOTH.map(|node| stage.losses(node)), [0; 2]);
    asks(&mut stage);
    never_both(&mut stage, 5 * SECOND);
    assert_eq!(BOTH.map(|node| stage.losses(node)), [1, 0], "a, whose log waits, holds b to be silent");
    never_both(&mut stage, MINUTE);
    nobody_moves(&mut stage);
    mend(&mut stage);
    assert_eq!(sessions(&stage), before, "they go on with the sessions that they had");
}

#[test]
fn without_the_witness_a_death_waits_for_the_operator() {
    let mut stage = Stage::pair(WITNESS);
    stage.witness_away(60 * MINUTE);
    stage.stays(&BOTH, 1, 5 * MINUTE);
    stage.kill(A);
    stage.run(5 * MINUTE);
    assert!(!stage.leads(B, NodeIx::A) && !stage.ready(B));
    assert!(matches!(stage.op(B, Op::Force { to: Force::Active, confirmed: true }), Some(Reply::Forced(_))));
    stage.run(SECOND);
    assert!(stage.leads(B, NodeIx::A) && stage.ready(B));
}

#[test]
fn a_witness_that_forgot_lets_nobody_take_over_until_both_nodes_told_it_the_same() {
    let mut stage = Stage::pair(WITNESS);
    stage.witness_away(MINUTE);
    stage.run(SECOND);
    stage.witness_forgets();
    stage.kill(A);
    stage.run(5 * MINUTE);
    assert!(!stage.leads(B, NodeIx::A), "one node's word is not enough");
    // Both are there again: the next death is decided.
    stage.start(A);
    mend(&mut stage);
    stage.run(MINUTE);
    stage.kill(A);
    stage.expect([B], 17, 5 * SECOND);
}

#[test]
fn the_node_that_gets_its_users_back_dies_meanwhile() {
    for after in [0, 1, 2, 5, 10, 20, 50, 100, 200] {
        let mut stage = Stage::pair(PAIR);
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 103, 5 * SECOND);
        fallback(&mut stage, B);
        stage.run(after);
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        assert!(stage.leads(B, NodeIx::A) && stage.leads(B, NodeIx::B), "after {after} ms");
        mend(&mut stage);
    }
}

#[test]
fn an_automatic_fallback_does_not_begin_in_the_middle_of_a_fault() {
    for before in [0, 250, 500, 1_000, 2_000] {
        let mut stage = Stage::pair(PAIR);
        let after = 10 * 60 * 4;
        stage.automatics(Automatics { fallback: true, after, ..Automatics::default() });
        stage.kill(A);
        stage.expect([B], 17, 2 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 103, 5 * SECOND);
        forget_moves(&mut stage);
        stage.run(10 * MINUTE - before - 5 * SECOND);
        stage.cut(30 * SECOND);
        stage.run(30 * SECOND);
        nobody_moves(&mut stage);
        // Counted anew from when they hear each other again.
        stage.stays(&BOTH, 103, 9 * MINUTE);
        stage.expect([B], 1, 2 * MINUTE);
    }
}

#[test]
fn a_service_that_stops_ever_again_keeps_the_users_where_they_are() {
    let mut stage = Stage::pair(PAIR);
    let after = 30 * 60 * 4;
    stage.automatics(Automatics { fallback: true, after, ..Automatics::default() });
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    forget_moves(&mut stage);
    for _ in 0..6 {
        stage.service(A, Service::Database, Health::Stopped, true);
        stage.run(5 * SECOND);
        stage.service(A, Service::Database, Health::Runs, false);
        stage.run(20 * MINUTE);
    }
    nobody_moves(&mut stage);
    stage.run(11 * MINUTE);
    stage.expect(BOTH, 1, 0);
}

#[test]
fn an_operators_failover_at_the_moment_of_an_automatic_one_is_one_failover() {
    // The database is down for the 90 s after which the node fails over by itself.
    for profile in [PAIR, WITNESS] {
        let mut by_operator = 0;
        for offset in -4_i64..=4 {
            let told = format!("{offset}, with a witness: {}", profile.witness);
            let mut stage = Stage::pair(profile);
            stage.automatics(super::services::SERVICES);
            forget_moves(&mut stage);
            stage.service(A, Service::Database, Health::Stopped, true);
            stage.run((90 * SECOND).saturating_add_signed(offset * 125));
            by_operator += u32::from(begun(stage.op(A, Op::Failover(By::Here))));
            stage.run(10 * SECOND);
            assert_eq!(stage.shown(A).unwrap().1[B].0, State::RunningInBackupMode, "{told}");
            assert_eq!(completed(&mut stage, B, NodeIx::A), 1, "{told}");
            assert_eq!((stage.served(A), stage.served(B)), (0, 10), "{told}: everybody is with b");
            stage.service(A, Service::Database, Health::Runs, false);
            mend(&mut stage);
        }
        assert!(
            (1..9).contains(&by_operator),
            "each was the first at times: the operator {by_operator} times of 9"
        );
    }
}

#[test]
fn who_was_cut_off_tells_that_its_users_were_taken_over_and_why() {
    let mut stage = Stage::pair(WITNESS);
    forget_moves(&mut stage);
    stage.cut_off(A, 5 * MINUTE);
    stage.more_users(A, 1);
    stage.expect([B], 16, 90 * SECOND);
    stage.expect(BOTH, 102, 5 * MINUTE);
    let a = NodeIx::A;
    let complete = (a, false, Step::Complete, Cause::PeerDown);
    assert_eq!(moves(&mut stage, A), [complete], "it has run all the time: nothing is found from before");
    assert_eq!(moves(&mut stage, B), [(a, false, Step::Began, Cause::PeerDown), complete]);
    assert_eq!(BOTH.map(|node| stage.losses(node)), [1; 2], "that the other is gone is told once");
}

/// Whoever writes waits for the disk of b: b's own users, and those of a, whose standby it is.
#[test]
fn a_node_whose_disk_does_not_answer_leaves_everybody_to_the_other_and_waits_for_its_disk() {
    let own = (B, "nothing of its users");
    let copy = (A, "nothing of the other node's users");
    for (profile, (writes, alarm)) in [(PAIR, own), (PAIR, copy), (WITNESS, own), (WITNESS, copy)] {
        let mut stage = Stage::pair(profile);
        stage.disk_stalls(B, MINUTE);
        stage.more_users(writes, 1);
        stage.run(4 * SECOND);
        assert!(says(&stage, B, alarm), "{:?}", stage.alarms(B));
        stage.expect([A], 17, 2 * SECOND);
        assert_eq!(stage.served(A), 11, "all that there are, and the one that waited");
        // It comes back to a disk that still does not answer. Nobody waits for that now: it stays.
        stage.expect(BOTH, 103, 5 * SECOND);
        stage.stays(&BOTH, 103, 45 * SECOND);
        assert!(says(&stage, B, "cannot take over: this node does not hold everything of a yet"));
        assert!(says(&stage, B, "the disk of this node has not answered"));
        assert!(!says(&stage, A, "does not get through"), "the path is well: {:?}", stage.alarms(A));
        stage.run(10 * SECOND);
        assert_eq!(stage.alarms(A), [""; 0]);
        fallback(&mut stage, A);
        stage.expect(BOTH, 1, 10 * SECOND);
    }
}

#[test]
fn a_node_whose_disk_does_not_answer_waits_for_it_where_nobody_would_serve_in_its_place() {
    let disabled = Automatics { disabled: true, ..Automatics::default() };
    let usual = Automatics::default();
    for (profile, automatics, away) in [(PAIR, disabled, 0), (STRICT, usual, 0), (WITNESS, usual, MINUTE)] {
        for (writes, alarm) in [(B, "nothing of its users"), (A, "nothing of the other node's users")] {
            let mut stage = Stage::pair(profile);
            stage.automatics(automatics);
            stage.witness_away(away);
            stage.run(SECOND);
            stage.disk_stalls(B, 12 * SECOND);
            stage.more_users(writes, 1);
            stage.stays(&BOTH, 1, 10 * SECOND);
            let alarms = stage.alarms(B);
            assert!(
                says(&stage, B, alarm) && says(&stage, B, "a would not serve in its place"),
                "{alarms:?}"
            );
            stage.run(5 * SECOND);
            assert_eq!((stage.served(writes), stage.served(1 - writes)), (6, 5), "who waited is served");
            assert!(!says(&stage, B, "has not answered"), "{:?}", stage.alarms(B));
        }
    }
}

/// No user was moved more often than to the other node and back.
fn to_and_fro_once(stage: &Stage, node: usize) {
    for (jid, user) in stage.users(node) {
        assert!(user.moved.moves <= 2, "{jid} at {:?}: {:?}", user.register, user.moved);
    }
}

/// As many users as are moved in several batches.
fn more_users(stage: &mut Stage) {
    for node in BOTH {
        stage.more_users(node, 300);
        stage.run(SECOND);
    }
}

#[test]
fn a_node_that_stops_is_given_nobody_by_a_failover_that_begins_or_is_under_way() {
    // The failover begins so long before or after.
    for wait in [-50_i64, -5, -1, 0, 1, 5, 50] {
        let mut stage = Stage::pair(PAIR);
        more_users(&mut stage);
        forget_moves(&mut stage);
        stage.never_again(B);
        let failover = |stage: &mut Stage| begun(stage.op(A, Op::Failover(By::Here)));
        if wait < 0 {
            assert!(failover(&mut stage));
            stage.run(wait.unsigned_abs());
            stage.op(B, Op::Leave);
        } else {
            stage.op(B, Op::Leave);
            stage.run(wait.unsigned_abs());
            // Until a hears of it it is begun; from then on it is refused.
            failover(&mut stage);
        }
        stage.expect([A], 17, 5 * SECOND);
        assert_eq!((stage.shown(B), stage.served(A)), (None, 610), "{wait}: a serves everybody");
        assert!(stage.ready(A) && stage.leads(A, NodeIx::A) && stage.leads(A, NodeIx::B), "{wait}");
        to_and_fro_once(&stage, A);
        stage.start(B);
        stage.expect(BOTH, 103, 5 * SECOND);
        fallback(&mut stage, A);
        stage.expect(BOTH, 1, 5 * SECOND);
        // The last records are under way to b.
        stage.run(SECOND);
        let at_home = |user: &(_, presence_engine::state::User)| user.1.register == user.1.home;
        assert!(stage.users(A).iter().all(at_home) && stage.users(B).iter().all(at_home), "{wait}");
    }
}

#[test]
fn a_failover_that_has_moved_nobody_is_told_to_be_over_when_the_other_node_dies() {
    either(|from, to| {
        let mut stage = Stage::pair(PAIR);
        forget_moves(&mut stage);
        // It pauses before its first user.
        stage.crowded(from, true);
        assert!(begun(stage.op(from, Op::Failover(By::Here))));
        stage.expect([from], 2, 0);
        stage.run(SECOND);
        stage.kill(to);
        stage.expect([from], 17, 2 * SECOND);
        let (own, told) = (NodeIx::BOTH[from], moves(&mut stage, from));
        let of_own: Vec<_> = told.iter().copied().filter(|(group, ..)| *group == own).collect();
        let expected =
            [(own, false, Step::Began, Cause::Operator), (own, false, Step::Ended, Cause::Operator)];
        assert_eq!(of_own, expected, "{told:?}");
        assert_eq!(stage.served(from), 10);
    });
}

#[test]
fn two_nodes_that_stop_at_once_do_not_hand_the_same_users_to_and_fro() {
    for wait in [0, 1, 5, 50] {
        for [first, second] in [[A, B], [B, A]] {
            let mut stage = Stage::pair(PAIR);
            more_users(&mut stage);
            BOTH.into_iter().for_each(|node| stage.never_again(node));
            stage.op(first, Op::Leave);
            stage.run(wait);
            stage.op(second, Op::Leave);
            stage.run(5 * SECOND);
            assert_eq!(BOTH.map(|node| stage.shown(node)), [None; 2], "after {wait} ms: both have left");
            BOTH.into_iter().for_each(|node| stage.start(node));
            stage.run(10 * SECOND);
            for node in BOTH {
                to_and_fro_once(&stage, node);
            }
            mend(&mut stage);
        }
    }
}
