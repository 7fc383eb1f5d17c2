//! From the text of the file to a configuration: defaults, paths, files that hold secrets.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::BareJid;

use super::check::{self, Faults};
use super::error::{ConfigError, Source};
use super::etcd::EtcdFile;
use super::link::{Commit, Link, Peer, Policy, Secret, with_port};
use super::notify::{self, NotifyFile};
use super::{Admin, C2s, Config, Limits, Node, Srm, Store, WitnessAt};

/// Where a configuration is looked for when none is named, in this order.
pub const LOOKED_AT: [&str; 2] = ["tandem.toml", "/etc/tandem/tandem.toml"];
/// Shortest admin token in bytes.
const TOKEN_BYTES: usize = 16;

/// The file as it is written. Its comments, and those of its sections, are the reference that operators read.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    node: Node,
    peer: Option<PeerFile>,
    c2s: C2s,
    link: Option<LinkFile>,
    witness: Option<WitnessAt>,
    etcd: Option<EtcdFile>,
    #[serde(default)]
    srm: Srm,
    #[serde(default)]
    admin: Admin,
    #[serde(default)]
    store: Store,
    #[serde(default)]
    limits: Limits,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notify: Vec<NotifyFile>,
}

/// `[peer]`: the other node. Without it this is a single node.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PeerFile {
    /// Its name, as in its own `[node]`. No default.
    name: String,
    /// Host name or address at which both its clients and this node reach it. No default.
    host: String,
    /// Its port for clients that begin with TLS, told to clients for their standby connection. Default: this node's.
    c2s: Option<u16>,
    /// Where its link is dialled, `HOST:PORT`. Default: `host` and the port of this node's `[link] listen`.
    link: Option<String>,
    /// Where its beacons are sent (UDP), `HOST:PORT`. Default: as `link`.
    beacon: Option<String>,
}

/// `[link]`: the connection between the nodes.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    /// Address it listens on, TCP for the link and UDP for beacons; the life socket takes the port above. Default
    /// `[::]:22001`.
    #[serde(default = "default_link")]
    listen: SocketAddr,
    /// PEM file of this node's certificate for the link, which must bear the node's name. No default.
    cert: PathBuf,
    /// PEM file of its private key. No default.
    key: PathBuf,
    /// PEM file of the cluster's authority, which signed both nodes' certificates; of the old and the new one while it
    /// is being replaced. No default.
    ca: PathBuf,
    /// The cluster's secret: the name of a file that holds 64 hexadecimal digits, the same on both nodes, or the digits.
    /// `tandem renew secret` replaces it. No default.
    #[serde(skip_serializing)]
    secret: String,
    /// When the peer says that it has a change: `"peer"`, when it is written there, or `"peer-and-disk"`, when it is
    /// on its disk. Default `"peer"`. Clusterwide.
    #[serde(default)]
    commit: Commit,
    /// What a node may do alone when it loses its peer: `"strict+witness"`, what the witness grants; `"available"`, go on
    /// and merge later; or `"strict"`, wait for the operator. Default `"available"`. Clusterwide.
    #[serde(default)]
    policy: Policy,
}

fn default_link() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, 22_001).into()
}

/// The configuration that a command works with: `cli` (`-c`), else the first of [`LOOKED_AT`] that is there.
pub fn find(cli: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = cli {
        return Ok(path.to_owned());
    }
    let looked: Vec<PathBuf> = LOOKED_AT.iter().map(PathBuf::from).collect();
    looked.iter().find(|path| path.is_file()).cloned().ok_or(ConfigError::NotFound { looked })
}

pub(super) fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(path, &read(path)?)
}

/// The same of a text that would stand in that file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let source = Source::new(text);
    let refused = |faults| ConfigError::Refused { path: path.into(), faults };
    let file: File = toml::from_str(text).map_err(|error| refused(vec![source.fault(&error)]))?;

    let settings = settings(&file);
    let base = path.parent().unwrap_or(Path::new(""));
    let mut faults = Faults::new(&source);
    let link = file.link.map(|link| link.resolve(base, &mut faults));
    let link_port = link.as_ref().map_or(default_link().port(), |link| link.listen.port());
    let etcd = file.etcd.map(|etcd| etcd.resolve(base, link.as_ref(), &mut faults));
    // In the form in which addresses are compared; one that cannot be is refused below.
    let domain = file.node.domains.first().and_then(|domain| BareJid::new(None, domain).ok());
    let domain = domain.as_ref().map(|jid| jid.domain());
    let notify = notify::resolve(file.notify, base, domain, &mut faults);
    let mut config = Config {
        path: path.into(),
        settings,
        peer: file.peer.map(|peer| peer.resolve(file.c2s.direct.port(), link_port)),
        node: Node { data: base.join(&file.node.data), ..file.node },
        c2s: C2s { cert: base.join(&file.c2s.cert), key: base.join(&file.c2s.key), ..file.c2s },
        link,
        witness: file.witness,
        etcd,
        srm: file.srm,
        admin: Admin { token_file: base.join(&file.admin.token_file), ..file.admin },
        store: file.store,
        limits: file.limits,
        notify,
    };
    check::rules(&mut config, &mut faults);
    match faults.done() {
        faults if faults.is_empty() => Ok(config),
        faults => Err(refused(faults)),
    }
}

/// All settings with their values, defaults filled in, by `section.key`; without the secret. Of `[[notify]]` a digest.
fn settings(file: &File) -> BTreeMap<String, String> {
    let sections = toml::Table::try_from(file).unwrap_or_default();
    let keys = sections.iter().filter_map(|(section, keys)| Some((section, keys.as_table()?)));
    let keys = keys.flat_map(|(section, keys)| {
        keys.iter().map(move |(key, value)| (format!("{section}.{key}"), value.to_string()))
    });
    let mut all: BTreeMap<String, String> = keys.collect();
    // An URL may hold a secret: whether they are the same is all that anybody needs to know.
    if let Some(notify) = sections.get("notify") {
        let sum = ring::digest::digest(&ring::digest::SHA256, notify.to_string().as_bytes());
        all.insert("notify".into(), format!("{sum:?}"));
    }
    all
}

impl PeerFile {
    fn resolve(self, direct: u16, link_port: u16) -> Peer {
        let link = self.link.unwrap_or_else(|| with_port(&self.host, link_port));
        Peer {
            name: self.name,
            c2s: self.c2s.unwrap_or(direct),
            beacon: self.beacon.unwrap_or_else(|| link.clone()),
            link,
            host: self.host,
        }
    }
}

impl LinkFile {
    /// Where the secret cannot be had there is a fault, so that the one made up here is never used.
    fn resolve(self, base: &Path, faults: &mut Faults<'_>) -> Link {
        let secret = read_secret(&self.secret, base, faults);
        let secret_file = Secret::parse(&self.secret).is_none().then(|| base.join(&self.secret));
        Link {
            listen: self.listen,
            cert: base.join(self.cert),
            key: base.join(self.key),
            ca: base.join(self.ca),
            secret: secret.unwrap_or_else(Secret::none),
            secret_file,
            commit: self.commit,
            policy: self.policy,
        }
    }
}

fn read_secret(value: &str, base: &Path, faults: &mut Faults<'_>) -> Option<Secret> {
    const MAKE: &str =
        "write 64 hexadecimal digits, the same on both nodes (`openssl rand -hex 32` makes some)";
    if let Some(secret) = Secret::parse(value) {
        return Some(secret);
    }
    if value.len() > 20 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let problem = format!("has {} hexadecimal digits where 64 are needed", value.len());
        faults.add("link.secret", problem, MAKE);
        return None;
    }
    let path = base.join(value);
    match read_private(&path) {
        Ok(text) => {
            let secret = Secret::parse(&text);
            if secret.is_none() {
                let problem = format!(
                    "{} does not hold 64 hexadecimal digits, beside at most a line `next` or `old` with 64 more and a \
                     line `cluster` with 16",
                    path.display()
                );
                faults.add("link.secret", problem, MAKE);
            }
            secret
        }
        Err((problem, hint)) => {
            faults.add("link.secret", problem, hint);
            None
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|reason| ConfigError::Unreadable { path: path.into(), reason })
}

/// Reads a file that only its owner (and group) may read. What is wrong with it, and what to do, is for the operator.
pub(super) fn read_private(path: &Path) -> Result<String, (String, String)> {
    let file = path.display();
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => format!(
                "make it, or name another; the name is relative to the \
                configuration file, which makes it {file}"
            ),
            io::ErrorKind::PermissionDenied => "run as the user that the node runs as, or as root".to_owned(),
            _ => "make it readable".to_owned(),
        };
        (format!("{file} cannot be read: {error}"), hint)
    };
    let mode = std::fs::metadata(path).map_err(unreadable)?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::mode(&mode) & 0o007 != 0 {
        return Err((
            format!("{file} is open to every user of this machine"),
            format!("run `chmod 600 {file}`"),
        ));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads the admin token; the text of an error says what is wrong with the file and what to do.
pub fn read_token(path: &Path) -> Result<String, String> {
    let text = read_private(path).map_err(|(problem, hint)| format!("{problem}; {hint}"))?;
    let token = text.trim();
    let sound = token.len() >= TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
    if sound {
        return Ok(token.to_owned());
    }
    Err(format!(
        "{} does not hold a token of at least {TOKEN_BYTES} letters and digits; write one (`openssl rand -hex 32` \
         makes one) and restart the node",
        path.display()
    ))
}

/// What a command needs to reach a node.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    /// Address of the admin API.
    pub address: SocketAddr,
    /// File with its token.
    pub token_file: PathBuf,
}

/// Reads `[admin]` alone: it works on a file whose other parts are damaged, or whose secrets the operator may not read.
pub fn admin_access(path: &Path) -> Result<AdminAccess, ConfigError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        admin: Admin,
    }
    let text = read(path)?;
    let part: Part = toml::from_str(&text).map_err(|error| ConfigError::Refused {
        path: path.into(),
        faults: vec![Source::new(&text).fault(&error)],
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    Ok(AdminAccess { address: part.admin.listen, token_file: base.join(part.admin.token_file) })
}
