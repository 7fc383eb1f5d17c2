//! Who decides between the nodes: `tandem witness`, or an etcd, on a machine of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::language::{Arbiter, Node, Site};
use super::net::{Net, address_of};
use crate::foreign::etcd;
use crate::powerloss::{Fault, Loss, Shim, Undone, set_faults, undo_unsynced};

/// A witness, if the scenario has one.
pub(super) struct Witness {
    kind: Arbiter,
    tandem: PathBuf,
    /// All that it has.
    folder: PathBuf,
    /// Environment of its next start.
    env: Vec<(OsString, OsString)>,
    child: Option<Child>,
}

impl Witness {
    /// One that does not run yet, beside the nodes that `tandem init` made.
    pub(super) fn new(kind: Arbiter, pair: &Path, tandem: &Path) -> Result<Witness, String> {
        let folder = pair.join("witness");
        if kind == Arbiter::Etcd {
            fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            etcd::certificates(&folder, &[address_of(Site::Witness)])?;
        }
        Ok(Witness { kind, tandem: tandem.to_owned(), folder, env: Vec::new(), child: None })
    }

    /// What both nodes are told besides: an etcd has an authority of its own.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let file =
            |key: &str, name: &str| (format!("etcd.{key}"), self.folder.join(name).display().to_string());
        match self.kind {
            Arbiter::Witness => Vec::new(),
            Arbiter::Etcd => vec![file("ca", "ca.pem"), file("cert", "etcd.pem"), file("key", "etcd.key")],
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn command(&self) -> Command {
        if self.kind == Arbiter::Etcd {
            let at = self.member();
            return etcd::command(&self.folder, &at, std::slice::from_ref(&at));
        }
        let mut command = Command::new(&self.tandem);
        command.arg("witness").arg("-c").arg(self.folder.join("witness.toml")).stdin(Stdio::null());
        command
    }

    fn member(&self) -> etcd::At {
        etcd::At { name: "m0".to_owned(), client: (address_of(Site::Witness), etcd::PORT), peers: 2_380 }
    }

    fn data(&self) -> PathBuf {
        self.folder.join(if self.kind == Arbiter::Etcd { "m0-data" } else { "data" })
    }

    /// Starts it, unless it runs.
    pub(super) fn start(&mut self, net: &Net) -> Result<(), String> {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return Ok(());
        }
        let failed = |error: io::Error| format!("the witness: {error}");
        let log = File::options().create(true).append(true).open(self.log_file()).map_err(failed)?;
        let mut command = self.command();
        command.envs(self.env.iter().cloned());
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
        let data = self.data();
        fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// Its disk can lose power and fail.
    pub(super) fn use_shim(&mut self, shim: &Shim) -> Result<(), String> {
        if self.kind == Arbiter::Etcd {
            return Err("this is done to the disk of `tandem witness` alone".to_owned());
        }
        let (data, journal) = (self.data(), self.journal());
        let failed = |error: io::Error| format!("{}: {error}", data.display());
        fs::create_dir_all(&data).and_then(|()| fs::create_dir_all(&journal)).map_err(failed)?;
        let mut command = Command::new("true");
        shim.preload(&mut command, &data, &journal).map_err(failed)?;
        let env = command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        self.env = env.collect();
        Ok(())
    }

    /// Its process is gone, and everything that it had not synced.
    pub(super) fn power_off(&mut self) -> Result<Undone, String> {
        self.kill()?;
        let (data, journal) = (self.data(), self.journal());
        let undone = undo_unsynced(&data, &journal, Loss::All, &mut StdRng::seed_from_u64(1));
        undone.map_err(|error| format!("{}: {error}", journal.display()))
    }

    /// The next write to its disk fails.
    pub(super) fn fail_write(&self) -> Result<(), String> {
        let journal = self.journal();
        let set = set_faults(&journal, &[Fault::WriteFails, Fault::Once]);
        set.map_err(|error| format!("{}: {error}", journal.display()))
    }

    /// Whether it has ended by itself, not well, and said this.
    pub(super) fn ended(&mut self, text: &str) -> Result<(), String> {
        let child = self.child.as_mut().ok_or("the witness was not started")?;
        match child.try_wait().map_err(|error| format!("the witness: {error}"))? {
            None => Err("the witness runs".to_owned()),
            Some(status) if status.success() => Err("the witness ended in good order".to_owned()),
            Some(_) if self.log().contains(text) => Ok(()),
            Some(status) => Err(format!("the witness ended, {status}, and its log lacks {text:?}")),
        }
    }

    /// Who leads the users of a node by its register. It logs what it has written before it answers.
    pub(super) fn leader_of(&self, home: Node) -> Result<Option<String>, String> {
        if self.kind == Arbiter::Etcd {
            return Err("an etcd does not log who leads: begin the scenario with `witness`".to_owned());
        }
        let (log, group) = (self.log().replace('"', ""), format!("group={home}"));
        let is_of = |line: &str| {
            line.contains("event=witness_register") && line.split_whitespace().any(|word| word == group)
        };
        let last = log.lines().rfind(|line| is_of(line));
        let leader =
            last.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("primary=")));
        Ok(leader.map(str::to_owned))
    }

    /// What it has ever logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
