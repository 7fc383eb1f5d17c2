//! Plain clients with little patience, and a path between the nodes that is slow at times: an attempt to resume that was
//! given up arrives behind a later one, which was granted at the other node.

use presence_engine::front::Relay;
use presence_engine::ids::SmId;
use session_mover::msg::Msg;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::Stanza;

use super::faults::Fault;
use super::rng::Rng;
use super::socket::Upward;
use super::world::{Event, World};

/// What a client waits for an answer, in milliseconds.
const LONG: u64 = 90_000;
/// The same of one with little patience, whose session is somewhere.
const SHORT: (u64, u64) = (300, 3_000);
/// How much later a node hears of a client that has left without a word.
const HALF_OPEN: (u64, u64) = (1_000, 20_000);

/// By how many milliseconds what a node says is late: on the connection that each node dialled, towards its dialler and
/// towards the other.
pub type Late = [[u64; 2]; 2];

/// How slow the path is.
#[derive(Debug)]
pub struct Patience {
    /// Chance of its own, so that a run without such clients is the same run.
    rng: Rng,
    late: Late,
    /// Until when.
    until: u64,
}

impl Patience {
    /// The path is not slow.
    pub fn new(seed: u64) -> Patience {
        Patience { rng: Rng::new(seed ^ 0x7061_7469_656e), late: Late::default(), until: 0 }
    }

    /// One way in three is not slow, so that a grant comes back where a relay is late.
    fn draw_late(&mut self) -> u64 {
        match self.rng.below(3) {
            0 => 0,
            1 => self.rng.range(50, 600),
            _ => self.rng.range(600, 4_000),
        }
    }
}

impl World {
    /// The path is slow at some times of a run, and clients lose their streams then.
    pub(super) fn plan_slow(&mut self, from: u64, until: u64) {
        if !self.profile.impatient {
            return;
        }
        for _ in 0..self.patience.rng.range(1, 4) {
            let (at, for_ms) = (self.patience.rng.range(from, until), self.patience.rng.range(1_000, 9_000));
            let at = at - self.now;
            let late = [(); 2].map(|()| [(); 2].map(|()| self.patience.draw_late()));
            self.at(at, Event::Fault(Fault::Slow(late, for_ms)));
            for client in 0..self.clients.len() {
                if self.patience.rng.chance(70) {
                    let later = at + self.patience.rng.range(0, for_ms);
                    self.at(later, Event::Fault(Fault::Client(client)));
                }
            }
        }
    }

    pub(super) fn slow_down(&mut self, late: Late, for_ms: u64) {
        (self.patience.late, self.patience.until) = (late, self.now + for_ms);
    }

    /// How late what is said now on a connection arrives at an end of it, beside what it always takes.
    pub(super) fn lateness(&self, dialler: usize, end: usize) -> u64 {
        let slow = !self.over && self.now < self.patience.until;
        if slow { self.patience.late[dialler][end] } else { 0 }
    }

    /// How long this client waits for an answer in the attempt that begins.
    pub(super) fn patience_of(&mut self, c: usize) -> u64 {
        let client = &self.clients[c];
        if self.profile.impatient && !client.dual && client.sm_id.is_some() {
            return self.patience.rng.range(SHORT.0, SHORT.1);
        }
        LONG
    }

    /// Its session is gone: for a new one it waits longer. Two that bind the same resource would end each other.
    pub(super) fn wait_longer(&mut self, c: usize) {
        if self.profile.impatient {
            let number = self.clients[c].seek.renumber();
            self.at(LONG, Event::SeekTimeout(c, number));
        }
    }

    /// A client gives up an attempt: its node hears of it at once, or much later.
    pub(super) fn give_up(&mut self, socket: usize) {
        if !self.profile.impatient {
            return self.close_by_client(socket);
        }
        self.coverage.given_up += 1;
        if self.patience.rng.chance(50) {
            return self.close_by_client(socket);
        }
        self.sockets[socket].client_open = false;
        let late = self.patience.rng.range(HALF_OPEN.0, HALF_OPEN.1);
        self.at(late, Event::Up(socket, Upward::End));
    }

    /// Counts attempts to resume that are relayed to a node which has granted another one meanwhile.
    pub(super) fn note_relayed(&mut self, node: usize, msg: &Msg) {
        let Msg::Relay(Relay::Element { stanza, number: Some(known), .. }) = msg else { return };
        if !self.profile.impatient {
            return;
        }
        let stanza = Stanza::from_bytes(stanza.clone()).ok();
        let sm = stanza.and_then(|stanza| Sm::parse(&stanza).ok().flatten());
        let Some(Sm::Resume { previd, .. }) = sm else { return };
        let Some(state) = self.hosts[node].node().map(|n| n.driver().engine().state()) else { return };
        let session = SmId::parse(&previd).and_then(|id| state.session(id));
        let overtaken = session.is_some_and(|s| s.streams != *known);
        self.coverage.overtaken += u32::from(overtaken);
    }
}
