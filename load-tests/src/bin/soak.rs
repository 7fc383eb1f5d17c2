//! Plays scenarios that nobody wrote, for hours: two nodes and a witness, an etcd, or nobody who decides, on networks of their own, people who
//! talk, one fault after the other, or two at once, drawn by a seed (`load-tests/src/scenario/drawn.rs`); after each the pair must heal by
//! itself, and in the end every ledger must be clean. One of those that are played at once is always a long one, with a hundred faults.
//!
//! `soak [MINUTES] [SEED] [AT ONCE]`, such as `soak 1440 7 3`; needs what the scenarios need. It prints each failure with the file that was
//! played, which can be played again under `load-tests/tests/scenarios`, goes on, and ends in any case at the fifth.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use load_tests::scenario::drawn::draw;
use load_tests::scenario::language::parse;
use load_tests::scenario::{Machine, Programs, play, remove_leftovers};

/// How many are played at once, unless it is said.
const AT_ONCE: usize = 3;
/// How many may be, each with a network and a folder in memory.
const MOST_AT_ONCE: usize = 32;
/// So many failures are enough.
const MOST_FAILURES: u64 = 5;

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
    remove_leftovers();
    let soak = Soak {
        programs: Programs::new(&tandem),
        machine: Machine::watch(),
        until: Instant::now() + Duration::from_secs(60 * minutes),
        next: AtomicU64::new(seed),
        well: AtomicU64::new(0),
        seconds: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for turn in 0..at_once {
            let soak = &soak;
            scope.spawn(move || soak.play_on(turn == 0));
        }
    });
    let Soak { well, seconds, failed, .. } = &soak;
    let [well, seconds, failed] = [well, seconds, failed].map(|count| count.load(Ordering::Relaxed));
    let hours = seconds as f64 / 3600.0;
    println!("{well} scenarios went well, {hours:.1} hours together, {failed} failed, from seed {seed} on");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the scenarios of a run share.
struct Soak {
    programs: Programs,
    machine: Machine,
    until: Instant,
    /// The next seed.
    next: AtomicU64,
    well: AtomicU64,
    /// How long those were played that went well.
    seconds: AtomicU64,
    failed: AtomicU64,
}

impl Soak {
    /// One after the other, long ones or not.
    fn play_on(&self, long: bool) {
        while Instant::now() < self.until && self.failed.load(Ordering::Relaxed) < MOST_FAILURES {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            self.play(seed, long);
        }
    }

    fn play(&self, seed: u64, long: bool) {
        let (text, begun) = (draw(seed, long), Instant::now());
        let script = parse(&format!("soak-{seed}"), &text).unwrap_or_else(|error| panic!("{error}"));
        // A thread of its own: it moves into a namespace.
        let played = thread::scope(|own| own.spawn(|| play(&script, &self.programs, seed, true)).join());
        let took = begun.elapsed().as_secs_f64();
        let why = match &played {
            Ok(outcome) => outcome.failure.clone(),
            Err(_) => Some("a panic".to_owned()),
        };
        let what = if long { "seed (long)" } else { "seed" };
        match (why, self.machine.stood_still_since(begun)) {
            (None, _) => {
                self.well.fetch_add(1, Ordering::Relaxed);
                self.seconds.fetch_add(took as u64, Ordering::Relaxed);
                let figures = played.map(|outcome| outcome.figures).unwrap_or_default();
                println!("{what} {seed}: {took:.0} s, {figures}");
            }
            (Some(why), Some(stood)) => {
                let (stood, first) = (stood.as_secs_f64(), why.lines().next().unwrap_or_default());
                println!("{what} {seed}: does not count, the machine stood still for {stood:.1} s: {first}");
            }
            (Some(why), None) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                println!("{what} {seed} FAILED after {took:.0} s\n{text}\n{why}");
            }
        }
    }
}

/// The program under test, which is built beside this one.
fn beside() -> Option<PathBuf> {
    let tandem = std::env::current_exe().ok()?.with_file_name("tandem");
    tandem.is_file().then_some(tandem)
}
