//! Searches the safety core with bounds from the command line:
//! `model KIND START [key=number ...]`, KIND `available|strict|witness`, START `home|taken|solo`; keys: writes ticks
//! lease crashes power disks lies init pauses give cuts force overrule unsent forgets holds disk (peer-and-disk) took (1 A, 2 B, 3 both) strong heals
//! threads minutes. `model nightly [threads=N minutes=N]` plays the searches that are too long for the test run, one after
//! the other, each for so many minutes at most. Exit 0: the whole space was searched and every property holds; 1: broken, or what a nightly
//! search is for never happened; 2: usage; 3: the time ran out before.

use std::process::ExitCode;
use std::time::Duration;

use load_tests::model::{Bounds, GIVEN_BACK, Kind, RESEEDED, SETTLED, Start, TAKEN_OVER, search};

/// Searches that take minutes: two crashes, with what the test run has with one; a witness that loses its register; what the
/// operator says. The strong promise ends with `force` and `overrule`, and only there, but for `strong=0`. With each stands what
/// has to happen somewhere in it: a search in which it does not has shown nothing.
const NIGHTLY: [(&str, &[&str]); 21] = [
    ("witness home crashes=2 pauses=1 lies=1", &[TAKEN_OVER]),
    ("witness home crashes=2 lies=1 writes=2", &[TAKEN_OVER]),
    ("witness home crashes=2 unsent=1", &[TAKEN_OVER]),
    ("witness home crashes=2 cuts=1", &[TAKEN_OVER]),
    ("witness taken crashes=2 give=1", &[GIVEN_BACK]),
    ("witness solo crashes=2 init=1 unsent=1", &[TAKEN_OVER]),
    ("witness home crashes=2 disks=1 init=1", &[TAKEN_OVER]),
    ("strict home crashes=2 pauses=1 lies=1 cuts=1 power=1", &[]),
    ("available home crashes=2 lies=1 strong=0", &[TAKEN_OVER]),
    ("witness home crashes=2 lies=1 forgets=1", &[TAKEN_OVER, RESEEDED]),
    ("witness home crashes=1 lies=1 unsent=1 forgets=1", &[TAKEN_OVER, RESEEDED]),
    ("witness solo crashes=1 init=1 forgets=1", &[TAKEN_OVER, RESEEDED]),
    ("witness taken crashes=2 give=1 forgets=1", &[GIVEN_BACK, RESEEDED]),
    ("witness home crashes=1 overrule=1 unsent=1 forgets=1", &[TAKEN_OVER, SETTLED, RESEEDED]),
    ("witness home crashes=2 overrule=1 unsent=1", &[TAKEN_OVER, SETTLED]),
    ("witness home crashes=2 force=1", &[TAKEN_OVER, SETTLED]),
    ("witness home crashes=2 lies=1 holds=1", &[TAKEN_OVER]),
    ("witness home crashes=1 force=1 holds=1", &[TAKEN_OVER, SETTLED]),
    ("strict home crashes=2 pauses=1 force=1 writes=2", &[TAKEN_OVER]),
    ("strict home crashes=2 force=1 holds=1", &[TAKEN_OVER]),
    ("available home crashes=2 force=1 holds=1 strong=0", &[TAKEN_OVER, SETTLED]),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "nightly") {
        let worst = NIGHTLY.iter().map(|(line, reaches)| {
            let line = line.split(' ').map(str::to_owned);
            println!();
            run(&line.chain(args[1..].iter().cloned()).collect::<Vec<_>>(), reaches)
        });
        return ExitCode::from(
            worst.max_by_key(|code| [0, 3, 2, 1].iter().position(|c| c == code)).unwrap_or(0),
        );
    }
    ExitCode::from(run(&args, &[]))
}

fn run(args: &[String], reaches: &[&'static str]) -> u8 {
    let Some((bounds, threads, minutes)) = parse(args) else {
        eprintln!(
            "usage: model available|strict|witness home|taken|solo [key=number ...]; or: model nightly"
        );
        return 2;
    };
    println!("{}: {bounds:?}, {threads} threads, at most {minutes} min", args.join(" "));
    let found = search(bounds, threads, Duration::from_secs(60 * minutes));
    println!("{} states in {:.1?}; reached: {:?}", found.states, found.took, found.reached);
    for failure in &found.failures {
        println!("BROKEN {failure}");
    }
    if !found.failures.is_empty() {
        return 1;
    }
    if !found.complete {
        println!("NOT COMPLETE: the time ran out; nothing is said about the states that were not visited");
        return 3;
    }
    println!("complete: every property holds within these bounds");
    let missed = found.missed(reaches);
    for what in &missed {
        println!("NEVER REACHED {what}: nothing is said about it");
    }
    u8::from(!missed.is_empty())
}

fn parse(args: &[String]) -> Option<(Bounds, usize, u64)> {
    let kind = match args.first()?.as_str() {
        "available" => Kind::Available,
        "strict" => Kind::Strict,
        "witness" => Kind::Witness,
        _ => return None,
    };
    let start = match args.get(1)?.as_str() {
        "home" => Start::Home,
        "taken" => Start::TakenOver,
        "solo" => Start::Solo,
        _ => return None,
    };
    let mut b = Bounds::new(kind, start);
    let (mut threads, mut minutes) = (1, 30);
    for arg in &args[2..] {
        let (key, value) = arg.split_once('=')?;
        let n: u8 = value.parse().ok()?;
        match key {
            "writes" if n <= 4 => b.writes = n,
            "ticks" => b.ticks = n,
            "lease" => b.lease = n.into(),
            "crashes" => b.left.crashes = n,
            "power" => b.left.power = n,
            "disks" => b.left.disks = n,
            "lies" => b.left.lies = n,
            "init" => b.left.init = n,
            "pauses" => b.left.pauses = n,
            "give" => b.left.give_back = n,
            "cuts" => b.left.cuts = n,
            "force" => b.left.force = n,
            "overrule" => b.left.overrule = n,
            "unsent" => b.left.unsent = n,
            "forgets" => b.left.forgets = n,
            "holds" => b.left.holds = n,
            "disk" => b.peer_disk = n > 0,
            "took" => b.took_other = [n & 1 > 0, n & 2 > 0],
            "strong" => b.strong = n > 0,
            "heals" => b.heals = n > 0,
            "threads" => threads = n.into(),
            "minutes" => minutes = n.into(),
            _ => return None,
        }
    }
    Some((b, threads, minutes))
}
