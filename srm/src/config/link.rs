//! `[peer]` and `[link]`: the other node, and the connection to it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[peer]`: the other node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name, as in its own `[node]`. No default.
    pub name: String,
    /// Host name or address at which both its clients and this node reach it. No default.
    pub host: String,
    /// Its port for clients that begin with TLS, told to clients for their standby connection. Default: this node's.
    pub c2s: u16,
    /// Where its link is dialled, `HOST:PORT`. Default: `host` and the port of this node's `[link] listen`.
    pub link: String,
    /// Where its beacons are sent (UDP), `HOST:PORT`. Default: as `link`.
    pub beacon: String,
}

impl Peer {
    /// Where its life socket is probed, `HOST:PORT`: one port above its link.
    pub fn life(&self) -> String {
        match split_port(&self.link) {
            Some((host, port)) => format!("{host}:{}", port.saturating_add(1)),
            None => self.link.clone(),
        }
    }
}

/// `[link]`: the connection between the nodes.
#[derive(Clone, Debug)]
pub struct Link {
    /// Address it listens on, TCP for the link and UDP for beacons; the life socket takes the port above.
    pub listen: SocketAddr,
    /// PEM file of this node's certificate for the link, which must bear the node's name.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the cluster's authority, which signed both nodes' certificates.
    pub ca: PathBuf,
    /// The cluster's secret, the same on both nodes.
    pub secret: Secret,
    /// The file that it was read from; `None` where it stands in the configuration.
    pub secret_file: Option<PathBuf>,
    /// When the peer says that it has a change: `"peer"` (default, written) or `"peer-and-disk"` (synced).
    /// Clusterwide.
    pub commit: Commit,
    /// What a node may do alone when it loses its peer. Clusterwide.
    pub policy: Policy,
}

impl Link {
    /// Address of the life socket: one port above the link's.
    pub fn life(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.listen.port().saturating_add(1))
    }
}

/// When the peer acknowledges a frame (rule R8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// After write(2): safe against the loss of either node and of both processes.
    #[default]
    Peer,
    /// After fdatasync: safe against power loss of both nodes at once, too.
    PeerAndDisk,
}

impl Commit {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Commit::Peer => "peer",
            Commit::PeerAndDisk => "peer-and-disk",
        }
    }
}

/// What a node that lost its peer may do without witness or operator (rule R0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Go on alone on evidence, marked *unprotected*.
    #[default]
    Available,
    /// Wait for the operator.
    Strict,
    /// What the witness grants, which grants it to one node only.
    #[serde(rename = "strict+witness")]
    Witness,
}

impl Policy {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Available => "available",
            Policy::Strict => "strict",
            Policy::Witness => "strict+witness",
        }
    }
}

/// The cluster's secret, known to both nodes only. Never shown, not even by `{:?}`.
///
/// While it is being replaced there are two: the first is used, both are accepted. The identity of the cluster, which
/// stands on its disks too, does not change with it: it is a line of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// At least one.
    keys: Vec<[u8; 32]>,
    cluster: u64,
}

impl Secret {
    /// Stands where a secret could not be read, so that the other faults of the file can be told with it.
    pub(super) fn none() -> Secret {
        Secret { keys: vec![[0; 32]], cluster: 0 }
    }

    /// Reads a file of lines: a secret of 64 hexadecimal digits, while it is being replaced `next` or `old` with another,
    /// and `cluster` with the 16 digits of its identity, which may be missing beside a secret that was never replaced.
    pub fn parse(text: &str) -> Option<Secret> {
        let mut keys = Vec::new();
        let mut cluster = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("cluster ") {
                Some(id) if cluster.is_none() => cluster = Some(u64::from_be_bytes(hex(id.trim())?)),
                Some(_) => return None,
                // The second one says whether it comes or goes.
                None if keys.is_empty() => keys.push(hex(line)?),
                None => keys.push(hex(line.strip_prefix("next ").or(line.strip_prefix("old "))?.trim())?),
            }
        }
        let cluster = match (keys.as_slice(), cluster) {
            ([_] | [_, _], Some(cluster)) => cluster,
            ([only], None) => first_u64(&derive(only, "cluster id")),
            _ => return None,
        };
        Some(Secret { keys, cluster })
    }

    /// A key of its own for each purpose, so that what is signed for one cannot be used for another.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derive(&self.keys[0], purpose)
    }

    /// The same of all secrets: the first one is to be used, all are to be accepted.
    pub fn derive_all(&self, purpose: &str) -> Vec<[u8; 32]> {
        self.keys.iter().map(|key| derive(key, purpose)).collect()
    }

    /// Identity of the cluster: the same on both nodes, different for another cluster, and gives nothing away.
    pub fn cluster_id(&self) -> u64 {
        self.cluster
    }
}

fn derive(key: &[u8; 32], purpose: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), purpose.as_bytes());
    let mut derived = [0; 32];
    derived.copy_from_slice(tag.as_ref());
    derived
}

/// Exactly `N` bytes in hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The first eight bytes of a digest.
pub(super) fn first_u64(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `HOST:PORT`, where an IPv6 address stands in brackets. `None` if it is not that.
pub(super) fn split_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok().filter(|port| *port != 0)?))
}

/// The inverse of [`split_port`]; an IPv6 address is put in brackets.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{host}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
