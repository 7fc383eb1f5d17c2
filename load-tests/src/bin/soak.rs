//! Plays scenarios that nobody wrote, for hours: two nodes and a witness, an etcd, or nobody who decides, on networks of their own, people who
//! talk, one fault after the other, or two at once, drawn by a seed (`load-tests/src/scenario/drawn.rs`); after each the pair must heal by
//! itself, and in the end every ledger must be clean.
//!
//! `soak [MINUTES] [SEED] [AT ONCE]`, such as `soak 1440 7 3`; needs what the scenarios need. It ends at the first failure, with the file
//! that was played: under `load-tests/tests/scenarios` it can be played again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use load_tests::scenario::drawn::draw;
use load_tests::scenario::language::parse;
use load_tests::scenario::{Machine, Programs, play, remove_leftovers};

/// How many are played at once, unless it is said.
const AT_ONCE: usize = 3;
/// How many may be, each with a network and a folder in memory.
const MOST_AT_ONCE: usize = 32;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let minutes = args.first().map_or(Ok(60), |text| text.parse::<u64>());
    let seed = args.get(1).map_or(Ok(rand::random::<u32>().into()), |text| text.parse::<u64>());
    let at_once = args.get(2).map_or(Ok(AT_ONCE), |text| text.parse::<usize>());
    let at_once = at_once.ok().filter(|at_once| (1..=MOST_AT_ONCE).contains(at_once));
    let (Ok(minutes), Ok(seed), Some(at_once)) = (minutes, seed, at_once) else {
        eprintln!("soak [MINUTES] [SEED] [AT ONCE: 1 to {MOST_AT_ONCE}], such as: soak 1440 7 3");
        return ExitCode::from(2);
    };
    let Some(tandem) = beside() else {
        eprintln!("there is no `tandem` beside this program: build the workspace first");
        return ExitCode::from(3);
    };
    let programs = Programs::new(&tandem);
    remove_leftovers();
    let (machine, until) = (Machine::watch(), Instant::now() + Duration::from_secs(60 * minutes));
    let (next, failed) = (AtomicU64::new(seed), AtomicBool::new(false));
    let (well, seconds) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while Instant::now() < until && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let (text, begun) = (draw(seed), Instant::now());
                    let script =
                        parse(&format!("soak-{seed}"), &text).unwrap_or_else(|error| panic!("{error}"));
                    // A thread of its own: it moves into a namespace.
                    let played =
                        thread::scope(|own| own.spawn(|| play(&script, &programs, seed, true)).join());
                    let took = begun.elapsed().as_secs_f64();
                    let why = match &played {
                        Ok(outcome) => outcome.failure.clone(),
                        Err(_) => Some("a panic".to_owned()),
                    };
                    match (why, machine.stood_still_since(begun)) {
                        (None, _) => {
                            well.fetch_add(1, Ordering::Relaxed);
                            seconds.fetch_add(took as u64, Ordering::Relaxed);
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
    let (well, hours) = (well.into_inner(), seconds.into_inner() as f64 / 3600.0);
    println!("{well} scenarios went well, {hours:.1} hours together, from seed {seed} on");
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The program under test, which is built beside this one.
fn beside() -> Option<PathBuf> {
    let tandem = std::env::current_exe().ok()?.with_file_name("tandem");
    tandem.is_file().then_some(tandem)
}
