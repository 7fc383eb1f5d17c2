//! What a client may say first on an authenticated stream: bind, resume, or park.

use bytes::Bytes;
use xmpp_core::dual::{Dual, Failure};
use xmpp_core::error::{StanzaCondition, StanzaError, StreamCondition, StreamError};
use xmpp_core::jid::{BareJid, FullJid};
use xmpp_core::ns;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};
use xmpp_core::xml::Writer;

use super::edge::{Item, Phase};
use super::group::not_assigned;
use super::route::Route;
use super::{Engine, Output};
use crate::ids::{Conn, SmId};
use crate::record::Record;
use crate::state::{Entry, JsmSession};

/// Whose job a login is.
pub(super) enum Whose {
    /// This node serves the user.
    Mine,
    /// The other node serves the user and answers.
    Peers,
    /// A takeover or a start is not decided: the client waits (D13).
    Undecided,
}

impl Engine {
    pub(super) fn whose(&self, user: &BareJid) -> Whose {
        if self.serves(user) {
            Whose::Mine
        } else if self.peer_up && self.state.owner_of(user) != Some(self.cfg.me) {
            Whose::Peers
        } else {
            Whose::Undecided
        }
    }

    pub(super) fn login(
        &mut self,
        conn: Conn,
        item: &Item,
        sm: Option<Sm>,
        dual: Option<Dual>,
        out: &mut Vec<Output>,
    ) -> bool {
        let stanza = &item.stanza;
        if self.edge.user(conn).is_some_and(|user| self.state.user(user).is_none()) {
            let error = StreamError::new(StreamCondition::NotAuthorized);
            return self.fail(conn, error.with_text("the account was removed"), out);
        }
        if self.edge.user(conn).and_then(|user| self.state.user(user)).is_some_and(|u| !u.assigned) {
            return self.fail(conn, not_assigned(), out);
        }
        if !self.token_allows(conn, sm.as_ref(), dual.as_ref(), out) {
            return true;
        }
        if let Some(Sm::Resume { previd, h, told }) = sm {
            return self.resume(conn, &previd, h, told, item, out);
        }
        if let Some(Dual::Standby { sm_id }) = dual {
            if conn.node != self.cfg.me {
                let error = StreamError::new(StreamCondition::NotAuthorized);
                return self.fail(conn, error.with_text("this stream was to bind or resume"), out);
            }
            if !self.state.group().ha {
                out.push(Output::Deliver(conn, Dual::Failed(Failure::HaDisabled).to_bytes()));
                return true;
            }
            return self.park(conn, &sm_id, out);
        }
        let binds = stanza.head.kind == Kind::Iq && stanza.head.has_child(ns::BIND, "bind");
        if !binds || stanza.head.type_.as_deref() != Some("set") {
            let error = StreamError::new(StreamCondition::NotAuthorized);
            return self.fail(conn, error.with_text("bind a resource, resume or park first"), out);
        }
        let Some(user) = self.edge.user(conn).cloned() else { return true };
        match self.whose(&user) {
            Whose::Mine => self.bind(conn, user, stanza, out),
            // Of a front: the user is on the way here, or back to the front, which then goes on by itself.
            Whose::Peers | Whose::Undecided => false,
        }
    }

    /// Resource binding (RFC 6120 7). A resource that is in use is taken over from its old session.
    fn bind(&mut self, conn: Conn, user: BareJid, stanza: &Stanza, out: &mut Vec<Output>) -> bool {
        let session = SmId(self.edge.entropy(conn));
        if let Some(s) = self.state.session(session).filter(|s| s.user == user) {
            // This connection bound it under another name, and nobody could tell the client (D5).
            if let Ok(full) = user.with_resource(&s.resource) {
                if s.detached_ms.is_some() {
                    // Who leads it now held it to be without a stream.
                    let written = s.acked;
                    self.emit(Record::Reattached { session, written }, out);
                }
                if let Some(old) = self.edge.conn_of(session).filter(|old| *old != conn) {
                    self.edge.remove(old);
                }
                self.is_bound(conn, session, stanza, &full, out);
                self.deliver_early(conn, session, out);
                // What came while it had no stream was stored.
                self.flush_more(session, out);
            }
            return true;
        }
        let asked = stanza
            .child(ns::BIND, "bind")
            .and_then(|b| b.child(ns::BIND, "resource").map(|r| r.text.clone()))
            .filter(|r| !r.is_empty());
        let resource = asked.unwrap_or_else(|| session.to_string()[..12].to_owned());
        let Ok(full) = user.with_resource(&resource) else {
            let error = StanzaError::new(StanzaCondition::BadRequest).with_text("this is no resource");
            out.extend(error.reply(stanza).map(|bytes| Output::Deliver(conn, bytes)));
            return true;
        };
        let old = self.state.user(&user).and_then(|u| u.sessions.get(full.resource_str()).copied());
        let mut route = Route::default();
        if let Some(old) = old {
            self.close_streams(old, out);
            self.give_back_early(old, out);
            if let Some(old) = self.state.session(old) {
                self.return_requests(old, &mut route);
            }
        } else if self.state.user(&user).is_some_and(|u| u.sessions.len() >= self.cfg.limits.resources) {
            let error = StanzaError::new(StanzaCondition::ResourceConstraint);
            let error = error.with_text("too many resources of this account are in use; end one first");
            out.extend(error.reply(stanza).map(|bytes| Output::Deliver(conn, bytes)));
            return true;
        }
        // What a session that makes way has in its queue is stored with the time of this record.
        let waits =
            |s: &JsmSession| s.out.iter().any(|entry| matches!(entry, Entry::Stanza { keep: true, .. }));
        let stores = old.and_then(|old| self.state.session(old)).is_some_and(waits);
        let at_ms = if stores { self.stored_at(&user) } else { self.turn.now_ms };
        let resource = full.resource_str().into();
        self.granted += 1;
        self.emit(Record::Bind { session, user: user.clone(), resource, at_ms, effects: route.effects }, out);
        self.flush_others(&user, out);
        self.is_bound(conn, session, stanza, &full, out);
        true
    }

    fn is_bound(
        &mut self,
        conn: Conn,
        session: SmId,
        stanza: &Stanza,
        full: &FullJid,
        out: &mut Vec<Output>,
    ) {
        self.edge.set_phase(conn, Phase::Bound(session));
        self.tell_attached(conn, session, out);
        out.push(Output::Deliver(conn, bind_result(stanza, full)));
    }

    /// The resource of a session was bound anew: its streams end with `conflict`, and the session with the binding.
    fn close_streams(&mut self, old: SmId, out: &mut Vec<Output>) {
        if let Some(conn) = self.edge.conn_of(old) {
            self.edge.remove(conn);
            out.push(Output::Close(conn, StreamError::new(StreamCondition::Conflict).to_bytes(), true));
        }
        if let Some(conn) = self.edge.parked_of(old) {
            self.edge.remove(conn);
            out.push(Output::Close(conn, StreamError::new(StreamCondition::Conflict).to_bytes(), true));
        }
    }

    /// Parks a stream for a session of the same account, wherever the session is served.
    fn park(&mut self, conn: Conn, sm_id: &str, out: &mut Vec<Output>) -> bool {
        let user = self.edge.user(conn);
        let session = SmId::parse(sm_id)
            .and_then(|id| self.state.session(id).map(|s| (id, s)))
            .filter(|(_, s)| Some(&s.user) == user && s.resumable());
        let Some((id, s)) = session else {
            let failed = Dual::Failed(Failure::Other(StanzaCondition::ItemNotFound));
            out.push(Output::Deliver(conn, failed.to_bytes()));
            return true;
        };
        if !self.edge.may_park(id, self.cfg.limits.parks_per_minute, self.turn.now_ms) {
            let failed = Dual::Failed(Failure::Other(StanzaCondition::ResourceConstraint));
            out.push(Output::Deliver(conn, failed.to_bytes()));
            return true;
        }
        let epoch = self.state.user(&s.user).map_or_else(Default::default, |u| self.state.epoch(u));
        let mine = self.serves(&s.user.clone());
        if let Some(old) = self.edge.parked_of(id) {
            self.edge.remove(old);
            out.push(Output::Close(old, StreamError::new(StreamCondition::Conflict).to_bytes(), true));
        }
        self.edge.set_phase(conn, Phase::Parked { session: id, was_main: false });
        let used = self.edge.token(conn).map_or(0, |token| token.number);
        self.token_used(id, used, out);
        let token = self.next_token(id);
        out.push(Output::Deliver(conn, Dual::Parked { epoch, token }.to_bytes()));
        out.push(Output::Parked(id, true));
        // One that has its main stream at the other node comes home: here it needs no front, and its other stream, which it parks
        // there next, can show each node that the other lives.
        let main = self.edge.conn_of(id);
        let stays = !self.leaving && self.state.away(self.cfg.me).is_none();
        let comes_home = main.is_some_and(|main| main.node != self.cfg.me) && stays;
        if mine && (main.is_none() || comes_home) {
            out.push(Output::Deliver(conn, Dual::Take { epoch }.to_bytes()));
        }
        true
    }
}

fn bind_result(stanza: &Stanza, jid: &FullJid) -> Bytes {
    let mut w = Writer::new();
    w.open("iq", ns::CLIENT).attr("type", "result").attr_opt("id", stanza.head.id.as_deref());
    w.open("bind", ns::BIND).open("jid", "").text(jid);
    w.finish()
}
