//! The commands of `docs/operations.md` and `docs/grow.md`, run as they stand on the page, on two hosts that exist for this test only: each has
//! its own network, its own processes, systemd as the first of them, and layers of its own over `/etc`, `/root`, `/usr/local`
//! and `/var/lib`. What these hosts lack is put in its place: `scp` copies.
//!
//! Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), control groups of version 2, and the packages systemd, iproute2, util-linux,
//! adduser and curl.

mod host;
mod page;
mod unit;

use std::path::Path;
use std::time::{Duration, Instant};

use load_tests::rig::{tandem, turn};

use host::Hosts;
use page::{Block, blocks};

/// How long a state may take to come, where the page says that one waits for it.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_operations_page_do_what_it_says() {
    let _turn = turn().await;
    let (mut hosts, blocks) = start("operations");
    assert!(blocks.len() >= 25, "{} blocks are few", blocks.len());
    blocks.iter().for_each(|block| play(&mut hosts, block));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_a_peer_is_alone_again_and_gets_another_as_the_page_says() {
    let _turn = turn().await;
    let (mut hosts, blocks) = start("grow");
    assert!(blocks.len() >= 12, "{} blocks are few", blocks.len());
    blocks.iter().for_each(|block| play(&mut hosts, block));
    let (_, status) = hosts.run("a", "tandem status; tandem user list");
    assert!(status.contains("both nodes are well") && status.contains("berta@example.org"), "{status}");
}

/// Two hosts, and what the page says.
fn start(page: &str) -> (Hosts, Vec<Block>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join(format!("docs/{page}.md"))).unwrap();
    (Hosts::start(root, &tandem()), blocks(&page).unwrap())
}

fn play(hosts: &mut Hosts, block: &Block) {
    for host in &block.hosts {
        if let Some(version) = &block.version {
            println!("{host} gets a program of version {version}");
            hosts.upgrade(host, version);
        }
        println!("{host}$ (line {}) {}", block.line, block.commands.replace('\n', "\n   "));
        run(hosts, host, block);
    }
}

/// Once, or until its output shows what the page waits for.
fn run(hosts: &mut Hosts, host: &str, block: &Block) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (code, output) = hosts.run(host, &block.commands);
        let Some(until) = &block.until else {
            assert_eq!(code, 0, "line {}: {}\n{output}\n{}", block.line, block.commands, hosts.logs());
            return;
        };
        let gone = block.without.as_ref().is_none_or(|word| !output.contains(word));
        let as_said = block.alarm.as_ref().is_none_or(|words| only_alarm(&output, words));
        if gone && as_said && until.iter().any(|word| output.contains(word)) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "line {}: none of {until:?} comes (or {:?} stays, or {:?} is not the only alarm), but\n{output}\n{}",
            block.line,
            block.without,
            block.alarm,
            hosts.logs()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether `tandem status` shows an alarm with these words, and no other.
fn only_alarm(output: &str, words: &str) -> bool {
    let alarms: Vec<&str> = output.lines().filter(|line| line.contains("ALARM")).collect();
    matches!(&alarms[..], [alarm] if alarm.contains(words))
}
