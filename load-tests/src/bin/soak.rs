//! Plays scenarios that nobody wrote, for hours: two nodes and a witness, an etcd, or nobody who decides, on networks of their own, people who
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
set srm.critical_service_delay 10s
set srm.automatic_failovers_per_hour 60
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

/// Who decides who goes on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arbiter {
    Witness,
    Etcd,
    /// Each node by itself: policy `available`.
    Nobody,
}

/// What policy `available` excuses in the end, from nothing to everything: the last line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Excused {
    Nothing,
    /// Who takes over by silence refuses the sessions of plain clients.
    Refused,
    /// Both nodes served the same users.
    Apart,
}

/// A scenario of this seed.
fn draw(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let arbiter =
        [Arbiter::Witness, Arbiter::Witness, Arbiter::Etcd, Arbiter::Nobody][rng.random_range(0..4)];
    let line = match arbiter {
        Arbiter::Witness => "witness\n",
        Arbiter::Etcd => "etcd\n",
        Arbiter::Nobody => "set link.policy available\n",
    };
    let mut text = format!("# Drawn by seed {seed}.\n{line}{HEAD}");
    let (mut excused, mut panicked) = (Excused::Nothing, false);
    for _ in 0..rng.random_range(FAULTS) {
        let (fault, then) = loop {
            // A node has one bug in one run of a scenario, which is met once.
            match fault(&mut rng) {
                (fault, _) if arbiter == Arbiter::Nobody && fault.contains("witness") => {}
                (fault, _) if panicked && fault.starts_with("panic") => {}
                drawn => break drawn,
            }
        };
        panicked |= fault.starts_with("panic");
        excused = excused.max(then);
        text.push_str(&fault);
        text.push_str(HEALED);
    }
    text + match excused {
        Excused::Refused if arbiter == Arbiter::Nobody => "ledger, refused clients may see twice\n",
        Excused::Apart if arbiter == Arbiter::Nobody => "ledger, both nodes may lead alone\n",
        _ => "ledger\n",
    }
}

/// A fault to its end, and what policy `available` excuses for it.
fn fault(rng: &mut StdRng) -> (String, Excused) {
    let (x, y) = if rng.random() { ("a", "b") } else { ("b", "a") };
    // A node that runs has not ended: so long is waited.
    let pause = format!("hold not {y} ended {}s\n", rng.random_range(1..12));
    let harm = ["empty", "store lost", "store damaged", "torn"][rng.random_range(0..4)];
    let nothing = match rng.random_range(0..26) {
        0 => format!("kill {x}\n{pause}start {x}\n"),
        1 => format!("stop {x}\n{pause}start {x}\n"),
        2 => return (format!("power off {x}\n{pause}start {x}\n"), Excused::Refused),
        3 => return (format!("pause {x}\n{pause}continue {x}\n"), Excused::Refused),
        4 => return (format!("unplug {x}\n{pause}plug {x}\n"), Excused::Apart),
        5 => format!("cut a from b\n{pause}mend\n"),
        6 => format!("cut {x} from witness\n{pause}mend\n"),
        7 => format!("cut {x} from {y} witness\n{pause}mend\n"),
        8 => format!("cut clients from {x}\n{pause}mend\n"),
        9 => format!("disk {x} slow 200ms\n{pause}disk {x} well\n"),
        10 => format!("disk {x} sync fails once\nwait {x} ended 30s\n{pause}start {x}\n"),
        11 => format!("kill {x}\ndisk {x} {harm}\n{pause}start {x}\n"),
        12 => format!("failover {x}\nwait parked 60s\n{pause}fallback {x}\n"),
        13 => format!("kill witness\n{pause}start witness\n"),
        14 => format!("kill {x} {y}\nstart {y}\nstart {x}\n"),
        15 => format!("cut {x} -> {y}\n{pause}mend\n"),
        16 => format!("cut {x} -> witness\n{pause}mend\n"),
        17 => format!("cut witness -> {x}\n{pause}mend\n"),
        18 => format!("cut clients -> {x}\n{pause}mend\n"),
        19 => format!("cut {x} -> clients\n{pause}mend\n"),
        20 => format!("cut half from a b\n{pause}mend\n"),
        21 => format!("path {x} {} {}\n{pause}mend\n", [y, "clients"][rng.random_range(0..2)], ailment(rng)),
        // It stays so, until the next time.
        22 => format!("clock {x} {}\n{pause}", ["+2h", "-2h", "+10m", "-10m", "+0s"][rng.random_range(0..5)]),
        23 => service(rng, x, y, &pause),
        24 => format!("tandem {y} \"restart {x}\"\n{pause}"),
        _ => panics(rng, x, &pause),
    };
    (nothing, Excused::Nothing)
}

/// What happens to the packets of a path.
fn ailment(rng: &mut StdRng) -> &'static str {
    ["loss 20%", "delay 300ms", "twice 30% disorder 30%", "resets 2%"][rng.random_range(0..4)]
}

/// A critical service stops for shorter or longer than the delay, dies, or is restarted.
fn service(rng: &mut StdRng, x: &str, y: &str, pause: &str) -> String {
    let service = ["database", "presence-engine", "router"][rng.random_range(0..3)];
    match rng.random_range(0..4) {
        0 | 1 => format!(
            "tandem {y} \"service stop {service} --node {x}\"\n{pause}tandem {x} \"service start {service}\"\n"
        ),
        2 => format!("tandem {x} \"service fail {service} --for {}s\"\n{pause}", rng.random_range(1..12)),
        _ => format!("tandem {x} \"service restart {service}\"\n{pause}"),
    }
}

/// A bug: of the engine, of one connection, or of what supervises the services.
fn panics(rng: &mut StdRng, x: &str, pause: &str) -> String {
    match rng.random_range(0..3) {
        0 => format!("panic {x}\nwait {x} ended 10s\n{pause}start {x}\n"),
        1 => format!("panic {x} services\nwait {x} ended 10s\n{pause}start {x}\n"),
        _ => format!("panic {x} stream\nwait {x} counts 1 \"tandem_c2s_panics_total\" 10s\n{pause}"),
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

    #[test]
    fn every_fault_is_drawn_under_every_policy_and_a_bug_is_met_once() {
        let all: Vec<String> = (0..500).map(draw).collect();
        let wanted = [
            "clock ",
            "service stop",
            "service fail",
            "cut a -> b",
            "cut clients -> ",
            "cut b -> clients",
            "path ",
            "panic a\n",
            "panic b services",
            "panic a stream",
            "restart ",
        ];
        for arbiter in ["\nwitness\n", "\netcd\n", "policy available\n"] {
            let drawn: Vec<&String> = all.iter().filter(|text| text.contains(arbiter)).collect();
            for line in wanted {
                assert!(drawn.iter().any(|text| text.contains(line)), "no {line:?} with {arbiter:?}");
            }
        }
        for text in &all {
            let alone = text.contains("policy available");
            assert!(text.matches("panic ").count() <= 1, "{text}");
            assert!(!alone || !text.contains("witness"), "{text}");
            assert_eq!(text.ends_with("alone\n"), alone && text.contains("unplug"), "{text}");
        }
    }
}
