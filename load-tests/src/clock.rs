//! A wall clock that jumps, of one process: `shim/clock.c` is preloaded, and a file says how far it is off.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::powerloss::compile;

/// The preloaded library, compiled.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    _folder: TempDir,
}

impl Clock {
    /// Compiles it with `cc`, or with what the variable `CC` names.
    pub fn compile() -> io::Result<Clock> {
        let (library, folder) = compile("clock", include_str!("../shim/clock.c"))?;
        Ok(Clock { library, _folder: folder })
    }

    /// Lets this command run by a clock that `file` says how far it is off; first it is right. Libraries that are to be
    /// preloaded already stay.
    pub fn preload(&self, command: &mut Command, file: &Path) -> io::Result<()> {
        fs::write(file, [0; 8])?;
        let others = command.get_envs().find(|(key, _)| *key == "LD_PRELOAD").and_then(|(_, value)| value);
        let mut all = others.map_or_else(std::ffi::OsString::new, |others| {
            let mut others = others.to_owned();
            others.push(":");
            others
        });
        all.push(&self.library);
        command.env("LD_PRELOAD", all).env("TANDEM_CLOCK", file);
        Ok(())
    }

    /// From now on the clock of processes with this file is ahead by so many seconds, or behind.
    pub fn set(file: &Path, seconds: i64) -> io::Result<()> {
        let ahead_ns = seconds.saturating_mul(1_000_000_000);
        // Written in place: the process has mapped the file.
        OpenOptions::new().write(true).open(file)?.write_all(&ahead_ns.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_running_process_sees_the_jump() {
        let clock = Clock::compile().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        let mut command = Command::new("sh");
        command.args(["-c", "while read line; do printf '%(%s)T\\n' -1 2>/dev/null || date +%s; done"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        clock.preload(&mut command, &file).unwrap();
        let mut child = command.spawn().unwrap();
        let mut asks = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        for jump in [0, 7200, -7200] {
            Clock::set(&file, jump).unwrap();
            writeln!(asks, "now").unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            let shown: i64 = answer.trim().parse().unwrap();
            assert!((now + jump - shown).abs() <= 5, "{now} {jump} {shown}");
        }
        drop(asks);
        child.wait().unwrap();
    }
}
