//! What a pair needs of the link between its nodes: two nodes, each on a network of its own, with a path between them that
//! takes so long and so many bits a second; clients chat at a fixed rate, then at the highest that the pair keeps up with; and
//! at the end one node comes back empty and gets everything from the other.
//!
//! The path is carried by a thread of this process and not by `tc netem`, which not every kernel has. The nodes' data are in
//! memory: what is measured is the link and not a disk.

mod load;
mod report;

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::args::{LinkArgs, Width};
use super::client::{Access, log_in_all};
use super::messages::home;
use super::processes;
use super::servers::{binary, dialer};
use crate::scenario::{Apart, remove_leftovers};
use load::{Crowd, Load, Outcome};
use report::{Copied, Highest, Loaded, Report, Row, Spread};

/// Longest time until both nodes protect each other, and for one copy.
const LIMIT: Duration = Duration::from_secs(60);
/// How much of the time may pass before the copies begin, in percent.
const LOADS: u32 = 75;
/// Logins at the same time.
const AT_ONCE: usize = 16;
/// What is written before anything counts: connections get used to the path.
const WARM_UP: (f64, Duration) = (200.0, Duration::from_secs(1));
/// How often a rate is tried.
const TRIES: usize = 3;

/// Measures and prints. The calling thread is on another network afterwards.
pub fn run(args: &LinkArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let tandem = binary(args.common.tandem.as_deref())?;
    remove_leftovers();
    let mut report = Report { began: processes::load_average(), ..Report::default() };
    let mut apart = Apart::make(&tandem, &[])?;
    let measured = measure(args, &mut apart, &mut report, begun);
    measured.with_context(|| format!("the nodes said:\n{}", apart.said()))?;
    report.ended = processes::load_average();
    print!("{}", report.text(args.common.form()));
    Ok(())
}

fn measure(args: &LinkArgs, apart: &mut Apart, report: &mut Report, begun: Instant) -> anyhow::Result<()> {
    apart.until_protected(LIMIT)?;
    let homes: Vec<usize> = (0..args.accounts.max(args.users)).map(home).collect();
    apart.add_users(&homes)?;
    (report.sessions, report.accounts) = (args.users, homes.len());
    // Threads that this thread starts are where the clients are.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let access = Access {
        places: apart.places(),
        dialer: dialer(&apart.ca())?,
        floor: false,
        keys: std::sync::Arc::default(),
        from: Vec::new(),
    };
    let clients = runtime.block_on(log_in_all(&access, 0..args.users, AT_ONCE, home))?;
    let mut crowd = Crowd::new(clients, args.body);
    let all = Duration::from_secs(args.at_most);
    for (round_trip_ms, width) in links(args) {
        if begun.elapsed() >= all * LOADS / 100 {
            eprintln!(
                "measure: no time was left for loads from {round_trip_ms} ms, {width} on: raise --at-most"
            );
            break;
        }
        apart.lay(one_way(round_trip_ms), width.0)?;
        let row = chat(args, apart, &runtime, &mut crowd)
            .with_context(|| format!("round trip {round_trip_ms} ms, {width}"))?;
        report.rows.push(Row { round_trip_ms, width, ..row });
        eprintln!("{}", report.last());
    }
    let stay = crowd.into_clients().into_iter().enumerate().filter(|(user, _)| home(*user) == 0);
    let mut idle = runtime.block_on(async { stay.map(|(_, client)| client.idle()).collect::<JoinSet<_>>() });
    for (round_trip_ms, width) in links(args) {
        if begun.elapsed() >= all {
            eprintln!(
                "measure: no time was left for copies from {round_trip_ms} ms, {width} on: raise --at-most"
            );
            break;
        }
        let copied = copy(apart, round_trip_ms, width)
            .with_context(|| format!("a copy over a round trip of {round_trip_ms} ms, {width}"))?;
        report.put(round_trip_ms, width, copied);
        eprintln!("{}", report.copy_line(round_trip_ms, width));
    }
    runtime.block_on(async {
        match idle.try_join_next() {
            None => Ok(()),
            Some(ended) => ended.context("a client panicked")?.context("a session of node a ended"),
        }
    })
}

fn one_way(round_trip_ms: u64) -> Duration {
    Duration::from_millis(round_trip_ms) / 2
}

fn links(args: &LinkArgs) -> Vec<(u64, Width)> {
    let of = |round_trip: &u64| {
        let round_trip = *round_trip;
        args.width.iter().map(move |width| (round_trip, *width))
    };
    args.round_trip.iter().flat_map(of).collect()
}

/// Each load, and the highest that is kept up with, on the path that there is.
fn chat(args: &LinkArgs, apart: &Apart, runtime: &Runtime, crowd: &mut Crowd) -> anyhow::Result<Row> {
    let time = Duration::from_secs(args.seconds);
    apart.until_protected(LIMIT)?;
    runtime.block_on(crowd.talk(Load::Rate(WARM_UP.0), WARM_UP.1))?;
    let mut one = |load: Load| -> anyhow::Result<(Outcome, f64)> {
        let before = apart.on_link()?;
        let outcome = runtime.block_on(crowd.talk(load, time))?;
        let bytes = apart.on_link()? - before;
        let each = bytes as f64 / outcome.sent.max(1) as f64;
        Ok((outcome, each))
    };
    let keeps = |outcome: &Outcome, rate| {
        outcome.is_complete() && holds(outcome.under_way, rate) && apart.is_protected()
    };
    let mut row = Row::default();
    for rate in &args.rate {
        let (outcome, link_bytes) = one(Load::Rate(f64::from(*rate)))?;
        row.loads.push(Loaded {
            rate: *rate,
            kept: keeps(&outcome, f64::from(*rate)),
            link_bytes,
            arrival: Spread::of(outcome.arrival),
            acknowledgement: Spread::of(outcome.acknowledgement),
        });
    }
    let (most, _) = one(Load::Window(usize::from(args.window)))?;
    let mut rate = 0.9 * most.rate.max(1.0);
    for _ in 0..TRIES {
        let (outcome, link_bytes) = one(Load::Rate(rate))?;
        let kept = keeps(&outcome, rate);
        if kept {
            row.highest = Some(Highest { rate, link_bytes });
        }
        match another(rate, kept, row.highest.is_some()) {
            Some(next) => rate = next,
            None => break,
        }
    }
    Ok(row)
}

/// Whether what is under way did not grow in the second half of the time: `half`, then `end`. A rate that is too high by a
/// tenth adds more than this in two seconds.
fn holds([half, end]: [u64; 2], rate: f64) -> bool {
    end as f64 <= half as f64 * 1.1 + rate * 0.03
}

/// The rate to try after this one, if any: a higher one while they are kept, a lower one until one is.
fn another(rate: f64, kept: bool, any_kept: bool) -> Option<f64> {
    match (kept, any_kept) {
        (true, _) => Some(rate * 1.3),
        (false, false) => Some(rate * 0.75),
        (false, true) => None,
    }
}

/// Node b loses everything, and gets it from node a over this path.
fn copy(apart: &mut Apart, round_trip_ms: u64, width: Width) -> anyhow::Result<Copied> {
    apart.lose_b(LIMIT)?;
    apart.lay(one_way(round_trip_ms), width.0)?;
    let before = apart.on_link()?;
    let since = apart.start_b()?;
    apart.until_protected(LIMIT)?;
    Ok(Copied { seconds: since.elapsed().as_secs_f64(), bytes: apart.on_link()? - before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_not_kept_and_what_varies_is() {
        assert!(holds([210, 215], 1_000.0));
        assert!(holds([0, 20], 1_000.0), "a few more than there were");
        assert!(!holds([210, 320], 1_000.0), "a tenth too much for a second");
        assert!(!holds([1_000, 2_000], 2_000.0));
    }

    #[test]
    fn the_highest_rate_is_looked_for_from_both_sides() {
        assert_eq!(another(100.0, true, true), Some(130.0));
        assert_eq!(another(100.0, false, false), Some(75.0));
        assert_eq!(another(130.0, false, true), None, "the one before is the highest");
    }
}
