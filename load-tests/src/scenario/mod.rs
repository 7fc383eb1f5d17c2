//! Scenarios: what an operator may live through, written in a small language and played with two real nodes, each on a
//! network of its own (a namespace), with clients that keep a ledger on a third.
//!
//! `tests/scenarios.rs` plays the files in `tests/scenarios`; `docs/testing.md` describes the language.

mod apart;
mod check;
mod clients;
mod disk;
pub mod drawn;
mod faults;
pub mod language;
mod leftovers;
mod machine;
mod net;
mod node;
mod oracle;
mod path;
mod play;
mod programs;
mod segment;
mod watch;
mod witness;
mod world;

pub use apart::Apart;
pub use leftovers::remove_leftovers;
pub use machine::Machine;
pub use play::{Outcome, play, play_without};
pub use programs::Programs;

/// Prefix of the names of everything that outlives a process that is killed: namespaces and folders.
const PREFIX: &str = "tandem-scn-";

/// The beginning of the names that belong to this process; a number follows.
fn own_prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Runs a command to its end; what it printed, or in words why it failed.
fn run(command: &mut std::process::Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name} cannot be run: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            Err(format!("{name} {}: {}: {out} {err}", args.join(" "), output.status))
        }
    }
}
