//! Nodes that wait for the operator although they might serve: restarted while automatics are disabled, or forced inactive.

use srm::node::GroupOp;

use super::*;

/// What the nodes do by themselves: nothing.
fn disabled() -> Automatics {
    Automatics { disabled: true, ..Automatics::default() }
}

fn force(stage: &mut Stage, node: usize, to: Force) -> Option<Reply> {
    stage.op(node, Op::Force { to, confirmed: true })
}

fn without_automatics(profile: Profile) -> Stage {
    let mut stage = Stage::pair(profile);
    stage.automatics(disabled());
    stage.run(SECOND);
    stage
}

/// Both are killed and started; `second` comes so much later.
fn restart_both(stage: &mut Stage, second_after: u64) {
    stage.kill(A);
    stage.kill(B);
    stage.start(A);
    stage.run(second_after);
    stage.start(B);
}

fn nobody_leads(stage: &Stage) -> bool {
    BOTH.iter().all(|node| NodeIx::BOTH.iter().all(|group| !stage.leads(*node, *group)))
}

/// Forces both ways, and goes back to where it began.
fn by_the_operator(stage: &mut Stage) {
    assert!(matches!(force(stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.run(SECOND);
    assert_eq!(force(stage, B, Force::Active), Some(Reply::Forced(Vec::new())), "everything is there");
    stage.expect(BOTH, 3, 10 * SECOND);
    stage.run(SECOND);
    assert!(NodeIx::BOTH.iter().all(|group| stage.leads(B, *group)));
    stage.run(MINUTE);
    fallback(stage, B);
    stage.expect(BOTH, 1, 10 * SECOND);
}

#[test]
fn rows_128_and_129_both_restarted_without_automatics_wait_for_the_operator() {
    for second_after in [0, 1, 30 * SECOND, 5 * MINUTE] {
        for profile in [PAIR, STRICT, WITNESS] {
            let mut stage = without_automatics(profile);
            restart_both(&mut stage, second_after);
            stage.expect(BOTH, 128, 10 * SECOND);
            let idle = (State::Idle, Reason::Initialization);
            assert_eq!(stage.shown(A).unwrap().1, [idle; 2]);
            stage.stays(&BOTH, 128, 10 * MINUTE);
            assert!(nobody_leads(&stage) && !stage.ready(A) && !stage.ready(B));
            assert!(says(&stage, A, "restarted while automatic failover is disabled, and b serves nobody"));
            by_the_operator(&mut stage);
        }
    }
}

#[test]
fn row_129_one_that_is_back_alone_waits_too_and_serves_by_the_operators_word() {
    let mut stage = without_automatics(STRICT);
    stage.kill(A);
    stage.kill(B);
    stage.start(A);
    stage.expect([A], 129, MINUTE);
    // Whom b serves, nobody knows here.
    assert!(says(&stage, A, "and b is not heard; start b, or `tandem force-active a`"));
    assert!(!says(&stage, A, "serves nobody"), "{:?}", stage.alarms(A));
    stage.stays(&[A], 129, 10 * MINUTE);
    assert!(matches!(force(&mut stage, A, Force::Active), Some(Reply::Forced(_))));
    stage.run(SECOND);
    assert!(NodeIx::BOTH.iter().all(|group| stage.leads(A, *group)));
    stage.start(B);
    stage.run(MINUTE);
    assert!(NodeIx::BOTH.iter().all(|group| stage.leads(A, *group)), "who comes later follows");
}

#[test]
fn who_alone_was_restarted_without_automatics_serves_its_users_again() {
    for profile in [PAIR, STRICT, WITNESS] {
        let mut stage = without_automatics(profile);
        stage.kill(A);
        stage.run(3 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 1, 10 * SECOND);
        assert!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    }
}

/// Who waits for the operator may do so for long: that is no transition.
#[test]
fn high_availability_is_disabled_beside_a_node_that_waits_for_the_operator() {
    let off = || Op::Group(GroupOp::Ha { on: false, force: false });
    let unwritten = "this node serves nobody now, and writes nothing down";
    let mut stage = without_automatics(PAIR);
    restart_both(&mut stage, 0);
    stage.expect(BOTH, 128, 10 * SECOND);
    for node in BOTH {
        assert_eq!(refusal(stage.op(node, off())), unwritten);
    }
    stage.kill(B);
    stage.expect([A], 129, 2 * MINUTE);
    assert_eq!(refusal(stage.op(A, off())), unwritten);

    let mut stage = without_automatics(PAIR);
    assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.expect(BOTH, 130, 5 * SECOND);
    assert_eq!(stage.op(A, off()), Some(Reply::NotHere));
    assert_eq!(stage.op(B, off()), None, "b writes it down");
    stage.run(5 * SECOND);
    for node in BOTH {
        assert!(!stage.group(node).ha);
    }
    assert_eq!(force(&mut stage, A, Force::Active), Some(Reply::TakesBack(true)));
    stage.expect(BOTH, 122, 10 * SECOND);
}

#[test]
fn who_waits_serves_once_automatics_are_enabled() {
    let mut stage = without_automatics(PAIR);
    restart_both(&mut stage, 0);
    stage.expect(BOTH, 128, 10 * SECOND);
    stage.automatics(Automatics::default());
    stage.expect(BOTH, 1, 10 * SECOND);
}

#[test]
fn rows_130_and_131_a_node_is_forced_inactive_and_stays_so() {
    let mut stage = without_automatics(PAIR);
    assert_eq!(
        stage.op(A, Op::Force { to: Force::Inactive, confirmed: false }).map(|reply| match reply {
            Reply::MayMiss(lines) => lines.len(),
            other => panic!("{other:?}"),
        }),
        Some(1),
        "its own users"
    );
    stage.stays(&BOTH, 1, 5 * SECOND);
    assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.expect(BOTH, 130, 5 * SECOND);
    assert!(!stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    stage.stays(&BOTH, 130, 10 * MINUTE);
    // Over a restart, and with automatics.
    stage.kill(A);
    stage.run(3 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 130, 10 * SECOND);
    stage.run(10 * SECOND);
    stage.kill(B);
    stage.expect([A], 131, MINUTE);
    stage.start(B);
    stage.expect(BOTH, 130, MINUTE);
    // a knows that b alone was restarted.
    stage.run(10 * SECOND);
    assert!(stage.leads(B, NodeIx::B));
    assert_eq!(force(&mut stage, A, Force::Active), Some(Reply::TakesBack(true)));
    stage.expect(BOTH, 1, 10 * SECOND);
    by_the_operator(&mut stage);
    // The operator takes it back while b serves its own.
    assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.expect(BOTH, 130, 5 * SECOND);
    let would = stage.op(A, Op::Force { to: Force::Active, confirmed: false });
    assert_eq!(would, Some(Reply::TakesBack(false)), "nothing is forced, and the operator is told so");
    assert_eq!(force(&mut stage, A, Force::Active), Some(Reply::TakesBack(true)));
    stage.expect(BOTH, 1, 10 * SECOND);
}

/// What the operator took back does not come back from the disk.
#[test]
fn who_was_forced_inactive_and_active_again_serves_after_a_restart() {
    for profile in [PAIR, STRICT, WITNESS] {
        let mut stage = without_automatics(profile);
        assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
        stage.expect(BOTH, 130, 5 * SECOND);
        assert_eq!(force(&mut stage, A, Force::Active), Some(Reply::TakesBack(true)));
        stage.expect(BOTH, 1, 10 * SECOND);
        stage.kill(A);
        stage.run(3 * SECOND);
        stage.start(A);
        stage.expect(BOTH, 1, 10 * SECOND);
        assert!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    }
}

/// One waits since it was forced, the other since it was restarted with it: neither serves, and that is what is shown.
#[test]
fn row_128_who_is_forced_inactive_and_restarted_with_its_peer_is_not_shown_beside_one_that_serves() {
    either(|forced, other| {
        let mut stage = without_automatics(PAIR);
        assert!(matches!(force(&mut stage, forced, Force::Inactive), Some(Reply::Forced(_))));
        stage.expect(BOTH, 130, 5 * SECOND);
        restart_both(&mut stage, 100);
        stage.expect(BOTH, 128, 10 * SECOND);
        stage.stays(&BOTH, 128, MINUTE);
        assert!(!NodeIx::BOTH.iter().any(|g| stage.leads(A, *g) || stage.leads(B, *g)));
        assert!(matches!(force(&mut stage, other, Force::Active), Some(Reply::Forced(_))));
        stage.expect(BOTH, 3, 10 * SECOND);
        assert!(NodeIx::BOTH.iter().all(|g| stage.leads(other, *g)), "those of the forced node, too");
    });
}

#[test]
fn a_node_is_not_forced_inactive_where_that_makes_no_sense() {
    let mut stage = Stage::pair(PAIR);
    assert!(refusal(force(&mut stage, A, Force::Inactive)).contains("automatics are enabled"));
    stage.automatics(disabled());
    stage.run(SECOND);
    assert!(refusal(force(&mut stage, B, Force::Active)).contains("node a is heard"), "it leads its own");
    stage.op(A, Op::Failover(By::Here));
    stage.expect(BOTH, 3, 10 * SECOND);
    assert!(refusal(force(&mut stage, A, Force::Inactive)).contains("serves nobody: all users are at b"));
}

#[test]
fn who_was_forced_inactive_during_a_cut_waits_after_it() {
    for profile in [PAIR, STRICT, WITNESS] {
        let mut stage = Stage::pair(profile);
        stage.cut(40 * SECOND);
        stage.run(20 * SECOND);
        assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
        stage.run(3 * MINUTE);
        assert!(!stage.leads(A, NodeIx::A), "the cut is over, and it waits");
        assert_eq!(force(&mut stage, A, Force::Active), Some(Reply::TakesBack(true)));
        stage.run(MINUTE);
        assert!(BOTH.iter().any(|node| stage.leads(*node, NodeIx::A)), "somebody serves its users");
        assert!(BOTH.iter().any(|node| stage.leads(*node, NodeIx::B)));
    }
}

#[test]
fn who_alone_was_restarted_and_led_everybody_serves_again() {
    let mut stage = without_automatics(PAIR);
    stage.kill(B);
    stage.run(3 * SECOND);
    assert!(matches!(force(&mut stage, A, Force::Active), Some(Reply::Forced(_))));
    stage.start(B);
    stage.run(MINUTE);
    assert!(NodeIx::BOTH.iter().all(|group| stage.leads(A, *group)));
    stage.kill(A);
    stage.run(3 * SECOND);
    stage.start(A);
    stage.run(10 * SECOND);
    assert!(NodeIx::BOTH.iter().all(|group| stage.leads(A, *group)), "b knows who led");
}

#[test]
fn users_of_a_node_that_stops_are_not_given_to_one_that_serves_nobody() {
    let mut stage = without_automatics(PAIR);
    assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.run(5 * SECOND);
    stage.op(B, Op::Leave);
    assert_eq!(stage.shown(B), None, "it has left at once");
    stage.run(2 * MINUTE);
    assert!(!NodeIx::BOTH.iter().any(|group| stage.leads(A, *group)), "a is to serve nobody");
    assert!(stage.users(A).iter().all(|(_, user)| user.register == user.home), "nobody was moved");
}

/// Between the question and the confirmation the peer falls silent: what was told then would not be what is done now.
#[test]
fn a_word_is_taken_back_only_while_nothing_is_forced_by_that() {
    for cut in [true, false] {
        let mut stage = without_automatics(PAIR);
        assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
        stage.expect(BOTH, 130, 5 * SECOND);
        let would = stage.op(A, Op::Force { to: Force::Active, confirmed: false });
        assert_eq!(would, Some(Reply::TakesBack(false)));
        if cut {
            stage.cut(10 * SECOND);
        } else {
            stage.kill(B);
        }
        stage.run(5 * SECOND);
        assert!(refusal(stage.op(A, Op::TakeBack)).contains("it has changed since you were asked"));
        stage.run(SECOND);
        assert!(!NodeIx::BOTH.iter().any(|group| stage.leads(A, *group)), "nobody is forced");
    }
    let mut stage = without_automatics(PAIR);
    assert!(refusal(stage.op(A, Op::TakeBack)).contains("it has changed since"), "it is not held at all");
    assert!(matches!(force(&mut stage, A, Force::Inactive), Some(Reply::Forced(_))));
    stage.expect(BOTH, 130, 5 * SECOND);
    assert_eq!(stage.op(A, Op::TakeBack), Some(Reply::TakesBack(true)));
    stage.expect(BOTH, 1, 10 * SECOND);
}
