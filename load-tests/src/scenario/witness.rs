//! The witness: its process, on a machine of its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::language::Site;
use super::net::Net;

/// A witness, if the scenario has one.
pub(super) struct Witness {
    tandem: PathBuf,
    /// What `tandem init` made for it.
    folder: PathBuf,
    child: Option<Child>,
}

impl Witness {
    /// One that does not run yet.
    pub(super) fn new(folder: PathBuf, tandem: &Path) -> Witness {
        Witness { tandem: tandem.to_owned(), folder, child: None }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// `tandem witness`.
    pub(super) fn start(&mut self, net: &Net) -> Result<(), String> {
        let failed = |error: io::Error| format!("the witness: {error}");
        let log = File::options().create(true).append(true).open(self.log_file()).map_err(failed)?;
        let mut command = Command::new(&self.tandem);
        command.arg("witness").arg("-c").arg(self.folder.join("witness.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.child = Some(net.inside(Site::Witness, || command.spawn()).map_err(failed)?);
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        let mut child = self.child.take().ok_or("the witness does not run")?;
        child.kill().and_then(|()| child.wait()).map(|_| ()).map_err(|error| format!("the witness: {error}"))
    }

    /// Its registers are gone.
    pub(super) fn empty(&self) -> Result<(), String> {
        let data = self.folder.join("data");
        std::fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))
    }

    /// What it has ever logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
