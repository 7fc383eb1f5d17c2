//! What may stand on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::group_args::{AssignArgs, GroupCommand, HaCommand, RebalanceArgs};
use super::setup_args::{Extend, InitArgs, PairArgs, RenewArgs, UnpairArgs};
use crate::events::Severity;

/// An XMPP server for two nodes that are each other's standby.
#[derive(Parser, Debug)]
#[command(name = "tandem", version, after_help = EXITS)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXITS: &str =
    "Exit codes: 0 well, 1 refused or a promise broken, 2 wrong usage, 3 the environment prevents it.";

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make configuration, certificates and secrets for a node or a pair
    ///
    /// Nodes on machines of their own get the standard ports, two nodes on one host get free ports below 32768.
    Init(InitArgs),
    /// Replace certificates, the cluster's secret or its authority, while the nodes go on
    ///
    /// Works on the directory that `tandem init` made. Nodes that run in it take the files up by themselves; copy them
    /// to nodes on other machines.
    Renew(RenewArgs),
    /// Give a single node a peer, or a pair a witness
    ///
    /// Works on the directory that `tandem init` made.
    Extend {
        #[command(subcommand)]
        what: Extend,
    },
    /// Give the running node the peer that `tandem extend pair` made, once everything that it needs was looked at
    ///
    /// For a node that is alone, on its machine. Nothing is changed if a check fails. Say it again after a failure or an
    /// interruption: it goes on where it is.
    Pair(PairArgs),
    /// Part the running node from its peer NODE, which leaves: its users go to the one that stays, without a break
    ///
    /// Say it on the machine of the node that stays, the first in the alphabet. Nothing is changed if a check fails; say it again
    /// after a failure or an interruption.
    Unpair(UnpairArgs),
    /// Run a node
    Serve(ServeArgs),
    /// Run the witness of a pair, which decides which node goes on when they cannot see each other
    ///
    /// It holds who may serve, and nothing of users. SIGHUP makes it read its certificate, key and authority again.
    Witness(WitnessArgs),
    /// Look at a configuration file, or let a node read its own again
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show the level of the node's log, or set it until the node ends
    Log(LogArgs),
    /// Show the state of both nodes
    Status(StatusArgs),
    /// Show what happened at a node: failovers, fallbacks, changes of state, alarms
    ///
    /// Each event has a number, a cause and the row of the table of states that holds since: see `tandem srm table`.
    Events(EventsArgs),
    /// The Server Recovery Manager: its table of states
    Srm {
        #[command(subcommand)]
        command: SrmCommand,
    },
    /// Move the users of NODE to its peer
    Failover(FailoverArgs),
    /// Move the users of NODE back to it
    Fallback(MoveArgs),
    /// Restart NODE; its users stay its own, and their clients resume when it is back
    ///
    /// Nobody takes them over meanwhile, unless it is gone for longer than the keep-alive time-out. To let users go on without a
    /// break, move them first: `tandem failover`.
    Restart(MoveArgs),
    /// Stop NODE: its users go to the other node, or, where that cannot take them, are told that the server is shut down
    ///
    /// It stays down until it is started again. Sessions of clients that know stream management wait for its return.
    Stop(StopArgs),
    /// Pack what somebody who helps needs to see into FILE.tar.gz: states, events, metrics, settings; no secrets, no messages
    ///
    /// Where the node does not run, what its disk has is all that there is. The other node's events and log are packed there.
    SupportBundle(BundleArgs),
    /// Bring both nodes out of Running in Failed Mode: services that are down are started, no stream is dropped
    Recover(RecoverArgs),
    /// Confirm that failover and fallback work: with a test user, fail a node over, use the other, and go back
    ///
    /// All users of the node are moved to the other and back; clients that know stream management keep their sessions. Every step
    /// must pass; the first that does not is named, and what was changed is undone.
    Drill(DrillArgs),
    /// List, start, stop and restart the critical services of a node, or let one fail
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Show, make, edit and delete the presence redundancy group
    Group {
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Enable or disable high availability: whether each node takes over its peer's users
    Ha {
        #[command(subcommand)]
        command: HaCommand,
    },
    /// Assign USER to NODE, its home from then on; sessions go there without a break
    Assign(AssignArgs),
    /// Move users until each node has its share, as [srm] user_assignment_mode says
    ///
    /// Users whom nobody is logged in as come first. Sessions are handed over; nobody is disconnected who knows stream management.
    Rebalance(RebalanceArgs),
    /// Check each node's store against its log, and what each node holds of the other's users
    ///
    /// Nothing waits for it: some accounts are compared four times a second. Each night the nodes do it by themselves
    /// ([srm] nightly_check).
    Check(RecoverArgs),
    /// Let NODE serve all users although its peer is not heard and its rules say wait
    ///
    /// Says first what may be missing on it. Only for a peer that does not serve and will not: two nodes that serve the
    /// same users diverge.
    ForceActive(ForceArgs),
    /// Make a node serve nobody, until it or its peer is made active by force
    ///
    /// For a peer that is not heard, or while automatics are disabled.
    ForceInactive(ForceArgs),
    /// Add, change, remove and list accounts
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Run a pair and its clients on this machine, kill nodes, and count what is lost
    Demo(DemoArgs),
}

impl Command {
    /// Whether the answer is wanted as JSON.
    pub fn json(&self) -> bool {
        match self {
            Command::Init(args) => args.json,
            Command::Renew(args) => args.json,
            Command::Extend { what: Extend::Witness(args) } => args.json,
            Command::Extend { what: Extend::Pair(args) } => args.json,
            Command::Pair(args) => args.client.json,
            Command::Unpair(args) => args.client.json,
            Command::Serve(_) | Command::Witness(_) => false,
            Command::Config { command: ConfigCommand::Check(args) } => args.json,
            Command::Config { command: ConfigCommand::Show(args) } => args.file.json,
            Command::Config { command: ConfigCommand::Set(args) } => args.client.json,
            Command::Config { command: ConfigCommand::Reload(args) } => args.client.json,
            Command::Log(args) => args.client.json,
            Command::Status(args) => args.client.json,
            Command::Events(args) => args.client.json,
            Command::Srm { command: SrmCommand::Table(args) } => args.json,
            Command::Failover(args) => args.action.client.json,
            Command::Fallback(args) => args.client.json,
            Command::Restart(args) => args.client.json,
            Command::Stop(args) => args.client.json,
            Command::SupportBundle(args) => args.client.json,
            Command::Recover(args) => args.client.json,
            Command::Drill(args) => args.client.json,
            Command::Service { command: ServiceCommand::List(args) } => args.client.json,
            Command::Service {
                command:
                    ServiceCommand::Start(args) | ServiceCommand::Stop(args) | ServiceCommand::Restart(args),
            } => args.client.json,
            Command::Service { command: ServiceCommand::Fail(args) } => args.service.client.json,
            Command::Group { command } => command.json(),
            Command::Ha { command } => command.json(),
            Command::Assign(args) => args.client.json,
            Command::Rebalance(args) => args.client.json,
            Command::Check(args) => args.client.json,
            Command::ForceActive(args) | Command::ForceInactive(args) => args.client.json,
            Command::User { command: UserCommand::Add(args) } => args.client.json,
            Command::User { command: UserCommand::Passwd(args) } => args.client.json,
            Command::User { command: UserCommand::Remove(args) } => args.client.json,
            Command::User { command: UserCommand::Sessions(args) } => args.client.json,
            Command::User { command: UserCommand::List(args) } => args.client.json,
            Command::Demo(args) => args.json,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Check the file, and the certificates, keys and secrets that it names
    Check(CheckArgs),
    /// Show all settings in effect by the file, those that are not written too
    Show(ShowArgs),
    /// Change one setting of the running node in its file; on both nodes where it must be equal
    Set(SetArgs),
    /// Let the running node read its configuration, certificates, keys, secret and token again
    Reload(ReloadArgs),
}

#[derive(Subcommand, Debug)]
pub(super) enum ServiceCommand {
    /// List the services of both nodes, and how they are
    List(RecoverArgs),
    /// Start a service that does not run
    Start(ServiceArgs),
    /// Stop a service; what needs it waits, and after [srm] critical_service_delay its node fails over
    Stop(ServiceArgs),
    /// Restart a service; clients wait for a moment
    Restart(ServiceArgs),
    /// Let a service die, to see what happens; its supervisor starts it again
    Fail(FailArgs),
}

#[derive(Args, Debug)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct DrillArgs {
    /// Name of the node to fail over [default: the one of the configuration file]
    pub node: Option<String>,
    /// PEM file of the authority that clients trust [default: that of the link, as `tandem init` makes it]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    /// database, presence-engine, router or authentication
    pub service: String,
    /// Name of the node [default: the one that answers]
    #[arg(long)]
    pub node: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct FailArgs {
    #[command(flatten)]
    pub service: ServiceArgs,
    /// How long starting it again is to fail, such as 2min
    #[arg(long = "for", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub seconds: std::time::Duration,
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    humantime_serde::re::humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it such as 90s or 2min"))
}

#[derive(Subcommand, Debug)]
pub(super) enum SrmCommand {
    /// Print the states of both nodes, when each pair holds, and what to do then
    Table(TableArgs),
}

#[derive(Args, Debug)]
pub(super) struct TableArgs {
    /// Answer in JSON
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print a table in markdown
    #[arg(long)]
    pub markdown: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum UserCommand {
    /// Add an account; without --password-stdin a password is made and printed once
    Add(UserAddArgs),
    /// Give an account another password and end its sessions; without --password-stdin one is made and printed once
    Passwd(UserPasswdArgs),
    /// Remove an account with its roster, its sessions and what waits for it
    Remove(UserRemoveArgs),
    /// List all accounts
    List(UserListArgs),
    /// List the sessions of one account, or of all
    Sessions(UserSessionsArgs),
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Only settings whose name begins so, such as srm or srm.keep_alive_timeout
    pub prefix: Option<String>,
    /// Only those that are not the default
    #[arg(long)]
    pub changed: bool,
    #[command(flatten)]
    pub file: CheckArgs,
}

#[derive(Args, Debug)]
pub(super) struct SetArgs {
    /// Name of the setting, such as srm.keep_alive_timeout
    pub key: String,
    /// Its value, such as 90s, true or 5; text needs no quotes
    #[arg(required_unless_present = "default", conflicts_with = "default")]
    pub value: Option<String>,
    /// Take it out of the file, so that its default counts
    #[arg(long)]
    pub default: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Configuration file [default: ./tandem.toml, else /etc/tandem/tandem.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the log on standard error; TANDEM_LOG sets its level (default info)
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Args, Debug)]
pub(super) struct WitnessArgs {
    /// Its configuration, as `tandem init --witness` makes it
    #[arg(short, long, value_name = "FILE", default_value = "/etc/tandem/witness.toml")]
    pub config: PathBuf,
    /// Form of the log on standard error; TANDEM_LOG sets its level (default info)
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Configuration file [default: ./tandem.toml, else /etc/tandem/tandem.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Where to find the node to ask.
#[derive(Args, Clone, Debug, Default)]
pub struct ClientArgs {
    /// Configuration file of the node to ask [default: ./tandem.toml, else /etc/tandem/tandem.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of its admin API [default: as the configuration says]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// File with its admin token [default: as the configuration says]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who asks, as events are to show it [default: TANDEM_OPERATOR, else your login name]
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Events that a node can be asked for at once.
pub(super) const MOST_EVENTS: u64 = 1_000;

#[derive(Args, Debug)]
pub(super) struct EventsArgs {
    /// How many of the last events to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=MOST_EVENTS))]
    pub last: u64,
    /// Go on, and show what happens
    #[arg(long)]
    pub follow: bool,
    /// Show only those that matter as much as this, or more
    #[arg(long, value_enum)]
    pub severity: Option<Severity>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// error, warn, info, debug or trace, or `module=level,...` [default: show the present one]
    pub level: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct FailoverArgs {
    #[command(flatten)]
    pub action: MoveArgs,
    /// Do not ask at a terminal
    #[arg(long, short)]
    pub yes: bool,
}

impl FailoverArgs {
    /// Nobody is asked.
    pub(super) fn unasked(action: MoveArgs) -> FailoverArgs {
        FailoverArgs { action, yes: true }
    }
}

#[derive(Args, Debug)]
pub(super) struct MoveArgs {
    /// Name of the node
    pub node: String,
    /// Return as soon as it has begun
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct StopArgs {
    /// Name of the node
    pub node: String,
    /// What clients are told that the other node does not take over [default: that the server is shut down]
    #[arg(long)]
    pub text: Option<String>,
    /// Let nobody log in any more, and give clients so long to leave by themselves, such as 10min
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub drain: Option<std::time::Duration>,
    /// Return as soon as it has begun
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct BundleArgs {
    /// The file to write; nothing is written over
    #[arg(value_name = "FILE.tar.gz")]
    pub file: PathBuf,
    /// File of the node's log, whose last part is packed too [default: none, as the log goes to standard output]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct ForceArgs {
    /// Name of the node, the one that answers
    pub node: String,
    /// Its name once more, instead of being asked for it
    #[arg(long, value_name = "NODE")]
    pub confirm: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UserAddArgs {
    /// Name of the account, such as anna or anna@example.org
    pub user: String,
    /// Home node [default: the node with fewer users]
    #[arg(long, value_name = "NODE")]
    pub home: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UserPasswdArgs {
    /// Name of the account
    pub user: String,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UserRemoveArgs {
    /// Name of the account
    pub user: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UserSessionsArgs {
    /// Name of the account [default: all accounts]
    pub user: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UserListArgs {
    /// Only those that are assigned to no node
    #[arg(long)]
    pub unassigned: bool,
    /// Only those that are at home on this node
    #[arg(long, value_name = "NODE", conflicts_with = "unassigned")]
    pub home: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `tandem demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Number of users
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// Share of users whose client knows nothing of dual connections
    #[arg(long, default_value = "10%")]
    pub plain: Percent,
    /// Length of the load, faults included, in seconds [default: as long as the faults need]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Seed of everything that is random [default: a new one, which is told]
    #[arg(long)]
    pub seed: Option<u64>,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Leave the pair running, without load, until SIGINT or SIGTERM
    #[arg(long)]
    pub keep: bool,
}

impl DemoArgs {
    /// What the demo takes; without a seed, a new one.
    pub(super) fn options(&self) -> crate::demo::Options {
        crate::demo::Options {
            users: self.users as usize,
            plain: f64::from(self.plain.0) / 100.0,
            seconds: self.seconds,
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        }
    }
}

/// A share, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').unwrap_or(text).parse() {
            Ok(share @ 0..=100) => Ok(Percent(share)),
            _ => Err("write a share from 0% to 100%".to_owned()),
        }
    }
}
