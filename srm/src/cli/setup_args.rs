//! The arguments of `tandem init`, `extend`, `pair`, `unpair` and `renew`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::args::ClientArgs;

#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// XMPP domain, the part of addresses after the @
    #[arg(long)]
    pub domain: String,
    /// A node and the host where it is reached; a second one makes a pair
    #[arg(long = "node", value_name = "NAME=HOST", required = true, value_parser = name_and_host)]
    pub nodes: Vec<(String, String)>,
    /// Directory to write to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Host of a witness, which decides which node goes on alone; best on a third machine
    #[arg(long, value_name = "HOST")]
    pub witness: Option<String>,
    /// A member of an etcd in its place, such as https://e1.example.org:2379; once for each
    #[arg(long, value_name = "URL", conflicts_with = "witness")]
    pub etcd: Vec<String>,
    /// Data folder on the nodes [default: `data` beside each configuration file]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RenewArgs {
    /// What to replace
    #[arg(value_enum)]
    pub what: Renew,
    /// The directory that `tandem init` made
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Of certificates: a host name or address that clients' certificates are to stand for, too; may be repeated
    #[arg(long, value_name = "HOST")]
    pub add_name: Vec<String>,
    /// Of certificates: one that they no longer stand for; may be repeated
    #[arg(long, value_name = "HOST")]
    pub drop_name: Vec<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// What `tandem extend` adds.
#[derive(Subcommand, Debug)]
pub(super) enum Extend {
    /// A witness, which decides which node of a pair goes on when they cannot see each other
    Witness(ExtendWitnessArgs),
    /// A second node for one that is alone
    ///
    /// Makes the new node's files, and names each node in the file of the other. Then copy the new node's folder to its machine,
    /// start it there, and say `tandem pair` at the old one: its clients resume.
    Pair(ExtendPairArgs),
}

#[derive(Args, Debug)]
pub(super) struct ExtendWitnessArgs {
    /// Host name or address where the nodes reach it
    pub host: String,
    /// TCP port where it listens
    #[arg(long, default_value_t = crate::config::WITNESS_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// The directory that `tandem init` made
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExtendPairArgs {
    /// The node that there is, and the host where the other reaches it
    #[arg(value_name = "NAME=HOST", value_parser = name_and_host)]
    pub old: (String, String),
    /// The new node; its name is behind the other's in the alphabet
    #[arg(value_name = "NAME=HOST", value_parser = name_and_host)]
    pub new: (String, String),
    /// The directory that `tandem init` made
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(super) struct PairArgs {
    /// The directory that `tandem extend pair` worked on, or a copy of it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct UnpairArgs {
    /// Name of the node that leaves
    pub node: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What `tandem renew` replaces.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renew {
    /// Keys and certificates of both nodes, by the present authority.
    Certificates,
    /// The cluster's secret: in three steps, one for each call.
    Secret,
    /// The authority, and all certificates with it: in three steps, one for each call.
    Authority,
}

fn name_and_host(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok((name.into(), host.into())),
        _ => Err("write NAME=HOST, such as a=a.example.org".to_owned()),
    }
}
