//! Starts this program anew in the place of this process: the file that stands there now, with the same arguments.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// What to start, as it was when this process began: the file may be another by then.
#[derive(Debug)]
pub struct Again {
    program: std::io::Result<PathBuf>,
    arguments: Vec<OsString>,
}

impl Again {
    /// Looks where this program stands.
    pub fn prepare() -> Again {
        Again { program: std::env::current_exe(), arguments: std::env::args_os().skip(1).collect() }
    }

    /// Does it; comes back only with what went wrong. All files and sockets are closed by it.
    pub fn now(&self) -> anyhow::Error {
        match &self.program {
            Ok(program) => {
                let error = Command::new(program).args(&self.arguments).exec();
                anyhow::anyhow!("{} cannot be started anew: {error}; start it by hand", program.display())
            }
            Err(error) => {
                anyhow::anyhow!("it is not known where this program stands ({error}); start it by hand")
            }
        }
    }
}
