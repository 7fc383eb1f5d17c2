//! Everything that one scenario has: the network, the nodes and their disks, the clients, and somebody who watches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client_sim::fleet::user_name;
use srm::demo::pair::{DOMAIN, PASSWORD};

use super::clients::{Crowd, FOREIGN, MANDRAKE, homes};
use super::language::{Arbiter, DiskStep, Node, Script, Site, Step};
use super::net::{Net, address, address_of};
use super::node::Server;
use super::programs::Programs;
use super::watch::Watch;
use super::witness::Witness;
use super::{disk, leftovers, own_prefix, run};
use crate::clock::Clock;
use crate::foreign::etcd;
use crate::powerloss::Shim;

/// Settings of every scenario besides its own: clients without a standby wait for minutes by default, and nothing depends on the
/// time of the day.
const USUAL: [(&str, &str); 3] = [
    ("srm.client_re_login_lower_limit", "0s"),
    ("srm.client_re_login_upper_limit", "1s"),
    ("srm.nightly_check", "false"),
];
/// Longest wait for the pair at the beginning.
const LIMIT: Duration = Duration::from_secs(60);

/// Lines of each log that a failure shows.
const LAST_LINES: usize = 60;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A folder that is removed, with what is mounted in it.
pub(super) struct Folder(pub(super) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        leftovers::remove_folder(&self.0);
    }
}

/// Upper limit of what the disks of one scenario may hold together.
const MEGABYTES: u64 = 1024;

/// The world of one scenario. What stands first is dropped first.
pub(super) struct World {
    /// Who is logged in.
    pub(super) crowd: Option<Crowd>,
    /// Who looks.
    pub(super) watch: Watch,
    /// The nodes.
    pub(super) servers: [Server; 2],
    /// Who decides between them.
    witness: Option<Witness>,
    /// Their network.
    pub(super) net: Net,
    /// When the chat began.
    pub(super) begun: Instant,
    /// Numbers of the last events that the nodes had written by then, if the scenario asks for any.
    pub(super) events_before: [u64; 2],
    /// Whose cable is pulled is gone for its clients: not if both nodes' are, then they wait.
    pub(super) cables_are_timed: bool,
    /// When what was done last was begun.
    pub(super) acting_since: Instant,
    /// Settings that differ from the defaults.
    pub(super) overrides: Vec<(String, String)>,
    /// The library that makes disks fail.
    shim: Shim,
    /// The one that makes clocks jump.
    clock: Clock,
    programs: Programs,
    folder: Folder,
}

impl World {
    /// Makes a pair as the README says, starts it, and lets everybody log in.
    pub(super) fn make(script: &Script, programs: &Programs, seed: u64) -> Result<World, String> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(std::env::temp_dir().join(format!("{}{number}", own_prefix())));
        let failed = |error: std::io::Error| format!("{}: {error}", folder.0.display());
        disk::mount_memory(&folder.0, MEGABYTES)?;
        let net = Net::make(number, seed)?;
        let pair = folder.0.join("pair");
        let first = || if script.before { programs.before() } else { programs.present(None) };
        init(&first().path, &pair, address, script.witness)?;
        let present = programs.present(None).path;
        let witness = script.witness.map(|kind| Witness::new(kind, &pair, &present)).transpose()?;
        let servers = Node::BOTH.map(|node| Server::new(node, pair.join(node.to_string()), first()));
        let usual = USUAL.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let overrides: Vec<_> = usual.chain(script.settings.iter().cloned()).collect();
        for server in &servers {
            server.set(&overrides).map_err(failed)?;
            if let Some(witness) = &witness {
                server.set(&witness.settings()).map_err(failed)?;
            }
        }
        let watch = Watch::begin(&net, &servers)?;
        let (shim, clock) = (Shim::compile().map_err(failed)?, Clock::compile().map_err(failed)?);
        let begun = Instant::now();
        let mut world = World {
            crowd: None,
            watch,
            servers,
            witness,
            net,
            begun,
            acting_since: Instant::now(),
            events_before: [0; 2],
            cables_are_timed: !Node::BOTH.iter().all(|node| script.has(|s| *s == Step::Unplug(*node))),
            overrides,
            shim,
            clock,
            programs: programs.clone(),
            folder,
        };
        world.prepare(script).map_err(|error| world.with_logs(&error))?;
        world.populate(script, seed).map_err(|error| world.with_logs(&error))?;
        if script.asks_for_events() {
            for node in Node::BOTH {
                let last = world.all_events(node).map_err(|error| world.with_logs(&error))?.pop();
                world.events_before[node.index()] = last.map_or(0, |event| event.number);
            }
        }
        // How the nodes found each other is not what the scenario asks about.
        world.servers.iter_mut().for_each(Server::begin_log);
        world.begun = Instant::now();
        Ok(world)
    }

    /// Disks and clocks that can do what the scenario does to them.
    fn prepare(&mut self, script: &Script) -> Result<(), String> {
        if script.has(|step| matches!(step, Step::PowerOffWitness | Step::FailWitnessWrite)) {
            let witness =
                self.witness.as_mut().ok_or("there is no witness: begin the scenario with `witness`")?;
            witness.use_shim(&self.shim)?;
        }
        for node in Node::BOTH {
            let data = self.server(node).data();
            let disk = |fits: fn(&DiskStep) -> bool| {
                script.has(|step| matches!(step, Step::Disk(n, s) if *n == node && fits(s)))
            };
            if disk(|s| *s == DiskStep::Full) {
                disk::mount_small(&data)?;
            } else if disk(|s| *s == DiskStep::ReadOnly) {
                disk::mount_ext4(&data)?;
            }
            let faulty = disk(DiskStep::is_of_shim)
                || script.has(|step| matches!(step, Step::PowerOff(nodes) if nodes.contains(&node)));
            let jumps = script.has(|step| matches!(step, Step::Clock(n, _) if *n == node));
            let mut command = Command::new("true");
            let failed = |error: std::io::Error| format!("{}: {error}", data.display());
            if faulty {
                fs::create_dir_all(&data).map_err(failed)?;
                let journal = self.journal(node);
                fs::create_dir_all(&journal).map_err(failed)?;
                self.shim.preload(&mut command, &data, &journal).map_err(failed)?;
            }
            if jumps {
                self.clock.preload(&mut command, &self.clock_file(node)).map_err(failed)?;
            }
            let env = command.get_envs().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            self.servers[node.index()].env.extend(env);
            let stop = format!("release.before={}", self.stop_file(node).display());
            let [stream, services] = ["stream", "services"].map(|place| {
                let file = self.panic_file(node, place);
                format!("{place}:{}", file.display())
            });
            let panics = [
                (Step::PanicStream(node), stream),
                (Step::PanicServices(node), services),
                (Step::Panic(node), format!("element:{MANDRAKE}")),
            ];
            let server = self.server_mut(node);
            let panics: Vec<String> =
                panics.into_iter().filter(|(step, _)| script.has(|s| s == step)).map(|(_, at)| at).collect();
            if !panics.is_empty() {
                server.env.insert("TANDEM_PANIC_AT".into(), panics.join("\n").into());
            }
            if script.has(|step| *step == Step::PauseReleasing(node)) {
                server.env.insert("TANDEM_STOP_AT".into(), stop.into());
            }
        }
        Ok(())
    }

    fn populate(&mut self, script: &Script, seed: u64) -> Result<(), String> {
        if self.witness.is_some() {
            self.start_witness()?;
        }
        for node in Node::BOTH {
            self.start(node)?;
        }
        self.until(LIMIT, |world| world.check(&super::language::Condition::Protected))?;
        let own = homes(script.clients).into_iter().enumerate().map(|(user, home)| (user_name(user), home));
        let foreign = FOREIGN.iter().enumerate().map(|(home, name)| ((*name).to_owned(), home));
        for (user, home) in own.chain(foreign.take(script.clients.slixmpp)) {
            let home = Node::BOTH[home];
            let args = ["user", "add", &user, "--home", &home.to_string(), "--password-stdin"];
            self.server(home).tandem(&self.net, &args, &format!("{PASSWORD}\n"))?;
        }
        let ca = self.folder.0.join("pair/ca/ca.pem");
        self.crowd = Some(Crowd::enter(script.clients, &ca, seed)?);
        Ok(())
    }

    /// A node.
    pub(super) fn server(&self, node: Node) -> &Server {
        &self.servers[node.index()]
    }

    /// A node, to be changed.
    pub(super) fn server_mut(&mut self, node: Node) -> &mut Server {
        &mut self.servers[node.index()]
    }

    /// Starts a node that does not run. Its machine has its network, whatever there was before.
    pub(super) fn start(&mut self, node: Node) -> Result<(), String> {
        self.net.plug(node, true)?;
        self.servers[node.index()].start(&self.net)
    }

    /// The same, when its program has been replaced with one that says to be of this version (`srm/src/version.rs`).
    pub(super) fn start_version(&mut self, node: Node, version: &str) -> Result<(), String> {
        let program = self.programs.present(Some(version));
        self.server_mut(node).install(program);
        self.start(node)
    }

    /// The same, with the program of the version before.
    pub(super) fn start_before(&mut self, node: Node) -> Result<(), String> {
        let program = self.programs.before();
        self.server_mut(node).install(program);
        self.start(node)
    }

    /// The witness, in a scenario that has one.
    pub(super) fn witness(&mut self) -> Result<&mut Witness, String> {
        self.witness
            .as_mut()
            .ok_or_else(|| "there is no witness: begin the scenario with `witness`".to_owned())
    }

    /// Starts it.
    pub(super) fn start_witness(&mut self) -> Result<(), String> {
        let witness =
            self.witness.as_mut().ok_or("there is no witness: begin the scenario with `witness`")?;
        witness.start(&self.net)
    }

    /// The clients; they are there once the world is.
    pub(super) fn crowd(&self) -> &Crowd {
        self.crowd.as_ref().expect("everybody has logged in")
    }

    /// Where what a node's disk may lose is noted.
    pub(super) fn journal(&self, node: Node) -> PathBuf {
        self.folder.0.join(format!("journal-{node}"))
    }

    /// How far a node's clock is off.
    pub(super) fn clock_file(&self, node: Node) -> PathBuf {
        self.folder.0.join(format!("clock-{node}"))
    }

    /// While this file is there, the node stands still before the next answer to a client.
    pub(super) fn stop_file(&self, node: Node) -> PathBuf {
        self.folder.0.join(format!("stop-{node}"))
    }

    /// While this file is there, what is to panic at the node does: the next connection over which a client says something, or
    /// a supervisor of critical services.
    pub(super) fn panic_file(&self, node: Node, place: &str) -> PathBuf {
        self.folder.0.join(format!("panic-{place}-{node}"))
    }

    /// Where the copy of a node's disk is kept.
    pub(super) fn kept(&self, node: Node) -> PathBuf {
        self.folder.0.join(format!("kept-{node}"))
    }

    /// The content of a disk of a node with this name, in a cluster of its own.
    pub(super) fn disk_of_other_cluster(&self, node: Node) -> Result<PathBuf, String> {
        let dir = self.folder.0.join("other");
        let present = self.programs.present(None).path;
        init(&present, &dir, |node| std::net::Ipv4Addr::new(10, 78, 0, 1 + node.index() as u8), None)?;
        // It runs where nobody is: with the clients.
        let config = dir.join(format!("{node}/tandem.toml"));
        let mut serve = Command::new(&present);
        serve.arg("serve").arg("-c").arg(&config).stdout(std::process::Stdio::null());
        let mut child = serve.stderr(std::process::Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let data = dir.join(format!("{node}/data"));
        let deadline = Instant::now() + LIMIT;
        while !data.join("node.json").exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        match data.join("node.json").exists() {
            true => Ok(data),
            false => Err("the node of the other cluster has made no disk".to_owned()),
        }
    }

    /// Waits until it is so; else what was seen instead.
    pub(super) fn until(
        &mut self,
        limit: Duration,
        mut is_so: impl FnMut(&mut World) -> Result<(), String>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let Err(instead) = is_so(self) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(format!("not within {limit:?}: {instead}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An error with the story and the ends of both logs.
    pub(super) fn with_logs(&self, error: &str) -> String {
        let mut text = format!("{error}\n{}\n", self.watch.story().join("\n"));
        for server in &self.servers {
            let log = server.whole_log();
            let lines = folded(&log);
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            text.push_str(&format!("--- log of {}\n{}\n", server.node, last.join("\n")));
        }
        if let Some(witness) = &self.witness {
            text.push_str(&format!("--- log of the witness\n{}\n", witness.log()));
        }
        text
    }
}

/// The lines of a log, where several that differ only in their times are one.
fn folded(log: &str) -> Vec<String> {
    let what = |line: &str| line.split_once(' ').map_or(String::new(), |(_, what)| what.to_owned());
    let mut folded: Vec<(String, usize)> = Vec::new();
    for line in log.lines() {
        match folded.last_mut() {
            Some((last, times)) if what(last) == what(line) => *times += 1,
            _ => folded.push((line.to_owned(), 1)),
        }
    }
    let told = |(line, times): (String, usize)| match times {
        1 => line,
        more => format!("{line} ({more} times)"),
    };
    folded.into_iter().map(told).collect()
}

/// `tandem init` for a pair.
pub(super) fn init(
    tandem: &Path,
    out: &Path,
    address: impl Fn(Node) -> std::net::Ipv4Addr,
    witness: Option<Arbiter>,
) -> Result<(), String> {
    let node = |node: Node| format!("{node}={}", address(node));
    let mut command = Command::new(tandem);
    command.args(["init", "--domain", DOMAIN, "--node", &node(Node::A), "--node", &node(Node::B), "--out"]);
    command.arg(out);
    let at = address_of(Site::Witness);
    match witness {
        Some(Arbiter::Witness) => _ = command.args(["--witness", &at.to_string()]),
        Some(Arbiter::Etcd) => _ = command.args(["--etcd", &format!("https://{at}:{}", etcd::PORT)]),
        None => {}
    }
    run(&mut command).map(|_| ())
}
