//! A node that has lost an account of the other, as by an error of the program: its store knows of no damage, and its log says
//! nothing of it. `tandem check` finds it, and users are not moved there until that is mended as it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use load_tests::rig::{Load, QUICK, Rig, seed, tandem};
use presence_engine::state::Key;
use serde_json::{Value, json};
use session_mover::store::{Batch, Checked, RedbStore, Store};
use srm::cli::Client;
use srm::demo::pair::DOMAIN;
use xmpp_core::jid::BareJid;

const LIMIT: Duration = Duration::from_secs(30);

/// Takes an account out of the store of a node that does not run. All else stays as it was written.
fn lose(data: &Path, user: &str) {
    let mut store = Checked::new(RedbStore::open(&data.join("store/redb")).unwrap());
    let key = Key::User(BareJid::parse(user).unwrap()).to_bytes();
    let (mut after, mut there) = (Bytes::new(), false);
    loop {
        let some = store.scan(&after, 1 << 20).unwrap();
        let Some((last, _)) = some.last() else { break };
        after = last.clone();
        there |= some.iter().any(|(known, _)| known[..] == key[..]);
    }
    assert!(there, "a checkpoint has the account");
    let mark = store.mark().unwrap().expect("there is a checkpoint");
    store.write(Batch { pairs: vec![(key, None)], mark }).unwrap();
    store.flush().unwrap();
}

/// `tandem check` at a node: its exit code, what programs are told, and what people are.
fn check(rig: &Rig, node: usize) -> (Option<i32>, Value, String) {
    let mut command = Command::new(tandem());
    command.args(["check", "--json", "-c"]).arg(&rig.pair.made.nodes[node].config);
    let done = command.output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let said = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{told}"));
    (done.status.code(), said, told.into_owned())
}

fn owners(rig: &Rig) -> Vec<String> {
    let users = rig.pair.users(0).expect("a answers");
    users.into_iter().map(|user| user.owner).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_finds_what_a_node_has_lost_and_nobody_is_moved_there_until_it_is_mended() {
    let settings = [QUICK, &[("store.engine", "redb"), ("store.checkpoint_frames", "60")]].concat();
    let load = Load { users: 8, plain: 0.25, interval: Duration::from_millis(100), seed: seed() };
    let mut rig = Rig::start(2, load, &settings, &[]).await;
    // Nobody logs in there: what b has of it is what the store says.
    rig.pair.user_add(0, "quiet", 0).unwrap();
    rig.traffic(600).await;
    let quiet = format!("quiet@{DOMAIN}");
    let (code, said, _) = check(&rig, 0);
    assert_eq!((code, &said["nodes"]["a"]["different"]), (Some(0), &json!(0)), "{said}");

    rig.kill(1);
    rig.clients_go_on(LIMIT).await;
    lose(&rig.data(1), &quiet);
    rig.pair.start(1).unwrap();
    rig.until_paired(LIMIT);
    let (code, said, told) = check(&rig, 0);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!((&said["ok"], &said["nodes"]["a"]["different"]), (&json!(false), &json!(1)), "{said}");
    assert_eq!(said["nodes"]["a"]["named"], json!([quiet]));
    assert_eq!(said["nodes"]["b"]["different"], 0, "{said}");
    assert!(told.contains(&format!("are held otherwise by b: {quiet}")), "{told}");
    assert!(told.contains("stop b, move its data folder away, and start it again"), "{told}");
    let made = &rig.pair.made.nodes[0];
    let a = Client::at(made.admin, &made.token_file).unwrap_or_else(|failure| panic!("{failure:?}"));
    let events = a.events(0, 1_000, 0).unwrap_or_else(|failure| panic!("{failure:?}"));
    let failed = events.iter().find(|record| record.event == "check-failed");
    let failed = failed.unwrap_or_else(|| panic!("{events:#?}"));
    assert!(failed.text.contains(&format!("were compared with b, 1 differ ({quiet})")), "{failed:?}");
    let differs = |alarm: &String| alarm.starts_with("b holds 1 of the accounts of a otherwise than a does");
    rig.until(0, LIMIT, "an alarm", |s| s.alarms.iter().any(differs));

    // All users are at a, and stay there.
    let asked = Instant::now();
    while let Err(error) = rig.pair.action(0, 1, "fallback") {
        let again = error.to_string().contains("is not heard") && asked.elapsed() < LIMIT;
        assert!(again, "{error}\n{}", rig.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pauses = "fallback paused: b holds some accounts otherwise than a";
    rig.until(0, LIMIT, "the fallback pauses", |s| {
        s.moving.as_ref().is_some_and(|moving| moving.done == 0)
            && s.alarms.iter().any(|alarm| alarm.starts_with(pauses))
    });
    rig.traffic(50).await;
    assert!(owners(&rig).iter().all(|owner| owner == "a"), "{:?}", owners(&rig));

    // As the command says.
    rig.kill(1);
    rig.clients_go_on_without(LIMIT).await;
    let data = rig.data(1);
    fs::rename(&data, data.with_extension("lost")).unwrap();
    fs::create_dir(&data).unwrap();
    rig.pair.start(1).unwrap();
    rig.until(0, LIMIT, "b has everything", |s| {
        s.groups.iter().all(|g| g.mode == "Pair") && s.moving.is_none() && s.alarms.iter().all(differs)
    });
    let (code, said, told) = check(&rig, 0);
    assert_eq!((code, &said["nodes"]["a"]["different"]), (Some(0), &json!(0)), "{said}{told}");
    assert_eq!(said["nodes"]["a"]["users"], 9, "all were compared: {said}");
    rig.until_paired(LIMIT);
    rig.fallback(1).await;
    assert!(owners(&rig).iter().any(|owner| owner == "b"), "{:?}", owners(&rig));
    rig.traffic(50).await;
    rig.settle().await;
}
