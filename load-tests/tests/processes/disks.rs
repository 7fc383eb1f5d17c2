//! Disks that fail: a power loss undoes what was not synced, fsync says no, the disk is full.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use client_sim::session::Event;
use client_sim::sm::Outgoing;
use load_tests::powerloss::{Fault, Loss, Shim, copy_folder, set_faults, undo_unsynced};
use load_tests::rig::{Load, Person, QUICK, Rig, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use srm::demo::pair::DOMAIN;

const LIMIT: Duration = Duration::from_secs(30);

fn load(seed: u64) -> Load {
    Load { users: 20, plain: 0.25, interval: Duration::from_millis(100), seed }
}

/// Environment of a node whose writes below its data folder go through the shim.
fn environment(shim: &Shim, rig_data: &Path, journal: &Path) -> Vec<(String, String)> {
    let mut command = Command::new("true");
    std::fs::create_dir_all(journal).unwrap();
    shim.preload(&mut command, rig_data, journal).expect("data and journal are there");
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    command.get_envs().filter_map(|(k, v)| v.map(|v| (text(k), text(v)))).collect()
}

/// Starts node 0 again, this time over the shim.
async fn restart_with_shim(rig: &mut Rig, shim: &Shim, journal: &Path) {
    rig.kill(0);
    rig.clients_go_on_without(LIMIT).await;
    let data = rig.data(0);
    for (key, value) in environment(shim, &data, journal) {
        rig.pair.env(0, &key, Some(&value));
    }
    rig.pair.start(0).unwrap();
}

/// One node alone loses power again and again: what it acknowledged is there each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_survives_power_losses() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let shim = Shim::compile().expect("the C compiler builds the shim");
    let dir = tempfile::tempdir_in(load_tests::rig::place()).unwrap();
    let journal = dir.path().join("journal");
    let mut rig = Rig::start(1, load(seed), &[], &[]).await;
    restart_with_shim(&mut rig, &shim, &journal).await;
    let mut undone = 0;
    for round in 0..8 {
        rig.clients_go_on(LIMIT).await;
        rig.traffic(60).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
        rig.kill(0);
        let loss = if round % 2 == 0 { Loss::All } else { Loss::Pieces };
        let what = undo_unsynced(&rig.data(0), &journal, loss, &mut rng).expect("the journal is read");
        undone += what.unsynced;
        println!("round {round}: {what:?}");
        rig.pair.start(0).unwrap();
    }
    rig.clients_go_on(LIMIT).await;
    rig.settle().await;
    println!("{undone} unsynced writes in all");
}

/// A failed fdatasync or a full disk ends the process, which acknowledges nothing more; its peer serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_ends_the_node_and_its_peer_serves() {
    let seed = seed();
    let shim = Shim::compile().expect("the C compiler builds the shim");
    let dir = tempfile::tempdir_in(load_tests::rig::place()).unwrap();
    let mut rig = Rig::start(2, load(seed), QUICK, &[]).await;
    for fault in [Fault::SyncFails, Fault::DiskFull] {
        let journal = dir.path().join(format!("{fault:?}"));
        restart_with_shim(&mut rig, &shim, &journal).await;
        rig.until_paired(LIMIT);
        rig.fallback(0).await;
        rig.traffic(50).await;
        rig.mark_fault(0);
        set_faults(&journal, &[fault]).unwrap();
        let status = rig.pair.wait(0, LIMIT).unwrap_or_else(|e| panic!("{fault:?}: {e}\n{}", rig.logs()));
        assert!(!status.success(), "{fault:?}: {status:?}");
        rig.until(1, LIMIT, "the peer serves all", |s| s.row == Some(17));
        rig.clients_go_on(LIMIT).await;
        rig.traffic(50).await;
        let log = std::fs::read_to_string(rig.pair.log_file(0)).unwrap();
        assert!(log.contains("The process ends; the other node serves."), "{log}");
        set_faults(&journal, &[]).unwrap();
        rig.pair.start(0).unwrap();
        rig.until_paired(LIMIT);
        assert!(rig.fleet.all_parked(LIMIT).await, "{:?}", rig.fleet.snapshot());
        rig.fallback(0).await;
    }
    rig.settle().await;
}

/// Both are dead and one starts: after the initialization time-out it serves its own users, and the peer's wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alone_serves_its_own_users() {
    let seed = seed();
    let settings = [
        QUICK,
        &[
            ("srm.keep_alive_interval", "1s"),
            ("srm.keep_alive_timeout", "7s"),
            ("srm.initialization_keep_alive_timeout", "8s"),
        ],
    ]
    .concat();
    let mut rig = Rig::start(2, load(seed), &settings, &[]).await;
    rig.traffic(100).await;
    rig.kill(0);
    rig.kill(1);
    let since = std::time::Instant::now();
    rig.pair.start(1).unwrap();
    rig.until(1, LIMIT, "b leads its own group alone", |s| {
        s.groups.iter().any(|g| g.home == "b" && g.primary == "b" && g.mode == "Solo" && g.role == "Primary")
    });
    let served = since.elapsed();
    assert!(served > Duration::from_secs(7), "not before the initialization time-out: {served:?}");
    let status = rig.pair.status(1).unwrap();
    let other = status.groups.iter().find(|g| g.home == "a").unwrap();
    assert_ne!(
        (other.role.as_str(), other.release.as_str()),
        ("Primary", "own disk"),
        "a's users wait: {status:?}"
    );
    // Clients homed on b go on, those of a wait.
    let deadline = std::time::Instant::now() + LIMIT;
    while rig.fleet.snapshot().logged_in < 10 {
        assert!(std::time::Instant::now() < deadline, "{:?}\n{}", rig.fleet.snapshot(), rig.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.pair.start(0).unwrap();
    rig.until_paired(LIMIT);
    rig.clients_go_on(Duration::from_secs(60)).await;
    rig.settle().await;
}

/// A node comes back with an empty disk when the other's logs have no beginnings any more: it gets a snapshot while messages
/// flow, then the logs, and can stand in for the other. The same with an old disk.
async fn a_node_gets_a_snapshot(engine: &str) {
    let settings = [QUICK, &[("store.engine", engine), ("store.checkpoint_frames", "60")]].concat();
    let mut rig = Rig::start(2, load(seed()), &settings, &[]).await;
    // More than a snapshot sends in one piece waits for somebody who is not there.
    for user in ["sender", "absent"] {
        rig.pair.user_add(0, user, 1).unwrap();
    }
    say_to_absent(&rig).await;
    rig.traffic(400).await;
    let old = tempfile::tempdir_in(load_tests::rig::place()).unwrap();
    for disk in ["empty", "old"] {
        rig.kill(1);
        rig.clients_go_on_without(LIMIT).await;
        rig.traffic(200).await;
        let data = rig.data(1);
        let gone = data.with_extension(format!("gone-{disk}"));
        std::fs::rename(&data, &gone).unwrap();
        match disk {
            "empty" => std::fs::create_dir(&data).unwrap(),
            _ => copy_folder(old.path(), &data),
        }
        rig.pair.start(1).unwrap();
        rig.until_paired(LIMIT);
        rig.clients_go_on(LIMIT).await;
        let log = std::fs::read_to_string(rig.pair.log_file(1)).unwrap();
        let installed = log.lines().filter(|line| line.contains("snapshot installed"));
        let pieces = |line: &str| line.split_once("pieces=")?.1.split(' ').next()?.parse::<u32>().ok();
        let pieces: Vec<_> = installed.filter_map(pieces).collect();
        assert_eq!(pieces.len(), if disk == "empty" { 1 } else { 2 }, "{engine}, {disk}: {log}");
        assert!(pieces.iter().all(|pieces| *pieces >= 3), "{pieces:?}");
        rig.fallback(1).await;
        if disk == "empty" {
            // What this disk holds now is old at the next turn.
            rig.traffic(200).await;
            rig.kill(1);
            rig.clients_go_on_without(LIMIT).await;
            copy_folder(&data, old.path());
            rig.pair.start(1).unwrap();
            rig.until_paired(LIMIT);
            rig.fallback(1).await;
            rig.traffic(1_000).await;
        }
    }
    // All that there is must be on the new disk.
    rig.traffic(100).await;
    rig.kill(0);
    rig.clients_go_on_without(LIMIT).await;
    rig.traffic(100).await;
    absent_comes(&rig).await;
    rig.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_or_an_old_disk_gets_a_snapshot_of_sled() {
    a_node_gets_a_snapshot("sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_or_an_old_disk_gets_a_snapshot_of_redb() {
    a_node_gets_a_snapshot("redb").await;
}

/// Messages of 8 KiB that wait: 2.4 MB.
const WAITING: usize = 300;

async fn say_to_absent(rig: &Rig) {
    let mut sender = Person::at(&rig.pair, 0, "sender");
    sender.bound(&rig.pair).await;
    for n in 0..WAITING {
        let body = format!("{n} {}", "x".repeat(8 << 10));
        let stanza = format!(
            "<message xmlns='jabber:client' to='absent@{DOMAIN}' type='chat' id='w{n}'><body>{body}</body></message>"
        );
        sender.session.send(Outgoing { id: format!("w{n}"), bytes: stanza.into(), survives: true });
    }
    let last = format!("w{}", WAITING - 1);
    let all = |event: &Event| matches!(event, Event::Acknowledged { id } if *id == last).then_some(());
    sender.next(&rig.pair, "everything acknowledged", all).await;
}

/// And finds everything, in order.
async fn absent_comes(rig: &Rig) {
    let mut absent = Person::at(&rig.pair, 0, "absent");
    let mut came = Vec::new();
    let all = |event: &Event| {
        if let Event::Stanza(stanza) = event
            && &*stanza.head.name == "message"
        {
            came.extend(stanza.head.id.as_deref().map(str::to_owned));
        }
        (came.len() >= WAITING).then_some(())
    };
    absent.next(&rig.pair, "what waited", all).await;
    let expected: Vec<String> = (0..WAITING).map(|n| format!("w{n}")).collect();
    assert_eq!(came, expected);
}
