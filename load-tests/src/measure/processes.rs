//! What processes have used so far, from /proc: processor time and memory, children included; and the whole machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

/// The kernel counts processor time in ticks of 10 ms (USER_HZ is 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// Fields of /proc/PID/stat behind the name, which may hold anything. The first is field 3 of proc(5).
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().map(str::to_owned).collect()
}

fn field(stat: &[String], number: usize) -> u64 {
    stat.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The process and all that descend from it and still run.
fn family(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let parent = field(&stat(pid), 4) as u32;
        children.entry(parent).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.get(pid).into_iter().flatten());
        next += 1;
    }
    all
}

/// User and system time so far of a process, its threads, its children that run, and those that it has waited for.
pub fn cpu(root: u32) -> Duration {
    let ticks = |pid: u32| {
        let stat = stat(pid);
        (14..=17).map(|number| field(&stat, number)).sum::<u64>()
    };
    TICK * family(root).into_iter().map(ticks).sum::<u64>() as u32
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, shared pages by their share.
    pub pss: u64,
}

impl Memory {
    /// Of a process and its children.
    pub fn of(root: u32) -> Memory {
        let mut sum = Memory::default();
        for pid in family(root) {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let kib = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
            };
            sum.rss += 1024 * kib("Rss:");
            sum.pss += 1024 * kib("Pss:");
        }
        sum
    }

    /// Growth since `before` for each of `count`, in bytes.
    pub fn growth(self, before: Memory, count: usize) -> (f64, f64) {
        let each = |now: u64, then: u64| (now as f64 - then as f64) / count.max(1) as f64;
        (each(self.rss, before.rss), each(self.pss, before.pss))
    }
}

/// Ticks of all processors so far: busy, and all.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    busy: u64,
    all: u64,
}

impl Machine {
    /// Now.
    pub fn now() -> Machine {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what follows is in them already.
        let all: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Machine { busy: all - idle.min(all), all }
    }

    /// Which share of the processors was busy since `before`, 0 to 1.
    pub fn busy_since(self, before: Machine) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// What is known of the machine, for the head of a table.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": model.map(|(_, name)| name).unwrap_or_default(),
        "memory_mib": kib.unwrap_or(0) / 1024,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Load averages, as the kernel prints them.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_time_of_children_counts() {
        let mut shell = Command::new("sh");
        // A child of the child does the work, while its parent waits for it.
        shell.args(["-c", "sh -c 'while :; do :; done' & wait"]).stdout(Stdio::null());
        let mut child = shell.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while cpu(child.id()) < Duration::from_millis(100) {
            assert!(Instant::now() < deadline, "no time was counted");
            std::thread::sleep(Duration::from_millis(10));
        }
        let family = family(child.id());
        assert_eq!(family.len(), 2);
        assert!(Memory::of(child.id()).rss > 2 * 100_000, "two shells hold more than one");
        for pid in family.into_iter().rev() {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
    }

    #[test]
    fn growth_is_for_each_and_may_be_negative() {
        let (before, after) = (Memory { rss: 100, pss: 50 }, Memory { rss: 300, pss: 30 });
        assert_eq!(after.growth(before, 10), (20.0, -2.0));
    }
}
