//! Searches the safety core with bounds from the command line: `KIND WRITES CRASHES POWER TICKS PAUSES LIES INIT GIVE
//! MINUTES`. Exit 0: the whole space was searched and every property holds; 1: broken; 3: the time ran out before.

use std::process::ExitCode;
use std::time::Duration;

use load_tests::model::{Bounds, Group, Kind, search};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u8| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let kind = match args.first().map(String::as_str) {
        Some("available") => Kind::Available,
        Some("strict") => Kind::Strict,
        _ => Kind::Witness,
    };
    let bounds = Bounds {
        kind,
        writes: number(1, 2),
        crashes: number(2, 1),
        power: number(3, 0),
        ticks: number(4, 3),
        pauses: number(5, 0),
        lies: number(6, 1),
        init: number(7, 0),
        lease: 2,
        give_back: number(8, 0),
    };
    let minutes = u64::from(number(9, 30));
    println!("{bounds:?}, at most {minutes} min");
    let group = Group { bounds, strong: kind != Kind::Available, heals: kind != Kind::Strict };
    let found = search(group, 2, Duration::from_secs(60 * minutes));
    println!("{} states; reached: {:?}", found.states, found.reached);
    for failure in &found.failures {
        println!("BROKEN {failure}");
    }
    if !found.failures.is_empty() {
        return ExitCode::from(1);
    }
    if !found.complete {
        println!("NOT COMPLETE: the time ran out; nothing is said about the states that were not visited");
        return ExitCode::from(3);
    }
    println!("complete: every property holds within these bounds");
    ExitCode::SUCCESS
}
