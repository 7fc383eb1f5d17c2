//! Hunts through seeds of the pair on a virtual clock: `pair [FIRST] [COUNT] [PROFILE]`; one seed prints its trace. At night:
//! `pair nightly [total=20000] [threads=2] [first=0]`, which plays all profiles from seed `first` on. What the profiles play
//! stands in `docs/testing.md`. Exit 0: every seed held; 1: one failed, or panicked; 2: usage.

use std::process::ExitCode;

use load_tests::pair::{Profile, program, replay, run};

fn main() -> ExitCode {
    let mut args = std::env::args();
    let again = args.next().unwrap_or_else(|| "pair".to_owned());
    let play = |seed: u64, profile: Profile, tracing: bool| {
        if tracing { replay(seed, profile) } else { run(seed, profile) }
    };
    ExitCode::from(program(&again, &args.collect::<Vec<_>>(), &play))
}
