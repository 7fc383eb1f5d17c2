//! Hunts through seeds of the pair on a virtual clock: `pair [FIRST] [COUNT] [PROFILE]` with a profile of `calm`, `strict`,
//! `people`, `impatient`, `impatient-witness`, `impatient-apart`, `restarts`, `alone`, `alone-devices`, `rosters`, `apart`, `clocks-apart`,
//! `disk`, `operated`, `partition`, `services`, `group`, `group-apart`, `held`, `held-apart` and `witness`; one seed prints its trace. At night:
//! `pair 0 20000 services`.

use std::time::Instant;

use load_tests::pair::{FIGURES, Profile, replay, run};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let profile = match args.get(2).map(String::as_str) {
        Some("calm") => Profile::CALM,
        Some("people") => Profile::PEOPLE,
        Some("impatient") => Profile::IMPATIENT,
        Some("impatient-witness") => Profile::IMPATIENT_WITNESS,
        Some("impatient-apart") => Profile::IMPATIENT_APART,
        Some("alone") => Profile::ALONE,
        Some("alone-devices") => Profile::ALONE_DEVICES,
        Some("rosters") => Profile::ROSTERS,
        Some("restarts") => Profile::RESTARTS,
        Some("apart") => Profile::PEOPLE_APART,
        Some("disk") => Profile::DISK,
        Some("operated") => Profile::OPERATED,
        Some("partition") => Profile::PARTITION,
        Some("clocks-apart") => Profile::CLOCKS_APART,
        Some("services") => Profile::SERVICES,
        Some("group") => Profile::GROUP,
        Some("group-apart") => Profile::GROUP_APART,
        Some("held") => Profile::HELD,
        Some("held-apart") => Profile::HELD_APART,
        Some("witness") => Profile::WITNESS,
        _ => Profile::STRICT,
    };
    let (first, count) = (number(0, 0), number(1, 100));
    let begun = Instant::now();
    if count == 1 {
        let verdict = replay(first, profile);
        println!("{}\n{:?}\n{:?}", verdict.trace, verdict.coverage, verdict.failure);
        return;
    }
    let (mut failed, mut seeds) = (0, [0u32; FIGURES]);
    for seed in first..first + count {
        let Ok(verdict) = std::panic::catch_unwind(|| run(seed, profile)) else {
            println!("seed {seed}: a panic");
            failed += 1;
            continue;
        };
        for (n, (_, figure)) in verdict.coverage.figures().into_iter().enumerate() {
            seeds[n] += u32::from(figure > 0);
        }
        if let Some(failure) = verdict.failure {
            let text: String = failure.chars().take(300).collect();
            println!("seed {seed}: {text}");
            failed += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{failed} of {count} failed; {:.1} seeds/s", count as f64 / seconds);
    for ((name, _), seeds) in load_tests::pair::Coverage::default().figures().iter().zip(seeds) {
        println!("{seeds:>6} seeds with {name}");
    }
}
