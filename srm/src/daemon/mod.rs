//! The daemon: opens the disk, starts the node's thread, and puts sockets around it. The server recovery manager is the
//! process; without it there is no server.

mod accounts;
mod again;
mod alarms;
mod care;
mod check;
mod chronicle;
mod clients;
mod clock;
mod crashes;
mod differences;
mod disk;
mod events;
mod force;
mod group;
mod guard;
mod look;
mod metrics;
mod movers;
mod notices;
mod notify;
mod ops;
mod panics;
mod probes;
mod reload;
mod room;
mod rules;
mod services;
mod settings;
mod stopping;
mod store;
mod storm;
mod trouble;
mod tuning;
mod users;
mod watchdog;
mod worker;
#[cfg(test)]
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::Bytes;
use presence_engine::engine;
use presence_engine::ids::NodeIx;
use session_mover::driver;
use session_mover::link;
use session_mover::msg::VERSIONS;
use session_mover::store::Watch;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{error, info, warn};
use xmpp_core::dual;
use xmpp_core::net::{Entry, Host, serve};
use xmpp_core::sasl::TokenKey;

pub(crate) use differences::CLOCKS_APART_MS;
pub(crate) use room::free as free_room;

use crate::beacon::{self, Secret};
use crate::config::{Commit, Config, Link as LinkConfig, Peer, Policy};
use crate::listen::{self, cannot_listen};
use crate::logging::LogLevel;
use crate::node::{self, In, Node};
use crate::safety::{Consent, RegisterKind, Witness};
use crate::sockets::{Beacons, Heard, LifeSocket, boottime_ms};
use crate::witness::{client, etcd};

use accounts::Accounts;
use again::Again;
use chronicle::Chronicle;
use clients::Clients;
use clock::Clock;
pub(crate) use disk::lock;
use disk::{Found, NodeDisk};
pub use events::record;
use look::Look;
use metrics::Metrics;
use notices::Notices;
use ops::Operations;
use probes::Probes;
use reload::Live;
use services::{LastResort, Services};
use trouble::Trouble;
use tuning::tuning;
use worker::{FromNode, ToNode, Worker};

/// What is queued for the peer and for clients is sent within this time.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(300);

/// How long a node that stops waits for those whom it tells of that.
const TOLD: std::time::Duration = std::time::Duration::from_secs(2);

/// Milliseconds of a tick of the safety core.
const TICK_MS: u64 = 250;

/// Runs a node until it is told to stop. An error is about the environment: ports, files, certificates.
pub fn run(config: Config, log: LogLevel) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name(panics::IO)
        .build()
        .context("the asynchronous runtime cannot be started")?;
    let result = start(&config, log, &runtime);
    runtime.shutdown_background();
    result
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes[..]);
    bytes
}

fn start(config: &Config, log: LogLevel, runtime: &Runtime) -> anyhow::Result<()> {
    // It comes first and is closed only by death: while it is there, the process is.
    let life = life_socket(config)?;
    let me = NodeIx::from_index(config.index()).expect("0 or 1");
    let names = node_names(config);
    let (to_node, events) = channel();
    let metrics = Metrics::new();
    let (node, disk) = first_node(config, me, names.clone(), open_disk(config, me, &to_node, &metrics)?)?;
    let (store, watchdog) = (disk.watch_store(), disk.watchdog());
    let handled = node.driver().engine().being_handled();
    let accounts = Arc::new(Accounts::new(made_up(config)?));
    let (tell, from_node) = unbounded_channel();
    let (witness, asked) = unbounded_channel();
    let holds = events::holds(&node.shown(), &names);
    let chronicle = Chronicle::start(&config.node.data, &config.node.name, holds)
        .with_context(|| format!("the events in {} cannot be kept", config.node.data.display()))?;
    watchdog::start(watchdog, chronicle.clone(), metrics.clone())?;
    let ready = Arc::new(AtomicBool::new(false));
    let notices = Notices::new(accounts.clone(), ready.clone(), to_node.clone());
    {
        let _runtime = runtime.enter();
        chronicle.notify_by(chronicle::notifier(config, &notices)?);
    }
    let live = Live::new(config, metrics.clone(), chronicle.clone(), notices.clone(), to_node.clone())?;
    let beacon = first_beacons(config, live.beacons.clone(), &to_node)?;
    let heart = Arc::new(AtomicU64::new(boottime_ms()));
    let worker = Worker {
        node,
        disk,
        me,
        names: names.clone(),
        chronicle: chronicle.clone(),
        accounts: accounts.clone(),
        beacon,
        ready: ready.clone(),
        clock: Clock::start(),
        zone: live.zone.clone(),
        trouble: Trouble::new(names[me.peer().index()].clone()),
        heart: heart.clone(),
        metrics: metrics.clone(),
        stopping: live.stopping.clone(),
        tell,
        witness,
        knows_witness: 0,
    };
    panics::end_the_process(config.node.data.clone(), handled);
    // Before the node: what it does next comes behind.
    let version = crate::version::program();
    chronicle.tell("started", format!("{} has started, version {version}", config.node.name));
    let node_thread = thread::Builder::new().name(panics::NODE.into()).spawn(move || worker.run(events))?;
    let shell = Shell {
        config: config.clone(),
        me,
        names,
        accounts,
        to_node,
        ready,
        life,
        live,
        metrics,
        heart,
        log,
        chronicle,
        again: Arc::new(Again::prepare()),
        store,
        look: config.pair().map(|(peer, _)| Look::new(peer)),
    };
    let result = runtime.block_on(shell.run(from_node, asked));
    drop(node_thread);
    result
}

fn life_socket(config: &Config) -> anyhow::Result<Option<LifeSocket>> {
    let Some(link) = &config.link else { return Ok(None) };
    let life = LifeSocket::bind(link.listen).map_err(|error| {
        cannot_listen("link.listen (the life socket, one port above it)", link.life(), &error)
    })?;
    Ok(Some(life))
}

/// What the disk has written goes to the node and to the metrics. Says what was found there that should not be.
fn open_disk(
    config: &Config,
    me: NodeIx,
    to_node: &Sender<ToNode>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Found> {
    let cluster = config.link.as_ref().map_or(0, |l| l.secret.cluster_id());
    let sync_peer = config.link.as_ref().is_some_and(|l| l.commit == Commit::PeerAndDisk);
    let stored = {
        let (to_node, metrics) = (to_node.clone(), metrics.clone());
        move |s: session_mover::log::Stored| {
            metrics.stored(&s);
            _ = to_node.send(ToNode::In(In::Stored(s.which, s.at, s.synced)));
        }
    };
    let checkpointed = {
        let to_node = to_node.clone();
        move |result| _ = to_node.send(ToNode::In(In::Checkpointed(result)))
    };
    let whose = (config.node.name.as_str(), me);
    let engine = config.store.engine;
    let found = NodeDisk::open(&config.node.data, whose, cluster, sync_peer, engine, stored, checkpointed)?;
    let [own, peer] = found.opened.set_aside;
    if [own, peer] != [0, 0] {
        warn!(own, peer, "torn log tails set aside (bytes)");
    }
    if let Some(inputs) = found.crashed {
        error!(inputs, "the last run ended in the middle of a turn; what it was handling is remembered");
    }
    Ok(found)
}

/// The node, with what its disk knows.
fn first_node(
    config: &Config,
    me: NodeIx,
    names: [String; 2],
    found: Found,
) -> anyhow::Result<(Node, NodeDisk)> {
    let (mut disk, inc) = (found.disk, u64::from_le_bytes(random()));
    let mut node = Node::start(node_config(config, me, names), found.durable, inc, &mut disk);
    if config.pair().is_none() {
        may_be_alone(&node)?;
    }
    node.remember_crashes(found.crashes);
    node.remember_failovers(&found.failovers);
    Ok((node, disk))
}

/// What made-up credentials are derived from.
fn made_up(config: &Config) -> anyhow::Result<[u8; 32]> {
    match config.pair() {
        Some((_, link)) => Ok(link.secret.derive(ACCOUNTS)),
        None => accounts::own_secret(&config.node.data),
    }
}

/// The socket for beacons, where there is a peer, and what watches the room on the disk that they tell.
fn first_beacons(
    config: &Config,
    secret: Arc<ArcSwap<Secret>>,
    to_node: &Sender<ToNode>,
) -> anyhow::Result<Option<Beacons>> {
    // Before it says its first word.
    room::watch(config.node.data.clone(), to_node.clone())?;
    let Some((peer, link)) = config.pair() else { return Ok(None) };
    Ok(Some(beacons(link, peer, secret, to_node)?))
}

/// A node that lost `[peer]` by mistake does not serve beside its peer.
fn may_be_alone(node: &Node) -> anyhow::Result<()> {
    let Some(refused) = node.refused_alone() else { return Ok(()) };
    anyhow::bail!(
        "the configuration names no other node, and on this disk {}: the other node may serve the same users. Put [peer] and \
         [link] back; {}",
        refused.error,
        refused.hint
    )
}

fn node_names(config: &Config) -> [String; 2] {
    let members = config.members();
    [0, 1].map(|i| members.get(i).map_or(String::new(), |name| (*name).to_owned()))
}

/// What the secret is for that made-up credentials and one-time tokens are derived from.
const ACCOUNTS: &str = "unknown accounts";

/// What the link speaks: for tests, a node of the version before is made by `TANDEM_LINK_NEWEST=3`.
fn link_versions() -> (u8, u8) {
    let newest = std::env::var("TANDEM_LINK_NEWEST").ok().and_then(|n| n.parse().ok());
    (VERSIONS.0, newest.map_or(VERSIONS.1, |n: u8| n.clamp(VERSIONS.0, VERSIONS.1)))
}

fn ticks(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis() as u64 / TICK_MS).unwrap_or(u32::MAX)
}

fn node_config(config: &Config, me: NodeIx, names: [String; 2]) -> node::Config {
    let pair = config.pair();
    let node::Tuning { engine: tuning, evidence, secret, config_hash, park_wait, automatics } =
        tuning(config);
    let engine = engine::Config {
        me,
        peer: pair.map(|(peer, _)| dual::Peer {
            node: peer.name.as_str().into(),
            host: peer.host.as_str().into(),
            port: peer.c2s,
            direct_tls: true,
        }),
        domain: config.node.domains[0].as_str().into(),
        resume_ms: tuning.resume_ms,
        relogin_s: tuning.relogin_s,
        limits: tuning.limits,
        tokens: pair.map(|(_, link)| TokenKey::new(&link.secret.derive(ACCOUNTS))),
        trap: crashes::trap(),
    };
    let boot = u64::from_le_bytes(random()) | 1;
    let cluster = pair.map_or(0, |(_, link)| link.secret.cluster_id());
    let ack_synced = pair.is_some_and(|(_, link)| link.commit == Commit::PeerAndDisk);
    let checkpoint_frames = config.store.checkpoint_frames;
    node::Config {
        names,
        driver: driver::Config {
            engine,
            versions: link_versions(),
            cluster,
            boot,
            ack_synced,
            checkpoint_frames,
        },
        single: pair.is_none(),
        register: match pair.map_or(Policy::Available, |(_, link)| link.policy) {
            Policy::Witness => RegisterKind::Witness(Witness),
            policy => RegisterKind::Consent(Consent { available: policy == Policy::Available }),
        },
        lease: ticks(crate::config::LEASE) as u16,
        beacon_ticks: ticks(crate::config::BEACON_INTERVAL).max(1),
        evidence,
        secret,
        config_hash,
        nonce_key: Secret::new(&random::<32>()),
        park_wait,
        automatics,
    }
}

fn beacons(
    link: &LinkConfig,
    peer: &Peer,
    secret: Arc<ArcSwap<Secret>>,
    to_node: &Sender<ToNode>,
) -> anyhow::Result<Beacons> {
    let (to_node, heard_of_us) = (to_node.clone(), AtomicU32::new(0));
    let on = move |heard: Heard<'_>| {
        let Heard::Datagram(bytes) = heard else { return false };
        // Read here once before: what strangers send must not queue up before the node's thread (S31).
        let Some(datagram) = beacon::Datagram::decode(&secret.load(), bytes) else { return false };
        let _ = to_node.send(ToNode::In(In::Datagram(Bytes::copy_from_slice(bytes))));
        // One that comes from a new address of the peer's may be all that still goes through.
        heard_of_us.swap(datagram.heard, Ordering::Relaxed) != datagram.heard
    };
    Beacons::start(link.listen, peer.beacon.clone(), on)
        .map_err(|error| cannot_listen("link.listen (UDP, for beacons)", link.listen, &error))
}

/// The asynchronous side.
struct Shell {
    config: Config,
    me: NodeIx,
    names: [String; 2],
    accounts: Arc<Accounts>,
    to_node: Sender<ToNode>,
    ready: Arc<AtomicBool>,
    life: Option<LifeSocket>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    /// When the node's thread last went round, by the clock that counts sleep.
    heart: Arc<AtomicU64>,
    log: LogLevel,
    chronicle: Arc<Chronicle>,
    /// How this process is started anew.
    again: Arc<Again>,
    store: Watch,
    look: Option<Arc<Look>>,
}

impl Shell {
    async fn run(
        self,
        mut from_node: UnboundedReceiver<FromNode>,
        asked: UnboundedReceiver<client::Asked>,
    ) -> anyhow::Result<()> {
        let stopping = self.live.stopping.clone();
        self.listen_for_clients().await?;
        self.link().await?;
        self.witness(asked)?;
        if let Some(look) = self.look.clone() {
            tokio::spawn(async move { look.keep().await });
        }
        let services = self.services();
        Services::supervise(&services);
        let operations = Operations::new(
            self.names.clone(),
            self.me,
            self.live.clone(),
            self.metrics.clone(),
            self.log.clone(),
            self.to_node.clone(),
            services.clone(),
        );
        self.live.notices.reach(&operations);
        let admin = crate::admin::listen(self.config.admin.listen, &self.config.node.name).await?;
        info!(node = self.config.node.name, "serving");
        self.watch(admin, &operations);
        let mut hup = signal(SignalKind::hangup())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = term.recv() => self.leave(&operations),
                _ = int.recv() => self.leave(&operations),
                // That a drain is over, or was asked for again, is no second word.
                () = stopping.due() => if !stopping.has_begun() { self.leave(&operations) },
                _ = hup.recv() => {
                    let live = self.live.clone();
                    tokio::spawn(async move { live.reload().await });
                }
                told = from_node.recv() => match told {
                    None => return Ok(()),
                    Some(FromNode::Probe) => self.probe(),
                    Some(FromNode::StartServices) => services.start_all(),
                    Some(FromNode::Checks) => operations.look_for_node(),
                    Some(FromNode::Control(bytes)) => operations.control(bytes),
                    Some(FromNode::Restart) => {
                        self.chronicle.tell("restarting", "this node is restarted");
                        tokio::time::sleep(LAST_WORDS).await;
                        self.chronicle.flush(std::time::Duration::from_secs(1));
                        self.chronicle.settle(TOLD).await;
                        return Err(self.again.now());
                    }
                    Some(FromNode::Leave) => {
                        // The goodbye and the last words to clients are queued; give the sockets a moment to send them.
                        tokio::time::sleep(LAST_WORDS).await;
                        stopping.goodbye().await;
                        info!("left");
                        self.chronicle.flush(std::time::Duration::from_secs(1));
                        self.chronicle.settle(TOLD).await;
                        drop(self.life);
                        return Ok(());
                    }
                },
            }
        }
    }

    /// What the operator relies on, as long as the node lives: a node without one of these ends.
    fn watch(&self, admin: TcpListener, operations: &Arc<Operations>) {
        let (live, chronicle) = (&self.live, &self.chronicle);
        let api = crate::admin::serve(admin, live.token.clone(), operations.clone());
        panics::vital("the admin API", api);
        panics::vital("alarms", alarms::watch(operations.clone(), chronicle.clone(), live.clone()));
        panics::vital("rules on events", rules::watch(operations.clone(), chronicle.clone(), live.clone()));
        panics::vital("the watch on files", reload::watch(live.clone()));
        panics::vital("the watch on logins", storm::watch(live.clone(), self.to_node.clone()));
        panics::vital("what systemd is told", notify::serving(self.heart.clone()));
    }

    fn services(&self) -> Arc<Services> {
        let (accounts, to_node, ready) = (&self.accounts, &self.to_node, &self.ready);
        let (live, again, chronicle) = (self.live.clone(), self.again.clone(), self.chronicle.clone());
        let last_resort = LastResort {
            delay: Box::new(move || live.config().srm.critical_service_delay),
            end: Box::new(move |why| {
                chronicle.tell("gave-up", format!("this node gives up: {why}"));
                chronicle.flush(std::time::Duration::from_secs(1));
                let error = again.now();
                eprintln!("tandem: fatal: {why}: {error}. The process ends; the other node serves.");
                std::process::abort()
            }),
        };
        let domain = &self.config.node.domains[0];
        let (store, heart) = (self.store.clone(), self.heart.clone());
        let probes = Probes::new(domain, accounts.clone(), to_node.clone(), ready.clone(), store, heart);
        let chronicle = self.chronicle.clone();
        Services::new(probes, accounts.clone(), chronicle, to_node.clone(), ready.clone(), last_resort)
    }

    fn leave(&self, operations: &Arc<Operations>) {
        if !self.live.stopping.begin() {
            warn!("told to stop twice: ending at once, clients resume at the other node");
            std::process::exit(0);
        }
        self.chronicle
            .tell("stopping", "told to stop: hands its users over, if the other node can take them");
        notify::stopping();
        operations.leave();
    }

    async fn listen_for_clients(&self) -> anyhow::Result<()> {
        let c2s = &self.config.c2s;
        let host: Arc<dyn Host> = Arc::new(Clients {
            me: self.me,
            paired: self.config.peer.is_some(),
            next: AtomicU64::new(1),
            accounts: self.accounts.clone(),
            to_node: self.to_node.clone(),
            stopping: self.live.stopping.clone(),
            ready: self.ready.clone(),
            metrics: self.metrics.clone(),
        });
        let ports =
            [("c2s.starttls", c2s.starttls, Entry::StartTls), ("c2s.direct", c2s.direct, Entry::DirectTls)];
        for (setting, address, entry) in ports {
            let listener = listen::tcp(setting, address).await?;
            let clients = serve(listener, entry, self.live.clients.clone(), host.clone());
            panics::vital("the port for clients", clients);
        }
        Ok(())
    }

    async fn link(&self) -> anyhow::Result<()> {
        let Some((peer, config)) = self.config.pair() else { return Ok(()) };
        let Some(tls) = &self.live.link else { return Ok(()) };
        let listener = listen::tcp("link.listen", config.listen).await?;
        let to_node = self.to_node.clone();
        let events = move |event| _ = to_node.send(ToNode::Link(event));
        let server = tls.server.clone();
        let accepts = link::accept_forever(listener, server, peer.name.clone(), events.clone());
        panics::vital("the port for the peer", accepts);
        let name = rustls::pki_types::ServerName::try_from(peer.name.clone())
            .with_context(|| format!("the peer's name {:?} cannot stand in a certificate", peer.name))?;
        let client = tls.client.clone();
        let dials = link::dial_forever(peer.link.clone(), client, name, link::Wake::default(), events);
        panics::vital("the link to the peer", dials);
        Ok(())
    }

    /// Keeps the connection to the witness, or to the etcd in its place, where there is one.
    fn witness(&self, asked: UnboundedReceiver<client::Asked>) -> anyhow::Result<()> {
        let Some((peer, config)) = self.config.pair().filter(|(_, link)| link.policy == Policy::Witness)
        else {
            return Ok(());
        };
        let to_node = self.to_node.clone();
        let tell = move |number, said| _ = to_node.send(ToNode::Witness(number, said));
        let cluster = config.secret.cluster_id();
        if let Some(at) = &self.config.etcd {
            let (nodes, me) = (self.names.clone(), self.me);
            return etcd::keep(etcd::Dial { at: at.clone(), cluster, nodes, me }, asked, tell)
                .context("a thread cannot be started");
        }
        let (Some(at), Some(tls)) = (&self.config.witness, &self.live.link) else { return Ok(()) };
        let name = at.server_name();
        let dial = client::Dial {
            address: at.address.clone(),
            name: name.with_context(|| format!("{:?} cannot stand in a certificate", at.name))?,
            tls: tls.client.clone(),
            cluster,
            node: self.config.node.name.clone(),
            peer: peer.name.clone(),
        };
        panics::vital("the connection to the witness", client::keep(dial, asked, tell));
        Ok(())
    }

    fn probe(&self) {
        let Some(look) = self.look.clone() else { return };
        let to_node = self.to_node.clone();
        tokio::spawn(async move {
            let _ = to_node.send(ToNode::In(In::Probed(look.probe().await)));
        });
    }
}
