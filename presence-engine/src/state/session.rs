//! A JSM session: one bound resource of one user, with its stream management state (XEP-0198).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xmpp_core::jid::{BareJid, Jid};
use xmpp_core::sm::Handled;

use super::branch::Branch;
use super::early::{Early, EarlyOnes};
use crate::ids::StanzaId;
use crate::record::Record;

/// One number of the out-queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A stanza that must arrive.
    Stanza {
        /// Whose.
        id: StanzaId,
        /// Goes to offline storage if the session ends first.
        keep: bool,
        /// Another resource of the user has acknowledged it.
        seen: bool,
        /// As the client gets it.
        stanza: Bytes,
    },
    /// A volatile stanza was given this number (D2).
    Gap {
        /// Full JID whose presence it was; `None` for a chat state.
        about: Option<Jid>,
    },
}

impl Entry {
    /// What it counts for in [`JsmSession::out_stanzas`] and [`JsmSession::out_bytes`].
    fn size(&self) -> (u32, u64) {
        match self {
            Entry::Stanza { stanza, .. } => (1, stanza.len() as u64),
            Entry::Gap { .. } => (0, 0),
        }
    }
}

/// Why a session cannot be resumed with this `h` (XEP-0198 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeError {
    /// More than was ever sent: the stream ends with `handled-count-too-high`. Holds what was sent.
    TooHigh(u32),
    /// Less than the client said before: `item-not-found`.
    TooLow,
}

/// A session. Every field is replicated; what belongs to a socket lives in the engine's edge.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct JsmSession {
    /// The account.
    pub user: BareJid,
    /// The resource.
    pub resource: CompactString,
    /// Number of the last stanza of the client that was handled, from the binding on.
    pub inbound: u32,
    /// `inbound` when stream management was enabled: XEP-0198 counts from there. `None`: not enabled.
    pub enabled_at: Option<u32>,
    /// How long it outlives its stream, in milliseconds; 0: not resumable.
    pub resume_ms: u64,
    /// The client has, or is about to have, a second stream parked on the other node.
    pub dual: bool,
    /// How often it was resumed: names its present stream, so that what is left of an older one cannot come back (D5).
    pub streams: u32,
    /// What the client has handled of our stanzas, as it last said, modulo 2^32.
    pub acked: u32,
    /// Numbers `acked + 1`, `acked + 2`, ...
    pub out: VecDeque<Entry>,
    /// Stanzas in `out`, gaps not counted.
    pub out_stanzas: u32,
    /// Their size in bytes.
    pub out_bytes: u64,
    /// Full JIDs whose presence changed while the session had no stream: told when it is resumed (D2).
    pub missed: BTreeSet<Jid>,
    /// When it was bound, in milliseconds since 1970; or the stamp of what its predecessor left, where that is later.
    pub bound_ms: u64,
    /// Priority of its presence; `None` while it is not available (RFC 6121 4.7.2.3).
    pub priority: Option<i8>,
    /// The last presence that its contacts were told, stamped with its full JID.
    pub presence: Bytes,
    /// Contacts believe it to be available. With `priority` the same but for one that was bound in the place of an
    /// available session and has sent no presence yet (D14).
    pub visible: bool,
    /// Where it sent directed presence (RFC 6121 4.6), as addressed.
    pub directed: BTreeSet<Jid>,
    /// It asked for the roster and gets roster pushes (RFC 6121 2.2).
    pub interested: bool,
    /// It gets copies of its user's messages (XEP-0280).
    pub carbons: bool,
    /// When it lost its stream, in milliseconds since 1970.
    pub detached_ms: Option<u64>,
    /// There may have been another branch of it: only a client of this one may resume (D6).
    pub uncertain: Option<Branch>,
    /// Number of the highest one-time token that was used; lower ones are dead (D16). 0: none was.
    pub token: u32,
    /// What it was given while stream management was off, and may not have.
    pub early: EarlyOnes,
}

impl JsmSession {
    pub(super) fn new(user: BareJid, resource: CompactString, bound_ms: u64) -> JsmSession {
        JsmSession {
            user,
            resource,
            inbound: 0,
            enabled_at: None,
            resume_ms: 0,
            dual: false,
            streams: 0,
            acked: 0,
            out: VecDeque::new(),
            out_stanzas: 0,
            out_bytes: 0,
            missed: BTreeSet::new(),
            bound_ms,
            priority: None,
            presence: Bytes::new(),
            visible: false,
            directed: BTreeSet::new(),
            interested: false,
            carbons: false,
            detached_ms: None,
            uncertain: None,
            token: 0,
            early: EarlyOnes::default(),
        }
    }

    /// Whether something is due at some time: the end of the wait for its client, or the word to contacts who believe it
    /// available although it never said so (D14).
    pub fn is_timed(&self) -> bool {
        self.detached_ms.is_some() || self.is_believed()
    }

    /// Contacts believe it to be available, and it has sent no presence.
    pub fn is_believed(&self) -> bool {
        self.priority.is_none() && (self.visible || !self.directed.is_empty())
    }

    /// Whether a lost stream may be resumed.
    pub fn resumable(&self) -> bool {
        self.enabled_at.is_some() && self.resume_ms > 0
    }

    /// What XEP-0198 counts of the client's stanzas.
    pub fn h(&self) -> Handled {
        Handled(self.inbound.wrapping_sub(self.enabled_at.unwrap_or(self.inbound)))
    }

    /// Whether the stanza waits in the out-queue.
    pub fn holds(&self, stanza: StanzaId) -> bool {
        self.out.iter().any(|entry| matches!(entry, Entry::Stanza { id, .. } if *id == stanza))
    }

    /// Another resource has acknowledged the stanza. Whether that is news here.
    pub(super) fn mark_seen(&mut self, stanza: StanzaId) -> bool {
        let mut news = self.early.mark_seen(stanza);
        for entry in &mut self.out {
            if let Entry::Stanza { id, seen: seen @ false, .. } = entry
                && *id == stanza
            {
                (*seen, news) = (true, true);
            }
        }
        news
    }

    /// The session's own presence (RFC 6121 4). Unavailable takes back directed presence too (4.6.3). What nobody was
    /// told is not kept: unavailable once more.
    pub(super) fn set_presence(&mut self, priority: Option<i8>, stanza: Bytes) {
        if priority.is_some() || self.visible {
            self.presence = stanza;
        }
        self.priority = priority;
        self.visible = priority.is_some();
        if priority.is_none() {
            self.directed.clear();
        }
    }

    /// Number of the last stanza given to the client.
    pub fn sent(&self) -> u32 {
        self.acked.wrapping_add(self.out.len() as u32)
    }

    /// Whether `h` can be the client's count: between what it said before and what was sent.
    pub fn check(&self, h: u32) -> Result<(), ResumeError> {
        let ahead = h.wrapping_sub(self.acked);
        match ahead {
            n if n <= self.out.len() as u32 => Ok(()),
            n if n < 1 << 31 => Err(ResumeError::TooHigh(self.sent())),
            _ => Err(ResumeError::TooLow),
        }
    }

    /// Appends to the out-queue. Without stream management nothing is numbered: what is let go counts as delivered, and what
    /// may not have been is told apart ([`Early`]).
    pub(super) fn queue(&mut self, entry: Entry) {
        match entry {
            Entry::Stanza { id, keep: true, seen, stanza } if self.enabled_at.is_none() => {
                self.early.push(Early { id, seen, stanza });
            }
            _ if self.enabled_at.is_none() => {}
            // Nobody gets it now, so it needs no number: once is enough, however often the contact changes.
            Entry::Gap { about: Some(about) } if self.detached_ms.is_some() => _ = self.missed.insert(about),
            entry => {
                let (stanzas, bytes) = entry.size();
                (self.out_stanzas, self.out_bytes) = (self.out_stanzas + stanzas, self.out_bytes + bytes);
                self.out.push_back(entry);
            }
        }
    }

    /// Drops what is numbered up to `h`, and returns it. While stream management is off nothing is: then so many of the
    /// oldest of [`JsmSession::early`] were let go.
    pub(super) fn trim(&mut self, h: u32) -> Vec<Entry> {
        if self.enabled_at.is_none() {
            self.early.drop_first(h as usize);
            return Vec::new();
        }
        if self.check(h).is_err() {
            return Vec::new();
        }
        // Its client has heard of the enabling, and so of everything before it.
        self.early.clear();
        let n = h.wrapping_sub(self.acked) as usize;
        let gone: Vec<Entry> = self.out.drain(..n).collect();
        for (stanzas, bytes) in gone.iter().map(Entry::size) {
            (self.out_stanzas, self.out_bytes) = (self.out_stanzas - stanzas, self.out_bytes - bytes);
        }
        self.acked = h;
        gone
    }

    /// D2: the durable rest is numbered anew, without gaps, from h + 1; behind it comes one number for each full JID
    /// whose presence the client may not have seen.
    pub(super) fn resume(&mut self) {
        self.close_gaps(0);
        self.uncertain = None;
        self.streams = self.streams.wrapping_add(1);
    }

    /// The same behind `written`: the client has what is numbered up to there.
    fn reattach(&mut self, written: u32) {
        self.close_gaps(written.wrapping_sub(self.acked) as usize);
    }

    /// The session has a stream again, on which its first `given` entries were written.
    fn close_gaps(&mut self, given: usize) {
        let mut about = std::mem::take(&mut self.missed);
        let rest = self.out.split_off(given.min(self.out.len()));
        for entry in rest {
            match entry {
                Entry::Gap { about: jid } => about.extend(jid),
                stanza => self.out.push_back(stanza),
            }
        }
        self.out.extend(about.into_iter().map(|about| Entry::Gap { about: Some(about) }));
        self.detached_ms = None;
    }

    /// What the client was not given yet if it was given everything up to `written`.
    pub fn after(&self, written: u32) -> impl Iterator<Item = &Entry> {
        self.out.iter().skip(written.wrapping_sub(self.acked) as usize)
    }

    /// A client that names no epoch is on this branch if its stream goes on here.
    pub(super) fn is_here(&mut self) {
        if !self.dual {
            self.uncertain = None;
        }
    }

    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Enable { resume_ms, .. } => {
                self.enabled_at = Some(self.inbound);
                self.resume_ms = *resume_ms;
            }
            Record::Dual { .. } => self.dual = true,
            Record::Token { number, .. } => self.token = self.token.max(*number),
            Record::Resumed { .. } => self.resume(),
            Record::Reattached { written, .. } => self.reattach(*written),
            Record::Detached { at_ms, .. } => self.detached_ms = Some(*at_ms),
            _ => {}
        }
    }
}
