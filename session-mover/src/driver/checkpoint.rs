//! The state on its way into the store, and back from it at a start.
//!
//! A checkpoint is taken between two turns: the values of all keys that changed since the last, and where both logs
//! stood. It is written when nothing of it waits any more, so that no frame that may still be void is ever in it (D8).
//! A tail that is cut later may still reach back behind it; then the store is cleared, and built again from the logs.

use presence_engine::ids::{NodeIx, Position, Term};
use presence_engine::state::State;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Driver;
use super::commit::Release;
use super::leads::Leads;
use crate::frame::Frame;
use crate::log::{Storage, Which};
use crate::runs::Runs;
use crate::store::{Batch, StoreError};

/// Format of the mark and of the values; a store of another format is cleared.
const VERSION: u8 = 1;
/// Bytes that one read of the store brings.
const CHUNK: usize = 1 << 20;

/// What a replay begins with.
#[derive(Debug, Default)]
pub(super) struct Base {
    pub(super) state: State,
    pub(super) mark: Mark,
    /// What of the own log the peer's frames behind the mark were written upon.
    pub(super) built_on_ours: Position,
}

/// Where both logs stood, and what else a replay of them to there would have found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    version: u8,
    pub(super) own: Runs,
    pub(super) peer: Runs,
    pub(super) built_on: Position,
    pub(super) own_leads: Leads,
    pub(super) peer_leads: Leads,
    pub(super) alone: [Term; 2],
}

/// A batch that waits until it is safe.
#[derive(Debug)]
pub(super) struct Checkpoint {
    at: u64,
    batch: Batch,
}

impl Driver {
    /// What the store holds, if it fits to the logs; else nothing, and the store is cleared.
    pub(super) fn base(&mut self, storage: &mut dyn Storage) -> Base {
        match self.load(storage) {
            Ok(Some(base)) => return base,
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "store set back");
                self.clear_store(storage);
            }
        }
        Base::default()
    }

    fn load(&self, storage: &mut dyn Storage) -> Result<Option<Base>, StoreError> {
        let Some(bytes) = storage.store().mark()? else { return Ok(None) };
        let mark: Mark =
            postcard::from_bytes(&bytes).map_err(|_| StoreError("its mark cannot be read".into()))?;
        if mark.version != VERSION {
            return Err(StoreError(format!("its format is {}, this node writes {VERSION}", mark.version)));
        }
        for (which, end) in [(Which::Own, mark.own.end()), (Which::Peer, mark.peer.end())] {
            let frame = storage.read(which, end.seq, 1).into_iter().next();
            if end.seq > 0 && frame.and_then(|bytes| Frame::check(&bytes).ok()) != Some(end) {
                return Err(StoreError("it is ahead of a log".into()));
            }
        }
        let mut state = State::default();
        let mut after = Vec::new();
        loop {
            let some = storage.store().scan(&after, CHUNK)?;
            let Some((last, _)) = some.last() else {
                return Ok(Some(Base { state, mark, ..Base::default() }));
            };
            after = last.to_vec();
            for (key, value) in &some {
                state.set(key, value).map_err(|error| StoreError(error.to_string()))?;
            }
        }
    }

    /// The logs are cut behind `keep`: a store that is ahead of that is of no use any more.
    pub(super) fn cut_store(&mut self, which: Which, keep: u64, storage: &mut dyn Storage) {
        let mark = storage.store().mark().ok().flatten();
        let mark = mark.and_then(|bytes| postcard::from_bytes::<Mark>(&bytes).ok()).unwrap_or_default();
        let end = match which {
            Which::Own => mark.own.end(),
            Which::Peer => mark.peer.end(),
        };
        if end.seq > keep {
            self.clear_store(storage);
        }
    }

    /// Forgets what the store holds; the next checkpoint writes everything.
    fn clear_store(&mut self, storage: &mut dyn Storage) {
        self.store_is_empty();
        if let Err(error) = storage.store().clear() {
            warn!(%error, "store not cleared");
        }
    }

    /// Writes the checkpoint that waited, or takes one if enough has changed.
    pub(super) fn keep_store(&mut self, storage: &mut dyn Storage) {
        if !storage.store().is_used() {
            return;
        }
        match &self.checkpoint {
            Some(checkpoint) if !self.writing && self.commit.is_done(checkpoint.at) => {
                self.write_checkpoint(storage);
            }
            None if !self.writing
                && self.is_whole()
                && self.own.end().seq >= self.checkpointed + self.cfg.checkpoint_frames =>
            {
                self.take_checkpoint();
            }
            _ => {}
        }
    }

    /// Both logs are here as far as they build on each other. Else an answer would stand in the store before the frame
    /// that it answers, which is still to come.
    fn is_whole(&self) -> bool {
        let serves = self.view.release.iter().any(|release| *release != Release::Nothing);
        self.lacks.is_none() && (self.fetched || serves)
    }

    fn take_checkpoint(&mut self) {
        let at = self.own.end().seq;
        self.checkpointed = at;
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
        };
        let mark = postcard::to_stdvec(&mark).expect("plain data can be written").into();
        let state = self.engine.state_mut();
        let keys = state.take_changes();
        let pairs = keys.iter().map(|key| (key.to_bytes(), state.value(key))).collect();
        self.checkpoint = Some(Checkpoint { at, batch: Batch { pairs, mark } });
    }

    fn write_checkpoint(&mut self, storage: &mut dyn Storage) {
        let Some(checkpoint) = self.checkpoint.take() else { return };
        self.writing = !storage.checkpoint(checkpoint.batch);
    }

    /// A checkpoint is durable (`true`), or the store has failed and is empty: the logs have it all, and the next checkpoint
    /// writes everything anew.
    pub fn checkpointed(&mut self, written: bool) {
        self.writing = false;
        if !written {
            self.store_is_empty();
        }
    }

    fn store_is_empty(&mut self) {
        self.checkpoint = None;
        self.checkpointed = 0;
        self.engine.state_mut().note_all();
    }

    /// For whoever looks from outside: the state with nothing but the logs, as a start without a store builds it.
    pub fn logs_alone(&self, storage: &mut dyn Storage) -> State {
        super::replay::Replay::new(self.cfg.engine.me, Base::default()).finish(storage).state
    }
}
