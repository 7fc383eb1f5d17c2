//! A storm of logins on the virtual clock: one machine whose processors are few, and the door before them, which is the
//! server's own ([`xmpp_core::net::Turnstile`]).
//!
//! A login occupies a processor for as long as it costs; so do those before it, and what the node itself does comes behind
//! all that was let in. A door that lets too many in makes the node late with its beacons.

use std::time::Duration;

use presence_engine::ids::NodeIx;
use srm::node::Op;
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::net::{Class, Turnstile, WHAT_FOLLOWS};

use super::Profile;
use super::client::Client;
use super::socket::Item;
use super::world::{Event, World};

/// What a machine is like, and what stands before it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// Part of them that logins may take, in percent.
    pub share: u32,
    /// Longest wait before TLS, in milliseconds.
    pub deadline_ms: u64,
    /// What a login costs of one who returns, and of a new one, in milliseconds.
    pub cost_ms: [u64; 2],
}

/// What happened in a storm.
#[derive(Debug, Default)]
pub struct Seen {
    /// Who was let in: when, which client, as what, and whether it had waited.
    pub admitted: Vec<(u64, usize, Class, bool)>,
    /// Connections that were closed at the door.
    pub turned_away: usize,
    /// Who flipped its parked stream, and when.
    pub flipped: Vec<(u64, usize)>,
    /// Who has got a stream by a search, and when.
    pub found: Vec<(u64, usize)>,
    /// When each node sent beacons.
    pub beacons: [Vec<u64>; 2],
    /// Most connections that waited at the same time.
    pub most: usize,
}

/// A machine in a storm.
#[derive(Debug)]
pub struct Storm {
    node: usize,
    machine: Machine,
    door: Turnstile<usize>,
    pumped: bool,
    /// When each processor has done all that it was given.
    free: Vec<u64>,
    pub(super) seen: Seen,
}

impl Storm {
    fn new(node: usize, machine: Machine) -> Storm {
        let Machine { cores, share, deadline_ms, cost_ms } = machine;
        let mut door = Turnstile::new(share, cores, Duration::from_millis(deadline_ms));
        // The server has seen logins before: what they cost is known.
        for (class, cost) in [(Class::Returning, cost_ms[0]), (Class::New, cost_ms[1])] {
            (0..200).for_each(|_| door.learn(class, Duration::from_millis(cost) / WHAT_FOLLOWS));
        }
        let (pumped, free) = (false, vec![0; cores]);
        Storm { node, machine, door, pumped, free, seen: Seen::default() }
    }

    fn clock(now: u64) -> Duration {
        Duration::from_millis(now)
    }

    /// Gives a processor so much to do, behind all that it has; when it is done.
    fn work(&mut self, now: u64, ms: u64) -> u64 {
        let free = self.free.iter_mut().min().expect("a machine has a processor");
        *free = (*free).max(now) + ms;
        *free
    }
}

impl World {
    fn stormed(&mut self, node: usize) -> Option<&mut Storm> {
        self.storm.as_mut().filter(|storm| storm.node == node)
    }

    /// A connection comes to the door of a machine that is in a storm; `false`: there is none.
    pub(super) fn at_the_door(&mut self, socket: usize) -> bool {
        let (node, client) = (self.sockets[socket].node, self.sockets[socket].client);
        let (now, ticket) = (self.now, self.clients[client].sm_id.is_some());
        let Some(storm) = self.stormed(node) else { return false };
        let at = Storm::clock(now);
        if storm.door.take(Class::New, at) {
            self.let_in(socket, Class::New, false);
            return true;
        }
        let class = if ticket { Class::Returning } else { Class::New };
        if storm.door.take(class, at) {
            self.let_in(socket, class, false);
        } else if storm.door.is_too_long(class) {
            storm.seen.turned_away += 1;
            self.at(2, Event::Down(socket, Item::Refused));
        } else {
            storm.door.wait(class, socket);
            storm.seen.most = storm.seen.most.max(storm.door.logins().waiting);
            let (deadline, pumps) = (storm.machine.deadline_ms, !std::mem::replace(&mut storm.pumped, true));
            self.at(deadline, Event::DoorCloses(socket));
            if pumps {
                self.at(1, Event::DoorOpens(node));
            }
        }
        true
    }

    fn let_in(&mut self, socket: usize, class: Class, waited: bool) {
        let (node, client, now) = (self.sockets[socket].node, self.sockets[socket].client, self.now);
        let ticket = self.clients[client].sm_id.is_some();
        let Some(storm) = self.stormed(node) else { return };
        storm.seen.admitted.push((now, client, class, waited));
        let cost = storm.machine.cost_ms[usize::from(!ticket)];
        let done = storm.work(now, cost);
        storm.door.learn(class, Duration::from_millis(cost) / WHAT_FOLLOWS);
        self.sockets[socket].let_in = true;
        self.at(done - now, Event::LoggedIn(socket));
    }

    /// Lets in who may come.
    pub(super) fn door_opens(&mut self, node: usize) {
        let now = self.now;
        let sockets = &self.sockets;
        let Some(storm) = self.storm.as_mut().filter(|storm| storm.node == node) else { return };
        let mut next = Vec::new();
        let wait = storm.door.grant(Storm::clock(now), |class, socket| {
            let there = sockets[socket].client_open;
            next.extend(there.then_some((socket, class)));
            there
        });
        storm.pumped = wait.is_some();
        for (socket, class) in next {
            self.let_in(socket, class, true);
        }
        if let Some(wait) = wait {
            self.at(wait.as_millis().max(1) as u64, Event::DoorOpens(node));
        }
    }

    /// A connection has waited for long enough.
    pub(super) fn door_closes(&mut self, socket: usize) {
        let s = &self.sockets[socket];
        if !s.let_in && s.client_open {
            self.note_storm(|seen, _| seen.turned_away += 1);
            self.socket_down(socket, Item::Refused);
        }
    }

    /// What a node itself does waits for a processor, behind all logins that were let in; `None`: it is done then.
    pub(super) fn behind_logins(&mut self, event: Event) -> Option<Event> {
        let node = match event {
            Event::Tick(node, _) | Event::Step(node, _) | Event::Datagram(node, _) => node,
            Event::Drain(dialler, 0, _) => dialler,
            Event::Drain(dialler, ..) => 1 - dialler,
            _ => return Some(event),
        };
        let now = self.now;
        let free = self.stormed(node).and_then(|storm| storm.free.iter().min().copied());
        let wait = free.unwrap_or(0).saturating_sub(now);
        if wait == 0 {
            return Some(event);
        }
        self.at(wait, Event::Served(Box::new(event)));
        None
    }

    /// Something of interest in a storm.
    pub(super) fn note_storm(&mut self, note: impl FnOnce(&mut Seen, u64)) {
        let now = self.now;
        if let Some(storm) = &mut self.storm {
            note(&mut storm.seen, now);
        }
    }
}

/// A pair with very many clients.
#[derive(Debug)]
pub struct Crowd {
    world: World,
}

impl Crowd {
    /// A pair and its clients, all at home at the first node: so many with two streams, so many with one, both logged in
    /// there, and so many that have never been here.
    pub fn pair(dual: usize, plain: usize, new: usize) -> Crowd {
        let mut world = World::new(1, Profile::CALM, false);
        world.form();
        for user in 0..dual + plain + new {
            let jid: BareJid = Jid::parse(&format!("u{user}@d")).expect("a JID").to_bare();
            world.op(0, Op::UserAdd(jid.clone(), Some(NodeIx::A), Box::default()));
            world.ledger.client_of(user);
            world.clients.push(Client::new(jid, "r", user < dual, 60_000, 0));
        }
        let mut crowd = Crowd { world };
        crowd.run(2_000);
        for client in 0..dual + plain {
            crowd.world.seek(client, Some(0));
            crowd.world.at(client as u64 % 1_000, Event::Look(client));
        }
        crowd.run(5_000);
        let (parked, settled) = (crowd.parked(), crowd.settled());
        assert_eq!((parked, settled), (dual, dual + plain), "all are where they should be before the storm");
        crowd
    }

    /// Streams that are parked at the second node.
    fn parked(&self) -> usize {
        self.world.hosts[1].node().map_or(0, |node| node.driver().engine().parked().count())
    }

    /// Clients whose session is on a stream.
    pub fn settled(&self) -> usize {
        self.world.clients.iter().filter(|client| client.is_settled()).count()
    }

    /// From now on one node has these processors, and this door before them.
    pub fn storm_at(&mut self, node: usize, machine: Machine) {
        self.world.storm = Some(Storm::new(node, machine));
    }

    /// `kill -9`; the node does not come back.
    pub fn kill(&mut self, node: usize) {
        self.world.hosts[node].starting = true;
        self.world.die(node, false);
    }

    /// These clients log in, first at this node, all within a second.
    pub fn come(&mut self, clients: std::ops::Range<usize>, node: usize) {
        for client in clients {
            self.world.seek(client, Some(node));
            self.world.at(client as u64 % 1_000, Event::Look(client));
        }
    }

    /// Goes on for so many milliseconds.
    ///
    /// # Panics
    /// A promise was broken.
    pub fn run(&mut self, ms: u64) {
        let end = self.world.now + ms;
        self.world.run_until(end);
        assert_eq!(self.world.failure, None);
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.world.now
    }

    /// What was seen of the storm so far.
    ///
    /// # Panics
    /// There is none.
    pub fn seen(&self) -> &Seen {
        &self.world.storm.as_ref().expect("a storm").seen
    }

    /// Connections that wait at the door.
    pub fn waiting(&self) -> usize {
        self.world.storm.as_ref().map_or(0, |storm| storm.door.logins().waiting)
    }

    /// A node that runs.
    ///
    /// # Panics
    /// It does not.
    pub fn node(&self, node: usize) -> &srm::node::Node {
        self.world.hosts[node].node().expect("it runs")
    }

    /// An account more at a node: something that must be replicated.
    pub fn write(&mut self, node: usize, number: usize) {
        let jid: BareJid = Jid::parse(&format!("w{number}@d")).expect("a JID").to_bare();
        self.world.op(node, Op::UserAdd(jid, Some(NodeIx::BOTH[node]), Box::default()));
    }
}
