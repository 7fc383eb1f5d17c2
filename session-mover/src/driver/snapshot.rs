//! A node that lacks what is no longer in the logs gets the other one's store (D8), and goes on from there as after any
//! start: the logs tell the rest.
//!
//! The node that has it sends, on the connection that it dialled: the mark of its store, then as many pairs as the other
//! asks for, one piece at a time. Nothing is written into the store meanwhile. The other one fills its own store, whose
//! mark says "incomplete" until all is there; only then its logs are set aside, and begin where the store ends.

use bytes::Bytes;
use tracing::{info, warn};

use super::checkpoint::Mark;
use super::commit::Release;
use super::ship::Phase;
use super::{Do, Driver, Link};
use crate::log::{Storage, Which};
use crate::msg::Msg;
use crate::runs::Runs;
use crate::store::{Batch, Pairs, StoreError};

/// Bytes of pairs in one message.
const PIECE: usize = 512 << 10;

impl Driver {
    /// Whether the store must stay as it is.
    pub(super) fn sends_snapshot(&self) -> bool {
        self.outgoing.phase == Phase::Sending
    }

    /// Whether the store is being filled with the peer's.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The peer asked for an end of its own log that is no longer in our copy.
    pub(super) fn peer_lacks_its_log(&mut self) {
        self.peer_lacks = true;
        if self.outgoing.live() {
            self.greet_again(Link::Out, "the peer needs a snapshot");
        }
    }

    /// Begins to send the store, as soon as it is at rest.
    pub(super) fn offer_snapshot(&mut self, storage: &mut dyn Storage) {
        if self.outgoing.phase != Phase::Snapshot || self.writing {
            return;
        }
        match storage.store().mark() {
            Ok(Some(mark)) => {
                self.outgoing.phase = Phase::Sending;
                self.dos.push(Do::Send(Link::Out, Msg::Snapshot(mark)));
            }
            Ok(None) => warn!("the peer needs a snapshot, and the store is empty"),
            Err(error) => warn!(%error, "the peer needs a snapshot"),
        }
    }

    /// The next piece.
    pub(super) fn send_pairs(&mut self, after: &Bytes, storage: &mut dyn Storage) {
        match storage.store().scan(after, PIECE) {
            Ok(pairs) => {
                if pairs.is_empty() {
                    self.peer_lacks = false;
                }
                self.dos.push(Do::Send(Link::Out, Msg::Pairs(pairs)));
            }
            Err(error) => {
                warn!(%error, "snapshot");
                self.close(Link::Out, "the store cannot be read");
            }
        }
    }

    /// A snapshot is coming: refused by a node that serves, or that has what the snapshot does not know.
    pub(super) fn begin_install(&mut self, mark: &[u8], storage: &mut dyn Storage) {
        let Ok(mark) = Mark::decode(mark) else {
            return self.close(Link::In, "a snapshot of another version");
        };
        if self.view.release.iter().any(|release| *release != Release::Nothing) {
            return self.close(Link::In, "a snapshot for a node that serves");
        }
        let fits = |ours: &Runs, theirs: &Runs| ours.common(theirs) == ours.end().seq.min(theirs.end().seq);
        if !fits(&self.own, &mark.peer) || !fits(&self.peer, &mark.own) {
            return self.close(Link::In, "a snapshot that does not know all of this node's log");
        }
        let begun = storage.store().clear().and_then(|()| fill(storage, Vec::new(), Mark::incomplete()));
        self.forget_store();
        if let Err(error) = begun {
            warn!(%error, "snapshot");
            return self.close(Link::In, "the store cannot be written");
        }
        info!("this node's logs do not reach back far enough: a snapshot of the peer's store is coming in");
        (self.behind, self.installing) = (true, Some((mark, 0)));
        self.dos.push(Do::Send(Link::In, Msg::Want(Bytes::new())));
    }

    /// Some pairs, or the end of them.
    pub(super) fn install(&mut self, pairs: Pairs, storage: &mut dyn Storage) {
        let Some((mark, pieces)) = self.installing.take() else {
            return self.close(Link::In, "pairs of no snapshot");
        };
        let Some(last) = pairs.last().map(|(key, _)| key.clone()) else {
            return self.finish_install(mark, pieces, storage);
        };
        match fill(storage, pairs, Mark::incomplete()) {
            Ok(()) => {
                self.installing = Some((mark, pieces + 1));
                self.dos.push(Do::Send(Link::In, Msg::Want(last)));
            }
            Err(error) => {
                warn!(%error, "snapshot");
                self.close(Link::In, "the store cannot be written");
            }
        }
    }

    /// All is there: the logs begin behind it, unless they go on from before it anyway.
    fn finish_install(&mut self, mark: Mark, pieces: u32, storage: &mut dyn Storage) {
        let mark = mark.mirrored();
        for (which, runs) in [(Which::Own, &mark.own), (Which::Peer, &mark.peer)] {
            let here = if which == Which::Own { self.own.end() } else { self.peer.end() };
            let end = runs.end().seq;
            if here.seq < end || storage.first(which) > end + 1 {
                storage.begin_at(which, end + 1);
            }
        }
        if let Err(error) = fill(storage, Vec::new(), mark.encode()) {
            warn!(%error, "snapshot");
            return self.close(Link::In, "the store cannot be written");
        }
        self.begin_incarnation();
        self.fetched = false;
        self.void = None;
        self.rebuild(storage);
        storage.sync(Which::Own);
        storage.sync(Which::Peer);
        self.commit.restart(self.own.end().seq);
        self.commit.copy_is(self.peer.end().seq);
        self.kept = self.peer.end().seq;
        (self.peer_kept, self.peer_own) = (self.own.end().seq.min(self.peer_kept), self.peer.end().seq);
        info!(own = self.own.end().seq, peer = self.peer.end().seq, pieces, "snapshot installed");
        self.dos.push(Do::Resynced(self.own.end().seq, self.peer.end().seq));
        for link in [Link::In, Link::Out] {
            self.greet_again(link, "a snapshot was installed: compare the logs");
        }
    }

    /// Logs that do not go on where the store ends are worth nothing without the peer.
    pub(super) fn set_all_aside(&mut self, storage: &mut dyn Storage) {
        warn!(
            "the store does not reach the logs, or is lost: both logs are set aside, the peer has to send everything"
        );
        for which in [Which::Own, Which::Peer] {
            storage.begin_at(which, 1);
        }
        self.set_store_aside(&StoreError("it does not reach the logs, or is lost".into()), storage);
        self.stay_behind(storage);
        assert!(
            self.rebuilds == 0,
            "this node lost its state while it ran; it starts again and gets it from the peer"
        );
    }

    /// After the next start too this node knows that it must not go on without the peer.
    pub(super) fn stay_behind(&mut self, storage: &mut dyn Storage) {
        self.behind = true;
        if let Err(error) = fill(storage, Vec::new(), Mark::behind()) {
            warn!(%error, "store not written");
        }
    }
}

fn fill(storage: &mut dyn Storage, pairs: Pairs, mark: Bytes) -> Result<(), StoreError> {
    let pairs = pairs.into_iter().map(|(key, value)| (key.to_vec(), Some(value))).collect();
    let store = storage.store();
    store.write(Batch { pairs, mark })?;
    store.flush()
}
