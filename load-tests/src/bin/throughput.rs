//! How much a pair carries on this machine: `throughput [USERS] [SECONDS]`. Clients and servers share the cores. Prints
//! acknowledged messages a second, and the processor time of both nodes for each.

use std::time::{Duration, Instant};

use load_tests::rig::{Load, QUICK, Rig};

/// Processor time of a process so far, user and system.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc(5), in ticks of 10 ms on Linux.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let users = args.first().copied().unwrap_or(200) as usize;
    let seconds = args.get(1).copied().unwrap_or(10);
    for interval_ms in [100, 20, 5] {
        let load = Load { users, plain: 0.1, interval: Duration::from_millis(interval_ms), seed: 1 };
        let rig = Rig::start(2, load, QUICK, &[]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = || -> Duration { (0..2).filter_map(|n| rig.pair.pid(n)).map(cpu).sum() };
        let (since, before, cpu_before) =
            (Instant::now(), rig.fleet.snapshot().messages.acknowledged, spent());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let messages = rig.fleet.snapshot().messages.acknowledged - before;
        let rate = messages as f64 / since.elapsed().as_secs_f64();
        let each = (spent() - cpu_before).as_secs_f64() * 1e6 / messages.max(1) as f64;
        let offered = users as f64 * 1e3 / interval_ms as f64;
        println!(
            "offered {offered:.0}/s: acknowledged {rate:.0}/s, both nodes {each:.0} us of processor a message"
        );
        rig.settle().await;
    }
}
