//! Two nodes with four users whose clients are hostile: no input ends a node, both hold the same, and what is delivered is well
//! formed, for whom it is given, from whom it says, within the limits, and numbered as it was given.
//!
//! Input: lines, each a step. `0` to `7` and XML: that client writes it. The others are a letter and a digit, see [`Game::step`].

mod client;
mod duo;

use std::collections::BTreeSet;

use bytes::Bytes;
use presence_engine::engine::{Input, Limits};
use presence_engine::ids::NodeIx;
use presence_engine::record::Verifiers;
use presence_engine::state::State;
use xmpp_core::jid::BareJid;

use super::input;
use client::Client;
use duo::{Duo, Said};

const DOMAIN: &str = "example.org";
const USERS: [&str; 4] =
    ["romeo@example.org", "mercutio@example.org", "juliet@example.org", "nurse@example.org"];

/// So narrow that small inputs reach them.
const NARROW: Limits = Limits {
    resources: 2,
    queue_stanzas: 12,
    queue_bytes: 4_000,
    queue_gaps: 12,
    offline_messages: 4,
    offline_bytes: 2_000,
    roster_items: 3,
    requests: 2,
    roster_groups: 2,
    roster_name_bytes: 20,
    request_bytes: 100,
    presence_bytes: 300,
    directed: 2,
    parks_per_minute: 3,
};

/// Steps of one input: more are not worth their time.
const STEPS: usize = 200;

pub(super) fn run(data: &[u8]) {
    play(data);
}

/// Plays the steps; the records of the frames that a node applied.
pub(super) fn play(data: &[u8]) -> Vec<Bytes> {
    let mut game = Game::new();
    let mut input = input::Input(data);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        game.step(input.until(b'\n'));
        game.look();
    }
    game.end();
    let history = game.duo.history.into_iter().max_by_key(Vec::len).unwrap_or_default();
    history.into_iter().map(|(_, _, frame)| frame).collect()
}

struct Game {
    duo: Duo,
    clients: Vec<Client>,
    /// Counts connections.
    conns: u64,
    /// All full JIDs that were ever bound.
    bound: BTreeSet<String>,
    /// Who writes right now, where all that comes of it arrives at once.
    writer: Option<&'static str>,
    /// Something was on its way for longer than a step: it may still come.
    late: bool,
    last: Vec<u8>,
}

impl Game {
    fn new() -> Game {
        let duo = Duo::new(NARROW);
        let clients = (0..8).map(|i| Client::new(USERS[i / 2])).collect();
        let mut game = Game {
            duo,
            clients,
            conns: 0,
            bound: BTreeSet::new(),
            writer: None,
            late: false,
            last: Vec::new(),
        };
        USERS.iter().for_each(|user| game.add(user));
        game
    }

    /// One line: what client `n` writes, or `b` it binds and becomes available, `r` comes back and resumes, `p` parks a
    /// second stream in its place at the other node, `a` acknowledges, `x` loses its connection, `c` closes its stream, `o`
    /// connects to the node that does not serve it; `*` the last line again, 4 times `n`; user `n`: `h` is handed over, `w`
    /// gets another password, `d` is removed, `u` added; `t` time passes; `f` what the nodes say waits, `s` arrives; `l` the
    /// link is cut, `m` mended; `k` a node dies.
    fn step(&mut self, line: &[u8]) {
        let Some((&what, rest)) = line.split_first() else { return };
        self.late |= matches!(what, b'f' | b'l' | b'k');
        let n = usize::from(rest.first().copied().unwrap_or_default() % 8);
        let user = USERS[n % 4];
        match what {
            b'0'..=b'7' => self.write(usize::from(what - b'0'), rest),
            b'*' => {
                let last = self.last.clone();
                for _ in 0..4 * n {
                    self.step(&last);
                    self.look();
                }
                return;
            }
            b'b' => self.bind(n),
            b'r' => self.resume(n),
            b'p' => self.park(n),
            b'a' => self.acknowledge(n),
            b'x' => self.lose(n, false),
            b'c' => self.lose(n, true),
            b'o' => self.connect(n, true),
            b'h' if self.duo.is_whole() => self.at_owner(user, |user| Input::HandOver { user }),
            b'w' => self.at_owner(user, |user| Input::UserPasswd { user, verifiers: Verifiers::default() }),
            b'd' => self.at_owner(user, |user| Input::UserRemove { user }),
            b'u' => self.add(user),
            b't' => self.duo.after(10u64.pow(n as u32)),
            b'f' => self.duo.held = true,
            b's' => self.duo.settle(),
            b'l' if self.duo.is_whole() => self.duo.cut_link(),
            b'm' if self.duo.cut => self.duo.mend_link(),
            b'k' if self.duo.lives(NodeIx::A) && self.duo.lives(NodeIx::B) => {
                let node = NodeIx::BOTH[n % 2];
                self.duo.settle();
                self.look();
                self.duo.kill(node);
                let theirs = |c: &&mut Client| c.conn.is_some_and(|conn| conn.node == node);
                self.clients.iter_mut().filter(theirs).for_each(Client::gone);
            }
            _ => return,
        }
        self.last = line.to_vec();
    }

    fn at_owner(&mut self, user: &str, input: impl FnOnce(BareJid) -> Input) {
        let jid = BareJid::parse(user).expect("one of ours");
        if let Some(node) = self.duo.owner(user).filter(|node| self.duo.lives(*node)) {
            self.duo.input(node, input(jid));
        }
    }

    fn add(&mut self, user: &str) {
        let home = if user == USERS[0] || user == USERS[1] { NodeIx::A } else { NodeIx::B };
        let node = if self.duo.lives(home) { home } else { home.peer() };
        let user = BareJid::parse(user).expect("one of ours");
        self.duo.input(node, Input::UserAdd { user, home, verifiers: Verifiers::default() });
    }

    /// Hands out what was said, and looks whether it may be said.
    fn look(&mut self) {
        // A client whose answer was lost with the link is bound all the same.
        let sessions = self.duo.states().flat_map(State::sessions);
        self.bound.extend(sessions.map(|(_, s)| format!("{}/{}", s.user, s.resource)));
        loop {
            let said = self.duo.said();
            if said.is_empty() {
                break;
            }
            for (conn, said) in said {
                let found = self.clients.iter_mut().find(|c| c.conn == Some(conn));
                if let Some(client) = found {
                    client.hear(said, self.writer, &mut self.bound);
                }
            }
            self.clear_closed();
        }
        let state = self.duo.state();
        for client in self.clients.iter().filter(|_| !self.duo.held && !self.duo.cut) {
            client.check_number(state);
        }
        for (jid, user) in state.users() {
            let room = user.offline.iter().filter(|m| m.due.is_empty()).count();
            assert!(room <= NARROW.offline_messages + NARROW.queue_stanzas * 2, "{jid}: {room} offline");
            assert!(user.sessions.len() <= NARROW.resources, "{jid}");
            assert!(user.roster.listed().count() <= NARROW.roster_items, "{jid}");
        }
        for (_, session) in state.sessions() {
            assert!(session.out_stanzas as usize <= NARROW.queue_stanzas, "{} stanzas", session.out_stanzas);
            assert!(session.out_bytes <= NARROW.queue_bytes, "{} bytes", session.out_bytes);
            assert!(session.directed.len() <= NARROW.directed);
        }
    }

    /// A connection's shell tells that it has ended, whoever ended it.
    fn clear_closed(&mut self) {
        for i in 0..self.clients.len() {
            if self.clients[i].closed {
                let conn = self.clients[i].conn;
                self.clients[i].gone();
                if let Some(conn) = conn {
                    self.duo.input(conn.node, Input::Closed { conn, clean: false });
                }
            }
        }
    }

    /// Elements that wait to be answered.
    fn waits(&self) -> usize {
        let there = self.clients.iter().filter(|client| client.conn.is_some());
        there.map(|client| client.uncredited as usize).sum()
    }

    /// All arrives, and nobody waits for ever.
    fn end(&mut self) {
        self.duo.settle();
        self.look();
        if self.duo.cut {
            self.duo.mend_link();
            self.look();
        }
        for _ in 0..3 {
            self.duo.after(200_000);
            self.look();
        }
        // Of the resumes that wait on one stream, each tick answers one.
        let mut waits = self.waits();
        while waits > 0 {
            self.duo.after(200_000);
            self.look();
            if std::mem::replace(&mut waits, self.waits()) <= waits {
                break;
            }
        }
        self.duo.replay();
        for client in self.clients.iter().filter(|client| client.conn.is_some()) {
            assert_eq!(client.uncredited, 0, "{} is not read any more", client.user);
        }
    }
}
