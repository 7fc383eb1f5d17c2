//! What operators ask of accounts and of the group in each state of a node: what is done there, and what is refused and why.

use std::collections::BTreeSet;

use presence_engine::state::GroupInfo;
use srm::node::GroupOp;
use xmpp_core::jid::BareJid;

use super::offers::in_failed_mode;
use super::services::SERVICES;
use super::*;

/// A state, the row and the node that show it, and how it comes about.
type Brought = (State, u32, usize, fn() -> Stage);

/// All states but that of a node that is down, which is not asked.
static STATES: [Brought; 14] = [
    (State::Normal, 1, A, || Stage::pair(PAIR)),
    (State::Initializing, 101, B, alone),
    (State::FailingOver, 2, A, failing_over),
    (State::TakingOver, 2, B, failing_over),
    (State::Idle, 3, A, failed_over),
    (State::RunningInBackupMode, 3, B, failed_over),
    (State::TakingBack, 4, A, falling_back),
    (State::FallingBack, 4, B, falling_back),
    (State::FailedOver, 103, A, returned),
    (State::FailedOverServicesNotRunning, 12, A, without_a_service),
    (State::RunningInFailedMode, 15, A, in_failed_mode),
    (State::BackupActivated, 23, A, recovering),
    (State::FailoverAffectedServices, 23, B, recovering),
    (State::Unknown, 24, A, at_odds),
];

/// Both were down, and b, which has started, does not hear a.
fn alone() -> Stage {
    let mut stage = Stage::pair(Profile { peer_and_disk: true, ..PAIR });
    stage.kill(A);
    stage.kill(B);
    stage.run(SECOND);
    stage.cut(1_000 * MINUTE);
    stage.start(B);
    stage.expect([B], 101, SECOND);
    stage
}

/// Users of a are on their way, and do not come far.
fn failing_over() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.moves_are_lost(A, true);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 2, 5 * SECOND);
    stage
}

fn failed_over() -> Stage {
    let mut stage = Stage::pair(PAIR);
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, SECOND);
    stage.run(SECOND);
    stage
}

fn falling_back() -> Stage {
    let mut stage = failed_over();
    stage.moves_are_lost(B, true);
    fallback(&mut stage, B);
    stage.expect(BOTH, 4, 5 * SECOND);
    stage
}

/// Node a was killed, and is back.
fn returned() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(SERVICES);
    stage.kill(A);
    stage.expect([B], 17, 2 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 5 * SECOND);
    stage.run(5 * SECOND);
    stage
}

fn without_a_service() -> Stage {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(SERVICES);
    stage.service(A, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 12, 2 * MINUTE);
    stage.run(SECOND);
    stage
}

/// Node b, which has all users, lost a service; they are on their way to a, and do not come far.
fn recovering() -> Stage {
    let mut stage = returned();
    stage.moves_are_lost(B, true);
    stage.service(B, Service::Router, Health::Stopped, false);
    stage.expect(BOTH, 23, 2 * MINUTE);
    stage
}

/// The nodes say different things of high availability.
fn at_odds() -> Stage {
    let mut stage = Stage::pair(Profile { weak: true, ..PAIR });
    stage.cut(4 * MINUTE);
    stage.run(90 * SECOND);
    assert_eq!(stage.op(A, Op::Group(GroupOp::Ha { on: false, force: true })), None);
    stage.run(20 * SECOND);
    stage.beacons_pass();
    stage.expect(BOTH, 24, MINUTE);
    stage
}

/// Brings a state about.
fn bring((state, row, node, brought): &Brought) -> Stage {
    let stage = brought();
    let (shown, states) = stage.shown(*node).expect("it runs");
    assert_eq!((shown, states[*node].0), (*row, *state));
    stage
}

fn account(name: &str) -> BareJid {
    BareJid::new(Some(name), "d").expect("a name")
}

/// Adds an account at home at a node.
fn add(name: &str, home: usize) -> Op {
    Op::UserAdd(account(name), Some(NodeIx::BOTH[home]), Box::default())
}

fn passwd(name: &str) -> Op {
    Op::UserPasswd(account(name), Box::default())
}

fn remove(name: &str) -> Op {
    Op::UserRemove(account(name))
}

fn assign(name: &str, home: usize) -> Op {
    Op::Assign(account(name), Some(NodeIx::BOTH[home]))
}

fn edit() -> Op {
    Op::Group(GroupOp::Edit { name: None, description: Some("third floor".to_owned()) })
}

fn off(force: bool) -> Op {
    Op::Group(GroupOp::Ha { on: false, force })
}

const DELETE: Op = Op::Group(GroupOp::Delete);

fn knows(stage: &Stage, node: usize, name: &str) -> bool {
    stage.users(node).iter().any(|(user, _)| *user == account(name))
}

#[test]
fn the_table_has_every_state_that_a_running_node_has() {
    let listed: BTreeSet<State> = STATES.iter().map(|(state, ..)| *state).collect();
    let all: BTreeSet<State> = State::ALL.iter().copied().filter(|state| *state != State::Down).collect();
    assert_eq!(listed, all);
}

#[test]
fn an_account_is_added_where_nobody_is_failed_over_or_on_the_way() {
    for brought in &STATES {
        let (state, _, node, _) = *brought;
        let mut stage = bring(brought);
        match state {
            State::Normal => {
                assert_eq!(stage.op(node, add("new", node)), None, "answered when it is safe");
                stage.run(SECOND);
                assert!(knows(&stage, A, "new") && knows(&stage, B, "new"));
                continue;
            }
            State::Initializing => {
                let why = refusal(stage.op(node, add("new", node)));
                assert_eq!(why, "the account's home is not served now");
                continue;
            }
            _ => {}
        }
        for home in BOTH {
            let why = refusal(stage.op(node, add("new", home)));
            assert_eq!(why, format!("no accounts are added while this node is {}", state.name()));
        }
        // Whatever keeps it from being added then, it is not the state.
        stage.automatics(Automatics { add_users: true, ..SERVICES });
        if let Some(Reply::Refused(refused)) = stage.op(node, add("new", node)) {
            assert!(!refused.error.contains("no accounts are added"), "{state:?}: {refused:?}");
        }
    }
}

#[test]
fn an_account_that_is_added_during_a_failover_comes_home_with_the_others() {
    let mut stage = failed_over();
    stage.automatics(Automatics { add_users: true, ..SERVICES });
    assert_eq!(stage.op(A, add("new", A)), Some(Reply::NotHere), "the backup serves those of a");
    assert_eq!(stage.op(B, add("new", A)), None);
    stage.run(SECOND);
    assert!(knows(&stage, A, "new") && knows(&stage, B, "new"));
    assert_eq!((stage.served(A), stage.served(B)), (0, 11));
    fallback(&mut stage, B);
    stage.expect(BOTH, 1, 5 * SECOND);
    assert_eq!((stage.served(A), stage.served(B)), (6, 5));
}

/// What becomes of a change of an account that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is done at the node that is asked.
    Here,
    /// The other node does it.
    There,
    /// Nobody does.
    Nowhere,
}

#[test]
fn accounts_are_changed_and_removed_by_whoever_serves_them_in_a_failover_too() {
    use Change::{Here, Nowhere, There};
    // Of u0, at home at a, and of u1, at home at b.
    let rows: [(State, [Change; 2]); 6] = [
        (State::Normal, [Here, There]),
        (State::Initializing, [Nowhere, Nowhere]),
        (State::Idle, [There, There]),
        (State::RunningInBackupMode, [Here, Here]),
        (State::FailedOver, [There, There]),
        (State::FailedOverServicesNotRunning, [There, There]),
    ];
    for (state, expected) in rows {
        let brought = STATES.iter().find(|(listed, ..)| *listed == state).expect("it is listed");
        let node = brought.2;
        for (name, expected) in ["u0", "u1"].into_iter().zip(expected) {
            for op in [passwd(name), remove(name)] {
                let mut stage = bring(brought);
                let reply = stage.op(node, op.clone());
                match expected {
                    Here => assert_eq!(reply, None, "{state:?} {op:?}"),
                    There => assert_eq!(reply, Some(Reply::NotHere), "{state:?} {op:?}"),
                    Nowhere => {
                        let why = refusal(reply);
                        assert_eq!(why, format!("the account {name}@d is served by nobody now"), "{state:?}");
                    }
                }
                stage.run(SECOND);
                let gone = expected == Here && matches!(op, Op::UserRemove(_));
                for node in BOTH.into_iter().filter(|node| stage.shown(*node).is_some()) {
                    assert_eq!(knows(&stage, node, name), !gone, "{state:?} {op:?} as {node} knows it");
                }
            }
        }
    }
}

#[test]
fn accounts_are_not_changed_without_a_database_nor_twice_at_once_nor_if_there_is_none() {
    let mut stage = Stage::pair(PAIR);
    assert_eq!(refusal(stage.op(A, add("u0", A))), "the account u0@d exists");
    for op in [passwd("nobody"), remove("nobody"), assign("nobody", B)] {
        assert_eq!(refusal(stage.op(A, op)), "there is no account nobody@d");
    }
    assert_eq!(stage.op(A, passwd("u0")), None);
    for op in [passwd("u0"), remove("u0")] {
        assert_eq!(refusal(stage.op(A, op)), "a change of the account u0@d is under way");
    }
    stage.run(SECOND);
    assert_eq!(stage.op(A, passwd("u0")), None, "the first is done");
    stage.run(SECOND);
    stage.service(A, Service::Database, Health::Stopped, true);
    for op in [add("new", A), passwd("u0"), remove("u0"), assign("u0", B)] {
        assert_eq!(refusal(stage.op(A, op)), "the database of this node is stopped");
    }
}

#[test]
fn the_group_is_changed_although_both_routers_are_stopped_and_nobody_is_assigned_to_a_node_that_lacks_one() {
    let mut stage = Stage::pair(PAIR);
    stage.automatics(SERVICES);
    for node in BOTH {
        stage.service(node, Service::Router, Health::Stopped, true);
    }
    stage.run(2 * SECOND);
    // The logs are well: what is written down there needs no router.
    assert_eq!(stage.op(A, edit()), None, "answered when it is safe");
    stage.run(SECOND);
    let homes =
        |stage: &Stage| stage.users(A).into_iter().map(|(user, u)| (user, u.home)).collect::<Vec<_>>();
    let before = homes(&stage);
    for node in BOTH {
        assert_eq!(&*stage.group(node).description, "third floor");
        let (user, other) = (["u0", "u1"][node], 1 - node);
        assert_eq!(stage.op(node, assign(user, other)), Some(Reply::Lacks(NodeIx::BOTH[other])));
        assert_eq!(
            stage.op(other, assign(user, other)),
            Some(Reply::NotHere),
            "its home is asked, and says why"
        );
    }
    stage.run(SECOND);
    assert_eq!(homes(&stage), before);
    stage.service(B, Service::Router, Health::Runs, false);
    stage.run(2 * SECOND);
    assert_eq!(stage.op(A, assign("u0", B)), None, "its own router is not needed to let somebody go");
    stage.run(SECOND);
    assert_ne!(homes(&stage), before);
    // In failed mode, what is to be done first.
    let mut stage = in_failed_mode();
    let Some(Reply::Refused(refused)) = stage.op(A, assign("u0", B)) else { panic!("it is not refused") };
    assert!(
        refused.hint.contains("a recover starts them") && refused.hint.contains("ask again"),
        "{refused:?}"
    );
}

#[test]
fn users_are_assigned_and_balanced_only_while_both_nodes_are_normal() {
    for brought in &STATES {
        let (state, _, node, _) = *brought;
        let mut stage = bring(brought);
        if state == State::Normal {
            assert_eq!(stage.op(node, assign("u0", B)), None);
            continue;
        }
        let (_, reason) = stage.shown(node).expect("it runs").1[node];
        let tail = format!(
            "while both nodes are Normal and nobody is on the way; this node is {} ({})",
            state.name(),
            reason.name()
        );
        assert_eq!(refusal(stage.op(node, assign("u0", B))), format!("users are assigned {tail}"));
        assert_eq!(refusal(stage.op(node, Op::Rebalance)), format!("users are balanced {tail}"));
    }
}

#[test]
fn the_group_is_neither_deleted_nor_made_twice_in_any_state_with_high_availability() {
    for brought in &STATES {
        let (state, _, node, _) = *brought;
        let mut stage = bring(brought);
        let why = refusal(stage.op(node, DELETE));
        match state {
            // This node says that it is off.
            State::Unknown => assert_eq!(why, "users are not at home, or on their way"),
            _ => assert_eq!(why, "high availability is enabled for this group", "{state:?}"),
        }
        let create = GroupOp::Create { name: "other".to_owned(), description: String::new() };
        let why = refusal(stage.op(node, Op::Group(create)));
        assert!(why.contains("a node is in one group only"), "{state:?}: {why}");
    }
}

#[test]
fn high_availability_is_disabled_where_users_are_at_home_and_nobody_is_on_the_way() {
    for brought in &STATES {
        let (state, _, node, _) = *brought;
        let mut stage = bring(brought);
        let reply = stage.op(node, off(false));
        let expected = match state {
            // In failed mode everybody is at home, and the logs are well.
            State::Normal | State::RunningInFailedMode => {
                assert_eq!(reply, None);
                continue;
            }
            // It is off there.
            State::Unknown => continue,
            State::Initializing => "this node serves nobody now, and writes nothing down",
            State::Idle
            | State::RunningInBackupMode
            | State::FailedOver
            | State::FailedOverServicesNotRunning => "users are served by their backup",
            _ => "users are on their way",
        };
        assert_eq!(refusal(reply), expected, "{state:?}");
        assert!(stage.group(node).ha);
    }
}

#[test]
fn a_group_is_deleted_when_nobody_is_away_from_home_and_nobody_is_assigned() {
    let mut stage = failed_over();
    assert_eq!(stage.op(B, off(true)), None);
    stage.run(SECOND);
    for node in BOTH {
        assert!(!stage.group(node).ha);
        assert_eq!(refusal(stage.op(node, DELETE)), "users are not at home, or on their way");
    }
    fallback(&mut stage, B);
    stage.expect(BOTH, 122, 5 * SECOND);
    stage.run(SECOND);
    let unassign = |stage: &mut Stage, user: usize| {
        let op = Op::Assign(account(&format!("u{user}")), None);
        assert_eq!(stage.op(user % 2, op), None);
    };
    for (left, next) in [(10, 0..9), (1, 9..10)] {
        for node in BOTH {
            let why = refusal(stage.op(node, DELETE));
            assert_eq!(why, format!("{left} users are assigned to nodes of this group"));
            assert!(!stage.group(node).name.is_empty());
        }
        next.for_each(|user| unassign(&mut stage, user));
        stage.run(SECOND);
    }
    assert_eq!(stage.op(A, DELETE), None);
    stage.run(SECOND);
    for node in BOTH {
        assert_eq!(stage.group(node).name, "");
    }
}

/// Accounts, where they are assigned, and the group.
type Known = (Vec<BareJid>, Vec<(NodeIx, bool)>, GroupInfo);

/// What each node knows.
fn known(stage: &Stage) -> [Known; 2] {
    let of = |node: usize| {
        let users = stage.users(node);
        let homes = users.iter().map(|(_, u)| (u.home, u.assigned)).collect();
        (users.into_iter().map(|(user, _)| user).collect(), homes, stage.group(node))
    };
    BOTH.map(of)
}

#[test]
fn an_inactive_node_takes_no_change_that_it_cannot_replicate() {
    // Node a was taken over, and hears neither b nor the witness.
    let cut_off = || {
        let mut stage = Stage::pair(WITNESS);
        stage.cut_off(A, 90 * SECOND);
        stage.expect([B], 16, 70 * SECOND);
        stage.run(SECOND);
        stage
    };
    // Node a is dead, and b may not serve without it.
    let waiting = || {
        let mut stage = Stage::pair(STRICT);
        stage.kill(A);
        stage.expect([B], 127, 2 * SECOND);
        stage
    };
    type Inactive = (&'static str, usize, fn() -> Stage);
    let inactive: [Inactive; 4] =
        [("returned", A, returned), ("starting", B, alone), ("waiting", B, waiting), ("cut off", A, cut_off)];
    for (name, node, brought) in inactive {
        let mut stage = brought();
        stage.automatics(Automatics { add_users: true, ..SERVICES });
        let before = known(&stage);
        let changes = [
            add("new", A),
            add("new", B),
            passwd("u0"),
            passwd("u1"),
            remove("u0"),
            remove("u1"),
            assign("u0", B),
            assign("u1", A),
            Op::Rebalance,
            edit(),
            off(false),
            off(true),
            DELETE,
        ];
        for op in changes {
            let reply = stage.op(node, op.clone());
            let alone = matches!(name, "starting" | "waiting");
            match &reply {
                Some(Reply::Refused(refused)) => assert!(!refused.hint.is_empty(), "{name} {op:?}"),
                // Its daemon asks the other node, which can.
                Some(Reply::NotHere) => assert!(!alone, "{name} {op:?}"),
                _ => panic!("{name} {op:?}: {reply:?}"),
            }
        }
        stage.run(2 * SECOND);
        assert!(known(&stage) == before, "{name}: something has changed");
    }
    // The node that serves all takes it, and so does an idle one, which replicates: the other one has it.
    for node in BOTH {
        let mut stage = failed_over();
        assert_eq!(stage.op(node, edit()), None);
        stage.run(SECOND);
        assert_eq!(stage.group(1 - node).description, "third floor");
    }
}
