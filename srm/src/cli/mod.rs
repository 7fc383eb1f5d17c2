//! The command line. Each command gives an answer, as text and as JSON, or a failure that says what to do.
//!
//! Answers go to standard output, progress and failures to standard error; with `--json` a failure goes to standard
//! output too. The exit code is an [`Exit`].

#![allow(clippy::result_large_err, reason = "a command fails once")]

mod args;
mod bundle;
mod check;
mod client;
mod consistency;
mod drill;
mod events;
mod extend;
mod force;
mod group;
mod group_args;
mod init;
mod moves;
mod operator;
mod output;
mod pair;
mod renew;
mod restart;
mod serve;
mod service;
mod setup_args;
mod status;
mod stop;
#[cfg(test)]
mod tests;
mod user;

use std::process::ExitCode;

use clap::Parser;

pub use args::{ClientArgs, DemoArgs, Percent};
pub use client::Client;
pub use output::{Exit, Failure};

use args::{Cli, Command, ConfigCommand, ServiceCommand, SrmCommand, TableArgs, UserCommand};
use output::{Answer, Progress};

use crate::admin::ServiceAction;
use crate::node::Force;
use crate::view::print;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let json = command.json();
    let exit = match run(command) {
        Ok(answer) => answer.print(json),
        Err(failure) => failure.print(json),
    };
    exit.into()
}

fn run(command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Init(args) => init::init(&args),
        Command::Renew(args) => renew::renew(&args),
        Command::Extend { what: setup_args::Extend::Witness(args) } => extend::witness(&args),
        Command::Extend { what: setup_args::Extend::Pair(args) } => extend::pair(&args),
        Command::Pair(args) => pair::pair(&args, &mut Progress::stderr()),
        Command::Unpair(args) => pair::unpair(&args, &mut Progress::stderr()),
        Command::Serve(args) => serve::serve(&args),
        Command::Witness(args) => serve::witness(&args),
        Command::Config { command: ConfigCommand::Check(args) } => check::check(args.config.as_deref()),
        Command::Config { command: ConfigCommand::Show(args) } => check::show(&args),
        Command::Config { command: ConfigCommand::Set(args) } => {
            check::set(&Client::find(&args.client)?, &args)
        }
        Command::Config { command: ConfigCommand::Reload(args) } => {
            check::reload(&Client::find(&args.client)?)
        }
        Command::Log(args) => check::log(&Client::find(&args.client)?, args.level.as_deref()),
        Command::Status(args) => status::status(&Client::find(&args.client)?),
        Command::Events(args) => events::events(&Client::find(&args.client)?, &args),
        Command::Srm { command: SrmCommand::Table(args) } => Ok(srm_table(&args)),
        Command::Failover(args) => {
            moves::failover(&Client::find(&args.action.client)?, &args, &mut Progress::stderr())
        }
        Command::Fallback(args) => {
            moves::fallback(&Client::find(&args.client)?, &args, &mut Progress::stderr())
        }
        Command::Restart(args) => {
            restart::restart(&Client::find(&args.client)?, &args, &mut Progress::stderr())
        }
        Command::Stop(args) => stop::stop(&Client::find(&args.client)?, &args, &mut Progress::stderr()),
        Command::SupportBundle(args) => bundle::bundle(&args),
        Command::Drill(args) => drill::drill(&args, &mut Progress::stderr()),
        Command::Recover(args) => service::recover(&Client::find(&args.client)?),
        Command::Service { command } => service(&command),
        Command::Group { command } => group::group(&command),
        Command::Ha { command } => group::ha(&command),
        Command::Assign(args) => group::assign(&args),
        Command::Rebalance(args) => group::rebalance(&args, &mut Progress::stderr()),
        Command::Check(args) => consistency::check(&Client::find(&args.client)?, &mut Progress::stderr()),
        Command::ForceActive(args) => force::force(&args, Force::Active),
        Command::ForceInactive(args) => force::force(&args, Force::Inactive),
        Command::User { command: UserCommand::Add(args) } => user::add(&args),
        Command::User { command: UserCommand::Passwd(args) } => user::passwd(&args),
        Command::User { command: UserCommand::Remove(args) } => {
            user::remove(&Client::find(&args.client)?, &args.user)
        }
        Command::User { command: UserCommand::Sessions(args) } => {
            user::sessions(&Client::find(&args.client)?, args.user.as_deref())
        }
        Command::User { command: UserCommand::List(args) } => {
            user::list(&Client::find(&args.client)?, args.unassigned, args.home.as_deref())
        }
        Command::Demo(args) => demo(&args),
    }
}

fn service(command: &ServiceCommand) -> Result<Answer, Failure> {
    let (args, action) = match command {
        ServiceCommand::List(args) => return service::list(&Client::find(&args.client)?),
        ServiceCommand::Fail(args) => return service::fail(&Client::find(&args.service.client)?, args),
        ServiceCommand::Start(args) => (args, ServiceAction::Start),
        ServiceCommand::Stop(args) => (args, ServiceAction::Stop),
        ServiceCommand::Restart(args) => (args, ServiceAction::Restart),
    };
    service::act(&Client::find(&args.client)?, args, action)
}

fn srm_table(args: &TableArgs) -> Answer {
    let text = if args.markdown { print::markdown() } else { print::text() };
    Answer::new(text, serde_json::json!({ "rows": print::rows() }))
}

/// It prints for itself while it runs.
fn demo(args: &DemoArgs) -> Result<Answer, Failure> {
    let code = crate::demo::run(&args.options(), args.json, args.keep);
    let code = code.map_err(|error| Failure::environment(&error))?;
    let well = code == ExitCode::SUCCESS;
    Ok(Answer::silent(if well { Exit::Well } else { Exit::Refused }))
}
