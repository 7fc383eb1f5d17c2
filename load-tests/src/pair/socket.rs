//! A client's connection: bytes in order, late, and lost when either end dies.

use std::collections::VecDeque;

use bytes::Bytes;
use presence_engine::engine::Input;
use presence_engine::ids::{Conn, NodeIx};
use srm::node::In;
use xmpp_core::stanza::Stanza;

use super::world::{Event, World};

/// Elements of a connection that a node takes in before it waits for credit.
const WINDOW: u32 = 16;

/// What a client gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// Authenticated.
    Open,
    /// Nobody listens there.
    Refused,
    /// An element.
    Bytes(Bytes),
    /// The end.
    End,
}

/// What a node gets.
#[derive(Clone, Debug)]
pub enum Upward {
    /// An element.
    Bytes(Bytes),
    /// The end.
    End,
}

/// One connection.
#[derive(Debug)]
pub struct Socket {
    /// Whose.
    pub client: usize,
    /// Where to.
    pub node: usize,
    /// The client has it.
    pub client_open: bool,
    /// The node has it.
    pub server_open: bool,
    /// Boot of the process that accepted it.
    boot: u64,
    /// Latest arrival planned, at the node and at the client.
    last: [u64; 2],
    /// Nothing arrives after that, but the end.
    cut_at: [u64; 2],
    /// Elements that the engine has not given credit for.
    outstanding: u32,
    /// Elements that wait for credit.
    unread: VecDeque<Upward>,
    /// Elements on the way to the node.
    pub in_flight: u32,
    /// It has come through the door of a machine that is in a storm.
    pub(super) let_in: bool,
}

impl World {
    /// A client dials a node.
    pub(super) fn connect(&mut self, client: usize, node: usize) -> usize {
        let socket = Socket {
            client,
            node,
            client_open: true,
            server_open: false,
            boot: 0,
            last: [0; 2],
            cut_at: [u64::MAX; 2],
            outstanding: 0,
            unread: VecDeque::new(),
            in_flight: 0,
            let_in: false,
        };
        self.sockets.push(socket);
        let wait = self.rng.range(1, 12);
        self.at(wait, Event::Arrive(self.sockets.len() - 1));
        self.sockets.len() - 1
    }

    pub(super) fn socket_arrives(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        if !s.client_open {
            return;
        }
        let (host, let_in) = (&self.hosts[s.node], s.let_in);
        match &host.process {
            // No answer at all: the client gives up by itself.
            _ if self.is_beyond(s.client, s.node) => self.at(3_000, Event::Down(socket, Item::Refused)),
            None if !host.powered => self.at(3_000, Event::Down(socket, Item::Refused)),
            None => self.at(2, Event::Down(socket, Item::Refused)),
            Some(process) if process.paused => self.at(100, Event::Arrive(socket)),
            Some(_) if let_in => {}
            Some(_) => {
                if !self.at_the_door(socket) {
                    self.logged_in(socket);
                }
            }
        }
    }

    /// It is through TLS and SASL.
    pub(super) fn logged_in(&mut self, socket: usize) {
        let (node, client) = (self.sockets[socket].node, self.sockets[socket].client);
        match &self.hosts[node].process {
            _ if !self.sockets[socket].client_open => {}
            None => self.at(2, Event::Down(socket, Item::Refused)),
            Some(process) => {
                let boot = process.boot;
                let s = &mut self.sockets[socket];
                (s.server_open, s.boot) = (true, boot);
                let mut entropy = [0; 16];
                entropy[..8].copy_from_slice(&self.rng.bits().to_le_bytes());
                entropy[8..].copy_from_slice(&self.rng.bits().to_le_bytes());
                let user = self.clients[client].user.clone();
                let conn = conn_of(node, socket);
                let (salt, token) = self.credentials(client, socket);
                self.feed(node, In::Client(Input::Opened { conn, user, salt, entropy, token }));
                self.send_down(socket, Item::Open);
            }
        }
    }

    /// Bytes of a client go on their way.
    pub(super) fn send_up(&mut self, socket: usize, what: Upward) {
        let delay = if self.rng.chance(95) { self.rng.range(0, 6) } else { self.rng.range(10, 80) };
        let s = &mut self.sockets[socket];
        s.last[0] = s.last[0].max(self.now + delay);
        if let Upward::Bytes(bytes) = &what {
            s.in_flight += 1;
            if bytes.starts_with(b"<report") {
                self.reports[0] += 1;
                self.reports[1] += usize::from(bytes.windows(4).any(|at| at == b"mac="));
            }
        }
        let s = &self.sockets[socket];
        let wait = s.last[0] - self.now;
        self.at(wait, Event::Up(socket, what));
    }

    fn send_down(&mut self, socket: usize, item: Item) {
        let delay = if self.rng.chance(95) { self.rng.range(0, 6) } else { self.rng.range(10, 80) };
        let s = &mut self.sockets[socket];
        s.last[1] = s.last[1].max(self.now + delay);
        let wait = s.last[1] - self.now;
        self.at(wait, Event::Down(socket, item));
    }

    pub(super) fn socket_up(&mut self, socket: usize, what: Upward) {
        let s = &mut self.sockets[socket];
        let is_end = matches!(what, Upward::End);
        if !is_end {
            s.in_flight -= 1;
        }
        if !s.server_open || (self.now > s.cut_at[0] && !is_end) {
            return;
        }
        s.unread.push_back(what);
        self.read_on(socket);
    }

    fn read_on(&mut self, socket: usize) {
        loop {
            let s = &mut self.sockets[socket];
            let end_next = matches!(s.unread.front(), Some(Upward::End));
            if !s.server_open || s.outstanding >= WINDOW && !end_next {
                return;
            }
            let Some(what) = s.unread.pop_front() else { return };
            let (node, conn) = (s.node, conn_of(s.node, socket));
            match what {
                Upward::Bytes(bytes) => {
                    s.outstanding += 1;
                    match Stanza::from_bytes(bytes) {
                        Ok(stanza) => self.feed(node, In::Client(Input::Element { conn, stanza })),
                        Err(error) => self.fail(format!("a client said nonsense: {error:?}")),
                    }
                }
                Upward::End => {
                    s.server_open = false;
                    self.feed(node, In::Client(Input::Closed { conn, clean: false }));
                }
            }
        }
    }

    pub(super) fn credit(&mut self, conn: Conn) {
        let socket = conn.number as usize - 1;
        let s = &mut self.sockets[socket];
        if s.outstanding == 0 {
            return self.fail(format!("credit without an element on connection {}", conn.number));
        }
        s.outstanding -= 1;
        self.read_on(socket);
    }

    pub(super) fn deliver(&mut self, conn: Conn, bytes: Bytes) {
        let socket = conn.number as usize - 1;
        if self.sockets[socket].server_open {
            self.send_down(socket, Item::Bytes(bytes));
        }
    }

    pub(super) fn close_by_server(&mut self, conn: Conn, last: Bytes) {
        let socket = conn.number as usize - 1;
        if !self.sockets[socket].server_open {
            return;
        }
        if self.sockets[socket].in_flight > 0 && last.is_empty() {
            self.coverage.crossings += 1;
        }
        self.sockets[socket].server_open = false;
        if !last.is_empty() {
            self.send_down(socket, Item::Bytes(last));
        }
        self.send_down(socket, Item::End);
    }

    /// The client closes its end; what it sent before still arrives.
    pub(super) fn close_by_client(&mut self, socket: usize) {
        if std::mem::take(&mut self.sockets[socket].client_open) {
            self.send_up(socket, Upward::End);
        }
    }

    /// The path between a client and its node breaks; the node may take long to notice.
    pub(super) fn break_socket(&mut self, socket: usize) {
        let now = self.now;
        let late = if self.rng.chance(50) { self.rng.range(0, 50) } else { self.rng.range(1_000, 9_000) };
        let s = &mut self.sockets[socket];
        s.cut_at = [now; 2];
        s.last[0] = s.last[0].max(now + late);
        let (up, soon) = (s.last[0] - now, self.rng.range(0, 40));
        self.at(up, Event::Up(socket, Upward::End));
        self.at(soon, Event::Down(socket, Item::End));
    }

    /// The process at a node is gone: its clients' connections end, at once or without a word.
    pub(super) fn sockets_of_dead(&mut self, node: usize, silent: bool) {
        for socket in 0..self.sockets.len() {
            let s = &mut self.sockets[socket];
            if s.node != node || !s.server_open {
                continue;
            }
            s.server_open = false;
            s.unread.clear();
            if !s.client_open {
                continue;
            }
            let window = s.last[1].saturating_sub(self.now);
            let kept = if silent { 0 } else { self.rng.range(0, window + 1) };
            let s = &mut self.sockets[socket];
            s.cut_at[1] = s.cut_at[1].min(self.now + kept);
            if !silent {
                let wait = kept + self.rng.range(0, 3);
                self.at(wait, Event::Down(socket, Item::End));
            }
        }
    }

    pub(super) fn socket_down(&mut self, socket: usize, item: Item) {
        let s = &mut self.sockets[socket];
        if !s.client_open || (self.now > s.cut_at[1] && matches!(item, Item::Bytes(_) | Item::Open)) {
            return;
        }
        if matches!(item, Item::End | Item::Refused) {
            s.client_open = false;
        }
        let client = s.client;
        self.client_got(client, socket, item);
    }
}

/// The engine's name for a connection.
fn conn_of(node: usize, socket: usize) -> Conn {
    Conn { node: NodeIx::BOTH[node], number: socket as u64 + 1 }
}
