//! A witness on this machine.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The process of a witness, which ends with this.
#[derive(Debug)]
pub(super) struct Witness(Child);

impl Witness {
    /// Starts it; its log goes to the folder of the nodes.
    pub(super) fn start(config: &Path, folder: &Path) -> Witness {
        let log = File::create(folder.join("witness.log")).expect("a log file");
        let mut command = Command::new(super::tandem());
        command.arg("witness").arg("-c").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Witness(command.spawn().expect("the witness starts"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
