//! Our log on its way to the peer: handshake, catch-up from disk, then frame by frame as they are written.

use bytes::Bytes;
use presence_engine::front::Fronted;
use presence_engine::ids::{Mode, NodeIx, Position, Reg};

use super::ahead::Ahead;
use super::leads::had;
use super::receive::{Incoming, OLD_DISK, OTHER_VERSION};
use super::{Do, Driver, Link, Why};
use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::msg::{Ack, CHECKS, Hello, Msg, TOKENS};
use crate::runs::Runs;

/// Bytes of catch-up in flight.
const WINDOW: usize = 4 << 20;
/// Bytes that one read of the log brings.
const CHUNK: usize = 512 << 10;
/// Frames within which a peer is near enough to join.
const NEAR: u64 = 512;

/// The connection that we dialled.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) phase: Phase,
    /// Next sequence number to send.
    next: u64,
    /// Sent and not acknowledged: sequence number and bytes.
    in_flight: std::collections::VecDeque<(u64, usize)>,
    bytes: usize,
    pub(super) peer_regs: [Option<Reg>; 2],
    pub(super) boot: u64,
    /// What the peer has of our log, which is looked at once it says on its own connection what it lost.
    pub(super) waits: Option<Runs>,
    /// An end of our log that the peer may have built upon, as far as it has come in.
    pub(super) ahead: Option<Ahead>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Down,
    Greeted,
    Fetching,
    /// A snapshot is to go out.
    Snapshot,
    /// Its mark is out.
    Sending,
    Live,
}

impl Outgoing {
    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.phase != Phase::Down
    }

    /// Whether everything up to here was sent.
    pub(super) fn has_sent(&self, seq: u64) -> bool {
        self.next > seq
    }

    /// Whether our log flows to the peer's present boot.
    pub(super) fn live(&self) -> bool {
        self.phase == Phase::Live
    }
}

impl Driver {
    /// Our connection to the peer is up: greet.
    pub fn connected(&mut self) {
        self.leave_ahead();
        self.outgoing = Outgoing { phase: Phase::Greeted, ..Outgoing::default() };
        self.barrier = None;
        let hello = self.hello(self.own.clone());
        self.dos.push(Do::Send(Link::Out, Msg::Hello(hello)));
        // What was to be said while there was no connection went nowhere, and the peer saw none break.
        self.dos.push(Do::Send(Link::Out, Msg::Fronted(Fronted::Again)));
    }

    /// Our connection to the peer is gone.
    pub fn disconnected(&mut self) {
        self.leave_ahead();
        self.outgoing = Outgoing::default();
        self.barrier = None;
    }

    /// First words of this node with these runs.
    pub(super) fn hello(&self, runs: Runs) -> Hello {
        let (cluster, node, boot) = (self.cfg.cluster, self.cfg.engine.me, self.cfg.boot);
        Hello { versions: self.cfg.versions, cluster, node, boot, regs: self.view.regs, runs }
    }

    /// Whether the peer has nearly all of our log and we all of its: worth while to join (R1).
    pub fn near(&self) -> bool {
        let lag = self.own.end().seq.saturating_sub(self.commit.peer_end());
        self.outgoing.live() && self.incoming.live() && lag <= NEAR
    }

    /// The boot that our log flows to.
    pub fn ships_to(&self) -> Option<u64> {
        self.outgoing.live().then_some(self.outgoing.boot)
    }

    /// Whether our log flows to the peer.
    pub fn ships(&self) -> bool {
        self.outgoing.live()
    }

    /// A message on the connection that we dialled.
    pub fn on_out(&mut self, msg: Msg, store: &mut dyn Storage) {
        match (self.outgoing.phase, msg) {
            // This node has closed it: what is still on its way is not heard.
            (Phase::Down, _) => {}
            // The store is on its way; what the peer has is known when it has that.
            (Phase::Snapshot | Phase::Sending, Msg::Ack(_)) => {}
            (Phase::Greeted, Msg::Hello(hello)) => self.compare(hello, store),
            (Phase::Fetching, Msg::Fetched(frames, last)) => self.on_fetched(frames, last, store),
            (Phase::Live, Msg::Ack(ack)) => self.on_ack(ack, store),
            (Phase::Live, Msg::Checked(number, different)) => self.on_checked(number, different),
            (Phase::Sending, Msg::Want(after)) => self.send_pairs(&after, store),
            (_, Msg::Control(bytes)) => self.dos.push(Do::Control(bytes)),
            _ => self.close(Link::Out, "a message that does not fit here"),
        }
    }

    /// Both nodes speak the newest version that both know; `false`: there is none.
    pub(super) fn agree_on_version(&mut self, theirs: (u8, u8)) -> bool {
        let (oldest, newest) = self.cfg.versions;
        let version = newest.min(theirs.1);
        self.engine.set_peer_knows_tokens(version >= TOKENS);
        self.check.known = version >= CHECKS;
        version >= oldest.max(theirs.0)
    }

    /// Whether something can be said to the peer beside the log.
    pub fn is_linked(&self) -> bool {
        self.outgoing.is_up()
    }

    /// Whether both nodes agree on the log that this connection carries.
    pub fn agrees(&self, link: Link) -> bool {
        match link {
            Link::Out => self.outgoing.live(),
            Link::In => self.incoming.live(),
        }
    }

    /// Ends a connection that the peer made unusable.
    pub(super) fn close(&mut self, link: Link, why: &'static str) {
        self.end(link, Why::Refused(why));
    }

    /// Ends a connection so that both nodes greet and compare their logs anew.
    pub(super) fn greet_again(&mut self, link: Link, why: &'static str) {
        self.end(link, Why::Again(why));
    }

    fn end(&mut self, link: Link, why: Why) {
        match link {
            Link::Out => {
                self.leave_ahead();
                self.outgoing = Outgoing::default();
            }
            Link::In => self.incoming = Incoming::closed(),
        }
        self.barrier = None;
        self.dos.push(Do::Close(link, why));
    }

    /// Compares our log with the peer's copy of it (D8).
    fn compare(&mut self, hello: Hello, store: &mut dyn Storage) {
        let ours = hello.cluster == self.cfg.cluster && hello.node == self.cfg.engine.me.peer();
        if !ours {
            return self.close(Link::Out, "the other side is not the peer of this cluster");
        }
        if !self.agree_on_version(hello.versions) {
            return self.close(Link::Out, OTHER_VERSION);
        }
        self.outgoing.boot = hello.boot;
        self.compare_with(&hello.runs, hello.regs, store);
    }

    /// The peer has greeted: what waited for that is compared, by the registers that it has now. Of our log it has what it had:
    /// that comes by this connection only.
    pub(super) fn compare_what_waits(&mut self, regs: [Option<Reg>; 2], store: &mut dyn Storage) {
        if let Some(copy) = self.outgoing.waits.take() {
            self.compare_with(&copy, regs, store);
        }
    }

    fn compare_with(&mut self, copy: &Runs, regs: [Option<Reg>; 2], store: &mut dyn Storage) {
        if NodeIx::BOTH.iter().any(|g| self.in_conflict(*g, regs[g.index()])) {
            return self
                .greet_again(Link::Out, "both nodes lead a group alone: their beacons settle that first");
        }
        self.outgoing.peer_regs = regs;
        let common = self.own.common(copy);
        self.peer_kept = self.peer_kept.min(common);
        let first_void = self.first_void(common, copy, store);
        if !self.fetches_ahead(common, copy, first_void, store) {
            self.meet(common, copy, first_void, store);
        }
    }

    /// Our log and this copy of it agree up to `common`, and clients of no group that the peer leads on were told anything upon
    /// what it has behind that and we do not.
    pub(super) fn meet(
        &mut self,
        common: u64,
        copy: &Runs,
        first_void: Option<u64>,
        store: &mut dyn Storage,
    ) {
        if let Some(first_void) = first_void {
            if !self.may_cut(Which::Own, first_void - 1, store) {
                return self.close(Link::Out, OLD_DISK);
            }
            if self.may_be_undone(store) {
                // The connection stays meanwhile: by it the peer knows what this node lost, and waits for nothing.
                (self.outgoing.phase, self.outgoing.waits) = (Phase::Greeted, Some(copy.clone()));
                return;
            }
            self.cut_own(first_void - 1, store);
        }
        let (own, theirs) = (self.own.end().seq, copy.end().seq);
        if first_void.is_some() && theirs > common && own == common {
            // Nothing is left of our tail: the peer is to know that before we ask for what it has of our log.
            return self.greet_again(Link::Out, "our log was cut: compare it again");
        }
        self.compared = true;
        if theirs > common && own > common {
            // Both went on from a common point: nothing that goes on rests on what the peer has behind it.
            self.dos.push(Do::Send(Link::Out, Msg::Rewind(common)));
            return self.go_live(common, store);
        }
        if theirs > common && self.cut_at == Some(common) && own == common {
            self.dos.push(Do::Send(Link::Out, Msg::Rewind(common)));
            return self.go_live(common, store);
        }
        if theirs > common {
            // Our log is shorter than the peer's copy: a lost tail or a restored disk. Take the end from there.
            self.outgoing.phase = Phase::Fetching;
            self.dos.push(Do::Send(Link::Out, Msg::Fetch(own + 1)));
            return;
        }
        if first_void.is_some() {
            // The peer would wait for the end that it was told of in our greeting.
            return self.greet_again(Link::Out, "our log was cut: compare it again");
        }
        self.go_live(theirs, store);
    }

    /// Both nodes lead the group alone by their own copies of the register, and neither knows yet who leads on (R0).
    pub(super) fn in_conflict(&self, group: NodeIx, theirs: Option<Reg>) -> bool {
        let (Some(mine), Some(theirs)) = (self.view.regs[group.index()], theirs) else { return false };
        let settled = theirs.settled >= mine.term || mine.settled >= theirs.term;
        mine.mode == Mode::Solo && theirs.mode == Mode::Solo && mine.primary != theirs.primary && !settled
    }

    /// Who leads the group now, as far as either node knows.
    pub(super) fn leader(&self, group: NodeIx) -> Option<Reg> {
        let known = [self.view.regs[group.index()], self.outgoing.peer_regs[group.index()]];
        known.into_iter().flatten().max_by_key(|reg| reg.term)
    }

    /// Whether the peer does.
    pub(super) fn peer_leads_now(&self, group: NodeIx) -> bool {
        self.leader(group).is_some_and(|reg| reg.primary != self.cfg.engine.me)
    }

    /// The first frame of our tail with a record of a group that the peer took over since, and that it did not have then:
    /// it was never released in Pair, and the peer's log goes on from before it. (What it had when it came to lead, and
    /// lost with its power later, is no part of that.)
    pub(super) fn first_void(&mut self, common: u64, copy: &Runs, store: &mut dyn Storage) -> Option<u64> {
        // What was removed both nodes had for good: it is history.
        let mut from = (common + 1).max(store.first(Which::Own));
        loop {
            let frames = store.read(Which::Own, from, CHUNK);
            if frames.is_empty() {
                return None;
            }
            for bytes in &frames {
                let frame = Frame::decode(bytes).ok()?;
                let superseded = |g: usize| {
                    let taken = self.outgoing.peer_regs[g].filter(|reg| reg.primary != self.cfg.engine.me);
                    let void = || {
                        let last = self.peer_leads.had_after(NodeIx::BOTH[g], frame.terms[g]);
                        last.is_none_or(|last| !had([&self.own, copy], last, frame.at))
                    };
                    let later = taken.is_some_and(|reg| reg.term > frame.terms[g]);
                    frame.groups & (1 << g) != 0 && later && void()
                };
                if superseded(0) || superseded(1) {
                    return Some(frame.at.seq);
                }
                from = frame.at.seq + 1;
            }
        }
    }

    fn on_fetched(&mut self, frames: Vec<Bytes>, last: bool, store: &mut dyn Storage) {
        if self.is_installing() {
            // The store is half of another one: nothing can be built on it until that is over.
            return self.greet_again(Link::Out, "a snapshot is coming in: compare the logs behind it");
        }
        if self.outgoing.ahead.is_some() {
            return self.on_ahead(frames, last, store);
        }
        for bytes in frames {
            let Ok(frame) = Frame::decode(&bytes) else { return self.close(Link::Out, "a damaged frame") };
            if frame.prev != self.own.end() {
                return self.close(Link::Out, "a frame that does not follow");
            }
            self.own.push(frame.at);
            store.append(Which::Own, frame.at, bytes);
        }
        if last {
            // The peer joins upon it.
            store.sync(Which::Own);
            self.rebuild(store);
            self.commit.restart(self.own.end().seq);
            self.go_live(self.own.end().seq, store);
            self.took = true;
            self.tell_whole();
        } else {
            self.dos.push(Do::Send(Link::Out, Msg::Fetch(self.own.end().seq + 1)));
        }
    }

    /// The peer holds our log up to `acked`; the rest follows.
    fn go_live(&mut self, acked: u64, store: &mut dyn Storage) {
        self.fetched = true;
        // What of our log was not cut stands.
        self.no_doubts_up_to(self.own.end().seq);
        if self.peer_lacks || acked + 1 < store.first(Which::Own) {
            self.outgoing.phase = Phase::Snapshot;
            return self.offer_snapshot(store);
        }
        self.outgoing.phase = Phase::Live;
        self.ask_to_keep();
        self.catch_up();
        self.outgoing.next = acked + 1;
        self.commit.session(acked);
        self.peer_applied = acked;
        self.release();
        self.pump(store);
    }

    /// Sends what the window allows of what was written before.
    pub(super) fn pump(&mut self, store: &mut dyn Storage) {
        let last = self.own.end().seq.min(self.commit.shippable());
        while self.outgoing.live() && self.outgoing.next <= last && self.outgoing.bytes < WINDOW {
            let frames = store.read(Which::Own, self.outgoing.next, CHUNK);
            if frames.is_empty() {
                return;
            }
            for bytes in frames {
                if self.outgoing.next > last {
                    return;
                }
                self.send_frame(self.outgoing.next, bytes);
            }
        }
    }

    fn send_frame(&mut self, seq: u64, bytes: Bytes) {
        self.outgoing.next = seq + 1;
        self.outgoing.bytes += bytes.len();
        self.outgoing.in_flight.push_back((seq, bytes.len()));
        self.dos.push(Do::Send(Link::Out, Msg::Frame(bytes)));
    }

    /// A frame that was just written: at once if the peer has all before it and we have what it answers, else by catch-up.
    pub(super) fn ship_new(&mut self, at: Position, bytes: &Bytes) {
        let may = self.outgoing.bytes < WINDOW && at.seq <= self.commit.shippable();
        if self.outgoing.live() && self.outgoing.next == at.seq && may {
            self.send_frame(at.seq, bytes.clone());
        }
    }

    fn on_ack(&mut self, ack: Ack, store: &mut dyn Storage) {
        let at = ack.at;
        if at.seq > 0 && self.own.at(at.seq) != Some(at) {
            return self.close(Link::Out, "an acknowledgement of what we did not write");
        }
        self.peer_applied = self.peer_applied.max(ack.applied);
        self.peer_kept = self.peer_kept.max(ack.kept.min(self.own.end().seq));
        self.peer_own = ack.own;
        self.has_own(ack.own);
        if self.incoming.live() {
            self.barrier.get_or_insert(ack.own);
        }
        while self.outgoing.in_flight.front().is_some_and(|(seq, _)| *seq <= at.seq) {
            let (_, bytes) = self.outgoing.in_flight.pop_front().expect("just seen");
            self.outgoing.bytes -= bytes;
        }
        self.commit.acked(at.seq);
        self.no_doubts_up_to(at.seq);
        self.release();
        self.pump(store);
    }
}
