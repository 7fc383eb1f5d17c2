//! How a client finds a stream for its session: both nodes in turn, following `see-other-host`; resume, else bind.

use bytes::Bytes;
use client_sim::dual::Input;
use xmpp_core::dual::Dual;
use xmpp_core::ns;
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::stanza::{Kind, Stanza};

use super::socket::Item;
use super::world::{Event, World};

/// Redirects that are followed in one attempt.
const MAX_REDIRECTS: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Dial,
    Resume,
    Bind,
    Enable,
}

/// One client's search.
#[derive(Clone, Debug, Default)]
pub struct Seek {
    /// The attempt's socket.
    pub socket: Option<usize>,
    /// A search is under way.
    pub on: bool,
    number: u64,
    node: usize,
    redirects: u8,
    refused: bool,
    step: Step,
    /// What the server said of the dual connection before it resumed the session.
    told: Vec<Dual>,
}

impl Seek {
    /// Another number: what waits for this attempt by the one before is void.
    pub(super) fn renumber(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl World {
    /// Begins a search.
    pub(super) fn seek(&mut self, c: usize, first: Option<usize>) {
        self.stop_seeking(c);
        let client = &mut self.clients[c];
        client.seek.on = true;
        client.seek.node = first.unwrap_or(client.main_node);
        self.next_attempt(c, 0);
    }

    pub(super) fn stop_seeking(&mut self, c: usize) {
        let seek = &mut self.clients[c].seek;
        seek.on = false;
        seek.number += 1;
        if let Some(socket) = seek.socket.take() {
            self.close_by_client(socket);
        }
    }

    fn next_attempt(&mut self, c: usize, more_ms: u64) {
        let wait = more_ms + self.rng.range(50, 250);
        let seek = &mut self.clients[c].seek;
        seek.number += 1;
        seek.redirects = 0;
        let number = seek.number;
        self.at(wait, Event::Seek(c, number));
    }

    pub(super) fn client_seeks(&mut self, c: usize, number: u64) {
        if self.clients[c].seek.number == number && self.clients[c].seek.on {
            let patience = self.patience_of(c);
            self.at(patience, Event::SeekTimeout(c, number));
            self.go(c);
        }
    }

    fn go(&mut self, c: usize) {
        let socket = self.connect(c, self.clients[c].seek.node);
        let seek = &mut self.clients[c].seek;
        (seek.socket, seek.step, seek.refused) = (Some(socket), Step::Dial, false);
        seek.told.clear();
    }

    pub(super) fn seek_timeout(&mut self, c: usize, number: u64) {
        if self.clients[c].seek.number == number && self.clients[c].seek.on {
            if let Some(socket) = self.clients[c].seek.socket.take() {
                self.give_up(socket);
            }
            self.attempt_failed(c, 0);
        }
    }

    fn attempt_failed(&mut self, c: usize, more_ms: u64) {
        let seek = &mut self.clients[c].seek;
        seek.node = 1 - seek.node;
        if let Some(socket) = seek.socket.take() {
            self.close_by_client(socket);
        }
        self.next_attempt(c, more_ms);
        self.machine(c, Input::ReconnectFailed);
    }

    pub(super) fn seek_got(&mut self, c: usize, item: Item) {
        match item {
            Item::Open => self.seek_open(c),
            Item::Refused => self.attempt_failed(c, 0),
            Item::End if self.clients[c].seek.refused => self.attempt_failed(c, 1_000),
            Item::End => self.attempt_failed(c, 0),
            Item::Bytes(bytes) => self.seek_said(c, bytes),
        }
    }

    fn seek_open(&mut self, c: usize) {
        let client = &mut self.clients[c];
        let Some(previd) = client.sm_id.clone() else { return self.bind(c) };
        client.seek.step = Step::Resume;
        let told = client.machine.told().filter(|_| client.dual);
        let told = client.machine.numbered(told);
        let resume = Sm::Resume { previd: previd.into(), h: Handled(client.sm.inbound()), told };
        self.say(c, self.clients[c].seek.socket, resume.to_bytes());
    }

    fn bind(&mut self, c: usize) {
        self.wait_longer(c);
        self.clients[c].seek.step = Step::Bind;
        let text = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{}</resource></bind></iq>",
            self.clients[c].resource
        );
        self.say(c, self.clients[c].seek.socket, text.into());
    }

    fn seek_said(&mut self, c: usize, bytes: Bytes) {
        let Ok(stanza) = Stanza::from_bytes(bytes.clone()) else { return self.stream_error(c, &bytes) };
        let sm = Sm::parse(&stanza).ok().flatten();
        let seek = &mut self.clients[c].seek;
        let (step, socket) = (seek.step, seek.socket);
        match (step, sm) {
            (Step::Resume, Some(Sm::Resumed { h, .. })) => self.found(c, socket, Some(h.0), String::new()),
            (Step::Resume, Some(Sm::Failed { h, .. })) => {
                seek.told.clear();
                self.session_refused(c, h.map(|h| h.0));
                self.bind(c);
            }
            (Step::Resume, None) => seek.told.extend(Dual::parse(&stanza).ok().flatten()),
            (Step::Bind, _) if stanza.head.kind == Kind::Iq && stanza.head.id.as_deref() == Some("bind") => {
                if !stanza.head.has_child(ns::BIND, "bind") {
                    return self.fail(format!("u{c}: bind is refused"));
                }
                seek.step = Step::Enable;
                self.say(c, socket, Sm::Enable { resume: true, max_s: None }.to_bytes());
            }
            (Step::Enable, Some(Sm::Enabled { id: Some(id), .. })) => self.found(c, socket, None, id.into()),
            // Before stream management is on: shown, not counted.
            (Step::Enable, _) if stanza.head.kind != Kind::Other => self.show(c, &stanza),
            _ => {}
        }
    }

    fn found(&mut self, c: usize, socket: Option<usize>, resumed_h: Option<u32>, sm_id: String) {
        let Some(socket) = socket else { return };
        let seek = &mut self.clients[c].seek;
        (seek.socket, seek.on) = (None, false);
        seek.number += 1;
        let told = std::mem::take(&mut seek.told);
        self.established(c, socket, resumed_h, sm_id);
        for said in told {
            self.clients[c].take_token(&said);
            self.machine(c, Input::Main(said));
        }
    }

    fn stream_error(&mut self, c: usize, bytes: &Bytes) {
        self.forget_token(c, bytes);
        let text = String::from_utf8_lossy(bytes);
        let seek = &mut self.clients[c].seek;
        if text.contains("see-other-host") && seek.redirects < MAX_REDIRECTS {
            seek.redirects += 1;
            seek.node = 1 - seek.node;
            if let Some(socket) = seek.socket.take() {
                self.close_by_client(socket);
            }
            return self.go(c);
        }
        seek.refused = true;
        if text.contains("handled-count-too-high") {
            self.session_refused(c, None);
        }
    }
}
