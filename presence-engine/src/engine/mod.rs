//! The engine: inputs in, ordered outputs out. It decides; [`crate::state::State::apply`] changes; the driver makes
//! everything wait until it is safe; the shells write to sockets.

mod accounts;
mod carbons;
mod delivery;
mod disco;
mod early;
mod edge;
mod emit;
mod ends;
mod front;
mod group;
mod iq;
mod limits;
mod login;
mod moves;
mod notice;
mod offline;
mod peer;
mod poison;
mod presence;
mod probe;
mod remote;
mod requests;
mod resume;
mod roster;
mod route;
mod stanza;
mod subscribe;
mod sweep;
#[cfg(test)]
mod tests;
mod token;
mod tuning;
mod void;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use compact_str::CompactString;
use xmpp_core::dual::{Dual, Peer};
use xmpp_core::error::{StreamCondition, StreamError};
use xmpp_core::jid::BareJid;
use xmpp_core::sasl::TokenKey;
use xmpp_core::sm::Sm;
use xmpp_core::stanza::Kind;

use crate::front::Relay;
use crate::ids::{Conn, Group, NodeIx, Position, SmId, Term};
use crate::merge::Seen;
use crate::record::{Record, Verifiers};
use crate::state::{Place, State};

use early::Unreleased;
pub use edge::Counters;
use edge::{Edge, Held, Item, Phase};
use ends::Questions;
pub use limits::Limits;
pub use notice::{Notice, Unsent};
use poison::Guard;
pub use poison::{Print, Trap};
use requests::Waiting;
use resume::Resumer;
pub use roster::STREAM_FEATURES;
pub(crate) use subscribe::ask_stanza;
use token::Opened;
pub use token::Token;
pub use tuning::Tuning;
use void::Void;
pub use words::{Input, Output};

/// What the engine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeIx,
    /// Name of the other node, and where its clients connect; `None` for a single node or with HA off.
    pub peer: Option<Peer>,
    /// The domain served.
    pub domain: CompactString,
    /// How long a session outlives its stream at most, in milliseconds (300 s).
    pub resume_ms: u64,
    /// Re-login limits of the *peer*, told to the client, in seconds.
    pub relogin_s: (u32, u32),
    /// What one account or session may cost.
    pub limits: Limits,
    /// What one-time tokens are derived from; `None`: clients get none.
    pub tokens: Option<TokenKey>,
    /// For tests: panic here.
    pub trap: Option<Trap>,
}

/// Time and place of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Wall clock, milliseconds since 1970.
    pub now_ms: u64,
    /// The frame that this turn's records will form.
    pub at: Position,
    /// How far the peer's log was applied before this turn.
    pub applied_peer: Position,
}

/// The engine of one node.
#[derive(Debug)]
pub struct Engine {
    cfg: Config,
    state: State,
    edge: Edge,
    unreleased: Unreleased,
    turn: Turn,
    place: Place,
    serving: [bool; 2],
    /// See [`Engine::announcement`].
    announced: [Term; 2],
    /// Main streams of dual clients that a hand-over parked, ended or made this node the front of, and its frame: what they were
    /// given before may still wait to be let go.
    left_behind: Vec<(u64, Conn, SmId)>,
    /// Each session's last attempt to go on, of those whose clients number them.
    attempts: BTreeMap<SmId, u32>,
    /// By which stream each session was last resumed here.
    resumers: BTreeMap<SmId, Resumer>,
    /// Whether clients were last told that there are standby connections.
    ha_told: bool,
    peer_up: bool,
    /// Whether the peer's version knows of one-time tokens; `None`: it has not said yet which it is.
    peer_knows_tokens: Option<bool>,
    peer_lost_ms: Option<u64>,
    leaving: bool,
    /// Counts the names of connections at their owner.
    next_name: u64,
    /// What was said as a front and must not leave any more.
    void: Void,
    /// See [`Engine::answers`].
    answers: u64,
    /// See [`Engine::granted`].
    granted: u64,
    /// Users that the peer handed over in the frames of this turn.
    arrived: Vec<BareJid>,
    /// Which stream each of their sessions had then, and the number of the last stanza that the peer had put out for it.
    given: BTreeMap<SmId, (u32, u32)>,
    /// Users of whom nobody here knows whether the peer serves them.
    doubtful: BTreeSet<BareJid>,
    /// A record may have changed who owns a user since fronts were looked through for users of this node.
    owners_changed: bool,
    next_sweep_ms: u64,
    /// When sessions were first seen that are bound later than now, and that their contacts believe in (D14).
    bound_ahead: BTreeMap<SmId, u64>,
    /// When the stream of each session that has none ended, as the state says it, and from when on it is waited for here.
    waiting_since: BTreeMap<SmId, (u64, u64)>,
    /// See [`Engine::seen`].
    seen: Seen,
    /// Roster changes of this turn, for their versions.
    roster_changes: u32,
    waiting: Waiting,
    questions: Questions,
    guard: Guard,
    /// Empty between records; kept for its room.
    live: Vec<(Conn, Bytes)>,
}

impl Engine {
    /// An engine over a state that was rebuilt from the logs.
    pub fn new(cfg: Config, state: State) -> Engine {
        let at = Position::default();
        let place = Place { log: cfg.me, at, forwards: 0 };
        let turn = Turn { now_ms: 0, at, applied_peer: at };
        let edge = Edge::default();
        let ha_told = state.group().ha;
        Engine {
            cfg,
            attempts: BTreeMap::new(),
            resumers: BTreeMap::new(),
            state,
            edge,
            unreleased: Unreleased::default(),
            turn,
            place,
            serving: [false; 2],
            announced: [Term(0); 2],
            left_behind: Vec::new(),
            ha_told,
            peer_up: false,
            peer_knows_tokens: None,
            peer_lost_ms: None,
            leaving: false,
            next_name: 1,
            void: Void::default(),
            answers: 0,
            granted: 0,
            arrived: Vec::new(),
            given: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            owners_changed: false,
            next_sweep_ms: 0,
            bound_ahead: BTreeMap::new(),
            waiting_since: BTreeMap::new(),
            seen: Seen::default(),
            roster_changes: 0,
            waiting: Waiting::default(),
            questions: Questions::default(),
            guard: Guard::default(),
            live: Vec::new(),
        }
    }

    /// The replicated state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The replicated state, to be asked for what changed.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// All accounts, and what is needed at login.
    pub fn accounts(&self) -> impl Iterator<Item = (BareJid, Verifiers)> {
        self.state.users().map(|(user, u)| (user.clone(), u.verifiers.clone()))
    }

    /// Whether any account belongs to the group's register.
    pub fn has_members(&self, group: Group) -> bool {
        self.state.users().any(|(_, u)| u.register == group)
    }

    /// Sessions and streams as operators count them.
    pub fn counters(&self) -> Counters {
        self.edge.counters(&self.state, self.cfg.me)
    }

    /// Connections with a parked stream, and their sessions.
    pub fn parked(&self) -> impl Iterator<Item = (Conn, SmId)> {
        self.edge.parked()
    }

    /// Replaces the state after this node lost a role or a part of its log (D8). `void`: outputs that waited and may not
    /// leave any more. Every stream but the parked ones is closed: its client may have been counted, or been given,
    /// what is void now, and only a resume tells both sides where they are.
    pub fn rebuilt(&mut self, state: State, void: Vec<Output>, out: &mut Vec<Output>) {
        self.state = state;
        self.serving = [false; 2];
        self.left_behind.clear();
        self.void = Void::default();
        self.resumers.clear();
        self.unreleased.end_all();
        self.forget_waiting();
        self.questions = Questions::default();
        let lost = StreamError::new(StreamCondition::Reset).with_text("the sessions are looked for anew");
        // A main stream that became the parked one by a hand-over that is void is no parked stream: its client has not heard
        // of it, and what waited before is void.
        let untold = |conn: &Conn| {
            let moving = |o: &Output| matches!(o, Output::Deliver(c, said) if c == conn && said.starts_with(b"<moving "));
            let was_main = matches!(self.edge.phase(*conn), Some(Phase::Parked { was_main: true, .. }));
            was_main && void.iter().any(moving)
        };
        let untold: Vec<Conn> = self.edge.parked().map(|(conn, _)| conn).filter(untold).collect();
        for conn in self.edge.unparked().into_iter().chain(untold) {
            if let Some(name) = self.edge.take_front(conn).and_then(|front| front.name) {
                out.push(Output::Relay(Relay::Closed { conn: name, clean: false }));
            }
            if let Some(Phase::Parked { session, .. }) = self.edge.remove(conn) {
                out.push(Output::Parked(session, false));
            }
            out.push(Output::Close(conn, lost.to_bytes(), true));
        }
        // Parked streams carry no state of a session; what they were to be told and their credit stay true.
        let parked = |conn: &Conn| {
            conn.number == Conn::SELF || matches!(self.edge.phase(*conn), Some(Phase::Parked { .. }))
        };
        let doubted = |conn: &Conn| self.edge.user(*conn).is_some_and(|user| self.is_doubtful(user));
        out.extend(void.into_iter().filter_map(|output| match output {
            Output::Deliver(conn, _) | Output::Credit(conn) if !parked(&conn) => None,
            // It was called to a session that is not known to be here.
            Output::Deliver(conn, said) if said.starts_with(b"<take ") && doubted(&conn) => None,
            // Why it was to end was judged by a state that is void: a session that was too short here may be whole elsewhere.
            Output::Close(conn, error, end) if error.starts_with(b"<stream:error>") => {
                Some(Output::Close(conn, lost.to_bytes(), end))
            }
            Output::Deliver(..) | Output::Credit(_) | Output::Close(..) => Some(output),
            _ => None,
        }));
    }

    /// Users who are not served here, though this node leads their group by its own log: whether the hand-over that brought them
    /// there stands is not known (D4). Who is none of them any more comes as if handed over now.
    pub fn set_doubtful(&mut self, users: BTreeSet<BareJid>) {
        let before = std::mem::replace(&mut self.doubtful, users);
        self.arrived.extend(before.into_iter().filter(|user| !self.doubtful.contains(user)));
    }

    /// Whether this is one of them.
    pub fn is_doubtful(&self, user: &BareJid) -> bool {
        self.doubtful.contains(user)
    }

    /// Whether users came since forwards were last processed.
    pub fn has_arrivals(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Starts a turn: everything until the next belongs to one frame.
    pub fn begin(&mut self, turn: Turn) {
        self.turn = turn;
        self.roster_changes = 0;
        self.place = Place { log: self.cfg.me, at: turn.at, forwards: 0 };
    }

    /// Ends a turn: answers what waited for something in it, and asks clients for acknowledgements of what it delivered.
    pub fn end(&mut self, out: &mut Vec<Output>) {
        self.follow_group(out);
        self.answer_questions(out);
        for conn in self.edge.take_unasked() {
            out.push(Output::Deliver(conn, Sm::Request.to_bytes()));
        }
        debug_assert!(self.edge.agrees_if_small(), "what a turn looks for is not what there is");
    }

    /// One input.
    pub fn handle(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Opened { conn, user, salt, entropy, token } => {
                self.opened(conn, Opened { user, salt, entropy, token }, out);
            }
            Input::Element { conn, stanza } => self.element(conn, self.item(stanza), out),
            Input::Closed { conn, clean } => {
                self.client_gone(conn);
                self.closed(conn, clean, out);
            }
            Input::Serving { group, on } => {
                self.serving[group.index()] = on;
                if on {
                    self.process_all(out);
                    self.note_all_waiting();
                    self.adopt(out);
                    self.look_for_orphans(group, out);
                    self.retry(out);
                }
            }
            Input::Lead { group, reg, late } => self.lead(group, reg, late, out),
            Input::PeerUp(up) => {
                self.peer_up = up;
                self.peer_lost_ms = (!up).then_some(self.turn.now_ms);
                if up {
                    self.attach_fronts(out);
                } else {
                    self.edge.forget_peer_parked();
                    self.forget_held_of_peer();
                    self.detach_fronts(out);
                }
                self.retry(out);
            }
            Input::Relay(relay) => self.relay(relay, out),
            Input::Fronted(told) => self.owner_says(told, out),
            Input::Leaving => self.leave(out),
            Input::PeerParked { session, on, token } => {
                self.edge.peer_parked(session, on);
                self.token_used(session, token, out);
            }
            Input::Tick => self.tick(out),
            Input::OfferAgain => self.offer_all(out),
            Input::Probe(number) => out.push(Output::Probed(number)),
            Input::Nothing => self.write_nothing(out),
            Input::Loop(stanza) => self.loop_back(&stanza, out),
            Input::Notice(notice) => self.notice(&notice, out),
            Input::UserAdd { user, home, verifiers } => self.user_add(user, home, verifiers, out),
            Input::Group(group) => self.describe_group(group, out),
            Input::Assign { user, home } => self.assign(&user, home, out),
            Input::UserPasswd { user, verifiers } => self.user_passwd(user, verifiers, out),
            Input::UserRemove { user } => self.user_remove(&user, out),
            Input::HandOver { user } => self.hand_over(&user, out),
            // Both nodes mark what they do in their own log; one that leads nothing writes nothing.
            Input::Away { group, why } if self.serving[self.cfg.me.index()] => {
                self.emit(Record::Away { group, why }, out);
            }
            Input::Away { .. } => {}
            Input::Absorb { from } => self.absorb(from, out),
        }
    }

    fn element(&mut self, conn: Conn, item: Item, out: &mut Vec<Output>) {
        if self.edge.phase(conn) == Some(Phase::Front) {
            self.front_element(conn, item, out);
        } else if self.edge.is_holding(conn) {
            self.edge.hold(conn, Held::Element(Box::new(item)), self.turn.now_ms);
        } else if self.wants_front(conn, &item.stanza) {
            self.begin_front(conn, None);
            self.front_element(conn, item, out);
        } else if self.try_element(conn, &item, out) {
            out.push(Output::Credit(conn));
        } else {
            self.edge.hold(conn, Held::Element(Box::new(item)), self.turn.now_ms);
        }
    }

    fn handle_element(&mut self, conn: Conn, item: &Item, out: &mut Vec<Output>) -> bool {
        let Some(phase) = self.edge.phase(conn) else { return true };
        let stanza = &item.stanza;
        let sm = match Sm::parse(stanza) {
            Ok(sm) => sm,
            Err(error) => return self.fail(conn, error, out),
        };
        let dual = match Dual::parse(stanza) {
            Ok(dual) => dual,
            Err(error) => return self.fail(conn, error, out),
        };
        match phase {
            Phase::Fresh => self.login(conn, item, sm, dual, out),
            Phase::Bound(session) => self.bound(conn, session, item, sm, dual, out),
            Phase::Front => false,
            Phase::Parked { session, was_main } => match (sm, dual) {
                (Some(Sm::Resume { previd, .. }), _) if !self.token_allows_resume(conn, &previd, out) => true,
                (Some(Sm::Resume { previd, h, told }), _) => self.resume(conn, &previd, h, told, item, out),
                (_, Some(dual)) => self.parked_element(conn, session, dual, out),
                // What was on its way when the session moved: not counted, the client sends it again.
                _ if was_main => true,
                (Some(_), None) => true,
                (None, None) => {
                    let error = StreamError::new(StreamCondition::NotAuthorized);
                    self.fail(conn, error.with_text("a parked stream carries no stanzas"), out)
                }
            },
        }
    }

    fn bound(
        &mut self,
        conn: Conn,
        session: SmId,
        item: &Item,
        sm: Option<Sm>,
        dual: Option<Dual>,
        out: &mut Vec<Output>,
    ) -> bool {
        let stanza = &item.stanza;
        let Some(owner) = self.state.session(session).map(|s| s.user.clone()) else { return true };
        if !self.serves(&owner) {
            // A fenced node neither reads nor answers; a proof of life would be a lie.
            return false;
        }
        match self.was_handled(conn, session, item, sm.as_ref(), out) {
            Some(true) => return true,
            Some(false) => {}
            None => {
                let error = StreamError::new(StreamCondition::Reset);
                return self.fail(conn, error.with_text("a part of the stream is missing: resume it"), out);
            }
        }
        match (sm, dual) {
            (Some(sm), _) => self.bound_sm(conn, session, sm, out),
            (_, Some(dual)) => self.bound_dual(conn, session, dual, out),
            _ if stanza.head.kind == Kind::Other => {
                return self.fail(conn, StreamError::new(StreamCondition::UnsupportedStanzaType), out);
            }
            _ => self.stanza(session, stanza, out),
        }
        true
    }

    /// Ends a stream with an error. Its session goes on if it can be resumed.
    fn fail(&mut self, conn: Conn, error: StreamError, out: &mut Vec<Output>) -> bool {
        out.push(Output::Close(conn, error.to_bytes(), true));
        self.closed(conn, false, out);
        true
    }

    /// This node owns the user and may emit records for them now.
    fn serves(&self, user: &BareJid) -> bool {
        let Some(u) = self.state.user(user) else { return self.serving.iter().any(|on| *on) };
        let leads = self.state.owner(u) == Some(self.cfg.me) && self.serving[u.register.index()];
        leads && !self.is_doubtful(user)
    }

    fn closed(&mut self, conn: Conn, clean: bool, out: &mut Vec<Output>) {
        if self.edge.phase(conn) == Some(Phase::Front) {
            return self.front_closed(conn, clean, out);
        }
        match self.edge.remove(conn) {
            Some(Phase::Bound(session)) => self.detach(session, clean, out),
            Some(Phase::Parked { session, .. }) => out.push(Output::Parked(session, false)),
            _ => {}
        }
    }

    /// The session's stream is gone: its time-out runs, or it ends.
    fn detach(&mut self, session: SmId, end: bool, out: &mut Vec<Output>) {
        let Some(s) = self.state.session(session) else { return };
        if !self.serves(&s.user.clone()) {
            return;
        }
        let at_ms = self.turn.now_ms;
        if end || !s.resumable() {
            self.end_session(session, out);
        } else {
            self.emit(Record::Detached { session, at_ms }, out);
        }
    }
}
