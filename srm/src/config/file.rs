//! From the text of the file to a configuration: defaults, paths, files that hold secrets.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::{self, Faults};
use super::error::{ConfigError, Source};
use super::link::{Commit, Link, Peer, Policy, Secret, with_port};
use super::{Admin, C2s, Config, Limits, Node, Srm, Store};

/// Where a configuration is looked for when none is named, in this order.
pub const LOOKED_AT: [&str; 2] = ["tandem.toml", "/etc/tandem/tandem.toml"];
/// Shortest admin token in bytes.
const TOKEN_BYTES: usize = 16;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: Node,
    peer: Option<PeerFile>,
    c2s: C2s,
    link: Option<LinkFile>,
    #[serde(default)]
    srm: Srm,
    #[serde(default)]
    admin: Admin,
    #[serde(default)]
    store: Store,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerFile {
    name: String,
    host: String,
    c2s: Option<u16>,
    link: Option<String>,
    beacon: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    #[serde(default = "default_link")]
    listen: SocketAddr,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    secret: String,
    #[serde(default)]
    commit: Commit,
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
    let text = read(path)?;
    let source = Source::new(&text);
    let refused = |faults| ConfigError::Refused { path: path.into(), faults };
    let file: File = toml::from_str(&text).map_err(|error| refused(vec![source.fault(&error)]))?;

    let base = path.parent().unwrap_or(Path::new(""));
    let mut faults = Faults::new(&source);
    let link = file.link.map(|link| link.resolve(base, &mut faults));
    let link_port = link.as_ref().map_or(default_link().port(), |link| link.listen.port());
    let mut config = Config {
        path: path.into(),
        peer: file.peer.map(|peer| peer.resolve(file.c2s.direct.port(), link_port)),
        node: Node { data: base.join(&file.node.data), ..file.node },
        c2s: C2s { cert: base.join(&file.c2s.cert), key: base.join(&file.c2s.key), ..file.c2s },
        link,
        srm: file.srm,
        admin: Admin { token_file: base.join(&file.admin.token_file), ..file.admin },
        store: file.store,
        limits: file.limits,
    };
    check::rules(&mut config, &mut faults);
    match faults.done() {
        faults if faults.is_empty() => Ok(config),
        faults => Err(refused(faults)),
    }
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
        Link {
            listen: self.listen,
            cert: base.join(self.cert),
            key: base.join(self.key),
            ca: base.join(self.ca),
            secret: secret.unwrap_or(Secret::NONE),
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
                let problem = format!("{} does not hold 64 hexadecimal digits", path.display());
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
fn read_private(path: &Path) -> Result<String, (String, String)> {
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
