//! The process of the witness: sockets and disk around [`Registers`].

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use bytes::Bytes;
use presence_engine::ids::{NodeIx, Reg};
use presence_engine::record::Cursor;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use session_mover::link::{ACCEPT_PAUSE, HANDSHAKE_LIMIT, Handshakes};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info, warn};
use xmpp_core::tls::{Authority, Identity, certificate_is_for, link_server};

use super::lines;
use super::registers::{Register, Registers};
use super::words::{Ask, FromWitness, ToWitness, VERSION};
use crate::config::WitnessConfig;
use crate::slots::Slots;

/// How long a node may say nothing: it reports each second.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it looks whether its certificate, key or authority changed.
const LOOK: Duration = Duration::from_secs(2);

/// Runs a witness until it is told to stop. An error is about the environment: port, files, certificates.
pub fn run(config: &WitnessConfig) -> anyhow::Result<()> {
    // What is in memory may not be what is on the disk then.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime cannot be started")?;
    runtime.block_on(async {
        let (_, running) = serve(config).await?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        // Without systemd nobody listens.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        tokio::select! {
            ended = running => ended,
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        }
    })
}

/// Opens the disk and the port, and gives what is to be run: until it is dropped, or the disk fails.
pub async fn serve(
    config: &WitnessConfig,
) -> anyhow::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>> + use<>)> {
    let disk = Disk::open(&config.data, &config.nodes)?;
    let tls = Arc::new(ArcSwap::new(tls(config)?));
    let listener = crate::listen::tcp("witness.listen", config.listen).await?;
    let address = listener.local_addr()?;
    info!(event = "witness_listening", %address, nodes = config.nodes.join(" "));
    let witness = Arc::new(Witness { nodes: config.nodes.clone(), state: Mutex::new(disk) });
    Ok((address, accept(listener, tls, witness, config.clone())))
}

fn tls(config: &WitnessConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let identity = Identity::load(&config.cert, &config.key)?;
    Ok(link_server(&identity, &Authority::load(&config.ca)?)?)
}

fn reload(config: &WitnessConfig, tls_now: &ArcSwap<ServerConfig>) {
    match tls(config) {
        Ok(new) => {
            tls_now.store(new);
            info!(event = "witness_reloaded", "certificate, key and authority were read again");
        }
        Err(error) => {
            error!(error = format!("{error:#}"), "certificate, key and authority stay as they were");
        }
    }
}

/// By which it is seen that a file changed.
fn stamps(config: &WitnessConfig) -> [Option<(SystemTime, u64)>; 3] {
    [&config.cert, &config.key, &config.ca].map(|path| {
        let about = fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

type Shaken = Result<(Box<TlsStream<TcpStream>>, SocketAddr), (SocketAddr, String)>;

async fn accept(
    listener: TcpListener,
    tls_now: Arc<ArcSwap<ServerConfig>>,
    witness: Arc<Witness>,
    config: WitnessConfig,
) -> anyhow::Result<()> {
    let mut handshakes: Handshakes<Shaken> = Handshakes::default();
    // They end with this future.
    let mut connections = JoinSet::new();
    let mut hup = signal(SignalKind::hangup())?;
    let mut looks = interval(LOOK);
    let mut files = stamps(&config);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => handshakes.begin(shake(socket, from, TlsAcceptor::from(tls_now.load_full()))),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            done = handshakes.next() => match done {
                Ok((stream, from)) => _ = connections.spawn(witness.clone().connection(stream, from)),
                Err((from, why)) => warn!(event = "witness_stranger", %from, why, "a TLS handshake failed"),
            },
            Some(_) = connections.join_next() => {}
            _ = hup.recv() => reload(&config, &tls_now),
            _ = looks.tick() => {
                let now = stamps(&config);
                if now != files {
                    files = now;
                    reload(&config, &tls_now);
                }
            }
        }
    }
}

async fn shake(socket: TcpStream, from: SocketAddr, tls: TlsAcceptor) -> Shaken {
    let failed = |why: String| (from, why);
    socket.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let shaken = timeout(HANDSHAKE_LIMIT, tls.accept(socket)).await;
    let stream = shaken.map_err(|_| failed("it took too long".into()))?;
    Ok((Box::new(stream.map_err(|error| failed(error.to_string()))?), from))
}

/// What all connections share.
struct Witness {
    nodes: [String; 2],
    state: Mutex<Disk>,
}

impl Witness {
    fn state(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(self: Arc<Self>, stream: Box<TlsStream<TcpStream>>, from: SocketAddr) {
        let mut stream = BufReader::new(stream);
        let hello = timeout(HANDSHAKE_LIMIT, lines::read::<ToWitness>(&mut stream)).await;
        let (node, session) = match hello {
            Ok(Ok(Some(hello))) => match self.greet(&hello, &stream) {
                Ok(known) => known,
                Err(why) => {
                    warn!(event = "witness_refused", %from, why);
                    _ = lines::write(&mut stream, &FromWitness::Refused { why }).await;
                    return;
                }
            },
            _ => return,
        };
        let name = &self.nodes[node.index()];
        info!(event = "witness_node", node = name, %from, "connected");
        let ended = self.talk(node, session, &mut stream).await;
        if self.state().end(node, session) {
            info!(event = "witness_node_gone", node = name, why = ended);
        }
    }

    /// Who it is, and the number of its connection.
    fn greet(
        &self,
        hello: &ToWitness,
        stream: &BufReader<Box<TlsStream<TcpStream>>>,
    ) -> Result<(NodeIx, u64), String> {
        let ToWitness::Hello { version, cluster, node, peer } = hello else {
            return Err("the first line must say who is there".into());
        };
        if *version != VERSION {
            return Err(format!(
                "version {version} is not spoken here, only {VERSION}: upgrade the older of the two"
            ));
        }
        let index = self.nodes.iter().position(|name| name == node);
        let Some(index) = index.filter(|i| self.nodes[1 - i] == *peer) else {
            return Err(format!(
                "witness.nodes are {} and {}, not {node} and {peer}: correct them",
                self.nodes[0], self.nodes[1]
            ));
        };
        let cert = stream.get_ref().get_ref().1.peer_certificates().and_then(|certs| certs.first());
        if !cert.is_some_and(|cert| certificate_is_for(cert, node)) {
            return Err(format!("the certificate does not bear the name {node}"));
        }
        let node = NodeIx::BOTH[index];
        self.state().begin(node, cluster).map(|session| (node, session))
    }

    async fn talk(
        &self,
        node: NodeIx,
        session: u64,
        stream: &mut BufReader<Box<TlsStream<TcpStream>>>,
    ) -> String {
        let mut answer = FromWitness::Welcome { version: VERSION };
        loop {
            match timeout(SILENCE, lines::write(stream, &answer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it does not read".into(),
            }
            let said = match timeout(SILENCE, lines::read::<ToWitness>(stream)).await {
                Ok(Ok(Some(ToWitness::Ask(ask)))) => ask,
                Ok(Ok(Some(_))) => return "it greeted twice".into(),
                Ok(Ok(None)) => return "closed".into(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "nothing was heard for 10 s".into(),
            };
            match self.state().on(node, session, said) {
                Some(next) => answer = next,
                None => return "it connected again".into(),
            }
        }
    }
}

/// The registers, and where they are kept.
struct Disk {
    registers: Registers,
    slots: [Slots; 2],
    identity: std::path::PathBuf,
    cluster: Option<String>,
    nodes: [String; 2],
    /// Number of each node's present connection.
    sessions: [u64; 2],
    _lock: File,
}

/// Whose registers these are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    version: u32,
    cluster: String,
    nodes: [String; 2],
}

impl Disk {
    fn open(data: &Path, nodes: &[String; 2]) -> anyhow::Result<Disk> {
        let folders = nodes.each_ref().map(|name| data.join("registers").join(name));
        for folder in &folders {
            fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        }
        let lock = crate::daemon::lock(data)?;
        let identity = data.join("witness.json");
        let whose: Option<Whose> = match fs::read_to_string(&identity) {
            Ok(text) => Some(serde_json::from_str(&text).with_context(|| {
                format!("{}: cannot be read; was it written by a newer version?", identity.display())
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("{}: cannot be read", identity.display()));
            }
        };
        if let Some(whose) = whose.as_ref().filter(|whose| whose.nodes != *nodes) {
            bail!(
                "{}: these registers belong to the nodes {}, not to {}; give the witness an empty data folder",
                data.display(),
                whose.nodes.join(" and "),
                nodes.join(" and ")
            );
        }
        let mut held = [None; 2];
        let mut group = 0;
        let slots = folders.map(|folder| {
            let (slots, found) = Slots::open(folder);
            held[group] = found.and_then(decode);
            group += 1;
            slots
        });
        Ok(Disk {
            registers: Registers(held.map(Register::new)),
            slots,
            identity,
            cluster: whose.map(|whose| whose.cluster),
            nodes: nodes.clone(),
            sessions: [0; 2],
            _lock: lock,
        })
    }

    /// A connection of a node, which ends the one before. The first node ever says which cluster it is.
    fn begin(&mut self, node: NodeIx, cluster: &str) -> Result<u64, String> {
        match &self.cluster {
            Some(known) if known == cluster => {}
            Some(_) => {
                return Err("this witness serves another cluster: give it an empty data folder, or the node the right \
                            secret with its line `cluster`"
                    .into());
            }
            None => {
                let whose = Whose { version: 1, cluster: cluster.to_owned(), nodes: self.nodes.clone() };
                keep(&self.identity, &whose).map_err(|error| format!("the witness cannot write: {error}"))?;
                self.cluster = Some(cluster.to_owned());
            }
        }
        self.registers.gone(node);
        self.sessions[node.index()] += 1;
        Ok(self.sessions[node.index()])
    }

    fn end(&mut self, node: NodeIx, session: u64) -> bool {
        let present = self.sessions[node.index()] == session;
        if present {
            self.registers.gone(node);
        }
        present
    }

    /// One question. What is granted is on the disk first; `None`: this connection was replaced.
    fn on(&mut self, node: NodeIx, session: u64, ask: Ask) -> Option<FromWitness> {
        if self.sessions[node.index()] != session {
            return None;
        }
        let (changed, verdict) = self.registers.on(node, ask);
        for g in NodeIx::BOTH {
            let Some(reg) = self.registers.0[g.index()].held().filter(|_| changed[g.index()]) else {
                continue;
            };
            if let Err(error) = self.slots[g.index()].write(&encode(reg)) {
                // A witness that cannot remember what it granted must not grant.
                eprintln!(
                    "tandem: fatal: {}: {error}. The witness ends.",
                    self.slots[g.index()].path().display()
                );
                std::process::abort();
            }
            info!(event = "witness_register", group = self.nodes[g.index()], term = reg.term.0, primary =
                self.nodes[reg.primary.index()], mode = ?reg.mode, asked_by = self.nodes[node.index()]);
        }
        Some(match (ask, verdict) {
            (Ask::Cas { group, request, .. }, Some(verdict)) => {
                FromWitness::Answer { group, request, verdict }
            }
            _ => FromWitness::Held {
                regs: self.registers.0.each_ref().map(Register::held),
                undecided: self
                    .registers
                    .0
                    .each_ref()
                    .map(|r| r.undecided().map(|why| why.text().to_owned())),
            },
        })
    }
}

fn keep(path: &Path, whose: &Whose) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    file.write_all(serde_json::to_string_pretty(whose)?.as_bytes())?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn encode(reg: Reg) -> Vec<u8> {
    let mut body = Vec::new();
    reg.encode(&mut body);
    body
}

fn decode(body: Bytes) -> Option<Reg> {
    Cursor::new(body).reg().ok()
}
