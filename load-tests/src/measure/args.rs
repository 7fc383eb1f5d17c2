//! What is to be measured.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures what a message, a login and an idle session cost a server: the same work by the same client for each.
#[derive(Parser, Debug)]
#[command(name = "measure")]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// The measurements.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Processor time of the server for a message.
    Messages(Settings),
    /// Processor time of the server for a login.
    Logins(Settings),
    /// Memory of the server for an idle session.
    Memory(Settings),
    /// All three.
    All(Settings),
    /// What a pair needs of the link between its nodes, by links of several lengths and widths. Needs root and iproute2.
    Link(LinkArgs),
    /// How soon the users of a node that is killed are served by the other.
    Failover(FailoverArgs),
    /// The floor itself, as a process of its own.
    #[command(hide = true, name = "serve-floor")]
    Floor(FloorArgs),
}

/// What can be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// Servers to measure. Each must be installed.
    #[arg(long, value_delimiter = ',', default_value = "tandem,single,ejabberd,prosody,floor")]
    pub server: Vec<Server>,
    /// Runs of each, of which the median counts. (Memory is measured once.)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Users that chat in pairs: an even number.
    #[arg(long, default_value_t = 200, value_parser = even)]
    pub users: usize,
    /// Seconds of chat that are counted.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Seconds of chat before them.
    #[arg(long, default_value_t = 5)]
    pub warm_up: u64,
    /// Characters in a message's body.
    #[arg(long, default_value_t = 100)]
    pub body: usize,
    /// A client asks for an acknowledgement after so many messages.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub ack_every: u32,
    /// Logins that are counted.
    #[arg(long, default_value_t = 500)]
    pub logins: usize,
    /// Logins at the same time.
    #[arg(long, default_value_t = 16)]
    pub at_once: usize,
    /// Idle sessions for the memory.
    #[arg(long, default_value_t = 2000)]
    pub sessions: usize,
    /// Seconds without anything before memory is read.
    #[arg(long, default_value_t = 15)]
    pub rest: u64,
    /// The tandem binary; without it the one beside this command.
    #[arg(long)]
    pub tandem: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print rows for docs/performance.md.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

/// What can be chosen of links.
#[derive(clap::Args, Clone, Debug)]
pub struct LinkArgs {
    /// Round trips between the nodes, in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "0,20,80,200")]
    pub round_trip: Vec<u64>,
    /// Widths of the link: bits a second, with k or M behind, or `unlimited`.
    #[arg(long, value_delimiter = ',', default_value = "unlimited,10M,2M", value_parser = width)]
    pub width: Vec<Width>,
    /// Messages a second.
    #[arg(long, value_delimiter = ',', default_value = "200,1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Vec<u32>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Users that chat in pairs: an even number.
    #[arg(long, default_value_t = 200, value_parser = even)]
    pub users: usize,
    /// Characters in a message's body.
    #[arg(long, default_value_t = 100)]
    pub body: usize,
    /// Messages of each client that are not acknowledged, to find out how many the pair takes.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Accounts that are copied to a node that comes back empty, those of the users that chat among them.
    #[arg(long, default_value_t = 2000)]
    pub accounts: usize,
    /// Seconds for all of it: what has no time left is left out.
    #[arg(long, default_value_t = 330)]
    pub at_most: u64,
    /// How to print, and what to run.
    #[command(flatten)]
    pub common: Common,
}

/// What can be chosen of failovers.
#[derive(clap::Args, Clone, Debug)]
pub struct FailoverArgs {
    /// Users of both nodes together.
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u32).range(1..=25_000))]
    pub users: u32,
    /// Which of them are at home at the node that is killed.
    #[arg(long, default_value = "active-standby")]
    pub assignment: Assignment,
    /// Logins at the same time, before the node is killed.
    #[arg(long, default_value_t = 32)]
    pub at_once: usize,
    /// Longest time after the announced limits until everybody must be served, in seconds.
    #[arg(long, default_value_t = 120)]
    pub patience: u64,
    /// How to print, and what to run.
    #[command(flatten)]
    pub common: Common,
}

/// How users are spread over the nodes, named as in the setting `srm.user_assignment_mode`.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignment {
    /// All at the node that is killed.
    #[default]
    ActiveStandby,
    /// Half of them there, the others at the node that is left.
    Balanced,
}

impl Assignment {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Assignment::ActiveStandby => "active-standby",
            Assignment::Balanced => "balanced",
        }
    }
}

/// What every measurement of a pair has.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The tandem binary; without it the one beside this command.
    #[arg(long)]
    pub tandem: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print rows for docs/performance.md.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

impl Common {
    /// How to print.
    pub fn form(&self) -> Form {
        form(self.json, self.markdown)
    }
}

/// How many bits a second a link takes; `None`: as many as come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width(pub Option<u64>);

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("unlimited"),
            Some(bits) if bits.is_multiple_of(1_000_000) => f.pad(&format!("{} Mbit/s", bits / 1_000_000)),
            Some(bits) => f.pad(&format!("{} kbit/s", bits as f64 / 1e3)),
        }
    }
}

/// Where the floor listens.
#[derive(clap::Args, Clone, Debug)]
pub struct FloorArgs {
    /// Address.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Certificate.
    #[arg(long)]
    pub cert: PathBuf,
    /// Its key.
    #[arg(long)]
    pub key: PathBuf,
}

/// A server as the user names it.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A pair of Tandem nodes.
    Tandem,
    /// A Tandem node without a standby.
    Single,
    /// ejabberd of the system's package: as it is, and with `+sbwt none`.
    Ejabberd,
    /// Prosody of the system's package.
    Prosody,
    /// A program that moves the same bytes between the same clients and does nothing else.
    Floor,
}

/// One way to run a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pair of Tandem nodes.
    Tandem,
    /// A Tandem node without a standby.
    Single,
    /// ejabberd; `quiet`: its schedulers do not wait busily.
    Ejabberd {
        /// `+sbwt none +sbwtdcpu none +sbwtdio none`.
        quiet: bool,
    },
    /// Prosody.
    Prosody,
    /// The floor.
    Floor,
}

impl Kind {
    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tandem => "Tandem, a pair",
            Kind::Single => "Tandem, one node",
            Kind::Ejabberd { quiet: false } => "ejabberd",
            Kind::Ejabberd { quiet: true } => "ejabberd +sbwt none",
            Kind::Prosody => "Prosody",
            Kind::Floor => "floor",
        }
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people.
    Table,
    /// One JSON document.
    Json,
    /// Rows of a table in Markdown.
    Markdown,
}

impl Settings {
    /// What to run, in the order in which it was named.
    pub fn servers(&self) -> Vec<Kind> {
        let kinds = self.server.iter().flat_map(|server| match server {
            Server::Tandem => vec![Kind::Tandem],
            Server::Single => vec![Kind::Single],
            Server::Ejabberd => vec![Kind::Ejabberd { quiet: false }, Kind::Ejabberd { quiet: true }],
            Server::Prosody => vec![Kind::Prosody],
            Server::Floor => vec![Kind::Floor],
        });
        kinds.collect()
    }

    /// How to print.
    pub fn form(&self) -> Form {
        form(self.json, self.markdown)
    }

    /// The counted time of chat.
    pub fn counted(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn form(json: bool, markdown: bool) -> Form {
    match (json, markdown) {
        (true, _) => Form::Json,
        (_, true) => Form::Markdown,
        _ => Form::Table,
    }
}

fn width(text: &str) -> Result<Width, String> {
    if text == "unlimited" {
        return Ok(Width(None));
    }
    let (digits, times) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((digits, "k")) => (digits, 1_000),
        Some((digits, "M")) => (digits, 1_000_000),
        _ => (text, 1),
    };
    // Below this a beacon of the nodes waits for longer than the queue of the link is.
    match digits.parse::<u64>().ok().and_then(|bits| bits.checked_mul(times)) {
        Some(bits) if bits >= 64_000 => Ok(Width(Some(bits))),
        _ => Err("bits a second from 64k on are needed, such as 256k or 10M, or `unlimited`".into()),
    }
}

fn even(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(users) if users > 0 && users.is_multiple_of(2) => Ok(users),
        _ => Err("an even number above 0 is needed: users chat in pairs".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_read_as_they_are_written() {
        assert_eq!(width("unlimited"), Ok(Width(None)));
        assert_eq!(width("256k"), Ok(Width(Some(256_000))));
        assert_eq!(width("10M").map(|width| width.to_string()), Ok("10 Mbit/s".into()));
        assert_eq!(width("64000"), Ok(Width(Some(64_000))));
        for wrong in ["", "M", "0", "63k", "-1M", "10G"] {
            assert!(width(wrong).is_err(), "{wrong}");
        }
    }

    fn failover(args: &[&str]) -> Result<FailoverArgs, clap::Error> {
        match Args::try_parse_from([&["measure", "failover"][..], args].concat())?.command {
            Command::Failover(of) => Ok(of),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failovers_are_of_up_to_25_000_users_on_one_node_or_on_both() {
        let of = failover(&[]).unwrap();
        assert_eq!((of.users, of.assignment), (2_500, Assignment::ActiveStandby));
        let of = failover(&["--users", "25000", "--assignment", "balanced"]).unwrap();
        assert_eq!((of.users, of.assignment), (25_000, Assignment::Balanced));
        for wrong in [["--users", "25001"], ["--users", "0"], ["--assignment", "none"]] {
            assert!(failover(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_assignment_has_the_name_that_it_has_in_the_configuration() {
        use srm::config::Assignment as Set;
        let both = [(Assignment::ActiveStandby, Set::ActiveStandby), (Assignment::Balanced, Set::Balanced)];
        for (asked, set) in both {
            assert_eq!(asked.as_str(), set.as_str());
            assert_eq!(failover(&["--assignment", set.as_str()]).unwrap().assignment, asked);
        }
    }
}
