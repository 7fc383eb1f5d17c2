//! The peer's log on its way to us. The reader never waits for the engine: check, write, acknowledge, go on (D9).

use bytes::Bytes;
use presence_engine::engine::Input;
use presence_engine::ids::{Mode, NodeIx, Position, SmId};

use super::ahead::groups_of;
use super::check::Part;
use super::leads::had;
use super::replay::Reader;
use super::told::only_offers;
use super::{Do, Driver, Link};
use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::msg::{Ack, Hello, Msg};
use crate::runs::Runs;

/// Why two nodes do not talk: an operator must choose.
pub(super) const OTHER_VERSION: &str = "the peer speaks another version of the link: upgrade the older node";
pub(super) const OLD_DISK: &str = "the logs part before what both nodes had for good: one of them has an old disk and went on \
                                   with it. Stop that node, move its data folder away, and start it again";
pub(super) const TOLD_UPON: &str = "the peer wants to undo what clients of this node were told something upon: upgrade it if it \
                                    is older. If it is not, stop the node whose clients were told less since they parted, \
                                    move its data folder away, keep it, and start the node again";
/// Bytes of one answer to a fetch.
const FETCH_BYTES: usize = 1 << 20;

/// The connection that the peer dialled.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    greeted: bool,
    /// This node has closed it: what is still on its way is not heard.
    closed: bool,
    /// The peer's log flows: a frame came, or everything was there from the start.
    flows: bool,
    pub(super) boot: u64,
    /// The peer leads its group alone: what it wrote was let go.
    alone: bool,
    /// It takes the end of its own log from our copy, up to here: it has that when it says that it is on its disk.
    takes: Option<u64>,
    /// What we last acknowledged.
    acked: Position,
    /// How far the peer knows that we have applied its log.
    told_applied: u64,
    /// How far the peer wants our copy to be durable; 0: it said nothing, or was told.
    keep: u64,
    keeping: bool,
    /// The peer's log when we met.
    met: Runs,
    /// Where its log and our copy of it parted then.
    parted: Option<u64>,
    /// A part of the peer's check that is to be answered.
    pub(super) part: Option<Part>,
    /// Stored while this node asked for promotion, and not acknowledged.
    withheld: Option<Position>,
}

impl Incoming {
    /// Of a connection that this node has closed.
    pub(super) fn closed() -> Incoming {
        Incoming { closed: true, ..Incoming::default() }
    }

    /// Whether the peer's present boot found our copy of its log to be right.
    pub(super) fn live(&self) -> bool {
        self.flows
    }

    /// The peer lost what our copy has of its log behind this, and has not said yet what is to become of that.
    pub(super) fn undoes(&self) -> Option<u64> {
        self.parted.filter(|_| self.greeted && !self.flows)
    }
}

impl Driver {
    /// The peer has made a connection, in the place of any that was there before.
    pub fn peer_comes(&mut self) {
        self.incoming.closed = false;
    }

    /// The peer's connection is gone.
    pub fn peer_gone(&mut self) {
        self.incoming = Incoming::default();
        self.barrier = None;
    }

    /// Whether the peer's log flows to us.
    pub fn hears_log(&self) -> bool {
        self.incoming.live()
    }

    /// The peer's boot, as it said on its connection.
    pub fn peer_boot(&self) -> Option<u64> {
        self.incoming.greeted.then_some(self.incoming.boot)
    }

    /// A message on the connection that the peer dialled.
    pub fn on_in(&mut self, msg: Msg, store: &mut dyn Storage) -> Option<Input> {
        match msg {
            Msg::Hello(hello) if !self.incoming.greeted => self.greet(hello, store),
            _ if self.incoming.closed => {}
            _ if !self.incoming.greeted => self.close(Link::In, "no greeting"),
            Msg::Rewind(keep) => self.rewind(keep, store),
            Msg::Fetch(from) => self.serve_fetch(from, store),
            Msg::Frame(bytes) => self.receive(bytes, store),
            Msg::Keep(seq) => {
                self.incoming.keep = seq;
                self.keep_copy(false, store);
            }
            Msg::Snapshot(mark) => self.begin_install(&mark, store),
            Msg::Pairs(pairs) => self.install(pairs, store),
            Msg::Parked(session, on, token) => return Some(Input::PeerParked { session, on, token }),
            Msg::Relay(mut relay) => {
                // Its own log may have what our copy lacks, such as a tail from before a takeover that is void.
                if !self.incoming.live() {
                    relay.count_no_attempts();
                }
                return Some(Input::Relay(relay));
            }
            Msg::Fronted(told) => return Some(Input::Fronted(told)),
            Msg::Control(bytes) => self.dos.push(Do::Control(bytes)),
            Msg::Check(part) => {
                self.incoming.part = Some(part);
                self.answer_part();
            }
            Msg::Hello(_) | Msg::Fetched(..) | Msg::Ack(..) | Msg::Want(_) | Msg::Checked(..) => {
                self.close(Link::In, "a message that does not fit here")
            }
        }
        None
    }

    fn greet(&mut self, hello: Hello, store: &mut dyn Storage) {
        if hello.cluster != self.cfg.cluster {
            return self.close(Link::In, "the peer's disk belongs to another cluster");
        }
        if hello.node != self.cfg.engine.me.peer() {
            return self.close(Link::In, "both nodes have the same name");
        }
        if !self.agree_on_version(hello.versions) {
            return self.close(Link::In, OTHER_VERSION);
        }
        let (end, common) = (self.peer.end(), self.peer.common(&hello.runs));
        let complete = common == end.seq && hello.runs.end() == end;
        let parted = common < end.seq && common < hello.runs.end().seq;
        self.incoming = Incoming {
            greeted: true,
            closed: false,
            flows: complete,
            boot: hello.boot,
            alone: hello.regs.iter().flatten().any(|reg| reg.primary == hello.node && reg.mode == Mode::Solo),
            takes: None,
            acked: end,
            told_applied: self.applied.seq,
            keep: 0,
            keeping: false,
            met: hello.runs.clone(),
            parted: parted.then_some(common),
            part: None,
            withheld: None,
        };
        self.barrier = None;
        // What a process finds when it starts, and greets with, is on its disk.
        self.peer_own = self.peer.common(&hello.runs).max(self.peer_own.min(hello.runs.end().seq));
        if let Some(lacks) = self.lacks.filter(|at| hello.runs.at(at.seq) != Some(*at)) {
            // An end that the peer lost, and our copy has, it takes from there.
            let theirs = hello.runs.end().seq;
            let fetched = self.peer.common(&hello.runs) == theirs;
            let whole = if fetched { theirs.max(self.peer.end().seq) } else { theirs };
            self.cut_what_answers(lacks, whole, store);
            // What the peer does have of it comes first: our log may hold the answers to that already.
            let end = hello.runs.end();
            let rest = end.seq > self.peer.end().seq;
            (self.lacks, self.void) =
                (rest.then_some(if end.seq < lacks.seq { end } else { lacks }), Some(lacks));
        }
        let answer = self.hello(self.peer.clone());
        self.dos.push(Do::Send(Link::In, Msg::Hello(answer)));
        if complete {
            // It goes live upon the greeting, and may have nothing to write.
            self.tell_whole();
        }
        self.compare_what_waits(hello.regs, store);
    }

    /// Both nodes died, and with them frames of the peer that we had answered already. Nothing of those answers was let
    /// go: they go too, unless this run has served since.
    fn cut_what_answers(&mut self, lacks: Position, whole: u64, store: &mut dyn Storage) {
        let mut reader = Reader::new(Which::Own, store.first(Which::Own));
        let mut first = None;
        while let Some(frame) = reader.pop(store) {
            match (frame.applied_peer.seq > whole, first) {
                _ if only_offers(&frame) => {}
                (true, None) => first = Some(frame.at.seq),
                (false, Some(_)) => return,
                _ => {}
            }
        }
        let Some(first) = first.filter(|_| self.built_on == lacks) else { return };
        if !self.may_cut(Which::Own, first - 1, store) {
            return self.close(Link::In, OLD_DISK);
        }
        self.drop_answers(first - 1, whole, store);
        if self.outgoing.is_up() {
            self.greet_again(Link::Out, "our log was cut: compare it again");
        }
    }

    /// The peer went on from an earlier point than our copy ends: nobody who is led here was told anything upon our rest of it.
    fn rewind(&mut self, keep: u64, store: &mut dyn Storage) {
        let leads =
            |g: NodeIx| self.view.regs[g.index()].is_some_and(|reg| reg.primary == self.cfg.engine.me);
        if keep < self.peer.end().seq && leads(self.cfg.engine.me.peer()) {
            return self.close(Link::In, "the peer wants to undo what we took over");
        }
        if !self.may_cut(Which::Peer, keep, store) {
            return self.close(Link::In, OLD_DISK);
        }
        if self.told_upon(keep, store) {
            return self.close(Link::In, TOLD_UPON);
        }
        if keep < self.peer.end().seq {
            self.cut_unseen_answers(keep, store);
            if !self.offer_what_was_told(keep, store) {
                return self.greet_again(Link::In, "our log is fetched first: compare the peer's after that");
            }
        }
        if self.built_on.seq > keep {
            // What is undone does not come again, though frames with its numbers do.
            self.void = Some(self.built_on);
        }
        self.cut_copy(keep, store);
        self.incoming.acked = self.peer.end();
        self.flows();
        self.pump(store);
    }

    /// Whether clients of a group that this node leads were told something, by this node alone, upon what our copy has of that
    /// group behind `keep`. The peer looks itself before it undoes that; an older one does not.
    fn told_upon(&self, keep: u64, store: &mut dyn Storage) -> bool {
        let Some(first) = self.first_answer(keep, store) else { return false };
        let (mut undone, mut groups) = (Reader::new(Which::Peer, keep + 1), 0);
        while let Some(frame) = undone.pop(store) {
            groups |= groups_of(&frame);
        }
        for group in NodeIx::BOTH {
            let led = self.view.regs[group.index()].is_some_and(|reg| reg.primary == self.cfg.engine.me);
            groups &= !(u8::from(!led) << group.index());
        }
        let mut answers = Reader::new(Which::Own, first);
        while let Some(frame) = answers.pop(store) {
            let says = frame.records.iter().any(|record| !record.says_nothing());
            if says && frame.solo & frame.groups & groups != 0 {
                return true;
            }
        }
        false
    }

    /// What the peer undoes was processed here before both nodes died: the answers are in our own log. The peer never
    /// acknowledged them, or it would have waited for us instead of going on without what they answer; so nobody saw them,
    /// and they go too, with what was written behind them. Unless this node has led alone since and let it go.
    fn cut_unseen_answers(&mut self, keep: u64, store: &mut dyn Storage) {
        let first = self.first_answer(keep, store);
        let unseen = |first: &u64| *first > self.commit.peer_end();
        if let Some(first) = first.filter(unseen)
            && self.may_cut(Which::Own, first - 1, store)
            && self.released_alone(Which::Own, first - 1, store) == 0
        {
            self.drop_answers(first - 1, keep, store);
            if self.outgoing.is_up() {
                self.greet_again(Link::Out, "our log was cut: compare it again");
            }
        }
    }

    /// This node is about to lead alone after a start, and its log has answers to frames that its copy of the peer's log has
    /// lost: nothing of them was let go, and nobody knows whether the peer has what they answer.
    pub fn drop_unseen_answers(&mut self, store: &mut dyn Storage) {
        if self.lacks.is_some() && !self.outgoing.is_up() {
            let first = self.first_answer(self.peer.end().seq, store);
            let upon = self.peer.end().seq;
            first.into_iter().for_each(|first| self.drop_answers(first - 1, upon, store));
        }
    }

    /// The first frame of our log that was written upon what the peer wrote behind `seq`.
    pub(super) fn first_answer(&self, seq: u64, store: &mut dyn Storage) -> Option<u64> {
        // Nothing that was removed answers what may be lost.
        let mut reader = Reader::new(Which::Own, store.first(Which::Own));
        while let Some(frame) = reader.pop(store) {
            if frame.applied_peer.seq > seq {
                return Some(frame.at.seq);
            }
        }
        None
    }

    /// One piece of our copy; the peer asks for the next when it has this one, so that a long log is never in memory
    /// at once. A frame that is larger than a piece goes alone.
    fn serve_fetch(&mut self, from: u64, store: &mut dyn Storage) {
        // It went on beside what we have of its log, and what it asks for both nodes had for good.
        if self.incoming.parted.is_some_and(|common| self.stored[Which::Peer as usize] > common) {
            return self.close(Link::In, OLD_DISK);
        }
        if from < store.first(Which::Peer) {
            return self.peer_lacks_its_log();
        }
        let mut frames = store.read(Which::Peer, from, FETCH_BYTES);
        let mut bytes = 0;
        let fits = frames.iter().take_while(|frame| {
            bytes += frame.len();
            bytes <= FETCH_BYTES
        });
        let count = fits.count().max(1);
        frames.truncate(count);
        let last = frames.is_empty() || from + frames.len() as u64 > self.peer.end().seq;
        self.dos.push(Do::Send(Link::In, Msg::Fetched(frames, last)));
        // Whose log parts from our copy puts that into its own now, and greets anew when it has.
        if last && self.incoming.parted.is_none() {
            self.incoming.takes = Some(self.peer.end().seq);
            self.peer_lacks = false;
            // It may wait for the end of our own log as we do for its.
            self.tell_whole();
        }
    }

    /// The peer's present boot has all of its own log.
    fn flows(&mut self) {
        (self.incoming.flows, self.incoming.takes) = (true, None);
        self.peer_lacks = false;
    }

    /// The peer has so much of its own log on its disk.
    pub(super) fn has_own(&mut self, seq: u64) {
        if self.incoming.takes.is_some_and(|takes| seq >= takes) {
            self.flows();
        }
    }

    /// The peer, which had the end of our own log and gave it to us, waits to hear that it is on our disk. If it is not ready
    /// to hear that, it is told when it greets, or with what it writes next.
    pub(super) fn tell_whole(&mut self) {
        if self.took && self.fetched && (self.incoming.live() || self.incoming.takes.is_some()) {
            self.send_ack();
        }
    }

    /// One frame: kept only if each group that it speaks for is led by the peer as we know it, and we do not ask for
    /// promotion ourselves (R4); refused before it is acknowledged if we cannot read it.
    fn receive(&mut self, bytes: Bytes, store: &mut dyn Storage) {
        let Ok(frame) = Frame::decode(&bytes) else {
            return self.close(
                Link::In,
                "a frame that cannot be read: if the other node runs a newer version, upgrade this one",
            );
        };
        if frame.at.seq <= self.peer.end().seq && self.peer.at(frame.at.seq) == Some(frame.at) {
            return;
        }
        if frame.prev != self.peer.end() {
            return self.close(Link::In, "a frame that does not follow");
        }
        let parted = |at: Position| self.own.at(at.seq).is_some_and(|ours| ours != at);
        if !self.incoming.alone && parted(frame.applied_peer) {
            // It hears on the other connection how far it has to go back.
            return self.close(Link::In, "a frame that answers what our log does not have");
        }
        for group in NodeIx::BOTH {
            let g = group.index();
            if frame.groups & (1 << g) == 0 {
                continue;
            }
            // What the peer wrote, and we did not have, when we began to lead the group ourselves is void.
            let last = self.own_leads.had_after(group, frame.terms[g]);
            let void = last.is_some_and(|last| !had([&self.incoming.met, &self.peer], last, frame.at));
            if !self.view.accept[g] || void {
                return self.close(Link::In, "a frame for a group that the peer does not lead");
            }
        }
        self.flows();
        self.peer.push(frame.at);
        self.peer_leads.note(self.cfg.engine.me.peer(), &frame);
        store.append(Which::Peer, frame.at, bytes);
        match self.lacks {
            None => self.unprocessed.push_back(frame),
            Some(lacks) if frame.at.seq >= lacks.seq => self.rebuild(store),
            Some(_) => {}
        }
        self.keep_copy(false, store);
        self.catch_up();
    }

    /// A node that was behind has everything that the peer had when they met.
    pub(super) fn catch_up(&mut self) {
        if self.behind && self.fetched && self.has_met() {
            self.behind = false;
        }
    }

    /// Whether everything is here that the peer had when its connection was made.
    pub fn has_all_of_peer(&self) -> bool {
        self.incoming.live() && self.has_met()
    }

    fn has_met(&self) -> bool {
        let whole = self.lacks.is_none() && self.installing.is_none();
        whole && self.incoming.flows && self.peer.end().seq >= self.incoming.met.end().seq
    }

    /// The peer waits for our copy to be durable. `done`: something just became so.
    pub(super) fn keep_copy(&mut self, done: bool, store: &mut dyn Storage) {
        let wanted = self.incoming.keep;
        if wanted == 0 || self.peer.end().seq < wanted {
            return;
        }
        if self.kept >= wanted {
            (self.incoming.keep, self.incoming.keeping) = (0, false);
            self.send_ack();
        } else if done || !self.incoming.keeping {
            self.incoming.keeping = true;
            store.sync_soon(Which::Peer);
        }
    }

    fn send_ack(&mut self) {
        let (at, applied, kept) = (self.incoming.acked, self.applied.seq, self.kept);
        let own = self.commit.own_end();
        self.dos.push(Do::Send(Link::In, Msg::Ack(Ack { at, applied, kept, own })));
    }

    /// Our copy is stored up to `at`: tell the peer, unless we ask for promotion (R4).
    pub(super) fn acknowledge(&mut self, at: Position) {
        let asking = NodeIx::BOTH.iter().any(|g| {
            let led_by_peer = self.view.regs[g.index()].is_some_and(|reg| reg.primary != self.cfg.engine.me);
            led_by_peer && !self.view.accept[g.index()]
        });
        if self.incoming.greeted && self.peer.at(at.seq) == Some(at) && at.seq > self.incoming.acked.seq {
            if asking {
                self.incoming.withheld = Some(at);
                return;
            }
            self.incoming.withheld = None;
            self.incoming.acked = at;
            self.send_ack();
        }
    }

    /// What was stored while this node asked is acknowledged when it asks no more: the peer may write nothing else.
    pub(super) fn acknowledge_withheld(&mut self) {
        if let Some(at) = self.incoming.withheld {
            self.acknowledge(at);
        }
    }

    /// The peer throttles its clients by how far we have applied its log (D9).
    pub(super) fn tell_applied(&mut self) {
        if self.incoming.greeted && self.applied.seq >= self.incoming.told_applied + 1_024 {
            self.incoming.told_applied = self.applied.seq;
            self.send_ack();
        }
    }

    /// A stream was parked here, or is gone.
    pub fn tell_parked(&mut self, session: SmId, on: bool) {
        if self.outgoing.live() {
            let token = self.engine.token_to_tell(session);
            self.dos.push(Do::Send(Link::Out, Msg::Parked(session, on, token)));
        }
    }
}
