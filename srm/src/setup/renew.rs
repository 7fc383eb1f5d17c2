//! Replaces what `tandem init` made, while the nodes go on: certificates, the secret, the authority.
//!
//! Works on the directory of `tandem init`, offline. Nodes that run in it take the files up by themselves; those on other
//! machines get them copied. What both nodes must agree on is replaced in three steps, so that at each moment each node
//! accepts what the other shows, whichever of them took up a step first: both learn the new one, both use it, both
//! forget the old one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::certs::{self, Authority};
use super::{SetupError, random_hex, write};
use crate::config::Secret;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The step that was made, from 1, and how many there are.
    pub step: (u8, u8),
    /// What it brought about, in a sentence.
    pub done: &'static str,
    /// Files that were written, and belong onto the node in whose directory they lie.
    pub written: Vec<PathBuf>,
    /// What was left as it is, and why.
    pub kept: Vec<String>,
}

impl Renewed {
    fn new(step: u8, of: u8, done: &'static str) -> Renewed {
        Renewed { step: (step, of), done, written: Vec::new(), kept: Vec::new() }
    }

    /// Whether another step must follow once both nodes have taken this one up.
    pub fn goes_on(&self) -> bool {
        self.step.0 < self.step.1
    }

    fn write(&mut self, path: &Path, text: &str, mode: u32) -> Result<(), SetupError> {
        replace(path, text, mode)?;
        self.written.push(path.to_owned());
        Ok(())
    }
}

/// Host names and addresses by which clients reach the nodes, and others by which they no longer do.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Certificates for clients stand for these, too.
    pub add: Vec<String>,
    /// They no longer stand for these.
    pub drop: Vec<String>,
}

impl Names {
    /// What a certificate stands for that stood for `names`.
    fn change(&self, mut names: Vec<String>, file: &Path) -> Result<Vec<String>, SetupError> {
        if let Some(unknown) = self.drop.iter().find(|name| !names.contains(name)) {
            return Err(SetupError::Unfit {
                path: file.to_owned(),
                problem: format!("the certificate does not name {unknown}"),
                hint: format!("it names {}", names.join(", ")),
            });
        }
        names.retain(|name| !self.drop.contains(name));
        for name in &self.add {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }
}

/// Gives both nodes new keys and certificates, signed by the present authority.
pub fn certificates(dir: &Path, names: &Names) -> Result<Renewed, SetupError> {
    let bundle = read(&dir.join("ca/ca.pem"))?;
    let authority = authority_of(dir, "ca.key", &bundle)?;
    let mut done = Renewed::new(1, 1, "new keys and certificates");
    sign_all(dir, &[&authority], &authority, names, &mut done)?;
    Ok(done)
}

/// The next step of replacing the authority.
pub fn authority(dir: &Path) -> Result<Renewed, SetupError> {
    let (bundle_file, key_file, next_file) =
        (dir.join("ca/ca.pem"), dir.join("ca/ca.key"), dir.join("ca/next.key"));
    let bundle = read(&bundle_file)?;
    if next_file.exists() {
        let (old, new) = (authority_of(dir, "ca.key", &bundle)?, authority_of(dir, "next.key", &bundle)?);
        let mut done = Renewed::new(2, 3, "certificates of the new authority");
        sign_all(dir, &[&old, &new], &new, &Names::default(), &mut done)?;
        trust(dir, &[&new.pem, &old.pem], &[&new.pem, &old.pem], &mut done)?;
        // Last: before it, the same step is made once more.
        fs::rename(&next_file, &key_file)
            .map_err(|source| SetupError::Write { path: key_file.clone(), source })?;
        return Ok(done);
    }
    let present = authority_of(dir, "ca.key", &bundle)?;
    if certs::certificates(&bundle).len() > 1 {
        let mut done = Renewed::new(3, 3, "the old authority is forgotten");
        let pems = certs::certificates(&bundle);
        let all: Vec<&str> = pems.iter().map(String::as_str).collect();
        trust(dir, &[&present.pem], &all, &mut done)?;
        return Ok(done);
    }
    let new = Authority::make()?;
    let mut done = Renewed::new(1, 3, "both authorities are trusted; certificates are those of the old one");
    replace(&next_file, &new.key_pem(), 0o600)?;
    trust(dir, &[&present.pem, &new.pem], &[&present.pem, &new.pem], &mut done)?;
    Ok(done)
}

/// The next step of replacing the cluster's secret.
pub fn secret(dir: &Path) -> Result<Renewed, SetupError> {
    let files: Vec<PathBuf> =
        nodes(dir)?.into_iter().map(|node| node.join("secret")).filter(|file| file.exists()).collect();
    let Some(first) = files.first() else {
        return Err(SetupError::Nothing { dir: dir.into(), what: "pair, whose nodes share a secret" });
    };
    let text = read(first)?;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let known = Secret::parse(&text).ok_or_else(|| SetupError::Damaged { path: first.clone() })?;
    let cluster = format!("cluster {:016x}\n", known.cluster_id());
    let keys: Vec<&str> = lines.into_iter().filter(|line| !line.starts_with("cluster ")).collect();
    let (mut done, text) = match keys.as_slice() {
        [old] => {
            let done = Renewed::new(1, 3, "both secrets are accepted, the old one is used");
            (done, format!("{old}\nnext {}\n{cluster}", random_hex()?))
        }
        [old, next] if next.starts_with("next ") => {
            let done = Renewed::new(2, 3, "both secrets are accepted, the new one is used");
            (done, format!("{}\nold {old}\n{cluster}", next.trim_start_matches("next ").trim()))
        }
        [new, ..] => {
            let done = Renewed::new(3, 3, "the old secret is forgotten");
            (done, format!("{new}\n{cluster}"))
        }
        [] => return Err(SetupError::Damaged { path: first.clone() }),
    };
    for file in &files {
        done.write(file, &text, 0o600)?;
    }
    Ok(done)
}

/// New keys and certificates for everything that one of `known` has signed.
fn sign_all(
    dir: &Path,
    known: &[&Authority],
    by: &Authority,
    change: &Names,
    done: &mut Renewed,
) -> Result<(), SetupError> {
    let mut clients: Option<certs::Certificate> = None;
    for node in nodes(dir)? {
        let ours = |file: &Path| -> Result<Option<String>, SetupError> {
            let text = read(file)?;
            Ok(known.iter().any(|authority| authority.has_signed(&text)).then_some(text))
        };
        let file = node.join("c2s.pem");
        match if file.exists() { ours(&file)? } else { Some(String::new()) } {
            Some(old) if old.is_empty() => {}
            Some(old) => {
                if clients.is_none() {
                    clients = Some(by.c2s(&change.change(certs::names(&old), &file)?)?);
                }
                if let Some(new) = &clients {
                    done.write(&node.join("c2s.key"), &new.key, 0o600)?;
                    done.write(&file, &new.chain, 0o644)?;
                }
            }
            None => {
                done.kept.push(format!("{} is of another authority and is renewed there", file.display()))
            }
        }
        let file = node.join("link.pem");
        if !file.exists() {
            continue;
        }
        match ours(&file)? {
            Some(old) => {
                let name = certs::names(&old).into_iter().next().unwrap_or_default();
                let new = by.link(&name)?;
                done.write(&node.join("link.key"), &new.key, 0o600)?;
                done.write(&file, &new.chain, 0o644)?;
            }
            None => {
                done.kept.push(format!("{} is of another authority and is renewed there", file.display()))
            }
        }
    }
    Ok(())
}

/// Writes whom to trust. What the operator put into these files besides `ours` stays.
fn trust(dir: &Path, who: &[&str], ours: &[&str], done: &mut Renewed) -> Result<(), SetupError> {
    for file in bundles(dir)? {
        let there = certs::certificates(&read(&file)?);
        let others =
            there.iter().map(String::as_str).filter(|pem| !ours.iter().any(|own| own.trim() == pem.trim()));
        let text: String = who.iter().copied().chain(others).map(|pem| format!("{}\n", pem.trim())).collect();
        done.write(&file, &text, 0o644)?;
    }
    Ok(())
}

/// The files that say whom to trust: that of the clients, and those of the nodes.
fn bundles(dir: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let of_nodes = nodes(dir)?.into_iter().map(|node| node.join("ca.pem")).filter(|file| file.exists());
    Ok([dir.join("ca/ca.pem")].into_iter().chain(of_nodes).collect())
}

/// The directories of the nodes, and of their witness, by name.
pub(super) fn nodes(dir: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let entries = fs::read_dir(dir).map_err(|source| SetupError::Read { path: dir.into(), source })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("tandem.toml").is_file() || path.join("witness.toml").is_file())
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(SetupError::Nothing { dir: dir.into(), what: "node that `tandem init` made" });
    }
    Ok(found)
}

pub(super) fn authority_of(dir: &Path, key: &str, bundle: &str) -> Result<Authority, SetupError> {
    let path = dir.join("ca").join(key);
    Authority::load(&read(&path)?, bundle).ok_or(SetupError::Damaged { path })
}

pub(super) fn read(path: &Path) -> Result<String, SetupError> {
    fs::read_to_string(path).map_err(|source| SetupError::Read { path: path.into(), source })
}

/// Puts a file in the place of another, whole: whoever reads finds the old one or the new one.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), SetupError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let failed = |source: io::Error| SetupError::Write { path: path.into(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write(&new, text, mode)?;
    // It keeps the owner of the one that it replaces: a node that does not run as root must be able to read it.
    #[cfg(unix)]
    if let Ok(old) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        let _ = std::os::unix::fs::chown(&new, Some(old.uid()), Some(old.gid()));
    }
    fs::rename(&new, path).map_err(failed)
}
