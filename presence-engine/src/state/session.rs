//! A JSM session: one bound resource of one user, with its stream management state (XEP-0198).

use std::collections::VecDeque;

use bytes::Bytes;
use compact_str::CompactString;
use xmpp_core::jid::BareJid;
use xmpp_core::sm::Handled;

use crate::ids::{Epoch, StanzaId};
use crate::record::Record;

/// One number of the out-queue.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Entry {
    /// A stanza that must arrive.
    Stanza {
        /// Whose.
        id: StanzaId,
        /// Goes to offline storage if the session ends first.
        keep: bool,
        /// As the client gets it.
        stanza: Bytes,
    },
    /// A volatile stanza was given this number (D2).
    Gap,
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
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
    /// Priority of its presence; `None` while it is not available (RFC 6121 4.7.2.3).
    pub priority: Option<i8>,
    /// Its last presence stanza.
    pub presence: Bytes,
    /// When it lost its stream, in milliseconds since 1970.
    pub detached_ms: Option<u64>,
    /// Set by a late takeover: only a client that was last told this epoch may resume (D6).
    pub uncertain: Option<Epoch>,
}

impl JsmSession {
    pub(super) fn new(user: BareJid, resource: CompactString) -> JsmSession {
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
            priority: None,
            presence: Bytes::new(),
            detached_ms: None,
            uncertain: None,
        }
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

    /// Appends to the out-queue. Without stream management nothing is kept: what is released counts as delivered.
    pub(super) fn queue(&mut self, entry: Entry) {
        if self.enabled_at.is_some() {
            self.out.push_back(entry);
        }
    }

    /// Drops what is numbered up to `h`.
    fn trim(&mut self, h: u32) {
        if self.check(h).is_ok() {
            let n = h.wrapping_sub(self.acked) as usize;
            self.out.drain(..n);
            self.acked = h;
        }
    }

    /// The client has what is numbered up to `written`; behind it, what left no body leaves no number either (D2).
    fn reattach(&mut self, written: u32) {
        let given = written.wrapping_sub(self.acked) as usize;
        let mut number = 0;
        self.out.retain(|entry| {
            number += 1;
            number <= given || matches!(entry, Entry::Stanza { .. })
        });
        self.detached_ms = None;
    }

    /// What the client was not given yet if it was given everything up to `written`.
    pub fn after(&self, written: u32) -> impl Iterator<Item = &Entry> {
        self.out.iter().skip(written.wrapping_sub(self.acked) as usize)
    }

    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Enable { resume_ms, .. } => {
                self.enabled_at = Some(self.inbound);
                self.resume_ms = *resume_ms;
            }
            Record::Dual { .. } => self.dual = true,
            Record::Trim { h, .. } => self.trim(*h),
            Record::Resumed { h, .. } => {
                self.trim(*h);
                // D2: the durable rest is numbered anew, without gaps, from h + 1.
                self.out.retain(|entry| matches!(entry, Entry::Stanza { .. }));
                self.detached_ms = None;
                self.uncertain = None;
                self.streams = self.streams.wrapping_add(1);
            }
            Record::Reattached { written, .. } => self.reattach(*written),
            Record::Detached { at_ms, .. } => self.detached_ms = Some(*at_ms),
            _ => {}
        }
    }
}
