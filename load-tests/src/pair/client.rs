//! A client: the machine of the dual connection and the queue of XEP-0198 of the real client, on virtual sockets. A
//! plain client is the same machine that never asks for a second stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use client_sim::dual::{DualClient, FlipCause, Input, Output, Timer};
use client_sim::sm::{Outgoing, SmQueue};
use presence_engine::engine::Token;
use presence_engine::ids::SmId;
use xmpp_core::dual::Dual;
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::stanza::{Kind, Stanza};

use super::ledger;
use super::seek::Seek;
use super::socket::{Item, Upward};
use super::world::{Event, World, peer};

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its account.
    pub user: BareJid,
    /// Its resource.
    pub resource: &'static str,
    /// It wants a second stream.
    pub dual: bool,
    /// Which stream carries the session.
    pub machine: DualClient,
    /// What is not acknowledged.
    pub sm: SmQueue,
    /// The session, if it can be resumed.
    pub sm_id: Option<String>,
    told_h: Option<u32>,
    /// The one-time token of the session that was told last.
    pub(super) token: Option<Token>,
    /// The main stream's socket.
    pub main: Option<usize>,
    /// Node of the main stream, now or last.
    pub main_node: usize,
    pub(super) parked: Option<usize>,
    parked_open: bool,
    parked_was_main: bool,
    /// What came on the main stream and is not to be read now (D13).
    unread: VecDeque<Bytes>,
    pub(super) read: bool,
    pub(super) write: bool,
    /// The search for a stream.
    pub seek: Seek,
    timers: BTreeMap<Timer, u64>,
    timer_count: u64,
    inputs: VecDeque<Input>,
    pub(super) heard: u64,
    pub(super) asked: bool,
    /// Since when the main stream is not read.
    unread_since: u64,
    /// Silence after which the main stream is dead.
    silence: u64,
    /// Time between what it says.
    pace: u64,
    /// The main stream's socket when the node behind it died that had the session.
    pub(super) outlives: Option<usize>,
}

impl Client {
    /// A client that is not connected.
    pub fn new(user: BareJid, resource: &'static str, dual: bool, silence: u64, pace: u64) -> Client {
        Client {
            user,
            resource,
            dual,
            machine: DualClient::new(),
            sm: SmQueue::new(3),
            sm_id: None,
            told_h: None,
            token: None,
            main: None,
            main_node: 0,
            parked: None,
            parked_open: false,
            parked_was_main: false,
            unread: VecDeque::new(),
            read: true,
            write: true,
            seek: Seek::default(),
            timers: BTreeMap::new(),
            timer_count: 0,
            inputs: VecDeque::new(),
            heard: 0,
            asked: false,
            unread_since: 0,
            silence,
            pace,
            outlives: None,
        }
    }

    /// Whether this socket is to carry its parked stream.
    pub(super) fn is_parking_on(&self, socket: usize) -> bool {
        self.parked == Some(socket)
    }

    /// The session is on a stream, and nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.main.is_some() && self.machine.is_up() && self.sm.backlog() == 0
    }
}

impl World {
    /// Something came on a socket.
    pub(super) fn client_got(&mut self, c: usize, socket: usize, item: Item) {
        if self.tracing {
            let line = match &item {
                Item::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            };
            let node = ["a", "b"][self.sockets[socket].node];
            self.trace(|| format!("  u{c} <- {node}#{} {line}", socket + 1));
        }
        let client = &mut self.clients[c];
        if client.seek.socket == Some(socket) {
            self.seek_got(c, item);
        } else if client.main == Some(socket) {
            match item {
                Item::Bytes(bytes) if client.read => self.main_said(c, &bytes),
                Item::Bytes(bytes) => client.unread.push_back(bytes),
                Item::End | Item::Refused => self.main_died(c),
                Item::Open => {}
            }
        } else if client.parked == Some(socket) {
            match item {
                Item::Open => {
                    client.parked_open = true;
                    self.machine(c, Input::ParkedOpen);
                }
                Item::Bytes(bytes) => self.parked_said(c, &bytes),
                Item::End | Item::Refused => {
                    client.parked = None;
                    self.machine(c, Input::ParkedDied);
                }
            }
        }
        self.client_pumps(c);
    }

    /// Tells the machine and does what it says, in order.
    pub(super) fn machine(&mut self, c: usize, input: Input) {
        self.clients[c].inputs.push_back(input);
        while let Some(input) = self.clients[c].inputs.pop_front() {
            let mut outputs = Vec::new();
            let now = Duration::from_millis(self.now);
            self.clients[c].machine.on(now, input, &mut outputs);
            for output in outputs {
                self.machine_says(c, output);
            }
        }
    }

    fn machine_says(&mut self, c: usize, output: Output) {
        match output {
            Output::Main(said) => self.say(c, self.clients[c].main, said.to_bytes()),
            Output::Parked(said) => self.say(c, self.clients[c].parked, said.to_bytes()),
            Output::Resume { previd, told } => {
                let told = self.clients[c].machine.numbered(told);
                let h = Handled(self.clients[c].sm.inbound());
                let resume = Sm::Resume { previd: previd.as_str().into(), h, told };
                self.say(c, self.clients[c].parked, resume.to_bytes());
            }
            Output::MainMode { read, write } => self.main_mode(c, read, write),
            Output::CloseMain => {
                let main = self.clients[c].main.take();
                self.clients[c].unread.clear();
                main.into_iter().for_each(|socket| self.close_by_client(socket));
            }
            Output::ConnectParked(place) => {
                let socket = self.connect(c, usize::from(place.node == "b"));
                let client = &mut self.clients[c];
                (client.parked, client.parked_open, client.parked_was_main) = (Some(socket), false, false);
            }
            Output::CloseParked => {
                let parked = self.clients[c].parked.take();
                parked.into_iter().for_each(|socket| self.close_by_client(socket));
            }
            Output::Flip { cause, keep_old } => self.flip(c, cause, keep_old),
            Output::Reconnect { first, anew } => {
                if anew {
                    self.begin_anew(c);
                }
                self.seek(c, first.map(|name| usize::from(name == "b")));
            }
            Output::StopReconnect => self.stop_seeking(c),
            Output::SetTimer(timer, after) => self.set_timer(c, timer, after.as_millis() as u64),
            Output::SetRandomTimer(timer, lower, upper) => {
                let after = self.rng.range(lower.as_millis() as u64, upper.as_millis() as u64);
                self.set_timer(c, timer, after);
            }
            Output::CancelTimer(timer) => {
                self.clients[c].timers.remove(&timer);
            }
        }
    }

    fn main_mode(&mut self, c: usize, read: bool, write: bool) {
        let now = self.now;
        let client = &mut self.clients[c];
        if read && !client.read {
            // What was not read cannot have been heard; but a stream that was dead before is no younger for it.
            client.heard += now - client.unread_since;
            client.asked = false;
        } else if !read && client.read {
            client.unread_since = now;
        }
        (client.read, client.write) = (read, write);
        while self.clients[c].read && self.clients[c].main.is_some() {
            let Some(bytes) = self.clients[c].unread.pop_front() else { return };
            self.main_said(c, &bytes);
        }
    }

    fn set_timer(&mut self, c: usize, timer: Timer, after: u64) {
        let client = &mut self.clients[c];
        client.timer_count += 1;
        let number = client.timer_count;
        client.timers.insert(timer, number);
        self.at(after, Event::Timer(c, timer, number));
    }

    pub(super) fn client_timer(&mut self, c: usize, timer: Timer, number: u64) {
        if self.clients[c].timers.get(&timer) == Some(&number) {
            self.clients[c].timers.remove(&timer);
            self.machine(c, Input::Timer(timer));
            self.client_pumps(c);
        }
    }

    /// Bytes onto a socket.
    pub(super) fn say(&mut self, c: usize, socket: Option<usize>, bytes: Bytes) {
        let Some(socket) = socket else { return };
        if self.tracing {
            let node = ["a", "b"][self.sockets[socket].node];
            let line = String::from_utf8_lossy(&bytes).into_owned();
            self.trace(|| format!("  u{c} -> {node}#{} {line}", socket + 1));
        }
        self.send_up(socket, Upward::Bytes(bytes));
    }

    fn flip(&mut self, c: usize, cause: FlipCause, keep_old: bool) {
        let client = &mut self.clients[c];
        let old = std::mem::replace(&mut client.main, client.parked.take());
        client.parked_was_main = keep_old;
        (client.read, client.write) = (true, true);
        (client.heard, client.asked) = (self.now, false);
        client.main_node = client.main.map_or(0, |socket| self.sockets[socket].node);
        let unread = std::mem::take(&mut client.unread);
        if keep_old {
            client.parked = old;
            client.parked_open = true;
            drop(unread);
        } else {
            old.into_iter().for_each(|socket| self.close_by_client(socket));
        }
        self.coverage.flips[cause as usize] += 1;
        self.note_storm(|seen, now| seen.flipped.push((now, c)));
        let told = self.clients[c].told_h.take();
        if !told.is_some_and(|h| self.resumed(c, h)) {
            self.clients[c].main = None;
            self.clients[c].inputs.push_back(Input::MainDied);
        }
    }

    /// What the new stream's server has of ours; false if its count cannot be.
    pub(super) fn resumed(&mut self, c: usize, h: u32) -> bool {
        match self.clients[c].sm.resumed(h) {
            Ok(acknowledged) => self.acknowledged(acknowledged),
            Err(_) if self.excuses() => {
                self.coverage.bad_counts += 1;
                self.begin_anew(c);
                return false;
            }
            Err(bad) => {
                self.fail(format!("u{c}: <resumed/>: {bad}"));
                return false;
            }
        }
        self.ledger.says_again(c);
        true
    }

    /// A stream whose owner died behind its front goes on under another owner.
    fn outlived(&mut self, c: usize) {
        let Some(socket) = self.clients[c].outlives else { return };
        let node = self.sockets[socket].node;
        let user = &self.clients[c].user;
        let state = self.hosts[node].node().map(|n| n.driver().engine().state());
        if self.clients[c].main != Some(socket) {
            self.clients[c].outlives = None;
        } else if state.is_some_and(|s| s.owner_of(user).is_some_and(|owner| owner.index() == node)) {
            self.clients[c].outlives = None;
            self.coverage.outlived += 1;
        }
    }

    fn acknowledged(&mut self, stanzas: Vec<Outgoing>) {
        for stanza in stanzas {
            self.question_counts(&stanza.id);
            self.names_count(&stanza.id);
            self.ledger.acknowledged(&stanza.id);
        }
    }

    /// The session is gone: what is not acknowledged goes out again in a new one.
    fn begin_anew(&mut self, c: usize) {
        let told = self.clients[c].told_h.take();
        self.coverage.refused += 1;
        let may = self.profile.may_refuse && (self.excuses() || !self.profile.weak);
        // Where a witness decides no session is ever uncertain.
        if !may && (self.profile.witness || !self.is_uncertain(c)) {
            self.fail(format!("u{c}: its session is refused although it was never uncertain"));
        }
        self.clients[c].sm_id = None;
        let ended = self.clients[c].sm.begin_anew(told);
        self.acknowledged(ended.acknowledged);
        self.ledger.refused(c);
        self.ledger.says_again(c);
        self.names_again(c);
        self.questions_end(c);
        self.people_end(c);
    }

    /// A takeover came so late that the session may have gone on elsewhere (D6).
    fn is_uncertain(&self, c: usize) -> bool {
        let id = self.clients[c].sm_id.as_deref().and_then(SmId::parse);
        if self.hosts.iter().all(|host| host.node().is_none()) {
            // Its last word came when it was dead itself: nobody is left who could say.
            return true;
        }
        let nodes = self.hosts.iter().filter_map(|host| host.node());
        let mut sessions = nodes.filter_map(|node| node.driver().engine().state().session(id?));
        sessions.any(|s| s.uncertain.is_some())
    }

    /// A search ended well.
    pub(super) fn established(&mut self, c: usize, socket: usize, resumed_h: Option<u32>, sm_id: String) {
        let node = self.sockets[socket].node;
        let now = self.now;
        let client = &mut self.clients[c];
        let from = std::mem::replace(&mut client.main_node, node);
        client.main = Some(socket);
        client.unread.clear();
        (client.read, client.write, client.heard, client.asked) = (true, true, now, false);
        let dual = client.dual;
        let mut sound = true;
        match resumed_h {
            Some(h) => {
                self.coverage.resumes += 1;
                self.coverage.resumes_elsewhere += u32::from(from != node && !dual);
                sound = self.resumed(c, h);
            }
            None => {
                let client = &mut self.clients[c];
                client.sm_id = Some(sm_id);
                client.sm.begin_anew(None);
                let bytes = Bytes::from_static(b"<presence/>");
                client.sm.push_first(Outgoing { id: String::new(), bytes, survives: false });
                self.people_begin(c);
            }
        }
        let anew = resumed_h.is_none();
        let sm_id = self.clients[c].sm_id.clone();
        self.note_storm(|seen, now| seen.found.push((now, c)));
        self.machine(c, Input::MainUp { at: peer(node), sm_id, anew, dual });
        if !sound {
            self.main_died(c);
        }
        self.client_pumps(c);
    }

    /// `<failed/>` for the session that a search wanted back.
    pub(super) fn session_refused(&mut self, c: usize, h: Option<u32>) {
        self.clients[c].told_h = h;
        self.begin_anew(c);
    }

    pub(super) fn main_died(&mut self, c: usize) {
        if let Some(socket) = self.clients[c].main.take() {
            self.close_by_client(socket);
            self.clients[c].unread.clear();
            self.machine(c, Input::MainDied);
        }
    }

    fn main_said(&mut self, c: usize, bytes: &Bytes) {
        self.clients[c].heard = self.now;
        self.clients[c].machine.main_heard(Duration::from_millis(self.now));
        let Ok(stanza) = Stanza::from_bytes(bytes.clone()) else {
            // A stream error: the end follows.
            return;
        };
        if stanza.head.kind != Kind::Other {
            self.show(c, &stanza);
            return self.clients[c].sm.handled();
        }
        match (Sm::parse(&stanza), Dual::parse(&stanza)) {
            (Ok(Some(Sm::Request)), _) => {
                let h = Handled(self.clients[c].sm.inbound());
                self.say(c, self.clients[c].main, Sm::Answer { h }.to_bytes());
            }
            (Ok(Some(Sm::Answer { h })), _) => {
                self.clients[c].asked = false;
                match self.clients[c].sm.acknowledge(h.0) {
                    Ok(acknowledged) => {
                        if !acknowledged.is_empty() {
                            self.outlived(c);
                        }
                        self.acknowledged(acknowledged);
                    }
                    Err(_) if self.excuses() => self.main_died(c),
                    Err(bad) => self.fail(format!("u{c}: <a/>: {bad}")),
                }
            }
            (_, Ok(Some(said))) => {
                if matches!(said, Dual::Moving { .. }) {
                    let flying = self.clients[c].main.map_or(0, |s| self.sockets[s].in_flight);
                    self.coverage.crossings += u32::from(flying > 0);
                }
                self.clients[c].take_token(&said);
                self.machine(c, Input::Main(said));
            }
            _ => {}
        }
    }

    /// A stanza counts as shown.
    pub(super) fn show(&mut self, c: usize, stanza: &Stanza) {
        self.people_show(c, stanza);
        self.questions_show(c, stanza);
        self.names_show(c, stanza);
        let body = stanza.child(ns::CLIENT, "body").filter(|_| stanza.head.kind == Kind::Message);
        let Some(body) = body else { return };
        if stanza.head.type_.as_deref() == Some("error") {
            return self.fail(format!("u{c}: {} bounced", body.text));
        }
        self.ledger.now = self.now;
        if let Some(wrong) = self.ledger.shown(c, &body.text).filter(|_| !self.is_weak()) {
            self.fail(wrong);
        }
    }

    fn parked_said(&mut self, c: usize, bytes: &Bytes) {
        let Ok(stanza) = Stanza::from_bytes(bytes.clone()) else { return self.forget_token(c, bytes) };
        match (Sm::parse(&stanza), Dual::parse(&stanza)) {
            (Ok(Some(Sm::Resumed { h, .. })), _) => {
                self.clients[c].told_h = Some(h.0);
                self.machine(c, Input::Resumed);
            }
            (Ok(Some(Sm::Failed { h, .. })), _) => {
                self.clients[c].told_h = h.map(|h| h.0);
                self.machine(c, Input::Failed);
            }
            (_, Ok(Some(said))) => {
                self.clients[c].take_token(&said);
                self.machine(c, Input::Parked(said));
            }
            _ if self.clients[c].parked_was_main => {}
            _ => self.fail(format!("u{c}: <{}/> on the parked stream", stanza.head.name)),
        }
    }

    /// Once a second: does the main stream live, is something unacknowledged?
    pub(super) fn client_looks(&mut self, c: usize) {
        self.at(1_000, Event::Look(c));
        let client = &self.clients[c];
        let silent = self.now - client.heard;
        if client.main.is_some() && client.read {
            if silent >= client.silence {
                self.main_died(c);
            } else if !client.asked && (client.sm.in_flight() > 0 || silent >= client.silence / 2) {
                self.ask(c);
            }
        }
        self.client_pumps(c);
    }

    fn ask(&mut self, c: usize) {
        let client = &mut self.clients[c];
        client.asked = true;
        client.sm.requested();
        self.say(c, self.clients[c].main, Sm::Request.to_bytes());
    }

    /// Puts on the wire what may go there.
    pub(super) fn client_pumps(&mut self, c: usize) {
        while self.clients[c].write && self.clients[c].main.is_some() {
            let Some(bytes) = self.clients[c].sm.write_next() else { return };
            self.say(c, self.clients[c].main, bytes);
            if self.clients[c].sm.take_request() {
                self.ask(c);
            }
        }
    }

    /// Says something to somebody: a numbered message, or only that it is typing.
    pub(super) fn client_talks(&mut self, c: usize) {
        if self.now > self.talk_until {
            return;
        }
        let pace = self.clients[c].pace;
        let wait = self.rng.range(pace / 4, 2 * pace);
        self.at(wait, Event::Talk(c));
        let to = self.rng.below(self.clients.len());
        if to == c || self.clients[c].sm_id.is_none() {
            return;
        }
        let client = &self.clients[to];
        let full = format!("{}/{}", client.user, client.resource);
        let bound = client.sm_id.is_some();
        let bare = self.rng.chance(if self.ledger.has_sibling(to) { 20 } else { 60 });
        let address = if bare { self.clients[to].user.to_string() } else { full };
        let stanza = if self.rng.chance(35) {
            let text = format!(
                "<message to='{address}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
            );
            Outgoing { id: String::new(), bytes: text.into(), survives: false }
        } else {
            let id = ledger::name(c, to, self.ledger.sent(c, to, bare, bound));
            let text = format!("<message to='{address}' id='{id}' type='chat'><body>{id}</body></message>");
            Outgoing { id, bytes: text.into(), survives: true }
        };
        self.clients[c].sm.push(stanza);
        self.people_talk(c);
        self.names_talk(c);
        self.questions_talk(c);
        self.client_pumps(c);
    }
}
