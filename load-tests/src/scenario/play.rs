//! Plays a scenario, line by line.

use std::time::{Duration, Instant};

use super::clients::Crowd;
use super::language::{Condition, Line, Script, Step};
use super::programs::Programs;
use super::world::World;

/// Longest between two acknowledgements on their way from sockets to the ledger, and all of them together.
const ON_THE_WAY: Duration = Duration::from_millis(500);
const ALL_ON_THE_WAY: Duration = Duration::from_secs(5);

/// How a scenario went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it failed, with the story and the logs; `None` if everything was as it says.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Settings that differ from the defaults.
    pub overrides: Vec<(String, String)>,
    /// What happened, line by line.
    pub story: Vec<String>,
    /// From the fault to the session going on elsewhere, and messages acknowledged.
    pub figures: String,
}

/// Plays it on the calling thread, which ends up in a namespace that is no more: give it a thread of its own.
/// `faults`: whether faults happen. Without them a scenario must fail, else it shows nothing.
pub fn play(script: &Script, programs: &Programs, seed: u64, faults: bool) -> Outcome {
    play_but(script, programs, seed, |line| !faults && line.step.is_fault())
}

/// Plays all but the line with this number, which does harm. Then too a scenario must fail, else it does not look at what that
/// line did.
pub fn play_without(script: &Script, programs: &Programs, seed: u64, number: usize) -> Outcome {
    play_but(script, programs, seed, |line| line.number == number)
}

fn play_but(script: &Script, programs: &Programs, seed: u64, left_out: impl Fn(&Line) -> bool) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome {
        failure: None,
        took: Duration::ZERO,
        overrides: Vec::new(),
        story: Vec::new(),
        figures: String::new(),
    };
    match super::faults::tools().and_then(|()| World::make(script, programs, seed)) {
        Ok(mut world) => {
            outcome.overrides.clone_from(&world.overrides);
            let played = through(&mut world, script, left_out);
            outcome.failure = played.err().map(|error| world.with_logs(&error));
            outcome.story = world.watch.story();
            outcome.figures = figures(&world);
        }
        Err(error) => outcome.failure = Some(error),
    }
    outcome.took = begun.elapsed();
    outcome
}

fn through(world: &mut World, script: &Script, left_out: impl Fn(&Line) -> bool) -> Result<(), String> {
    for line in &script.lines {
        if let Some(at) = line.at {
            std::thread::sleep((world.begun + at).saturating_duration_since(Instant::now()));
        }
        if left_out(line) {
            continue;
        }
        world.watch.tell(&format!("{}: {}", line.number, line.text));
        let played = one(world, script, line);
        played.map_err(|error| {
            format!("{}.scenario, line {}: {}: {error}", script.name, line.number, line.text)
        })?;
    }
    Ok(())
}

fn one(world: &mut World, script: &Script, line: &Line) -> Result<(), String> {
    match &line.step {
        Step::Wait(Condition::Traffic(more, of), limit) => {
            wait_for_more(world, *more, *limit, |crowd| crowd.acknowledged(*of))
        }
        Step::Wait(Condition::PartTraffic(more, part), limit) => {
            wait_for_more(world, *more, *limit, |crowd| crowd.acknowledged_of(*part))
        }
        Step::Wait(condition, limit) => world.until(*limit, |world| world.check(condition)),
        Step::Hold(Condition::NoTraffic(of), time) => {
            let before = what_was_acknowledged(|| world.crowd().acknowledged(*of))?;
            hold(world, *time, |world| match world.crowd().acknowledged(*of) - before {
                0 => Ok(()),
                more => Err(format!("{more} messages were acknowledged")),
            })
        }
        Step::Hold(Condition::Flow(of, limit), time) => {
            let mut last = (world.crowd().acknowledged(*of), Instant::now());
            hold(world, *time, |world| {
                let now = world.crowd().acknowledged(*of);
                let silent = last.1.elapsed();
                if now > last.0 {
                    last = (now, Instant::now());
                }
                let well = silent <= *limit;
                if well { Ok(()) } else { Err(format!("no message was acknowledged for {silent:.1?}")) }
            })
        }
        Step::Hold(Condition::FlowEach(of, limit), time) => {
            let since = Instant::now();
            hold(world, *time, |world| world.crowd().nobody_waits(since, *of, *limit))
        }
        Step::Hold(Condition::FlowAmongDual(limit), time) => {
            let since = Instant::now();
            hold(world, *time, |world| world.crowd().no_dual_waits(since, *limit))
        }
        Step::Hold(Condition::Throughput(share), time) => {
            let before = world.crowd().counts();
            std::thread::sleep(*time);
            let now = world.crowd().counts();
            keeps_up(now.sent - before.sent, now.acknowledged - before.acknowledged, *share)
        }
        Step::Hold(condition, time) => hold(world, *time, |world| world.check(condition)),
        Step::Assert(condition) => world.check(condition),
        Step::Ledger(books) => {
            let steps: Vec<Step> = script.lines.iter().map(|line| line.step.clone()).collect();
            match world.close(*books, &steps) {
                wrong if wrong.is_empty() => Ok(()),
                wrong => Err(wrong.join("\n")),
            }
        }
        other => {
            world.acting_since = Instant::now();
            let done = world.act(other);
            world.watch.acted();
            done
        }
    }
}

/// What was acknowledged before may still be on its way: it has come when nothing comes any more.
fn what_was_acknowledged(now: impl Fn() -> u64) -> Result<u64, String> {
    let begun = Instant::now();
    while begun.elapsed() < ALL_ON_THE_WAY {
        let before = now();
        std::thread::sleep(ON_THE_WAY);
        if now() == before {
            return Ok(before);
        }
    }
    Err(format!("messages are acknowledged for {ALL_ON_THE_WAY:?}, and more"))
}

/// Waits until so many more messages are acknowledged.
fn wait_for_more(
    world: &mut World,
    more: u64,
    limit: Duration,
    acknowledged: impl Fn(&Crowd) -> u64,
) -> Result<(), String> {
    let goal = acknowledged(world.crowd()) + more;
    world.until(limit, |world| match acknowledged(world.crowd()) {
        now if now >= goal => Ok(()),
        now => Err(format!("{} messages too few", goal - now)),
    })
}

/// Whether enough was acknowledged of so many messages that were said meanwhile.
fn keeps_up(sent: u64, acknowledged: u64, share: u64) -> Result<(), String> {
    match sent > 0 && acknowledged * 100 >= sent * share {
        true => Ok(()),
        false => Err(format!("{sent} messages were said, and {acknowledged} acknowledged")),
    }
}

fn hold(
    world: &mut World,
    time: Duration,
    mut is_so: impl FnMut(&mut World) -> Result<(), String>,
) -> Result<(), String> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        is_so(world)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn figures(world: &World) -> String {
    let report = world.crowd().report();
    let times = |what: &str, t: client_sim::fleet::Summary| match t.count {
        0 => String::new(),
        count => format!(", {count} {what} p50 {:.0} ms max {:.0} ms", t.p50, t.max),
    };
    format!(
        "{} messages acknowledged{}{}{}",
        report.ledger.acknowledged,
        times("flips", report.flip_ms),
        times("resumes", report.plain_resume_ms),
        match report.counters.binds_anew {
            0 => String::new(),
            count => format!(", {count} sessions refused"),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_compared_with_what_was_said() {
        assert_eq!(keeps_up(300, 240, 80), Ok(()));
        assert!(keeps_up(300, 239, 80).unwrap_err().contains("300 messages were said, and 239 acknowledged"));
        assert!(keeps_up(0, 0, 80).is_err(), "nobody talks");
    }
}
