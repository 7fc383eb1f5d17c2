//! The witness as a node meets it: over TLS, with the certificates that `tandem init` makes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use presence_engine::ids::{Mode, NodeIx, Reg, Term};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use xmpp_core::tls::{Authority, Identity, link_client};

use super::client::{self, Asked, Dial, Said};
use super::serve;
use super::words::{Ask, Verdict};
use crate::config::WitnessConfig;
use crate::setup::Plan;

const LIMIT: Duration = Duration::from_secs(20);

fn reg(term: u64, primary: NodeIx, mode: Mode) -> Reg {
    Reg { term: Term(term), primary, mode, settled: Term(0) }
}

fn pair(term: u64) -> Reg {
    reg(term, NodeIx::A, Mode::Pair)
}

fn made(dir: &Path) -> WitnessConfig {
    let plan = Plan::local_pair("im.example", dir).unwrap().local_witness().unwrap();
    let mut config = WitnessConfig::load(&plan.make().unwrap().witness.unwrap()).unwrap();
    config.listen.set_port(0);
    config
}

/// A witness that runs until it is aborted.
async fn start(config: &WitnessConfig) -> (String, JoinHandle<()>) {
    let (address, running) = serve(config).await.unwrap();
    let task = tokio::spawn(async move { running.await.unwrap() });
    (address.to_string(), task)
}

/// With the certificate of this node in this folder.
fn shown(dir: &Path, node: &str) -> Arc<ClientConfig> {
    let file = |name: &str| dir.join(node).join(name);
    let identity = Identity::load(&file("link.pem"), &file("link.key")).unwrap();
    link_client(&identity, &Authority::load(&file("ca.pem")).unwrap()).unwrap()
}

/// A node's connection, kept by the real client.
struct Node {
    tls: Arc<ArcSwap<ClientConfig>>,
    ask: UnboundedSender<Asked>,
    said: Arc<Mutex<Vec<Said>>>,
    /// The last connection that it was told of.
    knows: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Node {
    /// `node` with the certificate of `shows`.
    fn dial(dir: &Path, address: &str, node: &str, shows: &str, cluster: u64) -> Node {
        let tls = Arc::new(ArcSwap::new(shown(dir, shows)));
        let peer = if node == "a" { "b" } else { "a" };
        let dial = Dial {
            address: address.to_owned(),
            name: ServerName::try_from("witness").unwrap(),
            tls: tls.clone(),
            cluster,
            node: node.to_owned(),
            peer: peer.to_owned(),
        };
        let (ask, asked) = unbounded_channel();
        let said: Arc<Mutex<Vec<Said>>> = Arc::default();
        let knows: Arc<AtomicU64> = Arc::default();
        let tell = {
            let (said, knows) = (said.clone(), knows.clone());
            move |number, what| {
                said.lock().unwrap().push(what);
                knows.store(number, SeqCst);
            }
        };
        let task = tokio::spawn(async move { match client::keep(dial, asked, tell).await {} });
        Node { tls, ask, said, knows, task }
    }

    /// Waits for something that the witness says, or that is said of it, and takes what came before it too.
    async fn hears(&self, what: &str, fits: impl Fn(&Said) -> bool) -> Said {
        let look = async {
            loop {
                if let Some(found) = {
                    let mut said = self.said.lock().unwrap();
                    let at = said.iter().position(&fits);
                    at.map(|at| said.drain(..=at).next_back().unwrap())
                } {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, look).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.said.lock().unwrap()))
    }

    async fn connected(&self) {
        self.hears("connected", |said| matches!(said, Said::Here(_))).await;
    }

    /// As a node does that has heard of the last connection.
    fn puts(&self, ask: Ask) {
        self.ask.send((self.knows.load(SeqCst), ask)).unwrap();
    }

    async fn reports(&self, reg: Reg) {
        self.puts(Ask::Report([reg; 2]));
        self.connected().await;
    }

    async fn asks(&self, request: u32, expected: Reg, new: Reg) -> Verdict {
        self.puts(Ask::Cas { group: NodeIx::A, request, expected, new });
        match self.hears("an answer", |said| matches!(said, Said::Answer(_, n, _) if *n == request)).await {
            Said::Answer(_, _, verdict) => verdict,
            _ => unreachable!("looked for"),
        }
    }

    async fn away(&self, why: &str) {
        self.hears(why, |said| matches!(said, Said::Away(text) if text.contains(why))).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn what_it_granted_outlives_it_and_the_other_node_hears_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    let (address, task) = start(&config).await;
    let [a, b] = ["a", "b"].map(|name| Node::dial(dir.path(), &address, name, name, 7));
    for node in [&a, &b] {
        node.connected().await;
    }
    assert_eq!(a.asks(1, pair(4), pair(6)).await, Verdict::Undecided, "it knows of nothing yet");
    for node in [&a, &b, &a] {
        node.reports(pair(4)).await;
    }
    let alone = reg(7, NodeIx::B, Mode::Solo);
    assert_eq!(b.asks(1, pair(4), alone).await, Verdict::Won);
    task.abort();
    let _ = task.await;
    a.away("").await;
    // Its place on the disk is free when its process is gone.
    let (address, _task) = start(&config).await;
    let a = Node::dial(dir.path(), &address, "a", "a", 7);
    a.connected().await;
    assert_eq!(a.asks(2, pair(4), reg(6, NodeIx::A, Mode::Solo)).await, Verdict::Lost(alone));
}

/// An answer of the witness before may be on its way to the node still: what it says is not so any more.
#[tokio::test]
async fn what_was_asked_before_the_node_knew_of_the_connection_does_not_go_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    let (address, _task) = start(&config).await;
    let [a, b] = ["a", "b"].map(|name| Node::dial(dir.path(), &address, name, name, 7));
    for node in [&a, &b, &a, &b] {
        node.ask.send((0, Ask::Report([pair(4); 2]))).unwrap();
    }
    for node in [&a, &b] {
        node.connected().await;
    }
    // Two reports would have it know what it is to decide about; it answers in the order in which it is asked.
    assert_eq!(a.asks(1, pair(4), pair(6)).await, Verdict::Undecided);
    assert_eq!(b.asks(1, pair(4), pair(6)).await, Verdict::Undecided);
}

#[tokio::test]
async fn strangers_are_told_why_they_are_not_welcome() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    let (address, _task) = start(&config).await;
    let a = Node::dial(dir.path(), &address, "a", "a", 7);
    a.connected().await;
    let impostor = Node::dial(dir.path(), &address, "b", "a", 7);
    impostor.away("the certificate does not bear the name b").await;
    let unknown = Node::dial(dir.path(), &address, "c", "a", 7);
    unknown.away("witness.nodes are a and b, not c and a").await;
    let foreign = Node::dial(dir.path(), &address, "b", "b", 8);
    foreign.away("this witness serves another cluster").await;
    let other = tempfile::tempdir().unwrap();
    made(other.path());
    let stranger = Node::dial(other.path(), &address, "b", "b", 7);
    stranger.away("").await;
    // A node that connects again ends its connection of before.
    let again = Node::dial(dir.path(), &address, "a", "a", 7);
    again.connected().await;
    a.puts(Ask::Report([pair(4); 2]));
    a.away("closed").await;
}

/// Whether the witness trusts them is not to be seen first when the connection breaks, with the machine of the peer.
#[tokio::test]
async fn a_node_that_gets_other_certificates_shows_them_at_once() {
    let [dir, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = made(dir.path());
    made(other.path());
    let (address, _task) = start(&config).await;
    let a = Node::dial(dir.path(), &address, "a", "a", 7);
    a.connected().await;
    a.tls.store(shown(other.path(), "a"));
    a.away("this node has other certificates").await;
    a.away("TLS fails").await;
    a.tls.store(shown(dir.path(), "a"));
    a.connected().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = WitnessConfig { listen: taken.local_addr().unwrap(), ..made(dir.path()) };
    let why = serve(&config).await.map(|_| ()).unwrap_err().to_string();
    assert!(why.starts_with(&format!("witness.listen: {} cannot be listened on: ", config.listen)), "{why}");
    assert!(why.contains("another process has it"), "{why}");
}

#[tokio::test]
async fn registers_of_other_nodes_and_a_folder_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = made(dir.path());
    let (address, task) = start(&config).await;
    let a = Node::dial(dir.path(), &address, "a", "a", 7);
    a.connected().await;
    let text = |error: anyhow::Error| format!("{error:#}");
    assert!(text(serve(&config).await.map(|_| ()).unwrap_err()).contains("another tandem uses"));
    task.abort();
    let _ = task.await;
    let other = WitnessConfig { nodes: ["a".into(), "c".into()], ..config };
    assert!(text(serve(&other).await.map(|_| ()).unwrap_err()).contains("belong to the nodes a and b"));
}
