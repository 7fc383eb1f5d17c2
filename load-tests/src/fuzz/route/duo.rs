//! Two engines that ship their records to each other by their binary form, without disks, sockets or time. When all has
//! arrived they hold the same.

use std::collections::VecDeque;

use bytes::Bytes;
use presence_engine::engine::{Config, Engine, Input, Limits, Output, Turn};
use presence_engine::front::{Fronted, Relay};
use presence_engine::ids::{Conn, Group, Mode, NodeIx, Position, Reg, Term};
use presence_engine::record::{Cursor, Record};
use presence_engine::state::{Place, State};
use xmpp_core::dual::Peer;

use NodeIx::{A, B};

/// What a socket is given.
#[derive(Debug)]
pub(super) enum Said {
    Bytes(Bytes),
    Credit,
    /// Last bytes; nothing comes after them.
    Close(Bytes),
}

/// A pair of engines and what is between them.
pub(super) struct Duo {
    engines: [Option<Engine>; 2],
    ends: [u64; 2],
    applied: [Position; 2],
    /// Frames on their way to this node.
    queues: [VecDeque<(Position, Bytes)>; 2],
    /// What is on its way to this node beside its peer's log.
    mail: [VecDeque<Input>; 2],
    /// Frames and mail wait here instead of arriving at once.
    pub(super) held: bool,
    pub(super) cut: bool,
    pub(super) now_ms: u64,
    /// All frames in the order in which each node applied them, with whose log they are from.
    pub(super) history: [Vec<(NodeIx, Position, Bytes)>; 2],
    said: Vec<(Conn, Said)>,
}

fn lead(group: Group, term: u64, primary: NodeIx, mode: Mode) -> Input {
    let reg = Reg { term: Term(term), primary, mode, settled: Term(0) };
    Input::Lead { group, reg, late: false }
}

impl Duo {
    pub(super) fn new(limits: Limits) -> Duo {
        let engine = |me: NodeIx| {
            let peer = Peer { node: "other".into(), host: "other".into(), port: 5223, direct_tls: true };
            let cfg = Config {
                me,
                peer: Some(peer),
                domain: super::DOMAIN.into(),
                resume_ms: 300_000,
                relogin_s: (1, 2),
                limits,
                tokens: None,
                trap: None,
            };
            Some(Engine::new(cfg, State::default()))
        };
        let mut duo = Duo {
            engines: [engine(A), engine(B)],
            ends: [0; 2],
            applied: [Position::default(); 2],
            queues: Default::default(),
            mail: Default::default(),
            held: false,
            cut: false,
            now_ms: 1_700_000_000_000,
            history: Default::default(),
            said: Vec::new(),
        };
        for node in NodeIx::BOTH {
            duo.input(node, Input::PeerUp(true));
            duo.input(node, lead(node, 2 + node.index() as u64, node, Mode::Pair));
            duo.input(node, Input::Serving { group: node, on: true });
        }
        duo
    }

    /// What each node that lives holds; the same on both while everything arrives.
    pub(super) fn states(&self) -> impl Iterator<Item = &State> {
        self.engines.iter().flatten().map(Engine::state)
    }

    /// The state, as a node that lives has it.
    pub(super) fn state(&self) -> &State {
        self.engines.iter().flatten().next().expect("one lives").state()
    }

    pub(super) fn lives(&self, node: NodeIx) -> bool {
        self.engines[node.index()].is_some()
    }

    /// Whether both nodes live and hear each other at once.
    pub(super) fn is_whole(&self) -> bool {
        self.engines.iter().all(Option::is_some) && !self.held && !self.cut
    }

    /// What sockets were given since the last call.
    pub(super) fn said(&mut self) -> Vec<(Conn, Said)> {
        std::mem::take(&mut self.said)
    }

    /// One turn with one input, then everything that follows.
    pub(super) fn input(&mut self, node: NodeIx, input: Input) {
        self.turn(node, vec![input]);
        if !self.held {
            self.settle();
        }
    }

    fn turn(&mut self, node: NodeIx, inputs: Vec<Input>) {
        let i = node.index();
        let Some(engine) = self.engines[i].as_mut() else { return };
        let count = if self.held { 0 } else { self.queues[i].len() };
        let frames: Vec<_> = self.queues[i].drain(..count).collect();
        if let Some((at, _)) = frames.last() {
            self.applied[i] = *at;
        }
        let at = Position { seq: self.ends[i] + 1, inc: 7 + i as u64 };
        let mut out = Vec::new();
        engine.waits_from(u64::MAX);
        engine.begin(Turn { now_ms: self.now_ms, at, applied_peer: self.applied[i] });
        let mut forwards = Vec::new();
        for (at, bytes) in &frames {
            let mut cursor = Cursor::new(bytes.clone());
            let mut records = Vec::new();
            while !cursor.is_empty() {
                records.push(Record::decode(&mut cursor).expect("our own record"));
            }
            forwards.extend(engine.apply_peer(*at, Position::default(), &records, &mut out));
            self.history[i].push((node.peer(), *at, bytes.clone()));
        }
        if !frames.is_empty() {
            engine.process(forwards, &mut out);
        }
        for input in inputs {
            engine.handle(input, &mut out);
        }
        engine.end(&mut out);
        let mut frame = Vec::new();
        out.into_iter().for_each(|output| self.release(node, output, &mut frame));
        if !frame.is_empty() {
            self.ends[i] += 1;
            let frame = Bytes::from(frame);
            self.history[i].push((node, at, frame.clone()));
            if self.lives(node.peer()) {
                self.queues[node.peer().index()].push_back((at, frame));
            }
        }
    }

    fn release(&mut self, node: NodeIx, output: Output, frame: &mut Vec<u8>) {
        match output {
            Output::Record { groups, record } => {
                assert_ne!(groups, 0, "a record that no group answers for: {record:?}");
                let start = frame.len();
                record.encode(frame);
                let mut cursor = Cursor::new(Bytes::copy_from_slice(&frame[start..]));
                assert_eq!(Record::decode(&mut cursor), Ok(record), "another record arrives");
            }
            Output::Relay(relay) => {
                let mut bytes = Vec::new();
                relay.encode(&mut bytes);
                assert_eq!(Relay::decode(&mut Cursor::new(bytes.into())).as_ref(), Ok(&relay));
                self.mail[node.peer().index()].push_back(Input::Relay(relay));
            }
            Output::Tell(told) => self.tell(node, told),
            Output::Parked(session, on) => {
                self.mail[node.peer().index()].push_back(Input::PeerParked { session, on, token: 0 });
            }
            Output::Fronted(output) => self.release(node, *output, frame),
            Output::Deliver(conn, bytes) if conn.node != node => {
                self.tell(node, Fronted::Deliver(conn, bytes))
            }
            Output::Credit(conn) if conn.node != node => self.tell(node, Fronted::Credit(conn)),
            Output::Close(conn, last, end) if conn.node != node => {
                self.tell(node, Fronted::Close(conn, last, end));
            }
            Output::Deliver(conn, bytes) => self.said.push((conn, Said::Bytes(bytes))),
            Output::Credit(conn) => self.said.push((conn, Said::Credit)),
            Output::Close(conn, last, _) => self.said.push((conn, Said::Close(last))),
            _ => {}
        }
    }

    /// From an owner to a front.
    fn tell(&mut self, from: NodeIx, told: Fronted) {
        let mut bytes = Vec::new();
        told.encode(&mut bytes);
        assert_eq!(Fronted::decode(&mut Cursor::new(bytes.into())).as_ref(), Ok(&told));
        self.mail[from.peer().index()].push_back(Input::Fronted(told));
    }

    /// Everything travels until nothing is on its way; then both nodes hold the same.
    pub(super) fn settle(&mut self) {
        self.held = false;
        let mut rounds = 0;
        while self.queues.iter().any(|q| !q.is_empty()) || self.mail.iter().any(|m| !m.is_empty()) {
            for node in NodeIx::BOTH {
                let mail: Vec<Input> = self.mail[node.index()].drain(..).collect();
                if !self.queues[node.index()].is_empty() || !mail.is_empty() {
                    self.turn(node, mail);
                }
            }
            rounds += 1;
            assert!(rounds < 1_000, "the nodes never come to rest");
        }
        if let [Some(a), Some(b)] = &self.engines {
            assert_eq!(a.state(), b.state(), "the nodes hold different states");
        }
    }

    /// A state that is rebuilt from the logs is the state that was there (D11).
    pub(super) fn replay(&self) {
        let Some((i, engine)) = self.engines.iter().enumerate().find_map(|(i, e)| Some((i, e.as_ref()?)))
        else {
            return;
        };
        let mut state = State::default();
        for (log, at, bytes) in &self.history[i] {
            let mut place = Place { log: *log, at: *at, forwards: 0 };
            let mut cursor = Cursor::new(bytes.clone());
            while !cursor.is_empty() {
                state.apply(&mut place, &Record::decode(&mut cursor).expect("our own record"));
            }
        }
        assert_eq!(&state, engine.state(), "a replay makes another state");
    }

    /// The path between the nodes breaks: what fronts and owners say is lost, what the logs say arrives all the same.
    pub(super) fn cut_link(&mut self) {
        self.settle();
        self.cut = true;
        for node in NodeIx::BOTH {
            self.turn(node, vec![Input::PeerUp(false)]);
        }
        self.mail = Default::default();
        self.settle();
    }

    /// It is there again.
    pub(super) fn mend_link(&mut self) {
        self.cut = false;
        for node in NodeIx::BOTH {
            self.turn(node, vec![Input::PeerUp(true)]);
        }
        self.settle();
    }

    /// A node dies when all has arrived, and the other takes over.
    pub(super) fn kill(&mut self, node: NodeIx) {
        self.settle();
        let heir = node.peer();
        self.engines[node.index()] = None;
        self.queues[node.index()].clear();
        self.mail = Default::default();
        self.input(heir, Input::PeerUp(false));
        self.input(heir, lead(node, 10 + heir.index() as u64, heir, Mode::Solo));
        self.input(heir, Input::Serving { group: node, on: true });
    }

    /// The node that serves an account.
    pub(super) fn owner(&self, user: &str) -> Option<NodeIx> {
        let (_, user) = self.state().users().find(|(jid, _)| jid.as_str() == user)?;
        self.state().owner(user)
    }

    /// Time passes, and everybody looks at the clock.
    pub(super) fn after(&mut self, ms: u64) {
        self.now_ms += ms;
        for node in NodeIx::BOTH {
            self.input(node, Input::Tick);
        }
    }
}
