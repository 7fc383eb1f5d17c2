//! In the middle of an upgrade, while the nodes are of two versions: what would be written down by both waits for its end.

#![allow(clippy::result_large_err, reason = "what is refused is told once")]

use std::time::{Duration, Instant};

use load_tests::rig::{Nodes, QUICK, last_lines};
use rustix::process::Signal;
use srm::admin::{GroupShown, Status, UserStatus};
use srm::cli::{Client, Failure};
use srm::demo::pair::DOMAIN;

const LIMIT: Duration = Duration::from_secs(30);
const OLDER: &str = "0.0.9";

/// Something that an operator asks for.
type Ask<'a> = (&'static str, Box<dyn Fn(&Client) -> Result<(), Failure> + 'a>);

fn client(pair: &Nodes, node: usize) -> Client {
    let made = &pair.made.nodes[node];
    Client::at(made.admin, &made.token_file).unwrap_or_else(|f| panic!("{f:?}"))
}

/// What it answers as soon as the nodes take it: what was asked before it may still be on its way.
fn soon<T>(pair: &Nodes, what: &str, ask: impl Fn() -> Result<T, Failure>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(f) => assert!(Instant::now() < deadline, "{what}: {f:?}\n{}", last_lines(pair)),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Node b is another process, of this version.
fn restart(pair: &mut Nodes, version: Option<&str>) {
    pair.signal(1, Signal::TERM).unwrap();
    assert!(pair.wait(1, LIMIT).unwrap().success(), "{}", last_lines(pair));
    pair.env(1, "TANDEM_PROGRAM_VERSION", version);
    pair.start(1).unwrap();
    let differ = |alarm: &String| alarm.contains(" runs version ") && alarm.contains("finish the upgrade");
    let wanted = |s: &Status| {
        let met = s.nodes.len() == 2 && s.groups.len() == 2 && s.groups.iter().all(|g| g.mode == "Pair");
        met && s.alarms.iter().any(differ) == version.is_some()
    };
    let met = pair.wait_all(LIMIT, "Pair, and the other's version is known", wanted);
    met.unwrap_or_else(|error| panic!("{error}\n{}", last_lines(pair)));
}

/// Name and description of the group, whether it is highly available, its users, and checks that have ended.
type Written = (String, String, bool, Vec<UserStatus>, Vec<u64>);

/// What both nodes have written of the group and of accounts, and how many checks they have made.
fn written(pair: &Nodes) -> Vec<Written> {
    let of = |node: usize| {
        let GroupShown { name, description, high_availability, .. } =
            client(pair, node).group().unwrap_or_else(|f| panic!("{f:?}"));
        let checks = pair.status(node).unwrap().nodes.iter().map(|n| n.check.ended).collect();
        (name, description, high_availability, pair.users(node).unwrap(), checks)
    };
    [0, 1].map(of).into()
}

fn homes(pair: &Nodes, node: usize) -> [usize; 2] {
    let users = pair.users(node).unwrap();
    ["a", "b"].map(|home| users.iter().filter(|user| user.home == home).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_nodes_of_two_versions_nothing_is_written_that_the_older_one_may_not_know() {
    let mut pair = Nodes::start(2, QUICK).await;
    let users = ["anna", "berta"].map(|user| {
        pair.user_add(0, user, 0).unwrap();
        format!("{user}@{DOMAIN}")
    });
    client(&pair, 0).ha(false, false).unwrap_or_else(|f| panic!("{f:?}"));
    restart(&mut pair, Some(OLDER));
    let before = written(&pair);
    assert!(before.iter().all(|(name, _, on, users, _)| !name.is_empty() && !on && users.len() == 2));

    let asks: [Ask<'_>; 7] = [
        ("create", Box::new(|c| c.group_create("office", "").map(drop))),
        ("edit", Box::new(|c| c.group_edit(None, Some("third floor")).map(drop))),
        ("delete", Box::new(|c| c.group_delete().map(drop))),
        ("ha enable", Box::new(|c| c.ha(true, false).map(drop))),
        ("assign", Box::new(|c| c.assign(&users[0], Some("b")).map(drop))),
        ("rebalance", Box::new(|c| c.rebalance().map(drop))),
        ("check", Box::new(|c| c.check().map(drop))),
    ];
    for node in [0, 1] {
        for (what, ask) in &asks {
            let Err(Failure { refusal, .. }) = ask(&client(&pair, node)) else {
                panic!("{what} was done, asked at {node}\n{}", last_lines(&pair));
            };
            let names = ["a", "b"].map(|name| format!("{name} runs version "));
            assert!(refusal.error.contains(&names[1 - node]), "{what}: {refusal:?}");
            assert!(refusal.error.contains(OLDER), "{what}: {refusal:?}");
            let told = format!("{}: {}", refusal.error, refusal.hint);
            let hint = if *what == "ha enable" { "same version on both" } else { "finish the upgrade first" };
            assert!(told.contains("finish the upgrade") && told.contains(hint), "{what}: {told}");
        }
    }
    assert_eq!(written(&pair), before, "nothing was changed");

    // The upgrade is finished, and all of it is done.
    restart(&mut pair, None);
    soon(&pair, "ha enable", || client(&pair, 0).ha(true, false));
    pair.wait_normal(LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", last_lines(&pair)));
    assert_eq!(soon(&pair, "check", || client(&pair, 0).check()), ["a", "b"]);
    soon(&pair, "rebalance", || client(&pair, 0).rebalance());
    let reached = |wanted: [usize; 2]| {
        let fits = |_: &Status| [0, 1].iter().all(|node| homes(&pair, *node) == wanted);
        let reached = pair.wait_all(LIMIT, &format!("homes {wanted:?}"), fits);
        reached.unwrap_or_else(|error| panic!("{error}\n{}", last_lines(&pair)));
    };
    reached([1, 1]);
    for user in &users {
        soon(&pair, "assign", || client(&pair, 0).assign(user, Some("b")));
    }
    reached([0, 2]);
    for user in &users {
        soon(&pair, "unassign", || client(&pair, 0).assign(user, None));
    }
    soon(&pair, "ha disable", || client(&pair, 0).ha(false, false));
    soon(&pair, "delete", || client(&pair, 0).group_delete());
    assert_eq!(soon(&pair, "create", || client(&pair, 0).group_create("office", "")).name, "office");
}
