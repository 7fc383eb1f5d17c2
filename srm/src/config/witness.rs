//! The witness: how a node reaches it, and the configuration of the witness itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{self, Faults};
use super::error::{ConfigError, Source};
use super::link::split_port;

/// `[witness]`: the third process that decides which node goes on when they cannot see each other. It is asked under
/// the policy `"strict+witness"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WitnessAt {
    /// Where it is dialled, `HOST:PORT`. No default.
    pub address: String,
    /// Its name, which its certificate bears. Default `"witness"`.
    #[serde(default = "default_name")]
    pub name: String,
}

/// What a witness is told: the file of `tandem witness`.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// The file it was read from.
    pub path: PathBuf,
    /// Its name, which its certificate bears.
    pub name: String,
    /// Address it listens on.
    pub listen: SocketAddr,
    /// Names of the two nodes, sorted.
    pub nodes: [String; 2],
    /// Folder of the registers.
    pub data: PathBuf,
    /// PEM file of its certificate.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the cluster's authority.
    pub ca: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    witness: Section,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default = "default_name")]
    name: String,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    nodes: Vec<String>,
    #[serde(default = "super::default_data")]
    data: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

fn default_name() -> String {
    "witness".into()
}

/// Port of a witness that says nothing else.
pub const WITNESS_PORT: u16 = 22_011;

fn default_listen() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, WITNESS_PORT).into()
}

impl WitnessAt {
    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        if split_port(&self.address).is_none() {
            let problem = format!("{:?} is not HOST:PORT", self.address);
            faults.add("witness.address", problem, "write it such as \"w.example.org:22011\"");
        }
        named("witness.name", &self.name, faults);
    }

    /// For TLS.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.name.clone()).ok()
    }
}

fn named(key: &str, name: &str, faults: &mut Faults<'_>) {
    if let Some(fault) = super::name_fault(name) {
        faults.add(key, fault.problem, fault.hint);
    }
}

impl WitnessConfig {
    /// Reads and checks the file, and the certificates that it names.
    pub fn load(path: &Path) -> Result<WitnessConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Unreadable { path: path.into(), reason })?;
        let source = Source::new(&text);
        let refused = |faults| ConfigError::Refused { path: path.into(), faults };
        let file: File = toml::from_str(&text).map_err(|error| refused(vec![source.fault(&error)]))?;
        let mut faults = Faults::new(&source);
        let base = path.parent().unwrap_or(Path::new(""));
        let config = file.witness.resolve(path, base, &mut faults);
        let (cert, key, ca) = (&config.cert, &config.key, &config.ca);
        check::link_files("witness", [cert, key, ca], &config.name, &mut faults);
        match faults.done() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(refused(faults)),
        }
    }
}

impl Section {
    fn resolve(self, path: &Path, base: &Path, faults: &mut Faults<'_>) -> WitnessConfig {
        named("witness.name", &self.name, faults);
        let mut nodes = self.nodes;
        nodes.sort_unstable();
        for node in &nodes {
            named("witness.nodes", node, faults);
        }
        let two = matches!(nodes.as_slice(), [a, b] if !a.eq_ignore_ascii_case(b));
        if !two {
            let hint = "name the two nodes of the pair, as in their own [node], such as [\"a\", \"b\"]";
            faults.add("witness.nodes", format!("{nodes:?} are not two nodes"), hint);
        } else if nodes.contains(&self.name) {
            faults.add("witness.name", "a node has this name", "give the witness its own");
        }
        if self.listen.port() == 0 {
            faults.add("witness.listen", "port 0 is no port", "choose one from 1 to 65535");
        }
        let mut nodes = nodes.into_iter();
        WitnessConfig {
            path: path.into(),
            name: self.name,
            listen: self.listen,
            nodes: [nodes.next().unwrap_or_default(), nodes.next().unwrap_or_default()],
            data: base.join(self.data),
            cert: base.join(self.cert),
            key: base.join(self.key),
            ca: base.join(self.ca),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.toml");
        std::fs::write(&path, text).unwrap();
        WitnessConfig::load(&path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told_with_its_line() {
        let files = "cert = \"c\"\nkey = \"k\"\nca = \"a\"\n";
        let said = faults(&format!("[witness]\nnodes = [\"a\"]\n{files}"));
        assert!(said.contains("toml:2: witness.nodes: [\"a\"] are not two nodes; name the two"), "{said}");
        assert!(said.contains("toml:3: witness.cert"), "{said}");
        let said = faults(&format!("[witness]\nnodes = [\"witness\", \"b\"]\n{files}"));
        assert!(said.contains("a node has this name"), "{said}");
        let said = faults(&format!("[witness]\nnodes = [\"a\", \"b\"]\nport = 7\n{files}"));
        assert!(said.contains("unknown field `port`"), "{said}");
    }
}
