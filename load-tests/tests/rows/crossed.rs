//! Each node serves the other's users: both held each other to be gone, and each asked the witness first for the users of the other. Neither
//! has a register of its own that the other's users could move into before they go home.

use super::*;

/// Each serves the other's users, and both are together again.
fn crossed() -> Stage {
    let mut stage = Stage::pair(WITNESS);
    stage.witness_gives_nobody_his_own(true);
    stage.cut(2 * MINUTE);
    stage.run(MINUTE + 30 * SECOND);
    stage.witness_gives_nobody_his_own(false);
    stage.run(MINUTE);
    assert!(stage.leads(B, NodeIx::A) && stage.leads(A, NodeIx::B), "{:?}", stage.shown(A));
    stage
}

fn is_home(stage: &mut Stage) {
    stage.expect(BOTH, 1, 2 * MINUTE);
    assert!(stage.leads(A, NodeIx::A) && stage.leads(B, NodeIx::B));
    for node in BOTH {
        assert_eq!(stage.served(node), stage.users(node).len() / 2);
    }
}

#[test]
fn nodes_that_serve_each_others_users_give_them_back_by_themselves() {
    let mut stage = crossed();
    stage.automatics(Automatics { fallback: true, after: 8, ..Automatics::default() });
    is_home(&mut stage);
}

#[test]
fn nodes_that_serve_each_others_users_give_them_back_when_they_are_asked() {
    let mut stage = crossed();
    for node in [B, A] {
        let begun = stage.op(node, Op::Fallback(By::Here));
        assert!(matches!(begun, Some(Reply::Begun(_))), "{begun:?}");
        stage.run(20 * SECOND);
    }
    is_home(&mut stage);
}

/// One that dies meanwhile is taken over as ever.
#[test]
fn who_dies_while_each_serves_the_others_users_is_taken_over() {
    for dies in BOTH {
        let mut stage = crossed();
        stage.kill(dies);
        stage.run(30 * SECOND);
        assert!(
            NodeIx::BOTH.into_iter().all(|group| stage.leads(1 - dies, group)),
            "{:?}",
            stage.shown(1 - dies)
        );
        stage.start(dies);
        stage.automatics(Automatics { fallback: true, after: 8, ..Automatics::default() });
        is_home(&mut stage);
    }
}
