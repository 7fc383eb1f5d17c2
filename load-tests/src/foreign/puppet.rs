//! A client that others wrote, as a process of its own: orders go in and what it sees comes out, as lines of JSON.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use srm::demo::pair::{DOMAIN, PASSWORD};

use super::tool;

/// Longest wait for anything that a client is to see.
const LIMIT: Duration = Duration::from_secs(30);
const INSTALL: &str = "load-tests/tests/foreign/install";

/// Where a server takes clients.
#[derive(Clone, Debug)]
pub struct Place {
    /// Begins in the clear, with STARTTLS.
    pub starttls: std::net::SocketAddr,
    /// Begins with TLS.
    pub direct: std::net::SocketAddr,
}

/// A running client. Killed when dropped.
pub struct Puppet {
    /// Who it is, for messages to people.
    pub jid: String,
    child: Child,
    orders: ChildStdin,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    events: Mutex<Vec<Value>>,
    more: Condvar,
}

impl Puppet {
    /// slixmpp as `user/resource`. It tries the places in this order whenever it connects, as with SRV records.
    pub fn slixmpp(user: &str, resource: &str, ca: &Path, places: &[Place], direct: bool) -> Puppet {
        let python = folder().join("venv/bin/python");
        assert!(python.is_file(), "slixmpp is not installed: run `{INSTALL}` (.ci/run does)");
        let node = |place: &Place| match direct {
            true => json!(["xmpps-client", place.direct.ip(), place.direct.port()]),
            false => json!(["xmpp-client", place.starttls.ip(), place.starttls.port()]),
        };
        let jid = format!("{user}@{DOMAIN}/{resource}");
        let nodes: Vec<Value> = places.iter().map(node).collect();
        let options = json!({ "jid": jid, "password": PASSWORD, "ca": ca, "nodes": nodes });
        let mut command = Command::new(python);
        command.arg(sources().join("puppet.py")).arg(options.to_string());
        Puppet::start(jid, command)
    }

    /// @xmpp/client as `user/resource`: the first place with STARTTLS, the second with direct TLS, and so on.
    pub fn xmpp_js(user: &str, resource: &str, ca: &Path, places: &[Place]) -> Puppet {
        let node = tool("node", "apt-get install -y nodejs npm");
        let home = folder().join("node");
        assert!(
            home.join("node_modules/@xmpp/client").is_dir(),
            "@xmpp/client is not installed: run `{INSTALL}`"
        );
        // Imports are looked for from where the program lies.
        let program = home.join(format!("puppet-{}.mjs", std::process::id()));
        fs::copy(sources().join("puppet.mjs"), &program).expect("the program is copied");
        let service = |(index, place): (usize, &Place)| match index % 2 {
            0 => format!("xmpp://{}", place.starttls),
            _ => format!("xmpps://{}", place.direct),
        };
        let services: Vec<String> = places.iter().enumerate().map(service).collect();
        let options = json!({
            "user": user, "domain": DOMAIN, "resource": resource, "password": PASSWORD, "services": services,
        });
        let mut command = Command::new(node);
        command.arg(program).arg(options.to_string()).env("NODE_EXTRA_CA_CERTS", ca);
        Puppet::start(format!("{user}@{DOMAIN}/{resource}"), command)
    }

    fn start(jid: String, mut command: Command) -> Puppet {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the client starts");
        let (orders, told) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let seen = Arc::new(Seen::default());
        let sees = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                let event =
                    serde_json::from_str(&line).unwrap_or_else(|_| json!({ "event": "said", "what": line }));
                sees.events.lock().expect("no panic holds it").push(event);
                sees.more.notify_all();
            }
        });
        Puppet { jid, child, orders, seen }
    }

    /// Its bare JID.
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().unwrap_or_default()
    }

    /// Gives an order; what becomes of it is seen later.
    pub fn order(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").unwrap_or_else(|error| panic!("{}: {error}", self.jid));
    }

    /// Sends chat messages with these ids, in one go.
    pub fn say(&mut self, to: &str, ids: &[String]) {
        self.order(&json!({ "do": "messages", "to": to, "ids": ids }));
    }

    /// Everything it has seen so far.
    pub fn events(&self) -> Vec<Value> {
        self.seen.events.lock().expect("no panic holds it").clone()
    }

    /// Waits until it has seen what fits, ever; `what` is for the message when it does not.
    pub fn until(&self, what: &str, fits: impl Fn(&Value) -> bool) {
        self.until_all(what, |events| events.iter().any(&fits));
    }

    /// Waits until all that it has seen fits.
    pub fn until_all(&self, what: &str, fits: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut events = self.seen.events.lock().expect("no panic holds it");
        while !fits(&events) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines: Vec<String> = events.iter().map(Value::to_string).collect();
                panic!("{} did not see in time: {what}; it saw\n{}", self.jid, lines.join("\n"));
            }
            events = self.seen.more.wait_timeout(events, left).expect("no panic holds it").0;
        }
    }

    /// Ids of the messages it was shown, in order.
    pub fn messages(&self) -> Vec<String> {
        let events = self.events();
        let messages = events.iter().filter(|event| event["event"] == "message");
        messages.map(|event| event["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The types of presence it was shown of a full JID, in order.
    pub fn presences_of(&self, jid: &str) -> Vec<String> {
        let events = self.events();
        let of = events.iter().filter(|event| event["event"] == "presence" && event["sender"] == jid);
        of.map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A ping there and back: whatever was on its way to this client before has been seen.
    pub fn fence(&mut self, to: &str) {
        let before = self.pongs();
        self.order(&json!({ "do": "ping", "to": to }));
        self.until_all("the answer to a ping", |events| pongs(events) > before);
    }

    fn pongs(&self) -> usize {
        pongs(&self.events())
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pongs(events: &[Value]) -> usize {
    events.iter().filter(|event| event["event"] == "pong").count()
}

/// Where the install script puts things: beside the builds.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST").to_owned();
    target.join("foreign")
}

fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/foreign")
}
