//! Hunts through seeds of the pair on a virtual clock: `pair [FIRST] [COUNT] [calm|strict|weak]`; one seed prints its trace.

use std::time::Instant;

use load_tests::pair::{Profile, replay, run};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let profile = match args.get(2).map(String::as_str) {
        Some("calm") => Profile::CALM,
        _ => Profile::STRICT,
    };
    let (first, count) = (number(0, 0), number(1, 100));
    let begun = Instant::now();
    if count == 1 {
        let verdict = replay(first, profile);
        println!("{}\n{:?}\n{:?}", verdict.trace, verdict.coverage, verdict.failure);
        return;
    }
    let mut failed = Vec::new();
    for seed in first..first + count {
        let verdict = run(seed, profile);
        if let Some(failure) = verdict.failure {
            let end = (0..=300.min(failure.len())).rev().find(|i| failure.is_char_boundary(*i)).unwrap_or(0);
            println!("seed {seed}: {}", &failure[..end]);
            failed.push(seed);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} of {count} failed; {:.1} seeds/s", failed.len(), count as f64 / seconds);
}
