//! A death of either node at every step of what operators ask for and of what the nodes do by themselves. Each operation is played
//! once without faults, and its steps are written down; then it is played again for each step and each node, which dies there and is
//! started again after a second. Each time nothing is lost or said twice, what an operator was answered is kept, nobody waits for
//! longer than the time-out, no group is led twice, both nodes come to rest in a row that is right, and from there the pair is Normal
//! again, by the operator if it must be. `TANDEM_EVERY_STEP=1` leaves no step out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use load_tests::pair::deaths::{BACK, Step as Made, What};
use srm::config::Assignment;
use srm::node::GroupOp;
use xmpp_core::jid::BareJid;

use super::group::{OFF, ON};
use super::restarts::watch;
use super::services::SERVICES;
use super::*;

/// The keep-alive time-out: for so long clients wait at most.
const TIME_OUT: u64 = MINUTE;
/// So long an operation may take.
const LONGEST: u64 = 30 * SECOND;
/// What comes right behind the end of an operation belongs to it.
const TAIL: u64 = 50;
/// Both nodes must show a row for so long to be at rest in it.
const REST: u64 = 5 * SECOND;
/// Clients go on talking for so long after the death.
const TALK: u64 = 2 * SECOND;
/// So many steps are played of the kinds that decide, and as many of the others, for each node.
const MOST: usize = 20;

/// The delay for services is two seconds, and the flap guard is another test's.
const SOON: Automatics = Automatics { delay: 8, failovers_per_hour: 100, ..SERVICES };
/// Ten seconds: a service that is restarted has been probed by then.
const PROBED: Automatics = Automatics { delay: 40, ..SOON };
/// Users who are not at home go there by themselves after three seconds.
const BACK_SOON: Automatics = Automatics { fallback: true, after: 12, ..SOON };
const WITHOUT: Automatics = Automatics { disabled: true, ..SOON };

/// What is asked for, or what happens by itself.
struct Operation {
    name: &'static str,
    profile: Profile,
    /// What comes before it.
    before: fn(&mut Stage),
    asks: fn(&mut Stage),
    /// It begins some time after that was asked, when the row changes.
    later: bool,
    /// It has come to its end.
    done: fn(&Stage) -> bool,
    /// In which rows both nodes may come to rest after a death.
    ends: &'static [u32],
    /// What the operator can rely on once he has his answer.
    keeps: fn(&Stage) -> bool,
    /// Steps without which it is not what it should be.
    has: &'static [What],
    /// When all is well it is asked for again, and done.
    again: bool,
}

fn shown(stage: &Stage) -> [Option<u32>; 2] {
    BOTH.map(|node| stage.shown(node).map(|(row, _)| row))
}

fn both(stage: &Stage, row: u32) -> bool {
    shown(stage) == [Some(row); 2]
}

/// In these rows users wait for the operator.
fn waits_for_the_operator(row: u32) -> bool {
    matches!(row, 14 | 15 | 19..=21 | 117 | 127..=131)
}

/// Up to the moment before it is asked for; clients talk.
fn prepared(operation: &Operation, tracing: bool) -> Stage {
    let mut stage = Stage::formed(operation.profile, 0, tracing);
    stage.clients(0);
    // Nobody has anything to say yet.
    stage.run(200);
    (operation.before)(&mut stage);
    stage.talk(10 * MINUTE);
    stage.run(500);
    stage.listen();
    stage
}

/// All that was written down when nobody died, and which of it belongs to the operation.
fn played(operation: &Operation) -> (Vec<Made>, Range<usize>) {
    let mut stage = prepared(operation, false);
    let rest = shown(&stage);
    (operation.asks)(&mut stage);
    let (mut first, end) = (0, stage.now() + LONGEST);
    let mut begun = !operation.later;
    while !begun || !(operation.done)(&stage) {
        assert!(stage.now() < end, "{}: not done: {:?}", operation.name, shown(&stage));
        if !begun {
            first = stage.steps().len();
        }
        stage.run(1);
        begun |= shown(&stage) != rest;
    }
    stage.run(TAIL);
    let steps = stage.steps().to_vec();
    let all = first..steps.len();
    for what in operation.has {
        let there = steps[all.clone()].iter().any(|step| step.what == *what);
        assert!(there, "{}: no step of the kind {what:?}", operation.name);
    }
    (steps, all)
}

/// The steps at which a node dies: evenly from those that decide, and evenly from the others.
fn chosen(steps: &[Made], all: Range<usize>, who: usize) -> Vec<usize> {
    let decides = |number: &usize| matches!(steps[*number].what, What::Save | What::Asked | What::Heard);
    let (deciding, others): (Vec<_>, Vec<_>) = all.partition(decides);
    let every = |of: &[usize]| match std::env::var_os("TANDEM_EVERY_STEP") {
        Some(_) => 1,
        None => of.len().div_ceil(MOST).max(1),
    };
    let mut chosen = Vec::new();
    for some in [deciding, others] {
        // The other node dies at the steps between.
        let every = every(&some);
        chosen.extend(some.iter().skip(who * every / 2).step_by(every));
    }
    chosen
}

/// A node dies at a step. The row in which both come to rest, or `None` if it could not die there.
fn dies(operation: &Operation, steps: &[Made], at: usize, who: usize, tracing: bool) -> Option<u32> {
    let told = format!("{}: {} dies at step {at}, {:?}", operation.name, ["a", "b"][who], steps[at]);
    let mut stage = prepared(operation, tracing);
    stage.dies_at(steps, at, who);
    (operation.asks)(&mut stage);
    let end = stage.now() + LONGEST;
    let died = loop {
        if stage.spared() {
            return None;
        }
        if let Some((dead, when)) = stage.died() {
            assert_eq!(dead, who, "{told}");
            break when;
        }
        assert!(stage.now() < end, "{told}: the step does not come");
        stage.run(1);
    };
    assert!(steps.starts_with(stage.steps()), "{told}: it is not the same");
    stage.hush(TALK);
    let answered = stage.answered();
    let row = comes_to_rest(&mut stage, operation, died, &told);
    assert!(!answered || (operation.keeps)(&stage), "{told}: it was answered, and is not kept: {row}");
    is_well(&mut stage, &told);
    if operation.again {
        let end = stage.now() + LONGEST;
        while !(operation.done)(&stage) {
            assert!(stage.now() < end, "{told}: what is asked for again is not done");
            (operation.asks)(&mut stage);
            stage.run(SECOND);
        }
        is_well(&mut stage, &told);
    }
    Some(row)
}

/// The node starts again, and both show the same right row; whoever need not wait for the operator has waited for no longer than
/// the time-out.
fn comes_to_rest(stage: &mut Stage, operation: &Operation, died: u64, told: &str) -> u32 {
    let right = |stage: &Stage| match shown(stage) {
        [Some(a), Some(b)] if a == b && operation.ends.contains(&a) => Some(a),
        _ => None,
    };
    let mut since = None;
    loop {
        watch(stage, told);
        let row = right(stage);
        let waits = row.is_none_or(|row| !waits_for_the_operator(row) && !stage.open().is_empty());
        let late = stage.now() > died + TIME_OUT;
        assert!(!waits || !late, "{told}: {:?}, open: {:?}", shown(stage), stage.open());
        since = since.filter(|(is, _)| Some(*is) == row).or(row.map(|row| (row, stage.now())));
        let rests = since.is_some_and(|(_, since)| since.max(died + BACK + TALK) + REST <= stage.now());
        match row {
            Some(row) if rests && !waits => return row,
            _ => stage.run(50),
        }
        assert!(stage.now() < died + 2 * TIME_OUT, "{told}: it does not rest: {:?}", shown(stage));
    }
}

/// Services run, and the operator does what the row says, if it says something, looking before every word of force.
fn is_well(stage: &mut Stage, told: &str) {
    for node in BOTH {
        stage.service(node, Service::Database, Health::Runs, false);
        stage.service(node, Service::Router, Health::Runs, false);
    }
    stage.automatics(Automatics::default());
    // A client may wait for an attempt that it made before.
    let end = stage.now() + 4 * MINUTE;
    loop {
        // What is enabled again takes its time.
        (0..20).for_each(|_| {
            stage.run(50);
            watch(stage, told);
        });
        let rows = shown(stage);
        if rows == [Some(1); 2] && stage.unwell().is_none() {
            return;
        }
        assert!(stage.now() < end, "{told}: not well: {rows:?}, {:?}", stage.unwell());
        for node in BOTH {
            match rows[node] {
                None | Some(1) => {}
                Some(14 | 15 | 19..=21 | 117) => _ = stage.op(node, Op::Recover),
                Some(122) => _ = stage.op(node, Op::Group(GroupOp::Ha { on: true, force: true })),
                Some(127..=131) => {
                    let word = |confirmed| Op::Force { to: Force::Active, confirmed };
                    let nothing = match stage.op(node, word(false)) {
                        Some(Reply::MayMiss(missing)) => missing.is_empty(),
                        answer => answer == Some(Reply::TakesBack(false)),
                    };
                    if node == A && nothing {
                        stage.op(node, word(true));
                    }
                }
                Some(_) => _ = stage.op(node, Op::Fallback(By::Here)),
            }
        }
    }
}

/// Plays an operation and all its deaths. One that fails is played once more with a trace.
fn at_every_step(operation: &Operation) {
    let (steps, all) = played(operation);
    let mut kinds = BTreeMap::new();
    all.clone().for_each(|number| *kinds.entry(steps[number].what).or_insert(0) += 1);
    println!("{}: {} steps: {kinds:?}", operation.name, all.len());
    for who in BOTH {
        let (mut rests, mut spared) = (BTreeMap::new(), 0);
        let chosen = chosen(&steps, all.clone(), who);
        for at in &chosen {
            let quiet = catch_unwind(AssertUnwindSafe(|| dies(operation, &steps, *at, who, false)));
            match quiet {
                Ok(Some(row)) => *rests.entry(row).or_insert(0) += 1,
                Ok(None) => spared += 1,
                Err(failed) => {
                    dies(operation, &steps, *at, who, true);
                    resume_unwind(failed);
                }
            }
        }
        let (name, died) = (["a", "b"][who], chosen.len() - spared);
        println!(
            "  {name} dies at {died} of them, and is not there at {spared}; rows and how often: {rests:?}"
        );
        assert!(died > 0, "{}: {name} never dies", operation.name);
    }
}

fn failed_over(stage: &mut Stage) {
    assert!(begun(stage.op(A, Op::Failover(By::Here))));
    stage.expect(BOTH, 3, 10 * SECOND);
    stage.run(3 * SECOND);
}

fn taken_over(stage: &mut Stage) {
    stage.kill(A);
    stage.expect([B], 17, 5 * SECOND);
    stage.start(A);
    stage.expect(BOTH, 103, 20 * SECOND);
    stage.run(3 * SECOND);
}

/// As soon as the home node has caught up; whoever is asked may die meanwhile.
fn gives_back(stage: &mut Stage) {
    for _ in 0..100 {
        match stage.op(B, Op::Fallback(By::Here)) {
            Some(Reply::Refused(_)) => stage.run(50),
            _ => return,
        }
    }
}

fn watched(stage: &mut Stage) {
    stage.automatics(SOON);
    stage.run(SECOND);
}

fn failed_over_and_watched(stage: &mut Stage) {
    watched(stage);
    failed_over(stage);
}

fn without_automatics(stage: &mut Stage) {
    stage.automatics(WITHOUT);
    stage.run(SECOND);
}

fn forced_inactive(stage: &mut Stage) {
    without_automatics(stage);
    let forced = stage.op(A, Op::Force { to: Force::Inactive, confirmed: true });
    assert!(matches!(forced, Some(Reply::Forced(_))), "{forced:?}");
    stage.expect(BOTH, 130, 10 * SECOND);
    stage.run(SECOND);
}

fn switched_off(stage: &mut Stage) {
    assert_eq!(stage.op(A, OFF), None, "answered when it is safe");
    stage.expect(BOTH, 122, 5 * SECOND);
    stage.run(SECOND);
}

/// Whether all users of whom this is true are at home at a node, and both nodes know it.
fn at_home(stage: &Stage, home: NodeIx, of: impl Fn(&BareJid) -> bool) -> bool {
    BOTH.into_iter().all(|node| {
        let users = stage.users(node);
        let mut those = users.iter().filter(|(user, _)| of(user));
        !users.is_empty() && those.all(|(_, user)| user.home == home && user.register == home)
    })
}

/// The first user, who is at home at a.
fn first() -> BareJid {
    BareJid::new(Some("u0"), "d").expect("a name")
}

/// Wherever that user is now.
fn knows_the_home(stage: &Stage) -> bool {
    BOTH.into_iter().all(|node| {
        let users = stage.users(node);
        users.iter().any(|(user, known)| *user == first() && known.home == NodeIx::B)
    })
}

/// What most operations have in common.
const ANY: Operation = Operation {
    name: "",
    profile: PAIR,
    before: |_| {},
    asks: |_| {},
    later: false,
    done: |_| false,
    ends: &[],
    keeps: |_| true,
    has: &[],
    again: false,
};

/// Node a loses a service, and its users go to node b.
const SERVICE: Operation = Operation {
    before: watched,
    later: true,
    has: &[What::Save, What::Written, What::Frame, What::Link, What::Told],
    ..ANY
};

const ROUTER: Operation = Operation {
    name: "a failover for a service (108, 12)",
    asks: |stage| stage.service(A, Service::Router, Health::Fails, false),
    done: |stage| both(stage, 12),
    ends: &[1, 11, 12, 103],
    ..SERVICE
};

#[test]
fn a_death_at_every_step_of_a_failover_for_a_service() {
    at_every_step(&ROUTER);
}

#[test]
fn a_death_at_every_step_of_a_failover_for_a_service_with_a_witness() {
    at_every_step(&Operation {
        name: "a failover for a service, with a witness",
        profile: WITNESS,
        ..ROUTER
    });
}

#[test]
fn a_death_at_every_step_of_a_failover_for_the_database() {
    at_every_step(&Operation {
        name: "a failover for the database (109, 13)",
        asks: |stage| stage.service(A, Service::Database, Health::Fails, false),
        done: |stage| both(stage, 13),
        ends: &[1, 13, 103, 123],
        ..SERVICE
    });
}

/// Node b, which serves all, loses a service, and all users go to node a.
const BACKUP: Operation = Operation {
    before: failed_over_and_watched,
    has: &[What::Written, What::Frame, What::Link, What::Told],
    ..SERVICE
};

#[test]
fn a_death_at_every_step_of_a_move_to_the_home_node_because_its_backup_lost_a_service() {
    at_every_step(&Operation {
        name: "a service of the backup (23)",
        asks: |stage| stage.service(B, Service::Router, Health::Fails, false),
        done: |stage| both(stage, 12),
        ends: &[1, 11, 12, 103],
        ..BACKUP
    });
}

#[test]
fn a_death_at_every_step_of_a_move_to_the_home_node_because_its_backup_lost_the_database() {
    at_every_step(&Operation {
        name: "the database of the backup (22)",
        asks: |stage| stage.service(B, Service::Database, Health::Fails, false),
        done: |stage| both(stage, 13),
        ends: &[1, 13, 103, 123],
        ..BACKUP
    });
}

#[test]
fn a_death_at_every_step_of_a_recover() {
    at_every_step(&Operation {
        name: "a recover (15)",
        before: |stage| {
            stage.automatics(PROBED);
            stage.run(SECOND);
            BOTH.into_iter().for_each(|node| stage.service(node, Service::Router, Health::Fails, true));
            stage.expect(BOTH, 15, 20 * SECOND);
            stage.run(SECOND);
            // They can be started again.
            BOTH.into_iter().for_each(|node| stage.service(node, Service::Router, Health::Fails, false));
        },
        asks: |stage| _ = stage.op(A, Op::Recover),
        done: |stage| both(stage, 1),
        ends: &[1, 11, 12, 15, 21, 103],
        has: &[What::Link, What::Told, What::Shell],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_an_automatic_fallback() {
    at_every_step(&Operation {
        name: "an automatic fallback (10)",
        before: taken_over,
        asks: |stage| stage.automatics(BACK_SOON),
        later: true,
        done: |stage| both(stage, 1),
        // Whoever is not at home goes there by himself, whatever the death has made of it.
        ends: &[1],
        has: &[What::Save, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_failover_with_a_witness() {
    at_every_step(&Operation {
        name: "a failover of the operator, with a witness (2, 3)",
        profile: WITNESS,
        asks: |stage| _ = stage.op(A, Op::Failover(By::Here)),
        done: |stage| both(stage, 3),
        ends: &[1, 3, 5, 103],
        has: &[What::Reply, What::Written, What::Frame, What::Link, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_fallback_after_a_takeover_with_a_witness() {
    at_every_step(&Operation {
        name: "a fallback after a takeover, with a witness (4)",
        profile: WITNESS,
        before: taken_over,
        asks: gives_back,
        done: |stage| both(stage, 1),
        ends: &[1, 103],
        has: &[What::Save, What::Asked, What::Heard, What::Reply, What::Frame],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_takeover_with_a_witness() {
    at_every_step(&Operation {
        name: "a takeover with a witness (112, 17, 103)",
        profile: WITNESS,
        asks: |stage| stage.dies_now(A),
        done: |stage| both(stage, 103),
        ends: &[1, 103],
        has: &[What::Save, What::Asked, What::Heard, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_a_rebalance() {
    at_every_step(&Operation {
        name: "a rebalance",
        asks: |stage| {
            stage.automatics(Automatics { assignment: Assignment::ActiveStandby, ..Automatics::default() });
            BOTH.into_iter().for_each(|node| _ = stage.op(node, Op::Rebalance));
        },
        done: |stage| at_home(stage, NodeIx::A, |_| true),
        ends: &[1, 103],
        has: &[What::Written, What::Frame, What::Link, What::Reply],
        again: true,
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_an_assignment() {
    at_every_step(&Operation {
        name: "an assignment",
        asks: |stage| _ = stage.op(A, Op::Assign(first(), Some(NodeIx::B))),
        done: |stage| at_home(stage, NodeIx::B, |user| *user == first()),
        ends: &[1, 103],
        keeps: knows_the_home,
        has: &[What::Written, What::Frame, What::Link],
        again: true,
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_switching_high_availability_off() {
    at_every_step(&Operation {
        name: "high availability off (122)",
        asks: |stage| _ = stage.op(A, OFF),
        done: |stage| both(stage, 122),
        ends: &[1, 103, 122],
        keeps: |stage| both(stage, 122),
        has: &[What::Written, What::Frame, What::Told],
        ..ANY
    });
}

#[test]
fn a_death_at_every_step_of_switching_high_availability_on() {
    at_every_step(&Operation {
        name: "high availability on (132)",
        before: switched_off,
        asks: |stage| _ = stage.op(A, ON),
        done: |stage| both(stage, 1),
        ends: &[1, 103, 122],
        keeps: |stage| !both(stage, 122),
        has: &[What::Written, What::Frame, What::Told, What::Shell],
        ..ANY
    });
}

/// Node a is to serve nobody.
const INACTIVE: Operation = Operation {
    name: "a node forced inactive (130)",
    before: without_automatics,
    asks: |stage| _ = stage.op(A, Op::Force { to: Force::Inactive, confirmed: true }),
    done: |stage| both(stage, 130),
    ends: &[1, 130],
    keeps: |stage| both(stage, 130),
    has: &[What::Save, What::Reply, What::Told],
    ..ANY
};

#[test]
fn a_death_at_every_step_of_forcing_a_node_inactive() {
    at_every_step(&INACTIVE);
}

#[test]
fn a_death_at_every_step_of_forcing_a_node_inactive_with_a_witness() {
    at_every_step(&Operation {
        name: "a node forced inactive, with a witness",
        profile: WITNESS,
        ..INACTIVE
    });
}

/// Node b is to serve everybody beside one that serves nobody.
const ACTIVE: Operation = Operation {
    name: "a node forced active (3)",
    before: forced_inactive,
    asks: |stage| _ = stage.op(B, Op::Force { to: Force::Active, confirmed: true }),
    done: |stage| both(stage, 3),
    ends: &[1, 3, 5, 6, 7, 128, 130],
    has: &[What::Save, What::Reply, What::Frame, What::Told],
    ..ANY
};

#[test]
fn a_death_at_every_step_of_forcing_a_node_active() {
    at_every_step(&ACTIVE);
}

#[test]
fn a_death_at_every_step_of_forcing_a_node_active_with_a_witness() {
    at_every_step(&Operation {
        name: "a node forced active, with a witness",
        profile: WITNESS,
        has: &[What::Save, What::Asked, What::Heard, What::Reply, What::Told],
        ..ACTIVE
    });
}
