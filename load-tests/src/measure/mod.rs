//! What a message, a login and an idle session cost: the same work by the same client, side by side for Tandem, other
//! servers, and a floor that only moves the bytes.
//!
//! | module | answers |
//! |---|---|
//! | [`args`] | what is to be measured? |
//! | [`servers`] | how does each server run, and where do clients connect? |
//! | [`client`] | what does a client say and wait for? |
//! | [`messages`], [`logins`], [`memory`] | the three measurements |
//! | [`failover`] | how soon are the users of a node that is killed served by the other? |
//! | [`link`] | what does a pair need of the link between its nodes? |
//! | [`processes`] | what has a process used so far? |
//! | [`report`] | what is printed? |

pub mod args;
pub mod client;
pub mod failover;
pub mod floor;
pub mod link;
pub mod logins;
pub mod memory;
pub mod messages;
pub mod processes;
pub mod report;
pub mod servers;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::{Args, Command, Settings};
use report::Report;

/// The command: parses, measures, prints.
pub fn main() -> ExitCode {
    let args = Args::parse();
    more_sockets();
    if let Command::Link(of) = &args.command {
        return ended(link::run(of));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    ended(runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(args))))
}

fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::begin();
    let settings = match &args.command {
        Command::Floor(at) => return floor::serve(at).await,
        Command::Failover(of) => return failover::run(of).await,
        Command::Link(_) => unreachable!("it has a runtime of its own"),
        Command::Messages(settings)
        | Command::Logins(settings)
        | Command::Memory(settings)
        | Command::All(settings) => settings,
    };
    settings.servers().iter().try_for_each(|kind| servers::installed(*kind, settings))?;
    let all = matches!(args.command, Command::All(_));
    if all || matches!(args.command, Command::Messages(_)) {
        each_run(settings, &mut report, Which::Messages).await?;
    }
    if all || matches!(args.command, Command::Logins(_)) {
        each_run(settings, &mut report, Which::Logins).await?;
    }
    if all || matches!(args.command, Command::Memory(_)) {
        for kind in settings.servers() {
            report.memory.extend(memory::measure(kind, settings).await?);
        }
    }
    report.end();
    print!("{}", report.text(settings.form()));
    Ok(())
}

#[derive(Clone, Copy)]
enum Which {
    Messages,
    Logins,
}

/// The servers take turns, so that what else happens on the machine hits all of them alike.
async fn each_run(settings: &Settings, report: &mut Report, which: Which) -> anyhow::Result<()> {
    for run in 1..=settings.runs {
        for kind in settings.servers() {
            let (what, sample) = match which {
                Which::Messages => ("message", messages::measure(kind, settings).await?),
                Which::Logins => ("login", logins::measure(kind, settings).await?),
            };
            eprintln!(
                "run {run} of {}: {:>20} {:8.1} us a {what}, {:8.1} a second, machine {:.0} % busy",
                settings.runs,
                sample.server,
                sample.cpu_us,
                sample.rate,
                sample.busy * 100.0
            );
            match which {
                Which::Messages => report.messages.push(sample),
                Which::Logins => report.logins.push(sample),
            }
        }
    }
    Ok(())
}

/// Thousands of sessions need as many sockets, here and in the servers that we start.
fn more_sockets() {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, connecting will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
