//! Somebody who looks at both nodes' status all the time: what waits look at, the story for the reader, and whether two
//! nodes ever let go of something alone for the same users.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use srm::admin::Status;

use super::language::Node;
use super::net::{self, Net};
use super::node::Server;

/// How often a node is asked.
const PERIOD: Duration = Duration::from_millis(100);
/// A look that took longer is not taken for the present.
const PROMPT: Duration = Duration::from_millis(300);
/// The admin API of a node, in its own namespace.
pub(super) const ADMIN: &str = "http://127.0.0.1:20075";
/// A node answers within this time: it asks the other one for its figures, for two seconds at most.
const ANSWER: Duration = Duration::from_secs(4);

/// A node that is asked answers, or does not, within this time.
const FRESH: Duration = Duration::from_secs(5);

/// What was seen so far.
#[derive(Default)]
struct Seen {
    latest: [Option<Look>; 2],
    shown: [String; 2],
    story: Vec<String>,
    both_alone: Vec<String>,
    /// When something was done last: an answer that was asked for before says nothing of what became of it.
    acted: Option<Instant>,
}

/// One answer of a node.
#[derive(Clone)]
struct Look {
    asked: Instant,
    /// When the node looked at itself, at the latest.
    looked: Instant,
    status: Status,
}

impl Look {
    /// An answer that is here now, to a question of then. The node says by its clock, if that is right, when it had looked at
    /// itself: for the peer's figures it may have waited.
    fn new(asked: Instant, asked_at: SystemTime, status: Status) -> Look {
        let answered = Instant::now();
        let own =
            status.nodes.iter().find(|node| node.local).map(|node| Duration::from_millis(node.clock_ms + 1));
        let after = own.and_then(|own| own.checked_sub(asked_at.duration_since(UNIX_EPOCH).ok()?));
        let looked = after.map(|after| asked + after).filter(|looked| *looked < answered);
        Look { asked, looked: looked.unwrap_or(answered), status }
    }
}

/// The two watching threads; they end when this is dropped.
pub(super) struct Watch {
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub(super) fn begin(net: &Net, servers: &[Server; 2]) -> Result<Watch, String> {
        let mut watch =
            Watch { begun: Instant::now(), seen: Arc::default(), over: Arc::default(), threads: Vec::new() };
        for server in servers {
            let failed = |error: std::io::Error| format!("{}: {error}", server.node);
            let space = net.of(server.node).another().map_err(failed)?;
            let token = server.token().map_err(failed)?;
            let eyes = Eyes {
                node: server.node,
                begun: watch.begun,
                seen: Arc::clone(&watch.seen),
                over: Arc::clone(&watch.over),
                token,
            };
            watch.threads.push(std::thread::spawn(move || eyes.look(&space)));
        }
        Ok(watch)
    }

    /// Something was done just now.
    pub(super) fn acted(&self) {
        self.seen().acted = Some(Instant::now());
    }

    /// What a node shows now, asked after what was done last; `None` if it does not answer.
    pub(super) fn status(&self, node: Node) -> Option<Status> {
        let deadline = Instant::now() + FRESH;
        loop {
            let seen = self.seen();
            let look = seen.latest[node.index()].as_ref()?;
            if seen.acted.is_none_or(|acted| look.asked >= acted) {
                return Some(look.status.clone());
            }
            drop(seen);
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Puts a line into the story.
    pub(super) fn tell(&self, what: &str) {
        self.seen().tell(self.begun, what);
    }

    /// What happened, line by line.
    pub(super) fn story(&self) -> Vec<String> {
        self.seen().story.clone()
    }

    /// When two nodes let go of something alone for the same users.
    pub(super) fn both_alone(&self) -> Vec<String> {
        self.seen().both_alone.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn tell(&mut self, begun: Instant, what: &str) {
        self.story.push(format!("{:7.1} s  {what}", begun.elapsed().as_secs_f64()));
    }

    fn note(&mut self, begun: Instant, node: Node, look: Option<Look>) {
        let shown = match &look {
            Some(look) => summary(node, &look.status),
            None => "does not answer".to_owned(),
        };
        if self.shown[node.index()] != shown {
            self.tell(begun, &format!("        {node}: {shown}"));
            self.shown[node.index()] = shown;
        }
        self.latest[node.index()] = look;
        if let [Some(a), Some(b)] = &self.latest
            && let Some(home) = led_alone_by_both(a, b)
        {
            let at = begun.elapsed().as_secs_f64();
            self.both_alone.push(format!("{at:.1} s: both nodes let go alone for the users of {home}"));
        }
    }
}

/// One line about a node's own view.
fn summary(node: Node, status: &Status) -> String {
    let own = status.nodes.iter().find(|n| n.name == node.to_string());
    let state = own.map_or("?".to_owned(), |n| format!("{} / {}", n.state, n.reason));
    let groups = status.groups.iter().map(|g| format!("{}'s users: {} {}", g.home, g.role, g.mode));
    let alarms = status.alarms.iter().map(|alarm| format!("ALARM {alarm}"));
    [state].into_iter().chain(groups).chain(alarms).collect::<Vec<_>>().join("; ")
}

/// Two answers that overlap and both say that their node releases alone for the users of the same home.
fn led_alone_by_both(a: &Look, b: &Look) -> Option<String> {
    let prompt = |look: &Look| look.looked - look.asked < PROMPT;
    let overlap = a.asked.max(b.asked).saturating_duration_since(a.looked.min(b.looked)) < 2 * PERIOD;
    if !(prompt(a) && prompt(b) && overlap) {
        return None;
    }
    let alone = |look: &Look, home: &str| {
        look.status
            .groups
            .iter()
            .any(|g| g.home == home && g.role == "Primary" && g.release == "own disk" && g.mode == "Solo")
    };
    Node::BOTH.map(|n| n.to_string()).into_iter().find(|home| alone(a, home) && alone(b, home))
}

/// Who asks a node, at [`ADMIN`] in its own namespace.
pub(super) fn http() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).proxy(None);
    config.max_idle_connections(1).build().into()
}

/// What one watching thread has.
struct Eyes {
    node: Node,
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    token: String,
}

impl Eyes {
    fn look(&self, space: &File) {
        net::enter(space).expect("the namespace is there");
        let http = http();
        while !self.over.load(Ordering::Relaxed) {
            let (asked, asked_at) = (Instant::now(), SystemTime::now());
            let answer = http.get(format!("{ADMIN}/v1/status")).header("Authorization", &self.token).call();
            let status = answer.ok().and_then(|mut answer| answer.body_mut().read_json::<Status>().ok());
            let look = status.map(|status| Look::new(asked, asked_at, status));
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).note(self.begun, self.node, look);
            std::thread::sleep(PERIOD);
        }
    }
}
