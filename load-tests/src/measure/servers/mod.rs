//! How each server runs: a child process with a configuration and a data folder of its own, on free ports of loopback.

mod ejabberd;
mod floor;
mod prosody;
mod tandem;

use std::any::Any;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use client_sim::conn::Dialer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use srm::demo::pair::DOMAIN;
use srm::setup::{Made, Plan};
use xmpp_core::dual::Peer;
use xmpp_core::sasl::{KeyCache, Mechanism, ScramHash};
use xmpp_core::tls::ALPN_CLIENT;

use super::args::{Kind, Settings};
use super::client::Access;
use super::processes::{self, Memory};

pub(super) use tandem::binary;

/// Longest time a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// A server that runs. Killed when dropped.
pub struct Running {
    /// What it is called in tables.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// How clients reach it.
    pub access: Access,
    /// Its processes: name of the node, process id.
    pub processes: Vec<(String, u32)>,
    /// What it wrote.
    logs: Vec<PathBuf>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Running {
    /// Processor time of all processes so far.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(|(_, pid)| processes::cpu(*pid)).sum()
    }

    /// Memory of each node.
    pub fn memory(&self) -> Vec<Memory> {
        self.processes.iter().map(|(_, pid)| Memory::of(*pid)).collect()
    }

    /// The last lines of its logs.
    pub fn said(&self) -> String {
        let last = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(10)..].join("\n")
        };
        self.logs.iter().map(last).collect::<Vec<_>>().join("\n")
    }
}

/// Whether a server can be started; the error says what to do.
pub fn installed(kind: Kind, settings: &Settings) -> anyhow::Result<()> {
    match kind {
        Kind::Tandem | Kind::Single => tandem::binary(settings.tandem.as_deref()).map(|_| ()),
        Kind::Ejabberd { .. } => ejabberd::installed(),
        Kind::Prosody => prosody::program().map(|_| ()),
        Kind::Floor => Ok(()),
    }
}

/// Starts a server with the accounts `u0`, `u1`, ... and waits until it takes clients. `home`: the node of each
/// account, where there are nodes.
pub async fn start(
    kind: Kind,
    settings: &Settings,
    users: usize,
    home: fn(usize) -> usize,
) -> anyhow::Result<Running> {
    let settings = settings.clone();
    let starting = tokio::task::spawn_blocking(move || match kind {
        Kind::Tandem => tandem::start(kind, &settings, 2, users, home),
        Kind::Single => tandem::start(kind, &settings, 1, users, home),
        Kind::Ejabberd { quiet } => ejabberd::start(kind, quiet, users),
        Kind::Prosody => prosody::start(kind, users),
        Kind::Floor => floor::start(kind),
    });
    starting.await?.with_context(|| format!("{} does not start", kind.name()))
}

/// A folder with certificates and free ports, as for a Tandem node, and a process that uses them.
struct Foreign {
    made: Made,
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Foreign {
    /// Makes the folder, lets `command` fill it and say what to run, runs it, and waits until it listens.
    fn start(command: impl FnOnce(&Path, &Made) -> anyhow::Result<Command>) -> anyhow::Result<Foreign> {
        let dir = tempfile::Builder::new().prefix("tandem-measure-").tempdir()?;
        let made = Plan::local_single(DOMAIN, dir.path())?.make()?;
        let mut command = command(dir.path(), &made)?;
        let log = File::create(dir.path().join("out.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        let mut foreign = Foreign { made, child, dir };
        let at = foreign.at();
        foreign.listens(at)?;
        Ok(foreign)
    }

    /// Waits until it listens there.
    fn listens(&mut self, at: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect(at).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) and said:\n{}", fs::read_to_string(self.log())?);
            }
            if Instant::now() > deadline {
                bail!("it does not listen at {at} and said:\n{}", fs::read_to_string(self.log())?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn at(&self) -> SocketAddr {
        self.made.nodes[0].c2s_tls
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("out.log")
    }

    fn running(self, kind: Kind, version: String) -> anyhow::Result<Running> {
        let at = self.at();
        let place =
            Peer { node: "a".into(), host: at.ip().to_string().into(), port: at.port(), direct_tls: true };
        Ok(Running {
            name: kind.name(),
            version,
            access: Access {
                places: vec![place],
                dialer: dialer(&self.made.ca)?,
                floor: kind == Kind::Floor,
                keys: Arc::new(KeyCache::new()),
                from: Vec::new(),
            },
            processes: vec![(String::new(), self.child.id())],
            logs: vec![self.log()],
            _guard: Box::new(self),
        })
    }
}

/// How clients connect, to every server in the same way: TLS 1.3 with one suite, and SCRAM-SHA-1, which all of them
/// know.
pub(super) fn dialer(ca: &Path) -> anyhow::Result<Dialer> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let mut dialer = Dialer::new(Arc::new(config));
    dialer.only = Some(Mechanism::Scram(ScramHash::Sha1));
    Ok(dialer)
}

/// A program in PATH or in the folders of system programs.
fn tool(name: &str, install: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed: run `{install}`, or leave it out with --server"))
}

/// The version of a Debian package.
fn package(name: &str) -> String {
    let asked = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output();
    let version = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).trim().to_owned());
    version.ok().filter(|version| !version.is_empty()).unwrap_or_else(|| "unknown".into())
}
