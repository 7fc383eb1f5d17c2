//! The front: this node has the socket, the other node has the session (D5). It relays what its client says, in order and
//! unlogged, keeps it until the owner's credit comes back, and writes what the owner lets go. When this node comes to
//! own the session, it goes on where the owner stopped, and its client notices nothing.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use xmpp_core::dual::{Dual, Epoch, Told};
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;
use xmpp_core::ns;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::{Kind, Stanza};

use super::edge::{Held, Item, Phase};
use super::login::Whose;
use super::resume::HELD_LOGIN_MS;
use super::{Engine, Output};
use crate::front::{Attach, Fronted, Relay};
use crate::ids::{Conn, NodeIx, SmId};
use crate::state::JsmSession;

/// Bytes of one client that are relayed and not credited. One element more may be on its way.
const WINDOW_BYTES: usize = 512 << 10;
/// How long a stream that carries a session waits for an owner before it is closed, so that its client looks for the
/// session elsewhere, in milliseconds. Above the time in which dead evidence comes, below the usual client's patience.
const HELD_FRONT_MS: u64 = 20_000;

/// What a front knows of the session on a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) session: SmId,
    pub(super) stream: u32,
    /// Number of the client's next stanza.
    pub(super) next: u32,
    /// Number of the last stanza written to the client; `None`: stream management is off.
    pub(super) written: Option<u32>,
}

impl Carried {
    /// A session whose stream this node serves until now, with everything that it has put out for it.
    pub(super) fn of(session: SmId, s: &JsmSession) -> Carried {
        let written = s.enabled_at.map(|_| s.sent());
        Carried { session, stream: s.streams, next: s.inbound.wrapping_add(1), written }
    }
}

/// One connection as its front sees it.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// Its name at the owner; `None` while there is none.
    pub(super) name: Option<Conn>,
    /// What the owner has not dealt with.
    pub(super) kept: VecDeque<Item>,
    /// How many of them are relayed under the present name, and their bytes.
    relayed: usize,
    relayed_bytes: usize,
    seq: u64,
    pub(super) carried: Option<Carried>,
    /// What the oldest element brings, once its client hears of it.
    brings: Option<Carried>,
    /// The client has the answer to the oldest element, whose credit is on its way.
    answered: bool,
    /// Since when there is no owner.
    alone_ms: Option<u64>,
    /// The client is gone; whether it closed its stream.
    ended: Option<bool>,
}

impl Front {
    /// A connection that no owner knows yet.
    pub(super) fn new(carried: Option<Carried>, now_ms: u64) -> Front {
        Front { carried, alone_ms: Some(now_ms), ..Front::default() }
    }

    fn keep(&mut self, mut item: Item) {
        if let Some(carried) = self.carried.as_mut().filter(|_| item.stanza.head.kind != Kind::Other) {
            item.number = Some(carried.next);
            carried.next = carried.next.wrapping_add(1);
        }
        self.kept.push_back(item);
    }

    /// The owner, or the path to it, is gone: nobody knows what became of what was relayed. `true`: but for the oldest,
    /// which is dealt with.
    pub(super) fn lose_owner(&mut self, now_ms: u64) -> bool {
        self.name = None;
        self.brings = None;
        let answered = std::mem::take(&mut self.answered) && self.kept.pop_front().is_some();
        self.relayed -= usize::from(answered);
        self.kept.iter_mut().take(self.relayed).for_each(|item| item.again = true);
        (self.relayed, self.relayed_bytes, self.seq) = (0, 0, 0);
        self.alone_ms.get_or_insert(now_ms);
        if self.carried.is_none() {
            self.number_from_bind();
        }
        answered
    }

    /// Bytes go to the client.
    fn write(&mut self, bytes: &Bytes) {
        if let Some(brings) = self.brings.take() {
            self.answered = true;
            match &mut self.carried {
                Some(c) if (c.session, c.stream) == (brings.session, brings.stream) => {
                    c.written = c.written.or(brings.written);
                }
                _ => self.carry(brings),
            }
        } else if let Some(written) = self.carried.as_mut().and_then(|c| c.written.as_mut()) {
            *written = written.wrapping_add(u32::from(counts(bytes)));
        }
    }

    /// A session that was bound here, although nobody could say so any more, counts from its binding.
    fn number_from_bind(&mut self) {
        let mut next = None;
        for item in &mut self.kept {
            if is_bind(&item.stanza) {
                next = Some(1);
            } else if item.stanza.head.kind != Kind::Other {
                item.number = next;
                next = next.map(|n: u32| n.wrapping_add(1));
            }
        }
    }

    /// It is attached to an owner under this name.
    pub(super) fn attached(&mut self, name: Conn) {
        self.name = Some(name);
        self.alone_ms = None;
    }

    /// It waits for an owner.
    pub(super) fn is_alone(&self) -> bool {
        self.alone_ms.is_some()
    }

    /// What is kept is counted from the session's number on; the first is the element that brought the session.
    fn carry(&mut self, carried: Carried) {
        self.carried = Some(carried);
        let kept = std::mem::take(&mut self.kept);
        for (i, item) in kept.into_iter().enumerate() {
            if i == 0 { self.kept.push_back(item) } else { self.keep(item) }
        }
    }
}

fn is_bind(stanza: &Stanza) -> bool {
    stanza.head.kind == Kind::Iq && stanza.head.has_child(ns::BIND, "bind")
}

/// Whether these bytes are a stanza, which XEP-0198 counts, by the name of their element.
fn counts(bytes: &Bytes) -> bool {
    let name = bytes.strip_prefix(b"<").unwrap_or_default();
    let end = name.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'));
    let name = &name[..end.unwrap_or(name.len())];
    let local = name.rsplit(|b| *b == b':').next().unwrap_or_default();
    matches!(local, b"message" | b"presence" | b"iq")
}

impl Engine {
    /// Accounts of the peer whose clients want to go on here with a session that they had there, and wait for an answer.
    pub fn callers(&self) -> BTreeSet<BareJid> {
        self.callers_who(|user, stanza| self.wants_session(user, stanza).is_some())
    }

    /// The same of those whom the peer could answer. A client that says to have been told what nobody has said yet waits for
    /// that.
    pub fn answerable_callers(&self) -> BTreeSet<BareJid> {
        self.callers_who(|user, stanza| {
            let Some(told) = self.wants_session(user, stanza) else { return false };
            told.is_none_or(|told| self.may_have_been_told(user, told.epoch))
        })
    }

    /// What the client was told that wants to go on with a session of this user, if there is one of this name.
    fn wants_session(&self, user: &BareJid, stanza: &Stanza) -> Option<Option<Told>> {
        let Ok(Some(Sm::Resume { previd, told, .. })) = Sm::parse(stanza) else { return None };
        let s = self.state.session(SmId::parse(&previd)?)?;
        (s.user == *user).then_some(told)
    }

    /// Whether a node may have said this: of the account, or of a group as it is led now.
    fn may_have_been_told(&self, user: &BareJid, epoch: Epoch) -> bool {
        let of_group = |group: &NodeIx| self.state.lead(*group).is_some_and(|reg| epoch.term <= reg.term.0);
        self.state.user(user).is_some_and(|u| epoch <= self.state.epoch(u))
            || epoch.moves == 0 && NodeIx::BOTH.iter().any(of_group)
    }

    fn callers_who(&self, calls: impl Fn(&BareJid, &Stanza) -> bool) -> BTreeSet<BareJid> {
        let asks = |conn: &Conn| {
            let user = self.edge.user(*conn)?;
            let of_front =
                self.edge.front_of(*conn).filter(|front| front.carried.is_none() && !front.answered);
            let kept = of_front.and_then(|front| front.kept.front()).map(|item| &item.stanza);
            let fresh = self.edge.phase(*conn) == Some(Phase::Fresh);
            let held = self.edge.held(*conn).next().filter(|_| fresh).and_then(|held| match held {
                Held::Element(item) => Some(&item.stanza),
                _ => None,
            });
            kept.or(held).is_some_and(|stanza| calls(user, stanza)).then(|| user.clone())
        };
        // Without a path to the peer there is nobody to be a front for.
        let all = self.edge.fronts().into_iter().chain(self.edge.holding());
        let users = all.filter_map(|conn| asks(&conn));
        users.filter(|user| self.state.owner_of(user) == Some(self.cfg.me.peer())).collect()
    }

    /// Counts logins and resumptions that this node has granted.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// Counts what the peer answers to clients that log in here, or go on here with a session. That it ends a stream is no
    /// answer.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether this is a login of a user whom the peer serves.
    pub(super) fn wants_front(&self, conn: Conn, stanza: &Stanza) -> bool {
        let login = is_bind(stanza) || stanza.head.is(ns::SM, "resume");
        let fresh = conn.node == self.cfg.me && self.edge.phase(conn) == Some(Phase::Fresh);
        let user = self.edge.user(conn).filter(|_| fresh && login && !self.leaving);
        user.is_some_and(|user| matches!(self.whose(user), Whose::Peers))
    }

    /// From here on this node is the front of a connection.
    pub(super) fn begin_front(&mut self, conn: Conn, carried: Option<Carried>) {
        let mut front = Front::new(carried, self.turn.now_ms);
        for held in self.edge.take_held(conn) {
            if let Held::Element(item) = held {
                front.keep(*item);
            }
        }
        self.edge.set_phase(conn, Phase::Front);
        self.edge.set_front(conn, front);
    }

    /// An element of a client whose front this node is.
    pub(super) fn front_element(&mut self, conn: Conn, item: Item, out: &mut Vec<Output>) {
        if let Ok(Some(Dual::Vouch { nonce })) = Dual::parse(&item.stanza) {
            // The question is whether *this* node lives (R9). A fenced node vouches for nobody.
            if self.serving[self.cfg.me.index()] {
                out.push(Output::Vouch(conn, nonce));
            }
            return out.push(Output::Credit(conn));
        }
        if let Some(front) = self.edge.front(conn) {
            front.keep(item);
            self.pump_front(conn, out);
        }
    }

    /// Attaches a connection to the owner if there is one, and relays what the window allows.
    pub(super) fn pump_front(&mut self, conn: Conn, out: &mut Vec<Output>) {
        let (Some(user), entropy) = (self.edge.user(conn).cloned(), self.edge.entropy(conn)) else { return };
        let (salt, token) = (self.edge.salt(conn), self.edge.token(conn));
        let owner = self.peer_up && self.state.owner_of(&user) == Some(self.cfg.me.peer());
        let fresh = Conn { node: self.cfg.me, number: (self.turn.at.inc << 32) | self.next_name };
        let relays = self.may_relay(conn);
        let Some(front) = self.edge.front(conn) else { return };
        if front.name.is_none() {
            if !owner {
                return;
            }
            if !relays {
                return self.drop_front(conn, out);
            }
            let attach = match front.carried {
                None => None,
                Some(Carried { session, stream, written: Some(written), .. }) => {
                    Some(Attach { session, stream, written })
                }
                // Nobody counted: what got lost on the way cannot be known.
                Some(_) => return self.drop_front(conn, out),
            };
            self.next_name += 1;
            out.push(Output::Relay(Relay::Open { conn: fresh, user, salt, entropy, attach, token }));
            self.edge.name_front(fresh, conn);
        }
        self.relay_kept(conn, out);
    }

    fn relay_kept(&mut self, conn: Conn, out: &mut Vec<Output>) {
        let Some(front) = self.edge.front(conn) else { return };
        let Some(name) = front.name else { return };
        while front.relayed < front.kept.len() && (front.relayed == 0 || front.relayed_bytes < WINDOW_BYTES) {
            let item = &front.kept[front.relayed];
            front.relayed += 1;
            front.relayed_bytes += item.stanza.bytes.len();
            front.seq += 1;
            let (number, again) = (item.number, item.again);
            let stanza = item.stanza.rewrite(None, None);
            out.push(Output::Relay(Relay::Element { conn: name, seq: front.seq, number, again, stanza }));
        }
        let done = front.relayed == front.kept.len();
        if let Some(clean) = front.ended.filter(|_| done) {
            out.push(Output::Relay(Relay::Closed { conn: name, clean }));
            self.edge.remove(conn);
        }
    }

    /// The client of a front is gone. What it said before it closed its stream is still to be heard.
    pub(super) fn front_closed(&mut self, conn: Conn, clean: bool, out: &mut Vec<Output>) {
        let (user, at) = (self.edge.user(conn).cloned(), self.turn.at.seq);
        let Some(front) = self.edge.front(conn) else { return };
        front.ended = Some(clean);
        match (clean, front.name) {
            (true, _) => self.relay_kept(conn, out),
            (false, name) => {
                if let Some((name, user)) = name.zip(user) {
                    self.void.client_gone(name, user, at);
                }
                out.extend(name.map(|conn| Output::Relay(Relay::Closed { conn, clean })));
                self.edge.remove(conn);
            }
        }
    }

    /// Ends a connection whose front this node is: its TCP only, so that its session stays resumable.
    pub(super) fn drop_front(&mut self, conn: Conn, out: &mut Vec<Output>) {
        self.front_closed(conn, false, out);
        out.push(Output::Close(conn, Bytes::new(), false));
    }

    /// The path to the owner is there, perhaps again: it hears of all connections.
    pub(super) fn attach_fronts(&mut self, out: &mut Vec<Output>) {
        self.void.list();
        out.push(Output::Relay(Relay::List(true)));
        for conn in self.edge.fronts() {
            self.pump_front(conn, out);
        }
        out.push(Output::Relay(Relay::List(false)));
    }

    /// Outputs of turns before this frame were let go; others wait, or none does (`u64::MAX`).
    pub fn holds_from(&mut self, seq: u64) {
        self.void.holds_from(seq);
        self.left_behind.retain(|(at, _, _)| *at >= seq);
    }

    /// Whether this is not to be said any more, though it is safe now: this node said it as a front, and has given the name up
    /// since. It has the session itself, and may have given it back before this was let go; or it says the same under another
    /// name. That a name is given up is said: the owner may have heard the beginning.
    pub fn is_void(&mut self, output: &Output) -> bool {
        self.void.has(output)
    }

    /// The path to the owner is gone.
    pub(super) fn detach_fronts(&mut self, out: &mut Vec<Output>) {
        let (now, last) = (self.turn.now_ms, self.turn.at.seq);
        self.edge.forget_names().into_keys().for_each(|name| self.void.give_up(name, last));
        self.void.path_gone();
        for conn in self.edge.fronts() {
            if self.edge.lose_owner(conn, now) {
                out.push(Output::Credit(conn));
            }
        }
    }

    /// What the owner let go. A name that is not known is an old one.
    pub(super) fn owner_says(&mut self, told: Fronted, out: &mut Vec<Output>) {
        let name = match &told {
            Fronted::Deliver(name, _)
            | Fronted::Credit(name)
            | Fronted::Close(name, ..)
            | Fronted::Attached { conn: name, .. }
            | Fronted::Offer(name, _) => *name,
            Fronted::Again => {
                self.detach_fronts(out);
                if self.peer_up {
                    self.attach_fronts(out);
                }
                return;
            }
        };
        let Some(conn) = self.edge.named(name) else { return };
        let Some(front) = self.edge.front(conn) else { return };
        self.answers += u64::from(front.carried.is_none() && !matches!(told, Fronted::Close(..)));
        let now = match told {
            Fronted::Again => return,
            Fronted::Deliver(_, bytes) => {
                front.write(&bytes);
                Output::Deliver(conn, bytes)
            }
            Fronted::Credit(_) => {
                if front.relayed == 0 {
                    return;
                }
                let item = front.kept.pop_front();
                front.answered = false;
                front.relayed -= 1;
                front.relayed_bytes -= item.map_or(0, |item| item.stanza.bytes.len());
                out.push(Output::Fronted(Box::new(Output::Credit(conn))));
                return self.relay_kept(conn, out);
            }
            Fronted::Close(_, last, end) => {
                self.edge.remove(conn);
                Output::Close(conn, last, end)
            }
            Fronted::Attached { session, stream, inbound, written, .. } => {
                // The answer to the client follows: only with it the session is there.
                let next = inbound.wrapping_add(1);
                front.brings = Some(Carried { session, stream, next, written });
                return;
            }
            Fronted::Offer(_, epoch) => {
                let session = front.brings.as_ref().or(front.carried.as_ref()).map(|carried| carried.session);
                let Some(peer) = self.cfg.peer.clone() else { return };
                let (lower_s, upper_s) = self.cfg.relogin_s;
                let token = session.and_then(|session| self.next_token(session));
                Output::Deliver(conn, Dual::Offer { epoch, lower_s, upper_s, peer, token }.to_bytes())
            }
        };
        out.push(Output::Fronted(Box::new(now)));
    }

    /// Connections whose front this node was and whose users it serves now become main streams, or go on to log in.
    pub(super) fn adopt(&mut self, out: &mut Vec<Output>) {
        let mut void = std::mem::take(&mut self.void);
        void.serve(|user| self.serves(user));
        self.void = void;
        for conn in self.edge.fronts() {
            if self.edge.user(conn).cloned().is_some_and(|user| self.serves(&user)) {
                self.adopt_one(conn, out);
            }
        }
    }

    /// Whether there is one that was not adopted; looked at only where it costs little: in tests.
    pub(super) fn misses_a_front(&self) -> bool {
        let fronts = self.edge.few_fronts(64);
        let mut users = fronts.iter().filter_map(|conn| self.edge.user(*conn));
        users.any(|user| self.serves(user))
    }

    fn adopt_one(&mut self, conn: Conn, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        let Some(mut front) = self.edge.take_front(conn) else { return };
        if let Some(name) = front.name {
            self.void.give_up(name, self.turn.at.seq);
            // Whoever was the owner until now keeps nothing of it.
            out.push(Output::Relay(Relay::Closed { conn: name, clean: false }));
        }
        if front.lose_owner(now) {
            out.push(Output::Credit(conn));
        }
        self.edge.set_phase(conn, Phase::Fresh);
        if let Some(Carried { session, stream, written, .. }) = front.carried {
            let attached =
                written.is_some_and(|written| self.attach(conn, Attach { session, stream, written }, out));
            if !attached {
                let error = StreamError::new(StreamCondition::Reset);
                self.fail(conn, error.with_text("the session is served elsewhere now: resume it"), out);
                return;
            }
        }
        for item in front.kept {
            self.edge.hold(conn, Held::Element(Box::new(item)), now);
        }
        self.retry_one(conn, out);
        if front.ended.is_some() {
            self.closed(conn, true, out);
        }
    }

    /// Streams that wait too long for an owner.
    pub(super) fn sweep_fronts(&mut self, out: &mut Vec<Output>) {
        let now = self.turn.now_ms;
        for conn in self.edge.alone() {
            let Some(front) = self.edge.front(conn) else { continue };
            let waited = front.alone_ms.map_or(0, |since| now.saturating_sub(since));
            match front.carried {
                Some(_) if waited > HELD_FRONT_MS => self.drop_front(conn, out),
                None if waited > HELD_LOGIN_MS => {
                    let error = StreamError::new(StreamCondition::ResourceConstraint);
                    let error = error.with_text("no node may serve this account yet; try again later");
                    self.fail(conn, error, out);
                }
                _ => {}
            }
        }
    }

    /// This node is about to leave: nobody shall wait for the end (D4).
    pub(super) fn leave(&mut self, out: &mut Vec<Output>) {
        self.leaving = true;
        for conn in self.edge.fronts() {
            self.drop_front(conn, out);
        }
    }
}
