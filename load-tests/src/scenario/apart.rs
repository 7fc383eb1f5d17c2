//! Two nodes with a path between them that can be made long and narrow: for measurements. Who measures is where the clients
//! are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use client_sim::fleet::user_name;
use rustix::process::Signal;
use srm::admin::Status;
use srm::demo::pair::PASSWORD;
use xmpp_core::dual::Peer;

use super::language::{Node, PathFaults, Site};
use super::net::{Net, address};
use super::node::Server;
use super::programs::Programs;
use super::watch::{ADMIN, http};
use super::world::{Folder, init};
use super::{disk, own_prefix};

/// What the disks of both nodes may hold together.
const MEGABYTES: u64 = 2048;
/// The port that `tandem init` gives a machine of its own, for clients that begin with TLS.
const DIRECT: u16 = 5223;
/// Accounts that are added at the same time.
const AT_ONCE: usize = 8;
/// Longest time that a killed process may take to end.
const END: Duration = Duration::from_secs(10);
/// Settings besides those of whoever measures: all clients come from one address, and nothing depends on the time of the day.
const USUAL: [(&str, &str); 2] =
    [("limits.connections_per_minute", "100000000"), ("srm.nightly_check", "false")];
/// Beginnings of the alarms of a node that is without a standby, or is none.
const UNPROTECTED: [&str; 3] = ["unprotected", "cannot take over", "fenced"];

/// Two nodes, each on a network of its own, with their data in memory. What stands first is dropped first.
pub struct Apart {
    servers: [Server; 2],
    net: Net,
    folder: Folder,
}

impl Apart {
    /// Makes a pair as `tandem init` does, and starts it. The calling thread, and every thread that it starts from now on, is
    /// where the clients are; there is one of this in a process.
    pub fn make(tandem: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Apart> {
        let folder = Folder(std::env::temp_dir().join(format!("{}apart", own_prefix())));
        disk::mount_memory(&folder.0, MEGABYTES).map_err(anyhow::Error::msg)?;
        let net = Net::make(0, 0).map_err(anyhow::Error::msg)?;
        let pair = folder.0.join("pair");
        init(tandem, &pair, address, None).map_err(anyhow::Error::msg)?;
        let programs = Programs::new(tandem);
        let servers =
            Node::BOTH.map(|node| Server::new(node, pair.join(node.to_string()), programs.present(None)));
        let all = USUAL.iter().chain(settings);
        let all: Vec<_> = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut apart = Apart { servers, net, folder };
        for server in &mut apart.servers {
            server.set(&all)?;
            server.start(&apart.net).map_err(anyhow::Error::msg)?;
        }
        Ok(apart)
    }

    /// From now on what goes from one node to the other takes so long each way, and no more bits a second than these.
    pub fn lay(&mut self, one_way: Duration, rate: Option<u64>) -> anyhow::Result<()> {
        let path = PathFaults { delay: one_way, rate, ..PathFaults::default() };
        let [a, b] = Node::BOTH.map(Site::Node);
        self.net.lay_path(a, b, &path).map_err(anyhow::Error::msg)
    }

    /// Bytes of IP packets that node a has sent on the present path and got from it, as its network interface counts them.
    pub fn on_link(&self) -> anyhow::Result<u64> {
        let table = self.inside(Node::A, || fs::read_to_string("/proc/thread-self/net/dev"))?;
        bytes_of(&table, "path-b").with_context(|| format!("there is no path between the nodes:\n{table}"))
    }

    /// The certificate that clients trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.0.join("pair/ca/ca.pem")
    }

    /// Where clients connect.
    pub fn places(&self) -> Vec<Peer> {
        let place = |node: Node| Peer {
            node: node.to_string().into(),
            host: address(node).to_string().into(),
            port: DIRECT,
            direct_tls: true,
        };
        Node::BOTH.map(place).to_vec()
    }

    /// Adds `u0`, `u1`, ... with these homes.
    pub fn add_users(&self, homes: &[usize]) -> anyhow::Result<()> {
        for node in Node::BOTH {
            let users: Vec<usize> = (0..homes.len()).filter(|user| homes[*user] == node.index()).collect();
            let token = self.servers[node.index()].token()?;
            let next = AtomicUsize::new(0);
            let add = || -> io::Result<()> {
                let http = http();
                while let Some(user) = users.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let body = serde_json::json!({ "user": user_name(*user), "password": PASSWORD,
                                                   "home": node.to_string() });
                    let asked = http.post(format!("{ADMIN}/v1/users")).header("Authorization", &token);
                    asked.send_json(&body).map_err(ureq::Error::into_io)?;
                }
                Ok(())
            };
            // Threads that a thread starts are in its namespace.
            self.inside(node, || {
                std::thread::scope(|scope| {
                    let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(add)).collect();
                    workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
                })
            })
            .context("accounts cannot be added")?;
        }
        Ok(())
    }

    /// What a node shows of both.
    fn status(&self, node: Node) -> anyhow::Result<Status> {
        let token = self.servers[node.index()].token()?;
        let status = self.inside(node, || {
            let asked = http().get(format!("{ADMIN}/v1/status")).header("Authorization", &token).call();
            asked.and_then(|mut answer| answer.body_mut().read_json()).map_err(ureq::Error::into_io)
        });
        status.with_context(|| format!("node {node} does not tell its status"))
    }

    /// Whether each node is a standby of the other, as both say.
    pub fn is_protected(&self) -> bool {
        Node::BOTH.iter().all(|node| self.status(*node).is_ok_and(|status| is_protected(&status)))
    }

    /// Waits until they are.
    pub fn until_protected(&self, limit: Duration) -> anyhow::Result<()> {
        self.until(limit, "each node is a standby of the other", Apart::is_protected)
    }

    fn until(&self, limit: Duration, what: &str, is_so: impl Fn(&Apart) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !is_so(self) {
            if Instant::now() > deadline {
                bail!("not within {limit:?}: {what}; the nodes said:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends node b at once, takes its data away, and waits until node a goes on alone.
    pub fn lose_b(&mut self, limit: Duration) -> anyhow::Result<()> {
        let b = &mut self.servers[Node::B.index()];
        b.signal(Signal::KILL).and_then(|_| b.wait(END)).map_err(anyhow::Error::msg)?;
        disk::replace(None, &b.data()).map_err(anyhow::Error::msg)?;
        self.until(limit, "node a goes on alone", |apart| {
            apart.status(Node::A).is_ok_and(|status| status.groups.iter().all(|group| group.mode == "Solo"))
        })
    }

    /// Starts node b, which has nothing; when that was.
    pub fn start_b(&mut self) -> anyhow::Result<Instant> {
        let since = Instant::now();
        let (b, net) = (&mut self.servers[Node::B.index()], &self.net);
        b.start(net).map_err(anyhow::Error::msg)?;
        Ok(since)
    }

    /// The last lines of both logs.
    pub fn said(&self) -> String {
        let last = |server: &Server| {
            let log = server.whole_log();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {}\n{}", server.node, lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.servers.iter().map(last).collect::<Vec<_>>().join("\n")
    }

    fn inside<T>(&self, node: Node, act: impl FnOnce() -> io::Result<T>) -> anyhow::Result<T> {
        self.net.inside(Site::Node(node), act).map_err(|error| anyhow!("at node {node}: {error}"))
    }
}

fn is_protected(status: &Status) -> bool {
    let named = |alarm: &String| UNPROTECTED.iter().any(|beginning| alarm.starts_with(beginning));
    status.groups.iter().all(|group| group.mode == "Pair")
        && status.moving.is_none()
        && !status.alarms.iter().any(named)
}

/// Bytes that a device has received and sent, in what the kernel tells of all devices.
fn bytes_of(table: &str, device: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(fields.first()? + fields.get(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_both_directions_of_one_device_are_found() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets errs |bytes\n    lo:  9 1 0 0 0 0 0 0  9 1 0 0 0 0 0 0\n\
                     path-b: 700 7 0 0 0 0 0 0 50 5 0 0 0 0 0 0\n";
        assert_eq!(bytes_of(table, "path-b"), Some(750));
        assert_eq!(bytes_of(table, "path-"), None);
    }

    #[test]
    fn a_standby_that_lacks_something_protects_nobody() {
        let group = |mode: &str| srm::admin::GroupStatus { mode: mode.into(), ..Default::default() };
        let mut status = Status { groups: vec![group("Pair"), group("Pair")], ..Default::default() };
        assert!(is_protected(&status));
        status.alarms = vec!["cannot take over: this node does not hold everything of a yet".into()];
        assert!(!is_protected(&status));
        status.alarms = vec!["the clocks of the nodes differ".into()];
        assert!(is_protected(&status));
        status.groups = vec![group("Pair"), group("Solo")];
        assert!(!is_protected(&status));
    }
}
