//! The state on its way into the store, and back from it at a start.
//!
//! A checkpoint is taken between two turns: the values of all keys that changed since the last, and where both logs
//! stood. It is written when nothing of it waits any more and both nodes have both logs up to there on their disks: no
//! frame in it can still be void (D8), and no tail that is cut later reaches back behind it. So the logs begin there from
//! then on; who has lost his disk gets the store ([`super::snapshot`]).

use bytes::Bytes;
use presence_engine::ids::{NodeIx, Position, Term};
use presence_engine::state::State;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::leads::Leads;
use super::ship::Phase;
use super::{Do, Driver, Link};
use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::msg::Msg;
use crate::runs::Runs;
use crate::store::{Batch, StoreError};

/// Format of the mark and of the values; a store of another format is cleared.
const VERSION: u8 = 3;
/// Why a store is of no use that was still being filled.
const HALF: &str = "a snapshot did not come in whole";
/// "Version" of a store that is still being filled.
const INCOMPLETE: u8 = 0;
/// Bytes that one read of the store brings.
const CHUNK: usize = 1 << 20;

/// What a replay begins with.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) state: State,
    pub(super) mark: Mark,
}

/// Where both logs stood, and what else a replay of them to there would have found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) version: u8,
    pub(super) own: Runs,
    pub(super) peer: Runs,
    pub(super) built_on: Position,
    pub(super) own_leads: Leads,
    pub(super) peer_leads: Leads,
    pub(super) alone: [Term; 2],
    pub(super) built_on_ours: Position,
    pub(super) behind: bool,
}

impl Mark {
    pub(super) fn encode(&self) -> Bytes {
        postcard::to_stdvec(self).expect("plain data can be written").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Mark, StoreError> {
        match postcard::from_bytes::<Mark>(bytes) {
            Ok(mut mark) if mark.version == VERSION => {
                mark.own_leads.find_in(&mark.peer);
                mark.peer_leads.find_in(&mark.own);
                Ok(mark)
            }
            Ok(mark) if mark.version == INCOMPLETE => Err(StoreError(HALF.into())),
            Ok(mark) => {
                Err(StoreError(format!("its format is {}, this node writes {VERSION}", mark.version)))
            }
            Err(_) => Err(StoreError("its mark cannot be read".into())),
        }
    }

    /// The mark of a store that has nothing, on a node that had something.
    pub(super) fn behind() -> Bytes {
        Mark { version: VERSION, behind: true, ..Mark::default() }.encode()
    }

    /// The mark of a store that is still being filled.
    pub(super) fn incomplete() -> Bytes {
        Mark::default().encode()
    }

    /// The same, as the other node sees it.
    pub(super) fn mirrored(self) -> Mark {
        Mark {
            version: self.version,
            own: self.peer,
            peer: self.own,
            built_on: self.built_on_ours,
            built_on_ours: self.built_on,
            own_leads: self.peer_leads,
            peer_leads: self.own_leads,
            // Whoever needs a snapshot has no log of its own that is not in it.
            alone: [Term(0); 2],
            behind: true,
        }
    }
}

/// A batch that waits until it is safe.
#[derive(Debug)]
pub(super) struct Checkpoint {
    at: u64,
    peer: u64,
    batch: Batch,
}

impl Driver {
    /// What the store holds, if it fits to the logs; else nothing, and the store is cleared.
    pub(super) fn base(&mut self, storage: &mut dyn Storage) -> Base {
        match self.load(storage) {
            Ok(Some(base)) => return base,
            Ok(None) => {}
            Err(error) => {
                if error.0 == HALF {
                    self.clear_store(storage);
                    self.stay_behind(storage);
                } else {
                    self.set_store_aside(&error, storage);
                }
            }
        }
        Base::default()
    }

    fn load(&self, storage: &mut dyn Storage) -> Result<Option<Base>, StoreError> {
        let Some(bytes) = storage.store().mark()? else { return Ok(None) };
        let mark = Mark::decode(&bytes)?;
        for (which, end) in [(Which::Own, mark.own.end()), (Which::Peer, mark.peer.end())] {
            if end.seq < storage.first(which) {
                // Removed because it is in the store; whether the rest follows it, whoever replays finds out.
                continue;
            }
            let frame = storage.read(which, end.seq, 1).into_iter().next();
            if frame.and_then(|bytes| Frame::check(&bytes).ok()) != Some(end) {
                return Err(StoreError("it is ahead of a log".into()));
            }
        }
        let mut state = State::default();
        let mut after = Vec::new();
        loop {
            let some = storage.store().scan(&after, CHUNK)?;
            let Some((last, _)) = some.last() else {
                return Ok(Some(Base { state, mark }));
            };
            after = last.to_vec();
            for (key, value) in &some {
                state.set(key, value).map_err(|error| StoreError(error.to_string()))?;
            }
        }
    }

    /// The logs are cut behind `keep`. A store that is ahead of that is of no use any more.
    pub(super) fn cut_store(&mut self, which: Which, keep: u64, storage: &mut dyn Storage) {
        assert!(
            self.may_cut(which, keep, storage),
            "the {which:?} log is cut behind {keep}: who asks looks first"
        );
        if self.stored[which as usize] > keep {
            self.clear_store(storage);
        }
    }

    /// Whether what is behind `keep` can go: a store that is ahead of that can be built again from the logs. Else one of the
    /// nodes has an old disk and went on with it.
    pub(super) fn may_cut(&self, which: Which, keep: u64, storage: &dyn Storage) -> bool {
        self.stored[which as usize] <= keep || !self.is_trimmed(storage)
    }

    /// Whether the logs alone give the state no more.
    fn is_trimmed(&self, storage: &dyn Storage) -> bool {
        [Which::Own, Which::Peer].iter().any(|which| storage.first(*which) > 1)
    }

    /// Whether the logs go on where the store ends.
    pub(super) fn follows(&self, mark: &Mark, storage: &dyn Storage) -> bool {
        storage.first(Which::Own) <= mark.own.end().seq + 1
            && storage.first(Which::Peer) <= mark.peer.end().seq + 1
    }

    /// Forgets what the store holds; the next checkpoint writes everything.
    pub(super) fn clear_store(&mut self, storage: &mut dyn Storage) {
        self.store_is_empty();
        if let Err(error) = storage.store().clear() {
            warn!(%error, "store not cleared");
        }
    }

    /// What cannot be used is kept for whoever wants to know why.
    pub(super) fn set_store_aside(&mut self, why: &StoreError, storage: &mut dyn Storage) {
        warn!(%why, "store set aside");
        self.store_is_empty();
        if let Err(error) = storage.store().set_aside(why) {
            warn!(%error, "store not set aside");
        }
    }

    /// Writes the checkpoint that waited, or takes one if enough has changed.
    pub(super) fn keep_store(&mut self, storage: &mut dyn Storage) {
        if !storage.store().is_used() {
            return;
        }
        self.offer_snapshot(storage);
        if self.writing || self.sends_snapshot() || self.installing.is_some() {
            return;
        }
        // A store that failed, and a peer that waits for what was in it: that peer has nothing that could still cut ours.
        let wanted = self.outgoing.phase == Phase::Snapshot;
        // Offers are answered from the logs: a store that is sent to a node without a disk has none of them waiting.
        let settled = self.is_whole() && !self.engine.state().has_offers();
        let due = settled && self.frames() >= self.checkpointed + self.cfg.checkpoint_frames;
        if self.checkpoint.is_none() && (due || wanted) {
            self.take_checkpoint();
            self.ask_to_keep();
        }
        let ready = |c: &&Checkpoint| self.is_final(c) || wanted && self.commit.is_done(c.at);
        if self.checkpoint.as_ref().filter(ready).is_some() {
            self.write_checkpoint(storage);
            self.offer_snapshot(storage);
        }
    }

    /// The next checkpoint is taken as soon as it may be, however little has changed.
    pub fn checkpoint_soon(&mut self) {
        self.checkpointed = 0;
    }

    fn frames(&self) -> u64 {
        self.own.end().seq + self.applied.seq
    }

    fn is_single(&self) -> bool {
        self.cfg.engine.peer.is_none()
    }

    /// Nothing of it waits, and both nodes have both logs up to there for good.
    fn is_final(&self, checkpoint: &Checkpoint) -> bool {
        let kept = self.peer_kept >= checkpoint.at && self.peer_own >= checkpoint.peer;
        self.commit.is_done(checkpoint.at) && (kept || self.is_single())
    }

    /// The peer makes durable what the checkpoint that waits has of our log, and tells.
    pub(super) fn ask_to_keep(&mut self) {
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| self.outgoing.live()) {
            self.dos.push(Do::Send(Link::Out, Msg::Keep(checkpoint.at)));
        }
    }

    /// Both logs flow, and everything of the peer's is here and applied that it may have written before they did: answers,
    /// and what was left of a tail (D7).
    pub(super) fn is_whole(&self) -> bool {
        let flows = self.outgoing.live() && self.incoming.live();
        let here = self.barrier.is_some_and(|end| self.applied.seq >= end);
        self.lacks.is_none() && (self.is_single() || flows && here)
    }

    pub(super) fn take_checkpoint(&mut self) {
        let (at, applied) = (self.own.end().seq, self.applied.seq);
        self.checkpointed = self.frames();
        let mut peer = self.peer.clone();
        peer.truncate(self.applied.seq);
        let mark = Mark {
            version: VERSION,
            own: self.own.clone(),
            peer,
            built_on: self.built_on,
            own_leads: self.own_leads.clone(),
            peer_leads: self.peer_leads.up_to(self.applied.seq),
            // After a restart nobody knows whether a change to Solo let anything go.
            alone: NodeIx::BOTH.map(|g| self.alone[g.index()].max(self.own_leads.last_solo(g))),
            built_on_ours: self.built_on_ours,
            behind: self.behind,
        };
        let state = self.engine.state_mut();
        let keys = state.take_changes();
        let pairs = keys.iter().map(|key| (key.to_bytes(), state.value(key))).collect();
        self.checkpoint = Some(Checkpoint { at, peer: applied, batch: Batch { pairs, mark: mark.encode() } });
    }

    fn write_checkpoint(&mut self, storage: &mut dyn Storage) {
        let Some(checkpoint) = self.checkpoint.take() else { return };
        self.stored = [checkpoint.at, checkpoint.peer];
        self.writing = true;
        if storage.checkpoint(checkpoint.batch) {
            self.checkpointed(true, storage);
        }
    }

    /// A checkpoint is durable (`true`): what is in it leaves the logs. Or the store has failed and is empty: the next
    /// checkpoint writes everything anew.
    pub fn checkpointed(&mut self, written: bool, storage: &mut dyn Storage) {
        self.writing = false;
        if !written {
            return self.store_is_empty();
        }
        // What offers are compared with stays until they are answered.
        if self.engine.state().has_offers() {
            return;
        }
        for which in [Which::Own, Which::Peer] {
            storage.trim(which, self.stored[which as usize] + 1);
        }
    }

    /// The store is filled by somebody else.
    pub(super) fn forget_store(&mut self) {
        self.store_is_empty();
    }

    fn store_is_empty(&mut self) {
        self.checkpoint = None;
        self.checkpointed = 0;
        self.stored = [0; 2];
        self.engine.state_mut().note_all();
    }

    /// For whoever looks from outside: the state with nothing but the logs, as a start without a store builds it; `None`:
    /// they do not have their beginnings any more.
    pub fn logs_alone(&self, storage: &mut dyn Storage) -> Option<State> {
        let whole = !self.is_trimmed(storage);
        whole.then(|| super::replay::Replay::new(self.cfg.engine.me, Base::default()).finish(storage).state)
    }
}
