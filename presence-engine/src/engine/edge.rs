//! What belongs to sockets and dies with the process: connections, parked streams, elements that wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use xmpp_core::jid::BareJid;
use xmpp_core::stanza::Stanza;

use super::front::Front;
use super::token::{Opened, Token};
use crate::front::Attach;
use crate::ids::{Conn, NodeIx, SmId};
use crate::state::State;

#[cfg(test)]
mod tests;

/// For rates by the minute.
const MINUTE_MS: u64 = 60_000;
/// Stanzas after which a client is asked for its count again before the next tick.
const ASK_AFTER: u32 = 10;

/// What a connection is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Authenticated, not yet bound, resumed or parked.
    Fresh,
    /// The main stream of a session.
    Bound(SmId),
    /// A parked stream. `was_main`: it was the main stream until the session moved away; stragglers are ignored.
    Parked { session: SmId, was_main: bool },
    /// The other node serves its user; this one is its front (D5).
    Front,
}

/// An element of a client.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) stanza: Stanza,
    /// Of a stanza that came by a front: its number in the session, where that is known. Of a `<resume/>`: how often its
    /// session had been resumed, as far as the node with the socket knew, when it came.
    pub(super) number: Option<u32>,
    /// It was handed to an owner before, and nobody knows what became of it.
    pub(super) again: bool,
}

impl Item {
    /// An element that is seen for the first time, from a socket of this node.
    pub(super) fn new(stanza: Stanza) -> Item {
        Item { stanza, number: None, again: false }
    }
}

/// What waits until it is known who owns the user.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// It took a credit.
    Element(Box<Item>),
    /// A front attaches a connection that carries a session.
    Attach(Attach),
}

#[derive(Debug)]
struct Connection {
    user: BareJid,
    /// Of the verifiers that its client met.
    salt: Bytes,
    entropy: [u8; 16],
    /// By which one-time token its client was let in.
    token: Option<Token>,
    phase: Phase,
    /// What waits until it is known who owns the user, and since when.
    held: VecDeque<Held>,
    held_ms: u64,
    /// Elements that came by the front, and whether it has not confirmed the connection since it came back.
    came: u64,
    doubt: bool,
    /// The parked client said that its main stream died, and has no answer yet.
    lost_ms: Option<u64>,
    /// `<r/>` was sent and not answered.
    asked: bool,
    /// So much was delivered since.
    unasked: u32,
    /// It was asked since the last tick.
    recent: bool,
}

impl Connection {
    /// Whether something is to be done for it that a turn looks for: one for each set of [`Due`].
    fn due(&self) -> [bool; 4] {
        [!self.held.is_empty(), self.lost_ms.is_some(), self.is_to_be_asked(), self.recent]
    }

    /// At once if nothing was asked for a while; who gets much is asked after every few.
    fn is_to_be_asked(&self) -> bool {
        let enough = if self.recent { ASK_AFTER } else { 1 };
        !self.asked && self.unasked >= enough
    }
}

/// Connections that a turn looks for. A turn must not look through all that there are: it would take the longer, the more
/// clients are idle.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// Something of it waits.
    holding: BTreeSet<Conn>,
    /// `<lost/>` has no answer yet.
    lost: BTreeSet<Conn>,
    /// To be asked for its count.
    unasked: BTreeSet<Conn>,
    /// Asked since the last tick.
    recent: BTreeSet<Conn>,
}

impl Due {
    fn sets(&mut self) -> [&mut BTreeSet<Conn>; 4] {
        [&mut self.holding, &mut self.lost, &mut self.unasked, &mut self.recent]
    }

    /// A connection was due for `before` and is for `now`.
    fn list(&mut self, conn: Conn, before: [bool; 4], now: [bool; 4]) {
        for (set, (before, now)) in self.sets().into_iter().zip(before.into_iter().zip(now)) {
            match (before, now) {
                (false, true) => _ = set.insert(conn),
                (true, false) => _ = set.remove(&conn),
                _ => {}
            }
        }
    }
}

/// Connections of this node.
#[derive(Debug, Default)]
pub(super) struct Edge {
    conns: BTreeMap<Conn, Connection>,
    due: Due,
    main: BTreeMap<SmId, Conn>,
    parked: BTreeMap<SmId, Conn>,
    peer_parked: BTreeSet<SmId>,
    /// When the minute began in which a session was last parked for, and how often in it.
    parks: BTreeMap<SmId, (u64, u32)>,
    /// Connections whose front this node is, and their names at the owner.
    fronts: BTreeMap<Conn, Front>,
    /// Those of them that wait for an owner.
    alone: BTreeSet<Conn>,
    names: BTreeMap<Conn, Conn>,
}

/// Sessions and streams as operators count them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Client sessions active on this node.
    pub jsm_sessions_client: u64,
    /// Parked streams on this node.
    pub jsm_sessions_client_inactive: u64,
    /// Users with a session that this node serves: each has one composed session.
    pub jsm_sessions_composed: u64,
    /// Users served actively by this node.
    pub active_jsm_sessions: u64,
    /// Users held inactively for the peer.
    pub inactive_jsm_sessions: u64,
}

impl Edge {
    pub(super) fn open(&mut self, conn: Conn, opened: Opened) {
        let Opened { user, salt, entropy, token } = opened;
        let fresh = Connection {
            user,
            salt,
            entropy,
            token,
            phase: Phase::Fresh,
            held: VecDeque::new(),
            held_ms: 0,
            came: 0,
            doubt: false,
            lost_ms: None,
            asked: false,
            unasked: 0,
            recent: false,
        };
        if let Some(old) = self.conns.insert(conn, fresh) {
            self.due.list(conn, old.due(), [false; 4]);
        }
    }

    /// The one way to change a connection: what it is due for then is listed.
    fn change<T>(&mut self, conn: Conn, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let c = self.conns.get_mut(&conn)?;
        let before = c.due();
        let changed = change(c);
        self.due.list(conn, before, c.due());
        Some(changed)
    }

    /// Whether the lists say what the connections say.
    fn agrees(&self) -> bool {
        let mut due = Due::default();
        for (conn, c) in &self.conns {
            due.list(*conn, [false; 4], c.due());
        }
        let alone = self.fronts.iter().filter(|(_, front)| front.is_alone()).map(|(conn, _)| *conn);
        self.due == due && alone.eq(self.alone.iter().copied())
    }

    /// The same, looked at only where it costs little: in tests.
    pub(super) fn agrees_if_small(&self) -> bool {
        self.conns.len() > 64 || self.agrees()
    }

    pub(super) fn phase(&self, conn: Conn) -> Option<Phase> {
        self.conns.get(&conn).map(|c| c.phase)
    }

    pub(super) fn user(&self, conn: Conn) -> Option<&BareJid> {
        self.conns.get(&conn).map(|c| &c.user)
    }

    pub(super) fn salt(&self, conn: Conn) -> Bytes {
        self.conns.get(&conn).map_or_else(Bytes::new, |c| c.salt.clone())
    }

    pub(super) fn entropy(&self, conn: Conn) -> [u8; 16] {
        self.conns.get(&conn).map_or([0; 16], |c| c.entropy)
    }

    pub(super) fn token(&self, conn: Conn) -> Option<Token> {
        self.conns.get(&conn).and_then(|c| c.token)
    }

    /// The main stream of a session.
    pub(super) fn conn_of(&self, session: SmId) -> Option<Conn> {
        self.main.get(&session).copied()
    }

    /// The stream parked here for a session.
    pub(super) fn parked_of(&self, session: SmId) -> Option<Conn> {
        self.parked.get(&session).copied()
    }

    pub(super) fn parked(&self) -> impl Iterator<Item = (Conn, SmId)> {
        self.parked.iter().map(|(session, conn)| (*conn, *session))
    }

    /// All connections of an account, whatever they are used for.
    pub(super) fn of_user(&self, user: &BareJid) -> Vec<Conn> {
        self.conns.iter().filter(|(_, c)| c.user == *user).map(|(conn, _)| *conn).collect()
    }

    /// Connections that are not parked.
    pub(super) fn unparked(&self) -> Vec<Conn> {
        let parked = |c: &Connection| matches!(c.phase, Phase::Parked { .. });
        self.conns.iter().filter(|(_, c)| !parked(c)).map(|(conn, _)| *conn).collect()
    }

    /// Main streams and their sessions.
    pub(super) fn bound(&self) -> impl Iterator<Item = (Conn, SmId)> {
        self.main.iter().map(|(session, conn)| (*conn, *session))
    }

    /// Gives a connection a use and takes it out of the one that it had. A new use ends the wait of `<lost/>`.
    pub(super) fn set_phase(&mut self, conn: Conn, phase: Phase) {
        self.unlist(conn);
        match phase {
            Phase::Bound(session) => _ = self.main.insert(session, conn),
            Phase::Parked { session, .. } => _ = self.parked.insert(session, conn),
            Phase::Fresh | Phase::Front => {}
        }
        self.change(conn, |c| {
            c.phase = phase;
            c.lost_ms = None;
            c.asked = false;
            c.unasked = 0;
        });
    }

    fn unlist(&mut self, conn: Conn) {
        match self.phase(conn) {
            Some(Phase::Bound(session)) if self.main.get(&session) == Some(&conn) => {
                self.main.remove(&session);
            }
            Some(Phase::Parked { session, .. }) if self.parked.get(&session) == Some(&conn) => {
                self.parked.remove(&session);
            }
            _ => {}
        }
    }

    /// Forgets a connection; tells what it was used for, unless another has taken its place.
    pub(super) fn remove(&mut self, conn: Conn) -> Option<Phase> {
        let listed = match self.phase(conn)? {
            Phase::Fresh | Phase::Front => true,
            Phase::Bound(session) => self.main.get(&session) == Some(&conn),
            Phase::Parked { session, .. } => self.parked.get(&session) == Some(&conn),
        };
        self.unlist(conn);
        self.take_front(conn);
        let gone = self.conns.remove(&conn)?;
        self.due.list(conn, gone.due(), [false; 4]);
        listed.then_some(gone.phase)
    }

    pub(super) fn hold(&mut self, conn: Conn, held: Held, now_ms: u64) {
        self.change(conn, |c| {
            if c.held.is_empty() {
                c.held_ms = now_ms;
            }
            c.held.push_back(held);
        });
    }

    /// Whether something of this connection waits: what comes behind it, waits too.
    pub(super) fn is_holding(&self, conn: Conn) -> bool {
        self.conns.get(&conn).is_some_and(|c| !c.held.is_empty())
    }

    /// Connections with something that waits, in the order in which they began to: of two attempts to resume a session the
    /// later one is read by its client, and gives the numbers that hold.
    pub(super) fn holding(&self) -> Vec<Conn> {
        let mut holding: Vec<Conn> = self.due.holding.iter().copied().collect();
        holding.sort_by_key(|conn| self.held_since(*conn));
        holding
    }

    pub(super) fn held_since(&self, conn: Conn) -> u64 {
        self.conns.get(&conn).map_or(0, |c| c.held_ms)
    }

    pub(super) fn held(&self, conn: Conn) -> impl Iterator<Item = &Held> {
        self.conns.get(&conn).into_iter().flat_map(|c| &c.held)
    }

    pub(super) fn first_held(&self, conn: Conn) -> Option<Held> {
        self.conns.get(&conn).and_then(|c| c.held.front().cloned())
    }

    pub(super) fn pop_held(&mut self, conn: Conn) -> Option<Held> {
        self.change(conn, |c| c.held.pop_front())?
    }

    pub(super) fn take_held(&mut self, conn: Conn) -> VecDeque<Held> {
        self.change(conn, |c| std::mem::take(&mut c.held)).unwrap_or_default()
    }

    /// Makes this node the front of a connection.
    pub(super) fn set_front(&mut self, conn: Conn, front: Front) {
        if front.is_alone() {
            self.alone.insert(conn);
        } else {
            self.alone.remove(&conn);
        }
        self.fronts.insert(conn, front);
    }

    pub(super) fn front(&mut self, conn: Conn) -> Option<&mut Front> {
        self.fronts.get_mut(&conn)
    }

    /// What this node knows as the front of a connection.
    pub(super) fn front_of(&self, conn: Conn) -> Option<&Front> {
        self.fronts.get(&conn)
    }

    /// This node is no longer the front of the connection.
    pub(super) fn take_front(&mut self, conn: Conn) -> Option<Front> {
        let front = self.fronts.remove(&conn)?;
        self.alone.remove(&conn);
        if let Some(name) = front.name {
            self.names.remove(&name);
        }
        Some(front)
    }

    /// Connections whose front this node is.
    pub(super) fn fronts(&self) -> Vec<Conn> {
        self.fronts.keys().copied().collect()
    }

    /// The same if there are no more than `most`, else none.
    pub(super) fn few_fronts(&self, most: usize) -> Vec<Conn> {
        if self.fronts.len() > most { Vec::new() } else { self.fronts() }
    }

    /// Those of them that wait for an owner.
    pub(super) fn alone(&self) -> Vec<Conn> {
        self.alone.iter().copied().collect()
    }

    /// The connection is attached to its owner under this name.
    pub(super) fn name_front(&mut self, name: Conn, conn: Conn) {
        if let Some(front) = self.fronts.get_mut(&conn) {
            front.attached(name);
            self.alone.remove(&conn);
            self.names.insert(name, conn);
        }
    }

    /// See [`Front::lose_owner`].
    pub(super) fn lose_owner(&mut self, conn: Conn, now_ms: u64) -> bool {
        let Some(front) = self.fronts.get_mut(&conn) else { return false };
        let answered = front.lose_owner(now_ms);
        self.alone.insert(conn);
        answered
    }

    /// The connection that has this name at the owner.
    pub(super) fn named(&self, name: Conn) -> Option<Conn> {
        self.names.get(&name).copied()
    }

    /// Connections have no names any more; gives back those that they had.
    pub(super) fn forget_names(&mut self) -> BTreeMap<Conn, Conn> {
        std::mem::take(&mut self.names)
    }

    /// Connections whose socket that node has.
    pub(super) fn remote(&self, node: NodeIx) -> Vec<Conn> {
        self.conns.keys().filter(|conn| conn.node == node).copied().collect()
    }

    /// Every connection of that front is to be confirmed.
    pub(super) fn doubt_remote(&mut self, node: NodeIx) {
        for conn in self.remote(node) {
            self.change(conn, |c| c.doubt = true);
        }
    }

    /// Those that were not.
    pub(super) fn doubtful(&self) -> Vec<Conn> {
        self.conns.iter().filter(|(_, c)| c.doubt).map(|(conn, _)| *conn).collect()
    }

    /// Whether this is the next element of a connection that is known.
    pub(super) fn follows(&mut self, conn: Conn, seq: u64) -> bool {
        let came = self.change(conn, |c| {
            c.came += 1;
            c.came
        });
        came == Some(seq)
    }

    pub(super) fn set_lost(&mut self, conn: Conn, at_ms: Option<u64>) {
        self.change(conn, |c| c.lost_ms = at_ms);
    }

    /// Parked clients that said `<lost/>` before `before_ms` and have no answer.
    pub(super) fn lost_before(&self, before_ms: u64) -> Vec<Conn> {
        let said = |conn: &Conn| self.conns.get(conn).and_then(|c| c.lost_ms);
        let waits = |conn: &&Conn| said(conn).is_some_and(|at| at <= before_ms);
        self.due.lost.iter().filter(waits).copied().collect()
    }

    /// Something with a number went out: the client will be asked for its count.
    pub(super) fn delivered(&mut self, conn: Conn, state: &State) {
        self.change(conn, |c| {
            if let Phase::Bound(session) = c.phase {
                let counts = state.session(session).is_some_and(|s| s.enabled_at.is_some());
                c.unasked = if counts { c.unasked.saturating_add(1) } else { 0 };
            }
        });
    }

    pub(super) fn answered(&mut self, conn: Conn) {
        self.change(conn, |c| c.asked = false);
    }

    /// Connections to be asked for their count now.
    pub(super) fn take_unasked(&mut self) -> BTreeSet<Conn> {
        let ask = self.due.unasked.clone();
        for conn in &ask {
            self.change(*conn, |c| (c.asked, c.unasked, c.recent) = (true, 0, true));
        }
        ask
    }

    /// A tick: who was not asked for a while is asked at once again.
    pub(super) fn tick(&mut self) {
        for conn in std::mem::take(&mut self.due.recent) {
            self.change(conn, |c| c.recent = false);
        }
    }

    /// Counts a stream that is to be parked for a session; `false`: there were as many in this minute as there may be.
    pub(super) fn may_park(&mut self, session: SmId, most: u32, now_ms: u64) -> bool {
        let (since, count) = self.parks.entry(session).or_insert((now_ms, 0));
        if now_ms.saturating_sub(*since) >= MINUTE_MS {
            (*since, *count) = (now_ms, 0);
        }
        *count += 1;
        *count <= most
    }

    /// Forgets the minutes that are over.
    pub(super) fn forget_parks(&mut self, now_ms: u64) {
        self.parks.retain(|_, (since, _)| now_ms.saturating_sub(*since) < MINUTE_MS);
    }

    pub(super) fn peer_parked(&mut self, session: SmId, on: bool) {
        if on {
            self.peer_parked.insert(session);
        } else {
            self.peer_parked.remove(&session);
        }
    }

    pub(super) fn forget_peer_parked(&mut self) {
        self.peer_parked.clear();
    }

    pub(super) fn is_peer_parked(&self, session: SmId) -> bool {
        self.peer_parked.contains(&session)
    }

    pub(super) fn counters(&self, state: &State, me: NodeIx) -> Counters {
        let mut counters = Counters {
            jsm_sessions_client: self.main.len() as u64,
            jsm_sessions_client_inactive: self.parked.len() as u64,
            ..Counters::default()
        };
        for (_, user) in state.users().filter(|(_, u)| !u.sessions.is_empty()) {
            if state.owner(user) == Some(me) {
                counters.active_jsm_sessions += 1;
                counters.jsm_sessions_composed += 1;
            } else {
                counters.inactive_jsm_sessions += 1;
            }
        }
        counters
    }
}
