//! Two engines that ship their records to each other, without disks, sockets or time: every record goes through its
//! binary form, and after every exchange both hold equal states (D11).

mod accounts;
mod branches;
mod chance;
mod counters;
mod dual;
mod early;
mod fronts;
mod group;
mod late;
mod messages;
mod moves;
mod notice;
mod people;
mod poison;
mod probe;
mod requests;
mod roster;
mod services;
mod subscriptions;
mod tokens;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use xmpp_core::dual::Peer;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::sasl::TokenKey;
use xmpp_core::stanza::Stanza;

use super::{Config, Engine, Input, Limits, Output, Token, Turn, Unsent};
use crate::front::{Fronted, Relay};
use crate::ids::{Conn, Group, Mode, NodeIx, Position, Reg, SmId, Term};
use crate::record::{Cursor, Record, Verifiers};
use crate::state::{JsmSession, State};

use NodeIx::{A, B};

type Frame = (Position, Bytes);

/// A pair of engines and whoever is connected to them.
pub(super) struct Duo {
    engines: [Option<Engine>; 2],
    ends: [u64; 2],
    applied: [Position; 2],
    /// Frames on their way to this node.
    queues: [VecDeque<Frame>; 2],
    /// What a front and an owner say to each other, on its way to this node.
    mail: [VecDeque<Input>; 2],
    /// Frames wait here instead of arriving at once.
    held: bool,
    /// From this frame on nothing that this node puts out for clients, or says of them to the other, is let go, and this waits.
    stuck: [Option<(u64, Vec<Output>)>; 2],
    inboxes: BTreeMap<Conn, Vec<String>>,
    /// Streams that the server ended, with its last words.
    closed: BTreeMap<Conn, String>,
    /// How often each connection was let send another element.
    credits: BTreeMap<Conn, u32>,
    conns: u64,
    pub(super) now_ms: u64,
    /// Effects and records of all frames so far.
    pub(super) log: Vec<Record>,
    /// What became of messages of the server.
    pub(super) noticed: Vec<(u64, Result<(), Unsent>)>,
    /// Whose roster had no room for whom after a merge.
    pub(super) no_room: Vec<(BareJid, BareJid)>,
}

/// A client on a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    conn: Conn,
}

pub(super) fn bare(text: &str) -> BareJid {
    Jid::parse(text).unwrap().to_bare()
}

fn reg(group: Group, term: u64, primary: NodeIx, mode: Mode) -> Input {
    let reg = Reg { term: Term(term), primary, mode, settled: Term(0) };
    Input::Lead { group, reg, late: false }
}

impl Duo {
    /// Users on A: romeo, mercutio, and on B: juliet, nurse.
    pub(super) fn new() -> Duo {
        Duo::with(Limits::DEFAULT)
    }

    pub(super) fn with(limits: Limits) -> Duo {
        let engine = |me: NodeIx| {
            let peer =
                Some(Peer { node: "other".into(), host: "other".into(), port: 5223, direct_tls: true });
            let cfg = Config {
                me,
                peer,
                domain: "example.org".into(),
                resume_ms: 300_000,
                relogin_s: (1, 2),
                limits,
                tokens: Some(TokenKey::new(&[5; 32])),
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
            stuck: Default::default(),
            inboxes: BTreeMap::new(),
            closed: BTreeMap::new(),
            credits: BTreeMap::new(),
            conns: 0,
            now_ms: 1_700_000_000_000,
            log: Vec::new(),
            noticed: Vec::new(),
            no_room: Vec::new(),
        };
        for node in NodeIx::BOTH {
            duo.input(node, Input::PeerUp(true));
            duo.input(node, reg(node, 2 + node.index() as u64, node, Mode::Pair));
            duo.input(node, Input::Serving { group: node, on: true });
        }
        for (home, name) in [(A, "romeo"), (A, "mercutio"), (B, "juliet"), (B, "nurse")] {
            duo.add(home, name);
        }
        duo
    }

    pub(super) fn add(&mut self, home: NodeIx, name: &str) {
        let user = bare(&format!("{name}@example.org"));
        self.input(home, Input::UserAdd { user, home, verifiers: Verifiers::default() });
    }

    /// One turn with one input, then everything that follows.
    pub(super) fn input(&mut self, node: NodeIx, input: Input) {
        self.turn(node, vec![input], !self.held);
        if !self.held {
            self.settle();
        }
    }

    fn turn(&mut self, node: NodeIx, inputs: Vec<Input>, arrives: bool) {
        let i = node.index();
        let Some(engine) = self.engines[i].as_mut() else { return };
        let count = if arrives { self.queues[i].len() } else { 0 };
        let frames: Vec<Frame> = self.queues[i].drain(..count).collect();
        if let Some((at, _)) = frames.last() {
            self.applied[i] = *at;
        }
        let at = Position { seq: self.ends[i] + 1, inc: 7 + i as u64 };
        let mut out = Vec::new();
        let waits_from = self.stuck[i].as_ref().map_or(u64::MAX, |(first, _)| *first);
        engine.waits_from(waits_from);
        engine.holds_from(waits_from);
        engine.begin(Turn { now_ms: self.now_ms, at, applied_peer: self.applied[i] });
        let mut forwards = Vec::new();
        for (at, bytes) in &frames {
            let mut cursor = Cursor::new(bytes.clone());
            let mut records = Vec::new();
            while !cursor.is_empty() {
                records.push(Record::decode(&mut cursor).unwrap());
            }
            forwards.extend(engine.apply_peer(*at, Position::default(), &records, &mut out));
        }
        if !frames.is_empty() {
            engine.process(forwards, &mut out);
        }
        for input in inputs {
            engine.handle(input, &mut out);
        }
        engine.end(&mut out);
        self.release(node, at, out);
    }

    fn release(&mut self, node: NodeIx, at: Position, out: Vec<Output>) {
        let mut bytes = Vec::new();
        for output in out {
            match output {
                Output::Record { groups, record } => {
                    assert_ne!(groups, 0, "a record that no group answers for: {record:?}");
                    record.encode(&mut bytes);
                    self.log.push(record);
                }
                Output::Parked(session, on) => {
                    let token = self.engines[node.index()].as_ref().map_or(0, |e| e.token_to_tell(session));
                    self.mail[node.peer().index()].push_back(Input::PeerParked { session, on, token });
                }
                Output::Deliver(..)
                | Output::Credit(_)
                | Output::Close(..)
                | Output::Relay(_)
                | Output::Tell(_)
                    if self.stuck[node.index()].is_some() =>
                {
                    self.stuck[node.index()].as_mut().unwrap().1.push(output);
                }
                // As the driver does.
                Output::Relay(_) | Output::Tell(_)
                    if self.engines[node.index()].as_mut().is_some_and(|engine| engine.is_void(&output)) => {}
                Output::Relay(_) | Output::Tell(_) => self.post(node, output),
                Output::Deliver(conn, _) | Output::Credit(conn) | Output::Close(conn, ..)
                    if conn.node != node =>
                {
                    self.post(node, output);
                }
                Output::Fronted(output) => self.release(node, at, vec![*output]),
                Output::Credit(conn) => *self.credits.entry(conn).or_default() += 1,
                Output::Noticed(number, taken) => self.noticed.push((number, taken)),
                Output::RosterFull(user, contact) => self.no_room.push((user, contact)),
                Output::Deliver(conn, stanza) => {
                    let text = String::from_utf8(stanza.to_vec()).unwrap();
                    self.inboxes.entry(conn).or_default().push(text);
                }
                Output::Close(conn, last, _) => {
                    self.closed.insert(conn, String::from_utf8(last.to_vec()).unwrap());
                }
                _ => {}
            }
        }
        if !bytes.is_empty() {
            self.ends[node.index()] += 1;
            if self.engines[node.peer().index()].is_some() {
                self.queues[node.peer().index()].push_back((at, Bytes::from(bytes)));
            }
        }
    }

    /// To the other node, by its binary form.
    fn post(&mut self, from: NodeIx, output: Output) {
        let told = match output {
            Output::Relay(relay) => {
                let mut bytes = Vec::new();
                relay.encode(&mut bytes);
                let relay = Relay::decode(&mut Cursor::new(bytes.into())).unwrap();
                return self.mail[from.peer().index()].push_back(Input::Relay(relay));
            }
            Output::Tell(told) => told,
            Output::Deliver(conn, bytes) => Fronted::Deliver(conn, bytes),
            Output::Credit(conn) => Fronted::Credit(conn),
            Output::Close(conn, last, end) => Fronted::Close(conn, last, end),
            other => panic!("nothing for the other node: {other:?}"),
        };
        let mut bytes = Vec::new();
        told.encode(&mut bytes);
        let told = Fronted::decode(&mut Cursor::new(bytes.into())).unwrap();
        self.mail[from.peer().index()].push_back(Input::Fronted(told));
    }

    /// The link breaks: what fronts and owners say is lost, what the logs say arrives later.
    pub(super) fn cut_link(&mut self) {
        self.mail = Default::default();
        for node in NodeIx::BOTH {
            self.turn(node, vec![Input::PeerUp(false)], true);
        }
        self.mail = Default::default();
    }

    /// It is there again.
    pub(super) fn mend_link(&mut self) {
        for node in NodeIx::BOTH {
            self.turn(node, vec![Input::PeerUp(true)], true);
        }
        self.settle();
    }

    /// Frames travel until there are none, and then both nodes hold the same.
    pub(super) fn settle(&mut self) {
        while self.queues.iter().any(|q| !q.is_empty()) || self.mail.iter().any(|m| !m.is_empty()) {
            for node in NodeIx::BOTH {
                let mail: Vec<Input> = self.mail[node.index()].drain(..).collect();
                if !self.queues[node.index()].is_empty() || !mail.is_empty() {
                    self.turn(node, mail, true);
                }
            }
        }
        if let [Some(a), Some(b)] = &self.engines {
            assert_eq!(a.state(), b.state(), "the nodes hold different states");
        }
    }

    /// From now on frames arrive only at [`Duo::settle`].
    pub(super) fn hold(&mut self, on: bool) {
        self.held = on;
        if !on {
            self.settle();
        }
    }

    pub(super) fn state(&self) -> &State {
        self.engines.iter().flatten().next().unwrap().state()
    }

    pub(super) fn session(&self, full: &str) -> Option<&JsmSession> {
        let jid = Jid::parse(full).unwrap();
        let user = self.state().user(&jid.to_bare())?;
        self.state().session(*user.sessions.get(jid.resource()?)?)
    }

    pub(super) fn sm_id(&self, full: &str) -> SmId {
        let jid = Jid::parse(full).unwrap();
        self.state().user(&jid.to_bare()).unwrap().sessions[jid.resource().unwrap()]
    }

    fn node_of(&self, user: &BareJid) -> NodeIx {
        let engine = self.engines.iter().flatten().next().unwrap();
        engine.state().owner_of(user).unwrap()
    }

    fn open(&mut self, user: &str) -> Client {
        let node = self.node_of(&bare(user));
        self.open_at(user, node)
    }

    /// An authenticated stream at this node.
    pub(super) fn open_at(&mut self, user: &str, node: NodeIx) -> Client {
        self.open_with(user, node, b"")
    }

    /// The same with a password whose verifiers have this salt.
    pub(super) fn open_with(&mut self, user: &str, node: NodeIx, salt: &'static [u8]) -> Client {
        self.open_by(bare(user), node, Bytes::from_static(salt), None)
    }

    /// The same by a one-time token, or by the password.
    pub(super) fn open_by(
        &mut self,
        user: BareJid,
        node: NodeIx,
        salt: Bytes,
        token: Option<Token>,
    ) -> Client {
        self.conns += 1;
        let conn = Conn { node, number: self.conns };
        let entropy = [self.conns as u8; 16];
        self.input(node, Input::Opened { conn, user, salt, entropy, token });
        Client { conn }
    }

    /// Whether both nodes' versions know of one-time tokens.
    pub(super) fn know_tokens(&mut self, knows: bool) {
        self.engines.iter_mut().flatten().for_each(|engine| engine.set_peer_knows_tokens(knows));
    }

    /// All that came since the last call.
    pub(super) fn raw(&mut self, client: Client) -> Vec<String> {
        self.inboxes.remove(&client.conn).unwrap_or_default()
    }

    /// Frames that are held arrive at this node, and at this one only.
    pub(super) fn deliver(&mut self, node: NodeIx) {
        self.turn(node, Vec::new(), true);
    }

    fn ask_for(&mut self, full: &str) -> (Client, String) {
        let node = self.node_of(&bare(full.split_once('/').unwrap().0));
        self.ask_at(node, full)
    }

    fn ask_at(&mut self, node: NodeIx, full: &str) -> (Client, String) {
        let (user, resource) = full.split_once('/').unwrap();
        let client = self.open_at(user, node);
        let bind = "urn:ietf:params:xml:ns:xmpp-bind";
        let resource = format!("<resource>{resource}</resource>");
        self.send(client, &format!("<iq type='set' id='b'><bind xmlns='{bind}'>{resource}</bind></iq>"));
        let answer = self.got_one(client);
        (client, answer)
    }

    /// What a binding is answered.
    pub(super) fn try_bind(&mut self, full: &str) -> String {
        self.ask_for(full).1
    }

    /// Binds a resource, without stream management and without presence.
    pub(super) fn bind(&mut self, full: &str) -> Client {
        let (client, answer) = self.ask_for(full);
        assert!(answer.contains("type='result'"), "{answer}");
        client
    }

    /// The same with stream management.
    pub(super) fn bind_sm(&mut self, full: &str) -> Client {
        let client = self.bind(full);
        self.send(client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.got(client);
        client
    }

    /// Stream management and initial presence, at any node.
    pub(super) fn login_at(&mut self, node: NodeIx, full: &str) -> Client {
        let (client, answer) = self.ask_at(node, full);
        assert!(answer.contains("type='result'"), "{answer}");
        self.send(client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.send(client, "<presence/>");
        self.got(client);
        client
    }

    /// Everything that came, stream management too.
    pub(super) fn all(&mut self, client: Client) -> Vec<String> {
        self.inboxes.remove(&client.conn).unwrap_or_default()
    }

    /// Stream management, roster, initial presence.
    pub(super) fn login(&mut self, full: &str) -> Client {
        let client = self.login_raw(full);
        self.got(client);
        client
    }

    /// The same; what came meanwhile is not read.
    pub(super) fn login_raw(&mut self, full: &str) -> Client {
        let client = self.bind_sm(full);
        self.send(client, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        self.send(client, "<presence/>");
        client
    }

    pub(super) fn send(&mut self, client: Client, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes()).unwrap();
        self.input(client.conn.node, Input::Element { conn: client.conn, stanza });
    }

    /// Several stanzas in one turn, and so in one frame.
    pub(super) fn batch(&mut self, client: Client, xml: &[&str]) {
        let element = |xml: &&str| {
            let stanza = Stanza::parse(xml.as_bytes()).unwrap();
            Input::Element { conn: client.conn, stanza }
        };
        self.turn(client.conn.node, xml.iter().map(element).collect(), true);
        self.settle();
    }

    /// Stanzas that came since the last call; what belongs to stream management is left out.
    pub(super) fn got(&mut self, client: Client) -> Vec<String> {
        let all = self.inboxes.remove(&client.conn).unwrap_or_default();
        all.into_iter().filter(|s| !s.contains("urn:xmpp:sm:3")).collect()
    }

    /// The one stanza that came.
    pub(super) fn got_one(&mut self, client: Client) -> String {
        let mut got = self.got(client);
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0)
    }

    pub(super) fn closed(&self, client: Client) -> Option<&str> {
        self.closed.get(&client.conn).map(String::as_str)
    }

    /// Acknowledges all that was sent to a session.
    pub(super) fn ack(&mut self, client: Client, full: &str) {
        let sent = self.session(full).unwrap().sent();
        self.send(client, &format!("<a xmlns='urn:xmpp:sm:3' h='{sent}'/>"));
    }

    /// The TCP connection is gone.
    pub(super) fn drop_tcp(&mut self, client: Client) {
        self.input(client.conn.node, Input::Closed { conn: client.conn, clean: false });
    }

    /// The client closes its stream.
    pub(super) fn close(&mut self, client: Client) {
        self.input(client.conn.node, Input::Closed { conn: client.conn, clean: true });
    }

    /// Resumes on a new stream at the user's owner. What came, stream management left out.
    pub(super) fn resume(&mut self, id: SmId, user: &str, h: u32) -> (Client, Vec<String>) {
        let client = self.open(user);
        self.send(client, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
        let all = self.inboxes.remove(&client.conn).unwrap_or_default();
        assert!(all.first().is_some_and(|s| s.starts_with("<resumed")), "{all:?}");
        (client, all.into_iter().filter(|s| !s.contains("urn:xmpp:sm:3")).collect())
    }

    /// Time passes, and everybody looks at the clock.
    pub(super) fn after(&mut self, ms: u64) {
        self.now_ms += ms;
        for node in NodeIx::BOTH {
            self.input(node, Input::Tick);
        }
    }

    /// A node dies when everything has arrived, and the other takes over.
    pub(super) fn kill(&mut self, node: NodeIx) {
        self.settle();
        self.lose(node);
    }

    /// The same at once: frames on their way to the node are not processed there.
    pub(super) fn lose(&mut self, node: NodeIx) {
        let heir = node.peer();
        self.engines[node.index()] = None;
        self.queues[node.index()].clear();
        self.mail = Default::default();
        self.input(heir, Input::PeerUp(false));
        self.input(heir, reg(node, 10 + heir.index() as u64, heir, Mode::Solo));
        self.input(heir, Input::Serving { group: node, on: true });
    }

    /// What this node puts out from now on waits.
    pub(super) fn stick(&mut self, node: NodeIx) {
        self.stuck[node.index()] = Some((self.ends[node.index()] + 1, Vec::new()));
    }

    /// All of it is let go.
    pub(super) fn let_go(&mut self, node: NodeIx) {
        let (_, outputs) = self.stuck[node.index()].take().unwrap();
        self.release(node, Position::default(), outputs);
    }

    /// The node builds its state anew, from its log as it is; what waited is void.
    pub(super) fn rebuild(&mut self, node: NodeIx) {
        let engine = self.engines[node.index()].as_mut().unwrap();
        let state = engine.state().clone();
        engine.rebuilt(state, Vec::new(), &mut Vec::new());
        self.stuck[node.index()] = None;
        self.input(node, Input::Serving { group: node, on: true });
    }

    /// Hands a user over to the other node.
    pub(super) fn hand_over(&mut self, user: &str) {
        let user = bare(user);
        self.input(self.node_of(&user), Input::HandOver { user });
    }

    /// Asks and grants, both ways: contacts with subscription `both`.
    pub(super) fn befriend(&mut self, one: Client, other: Client, names: [&str; 2]) {
        let [a, b] = names;
        self.send(one, &format!("<presence to='{b}' type='subscribe'/>"));
        self.send(other, &format!("<presence to='{a}' type='subscribed'/>"));
        self.send(other, &format!("<presence to='{a}' type='subscribe'/>"));
        self.send(one, &format!("<presence to='{b}' type='subscribed'/>"));
        self.got(one);
        self.got(other);
    }
}

/// Presence stanzas among what came, as `type from`; availability is `+`.
pub(super) fn presences(got: &[String]) -> Vec<String> {
    let stanzas = got.iter().map(|s| Stanza::parse(s.as_bytes()).unwrap());
    let presences = stanzas.filter(|s| s.head.kind == xmpp_core::Kind::Presence);
    presences
        .map(|s| format!("{} {}", s.head.type_.as_deref().unwrap_or("+"), s.head.from.unwrap()))
        .collect()
}
