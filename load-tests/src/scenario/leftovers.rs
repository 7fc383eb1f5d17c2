//! What a killed run left behind: processes, namespaces, mounts, folders. And what this run has, if it is interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::{PREFIX, net, own_prefix};

/// Removes what runs left behind that are no more, and from now on what this one has if somebody interrupts it.
pub fn remove_leftovers() {
    remove(|pid| !is_alive(pid));
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(interrupted());
        let own = own_prefix();
        remove(|pid| own == format!("{PREFIX}{pid}-"));
        std::process::exit(130);
    });
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("signals can be listened for");
    let (mut int, mut term) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}

/// The programs that play scenarios, measure with what they are played with, or test that.
const PROGRAMS: [&str; 4] = ["scenarios", "soak", "measure", "load_tests"];

/// Whether the process with this id is a run of scenarios.
fn is_alive(pid: u32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    PROGRAMS.iter().any(|program| name.starts_with(program))
}

/// The process that a name of ours belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn remove(of: impl Fn(u32) -> bool) {
    for name in net::names().into_iter().filter(|name| owner(name).is_some_and(&of)) {
        end_processes(&name);
        net::remove(&name);
    }
    let folders = fs::read_dir(std::env::temp_dir()).into_iter().flatten().filter_map(Result::ok);
    for folder in folders.filter(|f| f.file_name().to_str().and_then(owner).is_some_and(&of)) {
        remove_folder(&folder.path());
    }
}

/// Kills whatever runs in a namespace.
fn end_processes(name: &str) {
    let pids = super::run(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    let own = std::process::id();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own as i32) {
        let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
    }
}

/// Removes a folder and what is mounted in it.
pub(super) fn remove_folder(folder: &Path) {
    for place in mounts_below(folder).iter().rev() {
        // Lazily: a process that was killed a moment ago may still hold it.
        let _ = super::run(Command::new("umount").arg("-l").arg(place));
    }
    let _ = fs::remove_dir_all(folder);
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = all.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    places.filter(|place| place.starts_with(folder)).collect()
}
