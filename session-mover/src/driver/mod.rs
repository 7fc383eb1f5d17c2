//! The driver: turns of the engine become frames, frames go to disk and peer, and what the turns put out is let go by
//! the commit rule. Pure: disks, links and clocks are the shell's; it runs the same on a virtual clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod ahead;
pub mod check;
mod checkpoint;
pub mod commit;
mod leads;
mod merge;
mod receive;
mod rejoin;
mod replay;
mod ship;
mod snapshot;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, VecDeque};

use presence_engine::engine::{self, Engine, Input, Output, Print, Turn};
use presence_engine::ids::{NodeIx, Position, RecordId, Reg, Term};
use presence_engine::record::Record;
use xmpp_core::jid::BareJid;

use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::msg::Msg;
use crate::runs::Runs;

use check::{Check, Report};
use checkpoint::{Checkpoint, Mark};
use commit::{Commit, Release};
use leads::Leads;
use receive::Incoming;
use replay::note_alone;
use ship::Outgoing;

/// What the driver is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's part.
    pub engine: engine::Config,
    /// Oldest and newest version of the link that is spoken: [`crate::msg::VERSIONS`].
    pub versions: (u8, u8),
    /// Identity of the cluster.
    pub cluster: u64,
    /// This run of the process; random.
    pub boot: u64,
    /// Acknowledge the peer's frames only when they are synced (`commit = "peer-and-disk"`).
    pub ack_synced: bool,
    /// Own frames after which the store gets what changed.
    pub checkpoint_frames: u64,
}

/// What the safety cores say now, told before each step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Register copies of both groups.
    pub regs: [Option<Reg>; 2],
    /// What each group needs for a release.
    pub release: [Release; 2],
    /// Whether frames of the peer as primary of the group are kept and acknowledged (R4).
    pub accept: [bool; 2],
}

/// Which of the two connections of the link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Link {
    /// The one that this node dialled: its log goes out, acknowledgements come back.
    Out,
    /// The one that the peer dialled.
    In,
}

/// Why a connection is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Nothing is wrong: the nodes greet each other anew.
    Again(&'static str),
    /// What the peer says cannot be accepted.
    Refused(&'static str),
}

impl Why {
    /// For the operator.
    pub fn text(self) -> &'static str {
        let (Why::Again(text) | Why::Refused(text)) = self;
        text
    }
}

/// What the shell does for the driver, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    /// A message for the peer.
    Send(Link, Msg),
    /// End this connection; it is dialled again by whoever dialled it.
    Close(Link, Why),
    /// Safe: let it go.
    Release(Output),
    /// A control message of the peer.
    Control(bytes::Bytes),
    /// A tail was set aside: of which log, how many frames, how many of them had been released alone, and how many
    /// were written in its place (D7).
    SetAside(Which, u64, u64, u64),
    /// The peer's snapshot was installed: ends of the own log and of the peer's in it.
    Resynced(u64, u64),
    /// A check has come to its end.
    Checked(Report),
}

/// Bytes of frames in flight at which clients are no longer read.
pub const MAX_WAITING: usize = 8 << 20;
/// Frames that the peer may lag behind in applying before clients are no longer read (D9). What was let go alone does not
/// count.
pub const MAX_PEER_LAG: u64 = 20_000;
/// Items that a buffer keeps room for between turns.
const MOST_ROOM: usize = 4_096;
/// Frames of the peer that one turn applies at most.
const FRAMES_PER_TURN: usize = 256;

/// The driver of one node.
#[derive(Debug)]
pub struct Driver {
    cfg: Config,
    engine: Engine,
    view: View,
    /// Runs of the own log, and of the copy of the peer's.
    own: Runs,
    peer: Runs,
    /// Incarnation that the next own frame belongs to.
    inc: u64,
    commit: Commit,
    outgoing: Outgoing,
    incoming: Incoming,
    unprocessed: VecDeque<Frame>,
    /// Our log was compared with the peer's copy since this node started or lost a role, or there is nobody to compare it
    /// with. Until then nothing of the peer is applied: the tail of ours may be void, and what a sender of it was told
    /// elsewhere would come twice, out of that tail and out of the peer's log (D7).
    compared: bool,
    /// How far the peer's log is applied.
    applied: Position,
    /// How far the peer has applied ours.
    peer_applied: u64,
    /// The end of ours when it was last let go without the peer.
    alone_to: u64,
    /// The end of the own log is known to be all that there is of it (R6).
    fetched: bool,
    /// See [`Driver::alone_term`].
    alone: [Term; 2],
    /// Frames of the peer up to here were applied before a frame of our own was written, and our copy has lost them with
    /// the power: until they are here again nothing of the peer is applied.
    lacks: Option<Position>,
    /// What of the peer's log the last own frame was written upon.
    built_on: Position,
    check: Check,
    checkpoint: Option<Checkpoint>,
    /// One is on its way to the disk.
    writing: bool,
    /// Frames of both logs at the last checkpoint.
    checkpointed: u64,
    /// What the store holds of both logs: own, peer's.
    stored: [u64; 2],
    /// See [`Driver::is_behind`].
    behind: bool,
    /// How far the copy of the peer's log is durable here,
    kept: u64,
    /// how far the peer's copy of ours is durable there, and its own log.
    peer_kept: u64,
    peer_own: u64,
    /// The peer gave us the end of our own log, and may not know that we have it.
    took: bool,
    /// The own log of the peer when it first answered after both logs flowed: what it wrote in the place of a cut tail is
    /// before that.
    barrier: Option<u64>,
    /// The peer asked for an end of its own log that is no longer here.
    peer_lacks: bool,
    /// The mark of the snapshot that is coming in.
    /// And so many pieces of it are here.
    installing: Option<(Mark, u32)>,
    /// Of the own log, and of the copy of the peer's.
    own_leads: Leads,
    peer_leads: Leads,
    /// The peer's log does not have them either.
    void: Option<Position>,
    /// What of our log the copy of the peer's was written upon.
    built_on_ours: Position,
    /// The peer's copy of our log ends here, and what of it we lack is too long to be fetched, as long as the view is the same.
    too_long: Option<Position>,
    /// The own log was cut here by this run, and nothing was written since.
    cut_at: Option<u64>,
    /// What our log said, before it was cut, of how far clients were told something upon the copy (`told.rs`).
    told_upon_copy: [u64; 2],
    /// For the log of each node, while offers in it wait: the engine knows what the other log's branch took before this frame.
    compared_to: [Option<u64>; 2],
    /// See [`Driver::look_for_doubts`]: the frames, and the users.
    doubts: Vec<(u64, BareJid)>,
    rebuilds: u64,
    dos: Vec<Do>,
    /// Empty between turns; kept for their room.
    outputs: Vec<Output>,
    records: Vec<Record>,
}

impl Driver {
    /// A process that starts: replays both logs. `inc` is random.
    pub fn start(cfg: Config, inc: u64, store: &mut dyn Storage) -> Driver {
        let engine = Engine::new(cfg.engine.clone(), Default::default());
        let view = View { regs: [None; 2], release: [Release::Nothing; 2], accept: [false; 2] };
        let mut driver = Driver {
            cfg,
            engine,
            view,
            own: Runs::default(),
            peer: Runs::default(),
            inc,
            commit: Commit::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            unprocessed: VecDeque::new(),
            compared: false,
            applied: Position::default(),
            peer_applied: 0,
            alone_to: 0,
            fetched: false,
            alone: [Term(0); 2],
            lacks: None,
            built_on: Position::default(),
            check: Check::default(),
            checkpoint: None,
            writing: false,
            checkpointed: 0,
            stored: [0; 2],
            behind: false,
            kept: 0,
            peer_kept: 0,
            peer_own: 0,
            took: false,
            barrier: None,
            peer_lacks: false,
            installing: None,
            own_leads: Leads::default(),
            peer_leads: Leads::default(),
            void: None,
            built_on_ours: Position::default(),
            too_long: None,
            cut_at: None,
            told_upon_copy: [0; 2],
            compared_to: [None; 2],
            doubts: Vec::new(),
            rebuilds: 0,
            dos: Vec::new(),
            outputs: Vec::new(),
            records: Vec::new(),
        };
        driver.rebuild(store);
        // What is on disk when a process starts was written by an earlier one: as durable as it will ever be.
        driver.commit.restart(driver.own.end().seq);
        driver.commit.copy_is(driver.peer.end().seq);
        driver.kept = driver.peer.end().seq;
        driver
    }

    /// Gives the engine other settings, also when it is built anew.
    pub fn tune(&mut self, tuning: engine::Tuning) {
        self.cfg.engine.tune(tuning);
        self.engine.tune(tuning);
    }

    /// Re-login limits that clients are told now, in seconds.
    pub fn relogin(&self) -> (u32, u32) {
        self.cfg.engine.relogin_s
    }

    /// Other re-login limits from now on.
    pub fn set_relogin(&mut self, relogin_s: (u32, u32)) {
        self.cfg.engine.relogin_s = relogin_s;
        self.engine.set_relogin(relogin_s);
    }

    /// The engine, to be looked at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// At how many crashes of either node each input was being handled (D15).
    pub fn set_crashes(&mut self, counts: BTreeMap<Print, u32>) {
        self.engine.set_crashes(counts);
    }

    /// What dual clients of a group are told before anything is let go alone (D6).
    pub fn announce(&mut self, group: NodeIx, reg: Reg) -> Vec<Output> {
        self.engine.announcement(group, reg, self.commit.released())
    }

    /// How often the state was built anew: each time nobody is served until the cores say so again.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// What is to be done, in order.
    pub fn take(&mut self) -> Vec<Do> {
        std::mem::take(&mut self.dos)
    }

    /// The same into a buffer that is empty: its room is used for what comes next.
    pub fn take_into(&mut self, dos: &mut Vec<Do>) {
        debug_assert!(dos.is_empty(), "something was to be done before");
        std::mem::swap(&mut self.dos, dos);
    }

    /// What the cores say. Releases what became safe.
    pub fn set_view(&mut self, view: View) {
        if self.view != view {
            if self.is_alone() {
                self.alone_to = self.own.end().seq;
            }
            self.view = view;
            self.too_long = None;
            self.tell_doubts();
            self.acknowledge_withheld();
            self.release();
        }
    }

    /// Whether frames say now that what is in them of a group is let go alone.
    pub fn says_alone(&self, group: NodeIx) -> bool {
        matches!(self.view.release[group.index()], Release::Alone(_))
    }

    /// The register copies that it was told last.
    pub fn regs(&self) -> [Option<Reg>; 2] {
        self.view.regs
    }

    /// Own log: its end.
    pub fn own_end(&self) -> Position {
        self.own.end()
    }

    /// How far the own log is durable.
    pub fn own_synced(&self) -> u64 {
        self.commit.own_end()
    }

    /// How far the copy of the peer's log is durable.
    pub fn copy_synced(&self) -> u64 {
        self.kept
    }

    /// How far the copy of the peer's log is stored as surely as it is acknowledged.
    pub fn copy_stored(&self) -> u64 {
        self.commit.base()
    }

    /// Whether nothing up to this own frame waits for a disk or for the peer.
    pub fn is_done(&self, seq: u64) -> bool {
        self.commit.is_done(seq)
    }

    /// Copy of the peer's log: its end.
    pub fn peer_end(&self) -> Position {
        self.peer.end()
    }

    /// How far the peer acknowledged our log in this session.
    pub fn acked(&self) -> u64 {
        self.commit.peer_end()
    }

    /// Whether the own log is complete, and the copy of the peer's as far as ours builds on it (R6).
    pub fn fetched(&self) -> bool {
        self.fetched && self.lacks.is_none()
    }

    /// Whether the peer's log has answers to frames of our own that are not in it: they were sent, and this node died
    /// before it had written them.
    pub fn lacks_own(&self) -> bool {
        self.own.end().seq < self.built_on_ours.seq
    }

    /// Whether this node lost its disk, or got an old one, and does not have everything yet that the peer had when they met
    /// again. Until then it must not go on without the peer.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// The last term under which our log got client records of a group while we led it alone (R0: "acknowledged
    /// alone"). Known again after a restart.
    pub fn alone_term(&self, group: NodeIx) -> Term {
        self.alone[group.index()]
    }

    /// Whether what waits lacks only the peer's acknowledgement.
    pub fn lacks_peer(&self) -> bool {
        self.commit.lacks_peer()
    }

    /// The last frame that was let go.
    pub fn released(&self) -> u64 {
        self.commit.released()
    }

    /// Whether nothing waits for a release.
    pub fn quiet(&self) -> bool {
        self.commit.is_empty() && self.unprocessed.is_empty()
    }

    /// Whether clients may be read: unreplicated bytes and the peer's lag are within bounds (D9).
    pub fn clients_may_send(&self) -> bool {
        self.commit.waiting_bytes() < MAX_WAITING && !self.peer_lags()
    }

    /// Who served alone for an hour does not stop for a peer that returns and reads all that: nothing of it waits for the peer.
    fn peer_lags(&self) -> bool {
        let lag = self.own.end().seq.saturating_sub(self.peer_applied.max(self.alone_to));
        self.outgoing.live() && !self.is_alone() && lag > MAX_PEER_LAG
    }

    /// Whether something is let go here, and nothing of it waits for the peer.
    fn is_alone(&self) -> bool {
        let [a, b] = self.view.release;
        let alone = |release| matches!(release, Release::Alone(_));
        (alone(a) || alone(b)) && a != Release::Both && b != Release::Both
    }

    /// Whether frames of the peer wait to be applied, and may be.
    pub fn has_unprocessed(&self) -> bool {
        self.compared && !self.unprocessed.is_empty()
    }

    /// The peer is gone, or its users are taken: what it said last is applied without waiting for it.
    pub fn compare_no_more(&mut self) {
        self.compared = true;
    }

    /// One turn: frames of the peer first, then `inputs`; the records of all of them are one frame.
    pub fn turn(&mut self, now_ms: u64, inputs: Vec<Input>, store: &mut dyn Storage) {
        let waiting = if self.compared { self.unprocessed.len() } else { 0 };
        let count = waiting.min(FRAMES_PER_TURN).min(self.frames_to_check());
        if count == 0 && inputs.is_empty() {
            return;
        }
        let frames: Vec<Frame> = self.unprocessed.drain(..count).collect();
        if let Some(last) = frames.last() {
            self.applied = last.at;
        }
        let prev = self.own.end();
        let at = Position { seq: prev.seq + 1, inc: self.inc };
        let mut outputs = std::mem::take(&mut self.outputs);
        self.engine.waits_from(self.commit.waits_from());
        self.engine.holds_from(self.commit.holds_from());
        self.engine.begin(Turn { now_ms, at, applied_peer: self.applied });
        // Users whose hand-over turned out to stand come with what is undone for them.
        let all = self.engine.has_arrivals();
        let mut forwards: Vec<RecordId> =
            if all { self.engine.state().undone_in_order() } else { Vec::new() };
        for frame in &frames {
            forwards.extend(self.engine.apply_peer(
                frame.at,
                frame.applied_peer,
                &frame.records,
                &mut outputs,
            ));
        }
        self.answer_part();
        self.compare_offers(store);
        let prints = self.engine.prints(&inputs, &forwards);
        if !prints.is_empty() {
            store.note_turn(&prints);
        }
        if !frames.is_empty() || self.engine.has_arrivals() {
            self.engine.process(forwards, &mut outputs);
            self.tell_applied();
        }
        for input in inputs {
            self.engine.handle(input, &mut outputs);
        }
        self.engine.end(&mut outputs);
        if !prints.is_empty() {
            store.note_turn(&[]);
        }
        self.finish_turn(now_ms, at, prev, &mut outputs, store);
        self.outputs = emptied(outputs);
        self.keep_store(store);
    }

    /// Records become a frame; the rest waits for it.
    fn finish_turn(
        &mut self,
        now_ms: u64,
        at: Position,
        prev: Position,
        all: &mut Vec<Output>,
        store: &mut dyn Storage,
    ) {
        let mut records = std::mem::take(&mut self.records);
        let mut outputs = Vec::with_capacity(all.len());
        let mut groups = 0;
        for output in all.drain(..) {
            match output {
                Output::Record { groups: of, record } => {
                    groups |= of;
                    records.push(record);
                }
                // Evidence and news of sockets tell nobody anything that is not safe: they do not wait.
                now @ (Output::Report { .. }
                | Output::MainLost(_)
                | Output::Parked(..)
                | Output::Probed(_)) => {
                    self.dos.push(Do::Release(now));
                }
                // The owner waited for what it let go; here it must not wait for something else again.
                Output::Fronted(output) => self.dos.push(Do::Release(*output)),
                other => outputs.push(other),
            }
        }
        if records.is_empty() {
            self.records = records;
            if !outputs.is_empty() {
                self.commit.hold(prev.seq, 0, 0, self.applied.seq, outputs);
                self.release();
            }
            return;
        }
        let alone = |g: NodeIx| u8::from(self.says_alone(g)) << g.index();
        let frame = Frame {
            groups,
            solo: alone(NodeIx::A) | alone(NodeIx::B),
            terms: self.view.regs.map(|reg| reg.map_or(Term(0), |r| r.term)),
            at,
            prev,
            applied_peer: self.applied,
            now_ms,
            records,
        };
        note_alone(&mut self.alone, &frame);
        self.built_on = self.built_on.max_by_seq(frame.applied_peer);
        self.own_leads.note(self.cfg.engine.me, &frame);
        let bytes = frame.encode();
        self.records = emptied(frame.records);
        self.cut_at = None;
        self.own.push(at);
        self.commit.hold(at.seq, groups, bytes.len(), self.applied.seq, outputs);
        // Sent before the own fdatasync, so that the two waits overlap (R8).
        self.ship_new(at, &bytes);
        store.append(Which::Own, at, bytes);
    }

    /// A write (`synced = false`) or fdatasync (`true`) of a log is complete up to `at`.
    pub fn stored(&mut self, which: Which, at: Position, synced: bool, store: &mut dyn Storage) {
        match which {
            Which::Own if synced && self.own.at(at.seq) == Some(at) => {
                self.commit.synced(at.seq);
                self.release();
            }
            Which::Own => {}
            Which::Peer => {
                let ours = self.peer.at(at.seq) == Some(at);
                if ours && synced {
                    self.kept = self.kept.max(at.seq);
                }
                if ours && synced == self.cfg.ack_synced {
                    self.commit.copied(at.seq);
                    self.release();
                    self.pump(store);
                }
                if synced == self.cfg.ack_synced {
                    self.acknowledge(at);
                }
                self.keep_copy(true, store);
            }
        }
    }

    /// Lets go of everything that is safe by now, but for what became void meanwhile.
    fn release(&mut self) {
        let Driver { commit, dos, view, engine, .. } = self;
        commit.release(view.release, |output| {
            if !engine.is_void(&output) {
                dos.push(Do::Release(output));
            }
        });
    }
}

/// A buffer to be used again, unless one turn made it much larger than the next will need.
fn emptied<T>(mut buffer: Vec<T>) -> Vec<T> {
    buffer.clear();
    buffer.shrink_to(MOST_ROOM);
    buffer
}
