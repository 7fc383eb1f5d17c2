//! Whether one machine has room for all clients and both nodes: looked at before anything is started.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::bail;
use rustix::process::{Resource, getrlimit};

/// Streams of a user.
const STREAMS: u64 = 2;
/// Files that this process needs besides one for each stream.
const OTHER_FILES: u64 = 200;
/// The same of this process, the nodes and the rest of the machine together.
const OTHER_FILES_OF_ALL: u64 = 2_000;
/// Local ports, and connections that a firewall follows, of a user: its streams, and as many attempts that are over and not
/// forgotten yet.
const USER_PORTS: u64 = 2 * STREAMS;
/// Memory that is reckoned for a user: both ends of its streams, in this process, the nodes and the kernel. Rather too much.
const USER_KIB: u64 = 128;
/// The same without users.
const OTHER_KIB: u64 = 512 << 10;
/// Most addresses that clients come from.
const MOST_ADDRESSES: u8 = 250;

/// What there is; `None`: without limit, or not known.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Files that this process may open, and each node that it starts.
    files: Option<u64>,
    /// Files that may still be opened on the machine.
    files_of_all: Option<u64>,
    /// Connections that the firewall can still follow.
    followed: Option<u64>,
    /// Local ports of each address that the system gives to connections.
    ports: u64,
    /// Memory, in KiB.
    memory_kib: Option<u64>,
}

impl Room {
    /// Now, on this machine.
    pub fn now() -> Room {
        let files_of_all = match numbers("/proc/sys/fs/file-nr")[..] {
            [open, _, most] => Some(most.saturating_sub(open)),
            _ => None,
        };
        let followed =
            |what: &str| numbers(&format!("/proc/sys/net/netfilter/nf_conntrack_{what}")).first().copied();
        let ports = match numbers("/proc/sys/net/ipv4/ip_local_port_range")[..] {
            [first, last] => (last + 1).saturating_sub(first),
            _ => 28_232,
        };
        // A container may have less than the machine.
        let most_kib = numbers("/sys/fs/cgroup/memory.max").first().map(|bytes| bytes / 1024);
        Room {
            files: getrlimit(Resource::Nofile).current,
            files_of_all,
            followed: followed("max").map(|most| most.saturating_sub(followed("count").unwrap_or(0))),
            ports,
            memory_kib: [available_kib(), most_kib].into_iter().flatten().min(),
        }
    }

    /// Whether so many users fit; if not, everything that is short, and what to do.
    pub fn holds(&self, users: u64) -> anyhow::Result<()> {
        let files = STREAMS * users + OTHER_FILES;
        let raise = format!("raise the hard limit (`ulimit -Hn {files}` as root)");
        let addresses = users.div_ceil(self.users_of_address());
        let memory_mib = (USER_KIB * users + OTHER_KIB) >> 10;
        let short = [
            short("open files in a process", files, self.files, &raise),
            short(
                "open files on the machine",
                // Both ends of each stream are here.
                2 * STREAMS * users + OTHER_FILES_OF_ALL,
                self.files_of_all,
                "raise fs.file-max (`sysctl -w`, as root)",
            ),
            short(
                "connections that the firewall follows",
                USER_PORTS * users,
                self.followed,
                "raise net.netfilter.nf_conntrack_max (`sysctl -w`, as root)",
            ),
            short(
                "addresses of loopback, with so few local ports each",
                addresses,
                Some(u64::from(MOST_ADDRESSES)),
                "widen net.ipv4.ip_local_port_range (`sysctl -w`, as root)",
            ),
            short(
                "MiB of memory",
                memory_mib,
                self.memory_kib.map(|kib| kib >> 10),
                "end what else takes memory, or take a larger machine",
            ),
        ];
        let short: Vec<String> = short.into_iter().flatten().collect();
        if !short.is_empty() {
            bail!("this machine has no room for {users} users: {}; or take fewer --users", short.join("; "));
        }
        Ok(())
    }

    /// The addresses that the clients of so many users come from; none where the one that the system takes is enough.
    pub fn addresses(&self, users: u64) -> Vec<IpAddr> {
        let needed = users.div_ceil(self.users_of_address());
        let needed = u8::try_from(needed).map_or(MOST_ADDRESSES, |needed| needed.min(MOST_ADDRESSES));
        if needed <= 1 {
            return Vec::new();
        }
        (1..=needed).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect()
    }

    fn users_of_address(&self) -> u64 {
        (self.ports / USER_PORTS).max(1)
    }
}

/// What is short, if it is.
fn short(what: &str, needed: u64, there: Option<u64>, remedy: &str) -> Option<String> {
    let there = there.filter(|there| *there < needed)?;
    Some(format!("{needed} {what} are needed and {there} are to be had: {remedy}"))
}

/// The numbers in a file of the kernel; none if it is not there.
fn numbers(path: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn available_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Room = Room {
        files: Some(50_200),
        files_of_all: Some(102_000),
        followed: Some(100_000),
        ports: 28_232,
        memory_kib: Some(4 << 20),
    };

    fn refused(room: Room) -> String {
        room.holds(25_000).unwrap_err().to_string()
    }

    #[test]
    fn what_is_short_is_told_with_what_to_do() {
        assert!(ENOUGH.holds(25_000).is_ok());
        let unknown = Room { files: None, files_of_all: None, followed: None, memory_kib: None, ..ENOUGH };
        assert!(unknown.holds(25_000).is_ok());
        let each = [
            (Room { files: Some(50_199), ..ENOUGH }, "ulimit -Hn 50200"),
            (Room { files_of_all: Some(101_999), ..ENOUGH }, "fs.file-max"),
            (Room { followed: Some(99_999), ..ENOUGH }, "nf_conntrack_max"),
            (Room { ports: 100, ..ENOUGH }, "ip_local_port_range"),
            (Room { memory_kib: Some(2 << 20), ..ENOUGH }, "a larger machine"),
        ];
        for (room, remedy) in each {
            let error = refused(room);
            assert!(error.contains(remedy) && error.contains("fewer --users"), "{remedy}: {error}");
            assert_eq!(error.matches("are needed").count(), 1, "only what is short: {error}");
        }
        let two = refused(Room { files: Some(1_024), followed: Some(65_536), ..ENOUGH });
        assert!(two.contains("ulimit -Hn") && two.contains("nf_conntrack_max"), "all at once: {two}");
    }

    #[test]
    fn this_machine_has_room_for_one() {
        Room::now().holds(1).unwrap();
    }

    #[test]
    fn no_address_has_more_connections_than_ports() {
        assert_eq!(ENOUGH.addresses(5_000), Vec::<IpAddr>::new(), "the system's own choice");
        for users in [15_000, 25_000] {
            let addresses = ENOUGH.addresses(users);
            assert!(users * USER_PORTS <= addresses.len() as u64 * ENOUGH.ports, "{addresses:?}");
            assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        }
        assert_eq!(ENOUGH.addresses(25_000).len(), 4);
        assert_eq!(Room { ports: 0, ..ENOUGH }.addresses(25_000).len(), usize::from(MOST_ADDRESSES));
    }
}
