//! Prosody from Debian's package, on loopback ports of its own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client_sim::conn::Dialer;
use srm::demo::pair::{DOMAIN, PASSWORD};
use srm::setup::{Made, Plan};
use xmpp_core::dual::Peer;
use xmpp_core::tls::{Authority, c2s_client};

use super::puppet::Place;
use super::tool;

/// Longest time it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A running Prosody. Killed when dropped.
pub struct Prosody {
    made: Made,
    child: Child,
    dir: tempfile::TempDir,
}

impl Prosody {
    /// Starts it with these accounts; the password is the demo's.
    pub fn start(accounts: &[String]) -> Prosody {
        let program = tool("prosody", "apt-get install -y --no-install-recommends prosody");
        let dir = tempfile::Builder::new().prefix("tandem-prosody-").tempdir().expect("a temporary folder");
        // Certificates, an authority and free ports as a node of our own would have.
        let plan = Plan::local_single(DOMAIN, dir.path()).expect("free ports");
        let made = plan.make().expect("certificates");
        let config = dir.path().join("prosody.cfg.lua");
        fs::write(&config, configuration(dir.path(), &made)).expect("a configuration");
        write_accounts(dir.path(), accounts);
        let log = File::create(dir.path().join("out.log")).expect("a log");
        let child = Command::new(program)
            .arg("-F")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("prosody starts");
        let mut prosody = Prosody { made, child, dir };
        prosody.wait();
        prosody
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + START;
        while TcpStream::connect(self.made.nodes[0].c2s_tls).is_err() {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none() && Instant::now() < deadline, "prosody: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where clients connect.
    pub fn places(&self) -> Vec<Peer> {
        let at = self.made.nodes[0].c2s_tls;
        vec![Peer {
            node: "prosody".into(),
            host: at.ip().to_string().into(),
            port: at.port(),
            direct_tls: true,
        }]
    }

    /// Where clients connect, with and without TLS from the first byte.
    pub fn place(&self) -> Place {
        let node = &self.made.nodes[0];
        Place { starttls: node.c2s, direct: node.c2s_tls }
    }

    /// The authority to trust.
    pub fn ca(&self) -> &Path {
        &self.made.ca
    }

    /// How clients connect: they trust the authority that was made.
    pub fn dialer(&self) -> Dialer {
        let authority = Authority::load(&self.made.ca).expect("the authority that was made");
        Dialer::new(c2s_client(&authority).expect("a client's side of TLS"))
    }

    /// What it said, warnings and errors.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        format!("{}{}", read("out.log"), read("prosody.log"))
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Tandem does too, and nothing else, so that a script meets no stanza of a feature that it is not about.
fn configuration(dir: &Path, made: &Made) -> String {
    let node = &made.nodes[0];
    let (dir, ca) = (dir.display(), made.ca.display());
    let (tls, starttls) = (node.c2s_tls.port(), node.c2s.port());
    format!(
        r#"run_as_root = true
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/prosody"
log = {{ warn = "{dir}/prosody.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {starttls} }}
c2s_direct_tls_ports = {{ {tls} }}
c2s_require_encryption = true
authentication = "internal_plain"
storage = "internal"
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "carbons", "ping", "version", "smacks" }}
modules_disabled = {{ "s2s", "s2s_auth_certs" }}
hide_os_type = true
smacks_hibernation_time = 300
ssl = {{ certificate = "{dir}/a/c2s.pem"; key = "{dir}/a/c2s.key"; cafile = "{ca}" }}
VirtualHost "{DOMAIN}"
"#
    )
}

fn write_accounts(dir: &Path, accounts: &[String]) {
    // Prosody's file names: all but letters and digits as %xx.
    let file = |name: &str| name.replace('.', "%2e").replace('-', "%2d");
    let folder = dir.join("prosody").join(file(DOMAIN)).join("accounts");
    fs::create_dir_all(&folder).expect("a folder for accounts");
    for account in accounts {
        let text = format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n");
        fs::write(folder.join(format!("{}.dat", file(account))), text).expect("an account");
    }
}
