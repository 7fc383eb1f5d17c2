//! Plays every file in `scenarios/`: two real nodes in network namespaces of their own, see `docs/testing.md`.
//!
//! `TANDEM_SCENARIO=name,name` plays some; `TANDEM_SCENARIO_FAULTS=off` leaves the faults out, and then each must fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use load_tests::rig::{seed, tandem};
use load_tests::scenario::language::{Script, Step, parse};
use load_tests::scenario::{Machine, Outcome, play, remove_leftovers};

/// How many are played at once: they wait far more than they compute. Eight at once take no longer than one alone.
const AT_ONCE: usize = 12;

/// How often one is played again because the machine stood still.
const AGAIN: usize = 3;

fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(path.extension().and_then(|e| e.to_str()), Some("scenario"), "{}", path.display());
        parse(name, &fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut scripts: Vec<Script> = files.iter().map(read).collect();
    if let Ok(wanted) = std::env::var("TANDEM_SCENARIO") {
        let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
        for name in &wanted {
            let names: Vec<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
            assert!(names.contains(name), "there is no scenario {name}; there are: {}", names.join(", "));
        }
        scripts.retain(|script| wanted.contains(&script.name.as_str()));
    }
    // The long ones begin first.
    scripts.sort_by_key(|script| std::cmp::Reverse(length(script)));
    scripts
}

/// About how long it takes, for the order: times to be waited for, and a fifth of how long conditions may take.
fn length(script: &Script) -> Duration {
    script.lines.iter().fold(Duration::ZERO, |so_far, line| {
        let begins = so_far.max(line.at.unwrap_or_default());
        match &line.step {
            Step::Hold(_, time) => begins + *time,
            Step::Wait(_, limit) => begins + *limit / 5,
            _ => begins,
        }
    })
}

fn tell(script: &Script, outcome: &Outcome, faults: bool) {
    let verdict = match (&outcome.failure, faults) {
        (None, true) => "ok",
        (Some(_), true) => "FAILED",
        (None, false) => "FAILED: passes without its faults",
        (Some(_), false) => "ok: fails without its faults",
    };
    println!("{:28} {:5.1} s  {verdict}", script.name, outcome.took.as_secs_f64());
    println!("    {}", script.shows);
    let settings: Vec<String> =
        outcome.overrides.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    println!("    {}; settings: {}", outcome.figures, settings.join(", "));
    let detail = std::env::var_os("TANDEM_SCENARIO").is_some();
    match &outcome.failure {
        Some(failure) if faults => println!("{failure}"),
        Some(failure) => println!("    {}", failure.lines().next().unwrap_or_default()),
        None if detail => outcome.story.iter().for_each(|line| println!("    {line}")),
        None => {}
    }
}

/// Plays a scenario; again where it fails and the machine stood still meanwhile, which is another fault than its own.
fn fairly(machine: &Machine, script: &Script, play: impl Fn() -> Outcome + Sync) -> Option<Outcome> {
    for _ in 0..AGAIN {
        let begun = Instant::now();
        // A thread of its own for each: it moves into a namespace.
        let outcome = std::thread::scope(|own| own.spawn(&play).join()).ok()?;
        let (Some(failure), Some(stood)) = (&outcome.failure, machine.stood_still_since(begun)) else {
            return Some(outcome);
        };
        let failure = failure.lines().next().unwrap_or_default();
        let (took, stood) = (outcome.took.as_secs_f64(), stood.as_secs_f64());
        println!(
            "{:28} {took:5.1} s  again, since the machine stood still for {stood:.1} s: {failure}",
            script.name
        );
    }
    std::thread::scope(|own| own.spawn(&play).join()).ok()
}

#[test]
fn every_scenario_goes_as_it_says() {
    remove_leftovers();
    let (tandem, seed) = (tandem(), seed());
    let faults = std::env::var("TANDEM_SCENARIO_FAULTS").is_ok_and(|value| value == "off");
    let faults = !faults;
    let scripts = scripts();
    let machine = Machine::watch();
    let (next, failed) = (Mutex::new(scripts.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(scripts.len()) {
            scope.spawn(|| {
                loop {
                    let Some(script) = next.lock().unwrap().next() else { return };
                    let Some(outcome) = fairly(&machine, script, || play(script, &tandem, seed, faults))
                    else {
                        failed.lock().unwrap().push(format!("{}: a panic", script.name));
                        println!("{:28} FAILED with a panic", script.name);
                        continue;
                    };
                    let mut failed = failed.lock().unwrap();
                    tell(script, &outcome, faults);
                    if outcome.failure.is_none() != faults {
                        let why = outcome.failure.as_deref().unwrap_or("passes without its faults");
                        failed.push(format!("{}: {}", script.name, why.lines().next().unwrap_or_default()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), scripts.len(), failed.join("\n"));
}

#[test]
fn the_document_lists_every_scenario() {
    let document = include_str!("../../docs/testing.md");
    for script in scripts() {
        let row = format!("| `{}` | {} |", script.name, script.shows);
        assert!(document.contains(&row), "docs/testing.md lacks the row\n{row}");
    }
}
