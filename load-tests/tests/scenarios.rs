//! Plays every file in `scenarios/`: two real nodes in network namespaces of their own, see `docs/testing.md`.
//!
//! `TANDEM_SCENARIO=name,name` plays some; `TANDEM_SCENARIO_FAULTS=off` leaves the faults out, and then each must fail; with
//! `TANDEM_SCENARIO_FAULTS=each` each is played once for each line that does harm, without that line, and must fail every time.
//! `TANDEM_SCENARIO_BEFORE=PATH` is an older `tandem`: nodes that begin with the program of the version before run it, and are upgraded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use load_tests::rig::{seed, tandem};
use load_tests::scenario::language::{Line, Script, Step, parse};
use load_tests::scenario::{Machine, Outcome, Programs, play, play_without, remove_leftovers};

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

/// The program of this build, and that of the version before if there is a real one.
fn programs() -> Programs {
    let before = std::env::var_os("TANDEM_SCENARIO_BEFORE").map(PathBuf::from);
    if let Some(path) = before.as_ref().filter(|path| !path.is_file()) {
        panic!("TANDEM_SCENARIO_BEFORE must be the path of a program: {} is no file", path.display());
    }
    Programs::new(&tandem()).with(before)
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

/// What is left out of a scenario. But for [`LeftOut::Nothing`] it must fail then, else it shows nothing of that.
#[derive(Clone, Copy)]
enum LeftOut<'a> {
    Nothing,
    Faults,
    Line(&'a Line),
}

impl LeftOut<'_> {
    fn words(self) -> String {
        match self {
            LeftOut::Nothing => String::new(),
            LeftOut::Faults => "without its faults".to_owned(),
            LeftOut::Line(line) => format!("without line {}, {}", line.number, line.text),
        }
    }
}

/// A scenario that is played once.
#[derive(Clone, Copy)]
struct Job<'a> {
    script: &'a Script,
    left_out: LeftOut<'a>,
}

impl Job<'_> {
    fn play(&self, programs: &Programs, seed: u64) -> Outcome {
        match self.left_out {
            LeftOut::Nothing => play(self.script, programs, seed, true),
            LeftOut::Faults => play(self.script, programs, seed, false),
            LeftOut::Line(line) => play_without(self.script, programs, seed, line.number),
        }
    }

    /// Why that was not as it must be.
    fn wrong(&self, outcome: &Outcome) -> Option<String> {
        let first = |failure: &str| failure.lines().next().unwrap_or_default().to_owned();
        match (self.left_out, &outcome.failure) {
            (LeftOut::Nothing, failure) => failure.as_deref().map(first),
            (left_out, None) => Some(format!("passes {}", left_out.words())),
            // It did not even begin.
            (_, Some(failure)) if outcome.story.is_empty() => Some(first(failure)),
            (_, Some(_)) => None,
        }
    }
}

/// What is played, by `TANDEM_SCENARIO_FAULTS`.
fn jobs(scripts: &[Script]) -> Vec<Job<'_>> {
    let wanted = std::env::var("TANDEM_SCENARIO_FAULTS").unwrap_or_default();
    let mut jobs = Vec::new();
    for script in scripts {
        match wanted.as_str() {
            "off" => jobs.push(Job { script, left_out: LeftOut::Faults }),
            "each" => {
                let harm = script.lines.iter().filter(|line| line.step.does_harm());
                jobs.extend(harm.map(|line| Job { script, left_out: LeftOut::Line(line) }));
            }
            _ => jobs.push(Job { script, left_out: LeftOut::Nothing }),
        }
    }
    jobs
}

fn tell(job: &Job<'_>, outcome: &Outcome) {
    let (script, whole) = (job.script, matches!(job.left_out, LeftOut::Nothing));
    let verdict = match (job.wrong(outcome), job.left_out.words()) {
        (None, words) if words.is_empty() => "ok".to_owned(),
        (None, words) => format!("ok: fails {words}"),
        (Some(_), _) if whole => "FAILED".to_owned(),
        (Some(why), _) => format!("FAILED: {why}"),
    };
    println!("{:28} {:5.1} s  {verdict}", script.name, outcome.took.as_secs_f64());
    println!("    {}", script.shows);
    let settings: Vec<String> =
        outcome.overrides.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    println!("    {}; settings: {}", outcome.figures, settings.join(", "));
    let detail = std::env::var_os("TANDEM_SCENARIO").is_some();
    match &outcome.failure {
        Some(failure) if whole => println!("{failure}"),
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
    let (programs, seed) = (programs(), seed());
    let scripts = scripts();
    let jobs = jobs(&scripts);
    let machine = Machine::watch();
    let (next, failed) = (Mutex::new(jobs.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let Some(job) = next.lock().unwrap().next() else { return };
                    let name = &job.script.name;
                    let Some(outcome) = fairly(&machine, job.script, || job.play(&programs, seed)) else {
                        failed.lock().unwrap().push(format!("{name}: a panic"));
                        println!("{name:28} FAILED with a panic");
                        continue;
                    };
                    let mut failed = failed.lock().unwrap();
                    tell(job, &outcome);
                    failed.extend(job.wrong(&outcome).map(|why| format!("{name}: {why}")));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), jobs.len(), failed.join("\n"));
}

#[test]
fn a_node_that_does_not_answer_does_not_lack_an_alarm() {
    let text = "# A dead node says nothing.\nclients 4 dual, 4 plain, chat\nkill a\nassert not a alarm \"any\"\nledger\n";
    let script = parse("says-nothing", text).unwrap();
    let (programs, seed, machine) = (programs(), seed(), Machine::watch());
    let outcome = fairly(&machine, &script, || play(&script, &programs, seed, true)).unwrap();
    let failure = outcome.failure.unwrap_or_default();
    assert!(failure.contains("line 4: assert not a alarm \"any\": a does not answer"), "{failure}");
}

#[test]
fn the_document_lists_every_scenario() {
    let document = include_str!("../../docs/testing.md");
    for script in scripts() {
        let row = format!("| `{}` | {} |", script.name, script.shows);
        assert!(document.contains(&row), "docs/testing.md lacks the row\n{row}");
    }
}
