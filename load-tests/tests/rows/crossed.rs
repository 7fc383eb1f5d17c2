//! Each node serves the other's users: both held each other to be gone, and each asked the witness first for the users of the other. Neither
//! has a register of its own that the other's users could move into before they go home.

use super::recover::all_arrives;
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

/// Everybody logs in, and goes on talking.
fn talk(stage: &mut Stage) -> Vec<String> {
    stage.clients(5 * MINUTE);
    stage.run(10 * SECOND);
    sessions_of(stage)
}

fn sessions_of(stage: &Stage) -> Vec<String> {
    stage.streams().0.into_iter().map(|(_, session)| format!("{session:?}")).collect()
}

#[test]
fn nodes_that_serve_each_others_users_give_them_back_by_themselves() {
    let mut stage = crossed();
    let sessions = talk(&mut stage);
    stage.automatics(Automatics { fallback: true, after: 8, ..Automatics::default() });
    is_home(&mut stage);
    all_arrives(&mut stage);
    assert_eq!(sessions_of(&stage), sessions, "nobody logged in anew");
}

#[test]
fn nodes_that_serve_each_others_users_give_them_back_when_they_are_asked() {
    let mut stage = crossed();
    let sessions = talk(&mut stage);
    for node in [B, A] {
        let begun = stage.op(node, Op::Fallback(By::Here));
        assert!(matches!(begun, Some(Reply::Begun(_))), "{begun:?}");
        stage.run(20 * SECOND);
    }
    is_home(&mut stage);
    all_arrives(&mut stage);
    assert_eq!(sessions_of(&stage), sessions, "nobody logged in anew");
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
