//! Receivers that others wrote, on free ports of 127.0.0.1, as processes that end with their test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for what must come.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A process that is killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition; panics with what `said` gives where it does not come.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool, said: impl Fn() -> String) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come: {}", said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A program of Debian, which may lie where only the administrator looks.
fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    let install = format!("apt-get install -y --no-install-recommends {package}");
    found.unwrap_or_else(|| panic!("{name} is not installed: run `{install}` (or .ci/run, which does)"))
}

/// A port of 127.0.0.1 that is free for TCP and for UDP.
pub fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = tcp.local_addr().expect("its address").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// rsyslogd, which takes messages over UDP and TCP and writes them into a file.
pub struct Rsyslog {
    /// The port, of UDP and of TCP.
    pub port: u16,
    dir: tempfile::TempDir,
    process: Option<Process>,
}

impl Rsyslog {
    /// Starts it, and waits until it listens.
    pub async fn start() -> Rsyslog {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (at, out) = (dir.path().display(), dir.path().join("messages"));
        let parts =
            ["pri", "timestamp:::date-rfc3339", "hostname", "app-name", "msgid", "structured-data", "msg"];
        let parts: Vec<String> = parts.iter().map(|part| format!("%{part}%")).collect();
        let config = format!(
            r#"global(workDirectory="{at}" maxMessageSize="8k")
module(load="imudp")
module(load="imtcp")
input(type="imudp" address="127.0.0.1" port="{port}")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="parts" type="string" string="{}\n")
action(type="omfile" file="{}" template="parts")
"#,
            parts.join("|"),
            out.display()
        );
        fs::write(dir.path().join("rsyslog.conf"), config).expect("a configuration");
        let mut rsyslog = Rsyslog { port, dir, process: None };
        rsyslog.again().await;
        rsyslog
    }

    /// Starts it once more, on the same port.
    pub async fn again(&mut self) {
        let log = File::create(self.dir.path().join("log")).expect("a log");
        let mut command = Command::new(program("rsyslogd", "rsyslog"));
        command.arg("-n").arg("-f").arg(self.dir.path().join("rsyslog.conf"));
        command.arg("-i").arg(self.dir.path().join("pid")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(Process(command.spawn().expect("rsyslogd starts")));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until("rsyslogd", || TcpStream::connect(address).is_ok(), || self.log()).await;
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The messages that have come, each as its parts.
    pub fn messages(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.dir.path().join("messages")).unwrap_or_default();
        text.lines().map(|line| line.splitn(7, '|').map(str::to_owned).collect()).collect()
    }

    /// Waits for so many messages.
    pub async fn wait(&self, count: usize) -> Vec<Vec<String>> {
        let said = || format!("{:?}\n{}", self.messages(), self.log());
        until("a message", || self.messages().len() >= count, said).await;
        self.messages()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// snmptrapd, which takes traps of one community and writes them into a file.
pub struct Snmptrapd {
    /// The port of UDP.
    pub port: u16,
    dir: tempfile::TempDir,
    _process: Process,
}

impl Snmptrapd {
    /// Starts it; it takes traps of this community only.
    pub fn start(community: &str) -> Snmptrapd {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = dir.path().join("snmptrapd.conf");
        fs::write(&config, format!("authCommunity log {community}\n")).expect("a configuration");
        let log = File::create(dir.path().join("log")).expect("a log");
        let mut command = Command::new(program("snmptrapd", "snmptrapd"));
        // In the foreground; its own configuration only; numbers for names; no MIB; text as text.
        command.args(["-f", "-C", "-n", "-On", "-OQ", "-Oe", "-Oa", "-m", ""]).arg("-c").arg(&config);
        command.arg("-Lf").arg(dir.path().join("traps")).arg(format!("udp:127.0.0.1:{port}"));
        command.env("SNMP_PERSISTENT_DIR", dir.path()).env("SNMPCONFPATH", dir.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let process = Process(command.spawn().expect("snmptrapd starts"));
        Snmptrapd { port, dir, _process: process }
    }

    /// What it has written.
    pub fn traps(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        format!("{}{}", read("traps"), read("log"))
    }

    /// Waits until this is written.
    pub async fn wait(&self, text: &str) -> String {
        until(text, || self.traps().contains(text), || self.traps()).await;
        self.traps()
    }
}

/// A mail server of Python (aiosmtpd).
pub struct Smtpd {
    /// The port of TCP.
    pub port: u16,
    _process: Process,
    _dir: tempfile::TempDir,
    took: Receiver<Value>,
}

impl Smtpd {
    /// Starts it. `tls` is `starttls`, `implicit` or `none`; the certificate and its key are in this folder.
    pub fn start(tls: &str, login: Option<[&str; 2]>, certificates: &Path) -> Smtpd {
        const INSTALL: &str = "load-tests/tests/foreign/install";
        let test = std::env::current_exe().expect("a test has a path");
        let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
        let python = target.join("foreign/venv/bin/python");
        assert!(python.is_file(), "aiosmtpd is not installed: run `{INSTALL}` (.ci/run does)");
        let (cert, key) = (certificates.join("c2s.pem"), certificates.join("c2s.key"));
        let refused = "nobody@example.org";
        let options = json!({ "tls": tls, "login": login, "cert": cert, "key": key, "refused": refused });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receivers/smtpd.py");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("log");
        let mut command = Command::new(python);
        command.stderr(File::create(&log).expect("a log"));
        command.arg(script).arg(options.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().expect("Python starts"));
        let lines = BufReader::new(process.0.stdout.take().expect("its output")).lines();
        let (tell, took) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        let first = took.recv_timeout(LIMIT);
        let port = first.as_ref().ok().and_then(|first| first["port"].as_u64());
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let port =
            port.unwrap_or_else(|| panic!("no aiosmtpd (`{INSTALL}` installs it): {first:?} {}", said()));
        Smtpd { port: port as u16, _process: process, _dir: dir, took }
    }

    /// The mail that has come and was not asked for yet.
    pub fn took(&self) -> Vec<Value> {
        self.took.try_iter().collect()
    }

    /// The next mail.
    pub async fn next(&self) -> Value {
        let mut next = None;
        let mut came = || {
            next = self.took.try_recv().ok();
            next.is_some()
        };
        until("mail", &mut came, String::new).await;
        next.expect("it came")
    }
}
