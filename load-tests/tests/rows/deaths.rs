//! A death of either node at every step of what operators ask for and of what the nodes do by themselves. Each operation is played
//! once without faults, and its steps are written down; then it is played again for each step and each node, which dies there and is
//! started again after a second. Each time nothing is lost or said twice, what an operator was answered is kept, nobody waits for
//! longer than the time-out, no group is led twice, both nodes come to rest in a row that is right, and from there the pair is Normal
//! again, by the operator if it must be. `TANDEM_EVERY_STEP=1` leaves no step out.

mod operations;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use load_tests::pair::deaths::{BACK, Step as Made, What};
use srm::node::GroupOp;

use super::restarts::watch;
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
