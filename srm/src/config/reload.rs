//! A configuration that takes the place of another while the node runs.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Admin, C2s, Config, Link, Notify};

/// Settings, and sections ending in a dot, that a node takes up at a start only.
const AT_START: [&str; 11] = [
    "node.",
    "peer.",
    "store.",
    "c2s.starttls",
    "c2s.direct",
    "link.listen",
    "link.commit",
    "link.policy",
    "witness.",
    "etcd.",
    "admin.listen",
];

/// What another configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Settings that changed at once.
    pub taken: Vec<String>,
    /// Settings that change when the node is restarted.
    pub restart: Vec<String>,
}

/// Whether a change of this setting waits for a restart of the node.
pub(super) fn at_start(key: &str) -> bool {
    AT_START.iter().any(|at| if at.ends_with('.') { key.starts_with(at) } else { key == *at })
}

impl Config {
    /// The configuration with which a node goes on that runs with this one and is given `new`.
    pub fn follow(&self, new: Config) -> (Config, Change) {
        let keys: BTreeSet<&String> = self.settings.keys().chain(new.settings.keys()).collect();
        let differs = |key: &&&String| self.settings.get(**key) != new.settings.get(**key);
        // A whole section that comes or goes makes a pair of a single node, or a single node of a pair.
        let sections = self.link.is_some() != new.link.is_some();
        let waits = |key: &str| at_start(key) || (sections && key.starts_with("link."));
        let (restart, mut taken): (Vec<String>, Vec<String>) =
            keys.iter().filter(differs).map(|key| (*key).clone()).partition(|key| waits(key));
        if let (Some(old), Some(new)) = (&self.link, &new.link)
            && old.secret != new.secret
        {
            taken.push("link.secret".into());
        }
        let mut settings = new.settings.clone();
        for key in &restart {
            match self.settings.get(key) {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
        }
        let link = match (&self.link, new.link) {
            (Some(old), Some(new)) => {
                Some(Link { listen: old.listen, commit: old.commit, policy: old.policy, ..new })
            }
            (old, _) => old.clone(),
        };
        let followed = Config {
            node: self.node.clone(),
            peer: self.peer.clone(),
            store: self.store.clone(),
            c2s: C2s { starttls: self.c2s.starttls, direct: self.c2s.direct, ..new.c2s },
            admin: Admin { listen: self.admin.listen, ..new.admin },
            link,
            witness: self.witness.clone(),
            etcd: self.etcd.clone(),
            settings,
            ..new
        };
        (followed, Change { taken, restart })
    }

    /// The files that are read besides, by the setting that names each. A change of theirs counts like one of the
    /// configuration.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files: Vec<(&str, &Path)> = vec![
            ("c2s.cert", &self.c2s.cert),
            ("c2s.key", &self.c2s.key),
            ("admin.token_file", &self.admin.token_file),
        ];
        if let Some((_, link)) = self.pair() {
            files.extend([
                ("link.cert", link.cert.as_path()),
                ("link.key", &link.key),
                ("link.ca", &link.ca),
            ]);
            files.extend(link.secret_file.as_deref().map(|file| ("link.secret", file)));
        }
        files.extend(self.notify.iter().flat_map(Notify::files));
        files
    }
}
