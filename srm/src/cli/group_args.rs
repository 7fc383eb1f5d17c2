//! Arguments of `tandem group`, `ha`, `assign` and `rebalance`.

use clap::{Args, Subcommand};

use super::args::ClientArgs;

#[derive(Subcommand, Debug)]
pub(super) enum GroupCommand {
    /// Show the group: its nodes, their users, and whether high availability can be enabled
    Show(GroupArgs),
    /// Put the nodes into a group of this name; high availability is enabled later
    Create(GroupCreateArgs),
    /// Give the group another name or description
    Edit(GroupEditArgs),
    /// Delete the group; high availability must be disabled, and no user assigned
    Delete(GroupArgs),
}

impl GroupCommand {
    pub(super) fn json(&self) -> bool {
        match self {
            GroupCommand::Show(args) | GroupCommand::Delete(args) => args.client.json,
            GroupCommand::Create(args) => args.client.json,
            GroupCommand::Edit(args) => args.client.json,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct GroupArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct GroupCreateArgs {
    /// Its name: up to 128 letters, digits, _ and -
    pub name: String,
    /// What is said of it: up to 128 characters, none of " % & / \ < >
    #[arg(long, default_value = "")]
    pub description: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct GroupEditArgs {
    /// Another name
    #[arg(long, required_unless_present = "description")]
    pub name: Option<String>,
    /// Another description
    #[arg(long)]
    pub description: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Subcommand, Debug)]
pub(super) enum HaCommand {
    /// Let each node take over its peer's users; says what is looked at first
    Enable(GroupArgs),
    /// Let nobody take over: standby connections are closed, each node serves its own users, replication goes on
    Disable(HaDisableArgs),
}

impl HaCommand {
    pub(super) fn json(&self) -> bool {
        match self {
            HaCommand::Enable(args) => args.client.json,
            HaCommand::Disable(args) => args.client.json,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct HaDisableArgs {
    /// Although users are served by their backup: they stay there until a fallback
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct AssignArgs {
    /// Local part or address of the account
    pub user: String,
    /// Name of its new home node; its sessions go there without a break
    #[arg(required_unless_present = "none", conflicts_with = "none")]
    pub node: Option<String>,
    /// To no node: its sessions end, and nobody logs in until it is assigned
    #[arg(long)]
    pub none: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub(super) struct RebalanceArgs {
    /// Return as soon as it has begun
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}
