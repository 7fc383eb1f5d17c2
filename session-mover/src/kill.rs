//! Named points at which a test may kill the process: `TANDEM_KILL_AT=name` or `name:3` for the third time it is
//! reached, or `TANDEM_KILL_FILE=FILE`, the next time that the point is reached whose name is all that this file holds (of
//! several, one a line, each is struck out when it is reached, and the last one kills); or make it stand still, as SIGSTOP
//! does: `TANDEM_STOP_AT=name=FILE`, the next time it is reached while there is such a file.
//! Without the variables a point costs three loads and three branches.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Target {
    name: String,
    nth: u64,
}

static TARGET: OnceLock<Option<Target>> = OnceLock::new();
static HITS: AtomicU64 = AtomicU64::new(0);
static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
/// Name and file.
static STOP: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();

/// Every point of this crate and of `srm`, for the test that visits each once.
pub const POINTS: &[&str] = &[
    "log.own.before_write",
    "log.own.after_write",
    "log.own.after_sync",
    "log.peer.before_write",
    "log.peer.after_write",
    "log.truncate.after_aside",
    "link.frame.before_send",
    "link.frame.after_send",
    "link.ack.before_send",
    "link.ack.after_send",
    "core.before_persist",
    "core.after_persist",
    "beacon.before_send",
    "release.before",
    "release.after",
    "move.before_event",
    "move.after_event",
];

/// Called by [`crate::kill_point!`].
pub fn hit(name: &str) {
    debug_assert!(POINTS.contains(&name), "{name} is missing from POINTS");
    stop(name);
    let target = TARGET.get_or_init(|| {
        let wanted = std::env::var("TANDEM_KILL_AT").ok()?;
        let (name, nth) =
            wanted.split_once(':').map_or((wanted.as_str(), 1), |(n, k)| (n, k.parse().unwrap_or(1)));
        Some(Target { name: name.to_owned(), nth })
    });
    let nth = |target: &Target| target.name == name && HITS.fetch_add(1, Ordering::Relaxed) + 1 == target.nth;
    if target.as_ref().is_some_and(nth) || is_in_file(name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // SIGKILL of the own process does not return; if it did, this does not.
        std::process::abort();
    }
}

fn is_in_file(name: &str) -> bool {
    let file = FILE.get_or_init(|| std::env::var_os("TANDEM_KILL_FILE").map(PathBuf::from));
    file.as_ref().is_some_and(|file| is_last_of(file, name))
}

/// Whether this is the last of the points that a file holds. The first of several is struck out.
fn is_last_of(file: &Path, name: &str) -> bool {
    let Ok(wanted) = std::fs::read_to_string(file) else { return false };
    let (first, others) = wanted.split_once('\n').unwrap_or((&wanted, ""));
    // Whoever takes the file away dies, or writes what is left; nobody else does.
    if first != name || std::fs::remove_file(file).is_err() {
        return false;
    }
    if !others.is_empty() {
        // A file that is not there kills nobody, and the test says which point was not reached.
        let _ = std::fs::write(file, others);
    }
    others.is_empty()
}

fn stop(name: &str) {
    let wanted = STOP.get_or_init(|| {
        let wanted = std::env::var("TANDEM_STOP_AT").ok()?;
        let (name, file) = wanted.split_once('=')?;
        Some((name.to_owned(), PathBuf::from(file)))
    });
    let Some((point, file)) = wanted else { return };
    // Whoever takes the file away stops, once.
    if point == name && std::fs::remove_file(file).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }
}

/// Kills the process here if the environment asks for it.
#[macro_export]
macro_rules! kill_point {
    ($name:literal) => {
        $crate::kill::hit($name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_points_in_a_file_the_last_one_kills_and_only_after_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("points");
        assert!(!is_last_of(&file, "release.after"), "no file");
        std::fs::write(&file, "core.after_persist\nrelease.after").unwrap();
        assert!(!is_last_of(&file, "release.after"), "not yet");
        assert!(!is_last_of(&file, "core.after_persist"), "there is one more");
        assert!(!is_last_of(&file, "core.after_persist"), "it is struck out");
        assert!(is_last_of(&file, "release.after"));
        assert!(!file.exists() && !is_last_of(&file, "release.after"), "once");
    }
}
