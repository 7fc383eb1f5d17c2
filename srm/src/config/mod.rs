//! The configuration of one node: a TOML file, unknown keys refused, every rule checked before anything starts.
//!
//! [`Config::load`] gives a configuration with all defaults filled in and all paths absolute or relative to the working
//! directory. Most of it is read again while the node runs: [`Config::follow`] tells what then changes and what waits for
//! a restart. Options that say *clusterwide* must be equal on both nodes; [`Config::hash`] tells whether they are.

mod check;
mod clusterwide;
pub mod edit;
mod error;
mod etcd;
mod file;
mod limits;
mod link;
mod notify;
mod reference;
mod reload;
mod srm;
#[cfg(test)]
mod tests;
mod validity;
mod witness;
mod zone;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xmpp_core::sasl::{Mechanism, ScramHash};

pub use check::name_fault;
pub(crate) use clusterwide::first_default;
pub use error::{ConfigError, Fault};
pub use etcd::EtcdAt;
pub use file::{AdminAccess, LOOKED_AT, admin_access, find, read_token};
pub use limits::Limits;
pub(crate) use link::with_port;
pub use link::{Commit, Link, Peer, Policy, Secret};
pub use notify::{
    Community, HostPort, Login, Notify, Smtp, SmtpTls, Snmp, Syslog, SyslogTo, Wants, Way, Webhook, Xmpp,
};
pub use reference::reference;
pub(crate) use reference::{about_section, commented, defaults};
pub use reload::Change;
pub(crate) use srm::COMPUTED_LOWER_S;
pub use srm::{Assignment, EventRule, ReLogin, Srm, Window};
pub use validity::{Validity, now_s};
pub use witness::{WITNESS_PORT, WitnessAt, WitnessConfig};
pub use zone::Zone;

/// How long a primary may go on alone after the last beacon that its peer acknowledged (rule R3). Not configurable.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often each node sends a beacon (rule R3). Not configurable.
pub const BEACON_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that a node is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// This node.
    pub node: Node,
    /// The other node; `None` for a single node.
    pub peer: Option<Peer>,
    /// Ports and certificates for clients.
    pub c2s: C2s,
    /// The connection between the nodes; there is one wherever there is a peer.
    pub link: Option<Link>,
    /// The witness, under the policy `strict+witness`.
    pub witness: Option<WitnessAt>,
    /// An etcd in its place.
    pub etcd: Option<EtcdAt>,
    /// Parameters of the Server Recovery Manager.
    pub srm: Srm,
    /// Where operators' tools connect.
    pub admin: Admin,
    /// Where the materialised state is kept.
    pub store: Store,
    /// What clients may cost.
    pub limits: Limits,
    /// Who is told of events, in the order of the file.
    pub notify: Vec<Notify>,
    /// All settings as text, by `section.key`, but for the secret.
    settings: BTreeMap<String, String>,
}

/// `[node]`: who this node is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name of the node: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, unlike the peer's regardless of case. No
    /// default. The node whose name sorts first is the first node of the pair.
    pub name: String,
    /// Directory of the log, the store and the node's identity. Default `data` beside the configuration file.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// XMPP domains served, at least one, no default; the first is told to clients that ask for none. Clusterwide.
    pub domains: Vec<String>,
}

/// `[c2s]`: how clients connect.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct C2s {
    /// Address of the port where clients begin in the clear and must ask for TLS. Default `[::]:5222`.
    #[serde(default = "default_starttls")]
    pub starttls: SocketAddr,
    /// Address of the port where clients begin with TLS (XEP-0368). Default `[::]:5223`.
    #[serde(default = "default_direct")]
    pub direct: SocketAddr,
    /// PEM file of the certificate chain for the domains; use the same on both nodes. No default.
    pub cert: PathBuf,
    /// PEM file of its private key. No default.
    pub key: PathBuf,
    /// SASL mechanisms offered, of `"SCRAM-SHA-512"`, `"SCRAM-SHA-256"` and `"SCRAM-SHA-1"`; on TLS 1.3 each brings its
    /// -PLUS. Default all three. Clusterwide.
    #[serde(default = "default_mechanisms")]
    pub mechanisms: Vec<String>,
    /// Whether PLAIN is offered besides, inside TLS: for clients that know nothing better. The node sees their
    /// passwords and spends milliseconds of its processor on each login. Default false. Clusterwide.
    #[serde(default)]
    pub plain: bool,
}

/// `[admin]`: the API for operators.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address it listens on. Default `127.0.0.1:20075`. It speaks plain HTTP: beyond loopback put TLS before it.
    pub listen: SocketAddr,
    /// File with the bearer token, readable by its owner only. Default `admin.token` beside the configuration file.
    pub token_file: PathBuf,
}

/// `[store]`: the materialised state.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The engine that keeps it: `"sled"` or `"redb"`. Each keeps its own files: after a change the new one is filled from
    /// the logs. Default `"sled"`.
    pub engine: Engine,
    /// Frames of both logs after which it gets what changed. A start reads what came since; what it has leaves the logs.
    /// Default 10,000; 1 to 1,000,000.
    pub checkpoint_frames: u64,
}

impl Default for Store {
    fn default() -> Store {
        Store { engine: Engine::default(), checkpoint_frames: 10_000 }
    }
}

/// Engines of the materialised state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The embedded database sled, version 0.34.
    #[default]
    Sled,
    /// The embedded database redb, version 4.
    Redb,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: ([127, 0, 0, 1], 20_075).into(), token_file: "admin.token".into() }
    }
}

fn default_data() -> PathBuf {
    "data".into()
}

fn default_starttls() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, 5222).into()
}

fn default_direct() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, 5223).into()
}

fn default_mechanisms() -> Vec<String> {
    ScramHash::ALL.iter().map(|hash| Mechanism::Scram(*hash).name().to_owned()).collect()
}

/// The hash of a mechanism as `[c2s] mechanisms` names it: SCRAM without -PLUS, which comes by itself.
pub fn scram_hash(name: &str) -> Option<ScramHash> {
    match Mechanism::parse(name)? {
        Mechanism::Scram(hash) => Some(hash),
        Mechanism::ScramPlus(_) | Mechanism::Plain => None,
    }
}

impl Config {
    /// Reads and checks the file. All faults are told at once, each with its line.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        file::load(path)
    }

    /// Names of the nodes, sorted; a node's place in it is its index in terms and groups.
    pub fn members(&self) -> Vec<&str> {
        let mut names = vec![self.node.name.as_str()];
        names.extend(self.peer.as_ref().map(|peer| peer.name.as_str()));
        names.sort_unstable();
        names
    }

    /// Place of this node among [`Config::members`]: 0 or 1.
    pub fn index(&self) -> usize {
        usize::from(self.peer.as_ref().is_some_and(|peer| peer.name < self.node.name))
    }

    /// Peer and link together; `None` for a single node.
    pub fn pair(&self) -> Option<(&Peer, &Link)> {
        self.peer.as_ref().zip(self.link.as_ref())
    }

    /// What is allowed but deserves a second look; for the operator.
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(self)
    }

    /// Reads the certificates, keys and the admin token that the file names: what `serve` would stumble over.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        check::files(self)
    }
}

/// A duration as it stands in the file.
pub(crate) fn text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.subsec_nanos() {
        0 if seconds <= 600 => format!("{seconds}s"),
        _ => humantime_serde::re::humantime::format_duration(duration).to_string(),
    }
}
