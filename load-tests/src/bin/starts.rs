//! How long a node takes to start after many messages, and how much memory: `starts [MESSAGES]`. Each message makes three
//! records or more. Three cases: a single node, a node of a pair, and a node that led alone, whose log was not trimmed.

use std::path::Path;
use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig};

/// A line of `/proc/PID/status` in KiB.
fn kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes of a folder.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Until the node answers its API: its log and store are read by then, and its ports are open.
async fn answers(rig: &Rig, since: Instant) -> Duration {
    let address = rig.pair.made.nodes[0].admin;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(since.elapsed() < Duration::from_secs(300), "the node does not start:\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    since.elapsed()
}

async fn measure(case: &str, nodes: usize, messages: u64) {
    let load = Load { users: 200, plain: 0.1, interval: Duration::from_millis(5), seed: 1 };
    let mut rig = Rig::start(nodes, load, QUICK, &[]).await;
    let alone = case.contains("alone");
    if alone {
        rig.kill(1);
        rig.clients_go_on(Duration::from_secs(60)).await;
    }
    let done = rig.fleet.snapshot().messages.acknowledged;
    let begun = Instant::now();
    while rig.fleet.snapshot().messages.acknowledged < done + messages {
        assert!(begun.elapsed() < Duration::from_secs(900), "traffic stands still:\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = rig.pair.pid(0).map_or(0, |pid| kib(pid, "VmHWM:"));
    rig.kill(0);
    let data = rig.data(0);
    let (log, store) = (size(&data.join("log")), size(&data.join("store")));
    let since = Instant::now();
    rig.pair.start(0).expect("the node starts");
    let took = answers(&rig, since).await;
    let after = rig.pair.pid(0).map_or(0, |pid| kib(pid, "VmHWM:"));
    println!(
        "{case}: after {messages} messages it starts in {:.2} s with {} MiB; logs {} MiB, store {} MiB; before the end it had \
         {} MiB",
        took.as_secs_f64(),
        after >> 10,
        log >> 20,
        store >> 20,
        before >> 10,
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let messages = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(350_000);
    measure("single node", 1, messages).await;
    measure("node of a pair", 2, messages).await;
    measure("node that led alone", 2, messages).await;
}
