//! The owner's side of a front (D5): connections whose socket the other node has. They are used as if they were here; what
//! differs is how they come, how they come back after a break, and how they are given up.

use bytes::Bytes;
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};

use super::edge::{Held, Item, Phase};
use super::login::Whose;
use super::token::Opened;
use super::{Engine, Output};
use crate::front::{Attach, Fronted, Relay};
use crate::ids::{Conn, SmId};
use crate::record::Record;
use crate::state::JsmSession;

/// How long connections of a front that is not heard are kept, in milliseconds. Longer than a link takes to be dialled
/// again; whoever comes back later attaches anew.
const FRONT_GONE_MS: u64 = 5_000;

impl Engine {
    /// What the peer says as the front of its clients.
    pub(super) fn relay(&mut self, relay: Relay, out: &mut Vec<Output>) {
        match relay {
            Relay::List(true) => self.edge.doubt_remote(self.cfg.me.peer()),
            Relay::List(false) => {
                for conn in self.edge.doubtful() {
                    // What waits for it is let go under a name that its front has forgotten.
                    self.client_gone(conn);
                    self.closed(conn, false, out);
                }
            }
            Relay::Open { conn, user, salt, entropy, attach, token } => {
                self.opened(conn, Opened { user, salt, entropy, token }, out);
                if let Some(attach) = attach {
                    self.attach_when_served(conn, attach, out);
                }
            }
            Relay::Element { conn, seq, number, again, stanza } => {
                if !self.edge.follows(conn, seq) {
                    // Unknown here, or something is missing: the front must not believe that it is attached.
                    return self.turn_away(conn, out);
                }
                match Stanza::from_bytes(stanza) {
                    Ok(stanza) => self.element(conn, Item { stanza, number, again }, out),
                    Err(error) => _ = self.fail(conn, error, out),
                }
            }
            Relay::Closed { conn, clean } => {
                self.client_gone(conn);
                self.closed(conn, clean, out);
            }
        }
    }

    /// Ends a connection without a word: its client, if it is there, comes again.
    pub(super) fn turn_away(&mut self, conn: Conn, out: &mut Vec<Output>) {
        self.closed(conn, false, out);
        out.push(Output::Close(conn, Bytes::new(), false));
    }

    fn attach_when_served(&mut self, conn: Conn, attach: Attach, out: &mut Vec<Output>) {
        if !self.try_attach(conn, attach, out) {
            self.edge.hold(conn, Held::Attach(attach), self.turn.now_ms);
        }
    }

    /// `false`: it must wait until it is known who owns the user.
    pub(super) fn try_attach(&mut self, conn: Conn, attach: Attach, out: &mut Vec<Output>) -> bool {
        let Some(user) = self.edge.user(conn).cloned() else { return true };
        if !matches!(self.whose(&user), Whose::Mine) {
            return false;
        }
        if !self.attach(conn, attach, out) {
            let error = StreamError::new(StreamCondition::Reset);
            self.fail(conn, error.with_text("the stream cannot go on: resume the session"), out);
        }
        true
    }

    /// Makes a connection the main stream of the session that it carries, from what its client was given on.
    pub(super) fn attach(&mut self, conn: Conn, attach: Attach, out: &mut Vec<Output>) -> bool {
        let Attach { session, stream, written } = attach;
        let user = self.edge.user(conn);
        let s = self.state.session(session).filter(|s| Some(&s.user) == user && s.enabled_at.is_some());
        // Another stream of the session is younger, or may be (D6): this one's client is there.
        let same = |s: &JsmSession| s.streams == stream && s.uncertain.is_none();
        // What a front says from before its node had the session, and it was handed back since, may be late: its stream has
        // got more by then, under numbers that must not change.
        let late = |(of, sent): &(u32, u32)| *of == stream && written.wrapping_sub(*sent) > u32::MAX / 2;
        let late = conn.node != self.cfg.me && self.given.get(&session).is_some_and(late);
        if late || !s.is_some_and(|s| same(s) && s.check(written).is_ok()) {
            return false;
        }
        if let Some(old) = self.edge.conn_of(session).filter(|old| *old != conn) {
            // The same stream under its old name.
            self.edge.remove(old);
        }
        self.emit(Record::Reattached { session, written }, out);
        self.edge.set_phase(conn, Phase::Bound(session));
        self.offer(session, out);
        self.deliver_after(conn, session, written, out);
        self.flush_more(session, out);
        true
    }

    /// Tells the front what the connection carries now: before the client hears it.
    pub(super) fn tell_attached(&self, conn: Conn, session: SmId, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session).filter(|_| conn.node != self.cfg.me) else { return };
        out.push(Output::Tell(Fronted::Attached {
            conn,
            session,
            stream: s.streams,
            inbound: s.inbound,
            written: s.enabled_at.map(|_| s.acked),
        }));
    }

    /// Whether an element of a bound stream was dealt with before, under another name of its connection or by another
    /// owner; `None`: what lies between is missing.
    pub(super) fn was_handled(
        &mut self,
        conn: Conn,
        session: SmId,
        item: &Item,
        sm: Option<&Sm>,
        out: &mut Vec<Output>,
    ) -> Option<bool> {
        let Some(s) = self.state.session(session) else { return Some(false) };
        if let Some(number) = item.number.filter(|_| item.stanza.head.kind != Kind::Other) {
            return match number.wrapping_sub(s.inbound) {
                1 => Some(false),
                0 => Some(true),
                ahead if ahead < 1 << 31 => None,
                _ => Some(true),
            };
        }
        match sm.filter(|_| item.again) {
            Some(Sm::Answer { h }) => Some(s.check(h.0) == Err(crate::state::ResumeError::TooLow)),
            Some(Sm::Enable { .. }) if s.enabled_at.is_some() => {
                // Its client was not told, and was given nothing since.
                let written = s.acked;
                self.emit(Record::Reattached { session, written }, out);
                self.enabled(conn, session, out);
                self.deliver_after(conn, session, written, out);
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// Connections of a front that has not been heard for long are gone.
    pub(super) fn sweep_remote(&mut self, out: &mut Vec<Output>) {
        let silent = self.peer_lost_ms.is_some_and(|at| self.turn.now_ms.saturating_sub(at) > FRONT_GONE_MS);
        if silent {
            self.peer_lost_ms = None;
            for conn in self.edge.remote(self.cfg.me.peer()) {
                self.client_gone(conn);
                self.turn_away(conn, out);
            }
        }
    }
}
