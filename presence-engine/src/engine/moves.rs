//! Sessions that change their node: leading a group, hand-over of one user, dual connections (D3, D4, D6).

use bytes::Bytes;
use xmpp_core::dual::{Dual, Failure};
use xmpp_core::error::StreamError;
use xmpp_core::jid::BareJid;

use super::edge::Phase;
use super::front::Carried;
use super::{Engine, Output};
use crate::front::Fronted;
use crate::ids::{Conn, Epoch, Group, Reg, SmId};
use crate::record::Record;
use crate::state::User;

impl Engine {
    pub(super) fn bound_dual(&mut self, conn: Conn, session: SmId, dual: Dual, out: &mut Vec<Output>) {
        match dual {
            Dual::Request => {
                let resumable = self.state.session(session).is_some_and(|s| s.resumable());
                if self.cfg.peer.is_none() || !resumable || !self.state.group().ha {
                    out.push(Output::Deliver(conn, Dual::Failed(Failure::HaDisabled).to_bytes()));
                    return;
                }
                self.emit(Record::Dual { session }, out);
                self.offer(session, out);
            }
            Dual::Vouch { nonce } => out.push(Output::Vouch(conn, nonce)),
            _ => {}
        }
    }

    pub(super) fn parked_element(
        &mut self,
        conn: Conn,
        session: SmId,
        dual: Dual,
        out: &mut Vec<Output>,
    ) -> bool {
        match dual {
            Dual::Lost => {
                let user = self.state.session(session).map(|s| s.user.clone());
                let Some(user) = user else { return true };
                if self.serves(&user) {
                    self.take(conn, &user, out);
                } else {
                    self.edge.set_lost(conn, Some(self.turn.now_ms));
                    out.push(Output::MainLost(session));
                }
            }
            Dual::Report { id, mac, .. } => out.push(Output::Report { conn, id, mac }),
            _ => {}
        }
        true
    }

    /// Tells a dual client, on its main stream, the epoch and where to park. Sent again whenever the epoch changes, and
    /// before anything is delivered on another stream.
    pub(super) fn offer(&self, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session).filter(|s| s.dual) else { return };
        let Some(conn) = self.edge.conn_of(session) else { return };
        let Some(user) = self.state.user(&s.user) else { return };
        out.extend(self.offer_to(conn, session, self.epoch_to_tell(user)));
    }

    /// Every dual client whose stream ends here is told where its other stream belongs, and when it may come.
    pub(super) fn offer_all(&self, out: &mut Vec<Output>) {
        let told = self.edge.bound().filter_map(|(conn, session)| {
            let s = self.state.session(session).filter(|s| s.dual)?;
            self.offer_to(conn, session, self.epoch_to_tell(self.state.user(&s.user)?))
        });
        out.extend(told);
    }

    /// Between the announcement of a term and its record, what is put out is let go under that term too.
    pub(super) fn epoch_to_tell(&self, user: &User) -> Epoch {
        let term = self.announced[user.register.index()].0;
        self.state.epoch(user).max(Epoch { term, moves: 0 })
    }

    /// The other stream belongs on the node that has not this one's socket: a front names this node.
    fn offer_to(&self, conn: Conn, session: SmId, epoch: Epoch) -> Option<Output> {
        if conn.node != self.cfg.me {
            return Some(Output::Tell(Fronted::Offer(conn, epoch)));
        }
        if !self.state.group().ha {
            return None;
        }
        let (peer, (lower_s, upper_s)) = (self.cfg.peer.clone()?, self.cfg.relogin_s);
        let offer = Dual::Offer { epoch, lower_s, upper_s, peer, token: self.next_token(session) };
        Some(Output::Deliver(conn, offer.to_bytes()))
    }

    /// What dual clients of a group are told before anything is acknowledged under a new term (D6). `released`: the last
    /// frame whose outputs have been let go.
    pub fn announcement(&mut self, group: Group, reg: Reg, released: u64) -> Vec<Output> {
        self.announced[group.index()] = reg.term;
        self.left_behind.retain(|(seq, _, _)| *seq > released);
        let mut told = Vec::new();
        let bound = self.edge.bound().map(|(conn, session)| (conn, session, group));
        // A hand-over that waits with what was given before it takes the user out of the group, not the stream. One that was let go
        // did: the other node's word counts. It is told so by the count of hand-overs: whoever has that one has all that came before
        // it on this stream.
        let behind = self.left_behind.iter().map(|(_, conn, session)| (*conn, *session, group.peer()));
        for (conn, session, register) in bound.chain(behind) {
            let Some(s) = self.state.session(session).filter(|s| s.dual) else { continue };
            let Some(u) = self.state.user(&s.user).filter(|u| u.register == register) else { continue };
            let moves = if register == group { 0 } else { u.moved.moves };
            let epoch = self.state.epoch(u).max(Epoch { term: reg.term.0, moves });
            told.extend(self.offer_to(conn, session, epoch));
        }
        told
    }

    /// Main streams of a group's dual clients: what is said to them when this node stays fenced (D13). Not by a front: it
    /// is this node where their other stream is.
    pub fn dual_streams(&self, group: Group) -> Vec<Conn> {
        let of = |session: &SmId| {
            let s = self.state.session(*session).filter(|s| s.dual);
            s.and_then(|s| self.state.user(&s.user)).is_some_and(|u| u.register == group)
        };
        let here = |conn: &Conn| conn.node == self.cfg.me;
        self.edge.bound().filter(|(conn, session)| here(conn) && of(session)).map(|(conn, _)| conn).collect()
    }

    /// What ends, at a node that stays fenced, the streams that wait here for a session of a group: those of clients without a
    /// second stream, and those that have logged in and have no session yet. The other node is where it may be (D13).
    pub fn send_away(&self, group: Group) -> Vec<Output> {
        let Some(peer) = &self.cfg.peer else { return Vec::new() };
        let last = StreamError::see_other_host(&format!("{}:{}", peer.host, peer.port)).to_bytes();
        let waits = |conn: &Conn| {
            let of_group = self.edge.user(*conn).and_then(|user| self.state.user(user));
            let plain = match self.edge.phase(*conn) {
                Some(Phase::Bound(session)) => self.state.session(session).is_none_or(|s| !s.dual),
                phase => phase == Some(Phase::Fresh),
            };
            conn.node == self.cfg.me && plain && of_group.is_some_and(|user| user.register == group)
        };
        let waiting = self.edge.unparked().into_iter().filter(waits);
        waiting.map(|conn| Output::Close(conn, last.clone(), true)).collect()
    }

    /// Calls a parked client: its session is served here now.
    pub(super) fn take(&mut self, conn: Conn, user: &BareJid, out: &mut Vec<Output>) {
        let Some(u) = self.state.user(user) else { return };
        self.edge.set_lost(conn, None);
        out.push(Output::Deliver(conn, Dual::Take { epoch: self.state.epoch(u) }.to_bytes()));
    }

    /// The core leads a group: the register goes into the log, undone records are processed, clients are called.
    pub(super) fn lead(&mut self, group: Group, reg: Reg, late: bool, out: &mut Vec<Output>) {
        let me = self.cfg.me;
        let before = self.state.lead(group);
        let taken = before.is_some_and(|before| before.primary != me);
        let at_ms = self.turn.now_ms;
        self.emit(Record::Lead { group, reg, at_ms, late }, out);
        if self.serving[group.index()] && before == Some(reg) {
            // Said once more, of what was written since: nothing else has changed.
            return;
        }
        self.serving[group.index()] = true;
        self.process_all(out);
        self.note_all_waiting();
        self.adopt(out);
        for (session, user) in self.members(group) {
            if !self.serves(&user) {
                continue;
            }
            match self.edge.conn_of(session) {
                Some(_) => self.offer(session, out),
                None => self.orphan(session, out),
            }
            if let Some(conn) = self.edge.parked_of(session).filter(|_| taken) {
                self.take(conn, &user, out);
            }
        }
        self.retry(out);
    }

    /// Sessions of a group that lost their streams while nobody could write it down.
    pub(super) fn look_for_orphans(&mut self, group: Group, out: &mut Vec<Output>) {
        for (session, user) in self.members(group) {
            if self.serves(&user) && self.edge.conn_of(session).is_none() {
                self.orphan(session, out);
            }
        }
    }

    /// The same of one user.
    pub(super) fn orphans_of(&mut self, user: &BareJid, out: &mut Vec<Output>) {
        let sessions = self.state.user(user).map(|u| u.sessions.values().copied().collect::<Vec<_>>());
        for session in sessions.unwrap_or_default() {
            if self.edge.conn_of(session).is_none() {
                self.orphan(session, out);
            }
        }
    }

    /// A session of ours without a stream after a start or a takeover: it waits for its client, or ends.
    fn orphan(&mut self, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        if !s.resumable() {
            self.end_session(session, out);
        } else if s.detached_ms.is_none() {
            self.emit(Record::Detached { session, at_ms: self.turn.now_ms }, out);
        }
    }

    fn members(&self, group: Group) -> Vec<(SmId, BareJid)> {
        let of = |s: &crate::state::JsmSession| self.state.user(&s.user).is_some_and(|u| u.register == group);
        self.state.sessions().filter(|(_, s)| of(s)).map(|(id, s)| (id, s.user.clone())).collect()
    }

    /// Whether a hand-over of this user would find every dual client's second stream at the other node (D4).
    pub fn ready_to_move(&self, user: &BareJid) -> bool {
        let Some(u) = self.state.user(user) else { return true };
        u.sessions.values().all(|id| {
            let here = self.edge.conn_of(*id).is_some_and(|conn| conn.node == self.cfg.me);
            let dual = self.state.session(*id).is_some_and(|s| s.dual) && here;
            !dual || self.edge.is_peer_parked(*id)
        })
    }

    /// Hands a user over. Final once appended: dual clients are told to move and their stream becomes the parked one;
    /// of another client's stream this node becomes the front. One that leaves closes it without `</stream:stream>`,
    /// and the client resumes at the other node (D4).
    pub(super) fn hand_over(&mut self, user: &BareJid, out: &mut Vec<Output>) {
        let Some(u) = self.state.user(user) else { return };
        let to = self.cfg.me.peer();
        let receiver_leads = self.state.lead(to).is_some_and(|reg| reg.primary == to);
        if !self.serves(user) || !receiver_leads || u.register == to {
            return;
        }
        let before = self.state.epoch(u);
        // The receiver's register may carry a higher term than ours; an epoch never goes back.
        let term = before.term.max(self.state.lead(to).map_or(0, |reg| reg.term.0));
        let epoch = Epoch { term, moves: before.moves + 1 };
        let sessions: Vec<SmId> = u.sessions.values().copied().collect();
        let counters = sessions
            .iter()
            .filter_map(|id| self.state.session(*id).map(|s| (*id, s.inbound, s.sent())))
            .collect();
        let applied_peer = self.turn.applied_peer;
        self.emit(Record::HandOver { user: user.clone(), to, epoch, applied_peer, counters }, out);
        for session in sessions {
            self.release_stream(session, epoch, out);
        }
        self.forget_remote(user);
    }

    /// Streams at the other node that wait for this one, when the link is gone: if that node lives it opens them anew, under other
    /// names. Heard later, what they asked for would take the session away from where its client has gone meanwhile.
    pub(super) fn forget_held_of_peer(&mut self) {
        for conn in self.edge.holding() {
            if conn.node != self.cfg.me {
                self.edge.remove(conn);
            }
        }
    }

    /// Streams at the other node that wait for this one, where the user goes to the other node or comes from it: it goes on
    /// with them by itself, and opens them anew when it gives the user away. What they bring is of before.
    pub(super) fn forget_remote(&mut self, user: &BareJid) {
        for conn in self.edge.holding() {
            if conn.node != self.cfg.me && self.edge.user(conn) == Some(user) {
                self.edge.remove(conn);
            }
        }
    }

    fn release_stream(&mut self, session: SmId, epoch: Epoch, out: &mut Vec<Output>) {
        let Some(conn) = self.edge.conn_of(session) else { return };
        if conn.node != self.cfg.me {
            // The receiver has its socket, and goes on with it by itself.
            self.edge.remove(conn);
            return;
        }
        let Some(s) = self.state.session(session) else { return };
        if s.dual {
            self.left_behind.push((self.turn.at.seq, conn, session));
        }
        if s.dual && self.edge.is_peer_parked(session) {
            let to = self.cfg.peer.as_ref().map(|p| p.node.clone()).unwrap_or_default();
            out.push(Output::Deliver(conn, Dual::Moving { epoch, to }.to_bytes()));
            self.edge.set_phase(conn, Phase::Parked { session, was_main: true });
            out.push(Output::Parked(session, true));
            return;
        }
        if s.enabled_at.is_some() && !self.leaving {
            let carried = Carried::of(session, s);
            self.begin_front(conn, Some(carried));
            self.pump_front(conn, out);
        } else {
            self.edge.remove(conn);
            out.push(Output::Close(conn, Bytes::new(), false));
        }
    }

    /// All users of a register that is to be given back move into our own; both are led here.
    pub(super) fn absorb(&mut self, from: Group, out: &mut Vec<Output>) {
        let into = from.peer();
        let led = |g: Group| self.state.lead(g).is_some_and(|reg| reg.primary == self.cfg.me);
        if !led(from) || !led(into) || into != self.cfg.me || !self.serving.iter().all(|on| *on) {
            return;
        }
        let moved = self.members(from);
        self.emit(Record::Absorb { from, into }, out);
        for (session, _) in moved {
            self.offer(session, out);
        }
    }
}
