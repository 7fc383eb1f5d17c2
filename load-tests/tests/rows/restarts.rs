//! A restart of either node, or of both, in every state: what it ends in is written down beside this file, for each profile, and
//! from there it goes on to Normal. Each state is brought about with either node in each place. A node that is killed and started
//! is one that died; of some states it is written down besides what a restart ends in that the node announces.

use std::fmt::Write;

use srm::node::GroupOp;

use super::services::SERVICES;
use super::*;

/// How long after the restart the rows are written down.
const REST: u64 = 30 * SECOND;

/// Who is a in what is written down, and who is b.
type Nodes = [usize; 2];

/// A state, and the way into it. A way that a profile does not allow ends where it does: the rows that were reached are written
/// down, too.
struct Way {
    name: &'static str,
    into: fn(&mut Stage, Nodes),
    /// The nodes do not hear each other, and each may serve all.
    apart: bool,
}

const fn way(name: &'static str, into: fn(&mut Stage, Nodes)) -> Way {
    Way { name, into, apart: false }
}

const INTO: &[Way] = &[
    way("Normal", |_, _| {}),
    way("Initializing, down", |stage, [a, b]| {
        stage.kill(a);
        stage.kill(b);
        stage.run(SECOND);
        stage.start(a);
        stage.run(SECOND);
    }),
    way("Failing Over, Taking Over", |stage, nodes| {
        many_users(stage, nodes);
        into_a_move(stage, nodes, 2, fail_over, home_again);
    }),
    way("Idle, Running in Backup Mode", idle),
    way("Falling Back, Taking Back", |stage, nodes| {
        many_users(stage, nodes);
        idle(stage, nodes);
        into_a_move(stage, nodes, 4, fall_back, away_again);
    }),
    way("down, Running in Backup Mode", |stage, [a, _]| {
        stage.kill(a);
        stage.run(5 * SECOND);
    }),
    way("Failed Over, Running in Backup Mode", |stage, [a, _]| {
        stage.kill(a);
        stage.run(5 * SECOND);
        stage.start(a);
        stage.run(10 * SECOND);
    }),
    way("down, Taking Over (the witness does not answer)", |stage, [a, _]| {
        stage.witness_away(MINUTE);
        stage.kill(a);
        stage.run(300);
    }),
    way("down, Initializing (the witness has not answered for longer than the lease)", |stage, [a, _]| {
        stage.witness_away(MINUTE);
        stage.kill(a);
        stage.run(10 * SECOND);
    }),
    way("Failed Over with Critical Services Not Running", |stage, [a, _]| {
        failed_over_for(stage, a, Service::Database);
    }),
    way("Running in Failed Mode", |stage, nodes| {
        for node in nodes {
            stage.service(node, Service::Database, Health::Stopped, true);
        }
        stage.run(200 * SECOND);
    }),
    way("Backup Activated (22)", |stage, nodes| backup_activated(stage, nodes, Service::Database, 22)),
    way("Backup Activated (23)", |stage, nodes| backup_activated(stage, nodes, Service::Router, 23)),
    Way { name: "Unknown", into: unknown, apart: true },
    way("Normal without high availability", |stage, [a, _]| {
        stage.op(a, Op::Group(GroupOp::Ha { on: false, force: false }));
        stage.run(SECOND);
    }),
    way("Idle, Idle (both restarted without automatics)", |stage, [a, b]| {
        without_automatics(stage);
        stage.kill(a);
        stage.kill(b);
        stage.start(a);
        stage.start(b);
        stage.run(10 * SECOND);
    }),
    way("Idle, down (both killed without automatics, one is back)", |stage, [a, b]| {
        without_automatics(stage);
        stage.kill(a);
        stage.kill(b);
        stage.start(a);
        stage.run(MINUTE);
    }),
    way("Idle, Normal (forced inactive)", forced_inactive),
    way("Idle, down (forced inactive)", |stage, nodes| {
        forced_inactive(stage, nodes);
        stage.kill(nodes[1]);
        stage.run(MINUTE);
    }),
];

/// States in which a restart is announced, too.
const ANNOUNCED: [&str; 6] = [
    "Initializing, down",
    "Failed Over, Running in Backup Mode",
    "Failed Over with Critical Services Not Running",
    "Backup Activated (22)",
    "Backup Activated (23)",
    "Unknown",
];

/// And one more, as a service that is not the database has reasons of its own.
const WITHOUT_ROUTER: Way = way("Failed Over with Critical Services Not Running (12)", |stage, [a, _]| {
    failed_over_for(stage, a, Service::Router);
});

/// A service of a node is down for longer than the delay.
fn failed_over_for(stage: &mut Stage, node: usize, service: Service) {
    stage.automatics(SERVICES);
    stage.service(node, service, Health::Stopped, true);
    stage.run(100 * SECOND);
}

/// So many that they move in several batches: there is a moment at which both nodes know of the move.
fn many_users(stage: &mut Stage, [a, _]: Nodes) {
    stage.more_users(a, 300);
    stage.run(SECOND);
}

fn fail_over(stage: &mut Stage, [a, _]: Nodes) {
    stage.op(a, Op::Failover(By::Here));
}

fn fall_back(stage: &mut Stage, [_, b]: Nodes) {
    fallback(stage, b);
}

/// Begins a move until both nodes show its row: the other hears of it by a beacon, and where that comes after the end of the move,
/// all go back, and it begins anew.
#[track_caller]
fn into_a_move(
    stage: &mut Stage,
    nodes: Nodes,
    row: u32,
    begin: fn(&mut Stage, Nodes),
    back: fn(&mut Stage, Nodes),
) {
    for _ in 0..5 {
        begin(stage, nodes);
        loop {
            match BOTH.map(|node| stage.shown(node).is_some_and(|(shown, _)| shown == row)) {
                [true, true] => return,
                [false, false] => break,
                _ => stage.run(1),
            }
        }
        back(stage, nodes);
    }
    panic!("at no moment do both show row {row}: {:?} {:?}", stage.shown(A), stage.shown(B));
}

fn home_again(stage: &mut Stage, nodes: Nodes) {
    stage.expect(BOTH, 3, 10 * SECOND);
    fall_back(stage, nodes);
    stage.expect(BOTH, 1, 10 * SECOND);
}

fn away_again(stage: &mut Stage, nodes: Nodes) {
    stage.expect(BOTH, 1, 10 * SECOND);
    idle(stage, nodes);
}

fn idle(stage: &mut Stage, nodes: Nodes) {
    fail_over(stage, nodes);
    stage.expect(BOTH, 3, 10 * SECOND);
}

fn without_automatics(stage: &mut Stage) {
    stage.automatics(Automatics { disabled: true, ..Automatics::default() });
    stage.run(SECOND);
}

fn forced_inactive(stage: &mut Stage, [a, _]: Nodes) {
    without_automatics(stage);
    stage.op(a, Op::Force { to: Force::Inactive, confirmed: true });
    stage.run(5 * SECOND);
}

/// The node in backup mode loses a service: all users move to the other, which is soon over.
fn backup_activated(stage: &mut Stage, nodes: Nodes, service: Service, row: u32) {
    stage.automatics(SERVICES);
    idle(stage, nodes);
    let [_, b] = nodes;
    stage.service(b, service, Health::Stopped, false);
    stage.expect([b], row, 95 * SECOND);
}

/// Beacons pass, and the log does not; the nodes know different things of the group.
fn unknown(stage: &mut Stage, [a, _]: Nodes) {
    stage.cut(4 * MINUTE);
    stage.run(90 * SECOND);
    stage.op(a, Op::Group(GroupOp::Ha { on: false, force: true }));
    stage.run(20 * SECOND);
    stage.beacons_pass();
    stage.run(30 * SECOND);
}

/// Rows as they are written down; a node that does not run has none.
fn rows(stage: &Stage, nodes: Nodes) -> String {
    let [a, b] = nodes.map(|node| stage.shown(node).map_or("-".to_owned(), |(row, _)| row.to_string()));
    format!("{a:>3} {b:>3}")
}

/// A row holds at every moment, one that was made for what is so; and no group is led twice.
pub(super) fn watch(stage: &Stage, told: &str) {
    for node in BOTH {
        assert!(stage.has_row(node), "{told}: {node} shows {:?}", stage.shown(node));
    }
    for group in NodeIx::BOTH {
        assert!(!(stage.leads(A, group) && stage.leads(B, group)), "{told}: both lead {group:?}");
    }
}

/// Back to Normal: whatever was taken away is there again, and the operator does what the rows say.
fn to_normal(stage: &mut Stage, nodes: Nodes, told: &str) {
    stage.cut(0);
    stage.automatics(Automatics::default());
    for node in nodes {
        if stage.shown(node).is_none() {
            stage.start(node);
        }
        stage.service(node, Service::Database, Health::Runs, false);
        stage.service(node, Service::Router, Health::Runs, false);
    }
    for _ in 0..1_200 {
        let shown = BOTH.map(|node| stage.shown(node).map(|(row, _)| row));
        if shown == [Some(1); 2] {
            return;
        }
        for node in nodes {
            match shown[node] {
                Some(14 | 15 | 19..=21 | 117) => _ = stage.op(node, Op::Recover),
                Some(122) => _ = stage.op(node, Op::Group(GroupOp::Ha { on: true, force: true })),
                Some(128..=131) if node == nodes[0] => {
                    stage.op(node, Op::Force { to: Force::Active, confirmed: true });
                }
                _ => _ = stage.op(node, Op::Fallback(By::Here)),
            }
        }
        stage.run(500);
    }
    panic!("{told}: not Normal within 10 minutes: {:?} {:?}", stage.shown(A), stage.shown(B));
}

/// A state with these nodes in its places, and a restart: a line of the table.
fn line(profile: Profile, Way { name, into, apart }: &Way, who: &str, nodes: Nodes) -> String {
    let told = format!("{name} with {nodes:?}, restarted: {who}");
    // What a client was told is nobody's business here: there is none.
    let mut stage = Stage::pair(Profile { weak: true, ..profile });
    into(&mut stage, nodes);
    let before = rows(&stage, nodes);
    let restarted: Vec<usize> = who.split(", ").map(|node| nodes[usize::from(node == "b")]).collect();
    for node in &restarted {
        stage.kill(*node);
        stage.run(100);
    }
    for node in &restarted {
        stage.start(*node);
        stage.run(100);
    }
    for _ in 0..REST / 100 {
        stage.run(100);
        if !apart {
            watch(&stage, &told);
        }
    }
    let line = format!("{name} | {who} | {before} | {}", rows(&stage, nodes));
    to_normal(&mut stage, nodes, &told);
    line
}

/// A state with these nodes in its places, and a restart of one of them that it announces: a line of the table, if that node runs.
/// It is away for a second; the other one does not hold it to be gone, and shows what it showed, if no users are on their way.
fn line_of_announced(
    profile: Profile,
    Way { name, into, apart }: &Way,
    who: &str,
    nodes: Nodes,
) -> Option<String> {
    let told = format!("{name} with {nodes:?}, restarted by its operator: {who}");
    let mut stage = Stage::pair(Profile { weak: true, ..profile });
    into(&mut stage, nodes);
    let before = rows(&stage, nodes);
    let node = nodes[usize::from(who == "b")];
    let other = 1 - node;
    stage.shown(node)?;
    let moving = BOTH.iter().any(|node| matches!(stage.shown(*node), Some((22 | 23, _))));
    let (shown, losses) = (stage.shown(other), stage.losses(other));
    let reply = stage.op(node, Op::Restart);
    let done = reply == Some(Reply::Done);
    stage.run(900);
    assert_eq!(stage.shown(node).is_none(), done, "{told}");
    assert!(*apart || moving || stage.shown(other) == shown, "{told}: {shown:?}, {:?}", stage.shown(other));
    for _ in 0..(REST + SECOND) / 100 {
        stage.run(100);
        if !apart {
            watch(&stage, &told);
        }
    }
    // Where the path is cut nobody hears of it.
    assert!(*apart || stage.losses(other) == losses, "{told}");
    let refused = if done { String::new() } else { format!(" | refused: {}", refusal(reply)) };
    let line = format!("{name} | {who} | {before} | {}{refused}", rows(&stage, nodes));
    to_normal(&mut stage, nodes, &told);
    Some(line)
}

/// How a table begins.
const HEAD: &str = "# Rows of a and b before a restart, and half a minute after it; - does not run.\n\
                    # The same with the nodes exchanged, but where a line says so.\n\
                    # State of a, state of b | restarted | before | after\n";

/// A line, and another if it is another one with the nodes exchanged.
fn put(text: &mut String, line: impl Fn(Nodes) -> Option<String>) {
    let [straight, exchanged] = [[A, B], [B, A]].map(line);
    if let Some(line) = &straight {
        writeln!(text, "{line}").expect("a string takes it");
    }
    if let Some(line) = exchanged.as_ref().filter(|_| exchanged != straight) {
        writeln!(text, "exchanged: {line}").expect("a string takes it");
    }
}

/// Lines for each state and each restart.
fn table(profile: Profile) -> String {
    let mut text = HEAD.to_owned();
    for way in INTO {
        for who in ["a", "b", "a, b", "b, a"] {
            put(&mut text, |nodes| Some(line(profile, way, who, nodes)));
        }
    }
    text
}

/// The same where the restart of one node is announced.
fn table_of_announced(profile: Profile) -> String {
    let announced = "# The restart is announced: the operator asks the node for it.\n";
    let mut text = format!("{HEAD}{announced}");
    let ways = INTO.iter().filter(|way| ANNOUNCED.contains(&way.name));
    for way in ways.chain([&WITHOUT_ROUTER]) {
        for who in ["a", "b"] {
            put(&mut text, |nodes| line_of_announced(profile, way, who, nodes));
        }
    }
    text
}

/// What the tables say is what happens; `TANDEM_WRITE_DOCS=1` writes them anew.
fn as_written(name: &str, table: &str) {
    let path = format!("{}/tests/rows/restarts-{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::write(&path, table).expect("the table is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = table.lines().zip(written.lines().chain(std::iter::repeat("")));
    let differs = lines.find(|(is, was)| is != was);
    assert!(
        differs.is_none() && table == written,
        "{path}: {differs:?}; if that is meant to be, write it anew: TANDEM_WRITE_DOCS=1 cargo test --workspace --profile ci \
         --test rows -- a_restart"
    );
}

#[test]
fn a_restart_in_every_state_ends_in_the_row_that_is_written_down_and_from_there_in_normal() {
    as_written("pair", &table(PAIR));
}

#[test]
fn a_restart_in_every_state_with_a_witness() {
    as_written("witness", &table(WITNESS));
}

#[test]
fn a_restart_in_every_state_of_nodes_that_serve_nobody_alone() {
    as_written("strict", &table(STRICT));
}

#[test]
fn a_restart_that_is_announced_ends_in_the_row_that_is_written_down_and_from_there_in_normal() {
    as_written("announced-pair", &table_of_announced(PAIR));
}

#[test]
fn a_restart_that_is_announced_with_a_witness() {
    as_written("announced-witness", &table_of_announced(WITNESS));
}
