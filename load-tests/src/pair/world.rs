//! The world: a virtual clock, a queue of events, two machines, what is between them, and the clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use presence_engine::ids::{Conn, SmId};
use session_mover::log::Which;
use session_mover::msg::Msg;
use srm::evidence::Probe;
use srm::node::{Automatics, In, Moved, Node, Out, Reply};
use srm::pause::Pause;
use srm::view::Shown;
use srm::witness::client::Said;
use srm::witness::words::Ask;
use xmpp_core::dual::Peer;

use super::alone::Apart;
use super::client::Client;
use super::deaths::Deaths;
use super::due::Due;
use super::early::Given;
use super::faults::Fault;
use super::host::{Host, Process};
use super::late::Late;
use super::ledger::Ledger;
use super::link::Wire;
use super::names::Names;
use super::patience::Patience;
use super::people::People;
use super::questions::Questions;
use super::rng::Rng;
use super::socket::{Item, Socket, Upward};
use super::storm::Storm;
use super::trace::{in_words, shorten};
use super::witness::Witness;
use super::{Coverage, Profile};

/// One tick of a node.
pub const TICK_MS: u64 = 250;
/// Trace lines that are kept.
const TRACE: usize = 2_000_000;

/// What happens at some time.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node's clock; its boot.
    Tick(usize, u64),
    /// A node makes a turn of what came.
    Step(usize, u64),
    /// A batch is written: node, log, generation, last frame.
    Written(usize, Which, u64, u64),
    /// A batch is synced.
    Synced(usize, Which, u64, u64),
    /// The copy of the peer's log is synced, since somebody asked: node, generation, last frame.
    Kept(usize, u64, u64),
    /// A node dials its peer.
    Dial(usize),
    /// Something may have arrived at an end of a connection.
    Drain(usize, usize, u64),
    /// An input for a node's run.
    Feed(usize, u64, Box<In>),
    /// A datagram arrives.
    Datagram(usize, Bytes),
    /// The first and the second probe of a node's run.
    Probe(usize, u64, Option<Probe>),
    /// A client's connection attempt reaches a node.
    Arrive(usize),
    /// It is through TLS and SASL at a machine that is in a storm.
    LoggedIn(usize),
    /// Some of those that wait before TLS may come in.
    DoorOpens(usize),
    /// What waited for a processor of a machine that is in a storm.
    Served(Box<Event>),
    /// A connection has waited before TLS for long enough.
    DoorCloses(usize),
    /// Something from a client reaches a node.
    Up(usize, Upward),
    /// Something from a node reaches a client.
    Down(usize, Item),
    /// A timer of a client's machine: client, which, number.
    Timer(usize, client_sim::dual::Timer, u64),
    /// A client looks around.
    Look(usize),
    /// A client says something.
    Talk(usize),
    /// A client tries the next node; number of the attempt.
    Seek(usize, u64),
    /// An attempt took too long.
    SeekTimeout(usize, u64),
    /// Are nodes that were apart together again?
    Together,
    /// The plan's fault with this index.
    Fault(Fault),
    /// A node's run ends, if it has not yet.
    End(usize, u64),
    /// A machine starts its server.
    Boot(usize),
    /// A machine has power again; its server does not run yet.
    PowerBack(usize),
    /// A paused process goes on.
    Wake(usize, u64),
    /// A node's run tries to reach the witness.
    DialWitness(usize, u64),
    /// Something that a node said on a connection reaches the witness.
    WitnessHears(usize, u64, Ask),
    /// What the witness said on it reaches the node.
    WitnessSays(usize, u64, Box<Said>),
    /// A node may notice that this connection is dead.
    WitnessLost(usize, u64),
}

/// Everything.
pub struct World {
    /// Chance.
    pub rng: Rng,
    /// Milliseconds since the beginning.
    pub now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    pub(super) count: u64,
    /// Both machines.
    pub hosts: [Host; 2],
    /// The connection that each node dials.
    pub wires: [Wire; 2],
    /// The network towards each node is cut until then.
    pub cut: [u64; 2],
    /// So many clients that lost a node and call at the other are believed.
    pub callers: u32,
    /// But beacons pass.
    pub beacons_pass: bool,
    /// When the nodes began not to hear each other, and until when.
    pub isolated: (u64, u64),
    /// A node may be leaving until then.
    pub leaving_until: u64,
    /// All client connections that ever were.
    pub sockets: Vec<Socket>,
    /// All clients.
    pub clients: Vec<Client>,
    /// Answers of clients that a node asked of the other, and how many of them had the proof.
    pub(super) reports: [usize; 2],
    /// What they were promised.
    pub ledger: Ledger,
    /// For each node; see `early.rs`.
    pub(super) early: [BTreeMap<SmId, Given>; 2],
    /// What they know of each other.
    pub people: People,
    /// What they write down of each other.
    pub names: Names,
    /// Requests and their answers.
    pub questions: Questions,
    /// How slow the path between the nodes is.
    pub patience: Patience,
    /// Whether the nodes are apart, each with clients of its own.
    pub apart: Apart,
    /// Nothing more goes wrong.
    pub over: bool,
    /// Clients talk until then.
    pub talk_until: u64,
    /// The witness, where there is one.
    pub witness: Witness,
    /// What this run is like.
    pub profile: Profile,
    /// What happened in it.
    pub coverage: Coverage,
    /// Who was made active by force last, and when.
    pub(super) told_active: Option<(usize, u64)>,
    /// The first thing that went wrong.
    pub failure: Option<String>,
    /// Replies to the operator, newest last.
    pub replies: Vec<(u64, Reply)>,
    /// No message between the nodes is late by chance, so that one who ends has said what it said.
    pub prompt: bool,
    /// What the nodes told of users on their way, which node, and what it showed then.
    pub moves: Vec<(usize, Moved, Shown)>,
    /// How often each has told that the other is gone.
    pub(super) losses: [usize; 2],
    /// Which nodes told that so many accounts of the other call there, which is heard.
    pub(super) called: Vec<(usize, u32)>,
    /// What they told of moves that pause, or (`None`) go on.
    pub paused: Vec<(usize, Option<Pause>)>,
    /// What the nodes do by themselves.
    pub automatics: Automatics,
    /// Services of a node do not start when they are asked to.
    pub(super) stubborn: [bool; 2],
    /// Who dies at which step.
    pub(super) deaths: Deaths,
    /// Nodes that stand still before a socket.
    pub(super) late: [Late; 2],
    /// A machine that is in a storm of logins.
    pub(super) storm: Option<Storm>,
    /// Draw lines of the trace.
    pub tracing: bool,
    trace: VecDeque<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).field("failure", &self.failure).finish()
    }
}

/// Where the clients of a node connect.
pub fn peer(node: usize) -> Peer {
    let name = ["a", "b"][node];
    Peer { node: name.into(), host: name.into(), port: 5223, direct_tls: true }
}

impl World {
    /// Two machines without power, and no clients.
    pub fn new(seed: u64, profile: Profile, tracing: bool) -> World {
        World {
            rng: Rng::new(seed),
            now: 0,
            queue: BinaryHeap::new(),
            count: 0,
            hosts: Default::default(),
            wires: Default::default(),
            cut: [0; 2],
            callers: if profile.group { 2 } else { 0 },
            beacons_pass: false,
            isolated: (0, 0),
            leaving_until: 0,
            sockets: Vec::new(),
            clients: Vec::new(),
            reports: [0; 2],
            ledger: Ledger::default(),
            early: Default::default(),
            people: People::new(seed),
            names: Names::new(seed),
            questions: Questions::new(seed),
            patience: Patience::new(seed),
            apart: Apart::default(),
            over: false,
            talk_until: 0,
            witness: Witness::default(),
            profile,
            coverage: Coverage::default(),
            told_active: None,
            failure: None,
            replies: Vec::new(),
            prompt: false,
            moves: Vec::new(),
            losses: [0; 2],
            called: Vec::new(),
            paused: Vec::new(),
            automatics: Automatics::default(),
            stubborn: [false; 2],
            deaths: Deaths::default(),
            late: Default::default(),
            storm: None,
            tracing,
            trace: VecDeque::new(),
        }
    }

    /// A line of the trace; made only if somebody reads it.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() == TRACE {
                self.trace.pop_front();
            }
            self.trace.push_back(format!("{:>8} {}", self.now, line()));
        }
    }

    /// The last lines.
    pub fn last_lines(&self) -> String {
        self.trace.iter().fold(String::new(), |all, line| all + line + "\n")
    }

    /// The promise is broken.
    pub fn fail(&mut self, what: String) {
        self.trace(|| format!("FAILED {what}"));
        self.failure.get_or_insert(what);
    }

    /// Plans an event.
    pub fn at(&mut self, wait_ms: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse(Due(self.now + wait_ms, self.count, event)));
    }

    /// Lets the world go on until some time, or until something fails.
    pub fn run_until(&mut self, end: u64) {
        while self.failure.is_none() && self.queue.peek().is_some_and(|due| due.0.0 <= end) {
            let Reverse(Due(at, _, event)) = self.queue.pop().expect("just seen");
            self.now = at;
            if let Some(event) = self.behind_logins(event) {
                self.happen(event);
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, boot) => self.tick(node, boot),
            Event::Step(node, boot) => self.step(node, boot),
            Event::Written(node, which, generation, seq) => self.written(node, which, generation, seq),
            Event::Synced(node, which, generation, seq) => self.synced(node, which, generation, seq),
            Event::Kept(node, generation, seq) => self.kept(node, generation, seq),
            Event::Dial(node) => self.dial(node),
            Event::Drain(dialler, end, generation) => self.drain(dialler, end, generation),
            Event::Feed(node, boot, input) => {
                if self.is_boot(node, boot) {
                    self.feed(node, *input);
                }
            }
            Event::Datagram(node, bytes) => self.feed(node, In::Datagram(bytes)),
            Event::Probe(node, boot, first) => self.probe(node, boot, first),
            Event::Arrive(socket) => self.socket_arrives(socket),
            Event::LoggedIn(socket) => self.logged_in(socket),
            Event::DoorOpens(node) => self.door_opens(node),
            Event::DoorCloses(socket) => self.door_closes(socket),
            Event::Served(event) => self.happen(*event),
            Event::Up(socket, what) => self.socket_up(socket, what),
            Event::Down(socket, item) => self.socket_down(socket, item),
            Event::Timer(client, timer, number) => self.client_timer(client, timer, number),
            Event::Look(client) => self.client_looks(client),
            Event::Talk(client) => self.client_talks(client),
            Event::Seek(client, number) => self.client_seeks(client, number),
            Event::SeekTimeout(client, number) => self.seek_timeout(client, number),
            Event::Together => self.together(),
            Event::Fault(fault) => self.fault(fault),
            Event::End(node, boot) => {
                if self.is_boot(node, boot) {
                    self.die(node, false);
                }
            }
            Event::Boot(node) => self.boot(node),
            Event::PowerBack(node) => {
                self.hosts[node].powered = true;
                self.stale_wires(node, true);
            }
            Event::Wake(node, boot) => self.wake(node, boot),
            Event::DialWitness(node, boot) => self.dial_witness(node, boot),
            Event::WitnessHears(node, connection, ask) => self.witness_hears(node, connection, ask),
            Event::WitnessSays(node, connection, said) => self.witness_says(node, connection, *said),
            Event::WitnessLost(node, connection) => self.witness_lost(node, connection),
        }
    }

    pub(super) fn is_boot(&self, node: usize, boot: u64) -> bool {
        self.hosts[node].process.as_ref().is_some_and(|p| p.boot == boot)
    }

    /// Starts the server of a machine.
    pub(super) fn boot(&mut self, node: usize) {
        self.hosts[node].starting = false;
        if self.hosts[node].process.is_some() {
            return;
        }
        let (boot, inc) = (self.rng.bits(), self.rng.bits());
        let cfg = self.config(node, boot);
        let lost = self.draw_loss(node, boot);
        let wall = self.wall(node);
        let host = &mut self.hosts[node];
        let begun_with_store = host.power_up(lost);
        let regs = host.disk.regs;
        let mut started = Node::start(cfg, regs, inc, &mut host.disk);
        started.remember_failovers(host.disk.failovers(wall));
        let logs_alone = started.driver().logs_alone(&mut host.disk);
        let same = logs_alone.is_none_or(|alone| *started.driver().engine().state() == alone);
        host.process = Some(Process {
            node: started,
            boot,
            paused: false,
            draining: false,
            mailbox: Vec::new(),
            deferred: Vec::new(),
            ticked: self.now,
            step_due: false,
            doom: None,
        });
        self.trace(|| format!("{} boots", ["a", "b"][node]));
        self.begin_early(node);
        self.coverage.stores += u32::from(begun_with_store);
        if !same {
            self.fail("the store and the logs give different states".into());
        }
        let first = self.rng.range(0, TICK_MS);
        self.at(first, Event::Tick(node, boot));
        self.redial(node, 10, 300);
        if self.profile.witness {
            self.hang_up_witness(node);
            let wait = self.rng.range(10, 300);
            self.at(wait, Event::DialWitness(node, boot));
        }
        self.stale_wires(node, true);
        self.after(node);
    }

    fn tick(&mut self, node: usize, boot: u64) {
        if !self.is_boot(node, boot) {
            return;
        }
        self.at(TICK_MS, Event::Tick(node, boot));
        if !self.hosts[node].runs() {
            return;
        }
        let now = self.now;
        let process = self.hosts[node].process.as_mut().expect("just seen");
        let ticks = ((now - process.ticked) / TICK_MS).clamp(1, 60_000);
        process.ticked = now;
        self.feed(node, In::Ticks(ticks as u16));
        self.probe_services(node);
    }

    pub(super) fn wake(&mut self, node: usize, boot: u64) {
        if !self.is_boot(node, boot) {
            return;
        }
        let now = self.now;
        let process = self.hosts[node].process.as_mut().expect("just seen");
        process.paused = false;
        let ticks = (now - process.ticked) / TICK_MS;
        process.ticked = now;
        process.draining = true;
        self.trace(|| format!("{} goes on after {ticks} ticks", ["a", "b"][node]));
        // The shell looks at its clock before anything else (R5).
        if ticks > 0 {
            self.feed_now(node, In::Ticks(ticks.min(60_000) as u16));
        }
        // What comes meanwhile comes behind.
        loop {
            let Some(process) = &mut self.hosts[node].process else { return };
            if process.mailbox.is_empty() {
                process.draining = false;
                break;
            }
            let input = process.mailbox.remove(0);
            self.feed_now(node, input);
        }
        self.plan_step(node);
    }

    /// An input for whatever runs on a machine now.
    pub(super) fn feed(&mut self, node: usize, input: In) {
        match &mut self.hosts[node].process {
            Some(process) if process.paused || process.draining => process.mailbox.push(input),
            _ => self.feed_now(node, input),
        }
    }

    fn feed_now(&mut self, node: usize, input: In) {
        let wall = self.wall(node);
        if self.tracing && !matches!(input, In::Ticks(1) | In::Datagram(_)) {
            let text = shorten(&input);
            self.trace(|| format!("{} <- {text}", ["a", "b"][node]));
        }
        let Some(input) = self.must_not_wait(node, input) else { return };
        let Some(step) = self.about_to_hear(node, &input) else { return };
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else { return };
        process.node.handle(wall, input, &mut host.disk);
        self.after(node);
        self.step_is_made(step);
    }

    /// The same, when the present step is done.
    pub(super) fn feed_later(&mut self, node: usize, input: In) {
        if let Some(process) = &self.hosts[node].process {
            let boot = process.boot;
            self.at(0, Event::Feed(node, boot, Box::new(input)));
        }
    }

    fn step(&mut self, node: usize, boot: u64) {
        if !self.is_boot(node, boot) {
            return;
        }
        let wall = self.wall(node);
        let host = &mut self.hosts[node];
        let process = host.process.as_mut().expect("just seen");
        process.step_due = false;
        if !process.paused {
            process.node.step(wall, &mut host.disk);
            if process.node.clients_may_send() && !process.deferred.is_empty() {
                for input in std::mem::take(&mut process.deferred) {
                    process.node.handle(wall, input, &mut host.disk);
                }
                process.node.step(wall, &mut host.disk);
            }
            self.after(node);
        }
    }

    fn plan_step(&mut self, node: usize) {
        let wait = if self.rng.chance(90) { self.rng.range(0, 2) } else { self.rng.range(3, 30) };
        let Some(process) = &mut self.hosts[node].process else { return };
        if !std::mem::replace(&mut process.step_due, true) {
            let boot = process.boot;
            self.at(wait, Event::Step(node, boot));
        }
    }

    /// Does what a node said after a step, and plans what follows.
    fn after(&mut self, node: usize) {
        if let Some(disk) = self.hosts[node].disk.died_with.take() {
            return self.die_in_a_cut(node, *disk);
        }
        self.has_kept(node);
        self.note_early(node);
        let Some(process) = &mut self.hosts[node].process else { return };
        for out in process.node.take() {
            let Some(process) = &mut self.hosts[node].process else { return };
            if let Some(left) = &mut process.doom {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    if self.may_kill(node) {
                        return self.die(node, false);
                    }
                    self.spare(node);
                }
            }
            let gives_up = matches!(out, Out::GiveUp(_));
            let Some(step) = self.about_to_say(node, &out) else { return };
            self.perform(node, out);
            self.step_is_made(step);
            if gives_up {
                return;
            }
        }
        self.end_early_streams(node);
        self.check_roles();
        self.write_on(node);
        if self.hosts[node].process.as_ref().is_some_and(|p| !p.step_due) {
            self.plan_step(node);
        }
    }

    pub(super) fn perform(&mut self, node: usize, out: Out) {
        let Some(out) = self.leaves(node, out) else { return };
        self.let_go_early(node, &out);
        if self.tracing && !matches!(out, Out::Beacon(_) | Out::Credit(_)) {
            let text = match &out {
                Out::Link(link, Msg::Frame(bytes)) => in_words(*link, bytes),
                out => shorten(out),
            };
            self.trace(|| format!("{} -> {text}", ["a", "b"][node]));
        }
        match out {
            Out::Link(link, msg) => self.wire_send(node, link, msg),
            Out::CloseLink(link, _) => self.wire_close(node, link),
            // What it said to itself is back.
            Out::Deliver(conn, _) if conn.number == Conn::SELF => self.coverage.loops += 1,
            Out::Deliver(conn, bytes) => self.deliver(conn, bytes),
            Out::Credit(conn) => self.credit(conn),
            Out::Close(conn, last, _) => self.close_by_server(conn, last),
            Out::Account(..) | Out::Control(_) | Out::Probed(_) => {}
            Out::StartServices => self.start_services(node),
            Out::Checks => self.answer_checks(node),
            Out::Beacon(bytes) => {
                self.note_storm(|seen, now| seen.beacons[node].push(now));
                self.beacon(node, bytes);
            }
            Out::Probe => {
                let boot = self.hosts[node].process.as_ref().map_or(0, |p| p.boot);
                self.at(1, Event::Probe(node, boot, None));
            }
            Out::Witness(ask) => self.ask_witness(node, ask),
            Out::Reply(number, reply) => self.replies.push((number, reply)),
            Out::Event(news) => self.news(node, news),
            Out::GiveUp(_) => self.die(node, false),
            Out::Restart => {
                // What it said last is under way.
                let boot = self.hosts[node].process.as_ref().map_or(0, |p| p.boot);
                self.at(50, Event::End(node, boot));
            }
            // Here streams end with their process.
            Out::Shut => {}
            Out::Leave => {
                self.coverage.leaves += 1;
                self.die(node, false);
            }
        }
    }
}
