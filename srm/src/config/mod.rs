//! The configuration of one node: a TOML file, unknown keys refused, every rule checked before anything starts.
//!
//! [`Config::load`] gives a configuration with all defaults filled in and all paths absolute or relative to the working
//! directory. Nothing here reloads: a change takes effect when the node is restarted. Options that say *clusterwide*
//! must be equal on both nodes; [`Config::hash`] tells whether they are.

mod check;
mod error;
mod file;
mod link;
mod srm;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use xmpp_core::net::Rates;
use xmpp_core::sasl::{Mechanism, ScramHash};

pub use check::name_fault;
pub use error::{ConfigError, Fault};
pub use file::{AdminAccess, LOOKED_AT, admin_access, find, read_token};
pub(crate) use link::with_port;
pub use link::{Commit, Link, Peer, Policy, Secret};
pub use srm::{Assignment, Srm, Window};

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
    /// Parameters of the Server Recovery Manager.
    pub srm: Srm,
    /// Where operators' tools connect.
    pub admin: Admin,
    /// Where the materialised state is kept.
    pub store: Store,
    /// What clients may cost.
    pub limits: Limits,
}

/// `[node]`: who this node is.
#[derive(Clone, Debug, Deserialize)]
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
#[derive(Clone, Debug, Deserialize)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address it listens on. Default `127.0.0.1:20075`. It speaks plain HTTP: beyond loopback put TLS before it.
    pub listen: SocketAddr,
    /// File with the bearer token, readable by its owner only. Default `admin.token` beside the configuration file.
    pub token_file: PathBuf,
}

/// `[store]`: the materialised state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The engine that keeps it. Default `"sled"`.
    pub engine: Engine,
}

/// Engines of the materialised state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The embedded database sled, version 0.34.
    #[default]
    Sled,
}

/// `[limits]`: what clients may cost. All have defaults that suit thousands of clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most connections that have not logged in yet. Default 2000, at least 1.
    pub unauthenticated: usize,
    /// The same from one IPv4 address or IPv6 /64 network. Default 200, 1 to `unauthenticated`.
    pub unauthenticated_per_address: usize,
    /// Time from connecting to logging in. Default 30 s, 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub login_timeout: Duration,
    /// How long sent bytes may stay unacknowledged by TCP, and silence before its keep-alive. Default 60 s, 1 s to 1 h.
    #[serde(with = "humantime_serde")]
    pub tcp_timeout: Duration,
    /// Bytes that may wait for one slow reader before its connection is closed, resumable. Default 4194304, at least
    /// `stanza_bytes`.
    pub queued_bytes: usize,
    /// Stanzas of one connection that are read ahead of being handled. Default 32, 1 to 10000.
    pub credits: u32,
    /// Bytes per second that are read from one client; two seconds' worth may come at once, and what is above is read
    /// later. Default 1048576, 1000 to 1000000000.
    pub bytes_per_second: u32,
    /// Stanzas (and other top-level elements) per second that are read from one client, likewise. Default 1000, 1 to
    /// 1000000.
    pub stanzas_per_second: u32,
    /// New connections per minute from one IPv4 address or IPv6 /64 network; a minute's worth may come at once, and
    /// more are closed unread. Default 6000, 10 to 100000000.
    pub connections_per_minute: u32,
    /// Wrong passwords per minute from one such address, likewise. Above it everybody there is told to try again later,
    /// right or wrong; no account is ever locked. Default 60, 1 to 1000000.
    pub failed_logins_per_minute: u32,
    /// Longest stanza of a client. Default 262144 bytes, 10000 to 262144. Clusterwide.
    pub stanza_bytes: usize,
    /// How long a session outlives its stream. Default 300 s, 10 s to 24 h. Clusterwide.
    #[serde(with = "humantime_serde")]
    pub resume_timeout: Duration,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: ([127, 0, 0, 1], 20_075).into(), token_file: "admin.token".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let rates = Rates::default();
        Limits {
            unauthenticated: xmpp_core::net::UNAUTHENTICATED,
            unauthenticated_per_address: xmpp_core::net::UNAUTHENTICATED_PER_ADDRESS,
            login_timeout: Duration::from_secs(30),
            tcp_timeout: Duration::from_secs(60),
            queued_bytes: xmpp_core::net::QUEUED_BYTES,
            credits: 32,
            bytes_per_second: rates.bytes_per_second,
            stanzas_per_second: rates.stanzas_per_second,
            connections_per_minute: rates.connections_per_minute,
            failed_logins_per_minute: rates.failed_logins_per_minute,
            stanza_bytes: xmpp_core::xml::Limits::C2S.bytes,
            resume_timeout: Duration::from_secs(300),
        }
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

    /// The settings that must be equal on both nodes, as text, for showing where two nodes differ.
    pub fn clusterwide(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("node names", self.members().join(" ")),
            ("node.domains", self.node.domains.join(" ")),
            ("c2s.mechanisms", self.c2s.mechanisms.join(" ")),
            ("c2s.plain", self.c2s.plain.to_string()),
            ("limits.stanza_bytes", self.limits.stanza_bytes.to_string()),
            ("limits.resume_timeout", text(self.limits.resume_timeout)),
        ];
        if let Some(link) = &self.link {
            all.push(("link.commit", link.commit.as_str().into()));
            all.push(("link.policy", link.policy.as_str().into()));
        }
        self.srm.clusterwide(&mut all);
        all
    }

    /// Digest of [`Config::clusterwide`]: the same on both nodes exactly when those settings are equal.
    pub fn hash(&self) -> u64 {
        let mut lines = String::new();
        for (key, value) in self.clusterwide() {
            lines.push_str(&format!("{key}={value}\n"));
        }
        link::first_u64(ring::digest::digest(&ring::digest::SHA256, lines.as_bytes()).as_ref())
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
