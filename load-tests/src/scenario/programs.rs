//! The programs of the nodes: the one of this build, and that of the version before.

use std::path::{Path, PathBuf};

use session_mover::msg::VERSIONS;

/// What an older program says to be, where it is only played.
const OLDER: &str = "0.0.9";

/// The program of this build, and where it is, an older one.
#[derive(Clone, Debug)]
pub struct Programs {
    present: PathBuf,
    before: Option<PathBuf>,
}

/// A program that a node runs, and what its environment says besides: `None` takes a variable away.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) env: [(&'static str, Option<String>); 2],
}

const VERSION: &str = "TANDEM_PROGRAM_VERSION";
const LINK: &str = "TANDEM_LINK_NEWEST";

impl Programs {
    /// The one of this build. The program of the version before is played by it: it says that it is older, and
    /// speaks the oldest link.
    pub fn new(present: &Path) -> Programs {
        Programs { present: present.to_owned(), before: None }
    }

    /// With a real one of the version before.
    pub fn with(self, before: Option<PathBuf>) -> Programs {
        Programs { before, ..self }
    }

    /// The one of this build, as it is or as one of another version.
    pub(super) fn present(&self, version: Option<&str>) -> Program {
        Program { path: self.present.clone(), env: [(VERSION, version.map(str::to_owned)), (LINK, None)] }
    }

    /// That of the version before.
    pub(super) fn before(&self) -> Program {
        match &self.before {
            Some(path) => Program { path: path.clone(), env: [(VERSION, None), (LINK, None)] },
            None => {
                let older = [(VERSION, Some(OLDER.to_owned())), (LINK, Some(VERSIONS.0.to_string()))];
                Program { path: self.present.clone(), env: older }
            }
        }
    }
}
