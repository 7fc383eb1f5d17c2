//! A single node becomes one of two. Works on the directory that `tandem init` made.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, Value};

use super::renew::{authority_of, nodes, read, replace};
use super::{NodePlan, Ports, SetupError, certs, random_hex, write};
use crate::config::{self, Config};

/// What was made and changed.
#[derive(Debug)]
pub struct Grown {
    /// Configuration file of the new node, for `tandem serve -c`.
    pub new: PathBuf,
    /// That of the node that was alone.
    pub old: PathBuf,
    /// Certificates for clients that another authority signed, and that must name the new node too.
    pub foreign: Option<PathBuf>,
}

/// Gives the single node, which is reached at `host` and whose link is to listen at `link`, a second one as its peer. Nothing
/// is left of it if that fails.
pub fn pair(dir: &Path, host: &str, link: SocketAddr, new: &NodePlan) -> Result<Grown, SetupError> {
    let (old, config) = alone(dir)?;
    let unfit = |problem: String, hint: &str| SetupError::Unfit {
        path: old.join("tandem.toml"),
        problem,
        hint: hint.to_owned(),
    };
    if let Some(fault) = config::name_fault(&new.name) {
        return Err(unfit(format!("{}: {}", new.name, fault.problem), &fault.hint));
    }
    if new.name <= config.node.name {
        let problem = format!("{} is not behind {} in the alphabet", new.name, config.node.name);
        return Err(unfit(
            problem,
            "give the new node a name that is: what the old one holds is in that order",
        ));
    }
    let made = dir.join(&new.name);
    if made.exists() {
        return Err(SetupError::Exists(made));
    }
    let fresh: Vec<PathBuf> =
        ["link.pem", "link.key", "ca.pem", "secret"].map(|name| old.join(name)).into_iter().collect();
    if let Some(there) = fresh.iter().find(|file| file.exists()) {
        return Err(SetupError::Exists(there.clone()));
    }
    let kept = [old.join("tandem.toml"), config.c2s.cert.clone(), config.c2s.key.clone()];
    let before: Vec<Option<String>> = kept.iter().map(|file| fs::read_to_string(file).ok()).collect();
    make(dir, &old, &config, host, link, new).inspect_err(|_| {
        fresh.iter().for_each(|file| _ = fs::remove_file(file));
        let _ = fs::remove_dir_all(&made);
        for (file, text) in kept.iter().zip(&before).filter(|(file, _)| file.starts_with(&old)) {
            let mode = if file.extension().is_some_and(|kind| kind == "key") { 0o600 } else { 0o644 };
            text.iter().for_each(|text| _ = replace(file, text, mode));
        }
    })
}

/// The only node there is, and what its file says.
fn alone(dir: &Path) -> Result<(PathBuf, Config), SetupError> {
    let mut nodes = nodes(dir)?;
    let what = "single node; a pair has its second one already";
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) if node.join("tandem.toml").is_file() => {
            let config = Config::load(&node.join("tandem.toml"))?;
            match config.peer {
                None => Ok((node, config)),
                Some(_) => Err(SetupError::Nothing { dir: dir.into(), what }),
            }
        }
        _ => Err(SetupError::Nothing { dir: dir.into(), what }),
    }
}

fn make(
    dir: &Path,
    old: &Path,
    config: &Config,
    host: &str,
    link: SocketAddr,
    new: &NodePlan,
) -> Result<Grown, SetupError> {
    let authority = authority_of(dir, "ca.key", &read(&dir.join("ca/ca.pem"))?)?;
    let made = dir.join(&new.name);
    super::make_dir(&made)?;
    let secret = format!("{}\ncluster {}\n", random_hex()?, &random_hex()?[..16]);
    for (node, name) in [(old, config.node.name.as_str()), (&made, new.name.as_str())] {
        let link = authority.link(name)?;
        write(&node.join("link.pem"), &link.chain, 0o644)?;
        write(&node.join("link.key"), &link.key, 0o600)?;
        write(&node.join("ca.pem"), &authority.pem, 0o644)?;
        write(&node.join("secret"), &secret, 0o600)?;
    }
    write(&made.join("admin.token"), &format!("{}\n", random_hex()?), 0o600)?;
    let foreign = clients(old, config, &made, &authority, [host, &new.name, &new.host])?;

    let ports = Ports {
        starttls: config.c2s.starttls.port(),
        direct: config.c2s.direct.port(),
        link: link.port(),
        admin: config.admin.listen.port(),
    };
    let file = old.join("tandem.toml");
    let text = read(&file)?;
    let mut other: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| SetupError::Unfit {
        path: file.clone(),
        problem: error.to_string(),
        hint: "correct the file first; `tandem config check` checks it".to_owned(),
    })?;
    // At the end: what is commented out there belongs to the section above it.
    let this = text.clone() + &peer((&new.name, &new.host, new.ports), ports, link);
    let that = peer((&config.node.name, host, ports), new.ports, (new.listen, new.ports.link).into());
    put(&mut other, "node", "name", new.name.as_str());
    put(&mut other, "c2s", "starttls", SocketAddr::new(new.listen, new.ports.starttls).to_string());
    put(&mut other, "c2s", "direct", SocketAddr::new(new.listen, new.ports.direct).to_string());
    let admin = SocketAddr::new(config.admin.listen.ip(), new.ports.admin).to_string();
    put(&mut other, "admin", "listen", admin);
    replace(&file, &this, 0o644)?;
    let second = made.join("tandem.toml");
    write(&second, &(other.to_string() + &that), 0o644)?;
    for file in [&file, &second] {
        let config = Config::load(file)?;
        // A certificate that is somewhere else may be on other machines only.
        if foreign.is_none() {
            config.check_files()?;
        }
    }
    Ok(Grown { new: second, old: file, foreign })
}

/// Both nodes show clients one certificate, with the names of both. One that another authority signed stays, and the new node gets
/// it too if it is in the node's folder.
fn clients(
    old: &Path,
    config: &Config,
    made: &Path,
    authority: &certs::Authority,
    more: [&str; 3],
) -> Result<Option<PathBuf>, SetupError> {
    let (cert, key) = (&config.c2s.cert, &config.c2s.key);
    if !cert.starts_with(old) || !key.starts_with(old) {
        return Ok(Some(cert.clone()));
    }
    let (text, secret) = (read(cert)?, read(key)?);
    let beside = |file: &Path| made.join(file.file_name().unwrap_or_default());
    if !authority.has_signed(&text) {
        write(&beside(key), &secret, 0o600)?;
        write(&beside(cert), &text, 0o644)?;
        return Ok(Some(cert.clone()));
    }
    let mut names = certs::names(&text);
    for name in more {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    let both = authority.c2s(&names)?;
    replace(key, &both.key, 0o600)?;
    replace(cert, &both.chain, 0o644)?;
    write(&beside(key), &both.key, 0o600)?;
    write(&beside(cert), &both.chain, 0o644)?;
    Ok(None)
}

/// The sections of one of two nodes. `peer`: name, host and ports of the other; `ports`: those of this one.
fn peer(peer: (&str, &str, Ports), ports: Ports, link: SocketAddr) -> String {
    let mut file = DocumentMut::new();
    section(&mut file, "peer", "# The other node of the pair.");
    put(&mut file, "peer", "name", peer.0);
    put(&mut file, "peer", "host", peer.1);
    if peer.2 != ports {
        put(&mut file, "peer", "c2s", i64::from(peer.2.direct));
        put(&mut file, "peer", "link", config::with_port(peer.1, peer.2.link));
    }
    section(&mut file, "link", "# The link between the nodes.");
    put(&mut file, "link", "listen", link.to_string());
    for (key, name) in [("cert", "link.pem"), ("key", "link.key"), ("ca", "ca.pem"), ("secret", "secret")] {
        put(&mut file, "link", key, name);
    }
    file.to_string()
}

fn section(file: &mut DocumentMut, name: &str, about: &str) {
    let mut table = Table::new();
    table.decor_mut().set_prefix(format!("\n{about}\n"));
    file.entry(name).or_insert(Item::Table(table));
}

fn put(file: &mut DocumentMut, section: &str, key: &str, value: impl Into<Value>) {
    if let Some(table) = file.entry(section).or_insert(Item::Table(Table::new())).as_table_like_mut() {
        table.insert(key, Item::Value(value.into()));
    }
}
