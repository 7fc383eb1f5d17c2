//! The two connections between the nodes: each an ordered reliable channel each way that can stall, break and be
//! dialled again. The dialler is end 0, the acceptor end 1.

use std::collections::VecDeque;

use presence_engine::front::Relay;
use session_mover::driver::Link;
use session_mover::msg::Msg;
use srm::node::In;

use super::world::{Event, World};

/// What travels.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// The connection is up.
    Up,
    /// A message.
    Msg(Msg),
    /// The connection ended; by FIN or RST?
    Down(bool),
}

/// One connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// Counts connections.
    pub generation: u64,
    /// Boot of the process at each end, while it has the socket.
    pub ends: [Option<u64>; 2],
    /// On the way to each end, with the time of arrival.
    queues: [VecDeque<(u64, Parcel)>; 2],
    /// A new attempt is planned.
    pub dialling: bool,
}

fn node_at(dialler: usize, end: usize) -> usize {
    if end == 0 { dialler } else { 1 - dialler }
}

fn link_at(end: usize) -> Link {
    if end == 0 { Link::Out } else { Link::In }
}

impl World {
    /// Plans an attempt of `node` to reach its peer.
    pub(super) fn redial(&mut self, node: usize, low_ms: u64, high_ms: u64) {
        if !self.wires[node].dialling {
            self.wires[node].dialling = true;
            let wait = self.rng.range(low_ms, high_ms);
            self.at(wait, Event::Dial(node));
        }
    }

    pub(super) fn dial(&mut self, node: usize) {
        self.wires[node].dialling = false;
        let peer = 1 - node;
        if self.hosts[node].process.is_none() || self.wires[node].ends[0].is_some() {
            return;
        }
        let reachable = self.hosts[peer].process.is_some() && !self.is_cut() && self.hosts[node].runs();
        if !reachable {
            return self.redial(node, 200, 800);
        }
        if self.wires[node].ends[1].is_some() {
            // The acceptor still holds the socket of an earlier connection: the new one replaces it.
            self.wires[node].ends[1] = None;
            self.feed(peer, In::LinkDown(Link::In, false));
        }
        let boots = [self.boot_of(node), self.boot_of(peer)];
        let wire = &mut self.wires[node];
        wire.generation += 1;
        wire.ends = boots;
        wire.queues = Default::default();
        for end in 0..2 {
            self.push(node, end, Parcel::Up);
        }
    }

    fn boot_of(&self, node: usize) -> Option<u64> {
        self.hosts[node].process.as_ref().map(|p| p.boot)
    }

    fn push(&mut self, dialler: usize, end: usize, parcel: Parcel) {
        let slow = self.rng.chance(2) && !self.prompt;
        let delay = if slow { self.rng.range(5, 120) } else { self.rng.range(0, 4) } + self.profile.latency;
        let delay = delay + self.lateness(dialler, end);
        let wire = &mut self.wires[dialler];
        let last = wire.queues[end].back().map_or(0, |(at, _)| *at);
        let ready = last.max(self.now + delay);
        wire.queues[end].push_back((ready, parcel));
        let generation = wire.generation;
        self.at(ready - self.now, Event::Drain(dialler, end, generation));
    }

    /// What a node says on one of its connections.
    pub(super) fn wire_send(&mut self, node: usize, link: Link, msg: Msg) {
        let (dialler, end) = if link == Link::Out { (node, 0) } else { (1 - node, 1) };
        if let Msg::Relay(Relay::Open { attach, .. }) = &msg {
            self.coverage.fronted += u32::from(attach.is_none());
            self.coverage.reattached += u32::from(attach.is_some());
        }
        if self.wires[dialler].ends[end].is_some() {
            self.push(dialler, 1 - end, Parcel::Msg(msg));
        }
    }

    /// A node ends one of its connections.
    pub(super) fn wire_close(&mut self, node: usize, link: Link) {
        let (dialler, end) = if link == Link::Out { (node, 0) } else { (1 - node, 1) };
        if self.wires[dialler].ends[end].take().is_none() {
            return;
        }
        self.wires[dialler].queues[end].clear();
        self.push(dialler, 1 - end, Parcel::Down(true));
        self.feed_later(node, In::LinkDown(link, false));
        if end == 0 {
            self.redial(node, 50, 600);
        }
    }

    /// The process at a node is gone: what it sent may or may not arrive; then FIN or RST, unless the power went.
    pub(super) fn wires_of_dead(&mut self, node: usize, silent: bool) {
        for dialler in 0..2 {
            let end = usize::from(dialler != node);
            if self.wires[dialler].ends[end].take().is_none() {
                continue;
            }
            self.wires[dialler].queues[end].clear();
            let queue = &mut self.wires[dialler].queues[1 - end];
            let kept = self.rng.below(queue.len() + 1);
            queue.truncate(kept);
            if !silent {
                self.push(dialler, 1 - end, Parcel::Down(true));
            }
        }
    }

    /// A host without power is back, or has been silent for too long: who still holds its socket learns it.
    pub(super) fn stale_wires(&mut self, node: usize, closed: bool) {
        for dialler in 0..2 {
            let end = usize::from(dialler != node);
            let wire = &self.wires[dialler];
            if wire.ends[end].is_none() && wire.ends[1 - end].is_some() {
                self.push(dialler, 1 - end, Parcel::Down(closed));
            }
        }
    }

    /// A connection breaks on its way: both ends see it, at different times.
    pub(super) fn break_wire(&mut self, dialler: usize) {
        if self.wires[dialler].ends.iter().any(Option::is_none) {
            return;
        }
        for end in 0..2 {
            let queue = &mut self.wires[dialler].queues[end];
            let kept = self.rng.below(queue.len() + 1);
            queue.truncate(kept);
            self.push(dialler, end, Parcel::Down(true));
        }
    }

    /// Delivers what has arrived.
    pub(super) fn drain(&mut self, dialler: usize, end: usize, generation: u64) {
        loop {
            let wire = &self.wires[dialler];
            if wire.generation != generation {
                return;
            }
            let Some((ready, _)) = wire.queues[end].front() else { return };
            if *ready > self.now {
                return;
            }
            if self.is_cut() {
                let wait = self.cut.iter().max().copied().unwrap_or(0).saturating_sub(self.now) + 1;
                return self.at(wait, Event::Drain(dialler, end, generation));
            }
            let (_, parcel) = self.wires[dialler].queues[end].pop_front().expect("just seen");
            self.arrive(dialler, end, parcel);
        }
    }

    fn arrive(&mut self, dialler: usize, end: usize, parcel: Parcel) {
        let node = node_at(dialler, end);
        let link = link_at(end);
        if self.wires[dialler].ends[end].is_none() || self.wires[dialler].ends[end] != self.boot_of(node) {
            return;
        }
        match parcel {
            Parcel::Up => self.feed(node, In::LinkUp(link)),
            Parcel::Msg(Msg::Relay(_)) if self.hosts[node].deaf => {}
            Parcel::Msg(msg) => {
                self.note_relayed(node, &msg);
                self.feed(node, In::LinkMsg(link, msg));
            }
            Parcel::Down(closed) => {
                self.wires[dialler].ends[end] = None;
                self.feed(node, In::LinkDown(link, closed));
                if end == 0 {
                    self.redial(node, 50, 600);
                }
            }
        }
    }
}
