//! The API for operators: HTTP and JSON, versioned, on loopback by default. Command line and console use nothing else.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] of both nodes |
//! | `POST /v1/nodes/{node}/failover`, `.../fallback` | 202 and [`Moving`], or a [`Refusal`]; the status tells the rest |
//! | `POST /v1/nodes/{node}/restart` | 202 and `{node}`, or a [`Refusal`]; it is done when the status shows another `run` of the node |
//! | `POST /v1/nodes/{node}/stop` with `{text?, drain_s?}` | 202 and [`Stopped`], or a [`Refusal`]; it is done when the node does not answer any more |
//! | `POST /v1/nodes/{node}/services/{service}` with `{action, seconds?}`, one of `start`, `stop`, `restart` and `fail` | `{node, service, action}`, or a [`Refusal`]; the status lists the services |
//! | `POST /v1/recover` | `{}`, or a [`Refusal`] |
//! | `GET /v1/nodes/{node}/force-active` | [`Forced`], not done: what may be missing; or a [`Refusal`] |
//! | `POST /v1/nodes/{node}/force-active` with `{confirm, takes_back?}`, the node's name and what was told of `takes_back` | [`Forced`], or a [`Refusal`]: with `takes_back` nothing else is done |
//! | the same two with `force-inactive`, without `takes_back` | likewise; `missing` tells whose users are not served |
//! | `POST /v1/users` with `{user, password, home?}` | 201 and `{user}`, or a [`Refusal`] |
//! | `POST /v1/users/{user}/password` with `{password}` | `{user}`, or a [`Refusal`]; the user's streams end |
//! | `DELETE /v1/users/{user}` | `{user}`, or a [`Refusal`]; the user's streams end |
//! | `POST /v1/users/{user}/home` with `{home}`, a node's name or null | `{user}`, or a [`Refusal`]; the user's sessions go to that node, or end |
//! | `POST /v1/check` | 202 and `{"nodes": [NAME]}`, or a [`Refusal`]; the status tells what was found |
//! | `POST /v1/rebalance` | 202 and [`Moving`], or a [`Refusal`]; the status tells the rest |
//! | `GET /v1/group` | [`GroupShown`], with what is looked at before high availability is enabled |
//! | `POST /v1/group` with `{name, description?}`; `PATCH` with `{name?, description?}`; `DELETE` | [`GroupShown`], or a [`Refusal`]: the group is made, described anew, deleted |
//! | `POST /v1/ha` with `{enabled, force?}` | [`GroupShown`], or a [`Refusal`] |
//! | `POST /v1/reload` | [`Reloaded`], or a [`Refusal`]: configuration, certificates, keys, secret and token are read anew |
//! | `POST /v1/settings` with `{key, value?}` | [`Reloaded`], or a [`Refusal`]: one setting is changed in the configuration file, on both nodes where it is clusterwide, and taken up; without a value its default counts |
//! | `GET /v1/log` | [`Logging`]: the level of the log |
//! | `POST /v1/log` with `{level}` | [`Logging`], or 400 and a [`Refusal`]; it lasts until the process ends |
//! | `GET /metrics` | metrics in the text format of Prometheus, of the node that answers; 503 and a [`Refusal`] if it does not say how it is within 10 s |
//! | `GET /v1/events?after=N&most=M&wait=S` | a list of [`Record`]: the newest `most` (1000) events after number `after` (0) of the node that answers; if there is none, it waits for one, `wait` (0) seconds, 25 at most |
//! | `GET /v1/sessions` | a list of [`SessionStatus`] |
//! | `GET /v1/users` | a list of [`UserStatus`] |
//! | `GET /healthz` | 200: the process lives. Needs no token |
//! | `GET /readyz` | 200: the node serves its users; else 503. Needs no token |
//!
//! Whatever is not done is answered by a [`Refusal`]: 409 if the state of the nodes forbids it, 404 for what is not
//! there, 400 for what cannot be read, 401 without the token, 403 from a browser. Either node answers for both.
//!
//! A request may name who sends it in a header `Tandem-Operator` (UTF-8, 1 to 64 printable characters; else 400). The name
//! stands in events and the log. It is a claim for the record: the token alone decides who may ask.

mod answers;
#[cfg(test)]
pub(crate) mod fake;
mod group;
mod listener;
pub mod operator;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::events::Record;
use crate::node::{Force, GroupOp, Service};

pub use group::{CheckShown, GroupShown, Member};
pub use server::{Token, listen, serve};

/// An answer that is not there yet.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why something was not done. Its texts are for the operator.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused, and why, in a sentence.
    pub error: String,
    /// State of the node at that moment, such as `Running in Backup Mode`; empty where it does not matter.
    pub state: String,
    /// The reason of that state, such as `Peer Down`; empty where it does not matter.
    pub reason: String,
    /// What to do instead.
    pub hint: String,
}

/// What the operator sees of both nodes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Version of the software of the node that answers.
    pub version: String,
    /// The first domain served.
    pub domain: String,
    /// The nodes, in the order of their names.
    pub nodes: Vec<NodeStatus>,
    /// The home groups, in the order of their home nodes.
    pub groups: Vec<GroupStatus>,
    /// What the node that answers knows of the witness: `decides` or `cannot be asked`; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
    /// Row of the table of pairs of states; `None` where no row fits.
    pub row: Option<u32>,
    /// The row's cause, in words.
    pub cause: String,
    /// The row's recommended action; empty where nothing need be done.
    pub action: String,
    /// What should be looked at soon.
    pub alarms: Vec<String>,
    /// The failover or fallback in progress.
    pub moving: Option<Moving>,
}

/// What the operator sees of one node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its state, by the product's name; `down` where it is not heard.
    pub state: String,
    /// The reason of the state, by the product's name.
    pub reason: String,
    /// Whether it is the node that answers.
    pub local: bool,
    /// Milliseconds since it was last heard; `None` for never. 0 for the node that answers.
    pub heard_ms: Option<u64>,
    /// Its counters.
    pub counters: CountersStatus,
    /// Its log, and its peer's.
    pub log: LogStatus,
    /// Accounts that it knows.
    pub users: u64,
    /// Accounts whose home it is.
    pub homed: u64,
    /// Version of its software; empty where it did not tell.
    #[serde(default)]
    pub version: String,
    /// Its wall clock in milliseconds since 1970; 0 where it did not tell.
    #[serde(default)]
    pub clock_ms: u64,
    /// How the clocks go by which it reads windows of the day; empty where it did not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_zone: String,
    /// Its run: a random number, another one after each start; 0 where it did not tell.
    #[serde(default)]
    pub run: u64,
    /// Its services; empty where it did not tell.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// Checks of its store, and of the other node's copies of its users.
    #[serde(default)]
    pub check: CheckStatus,
    /// Its settings that should be equal on both nodes, and its re-login limits; empty where it did not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Its role for the users of each home node, by that node's name: `Primary`, `Backup` or `Fenced`. Empty where it did not
    /// tell.
    #[serde(default)]
    pub roles: BTreeMap<String, String>,
    /// What may be asked for it now at the node that answers, by the commands: `failover`, `fallback` (to it), `recover`,
    /// `force-active`, `force-inactive`. Anything else of these is refused.
    #[serde(default)]
    pub offered: Vec<String>,
}

/// Checks of a node since its process began.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckStatus {
    /// One is under way.
    pub running: bool,
    /// How many have come to their end. The rest is about the last of them.
    pub ended: u64,
    /// When it ended, in milliseconds since 1970; `None`: there was none.
    pub ended_ms: Option<u64>,
    /// Accounts that were compared with the other node's copies; `None`: there was nobody to do that with.
    pub users: Option<u64>,
    /// How many of them the other node holds otherwise,
    pub different: u64,
    /// and their names, the first 100.
    pub named: Vec<String>,
    /// Pairs of the store that were compared with the logs; `None`: it holds no checkpoint.
    pub pairs: Option<u64>,
    /// How many of them were wrong. The store was then set aside.
    pub wrong: u64,
}

/// A service of a node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name: `database`, `presence-engine`, `router` or `authentication`.
    pub name: String,
    /// `running`, `stopped` (by the operator), `failed` (it died and is to be started again) or `failing` (it does not do its
    /// work).
    pub state: String,
    /// Why it does not run; empty where it does.
    pub why: String,
    /// Whether its node fails over if it is down for longer than `[srm] critical_service_delay`.
    pub critical: bool,
    /// For how many seconds it has been so.
    pub seconds: u64,
    /// How often it was started again since its node's process began.
    pub restarts: u64,
}

/// What an operator may do to a service.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ServiceAction {
    /// Start it.
    Start,
    /// Stop it; it is not started again by itself.
    Stop,
    /// Stop it, and have its supervisor start it again.
    Restart,
    /// Let it die. Its supervisor starts it again, which fails for so many seconds.
    Fail {
        /// See above; 0: it succeeds at once.
        #[serde(default)]
        seconds: u64,
    },
}

impl ServiceAction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ServiceAction::Start => "start",
            ServiceAction::Stop => "stop",
            ServiceAction::Restart => "restart",
            ServiceAction::Fail { .. } => "fail",
        }
    }
}

/// Counters of a node, by the names that operators know.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct CountersStatus {
    /// Client sessions that are active here.
    pub jsm_sessions_client: u64,
    /// Parked streams of clients whose sessions are active on the peer.
    pub jsm_sessions_client_inactive: u64,
    /// Composed sessions, one for each user who is logged in here.
    pub jsm_sessions_composed: u64,
    /// Users served actively by this node.
    pub active_jsm_sessions: u64,
    /// Users held inactively for the peer.
    pub inactive_jsm_sessions: u64,
}

/// How far logs are, in frames.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// End of the node's own log.
    pub own_end: u64,
    /// How much of it the peer has acknowledged.
    pub acked_by_peer: u64,
    /// How much of the peer's log it has received.
    pub received: u64,
}

/// One home group: the users homed on one node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Its home node.
    pub home: String,
    /// The node that serves it; empty where none does.
    pub primary: String,
    /// `Pair` or `Solo`.
    pub mode: String,
    /// Role of the node that answers: `Primary`, `Backup` or `Fenced`.
    pub role: String,
    /// Term of its register.
    pub term: u64,
    /// What a release needs: `Nothing`, `Both` or `Alone`.
    pub release: String,
}

/// A failover or fallback in progress.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    /// What it is, in words, such as `failover of a`.
    pub what: String,
    /// Users that are still to be moved.
    pub left: u64,
    /// Users that were moved.
    pub done: u64,
}

/// A node that serves all users by the operator's word, or would.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// Its name.
    pub node: String,
    /// Whether it was done.
    pub done: bool,
    /// It only takes back the word that made it inactive: it serves again whom it led before, and nothing is forced.
    #[serde(default)]
    pub takes_back: bool,
    /// What may be missing on it, one sentence each; empty if nothing is.
    pub missing: Vec<String>,
}

/// The log of a node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// Its level, such as `info` or `info,session_mover=debug`.
    pub level: String,
}

/// What a node took up when it read its configuration again.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that changed, or whose files did.
    pub taken: Vec<String>,
    /// Changed settings that wait for a restart.
    pub restart: Vec<String>,
    /// What in the file deserves a second look, as `tandem config check` says it.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One account.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct UserStatus {
    /// Its bare JID.
    pub user: String,
    /// Its home node; empty: it is not assigned, and nobody logs in.
    pub home: String,
    /// The node that serves it now; empty where none does.
    pub owner: String,
    /// Epoch of the account, TERM.MOVES.
    pub epoch: String,
    /// Sessions that are logged in.
    pub sessions: u64,
}

/// One session.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// Bare JID of its account.
    pub user: String,
    /// Its resource.
    pub resource: String,
    /// The node that serves it; empty where none does.
    pub owner: String,
    /// It has a stream; else it waits for its client to resume.
    pub connected: bool,
    /// Its client has sent presence.
    pub available: bool,
    /// Its client knows the dual connection.
    pub dual: bool,
    /// Stanzas that its client has not acknowledged.
    pub queued: u64,
}

/// How a node is to be stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// What clients are told that no other node takes over; else a text of the server.
    pub text: Option<String>,
    /// For how many seconds clients may go on, while nobody logs in; else none.
    pub drain_s: Option<u64>,
}

/// How a node stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The other node takes its users over: no client is told anything, and none is waited for.
    pub hands_over: bool,
    /// Streams of clients when it was asked for.
    pub streams: u64,
}

/// What the API asks of the node that it belongs to. All of it answers within seconds; what takes longer is told by
/// the status. Who asks is [`operator::current`] while it is called.
pub trait Daemon: Send + Sync + 'static {
    /// State of both nodes.
    fn status(&self) -> BoxFuture<'_, Status>;
    /// Begins to move the users of `node` to its peer. The name is that of a node in the status.
    fn failover<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>>;
    /// Begins to move the users of `node` back to it. The name is that of a node in the status.
    fn fallback<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>>;
    /// Has `node` end and begin anew; nobody takes its users over meanwhile. The name is that of a node in the status.
    fn restart<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<(), Refusal>>;
    /// Has `node` stopped. The name is that of a node in the status.
    fn stop<'a>(&'a self, node: &'a str, stop: Stop) -> BoxFuture<'a, Result<Stopped, Refusal>>;
    /// Starts or stops a service of `node`, or lets it fail. The name is that of a node in the status.
    fn service<'a>(
        &'a self,
        node: &'a str,
        service: Service,
        action: ServiceAction,
    ) -> BoxFuture<'a, Result<(), Refusal>>;
    /// Ends the failed mode of both nodes.
    fn recover(&self) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Makes the node that answers serve all users, or nobody, whatever its rules say. Unless `confirmed`, nothing is done:
    /// the answer tells what may be missing, or who is not served. The name is that of a node in the status.
    fn force<'a>(
        &'a self,
        node: &'a str,
        to: Force,
        confirmed: bool,
    ) -> BoxFuture<'a, Result<Forced, Refusal>>;
    /// Takes back the word that made the node that answers inactive, if that is all that forcing it active would do; else
    /// nothing is done. The name is that of a node in the status.
    fn take_back<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Forced, Refusal>>;
    /// Adds an account. `user` is a bare JID in prepared form, `home` the name of a node in the status.
    fn user_add(
        &self,
        user: String,
        password: String,
        home: Option<String>,
    ) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Gives an account another password; its sessions end on both nodes. `user` as above.
    fn user_passwd(&self, user: String, password: String) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Removes an account; its sessions end on both nodes, and its contacts see it no more. `user` as above.
    fn user_remove(&self, user: String) -> BoxFuture<'_, Result<(), Refusal>>;
    /// The presence redundancy group; `None`: the node does not say how it is.
    fn group(&self) -> BoxFuture<'_, Option<GroupShown>>;
    /// Changes it.
    fn change_group(&self, op: GroupOp) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Assigns an account to another home, the name of a node in the status, or to none. `user` as above.
    fn assign(&self, user: String, home: Option<String>) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Begins to assign users to the other node until each has its share.
    fn rebalance(&self) -> BoxFuture<'_, Result<Moving, Refusal>>;
    /// Begins a check on both nodes, or on this one if the other does not answer; gives the names of those that check.
    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, Refusal>>;
    /// Reads the configuration and its files again, of the node that answers.
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, Refusal>>;
    /// Changes one setting in the configuration of the node that answers, and where it is clusterwide of its peer; `None`: its
    /// default.
    fn set(&self, key: String, value: Option<String>) -> BoxFuture<'_, Result<Reloaded, Refusal>>;
    /// The level of the log of the node that answers.
    fn log_level(&self) -> String;
    /// Sets it, until the process ends. The error says what may be written.
    fn set_log_level(&self, level: &str) -> Result<(), Refusal>;
    /// Metrics of the node that answers, in the text format of Prometheus; empty: it does not say how it is.
    fn metrics(&self) -> BoxFuture<'_, String>;
    /// Events of the node that answers after this number, the newest so many of them; if there is none, it waits for one.
    fn events(&self, after: u64, most: usize, wait: Duration) -> BoxFuture<'_, Vec<Record>>;
    /// All sessions, in the order of their accounts.
    fn sessions(&self) -> BoxFuture<'_, Vec<SessionStatus>>;
    /// All accounts, in the order of their names.
    fn users(&self) -> BoxFuture<'_, Vec<UserStatus>>;
    /// Whether this node serves its users now, here or by its peer's log being safe.
    fn ready(&self) -> bool;
}
