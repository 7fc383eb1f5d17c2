//! Four network namespaces: one for each node, one for the witness, and one for the clients, with a bridge that the
//! others are plugged into.
//! Addresses are the same in every scenario: nothing of it is seen from outside.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::language::{Node, PathFaults, Site};
use super::own_prefix;
use super::path::{self, Path};

/// A machine that is not there, and the table of the routes that lead to it alone.
const NOBODY: &str = "02:00:00:00:00:66";
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
const TABLE: u32 = 77;

/// Where `ip netns` keeps its names.
pub(super) const NAMES: &str = "/run/netns";
const NEEDED: &str = "scenarios need network namespaces: run the tests as root (CAP_SYS_ADMIN and CAP_NET_ADMIN), with \
                      iproute2 installed (apt-get install -y iproute2)";

/// A network namespace that a thread can enter.
pub(super) struct Space {
    name: String,
    handle: File,
}

impl Space {
    fn make(name: String) -> Result<Space, String> {
        super::run(Command::new("ip").args(["netns", "add", &name])).map_err(|e| format!("{NEEDED}\n{e}"))?;
        let handle =
            File::open(PathBuf::from(NAMES).join(&name)).map_err(|e| format!("{NEEDED}\n{name}: {e}"));
        match handle {
            Ok(handle) => Ok(Space { name, handle }),
            Err(error) => {
                remove(&name);
                Err(error)
            }
        }
    }

    /// The calling thread, and what it starts from now on, is in this namespace.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// The same namespace for another thread.
    pub(super) fn another(&self) -> io::Result<File> {
        self.handle.try_clone()
    }

    fn configure(&self, lines: &str) -> Result<(), String> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: &dyn std::fmt::Display| format!("{NEEDED}\nip -n {}: {error}", self.name);
        let mut child = ip.spawn().map_err(|e| failed(&e))?;
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).map_err(|e| failed(&e))?;
        let output = child.wait_with_output().map_err(|e| failed(&e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(&String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Enters a namespace by a handle of its own.
pub(super) fn enter(handle: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Takes a name away; the namespace goes with the last process in it.
pub(super) fn remove(name: &str) {
    let _ = super::run(Command::new("ip").args(["netns", "del", name]));
}

/// Names of the namespaces that scenarios made, of whatever process.
pub(super) fn names() -> Vec<String> {
    let entries = fs::read_dir(NAMES).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(super::PREFIX)).collect()
}

/// The network of one scenario.
pub(super) struct Net {
    /// Between whom there is more than the bridge. They end first.
    paths: Vec<([Site; 2], Path)>,
    /// Which part of the clients has another way than the rest of them, and to whom.
    diverted: Vec<(Site, Site)>,
    /// Of the next path's luck.
    seed: u64,
    clients: Space,
    nodes: [Space; 2],
    witness: Space,
}

impl Net {
    /// Makes it. The calling thread is where the clients are from then on.
    pub(super) fn make(number: usize, seed: u64) -> Result<Net, String> {
        let space = |suffix: &str| Space::make(format!("{}{number}-{suffix}", own_prefix()));
        let (clients, nodes, witness) = (space("c")?, [space("a")?, space("b")?], space("w")?);
        let net = Net { paths: Vec::new(), diverted: Vec::new(), seed, clients, nodes, witness };
        let mut lines = "link set lo up\nlink add br0 type bridge\nlink set br0 up\n".to_owned();
        for address in addresses_of(Site::Clients) {
            lines.push_str(&format!("addr add {address}/24 dev br0\n"));
        }
        for site in SITES {
            let (cable, space) = (cable(site), &net.at(site).name);
            lines.push_str(&format!("link add {cable} type veth peer name eth0 netns {space}\n"));
            lines.push_str(&format!("link set {cable} master br0\nlink set {cable} up\n"));
        }
        net.clients.configure(&lines)?;
        for site in SITES {
            let address = address_of(site);
            net.at(site)
                .configure(&format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        }
        net.clients.enter().map_err(|error| format!("{NEEDED}\n{error}"))?;
        Ok(net)
    }

    /// A node's namespace.
    pub(super) fn of(&self, node: Node) -> &Space {
        self.at(Site::Node(node))
    }

    fn at(&self, site: Site) -> &Space {
        match site {
            Site::Node(node) => &self.nodes[node.index()],
            Site::Witness => &self.witness,
            Site::Clients | Site::Half | Site::Rest => &self.clients,
        }
    }

    /// Does something where somebody is; the calling thread is back with the clients afterwards.
    pub(super) fn inside<T>(&self, site: Site, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.at(site).enter()?;
        let done = act();
        self.clients.enter()?;
        done
    }

    /// Pulls or puts in the node's cable. The node's processes notice nothing but silence.
    pub(super) fn plug(&self, node: Node, plugged: bool) -> Result<(), String> {
        let cable = cable(Site::Node(node));
        self.clients.configure(&format!("link set {cable} {}\n", if plugged { "up" } else { "down" }))
    }

    /// What one sends to the others, and they to it, goes to a machine that is not there: nobody is told.
    pub(super) fn cut(&mut self, one: Site, others: &[Site]) -> Result<(), String> {
        for other in others {
            self.cut_one_way(one, &[*other])?;
            self.cut_one_way(*other, &[one])?;
        }
        Ok(())
    }

    /// The same of what the first sends; what it is sent arrives.
    pub(super) fn cut_one_way(&mut self, at: Site, others: &[Site]) -> Result<(), String> {
        for other in others {
            self.leave_path(at, *other);
            if at.is_part() {
                self.divert(at, *other)?;
                continue;
            }
            for to in addresses_of(*other) {
                let dev = device(at);
                let lines = format!("neigh replace {to} lladdr {NOBODY} dev {dev} nud permanent\n");
                self.at(at).configure(&lines)?;
            }
        }
        Ok(())
    }

    /// All clients have the same way to somebody; what this part of them sends there goes another one, by its address.
    fn divert(&mut self, part: Site, other: Site) -> Result<(), String> {
        if self.diverted.contains(&(part, other)) {
            return Ok(());
        }
        let (dev, from) = (device(part), address_of(part));
        let mut lines = format!("neigh replace {NOWHERE} lladdr {NOBODY} dev {dev} nud permanent\n");
        lines.push_str(&format!("route replace default via {NOWHERE} dev {dev} table {TABLE}\n"));
        for to in addresses_of(other) {
            lines.push_str(&format!("rule add from {from} to {to} lookup {TABLE}\n"));
        }
        self.clients.configure(&lines)?;
        self.diverted.push((part, other));
        Ok(())
    }

    /// What goes between the two is carried by a thread that does this to it, in the place of what was between them.
    pub(super) fn lay_path(&mut self, one: Site, other: Site, faults: &PathFaults) -> Result<(), String> {
        self.leave_path(one, other);
        let ways = [(one, other), (other, one)];
        let device =
            |(at, to)| self.inside(at, || path::device(&path_to(to))).map_err(|e| format!("{NEEDED}\n{e}"));
        let ends = [device(ways[0])?, device(ways[1])?];
        let path = Path::begin(ends, faults.clone(), self.seed);
        for (at, to) in ways {
            let (dev, from) = (path_to(to), address_of(at));
            let mut lines = format!("link set {dev} up\n");
            for to in addresses_of(to) {
                lines.push_str(&format!("route replace {to}/32 dev {dev} src {from}\n"));
            }
            self.at(at).configure(&lines)?;
        }
        self.seed = self.seed.wrapping_add(1);
        self.paths.push(([one, other], path));
        Ok(())
    }

    /// The path between the two, if there is one, is given up. What is on it is lost.
    fn leave_path(&mut self, one: Site, other: Site) {
        self.paths.retain(|(ends, _)| !(ends.contains(&one) && ends.contains(&other)));
    }

    /// How many packets the paths have done something to.
    pub(super) fn met(&self) -> u64 {
        self.paths.iter().map(|(_, path)| path.met()).sum()
    }

    /// Everybody finds everybody again.
    pub(super) fn mend(&mut self) -> Result<(), String> {
        self.paths.clear();
        if !self.diverted.is_empty() {
            self.clients.configure(&format!("rule flush table {TABLE}\n"))?;
            self.diverted.clear();
        }
        SITES.into_iter().chain([Site::Clients]).try_for_each(|site| {
            self.at(site).configure(&format!("neigh flush dev {} nud permanent\n", device(site)))
        })
    }
}

/// Everybody with a cable.
const SITES: [Site; 3] = [Site::Node(Node::A), Site::Node(Node::B), Site::Witness];

/// Its way into the network, as it sees it.
fn device(site: Site) -> &'static str {
    if site == Site::Clients || site.is_part() { "br0" } else { "eth0" }
}

/// The device of a path, at the end from which it leads to this site.
fn path_to(site: Site) -> String {
    match site {
        Site::Node(node) => format!("path-{node}"),
        Site::Witness => "path-w".to_owned(),
        Site::Clients | Site::Half | Site::Rest => "path-c".to_owned(),
    }
}

fn cable(site: Site) -> String {
    match site {
        Site::Clients | Site::Half | Site::Rest => unreachable!("clients are where the cables end"),
        Site::Node(node) => format!("to-{node}"),
        Site::Witness => "to-w".to_owned(),
    }
}

/// A node's address.
pub(super) fn address(node: Node) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 1 + u8::from(node == Node::B))
}

/// All that lead to somebody: all clients have those of both parts.
fn addresses_of(site: Site) -> Vec<Ipv4Addr> {
    match site {
        Site::Clients => [Site::Rest, Site::Half].map(address_of).to_vec(),
        other => vec![address_of(other)],
    }
}

/// Anybody's; of all clients the one that they have unless they choose.
pub(super) fn address_of(site: Site) -> Ipv4Addr {
    match site {
        Site::Node(node) => address(node),
        Site::Witness => Ipv4Addr::new(10, 77, 0, 3),
        Site::Clients | Site::Rest => Ipv4Addr::new(10, 77, 0, 254),
        Site::Half => Ipv4Addr::new(10, 77, 0, 253),
    }
}
