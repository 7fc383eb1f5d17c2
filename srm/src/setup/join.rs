//! A node that exists is given its peer, and parted from it: what changes in its own configuration file, and which files come
//! beside it. Each file is replaced whole and the configuration last: whoever is interrupted begins again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use toml_edit::DocumentMut;

use super::renew::read;
use super::{SetupError, certs};
use crate::config::Config;

/// What stands in the file of a node that has a peer, and of no other.
const SECTIONS: [&str; 4] = ["peer", "link", "witness", "etcd"];

/// A node's configuration as it is to be, which is not written yet.
#[derive(Debug)]
pub struct Change {
    /// What the node is to be run with.
    pub config: Config,
    /// The other node's file beside that of this one, where there is one.
    pub other: Option<Config>,
    file: PathBuf,
    text: String,
    /// From where, to where, and who may read it.
    copies: Vec<(PathBuf, PathBuf, u32)>,
}

/// What the node whose configuration is `file` needs to have the peer that `tandem extend pair` made in `dir`. All other
/// settings stay.
///
/// # Errors
/// The files do not fit together, or belong to another node.
pub fn with_peer(file: &Path, dir: &Path) -> Result<Change, SetupError> {
    let current = Config::load(file)?;
    let made = dir.join(&current.node.name).join("tandem.toml");
    if !made.is_file() {
        return Err(SetupError::Nothing { dir: dir.into(), what: "folder of this node" });
    }
    let folder = made.parent().unwrap_or(dir);
    let new = Config::load(&made)?;
    let Some((peer, link)) = new.pair() else {
        let hint = format!("make it first: `tandem extend pair {}=HOST NAME=HOST --dir DIR`", new.node.name);
        return Err(unfit(&made, "it names no other node", &hint));
    };
    new.check_files()?;
    if let Some(named) = current.peer.as_ref().filter(|named| named.name != peer.name) {
        let problem = format!("it names the node {}, and {} names {}", named.name, made.display(), peer.name);
        return Err(unfit(
            file,
            &problem,
            "name the directory in which that pair was made, or part the nodes first: `tandem unpair`",
        ));
    }
    if current.node.domains != new.node.domains {
        let (here, there) = (current.node.domains.join(", "), new.node.domains.join(", "));
        let problem = format!("it is for the domain {here}, and {} for {there}", made.display());
        return Err(unfit(
            file,
            &problem,
            "both nodes serve the same domains: make them equal in all three files",
        ));
    }
    let target = file.parent().unwrap_or(Path::new(""));
    let beside = |from: &Path, mode| {
        let within = from.strip_prefix(folder).ok()?;
        Some((from.to_owned(), target.join(within), mode))
    };
    let mut copies: Vec<_> = [(&link.cert, 0o644), (&link.key, 0o600), (&link.ca, 0o644)]
        .into_iter()
        .chain(link.secret_file.as_ref().map(|file| (file, 0o600)))
        .filter_map(|(from, mode)| beside(from, mode))
        .collect();
    // One that the operator has from elsewhere stays.
    let authority = read(&link.ca)?;
    let ours = |cert: &Path| read(cert).map(|text| certs::is_signed_by(&text, &authority));
    if ours(&current.c2s.cert)? && ours(&new.c2s.cert)? {
        copies.push((new.c2s.key.clone(), current.c2s.key.clone(), 0o600));
        copies.push((new.c2s.cert.clone(), current.c2s.cert.clone(), 0o644));
    }
    copies.retain(|(from, to, _)| from != to);
    let text = if current.peer.is_some() { read(file)? } else { joined(&read(file)?, &made)? };
    let mut config = current;
    config.peer = Some(peer.clone());
    config.link = Some(link.clone());
    config.witness.clone_from(&new.witness);
    config.etcd.clone_from(&new.etcd);
    let other = Config::load(&dir.join(&peer.name).join("tandem.toml")).ok();
    Ok(Change { config, other, file: file.into(), text, copies })
}

/// What the node whose configuration is `file` needs to be alone. The files that the link had stay where they are: without its
/// secret the node joins no other any more.
///
/// # Errors
/// The file cannot be read, or what is left of it breaks a rule.
pub fn without_peer(file: &Path) -> Result<Change, SetupError> {
    let mut config = Config::load(file)?;
    let mut document = parsed(file)?;
    SECTIONS.iter().for_each(|section| _ = document.remove(section));
    (config.peer, config.link, config.witness, config.etcd) = (None, None, None, None);
    Ok(Change { config, other: None, file: file.into(), text: document.to_string(), copies: Vec::new() })
}

impl Change {
    /// Writes it; the same once more changes nothing.
    ///
    /// # Errors
    /// A file cannot be written, or the configuration breaks a rule with them: then it stays as it was.
    pub fn write(&self) -> Result<(), SetupError> {
        for (from, to, mode) in &self.copies {
            let new = self.put(to, &read(from)?, *mode)?;
            fs::rename(&new, to).map_err(|source| SetupError::Write { path: to.clone(), source })?;
        }
        let failed = |source: io::Error| SetupError::Write { path: self.file.clone(), source };
        let mode = fs::metadata(&self.file).map_err(failed)?.mode() & 0o777;
        let new = self.put(&self.file, &self.text, mode)?;
        let sound = Config::load(&new).and_then(|config| config.check_files());
        if let Err(error) = sound {
            let _ = fs::remove_file(&new);
            return Err(error.into());
        }
        fs::rename(&new, &self.file).map_err(failed)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// The settings that both nodes must have the same and that differ in their files, a sentence each.
    pub fn differences(&self) -> Vec<String> {
        let Some(other) = &self.other else { return Vec::new() };
        let there = other.clusterwide();
        let differs = |(key, here): (&str, String)| {
            let value = there.iter().find(|(known, _)| *known == key).map(|(_, value)| value)?;
            let (a, b) = (&self.config.node.name, &other.node.name);
            (*value != here).then(|| format!("{key} is {here} at {a} and {value} at {b}"))
        };
        self.config.clusterwide().into_iter().filter_map(differs).collect()
    }

    /// Writes the text on the disk beside `to`, for whoever owns the configuration: a node that does not run as root must be
    /// able to read it. Gives the file that is to be put in the place of `to`.
    fn put(&self, to: &Path, text: &str, mode: u32) -> Result<PathBuf, SetupError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = to.with_file_name(name);
        let write = || {
            let owner = fs::metadata(&self.file)?;
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            chown(&new, Some(owner.uid()), Some(owner.gid()))?;
            file.sync_all()
        };
        write().map_err(|source| SetupError::Write { path: to.into(), source })?;
        Ok(new)
    }
}

/// The file's text, with the sections that the other file has behind it.
fn joined(text: &str, made: &Path) -> Result<String, SetupError> {
    let there = parsed(made)?;
    let mut sections = DocumentMut::new();
    for name in SECTIONS {
        if let Some(section) = there.get(name) {
            sections.insert(name, section.clone());
        }
    }
    // At the end: what is commented out there belongs to the section above it.
    Ok(format!("{}\n\n{}", text.trim_end(), sections.to_string().trim_start()))
}

fn parsed(file: &Path) -> Result<DocumentMut, SetupError> {
    read(file)?.parse().map_err(|error: toml_edit::TomlError| {
        unfit(file, &error.to_string(), "correct the file first; `tandem config check` checks it")
    })
}

fn unfit(path: &Path, problem: &str, hint: &str) -> SetupError {
    SetupError::Unfit { path: path.into(), problem: problem.to_owned(), hint: hint.to_owned() }
}
