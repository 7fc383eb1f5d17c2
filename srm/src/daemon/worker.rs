//! The node's thread: inputs in, one turn for all that came, outputs out to sockets and disks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use presence_engine::engine::Input;
use presence_engine::ids::{Conn, NodeIx};
use presence_engine::state::User;
use session_mover::link::{LinkEvent, LinkSender};
use tokio::sync::{mpsc::UnboundedSender, oneshot};
use tokio::time::timeout;
use tracing::{debug, info, warn};
use xmpp_core::jid::BareJid;
use xmpp_core::net::{ConnSender, ToConn};

use super::accounts::Accounts;
use super::chronicle::Chronicle;
use super::clock::Clock;
use super::disk::NodeDisk;
use super::events;
use super::metrics::Metrics;
use super::stopping::Stopping;
use super::store;
use super::trouble::Trouble;
use crate::admin::{SessionStatus, UserStatus};
use crate::config::Zone;
use crate::node::{Event, In, Node, Op, Out, Reply, Snapshot, Tuning};
use crate::sockets::{Beacons, boottime_ms};
use crate::witness::client::{Asked, Said};

/// Milliseconds of a tick.
const TICK_MS: u64 = 250;
/// Events that one turn takes at most.
const BATCH: usize = 4_096;

/// What other threads tell the node's thread.
pub enum ToNode {
    /// An input of the node.
    In(In),
    /// A client authenticated.
    Opened(Conn, ConnSender, Input),
    /// What comes from the witness, by a connection of this number.
    Witness(u64, Said),
    /// News of the link.
    Link(LinkEvent),
    /// Take other settings.
    Tune(Box<Tuning>),
    /// An operator asks.
    Op(Op, oneshot::Sender<Reply>),
    /// Show yourself.
    Snapshot(oneshot::Sender<Snapshot>),
    /// List the accounts.
    Users(oneshot::Sender<Vec<UserStatus>>),
    /// All sessions.
    Sessions(oneshot::Sender<Vec<SessionStatus>>),
    /// Something for the peer's daemon; answered with whether the link was up.
    Control(Bytes),
    /// Answer when this is so.
    Probe(Want, oneshot::Sender<()>),
    /// Where what this node says to itself is to come.
    Inbox(ConnSender),
}

/// How far a probe is to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// A turn of the engine that began after the question is made.
    Turn,
    /// Something was made durable in this node's log since this was last so.
    Commit,
    /// The last stanza to itself waits neither for a disk nor for the peer. If that is not so, there is no answer.
    LetGo,
}

/// What the node's thread asks of the asynchronous side.
pub enum FromNode {
    /// Probe the peer.
    Probe,
    /// A message of the peer's daemon.
    Control(Bytes),
    /// End the process and begin anew.
    Restart,
    /// Everything is handed over: end the process.
    Leave,
    /// Start the critical services that do not run.
    StartServices,
    /// Look at what the node does not see.
    Checks,
}

/// The thread's own state.
pub struct Worker {
    /// The node.
    pub node: Node,
    /// Its disk.
    pub disk: NodeDisk,
    /// This node.
    pub me: NodeIx,
    /// Names of both nodes.
    pub names: [String; 2],
    /// Keeps the events.
    pub chronicle: Arc<Chronicle>,
    /// Verifiers for logins.
    pub accounts: Arc<Accounts>,
    /// The beacon socket; `None` in a group of one.
    pub beacon: Option<Beacons>,
    /// Whether the node has found its place; read by `/readyz`.
    pub ready: Arc<AtomicBool>,
    /// What sessions live by.
    pub clock: Clock,
    /// By which windows of the day are read.
    pub zone: Arc<ArcSwap<Zone>>,
    /// What keeps the link from coming up.
    pub trouble: Trouble,
    /// Questions for the witness.
    pub witness: UnboundedSender<Asked>,
    /// The last connection to the witness that the node has heard of.
    pub knows_witness: u64,
    /// When it last went round; read by the watchdog.
    pub heart: Arc<AtomicU64>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How this process is stopped.
    pub stopping: Arc<Stopping>,
    /// To the asynchronous side.
    pub tell: UnboundedSender<FromNode>,
}

struct Edges {
    clients: BTreeMap<u64, ConnSender>,
    links: [Option<LinkSender>; 2],
    replies: BTreeMap<u64, oneshot::Sender<Reply>>,
    next_reply: u64,
    probes: BTreeMap<u64, oneshot::Sender<()>>,
    /// Client input that waits because too much is in flight (D9).
    deferred: VecDeque<In>,
    /// Clients were told that the server is shut down: nothing that they say counts any more.
    shut: bool,
}

impl Edges {
    fn present(&self, conn: session_mover::link::Conn) -> bool {
        self.links[conn.link as usize].as_ref().is_some_and(|sender| sender.conn() == conn)
    }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Time that the last words to the peer have.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);

/// Asks the node's thread; `None`: it has ended, or does not answer for so long, because its disk keeps it waiting.
pub(super) async fn ask<T>(
    to_node: &Sender<ToNode>,
    limit: Duration,
    question: impl FnOnce(oneshot::Sender<T>) -> ToNode,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    to_node.send(question(tell)).ok()?;
    timeout(limit, told).await.ok()?.ok()
}

impl Worker {
    /// Runs until every sender is gone.
    pub fn run(mut self, told: Receiver<ToNode>) {
        let mut edges = Edges {
            clients: BTreeMap::new(),
            links: [None, None],
            replies: BTreeMap::new(),
            next_reply: 1,
            probes: BTreeMap::new(),
            deferred: VecDeque::new(),
            shut: false,
        };
        let mut last_tick = boottime_ms();
        self.dispatch(&mut edges);
        loop {
            let wait = (last_tick + TICK_MS).saturating_sub(boottime_ms());
            match told.recv_timeout(Duration::from_millis(wait)) {
                Ok(event) => {
                    self.event(event, &mut edges);
                    for event in told.try_iter().take(BATCH) {
                        self.event(event, &mut edges);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let ticks = (boottime_ms() - last_tick) / TICK_MS;
            if ticks > 0 {
                last_tick += ticks * TICK_MS;
                self.heart.store(last_tick, Ordering::Relaxed);
                self.node.minute(self.zone.load().minute(now_ms()));
                self.handle(In::Ticks(ticks.min(u64::from(u16::MAX)) as u16));
                self.ready.store(self.node.is_ready(), Ordering::Relaxed);
            }
            self.disk.peer_is_ready(self.node.peer_would_go_on());
            let now_ms = self.now_ms();
            self.node.step(now_ms, &mut self.disk);
            while !edges.deferred.is_empty() && self.node.clients_may_send() {
                for input in edges.deferred.drain(..edges.deferred.len().min(BATCH)).collect::<Vec<_>>() {
                    self.client(input, &mut edges);
                }
                self.node.step(now_ms, &mut self.disk);
            }
            self.dispatch(&mut edges);
        }
    }

    fn handle(&mut self, input: In) {
        let now_ms = self.now_ms();
        self.disk.peer_is_ready(self.node.peer_would_go_on());
        self.node.handle(now_ms, input, &mut self.disk);
    }

    fn now_ms(&mut self) -> u64 {
        let (now_ms, set) = self.clock.now();
        if let Some(seconds) = set {
            warn!(event = "clock_set", seconds, "the wall clock was set; sessions follow it slowly");
        }
        now_ms
    }

    fn event(&mut self, event: ToNode, edges: &mut Edges) {
        match event {
            // That they close their streams now does not end their sessions.
            ToNode::In(In::Client(Input::Element { .. } | Input::Closed { .. })) if edges.shut => {}
            ToNode::Opened(_, sender, _) if edges.shut => sender.send(self.goodbye()),
            ToNode::In(input @ In::Client(_)) => {
                if edges.deferred.is_empty() && self.node.clients_may_send() {
                    self.client(input, edges);
                } else {
                    edges.deferred.push_back(input);
                }
            }
            ToNode::In(input) => self.handle(input),
            ToNode::Opened(conn, sender, input) => {
                edges.clients.insert(conn.number, sender);
                self.event(ToNode::In(In::Client(input)), edges);
            }
            ToNode::Witness(number, said) => {
                if number != self.knows_witness {
                    // What was asked so far was not asked by this connection.
                    self.dispatch(edges);
                    self.knows_witness = number;
                }
                self.handle(In::Witness(said));
            }
            ToNode::Link(event) => self.link(event, edges),
            ToNode::Tune(tuning) => self.node.tune(*tuning),
            ToNode::Op(op, answer) => {
                let number = edges.next_reply;
                edges.next_reply += 1;
                // Nobody waits any more for those that came to nothing.
                edges.replies.retain(|_, answer| !answer.is_closed());
                edges.replies.insert(number, answer);
                self.handle(In::Op(number, op));
            }
            ToNode::Snapshot(answer) => {
                let mut snapshot = self.node.snapshot();
                snapshot.alarms.extend(self.trouble.alarms());
                snapshot.alarms.extend(store::alarm(&self.disk.watch_store()));
                let _ = answer.send(snapshot);
            }
            ToNode::Users(answer) => _ = answer.send(self.users()),
            ToNode::Sessions(answer) => _ = answer.send(self.sessions()),
            ToNode::Control(bytes) => _ = self.node.send_control(&bytes),
            ToNode::Probe(want, answer) => self.probe(want, answer, edges),
            ToNode::Inbox(sender) => _ = edges.clients.insert(Conn::SELF, sender),
        }
    }

    /// What asks whether clients are served does not wait as they may have to.
    fn probe(&mut self, want: Want, answer: oneshot::Sender<()>, edges: &mut Edges) {
        if want == Want::LetGo {
            if self.node.loop_is_let_go() {
                let _ = answer.send(());
            }
            return;
        }
        let number = edges.next_reply;
        edges.next_reply += 1;
        // Nobody waits any more for those that came to nothing.
        edges.probes.retain(|_, answer| !answer.is_closed());
        edges.probes.insert(number, answer);
        self.handle(match want {
            Want::Commit => In::Commit(number),
            _ => In::Client(Input::Probe(number)),
        });
    }

    fn client(&mut self, input: In, edges: &mut Edges) {
        if let In::Client(Input::Closed { conn, .. }) = &input {
            edges.clients.remove(&conn.number);
        }
        self.handle(input);
    }

    /// News of a connection that is not the present one is late and means nothing.
    fn link(&mut self, event: LinkEvent, edges: &mut Edges) {
        match event {
            LinkEvent::Up(conn, sender) => {
                edges.links[conn.link as usize] = Some(sender);
                self.handle(In::LinkUp(conn.link));
            }
            LinkEvent::Msg(conn, msg) => {
                if edges.present(conn) {
                    self.handle(In::LinkMsg(conn.link, msg));
                    if self.node.driver().agrees(conn.link) {
                        self.trouble.agreed(conn.link);
                    }
                }
            }
            LinkEvent::Down(conn, ended) => {
                self.metrics.link_down();
                info!(link = ?conn.link, ended = ?ended, "link down");
                self.trouble.failed(conn.link, &ended);
                if edges.present(conn) {
                    edges.links[conn.link as usize] = None;
                }
                if edges.links[conn.link as usize].is_none() {
                    self.handle(In::LinkDown(conn.link, ended.suggests_death()));
                }
            }
            LinkEvent::Failed(link, ended) => {
                debug!(?link, ?ended, "link attempt failed");
                self.trouble.failed(link, &ended);
            }
        }
    }

    fn users(&self) -> Vec<UserStatus> {
        let state = self.node.driver().engine().state();
        let name = |n: NodeIx| self.names[n.index()].clone();
        let users = state.users().map(|(user, u)| UserStatus {
            user: user.to_string(),
            home: if u.assigned { name(u.home) } else { String::new() },
            owner: state.owner(u).map(name).unwrap_or_default(),
            epoch: state.epoch(u).to_string(),
            sessions: u.sessions.len() as u64,
        });
        users.collect()
    }

    /// All sessions of both nodes, as this node knows them.
    fn sessions(&self) -> Vec<SessionStatus> {
        let state = self.node.driver().engine().state();
        let name = |n: NodeIx| self.names[n.index()].clone();
        let of = |(user, u): (&BareJid, &User)| {
            let owner = state.owner(u).map(name).unwrap_or_default();
            let sessions = u.sessions.values().filter_map(|id| state.session(*id));
            let listed = sessions.map(|s| SessionStatus {
                user: user.to_string(),
                resource: s.resource.to_string(),
                owner: owner.clone(),
                connected: s.detached_ms.is_none(),
                available: s.priority.is_some(),
                dual: s.dual,
                queued: s.out.len() as u64,
            });
            listed.collect::<Vec<_>>()
        };
        state.users().flat_map(of).collect()
    }

    /// Does what the node put out, in order.
    fn dispatch(&mut self, edges: &mut Edges) {
        for out in self.node.take() {
            match out {
                Out::Deliver(conn, bytes) => {
                    if let Some(client) = edges.clients.get(&conn.number) {
                        session_mover::kill_point!("release.before");
                        if conn.number != Conn::SELF {
                            self.metrics.deliver(bytes.len());
                        }
                        client.send(ToConn::Write(bytes));
                        session_mover::kill_point!("release.after");
                    }
                }
                Out::Credit(conn) => {
                    if let Some(client) = edges.clients.get(&conn.number) {
                        client.credit(1);
                    }
                }
                Out::Close(conn, last, end_stream) => {
                    if let Some(client) = edges.clients.remove(&conn.number) {
                        client.send(ToConn::Close { last, end_stream });
                    }
                }
                Out::Link(link, msg) => {
                    if let Some(sender) = &edges.links[link as usize] {
                        sender.send(msg);
                    }
                }
                Out::CloseLink(link, why) => {
                    info!(?link, why = why.text(), "link closed");
                    self.trouble.closed(link, why);
                    if let Some(sender) = edges.links[link as usize].take() {
                        sender.close();
                    }
                }
                Out::Beacon(bytes) => {
                    if let Some(beacon) = &self.beacon {
                        beacon.send(&bytes);
                    }
                }
                Out::Account(user, Some(verifiers)) => self.accounts.set(&user, &verifiers),
                Out::Account(user, None) => self.accounts.remove(&user),
                Out::Probed(number) => {
                    if let Some(answer) = edges.probes.remove(&number) {
                        let _ = answer.send(());
                    }
                }
                Out::StartServices => _ = self.tell.send(FromNode::StartServices),
                Out::Checks => _ = self.tell.send(FromNode::Checks),
                Out::Probe => _ = self.tell.send(FromNode::Probe),
                Out::Witness(ask) => _ = self.witness.send((self.knows_witness, ask)),
                Out::Control(bytes) => _ = self.tell.send(FromNode::Control(bytes)),
                Out::Restart => _ = self.tell.send(FromNode::Restart),
                Out::Shut => self.shut(edges),
                Out::Leave => _ = self.tell.send(FromNode::Leave),
                Out::GiveUp(why) => self.give_up(why),
                Out::Reply(number, reply) => {
                    if let Some(answer) = edges.replies.remove(&number) {
                        let _ = answer.send(reply);
                    }
                }
                Out::Event(event) => self.log(event),
            }
        }
    }

    /// Says goodbye to all clients. It does not wait for the log: that the process ends is no news of any session, and what
    /// waits for the log is not seen, as if the process had died.
    fn shut(&self, edges: &mut Edges) {
        edges.shut = true;
        edges.deferred.clear();
        for (number, client) in std::mem::take(&mut edges.clients) {
            if number != Conn::SELF {
                client.send(self.goodbye());
            }
        }
    }

    fn goodbye(&self) -> ToConn {
        ToConn::Close { last: self.stopping.last_words(), end_stream: true }
    }

    fn log(&self, event: Event) {
        // How far a failover or a fallback is.
        let moved = matches!(event, Event::Moved(_));
        if moved {
            session_mover::kill_point!("move.before_event");
        }
        self.metrics.event(&event);
        if let Event::Register(group, reg) = event {
            let name = |g: NodeIx| self.names[g.index()].as_str();
            info!(group = name(group), term = reg.term.0, primary = name(reg.primary), mode = ?reg.mode, "register changed");
        }
        let shown = self.node.shown();
        let who = match &event {
            Event::Moved(m) if m.asked == Some(self.me) => self.chronicle.movers.of(m),
            _ => None,
        };
        if let Some(record) = events::record(&event, &self.names, self.me, &shown, who.as_deref()) {
            self.chronicle.write(record);
        }
        if moved {
            session_mover::kill_point!("move.after_event");
        }
    }

    /// Ends the process. The goodbye is queued, and the threads of the sockets send it; this thread, which alone could
    /// release anything, does nothing more.
    fn give_up(&self, why: &str) -> ! {
        self.chronicle.tell("gave-up", format!("this node gives up: {why}"));
        self.chronicle.flush(LAST_WORDS);
        std::thread::sleep(LAST_WORDS);
        eprintln!("tandem: fatal: {why}. The process ends; the other node serves.");
        std::process::abort()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_not_waited_for_for_ever() {
        let limit = Duration::from_millis(20);
        let (to_node, told) = channel();
        assert!(ask(&to_node, limit, ToNode::Users).await.is_none(), "the question lies there");
        let answers = std::thread::spawn(move || {
            while let Ok(question) = told.recv() {
                if let ToNode::Sessions(answer) = question {
                    let _ = answer.send(Vec::new());
                    return;
                }
            }
        });
        let answer = ask(&to_node, Duration::from_secs(60), ToNode::Sessions).await;
        assert!(answer.is_some_and(|sessions| sessions.is_empty()));
        answers.join().unwrap();
        assert!(ask(&to_node, Duration::from_secs(60), ToNode::Users).await.is_none(), "it has ended");
    }
}
