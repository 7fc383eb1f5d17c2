//! Stream management on a bound stream, and resumption on any stream of either node (XEP-0198 3 to 5, D2, D13).

use compact_str::CompactString;
use xmpp_core::dual::{Dual, Told};
use xmpp_core::error::{StanzaCondition, StreamCondition, StreamError};
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::sm::{Handled, Sm};
use xmpp_core::stanza::Stanza;

use super::edge::{Held, Item, Phase};
use super::login::Whose;
use super::{Engine, Output};
use crate::ids::{Conn, Epoch, Mode, NodeIx, Reg, SmId, Term};
use crate::record::Record;
use crate::state::{Branch, Entry, JsmSession, ResumeError, User};

/// How long a `<resume/>` on a parked stream waits for the session to come before `<wait/>` voids it, in milliseconds.
const HELD_RESUME_MS: u64 = 2_000;
/// How long a login waits for a takeover or a start to be decided, in milliseconds. Above the keep-alive time-out.
pub(super) const HELD_LOGIN_MS: u64 = 150_000;
/// How long `<lost/>` waits for evidence of the owner's death before the owner is said to live, in milliseconds.
const LOST_MS: u64 = 500;

/// The stream that a session was resumed by.
#[derive(Clone, Debug)]
pub(super) struct Resumer {
    /// Which of the session's streams it became.
    stream: u32,
    /// Where its socket is.
    node: NodeIx,
    /// The same under each name that its front gives it.
    entropy: [u8; 16],
    /// There may have been another branch of the session.
    unheard: Option<Unheard>,
}

/// The client may never have read the grant: an attempt that it had given up, late from its old connection. Then it may live on the
/// other branch yet, and name what it was told there.
#[derive(Clone, Debug)]
struct Unheard {
    branch: Branch,
    /// The term that the grant told.
    from: u64,
}

impl Engine {
    pub(super) fn bound_sm(&mut self, conn: Conn, session: SmId, sm: Sm, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        match sm {
            Sm::Request => out.push(Output::Deliver(conn, Sm::Answer { h: s.h() }.to_bytes())),
            Sm::Answer { h } => match s.check(h.0) {
                Ok(()) => {
                    self.edge.answered(conn);
                    if h.0 != s.acked || !s.early.is_empty() {
                        self.emit(Record::Trim { session, h: h.0 }, out);
                        self.flush_more(session, out);
                    }
                }
                Err(ResumeError::TooHigh(sent)) => {
                    self.fail(conn, StreamError::handled_count_too_high(h.0, sent), out);
                }
                Err(ResumeError::TooLow) => {
                    let error = StreamError::new(StreamCondition::UndefinedCondition);
                    self.fail(conn, error.with_text("h went backwards"), out);
                }
            },
            Sm::Enable { .. } if s.enabled_at.is_some() => {
                let failed = Sm::Failed { condition: StanzaCondition::UnexpectedRequest, h: None };
                out.push(Output::Deliver(conn, failed.to_bytes()));
            }
            Sm::Enable { resume, max_s } => {
                let max_ms =
                    max_s.map_or(self.cfg.resume_ms, |s| (u64::from(s) * 1_000).min(self.cfg.resume_ms));
                let resume_ms = if resume { max_ms.max(1_000) } else { 0 };
                self.drop_early(session, out);
                self.emit(Record::Enable { session, resume_ms }, out);
                self.enabled(conn, session, out);
            }
            _ => {
                let failed = Sm::Failed { condition: StanzaCondition::UnexpectedRequest, h: None };
                out.push(Output::Deliver(conn, failed.to_bytes()));
            }
        }
    }

    pub(super) fn enabled(&mut self, conn: Conn, session: SmId, out: &mut Vec<Output>) {
        let resume_ms = self.state.session(session).map_or(0, |s| s.resume_ms);
        let resume = resume_ms > 0;
        let id = resume.then(|| CompactString::from(session.to_string()));
        let enabled = Sm::Enabled { id, max_s: resume.then_some((resume_ms / 1_000) as u32), location: None };
        self.tell_attached(conn, session, out);
        out.push(Output::Deliver(conn, enabled.to_bytes()));
        // Its first count says that it has what came before.
        if self.state.session(session).is_some_and(|s| !s.early.is_empty()) {
            self.edge.delivered(conn, &self.state);
        }
    }

    /// `<resume/>` on a fresh or parked stream; `false`: it must wait until it is known who owns the session.
    pub(super) fn resume(
        &mut self,
        conn: Conn,
        previd: &str,
        h: Handled,
        told: Option<Told>,
        item: &Item,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(user) = self.edge.user(conn).cloned() else { return true };
        if !matches!(self.whose(&user), Whose::Mine) {
            // On a parked stream the session is usually on its way here: the hand-over arrives through the log.
            return false;
        }
        if told.is_some_and(|told| !self.has_heard_of(&user, told)) {
            return self.is_cut_off(conn, &user) && self.refuse_resume(conn, out);
        }
        // One answer for an unknown session and for another's: no oracle.
        let found = SmId::parse(previd).filter(|id| {
            let s = self.state.session(*id).filter(|s| s.user == user && s.resumable());
            s.is_some_and(|s| self.is_of_our_branch(*id, s, told))
        });
        let Some(id) = found else { return self.refuse_resume(conn, out) };
        let attempt = told.and_then(|told| told.attempt);
        if attempt.is_none() && self.is_overtaken(conn, id, item) {
            self.turn_away(conn, out);
            return true;
        }
        if attempt.is_some_and(|attempt| self.is_late(id, attempt)) {
            // Its client has given it up: the numbers of a stream that it reads would change under it.
            if self.edge.parked_of(id) == Some(conn) {
                out.push(Output::Parked(id, false));
            }
            self.edge.remove(conn);
            out.push(Output::Close(conn, StreamError::new(StreamCondition::Conflict).to_bytes(), true));
            return true;
        }
        let s = self.state.session(id).expect("found above");
        match s.check(h.0) {
            Ok(()) => self.resumed(conn, id, h, told, out),
            Err(ResumeError::TooLow) => _ = self.refuse_resume(conn, out),
            Err(ResumeError::TooHigh(sent)) => {
                self.fail(conn, StreamError::handled_count_too_high(h.0, sent), out);
            }
        }
        true
    }

    /// D6: whoever was last told an epoch of our branch was promised nothing that we lack.
    fn is_of_our_branch(&self, id: SmId, s: &JsmSession, told: Option<Told>) -> bool {
        let moved = self.state.user(&s.user).map(|u| u.moved);
        let last = |told: Told| told.moved.filter(|last| Some(*last) == moved).unwrap_or(told.epoch);
        let doubts = s.uncertain.iter().chain(self.unheard(id, s, told).map(|unheard| &unheard.branch));
        doubts.into_iter().all(|branch| told.is_some_and(|told| branch.has(last(told))))
    }

    /// What the last grant left in doubt, unless the client names what that told.
    fn unheard(&self, id: SmId, s: &JsmSession, told: Option<Told>) -> Option<&Unheard> {
        let last = self.resumers.get(&id).filter(|last| last.stream == s.streams)?;
        let heard = |unheard: &&Unheard| told.is_some_and(|told| told.epoch.term >= unheard.from);
        last.unheard.as_ref().filter(|unheard| !heard(unheard))
    }

    /// An element as it comes from a socket of this node. A `<resume/>` is marked with what this node knows by then: of a session
    /// that it has not heard of, no grant.
    pub(super) fn item(&self, stanza: Stanza) -> Item {
        let previd = if stanza.head.is(ns::SM, "resume") { stanza.attr("previd") } else { None };
        let known = |id: SmId| self.state.session(id).map_or(0, |s| s.streams);
        Item { number: previd.and_then(|id| SmId::parse(&id)).map(known), ..Item::new(stanza) }
    }

    /// Whether the client may have made a later attempt at this session: one was granted of which the front of this one did not
    /// know when this one came. In Pair a grant is in both logs before its client hears of it, so what that says next comes to a
    /// front that knows. In doubt this one is not granted, where somebody has the session or was given numbers that would
    /// change: a client that does wait for it comes again, to a front that knows by then.
    fn is_overtaken(&self, conn: Conn, id: SmId, item: &Item) -> bool {
        let relayed = conn.node != self.cfg.me || item.again;
        let newer = |streams: u32| relayed && item.number.is_some_and(|known| known != streams);
        let Some(s) = self.state.session(id).filter(|s| newer(s.streams)) else { return false };
        let last = self.resumers.get(&id).filter(|last| last.stream == s.streams);
        // What comes from one node is in order, but for what is said again; and this may be what was granted, unheard.
        let in_order = last.is_some_and(|last| last.node == conn.node && !item.again);
        let itself = last.is_some_and(|last| last.entropy == self.edge.entropy(conn));
        let gaps = s.out.len() != s.out_stanzas as usize;
        !in_order && !itself && (gaps || self.edge.conn_of(id).is_some())
    }

    /// Forgets sessions that have ended, if they may be as many as those that go on.
    fn forget_attempts(&mut self) {
        let state = &self.state;
        if self.attempts.len().max(self.resumers.len()) > 2 * state.session_count() + 16 {
            self.attempts.retain(|id, _| state.session(*id).is_some());
            self.resumers.retain(|id, _| state.session(*id).is_some());
        }
    }

    /// Whether the client has made a later attempt at this session, which was heard before this one.
    fn is_late(&mut self, id: SmId, attempt: u32) -> bool {
        self.forget_attempts();
        let last = self.attempts.entry(id).or_insert(attempt);
        let late = attempt < *last;
        *last = attempt.max(*last);
        late
    }

    /// Whether this node knows of all that a client was told. The highest epoch may be its own, the user's, or one of the
    /// group that the user came from, announced to a stream that had left it; or the hand-over that the client heard of
    /// last is here, and with it all that came before.
    fn has_heard_of(&self, user: &BareJid, told: Told) -> bool {
        let Some(u) = self.state.user(user) else { return true };
        let (epoch, me) = (told.epoch, self.cfg.me);
        let heard = |reg: Reg| reg.settled.0 >= epoch.term || reg.primary != me && reg.term.0 >= epoch.term;
        // Its last word was the hand-over that is here: whatever it was told before, nothing came after it.
        if told.moved == Some(u.moved) || self.left_with(u, epoch) {
            return true;
        }
        if self.state.is_beside(u, epoch) && Term(epoch.term).issuer() != me {
            return false;
        }
        // Not of what is announced and not written yet: it may lie above what the other node has told, too.
        epoch <= self.state.epoch(u)
            || Term(epoch.term).issuer() == me
            || self.state.lead(u.register.peer()).is_some_and(heard)
    }

    /// Whether the epoch was announced by who gave the user to this node, to a stream that had left with that.
    fn left_with(&self, u: &User, epoch: Epoch) -> bool {
        let by_giver = Term(epoch.term).issuer() == u.register.peer() && u.register == self.cfg.me;
        by_giver && epoch > u.moved && epoch.moves > 0 && epoch.moves == u.moved.moves
    }

    /// The client was told an epoch by the other node that this one has not heard of (D6): its `h` may count what is not
    /// here, so it waits for the log, or for the end of the conflict. A node that leads alone without a link can learn of
    /// neither; the client then binds anew.
    fn is_cut_off(&self, conn: Conn, user: &BareJid) -> bool {
        let waited = self.edge.is_holding(conn)
            && self.turn.now_ms.saturating_sub(self.edge.held_since(conn)) > HELD_RESUME_MS;
        let register = self.state.user(user).and_then(|u| self.state.lead(u.register));
        waited && !self.peer_up && register.is_some_and(|reg| reg.mode == Mode::Solo)
    }

    fn refuse_resume(&mut self, conn: Conn, out: &mut Vec<Output>) -> bool {
        let failed = Sm::Failed { condition: StanzaCondition::ItemNotFound, h: None };
        out.push(Output::Deliver(conn, failed.to_bytes()));
        match self.edge.phase(conn) {
            Some(Phase::Parked { session, was_main }) => {
                out.push(Output::Parked(session, false));
                if was_main {
                    // Its entropy named a session once; a new one needs a new stream.
                    return self.fail(conn, StreamError::new(StreamCondition::Reset), out);
                }
                // A parked stream whose session is gone may bind a new one.
                self.edge.set_phase(conn, Phase::Fresh);
            }
            _ => self.edge.set_phase(conn, Phase::Fresh),
        }
        true
    }

    /// The record of the resumption comes before the first resend (D2).
    fn resumed(&mut self, conn: Conn, session: SmId, h: Handled, told: Option<Told>, out: &mut Vec<Output>) {
        let conflict = || StreamError::new(StreamCondition::Conflict).to_bytes();
        // Of the stream that is parked here, too, which may be about to end.
        let used = self.edge.token(conn).map_or(0, |token| token.number).max(self.last_token(session));
        for old in [self.edge.conn_of(session), self.edge.parked_of(session)].into_iter().flatten() {
            if old != conn {
                self.edge.remove(old);
                out.push(Output::Close(old, conflict(), true));
            }
        }
        if self.edge.parked_of(session) == Some(conn) {
            out.push(Output::Parked(session, false));
        }
        self.token_used(session, used, out);
        self.granted += 1;
        let unheard = self.state.session(session).and_then(|s| {
            let earlier = self.unheard(session, s, told).map(|unheard| unheard.branch.clone());
            let branch = Branch::of_both(s.uncertain.clone(), earlier)?;
            Some(Unheard { branch, from: self.epoch_to_tell(self.state.user(&s.user)?).term })
        });
        self.emit(Record::Resumed { session, h: h.0 }, out);
        self.forget_attempts();
        let stream = self.state.session(session).map_or(0, |s| s.streams);
        let entropy = self.edge.entropy(conn);
        self.resumers.insert(session, Resumer { stream, node: conn.node, entropy, unheard });
        self.edge.set_phase(conn, Phase::Bound(session));
        self.tell_attached(conn, session, out);
        // The epoch first: should the client lose this stream, what it was told says which branch its count is of (D6).
        self.offer(session, out);
        let Some(s) = self.state.session(session) else { return };
        let previd = CompactString::from(session.to_string());
        out.push(Output::Deliver(conn, Sm::Resumed { previd, h: s.h() }.to_bytes()));
        self.deliver_after(conn, session, s.acked, out);
        self.flush_more(session, out);
    }

    /// What a stream that goes on has not seen yet, numbered after `written`.
    pub(super) fn deliver_after(&mut self, conn: Conn, session: SmId, written: u32, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        let before = out.len();
        for entry in s.after(written) {
            match entry {
                Entry::Stanza { stanza, .. } => out.push(Output::Deliver(conn, stanza.clone())),
                Entry::Gap { about: Some(about) } => {
                    out.push(Output::Deliver(conn, self.current_presence(s, about)));
                }
                Entry::Gap { about: None } => debug_assert!(false, "a stream that goes on has none of these"),
            }
        }
        if out.len() > before {
            self.edge.delivered(conn, &self.state);
        }
    }

    /// Tries again what waited for a decision.
    pub(super) fn retry(&mut self, out: &mut Vec<Output>) {
        for conn in self.edge.lost_before(u64::MAX) {
            let user = self.edge.user(conn).cloned();
            if let Some(user) = user.filter(|u| self.serves(u)) {
                self.take(conn, &user, out);
            }
        }
        for conn in self.edge.holding() {
            self.retry_one(conn, out);
        }
    }

    pub(super) fn retry_one(&mut self, conn: Conn, out: &mut Vec<Output>) {
        while let Some(held) = self.edge.first_held(conn) {
            match held {
                Held::Attach(attach) => {
                    if !self.try_attach(conn, attach, out) {
                        return;
                    }
                    self.edge.pop_held(conn);
                }
                Held::Element(item) => {
                    if self.wants_front(conn, &item.stanza) {
                        self.begin_front(conn, None);
                        return self.pump_front(conn, out);
                    }
                    if !self.try_element(conn, &item, out) {
                        return;
                    }
                    self.edge.pop_held(conn);
                    out.push(Output::Credit(conn));
                }
            }
        }
    }

    /// Answers what has waited too long.
    pub(super) fn answer_held(&mut self, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        for conn in self.edge.lost_before(now.saturating_sub(LOST_MS)) {
            let decided =
                self.edge.user(conn).is_some_and(|u| matches!(self.whose(&u.clone()), Whose::Peers));
            if decided {
                self.edge.set_lost(conn, None);
                if self.edge.is_holding(conn) && matches!(self.edge.phase(conn), Some(Phase::Parked { .. })) {
                    // It voids a resume that waits, as <wait/> does: the client looks for its session elsewhere.
                    self.edge.pop_held(conn);
                    out.push(Output::Credit(conn));
                }
                out.push(Output::Deliver(conn, Dual::Stay.to_bytes()));
            }
        }
        for conn in self.edge.holding() {
            let waited = now.saturating_sub(self.edge.held_since(conn));
            if waited > HELD_RESUME_MS {
                self.retry_one(conn, out);
            }
            if !self.edge.is_holding(conn) {
                continue;
            }
            match self.edge.phase(conn) {
                Some(Phase::Parked { .. }) if waited > HELD_RESUME_MS => {
                    self.edge.pop_held(conn);
                    out.push(Output::Credit(conn));
                    self.edge.set_lost(conn, Some(now));
                    out.push(Output::Deliver(conn, Dual::Wait { ms: HELD_RESUME_MS }.to_bytes()));
                }
                Some(Phase::Fresh) if waited > HELD_LOGIN_MS => {
                    let error = StreamError::new(StreamCondition::ResourceConstraint);
                    self.fail(
                        conn,
                        error.with_text("no node may serve this account yet; try again later"),
                        out,
                    );
                }
                _ => {}
            }
        }
    }
}
