//! Plays scenarios that nobody wrote, for hours: two nodes and a witness, or an etcd, on networks of their own, people who
//! talk, one fault after the other, drawn by a seed; after each the pair must heal by itself, and in the end every ledger must be clean.
//!
//! `soak [MINUTES] [SEED]`, such as `soak 1440 7`; needs what the scenarios need. It ends at the first failure, with the file
//! that was played: under `load-tests/tests/scenarios` it can be played again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use load_tests::scenario::language::parse;
use load_tests::scenario::{Machine, play, remove_leftovers};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many are played at once.
const AT_ONCE: usize = 3;
/// Faults of one scenario.
const FAULTS: std::ops::Range<usize> = 5..9;
const HEAD: &str = "set srm.keep_alive_interval 1s
set srm.keep_alive_timeout 7s
set srm.initialization_keep_alive_timeout 7s
set srm.enable_automatic_fallback true
set srm.automatic_fallback_after 2s
set store.checkpoint_frames 200
clients 8 dual, 4 plain, chat
wait parked 60s
";
/// After each fault.
const HEALED: &str = "wait protected 120s
wait clients 60s
wait parked 60s
wait traffic 30 60s
";

/// A scenario of this seed.
fn draw(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let arbiter = if rng.random_ratio(1, 3) { "etcd" } else { "witness" };
    let mut text = format!("# Drawn by seed {seed}.\n{arbiter}\n{HEAD}");
    for _ in 0..rng.random_range(FAULTS) {
        let fault = fault(&mut rng);
        text.push_str(&fault);
        text.push_str(HEALED);
    }
    text + "ledger\n"
}

fn fault(rng: &mut StdRng) -> String {
    let (x, y) = if rng.random() { ("a", "b") } else { ("b", "a") };
    // A node that runs has not ended: so long is waited.
    let pause = format!("hold not {y} ended {}s\n", rng.random_range(1..12));
    let harm = ["empty", "store lost", "store damaged", "torn"][rng.random_range(0..4)];
    match rng.random_range(0..15) {
        0 => format!("kill {x}\n{pause}start {x}\n"),
        1 => format!("stop {x}\n{pause}start {x}\n"),
        2 => format!("power off {x}\n{pause}start {x}\n"),
        3 => format!("pause {x}\n{pause}continue {x}\n"),
        4 => format!("unplug {x}\n{pause}plug {x}\n"),
        5 => format!("cut a from b\n{pause}mend\n"),
        6 => format!("cut {x} from witness\n{pause}mend\n"),
        7 => format!("cut {x} from {y} witness\n{pause}mend\n"),
        8 => format!("cut clients from {x}\n{pause}mend\n"),
        9 => format!("disk {x} slow 200ms\n{pause}disk {x} well\n"),
        10 => format!("disk {x} sync fails once\nwait {x} ended 30s\n{pause}start {x}\n"),
        11 => format!("kill {x}\ndisk {x} {harm}\n{pause}start {x}\n"),
        12 => format!("failover {x}\nwait parked 60s\n{pause}fallback {x}\n"),
        13 => format!("kill witness\n{pause}start witness\n"),
        _ => format!("kill {x} {y}\nstart {y}\nstart {x}\n"),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let minutes = args.first().map_or(Ok(60), |text| text.parse::<u64>());
    let seed = args.get(1).map_or(Ok(rand::random::<u32>().into()), |text| text.parse::<u64>());
    let (Ok(minutes), Ok(seed)) = (minutes, seed) else {
        eprintln!("soak [MINUTES] [SEED], such as: soak 1440 7");
        return ExitCode::from(2);
    };
    let Some(tandem) = beside() else {
        eprintln!("there is no `tandem` beside this program: build the workspace first");
        return ExitCode::from(3);
    };
    remove_leftovers();
    let (machine, until) = (Machine::watch(), Instant::now() + Duration::from_secs(60 * minutes));
    let (next, failed, well) = (AtomicU64::new(seed), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while Instant::now() < until && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let (text, begun) = (draw(seed), Instant::now());
                    let script =
                        parse(&format!("soak-{seed}"), &text).unwrap_or_else(|error| panic!("{error}"));
                    // A thread of its own: it moves into a namespace.
                    let played = thread::scope(|own| own.spawn(|| play(&script, &tandem, seed, true)).join());
                    let took = begun.elapsed().as_secs_f64();
                    let why = match &played {
                        Ok(outcome) => outcome.failure.clone(),
                        Err(_) => Some("a panic".to_owned()),
                    };
                    match (why, machine.stood_still_since(begun)) {
                        (None, _) => {
                            well.fetch_add(1, Ordering::Relaxed);
                            let figures = played.map(|outcome| outcome.figures).unwrap_or_default();
                            println!("seed {seed}: {took:.0} s, {figures}");
                        }
                        (Some(_), Some(stood)) => {
                            let stood = stood.as_secs_f64();
                            println!("seed {seed}: does not count, the machine stood still for {stood:.1} s");
                        }
                        (Some(why), None) => {
                            failed.store(true, Ordering::Relaxed);
                            println!("seed {seed} FAILED after {took:.0} s\n{text}\n{why}");
                        }
                    }
                }
            });
        }
    });
    println!("{} scenarios went well, from seed {seed} on", well.load(Ordering::Relaxed));
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The program under test, which is built beside this one.
fn beside() -> Option<PathBuf> {
    let tandem = std::env::current_exe().ok()?.with_file_name("tandem");
    tandem.is_file().then_some(tandem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_can_be_played() {
        for seed in 0..500 {
            let text = draw(seed);
            parse("soak", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }
}
