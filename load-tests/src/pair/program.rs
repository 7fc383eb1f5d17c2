//! The program that hunts through seeds: some of one profile, or at night some of all of them. What it returns is its exit
//! code, which is what those who run it at night look at.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::{Coverage, FIGURES, PROFILES, Profile, Verdict};

/// No seed failed, one did, or nobody knows what is to be played.
const WELL: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// How much is told of a failure.
const LONGEST: usize = 300;

/// Plays one seed, with its trace or without.
pub type Player<'a> = &'a (dyn Fn(u64, Profile, bool) -> Verdict + Sync);

/// `again`: how the program is called.
pub fn program(again: &str, args: &[String], play: Player) -> u8 {
    let failed = match args {
        [word, rest @ ..] if word == "nightly" => Night::of(rest).map(|night| night.play(again, play)),
        all => hunt_of(all).map(|(first, count, profile)| hunt(first, count, profile, play)),
    };
    match failed {
        Some(0) => WELL,
        Some(_) => FAILED,
        None => {
            eprintln!("{}", usage(again));
            USAGE
        }
    }
}

fn usage(again: &str) -> String {
    let names: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    format!(
        "usage: {again} [FIRST] [COUNT] [PROFILE]; or: {again} nightly [total=N] [threads=N] [first=N]\nprofiles: {}",
        names.join(" ")
    )
}

fn hunt_of(args: &[String]) -> Option<(u64, u64, Profile)> {
    let number = |i: usize, default: u64| args.get(i).map_or(Some(default), |arg| arg.parse().ok());
    let name = args.get(2).map_or("strict", String::as_str);
    let (_, profile) = PROFILES.into_iter().find(|(known, _)| *known == name)?;
    Some((number(0, 0)?, number(1, 100)?, profile)).filter(|_| args.len() <= 3)
}

/// Seeds of one profile, one after the other; how many failed. A single one is told with its trace.
fn hunt(first: u64, count: u64, profile: Profile, play: Player) -> u64 {
    let begun = Instant::now();
    if count == 1 {
        let verdict = play(first, profile, true);
        println!("{}\n{:?}\n{:?}", verdict.trace, verdict.coverage, verdict.failure);
        return u64::from(verdict.failure.is_some());
    }
    let (mut failed, mut seeds) = (0, [0u32; FIGURES]);
    for seed in first..first.saturating_add(count) {
        let Ok(verdict) = catch_unwind(AssertUnwindSafe(|| play(seed, profile, false))) else {
            println!("seed {seed}: a panic");
            failed += 1;
            continue;
        };
        for (n, (_, figure)) in verdict.coverage.figures().into_iter().enumerate() {
            seeds[n] += u32::from(figure > 0);
        }
        if let Some(failure) = verdict.failure {
            let text: String = failure.chars().take(LONGEST).collect();
            println!("seed {seed}: {text}");
            failed += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{failed} of {count} failed; {:.1} seeds/s", count as f64 / seconds);
    for ((name, _), seeds) in Coverage::default().figures().iter().zip(seeds) {
        println!("{seeds:>6} seeds with {name}");
    }
    failed
}

/// Seeds of all profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Night {
    /// In all; the profiles share them evenly.
    total: u64,
    /// Played at once.
    threads: u64,
    /// The first of each profile, so that no night plays what another did.
    first: u64,
}

impl Night {
    /// `None`: other words than these, or fewer seeds than profiles, of which some would not be played.
    fn of(words: &[String]) -> Option<Night> {
        let mut night = Night { total: 20_000, threads: 2, first: 0 };
        for word in words {
            let (key, value) = word.split_once('=')?;
            let number = u64::from(value.parse::<u32>().ok()?);
            match key {
                "total" if number >= PROFILES.len() as u64 => night.total = number,
                "threads" if number > 0 => night.threads = number,
                "first" => night.first = number,
                _ => return None,
            }
        }
        Some(night)
    }

    /// A line for each profile, and how each seed that failed is played again; how many failed.
    fn play(&self, again: &str, play: Player) -> u64 {
        let mut all = 0;
        for (n, (name, profile)) in PROFILES.into_iter().enumerate() {
            let (begun, seeds) = (Instant::now(), self.share(n as u64));
            let failed = self.hunt(seeds, profile, play);
            let seconds = begun.elapsed().as_secs_f64();
            println!("{name:<17} {seeds:>6} seeds {:>5} failed {seconds:>8.1} s", failed.len());
            for (seed, why) in &failed {
                println!("    {again} {seed} 1 {name}    # {why}");
            }
            all += failed.len() as u64;
        }
        all
    }

    /// How many seeds are the share of a profile; the first ones have what is left over.
    fn share(&self, profile: u64) -> u64 {
        let profiles = PROFILES.len() as u64;
        self.total / profiles + u64::from(profile < self.total % profiles)
    }

    /// Those that failed, and why, in a line.
    fn hunt(&self, seeds: u64, profile: Profile, play: Player) -> BTreeMap<u64, String> {
        let (next, failed) = (AtomicU64::new(self.first), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.first + seeds {
                            return;
                        }
                        let played = catch_unwind(AssertUnwindSafe(|| play(seed, profile, false).failure));
                        if let Some(why) = played.unwrap_or_else(|_| Some("a panic".to_owned())) {
                            let why: String = why.replace('\n', " ").chars().take(LONGEST).collect();
                            failed.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, why);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn verdict(failure: Option<&str>) -> Verdict {
        let failure = failure.map(str::to_owned);
        Verdict { failure, coverage: Coverage::default(), virtual_ms: 0, trace: String::new() }
    }

    /// Seed 3 of profiles with a witness fails, and seed 5 panics.
    fn play(seed: u64, profile: Profile, _: bool) -> Verdict {
        assert!(seed != 5, "seed 5 is meant to panic");
        verdict((seed == 3 && profile.witness).then_some("lost:\nm1.2.3"))
    }

    fn exit(line: &str) -> u8 {
        program("pair", &words(line), &play)
    }

    #[test]
    fn whoever_looks_at_the_exit_code_alone_learns_what_failed() {
        assert_eq!(exit("0 3 witness"), WELL);
        assert_eq!(exit("0 5 calm"), WELL);
        assert_eq!(exit("0 4 witness"), FAILED, "one seed fails");
        assert_eq!(exit("3 1 witness"), FAILED, "the only one");
        assert_eq!(exit("4 2 calm"), FAILED, "a panic");
        let few = PROFILES.len() * 3;
        assert_eq!(exit(&format!("nightly total={few}")), WELL, "seeds 0 to 2");
        assert_eq!(exit(&format!("nightly total={few} first=1 threads=1")), FAILED, "seed 3 of some");
        assert_eq!(exit(&format!("nightly total={few} first=4")), FAILED, "a panic in all");
        assert_eq!(exit(&format!("nightly total={few} first=6")), WELL, "behind both");
    }

    #[test]
    fn what_is_not_known_is_not_played() {
        let lines = ["0 1 nobody", "0 1 Strict", "zero", "0 many", "0 1 calm more", "nightly 20000"];
        for line in lines.into_iter().chain(["nightly total=3", "nightly threads=0", "nightly last=9"]) {
            assert_eq!(exit(line), USAGE, "{line}");
        }
        assert!(PROFILES.iter().all(|(name, _)| usage("pair").contains(&format!(" {name}"))));
    }

    #[test]
    fn a_night_shares_its_seeds_evenly_and_plays_each_once() {
        let night = Night::of(&words("first=7000")).unwrap();
        assert_eq!(night, Night { total: 20_000, threads: 2, first: 7_000 });
        let shares: Vec<u64> = (0..PROFILES.len() as u64).map(|n| night.share(n)).collect();
        assert_eq!(shares.iter().sum::<u64>(), 20_000);
        assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");

        let (night, played) = (Night { total: 100, threads: 3, first: 40 }, Mutex::new(Vec::new()));
        let note = |seed: u64, _: Profile, _: bool| {
            played.lock().unwrap().push(seed);
            verdict(None)
        };
        assert_eq!(night.play("pair", &note), 0);
        let mut played = played.into_inner().unwrap();
        played.sort_unstable();
        let mut wanted: Vec<u64> = (0..PROFILES.len() as u64).flat_map(|n| 40..40 + night.share(n)).collect();
        wanted.sort_unstable();
        assert_eq!(played, wanted);
    }

    /// A failure that is told in several lines does not hide the command of the next.
    #[test]
    fn what_failed_is_kept_by_its_seed_in_one_line() {
        let night = Night { total: 0, threads: 2, first: 2 };
        let failed = night.hunt(4, Profile::WITNESS, &play);
        let told: Vec<(u64, &str)> = failed.iter().map(|(seed, why)| (*seed, why.as_str())).collect();
        assert_eq!(told, [(3, "lost: m1.2.3"), (5, "a panic")]);
    }

    /// Every profile that there is has a name, and `docs/testing.md` says what it plays.
    #[test]
    fn every_profile_has_a_name_and_a_row_in_the_document() {
        let there = include_str!("mod.rs").matches(": Profile =").count();
        assert_eq!(PROFILES.len(), there, "PROFILES in mod.rs lacks one");
        let document = include_str!("../../../docs/testing.md");
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        for (name, _) in PROFILES {
            let has_row =
                |row: &&str| row.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{name}`")));
            assert!(rows.iter().any(has_row), "docs/testing.md has no row of {name}");
        }
    }
}
