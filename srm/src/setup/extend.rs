//! What a pair that exists gets in addition: a witness. Works on the directory that `tandem init` made.

use std::fs;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::renew::{authority_of, nodes, read};
use super::{SetupError, WITNESS, make_witness};
use crate::config::{self, Config, Policy, edit};

/// What was made and changed.
#[derive(Debug)]
pub struct Extended {
    /// Configuration file of the witness, for `tandem witness -c`.
    pub witness: PathBuf,
    /// Configuration files of the nodes, which name it now.
    pub nodes: Vec<PathBuf>,
}

/// Makes a witness that the nodes reach at `host`, and has both ask it: `[link] policy = "strict+witness"`. Nothing is left
/// of it if that fails.
pub fn witness(dir: &Path, host: &str, port: u16) -> Result<Extended, SetupError> {
    let nodes: Vec<PathBuf> =
        nodes(dir)?.into_iter().filter(|node| node.join("tandem.toml").is_file()).collect();
    let [_, _] = nodes.as_slice() else {
        return Err(SetupError::Nothing {
            dir: dir.into(),
            what: "pair of two nodes; only a pair has use for a witness",
        });
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(SetupError::Unfit {
            path: dir.into(),
            problem: format!("{host:?} is no host name or address"),
            hint: "name where the nodes reach the witness, such as w.example.org".into(),
        });
    }
    let made = dir.join(WITNESS);
    if made.exists() {
        return Err(SetupError::Exists(made));
    }
    let authority = authority_of(dir, "ca.key", &read(&dir.join("ca/ca.pem"))?)?;
    let files: Vec<PathBuf> = nodes.iter().map(|node| node.join("tandem.toml")).collect();
    let configs = files.iter().map(|file| Config::load(file)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<&str> = configs.iter().map(|config| config.node.name.as_str()).collect();
    let before = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    // Where the nodes keep theirs, unless that is beside their files.
    let data = &configs[0].node.data;
    let data = if data.starts_with(&nodes[0]) { "data" } else { data.to_str().unwrap_or("data") };
    let done = make_witness(dir, (Ipv6Addr::UNSPECIFIED, port).into(), &names, data, &authority)
        .and_then(|witness| ask_it(&files, &config::with_port(host, port)).map(|()| witness));
    match done {
        Ok(witness) => Ok(Extended { witness, nodes: files }),
        Err(error) => {
            let _ = fs::remove_dir_all(&made);
            for (file, text) in files.iter().zip(before) {
                let _ = super::renew::replace(file, &text, 0o644);
            }
            Err(error)
        }
    }
}

/// The address comes first: the policy is refused without one.
fn ask_it(files: &[PathBuf], address: &str) -> Result<(), SetupError> {
    for file in files {
        for (key, value) in [("witness.address", address), ("link.policy", Policy::Witness.as_str())] {
            let change = edit::change(file, key, Some(value)).map_err(|unfit| SetupError::Unfit {
                path: file.clone(),
                problem: unfit.problem,
                hint: unfit.hint,
            })?;
            change.write(file).map_err(|source| SetupError::Write { path: file.clone(), source })?;
        }
    }
    Ok(())
}
