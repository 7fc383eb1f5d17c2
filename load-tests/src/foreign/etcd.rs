//! etcd from Debian's package: an authority of its own, and the command line of a member.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::Value;
use srm::setup::free_ports;

use super::tool;

/// Port where clients connect to a member that has a machine of its own.
pub const PORT: u16 = 2_379;
/// Longest time a member may take to answer.
const START: Duration = Duration::from_secs(30);

/// Where a member is.
#[derive(Clone, Debug)]
pub struct At {
    /// Its name.
    pub name: String,
    /// Address for clients.
    pub client: (Ipv4Addr, u16),
    /// Port for the other members, on the loopback address.
    pub peers: u16,
}

/// An authority, and one certificate for members and their clients: `ca.pem`, `etcd.pem`, `etcd.key`.
pub fn certificates(folder: &Path, addresses: &[Ipv4Addr]) -> Result<(), String> {
    let make = || -> Result<[String; 3], rcgen::Error> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name.push(DnType::CommonName, "the authority of an etcd");
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let names: Vec<String> = addresses.iter().map(|ip| IpAddr::from(*ip).to_string()).collect();
        let mut leaf = CertificateParams::new(names)?;
        // An etcd with users refuses certificates with a common name at its gateway.
        leaf.distinguished_name = DistinguishedName::new();
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let pem = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
        Ok([ca_pem, pem, key.serialize_pem()])
    };
    let texts = make().map_err(|error| error.to_string())?;
    for (name, text) in ["ca.pem", "etcd.pem", "etcd.key"].iter().zip(texts) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The command line of one member, whose certificates are in the folder.
pub fn command(folder: &Path, me: &At, all: &[At]) -> Command {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let members: Vec<String> = all.iter().map(|at| format!("{}={}", at.name, url(at.peers))).collect();
    let client = endpoint(me);
    let mut command = Command::new(tool("etcd", "apt-get install -y --no-install-recommends etcd-server"));
    command.args(["--name", &me.name, "--initial-cluster", &members.join(",")]);
    command.args(["--listen-peer-urls", &url(me.peers), "--initial-advertise-peer-urls", &url(me.peers)]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--client-cert-auth", "--trusted-ca-file"]).arg(folder.join("ca.pem"));
    command.arg("--cert-file").arg(folder.join("etcd.pem")).arg("--key-file").arg(folder.join("etcd.key"));
    command.args(["--log-level", "warn", "--logger", "zap"]);
    command.arg("--data-dir").arg(folder.join(format!("{}-data", me.name))).stdin(Stdio::null());
    command
}

/// Where clients connect.
pub fn endpoint(at: &At) -> String {
    format!("https://{}:{}", at.client.0, at.client.1)
}

/// Members on this machine. Killed when dropped.
pub struct Etcd {
    folder: tempfile::TempDir,
    /// Where they are.
    pub members: Vec<At>,
    running: Vec<Option<Child>>,
}

impl Etcd {
    /// So many members, started, and one of them leads.
    pub fn start(members: usize) -> Etcd {
        let folder = tempfile::Builder::new()
            .prefix("tandem-etcd-")
            .tempdir_in(crate::rig::place())
            .expect("a temporary folder");
        certificates(folder.path(), &[Ipv4Addr::LOCALHOST]).expect("certificates");
        let ports = free_ports(members).expect("free ports");
        let at = |(i, ports): (usize, &srm::setup::Ports)| At {
            name: format!("m{i}"),
            client: (Ipv4Addr::LOCALHOST, ports.direct),
            peers: ports.link,
        };
        let at: Vec<At> = ports.iter().enumerate().map(at).collect();
        let running = at.iter().map(|_| None).collect();
        let mut etcd = Etcd { folder, members: at, running };
        (0..members).for_each(|member| etcd.run(member));
        (0..members).for_each(|member| etcd.wait(member));
        etcd
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, member: usize) {
        let log = self.folder.path().join(format!("m{member}.log"));
        let log = fs::File::options().create(true).append(true).open(log).expect("a log");
        let mut command = command(self.folder.path(), &self.members[member], &self.members);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.running[member] = Some(command.spawn().expect("etcd starts"));
    }

    /// Waits until it answers a question that needs the majority.
    pub fn wait(&self, member: usize) {
        let deadline = Instant::now() + START;
        while self.ask(member, "kv/range", "{\"key\":\"AA==\"}").is_none() {
            assert!(Instant::now() < deadline, "etcd does not answer\n{}", self.log(member));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, member: usize) {
        let mut child = self.running[member].take().expect("it runs");
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }

    /// Removes what a member that does not run has on its disk.
    pub fn empty(&self, member: usize) {
        fs::remove_dir_all(self.folder.path().join(format!("m{member}-data"))).expect("its data");
    }

    /// Which member leads.
    pub fn leader(&self) -> Option<usize> {
        let id = |member, of: &str| {
            let said = self.ask(member, "maintenance/status", "{}")?;
            said.pointer(of).and_then(Value::as_str).map(str::to_owned)
        };
        let led_by = (0..self.members.len()).find_map(|member| id(member, "/leader"))?;
        (0..self.members.len()).find(|member| id(*member, "/header/member_id").as_ref() == Some(&led_by))
    }

    /// The answer of a member to a request of the JSON gateway, if it is a good one.
    pub fn ask(&self, member: usize, what: &str, body: &str) -> Option<Value> {
        let file = |name: &str| self.folder.path().join(name);
        let said = Command::new("curl")
            .args(["-s", "-f", "-m", "2", "--cacert"])
            .arg(file("ca.pem"))
            .arg("--cert")
            .arg(file("etcd.pem"))
            .arg("--key")
            .arg(file("etcd.key"))
            .args(["-d", body, &format!("{}/v3/{what}", endpoint(&self.members[member]))])
            .output()
            .expect("curl runs");
        serde_json::from_slice(&said.stdout).ok()
    }

    /// Where its certificates are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a member said.
    pub fn log(&self, member: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("m{member}.log"))).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
