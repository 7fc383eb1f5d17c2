//! The transitions. `phase` is where the session is, `park` how far the second stream has come.

use std::collections::VecDeque;
use std::time::Duration;

use xmpp_core::dual::{Dual, Epoch, MainStream, Peer, Told};

use super::{ANSWER_TIMEOUT, FlipCause, Input, LOST_AGAIN, MAX_QUERIES, Output, Timer, VOUCH_TIMEOUT};

/// Where the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No main stream: the runner is looking for one. The parked stream may be there (after `<stay/>`).
    Down,
    /// The main stream carries it.
    Up,
    /// The parked stream's node has been told, or has said `<wait/>`: it will say take, stay or failed.
    Asking,
    /// `<resume/>` is out on the parked stream.
    Resuming,
}

/// How far the second stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Park {
    None,
    Scheduled,
    Connecting,
    Registering,
    Parked,
}

/// Why nothing more is written to a main stream that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    /// It stays fenced; should it turn out to be the owner, it goes on.
    Stalled,
    /// It has given the session away and is never thawed (D4).
    Moved,
}

/// Where and when to park.
#[derive(Debug)]
struct Offer {
    lower: Duration,
    upper: Duration,
    peer: Peer,
}

impl Offer {
    fn new(lower_s: u32, upper_s: u32, peer: Peer) -> Offer {
        let seconds = |s| Duration::from_secs(u64::from(s));
        Offer { lower: seconds(lower_s), upper: seconds(upper_s), peer }
    }
}

#[derive(Debug)]
struct Query {
    id: String,
    nonce: String,
    due: Duration,
}

/// The state machine of one client. It starts without a main stream.
#[derive(Debug)]
pub struct DualClient {
    phase: Phase,
    park: Park,
    /// Duality is wanted and the main stream's node offers it.
    dual: bool,
    main_alive: bool,
    frozen: Frozen,
    lost_told: Option<Duration>,
    cause: FlipCause,
    main_at: Option<Peer>,
    parked_at: Option<Peer>,
    sm_id: Option<String>,
    told: Option<Told>,
    /// The main stream was granted the session and told no epoch yet. Who granted it knew of all that was told before.
    granted: bool,
    /// How often the client has asked to go on with a session.
    attempts: u32,
    offer: Option<Offer>,
    /// What was offered on the second stream since `<resume/>`: counts with `<resumed/>`.
    early: Option<(Epoch, Offer)>,
    queries: VecDeque<Query>,
    heard: Duration,
}

type Outputs = Vec<Output>;

impl Default for DualClient {
    fn default() -> Self {
        DualClient::new()
    }
}

impl DualClient {
    /// A client that is not connected.
    pub fn new() -> Self {
        DualClient {
            phase: Phase::Down,
            park: Park::None,
            dual: false,
            main_alive: false,
            frozen: Frozen::No,
            lost_told: None,
            cause: FlipCause::TakeUnasked,
            main_at: None,
            parked_at: None,
            sm_id: None,
            told: None,
            granted: false,
            attempts: 0,
            offer: None,
            early: None,
            queries: VecDeque::new(),
            heard: Duration::ZERO,
        }
    }

    /// Whether the second stream is registered at the other node.
    pub fn is_parked(&self) -> bool {
        self.park == Park::Parked
    }

    /// Whether a main stream carries the session and nothing is under way.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Name of the node where the main stream is or was last.
    pub fn main_node(&self) -> Option<&str> {
        self.main_at.as_ref().map(|place| place.node.as_str())
    }

    /// Name of the node where the second stream is parked.
    pub fn parked_node(&self) -> Option<&str> {
        self.parked_at.as_ref().filter(|_| self.is_parked()).map(|place| place.node.as_str())
    }

    /// The epochs that the main stream told.
    pub fn told(&self) -> Option<Told> {
        self.told
    }

    /// What goes with a `<resume/>` that is about to be sent: what was told, and which attempt it is.
    pub fn numbered(&mut self, told: Option<Told>) -> Option<Told> {
        self.attempts = self.attempts.wrapping_add(1);
        told.map(|told| Told { attempt: Some(self.attempts), ..told })
    }

    /// Something, anything, arrived on the main stream.
    pub fn main_heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// One step. `now` is the time since some fixed start.
    pub fn on(&mut self, now: Duration, input: Input, out: &mut Outputs) {
        match input {
            Input::MainUp { at, sm_id, anew, dual } => {
                self.heard = now;
                self.main_up(at, sm_id, anew, dual, out);
            }
            // Nothing was asked for by who is an ordinary client.
            Input::Main(_) if !self.dual => {}
            Input::Main(_) if !self.main_alive || self.phase == Phase::Resuming => {}
            Input::Main(said) => self.main_said(now, said, out),
            Input::MainDied => self.main_died(now, out),
            Input::Parked(_) if self.park < Park::Registering => {}
            Input::Resumed | Input::Failed if self.park < Park::Registering => {}
            Input::Parked(Dual::Query { id, nonce }) => self.query(now, id.into(), nonce.into(), out),
            Input::Parked(said) => self.parked_said(said, out),
            Input::Resumed if self.phase == Phase::Resuming => {
                self.heard = now;
                self.flip(out);
            }
            // It answers a resume that is void: nobody can say any more what was counted on this stream.
            Input::Resumed => self.parked_useless(out),
            Input::Failed => self.failed(out),
            Input::Gone => {
                self.unpark(out);
                self.close_main(out);
                self.look(None, true, out);
            }
            Input::ParkedOpen => self.parked_open(out),
            Input::ParkedDied => self.parked_died(out),
            Input::ReconnectFailed => self.reconnect_failed(now, out),
            Input::Timer(Timer::Park) => self.time_to_park(out),
            Input::Timer(Timer::Vouch) => self.vouch_overdue(now, out),
            Input::Timer(Timer::Answer) => self.answer_overdue(out),
        }
    }

    fn main_up(&mut self, at: Peer, sm_id: Option<String>, anew: bool, dual: bool, out: &mut Outputs) {
        out.push(Output::CancelTimer(Timer::Answer));
        self.main_is(at);
        self.dual = dual;
        if anew {
            self.unpark(out);
            self.offer = None;
            self.told = None;
            self.sm_id = sm_id;
        }
        // A session may be older than the second node.
        if dual && self.told.is_none() && self.sm_id.is_some() {
            out.push(Output::Main(Dual::Request));
        }
        if !anew && self.parked_at.as_ref().is_some_and(|parked| self.same_node(parked)) {
            // The session came to where the second stream was parked: that stream has no purpose any more.
            self.unpark(out);
        }
        self.schedule(out);
    }

    /// The session is up at `at`; the last word on where the other stream belongs stays.
    fn main_is(&mut self, at: Peer) {
        if let (Some(offer), Some(old)) = (&mut self.offer, &self.main_at)
            && offer.peer.node == at.node
            && old.node != at.node
        {
            offer.peer = old.clone();
        }
        self.main_at = Some(at);
        self.phase = Phase::Up;
        self.main_alive = true;
        self.granted = true;
        self.frozen = Frozen::No;
        self.lost_told = None;
    }

    fn main_said(&mut self, now: Duration, said: Dual, out: &mut Outputs) {
        match said {
            Dual::Offer { epoch, lower_s, upper_s, peer, token: _ } => {
                self.offered(epoch, Offer::new(lower_s, upper_s, peer), out);
            }
            // High availability was switched off: there is no other node to park on.
            Dual::Failed(_) if self.phase == Phase::Up && self.offer.take().is_some() => self.unpark(out),
            Dual::Vouched { nonce, mac } => self.vouched(now, &nonce, mac.into(), out),
            Dual::Moving { epoch, to } => {
                self.told = Some(Told::moving(self.told_here(), epoch));
                self.frozen = Frozen::Moved;
                let there = self.parked_node().is_some_and(|node| node == to);
                self.leave_main(FlipCause::Moving, there, Some(to.into()), out);
            }
            Dual::Stalled if self.phase == Phase::Asking => {
                // The other node has our resume or our complaint already; it will answer.
                self.freeze(Frozen::Stalled);
                out.push(Output::MainMode { read: true, write: false });
            }
            Dual::Stalled => {
                self.freeze(Frozen::Stalled);
                self.leave_main(FlipCause::Stalled, self.is_parked(), None, out);
            }
            // A refusal leaves us an ordinary client; the rest does not belong on this stream.
            _ => {}
        }
    }

    fn freeze(&mut self, why: Frozen) {
        if self.frozen == Frozen::No {
            self.frozen = why;
        }
    }

    /// The main stream lives but serves no longer: flip if that can be, else look for the session.
    fn leave_main(&mut self, cause: FlipCause, can_flip: bool, first: Option<String>, out: &mut Outputs) {
        if can_flip {
            self.cause = cause;
            self.resume(out);
        } else {
            self.unpark(out);
            self.close_main(out);
            self.look(first, false, out);
        }
    }

    /// What the main stream told since it goes on with the session.
    fn told_here(&mut self) -> Option<Told> {
        let nothing = std::mem::take(&mut self.granted);
        self.told.filter(|_| !nothing)
    }

    /// On one stream an epoch never goes back: what waited at the server may name an older one than what overtook it (D6).
    fn offered(&mut self, epoch: Epoch, offer: Offer, out: &mut Outputs) {
        self.told = Some(Told::offered(self.told_here(), epoch));
        let elsewhere = self.parked_at.as_ref().is_some_and(|place| place.node != offer.peer.node);
        self.offer = Some(offer);
        if elsewhere && self.park != Park::Scheduled && self.phase == Phase::Up {
            self.unpark(out);
        }
        self.schedule(out);
    }

    fn main_died(&mut self, now: Duration, out: &mut Outputs) {
        self.main_alive = false;
        self.frozen = Frozen::No;
        match self.phase {
            Phase::Down | Phase::Resuming => {}
            Phase::Up if !self.is_parked() => {
                self.unpark(out);
                self.look(None, false, out);
            }
            Phase::Up | Phase::Asking => {
                if self.lost_told.is_none() {
                    self.lost_told = Some(now);
                    out.push(Output::Parked(Dual::Lost));
                }
                if self.phase == Phase::Up {
                    self.cause = FlipCause::TakeAfterLost;
                    self.ask(out);
                }
            }
        }
    }

    fn ask(&mut self, out: &mut Outputs) {
        self.phase = Phase::Asking;
        out.push(Output::SetTimer(Timer::Answer, ANSWER_TIMEOUT));
    }

    fn parked_said(&mut self, said: Dual, out: &mut Outputs) {
        match said {
            Dual::Parked { .. } if self.park == Park::Registering => self.park = Park::Parked,
            Dual::Take { .. } if self.is_parked() => self.take(out),
            Dual::Wait { .. } => self.wait(out),
            Dual::Stay => self.stay(out),
            Dual::Failed(_) => self.failed(out),
            Dual::Offer { epoch, lower_s, upper_s, peer, token: _ } if self.phase == Phase::Resuming => {
                let before = self.early.take().map(|(epoch, _)| epoch);
                let epoch = before.map_or(epoch, |before| before.max(epoch));
                self.early = Some((epoch, Offer::new(lower_s, upper_s, peer)));
            }
            // What does not belong on this stream, or comes too early.
            _ => {}
        }
    }

    fn take(&mut self, out: &mut Outputs) {
        match self.phase {
            Phase::Resuming => return,
            Phase::Up => self.cause = FlipCause::TakeUnasked,
            Phase::Asking => {}
            Phase::Down => {
                self.cause = FlipCause::TakeAfterLost;
                out.push(Output::StopReconnect);
            }
        }
        self.resume(out);
    }

    /// From here on nothing is read from the main stream, so that `h` stays true (D13).
    fn resume(&mut self, out: &mut Outputs) {
        let Some(previd) = self.sm_id.clone() else { return };
        if self.main_alive {
            out.push(Output::MainMode { read: false, write: false });
        }
        self.phase = Phase::Resuming;
        self.early = None;
        out.push(Output::Resume { previd, told: self.told });
        out.push(Output::SetTimer(Timer::Answer, ANSWER_TIMEOUT));
    }

    fn wait(&mut self, out: &mut Outputs) {
        match self.phase {
            Phase::Up | Phase::Down => return,
            Phase::Asking => {}
            Phase::Resuming if self.main_alive => {
                out.push(Output::MainMode { read: true, write: self.frozen == Frozen::No });
            }
            Phase::Resuming => {}
        }
        self.ask(out);
    }

    fn stay(&mut self, out: &mut Outputs) {
        if !matches!(self.phase, Phase::Asking | Phase::Resuming) {
            return;
        }
        if self.main_alive && self.frozen != Frozen::Moved {
            return self.go_on(out);
        }
        self.close_main(out);
        let owner = self.main_node().map(str::to_owned);
        self.look(owner, false, out);
    }

    /// The session stays on the main stream, which lives.
    fn go_on(&mut self, out: &mut Outputs) {
        self.phase = Phase::Up;
        self.frozen = Frozen::No;
        self.lost_told = None;
        out.push(Output::CancelTimer(Timer::Answer));
        out.push(Output::MainMode { read: true, write: true });
    }

    fn flip(&mut self, out: &mut Outputs) {
        let keep_old = self.cause == FlipCause::Moving && self.main_alive;
        out.push(Output::CancelTimer(Timer::Answer));
        out.push(Output::Flip { cause: self.cause, keep_old });
        let old = self.main_at.clone();
        let new = self.parked_at.take();
        self.queries.clear();
        if let Some(new) = new {
            self.main_is(new);
        }
        if keep_old {
            self.park = Park::Parked;
            self.parked_at = old;
        } else {
            self.park = Park::None;
            self.schedule(out);
        }
        if let Some((epoch, offer)) = self.early.take() {
            self.offered(epoch, offer, out);
        }
    }

    fn failed(&mut self, out: &mut Outputs) {
        match self.phase {
            Phase::Up => self.parked_useless(out),
            Phase::Down => self.unpark(out),
            // The other node does not have the session, but the one that had it still talks to us.
            Phase::Asking | Phase::Resuming if self.main_alive && self.frozen == Frozen::No => {
                self.parked_useless(out);
            }
            Phase::Asking | Phase::Resuming => {
                self.unpark(out);
                self.close_main(out);
                self.look(None, true, out);
            }
        }
    }

    /// Closes a parked stream that cannot serve its purpose and makes another one later.
    fn parked_useless(&mut self, out: &mut Outputs) {
        self.unpark(out);
        if self.phase != Phase::Up && self.main_alive {
            self.go_on(out);
        }
        self.schedule(out);
    }

    fn parked_open(&mut self, out: &mut Outputs) {
        match &self.sm_id {
            Some(sm_id) if self.park == Park::Connecting => {
                out.push(Output::Parked(Dual::Standby { sm_id: sm_id.as_str().into() }));
                self.park = Park::Registering;
            }
            _ => out.push(Output::CloseParked),
        }
    }

    fn parked_died(&mut self, out: &mut Outputs) {
        if self.park < Park::Connecting {
            return;
        }
        let there = self.parked_at.take().map(|place| place.node.into());
        self.park = Park::None;
        self.queries.clear();
        match self.phase {
            Phase::Up => self.schedule(out),
            Phase::Down => {}
            Phase::Asking if self.main_alive && self.frozen == Frozen::No => {
                self.go_on(out);
                self.schedule(out);
            }
            // A resume may have been granted without our hearing of it: the old stream is not to be trusted.
            Phase::Asking | Phase::Resuming => {
                self.close_main(out);
                self.look(there, false, out);
            }
        }
    }

    fn reconnect_failed(&mut self, now: Duration, out: &mut Outputs) {
        let again = self.lost_told.is_none_or(|told| now.saturating_sub(told) >= LOST_AGAIN);
        if self.phase == Phase::Down && self.is_parked() && again {
            self.lost_told = Some(now);
            out.push(Output::Parked(Dual::Lost));
        }
    }

    fn answer_overdue(&mut self, out: &mut Outputs) {
        match self.phase {
            Phase::Up | Phase::Down => {}
            Phase::Asking if self.main_alive && self.frozen == Frozen::No => self.parked_useless(out),
            Phase::Asking | Phase::Resuming => {
                self.unpark(out);
                self.close_main(out);
                self.look(None, false, out);
            }
        }
    }

    /// The runner is to find the session. A parked stream, if there is one, stays and may still say `<take/>`.
    fn look(&mut self, first: Option<String>, anew: bool, out: &mut Outputs) {
        self.phase = Phase::Down;
        self.lost_told = None;
        if anew {
            self.sm_id = None;
        }
        out.push(Output::CancelTimer(Timer::Answer));
        out.push(Output::Reconnect { first, anew });
    }

    fn close_main(&mut self, out: &mut Outputs) {
        if std::mem::take(&mut self.main_alive) {
            out.push(Output::CloseMain);
        }
        self.frozen = Frozen::No;
    }

    /// Parks after a random time, if there is where to and it has not begun.
    fn schedule(&mut self, out: &mut Outputs) {
        let Some(offer) = &self.offer else { return };
        let possible = self.phase == Phase::Up && self.sm_id.is_some();
        if possible && self.park == Park::None && !self.same_node(&offer.peer) {
            out.push(Output::SetRandomTimer(Timer::Park, offer.lower, offer.upper));
            self.park = Park::Scheduled;
        }
    }

    fn time_to_park(&mut self, out: &mut Outputs) {
        let Some(offer) = &self.offer else { return };
        if self.park == Park::Scheduled && self.phase == Phase::Up {
            self.park = Park::Connecting;
            self.parked_at = Some(offer.peer.clone());
            out.push(Output::ConnectParked(offer.peer.clone()));
        }
    }

    fn unpark(&mut self, out: &mut Outputs) {
        match self.park {
            Park::None => {}
            Park::Scheduled => out.push(Output::CancelTimer(Timer::Park)),
            Park::Connecting | Park::Registering | Park::Parked => out.push(Output::CloseParked),
        }
        self.park = Park::None;
        self.parked_at = None;
        self.queries.clear();
    }

    fn query(&mut self, now: Duration, id: String, nonce: String, out: &mut Outputs) {
        if !self.main_alive || self.phase == Phase::Resuming {
            return out.push(self.report(now, &id, None));
        }
        if self.queries.len() >= MAX_QUERIES {
            self.queries.pop_front();
        }
        out.push(Output::Main(Dual::Vouch { nonce: nonce.as_str().into() }));
        if self.queries.is_empty() {
            out.push(Output::SetTimer(Timer::Vouch, VOUCH_TIMEOUT));
        }
        self.queries.push_back(Query { id, nonce, due: now + VOUCH_TIMEOUT });
    }

    fn vouched(&mut self, now: Duration, nonce: &str, mac: String, out: &mut Outputs) {
        let Some(found) = self.queries.iter().position(|query| query.nonce == nonce) else { return };
        if let Some(query) = self.queries.remove(found) {
            out.push(self.report(now, &query.id, Some(mac)));
        }
    }

    fn vouch_overdue(&mut self, now: Duration, out: &mut Outputs) {
        while let Some(query) = self.queries.pop_front_if(|query| query.due <= now) {
            out.push(self.report(now, &query.id, None));
        }
        if let Some(next) = self.queries.front() {
            out.push(Output::SetTimer(Timer::Vouch, next.due.saturating_sub(now)));
        }
    }

    /// The answer to a query; alive is only what can be proved.
    fn report(&self, now: Duration, id: &str, mac: Option<String>) -> Output {
        let main = match (&mac, self.main_alive) {
            (Some(_), _) => MainStream::Alive,
            (None, true) => MainStream::Silent,
            (None, false) => MainStream::Lost,
        };
        let heard = now.saturating_sub(self.heard).as_millis();
        Output::Parked(Dual::Report {
            id: id.into(),
            main,
            mac: mac.map(Into::into),
            heard_ms: Some(u64::try_from(heard).unwrap_or(u64::MAX)),
        })
    }

    fn same_node(&self, place: &Peer) -> bool {
        self.main_at.as_ref().is_some_and(|main| main.node == place.node)
    }
}
