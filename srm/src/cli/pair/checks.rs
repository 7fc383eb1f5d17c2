//! What is looked at before a node gets its peer. Each is a check that is shown; nothing is changed by any of them.

use std::fs;
use std::path::Path;

use super::far::{self, Heard, Wrong};
use crate::admin::{CheckShown, Status};
use crate::beacon::Datagram;
use crate::config::{Config, Link, Peer};
use crate::daemon::{CLOCKS_APART_MS, free_room};
use crate::safety::Role;
use crate::setup::join::Change;
use crate::version;

/// Room that a node needs in any case: two segments of the log.
const ROOM: u64 = 128 << 20;

/// All of them, in the order in which they are to be mended.
pub(super) fn all(change: &Change, status: &Status, now_ms: impl Fn() -> u64) -> Vec<CheckShown> {
    let config = &change.config;
    let Some((peer, link)) = config.pair() else { return Vec::new() };
    let mut checks = vec![
        check("names", names(&config.node.name, &peer.name)),
        check("this node", serves(status)),
        check("disk", disk(&config.node.data)),
        check("ports", far::ports(link.listen)),
    ];
    match far::reach(peer) {
        Ok(socket) => {
            checks.push(check("connection", Ok(())));
            checks.push(check("certificates", far::certificate(socket, peer, link)));
        }
        Err(wrong) => checks.push(check("connection", Err(wrong))),
    }
    match heard(config, peer, link) {
        Ok(beacon) => {
            checks.push(check("beacons", Ok(())));
            checks.extend(told(change, peer, &beacon, now_ms()));
        }
        Err(wrong) => checks.push(check("beacons", Err(wrong))),
    }
    checks
}

fn check(what: &str, looked: Result<(), Wrong>) -> CheckShown {
    let (well, (error, hint)) = (looked.is_ok(), looked.err().unwrap_or_default());
    CheckShown { what: what.to_owned(), well, needed: true, error, hint }
}

fn names(here: &str, peer: &str) -> Result<(), Wrong> {
    if peer > here {
        return Ok(());
    }
    let hint = "give the new node a name that is: what this one holds is in that order".to_owned();
    Err((format!("{peer} is not behind {here} in the alphabet"), hint))
}

/// A node that is alone and serves its users.
fn serves(status: &Status) -> Result<(), Wrong> {
    let state = status.nodes.first().map_or("Unknown", |node| node.state.as_str());
    if state == "Normal" && status.moving.is_none() {
        return Ok(());
    }
    Err((format!("it is {state}"), "see `tandem status`; mend that first".to_owned()))
}

fn unread(data: &Path, error: &std::io::Error) -> Wrong {
    let hint = "say it as root, or as the user of the service, on the machine of this node".to_owned();
    (format!("{} cannot be looked at: {error}", data.display()), hint)
}

fn disk(data: &Path) -> Result<(), Wrong> {
    let used = size(data).map_err(|error| unread(data, &error))?;
    let free = free_room(data).map_err(|error| unread(data, &error))?;
    room(free, used).map_err(|(error, hint)| (format!("{}: {error}", data.display()), hint))
}

/// While the new node gets everything, the log grows that it has not got yet; what is replaced stays until it has.
fn room(free: u64, used: u64) -> Result<(), Wrong> {
    let wanted = used.max(ROOM);
    if free >= wanted {
        return Ok(());
    }
    let (free, wanted) = (free >> 20, wanted >> 20);
    Err((format!("{free} MiB are free, and {wanted} MiB are wanted"), "make room on this disk".to_owned()))
}

/// What the new node tells of its disk, beside what comes to it from here.
fn room_there(peer: &str, free: Option<u64>, data: &Path) -> Result<(), Wrong> {
    let of = |part: &str| size(&data.join(part)).map_err(|error| unread(data, &error));
    fits_there(peer, free, of("store")?, of("log")?)
}

/// The store comes whole; what the new node writes of it again while it comes stays beside it until it is compacted. So twice of
/// it, and as much log as is kept here: that comes behind it, or, if it reaches back to the beginning, instead.
fn fits_there(peer: &str, free: Option<u64>, store: u64, log: u64) -> Result<(), Wrong> {
    let Some(free) = free else {
        let error = format!("{peer} does not tell how much room its disk has");
        return Err((
            error,
            format!("see on its machine whether its data folder is there: {peer} looks again"),
        ));
    };
    let wanted = store.saturating_mul(2).saturating_add(log).max(ROOM);
    if free >= wanted {
        return Ok(());
    }
    let (free, wanted) = (free >> 20, wanted.div_ceil(1 << 20));
    let error = format!(
        "{free} MiB are free on the disk of {peer}, and {wanted} MiB are wanted: the store of this node twice, and its log"
    );
    Err((error, format!("make room on the disk of {peer}, or start it with its data folder on a larger one")))
}

fn size(folder: &Path) -> std::io::Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What the node has removed meanwhile needs no room.
        let Ok(about) = entry.metadata() else { continue };
        all += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(all)
}

fn heard(config: &Config, peer: &Peer, link: &Link) -> Result<Datagram, Wrong> {
    let (name, here) = (&peer.name, link.listen);
    match far::beacon(link, 1 - config.index() as u8)? {
        Heard::Beacon(beacon) => Ok(*beacon),
        Heard::Strangers => {
            let error = format!("what comes to {here} (UDP) is not signed with the secret of this pair");
            Err((
                error,
                format!("give {name} the folder that was made together with this node's, and start it anew"),
            ))
        }
        Heard::Nothing => {
            let error = format!("no beacon of {name} comes to {here} (UDP)");
            let hint = format!(
                "start {name}; open this port for it in the firewall here; and see that [peer] there names this host and port"
            );
            Err((error, hint))
        }
    }
}

/// What the beacon tells.
fn told(change: &Change, peer: &Peer, beacon: &Datagram, now_ms: u64) -> Vec<CheckShown> {
    let config = &change.config;
    vec![
        check("settings", settings(change, beacon)),
        check("versions", versions(&peer.name, &beacon.program.version)),
        check("clocks", clocks(beacon.program.clock_ms, now_ms)),
        check("users", nobody(&peer.name, beacon)),
        check("room", room_there(&peer.name, beacon.program.room, &config.node.data)),
    ]
}

fn settings(change: &Change, beacon: &Datagram) -> Result<(), Wrong> {
    if beacon.config == change.config.hash() {
        return Ok(());
    }
    let found = change.differences();
    let where_ = match found.as_slice() {
        // The files that were made agree: the other node runs with another one.
        [] => "its running node has others than the file that was made for it".to_owned(),
        found => found.join("; "),
    };
    let hint = "make them equal in the file of the new node, and start it anew; `tandem config check` says on each node what they are";
    Err((format!("the nodes' clusterwide settings differ: {where_}"), hint.to_owned()))
}

fn versions(peer: &str, version: &str) -> Result<(), Wrong> {
    let own = version::program();
    if version == own {
        return Ok(());
    }
    let told = if version.is_empty() { "an older version, which does not tell it," } else { version };
    Err((
        format!("{peer} runs {told} and this node's program is {own}"),
        "install the same version on both".to_owned(),
    ))
}

fn clocks(there_ms: u64, here_ms: u64) -> Result<(), Wrong> {
    let apart = here_ms.abs_diff(there_ms);
    if apart < CLOCKS_APART_MS {
        return Ok(());
    }
    let error = format!("the clocks of the nodes differ by {} s", apart / 1_000);
    Err((error, "see to it that both run NTP: `chronyc tracking`".to_owned()))
}

/// Two nodes that serve the same users are what must never be. A node with nothing never serves by itself, however long it waits;
/// one that was of a pair may, after its initialization time-out.
fn nobody(peer: &str, beacon: &Datagram) -> Result<(), Wrong> {
    let leads =
        beacon.told.knows || beacon.groups.iter().any(|group| group.role == Role::Primary || group.alone);
    let was_of_a_pair = beacon.told.ha_off || beacon.groups.iter().any(|group| group.reg.term.0 != 0);
    let error = if leads {
        format!("{peer} serves users by itself already")
    } else if was_of_a_pair {
        format!("{peer} still has the data of a pair")
    } else {
        return Ok(());
    };
    let hint =
        format!("stop {peer}, move its data folder away, and start it: it gets everything from this node");
    Err((error, hint))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use presence_engine::ids::{Mode, NodeIx, Reg, Term};

    use super::*;
    use crate::admin::NodeStatus;
    use crate::beacon::{Program, Secret, Told};
    use crate::safety;
    use crate::setup::{NodePlan, Plan, free_ports, grow, join};

    const NOW_MS: u64 = 1_795_000_000_000;

    fn wrong(looked: Result<(), Wrong>) -> String {
        looked.unwrap_err().0
    }

    fn beacon(told: Told, groups: [safety::Beacon; 2]) -> Datagram {
        Datagram {
            node: 1,
            boot: 5,
            to_boot: 0,
            number: 1_000_000,
            config: 1,
            activity: Default::default(),
            turn: Default::default(),
            heard: 0,
            lease: [0; 2],
            told,
            groups,
            program: Default::default(),
        }
    }

    fn group(term: u64, role: Role) -> safety::Beacon {
        let reg = Reg { term: Term(term), primary: NodeIx::A, mode: Mode::Pair, settled: Term(0) };
        safety::Beacon { reg, role, ack: None, holds: false, alone: false, took_other: false, stopped: false }
    }

    #[test]
    fn each_limit_has_two_sides() {
        assert_eq!(room(ROOM, 5), Ok(()));
        assert_eq!(wrong(room(ROOM - 1, 5)), "127 MiB are free, and 128 MiB are wanted");
        assert_eq!(wrong(room(ROOM, 2 * ROOM)), "128 MiB are free, and 256 MiB are wanted");
        assert_eq!(fits_there("b", Some(ROOM), ROOM / 4, ROOM / 2), Ok(()));
        let told = "127 MiB are free on the disk of b, and 128 MiB are wanted: the store of this node twice, and its log";
        assert_eq!(wrong(fits_there("b", Some(ROOM - 1), 0, 0)), told);
        assert!(
            wrong(fits_there("b", Some(ROOM), ROOM / 4 + 1, ROOM / 2)).contains("and 129 MiB are wanted")
        );
        assert_eq!(wrong(fits_there("b", None, 0, 0)), "b does not tell how much room its disk has");
        assert_eq!(names("a", "b"), Ok(()));
        assert_eq!(wrong(names("b", "a")), "a is not behind b in the alphabet");
        assert_eq!(clocks(1_000_000, 1_004_999), Ok(()));
        assert_eq!(wrong(clocks(1_005_000, 1_000_000)), "the clocks of the nodes differ by 5 s");
        assert_eq!(wrong(clocks(0, 9_000)), "the clocks of the nodes differ by 9 s");
    }

    #[test]
    fn a_node_that_has_nothing_may_have_waited_for_long_and_one_that_was_of_a_pair_is_none_that_joins() {
        let nothing = group(0, Role::Fenced);
        let plain = Told::default();
        assert_eq!(nobody("b", &beacon(plain, [nothing; 2])), Ok(()));
        let of_a_pair = "b still has the data of a pair";
        // High availability is on there: after its initialization time-out it would serve its users of then.
        assert_eq!(wrong(nobody("b", &beacon(plain, [nothing, group(4, Role::Fenced)]))), of_a_pair);
        assert_eq!(wrong(nobody("b", &beacon(Told { ha_off: true, ..plain }, [nothing; 2]))), of_a_pair);
        let serves = "b serves users by itself already";
        assert_eq!(wrong(nobody("b", &beacon(plain, [nothing, group(4, Role::Primary)]))), serves);
        assert_eq!(wrong(nobody("b", &beacon(Told { knows: true, ..plain }, [nothing; 2]))), serves);
    }

    #[test]
    fn another_version_is_told_and_one_that_says_nothing_too() {
        assert_eq!(versions("b", env!("CARGO_PKG_VERSION")), Ok(()));
        assert!(wrong(versions("b", "0.0.9")).starts_with("b runs 0.0.9 and"));
        assert!(wrong(versions("b", "")).starts_with("b runs an older version"));
    }

    /// Of a node with these files and a peer that says this, and accepts no connection: the checks that fail.
    fn failed(change: &Change, status: &Status, said: &Datagram) -> Vec<String> {
        let (_, link) = change.config.pair().unwrap();
        let words = said.encode(&Secret::all(&link.secret.derive_all("beacon")));
        let over = AtomicBool::new(false);
        let speaks = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            while !over.load(Ordering::Relaxed) {
                // Until the checks listen nobody does.
                let _ = socket.send_to(&words, link.listen);
                thread::sleep(Duration::from_millis(10));
            }
        };
        let checks = thread::scope(|scope| {
            scope.spawn(speaks);
            let checks = all(change, status, || NOW_MS);
            over.store(true, Ordering::Relaxed);
            checks
        });
        let names: Vec<_> = checks.iter().map(|check| check.what.as_str()).collect();
        let expected =
            "names, this node, disk, ports, connection, beacons, settings, versions, clocks, users, room";
        assert_eq!(names.join(", "), expected);
        checks.into_iter().filter(|check| !check.well).map(|check| check.what).collect()
    }

    #[test]
    fn each_is_made_of_what_it_is_about() {
        let dir = tempfile::tempdir().unwrap();
        Plan::local_single("im.example", dir.path()).unwrap().make().unwrap();
        let listen = IpAddr::from([127, 0, 0, 1]);
        let ports = free_ports(2).unwrap();
        let (host, name) = (listen.to_string(), "b".to_owned());
        let new = NodePlan { name, host: host.clone(), listen, ports: ports[1] };
        grow::pair(dir.path(), &host, (listen, ports[0].link).into(), &new).unwrap();
        let mut change = join::with_peer(&dir.path().join("a/tandem.toml"), dir.path()).unwrap();
        change.config.node.data = dir.path().join("data");
        for part in ["store", "log"] {
            fs::create_dir_all(dir.path().join("data").join(part)).unwrap();
        }
        let status = |state: &str| {
            let node = NodeStatus { state: state.to_owned(), ..NodeStatus::default() };
            Status { nodes: vec![node], ..Status::default() }
        };
        let well = Datagram {
            config: change.config.hash(),
            program: Program::of_this_node(NOW_MS, Some(1 << 50)),
            ..beacon(Told::default(), [group(0, Role::Fenced); 2])
        };
        // Nobody accepts the link, and so there is no certificate to be looked at.
        assert_eq!(failed(&change, &status("Normal"), &well), ["connection"]);
        assert_eq!(failed(&change, &status("Initializing"), &well), ["this node", "connection"]);
        let program = |program: Program| Datagram { program, ..well.clone() };
        let of_a_pair = [group(0, Role::Fenced), group(4, Role::Fenced)];
        for (what, said) in [
            ("settings", Datagram { config: 1, ..well.clone() }),
            ("versions", program(Program { version: "0.0.9".into(), ..well.program.clone() })),
            ("clocks", program(Program { clock_ms: NOW_MS + 9_000, ..well.program.clone() })),
            ("users", Datagram { groups: of_a_pair, ..well.clone() }),
            ("room", program(Program { room: Some(ROOM - 1), ..well.program.clone() })),
        ] {
            assert_eq!(failed(&change, &status("Normal"), &said), ["connection", what]);
        }
        fs::remove_dir_all(dir.path().join("data")).unwrap();
        assert_eq!(failed(&change, &status("Normal"), &well), ["disk", "connection", "room"]);
    }
}
