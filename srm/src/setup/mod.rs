//! Makes everything that a node or a pair needs to start: configuration, certificates, secret, admin token.
//!
//! `tandem init`, the demo and the tests begin here. Layout: `DIR/ca/ca.pem` (clients trust it, both nodes trust each
//! other by it) and its key, then one directory for each node with `tandem.toml` and the files that it names.

mod certs;
pub mod extend;
pub mod grow;
pub mod join;
mod ports;
pub mod renew;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::config::{self, Config, ConfigError};

pub use ports::{Ports, free_ports};

/// Name of the witness, and of its directory.
const WITNESS: &str = "witness";

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The XMPP domain.
    pub domain: String,
    /// Directory to make it in; made if it is not there.
    pub dir: PathBuf,
    /// One node, or the two nodes of a pair.
    pub nodes: Vec<NodePlan>,
    /// The witness of the pair, if there is to be one: then the policy is `strict+witness`.
    pub witness: Option<WitnessPlan>,
    /// Settings for the files of all nodes besides what is needed anyway: key `section.name`, and its value.
    pub overrides: BTreeMap<String, toml::Value>,
}

/// One node of a [`Plan`].
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Its name; also the name of its directory.
    pub name: String,
    /// Where clients and the peer reach it.
    pub host: String,
    /// Address that all its ports but the admin API listen on.
    pub listen: IpAddr,
    /// Its ports.
    pub ports: Ports,
}

/// The witness of a [`Plan`].
#[derive(Clone, Debug)]
pub struct WitnessPlan {
    /// Where the nodes reach it.
    pub host: String,
    /// Address and port that it listens on.
    pub listen: SocketAddr,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Configuration file of the witness, for `tandem witness -c`.
    pub witness: Option<PathBuf>,
    /// Certificate of the authority, for clients to trust.
    pub ca: PathBuf,
    /// The nodes, in the order of the plan.
    pub nodes: Vec<MadeNode>,
}

/// One node that was made.
#[derive(Clone, Debug)]
pub struct MadeNode {
    /// Its name.
    pub name: String,
    /// Its configuration file, for `tandem serve -c`.
    pub config: PathBuf,
    /// Where its clients begin in the clear (STARTTLS), from this machine.
    pub c2s: SocketAddr,
    /// Where its clients begin with TLS, from this machine.
    pub c2s_tls: SocketAddr,
    /// Where its admin API listens.
    pub admin: SocketAddr,
    /// File with the admin token.
    pub token_file: PathBuf,
}

/// Why it was not made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is something already; it is left as it is.
    #[error("{} is there already and is not touched; choose another directory, or remove it first", .0.display())]
    Exists(PathBuf),
    /// A file or directory cannot be written.
    #[error("{} cannot be written: {source}; choose a directory that you may write to", .path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be read.
    #[error("{} cannot be read: {source}; name the directory that `tandem init` made, with its ca/", .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what `tandem init` put there.
    #[error("{} is damaged, or of another authority than ca/ca.pem; put back what `tandem init` made", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to work on.
    #[error("{} holds no {what}; name the directory that `tandem init` made", .dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
        /// What is looked for.
        what: &'static str,
    },
    /// A configuration that exists takes no such change.
    #[error("{}: {problem}; {hint}", .path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A certificate cannot be made for a name.
    #[error(
        "no certificate can be made for {names}: {source}; write names beyond ASCII in their ASCII form (xn--...)"
    )]
    Certificate {
        /// The names.
        names: String,
        /// What the library says.
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// All ports that are tried are taken.
    #[error("no free ports between {} and {}: stop what is running there (another demo?)", .0, .1)]
    NoPorts(u16, u16),
    /// What was planned breaks a rule of the configuration.
    #[error("{}", planned(.0))]
    Config(#[from] ConfigError),
}

impl Plan {
    /// The pair `a` and `b` on this machine, for the demo and for tests.
    pub fn local_pair(domain: &str, dir: &Path) -> Result<Plan, SetupError> {
        Plan::local(domain, dir, &["a", "b"])
    }

    /// A single node `a` on this machine.
    pub fn local_single(domain: &str, dir: &Path) -> Result<Plan, SetupError> {
        Plan::local(domain, dir, &["a"])
    }

    /// Nodes of these names on this machine, on free ports of the loopback address.
    pub fn local(domain: &str, dir: &Path, names: &[&str]) -> Result<Plan, SetupError> {
        let node = |(name, ports): (&&str, Ports)| NodePlan {
            name: (*name).to_owned(),
            host: Ipv4Addr::LOCALHOST.to_string(),
            listen: Ipv4Addr::LOCALHOST.into(),
            ports,
        };
        let nodes = names.iter().zip(free_ports(names.len())?).map(node).collect();
        Ok(Plan { domain: domain.into(), dir: dir.into(), nodes, witness: None, overrides: BTreeMap::new() })
    }

    /// One or two nodes on machines of their own, on the standard ports.
    pub fn remote(domain: &str, dir: &Path, nodes: &[(String, String)]) -> Plan {
        let node = |(name, host): &(String, String)| NodePlan {
            name: name.clone(),
            host: host.clone(),
            listen: Ipv6Addr::UNSPECIFIED.into(),
            ports: Ports::STANDARD,
        };
        let nodes = nodes.iter().map(node).collect();
        Plan { domain: domain.into(), dir: dir.into(), nodes, witness: None, overrides: BTreeMap::new() }
    }

    /// Adds a witness on this machine, on a free port of the loopback address.
    pub fn local_witness(mut self) -> Result<Plan, SetupError> {
        let port = free_ports(1)?.first().map_or(0, |ports| ports.link);
        let host = Ipv4Addr::LOCALHOST.to_string();
        self.witness = Some(WitnessPlan { host, listen: (Ipv4Addr::LOCALHOST, port).into() });
        Ok(self)
    }

    /// Adds a witness on a machine of its own, on the standard port.
    #[must_use]
    pub fn remote_witness(mut self, host: &str) -> Plan {
        let listen = (Ipv6Addr::UNSPECIFIED, config::WITNESS_PORT).into();
        self.witness = Some(WitnessPlan { host: host.to_owned(), listen });
        self
    }

    /// Has the nodes ask an etcd in the place of a witness.
    #[must_use]
    pub fn etcd(self, endpoints: &[String]) -> Plan {
        self.set("link.policy", config::Policy::Witness.as_str()).set("etcd.endpoints", endpoints.to_vec())
    }

    /// Adds a setting for all nodes, such as `("srm.client_re_login_upper_limit", "3s")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Plan {
        self.overrides.insert(key.into(), value.into());
        self
    }

    /// Writes it all, reads it back and checks it. Nothing that is there already is touched.
    pub fn make(&self) -> Result<Made, SetupError> {
        let faults: Vec<_> = self.nodes.iter().filter_map(|node| config::name_fault(&node.name)).collect();
        if !faults.is_empty() {
            return Err(ConfigError::Refused { path: self.dir.clone(), faults }.into());
        }
        let dirs: Vec<PathBuf> = self
            .nodes
            .iter()
            .map(|node| node.name.as_str())
            .chain(self.witness.as_ref().map(|_| WITNESS))
            .chain(["ca"])
            .map(|name| self.dir.join(name))
            .collect();
        if let Some(there) = dirs.iter().find(|dir| dir.exists()) {
            return Err(SetupError::Exists(there.clone()));
        }
        self.make_all().inspect_err(|_| {
            // Half of it is of no use, and would be in the way of the next attempt.
            dirs.iter().for_each(|dir| _ = fs::remove_dir_all(dir));
        })
    }

    fn make_all(&self) -> Result<Made, SetupError> {
        let authority = certs::Authority::make()?;
        let clients = authority.c2s(&self.client_names())?;
        let ca = self.dir.join("ca");
        make_dir(&ca)?;
        write(&ca.join("ca.pem"), &authority.pem, 0o644)?;
        write(&ca.join("ca.key"), &authority.key_pem(), 0o600)?;
        let secret = format!("{}\ncluster {}\n", random_hex()?, &random_hex()?[..16]);
        let made = self.nodes.iter().map(|node| self.make_node(node, &authority, &clients, &secret));
        let nodes = made.collect::<Result<_, _>>()?;
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let data = self.overrides.get("node.data").and_then(toml::Value::as_str).unwrap_or("data");
        let witness =
            self.witness.as_ref().map(|w| make_witness(&self.dir, w.listen, &names, data, &authority));
        let witness = witness.transpose()?;
        Ok(Made { ca: ca.join("ca.pem"), nodes, witness })
    }

    fn make_node(
        &self,
        node: &NodePlan,
        authority: &certs::Authority,
        clients: &certs::Certificate,
        secret: &str,
    ) -> Result<MadeNode, SetupError> {
        let dir = self.dir.join(&node.name);
        make_dir(&dir)?;
        write(&dir.join("c2s.pem"), &clients.chain, 0o644)?;
        write(&dir.join("c2s.key"), &clients.key, 0o600)?;
        write(&dir.join("admin.token"), &format!("{}\n", random_hex()?), 0o600)?;
        if self.peer_of(node).is_some() {
            let link = authority.link(&node.name)?;
            write(&dir.join("link.pem"), &link.chain, 0o644)?;
            write(&dir.join("link.key"), &link.key, 0o600)?;
            write(&dir.join("ca.pem"), &authority.pem, 0o644)?;
            write(&dir.join("secret"), secret, 0o600)?;
        }
        let path = dir.join("tandem.toml");
        write(&path, &self.file_of(node), 0o644)?;

        let config = Config::load(&path)?;
        config.check_files()?;
        Ok(MadeNode {
            name: node.name.clone(),
            config: path,
            c2s: from_here(config.c2s.starttls),
            c2s_tls: from_here(config.c2s.direct),
            admin: config.admin.listen,
            token_file: config.admin.token_file,
        })
    }

    /// All names under which clients may know a node: the pair shares one certificate.
    fn client_names(&self) -> Vec<String> {
        let mut names = vec![self.domain.clone()];
        let nodes = self.nodes.iter().flat_map(|node| [node.name.clone(), node.host.clone()]);
        for name in nodes.chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn peer_of(&self, node: &NodePlan) -> Option<&NodePlan> {
        self.nodes.iter().find(|other| other.name != node.name)
    }

    /// Text of a node's configuration file.
    fn file_of(&self, node: &NodePlan) -> String {
        let ports = node.ports;
        let at = |port| SocketAddr::new(node.listen, port).to_string();
        let mut file = File::default();
        file.section("node").put("name", node.name.as_str()).put("domains", vec![self.domain.as_str()]);
        if let Some(peer) = self.peer_of(node) {
            file.section("peer").put("name", peer.name.as_str()).put("host", peer.host.as_str());
            if peer.ports != ports {
                let link = config::with_port(&peer.host, peer.ports.link);
                file.put("c2s", i64::from(peer.ports.direct)).put("link", link);
            }
        }
        file.section("c2s").put("starttls", at(ports.starttls)).put("direct", at(ports.direct));
        file.put("cert", "c2s.pem").put("key", "c2s.key");
        if self.peer_of(node).is_some() {
            file.section("link").put("listen", at(ports.link)).put("cert", "link.pem").put("key", "link.key");
            file.put("ca", "ca.pem").put("secret", "secret");
        }
        if let Some(witness) = &self.witness {
            file.put("policy", config::Policy::Witness.as_str());
            let address = config::with_port(&witness.host, witness.listen.port());
            file.section("witness").put("address", address);
        }
        file.section("admin")
            .put("listen", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports.admin).to_string());
        for (key, value) in &self.overrides {
            let (section, name) = key.split_once('.').unwrap_or((key, ""));
            file.section(section).put(name, value.clone());
        }
        file.text()
    }
}

/// The rules without the file, which is not there any more.
fn planned(error: &ConfigError) -> String {
    match error.faults() {
        [] => error.to_string(),
        faults => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// A configuration file in the making.
#[derive(Default)]
struct File {
    sections: Vec<(String, Vec<(String, toml::Value)>)>,
    /// The section that is written to.
    at: usize,
}

impl File {
    fn section(&mut self, name: &str) -> &mut Self {
        self.at = self.sections.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.sections.push((name.into(), Vec::new()));
            self.sections.len() - 1
        });
        self
    }

    fn put(&mut self, name: &str, value: impl Into<toml::Value>) -> &mut Self {
        let keys = &mut self.sections[self.at].1;
        keys.retain(|(known, _)| known != name);
        keys.push((name.into(), value.into()));
        self
    }

    fn text(&self) -> String {
        let mut text = "# The configuration of one node. What is not written, or has a # before it, has the default shown. \
                        Check changes\n# with `tandem config check`; a running node takes most of them up by itself, and \
                        its log says so.\n"
            .to_owned();
        let others = ["srm", "store", "limits"].map(|name| (name.to_owned(), Vec::new()));
        let missing = |(name, _): &(String, Vec<_>)| !self.sections.iter().any(|(known, _)| known == name);
        let sections = self.sections.iter().cloned().chain(others.into_iter().filter(missing));
        for (name, keys) in sections {
            text.push('\n');
            let mut lines = config::about_section(&name);
            lines.push(format!("[{name}]"));
            for (key, value) in &keys {
                lines.extend(config::commented(&name, key));
                lines.push(format!("{key} = {value}"));
            }
            let set: Vec<String> = keys.into_iter().map(|(key, _)| key).collect();
            lines.extend(config::defaults(&name, &set));
            lines.iter().for_each(|line| text.extend([line, "\n"]));
        }
        text
    }
}

/// Where this machine reaches what listens on `address`.
pub(crate) fn from_here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        // Tandem's IPv6 wildcard takes IPv4 too.
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// 32 random bytes in hexadecimal digits.
fn random_hex() -> Result<String, SetupError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SetupError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the directory of a witness of these nodes, in that of the cluster.
fn make_witness(
    dir: &Path,
    listen: SocketAddr,
    nodes: &[&str],
    data: &str,
    authority: &certs::Authority,
) -> Result<PathBuf, SetupError> {
    let dir = dir.join(WITNESS);
    make_dir(&dir)?;
    let link = authority.link(WITNESS)?;
    write(&dir.join("link.pem"), &link.chain, 0o644)?;
    write(&dir.join("link.key"), &link.key, 0o600)?;
    write(&dir.join("ca.pem"), &authority.pem, 0o644)?;
    let path = dir.join("witness.toml");
    let text = format!(
        "# The configuration of a witness, for `tandem witness`. It reads its certificate, key and authority again when\n\
         # they change; everything else when it starts.\n\n[witness]\n# Address it listens on.\n\
         listen = \"{listen}\"\n# Names of the two nodes, as in their own [node].\nnodes = {nodes:?}\n\
         # Folder of the registers.\ndata = {data:?}\n# Its certificate, which bears the name {WITNESS:?}, its private \
         key, and the cluster's authority.\ncert = \"link.pem\"\nkey = \"link.key\"\nca = \"ca.pem\"\n"
    );
    write(&path, &text, 0o644)?;
    config::WitnessConfig::load(&path)?;
    Ok(path)
}

fn make_dir(path: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(path).map_err(|source| SetupError::Write { path: path.into(), source })
}

/// Writes a file that must not be there yet, with these permissions from its first moment.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), SetupError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| SetupError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests;
